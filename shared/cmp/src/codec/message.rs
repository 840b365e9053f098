//! The whole message, with the slices of header and body as they were received.
//!
//! Protection is computed and verified over `SEQUENCE { header, body }` of these slices (P1), never over a
//! re-encoding: two encodings of one value differ often enough, and then a signature that is right looks wrong.

use der::{
    Decode, Encode, Reader, SliceReader,
    asn1::{BitString, ContextSpecific},
};

use super::{
    DecodeError,
    body::PkiBody,
    bounds::{self, MAX_CERTIFICATES},
    header::PkiHeader,
    raw::RawSequence,
};

/// RFC 9810 section 5.1.
///
/// ```text
/// PKIMessage ::= SEQUENCE {
///     header           PKIHeader,
///     body             PKIBody,
///     protection   [0] PKIProtection OPTIONAL,
///     extraCerts   [1] SEQUENCE SIZE (1..MAX) OF CMPCertificate OPTIONAL }
/// PKIProtection ::= BIT STRING
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PkiMessage {
    /// The header, decoded.
    pub header: PkiHeader,
    /// The body, decoded.
    pub body: PkiBody,
    /// Signature or MAC.
    pub protection: Option<Vec<u8>>,
    /// DER certificates that help to build chains; never anchors (X3).
    pub extra_certs: Vec<RawSequence>,
    header_der: Vec<u8>,
    body_der: Vec<u8>,
}

impl PkiMessage {
    /// A message that is still unprotected.
    ///
    /// # Errors
    /// When a value in it cannot be encoded.
    pub fn assemble(header: PkiHeader, body: PkiBody) -> der::Result<Self> {
        let header_der = header.to_der()?;
        let body_der = body.to_der()?;
        Ok(Self { header, body, protection: None, extra_certs: Vec::new(), header_der, body_der })
    }

    /// Decodes one message of a peer.
    ///
    /// # Errors
    /// What is broken or beyond the bounds of [`bounds`]; never panics.
    pub fn from_der(der: &[u8]) -> Result<Self, DecodeError> {
        bounds::check(der)?;
        Self::decode_at(der, 0)
    }

    pub(super) fn decode_at(der: &[u8], nested: usize) -> Result<Self, DecodeError> {
        let outer = |source| DecodeError::der("PKIMessage", source);
        let mut reader = SliceReader::new(der).map_err(outer)?;
        let content = der::asn1::AnyRef::decode(&mut reader).map_err(outer)?;
        reader.finish(()).map_err(outer)?;
        der::Tagged::tag(&content).assert_eq(der::Tag::Sequence).map_err(outer)?;

        let mut reader = SliceReader::new(content.value()).map_err(outer)?;
        let header_der = reader.tlv_bytes().map_err(|source| DecodeError::der("header", source))?;
        let header = PkiHeader::from_der(header_der).map_err(|source| DecodeError::der("header", source))?;
        let body_der = reader.tlv_bytes().map_err(|source| DecodeError::der("body", source))?;
        let body = PkiBody::decode(body_der, nested)?;
        let protection = ContextSpecific::<BitString>::decode_explicit(&mut reader, der::TagNumber::N0)
            .map_err(|source| DecodeError::der("protection", source))?;
        let extra_certs = ContextSpecific::<Vec<RawSequence>>::decode_explicit(&mut reader, der::TagNumber::N1)
            .map_err(|source| DecodeError::der("extraCerts", source))?;
        reader.finish(()).map_err(outer)?;

        let protection = match protection {
            None => None,
            Some(bits) => Some(bits.value.as_bytes().ok_or(DecodeError::ProtectionBits)?.to_vec()),
        };
        let extra_certs = extra_certs.map(|field| field.value).unwrap_or_default();
        let message = Self {
            header,
            body,
            protection,
            extra_certs,
            header_der: header_der.to_vec(),
            body_der: body_der.to_vec(),
        };
        message.check_certificate_counts()?;
        Ok(message)
    }

    fn check_certificate_counts(&self) -> Result<(), DecodeError> {
        let ca_pubs = match &self.body {
            PkiBody::Ip(answer) | PkiBody::Cp(answer) | PkiBody::Kup(answer) => {
                answer.ca_pubs.as_ref().map_or(0, Vec::len)
            }
            _ => 0,
        };
        for (field, count) in [("extraCerts", self.extra_certs.len()), ("caPubs", ca_pubs)] {
            if count > MAX_CERTIFICATES {
                return Err(DecodeError::TooManyCertificates { field, count });
            }
        }
        Ok(())
    }

    /// The bytes that the protection covers (P1).
    ///
    /// ```text
    /// ProtectedPart ::= SEQUENCE { header PKIHeader, body PKIBody }
    /// ```
    ///
    /// # Errors
    /// When the message is longer than DER lengths of this library reach.
    pub fn protected_part(&self) -> der::Result<Vec<u8>> {
        der::asn1::Any::new(der::Tag::Sequence, [self.header_der.as_slice(), &self.body_der].concat())?.to_der()
    }

    /// The message as DER, with header and body as they were received or assembled.
    ///
    /// # Errors
    /// When the message is longer than DER lengths of this library reach.
    pub fn to_der(&self) -> der::Result<Vec<u8>> {
        let mut content = [self.header_der.as_slice(), &self.body_der].concat();
        if let Some(protection) = &self.protection {
            explicit(der::TagNumber::N0, BitString::from_bytes(protection)?)?.encode_to_vec(&mut content)?;
        }
        if !self.extra_certs.is_empty() {
            explicit(der::TagNumber::N1, self.extra_certs.clone())?.encode_to_vec(&mut content)?;
        }
        der::asn1::Any::new(der::Tag::Sequence, content)?.to_der()
    }

    /// The message as DER with header and body encoded anew from their decoded form: for tests of the codec.
    ///
    /// # Errors
    /// When a value in it cannot be encoded.
    pub fn reencoded(&self) -> der::Result<Vec<u8>> {
        Self { header_der: self.header.to_der()?, body_der: self.body.to_der()?, ..self.clone() }.to_der()
    }
}

fn explicit<T>(tag_number: der::TagNumber, value: T) -> der::Result<ContextSpecific<T>> {
    Ok(ContextSpecific { tag_number, tag_mode: der::TagMode::Explicit, value })
}
