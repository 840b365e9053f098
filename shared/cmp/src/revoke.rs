//! Asking for a revocation: rr (R8, RFC 9483 section 4.2).
//!
//! Always one certificate, always signed (P9): by the certificate itself, or for another's by whoever the CA lets do
//! that, an RA for a device that is lost (RFC 9483 section 5.3.2).

use der::{
    Encode, Enumerated,
    asn1::{Int, OctetString},
};
use serde::{Deserialize, Serialize};
use trustfleet_pki::{certificate::Certificate, name::Name};
use x509_cert::ext::Extension;

use crate::codec::{CertTemplate, PkiBody, RawSequence, oids, request::RevDetails};

/// Why a certificate is revoked (CRLReason, RFC 5280 section 5.3.1; number 7 is not used).
#[derive(Clone, Copy, Debug, Default, Deserialize, Enumerated, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[repr(u8)]
pub enum RevocationReason {
    /// No reason is given.
    #[default]
    Unspecified = 0,
    /// The private key may be known to others.
    KeyCompromise = 1,
    /// The CA's private key may be known to others.
    #[serde(rename = "cACompromise")]
    CaCompromise = 2,
    /// The subject's name or other data changed.
    AffiliationChanged = 3,
    /// Replaced by another certificate.
    Superseded = 4,
    /// Not needed any more.
    CessationOfOperation = 5,
    /// Suspended; can be released.
    CertificateHold = 6,
    /// Released from a suspension.
    #[serde(rename = "removeFromCRL")]
    RemoveFromCrl = 8,
    /// A right in the certificate was withdrawn.
    PrivilegeWithdrawn = 9,
    /// The attribute authority's private key may be known to others.
    #[serde(rename = "aACompromise")]
    AaCompromise = 10,
}

impl RevocationReason {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 10] = [
        Self::Unspecified,
        Self::KeyCompromise,
        Self::CaCompromise,
        Self::AffiliationChanged,
        Self::Superseded,
        Self::CessationOfOperation,
        Self::CertificateHold,
        Self::RemoveFromCrl,
        Self::PrivilegeWithdrawn,
        Self::AaCompromise,
    ];

    /// The name of the RFC.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::KeyCompromise => "keyCompromise",
            Self::CaCompromise => "cACompromise",
            Self::AffiliationChanged => "affiliationChanged",
            Self::Superseded => "superseded",
            Self::CessationOfOperation => "cessationOfOperation",
            Self::CertificateHold => "certificateHold",
            Self::RemoveFromCrl => "removeFromCRL",
            Self::PrivilegeWithdrawn => "privilegeWithdrawn",
            Self::AaCompromise => "aACompromise",
        }
    }

    /// By its name or number.
    pub fn parse(text: &str) -> Option<Self> {
        let is = |reason: &Self| reason.name().eq_ignore_ascii_case(text) || (*reason as u8).to_string() == text;
        Self::ALL.into_iter().find(is)
    }

    /// The CRL entry extension reasonCode.
    ///
    /// # Errors
    /// Never in practice: one small value is encoded.
    pub fn extension(self) -> der::Result<Extension> {
        Ok(Extension { extn_id: oids::CRL_REASON, critical: false, extn_value: OctetString::new(self.to_der()?)? })
    }
}

/// A request to revoke one certificate.
#[derive(Clone, Debug)]
pub struct RevokeRequest {
    /// Issuer of the certificate, byte for byte.
    pub issuer: Name,
    /// Content octets of its serial number's INTEGER.
    pub serial: Vec<u8>,
    /// Why.
    pub reason: RevocationReason,
    /// The CA or RA as it is known (H7).
    pub recipient: Name,
    /// More certificates for extraCerts, behind the signer's own.
    pub extra_certs: Vec<Certificate>,
}

impl RevokeRequest {
    /// For a certificate that is at hand; addressed to its issuer.
    pub fn of(certificate: &Certificate, reason: RevocationReason) -> Self {
        Self {
            issuer: certificate.issuer(),
            serial: certificate.serial_der_bytes().to_vec(),
            reason,
            recipient: certificate.issuer(),
            extra_certs: Vec::new(),
        }
    }

    pub(crate) fn body(&self) -> der::Result<PkiBody> {
        let template = CertTemplate {
            issuer: Some(RawSequence::from_tlv(self.issuer.as_der())?),
            serial_number: Some(Int::new(&self.serial)?),
            ..CertTemplate::default()
        };
        let details = RawSequence::from_tlv(&vec![self.reason.extension()?].to_der()?)?;
        Ok(PkiBody::Rr(vec![RevDetails { cert_details: template, crl_entry_details: Some(details) }]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r8_every_reason_has_its_number_and_name() {
        for reason in RevocationReason::ALL {
            let extension = reason.extension().unwrap();
            assert_eq!(extension.extn_value.as_bytes(), [0x0a, 0x01, reason as u8]);
            assert_eq!(RevocationReason::parse(reason.name()), Some(reason));
            assert_eq!(RevocationReason::parse(&(reason as u8).to_string()), Some(reason));
            assert_eq!(serde_json::to_string(&reason).unwrap(), format!("{:?}", reason.name()));
        }
        assert_eq!(RevocationReason::parse("7"), None);
    }
}
