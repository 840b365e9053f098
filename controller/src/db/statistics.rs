//! Sums of the statistics of many trustpoints (S48).

use trustfleet_model::ids::{DeviceId, PolicyId};
use trustfleet_model::statistics::Statistics;

use super::{DbError, TenantTx, tx::Id};

/// Whose statistics are summed; all of the tenant unless something is named.
#[derive(Clone, Copy, Debug, Default)]
pub struct StatisticsOf {
    /// Of one device.
    pub device: Option<DeviceId>,
    /// Of trustpoints with one policy.
    pub policy: Option<PolicyId>,
}

impl TenantTx {
    /// How many trustpoints there are, and the sums of their statistics.
    ///
    /// # Errors
    /// The database's own.
    pub async fn statistics_sum(&self, of: StatisticsOf) -> Result<(u64, Statistics), DbError> {
        let (device, policy) = (of.device.map(Id), of.policy.map(Id));
        let sql = "/* statistics_sum: trustpoints */ SELECT count(*) FROM trustpoints
                   WHERE tenant_id = $1 AND ($2::uuid IS NULL OR device_id = $2) AND ($3::uuid IS NULL OR policy_id = $3)";
        let row = self.query_opt(sql, &[&device, &policy]).await?;
        let trustpoints: i64 = row.map(|row| row.try_get(0)).transpose()?.unwrap_or(0);
        let sql = "/* statistics_sum */ SELECT s.key, least(sum(s.value::numeric), 9000000000000000000)::bigint
                   FROM trustpoints t CROSS JOIN LATERAL jsonb_each_text(t.statistics) s
                   WHERE t.tenant_id = $1 AND t.statistics IS NOT NULL
                         AND ($2::uuid IS NULL OR t.device_id = $2) AND ($3::uuid IS NULL OR t.policy_id = $3)
                   GROUP BY s.key";
        let mut pairs = Vec::new();
        for row in self.query(sql, &[&device, &policy]).await? {
            let (name, count): (String, i64) = (row.try_get(0)?, row.try_get(1)?);
            pairs.push((name, u64::try_from(count).unwrap_or(0)));
        }
        Ok((u64::try_from(trustpoints).unwrap_or(0), Statistics::from_flat(pairs)))
    }
}
