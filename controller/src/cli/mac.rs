//! Verbs on MAC secrets of trustpoints: one by one, or many from a file.
//!
//! A line of a file is taken as a whole or not at all, and what is wrong with it is told by its number. No message repeats
//! anything of a line but the names of device and trustpoint.

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
};

use clap::Subcommand;
use serde::Deserialize;
use serde_json::{Value, json};
use trustfleet_model::secret::SecretText;
use ureq::http::Method;
use zeroize::Zeroizing;

use super::{
    error::CliError,
    output,
    secret::{MAC_SECRET_VARIABLE, mac_secret},
    session::Session,
};

/// Verbs on MAC secrets.
#[derive(Debug, Subcommand)]
pub enum SecretVerb {
    /// Give a trustpoint another MAC reference and secret; the former secret is deleted
    Set {
        /// The device
        device: String,
        /// The trustpoint
        trustpoint: String,
        /// Reference value by which the CA finds the secret
        #[arg(long, value_name = "TEXT")]
        reference: String,
        /// File with the secret, `-` for stdin [env: TRUSTFLEET_MAC_SECRET]
        #[arg(long, value_name = "FILE")]
        secret_file: Option<PathBuf>,
        /// Delete the secret when an enrolment by it has succeeded
        #[arg(long)]
        one_time: bool,
    },
    /// Give many trustpoints theirs, from a file; exit code 1 when a line was refused
    #[command(
        after_help = "FILE is CSV with a line of headings, or one JSON object a line (.ndjson, .jsonl); `-` is CSV from \
        stdin. Columns: device, trustpoint, reference, secret, and if wanted one_time (true or false). A line is taken as a \
        whole or not at all; the others go on."
    )]
    Import {
        /// The file
        file: PathBuf,
        /// Delete each secret when an enrolment by it has succeeded, where its line says nothing else
        #[arg(long)]
        one_time: bool,
    },
}

/// One line of a file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    device: String,
    trustpoint: String,
    reference: String,
    secret: SecretText,
    #[serde(default)]
    one_time: Option<bool>,
}

/// Runs a verb on MAC secrets.
pub(super) fn run(session: &Session, verb: SecretVerb) -> Result<(), CliError> {
    match verb {
        SecretVerb::Set { device, trustpoint, reference, secret_file, one_time } => {
            let secret = mac_secret(secret_file.as_deref())?.ok_or_else(|| {
                CliError::Usage(format!("no MAC secret: give --secret-file FILE or set {MAC_SECRET_VARIABLE}"))
            })?;
            let entry = Entry { device, trustpoint, reference, secret, one_time: Some(one_time) };
            let answer = set(session, &entry, one_time)?;
            session.warn(&answer);
            let next = format!("trustfleet trustpoint enroll {} {} --wait", entry.device, entry.trustpoint);
            session.print_object(&answer, &["reference", "one_time"], &next)
        }
        SecretVerb::Import { file, one_time } => import(session, &file, one_time),
    }
}

fn set(session: &Session, entry: &Entry, one_time: bool) -> Result<Value, CliError> {
    let body = json!({
        "reference": entry.reference, "secret": entry.secret.expose(), "one_time": entry.one_time.unwrap_or(one_time),
    });
    session.call(Method::PUT, &["devices", &entry.device, "trustpoints", &entry.trustpoint, "mac"], Some(&body))
}

fn import(session: &Session, file: &Path, one_time: bool) -> Result<(), CliError> {
    let unreadable = |source| CliError::File { path: file.to_owned(), source };
    let mut text = Zeroizing::new(String::new());
    if file == Path::new("-") {
        std::io::stdin().read_to_string(&mut text).map_err(unreadable)?;
    } else {
        *text = fs::read_to_string(file).map_err(unreadable)?;
    }
    let is_json = file.extension().is_some_and(|extension| extension == "ndjson" || extension == "jsonl");
    let lines = if is_json { json_lines(&text) } else { csv_lines(&text) };
    if lines.is_empty() {
        return Err(CliError::Usage(format!("{} holds no secrets", file.display())));
    }
    let (mut taken, mut refused, mut weak) = (0_u64, Vec::new(), 0_u64);
    for (number, line) in lines {
        let entry = match line {
            Ok(entry) => entry,
            Err(why) => {
                refused.push((number, why));
                continue;
            }
        };
        match set(session, &entry, one_time) {
            Ok(answer) => {
                taken += 1;
                weak += u64::from(answer["warnings"].as_array().is_some_and(|warnings| !warnings.is_empty()));
            }
            // Nobody answers: the next line would only wait for the same.
            Err(error @ (CliError::Unreachable { .. } | CliError::NotTrustfleet { .. })) => return Err(error),
            Err(error) => refused.push((number, format!("{}/{}: {error}", entry.device, entry.trustpoint))),
        }
    }
    if session.is_json() {
        let refused: Vec<_> = refused.iter().map(|(number, why)| json!({ "line": number, "why": why })).collect();
        output::print_json(&json!({ "taken": taken, "weak": weak, "refused": refused }))?;
    } else {
        for (number, why) in &refused {
            eprintln!("line {number}: {}", output::plain(why));
        }
        if weak > 0 {
            eprintln!("warning: {weak} of them have less than 128 bits of entropy at most: use longer random ones");
        }
        output::print(&format!("{taken} taken, {} refused", refused.len()))?;
    }
    match refused.len() {
        0 => Ok(()),
        lines => Err(CliError::Lines { lines }),
    }
}

type Line = (u64, Result<Entry, String>);

fn json_lines(text: &str) -> Vec<Line> {
    let lines = (1_u64..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(number, line)| {
            // serde's own message can quote the value.
            let entry = serde_json::from_str(line).map_err(|error| match error.classify() {
                serde_json::error::Category::Data => {
                    "it needs device, trustpoint, reference and secret, all of them texts, \
                                                      and may have one_time, true or false"
                        .to_owned()
                }
                _ => format!("it is not JSON (column {})", error.column()),
            });
            (number, entry)
        })
        .collect()
}

fn csv_lines(text: &str) -> Vec<Line> {
    let mut reader = csv::ReaderBuilder::new().from_reader(text.as_bytes());
    let headings = reader.headers().cloned().unwrap_or_default();
    for needed in ["device", "trustpoint", "reference", "secret"] {
        if !headings.iter().any(|heading| heading == needed) {
            // The first line may well be a secret's: nothing of it is repeated.
            return vec![(1, Err(format!("the headings lack {needed:?}: the first line must name the columns")))];
        }
    }
    let mut lines = Vec::new();
    for record in reader.records() {
        match record {
            Ok(record) => {
                let number = record.position().map_or(0, csv::Position::line);
                let entry = record.deserialize::<Entry>(Some(&headings));
                lines.push((number, entry.map_err(|_| "it has a column that is unknown or cannot be read".to_owned())));
            }
            Err(error) => {
                let number = error.position().map_or(0, csv::Position::line);
                lines.push((number, Err("it does not have as many columns as the headings".to_owned())));
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_and_json_lines_say_the_same() {
        let csv =
            csv_lines("device,trustpoint,reference,secret,one_time\nap-1,mgmt,r1,\"a,\"\"b\",true\nap-2,mgmt,r2,x,\n");
        let json = json_lines(
            "{\"device\":\"ap-1\",\"trustpoint\":\"mgmt\",\"reference\":\"r1\",\"secret\":\"a,\\\"b\",\"one_time\":true}\n\n\
             {\"device\":\"ap-2\",\"trustpoint\":\"mgmt\",\"reference\":\"r2\",\"secret\":\"x\"}\n",
        );
        let told = |lines: Vec<Line>| -> Vec<_> {
            let entries = lines.into_iter().map(|(_, entry)| entry.unwrap());
            entries.map(|e| (e.device, e.reference, e.secret.expose().clone(), e.one_time)).collect()
        };
        let expected = vec![
            ("ap-1".to_owned(), "r1".to_owned(), "a,\"b".to_owned(), Some(true)),
            ("ap-2".to_owned(), "r2".to_owned(), "x".to_owned(), None),
        ];
        assert_eq!((told(csv), told(json)), (expected.clone(), expected));
    }

    #[test]
    fn s13_a_line_that_cannot_be_read_is_told_by_its_number_and_nothing_of_it_is_repeated() {
        let csv = csv_lines(
            "device,trustpoint,reference,secret\nap-1,mgmt,r,melon-1\nap-2,mgmt,melon-2\nap-3,m,r,melon-3,x\n",
        );
        let json = json_lines("{\"device\": \"melon-1\", \"secret\": 7}\nmelon-2\n{\"melon-3\": 1}\n");
        let headless = csv_lines("ap-1,mgmt,r,melon-1\n");
        for (lines, numbers) in [(csv, vec![3, 4]), (json, vec![1, 2, 3]), (headless, vec![1])] {
            let wrong: Vec<(u64, String)> =
                lines.into_iter().filter_map(|(number, line)| Some((number, line.err()?))).collect();
            assert_eq!(wrong.iter().map(|(number, _)| *number).collect::<Vec<_>>(), numbers, "{wrong:?}");
            assert!(!format!("{wrong:?}").contains("melon"), "{wrong:?}");
        }
    }
}
