//! Where it was measured: figures without their machine say little.

use std::{fmt, fs, process::Command};

use serde::Serialize;

/// The machine, and under which circumstances it was used.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    /// The processor's name.
    cpu: String,
    /// Processors that this process may use.
    cores: usize,
    /// Memory, GiB.
    memory_gib: u64,
    /// Distribution.
    system: String,
    /// Kernel release.
    kernel: String,
    /// What `openssl version` says; empty without it.
    openssl: String,
    /// `release`, or `debug`, whose figures mean nothing.
    build: &'static str,
    /// Smaller sizes and fewer runs.
    quick: bool,
    /// Load average of the last minute at the start: above 0.5 per core somebody else used the machine as well.
    load: f64,
}

impl Machine {
    /// This one. What cannot be found out stays empty.
    pub(crate) fn here(quick: bool) -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let openssl = Command::new("openssl").arg("version").output().map(|output| output.stdout).unwrap_or_default();
        Self {
            cpu: value(&read("/proc/cpuinfo"), "model name", ':').to_owned(),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_gib: kib(&read("/proc/meminfo"), "MemTotal").unwrap_or(0) / (1024 * 1024),
            system: value(&read("/etc/os-release"), "PRETTY_NAME", '=').trim_matches('"').to_owned(),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            openssl: String::from_utf8_lossy(&openssl).trim().to_owned(),
            build: if cfg!(debug_assertions) { "debug" } else { "release" },
            quick,
            load: read("/proc/loadavg").split(' ').next().and_then(|text| text.parse().ok()).unwrap_or(0.0),
        }
    }

    #[cfg(test)]
    pub(crate) fn sample() -> Self {
        Self { cpu: "Sample CPU".to_owned(), cores: 2, ..Self::here(true) }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cpu, cores, memory_gib, system, kernel, openssl, build, quick, load } = self;
        let quick = if *quick { ", quick" } else { "" };
        write!(
            f,
            "{cpu}, {cores} cores, {memory_gib} GiB; {system}, Linux {kernel}, {openssl}; {build} build{quick}; "
        )?;
        write!(f, "load {load:.2} at the start")
    }
}

/// The text behind `key` and `separator`, of the first line that begins with it.
pub(crate) fn value<'a>(text: &'a str, key: &str, separator: char) -> &'a str {
    let line = text.lines().find_map(|line| {
        let rest = line.strip_prefix(key)?.trim_start();
        rest.strip_prefix(separator)
    });
    line.unwrap_or_default().trim()
}

/// A number of KiB in a file of /proc, such as `VmRSS:  123 kB`.
pub(crate) fn kib(text: &str, key: &str) -> Option<u64> {
    value(text, key, ':').strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_proc_are_read() {
        let text = "processor\t: 0\nmodel name\t: Example CPU\nVmRSS:\t    123 kB\nPRETTY_NAME=\"A\"\n";
        assert_eq!(value(text, "model name", ':'), "Example CPU");
        assert_eq!(value(text, "PRETTY_NAME", '='), "\"A\"");
        assert_eq!(value(text, "nothing", ':'), "");
        assert_eq!((kib(text, "VmRSS"), kib(text, "processor"), kib(text, "nothing")), (Some(123), None, None));
    }

    #[test]
    fn this_machine_has_a_name_cores_and_memory() {
        let here = Machine::here(false);
        assert!(here.cores > 0 && here.memory_gib > 0 && !here.kernel.is_empty(), "{here}");
    }
}
