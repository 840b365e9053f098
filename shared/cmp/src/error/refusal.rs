//! What came was a no, or a certificate that we cannot take.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use trustfleet_pki::certificate::Certificate;

use super::MessageError;
use crate::codec::{BodyKind, FailureBit, PkiStatus};

/// The certificate that came does not fit what was asked for (V9, V10).
#[derive(Clone, Debug, Error)]
#[error("the certificate {} does not fit the request: {}; it is not used{}", .certificate.serial_hex(), join(.reasons), if *.rejection_confirmed { " and was rejected at the CA" } else { "; it may be valid at the CA: revoke it there" })]
pub struct UnfitCertificate {
    /// All that is wrong with it.
    pub reasons: Vec<Unfit>,
    /// The certificate; an orphan that should be revoked (C7: some CAs leave it valid).
    pub certificate: Certificate,
    /// The CA has confirmed our rejection by pkiConf.
    pub rejection_confirmed: bool,
}

/// One way not to fit.
#[derive(Clone, Debug, Deserialize, Eq, Error, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "reason")]
pub enum Unfit {
    /// V9.
    #[error("its public key is not the one requested")]
    PublicKey,
    /// V9, only where modifications are refused.
    #[error("its subject is {got}, asked for was {asked}")]
    Subject {
        /// Requested.
        asked: String,
        /// Issued.
        got: String,
    },
    /// V9, only where modifications are refused.
    #[error("{missing} of the alternative names asked for are missing")]
    AlternativeNames {
        /// How many.
        missing: usize,
    },
    /// V9, only where modifications are refused.
    #[error("it has {added} alternative names that were not asked for")]
    AlternativeNamesAdded {
        /// How many.
        added: usize,
    },
    /// V9, only where modifications are refused.
    #[error("the CA granted it with modifications")]
    GrantedWithMods,
    /// V10.
    #[error("it does not chain to a configured enrolment anchor: {detail}")]
    Chain {
        /// Why.
        detail: String,
    },
}

/// The peer said no (E2, E3), read in full.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PeerRefusal {
    /// The message that carried it.
    pub body: BodyKind,
    /// Its status.
    pub status: PkiStatus,
    /// Every failInfo bit that has a name, in the order of the numbers.
    pub failure: Vec<FailureBit>,
    /// failInfo as text, unknown bits included; empty when absent.
    pub failure_text: String,
    /// statusString and errorDetails, harmless but untrusted.
    pub texts: Vec<String>,
    /// errorCode as hexadecimal.
    pub error_code: Option<String>,
    /// Why the refusal could not be authenticated; `None` when it is authentic.
    pub unauthenticated: Option<MessageError>,
}

impl fmt::Display for PeerRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.unauthenticated {
            None => write!(f, "the server refused ({})", self.body)?,
            Some(why) => {
                write!(
                    f,
                    "the server refused, its answer cannot be authenticated ({why}): check reference and secret, or the trust anchors; it says"
                )?;
            }
        }
        if !self.failure_text.is_empty() {
            write!(f, ": {}", self.failure_text)?;
        }
        if !self.texts.is_empty() {
            write!(f, ": {}", self.texts.iter().map(|text| format!("{text:?}")).collect::<Vec<_>>().join(", "))?;
        }
        if self.failure_text.is_empty() && self.texts.is_empty() {
            f.write_str(": no reason given")?;
        }
        if let Some(code) = &self.error_code {
            write!(f, " (error code 0x{code})")?;
        }
        Ok(())
    }
}

impl std::error::Error for PeerRefusal {}

fn join(reasons: &[Unfit]) -> String {
    reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
