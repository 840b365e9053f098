//! The lines of an import of MAC references and secrets, as JSON objects or as CSV. Nothing of a line that cannot be read
//! is repeated: a secret may stand in any column.

use std::collections::HashMap;

use serde::Deserialize;
use trustfleet_model::secret::SecretText;

/// Most lines of one import.
pub(super) const LINES_MAX: usize = 1_000;
const COLUMNS: [&str; 4] = ["device", "trustpoint", "reference", "secret"];

/// One line.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    pub(super) device: String,
    pub(super) trustpoint: String,
    pub(super) reference: String,
    pub(super) secret: SecretText,
    #[serde(default)]
    pub(super) one_time: Option<bool>,
}

/// A line's number, and what it says or why it cannot be read.
pub(super) type Line = (u64, Result<Entry, String>);

/// Lines of JSON; empty ones are passed over.
pub(super) fn json_lines(bytes: &[u8]) -> Vec<Line> {
    let lines = (1_u64..).zip(bytes.split(|byte| *byte == b'\n')).filter(|(_, line)| !line.trim_ascii().is_empty());
    lines
        .map(|(number, line)| {
            // serde's own message can quote the value.
            let entry = serde_json::from_slice(line).map_err(|error| match error.classify() {
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

/// Lines of CSV under headings.
///
/// # Errors
/// A column that the headings lack.
pub(super) fn csv_lines(bytes: &[u8]) -> Result<Vec<Line>, &'static str> {
    let mut reader = csv::ReaderBuilder::new().from_reader(bytes);
    let headings = reader.headers().cloned().unwrap_or_default();
    if let Some(lacks) = COLUMNS.into_iter().find(|needed| !headings.iter().any(|heading| heading == *needed)) {
        return Err(lacks);
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
                let why = match error.kind() {
                    csv::ErrorKind::UnequalLengths { .. } => "it does not have as many columns as the headings",
                    _ => "it cannot be read as UTF-8",
                };
                lines.push((number, Err(why.to_owned())));
            }
        }
    }
    Ok(lines)
}

/// Refuses each line whose trustpoint stands on an earlier one: lines are worked on side by side, and which one came last
/// would be chance.
pub(super) fn refuse_repeated(lines: &mut [Line]) {
    let mut first = HashMap::new();
    for (number, entry) in lines {
        let Ok(known) = entry else { continue };
        let earlier = first.entry((known.device.clone(), known.trustpoint.clone())).or_insert(*number);
        if earlier != number {
            *entry = Err(format!("its trustpoint stands on line {earlier} already"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_and_json_lines_say_the_same() {
        let csv = b"device,trustpoint,reference,secret,one_time\nap-1,mgmt,r1,\"a,\"\"b\",true\nap-2,mgmt,r2,x,\n";
        let json = b"{\"device\":\"ap-1\",\"trustpoint\":\"mgmt\",\"reference\":\"r1\",\"secret\":\"a,\\\"b\",\"one_time\":true}\n\n\
                     {\"device\":\"ap-2\",\"trustpoint\":\"mgmt\",\"reference\":\"r2\",\"secret\":\"x\"}\n";
        let told = |lines: Vec<Line>| -> Vec<_> {
            let entries = lines.into_iter().map(|(_, entry)| entry.unwrap());
            entries.map(|e| (e.device, e.reference, e.secret.expose().clone(), e.one_time)).collect()
        };
        let expected = vec![
            ("ap-1".to_owned(), "r1".to_owned(), "a,\"b".to_owned(), Some(true)),
            ("ap-2".to_owned(), "r2".to_owned(), "x".to_owned(), None),
        ];
        assert_eq!((told(csv_lines(csv).unwrap()), told(json_lines(json))), (expected.clone(), expected));
    }

    #[test]
    fn s13_a_line_that_cannot_be_read_is_told_by_its_number_and_nothing_of_it_is_repeated() {
        let csv = csv_lines(
            b"device,trustpoint,reference,secret\nap-1,mgmt,r,melon-1\nap-2,mgmt,melon-2\nap-3,m,r,melon-3,x\nmelon,\xff,a,b\n",
        );
        let json = json_lines(b"{\"device\": \"melon-1\", \"secret\": 7}\nmelon-2\n{\"melon-3\": 1}\n\xff\n");
        for (lines, numbers) in [(csv.unwrap(), vec![3, 4, 5]), (json, vec![1, 2, 3, 4])] {
            let wrong: Vec<(u64, String)> =
                lines.into_iter().filter_map(|(number, line)| Some((number, line.err()?))).collect();
            assert_eq!(wrong.iter().map(|(number, _)| *number).collect::<Vec<_>>(), numbers, "{wrong:?}");
            assert!(!format!("{wrong:?}").contains("melon"), "{wrong:?}");
        }
        assert_eq!(csv_lines(b"ap-1,mgmt,r,melon-1\n").unwrap_err(), "device");
        assert_eq!(csv_lines(b"").unwrap_err(), "device");
    }

    #[test]
    fn a_trustpoint_that_stands_on_two_lines_is_taken_from_the_first_alone() {
        let mut lines = csv_lines(b"device,trustpoint,reference,secret\na,t,r,1\nb,t,r,2\na,t,r,3\na,u,r,4\n").unwrap();
        refuse_repeated(&mut lines);
        let wrong: Vec<_> = lines.into_iter().filter_map(|(number, line)| Some((number, line.err()?))).collect();
        assert_eq!(wrong, [(4, "its trustpoint stands on line 2 already".to_owned())]);
    }
}
