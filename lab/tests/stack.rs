//! The private stack keeps its promises: it works, it hands back exit codes, and it leaves nothing behind.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use aws_lc_rs::{rand::SystemRandom, rsa::KeyPair, signature::RSA_PKCS1_SHA256};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties,
    options::{BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions},
    types::FieldTable,
};
use serde_json::json;
use trustfleet_lab::testkit::{Child, Stack, StackEnv, StackOptions, TestDb, TestVhost, eventually};
use trustfleet_model::clock::{Clock as _, SystemClock};

const PATIENCE: Duration = Duration::from_secs(200);

// ---- the command ----------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_command_reaches_both_services_and_nothing_is_left_of_what_it_left_running() {
    let base = tempfile::tempdir().unwrap();
    let script = r#"
        psql -qtA "$TRUSTFLEET_DB_OWNER_URL" -c 'select current_user' >"$OUT/owner" &&
        psql -qtA "$TRUSTFLEET_DB_API_URL" -c "select rolbypassrls from pg_roles where rolname = current_user" >"$OUT/api" &&
        . "$TRUSTFLEET_STACK_DIR/env" && test -r "$TRUSTFLEET_SIGNING_KEY_FILE" && echo "$TRUSTFLEET_STACK_MARK" >"$OUT/mark"
        setsid sleep 301 & nohup sleep 302 >/dev/null 2>&1 &
        exit 7"#;
    let mut stack = start_stack(base.path(), script);
    let status = stack.wait(PATIENCE).await.unwrap();
    assert_eq!(status.code(), Some(7), "{}", stack.log());
    assert_eq!(read(base.path(), "owner"), "trustfleet_owner");
    assert_eq!(read(base.path(), "api"), "f");
    assert_nothing_left(base.path()).await;
}

#[tokio::test]
async fn an_interrupt_is_handed_on_and_ends_everything() {
    let base = tempfile::tempdir().unwrap();
    let mut stack = start_stack(base.path(), &format!("trap 'exit 9' INT; {NOTE_MARK} sleep 303 & wait"));
    mark_of(base.path(), &mut stack).await;
    assert!(Command::new("kill").args(["-INT", &stack.id().to_string()]).status().unwrap().success());
    assert_eq!(stack.wait(PATIENCE).await.unwrap().code(), Some(9), "{}", stack.log());
    assert_nothing_left(base.path()).await;
}

#[tokio::test]
async fn a_stack_that_is_killed_leaves_nothing_either() {
    let base = tempfile::tempdir().unwrap();
    let mut stack =
        start_stack(base.path(), &format!("trap '' TERM; {NOTE_MARK} setsid sleep 304 & sleep 305; sleep 306"));
    mark_of(base.path(), &mut stack).await;
    stack.kill().await;
    assert_nothing_left(base.path()).await;
}

#[test]
fn the_help_shows_how_to_run_tests_inside() {
    let output = Command::new(env!("CARGO_BIN_EXE_trustfleet-lab")).args(["stack", "--help"]).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("trustfleet-lab stack -- cargo nextest run"));
}

// ---- the broker -----------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_stopped_broker_comes_back_on_its_port_with_durable_messages_and_a_stopped_database_with_its_rows() {
    let mut stack = Stack::start(StackOptions::default()).await.unwrap();
    let url = stack.env().amqp_url.clone();
    let channel = channel(url.as_str()).await.unwrap();
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare("kept".into(), durable, FieldTable::default()).await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    let persistent = BasicProperties::default().with_delivery_mode(2);
    let confirm = channel.basic_publish("".into(), "kept".into(), BasicPublishOptions::default(), b"job", persistent);
    assert!(confirm.await.unwrap().await.unwrap().is_ack());

    stack.rabbit.stop().await;
    assert!(connect(url.as_str()).await.is_err());
    stack.rabbit.start().await.unwrap();
    let channel = self::channel(url.as_str()).await.unwrap();
    let message = channel.basic_get("kept".into(), BasicGetOptions { no_ack: true }).await.unwrap().expect("a message");
    assert_eq!(message.data, b"job");

    let sql = |statement: &'static str| {
        Command::new("psql").args([stack.env().db_owner_url.as_str(), "-qtAc", statement]).output().unwrap()
    };
    assert!(sql("create table kept as select 42 as answer").status.success());
    let stopped = {
        stack.postgres.stop().await;
        Command::new("psql").args([stack.env().db_owner_url.as_str(), "-qtAc", "select 1"]).output().unwrap()
    };
    assert!(!stopped.status.success());
    stack.postgres.start().await.unwrap();
    let rows = Command::new("psql").args([stack.env().db_owner_url.as_str(), "-qtAc", "table kept"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&rows.stdout).trim(), "42");
    stack.stop().await;
}

#[tokio::test]
async fn a_token_lets_an_agent_read_its_own_queue_and_nothing_else() {
    let env = StackEnv::from_env().unwrap();
    let vhost = TestVhost::create().await.unwrap();
    let admin = channel(vhost.amqp_url().as_str()).await.unwrap();
    for queue in ["agent.a1", "agent.a2"] {
        admin.queue_declare(queue.into(), QueueDeclareOptions::default(), FieldTable::default()).await.unwrap();
    }
    let now = SystemClock.now();
    let url = |expires: Timestamp| {
        let token = token(&env.keys.broker_token_key, "a1", vhost.name(), expires);
        let mut url = vhost.amqp_url().clone();
        url.set_username("a1").unwrap();
        url.set_password(Some(&token)).unwrap();
        url.to_string()
    };
    let fresh = url(now + Duration::from_secs(300));
    let read = BasicGetOptions::default();
    let own = channel(&fresh).await.unwrap();
    assert!(own.basic_get("agent.a1".into(), read).await.unwrap().is_none());
    assert!(own.basic_get("agent.a2".into(), read).await.unwrap_err().to_string().contains("ACCESS_REFUSED"));
    assert!(connect(&url(now - Duration::from_secs(300))).await.is_err());
}

#[tokio::test]
async fn a_virtual_host_ends_with_its_test() {
    let witness = TestVhost::create().await.unwrap();
    let path = {
        let vhost = TestVhost::create().await.unwrap();
        channel(vhost.amqp_url().as_str()).await.unwrap();
        let path = format!("/api/vhosts/{}", vhost.name());
        witness.management("GET", &path, None).await.unwrap();
        path
    };
    assert!(witness.management("GET", &path, None).await.is_err());
}

// ---- the database ---------------------------------------------------------------------------------------------------

#[tokio::test]
async fn each_test_has_a_database_of_its_own() {
    let create = || TestDb::create("empty", async |_: &_| Ok::<(), std::io::Error>(()));
    let (one, other) = (create().await.unwrap(), create().await.unwrap());
    let client = one.admin().await.unwrap();
    client.batch_execute("create table mine ()").await.unwrap();
    assert!(other.admin().await.unwrap().batch_execute("table mine").await.is_err());
    let name = one.name().to_owned();
    drop((client, one));
    let question = "select count(*) from pg_database where datname = $1";
    let count: i64 = other.admin().await.unwrap().query_one(question, &[&name]).await.unwrap().get(0);
    assert_eq!(count, 0);
}

// ---- helpers --------------------------------------------------------------------------------------------------------

const NOTE_MARK: &str = r#"echo "$TRUSTFLEET_STACK_MARK" >"$OUT/mark.new"; mv "$OUT/mark.new" "$OUT/mark";"#;

/// `trustfleet-lab stack -- sh -c SCRIPT` with its folder below `base`, which is also `$OUT`.
fn start_stack(base: &Path, script: &str) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trustfleet-lab"));
    command.args(["stack", "--dir"]).arg(base).args(["--", "sh", "-c", script]).env("OUT", base);
    command.stdin(Stdio::null());
    // PostgreSQL must pass through to its folder when it runs as another user.
    let passable = std::os::unix::fs::PermissionsExt::from_mode(0o711);
    fs::set_permissions(base, passable).unwrap();
    Child::start("stack", command).unwrap()
}

fn read(base: &Path, name: &str) -> String {
    fs::read_to_string(base.join(name)).unwrap().trim().to_owned()
}

async fn mark_of(base: &Path, stack: &mut Child) {
    let noted = eventually(PATIENCE, "the command runs inside the stack", async || {
        (base.join("mark").exists() || !stack.is_running()).then_some(())
    });
    noted.await.unwrap();
    assert!(stack.is_running(), "{}", stack.log());
}

/// No process carries the mark, none of PostgreSQL's works below `base`, and the folder is gone.
async fn assert_nothing_left(base: &Path) {
    let mark = format!("TRUSTFLEET_STACK_MARK={}", read(base, "mark"));
    eventually(Duration::from_secs(20), "nothing is left of the stack", async || {
        let folders = fs::read_dir(base).unwrap().flatten().filter(|entry| entry.path().is_dir()).count();
        (folders == 0 && processes_of(&mark, base).is_empty()).then_some(())
    })
    .await
    .unwrap_or_else(|error| panic!("{error}: {:?}", processes_of(&mark, base)));
}

fn processes_of(mark: &str, base: &Path) -> Vec<PathBuf> {
    let own = std::process::id().to_string();
    let of = |process: &PathBuf| {
        let holds = |file: &str, text: &str| {
            fs::read(process.join(file)).is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(text))
        };
        let below = fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd.starts_with(base));
        !process.ends_with(&own) && (holds("environ", mark) || below)
    };
    fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path()).filter(of).collect()
}

async fn connect(url: &str) -> lapin::Result<Connection> {
    Connection::connect(url, ConnectionProperties::default()).await
}

async fn channel(url: &str) -> lapin::Result<Channel> {
    connect(url).await?.create_channel().await
}

/// A token as the controller makes them for agents (RS256, key id `k1`).
fn token(key: &Path, agent: &str, vhost: &str, expires: Timestamp) -> String {
    let pem = fs::read_to_string(key).unwrap();
    let der: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let key = KeyPair::from_pkcs8(&base64::engine::general_purpose::STANDARD.decode(der).unwrap()).unwrap();
    let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let header = part(json!({"alg": "RS256", "typ": "JWT", "kid": "k1"}));
    let claims = part(json!({
        "sub": agent, "aud": ["trustfleet"], "exp": expires.as_second(),
        "scope": [format!("trustfleet.read:{vhost}/agent.{agent}"), format!("trustfleet.write:{vhost}/reports/agent.{agent}.*")],
    }));
    let message = format!("{header}.{claims}");
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message.as_bytes(), &mut signature).unwrap();
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}
