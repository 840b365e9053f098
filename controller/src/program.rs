//! The command line: the controller's own verbs, and the operator's, which use the public API only.

use std::{error::Error, path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};

use crate::{app, cli, keys, telemetry::chain};

/// Keeps the certificates of a fleet of devices enrolled, renewed and in service.
#[derive(Debug, Parser)]
#[command(name = "trustfleet", version, after_help = cli::EXIT_CODES)]
struct Program {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Serve the REST API, publish jobs and take reports, until SIGTERM or SIGINT
    Serve(ConfigArgs),
    /// Bring the database's schema up to date
    Migrate(ConfigArgs),
    /// The controller's key files
    #[command(subcommand)]
    Keys(KeysVerb),
    #[command(flatten)]
    Operator(Box<cli::OperatorCommand>),
}

#[derive(Debug, Args)]
struct ConfigArgs {
    /// The controller's configuration, TOML
    #[arg(long, value_name = "FILE", env = "TRUSTFLEET_CONFIG")]
    config: PathBuf,
}

#[derive(Debug, Subcommand)]
enum KeysVerb {
    /// Make all keys; refuses to overwrite any
    Init {
        /// Folder for kek.key, controller-signing.pem, broker-token.pem and broker-token.pub.pem
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
    },
}

/// Does what the command line says.
pub fn run() -> ExitCode {
    match Program::parse().verb {
        Verb::Serve(args) => ended("serve", app::serve(&args.config)),
        Verb::Migrate(args) => ended(
            "migrate",
            app::migrate(&args.config).map(|applied| {
                if applied.is_empty() {
                    println!("the schema is up to date");
                }
                for name in applied {
                    println!("applied {name}");
                }
            }),
        ),
        Verb::Keys(KeysVerb::Init { dir }) => ended(
            "keys init",
            keys::init(&dir).map(|paths| {
                for path in paths {
                    println!("made {}", path.display());
                }
            }),
        ),
        Verb::Operator(command) => cli::run(*command),
    }
}

fn ended<E: Error>(verb: &str, result: Result<(), E>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("trustfleet {verb}: {}", chain(&error));
            ExitCode::FAILURE
        }
    }
}
