//! The agents' own doors against everybody who must not get in: a door of the served document, or a kind of stranger, that has
//! no case here fails the test.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use trustfleet_model::clock::{Clock as _, SystemClock};
use trustfleet_wire::{
    join::{AnnounceAnswer, AnnounceRequest, JoinRequest, SessionRequest},
    seal::OpeningKey,
    sign::{Purpose, SigningKey},
    v1::Blob,
};

use crate::{
    announcing::{Newcomer, read},
    api_house::{Answer, House, JoinedAgent},
};

/// Who comes to a door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stranger {
    WithoutProof,
    WithWrongProof,
    TooLate,
    WhoRepeatsWhatWasSaid,
    OfAnotherTenant,
    InQuarantine,
    OfASuspendedTenant,
    OfADeletedTenant,
}
use Stranger::{
    InQuarantine, OfADeletedTenant, OfASuspendedTenant, OfAnotherTenant, TooLate, WhoRepeatsWhatWasSaid,
    WithWrongProof, WithoutProof,
};

const STRANGERS: [Stranger; 8] = [
    WithoutProof,
    WithWrongProof,
    TooLate,
    WhoRepeatsWhatWasSaid,
    OfAnotherTenant,
    InQuarantine,
    OfASuspendedTenant,
    OfADeletedTenant,
];

/// A tenant as the doors know it.
struct Guests {
    agent: JoinedAgent,
    join_token: String,
}

/// Four tenants, each with an agent, a good join token and an expected serial number.
struct Doors {
    house: House,
    tenants: BTreeMap<&'static str, Guests>,
    caught: JoinedAgent,
}

impl Doors {
    async fn open() -> Self {
        let house = House::open().await;
        let mut tenants = BTreeMap::new();
        for name in ["acme", "other", "held", "gone"] {
            house.tenant(name).await;
            let expected = format!("/v1/tenants/{name}/expected-agents");
            house.post(&expected, &house.platform, json!({"serial": format!("SN-{name}")})).await.expect(201);
            let agent = house.agent(name, "site-1").await;
            let join_token = house.join_token(name, json!({"uses": 5})).await;
            tenants.insert(name, Guests { agent, join_token });
        }
        let caught = house.agent("acme", "caught").await;
        let at = "/v1/tenants/acme/agents/caught/quarantine";
        house.post(at, &house.platform, json!({"reason": "stolen"})).await.expect(200);
        house.post("/v1/tenants/held/suspend", &house.platform, json!({"reason": "unpaid"})).await.expect(200);
        house.call("DELETE", "/v1/tenants/gone", Some(&house.platform), None).await.expect(200);
        Self { house, tenants, caught }
    }

    async fn post(&self, door: &str, body: Value) -> Answer {
        self.house.call("POST", &format!("/agent/v1/{door}"), None, Some(body)).await
    }

    /// Something to sign that was made so long ago.
    fn challenge(&self, age: SignedDuration) -> Blob {
        let made: Timestamp = SystemClock.now() - age;
        let mut challenge = made.as_microsecond().to_be_bytes().to_vec();
        challenge.extend_from_slice(&[7; 16]);
        let signature = self.house.services().keys.signing.sign(Purpose::Challenge, &challenge);
        challenge.extend_from_slice(&signature);
        Blob(challenge)
    }

    async fn join(&self, stranger: Stranger) {
        let (sign, open) = keys();
        let tenant = match stranger {
            OfASuspendedTenant => "held",
            OfADeletedTenant => "gone",
            OfAnotherTenant => "other",
            _ => "acme",
        };
        let mut request = House::join_request(&self.tenants[tenant].join_token, "new", &sign, &open);
        let knock = async |request: &JoinRequest| self.post("join", serde_json::to_value(request).unwrap()).await;
        match stranger {
            WithoutProof => request.proof = Blob(Vec::new()),
            WithWrongProof => request.proof = Blob(keys().0.sign(Purpose::JoinProof, b"something else")),
            TooLate | WhoRepeatsWhatWasSaid => {
                let token = self.house.join_token("acme", json!({})).await;
                if stranger == TooLate {
                    let id = token.split('.').nth(1).unwrap();
                    let sql = "UPDATE join_tokens SET expires_at = now() WHERE token_id::text = $1";
                    assert_eq!(self.house.place.admin().await.execute(sql, &[&id]).await.unwrap(), 1);
                } else {
                    let (sign, open) = keys();
                    knock(&House::join_request(&token, "first", &sign, &open)).await.expect(200);
                }
                request = House::join_request(&token, "new", &sign, &open);
            }
            OfAnotherTenant => {
                // A token leads into its own tenant and nowhere else, whoever has it.
                let own = &self.tenants["acme"].agent;
                let token = &self.tenants["other"].join_token;
                let request = House::join_request(token, "guest", &own.sign, &open);
                knock(&request).await.expect(200);
                self.house.get("/v1/tenants/other/agents/guest", &self.house.platform).await.expect(200);
                return drop(self.house.get("/v1/tenants/acme/agents/guest", &self.house.platform).await.expect(404));
            }
            InQuarantine => {
                // Neither under its name with other keys, nor under another name with its own.
                let token = &self.tenants["acme"].join_token;
                knock(&House::join_request(token, "caught", &sign, &open)).await.expect(409);
                let again = House::join_request(token, "fresh", &self.caught.sign, &open);
                assert_eq!(knock(&again).await.expect(409).str("/code"), "key_taken");
                return;
            }
            OfASuspendedTenant | OfADeletedTenant => {}
        }
        assert_eq!(knock(&request).await.expect(401).str("/code"), "join_refused", "{stranger:?}");
    }

    async fn announce(&self, stranger: Stranger) {
        let newcomer = Newcomer::new();
        let mut request = newcomer.request(&self.house, "new", Some("SN-acme")).await;
        match stranger {
            WithoutProof | WithWrongProof => {
                let proof =
                    if stranger == WithoutProof { Vec::new() } else { keys().0.sign(Purpose::AnnounceProof, b"x") };
                let request = AnnounceRequest { proof: Blob(proof), ..request };
                let answer = self.post("announce", serde_json::to_value(&request).unwrap()).await;
                return assert_eq!(answer.expect(401).str("/code"), "announce_refused");
            }
            TooLate => request.challenge = self.challenge(SignedDuration::from_secs(61)),
            WhoRepeatsWhatWasSaid => {
                for _ in 0..2 {
                    let answer = newcomer.announce(&self.house, request.clone()).await.expect(200);
                    assert!(matches!(read(&self.house, &answer), AnnounceAnswer::Pending { .. }));
                }
                let path = "/v1/tenants/acme/applicants";
                let waiting = self.house.get(path, &self.house.platform).await.expect(200);
                return assert_eq!(waiting.body["items"].as_array().unwrap().len(), 1, "a repetition is no second one");
            }
            OfAnotherTenant => request.tenant = "other".to_owned(),
            InQuarantine => {
                // Its serial number is taken, whatever its quarantine: it asks with other keys, and then with its own.
                let sql = "UPDATE agents SET serial = 'SN-acme' WHERE name = 'caught'";
                let database = self.house.place.admin().await;
                assert_eq!(database.execute(sql, &[]).await.unwrap(), 1);
                let taken = newcomer.announce(&self.house, request).await.expect(409);
                assert_eq!(taken.str("/code"), "serial_taken");
                let own = Newcomer { sign: clone(&self.caught.sign), open: OpeningKey::generate().unwrap() };
                let request = own.request(&self.house, "new", Some("SN-acme")).await;
                own.announce(&self.house, request).await.expect(409);
                return database.batch_execute("UPDATE agents SET serial = NULL").await.unwrap();
            }
            OfASuspendedTenant => (request.tenant, request.serial) = ("held".to_owned(), Some("SN-held".to_owned())),
            OfADeletedTenant => (request.tenant, request.serial) = ("gone".to_owned(), Some("SN-gone".to_owned())),
        }
        let answer = newcomer.announce(&self.house, request).await;
        assert_eq!(answer.expect(401).str("/code"), "announce_refused", "{stranger:?}");
    }

    /// Whoever asks gets something to sign, which says nothing of anybody.
    async fn challenge_for(&self, stranger: Stranger) {
        let agent = match stranger {
            InQuarantine => &self.caught,
            OfAnotherTenant => &self.tenants["other"].agent,
            OfASuspendedTenant => &self.tenants["held"].agent,
            OfADeletedTenant => &self.tenants["gone"].agent,
            WithoutProof | WithWrongProof | TooLate | WhoRepeatsWhatWasSaid => &self.tenants["acme"].agent,
        };
        let known = self.post("challenge", json!({"agent_id": agent.answer.agent_id})).await.expect(200);
        let unknown = self.post("challenge", json!({"agent_id": uuid::Uuid::nil()})).await.expect(200);
        let shape = |answer: &Answer| -> (BTreeSet<String>, usize) {
            let keys = answer.body.as_object().unwrap().keys().cloned().collect();
            (keys, answer.str("/challenge").len())
        };
        assert_eq!(shape(&known), shape(&unknown), "{stranger:?}");
    }

    async fn session(&self, stranger: Stranger) {
        let agent = match stranger {
            InQuarantine => &self.caught,
            OfASuspendedTenant => &self.tenants["held"].agent,
            OfADeletedTenant => &self.tenants["gone"].agent,
            _ => &self.tenants["acme"].agent,
        };
        let age = if stranger == TooLate { 61 } else { 0 };
        let challenge = self.challenge(SignedDuration::from_secs(age));
        // The other tenant's agent signs for this one.
        let signer = if stranger == OfAnotherTenant { &self.tenants["other"].agent.sign } else { &agent.sign };
        let input = SessionRequest::proof_input(agent.answer.agent_id, &challenge.0, None);
        let proof = match stranger {
            WithoutProof => Vec::new(),
            WithWrongProof => signer.sign(Purpose::SessionProof, b"something else"),
            _ => signer.sign(Purpose::SessionProof, &input),
        };
        let request = SessionRequest { agent_id: agent.answer.agent_id, challenge, instance: None, proof: Blob(proof) };
        let knock = async || self.post("session", serde_json::to_value(&request).unwrap()).await;
        match stranger {
            WhoRepeatsWhatWasSaid => drop(knock().await.expect(200)),
            // What its agents have under way is still told.
            OfASuspendedTenant => return drop(knock().await.expect(200)),
            InQuarantine => return assert_eq!(knock().await.expect(403).str("/code"), "agent_quarantined"),
            _ => {}
        }
        assert_eq!(knock().await.expect(401).str("/code"), "session_refused", "{stranger:?}");
    }
}

fn keys() -> (SigningKey, OpeningKey) {
    (SigningKey::generate().unwrap(), OpeningKey::generate().unwrap())
}

fn clone(key: &SigningKey) -> SigningKey {
    SigningKey::from_pkcs8(&key.to_pkcs8().unwrap()).unwrap()
}

#[actix::test]
async fn every_agents_door_refuses_every_kind_of_stranger() {
    let doors = Doors::open().await;
    let document = doors.house.call("GET", "/openapi.json", None, None).await.expect(200).body;
    let served = document["paths"].as_object().unwrap().iter().filter(|(path, _)| path.starts_with("/agent/"));
    let served: BTreeSet<String> =
        served.map(|(_, item)| item["post"]["operationId"].as_str().unwrap().to_owned()).collect();
    for door in served {
        for stranger in STRANGERS {
            match door.as_str() {
                "agent_join" => doors.join(stranger).await,
                "agent_announce" => doors.announce(stranger).await,
                "agent_challenge" => doors.challenge_for(stranger).await,
                "agent_session" => doors.session(stranger).await,
                _ => panic!("a new door, {door}: say here what each kind of stranger gets at it"),
            }
        }
    }
    doors.house.close().await;
}
