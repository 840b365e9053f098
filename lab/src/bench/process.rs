//! Whole processes: how long they take and how much memory they need.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use tokio::time::sleep;

use super::{BenchError, machine::kib};
use crate::{
    stack::process::{find_program, in_words, search_path},
    testkit::binary,
};

/// A program with its arguments, to be run often, each time the same way: in its folder, without input.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    program: PathBuf,
    arguments: Vec<String>,
    folder: PathBuf,
}

impl Line {
    /// A program of the distribution.
    ///
    /// # Errors
    /// [`BenchError::Missing`].
    pub(crate) fn installed(
        program: &'static str,
        package: &'static str,
        arguments: &[&str],
        folder: &Path,
    ) -> Result<Self, BenchError> {
        Ok(Self::new(installed(program, package)?, arguments, folder))
    }

    /// A program by its path.
    pub(crate) fn new(program: PathBuf, arguments: &[&str], folder: &Path) -> Self {
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        Self { program, arguments, folder: folder.to_owned() }
    }

    /// With further arguments.
    #[must_use]
    pub(crate) fn and(mut self, more: &[&str]) -> Self {
        self.arguments.extend(more.iter().map(|argument| (*argument).to_owned()));
        self
    }

    /// Runs it and waits; how long that took, from before its start to after its end.
    ///
    /// # Errors
    /// It does not end with success.
    pub(crate) fn wall(&self) -> Result<Duration, BenchError> {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).current_dir(&self.folder);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let begin = Instant::now();
        let status = command.status().map_err(BenchError::io(format!("starting {}", self.program.display())))?;
        let took = begin.elapsed();
        // Only after a failure is it worth while to know what it says: then it is asked once more.
        if status.success() { Ok(took) } else { self.output().map(|_| took) }
    }

    /// Runs it under GNU time, which is a small process: what the kernel tells of a child's peak memory is never less than
    /// what its parent had when it started it.
    ///
    /// # Errors
    /// It does not end with success, or GNU time is not there.
    pub(crate) fn peak_bytes(&self) -> Result<f64, BenchError> {
        let time = installed("time", "time")?;
        let program = self.program.display().to_string();
        let around = Self { program: time, arguments: Vec::new(), folder: self.folder.clone() };
        let report = self.folder.join("peak");
        let arguments: Vec<_> = self.arguments.iter().map(String::as_str).collect();
        around.and(&["-q", "-f", "%M", "-o", "peak", &program]).and(&arguments).output()?;
        let text = fs::read_to_string(&report).map_err(BenchError::io(format!("reading {}", report.display())))?;
        let kib: f64 = text.trim().parse().map_err(BenchError::odd("what GNU time says of the peak memory"))?;
        Ok(kib * 1024.0)
    }

    /// Runs it; what it says on stdout.
    ///
    /// # Errors
    /// It does not end with success: with what it says.
    pub(crate) fn output(&self) -> Result<String, BenchError> {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).current_dir(&self.folder).stdin(Stdio::null());
        let output = command.output().map_err(BenchError::io(format!("starting {}", self.program.display())))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(BenchError::Process {
            command: format!("{} {}", self.program.display(), self.arguments.join(" ")),
            status: in_words(output.status),
            output: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        })
    }
}

/// Where a program of the distribution is.
///
/// # Errors
/// [`BenchError::Missing`].
pub(crate) fn installed(program: &'static str, package: &'static str) -> Result<PathBuf, BenchError> {
    find_program(program, search_path()).ok_or(BenchError::Missing { program, package })
}

/// The agent as it is shipped: built by a profile of its own, `release-agent`, beside the folder of this program. A debug
/// build of this program takes the agent of its own folder.
///
/// # Errors
/// It is not built.
pub(crate) fn shipped_agent() -> Result<PathBuf, BenchError> {
    let beside = binary("trustfleet-agent")?;
    if cfg!(debug_assertions) {
        return Ok(beside);
    }
    let target = beside.ancestors().nth(2).unwrap_or(&beside);
    let shipped = target.join("release-agent/trustfleet-agent");
    if shipped.is_file() {
        return Ok(shipped);
    }
    let build = "cargo build --profile release-agent --package trustfleet-agent";
    Err(BenchError::Odd(format!("{} is not there: run `make bench`, or `{build}`", shipped.display())))
}

/// Resident memory of a running process, bytes; counted page by page, not from the kernel's rough counters.
///
/// # Errors
/// It has ended.
pub(crate) fn resident_bytes(pid: u32) -> Result<f64, BenchError> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).map_err(BenchError::io(format!("reading {path}")))?;
    let kib = kib(&text, "Rss").ok_or_else(|| BenchError::Odd(format!("{path} names no Rss")))?;
    Ok(kib as f64 * 1024.0)
}

/// Waits until a process has come to rest (its memory has stayed as it is for a while), then gives its resident memory.
///
/// # Errors
/// It has ended, or does not come to rest within two minutes.
pub(crate) async fn settled_bytes(pid: u32) -> Result<f64, BenchError> {
    /// Longer than idle threads of a pool are kept.
    const REST: Duration = Duration::from_secs(12);
    const AT_MOST: Duration = Duration::from_secs(120);
    let begin = Instant::now();
    let (mut last, mut since) = (resident_bytes(pid)?, Instant::now());
    while since.elapsed() < REST {
        if begin.elapsed() > AT_MOST {
            return Err(BenchError::Odd(format!("the memory of process {pid} does not come to rest")));
        }
        sleep(Duration::from_millis(500)).await;
        let now = resident_bytes(pid)?;
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
    Ok(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Line {
        Line::installed("sh", "dash", &["-c", script], &std::env::temp_dir()).unwrap()
    }

    #[test]
    fn a_process_that_fails_is_no_measurement_and_says_why() {
        let error = shell("echo the disk is full >&2; exit 3").wall().unwrap_err().to_string();
        assert!(error.contains("exit code 3") && error.contains("the disk is full"), "{error}");
        assert!(shell("exit 0").wall().is_ok());
    }

    #[test]
    fn a_missing_program_is_named_with_its_package() {
        let error = Line::installed("no-such-program", "a-package", &[], Path::new("/")).unwrap_err().to_string();
        assert!(error.contains("no-such-program is not installed") && error.contains("a-package"), "{error}");
    }

    #[test]
    fn this_process_has_memory_and_one_that_ended_has_none() {
        assert!(resident_bytes(std::process::id()).unwrap() > 100_000.0);
        assert!(resident_bytes(u32::MAX).is_err());
    }
}
