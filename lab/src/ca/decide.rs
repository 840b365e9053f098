//! Who may have what: the lab CA's decisions about a request that is authentic.
//!
//! Nothing here knows transactions or messages; [`super::exchange`] asks, and tells the client.

use jiff::Timestamp;
use trustfleet_cmp::{
    RevocationReason,
    codec::{FailureBit, InfoTypeAndValue, PkiStatus},
    request::RequestKind,
    responder::{Answer, CertificateRequest, Client, Received, Request, RevocationRequest},
};
use trustfleet_pki::Certificate;

use super::{
    exchange::{Ca, Refusal},
    faults::Fault,
    issue::{IssueError, SUBJECT_ALT_NAME, Subject},
    ledger::{Issued, Ledger, kind_name, requester},
    questions,
};

impl Ca {
    /// The final answer to a request, and the certificate in it.
    pub(super) fn outcome(&self, received: &Received, now: Timestamp) -> (Answer, Option<Certificate>) {
        let refused = |kind, cert_req_id, Refusal(bit, text): Refusal| {
            self.state().ledger.count_refusal(bit.name());
            (Answer::Refused { kind, cert_req_id, failure: vec![bit], text }, None)
        };
        match &received.request {
            Request::Certificate(request) => match self.granted(received, request, now) {
                Ok(granted) => granted,
                Err(refusal) => refused(request.kind, request.cert_req_id, refusal),
            },
            Request::Revoke(asked) => match self.revoked(received, asked, now) {
                Ok(answer) => (answer, None),
                Err(refusal) => refused(RequestKind::Rr, -1, refusal),
            },
            Request::Info(question) => match self.informed(question, now) {
                Ok(answer) => (answer, None),
                Err(refusal) => refused(RequestKind::Genm, -1, refusal),
            },
            _ => (Answer::PkiConf, None),
        }
    }

    fn granted(
        &self,
        received: &Received,
        request: &CertificateRequest,
        now: Timestamp,
    ) -> Result<(Answer, Option<Certificate>), Refusal> {
        self.may_have(received, request)?;
        let certificate = self.issue(request, now)?;
        let implicit_confirm = received.implicit_confirm && self.config.implicit_confirm;
        let answer = Answer::Granted {
            kind: request.kind,
            cert_req_id: request.cert_req_id,
            certificate: certificate.clone(),
            with_mods: request.extensions.iter().any(|asked| asked.extn_id != SUBJECT_ALT_NAME),
            ca_pubs: if request.kind == RequestKind::Ir { vec![self.authority.root.clone()] } else { Vec::new() },
            extra_certs: vec![self.authority.issuing.clone()],
            implicit_confirm,
        };
        let mut state = self.state();
        if let Some(old) = &request.old_certificate {
            state.updates.insert(old.serial_hex(), received.reply_to.transaction_id.clone());
        }
        state.ledger.record(Issued {
            serial: certificate.serial_hex(),
            subject: certificate.subject().to_string(),
            kind: kind_name(request.kind),
            time: now,
            not_after: certificate.not_after(),
            transaction_id: hex::encode(&received.reply_to.transaction_id),
            confirmed: implicit_confirm,
            revoked: false,
            reason: None,
            revoked_at: None,
            requester: requester(&received.client),
            certificate: certificate.clone(),
        });
        Ok((answer, Some(certificate)))
    }

    /// Whether this client may have such a certificate.
    fn may_have(&self, received: &Received, request: &CertificateRequest) -> Result<(), Refusal> {
        if let Some(bit) = self.config.reject {
            return Err(Refusal(bit, "this lab CA was told to refuse every request".to_owned()));
        }
        if self.config.has(Fault::HostileText) {
            return Err(Refusal(FailureBit::BadRequest, super::faults::hostile_text()));
        }
        let Client::Signature { certificate } = &received.client else { return Ok(()) };
        let own = certificate.issuer() == self.authority.issuing.subject();
        let state = self.state();
        match state.ledger.find(certificate) {
            Some(known) if known.revoked => {
                return Err(Refusal(FailureBit::CertRevoked, format!("certificate {} is revoked", known.serial)));
            }
            None if own || request.kind == RequestKind::Kur => {
                let text = format!("certificate {} was not issued to a device here", certificate.serial_hex());
                return Err(Refusal(FailureBit::BadCertId, text));
            }
            _ => {}
        }
        let Some(old) = &request.old_certificate else { return Ok(()) };
        if old.subject() != request.subject {
            let text = format!("an update keeps the subject {}: use ir or cr for another one", old.subject());
            return Err(Refusal(FailureBit::BadCertTemplate, text));
        }
        if self.config.one_update && state.is_being_updated(&old.serial_hex(), &received.reply_to.transaction_id) {
            let text = format!("an update of certificate {} is not finished yet", old.serial_hex());
            return Err(Refusal(FailureBit::BadRequest, text));
        }
        Ok(())
    }

    fn issue(&self, request: &CertificateRequest, now: Timestamp) -> Result<Certificate, Refusal> {
        let other = self.config.has(Fault::OtherKey).then(|| self.authority.cmp_signer.spki_der());
        let subject = Subject {
            name: &request.subject,
            alternative_names: request.subject_alt_names.as_deref(),
            public_key: other.as_deref().unwrap_or_else(|| request.public_key.spki_der()),
            crl_url: self.config.crl_url.as_deref(),
        };
        self.authority.issue(&subject, self.config.lifetime, now).map_err(|error| {
            let bit = match &error {
                IssueError::WeakKey { .. } => FailureBit::BadAlg,
                IssueError::NoName | IssueError::Name(_) | IssueError::PublicKey(_) => FailureBit::BadCertTemplate,
                IssueError::NotCanonical { .. } | IssueError::Der(_) => FailureBit::BadDataFormat,
                _ => FailureBit::SystemFailure,
            };
            Refusal(bit, error.to_string())
        })
    }

    /// rr: a certificate revokes itself, the RA any.
    fn revoked(&self, received: &Received, asked: &RevocationRequest, now: Timestamp) -> Result<Answer, Refusal> {
        let Client::Signature { certificate: signer } = &received.client else {
            return Err(Refusal(FailureBit::WrongIntegrity, "an rr is signed".to_owned()));
        };
        let serial = trustfleet_pki::certificate::serial_hex(&asked.serial);
        let crls = {
            let mut state = self.state();
            if state.ledger.find(signer).is_some_and(|known| known.revoked && known.serial != serial) {
                return Err(Refusal(FailureBit::CertRevoked, "the signer's certificate is revoked".to_owned()));
            }
            let known = state.ledger.of_serial(&serial).filter(|_| asked.issuer == self.authority.issuing.subject());
            let Some(known) = known else {
                return Err(Refusal(FailureBit::BadCertId, format!("certificate {serial} was not issued here")));
            };
            let itself = known.certificate == *signer;
            let ra = self.config.ra.as_ref().is_some_and(|ra| signer.subject().says_the_same_as(ra));
            if !itself && !ra {
                let text = format!("{} may not revoke another's certificate", signer.subject());
                return Err(Refusal(FailureBit::NotAuthorized, text));
            }
            revoke(&mut state.ledger, &serial, asked.reason.unwrap_or_default(), now)?;
            vec![self.authority.crl(state.ledger.issued(), now).map_err(failed)?]
        };
        let (issuer, serial) = (asked.issuer.clone(), asked.serial.clone());
        Ok(Answer::Revoked { status: PkiStatus::Accepted, issuer, serial, crls })
    }

    fn informed(&self, question: &InfoTypeAndValue, now: Timestamp) -> Result<Answer, Refusal> {
        let crl = self.crl(now).map_err(failed)?;
        questions::answer(question, &self.authority, &self.config, &crl)
            .map(|info| Answer::Info(vec![info]))
            .map_err(|error| Refusal(FailureBit::BadDataFormat, error.to_string()))
    }

    /// The CRL of this moment.
    pub(super) fn crl(&self, now: Timestamp) -> Result<Vec<u8>, IssueError> {
        self.authority.crl(self.state().ledger.issued(), now)
    }
}

fn failed(error: IssueError) -> Refusal {
    Refusal(FailureBit::SystemFailure, error.to_string())
}

fn revoke(ledger: &mut Ledger, serial: &str, reason: RevocationReason, now: Timestamp) -> Result<(), Refusal> {
    let held = ledger.of_serial(serial).and_then(|known| known.reason) == Some(RevocationReason::CertificateHold);
    let revoked = ledger.of_serial(serial).is_some_and(|known| known.revoked);
    match (reason, revoked) {
        (RevocationReason::RemoveFromCrl, true) if held => ledger.release(serial),
        (RevocationReason::RemoveFromCrl, _) => {
            return Err(Refusal(FailureBit::BadRequest, format!("certificate {serial} is not on hold")));
        }
        (_, true) if !held => {
            return Err(Refusal(FailureBit::CertRevoked, format!("certificate {serial} is revoked already")));
        }
        _ => ledger.revoke_for(serial, reason, now),
    };
    Ok(())
}
