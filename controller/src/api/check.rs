//! Rules that need ASN.1: names, alternative names, certificates. Lengths and counts are the model's own.
//!
//! Texts with placeholders are checked by filling them with sample devices: what no device could make valid is refused
//! when it is configured, not when the thousandth device enrols.

use std::collections::BTreeMap;

use trustfleet_model::ca_server::CaServerSpec;
use trustfleet_model::device::{Device, Labels, Word};
use trustfleet_model::entity::{EntitySpec, SanSpec, fill};
use trustfleet_model::field::{ObjectName, Violations};
use trustfleet_model::ids::{DeviceId, TenantId};
use trustfleet_model::policy::PolicySpec;
use trustfleet_pki::certificate::Certificate;
use trustfleet_pki::name::Name;
use trustfleet_pki::public_key::KeyKind;
use trustfleet_pki::san::San;
use uuid::Uuid;

/// What a label may hold that makes a text valid: a plain word, addresses, a country.
const SAMPLES: [&str; 4] = ["sample", "192.0.2.1", "2001:db8::1", "DE"];
/// Smallest RSA key that is not weak, bits (S25).
const RSA_BITS_MIN: usize = 2048;
/// Signature algorithms with MD5 or SHA-1 (S26).
const WEAK_SIGNATURES: [&str; 5] =
    ["1.2.840.113549.1.1.4", "1.2.840.113549.1.1.5", "1.2.840.10045.4.1", "1.2.840.10040.4.3", "1.3.14.3.2.29"];

/// Checks an entity in full (S2, S18, S21, S22).
pub fn entity(spec: &EntitySpec, violations: &mut Violations) {
    let mut shape = Violations::new();
    spec.check(&mut shape);
    let wrong = |field: &str| shape.as_slice().iter().any(|v| v.field == field);
    let mut names = Violations::new();
    if !wrong("subject") {
        let subject = EntitySpec { subject: spec.subject.clone(), sans: Vec::new() };
        let read = any_sample(&spec.subject, |device| {
            let resolved = subject.resolve(device).map_err(|error| first_message(&error))?;
            Name::parse(&resolved.subject).map(drop).map_err(|error| error.to_string())
        });
        names.check("subject", "S18", read);
    }
    for (i, san) in spec.sans.iter().enumerate() {
        let field = format!("sans[{i}].value");
        if !wrong(&field) {
            names.check(&field, "S22", check_san(san));
        }
    }
    for violation in shape.into_vec().into_iter().chain(names.into_vec()) {
        violations.add(violation.field, violation.rule, violation.message);
    }
}

/// Checks a policy in full (S1 to S26): what no device could make a name of is refused when it is configured.
pub fn policy(spec: &PolicySpec, allow_weak: bool, violations: &mut Violations) {
    spec.check(allow_weak, violations);
    for (field, rule, text) in [("sender", "S19", &spec.sender), ("recipient", "S20", &spec.recipient)] {
        let Some(text) = text else { continue };
        if violations.as_slice().iter().any(|violation| violation.field == field) {
            continue;
        }
        let read = any_sample(text, |device| {
            let filled = fill(text, device).map_err(|error| error.to_string())?;
            Name::parse(&filled).map(drop).map_err(|error| error.to_string())
        });
        violations.check(field, rule, read);
    }
}

fn check_san(san: &SanSpec) -> Result<(), String> {
    let entity = EntitySpec { subject: "CN=x".to_owned(), sans: vec![san.clone()] };
    any_sample(&san.value, |device| {
        let resolved = entity.resolve(device).map_err(|error| first_message(&error))?;
        let value = resolved.sans.first().map_or("", |san| san.value.as_str());
        San::parse(san.kind.as_str(), value).map(drop).map_err(|error| error.to_string())
    })
}

/// The first complaint, unless some sample device makes the text valid.
fn any_sample(text: &str, check: impl Fn(&Device) -> Result<(), String>) -> Result<(), String> {
    let mut first = Ok(());
    for sample in SAMPLES {
        let result = sample_device(text, sample).and_then(|device| check(&device));
        match result {
            Ok(()) => return Ok(()),
            Err(error) if first.is_ok() => first = Err(error),
            Err(_) => {}
        }
        if !text.contains('{') {
            break;
        }
    }
    first
}

/// A device with every label that the text names.
fn sample_device(text: &str, value: &str) -> Result<Device, String> {
    let mut labels = BTreeMap::<String, String>::new();
    for part in text.split("{label.").skip(1) {
        let name = part.split('}').next().unwrap_or_default();
        Word::try_from(name.to_owned()).map_err(|error| format!("names a label that cannot be: {error}"))?;
        labels.insert(name.to_owned(), value.to_owned());
    }
    let word = |text: &str| Word::try_from(text.to_owned()).ok();
    let labels = Labels::parse(&labels, &mut Violations::new());
    let name: Result<ObjectName, _> = "sample".parse();
    Ok(Device {
        tenant_id: TenantId::from(Uuid::nil()),
        id: DeviceId::from(Uuid::nil()),
        name: name.map_err(|error| error.to_string())?,
        agent_id: None,
        serial: word("SAMPLE-1"),
        mac: word("00:00:5e:00:53:01"),
        labels,
        pair: None,
        standby: false,
    })
}

fn first_message(violations: &Violations) -> String {
    violations.as_slice().first().map_or_else(|| "cannot be filled".to_owned(), |v| v.message.clone())
}

/// Checks a CA server in full (S5, S6, S10, S16, S25, S26).
pub fn ca_server(spec: &CaServerSpec, allow_weak: bool, violations: &mut Violations) {
    if spec.quirks.answers_by_sha1 && !allow_weak {
        let message = "would accept HMAC-SHA1: the tenant must allow weak algorithms first";
        violations.add("quirks.answers_by_sha1", "S8", message);
    }
    spec.check(violations);
    let urls = [("primary_url", "S6", Some(&spec.primary_url)), ("secondary_url", "S16", spec.secondary_url.as_ref())];
    for (field, rule, url) in urls {
        if url.is_some_and(|url| url.contains(|c: char| c.is_control() || c.is_whitespace())) {
            violations.add(field, rule, "contains white space or a control character; write it as %20 and the like");
        }
    }
    let mut certificates = Vec::new();
    for (list, rule, texts) in [
        ("trust_anchors", "S10", &spec.trust_anchors),
        ("verification_certificates", "S9", &spec.verification_certificates),
    ] {
        for (i, text) in texts.iter().enumerate() {
            let field = format!("{list}[{i}]");
            let Some(certificate) = violations.check(&field, rule, Certificate::from_pem(text)) else { continue };
            if list == "trust_anchors" && !certificate.is_ca() && !certificate.is_self_issued() {
                violations.add(&field, rule, "is not a certificate of a CA (no basicConstraints CA:TRUE)");
            }
            if !allow_weak {
                weak(&certificate, &field, violations);
            }
            certificates.push(certificate);
        }
    }
    if violations.as_slice().iter().any(|v| v.field == "ca_name") {
        return;
    }
    if let Some(name) = violations.check("ca_name", "S5", Name::parse(&spec.ca_name)) {
        order(&name, &certificates, violations);
    }
}

fn weak(certificate: &Certificate, field: &str, violations: &mut Violations) {
    if WEAK_SIGNATURES.contains(&certificate.signature_algorithm().oid.to_string().as_str()) {
        violations.add(field, "S26", "is signed with MD5 or SHA-1: the tenant must allow weak algorithms first");
    }
    if let KeyKind::Rsa { bits } | KeyKind::RsaPss { bits } = certificate.public_key().algorithm()
        && bits < RSA_BITS_MIN
    {
        let message = format!(
            "has an RSA key of {bits} bits, less than {RSA_BITS_MIN}: the tenant must allow weak algorithms first"
        );
        violations.add(field, "S25", message);
    }
}

/// The CA's name as written must have the order of its certificate (S5): a reversed one is the usual mistake.
fn order(name: &Name, certificates: &[Certificate], violations: &mut Violations) {
    let subjects: Vec<Name> = certificates.iter().map(Certificate::subject).collect();
    if subjects.contains(name) {
        return;
    }
    let parts = |name: &Name| {
        let text = name.to_slash();
        let mut parts: Vec<String> = text.split('/').map(str::to_owned).collect();
        parts.sort();
        parts
    };
    if let Some(subject) = subjects.iter().find(|subject| parts(subject) == parts(name)) {
        let right = subject.to_slash();
        violations.add("ca_name", "S5", format!("has another order than the CA's certificate; write it as {right}"));
    }
}

#[cfg(test)]
mod tests {
    use trustfleet_model::entity::SanKind;

    use super::*;

    fn found(subject: &str, sans: &[(SanKind, &str)]) -> Vec<(String, String)> {
        let sans = sans.iter().map(|(kind, value)| SanSpec { kind: *kind, value: (*value).to_owned() }).collect();
        let mut violations = Violations::new();
        entity(&EntitySpec { subject: subject.to_owned(), sans }, &mut violations);
        violations.into_vec().into_iter().map(|v| (v.field, v.rule)).collect()
    }

    #[test]
    fn s18_s22_every_bad_name_of_an_entity_is_told_at_once() {
        let sans = [(SanKind::Ip, "300.1.1.1"), (SanKind::Dns, "ok.example"), (SanKind::Email, "nobody")];
        let found = found("no dn at all", &sans);
        let expected = [("subject", "S18"), ("sans[0].value", "S22"), ("sans[2].value", "S22")];
        assert_eq!(found, expected.map(|(field, rule)| (field.to_owned(), rule.to_owned())));
    }

    #[test]
    fn s2_placeholders_are_judged_by_what_a_device_could_make_of_them() {
        let sans = [(SanKind::Ip, "{label.address}"), (SanKind::Dns, "{device.name}.{label.site}.example")];
        assert_eq!(found("/C={label.country}/O=X/CN={device.name}/serialNumber={device.serial}", &sans), []);
        assert_eq!(found("CN={label.a b}", &[]), [("subject".to_owned(), "S18".to_owned())]);
        assert_eq!(found("nonsense {device.name}", &[]).len(), 1);
    }

    #[test]
    fn s19_s20_a_sender_or_recipient_that_no_device_could_make_a_name_of_is_refused_when_it_is_configured() {
        let found = |sender: &str, recipient: &str| {
            let text = r#"{"key":{"algorithm":"ed25519"}}"#;
            let spec: PolicySpec = serde_json::from_str(text).unwrap();
            let names = (Some(sender.to_owned()), Some(recipient.to_owned()));
            let mut violations = Violations::new();
            policy(&PolicySpec { sender: names.0, recipient: names.1, ..spec }, false, &mut violations);
            violations.into_vec().into_iter().map(|v| format!("{} {}", v.field, v.rule)).collect::<Vec<_>>()
        };
        assert!(found("CN={device.name}", "/C={label.country}/O=X/CN=RA").is_empty());
        assert_eq!(found("no dn", "CN="), ["sender S19", "recipient S20"]);
        assert_eq!(found("CN={device.colour}", "CN=RA"), ["sender placeholder"]);
    }

    #[test]
    fn s10_an_anchor_must_be_a_certificate() {
        let spec = CaServerSpec {
            ca_name: "/O=X/CN=CA".to_owned(),
            primary_url: "ftp://ca.example".to_owned(),
            secondary_url: None,
            trust_anchors: vec!["no pem".to_owned()],
            verification_certificates: Vec::new(),
            quirks: trustfleet_model::ca_server::Quirks::default(),
            revocation: trustfleet_model::revocation::RevocationRoute::default(),
        };
        let mut violations = Violations::new();
        ca_server(&spec, false, &mut violations);
        let fields: Vec<_> = violations.as_slice().iter().map(|v| v.field.as_str()).collect();
        assert_eq!(fields, ["primary_url", "trust_anchors[0]"]);
    }
}
