//! The object identifiers that CMP messages name, each with its source.

use der::asn1::ObjectIdentifier;

macro_rules! oids {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        $($(#[$doc])* pub const $name: ObjectIdentifier = ObjectIdentifier::new_unwrap($text);)*
    };
}

oids! {
    /// id-PasswordBasedMac, RFC 9481 section 6.1.1.
    PASSWORD_BASED_MAC = "1.2.840.113533.7.66.13";
    /// id-PBMAC1, RFC 9481 section 6.1.2.
    PBMAC1 = "1.2.840.113549.1.5.14";
    /// id-PBKDF2, RFC 8018 appendix A.2.
    PBKDF2 = "1.2.840.113549.1.5.12";
    /// id-sha1, RFC 3370 section 2.1.
    SHA1 = "1.3.14.3.2.26";
    /// id-sha256, RFC 5754 section 2.
    SHA256 = "2.16.840.1.101.3.4.2.1";
    /// id-sha384, RFC 5754 section 2.
    SHA384 = "2.16.840.1.101.3.4.2.2";
    /// id-sha512, RFC 5754 section 2.
    SHA512 = "2.16.840.1.101.3.4.2.3";
    /// hMAC-SHA1, RFC 3370 section 3.1 (what OpenSSL sends by default).
    HMAC_SHA1 = "1.3.6.1.5.5.8.1.2";
    /// id-hmacWithSHA1, RFC 8018 appendix B.1.1: another name of the same algorithm.
    HMAC_WITH_SHA1 = "1.2.840.113549.2.7";
    /// id-hmacWithSHA256, RFC 4231 section 3.1.
    HMAC_WITH_SHA256 = "1.2.840.113549.2.9";
    /// id-hmacWithSHA384, RFC 4231 section 3.1.
    HMAC_WITH_SHA384 = "1.2.840.113549.2.10";
    /// id-hmacWithSHA512, RFC 4231 section 3.1.
    HMAC_WITH_SHA512 = "1.2.840.113549.2.11";
    /// sha256WithRSAEncryption, RFC 4055 section 5.
    SHA256_WITH_RSA = "1.2.840.113549.1.1.11";
    /// sha384WithRSAEncryption, RFC 4055 section 5.
    SHA384_WITH_RSA = "1.2.840.113549.1.1.12";
    /// sha512WithRSAEncryption, RFC 4055 section 5.
    SHA512_WITH_RSA = "1.2.840.113549.1.1.13";
    /// ecdsa-with-SHA256, RFC 5758 section 3.2.
    ECDSA_WITH_SHA256 = "1.2.840.10045.4.3.2";
    /// ecdsa-with-SHA384, RFC 5758 section 3.2.
    ECDSA_WITH_SHA384 = "1.2.840.10045.4.3.3";
    /// ecdsa-with-SHA512, RFC 5758 section 3.2.
    ECDSA_WITH_SHA512 = "1.2.840.10045.4.3.4";
    /// id-Ed25519, RFC 8410 section 3.
    ED25519 = "1.3.101.112";
    /// id-it-implicitConfirm, RFC 9810 section 5.1.1.1.
    IMPLICIT_CONFIRM = "1.3.6.1.5.5.7.4.13";
    /// id-it-confirmWaitTime, RFC 9810 section 5.1.1.2.
    CONFIRM_WAIT_TIME = "1.3.6.1.5.5.7.4.14";
    /// id-regCtrl-oldCertID, RFC 4211 section 6.5.
    OLD_CERT_ID = "1.3.6.1.5.5.7.5.1.5";
    /// id-kp-cmcCA, RFC 6402 section 2.10.
    CMC_CA = "1.3.6.1.5.5.7.3.27";
    /// id-kp-cmcRA, RFC 6402 section 2.10.
    CMC_RA = "1.3.6.1.5.5.7.3.28";
    /// id-ce-subjectAltName, RFC 5280 section 4.2.1.6.
    SUBJECT_ALT_NAME = "2.5.29.17";
}
