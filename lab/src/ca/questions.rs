//! What the lab CA says to a genm (RFC 9810 section 5.3.19).

use der::{
    Decode, Encode,
    asn1::{Any, SetOfVec},
};
use trustfleet_cmp::codec::{
    CertTemplate, InfoTypeAndValue, RawSequence,
    info::{CertReqTemplateContent, CrlStatus, RootCaKeyUpdateContent},
    oids,
    request::Control,
};
use trustfleet_pki::{Certificate, ObjectIdentifier, public_key::algorithms};
use x509_cert::{
    attr::AttributeTypeAndValue,
    crl::CertificateList,
    name::{RdnSequence, RelativeDistinguishedName},
    spki::AlgorithmIdentifierOwned,
};

use super::{issue::Authority, options::CaConfig};

const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

/// The answer to one question; nothing to say is the type without a value.
pub(super) fn answer(
    question: &InfoTypeAndValue,
    authority: &Authority,
    config: &CaConfig,
    crl: &[u8],
) -> der::Result<InfoTypeAndValue> {
    let raw = |certificate: &Certificate| RawSequence::from_tlv(certificate.as_der());
    let mut info_type = question.info_type;
    let info_value = match question.info_type {
        oids::IT_CA_CERTS => Some(Any::encode_from(&vec![raw(&authority.issuing)?])?),
        oids::IT_ROOT_CA_CERT => {
            info_type = oids::IT_ROOT_CA_KEY_UPDATE;
            let asked = question.info_value.as_ref().map(Encode::to_der).transpose()?;
            let next = authority.next.as_ref().filter(|_| asked.as_deref() == Some(authority.root.as_der()));
            next.map(|next| {
                let content = RootCaKeyUpdateContent {
                    new_with_new: raw(&next.root)?,
                    new_with_old: Some(raw(&next.new_with_old)?),
                    old_with_new: Some(raw(&next.old_with_new)?),
                };
                Any::encode_from(&content)
            })
            .transpose()?
        }
        oids::IT_CERT_REQ_TEMPLATE => config.template.then(|| template(config)).transpose()?,
        oids::IT_CRL_STATUS_LIST => {
            info_type = oids::IT_CRLS;
            is_news(question, crl)?.then(|| Any::encode_from(&vec![RawSequence::from_tlv(crl)?])).transpose()?
        }
        oids::IT_CURRENT_CRL => Some(Any::encode_from(&RawSequence::from_tlv(crl)?)?),
        oids::IT_SIGN_KEY_PAIR_TYPES => Some(Any::encode_from(&key_kinds()?)?),
        oids::IT_SUPP_LANG_TAGS => Some(Any::encode_from(&vec!["en".to_owned()])?),
        _ => None,
    };
    Ok(InfoTypeAndValue { info_type, info_value })
}

/// Is our CRL newer than the one that the asker has?
fn is_news(question: &InfoTypeAndValue, crl: &[u8]) -> der::Result<bool> {
    let Some(value) = &question.info_value else { return Ok(true) };
    let statuses: Vec<CrlStatus> = value.decode_as()?;
    let theirs = statuses.first().and_then(|status| status.this_update);
    let ours = CertificateList::from_der(crl)?.tbs_cert_list.this_update;
    Ok(theirs.is_none_or(|theirs| theirs.to_unix_duration() < ours.to_unix_duration()))
}

fn key_kinds() -> der::Result<Vec<AlgorithmIdentifierOwned>> {
    let curve = |curve: ObjectIdentifier| Any::encode_from(&curve);
    Ok(vec![
        AlgorithmIdentifierOwned { oid: algorithms::EC, parameters: Some(curve(algorithms::P256)?) },
        AlgorithmIdentifierOwned { oid: algorithms::EC, parameters: Some(curve(algorithms::P384)?) },
        AlgorithmIdentifierOwned { oid: algorithms::ED25519, parameters: None },
    ])
}

/// The CA's own organization, then a common name for the client to fill in; P-256 or RSA of 3072 bits.
fn template(config: &CaConfig) -> der::Result<Any> {
    let mut subject = RdnSequence::from_der(config.organization.as_der())?;
    let value = Any::new(der::Tag::Utf8String, Vec::new())?;
    let open = SetOfVec::try_from(vec![AttributeTypeAndValue { oid: COMMON_NAME, value }])?;
    subject.0.push(RelativeDistinguishedName(open));
    let subject = Some(RawSequence::from_tlv(&subject.to_der()?)?);
    let p256 = key_kinds()?.into_iter().next();
    let mut key_spec = Vec::new();
    if let Some(p256) = p256 {
        key_spec.push(Control { id: oids::REG_CTRL_ALG_ID, value: Any::encode_from(&p256)? });
    }
    key_spec.push(Control { id: oids::REG_CTRL_RSA_KEY_LEN, value: Any::encode_from(&3072_u32)? });
    let cert_template = CertTemplate { subject, ..CertTemplate::default() };
    Any::encode_from(&CertReqTemplateContent { cert_template, key_spec: Some(key_spec) })
}
