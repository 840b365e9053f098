//! Any commands and reports in any order, twice, late or senseless: what must always hold.

use proptest::prelude::*;
use trustfleet_model::{
    ids::{CertificateId, JobId},
    job::{JobState, RequestKind},
};

use super::{
    decide,
    tests::{activate, activated, enroll, failed, failure, id, issued, now, ready, report_of, requester},
};
use crate::device::{
    Changes, Command, DeviceState, JobKind, RemoveTrustpoint, ReportEvent, Stop, StopNote, Undeliverable,
};

/// One step; jobs are numbered from 100, certificates from 500.
#[derive(Clone, Copy, Debug)]
enum Step {
    Enroll(RequestKind, Option<u8>),
    Activate,
    Started(u8),
    Waiting(u8),
    PermitExpired(u8),
    Issued(u8),
    Activated(u8, u8),
    Failed(u8),
    Undeliverable(u8),
    Stop(u8),
    Remove,
    /// The step before once more.
    Again,
}

fn step() -> impl Strategy<Value = Step> {
    let request = prop_oneof![Just(RequestKind::Ir), Just(RequestKind::Cr), Just(RequestKind::Kur)];
    prop_oneof![
        4 => (request, prop::option::of(0_u8..3)).prop_map(|(request, key)| Step::Enroll(request, key)),
        2 => Just(Step::Activate),
        4 => (0_u8..6).prop_map(Step::Started),
        2 => (0_u8..6).prop_map(Step::Waiting),
        2 => (0_u8..6).prop_map(Step::PermitExpired),
        5 => (0_u8..6).prop_map(Step::Issued),
        5 => (0_u8..6, 0_u8..6).prop_map(|(job, certificate)| Step::Activated(job, certificate)),
        2 => (0_u8..6).prop_map(Step::Failed),
        1 => (0_u8..6).prop_map(Step::Undeliverable),
        2 => (0_u8..6).prop_map(Step::Stop),
        1 => Just(Step::Remove),
        3 => Just(Step::Again),
    ]
}

/// What PostgreSQL would hold beside the state.
struct World {
    state: DeviceState,
    jobs: Vec<(JobId, JobKind, JobState)>,
    /// Jobs whose agent is to be told to stop.
    stopping: Vec<JobId>,
    certificates: Vec<CertificateId>,
}

impl World {
    fn command(&self, step: Step) -> Option<Command> {
        let next = 100 + self.jobs.len() as u128;
        let report = |n: u8, event: ReportEvent| {
            let (job_id, kind, _) = self.jobs.get(usize::from(n))?;
            let mut report = report_of(0, *kind, event);
            report.job_id = *job_id;
            Some(Command::Report(Box::new(report)))
        };
        match step {
            Step::Enroll(request, key) => {
                let key = key.map(|key| format!("key-{key}"));
                Some(enroll(next, request, key.as_deref()))
            }
            Step::Activate => Some(activate(next)),
            Step::Started(n) => report(n, ReportEvent::Started { public_key_sha256: format!("{n}") }),
            Step::Waiting(n) => report(n, ReportEvent::Waiting { requesting: false, progress: None }),
            Step::PermitExpired(n) => report(n, ReportEvent::PermitExpired),
            Step::Issued(n) => report(n, issued(500 + u128::from(n))),
            Step::Activated(n, certificate) => report(n, activated(500 + u128::from(certificate))),
            Step::Failed(n) => report(n, failed("failed")),
            Step::Undeliverable(n) => {
                let (job_id, _, _) = self.jobs.get(usize::from(n))?;
                Some(Command::Undeliverable(Undeliverable { job_id: *job_id, failure: failure("undeliverable") }))
            }
            Step::Stop(n) => {
                let (job_id, _, _) = self.jobs.get(usize::from(n))?;
                Some(Command::Stop(Stop { job_id: *job_id, requested_by: requester() }))
            }
            Step::Remove => {
                let trustpoint = "mgmt".parse().unwrap();
                Some(Command::RemoveTrustpoint(RemoveTrustpoint { trustpoint, requested_by: requester() }))
            }
            Step::Again => None,
        }
    }

    /// Writes changes as the group commit would, with the checks that its constraints make.
    fn write(&mut self, changes: Changes) {
        assert_eq!(changes.expected_version(), self.state.version);
        for job in &changes.jobs {
            assert!(self.jobs.iter().all(|(job_id, _, _)| *job_id != job.job_id), "a job was made twice");
            self.jobs.push((job.job_id, job.kind, JobState::AwaitingPublish));
        }
        for update in &changes.job_updates {
            let (_, _, state) = self.jobs.iter_mut().find(|(job_id, _, _)| *job_id == update.job_id).unwrap();
            let stopping = self.stopping.contains(&update.job_id);
            // What was stopped here may turn out to have ended otherwise there, once.
            assert!(!state.is_final() || stopping, "{:?} was {state:?} and became {:?}", update.job_id, update.state);
            assert!(!state.is_final() || update.stop == Some(StopNote::Answered));
            assert!(stopping || update.state.is_final() == update.finished_at.is_some());
            *state = update.state;
            match update.stop {
                Some(StopNote::Requested) => self.stopping.push(update.job_id),
                Some(StopNote::Answered) => self.stopping.retain(|job_id| *job_id != update.job_id),
                None => {}
            }
        }
        for made in &changes.certificates {
            assert!(!self.certificates.contains(&made.issued.facts.id), "a certificate was stored twice");
            self.certificates.push(made.issued.facts.id);
        }
        for change in &changes.slots {
            assert!(self.certificates.contains(&change.certificate_id));
        }
        for job_id in &changes.outbox {
            let (_, _, state) = self.jobs.iter().find(|(known, _, _)| known == job_id).unwrap();
            assert!(*state == JobState::AwaitingPublish || self.stopping.contains(job_id));
        }
        assert!(!changes.audit.is_empty() || changes.jobs.is_empty(), "a job without a line in the audit");
        self.state = changes.state;
    }

    fn check(&self) {
        let open: Vec<_> = self.jobs.iter().filter(|(_, _, state)| !state.is_final()).map(|(id, _, _)| *id).collect();
        assert_eq!(open, self.state.open_jobs.keys().copied().collect::<Vec<_>>(), "open jobs differ from the rows");
        for trustpoint in self.state.trustpoints.values() {
            let under_way: Vec<_> = trustpoint.request.job_id().into_iter().collect();
            assert_eq!(under_way, open, "the request under way is not the open job");
            let held: Vec<_> = [&trustpoint.active, &trustpoint.staged, &trustpoint.previous]
                .into_iter()
                .flatten()
                .map(|f| f.id)
                .collect();
            let mut distinct = held.clone();
            distinct.sort_unstable();
            distinct.dedup();
            assert_eq!(held.len(), distinct.len(), "a certificate stands in two places");
        }
        if self.state.trustpoints.is_empty() {
            assert!(open.is_empty(), "a job is under way on a trustpoint that is gone");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_comes_in_whatever_order_state_jobs_and_certificates_agree(steps in prop::collection::vec(step(), 1..60)) {
        let mut world = World { state: ready(), jobs: Vec::new(), stopping: Vec::new(), certificates: Vec::new() };
        let mut last = None;
        for step in steps {
            let Some(command) = world.command(step).or_else(|| last.clone()) else { continue };
            if let Ok(decision) = decide(&world.state, &command, now())
                && let Some(changes) = decision.changes
            {
                world.write(*changes);
            }
            world.check();
            last = Some(command);
        }
        prop_assert!(world.jobs.iter().all(|(job_id, _, _)| *job_id >= id(100)));
    }
}
