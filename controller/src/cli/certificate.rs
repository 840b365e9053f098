//! Verbs on certificates.

use clap::Subcommand;
use serde_json::Value;

use super::{
    args::Page,
    error::CliError,
    output::{self, Column, expiry, text},
    session::Session,
};

/// Verbs on certificates.
#[derive(Debug, Subcommand)]
pub enum CertificateVerb {
    /// List certificates, those that end first at the top
    List {
        /// Only of this device
        #[arg(long, value_name = "NAME")]
        device: Option<String>,
        /// Only in this slot: active, staged, previous or retired
        #[arg(long, value_name = "SLOT")]
        slot: Option<String>,
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
    },
}

/// The fields of a certificate that are shown first.
pub(super) const FIRST: &[&str] =
    &["subject", "serial", "issuer", "not_before", "not_after", "device", "trustpoint", "slot", "file"];

const CERTIFICATES: &[Column] = &[
    Column::new("DEVICE", |item, _| text(item, "/device")),
    Column::new("TRUSTPOINT", |item, _| text(item, "/trustpoint")),
    Column::new("SLOT", |item, _| text(item, "/slot")),
    Column::new("SUBJECT", |item, _| text(item, "/subject")),
    Column::new("SERIAL", |item, _| text(item, "/serial")),
    Column::new("NOT AFTER", |item, now| expiry(item, "/not_after", now)),
    Column::new("ID", |item, _| text(item, "/id")),
];

/// Runs a verb on certificates.
pub(super) fn run(session: &Session, verb: CertificateVerb) -> Result<(), CliError> {
    match verb {
        CertificateVerb::List { device, slot, page } => {
            let filters: Vec<_> = [("device", device), ("slot", slot)]
                .into_iter()
                .filter_map(|(name, value)| value.map(|value| (name, value)))
                .collect();
            let list = session.list(&["certificates"], &page, &filters)?;
            session.print_list(&list, CERTIFICATES, "trustfleet certificate show ID [--pem]")
        }
        CertificateVerb::Show { id, pem, chain } => {
            let certificate = session.read(&["certificates", &id])?;
            if pem || chain {
                return output::print(pem_text(&certificate, chain).trim_end());
            }
            let next = format!("trustfleet certificate show {id} --pem | openssl x509 -noout -text");
            session.print_object(&certificate, FIRST, &next)
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
