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
    /// id-it-signKeyPairTypes, RFC 9810 section 5.3.19.2.
    IT_SIGN_KEY_PAIR_TYPES = "1.3.6.1.5.5.7.4.2";
    /// id-it-encKeyPairTypes, RFC 9810 section 5.3.19.3.
    IT_ENC_KEY_PAIR_TYPES = "1.3.6.1.5.5.7.4.3";
    /// id-it-preferredSymmAlg, RFC 9810 section 5.3.19.4.
    IT_PREFERRED_SYMM_ALG = "1.3.6.1.5.5.7.4.4";
    /// id-it-currentCRL, RFC 9810 section 5.3.19.6.
    IT_CURRENT_CRL = "1.3.6.1.5.5.7.4.6";
    /// id-it-suppLangTags, RFC 9810 section 5.3.19.11.
    IT_SUPP_LANG_TAGS = "1.3.6.1.5.5.7.4.16";
    /// id-it-caCerts, RFC 9810 section 5.3.19.14.
    IT_CA_CERTS = "1.3.6.1.5.5.7.4.17";
    /// id-it-rootCaKeyUpdate, RFC 9810 section 5.3.19.15.
    IT_ROOT_CA_KEY_UPDATE = "1.3.6.1.5.5.7.4.18";
    /// id-it-certReqTemplate, RFC 9810 section 5.3.19.16.
    IT_CERT_REQ_TEMPLATE = "1.3.6.1.5.5.7.4.19";
    /// id-it-rootCaCert, RFC 9810 section 5.3.19.15.
    IT_ROOT_CA_CERT = "1.3.6.1.5.5.7.4.20";
    /// id-it-certProfile, RFC 9810 section 5.1.1.4.
    IT_CERT_PROFILE = "1.3.6.1.5.5.7.4.21";
    /// id-it-crlStatusList, RFC 9810 section 5.3.19.17.
    IT_CRL_STATUS_LIST = "1.3.6.1.5.5.7.4.22";
    /// id-it-crls, RFC 9810 section 5.3.19.17.
    IT_CRLS = "1.3.6.1.5.5.7.4.23";
    /// id-regCtrl-algId, RFC 9810 section 5.3.19.16.
    REG_CTRL_ALG_ID = "1.3.6.1.5.5.7.5.1.11";
    /// id-regCtrl-rsaKeyLen, RFC 9810 section 5.3.19.16.
    REG_CTRL_RSA_KEY_LEN = "1.3.6.1.5.5.7.5.1.12";
    /// extensionRequest of a certification request, RFC 2985 section 5.4.2.
    EXTENSION_REQUEST = "1.2.840.113549.1.9.14";
    /// id-ce-cRLReasons, RFC 5280 section 5.3.1.
    CRL_REASON = "2.5.29.21";
    /// id-regCtrl-oldCertID, RFC 4211 section 6.5.
    OLD_CERT_ID = "1.3.6.1.5.5.7.5.1.5";
    /// id-kp-cmcCA, RFC 6402 section 2.10.
    CMC_CA = "1.3.6.1.5.5.7.3.27";
    /// id-kp-cmcRA, RFC 6402 section 2.10.
    CMC_RA = "1.3.6.1.5.5.7.3.28";
    /// id-ce-subjectAltName, RFC 5280 section 4.2.1.6.
    SUBJECT_ALT_NAME = "2.5.29.17";
}
