//! Verbs on what is configured once and used by many trustpoints: entities, CA servers, CMP policies.
//!
//! `update` reads the object, lays the flags over it and sends it back only if nobody changed it in between.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use ureq::http::Method;

use super::{
    args::{Page, san},
    change,
    error::CliError,
    forecast,
    output::{Column, ago, text},
    session::Session,
    spec::{Draft, certificates},
    statistics,
};

/// Verbs that entities, CA servers and policies have in common.
#[derive(Debug, Subcommand)]
pub enum Verb<F: Args> {
    /// List all
    List {
        #[command(flatten)]
        page: Page,
    },
    /// Show one
    Show {
        /// Its name
        name: String,
    },
    /// Make one, from flags, from a file, or from a file with flags over it
    Create {
        /// Its name: 1 to 63 letters, digits, '.', '_', '-'
        name: String,
        /// File with the fields, .toml or .json
        #[arg(long, short, value_name = "SPEC")]
        file: Option<PathBuf>,
        #[command(flatten)]
        flags: F,
    },
    /// Change one: flags change their fields, --file replaces all of them
    Update {
        /// Its name
        name: String,
        /// File with all the fields, .toml or .json
        #[arg(long, short, value_name = "SPEC")]
        file: Option<PathBuf>,
        /// Say what would change, on how many trustpoints, and change nothing
        #[arg(long)]
        dry_run: bool,
        /// Why: kept with the revision and in the audit log (of a change that waits for approval in the latter alone)
        #[arg(long, value_name = "TEXT", conflicts_with = "dry_run")]
        reason: Option<String>,
        #[command(flatten)]
        flags: F,
    },
    /// List its revisions, newest first: who made each, when and why
    Revisions {
        /// Its name
        name: String,
        #[command(flatten)]
        page: Page,
    },
    /// Delete one that no trustpoint uses
    Delete {
        /// Its name
        name: String,
    },
}

/// Verbs on entities.
pub(super) type EntityVerb = Verb<EntityFlags>;
/// Verbs on CA servers.
#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant, reason = "there is one of it, parsed from the command line")]
pub enum CaServerVerb {
    /// What all of them have
    #[command(flatten)]
    Common(Verb<CaServerFlags>),
    /// Show the renewals that come within 90 days, beside the budget of the CA
    Forecast {
        /// Its name
        name: String,
        /// Show the next hours one by one instead of the days, at most 2160
        #[arg(long, value_name = "N")]
        hours: Option<u16>,
    },
    /// List roots that follow its trust anchors, as the CA told agents; nobody trusts them for that
    Offered {
        /// Its name
        name: String,
        #[command(flatten)]
        page: Page,
    },
    /// Make an offered root a trust anchor, beside those that there are
    TakeRoot {
        /// Its name
        name: String,
        /// SHA-256 of the root, as `offered` shows it
        sha256: String,
        /// Why: kept with the revision and in the audit log (of a change that waits for approval in the latter alone)
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
}
/// Verbs on policies.
#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant, reason = "there is one of it, parsed from the command line")]
pub enum PolicyVerb {
    /// What all of them have
    #[command(flatten)]
    Common(Verb<PolicyFlags>),
    /// Show what the CMP sessions with a policy have done so far
    Statistics {
        /// Its name
        name: String,
    },
}

/// Fields of an entity.
#[derive(Debug, Args)]
pub struct EntityFlags {
    /// Subject, as '/C=DE/O=Example/CN={device.name}' or RFC 4514; also {device.serial}, {device.mac}, {label.NAME}
    #[arg(long, value_name = "DN")]
    subject: Option<String>,
    /// Alternative name, may be repeated: dns:, ip:, email:, uri:, dn: or upn: and the name, with placeholders
    #[arg(long = "san", value_name = "KIND:VALUE", value_parser = san)]
    sans: Vec<(String, String)>,
}

/// Fields of a CA server.
#[derive(Debug, Args)]
pub struct CaServerFlags {
    /// Name of the CA, the recipient of requests: '/C=DE/O=X/CN=CA' or RFC 4514; its order is kept
    #[arg(long, value_name = "DN")]
    ca_name: Option<String>,
    /// CMP URL of the primary server, such as http://ca.example:8080/pkix/
    #[arg(long, value_name = "URL")]
    primary_url: Option<String>,
    /// CMP URL used while the primary cannot be reached
    #[arg(long, value_name = "URL")]
    secondary_url: Option<String>,
    /// PEM file with trust anchors; may be repeated, and may hold several certificates
    #[arg(long = "trust-anchor", value_name = "FILE")]
    trust_anchors: Vec<PathBuf>,
    /// PEM file with certificates that verify signed answers [default: any that chains to an anchor and may sign CMP]
    #[arg(long = "verification-certificate", value_name = "FILE")]
    verification_certificates: Vec<PathBuf>,
    /// The CA revokes a certificate as soon as it has issued its successor: the new one stays in use also when services fail
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    revokes_on_issue: Option<bool>,
    /// Who asks the CA to revoke: device (each for itself), hand (nobody), or DEVICE/TRUSTPOINT of a registration authority
    #[arg(long, value_name = "WHO", value_parser = revocation)]
    revocation: Option<Value>,
}

/// Fields of a CMP policy.
#[derive(Debug, Args)]
pub struct PolicyFlags {
    /// Kind and size of the key: rsa-2048, rsa-3072, rsa-4096, ecdsa-p256, ecdsa-p384 or ed25519
    #[arg(long, value_name = "ALGORITHM")]
    key: Option<String>,
    /// Make a new key with every update (true) or keep it (false) [default of the API: true]
    #[arg(long, value_name = "BOOL")]
    regenerate_key: Option<bool>,
    /// How the first request proves where it comes from: message_authentication_code or signature
    #[arg(long, value_name = "HOW")]
    origin_authentication: Option<String>,
    /// PKI domain of the device whose identity signs the first request [default: its factory identity]; '' takes it back
    #[arg(long, value_name = "NAME")]
    authentication_domain: Option<String>,
    /// Sender of MAC-protected requests, with placeholders [default: the reference value]; '' takes it back
    #[arg(long, value_name = "DN")]
    sender: Option<String>,
    /// Recipient of requests [default: the CA's name]; '' takes it back
    #[arg(long, value_name = "DN")]
    recipient: Option<String>,
    /// MAC of requests: hmac-sha256, -sha384, -sha512, pbmac1-sha256, -sha384, -sha512, or hmac-sha1 where the tenant allows weak algorithms
    #[arg(long, value_name = "ALGORITHM")]
    mac_algorithm: Option<String>,
    /// Iterations of the MAC's one-way function, 500 to 100000
    #[arg(long, value_name = "N")]
    mac_iterations: Option<u32>,
    /// Accept HMAC-SHA1 in answers, where the tenant allows weak algorithms
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    accept_sha1_answers: Option<bool>,
    /// Ask the CA to do without certConf
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    implicit_confirm: Option<bool>,
    /// Put certificates into use by themselves (automatic), on command (manual), or as routers do it (router): by itself
    /// only what was renewed by itself
    #[arg(long, value_name = "HOW")]
    activation: Option<String>,
    /// Renew certificates by themselves
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    auto_update: Option<bool>,
    /// Renew when this part of the validity period has elapsed, percent [default of the API: 50]
    #[arg(long, value_name = "PERCENT", conflicts_with = "renew_days_before")]
    renew_at: Option<u8>,
    /// Renew so many days before a certificate ends
    #[arg(long, value_name = "DAYS")]
    renew_days_before: Option<u16>,
    /// Have renewed all of a fleet when this part of the validity period has elapsed, percent [default of the API: 80]
    #[arg(long, value_name = "PERCENT")]
    renew_latest: Option<u8>,
    /// Let agents that are cut off renew by themselves when this part of the validity period has elapsed, percent [default of
    /// the API: half of what is left after --renew-latest]
    #[arg(long, value_name = "PERCENT")]
    emergency_at: Option<u8>,
    /// How long they may after they were last told so, seconds; 0: never [default of the API: 30 days]
    #[arg(long, value_name = "SECONDS")]
    lease: Option<u32>,
    /// How certificates are written on the device: pem or der
    #[arg(long, value_name = "FORMAT")]
    file_format: Option<String>,
    /// Network interface of the device to connect to the CA through; '' takes it back
    #[arg(long, value_name = "NAME")]
    source_interface: Option<String>,
    /// Address of the device to connect to the CA from; '' takes it back
    #[arg(long, value_name = "IP")]
    source_address: Option<String>,
    /// Keep CA certificates fresh on the device, by genm
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    fresh_ca_certs: Option<bool>,
    /// Keep the CRL of the certificate's CA fresh on the device
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    fresh_crls: Option<bool>,
    /// Look for roots that follow the CA's trust anchors; they are offered, see `trustfleet ca-server offered`
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    look_for_roots: Option<bool>,
    /// How often the CA is asked for these, seconds, 10 to 2592000 [default of the API: 86400]
    #[arg(long, value_name = "SECONDS")]
    fresh_every: Option<u32>,
    /// Floor under re-issue: most certificates of a trustpoint in a time, 0 to 32; 0: any number [default of the API: 10]
    #[arg(long, value_name = "COUNT")]
    reissue_most: Option<u32>,
    /// That time, seconds [default of the API: 3600]
    #[arg(long, value_name = "SECONDS")]
    reissue_within: Option<u32>,
    /// Believe the time in verified answers of the CA, on a device that knows no better
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    ca_time: Option<bool>,
    /// Longest time for one request and its answer, seconds, 1 to 600
    #[arg(long, value_name = "SECONDS")]
    message_timeout: Option<u32>,
    /// Longest time for a whole transaction with all polling, seconds, up to 30 days
    #[arg(long, value_name = "SECONDS")]
    total_timeout: Option<u32>,
}

trait Flags {
    fn lay_over(self, draft: &mut Draft) -> Result<(), CliError>;
}

impl Flags for EntityFlags {
    fn lay_over(self, draft: &mut Draft) -> Result<(), CliError> {
        draft.set("subject", self.subject);
        draft.set_list("sans", self.sans.iter().map(|(kind, value)| json!({"kind": kind, "value": value})).collect());
        Ok(())
    }
}

impl Flags for CaServerFlags {
    fn lay_over(self, draft: &mut Draft) -> Result<(), CliError> {
        draft.set("ca_name", self.ca_name);
        draft.set("primary_url", self.primary_url);
        draft.set("secondary_url", self.secondary_url);
        draft.set_list("trust_anchors", certificates(&self.trust_anchors)?);
        draft.set_list("verification_certificates", certificates(&self.verification_certificates)?);
        draft.set("quirks.revokes_on_issue", self.revokes_on_issue);
        draft.set("revocation", self.revocation);
        Ok(())
    }
}

/// Who asks a CA to revoke, as the API has it.
fn revocation(text: &str) -> Result<Value, String> {
    match (text, text.split_once('/')) {
        ("device" | "hand", _) => Ok(json!({ "by": text })),
        (_, Some((device, trustpoint))) => {
            Ok(json!({ "by": "registration_authority", "device": device, "trustpoint": trustpoint }))
        }
        _ => Err("give device, hand, or DEVICE/TRUSTPOINT of a registration authority".to_owned()),
    }
}

impl Flags for PolicyFlags {
    fn lay_over(self, draft: &mut Draft) -> Result<(), CliError> {
        draft.set("key.algorithm", self.key);
        draft.set("key.regenerate", self.regenerate_key);
        draft.set("mac.algorithm", self.mac_algorithm);
        draft.set("mac.iterations", self.mac_iterations);
        draft.set("mac.accept_sha1_answers", self.accept_sha1_answers);
        draft.set("implicit_confirm", self.implicit_confirm);
        draft.set("activation", self.activation);
        draft.set("auto_update.enabled", self.auto_update);
        if self.renew_at.is_some() {
            draft.set("auto_update.days_before_expiry", Some(Value::Null));
        }
        if self.renew_days_before.is_some() {
            draft.set("auto_update.elapsed_percent", Some(Value::Null));
        }
        draft.set("auto_update.elapsed_percent", self.renew_at);
        draft.set("auto_update.days_before_expiry", self.renew_days_before);
        draft.set("auto_update.latest_percent", self.renew_latest);
        draft.set("auto_update.emergency_percent", self.emergency_at);
        draft.set("auto_update.lease_s", self.lease);
        draft.set("file_format", self.file_format);
        let or_none = |text: String| if text.is_empty() { Value::Null } else { text.into() };
        draft.set("origin_authentication", self.origin_authentication);
        draft.set("authentication_domain", self.authentication_domain.map(or_none));
        draft.set("sender", self.sender.map(or_none));
        draft.set("recipient", self.recipient.map(or_none));
        draft.set("source.interface", self.source_interface.map(or_none));
        draft.set("source.address", self.source_address.map(or_none));
        draft.set("upkeep.ca_certs", self.fresh_ca_certs);
        draft.set("upkeep.crls", self.fresh_crls);
        draft.set("upkeep.roots", self.look_for_roots);
        draft.set("upkeep.every_s", self.fresh_every);
        draft.set("reissue.most", self.reissue_most);
        draft.set("reissue.within_s", self.reissue_within);
        draft.set("ca_time", self.ca_time);
        draft.set("message_timeout_s", self.message_timeout);
        draft.set("total_timeout_s", self.total_timeout);
        Ok(())
    }
}

/// One of the three collections.
struct Collection {
    path: &'static str,
    /// The word of the command line.
    noun: &'static str,
    columns: &'static [Column],
    first: &'static [&'static str],
    after_create: &'static str,
}

const ENTITIES: Collection = Collection {
    path: "entities",
    noun: "entity",
    columns: &[
        Column::new("NAME", |item, _| text(item, "/name")),
        Column::new("SUBJECT", |item, _| text(item, "/subject")),
        Column::new("ALTERNATIVE NAMES", |item, _| sans(item)),
        Column::new("REVISION", |item, _| text(item, "/revision")),
        Column::new("UPDATED", |item, now| ago(item, "/updated_at", now)),
    ],
    first: &["name", "subject", "sans", "revision"],
    after_create: "trustfleet ca-server create, then trustfleet policy create",
};

const CA_SERVERS: Collection = Collection {
    path: "ca-servers",
    noun: "ca-server",
    columns: &[
        Column::new("NAME", |item, _| text(item, "/name")),
        Column::new("CA NAME", |item, _| text(item, "/ca_name")),
        Column::new("PRIMARY URL", |item, _| text(item, "/primary_url")),
        Column::new("SECONDARY URL", |item, _| text(item, "/secondary_url")),
        Column::new("ANCHORS", |item, _| count(item, "/trust_anchors")),
        Column::new("REVISION", |item, _| text(item, "/revision")),
        Column::new("UPDATED", |item, now| ago(item, "/updated_at", now)),
    ],
    first: &["name", "ca_name", "primary_url", "secondary_url", "trust_anchors", "revision"],
    after_create: "trustfleet policy create NAME --key ecdsa-p256",
};

const POLICIES: Collection = Collection {
    path: "policies",
    noun: "policy",
    columns: &[
        Column::new("NAME", |item, _| text(item, "/name")),
        Column::new("KEY", |item, _| text(item, "/key/algorithm")),
        Column::new("NEW KEY", |item, _| text(item, "/key/regenerate")),
        Column::new("MAC", |item, _| text(item, "/mac/algorithm")),
        Column::new("IMPLICIT CONFIRM", |item, _| text(item, "/implicit_confirm")),
        Column::new("ACTIVATION", |item, _| text(item, "/activation")),
        Column::new("RENEWED", |item, _| renewed(item)),
        Column::new("REVISION", |item, _| text(item, "/revision")),
        Column::new("UPDATED", |item, now| ago(item, "/updated_at", now)),
    ],
    first: &["name", "key", "mac", "implicit_confirm", "activation", "auto_update", "revision"],
    after_create: "trustfleet trustpoint create DEVICE NAME --entity E --ca-server C --policy P",
};

const REVISIONS: &[Column] = &[
    Column::new("REVISION", |item, _| text(item, "/revision")),
    Column::new("AUTHOR", |item, _| text(item, "/author")),
    Column::new("REASON", |item, _| text(item, "/reason")),
    Column::new("MADE", |item, now| ago(item, "/created_at", now)),
];

const OFFERED: &[Column] = &[
    Column::new("SHA256", |item, _| text(item, "/sha256")),
    Column::new("SUBJECT", |item, _| text(item, "/subject")),
    Column::new("ENDS", |item, _| text(item, "/not_after")),
    Column::new("TAKEN", |item, _| text(item, "/taken")),
    Column::new("OFFERED", |item, now| ago(item, "/offered_at", now)),
];

const DRY_RUN_FIRST: &[&str] =
    &["name", "revision", "before", "after", "trustpoints", "under_way", "renewals", "unready", "unready_examples"];

fn renewed(item: &Value) -> String {
    let auto = &item["auto_update"];
    let begin = match (auto["elapsed_percent"].as_u64(), auto["days_before_expiry"].as_u64()) {
        _ if auto["enabled"] != true => return "by hand".to_owned(),
        (_, Some(days)) => format!("{days} days before"),
        (percent, None) => format!("at {} %", percent.unwrap_or(50)),
    };
    format!("{begin}, at the latest {} %", text(item, "/auto_update/latest_percent"))
}

fn sans(item: &Value) -> String {
    let names = item["sans"].as_array().map_or(&[][..], Vec::as_slice);
    let names: Vec<_> = names.iter().map(|san| format!("{}:{}", text(san, "/kind"), text(san, "/value"))).collect();
    if names.is_empty() { "-".to_owned() } else { names.join(", ") }
}

fn count(item: &Value, pointer: &str) -> String {
    item.pointer(pointer).and_then(Value::as_array).map_or(0, Vec::len).to_string()
}

/// Runs a verb on entities.
pub(super) fn run_entity(session: &Session, verb: EntityVerb) -> Result<(), CliError> {
    run(session, &ENTITIES, verb)
}

/// Runs a verb on CA servers.
pub(super) fn run_ca_server(session: &Session, verb: CaServerVerb) -> Result<(), CliError> {
    match verb {
        CaServerVerb::Common(verb) => run(session, &CA_SERVERS, verb),
        CaServerVerb::Forecast { name, hours } => forecast::show(session, &name, hours),
        CaServerVerb::Offered { name, page } => {
            let list = session.list(&[CA_SERVERS.path, &name, "offered-roots"], &page, &[])?;
            session.print_list(
                &list,
                OFFERED,
                "compare SHA256 with what the CA says, then ca-server take-root NAME SHA256",
            )
        }
        CaServerVerb::TakeRoot { name, sha256, reason } => {
            let path = [CA_SERVERS.path, name.as_str(), "offered-roots", sha256.as_str(), "take"];
            let why: Vec<_> = reason.map(|reason| ("reason", reason)).into_iter().collect();
            let object = session.call_with(Method::POST, &path, None, &why, &[])?;
            print(session, &CA_SERVERS, &object, "jobs accepted from now on use this revision")
        }
    }
}

/// Runs a verb on policies.
pub(super) fn run_policy(session: &Session, verb: PolicyVerb) -> Result<(), CliError> {
    match verb {
        PolicyVerb::Common(verb) => run(session, &POLICIES, verb),
        PolicyVerb::Statistics { name } => {
            statistics::print(session, &["policies", &name], false, "trustfleet tenant statistics")
        }
    }
}

fn run<F: Args + Flags>(session: &Session, kind: &Collection, verb: Verb<F>) -> Result<(), CliError> {
    match verb {
        Verb::List { page } => {
            let list = session.list(&[kind.path], &page, &[])?;
            session.print_list(
                &list,
                kind.columns,
                &format!("trustfleet {} show NAME, also create, update, delete", kind.noun),
            )
        }
        Verb::Show { name } => {
            let object = session.read(&[kind.path, &name])?;
            session.print_object(&object, kind.first, "`--output json` prints what `update --file` takes")
        }
        Verb::Create { name, file, flags } => {
            let mut draft = file.map_or_else(|| Ok(Draft::default()), |path| Draft::from_file(&path))?;
            flags.lay_over(&mut draft)?;
            let object = session.call(Method::POST, &[kind.path], Some(&draft.body_named(&name)))?;
            print(session, kind, &object, kind.after_create)
        }
        Verb::Update { name, file, dry_run, reason, flags } => {
            let present = session.read(&[kind.path, &name])?;
            let mut draft = file.map_or_else(|| Ok(Draft::from_object(&present)), |path| Draft::from_file(&path))?;
            flags.lay_over(&mut draft)?;
            let revision = [("If-Match", format!("\"{}\"", text(&present, "/revision")))];
            let path = [kind.path, name.as_str()];
            if dry_run {
                let path = [kind.path, name.as_str(), "dry-run"];
                let said = session.call_with(Method::POST, &path, Some(&draft.body()), &[], &revision)?;
                return session.print_object(&said, DRY_RUN_FIRST, "the same without --dry-run changes it");
            }
            let why: Vec<_> = reason.map(|reason| ("reason", reason)).into_iter().collect();
            let object = session.call_with(Method::PUT, &path, Some(&draft.body()), &why, &revision)?;
            print(session, kind, &object, "jobs accepted from now on use this revision")
        }
        Verb::Revisions { name, page } => {
            let list = session.list(&[kind.path, &name, "revisions"], &page, &[])?;
            session.print_list(&list, REVISIONS, "`--output json` shows all of each revision")
        }
        Verb::Delete { name } => {
            let answer = session.call(Method::DELETE, &[kind.path, &name], None)?;
            if change::is_pending(&answer) {
                return change::print(session, &answer);
            }
            session.print_deleted(kind.noun, &name)
        }
    }
}

/// Prints the object, or the change that waits instead of it.
fn print(session: &Session, kind: &Collection, answer: &Value, next: &str) -> Result<(), CliError> {
    if change::is_pending(answer) {
        change::print(session, answer)
    } else {
        session.print_object(answer, kind.first, next)
    }
}
