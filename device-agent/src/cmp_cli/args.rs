//! The options, named as `openssl cmp` names them, with two dashes. Its underscores are taken as well.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::deferred::Deferred;
use super::exit;

/// `trustfleet-agent cmp`: speak CMP with a CA by hand.
#[derive(Debug, Args)]
pub struct CmpArgs {
    /// What to ask for.
    #[command(subcommand)]
    pub verb: Verb,
}

/// What to ask for.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Ask for the first certificate from this CA (initialization request)
    #[command(after_help = exit::help())]
    Ir(Deferred<EnrolArgs>),
    /// Ask for another certificate from a CA that knows the entity (certification request)
    #[command(after_help = exit::help())]
    Cr(Deferred<EnrolArgs>),
    /// Replace a certificate that is still valid (key update request), signed by --cert and --key
    #[command(after_help = exit::help())]
    Kur(Deferred<UpdateArgs>),
    /// Ask for the certificate of a PKCS #10 request that somebody else's key made
    #[command(name = "p10cr", after_help = exit::help())]
    P10cr(Deferred<P10Args>),
    /// Have a certificate revoked (revocation request), signed by --cert and --key
    #[command(after_help = exit::help())]
    Rr(Deferred<RevokeArgs>),
    /// Ask the PKI a question (general message)
    #[command(after_help = exit::help())]
    Genm(Deferred<AskArgs>),
}

/// ir and cr.
#[derive(Debug, Args)]
pub struct EnrolArgs {
    /// What every request has.
    #[command(flatten)]
    pub common: Common,
    /// What the certificate shall hold.
    #[command(flatten)]
    pub wanted: Wanted,
    /// Its key.
    #[command(flatten)]
    pub newkey: NewKey,
    /// What happens to it.
    #[command(flatten)]
    pub issued: IssuedFiles,
}

/// kur.
#[derive(Debug, Args)]
pub struct UpdateArgs {
    /// What every request has.
    #[command(flatten)]
    pub common: Common,
    /// What the certificate shall hold.
    #[command(flatten)]
    pub wanted: Wanted,
    /// Its key.
    #[command(flatten)]
    pub newkey: NewKey,
    /// What happens to it.
    #[command(flatten)]
    pub issued: IssuedFiles,
    /// Certificate to replace [default: that of --cert, which it must be]
    #[arg(long, value_name = "FILE")]
    pub oldcert: Option<PathBuf>,
}

/// p10cr.
#[derive(Debug, Args)]
pub struct P10Args {
    /// What every request has.
    #[command(flatten)]
    pub common: Common,
    /// PKCS #10 certificate request, PEM or DER; sent as it is
    #[arg(long, value_name = "FILE")]
    pub csr: PathBuf,
    /// What happens to it.
    #[command(flatten)]
    pub issued: IssuedFiles,
}

/// rr.
#[derive(Debug, Args)]
pub struct RevokeArgs {
    /// What every request has.
    #[command(flatten)]
    pub common: Common,
    /// Certificate to revoke [default: that of --cert]
    #[arg(long, value_name = "FILE", conflicts_with_all = ["issuer", "serial"])]
    pub oldcert: Option<PathBuf>,
    /// Issuer of the certificate to revoke, where the certificate is not at hand
    #[arg(long, value_name = "NAME", requires = "serial")]
    pub issuer: Option<String>,
    /// Its serial number, hexadecimal
    #[arg(long, value_name = "HEX", requires = "issuer")]
    pub serial: Option<String>,
    /// Why: a name or number of CRLReason (keyCompromise, superseded, cessationOfOperation, …)
    #[arg(long, value_name = "REASON", default_value = "unspecified", allow_hyphen_values = true)]
    pub revreason: String,
    /// Where to write CRLs that come along, DER (the second one as FILE.2, and so on)
    #[arg(long, value_name = "FILE")]
    pub crlout: Option<PathBuf>,
}

/// genm.
#[derive(Debug, Args)]
pub struct AskArgs {
    /// What every request has.
    #[command(flatten)]
    pub common: Common,
    /// The question: caCerts, rootCaCert, certReqTemplate, crlStatusList, currentCRL, signKeyPairTypes, encKeyPairTypes,
    /// preferredSymmAlg, suppLangTags, confirmWaitTime, or an object identifier
    #[arg(long, value_name = "NAME")]
    pub infotype: String,
    /// rootCaCert: the root that is trusted now
    #[arg(long, value_name = "FILE", alias = "rootcacert")]
    pub oldwithold: Option<PathBuf>,
    /// rootCaCert: where to write the new root
    #[arg(long, value_name = "FILE")]
    pub newwithnew: Option<PathBuf>,
    /// rootCaCert: where to write the new root's key as certified by the old root
    #[arg(long, value_name = "FILE")]
    pub newwithold: Option<PathBuf>,
    /// rootCaCert: where to write the old root's key as certified by the new root
    #[arg(long, value_name = "FILE")]
    pub oldwithnew: Option<PathBuf>,
    /// crlStatusList: a certificate whose issuer's CRL is wanted
    #[arg(long, value_name = "FILE")]
    pub crlcert: Option<PathBuf>,
    /// crlStatusList: the CRL of this distribution point is wanted
    #[arg(long, value_name = "URI", conflicts_with = "crlcert")]
    pub crluri: Option<String>,
    /// crlStatusList: the CRL that is here; only a newer one is wanted
    #[arg(long, value_name = "FILE")]
    pub oldcrl: Option<PathBuf>,
    /// Where to write CRLs that come, DER (the second one as FILE.2, and so on)
    #[arg(long, value_name = "FILE")]
    pub crlout: Option<PathBuf>,
    /// suppLangTags: languages, the preferred first
    #[arg(long, value_name = "TAG", value_delimiter = ',')]
    pub languages: Vec<String>,
    /// Where to write CA certificates that come (caCerts), PEM; they are not to be trusted for having come
    #[arg(long, value_name = "FILE")]
    pub cacertsout: Option<PathBuf>,
}

/// What a certificate shall hold.
#[derive(Debug, Args)]
#[command(next_help_heading = "Certificate asked for")]
pub struct Wanted {
    /// Subject, as /C=DE/O=Example/CN=ap-1 or CN=ap-1,O=Example,C=DE; kur keeps the old one
    #[arg(long, value_name = "NAME")]
    pub subject: Option<String>,
    /// Alternative names between commas or spaces: DNS names, IP addresses, URIs; or with a kind, as email:a@b or upn:a@b
    #[arg(long, value_name = "NAMES", alias = "san")]
    pub sans: Vec<String>,
    /// kur: do not ask for the alternative names of the old certificate where --sans is not given
    #[arg(long, alias = "san_nodefault")]
    pub san_nodefault: bool,
    /// Name of the certificate profile at the CA
    #[arg(long, value_name = "NAME")]
    pub profile: Option<String>,
    /// Days that the certificate shall be valid from now on; a CA may give another validity
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub days: Option<u32>,
    /// Ask the CA first what a request must look like (genm certReqTemplate), and make the request fit
    #[arg(long)]
    pub ask_template: bool,
}

/// The key to be certified.
#[derive(Debug, Args)]
#[command(next_help_heading = "Key to be certified")]
pub struct NewKey {
    /// Private key to be certified, PEM or DER
    #[arg(long, value_name = "FILE", conflicts_with_all = ["newkey_type", "newkeyout"])]
    pub newkey: Option<PathBuf>,
    /// Make a key: rsa:2048, rsa:3072, rsa:4096, p256, p384, ed25519, ml-dsa-44, ml-dsa-65 or ml-dsa-87
    #[arg(long, value_name = "TYPE", alias = "newkey_type")]
    pub newkey_type: Option<String>,
    /// Where to write the key that is made: mode 0600, never over another file without --force
    #[arg(long, value_name = "FILE", requires = "newkey_type")]
    pub newkeyout: Option<PathBuf>,
    /// Passphrase of --newkey, or to encrypt --newkeyout by: file:PATH, env:NAME or pass:TEXT
    #[arg(long, value_name = "SOURCE")]
    pub newkeypass: Option<String>,
    /// Overwrite --newkeyout
    #[arg(long)]
    pub force: bool,
}

/// Confirmation and files of an issued certificate.
#[derive(Debug, Args)]
#[command(next_help_heading = "Issued certificate")]
pub struct IssuedFiles {
    /// Ask the CA to need no confirmation
    #[arg(long, alias = "implicit_confirm")]
    pub implicit_confirm: bool,
    /// What happens when the CA changed subject or names
    #[arg(long, value_enum, default_value_t)]
    pub modifications: Mods,
    /// CA certificates that the new certificate must lead to [default: those of --trusted]
    #[arg(long, value_name = "FILES", value_delimiter = ',', alias = "out_trusted")]
    pub out_trusted: Vec<PathBuf>,
    /// Where to write the certificate, PEM [default: it follows the result]
    #[arg(long, value_name = "FILE")]
    pub certout: Option<PathBuf>,
    /// Where to write the certificate's chain without the certificate, PEM
    #[arg(long, value_name = "FILE")]
    pub chainout: Option<PathBuf>,
    /// Where to write CA certificates of the answer (caPubs), PEM
    #[arg(long, value_name = "FILE")]
    pub cacertsout: Option<PathBuf>,
}

/// What the CA may change.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum Mods {
    /// Take the certificate, say nothing.
    Accept,
    /// Take it and say so.
    #[default]
    Warn,
    /// Reject it at the CA.
    Reject,
}

/// What every request has.
#[derive(Debug, Args)]
pub struct Common {
    /// How the server is reached.
    #[command(flatten)]
    pub server: ServerArgs,
    /// By what our messages are protected.
    #[command(flatten)]
    pub own: OwnArgs,
    /// Whose answers are taken.
    #[command(flatten)]
    pub peer: PeerArgs,
    /// What is said and kept.
    #[command(flatten)]
    pub out: OutputArgs,
}

/// How the server is reached.
#[derive(Debug, Args)]
#[command(next_help_heading = "Server")]
pub struct ServerArgs {
    /// URL of the server, or host:port with perhaps a path
    #[arg(long, value_name = "URL", required_unless_present = "dry_run")]
    pub server: Option<String>,
    /// Path at the server, its query included; instead of that of --server
    #[arg(long, value_name = "PATH")]
    pub path: Option<String>,
    /// Path /.well-known/cmp, or below it: an operation (initialization, certification, keyupdate, pkcs10, revocation,
    /// getcacerts, …), p/NAME, or p/NAME/OPERATION
    #[arg(long, value_name = "BELOW", num_args = 0..=1, default_missing_value = "")]
    pub well_known: Option<String>,
    /// Use https with --server host:port
    #[arg(long, alias = "tls_used")]
    pub tls_used: bool,
    /// Our certificate for https, its chain behind it
    #[arg(long, value_name = "FILE", alias = "tls_cert", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Its private key, unencrypted
    #[arg(long, value_name = "FILE", alias = "tls_key", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// CA certificates that the server's certificate must lead to [default: those of the system]
    #[arg(long, value_name = "FILES", value_delimiter = ',', alias = "tls_trusted")]
    pub tls_trusted: Vec<PathBuf>,
    /// HTTP proxy, [http://]host:port: reached by CONNECT. The environment's proxy is never used
    #[arg(long, value_name = "URL")]
    pub proxy: Option<String>,
    /// Hosts that are reached without the proxy, between commas
    #[arg(long, value_name = "HOSTS", alias = "no_proxy")]
    pub no_proxy: Option<String>,
    /// Local address to connect from
    #[arg(long, value_name = "IP")]
    pub source_address: Option<std::net::IpAddr>,
    /// Network interface to connect through
    #[arg(long, value_name = "NAME")]
    pub interface: Option<String>,
    /// Seconds until an answer to one message must be here
    #[arg(long, value_name = "SECONDS", alias = "msg_timeout", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub msg_timeout: u64,
    /// Seconds until all must be done, polling included
    #[arg(long, value_name = "SECONDS", alias = "total_timeout", default_value_t = 3600, value_parser = clap::value_parser!(u64).range(1..=31_536_000))]
    pub total_timeout: u64,
}

/// By what our messages are protected.
#[derive(Debug, Args)]
#[command(next_help_heading = "Our protection")]
pub struct OwnArgs {
    /// Reference that names the secret at the CA
    #[arg(long = "ref", value_name = "REFERENCE", requires = "secret")]
    pub reference: Option<String>,
    /// Secret shared with the CA: file:PATH, env:NAME, or pass:TEXT (which others on the machine can see)
    #[arg(long, value_name = "SOURCE", requires = "reference", conflicts_with_all = ["cert", "key"])]
    pub secret: Option<String>,
    /// Certificate that signs our messages, its chain behind it
    #[arg(long, value_name = "FILE", requires = "key")]
    pub cert: Option<PathBuf>,
    /// Its private key, PEM or DER
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub key: Option<PathBuf>,
    /// Passphrase of --key: file:PATH, env:NAME or pass:TEXT
    #[arg(long, value_name = "SOURCE", requires = "key")]
    pub keypass: Option<String>,
    /// More certificates to send along
    #[arg(long, value_name = "FILES", value_delimiter = ',')]
    pub extracerts: Vec<PathBuf>,
    /// How a MAC is made: pbm or pbmac1; or openssl's -mac: hmac-sha256 and so on, which is pbm with that HMAC
    #[arg(long, value_name = "MAC", default_value = "pbm")]
    pub mac: String,
    /// HMAC of the MAC: sha256, sha384, sha512, or sha1 with --allow-sha1
    #[arg(long, value_name = "HASH")]
    pub mac_algorithm: Option<String>,
    /// Hash that makes the MAC key (pbmac1: of the pseudo-random function)
    #[arg(long, value_name = "HASH", default_value = "sha256")]
    pub owf: String,
    /// How often that hash runs
    #[arg(long, value_name = "COUNT", default_value_t = 10_000)]
    pub iterations: u32,
    /// Hash of our signatures: sha256, sha384 or sha512 [default: what the key uses by itself]
    #[arg(long, value_name = "HASH")]
    pub digest: Option<String>,
    /// Sign by RSA-PSS with an RSA key
    #[arg(long)]
    pub pss: bool,
}

/// Who may answer, and how.
#[derive(Debug, Args)]
#[command(next_help_heading = "Whose answers are taken")]
pub struct PeerArgs {
    /// Name of the CA or RA [default: subject of --srvcert, or issuer of --oldcert or --cert]
    #[arg(long, value_name = "NAME")]
    pub recipient: Option<String>,
    /// CA certificates that the signer of an answer, and a new certificate, must lead to
    #[arg(long, value_name = "FILES", value_delimiter = ',')]
    pub trusted: Vec<PathBuf>,
    /// Certificates between, to build chains with
    #[arg(long, value_name = "FILES", value_delimiter = ',')]
    pub untrusted: Vec<PathBuf>,
    /// The certificate that answers are signed with: trusted as it is
    #[arg(long, value_name = "FILE")]
    pub srvcert: Option<PathBuf>,
    /// Name that answers are signed by [default: the recipient]
    #[arg(long, value_name = "NAME", alias = "expect_sender")]
    pub expect_sender: Option<String>,
    /// Take a signer whose key usage does not allow signatures
    #[arg(long, alias = "ignore_keyusage")]
    pub ignore_keyusage: bool,
    /// Take MACs with SHA-1 in answers, and send them if told to
    #[arg(long)]
    pub allow_sha1: bool,
    /// Count a refusal that nobody has signed as one (exit code 2 instead of 3); it is never more than a refusal
    #[arg(long, alias = "unprotected_errors")]
    pub unprotected_errors: bool,
}

/// What is said and kept.
#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
pub struct OutputArgs {
    /// Build the request, say what is doubtful about it, show it; send nothing, write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Show every message on stderr, decoded; secrets, salts, MACs and signatures are left out
    #[arg(long)]
    pub show_messages: bool,
    /// Form of the result
    #[arg(long, value_enum, default_value_t)]
    pub output: Form,
    /// Where to write all certificates that came along (extraCerts), PEM
    #[arg(long, value_name = "FILE")]
    pub extracertsout: Option<PathBuf>,
    /// Keep the transaction in this file until it ends, and go on with it if it is there
    #[arg(long, value_name = "FILE")]
    pub state: Option<PathBuf>,
}

/// Form of the result.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub enum Form {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object.
    Json,
}

impl Verb {
    /// What every request has.
    pub fn common(&self) -> &Common {
        match self {
            Self::Ir(args) | Self::Cr(args) => &args.common,
            Self::Kur(args) => &args.common,
            Self::P10cr(args) => &args.common,
            Self::Rr(args) => &args.common,
            Self::Genm(args) => &args.common,
        }
    }
}
