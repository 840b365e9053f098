//! A CA for tests and the demonstration: it really issues, over CMP, to whoever has a secret or a certificate.
//!
//! The server's half of the protocol is `trustfleet_cmp::responder`; here are keys, certificates, the list of what was
//! issued, and the HTTP door. Everything is in memory and ends with the process. It proves state machines, never
//! encodings: those are tested against foreign implementations.
//!
//! What it must never do: listen on anything but 127.0.0.1, or be used as a real CA.

mod crl;
mod decide;
mod delays;
mod exchange;
mod faults;
mod issue;
#[cfg(test)]
mod kinds_tests;
mod ledger;
mod options;
mod questions;
mod server;
#[cfg(test)]
mod tests;

use std::{
    fs, io,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    sync::Arc,
};

use actix_web::dev::ServerHandle;
use serde_json::json;
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinHandle,
};
use trustfleet_model::clock::{Clock, SystemClock};
use trustfleet_pki::{Certificate, NameError};

use self::{exchange::Ca, issue::Authority};
pub use self::{
    faults::Fault,
    issue::IssueError,
    ledger::{Issued, Stats},
    options::{CaArgs, CaConfig, CaKeyType, Credential},
};
use crate::stack::{StackError, server_config};

/// Runs the lab CA until SIGTERM or Ctrl-C; prints `{"url":...,"dir":...}` on standard output when it is ready.
///
/// # Errors
/// What stands in the way of starting: see [`CaError`].
pub async fn run(args: CaArgs) -> Result<(), CaError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(CaError::Signal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(CaError::Signal)?;
    let mut running = start(args.try_into()?).await?;
    println!("{}", json!({ "url": running.url, "dir": running.dir }));
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        ended = &mut running.task => return ended.map_err(io::Error::other).flatten().map_err(CaError::Listen),
    }
    running.stop().await;
    Ok(())
}

/// Starts a lab CA inside this process (needs a tokio runtime); it answers when this returns.
///
/// # Errors
/// What stands in the way of starting: see [`CaError`].
pub async fn start(config: CaConfig) -> Result<RunningCa, CaError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, config.port)).map_err(CaError::Listen)?;
    let port = listener.local_addr().map_err(CaError::Listen)?.port();
    let authority = Authority::create(&config.organization, config.key_type, config.root_update, SystemClock.now())?;
    write_certificates(&config.dir, &authority)?;
    let (dir, hold, faults) = (config.dir.clone(), config.hold, config.faults.clone());
    let (root, issuing) = (authority.root.clone(), authority.issuing.clone());
    let tls = match &config.tls {
        Some((certificate, key)) => Some(server_config(certificate, key)?),
        None => None,
    };
    let scheme = if tls.is_some() { "https" } else { "http" };
    let ca = Arc::new(Ca::new(authority, config));
    let server = server::server(ca.clone(), listener, tls, server::Manners { hold, faults })?;
    let handle = server.handle();
    let task = tokio::spawn(server);
    Ok(RunningCa { url: format!("{scheme}://127.0.0.1:{port}/pkix/"), dir, root, issuing, ca, handle, task })
}

/// A lab CA that runs inside this process; end it by [`RunningCa::stop`].
#[derive(Debug)]
pub struct RunningCa {
    /// Where it answers CMP.
    pub url: String,
    /// Where root.pem, issuing.pem, chain.pem and cmp-signer.pem are.
    pub dir: PathBuf,
    /// The root: the trust anchor.
    pub root: Certificate,
    /// The issuing CA, whose subject is the recipient of requests.
    pub issuing: Certificate,
    ca: Arc<Ca>,
    handle: ServerHandle,
    task: JoinHandle<io::Result<()>>,
}

impl RunningCa {
    /// Adds a MAC credential, or replaces the secret of a reference value.
    pub fn add_secret(&self, reference: &str, secret: &str) {
        self.ca.add_secret(Credential { reference: reference.to_owned(), secret: secret.to_owned() });
    }

    /// What it has issued, in order.
    pub fn issued(&self) -> Vec<Issued> {
        self.ca.issued()
    }

    /// Its counters.
    pub fn stats(&self) -> Stats {
        self.ca.stats()
    }

    /// Marks a certificate as revoked, by its serial number in hexadecimal; false when there is none.
    pub fn revoke(&self, serial: &str) -> bool {
        self.ca.revoke(serial)
    }

    /// Approves what waits for approval, or denies it: one transaction by its id in hexadecimal, or all. How many there
    /// were.
    pub fn approve(&self, transaction_id: Option<&str>, yes: bool) -> usize {
        self.ca.approve(transaction_id, yes)
    }

    /// The transactions that wait, by their ids in hexadecimal.
    pub fn waiting(&self) -> Vec<String> {
        self.ca.waiting()
    }

    /// Stops answering; waits up to two seconds for exchanges that are under way.
    pub async fn stop(self) {
        self.handle.stop(true).await;
        let _ = self.task.await; // the server has ended; how does not matter any more
    }
}

fn write_certificates(dir: &Path, authority: &Authority) -> Result<(), CaError> {
    fs::create_dir_all(dir).map_err(|source| CaError::File { file: dir.to_owned(), source })?;
    let (root, issuing) = (authority.root.to_pem(), authority.issuing.to_pem());
    let files = [
        ("chain.pem", format!("{issuing}{root}")),
        ("root.pem", root),
        ("issuing.pem", issuing),
        ("cmp-signer.pem", authority.cmp_signer.to_pem()),
    ];
    for (name, content) in files {
        let file = dir.join(name);
        fs::write(&file, content).map_err(|source| CaError::File { file, source })?;
    }
    Ok(())
}

/// Why the lab CA does not run.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// A file that cannot be read or written.
    #[error("cannot use {}", file.display())]
    File {
        /// Which.
        file: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A file whose content does not fit.
    #[error("cannot use {}: {reason}", file.display())]
    Input {
        /// Which.
        file: PathBuf,
        /// What was expected.
        reason: String,
    },
    /// A MAC credential.
    #[error("--secret wants REF=SECRET, neither of them empty")]
    Secret,
    /// The names' common part.
    #[error("--organization is no name")]
    Organization(#[source] NameError),
    /// Who may revoke others' certificates.
    #[error("--ra is no name")]
    Ra(#[source] NameError),
    /// The CA's own keys and certificates.
    #[error("cannot make the CA's certificates")]
    Issue(#[from] IssueError),
    /// Certificate and key for TLS.
    #[error(transparent)]
    Tls(#[from] StackError),
    /// The port.
    #[error("cannot listen on 127.0.0.1")]
    Listen(#[source] io::Error),
    /// Signal handlers.
    #[error("cannot wait for signals")]
    Signal(#[source] io::Error),
}
