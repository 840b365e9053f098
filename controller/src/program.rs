//! The command line: the controller's own verbs, and the operator's, which use the public API only.

use std::{
    error::Error,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand};
use zeroize::Zeroizing;

use crate::{
    api, app, cli, entropy, keys,
    rotation::{Rotation, RotationError},
    telemetry::chain,
};

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
    /// Make a further key-encryption key, to be named in keys.further_key_encryption_key_files of every controller
    Add {
        /// New file for it, mode 0600
        #[arg(long, value_name = "FILE")]
        write_to: PathBuf,
    },
    /// List the key-encryption keys, and how many secrets are under each
    Status(ConfigArgs),
    /// Move all secrets to the key that keys.key_encryption_key_file names; controllers go on working
    ///
    /// Every controller must have that key already, first or further. It can be interrupted and started again.
    Rotate(ConfigArgs),
    /// Forget a key-encryption key that no secret is under, so that nothing can be stored under it again
    Remove {
        #[command(flatten)]
        config: ConfigArgs,
        /// Its id, from `keys status`
        #[arg(long, value_name = "ID")]
        id: String,
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
        Verb::Keys(KeysVerb::Add { write_to }) => ended(
            "keys add",
            keys::add(&write_to).map(|id| {
                println!("made {} with the key {id}", write_to.display());
                eprintln!(
                    "next: name it in keys.further_key_encryption_key_files of every controller and restart them; then name it \
                     in keys.key_encryption_key_file, the former one further, and restart them; then trustfleet keys rotate"
                );
            }),
        ),
        Verb::Keys(KeysVerb::Status(args)) => ended("keys status", key_status(&args.config)),
        Verb::Keys(KeysVerb::Rotate(args)) => ended(
            "keys rotate",
            with_keys(&args.config, async |rotation| rotation.rotate().await)
                .map(|moved| println!("{moved} secret(s) moved to the first key")),
        ),
        Verb::Keys(KeysVerb::Remove { config, id }) => ended(
            "keys remove",
            with_keys(&config.config, async |rotation| rotation.remove(&id).await).map(|()| {
                println!("{id} is forgotten: take it out of every configuration, restart, and delete its file");
            }),
        ),
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

fn with_keys<T>(
    config: &Path,
    work: impl AsyncFnOnce(Rotation) -> Result<T, RotationError>,
) -> Result<T, RotationError> {
    let backend = app::backend()?;
    let rotation = Rotation::open(config, backend.handle())?;
    backend.block_on(work(rotation))
}

fn key_status(config: &Path) -> Result<(), RotationError> {
    let uses = with_keys(config, async |rotation| rotation.status().await)?;
    println!("{:<18} {:<14} {:>10}  newest", "KEY", "HERE", "SECRETS");
    for (kek, here) in uses {
        let newest = kek.newest.map_or_else(|| "-".to_owned(), |at| at.to_string());
        println!("{:<18} {here:<14} {:>10}  {newest}", kek.kek_id, kek.secrets);
    }
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
