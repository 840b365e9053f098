//! What a certificate's version holds, as services want it: rendered from the slot and nothing else, so that the same
//! slot always gives the same files.

use trustfleet_cmp::Crl;
use trustfleet_pki::Certificate;
use zeroize::Zeroizing;

use super::config::{Content, Format};
use crate::overlay::Overlay;
use crate::slots::{Slot, Slots};
use crate::store::{self, StoreError};

/// The certificate in use with its key and CA certificates.
pub(super) struct Material {
    /// The certificate.
    pub certificate: Certificate,
    /// CA certificates that came with it, the issuer first.
    pub chain: Vec<Certificate>,
    /// Trust anchors that its order named; none with versions of an older agent.
    pub anchors: Vec<Certificate>,
    /// CA certificates that the CA has named since.
    pub fresh: Vec<Certificate>,
    /// The CRL of its CA, DER.
    pub crl: Option<Vec<u8>>,
    /// Its private key as it is kept; none when a token keeps it.
    pub key_pem: Option<Zeroizing<String>>,
}

impl Material {
    /// Reads a slot.
    ///
    /// # Errors
    /// The slot is empty, or cannot be read.
    pub(super) fn read(slots: &Slots, slot: Slot) -> Result<Self, StoreError> {
        let corrupt = |detail: &str| StoreError::Corrupt { path: slots.link(slot), detail: detail.to_owned() };
        let (certificate, _) = slots.certificate(slot)?.ok_or_else(|| corrupt("there is no certificate"))?;
        let folder = slots.folder(slot).ok_or_else(|| corrupt("it leads nowhere"))?;
        let key = store::load(&Slots::key_file(&folder))?.map(Zeroizing::new);
        let key_pem =
            key.and_then(|bytes| std::str::from_utf8(&bytes).ok().map(|text| Zeroizing::new(text.to_owned())));
        let fresh = store::load(&slots.ca_file())?.unwrap_or_default();
        let fresh = Certificate::pem_bundle(&String::from_utf8_lossy(&fresh)).unwrap_or_default();
        let crl = store::load(&slots.crl_file())?;
        let (mut anchors, mut chain) = (slots.anchors(slot), slots.chain(slot));
        let mut fresh = fresh;
        if let Some(overlay) = Overlay::load(slots)? {
            anchors = overlay.applied(slots.job(slot), anchors);
            chain.retain(|ca| !overlay.retires(ca) || anchors.contains(ca));
            fresh.retain(|ca| !overlay.retires(ca) || anchors.contains(ca));
        }
        Ok(Self { certificate, chain, anchors, fresh, crl, key_pem })
    }

    /// Every CA certificate, each once: the chain, then the anchors, then what the CA has named since.
    pub(super) fn ca_certificates(&self) -> Vec<&Certificate> {
        let mut all: Vec<&Certificate> = Vec::new();
        for certificate in self.chain.iter().chain(&self.anchors).chain(&self.fresh) {
            if !all.iter().any(|known| known.as_der() == certificate.as_der()) {
                all.push(certificate);
            }
        }
        all
    }

    /// The bytes of a file.
    ///
    /// # Errors
    /// A sentence: what is missing.
    pub(super) fn render(&self, content: &Content, format: Format) -> Result<Zeroizing<Vec<u8>>, String> {
        let bundle = |certificates: &mut dyn Iterator<Item = &Certificate>| {
            Zeroizing::new(certificates.map(Certificate::to_pem).collect::<String>().into_bytes())
        };
        match content {
            Content::Certificate => Ok(certificate(&self.certificate, format)),
            Content::Chain => Ok(bundle(&mut self.chain.iter().filter(|ca| !ca.is_self_issued()))),
            Content::Fullchain => {
                let chain = self.chain.iter().filter(|ca| !ca.is_self_issued());
                Ok(bundle(&mut std::iter::once(&self.certificate).chain(chain)))
            }
            // The anchors lead: programs that read one certificate of a file need the root.
            Content::Ca => {
                let all = self.ca_certificates();
                let (anchors, others): (Vec<_>, Vec<_>) =
                    all.into_iter().partition(|ca| self.anchors.iter().any(|anchor| anchor.as_der() == ca.as_der()));
                Ok(bundle(&mut anchors.into_iter().chain(others)))
            }
            Content::Crl => {
                let der = self.crl.as_deref().ok_or("there is no CRL yet")?;
                Ok(Zeroizing::new(match format {
                    Format::Der => der.to_vec(),
                    Format::Pem => Crl::from_der(der)?.to_pem().into_bytes(),
                }))
            }
            Content::Key => {
                let pem = self.key()?;
                match format {
                    Format::Pem => Ok(Zeroizing::new(pem.as_bytes().to_vec())),
                    Format::Der => key_der(pem),
                }
            }
            #[cfg(feature = "pkcs12")]
            Content::Pkcs12 { password_file } => {
                let password = Zeroizing::new(std::fs::read_to_string(password_file).map_err(|error| {
                    format!(
                        "the password of the PKCS #12 file cannot be read from {}: {error}",
                        password_file.display()
                    )
                })?);
                super::pkcs12::write(self, &key_der(self.key()?)?, password.trim_end_matches(['\r', '\n']))
            }
            #[cfg(not(feature = "pkcs12"))]
            Content::Pkcs12 { .. } => Err("this agent is built without PKCS #12".to_owned()),
        }
    }

    fn key(&self) -> Result<&str, String> {
        self.key_pem.as_deref().map(String::as_str).ok_or_else(|| "the private key is not in a file".to_owned())
    }
}

/// One certificate's bytes.
pub(super) fn certificate(certificate: &Certificate, format: Format) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(match format {
        Format::Pem => certificate.to_pem().into_bytes(),
        Format::Der => certificate.as_der().to_vec(),
    })
}

/// The DER inside a private key's PEM, encrypted or not.
fn key_der(pem: &str) -> Result<Zeroizing<Vec<u8>>, String> {
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
    if pem.contains("ENCRYPTED") {
        return Err("the private key is encrypted, and is exported as PEM only".to_owned());
    }
    match PrivateKeyDer::from_pem_slice(pem.as_bytes()) {
        Ok(PrivateKeyDer::Pkcs8(key)) => {
            let key: PrivatePkcs8KeyDer<'_> = key;
            Ok(Zeroizing::new(key.secret_pkcs8_der().to_vec()))
        }
        _ => Err("the private key is not PKCS #8".to_owned()),
    }
}
