//! Whether a root follows a trusted one (RFC 9810 section 4.4, V12).

use jiff::Timestamp;

use crate::certificate::Certificate;

/// Checks that the new root signs itself, that the old root certifies its key, and that what claims to be the old root's
/// key under the new root is that. Names stay: a root of another name is another CA.
///
/// # Errors
/// Why it does not.
pub fn follows(
    old: &Certificate,
    new_root: &Certificate,
    new_with_old: &Certificate,
    old_with_new: Option<&Certificate>,
    now: Timestamp,
) -> Result<(), String> {
    for certificate in [new_root, new_with_old] {
        if !certificate.is_ca() || certificate.key_usage().is_some_and(|usage| !usage.key_cert_sign()) {
            return Err("the new root is no CA certificate".to_owned());
        }
        // otherwise any subordinate CA of the old root could make itself a root
        if !certificate.subject().says_the_same_as(&old.subject()) {
            return Err(format!("{} is another CA than our root {}", certificate.subject(), old.subject()));
        }
    }
    for (what, certificate) in [("our root", old), ("newWithNew", new_root), ("newWithOld", new_with_old)] {
        if certificate.not_after() < now {
            return Err(format!("{what} expired at {}", certificate.not_after()));
        }
        // RFC 9810 section 4.4.2.2: what is not valid yet vouches for nothing yet
        if certificate.not_before() > now {
            return Err(format!("{what} is not valid before {}", certificate.not_before()));
        }
    }
    signed("newWithNew", new_root, new_root)?;
    signed("newWithOld", new_with_old, old)?;
    if new_with_old.public_key() != new_root.public_key() {
        return Err("newWithOld certifies another key than newWithNew".to_owned());
    }
    if let Some(old_with_new) = old_with_new {
        signed("oldWithNew", old_with_new, new_root)?;
        if old_with_new.public_key() != old.public_key() || !old_with_new.subject().says_the_same_as(&old.subject()) {
            return Err("oldWithNew certifies another key or name than our root's".to_owned());
        }
    }
    Ok(())
}

fn signed(what: &str, certificate: &Certificate, issuer: &Certificate) -> Result<(), String> {
    if !certificate.issuer().says_the_same_as(&issuer.subject()) {
        return Err(format!("{what} is issued by {}, not by {}", certificate.issuer(), issuer.subject()));
    }
    certificate.verify_signed_by(&issuer.public_key()).map_err(|error| format!("{what}: {error}"))
}
