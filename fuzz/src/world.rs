//! The world of a run: keys, certificates, credentials and randomness, the same in every run and on every machine.
//!
//! The certificates are OpenSSL's (`world/make.sh`). Keys are Ed25519 because its signatures are no matter of chance.

use std::sync::{Arc, LazyLock};

use jiff::Timestamp;
use trustfleet_cmp::{
    Acceptance, Credentials, Csr, Entropy, Signer, SoftwareDecrypter, SoftwareKey,
    entropy::EntropyFailed,
    protection::{AcceptedMacs, Hash, MacPolicy},
};
use trustfleet_pki::{Certificate, Name, digest::sha256};

/// The reference of the shared secret.
pub(crate) const REFERENCE: &[u8] = b"dev1";
/// The shared secret.
pub(crate) const SECRET: &[u8] = b"S3cret-of-dev1-with-128-bits";

/// When every run begins: after the one day of the expired certificate.
pub(crate) fn begin() -> Timestamp {
    Timestamp::from_second(1_798_761_600).unwrap_or_default() // 2027-01-01
}

macro_rules! file {
    ($name:literal) => {
        include_bytes!(concat!("../world/", $name, ".der")).as_slice()
    };
}

/// CRL, CSR and envelopes, for seeds.
pub(crate) const CRL: &[u8] = file!("crl");
pub(crate) const CSR: &[u8] = file!("csr");
pub(crate) const SEALED: [&[u8]; 2] = [file!("sealed-pkcs1"), file!("sealed-oaep")];

/// The certificates that answers are made of, by number; the numbers stand in the corpus and never change.
pub(crate) const CERTIFICATES: [&[u8]; 14] = [
    file!("ca"),
    file!("cmp"),
    file!("sibling"),
    file!("old"),
    file!("issued"),
    file!("issued-rsa"),
    file!("other-key"),
    file!("other-subject"),
    file!("expired"),
    file!("by-stranger"),
    file!("stranger"),
    file!("next"),
    file!("next-by-ca"),
    file!("ca-by-next"),
];

/// Everybody's keys and certificates.
pub(crate) struct World {
    pub(crate) certificates: Vec<Certificate>,
    pub(crate) ca: Arc<SoftwareKey>,
    pub(crate) cmp: Arc<SoftwareKey>,
    pub(crate) sibling: Arc<SoftwareKey>,
    pub(crate) stranger: Arc<SoftwareKey>,
    pub(crate) old: Arc<SoftwareKey>,
    /// Keys to be certified.
    pub(crate) device: Arc<SoftwareKey>,
    pub(crate) rsa: Arc<SoftwareKey>,
    pub(crate) csr: Csr,
    pub(crate) decrypter: Arc<SoftwareDecrypter>,
}

/// Made once.
pub(crate) fn world() -> &'static World {
    static WORLD: LazyLock<World> = LazyLock::new(World::new);
    &WORLD
}

impl World {
    fn new() -> Self {
        let rsa = file!("rsa-key");
        Self {
            certificates: CERTIFICATES.iter().map(|der| Certificate::from_der(der).expect("committed")).collect(),
            ca: key("ca"),
            cmp: key("cmp"),
            sibling: key("sibling"),
            stranger: key("stranger"),
            old: key("old"),
            device: key("device"),
            rsa: Arc::new(SoftwareKey::from_der(rsa).expect("committed")),
            csr: Csr::from_der(CSR).expect("committed"),
            decrypter: Arc::new(SoftwareDecrypter::from_pkcs8(rsa).expect("committed")),
        }
    }

    pub(crate) fn ca(&self) -> &Certificate {
        &self.certificates[0]
    }

    pub(crate) fn cmp(&self) -> &Certificate {
        &self.certificates[1]
    }

    pub(crate) fn old(&self) -> &Certificate {
        &self.certificates[3]
    }

    /// The certificate that an honest CA issues to the key.
    pub(crate) fn issued(&self, rsa: bool) -> &Certificate {
        &self.certificates[if rsa { 5 } else { 4 }]
    }

    /// Any of them; numbers beyond the last begin anew.
    pub(crate) fn certificate(&self, number: u8) -> &Certificate {
        &self.certificates[usize::from(number) % self.certificates.len()]
    }

    /// Everything that the CA answers with; MACs are bounded, so that a run stays short.
    pub(crate) fn acceptance(&self) -> Acceptance {
        Acceptance {
            pbm_iterations: 100..=1_000,
            pbkdf2_iterations: 1_000..=2_000,
            anchors: vec![self.ca().clone()],
            ..Acceptance::default()
        }
    }

    pub(crate) fn signature(&self) -> Credentials {
        let signer: Arc<dyn Signer> = Arc::<SoftwareKey>::clone(&self.old);
        Credentials::Signature { signer, certificate: self.old().clone(), chain: vec![] }
    }
}

/// PBM or PBMAC1 by the shared secret.
pub(crate) fn mac(policy: MacPolicy) -> Credentials {
    Credentials::Mac { reference: REFERENCE.to_vec(), secret: SECRET.to_vec().into(), mac: policy }
}

/// PBM with few iterations.
pub(crate) const fn pbm(hash: Hash) -> MacPolicy {
    MacPolicy { iterations: 100, ..MacPolicy::of(hash) }
}

/// PBMAC1 with few iterations.
pub(crate) const fn pbmac1(hash: Hash) -> MacPolicy {
    MacPolicy { iterations: 1_000, ..MacPolicy::pbmac1(hash) }
}

/// SHA-1 as well.
pub(crate) fn weak() -> AcceptedMacs {
    AcceptedMacs::with_sha1()
}

/// An Ed25519 key out of a name, as `world/make.sh` makes it.
fn key(name: &str) -> Arc<SoftwareKey> {
    const PKCS8: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    let seed = sha256(format!("trustfleet fuzz key {name}").as_bytes());
    Arc::new(SoftwareKey::from_der(&[&PKCS8[..], &seed].concat()).expect("any 32 octets are an Ed25519 key"))
}

/// The name of the CA, which also is the recipient of requests.
pub(crate) fn ca_name() -> Name {
    world().ca().subject()
}

/// Counted hashes: the same in every run, never the same twice.
#[derive(Debug, Default)]
pub(crate) struct Counted(u64);

impl Counted {
    /// Goes on where nobody else gets to.
    pub(crate) const fn apart(&mut self) {
        self.0 = 1 << 32;
    }
}

impl Entropy for Counted {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), EntropyFailed> {
        for part in buffer.chunks_mut(32) {
            self.0 += 1;
            let bytes = sha256(&self.0.to_be_bytes());
            part.copy_from_slice(bytes.get(..part.len()).ok_or(EntropyFailed)?);
        }
        Ok(())
    }
}
