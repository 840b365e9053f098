//! The controller's key files for a private stack, made anew for each one.
//!
//! Four files: the RS256 pair for the broker's tokens (the public half is configured in RabbitMQ), the Ed25519 key
//! that signs jobs, and the key-encryption key for secrets at rest. They are for throw-away installations; nothing here
//! is ever used with a real fleet.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der},
    rand,
    rsa::{KeyPair as RsaKeyPair, KeySize},
    signature::{Ed25519KeyPair, KeyPair as _},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::StackError;

/// Where the key files are.
#[derive(Clone, Debug)]
pub struct KeyFiles {
    /// RSA-2048, PKCS#8 PEM: signs the broker's tokens (RS256, key id `k1`).
    pub broker_token_key: PathBuf,
    /// Its public half, SubjectPublicKeyInfo PEM: what RabbitMQ verifies tokens with.
    pub broker_token_public: PathBuf,
    /// Ed25519, PKCS#8 (version 1) PEM: signs jobs.
    pub signing_key: PathBuf,
    /// 32 random bytes in base64 (standard alphabet, padded, one line): encrypts secrets at rest.
    pub kek: PathBuf,
}

impl KeyFiles {
    /// Makes all keys and writes them below `dir`, readable by the owner alone.
    ///
    /// # Errors
    /// [`StackError::Key`] or [`StackError::Io`].
    pub fn generate(dir: &Path) -> Result<Self, StackError> {
        let failed = |what| move |_| StackError::Key { what };
        fs::create_dir_all(dir).map_err(StackError::io(format!("creating {}", dir.display())))?;
        let files = Self {
            broker_token_key: dir.join("broker-token.pem"),
            broker_token_public: dir.join("broker-token-public.pem"),
            signing_key: dir.join("controller-signing.pem"),
            kek: dir.join("kek.key"),
        };

        let rsa = RsaKeyPair::generate(KeySize::Rsa2048).map_err(failed("broker's token key"))?;
        let private: Pkcs8V1Der<'_> = rsa.as_der().map_err(failed("broker's token key"))?;
        let public: PublicKeyX509Der<'_> = rsa.public_key().as_der().map_err(failed("broker's public token key"))?;
        write_private(&files.broker_token_key, &pem("PRIVATE KEY", private.as_ref()))?;
        write_private(&files.broker_token_public, &pem("PUBLIC KEY", public.as_ref()))?;

        let ed25519 = Ed25519KeyPair::generate().map_err(failed("signing key"))?;
        let signing = ed25519.to_pkcs8v1().map_err(failed("signing key"))?;
        write_private(&files.signing_key, &pem("PRIVATE KEY", signing.as_ref()))?;

        let mut kek = [0; 32];
        rand::fill(&mut kek).map_err(failed("key-encryption key"))?;
        write_private(&files.kek, &format!("{}\n", STANDARD.encode(kek)))?;
        Ok(files)
    }
}

/// A random word of `bytes` bytes in hexadecimal, for passwords and marks.
pub(crate) fn random_word(bytes: usize) -> Result<String, StackError> {
    let mut buffer = vec![0; bytes];
    rand::fill(&mut buffer).map_err(|_| StackError::Key { what: "random password" })?;
    Ok(hex::encode(buffer))
}

/// Writes a file that only its owner may read; an older one of the same name is replaced.
pub(super) fn write_private(path: &Path, text: &str) -> Result<(), StackError> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(StackError::io(format!("writing {}", path.display())))
}

/// RFC 7468 text: lines of 64 characters.
fn pem(label: &str, der: &[u8]) -> String {
    let encoded = STANDARD.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = more;
    }
    text.push_str("-----END ");
    text.push_str(label);
    text.push_str("-----\n");
    text
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt as _, process::Command};

    use super::*;

    #[test]
    fn openssl_reads_every_key_and_only_the_owner_may() {
        let dir = tempfile::tempdir().unwrap();
        let files = KeyFiles::generate(dir.path()).unwrap();
        for (file, public, word) in [
            (&files.broker_token_key, false, "2048 bit"),
            (&files.broker_token_public, true, "2048 bit"),
            (&files.signing_key, false, "ED25519"),
        ] {
            let mut openssl = Command::new("openssl");
            openssl.args(["pkey", "-noout", "-text", "-in"]).arg(file);
            if public {
                openssl.arg("-pubin");
            }
            let output = openssl.output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && text.contains(word), "{}: {text}", file.display());
            assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
        }
        let kek = STANDARD.decode(fs::read_to_string(&files.kek).unwrap().trim()).unwrap();
        assert_eq!(kek.len(), 32);
    }
}
