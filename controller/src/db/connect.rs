//! How connections are opened: encrypted and verified, or in plain text, as the configuration has decided.

use std::{future::Future, pin::Pin, sync::Arc};

use deadpool_postgres::Connect;
use tokio::{runtime::Handle, task::JoinHandle};
use tokio_postgres::{Client, Config, NoTls, config::SslMode};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::{config::SecretUrl, tls::ClientTls};

/// A driver's work; it ends with its connection.
type Driver = Pin<Box<dyn Future<Output = Result<(), tokio_postgres::Error>> + Send>>;

/// The URL as the driver reads it. Its `sslmode` was judged by the configuration; what is left is all or nothing.
pub(super) fn driver_config(url: &SecretUrl, encrypted: bool) -> Result<Config, tokio_postgres::Error> {
    let mut plain = url.expose().clone();
    let others: Vec<_> = url.expose().query_pairs().filter(|(key, _)| key != "sslmode").collect();
    if others.is_empty() {
        plain.set_query(None);
    } else {
        plain.query_pairs_mut().clear().extend_pairs(others);
    }
    let mut config: Config = plain.as_str().parse()?;
    config.ssl_mode(if encrypted { SslMode::Require } else { SslMode::Disable });
    Ok(config)
}

/// Connects, with TLS where there are roots for it.
pub(super) async fn open(config: &Config, tls: Option<&ClientTls>) -> Result<(Client, Driver), tokio_postgres::Error> {
    match tls {
        Some(tls) => {
            let connector = MakeRustlsConnect::new(rustls::ClientConfig::clone(&tls.config()));
            let (client, connection) = config.connect(connector).await?;
            Ok((client, Box::pin(connection)))
        }
        None => {
            let (client, connection) = config.connect(NoTls).await?;
            Ok((client, Box::pin(connection)))
        }
    }
}

/// Opens connections on the multi-thread runtime, whoever asks: a driver on an HTTP worker's or an actor's single
/// thread would wait for that thread.
pub(super) struct OnBackend {
    pub(super) backend: Handle,
    pub(super) tls: Option<Arc<ClientTls>>,
}

type Connected = Result<(Client, JoinHandle<()>), tokio_postgres::Error>;

impl Connect for OnBackend {
    fn connect(&self, config: &Config) -> Pin<Box<dyn Future<Output = Connected> + Send + '_>> {
        let (config, tls) = (config.clone(), self.tls.clone());
        let driver_runtime = self.backend.clone();
        let connecting = self.backend.spawn(async move {
            let (client, connection) = open(&config, tls.as_deref()).await?;
            let driver = driver_runtime.spawn(async move {
                if let Err(error) = connection.await {
                    tracing::warn!(error = %error, "connection to the database ended");
                }
            });
            Ok((client, driver))
        });
        Box::pin(async move {
            match connecting.await {
                Ok(connected) => connected,
                // The runtime is shutting down: like a connection that was closed while it was made.
                Err(_) => Err(tokio_postgres::Error::__private_api_timeout()),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sslmode_of_the_configuration_is_read_and_other_parameters_stay() {
        for mode in ["?sslmode=verify-full&application_name=x", "?application_name=x&sslmode=require"] {
            let url: url::Url = format!("postgres://a:p%40@db.example/t{mode}").parse().unwrap();
            let config = driver_config(&url.into(), true).unwrap();
            assert_eq!(config.get_ssl_mode(), SslMode::Require);
            assert_eq!((config.get_application_name(), config.get_dbname()), (Some("x"), Some("t")));
            assert_eq!(config.get_password(), Some("p@".as_bytes()));
        }
        let url: url::Url = "postgres://a@127.0.0.1/t".parse().unwrap();
        assert_eq!(driver_config(&url.into(), false).unwrap().get_ssl_mode(), SslMode::Disable);
    }
}
