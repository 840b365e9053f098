//! What each state makes of an answer that belongs to it.

use jiff::Timestamp;
use trustfleet_pki::{certificate::Certificate, name::Name};

use super::{
    Step, Transaction,
    record::Bytes,
    state::{Awaited, Issued, Pending, State, Verdict},
};
use crate::{
    check,
    codec::{
        BodyKind, CertOrEncCert, CertRepMessage, CertResponse, FailureBit, PkiBody, PkiMessage, PkiStatus,
        PkiStatusInfo,
        bounds::MAX_CERTIFICATES,
        raw::{FreeText, integer_hex},
        response::EncryptedKey,
    },
    entropy::Entropy,
    envelope::{self, Decrypter},
    error::{CmpError, MessageError, PeerRefusal, UnfitCertificate},
    fit::{self, Asked},
    outcome::Warning,
    peer::Proof,
    request::{self, NO_CERT_REQ_ID},
    text,
};

/// Most bytes of certificates that are kept of the answers, which means in the record on the device's disk. Chains with
/// post-quantum signatures have less than 100 KiB.
const MAX_KEPT_BYTES: usize = 256 * 1024;

impl Transaction {
    /// An authentic answer to our last message.
    pub(super) fn respond(
        mut self,
        message: PkiMessage,
        proof: &Proof,
        peer_nonce: Vec<u8>,
        entropy: &mut dyn Entropy,
        now: Timestamp,
    ) -> Step {
        self.learn(&message, proof);
        let (awaited, original_nonce, polling) = match &self.state {
            State::CertRep { sent } => (Awaited::CertRep, sent.nonce.clone(), None),
            State::PkiConf { sent, verdict } => {
                (Awaited::PkiConf { verdict: verdict.clone() }, sent.nonce.clone(), None)
            }
            State::PollRep { pending, .. } => {
                (pending.awaited.clone(), pending.original_nonce.clone(), Some(pending.cert_req_id))
            }
            State::PollTime { .. } => {
                let error = crate::error::ConfigurationError::UnexpectedInput { state: self.state.name() };
                return self.fail(error.into(), Some(&peer_nonce), entropy, now);
            }
        };
        let kind = self.context.kind.response();
        match (&message.body, awaited) {
            (PkiBody::PollRep(polls), awaited) if polling.is_some() => {
                let cert_req_id = polling.unwrap_or_else(|| self.context.kind.cert_req_id());
                let poll = check::single_poll(polls, cert_req_id).and_then(|poll| {
                    let got = poll.check_after;
                    u64::try_from(got).map_err(|_| MessageError::CheckAfter { got })
                });
                match poll {
                    Ok(check_after) => {
                        self.wait(Pending { cert_req_id, original_nonce, awaited }, check_after, peer_nonce, now)
                    }
                    Err(error) => self.fail(error.into(), Some(&peer_nonce), entropy, now),
                }
            }
            // W2
            (PkiBody::Error(error), awaited) if error.status_info.status == PkiStatus::Waiting => {
                self.delayed(Pending { cert_req_id: NO_CERT_REQ_ID, original_nonce, awaited }, peer_nonce, entropy, now)
            }
            // C9
            (PkiBody::Error(error), Awaited::PkiConf { verdict: Verdict::Accept { issued } })
                if error.status_info.fail_info.is_some_and(|info| info.contains(FailureBit::CertConfirmed)) =>
            {
                self.context.warnings.push(Warning::AlreadyConfirmed);
                self.finish(&issued, false, entropy, now)
            }
            // C7: an error in answer to a rejecting certConf does not hide why it was rejected
            (PkiBody::Error(_), Awaited::PkiConf { verdict: verdict @ Verdict::Reject { .. } }) => {
                self.concluded(verdict, false, entropy, now)
            }
            (PkiBody::Error(error), Awaited::CertRep) if self.can_begin_anew(&message, error).is_some() => {
                let pvno = self.can_begin_anew(&message, error).unwrap_or(self.context.pvno);
                self.begin_anew(pvno, entropy, now)
            }
            (PkiBody::Error(_), _) => {
                let refusal = refusal(&message, None);
                self.fail(CmpError::Refused(Box::new(refusal)), Some(&peer_nonce), entropy, now)
            }
            (PkiBody::PkiConf, Awaited::PkiConf { verdict }) => self.concluded(verdict, true, entropy, now),
            (PkiBody::Ip(answer) | PkiBody::Cp(answer) | PkiBody::Kup(answer), Awaited::CertRep)
                if message.body.kind() == kind =>
            {
                self.on_cert_rep(&message, answer, proof, original_nonce, peer_nonce, entropy, now)
            }
            (PkiBody::Rp(answer), Awaited::CertRep) if kind == BodyKind::Rp => {
                self.on_rev_rep(&message, answer, original_nonce, peer_nonce, entropy, now)
            }
            (PkiBody::Genp(infos), Awaited::CertRep) if kind == BodyKind::Genp => {
                self.on_gen_rep(infos, &peer_nonce, entropy, now)
            }
            (PkiBody::Nested(_), _) => self.fail(MessageError::Nested.into(), Some(&peer_nonce), entropy, now),
            (_, awaited) => {
                let mut expected = match awaited {
                    Awaited::CertRep => vec![kind],
                    Awaited::PkiConf { .. } => vec![BodyKind::PkiConf],
                };
                expected.push(BodyKind::Error);
                if polling.is_some() {
                    expected.push(BodyKind::PollRep);
                }
                let error = check::unexpected(&message, &expected);
                self.fail(error.into(), Some(&peer_nonce), entropy, now)
            }
        }
    }

    /// A message that must not be used (E5); if it says no, its words are kept as a diagnostic (P10).
    pub(super) fn refuse(
        self,
        message: &PkiMessage,
        error: MessageError,
        entropy: &mut dyn Entropy,
        now: Timestamp,
    ) -> Step {
        if status_of(message).is_some_and(|info| info.status == PkiStatus::Rejection) {
            let refusal = refusal(message, Some(error));
            return self.fail(CmpError::Refused(Box::new(refusal)), None, entropy, now);
        }
        // nobody vouches for the nonce: only a sensible one is sent back
        let peer_nonce = check::sender_nonce(&message.header).unwrap_or_default();
        self.fail(error.into(), Some(peer_nonce), entropy, now)
    }

    /// Keeps what an authentic answer brings besides its body.
    fn learn(&mut self, message: &PkiMessage, proof: &Proof) {
        let mut warn = |warning: Warning| {
            if !self.context.warnings.contains(&warning) {
                self.context.warnings.push(warning);
            }
        };
        match proof {
            Proof::Mac { weak, other_reference } => {
                if *weak {
                    warn(Warning::WeakMac);
                }
                if *other_reference {
                    warn(Warning::OtherReference);
                }
            }
            Proof::Signature => {
                if matches!(self.credentials, request::Credentials::Mac { .. }) {
                    warn(Warning::SignedAnswer);
                }
            }
        }
        // the newest first: no protection covers extraCerts, so those of an earlier answer may be anybody's
        let (mut known, mut room): (Vec<Certificate>, _) = (Vec::new(), MAX_KEPT_BYTES);
        let newest = self.acceptance.certificates(&message.extra_certs).into_iter();
        for certificate in newest.chain(std::mem::take(&mut self.context.peer_certificates)) {
            let size = certificate.as_der().len();
            if known.len() < MAX_CERTIFICATES && size <= room && !known.contains(&certificate) {
                room -= size;
                known.push(certificate);
            }
        }
        self.context.peer_certificates = known;
    }

    #[allow(clippy::too_many_arguments)] // all of it is this one answer
    fn on_cert_rep(
        mut self,
        message: &PkiMessage,
        answer: &CertRepMessage,
        proof: &Proof,
        original_nonce: Bytes,
        peer_nonce: Vec<u8>,
        entropy: &mut dyn Entropy,
        now: Timestamp,
    ) -> Step {
        let cert_req_id = self.context.kind.cert_req_id();
        let response = match check::single_response(answer, cert_req_id) {
            Ok(response) => response,
            Err(error) => return self.fail(error.into(), Some(&peer_nonce), entropy, now),
        };
        match response.status.status {
            PkiStatus::Waiting => {
                let pending = Pending { cert_req_id, original_nonce, awaited: Awaited::CertRep };
                return self.delayed(pending, peer_nonce, entropy, now);
            }
            PkiStatus::Rejection if response.certified_key_pair.is_some() => {
                return self.fail(MessageError::CertificateWithRejection.into(), Some(&peer_nonce), entropy, now);
            }
            PkiStatus::Rejection | PkiStatus::RevocationNotification => {
                let refusal = refusal(message, None);
                return self.fail(CmpError::Refused(Box::new(refusal)), Some(&peer_nonce), entropy, now);
            }
            PkiStatus::Accepted => {}
            PkiStatus::GrantedWithMods => {} // see below: by policy
            PkiStatus::RevocationWarning => self.context.warnings.push(Warning::RevocationWarning),
            PkiStatus::KeyUpdateWarning => self.context.warnings.push(Warning::KeyUpdateWarning),
        }
        let certificate = match certificate_of(response, self.acceptance.decrypter.as_deref()) {
            Ok(certificate) => certificate,
            Err(error) => return self.fail(error.into(), Some(&peer_nonce), entropy, now),
        };
        let by_mac = matches!(proof, Proof::Mac { .. });
        let ca_pubs = answer.ca_pubs.as_deref().map(|list| self.acceptance.certificates(list)).unwrap_or_default();
        let subject = Name::from_der(&self.context.subject.0).unwrap_or_else(|_| Name::null());
        let asked = Asked { subject: &subject, sans: &self.context.sans.0, public_key: &self.context.public_key.0 };
        let helpers = [self.context.peer_certificates.as_slice(), &ca_pubs].concat();
        let trusted = if by_mac { ca_pubs.as_slice() } else { &[] };
        let (reasons, warnings) =
            fit::judge(&certificate, response.status.status, &asked, &self.acceptance, &helpers, trusted, now);
        self.context.warnings.extend(warnings);
        let issued = Issued {
            certificate: Bytes::from(certificate.as_der()),
            ca_pubs: ca_pubs.iter().map(|ca| Bytes::from(ca.as_der())).collect(),
            by_mac,
            status: response.status.status,
            status_texts: text::sanitise_all(response.status.status_string.as_ref()),
        };
        let implicit = self.context.implicit_confirm && message.header.has_implicit_confirm();
        match (implicit, reasons.is_empty()) {
            (true, true) => self.done(&issued, certificate, ca_pubs, true),
            (true, false) => {
                let unfit = UnfitCertificate { reasons, certificate, rejection_confirmed: false };
                self.fail(CmpError::Certificate(Box::new(unfit)), Some(&peer_nonce), entropy, now)
            }
            (false, true) => self.confirm(&certificate, Verdict::Accept { issued }, &peer_nonce, entropy, now),
            (false, false) => {
                self.confirm(&certificate, Verdict::Reject { reasons, issued }, &peer_nonce, entropy, now)
            }
        }
    }
}

/// V8, S24a.
fn certificate_of(response: &CertResponse, decrypter: Option<&dyn Decrypter>) -> Result<Certificate, MessageError> {
    let status = response.status.status;
    let pair = response.certified_key_pair.as_ref().ok_or(MessageError::CertificateMissing { status })?;
    if pair.private_key.is_some() {
        return Err(MessageError::PrivateKeySent);
    }
    let unreadable = |detail: String| MessageError::CertificateUnreadable { detail };
    match (&pair.cert_or_enc_cert, decrypter) {
        (CertOrEncCert::Certificate(raw), _) => {
            let der = raw.to_tlv().map_err(|error| unreadable(error.to_string()))?;
            Certificate::from_der(&der).map_err(|error| unreadable(error.to_string()))
        }
        (CertOrEncCert::EncryptedCert(EncryptedKey::EnvelopedData(raw)), Some(decrypter)) => {
            let opened = envelope::open(raw, decrypter);
            opened.map_err(|error| MessageError::CertificateSealed { detail: error.to_string() })
        }
        (CertOrEncCert::EncryptedCert(key), _) => Err(MessageError::CertificateEncrypted { form: key.form() }),
    }
}

/// The status that a message carries, where it carries exactly one.
fn status_of(message: &PkiMessage) -> Option<&PkiStatusInfo> {
    match &message.body {
        PkiBody::Error(error) => Some(&error.status_info),
        PkiBody::Ip(answer) | PkiBody::Cp(answer) | PkiBody::Kup(answer) => match answer.response.as_slice() {
            [response] => Some(&response.status),
            _ => None,
        },
        PkiBody::Rp(answer) => match answer.status.as_slice() {
            [status] => Some(status),
            _ => None,
        },
        _ => None,
    }
}

/// E3: a refusal read in full.
pub(super) fn refusal(message: &PkiMessage, unauthenticated: Option<MessageError>) -> PeerRefusal {
    let info = status_of(message);
    let failure = info.and_then(|info| info.fail_info).unwrap_or_default();
    let mut texts = text::sanitise_all(info.and_then(|info| info.status_string.as_ref()));
    let (mut error_code, mut details): (_, Option<&FreeText>) = (None, None);
    if let PkiBody::Error(error) = &message.body {
        error_code = error.error_code.as_ref().filter(|code| code.as_bytes().len() <= 16).map(integer_hex);
        details = error.error_details.as_ref();
    }
    texts.extend(text::sanitise_all(details));
    PeerRefusal {
        body: message.body.kind(),
        status: info.map_or(PkiStatus::Rejection, |info| info.status),
        failure: failure.bits(),
        failure_text: failure.to_string(),
        texts,
        error_code,
        unauthenticated,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{CertifiedKeyPair, RawSequence};

    fn response(pair: Option<CertifiedKeyPair>) -> CertResponse {
        let status = PkiStatusInfo::plain(PkiStatus::Accepted);
        CertResponse { cert_req_id: 0, status, certified_key_pair: pair, rsp_info: None }
    }

    fn empty() -> RawSequence {
        RawSequence::from_tlv(&[0x30, 0x00]).unwrap()
    }

    fn pair(cert_or_enc_cert: CertOrEncCert) -> CertifiedKeyPair {
        CertifiedKeyPair { cert_or_enc_cert, private_key: None, publication_info: None }
    }

    #[test]
    fn v8_accepted_without_a_certificate_is_refused() {
        let error = certificate_of(&response(None), None).unwrap_err();
        assert_eq!(error, MessageError::CertificateMissing { status: PkiStatus::Accepted });
    }

    #[test]
    fn s24a_an_encrypted_certificate_is_refused_by_name() {
        for (key, form) in [
            (EncryptedKey::EncryptedValue(empty()), "EncryptedValue"),
            (EncryptedKey::EnvelopedData(empty()), "EnvelopedData"),
        ] {
            let error = certificate_of(&response(Some(pair(CertOrEncCert::EncryptedCert(key)))), None).unwrap_err();
            assert_eq!(error, MessageError::CertificateEncrypted { form });
        }
    }

    #[test]
    fn a_private_key_that_was_not_asked_for_is_refused() {
        let private_key = Some(EncryptedKey::EnvelopedData(empty()));
        let pair = CertifiedKeyPair { private_key, ..pair(CertOrEncCert::Certificate(empty())) };
        assert_eq!(certificate_of(&response(Some(pair)), None).unwrap_err(), MessageError::PrivateKeySent);
    }

    #[test]
    fn bytes_that_are_no_certificate_are_refused() {
        let error = certificate_of(&response(Some(pair(CertOrEncCert::Certificate(empty())))), None).unwrap_err();
        assert_eq!(error.code(), "certificate_unreadable");
    }
}
