//! An agent with everything but its broker, and the controller's half of the conversation.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use trustfleet_agent::clock::AgentClock;
use trustfleet_agent::cmp_http::CmpHttp;
use trustfleet_agent::config::Config;
use trustfleet_agent::controller_link::{Incoming, Publication, Verdict};
use trustfleet_agent::core::Core;
use trustfleet_agent::driver;
use trustfleet_agent::identity::Identity;
use trustfleet_agent::keys::{FileKeyStore, IdentityKeys};
use trustfleet_agent::nodes::Nodes;
use trustfleet_agent::session::Membership;
use trustfleet_agent::store::Store;
use trustfleet_agent::tls_roots::TlsRoots;
use trustfleet_model::clock::{Clock as _, SystemClock};
use trustfleet_model::ids::{AgentId, JobId};
use trustfleet_wire::Envelope;
use trustfleet_wire::seal::{SealContext, seal};
use trustfleet_wire::sign::{Purpose, SigningKey};
use trustfleet_wire::v1::{
    Blob, Enroll, Event, Failed, FromAgent, Issued, Job, LeaseAnswer, Mac, Receipt, Report, Request, San, Stop, Task,
    ToAgent,
};

use crate::ca::{REFERENCE, SECRET, TestCa};

const LIMIT: Duration = Duration::from_secs(30);

/// The device and its controller; the agent itself can be stopped, killed and started again.
pub struct House {
    pub dir: tempfile::TempDir,
    pub controller_key: SigningKey,
    pub agent_id: AgentId,
    pub answer_reports: Arc<Mutex<bool>>,
    /// Whether the broker takes what the agent publishes; until then it holds it back, unconfirmed and unseen.
    pub broker_confirms: Arc<AtomicBool>,
    /// How many publications the broker has been offered.
    pub offered: Arc<AtomicUsize>,
    /// More of the agent's configuration file, from its next start on.
    pub config: String,
    reports: Arc<Mutex<Vec<Report>>>,
    answers: Arc<Mutex<Vec<LeaseAnswer>>>,
    sign_key: Vec<u8>,
    seal_key: Vec<u8>,
    running: Option<Running>,
}

struct Running {
    incoming: mpsc::Sender<Incoming>,
    stop: watch::Sender<bool>,
    driver: JoinHandle<()>,
    controller: JoinHandle<()>,
}

impl House {
    pub async fn start() -> Self {
        Self::configured("").await
    }

    /// With more in the agent's configuration file.
    pub async fn configured(config: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("state")).unwrap();
        let keys = IdentityKeys::load_or_make(&store).unwrap();
        let mut house = Self {
            dir,
            controller_key: SigningKey::generate().unwrap(),
            agent_id: uuid::Uuid::from_u128(0xa1).into(),
            answer_reports: Arc::new(Mutex::new(true)),
            broker_confirms: Arc::new(AtomicBool::new(true)),
            offered: Arc::default(),
            config: config.to_owned(),
            reports: Arc::default(),
            answers: Arc::default(),
            sign_key: keys.sign.public_key(),
            seal_key: keys.open.public_key(),
            running: None,
        };
        house.start_agent().await;
        house
    }

    pub fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub fn trustpoint(&self) -> PathBuf {
        self.state().join("devices/ap-1/dot1x")
    }

    /// Starts an agent on the state folder, linked at once.
    pub async fn start_agent(&mut self) {
        let store = Store::open(&self.state()).unwrap();
        let keys = IdentityKeys::load_or_make(&store).unwrap();
        let text = format!(
            "controller_url = \"http://127.0.0.1:1\"\nstate_dir = {:?}\nname = \"ap-1\"\n{}\n",
            self.state().display().to_string(),
            self.config
        );
        let file = self.dir.path().join("agent.toml");
        std::fs::write(&file, text).unwrap();
        let config = Config::load(&file).unwrap();
        let identity = Arc::new(Identity {
            nodes: Nodes::load(&store, &config.pairs),
            roots: trustfleet_agent::roots::FollowingRoots::default(),
            config,
            membership: Membership {
                version: 1,
                tenant_id: uuid::Uuid::from_u128(1).into(),
                agent_id: self.agent_id,
                name: "ap-1".to_owned(),
                controller_key: Blob(self.controller_key.public_key()),
                joined_at: Timestamp::UNIX_EPOCH,
            },
            keys,
            clock: AgentClock::load(&store),
            instance: trustfleet_agent::identity::fresh_instance(),
        });
        let (stop, stopping) = watch::channel(false);
        let (roots, source) = (TlsRoots::of(&identity.config).unwrap(), identity.config.source.clone());
        let http = CmpHttp::new(roots, identity.config.ca_client().unwrap(), source);
        let accept = identity.config.accept().unwrap();
        let services = identity.config.services().unwrap();
        let core = Core::new(identity, accept, store, Arc::new(FileKeyStore), services, http, stopping).unwrap();
        let (incoming, received) = mpsc::channel(16);
        let (link, outgoing) = mpsc::channel(64);
        let core = Arc::new(core);
        let driver = tokio::spawn(driver::run(Arc::clone(&core), received, link));
        tokio::spawn(trustfleet_agent::nodes::watch(Arc::clone(&core)));
        tokio::spawn(trustfleet_agent::upkeep::keep(core));
        incoming.send(Incoming::Up).await.unwrap();
        let controller = tokio::spawn(controller(
            outgoing,
            incoming.clone(),
            SigningKey::from_pkcs8(&self.controller_key.to_pkcs8().unwrap()).unwrap(),
            self.sign_key.clone(),
            (Arc::clone(&self.reports), Arc::clone(&self.answers)),
            Arc::clone(&self.answer_reports),
            (Arc::clone(&self.broker_confirms), Arc::clone(&self.offered)),
        ));
        self.running = Some(Running { incoming, stop, driver, controller });
    }

    /// As after SIGKILL: nothing is finished, nothing is saved any more.
    pub async fn kill_agent(&mut self) {
        let running = self.running.take().unwrap();
        running.driver.abort();
        running.controller.abort();
        let _ = running.driver.await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    /// As after SIGTERM.
    pub async fn stop_agent(&mut self) {
        let running = self.running.take().unwrap();
        running.stop.send(true).unwrap();
        tokio::time::timeout(LIMIT, running.driver).await.expect("the agent did not stop").unwrap();
        running.controller.abort();
    }

    /// Hands bytes over as the broker would.
    pub async fn deliver(&self, bytes: Vec<u8>) -> Verdict {
        let (verdict, told) = oneshot::channel();
        self.running.as_ref().unwrap().incoming.send(Incoming::Message { bytes, verdict }).await.unwrap();
        tokio::time::timeout(LIMIT, told).await.expect("no verdict").unwrap_or(Verdict::Later)
    }

    pub async fn send(&self, job: &Job) -> Verdict {
        let message = ToAgent::Job(Box::new(job.clone()));
        let envelope = Envelope::seal(&message, Purpose::ToAgent, &self.controller_key).unwrap();
        self.deliver(envelope.to_bytes().unwrap()).await
    }

    /// Any message of the controller.
    pub async fn tell(&self, message: &ToAgent) -> Verdict {
        let envelope = Envelope::seal(message, Purpose::ToAgent, &self.controller_key).unwrap();
        self.deliver(envelope.to_bytes().unwrap()).await
    }

    /// What the link says.
    pub async fn link(&self, said: Incoming) {
        self.running.as_ref().unwrap().incoming.send(said).await.unwrap();
    }

    /// Answers to leases, as STATE and reason.
    pub fn lease_answers(&self) -> Vec<(String, Option<String>)> {
        let answers = self.answers.lock().unwrap();
        answers.iter().map(|answer| (answer.state.clone(), answer.reason.clone())).collect()
    }

    /// An order to stop a job.
    pub async fn send_stop(&self, number: u128) -> Verdict {
        let now = SystemClock.now();
        let message = ToAgent::Stop(Box::new(Stop {
            job_id: job_id(number),
            tenant_id: uuid::Uuid::from_u128(1).into(),
            agent_id: self.agent_id,
            device_id: uuid::Uuid::from_u128(0xd1).into(),
            trustpoint_id: uuid::Uuid::from_u128(0x71).into(),
            sequence: u64::try_from(number).unwrap() * 10 + 1,
            issued_at: now,
            expires_at: now.checked_add(SignedDuration::from_hours(168)).unwrap(),
            reply_to: format!("agent.{}.r1", self.agent_id),
            traceparent: None,
        }));
        let envelope = Envelope::seal(&message, Purpose::ToAgent, &self.controller_key).unwrap();
        self.deliver(envelope.to_bytes().unwrap()).await
    }

    pub fn job(&self, number: u128, task: Task) -> Job {
        let now = SystemClock.now();
        Job {
            job_id: job_id(number),
            tenant_id: uuid::Uuid::from_u128(1).into(),
            agent_id: self.agent_id,
            device_id: uuid::Uuid::from_u128(0xd1).into(),
            device: "ap-1".to_owned(),
            trustpoint_id: uuid::Uuid::from_u128(0x71).into(),
            trustpoint: "dot1x".to_owned(),
            sequence: u64::try_from(number).unwrap() * 10,
            issued_at: now,
            expires_at: now.checked_add(SignedDuration::from_hours(168)).unwrap(),
            start_before: now.checked_add(SignedDuration::from_mins(10)).unwrap(),
            policy_revision: 1,
            reply_to: format!("agent.{}.r1", self.agent_id),
            traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned()),
            services: Vec::new(),
            replaced_is_revoked: false,
            task,
        }
    }

    /// An ir with MAC at the CA, put into use at once.
    pub fn ir(&self, number: u128, ca: &TestCa) -> Job {
        self.job(number, Task::Enroll(Box::new(self.enroll(number, Request::Ir, ca))))
    }

    pub fn enroll(&self, number: u128, request: Request, ca: &TestCa) -> Enroll {
        let context = SealContext {
            agent_id: self.agent_id,
            job_id: job_id(number),
            trustpoint_id: uuid::Uuid::from_u128(0x71).into(),
        };
        Enroll {
            identity_domain: None,
            sender: None,
            request,
            subject: "/O=Lab/CN=ap-1".to_owned(),
            sans: vec![San { kind: "dns".to_owned(), value: "ap-1.example.org".to_owned() }],
            recipient: "/O=Lab/CN=Issuing CA".to_owned(),
            urls: vec![ca.url.clone()],
            source: None,
            ca_time: false,
            upkeep: None,
            replaces: None,
            key_algorithm: "ecdsa-p256".to_owned(),
            regenerate_key: true,
            mac: Some(Mac {
                reference: REFERENCE.to_owned(),
                secret: seal(SECRET.as_bytes(), &self.seal_key, &context).unwrap(),
                algorithm: "hmac-sha256".to_owned(),
                iterations: 500,
            }),
            accept_sha1_answers: false,
            implicit_confirm: true,
            trust_anchors: vec![Blob(ca.authority.certificate.as_der().to_vec())],
            verification_certificates: Vec::new(),
            activate: true,
            file_format: "pem".to_owned(),
            message_timeout_s: 5,
            total_timeout_s: 60,
            no_polling: false,
            root_in_extra_certs: false,
        }
    }

    /// All reports so far, repetitions of one report counted once.
    pub fn reports(&self) -> Vec<Report> {
        let mut seen = Vec::new();
        let all = self.reports.lock().unwrap().clone();
        all.into_iter()
            .filter(|report| {
                !seen.contains(&report.report_id) && {
                    seen.push(report.report_id);
                    true
                }
            })
            .collect()
    }

    /// How often each report came.
    pub fn repetitions(&self) -> usize {
        let all = self.reports.lock().unwrap().len();
        all - self.reports().len()
    }

    pub fn kinds(&self) -> Vec<&'static str> {
        self.reports().iter().map(|report| kind(&report.event)).collect()
    }

    /// Waits for a report of this kind.
    pub async fn wait_for(&self, wanted: &str) -> Report {
        self.wait_for_nth(wanted, 1).await
    }

    pub async fn wait_for_nth(&self, wanted: &str, nth: usize) -> Report {
        let start = tokio::time::Instant::now();
        loop {
            let found = self.reports().into_iter().filter(|report| kind(&report.event) == wanted).nth(nth - 1);
            if let Some(report) = found {
                return report;
            }
            assert!(start.elapsed() < LIMIT, "no {wanted} report; there were {:?}", self.reports());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub async fn issued(&self) -> Box<Issued> {
        match self.wait_for("issued").await.event {
            Event::Issued(issued) => issued,
            other => panic!("{other:?}"),
        }
    }

    pub async fn failed(&self) -> Box<Failed> {
        match self.wait_for("failed").await.event {
            Event::Failed(failed) => failed,
            other => panic!("{other:?}"),
        }
    }
}

pub fn job_id(number: u128) -> JobId {
    uuid::Uuid::from_u128(0x1000 + number).into()
}

pub fn kind(event: &Event) -> &'static str {
    match event {
        Event::Started { .. } => "started",
        Event::Waiting { .. } => "waiting",
        Event::PermitExpired => "permit_expired",
        Event::Issued(_) => "issued",
        Event::Activated { .. } => "activated",
        Event::Revoked(_) => "revoked",
        Event::DryRun(_) => "dry_run",
        Event::Anchors { .. } => "anchors",
        Event::Failed(_) => "failed",
    }
}

type Shared<T> = Arc<Mutex<Vec<T>>>;

/// The broker's confirm and the controller's receipt for every report.
async fn controller(
    mut outgoing: mpsc::Receiver<Publication>,
    incoming: mpsc::Sender<Incoming>,
    key: SigningKey,
    agent_key: Vec<u8>,
    (reports, leases): (Shared<Report>, Shared<LeaseAnswer>),
    answers: Arc<Mutex<bool>>,
    (broker_confirms, offered): (Arc<AtomicBool>, Arc<AtomicUsize>),
) {
    while let Some(publication) = outgoing.recv().await {
        offered.fetch_add(1, Ordering::SeqCst);
        while !broker_confirms.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let envelope = Envelope::from_bytes(&publication.bytes).unwrap();
        let report = match envelope.open(Purpose::FromAgent, &agent_key).unwrap() {
            FromAgent::Report(report) => report,
            FromAgent::Lease(answer) => {
                leases.lock().unwrap().push(*answer);
                let _ = publication.confirmed.send(true);
                continue;
            }
            FromAgent::Hello(_) => continue,
        };
        assert!(publication.routing_key.starts_with("agent."), "the key to answer to is the job's");
        let (agent_id, report_id) = (report.agent_id, report.report_id);
        let receipt = Receipt { agent_id, report_id, issued_at: SystemClock.now(), refused: None };
        reports.lock().unwrap().push(*report);
        let _ = publication.confirmed.send(true);
        if *answers.lock().unwrap() {
            let envelope = Envelope::seal(&ToAgent::Receipt(receipt), Purpose::ToAgent, &key).unwrap();
            let (verdict, _told) = oneshot::channel();
            let message = Incoming::Message { bytes: envelope.to_bytes().unwrap(), verdict };
            if incoming.send(message).await.is_err() {
                return;
            }
        }
    }
}

/// Waits until a condition holds.
pub async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let start = tokio::time::Instant::now();
    while !condition() {
        assert!(start.elapsed() < LIMIT, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
