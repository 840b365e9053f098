//! How a transaction ended well: the certificate and everything that should be known about how it came.

use std::fmt;

use serde::{Deserialize, Serialize};
use trustfleet_pki::certificate::Certificate;

use crate::{
    codec::{BodyKind, PkiStatus},
    crl::Crl,
    info::Information,
    request::RequestKind,
};

/// A certificate was issued, fits, and is confirmed.
#[derive(Clone, Debug)]
pub struct Enrolled {
    /// What was asked for.
    pub kind: RequestKind,
    /// The certificate.
    pub certificate: Certificate,
    /// extraCerts of the answers: help to build its chain, never anchors (X3).
    pub chain_helpers: Vec<Certificate>,
    /// CA certificates of the response (S35).
    pub ca_pubs: Vec<Certificate>,
    /// The CA certificates may be trusted as roots: the answer was authenticated by the shared secret (V11).
    pub ca_pubs_trusted: bool,
    /// accepted, grantedWithMods, or a warning (E6).
    pub status: PkiStatus,
    /// The server's statusString, harmless but untrusted.
    pub status_texts: Vec<String>,
    /// What an operator should know.
    pub warnings: Vec<Warning>,
    /// No certConf was needed (C2).
    pub implicitly_confirmed: bool,
    /// In hexadecimal.
    pub transaction_id: String,
    /// Which messages went to and fro.
    pub transcript: Vec<Exchanged>,
}

/// A transaction that was about no new certificate has ended well.
#[derive(Clone, Debug)]
pub enum Conclusion {
    /// rr: the certificate is revoked.
    Revoked(Revoked),
    /// genm: the question is answered.
    Informed(Informed),
}

/// A certificate was revoked.
#[derive(Clone, Debug)]
pub struct Revoked {
    /// DER Name of its issuer.
    pub issuer: Vec<u8>,
    /// Its serial number as upper-case hexadecimal.
    pub serial: String,
    /// accepted, grantedWithMods, or a warning (E6).
    pub status: PkiStatus,
    /// The server's statusString, harmless but untrusted.
    pub status_texts: Vec<String>,
    /// CRLs that came along: decoded, not verified.
    pub crls: Vec<Crl>,
    /// What an operator should know.
    pub warnings: Vec<Warning>,
    /// In hexadecimal.
    pub transaction_id: String,
    /// Which messages went to and fro.
    pub transcript: Vec<Exchanged>,
}

/// A question was answered.
#[derive(Clone, Debug)]
pub struct Informed {
    /// The answer.
    pub information: Information,
    /// extraCerts of the answers: help to build chains, never anchors (X3).
    pub chain_helpers: Vec<Certificate>,
    /// What an operator should know.
    pub warnings: Vec<Warning>,
    /// In hexadecimal.
    pub transaction_id: String,
    /// Which messages went to and fro.
    pub transcript: Vec<Exchanged>,
}

/// One message of a transaction: its kind and size, nothing of its content.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Exchanged {
    /// By us; otherwise received.
    pub sent: bool,
    /// Its body; `None` when it could not be read.
    pub kind: Option<BodyKind>,
    /// Its length.
    pub bytes: usize,
}

/// What an operator should know although it worked.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "warning")]
pub enum Warning {
    /// V9.
    SubjectChanged {
        /// Requested.
        asked: String,
        /// Issued.
        got: String,
    },
    /// V9.
    AlternativeNamesMissing {
        /// How many.
        missing: usize,
    },
    /// V9.
    AlternativeNamesAdded {
        /// How many.
        added: usize,
    },
    /// The CA says that it changed something.
    GrantedWithMods,
    /// E6.
    RevocationWarning,
    /// E6.
    KeyUpdateWarning,
    /// V10: there was no anchor to check the certificate against.
    ChainUnchecked,
    /// The MAC secret has fewer than 16 octets: whoever records a message can find a guessable one by trial.
    ShortSecret,
    /// S8: the answer was authenticated by a MAC with SHA-1.
    WeakMac,
    /// V5: the answer's senderKID names another reference than ours.
    OtherReference,
    /// P12: the answer was signed although the request had a MAC.
    SignedAnswer,
    /// R8: the certificate was revoked already, or will be by itself (revocationNotification).
    RevocationNotification,
    /// E4: the server had a transaction with the first transactionID, so a new one was begun.
    BegunAnew,
    /// H2: the server asked for another protocol version.
    OtherVersion {
        /// The pvno that is spoken now.
        pvno: u64,
    },
    /// C9: the server had the confirmation already.
    AlreadyConfirmed,
}

impl Warning {
    /// A stable code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::SubjectChanged { .. } => "subject_changed",
            Self::AlternativeNamesMissing { .. } => "alternative_names_missing",
            Self::AlternativeNamesAdded { .. } => "alternative_names_added",
            Self::GrantedWithMods => "granted_with_mods",
            Self::RevocationWarning => "revocation_warning",
            Self::KeyUpdateWarning => "key_update_warning",
            Self::ChainUnchecked => "chain_unchecked",
            Self::ShortSecret => "short_secret",
            Self::WeakMac => "weak_mac",
            Self::OtherReference => "other_reference",
            Self::SignedAnswer => "signed_answer",
            Self::RevocationNotification => "revocation_notification",
            Self::BegunAnew => "begun_anew",
            Self::OtherVersion { .. } => "other_version",
            Self::AlreadyConfirmed => "already_confirmed",
        }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SubjectChanged { asked, got } => write!(f, "the CA changed the subject from {asked} to {got}"),
            Self::AlternativeNamesMissing { missing } => {
                write!(f, "{missing} of the alternative names asked for are not in the certificate")
            }
            Self::AlternativeNamesAdded { added } => {
                write!(f, "{added} alternative names in the certificate were not asked for")
            }
            Self::GrantedWithMods => f.write_str("the CA says that it granted the request with modifications"),
            Self::RevocationWarning => f.write_str("the CA warns that a revocation is imminent"),
            Self::KeyUpdateWarning => f.write_str("the CA says that this key was updated before"),
            Self::ChainUnchecked => f.write_str("no anchor is configured to check the certificate's chain against"),
            Self::ShortSecret => f.write_str("the MAC secret has fewer than 16 characters: use a longer, random one"),
            Self::WeakMac => f.write_str("the answer was authenticated with SHA-1"),
            Self::OtherReference => f.write_str("the answer names another MAC reference than ours"),
            Self::SignedAnswer => f.write_str("the answer was signed although the request had a MAC"),
            Self::RevocationNotification => f.write_str("the CA says that a revocation has occurred"),
            Self::BegunAnew => f.write_str("the CA knew the transactionID already: a new transaction was begun"),
            Self::OtherVersion { pvno } => write!(f, "the CA wanted protocol version {pvno}"),
            Self::AlreadyConfirmed => f.write_str("the CA had the confirmation already"),
        }
    }
}
