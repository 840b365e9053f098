//! Answers that bring no certificate: rp and genp.

use jiff::Timestamp;
use trustfleet_pki::certificate::serial_hex;

use super::{
    Step, Transaction,
    record::Bytes,
    respond::refusal,
    state::{Awaited, Pending},
};
use crate::{
    codec::{InfoTypeAndValue, PkiMessage, PkiStatus, raw::directory_name_der, response::RevRepContent},
    crl::Crl,
    entropy::Entropy,
    error::{CmpError, MessageError},
    outcome::{Conclusion, Informed, Revoked, Warning},
    request::NO_CERT_REQ_ID,
    text,
};

impl Transaction {
    /// rp (R8, E6).
    pub(super) fn on_rev_rep(
        mut self,
        message: &PkiMessage,
        answer: &RevRepContent,
        original_nonce: Bytes,
        peer_nonce: Vec<u8>,
        entropy: &mut dyn Entropy,
        now: Timestamp,
    ) -> Step {
        let [info] = answer.status.as_slice() else {
            let error = MessageError::ResponseCount { got: answer.status.len() };
            return self.fail(error.into(), Some(&peer_nonce), entropy, now);
        };
        match info.status {
            PkiStatus::Waiting => {
                let awaited = Awaited::CertRep;
                let pending = Pending { cert_req_id: NO_CERT_REQ_ID, original_nonce, awaited };
                return self.delayed(pending, peer_nonce, entropy, now);
            }
            PkiStatus::Rejection => {
                let refusal = refusal(message, None);
                return self.fail(CmpError::Refused(Box::new(refusal)), Some(&peer_nonce), entropy, now);
            }
            PkiStatus::KeyUpdateWarning => {
                let error = MessageError::Status { body: message.body.kind(), status: info.status };
                return self.fail(error.into(), Some(&peer_nonce), entropy, now);
            }
            PkiStatus::Accepted => {}
            PkiStatus::GrantedWithMods => self.context.warnings.push(Warning::GrantedWithMods),
            PkiStatus::RevocationWarning => self.context.warnings.push(Warning::RevocationWarning),
            PkiStatus::RevocationNotification => self.context.warnings.push(Warning::RevocationNotification),
        }
        let asked = self.context.revokes.clone().unwrap_or_default();
        let checked = about(answer, &asked.issuer.0, &asked.serial.0).and_then(|()| {
            let crls = answer.crls.iter().flatten().map(Crl::from_raw);
            crls.collect::<Result<Vec<_>, _>>().map_err(|detail| MessageError::CrlUnreadable { detail })
        });
        match checked {
            Ok(crls) => Step::Concluded(Box::new(Conclusion::Revoked(Revoked {
                issuer: asked.issuer.0,
                serial: serial_hex(&asked.serial.0),
                status: info.status,
                status_texts: text::sanitise_all(info.status_string.as_ref()),
                crls,
                transaction_id: self.transaction_id(),
                warnings: self.context.warnings,
                transcript: self.context.transcript,
            }))),
            Err(error) => self.fail(error.into(), Some(&peer_nonce), entropy, now),
        }
    }

    /// genp (R9, V12).
    pub(super) fn on_gen_rep(
        self,
        infos: &[InfoTypeAndValue],
        peer_nonce: &[u8],
        entropy: &mut dyn Entropy,
        now: Timestamp,
    ) -> Step {
        let unknown = || MessageError::Information { detail: "nothing was asked".to_owned() };
        match self.context.topic.as_ref().ok_or_else(unknown).and_then(|topic| topic.read(infos, now)) {
            Ok(information) => Step::Concluded(Box::new(Conclusion::Informed(Informed {
                information,
                transaction_id: self.transaction_id(),
                chain_helpers: self.context.peer_certificates,
                warnings: self.context.warnings,
                transcript: self.context.transcript,
            }))),
            Err(error) => self.fail(error.into(), Some(peer_nonce), entropy, now),
        }
    }
}

/// revCerts, where they are there, name the certificate that was asked for and no other.
fn about(answer: &RevRepContent, issuer: &[u8], serial: &[u8]) -> Result<(), MessageError> {
    for named in answer.rev_certs.iter().flatten() {
        let same_issuer = match directory_name_der(&named.issuer) {
            Some(der) => super::same_name(der, issuer),
            None => false,
        };
        if !same_issuer || named.serial_number.as_bytes() != serial {
            let got = text::shown(&serial_hex(named.serial_number.as_bytes()));
            let expected = serial_hex(serial);
            return Err(MessageError::OtherCertificate { expected, got });
        }
    }
    Ok(())
}
