//! Asking the PKI for information: genm and genp (R9, RFC 9810 section 5.3.19, RFC 9483 section 4.3).
//!
//! An answer is decoded into a value; it changes nothing. Certificates in it are no anchors because they came: a root
//! that follows another one is handed out only when both certify each other (V12).

use der::asn1::{Any, ObjectIdentifier};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use spki::AlgorithmIdentifierOwned;
use trustfleet_pki::{certificate::Certificate, name::Name, oid, succession};
use x509_cert::time::Time;

use crate::{
    codec::{
        InfoTypeAndValue, PkiBody, RawSequence, TimeText,
        bounds::MAX_CERTIFICATES,
        info::{CertReqTemplateContent, CrlSource, CrlStatus, RootCaKeyUpdateContent},
        oids,
        raw::directory_name,
    },
    crl::Crl,
    error::MessageError,
    template::RequestTemplate,
    text,
};

/// What can be asked for.
#[derive(Clone, Debug)]
pub enum Question {
    /// CA certificates: intermediates and issuing CAs, not to be trusted for having come (caCerts).
    CaCerts,
    /// The root that follows this one (rootCaCert, answered by rootCaKeyUpdate).
    RootCaUpdate {
        /// The root that is trusted now.
        old: Certificate,
    },
    /// What a certificate request should look like (certReqTemplate).
    CertReqTemplate,
    /// A CRL, if there is a newer one (crlStatusList, answered by crls).
    CrlUpdate {
        /// Which CRL.
        source: CrlOf,
        /// thisUpdate of the one that is at hand.
        this_update: Option<Timestamp>,
    },
    /// The CA's current CRL (currentCRL).
    CurrentCrl,
    /// Signature algorithms that the CA certifies keys for (signKeyPairTypes).
    SignKeyPairTypes,
    /// Encryption algorithms that the CA certifies keys for (encKeyPairTypes).
    EncKeyPairTypes,
    /// The symmetric algorithm that the CA likes best (preferredSymmAlg).
    PreferredSymmAlg,
    /// Languages for texts: ours, the preferred first; the answer names the server's choice (suppLangTags).
    SupportedLanguages(Vec<String>),
    /// confirmWaitTime: how long the CA waits for certConf.
    ConfirmWaitTime,
    /// Anything else, without a value; the answer's value is handed out as it is.
    Other(ObjectIdentifier),
}

/// Which CRL is meant.
#[derive(Clone, Debug)]
pub enum CrlOf {
    /// That of an issuer.
    Issuer(Name),
    /// That of a distribution point, by its URI.
    Uri(String),
}

/// A question to the PKI.
#[derive(Clone, Debug)]
pub struct InfoRequest {
    /// What is asked for: exactly one thing (R9).
    pub question: Question,
    /// The CA or RA as it is known (H7).
    pub recipient: Name,
    /// Sender in MAC mode, as in [`crate::EnrollRequest`].
    pub sender: Option<Name>,
    /// More certificates for extraCerts, behind the signer's own.
    pub extra_certs: Vec<Certificate>,
}

/// What the PKI says.
#[derive(Clone, Debug)]
pub enum Information {
    /// CA certificates; never anchors. Empty: it has none to give.
    CaCerts(Vec<Certificate>),
    /// A new root that has passed V12; `None`: there is no other one.
    RootCaUpdate(Option<Box<RootCaUpdate>>),
    /// What requests should look like; `None`: nothing special.
    CertReqTemplate(Option<Box<RequestTemplate>>),
    /// CRLs, decoded but not verified; empty: none is newer.
    Crls(Vec<Crl>),
    /// Algorithms.
    Algorithms(Vec<AlgorithmIdentifierOwned>),
    /// Language tags, harmless but untrusted.
    Languages(Vec<String>),
    /// A moment.
    Time(Timestamp),
    /// A value of another type: its DER, or nothing.
    Other(Option<Vec<u8>>),
}

/// A root that follows a trusted one; both certify each other as far as certificates came (V12).
#[derive(Clone, Debug)]
pub struct RootCaUpdate {
    /// The new root: may be taken as an anchor.
    pub new_root: Certificate,
    /// The new root's key, certified by the old root: for those who still trust only that.
    pub new_with_old: Certificate,
    /// The old root's key, certified by the new root: for certificates issued before.
    pub old_with_new: Option<Certificate>,
}

/// What the answer is checked by; kept over a restart.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "question")]
pub(crate) enum Topic {
    CaCerts,
    RootCaUpdate { old: String },
    CertReqTemplate,
    CrlUpdate,
    CurrentCrl,
    SignKeyPairTypes,
    EncKeyPairTypes,
    PreferredSymmAlg,
    SupportedLanguages,
    ConfirmWaitTime,
    Other { id: String },
}

impl Question {
    /// infoType of the question.
    const fn id(&self) -> ObjectIdentifier {
        match self {
            Self::CaCerts => oids::IT_CA_CERTS,
            Self::RootCaUpdate { .. } => oids::IT_ROOT_CA_CERT,
            Self::CertReqTemplate => oids::IT_CERT_REQ_TEMPLATE,
            Self::CrlUpdate { .. } => oids::IT_CRL_STATUS_LIST,
            Self::CurrentCrl => oids::IT_CURRENT_CRL,
            Self::SignKeyPairTypes => oids::IT_SIGN_KEY_PAIR_TYPES,
            Self::EncKeyPairTypes => oids::IT_ENC_KEY_PAIR_TYPES,
            Self::PreferredSymmAlg => oids::IT_PREFERRED_SYMM_ALG,
            Self::SupportedLanguages(_) => oids::IT_SUPP_LANG_TAGS,
            Self::ConfirmWaitTime => oids::CONFIRM_WAIT_TIME,
            Self::Other(id) => *id,
        }
    }

    pub(crate) fn topic(&self) -> Topic {
        match self {
            Self::CaCerts => Topic::CaCerts,
            Self::RootCaUpdate { old } => Topic::RootCaUpdate { old: hex::encode(old.as_der()) },
            Self::CertReqTemplate => Topic::CertReqTemplate,
            Self::CrlUpdate { .. } => Topic::CrlUpdate,
            Self::CurrentCrl => Topic::CurrentCrl,
            Self::SignKeyPairTypes => Topic::SignKeyPairTypes,
            Self::EncKeyPairTypes => Topic::EncKeyPairTypes,
            Self::PreferredSymmAlg => Topic::PreferredSymmAlg,
            Self::SupportedLanguages(_) => Topic::SupportedLanguages,
            Self::ConfirmWaitTime => Topic::ConfirmWaitTime,
            Self::Other(id) => Topic::Other { id: id.to_string() },
        }
    }

    pub(crate) fn body(&self) -> der::Result<PkiBody> {
        let info_value = match self {
            Self::RootCaUpdate { old } => Some(Any::encode_from(&RawSequence::from_tlv(old.as_der())?)?),
            Self::CrlUpdate { source, this_update } => {
                let this_update = this_update.map(time).transpose()?;
                Some(Any::encode_from(&vec![CrlStatus { source: source.encoded()?, this_update }])?)
            }
            Self::SupportedLanguages(tags) => Some(Any::encode_from(tags)?),
            _ => None,
        };
        Ok(PkiBody::Genm(vec![InfoTypeAndValue { info_type: self.id(), info_value }]))
    }
}

impl CrlOf {
    fn encoded(&self) -> der::Result<CrlSource> {
        const FULL_NAME: u8 = 0xa0;
        const URI: u8 = 0x86;
        Ok(match self {
            Self::Issuer(name) => CrlSource::Issuer(vec![directory_name(name.as_der())?]),
            Self::Uri(uri) => {
                let uri = der::Encode::to_der(&Any::new(der::Tag::try_from(URI)?, uri.as_bytes())?)?;
                CrlSource::Point(Any::new(der::Tag::try_from(FULL_NAME)?, uri)?)
            }
        })
    }
}

/// UTCTime until 2049, GeneralizedTime afterwards (RFC 5280 section 4.1.2.5).
fn time(at: Timestamp) -> der::Result<Time> {
    let seconds = u64::try_from(at.as_second()).map_err(|_| der::Tag::UtcTime.value_error())?;
    let date = der::DateTime::from_unix_duration(std::time::Duration::from_secs(seconds))?;
    Ok(match der::asn1::UtcTime::from_date_time(date) {
        Ok(time) => Time::UtcTime(time),
        Err(_) => Time::GeneralTime(der::asn1::GeneralizedTime::from_date_time(date)),
    })
}

impl Topic {
    /// infoType of the answer.
    fn expected(&self) -> Option<ObjectIdentifier> {
        Some(match self {
            Self::CaCerts => oids::IT_CA_CERTS,
            Self::RootCaUpdate { .. } => oids::IT_ROOT_CA_KEY_UPDATE,
            Self::CertReqTemplate => oids::IT_CERT_REQ_TEMPLATE,
            Self::CrlUpdate => oids::IT_CRLS,
            Self::CurrentCrl => oids::IT_CURRENT_CRL,
            Self::SignKeyPairTypes => oids::IT_SIGN_KEY_PAIR_TYPES,
            Self::EncKeyPairTypes => oids::IT_ENC_KEY_PAIR_TYPES,
            Self::PreferredSymmAlg => oids::IT_PREFERRED_SYMM_ALG,
            Self::SupportedLanguages => oids::IT_SUPP_LANG_TAGS,
            Self::ConfirmWaitTime => oids::CONFIRM_WAIT_TIME,
            Self::Other { id } => return oid::parse(id),
        })
    }

    /// Reads the answer: exactly one InfoTypeAndValue, of the type that fits the question.
    pub(crate) fn read(&self, infos: &[InfoTypeAndValue], now: Timestamp) -> Result<Information, MessageError> {
        let [info] = infos else {
            return Err(MessageError::ResponseCount { got: infos.len() });
        };
        let unreadable = |detail: String| MessageError::Information { detail };
        if self.expected() != Some(info.info_type) {
            let expected = self.expected().map_or_else(String::new, |id| id.to_string());
            return Err(unreadable(format!("infoType {}, expected {expected}", info.info_type)));
        }
        let value = info.info_value.as_ref().filter(|value| !value.is_null() || matches!(self, Self::Other { .. }));
        let der = |error: der::Error| unreadable(error.to_string());
        Ok(match self {
            Self::CaCerts => Information::CaCerts(match value {
                Some(value) => list(value)?.iter().map(certificate).collect::<Result<_, _>>()?,
                None => Vec::new(),
            }),
            Self::RootCaUpdate { old } => Information::RootCaUpdate(match value {
                Some(value) => {
                    let old = hex::decode(old).ok().and_then(|der| Certificate::from_der(&der).ok());
                    let old = old.ok_or_else(|| unreadable("the old root was not kept".to_owned()))?;
                    Some(Box::new(root_update(&value.decode_as().map_err(der)?, &old, now)?))
                }
                None => None,
            }),
            Self::CertReqTemplate => Information::CertReqTemplate(match value {
                Some(value) => {
                    let content: CertReqTemplateContent = value.decode_as().map_err(der)?;
                    Some(Box::new(RequestTemplate::read(&content)?))
                }
                None => None,
            }),
            Self::CrlUpdate => Information::Crls(match value {
                Some(value) => {
                    list(value)?.iter().map(|raw| Crl::from_raw(raw).map_err(unreadable)).collect::<Result<_, _>>()?
                }
                None => Vec::new(),
            }),
            Self::CurrentCrl => Information::Crls(match value {
                Some(value) => vec![Crl::from_raw(&value.decode_as().map_err(der)?).map_err(unreadable)?],
                None => Vec::new(),
            }),
            Self::SignKeyPairTypes | Self::EncKeyPairTypes => Information::Algorithms(match value {
                Some(value) => value.decode_as().map_err(der)?,
                None => Vec::new(),
            }),
            Self::PreferredSymmAlg => Information::Algorithms(match value {
                Some(value) => vec![value.decode_as().map_err(der)?],
                None => Vec::new(),
            }),
            Self::SupportedLanguages => Information::Languages(match value {
                Some(value) => text::sanitise_all(Some(&value.decode_as().map_err(der)?)),
                None => Vec::new(),
            }),
            Self::ConfirmWaitTime => match value {
                Some(value) => {
                    let time: TimeText = value.decode_as().map_err(der)?;
                    let time = time.timestamp();
                    Information::Time(time.ok_or_else(|| unreadable("not a time in whole seconds".to_owned()))?)
                }
                None => Information::Other(None),
            },
            Self::Other { .. } => Information::Other(value.map(der::Encode::to_der).transpose().map_err(der)?),
        })
    }
}

fn list(value: &Any) -> Result<Vec<RawSequence>, MessageError> {
    let list: Vec<RawSequence> =
        value.decode_as().map_err(|error| MessageError::Information { detail: error.to_string() })?;
    if list.len() > MAX_CERTIFICATES {
        let detail = format!("{} values: at most {MAX_CERTIFICATES} are taken", list.len());
        return Err(MessageError::Information { detail });
    }
    Ok(list)
}

fn certificate(raw: &RawSequence) -> Result<Certificate, MessageError> {
    let unreadable = |detail: String| MessageError::CertificateUnreadable { detail };
    let der = raw.to_tlv().map_err(|error| unreadable(error.to_string()))?;
    Certificate::from_der(&der).map_err(|error| unreadable(error.to_string()))
}

/// V12.
fn root_update(
    content: &RootCaKeyUpdateContent,
    old: &Certificate,
    now: Timestamp,
) -> Result<RootCaUpdate, MessageError> {
    let refused = |detail: String| MessageError::RootUpdate { detail };
    let new_root = certificate(&content.new_with_new)?;
    let new_with_old = content.new_with_old.as_ref();
    let new_with_old = new_with_old.ok_or_else(|| refused("newWithOld is missing, nothing ties it to ours".into()))?;
    let new_with_old = certificate(new_with_old)?;
    let old_with_new = content.old_with_new.as_ref().map(certificate).transpose()?;
    succession::follows(old, &new_root, &new_with_old, old_with_new.as_ref(), now).map_err(refused)?;
    Ok(RootCaUpdate { new_root, new_with_old, old_with_new })
}
