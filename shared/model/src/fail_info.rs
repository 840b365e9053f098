//! PKIFailureInfo in words (RFC 9810, section 5.2.3): what a CA says when it refuses, for people who do not know the bits.

/// What a bit says, by its word; none: the word is unknown.
pub fn meaning(word: &str) -> Option<&'static str> {
    MEANINGS.iter().find(|(known, _)| *known == word).map(|(_, meaning)| *meaning)
}

/// All bits, in the order of their numbers.
pub const MEANINGS: [(&str, &str); 27] = [
    ("badAlg", "the CA does not know or support an algorithm of the request"),
    ("badMessageCheck", "the protection did not verify: wrong MAC reference or secret, or an unknown signature"),
    ("badRequest", "the CA does not do this here"),
    ("badTime", "the message's time is too far from the CA's clock"),
    ("badCertId", "the CA knows no certificate like the one that is named"),
    ("badDataFormat", "the CA could not read the message"),
    ("wrongAuthority", "the request names another CA than the one that answers"),
    ("incorrectData", "something in the request is not true, or not what the CA has registered"),
    ("missingTimeStamp", "the CA wants a time stamp"),
    ("badPOP", "the proof that the key is ours did not verify"),
    ("certRevoked", "the certificate is revoked already"),
    ("certConfirmed", "the certificate is confirmed already"),
    ("wrongIntegrity", "the CA wants a signature instead of a MAC, or the other way round"),
    ("badRecipientNonce", "an answer's nonce is missing or is not the one that was sent"),
    ("timeNotAvailable", "the CA has no time source at the moment"),
    ("unacceptedPolicy", "the CA does not support the policy that is asked for"),
    ("unacceptedExtension", "the CA does not issue one of the extensions that are asked for"),
    ("addInfoNotAvailable", "the CA lacks the information that is asked for"),
    ("badSenderNonce", "the request's nonce is missing or has the wrong size"),
    ("badCertTemplate", "the CA does not issue such a certificate, or something in the request is missing"),
    ("signerNotTrusted", "the CA does not know or trust the certificate that signed the request"),
    ("transactionIdInUse", "the CA works on a transaction of that id already"),
    ("unsupportedVersion", "the CA does not speak this version of CMP"),
    ("notAuthorized", "the sender may not ask for this"),
    ("systemUnavail", "the CA is not available at the moment"),
    ("systemFailure", "the CA failed"),
    ("duplicateCertReq", "the CA has issued such a certificate already"),
];
