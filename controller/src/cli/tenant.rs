//! Verbs on tenants and on the two kinds of tokens.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};
use ureq::http::Method;

use super::{
    args::{Page, duration, pair},
    error::CliError,
    output::{Column, ago, expiry, text},
    secret::NewFile,
    session::Session,
    spec::Draft,
    statistics,
};

/// Verbs on tenants; they need a platform administrator's token.
#[derive(Debug, Subcommand)]
pub enum TenantVerb {
    /// List the tenants
    List {
        #[command(flatten)]
        page: Page,
    },
    /// Show a tenant
    Show {
        /// Its name
        name: String,
    },
    /// Make a tenant
    Create {
        /// Name in URLs: 1 to 63 letters, digits, '.', '_', '-'
        name: String,
        /// Name for people
        #[arg(long, value_name = "TEXT")]
        display_name: Option<String>,
        /// Let policies of this tenant use weak algorithms such as HMAC-SHA1
        #[arg(long)]
        allow_weak_algorithms: bool,
        /// Let changes of CA servers and their anchors need another administrator's approval
        #[arg(long)]
        four_eyes: bool,
        #[command(flatten)]
        keeps: KeepFlags,
    },
    /// Change a tenant's settings
    Update {
        /// Its name
        name: String,
        /// Name for people
        #[arg(long, value_name = "TEXT")]
        display_name: Option<String>,
        /// Whether policies of this tenant may use weak algorithms such as HMAC-SHA1
        #[arg(long, value_name = "true|false")]
        allow_weak_algorithms: Option<bool>,
        /// Whether changes of CA servers and their anchors need another administrator's approval
        #[arg(long, value_name = "true|false")]
        four_eyes: Option<bool>,
        #[command(flatten)]
        keeps: KeepFlags,
    },
    /// Show what the CMP sessions of the tenant (--tenant) have done so far
    Statistics,
    /// Suspend a tenant: it can be read, but nothing is changed and nothing published to its agents
    Suspend {
        /// Its name
        name: String,
        /// Why; whoever is refused reads it
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
    /// Let a suspended tenant go on
    Resume {
        /// Its name
        name: String,
    },
    /// Delete a tenant: its people and agents are shut out at once, its objects are purged after the grace time
    Delete {
        /// Its name
        name: String,
    },
    /// Take a deletion back, as long as the grace time lasts; the tenant is suspended then
    Restore {
        /// Its name
        name: String,
    },
    /// Show how much a tenant may have and has; with limits: set them, a number or `none`
    Quota {
        /// Its name
        name: String,
        /// Devices
        #[arg(long, value_name = "N|none", value_parser = limit)]
        devices: Option<Value>,
        /// Trustpoints
        #[arg(long, value_name = "N|none", value_parser = limit)]
        trustpoints: Option<Value>,
        /// Jobs asked for within an hour
        #[arg(long, value_name = "N|none", value_parser = limit)]
        jobs_per_hour: Option<Value>,
        /// Jobs under way
        #[arg(long, value_name = "N|none", value_parser = limit)]
        jobs_in_flight: Option<Value>,
        /// Share of a CA's budget while several tenants wait for it, 1 to 100
        #[arg(long, value_name = "N")]
        ca_weight: Option<u8>,
    },
}

/// Reads a number, or `none` as null.
fn limit(text: &str) -> Result<Value, String> {
    match text {
        "none" => Ok(Value::Null),
        text => text.parse::<u32>().map(Value::from).map_err(|_| "give a whole number, or none".to_owned()),
    }
}

/// Verbs on bearer tokens.
#[derive(Debug, Subcommand)]
pub enum TokenVerb {
    /// List the tenant's tokens; the tokens themselves are not stored and cannot be shown
    List {
        /// Those of platform administrators instead of a tenant's
        #[arg(long)]
        platform: bool,
        #[command(flatten)]
        page: Page,
    },
    /// Make a token; it is shown once
    Create {
        /// What the token may do
        #[arg(long, value_enum, required_unless_present = "platform")]
        role: Option<Role>,
        /// A token of a platform administrator instead of a tenant's
        #[arg(long, conflicts_with = "role")]
        platform: bool,
        /// Only this of the role, such as devices:read or trustpoints:write; may be given several times [default: all]
        #[arg(long = "scope", value_name = "NOUN:read|write")]
        scopes: Vec<String>,
        /// What it is for; appears in the audit log
        #[arg(long, value_name = "TEXT")]
        description: String,
        /// Ends after this time, such as 30d [default: never]
        #[arg(long, value_name = "TIME", value_parser = duration)]
        valid_for: Option<Duration>,
        /// Write the token into a new file with mode 0600 instead of showing it
        #[arg(long, value_name = "FILE")]
        write_to: Option<PathBuf>,
    },
    /// Take a token back
    Delete {
        /// Its id, from the list
        id: String,
        /// It is a platform administrator's
        #[arg(long)]
        platform: bool,
    },
}

/// Verbs on join tokens.
#[derive(Debug, Subcommand)]
pub enum JoinTokenVerb {
    /// Make a join token; it is shown once
    Create {
        /// Name that the agent must take [default: its own choice]
        #[arg(long, value_name = "NAME")]
        agent_name: Option<String>,
        /// Label that the agent gets, may be repeated
        #[arg(long = "label", value_name = "KEY=VALUE", value_parser = pair)]
        labels: Vec<(String, String)>,
        /// How many agents may join with it
        #[arg(long, value_name = "N", default_value_t = 1)]
        uses: u32,
        /// Ends after this time
        #[arg(long, value_name = "TIME", value_parser = duration, default_value = "1h")]
        valid_for: Duration,
        /// Write the token into a new file with mode 0600 instead of showing it
        #[arg(long, value_name = "FILE")]
        write_to: Option<PathBuf>,
    },
}

/// What a token may do.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Role {
    /// Read everything of the tenant
    Viewer,
    /// Enrol, activate, register devices and trustpoints
    Operator,
    /// Everything in the tenant
    Admin,
}

impl Role {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

const TENANTS: &[Column] = &[
    Column::new("NAME", |item, _| text(item, "/name")),
    Column::new("DISPLAY NAME", |item, _| text(item, "/display_name")),
    Column::new("STATE", |item, _| text(item, "/state")),
    Column::new("FOUR EYES", |item, _| text(item, "/four_eyes")),
    Column::new("WEAK ALGORITHMS", |item, _| text(item, "/allow_weak_algorithms")),
    Column::new("CREATED", |item, now| ago(item, "/created_at", now)),
];

const TOKENS: &[Column] = &[
    Column::new("ID", |item, _| text(item, "/id")),
    Column::new("ROLE", |item, _| text(item, "/role")),
    Column::new("SCOPES", |item, _| text(item, "/scopes")),
    Column::new("DESCRIPTION", |item, _| text(item, "/description")),
    Column::new("EXPIRES", |item, now| expiry(item, "/expires_at", now)),
    Column::new("LAST USED", |item, now| ago(item, "/last_used_at", now)),
    Column::new("REVOKED", |item, now| ago(item, "/revoked_at", now)),
];

/// How long things are kept when they are over.
#[derive(Clone, Copy, Debug, Args)]
pub struct KeepFlags {
    /// Days that transcripts of exchanges are kept after the end of their job; a new tenant: 90
    #[arg(long, value_name = "DAYS")]
    transcript_days: Option<u16>,
    /// Days that jobs are kept after their end; a new tenant: 730
    #[arg(long, value_name = "DAYS")]
    job_days: Option<u16>,
    /// Days that certificates are kept after their end; a new tenant: 730
    #[arg(long, value_name = "DAYS")]
    certificate_days: Option<u16>,
    /// Days that join tokens, rejected applicants and leases are kept when they are over; a new tenant: 90
    #[arg(long, value_name = "DAYS")]
    join_days: Option<u16>,
    /// Days that rows of the audit log are kept, where that is shorter than the configuration says; 0: as it says
    #[arg(long, value_name = "DAYS")]
    audit_days: Option<u16>,
}

impl KeepFlags {
    const fn fields(&self) -> [(&'static str, Option<u16>); 5] {
        [
            ("transcript_days", self.transcript_days),
            ("job_days", self.job_days),
            ("certificate_days", self.certificate_days),
            ("join_days", self.join_days),
            ("audit_days", self.audit_days),
        ]
    }
}

/// Runs a verb on tenants.
pub(super) fn run(session: &Session, verb: TenantVerb) -> Result<(), CliError> {
    const FIRST: &[&str] = &["name", "display_name", "id"];
    match verb {
        TenantVerb::List { page } => {
            let list = session.list_platform("tenants", &page)?;
            session.print_list(&list, TENANTS, "trustfleet tenant show NAME, or set TRUSTFLEET_TENANT=NAME and go on")
        }
        TenantVerb::Show { name } => {
            let tenant = session.platform(Method::GET, &["tenants", &name], None)?;
            session.print_object(&tenant, FIRST, &format!("trustfleet device list --tenant {name}"))
        }
        TenantVerb::Create { name, display_name, allow_weak_algorithms, four_eyes, keeps } => {
            let mut draft = Draft::default();
            draft.set("display_name", display_name);
            draft.set("allow_weak_algorithms", allow_weak_algorithms.then_some(true));
            draft.set("four_eyes", four_eyes.then_some(true));
            for (field, days) in keeps.fields() {
                draft.set(field, days);
            }
            let tenant = session.platform(Method::POST, &["tenants"], Some(&draft.body_named(&name)))?;
            let next = format!("trustfleet token create --tenant {name} --role admin --description 'first admin'");
            session.print_object(&tenant, FIRST, &next)
        }
        TenantVerb::Update { name, display_name, allow_weak_algorithms, four_eyes, keeps } => {
            let present = session.platform(Method::GET, &["tenants", &name], None)?;
            let field = |field: &str, wanted: Option<Value>| wanted.unwrap_or_else(|| present[field].clone());
            let mut body = json!({
                "display_name": field("display_name", display_name.map(Value::from)),
                "allow_weak_algorithms": field("allow_weak_algorithms", allow_weak_algorithms.map(Value::from)),
                "four_eyes": field("four_eyes", four_eyes.map(Value::from)),
            });
            for (name, days) in keeps.fields() {
                body[name] = field(name, days.map(Value::from));
            }
            let tenant = session.platform(Method::PUT, &["tenants", &name], Some(&body))?;
            session.print_object(&tenant, FIRST, "")
        }
        TenantVerb::Statistics => statistics::print(session, &[], false, "trustfleet device statistics NAME"),
        TenantVerb::Suspend { name, reason } => {
            let body = json!({ "reason": reason });
            let tenant = session.platform(Method::POST, &["tenants", &name, "suspend"], Some(&body))?;
            session.print_object(&tenant, FIRST, &format!("trustfleet tenant resume {name} lets it go on"))
        }
        TenantVerb::Resume { name } => {
            let tenant = session.platform(Method::POST, &["tenants", &name, "resume"], None)?;
            session.print_object(&tenant, FIRST, "")
        }
        TenantVerb::Delete { name } => {
            let tenant = session.platform(Method::DELETE, &["tenants", &name], None)?;
            let next = format!("trustfleet tenant restore {name} takes it back, until purge_at");
            session.print_object(&tenant, FIRST, &next)
        }
        TenantVerb::Restore { name } => {
            let tenant = session.platform(Method::POST, &["tenants", &name, "restore"], None)?;
            session.print_object(&tenant, FIRST, &format!("trustfleet tenant resume {name} lets it go on"))
        }
        TenantVerb::Quota { name, devices, trustpoints, jobs_per_hour, jobs_in_flight, ca_weight } => {
            let limits = [
                ("devices", devices),
                ("trustpoints", trustpoints),
                ("jobs_per_hour", jobs_per_hour),
                ("jobs_in_flight", jobs_in_flight),
                ("ca_weight", ca_weight.map(Value::from)),
            ];
            let path = ["tenants", &name, "quota"];
            let mut quota = session.platform(Method::GET, &path, None)?;
            if limits.iter().any(|(_, limit)| limit.is_some()) {
                let given = |(field, limit): (&str, Option<Value>)| {
                    (field.to_owned(), limit.unwrap_or_else(|| quota[field].clone()))
                };
                let body = Value::Object(limits.into_iter().map(given).collect());
                quota = session.platform(Method::PUT, &path, Some(&body))?;
            }
            session.print_object(
                &quota,
                &["devices", "trustpoints", "jobs_per_hour", "jobs_in_flight", "ca_weight"],
                "",
            )
        }
    }
}

/// Runs a verb on bearer tokens.
pub(super) fn run_token(session: &Session, verb: TokenVerb) -> Result<(), CliError> {
    match verb {
        TokenVerb::List { platform, page } => {
            let list = if platform {
                session.list_platform("tokens", &page)?
            } else {
                session.list(&["tokens"], &page, &[])?
            };
            session.print_list(&list, TOKENS, "trustfleet token delete ID takes one back")
        }
        TokenVerb::Create { role, platform, scopes, description, valid_for, write_to } => {
            let file = write_to.as_deref().map(NewFile::create).transpose()?;
            let mut body = json!({ "description": description });
            if let Some(role) = role {
                body["role"] = Value::from(role.as_str());
            }
            if !scopes.is_empty() {
                body["scopes"] = Value::from(scopes);
            }
            if let Some(valid_for) = valid_for {
                body["valid_for_s"] = Value::from(valid_for.as_secs());
            }
            let mut token = if platform {
                session.platform(Method::POST, &["tokens"], Some(&body))?
            } else {
                session.call(Method::POST, &["tokens"], Some(&body))?
            };
            let next = match file {
                Some(file) => format!("export TRUSTFLEET_TOKEN_FILE='{}'", file.take_token(&mut token)?),
                None => {
                    "keep the token now, it is not shown again: put it into a file with mode 0600 and name that in \
                         TRUSTFLEET_TOKEN_FILE"
                        .to_owned()
                }
            };
            session.print_object(&token, &["token", "id", "role", "description"], &next)
        }
        TokenVerb::Delete { id, platform } => {
            if platform {
                session.platform(Method::DELETE, &["tokens", &id], None)?;
            } else {
                session.call(Method::DELETE, &["tokens", &id], None)?;
            }
            session.print_deleted("token", &id)
        }
    }
}

/// Runs a verb on join tokens.
pub(super) fn run_join_token(session: &Session, verb: JoinTokenVerb) -> Result<(), CliError> {
    match verb {
        JoinTokenVerb::Create { agent_name, labels, uses, valid_for, write_to } => {
            let file = write_to.as_deref().map(NewFile::create).transpose()?;
            let mut body = json!({ "uses": uses, "valid_for_s": valid_for.as_secs() });
            if let Some(name) = agent_name {
                body["agent_name"] = Value::from(name);
            }
            if !labels.is_empty() {
                body["labels"] = labels.into_iter().map(|(key, value)| (key, Value::from(value))).collect();
            }
            let mut token = session.call(Method::POST, &["join-tokens"], Some(&body))?;
            let next = match file {
                Some(file) => format!(
                    "bring {} to the agent's machine, name it there as join_token_file in the agent's configuration, \
                     then start `trustfleet-agent run --config FILE`",
                    file.take_token(&mut token)?
                ),
                None => "write it into the agent's configuration as join_token (or into a file named there as \
                         join_token_file), then start `trustfleet-agent run --config FILE`; it is not shown again"
                    .to_owned(),
            };
            session.print_object(&token, &["token", "id", "uses_left"], &next)
        }
    }
}
