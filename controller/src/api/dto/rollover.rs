//! Roll-overs of trust anchors (S57).

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use trustfleet_model::ids::RolloverId;
use trustfleet_model::rollover::{AnchorState, Counts, Issuer, Phase, Tally, may_switch};
use trustfleet_pki::Certificate;
use utoipa::ToSchema;

use super::words;
use crate::db::{Laggard, Rollover};

words! {
    /// What counts as having the next anchors.
    CountsBody mirrors Counts {
        /// Only where every service that relies on them is seen to have loaded them, or none relies on them.
        Loaded = "loaded",
        /// Also where services were reloaded with them and nobody can see more.
        Stored = "stored",
    }
}

words! {
    /// Where a roll-over stands.
    PhaseBody mirrors Phase {
        /// The next anchors go to the devices; certificates come from the former issuer.
        Distributing = "distributing",
        /// Certificates come from the next issuer; both sides are trusted.
        Switched = "switched",
        /// Only the next anchors are trusted.
        Finished = "finished",
        /// Given up before the switch: only the former anchors are trusted.
        Cancelled = "cancelled",
    }
}

words! {
    /// How far a trustpoint is with the anchors.
    AnchorStateBody mirrors AnchorState {
        /// It is not its turn yet, or nobody can be told: its device has no agent.
        Pending = "pending",
        /// The order goes to its agent, again with each of its sessions until it is answered.
        Sent = "sent",
        /// On the device, and its services were reloaded with them; of at least one it is not seen that it has them.
        Stored = "stored",
        /// Seen to be loaded by every service that relies on them.
        Loaded = "loaded",
        /// A service did not take them; everything there is as it was, and it is tried again.
        Failed = "failed",
    }
}

/// What the switch changes of a CA server; what is left out stays.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RolloverIssuer)]
pub struct IssuerBody {
    /// Name of the CA, the recipient of requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 512)]
    pub ca_name: Option<String>,
    /// CMP URL of the primary server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 1024)]
    pub primary_url: Option<String>,
    /// CMP URL of the secondary server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 1024)]
    pub secondary_url: Option<String>,
    /// Certificates that verify signed answers, PEM, one each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification_certificates: Option<Vec<String>>,
}

impl From<IssuerBody> for Issuer {
    fn from(body: IssuerBody) -> Self {
        let IssuerBody { ca_name, primary_url, secondary_url, verification_certificates } = body;
        Self { ca_name, primary_url, secondary_url, verification_certificates }
    }
}

impl From<Issuer> for IssuerBody {
    fn from(issuer: Issuer) -> Self {
        let Issuer { ca_name, primary_url, secondary_url, verification_certificates } = issuer;
        Self { ca_name, primary_url, secondary_url, verification_certificates }
    }
}

/// What begins a roll-over.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RolloverStart {
    /// The next anchors, PEM, one certificate each.
    pub next_anchors: Vec<String>,
    /// Share of the trustpoints with a certificate in use that must have them before the switch, percent; default 100.
    #[serde(default = "all")]
    #[schema(minimum = 1, maximum = 100, default = 100)]
    pub required_percent: u8,
    /// What counts as having them; default `loaded`.
    #[serde(default = "loaded")]
    pub counts: CountsBody,
    /// What the switch changes. Left out: nothing, for a CA that changes its issuer behind the same URL and name.
    #[serde(default)]
    pub issuer: IssuerBody,
    /// Instead of `issuer`: another CA server whose name, URLs and verification certificates are taken over.
    #[serde(default)]
    #[schema(max_length = 63)]
    pub issuer_of: Option<String>,
    /// Tell nobody before the switch but by a campaign with the action `anchors`, wave by wave; default false.
    #[serde(default)]
    pub by_campaign: bool,
}

const fn all() -> u8 {
    100
}

const fn loaded() -> CountsBody {
    CountsBody::Loaded
}

/// How the issuer is switched.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RolloverSwitch {
    /// Below the required share as well: services that lack the next anchors are cut off. Needs `reason`; default false.
    #[serde(default)]
    pub force: bool,
    /// Why it is forced, 1 to 200 characters; kept with the roll-over and in the audit log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 200)]
    pub reason: Option<String>,
}

/// A trust anchor.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = RolloverAnchor)]
pub struct AnchorBody {
    /// Its subject, RFC 4514.
    pub subject: String,
    /// SHA-256 of it, lower-case hex.
    pub sha256: String,
    /// Its end.
    #[schema(value_type = String, format = DateTime)]
    pub not_after: Timestamp,
}

/// A roll-over of the trust anchors of a CA server.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Rollover)]
pub struct RolloverBody {
    /// Its id.
    #[schema(value_type = uuid::Uuid)]
    pub id: RolloverId,
    /// Name of the CA server.
    pub ca_server: String,
    /// Where it stands.
    pub phase: PhaseBody,
    /// The anchors of the CA server when it began.
    pub former_anchors: Vec<AnchorBody>,
    /// The next ones.
    pub next_anchors: Vec<AnchorBody>,
    /// Share that must have them before the switch, percent.
    pub required_percent: u8,
    /// What counts as having them.
    pub counts: CountsBody,
    /// Share of those that count now, percent, rounded down.
    pub percent: u8,
    /// Trustpoints of the CA server with a certificate in use that is neither over nor revoked.
    pub trustpoints: u64,
    /// Those of them that do not count.
    pub missing: u64,
    /// Not told yet.
    pub pending: u64,
    /// Told, and not answered.
    pub sent: u64,
    /// On the device; not seen to be loaded by every service.
    pub stored: u64,
    /// Loaded.
    pub loaded: u64,
    /// Not taken by a service.
    pub failed: u64,
    /// Whether the switch would be allowed now.
    pub may_switch: bool,
    /// What the switch changes.
    pub issuer: IssuerBody,
    /// Whether before the switch only a campaign tells trustpoints.
    pub by_campaign: bool,
    /// Who began it.
    pub started_by: String,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub started_at: Timestamp,
    /// Who switched the issuer.
    #[schema(required)]
    pub switched_by: Option<String>,
    /// When.
    #[schema(value_type = Option<String>, format = DateTime, required)]
    pub switched_at: Option<Timestamp>,
    /// Why that was below the required share.
    #[schema(required)]
    pub forced_reason: Option<String>,
    /// Who finished or cancelled it.
    #[schema(required)]
    pub ended_by: Option<String>,
    /// When.
    #[schema(value_type = Option<String>, format = DateTime, required)]
    pub ended_at: Option<Timestamp>,
}

impl RolloverBody {
    /// The roll-over with how far it is.
    pub fn new(ca_server: &str, rollover: Rollover, tally: &Tally) -> Self {
        let spec = rollover.spec;
        let of = |state| tally.of(state);
        let may_switch =
            rollover.phase == Phase::Distributing && may_switch(tally, spec.counts, spec.required_percent).is_ok();
        Self {
            id: rollover.id,
            ca_server: ca_server.to_owned(),
            phase: rollover.phase.into(),
            former_anchors: anchors(&rollover.former_anchors),
            next_anchors: anchors(&spec.next_anchors),
            required_percent: spec.required_percent,
            counts: spec.counts.into(),
            percent: tally.percent(spec.counts),
            trustpoints: tally.total(),
            missing: tally.missing(spec.counts),
            pending: of(AnchorState::Pending),
            sent: of(AnchorState::Sent),
            stored: of(AnchorState::Stored),
            loaded: of(AnchorState::Loaded),
            failed: of(AnchorState::Failed),
            may_switch,
            issuer: spec.issuer.into(),
            by_campaign: spec.by_campaign,
            started_by: rollover.started_by,
            started_at: rollover.started_at,
            switched_by: rollover.switched_by,
            switched_at: rollover.switched_at,
            forced_reason: rollover.forced_reason,
            ended_by: rollover.ended_by,
            ended_at: rollover.ended_at,
        }
    }
}

fn anchors(pems: &[String]) -> Vec<AnchorBody> {
    let read = pems.iter().filter_map(|pem| Certificate::from_pem(pem).ok());
    read.map(|anchor| AnchorBody {
        subject: anchor.subject().to_string(),
        sha256: hex::encode(anchor.sha256_fingerprint()),
        not_after: anchor.not_after(),
    })
    .collect()
}

/// A trustpoint that a roll-over waits for.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = RolloverMissing)]
pub struct LaggardBody {
    /// Name of its device.
    pub device: String,
    /// Its name.
    pub trustpoint: String,
    /// How far it is.
    pub state: AnchorStateBody,
    /// Why no further: as its agent said, or that nobody can be told.
    #[schema(required)]
    pub reason: Option<String>,
    /// When that became known.
    #[schema(value_type = Option<String>, format = DateTime, required)]
    pub at: Option<Timestamp>,
    /// Name of the agent in front of the device.
    #[schema(required)]
    pub agent: Option<String>,
    /// When that was last heard of.
    #[schema(value_type = Option<String>, format = DateTime, required)]
    pub agent_last_seen_at: Option<Timestamp>,
}

impl From<Laggard> for LaggardBody {
    fn from(laggard: Laggard) -> Self {
        let reason = laggard.reason.or_else(|| match (laggard.state, &laggard.agent) {
            (AnchorState::Pending, None) => Some("no agent is in front of the device".to_owned()),
            (AnchorState::Pending, Some(_)) => Some("it is told in one of the next batches".to_owned()),
            (AnchorState::Sent, _) => Some("its agent has not answered".to_owned()),
            _ => None,
        });
        Self {
            device: laggard.device.into(),
            trustpoint: laggard.trustpoint.into(),
            state: laggard.state.into(),
            reason,
            at: laggard.at,
            agent: laggard.agent.map(Into::into),
            agent_last_seen_at: laggard.agent_last_seen_at,
        }
    }
}
