//! Three controllers on one database and broker, of which one after the other dies or freezes at seeded moments: every job
//! is done once, and the CA sees its budget.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{
    collections::BTreeMap,
    env,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use support::{Lab, policy};
use tokio_postgres::Client;
use trustfleet_lab::{
    house::{Fleet, House, HouseError, Replica, Rest, TENANT},
    testkit::{Child, eventually},
};

/// Agents, each in front of an equal part of the devices.
const AGENTS: usize = 4;
/// The CA's budget.
const RATE: u32 = 40;
/// How many may begin at once.
const BURST: u32 = 20;
/// Requests under way at each replica.
const ASKERS: usize = 3;
/// Longer than a claim of the outbox (5 s).
const FROZEN: Duration = Duration::from_secs(7);
/// Longer than every time-out of connections, statements, locks and confirms (30 s at most).
const FROZEN_LONG: Duration = Duration::from_secs(35);

/// How many devices, and with which seeds: `make chaos` sets more.
fn sizes() -> (usize, Vec<u64>) {
    let number = |name: &str, default: usize| env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let seeds = number("TRUSTFLEET_REPLICAS_SEEDS", 1);
    let first = u64::try_from(number("TRUSTFLEET_REPLICAS_SEED", 1)).unwrap();
    (number("TRUSTFLEET_REPLICAS_DEVICES", 160), (first..).take(seeds).collect())
}

/// Numbers that follow from the seed alone (xorshift64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// One of the three controllers.
enum Victim<'a> {
    First(&'a mut House),
    Further(Box<Replica>),
}

impl Victim<'_> {
    fn controller(&mut self) -> &mut Child {
        match self {
            Self::First(house) => &mut house.controller,
            Self::Further(replica) => &mut replica.controller,
        }
    }

    async fn start_again(&mut self) -> Result<(), HouseError> {
        match self {
            Self::First(house) => house.start_again().await,
            Self::Further(replica) => replica.start_again().await,
        }
    }
}

/// Kills, freezes and restarts one of the controllers after the other until `stop`.
async fn torment(mut victims: Vec<Victim<'_>>, seed: u64, stop: &AtomicBool) -> Vec<String> {
    let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let mut done = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        tokio::time::sleep(Duration::from_millis(300 + dice.below(2_500))).await;
        let at = usize::try_from(dice.below(victims.len() as u64)).unwrap();
        let victim = &mut victims[at];
        if dice.below(2) == 0 {
            victim.controller().kill().await;
            tokio::time::sleep(Duration::from_millis(dice.below(2_000))).await;
            victim.start_again().await.unwrap();
            done.push(format!("kill {at}"));
        } else {
            let (time, how) = if dice.below(5) == 0 { (FROZEN_LONG, "for long ") } else { (FROZEN, "") };
            victim.controller().freeze();
            tokio::time::sleep(time).await;
            victim.controller().thaw();
            done.push(format!("freeze {how}{at}"));
        }
    }
    done
}

/// Registers the devices, several at a time.
fn register_all(fleet: &Fleet, names: &[String]) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::SeqCst);
                    let Some(device) = names.get(n) else { return };
                    fleet.add_device(device, &format!("agent-{}", n % AGENTS)).unwrap();
                }
            });
        }
    });
}

/// Asks for all enrolments, several at a time at each replica: those at one that is frozen hold up no others.
fn enroll_all(clients: &[Rest], devices: &[String]) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for asker in 0..clients.len() * ASKERS {
            let next = &next;
            scope.spawn(move || {
                while let Some(device) = devices.get(next.fetch_add(1, Ordering::SeqCst)) {
                    enroll_somewhere(clients, device, asker);
                }
            });
        }
    });
}

/// Asks for an enrolment at one replica after the other until one has accepted it; the same key finds the same job.
fn enroll_somewhere(clients: &[Rest], device: &str, first: usize) {
    let path = format!("/v1/tenants/{TENANT}/devices/{device}/trustpoints/default/enroll");
    let begun = Instant::now();
    for at in first.. {
        let headers = [("Idempotency-Key", device)];
        let answer = clients[at % clients.len()].send("POST", &path, &headers, Some(&json!({ "request": "ir" })));
        match answer {
            Ok(answer) if answer.status == 202 => return,
            // 408: it was frozen, and takes its own pause for a slow client.
            Ok(answer) if answer.status < 500 && answer.status != 408 => panic!("{device}: {answer:?}"),
            _ => std::thread::sleep(Duration::from_millis(50)),
        }
        assert!(begun.elapsed() < Duration::from_secs(120), "nobody accepts the request for {device}");
    }
}

/// A number as the database's superuser sees it.
async fn counted(admin: &Client, sql: &str) -> usize {
    let row = admin.query_one(sql, &[]).await.unwrap();
    usize::try_from(row.get::<_, i64>(0)).unwrap()
}

/// The most that the CA issued in any second.
fn peak(issued: &[Value]) -> usize {
    let mut at: Vec<i64> = issued
        .iter()
        .map(|it| it["time"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_millisecond())
        .collect();
    at.sort_unstable();
    (0..at.len()).map(|i| at[i..].iter().take_while(|other| **other < at[i] + 1_000).count()).max().unwrap_or(0)
}

async fn one_run(devices: usize, seed: u64) {
    let mut lab = Lab::start().await;
    let names: Vec<String> = (0..devices).map(|n| format!("d-{n}")).collect();
    let named: Vec<&str> = names.iter().map(String::as_str).collect();
    let fleet = Fleet::create(&lab.house, &named, &policy()).await.unwrap();
    let endpoint = format!("/v1/ca-endpoints/{}:{}", fleet.ca_url.host_str().unwrap(), fleet.ca_url.port().unwrap());
    let budget = json!({ "rate_per_s": RATE, "burst": BURST, "concurrency": 64 });
    lab.house.platform.put(&endpoint, &budget).unwrap();
    let mut agents = Vec::new();
    for n in 0..AGENTS {
        agents.push(fleet.start_agent(&format!("agent-{n}")).await.unwrap());
    }
    register_all(&fleet, &names);
    let admin = lab.db.as_ref().unwrap().admin().await.unwrap();

    let mut replicas = Vec::new();
    for n in 0..2 {
        replicas.push(lab.house.replica(&format!("replica-{n}"), &lab.env).await.unwrap());
    }
    let elsewhere = replicas.iter().map(|replica| fleet.rest.at(replica.url.clone()));
    let clients: Vec<Rest> = std::iter::once(fleet.rest.clone()).chain(elsewhere).collect();
    let stop = AtomicBool::new(false);
    let asking = names.clone();
    let asked = tokio::task::spawn_blocking(move || {
        enroll_all(&clients, &asking);
    });
    let work = async {
        asked.await.unwrap();
        let active = "SELECT count(*) FROM trustpoints WHERE status = 'active'";
        let limit = Duration::from_secs(120 + u64::try_from(devices).unwrap() / 4);
        let all = async || (counted(&admin, active).await == devices).then_some(());
        eventually(limit, "every device has its certificate", all).await.unwrap();
        stop.store(true, Ordering::SeqCst);
    };
    let mut victims = vec![Victim::First(&mut lab.house)];
    victims.extend(replicas.into_iter().map(|replica| Victim::Further(Box::new(replica))));
    let (done, ()) = tokio::join!(torment(victims, seed, &stop), work);

    let issued = lab.issued_by_ca(&fleet);
    let mut subjects: BTreeMap<String, usize> = BTreeMap::new();
    for certificate in &issued {
        *subjects.entry(certificate["subject"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    let twice: Vec<_> = subjects.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.is_empty(), "seed {seed}: second certificates for {twice:?} after {done:?}");
    assert_eq!(issued.len(), devices, "seed {seed}: {done:?}");
    assert_eq!(counted(&admin, "SELECT count(*) FROM jobs").await, devices, "one job for each");
    for action in ["job_created", "certificate_issued", "certificate_activated"] {
        let sql = format!("SELECT count(*) FROM audit WHERE action = '{action}'");
        assert_eq!(counted(&admin, &sql).await, devices, "seed {seed}: {action} after {done:?}");
    }
    let (peak, most) = (peak(&issued), usize::try_from(RATE + BURST).unwrap());
    println!("seed {seed}: {} events, at most {peak} certificates in a second", done.len());
    // The budget is of beginnings; what began in one second may be issued in the next one together with those of that one.
    assert!(peak <= most + most / 4, "seed {seed}: {peak} certificates in one second, {most} may begin: {done:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_controllers_that_die_and_freeze_do_every_job_once_and_keep_to_the_budget_of_the_ca() {
    let (devices, seeds) = sizes();
    for seed in seeds {
        one_run(devices, seed).await;
    }
}
