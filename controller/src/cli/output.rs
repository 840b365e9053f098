//! Tables, fields and times as people read them, and JSON as programs do.
//!
//! Nothing that comes from the controller reaches the terminal with its control characters.

use std::io::{self, Write as _};

use comfy_table::{ContentArrangement, Table, presets};
use jiff::{Timestamp, ToSpan as _, tz::TimeZone};
use serde_json::Value;
use trustfleet_pki::certificate::Certificate;

use super::error::CliError;

/// What stands where there is nothing.
const NOTHING: &str = "-";

/// One column of a list.
pub(super) struct Column {
    /// Its heading.
    pub(super) title: &'static str,
    /// Its cell for one item.
    pub(super) cell: fn(&Value, Timestamp) -> String,
}

impl Column {
    /// A column.
    pub(super) const fn new(title: &'static str, cell: fn(&Value, Timestamp) -> String) -> Self {
        Self { title, cell }
    }
}

/// A table of items; a sentence when there are none.
pub(super) fn table(items: &[Value], columns: &[Column], now: Timestamp) -> String {
    if items.is_empty() {
        return "there are none".to_owned();
    }
    let mut table = frame();
    table.set_header(columns.iter().map(|column| column.title));
    for item in items {
        table.add_row(columns.iter().map(|column| plain(&(column.cell)(item, now))));
    }
    trimmed(&table)
}

/// The fields of one object, one on each line: `first` in that order, then the others.
pub(super) fn fields(object: &Value, first: &[&str], now: Timestamp) -> String {
    let mut rows = Vec::new();
    if let Some(map) = object.as_object() {
        let named = first.iter().filter_map(|name| map.get_key_value(*name));
        let others = map.iter().filter(|(name, _)| !first.contains(&name.as_str()));
        for (name, value) in named.chain(others) {
            flatten(name, value, now, &mut rows);
        }
    }
    let mut table = frame();
    for (name, value) in rows {
        table.add_row([plain(&name), value]);
    }
    trimmed(&table)
}

fn frame() -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table
}

/// Without the frame's margins: the first column begins at the left edge, and no line ends in blanks.
fn trimmed(table: &Table) -> String {
    let text = table.to_string();
    let lines: Vec<_> = text.lines().map(|line| line.strip_prefix(' ').unwrap_or(line).trim_end()).collect();
    lines.join("\n")
}

fn flatten(name: &str, value: &Value, now: Timestamp, rows: &mut Vec<(String, String)>) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (inner, value) in map {
                flatten(&format!("{name}.{inner}"), value, now, rows);
            }
        }
        Value::Array(items) if items.iter().any(|item| item.is_object() || is_pem(item)) => {
            for (i, item) in items.iter().enumerate() {
                flatten(&format!("{name}[{i}]"), item, now, rows);
            }
        }
        value => rows.push((name.to_owned(), scalar(name, value, now))),
    }
}

fn scalar(name: &str, value: &Value, now: Timestamp) -> String {
    if is_pem(value) {
        return value.as_str().map_or_else(String::new, pem_in_words);
    }
    let text = words(value);
    match (text.parse::<Timestamp>(), name.rsplit('.').next()) {
        (Ok(moment), Some("not_after" | "expires_at")) => {
            format!("{} ({})", seconds(moment), until_in_words(moment, now))
        }
        (Ok(moment), Some(word)) if word.ends_with("_at") || word == "since" => {
            format!("{} ({})", seconds(moment), relative(moment, now))
        }
        _ => plain(&text),
    }
}

fn is_pem(value: &Value) -> bool {
    value.as_str().is_some_and(|text| text.trim_start().starts_with("-----BEGIN"))
}

/// What a person wants to know of certificates instead of their base64.
fn pem_in_words(pem: &str) -> String {
    match Certificate::pem_bundle(pem) {
        Ok(certificates) => {
            let names = certificates
                .iter()
                .map(|certificate| format!("{}, until {}", certificate.subject(), seconds(certificate.not_after())));
            plain(&names.collect::<Vec<_>>().join("; "))
        }
        Err(_) => "(PEM)".to_owned(),
    }
}

/// A value of a cell by its JSON pointer.
pub(super) fn text(item: &Value, pointer: &str) -> String {
    item.pointer(pointer).map_or_else(|| NOTHING.to_owned(), words)
}

fn words(value: &Value) -> String {
    match value {
        Value::Null => NOTHING.to_owned(),
        Value::String(text) if text.is_empty() => NOTHING.to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => NOTHING.to_owned(),
        Value::Array(items) => items.iter().map(words).collect::<Vec<_>>().join(", "),
        Value::Object(map) if map.is_empty() => NOTHING.to_owned(),
        Value::Object(map) => map.iter().map(|(k, v)| format!("{k}={}", words(v))).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

/// A moment in the past, relative to now.
pub(super) fn ago(item: &Value, pointer: &str, now: Timestamp) -> String {
    moment(item, pointer).map_or_else(|| NOTHING.to_owned(), |moment| relative(moment, now))
}

/// The end of a certificate or token: the day, and how far away it is.
pub(super) fn expiry(item: &Value, pointer: &str, now: Timestamp) -> String {
    moment(item, pointer).map_or_else(|| NOTHING.to_owned(), |moment| expiry_in_words(moment, now))
}

/// When something is done by itself: `in 5 days`, or `now`.
pub(super) fn due(item: &Value, pointer: &str, now: Timestamp) -> String {
    moment(item, pointer).map_or_else(
        || NOTHING.to_owned(),
        |moment| if moment <= now { "now".to_owned() } else { relative(moment, now) },
    )
}

fn expiry_in_words(moment: Timestamp, now: Timestamp) -> String {
    let day = moment.to_zoned(TimeZone::UTC).date();
    format!("{day} ({})", until_in_words(moment, now))
}

fn until_in_words(moment: Timestamp, now: Timestamp) -> String {
    let mark = if moment <= now { "EXPIRED " } else { "" };
    format!("{mark}{}", relative(moment, now))
}

fn moment(item: &Value, pointer: &str) -> Option<Timestamp> {
    item.pointer(pointer)?.as_str()?.parse().ok()
}

fn seconds(moment: Timestamp) -> String {
    moment.checked_sub(moment.subsec_nanosecond().nanoseconds()).unwrap_or(moment).to_string()
}

/// "in 12 days", "3 min ago", "now".
pub(super) fn relative(moment: Timestamp, now: Timestamp) -> String {
    let distance = moment.as_second() - now.as_second();
    let far = match distance.unsigned_abs() {
        0 => return "now".to_owned(),
        s @ 1..120 => format!("{s} s"),
        s @ 120..7_200 => format!("{} min", s / 60),
        s @ 7_200..172_800 => format!("{} h", s / 3_600),
        s => format!("{} days", s / 86_400),
    };
    if distance > 0 { format!("in {far}") } else { format!("{far} ago") }
}

/// Text without control characters: what came over the network must not steer the terminal.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Prints to stdout; a reader that went away (`| head`) is no fault.
pub(super) fn print(text: &str) -> Result<(), CliError> {
    match writeln!(io::stdout().lock(), "{text}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(CliError::Print(error)),
        _ => Ok(()),
    }
}

/// Prints JSON to stdout, indented.
pub(super) fn print_json(value: &Value) -> Result<(), CliError> {
    print(&format!("{value:#}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn an_expiry_is_shown_as_a_day_and_how_far_away_it_is() {
        let now = at("2026-11-21T12:00:00Z");
        let item = json!({"not_after": "2027-11-21T12:00:00Z", "old": "2026-11-18T11:00:00Z"});
        assert_eq!(expiry(&item, "/not_after", now), "2027-11-21 (in 365 days)");
        assert_eq!(expiry(&item, "/old", now), "2026-11-18 (EXPIRED 3 days ago)");
        assert_eq!(expiry(&item, "/missing", now), "-");
    }

    #[test]
    fn relative_times_change_their_unit_with_the_distance() {
        let now = at("2026-11-21T12:00:00Z");
        for (moment, words) in [
            ("2026-11-21T12:00:00Z", "now"),
            ("2026-11-21T11:59:01Z", "59 s ago"),
            ("2026-11-21T12:05:00Z", "in 5 min"),
            ("2026-11-20T12:00:00Z", "24 h ago"),
            ("2026-11-24T12:00:00Z", "in 3 days"),
        ] {
            assert_eq!(relative(at(moment), now), words);
        }
    }

    #[test]
    fn a_table_has_a_heading_and_one_line_for_each_item() {
        let items = [json!({"name": "ap-1", "serial": null}), json!({"name": "gw-1a", "serial": "SN\u{1b}[31m-2"})];
        let columns = [
            Column::new("NAME", |item, _| text(item, "/name")),
            Column::new("SERIAL", |item, _| text(item, "/serial")),
        ];
        let shown = table(&items, &columns, at("2026-11-21T12:00:00Z"));
        assert_eq!(shown, "NAME   SERIAL\nap-1   -\ngw-1a  SN\u{fffd}[31m-2");
        assert_eq!(table(&[], &columns, at("2026-11-21T12:00:00Z")), "there are none");
    }

    #[test]
    fn the_fields_of_an_object_are_flattened_with_the_important_ones_first() {
        let now = at("2026-11-21T12:00:00Z");
        let object = json!({"active": {"serial": "0A", "not_after": "2026-12-01T12:00:00Z"}, "name": "radius",
            "labels": {}, "sans": [{"kind": "dns", "value": "x"}], "updated_at": "2026-11-21T11:00:00.5Z"});
        let shown = fields(&object, &["name"], now);
        let lines: Vec<Vec<_>> = shown.lines().map(|line| line.splitn(2, ' ').map(str::trim).collect()).collect();
        assert_eq!(lines[0], ["name", "radius"]);
        assert!(lines.contains(&vec!["active.not_after", "2026-12-01T12:00:00Z (in 10 days)"]), "{shown}");
        assert!(lines.contains(&vec!["sans[0].value", "x"]), "{shown}");
        assert!(lines.contains(&vec!["updated_at", "2026-11-21T11:00:00Z (60 min ago)"]), "{shown}");
    }
}
