//! OpenSSL's CMP server with everything that an ir needs, and the two command lines that enrol there.
//!
//! Both clients get the same settings: the same ready RSA-2048 key, names of 40 characters, password-based MAC of SHA-256
//! with OpenSSL's count of iterations, implicit confirmation, and the same anchor that the certificate must lead to.

use std::{fs, io, net::SocketAddr, path::Path, time::Duration};

use rustix::process::Signal;
use tempfile::TempDir;

use super::{
    BenchError,
    process::{Line, installed, shipped_agent},
};
use crate::stack::process::{Process, mortal};

/// The CA's name, which the request is addressed to.
pub(crate) const CA: &str = "/O=Trustfleet Bench/CN=Mock CA";
/// Subject of the request: the common name has 40 characters.
pub(crate) const SUBJECT: &str = "/CN=ap-0001.building-07.berlin.example.netwk";
/// DNS name of the request, 40 characters.
pub(crate) const SAN: &str = "ap-0001.building-07.berlin.example.netwk";
/// Reference of the secret.
pub(crate) const REFERENCE: &str = "dev1";
/// What both sides know: 128 bits and more.
pub(crate) const SECRET: &str = "S3cret-of-dev1-with-128-bits";
/// Iterations of the MAC key: OpenSSL's client has no other count.
pub(crate) const ITERATIONS: u32 = 500;

const START_LIMIT: Duration = Duration::from_secs(20);

/// The running server; it ends when dropped, and its folder goes with it.
#[derive(Debug)]
pub(crate) struct Mock {
    address: SocketAddr,
    _process: Process,
    folder: TempDir,
}

impl Mock {
    /// Makes a CA and a ready key with its certificate (the server always answers with the same one), and starts
    /// `openssl cmp -port`.
    ///
    /// # Errors
    /// openssl is not there, or does not start.
    pub(crate) async fn start() -> Result<Self, BenchError> {
        let folder = folder().map_err(BenchError::io("making a folder"))?;
        make_files(folder.path())?;
        let log = folder.path().join("server.log");
        let mut command = mortal(installed("openssl", "openssl")?, "KILL", &[]);
        command.current_dir(folder.path()).args(["cmp", "-config", "", "-port", "0"]);
        command.args(["-srv_ref", "srv1", "-srv_secret", "file:secret", "-srv_trusted", "ca.pem"]);
        command.args(["-srv_untrusted", "ca.pem", "-rsp_cert", "device.pem", "-rsp_capubs", "ca.pem"]);
        command.arg("-grant_implicitconf");
        let mut process = Process::spawn("openssl cmp", command, &log, Signal::KILL)?;
        // ACCEPT [::]:40123 PID=4711
        let read = async || {
            let text = fs::read_to_string(&log).ok()?;
            let line = text.split_inclusive('\n').find(|line| line.starts_with("ACCEPT") && line.ends_with('\n'))?;
            line.split_whitespace().nth(1)?.rsplit(':').next()?.parse::<u16>().ok()
        };
        let port = process.until_ready(START_LIMIT, read).await?;
        Ok(Self { address: ([127, 0, 0, 1], port).into(), _process: process, folder })
    }

    /// Where files are.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What messages are posted to.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/pkix/", self.address)
    }

    /// `openssl cmp -cmd ir`.
    ///
    /// # Errors
    /// openssl is not there.
    pub(crate) fn openssl(&self) -> Result<Line, BenchError> {
        let server = self.address.to_string();
        let line = Line::installed("openssl", "openssl", &["cmp", "-config", "", "-cmd", "ir"], self.folder())?;
        Ok(line
            .and(&["-server", &server, "-path", "pkix/", "-recipient", CA, "-ref", REFERENCE])
            .and(&["-secret", "file:secret", "-mac", "hmacWithSHA256", "-newkey", "device.key", "-subject", SUBJECT])
            .and(&["-sans", SAN, "-implicit_confirm", "-out_trusted", "ca.pem", "-certout", "openssl.pem"]))
    }

    /// `trustfleet-agent cmp ir`.
    ///
    /// # Errors
    /// It is not built.
    pub(crate) fn agent(&self) -> Result<Line, BenchError> {
        let (server, iterations) = (self.address.to_string(), ITERATIONS.to_string());
        Ok(Line::new(shipped_agent()?, &["cmp", "ir"], self.folder())
            .and(&["--server", &server, "--path", "pkix/", "--recipient", CA, "--ref", REFERENCE])
            .and(&["--secret", "file:secret", "--mac", "hmac-sha256", "--iterations", &iterations])
            // OpenSSL's server answers by HMAC-SHA1 whatever it is asked with.
            .and(&["--allow-sha1", "--newkey", "device.key", "--subject", SUBJECT, "--sans", SAN])
            .and(&["--implicit-confirm", "--out-trusted", "ca.pem", "--certout", "agent.pem"]))
    }
}

/// In memory where the system has a place for that: our client waits until its files are on the disk, OpenSSL's does not,
/// and the disk is not what is measured.
fn folder() -> io::Result<TempDir> {
    let in_memory = Path::new("/dev/shm");
    let mut builder = tempfile::Builder::new();
    builder.prefix("trustfleet-bench-");
    builder.tempdir_in(in_memory).or_else(|_| builder.tempdir())
}

fn make_files(folder: &Path) -> Result<(), BenchError> {
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        fs::write(&path, text).map_err(BenchError::io(format!("writing {}", path.display())))
    };
    write("secret", SECRET)?;
    write("extensions", &format!("subjectAltName=DNS:{SAN}\nkeyUsage=critical,digitalSignature\n"))?;
    let openssl = |arguments: &[&str]| Line::installed("openssl", "openssl", arguments, folder)?.output();
    openssl(&[
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        "ca.key",
        "-out",
        "ca.pem",
        "-subj",
        CA,
        "-days",
        "2",
        "-addext",
        "keyUsage=critical,keyCertSign,cRLSign,digitalSignature",
    ])?;
    openssl(&["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", "device.key"])?;
    openssl(&["req", "-new", "-key", "device.key", "-subj", SUBJECT, "-out", "device.csr"])?;
    openssl(&[
        "x509",
        "-req",
        "-in",
        "device.csr",
        "-CA",
        "ca.pem",
        "-CAkey",
        "ca.key",
        "-set_serial",
        "0x4711",
        "-days",
        "2",
        "-extfile",
        "extensions",
        "-out",
        "device.pem",
    ])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subject_and_alternative_name_have_the_length_that_is_promised() {
        assert_eq!((SUBJECT.trim_start_matches("/CN=").len(), SAN.len()), (40, 40));
    }

    #[tokio::test]
    async fn both_clients_enrol_with_the_same_settings() {
        let mock = Mock::start().await.unwrap();
        mock.openssl().unwrap().output().unwrap();
        mock.agent().unwrap().output().unwrap();
        let read = |name: &str| fs::read_to_string(mock.folder().join(name)).unwrap();
        assert_eq!(read("openssl.pem"), read("device.pem"));
        assert_eq!(read("agent.pem").replace('\n', ""), read("device.pem").replace('\n', ""));
        assert!(mock.agent().unwrap().peak_bytes().unwrap() > 1_000_000.0);
    }
}
