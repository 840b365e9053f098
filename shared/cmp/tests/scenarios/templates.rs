//! certReqTemplate, and requests that fit it.

use super::*;
use der::{
    Encode,
    asn1::{Any, ObjectIdentifier, OctetString},
};
use trustfleet_cmp::{
    InfoRequest, Information, Question, Request as Begin, RequestTemplate, Signer as _, TemplateError, apply_template,
    codec::{CertTemplate, InfoTypeAndValue, RawSequence, info::CertReqTemplateContent, oids, request::Control},
};
use trustfleet_pki::public_key::PublicKey;
use x509_cert::ext::Extension;

const KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.15");

/// DER of a name of (type, value) pairs; an empty value is for the client to fill in.
fn subject(attributes: &[(&str, &str)]) -> RawSequence {
    let rdn = |(oid, value): &(&str, &str)| {
        let value = Any::new(der::Tag::Utf8String, value.as_bytes()).unwrap();
        let attribute = x509_cert::attr::AttributeTypeAndValue { oid: ObjectIdentifier::new_unwrap(oid), value };
        x509_cert::name::RelativeDistinguishedName(der::asn1::SetOfVec::try_from(vec![attribute]).unwrap())
    };
    let name = x509_cert::name::RdnSequence(attributes.iter().map(rdn).collect());
    RawSequence::from_tlv(&name.to_der().unwrap()).unwrap()
}

fn extension(id: ObjectIdentifier, value: &[u8]) -> Extension {
    Extension { extn_id: id, critical: false, extn_value: OctetString::new(value).unwrap() }
}

/// What a client reads of a template that a server sends.
fn template(cert_template: CertTemplate, key_spec: Option<Vec<Control>>) -> RequestTemplate {
    let value = Any::encode_from(&CertReqTemplateContent { cert_template, key_spec }).unwrap();
    let mut world = World::twisted(move |_, _, _, _, _| {
        let value = Some(value.clone());
        Answer::Info(vec![InfoTypeAndValue { info_type: oids::IT_CERT_REQ_TEMPLATE, info_value: value }])
    });
    let recipient = world.ca.certificate.subject();
    let info = InfoRequest { question: Question::CertReqTemplate, recipient, sender: None, extra_certs: vec![] };
    match world.begin(Begin::Info(Box::new(info)), mac("dev1", SECRET)).informed().information {
        Information::CertReqTemplate(Some(template)) => *template,
        other => panic!("{other:?}"),
    }
}

fn with_subject(attributes: &[(&str, &str)]) -> RequestTemplate {
    template(CertTemplate { subject: Some(subject(attributes)), ..CertTemplate::default() }, None)
}

fn with_extensions(extensions: &[Extension]) -> RequestTemplate {
    let extensions = RawSequence::from_tlv(&extensions.to_vec().to_der().unwrap()).unwrap();
    template(CertTemplate { extensions: Some(extensions), ..CertTemplate::default() }, None)
}

fn request(subject: &str) -> EnrollRequest {
    EnrollRequest { subject: name(subject), ..support::ir(&name("/CN=CA")) }
}

#[test]
fn r9_a_template_fixes_and_orders_the_subject_and_leaves_the_rest_open() {
    let template = with_subject(&[("2.5.4.6", "DE"), ("2.5.4.10", "Example"), ("2.5.4.3", "")]);
    let fitted = apply_template(request("/CN=dev1/O=Example"), &template).unwrap();
    assert_eq!(fitted.subject.to_slash(), "/C=DE/O=Example/CN=dev1");
    let refused = |subject| apply_template(request(subject), &template).unwrap_err();
    assert_eq!(refused("/O=Example"), TemplateError::SubjectLacks { attribute: "CN".to_owned() });
    let differs = TemplateError::SubjectDiffers { wanted: "O=Example".to_owned(), asked: "O=Other".to_owned() };
    assert_eq!(refused("/O=Other/CN=dev1"), differs);
    assert_eq!(refused("/CN=dev1/L=Here"), TemplateError::SubjectSurplus { attribute: "L=Here".to_owned() });
    assert!(refused("/CN=dev1/L=Here").to_string().contains("leave it out"));
}

#[test]
fn r9_a_template_adds_extensions_and_asks_for_those_it_leaves_open() {
    let usage = extension(KEY_USAGE, &[3, 2, 7, 0x80]);
    let fitted = apply_template(request("/CN=dev1"), &with_extensions(std::slice::from_ref(&usage))).unwrap();
    assert_eq!(fitted.extensions, [usage]);
    let mut world = World::new();
    let (_, message) = world.start(fitted, mac("dev1", SECRET)).unwrap();
    let Request::Certificate(asked) = world.read(&message).request else { panic!() };
    let ids: Vec<_> = asked.extensions.iter().map(|extension| extension.extn_id).collect();
    assert_eq!(ids, [oids::SUBJECT_ALT_NAME, KEY_USAGE], "the next request has both");

    let open = with_extensions(&[extension(KEY_USAGE, b"")]);
    let id = KEY_USAGE.to_string();
    let error = apply_template(request("/CN=dev1"), &open).unwrap_err();
    assert_eq!(error, TemplateError::ExtensionLacks { id: id.clone() });
    let other = EnrollRequest { extensions: vec![extension(KEY_USAGE, &[3, 2, 5, 0x20])], ..request("/CN=dev1") };
    assert!(apply_template(other.clone(), &open).is_ok());
    let fixed = with_extensions(&[extension(KEY_USAGE, &[3, 2, 7, 0x80])]);
    assert_eq!(apply_template(other, &fixed).unwrap_err(), TemplateError::ExtensionDiffers { id });

    let names = with_extensions(&[extension(oids::SUBJECT_ALT_NAME, b"")]);
    assert!(apply_template(request("/CN=dev1"), &names).is_ok());
    let nameless = EnrollRequest { sans: vec![], ..request("/CN=dev1") };
    assert_eq!(apply_template(nameless, &names).unwrap_err(), TemplateError::NamesLacking);
}

#[test]
fn r9_a_template_names_the_keys_that_are_certified() {
    let algorithm = |oid, parameters: Option<Any>| Control {
        id: oids::REG_CTRL_ALG_ID,
        value: Any::encode_from(&spki::AlgorithmIdentifierOwned { oid, parameters }).unwrap(),
    };
    let p256 = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
    let ec = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
    let bits = Control { id: oids::REG_CTRL_RSA_KEY_LEN, value: Any::encode_from(&3072_u32).unwrap() };
    let any_curve = template(CertTemplate::default(), Some(vec![algorithm(ec, None)]));
    let template =
        template(CertTemplate::default(), Some(vec![algorithm(ec, Some(Any::encode_from(&p256).unwrap())), bits]));
    let of = |key_type| PublicKey::from_spki_der(key(key_type).public_key_der()).unwrap();
    assert_eq!(template.permits_key(&of(KeyType::P256)), Ok(()));
    assert_eq!(template.permits_key(&of(KeyType::Rsa3072)), Ok(()));
    assert!(template.permits_key(&of(KeyType::P384)).is_err(), "another curve");
    assert_eq!(any_curve.permits_key(&of(KeyType::P384)), Ok(()));
    let error = template.permits_key(&of(KeyType::Rsa2048)).unwrap_err();
    assert!(error.to_string().contains("does not certify RSA 2048 keys: use 1.2.840.10045.2.1"), "{error}");
    assert!(error.to_string().ends_with("or RSA 3072"), "{error}");
    assert_eq!(with_subject(&[]).permits_key(&of(KeyType::Rsa2048)), Ok(()));
}

#[test]
fn r9_a_template_with_a_field_that_is_not_sent_is_refused_by_its_name() {
    let serial = Some(der::asn1::Int::new(&[1]).unwrap());
    let template = template(CertTemplate { serial_number: serial, ..CertTemplate::default() }, None);
    let error = apply_template(request("/CN=dev1"), &template).unwrap_err();
    assert_eq!(error, TemplateError::Field { field: "serialNumber" });
}

#[test]
fn r9_the_template_of_another_implementation_is_respected() {
    let theirs = PkiMessage::from_der(include_bytes!("../vectors/pyasn1-genp-request-template.der")).unwrap();
    let trustfleet_cmp::codec::PkiBody::Genp(infos) = theirs.body else { panic!() };
    let content: CertReqTemplateContent = infos[0].info_value.as_ref().unwrap().decode_as().unwrap();
    let template = template(content.cert_template, content.key_spec);
    let fitted = apply_template(request("/CN=dev1"), &template).unwrap();
    assert_eq!(fitted.subject.to_slash(), "/O=Example/CN=dev1");
    assert_eq!((fitted.extensions[0].extn_id, fitted.extensions[0].critical), (KEY_USAGE, true));
    let of = |key_type| PublicKey::from_spki_der(key(key_type).public_key_der()).unwrap();
    assert_eq!(template.permits_key(&of(KeyType::Rsa3072)), Ok(()));
    assert!(template.permits_key(&of(KeyType::P256)).unwrap_err().to_string().contains("1.3.101.112"));
}
