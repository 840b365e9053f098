//! What a fleet has done, for people and for programs.

use std::{fmt::Write as _, fs, time::Duration};

use comfy_table::{Table, presets::NOTHING};
use serde_json::{Map, Value, json};

use super::{rounded, tenant::Ends};

/// One step of a fleet's life.
#[derive(Clone, Debug)]
pub(super) struct Phase {
    name: &'static str,
    ends: Ends,
    took: Duration,
}

impl Phase {
    /// All of them were done.
    pub(super) fn of(name: &'static str, count: u64, took: Duration) -> Self {
        let succeeded = usize::try_from(count).unwrap_or(usize::MAX);
        Self { name, ends: Ends { succeeded, ..Ends::default() }, took }
    }

    /// Jobs.
    pub(super) const fn of_jobs(name: &'static str, ends: Ends, took: Duration) -> Self {
        Self { name, ends, took }
    }

    fn per_s(&self) -> f64 {
        self.ends.succeeded as f64 / self.took.as_secs_f64().max(0.001)
    }

    fn failures(&self) -> usize {
        self.ends.failed.values().sum::<usize>() + self.ends.open
    }

    fn json(&self) -> Value {
        json!({ "phase": self.name, "succeeded": self.ends.succeeded, "failed": self.ends.failed, "open": self.ends.open,
            "seconds": rounded(self.took.as_secs_f64()), "per_second": rounded(self.per_s()) })
    }
}

/// All of it.
#[derive(Clone, Debug)]
pub(super) struct Summary {
    agents: u32,
    devices: u64,
    processes: u32,
    seed: u64,
    /// Its steps, in their order.
    pub(super) phases: Vec<Phase>,
    /// Resident memory of the agents' processes at the end.
    pub(super) memory_bytes: u64,
    /// How often an agent was cut off and came back.
    pub(super) restarts: u64,
}

impl Summary {
    /// Nothing is done yet.
    pub(super) const fn new(agents: u32, devices: u64, processes: u32, seed: u64) -> Self {
        Self { agents, devices, processes, seed, phases: Vec::new(), memory_bytes: 0, restarts: 0 }
    }

    /// Whether everything was done that was asked for.
    pub(super) fn is_good(&self) -> bool {
        self.phases.iter().all(|phase| phase.failures() == 0)
    }

    /// One object.
    pub(super) fn json(&self) -> Value {
        let mut object = Map::new();
        for (name, value) in [
            ("agents", json!(self.agents)),
            ("devices", json!(self.devices)),
            ("processes", json!(self.processes)),
            ("seed", json!(self.seed)),
            ("restarts", json!(self.restarts)),
            ("memory_bytes", json!(self.memory_bytes)),
            ("phases", self.phases.iter().map(Phase::json).collect()),
        ] {
            object.insert(name.to_owned(), value);
        }
        Value::Object(object)
    }

    /// Columns.
    pub(super) fn table(&self) -> String {
        let mut table = Table::new();
        table.load_preset(NOTHING).set_header(["PHASE", "DONE", "FAILED", "SECONDS", "PER SECOND", "WHY"]);
        for phase in &self.phases {
            let why: Vec<String> = phase.ends.failed.iter().map(|(code, count)| format!("{code}: {count}")).collect();
            table.add_row([
                phase.name.to_owned(),
                phase.ends.succeeded.to_string(),
                phase.failures().to_string(),
                format!("{:.1}", phase.took.as_secs_f64()),
                format!("{:.1}", phase.per_s()),
                why.join(", "),
            ]);
        }
        let mut text = format!("{table}\n");
        let _ = writeln!(
            text,
            "{} agents with {} devices in {} processes, {:.1} MB resident, cut off {} times, seed {}",
            self.agents,
            self.devices,
            self.processes,
            self.memory_bytes as f64 / 1e6,
            self.restarts,
            self.seed
        );
        text
    }
}

/// Resident memory of a process; none: it has ended.
pub(super) fn resident_bytes(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fleet_with_a_failure_or_an_open_job_is_not_good_and_says_why() {
        let mut summary = Summary::new(2, 4, 1, 7);
        summary.phases.push(Phase::of("join", 2, Duration::from_secs(1)));
        assert!(summary.is_good());
        let failed = [("ca_unreachable".to_owned(), 1)].into();
        let ends = Ends { succeeded: 2, failed, open: 1 };
        summary.phases.push(Phase::of_jobs("ir", ends, Duration::from_secs(2)));
        assert!(!summary.is_good());
        assert_eq!(summary.json()["phases"][1]["per_second"], json!(1.0));
        assert_eq!(summary.json()["phases"][1]["failed"]["ca_unreachable"], json!(1));
        let text = summary.table();
        assert!(text.contains("ca_unreachable: 1") && text.contains("seed 7"), "{text}");
    }

    #[test]
    fn this_process_has_memory() {
        assert!(resident_bytes(std::process::id()).is_some_and(|bytes| bytes > 100_000));
        assert_eq!(resident_bytes(u32::MAX), None);
    }
}
