//! A certificate revocation list as an answer brings it.
//!
//! It is decoded, and can be verified with its issuer's certificate ([`Crl::verify_signed_by`]); it is never trusted for
//! having come in a CMP message.

use der::{
    Decode, Encode, Reader, Sequence, SliceReader,
    asn1::{AnyRef, BitString},
    pem,
};
use jiff::Timestamp;
use spki::AlgorithmIdentifierOwned;
use trustfleet_pki::{SignatureError, certificate::Certificate, name::Name};
use x509_cert::{crl::RevokedCert, ext::Extensions, time::Time};

use crate::codec::RawSequence;

/// RFC 5280 section 5.1.2.1: if present, the version is v2.
const V2: u8 = 1;

/// One CRL.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Crl {
    der: Vec<u8>,
    issuer: Name,
    list: CertificateList,
}

/// RFC 5280 section 5.1. `x509_cert` demands the version, which CRLs of version 1 leave out.
#[derive(Clone, Debug, Eq, PartialEq, Sequence)]
struct CertificateList {
    tbs_cert_list: TbsCertList,
    signature_algorithm: AlgorithmIdentifierOwned,
    signature: BitString,
}

/// RFC 5280 section 5.1.
///
/// ```text
/// TBSCertList ::= SEQUENCE {
///     version                 Version OPTIONAL,
///     signature               AlgorithmIdentifier,
///     issuer                  Name,
///     thisUpdate              Time,
///     nextUpdate              Time OPTIONAL,
///     revokedCertificates     SEQUENCE OF SEQUENCE { ... } OPTIONAL,
///     crlExtensions       [0] Extensions OPTIONAL }
/// ```
#[derive(Clone, Debug, Eq, PartialEq, Sequence)]
struct TbsCertList {
    version: Option<u8>,
    signature: AlgorithmIdentifierOwned,
    issuer: x509_cert::name::Name,
    this_update: Time,
    next_update: Option<Time>,
    revoked_certificates: Option<Vec<RevokedCert>>,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", constructed = "true", optional = "true")]
    crl_extensions: Option<Extensions>,
}

impl Crl {
    /// Reads one from DER.
    ///
    /// # Errors
    /// What does not decode.
    pub fn from_der(der: &[u8]) -> Result<Self, String> {
        let list = CertificateList::from_der(der).map_err(|error| error.to_string())?;
        if list.tbs_cert_list.version.is_some_and(|version| version != V2) {
            return Err("a CRL is of version 1, which it leaves out, or 2".to_owned());
        }
        let issuer = list.tbs_cert_list.issuer.to_der().map_err(|error| error.to_string())?;
        let issuer = Name::from_der(&issuer).map_err(|error| error.to_string())?;
        Ok(Self { der: der.to_vec(), issuer, list })
    }

    pub(crate) fn from_raw(raw: &RawSequence) -> Result<Self, String> {
        Self::from_der(&raw.to_tlv().map_err(|error| error.to_string())?)
    }

    /// As it came.
    pub fn as_der(&self) -> &[u8] {
        &self.der
    }

    /// As PEM (RFC 7468 section 6).
    pub fn to_pem(&self) -> String {
        pem::encode_string("X509 CRL", pem::LineEnding::LF, &self.der).unwrap_or_default()
    }

    /// Who issued it.
    pub const fn issuer(&self) -> &Name {
        &self.issuer
    }

    /// thisUpdate.
    pub fn this_update(&self) -> Option<Timestamp> {
        timestamp(self.list.tbs_cert_list.this_update)
    }

    /// nextUpdate.
    pub fn next_update(&self) -> Option<Timestamp> {
        self.list.tbs_cert_list.next_update.and_then(timestamp)
    }

    /// The serial numbers in it, as upper-case hexadecimal.
    pub fn serials(&self) -> Vec<String> {
        let revoked = self.list.tbs_cert_list.revoked_certificates.iter().flatten();
        revoked.map(|entry| trustfleet_pki::certificate::serial_hex(entry.serial_number.as_bytes())).collect()
    }

    /// Whether the issuer's key signed it, over the bytes received. Says nothing of the issuer's own trust, nor whether
    /// [`Crl::issuer`] is its name.
    ///
    /// # Errors
    /// The algorithm is refused or not the one named inside (RFC 5280 section 5.1.1.2), or the signature does not verify.
    pub fn verify_signed_by(&self, issuer: &Certificate) -> Result<(), SignatureError> {
        if self.list.tbs_cert_list.signature != self.list.signature_algorithm {
            return Err(SignatureError::Parameters { algorithm: self.list.signature_algorithm.oid });
        }
        let covered = self.covered().unwrap_or_default();
        issuer.public_key().verify(&self.list.signature_algorithm, covered, self.list.signature.raw_bytes())
    }

    /// tbsCertList as received.
    fn covered(&self) -> Option<&[u8]> {
        let content = AnyRef::from_der(&self.der).ok()?.value();
        SliceReader::new(content).ok()?.tlv_bytes().ok()
    }
}

fn timestamp(time: Time) -> Option<Timestamp> {
    let seconds = i64::try_from(time.to_unix_duration().as_secs()).ok()?;
    Timestamp::from_second(seconds).ok()
}
