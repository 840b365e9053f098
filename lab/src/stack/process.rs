//! Child processes that never outlive their owner.
//!
//! Each child leads a process group of its own and runs under `setpriv --pdeathsig`, so the kernel ends it when this
//! process dies, however it dies. The kernel counts the death of the *thread* that spawned the child, so all children
//! are spawned by one thread that lives as long as the process.

use std::{
    fs::{self, File},
    io::{self, Read as _, Seek as _, SeekFrom},
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{LazyLock, mpsc},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::StackError;

/// How often a child is asked whether it has ended.
const POLL: Duration = Duration::from_millis(10);
/// How much of a log is shown when something fails.
const TAIL_LINES: usize = 25;
const TAIL_BYTES: u64 = 16 * 1024;

type Order = (Command, mpsc::Sender<io::Result<Child>>);

static SPAWNER: LazyLock<mpsc::Sender<Order>> = LazyLock::new(|| {
    let (orders, inbox) = mpsc::channel::<Order>();
    thread::spawn(move || {
        for (mut command, answer) in inbox {
            let _ = answer.send(command.spawn());
        }
    });
    orders
});

/// Spawns from the thread that lives as long as this process.
pub(crate) fn spawn_lasting(command: Command) -> io::Result<Child> {
    let gone = || io::Error::other("the thread that starts processes is gone");
    let (answer, result) = mpsc::channel();
    SPAWNER.send((command, answer)).map_err(|_| gone())?;
    result.recv().map_err(|_| gone())?
}

/// `program` under `setpriv`, which sends `signal` when the owner dies; arguments are added by the caller.
pub(crate) fn mortal(program: impl AsRef<std::ffi::OsStr>, signal: &str, setpriv_options: &[&str]) -> Command {
    let mut command = Command::new("setpriv");
    command.arg("--pdeathsig").arg(signal).args(setpriv_options).arg("--").arg(program);
    command
}

/// A child process with its output in a file; killed with its whole group when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    name: &'static str,
    child: Child,
    log: PathBuf,
    last_resort: Signal,
}

impl Process {
    /// Starts `command` as the leader of a new group, without input, its output appended to `log`.
    ///
    /// `last_resort` is the signal sent to the group on drop.
    pub(crate) fn spawn(
        name: &'static str,
        mut command: Command,
        log: &Path,
        last_resort: Signal,
    ) -> Result<Self, StackError> {
        let open = || {
            File::options()
                .create(true)
                .append(true)
                .open(log)
                .map_err(StackError::io(format!("opening {}", log.display())))
        };
        command.stdin(Stdio::null()).stdout(open()?).stderr(open()?).process_group(0);
        let child = spawn_lasting(command).map_err(StackError::io(format!("starting {name}")))?;
        Ok(Self { name, child, log: log.to_owned(), last_resort })
    }

    /// The process id, which is also the id of its group.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its exit status, when it has ended.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Sends a signal to the process alone, if it still runs.
    pub(crate) fn signal(&mut self, signal: Signal) {
        if self.ended().is_none() {
            let _ = kill_process(Pid::from_child(&self.child), signal);
        }
    }

    /// Sends a signal to the process and everything in its group, if it still runs.
    pub(crate) fn signal_group(&mut self, signal: Signal) {
        if self.ended().is_none() {
            let _ = kill_process_group(Pid::from_child(&self.child), signal);
        }
    }

    /// Waits for the end at most so long.
    pub(crate) async fn wait(&mut self, at_most: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + at_most;
        loop {
            if let Some(status) = self.ended() {
                return Some(status);
            }
            if Instant::now() >= deadline {
                return None;
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Sends `signal`, waits for the end, and kills the group when it has not come within `grace`.
    pub(crate) async fn stop(&mut self, signal: Signal, grace: Duration) {
        self.signal(signal);
        if self.wait(grace).await.is_none() {
            self.signal_group(Signal::KILL);
            self.wait(Duration::from_secs(5)).await;
        }
    }

    /// Calls `probe` until it gives something; fails early when the process ends.
    pub(crate) async fn until_ready<T>(
        &mut self,
        at_most: Duration,
        mut probe: impl AsyncFnMut() -> Option<T>,
    ) -> Result<T, StackError> {
        let deadline = Instant::now() + at_most;
        loop {
            if let Some(ready) = probe().await {
                return Ok(ready);
            }
            if let Some(status) = self.ended() {
                return Err(StackError::Exited {
                    name: self.name,
                    status: in_words(status),
                    tail: tail(&self.log),
                    log: self.log.clone(),
                });
            }
            if Instant::now() >= deadline {
                return Err(StackError::NotReady {
                    name: self.name,
                    seconds: at_most.as_secs(),
                    tail: tail(&self.log),
                    log: self.log.clone(),
                });
            }
            tokio::time::sleep(POLL * 3).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended().is_none() {
            let _ = kill_process_group(Pid::from_child(&self.child), self.last_resort);
            let deadline = Instant::now() + Duration::from_secs(3);
            while self.ended().is_none() && Instant::now() < deadline {
                thread::sleep(POLL);
            }
            if self.ended().is_none() {
                let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
                let _ = self.child.wait();
            }
        }
    }
}

/// "exit code 3" or "signal 9".
pub(crate) fn in_words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

/// The last lines of a log; a remark when there are none.
pub(crate) fn tail(log: &Path) -> String {
    let read = || -> io::Result<String> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    match read() {
        Ok(text) if !text.trim().is_empty() => {
            let lines: Vec<_> = text.lines().collect();
            lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
        }
        Ok(_) => "(it said nothing)".to_owned(),
        Err(error) => format!("(its output cannot be read: {error})"),
    }
}

/// The first of `directories` that holds an executable called `program`.
pub(crate) fn find_program(program: &str, directories: impl IntoIterator<Item = PathBuf>) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    directories.into_iter().map(|directory| directory.join(program)).find(|path| {
        fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
    })
}

/// The folders of PATH, and the two of the system's own programs that users often lack.
pub(crate) fn search_path() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_process_that_ends_early_is_reported_with_the_end_of_its_output() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = mortal("sh", "TERM", &[]);
        command.args(["-c", "echo the disk is full; exit 3"]);
        let mut process = Process::spawn("sample", command, &dir.path().join("log"), Signal::KILL).unwrap();
        let error = process.until_ready(Duration::from_secs(10), async || None::<()>).await.unwrap_err().to_string();
        assert!(error.contains("sample ended with exit code 3") && error.contains("the disk is full"), "{error}");
    }

    #[tokio::test]
    async fn a_dropped_process_takes_its_children_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let note = dir.path().join("grandchild");
        let mut command = mortal("sh", "TERM", &[]);
        command.arg("-c").arg(format!("sleep 300 & echo $! > {}; wait", note.display()));
        let process = Process::spawn("sample", command, &dir.path().join("log"), Signal::KILL).unwrap();
        let grandchild = loop {
            match fs::read_to_string(&note) {
                Ok(text) if text.ends_with('\n') => break text.trim().to_owned(),
                _ => tokio::time::sleep(POLL).await,
            }
        };
        drop(process);
        let alive = || fs::read_to_string(format!("/proc/{grandchild}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
        let deadline = Instant::now() + Duration::from_secs(5);
        while alive() && Instant::now() < deadline {
            tokio::time::sleep(POLL).await;
        }
        assert!(!alive());
    }
}
