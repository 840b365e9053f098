//! Every kind of signature against a foreign implementation.
//!
//! `openssl cmp -port` (3.0) verifies protections and proofs of possession of all our kinds, and protects its answers by
//! RSA PKCS #1 v1.5 and by ECDSA. It refuses to protect by RSA-PSS or Ed25519 ("unsupported key type"): there the
//! answers are those of our responder, their signatures made by `openssl pkeyutl` with keys and certificates made by
//! OpenSSL. That signer never has its key in this process, as one in a token would not. ML-DSA is beyond OpenSSL 3.0: our
//! responder verifies it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "support/openssl.rs"]
mod openssl;
mod support;
#[path = "support/world.rs"]
mod world;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use jiff::Timestamp;
use openssl::{MockServer, folder};
use support::{Authority, Leaf, Mistaken, Seeded, accepting, ir, key, mac};
use tempfile::TempDir;
use trustfleet_cmp::{
    Acceptance, Credentials, EnrollRequest, Enrolled, Input, Signer, SoftwareKey, Step, Transaction,
    codec::{PkiBody, PkiMessage},
    key::{KeyType, SignError, Using},
    protection::AcceptedMacs,
    responder::{ReplyProtection, ResponderPolicy, Trust, receive},
};
use trustfleet_model::clock::{Clock, SystemClock};
use trustfleet_pki::{Certificate, PublicKey, SignatureAlgorithm, signature::SignatureAlgorithm as S};
use world::World;

/// What is sent: a kind of key and the algorithm that it signs by.
const SENT: [(KeyType, SignatureAlgorithm); 8] = [
    (KeyType::Rsa2048, S::RsaSha256),
    (KeyType::Rsa2048, S::RsaSha384),
    (KeyType::Rsa2048, S::RsaSha512),
    (KeyType::Rsa2048, S::RsaPssSha256),
    (KeyType::Rsa2048, S::RsaPssSha384),
    (KeyType::P256, S::EcdsaSha256),
    (KeyType::P384, S::EcdsaSha384),
    (KeyType::Ed25519, S::Ed25519),
];

fn now() -> Timestamp {
    SystemClock.now()
}

/// Runs a command line, split at blanks, in the folder.
fn run(folder: &Path, line: &str) {
    let output = Command::new("openssl").args(line.split_whitespace()).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "openssl {line}: {}", String::from_utf8_lossy(&output.stderr));
}

fn write(folder: &TempDir, file: &str, content: &str) {
    fs::write(folder.path().join(file), content).unwrap();
}

/// One whole enrolment at the server, with certConf.
fn enrol(
    server: &MockServer,
    request: EnrollRequest,
    credentials: Credentials,
    acceptance: Acceptance,
    signer: Arc<dyn Signer>,
) -> Result<Box<Enrolled>, String> {
    let mut entropy = Seeded::new(now().as_nanosecond() as u64);
    let (transaction, message) =
        Transaction::start(request, credentials, acceptance, signer, &mut entropy, now()).map_err(|e| e.to_string())?;
    let mut step = Step::Send { transaction: Box::new(transaction), message };
    loop {
        step = match step {
            Step::Send { transaction, message } => {
                let answer = server.post(&message);
                transaction.handle(Input::Response(&answer), &mut entropy, now())
            }
            Step::Done(enrolled) => return Ok(enrolled),
            other => return Err(format!("{other:?} {}", server.log())),
        };
    }
}

#[test]
fn p6_the_server_verifies_our_protection_of_every_kind() {
    let ca = Authority::root("/O=Lab/CN=Mock CA", KeyType::Rsa2048);
    for (key_type, algorithm) in SENT {
        let folder = folder();
        let asked = key(KeyType::P256);
        write(&folder, "ca.crt", &ca.certificate.to_pem());
        write(&folder, "ca.key", &ca.key.pkcs8_pem().unwrap());
        write(&folder, "issued.crt", &ca.issue(&Leaf::new("/CN=dev1", asked.as_ref())).to_pem());
        let server = MockServer::start(
            folder.path(),
            &["-srv_cert", "ca.crt", "-srv_key", "ca.key", "-srv_trusted", "ca.crt", "-rsp_cert", "issued.crt"],
        );
        let (identity_key, certificate) = ca.identity("/CN=identity", key_type);
        let signer = Arc::new(Using { signer: identity_key, algorithm });
        let credentials = Credentials::Signature { signer, certificate, chain: vec![] };
        let request = EnrollRequest { sans: vec![], ..ir(&ca.certificate.subject()) };
        let enrolled = enrol(&server, request, credentials, accepting(std::slice::from_ref(&ca.certificate)), asked);
        enrolled.unwrap_or_else(|error| panic!("{key_type} by {algorithm}: {error}"));
    }
}

#[test]
fn r3_the_server_verifies_our_proof_of_possession_of_every_kind() {
    let ca = Authority::root("/O=Lab/CN=Mock CA", KeyType::P256);
    for (key_type, algorithm) in SENT {
        let folder = folder();
        let asked: Arc<dyn Signer> = Arc::new(Using { signer: key(key_type), algorithm });
        write(&folder, "issued.crt", &ca.issue(&Leaf::new("/CN=dev1", asked.as_ref())).to_pem());
        let secret = "S3cret-of-dev1-with-128-bits";
        let server = MockServer::start(
            folder.path(),
            &["-srv_ref", "dev1", "-srv_secret", &format!("pass:{secret}"), "-rsp_cert", "issued.crt"],
        );
        let request = EnrollRequest { sans: vec![], ..ir(&ca.certificate.subject()) };
        let macs = AcceptedMacs::with_sha1();
        let acceptance = Acceptance { macs, ..accepting(std::slice::from_ref(&ca.certificate)) };
        let enrolled = enrol(&server, request, mac("dev1", secret), acceptance, asked);
        enrolled.unwrap_or_else(|error| panic!("{key_type} by {algorithm}: {error}"));
    }
}

#[test]
fn r3_a_proof_of_possession_of_another_key_is_noticed_by_the_server() {
    let ca = Authority::root("/O=Lab/CN=Mock CA", KeyType::P256);
    let folder = folder();
    let asked: Arc<dyn Signer> = Arc::new(Mistaken { says: key(KeyType::P256), signs: key(KeyType::P256) });
    write(&folder, "issued.crt", &ca.issue(&Leaf::new("/CN=dev1", asked.as_ref())).to_pem());
    let server = MockServer::start(
        folder.path(),
        &["-srv_ref", "dev1", "-srv_secret", "pass:S3cret-of-dev1-with-128-bits", "-rsp_cert", "issued.crt"],
    );
    let request = EnrollRequest { sans: vec![], ..ir(&ca.certificate.subject()) };
    let acceptance = Acceptance { macs: AcceptedMacs::with_sha1(), ..Acceptance::default() };
    let error = enrol(&server, request, mac("dev1", "S3cret-of-dev1-with-128-bits"), acceptance, asked).unwrap_err();
    assert!(error.contains("BadPop"), "{error}");
}

#[test]
fn p6_answers_signed_by_the_server_with_every_kind_that_it_can_are_taken() {
    // its digest is SHA-256 whatever the key, and has no option
    for (key_type, expected) in [
        (KeyType::Rsa2048, S::RsaSha256),
        (KeyType::Rsa3072, S::RsaSha256),
        (KeyType::P256, S::EcdsaSha256),
        (KeyType::P384, S::EcdsaSha256),
    ] {
        let ca = Authority::root("/O=Lab/CN=Mock CA", key_type);
        for accepted in [true, false] {
            let folder = folder();
            let asked = key(KeyType::P256);
            write(&folder, "ca.crt", &ca.certificate.to_pem());
            write(&folder, "ca.key", &ca.key.pkcs8_pem().unwrap());
            write(&folder, "issued.crt", &ca.issue(&Leaf::new("/CN=dev1", asked.as_ref())).to_pem());
            let server = MockServer::start(
                folder.path(),
                &["-srv_cert", "ca.crt", "-srv_key", "ca.key", "-srv_trusted", "ca.crt", "-rsp_cert", "issued.crt"],
            );
            let (identity_key, identity) = ca.identity("/CN=identity", KeyType::P256);
            let mut acceptance = accepting(std::slice::from_ref(&ca.certificate));
            if !accepted {
                acceptance.signatures.algorithms.retain(|algorithm| *algorithm != expected);
            }
            let request = EnrollRequest { sans: vec![], ..ir(&ca.certificate.subject()) };
            let credentials = support::signature(&identity_key, &identity);
            let outcome = enrol(&server, request, credentials, acceptance, asked);
            match outcome {
                Ok(_) => assert!(accepted, "{expected} was not accepted and still taken"),
                Err(error) if accepted => panic!("{key_type}: {error}"),
                Err(error) => assert!(error.contains(&format!("{expected} is not among those configured")), "{error}"),
            }
        }
    }
}

/// A key in a file that only the `openssl` command reads.
#[derive(Debug)]
struct ByOpenSsl {
    folder: PathBuf,
    algorithm: SignatureAlgorithm,
    spki: Vec<u8>,
}

impl ByOpenSsl {
    /// `key.pem` of the folder.
    fn new(folder: &Path, algorithm: SignatureAlgorithm) -> Self {
        run(folder, "pkey -in key.pem -pubout -outform DER -out key.spki");
        Self { folder: folder.to_owned(), algorithm, spki: fs::read(folder.join("key.spki")).unwrap() }
    }
}

impl Signer for ByOpenSsl {
    fn signature_algorithm(&self) -> SignatureAlgorithm {
        self.algorithm
    }

    fn sign_with(&self, algorithm: SignatureAlgorithm, message: &[u8]) -> Result<Vec<u8>, SignError> {
        let pss = "-pkeyopt rsa_padding_mode:pss -pkeyopt rsa_pss_saltlen:digest";
        let options = match algorithm {
            S::RsaPssSha256 => format!("-digest sha256 {pss}"),
            S::RsaPssSha384 => format!("-digest sha384 {pss}"),
            S::EcdsaSha384 => "-digest sha384".to_owned(),
            _ => String::new(),
        };
        fs::write(self.folder.join("tbs"), message).unwrap();
        run(&self.folder, &format!("pkeyutl -sign -rawin -inkey key.pem -in tbs -out sig {options}"));
        Ok(fs::read(self.folder.join("sig")).unwrap())
    }

    fn public_key_der(&self) -> &[u8] {
        &self.spki
    }
}

const PSS_OPTIONS: &str = "-pkeyopt rsa_keygen_bits:2048 -pkeyopt rsa_pss_keygen_md:sha256 \
                           -pkeyopt rsa_pss_keygen_mgf1_md:sha256 -pkeyopt rsa_pss_keygen_saltlen:32";

#[test]
fn p6_answers_signed_by_openssl_with_pss_and_ed25519_keys_are_taken() {
    for (genpkey, algorithm) in [
        ("-algorithm RSA -pkeyopt rsa_keygen_bits:2048".to_owned(), S::RsaPssSha384),
        ("-algorithm RSA-PSS -pkeyopt rsa_keygen_bits:2048".to_owned(), S::RsaPssSha256),
        (format!("-algorithm RSA-PSS {PSS_OPTIONS}"), S::RsaPssSha256),
        ("-algorithm ED25519".to_owned(), S::Ed25519),
        ("-algorithm EC -pkeyopt ec_paramgen_curve:P-384".to_owned(), S::EcdsaSha384),
    ] {
        let folder = folder();
        run(folder.path(), &format!("genpkey {genpkey} -out key.pem"));
        let signer = Arc::new(ByOpenSsl::new(folder.path(), algorithm));
        let mut world = World::new();
        let leaf = Leaf { usages: vec![support::CMC_RA], ..Leaf::new("/CN=RA", signer.as_ref()) };
        let certificate = world.ca.issue(&leaf);
        world.twist = Box::new(move |_, _, answer, _, protection| {
            let (signer, certificate): (Arc<dyn Signer>, _) = (signer.clone(), certificate.clone());
            *protection = ReplyProtection::Signature { signer, certificate, chain: vec![] };
            answer
        });
        let (identity_key, identity) = world.ca.identity("/CN=identity", KeyType::P256);
        let end = world.run(world.request(), support::signature(&identity_key, &identity));
        end.result.unwrap_or_else(|error| panic!("{genpkey} by {algorithm}: {error}"));
    }
}

#[test]
fn p1_a_signer_whose_key_is_elsewhere_protects_requests_and_proves_possession() {
    let folder = folder();
    run(folder.path(), "genpkey -algorithm ED25519 -out key.pem");
    let signer: Arc<dyn Signer> = Arc::new(ByOpenSsl::new(folder.path(), S::Ed25519));
    let mut world = World::new();
    let certificate = world.ca.issue(&Leaf::new("/CN=identity", signer.as_ref()));
    let credentials = Credentials::Signature { signer: Arc::clone(&signer), certificate, chain: vec![] };
    let acceptance = world.acceptance.clone();
    let started =
        Transaction::start(world.request(), credentials, acceptance, signer, &mut world.entropy, world.now).unwrap();
    // the responder verifies both
    world.read(&started.1);
}

/// Standard output of a command line.
fn output(folder: &Path, line: &str) -> Vec<u8> {
    let output = Command::new("openssl").args(line.split_whitespace()).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "openssl {line}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[test]
fn keys_go_to_openssl_and_come_from_it_plain_and_encrypted() {
    let folder = folder();
    for key_type in [KeyType::Rsa2048, KeyType::P256, KeyType::P384, KeyType::Ed25519] {
        let own = SoftwareKey::generate(key_type).unwrap();
        write(&folder, "own.pem", &own.pkcs8_pem().unwrap());
        write(&folder, "own.enc", &own.pkcs8_encrypted_pem(b"geheim").unwrap());
        for file in ["own.pem", "own.enc -passin pass:geheim"] {
            let spki = output(folder.path(), &format!("pkey -pubout -outform DER -in {file}"));
            assert_eq!(spki, own.public_key_der(), "{key_type} {file}");
        }
    }
    for genpkey in [
        "-algorithm RSA -pkeyopt rsa_keygen_bits:3072",
        "-algorithm EC -pkeyopt ec_paramgen_curve:P-256",
        "-algorithm EC -pkeyopt ec_paramgen_curve:P-384",
        "-algorithm ED25519",
    ] {
        run(folder.path(), &format!("genpkey {genpkey} -out key.pem"));
        let spki = output(folder.path(), "pkey -pubout -outform DER -in key.pem");
        let read = |file: &str| fs::read_to_string(folder.path().join(file)).unwrap();
        assert_eq!(SoftwareKey::from_pem(&read("key.pem")).unwrap().public_key_der(), spki, "{genpkey}");
        for scheme in ["-v2 aes-256-cbc", "-v2 aes-128-cbc -v2prf hmacWithSHA512", "-scrypt"] {
            run(folder.path(), &format!("pkcs8 -topk8 -in key.pem -out key.enc -passout pass:geheim {scheme}"));
            let key = SoftwareKey::from_encrypted_pem(&read("key.enc"), b"geheim");
            assert_eq!(key.unwrap().public_key_der(), spki, "{genpkey} {scheme}");
        }
    }
}

#[test]
fn r7_a_csr_signed_by_every_kind_of_key_is_verified_by_openssl() {
    use der::{Decode as _, Encode as _, EncodePem as _, pem::LineEnding};
    use x509_cert::request::{CertReq, CertReqInfo, Version};
    for (key_type, algorithm) in SENT {
        let folder = folder();
        let key = Using { signer: key(key_type), algorithm };
        let info = CertReqInfo {
            version: Version::V1,
            subject: x509_cert::name::Name::from_der(support::name("/CN=dev1").as_der()).unwrap(),
            public_key: spki::SubjectPublicKeyInfoOwned::from_der(key.public_key_der()).unwrap(),
            attributes: Default::default(),
        };
        let signature = key.sign(&info.to_der().unwrap()).unwrap();
        let csr = CertReq {
            info,
            algorithm: key.algorithm(),
            signature: der::asn1::BitString::from_bytes(&signature).unwrap(),
        };
        write(&folder, "own.csr", &csr.to_pem(LineEnding::LF).unwrap());
        let arguments = ["req", "-verify", "-noout", "-in", "own.csr"];
        let said = Command::new("openssl").args(arguments).current_dir(folder.path()).output().unwrap();
        let text = String::from_utf8_lossy(&said.stderr).into_owned() + &String::from_utf8_lossy(&said.stdout);
        assert!(said.status.success() && text.contains("verify OK"), "{key_type} by {algorithm}: {text}");
    }
}

#[test]
fn c4_an_ml_dsa_certificate_is_confirmed_with_hashalg_and_pvno_3() {
    for key_type in [KeyType::MlDsa44, KeyType::MlDsa65, KeyType::MlDsa87] {
        let ca = Authority::root("/O=Lab/CN=Issuing CA", key_type);
        let mut world = World { acceptance: accepting(std::slice::from_ref(&ca.certificate)), ca, ..World::new() };
        world.key = key(key_type);
        // all of it: proof of possession, protection both ways, the chain
        let (identity_key, identity) = world.ca.identity("/CN=identity", key_type);
        let (signer, certificate): (Arc<dyn Signer>, _) =
            (Arc::<SoftwareKey>::clone(&world.ca.key), world.ca.certificate.clone());
        world.twist = Box::new(move |_, _, answer, _, protection| {
            let (signer, certificate) = (Arc::clone(&signer), certificate.clone());
            *protection = ReplyProtection::Signature { signer, certificate, chain: vec![] };
            answer
        });
        let credentials = support::signature(&identity_key, &identity);
        let (transaction, message) = world.start(world.request(), credentials).unwrap();
        let answer = world.serve(&message);
        let step = transaction.handle(Input::Response(&answer), &mut world.entropy, world.now);
        let Step::Send { message, .. } = &step else { panic!("{step:?}") };
        let confirmation = PkiMessage::from_der(message).unwrap();
        assert_eq!(confirmation.header.pvno, 3);
        let PkiBody::CertConf(statuses) = &confirmation.body else { panic!() };
        assert_eq!(statuses[0].hash_alg.as_ref().unwrap().oid.to_string(), "2.16.840.1.101.3.4.2.1");
        let enrolled = world.go_on(step).enrolled();
        assert_eq!(world.taken, Some(true), "the responder found the hash right");
        let issued = PublicKey::from_spki_der(&enrolled.certificate.spki_der()).unwrap();
        assert_eq!(issued.algorithm().to_string(), key_type.to_string().to_uppercase());
    }
}

#[test]
fn c3_the_certhash_is_that_of_every_kind_of_ca() {
    for (key_type, octets) in [(KeyType::Rsa2048, 32), (KeyType::P256, 32), (KeyType::P384, 48), (KeyType::Ed25519, 64)]
    {
        let ca = Authority::root("/O=Lab/CN=Issuing CA", key_type);
        let mut world = World { acceptance: accepting(std::slice::from_ref(&ca.certificate)), ca, ..World::new() };
        world.run_mac().enrolled();
        let trustfleet_cmp::responder::Request::CertConf(status) = &world.heard[1].request else { panic!() };
        assert_eq!(status.cert_hash.as_bytes().len(), octets, "{key_type}");
        assert!(status.hash_alg.is_none());
        assert_eq!(world.taken, Some(true));
    }
}

struct Known(Certificate);

impl Trust for Known {
    fn secret(&self, _: &[u8]) -> Option<zeroize::Zeroizing<Vec<u8>>> {
        None
    }

    fn anchors(&self) -> Vec<Certificate> {
        vec![self.0.clone()]
    }
}

#[test]
fn p6_requests_signed_by_openssl_with_other_hashes_are_read_and_those_with_sha1_refused() {
    for (genpkey, digest, accepted) in [
        ("-algorithm RSA -pkeyopt rsa_keygen_bits:2048", "sha384", true),
        ("-algorithm RSA -pkeyopt rsa_keygen_bits:2048", "sha512", true),
        ("-algorithm EC -pkeyopt ec_paramgen_curve:P-384", "sha384", true),
        ("-algorithm EC -pkeyopt ec_paramgen_curve:P-256", "sha512", true),
        ("-algorithm RSA -pkeyopt rsa_keygen_bits:2048", "sha1", false),
        ("-algorithm EC -pkeyopt ec_paramgen_curve:P-256", "sha1", false),
    ] {
        let folder = folder();
        run(folder.path(), &format!("genpkey {genpkey} -out key.pem"));
        run(folder.path(), "req -x509 -new -key key.pem -subj /O=Lab/CN=identity -days 30 -out own.crt");
        // nobody listens on port 1: the request is written before it is sent
        let line = "cmp -config  -cmd ir -server 127.0.0.1:1 -path pkix/ -recipient /CN=CA -cert own.crt -key key.pem \
                    -newkey key.pem -subject /CN=dev1 -certout out.crt -reqout request.der -total_timeout 5";
        let mut arguments: Vec<&str> = line.split_whitespace().collect();
        arguments.insert(2, "");
        arguments.extend(["-digest", digest]);
        let output = Command::new("openssl").args(arguments).current_dir(folder.path()).output().unwrap();
        let request = fs::read(folder.path().join("request.der"));
        let request = request.unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
        let own = Certificate::from_pem(&fs::read_to_string(folder.path().join("own.crt")).unwrap()).unwrap();
        let received = receive(&request, &Known(own), &ResponderPolicy::default(), now());
        match received {
            Ok(_) => assert!(accepted, "{genpkey} by {digest}"),
            Err(rejected) => {
                assert!(!accepted, "{genpkey} by {digest}: {}", rejected.error);
                assert_eq!(rejected.error.code(), "protection_algorithm_not_accepted");
            }
        }
    }
}
