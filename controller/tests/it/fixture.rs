//! A tenant with an agent, a device and everything that an enrolment needs, and the agent's own half.

use std::{
    process::Command as Process,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tokio_postgres::Client;
use trustfleet_controller::{
    app::{Core, Services},
    broker::{Outgoing, Subscription},
    device::{AddTrustpoint, Command, Enroll, Reply, Requester},
    error::AppError,
};
use trustfleet_model::{
    field::TrustpointName,
    ids::{AgentId, CaServerId, DeviceId, EntityId, JobId, MessageId, PolicyId, SecretId, TenantId, TrustpointId},
    job::{MacCredentials, RequestKind},
};
use trustfleet_wire::{
    Envelope,
    routing::{REPORTS_EXCHANGE, agent_queue, device_reply_key, hello_key},
    seal::OpeningKey,
    sign::{Purpose, SigningKey},
    v1::{Event, FromAgent, Hello, Issued, Job, NodeSeen, Report, ToAgent},
};

use crate::support::Place;

/// The MAC secret of every trustpoint here: a word to be searched for where it must not be.
pub const SECRET: &str = "melon-harbour-8841";

/// An agent's own half.
pub struct Agent {
    pub id: AgentId,
    pub sign: SigningKey,
    pub open: OpeningKey,
}

/// Everything that an enrolment needs.
pub struct Fixture {
    pub place: Place,
    pub core: Core,
    pub admin: Client,
    pub tenant: TenantId,
    pub agent: Agent,
    pub device: DeviceId,
    pub trustpoint: TrustpointId,
    pub trustpoint_name: TrustpointName,
    /// What its agent says of leases in its hello.
    pub takes_leases: AtomicBool,
    /// What it says of its clock, and of the nodes of pairs.
    pub clock_off_s: Mutex<Option<i64>>,
    pub nodes: Mutex<Vec<NodeSeen>>,
    /// Roots that it offers.
    pub roots: Mutex<Vec<trustfleet_wire::v1::RootOffered>>,
    entity: EntityId,
    ca_server: CaServerId,
    policy: PolicyId,
}

impl Fixture {
    /// A tenant `acme` with agent, device `ap-1` and trustpoint `mgmt`.
    pub async fn new() -> Self {
        let place = Place::make().await;
        let core = place.core().await;
        Self::on(place, core).await
    }

    /// Two tenants on one core, each with an agent and a device.
    pub async fn with_another_tenant() -> (Self, Self) {
        let place = Place::make().await;
        let core = place.core().await;
        let other = place.core().await;
        let first = Self::in_tenant(place.clone(), core, "acme").await;
        (first, Self::in_tenant(place, other, "other").await)
    }

    /// The same on a core that was started already.
    pub async fn on(place: Place, core: Core) -> Self {
        Self::in_tenant(place, core, "acme").await
    }

    async fn in_tenant(place: Place, core: Core, tenant: &str) -> Self {
        let admin = place.admin().await;
        let tenant = add_tenant(&core.services, &admin, tenant).await;
        let agent = add_agent(&core.services, &admin, tenant, "site-1").await;
        let entity = core.services.fresh(EntityId::fresh).unwrap();
        let ca_server = core.services.fresh(CaServerId::fresh).unwrap();
        let policy = core.services.fresh(PolicyId::fresh).unwrap();
        let (anchor, _) = certificate("Test CA");
        for (table, column, id, spec) in [
            ("entities", "entity_id", entity.as_uuid(), json!({ "subject": "/O=Acme/CN={device.name}" })),
            (
                "ca_servers",
                "ca_server_id",
                ca_server.as_uuid(),
                json!({ "ca_name": "/CN=Test CA", "primary_url": "http://ca.example/pkix/", "trust_anchors": [anchor] }),
            ),
            ("policies", "policy_id", policy.as_uuid(), json!({ "key": { "algorithm": "ecdsa-p256" } })),
        ] {
            let sql = format!(
                "INSERT INTO {table} (tenant_id, {column}, name, spec, revision, created_at, updated_at, updated_by)
                 VALUES ($1, $2, 'default', $3, 1, now(), now(), 'test')"
            );
            admin.execute(&sql, &[&tenant.as_uuid(), &id, &spec]).await.unwrap();
        }
        let device = add_device(&core.services, &admin, tenant, agent.id, "ap-1").await;
        let mut fixture = Self {
            place,
            core,
            admin,
            tenant,
            agent,
            device,
            trustpoint: TrustpointId::from(uuid::Uuid::nil()),
            trustpoint_name: "mgmt".parse().unwrap(),
            takes_leases: AtomicBool::new(false),
            clock_off_s: Mutex::default(),
            nodes: Mutex::default(),
            roots: Mutex::default(),
            entity,
            ca_server,
            policy,
        };
        fixture.trustpoint = fixture.add_trustpoint(device, "mgmt").await.unwrap();
        fixture
    }

    pub fn services(&self) -> &Services {
        &self.core.services
    }

    /// A further device of the same agent.
    pub async fn add_device(&self, name: &str) -> DeviceId {
        add_device(self.services(), &self.admin, self.tenant, self.agent.id, name).await
    }

    /// A trustpoint with MAC credentials, through its device's actor.
    pub async fn add_trustpoint(&self, device: DeviceId, name: &str) -> Result<TrustpointId, AppError> {
        let secret_id = self.store_secret(SECRET).await;
        let id = self.services().fresh(TrustpointId::fresh).unwrap();
        let add = AddTrustpoint {
            id,
            name: name.parse().unwrap(),
            entity_id: self.entity,
            ca_server_id: self.ca_server,
            policy_id: self.policy,
            mac: Some(MacCredentials { reference: "ref-1".to_owned(), secret_id }),
            mac_one_time: false,
            services: Vec::new(),
            binding: None,
            requested_by: Requester::new("test", "operator"),
        };
        self.ask(device, Command::AddTrustpoint(Box::new(add))).await.map(|_| id)
    }

    async fn store_secret(&self, secret: &str) -> SecretId {
        let services = self.services();
        let id = services.fresh(SecretId::fresh).unwrap();
        let ciphertext = services.keys.at_rest.seal(self.tenant, id, secret.as_bytes()).unwrap();
        self.admin
            .execute(
                "INSERT INTO secrets (tenant_id, secret_id, kek_id, ciphertext, created_at) VALUES ($1, $2, $3, $4, now())",
                &[&self.tenant.as_uuid(), &id.as_uuid(), &services.keys.at_rest.id(), &ciphertext],
            )
            .await
            .unwrap();
        id
    }

    pub async fn ask(&self, device: DeviceId, command: Command) -> Result<Reply, AppError> {
        self.services().registry.ask(self.tenant, device, command).await
    }

    /// Asks for an IR on the first trustpoint.
    pub async fn enroll(&self) -> JobId {
        self.enroll_as(RequestKind::Ir, None).await.unwrap()
    }

    pub async fn enroll_as(&self, request: RequestKind, key: Option<&str>) -> Result<JobId, AppError> {
        let command = self.enroll_command(self.device, request, key).await;
        match self.ask(self.device, command).await? {
            Reply::Job { job_id } => Ok(job_id),
            other => panic!("{other:?}"),
        }
    }

    pub async fn enroll_command(&self, device: DeviceId, request: RequestKind, key: Option<&str>) -> Command {
        let name = self.trustpoint_name.clone();
        let context = self
            .services()
            .store
            .tenant_tx(self.tenant, "test", async |tx| tx.enrollment_context(device, &name, key).await)
            .await
            .map_err(|error: trustfleet_controller::db::DbError| error)
            .unwrap();
        Command::Enroll(Box::new(Enroll {
            trustpoint: self.trustpoint_name.clone(),
            request,
            job_id: self.services().fresh(JobId::fresh).unwrap(),
            request_key: key.map(str::to_owned),
            past_floor: false,
            requested_by: Requester::new("test", "operator"),
            traceparent: None,
            context,
        }))
    }

    /// Opens the agent's queue, as a session does.
    pub async fn open_queue(&self) -> Subscription {
        let broker = &self.services().broker;
        broker.declare_agent_queue(self.agent.id).await.unwrap();
        broker.subscribe(agent_queue(self.agent.id), 10).await.unwrap()
    }

    /// A report of the agent about a job of the first trustpoint.
    pub fn report(&self, job_id: JobId, sequence: u64, event: Event) -> Report {
        let services = self.services();
        Report {
            report_id: services.fresh(MessageId::fresh).unwrap(),
            tenant_id: self.tenant,
            agent_id: self.agent.id,
            device_id: self.device,
            trustpoint_id: self.trustpoint,
            job_id,
            sequence,
            lease_id: None,
            server: None,
            at: services.clock.now(),
            traceparent: None,
            event,
        }
    }

    /// Publishes a message as `agent`.
    pub async fn send(&self, agent: &Agent, message: &FromAgent) {
        let envelope = Envelope::seal(message, Purpose::FromAgent, &agent.sign).unwrap();
        let key = match message {
            FromAgent::Hello(_) => hello_key(agent.id),
            FromAgent::Report(report) => device_reply_key(agent.id, report.device_id),
            FromAgent::Lease(answer) => device_reply_key(agent.id, answer.device_id),
        };
        self.send_bytes(key, envelope.to_bytes().unwrap()).await;
    }

    pub async fn send_bytes(&self, routing_key: String, body: Vec<u8>) {
        let message = Outgoing { exchange: REPORTS_EXCHANGE, routing_key, body, deliveries: 0 };
        self.services().broker.publish(message).await.unwrap();
    }

    pub async fn send_report(&self, report: &Report) {
        self.send(&self.agent, &FromAgent::Report(Box::new(report.clone()))).await;
    }

    pub async fn hello(&self) {
        self.say_hello(false).await;
    }

    /// As an agent does every few minutes.
    pub async fn hello_again(&self) {
        self.say_hello(true).await;
    }

    async fn say_hello(&self, repeated: bool) {
        let hello = Hello {
            leases: self.takes_leases.load(Ordering::Relaxed),
            clock_off_s: *self.clock_off_s.lock().unwrap(),
            nodes: self.nodes.lock().unwrap().clone(),
            roots: self.roots.lock().unwrap().clone(),
            repeated,
            tenant_id: self.tenant,
            agent_id: self.agent.id,
            message_id: self.services().fresh(MessageId::fresh).unwrap(),
            at: self.services().clock.now(),
            software: "test 1".to_owned(),
            instance: None,
        };
        self.send(&self.agent, &FromAgent::Hello(hello)).await;
    }

    /// The next message to the agent, verified; none within `wait`.
    pub async fn next(&self, queue: &mut Subscription, wait: Duration) -> Option<ToAgent> {
        let delivery = tokio::time::timeout(wait, queue.next()).await.ok()?.expect("the queue goes on");
        let envelope = Envelope::from_bytes(delivery.body()).unwrap();
        let message = envelope.open(Purpose::ToAgent, &self.services().keys.signing.public_key()).unwrap();
        delivery.ack().await;
        Some(message)
    }

    /// The next job for the agent.
    pub async fn next_job(&self, queue: &mut Subscription) -> Job {
        loop {
            let message = self.next(queue, Duration::from_secs(20)).await.expect("a job comes");
            if let ToAgent::Job(job) = message {
                return *job;
            }
        }
    }

    /// One value of one row, as the superuser sees it.
    pub async fn value<T>(&self, sql: &str) -> T
    where
        T: for<'a> tokio_postgres::types::FromSql<'a>,
    {
        self.admin.query_one(sql, &[]).await.unwrap().get(0)
    }

    /// The state of the first trustpoint, as it is stored.
    pub async fn stored_trustpoint(&self) -> Value {
        let sql = "SELECT state -> 'trustpoint' FROM trustpoints WHERE trustpoint_id = $1";
        self.admin.query_one(sql, &[&self.trustpoint.as_uuid()]).await.unwrap().get(0)
    }
}

pub async fn add_tenant(services: &Services, admin: &Client, name: &str) -> TenantId {
    let id = services.fresh(TenantId::fresh).unwrap();
    admin
        .execute(
            "INSERT INTO tenants (tenant_id, name, display_name, created_at, updated_at, updated_by)
             VALUES ($1, $2, $2, now(), now(), 'test')",
            &[&id.as_uuid(), &name],
        )
        .await
        .unwrap();
    id
}

pub async fn add_agent(services: &Services, admin: &Client, tenant: TenantId, name: &str) -> Agent {
    let id = services.fresh(AgentId::fresh).unwrap();
    let (sign, open) = (SigningKey::generate().unwrap(), OpeningKey::generate().unwrap());
    admin
        .execute(
            "INSERT INTO agents (tenant_id, agent_id, name, sign_key, seal_key, software, joined_at, last_seen_at)
             VALUES ($1, $2, $3, $4, $5, '', now(), now())",
            &[&tenant.as_uuid(), &id.as_uuid(), &name, &sign.public_key(), &open.public_key()],
        )
        .await
        .unwrap();
    Agent { id, sign, open }
}

pub async fn add_device(services: &Services, admin: &Client, tenant: TenantId, agent: AgentId, name: &str) -> DeviceId {
    let id = services.fresh(DeviceId::fresh).unwrap();
    admin
        .execute(
            "INSERT INTO devices (tenant_id, device_id, name, agent_id, shard, version, created_at, updated_at, updated_by)
             VALUES ($1, $2, $3, $4, 0, 1, now(), now(), 'test')",
            &[&tenant.as_uuid(), &id.as_uuid(), &name, &agent.as_uuid()],
        )
        .await
        .unwrap();
    id
}

/// A self-signed certificate made by openssl, as PEM and DER.
pub fn certificate(common_name: &str) -> (String, Vec<u8>) {
    certificate_of(&format!("/CN={common_name}"))
}

fn certificate_of(subject: &str) -> (String, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let (key, pem) = (dir.path().join("key.pem"), dir.path().join("cert.pem"));
    let made = Process::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "30",
            "-subj",
        ])
        .arg(subject)
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&pem)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let pem = std::fs::read_to_string(pem).unwrap();
    let der = trustfleet_pki::certificate::Certificate::from_pem(&pem).unwrap().as_der().to_vec();
    (pem, der)
}

/// The event of a certificate that was issued to a device, with the subject that its entity gives, and its serial number.
pub fn issued(device: &str) -> (Event, String) {
    let (_, der) = certificate_of(&format!("/O=Acme/CN={device}"));
    let serial = trustfleet_pki::certificate::Certificate::from_der(&der).unwrap().serial_hex();
    let event = Event::Issued(Box::new(Issued {
        certificate: trustfleet_wire::v1::Blob(der),
        chain: Vec::new(),
        transaction_id: "00112233445566778899aabbccddeeff".to_owned(),
        status: "accepted".to_owned(),
        implicitly_confirmed: false,
        duration_ms: 12,
        polls: 0,
        file: "/var/lib/agent/staged/certificate.pem".to_owned(),
        transcript: Vec::new(),
        warnings: Vec::new(),
    }));
    (event, serial)
}
