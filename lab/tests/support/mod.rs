//! A house per test: database, virtual host and folder of its own.
#![allow(dead_code)] // each test file uses its part

use std::{path::Path, time::Duration};

use serde_json::{Value, json};
use tempfile::TempDir;
use trustfleet_lab::{
    house::{Fleet, House, TENANT},
    stack::StackEnv,
    testkit::{TestDb, TestVhost, command, eventually},
};

/// Everything that one test needs, cleared away when it ends.
pub(crate) struct Lab {
    pub(crate) house: House,
    pub(crate) env: StackEnv,
    pub(crate) db: Option<TestDb>,
    pub(crate) vhost: Option<TestVhost>,
    pub(crate) dir: TempDir,
}

impl Lab {
    /// On the run's stack, with a database and a virtual host of its own.
    pub(crate) async fn start() -> Self {
        let mut env = StackEnv::from_env().expect("run inside `trustfleet-lab stack -- …`, as `make test` does");
        let db = TestDb::create("house", async |_: &url::Url| Ok::<_, std::convert::Infallible>(())).await.unwrap();
        let vhost = TestVhost::create().await.unwrap();
        env.db_owner_url = db.owner_url();
        env.db_api_url = db.api_url();
        env.db_system_url = db.system_url();
        env.amqp_url = vhost.amqp_url().clone();
        let mut lab = Self::start_on(env).await;
        (lab.db, lab.vhost) = (Some(db), Some(vhost));
        lab
    }

    /// On a stack of the test's own.
    pub(crate) async fn start_on(env: StackEnv) -> Self {
        let dir = tempfile::Builder::new().prefix("trustfleet-test-").tempdir().unwrap();
        let house = House::start(dir.path(), &env).await.unwrap();
        Self { house, env, db: None, vhost: None, dir }
    }

    pub(crate) async fn fleet(&self, devices: &[&str], policy: &Value) -> Fleet {
        Fleet::create(&self.house, devices, policy).await.unwrap()
    }

    /// Runs an operator's verb in the lab's tenant, as the platform's administrator: whether it succeeded, and what it said.
    pub(crate) fn verb(&self, words: &[&str]) -> (bool, String) {
        let mut shell = command("trustfleet").unwrap();
        shell.args(words).env("TRUSTFLEET_URL", self.house.platform.base().as_str()).env("TRUSTFLEET_TENANT", TENANT);
        let output = shell.env("TRUSTFLEET_TOKEN_FILE", &self.house.files.first_token).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.success(), said)
    }

    pub(crate) async fn eventually<T>(&self, what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
        eventually(Duration::from_secs(60), what, async || probe()).await.unwrap()
    }

    /// Reads a sample from the scrape; its name with labels as Prometheus prints them.
    pub(crate) fn metric(&self, sample: &str) -> Option<f64> {
        let text = self.house.platform.get("/metrics").ok()?;
        let text = text.as_str()?.to_owned();
        text.lines().find_map(|line| line.strip_prefix(sample)?.trim().parse().ok())
    }

    pub(crate) async fn metric_becomes(&self, sample: &str, value: f64) {
        self.eventually(&format!("{sample} is {value}"), || {
            self.metric(sample).filter(|found| (found - value).abs() < f64::EPSILON)
        })
        .await;
    }

    /// What the lab CA says it has issued.
    pub(crate) fn issued_by_ca(&self, fleet: &Fleet) -> Vec<Value> {
        let url = fleet.ca_url.join("/lab/issued").unwrap();
        let text = ureq::get(url.as_str()).call().unwrap().body_mut().read_to_string().unwrap();
        let found: Value = serde_json::from_str(&text).unwrap();
        found.as_array().or_else(|| found["issued"].as_array()).or_else(|| found["items"].as_array()).unwrap().clone()
    }
}

/// P-256 keys, so that no test waits for RSA primes; implicit confirmation is left to the CA's default.
pub(crate) fn policy() -> Value {
    json!({ "key": { "algorithm": "ecdsa-p256" } })
}

/// Every path below a folder, as text; links are not followed.
pub(crate) fn files_below(folder: &Path) -> impl Iterator<Item = String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            found.push(entry.path().display().to_string());
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(entry.path());
            }
        }
    }
    found.into_iter()
}
