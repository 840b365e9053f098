//! Path validation: does a certificate lead to a trust anchor at a given moment?
//!
//! Paths of end entities are built and checked by rustls-webpki. Three things that it leaves out are added: an issuer
//! with a keyUsage must have keyCertSign, an anchor must be within its own validity, and an anchor that says that it is
//! no CA issues nothing. Revocation is not looked at
//! here. What it must never do: take a helper certificate for an anchor (rule X3).

use std::time::Duration;

use jiff::Timestamp;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeIdIter, VerifiedPath, anchor_from_trusted_cert};

use crate::{certificate::Certificate, name::Name, path_algorithms::ALGORITHMS, signature::SignatureError};

/// Longest path of CAs above a CA certificate that signs messages itself.
const MAX_CA_DEPTH: usize = 6;

/// Most signatures checked on that walk: crossed certificates would otherwise multiply.
const MAX_CA_SIGNATURES: usize = 100;

/// Most helper certificates that are looked at.
const MAX_HELPERS: usize = 64;

/// Verifies that `cert`, an end-entity certificate, leads to one of `anchors` at `at`, over any of `helpers`.
///
/// Any extended key usage is accepted. Anchors may be roots or issuing CAs. A certificate that is itself an anchor
/// only has to be within its validity; an end entity's among the anchors counts for itself alone.
///
/// # Errors
/// [`ChainError`] says what is missing; an anchor that has expired counts as none.
pub fn verify_end_entity(
    cert: &Certificate,
    helpers: &[Certificate],
    anchors: &[Certificate],
    at: Timestamp,
) -> Result<(), ChainError> {
    check_validity(cert, at)?;
    let usable = usable_anchors(anchors, at)?;
    if usable.contains(&cert) {
        return Ok(());
    }
    let issuers = usable.iter().filter(|anchor| anchor_may_issue(anchor));
    let ders: Vec<CertificateDer<'_>> = issuers.map(|anchor| CertificateDer::from(anchor.as_der())).collect();
    let roots = ders
        .iter()
        .map(|der| anchor_from_trusted_cert(der).map_err(|reason| ChainError::Anchor { reason: reason.to_string() }))
        .collect::<Result<Vec<TrustAnchor<'_>>, _>>()?;
    let between: Vec<CertificateDer<'_>> =
        helpers.iter().take(MAX_HELPERS).map(|helper| CertificateDer::from(helper.as_der())).collect();
    let leaf = CertificateDer::from(cert.as_der());
    let end_entity = EndEntityCert::try_from(&leaf).map_err(|error| failure(&error, cert))?;
    let seconds = u64::try_from(at.as_second()).unwrap_or(0);
    end_entity
        .verify_for_usage(
            &ALGORITHMS,
            &roots,
            &between,
            UnixTime::since_unix_epoch(Duration::from_secs(seconds)),
            AnyUsage,
            None,
            Some(&issuers_may_sign),
        )
        .map(|_path| ())
        .map_err(|error| failure(&error, cert))
}

/// As [`verify_end_entity`], but a CA certificate is accepted as well: CAs sign CMP messages with their own key.
///
/// A CA certificate must be an anchor, or lead to one over CAs that may sign certificates, are within their validity
/// and keep their path lengths. rustls-webpki refuses a CA as the end of a path, so this walk is made here; it is
/// narrower: name constraints and critical extensions that it does not know are refused.
///
/// # Errors
/// As [`verify_end_entity`].
pub fn verify_signer(
    cert: &Certificate,
    helpers: &[Certificate],
    anchors: &[Certificate],
    at: Timestamp,
) -> Result<(), ChainError> {
    if !cert.is_ca() {
        return verify_end_entity(cert, helpers, anchors, at);
    }
    let anchors = &usable_anchors(anchors, at)?;
    let helpers = &helpers[..helpers.len().min(MAX_HELPERS)];
    Walk { helpers, anchors, at, signatures: 0 }.up_from(cert, 0)
}

/// Why a certificate is not trusted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChainError {
    /// There is nothing to trust.
    #[error("no trust anchor is configured")]
    NoAnchor,
    /// All anchors are outside their validity.
    #[error("every trust anchor is outside its validity at {at}: import the current ones")]
    AnchorsOutsideValidity {
        /// The moment of the validation.
        at: Timestamp,
    },
    /// An anchor that cannot be used.
    #[error("a trust anchor cannot be used: {reason}")]
    Anchor {
        /// What is wrong with it.
        reason: String,
    },
    /// No path: an issuer is missing, or the anchors are another CA's.
    #[error(
        "no path from {subject} (issued by {issuer}) to a trust anchor: check the anchors and the chain sent along"
    )]
    UnknownIssuer {
        /// The certificate's subject.
        subject: Name,
        /// Its issuer.
        issuer: Name,
    },
    /// Too late.
    #[error("certificate of {subject} expired at {not_after}, and it is {at}")]
    Expired {
        /// The certificate's subject.
        subject: Name,
        /// The end of its validity.
        not_after: Timestamp,
        /// The moment of the validation.
        at: Timestamp,
    },
    /// Too early, or a clock that is wrong.
    #[error("certificate of {subject} is valid from {not_before}, and it is {at}: check the clock")]
    NotYetValid {
        /// The certificate's subject.
        subject: Name,
        /// The begin of its validity.
        not_before: Timestamp,
        /// The moment of the validation.
        at: Timestamp,
    },
    /// A CA certificate where an end entity's is wanted.
    #[error("certificate of {subject} is a CA certificate, an end entity's is wanted")]
    CaAsEndEntity {
        /// The certificate's subject.
        subject: Name,
    },
    /// A signature in the path.
    #[error("a signature in the path of {subject} is not accepted: {reason}")]
    Signature {
        /// The certificate's subject.
        subject: Name,
        /// What is wrong with it.
        reason: String,
    },
    /// A rule of path validation (RFC 5280 section 6).
    #[error("path of {subject} is refused: {reason}")]
    Rule {
        /// The certificate's subject.
        subject: Name,
        /// The rule.
        reason: String,
    },
}

struct AnyUsage;

impl ExtendedKeyUsageValidator for AnyUsage {
    fn validate(&self, _usages: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        Ok(())
    }
}

fn usable_anchors(anchors: &[Certificate], at: Timestamp) -> Result<Vec<&Certificate>, ChainError> {
    if anchors.is_empty() {
        return Err(ChainError::NoAnchor);
    }
    let usable: Vec<&Certificate> = anchors.iter().filter(|anchor| anchor.is_valid_at(at)).collect();
    if usable.is_empty() { Err(ChainError::AnchorsOutsideValidity { at }) } else { Ok(usable) }
}

fn check_validity(cert: &Certificate, at: Timestamp) -> Result<(), ChainError> {
    if at < cert.not_before() {
        return Err(ChainError::NotYetValid { subject: cert.subject(), not_before: cert.not_before(), at });
    }
    if at > cert.not_after() {
        return Err(ChainError::Expired { subject: cert.subject(), not_after: cert.not_after(), at });
    }
    Ok(())
}

fn issuers_may_sign(path: &VerifiedPath<'_>) -> Result<(), webpki::Error> {
    for issuer in path.intermediate_certificates() {
        let issuer = Certificate::from_der(&issuer.der()).map_err(|_| webpki::Error::BadDer)?;
        if !may_sign_certificates(&issuer) {
            return Err(webpki::Error::EndEntityUsedAsCa);
        }
    }
    Ok(())
}

/// Old roots have no basicConstraints; whoever says that it is no CA, or may not sign certificates, is none.
fn anchor_may_issue(anchor: &Certificate) -> bool {
    const BASIC_CONSTRAINTS: &str = "2.5.29.19";
    let extensions = anchor.parsed().tbs_certificate.extensions.as_deref().unwrap_or_default();
    let silent = !extensions.iter().any(|extension| extension.extn_id.to_string() == BASIC_CONSTRAINTS);
    (anchor.is_ca() || silent) && anchor.key_usage().is_none_or(|usage| usage.key_cert_sign())
}

fn may_sign_certificates(cert: &Certificate) -> bool {
    cert.is_ca() && cert.key_usage().is_none_or(|usage| usage.key_cert_sign())
}

/// The walk from a CA certificate up to an anchor.
struct Walk<'a> {
    helpers: &'a [Certificate],
    anchors: &'a [&'a Certificate],
    at: Timestamp,
    signatures: usize,
}

impl Walk<'_> {
    /// `below`: how many CAs of the path are already below `cert`.
    fn up_from(&mut self, cert: &Certificate, below: usize) -> Result<(), ChainError> {
        check_validity(cert, self.at)?;
        if self.anchors.contains(&cert) {
            return Ok(());
        }
        check_ca_extensions(cert)?;
        let mut reason = ChainError::UnknownIssuer { subject: cert.subject(), issuer: cert.issuer() };
        if below >= MAX_CA_DEPTH || cert.is_self_issued() {
            return Err(reason);
        }
        let candidates = self.anchors.iter().copied().chain(self.helpers);
        for issuer in candidates.filter(|issuer| issuer.subject() == cert.issuer()) {
            let limit = issuer.path_len_constraint().map(usize::from);
            if !may_sign_certificates(issuer) || limit.is_some_and(|limit| below >= limit) {
                reason = rule(cert, format!("{} may not issue this CA", issuer.subject()));
                continue;
            }
            self.signatures += 1;
            if self.signatures > MAX_CA_SIGNATURES {
                return Err(rule(cert, "too many candidates for its issuers".to_owned()));
            }
            match cert.verify_signed_by(&issuer.public_key()) {
                Err(error) => reason = signature(cert, &error),
                Ok(()) => match self.up_from(issuer, below + 1) {
                    Ok(()) => return Ok(()),
                    Err(error) => reason = error,
                },
            }
        }
        Err(reason)
    }
}

/// The critical extensions that the walk over CAs understands: keyUsage, basicConstraints, extKeyUsage, subjectAltName
/// and certificatePolicies (which restrict nothing as long as no policy is asked for).
fn check_ca_extensions(cert: &Certificate) -> Result<(), ChainError> {
    const KNOWN: [&str; 5] = ["2.5.29.15", "2.5.29.19", "2.5.29.37", "2.5.29.17", "2.5.29.32"];
    const NAME_CONSTRAINTS: &str = "2.5.29.30";
    for extension in cert.parsed().tbs_certificate.extensions.as_deref().unwrap_or_default() {
        let id = extension.extn_id.to_string();
        if id == NAME_CONSTRAINTS || (extension.critical && !KNOWN.contains(&id.as_str())) {
            return Err(rule(cert, format!("extension {id} of a CA that signs messages is not understood")));
        }
    }
    Ok(())
}

fn rule(cert: &Certificate, reason: String) -> ChainError {
    ChainError::Rule { subject: cert.subject(), reason }
}

fn signature(cert: &Certificate, error: &SignatureError) -> ChainError {
    ChainError::Signature { subject: cert.subject(), reason: error.to_string() }
}

fn failure(error: &webpki::Error, cert: &Certificate) -> ChainError {
    use webpki::Error as E;
    let subject = cert.subject();
    match error {
        E::UnknownIssuer => ChainError::UnknownIssuer { subject, issuer: cert.issuer() },
        E::CaUsedAsEndEntity => ChainError::CaAsEndEntity { subject },
        E::CertExpired { not_after, time } => match (moment(*not_after), moment(*time)) {
            // its own validity was checked before: this is a CA of the path
            (Some(not_after), Some(at)) => ChainError::Rule {
                subject,
                reason: format!("a CA certificate in it expired at {not_after}, and it is {at}"),
            },
            _ => ChainError::Rule { subject, reason: error.to_string() },
        },
        E::InvalidSignatureForPublicKey
        | E::SignatureAlgorithmMismatch
        | E::UnsupportedSignatureAlgorithmContext(_)
        | E::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => ChainError::Signature {
            subject,
            reason: match error {
                E::InvalidSignatureForPublicKey => "it does not verify".to_owned(),
                E::SignatureAlgorithmMismatch => "the algorithms inside and outside differ".to_owned(),
                _ => "its algorithm is unknown or too weak".to_owned(),
            },
        },
        other => ChainError::Rule { subject, reason: other.to_string() },
    }
}

fn moment(time: UnixTime) -> Option<Timestamp> {
    Timestamp::from_second(i64::try_from(time.as_secs()).ok()?).ok()
}
