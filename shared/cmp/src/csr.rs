//! A certification request (PKCS #10) as somebody else's key made it.
//!
//! It is sent as it is: its signature is the proof of possession (R7), so not one byte may change. That signature is
//! verified here before anything is sent.

use der::{
    Decode, Encode, Sequence,
    asn1::{Any, BitString, ObjectIdentifier, SetOfVec},
};
use pkcs8::{Document, der::pem::PemLabel};
use spki::AlgorithmIdentifierOwned;
use thiserror::Error;
use trustfleet_pki::{name::Name, public_key::PublicKey};
use x509_cert::ext::Extension;

use crate::codec::{RawSequence, bounds, oids};

/// RFC 2986 section 4.2.
///
/// ```text
/// CertificationRequest ::= SEQUENCE {
///     certificationRequestInfo  CertificationRequestInfo,
///     signatureAlgorithm        AlgorithmIdentifier,
///     signature                 BIT STRING }
/// ```
#[derive(Sequence)]
struct Outer {
    info: RawSequence,
    algorithm: AlgorithmIdentifierOwned,
    signature: BitString,
}

/// RFC 2986 section 4.1.
///
/// ```text
/// CertificationRequestInfo ::= SEQUENCE {
///     version        INTEGER { v1(0) },
///     subject        Name,
///     subjectPKInfo  SubjectPublicKeyInfo,
///     attributes [0] Attributes }
/// ```
#[derive(Sequence)]
struct Inner {
    version: u8,
    subject: RawSequence,
    public_key: RawSequence,
    #[asn1(context_specific = "0", tag_mode = "IMPLICIT", constructed = "true", optional = "true")]
    attributes: Option<SetOfVec<Attribute>>,
}

#[derive(Sequence, PartialEq, Eq, Clone, Debug, der::ValueOrd)]
struct Attribute {
    id: ObjectIdentifier,
    values: SetOfVec<Any>,
}

/// A certification request whose signature verifies.
#[derive(Clone, Debug)]
pub struct Csr {
    der: Vec<u8>,
    subject: Name,
    public_key: PublicKey,
    extensions: Vec<Extension>,
}

/// A certification request that cannot be sent.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum CsrError {
    /// Not PKCS #10.
    #[error("not a certification request (PKCS #10): {0}")]
    Unreadable(String),
    /// The proof of possession does not hold.
    #[error("the signature of the certification request does not verify: {0}")]
    Signature(String),
}

struct Label;

impl PemLabel for Label {
    const PEM_LABEL: &'static str = "CERTIFICATE REQUEST";
}

impl Csr {
    /// Reads one from DER and verifies its signature.
    ///
    /// # Errors
    /// Which of both fails.
    pub fn from_der(der: &[u8]) -> Result<Self, CsrError> {
        let unreadable = |error: &dyn std::fmt::Display| CsrError::Unreadable(error.to_string());
        bounds::check(der).map_err(|error| unreadable(&error))?;
        let outer = Outer::from_der(der).map_err(|error| unreadable(&error))?;
        let inner: Inner = outer.info.parse().map_err(|error| unreadable(&error))?;
        let tlv = |raw: &RawSequence| raw.to_tlv().map_err(|error| unreadable(&error));
        let subject = Name::from_der(&tlv(&inner.subject)?).map_err(|error| unreadable(&error))?;
        let public_key = PublicKey::from_spki_der(&tlv(&inner.public_key)?).map_err(|error| unreadable(&error))?;
        let covered = tlv(&outer.info)?;
        public_key
            .verify(&outer.algorithm, &covered, outer.signature.raw_bytes())
            .map_err(|error| CsrError::Signature(error.to_string()))?;
        let mut extensions = Vec::new();
        for attribute in inner.attributes.iter().flat_map(SetOfVec::iter) {
            if attribute.id == oids::EXTENSION_REQUEST {
                for value in attribute.values.iter() {
                    let read: Vec<Extension> = value.decode_as().map_err(|error| unreadable(&error))?;
                    extensions.extend(read);
                }
            }
        }
        Ok(Self { der: der.to_vec(), subject, public_key, extensions })
    }

    /// Reads one from PEM (`CERTIFICATE REQUEST` or `NEW CERTIFICATE REQUEST`).
    ///
    /// # Errors
    /// As [`Csr::from_der`].
    pub fn from_pem(pem: &str) -> Result<Self, CsrError> {
        let (label, document) = Document::from_pem(pem).map_err(|error| CsrError::Unreadable(error.to_string()))?;
        if label.trim_start_matches("NEW ") != Label::PEM_LABEL {
            return Err(CsrError::Unreadable(format!("PEM label {label:?}")));
        }
        Self::from_der(document.as_bytes())
    }

    /// As it came.
    pub fn as_der(&self) -> &[u8] {
        &self.der
    }

    /// The subject asked for.
    pub const fn subject(&self) -> &Name {
        &self.subject
    }

    /// The key to be certified.
    pub const fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// The extensions asked for.
    pub fn extensions(&self) -> &[Extension] {
        &self.extensions
    }

    /// DER GeneralNames of the alternative names asked for; empty without any.
    pub fn san_der(&self) -> Vec<u8> {
        let names = self.extensions.iter().find(|extension| extension.extn_id == oids::SUBJECT_ALT_NAME);
        names.map(|extension| extension.extn_value.as_bytes().to_vec()).unwrap_or_default()
    }

    /// As the body of p10cr.
    pub(crate) fn body(&self) -> der::Result<RawSequence> {
        RawSequence::from_tlv(&self.der)
    }
}

impl TryFrom<&RawSequence> for Csr {
    type Error = CsrError;

    fn try_from(raw: &RawSequence) -> Result<Self, CsrError> {
        Self::from_der(&raw.to_der().map_err(|error| CsrError::Unreadable(error.to_string()))?)
    }
}
