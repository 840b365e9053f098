//! Protection of messages: sealing our own, and the primitives that verify a peer's.
//!
//! Everything is computed over the header and body as they stand on the wire (P1). What a valid MAC or signature
//! *means*, that is whether its maker may answer us, is decided in [`crate::peer`] and in the responder.

pub mod mac;
pub mod signature;

use std::{fmt, sync::Arc};

use der::asn1::OctetString;
use spki::AlgorithmIdentifierOwned;
use trustfleet_pki::certificate::Certificate;

pub use self::{
    mac::{AcceptedMacs, Hash, MacPolicy, MacScheme},
    signature::AcceptedSignatures,
};
use crate::{
    codec::{PkiBody, PkiHeader, PkiMessage, RawSequence},
    error::LocalError,
    key::Signer,
};
use mac::PbmKey;

/// Protects our messages, the same way throughout a transaction (P7, P8).
#[derive(Clone)]
pub(crate) enum Sealer {
    /// By a shared secret.
    Mac {
        /// The derived key with its parameters, constant over a transaction (P3).
        key: Arc<PbmKey>,
        /// senderKID (H6).
        reference: Vec<u8>,
    },
    /// By a signature.
    Signature {
        /// The private key.
        signer: Arc<dyn Signer>,
        /// Its certificate, the first of extraCerts (X1).
        certificate: Certificate,
        /// Its chain, the rest of extraCerts (X2).
        chain: Vec<Certificate>,
    },
    /// Not at all: for errors of a server that has no means.
    #[cfg(feature = "responder")]
    Nothing,
}

impl Sealer {
    fn algorithm(&self) -> Result<Option<AlgorithmIdentifierOwned>, LocalError> {
        match self {
            Self::Mac { key, .. } => key.algorithm().map(Some),
            Self::Signature { signer, .. } => Ok(Some(signer.algorithm())),
            #[cfg(feature = "responder")]
            Self::Nothing => Ok(None),
        }
    }

    fn sender_kid(&self) -> Option<Vec<u8>> {
        match self {
            Self::Mac { reference, .. } => Some(reference.clone()),
            Self::Signature { certificate, .. } => certificate.subject_key_id(),
            #[cfg(feature = "responder")]
            Self::Nothing => None,
        }
    }

    /// Completes the header, assembles, protects, encodes; `extra` goes after the signer's own certificates.
    pub(crate) fn seal(&self, header: PkiHeader, body: PkiBody, extra: &[Certificate]) -> Result<Vec<u8>, LocalError> {
        let encoding = |error| LocalError::encoding("a message")(error);
        let kid = self.sender_kid().map(OctetString::new).transpose().map_err(encoding)?;
        let header = PkiHeader { protection_alg: self.algorithm()?, sender_kid: kid, ..header };
        let mut message = PkiMessage::assemble(header, body).map_err(encoding)?;
        let covered = message.protected_part().map_err(encoding)?;
        let mut certificates: Vec<&Certificate> = Vec::new();
        match self {
            Self::Mac { key, .. } => message.protection = Some(key.mac(&covered)),
            Self::Signature { signer, certificate, chain } => {
                let signature = signer.sign(&covered);
                message.protection = Some(signature.map_err(|error| LocalError::Signing { detail: error.0 })?);
                certificates.push(certificate);
                certificates.extend(chain);
            }
            #[cfg(feature = "responder")]
            Self::Nothing => {}
        }
        for certificate in extra {
            if !certificates.contains(&certificate) {
                certificates.push(certificate);
            }
        }
        let certificates = certificates.into_iter().map(|certificate| RawSequence::from_tlv(certificate.as_der()));
        message.extra_certs = certificates.collect::<der::Result<_>>().map_err(encoding)?;
        message.to_der().map_err(encoding)
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mac { .. } => f.write_str("Sealer(mac, redacted)"),
            Self::Signature { certificate, .. } => write!(f, "Sealer(signature by {})", certificate.subject()),
            #[cfg(feature = "responder")]
            Self::Nothing => f.write_str("Sealer(nothing)"),
        }
    }
}
