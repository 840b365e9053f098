//! `trustfleet-agent status`: what is on this device, read from the disk, whether the agent runs or not.
//!
//! Shows no secret and changes nothing.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use jiff::Timestamp;
use serde::Serialize;
use trustfleet_model::field::{ObjectName, TrustpointName};
use trustfleet_model::ids::JobId;
use trustfleet_wire::v1::ToAgent;

use crate::config::Config;
use crate::order::Place;
use crate::record::{JobRecord, Outcome, State};
use crate::session::{Membership, load_membership};
use crate::slots::{Slot, Slots};
use crate::store::{self, Store, StoreError};

/// What is on the device.
#[derive(Debug, Serialize)]
pub struct Status {
    /// The agent's name as configured.
    pub name: String,
    /// Its id, once it has joined.
    pub agent_id: Option<String>,
    /// Its tenant's id, once it has joined.
    pub tenant_id: Option<String>,
    /// The controller's URL.
    pub controller_url: String,
    /// Whether an agent runs with this state folder.
    pub running: bool,
    /// Reports without a receipt.
    pub reports_waiting: usize,
    /// Its trustpoints, by device and name.
    pub trustpoints: Vec<TrustpointStatus>,
    /// What to do next, where there is something to do.
    pub next: Vec<String>,
}

/// One trustpoint.
#[derive(Debug, Serialize)]
pub struct TrustpointStatus {
    /// Device.
    pub device: String,
    /// Trustpoint.
    pub trustpoint: String,
    /// In one word or phrase.
    pub state: String,
    /// Certificate in use.
    pub current: Option<SlotStatus>,
    /// Certificate that waits for its activation.
    pub staged: Option<SlotStatus>,
    /// Certificate that was in use before.
    pub previous: Option<SlotStatus>,
    /// The newest job.
    pub job: Option<JobStatus>,
    /// What cannot be read, if anything.
    pub problem: Option<String>,
}

/// One certificate.
#[derive(Debug, Serialize)]
pub struct SlotStatus {
    /// Subject, RFC 4514.
    pub subject: String,
    /// Serial number, upper-case hex.
    pub serial: String,
    /// Last moment of validity.
    pub not_after: Timestamp,
    /// Its file.
    pub file: String,
}

/// One job.
#[derive(Clone, Debug, Serialize)]
pub struct JobStatus {
    /// Its id.
    pub id: JobId,
    /// What it waits for, or how it ended.
    pub state: String,
    /// transactionID of the exchange under way.
    pub transaction_id: Option<String>,
    /// When the CA is asked again.
    pub poll_at: Option<Timestamp>,
    /// Why it failed.
    pub failure: Option<String>,
    /// Reports without a receipt.
    pub reports_waiting: usize,
}

impl Status {
    /// Reads everything.
    ///
    /// # Errors
    /// The state folder cannot be read.
    pub fn read(config: &Config) -> Result<Self, StoreError> {
        let store = Store::read_only(&config.state_dir);
        let membership = load_membership(&store)?;
        let jobs = jobs(&store);
        let reports_waiting = jobs.values().map(|job| job.reports_waiting).sum();
        let mut places: Vec<Place> = places(&store.devices());
        places.extend(jobs.keys().cloned());
        places.sort();
        places.dedup();
        let trustpoints = places.iter().map(|place| trustpoint(&store, place, jobs.get(place))).collect();
        let mut status = Self {
            name: config.name.as_ref().map(ToString::to_string).unwrap_or_default(),
            agent_id: membership.as_ref().map(|membership| membership.agent_id.to_string()),
            tenant_id: membership.as_ref().map(|membership| membership.tenant_id.to_string()),
            controller_url: config.controller_url.to_string(),
            running: store.is_locked(),
            reports_waiting,
            trustpoints,
            next: Vec::new(),
        };
        status.next = status.advice(membership.as_ref());
        Ok(status)
    }

    fn advice(&self, membership: Option<&Membership>) -> Vec<String> {
        let mut next = Vec::new();
        if membership.is_none() {
            next.push(
                "not joined yet: put a join token into the configuration, then: trustfleet-agent run --config FILE"
                    .to_owned(),
            );
        } else if !self.running {
            next.push("no agent is running here: start it with: trustfleet-agent run --config FILE".to_owned());
        } else if self.trustpoints.is_empty() {
            next.push(
                "nothing enrolled yet: on the operator's side: trustfleet trustpoint enroll DEVICE TRUSTPOINT"
                    .to_owned(),
            );
        }
        for trustpoint in &self.trustpoints {
            let name = format!("{} {}", trustpoint.device, trustpoint.trustpoint);
            if trustpoint.staged.is_some() && trustpoint.job.as_ref().is_none_or(|job| job.state == "succeeded") {
                next.push(format!("{name}: a certificate waits: trustfleet trustpoint activate {name}"));
            }
            if let Some(failure) = trustpoint.job.as_ref().and_then(|job| job.failure.as_ref()) {
                next.push(format!("{name}: {failure}"));
            }
            if let Some(problem) = &trustpoint.problem {
                next.push(format!("{name}: {problem}"));
            }
        }
        next
    }

    /// As text for a terminal; `now` for what has run out.
    pub fn table(&self, now: Timestamp) -> String {
        let mut out = String::new();
        let running = if self.running { "running" } else { "not running" };
        let id = self.agent_id.as_deref().unwrap_or("not joined");
        let _ = writeln!(
            out,
            "agent {} ({id}) of {}: {running}, {} reports waiting",
            self.name, self.controller_url, self.reports_waiting
        );
        if !self.trustpoints.is_empty() {
            let mut rows =
                vec![["DEVICE", "TRUSTPOINT", "STATE", "SUBJECT", "SERIAL", "NOT AFTER", "FILE"].map(str::to_owned)];
            rows.extend(self.trustpoints.iter().map(|trustpoint| {
                let shown = trustpoint.current.as_ref().or(trustpoint.staged.as_ref());
                let field = |read: fn(&SlotStatus) -> String| shown.map_or_else(|| "-".to_owned(), read);
                let not_after = shown.map_or_else(
                    || "-".to_owned(),
                    |slot| format!("{:.0}{}", slot.not_after, if slot.not_after < now { " (EXPIRED)" } else { "" }),
                );
                [
                    trustpoint.device.clone(),
                    trustpoint.trustpoint.clone(),
                    trustpoint.state.clone(),
                    field(|slot| slot.subject.clone()),
                    field(|slot| slot.serial.clone()),
                    not_after,
                    field(|slot| slot.file.clone()),
                ]
            }));
            out.push('\n');
            out.push_str(&columns(&rows));
        }
        for line in &self.next {
            let _ = write!(out, "\nnext: {line}");
        }
        if !self.next.is_empty() {
            out.push('\n');
        }
        out
    }
}

fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = String::new();
    for row in rows {
        let line: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        let _ = writeln!(out, "{}", line.join("  ").trim_end());
    }
    out
}

fn trustpoint(store: &Store, place: &Place, job: Option<&JobStatus>) -> TrustpointStatus {
    let slots = Slots::new(store.trustpoint(&place.device, &place.trustpoint));
    let mut problem = None;
    let mut slot = |slot| match slots.certificate(slot) {
        Ok(found) => found.map(|(certificate, file)| SlotStatus {
            subject: certificate.subject().to_string(),
            serial: certificate.serial_hex(),
            not_after: certificate.not_after(),
            file: file.display().to_string(),
        }),
        Err(error) => {
            problem = Some(error.to_string());
            None
        }
    };
    let (current, staged, previous) = (slot(Slot::Current), slot(Slot::Staged), slot(Slot::Previous));
    let state = match job {
        Some(job) if job.failure.is_none() && job.state != "succeeded" => job.state.clone(),
        _ if staged.is_some() => "staged".to_owned(),
        _ if current.is_some() => "active".to_owned(),
        Some(_) => "failed".to_owned(),
        None => "not enrolled".to_owned(),
    };
    TrustpointStatus {
        device: place.device.to_string(),
        trustpoint: place.trustpoint.to_string(),
        state,
        current,
        staged,
        previous,
        job: job.cloned(),
        problem,
    }
}

/// The newest job of each trustpoint. Only for display: signatures are not verified here.
fn jobs(store: &Store) -> BTreeMap<Place, JobStatus> {
    let mut newest: BTreeMap<Place, (u64, JobStatus)> = BTreeMap::new();
    for id in store.job_ids().unwrap_or_default() {
        let Ok(Some(record)) = store::load_json::<JobRecord>(&store.job_file(id)) else { continue };
        let job = match record.envelope.peek() {
            Ok(ToAgent::Job(job)) => *job,
            Ok(ToAgent::Lease(lease)) => lease.job(id),
            _ => continue,
        };
        let Ok(place) = Place::of(&job) else { continue };
        let entry = (record.sequence, job_status(&record));
        if newest.get(&place).is_none_or(|(sequence, _)| *sequence <= record.sequence) {
            newest.insert(place, entry);
        }
    }
    newest.into_iter().map(|(place, (_, status))| (place, status)).collect()
}

fn job_status(record: &JobRecord) -> JobStatus {
    let (transaction_id, poll_at) = match &record.state {
        State::Ca { exchange } => (Some(exchange.transaction.transaction_id()), exchange.poll_at),
        _ => (None, None),
    };
    let failure = match &record.state {
        State::Nothing { outcome: Outcome::Failed { code, message } } => Some(format!("{message} ({code})")),
        _ => None,
    };
    JobStatus {
        id: record.job_id,
        state: record.state.as_str().to_owned(),
        transaction_id,
        poll_at,
        failure,
        reports_waiting: record.reports.len(),
    }
}

fn places(devices: &Path) -> Vec<Place> {
    let mut found = Vec::new();
    for device in names(devices) {
        for trustpoint in names(&devices.join(&device)) {
            if let (Ok(device), Ok(trustpoint)) = (device.parse::<ObjectName>(), trustpoint.parse::<TrustpointName>()) {
                found.push(Place { device, trustpoint });
            }
        }
    }
    found
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_without_anything_says_what_to_do_next() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.toml");
        let state = dir.path().join("state");
        let text = format!(
            "controller_url = \"http://127.0.0.1:1\"\nstate_dir = {:?}\nname = \"ap-1\"\n",
            state.display().to_string()
        );
        fs::write(&path, text).unwrap();
        Store::open(&state).unwrap();
        let status = Status::read(&Config::load(&path).unwrap()).unwrap();
        let table = status.table(Timestamp::UNIX_EPOCH);
        assert!(table.contains("not joined") && table.contains("next: "), "{table}");
    }

    #[test]
    fn columns_line_up() {
        let rows = [["a", "bb"].map(str::to_owned), ["ccc", "d"].map(str::to_owned)];
        assert_eq!(columns(&rows), "a    bb\nccc  d\n");
    }
}
