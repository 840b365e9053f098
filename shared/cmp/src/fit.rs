//! Does the issued certificate fit what was asked for (V9, V10)?
//!
//! A certificate for another key is never taken. What else may differ is policy; every difference is named.

use der::{
    Decode,
    asn1::{Any, ObjectIdentifier},
};
use jiff::{SignedDuration, Timestamp};
use spki::SubjectPublicKeyInfoOwned;
use trustfleet_pki::{certificate::Certificate, chain, name::Name};

use crate::{
    codec::{PkiStatus, oids},
    error::Unfit,
    outcome::Warning,
    peer::{Acceptance, Modifications},
    text::shown,
};

/// A certificate whose validity begins at most this much later than our clock says counts as begun: clocks differ.
const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_mins(10);

/// What was asked for.
pub(crate) struct Asked<'a> {
    pub(crate) subject: &'a Name,
    /// DER GeneralNames, empty without any.
    pub(crate) sans: &'a [u8],
    /// DER SubjectPublicKeyInfo.
    pub(crate) public_key: &'a [u8],
}

/// All that does not fit, and what is only worth a warning.
pub(crate) fn judge(
    certificate: &Certificate,
    status: PkiStatus,
    asked: &Asked<'_>,
    acceptance: &Acceptance,
    helpers: &[Certificate],
    trusted_ca_pubs: &[Certificate],
    now: Timestamp,
) -> (Vec<Unfit>, Vec<Warning>) {
    let (mut unfit, mut warnings) = (Vec::new(), Vec::new());
    if !same_key(&certificate.spki_der(), asked.public_key) {
        unfit.push(Unfit::PublicKey);
    }
    let refuse = acceptance.modifications == Modifications::Refuse;
    if status == PkiStatus::GrantedWithMods {
        if refuse {
            unfit.push(Unfit::GrantedWithMods);
        } else {
            warnings.push(Warning::GrantedWithMods);
        }
    }
    let got = certificate.subject();
    if !got.says_the_same_as(asked.subject) && !asked.subject.is_null() {
        let (asked, got) = (asked.subject.to_string(), shown(&got));
        if refuse {
            unfit.push(Unfit::Subject { asked, got });
        } else {
            warnings.push(Warning::SubjectChanged { asked, got });
        }
    }
    let (missing, added) = names_that_differ(certificate, asked.sans);
    if missing > 0 {
        if refuse {
            unfit.push(Unfit::AlternativeNames { missing });
        } else {
            warnings.push(Warning::AlternativeNamesMissing { missing });
        }
    }
    if added > 0 {
        if refuse {
            unfit.push(Unfit::AlternativeNamesAdded { added });
        } else {
            warnings.push(Warning::AlternativeNamesAdded { added });
        }
    }
    if acceptance.modifications == Modifications::Accept {
        warnings.clear();
    }
    match chain_of(certificate, acceptance, helpers, trusted_ca_pubs, now) {
        Ok(true) => {}
        Ok(false) => warnings.push(Warning::ChainUnchecked),
        Err(detail) => unfit.push(Unfit::Chain { detail }),
    }
    (unfit, warnings)
}

/// V10: `Ok(false)` when there is nothing to check against.
fn chain_of(
    certificate: &Certificate,
    acceptance: &Acceptance,
    helpers: &[Certificate],
    trusted_ca_pubs: &[Certificate],
    now: Timestamp,
) -> Result<bool, String> {
    let anchors = [acceptance.enrolment_anchors.as_slice(), &acceptance.anchors, trusted_ca_pubs];
    let Some(anchors) = anchors.into_iter().find(|anchors| !anchors.is_empty()) else {
        return Ok(false);
    };
    let helpers = [helpers, &acceptance.untrusted].concat();
    let begin = certificate.not_before();
    let soon = begin > now && begin.duration_since(now) <= CLOCK_TOLERANCE;
    let at = if soon { begin } else { now };
    chain::verify_end_entity(certificate, &helpers, anchors, at).map(|()| true).map_err(|error| shown(&error))
}

/// The same public key; NULL parameters of an RSA key may be left out (RFC 4055 section 1.2 wants them, some CAs do not).
fn same_key(issued: &[u8], asked: &[u8]) -> bool {
    const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
    if issued == asked {
        return true;
    }
    let (Ok(held), Ok(wanted)) =
        (SubjectPublicKeyInfoOwned::from_der(issued), SubjectPublicKeyInfoOwned::from_der(asked))
    else {
        return false;
    };
    let plain = |key: &SubjectPublicKeyInfoOwned| key.algorithm.parameters.as_ref().is_none_or(Any::is_null);
    let rsa = held.algorithm.oid == RSA && wanted.algorithm.oid == RSA && plain(&held) && plain(&wanted);
    rsa && held.subject_public_key == wanted.subject_public_key
}

/// How many of the alternative names asked for are not in the certificate, and how many in it were not asked for;
/// compared as DER.
fn names_that_differ(certificate: &Certificate, asked: &[u8]) -> (usize, usize) {
    let names = |der: &[u8]| Vec::<Any>::from_der(der).unwrap_or_default();
    let extensions = certificate.parsed().tbs_certificate.extensions.as_deref().unwrap_or_default();
    let held: Vec<Any> = extensions
        .iter()
        .filter(|extension| extension.extn_id == oids::SUBJECT_ALT_NAME)
        .flat_map(|extension| names(extension.extn_value.as_bytes()))
        .collect();
    let asked = names(asked);
    let not_in = |all: &[Any], some: &[Any]| some.iter().filter(|name| !all.contains(name)).count();
    (not_in(&held, &asked), not_in(&asked, &held))
}
