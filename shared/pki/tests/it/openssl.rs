//! A folder in which the `openssl` command makes keys and certificates.

use std::{fs, path::PathBuf, process::Command};

use tempfile::TempDir;
use trustfleet_pki::Certificate;

pub(crate) struct OpenSsl(TempDir);

impl OpenSsl {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs one command line (split at blanks; `~` in an argument stands for a blank) and gives its standard output.
    pub(crate) fn run(&self, line: &str) -> String {
        let args: Vec<String> = line.split_whitespace().map(|arg| arg.replace('~', " ")).collect();
        let output = Command::new("openssl").args(&args).current_dir(self.0.path()).output().unwrap();
        assert!(output.status.success(), "openssl {line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(name), content).unwrap();
    }

    pub(crate) fn key(&self, name: &str) {
        self.run(&format!("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out {name}.key"));
    }

    /// A self-signed CA `name.pem` with its key `name.key`.
    pub(crate) fn root(&self, name: &str, more: &str) -> Certificate {
        self.key(name);
        self.run(&format!("req -x509 -new -key {name}.key -subj /O=Lab/CN={name} -days 30 -out {name}.pem {more}"));
        self.certificate(name)
    }

    /// A certificate `name.pem` issued by `issuer` with the given lines of extensions.
    pub(crate) fn issued(&self, name: &str, issuer: &str, extensions: &str, more: &str) -> Certificate {
        self.key(name);
        self.run(&format!("req -new -key {name}.key -subj /O=Lab/CN={name} -out {name}.csr"));
        self.write(&format!("{name}.ext"), extensions);
        self.run(&format!(
            "x509 -req -in {name}.csr -CA {issuer}.pem -CAkey {issuer}.key -CAcreateserial -days 20 \
             -extfile {name}.ext -out {name}.pem {more}"
        ));
        self.certificate(name)
    }

    pub(crate) fn certificate(&self, name: &str) -> Certificate {
        Certificate::from_pem(&fs::read_to_string(self.path(&format!("{name}.pem"))).unwrap()).unwrap()
    }
}

pub(crate) const CA: &str = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign,digitalSignature\n\
                             subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n";
pub(crate) const END_ENTITY: &str = "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n\
                                     subjectKeyIdentifier=hash\nextendedKeyUsage=clientAuth\n";
