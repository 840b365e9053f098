//! Verbs on certificates.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use trustfleet_pki::certificate::Certificate;
use ureq::http::Method;

use super::{
    args::{Expiry, Page, Selector, given},
    change,
    error::CliError,
    output::{Column, expiry, text},
    session::Session,
};

/// Verbs on certificates.
#[derive(Debug, Subcommand)]
pub enum CertificateVerb {
    /// List certificates, those that end first at the top
    List {
        #[command(flatten)]
        filters: Box<Filters>,
        #[command(flatten)]
        page: Page,
    },
    /// Show a certificate
    #[command(after_help = "Example:\n  trustfleet certificate show ID --pem | openssl x509 -noout -text")]
    Show {
        /// Its id
        id: String,
        /// Print the certificate alone, in PEM
        #[arg(long)]
        pem: bool,
        /// Print the certificate and the CA certificates that came with it, in PEM
        #[arg(long, conflicts_with = "pem")]
        chain: bool,
        /// Print the certificate alone, in DER
        #[arg(long, conflicts_with_all = ["pem", "chain"])]
        der: bool,
        /// Write PEM or DER to this file instead
        #[arg(long, value_name = "FILE")]
        write_to: Option<PathBuf>,
    },
    /// Have a certificate revoked by its CA
    #[command(after_help = REVOKE_HELP)]
    Revoke {
        /// Its id
        id: String,
        /// Why
        #[arg(long, value_name = "REASON", value_parser = REASONS)]
        reason: String,
        /// Ask nobody: it was revoked at the CA by hand
        #[arg(long)]
        by_hand: bool,
    },
}

/// Which certificates are wanted.
#[derive(Debug, Args)]
pub struct Filters {
    /// Only of this device
    #[arg(long, value_name = "NAME")]
    device: Option<String>,
    /// Only in this slot: active, staged, previous or retired
    #[arg(long, value_name = "SLOT")]
    slot: Option<String>,
    /// Only with a revocation in this state: wanted, requested, revoked or failed
    #[arg(long, value_name = "STATE")]
    revocation: Option<String>,
    /// Only of this issuer, character by character as `certificate show` prints it
    #[arg(long, value_name = "NAME")]
    issuer: Option<String>,
    /// Only of trustpoints of this CA server
    #[arg(long, value_name = "NAME")]
    ca_server: Option<String>,
    /// Only with a key of this kind and size, such as rsa-2048 or ecdsa-p256
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    #[command(flatten)]
    selector: Selector,
    #[command(flatten)]
    expiry: Expiry,
}

const REVOKE_HELP: &str = "The device asks for it, or the registration authority that `revocation` of the CA server \
                           names: for a device that is lost, only that one can.";
/// Reasons of RFC 5280 section 5.3.1 that can be asked for.
pub(super) const REASONS: [&str; 7] = [
    "unspecified",
    "keyCompromise",
    "affiliationChanged",
    "superseded",
    "cessationOfOperation",
    "certificateHold",
    "privilegeWithdrawn",
];

/// The fields of a certificate that are shown first.
pub(super) const FIRST: &[&str] =
    &["subject", "serial", "issuer", "not_before", "not_after", "device", "trustpoint", "slot", "file", "revocation"];

const CERTIFICATES: &[Column] = &[
    Column::new("DEVICE", |item, _| text(item, "/device")),
    Column::new("TRUSTPOINT", |item, _| text(item, "/trustpoint")),
    Column::new("SLOT", |item, _| text(item, "/slot")),
    Column::new("SUBJECT", |item, _| text(item, "/subject")),
    Column::new("SERIAL", |item, _| text(item, "/serial")),
    Column::new("REVOCATION", |item, _| text(item, "/revocation/state")),
    Column::new("NOT AFTER", |item, now| expiry(item, "/not_after", now)),
    Column::new("ID", |item, _| text(item, "/id")),
];

/// Runs a verb on certificates.
pub(super) fn run(session: &Session, verb: CertificateVerb) -> Result<(), CliError> {
    match verb {
        CertificateVerb::List { filters, page } => {
            let Filters { device, slot, revocation, issuer, ca_server, key, selector, expiry } = *filters;
            let [before, after] = expiry.query(session.now());
            let filters = given([
                ("device", device),
                ("slot", slot),
                ("revocation", revocation),
                ("issuer", issuer),
                ("ca_server", ca_server),
                ("key", key),
                ("selector", selector.query()),
                before,
                after,
            ]);
            let list = session.list(&["certificates"], &page, &filters)?;
            session.print_list(&list, CERTIFICATES, "trustfleet certificate show ID [--pem]")
        }
        CertificateVerb::Show { id, pem, chain, der, write_to } => {
            let certificate = session.read(&["certificates", &id])?;
            if der || pem || chain || write_to.is_some() {
                let text = pem_text(&certificate, chain);
                let bytes = if der { der_of(&text)? } else { text.into_bytes() };
                return put(&bytes, write_to.as_deref());
            }
            let next = format!("trustfleet certificate show {id} --pem | openssl x509 -noout -text");
            session.print_object(&certificate, FIRST, &next)
        }
        CertificateVerb::Revoke { id, reason, by_hand } => {
            let body = json!({ "reason": reason, "by_hand": by_hand });
            let answer = session.call(Method::POST, &["certificates", &id, "revoke"], Some(&body))?;
            if change::is_pending(&answer) {
                return change::print(session, &answer);
            }
            session.print_object(&answer, FIRST, &format!("trustfleet certificate show {id} tells how far it is"))
        }
    }
}

/// Has all valid certificates of a device or of an agent's devices revoked.
pub(super) fn revoke_all(session: &Session, whose: &[&str], reason: &str) -> Result<(), CliError> {
    let path: Vec<&str> = whose.iter().copied().chain(["revoke"]).collect();
    let answer = session.call(Method::POST, &path, Some(&json!({ "reason": reason })))?;
    if change::is_pending(&answer) {
        return change::print(session, &answer);
    }
    let next = "trustfleet certificate list --revocation wanted (then requested, revoked, failed) tells how far it is";
    session.print_object(&answer, &["certificates"], next)
}

fn der_of(pem: &str) -> Result<Vec<u8>, CliError> {
    let read = Certificate::from_pem(pem);
    let read = read.map_err(|error| CliError::Usage(format!("the controller's answer is no certificate: {error}")))?;
    Ok(read.as_der().to_vec())
}

fn put(bytes: &[u8], file: Option<&Path>) -> Result<(), CliError> {
    match file {
        Some(path) => fs::write(path, bytes).map_err(|source| CliError::File { path: path.to_owned(), source }),
        None => {
            let mut out = std::io::stdout().lock();
            out.write_all(bytes).and_then(|()| out.flush()).map_err(CliError::Print)
        }
    }
}

fn pem_text(certificate: &Value, chain: bool) -> String {
    let mut text = certificate["pem"].as_str().unwrap_or_default().to_owned();
    if chain {
        match &certificate["chain_pem"] {
            Value::String(chain) => text.push_str(chain),
            Value::Array(chain) => text.extend(chain.iter().filter_map(Value::as_str)),
            _ => {}
        }
    }
    text
}
