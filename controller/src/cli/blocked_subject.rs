//! Verbs on people of identity providers who are let in no more.

use clap::Subcommand;
use serde_json::json;
use ureq::http::Method;

use super::{
    args::Page,
    error::CliError,
    output::{Column, ago, text},
    session::Session,
};

/// Verbs on blocked subjects.
#[derive(Debug, Subcommand)]
pub enum BlockedSubjectVerb {
    /// List who is let into the tenant no more
    List {
        /// Who is let in nowhere, instead
        #[arg(long)]
        platform: bool,
        #[command(flatten)]
        page: Page,
    },
    /// Let a subject of an identity provider in no more: its tokens are refused within five seconds
    #[command(
        after_help = "Example:\n  trustfleet blocked-subject create --issuer https://idp.example/realms/site --subject erika \
        --reason 'has left'"
    )]
    Create {
        /// The provider: `iss` of its tokens, character by character
        #[arg(long, value_name = "URL")]
        issuer: String,
        /// Whom it names: `sub` of its tokens
        #[arg(long, value_name = "TEXT")]
        subject: String,
        /// Why
        #[arg(long, value_name = "TEXT")]
        reason: String,
        /// Nowhere at all, instead of in the tenant
        #[arg(long)]
        platform: bool,
    },
    /// Let a subject in again
    Delete {
        /// Id of the block
        id: String,
        /// It is one of everywhere
        #[arg(long)]
        platform: bool,
    },
}

const BLOCKED: &[Column] = &[
    Column::new("SUBJECT", |item, _| text(item, "/subject")),
    Column::new("ISSUER", |item, _| text(item, "/issuer")),
    Column::new("REASON", |item, _| text(item, "/reason")),
    Column::new("BLOCKED", |item, now| ago(item, "/blocked_at", now)),
    Column::new("BY", |item, _| text(item, "/blocked_by")),
    Column::new("ID", |item, _| text(item, "/id")),
];

/// Runs a verb on blocked subjects.
pub(super) fn run(session: &Session, verb: BlockedSubjectVerb) -> Result<(), CliError> {
    const NOUN: &str = "blocked-subjects";
    match verb {
        BlockedSubjectVerb::List { platform, page } => {
            let list = session.list_at(platform, &[NOUN], &page, &[])?;
            session.print_list(&list, BLOCKED, "trustfleet blocked-subject delete ID")
        }
        BlockedSubjectVerb::Create { issuer, subject, reason, platform } => {
            let body = json!({ "issuer": issuer, "subject": subject, "reason": reason });
            let made = session.call_at(platform, Method::POST, &[NOUN], Some(&body))?;
            let next =
                "what is known of this subject besides: its tokens (trustfleet token list) and open changes go on";
            session.print_object(&made, &["subject", "issuer", "reason", "id"], next)
        }
        BlockedSubjectVerb::Delete { id, platform } => {
            session.call_at(platform, Method::DELETE, &[NOUN, &id], None)?;
            session.print_deleted("block", &id)
        }
    }
}
