//! Changed bits in every answer of a transaction, whatever it waits for: refused, or taken with nothing changed.
//!
//! tests/hostile.rs does it with the ip for every algorithm; here it is every other answer, in every state.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;
#[path = "support/world.rs"]
mod world;

use jiff::SignedDuration;
use support::{Seeded, covered_bits, csr::csr_der, ir, name, signature};
use trustfleet_cmp::{
    CmpError, Conclusion, Credentials, Csr, EnrollRequest, FailureBit, InfoRequest, Input, P10Request, Question,
    Request, RequestKind, RevocationReason, RevokeRequest, Step, Transaction, TransactionRecord,
    key::KeyType,
    protection::{Hash, MacPolicy},
    responder::{Answer, Request as Heard},
};
use world::{SECRET, World};

/// Which bits of what no protection covers (extraCerts) are changed: every so-manieth.
const UNCOVERED: usize = 61;

fn mac() -> Credentials {
    let policy = MacPolicy { iterations: 100, ..MacPolicy::of(Hash::Sha256) };
    Credentials::Mac { reference: b"dev1".to_vec(), secret: SECRET.as_bytes().to_vec().into(), mac: policy }
}

/// A world whose server delays the answer and the confirmation, each once by waiting and once by pollRep.
fn delaying() -> World {
    let mut delayed = None;
    World::twisted(move |nth, received, answer, _, _| match (&received.request, nth) {
        (Heard::Certificate(asked), _) => {
            delayed = Some(answer);
            Answer::Waiting { kind: asked.kind, cert_req_id: asked.cert_req_id }
        }
        (Heard::Revoke(_) | Heard::Info(_), _) => {
            delayed = Some(answer);
            Answer::ErrorWaiting
        }
        (Heard::CertConf(_), _) => Answer::ErrorWaiting,
        (Heard::Poll { cert_req_id }, 1 | 4) => {
            Answer::PollRep { cert_req_id: *cert_req_id, check_after: 5, reason: "later".to_owned() }
        }
        (Heard::Poll { .. }, _) => delayed.take().unwrap_or(answer),
        _ => answer,
    })
}

/// A transaction that awaits an answer, and that answer.
type Stage = (TransactionRecord, Vec<u8>);

/// Every answer of a transaction with the state that it finds.
fn stages(world: &mut World, request: Request, credentials: Credentials) -> Vec<Stage> {
    let (transaction, message) =
        Transaction::begin(request, credentials, world.acceptance.clone(), &mut world.entropy, world.now).unwrap();
    let mut stages = vec![];
    let mut step = Step::Send { transaction: Box::new(transaction), message };
    loop {
        step = match step {
            Step::Send { transaction, message } => {
                let answer = world.serve(&message);
                stages.push((transaction.record(), answer.clone()));
                transaction.handle(Input::Response(&answer), &mut world.entropy, world.now)
            }
            Step::Wait { transaction, seconds } => {
                world.now += SignedDuration::from_secs(seconds as i64);
                transaction.handle(Input::TimerFired, &mut world.entropy, world.now)
            }
            _ => return stages,
        };
    }
}

/// What an answer leads to, in all its parts but the certificates that no protection covers; `None`: it is refused.
fn outcome(world: &World, credentials: &Credentials, (record, _): &Stage, answer: &[u8]) -> Option<String> {
    let (record, credentials, acceptance) = (record.clone(), credentials.clone(), world.acceptance.clone());
    let resumed = match record.kind() {
        RequestKind::P10cr | RequestKind::Rr | RequestKind::Genm => {
            Transaction::resume_keyless(record, credentials, acceptance, world.now).unwrap()
        }
        _ => Transaction::resume(record, credentials, acceptance, world.key.as_ref(), world.now).unwrap(),
    };
    let Step::Send { transaction, .. } = resumed else { panic!("{resumed:?}") };
    let kept = |transaction: &Transaction| {
        let mut record = serde_json::to_value(transaction.record()).unwrap();
        record["context"]["peer_certificates"].take();
        record.to_string()
    };
    // with the same randomness each time, and Ed25519, the next message is the same to the byte
    match transaction.handle(Input::Response(answer), &mut Seeded::new(99), world.now) {
        Step::Send { transaction, message } => Some(format!("{} {}", kept(&transaction), hex::encode(message))),
        Step::Wait { transaction, seconds } => Some(format!("{} {seconds}", kept(&transaction))),
        Step::Done(mut enrolled) => {
            enrolled.chain_helpers.clear();
            Some(format!("{enrolled:?}"))
        }
        Step::Concluded(mut conclusion) => {
            if let Conclusion::Informed(informed) = conclusion.as_mut() {
                informed.chain_helpers.clear();
            }
            Some(format!("{conclusion:?}"))
        }
        Step::Failed { error: CmpError::Refused(refusal), .. } if refusal.unauthenticated.is_none() => {
            Some(refusal.to_string())
        }
        Step::Failed { error: CmpError::Certificate(unfit), .. } => Some(unfit.to_string()),
        Step::Failed { .. } => None,
    }
}

/// Changes bits of every answer: each one that is covered, or every so-manieth. Returns how many answers there were.
fn flip(world: &mut World, request: Request, credentials: &Credentials, every: usize) -> usize {
    let stages = stages(world, request, credentials.clone());
    for (number, stage) in stages.iter().enumerate() {
        let answer = &stage.1;
        let untouched = outcome(world, credentials, stage, answer);
        assert!(untouched.is_some(), "answer {number} is taken unchanged");
        let covered = covered_bits(answer);
        for bit in (0..covered).step_by(every).chain((covered..answer.len() * 8).step_by(UNCOVERED)) {
            let mut changed = answer.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let outcome = outcome(world, credentials, stage, &changed);
            assert!(bit >= covered || outcome.is_none(), "answer {number}: bit {bit} was changed and it was taken");
            assert!(outcome.is_none() || outcome == untouched, "answer {number}: bit {bit} changed what came of it");
        }
    }
    stages.len()
}

fn enrol(world: &World, kind: RequestKind, implicit_confirm: bool) -> Request {
    let request = EnrollRequest { kind, implicit_confirm, ..ir(&world.ca.certificate.subject()) };
    Request::Enroll(Box::new(request), std::sync::Arc::<trustfleet_cmp::SoftwareKey>::clone(&world.key))
}

fn question() -> Request {
    let recipient = name("/O=Lab/CN=Issuing CA");
    Request::Info(Box::new(InfoRequest { question: Question::CaCerts, recipient, sender: None, extra_certs: vec![] }))
}

#[test]
fn p1_w1_w2_no_flipped_bit_of_a_delayed_ir_by_mac_is_taken() {
    let mut world = delaying();
    let request = enrol(&world, RequestKind::Ir, false);
    assert_eq!(flip(&mut world, request, &mac(), 1), 6, "ip, pollRep, ip, error, pollRep, pkiConf");
}

#[test]
fn p1_c1_no_flipped_bit_of_cp_and_pkiconf_by_mac_is_taken() {
    let mut world = World::new();
    let request = enrol(&world, RequestKind::Cr, false);
    assert_eq!(flip(&mut world, request, &mac(), 1), 2);
}

#[test]
fn p1_c2_no_flipped_bit_of_an_implicit_confirmation_by_mac_is_taken() {
    let mut world = World::new();
    let request = enrol(&world, RequestKind::Cr, true);
    assert_eq!(flip(&mut world, request, &mac(), 1), 1);
}

#[test]
fn p1_no_flipped_bit_of_a_delayed_genp_by_mac_is_taken() {
    let mut world = delaying();
    assert_eq!(flip(&mut world, question(), &mac(), 1), 3, "error, pollRep, genp");
}

#[test]
fn p1_e2_no_flipped_bit_of_a_refusal_by_mac_is_taken_for_an_authentic_one() {
    let refusal = |kind, cert_req_id| Answer::Refused {
        kind,
        cert_req_id,
        failure: vec![FailureBit::BadPop, FailureBit::SystemUnavail],
        text: "no".to_owned(),
    };
    let mut world = World::twisted(move |_, received, _, _, _| match &received.request {
        Heard::Certificate(asked) => refusal(asked.kind, asked.cert_req_id),
        _ => refusal(RequestKind::Genm, -1),
    });
    let request = enrol(&world, RequestKind::Ir, false);
    assert_eq!(flip(&mut world, request, &mac(), 1), 1, "ip");
    world.open = None;
    assert_eq!(flip(&mut world, question(), &mac(), 1), 1, "error");
}

#[test]
fn p1_no_flipped_bit_of_a_signed_and_delayed_kur_is_taken_or_it_changes_nothing() {
    let mut world = delaying();
    let (key, certificate) = world.ca.identity("/CN=dev1", KeyType::Ed25519);
    let request = EnrollRequest {
        kind: RequestKind::Kur,
        old_certificate: Some(certificate.clone()),
        ..ir(&world.ca.certificate.subject())
    };
    let request = Request::Enroll(Box::new(request), std::sync::Arc::<trustfleet_cmp::SoftwareKey>::clone(&world.key));
    assert_eq!(flip(&mut world, request, &signature(&key, &certificate), 5), 6);
}

#[test]
fn p1_r8_no_flipped_bit_of_a_signed_and_delayed_rp_is_taken_or_it_changes_nothing() {
    let mut world = delaying();
    let (key, certificate) = world.ca.identity("/CN=dev1", KeyType::Ed25519);
    let request = Request::Revoke(Box::new(RevokeRequest::of(&certificate, RevocationReason::Superseded)));
    assert_eq!(flip(&mut world, request, &signature(&key, &certificate), 3), 3, "error, pollRep, rp");
}

#[test]
fn p1_r9_no_flipped_bit_of_a_signed_genp_is_taken_or_it_changes_nothing() {
    let mut world = World::new();
    let (key, certificate) = world.ca.identity("/CN=dev1", KeyType::Ed25519);
    assert_eq!(flip(&mut world, question(), &signature(&key, &certificate), 1), 1);
}

#[test]
fn p1_r7_no_flipped_bit_of_a_delayed_answer_to_a_p10cr_is_taken() {
    let mut world = delaying();
    let csr = Csr::from_der(&csr_der("/CN=dev1", &world.key, &world.key)).unwrap();
    let request = P10Request {
        csr,
        recipient: world.ca.certificate.subject(),
        sender: None,
        implicit_confirm: false,
        cert_profile: None,
        extra_certs: vec![],
    };
    assert_eq!(
        flip(&mut world, Request::P10(Box::new(request)), &mac(), 1),
        6,
        "cp, pollRep, cp, error, pollRep, pkiConf"
    );
}
