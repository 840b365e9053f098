//! Real processes of the system in a test: their output kept, never outliving the test.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::{Command, ExitStatus},
    time::Duration,
};

use rustix::process::Signal;
use tempfile::TempDir;

use super::{TestkitError, eventually};
use crate::stack::{
    StackError,
    process::{Process, in_words, mortal, tail},
};

/// The path of a binary of this workspace, beside the running test's own folder (`target/debug/`).
///
/// # Errors
/// [`TestkitError::NotBuilt`].
pub fn binary(name: &str) -> Result<PathBuf, TestkitError> {
    let here = std::env::current_exe().map_err(StackError::io("asking for the test's own path"))?;
    // target/debug/deps/TEST-HASH, or target/debug/BINARY
    let folder = here.ancestors().skip(1).find(|folder| !folder.ends_with("deps")).unwrap_or(&here);
    let path = folder.join(name);
    match fs::metadata(&path) {
        Ok(metadata) if metadata.permissions().mode() & 0o111 != 0 => Ok(path),
        _ => Err(TestkitError::NotBuilt { program: name.to_owned(), folder: folder.display().to_string() }),
    }
}

/// A command for a binary of this workspace, which the kernel kills when the test's process dies.
///
/// # Errors
/// [`TestkitError::NotBuilt`].
pub fn command(name: &str) -> Result<Command, TestkitError> {
    Ok(mortal(binary(name)?, "KILL", &[]))
}

/// A running process with its output (both streams) in one log; killed when dropped. When the test is failing, the end
/// of the log is shown.
#[derive(Debug)]
pub struct Child {
    name: &'static str,
    process: Process,
    folder: TempDir,
}

impl Child {
    /// Starts `command` without input, as the leader of a process group of its own.
    ///
    /// # Errors
    /// [`TestkitError::Stack`] with the operating system's reason.
    pub fn start(name: &'static str, command: Command) -> Result<Self, TestkitError> {
        let folder = tempfile::tempdir().map_err(StackError::io("making a folder for a log"))?;
        let process = Process::spawn(name, command, &folder.path().join("log"), Signal::KILL)?;
        Ok(Self { name, process, folder })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Everything it has said.
    pub fn log(&self) -> String {
        fs::read(self.log_path()).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The first whole line of its output that contains `text`.
    ///
    /// # Errors
    /// [`TestkitError::Process`] when it ends or `at_most` passes before.
    pub async fn line_with(&mut self, text: &str, at_most: Duration) -> Result<String, TestkitError> {
        let found = eventually(at_most, "a line came", async || {
            let ended = self.process.ended(); // asked first: what is read afterwards is all there will ever be
            let log = self.log();
            let line = log.split_inclusive('\n').find(|line| line.ends_with('\n') && line.contains(text));
            match (line, ended) {
                (Some(line), _) => Some(Ok(line.trim_end().to_owned())),
                (None, Some(status)) => Some(Err(format!("ended with {}", in_words(status)))),
                (None, None) => None,
            }
        });
        let silent = |_| Err(format!("did not say `{text}` within {at_most:?}"));
        found.await.unwrap_or_else(silent).map_err(|what| self.failure(what))
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.process.ended().is_none()
    }

    /// SIGKILL to its whole group; returns when it is dead.
    pub async fn kill(&mut self) {
        self.process.signal_group(Signal::KILL);
        self.process.wait(Duration::from_secs(10)).await;
    }

    /// SIGTERM, as an operator stops a service; its exit status.
    ///
    /// # Errors
    /// [`TestkitError::Process`] when it has not ended within `at_most`.
    pub async fn terminate(&mut self, at_most: Duration) -> Result<ExitStatus, TestkitError> {
        self.process.signal(Signal::TERM);
        self.wait(at_most).await
    }

    /// Waits for it to end by itself.
    ///
    /// # Errors
    /// [`TestkitError::Process`] when it has not ended within `at_most`.
    pub async fn wait(&mut self, at_most: Duration) -> Result<ExitStatus, TestkitError> {
        match self.process.wait(at_most).await {
            Some(status) => Ok(status),
            None => Err(self.failure(format!("did not end within {at_most:?}"))),
        }
    }

    /// SIGSTOP: frozen, with all its connections open.
    pub fn freeze(&mut self) {
        self.process.signal_group(Signal::STOP);
    }

    /// SIGHUP: a service looks at its files again.
    pub fn hang_up(&mut self) {
        self.process.signal(Signal::HUP);
    }

    /// SIGCONT: goes on after [`Self::freeze`].
    pub fn thaw(&mut self) {
        self.process.signal_group(Signal::CONT);
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    fn failure(&self, what: String) -> TestkitError {
        TestkitError::Process { name: self.name, what, tail: tail(&self.log_path()) }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if std::thread::panicking() {
            use io::Write as _;
            let _ = writeln!(io::stderr(), "--- the end of the output of {}:\n{}", self.name, tail(&self.log_path()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = mortal("sh", "KILL", &[]);
        command.args(["-c", script]);
        command
    }

    #[tokio::test]
    async fn a_line_is_returned_when_it_is_whole() {
        let script = "printf 'ready at'; sleep 0.2; echo ' port 7'; sleep 300";
        let mut child = Child::start("sample", shell(script)).unwrap();
        assert_eq!(child.line_with("ready", Duration::from_secs(10)).await.unwrap(), "ready at port 7");
        assert!(child.is_running());
        child.kill().await;
        assert!(!child.is_running());
    }

    #[tokio::test]
    async fn a_process_that_ends_instead_is_quoted() {
        let mut child = Child::start("sample", shell("echo no such table; exit 2")).unwrap();
        let error = child.line_with("ready", Duration::from_secs(10)).await.unwrap_err().to_string();
        assert!(error.contains("sample ended with exit code 2") && error.contains("no such table"), "{error}");
    }
}
