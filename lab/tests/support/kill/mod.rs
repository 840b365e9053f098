//! Killing the real agent before a step of its own: which steps there are, and when to die.
//!
//! `steps.c` says what a step is and how death comes. The program under test is the one that is shipped; nothing in it
//! knows of any of this.

pub(crate) mod agent;

use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::Command,
};

/// What kind of step is counted apart.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// The disk and the CA: one after the other, the same in every run.
    Local = 0,
    /// Bytes to the broker.
    Broker = 1,
}

const ON: u64 = 0;
const KIND: u64 = 1;
const NUMBER: u64 = 2;
const COUNTED: u64 = 3;
const CA_PORT: u64 = 5;
const BROKER_PORT: u64 = 6;
const FIELDS: u64 = 7;

/// The board that the test and all lives of an agent share.
#[derive(Debug)]
pub(crate) struct Board {
    file: File,
    path: PathBuf,
    log: PathBuf,
    library: PathBuf,
}

impl Board {
    /// Builds the library and makes the board, both in `dir`.
    pub(crate) fn new(dir: &Path, ca_port: u16, broker_port: u16) -> Self {
        let library = dir.join("steps.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/kill/steps.c");
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"]).arg(&library).arg(&source).arg("-ldl");
        let built = cc.output().expect("cc, which Rust needs as well");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        let path = dir.join("board");
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        file.set_len(FIELDS * 4).unwrap();
        let board = Self { file, path, log: dir.join("steps.log"), library };
        board.set(CA_PORT, u32::from(ca_port));
        board.set(BROKER_PORT, u32::from(broker_port));
        board
    }

    /// Lets a command count its steps below `state`.
    pub(crate) fn count_in(&self, command: &mut Command, state: &Path) {
        command
            .env("LD_PRELOAD", &self.library)
            .env("KILL_BOARD", &self.path)
            .env("KILL_BELOW", state)
            .env("KILL_LOG", &self.log);
    }

    /// Counts from 1 again; the process dies before step `number` of this kind, of which 0 is none.
    pub(crate) fn arm(&self, kind: Kind, number: u32) {
        fs::write(&self.log, b"").unwrap(); // emptied, not replaced: the process goes on writing to it
        self.set(KIND, kind as u32);
        self.set(NUMBER, number);
        self.set(COUNTED, 0);
        self.set(COUNTED + 1, 0);
        self.set(ON, 1);
    }

    /// Ends the counting.
    pub(crate) fn off(&self) {
        self.set(ON, 0);
    }

    /// Steps of a kind since [`Board::arm`].
    pub(crate) fn counted(&self, kind: Kind) -> u32 {
        let mut bytes = [0; 4];
        self.file.read_exact_at(&mut bytes, (COUNTED + kind as u64) * 4).unwrap();
        u32::from_ne_bytes(bytes)
    }

    /// All steps since the process began to count, one a line, those of later lives included.
    pub(crate) fn steps(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn set(&self, field: u64, value: u32) {
        self.file.write_all_at(&value.to_ne_bytes(), field * 4).unwrap();
    }
}
