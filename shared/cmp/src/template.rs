//! What a CA wants in a certificate request (certReqTemplate, RFC 9483 section 4.3.3), and making a request fit it.
//!
//! [`apply_template`] is pure. It fills in what the CA has fixed, keeps what it leaves open, and refuses with the field's
//! name what it cannot reconcile: nothing is dropped in silence. Only an `issuer` is passed over: no request of ours names
//! one, the CA that is asked is the issuer.

use der::{Decode, Encode, asn1::ObjectIdentifier};
use spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};
use thiserror::Error;
use trustfleet_pki::{
    name::Name,
    public_key::{KeyKind, PublicKey, algorithms},
};
use x509_cert::{
    attr::AttributeTypeAndValue,
    ext::Extension,
    name::{RdnSequence, RelativeDistinguishedName},
};

use crate::{
    codec::{CertTemplate, RawSequence, info::CertReqTemplateContent, oids},
    error::MessageError,
    request::EnrollRequest,
    show::{algorithm, name_of},
    text::sanitise,
};

/// What a CA wants in a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RequestTemplate {
    subject: Option<RdnSequence>,
    extensions: Vec<Extension>,
    /// Other fields of the certTemplate that are there, by their names.
    others: Vec<&'static str>,
    /// Kinds of keys that are certified; empty with `rsa_bits` empty too: any.
    pub algorithms: Vec<AlgorithmIdentifierOwned>,
    /// Lengths of RSA keys that are certified.
    pub rsa_bits: Vec<u32>,
}

/// Why a request cannot be made to fit.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum TemplateError {
    /// The template leaves a value open and the request has none.
    #[error("the CA wants {attribute} in the subject: give it a value")]
    SubjectLacks {
        /// Attribute type.
        attribute: String,
    },
    /// The template fixes a value.
    #[error("the CA wants {wanted} in the subject, asked for was {asked}")]
    SubjectDiffers {
        /// Type and value.
        wanted: String,
        /// Type and value.
        asked: String,
    },
    /// The template has no place for it.
    #[error("the CA's template has no place for {attribute} in the subject: leave it out")]
    SubjectSurplus {
        /// Type and value.
        attribute: String,
    },
    /// The template wants alternative names.
    #[error("the CA wants alternative names: give at least one")]
    NamesLacking,
    /// The template wants an extension that cannot be filled in here.
    #[error("the CA wants a value for the extension {id}: give it")]
    ExtensionLacks {
        /// Object identifier.
        id: String,
    },
    /// The template fixes an extension.
    #[error("the CA fixes the extension {id} to another value than the one asked for")]
    ExtensionDiffers {
        /// Object identifier.
        id: String,
    },
    /// The template has a field that this client does not send.
    #[error("the CA's template wants the field {field}, which this client does not send")]
    Field {
        /// Its name in RFC 4211.
        field: &'static str,
    },
    /// The key is of a kind that the CA does not certify.
    #[error("the CA does not certify {kind} keys: use {wanted}")]
    Key {
        /// What it is.
        kind: String,
        /// What would do.
        wanted: String,
    },
    /// A name does not decode or encode.
    #[error("a name cannot be used with the CA's template: {0}")]
    Name(String),
}

impl RequestTemplate {
    pub(crate) fn read(content: &CertReqTemplateContent) -> Result<Self, MessageError> {
        let unreadable = |error: der::Error| MessageError::Information { detail: error.to_string() };
        let fields = &content.cert_template;
        let (mut algorithms, mut rsa_bits) = (Vec::new(), Vec::new());
        for control in content.key_spec.iter().flatten() {
            if control.id == oids::REG_CTRL_ALG_ID {
                algorithms.push(control.value.decode_as().map_err(unreadable)?);
            } else if control.id == oids::REG_CTRL_RSA_KEY_LEN {
                rsa_bits.push(control.value.decode_as().map_err(unreadable)?);
            } else {
                let detail = format!("keySpec has the unknown control {}", control.id);
                return Err(MessageError::Information { detail });
            }
        }
        Ok(Self {
            subject: fields.subject.as_ref().map(RawSequence::parse).transpose().map_err(unreadable)?,
            extensions: match &fields.extensions {
                Some(raw) => raw.parse().map_err(unreadable)?,
                None => Vec::new(),
            },
            others: others(fields),
            algorithms,
            rsa_bits,
        })
    }

    /// What it asks for, in lines for people.
    pub fn describe(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for rdn in self.subject.iter().flat_map(|subject| &subject.0) {
            lines.extend(rdn.0.iter().map(|attribute| {
                if attribute.value.value().is_empty() {
                    let name = shown(attribute);
                    format!("subject: {} is to be filled in", name.split('=').next().unwrap_or_default())
                } else {
                    format!("subject: {}", sanitise(&shown(attribute)))
                }
            }));
        }
        for extension in &self.extensions {
            let state = if is_open(extension) { "to be filled in" } else { "fixed" };
            lines.push(format!("extension: {} is {state}", name_of(&extension.extn_id.to_string())));
        }
        lines.extend(self.others.iter().map(|field| format!("field: {field}")));
        lines.extend(self.algorithms.iter().map(|wanted| match named_curve(wanted) {
            Some(curve) => format!("key: {} on {}", algorithm(wanted), name_of(&curve.to_string())),
            None => format!("key: {}", algorithm(wanted)),
        }));
        lines.extend(self.rsa_bits.iter().map(|bits| format!("key: RSA of {bits} bits")));
        lines
    }

    /// May a key of this kind be certified?
    ///
    /// # Errors
    /// [`TemplateError::Key`] with what would do.
    pub fn permits_key(&self, key: &PublicKey) -> Result<(), TemplateError> {
        let kind = key.algorithm();
        let asked = SubjectPublicKeyInfoOwned::from_der(key.spki_der());
        let asked = asked.map(|key| key.algorithm).map_err(|error| TemplateError::Name(error.to_string()))?;
        let named = self.algorithms.iter().any(|algorithm| {
            // RFC 9810 section 5.3.19.16: the parameters are optional, and OpenSSL's server leaves the curve open
            let any_curve = algorithm.parameters.is_none() || asked.oid != algorithms::EC;
            algorithm.oid == asked.oid && (any_curve || named_curve(algorithm) == named_curve(&asked))
        });
        let permitted = match kind {
            _ if self.algorithms.is_empty() && self.rsa_bits.is_empty() => true,
            KeyKind::Rsa { bits } if !self.rsa_bits.is_empty() => {
                self.rsa_bits.iter().any(|wanted| usize::try_from(*wanted) == Ok(bits))
            }
            _ => named,
        };
        if permitted {
            return Ok(());
        }
        let lengths = self.rsa_bits.iter().map(|bits| format!("RSA {bits}"));
        let names = self.algorithms.iter().map(|algorithm| match named_curve(algorithm) {
            Some(curve) => format!("{} with {curve}", algorithm.oid),
            None => algorithm.oid.to_string(),
        });
        let wanted = names.chain(lengths).collect::<Vec<_>>().join(" or ");
        Err(TemplateError::Key { kind: kind.to_string(), wanted })
    }
}

fn named_curve(algorithm: &AlgorithmIdentifierOwned) -> Option<ObjectIdentifier> {
    algorithm.parameters.as_ref().and_then(|parameters| parameters.decode_as().ok())
}

fn others(fields: &CertTemplate) -> Vec<&'static str> {
    let there = [
        ("version", fields.version.is_some_and(|version| version != 2)),
        ("serialNumber", fields.serial_number.is_some()),
        ("signingAlg", fields.signing_alg.is_some()),
        ("validity", fields.validity.is_some()),
        ("publicKey", fields.public_key.is_some()),
        ("issuerUID", fields.issuer_uid.is_some()),
        ("subjectUID", fields.subject_uid.is_some()),
    ];
    there.into_iter().filter(|(_, is)| *is).map(|(name, _)| name).collect()
}

/// Makes a request fit a CA's template: fixed values are taken over, open ones must be in the request.
///
/// The subject takes the template's order. An alternative name of the request stays where the template says nothing of
/// alternative names. Whether the key fits is [`RequestTemplate::permits_key`].
///
/// # Errors
/// The first field that cannot be reconciled.
pub fn apply_template(mut request: EnrollRequest, template: &RequestTemplate) -> Result<EnrollRequest, TemplateError> {
    if let Some(field) = template.others.first() {
        return Err(TemplateError::Field { field });
    }
    if let Some(wanted) = &template.subject {
        request.subject = subject(&request.subject, wanted)?;
    }
    for extension in &template.extensions {
        let id = extension.extn_id;
        let fixed = !is_open(extension);
        if id == oids::SUBJECT_ALT_NAME {
            if !fixed && request.sans.is_empty() {
                return Err(TemplateError::NamesLacking);
            }
            if fixed {
                let same = request.san_der().is_ok_and(|asked| asked == extension.extn_value.as_bytes());
                if !request.sans.is_empty() && !same {
                    return Err(TemplateError::ExtensionDiffers { id: id.to_string() });
                }
                if request.sans.is_empty() {
                    request.extensions.push(extension.clone());
                }
            }
            continue;
        }
        match request.extensions.iter().find(|asked| asked.extn_id == id) {
            Some(asked) if fixed && asked.extn_value != extension.extn_value => {
                return Err(TemplateError::ExtensionDiffers { id: id.to_string() });
            }
            Some(_) => {}
            None if fixed => request.extensions.push(extension.clone()),
            None => return Err(TemplateError::ExtensionLacks { id: id.to_string() }),
        }
    }
    Ok(request)
}

/// An extension without a value, or alternative names of which one has none: to be filled in.
fn is_open(extension: &Extension) -> bool {
    let value = extension.extn_value.as_bytes();
    let names = || Vec::<der::asn1::Any>::from_der(value).unwrap_or_default();
    value.is_empty()
        || extension.extn_id == oids::SUBJECT_ALT_NAME
            && (names().is_empty() || names().iter().any(|name| name.value().is_empty()))
}

fn subject(asked: &Name, wanted: &RdnSequence) -> Result<Name, TemplateError> {
    let name = |error: &dyn std::fmt::Display| TemplateError::Name(error.to_string());
    let asked = RdnSequence::from_der(asked.as_der()).map_err(|error| name(&error))?;
    let mut left: Vec<&AttributeTypeAndValue> = asked.0.iter().flat_map(|rdn| rdn.0.iter()).collect();
    let mut made = Vec::new();
    for rdn in &wanted.0 {
        let mut filled = Vec::new();
        for attribute in rdn.0.iter() {
            let at = left.iter().position(|asked| asked.oid == attribute.oid);
            let found = at.map(|at| left.remove(at));
            let open = attribute.value.value().is_empty();
            filled.push(match found {
                Some(asked) if open => asked.clone(),
                Some(asked) if asked.value.value() != attribute.value.value() => {
                    return Err(TemplateError::SubjectDiffers { wanted: shown(attribute), asked: shown(asked) });
                }
                None if open => {
                    let attribute = shown(attribute).split('=').next().unwrap_or_default().to_owned();
                    return Err(TemplateError::SubjectLacks { attribute });
                }
                _ => attribute.clone(),
            });
        }
        let set = der::asn1::SetOfVec::try_from(filled).map_err(|error| name(&error))?;
        made.push(RelativeDistinguishedName(set));
    }
    if let Some(surplus) = left.first() {
        return Err(TemplateError::SubjectSurplus { attribute: shown(surplus) });
    }
    let der = RdnSequence(made).to_der().map_err(|error| name(&error))?;
    Name::from_der(&der).map_err(|error| name(&error))
}

/// `CN=value`, made harmless by [`Name`]'s own display.
fn shown(attribute: &AttributeTypeAndValue) -> String {
    let made = || -> Option<Name> {
        let set = der::asn1::SetOfVec::try_from(vec![attribute.clone()]).ok()?;
        Name::from_der(&RdnSequence(vec![RelativeDistinguishedName(set)]).to_der().ok()?).ok()
    };
    made().map_or_else(|| attribute.oid.to_string(), |name| name.to_string())
}
