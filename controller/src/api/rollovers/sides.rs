//! The two sides of a roll-over, as changes of a CA server. Pure.

use trustfleet_model::ca_server::CaServerSpec;
use trustfleet_model::field::Violations;
use trustfleet_model::rollover::Issuer;
use trustfleet_pki::Certificate;

/// The CA server with further anchors.
pub(super) fn with_anchors(spec: &CaServerSpec, more: &[String]) -> CaServerSpec {
    let mut both = spec.clone();
    both.trust_anchors.extend(without(more, &spec.trust_anchors));
    both
}

/// The CA server with another issuing side.
pub(super) fn switched(spec: &CaServerSpec, issuer: &Issuer) -> CaServerSpec {
    let mut next = spec.clone();
    if let Some(name) = &issuer.ca_name {
        next.ca_name.clone_from(name);
    }
    if let Some(url) = &issuer.primary_url {
        next.primary_url.clone_from(url);
        // That of another server does not stand in for this one.
        next.secondary_url = None;
    }
    if issuer.secondary_url.is_some() {
        next.secondary_url.clone_from(&issuer.secondary_url);
    }
    if let Some(certificates) = &issuer.verification_certificates {
        next.verification_certificates.clone_from(certificates);
    }
    next
}

/// What a switch changes.
pub(super) fn issuing_side(spec: &CaServerSpec) -> Issuer {
    Issuer {
        ca_name: Some(spec.ca_name.clone()),
        primary_url: Some(spec.primary_url.clone()),
        secondary_url: spec.secondary_url.clone(),
        verification_certificates: Some(spec.verification_certificates.clone()),
    }
}

/// The same certificates in one spelling, each once; those that are none are noted below `field`.
pub(super) fn normalised(field: &str, pems: &[String], violations: &mut Violations) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for (i, pem) in pems.iter().enumerate() {
        let read = violations.check(&format!("{field}[{i}]"), "S10", Certificate::from_pem(pem));
        let read = read.map(|anchor| anchor.to_pem()).filter(|pem| !all.contains(pem));
        all.extend(read);
    }
    all
}

/// Those of `pems` that are none of `others`, however they are spelled.
pub(super) fn without(pems: &[String], others: &[String]) -> Vec<String> {
    let others = ders(others);
    pems.iter().filter(|pem| der(pem).is_none_or(|anchor| !others.contains(&anchor))).cloned().collect()
}

/// Those that can be read, as DER.
pub(super) fn ders(pems: &[String]) -> Vec<Vec<u8>> {
    pems.iter().filter_map(|pem| der(pem)).collect()
}

/// As DER, where it can be read.
pub(super) fn der(pem: &str) -> Option<Vec<u8>> {
    Some(Certificate::from_pem(pem).ok()?.as_der().to_vec())
}

/// SHA-256 of each, as the audit log has them.
pub(super) fn fingerprints(pems: &[String]) -> Vec<String> {
    let read = pems.iter().filter_map(|pem| Certificate::from_pem(pem).ok());
    read.map(|anchor| hex::encode(anchor.sha256_fingerprint())).collect()
}
