//! The command line of `trustfleet-lab`.

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

use crate::{
    bench::{self, BenchArgs, InsideArgs},
    ca::{self, CaArgs},
    demo::{self, DemoArgs},
    fleet::{self, FleetArgs, PartArgs},
    stack::{self, StackOptions},
};

/// Private services, a lab CA, a demonstration and benchmarks for Trustfleet.
///
/// Nothing here is meant for a real fleet: keys are made anew for each run and everything is thrown away at the end.
#[derive(Debug, Parser)]
#[command(name = "trustfleet-lab", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The lab's verbs.
#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant, reason = "there is one of it, parsed from the command line")]
pub enum Command {
    /// Run a command with a private PostgreSQL and RabbitMQ around it.
    ///
    /// Starts both on free ports of 127.0.0.1 below one temporary folder, creates the roles trustfleet_owner,
    /// trustfleet_api and trustfleet_system and the database trustfleet, makes the controller's keys, exports the
    /// TRUSTFLEET_* variables to the command, and ends everything, also what the command left running, when the
    /// command ends. The exit code is the command's.
    #[command(after_help = "Examples:\n  \
        trustfleet-lab stack -- cargo nextest run --workspace\n  \
        trustfleet-lab stack -- sh -c 'psql \"$TRUSTFLEET_DB_OWNER_URL\"'\n  \
        trustfleet-lab stack -- sleep infinity    # then `. FOLDER/env` in another shell")]
    Stack(StackArgs),
    /// Run a CA that really issues, over CMP, on a port of 127.0.0.1.
    ///
    /// Makes a root and an issuing CA, writes their certificates below --dir, prints one line of JSON with its URL when
    /// it is ready, and forgets everything when it ends (Ctrl-C or SIGTERM).
    #[command(after_help = "Example:\n  \
        trustfleet-lab ca --dir ca --port 8080 --secret dev1=S3cret\n  \
        openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out key.pem\n  \
        openssl cmp -config '' -cmd ir -server 127.0.0.1:8080 -path pkix/ -recipient '/O=Trustfleet Lab/CN=Lab Issuing CA' \\\n    \
            -ref dev1 -secret pass:S3cret -mac hmacWithSHA256 -newkey key.pem -subject /CN=dev1 -certout cert.pem")]
    Ca(CaArgs),
    /// Show the whole system at work: four devices enrolled and one renewed, verified by openssl.
    ///
    /// Starts PostgreSQL, RabbitMQ, a CA, the controller and three agents below one temporary folder, makes a tenant
    /// through the REST API and enrols its devices. On a terminal it stays up until Ctrl-C; everything is removed at
    /// the end.
    Demo(DemoArgs),
    /// Measure speed and size, each beside something to judge it by, and hold them against their targets.
    ///
    /// Measures the programs that were built beside this one; docs/benchmarks.md says what each figure means.
    Bench(BenchArgs),
    /// Run many real agents at once, and enrol and renew all their devices.
    ///
    /// At a running controller, or in a private house that is made for it and removed afterwards; in several processes, with
    /// faults by a seed.
    Fleet(FleetArgs),
    /// A process of `fleet` with many agents in it: what `fleet` calls.
    #[command(hide = true)]
    FleetPart(PartArgs),
    /// One figure of the controller's inside, in a process of its own: what `bench` calls.
    #[command(hide = true)]
    BenchInside(InsideArgs),
}

/// Arguments of `stack`.
#[derive(Debug, clap::Args)]
pub struct StackArgs {
    /// Folder below which the stack's own folder is made [default: the system's temporary folder]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Let PostgreSQL wait for the disk at each commit (for measurements; tests are faster without)
    #[arg(long)]
    fsync: bool,
    /// Encrypt everything: PostgreSQL and RabbitMQ take no plaintext; TRUSTFLEET_TLS_CA_FILE verifies them
    #[arg(long)]
    tls: bool,
    /// Say nothing while starting
    #[arg(long, short)]
    quiet: bool,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

impl Cli {
    /// Does what the command line says.
    pub async fn run(self) -> ExitCode {
        match self.command {
            Command::Stack(args) => {
                let options =
                    StackOptions { base_dir: args.dir, fsync: args.fsync, progress: !args.quiet, tls: args.tls };
                match stack::run(options, &args.command).await {
                    Ok(code) => ExitCode::from(code),
                    Err(error) => failed("stack", &error),
                }
            }
            Command::Ca(args) => match ca::run(args).await {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => failed("ca", &error),
            },
            Command::Demo(args) => demo::run(args).await,
            Command::Bench(args) => bench::run(args).await,
            Command::Fleet(args) => fleet::run(args).await,
            Command::FleetPart(args) => fleet::run_part(args).await,
            Command::BenchInside(args) => bench::inside(args).await,
        }
    }
}

/// Prints an error with its causes; exit code 125, which a command inside rarely uses for itself.
fn failed(verb: &str, error: &dyn std::error::Error) -> ExitCode {
    eprint!("{verb}: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        eprint!(": {error}");
        cause = error.source();
    }
    eprintln!();
    ExitCode::from(125)
}
