//! What the lab CA signs besides end entities' certificates: its CRL, and the root that follows its root.

use der::{Encode, asn1::BitString};
use jiff::{SignedDuration, Timestamp};
use trustfleet_cmp::key::{KeyType, Signer, SoftwareKey};
use trustfleet_pki::Certificate;
use x509_cert::{
    Version,
    crl::{CertificateList, RevokedCert, TbsCertList},
    serial_number::SerialNumber,
};

use super::{
    issue::{Authority, IssueError, root_certificate, time},
    ledger::Issued,
};

/// How long a CRL counts.
const CRL_LIFETIME: SignedDuration = SignedDuration::from_hours(24);

/// The root that follows, with the certificates that tie both together (RFC 9810 section 4.4).
#[derive(Debug)]
pub(super) struct NextRoot {
    pub(super) root: Certificate,
    pub(super) new_with_old: Certificate,
    pub(super) old_with_new: Certificate,
}

impl NextRoot {
    /// A new key under the same name.
    pub(super) fn after(
        root: &Certificate,
        key: &SoftwareKey,
        key_type: KeyType,
        now: Timestamp,
    ) -> Result<Self, IssueError> {
        let name = root.subject();
        let new = SoftwareKey::generate(key_type)?;
        Ok(Self {
            root: root_certificate(&name, new.public_key_der(), &new, now)?,
            new_with_old: root_certificate(&name, new.public_key_der(), key, now)?,
            old_with_new: root_certificate(&name, key.public_key_der(), &new, now)?,
        })
    }
}

impl Authority {
    /// The CRL with all that is revoked, as DER.
    pub(super) fn crl(&self, issued: &[Issued], now: Timestamp) -> Result<Vec<u8>, IssueError> {
        let mut revoked = Vec::new();
        for known in issued.iter().filter(|known| known.revoked) {
            let reason = known.reason.map(trustfleet_cmp::RevocationReason::extension).transpose()?;
            revoked.push(RevokedCert {
                serial_number: SerialNumber::new(known.certificate.serial_der_bytes())?,
                revocation_date: time(known.revoked_at.unwrap_or(known.time))?,
                crl_entry_extensions: reason.map(|reason| vec![reason]),
            });
        }
        let key = self.issuing_key();
        let body = TbsCertList {
            version: Version::V2,
            signature: key.algorithm(),
            issuer: self.issuing.subject().to_x509()?,
            this_update: time(now)?,
            next_update: Some(time(now.checked_add(CRL_LIFETIME).map_err(|_| IssueError::Time)?)?),
            revoked_certificates: (!revoked.is_empty()).then_some(revoked),
            crl_extensions: None,
        };
        let signature = BitString::from_bytes(&key.sign(&body.to_der()?)?)?;
        let list = CertificateList { signature_algorithm: body.signature.clone(), tbs_cert_list: body, signature };
        Ok(list.to_der()?)
    }
}
