//! `trustfleet-agent domain`: identities that others have issued to the device, imported by hand (S38).

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;

use clap::Subcommand;
use trustfleet_model::field::ObjectName;

use crate::config::Config;
use crate::domains::{Domains, Import, Shown};
use crate::store::Store;

/// Verbs on PKI domains.
#[derive(Debug, Subcommand)]
pub enum DomainVerb {
    /// Show the domains and what they hold; `default` is the factory identity of the configuration.
    List {
        /// One JSON array instead of lines for people.
        #[arg(long)]
        json: bool,
    },
    /// Lay a certificate, its key and CA certificates into a domain; what it held before goes.
    Import {
        /// Name of the domain: 1 to 63 letters, digits, '.', '_', '-'; not `default`.
        name: ObjectName,
        /// PEM file with the certificate, and after it those that lead to its CA.
        #[arg(long, value_name = "FILE")]
        certificate: PathBuf,
        /// PEM file with its private key, not encrypted; it is copied and can be deleted afterwards.
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// PEM file with CA certificates; may be repeated.
        #[arg(long, value_name = "FILE")]
        ca: Vec<PathBuf>,
        /// Take certificates that are signed with MD5 or SHA-1.
        #[arg(long)]
        allow_weak: bool,
    },
    /// Remove a domain with its key.
    Remove {
        /// Name of the domain.
        name: ObjectName,
    },
}

/// Runs a verb; says what to do next.
///
/// # Errors
/// A sentence for the user.
pub fn run(config: &Config, verb: DomainVerb) -> Result<(), String> {
    let store = Store::read_only(&config.state_dir);
    let domains = Domains::new(&store, &config.factory_identity);
    let text = match verb {
        DomainVerb::List { json: true } => {
            serde_json::to_string_pretty(&domains.list()).map_err(|error| error.to_string())? + "\n"
        }
        DomainVerb::List { json: false } => table(&domains.list()),
        DomainVerb::Import { name, certificate, key, ca, allow_weak } => {
            let import = Import { certificate: &certificate, key: &key, ca: &ca, allow_weak };
            let shown = domains.import(&name, &import).map_err(|error| error.to_string())?;
            table(&[shown]) + &next(&name)
        }
        DomainVerb::Remove { name } => {
            domains.remove(&name).map_err(|error| error.to_string())?;
            format!("the domain {name} is removed, with its key\n")
        }
    };
    // A reader that has gone away (a pager, `head`) is no failure.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(())
}

fn next(name: &ObjectName) -> String {
    format!(
        "next: a policy with `trustfleet policy update POLICY --origin-authentication signature --authentication-domain {name}`\n"
    )
}

fn table(domains: &[Shown]) -> String {
    if domains.is_empty() {
        return "no domain holds anything; import one with `trustfleet-agent domain import NAME --certificate FILE --key FILE`\n"
            .to_owned();
    }
    let mut text = String::new();
    for domain in domains {
        let known = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
        let _ = writeln!(text, "{}", domain.name);
        let _ = writeln!(text, "  subject    {}", known(&domain.subject));
        let _ = writeln!(text, "  issuer     {}", known(&domain.issuer));
        let _ = writeln!(text, "  serial     {}", known(&domain.serial));
        let _ = writeln!(text, "  not after  {}", domain.not_after.map_or_else(|| "-".to_owned(), |at| at.to_string()));
        for ca in &domain.ca {
            let _ = writeln!(text, "  ca         {ca}");
        }
        if let Some(problem) = &domain.problem {
            let _ = writeln!(text, "  problem    {problem}");
        }
    }
    text
}
