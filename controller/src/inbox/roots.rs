//! Roots that follow trust anchors, as a hello tells of them. What an agent says is verified here by the CA server's own
//! anchors, so that only who has an anchor's key can offer anything; and nothing is trusted for being offered.

use jiff::{SignedDuration, Timestamp};
use trustfleet_model::ids::{AgentId, TenantId};
use trustfleet_pki::{Certificate, succession::follows};
use trustfleet_wire::v1::RootOffered;

use super::Inbox;
use crate::{
    audit::Requester,
    db::{DbError, Note, OfferedRoot, TenantTx},
};

/// Most roots of one hello that are looked at.
const ROOTS_MAX: usize = 8;
/// A root that is known is noted again after so long: a fleet tells of it every few minutes.
const NOTED_FOR: SignedDuration = SignedDuration::from_hours(1);

/// What became of a root.
enum Noted {
    News,
    Known,
    Refused(String),
}

impl Inbox {
    /// Keeps roots that really follow anchors of the agent's CA servers.
    pub(super) async fn roots(&self, tenant: TenantId, agent: AgentId, roots: Vec<RootOffered>) -> Result<(), DbError> {
        let now = self.clock.now();
        for offered in roots.into_iter().take(ROOTS_MAX) {
            let trustpoint = offered.trustpoint_id;
            let noted = self
                .store
                .tenant_tx(tenant, "root_offered", async move |tx| take(tx, agent, &offered, now).await)
                .await?;
            match noted {
                Noted::News => tracing::info!(agent.id = %agent, trustpoint.id = %trustpoint, "a CA has a new root"),
                Noted::Known => {}
                Noted::Refused(reason) => {
                    tracing::warn!(agent.id = %agent, trustpoint.id = %trustpoint, reason, "an offered root is not kept")
                }
            }
        }
        Ok(())
    }
}

async fn take(tx: &TenantTx, agent: AgentId, offered: &RootOffered, now: Timestamp) -> Result<Noted, DbError> {
    let read =
        Certificate::from_der(&offered.root.0).and_then(|root| Ok((root, Certificate::from_der(&offered.with_old.0)?)));
    let (root, with_old) = match read {
        Ok(read) => read,
        Err(error) => return Ok(Noted::Refused(error.to_string())),
    };
    let sha256 = hex::encode(root.sha256_fingerprint());
    let Some(server) = tx.offered_root_of(agent, offered.trustpoint_id, &sha256).await? else {
        return Ok(Noted::Refused("the agent has no such trustpoint".to_owned()));
    };
    if server.told_at.is_some_and(|told_at| now.duration_since(told_at) < NOTED_FOR) {
        return Ok(Noted::Known);
    }
    let anchors: Vec<Certificate> =
        server.spec.trust_anchors.iter().filter_map(|pem| Certificate::from_pem(pem).ok()).collect();
    if anchors.contains(&root) {
        return Ok(Noted::Known);
    }
    let mut reason = "the CA server has no anchor".to_owned();
    let old = anchors.iter().find(|anchor| match follows(anchor, &root, &with_old, None, now) {
        Ok(()) => true,
        Err(why) => {
            reason = why;
            false
        }
    });
    let Some(old) = old else { return Ok(Noted::Refused(reason)) };
    let kept = OfferedRoot {
        sha256: sha256.clone(),
        certificate: root.to_pem(),
        follows: hex::encode(old.sha256_fingerprint()),
        agent_id: agent,
        offered_at: now,
        told_at: now,
    };
    if !tx.offered_root_note(server.id, &kept).await? {
        return Ok(Noted::Known);
    }
    let requester = Requester::new(format!("agent:{agent}"), "agent");
    let detail = serde_json::json!({
        "name": server.name, "root": root.subject().to_string(), "sha256": sha256, "follows": kept.follows,
        "not_after": root.not_after(),
    });
    let note = Note::new(now, &requester, "root_offered", "ca_server", server.id.as_uuid(), detail);
    tx.audit_note(&note).await?;
    Ok(Noted::News)
}
