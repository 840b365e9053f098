//! One real agent process under a controller that is the test itself, over a real broker.
//!
//! The test answers for reports only when it wants to: so the agent's steps come in one order, run after run.

use std::{
    fmt, fs,
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use actix_web::{App, HttpResponse, HttpServer, dev::ServerHandle, web};
use futures_util::StreamExt as _;
use jiff::{SignedDuration, Timestamp};
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties, ExchangeKind,
    options::{
        BasicConsumeOptions, BasicPublishOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
    },
    types::FieldTable,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use trustfleet_lab::{
    ca::RunningCa,
    testkit::{Child, TestVhost, command},
};
use trustfleet_model::{
    clock::{Clock as _, SystemClock},
    ids::{AgentId, JobId},
};
use trustfleet_wire::{
    Envelope,
    join::{Challenge, SessionAnswer},
    routing::REPORTS_EXCHANGE,
    seal::{OpeningKey, SealContext, seal},
    sign::{Purpose, SigningKey},
    v1::{Blob, Enroll, Event, FromAgent, Job, Mac, Receipt, Report, Request, Task, ToAgent},
};

use super::{Board, Kind};

/// Longest time of one job, deaths included.
const LIMIT: Duration = Duration::from_secs(60);
const REFERENCE: &str = "ref-1";
/// The MAC secret that the lab CA has to know under [`REFERENCE`].
const SECRET: &str = "correct horse battery staple";

/// The agent, its controller and its CA.
pub(crate) struct Agent {
    pub(crate) ca: RunningCa,
    pub(crate) board: Board,
    dir: TempDir,
    agent_id: AgentId,
    key: Arc<SigningKey>,
    seal_key: Vec<u8>,
    desk: Arc<Mutex<Desk>>,
    channel: Channel,
    process: Option<Child>,
    jobs: u128,
    doors: ServerHandle,
    _connection: Connection,
    _vhost: TestVhost,
}

/// Where reports arrive.
#[derive(Default)]
struct Desk {
    reports: Vec<Report>,
    open: bool,
    unanswered: Vec<Receipt>,
}

/// How one job went.
pub(crate) struct Story {
    /// The job.
    pub(crate) job: Job,
    /// How often the process died.
    pub(crate) deaths: u32,
    /// How many steps there were, those of all lives.
    pub(crate) steps: u32,
    /// The reports, each once, in the order in which they came first.
    pub(crate) reports: Vec<Report>,
    /// The record at the end.
    pub(crate) record: Value,
}

impl fmt::Debug for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { job, deaths, steps, reports, record } = self;
        let told: Vec<_> = reports.iter().map(|report| said(&report.event)).collect();
        let state = &record["state"];
        write!(f, "job {}: {deaths} deaths, {steps} steps, told {told:?}, its record says {state}", job.job_id)
    }
}

/// A report in a word, as on the wire; a failure whole.
fn said(event: &Event) -> String {
    match event {
        Event::Failed(failed) => format!("{failed:?}"),
        other => kind(other),
    }
}

/// A report in a word, as on the wire.
pub(crate) fn kind(event: &Event) -> String {
    serde_json::to_value(event).unwrap()["kind"].as_str().unwrap().to_owned()
}

impl Agent {
    /// Starts everything; the CA comes from outside.
    pub(crate) async fn start(ca: RunningCa) -> Self {
        let dir = tempfile::Builder::new().prefix("trustfleet-kill-").tempdir().unwrap();
        let vhost = TestVhost::create().await.unwrap();
        let key = Arc::new(SigningKey::generate().unwrap());
        let agent_id: AgentId = uuid(0xa1);
        ca.add_secret(REFERENCE, SECRET);

        let url = vhost.amqp_url().clone();
        let connection = Connection::connect(url.as_str(), ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        let queue = format!("agent.{agent_id}");
        for name in [queue.as_str(), "reports"] {
            let options = QueueDeclareOptions::default();
            channel.queue_declare(name.into(), options, FieldTable::default()).await.unwrap();
        }
        let options = ExchangeDeclareOptions::default();
        channel
            .exchange_declare(REPORTS_EXCHANGE.into(), ExchangeKind::Topic, options, FieldTable::default())
            .await
            .unwrap();
        let options = QueueBindOptions::default();
        channel
            .queue_bind("reports".into(), REPORTS_EXCHANGE.into(), "#".into(), options, FieldTable::default())
            .await
            .unwrap();

        let mut plain = url.clone();
        plain.set_username("").unwrap();
        plain.set_password(None).unwrap();
        let session = Session {
            key: Arc::clone(&key),
            agent_id,
            amqp_url: plain.to_string(),
            user: url.username().to_owned(),
            password: url.password().unwrap_or_default().to_owned(),
            queue: queue.clone(),
        };
        let (doors, controller_url) = doors(session);
        let (sign, open) = (SigningKey::generate().unwrap(), OpeningKey::generate().unwrap());
        write_state(dir.path(), &controller_url, agent_id, &key, &sign, &open);
        let port_of = |url: &str| url.parse::<url::Url>().unwrap().port().unwrap();
        let board = Board::new(dir.path(), port_of(&ca.url), url.port().unwrap());
        let desk = Arc::new(Mutex::new(Desk::default()));
        let consumer = channel
            .basic_consume(
                "reports".into(),
                "".into(),
                BasicConsumeOptions { no_ack: true, ..Default::default() },
                FieldTable::default(),
            )
            .await
            .unwrap();
        tokio::spawn(reception(
            consumer,
            channel.clone(),
            queue,
            Arc::clone(&key),
            sign.public_key(),
            Arc::clone(&desk),
        ));
        let mut agent = Self {
            ca,
            board,
            dir,
            agent_id,
            key,
            seal_key: open.public_key(),
            desk,
            channel,
            process: None,
            jobs: 0,
            doors,
            _connection: connection,
            _vhost: vhost,
        };
        agent.live();
        agent
    }

    /// Ends everything.
    pub(crate) async fn end(mut self) {
        if let Some(process) = &mut self.process {
            process.kill().await;
        }
        self.doors.stop(false).await;
        self.ca.stop().await;
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub(crate) fn trustpoint(&self, job: &Job) -> PathBuf {
        self.state().join("devices").join(&job.device).join(&job.trustpoint)
    }

    /// A job of its own for a device.
    pub(crate) fn job(&mut self, device: &str, task: impl FnOnce(&Self, JobId) -> Task) -> Job {
        self.jobs += 1;
        let now = SystemClock.now();
        let after = |hours| now.checked_add(SignedDuration::from_hours(hours)).unwrap();
        let job_id = uuid(0x1000 + self.jobs);
        Job {
            job_id,
            tenant_id: uuid(1),
            agent_id: self.agent_id,
            device_id: uuid(0xd1),
            device: device.to_owned(),
            trustpoint_id: uuid(0x71),
            trustpoint: "radius".to_owned(),
            sequence: u64::try_from(self.jobs).unwrap(),
            issued_at: now,
            expires_at: after(24),
            start_before: after(1),
            policy_revision: 1,
            reply_to: format!("agent.{}.r1", self.agent_id),
            traceparent: None,
            services: Vec::new(),
            replaced_is_revoked: false,
            task: task(self, job_id),
        }
    }

    /// An enrolment at the CA, put into use at once.
    pub(crate) fn enroll(&self, job_id: JobId, request: Request, device: &str) -> Enroll {
        let context = SealContext { agent_id: self.agent_id, job_id, trustpoint_id: uuid(0x71) };
        Enroll {
            identity_domain: None,
            sender: None,
            request,
            subject: format!("/O=Lab/CN={device}"),
            sans: Vec::new(),
            recipient: self.ca.issuing.subject().to_slash(),
            urls: vec![self.ca.url.clone()],
            source: None,
            no_polling: false,
            root_in_extra_certs: false,
            ca_time: false,
            upkeep: None,
            replaces: None,
            key_algorithm: "ecdsa-p256".to_owned(),
            regenerate_key: true,
            mac: (request == Request::Ir).then(|| Mac {
                reference: REFERENCE.to_owned(),
                secret: seal(SECRET.as_bytes(), &self.seal_key, &context).unwrap(),
                algorithm: "hmac-sha256".to_owned(),
                iterations: 500,
            }),
            accept_sha1_answers: false,
            implicit_confirm: true,
            trust_anchors: vec![Blob(self.ca.root.as_der().to_vec())],
            verification_certificates: Vec::new(),
            activate: true,
            file_format: "pem".to_owned(),
            message_timeout_s: 10,
            total_timeout_s: 60,
        }
    }

    /// Orders a job, lets the process die before step `number` and live again, and waits for the end of all of it: the
    /// job in a final state, every report answered for and noted.
    pub(crate) async fn work(&mut self, job: Job, kind: Kind, number: u32) -> Story {
        self.work_through(job, kind, number, false).await
    }

    /// The same; every life, its start included, ends before its own step `number`.
    pub(crate) async fn work_dying(&mut self, job: Job, kind: Kind, number: u32) -> Story {
        self.work_through(job, kind, number, true).await
    }

    async fn work_through(&mut self, job: Job, kind: Kind, number: u32, again: bool) -> Story {
        {
            let mut desk = self.desk.lock().unwrap();
            *desk = Desk::default();
        }
        // What a start does belongs to no job; the life before may have ended with its last word.
        if !self.process.as_mut().unwrap().is_running() {
            self.live();
        }
        self.process.as_mut().unwrap().line_with("connected to the broker", LIMIT).await.unwrap();
        self.board.arm(kind, number);
        let message = Envelope::seal(&ToAgent::Job(Box::new(job.clone())), Purpose::ToAgent, &self.key).unwrap();
        publish(&self.channel, &format!("agent.{}", self.agent_id), &message).await;
        let mut deaths = 0;
        let file = self.state().join("jobs").join(format!("{}.json", job.job_id));
        let begin = Instant::now();
        let mut open = false;
        let record = loop {
            if !self.process.as_mut().unwrap().is_running() {
                deaths += 1;
                if again {
                    self.board.arm(kind, number);
                }
                self.live();
            }
            let record: Value = fs::read(&file).map_or(Value::Null, |text| serde_json::from_slice(&text).unwrap());
            if record["state"]["awaiting"] == "nothing" {
                if !open {
                    open = true;
                    self.answer_reports().await;
                }
                if record["reports"].as_array().is_some_and(Vec::is_empty) {
                    break record;
                }
            }
            if begin.elapsed() > LIMIT {
                let steps = self.board.steps();
                panic!("no end after {LIMIT:?} and {deaths} deaths; the record: {record}\nsteps:\n{steps}");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        let steps = self.board.counted(kind);
        self.board.off();
        let mut seen = Vec::new();
        let mut reports = self.desk.lock().unwrap().reports.clone();
        reports.retain(|report| {
            !seen.contains(&report.report_id) && {
                seen.push(report.report_id);
                true
            }
        });
        Story { job, deaths, steps, reports, record }
    }

    /// A new life on the same state.
    fn live(&mut self) {
        let mut run = command("trustfleet-agent").unwrap();
        run.arg("run").arg("--config").arg(self.dir.path().join("agent.toml"));
        self.board.count_in(&mut run, &self.state());
        self.process = Some(Child::start("trustfleet-agent", run).unwrap());
    }

    async fn answer_reports(&self) {
        let receipts = {
            let mut desk = self.desk.lock().unwrap();
            desk.open = true;
            std::mem::take(&mut desk.unanswered)
        };
        for receipt in receipts {
            answer(&self.channel, &format!("agent.{}", self.agent_id), &self.key, receipt).await;
        }
    }
}

fn uuid<T: From<::uuid::Uuid>>(number: u128) -> T {
    ::uuid::Uuid::from_u128(number).into()
}

/// What the agent would have after it joined.
fn write_state(dir: &Path, controller: &str, id: AgentId, key: &SigningKey, sign: &SigningKey, open: &OpeningKey) {
    let state = dir.join("state");
    let config =
        format!("controller_url = {controller:?}\nstate_dir = {:?}\nname = \"ap\"\n", state.display().to_string());
    fs::write(dir.join("agent.toml"), config + &services(&state)).unwrap();
    for folder in [state.clone(), state.join("keys")] {
        fs::DirBuilder::new().mode(0o700).create(folder).unwrap();
    }
    let membership = json!({
        "version": 1,
        "tenant_id": uuid::<trustfleet_model::ids::TenantId>(1),
        "agent_id": id,
        "name": "ap",
        "controller_key": Blob(key.public_key()),
        "joined_at": Timestamp::UNIX_EPOCH,
    });
    let private = |name: &str, bytes: &[u8]| {
        let file = fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(state.join(name));
        file.unwrap().write_all(bytes).unwrap();
    };
    private("agent.json", membership.to_string().as_bytes());
    private("keys/sign.pk8", &sign.to_pkcs8().unwrap());
    private("keys/seal.key", open.to_bytes().expose());
}

/// Two services below the state folder, where steps are counted: one loads what it is given, the other never does.
fn services(state: &Path) -> String {
    let service = |name: &str, reload: &str| {
        let folder = format!("{}/services/{{device}}/{name}", state.display());
        let export = |file: &str, content: &str| {
            format!("[[services.{name}.exports]]\npath = \"{folder}/{file}\"\ncontent = \"{content}\"\n")
        };
        let reload = reload.replace("FOLDER", &folder);
        let probe = format!("probe = {{ file = \"{folder}/loaded.pem\" }}\n");
        let exports = export("certificate.pem", "certificate") + &export("key.pem", "key");
        format!("[services.{name}]\nreload = {reload}\n{probe}{exports}")
    };
    service("good", r#"["/bin/cp", "FOLDER/certificate.pem", "FOLDER/loaded.pem"]"#)
        + &service("bad", r#"["/bin/false"]"#)
}

struct Session {
    key: Arc<SigningKey>,
    agent_id: AgentId,
    amqp_url: String,
    user: String,
    password: String,
    queue: String,
}

/// The controller's doors for an agent that has joined.
fn doors(session: Session) -> (ServerHandle, String) {
    let session = web::Data::new(session);
    let server = HttpServer::new(move || {
        App::new()
            .app_data(session.clone())
            .route("/agent/v1/challenge", web::post().to(challenge))
            .route("/agent/v1/session", web::post().to(open_session))
    })
    .workers(1)
    .disable_signals()
    .bind(("127.0.0.1", 0))
    .unwrap();
    let url = format!("http://{}", server.addrs()[0]);
    let server = server.run();
    let handle = server.handle();
    tokio::spawn(server);
    (handle, url)
}

async fn challenge() -> HttpResponse {
    HttpResponse::Ok().json(Challenge { challenge: Blob(vec![7; 32]), now: SystemClock.now() })
}

async fn open_session(session: web::Data<Session>) -> HttpResponse {
    let now = SystemClock.now();
    let answer = SessionAnswer {
        agent_id: session.agent_id,
        amqp_url: session.amqp_url.clone(),
        amqp_user: session.user.clone(),
        amqp_token: session.password.clone(),
        token_expires_at: now.checked_add(SignedDuration::from_hours(1)).unwrap(),
        queue: session.queue.clone(),
        reports_exchange: REPORTS_EXCHANGE.to_owned(),
        hello_key: format!("agent.{}.r1", session.agent_id),
        now,
    };
    HttpResponse::Ok().json(Envelope::seal(&answer, Purpose::SessionAnswer, &session.key).unwrap())
}

async fn reception(
    mut consumer: lapin::Consumer,
    channel: Channel,
    queue: String,
    key: Arc<SigningKey>,
    agent_key: Vec<u8>,
    desk: Arc<Mutex<Desk>>,
) {
    while let Some(Ok(delivery)) = consumer.next().await {
        let envelope = Envelope::from_bytes(&delivery.data).unwrap();
        let FromAgent::Report(report) = envelope.open(Purpose::FromAgent, &agent_key).unwrap() else { continue };
        let (agent_id, report_id) = (report.agent_id, report.report_id);
        let receipt = Receipt { agent_id, report_id, issued_at: SystemClock.now(), refused: None };
        let now = {
            let mut desk = desk.lock().unwrap();
            desk.reports.push(*report);
            if desk.open {
                Some(receipt)
            } else {
                desk.unanswered.push(receipt);
                None
            }
        };
        if let Some(receipt) = now {
            answer(&channel, &queue, &key, receipt).await;
        }
    }
}

async fn answer(channel: &Channel, queue: &str, key: &SigningKey, receipt: Receipt) {
    publish(channel, queue, &Envelope::seal(&ToAgent::Receipt(receipt), Purpose::ToAgent, key).unwrap()).await;
}

async fn publish(channel: &Channel, queue: &str, envelope: &Envelope) {
    let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
    let bytes = envelope.to_bytes().unwrap();
    channel.basic_publish("".into(), queue.into(), options, &bytes, properties).await.unwrap();
}
