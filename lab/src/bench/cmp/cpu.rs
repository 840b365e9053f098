//! CPU time of the client's half, from an exchange that OpenSSL's server has answered once.
//!
//! The exchange is gone through again with the same randomness, key and time, so that the recorded answer fits: all is
//! computed as if it came from the server, and the server and the sockets cost nothing. Fresh randomness is drawn as
//! well, and thrown away.

use aws_lc_rs::{
    digest, hmac, rand,
    rand::SystemRandom,
    rsa::KeyPair as RsaKeyPair,
    signature::{self, KeyPair as _, UnparsedPublicKey},
};
use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};
use trustfleet_cmp::{Entropy, SoftwareKey, SystemEntropy, codec::PkiMessage, entropy::EntropyFailed, show};
use trustfleet_model::clock::{Clock as _, SystemClock};

use super::{
    super::{
        BenchError,
        mock::{ITERATIONS, SECRET},
    },
    client::Client,
};

/// Exchanges between two looks at the clock.
const AT_ONCE: u32 = 10;
/// Octets of a salt, as both sides send it.
const SALT: [u8; 16] = [0x5a; 16];

/// An exchange with its answer.
#[derive(Debug)]
pub(super) struct Recorded<'a> {
    client: &'a Client,
    now: Timestamp,
    drawn: Vec<Vec<u8>>,
    answer: Vec<u8>,
    operations: Operations,
}

impl<'a> Recorded<'a> {
    /// Has one exchange with the server and remembers it.
    ///
    /// # Errors
    /// It fails, or the server is not protected as this file takes for granted.
    pub(super) fn of(client: &'a Client) -> Result<Self, BenchError> {
        let (now, mut entropy) = (SystemClock.now(), Recording::default());
        let (mut message, mut answer) = (Vec::new(), Vec::new());
        let enrolled = client.converse(&mut entropy, now, |sent| {
            message = sent.to_vec();
            answer = client.post(sent)?;
            Ok(answer.clone())
        })?;
        let certificate = enrolled.certificate.as_der().len();
        let operations = Operations::of(client, &message, &answer, certificate)?;
        let recorded = Self { client, now, drawn: entropy.drawn, answer, operations };
        let again = recorded.exchange()?;
        if again == message {
            return Ok(recorded);
        }
        Err(BenchError::Odd("the same exchange has not led to the same message".to_owned()))
    }

    /// CPU time of one exchange, microseconds.
    ///
    /// # Errors
    /// It fails.
    pub(super) fn exchange_us(&self) -> Result<f64, BenchError> {
        cpu_us(|| self.exchange().map(drop))
    }

    /// CPU time of its cryptographic operations, microseconds.
    ///
    /// # Errors
    /// The library refuses.
    pub(super) fn cryptography_us(&self) -> Result<f64, BenchError> {
        cpu_us(|| self.operations.perform())
    }

    /// Gives the request.
    fn exchange(&self) -> Result<Vec<u8>, BenchError> {
        let mut entropy = Replaying { drawn: self.drawn.iter() };
        let mut message = Vec::new();
        self.client.converse(&mut entropy, self.now, |sent| {
            message = sent.to_vec();
            Ok(self.answer.clone())
        })?;
        Ok(message)
    }
}

fn cpu_us(mut run: impl FnMut() -> Result<(), BenchError>) -> Result<f64, BenchError> {
    let now = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
    };
    let begin = now();
    for _ in 0..AT_ONCE {
        run()?;
    }
    Ok((now() - begin) / f64::from(AT_ONCE))
}

#[derive(Default)]
struct Recording {
    drawn: Vec<Vec<u8>>,
}

impl Entropy for Recording {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), EntropyFailed> {
        SystemEntropy.fill(buffer)?;
        self.drawn.push(buffer.to_vec());
        Ok(())
    }
}

struct Replaying<'a> {
    drawn: std::slice::Iter<'a, Vec<u8>>,
}

impl Entropy for Replaying<'_> {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), EntropyFailed> {
        SystemEntropy.fill(buffer)?;
        let drawn = self.drawn.next().filter(|drawn| drawn.len() == buffer.len()).ok_or(EntropyFailed)?;
        buffer.copy_from_slice(drawn);
        Ok(())
    }
}

/// What an exchange cannot do without, over as many bytes: transactionID, nonce and salt; the request's MAC key, MAC and
/// proof of possession; the answer's MAC key and MAC; the certificate's signature by its anchor.
#[derive(Debug)]
struct Operations {
    signs: RsaKeyPair,
    anchor: UnparsedPublicKey<Vec<u8>>,
    request: Vec<u8>,
    template: Vec<u8>,
    answer: Vec<u8>,
    answer_mac: hmac::Tag,
    certificate: Vec<u8>,
    certificate_signature: Vec<u8>,
}

impl Operations {
    fn of(client: &Client, message: &[u8], answer: &[u8], certificate: usize) -> Result<Self, BenchError> {
        let unreadable = |_| BenchError::Odd("a recorded message cannot be read".to_owned());
        let read = |der: &[u8]| PkiMessage::from_der(der).map_err(|error| BenchError::Odd(error.to_string()));
        let (sent, came) = (read(message)?, read(answer)?);
        let told = show::lines(&came).join("\n");
        if !told.contains(&format!("{ITERATIONS} iterations")) {
            return Err(BenchError::Odd(format!(
                "the mock server's MAC is not the one that is reckoned with:\n{told}"
            )));
        }
        let request = sent.protected_part().map_err(unreadable)?;
        let covered = came.protected_part().map_err(unreadable)?;
        let pair = |key: &SoftwareKey| RsaKeyPair::from_pkcs8(key.pkcs8_der()).map_err(BenchError::odd("an RSA key"));
        let issuer = pair(&client.ca_key)?;
        // What is signed in a certificate is the certificate without its signature of 256 octets and some 20 around it.
        let certificate = vec![0x5a; certificate.saturating_sub(276)];
        let certificate_signature = sign(&issuer, &certificate)?;
        Ok(Self {
            signs: pair(&client.key)?,
            anchor: UnparsedPublicKey::new(
                &signature::RSA_PKCS1_2048_8192_SHA256,
                issuer.public_key().as_ref().to_vec(),
            ),
            // The signature of the proof of possession and the header are not part of what it signs.
            template: request[request.len() / 4..request.len() - 276].to_vec(),
            request,
            answer_mac: hmac::sign(&mac_key(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY), &covered),
            answer: covered,
            certificate,
            certificate_signature,
        })
    }

    fn perform(&self) -> Result<(), BenchError> {
        let refused = |_| BenchError::Odd("aws-lc-rs refused".to_owned());
        for _ in 0..3 {
            rand::fill(&mut [0; 16]).map_err(refused)?;
        }
        std::hint::black_box(sign(&self.signs, &self.template)?);
        std::hint::black_box(hmac::sign(&mac_key(hmac::HMAC_SHA256), &self.request));
        let key = mac_key(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY);
        hmac::verify(&key, &self.answer, self.answer_mac.as_ref()).map_err(refused)?;
        self.anchor.verify(&self.certificate, &self.certificate_signature).map_err(refused)
    }
}

fn sign(key: &RsaKeyPair, message: &[u8]) -> Result<Vec<u8>, BenchError> {
    let mut signed = vec![0; key.public_modulus_len()];
    key.sign(&signature::RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signed)
        .map_err(|_| BenchError::Odd("aws-lc-rs refused to sign".to_owned()))?;
    Ok(signed)
}

/// The password-based MAC's key (RFC 4211 section 4.4).
fn mac_key(algorithm: hmac::Algorithm) -> hmac::Key {
    let mut key = digest::digest(&digest::SHA256, &[SECRET.as_bytes(), &SALT].concat());
    for _ in 1..ITERATIONS {
        key = digest::digest(&digest::SHA256, key.as_ref());
    }
    hmac::Key::new(algorithm, key.as_ref())
}
