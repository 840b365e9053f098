//! Does a service use the certificate? Asked again and again within the probe's time, because many services take up a new
//! certificate a moment after their reload command has ended.

use std::io::{Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};
use trustfleet_cmp::text::sanitise;
use trustfleet_pki::Certificate;

/// Longest time of one connection, handshake included.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Largest file that is looked into, bytes.
const FILE_MAX: u64 = 1024 * 1024;

/// Whether two serial numbers are one, however they are written.
pub(super) fn same_serial(a: &str, b: &str) -> bool {
    let plain = |text: &str| {
        let digits: String = text.chars().filter(|c| *c != ':').collect();
        let digits = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")).unwrap_or(&digits);
        let hex = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
        hex.then(|| digits.trim_start_matches('0').to_ascii_uppercase())
    };
    plain(a).is_some_and(|a| Some(a) == plain(b))
}

/// What a probe looks for.
#[derive(Clone, Debug)]
pub(super) enum Wanted {
    /// The certificate with this serial number.
    Serial(String),
    /// Trust anchors: these and none of those (S57).
    Anchors {
        /// All of these.
        trusted: Vec<Certificate>,
        /// None of these.
        retired: Vec<Certificate>,
    },
}

impl Wanted {
    /// In what a program printed: a serial number, or SHA-256 fingerprints.
    ///
    /// # Errors
    /// What is there instead.
    pub(super) fn in_output(&self, output: &str) -> Result<String, String> {
        match self {
            Self::Serial(serial) => in_output(output, serial),
            Self::Anchors { trusted, retired } => {
                let printed: String = output.chars().filter(|c| *c != ':').map(|c| c.to_ascii_lowercase()).collect();
                let words: Vec<&str> = printed.split(|c: char| !c.is_ascii_hexdigit()).collect();
                compare("the command prints", trusted, retired, |anchor| {
                    words.contains(&hex::encode(anchor.sha256_fingerprint()).as_str())
                })
            }
        }
    }

    /// In a file.
    ///
    /// # Errors
    /// What is there instead.
    pub(super) fn in_file(&self, path: &str) -> Result<String, String> {
        match self {
            Self::Serial(serial) => in_file(path, serial),
            Self::Anchors { trusted, retired } => {
                let found = certificates(path)?;
                compare(&format!("{path} holds"), trusted, retired, |anchor| found.contains(anchor))
            }
        }
    }

    /// In a handshake: the certificate that the server presents, or the CAs whose certificates it takes from clients. Those are
    /// names: of two anchors with one name nobody can tell which it has. Blocks for at most a few seconds.
    ///
    /// # Errors
    /// What is there instead, or why there was no handshake.
    pub(super) fn in_handshake(&self, address: &str, name: Option<&str>) -> Result<String, String> {
        match self {
            Self::Serial(serial) => in_handshake(address, name, serial),
            Self::Anchors { trusted, retired } => {
                let all: Vec<&Certificate> = trusted.iter().chain(retired).collect();
                let is_twin = |a: &&Certificate| all.iter().any(|b| *b != *a && b.subject() == a.subject());
                if let Some(twin) = all.iter().find(|anchor| is_twin(anchor)) {
                    return Err(format!(
                        "two anchors have the name {}, and {address} tells names alone: use a command or a file instead",
                        twin.subject()
                    ));
                }
                let told = handshake(address, name)?.1;
                if told.is_empty() {
                    return Err(format!("{address} names no CA whose certificates it takes from clients"));
                }
                compare(&format!("{address} takes certificates of"), trusted, retired, |anchor| {
                    told.iter().any(|name| name.as_slice() == anchor.subject().as_der())
                })
            }
        }
    }
}

/// All of `trusted` and none of `retired` must be there.
fn compare(
    what: &str,
    trusted: &[Certificate],
    retired: &[Certificate],
    is_there: impl Fn(&Certificate) -> bool,
) -> Result<String, String> {
    let names = |anchors: &[&Certificate]| {
        anchors.iter().map(|anchor| anchor.subject().to_string()).collect::<Vec<_>>().join("; ")
    };
    let lacking: Vec<&Certificate> = trusted.iter().filter(|anchor| !is_there(anchor)).collect();
    let left: Vec<&Certificate> = retired.iter().filter(|anchor| is_there(anchor)).collect();
    match (lacking.is_empty(), left.is_empty()) {
        (true, true) => Ok(format!("{what} {}", names(&trusted.iter().collect::<Vec<_>>()))),
        (false, _) => Err(format!("{what} other anchors, and not {}", names(&lacking))),
        (true, false) => Err(format!("{what} retired anchors as well: {}", names(&left))),
    }
}

/// What a program printed: the serial number alone or as `openssl x509 -serial` writes it.
///
/// # Errors
/// What is there instead.
fn in_output(output: &str, serial: &str) -> Result<String, String> {
    let mut words = output.split_whitespace().map(|word| word.rsplit('=').next().unwrap_or(word));
    if words.any(|word| same_serial(word, serial)) {
        return Ok(format!("the command prints {serial}"));
    }
    Err(format!("the command prints {:?}, and {serial} is not in it", sanitise(output)))
}

/// The certificates in a file.
///
/// # Errors
/// What is there instead.
fn in_file(path: &str, serial: &str) -> Result<String, String> {
    let found = certificates(path)?;
    if found.iter().any(|certificate| same_serial(&certificate.serial_hex(), serial)) {
        return Ok(format!("{path} holds {serial}"));
    }
    let serials: Vec<_> = found.iter().map(Certificate::serial_hex).collect();
    Err(format!("{path} holds {}, not {serial}", serials.join(", ")))
}

fn certificates(path: &str) -> Result<Vec<Certificate>, String> {
    let length = std::fs::metadata(path).map_err(|error| format!("{path}: {error}"))?.len();
    if length > FILE_MAX {
        return Err(format!("{path} has {length} bytes, at most {FILE_MAX} are read"));
    }
    let bytes = std::fs::read(path).map_err(|error| format!("{path}: {error}"))?;
    let pem = std::str::from_utf8(&bytes).ok().filter(|text| text.contains("-----BEGIN"));
    let found = match pem {
        Some(text) => Certificate::pem_bundle(text),
        None => Certificate::from_der(&bytes).map(|certificate| vec![certificate]),
    };
    found.map_err(|error| format!("{path}: {error}"))
}

/// What a TLS server presents, its possession of the key proved. Blocks for at most a few seconds.
///
/// # Errors
/// What it presents instead, or why there was no handshake.
fn in_handshake(address: &str, name: Option<&str>, serial: &str) -> Result<String, String> {
    let (presented, _) = handshake(address, name)?;
    let certificate = Certificate::from_der(&presented).map_err(|error| format!("{address}: {error}"))?;
    let found = certificate.serial_hex();
    if same_serial(&found, serial) {
        return Ok(format!("{address} presents {found}"));
    }
    Err(format!("{address} presents {found}, not {serial}"))
}

/// The certificate that a server presents, and the names of the CAs whose certificates it takes from clients, DER.
type Presented = (Vec<u8>, Vec<Vec<u8>>);

fn handshake(address: &str, name: Option<&str>) -> Result<Presented, String> {
    let wrong = |what: &str, error: &dyn std::fmt::Display| format!("{address}: {what}: {error}");
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']);
    let name =
        ServerName::try_from(name.unwrap_or(host).to_owned()).map_err(|error| wrong("no name of a server", &error))?;
    let provider = CryptoProvider::get_default().ok_or_else(|| "there is no TLS library".to_owned())?;
    let seen =
        Arc::new(Seen { provider: Arc::clone(provider), certificate: Mutex::default(), proved: Mutex::default() });
    let asked = Arc::new(Asked::default());
    let config = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong("TLS", &error))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&seen) as Arc<dyn ServerCertVerifier>)
        .with_client_cert_resolver(Arc::clone(&asked) as Arc<dyn ResolvesClientCert>);
    let mut tls = ClientConnection::new(Arc::new(config), name).map_err(|error| wrong("TLS", &error))?;
    let addresses = address.to_socket_addrs().map_err(|error| wrong("no address", &error))?;
    let mut refused = "it has no address".to_owned();
    for target in addresses {
        let mut socket = match TcpStream::connect_timeout(&target, CONNECT_MAX) {
            Ok(socket) => socket,
            Err(error) => {
                refused = wrong("no connection", &error);
                continue;
            }
        };
        let limited = socket.set_read_timeout(Some(CONNECT_MAX));
        let limited = limited.and_then(|()| socket.set_write_timeout(Some(CONNECT_MAX)));
        limited.map_err(|error| wrong("no connection", &error))?;
        let shaken = shake(&mut tls, &mut socket);
        // Also when the server ends the handshake because it wants a certificate of ours: it has shown its own by then.
        if let Some(certificate) = seen.proved() {
            return Ok((certificate, asked.names()));
        }
        return Err(shaken.err().unwrap_or_else(|| wrong("TLS", &"the server presented no certificate")));
    }
    Err(refused)
}

/// A handshake to its end, on a socket with time limits.
fn shake(tls: &mut ClientConnection, socket: &mut TcpStream) -> Result<(), String> {
    while tls.is_handshaking() {
        tls.complete_io(socket).map_err(|error| format!("the TLS handshake failed: {error}"))?;
    }
    tls.send_close_notify();
    let _ = tls.write_tls(socket).and_then(|_| socket.flush());
    let _ = socket.read(&mut [0; 1]);
    Ok(())
}

/// Notes whose certificates the server takes from clients, and shows none.
#[derive(Debug, Default)]
struct Asked(Mutex<Vec<Vec<u8>>>);

impl Asked {
    fn names(&self) -> Vec<Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ResolvesClientCert for Asked {
    fn resolve(&self, subjects: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = subjects.iter().map(|name| name.to_vec()).collect();
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

/// Looks at the certificate and trusts nobody: nothing is sent over this connection. What the server signs with its key is
/// verified, so that a certificate copied from elsewhere does not count.
#[derive(Debug)]
struct Seen {
    provider: Arc<CryptoProvider>,
    certificate: Mutex<Option<Vec<u8>>>,
    proved: Mutex<bool>,
}

impl Seen {
    fn proved(&self) -> Option<Vec<u8>> {
        let proved = *self.proved.lock().unwrap_or_else(PoisonError::into_inner);
        self.certificate.lock().unwrap_or_else(PoisonError::into_inner).clone().filter(|_| proved)
    }

    fn note(
        &self,
        verified: Result<HandshakeSignatureValid, rustls::Error>,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        *self.proved.lock().unwrap_or_else(PoisonError::into_inner) = verified.is_ok();
        verified
    }
}

impl ServerCertVerifier for Seen {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        *self.certificate.lock().unwrap_or_else(PoisonError::into_inner) = Some(end_entity.to_vec());
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        self.note(verify_tls12_signature(message, certificate, signature, algorithms))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        self.note(verify_tls13_signature(message, certificate, signature, algorithms))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serial_number_is_the_same_however_it_is_written() {
        for text in ["0A1B", "a1b", "0a:1b", "0x0A1B"] {
            assert!(same_serial(text, "0A1B"), "{text}");
        }
        for text in ["", "0A1C", "serial", "A1B0"] {
            assert!(!same_serial(text, "0A1B"), "{text}");
        }
        assert!(!same_serial("", ""));
    }

    #[test]
    fn the_output_of_openssl_is_understood() {
        assert!(in_output("serial=0A1B\n", "0A1B").is_ok());
        assert!(in_output("Serial Number:\n    0a:1b\n", "0A1B").is_ok());
        let other = in_output("serial=0A1C\n", "0A1B").unwrap_err();
        assert!(other.contains("0A1C") && other.contains("0A1B"), "{other}");
    }

    #[test]
    fn s57_anchors_are_seen_where_all_that_are_trusted_are_there_and_none_that_is_retired() {
        let [old, next] =
            [include_str!("../../tests/data/old-root.pem"), include_str!("../../tests/data/next-root.pem")];
        let root = |pem| Certificate::from_pem(pem).unwrap();
        let both = Wanted::Anchors { trusted: vec![root(old), root(next)], retired: Vec::new() };
        let one = Wanted::Anchors { trusted: vec![root(next)], retired: vec![root(old)] };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem").display().to_string();
        std::fs::write(&path, old).unwrap();
        assert!(both.in_file(&path).unwrap_err().contains("not CN=next root"));
        std::fs::write(&path, format!("{old}{next}")).unwrap();
        assert!(both.in_file(&path).is_ok() && one.in_file(&path).unwrap_err().contains("retired"));
        std::fs::write(&path, next).unwrap();
        assert!(one.in_file(&path).is_ok());
        let fingerprint = |pem| hex::encode_upper(root(pem).sha256_fingerprint());
        let printed = format!("sha256 Fingerprint={}\n", fingerprint(next));
        assert!(one.in_output(&printed).is_ok() && both.in_output(&printed).is_err());
        let twins = Wanted::Anchors { trusted: vec![root(next)], retired: Vec::new() };
        assert!(twins.in_handshake("127.0.0.1:1", None).is_err(), "nobody listens there");
    }
}
