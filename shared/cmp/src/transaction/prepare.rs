//! What a request becomes before its first message: checked, with its body and everything that its answer is judged by.

use jiff::Timestamp;
use trustfleet_pki::{certificate::Certificate, name::Name};

use super::record::{Bytes, Revokes};
use crate::{
    CmpError,
    codec::PkiBody,
    error::{ConfigurationError, LocalError},
    info::Topic,
    request::{Credentials, EnrollRequest, P10Request, Request, RequestKind},
    revoke::RevokeRequest,
};

/// A request, ready to be sent.
pub(super) struct Prepared {
    pub(super) kind: RequestKind,
    pub(super) body: PkiBody,
    pub(super) sender: Option<Name>,
    pub(super) recipient: Name,
    pub(super) extra_certs: Vec<Certificate>,
    /// DER Name.
    pub(super) subject: Bytes,
    /// DER GeneralNames or empty.
    pub(super) sans: Bytes,
    /// DER SubjectPublicKeyInfo.
    pub(super) public_key: Bytes,
    pub(super) implicit_confirm: bool,
    pub(super) cert_profile: Option<String>,
    pub(super) topic: Option<Topic>,
    pub(super) revokes: Option<Revokes>,
}

/// Finds what cannot work before anything is sent, and builds the body.
pub(super) fn prepare(request: Request, credentials: &Credentials, now: Timestamp) -> Result<Prepared, CmpError> {
    match request {
        Request::Enroll(request, key) => {
            let request: EnrollRequest = request.check(credentials, now)?;
            Ok(Prepared {
                body: request.body(key.as_ref())?,
                subject: Bytes::from(request.subject.as_der()),
                sans: Bytes::from(request.san_der()?),
                public_key: Bytes::from(key.public_key_der()),
                implicit_confirm: request.implicit_confirm,
                cert_profile: request.cert_profile,
                ..plain(request.kind, PkiBody::PkiConf, (request.sender, request.recipient, request.extra_certs))
            })
        }
        Request::P10(request) => {
            credentials.check(now)?;
            let P10Request { csr, recipient, sender, implicit_confirm, cert_profile, extra_certs } = *request;
            if csr.subject().is_null() && csr.san_der().is_empty() {
                return Err(ConfigurationError::SubjectMissing.into());
            }
            let body = PkiBody::P10cr(csr.body().map_err(LocalError::encoding("a p10cr"))?);
            Ok(Prepared {
                subject: Bytes::from(csr.subject().as_der()),
                sans: Bytes::from(csr.san_der()),
                public_key: Bytes::from(csr.public_key().spki_der()),
                implicit_confirm,
                cert_profile,
                ..plain(RequestKind::P10cr, body, (sender, recipient, extra_certs))
            })
        }
        Request::Revoke(request) => {
            credentials.check(now)?;
            if matches!(credentials, Credentials::Mac { .. }) {
                return Err(ConfigurationError::RevocationNeedsSignature.into());
            }
            let body = request.body().map_err(LocalError::encoding("an rr"))?;
            let RevokeRequest { issuer, serial, recipient, extra_certs, .. } = *request;
            let revokes = Some(Revokes { issuer: Bytes::from(issuer.as_der()), serial: Bytes::from(serial) });
            Ok(Prepared { revokes, ..plain(RequestKind::Rr, body, (None, recipient, extra_certs)) })
        }
        Request::Info(request) => {
            credentials.check(now)?;
            let body = request.question.body().map_err(LocalError::encoding("a genm"))?;
            let topic = Some(request.question.topic());
            let names = (request.sender, request.recipient, request.extra_certs);
            Ok(Prepared { topic, ..plain(RequestKind::Genm, body, names) })
        }
    }
}

type Names = (Option<Name>, Name, Vec<Certificate>);

fn plain(kind: RequestKind, body: PkiBody, (sender, recipient, extra_certs): Names) -> Prepared {
    Prepared {
        kind,
        body,
        sender,
        recipient,
        extra_certs,
        subject: Bytes::default(),
        sans: Bytes::default(),
        public_key: Bytes::default(),
        implicit_confirm: false,
        cert_profile: None,
        topic: None,
        revokes: None,
    }
}
