//! The queue of reports: each is repeated, with growing waits, until the controller has answered for it.
//!
//! Reports of one trustpoint go in their order, whichever job they are of: a later one waits for the receipt of the one
//! before it, though not for ever, so that one that nobody can read does not hold back the rest. Of two renewals that
//! the agent made by itself the controller would else take the former for the one in use. What is kept over a restart
//! stands in the job records; a report that could not be saved (disk full) lives here only.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::Span;
use trustfleet_model::ids::{JobId, MessageId, TrustpointId};

use crate::controller_link::Publication;
use crate::identity::Identity;
use crate::lifecycle::REPORT_BACKOFF;
use crate::record::Outgoing;

/// How long a report waits for the receipt of the one before it.
const ORDER_PATIENCE: Duration = Duration::from_secs(10);

/// How long the broker may take to confirm a report before it counts as not sent.
const CONFIRM_MAX: Duration = Duration::from_secs(60);

/// The queue of reports.
#[derive(Debug)]
pub struct Reports {
    queue: Mutex<Queue>,
    changed: Notify,
    confirmed: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    linked: bool,
    trustpoints: BTreeMap<TrustpointId, Vec<Sending>>,
}

#[derive(Debug)]
struct Sending {
    job: JobId,
    report: Outgoing,
    span: Span,
    attempts: u32,
    in_flight: bool,
    confirmed: bool,
    first_sent: Option<Instant>,
    due: Instant,
}

impl Default for Reports {
    fn default() -> Self {
        Self { queue: Mutex::default(), changed: Notify::new(), confirmed: Notify::new() }
    }
}

impl Reports {
    /// Puts a report into its trustpoint's line, once. `span`: of its way to the broker; it ends when the broker has the report, or
    /// with the agent. What comes from a record has none any more.
    pub fn add(&self, trustpoint: TrustpointId, job: JobId, report: Outgoing, span: Span) {
        {
            let mut queue = self.queue();
            let in_line = queue.trustpoints.entry(trustpoint).or_default();
            if in_line.iter().any(|sending| sending.report.report_id == report.report_id) {
                return;
            }
            in_line.push(Sending {
                job,
                report,
                span,
                attempts: 0,
                in_flight: false,
                confirmed: false,
                first_sent: None,
                due: Instant::now(),
            });
        }
        self.changed.notify_one();
    }

    /// A receipt came: the report is done. Says which job it was of.
    pub fn receipt(&self, report: MessageId) -> Option<JobId> {
        let mut queue = self.queue();
        let found = queue.trustpoints.values_mut().find_map(|sendings| {
            let position = sendings.iter().position(|sending| sending.report.report_id == report)?;
            Some(sendings.remove(position).job)
        });
        queue.trustpoints.retain(|_, sendings| !sendings.is_empty());
        drop(queue);
        self.confirmed.notify_waiters();
        self.changed.notify_one();
        found
    }

    /// The link is up or down; when it comes up everything is sent at once.
    pub fn set_linked(&self, linked: bool) {
        {
            let mut queue = self.queue();
            queue.linked = linked;
            for sending in queue.trustpoints.values_mut().flatten() {
                sending.in_flight = false;
                sending.due = Instant::now();
            }
        }
        self.changed.notify_one();
    }

    /// Waits until the broker has a report for sure, at most for `longest`. Says whether it has.
    pub async fn reached_broker(&self, trustpoint: TrustpointId, report: MessageId, longest: Duration) -> bool {
        let wait = async {
            loop {
                let notified = self.confirmed.notified();
                tokio::pin!(notified);
                notified.as_mut().enable();
                if self.is_confirmed(trustpoint, report) {
                    return;
                }
                notified.await;
            }
        };
        timeout(longest, wait).await.is_ok()
    }

    /// How many reports wait for a receipt.
    pub fn len(&self) -> usize {
        self.queue().trustpoints.values().map(Vec::len).sum()
    }

    /// Whether no report waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sends what is due, for ever.
    pub async fn run(self: Arc<Self>, identity: Arc<Identity>, link: mpsc::Sender<Publication>) {
        loop {
            let (due, next) = self.queue().take_due(Instant::now());
            for (trustpoint, id, routing_key, envelope) in due {
                let Ok(bytes) = envelope.to_bytes() else { continue };
                let (confirmed, told) = oneshot::channel();
                if link.send(Publication { routing_key, bytes, confirmed }).await.is_err() {
                    return;
                }
                let (reports, random) = (Arc::clone(&self), identity.random_u64());
                tokio::spawn(async move {
                    let confirmed = timeout(CONFIRM_MAX, told).await.is_ok_and(|told| told.unwrap_or(false));
                    reports.sent(trustpoint, id, confirmed, random);
                });
            }
            let idle = Instant::now() + Duration::from_secs(3600);
            tokio::select! {
                () = self.changed.notified() => {}
                () = sleep_until(next.unwrap_or(idle)) => {}
            }
        }
    }

    fn sent(&self, trustpoint: TrustpointId, id: MessageId, confirmed: bool, random: u64) {
        if let Some(sending) = self.queue().find(trustpoint, id) {
            sending.in_flight = false;
            sending.confirmed |= confirmed;
            if confirmed {
                sending.span = Span::none();
            }
            sending.due = Instant::now() + REPORT_BACKOFF.wait(sending.attempts, random);
        }
        self.confirmed.notify_waiters();
        self.changed.notify_one();
    }

    /// A report that is gone from the queue has its receipt.
    fn is_confirmed(&self, trustpoint: TrustpointId, report: MessageId) -> bool {
        self.queue().find(trustpoint, report).is_none_or(|sending| sending.confirmed)
    }

    fn queue(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Due = (TrustpointId, MessageId, String, trustfleet_wire::Envelope);

impl Queue {
    fn find(&mut self, trustpoint: TrustpointId, report: MessageId) -> Option<&mut Sending> {
        self.trustpoints.get_mut(&trustpoint)?.iter_mut().find(|sending| sending.report.report_id == report)
    }

    /// Marks what is due as sent; also says when to look again.
    fn take_due(&mut self, now: Instant) -> (Vec<Due>, Option<Instant>) {
        let (mut due, mut next) = (Vec::new(), None::<Instant>);
        if !self.linked {
            return (due, next);
        }
        let mut look_again = |at: Instant| next = Some(next.map_or(at, |next| next.min(at)));
        for (trustpoint, sendings) in &mut self.trustpoints {
            let mut free_at = Some(now);
            for sending in sendings {
                match free_at {
                    Some(at) if at <= now => {}
                    Some(at) => {
                        look_again(at);
                        break;
                    }
                    None => break,
                }
                if !sending.in_flight && sending.due <= now {
                    sending.in_flight = true;
                    sending.attempts = sending.attempts.saturating_add(1);
                    sending.first_sent.get_or_insert(now);
                    let report = &sending.report;
                    due.push((*trustpoint, report.report_id, report.routing_key.clone(), report.envelope.clone()));
                } else if !sending.in_flight {
                    look_again(sending.due);
                }
                free_at = sending.first_sent.map(|sent| sent + ORDER_PATIENCE);
            }
        }
        (due, next)
    }
}

#[cfg(test)]
mod tests {
    use trustfleet_wire::Envelope;
    use trustfleet_wire::sign::{Purpose, SigningKey};

    use super::*;

    fn report(n: u128) -> Outgoing {
        let key = SigningKey::generate().unwrap();
        Outgoing {
            report_id: uuid::Uuid::from_u128(n).into(),
            routing_key: "agent.x.r1".to_owned(),
            kind: "started".to_owned(),
            envelope: Envelope::seal(&n.to_string(), Purpose::FromAgent, &key).unwrap(),
        }
    }

    fn trustpoint() -> TrustpointId {
        uuid::Uuid::from_u128(9).into()
    }

    fn job(n: u128) -> JobId {
        uuid::Uuid::from_u128(n).into()
    }

    fn add(reports: &Reports, of_job: u128, n: u128) {
        reports.add(trustpoint(), job(of_job), report(n), Span::none());
    }

    fn due(reports: &Reports, at: Instant) -> Vec<u128> {
        let (due, _) = reports.queue().take_due(at);
        due.iter().map(|(_, id, _, _)| id.as_uuid().as_u128()).collect()
    }

    #[test]
    fn reports_of_one_job_go_one_after_the_other_and_none_waits_for_ever() {
        let reports = Reports::default();
        add(&reports, 1, 1);
        add(&reports, 1, 2);
        let now = Instant::now();
        assert_eq!(due(&reports, now), Vec::<u128>::new(), "nothing goes without a link");
        reports.set_linked(true);
        let now = now + Duration::from_secs(1);
        assert_eq!(due(&reports, now), [1]);
        assert_eq!(due(&reports, now), Vec::<u128>::new());
        assert_eq!(due(&reports, now + ORDER_PATIENCE), [2]);
    }

    #[test]
    fn reports_of_a_later_job_wait_for_those_of_the_former_and_other_trustpoints_for_nobody() {
        let reports = Reports::default();
        add(&reports, 2, 1); // its clock went back before the next job
        add(&reports, 1, 2);
        reports.add(uuid::Uuid::from_u128(8).into(), job(3), report(3), Span::none());
        reports.set_linked(true);
        let now = Instant::now() + Duration::from_secs(1);
        assert_eq!(due(&reports, now), [3, 1]);
        assert_eq!(reports.receipt(report(1).report_id), Some(job(2)));
        assert_eq!(due(&reports, now), [2]);
    }

    #[test]
    fn a_receipt_lets_the_next_report_go_at_once() {
        let reports = Reports::default();
        add(&reports, 1, 1);
        add(&reports, 1, 2);
        reports.set_linked(true);
        let now = Instant::now() + Duration::from_secs(1);
        assert_eq!(due(&reports, now), [1]);
        assert_eq!(reports.receipt(report(1).report_id), Some(job(1)));
        assert_eq!(reports.receipt(report(1).report_id), None, "a second receipt changes nothing");
        assert_eq!(due(&reports, now), [2]);
        reports.receipt(report(2).report_id);
        assert!(reports.is_empty());
    }

    #[test]
    fn a_report_is_repeated_until_its_receipt_comes_also_when_the_broker_has_it() {
        let reports = Reports::default();
        add(&reports, 1, 1);
        reports.set_linked(true);
        let mut now = Instant::now() + Duration::from_secs(1);
        for _ in 0..10 {
            assert_eq!(due(&reports, now), [1]);
            reports.sent(trustpoint(), report(1).report_id, true, 0);
            assert_eq!(due(&reports, Instant::now()), Vec::<u128>::new());
            now += REPORT_BACKOFF.most;
        }
    }

    #[test]
    fn a_new_link_sends_everything_again_at_once() {
        let reports = Reports::default();
        add(&reports, 1, 1);
        reports.set_linked(true);
        assert_eq!(due(&reports, Instant::now() + Duration::from_secs(1)), [1]);
        reports.set_linked(false);
        reports.set_linked(true);
        assert_eq!(due(&reports, Instant::now() + Duration::from_secs(1)), [1]);
    }

    #[tokio::test]
    async fn one_can_wait_until_the_broker_has_a_report_but_not_for_ever() {
        let reports = Reports::default();
        add(&reports, 1, 1);
        let id = report(1).report_id;
        assert!(!reports.reached_broker(trustpoint(), id, Duration::from_millis(10)).await);
        reports.sent(trustpoint(), id, true, 0);
        assert!(reports.reached_broker(trustpoint(), id, Duration::from_millis(10)).await);
    }
}
