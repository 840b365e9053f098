//! What goes through the agents' doors, for the OpenAPI document alone: the bodies themselves are the wire crate's.

#![allow(dead_code)] // read by the OpenAPI document only

use jiff::Timestamp;
use utoipa::ToSchema;
use uuid::Uuid;

/// An agent asks to be taken in.
#[derive(Debug, ToSchema)]
#[schema(as = JoinRequest)]
pub struct JoinRequestBody {
    /// The whole join token.
    #[schema(write_only, max_length = 512)]
    token: String,
    /// Name wanted; the token may fix it.
    #[schema(max_length = 63)]
    name: String,
    /// Ed25519 public key, 32 bytes, base64.
    sign_key: String,
    /// X25519 public key, 32 bytes, base64.
    seal_key: String,
    /// Version of the agent's software.
    #[schema(max_length = 64)]
    software: String,
    /// Signature with the Ed25519 key over token, name and both keys, base64.
    proof: String,
}

/// An agent without a token says who it is.
#[derive(Debug, ToSchema)]
#[schema(as = AnnounceRequest)]
pub struct AnnounceRequestBody {
    /// Name of the tenant that it wants to belong to.
    #[schema(max_length = 63)]
    tenant: String,
    /// Name wanted; the operator may have fixed another one for the serial number.
    #[schema(max_length = 63)]
    name: String,
    /// Serial number, as the device says; a factory identity says it itself.
    #[schema(max_length = 63)]
    serial: Option<String>,
    /// Ed25519 public key, 32 bytes, base64.
    sign_key: String,
    /// X25519 public key, 32 bytes, base64.
    seal_key: String,
    /// Version of the agent's software.
    #[schema(max_length = 64)]
    software: String,
    /// A challenge of the controller as it came, base64.
    challenge: String,
    /// The factory identity, where there is one.
    factory: Option<FactoryProofBody>,
    /// Signature with the Ed25519 key over all of it but software and proofs, base64.
    proof: String,
}

/// A factory identity (IDevID, IEEE 802.1AR), and that its key speaks for the agent's own keys.
#[derive(Debug, ToSchema)]
#[schema(as = FactoryProof)]
pub struct FactoryProofBody {
    /// The certificate, DER in base64.
    certificate: String,
    /// CA certificates between it and the factory's anchor, DER in base64.
    chain: Vec<String>,
    /// Signature algorithm, such as `ecdsa-sha256`.
    algorithm: String,
    /// Signature with the certificate's key, base64.
    signature: String,
}

/// An agent wants to open a session.
#[derive(Debug, ToSchema)]
#[schema(as = ChallengeRequest)]
pub struct ChallengeRequestBody {
    /// The agent; one that has not joined yet has no id.
    agent_id: Option<Uuid>,
}

/// What the agent has to sign.
#[derive(Debug, ToSchema)]
#[schema(as = Challenge)]
pub struct ChallengeBody {
    /// Opaque to the agent, base64; good for one minute.
    challenge: String,
    /// The controller's time.
    #[schema(value_type = String, format = DateTime)]
    now: Timestamp,
}

/// An agent opens a session.
#[derive(Debug, ToSchema)]
#[schema(as = SessionRequest)]
pub struct SessionRequestBody {
    /// The agent.
    agent_id: Uuid,
    /// The challenge as it came, base64.
    challenge: String,
    /// The process that asks: two that take turns have the same keys.
    instance: Option<Uuid>,
    /// Signature with the agent's Ed25519 key over agent, challenge and process, base64.
    proof: String,
}

/// A signed answer.
#[derive(Debug, ToSchema)]
#[schema(as = Envelope)]
pub struct EnvelopeBody {
    /// Version of the payload.
    v: u16,
    /// Id of the controller's signing key.
    key: String,
    /// The answer as JSON, base64.
    payload: String,
    /// Ed25519 signature over exactly the payload's bytes, base64.
    signature: String,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::{Value, json};
    use trustfleet_wire::Envelope;
    use trustfleet_wire::join::{
        AnnounceRequest, Challenge, ChallengeRequest, FactoryProof, JoinRequest, SessionRequest,
    };
    use trustfleet_wire::v1::Blob;

    use super::*;

    fn documented<T: ToSchema>() -> BTreeSet<String> {
        let schema = serde_json::to_value(T::schema()).unwrap();
        schema["properties"].as_object().unwrap().keys().cloned().collect()
    }

    fn sent(value: &impl serde::Serialize) -> BTreeSet<String> {
        match json!(value) {
            Value::Object(object) => object.keys().cloned().collect(),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn the_document_names_exactly_the_fields_that_go_through_the_doors() {
        let (agent_id, blob, text) = (Uuid::nil().into(), || Blob(Vec::new()), String::new);
        let join = JoinRequest {
            token: text(),
            name: text(),
            sign_key: blob(),
            seal_key: blob(),
            software: text(),
            proof: blob(),
        };
        assert_eq!(documented::<JoinRequestBody>(), sent(&join));
        let factory = FactoryProof { certificate: blob(), chain: Vec::new(), algorithm: text(), signature: blob() };
        assert_eq!(documented::<FactoryProofBody>(), sent(&factory));
        let announce = AnnounceRequest {
            tenant: text(),
            name: text(),
            serial: Some(text()),
            sign_key: blob(),
            seal_key: blob(),
            software: text(),
            challenge: blob(),
            factory: Some(factory),
            proof: blob(),
        };
        assert_eq!(documented::<AnnounceRequestBody>(), sent(&announce));
        assert_eq!(documented::<ChallengeRequestBody>(), sent(&ChallengeRequest { agent_id: Some(agent_id) }));
        let now = Timestamp::UNIX_EPOCH;
        assert_eq!(documented::<ChallengeBody>(), sent(&Challenge { challenge: blob(), now }));
        let session = SessionRequest { agent_id, challenge: blob(), instance: Some(Uuid::nil().into()), proof: blob() };
        assert_eq!(documented::<SessionRequestBody>(), sent(&session));
        let envelope = Envelope { v: 1, key: text(), payload: blob(), signature: blob() };
        assert_eq!(documented::<EnvelopeBody>(), sent(&envelope));
    }
}
