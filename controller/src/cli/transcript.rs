//! A transcript as a table, and what its words mean below it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;

use super::{
    error::CliError,
    output::{self, Column, plain, text},
    session::Session,
};

const ENTRIES: &[Column] = &[
    Column::new("TIME", |item, _| time(item)),
    Column::new("", |item, _| direction(item)),
    Column::new("MESSAGE", |item, _| message(item)),
    Column::new("BYTES", |item, _| text(item, "/bytes")),
    Column::new("STATUS", |item, _| text(item, "/status")),
    Column::new("WHAT IT SAYS", |item, _| says(item)),
];

/// Prints the transcript of a job.
pub(super) fn print(session: &Session, id: &str) -> Result<(), CliError> {
    let found = session.read(&["jobs", id, "transcript"])?;
    if session.is_json() {
        return output::print_json(&found);
    }
    output::print(&screen(&found, session.now()))?;
    session.hint(&format!("trustfleet job show {}", plain(id)));
    Ok(())
}

fn screen(found: &Value, now: Timestamp) -> String {
    if let Some(why) = found["missing"].as_str() {
        return match why {
            "not_ended" => "the job has not ended: its agent tells at the end what went to and fro".to_owned(),
            "removed" => "it is not kept any more: see transcript_days of the tenant".to_owned(),
            _ => "there is none: nothing was sent to a CA, or the agent is too old to tell".to_owned(),
        };
    }
    let items = found["entries"].as_array().map_or(&[][..], Vec::as_slice);
    let mut shown = output::table(items, ENTRIES, now);
    for (name, meaning) in meanings(items) {
        shown.push_str(&format!("\n{}: {}", plain(name), plain(meaning)));
    }
    shown
}

/// The failInfo words of all entries with their meanings, each once.
fn meanings(items: &[Value]) -> BTreeMap<&str, &str> {
    let all = items.iter().filter_map(|item| item["fail_info"].as_array()).flatten();
    all.filter_map(|bit| Some((bit["name"].as_str()?, bit["meaning"].as_str()?))).collect()
}

fn time(item: &Value) -> String {
    let at = text(item, "/at");
    // Two decimals of a second are what a person compares with a server's log.
    match at.parse::<Timestamp>() {
        Ok(moment) => format!("{moment:.2}"),
        Err(_) => at,
    }
}

fn direction(item: &Value) -> String {
    match item["what"].as_str() {
        Some("sent") => "->",
        Some("received") => "<-",
        Some("no_answer") => "-x",
        Some("folded") => "…",
        _ => "",
    }
    .to_owned()
}

fn message(item: &Value) -> String {
    match item["what"].as_str() {
        Some("resumed") => "(agent started again)".to_owned(),
        Some("folded") => {
            let polls = item.pointer("/requests/pollReq").and_then(Value::as_u64).unwrap_or(0);
            format!("… {polls} polls …")
        }
        _ => text(item, "/kind"),
    }
}

fn says(item: &Value) -> String {
    let mut parts = Vec::new();
    let names: Vec<_> =
        item["fail_info"].as_array().into_iter().flatten().filter_map(|bit| bit["name"].as_str()).collect();
    if !names.is_empty() {
        parts.push(format!("failInfo {}", names.join(", ")));
    }
    if let Some(seconds) = item["check_after_s"].as_u64() {
        parts.push(format!("come back after {seconds} s"));
    }
    if let Some(said) = item["status_string"].as_str() {
        parts.push(format!("the CA says {said:?}"));
    }
    if let Some(code) = item["code"].as_str() {
        parts.push(format!("{code}: {}", text(item, "/detail")));
    }
    if item["what"] == "folded" {
        let until = text(item, "/until");
        let failed = item["no_answers"].as_u64().filter(|count| *count > 0);
        let failed = failed.map(|count| format!(", {count} tries without an answer")).unwrap_or_default();
        parts.push(format!("until {until}{failed}"));
    }
    if parts.is_empty() { "-".to_owned() } else { parts.join("; ") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_transcript_is_a_readable_table_with_its_words_explained() {
        let found = json!({"missing": null, "entries": [
            {"what": "sent", "at": "2026-11-21T12:00:00.123456Z", "kind": "ir", "bytes": 812},
            {"what": "no_answer", "at": "2026-11-21T12:00:01Z", "kind": "ir", "code": "ca_unreachable", "detail": "refused"},
            {"what": "folded", "at": "2026-11-21T12:00:02Z", "until": "2026-11-21T13:00:00Z",
                "requests": {"pollReq": 312}, "responses": {"pollRep": 312}, "no_answers": 2, "resumes": 0},
            {"what": "received", "at": "2026-11-21T13:00:01Z", "kind": "ip", "bytes": 90, "status": "rejection",
                "fail_info": [{"name": "badPOP", "meaning": "the proof did not verify"}],
                "status_string": "no\u{1b}[2J"},
        ]});
        let shown = screen(&found, Timestamp::UNIX_EPOCH);
        let lines: Vec<&str> = shown.lines().collect();
        assert!(lines[1].contains("2026-11-21T12:00:00.12Z") && lines[1].contains("->  ir"), "{shown}");
        assert!(lines[2].contains("ca_unreachable: refused"), "{shown}");
        assert!(lines[3].contains("… 312 polls …") && lines[3].contains("2 tries without an answer"), "{shown}");
        assert!(lines[4].contains("failInfo badPOP"), "{shown}");
        assert_eq!(lines[5], "badPOP: the proof did not verify");
        assert!(!shown.contains('\u{1b}'), "{shown:?}");
    }

    #[test]
    fn why_there_is_none_is_a_sentence() {
        for (why, word) in [("not_ended", "has not ended"), ("removed", "transcript_days"), ("not_told", "too old")] {
            assert!(screen(&json!({"missing": why, "entries": []}), Timestamp::UNIX_EPOCH).contains(word));
        }
    }
}
