//! PKCS #12 files (RFC 7292), by a crate that the link to the broker brings along anyway.

use p12_keystore::{Certificate, KeyStore, KeyStoreEntry, PrivateKeyChain};
use trustfleet_pki::digest::sha256;
use zeroize::Zeroizing;

use super::material::Material;

/// Iterations of the key derivation, PBKDF2 with HMAC-SHA256: what OpenSSL 3 uses by default, and devices can take.
const ITERATIONS: u64 = 2_048;
/// How the entry is called in the file.
const ALIAS: &str = "trustfleet";

/// Key (PKCS #8, DER), certificate and chain under a password: PBES2 with AES-256, MAC by HMAC-SHA256.
pub(super) fn write(material: &Material, key: &[u8], password: &str) -> Result<Zeroizing<Vec<u8>>, String> {
    let wrong = |error: p12_keystore::error::Error| format!("the PKCS #12 file cannot be made: {error}");
    let certificates = std::iter::once(&material.certificate).chain(&material.chain);
    let chain: Result<Vec<_>, _> =
        certificates.map(|certificate| Certificate::from_der(certificate.as_der())).collect();
    let id = sha256(material.certificate.as_der());
    let mut store = KeyStore::new();
    let entry = PrivateKeyChain::new(key, &id[..20], chain.map_err(wrong)?);
    store.add_entry(ALIAS, KeyStoreEntry::PrivateKeyChain(entry));
    let writer = store.writer(password).encryption_iterations(ITERATIONS).mac_iterations(ITERATIONS);
    writer.write().map(Zeroizing::new).map_err(wrong)
}
