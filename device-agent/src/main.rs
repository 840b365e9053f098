//! `trustfleet-agent`: arguments in, exit code out.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use trustfleet_agent::cmp_cli;
use trustfleet_agent::cmp_cli::args::CmpArgs;
use trustfleet_agent::cmp_cli::exit::Exit;
use trustfleet_agent::config::{Config, LogFormat};
use trustfleet_agent::domain_cli::{self, DomainVerb};
use trustfleet_agent::run;
use trustfleet_agent::status::Status;
use trustfleet_cmp::entropy::{Entropy as _, SystemEntropy};
use trustfleet_model::clock::{Clock as _, SystemClock};
use trustfleet_telemetry::{Guard, Log, LogForm, Service};

/// The Trustfleet device agent.
#[derive(Debug, Parser)]
#[command(name = "trustfleet-agent", version, about)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Join the controller if that has not happened yet, then work until SIGTERM or SIGINT.
    Run {
        /// Configuration file (TOML).
        #[arg(long, env = "TRUSTFLEET_AGENT_CONFIG")]
        config: PathBuf,
    },
    /// Show what is on this device: trustpoints, certificates, files, and what to do next.
    Status {
        /// Configuration file (TOML).
        #[arg(long, env = "TRUSTFLEET_AGENT_CONFIG")]
        config: PathBuf,
        /// Form of the output.
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
    /// PKI domains: identities that others have issued to the device.
    Domain {
        /// Configuration file (TOML).
        #[arg(long, env = "TRUSTFLEET_AGENT_CONFIG")]
        config: PathBuf,
        #[command(subcommand)]
        verb: DomainVerb,
    },
    /// Speak CMP with a CA by hand, without a controller: enrol, renew, revoke, ask.
    Cmp(CmpArgs),
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Output {
    /// Columns for people.
    #[default]
    Table,
    /// One JSON object.
    Json,
}

fn main() -> ExitCode {
    let ended = match parse().command {
        Command::Run { config } => load(&config).and_then(|config| {
            // Dropped last: what ends in there is still seen.
            let _traces = telemetry(&config)?;
            run::run(config).map_err(|error| chain(&error))
        }),
        Command::Status { config, output } => load(&config).and_then(|config| show(&config, output)),
        Command::Domain { config, verb } => load(&config).and_then(|config| domain_cli::run(&config, verb)),
        Command::Cmp(args) => return cmp_cli::run(&args),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            let _ = writeln!(std::io::stderr(), "trustfleet-agent: {message}");
            ExitCode::FAILURE
        }
    }
}

/// The arguments. A mistake in those of `cmp` ends with the code that its exit codes promise.
fn parse() -> Args {
    Args::try_parse().unwrap_or_else(|error| {
        let by_hand = std::env::args_os().nth(1).is_some_and(|verb| verb == "cmp");
        if by_hand && error.use_stderr() {
            let _ = error.print();
            std::process::exit(i32::from(Exit::Usage as u8));
        }
        error.exit()
    })
}

fn load(path: &std::path::Path) -> Result<Config, String> {
    Config::load(path).map_err(|error| chain(&error))
}

fn show(config: &Config, output: Output) -> Result<(), String> {
    let status = Status::read(config).map_err(|error| chain(&error))?;
    let text = match output {
        Output::Table => status.table(SystemClock.now()),
        Output::Json => serde_json::to_string_pretty(&status).map_err(|error| error.to_string())? + "\n",
    };
    // A reader that has gone away (a pager, `head`) is no failure.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(())
}

/// Logs to stderr, spans to the configured receiver.
fn telemetry(config: &Config) -> Result<Guard, String> {
    let mut instance = [0; 16];
    SystemEntropy.fill(&mut instance).map_err(|error| chain(&error))?;
    let service = Service {
        name: "trustfleet-agent",
        version: env!("CARGO_PKG_VERSION"),
        instance,
        attributes: config.name.iter().map(|name| ("trustfleet.agent.name", name.to_string())).collect(),
    };
    let form = match config.log_format {
        LogFormat::Text => LogForm::Text,
        LogFormat::Json => LogForm::Json { flat: false },
    };
    let filter = std::env::var("RUST_LOG").unwrap_or_else(|_| "info".to_owned());
    trustfleet_telemetry::start(service, Log { form, filter }, &config.traces).map_err(|error| chain(&error))
}

/// An error with everything below it, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(below) = source {
        let below_text = below.to_string();
        if !text.contains(&below_text) {
            text.push_str(": ");
            text.push_str(&below_text);
        }
        source = below.source();
    }
    text
}
