//! The end of a transaction: certConf, pkiConf, and the outcome (C1 to C9).

use jiff::Timestamp;
use trustfleet_pki::certificate::Certificate;

use super::{
    Step, Transaction,
    record::Bytes,
    state::{Issued, State, Verdict},
};
use crate::{
    entropy::Entropy,
    error::{CmpError, MessageError, UnfitCertificate},
    outcome::Enrolled,
    request,
};

impl Transaction {
    /// Sends certConf: accepting, or rejecting a certificate that does not fit (C7).
    pub(super) fn confirm(
        self,
        certificate: &Certificate,
        verdict: Verdict,
        peer_nonce: &[u8],
        entropy: &mut dyn Entropy,
        now: Timestamp,
    ) -> Step {
        let rejection = match &verdict {
            Verdict::Accept { .. } => None,
            Verdict::Reject { .. } => Some("the certificate does not fit the request"),
        };
        match request::cert_conf(certificate, self.context.kind.cert_req_id(), rejection) {
            Ok((body, pvno)) => {
                self.send(body, pvno, peer_nonce, |sent| State::PkiConf { sent, verdict }, entropy, now)
            }
            Err(error) => self.fail(error.into(), Some(peer_nonce), entropy, now),
        }
    }

    /// The answer to certConf came: pkiConf (C8), or an error where it does not matter any more.
    pub(super) fn concluded(
        self,
        verdict: Verdict,
        rejection_confirmed: bool,
        entropy: &mut dyn Entropy,
        now: Timestamp,
    ) -> Step {
        match verdict {
            Verdict::Accept { issued } => self.finish(&issued, false, entropy, now),
            Verdict::Reject { reasons, issued } => match read(&issued.certificate) {
                Ok(certificate) => {
                    let unfit = UnfitCertificate { reasons, certificate, rejection_confirmed };
                    self.fail(CmpError::Certificate(Box::new(unfit)), None, entropy, now)
                }
                Err(error) => self.fail(error.into(), None, entropy, now),
            },
        }
    }

    /// The certificate is ours.
    pub(super) fn finish(
        self,
        issued: &Issued,
        implicitly_confirmed: bool,
        entropy: &mut dyn Entropy,
        now: Timestamp,
    ) -> Step {
        match read(&issued.certificate) {
            Ok(certificate) => {
                let ca_pubs = issued.ca_pubs.iter().filter_map(|der| read(der).ok()).collect();
                self.done(issued, certificate, ca_pubs, implicitly_confirmed)
            }
            Err(error) => self.fail(error.into(), None, entropy, now),
        }
    }

    /// The same with the certificates of `issued` as they were read before.
    pub(super) fn done(
        self,
        issued: &Issued,
        certificate: Certificate,
        ca_pubs: Vec<Certificate>,
        implicitly_confirmed: bool,
    ) -> Step {
        Step::Done(Box::new(Enrolled {
            kind: self.context.kind,
            certificate,
            ca_pubs,
            ca_pubs_trusted: issued.by_mac,
            status: issued.status,
            status_texts: issued.status_texts.clone(),
            transaction_id: self.transaction_id(),
            chain_helpers: self.context.peer_certificates,
            warnings: self.context.warnings,
            implicitly_confirmed,
            transcript: self.context.transcript,
        }))
    }
}

fn read(der: &Bytes) -> Result<Certificate, MessageError> {
    Certificate::from_der(&der.0).map_err(|error| MessageError::CertificateUnreadable { detail: error.to_string() })
}
