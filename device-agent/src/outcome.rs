//! How an exchange ended, in the words of a report.
//!
//! Pure. A failure says who is to blame and, honestly, whether the CA may have issued a certificate that nobody
//! received. Texts of the CA come here cleaned already and stay apart from ours.

use jiff::Timestamp;
use trustfleet_cmp::CmpError;
use trustfleet_cmp::codec::{FailureBit, PkiStatus};
use trustfleet_cmp::error::Ended;
use trustfleet_cmp::outcome::Enrolled;
use trustfleet_cmp::request::RequestKind;
use trustfleet_cmp::show::status_name;
use trustfleet_model::field::Violations;
use trustfleet_model::job::Culprit;
use trustfleet_model::transcript::Transcript;
use trustfleet_pki::Certificate;
use trustfleet_wire::v1::{Blob, Event, Exchanged, Failed, Issued};

use crate::cmp_http::{HttpError, SourceError};
use crate::keys::KeysError;
use crate::record::{IssuedCertificate, Outcome};
use crate::store::StoreError;

/// Most bytes of CA certificates in a report: with base64 twice over them, well below what the controller reads.
const CHAIN_MAX: usize = 128 * 1024;
const _: () = assert!(CHAIN_MAX * 16 / 9 < trustfleet_wire::envelope::MESSAGE_MAX / 2);
/// Longest message of a failure, characters.
const MESSAGE_MAX: usize = 1_000;

/// A failure that is the device's own.
pub fn of_store(error: &StoreError, maybe_issued: bool) -> Box<Failed> {
    failed(Culprit::Device, error.code(), &error.to_string(), maybe_issued)
}

/// A failure of a private key.
pub fn of_keys(error: &KeysError) -> Box<Failed> {
    failed(Culprit::Device, error.code(), &error.to_string(), false)
}

/// An order that cannot be carried out: nothing was sent (S32).
pub fn of_order(violations: &Violations) -> Box<Failed> {
    let message = format!("the job cannot be carried out, nothing was sent: {violations}");
    failed(Culprit::Configuration, "order_invalid", &message, false)
}

/// An order that this device's own configuration does not allow (`accept`). `maybe_issued`: it was allowed when it began.
pub fn of_unaccepted(violations: &Violations, maybe_issued: bool) -> Box<Failed> {
    let sent = if maybe_issued { "what was sent before the configuration changed stands" } else { "nothing was sent" };
    let message = format!("the agent's own configuration does not allow what the job orders, {sent}: {violations}");
    failed(Culprit::Configuration, "not_accepted_here", &message, maybe_issued)
}

/// A local side for connections that is not there (S7): nothing was sent.
pub fn of_source(error: &SourceError) -> Box<Failed> {
    let message = format!(
        "{error}; nothing was sent: check source in the policy, or in the agent's configuration, or the device's interfaces"
    );
    failed(Culprit::Configuration, "source_unusable", &message, false)
}

/// An operator stopped the job before anything was sent (S37).
pub fn stopped() -> Box<Failed> {
    failed(Culprit::Configuration, "stopped", "stopped by an operator before anything was sent to a CA", false)
}

/// The CA said `waiting`, and its settings say that it does not know polling.
pub fn of_waiting() -> Box<Failed> {
    let message = "the CA lets its client wait, and by its settings (quirk no_polling) it cannot be polled: the exchange is \
                   ended, the CA may have issued a certificate later; approve requests there beforehand, or take the quirk away";
    failed(Culprit::PeerRefusal, "waiting_without_polling", message, true)
}

/// Something is missing on our side.
pub fn of_configuration(code: &str, message: &str) -> Box<Failed> {
    failed(Culprit::Configuration, code, message, false)
}

/// No CMP message came back to what was asked. `arrived`: the CA may have the request.
pub fn of_http(error: &HttpError, arrived: bool, asked: RequestKind) -> Box<Failed> {
    let what = match (asked, arrived) {
        (RequestKind::Rr, true) => "the CA may have revoked the certificate: to ask again does no harm",
        (RequestKind::Rr, false) => "the certificate is not revoked",
        (_, true) => "the CA may have issued a certificate: look there before you try again",
        (_, false) => "nothing was issued",
    };
    let message = format!("{error}; {what}");
    failed(Culprit::Transport, error.code(), &message, arrived && asked != RequestKind::Rr)
}

/// The transaction ended without a certificate. `sent`: at least one message has left; `orphan`: the CA has issued a
/// certificate that is not confirmed.
pub fn of_cmp(error: &CmpError, sent: bool, orphan: Option<&Certificate>) -> Box<Failed> {
    let culprit = match error {
        CmpError::Configuration(_) | CmpError::Ended(Ended::Stopped) => Culprit::Configuration,
        CmpError::Local(_) => Culprit::Device,
        CmpError::Message(_) | CmpError::Certificate(_) => Culprit::PeerMessage,
        CmpError::Refused(_) => Culprit::PeerRefusal,
        CmpError::Ended(_) => Culprit::Transport,
    };
    let maybe_issued = orphan.is_some() && !matches!(error, CmpError::Certificate(unfit) if unfit.rejection_confirmed)
        || sent && matches!(error, CmpError::Message(_) | CmpError::Ended(_) | CmpError::Local(_))
        // anybody can say no in the CA's place, and take its answer away
        || sent && matches!(error, CmpError::Refused(refusal) if refusal.unauthenticated.is_some());
    let mut report = failed(culprit, error.code(), &error.to_string(), maybe_issued);
    if let CmpError::Refused(refusal) = error {
        report.pki_status = Some(status_name(refusal.status).to_owned());
        report.fail_info = refusal.failure.iter().map(|bit| bit.name().to_owned()).collect();
        report.status_string = (!refusal.texts.is_empty()).then(|| cut(&refusal.texts.join("; ")));
    }
    report
}

/// Adds what to check next to a refusal, from its failInfo bits; `by_mac`: the request was protected by a MAC.
pub fn advise(failed: &mut Failed, by_mac: bool) {
    let has = |bit: FailureBit| failed.fail_info.iter().any(|name| name == bit.name());
    let advice = if by_mac && (has(FailureBit::BadMessageCheck) || has(FailureBit::WrongIntegrity)) {
        "check the MAC reference and the secret of the trustpoint, and that the CA knows them"
    } else if has(FailureBit::BadTime) {
        "check the device's clock"
    } else if has(FailureBit::SignerNotTrusted) {
        "check that the CA trusts the certificate that signed the request"
    } else if has(FailureBit::BadCertTemplate) || has(FailureBit::DuplicateCertReq) {
        "check subject, names and key algorithm against the CA's profile, and whether an update needs a new key"
    } else if has(FailureBit::TransactionIdInUse) {
        "the CA still works on an earlier request: look there, then enrol again"
    } else {
        return;
    };
    if !failed.message.contains("check reference and secret") {
        failed.message = cut(&format!("{}; {advice}", failed.message));
    }
}

/// The certificate as it goes into the record.
pub fn of_enrolled(
    enrolled: &Enrolled,
    anchors: &[Certificate],
    started_at: Timestamp,
    now: Timestamp,
    (polls, transcript): (u32, Transcript),
) -> IssuedCertificate {
    let status = match enrolled.status {
        PkiStatus::GrantedWithMods => "granted_with_mods",
        _ => "accepted",
    };
    let mut warnings: Vec<String> = enrolled.warnings.iter().map(ToString::to_string).collect();
    warnings.extend(enrolled.status_texts.iter().map(|text| format!("the CA says: {text:?}")));
    IssuedCertificate {
        certificate: Blob(enrolled.certificate.as_der().to_vec()),
        chain: chain(enrolled, anchors).iter().map(|ca| Blob(ca.as_der().to_vec())).collect(),
        url: None,
        transaction_id: enrolled.transaction_id.clone(),
        status: status.to_owned(),
        implicitly_confirmed: enrolled.implicitly_confirmed,
        duration_ms: millis_between(started_at, now),
        polls,
        warnings,
        transcript,
    }
}

/// The report of an issued certificate, stored at `file`.
pub fn issued_event(issued: &IssuedCertificate, file: String) -> Event {
    Event::Issued(Box::new(Issued {
        certificate: issued.certificate.clone(),
        chain: issued.chain.clone(),
        transaction_id: issued.transaction_id.clone(),
        status: issued.status.clone(),
        implicitly_confirmed: issued.implicitly_confirmed,
        duration_ms: issued.duration_ms,
        polls: issued.polls,
        file,
        warnings: issued.warnings.clone(),
        transcript: told(&issued.transcript),
    }))
}

/// A transcript as a report carries it.
pub fn told(transcript: &Transcript) -> Vec<Exchanged> {
    transcript.entries().iter().cloned().map(Exchanged::from).collect()
}

/// What the record keeps of a failure.
pub fn record_of(failed: &Failed) -> Outcome {
    Outcome::Failed { code: failed.code.clone(), message: failed.message.clone() }
}

/// Milliseconds from one moment to another; a clock that was set back gives 0.
pub fn millis_between(from: Timestamp, to: Timestamp) -> u64 {
    u64::try_from(to.duration_since(from).as_millis()).unwrap_or(0)
}

/// The CA certificates that came (S35): first the path from the issuer upwards, then the others. Intermediates that
/// did not come but are configured close gaps in the path; a configured root is not added. At most [`CHAIN_MAX`] bytes:
/// a report that is too long for the controller would be repeated for ever.
fn chain(enrolled: &Enrolled, anchors: &[Certificate]) -> Vec<Certificate> {
    let came: Vec<&Certificate> =
        enrolled.chain_helpers.iter().chain(&enrolled.ca_pubs).filter(|certificate| certificate.is_ca()).collect();
    let configured = anchors.iter().filter(|anchor| !anchor.is_self_issued());
    let candidates: Vec<&Certificate> = came.iter().copied().chain(configured).collect();
    let mut chain: Vec<Certificate> = Vec::new();
    let mut lowest = enrolled.certificate.clone();
    while !lowest.is_self_issued() {
        let issuer = candidates.iter().find(|candidate| {
            candidate.subject() == lowest.issuer()
                && !chain.contains(candidate)
                && lowest.verify_signed_by(&candidate.public_key()).is_ok()
        });
        let Some(issuer) = issuer else { break };
        lowest = (*issuer).clone();
        chain.push(lowest.clone());
    }
    for certificate in came {
        if !chain.contains(certificate) {
            chain.push(certificate.clone());
        }
    }
    let fitting = fitting(chain.iter().map(|ca| ca.as_der().len()));
    chain.truncate(fitting);
    chain
}

/// How many of the first certificates have at most [`CHAIN_MAX`] bytes together.
fn fitting(lengths: impl Iterator<Item = usize>) -> usize {
    lengths
        .scan(0, |sum: &mut usize, length| {
            *sum = sum.saturating_add(length);
            Some(*sum)
        })
        .take_while(|sum| *sum <= CHAIN_MAX)
        .count()
}

pub(crate) fn failed(culprit: Culprit, code: &str, message: &str, maybe_issued: bool) -> Box<Failed> {
    Box::new(Failed {
        culprit: culprit.as_str().to_owned(),
        code: code.to_owned(),
        message: cut(message),
        pki_status: None,
        fail_info: Vec::new(),
        status_string: None,
        transaction_id: None,
        maybe_issued,
        duration_ms: 0,
        transcript: Vec::new(),
        in_service: None,
        in_use: None,
    })
}

fn cut(text: &str) -> String {
    if text.chars().count() <= MESSAGE_MAX {
        return text.to_owned();
    }
    text.chars().take(MESSAGE_MAX - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use trustfleet_cmp::BodyKind;
    use trustfleet_cmp::error::{MessageError, PeerRefusal};

    use super::*;

    #[test]
    fn an_answer_that_cannot_be_believed_may_hide_an_issued_certificate() {
        let mismatch = CmpError::from(MessageError::MacMismatch);
        assert!(of_cmp(&mismatch, true, None).maybe_issued);
        assert!(!of_cmp(&mismatch, false, None).maybe_issued);
        let late = of_cmp(&CmpError::from(Ended::TotalTime { seconds: 5 }), true, None);
        assert!(late.maybe_issued && late.culprit == "transport");
    }

    #[test]
    fn a_server_that_was_never_reached_has_issued_nothing() {
        let error = HttpError::NotConnected { url: "http://ca/".to_owned(), detail: "refused".to_owned() };
        let report = of_http(&error, error.request_may_have_arrived(), RequestKind::Ir);
        assert!(!report.maybe_issued && report.message.contains("nothing was issued"));
        assert_eq!((report.culprit.as_str(), report.code.as_str()), ("transport", "ca_unreachable"));
    }

    #[test]
    fn p10_a_refusal_that_is_not_authentic_may_hide_an_issued_certificate() {
        let refusal = |unauthenticated| {
            CmpError::Refused(Box::new(PeerRefusal {
                body: BodyKind::Error,
                status: PkiStatus::Rejection,
                failure: Vec::new(),
                failure_text: String::new(),
                texts: Vec::new(),
                error_code: None,
                unauthenticated,
            }))
        };
        assert!(!of_cmp(&refusal(None), true, None).maybe_issued);
        let forged = refusal(Some(MessageError::Unprotected { body: BodyKind::Error }));
        assert!(of_cmp(&forged, true, None).maybe_issued, "so that the key is kept");
    }

    #[test]
    fn a_refused_mac_names_reference_and_secret_also_when_the_ca_signs_its_refusal() {
        let mut failed = failed(Culprit::PeerRefusal, "refused", "the server refused", false);
        failed.fail_info = vec!["badMessageCheck".to_owned()];
        let mut signed = failed.clone();
        advise(&mut failed, true);
        advise(&mut signed, false);
        assert!(failed.message.contains("reference") && failed.message.contains("secret"), "{}", failed.message);
        assert_eq!(signed.message, "the server refused");
    }

    #[test]
    fn s35_a_ca_that_sends_certificates_without_end_cannot_make_a_report_too_long_to_be_read() {
        assert_eq!(fitting([2_000; 3].into_iter()), 3);
        assert_eq!(fitting([CHAIN_MAX, 1].into_iter()), 1);
        assert_eq!(fitting([1_000, usize::MAX, 1].into_iter()), 1);
    }

    #[test]
    fn a_message_without_end_is_cut() {
        assert_eq!(of_configuration("x", &"ä".repeat(5_000)).message.chars().count(), MESSAGE_MAX);
    }
}
