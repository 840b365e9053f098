//! A database and a virtual host for one test, and a controller's core on them.

use std::{env, sync::Arc, sync::OnceLock, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use tokio::runtime::{Builder, Runtime};
use tokio_postgres::{Client, NoTls};
use trustfleet_controller::{app::Core, config::Config, db};
use trustfleet_model::clock::{Clock, SystemClock};
use url::Url;

/// Advisory lock of whoever makes the template database.
const TEMPLATE_LOCK: i64 = 0x7466_7431;

/// Where this test's own database and virtual host are.
#[derive(Clone, Debug)]
pub struct Place {
    pub name: String,
    pub admin_url: Url,
    pub api_url: Url,
    pub system_url: Url,
    pub amqp_url: Url,
    pub vhost: String,
}

impl Place {
    /// Makes both.
    pub async fn make() -> Self {
        let name = format!("t_{}", hex::encode(random()));
        make_database(&name).await;
        let vhost = format!("v_{name}");
        make_vhost(&vhost).await;
        Self {
            admin_url: with_path(&variable("TRUSTFLEET_PG_ADMIN_URL"), &name),
            api_url: with_path(&variable("TRUSTFLEET_DB_API_URL"), &name),
            system_url: with_path(&variable("TRUSTFLEET_DB_SYSTEM_URL"), &name),
            amqp_url: with_path(&variable("TRUSTFLEET_AMQP_URL"), &vhost),
            vhost,
            name,
        }
    }

    /// A configuration for this place; `more` is TOML that follows.
    pub fn config(&self, more: &str) -> Config {
        let mut agent_url = self.amqp_url.clone();
        agent_url.set_username("").unwrap();
        agent_url.set_password(None).unwrap();
        let file = |name| env::var(name).unwrap_or_else(|_| outside(name));
        let management = variable("TRUSTFLEET_AMQP_MANAGEMENT_URL");
        Config::from_toml(&format!(
            "[http]\nlisten = \"127.0.0.1:0\"\nworkers = 1\nrate_limit_per_s = 0\nfailed_limit_per_min = 0\n\
             [database]\napi_url = \"{}\"\nsystem_url = \"{}\"\nmax_connections = 8\n\
             [broker]\nurl = \"{}\"\nagent_url = \"{agent_url}\"\nmanagement_url = \"{management}\"\n\
             [keys]\nsigning_key_file = \"{}\"\nbroker_token_key_file = \"{}\"\nkey_encryption_key_file = \"{}\"\n\
             {more}\n",
            self.api_url,
            self.system_url,
            self.amqp_url,
            file("TRUSTFLEET_SIGNING_KEY_FILE"),
            file("TRUSTFLEET_BROKER_TOKEN_KEY_FILE"),
            file("TRUSTFLEET_KEK_FILE"),
        ))
        .unwrap()
    }

    /// A connection as the superuser, past row level security.
    pub async fn admin(&self) -> Client {
        connect(&self.admin_url).await
    }

    /// A controller's core, connected to its broker.
    pub async fn core(&self) -> Core {
        self.core_with("").await
    }

    /// The same with more configuration.
    pub async fn core_with(&self, more: &str) -> Core {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let core = Core::start(self.config(more), backend().handle(), clock).await.unwrap();
        tokio::time::timeout(Duration::from_secs(30), core.services.broker.ready()).await.expect("the broker answers");
        core
    }
}

/// The multi-thread runtime of this test process.
pub fn backend() -> &'static Runtime {
    static BACKEND: OnceLock<Runtime> = OnceLock::new();
    BACKEND.get_or_init(|| Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap())
}

/// Waits until `look` finds something, for 20 seconds at most.
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..400 {
        if let Some(found) = look().await {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("waited in vain for: {what}");
}

pub async fn connect(url: &Url) -> Client {
    let (client, connection) = tokio_postgres::connect(url.as_str(), NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Ten random bytes.
pub fn random() -> [u8; 10] {
    trustfleet_controller::entropy::random().unwrap()
}

async fn make_database(name: &str) {
    let admin = connect(&variable("TRUSTFLEET_PG_ADMIN_URL")).await;
    let template = format!("trustfleet_template_{}", db::schema_version());
    admin.execute("SELECT pg_advisory_lock($1)", &[&TEMPLATE_LOCK]).await.unwrap();
    let found = admin.query("SELECT FROM pg_database WHERE datname = $1", &[&template]).await.unwrap();
    if found.is_empty() {
        admin.batch_execute(&format!("CREATE DATABASE {template} OWNER trustfleet_owner")).await.unwrap();
        let owner = with_path(&variable("TRUSTFLEET_DB_OWNER_URL"), &template);
        db::migrate(&owner.into(), None).await.unwrap();
    }
    // A template must have no connection: the migration's may be closing still.
    until("the template to be free", async || {
        let sql = format!("CREATE DATABASE {name} TEMPLATE {template} OWNER trustfleet_owner");
        admin.batch_execute(&sql).await.ok()
    })
    .await;
    admin.execute("SELECT pg_advisory_unlock($1)", &[&TEMPLATE_LOCK]).await.unwrap();
}

async fn make_vhost(name: &str) {
    let management = variable("TRUSTFLEET_AMQP_MANAGEMENT_URL");
    let user = management.username().to_owned();
    manage(&management, "PUT", &format!("api/vhosts/{name}"), "{}").await;
    let everything = r#"{"configure":".*","write":".*","read":".*"}"#;
    manage(&management, "PUT", &format!("api/permissions/{name}/{user}"), everything).await;
}

/// A call of RabbitMQ's management API; returns the answer's body.
pub async fn manage(management: &Url, method: &str, path: &str, body: &str) -> String {
    let credentials = STANDARD.encode(format!("{}:{}", management.username(), management.password().unwrap()));
    let mut url = management.clone();
    url.set_username("").unwrap();
    url.set_password(None).unwrap();
    let url = url.join(path).unwrap().to_string();
    let request = ureq::http::Request::builder()
        .method(method)
        .uri(url)
        .header("authorization", format!("Basic {credentials}"))
        .header("content-type", "application/json")
        .body(body.to_owned())
        .unwrap();
    tokio::task::spawn_blocking(move || ureq::run(request).unwrap().body_mut().read_to_string().unwrap()).await.unwrap()
}

/// One of the stack's variables.
pub fn variable_text(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| outside(name))
}

/// One of the stack's URLs.
pub fn variable(name: &str) -> Url {
    env::var(name).unwrap_or_else(|_| outside(name)).parse().unwrap()
}

pub fn with_path(url: &Url, path: &str) -> Url {
    let mut url = url.clone();
    url.set_path(path);
    url
}

fn outside(name: &str) -> ! {
    panic!("{name} is not set: run this inside `trustfleet-lab stack -- …`")
}
