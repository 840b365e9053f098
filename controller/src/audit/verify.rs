//! Finds what was changed, removed, inserted or cut off in a log, from its export and the controller's public key alone.
//!
//! What a log cannot tell of itself: rows that were cut off at its end together with the checkpoints over them. That shows
//! beside a head that was exported before and kept elsewhere. Pure.

use std::collections::HashMap;
use std::fmt;

use jiff::{SignedDuration, Timestamp};
use trustfleet_model::ids::TenantId;
use trustfleet_wire::sign::key_id;

use super::export::{FORMAT, Head, Line, LogLine, RowLine};
use super::record::sha256;
use super::{Checkpoint, DROPPED, Hash, Link, Record};

/// How long rows may wait to be chained, or links to be signed: far longer than a controller that runs takes.
const WAIT_MAX: SignedDuration = SignedDuration::from_hours(1);
/// How far clocks of replicas may be apart, and a row may be older than the checkpoint before it.
const SKEW: SignedDuration = SignedDuration::from_hours(1);
/// Findings that are told one by one.
const FINDINGS_MAX: usize = 100;

/// Something that is not as the controller left it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// The export cannot be read as one.
    Unreadable(String),
    /// The row, or the link's own hash, is not what was chained.
    Changed {
        /// Place in the chain.
        seq: i64,
    },
    /// A row is gone.
    Removed {
        /// Place in the chain.
        seq: i64,
    },
    /// Links are gone.
    Gap {
        /// The last one before.
        after: i64,
        /// The next one that is there.
        next: i64,
    },
    /// The row was not written by a controller.
    Inserted {
        /// Place in the chain.
        seq: i64,
    },
    /// The row is a copy of another one.
    Repeated {
        /// Place in the chain.
        seq: i64,
        /// Place of the first one.
        of: i64,
    },
    /// The row says that it is older than what was signed before it.
    Backdated {
        /// Place in the chain.
        seq: i64,
    },
    /// The signature of a checkpoint is not the controller's.
    BadSignature {
        /// Place in the chain.
        seq: i64,
    },
    /// The chain does not lead to what was signed: something before was changed, and its links were made to fit.
    NotAsSigned {
        /// Place in the chain.
        seq: i64,
    },
    /// The log begins in its middle, and no row of it says that retention has dropped what was before.
    BeginningCut {
        /// The first link that is there.
        first: i64,
    },
    /// Old links are not signed: checkpoints were removed, or the controller has stopped.
    Unsigned {
        /// The first of them.
        since: i64,
    },
    /// Old rows are not chained: their links were removed, or the controller has stopped.
    Unchained {
        /// Id of the first of them.
        row_id: i64,
    },
    /// The log ends before a head that was exported.
    TailCut {
        /// Place of the exported head.
        seq: i64,
        /// Where the log ends.
        end: i64,
    },
    /// At the place of an exported head there is something else.
    OtherThanHead {
        /// Place of the exported head.
        seq: i64,
    },
    /// The exported head is not signed by the controller.
    BadHead {
        /// Place of the exported head.
        seq: i64,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(why) => write!(f, "the export cannot be read: {why}"),
            Self::Changed { seq } => write!(f, "row {seq} was changed"),
            Self::Removed { seq } => write!(f, "row {seq} was removed"),
            Self::Gap { after, next } => write!(f, "rows {} to {} were removed with their links", after + 1, next - 1),
            Self::Inserted { seq } => write!(f, "row {seq} was inserted: no controller has written it"),
            Self::Repeated { seq, of } => write!(f, "row {seq} was inserted: it is a copy of row {of}"),
            Self::Backdated { seq } => write!(f, "row {seq} was inserted: it is older than what was signed before it"),
            Self::BadSignature { seq } => write!(f, "the checkpoint at row {seq} is not signed by the controller"),
            Self::NotAsSigned { seq } => {
                write!(f, "rows up to {seq} are not those that were signed: they were changed, and chained anew")
            }
            Self::BeginningCut { first } => {
                write!(f, "rows before {first} were removed, and not by the controller's retention")
            }
            Self::Unsigned { since } => {
                write!(
                    f,
                    "rows from {since} on are old and not signed: checkpoints were removed, or no controller runs"
                )
            }
            Self::Unchained { row_id } => {
                write!(f, "rows from id {row_id} on are old and not chained: links were removed, or no controller runs")
            }
            Self::TailCut { seq, end } => {
                write!(f, "the log ends at row {end}, but its head was exported at row {seq}: its end was cut off")
            }
            Self::OtherThanHead { seq } => {
                write!(f, "row {seq} is not the one of the exported head: the log was cut there or before, and went on")
            }
            Self::BadHead { seq } => {
                write!(f, "the exported head at row {seq} is not signed by the controller's key, or is of another log")
            }
        }
    }
}

/// What a verification found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Chained rows that were looked at.
    pub rows: u64,
    /// Good checkpoints.
    pub checkpoints: u64,
    /// The last link.
    pub end: i64,
    /// The last good checkpoint.
    pub signed: i64,
    /// Rows at the end that are not chained yet, and links that are not signed yet: nothing vouches for them so far.
    pub open: u64,
    /// Id of the key that was verified with.
    pub key_id: String,
    /// What is wrong; empty: all is as the controller left it. After a hundred the rest is only counted.
    pub findings: Vec<Finding>,
    /// Further findings.
    pub more: u64,
}

/// A verification under way: lines go in, in the order of the export.
#[derive(Debug)]
pub struct Verifier {
    now: Timestamp,
    /// The key to verify with, when it is known from elsewhere.
    pinned: Option<Vec<u8>>,
    heads: Vec<Head>,
    log: Option<LogLine>,
    begun: bool,
    /// The link before is not there.
    unlinked: bool,
    first: i64,
    seq: i64,
    /// The stored hash of the last link.
    hash: Hash,
    signed: Option<(i64, Timestamp)>,
    /// The first unsigned link, and when its row was written.
    unsigned: Option<(i64, Timestamp)>,
    /// Where retention says that it has dropped everything up to.
    dropped: Option<i64>,
    seen: HashMap<[u8; 16], i64>,
    /// Hash at each exported head's place.
    at_heads: HashMap<i64, Hash>,
    pending: u64,
    report: Report,
}

impl Verifier {
    /// Nothing was read yet. `public_key`: the controller's, if it is known from elsewhere; else the export's own is taken,
    /// which proves nothing against somebody who could replace it. `heads`: heads that were exported earlier.
    pub fn new(public_key: Option<Vec<u8>>, heads: Vec<Head>, now: Timestamp) -> Self {
        let report = Report {
            rows: 0,
            checkpoints: 0,
            end: 0,
            signed: 0,
            open: 0,
            key_id: String::new(),
            findings: Vec::new(),
            more: 0,
        };
        Self {
            now,
            pinned: public_key,
            heads,
            log: None,
            begun: false,
            unlinked: false,
            first: 1,
            seq: 0,
            hash: Hash::beginning(TenantId::nil()),
            signed: None,
            unsigned: None,
            dropped: None,
            seen: HashMap::new(),
            at_heads: HashMap::new(),
            pending: 0,
            report,
        }
    }

    /// The next line.
    pub fn line(&mut self, line: Line) {
        match line {
            Line::Log(log) => self.begin(log),
            Line::End { .. } => {}
            _ if self.log.is_none() => self.find(Finding::Unreadable("it does not begin with a line `log`".to_owned())),
            Line::Checkpoint(checkpoint) => self.checkpoint(&checkpoint),
            Line::Row(row) => self.row(*row),
        }
    }

    /// A line that is no line of an export.
    pub fn unreadable(&mut self, number: usize) {
        self.find(Finding::Unreadable(format!("line {number} is not a line of an export")));
    }

    fn begin(&mut self, log: LogLine) {
        if let Some(known) = &self.log {
            // The next answer of the same export.
            if known.tenant_id != log.tenant_id || known.public_key != log.public_key {
                self.find(Finding::Unreadable("it goes on with another log or key".to_owned()));
            }
            return;
        }
        if log.format != FORMAT {
            self.find(Finding::Unreadable(format!("its format is {}, this program knows {FORMAT}", log.format)));
        }
        self.hash = Hash::beginning(log.tenant_id);
        self.report.key_id = key_id(self.pinned.as_ref().unwrap_or(&log.public_key));
        let tenant = log.tenant_id;
        self.heads.retain(|head| head.tenant_id == tenant);
        self.log = Some(log);
    }

    fn key(&self) -> Vec<u8> {
        let own = || self.log.as_ref().map(|log| log.public_key.clone()).unwrap_or_default();
        self.pinned.clone().unwrap_or_else(own)
    }

    fn tenant(&self) -> TenantId {
        self.log.as_ref().map_or(TenantId::nil(), |log| log.tenant_id)
    }

    fn checkpoint(&mut self, checkpoint: &Checkpoint) {
        if !checkpoint.is_signed_by(self.tenant(), &self.key()) {
            return self.find(Finding::BadSignature { seq: checkpoint.seq });
        }
        if !self.begun {
            // The boundary that retention has left.
            self.begun = true;
            self.first = checkpoint.seq + 1;
            (self.seq, self.hash) = (checkpoint.seq, checkpoint.hash);
        } else if checkpoint.seq != self.seq || checkpoint.hash != self.hash {
            return self.find(Finding::NotAsSigned { seq: checkpoint.seq });
        }
        self.remember_head();
        self.report.checkpoints += 1;
        self.report.signed = checkpoint.seq;
        self.signed = Some((checkpoint.seq, checkpoint.at));
        self.unsigned = None;
    }

    fn row(&mut self, line: RowLine) {
        let Some(link) = line.link else { return self.pending(line.row.as_ref()) };
        if !self.begun {
            self.begun = true;
            if link.seq != 1 {
                self.first = link.seq;
                self.unlinked = true;
            }
        } else if link.seq != self.seq + 1 {
            self.find(Finding::Gap { after: self.seq, next: link.seq });
            self.unlinked = true;
        }
        self.report.rows += 1;
        match &line.row {
            None => self.find(Finding::Removed { seq: link.seq }),
            Some(row) => self.content(&link, row),
        }
        (self.seq, self.hash) = (link.seq, link.hash);
        self.unlinked = false;
        self.report.end = link.seq;
        if self.unsigned.is_none() {
            self.unsigned = Some((link.seq, line.row.as_ref().map_or(self.now, |row| row.at)));
        }
        self.remember_head();
    }

    fn content(&mut self, link: &Link, row: &Record) {
        let content = row.content(self.tenant());
        let before = self.hash;
        let expected = before.next(self.tenant(), link.seq, row.id, link.sealed, &content);
        // The link behind a cut has nothing to be checked against: the cut itself is told.
        if !self.unlinked && (expected != link.hash || row.id != link.row_id) {
            self.find(Finding::Changed { seq: link.seq });
        }
        if !link.sealed {
            self.find(Finding::Inserted { seq: link.seq });
        }
        let mut short = [0; 16];
        short.copy_from_slice(&sha256(&[&content])[..16]);
        if let Some(of) = self.seen.insert(short, link.seq) {
            self.find(Finding::Repeated { seq: link.seq, of });
        }
        if self.signed.is_some_and(|(_, at)| at.duration_since(row.at) > SKEW) {
            self.find(Finding::Backdated { seq: link.seq });
        }
        if row.action == DROPPED && link.sealed {
            self.dropped = row.detail["up_to"].as_i64();
        }
    }

    fn pending(&mut self, row: Option<&Record>) {
        self.pending += 1;
        if let Some(up_to) = row.filter(|row| row.action == DROPPED).and_then(|row| row.detail["up_to"].as_i64()) {
            // Chained in a moment, and judged then.
            self.dropped = Some(up_to);
        }
        if let Some(row) = row.filter(|row| self.now.duration_since(row.at) > WAIT_MAX) {
            self.find(Finding::Unchained { row_id: row.id });
        }
    }

    fn remember_head(&mut self) {
        if self.heads.iter().any(|head| head.checkpoint.seq == self.seq) {
            self.at_heads.insert(self.seq, self.hash);
        }
    }

    fn find(&mut self, finding: Finding) {
        if self.report.findings.len() < FINDINGS_MAX {
            self.report.findings.push(finding);
        } else {
            self.report.more += 1;
        }
    }

    /// What was found, after the last line.
    pub fn finish(mut self) -> Report {
        if self.log.is_none() {
            self.find(Finding::Unreadable("it is empty".to_owned()));
            return self.report;
        }
        if self.first != 1 && self.dropped != Some(self.first - 1) {
            self.find(Finding::BeginningCut { first: self.first });
        }
        if let Some((since, at)) = self.unsigned {
            self.report.open = (self.seq - since + 1).unsigned_abs();
            if self.now.duration_since(at) > WAIT_MAX {
                self.find(Finding::Unsigned { since });
            }
        }
        self.report.open += self.pending;
        self.report.end = self.seq;
        for head in std::mem::take(&mut self.heads) {
            let seq = head.checkpoint.seq;
            if !head.checkpoint.is_signed_by(self.tenant(), &self.key()) {
                self.find(Finding::BadHead { seq });
            } else if seq > self.seq {
                self.find(Finding::TailCut { seq, end: self.seq });
            } else if seq >= self.first && self.at_heads.get(&seq) != Some(&head.checkpoint.hash) {
                self.find(Finding::OtherThanHead { seq });
            }
        }
        self.report
    }
}
