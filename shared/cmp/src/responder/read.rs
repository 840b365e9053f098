//! What a client asks for besides certReqs: p10cr, rr and genm.

use trustfleet_pki::name::Name;
use x509_cert::ext::Extension;

use super::{CertificateRequest, Client, Request};
use crate::{
    codec::{FailureBit, InfoTypeAndValue, RawSequence, oids, request::RevDetails},
    csr::{Csr, CsrError},
    error::MessageError,
    request::{NO_CERT_REQ_ID, RequestKind},
    revoke::RevocationReason,
};

/// A request to revoke one certificate.
#[derive(Clone, Debug)]
pub struct RevocationRequest {
    /// Issuer of the certificate meant.
    pub issuer: Name,
    /// Content octets of its serial number's INTEGER.
    pub serial: Vec<u8>,
    /// Why; `None` when no reason is given.
    pub reason: Option<RevocationReason>,
}

/// R7: the CSR's own signature is the proof of possession.
pub(super) fn p10(request: &RawSequence) -> Result<Request, MessageError> {
    let csr = Csr::try_from(request).map_err(|error| MessageError::Request {
        bit: match &error {
            CsrError::Unreadable(_) => FailureBit::BadDataFormat,
            CsrError::Signature(_) => FailureBit::BadPop,
        },
        detail: error.to_string(),
    })?;
    let names = csr.san_der();
    let subject_alt_names = (!names.is_empty()).then_some(names);
    if csr.subject().is_null() && subject_alt_names.is_none() {
        let detail = "neither a subject nor alternative names (R2)".to_owned();
        return Err(MessageError::Request { detail, bit: FailureBit::BadCertTemplate });
    }
    Ok(Request::Certificate(Box::new(CertificateRequest {
        kind: RequestKind::P10cr,
        cert_req_id: NO_CERT_REQ_ID,
        subject: csr.subject().clone(),
        public_key: csr.public_key().clone(),
        subject_alt_names,
        extensions: csr.extensions().to_vec(),
        old_certificate: None,
    })))
}

/// R8, P9.
pub(super) fn revocation(details: &[RevDetails], client: &Client) -> Result<Request, MessageError> {
    if matches!(client, Client::Mac { .. }) {
        return Err(MessageError::WrongIntegrity { expected: "a signature", got: "a MAC" });
    }
    let bad = |bit, detail: String| MessageError::Request { detail, bit };
    let format = |error: der::Error| bad(FailureBit::BadDataFormat, error.to_string());
    let [details] = details else {
        return Err(MessageError::ResponseCount { got: details.len() });
    };
    let (issuer, serial) = (&details.cert_details.issuer, &details.cert_details.serial_number);
    let (Some(issuer), Some(serial)) = (issuer, serial) else {
        return Err(bad(FailureBit::AddInfoNotAvailable, "an rr names issuer and serialNumber (R8)".to_owned()));
    };
    let issuer = Name::from_der(&issuer.to_tlv().map_err(format)?)
        .map_err(|error| bad(FailureBit::BadDataFormat, error.to_string()))?;
    let extensions: Vec<Extension> = match &details.crl_entry_details {
        Some(raw) => raw.parse().map_err(format)?,
        None => Vec::new(),
    };
    let reason = extensions.iter().find(|extension| extension.extn_id == oids::CRL_REASON);
    let reason = reason.map(|extension| der::Decode::from_der(extension.extn_value.as_bytes()));
    let reason = reason.transpose().map_err(format)?;
    let serial = serial.as_bytes().to_vec();
    Ok(Request::Revoke(Box::new(RevocationRequest { issuer, serial, reason })))
}

/// R9: one question.
pub(super) fn question(infos: &[InfoTypeAndValue]) -> Result<Request, MessageError> {
    match infos {
        [info] => Ok(Request::Info(Box::new(info.clone()))),
        other => Err(MessageError::ResponseCount { got: other.len() }),
    }
}
