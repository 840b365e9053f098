//! Freeze windows.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use trustfleet_model::ids::FreezeId;
use utoipa::ToSchema;

use crate::db::Freeze;

/// What makes a freeze.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FreezeCreate {
    /// Its name, unique in the tenant: 1 to 63 letters, digits, `.`, `_`, `-`, beginning with a letter or digit.
    #[schema(min_length = 1, max_length = 63)]
    pub name: String,
    /// When a window opens: minute, hour, day of the month, month, day of the week, such as `0 18 * * FRI`.
    #[schema(min_length = 1, max_length = 100)]
    pub cron: String,
    /// How long it is open, seconds, 60 to 2678400.
    #[schema(minimum = 60, maximum = 2678400)]
    pub duration_s: u32,
    /// IANA name of the time zone of `cron`; default `UTC`.
    #[serde(default = "utc")]
    pub time_zone: String,
    /// Labels of the devices that it holds, all of them; default: all devices.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

fn utc() -> String {
    "UTC".to_owned()
}

/// A freeze: windows in which devices are not changed, but for what is urgent.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Freeze)]
pub struct FreezeBody {
    /// Its id.
    #[schema(value_type = uuid::Uuid)]
    pub id: FreezeId,
    /// Its name.
    pub name: String,
    /// When a window opens.
    pub cron: String,
    /// How long it is open, seconds.
    pub duration_s: u32,
    /// Time zone of `cron`.
    pub time_zone: String,
    /// Labels of the devices that it holds; empty: all.
    pub labels: BTreeMap<String, String>,
    /// Until when it holds at present; null: it does not.
    #[schema(value_type = Option<String>, format = DateTime, required)]
    pub active_until: Option<Timestamp>,
    /// When the next window opens.
    #[schema(value_type = Option<String>, format = DateTime, required)]
    pub next_from: Option<Timestamp>,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
}

impl FreezeBody {
    /// The freeze as it is at `now`.
    pub fn new(freeze: Freeze, now: Timestamp) -> Self {
        // What was checked can be read; what cannot holds nothing.
        let windows = freeze.spec.windows(now).unwrap_or_default();
        Self {
            id: freeze.id,
            name: freeze.name.into(),
            cron: freeze.spec.cron,
            duration_s: freeze.spec.duration_s,
            time_zone: freeze.spec.time_zone,
            labels: freeze.labels.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
            active_until: windows.active_until,
            next_from: windows.next_from,
            created_at: freeze.created_at,
        }
    }
}
