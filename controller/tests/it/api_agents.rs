//! The agents' own doors: joining once, proving possession, getting into the broker and nowhere else.

use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Value, json};
use trustfleet_wire::{
    Envelope,
    join::{Challenge, SessionAnswer, SessionRequest},
    seal::OpeningKey,
    sign::{Purpose, SigningKey},
    v1::Blob,
};

use crate::api_house::{Answer, House, JoinedAgent};

fn keys() -> (SigningKey, OpeningKey) {
    (SigningKey::generate().unwrap(), OpeningKey::generate().unwrap())
}

#[actix::test]
async fn a_join_token_lets_one_agent_in_once() {
    let house = House::open().await;
    house.tenant("acme").await;
    let token = house.join_token("acme", json!({})).await;
    let (sign, open) = keys();
    let first = house.join(&House::join_request(&token, "site-1", &sign, &open)).await.expect(200);
    // The answer was lost: the same keys get it again, and it stays one agent.
    let again = house.join(&House::join_request(&token, "site-1", &sign, &open)).await.expect(200);
    let key = house.services().keys.signing.public_key();
    let id = |answer: &Answer| {
        let envelope = Envelope::from_bytes(answer.text.as_bytes()).unwrap();
        let answer: trustfleet_wire::join::JoinAnswer = envelope.open(Purpose::JoinAnswer, &key).unwrap();
        answer.agent_id
    };
    assert_eq!(id(&first), id(&again));

    let (sign, open) = keys();
    for name in ["site-2", "site-1"] {
        let refused = house.join(&House::join_request(&token, name, &sign, &open)).await.expect(401);
        assert_eq!(refused.str("/code"), "join_refused");
        assert_eq!(refused.content_type, "application/problem+json");
    }
    let agents = house.get("/v1/tenants/acme/agents", &house.platform).await.expect(200);
    assert_eq!(agents.body["items"].as_array().unwrap().len(), 1);
    assert_eq!(agents.body["items"][0]["software"], "test 1");
    house.close().await;
}

#[actix::test]
async fn every_wrong_way_to_join_looks_the_same() {
    let house = House::open().await;
    house.tenant("acme").await;
    let token = house.join_token("acme", json!({})).await;
    let expired = house.join_token("acme", json!({})).await;
    let database = house.place.admin().await;
    let expired_id = expired.split('.').nth(1).unwrap();
    let sql = "UPDATE join_tokens SET expires_at = now() WHERE token_id::text = $1";
    assert_eq!(database.execute(sql, &[&expired_id]).await.unwrap(), 1);
    let (sign, open) = keys();
    let (other, _) = keys();

    let parts: Vec<&str> = token.split('.').collect();
    let wrong_secret = format!("tfj1.{}.{}.{}", parts[1], "A".repeat(43), parts[3]);
    let unknown = format!("tfj1.{}.{}.{}", uuid::Uuid::nil(), parts[2], parts[3]);
    let other_controller = format!("tfj1.{}.{}.{}", parts[1], parts[2], "0".repeat(32));
    let mut wrong_proof = House::join_request(&token, "site-1", &other, &open);
    wrong_proof.sign_key = Blob(sign.public_key());
    let mut answers = vec![house.join(&wrong_proof).await];
    for token in [&expired, &wrong_secret, &unknown, &other_controller, &"rubbish".to_owned()] {
        answers.push(house.join(&House::join_request(token, "site-1", &sign, &open)).await);
    }
    for answer in &answers {
        assert_eq!((answer.status, &answer.text), (401, &answers[0].text));
    }
    // The token itself is still good.
    house.join(&House::join_request(&token, "site-1", &sign, &open)).await.expect(200);
    house.close().await;
}

#[actix::test]
async fn a_name_is_fixed_by_its_token_and_belongs_to_one_agent() {
    let house = House::open().await;
    house.tenant("acme").await;
    let token = house.join_token("acme", json!({"agent_name": "site-1"})).await;
    let (sign, open) = keys();
    let refused = house.join(&House::join_request(&token, "site-2", &sign, &open)).await.expect(422);
    assert_eq!(refused.violations(), ["name token_name"]);
    house.join(&House::join_request(&token, "site-1", &sign, &open)).await.expect(200);

    let second = house.join_token("acme", json!({"uses": 2})).await;
    let (sign, open) = keys();
    let taken = house.join(&House::join_request(&second, "site-1", &sign, &open)).await.expect(409);
    assert_eq!(taken.str("/code"), "name_taken");
    let mut bad = House::join_request(&second, "a/b", &sign, &open);
    bad.sign_key = Blob(vec![1; 31]);
    bad.software = "x".repeat(65);
    let answer = house.join(&bad).await.expect(422);
    assert_eq!(answer.violations(), ["name name", "software text", "sign_key key"]);
    // None of this used the token up.
    house.join(&House::join_request(&second, "site-3", &sign, &open)).await.expect(200);
    house.close().await;
}

pub async fn challenge(house: &House, agent: &JoinedAgent) -> Challenge {
    let body = json!({"agent_id": agent.answer.agent_id});
    let answer = house.call("POST", "/agent/v1/challenge", None, Some(body)).await.expect(200);
    serde_json::from_value(answer.body).unwrap()
}

pub async fn session(house: &House, agent: &JoinedAgent, key: &SigningKey, challenge: &[u8]) -> Answer {
    let input = SessionRequest::proof_input(agent.answer.agent_id, challenge, None);
    let request = SessionRequest {
        agent_id: agent.answer.agent_id,
        challenge: Blob(challenge.to_vec()),
        instance: None,
        proof: Blob(key.sign(Purpose::SessionProof, &input)),
    };
    house.call("POST", "/agent/v1/session", None, Some(serde_json::to_value(&request).unwrap())).await
}

#[actix::test]
async fn a_session_gives_a_short_lived_token_for_the_agents_own_queue_alone() {
    let house = House::open().await;
    house.tenant("acme").await;
    let agent = house.agent("acme", "site-1").await;
    let made = challenge(&house, &agent).await;
    let answer = session(&house, &agent, &agent.sign, &made.challenge.0).await.expect(200);
    let envelope = Envelope::from_bytes(answer.text.as_bytes()).unwrap();
    let answer: SessionAnswer = envelope.open(Purpose::SessionAnswer, &agent.answer.controller_key.0).unwrap();
    let id = agent.answer.agent_id;
    assert_eq!((answer.agent_id, answer.queue.as_str()), (id, format!("agent.{id}").as_str()));

    let public = std::env::var("TRUSTFLEET_BROKER_TOKEN_PUBLIC_FILE").unwrap();
    let public = DecodingKey::from_rsa_pem(&std::fs::read(public).unwrap()).unwrap();
    let mut validation = Validation::new(Algorithm::RS256);
    validation.set_audience(&["trustfleet"]);
    let token = jsonwebtoken::decode::<Value>(&answer.amqp_token, &public, &validation).unwrap();
    assert_eq!(token.header.kid.as_deref(), Some("k1"));
    let (claims, vhost) = (token.claims, &house.place.vhost);
    let user = trustfleet_wire::routing::agent_user(id, &trustfleet_wire::sign::key_id(&agent.sign.public_key()));
    assert_eq!((claims["sub"].as_str(), answer.amqp_user.as_str()), (Some(user.as_str()), user.as_str()));
    assert_eq!(
        claims["scope"],
        json!([
            format!("trustfleet.read:{vhost}/agent.{id}"),
            format!("trustfleet.write:{vhost}/trustfleet.reports/agent.{id}.*")
        ])
    );
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 900);
    assert_eq!(answer.token_expires_at.as_second(), claims["exp"].as_i64().unwrap());
    // The queue is there: a message to the agent finds it.
    house.services().broker.subscribe(answer.queue.clone(), 1).await.unwrap();
    house.close().await;
}

#[actix::test]
async fn nobody_opens_a_session_without_the_agents_key_and_a_challenge_of_ours() {
    let house = House::open().await;
    house.tenant("acme").await;
    let agent = house.agent("acme", "site-1").await;
    let made = challenge(&house, &agent).await;
    let (other, _) = keys();
    let mut changed = made.challenge.0.clone();
    changed[3] ^= 1;
    let unknown = JoinedAgent {
        sign: keys().0,
        answer: {
            let mut a = agent.answer.clone();
            a.agent_id = uuid::Uuid::nil().into();
            a
        },
    };
    let answers = [
        session(&house, &agent, &other, &made.challenge.0).await,
        session(&house, &agent, &agent.sign, &changed).await,
        session(&house, &agent, &agent.sign, b"").await,
        session(&house, &unknown, &agent.sign, &made.challenge.0).await,
    ];
    for answer in &answers {
        assert_eq!((answer.status, &answer.text), (401, &answers[0].text));
        assert_eq!(answer.str("/code"), "session_refused");
    }
    house.close().await;
}
