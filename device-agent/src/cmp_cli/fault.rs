//! Why the command failed, by culprit, and what to check next.

use trustfleet_cmp::error::{ConfigurationError, PeerRefusal};
use trustfleet_cmp::{CmpError, advice};

use super::exit::Exit;
use crate::cmp_http::HttpError;
use crate::store::StoreError;

/// A failure, in words and by number.
#[derive(Debug)]
pub(super) struct Fault {
    /// By culprit.
    pub(super) exit: Exit,
    /// Stable snake_case code.
    pub(super) code: &'static str,
    /// In words; texts of peers in it are harmless already.
    pub(super) text: String,
    /// What to check or do next.
    pub(super) next: Vec<String>,
    /// failInfo of a refusal, in the RFC's words.
    pub(super) fail_info: Vec<&'static str>,
    /// statusString of a refusal: harmless, untrusted.
    pub(super) status_texts: Vec<String>,
    /// The CA may have issued (or revoked) something although nothing is here.
    pub(super) maybe_issued: bool,
}

impl Fault {
    /// A failure without more to say.
    pub(super) fn new(exit: Exit, code: &'static str, text: impl Into<String>) -> Self {
        Self {
            exit,
            code,
            text: text.into(),
            next: Vec::new(),
            fail_info: Vec::new(),
            status_texts: Vec::new(),
            maybe_issued: false,
        }
    }

    /// An option, or a file that it names.
    pub(super) fn usage(text: impl Into<String>) -> Self {
        Self::new(Exit::Usage, "usage", text)
    }

    /// The same with one more thing to check.
    pub(super) fn and(mut self, next: impl Into<String>) -> Self {
        self.next.push(next.into());
        self
    }

    /// An error of the engine; `believe`: a refusal that nobody has signed counts as one.
    pub(super) fn of_cmp(error: &CmpError, believe: bool) -> Self {
        let mut fault = Self::new(Exit::of(error, believe), error.code(), error.to_string());
        match error {
            CmpError::Refused(refusal) => fault.add_refusal(refusal),
            CmpError::Configuration(error) => fault.next.extend(option_for(error).map(ToOwned::to_owned)),
            CmpError::Message(_) => fault.next.extend(option_after(error.code()).map(ToOwned::to_owned)),
            CmpError::Certificate(_) => {
                fault
                    .next
                    .push("look at the certificate at the CA, and revoke it there if it is valid: cmp rr".to_owned());
            }
            CmpError::Ended(_) if fault.exit == Exit::TimedOut => {
                fault
                    .next
                    .push("give it more time by --total-timeout, and keep it over interruptions by --state".to_owned());
            }
            CmpError::Ended(_) | CmpError::Local(_) => {}
        }
        fault
    }

    fn add_refusal(&mut self, refusal: &PeerRefusal) {
        if refusal.unauthenticated.is_some() {
            self.next.push("check --ref and --secret, or --trusted and --srvcert".to_owned());
        }
        self.next.extend(refusal.failure.iter().map(|bit| advice(*bit).to_owned()));
        self.fail_info = refusal.failure.iter().map(|bit| bit.name()).collect();
        self.status_texts.clone_from(&refusal.texts);
    }

    /// No CMP message came back.
    pub(super) fn of_http(error: &HttpError) -> Self {
        let next = match error {
            HttpError::NotConnected { .. } => {
                "check --server, the name, the port, and --proxy; for https also --tls-trusted"
            }
            HttpError::NoAnswer { .. } => "look at the server's log: it may have the request",
            HttpError::NotCmp { .. } | HttpError::Redirect { .. } => "check the path: --path, --well-known",
            HttpError::TooLong { .. } => "look at what the server sends",
        };
        Self::new(Exit::Transport, error.code(), error.to_string()).and(next)
    }

    /// The disk.
    pub(super) fn of_store(error: &StoreError) -> Self {
        Self::new(Exit::Local, error.code(), error.to_string())
    }
}

/// Which option mends what the engine cannot do.
const fn option_for(error: &ConfigurationError) -> Option<&'static str> {
    Some(match error {
        ConfigurationError::SubjectMissing => "give --subject, or --sans",
        ConfigurationError::ReferenceEmpty | ConfigurationError::SecretEmpty => "check --ref and --secret",
        ConfigurationError::WeakMac => "use --mac-algorithm and --owf sha256, or --allow-sha1",
        ConfigurationError::UpdateNeedsSignature | ConfigurationError::RevocationNeedsSignature => {
            "give --cert and --key instead of --ref and --secret"
        }
        ConfigurationError::OldCertificateMissing | ConfigurationError::SignerIsNotOldCertificate => {
            "give the certificate that is to be replaced by --cert; --oldcert must be the same"
        }
        ConfigurationError::KeyIsNotTheCertificates { .. } => "check that --key belongs to --cert",
        ConfigurationError::RecordMismatch { .. } => {
            "repeat the command with the options of the first time, or remove the file of --state"
        }
        _ => return None,
    })
}

/// Which option decides what an answer was refused for.
fn option_after(code: &str) -> Option<&'static str> {
    Some(match code {
        "protection_algorithm_not_accepted" => {
            "if the server knows nothing better than SHA-1 (openssl's own MAC), accept it by --allow-sha1"
        }
        "unprotected" => "nobody can know who sent this: check the server's log",
        "mac_mismatch" => "check --ref and --secret",
        "wrong_integrity" => "the server answers a signature by a MAC: look at its configuration",
        "signer_unknown" | "signer_untrusted" => {
            "give the CA that the signer leads to by --trusted, those between by --untrusted, or pin it by --srvcert"
        }
        "signer_not_authorised" => {
            "say who may answer: --recipient or --expect-sender with the CA's name, or pin a certificate by --srvcert"
        }
        "signer_key_usage" => "accept it by --ignore-keyusage, if the CA is known to sign with such a key",
        _ => "look at the messages by --show-messages, and at the server's log",
    })
}
