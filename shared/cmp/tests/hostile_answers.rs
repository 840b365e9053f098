//! A CA that is authentic and hostile: whatever it answers to a question, nothing panics; nor does what reads CSRs and CRLs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;
#[path = "support/world.rs"]
mod world;

use std::cell::RefCell;

use der::{
    Tagged,
    asn1::{Any, ObjectIdentifier},
};
use proptest::{collection::vec, prelude::*, sample::Index, test_runner::TestRunner};
use support::{mac, vectors};
use trustfleet_cmp::{
    Conclusion, Crl, CrlOf, Csr, InfoRequest, Information, Question, Request, Step, apply_template,
    codec::{InfoTypeAndValue, PkiBody, PkiMessage, oids},
    responder::Answer,
};
use world::{SECRET, World};

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
}
