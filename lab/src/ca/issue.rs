//! Makes certificates: the lab CA's root, its issuing CA, the certificate that it signs CMP messages with, and end
//! entities' certificates.
//!
//! Private-key operations are the keys' own (aws-lc-rs). What it must never do: change a name or a public key that a
//! request carries; what cannot be certified byte for byte is refused.

use std::{sync::Arc, time::Duration};

use der::{
    Any, DateTime, Decode, Encode,
    asn1::{BitString, GeneralizedTime, Ia5String, OctetString, UtcTime},
    flagset::FlagSet,
    oid::AssociatedOid,
};
use jiff::{SignedDuration, Timestamp};
use trustfleet_cmp::key::{KeyError, KeyType, SignError, Signer, SoftwareKey};
use trustfleet_pki::{
    Certificate, CertificateError, KeyKind, Name, NameError, ObjectIdentifier, PublicKey, certificate::CMC_CA,
    public_key::PublicKeyError,
};
use x509_cert::{
    TbsCertificate, Version,
    ext::{
        Extension,
        pkix::{
            AuthorityKeyIdentifier, BasicConstraints, CrlDistributionPoints, ExtendedKeyUsage, KeyUsage, KeyUsages,
            SubjectKeyIdentifier,
            crl::dp::DistributionPoint,
            name::{DistributionPointName, GeneralName},
        },
    },
    serial_number::SerialNumber,
    spki::SubjectPublicKeyInfoOwned,
    time::{Time, Validity},
};

use super::crl::NextRoot;

const CLIENT_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.2");
const SERVER_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.1");
pub(super) const SUBJECT_ALT_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.17");

/// How long the lab's own CA certificates are valid.
const CA_LIFETIME: SignedDuration = SignedDuration::from_hours(24 * 3650);

/// A root and an issuing CA below it, with their keys.
#[derive(Debug)]
pub(super) struct Authority {
    pub(super) root: Certificate,
    pub(super) issuing: Certificate,
    /// Signs CMP messages; not the CA itself, so that a client has to look at its key purpose.
    pub(super) cmp_signer: Certificate,
    pub(super) cmp_signer_key: Arc<SoftwareKey>,
    /// A device's certificate of this CA, for misbehaving: it may not answer (V6).
    pub(super) sibling: Certificate,
    pub(super) sibling_key: Arc<SoftwareKey>,
    /// The root that follows, where there is one.
    pub(super) next: Option<NextRoot>,
    issuing_key: SoftwareKey,
}

/// What goes into an end entity's certificate.
#[derive(Debug)]
pub(super) struct Subject<'a> {
    pub(super) name: &'a Name,
    /// The DER inside the subjectAltName extension that was asked for.
    pub(super) alternative_names: Option<&'a [u8]>,
    /// The DER of the SubjectPublicKeyInfo.
    pub(super) public_key: &'a [u8],
    /// Distribution point of the CRL.
    pub(super) crl_url: Option<&'a str>,
}

/// Why no certificate was made.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// A name that cannot go into a certificate unchanged.
    #[error("the name cannot be certified")]
    Name(#[from] NameError),
    /// A public key that cannot be certified.
    #[error("the public key cannot be certified")]
    PublicKey(#[from] PublicKeyError),
    /// A key that the lab CA does not want.
    #[error("keys of kind {kind} are not certified: RSA of 2048 bits or more, P-256, P-384, Ed25519 and ML-DSA are")]
    WeakKey {
        /// What kind of key it is.
        kind: KeyKind,
    },
    /// Something in the request does not survive being encoded.
    #[error("{what} is not canonical DER and would change")]
    NotCanonical {
        /// Which part.
        what: &'static str,
    },
    /// A certificate without any name.
    #[error("neither a subject nor an alternative name was asked for")]
    NoName,
    /// DER.
    #[error("encoding failed")]
    Der(#[from] der::Error),
    /// The CA's own key.
    #[error("making a key failed")]
    Key(#[from] KeyError),
    /// The CA's own key.
    #[error("signing failed")]
    Sign(#[from] SignError),
    /// No randomness for the serial number.
    #[error("the system gives no randomness")]
    Random,
    /// A moment outside the years of X.509.
    #[error("a validity outside the years 1970 to 9999")]
    Time,
    /// The result cannot be read again.
    #[error("the certificate that was made cannot be read")]
    Unreadable(#[from] CertificateError),
}

impl Authority {
    /// A new root, issuing CA and CMP signer named after `organization`, with keys of one type.
    pub(super) fn create(
        organization: &Name,
        key_type: KeyType,
        root_update: bool,
        now: Timestamp,
    ) -> Result<Self, IssueError> {
        let base = if organization.is_null() { String::new() } else { organization.to_slash() };
        let name = |common_name: &str| Name::parse(&format!("{base}/CN={common_name}"));
        let root_key = SoftwareKey::generate(key_type)?;
        let issuing_key = SoftwareKey::generate(key_type)?;
        let cmp_signer_key = Arc::new(SoftwareKey::generate(key_type)?);
        let root_name = name("Lab Root CA")?;
        let ca_usage = KeyUsages::KeyCertSign | KeyUsages::CRLSign;
        let root = root_certificate(&root_name, root_key.public_key_der(), &root_key, now)?;
        let issuing = Draft {
            subject: &name("Lab Issuing CA")?,
            public_key: issuing_key.public_key_der(),
            extensions: ca_extensions(Some(0), ca_usage | KeyUsages::DigitalSignature)?,
            lifetime: CA_LIFETIME,
        }
        .sign(&root_name, &root_key, now)?;
        let cmp_signer = Draft {
            subject: &name("Lab CMP Signer")?,
            public_key: cmp_signer_key.public_key_der(),
            extensions: end_entity_extensions(KeyUsages::DigitalSignature.into(), vec![CMC_CA], None)?,
            lifetime: CA_LIFETIME,
        }
        .sign(&issuing.subject(), &issuing_key, now)?;
        let sibling_key = Arc::new(SoftwareKey::generate(KeyType::P256)?);
        let sibling = Draft {
            subject: &name("Lab Sibling Device")?,
            public_key: sibling_key.public_key_der(),
            extensions: end_entity_extensions(KeyUsages::DigitalSignature.into(), vec![CLIENT_AUTH], None)?,
            lifetime: CA_LIFETIME,
        }
        .sign(&issuing.subject(), &issuing_key, now)?;
        let next = root_update.then(|| NextRoot::after(&root, &root_key, key_type, now)).transpose()?;
        Ok(Self { root, issuing, cmp_signer, cmp_signer_key, sibling, sibling_key, next, issuing_key })
    }

    /// Signs certificates and CRLs.
    pub(super) const fn issuing_key(&self) -> &SoftwareKey {
        &self.issuing_key
    }

    /// An end entity's certificate, valid for `lifetime` from `now` (whole seconds).
    pub(super) fn issue(
        &self,
        subject: &Subject<'_>,
        lifetime: SignedDuration,
        now: Timestamp,
    ) -> Result<Certificate, IssueError> {
        if subject.name.is_null() && subject.alternative_names.is_none() {
            return Err(IssueError::NoName);
        }
        let usage = match PublicKey::from_spki_der(subject.public_key)?.algorithm() {
            KeyKind::Rsa { bits } if bits >= 2048 => KeyUsages::DigitalSignature | KeyUsages::KeyEncipherment,
            KeyKind::RsaPss { bits } if bits >= 2048 => KeyUsages::DigitalSignature.into(),
            KeyKind::EcP256 | KeyKind::EcP384 | KeyKind::Ed25519 => KeyUsages::DigitalSignature.into(),
            KeyKind::MlDsa44 | KeyKind::MlDsa65 | KeyKind::MlDsa87 => KeyUsages::DigitalSignature.into(),
            kind => return Err(IssueError::WeakKey { kind }),
        };
        let alternative = subject.alternative_names.map(|value| (value, subject.name.is_null()));
        let mut extensions = end_entity_extensions(usage, vec![CLIENT_AUTH, SERVER_AUTH], alternative)?;
        if let Some(url) = subject.crl_url {
            extensions.push(extension(false, &distribution_point(url)?)?);
        }
        Draft { subject: subject.name, public_key: subject.public_key, extensions, lifetime }.sign(
            &self.issuing.subject(),
            &self.issuing_key,
            now,
        )
    }
}

/// A root's certificate for a key, signed by the root's own or its other key.
pub(super) fn root_certificate(
    name: &Name,
    public_key: &[u8],
    signer: &SoftwareKey,
    now: Timestamp,
) -> Result<Certificate, IssueError> {
    Draft {
        subject: name,
        public_key,
        extensions: ca_extensions(None, KeyUsages::KeyCertSign | KeyUsages::CRLSign)?,
        lifetime: CA_LIFETIME,
    }
    .sign(name, signer, now)
}

/// A certificate before it has issuer, serial number and signature.
struct Draft<'a> {
    subject: &'a Name,
    public_key: &'a [u8],
    extensions: Vec<Extension>,
    lifetime: SignedDuration,
}

impl Draft<'_> {
    fn sign(self, issuer: &Name, key: &SoftwareKey, now: Timestamp) -> Result<Certificate, IssueError> {
        let subject_public_key_info = SubjectPublicKeyInfoOwned::from_der(self.public_key)?;
        if subject_public_key_info.to_der()? != self.public_key {
            return Err(IssueError::NotCanonical { what: "the public key" });
        }
        let own_id = PublicKey::from_spki_der(self.public_key)?.key_identifier();
        let issuer_id = PublicKey::from_spki_der(key.public_key_der())?.key_identifier();
        let mut extensions = self.extensions;
        extensions.push(extension(false, &SubjectKeyIdentifier(OctetString::new(own_id)?))?);
        let authority = AuthorityKeyIdentifier {
            key_identifier: Some(OctetString::new(issuer_id)?),
            ..AuthorityKeyIdentifier::default()
        };
        extensions.push(extension(false, &authority)?);
        let body = TbsCertificate {
            version: Version::V3,
            serial_number: random_serial()?,
            signature: key.algorithm(),
            issuer: issuer.to_x509()?,
            validity: Validity {
                not_before: time(now)?,
                not_after: time(now.checked_add(self.lifetime).map_err(|_| IssueError::Time)?)?,
            },
            subject: self.subject.to_x509()?,
            subject_public_key_info,
            issuer_unique_id: None,
            subject_unique_id: None,
            extensions: Some(extensions),
        };
        let signature = key.sign(&body.to_der()?)?;
        let certificate = x509_cert::Certificate {
            signature_algorithm: body.signature.clone(),
            tbs_certificate: body,
            signature: BitString::from_bytes(&signature)?,
        };
        Ok(Certificate::from_der(&certificate.to_der()?)?)
    }
}

fn ca_extensions(path_length: Option<u8>, usage: FlagSet<KeyUsages>) -> Result<Vec<Extension>, IssueError> {
    Ok(vec![
        extension(true, &BasicConstraints { ca: true, path_len_constraint: path_length })?,
        extension(true, &KeyUsage(usage))?,
    ])
}

/// `alternative`: the extension's value, and whether it is critical (RFC 5280 section 4.2.1.6: with an empty subject).
fn end_entity_extensions(
    usage: FlagSet<KeyUsages>,
    purposes: Vec<ObjectIdentifier>,
    alternative: Option<(&[u8], bool)>,
) -> Result<Vec<Extension>, IssueError> {
    let mut extensions = vec![
        extension(true, &BasicConstraints { ca: false, path_len_constraint: None })?,
        extension(true, &KeyUsage(usage))?,
        extension(false, &ExtendedKeyUsage(purposes))?,
    ];
    if let Some((value, critical)) = alternative {
        Any::from_der(value)?; // one whole element; the names in it are the requester's
        extensions.push(Extension { extn_id: SUBJECT_ALT_NAME, critical, extn_value: OctetString::new(value)? });
    }
    Ok(extensions)
}

fn distribution_point(url: &str) -> Result<CrlDistributionPoints, IssueError> {
    let url = GeneralName::UniformResourceIdentifier(Ia5String::new(url)?);
    let name = Some(DistributionPointName::FullName(vec![url]));
    Ok(CrlDistributionPoints(vec![DistributionPoint { distribution_point: name, reasons: None, crl_issuer: None }]))
}

fn extension<E: Encode + AssociatedOid>(critical: bool, value: &E) -> Result<Extension, IssueError> {
    Ok(Extension { extn_id: E::OID, critical, extn_value: OctetString::new(value.to_der()?)? })
}

/// 16 random bytes, positive and of full length (RFC 5280 section 4.1.2.2).
fn random_serial() -> Result<SerialNumber, IssueError> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| IssueError::Random)?;
    bytes[0] = (bytes[0] & 0x7f) | 0x40;
    Ok(SerialNumber::new(&bytes)?)
}

/// UTCTime until 2049, GeneralizedTime afterwards (RFC 5280 section 4.1.2.5).
pub(super) fn time(at: Timestamp) -> Result<Time, IssueError> {
    let seconds = u64::try_from(at.as_second()).map_err(|_| IssueError::Time)?;
    let date = DateTime::from_unix_duration(Duration::from_secs(seconds)).map_err(|_| IssueError::Time)?;
    Ok(match UtcTime::from_date_time(date) {
        Ok(time) => Time::UtcTime(time),
        Err(_) => Time::GeneralTime(GeneralizedTime::from_date_time(date)),
    })
}
