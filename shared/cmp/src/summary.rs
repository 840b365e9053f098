//! What one line can tell of a message: its kind, and what it says about the request.
//!
//! For transcripts that leave the device. Nothing of the header, no certificate, nonce, salt, MAC or signature is in it.

use crate::{
    codec::{BodyKind, FailureBit, PkiBody, PkiMessage, PkiStatus, PkiStatusInfo},
    text::sanitise_all,
};

/// A message in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Kind of its body.
    pub kind: BodyKind,
    /// The first status in it.
    pub status: Option<PkiStatus>,
    /// Bits of that status' failInfo, in the order of their numbers.
    pub fail_info: Vec<FailureBit>,
    /// Texts of that status: harmless, each at most [`crate::text::MAX_CHARACTERS`] characters.
    pub texts: Vec<String>,
    /// checkAfter of a pollRep, seconds.
    pub check_after_s: Option<u64>,
}

/// Reads a message in one line.
pub fn summary(message: &PkiMessage) -> Summary {
    let mut summary = Summary {
        kind: message.body.kind(),
        status: None,
        fail_info: Vec::new(),
        texts: Vec::new(),
        check_after_s: None,
    };
    match &message.body {
        PkiBody::Ip(answer) | PkiBody::Cp(answer) | PkiBody::Kup(answer) => {
            summary.add(answer.response.first().map(|response| &response.status));
        }
        PkiBody::Rp(answer) => summary.add(answer.status.first()),
        PkiBody::Error(error) => {
            summary.add(Some(&error.status_info));
            summary.texts.extend(sanitise_all(error.error_details.as_ref()));
        }
        PkiBody::CertConf(all) => match all.first() {
            // RFC 9810, section 5.3.18: what is left out says that the certificate is accepted.
            Some(conf) if conf.status_info.is_none() => summary.status = Some(PkiStatus::Accepted),
            conf => summary.add(conf.and_then(|conf| conf.status_info.as_ref())),
        },
        PkiBody::PollRep(all) => {
            if let Some(poll) = all.first() {
                summary.check_after_s = u64::try_from(poll.check_after).ok();
                summary.texts = sanitise_all(poll.reason.as_ref());
            }
        }
        _ => {}
    }
    summary
}

impl Summary {
    fn add(&mut self, info: Option<&PkiStatusInfo>) {
        let Some(info) = info else { return };
        self.status = Some(info.status);
        self.fail_info = info.fail_info.map(|failure| failure.bits()).unwrap_or_default();
        self.texts = sanitise_all(info.status_string.as_ref());
    }
}
