//! A lab CA with a folder in which the real `openssl cmp` works at it.

#![allow(dead_code, unreachable_pub)] // a module of several test binaries, each uses its own part

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use tempfile::TempDir;
use trustfleet_lab::ca::{CaConfig, RunningCa, start};
use trustfleet_pki::Certificate;

/// A running lab CA and a folder in which `openssl cmp` works.
pub struct Lab {
    pub ca: RunningCa,
    pub folder: TempDir,
}

pub const MAC: &str = "-ref dev1 -secret pass:s3cr3t-of-dev1 -mac hmacWithSHA256";

impl Lab {
    pub async fn with(change: impl FnOnce(&mut CaConfig)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = CaConfig::new(folder.path().join("ca")).with_secret("dev1", "s3cr3t-of-dev1");
        change(&mut config);
        Self { ca: start(config).await.unwrap(), folder }
    }

    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `openssl cmp` with this line of arguments, in the folder.
    pub async fn cmp(&self, line: &str) -> Output {
        let server = self.ca.url.trim_start_matches("http://").split('/').next().unwrap();
        let line =
            format!("cmp -config  -server {server} -path pkix/ -recipient /O=Trustfleet~Lab/CN=Lab~Issuing~CA {line}");
        // an empty -config, so that the machine's own does not matter
        let args: Vec<String> = line.split(' ').map(|arg| arg.replace('~', " ")).collect();
        openssl(self.folder.path().to_owned(), args).await
    }

    /// The same, which must succeed.
    pub async fn enrols(&self, line: &str) -> String {
        let output = self.cmp(line).await;
        let said = said(&output);
        assert!(output.status.success(), "openssl cmp {line}\n{said}");
        said
    }

    /// The same, which must fail; what it said.
    pub async fn is_refused(&self, line: &str) -> String {
        let output = self.cmp(line).await;
        let said = said(&output);
        assert!(!output.status.success(), "openssl cmp {line} succeeded\n{said}");
        said
    }

    pub async fn openssl(&self, line: &str) -> String {
        let args = line.split(' ').map(|arg| arg.replace('~', " ")).collect();
        let output = openssl(self.folder.path().to_owned(), args).await;
        assert!(output.status.success(), "openssl {line}\n{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub async fn key(&self, name: &str, rsa: bool) {
        let kind = if rsa { "RSA -pkeyopt rsa_keygen_bits:2048" } else { "EC -pkeyopt ec_paramgen_curve:P-256" };
        self.openssl(&format!("genpkey -algorithm {kind} -out {name}")).await;
    }

    /// The chain verifies as strictly as `openssl verify` can.
    pub async fn verifies(&self, name: &str) -> Certificate {
        let said = self
            .openssl(&format!(
                "verify -x509_strict -purpose sslclient -CAfile ca/root.pem -untrusted ca/issuing.pem {name}"
            ))
            .await;
        assert_eq!(said.trim(), format!("{name}: OK"));
        certificate(&self.path(name))
    }
}

async fn openssl(folder: PathBuf, args: Vec<String>) -> Output {
    tokio::task::spawn_blocking(move || Command::new("openssl").args(&args).current_dir(folder).output().unwrap())
        .await
        .unwrap()
}

/// `openssl cmp` logs on its standard output.
pub fn said(output: &Output) -> String {
    [output.stdout.as_slice(), &output.stderr].map(String::from_utf8_lossy).concat()
}

pub fn certificate(path: &Path) -> Certificate {
    Certificate::from_pem(&std::fs::read_to_string(path).unwrap()).unwrap()
}
