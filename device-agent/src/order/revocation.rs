//! An order to ask for a revocation, checked.

use trustfleet_cmp::revoke::RevocationReason;
use trustfleet_model::field::{ObjectName, TrustpointName, Violations};
use trustfleet_pki::Certificate;
use trustfleet_wire::v1::Revoke;

use super::Place;
use super::talk::{Said, Talk};

/// A revocation, checked.
#[derive(Clone, Debug)]
pub struct RevocationOrder {
    /// The certificate.
    pub certificate: Certificate,
    /// Why.
    pub reason: RevocationReason,
    /// The trustpoint of this agent whose certificate in use signs, as a registration authority; none: the certificate
    /// itself signs.
    pub signer: Option<Place>,
    /// Whom to talk to.
    pub talk: Talk,
}

impl RevocationOrder {
    /// Checks a revocation.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn of(revoke: &Revoke) -> Result<Self, Violations> {
        let mut violations = Violations::new();
        let v = &mut violations;
        let certificate = v.check("certificate", "R8", Certificate::from_der(&revoke.certificate.0));
        let reason = RevocationReason::parse(&revoke.reason);
        if reason.is_none() {
            v.add("reason", "R8", format!("is {:?}, no reason of RFC 5280 section 5.3.1", revoke.reason));
        }
        let signer = revoke.signer.as_ref().map(|signer| {
            let device = v.check("signer.device", "S1", signer.device.parse::<ObjectName>());
            let trustpoint = v.check("signer.trustpoint", "S17", signer.trustpoint.parse::<TrustpointName>());
            device.zip(trustpoint).map(|(device, trustpoint)| Place { device, trustpoint })
        });
        let talk = Talk::of(
            v,
            &Said {
                recipient: &revoke.recipient,
                urls: &revoke.urls,
                source: revoke.source.as_ref(),
                accept_sha1_answers: revoke.accept_sha1_answers,
                trust_anchors: &revoke.trust_anchors,
                verification_certificates: &revoke.verification_certificates,
                message_timeout_s: revoke.message_timeout_s,
                total_timeout_s: revoke.total_timeout_s,
                no_polling: revoke.no_polling,
                root_in_extra_certs: revoke.root_in_extra_certs,
            },
        );
        match (certificate, reason, talk) {
            (Some(certificate), Some(reason), Some(talk)) if violations.is_empty() => {
                Ok(Self { certificate, reason, signer: signer.flatten(), talk })
            }
            _ => Err(violations),
        }
    }
}

#[cfg(test)]
mod tests {
    use trustfleet_wire::v1::{Blob, Signer, Task, ToAgent};

    use super::*;

    fn revoke() -> Revoke {
        let text = include_str!("../../../shared/wire/tests/golden/v1/to_agent_job_revoke.json");
        let Ok(ToAgent::Job(job)) = serde_json::from_str(text) else { panic!("not a job") };
        let Task::Revoke(revoke) = job.task else { panic!("not a revocation") };
        *revoke
    }

    #[test]
    fn r8_everything_that_is_wrong_with_a_revocation_is_named_at_once() {
        let bad = Revoke {
            certificate: Blob(b"rubbish".to_vec()),
            reason: "boredom".to_owned(),
            signer: Some(Signer { device: "../x".to_owned(), trustpoint: String::new() }),
            urls: Vec::new(),
            trust_anchors: Vec::new(),
            ..revoke()
        };
        let violations = RevocationOrder::of(&bad).unwrap_err().to_string();
        for field in ["certificate", "reason", "signer.device", "signer.trustpoint", "urls", "trust_anchors"] {
            assert!(violations.contains(field), "{field} missing in: {violations}");
        }
    }
}
