//! A database per test, copied from a template that is migrated once per run.

use std::{error::Error, fs, path::Path};

use aws_lc_rs::digest::{Context, SHA256};
use tokio_postgres::Client;
use url::Url;

use super::TestkitError;
use crate::stack::{StackEnv, connect, random_word, with_database};

/// Any number, the same in every process of a run: who holds it makes the template.
const TEMPLATE_LOCK: i64 = 0x7472_7573_7466_6c74;

/// A database of one test's own; removed when dropped.
#[derive(Debug)]
pub struct TestDb {
    name: String,
    env: StackEnv,
}

impl TestDb {
    /// Makes a database with the present migrations applied.
    ///
    /// `migrate` gets the owner's URL of an empty database; it is called by the first test that comes (in whatever
    /// process) with this `label`, and again only when a file in `migrations/` has changed since. The label (letters,
    /// digits, underscores) names what `migrate` makes: tests with the same label share one template.
    ///
    /// # Errors
    /// [`TestkitError::Stack`] outside a stack, [`TestkitError::Migration`] or [`TestkitError::Sql`].
    pub async fn create<E>(label: &str, migrate: impl AsyncFnOnce(&Url) -> Result<(), E>) -> Result<Self, TestkitError>
    where
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let env = StackEnv::from_env()?;
        let template = format!("template_{label}_{}", migrations_fingerprint()?);
        let admin = connect(&env.pg_admin_url, env.tls.as_ref()).await?;
        make_template(&admin, &template, &with_database(&env.db_owner_url, &template), migrate).await?;
        let name = format!("test_{}", random_word(8)?);
        admin
            .batch_execute(&format!("CREATE DATABASE {name} TEMPLATE {template} OWNER trustfleet_owner"))
            .await
            .map_err(sql("copy the migrated template"))?;
        Ok(Self { name, env })
    }

    /// The database's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// As `trustfleet_owner`.
    pub fn owner_url(&self) -> Url {
        with_database(&self.env.db_owner_url, &self.name)
    }

    /// As `trustfleet_api`.
    pub fn api_url(&self) -> Url {
        with_database(&self.env.db_api_url, &self.name)
    }

    /// As `trustfleet_system`.
    pub fn system_url(&self) -> Url {
        with_database(&self.env.db_system_url, &self.name)
    }

    /// As the superuser, whom row level security does not bind: for looking at what was really written.
    pub fn admin_url(&self) -> Url {
        with_database(&self.env.pg_admin_url, &self.name)
    }

    /// A connection for the test's own questions, as the superuser.
    ///
    /// # Errors
    /// [`TestkitError::Stack`].
    pub async fn admin(&self) -> Result<Client, TestkitError> {
        Ok(connect(&self.admin_url(), self.env.tls.as_ref()).await?)
    }
}

/// A connection as the superuser to the stack's own database.
///
/// # Errors
/// [`TestkitError::Stack`].
pub async fn admin(env: &StackEnv) -> Result<Client, TestkitError> {
    Ok(connect(&env.pg_admin_url, env.tls.as_ref()).await?)
}

impl Drop for TestDb {
    fn drop(&mut self) {
        let (url, tls, name) = (self.env.pg_admin_url.clone(), self.env.tls.clone(), self.name.clone());
        // A thread, because a drop may happen inside a runtime that must not be blocked on itself.
        let removal = std::thread::spawn(move || {
            let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
            runtime.block_on(async {
                if let Ok(admin) = connect(&url, tls.as_ref()).await {
                    let _ = admin.batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await;
                }
            });
        });
        let _ = removal.join();
    }
}

async fn make_template<E>(
    admin: &Client,
    template: &str,
    owner_url: &Url,
    migrate: impl AsyncFnOnce(&Url) -> Result<(), E>,
) -> Result<(), TestkitError>
where
    E: Into<Box<dyn Error + Send + Sync>>,
{
    let lock = "SELECT pg_advisory_lock($1)";
    admin.execute(lock, &[&TEMPLATE_LOCK]).await.map_err(sql("lock the template"))?;
    let finished = "SELECT 1 FROM pg_database WHERE datname = $1 AND datistemplate";
    if admin.query_opt(finished, &[&template]).await.map_err(sql("look for the template"))?.is_none() {
        // What an interrupted attempt left is no template.
        let begin = [
            format!("DROP DATABASE IF EXISTS {template} WITH (FORCE)"),
            format!("CREATE DATABASE {template} OWNER trustfleet_owner"),
        ];
        for statement in begin {
            admin.batch_execute(&statement).await.map_err(sql("create the template"))?;
        }
        migrate(owner_url).await.map_err(|error| TestkitError::Migration(error.into()))?;
        // Copying needs a template without connections, also those that are just closing.
        let finish = [
            format!("ALTER DATABASE {template} ALLOW_CONNECTIONS false"),
            format!("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{template}'"),
            format!("ALTER DATABASE {template} IS_TEMPLATE true"),
        ];
        for statement in finish {
            admin.batch_execute(&statement).await.map_err(sql("finish the template"))?;
        }
    }
    let unlock = "SELECT pg_advisory_unlock($1)";
    admin.execute(unlock, &[&TEMPLATE_LOCK]).await.map_err(sql("unlock the template"))?;
    Ok(())
}

/// Sixteen hexadecimal digits that change with any file of `migrations/`.
fn migrations_fingerprint() -> Result<String, TestkitError> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations");
    let failed = |error| crate::stack::StackError::io(format!("reading {}", folder.display()))(error);
    let mut files: Vec<_> = fs::read_dir(&folder).map_err(failed)?.flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "sql"));
    files.sort_unstable();
    let mut context = Context::new(&SHA256);
    for file in files {
        context.update(file.as_os_str().as_encoded_bytes());
        context.update(&fs::read(&file).map_err(failed)?);
    }
    Ok(hex::encode(&context.finish().as_ref()[..8]))
}

fn sql(what: &'static str) -> impl FnOnce(tokio_postgres::Error) -> TestkitError {
    move |source| TestkitError::Sql { what, source }
}
