//! The log as JSON lines, for safe keeping elsewhere and for verification without the controller.
//!
//! First a line `log`, then the chained rows in their order with the checkpoints among them (each after its row), then the
//! rows that are not chained yet. What is linked but not there any more is a row without content.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use trustfleet_model::ids::TenantId;

use super::{Checkpoint, Hash, Record};

/// Version of the form, in the first line.
pub const FORMAT: u32 = 1;

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Line {
    /// Which log follows.
    Log(LogLine),
    /// A link with its row, or a row that is not chained yet.
    Row(Box<RowLine>),
    /// A signed link; where rows were dropped by retention, the first line is the checkpoint before those that are left.
    Checkpoint(Checkpoint),
    /// The end of an answer.
    End {
        /// What to give as `after` for what follows; null at the end of the log.
        next: Option<String>,
    },
}

/// Which log it is, and whose key signs it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogLine {
    /// [`FORMAT`].
    pub format: u32,
    /// The tenant's id; the nil UUID for the installation's own log.
    pub tenant_id: TenantId,
    /// When it was exported.
    pub exported_at: Timestamp,
    /// The controller's Ed25519 public key, hex.
    #[serde(with = "super::hex_text")]
    pub public_key: Vec<u8>,
}

/// A link with its row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RowLine {
    /// Its place in the chain; none: not chained yet.
    pub link: Option<Link>,
    /// The row; none: it is gone.
    pub row: Option<Record>,
}

/// A row's place in the chain.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Link {
    /// Counted from 1.
    pub seq: i64,
    /// The hash.
    pub hash: Hash,
    /// Id of the row.
    pub row_id: i64,
    /// Whether the row's seal was good when it was chained: that a controller has written it.
    pub sealed: bool,
}

/// Heads of one or many logs, to be kept where nobody can change them who can change the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Heads {
    /// The controller's Ed25519 public key, hex.
    #[serde(with = "super::hex_text")]
    pub public_key: Vec<u8>,
    /// The latest signed link of each log.
    pub heads: Vec<Head>,
}

/// The latest signed link of a log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Head {
    /// The tenant's id; the nil UUID for the installation's own log.
    pub tenant_id: TenantId,
    /// The tenant's name; none for the installation's own log.
    pub tenant: Option<String>,
    /// The signed link.
    #[serde(flatten)]
    pub checkpoint: Checkpoint,
}
