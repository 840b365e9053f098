//! Watches a job until it ends, with one line of progress, and explains a failure.

use std::{
    io::{self, IsTerminal as _, Write as _},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{
    error::CliError,
    output::{plain, text},
    session::Session,
};

const FIRST_PAUSE: Duration = Duration::from_millis(150);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Asks for the job until it has ended; a controller that is away for a moment is waited for.
///
/// # Errors
/// [`CliError::JobFailed`], [`CliError::StillRunning`] after `limit`, or that the controller refused.
pub(super) fn until_end(session: &Session, id: &str, limit: Duration) -> Result<Value, CliError> {
    let begin = Instant::now();
    let mut progress = Progress::new(!session.is_json());
    let mut pause = FIRST_PAUSE;
    let mut state = "unknown".to_owned();
    let mut agent = String::new();
    loop {
        match session.read(&["jobs", id]) {
            Ok(job) => {
                state = text(&job, "/state");
                agent = plain(&text(&job, "/agent"));
                match state.as_str() {
                    "succeeded" => {
                        progress.end(begin.elapsed(), "done");
                        return Ok(job);
                    }
                    "failed" => {
                        progress.end(begin.elapsed(), "failed");
                        return Err(failed(&job));
                    }
                    other => progress.show(begin.elapsed(), in_words(other)),
                }
            }
            Err(error) if error.exit_code() == 3 => progress.show(begin.elapsed(), "the controller does not answer"),
            Err(error) => return Err(error),
        }
        if begin.elapsed() + pause > limit {
            progress.end(begin.elapsed(), "not watched any longer");
            return Err(CliError::StillRunning { job: id.to_owned(), state, agent, seconds: limit.as_secs() });
        }
        thread::sleep(pause);
        pause = (pause * 5 / 4).min(LONGEST_PAUSE);
    }
}

/// What to do after having looked at a job.
pub(super) fn next_after(job: &Value) -> String {
    let device = plain(&text(job, "/device"));
    match text(job, "/state").as_str() {
        "succeeded" => format!("trustfleet certificate list --device {device}"),
        "failed" => advice(job),
        _ => format!("trustfleet job wait {}", plain(&text(job, "/id"))),
    }
}

fn in_words(state: &str) -> &str {
    match state {
        "awaiting_publish" => "accepted; waits to be sent to the agent",
        "awaiting_agent" => "sent; waits for the agent to start",
        "awaiting_ca" => "the agent asked the CA; waits for its answer",
        "awaiting_poll" => "the CA said waiting; the agent polls",
        other => other,
    }
}

/// A failed job, explained.
fn failed(job: &Value) -> CliError {
    let line = |label: &str, pointer: &str| match job.pointer(pointer) {
        None | Some(Value::Null) => String::new(),
        Some(_) => format!("\n  {label}: {}", plain(&text(job, pointer))),
    };
    let mut explained = format!(
        "job {} ({}) failed: {}",
        plain(&text(job, "/id")),
        plain(&text(job, "/kind")),
        plain(&text(job, "/failure/message"))
    );
    explained += &line("code", "/failure/code");
    explained += &line("culprit", "/failure/culprit");
    explained += &line("PKIStatus", "/failure/pki_status");
    explained += &line("PKIFailureInfo", "/failure/fail_info");
    explained += &line("the CA's own words", "/failure/status_string");
    if job.pointer("/failure/maybe_issued") == Some(&Value::Bool(true)) {
        explained += "\n  the CA may have issued a certificate that nobody received: look there, and revoke it";
    }
    CliError::JobFailed { text: explained, next: advice(job) }
}

/// What to look at after a failure, by culprit.
fn advice(job: &Value) -> String {
    let device = plain(&text(job, "/device"));
    let trustpoint = plain(&text(job, "/trustpoint"));
    let look = match text(job, "/failure/culprit").as_str() {
        "configuration" => "correct the entity, CA server or policy",
        "peer_message" | "peer_refusal" => {
            "check reference, secret and CA name with the CA's administrator (the CA's log names the transactionID)"
        }
        "transport" => "check the CA's URL from the device's network",
        _ => "look at the agent: `trustfleet-agent status` on its machine, and its log",
    };
    format!("{look}, then: trustfleet trustpoint enroll {device} {trustpoint} --wait")
}

/// One line on stderr: rewritten on a terminal, one for each change elsewhere, none for programs.
struct Progress {
    wanted: bool,
    terminal: bool,
    last: String,
}

impl Progress {
    fn new(wanted: bool) -> Self {
        Self { wanted, terminal: io::stderr().is_terminal(), last: String::new() }
    }

    fn show(&mut self, elapsed: Duration, what: &str) {
        let line = format!("{:6.1} s  {}", elapsed.as_secs_f32(), plain(what));
        if self.wanted && self.terminal {
            eprint!("\r\x1b[K{line}");
            let _ = io::stderr().flush();
        } else if self.wanted && self.last != what {
            eprintln!("{line}");
        }
        what.clone_into(&mut self.last);
    }

    fn end(&mut self, elapsed: Duration, what: &str) {
        self.show(elapsed, what);
        if self.wanted && self.terminal {
            eprintln!();
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_failure_is_explained_with_the_cas_words_and_what_to_do() {
        let job = json!({"id": "j1", "kind": "ir", "device": "ap-1", "trustpoint": "radius", "state": "failed",
            "failure": {"culprit": "peer_refusal", "code": "rejected", "message": "the CA refused the request",
                "pki_status": "rejection", "fail_info": ["badMessageCheck"], "status_string": "wrong MAC\u{7}",
                "maybe_issued": false}});
        let screen = failed(&job).screen();
        for part in [
            "the CA refused the request",
            "PKIFailureInfo: badMessageCheck",
            "wrong MAC\u{fffd}",
            "next: check reference, secret and CA name",
            "trustfleet trustpoint enroll ap-1 radius --wait",
        ] {
            assert!(screen.contains(part), "{part:?} is missing in {screen}");
        }
        assert!(!screen.contains("may have issued"));
        assert_eq!(failed(&job).exit_code(), 1);
    }
}
