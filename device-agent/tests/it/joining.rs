//! Joining and sessions against a controller's doors: a pinned key, a proof of possession, nothing else is believed.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::thread;

use jiff::{SignedDuration, Timestamp};
use trustfleet_agent::config::Config;
use trustfleet_agent::keys::IdentityKeys;
use trustfleet_agent::session::{Doors, Membership, SessionError};
use trustfleet_agent::store::Store;
use trustfleet_agent::tls_roots::TlsRoots;
use trustfleet_model::clock::{Clock as _, SystemClock};
use trustfleet_model::secret::SecretText;
use trustfleet_wire::Envelope;
use trustfleet_wire::join::{Challenge, JoinAnswer, JoinRequest, SessionAnswer, SessionRequest};
use trustfleet_wire::sign::{Purpose, SigningKey, key_id, verify};
use trustfleet_wire::v1::Blob;

/// Where the agent's connections come from.
const FROM: &str = "127.0.0.7";

type Door = Box<dyn FnMut(&str, &[u8]) -> (u16, String) + Send>;

struct Controller {
    config: Config,
    doors: Doors,
    keys: IdentityKeys,
    _dir: tempfile::TempDir,
}

/// Doors on a real socket that answer by `door(path, body)`.
fn controller(mut door: Door) -> Controller {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            assert_eq!(
                stream.peer_addr().unwrap().ip().to_string(),
                FROM,
                "where the configuration says that it comes from"
            );
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let (mut first, mut line, mut length) = (String::new(), String::new(), 0);
            reader.read_line(&mut first).unwrap();
            while reader.read_line(&mut line).unwrap() > 2 {
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                line.clear();
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            let (status, answer) = door(first.split(' ').nth(1).unwrap(), &body);
            let head = format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", answer.len());
            let _ = stream.write_all(head.as_bytes());
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("agent.toml");
    let state = dir.path().join("state");
    std::fs::write(
        &file,
        format!(
            "controller_url = \"{url}\"\nstate_dir = {:?}\nname = \"ap-1\"\nsource.address = \"{FROM}\"\n",
            state.to_str().unwrap()
        ),
    )
    .unwrap();
    let config = Config::load(&file).unwrap();
    let keys = IdentityKeys::load_or_make(&Store::open(&state).unwrap()).unwrap();
    let doors = Doors::new(&config.controller_url, TlsRoots::default(), config.source.clone());
    Controller { config, doors, keys, _dir: dir }
}

fn token(key: &SigningKey) -> SecretText {
    SecretText::new(format!("tfj1.018f3c1e-0000-7000-8000-0000000000f1.geheim.{}", key_id(&key.public_key())))
}

fn join_answer(body: &[u8], key: &SigningKey, claimed: &SigningKey) -> String {
    let request: JoinRequest = serde_json::from_slice(body).unwrap();
    let proof = JoinRequest::proof_input(&request.token, &request.name, &request.sign_key.0, &request.seal_key.0);
    verify(&request.sign_key.0, Purpose::JoinProof, &proof, &request.proof.0).expect("possession is proven");
    let answer = JoinAnswer {
        tenant_id: uuid::Uuid::from_u128(1).into(),
        agent_id: uuid::Uuid::from_u128(2).into(),
        name: request.name,
        controller_key: Blob(claimed.public_key()),
        sign_key: request.sign_key,
    };
    serde_json::to_string(&Envelope::seal(&answer, Purpose::JoinAnswer, key).unwrap()).unwrap()
}

fn again(key: &SigningKey) -> SigningKey {
    SigningKey::from_pkcs8(&key.to_pkcs8().unwrap()).unwrap()
}

#[test]
fn an_agent_joins_the_controller_that_its_token_names() {
    let key = SigningKey::generate().unwrap();
    let served = again(&key);
    let controller = controller(Box::new(move |path, body| {
        assert_eq!(path, "/agent/v1/join");
        (201, join_answer(body, &served, &served))
    }));
    let joined =
        controller.doors.join(&token(&key), controller.config.name().unwrap(), &controller.keys, SystemClock.now());
    let membership = joined.unwrap();
    assert_eq!((membership.name.as_str(), membership.controller_key.0), ("ap-1", key.public_key()));
}

#[test]
fn another_controller_is_refused_whatever_it_claims() {
    let (key, other) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
    let (own, claimed) = (again(&other), again(&key));
    let honest_but_other = controller(Box::new(move |_, body| (201, join_answer(body, &own, &own))));
    let joined = honest_but_other.doors.join(
        &token(&key),
        honest_but_other.config.name().unwrap(),
        &honest_but_other.keys,
        SystemClock.now(),
    );
    assert!(matches!(joined, Err(SessionError::WrongController { .. })), "{joined:?}");
    let signer = again(&other);
    let liar = controller(Box::new(move |_, body| (201, join_answer(body, &signer, &claimed))));
    let joined = liar.doors.join(&token(&key), liar.config.name().unwrap(), &liar.keys, SystemClock.now());
    assert!(matches!(joined, Err(SessionError::Untrusted { .. })), "{joined:?}");
}

#[test]
fn a_refusal_is_shown_with_its_reason_and_never_with_the_token() {
    let key = SigningKey::generate().unwrap();
    let controller = controller(Box::new(|_, _| {
        let problem =
            r#"{"type":"x","title":"No","status":401,"detail":"the join token was used already","code":"token_used"}"#;
        (401, problem.to_owned())
    }));
    let joined =
        controller.doors.join(&token(&key), controller.config.name().unwrap(), &controller.keys, SystemClock.now());
    let error = joined.unwrap_err();
    assert!(!error.is_transient());
    let text = format!("{error} {error:?}");
    assert!(text.contains("was used already") && text.contains("401") && !text.contains("geheim"), "{text}");
}

fn membership(key: &SigningKey) -> Membership {
    Membership {
        version: 1,
        tenant_id: uuid::Uuid::from_u128(1).into(),
        agent_id: uuid::Uuid::from_u128(2).into(),
        name: "ap-1".to_owned(),
        controller_key: Blob(key.public_key()),
        joined_at: Timestamp::UNIX_EPOCH,
    }
}

fn instance() -> trustfleet_model::ids::InstanceId {
    uuid::Uuid::from_u128(3).into()
}

fn session_door(key: SigningKey, agent_key: Arc<Mutex<Vec<u8>>>, amqp_url: &'static str, life_s: i64) -> Door {
    Box::new(move |path, body| {
        if path.ends_with("/challenge") {
            let challenge = Challenge { challenge: Blob(b"opaque".to_vec()), now: SystemClock.now() };
            return (200, serde_json::to_string(&challenge).unwrap());
        }
        let request: SessionRequest = serde_json::from_slice(body).unwrap();
        let proof = SessionRequest::proof_input(request.agent_id, &request.challenge.0, request.instance);
        verify(&agent_key.lock().unwrap(), Purpose::SessionProof, &proof, &request.proof.0).expect("possession");
        let now = SystemClock.now();
        let answer = SessionAnswer {
            agent_id: request.agent_id,
            amqp_url: amqp_url.to_owned(),
            amqp_user: "agent".to_owned(),
            amqp_token: "jwt-geheim".to_owned(),
            token_expires_at: now.checked_add(SignedDuration::from_secs(life_s)).unwrap(),
            queue: "agent.2".to_owned(),
            reports_exchange: "trustfleet.reports".to_owned(),
            hello_key: "agent.2.r0".to_owned(),
            now,
        };
        (200, serde_json::to_string(&Envelope::seal(&answer, Purpose::SessionAnswer, &key).unwrap()).unwrap())
    })
}

#[test]
fn a_session_is_opened_by_proof_of_possession_and_believed_only_from_the_pinned_key() {
    let key = SigningKey::generate().unwrap();
    let agent_key = Arc::new(Mutex::new(Vec::new()));
    let url = "amqp://127.0.0.1:5672/%2f";
    let controller = controller(session_door(again(&key), Arc::clone(&agent_key), url, 900));
    *agent_key.lock().unwrap() = controller.keys.sign.public_key();
    let opened =
        controller.doors.open_session(&controller.config, &membership(&key), &controller.keys, instance()).unwrap();
    assert_eq!(opened.queue, "agent.2");
    let stranger = SigningKey::generate().unwrap();
    let refused =
        controller.doors.open_session(&controller.config, &membership(&stranger), &controller.keys, instance());
    assert!(matches!(refused, Err(SessionError::Untrusted { .. })), "{refused:?}");
}

#[test]
fn a_session_that_leads_to_a_plaintext_broker_elsewhere_or_has_ended_is_not_used() {
    let key = SigningKey::generate().unwrap();
    for (url, life_s) in [("amqp://broker.example:5672/%2f", 900), ("amqp://127.0.0.1:5672/%2f", 0)] {
        let agent_key = Arc::new(Mutex::new(Vec::new()));
        let controller = controller(session_door(again(&key), Arc::clone(&agent_key), url, life_s));
        *agent_key.lock().unwrap() = controller.keys.sign.public_key();
        let opened = controller.doors.open_session(&controller.config, &membership(&key), &controller.keys, instance());
        let error = opened.unwrap_err();
        assert!(!format!("{error} {error:?}").contains("geheim"));
    }
}
