//! What a stack tells the command inside it, and what a test reads back.

use std::{env, fmt::Write as _, path::PathBuf};

use url::Url;

use super::{StackError, keys::KeyFiles, tls::TlsFiles};

/// URLs and files of a running stack, one field for each exported variable.
#[derive(Clone, Debug)]
pub struct StackEnv {
    /// `TRUSTFLEET_STACK_DIR`: the temporary folder, gone when the stack ends.
    pub dir: PathBuf,
    /// `TRUSTFLEET_PG_ADMIN_URL`: the superuser, on the database `postgres`; for creating databases.
    pub pg_admin_url: Url,
    /// `TRUSTFLEET_DB_OWNER_URL`: role `trustfleet_owner`, who owns the database `trustfleet` and migrates it.
    pub db_owner_url: Url,
    /// `TRUSTFLEET_DB_API_URL`: role `trustfleet_api`, bound to one tenant at a time by row level security.
    pub db_api_url: Url,
    /// `TRUSTFLEET_DB_SYSTEM_URL`: role `trustfleet_system`, which works across tenants by policies of its own.
    pub db_system_url: Url,
    /// `TRUSTFLEET_AMQP_URL`: RabbitMQ's internal administrator on the virtual host `/`.
    pub amqp_url: Url,
    /// `TRUSTFLEET_AMQP_MANAGEMENT_URL`: the same account at RabbitMQ's management API.
    pub amqp_management_url: Url,
    /// The key files: `TRUSTFLEET_BROKER_TOKEN_KEY_FILE`, `TRUSTFLEET_BROKER_TOKEN_PUBLIC_FILE`,
    /// `TRUSTFLEET_SIGNING_KEY_FILE`, `TRUSTFLEET_KEK_FILE`.
    pub keys: KeyFiles,
    /// Where everything is encrypted: `TRUSTFLEET_TLS_CA_FILE`, `TRUSTFLEET_TLS_CERT_FILE`, `TRUSTFLEET_TLS_KEY_FILE`.
    pub tls: Option<TlsFiles>,
}

impl StackEnv {
    /// The stack this process runs in, from its environment.
    ///
    /// # Errors
    /// [`StackError::NotInsideStack`] names the first variable that is missing or unreadable.
    pub fn from_env() -> Result<Self, StackError> {
        let text = |name| env::var(name).map_err(|_| StackError::NotInsideStack { name });
        let url = |name| text(name)?.parse().map_err(|_| StackError::NotInsideStack { name });
        Ok(Self {
            dir: text("TRUSTFLEET_STACK_DIR")?.into(),
            pg_admin_url: url("TRUSTFLEET_PG_ADMIN_URL")?,
            db_owner_url: url("TRUSTFLEET_DB_OWNER_URL")?,
            db_api_url: url("TRUSTFLEET_DB_API_URL")?,
            db_system_url: url("TRUSTFLEET_DB_SYSTEM_URL")?,
            amqp_url: url("TRUSTFLEET_AMQP_URL")?,
            amqp_management_url: url("TRUSTFLEET_AMQP_MANAGEMENT_URL")?,
            keys: KeyFiles {
                broker_token_key: text("TRUSTFLEET_BROKER_TOKEN_KEY_FILE")?.into(),
                broker_token_public: text("TRUSTFLEET_BROKER_TOKEN_PUBLIC_FILE")?.into(),
                signing_key: text("TRUSTFLEET_SIGNING_KEY_FILE")?.into(),
                kek: text("TRUSTFLEET_KEK_FILE")?.into(),
            },
            tls: match env::var("TRUSTFLEET_TLS_CA_FILE") {
                Ok(ca) => Some(TlsFiles {
                    ca: ca.into(),
                    certificate: text("TRUSTFLEET_TLS_CERT_FILE")?.into(),
                    key: text("TRUSTFLEET_TLS_KEY_FILE")?.into(),
                }),
                Err(_) => None,
            },
        })
    }

    /// All variables with their values.
    pub fn vars(&self) -> Vec<(&'static str, String)> {
        let path = |path: &PathBuf| path.display().to_string();
        let mut vars = vec![
            ("TRUSTFLEET_STACK_DIR", path(&self.dir)),
            ("TRUSTFLEET_PG_ADMIN_URL", self.pg_admin_url.to_string()),
            ("TRUSTFLEET_DB_OWNER_URL", self.db_owner_url.to_string()),
            ("TRUSTFLEET_DB_API_URL", self.db_api_url.to_string()),
            ("TRUSTFLEET_DB_SYSTEM_URL", self.db_system_url.to_string()),
            ("TRUSTFLEET_AMQP_URL", self.amqp_url.to_string()),
            ("TRUSTFLEET_AMQP_MANAGEMENT_URL", self.amqp_management_url.as_str().trim_end_matches('/').to_owned()),
            ("TRUSTFLEET_BROKER_TOKEN_KEY_FILE", path(&self.keys.broker_token_key)),
            ("TRUSTFLEET_BROKER_TOKEN_PUBLIC_FILE", path(&self.keys.broker_token_public)),
            ("TRUSTFLEET_SIGNING_KEY_FILE", path(&self.keys.signing_key)),
            ("TRUSTFLEET_KEK_FILE", path(&self.keys.kek)),
            ("TRUSTFLEET_STACK_ENV_FILE", path(&self.dir.join("env"))),
        ];
        if let Some(tls) = &self.tls {
            vars.push(("TRUSTFLEET_TLS_CA_FILE", path(&tls.ca)));
            vars.push(("TRUSTFLEET_TLS_CERT_FILE", path(&tls.certificate)));
            vars.push(("TRUSTFLEET_TLS_KEY_FILE", path(&tls.key)));
        }
        vars
    }

    /// The same as a file for `. FILE` in a shell.
    pub fn shell_text(&self) -> String {
        self.vars().iter().fold(String::new(), |mut text, (name, value)| {
            let _ = writeln!(text, "export {name}='{}'", value.replace('\'', r"'\''"));
            text
        })
    }
}

/// `base` (one of the database URLs) with another database.
pub fn with_database(base: &Url, database: &str) -> Url {
    let mut url = base.clone();
    url.set_path(database);
    url
}

/// `base` (the AMQP URL) with another virtual host.
pub fn with_vhost(base: &Url, vhost: &str) -> Url {
    let mut url = base.clone();
    url.set_path(&vhost.replace('%', "%25").replace('/', "%2F"));
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_database_or_virtual_host_keeps_account_port_and_options() {
        let url: Url = "amqp://u:p@127.0.0.1:5/%2F?frame_max=131072".parse().unwrap();
        assert_eq!(with_vhost(&url, "t1").as_str(), "amqp://u:p@127.0.0.1:5/t1?frame_max=131072");
        assert_eq!(with_vhost(&url, "/").as_str(), "amqp://u:p@127.0.0.1:5/%2F?frame_max=131072");
        let url: Url = "postgres://o@127.0.0.1:6/trustfleet".parse().unwrap();
        assert_eq!(with_database(&url, "t1").as_str(), "postgres://o@127.0.0.1:6/t1");
    }
}
