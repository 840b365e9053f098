//! How far bindings reach, and what hangs on one.

use jiff::Timestamp;
use trustfleet_model::{binding::BindingSpec, field::ObjectName, ids::BindingId};

use super::{DbError, TenantTx, column::to_json, tx::Id};

/// What removing a binding would touch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BindingHoldings {
    /// Trustpoints that came by it.
    pub trustpoints: u64,
    /// Of those, the ones with something under way: they follow when it has ended.
    pub under_way: u64,
    /// Certificates of theirs that are in use and have not ended.
    pub in_use: u64,
    /// Certificates of theirs that are staged.
    pub staged: u64,
    /// Certificates of theirs that are valid and neither revoked nor about to be, in use or not.
    pub to_revoke: u64,
    /// MAC secrets of theirs.
    pub secrets: u64,
}

/// How far a binding reaches, or would.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// Devices whose labels it selects.
    pub devices: u64,
    /// Of those, the ones that have a trustpoint of that name which came otherwise.
    pub name_taken: u64,
    /// Of those, the ones where another trustpoint has one of the services.
    pub service_taken: u64,
    /// Of those, the ones that have its trustpoint already.
    pub bound: u64,
}

impl TenantTx {
    /// What removing a binding would touch.
    ///
    /// # Errors
    /// The database's own.
    pub async fn binding_holdings(&self, id: BindingId, now: Timestamp) -> Result<BindingHoldings, DbError> {
        let sql = "/* binding_holdings */ SELECT count(*) AS trustpoints,
                 count(*) FILTER (WHERE EXISTS (SELECT FROM jobs j WHERE j.tenant_id = t.tenant_id
                     AND j.trustpoint_id = t.trustpoint_id AND j.finished_at IS NULL)) AS under_way,
                 count(*) FILTER (WHERE t.not_after > $3) AS in_use,
                 count(*) FILTER (WHERE t.status = 'staged') AS staged,
                 (SELECT count(*) FROM certificates c JOIN trustpoints o USING (tenant_id, trustpoint_id)
                     WHERE o.tenant_id = $1 AND o.binding_id = $2 AND c.not_after > $3 AND NOT c.given_up) AS to_revoke,
                 count(*) FILTER (WHERE t.state #>> '{trustpoint,mac_secret_id}' IS NOT NULL) AS secrets
             FROM trustpoints t WHERE t.tenant_id = $1 AND t.binding_id = $2";
        let row = self.query_opt(sql, &[&Id(id), &now]).await?.ok_or(DbError::NotFound { kind: "binding" })?;
        let number = |column| -> Result<u64, DbError> { Ok(row.try_get::<_, i64>(column)?.unsigned_abs()) };
        Ok(BindingHoldings {
            trustpoints: number("trustpoints")?,
            under_way: number("under_way")?,
            in_use: number("in_use")?,
            staged: number("staged")?,
            to_revoke: number("to_revoke")?,
            secrets: number("secrets")?,
        })
    }

    /// How many devices that a selector selects now another one would not select any more, among those that have the
    /// binding's trustpoint.
    ///
    /// # Errors
    /// The database's own.
    pub async fn binding_left_behind(&self, id: BindingId, spec: &BindingSpec) -> Result<u64, DbError> {
        let sql = "/* binding_left_behind */ SELECT count(*) FROM trustpoints t
             JOIN devices d ON d.tenant_id = t.tenant_id AND d.device_id = t.device_id
             WHERE t.tenant_id = $1 AND t.binding_id = $2 AND NOT d.labels @> $3";
        let selector = to_json("bindings", "selector", id, &spec.selector)?;
        let row = self.query_opt(sql, &[&Id(id), &selector]).await?.ok_or(DbError::NotFound { kind: "binding" })?;
        Ok(row.try_get::<_, i64>(0)?.unsigned_abs())
    }

    /// How far a binding reaches, or would with this specification.
    ///
    /// # Errors
    /// The database's own.
    pub async fn binding_reach(&self, id: BindingId, spec: &BindingSpec) -> Result<Reach, DbError> {
        let sql = "/* binding_reach */ SELECT count(*) AS devices,
                 count(*) FILTER (WHERE t.binding_id IS DISTINCT FROM $4 AND t.trustpoint_id IS NOT NULL) AS name_taken,
                 count(*) FILTER (WHERE t.binding_id = $4) AS bound,
                 count(*) FILTER (WHERE cardinality($5::text[]) > 0 AND EXISTS (SELECT FROM trustpoints o
                     WHERE o.tenant_id = d.tenant_id AND o.device_id = d.device_id AND o.name <> $3
                         AND o.state #> '{trustpoint,services}' ?| $5)) AS service_taken
             FROM devices d
             LEFT JOIN trustpoints t ON t.tenant_id = d.tenant_id AND t.device_id = d.device_id AND t.name = $3
             WHERE d.tenant_id = $1 AND d.labels @> $2";
        let selector = to_json("bindings", "selector", id, &spec.selector)?;
        let services: Vec<&str> = spec.services.iter().map(ObjectName::as_str).collect();
        let row = self.query_opt(sql, &[&selector, &spec.trustpoint.as_str(), &Id(id), &services]).await?;
        let row = row.ok_or(DbError::NotFound { kind: "binding" })?;
        let number = |column| -> Result<u64, DbError> { Ok(row.try_get::<_, i64>(column)?.unsigned_abs()) };
        Ok(Reach {
            devices: number("devices")?,
            name_taken: number("name_taken")?,
            service_taken: number("service_taken")?,
            bound: number("bound")?,
        })
    }
}
