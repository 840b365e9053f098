//! The same renewals without the system: the client library straight to the CA, with the devices' own keys and certificates.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use trustfleet_agent::cmp_http::{CmpHttp, Reach};
use trustfleet_cmp::{
    Acceptance, Credentials, EnrollRequest, Input, RequestKind, Signer, SoftwareKey, Step, SystemEntropy, Transaction,
    key::KeyType,
};
use trustfleet_model::clock::{Clock as _, SystemClock};
use trustfleet_pki::certificate::Certificate;
use ureq::tls::RootCerts;

use super::super::BenchError;

const TIMEOUT: Duration = Duration::from_secs(30);

/// A device's certificate with its key.
pub(super) struct Device {
    key: Arc<SoftwareKey>,
    certificate: Certificate,
    chain: Vec<Certificate>,
}

/// Reads what the agents below `dir` have in use.
///
/// # Errors
/// A file cannot be read.
pub(super) fn devices(dir: &Path, names: &[String]) -> Result<Vec<Device>, BenchError> {
    let read = |path: &Path| fs::read_to_string(path).map_err(BenchError::io(format!("reading {}", path.display())));
    names
        .iter()
        .map(|name| {
            let number = name.split('-').nth(1).unwrap_or_default();
            let folder = dir.join(format!("agent-{number}/devices/{name}/default/current"));
            let key =
                SoftwareKey::from_pem(&read(&folder.join("key.pem"))?).map_err(BenchError::odd("a device's key"))?;
            let odd = || BenchError::odd("a device's certificate");
            let certificate = Certificate::from_pem(&read(&folder.join("certificate.pem"))?).map_err(odd())?;
            let chain = fs::read_to_string(folder.join("chain.pem")).unwrap_or_default();
            let chain = Certificate::pem_bundle(&chain).unwrap_or_default();
            Ok(Device { key: Arc::new(key), certificate, chain })
        })
        .collect()
}

/// Renews all of them once, `at_once` at a time; how long that takes. The new certificates are thrown away.
///
/// # Errors
/// An exchange does not end with a certificate.
pub(super) fn renew_all(
    devices: &[Device],
    url: &str,
    root: &Certificate,
    at_once: usize,
) -> Result<Duration, BenchError> {
    let next = AtomicUsize::new(0);
    let begin = Instant::now();
    let worker = || -> Result<(), BenchError> {
        while let Some(device) = devices.get(next.fetch_add(1, Ordering::Relaxed)) {
            renew(device, url, root)?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..at_once).map(|_| scope.spawn(worker)).collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().unwrap_or_else(|_| Err(BenchError::Odd("a thread died".to_owned()))))
    })?;
    Ok(begin.elapsed())
}

fn renew(device: &Device, url: &str, root: &Certificate) -> Result<(), BenchError> {
    let http = CmpHttp::reaching(Reach::from(RootCerts::from(Vec::new())));
    let request = EnrollRequest {
        kind: RequestKind::Kur,
        subject: device.certificate.subject(),
        sans: device.certificate.sans(),
        recipient: device.certificate.issuer(),
        sender: None,
        old_certificate: Some(device.certificate.clone()),
        implicit_confirm: false,
        extra_certs: Vec::new(),
        extensions: Vec::new(),
        cert_profile: None,
        validity: None,
    };
    let signer: Arc<dyn Signer> = Arc::<SoftwareKey>::clone(&device.key);
    let (certificate, chain) = (device.certificate.clone(), device.chain.clone());
    let credentials = Credentials::Signature { signer, certificate, chain };
    let acceptance = Acceptance { anchors: vec![root.clone()], ..Acceptance::default() };
    let key = Arc::new(SoftwareKey::generate(KeyType::P256).map_err(BenchError::odd("a new key"))?);
    let (mut entropy, now) = (SystemEntropy, || SystemClock.now());
    let (transaction, message) = Transaction::start(request, credentials, acceptance, key, &mut entropy, now())?;
    let mut step = Step::Send { transaction: Box::new(transaction), message };
    loop {
        step = match step {
            Step::Send { transaction, message } => {
                let answer = http.post(url, &message, TIMEOUT).map_err(BenchError::odd("the lab CA"))?;
                transaction.handle(Input::Response(&answer), &mut entropy, now())
            }
            Step::Done(_) => return Ok(()),
            Step::Failed { error, .. } => return Err(error.into()),
            Step::Wait { .. } | Step::Concluded(_) => {
                return Err(BenchError::Odd("the lab CA lets a renewal wait".to_owned()));
            }
        };
    }
}
