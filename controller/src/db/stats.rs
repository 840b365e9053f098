//! Numbers for the gauges, read in the background and never by a scrape.
//!
//! Written for a fleet of hundreds of thousands of trustpoints with a history of millions of jobs: every count is
//! answered from an index alone or from rows that are few (what is open, what is due, what ended lately).

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use tokio_postgres::Row;
use trustfleet_model::ids::TenantId;
use uuid::Uuid;

use super::{DbError, Queues, Store, SystemTx, tx::Id};
use crate::admission::Budget;
use crate::metrics::{ConnectionRole, LastSeen, PoolUse, Renewal, TenantCount, TimeLeft, tenants::TenantLabels};

/// Jobs that ended longer ago are not counted: their number only grows, and with it the cost of counting them.
const ENDED_WITHIN: SignedDuration = SignedDuration::from_hours(24);

/// Certificates that may be at risk are looked at one by one, so many at most: those that end first.
const AT_RISK_MAX: i64 = 20_000;

/// How much there is of everything.
#[derive(Clone, Debug)]
pub struct Stats {
    /// When it was counted.
    pub counted_at: Timestamp,
    /// Which tenants are counted apart.
    pub labels: TenantLabels,
    /// By tenants' labels; a tenant that has nothing may be missing.
    pub tenants: BTreeMap<String, TenantCount>,
    /// Rows of the outbox.
    pub outbox: i64,
    /// Of those, the ones that a freeze window holds.
    pub outbox_held: i64,
    /// Age of the oldest row of the outbox that none holds, seconds.
    pub outbox_age_s: f64,
    /// Age of the oldest row of the audit logs that is not chained, seconds.
    pub audit_unchained_age_s: f64,
    /// Dead letters by reason.
    pub dead_letters: BTreeMap<String, i64>,
}

impl Store {
    /// What the connections of each role are doing now.
    pub fn pools(&self) -> [(ConnectionRole, PoolUse); 2] {
        [(ConnectionRole::Api, &self.inner.api), (ConnectionRole::System, &self.inner.system)].map(|(role, pool)| {
            let status = pool.status();
            let idle = status.available.min(status.size);
            (role, PoolUse { idle, in_use: status.size - idle, max: status.max_size })
        })
    }
}

impl SystemTx {
    /// Counts everything once, as of `now`; the oldest `tenants_max` tenants apart. `budget`: that of CAs which have none of their own.
    ///
    /// # Errors
    /// The database's own; words that this program does not know.
    pub async fn stats_fetch(&self, now: Timestamp, tenants_max: usize, budget: Budget) -> Result<Stats, DbError> {
        let labels = self.stats_tenants(tenants_max).await?;
        let mut count =
            Count { named: labels.ids().map(|id| id.as_uuid()).collect(), tenants: BTreeMap::new(), labels };
        self.stats_jobs(&mut count, now).await?;
        self.stats_certificates(&mut count).await?;
        self.stats_in_use(&mut count, now).await?;
        self.stats_revocations(&mut count, now).await?;
        self.stats_agents(&mut count, now).await?;
        self.stats_campaigns(&mut count).await?;
        self.stats_at_risk(&mut count, budget, now).await?;
        self.stats_rollovers(&mut count, now).await?;
        let Count { labels, tenants, .. } = count;
        let Waiting { outbox, outbox_held, outbox_age_s } = self.stats_outbox(now).await?;
        let audit_unchained_age_s = self.stats_audit(now).await?;
        let dead_letters = self.stats_dead_letters().await?;
        Ok(Stats {
            counted_at: now,
            labels,
            tenants,
            outbox,
            outbox_held,
            outbox_age_s,
            audit_unchained_age_s,
            dead_letters,
        })
    }

    /// The labels of the tenants: the oldest `tenants_max` are named.
    ///
    /// # Errors
    /// The database's own.
    pub async fn stats_tenants(&self, tenants_max: usize) -> Result<TenantLabels, DbError> {
        let limit = i64::try_from(tenants_max).unwrap_or(i64::MAX).saturating_add(1);
        let sql = "/* stats_tenants */ SELECT tenant_id, name FROM tenants ORDER BY created_at, tenant_id LIMIT $1";
        let rows = self.query(sql, &[&limit]).await?;
        let tenants: Result<Vec<_>, DbError> = rows
            .iter()
            .map(|row| {
                let Id(id): Id<TenantId> = row.try_get(0)?;
                Ok((id, row.try_get(1)?))
            })
            .collect();
        Ok(TenantLabels::of(tenants_max, tenants?))
    }

    async fn stats_jobs(&self, count: &mut Count, now: Timestamp) -> Result<(), DbError> {
        let sql = "/* stats_jobs */ SELECT n.tenant_id, j.state, count(*)
                   FROM (SELECT tenant_id, state FROM jobs WHERE finished_at IS NULL
                         UNION ALL
                         SELECT tenant_id, state FROM jobs WHERE finished_at > $2) j
                   LEFT JOIN unnest($1::uuid[]) AS n (tenant_id) ON n.tenant_id = j.tenant_id
                   GROUP BY 1, 2";
        let since = now.checked_sub(ENDED_WITHIN).unwrap_or(Timestamp::MIN);
        for row in self.query(sql, &[&count.named, &since]).await? {
            let counted = (row.try_get(1)?, row.try_get(2)?);
            count.of(&row)?.jobs.push(counted);
        }
        Ok(())
    }

    async fn stats_certificates(&self, count: &mut Count) -> Result<(), DbError> {
        let sql = "/* stats_certificates */ SELECT n.tenant_id, c.slot, sum(c.count)::bigint
                   FROM (SELECT tenant_id, slot, count(*) FROM certificates GROUP BY 1, 2) c
                   LEFT JOIN unnest($1::uuid[]) AS n (tenant_id) ON n.tenant_id = c.tenant_id
                   GROUP BY 1, 2";
        for row in self.query(sql, &[&count.named]).await? {
            let counted = (row.try_get(1)?, row.try_get(2)?);
            count.of(&row)?.certificates.push(counted);
        }
        Ok(())
    }

    /// The trustpoint's row is looked at only where a renewal is due: its last failure is cleared by the next success.
    async fn stats_in_use(&self, count: &mut Count, now: Timestamp) -> Result<(), DbError> {
        let sql = "/* stats_in_use */
            WITH open AS MATERIALIZED (
                SELECT DISTINCT tenant_id, trustpoint_id FROM jobs WHERE finished_at IS NULL
            ), in_use AS (
                SELECT c.tenant_id, c.not_after,
                       width_bucket(date_part('epoch', c.not_after - $2), $3::float8[]) AS time_left,
                       CASE WHEN o.trustpoint_id IS NOT NULL THEN 'under_way'
                            WHEN date_part('epoch', c.not_after - $2) * $4::float8
                                 >= date_part('epoch', c.not_after - c.not_before) THEN 'not_due'
                            WHEN (SELECT t.state #>> '{trustpoint,last_failure,code}' FROM trustpoints t
                                  WHERE t.tenant_id = c.tenant_id AND t.trustpoint_id = c.trustpoint_id) IS NOT NULL
                                 THEN 'failed'
                            ELSE 'due' END AS renewal
                FROM certificates c
                LEFT JOIN open o ON o.tenant_id = c.tenant_id AND o.trustpoint_id = c.trustpoint_id
                WHERE c.slot = 'active' AND NOT c.given_up
            )
            SELECT n.tenant_id, i.time_left, i.renewal, count(*), min(i.not_after)
            FROM in_use i LEFT JOIN unnest($1::uuid[]) AS n (tenant_id) ON n.tenant_id = i.tenant_id
            GROUP BY 1, 2, 3";
        let limits = TimeLeft::LIMITS_S.to_vec();
        for row in self.query(sql, &[&count.named, &now, &limits, &Renewal::DUE_SHARE]).await? {
            let time_left = band(&row, 1, TimeLeft::ALL, "not_after")?;
            let word: &str = row.try_get(2)?;
            let renewal = Renewal::ALL.iter().copied().find(|renewal| renewal.as_str() == word);
            let renewal = renewal.ok_or_else(|| unknown("slot", word))?;
            let (number, first): (i64, Timestamp) = (row.try_get(3)?, row.try_get(4)?);
            let tenant = count.of(&row)?;
            tenant.active.push((time_left, renewal, number));
            tenant.nearest_expiry = Some(tenant.nearest_expiry.map_or(first, |earlier| earlier.min(first)));
        }
        Ok(())
    }

    async fn stats_revocations(&self, count: &mut Count, now: Timestamp) -> Result<(), DbError> {
        let sql = "/* stats_revocations */ SELECT n.tenant_id, c.revocation ->> 'state', count(*)
                   FROM certificates c LEFT JOIN unnest($1::uuid[]) AS n (tenant_id) ON n.tenant_id = c.tenant_id
                   WHERE c.revocation IS NOT NULL AND c.not_after > $2
                   GROUP BY 1, 2";
        for row in self.query(sql, &[&count.named, &now]).await? {
            let counted = (row.try_get(1)?, row.try_get(2)?);
            count.of(&row)?.revocations.push(counted);
        }
        Ok(())
    }

    async fn stats_agents(&self, count: &mut Count, now: Timestamp) -> Result<(), DbError> {
        let sql = "/* stats_agents */
            SELECT n.tenant_id, width_bucket(date_part('epoch', $2 - a.last_seen_at), $3::float8[]), count(*),
                   count(a.clock_off_s)
            FROM agents a LEFT JOIN unnest($1::uuid[]) AS n (tenant_id) ON n.tenant_id = a.tenant_id
            GROUP BY 1, 2";
        for row in self.query(sql, &[&count.named, &now, &LastSeen::LIMITS_S.to_vec()]).await? {
            let counted = (band(&row, 1, LastSeen::ALL, "last_seen_at")?, row.try_get(2)?);
            let wrong_clocks: i64 = row.try_get(3)?;
            let tenant = count.of(&row)?;
            tenant.agents.push(counted);
            tenant.wrong_clocks += wrong_clocks;
        }
        Ok(())
    }

    async fn stats_campaigns(&self, count: &mut Count) -> Result<(), DbError> {
        let sql = "/* stats_campaigns */ SELECT n.tenant_id, c.state, count(*)
                   FROM campaigns c LEFT JOIN unnest($1::uuid[]) AS n (tenant_id) ON n.tenant_id = c.tenant_id
                   GROUP BY 1, 2";
        for row in self.query(sql, &[&count.named]).await? {
            let counted = (row.try_get(1)?, row.try_get(2)?);
            count.of(&row)?.campaigns.push(counted);
        }
        Ok(())
    }

    async fn stats_at_risk(&self, count: &mut Count, budget: Budget, now: Timestamp) -> Result<(), DbError> {
        let queues = Queues::of(&self.ca_endpoint_list(budget).await?);
        for (tenant, found) in self.at_risk_count(&queues, AT_RISK_MAX, now).await? {
            count.of_tenant(Some(tenant)).at_risk += found;
        }
        Ok(())
    }

    /// Trustpoints that open roll-overs wait for, by how far they are; of those whose issuer is not switched yet.
    async fn stats_rollovers(&self, count: &mut Count, now: Timestamp) -> Result<(), DbError> {
        let sql = "/* stats_rollovers */ SELECT n.tenant_id, CASE WHEN t.state #>> '{trustpoint,anchors,rollover_id}' = r.rollover_id::text
                       AND t.state #>> '{trustpoint,anchors,step}' = 'add' THEN t.state #>> '{trustpoint,anchors,state}' ELSE 'pending' END,
                       count(*)
                   FROM rollovers r JOIN trustpoints t ON t.tenant_id = r.tenant_id AND t.ca_server_id = r.ca_server_id
                   LEFT JOIN unnest($1::uuid[]) AS n (tenant_id) ON n.tenant_id = r.tenant_id
                   WHERE r.phase = 'distributing' AND t.not_after > $2 AND t.status <> 'revoked' GROUP BY 1, 2";
        for row in self.query(sql, &[&count.named, &now]).await? {
            let counted = (row.try_get(1)?, row.try_get(2)?);
            count.of(&row)?.anchors.push(counted);
        }
        Ok(())
    }

    async fn stats_outbox(&self, now: Timestamp) -> Result<Waiting, DbError> {
        let sql = "/* stats_outbox */ SELECT count(*), count(held_until),
                          coalesce(date_part('epoch', $1 - min(created_at) FILTER (WHERE held_until IS NULL)), 0)
                   FROM outbox";
        match self.query_opt(sql, &[&now]).await? {
            Some(row) => Ok(Waiting {
                outbox: row.try_get(0)?,
                outbox_held: row.try_get(1)?,
                outbox_age_s: row.try_get::<_, f64>(2)?.max(0.0),
            }),
            None => Ok(Waiting::default()),
        }
    }

    /// They are few, by a limit of their own.
    async fn stats_dead_letters(&self) -> Result<BTreeMap<String, i64>, DbError> {
        let sql = "/* stats_dead_letters */ SELECT reason, count(*) FROM dead_letters GROUP BY reason";
        self.query(sql, &[]).await?.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
    }

    /// The first row after the chainer's cursor is the oldest, but for a moment: transactions end in another order than they
    /// begin.
    async fn stats_audit(&self, now: Timestamp) -> Result<f64, DbError> {
        let sql = "/* stats_audit */ SELECT date_part('epoch', $1 - a.at) FROM audit_cursor c
                   CROSS JOIN LATERAL (SELECT at FROM audit WHERE (tx_id, audit_id) > (c.tx_id, c.audit_id)
                                       ORDER BY tx_id, audit_id LIMIT 1) a";
        match self.query_opt(sql, &[&now]).await? {
            Some(row) => Ok(row.try_get::<_, f64>(0)?.max(0.0)),
            None => Ok(0.0),
        }
    }
}

/// What stands in the outbox.
#[derive(Default)]
struct Waiting {
    outbox: i64,
    outbox_held: i64,
    outbox_age_s: f64,
}

/// A count under way.
struct Count {
    named: Vec<Uuid>,
    labels: TenantLabels,
    tenants: BTreeMap<String, TenantCount>,
}

impl Count {
    /// The numbers of the tenant in the row's first column; null is everybody who is not named.
    fn of(&mut self, row: &Row) -> Result<&mut TenantCount, DbError> {
        let id: Option<Id<TenantId>> = row.try_get(0)?;
        Ok(self.of_tenant(id.map(|Id(id)| id.as_uuid())))
    }

    fn of_tenant(&mut self, id: Option<Uuid>) -> &mut TenantCount {
        let named = id.filter(|id| self.named.contains(id)).map(TenantId::from);
        let label = self.labels.label(named).to_owned();
        self.tenants.entry(label).or_default()
    }
}

/// The band whose number is in a column.
fn band<T: Copy>(row: &Row, column: usize, all: &[T], of: &'static str) -> Result<T, DbError> {
    let number: i32 = row.try_get(column)?;
    let found = usize::try_from(number).ok().and_then(|number| all.get(number).copied());
    found.ok_or_else(|| unknown(of, &number.to_string()))
}

fn unknown(column: &'static str, word: &str) -> DbError {
    DbError::inconsistent("certificates", column, "a count", format!("{word:?} is unknown to this program"))
}
