//! Factory identities: does an IDevID (IEEE 802.1AR) of a registered CA vouch for an agent's keys, and for which serial
//! number? Pure: certificates, proof and moment are arguments.

use jiff::Timestamp;
use trustfleet_model::device::Word;
use trustfleet_pki::{Certificate, ChainError, SignatureAlgorithm, chain::verify_end_entity};
use trustfleet_wire::join::AnnounceRequest;

/// Most certificates between an IDevID and its anchor that are looked at.
const CHAIN_MAX: usize = 8;

/// Where a CA's certificates hold the serial number of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SerialFrom {
    /// The attribute serialNumber of the subject.
    SubjectSerialNumber,
    /// hwSerialNum of the hardwareModuleName among the alternative names.
    HardwareModuleName,
}

impl SerialFrom {
    /// The word in SQL and in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SubjectSerialNumber => "subject_serial_number",
            Self::HardwareModuleName => "hardware_module_name",
        }
    }

    /// The place of this word.
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::SubjectSerialNumber, Self::HardwareModuleName].into_iter().find(|place| place.as_str() == word)
    }

    /// The serial number, if there is exactly one that can stand in a name. Octets that are no such text are written in
    /// hexadecimal.
    fn read(self, certificate: &Certificate) -> Option<Word> {
        let text = match self {
            Self::SubjectSerialNumber => match certificate.subject_serial_numbers().as_slice() {
                [one] => one.clone(),
                _ => return None,
            },
            Self::HardwareModuleName => {
                let octets = certificate.hardware_serial()?;
                let as_text =
                    String::from_utf8(octets.clone()).ok().filter(|text| Word::try_from(text.clone()).is_ok());
                as_text.unwrap_or_else(|| hex::encode_upper(&octets))
            }
        };
        Word::try_from(text).ok()
    }
}

/// Why a factory identity does not let an agent in.
#[derive(Debug, thiserror::Error)]
pub enum FactoryError {
    /// The certificate, or one that came with it.
    #[error("a certificate of the factory identity cannot be read: {0}")]
    Unreadable(trustfleet_pki::CertificateError),
    /// No CA of the tenant has issued it.
    #[error("no factory CA of the tenant vouches for it: {0}")]
    Untrusted(ChainError),
    /// Its key does not sign messages.
    #[error("the certificate's keyUsage does not allow digitalSignature")]
    KeyUsage,
    /// The signature does not fit.
    #[error("the factory identity's signature does not fit the announcement: {0}")]
    Signature(String),
    /// No serial number where the CA has it, or several, or one that cannot stand in a name.
    #[error("the certificate has no single, plain serial number at {}", .0.as_str())]
    NoSerial(SerialFrom),
    /// The agent claims another one.
    #[error("the agent claims another serial number than its certificate has")]
    OtherSerial,
}

impl FactoryError {
    /// Stable word for the audit log.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Unreadable(_) => "factory_unreadable",
            Self::Untrusted(_) => "factory_untrusted",
            Self::KeyUsage => "factory_key_usage",
            Self::Signature(_) => "factory_signature",
            Self::NoSerial(_) => "factory_no_serial",
            Self::OtherSerial => "factory_other_serial",
        }
    }
}

/// The first of `cas` (anchors, and where the serial number is) that vouches for `request`, and for which serial number;
/// none: the request shows no factory identity.
///
/// # Errors
/// [`FactoryError`].
pub fn vouched(
    request: &AnnounceRequest,
    cas: &[(Vec<Certificate>, SerialFrom)],
    now: Timestamp,
) -> Result<Option<(usize, Word)>, FactoryError> {
    let Some(proof) = &request.factory else { return Ok(None) };
    let certificate = Certificate::from_der(&proof.certificate.0).map_err(FactoryError::Unreadable)?;
    let chain = proof.chain.iter().take(CHAIN_MAX).map(|der| Certificate::from_der(&der.0));
    let chain: Vec<_> = chain.collect::<Result<_, _>>().map_err(FactoryError::Unreadable)?;
    let mut refused = ChainError::NoAnchor;
    let mut found = None;
    for (i, (anchors, serial_from)) in cas.iter().enumerate() {
        match verify_end_entity(&certificate, &chain, anchors, now) {
            // An anchor that is shown as an identity proves nothing about a device.
            Ok(()) if anchors.contains(&certificate) => {}
            Ok(()) => {
                found = Some((i, *serial_from));
                break;
            }
            Err(error) => refused = error,
        }
    }
    let (i, serial_from) = found.ok_or(FactoryError::Untrusted(refused))?;
    if !certificate.allows_digital_signature() {
        return Err(FactoryError::KeyUsage);
    }
    let algorithm: SignatureAlgorithm = proof.algorithm.parse().map_err(|_| {
        FactoryError::Signature("the algorithm is unknown: ecdsa-sha256, rsa-sha256, ed25519 and others are".to_owned())
    })?;
    certificate
        .public_key()
        .verify(&algorithm.identifier(), &request.factory_input(), &proof.signature.0)
        .map_err(|error| FactoryError::Signature(error.to_string()))?;
    let serial = serial_from.read(&certificate).ok_or(FactoryError::NoSerial(serial_from))?;
    if request.serial.as_deref().is_some_and(|claimed| claimed != serial.as_ref()) {
        return Err(FactoryError::OtherSerial);
    }
    Ok(Some((i, serial)))
}
