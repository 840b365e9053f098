//! Does a message belong to this transaction? Every refusal says what was expected and what came.

use subtle::ConstantTimeEq;

use crate::{
    codec::{
        BodyKind, CertRepMessage, CertResponse, PkiHeader, PkiMessage, PollRep,
        header::{CMP2000, CMP2021},
    },
    error::MessageError,
};

/// At least 128 bits (H11, V3).
pub(crate) const MIN_NONCE_BYTES: usize = 16;

/// A senderNonce is sent back and kept: longer ones are nobody's.
pub(crate) const MAX_NONCE_BYTES: usize = 128;

/// V1: pvno 2 or 3.
pub(crate) fn version(header: &PkiHeader) -> Result<(), MessageError> {
    match header.pvno {
        CMP2000 | CMP2021 => Ok(()),
        got => Err(MessageError::Version { got }),
    }
}

/// H9: protection and its algorithm go together; P10: and they are there.
pub(crate) fn protected(message: &PkiMessage) -> Result<(), MessageError> {
    match (&message.header.protection_alg, &message.protection) {
        (Some(_), Some(_)) => Ok(()),
        (None, None) => Err(MessageError::Unprotected { body: message.body.kind() }),
        _ => Err(MessageError::ProtectionIncomplete),
    }
}

/// V2.
pub(crate) fn transaction_id(header: &PkiHeader, expected: &[u8]) -> Result<(), MessageError> {
    let got = PkiHeader::octets(header.transaction_id.as_ref());
    if equal(got, expected) {
        return Ok(());
    }
    Err(MessageError::TransactionId { expected: hex::encode(expected), got: shown(got) })
}

/// V3: the nonce that we sent comes back; one of several where the standard leaves it open.
pub(crate) fn recip_nonce(header: &PkiHeader, expected: &[&[u8]]) -> Result<(), MessageError> {
    let got = PkiHeader::octets(header.recip_nonce.as_ref());
    if expected.iter().any(|nonce| equal(got, nonce)) {
        return Ok(());
    }
    let expected = expected.iter().map(hex::encode).collect::<Vec<_>>().join(" or ");
    Err(MessageError::RecipNonce { expected, got: shown(got) })
}

/// V3, H11: the peer's own nonce is there, long enough, and not too long to be sent back.
pub(crate) fn sender_nonce(header: &PkiHeader) -> Result<&[u8], MessageError> {
    let got = PkiHeader::octets(header.sender_nonce.as_ref());
    if !(MIN_NONCE_BYTES..=MAX_NONCE_BYTES).contains(&got.len()) {
        return Err(MessageError::SenderNonce { bits: got.len() * 8 });
    }
    Ok(got)
}

/// V7: exactly one response, to our request.
pub(crate) fn single_response(message: &CertRepMessage, expected: i64) -> Result<&CertResponse, MessageError> {
    let [response] = message.response.as_slice() else {
        return Err(MessageError::ResponseCount { got: message.response.len() });
    };
    cert_req_id(response.cert_req_id, expected)?;
    Ok(response)
}

/// W3: exactly one poll answer, to our request.
pub(crate) fn single_poll(polls: &[PollRep], expected: i64) -> Result<&PollRep, MessageError> {
    let [poll] = polls else {
        return Err(MessageError::ResponseCount { got: polls.len() });
    };
    cert_req_id(poll.cert_req_id, expected)?;
    Ok(poll)
}

/// V7.
pub(crate) fn cert_req_id(got: i64, expected: i64) -> Result<(), MessageError> {
    if got == expected { Ok(()) } else { Err(MessageError::CertReqId { expected, got }) }
}

/// V1: a body of another kind than expected.
pub(crate) fn unexpected(message: &PkiMessage, expected: &[BodyKind]) -> MessageError {
    MessageError::UnexpectedBody { expected: expected.to_vec(), got: message.body.kind() }
}

fn equal(got: &[u8], expected: &[u8]) -> bool {
    !expected.is_empty() && bool::from(got.ct_eq(expected))
}

/// Hexadecimal, bounded: the bytes are a peer's.
fn shown(bytes: &[u8]) -> String {
    match bytes.len() {
        0 => "none".to_owned(),
        1..=32 => hex::encode(bytes),
        length => format!("{}... ({length} bytes)", hex::encode(bytes.get(..32).unwrap_or_default())),
    }
}

#[cfg(test)]
mod tests {
    use der::asn1::OctetString;

    use super::*;
    use crate::codec::{PkiBody, raw::directory_name};

    fn message() -> PkiMessage {
        let name = directory_name(&[0x30, 0x00]).unwrap();
        let header = PkiHeader {
            pvno: 2,
            sender: name.clone(),
            recipient: name,
            message_time: None,
            protection_alg: None,
            sender_kid: None,
            recip_kid: None,
            transaction_id: None,
            sender_nonce: None,
            recip_nonce: None,
            free_text: None,
            general_info: None,
        };
        PkiMessage::assemble(header, PkiBody::PkiConf).unwrap()
    }

    #[test]
    fn v3_a_missing_or_short_sendernonce_is_refused() {
        let mut message = message();
        assert_eq!(sender_nonce(&message.header), Err(MessageError::SenderNonce { bits: 0 }));
        message.header.sender_nonce = Some(OctetString::new([0; 15]).unwrap());
        assert_eq!(sender_nonce(&message.header), Err(MessageError::SenderNonce { bits: 120 }));
        for length in [MIN_NONCE_BYTES, MAX_NONCE_BYTES] {
            message.header.sender_nonce = Some(OctetString::new(vec![0; length]).unwrap());
            assert!(sender_nonce(&message.header).is_ok());
        }
    }

    #[test]
    fn v3_a_sendernonce_that_is_too_long_to_be_sent_back_is_refused() {
        let mut message = message();
        message.header.sender_nonce = Some(OctetString::new([0; MAX_NONCE_BYTES + 1]).unwrap());
        let error = sender_nonce(&message.header).unwrap_err();
        assert_eq!(error.to_string(), "senderNonce of 1032 bits: 128 to 1024 expected");
    }

    #[test]
    fn v2_an_absent_transactionid_never_fits_not_even_nothing() {
        let error = transaction_id(&message().header, &[]).unwrap_err();
        assert_eq!(error.to_string(), "transactionID: expected , got none");
    }

    #[test]
    fn h9_protection_without_its_algorithm_is_refused() {
        let mut message = message();
        assert!(matches!(protected(&message), Err(MessageError::Unprotected { .. })));
        message.protection = Some(vec![0]);
        assert_eq!(protected(&message), Err(MessageError::ProtectionIncomplete));
    }

    #[test]
    fn a_peers_long_values_are_shown_short() {
        assert_eq!(shown(&[0xab; 100]), format!("{}... (100 bytes)", "ab".repeat(32)));
    }
}
