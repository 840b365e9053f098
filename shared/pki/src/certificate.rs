//! An X.509 certificate as it was received, with the views of it that Trustfleet needs.
//!
//! What it must never do: encode a certificate again, or call one trusted. Trust is decided in [`crate::chain`].

use std::{fmt, hash, sync::Arc};

use der::{
    Decode, Sequence, Tag, TagNumber,
    asn1::{ObjectIdentifier, OctetString},
    oid::AssociatedOid as _,
    pem::{self, LineEnding},
};
use jiff::Timestamp;
use rustls_pki_types::{CertificateDer, pem::PemObject};
use spki::AlgorithmIdentifierOwned;
use x509_cert::ext::pkix::{
    BasicConstraints, CrlDistributionPoints, ExtendedKeyUsage, KeyUsage, KeyUsages, SubjectKeyIdentifier,
    name::{DistributionPointName, GeneralName},
};

use crate::{
    bounds::{self, BoundsError},
    digest::sha256,
    name::{Name, NameError},
    public_key::{PublicKey, PublicKeyError},
    raw,
    san::San,
    signature::SignatureError,
};

/// Longest certificate that is read, in bytes of DER.
pub const MAX_DER_BYTES: usize = 64 * 1024;

/// Most certificates in one PEM text.
pub const MAX_PEM_CERTIFICATES: usize = 256;

/// id-kp-cmcCA: the key may answer CMP requests for the CA (RFC 6402, RFC 9483 section 3.5).
pub const CMC_CA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.27");

/// id-kp-cmcRA: the key may answer CMP requests for a registration authority.
pub const CMC_RA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.28");

/// Extensions that are read.
const READ: [ObjectIdentifier; 4] =
    [KeyUsage::OID, BasicConstraints::OID, ExtendedKeyUsage::OID, SubjectKeyIdentifier::OID];

const CRL_DISTRIBUTION_POINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.31");
const SUBJECT_ALT_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.17");

/// A certificate: its DER and what was read from it. Cheap to clone; equal and hashed by its DER.
#[derive(Clone)]
pub struct Certificate(Arc<Inner>);

struct Inner {
    der: Vec<u8>,
    tbs: Vec<u8>,
    serial: Vec<u8>,
    inner_algorithm: Vec<u8>,
    outer_algorithm: Vec<u8>,
    issuer: Name,
    subject: Name,
    public_key: PublicKey,
    not_before: Timestamp,
    not_after: Timestamp,
    key_usage: Option<KeyUsageBits>,
    basic_constraints: Option<BasicConstraints>,
    extended_key_usages: Vec<ObjectIdentifier>,
    subject_key_id: Option<Vec<u8>>,
    parsed: x509_cert::Certificate,
}

/// id-on-hardwareModuleName (RFC 4108 section 5).
const HARDWARE_MODULE_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.8.4");
/// id-at-serialNumber (X.520).
const SERIAL_NUMBER: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.5");

/// ```text
/// HardwareModuleName ::= SEQUENCE {
///   hwType OBJECT IDENTIFIER,
///   hwSerialNum OCTET STRING }
/// ```
#[derive(Sequence)]
struct HardwareModuleName {
    #[allow(dead_code, reason = "must be there, and says nothing here")]
    kind: ObjectIdentifier,
    serial: OctetString,
}

impl Certificate {
    /// Takes the DER of one certificate.
    ///
    /// # Errors
    /// Longer than [`MAX_DER_BYTES`], not a certificate, or one whose name, key, validity or usage extensions cannot be
    /// read (what limits a certificate must be understood, or it would count as unlimited).
    pub fn from_der(der: &[u8]) -> Result<Self, CertificateError> {
        if der.len() > MAX_DER_BYTES {
            return Err(CertificateError::TooLong { bytes: der.len() });
        }
        let parts = raw::children(der, Tag::Sequence)?;
        let [tbs, outer_algorithm, _signature] = parts.as_slice() else {
            return Err(CertificateError::Structure);
        };
        let mut fields = raw::children(tbs, Tag::Sequence)?;
        let version = Tag::ContextSpecific { constructed: true, number: TagNumber::N0 };
        if fields.first().is_some_and(|first| raw::tag_of(first) == Ok(version)) {
            fields.remove(0);
        }
        let [serial, inner_algorithm, issuer, _validity, subject, public_key, ..] = fields.as_slice() else {
            return Err(CertificateError::Structure);
        };
        // first the names, in our own bounds: x509-cert has none
        let (issuer, subject) = (Name::from_der(issuer)?, Name::from_der(subject)?);
        bounds::check(der)?;
        let parsed = x509_cert::Certificate::from_der(der)?;
        let body = &parsed.tbs_certificate;
        for extension in body.extensions.iter().flatten().filter(|extension| READ.contains(&extension.extn_id)) {
            bounds::check(extension.extn_value.as_bytes())?;
        }
        Ok(Self(Arc::new(Inner {
            tbs: tbs.to_vec(),
            serial: raw::content(serial, Tag::Integer)?.to_vec(),
            inner_algorithm: inner_algorithm.to_vec(),
            outer_algorithm: outer_algorithm.to_vec(),
            issuer,
            subject,
            public_key: PublicKey::from_spki_der(public_key)?,
            not_before: timestamp(body.validity.not_before)?,
            not_after: timestamp(body.validity.not_after)?,
            key_usage: body.get::<KeyUsage>()?.map(|(_, usage)| KeyUsageBits::of(usage)),
            basic_constraints: body.get::<BasicConstraints>()?.map(|(_, constraints)| constraints),
            extended_key_usages: body.get::<ExtendedKeyUsage>()?.map(|(_, usages)| usages.0).unwrap_or_default(),
            subject_key_id: body.get::<SubjectKeyIdentifier>()?.map(|(_, id)| id.0.as_bytes().to_vec()),
            der: der.to_vec(),
            parsed,
        })))
    }

    /// Takes a PEM text with exactly one certificate (other blocks and text around it are passed over).
    ///
    /// # Errors
    /// None or several, bad base64, or as [`Certificate::from_der`].
    pub fn from_pem(text: &str) -> Result<Self, CertificateError> {
        let mut found = Self::pem_bundle(text)?;
        match (found.pop(), found.len()) {
            (Some(certificate), 0) => Ok(certificate),
            (_, others) => Err(CertificateError::PemCount { found: others + 1 }),
        }
    }

    /// Takes all certificates of a PEM text, in its order.
    ///
    /// # Errors
    /// None at all, more than [`MAX_PEM_CERTIFICATES`], bad base64, or as [`Certificate::from_der`].
    pub fn pem_bundle(text: &str) -> Result<Vec<Self>, CertificateError> {
        let mut found = Vec::new();
        for der in CertificateDer::pem_slice_iter(text.as_bytes()) {
            if found.len() == MAX_PEM_CERTIFICATES {
                return Err(CertificateError::PemTooMany);
            }
            found.push(Self::from_der(&der.map_err(|_| CertificateError::Pem)?)?);
        }
        if found.is_empty() { Err(CertificateError::PemNone) } else { Ok(found) }
    }

    /// The DER as it was received.
    pub fn as_der(&self) -> &[u8] {
        &self.0.der
    }

    /// The same in PEM (RFC 7468), ending in a line feed.
    pub fn to_pem(&self) -> String {
        pem::encode_string("CERTIFICATE", LineEnding::LF, &self.0.der).unwrap_or_default()
    }

    /// The subject, its DER as in the certificate.
    pub fn subject(&self) -> Name {
        self.0.subject.clone()
    }

    /// The issuer, its DER as in the certificate.
    pub fn issuer(&self) -> Name {
        self.0.issuer.clone()
    }

    /// The serial number as `openssl x509 -serial` prints it: upper-case hexadecimal without separators.
    pub fn serial_hex(&self) -> String {
        serial_hex(&self.0.serial)
    }

    /// The content bytes of the serial number's INTEGER (two's complement, so perhaps with a leading zero).
    pub fn serial_der_bytes(&self) -> &[u8] {
        &self.0.serial
    }

    /// The first moment of its validity.
    pub fn not_before(&self) -> Timestamp {
        self.0.not_before
    }

    /// The last moment of its validity.
    pub fn not_after(&self) -> Timestamp {
        self.0.not_after
    }

    /// Whether it is within its validity at `at`.
    pub fn is_valid_at(&self, at: Timestamp) -> bool {
        self.0.not_before <= at && at <= self.0.not_after
    }

    /// The DER of its SubjectPublicKeyInfo, as in the certificate.
    pub fn spki_der(&self) -> Vec<u8> {
        self.0.public_key.spki_der().to_vec()
    }

    /// Its public key.
    pub fn public_key(&self) -> PublicKey {
        self.0.public_key.clone()
    }

    /// SHA-256 of its DER.
    pub fn sha256_fingerprint(&self) -> [u8; 32] {
        sha256(&self.0.der)
    }

    /// The subjectKeyIdentifier, where there is one.
    pub fn subject_key_id(&self) -> Option<Vec<u8>> {
        self.0.subject_key_id.clone()
    }

    /// The keyUsage, where there is one.
    pub fn key_usage(&self) -> Option<KeyUsageBits> {
        self.0.key_usage
    }

    /// Whether its key may sign messages: digitalSignature is set, or there is no keyUsage (rule P11).
    pub fn allows_digital_signature(&self) -> bool {
        self.0.key_usage.is_none_or(KeyUsageBits::digital_signature)
    }

    /// Whether basicConstraints say that it is a CA.
    pub fn is_ca(&self) -> bool {
        self.0.basic_constraints.as_ref().is_some_and(|constraints| constraints.ca)
    }

    /// How many CAs may follow it in a path, where basicConstraints limit that.
    pub fn path_len_constraint(&self) -> Option<u8> {
        self.0.basic_constraints.as_ref().and_then(|constraints| constraints.path_len_constraint)
    }

    /// Whether subject and issuer are the same bytes.
    pub fn is_self_issued(&self) -> bool {
        self.0.subject == self.0.issuer
    }

    /// The algorithm that it is signed with.
    pub fn signature_algorithm(&self) -> AlgorithmIdentifierOwned {
        self.0.parsed.signature_algorithm.clone()
    }

    /// Its alternative names as texts: `dns:ap1.example.org`, `ip:192.0.2.1`; kinds that are not known here as
    /// `other:` and the DER in hexadecimal.
    pub fn subject_alt_names(&self) -> Vec<String> {
        self.general_names()
            .iter()
            .map(|der| San::from_der(der).map_or_else(|| format!("other:{}", hex::encode(der)), |san| san.to_string()))
            .collect()
    }

    /// Its alternative names of the kinds that exist in [`San`].
    pub fn sans(&self) -> Vec<San> {
        self.general_names().iter().filter_map(|der| San::from_der(der)).collect()
    }

    /// Where its CA's CRL is to be had by HTTP: the URIs of its distribution points (RFC 5280 section 4.2.1.13), those with
    /// `http://` or `https://`, each once, in their order.
    pub fn crl_urls(&self) -> Vec<String> {
        let extensions = self.0.parsed.tbs_certificate.extensions.as_deref().unwrap_or_default();
        let points = extensions.iter().filter(|extension| extension.extn_id == CRL_DISTRIBUTION_POINTS);
        let points = points.filter(|extension| bounds::check(extension.extn_value.as_bytes()).is_ok());
        let points = points.filter_map(|it| CrlDistributionPoints::from_der(it.extn_value.as_bytes()).ok());
        let mut urls: Vec<String> = Vec::new();
        for point in points.flat_map(|points| points.0) {
            let Some(DistributionPointName::FullName(names)) = point.distribution_point else { continue };
            for name in names {
                if let GeneralName::UniformResourceIdentifier(uri) = name {
                    let url = uri.as_str().to_owned();
                    let by_http = ["http://", "https://"].iter().any(|scheme| url.starts_with(scheme));
                    if by_http && !urls.contains(&url) {
                        urls.push(url);
                    }
                }
            }
        }
        urls
    }

    /// The serial number of the hardware that it was made for: hwSerialNum of the hardwareModuleName among its alternative
    /// names (RFC 4108 section 5), as IEEE 802.1AR demands of an IDevID that has one.
    pub fn hardware_serial(&self) -> Option<Vec<u8>> {
        let mut names = self.general_names().into_iter().filter(|der| bounds::check(der).is_ok());
        names.find_map(|der| match GeneralName::from_der(&der) {
            Ok(GeneralName::OtherName(other)) if other.type_id == HARDWARE_MODULE_NAME => {
                let module = other.value.decode_as::<HardwareModuleName>().ok()?;
                Some(module.serial.as_bytes().to_vec())
            }
            _ => None,
        })
    }

    /// The values of the attribute serialNumber (2.5.4.5) in its subject.
    pub fn subject_serial_numbers(&self) -> Vec<String> {
        self.0.subject.values_of(SERIAL_NUMBER)
    }

    /// The extended key usages; empty where the extension is absent.
    pub fn extended_key_usages(&self) -> Vec<ObjectIdentifier> {
        self.0.extended_key_usages.clone()
    }

    /// The certificate as the type of x509-cert, for reading only.
    pub fn parsed(&self) -> &x509_cert::Certificate {
        &self.0.parsed
    }

    /// Whether `issuer_key` has signed it. Says nothing of trust, names or time.
    ///
    /// # Errors
    /// The algorithm inside and outside differ, is refused, or the signature does not verify.
    pub fn verify_signed_by(&self, issuer_key: &PublicKey) -> Result<(), SignatureError> {
        let algorithm = &self.0.parsed.signature_algorithm;
        if self.0.inner_algorithm != self.0.outer_algorithm {
            return Err(SignatureError::Parameters { algorithm: algorithm.oid });
        }
        let signature = self.0.parsed.signature.as_bytes().ok_or(SignatureError::Invalid)?;
        issuer_key.verify(algorithm, &self.0.tbs, signature)
    }

    fn general_names(&self) -> Vec<Vec<u8>> {
        let extensions = self.0.parsed.tbs_certificate.extensions.as_deref().unwrap_or_default();
        extensions
            .iter()
            .filter(|extension| extension.extn_id == SUBJECT_ALT_NAME)
            .filter_map(|extension| raw::children(extension.extn_value.as_bytes(), Tag::Sequence).ok())
            .flat_map(|names| names.into_iter().map(<[u8]>::to_vec).collect::<Vec<_>>())
            .collect()
    }
}

impl PartialEq for Certificate {
    fn eq(&self, other: &Self) -> bool {
        self.0.der == other.0.der
    }
}

impl Eq for Certificate {}

impl hash::Hash for Certificate {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        self.0.der.hash(state);
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Certificate({} serial {} by {})",
            self.0.subject.to_slash(),
            self.serial_hex(),
            self.0.issuer.to_slash()
        )
    }
}

/// The bits of a keyUsage extension (RFC 5280 section 4.2.1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyUsageBits(u16);

impl KeyUsageBits {
    const NAMES: [&'static str; 9] = [
        "digitalSignature",
        "nonRepudiation",
        "keyEncipherment",
        "dataEncipherment",
        "keyAgreement",
        "keyCertSign",
        "cRLSign",
        "encipherOnly",
        "decipherOnly",
    ];

    /// Bit 0: messages may be signed.
    pub const fn digital_signature(self) -> bool {
        self.0 & 1 != 0
    }

    /// Bit 5: certificates may be signed.
    pub const fn key_cert_sign(self) -> bool {
        self.0 & (1 << 5) != 0
    }

    /// The names of the bits that are set, in the order of the RFC.
    pub fn names(self) -> Vec<&'static str> {
        Self::NAMES.iter().enumerate().filter(|(bit, _)| self.0 & (1 << bit) != 0).map(|(_, name)| *name).collect()
    }

    fn of(usage: KeyUsage) -> Self {
        const ORDER: [KeyUsages; 9] = [
            KeyUsages::DigitalSignature,
            KeyUsages::NonRepudiation,
            KeyUsages::KeyEncipherment,
            KeyUsages::DataEncipherment,
            KeyUsages::KeyAgreement,
            KeyUsages::KeyCertSign,
            KeyUsages::CRLSign,
            KeyUsages::EncipherOnly,
            KeyUsages::DecipherOnly,
        ];
        Self(ORDER.iter().enumerate().fold(0, |bits, (bit, &flag)| bits | (u16::from(usage.0.contains(flag)) << bit)))
    }
}

/// Why something was not taken as a certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// More than [`MAX_DER_BYTES`].
    #[error("certificate has {bytes} bytes, at most {MAX_DER_BYTES} are allowed")]
    TooLong {
        /// How many bytes there were.
        bytes: usize,
    },
    /// Lengths that promise more than is there, too many values, or too deep ones.
    #[error("certificate: {0}")]
    Bounds(#[from] BoundsError),
    /// Not the DER of a certificate, or of one of its usage extensions.
    #[error("not the DER of an X.509 certificate: {0}")]
    Der(#[from] der::Error),
    /// Fields are missing.
    #[error("not an X.509 certificate: fields are missing")]
    Structure,
    /// Its subject or issuer.
    #[error("certificate has a bad name: {0}")]
    Name(#[from] NameError),
    /// Its public key.
    #[error("certificate has a bad public key: {0}")]
    PublicKey(#[from] PublicKeyError),
    /// A time beyond what can be represented.
    #[error("certificate has a validity beyond the year 9999")]
    Validity,
    /// A PEM block that is broken.
    #[error("PEM is broken: bad base64 or a missing END line")]
    Pem,
    /// No certificate in a PEM text.
    #[error("PEM has no CERTIFICATE block")]
    PemNone,
    /// One was wanted.
    #[error("PEM has {found} certificates, exactly one is wanted here")]
    PemCount {
        /// How many there were.
        found: usize,
    },
    /// More than [`MAX_PEM_CERTIFICATES`].
    #[error("PEM has more than {MAX_PEM_CERTIFICATES} certificates")]
    PemTooMany,
}

/// The content bytes of an INTEGER as OpenSSL prints a serial number.
pub fn serial_hex(integer: &[u8]) -> String {
    let negative = integer.first().is_some_and(|first| first & 0x80 != 0);
    let mut magnitude = integer.to_vec();
    if negative {
        let mut carry = true;
        for byte in magnitude.iter_mut().rev() {
            let (sum, overflow) = (!*byte).overflowing_add(u8::from(carry));
            (*byte, carry) = (sum, overflow);
        }
    }
    let digits = magnitude.iter().position(|&byte| byte != 0).map_or(&[0][..], |first| &magnitude[first..]);
    format!("{}{}", if negative { "-" } else { "" }, hex::encode_upper(digits))
}

fn timestamp(time: x509_cert::time::Time) -> Result<Timestamp, CertificateError> {
    let seconds = i64::try_from(time.to_unix_duration().as_secs()).map_err(|_| CertificateError::Validity)?;
    Timestamp::from_second(seconds).map_err(|_| CertificateError::Validity)
}
