//! Runs a command inside a stack, hands signals on to it, and ends everything after it.

use std::{
    ffi::OsString,
    io::{self, IsTerminal as _},
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    process::{Child, ExitStatus},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::{
    signal::unix::{self, SignalKind},
    time::Instant,
};

use super::{
    Stack, StackError, StackOptions,
    process::{mortal, spawn_lasting},
};

/// How long the command may take to end after it was asked to.
const GRACE: Duration = Duration::from_secs(30);
/// From this many interrupts on, the command is killed at once.
const IMPATIENT: u32 = 3;

/// Starts a stack, runs `command` (program and arguments) with the stack's variables, ends everything, and gives the
/// command's exit code (128 + number when a signal ended it or interrupted the start).
///
/// With a terminal as input the command shares the terminal's process group, so Ctrl-C reaches it directly and it may
/// read from the terminal; otherwise it gets a group of its own, and signals sent to this process are handed on.
///
/// # Errors
/// [`StackError`] when the stack does not start or the command cannot be executed.
pub async fn run(options: StackOptions, command: &[OsString]) -> Result<u8, StackError> {
    let mut signals = Signals::listen()?;
    let stack = tokio::select! {
        stack = Stack::start(options) => stack?,
        signal = signals.next() => return Ok(by_signal(signal.as_raw())),
    };
    let mut inside = Inside::start(&stack, command)?;
    let status = inside.until_end(&mut signals).await?;
    drop(inside);
    stack.stop().await;
    Ok(status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .unwrap_or_else(|| by_signal(status.signal().unwrap_or(0))))
}

/// The command inside the stack.
struct Inside {
    child: Child,
    has_terminal: bool,
}

impl Inside {
    fn start(stack: &Stack, command: &[OsString]) -> Result<Self, StackError> {
        let (program, arguments) = command.split_first().ok_or_else(|| StackError::Io {
            what: "looking for the command".to_owned(),
            source: io::Error::from(io::ErrorKind::InvalidInput),
        })?;
        let has_terminal = io::stdin().is_terminal();
        let mut child = mortal(program, "TERM", &[]);
        child.args(arguments).envs(stack.env().vars());
        let (mark, value) = stack.mark();
        child.env(mark, value);
        if !has_terminal {
            child.process_group(0);
        }
        let child = spawn_lasting(child).map_err(StackError::io(format!("starting {}", program.to_string_lossy())))?;
        Ok(Self { child, has_terminal })
    }

    async fn until_end(&mut self, signals: &mut Signals) -> Result<ExitStatus, StackError> {
        let mut deadline: Option<Instant> = None;
        let mut interrupts = 0;
        loop {
            if let Some(status) = self.child.try_wait().map_err(StackError::io("waiting for the command"))? {
                return Ok(status);
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                self.signal(Signal::KILL);
            }
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(10)) => {}
                signal = signals.next() => {
                    // The terminal has already told the command; what it makes of Ctrl-C is its own affair.
                    if signal == Signal::INT && self.has_terminal {
                        continue;
                    }
                    interrupts += 1;
                    deadline.get_or_insert_with(|| Instant::now() + GRACE);
                    self.signal(if interrupts >= IMPATIENT { Signal::KILL } else { signal });
                }
            }
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        let _ = if self.has_terminal { kill_process(pid, signal) } else { kill_process_group(pid, signal) };
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        // What the command left in its group goes with it; the rest is ended by the stack's mark.
        if !self.has_terminal {
            self.signal(Signal::TERM);
        }
    }
}

struct Signals {
    interrupt: unix::Signal,
    terminate: unix::Signal,
    hangup: unix::Signal,
}

impl Signals {
    fn listen() -> Result<Self, StackError> {
        let listen = |kind| unix::signal(kind).map_err(StackError::io("listening for signals"));
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::INT,
            _ = self.terminate.recv() => Signal::TERM,
            _ = self.hangup.recv() => Signal::HUP,
        }
    }
}

fn by_signal(number: i32) -> u8 {
    u8::try_from(128 + number).unwrap_or(u8::MAX)
}
