//! Servers that let us wait.

use super::*;

#[test]
fn w1_w3_waiting_is_polled_for_not_before_the_servers_time() {
    let mut world = World::new();
    let mut first = None;
    world.twist = Box::new(move |nth, _, answer, _, _| match nth {
        0 => {
            first = Some(answer);
            Answer::Waiting { kind: RequestKind::Ir, cert_req_id: 0 }
        }
        1 | 2 => Answer::PollRep { cert_req_id: 0, check_after: 60, reason: "a human decides".to_owned() },
        3 => first.take().unwrap(),
        _ => answer,
    });
    let end = world.run_mac();
    assert_eq!(end.waits, [60, 60]);
    assert!(matches!(world.heard[1].request, Request::Poll { cert_req_id: 0 }));
    end.enrolled();
}

#[test]
fn w2_an_error_that_says_waiting_is_polled_for_with_minus_one_even_after_certconf() {
    let mut world = World::twisted(|nth, _, answer, _, _| match nth {
        1 => Answer::ErrorWaiting,
        2 => Answer::PollRep { cert_req_id: -1, check_after: 5, reason: String::new() },
        _ => answer,
    });
    let end = world.run_mac();
    assert_eq!(end.waits, [5]);
    assert!(matches!(world.heard[2].request, Request::Poll { cert_req_id: -1 }));
    assert_eq!(
        kinds(&end.enrolled().transcript),
        ["ir", "ip", "certConf", "error", "pollReq", "pollRep", "pollReq", "pkiconf"]
    );
}

#[test]
fn w6_a_delayed_answer_may_carry_the_nonce_of_the_delayed_request() {
    let mut world = World::new();
    let (mut first, mut nonce) = (None, vec![]);
    world.twist = Box::new(move |nth, received, answer, to, _| match nth {
        0 => {
            nonce.clone_from(&received.reply_to.sender_nonce);
            first = Some(answer);
            Answer::Waiting { kind: RequestKind::Ir, cert_req_id: 0 }
        }
        1 => {
            to.sender_nonce.clone_from(&nonce);
            first.take().unwrap()
        }
        _ => answer,
    });
    world.run_mac().enrolled();
}

fn polling_world(check_after: i64) -> World {
    World::twisted(move |nth, _, _, _, _| match nth {
        0 => Answer::Waiting { kind: RequestKind::Ir, cert_req_id: 0 },
        _ => Answer::PollRep { cert_req_id: 0, check_after, reason: String::new() },
    })
}

#[test]
fn w4_polling_ends_with_the_total_time_however_long_the_server_wants() {
    let mut world = polling_world(i64::MAX);
    world.acceptance.total_seconds = 300;
    let end = world.run_mac();
    assert_eq!(end.code(), "total_time_exceeded");
    assert!(end.waits.iter().sum::<u64>() <= 300, "{:?}", end.waits);
    let told = world.read(&end.tell_peer.unwrap());
    assert!(matches!(told.request, Request::Error { .. }));
}

#[test]
fn w4_a_server_that_only_ever_says_waiting_is_not_asked_in_a_circle() {
    for with in [Answer::Waiting { kind: RequestKind::Ir, cert_req_id: 0 }, Answer::ErrorWaiting] {
        let mut world = World::twisted(move |nth, _, _, _, _| {
            assert!(nth < 100, "asked without end");
            with.clone()
        });
        world.acceptance.total_seconds = 60;
        let end = world.run_mac();
        assert_eq!(end.code(), "total_time_exceeded");
        assert_eq!(end.waits.iter().sum::<u64>(), 60);
        assert!(world.heard.len() <= 10, "{}", world.heard.len());
    }
}

#[test]
fn w4_a_clock_that_is_set_back_stretches_neither_a_wait_nor_the_whole() {
    let mut world = polling_world(60);
    world.acceptance.total_seconds = 300;
    let transaction = until_waiting(&mut world);
    world.now -= SignedDuration::from_hours(24 * 365 * 10);
    let Step::Wait { transaction, seconds } = restarted(&world, &transaction) else { panic!() };
    assert!(seconds <= 60, "{seconds}");
    let end = world.go_on(Step::Wait { transaction, seconds });
    assert_eq!(end.code(), "total_time_exceeded");
    assert!(end.waits.iter().sum::<u64>() <= 300, "{:?}", end.waits);
}

#[test]
fn w3_a_negative_checkafter_is_refused_and_zero_still_waits() {
    assert_eq!(polling_world(-1).run_mac().code(), "check_after_absurd");
    let mut world = polling_world(0);
    world.acceptance.total_seconds = 3;
    assert_eq!(world.run_mac().waits, [1, 1, 1]);
}

fn until_waiting(world: &mut World) -> Box<Transaction> {
    let (transaction, message) = world.start(world.request(), mac("dev1", SECRET)).unwrap();
    let mut step = Step::Send { transaction: Box::new(transaction), message };
    loop {
        step = match step {
            Step::Send { transaction, message } => {
                let answer = world.serve(&message);
                transaction.handle(Input::Response(&answer), &mut world.entropy, world.now)
            }
            Step::Wait { transaction, .. } => return transaction,
            other => panic!("{other:?}"),
        };
    }
}

#[test]
fn w3_a_timer_that_fires_early_waits_on() {
    let mut world = polling_world(60);
    let transaction = until_waiting(&mut world);
    let early = world.now + SignedDuration::from_secs(20);
    let step = transaction.handle(Input::TimerFired, &mut world.entropy, early);
    assert!(matches!(step, Step::Wait { seconds: 40, .. }), "{step:?}");
}

#[test]
fn s37_polling_is_stopped_by_hand_and_the_server_is_told() {
    let mut world = polling_world(60);
    let transaction = until_waiting(&mut world);
    let Step::Failed { error, tell_peer, .. } = transaction.handle(Input::Stop, &mut world.entropy, world.now) else {
        panic!();
    };
    assert_eq!(error.code(), "stopped");
    let told = world.read(&tell_peer.unwrap());
    assert!(matches!(told.request, Request::Error { .. }));
    assert_eq!(world.open.as_ref().unwrap().check(&told), Ok(()), "H12: with the server's last nonce");
}

#[test]
fn a_response_while_waiting_is_refused() {
    let mut world = polling_world(60);
    let transaction = until_waiting(&mut world);
    let step = transaction.handle(Input::Response(b""), &mut world.entropy, world.now);
    assert!(matches!(step, Step::Failed { error, .. } if error.code() == "unexpected_input"));
}

/// No protection covers extraCerts: whoever stands between can add to them.
#[test]
fn x4_certificates_that_were_slipped_in_do_not_push_out_those_that_come_later() {
    let mut world = World::new();
    let issuing = world.ca.issue(&Leaf { ca: true, ..Leaf::new("/CN=Issuing", key(KeyType::P256).as_ref()) });
    let (helper, certificate) = (issuing.clone(), world.ca.issue(&Leaf::new("/CN=dev1", world.key.as_ref())));
    world.twist = Box::new(move |_, received, answer, _, _| match &received.request {
        Request::Certificate(asked) => Answer::Waiting { kind: asked.kind, cert_req_id: asked.cert_req_id },
        Request::Poll { .. } => Answer::Granted {
            kind: RequestKind::Ir,
            cert_req_id: 0,
            certificate: certificate.clone(),
            with_mods: false,
            ca_pubs: vec![],
            extra_certs: vec![helper.clone()],
            implicit_confirm: false,
        },
        _ => answer,
    });
    let (transaction, message) = world.start(world.request(), mac("dev1", SECRET)).unwrap();
    let mut waiting = PkiMessage::from_der(&world.serve(&message)).unwrap();
    let junk = |n: u32| world.ca.issue(&Leaf::new(&format!("/CN={n}"), world.key.as_ref()));
    let junk = (0..64).map(|n| trustfleet_cmp::codec::RawSequence::from_tlv(junk(n).as_der()).unwrap());
    waiting.extra_certs = junk.collect();
    let step = transaction.handle(Input::Response(&waiting.to_der().unwrap()), &mut world.entropy, world.now);
    let enrolled = world.go_on(step).enrolled();
    assert!(enrolled.chain_helpers.contains(&issuing));
    assert!(enrolled.chain_helpers.len() <= 64);
}
