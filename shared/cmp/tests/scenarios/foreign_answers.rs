//! Answers that do not belong to us.

use super::*;

#[test]
fn v2_another_transactionid_is_refused_with_expected_and_got_and_the_server_is_told() {
    let mut world = World::twisted(|_, _, answer, to, _| {
        to.transaction_id = vec![7; 16];
        answer
    });
    let end = world.run_mac();
    assert_eq!(end.code(), "transaction_id_wrong");
    let text = end.result.unwrap_err().to_string();
    assert!(text.contains(&"07".repeat(16)), "{text}");
    let told = world.read(&end.tell_peer.unwrap());
    assert!(matches!(told.request, Request::Error { failure, .. } if failure == [FailureBit::BadRequest]));
}

#[test]
fn v3_another_recipnonce_is_refused() {
    for nonce in [vec![7; 16], vec![], vec![7; 15]] {
        let mut world = World::twisted(move |_, _, answer, to, _| {
            to.sender_nonce.clone_from(&nonce);
            answer
        });
        let end = world.run_mac();
        assert_eq!(end.code(), "recip_nonce_wrong");
        let told = world.read(&end.tell_peer.unwrap());
        assert!(matches!(told.request, Request::Error { failure, .. } if failure == [FailureBit::BadRecipientNonce]));
    }
}

#[test]
fn v7_another_certreqid_is_refused() {
    let mut world = World::twisted(|_, _, answer, _, _| match answer {
        Answer::Granted { kind, certificate, .. } => Answer::Granted {
            kind,
            cert_req_id: 7,
            certificate,
            with_mods: false,
            ca_pubs: vec![],
            extra_certs: vec![],
            implicit_confirm: false,
        },
        other => other,
    });
    assert_eq!(world.run_mac().code(), "cert_req_id_wrong");
}

#[test]
fn v1_an_answer_of_another_kind_is_refused_with_the_list_of_what_would_fit() {
    let mut world = World::twisted(|_, _, _, _, _| Answer::PkiConf);
    let end = world.run_mac();
    assert_eq!(end.code(), "body_unexpected");
    assert_eq!(end.result.unwrap_err().to_string(), "expected ip or error, got pkiconf");
}

#[test]
fn v1_bytes_that_are_no_message_end_the_transaction() {
    let mut world = World::new();
    for garbage in [&b"<html>502 Bad Gateway</html>"[..], b"", &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]] {
        let (transaction, _) = world.start(world.request(), mac("dev1", SECRET)).unwrap();
        let step = transaction.handle(Input::Response(garbage), &mut world.entropy, world.now);
        assert!(matches!(step, Step::Failed { error, .. } if error.code() == "message_malformed"));
    }
}
