//! The engine and the agent's HTTP client in this process, with the settings of the processes.

use std::{fs, sync::Arc, time::Duration};

use jiff::Timestamp;
use trustfleet_agent::cmp_http::{CmpHttp, Reach};
use trustfleet_cmp::{
    Acceptance, Credentials, EnrollRequest, Enrolled, Entropy, Input, RequestKind, Signer, SoftwareKey, Step,
    SystemEntropy, Transaction,
    protection::{AcceptedMacs, Hash, MacPolicy},
};
use trustfleet_model::clock::{Clock as _, SystemClock};
use trustfleet_pki::{certificate::Certificate, name::Name, san::San};
use ureq::tls::RootCerts;

use super::super::{
    BenchError,
    mock::{CA, ITERATIONS, Mock, REFERENCE, SAN, SECRET, SUBJECT},
};

const TIMEOUT: Duration = Duration::from_secs(20);

/// Everything that is ready before an exchange begins.
#[derive(Debug)]
pub(super) struct Client {
    http: CmpHttp,
    url: String,
    request: EnrollRequest,
    credentials: Credentials,
    acceptance: Acceptance,
    pub(super) key: Arc<SoftwareKey>,
    pub(super) ca_key: SoftwareKey,
}

impl Client {
    /// Reads the mock server's files.
    ///
    /// # Errors
    /// One of them cannot be read.
    pub(super) fn new(mock: &Mock) -> Result<Self, BenchError> {
        let read = |name: &str| {
            let path = mock.folder().join(name);
            fs::read_to_string(&path).map_err(BenchError::io(format!("reading {}", path.display())))
        };
        let key = |name: &str| SoftwareKey::from_pem(&read(name)?).map_err(BenchError::odd("a key of the mock server"));
        let name = |text: &str| Name::parse(text).map_err(BenchError::odd("a name of the mock server"));
        let anchor = Certificate::from_pem(&read("ca.pem")?).map_err(BenchError::odd("the mock server's CA"))?;
        let request = EnrollRequest {
            kind: RequestKind::Ir,
            subject: name(SUBJECT)?,
            sans: vec![San::parse("dns", SAN).map_err(BenchError::odd("an alternative name"))?],
            recipient: name(CA)?,
            sender: None,
            old_certificate: None,
            implicit_confirm: true,
            extra_certs: Vec::new(),
            extensions: Vec::new(),
            cert_profile: None,
            validity: None,
        };
        let mac = MacPolicy { iterations: ITERATIONS, ..MacPolicy::of(Hash::Sha256) };
        let (reference, secret) = (REFERENCE.as_bytes().to_vec(), SECRET.as_bytes().to_vec().into());
        Ok(Self {
            http: CmpHttp::reaching(Reach::from(RootCerts::from(Vec::new()))),
            url: mock.url(),
            request,
            credentials: Credentials::Mac { reference, secret, mac },
            acceptance: Acceptance {
                macs: AcceptedMacs::with_sha1(),
                enrolment_anchors: vec![anchor],
                ..Acceptance::default()
            },
            key: Arc::new(key("device.key")?),
            ca_key: key("ca.key")?,
        })
    }

    /// One exchange at the server.
    ///
    /// # Errors
    /// It does not end with a certificate.
    pub(super) fn exchange(&self) -> Result<Enrolled, BenchError> {
        self.converse(&mut SystemEntropy, SystemClock.now(), |message| self.post(message))
    }

    /// One exchange with whoever answers.
    ///
    /// # Errors
    /// It does not end with a certificate.
    pub(super) fn converse(
        &self,
        entropy: &mut dyn Entropy,
        now: Timestamp,
        mut answer: impl FnMut(&[u8]) -> Result<Vec<u8>, BenchError>,
    ) -> Result<Enrolled, BenchError> {
        let key: Arc<dyn Signer> = Arc::<SoftwareKey>::clone(&self.key);
        let (request, credentials) = (self.request.clone(), self.credentials.clone());
        let (transaction, message) =
            Transaction::start(request, credentials, self.acceptance.clone(), key, entropy, now)?;
        match transaction.handle(Input::Response(&answer(&message)?), entropy, now) {
            Step::Done(enrolled) => Ok(*enrolled),
            Step::Failed { error, .. } => Err(error.into()),
            _ => Err(BenchError::Odd("the server has not confirmed implicitly, as it was told to".to_owned())),
        }
    }

    /// What the server answers.
    ///
    /// # Errors
    /// It does not.
    pub(super) fn post(&self, message: &[u8]) -> Result<Vec<u8>, BenchError> {
        self.http.post(&self.url, message, TIMEOUT).map_err(BenchError::odd("the mock server"))
    }
}
