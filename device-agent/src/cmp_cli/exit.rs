//! How the command ends: one number per culprit, for scripts. The numbers are promised: never change one.

use std::process::ExitCode;

use trustfleet_cmp::CmpError;
use trustfleet_cmp::error::{Ended, MessageError};

/// How the command ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Exit {
    /// It worked.
    Ok = 0,
    /// An option, or a file that an option names.
    Usage = 1,
    /// The CA said no, and it was the CA that said it.
    Refused = 2,
    /// An answer came, a refusal perhaps, and nobody knows who made it.
    NotAuthentic = 3,
    /// No CMP message came back.
    Transport = 4,
    /// No final answer in time.
    TimedOut = 5,
    /// Stopped by a signal.
    Stopped = 6,
    /// A certificate came that does not fit what was asked for: it is not used.
    CertificateRefused = 7,
    /// An answer of the CA that makes no sense, or none here.
    Answer = 8,
    /// This machine: disk, randomness, a key that does not sign.
    Local = 9,
}

impl Exit {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 10] = [
        Self::Ok,
        Self::Usage,
        Self::Refused,
        Self::NotAuthentic,
        Self::Transport,
        Self::TimedOut,
        Self::Stopped,
        Self::CertificateRefused,
        Self::Answer,
        Self::Local,
    ];

    /// What it means, for `--help` and the manual.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Ok => "it worked",
            Self::Usage => "our side: an option, or a file that it names; the request was not sent",
            Self::Refused => "the CA refused",
            Self::NotAuthentic => "an answer came that cannot be authenticated: it counts for nothing",
            Self::Transport => "no CMP message came back",
            Self::TimedOut => "no final answer in time",
            Self::Stopped => "stopped by a signal",
            Self::CertificateRefused => "the certificate does not fit the request: it is not used",
            Self::Answer => "the CA's answer is malformed or does not fit",
            Self::Local => "this machine: disk, randomness, a key that does not sign",
        }
    }

    /// In one word, as the JSON output says it.
    pub const fn culprit(self) -> &'static str {
        match self {
            Self::Ok => "nobody",
            Self::Usage => "configuration",
            Self::Refused => "peer_refusal",
            Self::NotAuthentic | Self::CertificateRefused | Self::Answer => "peer_message",
            Self::Transport => "transport",
            Self::TimedOut => "time",
            Self::Stopped => "operator",
            Self::Local => "device",
        }
    }

    /// By an error of the engine; `believe`: a refusal that nobody has signed counts as one.
    pub fn of(error: &CmpError, believe: bool) -> Self {
        match error {
            CmpError::Configuration(_) => Self::Usage,
            CmpError::Local(_) => Self::Local,
            CmpError::Certificate(_) => Self::CertificateRefused,
            CmpError::Refused(refusal) if refusal.unauthenticated.is_some() && !believe => Self::NotAuthentic,
            CmpError::Refused(_) => Self::Refused,
            CmpError::Ended(Ended::Stopped) => Self::Stopped,
            CmpError::Ended(Ended::TotalTime { .. }) => Self::TimedOut,
            CmpError::Message(error) => Self::of_message(error),
        }
    }

    const fn of_message(error: &MessageError) -> Self {
        match error {
            MessageError::Unprotected { .. }
            | MessageError::ProtectionIncomplete
            | MessageError::Algorithm { .. }
            | MessageError::Iterations { .. }
            | MessageError::MacMismatch
            | MessageError::WrongIntegrity { .. }
            | MessageError::SignerUnknown { .. }
            | MessageError::SignatureInvalid { .. }
            | MessageError::SignerUntrusted { .. }
            | MessageError::SignerNotAuthorised { .. }
            | MessageError::SignerKeyUsage { .. } => Self::NotAuthentic,
            _ => Self::Answer,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// The table of exit codes, for `--help`.
pub fn help() -> String {
    let rows = Exit::ALL.iter().map(|exit| format!("  {}  {}\n", *exit as u8, exit.meaning()));
    format!("Exit codes:\n{}", rows.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_stay_what_scripts_were_told() {
        let promised = ["Ok", "Usage", "Refused", "NotAuthentic", "Transport", "TimedOut", "Stopped"];
        let promised = promised.iter().chain(&["CertificateRefused", "Answer", "Local"]);
        for (number, (exit, name)) in Exit::ALL.iter().zip(promised).enumerate() {
            assert_eq!((*exit as usize, format!("{exit:?}").as_str()), (number, *name));
            assert!(help().contains(exit.meaning()));
        }
    }
}
