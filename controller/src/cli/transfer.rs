//! Devices and trustpoints in bulk: a file of JSON lines goes to the controller in parts, and comes from it as it is read.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, BufWriter, Write},
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use super::{error::CliError, output, session::Session};

const NDJSON: &str = "application/x-ndjson";
/// Lines of one request: half of what the controller takes.
const PART_LINES: usize = 500;
/// Bytes of one request, unless a single line is longer.
const PART_BYTES: usize = 400 * 1024;

/// What became of the lines so far.
#[derive(Default)]
struct Tally {
    created: u64,
    updated: u64,
    unchanged: u64,
    refused: Vec<Value>,
}

impl Tally {
    fn count(&mut self, mut answer: Value, before: u64) {
        match answer["result"].as_str() {
            Some("created") => self.created += 1,
            Some("updated") => self.updated += 1,
            Some("unchanged") => self.unchanged += 1,
            _ => {
                answer["line"] = (answer["line"].as_u64().unwrap_or(0) + before).into();
                self.refused.push(answer);
            }
        }
    }
}

/// Sends a file of lines to `noun`, part by part.
pub(super) fn import(session: &Session, noun: &str, file: &Path, dry_run: bool) -> Result<(), CliError> {
    let unreadable = |source| CliError::File { path: file.to_owned(), source };
    let reader: Box<dyn BufRead> = if file == Path::new("-") {
        Box::new(BufReader::new(io::stdin()))
    } else {
        Box::new(BufReader::new(File::open(file).map_err(unreadable)?))
    };
    let mut tally = Tally::default();
    let (mut part, mut lines, mut before) = (String::new(), 0_usize, 0_u64);
    let mut send = |part: &str, before: u64| -> Result<(), CliError> {
        let query = [("dry_run", dry_run.to_string())];
        for answer in session.post_lines(&[noun, "import"], (NDJSON, part), &query)? {
            tally.count(answer, before);
        }
        Ok(())
    };
    for line in reader.lines() {
        let line = line.map_err(unreadable)?;
        if lines > 0 && (lines == PART_LINES || part.len() + line.len() > PART_BYTES) {
            send(&part, before)?;
            before += lines as u64;
            (part, lines) = (String::new(), 0);
        }
        part.push_str(&line);
        part.push('\n');
        lines += 1;
    }
    if !part.trim().is_empty() {
        send(&part, before)?;
    }
    tell(session, &tally, dry_run)
}

fn tell(session: &Session, tally: &Tally, dry_run: bool) -> Result<(), CliError> {
    let Tally { created, updated, unchanged, refused } = tally;
    if session.is_json() {
        let told = json!({
            "dry_run": dry_run, "created": created, "updated": updated, "unchanged": unchanged, "refused": refused
        });
        output::print_json(&told)?;
    } else {
        for line in refused {
            let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
            let of = line["name"].as_str().map(|name| format!("{name}: ")).unwrap_or_default();
            let said = format!("line {}: {of}{} ({})", line["line"], text("detail"), text("code"));
            eprintln!("{}", output::plain(&said));
        }
        let would = if dry_run { "would be " } else { "" };
        output::print(&format!(
            "{would}created {created}, {would}updated {updated}, unchanged {unchanged}, refused {}",
            refused.len()
        ))?;
    }
    match refused.len() {
        0 => Ok(()),
        lines => Err(CliError::Lines { lines }),
    }
}

/// Writes the lines of `noun` to a file, or to stdout.
pub(super) fn export(
    session: &Session,
    noun: &str,
    filters: &[(&str, String)],
    write_to: Option<PathBuf>,
) -> Result<(), CliError> {
    let Some(path) = write_to else {
        let mut stdout = io::stdout().lock();
        return session.copy_lines(&[noun, "export"], filters, &mut stdout);
    };
    let failed = |source| CliError::File { path: path.clone(), source };
    let mut writer = BufWriter::new(File::create(&path).map_err(failed)?);
    session.copy_lines(&[noun, "export"], filters, &mut writer)?;
    writer.flush().map_err(failed)
}
