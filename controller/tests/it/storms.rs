//! Storms in virtual time: days pass in seconds, because everything that decides is pure. Real are the decisions of the
//! devices, of admission and of the breaker; made up are the clock, the agents and the CA. What PostgreSQL makes of the
//! same decisions is in [`crate::admission`].

use std::{collections::BTreeMap, ops::Range};

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use trustfleet_controller::{
    admission::{Breaker, Budget, Endpoint, PROBE_S},
    device::{
        AddTrustpoint, Changes, Command, DeviceState, Enroll, EnrollContext, IssuedCertificate, JobFacts, JobKind,
        Renew, Report, ReportEvent, Requester, decide,
    },
};
use trustfleet_model::{
    ca_server::CaServerSpec,
    certificate::CertificateFacts,
    device::{Device, Duty, Labels},
    entity::EntitySpec,
    field::Violations,
    ids::{AgentId, JobId, TrustpointId},
    job::{Culprit, Failure, MacCredentials, RequestKind},
    policy::PolicySpec,
    renewal::{Due, next_action},
    trustpoint::Trustpoint,
};
use uuid::Uuid;

/// How often admission looks while something waits for budget.
const TICK: SignedDuration = SignedDuration::from_millis(50);
/// An exchange with a CA that answers.
const ANSWERED: SignedDuration = SignedDuration::from_millis(300);
/// Until an agent gives up on one that does not.
const GIVEN_UP: SignedDuration = SignedDuration::from_secs(60);

fn id<T: From<Uuid>>(n: u128) -> T {
    Uuid::from_u128(n).into()
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

#[derive(Clone, Copy)]
enum Event {
    /// Something may be due on the device.
    Look(usize),
    /// Its agent tells how the exchange of this job ended.
    End(usize, JobId, bool),
    /// Its agent is there.
    Hello(usize),
}

/// A job that waits for budget.
struct Waiting {
    device: usize,
    job: JobId,
    deadline: Option<Timestamp>,
}

struct World {
    now: Timestamp,
    validity: SignedDuration,
    context: EnrollContext,
    devices: Vec<DeviceState>,
    /// Since when the agent of each is away.
    absent: Vec<bool>,
    line: Vec<Waiting>,
    events: BTreeMap<(Timestamp, u64), Event>,
    number: u64,
    budget: Budget,
    tokens: Option<f64>,
    counted_at: Timestamp,
    breaker: Breaker,
    open_until: Option<Timestamp>,
    under_way: u32,
    down: Range<Timestamp>,
    /// When exchanges began at the CA.
    arrivals: Vec<Timestamp>,
    /// When certificates were renewed.
    renewed: Vec<Timestamp>,
}

impl World {
    /// `count` devices that were enrolled at `now`.
    fn new(
        now: Timestamp,
        count: usize,
        validity: SignedDuration,
        auto_update: serde_json::Value,
        budget: Budget,
    ) -> Self {
        let policy: PolicySpec = serde_json::from_value(
            json!({ "key": { "algorithm": "ecdsa-p256" }, "activation": "router", "auto_update": auto_update }),
        )
        .unwrap();
        let ca_server: CaServerSpec = serde_json::from_value(
            json!({ "ca_name": "/CN=CA", "primary_url": "http://ca.example/", "trust_anchors": ["pem"] }),
        )
        .unwrap();
        let context = EnrollContext {
            trustpoint_id: id(0),
            entity: EntitySpec { subject: "/CN={device.name}".to_owned(), sans: Vec::new() },
            ca_server,
            policy,
            policy_revision: 1,
            known_job: None,
            agent_key_sha256: None,
        };
        let mut world = Self {
            now,
            validity,
            context,
            devices: Vec::new(),
            absent: vec![false; count],
            line: Vec::new(),
            events: BTreeMap::new(),
            number: 0,
            budget,
            tokens: None,
            counted_at: now,
            breaker: Breaker::default(),
            open_until: None,
            under_way: 0,
            down: now..now,
            arrivals: Vec::new(),
            renewed: Vec::new(),
        };
        (0..count).for_each(|n| world.add_device(n));
        world
    }

    /// Enrolled by hand, past every budget.
    fn add_device(&mut self, n: usize) {
        let device = Device {
            tenant_id: id(1),
            id: id(1_000_000 + n as u128),
            name: format!("ap-{n}").parse().unwrap(),
            agent_id: Some(id::<AgentId>(2)),
            serial: None,
            mac: None,
            labels: Labels::parse(&BTreeMap::new(), &mut Violations::new()),
            pair: None,
            standby: false,
        };
        self.devices.push(DeviceState {
            device,
            version: 1,
            trustpoints: BTreeMap::new(),
            open_jobs: BTreeMap::new(),
            stopped_jobs: BTreeMap::new(),
        });
        let add = AddTrustpoint {
            id: id(2_000_000 + n as u128),
            name: "mgmt".parse().unwrap(),
            entity_id: id(3),
            ca_server_id: id(4),
            policy_id: id(5),
            mac: Some(MacCredentials { reference: "ref".to_owned(), secret_id: id(6) }),
            mac_one_time: false,
            services: Vec::new(),
            binding: None,
            requested_by: Requester::controller(),
        };
        self.decide(n, &Command::AddTrustpoint(Box::new(add)));
        let enroll = self.enroll(n, RequestKind::Ir);
        let job = self.decide(n, &Command::Enroll(Box::new(enroll))).unwrap().outbox[0];
        self.issue(n, job);
        self.look_again(n);
    }

    fn fresh<T: From<Uuid>>(&mut self) -> T {
        self.number += 1;
        id(10_000_000 + u128::from(self.number))
    }

    fn trustpoint(&self, n: usize) -> &Trustpoint {
        self.devices[n].trustpoints.values().next().unwrap()
    }

    /// Decides, and the decision is what is from now on.
    fn decide(&mut self, n: usize, command: &Command) -> Option<Box<Changes>> {
        let decision = decide(&self.devices[n], command, self.now).unwrap();
        if let Some(changes) = &decision.changes {
            self.devices[n] = changes.state.clone();
        }
        decision.changes
    }

    fn enroll(&mut self, n: usize, request: RequestKind) -> Enroll {
        let trustpoint_id: TrustpointId = id(2_000_000 + n as u128);
        Enroll {
            trustpoint: "mgmt".parse().unwrap(),
            request,
            job_id: self.fresh(),
            request_key: None,
            past_floor: false,
            requested_by: Requester::controller(),
            traceparent: None,
            context: EnrollContext { trustpoint_id, ..self.context.clone() },
        }
    }

    fn tell(&mut self, n: usize, job_id: JobId, event: ReportEvent) {
        let kind = self.devices[n].open_jobs.get(&job_id).map_or(JobKind::Enroll(RequestKind::Kur), |open| open.kind);
        let (agent_id, device_id, trustpoint_id) = (id(2), self.devices[n].device.id, self.trustpoint(n).id);
        let report = Report {
            report_id: self.fresh(),
            agent_id,
            device_id,
            trustpoint_id,
            job_id,
            job: Some(JobFacts { agent_id, device_id, trustpoint_id, kind }),
            offered_again: false,
            key_held_by: None,
            requested_by: Requester::controller(),
            transcript: None,
            event,
        };
        self.decide(n, &Command::Report(Box::new(report)));
    }

    fn issue(&mut self, n: usize, job: JobId) {
        let number: Uuid = self.fresh();
        let serial = number.simple().to_string().to_uppercase();
        let facts = CertificateFacts {
            id: number.into(),
            serial: serial.clone(),
            subject: format!("CN=ap-{n}"),
            issuer: "CN=CA".to_owned(),
            not_before: self.now,
            not_after: self.now + self.validity,
            sha256: number.simple().to_string().repeat(2),
            public_key_sha256: number.simple().to_string().repeat(2),
            file: Some("/staged".to_owned()),
            revocation: None,
        };
        let issued = IssuedCertificate {
            facts,
            der: vec![1],
            chain: Vec::new(),
            transaction_id: "00".to_owned(),
            warnings: Vec::new(),
            received_at: self.now,
        };
        self.tell(n, job, ReportEvent::Issued(Box::new(issued)));
        self.tell(n, job, ReportEvent::Activated { serial, file: "/current".to_owned(), in_service: None });
    }

    /// As the scheduler does with what a decision says is due next.
    fn look_again(&mut self, n: usize) {
        if let Some((moment, _)) = self.next_action(n) {
            self.at(moment.max(self.now), Event::Look(n));
        }
    }

    fn next_action(&self, n: usize) -> Option<(Timestamp, Due)> {
        next_action(self.trustpoint(n), &self.context.policy, Duty::Active, None, self.now)
    }

    fn at(&mut self, moment: Timestamp, event: Event) {
        self.number += 1;
        self.events.insert((moment, self.number), event);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Look(n) => self.renew_if_due(n),
            Event::Hello(n) => {
                self.absent[n] = false;
                for job in self.devices[n].open_jobs.keys().copied().collect::<Vec<_>>() {
                    if !self.line.iter().any(|waiting| waiting.job == job) {
                        let deadline = self.trustpoint(n).active.as_ref().map(|active| active.not_after);
                        self.line.push(Waiting { device: n, job, deadline });
                    }
                }
            }
            Event::End(n, job, answered) => {
                self.under_way -= 1;
                if answered {
                    (self.breaker, self.open_until) = (Breaker::default(), None);
                    self.issue(n, job);
                    self.renewed.push(self.now);
                } else {
                    self.breaker = self.breaker_now().after_failure();
                    let open_for = self.breaker.open_for_s.map(SignedDuration::from_secs_f64);
                    self.open_until = open_for.map(|open_for| self.now + open_for);
                    self.tell(n, job, unreachable());
                }
                self.look_again(n);
            }
        }
    }

    fn renew_if_due(&mut self, n: usize) {
        let Some((moment, due)) = self.next_action(n) else { return };
        if moment > self.now {
            return self.at(moment, Event::Look(n));
        }
        assert_eq!(due, Due::Renew, "the certificate of ap-{n} has ended");
        let serial = self.trustpoint(n).active.as_ref().map(|active| active.serial.clone());
        let enroll = self.enroll(n, RequestKind::Kur);
        let changes = self.decide(n, &Command::Renew(Box::new(Renew { serial, spread: None, recover: false, enroll })));
        for job in changes.iter().flat_map(|changes| &changes.jobs) {
            self.line.push(Waiting { device: n, job: job.job_id, deadline: job.deadline });
        }
    }

    fn breaker_now(&self) -> Breaker {
        let open_for_s = self.open_until.map(|until| until.duration_since(self.now).as_secs_f64());
        Breaker { open_for_s, ..self.breaker }
    }

    /// As one replica does with the endpoint's row.
    fn admit(&mut self) {
        let endpoint = Endpoint {
            budget: self.budget,
            tokens: self.tokens,
            idle_s: self.now.duration_since(self.counted_at).as_secs_f64(),
            in_use: self.under_way,
            breaker: self.breaker_now(),
        };
        let grant = endpoint.grant(256);
        if grant.jobs == 0 {
            return;
        }
        let tomorrow = self.now + SignedDuration::from_hours(24);
        // What has less than a day left goes first; all others in the order in which they came.
        self.line
            .sort_by_key(|waiting| waiting.deadline.filter(|deadline| *deadline <= tomorrow).unwrap_or(Timestamp::MAX));
        let mut begun = 0_u32;
        for waiting in self.line.drain(..self.line.len().min(grant.jobs as usize)).collect::<Vec<_>>() {
            // It waits for its agent's hello, and takes nothing.
            if !self.absent[waiting.device] {
                begun += 1;
                self.begin(waiting.device, waiting.job);
            }
        }
        (self.tokens, self.counted_at) = (Some(grant.tokens - f64::from(begun)), self.now);
        if grant.is_probe && begun > 0 {
            self.breaker.probing = true;
            self.open_until = Some(self.now + SignedDuration::from_secs_f64(PROBE_S));
        }
    }

    fn begin(&mut self, n: usize, job: JobId) {
        self.arrivals.push(self.now);
        self.under_way += 1;
        self.tell(n, job, ReportEvent::Started { public_key_sha256: "ab".repeat(32) });
        let answers = !self.down.contains(&self.now);
        let lasts = if answers { ANSWERED } else { GIVEN_UP };
        self.at(self.now + lasts, Event::End(n, job, answers));
    }

    /// Lets time pass, from event to event.
    fn run_until(&mut self, end: Timestamp) {
        loop {
            while let Some(entry) = self.events.first_entry().filter(|entry| entry.key().0 <= self.now) {
                let event = entry.remove();
                self.happen(event);
            }
            self.admit();
            let next_event = self.events.first_key_value().map(|((moment, _), _)| *moment);
            let next_look = match (self.line.is_empty(), self.open_until) {
                (true, _) => None,
                (false, Some(until)) if until > self.now => Some(until),
                (false, _) => Some(self.now + TICK),
            };
            match [next_event, next_look].into_iter().flatten().min() {
                Some(next) if next <= end => self.now = next,
                _ => break,
            }
        }
        self.now = end;
    }

    /// Arrivals since `from`, every one of which a bucket of the budget's rate and burst must have a token for.
    fn within_budget(&self, from: Timestamp) -> usize {
        let (burst, mut tokens) = (f64::from(self.budget.burst), f64::from(self.budget.burst));
        let arrivals: Vec<_> = self.arrivals.iter().filter(|at| **at >= from).collect();
        for (n, arrival) in arrivals.iter().enumerate() {
            let idle = n.checked_sub(1).map_or(0.0, |former| arrival.duration_since(*arrivals[former]).as_secs_f64());
            tokens = (tokens + idle * self.budget.rate_per_s).min(burst) - 1.0;
            assert!(tokens > -1e-6, "the arrival {n} at {arrival} is beyond the budget");
        }
        arrivals.len()
    }
}

fn unreachable() -> ReportEvent {
    let failure = Failure {
        culprit: Culprit::Transport,
        code: "ca_unreachable".to_owned(),
        message: "no answer".to_owned(),
        pki_status: None,
        fail_info: Vec::new(),
        status_string: None,
        maybe_issued: false,
    };
    ReportEvent::Failed { failure, transaction_id: None, in_service: None, in_use: None }
}

#[test]
fn after_a_ca_was_away_for_a_day_2200_renewals_wait_and_it_sees_its_budget_and_no_more() {
    let (count, hours) = (2_200, SignedDuration::from_hours);
    let budget = Budget { rate_per_s: 2.0, burst: 10, concurrency: 20 };
    let enrolled = at("2026-11-20T00:00:00Z");
    // Valid for four days; each has its own moment on the third.
    let window = json!({ "enabled": true, "elapsed_percent": 50, "latest_percent": 75 });
    let mut world = World::new(enrolled, count, hours(96), window, budget);
    let (gone, back) = (enrolled + hours(48), enrolled + hours(72));
    world.down = gone..back;

    world.run_until(back);
    assert_eq!(world.renewed.len(), 0);
    let unrenewed = |world: &World| {
        (0..count).filter(|n| world.trustpoint(*n).active.as_ref().unwrap().not_before == enrolled).count()
    };
    assert_eq!(unrenewed(&world), count);
    let waiting = world.line.len();
    assert!(waiting > count - 200, "only {waiting} wait: the others have tried in vain");
    // It is asked whether it is back, ever more rarely: every eleven minutes at last.
    let tried = world.within_budget(gone);
    assert!((100..=160).contains(&tried), "{tried} exchanges were tried in vain");

    let drained = back + SignedDuration::from_secs_f64(f64::from(2_200) / budget.rate_per_s);
    world.run_until(drained + SignedDuration::from_mins(15));
    assert_eq!(unrenewed(&world), 0, "all are renewed, a quarter of an hour later than the budget allows at best");
    assert_eq!(world.within_budget(back), count, "each asked once");
    let begun = world.arrivals.iter().find(|at| **at >= back).unwrap();
    assert!(*begun <= back + SignedDuration::from_mins(11), "it was noticed at {begun} that the CA is back");
}

#[test]
fn when_a_site_of_5000_devices_comes_back_after_a_week_the_ca_sees_its_budget_and_no_more() {
    let (count, days) = (5_000, |days: i64| SignedDuration::from_hours(24 * days));
    let budget = Budget { rate_per_s: 10.0, burst: 20, concurrency: 100 };
    let enrolled = at("2026-11-01T00:00:00Z");
    // Valid for thirty days: seven ninths of them come due in the week from the fifteenth day on.
    let window = json!({ "enabled": true, "elapsed_percent": 50, "latest_percent": 80 });
    let mut world = World::new(enrolled, count, days(30), window, budget);
    let (gone, back) = (enrolled + days(15), enrolled + days(22));
    world.absent = vec![true; count];

    world.run_until(back);
    assert_eq!(world.arrivals.len(), 0, "nobody is there who could ask the CA");
    let open = world.devices.iter().filter(|device| !device.open_jobs.is_empty()).count();
    assert!((3_700..4_080).contains(&open), "{open} of them wait for their agents since {gone}");

    // All their agents say hello within half a minute.
    for n in 0..count {
        world.at(back + SignedDuration::from_millis(6 * i64::try_from(n).unwrap()), Event::Hello(n));
    }
    let best = SignedDuration::from_secs_f64(f64::from(u32::try_from(open).unwrap()) / budget.rate_per_s);
    world.run_until(back + best + SignedDuration::from_secs(30));
    let asked = world.within_budget(back);
    assert!(asked >= open && asked < open + 20, "{asked} of the {open} that waited, and who came due since");
    assert!(world.renewed.len() >= open, "{} are renewed", world.renewed.len());
}
