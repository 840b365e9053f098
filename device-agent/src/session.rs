//! Joining a controller, and opening sessions with it, over HTTP(S).
//!
//! The one-time token names the controller's key before the first byte is exchanged; from then on nothing counts that
//! is not signed with that key, whatever TLS says. The token and the broker's password never appear in a log or error.

use std::fs;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use trustfleet_cmp::key::{Signer as _, SoftwareKey};
use trustfleet_cmp::text::sanitise;
use trustfleet_model::field::ObjectName;
use trustfleet_model::ids::{AgentId, InstanceId, TenantId};
use trustfleet_model::secret::SecretText;
use trustfleet_pki::Certificate;
use trustfleet_wire::join::{
    AnnounceAnswer, AnnounceRequest, Challenge, ChallengeRequest, FactoryProof, JoinAnswer, JoinRequest, SessionAnswer,
    SessionRequest,
};
use trustfleet_wire::sign::{PUBLIC_KEY_LEN, Purpose, key_id};
use trustfleet_wire::v1::Blob;
use trustfleet_wire::{Envelope, WireError};
use url::Url;

use crate::cmp_http::{BUFFER, Source, client_from};
use crate::config::{AnnounceConfig, Config, ConfigError, parse_broker_url};
use crate::keys::IdentityKeys;
use crate::store::{self, Store, StoreError};
use crate::tls_roots::{RootsError, TlsRoots};

/// Longest answer of the controller that is read, bytes.
const ANSWER_MAX: u64 = 256 * 1024;
/// Longest time of one call.
const CALL_MAX: Duration = Duration::from_secs(20);
/// Version of the agent's software, as told to the controller.
pub const SOFTWARE: &str = env!("CARGO_PKG_VERSION");

/// What the agent keeps of its joining: `agent.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Membership {
    /// Form of the file; 1.
    pub version: u16,
    /// Its tenant.
    pub tenant_id: TenantId,
    /// Its id.
    pub agent_id: AgentId,
    /// Its name.
    pub name: String,
    /// The controller's Ed25519 key, pinned.
    pub controller_key: Blob,
    /// When it joined.
    pub joined_at: Timestamp,
}

/// Joining or opening a session failed.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The disk.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The factory identity in the configuration.
    #[error("the factory identity cannot be used: {0}")]
    Factory(String),
    /// Not a join token.
    #[error("the join token is malformed: it must read tfj1.ID.SECRET.KEY; copy it again, whole")]
    BadToken,
    /// The controller cannot be reached or does not answer as HTTP should.
    #[error("the controller at {url} cannot be reached: {detail}")]
    Unreachable {
        /// What was called.
        url: String,
        /// Why.
        detail: String,
    },
    /// The controller said no.
    #[error("the controller refused at {url} with HTTP status {status}: {detail}")]
    Refused {
        /// What was called.
        url: String,
        /// HTTP status.
        status: u16,
        /// Stable code of the problem document; empty without one.
        code: String,
        /// Its words: cleaned and cut.
        detail: String,
    },
    /// The controller's key is not the one that the token names.
    #[error(
        "the controller's key {got} is not {expected}, which the join token names: this is another controller, or somebody stands between; do not go on before that is clear"
    )]
    WrongController {
        /// Key id in the token.
        expected: String,
        /// Key id of the key that came.
        got: String,
    },
    /// The answer is not signed by the pinned key, or cannot be read.
    #[error("the controller's answer at {url} is not to be trusted")]
    Untrusted {
        /// What was called.
        url: String,
        /// Why.
        #[source]
        source: WireError,
    },
    /// The answer is about somebody else or names values that cannot be.
    #[error("the controller's answer at {url} does not fit: {what}")]
    Unfit {
        /// What was called.
        url: String,
        /// What.
        what: &'static str,
    },
}

impl SessionError {
    /// Whether the controller has put this agent into quarantine.
    pub fn is_quarantine(&self) -> bool {
        matches!(self, Self::Refused { status: 403, code, .. } if code == "agent_quarantined")
    }

    /// Whether trying again later can help; otherwise a person has to act.
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused { status, .. } => *status >= 500 || matches!(*status, 408 | 429),
            Self::Config(_)
            | Self::Store(_)
            | Self::Factory(_)
            | Self::BadToken
            | Self::WrongController { .. }
            | Self::Untrusted { .. }
            | Self::Unfit { .. } => false,
        }
    }
}

/// Calls the controller's agent doors.
#[derive(Debug)]
pub struct Doors {
    base: Url,
    roots: TlsRoots,
    source: Source,
}

/// The part of a problem document (RFC 9457) that is shown.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Problem {
    title: String,
    detail: String,
    code: String,
}

impl Doors {
    /// Doors of the configured controller; `roots` verify its certificate, connections come from `source`.
    pub fn new(base: &Url, roots: TlsRoots, source: Source) -> Self {
        Self { base: base.clone(), roots, source }
    }

    /// A client for one conversation. It is not kept: between two of them lie minutes, and it holds the roots.
    fn client(&self) -> Result<ureq::Agent, SessionError> {
        let unreachable =
            |error: RootsError| SessionError::Unreachable { url: self.base.to_string(), detail: error.to_string() };
        let tls = ureq::tls::TlsConfig::builder();
        let tls = if self.base.scheme() == "https" {
            tls.root_certs(self.roots.http().map_err(unreachable)?)
        } else {
            tls.root_certs(Vec::new().into())
        };
        let config = ureq::Agent::config_builder()
            .tls_config(tls.build())
            .proxy(None)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .timeout_global(Some(CALL_MAX))
            .max_idle_connections(0)
            .input_buffer_size(BUFFER)
            .output_buffer_size(BUFFER)
            .user_agent(concat!("trustfleet-agent/", env!("CARGO_PKG_VERSION")))
            .build();
        Ok(client_from(config, &self.source))
    }

    /// Joins with a one-time token. Blocks.
    ///
    /// # Errors
    /// Not reached, refused, or not the controller that the token names.
    pub fn join(
        &self,
        token: &SecretText,
        name: &ObjectName,
        keys: &IdentityKeys,
        now: Timestamp,
    ) -> Result<Membership, SessionError> {
        let pinned = pinned_key_id(token.expose()).ok_or(SessionError::BadToken)?;
        let (sign_key, seal_key) = (keys.sign.public_key(), keys.open.public_key());
        let proof = JoinRequest::proof_input(token.expose(), name.as_str(), &sign_key, &seal_key);
        let request = JoinRequest {
            token: token.expose().clone(),
            name: name.to_string(),
            proof: Blob(keys.sign.sign(Purpose::JoinProof, &proof)),
            sign_key: Blob(sign_key.clone()),
            seal_key: Blob(seal_key),
            software: SOFTWARE.to_owned(),
        };
        let url = self.url("join");
        let envelope: Envelope = self.call(&self.client()?, &url, &request)?;
        let untrusted = |source| SessionError::Untrusted { url: url.clone(), source };
        // The key comes inside the answer, and counts only when it is the one that the token names.
        let said: JoinAnswer = envelope.peek().map_err(untrusted)?;
        let got = key_id(&said.controller_key.0);
        if said.controller_key.0.len() != PUBLIC_KEY_LEN || got != pinned {
            return Err(SessionError::WrongController { expected: pinned.to_owned(), got });
        }
        let answer: JoinAnswer = envelope.open(Purpose::JoinAnswer, &said.controller_key.0).map_err(untrusted)?;
        if answer.sign_key.0 != sign_key {
            return Err(SessionError::Unfit { url, what: "it is for another agent's key" });
        }
        Ok(Membership {
            version: 1,
            tenant_id: answer.tenant_id,
            agent_id: answer.agent_id,
            name: answer.name,
            controller_key: answer.controller_key,
            joined_at: now,
        })
    }

    /// Joins without a token; says how many seconds later to ask again when an operator has yet to approve it. Blocks.
    ///
    /// # Errors
    /// Not reached, refused, not the configured controller, or a factory identity that cannot be used.
    pub fn announce(
        &self,
        announce: &AnnounceConfig,
        name: &ObjectName,
        keys: &IdentityKeys,
        now: Timestamp,
    ) -> Result<Result<Membership, u32>, SessionError> {
        let client = self.client()?;
        let challenge: Challenge = self.call(&client, &self.url("challenge"), &ChallengeRequest { agent_id: None })?;
        let sign_key = keys.sign.public_key();
        let mut request = AnnounceRequest {
            tenant: announce.tenant.to_string(),
            name: name.to_string(),
            serial: announce.serial.clone(),
            sign_key: Blob(sign_key.clone()),
            seal_key: Blob(keys.open.public_key()),
            software: SOFTWARE.to_owned(),
            challenge: challenge.challenge,
            factory: None,
            proof: Blob(Vec::new()),
        };
        request.proof = Blob(keys.sign.sign(Purpose::AnnounceProof, &request.proof_input()));
        if let (Some(certificate), Some(key)) = (&announce.certificate_file, &announce.key_file) {
            let input = request.factory_input();
            request.factory = Some(factory_proof(certificate, key, &input).map_err(SessionError::Factory)?);
        }
        let url = self.url("announce");
        let envelope: Envelope = self.call(&client, &url, &request)?;
        let untrusted = |source| SessionError::Untrusted { url: url.clone(), source };
        // The key comes inside the answer, and counts only when it is the configured one.
        let controller_key = match envelope.peek::<AnnounceAnswer>().map_err(untrusted)? {
            AnnounceAnswer::Joined(JoinAnswer { controller_key, .. })
            | AnnounceAnswer::Pending { controller_key, .. } => controller_key.0,
        };
        let got = key_id(&controller_key);
        if controller_key.len() != PUBLIC_KEY_LEN || !got.eq_ignore_ascii_case(&announce.controller_key) {
            return Err(SessionError::WrongController { expected: announce.controller_key.clone(), got });
        }
        let answer: AnnounceAnswer = envelope.open(Purpose::AnnounceAnswer, &controller_key).map_err(untrusted)?;
        let unfit = || SessionError::Unfit { url: url.clone(), what: "it is for another agent's key" };
        match answer {
            AnnounceAnswer::Joined(answer) if answer.sign_key.0 == sign_key => Ok(Ok(Membership {
                version: 1,
                tenant_id: answer.tenant_id,
                agent_id: answer.agent_id,
                name: answer.name,
                controller_key: answer.controller_key,
                joined_at: now,
            })),
            AnnounceAnswer::Pending { sign_key: told, retry_after_s, .. } if told.0 == sign_key => {
                Ok(Err(retry_after_s))
            }
            AnnounceAnswer::Joined(_) | AnnounceAnswer::Pending { .. } => Err(unfit()),
        }
    }

    /// Opens a session: proves possession of the key, gets the broker's address and token. Blocks.
    ///
    /// # Errors
    /// Not reached, refused, or not signed by the pinned key.
    pub fn open_session(
        &self,
        config: &Config,
        membership: &Membership,
        keys: &IdentityKeys,
        instance: InstanceId,
    ) -> Result<SessionAnswer, SessionError> {
        let agent_id = membership.agent_id;
        let client = self.client()?;
        let challenge: Challenge =
            self.call(&client, &self.url("challenge"), &ChallengeRequest { agent_id: Some(agent_id) })?;
        let proof = SessionRequest::proof_input(agent_id, &challenge.challenge.0, Some(instance));
        let proof = Blob(keys.sign.sign(Purpose::SessionProof, &proof));
        let url = self.url("session");
        let request = SessionRequest { agent_id, challenge: challenge.challenge, instance: Some(instance), proof };
        let envelope: Envelope = self.call(&client, &url, &request)?;
        let untrusted = |source| SessionError::Untrusted { url: url.clone(), source };
        let answer: SessionAnswer =
            envelope.open(Purpose::SessionAnswer, &membership.controller_key.0).map_err(untrusted)?;
        let unfit = |what| SessionError::Unfit { url: url.clone(), what };
        if answer.agent_id != agent_id {
            return Err(unfit("it is for another agent"));
        }
        // An old answer, replayed, would bring an old clock with it.
        if answer.token_expires_at <= answer.now {
            return Err(unfit("its broker token has already ended"));
        }
        let broker = parse_broker_url(&answer.amqp_url).map_err(|_| unfit("the broker's URL is not one"))?;
        config.check_transport("the broker's URL", &broker, "amqp", "amqps")?;
        Ok(answer)
    }

    fn url(&self, door: &str) -> String {
        format!("{}/agent/v1/{door}", self.base.as_str().trim_end_matches('/'))
    }

    fn call<Q: Serialize, A: DeserializeOwned>(
        &self,
        client: &ureq::Agent,
        url: &str,
        request: &Q,
    ) -> Result<A, SessionError> {
        let unreachable =
            |error: ureq::Error| SessionError::Unreachable { url: url.to_owned(), detail: error.to_string() };
        let mut response =
            client.post(url).header("accept", "application/json").send_json(request).map_err(unreachable)?;
        let status = response.status().as_u16();
        let body = response.body_mut().with_config().limit(ANSWER_MAX).read_to_vec().map_err(unreachable)?;
        if !(200..300).contains(&status) {
            let problem: Problem = serde_json::from_slice(&body).unwrap_or_default();
            let detail = if problem.detail.is_empty() { &problem.title } else { &problem.detail };
            let (code, detail) = (sanitise(&problem.code), sanitise(detail));
            return Err(SessionError::Refused { url: url.to_owned(), status, code, detail });
        }
        serde_json::from_slice(&body)
            .map_err(|source| SessionError::Untrusted { url: url.to_owned(), source: WireError::BadPayload(source) })
    }
}

/// The factory's certificate, and its key's signature over `input`; read anew each time, and not kept.
fn factory_proof(certificate: &Path, key: &Path, input: &[u8]) -> Result<FactoryProof, String> {
    let read = |path: &Path| fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()));
    let pem = read(certificate)?;
    let bundle = Certificate::pem_bundle(&pem).map_err(|error| format!("{}: {error}", certificate.display()))?;
    let [own, chain @ ..] = bundle.as_slice() else {
        return Err(format!("{} holds no certificate", certificate.display()));
    };
    let pem = zeroize::Zeroizing::new(read(key)?);
    let signer = SoftwareKey::from_pem(&pem).map_err(|error| format!("{}: {error}", key.display()))?;
    if signer.public_key_der() != own.spki_der() {
        return Err(format!("{} is not the key of the first certificate in {}", key.display(), certificate.display()));
    }
    let signature = signer.sign(input).map_err(|error| format!("{}: {error}", key.display()))?;
    Ok(FactoryProof {
        certificate: Blob(own.as_der().to_vec()),
        chain: chain.iter().map(|certificate| Blob(certificate.as_der().to_vec())).collect(),
        algorithm: signer.signature_algorithm().name().to_owned(),
        signature: Blob(signature),
    })
}

/// Reads what is known of an earlier joining.
///
/// # Errors
/// The file cannot be read back.
pub fn load_membership(store: &Store) -> Result<Option<Membership>, StoreError> {
    let path = store.agent_file();
    let membership: Option<Membership> = store::load_json(&path)?;
    match membership {
        Some(Membership { version, .. }) if version != 1 => Err(unknown_version(&path, version)),
        other => Ok(other),
    }
}

fn unknown_version(path: &Path, version: u16) -> StoreError {
    let detail = format!("it has version {version}, written by a later release; this one reads version 1");
    StoreError::Corrupt { path: path.to_owned(), detail }
}

/// The last part of `tfj1.ID.SECRET.KEY`.
fn pinned_key_id(token: &str) -> Option<&str> {
    let parts: Vec<&str> = token.trim().split('.').collect();
    match parts.as_slice() {
        ["tfj1", id, secret, key] if !id.is_empty() && !secret.is_empty() && key.len() == 32 => Some(key),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_was_cut_or_changed_in_form_is_refused_before_anything_is_sent() {
        let key = "0123456789abcdef0123456789abcdef";
        assert_eq!(pinned_key_id(&format!("tfj1.id.secret.{key}")), Some(key));
        for bad in ["", "tfj1.id.secret", "tfj2.id.secret.0123456789abcdef0123456789abcdef", "tfj1..s.x", "tfj1.i.s.k"]
        {
            assert_eq!(pinned_key_id(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn only_what_can_pass_by_itself_is_tried_again() {
        let refused =
            |status| SessionError::Refused { url: String::new(), status, code: String::new(), detail: String::new() };
        assert!(refused(503).is_transient() && refused(429).is_transient());
        assert!(!refused(401).is_transient() && !refused(409).is_transient() && !SessionError::BadToken.is_transient());
    }
}
