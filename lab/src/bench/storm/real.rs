//! Real agents in front of real devices: how fast all renew, and how they come back after the broker was restarted.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use indicatif::ProgressBar;
use serde_json::json;
use tempfile::TempDir;
use trustfleet_pki::certificate::Certificate;

use super::{
    super::{BenchError, figure::Pair, harness::Harness},
    direct,
};
use crate::{
    fleet::{
        gate::Gate,
        herd::{Herd, HerdError, Plan},
        tenant::{Settings, Tenant},
    },
    house::{Fleet, House, TENANT},
    stack::{Stack, StackOptions},
};

/// Seconds within which agents come back here: one for about thirty agents.
const WITHIN_S: u32 = 30;
/// Exchanges of the baseline at a time: as many as the agents may make together is more than the CA answers.
const AT_ONCE: usize = 64;
const ROUND_LIMIT: Duration = Duration::from_secs(1_200);
const BACK_LIMIT: Duration = Duration::from_secs(300);
/// So long all agents must be there to count as back.
const STAYS: Duration = Duration::from_secs(2);
/// Where agents have their folders, if it is there: in memory. A hundred agents have a hundred disks; this machine has one.
const AGENTS_IN: &str = "/dev/shm";
const MAC: (&str, &str) = ("fleet", "three-dozen-owls-in-a-quiet-barn-77");

impl From<HerdError> for BenchError {
    fn from(error: HerdError) -> Self {
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(below) = cause {
            text = format!("{text}: {below}");
            cause = below.source();
        }
        Self::Odd(text)
    }
}

/// A house with agents.
struct Yard {
    herd: Herd,
    fleet: Fleet,
    _house: House,
    gate: Gate,
    stack: Stack,
    agents: TempDir,
}

impl Yard {
    async fn make(agents: u32, devices_per_agent: u32) -> Result<Self, BenchError> {
        let stack = Stack::start(StackOptions { fsync: true, ..StackOptions::default() }).await?;
        let dir = stack.env().dir.join("bench");
        fs::create_dir_all(&dir).map_err(BenchError::io(format!("making {}", dir.display())))?;
        let gate = Gate::open(([127, 0, 0, 1], stack.rabbit.port()).into(), 0).await;
        let gate = gate.map_err(BenchError::io("opening a port"))?;
        let text = |text: &str| text.to_owned();
        let settings = [
            ("TRUSTFLEET__BROKER__AGENT_URL", format!("amqp://{}/%2f", gate.address())),
            ("TRUSTFLEET__CA_BUDGET__RATE_PER_S", text("100000.0")),
            ("TRUSTFLEET__CA_BUDGET__BURST", text("100000")),
            ("TRUSTFLEET__CA_BUDGET__CONCURRENCY", text("100000")),
            ("TRUSTFLEET__LOG__FILTER", text("warn")),
        ];
        let house = House::start_with(&dir, stack.env(), &settings).await?;
        let credential = format!("{}={}", MAC.0, MAC.1);
        let policy = json!({ "key": { "algorithm": "ecdsa-p256" } });
        let ca = ["--secret", &credential, "--no-implicit-confirm"];
        let fleet = Fleet::create_at(&house, &[], &policy, &ca).await?;
        let plan = Plan {
            agents,
            devices_per_agent,
            processes: 2,
            seed: 1,
            start_within_s: f64::from(agents) / 50.0,
            restart_every_s: 0.0,
            ready_keys: 0,
            key_algorithm: text("ecdsa-p256"),
            source_addresses: 0,
            more: format!("reconnect_within_s = {WITHIN_S}\n"),
        };
        let tenant = Tenant { rest: fleet.rest.clone(), name: TENANT.to_owned() };
        let above = if Path::new(AGENTS_IN).is_dir() { Path::new(AGENTS_IN) } else { dir.as_path() };
        let agents = tempfile::Builder::new().prefix("trustfleet-agents-").tempdir_in(above);
        let agents = agents.map_err(BenchError::io(format!("making a folder below {}", above.display())))?;
        let mut herd = Herd::start(tenant, &plan, agents.path(), &ProgressBar::hidden()).await?;
        if devices_per_agent > 0 {
            let settings = Settings {
                entity: text("default"),
                ca_server: text("default"),
                policy: text("default"),
                mac: (text(MAC.0), text(MAC.1)),
            };
            herd.add_devices(&plan, &settings, &ProgressBar::hidden()).await?;
        }
        Ok(Self { herd, fleet, _house: house, gate, stack, agents })
    }

    async fn end(self) {
        let Self { herd, fleet, _house, gate, stack, agents } = self;
        drop((herd, fleet, _house, gate, agents));
        stack.stop().await;
    }
}

/// Measures `storm.renew`.
///
/// # Errors
/// The system does not come up.
pub(super) async fn renew(harness: &mut Harness) -> Result<(), BenchError> {
    let (agents, each) = harness.size((100, 20), (10, 5));
    harness.say(format_args!("storm.renew: {agents} real agents with {each} devices each"));
    let yard = Yard::make(agents, each).await?;
    let enrolled = yard.herd.enroll("ir", ROUND_LIMIT, &ProgressBar::hidden()).await?;
    if enrolled.succeeded != yard.herd.devices.len() {
        return Err(BenchError::Odd(format!("not all are enrolled: {enrolled:?}")));
    }
    harness.pairs("storm.renew", async || renewed(&yard).await).await;
    yard.end().await;
    Ok(())
}

async fn renewed(yard: &Yard) -> Result<Pair, BenchError> {
    let count = yard.herd.devices.len();
    let begin = Instant::now();
    let ends = yard.herd.enroll("kur", ROUND_LIMIT, &ProgressBar::hidden()).await?;
    let took = begin.elapsed();
    if ends.succeeded != count {
        return Err(BenchError::Odd(format!("not all are renewed: {ends:?}")));
    }
    let root = root(&yard.fleet.ca_dir)?;
    let devices = direct::devices(&yard.herd.dir, &yard.herd.devices)?;
    let url = yard.fleet.ca_url.to_string();
    let direct = tokio::task::spawn_blocking(move || direct::renew_all(&devices, &url, &root, AT_ONCE));
    let direct = direct.await.map_err(BenchError::odd("the baseline"))??;
    let per_s = |took: Duration| count as f64 / took.as_secs_f64();
    Ok(Pair { value: per_s(took), baseline: per_s(direct) })
}

fn root(ca_dir: &Path) -> Result<Certificate, BenchError> {
    let path = ca_dir.join("root.pem");
    let pem = fs::read_to_string(&path).map_err(BenchError::io(format!("reading {}", path.display())))?;
    Certificate::from_pem(&pem).map_err(BenchError::odd("the lab CA's root"))
}

/// Measures `storm.reconnect`.
///
/// # Errors
/// The system does not come up.
pub(super) async fn reconnect(harness: &mut Harness) -> Result<(), BenchError> {
    let agents = harness.size(1_000, 60);
    harness.say(format_args!("storm.reconnect: {agents} real agents, each with its connection"));
    let mut yard = Yard::make(agents, 0).await?;
    harness.pairs("storm.reconnect", async || came_back(&mut yard, agents).await).await;
    yard.end().await;
    Ok(())
}

/// Most attempts to connect within any second, beside their mean over the time in which they came.
async fn came_back(yard: &mut Yard, agents: u32) -> Result<Pair, BenchError> {
    let wanted = usize::try_from(agents).unwrap_or(usize::MAX);
    yard.gate.arrivals.clear();
    yard.stack.rabbit.stop().await;
    yard.stack.rabbit.start().await?;
    let (begin, mut stays_since) = (Instant::now(), None);
    // All are through the door, and stay: none was turned away behind it.
    while stays_since.is_none_or(|since: Instant| since.elapsed() < STAYS) {
        let inside = yard.gate.inside();
        stays_since = if inside < wanted { None } else { stays_since.or_else(|| Some(Instant::now())) };
        if begin.elapsed() > BACK_LIMIT {
            return Err(BenchError::Odd(format!("only {inside} of {agents} agents are back")));
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    let ((peak, span), count) = (yard.gate.arrivals.peak_and_span(), yard.gate.arrivals.count());
    eprintln!("          storm.reconnect: {count} attempts within {span:.1} s");
    Ok(Pair { value: peak as f64, baseline: count as f64 / span })
}
