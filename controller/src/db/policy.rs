//! SQL of table `policies`: CMP policies (S1 to S26).

use jiff::Timestamp;
use trustfleet_model::field::ObjectName;
use trustfleet_model::ids::PolicyId;
use trustfleet_model::policy::PolicySpec;

use super::DbError;
use super::column::{Columns, to_json};
use super::configured::{Configured, UsedBy, configured_table};
use super::tx::Id;

configured_table!(
    "policies",
    "policy",
    "policy_id",
    PolicyId,
    PolicySpec,
    policy_insert,
    policy_fetch,
    policy_list,
    policy_update,
    policy_used_by,
    policy_delete
);
