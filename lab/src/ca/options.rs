//! How the lab CA is told what to do: arguments of `trustfleet-lab ca`, and the configuration made of them.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::ValueEnum;
use jiff::SignedDuration;
use serde::Deserialize;
use trustfleet_cmp::{codec::status::FailureBit, key::KeyType};
use trustfleet_pki::{Certificate, Name};

use super::{CaError, faults::Fault};

const ORGANIZATION: &str = "/O=Trustfleet Lab";

/// Runs a CA for tests: a root and an issuing CA made at start, answering CMP over HTTP on 127.0.0.1.
///
/// Prints one JSON line {"url":...} on standard output when it is ready. GET /lab/issued lists what it has issued,
/// GET /lab/stats its counters, GET /lab/waiting the transactions that wait, GET /lab/crl the CRL in DER; POST
/// /lab/secrets {"reference":...,"secret":...} adds a MAC credential, POST /lab/revoke {"serial":...} marks a certificate
/// as revoked, POST /lab/approve {"transactionID":...} and POST /lab/deny decide what waits for approval (without a
/// transactionID: all of it).
#[derive(Clone, Debug, clap::Args)]
pub struct CaArgs {
    /// Folder for root.pem, issuing.pem, chain.pem and cmp-signer.pem; made when absent
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
    /// Port on 127.0.0.1; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    pub port: u16,
    /// PEM certificate to answer over TLS with
    #[arg(long, value_name = "FILE", requires = "tls_key_file")]
    pub tls_cert_file: Option<PathBuf>,
    /// PEM key of that certificate
    #[arg(long, value_name = "FILE", requires = "tls_cert_file")]
    pub tls_key_file: Option<PathBuf>,
    /// Kind of the CA's own keys
    #[arg(long, value_enum, default_value_t = CaKeyType::P256)]
    pub key_type: CaKeyType,
    /// What the CA's names begin with, as /TYPE=VALUE/...
    #[arg(long, value_name = "NAME", default_value = ORGANIZATION)]
    pub organization: String,
    /// Days that issued certificates are valid
    #[arg(long, value_name = "DAYS", default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub days: u32,
    /// Seconds that issued certificates are valid, instead of days
    #[arg(long, value_name = "SECONDS", conflicts_with = "days", value_parser = clap::value_parser!(u32).range(1..))]
    pub validity_seconds: Option<u32>,
    /// A reference value and its MAC secret; may be repeated
    #[arg(long, value_name = "REF=SECRET", value_parser = reference_and_secret)]
    pub secret: Vec<Credential>,
    /// A TOML file of reference values and secrets: a table [secrets] with REF = "SECRET"
    #[arg(long, value_name = "FILE")]
    pub secrets_file: Option<PathBuf>,
    /// PEM certificates of other CAs whose end entities may sign IR and CR
    #[arg(long, value_name = "FILE")]
    pub trusted: Option<PathBuf>,
    /// Never grant implicit confirmation: wait for certConf
    #[arg(long)]
    pub no_implicit_confirm: bool,
    /// Accept HMAC-SHA1 (the default of `openssl cmp` without -mac)
    #[arg(long)]
    pub allow_sha1: bool,
    /// Seconds to wait before each answer
    #[arg(long, value_name = "SECONDS", default_value_t = 0.0, value_parser = seconds)]
    pub hold_seconds: f64,
    /// Refuse each request for a certificate with this failInfo (badRequest, systemUnavail, ...)
    #[arg(long, value_name = "FAILBIT", value_parser = failure_bit)]
    pub reject: Option<FailureBit>,
    /// Let each request wait (ir, cr, kur, p10cr, rr, genm) and answer it at the COUNT-th poll
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    pub poll_count: u32,
    /// Let each certConf wait as well (--poll-count says how long)
    #[arg(long)]
    pub poll_certconf: bool,
    /// checkAfter of each pollRep
    #[arg(long, value_name = "SECONDS", default_value_t = 1)]
    pub check_after: u32,
    /// Let each request for a certificate or a revocation wait until it is approved by POST /lab/approve
    #[arg(long)]
    pub approval: bool,
    /// Refuse a kur for a certificate of which another kur is not finished
    #[arg(long)]
    pub one_update: bool,
    /// Subject of the certificate that may revoke others' certificates, as /TYPE=VALUE/...
    #[arg(long, value_name = "NAME")]
    pub ra: Option<String>,
    /// Have a root that follows the root, to be asked for by genm rootCaCert
    #[arg(long)]
    pub root_update: bool,
    /// Have a template for requests, to be asked for by genm certReqTemplate
    #[arg(long)]
    pub template: bool,
    /// Distribution point of the CRL in issued certificates; GET /lab/crl has the CRL
    #[arg(long, value_name = "URL")]
    pub crl_url: Option<String>,
    /// Misbehave in this way; may be repeated
    #[arg(long, value_enum, value_name = "FAULT")]
    pub fault: Vec<Fault>,
}

/// The kinds of keys that the lab CA can have itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CaKeyType {
    /// ECDSA on P-256
    P256,
    /// RSA with 2048 bits
    Rsa,
}

impl From<CaKeyType> for KeyType {
    fn from(key_type: CaKeyType) -> Self {
        match key_type {
            CaKeyType::P256 => Self::P256,
            CaKeyType::Rsa => Self::Rsa2048,
        }
    }
}

/// A reference value with its MAC secret. Not printable.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credential {
    /// The reference value (senderKID).
    pub reference: String,
    /// The secret.
    pub secret: String,
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credential").field("reference", &self.reference).finish_non_exhaustive()
    }
}

/// What a lab CA does; [`CaConfig::new`] has the defaults of the command line.
#[derive(Clone, Debug)]
pub struct CaConfig {
    /// Folder for the CA's certificates.
    pub dir: PathBuf,
    /// Port on 127.0.0.1; 0 takes a free one.
    pub port: u16,
    /// Certificate and key (PEM files) to answer over TLS with.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Kind of the CA's own keys.
    pub key_type: KeyType,
    /// What the CA's names begin with.
    pub organization: Name,
    /// How long issued certificates are valid.
    pub lifetime: SignedDuration,
    /// MAC credentials at start.
    pub secrets: Vec<Credential>,
    /// Other CAs whose end entities may sign IR and CR.
    pub trusted: Vec<Certificate>,
    /// Whether implicit confirmation is granted to those who ask for it.
    pub implicit_confirm: bool,
    /// Whether HMAC-SHA1 and SHA-1 as one-way function are accepted in requests.
    pub allow_sha1: bool,
    /// How long each answer is held back.
    pub hold: Duration,
    /// Refuse each request for a certificate with this failInfo.
    pub reject: Option<FailureBit>,
    /// Each request is answered at this poll; 0: at once.
    pub poll_count: u32,
    /// Each certConf waits as well.
    pub poll_certconf: bool,
    /// checkAfter of each pollRep, in seconds.
    pub check_after: u32,
    /// Certificates and revocations wait until somebody approves them.
    pub approval: bool,
    /// One kur for a certificate at a time.
    pub one_update: bool,
    /// Subject of whoever may revoke others' certificates.
    pub ra: Option<Name>,
    /// There is a root that follows the root.
    pub root_update: bool,
    /// There is a template for requests.
    pub template: bool,
    /// Distribution point of the CRL in issued certificates.
    pub crl_url: Option<String>,
    /// How it misbehaves.
    pub faults: Vec<Fault>,
}

impl CaConfig {
    /// A free port, P-256, certificates for 90 days, no credentials.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            port: 0,
            tls: None,
            key_type: KeyType::P256,
            organization: Name::parse(ORGANIZATION).unwrap_or_else(|_| Name::null()),
            lifetime: SignedDuration::from_hours(24 * 90),
            secrets: Vec::new(),
            trusted: Vec::new(),
            implicit_confirm: true,
            allow_sha1: false,
            hold: Duration::ZERO,
            reject: None,
            poll_count: 0,
            poll_certconf: false,
            check_after: 1,
            approval: false,
            one_update: false,
            ra: None,
            root_update: false,
            crl_url: None,
            template: false,
            faults: Vec::new(),
        }
    }

    /// Does it misbehave so?
    pub fn has(&self, fault: Fault) -> bool {
        self.faults.contains(&fault)
    }

    /// The same with one more MAC credential.
    #[must_use]
    pub fn with_secret(mut self, reference: &str, secret: &str) -> Self {
        self.secrets.push(Credential { reference: reference.to_owned(), secret: secret.to_owned() });
        self
    }
}

impl TryFrom<CaArgs> for CaConfig {
    type Error = CaError;

    fn try_from(args: CaArgs) -> Result<Self, CaError> {
        if args.secret.iter().any(|known| known.reference.is_empty() || known.secret.is_empty()) {
            return Err(CaError::Secret);
        }
        let mut secrets = args.secret;
        if let Some(file) = &args.secrets_file {
            secrets.extend(secrets_file(file)?);
        }
        let trusted = match &args.trusted {
            Some(file) => Certificate::pem_bundle(&read(file)?)
                .map_err(|reason| CaError::Input { file: file.clone(), reason: reason.to_string() })?,
            None => Vec::new(),
        };
        let lifetime = args.validity_seconds.map_or_else(
            || SignedDuration::from_hours(24 * i64::from(args.days)),
            |seconds| SignedDuration::from_secs(i64::from(seconds)),
        );
        Ok(Self {
            dir: args.dir,
            port: args.port,
            tls: args.tls_cert_file.zip(args.tls_key_file),
            key_type: args.key_type.into(),
            organization: Name::parse(&args.organization).map_err(CaError::Organization)?,
            lifetime,
            secrets,
            trusted,
            implicit_confirm: !args.no_implicit_confirm,
            allow_sha1: args.allow_sha1,
            hold: Duration::from_secs_f64(args.hold_seconds),
            reject: args.reject,
            poll_count: args.poll_count,
            poll_certconf: args.poll_certconf,
            check_after: args.check_after,
            approval: args.approval,
            one_update: args.one_update,
            ra: args.ra.as_deref().map(Name::parse).transpose().map_err(CaError::Ra)?,
            root_update: args.root_update,
            crl_url: args.crl_url.clone(),
            template: args.template,
            faults: args.fault,
        })
    }
}

fn secrets_file(file: &Path) -> Result<Vec<Credential>, CaError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct File {
        secrets: BTreeMap<String, String>,
    }
    // the parser's message would quote the line, and with it a secret
    let parsed: File = toml::from_str(&read(file)?).map_err(|_| CaError::Input {
        file: file.to_owned(),
        reason: "expected TOML with a table [secrets] of REF = \"SECRET\"".to_owned(),
    })?;
    Ok(parsed.secrets.into_iter().map(|(reference, secret)| Credential { reference, secret }).collect())
}

fn read(file: &Path) -> Result<String, CaError> {
    fs::read_to_string(file).map_err(|source| CaError::File { file: file.to_owned(), source })
}

/// Never fails, because clap would repeat the secret in its message; what is no REF=SECRET has no reference and is
/// refused later.
fn reference_and_secret(text: &str) -> Result<Credential, Infallible> {
    let (reference, secret) = text.split_once('=').unwrap_or_default();
    Ok(Credential { reference: reference.to_owned(), secret: secret.to_owned() })
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err("expected seconds between 0 and 86400".to_owned()),
    }
}

fn failure_bit(text: &str) -> Result<FailureBit, String> {
    FailureBit::ALL
        .into_iter()
        .find(|bit| bit.name().eq_ignore_ascii_case(text))
        .ok_or_else(|| format!("expected one of {}", FailureBit::ALL.map(FailureBit::name).join(", ")))
}
