//! What opens the broker to an agent for a quarter of an hour: its own queue and its own routing keys, nothing else.

use jiff::Timestamp;
use jsonwebtoken::{Algorithm, Header};
use serde::Serialize;
use trustfleet_model::ids::AgentId;
use trustfleet_wire::join::SessionAnswer;
use trustfleet_wire::routing;

use crate::app::Services;
use crate::error::AppError;
use crate::keys::BROKER_TOKEN_KEY_ID;

/// Claims of a broker token.
#[derive(Serialize)]
struct Claims {
    sub: String,
    aud: [&'static str; 1],
    scope: [String; 2],
    iat: i64,
    exp: i64,
}

/// The answer that opens a session for `agent`, whose present key has this id.
///
/// # Errors
/// The token cannot be signed.
pub(super) fn session_answer(
    agent: AgentId,
    key_id: &str,
    now: Timestamp,
    services: &Services,
) -> Result<SessionAnswer, AppError> {
    let config = &services.config.broker;
    let user = routing::agent_user(agent, key_id);
    let iat = now.as_second();
    let exp = iat + i64::from(config.token_lifetime_s);
    let internal = |error: jiff::Error| AppError::Internal { source: Box::new(error) };
    let claims = Claims {
        sub: user.clone(),
        aud: [routing::RESOURCE_SERVER],
        scope: routing::agent_scopes(&virtual_host(config.agent_url.path()), agent),
        iat,
        exp,
    };
    let mut header = Header::new(Algorithm::RS256);
    header.kid = Some(BROKER_TOKEN_KEY_ID.to_owned());
    let token = jsonwebtoken::encode(&header, &claims, &services.keys.broker_token)
        .map_err(|error| AppError::Internal { source: Box::new(error) })?;
    Ok(SessionAnswer {
        agent_id: agent,
        amqp_url: config.agent_url.to_string(),
        amqp_user: user,
        amqp_token: token,
        token_expires_at: Timestamp::from_second(exp).map_err(internal)?,
        queue: routing::agent_queue(agent),
        reports_exchange: routing::REPORTS_EXCHANGE.to_owned(),
        hello_key: routing::hello_key(agent),
        now,
    })
}

/// The virtual host in an AMQP URL's path; without one it is `/`.
pub fn virtual_host(path: &str) -> String {
    let encoded = path.strip_prefix('/').unwrap_or(path).as_bytes();
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut i = 0;
    while i < encoded.len() {
        let escaped = encoded.get(i + 1..i + 3).filter(|_| encoded[i] == b'%');
        if let Some(byte) = escaped.and_then(|digits| hex::decode(digits).ok()) {
            bytes.extend(byte);
            i += 3;
        } else {
            bytes.push(encoded[i]);
            i += 1;
        }
    }
    if bytes.is_empty() { "/".to_owned() } else { String::from_utf8_lossy(&bytes).into_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_virtual_host_is_read_as_amqp_urls_write_it() {
        for (path, host) in
            [("/%2f", "/"), ("/%2F", "/"), ("", "/"), ("/", "/"), ("/test-1", "test-1"), ("/a%20b", "a b")]
        {
            assert_eq!(virtual_host(path), host, "{path:?}");
        }
    }
}
