//! Hostile input: changed, cut, mixed and random bytes are refused, and nothing panics.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;
#[path = "support/world.rs"]
mod world;

use std::{cell::RefCell, fs, path::PathBuf, sync::OnceLock};

use der::{
    Tagged,
    asn1::{Any, ObjectIdentifier},
};
use proptest::{collection::vec, prelude::*, sample::Index, test_runner::TestRunner};
use support::mac;
use trustfleet_cmp::{
    Conclusion, Crl, CrlOf, Csr, InfoRequest, Information, Input, Question, Request, Step, Transaction, apply_template,
    codec::{InfoTypeAndValue, PkiBody, PkiMessage, oids},
    key::SoftwareKey,
    responder::Answer,
    transaction::TransactionRecord,
};
use world::{SECRET, World};

fn vectors() -> &'static [Vec<u8>] {
    static VECTORS: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    VECTORS.get_or_init(read_vectors)
}

fn read_vectors() -> Vec<Vec<u8>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "der"));
    paths.sort();
    paths.into_iter().map(|path| fs::read(path).unwrap()).collect()
}

/// A transaction that awaits its ip, and that ip.
fn awaiting(world: &mut World) -> (TransactionRecord, Vec<u8>) {
    let request = trustfleet_cmp::EnrollRequest { implicit_confirm: true, ..world.request() };
    let (transaction, message) = world.start(request, mac("dev1", SECRET)).unwrap();
    (transaction.record(), world.serve(&message))
}

fn answer(world: &mut World, record: &TransactionRecord, answer: &[u8]) -> Step {
    let key: &SoftwareKey = &world.key;
    let step =
        Transaction::resume(record.clone(), mac("dev1", SECRET), world.acceptance.clone(), key, world.now).unwrap();
    let Step::Send { transaction, .. } = step else { panic!("{step:?}") };
    transaction.handle(Input::Response(answer), &mut world.entropy, world.now)
}

#[test]
fn p1_every_single_flipped_bit_of_a_maced_response_is_refused() {
    let mut world = World::new();
    let (record, response) = awaiting(&mut world);
    assert!(matches!(answer(&mut world, &record, &response), Step::Done(_)), "unchanged it is taken");
    for bit in 0..response.len() * 8 {
        let mut changed = response.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let step = answer(&mut world, &record, &changed);
        assert!(matches!(step, Step::Failed { .. }), "bit {bit} was changed and the response taken");
    }
}

#[test]
fn a_response_cut_anywhere_or_with_something_behind_it_is_refused() {
    let mut world = World::new();
    let (record, response) = awaiting(&mut world);
    for end in 0..response.len() {
        let step = answer(&mut world, &record, &response[..end]);
        assert!(matches!(step, Step::Failed { error, .. } if error.code() == "message_malformed"), "cut at {end}");
    }
    let longer = [response.as_slice(), &[0]].concat();
    assert!(matches!(answer(&mut world, &record, &longer), Step::Failed { .. }));
}

#[test]
fn a_response_to_another_transaction_is_refused() {
    let mut world = World::new();
    let (_, stale) = awaiting(&mut world);
    world.open = None;
    let (record, _) = awaiting(&mut world);
    let step = answer(&mut world, &record, &stale);
    assert!(matches!(step, Step::Failed { error, .. } if error.code() == "transaction_id_wrong"));
}

#[test]
fn every_vector_handed_in_as_an_answer_ends_the_transaction() {
    let mut world = World::new();
    let (record, _) = awaiting(&mut world);
    for vector in vectors() {
        assert!(matches!(answer(&mut world, &record, vector), Step::Failed { .. }));
    }
}

/// The values of questions and answers among the vectors.
fn values() -> Vec<Any> {
    let infos = vectors().iter().filter_map(|der| match PkiMessage::from_der(der).unwrap().body {
        PkiBody::Genm(infos) | PkiBody::Genp(infos) => infos.into_iter().next().unwrap().info_value,
        _ => None,
    });
    infos.collect()
}

fn questions(world: &World) -> Vec<(Question, ObjectIdentifier)> {
    let old = world.ca.certificate.clone();
    let source = CrlOf::Issuer(old.subject());
    vec![
        (Question::CaCerts, oids::IT_CA_CERTS),
        (Question::RootCaUpdate { old }, oids::IT_ROOT_CA_KEY_UPDATE),
        (Question::CertReqTemplate, oids::IT_CERT_REQ_TEMPLATE),
        (Question::CrlUpdate { source, this_update: None }, oids::IT_CRLS),
        (Question::CurrentCrl, oids::IT_CURRENT_CRL),
        (Question::SignKeyPairTypes, oids::IT_SIGN_KEY_PAIR_TYPES),
        (Question::PreferredSymmAlg, oids::IT_PREFERRED_SYMM_ALG),
        (Question::SupportedLanguages(vec![]), oids::IT_SUPP_LANG_TAGS),
        (Question::ConfirmWaitTime, oids::CONFIRM_WAIT_TIME),
        (Question::Other(oids::SHA1), oids::SHA1),
    ]
}

#[test]
fn an_authentic_but_hostile_answer_to_any_question_never_panics() {
    let values = values();
    assert!(values.len() >= 3, "{}", values.len());
    let world = RefCell::new(World::new());
    let strategy = (any::<Index>(), any::<Index>(), vec((any::<Index>(), any::<u8>()), 0..6));
    let config = ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() };
    let run = TestRunner::new(config).run(&strategy, |(question, value, changes)| {
        let mut world = world.borrow_mut();
        let all = questions(&world);
        let (question, info_type) = question.get(&all).clone();
        let value = value.get(&values);
        let mut bytes = value.value().to_vec();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let info_value = Some(Any::new(value.tag(), bytes).unwrap());
        world.open = None;
        world.twist = Box::new(move |_, _, _, _, _| {
            Answer::Info(vec![InfoTypeAndValue { info_type, info_value: info_value.clone() }])
        });
        let recipient = world.ca.certificate.subject();
        let request = InfoRequest { question, recipient, sender: None, extra_certs: vec![] };
        let last = world.begin(Request::Info(Box::new(request)), mac("dev1", SECRET));
        if let Step::Concluded(conclusion) = last.step
            && let Conclusion::Informed(informed) = *conclusion
            && let Information::CertReqTemplate(Some(template)) = informed.information
        {
            let _ = apply_template(world.request(), &template);
        }
        Ok(())
    });
    run.unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn decoding_random_bytes_never_panics(bytes in vec(any::<u8>(), 0..600)) {
        let _ = PkiMessage::from_der(&bytes);
    }

    #[test]
    fn decoding_changed_messages_never_panics(
        which in any::<Index>(),
        changes in vec((any::<Index>(), any::<u8>()), 1..6),
        cut in any::<Index>(),
        keep in any::<bool>(),
    ) {
        let mut bytes = which.get(vectors()).clone();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if !keep {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(message) = PkiMessage::from_der(&bytes) {
            // what decodes also encodes, and covers the received bytes
            prop_assert_eq!(message.to_der().unwrap().len(), bytes.len());
            let _ = message.reencoded();
            let _ = format!("{message:?}");
        }
    }

    #[test]
    fn reading_a_changed_csr_or_crl_never_panics(
        which in any::<Index>(),
        changes in vec((any::<Index>(), any::<u8>()), 0..6),
    ) {
        let mut bytes = which.get(vectors()).clone();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let _ = Csr::from_der(&bytes);
        let _ = Crl::from_der(&bytes);
    }

    #[test]
    fn decoding_nested_values_of_any_shape_never_panics(tags in vec(any::<u8>(), 1..60)) {
        let mut bytes = Vec::new();
        for tag in tags {
            let length = u8::try_from(bytes.len().min(127)).unwrap();
            bytes = [&[tag, length][..], &bytes].concat();
        }
        let _ = PkiMessage::from_der(&bytes);
    }
}
