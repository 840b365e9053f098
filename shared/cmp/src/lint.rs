//! Holds a finished request for a certificate against RFC 9483 before it is sent: what a strict server would refuse, and what
//! an operator should know. The ids are those of docs/cmp.md.
//!
//! Nothing of a salt, a MAC, a signature or a nonce is in a finding.

use trustfleet_pki::{certificate::Certificate, name::Name};

use crate::{
    codec::{
        CertId, CertReqMsg, CertRequest, PbmParameter, PkiBody, PkiHeader, PkiMessage, ProofOfPossession,
        header::CMP2021, oids, raw::directory_name_der,
    },
    protection::mac::ACCEPTED_ITERATIONS,
};

/// Bytes of a transactionID and of a nonce (H10, H11).
const RANDOM_LEN: usize = 16;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Severity {
    /// A strict server refuses it.
    Error,
    /// Some servers refuse it, or it is weaker than it should be.
    Warning,
}

/// One thing that is not as it should be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Finding {
    /// The rule.
    pub rule: &'static str,
    /// How much it matters.
    pub severity: Severity,
    /// What is wrong, as a sentence.
    pub message: String,
}

/// Everything that is wrong with a request (ir, cr or kur), in DER.
pub fn lint(message: &[u8]) -> Vec<Finding> {
    let mut lint = Lint { findings: Vec::new() };
    match PkiMessage::from_der(message) {
        Ok(message) => lint.message(&message),
        Err(error) => lint.error("V1", format!("the request does not decode: {error}")),
    }
    lint.findings
}

struct Lint {
    findings: Vec<Finding>,
}

impl Lint {
    fn error(&mut self, rule: &'static str, message: impl Into<String>) {
        self.findings.push(Finding { rule, severity: Severity::Error, message: message.into() });
    }

    fn warning(&mut self, rule: &'static str, message: impl Into<String>) {
        self.findings.push(Finding { rule, severity: Severity::Warning, message: message.into() });
    }

    fn must(&mut self, holds: bool, rule: &'static str, message: &str) {
        if !holds {
            self.error(rule, message);
        }
    }

    fn message(&mut self, message: &PkiMessage) {
        let certificates: Vec<Certificate> =
            message.extra_certs.iter().filter_map(|raw| Certificate::from_der(&raw.to_tlv().ok()?).ok()).collect();
        self.must(certificates.len() == message.extra_certs.len(), "X1", "extraCerts hold what is no certificate");
        self.header(&message.header, message.protection.is_some());
        let is_by_mac = self.protection(&message.header, &certificates);
        match &message.body {
            PkiBody::Ir(requests) | PkiBody::Cr(requests) => self.requests(requests, None),
            PkiBody::Kur(requests) => {
                self.must(!is_by_mac, "P9", "an update must be signed, not protected by a MAC");
                self.requests(requests, Some(certificates.first()));
            }
            other => self.error("R1", format!("{} asks for no certificate", other.kind())),
        }
    }

    fn header(&mut self, header: &PkiHeader, is_protected: bool) {
        let long_enough = |value: Option<usize>| value.is_some_and(|length| length >= RANDOM_LEN);
        self.must(header.message_time.is_some(), "H8", "messageTime is missing");
        self.must(
            header.protection_alg.is_some() == is_protected,
            "H9",
            "protectionAlg and protection do not go together",
        );
        self.must(is_protected, "P10", "the request is not protected");
        let transaction = header.transaction_id.as_ref().map(|id| id.as_bytes().len());
        self.must(transaction == Some(RANDOM_LEN), "H10", "transactionID has not 128 bits");
        let nonce = header.sender_nonce.as_ref().map(|nonce| nonce.as_bytes().len());
        self.must(long_enough(nonce), "H11", "senderNonce has less than 128 bits");
        self.must(header.recip_nonce.is_none(), "H12", "a first message has a recipNonce");
        if header.pvno == CMP2021 {
            self.warning("H1", "the request has version cmp2021(3), which servers of RFC 4210 do not know");
        }
        if directory_name_der(&header.recipient)
            .and_then(|der| Name::from_der(der).ok())
            .is_none_or(|name| name.is_null())
        {
            self.warning("H7", "the recipient has no name");
        }
        if header.sender_kid.is_none() {
            self.warning("H6", "senderKID is missing");
        }
    }

    /// Sender and protection; whether it is by a MAC.
    fn protection(&mut self, header: &PkiHeader, certificates: &[Certificate]) -> bool {
        let Some(algorithm) = &header.protection_alg else { return false };
        let sender = directory_name_der(&header.sender).and_then(|der| Name::from_der(der).ok());
        let kid = header.sender_kid.as_ref().map(|kid| kid.as_bytes().to_vec());
        if algorithm.oid == oids::PASSWORD_BASED_MAC || algorithm.oid == oids::PBMAC1 {
            let common_name = sender.and_then(|sender| sender.common_name()).map(String::into_bytes);
            if common_name != kid {
                let message = "the sender's common name is not the reference value; strict servers want that (the policy's `sender`)";
                self.warning("H4", message);
            }
            let pbm = algorithm.parameters.as_ref().and_then(|any| any.decode_as::<PbmParameter>().ok());
            let count = pbm.map(|pbm| pbm.iteration_count).filter(|count| !ACCEPTED_ITERATIONS.contains(count));
            if let Some(count) = count {
                let (least, most) = (ACCEPTED_ITERATIONS.start(), ACCEPTED_ITERATIONS.end());
                self.warning(
                    "P4",
                    format!("the MAC's key is made by {count} iterations; from {least} to {most} are usual"),
                );
            }
            return true;
        }
        let Some(own) = certificates.first() else {
            self.error("X1", "extraCerts do not begin with the certificate that signs");
            return false;
        };
        let is_sender = directory_name_der(&header.sender) == Some(own.subject().as_der());
        self.must(is_sender, "H3", "the sender is not the subject of the certificate that signs, byte for byte");
        if let Some(key_id) = own.subject_key_id()
            && kid.as_ref().is_some_and(|kid| *kid != key_id)
        {
            self.warning("H6", "senderKID is not the key identifier of the certificate that signs");
        }
        self.must(own.allows_digital_signature(), "P11", "the certificate that signs may not do so by its keyUsage");
        let mut last = own;
        for next in certificates.iter().skip(1) {
            if next.verify_issued(last) {
                last = next;
            }
        }
        let reaches_root = last.is_self_issued();
        if !reaches_root && certificates.len() == 1 && !own.is_self_issued() {
            let message = "extraCerts hold the signing certificate alone: a server that does not know its issuer cannot verify it";
            self.warning("X2", message);
        }
        false
    }

    /// `old`: of an update, the certificate that signs, where there is one.
    fn requests(&mut self, requests: &[CertReqMsg], old: Option<Option<&Certificate>>) {
        let [request] = requests else {
            return self.error("R1", format!("the body holds {} requests, not one", requests.len()));
        };
        match &request.popo {
            None => self.error("R5", "there is no proof of possession"),
            Some(ProofOfPossession::RaVerified(_)) => {
                self.error("R4", "raVerified is no proof of possession of a client")
            }
            Some(ProofOfPossession::Signature(popo)) => {
                self.must(popo.poposk_input.is_none(), "R3", "poposkInput stands beside a full template");
            }
            Some(_) => self.warning("R5", "the proof of possession is no signature"),
        }
        let Ok(asked) = request.cert_req.parse::<CertRequest>() else {
            return self.error("R1", "the certificate request does not decode");
        };
        self.must(asked.cert_req_id == 0, "R1", "certReqId is not 0");
        let template = &asked.cert_template;
        self.must(template.public_key.is_some(), "R2", "the template has no public key");
        let subject = template.subject.as_ref().and_then(|raw| Name::from_der(&raw.to_tlv().ok()?).ok());
        let has_sans = template.extensions.as_ref().is_some_and(|raw| {
            let extensions: Vec<x509_cert::ext::Extension> = raw.parse().unwrap_or_default();
            extensions.iter().any(|extension| extension.extn_id == oids::SUBJECT_ALT_NAME)
        });
        match subject {
            None => self.error("R2", "the template has no subject"),
            Some(subject) => {
                self.must(
                    !subject.is_null() || has_sans,
                    "R2",
                    "the subject is empty, and there is no alternative name",
                );
            }
        }
        if let Some(Some(old)) = old {
            self.update(&asked, old);
        }
    }

    fn update(&mut self, asked: &CertRequest, old: &Certificate) {
        let named = asked.controls.iter().flatten().find(|control| control.id == oids::OLD_CERT_ID);
        let named = named.and_then(|control| control.value.decode_as::<CertId>().ok());
        let is_old = named.is_some_and(|id| {
            directory_name_der(&id.issuer) == Some(old.issuer().as_der())
                && id.serial_number.as_bytes() == old.serial_der_bytes()
        });
        self.must(is_old, "R6", "oldCertID does not name the certificate that signs");
        let key = asked.cert_template.public_key.as_ref().and_then(|raw| raw.to_tlv().ok());
        if key == Some(old.spki_der()) {
            self.warning(
                "R6",
                "the update keeps its key, which some servers refuse (badCertTemplate): set key.regenerate",
            );
        }
    }
}

trait Issued {
    fn verify_issued(&self, certificate: &Certificate) -> bool;
}

impl Issued for Certificate {
    /// Whether this one has certified the other.
    fn verify_issued(&self, certificate: &Certificate) -> bool {
        certificate.issuer() == self.subject() && certificate.verify_signed_by(&self.public_key()).is_ok()
    }
}
