//! Verbs on campaigns: one change of many trustpoints, in waves.

use std::{thread, time::Duration};

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Map, Value, json};
use ureq::http::Method;

use super::{
    args::{Page, duration, pair},
    change,
    error::CliError,
    output::{self, Column, ago, plain, text},
    session::Session,
};

/// Verbs on campaigns.
#[derive(Debug, Subcommand)]
pub enum CampaignVerb {
    /// List campaigns, newest first
    List {
        /// Only in this state: preparing, running, paused, stopped, completed, cancelled, rolling_back, rolled_back
        #[arg(long, value_name = "STATE")]
        state: Option<String>,
        #[command(flatten)]
        page: Page,
    },
    /// Show a campaign: how far each wave is, and why members are not done
    Show {
        /// Its name
        name: String,
    },
    /// Watch a campaign until it ends, stops or is paused
    Watch {
        /// Its name
        name: String,
    },
    /// List the trustpoints of a campaign, and what became of them
    Members {
        /// Its name
        name: String,
        /// Only of this wave, from 1
        #[arg(long, value_name = "N")]
        wave: Option<u32>,
        /// Only in this state, such as failed or unreachable
        #[arg(long, value_name = "STATE")]
        state: Option<String>,
        /// Only for this reason, in one word
        #[arg(long, value_name = "CODE")]
        code: Option<String>,
        #[command(flatten)]
        page: Page,
    },
    /// Begin a campaign; at least one option must say which trustpoints
    Start(Box<Start>),
    /// Hold a campaign: what is under way goes on, nothing new is asked for
    Pause(WithReason),
    /// Let a campaign go on that is paused or has stopped
    Resume {
        #[command(flatten)]
        what: WithReason,
        /// Ask once more for members that failed or were out of reach
        #[arg(long)]
        retry: bool,
    },
    /// End a campaign; what was done stays
    Cancel(WithReason),
    /// Take back what a campaign did, as far as devices keep what was before
    RollBack(WithReason),
    /// Forget a campaign that has ended
    Delete {
        /// Its name
        name: String,
    },
}

/// A campaign, and why something is done to it.
#[derive(Debug, Args)]
pub struct WithReason {
    /// Its name
    name: String,
    /// Why, for the audit log
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// What a campaign is about.
#[derive(Debug, Args)]
pub struct Start {
    /// Its name: 1 to 63 letters, digits, '.', '_', '-'
    name: String,
    /// What is done
    #[arg(long, value_enum)]
    action: Action,
    /// Label that devices must have; may be repeated, then all of them
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = pair, help_heading = "Which trustpoints")]
    labels: Vec<(String, String)>,
    /// Name of the trustpoint
    #[arg(long, value_name = "NAME", help_heading = "Which trustpoints")]
    trustpoint: Option<String>,
    /// Those with this CA server
    #[arg(long, value_name = "NAME", help_heading = "Which trustpoints")]
    of_ca_server: Option<String>,
    /// Those with this policy
    #[arg(long, value_name = "NAME", help_heading = "Which trustpoints")]
    of_policy: Option<String>,
    /// Those whose certificate in use has this issuer, exactly as `certificate list` shows it
    #[arg(long, value_name = "DN", help_heading = "Which trustpoints")]
    issued_by: Option<String>,
    /// Those whose certificate in use has this kind of key, as `certificate list` shows it
    #[arg(long, value_name = "KIND", help_heading = "Which trustpoints")]
    with_key: Option<String>,
    /// Those whose certificate in use ends before this moment
    #[arg(long, value_name = "TIME", help_heading = "Which trustpoints")]
    expires_before: Option<String>,
    /// With change: the new policy
    #[arg(long, value_name = "NAME")]
    policy: Option<String>,
    /// With change: the new CA server
    #[arg(long, value_name = "NAME")]
    ca_server: Option<String>,
    /// With change: how it is asked for [default: kur; cr with a new CA server]
    #[arg(long, value_name = "ir|cr|kur")]
    request: Option<String>,
    /// With revoke: why, such as keyCompromise or superseded
    #[arg(long, value_name = "WORD")]
    revocation_reason: Option<String>,
    /// Leave the certificates staged: another campaign activates them
    #[arg(long)]
    stage_only: bool,
    /// Sizes of the first waves, such as 1,5%,25%; all that is left is the last one
    #[arg(long, value_name = "SIZES", value_delimiter = ',', help_heading = "How fast")]
    waves: Vec<String>,
    /// Most members at work at a time [default: 100]
    #[arg(long, value_name = "N", help_heading = "How fast")]
    max_in_flight: Option<u32>,
    /// How long a wave is watched after it has come to its threshold
    #[arg(long, value_name = "TIME", value_parser = duration, help_heading = "How fast")]
    soak: Option<Duration>,
    /// How long a member may take before it counts as out of reach [default: 1d]
    #[arg(long, value_name = "TIME", value_parser = duration, help_heading = "How fast")]
    patience: Option<Duration>,
    /// Go before everything else at the CA, and through freeze windows
    #[arg(long, help_heading = "How fast")]
    urgent: bool,
    /// So many of a wave, percent, must be seen in service before the next one begins [default: 95]
    #[arg(long, value_name = "PERCENT", help_heading = "When it goes on")]
    success: Option<u8>,
    /// So many of a wave may fail, such as 5% or 3; one more stops it [default: 5%]
    #[arg(long, value_name = "N|N%", help_heading = "When it goes on")]
    failures: Option<String>,
    /// Count what nobody can see in service as seen
    #[arg(long, help_heading = "When it goes on")]
    accept_unverifiable: bool,
    /// Say what it would touch, and begin nothing
    #[arg(long)]
    dry_run: bool,
    /// Why, for the audit log
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// What a campaign does.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Action {
    /// A new certificate by key update
    Renew,
    /// The same, with a new key in any case
    Rekey,
    /// Another policy or CA server, and a new certificate by it
    Change,
    /// Put into use what is staged
    Activate,
    /// Give devices and their services the next anchors of their CA server's roll-over
    Anchors,
    /// Have the certificate in use revoked by its CA
    Revoke,
}

impl Action {
    const fn word(self) -> &'static str {
        match self {
            Self::Renew => "renew",
            Self::Rekey => "rekey",
            Self::Change => "change",
            Self::Activate => "activate",
            Self::Anchors => "anchors",
            Self::Revoke => "revoke",
        }
    }
}

const CAMPAIGNS: &[Column] = &[
    Column::new("NAME", |item, _| text(item, "/name")),
    Column::new("ACTION", |item, _| text(item, "/action")),
    Column::new("STATE", |item, _| text(item, "/state")),
    Column::new("WAVE", |item, _| text(item, "/wave")),
    Column::new("MEMBERS", |item, _| text(item, "/members")),
    Column::new("BY", |item, _| text(item, "/created_by")),
    Column::new("MADE", |item, now| ago(item, "/created_at", now)),
    Column::new("WHY", |item, _| text(item, "/state_reason")),
];

const MEMBERS: &[Column] = &[
    Column::new("DEVICE", |item, _| text(item, "/device")),
    Column::new("TRUSTPOINT", |item, _| text(item, "/trustpoint")),
    Column::new("WAVE", |item, _| text(item, "/wave")),
    Column::new("STATE", |item, _| text(item, "/state")),
    Column::new("CHANGED", |item, now| ago(item, "/updated_at", now)),
    Column::new("JOB", |item, _| text(item, "/job_id")),
    Column::new("WHY", |item, _| text(item, "/reason")),
];

const WAVES: &[Column] = &[
    Column::new("WAVE", |item, _| text(item, "/wave")),
    Column::new("MEMBERS", |item, _| text(item, "/members")),
    Column::new("WAITING", |item, _| sum(item, &["pending"])),
    Column::new("AT WORK", |item, _| sum(item, &["asking", "in_flight", "activating", "to_undo", "undoing"])),
    Column::new("IN SERVICE", |item, _| sum(item, &["verified"])),
    Column::new("NOT TO BE SEEN", |item, _| sum(item, &["unverifiable"])),
    Column::new("FAILED", |item, _| sum(item, &["failed", "undo_failed"])),
    Column::new("OUT OF REACH", |item, _| sum(item, &["unreachable"])),
    Column::new("OTHERS", |item, _| sum(item, &["skipped", "cancelled", "undone"])),
];

const REASONS: &[Column] = &[
    Column::new("WAVE", |item, _| text(item, "/wave")),
    Column::new("STATE", |item, _| text(item, "/state")),
    Column::new("MEMBERS", |item, _| text(item, "/members")),
    Column::new("CODE", |item, _| text(item, "/code")),
    Column::new("WHY", |item, _| text(item, "/reason")),
];

fn sum(wave: &Value, states: &[&str]) -> String {
    states.iter().filter_map(|state| wave["states"][state].as_u64()).sum::<u64>().to_string()
}

const FIRST: &[&str] = &["name", "action", "state", "state_reason", "wave", "members"];
/// What a screen of one campaign shows of it, beside the tables.
const SHOWN: &[&str] = &[
    "name",
    "action",
    "state",
    "state_reason",
    "wave",
    "members",
    "policy",
    "ca_server",
    "request",
    "reason",
    "select",
    "waves",
    "max_in_flight",
    "success_percent",
    "failures_allowed",
    "accept_unverifiable",
    "soak_s",
    "patience_s",
    "urgent",
    "created_by",
    "created_at",
    "finished_at",
];
/// How often a campaign that is watched is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Runs a verb on campaigns.
pub(super) fn run(session: &Session, verb: CampaignVerb) -> Result<(), CliError> {
    match verb {
        CampaignVerb::List { state, page } => {
            let filters: Vec<_> = state.into_iter().map(|state| ("state", state)).collect();
            let list = session.list(&["campaigns"], &page, &filters)?;
            session.print_list(&list, CAMPAIGNS, "trustfleet campaign show NAME")
        }
        CampaignVerb::Show { name } => show(session, &session.read(&["campaigns", &name])?),
        CampaignVerb::Watch { name } => watch(session, &name),
        CampaignVerb::Members { name, wave, state, code, page } => {
            let filters = [("wave", wave.map(|wave| wave.to_string())), ("state", state), ("code", code)];
            let filters: Vec<_> = filters.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
            let list = session.list(&["campaigns", &name, "members"], &page, &filters)?;
            session.print_list(&list, MEMBERS, "trustfleet job show JOB tells how far one is, and why it failed")
        }
        CampaignVerb::Start(start) => self::start(session, *start),
        CampaignVerb::Pause(what) => change_state(session, &what, "pause", None),
        CampaignVerb::Resume { what, retry } => {
            change_state(session, &what, "resume", Some(&json!({ "retry": retry })))
        }
        CampaignVerb::Cancel(what) => change_state(session, &what, "cancel", None),
        CampaignVerb::RollBack(what) => change_state(session, &what, "roll-back", None),
        CampaignVerb::Delete { name } => {
            session.call(Method::DELETE, &["campaigns", &name], None)?;
            session.print_deleted("campaign", &name)
        }
    }
}

fn change_state(session: &Session, what: &WithReason, verb: &str, body: Option<&Value>) -> Result<(), CliError> {
    let query: Vec<_> = what.reason.iter().map(|reason| ("reason", reason.clone())).collect();
    let campaign = session.call_with(Method::POST, &["campaigns", &what.name, verb], body, &query, &[])?;
    show(session, &campaign)
}

fn start(session: &Session, start: Start) -> Result<(), CliError> {
    let labels: Map<String, Value> = start.labels.into_iter().map(|(key, value)| (key, value.into())).collect();
    let mut select = Map::from_iter([("labels".to_owned(), Value::Object(labels))]);
    let of = [
        ("trustpoint", start.trustpoint),
        ("ca_server", start.of_ca_server),
        ("policy", start.of_policy),
        ("issuer", start.issued_by),
        ("key", start.with_key),
        ("expires_before", start.expires_before),
    ];
    select.extend(of.into_iter().filter_map(|(field, text)| Some((field.to_owned(), Value::from(text?)))));
    let mut body = json!({
        "name": start.name, "select": select, "action": start.action.word(), "stage_only": start.stage_only,
        "waves": start.waves, "accept_unverifiable": start.accept_unverifiable, "urgent": start.urgent,
    });
    let said = [
        ("policy", start.policy.map(Value::from)),
        ("ca_server", start.ca_server.map(Value::from)),
        ("request", start.request.map(Value::from)),
        ("reason", start.revocation_reason.map(Value::from)),
        ("max_in_flight", start.max_in_flight.map(Value::from)),
        ("soak_s", start.soak.map(|soak| soak.as_secs().into())),
        ("patience_s", start.patience.map(|patience| patience.as_secs().into())),
        ("success_percent", start.success.map(Value::from)),
        ("failures_allowed", start.failures.map(Value::from)),
    ];
    for (field, value) in said {
        if let Some(value) = value {
            body[field] = value;
        }
    }
    let mut query: Vec<_> = start.reason.into_iter().map(|reason| ("reason", reason)).collect();
    if start.dry_run {
        query.push(("dry_run", "true".to_owned()));
        let preview = session.call_with(Method::POST, &["campaigns"], Some(&body), &query, &[])?;
        return session.print_object(&preview, &["trustpoints", "waves"], "the same without --dry-run begins it");
    }
    let made = session.call_with(Method::POST, &["campaigns"], Some(&body), &query, &[])?;
    if change::is_pending(&made) {
        return change::print(session, &made);
    }
    session.print_object(&made, FIRST, &format!("trustfleet campaign watch {}", start.name))
}

/// A campaign with its waves and reasons as tables.
fn show(session: &Session, campaign: &Value) -> Result<(), CliError> {
    if session.is_json() {
        return output::print_json(campaign);
    }
    let shown: Map<String, Value> =
        SHOWN.iter().filter_map(|field| Some(((*field).to_owned(), campaign.get(*field)?.clone()))).collect();
    output::print(&output::fields(&Value::Object(shown), SHOWN, session.now()))?;
    let waves = campaign["progress"].as_array().map_or(&[][..], Vec::as_slice);
    if !waves.is_empty() {
        output::print("")?;
        output::print(&output::table(waves, WAVES, session.now()))?;
    }
    let reasons: Vec<Value> = waves
        .iter()
        .flat_map(|wave| {
            let of = wave["reasons"].as_array().cloned().unwrap_or_default();
            of.into_iter().map(|mut reason| {
                reason["wave"] = wave["wave"].clone();
                reason
            })
        })
        .collect();
    if !reasons.is_empty() {
        output::print("")?;
        output::print(&output::table(&reasons, REASONS, session.now()))?;
    }
    session.hint(&next(campaign));
    Ok(())
}

fn next(campaign: &Value) -> String {
    let name = text(campaign, "/name");
    match campaign["state"].as_str() {
        Some("stopped") => format!(
            "trustfleet campaign members {name} --state failed; then trustfleet campaign resume {name} [--retry], or roll-back"
        ),
        Some("paused") => format!("trustfleet campaign resume {name}, or roll-back, or cancel"),
        Some("preparing" | "running" | "rolling_back") => format!("trustfleet campaign watch {name}"),
        _ => format!("trustfleet campaign members {name}"),
    }
}

fn watch(session: &Session, name: &str) -> Result<(), CliError> {
    let mut last = String::new();
    loop {
        let campaign = session.read(&["campaigns", name])?;
        let state = text(&campaign, "/state");
        let line = progress_line(&campaign);
        if !session.is_json() && line != last {
            eprintln!("{}", plain(&line));
            last = line;
        }
        match state.as_str() {
            "preparing" | "running" | "rolling_back" => thread::sleep(LOOK_EVERY),
            "completed" | "rolled_back" => return show(session, &campaign),
            _ => {
                show(session, &campaign)?;
                let why = campaign["state_reason"].as_str().unwrap_or("without a reason");
                let text = format!("the campaign {name} is {state}: {}", plain(why));
                return Err(CliError::JobFailed { text, next: next(&campaign) });
            }
        }
    }
}

fn progress_line(campaign: &Value) -> String {
    let waves = campaign["progress"].as_array().map_or(&[][..], Vec::as_slice);
    let of = |states: &[&str]| -> u64 {
        waves.iter().flat_map(|wave| states.iter().filter_map(|state| wave["states"][state].as_u64())).sum()
    };
    format!(
        "{} wave {}: {} of {} in service, {} not to be seen, {} at work, {} waiting, {} failed, {} out of reach",
        text(campaign, "/state"),
        text(campaign, "/wave"),
        of(&["verified"]),
        text(campaign, "/members"),
        of(&["unverifiable"]),
        of(&["asking", "in_flight", "activating", "undoing"]),
        of(&["pending", "to_undo"]),
        of(&["failed", "undo_failed"]),
        of(&["unreachable"]),
    )
}
