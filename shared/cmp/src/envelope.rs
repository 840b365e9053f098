//! Opening an encrypted certificate: EnvelopedData for the requested key (RFC 9810 section 5.2.2, RFC 5652 section 6).
//!
//! A CA that wants to see a decryption key used sends the certificate so; certConf about it is the indirect proof of
//! possession. Only RSA key transport and AES-CBC are opened, and only in a message that is authentic already: otherwise
//! our answers would be an oracle for the padding. An RA that is authentic must not have one either, so the peer is told
//! the same whatever is wrong inside. The private-key operation is a [`Decrypter`]'s.

use std::fmt;

use aws_lc_rs::{
    cipher::{AES_128, AES_192, AES_256, Algorithm, DecryptionContext, PaddedBlockDecryptingKey, UnboundCipherKey},
    iv::FixedLength,
    rsa::{
        OAEP_SHA1_MGF1SHA1, OAEP_SHA256_MGF1SHA256, OAEP_SHA384_MGF1SHA384, OAEP_SHA512_MGF1SHA512, OaepAlgorithm,
        OaepPrivateDecryptingKey, Pkcs1PrivateDecryptingKey, PrivateDecryptingKey,
    },
};
use der::{
    Sequence,
    asn1::{Any, ObjectIdentifier, OctetString, SetOfVec},
};
use spki::AlgorithmIdentifierOwned;
use thiserror::Error;
use trustfleet_pki::certificate::Certificate;
use zeroize::Zeroizing;

use crate::{
    codec::{RawSequence, oids},
    key::SoftwareKey,
};

const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const RSAES_OAEP: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.7");
const AES_128_CBC: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.1.2");
const AES_192_CBC: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.1.22");
const AES_256_CBC: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.1.42");

/// How the content's key was encrypted to ours.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum KeyTransport {
    /// RSAES-PKCS1-v1_5.
    Pkcs1,
    /// RSAES-OAEP with SHA-1 for hash and mask, the default of RFC 8017.
    OaepSha1,
    /// RSAES-OAEP with SHA-256 for both.
    OaepSha256,
    /// RSAES-OAEP with SHA-384 for both.
    OaepSha384,
    /// RSAES-OAEP with SHA-512 for both.
    OaepSha512,
}

/// A private key that can decrypt; the key itself may live in a file, in memory or in a token.
pub trait Decrypter: Send + Sync + fmt::Debug {
    /// Decrypts the key of a content.
    ///
    /// # Errors
    /// When the key cannot be used, or the bytes are not for it.
    fn decrypt(&self, transport: KeyTransport, encrypted: &[u8]) -> Result<Zeroizing<Vec<u8>>, EnvelopeError>;
}

/// An encrypted certificate that cannot be opened.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum EnvelopeError {
    /// Not such EnvelopedData.
    #[error("it does not decode: {0}")]
    Unreadable(String),
    /// An algorithm that is not supported.
    #[error("it uses {0}, which is not supported")]
    Unsupported(String),
    /// It is for another key, or was changed.
    #[error("it is not for this key, or no certificate is in it")]
    NotForThisKey,
}

/// An RSA private key held in memory.
pub struct SoftwareDecrypter(PrivateDecryptingKey);

impl SoftwareDecrypter {
    /// Takes an RSA private key in PKCS #8.
    ///
    /// # Errors
    /// When it is none, or is refused by aws-lc-rs (shorter than 2048 bits, say).
    pub fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, EnvelopeError> {
        PrivateDecryptingKey::from_pkcs8(pkcs8)
            .map(Self)
            .map_err(|error| EnvelopeError::Unsupported(format!("a key that is no RSA key: {error}")))
    }
}

impl Decrypter for SoftwareDecrypter {
    fn decrypt(&self, transport: KeyTransport, encrypted: &[u8]) -> Result<Zeroizing<Vec<u8>>, EnvelopeError> {
        let refused = |_| EnvelopeError::NotForThisKey;
        let oaep = |algorithm: &'static OaepAlgorithm| {
            let key = OaepPrivateDecryptingKey::new(self.0.clone()).map_err(refused)?;
            let mut opened = Zeroizing::new(vec![0; key.min_output_size()]);
            let length = key.decrypt(algorithm, encrypted, &mut opened, None).map_err(refused)?.len();
            opened.truncate(length);
            Ok(opened)
        };
        match transport {
            KeyTransport::Pkcs1 => {
                let key = Pkcs1PrivateDecryptingKey::new(self.0.clone()).map_err(refused)?;
                let mut opened = Zeroizing::new(vec![0; key.min_output_size()]);
                let length = key.decrypt(encrypted, &mut opened).map_err(refused)?.len();
                opened.truncate(length);
                Ok(opened)
            }
            KeyTransport::OaepSha1 => oaep(&OAEP_SHA1_MGF1SHA1),
            KeyTransport::OaepSha256 => oaep(&OAEP_SHA256_MGF1SHA256),
            KeyTransport::OaepSha384 => oaep(&OAEP_SHA384_MGF1SHA384),
            KeyTransport::OaepSha512 => oaep(&OAEP_SHA512_MGF1SHA512),
        }
    }
}

/// An RSA key; read anew for the few answers that need it, because reading one is a third of what an exchange computes.
impl Decrypter for SoftwareKey {
    fn decrypt(&self, transport: KeyTransport, encrypted: &[u8]) -> Result<Zeroizing<Vec<u8>>, EnvelopeError> {
        SoftwareDecrypter::from_pkcs8(self.pkcs8_der())?.decrypt(transport, encrypted)
    }
}

impl fmt::Debug for SoftwareDecrypter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SoftwareDecrypter(redacted)")
    }
}

/// RFC 5652 section 6.1.
///
/// ```text
/// EnvelopedData ::= SEQUENCE {
///     version                  CMSVersion,
///     originatorInfo       [0] IMPLICIT OriginatorInfo OPTIONAL,
///     recipientInfos           SET SIZE (1..MAX) OF RecipientInfo,
///     encryptedContentInfo     EncryptedContentInfo,
///     unprotectedAttrs     [1] IMPLICIT UnprotectedAttributes OPTIONAL }
/// ```
#[derive(Sequence)]
struct EnvelopedData {
    version: u8,
    #[asn1(context_specific = "0", tag_mode = "IMPLICIT", constructed = "true", optional = "true")]
    originator: Option<RawSequence>,
    recipients: SetOfVec<Any>,
    content: EncryptedContent,
    #[asn1(context_specific = "1", tag_mode = "IMPLICIT", constructed = "true", optional = "true")]
    attributes: Option<RawSequence>,
}

/// RFC 5652 section 6.1: contentType, algorithm, content.
#[derive(Sequence)]
struct EncryptedContent {
    kind: ObjectIdentifier,
    algorithm: AlgorithmIdentifierOwned,
    #[asn1(context_specific = "0", tag_mode = "IMPLICIT", optional = "true")]
    bytes: Option<OctetString>,
}

/// RFC 5652 section 6.2.1: the untagged choice of RecipientInfo. Whom it names is not looked at: the CA knows no
/// certificate of this key yet, so what it puts there differs.
#[derive(Sequence)]
struct KeyTransRecipient {
    version: u8,
    recipient: Any,
    algorithm: AlgorithmIdentifierOwned,
    encrypted_key: OctetString,
}

/// RFC 8017 appendix A.2.1, its defaults as absent fields.
#[derive(Sequence)]
struct OaepParameters {
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", constructed = "true", optional = "true")]
    hash: Option<AlgorithmIdentifierOwned>,
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT", constructed = "true", optional = "true")]
    mask: Option<AlgorithmIdentifierOwned>,
    #[asn1(context_specific = "2", tag_mode = "EXPLICIT", constructed = "true", optional = "true")]
    label: Option<AlgorithmIdentifierOwned>,
}

/// The certificate inside an EnvelopedData; bytes that are none count as a key that does not fit.
pub(crate) fn open(envelope: &RawSequence, key: &dyn Decrypter) -> Result<Certificate, EnvelopeError> {
    let unreadable = |error: der::Error| EnvelopeError::Unreadable(error.to_string());
    let envelope: EnvelopedData = envelope.parse().map_err(unreadable)?;
    let [recipient] = envelope.recipients.as_slice() else {
        let count = envelope.recipients.len();
        return Err(EnvelopeError::Unsupported(format!("{count} recipients")));
    };
    let recipient: KeyTransRecipient = recipient
        .decode_as()
        .map_err(|_| EnvelopeError::Unsupported("another way than key transport to bring its key".to_owned()))?;
    let transport = transport(&recipient.algorithm)?;
    let content = envelope.content;
    let algorithm = cipher(content.algorithm.oid)?;
    let iv: Option<OctetString> = content.algorithm.parameters.and_then(|iv| iv.decode_as().ok());
    let iv: Option<[u8; 16]> = iv.and_then(|iv| iv.as_bytes().try_into().ok());
    let iv = iv.ok_or_else(|| EnvelopeError::Unreadable("no initialisation vector of 16 octets".to_owned()))?;
    let mut bytes = content.bytes.map(OctetString::into_bytes).unwrap_or_default();
    // the private key is used last: from here on there is one error for everything
    let refused = |_| EnvelopeError::NotForThisKey;
    let key = key.decrypt(transport, recipient.encrypted_key.as_bytes())?;
    let key = UnboundCipherKey::new(algorithm, &key).map_err(refused)?;
    let key = PaddedBlockDecryptingKey::cbc_pkcs7(key).map_err(refused)?;
    let context = DecryptionContext::Iv128(FixedLength::from(&iv));
    let der = key.decrypt(&mut bytes, context).map_err(refused)?;
    Certificate::from_der(der).map_err(|_| EnvelopeError::NotForThisKey)
}

fn cipher(oid: ObjectIdentifier) -> Result<&'static Algorithm, EnvelopeError> {
    match oid {
        AES_128_CBC => Ok(&AES_128),
        AES_192_CBC => Ok(&AES_192),
        AES_256_CBC => Ok(&AES_256),
        other => Err(EnvelopeError::Unsupported(format!("the cipher {other}"))),
    }
}

fn transport(algorithm: &AlgorithmIdentifierOwned) -> Result<KeyTransport, EnvelopeError> {
    let unsupported = |what: String| Err(EnvelopeError::Unsupported(what));
    match algorithm.oid {
        RSA_ENCRYPTION => return Ok(KeyTransport::Pkcs1),
        RSAES_OAEP => {}
        other => return unsupported(format!("the key transport {other}")),
    }
    let parameters = match &algorithm.parameters {
        Some(parameters) => parameters.decode_as().map_err(|error| EnvelopeError::Unreadable(error.to_string()))?,
        None => OaepParameters { hash: None, mask: None, label: None },
    };
    let hash = parameters.hash.map_or(oids::SHA1, |hash| hash.oid);
    let mask = match parameters.mask.and_then(|mask| mask.parameters) {
        Some(hash) => hash.decode_as::<AlgorithmIdentifierOwned>().ok().map(|hash| hash.oid),
        None => Some(oids::SHA1),
    };
    if mask != Some(hash) || parameters.label.is_some() {
        return unsupported("RSAES-OAEP with two hashes or a label".to_owned());
    }
    match hash {
        oids::SHA1 => Ok(KeyTransport::OaepSha1),
        oids::SHA256 => Ok(KeyTransport::OaepSha256),
        oids::SHA384 => Ok(KeyTransport::OaepSha384),
        oids::SHA512 => Ok(KeyTransport::OaepSha512),
        other => unsupported(format!("RSAES-OAEP with {other}")),
    }
}
