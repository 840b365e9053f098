//! `trustfleet-agent cmp` as a child process, in a folder with the files of a small PKI.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use tempfile::TempDir;
use trustfleet_cmp::key::{KeyType, SoftwareKey};
use trustfleet_pki::Certificate;

use crate::authority::{Authority, Leaf, key};
use crate::openssl::{MockServer, folder};

/// Not to be found in any output, whatever happens.
pub const SECRET: &str = "hush-9d1f4c3ba07e5526-hush";
pub const REFERENCE: &str = "dev1";

/// A CA, a device's key, and the certificate that openssl's server will return for it.
pub struct Desk {
    pub folder: TempDir,
    pub ca: Authority,
    pub key: Arc<SoftwareKey>,
    pub issued: Certificate,
}

/// How a command ended.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub errors: String,
}

impl Desk {
    pub fn new() -> Self {
        Self::of(KeyType::Rsa2048, KeyType::P256)
    }

    /// With such a key of the CA, and such keys of the device and its factory identity.
    pub fn of(ca: KeyType, own: KeyType) -> Self {
        let ca = Authority::root("/O=Lab/CN=Mock CA", ca);
        let key = key(own);
        let issued = ca.issue(&Leaf::new("/CN=dev1", key.as_ref()));
        let desk = Self { folder: folder(), ca, key, issued };
        desk.write("ca.crt", &desk.ca.certificate.to_pem());
        desk.write("ca.key", &desk.ca.key.pkcs8_pem().unwrap());
        desk.write("dev.key", &desk.key.pkcs8_pem().unwrap());
        desk.write("issued.crt", &desk.issued.to_pem());
        desk.write("secret", &format!("{SECRET}\n"));
        let (identity_key, identity) = desk.ca.identity("/CN=factory", own);
        desk.write("factory.crt", &identity.to_pem());
        desk.write("factory.key", &identity_key.pkcs8_pem().unwrap());
        desk
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    pub fn read(&self, file: &str) -> String {
        fs::read_to_string(self.path(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
    }

    pub fn certificate(&self, file: &str) -> Certificate {
        Certificate::from_pem(&self.read(file)).unwrap()
    }

    pub fn write(&self, file: &str, content: &str) {
        use std::os::unix::fs::PermissionsExt as _;
        fs::write(self.path(file), content).unwrap();
        fs::set_permissions(self.path(file), fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// openssl's server with the secret.
    pub fn mac_server(&self, more: &[&str]) -> MockServer {
        let base = ["-srv_ref", REFERENCE, "-srv_secret", "file:secret", "-rsp_cert", "issued.crt"];
        MockServer::start(self.folder.path(), &[&base, more].concat())
    }

    /// openssl's server, signing with the CA's key.
    pub fn signature_server(&self, more: &[&str]) -> MockServer {
        let base = ["-srv_cert", "ca.crt", "-srv_key", "ca.key", "-srv_trusted", "ca.crt", "-rsp_cert", "issued.crt"];
        MockServer::start(self.folder.path(), &[&base, more].concat())
    }

    /// Runs `cmp` with words between spaces, in the folder; the secret must not be in what it says.
    pub fn cmp(&self, words: &str) -> Ran {
        ran(self.command(words).output().unwrap())
    }

    /// The same against openssl's server with the secret.
    pub fn by_mac(&self, verb: &str, server: &MockServer, words: &str) -> Ran {
        let own = format!("--ref {REFERENCE} --secret file:secret --allow-sha1 --trusted ca.crt");
        self.cmp(&format!("{verb} --server {}/pkix/ {own} {words}", server.address()))
    }

    /// The same against openssl's signing server.
    pub fn by_signature(&self, verb: &str, server: &MockServer, who: &str, words: &str) -> Ran {
        let own = format!("--cert {who}.crt --key {who}.key --trusted ca.crt");
        self.cmp(&format!("{verb} --server {}/pkix/ {own} {words}", server.address()))
    }

    pub fn command(&self, words: &str) -> Command {
        command(self.folder.path(), words)
    }
}

pub fn command(folder: &Path, words: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trustfleet-agent"));
    command.arg("cmp").args(words.split_whitespace()).current_dir(folder).stdin(Stdio::null());
    command.env("SECRET_OF_DEV1", SECRET).env_remove("RUST_LOG");
    command
}

pub fn ran(output: Output) -> Ran {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let ran = Ran { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), errors: text(&output.stderr) };
    assert!(!ran.out.contains(SECRET) && !ran.errors.contains(SECRET), "the secret is in the output");
    let hexadecimal = hex::encode(SECRET);
    assert!(!ran.out.contains(&hexadecimal) && !ran.errors.contains(&hexadecimal), "the secret is in the output");
    ran
}

impl Ran {
    /// It ended so.
    pub fn ends(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}\n{}", self.out, self.errors);
        self
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}", self.out))
    }

    /// Kinds of messages, in their order.
    pub fn kinds(&self) -> Vec<String> {
        let messages = self.json()["messages"].as_array().unwrap().clone();
        messages.iter().map(|message| message["kind"].as_str().unwrap().to_owned()).collect()
    }
}
