//! Messages as lines for people: what an operator compares with a server's log.
//!
//! Never shown: secrets (they are not in messages), the salt of a MAC and the MAC itself, from which a weak secret could
//! be found by trial, and signatures, which tell nobody anything. Texts and names of peers are made harmless first.

use der::{Encode, Tagged, asn1::Any};
use spki::AlgorithmIdentifierOwned;
use trustfleet_pki::{
    certificate::{Certificate, serial_hex},
    name::Name,
    public_key::PublicKey,
    signature::SignatureAlgorithm,
};
use x509_cert::time::Time;

use crate::{
    codec::{
        CertRequest, CertTemplate, InfoTypeAndValue, PkiBody, PkiHeader, PkiMessage, PkiStatus, PkiStatusInfo,
        RawSequence, oids,
        pbm::PbmParameter,
        pbmac1::{Pbkdf2Params, Pbmac1Params},
        raw::{GeneralName, directory_name_der, integer_hex},
        request::ProofOfPossession,
        response::{CertOrEncCert, CertRepMessage},
    },
    csr::Csr,
    text::{sanitise, sanitise_all},
};

/// A message in lines `field: value`, the header first. Salt, MAC and signature are left out.
pub fn lines(message: &PkiMessage) -> Vec<String> {
    let mut out = Vec::new();
    header(&message.header, &mut out);
    body(&message.body, &mut out);
    let protection = if message.protection.is_some() { "there, not shown" } else { "none" };
    out.push(format!("protection: {protection}"));
    for raw in &message.extra_certs {
        out.push(format!("extraCerts: {}", certificate(raw)));
    }
    out
}

fn header(header: &PkiHeader, out: &mut Vec<String>) {
    let hex = |octets: Option<&der::asn1::OctetString>| hex::encode(PkiHeader::octets(octets));
    out.push(format!("pvno: {}", header.pvno));
    out.push(format!("sender: {}", general_name(&header.sender)));
    out.push(format!("recipient: {}", general_name(&header.recipient)));
    if let Some(time) = header.message_time.as_ref().and_then(crate::codec::TimeText::timestamp) {
        out.push(format!("messageTime: {time}"));
    }
    if let Some(used) = &header.protection_alg {
        out.push(format!("protectionAlg: {}", algorithm(used)));
    }
    if header.sender_kid.is_some() {
        out.push(format!("senderKID: {}", octets(PkiHeader::octets(header.sender_kid.as_ref()))));
    }
    if header.transaction_id.is_some() {
        out.push(format!("transactionID: {}", hex(header.transaction_id.as_ref())));
    }
    if header.sender_nonce.is_some() {
        out.push(format!("senderNonce: {}", hex(header.sender_nonce.as_ref())));
    }
    if header.recip_nonce.is_some() {
        out.push(format!("recipNonce: {}", hex(header.recip_nonce.as_ref())));
    }
    for text in sanitise_all(header.free_text.as_ref()) {
        out.push(format!("freeText: {text:?}"));
    }
    for info in header.general_info.iter().flatten() {
        out.push(format!("generalInfo: {}", information(info)));
    }
}

fn body(body: &PkiBody, out: &mut Vec<String>) {
    out.push(format!("body: {}", body.kind().name()));
    match body {
        PkiBody::Ir(requests) | PkiBody::Cr(requests) | PkiBody::Kur(requests) => {
            for request in requests {
                match request.cert_req.parse::<CertRequest>() {
                    Ok(asked) => {
                        out.push(format!("certReqId: {}", asked.cert_req_id));
                        template(&asked.cert_template, out);
                        for control in asked.controls.iter().flatten() {
                            out.push(format!("control: {}", name_of(&control.id.to_string())));
                        }
                    }
                    Err(error) => out.push(format!("certReq: unreadable ({error})")),
                }
                out.push(format!(
                    "popo: {}",
                    match &request.popo {
                        Some(ProofOfPossession::Signature(proof)) => {
                            format!("signature by {}", algorithm(&proof.algorithm))
                        }
                        Some(_) => "of another kind".to_owned(),
                        None => "none".to_owned(),
                    }
                ));
            }
        }
        PkiBody::P10cr(csr) => match csr.to_tlv().ok().and_then(|der| Csr::from_der(&der).ok()) {
            Some(csr) => {
                out.push(format!("subject: {}", csr.subject()));
                out.push(format!("publicKey: {}", csr.public_key().algorithm()));
            }
            None => out.push("csr: unreadable, or its signature does not verify".to_owned()),
        },
        PkiBody::Ip(answer) | PkiBody::Cp(answer) | PkiBody::Kup(answer) => cert_rep(answer, out),
        PkiBody::Rr(all) => {
            for details in all {
                template(&details.cert_details, out);
                if let Some(extensions) = &details.crl_entry_details {
                    let reason = extensions.to_tlv().ok().and_then(|der| der.last().copied());
                    let reason = reason.and_then(|number| crate::RevocationReason::parse(&number.to_string()));
                    out.push(format!("reason: {}", reason.map_or("unreadable", crate::RevocationReason::name)));
                }
            }
        }
        PkiBody::Rp(answer) => {
            for info in &answer.status {
                status(info, out);
            }
            out.push(format!("crls: {}", answer.crls.as_ref().map_or(0, Vec::len)));
        }
        PkiBody::Genm(infos) | PkiBody::Genp(infos) => {
            for info in infos {
                out.push(format!("info: {}", information(info)));
            }
        }
        PkiBody::Error(error) => {
            status(&error.status_info, out);
            if let Some(code) = &error.error_code {
                out.push(format!("errorCode: 0x{}", integer_hex(code)));
            }
            for text in sanitise_all(error.error_details.as_ref()) {
                out.push(format!("errorDetails: {text:?}"));
            }
        }
        PkiBody::CertConf(all) => {
            for conf in all {
                out.push(format!("certReqId: {}", conf.cert_req_id));
                out.push(format!("certHash: {}", hex::encode(conf.cert_hash.as_bytes())));
                if let Some(hash) = &conf.hash_alg {
                    out.push(format!("hashAlg: {}", algorithm(hash)));
                }
                match &conf.status_info {
                    Some(info) => status(info, out),
                    None => out.push("status: accepted (by leaving it out)".to_owned()),
                }
            }
        }
        PkiBody::PollReq(all) => out.extend(all.iter().map(|poll| format!("certReqId: {}", poll.cert_req_id))),
        PkiBody::PollRep(all) => {
            for poll in all {
                out.push(format!("certReqId: {}", poll.cert_req_id));
                out.push(format!("checkAfter: {} s", poll.check_after));
                out.extend(sanitise_all(poll.reason.as_ref()).iter().map(|text| format!("reason: {text:?}")));
            }
        }
        PkiBody::Nested(inside) => out.push(format!("messages inside: {}", inside.len())),
        PkiBody::PkiConf | PkiBody::Other(..) => {}
    }
}

fn cert_rep(answer: &CertRepMessage, out: &mut Vec<String>) {
    for response in &answer.response {
        out.push(format!("certReqId: {}", response.cert_req_id));
        status(&response.status, out);
        match response.certified_key_pair.as_ref().map(|pair| &pair.cert_or_enc_cert) {
            Some(CertOrEncCert::Certificate(raw)) => out.push(format!("certificate: {}", certificate(raw))),
            Some(_) => out.push("certificate: encrypted".to_owned()),
            None => {}
        }
    }
    out.extend(answer.ca_pubs.iter().flatten().map(|raw| format!("caPubs: {}", certificate(raw))));
}

fn status(info: &PkiStatusInfo, out: &mut Vec<String>) {
    out.push(format!("status: {}", status_name(info.status)));
    if let Some(failure) = info.fail_info {
        let names: Vec<_> = failure.bits().into_iter().map(|bit| bit.name()).collect();
        out.push(format!("failInfo: {}", names.join(", ")));
    }
    for text in sanitise_all(info.status_string.as_ref()) {
        out.push(format!("statusString: {text:?}"));
    }
}

/// The RFC's word for a status.
pub const fn status_name(status: PkiStatus) -> &'static str {
    match status {
        PkiStatus::Accepted => "accepted",
        PkiStatus::GrantedWithMods => "grantedWithMods",
        PkiStatus::Rejection => "rejection",
        PkiStatus::Waiting => "waiting",
        PkiStatus::RevocationWarning => "revocationWarning",
        PkiStatus::RevocationNotification => "revocationNotification",
        PkiStatus::KeyUpdateWarning => "keyUpdateWarning",
    }
}

fn template(fields: &CertTemplate, out: &mut Vec<String>) {
    let mut name = |what: &str, raw: &Option<RawSequence>| {
        if let Some(raw) = raw {
            let shown = raw.to_tlv().ok().and_then(|der| Name::from_der(&der).ok());
            out.push(format!("{what}: {}", shown.map_or_else(|| "unreadable".to_owned(), |name| shown_name(&name))));
        }
    };
    name("subject", &fields.subject);
    name("issuer", &fields.issuer);
    if let Some(serial) = &fields.serial_number {
        out.push(format!("serialNumber: {}", serial_hex(serial.as_bytes())));
    }
    if let Some(validity) = &fields.validity {
        let shown =
            |time: &Option<Time>| time.map_or_else(|| "open".to_owned(), |time| time.to_date_time().to_string());
        out.push(format!("validity: {} to {}", shown(&validity.not_before), shown(&validity.not_after)));
    }
    if let Some(raw) = &fields.public_key {
        let key = raw.to_tlv().ok().and_then(|der| PublicKey::from_spki_der(&der).ok());
        let shown = key.map_or_else(
            || "unreadable".to_owned(),
            |key| format!("{}, SHA-256 {}", key.algorithm(), hex::encode(key.fingerprint())),
        );
        out.push(format!("publicKey: {shown}"));
    }
    let extensions: Vec<x509_cert::ext::Extension> =
        fields.extensions.as_ref().and_then(|raw| raw.parse().ok()).unwrap_or_default();
    for extension in extensions {
        let value = if extension.extn_id == oids::SUBJECT_ALT_NAME {
            alternative(extension.extn_value.as_bytes())
        } else {
            String::new()
        };
        out.push(format!("extension: {}{value}", name_of(&extension.extn_id.to_string())));
    }
}

fn alternative(der: &[u8]) -> String {
    use der::Decode as _;
    use trustfleet_pki::san::San;
    let names = Vec::<x509_cert::ext::pkix::name::GeneralName>::from_der(der).unwrap_or_default();
    let shown = names.iter().map(|name| match San::from_general_name(name) {
        Some(San::DirectoryName(name)) => format!("dn:{}", shown_name(&name)),
        Some(San::Dns(text)) => format!("dns:{}", sanitise(&text)),
        Some(San::Email(text)) => format!("email:{}", sanitise(&text)),
        Some(San::Uri(text)) => format!("uri:{}", sanitise(&text)),
        Some(San::Upn(text)) => format!("upn:{}", sanitise(&text)),
        Some(San::Ip(address)) => format!("ip:{address}"),
        None => "of another kind".to_owned(),
    });
    format!(" {}", shown.collect::<Vec<_>>().join(", "))
}

fn certificate(raw: &RawSequence) -> String {
    let read = raw.to_tlv().ok().and_then(|der| Certificate::from_der(&der).ok());
    read.map_or_else(
        || "unreadable".to_owned(),
        |certificate| {
            let (subject, issuer) = (certificate.subject(), certificate.issuer());
            format!("{}, serial {}, issued by {}", shown_name(&subject), certificate.serial_hex(), shown_name(&issuer))
        },
    )
}

fn shown_name(name: &Name) -> String {
    if name.is_null() { "NULL-DN".to_owned() } else { sanitise(&name.to_string()) }
}

fn general_name(name: &GeneralName) -> String {
    let read = directory_name_der(name).and_then(|der| Name::from_der(der).ok());
    read.map_or_else(|| "not a directory name".to_owned(), |name| shown_name(&name))
}

/// As text where it is text, for references of people are.
fn octets(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic() || c == ' ') => {
            format!("{:?}", sanitise(text))
        }
        _ => hex::encode(bytes),
    }
}

fn information(info: &InfoTypeAndValue) -> String {
    let length = info.info_value.as_ref().and_then(|value| value.encoded_len().ok()).map(u32::from);
    let value = match (&info.info_value, length) {
        (Some(value), Some(_)) if value.tag() == der::Tag::Null => " NULL".to_owned(),
        (Some(_), Some(length)) => format!(" with a value of {length} bytes"),
        _ => String::new(),
    };
    format!("{}{value}", name_of(&info.info_type.to_string()))
}

/// An algorithm with its hashes and iterations; the salt stays out.
pub fn algorithm(used: &AlgorithmIdentifierOwned) -> String {
    fn read<T: for<'a> der::Decode<'a>>(parameters: &Option<Any>) -> Option<T> {
        parameters.as_ref().and_then(|any| any.to_der().ok()).and_then(|der| T::from_der(&der).ok())
    }
    if used.oid == oids::PASSWORD_BASED_MAC {
        return read::<PbmParameter>(&used.parameters).map_or_else(
            || "password-based MAC, unreadable".to_owned(),
            |pbm| {
                let (owf, mac) = (name_of(&pbm.owf.oid.to_string()), name_of(&pbm.mac.oid.to_string()));
                format!("password-based MAC, owf {owf}, {mac}, {} iterations", pbm.iteration_count)
            },
        );
    }
    if used.oid == oids::PBMAC1 {
        let made = read::<Pbmac1Params>(&used.parameters).and_then(|outer| {
            let kdf: Pbkdf2Params = read(&outer.key_derivation_func.parameters)?;
            let prf = kdf.prf.map_or_else(|| "hmac-sha1".to_owned(), |prf| name_of(&prf.oid.to_string()));
            let mac = name_of(&outer.message_auth_scheme.oid.to_string());
            Some(format!("PBMAC1, PBKDF2 with {prf}, {mac}, {} iterations", kdf.iteration_count))
        });
        return made.unwrap_or_else(|| "PBMAC1, unreadable".to_owned());
    }
    SignatureAlgorithm::of(used).map_or_else(|_| name_of(&used.oid.to_string()), |known| known.name().to_owned())
}

/// Names for people, by object identifier; what has none here stays dotted.
const NAMES: &[(&str, &str)] = &[
    ("1.3.14.3.2.26", "sha1"),
    ("2.16.840.1.101.3.4.2.1", "sha256"),
    ("2.16.840.1.101.3.4.2.2", "sha384"),
    ("2.16.840.1.101.3.4.2.3", "sha512"),
    ("1.3.6.1.5.5.8.1.2", "hmac-sha1"),
    ("1.2.840.113549.2.7", "hmac-sha1"),
    ("1.2.840.113549.2.9", "hmac-sha256"),
    ("1.2.840.113549.2.10", "hmac-sha384"),
    ("1.2.840.113549.2.11", "hmac-sha512"),
    ("1.2.840.113549.1.1.1", "rsaEncryption"),
    ("1.2.840.10045.2.1", "ecPublicKey"),
    ("1.2.840.10045.3.1.7", "P-256"),
    ("1.3.132.0.34", "P-384"),
    ("1.3.101.112", "ed25519"),
    ("1.3.6.1.5.5.7.4.2", "signKeyPairTypes"),
    ("1.3.6.1.5.5.7.4.3", "encKeyPairTypes"),
    ("1.3.6.1.5.5.7.4.4", "preferredSymmAlg"),
    ("1.3.6.1.5.5.7.4.6", "currentCRL"),
    ("1.3.6.1.5.5.7.4.13", "implicitConfirm"),
    ("1.3.6.1.5.5.7.4.14", "confirmWaitTime"),
    ("1.3.6.1.5.5.7.4.16", "suppLangTags"),
    ("1.3.6.1.5.5.7.4.17", "caCerts"),
    ("1.3.6.1.5.5.7.4.18", "rootCaKeyUpdate"),
    ("1.3.6.1.5.5.7.4.19", "certReqTemplate"),
    ("1.3.6.1.5.5.7.4.20", "rootCaCert"),
    ("1.3.6.1.5.5.7.4.21", "certProfile"),
    ("1.3.6.1.5.5.7.4.22", "crlStatusList"),
    ("1.3.6.1.5.5.7.4.23", "crls"),
    ("1.3.6.1.5.5.7.5.1.5", "oldCertID"),
    ("2.5.29.15", "keyUsage"),
    ("2.5.29.17", "subjectAltName"),
    ("2.5.29.37", "extKeyUsage"),
];

/// The name of an object identifier, itself where there is none.
pub(crate) fn name_of(oid: &str) -> String {
    NAMES.iter().find(|(dotted, _)| *dotted == oid).map_or_else(|| oid.to_owned(), |(_, name)| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_agree_with_the_object_identifiers_in_use() {
        for (oid, name) in [
            (oids::IT_CA_CERTS, "caCerts"),
            (oids::IT_ROOT_CA_CERT, "rootCaCert"),
            (oids::IT_CERT_REQ_TEMPLATE, "certReqTemplate"),
            (oids::IT_CRL_STATUS_LIST, "crlStatusList"),
            (oids::IT_CURRENT_CRL, "currentCRL"),
            (oids::IT_SIGN_KEY_PAIR_TYPES, "signKeyPairTypes"),
            (oids::IT_ENC_KEY_PAIR_TYPES, "encKeyPairTypes"),
            (oids::IT_PREFERRED_SYMM_ALG, "preferredSymmAlg"),
            (oids::IT_SUPP_LANG_TAGS, "suppLangTags"),
            (oids::CONFIRM_WAIT_TIME, "confirmWaitTime"),
            (oids::IT_CERT_PROFILE, "certProfile"),
            (oids::OLD_CERT_ID, "oldCertID"),
            (oids::HMAC_WITH_SHA256, "hmac-sha256"),
            (oids::SUBJECT_ALT_NAME, "subjectAltName"),
        ] {
            assert_eq!(name_of(&oid.to_string()), name);
        }
    }
}
