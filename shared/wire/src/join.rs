//! Bodies of the agent's own HTTP doors: join and session.
//!
//! ```text
//! POST /agent/v1/join       JoinRequest      -> Envelope with JoinAnswer, signed by the controller's key
//! POST /agent/v1/announce   AnnounceRequest  -> Envelope with AnnounceAnswer, signed by the controller's key
//! POST /agent/v1/challenge  ChallengeRequest -> Challenge
//! POST /agent/v1/session    SessionRequest   -> Envelope with SessionAnswer, signed by the controller's key
//! ```
//! A join token reads `tfj1.<token id>.<secret>.<key id>`: the last part is the id of the controller's signing key
//! ([`crate::sign::key_id`]), so that an agent knows its controller before it trusts any answer. The secret part
//! travels to the controller, whose table holds only its SHA-256.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use trustfleet_model::ids::{AgentId, InstanceId, TenantId};

use crate::v1::Blob;

/// Longest join token, characters.
pub const JOIN_TOKEN_MAX: usize = 512;

/// An agent asks to be taken in.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinRequest {
    /// The whole join token.
    pub token: String,
    /// Name wanted; the token may fix it.
    pub name: String,
    /// Ed25519 public key, 32 bytes: proves possession, signs reports.
    pub sign_key: Blob,
    /// X25519 public key, 32 bytes: receives secrets.
    pub seal_key: Blob,
    /// Version of the agent's software.
    pub software: String,
    /// Signature with the Ed25519 key over [`JoinRequest::proof_input`].
    pub proof: Blob,
}

impl std::fmt::Debug for JoinRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JoinRequest")
            .field("name", &self.name)
            .field("software", &self.software)
            .finish_non_exhaustive()
    }
}

impl JoinRequest {
    /// What the proof signs: token, name and both keys, each with its length before it.
    pub fn proof_input(token: &str, name: &str, sign_key: &[u8], seal_key: &[u8]) -> Vec<u8> {
        lengths_and_bytes(&[token.as_bytes(), name.as_bytes(), sign_key, seal_key])
    }
}

/// The controller has taken the agent in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinAnswer {
    /// Tenant of the agent.
    pub tenant_id: TenantId,
    /// The agent's id.
    pub agent_id: AgentId,
    /// The agent's name.
    pub name: String,
    /// Ed25519 public key of the controller, to be kept.
    pub controller_key: Blob,
    /// The agent's own Ed25519 key, as the controller stored it.
    pub sign_key: Blob,
}

/// An agent without a token says who it is: by its factory identity, or by a serial number that an operator knows.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnnounceRequest {
    /// Name of the tenant that it wants to belong to.
    pub tenant: String,
    /// Name wanted; the operator may have fixed another one for the serial number.
    pub name: String,
    /// Serial number, as the device says; a factory identity says it itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// Ed25519 public key, 32 bytes: proves possession, signs reports.
    pub sign_key: Blob,
    /// X25519 public key, 32 bytes: receives secrets.
    pub seal_key: Blob,
    /// Version of the agent's software.
    pub software: String,
    /// A challenge of the controller as it came.
    pub challenge: Blob,
    /// The factory identity, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub factory: Option<FactoryProof>,
    /// Signature with the Ed25519 key over [`AnnounceRequest::proof_input`].
    pub proof: Blob,
}

/// A factory identity (IDevID, IEEE 802.1AR), and that its key speaks for the agent's own keys.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FactoryProof {
    /// The certificate, DER.
    pub certificate: Blob,
    /// CA certificates between it and the factory's anchor, DER.
    #[serde(default)]
    pub chain: Vec<Blob>,
    /// Signature algorithm, such as `ecdsa-sha256`.
    pub algorithm: String,
    /// Signature with the certificate's key over [`AnnounceRequest::factory_input`].
    pub signature: Blob,
}

impl AnnounceRequest {
    /// What the agent's own key signs: everything but software and proofs, each with its length before it.
    pub fn proof_input(&self) -> Vec<u8> {
        let serial = self.serial.as_deref().unwrap_or_default();
        let texts = [self.tenant.as_bytes(), self.name.as_bytes(), serial.as_bytes()];
        let [tenant, name, serial] = texts;
        lengths_and_bytes(&[tenant, name, serial, &self.sign_key.0, &self.seal_key.0, &self.challenge.0])
    }

    /// What the factory identity's key signs: the same, marked so that it is worthless for anything else.
    pub fn factory_input(&self) -> Vec<u8> {
        [b"trustfleet v1 factory-proof\0".as_slice(), &self.proof_input()].concat()
    }
}

/// What becomes of an agent that announced itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum AnnounceAnswer {
    /// It is taken in.
    Joined(JoinAnswer),
    /// An operator has to approve it.
    Pending {
        /// Ed25519 public key of the controller.
        controller_key: Blob,
        /// The agent's own Ed25519 key, as the controller stored it.
        sign_key: Blob,
        /// When to ask again at the earliest, seconds.
        retry_after_s: u32,
    },
}

/// An agent wants something to sign.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChallengeRequest {
    /// The agent; one that has not joined yet has no id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<AgentId>,
}

/// What the agent has to sign. It holds the controller's own time, so that a device with a wrong clock gets in.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Challenge {
    /// Opaque to the agent; good for one minute, at any replica.
    pub challenge: Blob,
    /// The controller's time.
    pub now: Timestamp,
}

/// An agent opens a session.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionRequest {
    /// The agent.
    pub agent_id: AgentId,
    /// The challenge as it came.
    pub challenge: Blob,
    /// The process that asks: two that take turns have the same keys. An agent that is older does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<InstanceId>,
    /// Signature with the agent's Ed25519 key over [`SessionRequest::proof_input`].
    pub proof: Blob,
}

impl SessionRequest {
    /// What the proof signs.
    pub fn proof_input(agent: AgentId, challenge: &[u8], instance: Option<InstanceId>) -> Vec<u8> {
        let (agent, instance) = (agent.as_uuid(), instance.map(|instance| instance.as_uuid()));
        let mut parts = vec![agent.as_bytes().as_slice(), challenge];
        parts.extend(instance.as_ref().map(|instance| instance.as_bytes().as_slice()));
        lengths_and_bytes(&parts)
    }
}

/// A session: how to reach the broker, and for how long.
#[derive(Clone, Serialize, Deserialize)]
pub struct SessionAnswer {
    /// The agent it is for.
    pub agent_id: AgentId,
    /// Broker URL without credentials, virtual host included.
    pub amqp_url: String,
    /// User name for the broker.
    pub amqp_user: String,
    /// JWT: the password for the broker.
    pub amqp_token: String,
    /// When the JWT ends.
    pub token_expires_at: Timestamp,
    /// Queue to consume.
    pub queue: String,
    /// Exchange for reports.
    pub reports_exchange: String,
    /// Routing key of the hello.
    pub hello_key: String,
    /// The controller's time.
    pub now: Timestamp,
}

impl std::fmt::Debug for SessionAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionAnswer")
            .field("agent_id", &self.agent_id)
            .field("amqp_url", &self.amqp_url)
            .field("queue", &self.queue)
            .field("token_expires_at", &self.token_expires_at)
            .finish_non_exhaustive()
    }
}

fn lengths_and_bytes(parts: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    for part in parts {
        out.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
        out.extend_from_slice(part);
    }
    out
}
