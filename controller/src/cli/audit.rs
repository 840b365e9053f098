//! Verbs on the audit log. `verify` needs no trust in the controller that it asks: it computes the chain itself and checks
//! the signatures with a key that was kept elsewhere.

use std::{
    fs::{self, File},
    io::{self, BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use ureq::http::Method;

use super::{
    args::Page,
    error::CliError,
    output::{self, Column, ago, text},
    session::Session,
};
use crate::audit::{Heads, Line, Verifier};

/// Verbs on the audit log.
#[derive(Debug, Subcommand)]
pub enum AuditVerb {
    /// List rows, newest first
    List {
        #[command(flatten)]
        page: Page,
        #[command(flatten)]
        filter: Box<Filter>,
        #[command(flatten)]
        which: Which,
    },
    /// Show the latest signed link of the log; keep it where nobody can change it who can change the database
    Heads {
        /// Of all tenants' logs and the installation's own; needs a platform administrator's token
        #[arg(long)]
        platform: bool,
        /// Write them into this new file instead of showing them
        #[arg(long, value_name = "FILE")]
        write_to: Option<PathBuf>,
    },
    /// Print the whole log as JSON lines, with its chain and signatures
    Export {
        #[command(flatten)]
        which: Which,
        /// Write it into this new file instead
        #[arg(long, value_name = "FILE")]
        write_to: Option<PathBuf>,
    },
    /// Look for rows that were changed, removed, inserted or cut off; exit code 1 when there are any
    Verify {
        #[command(flatten)]
        which: Which,
        /// An export, instead of asking the controller
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
        /// Heads that were written earlier: only beside them a cut at the end shows
        #[arg(long, value_name = "FILE")]
        heads: Option<PathBuf>,
        /// The controller's Ed25519 public key, 64 hex digits [default: the one in --heads, else the log's own word]
        #[arg(long, value_name = "HEX")]
        public_key: Option<String>,
    },
}

/// Which log.
#[derive(Clone, Copy, Debug, Args)]
pub struct Which {
    /// The installation's own log instead of a tenant's; needs a platform administrator's token
    #[arg(long)]
    platform: bool,
}

/// Which rows.
#[derive(Clone, Debug, Args)]
pub struct Filter {
    /// Of this actor, as rows show it
    #[arg(long, value_name = "ACTOR")]
    actor: Option<String>,
    /// With this action, such as device_created
    #[arg(long, value_name = "ACTION")]
    action: Option<String>,
    /// About objects of this kind
    #[arg(long, value_name = "KIND")]
    object_kind: Option<String>,
    /// About the object of this id
    #[arg(long, value_name = "ID")]
    object_id: Option<String>,
    /// By the request of this id (X-Request-Id)
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
    /// In this trace
    #[arg(long, value_name = "ID")]
    trace_id: Option<String>,
    /// What was done, or refused
    #[arg(long, value_name = "OUTCOME")]
    outcome: Option<String>,
    /// Not before this moment, such as 2026-11-21T12:00:00Z
    #[arg(long, value_name = "MOMENT")]
    since: Option<String>,
    /// Before this moment
    #[arg(long, value_name = "MOMENT")]
    until: Option<String>,
}

impl Filter {
    fn query(self) -> Vec<(&'static str, String)> {
        let all = [
            ("actor", self.actor),
            ("action", self.action),
            ("object_kind", self.object_kind),
            ("object_id", self.object_id),
            ("request_id", self.request_id),
            ("trace_id", self.trace_id),
            ("outcome", self.outcome),
            ("since", self.since),
            ("until", self.until),
        ];
        all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }
}

const ROWS: &[Column] = &[
    Column::new("ID", |item, _| text(item, "/id")),
    Column::new("WHEN", |item, now| ago(item, "/at", now)),
    Column::new("ACTION", |item, _| text(item, "/action")),
    Column::new("OUTCOME", |item, _| text(item, "/outcome")),
    Column::new("ACTOR", |item, _| text(item, "/actor")),
    Column::new("SOURCE", |item, _| text(item, "/source")),
    Column::new("OBJECT", |item, _| format!("{} {}", text(item, "/object_kind"), text(item, "/object_id"))),
    Column::new("DETAIL", |item, _| text(item, "/detail")),
];

const HEADS: &[Column] = &[
    Column::new("TENANT", |item, _| text(item, "/tenant")),
    Column::new("ROW", |item, _| text(item, "/seq")),
    Column::new("HASH", |item, _| text(item, "/hash")),
    Column::new("SIGNED", |item, now| ago(item, "/at", now)),
    Column::new("KEY", |item, _| text(item, "/key_id")),
];

/// Runs a verb on the audit log.
pub(super) fn run(session: &Session, verb: AuditVerb) -> Result<(), CliError> {
    match verb {
        AuditVerb::List { page, filter, which } => {
            let rows = session.list_at(which.platform, &["audit"], &page, &filter.query())?;
            session.print_list(&rows, ROWS, "trustfleet audit verify, also heads, export")
        }
        AuditVerb::Heads { platform, write_to } => {
            let heads = session.call_at(platform, Method::GET, &["audit", "heads"], None)?;
            let Some(path) = write_to else {
                if session.is_json() {
                    return output::print_json(&heads);
                }
                let items = heads["heads"].as_array().map_or(&[][..], Vec::as_slice);
                output::print(&output::table(items, HEADS, session.now()))?;
                session.hint("trustfleet audit heads --write-to FILE, and keep the file elsewhere");
                return Ok(());
            };
            let mut file = new_file(&path)?;
            writeln!(file, "{heads}").and_then(|()| file.sync_all()).map_err(CliError::Print)?;
            session.hint(&format!("keep {} elsewhere; later: trustfleet audit verify --heads FILE", path.display()));
            Ok(())
        }
        AuditVerb::Export { which, write_to } => {
            let mut out: Box<dyn io::Write> = match &write_to {
                Some(path) => Box::new(new_file(path)?),
                None => Box::new(io::stdout().lock()),
            };
            pages(session, which.platform, &mut |line| {
                if matches!(line, Line::End { .. }) {
                    return Ok(());
                }
                let text = serde_json::to_string(&line).map_err(|error| CliError::Usage(error.to_string()))?;
                writeln!(out, "{text}").map_err(CliError::Print)
            })?;
            out.flush().map_err(CliError::Print)
        }
        AuditVerb::Verify { which, file, heads, public_key } => {
            verify(session, which, file.as_deref(), heads.as_deref(), public_key.as_deref())
        }
    }
}

fn verify(
    session: &Session,
    which: Which,
    file: Option<&Path>,
    heads: Option<&Path>,
    public_key: Option<&str>,
) -> Result<(), CliError> {
    let heads: Option<Heads> = heads.map(read_heads).transpose()?;
    let wrong = || CliError::Usage("--public-key must be 64 hex digits, an Ed25519 public key".to_owned());
    let given = public_key.map(|text| hex::decode(text).map_err(|_| wrong())).transpose()?;
    if given.as_ref().is_some_and(|key| key.len() != 32) {
        return Err(wrong());
    }
    let is_pinned = given.is_some() || heads.is_some();
    let key = given.or_else(|| heads.as_ref().map(|heads| heads.public_key.clone()));
    let with_heads = heads.is_some();
    let mut verifier = Verifier::new(key, heads.map(|heads| heads.heads).unwrap_or_default(), session.now());
    match file {
        None => pages(session, which.platform, &mut |line| {
            verifier.line(line);
            Ok(())
        })?,
        Some(path) => {
            let unreadable = |source| CliError::File { path: path.to_owned(), source };
            let lines = BufReader::new(File::open(path).map_err(unreadable)?).lines();
            for (number, line) in lines.enumerate() {
                match serde_json::from_str(&line.map_err(unreadable)?) {
                    Ok(line) => verifier.line(line),
                    Err(_) => verifier.unreadable(number + 1),
                }
            }
        }
    }
    let report = verifier.finish();
    let findings: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
    if session.is_json() {
        output::print_json(&serde_json::json!({
            "rows": report.rows, "checkpoints": report.checkpoints, "end": report.end, "signed": report.signed,
            "open": report.open, "key_id": report.key_id, "findings": findings, "more_findings": report.more,
        }))?;
    } else {
        for finding in &findings {
            output::print(&output::plain(finding))?;
        }
        output::print(&format!(
            "{} rows, signed up to row {} by key {}; {} at the end not signed yet",
            report.rows, report.signed, report.key_id, report.open
        ))?;
        if !is_pinned {
            session.hint("the key is the log's own word: compare its id with the last part of a join token, or give --public-key");
        }
        if !with_heads {
            session.hint("whether rows were cut off at the end shows only beside heads that were kept: --heads FILE");
        }
    }
    let count = findings.len() as u64 + report.more;
    if count > 0 { Err(CliError::Tampered { findings: count }) } else { Ok(()) }
}

fn read_heads(path: &Path) -> Result<Heads, CliError> {
    let text = fs::read_to_string(path).map_err(|source| CliError::File { path: path.to_owned(), source })?;
    serde_json::from_str(&text).map_err(|error| CliError::Usage(format!("{} holds no heads: {error}", path.display())))
}

/// Every line of the whole log.
fn pages(
    session: &Session,
    platform: bool,
    take: &mut dyn FnMut(Line) -> Result<(), CliError>,
) -> Result<(), CliError> {
    let mut after: Option<String> = None;
    let mut is_first = true;
    loop {
        let mut query = vec![("limit", "1000".to_owned())];
        query.extend(after.take().map(|after| ("after", after)));
        let text = session.text_at(platform, &["audit", "export"], &query)?;
        for line in text.lines() {
            let line: Line = serde_json::from_str(line)
                .map_err(|error| CliError::Usage(format!("the answer is no export: {error}")))?;
            match &line {
                Line::End { next } => after.clone_from(next),
                // Once is enough for the whole.
                Line::Log(_) if !is_first => continue,
                _ => {}
            }
            is_first = false;
            take(line)?;
        }
        if after.is_none() {
            return Ok(());
        }
    }
}

fn new_file(path: &Path) -> Result<File, CliError> {
    File::options()
        .write(true)
        .create_new(true)
        .open(path)
        .map_err(|error| CliError::Usage(format!("{} cannot be made: {error}", path.display())))
}
