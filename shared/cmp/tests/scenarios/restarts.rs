//! Exchanges that go on after a restart.

use super::*;

#[test]
fn w6_a_transaction_survives_a_restart_before_every_message() {
    let mut first = None;
    let mut world = World::twisted(move |nth, _, answer, _, _| match nth {
        0 => {
            first = Some(answer);
            Answer::Waiting { kind: RequestKind::Ir, cert_req_id: 0 }
        }
        1 => Answer::PollRep { cert_req_id: 0, check_after: 60, reason: String::new() },
        2 => first.take().unwrap(),
        _ => answer,
    });
    let (transaction, message) = world.start(world.request(), mac("dev1", SECRET)).unwrap();
    let mut step = Step::Send { transaction: Box::new(transaction), message };
    loop {
        step = match step {
            Step::Send { transaction, message } => {
                let Step::Send { transaction, message: again } = restarted(&world, &transaction) else { panic!() };
                assert_eq!(again, message, "T5: exactly the same bytes");
                let answer = world.serve(&again);
                transaction.handle(Input::Response(&answer), &mut world.entropy, world.now)
            }
            Step::Wait { transaction, .. } => {
                let Step::Wait { transaction, seconds } = restarted(&world, &transaction) else { panic!() };
                world.now += SignedDuration::from_secs(seconds as i64);
                transaction.handle(Input::TimerFired, &mut world.entropy, world.now)
            }
            Step::Done(enrolled) => {
                assert_eq!(
                    kinds(&enrolled.transcript),
                    ["ir", "ip", "pollReq", "pollRep", "pollReq", "ip", "certConf", "pkiconf"]
                );
                return;
            }
            other => panic!("{other:?}"),
        };
    }
}

#[test]
fn t5_a_lost_answer_is_asked_for_again_with_the_same_bytes() {
    let mut world = World::new();
    let (transaction, message) = world.start(world.request(), mac("dev1", SECRET)).unwrap();
    let Step::Send { message: again, .. } = transaction.handle(Input::TimerFired, &mut world.entropy, world.now) else {
        panic!();
    };
    assert_eq!(again, message);
}

#[test]
fn t5_after_the_total_time_a_restart_asks_for_nothing_but_confirms_what_is_here() {
    let mut world = World::new();
    world.acceptance.total_seconds = 300;
    let (transaction, message) = world.start(world.request(), mac("dev1", SECRET)).unwrap();
    let began = world.now;
    world.now += SignedDuration::from_secs(301);
    let Step::Failed { error, tell_peer: None, orphan: None, .. } = restarted(&world, &transaction) else { panic!() };
    assert_eq!(error.code(), "total_time_exceeded");

    world.now = began;
    let answer = world.serve(&message);
    let step = transaction.handle(Input::Response(&answer), &mut world.entropy, world.now);
    let Step::Send { transaction, message: confirmation } = step else { panic!() };
    world.now += SignedDuration::from_secs(301);
    let Step::Send { transaction, message } = restarted(&world, &transaction) else { panic!() };
    assert_eq!(message, confirmation);
    world.go_on(Step::Send { transaction, message }).enrolled();
}

#[test]
fn a_kept_transaction_holds_neither_secret_nor_private_key() {
    let mut world = World::new();
    let (transaction, _) = world.start(world.request(), mac("dev1", SECRET)).unwrap();
    let json = serde_json::to_string(&transaction.record()).unwrap();
    let debug = format!("{transaction:?}");
    for shown in [&json, &debug] {
        assert!(!shown.contains(SECRET));
        // nor a piece of its base64 form, at any of the three alignments
        for form in ["LXdpdGgtMTI4", "13aXRoLTEyOC1i", "aXRoLTEyOC1i"] {
            assert!(!shown.contains(form));
        }
    }
}

#[test]
fn p7_a_kept_transaction_goes_on_only_with_its_own_key_and_credentials() {
    let mut world = World::new();
    let (transaction, _) = world.start(world.request(), mac("dev1", SECRET)).unwrap();
    let resume = |credentials, key: &SoftwareKey| {
        let acceptance = world.acceptance.clone();
        Transaction::resume(transaction.record(), credentials, acceptance, key, world.now).unwrap_err()
    };
    let (identity_key, identity) = world.ca.identity("/CN=identity", KeyType::P256);
    let cases = [
        (resume(mac("dev1", SECRET), &key(KeyType::P256)), "key"),
        (resume(mac("dev2", SECRET), &world.key), "credentials"),
        (resume(signature(&identity_key, &identity), &world.key), "credentials"),
    ];
    for (error, what) in cases {
        assert!(
            matches!(error, CmpError::Configuration(ConfigurationError::RecordMismatch { what: got }) if got == what),
            "{error}"
        );
    }
}
