//! Why the controller does not start, or not go on.

use std::io;

use trustfleet_telemetry::TracesError;

use crate::{
    config::ConfigError,
    db::{DbError, SchemaError},
    keys::KeyError,
    tls::TlsError,
};

/// The controller could not start, or not go on.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A key file is wrong.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Certificates, keys or roots for TLS are wrong.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Traces cannot be sent as configured.
    #[error("the configuration is wrong")]
    Traces(#[from] TracesError),
    /// The schema does not fit.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// Secrets are encrypted under keys that the configuration does not name.
    #[error(
        "secrets in the database are encrypted under the key-encryption key {0}, which this controller has not: name its \
         file in keys.further_key_encryption_key_files; `trustfleet keys status` lists all"
    )]
    MissingKey(String),
    /// A database URL cannot be read.
    #[error("a database URL of the configuration cannot be read")]
    Database(#[from] DbError),
    /// `migrate` needs the owner.
    #[error("database.owner_url is missing: migrations are run by the owner of the tables")]
    NoOwner,
    /// The address cannot be listened on.
    #[error("cannot listen on {address} (http.listen): another program may use it")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The first platform token could not be made or written.
    #[error("the first platform token could not be made (first_token_file)")]
    FirstToken(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A part that must always run has ended, by a panic.
    #[error("{0} ended by itself, the log says why; the process ends with it, to be started again")]
    PartEnded(&'static str),
    /// Threads, signals or metrics.
    #[error("the process could not be set up")]
    Process(#[source] Box<dyn std::error::Error + Send + Sync>),
}
