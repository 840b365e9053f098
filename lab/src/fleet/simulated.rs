//! Agents by their words alone: they take signed jobs, make up an exchange, and report as real ones do, signed.
//!
//! A real agent needs its own token and so its own connection to the broker, a state folder, a key and the CA's time for each
//! exchange; a hundred thousand devices of those do not fit on the machine that carries the controller, too. These share a few
//! connections of the broker's administrator, and their certificates are copies of a real one with
//! a serial number and a key of their own, whose signature nobody checks. Whatever the controller, the database and the
//! broker do is as with real ones, message by message.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use aws_lc_rs::{digest, rand};
use futures_util::StreamExt as _;
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
        QueueBindOptions, QueueDeclareOptions,
    },
    types::{AMQPValue, FieldTable},
};
use tokio::task::JoinHandle;
use trustfleet_model::{
    clock::{Clock as _, SystemClock},
    ids::{AgentId, MessageId},
};
use trustfleet_pki::Certificate;
use trustfleet_wire::{
    Envelope,
    routing::{JOBS_EXCHANGE, REPORTS_EXCHANGE, agent_queue},
    sign::{Purpose, SigningKey},
    v1::{Blob, Event, FromAgent, Issued, Job, Receipt, Report, Task, ToAgent},
};
use url::Url;

use super::gate::ask_once;

/// As the controller declares the queues of agents: thirty days without a reader.
const QUEUE_EXPIRES_MS: i64 = 30 * 24 * 3600 * 1000;
/// Unanswered messages of each agent.
const PREFETCH: u16 = 16;

/// Why the agents cannot work.
#[derive(Debug, thiserror::Error)]
pub enum SimulatedError {
    /// The broker.
    #[error("the broker refused")]
    Broker(#[from] lapin::Error),
    /// The certificate to be copied.
    #[error("the certificate that all are copies of does not do: {0}")]
    Sample(String),
}

/// A real certificate, out of which others are made.
#[derive(Clone, Debug)]
pub struct Sample {
    der: Vec<u8>,
    chain: Vec<Blob>,
    /// Where its serial number stands, and where some bytes of its public key do.
    serial: (usize, usize),
    key: (usize, usize),
    spki: (usize, usize),
}

impl Sample {
    /// Copies of `der`, with `chain` beside them.
    ///
    /// # Errors
    /// It is no certificate, or has a serial number or key that is too short to be told apart.
    pub fn new(der: Vec<u8>, chain: Vec<Vec<u8>>) -> Result<Self, SimulatedError> {
        let wrong = |text: &str| SimulatedError::Sample(text.to_owned());
        let read = Certificate::from_der(&der).map_err(|error| SimulatedError::Sample(error.to_string()))?;
        let number = hex::decode(read.serial_hex()).map_err(|_| wrong("its serial number is odd"))?;
        let place = |part: &[u8]| der.windows(part.len()).position(|window| window == part);
        let serial = place(&number).filter(|_| number.len() >= 8).ok_or_else(|| wrong("its serial number is short"))?;
        let public = read.spki_der();
        let spki = place(&public).filter(|_| public.len() >= 64).ok_or_else(|| wrong("its key is short"))?;
        let end = spki + public.len();
        Ok(Self {
            chain: chain.into_iter().map(Blob).collect(),
            // The first byte stays: it says that the number is positive.
            serial: (serial + 1, serial + number.len()),
            key: (end - 40, end - 24),
            spki: (spki, end),
            der,
        })
    }

    /// One more, by sixteen bytes of chance; its serial number and its key's fingerprint.
    fn fresh(&self, random: [u8; 16]) -> (Vec<u8>, String, String) {
        let mut der = self.der.clone();
        for (from, to) in [self.serial, self.key] {
            for (byte, random) in der[from..to].iter_mut().zip(random) {
                *byte = random;
            }
        }
        let serial = hex::encode_upper(&der[self.serial.0 - 1..self.serial.1]);
        let fingerprint = digest::digest(&digest::SHA256, &der[self.spki.0..self.spki.1]);
        (der, serial, hex::encode(fingerprint))
    }
}

/// What all of them share.
struct Shared {
    sample: Sample,
    /// Asked once for each exchange.
    ca: Option<SocketAddr>,
    /// What is said when the report of the issue is answered for.
    after: Mutex<HashMap<MessageId, Said>>,
    counts: Counts,
}

/// What they have done so far.
#[derive(Debug, Default)]
pub struct Counts {
    /// Jobs that were begun.
    pub jobs: AtomicU64,
    /// Reports that the broker has.
    pub reports: AtomicU64,
    /// Bytes of them.
    pub report_bytes: AtomicU64,
    /// Messages that came, receipts among them.
    pub messages: AtomicU64,
    /// Bytes of them.
    pub message_bytes: AtomicU64,
    /// Reports that the controller refused, and exchanges that the CA's stand-in did not answer.
    pub failures: AtomicU64,
}

/// Running agents; they end when this is dropped.
pub struct Simulated {
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
    _connections: Vec<Connection>,
}

impl std::fmt::Debug for Simulated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Simulated").field("counts", &self.shared.counts).finish_non_exhaustive()
    }
}

impl Drop for Simulated {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Simulated {
    /// Starts `agents` on `connections` connections to `broker` as its administrator. The controller must have declared its
    /// exchanges, and must know their keys.
    ///
    /// # Errors
    /// The broker's.
    pub async fn start(
        broker: &Url,
        connections: usize,
        agents: Vec<(AgentId, SigningKey)>,
        sample: Sample,
        ca: Option<SocketAddr>,
    ) -> Result<Self, SimulatedError> {
        let shared = Arc::new(Shared { sample, ca, after: Mutex::default(), counts: Counts::default() });
        let (mut open, mut tasks) = (Vec::new(), Vec::new());
        let each = agents.len().div_ceil(connections.max(1)).max(1);
        let mut agents = agents.into_iter().peekable();
        while agents.peek().is_some() {
            let connection = Connection::connect(broker.as_str(), ConnectionProperties::default()).await?;
            let publish = connection.create_channel().await?;
            publish.confirm_select(ConfirmSelectOptions::default()).await?;
            let consume = connection.create_channel().await?;
            consume.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
            for (agent, key) in agents.by_ref().take(each) {
                let consumer = queue(&consume, agent).await?;
                tasks.push(tokio::spawn(work(Arc::clone(&shared), key, publish.clone(), consumer)));
            }
            open.push(connection);
        }
        Ok(Self { shared, tasks, _connections: open })
    }

    /// What they have done so far.
    pub fn counts(&self) -> &Counts {
        &self.shared.counts
    }
}

async fn queue(channel: &Channel, agent: AgentId) -> Result<Consumer, lapin::Error> {
    let name = agent_queue(agent);
    let mut arguments = FieldTable::default();
    arguments.insert("x-expires".into(), AMQPValue::LongLongInt(QUEUE_EXPIRES_MS));
    channel.queue_declare(name.as_str().into(), QueueDeclareOptions::durable(), arguments).await?;
    let (options, nothing) = (QueueBindOptions::default(), FieldTable::default());
    channel.queue_bind(name.as_str().into(), JOBS_EXCHANGE.into(), name.as_str().into(), options, nothing).await?;
    channel.basic_consume(name.as_str().into(), "".into(), BasicConsumeOptions::default(), FieldTable::default()).await
}

/// One agent: a message after the other, acknowledged when the broker has what follows from it.
async fn work(shared: Arc<Shared>, key: SigningKey, publish: Channel, mut consumer: Consumer) {
    while let Some(Ok(delivery)) = consumer.next().await {
        shared.counts.messages.fetch_add(1, Ordering::Relaxed);
        shared.counts.message_bytes.fetch_add(delivery.data.len() as u64, Ordering::Relaxed);
        let message = Envelope::from_bytes(&delivery.data).and_then(|envelope| envelope.peek::<ToAgent>());
        let told = match message {
            Ok(ToAgent::Job(job)) => job_done(&shared, &key, &publish, &job).await,
            Ok(ToAgent::Receipt(receipt)) => receipt_came(&shared, &publish, &receipt).await,
            _ => true,
        };
        if !told {
            shared.counts.failures.fetch_add(1, Ordering::Relaxed);
        }
        if delivery.acker.ack(BasicAckOptions::default()).await.is_err() {
            return;
        }
    }
}

/// One job from its order to the report of the issue; false when something did not work.
async fn job_done(shared: &Shared, key: &SigningKey, publish: &Channel, job: &Job) -> bool {
    if job.start_before <= SystemClock.now() {
        let Some(late) = Said::of(key, job, Event::PermitExpired) else { return false };
        return tell(shared, publish, late).await;
    }
    let Task::Enroll(order) = &job.task else { return true };
    let Some(random) = random() else { return false };
    shared.counts.jobs.fetch_add(1, Ordering::Relaxed);
    let (der, serial, fingerprint) = shared.sample.fresh(random);
    let file = format!("/var/lib/device/{}/current/certificate.pem", job.device);
    let issued = Event::Issued(Box::new(Issued {
        certificate: Blob(der),
        chain: shared.sample.chain.clone(),
        transaction_id: hex::encode(random),
        status: "accepted".to_owned(),
        implicitly_confirmed: true,
        duration_ms: 1,
        polls: 0,
        file: file.clone(),
        warnings: Vec::new(),
        transcript: Vec::new(),
    }));
    let started = Said::of(key, job, Event::Started { public_key_sha256: fingerprint });
    let (Some(started), Some(issued)) = (started, Said::of(key, job, issued)) else { return false };
    if !tell(shared, publish, started).await {
        return false;
    }
    if let Some(ca) = shared.ca
        && ask_once(ca).await.is_err()
    {
        return false;
    }
    if order.activate {
        let Some(activated) = Said::of(key, job, Event::Activated { serial, file, in_service: None }) else {
            return false;
        };
        // Not before the controller has the issue: until then it would be too early, and repeated.
        shared.after.lock().unwrap_or_else(PoisonError::into_inner).insert(issued.id, activated);
    }
    tell(shared, publish, issued).await
}

async fn receipt_came(shared: &Shared, publish: &Channel, receipt: &Receipt) -> bool {
    let next = shared.after.lock().unwrap_or_else(PoisonError::into_inner).remove(&receipt.report_id);
    match next {
        Some(next) if receipt.refused.is_none() => tell(shared, publish, next).await,
        _ => receipt.refused.is_none(),
    }
}

/// A signed report.
struct Said {
    id: MessageId,
    routing_key: String,
    bytes: Vec<u8>,
}

impl Said {
    /// `None`: the system has no random bytes.
    fn of(key: &SigningKey, job: &Job, event: Event) -> Option<Self> {
        let (now, random) = (SystemClock.now(), random()?);
        let mut id = [0; 10];
        id.copy_from_slice(&random[..10]);
        let report = Report {
            report_id: MessageId::fresh(now, id),
            tenant_id: job.tenant_id,
            agent_id: job.agent_id,
            device_id: job.device_id,
            trustpoint_id: job.trustpoint_id,
            job_id: job.job_id,
            sequence: job.sequence,
            lease_id: None,
            server: None,
            at: now,
            traceparent: None,
            event,
        };
        let id = report.report_id;
        let envelope = Envelope::seal(&FromAgent::Report(Box::new(report)), Purpose::FromAgent, key).ok()?;
        Some(Self { id, routing_key: job.reply_to.clone(), bytes: envelope.to_bytes().ok()? })
    }
}

/// Publishes a report; true when the broker has it for sure.
async fn tell(shared: &Shared, channel: &Channel, said: Said) -> bool {
    let properties = BasicProperties::default().with_content_type("application/json".into()).with_delivery_mode(2);
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let (exchange, key) = (REPORTS_EXCHANGE.into(), said.routing_key.as_str().into());
    let Ok(confirm) = channel.basic_publish(exchange, key, options, &said.bytes, properties).await else {
        return false;
    };
    shared.counts.reports.fetch_add(1, Ordering::Relaxed);
    shared.counts.report_bytes.fetch_add(said.bytes.len() as u64, Ordering::Relaxed);
    matches!(confirm.await, Ok(Confirmation::Ack(None)))
}

fn random() -> Option<[u8; 16]> {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_of_a_certificate_can_be_read_and_told_apart() {
        let key = rcgen::KeyPair::generate().unwrap();
        let made = rcgen::CertificateParams::new(vec!["ap-1.example".to_owned()]).unwrap().self_signed(&key).unwrap();
        let sample = Sample::new(made.der().to_vec(), Vec::new()).unwrap();
        let copies = [sample.fresh([7; 16]), sample.fresh([8; 16])];
        for (der, serial, fingerprint) in &copies {
            let read = Certificate::from_der(der).unwrap();
            assert_eq!((&read.serial_hex(), &hex::encode(read.public_key().fingerprint())), (serial, fingerprint));
            assert_eq!(read.subject(), Certificate::from_der(made.der()).unwrap().subject());
        }
        assert!(copies[0].1 != copies[1].1 && copies[0].2 != copies[1].2);
    }
}
