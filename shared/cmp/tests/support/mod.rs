//! What several tests need: a small authority that issues certificates, and a source of repeatable randomness.

#![allow(dead_code, unreachable_pub)] // every test binary uses its own part

pub mod csr;

use std::{
    fs,
    path::PathBuf,
    str::FromStr,
    sync::{Arc, OnceLock},
};

use der::{
    Decode, Encode,
    asn1::{BitString, ObjectIdentifier, OctetString},
    flagset::FlagSet,
};
use jiff::Timestamp;
use spki::SubjectPublicKeyInfoOwned;
use trustfleet_cmp::{
    Acceptance, Credentials, EnrollRequest, Entropy, RequestKind, Signer, SoftwareKey,
    codec::PkiMessage,
    entropy::EntropyFailed,
    key::{KeyType, SignError},
    protection::{Hash, MacPolicy},
};
use trustfleet_pki::{SignatureAlgorithm, certificate::Certificate, name::Name, san::San};
use x509_cert::{
    TbsCertificate, Version,
    ext::{
        AsExtension, Extension,
        pkix::{BasicConstraints, ExtendedKeyUsage, KeyUsage, KeyUsages, SubjectKeyIdentifier},
    },
    serial_number::SerialNumber,
    time::{Time, Validity},
};

pub const CMC_CA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.27");
pub const CMC_RA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.28");

/// A CA that exists only in memory.
#[derive(Debug)]
pub struct Authority {
    pub key: Arc<SoftwareKey>,
    pub certificate: Certificate,
}

/// What to put into a certificate.
#[derive(Clone, Debug)]
pub struct Leaf {
    pub subject: Name,
    pub spki: Vec<u8>,
    pub san_der: Option<Vec<u8>>,
    pub usages: Vec<ObjectIdentifier>,
    pub ca: bool,
    pub digital_signature: bool,
    pub not_before: &'static str,
    pub not_after: &'static str,
}

impl Leaf {
    pub fn new(subject: &str, key: &dyn Signer) -> Self {
        Self {
            subject: name(subject),
            spki: key.public_key_der().to_vec(),
            san_der: None,
            usages: vec![],
            ca: false,
            digital_signature: true,
            not_before: "2020-01-01T00:00:00Z",
            not_after: "2045-01-01T00:00:00Z",
        }
    }
}

impl Authority {
    pub fn root(subject: &str, key_type: KeyType) -> Self {
        let key = Arc::new(SoftwareKey::generate(key_type).unwrap());
        let leaf = Leaf { ca: true, ..Leaf::new(subject, key.as_ref()) };
        let certificate = sign(&leaf, &leaf.subject, key.as_ref());
        Self { key, certificate }
    }

    pub fn issue(&self, leaf: &Leaf) -> Certificate {
        sign(leaf, &self.certificate.subject(), self.key.as_ref())
    }

    /// A new key with a certificate for it.
    pub fn identity(&self, subject: &str, key_type: KeyType) -> (Arc<SoftwareKey>, Certificate) {
        let key = Arc::new(SoftwareKey::generate(key_type).unwrap());
        let certificate = self.issue(&Leaf::new(subject, key.as_ref()));
        (key, certificate)
    }
}

fn sign(leaf: &Leaf, issuer: &Name, key: &SoftwareKey) -> Certificate {
    let spki = SubjectPublicKeyInfoOwned::from_der(&leaf.spki).unwrap();
    let x509 = |name: &Name| x509_cert::name::Name::from_der(name.as_der()).unwrap();
    let time = |text: &str| {
        let moment = Timestamp::from_str(text).unwrap();
        Time::try_from(std::time::UNIX_EPOCH + std::time::Duration::from_secs(moment.as_second() as u64)).unwrap()
    };
    let subject = x509(&leaf.subject);
    let mut usage: FlagSet<KeyUsages> = FlagSet::default();
    if leaf.digital_signature {
        usage |= KeyUsages::DigitalSignature;
    }
    usage |= if leaf.ca { KeyUsages::KeyCertSign } else { KeyUsages::KeyAgreement };
    let ski = SubjectKeyIdentifier(OctetString::new(sha256(&leaf.spki)[..20].to_vec()).unwrap());
    let mut extensions: Vec<Extension> = vec![
        BasicConstraints { ca: leaf.ca, path_len_constraint: None }.to_extension(&subject, &[]).unwrap(),
        KeyUsage(usage).to_extension(&subject, &[]).unwrap(),
        ski.to_extension(&subject, &[]).unwrap(),
    ];
    if !leaf.usages.is_empty() {
        extensions.push(ExtendedKeyUsage(leaf.usages.clone()).to_extension(&subject, &extensions).unwrap());
    }
    if let Some(names) = &leaf.san_der {
        let extn_id = ObjectIdentifier::new_unwrap("2.5.29.17");
        extensions.push(Extension { extn_id, critical: false, extn_value: OctetString::new(names.clone()).unwrap() });
    }
    let mut serial = vec![0_u8; 16];
    Seeded::from_bytes(&leaf.spki).fill(&mut serial).unwrap();
    serial[0] = (serial[0] & 0x3f) | 0x40;
    let tbs = TbsCertificate {
        version: Version::V3,
        serial_number: SerialNumber::new(&serial).unwrap(),
        signature: key.algorithm(),
        issuer: x509(issuer),
        validity: Validity { not_before: time(leaf.not_before), not_after: time(leaf.not_after) },
        subject,
        subject_public_key_info: spki,
        issuer_unique_id: None,
        subject_unique_id: None,
        extensions: Some(extensions),
    };
    let signature = key.sign(&tbs.to_der().unwrap()).unwrap();
    let certificate = x509_cert::Certificate {
        tbs_certificate: tbs,
        signature_algorithm: key.algorithm(),
        signature: BitString::from_bytes(&signature).unwrap(),
    };
    Certificate::from_der(&certificate.to_der().unwrap()).unwrap()
}

fn sha256(data: &[u8]) -> [u8; 32] {
    trustfleet_pki::digest::sha256(data)
}

/// Randomness that repeats; never the same bytes twice in a run.
#[derive(Debug)]
pub struct Seeded(u64);

impl Seeded {
    pub const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn from_bytes(bytes: &[u8]) -> Self {
        let digest = sha256(bytes);
        Self::new(u64::from_be_bytes(digest[..8].try_into().unwrap()))
    }
}

impl Entropy for Seeded {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), EntropyFailed> {
        for byte in buffer {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            *byte = (self.0 >> 24) as u8;
        }
        Ok(())
    }
}

/// Fails always.
#[derive(Debug)]
pub struct NoEntropy;

impl Entropy for NoEntropy {
    fn fill(&mut self, _: &mut [u8]) -> Result<(), EntropyFailed> {
        Err(EntropyFailed)
    }
}

/// Signs with another key than it names.
#[derive(Debug)]
pub struct Mistaken {
    pub says: Arc<SoftwareKey>,
    pub signs: Arc<SoftwareKey>,
}

impl Signer for Mistaken {
    fn signature_algorithm(&self) -> SignatureAlgorithm {
        self.signs.signature_algorithm()
    }

    fn sign_with(&self, algorithm: SignatureAlgorithm, message: &[u8]) -> Result<Vec<u8>, SignError> {
        self.signs.sign_with(algorithm, message)
    }

    fn public_key_der(&self) -> &[u8] {
        self.says.public_key_der()
    }
}

pub fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

pub fn key(key_type: KeyType) -> Arc<SoftwareKey> {
    Arc::new(SoftwareKey::generate(key_type).unwrap())
}

pub fn mac(reference: &str, secret: &str) -> Credentials {
    let mac = MacPolicy { iterations: 500, ..MacPolicy::of(Hash::Sha256) };
    Credentials::Mac { reference: reference.into(), secret: secret.as_bytes().to_vec().into(), mac }
}

pub fn signature(key: &Arc<SoftwareKey>, certificate: &Certificate) -> Credentials {
    let signer: Arc<dyn Signer> = Arc::<SoftwareKey>::clone(key);
    Credentials::Signature { signer, certificate: certificate.clone(), chain: vec![] }
}

/// An ir for `/CN=dev1`.
pub fn ir(recipient: &Name) -> EnrollRequest {
    EnrollRequest {
        kind: RequestKind::Ir,
        subject: name("/CN=dev1"),
        sans: vec![San::parse("dns", "dev1.example").unwrap()],
        recipient: recipient.clone(),
        sender: None,
        old_certificate: None,
        implicit_confirm: false,
        extra_certs: vec![],
        extensions: vec![],
        cert_profile: None,
        validity: None,
    }
}

pub fn accepting(anchors: &[Certificate]) -> Acceptance {
    Acceptance { anchors: anchors.to_vec(), ..Acceptance::default() }
}

/// How many bits of a message are header, body or protection; behind them are only extraCerts, which nothing covers.
pub fn covered_bits(message: &[u8]) -> usize {
    let mut bare = PkiMessage::from_der(message).unwrap();
    bare.extra_certs.clear();
    let (bare, outer) = (bare.to_der().unwrap(), |der: &[u8]| 2 + usize::from(der[1].saturating_sub(0x80)));
    (outer(message) + bare.len() - outer(&bare)) * 8
}

/// The messages of tests/vectors, in the order of their names.
pub fn vectors() -> &'static [Vec<u8>] {
    static VECTORS: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    VECTORS.get_or_init(read_vectors)
}

fn read_vectors() -> Vec<Vec<u8>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "der"));
    paths.sort();
    paths.into_iter().map(|path| fs::read(path).unwrap()).collect()
}
