//! Messages made by a foreign implementation (tests/vectors, commands beside them): they decode to what was asked for,
//! their protection verifies, and encoding their parts anew gives the same bytes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::{fs, path::PathBuf};

use der::asn1::Any;
use jiff::Timestamp;
use trustfleet_cmp::{
    RevocationReason,
    codec::{
        BodyKind, CertOrEncCert, CertRequest, FailureBit, PkiBody, PkiMessage, PkiStatus, ProofOfPossession,
        info::{CertReqTemplateContent, CrlSource, CrlStatus, RootCaKeyUpdateContent},
        oids,
        raw::directory_name_der,
    },
    protection::{AcceptedMacs, Hash, MacScheme},
    responder::{Client, Rejected, Request, ResponderPolicy, Trust, receive},
};
use trustfleet_pki::{certificate::Certificate, name::Name};
use zeroize::Zeroizing;

/// The messages that were kept, or others that were made by the same commands (scripts/interop/cmp.sh).
fn folder() -> PathBuf {
    let kept = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    std::env::var_os("TRUSTFLEET_VECTORS").map_or_else(kept, PathBuf::from)
}

fn bytes(name: &str) -> Vec<u8> {
    fs::read(folder().join(format!("{name}.der"))).unwrap()
}

fn message(name: &str) -> PkiMessage {
    PkiMessage::from_der(&bytes(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn certificate(name: &str) -> Certificate {
    Certificate::from_pem(&fs::read_to_string(folder().join(name)).unwrap()).unwrap()
}

/// The moment at which the vectors were made: their certificates are valid then.
fn made() -> Timestamp {
    message("ir-mac-q1").header.message_time.unwrap().timestamp().unwrap()
}

struct Known;

impl Trust for Known {
    fn secret(&self, reference: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        (reference == b"dev1").then(|| Zeroizing::new(b"S3cret-of-dev1".to_vec()))
    }

    fn anchors(&self) -> Vec<Certificate> {
        vec![certificate("ca.crt")]
    }
}

fn received(name: &str) -> Result<trustfleet_cmp::responder::Received, Box<Rejected>> {
    // openssl's client MACs by HMAC-SHA1 unless told otherwise
    let policy = ResponderPolicy { macs: AcceptedMacs::with_sha1(), ..ResponderPolicy::default() };
    receive(&bytes(name), &Known, &policy, made())
}

#[test]
fn every_vector_decodes_and_its_parts_encode_to_the_same_bytes() {
    let mut count = 0;
    for entry in fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "der") {
            continue;
        }
        let der = fs::read(&path).unwrap();
        let message = PkiMessage::from_der(&der).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        assert_eq!(message.to_der().unwrap(), der, "{path:?}");
        assert_eq!(message.reencoded().unwrap(), der, "{path:?}");
        count += 1;
    }
    assert!(count >= 30, "{count} vectors");
}

#[test]
fn p1_the_protection_of_every_request_verifies_over_the_received_bytes() {
    for name in ["ir-mac-q1", "ir-mac-q2", "ir-implicit-q1", "poll-q1", "poll-q2", "poll-q4", "genm-q1"] {
        let received = received(name).unwrap_or_else(|rejected| panic!("{name}: {}", rejected.error));
        assert!(matches!(received.client, Client::Mac { .. }), "{name}");
    }
    for name in ["ir-signature-q1", "ir-signature-q2", "cr-signature-q1", "kur-signature-q1", "rr-q1"] {
        let received = received(name).unwrap_or_else(|rejected| panic!("{name}: {}", rejected.error));
        assert!(matches!(received.client, Client::Signature { .. }), "{name}");
    }
}

#[test]
fn p5_pbmac1_by_pyasn1_and_hashlib_verifies() {
    for (name, scheme_owf_hmac) in [
        ("pyasn1-pbmac1-sha256", (Hash::Sha256, Hash::Sha256)),
        ("pyasn1-pbmac1-mixed", (Hash::Sha512, Hash::Sha384)),
        ("pyasn1-pbmac1-long-key", (Hash::Sha384, Hash::Sha512)),
        ("pyasn1-pbmac1-sha1", (Hash::Sha1, Hash::Sha1)),
    ] {
        let received = received(name).unwrap_or_else(|rejected| panic!("{name}: {}", rejected.error));
        let Client::Mac { reference, mac } = received.client else { panic!("{name}") };
        assert_eq!(reference, b"dev1");
        assert_eq!((mac.scheme, (mac.owf, mac.hmac)), (MacScheme::Pbmac1, scheme_owf_hmac), "{name}");
    }
    let error = received("pyasn1-pbmac1-no-keylength").unwrap_err().error;
    assert!(error.to_string().contains("without keyLength"), "{error}");
    let strong = receive(&bytes("pyasn1-pbmac1-sha1"), &Known, &ResponderPolicy::default(), made()).unwrap_err();
    assert_eq!(strong.error.code(), "protection_algorithm_not_accepted", "S8: SHA-1 only by choice");
}

#[test]
fn p1_a_changed_byte_of_the_body_breaks_the_protection() {
    let mut der = bytes("ir-mac-q1");
    let at = der.len() - 100;
    der[at] ^= 1;
    assert!(receive(&der, &Known, &ResponderPolicy::default(), made()).is_err());
}

#[test]
fn a_request_with_validity_and_alternative_names_decodes_to_what_was_asked_for() {
    let message = message("ir-mac-q1");
    assert_eq!(message.header.pvno, 2);
    let recipient = Name::from_der(directory_name_der(&message.header.recipient).unwrap()).unwrap();
    assert_eq!(recipient.to_slash(), "/O=Lab/CN=Mock CA");
    let PkiBody::Ir(requests) = &message.body else { panic!("{:?}", message.body.kind()) };
    let [request] = requests.as_slice() else { panic!("{}", requests.len()) };
    assert!(matches!(request.popo, Some(ProofOfPossession::Signature(_))));
    let request: CertRequest = request.cert_req.parse().unwrap();
    assert_eq!(request.cert_req_id, 0);
    let validity = request.cert_template.validity.unwrap();
    assert!(validity.not_before.is_some() && validity.not_after.is_some());
    let Request::Certificate(asked) = received("ir-mac-q1").unwrap().request else { panic!() };
    assert_eq!(asked.subject.to_slash(), "/CN=dev1");
    assert_eq!(asked.subject_alt_names.unwrap()[2..], *b"\x82\x0cdev1.example");
}

#[test]
fn a_response_carries_certificate_and_ca_certificates() {
    let message = message("ir-mac-r1");
    let PkiBody::Ip(answer) = &message.body else { panic!("{:?}", message.body.kind()) };
    let response = &answer.response[0];
    assert_eq!(response.status.status, PkiStatus::Accepted);
    let pair = response.certified_key_pair.as_ref().unwrap();
    let CertOrEncCert::Certificate(raw) = &pair.cert_or_enc_cert else { panic!() };
    assert_eq!(raw.to_tlv().unwrap(), certificate("dev.crt").as_der());
    assert_eq!(answer.ca_pubs.as_ref().unwrap()[0].to_tlv().unwrap(), certificate("ca.crt").as_der());
}

#[test]
fn h13_implicit_confirmation_is_read_where_it_is() {
    assert!(message("ir-implicit-q1").header.has_implicit_confirm());
    assert!(message("ir-implicit-r1").header.has_implicit_confirm());
    assert!(!message("ir-mac-r1").header.has_implicit_confirm());
}

#[test]
fn r6_the_oldcertid_of_a_kur_names_the_certificate_that_signed_it() {
    let Request::Certificate(asked) = received("kur-signature-q1").unwrap().request else { panic!() };
    assert_eq!(asked.old_certificate.unwrap().subject().to_slash(), "/CN=dev1");
    assert_eq!(message("kur-signature-r1").body.kind(), BodyKind::Kup);
}

#[test]
fn w3_polling_messages_are_sequences_of_their_elements() {
    let PkiBody::PollReq(polls) = message("poll-q2").body else { panic!() };
    assert_eq!(polls.len(), 1);
    assert_eq!(polls[0].cert_req_id, 0);
    let PkiBody::PollRep(polls) = message("poll-r2").body else { panic!() };
    assert_eq!((polls.len(), polls[0].check_after), (1, 1));
    let PkiBody::Ip(answer) = message("poll-r1").body else { panic!() };
    assert_eq!(answer.response[0].status.status, PkiStatus::Waiting);
}

#[test]
fn e3_failinfo_with_bits_above_16_decodes() {
    let PkiBody::Ip(answer) = message("rejected-r1").body else { panic!() };
    // -failurebits 68157953: bits 0, 9, 20 and 26
    let bits = answer.response[0].status.fail_info.unwrap().bits();
    use FailureBit::{BadAlg, BadPop, DuplicateCertReq, SignerNotTrusted};
    assert_eq!(bits, [BadAlg, BadPop, SignerNotTrusted, DuplicateCertReq]);
    let PkiBody::Error(error) = message("error-r1").body else { panic!() };
    assert_eq!(error.status_info.fail_info.unwrap().bits(), [FailureBit::BadRequest]);
    assert!(error.error_code.is_some() && error.error_details.is_some());
}

#[test]
fn other_kinds_of_messages_are_recognised() {
    assert_eq!(message("genm-q1").body.kind(), BodyKind::Genm);
    assert_eq!(message("genm-r1").body.kind(), BodyKind::Genp);
    let PkiBody::Rr(details) = message("rr-q1").body else { panic!() };
    assert!(details[0].cert_details.serial_number.is_some());
    assert!(details[0].crl_entry_details.is_some());
    let PkiBody::Rp(answer) = message("rr-r1").body else { panic!() };
    assert_eq!(answer.status[0].status, PkiStatus::Accepted);
}

#[test]
fn h9_the_unprotected_error_has_neither_protection_nor_algorithm() {
    let message = message("unprotected-error-r1");
    assert!(message.protection.is_none() && message.header.protection_alg.is_none());
}

// ---- messages by pyasn1-alt-modules: what OpenSSL 3.0 does not make ----------------------------------------------------

#[test]
fn c4_certconf_with_hashalg_and_pvno_3_is_read() {
    let message = message("pyasn1-certconf-hashalg");
    assert_eq!(message.header.pvno, 3);
    let PkiBody::CertConf(statuses) = message.body else { panic!() };
    assert_eq!(statuses[0].cert_req_id, -1);
    assert_eq!(statuses[0].hash_alg.as_ref().unwrap().oid.to_string(), "2.16.840.1.101.3.4.2.1");
}

#[test]
fn e3_an_error_with_every_field_is_read_in_full() {
    let PkiBody::Error(error) = message("pyasn1-error-all-fields").body else { panic!() };
    let texts: Vec<_> = error.status_info.status_string.unwrap().iter().map(|text| text.lossy()).collect();
    assert_eq!(texts, ["one", "zwei"]);
    let bits = error.status_info.fail_info.unwrap().bits();
    assert_eq!(bits, [FailureBit::BadAlg, FailureBit::DuplicateCertReq]);
    assert!(error.error_code.is_some());
    assert_eq!(error.error_details.unwrap()[0].lossy(), "details");
}

#[test]
fn s24a_both_forms_of_an_encrypted_certificate_are_recognised() {
    for (name, form) in
        [("pyasn1-cp-encrypted-value", "EncryptedValue"), ("pyasn1-kup-enveloped-data", "EnvelopedData")]
    {
        let (PkiBody::Cp(answer) | PkiBody::Kup(answer)) = message(name).body else { panic!() };
        let pair = answer.response[0].certified_key_pair.clone().unwrap();
        let CertOrEncCert::EncryptedCert(key) = pair.cert_or_enc_cert else { panic!() };
        assert_eq!(key.form(), form);
    }
}

#[test]
fn w2_a_pollrep_for_a_whole_message_with_a_reason_is_read() {
    let PkiBody::PollRep(polls) = message("pyasn1-pollrep-reason").body else { panic!() };
    assert_eq!((polls[0].cert_req_id, polls[0].check_after), (-1, 300));
    assert_eq!(polls[0].reason.as_ref().unwrap()[0].lossy(), "a human decides");
}

#[test]
fn a_nested_message_is_read_with_the_message_inside() {
    let outer = message("pyasn1-nested");
    let PkiBody::Nested(messages) = &outer.body else { panic!() };
    assert_eq!(messages[0].body, PkiBody::PkiConf);
    assert_eq!(messages[0].header.free_text.as_ref().unwrap()[0].lossy(), "ünïcode");

    // put into itself again and again it is refused at some depth
    let mut message = outer.clone();
    for _ in 0..3 {
        message = PkiMessage::assemble(outer.header.clone(), PkiBody::Nested(vec![message])).unwrap();
    }
    let error = PkiMessage::from_der(&message.to_der().unwrap()).unwrap_err();
    assert_eq!(error.to_string(), "nested messages are more than 3 deep");
}

fn single_info(name: &str) -> trustfleet_cmp::codec::InfoTypeAndValue {
    match message(name).body {
        PkiBody::Genm(infos) | PkiBody::Genp(infos) => infos.into_iter().next().unwrap(),
        other => panic!("{:?}", other.kind()),
    }
}

#[test]
fn v12_a_root_update_is_read_with_all_three_certificates() {
    let info = single_info("pyasn1-genp-root-update");
    assert_eq!(info.info_type, oids::IT_ROOT_CA_KEY_UPDATE);
    let value = info.info_value.unwrap();
    let content: RootCaKeyUpdateContent = value.decode_as().unwrap();
    assert_eq!(content.new_with_new.to_tlv().unwrap(), certificate("ca.crt").as_der());
    for other in [content.new_with_old.clone(), content.old_with_new.clone()] {
        assert_eq!(other.unwrap().to_tlv().unwrap(), certificate("dev.crt").as_der());
    }
    assert_eq!(Any::encode_from(&content).unwrap(), value);
}

#[test]
fn r9_a_request_template_with_open_values_and_keyspec_is_read() {
    let info = single_info("pyasn1-genp-request-template");
    assert_eq!(info.info_type, oids::IT_CERT_REQ_TEMPLATE);
    let value = info.info_value.unwrap();
    let content: CertReqTemplateContent = value.decode_as().unwrap();
    assert!(content.cert_template.subject.is_some() && content.cert_template.extensions.is_some());
    assert_eq!(content.key_spec.as_ref().unwrap().len(), 2);
    assert_eq!(Any::encode_from(&content).unwrap(), value);
}

#[test]
fn r9_a_crl_status_list_with_both_kinds_of_source_is_read() {
    let info = single_info("pyasn1-genm-crl-status-list");
    assert_eq!(info.info_type, oids::IT_CRL_STATUS_LIST);
    let value = info.info_value.unwrap();
    let statuses: Vec<CrlStatus> = value.decode_as().unwrap();
    assert!(matches!(statuses[0].source, CrlSource::Point(_)) && statuses[0].this_update.is_some());
    assert!(matches!(statuses[1].source, CrlSource::Issuer(_)) && statuses[1].this_update.is_none());
    assert_eq!(Any::encode_from(&statuses).unwrap(), value);
}

#[test]
fn r8_the_rr_of_another_client_names_issuer_serial_and_reason() {
    let Request::Revoke(asked) = received("rr-q1").unwrap().request else { panic!() };
    let revoked = certificate("dev.crt");
    assert_eq!((asked.issuer, asked.serial.as_slice()), (revoked.issuer(), revoked.serial_der_bytes()));
    assert_eq!(asked.reason, Some(RevocationReason::Superseded), "-revreason 4");
}
