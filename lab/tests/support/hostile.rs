//! A program with an agent's genuine keys that does what no agent does.

use std::{fs, path::Path};

use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties,
    options::{BasicPublishOptions, ConfirmSelectOptions},
};
use serde_json::Value;
use trustfleet_lab::house::{AgentFiles, Fleet};
use trustfleet_wire::{
    Envelope,
    join::{Challenge, ChallengeRequest, SessionAnswer, SessionRequest},
    sign::{Purpose, SigningKey},
    v1::Blob,
};

/// The signing key in an agent's state folder.
pub(crate) fn key_of(state: &Path) -> SigningKey {
    SigningKey::from_pkcs8(&fs::read(state.join("keys/sign.pk8")).unwrap()).unwrap()
}

/// The id of an agent that has joined.
pub(crate) fn id_of<T: std::str::FromStr>(fleet: &Fleet, list: &str, name: &str) -> T
where
    T::Err: std::fmt::Debug,
{
    fleet.get(&format!("{list}/{name}")).unwrap()["id"].as_str().unwrap().parse().unwrap()
}

/// Opens a session with the keys of an agent, as that agent would; the answer's status and body.
pub(crate) fn try_session(fleet: &Fleet, name: &str, files: &AgentFiles) -> (u16, Value) {
    let agent_id = id_of(fleet, "agents", name);
    let key = key_of(&files.state);
    let body = serde_json::to_value(ChallengeRequest { agent_id: Some(agent_id) }).unwrap();
    let challenge: Challenge = serde_json::from_value(fleet.rest.post("/agent/v1/challenge", &body).unwrap()).unwrap();
    let input = SessionRequest::proof_input(agent_id, &challenge.challenge.0, None);
    let proof = Blob(key.sign(Purpose::SessionProof, &input));
    let body = SessionRequest { agent_id, challenge: challenge.challenge, instance: None, proof };
    let body = serde_json::to_value(body).unwrap();
    let answer = fleet.rest.send("POST", "/agent/v1/session", &[], Some(&body)).unwrap();
    (answer.status, answer.body)
}

/// The same, which must succeed.
pub(crate) fn session_of(fleet: &Fleet, name: &str, files: &AgentFiles) -> SessionAnswer {
    let (status, body) = try_session(fleet, name, files);
    assert_eq!(status, 200, "{body}");
    serde_json::from_value::<Envelope>(body).unwrap().peek().unwrap()
}

/// A connection to the broker with a token.
pub(crate) async fn try_connect(session: &SessionAnswer, token: &str) -> Result<Connection, lapin::Error> {
    let mut url: url::Url = session.amqp_url.parse().unwrap();
    url.set_username(&session.amqp_user).unwrap();
    url.set_password(Some(token)).unwrap();
    url.query_pairs_mut().append_pair("frame_max", "131072");
    Connection::connect(url.as_str(), ConnectionProperties::default()).await
}

/// The same with the session's own token, which must succeed.
pub(crate) async fn connect(session: &SessionAnswer) -> Connection {
    try_connect(session, &session.amqp_token).await.unwrap()
}

/// A fresh channel for each attempt: a refusal closes the channel.
pub(crate) async fn channel(connection: &Connection) -> Channel {
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    channel
}

/// Publishes and waits for the confirm; a refusal closes the channel instead.
pub(crate) async fn publish(
    connection: &Connection,
    exchange: &str,
    key: &str,
    body: &[u8],
) -> Result<Confirmation, lapin::Error> {
    let channel = channel(connection).await;
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    channel.basic_publish(exchange.into(), key.into(), options, body, BasicProperties::default()).await?.await
}

/// That the broker has refused, for want of a permission.
pub(crate) fn is_refused<T: std::fmt::Debug>(result: Result<T, lapin::Error>, what: &str) {
    let error = result.expect_err(what).to_string();
    assert!(error.contains("ACCESS") || error.contains("403"), "{what}: refused for another reason: {error}");
}
