//! Beginning once more: another version, another transactionID. And what old records and odd headers do.

use super::*;
use trustfleet_cmp::codec::header::{CMP1999, CMP2021};

fn refusing_first(bit: FailureBit, times: usize) -> World {
    World::twisted(
        move |nth, _, answer, _, _| {
            if nth < times { Answer::Error { failure: vec![bit], text: String::new() } } else { answer }
        },
    )
}

#[test]
fn h2_an_unsupported_version_is_answered_once_by_the_servers_own() {
    let mut world = refusing_first(FailureBit::UnsupportedVersion, 1);
    world.shape = |header| header.pvno = CMP2021;
    world.open = None;
    let (transaction, message) = world.start(world.request(), mac("dev1", SECRET)).unwrap();
    let first = PkiMessage::from_der(&message).unwrap();
    let answer = world.serve(&message);
    world.open = None; // a new transaction
    let Step::Send { transaction, message } =
        transaction.handle(Input::Response(&answer), &mut world.entropy, world.now)
    else {
        panic!("a second beginning is due");
    };
    let second = PkiMessage::from_der(&message).unwrap();
    assert_eq!((first.header.pvno, second.header.pvno), (2, 3));
    assert_eq!(first.body, second.body, "the same request with the same proof of possession");
    assert_ne!(first.header.transaction_id, second.header.transaction_id);
    assert_ne!(first.header.sender_nonce, second.header.sender_nonce);
    let enrolled = world.go_on(Step::Send { transaction, message }).enrolled();
    assert_eq!(enrolled.warnings, [Warning::OtherVersion { pvno: 3 }]);

    let mut never = refusing_first(FailureBit::UnsupportedVersion, 1);
    assert_eq!(never.run_mac().code(), "refused", "a server that refuses what it speaks itself");
    let mut old = refusing_first(FailureBit::UnsupportedVersion, 1);
    old.shape = |header| header.pvno = CMP1999;
    assert_eq!(old.run_mac().code(), "refused_unauthenticated", "cmp1999: the end");
    assert_eq!(old.heard.len(), 1);
}

#[test]
fn e4_a_transactionid_in_use_is_answered_once_by_a_new_one_where_that_is_wanted() {
    let in_use = FailureBit::TransactionIdInUse;
    let mut unwanted = refusing_first(in_use, 1);
    assert_eq!(unwanted.run_mac().code(), "refused");

    let mut world = refusing_first(in_use, 1);
    world.acceptance.retry_id_in_use = true;
    let (transaction, message) = world.start(world.request(), mac("dev1", SECRET)).unwrap();
    let id = transaction.transaction_id();
    let answer = world.serve(&message);
    world.open = None;
    let step = transaction.handle(Input::Response(&answer), &mut world.entropy, world.now);
    let enrolled = world.go_on(step).enrolled();
    assert_ne!(enrolled.transaction_id, id);
    assert_eq!(enrolled.warnings, [Warning::BegunAnew]);
    assert_ne!(world.heard[0].reply_to.sender_nonce, world.heard[1].reply_to.sender_nonce);
}

#[test]
fn e4_nothing_is_begun_anew_twice_or_after_a_repeat_because_the_first_may_have_been_granted() {
    let in_use = FailureBit::TransactionIdInUse;
    let mut twice = refusing_first(in_use, 2);
    twice.acceptance.retry_id_in_use = true;
    let (transaction, message) = twice.start(twice.request(), mac("dev1", SECRET)).unwrap();
    let answer = twice.serve(&message);
    twice.open = None;
    let step = transaction.handle(Input::Response(&answer), &mut twice.entropy, twice.now);
    assert_eq!(twice.go_on(step).code(), "refused");

    let mut repeated = refusing_first(in_use, 1);
    repeated.acceptance.retry_id_in_use = true;
    let (transaction, _) = repeated.start(repeated.request(), mac("dev1", SECRET)).unwrap();
    let step = transaction.handle(Input::TimerFired, &mut repeated.entropy, repeated.now);
    assert_eq!(repeated.go_on(step).code(), "refused");
}

#[test]
fn e4_a_refusal_that_nobody_vouches_for_begins_nothing_anew() {
    let mut world = World::twisted(|_, _, _, _, protection| {
        *protection = ReplyProtection::Nothing;
        Answer::Error { failure: vec![FailureBit::TransactionIdInUse], text: String::new() }
    });
    world.acceptance.retry_id_in_use = true;
    assert_eq!(world.run_mac().code(), "refused_unauthenticated");
}

#[test]
fn w6_a_record_of_the_first_form_is_still_resumed() {
    let mut world = World::new();
    let (transaction, _) = world.start(world.request(), mac("dev1", SECRET)).unwrap();
    let mut json = serde_json::to_value(transaction.record()).unwrap();
    let context = json["context"].as_object().unwrap();
    for added in ["cert_profile", "pvno", "begun_anew", "topic", "revokes"] {
        assert!(!context.contains_key(added), "an ordinary record keeps the first form: {added}");
    }
    let record = serde_json::from_value(json.clone()).unwrap();
    let (credentials, acceptance) = (mac("dev1", SECRET), world.acceptance.clone());
    let step = Transaction::resume(record, credentials.clone(), acceptance.clone(), world.key.as_ref(), world.now);
    world.go_on(step.unwrap()).enrolled();
    let record = serde_json::from_value(json.clone()).unwrap();
    let keyless = Transaction::resume_keyless(record, credentials.clone(), acceptance.clone(), world.now);
    assert_eq!(keyless.unwrap_err().code(), "record_mismatch", "an ir has a key");
    json["version"] = 2.into();
    let record = serde_json::from_value(json).unwrap();
    let later = Transaction::resume(record, credentials, acceptance, world.key.as_ref(), world.now);
    assert_eq!(later.unwrap_err().code(), "record_mismatch");
}

#[test]
fn v13_the_time_in_an_answer_decides_nothing() {
    for shape in [(|header| header.message_time = None) as fn(&mut trustfleet_cmp::codec::PkiHeader), |header| {
        let long_ago = "1999-01-01T00:00:00Z".parse().unwrap();
        header.message_time = Some(trustfleet_cmp::codec::TimeText::from_timestamp(long_ago));
    }] {
        let mut world = World::new();
        world.shape = shape;
        assert!(world.run_mac().enrolled().warnings.is_empty());
    }
}

#[test]
fn h14_certconf_goes_at_once_whatever_confirmwaittime_says_and_h13_without_generalinfo() {
    let mut world = World::new();
    world.shape = |header| {
        let value = der::asn1::GeneralizedTime::from_unix_duration(std::time::Duration::from_secs(2_000_000_000));
        let wait = trustfleet_cmp::codec::InfoTypeAndValue {
            info_type: trustfleet_cmp::codec::oids::CONFIRM_WAIT_TIME,
            info_value: Some(der::asn1::Any::encode_from(&value.unwrap()).unwrap()),
        };
        header.general_info = Some(vec![wait]);
    };
    let request = EnrollRequest { implicit_confirm: true, ..world.request() };
    let (transaction, message) = world.start(request, mac("dev1", SECRET)).unwrap();
    let infos = PkiMessage::from_der(&message).unwrap().header.general_info.unwrap();
    assert_eq!(infos, [trustfleet_cmp::codec::InfoTypeAndValue::implicit_confirm()], "H13: alone");
    let answer = world.serve(&message);
    let Step::Send { message, .. } = transaction.handle(Input::Response(&answer), &mut world.entropy, world.now) else {
        panic!("H14: certConf is due now");
    };
    let message = PkiMessage::from_der(&message).unwrap();
    assert_eq!((message.body.kind(), message.header.general_info), (BodyKind::CertConf, None));
}

#[test]
fn v1_a_nested_message_is_refused_by_name() {
    let mut world = World::twisted(|_, received, _, _, _| {
        let inner = PkiMessage::assemble(
            trustfleet_cmp::codec::PkiHeader {
                pvno: 2,
                sender: trustfleet_cmp::codec::raw::directory_name(&received.reply_to.sender).unwrap(),
                recipient: trustfleet_cmp::codec::raw::directory_name(&received.reply_to.sender).unwrap(),
                message_time: None,
                protection_alg: None,
                sender_kid: None,
                recip_kid: None,
                transaction_id: None,
                sender_nonce: None,
                recip_nonce: None,
                free_text: None,
                general_info: None,
            },
            trustfleet_cmp::codec::PkiBody::PkiConf,
        );
        Answer::Body(Box::new(trustfleet_cmp::codec::PkiBody::Nested(vec![inner.unwrap()])))
    });
    assert_eq!(world.run_mac().code(), "nested_message");
}
