//! Configuration files of the controller and of agents, as an operator would write them.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use url::Url;

use crate::stack::{StackEnv, with_vhost};

/// What a controller needs to know in order to start on a stack.
#[derive(Clone, Debug)]
pub struct ControllerFiles {
    /// The configuration.
    pub config: PathBuf,
    /// Where its first start writes the platform's token.
    pub first_token: PathBuf,
}

impl ControllerFiles {
    /// Writes the configuration of a controller on the stack's own database and virtual host into `dir`; it listens on
    /// `port` of 127.0.0.1, 0 takes a free one.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(dir: &Path, env: &StackEnv, port: u16) -> io::Result<Self> {
        let mut agent_url = env.amqp_url.clone();
        agent_url.set_query(None);
        // Setting no user and no password on a URL with a host cannot fail.
        let _ = agent_url.set_username("");
        let _ = agent_url.set_password(None);
        let files = Self { config: dir.join("controller.toml"), first_token: dir.join("platform.token") };
        let mut tree = json!({
            "first_token_file": files.first_token,
            // What is measured here is not to be limited, and tests ask faster than people.
            "http": { "listen": format!("127.0.0.1:{port}"), "rate_limit_per_s": 0, "failed_limit_per_min": 0 },
            "database": { "api_url": env.db_api_url, "system_url": env.db_system_url, "owner_url": env.db_owner_url },
            "broker": { "url": env.amqp_url, "agent_url": agent_url, "management_url": env.amqp_management_url,
                "log_url": with_vhost(&env.amqp_url, "/") },
            "keys": {
                "signing_key_file": env.keys.signing_key,
                "broker_token_key_file": env.keys.broker_token_key,
                "key_encryption_key_file": env.keys.kek,
            },
        });
        if let Some(tls) = &env.tls {
            tree["http"]["tls_cert_file"] = json!(tls.certificate);
            tree["http"]["tls_key_file"] = json!(tls.key);
            tree["database"]["tls_ca_file"] = json!(tls.ca);
            tree["broker"]["tls_ca_file"] = json!(tls.ca);
        }
        write_toml(&files.config, &tree)?;
        Ok(files)
    }
}

/// What an agent needs to know in order to join.
#[derive(Clone, Debug)]
pub struct AgentFiles {
    /// The configuration.
    pub config: PathBuf,
    /// Its state: keys, job records, certificates.
    pub state: PathBuf,
}

impl AgentFiles {
    /// Writes the configuration and the join token of an agent called `name` into `dir`.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn write(dir: &Path, name: &str, controller: &Url, join_token: &str) -> io::Result<Self> {
        Self::write_trusting(dir, name, controller, join_token, None)
    }

    /// The same; with `ca_file` that is what verifies controller, broker and CA.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn write_trusting(
        dir: &Path,
        name: &str,
        controller: &Url,
        join_token: &str,
        ca_file: Option<&Path>,
    ) -> io::Result<Self> {
        let files = Self { config: dir.join(format!("{name}.toml")), state: dir.join(name) };
        let token = dir.join(format!("{name}.join-token"));
        fs::write(&token, join_token)?;
        let mut tree = json!({
            "controller_url": controller,
            "state_dir": files.state,
            "name": name,
            "join_token_file": token,
        });
        if let Some(ca_file) = ca_file {
            tree["tls_ca_file"] = json!(ca_file);
        }
        write_toml(&files.config, &tree)?;
        Ok(files)
    }
}

fn write_toml(path: &Path, tree: &Value) -> io::Result<()> {
    fs::write(path, toml::to_string(tree).map_err(io::Error::other)?)
}
