//! The real agent, killed before every step that it takes, and what is there in the end.
//!
//! Steps are found by a first run without death: what is written to the disk, sent to and read from the CA, sent to the
//! broker. Then the same again for each step, with SIGKILL before it and a new life after. A step that is added to the
//! agent later is covered without a word here. By default a part of the steps is taken, chosen by a seed that a failure
//! names; `make chaos` (`TRUSTFLEET_CHAOS=1`) takes all.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "support/kill/mod.rs"]
mod kill;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use kill::{
    Kind,
    agent::{Agent, Story, kind},
};
use trustfleet_cmp::key::{Signer as _, SoftwareKey};
use trustfleet_lab::ca::{self, CaConfig, Fault, Issued};
use trustfleet_model::clock::{Clock as _, SystemClock};
use trustfleet_pki::{Certificate, digest::sha256};
use trustfleet_wire::v1::{Enroll, Event, Job, Request, Task};

/// Between two steps that are taken while not all are.
const STRIDE: u32 = 5;

/// Which steps to die before.
struct Choice {
    all: bool,
    seed: u32,
}

impl Choice {
    /// By the environment, the same for the whole run.
    fn made() -> &'static Self {
        static MADE: OnceLock<Choice> = OnceLock::new();
        MADE.get_or_init(Self::of_environment)
    }

    fn of_environment() -> Self {
        let seed = std::env::var("TRUSTFLEET_KILL_SEED").ok().and_then(|seed| seed.parse().ok());
        let now = || SystemClock.now().subsec_microsecond().unsigned_abs();
        Self { all: std::env::var_os("TRUSTFLEET_CHAOS").is_some(), seed: seed.unwrap_or_else(now) % STRIDE }
    }

    fn steps(&self, count: u32) -> impl Iterator<Item = u32> {
        let (all, seed) = (self.all, self.seed);
        (1..=count).filter(move |number| all || number % STRIDE == seed)
    }
}

/// An enrolment that is repeated for each step.
struct Scenario {
    request: Request,
    shape: fn(&mut Enroll),
    ca: fn(&mut CaConfig),
    /// What must be so in the end.
    end: fn(&mut Check<'_>),
    /// Services that are given the certificate; those before go to `good` alone.
    services: &'static [&'static str],
}

impl Default for Scenario {
    fn default() -> Self {
        Self { request: Request::Ir, shape: |_| {}, ca: |_| {}, end: |check| check.is_enrolled_once(), services: &[] }
    }
}

impl Scenario {
    async fn survives_every_death(self) {
        let dir = tempfile::tempdir().unwrap();
        let mut config = CaConfig::new(dir.path());
        (self.ca)(&mut config);
        let mut agent = Agent::start(ca::start(config).await.unwrap()).await;
        let choice = Choice::made();
        let mut device = 0;
        // An agent that has just begun notes the time, once: its first job has steps that no later one has.
        self.once(&mut agent, device, Kind::Local, 0).await;
        for kind in [Kind::Local, Kind::Broker] {
            device += 1;
            let count = self.once(&mut agent, device, kind, 0).await.steps;
            let steps = agent.board.steps();
            assert!(count > 0, "nothing was counted");
            for number in choice.steps(count) {
                device += 1;
                let story = self.once(&mut agent, device, kind, number).await;
                // What goes to the broker is gathered as it comes, so that its number varies; the rest does not.
                let now = agent.board.steps();
                let died = story.deaths == 1 || kind == Kind::Broker && story.deaths == 0;
                let seed = choice.seed;
                assert!(died, "{number} of {count}, seed {seed}: {story:?}\nfirst it was\n{steps}\nand now\n{now}");
            }
        }
        agent.end().await;
    }

    /// One job, for a device that is there once.
    async fn once(&self, agent: &mut Agent, device: u32, kind: Kind, number: u32) -> Story {
        let device = format!("ap-{device}");
        // The third certificate pushes the first one out.
        let before: &[Request] = if self.request == Request::Kur { &[Request::Ir, Request::Kur] } else { &[] };
        for request in before {
            let mut first = agent.job(&device, |agent, id| enrolment(agent.enroll(id, *request, &device), self.shape));
            first.services.extend(self.services.first().map(ToString::to_string));
            let story = agent.work(first, Kind::Local, 0).await;
            assert_eq!(story.record["state"]["outcome"]["outcome"], "succeeded", "{story:?}");
        }
        let before = agent.ca.issued().len();
        let mut job = agent.job(&device, |agent, id| enrolment(agent.enroll(id, self.request, &device), self.shape));
        job.services.extend(self.services.iter().map(ToString::to_string));
        let story = agent.work(job, kind, number).await;
        let mut all = agent.ca.issued();
        let issued = all.split_off(before);
        let steps = agent.board.steps();
        let at = format!(
            "{kind:?} {number} of {}, TRUSTFLEET_KILL_SEED={}, steps:\n{steps}",
            story.steps,
            Choice::made().seed
        );
        (self.end)(&mut Check { agent, story: &story, issued, former: all.pop(), at });
        story
    }
}

fn enrolment(mut enroll: Enroll, shape: fn(&mut Enroll)) -> Task {
    shape(&mut enroll);
    Task::Enroll(Box::new(enroll))
}

/// The end of one job, to be looked at.
struct Check<'a> {
    agent: &'a Agent,
    story: &'a Story,
    /// What the CA has issued for it.
    issued: Vec<Issued>,
    /// What it issued before.
    former: Option<Issued>,
    at: String,
}

impl Check<'_> {
    /// One certificate, confirmed and in use, with the one key that fits it; told once, in order.
    fn is_enrolled_once(&mut self) {
        let at = &self.at;
        assert_eq!(self.story.record["state"]["outcome"]["outcome"], "succeeded", "{at}\n{:?}", self.story);
        assert_eq!(self.issued.len(), 1, "the CA has issued {:?}\n{at}", self.issued);
        let issued = &self.issued[0];
        assert!(issued.confirmed && !issued.revoked, "{issued:?}\n{at}");
        self.slot_holds("current", Some(&issued.certificate));
        let kinds: Vec<String> = self.kinds().into_iter().filter(|kind| kind != "waiting").collect();
        assert_eq!(kinds, ["started", "issued", "activated"], "{at}");
        let Event::Started { public_key_sha256 } = &self.story.reports[0].event else { panic!("{at}") };
        assert_eq!(*public_key_sha256, hex::encode(sha256(&issued.certificate.spki_der())), "another key\n{at}");
        self.nothing_is_left_over();
    }

    /// As [`Self::is_enrolled_once`], and the wait was told.
    fn is_enrolled_once_after_a_wait(&mut self) {
        self.is_enrolled_once();
        assert_eq!(self.kinds(), ["started", "waiting", "issued", "activated"], "{}", self.at);
    }

    /// Enrolled, or a failure that says what nobody here can know.
    fn is_enrolled_or_says_that_it_may_be(&mut self) {
        let at = &self.at;
        assert!(self.issued.len() <= 1, "the CA has issued {:?}\n{at}", self.issued);
        if self.story.record["state"]["outcome"]["outcome"] == "succeeded" {
            return self.is_enrolled_once();
        }
        let Some(Event::Failed(failed)) = self.story.reports.last().map(|report| &report.event) else { panic!("{at}") };
        let issued = self.issued.iter().find(|issued| !issued.revoked);
        assert!(issued.is_none() || failed.maybe_issued, "{failed:?} hides {issued:?}\n{at}");
        if let Some(issued) = issued {
            let version = self.trustpoint().join("versions").join(self.story.job.job_id.to_string());
            assert_eq!(key(&version).public_key_der(), issued.certificate.spki_der(), "its key is kept\n{at}");
        }
        self.slot_holds("staged", None);
        self.nothing_is_left_over();
    }

    /// Refused: no certificate, and no key unless the refusal was of a repetition.
    fn is_refused(&mut self) {
        let at = &self.at;
        let Some(Event::Failed(failed)) = self.story.reports.last().map(|report| &report.event) else { panic!("{at}") };
        assert_eq!(failed.culprit, "peer_refusal", "{failed:?}\n{at}");
        assert!(self.issued.is_empty(), "{at}");
        assert_eq!(self.kinds(), ["started", "failed"], "{at}");
        self.nothing_is_left_over();
    }

    /// In use and in service.
    fn is_in_service(&mut self) {
        self.is_enrolled_once();
        self.service_has("good", Some(&self.issued[0].certificate));
    }

    /// Issued, and not taken by the second service: the one before is in use, in every place, and the new one waits.
    fn is_taken_back(&mut self) {
        let at = &self.at;
        assert_eq!(self.kinds(), ["started", "issued", "failed"], "{at}");
        let Some(Event::Failed(failed)) = self.story.reports.last().map(|report| &report.event) else { panic!("{at}") };
        assert_eq!(failed.code, "reload_failed", "{failed:?}\n{at}");
        let former = self.former.as_ref().unwrap().certificate.clone();
        self.slot_holds("current", Some(&former));
        self.slot_holds("staged", Some(&self.issued[0].certificate));
        self.service_has("good", Some(&former));
        self.service_has("bad", None);
        self.nothing_is_left_over();
    }

    /// What a service was given, with its key, and what it has loaded.
    fn service_has(&self, service: &str, wanted: Option<&Certificate>) {
        let folder = self.agent.state().join("services").join(&self.story.job.device).join(service);
        let read = |name: &str| fs::read_to_string(folder.join(name)).ok();
        for name in ["certificate.pem", "loaded.pem"] {
            let found = read(name).map(|text| Certificate::from_pem(&text).unwrap());
            assert_eq!(found.as_ref(), wanted, "{service}: {name}\n{}", self.at);
        }
        let public = read("key.pem").map(|text| SoftwareKey::from_pem(&text).unwrap().public_key_der().to_vec());
        assert_eq!(public, wanted.map(Certificate::spki_der), "{service}: the key\n{}", self.at);
        let leftovers: Vec<_> = files(&self.agent.state())
            .into_iter()
            .filter(|file| {
                let name = file.file_name().unwrap().to_string_lossy().into_owned();
                name.ends_with("trustfleet-new") || name == "activation.json"
            })
            .collect();
        assert!(leftovers.is_empty(), "{leftovers:?}\n{}", self.at);
    }

    fn kinds(&self) -> Vec<String> {
        self.story.reports.iter().map(|report| kind(&report.event)).collect()
    }

    fn trustpoint(&self) -> PathBuf {
        self.agent.trustpoint(&self.story.job)
    }

    fn slot_holds(&self, slot: &str, wanted: Option<&Certificate>) {
        let folder = self.trustpoint().join(slot);
        let text = fs::read_to_string(folder.join("certificate.pem")).ok();
        let found = text.map(|text| Certificate::from_pem(&text).unwrap());
        assert_eq!(found.as_ref(), wanted, "{slot}\n{}", self.at);
        if let Some(certificate) = found {
            assert_eq!(key(&folder).public_key_der(), certificate.spki_der(), "{slot}: its key\n{}", self.at);
        }
    }

    /// One private key for each slot in use and none besides (but for one that a certificate may belong to); no file
    /// that was never finished.
    fn nothing_is_left_over(&self) {
        let at = &self.at;
        let trustpoint = self.trustpoint();
        let slots = ["current", "previous", "staged"].map(|slot| fs::read_link(trustpoint.join(slot)).ok());
        let mut wanted: BTreeSet<PathBuf> = slots.into_iter().flatten().map(|target| trustpoint.join(target)).collect();
        if let Some(Event::Failed(failed)) = self.story.reports.last().map(|report| &report.event)
            && failed.maybe_issued
        {
            wanted.insert(trustpoint.join("versions").join(self.story.job.job_id.to_string()));
        }
        let mut keys = BTreeSet::new();
        for file in files(&self.agent.state()) {
            let name = file.file_name().unwrap().to_string_lossy().into_owned();
            assert!(!name.ends_with(".tmp"), "{} is left over\n{at}", file.display());
            let content = fs::read(&file).unwrap_or_default();
            if file.starts_with(&trustpoint) && String::from_utf8_lossy(&content).contains("PRIVATE KEY") {
                keys.insert(file.parent().unwrap().to_owned());
            }
        }
        assert_eq!(keys, wanted, "private keys\n{at}");
    }
}

fn key(folder: &Path) -> SoftwareKey {
    SoftwareKey::from_pem(&fs::read_to_string(folder.join("key.pem")).unwrap()).unwrap()
}

/// Every file and link below a folder; links are not followed.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w6_an_ir_by_mac_survives_death_before_every_step_and_is_issued_once() {
    Scenario::default().survives_every_death().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c9_an_ir_that_is_confirmed_survives_death_before_every_step_and_is_issued_once() {
    let ca = |config: &mut CaConfig| config.implicit_confirm = false;
    Scenario { ca, ..Scenario::default() }.survives_every_death().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w6_a_kur_by_signature_survives_death_before_every_step_and_replaces_the_certificate_once() {
    let ca = |config: &mut CaConfig| (config.implicit_confirm, config.one_update) = (false, true);
    Scenario { request: Request::Kur, ca, ..Scenario::default() }.survives_every_death().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w6_a_kur_that_keeps_its_key_and_is_confirmed_implicitly_survives_death_before_every_step() {
    let shape = |enroll: &mut Enroll| enroll.regenerate_key = false;
    Scenario { request: Request::Kur, shape, ..Scenario::default() }.survives_every_death().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w6_polling_survives_death_before_every_step_within_one_transaction() {
    let ca = |config: &mut CaConfig| (config.poll_count, config.check_after) = (2, 0);
    let end = |check: &mut Check<'_>| check.is_enrolled_once_after_a_wait();
    Scenario { ca, end, ..Scenario::default() }.survives_every_death().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w2_w6_a_delayed_confirmation_of_a_kur_survives_death_before_every_step() {
    let ca = |config: &mut CaConfig| {
        (config.implicit_confirm, config.poll_certconf) = (false, true);
        (config.poll_count, config.check_after) = (1, 0);
    };
    Scenario { request: Request::Kur, ca, ..Scenario::default() }.survives_every_death().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t5_c8_where_the_ca_knows_no_repetition_an_agent_that_died_says_that_a_certificate_may_be_issued() {
    let ca = |config: &mut CaConfig| {
        config.implicit_confirm = false;
        config.faults.push(Fault::NoRepetition);
    };
    let end = |check: &mut Check<'_>| check.is_enrolled_or_says_that_it_may_be();
    Scenario { ca, end, ..Scenario::default() }.survives_every_death().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_survives_death_before_every_step_and_its_key_goes_unless_a_certificate_may_be_its_own() {
    let ca = |config: &mut CaConfig| config.reject = Some(trustfleet_cmp::codec::FailureBit::BadCertTemplate);
    let end = |check: &mut Check<'_>| check.is_refused();
    Scenario { ca, end, ..Scenario::default() }.survives_every_death().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_dies_again_and_again_gets_on_from_life_to_life_and_is_enrolled_once() {
    // Less than an exchange takes with what is saved around it would never come to an end.
    const STEPS_OF_A_LIFE: [u32; 3] = [14, 15, 17];
    let dir = tempfile::tempdir().unwrap();
    let mut config = CaConfig::new(dir.path());
    config.implicit_confirm = false;
    let mut agent = Agent::start(ca::start(config).await.unwrap()).await;
    for steps in STEPS_OF_A_LIFE {
        let device = format!("ap-{steps}");
        let plain = |_: &mut Enroll| {};
        let job = agent.job(&device, |agent, id| enrolment(agent.enroll(id, Request::Ir, &device), plain));
        let before = agent.ca.issued().len();
        let story = agent.work_dying(job, Kind::Local, steps).await;
        assert!(story.deaths >= 4, "{story:?}");
        let issued = agent.ca.issued().split_off(before);
        let at = format!("lives of {steps} steps, the last one:\n{}", agent.board.steps());
        Check { agent: &agent, story: &story, issued, former: None, at }.is_enrolled_once();
    }
    agent.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s33_an_activation_on_command_survives_death_before_every_step() {
    let dir = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(ca::start(CaConfig::new(dir.path())).await.unwrap()).await;
    let choice = Choice::made();
    let mut count = activation(&mut agent, 0, 0).await;
    count = count.max(1);
    for number in choice.steps(count) {
        activation(&mut agent, number, count).await;
    }
    agent.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s34_services_survive_death_before_every_step() {
    let end = |check: &mut Check<'_>| check.is_in_service();
    Scenario { request: Request::Kur, end, services: &["good"], ..Scenario::default() }.survives_every_death().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_a_service_does_not_take_is_taken_back_from_all_places_whenever_the_agent_dies() {
    let end = |check: &mut Check<'_>| check.is_taken_back();
    Scenario { request: Request::Kur, end, services: &["good", "bad"], ..Scenario::default() }
        .survives_every_death()
        .await;
}

/// Enrols, and dies before a step of the activation; says how many steps that has.
async fn activation(agent: &mut Agent, number: u32, of: u32) -> u32 {
    let device = format!("ap-{number}");
    let staged = |enroll: &mut Enroll| enroll.activate = false;
    let first = agent.job(&device, |agent, id| enrolment(agent.enroll(id, Request::Ir, &device), staged));
    agent.work(first, Kind::Local, 0).await;
    let issued = agent.ca.issued().pop().unwrap();
    let serial = issued.serial.clone();
    let job: Job = agent.job(&device, |_, _| Task::Activate { serial });
    let story = agent.work(job, Kind::Local, number).await;
    assert_eq!(story.deaths, u32::from(number > 0), "{story:?}");
    let at = format!("{number} of {of}\n{}", agent.board.steps());
    let steps = story.steps;
    let check = Check { agent, story: &story, issued: Vec::new(), former: None, at };
    assert_eq!(check.kinds(), ["activated"], "{}", check.at);
    check.slot_holds("current", Some(&issued.certificate));
    check.slot_holds("staged", None);
    check.nothing_is_left_over();
    steps
}
