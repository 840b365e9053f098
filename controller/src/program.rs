//! The command line: the controller's own verbs, and the operator's, which use the public API only.

use std::{
    error::Error,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand};
use zeroize::Zeroizing;

use crate::{api, app, cli, entropy, keys, telemetry::chain};

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
    /// The controller's key files, and the first token
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
    /// Print the id of a controller's signing key: what agents without a token name as announce.controller_key
    Id {
        /// The file controller-signing.pem
        #[arg(long, value_name = "FILE")]
        signing_key: PathBuf,
    },
    /// Make a platform token that the controllers take over at their first start: the file that first_token_file names
    ///
    /// For replicas that must all find the same one, such as from a Kubernetes Secret. Where a single controller may
    /// write to first_token_file, it makes the token itself.
    FirstToken {
        /// Write the token into this new file with mode 0600; it is shown nowhere
        #[arg(long, value_name = "FILE")]
        write_to: PathBuf,
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
        Verb::Keys(KeysVerb::Id { signing_key }) => {
            ended("keys id", keys::signing_key_id(&signing_key).map(|id| println!("{id}")))
        }
        Verb::Keys(KeysVerb::FirstToken { write_to }) => ended("keys first-token", first_token(&write_to)),
        Verb::Operator(command) => cli::run(*command),
    }
}

fn first_token(path: &Path) -> Result<(), keys::KeyError> {
    let random = entropy::random().map_err(|_| keys::KeyError::Generate { what: "the first token" })?;
    keys::write_token(path, &api::auth::new_token(&Zeroizing::new(random)))?;
    println!("made {}", path.display());
    Ok(())
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
