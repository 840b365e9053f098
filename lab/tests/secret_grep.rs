//! Where secrets are not: a real enrolment by MAC with everything logged that can be logged, then a search for the secrets
//! that were used, in every place that somebody could read who should not have them.
//!
//! The search proves itself first: it must find a word that was put into each of these places.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    path::Path,
    process::Command,
    sync::{Arc, Mutex},
    time::Duration,
};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use serde_json::{Value, json};
use support::{Lab, policy};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use trustfleet_cmp::codec::{message::PkiMessage, pbm::PbmParameter};
use trustfleet_lab::house::AgentFiles;
use url::Url;

const LIMIT: Duration = Duration::from_secs(60);
/// What the search must find where it was put.
const PLANTED: &str = "planted-quince-orchard-5177";

/// Something that must not be found, in all the forms that it could have.
struct Needle {
    what: &'static str,
    forms: Vec<Vec<u8>>,
}

impl Needle {
    fn new(what: &'static str, secret: &[u8]) -> Self {
        assert!(secret.len() >= 8, "{what} is too short to be searched for");
        let mut forms = vec![secret.to_vec(), hex::encode(secret).into_bytes(), hex::encode_upper(secret).into_bytes()];
        // Inside of a larger base64 text it begins at one of three places of a group of four characters.
        for before in 0..3 {
            let padded = [vec![0; before], secret.to_vec()].concat();
            for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
                let text = engine.encode(&padded);
                let begin = [0, 2, 3][before];
                // The last character depends on what follows.
                let end = if padded.len() % 3 == 0 { text.len() } else { text.len() - 1 };
                forms.push(text.as_bytes()[begin..end].to_vec());
            }
        }
        forms.sort_unstable();
        forms.dedup();
        Self { what, forms }
    }

    fn is_in(&self, hay: &[u8]) -> bool {
        self.forms.iter().any(|form| contains(hay, form))
    }
}

/// A plain search would take minutes in a test's unoptimised build.
fn contains(hay: &[u8], form: &[u8]) -> bool {
    let (first, rest) = form.split_first().expect("a form is not empty");
    let mut at = 0;
    while let Some(found) = hay[at..].iter().position(|byte| byte == first) {
        let after = at + found + 1;
        if hay[after..].starts_with(rest) {
            return true;
        }
        at = after;
    }
    false
}

#[test]
fn a_needle_is_found_raw_in_hex_and_at_every_place_of_a_base64_text() {
    let needle = Needle::new("the word", PLANTED.as_bytes());
    assert!(needle.is_in(format!("x{PLANTED}y").as_bytes()));
    assert!(needle.is_in(format!("\\x00{}", hex::encode(PLANTED)).as_bytes()));
    for before in 0..7 {
        let text = format!("{}{PLANTED}{}", "a".repeat(before), "z".repeat(before % 4));
        assert!(needle.is_in(STANDARD.encode(&text).as_bytes()), "{before} before, in base64");
        assert!(needle.is_in(URL_SAFE_NO_PAD.encode(&text).as_bytes()), "{before} before, in base64url");
        // As a message in an envelope, which is itself shown as base64.
        let nested = format!("{{\"payload\":\"{}\"}}", STANDARD.encode(&text));
        assert!(needle.is_in(nested.as_bytes()));
    }
    assert!(!needle.is_in(STANDARD.encode("something else altogether").as_bytes()));
}

/// Everything that was said between the agent and the CA, by a relay in between.
#[derive(Clone, Default)]
struct Tape(Arc<Mutex<Vec<Vec<u8>>>>);

impl Tape {
    /// A relay to `ca`; gives its own URL.
    async fn before(&self, ca: &Url) -> Url {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut url = ca.clone();
        url.set_port(Some(listener.local_addr().unwrap().port())).unwrap();
        let (tape, to) = (self.clone(), format!("127.0.0.1:{}", ca.port().unwrap()));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&to).await.unwrap();
                let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
                    (client.into_split(), server.into_split());
                let (there, back) = (tape.clone(), tape.clone());
                tokio::spawn(async move { there.copy(&mut from_client, &mut to_server).await });
                tokio::spawn(async move { back.copy(&mut from_server, &mut to_client).await });
            }
        });
        url
    }

    async fn copy(
        &self,
        from: &mut (impl tokio::io::AsyncRead + Unpin),
        to: &mut (impl tokio::io::AsyncWrite + Unpin),
    ) {
        let place = {
            let mut tapes = self.0.lock().unwrap();
            tapes.push(Vec::new());
            tapes.len() - 1
        };
        let mut part = [0; 16 * 1024];
        while let Ok(count @ 1..) = from.read(&mut part).await {
            // At once: a connection may be kept for the next request.
            self.0.lock().unwrap()[place].extend_from_slice(&part[..count]);
            if to.write_all(&part[..count]).await.is_err() {
                break;
            }
        }
        let _ = to.shutdown().await;
    }

    /// The CMP messages on the tape.
    fn messages(&self) -> Vec<PkiMessage> {
        let tapes = self.0.lock().unwrap();
        let mut found = Vec::new();
        for said in tapes.iter() {
            // A body is the outermost SEQUENCE behind a head's empty line.
            let mut rest = said.as_slice();
            while let Some(end) = rest.windows(4).position(|four| four == b"\r\n\r\n") {
                rest = &rest[end + 4..];
                let length = match rest {
                    [0x30, 0x82, high, low, ..] => 4 + usize::from(*high) * 256 + usize::from(*low),
                    [0x30, 0x81, length, ..] => 3 + usize::from(*length),
                    _ => continue,
                };
                if let Some(message) = rest.get(..length).and_then(|der| PkiMessage::from_der(der).ok()) {
                    found.push(message);
                }
            }
        }
        found
    }
}

/// Everything that can be read: places with their contents.
struct Places(Vec<(String, Vec<u8>)>);

impl Places {
    fn with(&self, needle: &Needle) -> Vec<&str> {
        self.0.iter().filter(|(_, text)| needle.is_in(text)).map(|(place, _)| place.as_str()).collect()
    }

    fn add(&mut self, place: impl Into<String>, text: impl Into<Vec<u8>>) {
        let (place, text) = (place.into(), text.into());
        assert!(!text.is_empty(), "{place} is empty: nothing was looked at");
        self.0.push((place, text));
    }
}

/// The whole database, as text and as PostgreSQL's own archive with its large values.
fn dump(lab: &Lab, places: &mut Places) {
    let url = lab.db.as_ref().unwrap().admin_url();
    let dump = Command::new("pg_dump").arg(url.as_str()).output().unwrap();
    assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
    places.add("database", dump.stdout);
}

/// Every message in every queue; they stay there.
async fn queues(lab: &Lab, places: &mut Places) {
    let vhost = lab.vhost.as_ref().unwrap();
    let queues = vhost.management("GET", &format!("/api/queues/{}", vhost.name()), None).await.unwrap();
    let queues = queues.as_array().unwrap().clone();
    assert!(queues.len() > 1, "{queues:?}");
    let mut all = Vec::new();
    for queue in queues {
        let name = queue["name"].as_str().unwrap();
        let get = json!({ "count": 1000, "ackmode": "ack_requeue_true", "encoding": "base64" });
        let path = format!("/api/queues/{}/{name}/get", vhost.name());
        let messages = vhost.management("POST", &path, Some(get)).await.unwrap();
        writeln!(all, "{name}").unwrap();
        for message in messages.as_array().unwrap() {
            let body = STANDARD.decode(message["payload"].as_str().unwrap()).unwrap();
            all.extend_from_slice(message.to_string().as_bytes());
            all.extend_from_slice(&body);
            // The envelope's payload is base64: what is in it is looked into as well.
            let payload = serde_json::from_slice::<Value>(&body).ok();
            let payload = payload.and_then(|body| STANDARD.decode(body["payload"].as_str()?).ok());
            all.extend(payload.into_iter().flatten());
        }
    }
    places.add("queues", all);
}

/// Every GET operation of the served OpenAPI document, with whatever objects there are.
fn answers(lab: &Lab, tenant: &str, places: &mut Places) -> usize {
    let rest = &lab.house.platform;
    let document = rest.get("/openapi.json").unwrap();
    let mut values: BTreeMap<String, String> = BTreeMap::from([("tenant".to_owned(), tenant.to_owned())]);
    let mut answered = 0;
    let mut paths: Vec<&String> = document["paths"].as_object().unwrap().keys().collect();
    // A list comes before the objects in it.
    paths.sort_by_key(|path| path.len());
    let mut all = document.to_string().into_bytes();
    for path in paths.into_iter().filter(|path| document["paths"][*path].get("get").is_some()) {
        // An object's name or id is taken from the list that it is in; where that is empty, it cannot be asked for.
        let filled: Option<Vec<String>> = path
            .split('/')
            .map(|part| match part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
                Some(name) => values.get(name).cloned(),
                None => Some(part.to_owned()),
            })
            .collect();
        let Some(filled) = filled else { continue };
        let answer = rest.send("GET", &filled.join("/"), &[], None).unwrap();
        assert!(answer.status < 500, "{path}: {} {}", answer.status, answer.body);
        if answer.status == 200 {
            answered += 1;
        }
        all.extend_from_slice(format!("\n{path}\n{}", answer.body).as_bytes());
        if let Some(first) = answer.body["items"].as_array().and_then(|items| items.first()) {
            let value = first["name"].as_str().or_else(|| first["id"].as_str());
            let below = format!("{path}/{{");
            let names = document["paths"].as_object().unwrap().keys().filter_map(|longer| longer.strip_prefix(&below));
            for name in names.filter_map(|rest| rest.split('}').next()) {
                values.extend(value.map(|value| (name.to_owned(), value.to_owned())));
            }
        }
    }
    places.add("answers", all);
    answered
}

/// Every file below a folder, but those with these names.
fn files(what: &str, folder: &Path, but: &[&Path], places: &mut Places) {
    let mut all = Vec::new();
    for path in support::files_below(folder) {
        if but.iter().any(|but| Path::new(&path) == *but) {
            continue;
        }
        if let Ok(bytes) = fs::read(&path) {
            all.extend_from_slice(format!("\n{path}\n").as_bytes());
            all.extend_from_slice(&bytes);
        }
    }
    places.add(what, all);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s13_after_an_enrolment_by_mac_its_secrets_are_nowhere_but_in_their_one_place() {
    let mut lab = Lab::start().await;
    let secret = "kestrel-Grove-90417-melon-harbour";
    let fleet = lab.fleet(&[], &policy()).await;
    let added = json!({ "reference": "ref-grep", "secret": secret }).to_string();
    let lab_url = fleet.ca_url.join("/lab/secrets").unwrap();
    ureq::post(lab_url.as_str()).header("content-type", "application/json").send(added).unwrap();
    // What the CMP messages carry is known by a relay: salts and MACs let a guesser try secrets.
    let tape = Tape::default();
    let relay = tape.before(&fleet.ca_url).await;
    fleet.post("ca-servers", &fleet.ca_server("relayed", &relay).unwrap()).unwrap();

    // Everything that can be logged is logged from here on.
    let config = &lab.house.files.config;
    let mut text = fs::read_to_string(config).unwrap();
    assert!(!text.contains("[log]"));
    text.push_str("\n[log]\nfilter = \"trace\"\n");
    fs::write(config, text).unwrap();
    let former_log = lab.house.controller.log();
    lab.house.controller.terminate(LIMIT).await.unwrap();
    lab.house.start_again().await.unwrap();

    let made = fleet.post("tokens", &json!({ "role": "admin", "description": "to be searched for" })).unwrap();
    let admin_token = made["token"].as_str().unwrap().to_owned();
    fleet.rest.with_token(Some(admin_token.clone())).get(&fleet.path("devices")).unwrap();
    let token = fleet.post("join-tokens", &json!({ "agent_name": "site" })).unwrap();
    let join_token = token["token"].as_str().unwrap().to_owned();
    let agent_dir = tempfile::tempdir().unwrap();
    let agent_dir = agent_dir.path();
    let agent_files = AgentFiles::write(agent_dir, "site", fleet.rest.base(), &join_token).unwrap();
    let start = || {
        let mut run = trustfleet_lab::testkit::command("trustfleet-agent").unwrap();
        run.arg("run").arg("--config").arg(&agent_files.config).env("RUST_LOG", "trace");
        trustfleet_lab::testkit::Child::start("trustfleet-agent", run).unwrap()
    };
    let mut agent = start();
    lab.eventually("the agent joined", || fleet.get("agents/site").ok()).await;
    fleet.post("devices", &json!({ "name": "ap-1", "agent": "site" })).unwrap();
    let mac = json!({ "reference": "ref-grep", "secret": secret });
    let body =
        json!({ "name": "default", "entity": "default", "ca_server": "relayed", "policy": "default", "mac": mac });
    fleet.post("devices/ap-1/trustpoints", &body).unwrap();

    // Its job waits in the queue while the agent is away: sealed.
    agent.kill().await;
    let mut logs_of_agents = agent.log();
    let job = fleet.enroll("ap-1", "ir").unwrap();
    let below = format!("jobs/{}", job["id"].as_str().unwrap());
    lab.eventually("the job is published", || (fleet.get(&below).ok()?["state"] == "awaiting_agent").then_some(()))
        .await;
    let mut places = Places(Vec::new());
    queues(&lab, &mut places).await;
    let sealed = String::from_utf8_lossy(&places.0[0].1).into_owned();
    assert!(sealed.contains("\"ciphertext\""), "no sealed secret was in the queue");

    let agent = start();
    fleet.enrolled("ap-1", &job, LIMIT).await.unwrap();
    logs_of_agents.push_str(&agent.log());

    // The salts and MACs of this exchange.
    let protected: Vec<(Vec<u8>, Vec<u8>)> = tape
        .messages()
        .iter()
        .filter_map(|message| {
            let parameter: PbmParameter =
                message.header.protection_alg.as_ref()?.parameters.as_ref()?.decode_as().ok()?;
            let mac = message.protection.clone()?;
            Some((parameter.salt.as_bytes().to_vec(), mac))
        })
        .collect();
    assert!(!protected.is_empty(), "the relay saw no message with a MAC");

    let platform_token = fs::read_to_string(&lab.house.files.first_token).unwrap().trim().to_owned();
    let kek = fs::read_to_string(&lab.env.keys.kek).unwrap();
    let kek = STANDARD.decode(kek.trim()).unwrap();
    let sign_key = fs::read(agent_files.state.join("keys/sign.pk8")).unwrap();
    let mut needles = vec![
        Needle::new("the MAC secret", secret.as_bytes()),
        Needle::new("the join token's secret", join_token.split('.').nth(2).unwrap().as_bytes()),
        Needle::new("the administrator's token", admin_token.as_bytes()),
        Needle::new("the platform's token", platform_token.as_bytes()),
        Needle::new("the key-encryption key", &kek),
    ];
    for (salt, mac) in &protected {
        needles.push(Needle::new("a salt", salt));
        needles.push(Needle::new("a MAC", mac));
    }
    let agents_own = Needle::new("the agent's signing key", &sign_key[sign_key.len() - 32..]);

    // The word that must be found is put into every kind of place.
    let label = |text: String| json!({ "name": "planted", "labels": { "word": text } });
    fleet.post("devices", &label(PLANTED.to_owned())).unwrap();
    let vhost = lab.vhost.as_ref().unwrap();
    let queue = format!("/api/queues/{}/planted", vhost.name());
    vhost.management("PUT", &queue, Some(json!({ "durable": true }))).await.unwrap();
    let inner = STANDARD.encode(format!("{{\"mac\":\"{PLANTED}\"}}"));
    let message = json!({
        "properties": {}, "routing_key": "planted", "payload_encoding": "string",
        "payload": json!({ "payload": inner }).to_string(),
    });
    let exchange = format!("/api/exchanges/{}/amq.default/publish", vhost.name());
    vhost.management("POST", &exchange, Some(message)).await.unwrap();
    let planted_file = agent_files.state.join("planted");
    fs::write(&planted_file, hex::encode(PLANTED)).unwrap();

    dump(&lab, &mut places);
    let answered = answers(&lab, trustfleet_lab::house::TENANT, &mut places);
    assert!(answered >= 25, "only {answered} operations were answered with 200");
    // The exchange's transcript was among them, with something in it.
    let looked_at = String::from_utf8_lossy(&places.0.last().unwrap().1).into_owned();
    assert!(looked_at.contains("/transcript\n") && looked_at.contains("\"what\":\"sent\""), "no transcript was seen");
    let join_token_file = agent_dir.join("site.join-token");
    files("agent's files", agent_dir, &[&join_token_file], &mut places);
    files("controller's files", lab.house.dir(), &[&lab.house.files.first_token], &mut places);
    let controllers_log = format!("{former_log}{}", lab.house.controller.log());
    assert!(controllers_log.contains("request answered"), "the log is not as full as it can be");
    places.add("controller's log", controllers_log);
    places.add("agent's log", logs_of_agents);
    // Again, with everything that came since.
    queues(&lab, &mut places).await;

    let planted = Needle::new("the planted word", PLANTED.as_bytes());
    let found = places.with(&planted);
    for place in ["queues", "database", "answers", "agent's files"] {
        assert!(found.contains(&place), "the search would not find a secret in the {place}: it is blind there");
    }
    for needle in &needles {
        let found = places.with(needle);
        assert!(found.is_empty(), "{} is in: {}", needle.what, found.join(", "));
    }
    // The agent's own keys are in its files, where the search finds them, and nowhere else.
    assert_eq!(places.with(&agents_own), ["agent's files"], "of {}", agents_own.what);
    drop(agent);
}
