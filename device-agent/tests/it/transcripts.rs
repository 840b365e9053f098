//! The flight recorder: what a report tells of the exchange, over delays, failures and restarts, and what it never tells.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use trustfleet_cmp::codec::{FailureBit, PkiMessage};
use trustfleet_model::transcript::{Entry, Message};
use trustfleet_wire::v1::{Blob, Exchanged};

use crate::ca::{Gate, SECRET, TestCa, Trick};
use crate::house::{House, eventually};

/// Each entry in a word or two.
fn words(told: &[Exchanged]) -> Vec<String> {
    told.iter().map(|entry| format!("{} {}", entry.what, entry.kind.as_deref().unwrap_or("-"))).collect()
}

fn messages(told: &[Exchanged]) -> Vec<Message> {
    let entries = told.iter().cloned().filter_map(Exchanged::entry);
    entries
        .filter_map(|entry| match entry {
            Entry::Sent(message) | Entry::Received(message) => Some(message),
            _ => None,
        })
        .collect()
}

#[tokio::test]
async fn an_issued_certificate_comes_with_every_message_its_size_and_how_long_the_ca_let_wait() {
    let (ca, house) = (TestCa::start(), House::start().await);
    ca.trick(Trick::Wait);
    house.send(&house.ir(1, &ca)).await;
    let told = house.issued().await.transcript;
    assert_eq!(
        words(&told),
        [
            "sent ir",
            "received ip",
            "sent pollReq",
            "received pollRep",
            "sent pollReq",
            "received pollRep",
            "sent pollReq",
            "received ip"
        ]
    );
    let messages = messages(&told);
    assert_eq!(messages[1].status.as_deref(), Some("waiting"));
    assert_eq!(messages[3].check_after_s, Some(1));
    assert_eq!(messages[7].status.as_deref(), Some("accepted"));
    let sizes: Vec<u64> = ca.raw().iter().map(|raw| raw.len().try_into().unwrap()).collect();
    assert_eq!([messages[0].bytes, messages[2].bytes, messages[4].bytes, messages[6].bytes].as_slice(), sizes);
    assert!(told.windows(2).all(|pair| pair[0].at <= pair[1].at), "in the order of time: {told:?}");
}

#[tokio::test]
async fn a_refusal_is_in_it_with_its_words_and_the_cas_own_made_harmless() {
    let (ca, house) = (TestCa::start(), House::start().await);
    ca.trick(Trick::Refuse(vec![FailureBit::BadPop, FailureBit::BadCertTemplate], "no\u{1b}[2J way".to_owned()));
    house.send(&house.ir(1, &ca)).await;
    let told = house.failed().await.transcript;
    let answer = messages(&told).into_iter().find(|message| message.status.is_some()).unwrap();
    assert_eq!(answer.status.as_deref(), Some("rejection"));
    assert_eq!(answer.fail_info, ["badPOP", "badCertTemplate"]);
    let said = answer.status_string.unwrap();
    assert!(said.contains("no") && !said.contains('\u{1b}'), "{said:?}");
}

#[tokio::test]
async fn a_try_without_an_answer_is_an_entry_and_the_repeated_message_none() {
    let (ca, house) = (TestCa::start(), House::start().await);
    ca.trick(Trick::NoAnswer);
    house.send(&house.ir(1, &ca)).await;
    let told = house.issued().await.transcript;
    assert_eq!(words(&told), ["sent ir", "no_answer ir", "received ip"]);
    assert_eq!(ca.raw().len(), 2, "it was sent twice");
    assert!(told[1].code.is_some() && told[1].detail.as_deref().is_some_and(|detail| detail.contains("http://")));
}

#[tokio::test]
async fn a_transcript_survives_the_death_of_the_agent_and_says_that_it_was_started_again() {
    let (ca, mut house) = (TestCa::start(), House::start().await);
    ca.trick(Trick::Wait);
    let gate = Arc::new(Gate::default());
    ca.trick(Trick::Gate(Arc::clone(&gate)));
    house.send(&house.ir(1, &ca)).await;
    house.wait_for("waiting").await;
    house.kill_agent().await;
    gate.open.store(true, Ordering::SeqCst);
    house.start_agent().await;
    let told = words(&house.issued().await.transcript);
    assert_eq!(told[..2], ["sent ir", "received ip"], "{told:?}");
    assert_eq!(told.iter().filter(|word| *word == "resumed -").count(), 1, "{told:?}");
    assert_eq!(told.iter().filter(|word| *word == "sent ir").count(), 1, "{told:?}");
    eventually("the job is done", || house.kinds().contains(&"activated")).await;
}

#[tokio::test]
async fn s13_no_secret_salt_mac_or_nonce_of_an_exchange_is_in_its_transcript() {
    let (ca, house) = (TestCa::start(), House::start().await);
    house.send(&house.ir(1, &ca)).await;
    let told = serde_json::to_string(&house.issued().await.transcript).unwrap();
    assert!(told.contains("\"ir\""), "there is something to look at");
    let mut forbidden = vec![SECRET.as_bytes().to_vec()];
    for raw in ca.raw() {
        let message = PkiMessage::from_der(&raw).unwrap();
        forbidden.extend(message.protection.clone());
        forbidden.extend(message.header.sender_nonce.as_ref().map(|nonce| nonce.as_bytes().to_vec()));
        let parameter = message.header.protection_alg.as_ref().and_then(|used| used.parameters.clone()).unwrap();
        let pbm: trustfleet_cmp::codec::pbm::PbmParameter = parameter.decode_as().unwrap();
        forbidden.push(pbm.salt.as_bytes().to_vec());
    }
    assert!(forbidden.len() >= 4, "a MAC, a nonce and a salt were looked for");
    for bytes in forbidden {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let base64 = serde_json::to_string(&Blob(bytes.clone())).unwrap().trim_matches('"').to_owned();
        assert!(![text, hex::encode(&bytes), base64].iter().any(|form| told.contains(form.as_str())), "{told}");
    }
}
