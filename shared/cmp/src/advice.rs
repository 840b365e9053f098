//! What an operator can do about a PKIFailureInfo bit.

use crate::codec::FailureBit;

/// One sentence per bit: what it usually means for a device that enrols, and what to look at.
pub const fn advice(bit: FailureBit) -> &'static str {
    match bit {
        FailureBit::BadAlg => {
            "the server does not support the algorithm: check MAC, signature and key type of the policy"
        }
        FailureBit::BadMessageCheck => {
            "the server could not verify the message: check reference and secret, or certificate"
        }
        FailureBit::BadRequest => {
            "the server does not allow this request here: check its kind, path and the server's log"
        }
        FailureBit::BadTime => "the device's clock differs too much from the server's: set the clock",
        FailureBit::BadCertId => "the server does not know the certificate meant: enrol anew by ir or cr",
        FailureBit::BadDataFormat => "the server could not read the message: compare its CMP version and profile",
        FailureBit::WrongAuthority => "the request is addressed to another CA: check recipient and server URL",
        FailureBit::IncorrectData => "data of the request is incorrect: check subject and alternative names",
        FailureBit::MissingTimeStamp => "the server wants a message time, or another time stamp",
        FailureBit::BadPop => "the proof of possession failed: check the signature algorithm of the new key",
        FailureBit::CertRevoked => "the certificate is revoked already: enrol anew by ir or cr",
        FailureBit::CertConfirmed => "the certificate was confirmed already",
        FailureBit::WrongIntegrity => "the server wants a signature instead of a MAC, or the other way round",
        FailureBit::BadRecipientNonce => "the server lost the thread of the transaction: start a new one",
        FailureBit::TimeNotAvailable => "the server's time source is not available: try later",
        FailureBit::UnacceptedPolicy => "the server does not support the policy asked for",
        FailureBit::UnacceptedExtension => "the server does not accept an extension: check the alternative names",
        FailureBit::AddInfoNotAvailable => "the server lacks information: look at its log",
        FailureBit::BadSenderNonce => "the server found no usable nonce in the message",
        FailureBit::BadCertTemplate => {
            "the server does not issue such a certificate: check subject, names, key type and size"
        }
        FailureBit::SignerNotTrusted => "the server does not trust the signing certificate: register its CA there",
        FailureBit::TransactionIdInUse => "the server has a transaction with this identifier: start a new one",
        FailureBit::UnsupportedVersion => "the server does not speak this version of CMP",
        FailureBit::NotAuthorized => "the device may not do this: register it at the CA, or check its credentials",
        FailureBit::SystemUnavail => "the server is not available: try later",
        FailureBit::SystemFailure => "the server failed: look at its log and try later",
        FailureBit::DuplicateCertReq => "there is such a certificate already: revoke it, or use kur",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bit_has_a_meaning_for_people_who_read_a_transcript() {
        let words = trustfleet_model::fail_info::MEANINGS.map(|(word, _)| word);
        assert_eq!(words, FailureBit::ALL.map(FailureBit::name));
    }

    #[test]
    fn every_bit_has_its_own_advice() {
        let texts: std::collections::HashSet<_> = FailureBit::ALL.into_iter().map(advice).collect();
        assert_eq!(texts.len(), FailureBit::ALL.len());
    }
}
