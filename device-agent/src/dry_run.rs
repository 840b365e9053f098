//! A dry run: everything that an enrolment needs is tried on the device, and nothing is said to the CA.
//!
//! Each server is connected to and left at once. The request is made with the real credentials and with a key that is kept
//! nowhere, held against RFC 9483, and thrown away.

use std::sync::Arc;

use jiff::Timestamp;
use trustfleet_cmp::lint::{Severity, lint};
use trustfleet_model::clock::Clock as _;
use trustfleet_model::dry_run::CheckResult;
use trustfleet_model::field::Violations;
use trustfleet_wire::v1::{Check, DryRun, Enroll, Event, Job, Task};

use crate::core::Core;
use crate::exchange::{Halt, blocking};
use crate::jobs::Entry;
use crate::order::{Errand, Order, Place};
use crate::outcome;
use crate::prepare::Prepare;
use crate::record::{Outcome, State};
use crate::store;

/// Tries, and tells what was found.
///
/// # Errors
/// The agent stops.
pub async fn run(core: &Arc<Core>, entry: &Entry, job: &Job, place: &Place) -> Result<(), Halt> {
    let Task::DryRun(enroll) = &job.task else { return Ok(()) };
    let begun = core.identity.clock.now();
    let (trial, enroll) = (Trial { core: Arc::clone(core), job: job.clone(), place: place.clone() }, enroll.clone());
    let checks = blocking(move || trial.checks(&enroll, begun)).await?;
    let duration_ms = outcome::millis_between(begun, core.identity.clock.now());
    tracing::info!(job.id = %job.job_id, checks = checks.len(), "dry run done");
    let event = Event::DryRun(Box::new(DryRun { duration_ms, checks }));
    core.settle(entry, State::Nothing { outcome: Outcome::Succeeded }, vec![event]).await;
    Ok(())
}

struct Trial {
    core: Arc<Core>,
    job: Job,
    place: Place,
}

impl Trial {
    /// Blocks: disk, network, signing.
    fn checks(&self, enroll: &Enroll, now: Timestamp) -> Vec<Check> {
        let mut checks = vec![self.storage(), self.services()];
        let order = match Order::of(enroll) {
            Ok(order) => Arc::new(order),
            Err(wrong) => {
                checks.extend(broken("order", &wrong));
                return checks;
            }
        };
        checks.push(ok("order", "the order can be carried out"));
        match self.core.accept.check(&order.talk) {
            Ok(()) => checks.push(ok("accept", "the agent's own configuration allows this CA")),
            Err(beyond) => {
                // It would not be called, so it is not now.
                checks.extend(broken("accept", &beyond));
                return checks;
            }
        }
        match self.core.http.check_source(&order.talk.source) {
            Ok(()) => {
                checks
                    .push(ok("source", "connections can come from where the policy or the agent's configuration says"));
                checks.extend(self.servers(&order));
            }
            Err(error) => checks.push(failed("source", Some("S7"), &error.to_string())),
        }
        checks.extend(self.request(&order, now));
        checks
    }

    /// Whether a file can be written and taken away again.
    fn storage(&self) -> Check {
        let path = self.core.store.agent_file().with_file_name("dry-run");
        match store::save(&path, b"dry run", 0o600).and_then(|()| store::remove(&path)) {
            Ok(()) => ok("storage", "the state folder can be written"),
            Err(error) => failed("storage", None, &error.to_string()),
        }
    }

    fn services(&self) -> Check {
        let unknown = self.core.services.unknown(&self.job.services);
        if unknown.is_empty() {
            let named = self.job.services.join(", ");
            let message = if named.is_empty() { "there are none to take the certificate".to_owned() } else { named };
            return ok("services", &message);
        }
        let message =
            format!("not in the agent's configuration: {}; it has: {}", unknown.join(", "), self.core.services.names());
        failed("services", Some("S40"), &message)
    }

    /// One server that can be reached is enough (S16).
    fn servers(&self, order: &Order) -> Vec<Check> {
        let http = self.core.http.coming_from(&order.talk.source);
        let tried: Vec<_> = order.talk.urls.iter().map(|url| (url, http.reach(url))).collect();
        let is_one_there = tried.iter().any(|(_, reached)| reached.is_ok());
        let check = |(url, reached): (&String, Result<(), _>)| match reached {
            Ok(()) => ok("server", &format!("{url} can be connected to")),
            Err(error) => {
                let error: crate::cmp_http::HttpError = error;
                let result = if is_one_there { CheckResult::Warning } else { CheckResult::Failed };
                found("server", result, Some("S6"), &error.to_string())
            }
        };
        tried.into_iter().map(check).collect()
    }

    /// The request as it would be sent, held against RFC 9483.
    fn request(&self, order: &Arc<Order>, now: Timestamp) -> Vec<Check> {
        let prepare = Prepare::of(&self.core, &self.job, &self.place, &Errand::Enroll(Arc::clone(order)));
        let message = match prepare.sample(order, now) {
            Ok(message) => message,
            Err(missing) => return vec![failed("credentials", Some(&missing.code), &missing.message)],
        };
        let mut checks = vec![ok("credentials", "what proves where the request comes from is there")];
        let findings = lint(&message);
        if findings.is_empty() {
            let size = message.len();
            checks.push(ok("request", &format!("the request of {size} bytes is as RFC 9483 wants it")));
        }
        checks.extend(findings.iter().map(|finding| {
            let result = match finding.severity {
                Severity::Error => CheckResult::Failed,
                Severity::Warning => CheckResult::Warning,
            };
            found("request", result, Some(finding.rule), &finding.message)
        }));
        checks
    }
}

fn broken(name: &str, violations: &Violations) -> Vec<Check> {
    let message = |field: &str, message: &str| format!("{field}: {message}");
    let all = violations.as_slice().iter();
    all.map(|it| failed(name, Some(&it.rule), &message(&it.field, &it.message))).collect()
}

fn ok(name: &str, message: &str) -> Check {
    found(name, CheckResult::Ok, None, message)
}

fn failed(name: &str, rule: Option<&str>, message: &str) -> Check {
    found(name, CheckResult::Failed, rule, message)
}

fn found(name: &str, result: CheckResult, rule: Option<&str>, message: &str) -> Check {
    Check {
        name: name.to_owned(),
        result: result.as_str().to_owned(),
        rule: rule.map(str::to_owned),
        message: message.to_owned(),
    }
}
