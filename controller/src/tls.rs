//! TLS by rustls on aws-lc-rs: the certificate of the API's own listener, and the roots that verify other servers.
//!
//! What was read from files is read again when they change (a renewed certificate, a new root, a Kubernetes Secret whose
//! links were swapped). A bad file never takes the place of a good one.

mod client;
mod server;
mod watched;

use std::{io, path::PathBuf, sync::Arc};

use rustls::crypto::{CryptoProvider, aws_lc_rs};

pub(crate) use self::server::keep;
pub use self::{client::ClientTls, server::ServerTls};

/// TLS cannot be set up from the files that the configuration names.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("the file {} ({key}) cannot be read", path.display())]
    Unreadable {
        /// The configuration's key.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A file holds something else.
    #[error("the file {} ({key}) {what}", path.display())]
    Wrong {
        /// The configuration's key.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The system has no roots.
    #[error("the system's CA certificates cannot be found: name a PEM file by {key}")]
    NoSystemRoots {
        /// The configuration's key.
        key: &'static str,
    },
    /// The library refused.
    #[error("TLS cannot be set up")]
    Setup(#[source] rustls::Error),
}

/// The one cryptography of the house.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}
