//! Campaigns: one change of many trustpoints, in waves, each of which must be seen in service before the next one begins
//! (S51, S58). Pure; [`crate::campaigner`] carries them out.

mod portion;
mod progress;
mod settle;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use trustfleet_model::{
    device::Labels,
    field::{ObjectName, TrustpointName},
    ids::{CaServerId, PolicyId},
    job::RequestKind,
    revocation::RevocationReason,
};

pub use self::portion::{Portion, wave_ends};
pub use self::progress::{Count, Step, StopReason, Wave, step};
pub use self::settle::{Facts, JobFact, Outcome, settle, settle_undo};

/// Most waves of a campaign, the last one included.
pub const WAVES_MAX: usize = 20;
/// Most members at work at a time.
pub const IN_FLIGHT_MAX: u32 = 10_000;
/// Where nothing is said.
pub const IN_FLIGHT: u32 = 100;
/// Where nothing is said, percent.
pub const SUCCESS_PERCENT: u8 = 95;
/// Where nothing is said, percent of a wave.
pub const FAILURES: Portion = Portion::Percent(5);
/// How long a member may take where nothing is said, seconds: a day.
pub const PATIENCE_S: u32 = 86_400;
/// Longest patience and longest soak, seconds: 30 days.
pub const WAIT_MOST_S: u32 = 30 * 86_400;

/// What a campaign is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CampaignSpec {
    /// Which trustpoints.
    pub select: Selector,
    /// What is done to them.
    pub action: Action,
    /// Sizes of the first waves; what is left is the last one.
    pub waves: Vec<Portion>,
    /// Most members at work at a time.
    pub max_in_flight: u32,
    /// So many of a wave, percent, must be seen in service before the next one begins.
    pub success_percent: u8,
    /// So many of a wave may fail; one more stops the campaign.
    pub failures_allowed: Portion,
    /// A member whose services cannot be seen to use the certificate counts as one that was seen.
    pub accept_unverifiable: bool,
    /// How long a wave is watched after it has come to its threshold, seconds.
    pub soak_s: u32,
    /// A member that has not come to an end after so long counts as out of reach, and holds up no others; seconds.
    pub patience_s: u32,
    /// Goes before everything else at the CA, and through freeze windows.
    pub urgent: bool,
}

impl CampaignSpec {
    /// Whether freeze windows hold it: not what is urgent, nor a revocation, which changes no device and does not wait.
    pub const fn can_be_frozen(&self) -> bool {
        !self.urgent && !matches!(self.action, Action::Revoke { .. })
    }
}

/// An object with the name that it had when it was named.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named<I> {
    /// Its id.
    pub id: I,
    /// Its name then.
    pub name: ObjectName,
}

/// Which trustpoints a campaign is about: those for which everything holds that is said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selector {
    /// Labels that the device must have.
    #[serde(default)]
    pub labels: Labels,
    /// Name of the trustpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trustpoint: Option<TrustpointName>,
    /// Its CA server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_server: Option<Named<CaServerId>>,
    /// Its policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Named<PolicyId>>,
    /// Issuer of the certificate in use, as it is shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// Kind of the key of the certificate in use, such as `rsa-2048`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The certificate in use ends before this moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_before: Option<Timestamp>,
}

/// What is done to a trustpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Action {
    /// A new certificate by the present settings.
    Renew {
        /// It is staged, and put into use by another campaign or by hand.
        #[serde(default)]
        stage_only: bool,
    },
    /// A new certificate for a new key, whatever the policy says of keys.
    Rekey {
        /// It is staged, and put into use by another campaign or by hand.
        #[serde(default)]
        stage_only: bool,
    },
    /// Another policy or CA server, and a new certificate by it.
    Change {
        /// The policy; none: it stays.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        policy: Option<Named<PolicyId>>,
        /// The CA server; none: it stays.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ca_server: Option<Named<CaServerId>>,
        /// How the certificate is asked for; an update is no way to another CA.
        request: RequestKind,
        /// It is staged, and put into use by another campaign or by hand.
        #[serde(default)]
        stage_only: bool,
    },
    /// What is staged is put into use.
    Activate,
    /// The next anchors of the CA server's roll-over go to the device and its services (S57).
    Anchors,
    /// The certificate in use is revoked.
    Revoke {
        /// Why.
        reason: RevocationReason,
    },
}

impl Action {
    /// The word in the API and in metrics.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Renew { .. } => "renew",
            Self::Rekey { .. } => "rekey",
            Self::Change { .. } => "change",
            Self::Activate => "activate",
            Self::Anchors => "anchors",
            Self::Revoke { .. } => "revoke",
        }
    }

    /// Whether its certificates stay staged.
    pub const fn stages_only(&self) -> bool {
        match self {
            Self::Renew { stage_only } | Self::Rekey { stage_only } | Self::Change { stage_only, .. } => *stage_only,
            Self::Activate | Self::Anchors | Self::Revoke { .. } => false,
        }
    }

    /// Whether what it did can be taken back: anchors by cancelling their roll-over, which tells everybody.
    pub const fn can_be_undone(&self) -> bool {
        !matches!(self, Self::Anchors | Self::Revoke { .. })
    }
}

/// How far a campaign is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CampaignState {
    /// Its members are being found.
    Preparing,
    /// Its waves go.
    Running,
    /// An operator has paused it.
    Paused,
    /// It has stopped by itself: an operator decides.
    Stopped,
    /// It is done.
    Completed,
    /// An operator has ended it.
    Cancelled,
    /// What it did is being taken back.
    RollingBack,
    /// What it did was taken back, as far as that was possible.
    RolledBack,
}

impl CampaignState {
    /// All states.
    pub const ALL: [Self; 8] = [
        Self::Preparing,
        Self::Running,
        Self::Paused,
        Self::Stopped,
        Self::Completed,
        Self::Cancelled,
        Self::RollingBack,
        Self::RolledBack,
    ];

    /// The word in the API, in SQL and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Preparing => "preparing",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
            Self::Completed => "completed",
            Self::Cancelled => "cancelled",
            Self::RollingBack => "rolling_back",
            Self::RolledBack => "rolled_back",
        }
    }

    /// The state of a stored word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }

    /// Whether it has ended.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Cancelled | Self::RolledBack)
    }
}

/// How far a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberState {
    /// Its turn has not come.
    Pending,
    /// It is being asked for.
    Asking,
    /// Its job is under way, or its services have yet to take the certificate.
    InFlight,
    /// Its certificate is staged and is to be put into use.
    Activating,
    /// It was seen in service; or staged, or revoked, where that is all that is wanted.
    Verified,
    /// It is done, and nobody can see whether its services use it.
    Unverifiable,
    /// It failed.
    Failed,
    /// It has not come to an end in time.
    Unreachable,
    /// There was nothing to do.
    Skipped,
    /// The campaign ended before its turn.
    Cancelled,
    /// What was done is to be taken back.
    ToUndo,
    /// What was done is being taken back.
    Undoing,
    /// What was done was taken back.
    Undone,
    /// What was done could not be taken back.
    UndoFailed,
}

impl MemberState {
    /// All states.
    pub const ALL: [Self; 14] = [
        Self::Pending,
        Self::Asking,
        Self::InFlight,
        Self::Activating,
        Self::Verified,
        Self::Unverifiable,
        Self::Failed,
        Self::Unreachable,
        Self::Skipped,
        Self::Cancelled,
        Self::ToUndo,
        Self::Undoing,
        Self::Undone,
        Self::UndoFailed,
    ];

    /// The word in the API, in SQL and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Asking => "asking",
            Self::InFlight => "in_flight",
            Self::Activating => "activating",
            Self::Verified => "verified",
            Self::Unverifiable => "unverifiable",
            Self::Failed => "failed",
            Self::Unreachable => "unreachable",
            Self::Skipped => "skipped",
            Self::Cancelled => "cancelled",
            Self::ToUndo => "to_undo",
            Self::Undoing => "undoing",
            Self::Undone => "undone",
            Self::UndoFailed => "undo_failed",
        }
    }

    /// The state of a stored word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }
}

/// What a member was before, for a roll-back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {
    /// Its CA server.
    pub ca_server_id: CaServerId,
    /// Its policy.
    pub policy_id: PolicyId,
    /// Serial number of the certificate in use, upper-case hex; none: there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
}
