//! The last one out: a small shell process that clears up when the owner of a stack is gone.
//!
//! It holds the reading end of a pipe whose writing end only the owner has. When the pipe closes (the owner ended, or
//! was killed with a signal nobody can catch) it ends every process that carries the stack's mark in its environment,
//! and PostgreSQL, which overwrites its environment, by its pid file; then it removes the folder. Nothing without the
//! mark is ever touched.

use std::{
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, Stdio},
};

use super::{StackError, process::spawn_lasting};

/// The variable that marks the processes of one stack. It is not in the stack's `env` file, so that a shell that reads
/// that file is not ended with the stack.
pub(super) const MARK_VARIABLE: &str = "TRUSTFLEET_STACK_MARK";

const SCRIPT: &str = r#"
trap '' INT TERM HUP QUIT
dir=$1 mark=$2
cat >/dev/null
marked() { grep -lzxF "$mark" /proc/[0-9]*/environ 2>/dev/null | cut -d/ -f3; }
postmaster() { head -n 1 "$dir/postgres/data/postmaster.pid" 2>/dev/null; }
end() {
    pids="$(marked)"
    [ -z "$pids" ] || kill -"$1" $pids 2>/dev/null
}
pg="$(postmaster)"
end TERM
[ -z "$pg" ] || kill -QUIT "$pg" 2>/dev/null
for pause in 0.05 0.1 0.2 0.4 0.8 0.8 0.8 0.8; do
    if [ -z "$(marked)" ] && [ -z "$(postmaster)" ]; then break; fi
    sleep "$pause"
done
end KILL
rm -rf "$dir" 2>/dev/null || { sleep 0.3; rm -rf "$dir"; }
"#;

/// The guard of one stack's folder and processes. Dropping it clears up and waits until that is done.
#[derive(Debug)]
pub(super) struct Watchdog {
    shell: Child,
    mark: String,
}

impl Watchdog {
    /// Starts guarding `dir` and everything that carries `mark`.
    pub(super) fn start(dir: &Path, mark: String) -> Result<Self, StackError> {
        let mut command = Command::new("sh");
        command
            .args(["-c", SCRIPT, "trustfleet-stack-watchdog"])
            .arg(dir)
            .arg(format!("{MARK_VARIABLE}={mark}"))
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0);
        let shell = spawn_lasting(command).map_err(StackError::io("starting sh for the stack's watchdog"))?;
        Ok(Self { shell, mark })
    }

    /// The variable and value that put a process under this guard.
    pub(super) fn mark(&self) -> (&'static str, &str) {
        (MARK_VARIABLE, &self.mark)
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, time::Duration};

    use super::*;

    #[test]
    fn the_watchdog_ends_what_carries_the_mark_and_nothing_else_and_removes_the_folder() {
        let dir = tempfile::tempdir().unwrap().keep();
        fs::write(dir.join("file"), "x").unwrap();
        let mark = super::super::keys::random_word(8).unwrap();
        let watchdog = Watchdog::start(&dir, mark).unwrap();
        let (name, value) = watchdog.mark();
        let mut marked = Command::new("sleep").arg("300").env(name, value).spawn().unwrap();
        let mut other = Command::new("sleep").arg("300").env(name, "another").spawn().unwrap();
        std::thread::sleep(Duration::from_millis(50)); // both have executed `sleep`
        let reaper = std::thread::spawn(move || marked.wait().unwrap());
        drop(watchdog);
        assert!(!reaper.join().unwrap().success());
        assert!(other.try_wait().unwrap().is_none());
        other.kill().unwrap();
        other.wait().unwrap();
        assert!(!dir.exists());
    }
}
