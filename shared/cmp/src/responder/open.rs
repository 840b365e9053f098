//! What a server remembers of a transaction between two messages; owned by whoever calls the responder.

use subtle::ConstantTimeEq;
use trustfleet_pki::{
    certificate::Certificate,
    digest::{HashAlgorithm, digest_for_signature},
};

use super::{Client, Received, Reply};
use crate::{
    codec::{CertStatus, FailureBit, PkiStatus},
    error::MessageError,
    request::RequestKind,
};

/// A transaction in which the client's next message is awaited.
#[derive(Clone, Debug)]
pub struct OpenTransaction {
    /// Its transactionID.
    pub transaction_id: Vec<u8>,
    /// What was asked for.
    pub kind: RequestKind,
    /// certReqId of the request.
    pub cert_req_id: i64,
    /// The issued certificate, once there is one.
    pub certificate: Option<Certificate>,
    client: Client,
    last_nonce: Vec<u8>,
}

impl OpenTransaction {
    /// After the first answer to a certificate request.
    pub fn new(
        received: &Received,
        kind: RequestKind,
        cert_req_id: i64,
        reply: &Reply,
        certificate: Option<Certificate>,
    ) -> Self {
        Self {
            transaction_id: received.reply_to.transaction_id.clone(),
            kind,
            cert_req_id,
            certificate,
            client: received.client.clone(),
            last_nonce: reply.sender_nonce.clone(),
        }
    }

    /// After any later answer.
    pub fn answered(&mut self, reply: &Reply) {
        self.last_nonce.clone_from(&reply.sender_nonce);
    }

    /// Is this message the next one of the transaction, by the same client with the same credentials (P7, H12)?
    ///
    /// # Errors
    /// What was expected and what came.
    pub fn check(&self, received: &Received) -> Result<(), MessageError> {
        let got = &received.reply_to.transaction_id;
        if *got != self.transaction_id {
            let (expected, got) = (hex::encode(&self.transaction_id), hex::encode(got));
            return Err(MessageError::TransactionId { expected, got });
        }
        let same = match (&self.client, &received.client) {
            (Client::Mac { reference: held, .. }, Client::Mac { reference, .. }) => held == reference,
            (Client::Signature { certificate: held }, Client::Signature { certificate }) => held == certificate,
            _ => return Err(MessageError::WrongIntegrity { expected: "the same credentials", got: "others" }),
        };
        if !same {
            return Err(MessageError::WrongIntegrity { expected: "the same credentials", got: "others" });
        }
        if !bool::from(received.recip_nonce.ct_eq(&self.last_nonce)) {
            let (expected, got) = (hex::encode(&self.last_nonce), hex::encode(&received.recip_nonce));
            return Err(MessageError::RecipNonce { expected, got });
        }
        Ok(())
    }

    /// Does the client take the certificate (C3 to C7)? `Ok(false)`: it rejects it.
    ///
    /// # Errors
    /// When the certConf is not about the certificate that was issued.
    pub fn confirmation(&self, status: &CertStatus) -> Result<bool, MessageError> {
        crate::check::cert_req_id(status.cert_req_id, self.cert_req_id)?;
        let bad = |detail: &str| MessageError::Request { detail: detail.to_owned(), bit: FailureBit::BadCertId };
        let certificate = self.certificate.as_ref().ok_or_else(|| bad("certConf, but nothing was issued"))?;
        let hash = match &status.hash_alg {
            Some(algorithm) => HashAlgorithm::from_oid(algorithm.oid),
            None => digest_for_signature(&certificate.signature_algorithm()).ok(),
        };
        let hash = hash.ok_or_else(|| bad("the hash of certConf is not known"))?;
        if !bool::from(hash.digest(certificate.as_der()).ct_eq(status.cert_hash.as_bytes())) {
            return Err(bad("certHash is not that of the issued certificate"));
        }
        Ok(status.status_info.as_ref().is_none_or(|info| info.status != PkiStatus::Rejection))
    }
}
