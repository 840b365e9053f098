//! Beginning once more: another protocol version (H2), or a transactionID that is in use (E4).
//!
//! Only while the answer to the request itself is awaited, only after an authentic refusal, and only once: the server has
//! said that it did not even look at the request.

use jiff::Timestamp;

use super::{
    Step, Transaction,
    record::Bytes,
    state::{Sent, State},
};
use crate::{
    CmpError,
    codec::{
        ErrorMsgContent, FailureBit, PkiMessage, RawSequence,
        header::{CMP2000, CMP2021},
    },
    entropy::{Entropy, fresh},
    error::{LocalError, MessageError},
    outcome::Warning,
    peer,
};

impl Transaction {
    /// Is the refusal one that a new beginning can answer? The protocol version to go on with then.
    pub(super) fn can_begin_anew(&self, message: &PkiMessage, error: &ErrorMsgContent) -> Option<u64> {
        let State::CertRep { .. } = &self.state else { return None };
        if self.context.begun_anew {
            return None;
        }
        let failure = error.status_info.fail_info.unwrap_or_default();
        let theirs = message.header.pvno;
        if failure.contains(FailureBit::UnsupportedVersion) && theirs != self.context.pvno {
            return matches!(theirs, CMP2000 | CMP2021).then_some(theirs); // cmp1999 is refused before (V1)
        }
        let may = self.acceptance.retry_id_in_use && !self.repeated;
        (may && failure.contains(FailureBit::TransactionIdInUse)).then_some(self.context.pvno)
    }

    /// The same request with a new transactionID and nonce.
    pub(super) fn begin_anew(mut self, pvno: u64, entropy: &mut dyn Entropy, now: Timestamp) -> Step {
        let State::CertRep { sent } = &self.state else {
            return self.fail(MessageError::Nested.into(), None, entropy, now);
        };
        let kind = sent.kind;
        let sent = PkiMessage::from_der(&sent.bytes.0);
        self.context.warnings.push(if pvno == self.context.pvno {
            Warning::BegunAnew
        } else {
            Warning::OtherVersion { pvno }
        });
        self.context.begun_anew = true;
        self.context.pvno = pvno;
        let made = sent.map_err(|error| CmpError::from(MessageError::from(error))).and_then(|sent| {
            self.context.transaction_id = Bytes::from(fresh(entropy, "a transactionID")?);
            self.first(sent.body, &sent.extra_certs, entropy, now)
        });
        match made {
            Ok((nonce, bytes)) => {
                self.note(true, Some(kind), bytes.len());
                let sent = Sent { kind, nonce: Bytes::from(nonce), bytes: Bytes::from(bytes.clone()) };
                self.state = State::CertRep { sent };
                Step::Send { transaction: Box::new(self), message: bytes }
            }
            Err(error) => self.fail(error, None, entropy, now),
        }
    }

    /// The transaction's first message: its nonce and its bytes.
    pub(super) fn first(
        &self,
        body: crate::codec::PkiBody,
        extra_certs: &[RawSequence],
        entropy: &mut dyn Entropy,
        now: Timestamp,
    ) -> Result<(Vec<u8>, Vec<u8>), CmpError> {
        let nonce = fresh(entropy, "a nonce")?;
        let fields = crate::request::HeaderFields {
            sender: &self.context.sender.0,
            recipient: &self.context.recipient.0,
            transaction_id: &self.context.transaction_id.0,
            sender_nonce: &nonce,
            recip_nonce: None,
            implicit_confirm: self.context.implicit_confirm,
            now,
        };
        let mut header = crate::request::header(&fields, self.context.pvno)?;
        if let Some(profile) = &self.context.cert_profile {
            let profile = crate::codec::InfoTypeAndValue::cert_profile(profile);
            let profile = profile.map_err(LocalError::encoding("a certProfile"))?;
            header.general_info.get_or_insert_with(Vec::new).push(profile);
        }
        let bytes = self.sealer.seal(header, body, &peer::certificates(extra_certs))?;
        Ok((nonce, bytes))
    }
}
