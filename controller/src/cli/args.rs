//! Options that every verb shares, and the small languages of durations and pairs.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand, ValueEnum};

/// A noun with the connection's options and one of its verbs.
#[derive(Debug, Args)]
#[command(after_help = super::EXIT_CODES)]
pub struct Noun<V: Subcommand> {
    #[command(flatten)]
    pub(super) connection: Connection,
    #[command(subcommand)]
    pub(super) verb: V,
}

/// How the controller is reached, and how answers are shown.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Connection")]
pub(super) struct Connection {
    /// The controller's URL
    #[arg(long, global = true, value_name = "URL", env = "TRUSTFLEET_URL", default_value = "http://127.0.0.1:8080")]
    pub(super) url: String,
    /// Bearer token [env: TRUSTFLEET_TOKEN]; it shows in the list of processes, so prefer the variable or the file
    #[arg(long, global = true, value_name = "TOKEN")]
    pub(super) token: Option<String>,
    /// File with the bearer token [env: TRUSTFLEET_TOKEN_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,
    /// Tenant to work in
    #[arg(long, global = true, value_name = "NAME", env = "TRUSTFLEET_TENANT")]
    pub(super) tenant: Option<String>,
    /// PEM file with the CA certificates that the controller's own TLS certificate must chain to [default: the system's]
    #[arg(long, global = true, value_name = "FILE", env = "TRUSTFLEET_CA_FILE")]
    pub(super) ca_file: Option<PathBuf>,
    /// Send the token over plain http to another machine, too: anybody on the way can read and use it
    #[arg(long, global = true)]
    pub(super) insecure_plaintext: bool,
    /// How answers are printed: as a table, or as the API's JSON
    #[arg(long, short, global = true, value_enum, value_name = "FORMAT", env = "TRUSTFLEET_OUTPUT", default_value_t)]
    pub(super) output: Output,
}

/// How answers are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

/// Labels that devices must have.
#[derive(Clone, Debug, Args)]
pub struct Selector {
    /// Only devices with this label; may be repeated, then with all of them
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = pair)]
    labels: Vec<(String, String)>,
}

impl Selector {
    /// As the API's query has it; none: any device.
    pub(super) fn query(&self) -> Option<String> {
        let pairs: Vec<_> = self.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        (!pairs.is_empty()).then(|| pairs.join(","))
    }
}

/// When certificates end.
#[derive(Clone, Debug, Args)]
pub struct Expiry {
    /// Only those that end within this time from now, such as 30d or 12h; also those that have ended
    #[arg(long, value_name = "TIME", value_parser = duration, conflicts_with = "expires_before")]
    expires_within: Option<Duration>,
    /// Only those that end before this moment, such as 2027-01-01T00:00:00Z
    #[arg(long, value_name = "MOMENT")]
    expires_before: Option<String>,
    /// Only those that end at or after this moment
    #[arg(long, value_name = "MOMENT")]
    expires_after: Option<String>,
}

impl Expiry {
    /// As the API's query has it.
    pub(super) fn query(self, now: jiff::Timestamp) -> [(&'static str, Option<String>); 2] {
        let within = self.expires_within.and_then(|time| now.checked_add(time).ok()).map(|moment| moment.to_string());
        [("expires_before", within.or(self.expires_before)), ("expires_after", self.expires_after)]
    }
}

/// The filters that were given.
pub(super) fn given<const N: usize>(filters: [(&'static str, Option<String>); N]) -> Vec<(&'static str, String)> {
    filters.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

/// Which part of a list is wanted.
#[derive(Clone, Debug, Args)]
pub struct Page {
    /// Most items, 1 to 1000
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(super) limit: u16,
    /// Go on after this cursor, which the former page ended with
    #[arg(long, value_name = "CURSOR")]
    pub(super) after: Option<String>,
    /// The whole list, however long
    #[arg(long, conflicts_with_all = ["limit", "after"])]
    pub(super) all: bool,
}

/// Reads `90s`, `15m`, `2h`, `30d` or plain seconds.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let (number, factor) = match text.char_indices().last() {
        Some((i, 's')) => (&text[..i], 1),
        Some((i, 'm')) => (&text[..i], 60),
        Some((i, 'h')) => (&text[..i], 3_600),
        Some((i, 'd')) => (&text[..i], 86_400),
        _ => (text, 1),
    };
    let seconds = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    seconds
        .filter(|seconds| *seconds > 0)
        .map(Duration::from_secs)
        .ok_or_else(|| "give a number and a unit, such as 90s, 15m, 2h or 30d".to_owned())
}

/// Reads `KEY=VALUE`.
pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("give KEY=VALUE, such as site=berlin".to_owned()),
    }
}

/// Reads `KIND:VALUE` of an alternative name; the kinds and limits are the controller's to check.
pub(super) fn san(text: &str) -> Result<(String, String), String> {
    match text.split_once(':') {
        Some((kind, value)) if !kind.is_empty() && !value.is_empty() => Ok((kind.to_owned(), value.to_owned())),
        _ => Err("give KIND:VALUE, such as dns:ap-1.example; kinds are dns, ip, email, uri, dn, upn".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_with_their_units() {
        for (text, seconds) in [("90s", 90), ("15m", 900), ("2h", 7_200), ("30d", 2_592_000), ("45", 45)] {
            assert_eq!(duration(text).unwrap(), Duration::from_secs(seconds), "{text}");
        }
        for bad in ["", "0", "m", "-1s", "1.5h", "99999999999999999999d", "18446744073709551615d", "2 h", "3ü"] {
            assert!(duration(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn pairs_and_names_are_split_at_the_first_mark() {
        assert_eq!(pair("a=b=c").unwrap(), ("a".to_owned(), "b=c".to_owned()));
        assert_eq!(san("uri:http://x:1/").unwrap(), ("uri".to_owned(), "http://x:1/".to_owned()));
        assert!(pair("site").is_err() && pair("=x").is_err() && san("ap-1.example").is_err());
    }
}
