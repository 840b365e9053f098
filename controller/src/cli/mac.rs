//! Verbs on MAC secrets of trustpoints: one by one, or many from a file.
//!
//! A file goes to the controller in parts, which takes each line as a whole or not at all. What is wrong with one is told by
//! its number; no message repeats anything of a line but the names of a trustpoint that is there.

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
};

use clap::Subcommand;
use serde_json::json;
use ureq::http::Method;
use zeroize::Zeroizing;

use super::{
    error::CliError,
    output,
    secret::{MAC_SECRET_VARIABLE, mac_secret},
    session::Session,
};

const NDJSON: &str = "application/x-ndjson";
const CSV: &str = "text/csv";
/// Lines of one request: half of what the controller takes, so that the longest fit, too.
const PART_LINES: usize = 500;

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

/// Runs a verb on MAC secrets.
pub(super) fn run(session: &Session, verb: SecretVerb) -> Result<(), CliError> {
    match verb {
        SecretVerb::Set { device, trustpoint, reference, secret_file, one_time } => {
            let secret = mac_secret(secret_file.as_deref())?.ok_or_else(|| {
                CliError::Usage(format!("no MAC secret: give --secret-file FILE or set {MAC_SECRET_VARIABLE}"))
            })?;
            let body = json!({ "reference": reference, "secret": secret.expose(), "one_time": one_time });
            let path = ["devices", &device, "trustpoints", &trustpoint, "mac"];
            let answer = session.call(Method::PUT, &path, Some(&body))?;
            session.warn(&answer);
            let next = format!("trustfleet trustpoint enroll {device} {trustpoint} --wait");
            session.print_object(&answer, &["reference", "one_time"], &next)
        }
        SecretVerb::Import { file, one_time } => import(session, &file, one_time),
    }
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
    let (media, parts) = if is_json { (NDJSON, json_parts(&text)) } else { (CSV, csv_parts(&text)) };
    if parts.is_empty() {
        return Err(CliError::Usage(format!("{} holds no secrets", file.display())));
    }
    let (mut taken, mut refused, mut weak) = (0_u64, Vec::new(), 0_u64);
    for part in parts {
        let query = [("one_time", one_time.to_string())];
        let answers = session.post_lines(&["trustpoints", "mac-import"], (media, &part.text), &query)?;
        for answer in answers {
            let line = answer["line"].as_u64().unwrap_or(0) + part.before;
            if answer["taken"] == true {
                taken += 1;
                weak += u64::from(answer["warnings"].as_array().is_some_and(|warnings| !warnings.is_empty()));
            } else {
                let said = |key| answer[key].as_str().unwrap_or_default();
                let of = answer["device"].as_str().map(|device| format!("{device}/{}: ", said("trustpoint")));
                refused.push((line, format!("{}{} ({})", of.unwrap_or_default(), said("detail"), said("code"))));
            }
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

/// Lines that go in one request.
struct Part {
    /// Lines of the file before the first of it, less those of its headings.
    before: u64,
    text: Zeroizing<String>,
}

fn json_parts(text: &str) -> Vec<Part> {
    let lines: Vec<&str> = text.lines().collect();
    let parts = (0_u64..).step_by(PART_LINES).zip(lines.chunks(PART_LINES));
    let parts = parts.map(|(before, lines)| Part { before, text: Zeroizing::new(lines.join("\n")) });
    parts.filter(|part| !part.text.trim().is_empty()).collect()
}

/// The headings stand before each part. What cannot be read is left to the controller, which says so.
fn csv_parts(text: &str) -> Vec<Part> {
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(text.as_bytes());
    // Where each record begins: line, and byte.
    let mut begins = Vec::new();
    let mut record = csv::ByteRecord::new();
    let _ = reader.byte_headers();
    while reader.read_byte_record(&mut record).unwrap_or(false) {
        let place = record.position().map(|place| (place.line(), usize::try_from(place.byte()).unwrap_or(usize::MAX)));
        begins.extend(place);
    }
    let Some(&(first_line, first_byte)) = begins.first() else {
        let text = Zeroizing::new(text.to_owned());
        return if text.trim().is_empty() { Vec::new() } else { vec![Part { before: 0, text }] };
    };
    let headings = text.get(..first_byte).unwrap_or_default();
    let parts = begins.chunks(PART_LINES).enumerate().map(|(n, chunk)| {
        let (line, from) = chunk.first().copied().unwrap_or_default();
        let until = begins.get((n + 1) * PART_LINES).map_or(text.len(), |(_, byte)| *byte);
        let lines = text.get(from..until).unwrap_or_default();
        Part { before: line - first_line, text: Zeroizing::new([headings, lines].concat()) }
    });
    parts.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_file_goes_in_parts_that_know_their_place_in_it() {
        let records: String = (0..=PART_LINES).map(|n| format!("ap-{n},mgmt,r,\"a\nb\"\n")).collect();
        let parts = csv_parts(&format!("device,trustpoint,reference,secret\n{records}"));
        assert_eq!(parts.len(), 2);
        assert_eq!(parts[0].before, 0);
        // Each record has two lines here.
        assert_eq!(parts[1].before, 2 * u64::try_from(PART_LINES).unwrap());
        let last = format!("device,trustpoint,reference,secret\nap-{PART_LINES},mgmt,r,\"a\nb\"\n");
        assert_eq!(*parts[1].text, last);

        let lines = "{}\n".repeat(PART_LINES + 1);
        let parts = json_parts(&lines);
        assert_eq!(parts.iter().map(|part| part.before).collect::<Vec<_>>(), [0, u64::try_from(PART_LINES).unwrap()]);
        assert_eq!((&**parts[1].text, parts[0].text.lines().count()), ("{}", PART_LINES));
    }

    #[test]
    fn a_file_without_secrets_is_no_part_and_one_without_headings_is_left_to_the_controller() {
        assert!(csv_parts("\n").is_empty() && json_parts("\n\n").is_empty());
        assert_eq!(*csv_parts("ap-1,mgmt,r,melon").remove(0).text, "ap-1,mgmt,r,melon");
        let crooked = "device,trustpoint,reference,secret\na,b\nap-2,m,r,x\n";
        assert_eq!(*csv_parts(crooked).remove(0).text, crooked);
    }
}
