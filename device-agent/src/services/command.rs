//! Programs of the agent's configuration, run without a shell, in bounded time and with bounded output.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;
use tokio::time::{sleep, timeout};
use trustfleet_cmp::text::sanitise;

/// Where programs look for others.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Most bytes of output that are kept: the last ones.
const OUTPUT_MAX: usize = 4 * 1024;
/// How long to read on after the end of a program whose children hold its output.
const READ_ON: Duration = Duration::from_millis(300);

/// A program to run.
#[derive(Debug)]
pub(crate) struct Program {
    /// Whole path, then arguments.
    pub words: Vec<String>,
    /// Its environment besides `PATH` and `LC_ALL`: nothing of the agent's own is passed on.
    pub environment: Vec<(&'static str, String)>,
    /// User and group.
    pub run_as: Option<(u32, u32)>,
    /// Longest time.
    pub limit: Duration,
}

/// How a program ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Exit code 0 in time.
    pub ok: bool,
    /// Its exit code, where it ended by itself in time.
    pub code: Option<i32>,
    /// How, in words, with the end of what it printed; harmless to show.
    pub detail: String,
    /// What it printed to stdout: the last of it, as it came.
    pub stdout: String,
}

impl Program {
    /// Runs it to its end, or ends it with all its children when its time is over. When the caller goes away, the program
    /// is killed.
    pub(crate) async fn run(self) -> Ended {
        let failed = |detail: String| Ended { ok: false, code: None, detail, stdout: String::new() };
        let Some((program, arguments)) = self.words.split_first() else {
            return failed("there is no program".to_owned());
        };
        let mut command = Command::new(program);
        command.args(arguments).env_clear().env("PATH", PATH).env("LC_ALL", "C.UTF-8");
        command.envs(self.environment).current_dir("/").process_group(0).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if let Some((user, group)) = self.run_as {
            command.uid(user).gid(group);
        }
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => return failed(format!("{program} cannot be started: {error}")),
        };
        let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let (mut stdout, mut stderr) = (Tail::default(), Tail::default());
        let pipes = (child.stdout.take(), child.stderr.take());
        let waited = {
            let reading = async { tokio::join!(stdout.read(pipes.0), stderr.read(pipes.1)) };
            tokio::pin!(reading);
            let ended = timeout(self.limit, async {
                tokio::select! {
                    status = child.wait() => (status, false),
                    // Whoever closes its output is waited for as well.
                    _ = &mut reading => (child.wait().await, true),
                }
            });
            let ended = ended.await;
            if !matches!(ended, Ok((_, true))) {
                tokio::select! {
                    _ = &mut reading => {}
                    () = sleep(READ_ON) => {}
                }
            }
            ended
        };
        let (code, how) = match waited {
            Ok((Ok(status), _)) if status.success() => (Some(0), String::new()),
            Ok((Ok(status), _)) => (status.code(), status.to_string()),
            Ok((Err(error), _)) => (None, format!("{program} cannot be waited for: {error}")),
            Err(_) => {
                if let Some(group) = group {
                    let _ = kill_process_group(group, Signal::KILL);
                }
                let _ = child.wait().await;
                (None, format!("not finished after {} s, ended", self.limit.as_secs()))
            }
        };
        let said = if stderr.text().trim().is_empty() { stdout.text() } else { stderr.text() };
        let said = sanitise(last_lines(&said));
        let detail = [how, said].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": ");
        Ended { ok: code == Some(0), code, detail, stdout: stdout.text() }
    }
}

/// The last lines of an output, so that they are what remains where it is cut.
fn last_lines(text: &str) -> &str {
    const KEPT: usize = 380;
    let text = text.trim();
    let from = text.len().saturating_sub(KEPT);
    let from = (from..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    &text[from..]
}

/// The end of an output.
#[derive(Default)]
struct Tail(Vec<u8>);

impl Tail {
    /// Reads to the end; only what comes last is kept, so that nothing waits for us to read.
    async fn read(&mut self, from: Option<impl AsyncRead + Unpin>) {
        let Some(mut from) = from else { return };
        let mut chunk = [0; 1024];
        while let Ok(count @ 1..) = from.read(&mut chunk).await {
            self.0.extend_from_slice(&chunk[..count]);
            let surplus = self.0.len().saturating_sub(OUTPUT_MAX);
            self.0.drain(..surplus);
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn run(script: &str, limit: Duration) -> Ended {
        let words = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        Program { words, environment: vec![("TRUSTFLEET_SERVICE", "x".to_owned())], run_as: None, limit }.run().await
    }

    const LONG: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn what_a_program_says_is_kept_bounded_and_harmless() {
        let ended = run("printf 'a\\033[31mb\\n' >&2; exit 3", LONG).await;
        assert!(!ended.ok && ended.detail.contains("exit status: 3") && !ended.detail.contains('\u{1b}'), "{ended:?}");
        let much = run("i=0; while [ $i -lt 20000 ]; do echo 0123456789; i=$((i+1)); done; echo the end", LONG).await;
        assert!(much.ok && much.detail.ends_with("the end") && much.detail.len() < 500, "{much:?}");
        assert!(much.stdout.len() <= OUTPUT_MAX);
    }

    #[tokio::test]
    async fn a_program_that_does_not_end_is_ended_with_its_children() {
        let dir = tempfile::tempdir().unwrap();
        let pid = dir.path().join("pid");
        let script = format!("sleep 600 & echo $! > {}; wait", pid.display());
        let ended = run(&script, Duration::from_secs(1)).await;
        assert!(!ended.ok && ended.detail.contains("not finished after 1 s"), "{ended:?}");
        let child = std::fs::read_to_string(&pid).unwrap();
        let stat = || std::fs::read_to_string(format!("/proc/{}/stat", child.trim())).unwrap_or_default();
        let begun = std::time::Instant::now();
        while !stat().is_empty() && !stat().contains(") Z ") {
            assert!(begun.elapsed() < LONG, "the child lives on: {}", stat());
            sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn a_daemon_that_keeps_the_output_open_does_not_hold_us_up() {
        let before = std::time::Instant::now();
        let ended = run("sleep 20 & echo started", LONG).await;
        assert!(ended.ok && ended.detail == "started", "{ended:?}");
        assert!(before.elapsed() < Duration::from_secs(15));
    }

    #[tokio::test]
    async fn nothing_of_the_agents_environment_is_passed_on() {
        let ended = run("env", LONG).await;
        let mut names: Vec<_> =
            ended.stdout.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
        names.retain(|name| !matches!(*name, "PWD" | "SHLVL" | "_" | "OLDPWD"));
        names.sort_unstable();
        assert_eq!(names, ["LC_ALL", "PATH", "TRUSTFLEET_SERVICE"]);
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_named() {
        let words = vec!["/nowhere/nginx".to_owned()];
        let ended = Program { words, environment: Vec::new(), run_as: None, limit: LONG }.run().await;
        assert!(!ended.ok && ended.detail.contains("/nowhere/nginx cannot be started"), "{ended:?}");
    }
}
