//! Answers that the lab CA delays: what is answered later, and when it is.

use jiff::Timestamp;
use trustfleet_cmp::{
    CmpError,
    codec::FailureBit,
    responder::{Answer, OpenTransaction, Received, Request},
};
use trustfleet_pki::Certificate;

use super::{
    exchange::{Ca, Refusal, Step, Transaction, about},
    faults::Fault,
};

/// A delayed answer.
pub(super) struct Waiting {
    pub(super) pending: Pending,
    pub(super) open: OpenTransaction,
    /// What the client polls for.
    pub(super) cert_req_id: i64,
}

/// What is answered later.
#[derive(Clone)]
pub(super) struct Pending {
    /// The delayed message.
    pub(super) received: Received,
    /// How many polls are still to come.
    pub(super) polls: u32,
    pub(super) approval: Option<Approval>,
    /// A certConf: about which certificate, and whether it takes it.
    pub(super) confirms: Option<(Certificate, bool)>,
}

#[derive(Clone, Copy, Eq, PartialEq)]
pub(super) enum Approval {
    Awaited,
    Given,
    Denied,
}

pub(super) enum Confirmed {
    Now,
    Later(Box<Pending>),
}

pub(super) enum Polled {
    NotYet,
    Ready(Box<Pending>),
}

impl Ca {
    /// W1, W2: the answer is delayed.
    pub(super) fn wait(
        &self,
        received: &Received,
        pending: Pending,
        digest: [u8; 32],
        now: Timestamp,
    ) -> Result<Vec<u8>, CmpError> {
        let (kind, cert_req_id) = about(&received.request);
        let answer = match &received.request {
            Request::CertConf(_) => Answer::ErrorWaiting,
            _ => Answer::Waiting { kind, cert_req_id },
        };
        let id = received.reply_to.transaction_id.clone();
        let reply = self.reply(received, &answer, now);
        let mut state = self.state();
        let Ok(reply) = reply else {
            state.transactions.remove(&id);
            return reply.map(|reply| reply.der);
        };
        let open = OpenTransaction::new(received, kind, cert_req_id, &reply, None);
        let step = Step::Waiting(Box::new(Waiting { pending, open, cert_req_id }));
        state.transactions.insert(id, Transaction { step, last: Some((digest, reply.der.clone())), touched: now });
        Ok(reply.der)
    }

    /// pollReq.
    pub(super) fn polled(&self, received: &Received, cert_req_id: i64) -> Result<Polled, Refusal> {
        let mut state = self.state();
        let known = state.transactions.get_mut(&received.reply_to.transaction_id);
        let Some(Transaction { step: Step::Waiting(waiting), .. }) = known else {
            let text = "nothing of this transaction is waiting".to_owned();
            return Err(Refusal(FailureBit::BadRequest, text));
        };
        waiting.open.check(received)?;
        if cert_req_id != waiting.cert_req_id {
            let text = format!("nothing waits for certReqId {cert_req_id}, but for {}", waiting.cert_req_id);
            return Err(Refusal(FailureBit::BadRequest, text));
        }
        let never = self.config.has(Fault::WaitingForEver) || self.config.has(Fault::AbsurdCheckAfter);
        waiting.pending.polls = waiting.pending.polls.saturating_sub(1);
        if never || waiting.pending.polls > 0 || waiting.pending.approval == Some(Approval::Awaited) {
            return Ok(Polled::NotYet);
        }
        Ok(Polled::Ready(Box::new(waiting.pending.clone())))
    }

    pub(super) fn check_after(&self) -> i64 {
        if self.config.has(Fault::AbsurdCheckAfter) { i64::from(i32::MAX) } else { i64::from(self.config.check_after) }
    }

    /// Decides what waits for approval; how many transactions that were.
    pub(super) fn approve(&self, transaction_id: Option<&str>, yes: bool) -> usize {
        let mut count = 0;
        for (id, known) in &mut self.state().transactions {
            let meant = transaction_id.is_none_or(|wanted| hex::encode(id).eq_ignore_ascii_case(wanted));
            if let Step::Waiting(waiting) = &mut known.step
                && meant
                && waiting.pending.approval == Some(Approval::Awaited)
            {
                waiting.pending.approval = Some(if yes { Approval::Given } else { Approval::Denied });
                count += 1;
            }
        }
        count
    }

    pub(super) fn waiting(&self) -> Vec<String> {
        let state = self.state();
        let waiting = state.transactions.iter().filter(|(_, known)| matches!(known.step, Step::Waiting(_)));
        waiting.map(|(id, _)| hex::encode(id)).collect()
    }
}
