//! One tenant of a running controller: its agents, devices and jobs, many at a time over the public REST API.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use indicatif::ProgressBar;
use serde_json::{Value, json};

use crate::house::{Rest, RestError};

/// Requests at a time.
const AT_ONCE: usize = 8;
const PAUSE: Duration = Duration::from_millis(100);

/// A tenant as its administrator sees it. Blocks: to be called where that is allowed.
#[derive(Clone, Debug)]
pub struct Tenant {
    /// The controller, with an administrator's token of the tenant.
    pub rest: Rest,
    /// Its name.
    pub name: String,
}

/// What new trustpoints refer to, and the MAC credentials that all of them share.
#[derive(Clone)]
pub struct Settings {
    /// Name of the entity.
    pub entity: String,
    /// Name of the CA server.
    pub ca_server: String,
    /// Name of the policy.
    pub policy: String,
    /// MAC reference and secret.
    pub mac: (String, String),
}

/// How jobs ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ends {
    /// Successes.
    pub succeeded: usize,
    /// Failures by their codes.
    pub failed: BTreeMap<String, usize>,
    /// Those that had not ended when nobody waited any longer.
    pub open: usize,
}

impl Tenant {
    fn path(&self, below: &str) -> String {
        format!("/v1/tenants/{}/{below}", self.name)
    }

    /// Tokens with which so many agents can join.
    ///
    /// # Errors
    /// The controller refuses.
    pub fn join_tokens(&self, agents: usize) -> Result<Vec<String>, RestError> {
        const USES_MAX: usize = 1_000;
        (0..agents.div_ceil(USES_MAX))
            .map(|n| {
                let body = json!({ "uses": (agents - n * USES_MAX).min(USES_MAX), "valid_for_s": 86_400 });
                let made = self.rest.post(&self.path("join-tokens"), &body)?;
                Ok(made["token"].as_str().unwrap_or_default().to_owned())
            })
            .collect()
    }

    /// Waits until all these agents have joined; how many have.
    ///
    /// # Errors
    /// The controller does not answer.
    pub fn wait_joined(&self, agents: &[String], at_most: Duration, bar: &ProgressBar) -> Result<usize, RestError> {
        let begin = Instant::now();
        let mut joined = 0;
        for agent in agents {
            loop {
                let answer = self.rest.send("GET", &self.path(&format!("agents/{agent}")), &[], None)?;
                if answer.status == 200 {
                    joined += 1;
                    bar.inc(1);
                    break;
                }
                if begin.elapsed() > at_most {
                    break;
                }
                thread::sleep(PAUSE);
            }
        }
        Ok(joined)
    }

    /// Registers devices behind agents, each with a trustpoint `default`.
    ///
    /// # Errors
    /// The first refusal.
    pub fn add_devices(
        &self,
        devices: &[(String, String)],
        settings: &Settings,
        bar: &ProgressBar,
    ) -> Result<(), RestError> {
        let mac = json!({ "reference": settings.mac.0, "secret": settings.mac.1 });
        let trustpoint = json!({ "name": "default", "entity": settings.entity, "ca_server": settings.ca_server,
            "policy": settings.policy, "mac": mac });
        let add = |(device, agent): &(String, String)| {
            self.rest.post(&self.path("devices"), &json!({ "name": device, "agent": agent }))?;
            self.rest.post(&self.path(&format!("devices/{device}/trustpoints")), &trustpoint)?;
            bar.inc(1);
            Ok(())
        };
        each(devices, add).map(drop)
    }

    /// Asks for a certificate on each device's trustpoint `default`; the jobs.
    ///
    /// # Errors
    /// The first refusal.
    pub fn enroll(&self, devices: &[String], request: &str) -> Result<Vec<String>, RestError> {
        let body = json!({ "request": request });
        let ask = |device: &String| {
            let job = self.rest.post(&self.path(&format!("devices/{device}/trustpoints/default/enroll")), &body)?;
            Ok(job["id"].as_str().unwrap_or_default().to_owned())
        };
        each(devices, ask)
    }

    /// Waits until all these jobs have ended, in whatever way.
    ///
    /// # Errors
    /// The controller does not answer.
    pub fn wait_ended(&self, jobs: &[String], at_most: Duration, bar: &ProgressBar) -> Result<Ends, RestError> {
        let begin = Instant::now();
        let wait = |job: &String| loop {
            let told: Value = self.rest.get(&self.path(&format!("jobs/{job}")))?;
            let ended = match told["state"].as_str() {
                Some("succeeded") => Some(Ok(())),
                Some("failed") => Some(Err(told["failure"]["code"].as_str().unwrap_or("unknown").to_owned())),
                _ => None,
            };
            if ended.is_some() {
                bar.inc(1);
            }
            if ended.is_some() || begin.elapsed() > at_most {
                return Ok(ended);
            }
            thread::sleep(PAUSE);
        };
        let mut ends = Ends::default();
        for end in each(jobs, wait)? {
            match end {
                Some(Ok(())) => ends.succeeded += 1,
                Some(Err(code)) => *ends.failed.entry(code).or_default() += 1,
                None => ends.open += 1,
            }
        }
        Ok(ends)
    }

    /// Waits until the certificates of all these devices are in use: a job has succeeded when its certificate is issued, and the
    /// report that it is in use comes after that. How many are.
    ///
    /// # Errors
    /// The controller does not answer.
    pub fn wait_in_use(&self, devices: &[String], at_most: Duration) -> Result<usize, RestError> {
        let begin = Instant::now();
        let wait = |device: &String| loop {
            let told: Value = self.rest.get(&self.path(&format!("devices/{device}/trustpoints/default")))?;
            let in_use = told["status"] == "active";
            if in_use || begin.elapsed() > at_most {
                return Ok(in_use);
            }
            thread::sleep(PAUSE);
        };
        Ok(each(devices, wait)?.into_iter().filter(|in_use| *in_use).count())
    }
}

/// Does the same with all, several at a time; what came of each, in their order.
fn each<T: Sync, R: Send>(all: &[T], work: impl Fn(&T) -> Result<R, RestError> + Sync) -> Result<Vec<R>, RestError> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::with_capacity(all.len())));
    let worker = || -> Result<(), RestError> {
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            let Some(one) = all.get(n) else { return Ok(()) };
            let result = work(one)?;
            done.lock().unwrap_or_else(PoisonError::into_inner).push((n, result));
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().unwrap_or(Ok(())))
    })?;
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(n, _)| *n);
    Ok(done.into_iter().map(|(_, result)| result).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_gets_a_turn_and_the_answers_keep_their_order() {
        let all: Vec<usize> = (0..1_000).collect();
        let squares = each(&all, |n| Ok(n * n)).unwrap();
        assert_eq!(squares, all.iter().map(|n| n * n).collect::<Vec<_>>());
    }
}
