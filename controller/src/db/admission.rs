//! SQL of admission to CAs: what waits at which endpoint, who is next, how endpoints fare.

use tokio_postgres::Row;
use trustfleet_model::ca_server::endpoint_of;
use trustfleet_model::ids::{JobId, TenantId, TrustpointId};

use super::freeze::HELD;
use super::outbox::{CLAIMED, claimed_jobs};
use super::{ClaimedJob, DbError, SystemTx, tx::Id};
use crate::admission::{Breaker, Budget, Endpoint, PROBE_S};

/// An exchange that has lasted so long without an answer holds no place any more: its agent is gone. Seconds.
const SLOT_S: f64 = 600.0;
/// So long a published job counts as about to begin; an agent that is there begins sooner. Seconds.
const ABOUT_TO_BEGIN_S: f64 = 5.0;
/// A job with so little time left goes before all others, seconds.
const URGENT_S: f64 = 24.0 * 3_600.0;

/// What was admitted.
#[derive(Debug, Default)]
pub struct Admitted {
    /// Jobs that may begin; those of agents that are not there are among them, and are not to be published.
    pub jobs: Vec<ClaimedJob>,
    /// Something waits for budget.
    pub waiting: bool,
}

/// An endpoint with its row's own settings.
#[derive(Clone, Debug)]
pub struct CaEndpoint {
    /// `host:port`.
    pub name: String,
    /// As it stands.
    pub endpoint: Endpoint,
    /// Whether its budget is its own, and not the configuration's.
    pub has_own_budget: bool,
    /// Jobs that wait for it.
    pub waiting: i64,
    /// Exchanges that agents began by themselves: exempt, and counted.
    pub exempt: i64,
    /// Exchanges that went to a secondary server instead of this one.
    pub failovers: i64,
    /// Jobs with a secondary server are admitted by that one's budget at present.
    pub failing_over: bool,
}

/// So long after an exchange that went to the secondary server jobs are admitted by that one's budget, seconds.
const FAILOVER_S: f64 = 60.0;

/// `$1` to `$3`: the configuration's rate, burst, concurrency. Seconds by the database's clock.
const ENDPOINT: &str = "e.endpoint, e.rate_per_s IS NOT NULL AS has_own, coalesce(e.rate_per_s, $1::float8) AS rate,
    coalesce(e.burst, $2::int) AS burst, coalesce(e.concurrency, $3::int) AS concurrency, e.tokens, e.probing,
    extract(epoch FROM clock_timestamp() - e.tokens_at)::float8 AS idle_s, e.failures, e.exempt, e.failovers,
    coalesce(e.failover_until > clock_timestamp(), false) AS failing_over,
    extract(epoch FROM e.open_until - clock_timestamp())::float8 AS open_for_s,
    (SELECT count(*) FROM jobs j WHERE j.endpoint = e.endpoint AND j.state = 'awaiting_ca'
         AND j.started_at > clock_timestamp() - make_interval(secs => $4))
    + (SELECT count(*) FROM jobs j WHERE j.endpoint = e.endpoint AND j.state = 'awaiting_agent'
         AND j.published_at > clock_timestamp() - make_interval(secs => $5))
    + (SELECT count(*) FROM outbox o WHERE o.endpoint = e.endpoint AND o.claimed_until > clock_timestamp()) AS in_use";

/// Whether the row `o` of the outbox is about to wait for a secondary server, because it came while others were moved there: it is
/// not admitted by the budget of `$3`.
const MOVES: &str = "coalesce((SELECT true FROM ca_endpoints me
    JOIN jobs mj ON mj.tenant_id = o.tenant_id AND mj.job_id = o.job_id
    WHERE me.endpoint = $3 AND me.failover_until > clock_timestamp() AND mj.primary_endpoint = $3
      AND mj.secondary_endpoint IS NOT NULL), false)";

impl SystemTx {
    /// Admits up to `limit` jobs at each endpoint as its budget allows (`default` where it has none of its own), and claims
    /// them for `claim_s` seconds. Tenants take turns by their weight; what has less than a day left goes first, by the
    /// time that is left. Of several replicas one at a time decides on an endpoint.
    ///
    /// # Errors
    /// The database's own.
    pub async fn outbox_admit(&self, limit: u16, claim_s: u32, default: Budget) -> Result<Admitted, DbError> {
        self.move_to_secondaries().await?;
        let sql = format!(
            "/* admission_endpoints */ SELECT {ENDPOINT}, 0::bigint AS waiting FROM ca_endpoints e
             WHERE EXISTS (SELECT FROM outbox o WHERE o.endpoint = e.endpoint AND o.held_until IS NULL
                           AND (o.claimed_until IS NULL OR o.claimed_until <= clock_timestamp()))
             ORDER BY e.endpoint FOR UPDATE OF e SKIP LOCKED"
        );
        let (burst, concurrency) = integers(default);
        let rows = self.query(&sql, &[&default.rate_per_s, &burst, &concurrency, &SLOT_S, &ABOUT_TO_BEGIN_S]).await?;
        let mut admitted = Admitted::default();
        for row in &rows {
            let CaEndpoint { name, endpoint, .. } = read(row)?;
            let grant = endpoint.grant(limit.into());
            if grant.jobs == 0 {
                admitted.waiting = true;
                continue;
            }
            let jobs = self.admit(&name, grant.jobs, claim_s).await?;
            admitted.waiting |= jobs.len() == usize::try_from(grant.jobs).unwrap_or(usize::MAX);
            // A job whose agent is not there does not begin: it takes nothing of the budget.
            let begin = u32::try_from(jobs.iter().filter(|job| !job.agent_silent).count()).unwrap_or(u32::MAX);
            let sql = "/* admission_take */ UPDATE ca_endpoints
                       SET tokens = $2, probing = probing OR $4, tokens_at = tokens_at + make_interval(secs => greatest($3::float8, 0)),
                           open_until = CASE WHEN $4 THEN clock_timestamp() + make_interval(secs => $5)
                                             ELSE open_until END
                       WHERE endpoint = $1";
            let left = grant.tokens - f64::from(begin);
            self.execute(sql, &[&name, &left, &endpoint.idle_s, &(grant.is_probe && begin > 0), &PROBE_S]).await?;
            admitted.jobs.extend(jobs);
        }
        Ok(admitted)
    }

    /// While a server does not answer, jobs that have a secondary one wait for that one's budget. Of several replicas one at a
    /// time moves them.
    async fn move_to_secondaries(&self) -> Result<(), DbError> {
        let sql = "/* admission_move */ WITH moving AS (
                 SELECT o.tenant_id, o.outbox_id, o.job_id, j.secondary_endpoint
                 FROM ca_endpoints e JOIN outbox o ON o.endpoint = e.endpoint
                 JOIN jobs j ON j.tenant_id = o.tenant_id AND j.job_id = o.job_id
                 WHERE e.failover_until > clock_timestamp() AND j.primary_endpoint = e.endpoint AND j.secondary_endpoint IS NOT NULL
                     AND (o.claimed_until IS NULL OR o.claimed_until <= clock_timestamp())
                 ORDER BY o.outbox_id LIMIT 1000 FOR UPDATE OF o SKIP LOCKED
             ), waiting AS (
                 UPDATE outbox o SET endpoint = m.secondary_endpoint FROM moving m
                 WHERE o.tenant_id = m.tenant_id AND o.outbox_id = m.outbox_id
             )
             UPDATE jobs j SET endpoint = m.secondary_endpoint FROM moving m
             WHERE j.tenant_id = m.tenant_id AND j.job_id = m.job_id";
        self.execute(sql, &[]).await.map(drop)
    }

    /// An exchange of a job goes to this server, `host:port`. Where the job was counted for the other one of its CA it is counted
    /// for this one from now on, and takes of its budget, below zero where nothing is left: it has begun. Returns whether that
    /// was so. A server that is none of its CA's changes nothing.
    ///
    /// # Errors
    /// The database's own.
    pub async fn ca_endpoint_used(
        &self,
        tenant: TenantId,
        job: JobId,
        server: &str,
        default: Budget,
    ) -> Result<bool, DbError> {
        let sql = "/* ca_endpoint_used */ UPDATE jobs j SET endpoint = $3
             WHERE j.tenant_id = $1 AND j.job_id = $2 AND j.endpoint <> $3 AND $3 IN (j.primary_endpoint, j.secondary_endpoint)
             RETURNING j.primary_endpoint, j.secondary_endpoint = $3 AS is_secondary";
        let Some(row) = self.query_opt(sql, &[&Id(tenant), &Id(job), &server]).await? else { return Ok(false) };
        self.ca_endpoint_charge(server, 0, default).await?;
        let primary: String = row.try_get("primary_endpoint")?;
        let is_secondary: bool = row.try_get("is_secondary")?;
        // What answers again is asked again.
        let until = is_secondary.then_some(FAILOVER_S);
        let sql = "/* ca_endpoint_used: failover */ UPDATE ca_endpoints
             SET failovers = failovers + CASE WHEN $2::float8 IS NULL THEN 0 ELSE 1 END,
                 failover_until = clock_timestamp() + make_interval(secs => $2) WHERE endpoint = $1";
        self.execute(sql, &[&primary, &until]).await?;
        Ok(true)
    }

    /// Takes one exchange of an endpoint's budget that has begun already, down to a burst below zero; `exempt`: 1 where its agent began
    /// it by itself.
    ///
    /// # Errors
    /// The database's own.
    pub async fn ca_endpoint_charge(&self, name: &str, exempt: i64, default: Budget) -> Result<(), DbError> {
        let sql = "/* ca_endpoint_charge */ INSERT INTO ca_endpoints AS e (endpoint, tokens, exempt)
             VALUES ($1, $2::int - 1, $4) ON CONFLICT (endpoint) DO UPDATE
             SET exempt = e.exempt + $4, tokens_at = clock_timestamp(),
                 tokens = greatest(- coalesce(e.burst, $2), least(coalesce(e.burst, $2),
                     coalesce(e.tokens, coalesce(e.burst, $2))
                     + greatest(extract(epoch FROM clock_timestamp() - e.tokens_at)::float8, 0) * coalesce(e.rate_per_s, $3)) - 1)";
        let (burst, _) = integers(default);
        self.execute(sql, &[&name, &burst, &default.rate_per_s, &exempt]).await.map(drop)
    }

    /// A renewal that an agent began by itself counts for its CA's primary server. Returns for which.
    ///
    /// # Errors
    /// The database's own.
    pub async fn ca_endpoint_autonomous(
        &self,
        tenant: TenantId,
        trustpoint: TrustpointId,
        default: Budget,
    ) -> Result<Option<String>, DbError> {
        let sql = "/* ca_endpoint_autonomous */ SELECT c.spec ->> 'primary_url' FROM trustpoints t
             JOIN ca_servers c ON c.tenant_id = t.tenant_id AND c.ca_server_id = t.ca_server_id
             WHERE t.tenant_id = $1 AND t.trustpoint_id = $2";
        let Some(row) = self.query_opt(sql, &[&Id(tenant), &Id(trustpoint)]).await? else { return Ok(None) };
        let Some(name) = endpoint_of(row.try_get(0)?) else { return Ok(None) };
        self.ca_endpoint_charge(&name, 1, default).await?;
        Ok(Some(name))
    }

    async fn admit(&self, endpoint: &str, most: u32, claim_s: u32) -> Result<Vec<ClaimedJob>, DbError> {
        let sql = format!(
            "/* admission_pick */ WITH waits AS (
                 SELECT o.*, row_number() OVER (PARTITION BY o.tenant_id ORDER BY o.outbox_id)::float8 / t.ca_weight AS turn
                 FROM tenants t CROSS JOIN LATERAL (
                     (SELECT o.tenant_id, o.outbox_id, o.deadline FROM outbox o
                      WHERE o.endpoint = $3 AND o.tenant_id = t.tenant_id AND NOT {MOVES}
                        AND o.deadline <= clock_timestamp() + make_interval(secs => $4)
                        AND (o.claimed_until IS NULL OR o.claimed_until <= clock_timestamp())
                      ORDER BY o.deadline LIMIT $1)
                     UNION ALL
                     (SELECT o.tenant_id, o.outbox_id, NULL FROM outbox o
                      WHERE o.endpoint = $3 AND o.tenant_id = t.tenant_id AND NOT {MOVES} AND o.held_until IS NULL AND NOT {HELD}
                        AND (o.deadline IS NULL OR o.deadline > clock_timestamp() + make_interval(secs => $4))
                        AND (o.claimed_until IS NULL OR o.claimed_until <= clock_timestamp())
                      ORDER BY o.outbox_id LIMIT $1)
                 ) o WHERE t.state = 'active'
             ), c AS (
                 SELECT tenant_id, outbox_id FROM waits ORDER BY deadline NULLS LAST, turn, outbox_id LIMIT $1
             ), {CLAIMED}"
        );
        let rows = self.query(&sql, &[&i64::from(most), &f64::from(claim_s), &endpoint, &URGENT_S]).await?;
        Ok(claimed_jobs(&rows))
    }

    /// All endpoints by name, with what waits for each.
    ///
    /// # Errors
    /// The database's own.
    pub async fn ca_endpoint_list(&self, default: Budget) -> Result<Vec<CaEndpoint>, DbError> {
        let sql = format!(
            "/* ca_endpoint_list */ SELECT {ENDPOINT},
                    (SELECT count(*) FROM outbox o WHERE o.endpoint = e.endpoint) AS waiting
             FROM ca_endpoints e ORDER BY e.endpoint"
        );
        let (burst, concurrency) = integers(default);
        let rows = self.query(&sql, &[&default.rate_per_s, &burst, &concurrency, &SLOT_S, &ABOUT_TO_BEGIN_S]).await?;
        rows.iter().map(read).collect()
    }

    /// Gives an endpoint a budget of its own; none: the configuration's again.
    ///
    /// # Errors
    /// The database's own.
    pub async fn ca_endpoint_set(&self, name: &str, budget: Option<Budget>) -> Result<(), DbError> {
        let sql = "/* ca_endpoint_set */ INSERT INTO ca_endpoints (endpoint, rate_per_s, burst, concurrency)
             VALUES ($1, $2, $3, $4) ON CONFLICT (endpoint) DO UPDATE
             SET rate_per_s = EXCLUDED.rate_per_s, burst = EXCLUDED.burst, concurrency = EXCLUDED.concurrency";
        let rate = budget.map(|budget| budget.rate_per_s);
        let (burst, concurrency) = budget.map(integers).unzip();
        self.execute(sql, &[&name, &rate, &burst, &concurrency]).await.map(drop)
    }

    /// Takes note of an exchange at an endpoint that brought no answer.
    ///
    /// # Errors
    /// The database's own.
    pub async fn ca_endpoint_failed(&self, name: &str) -> Result<Breaker, DbError> {
        let sql = "/* ca_endpoint_failed: read */ SELECT failures, probing,
                   extract(epoch FROM open_until - clock_timestamp())::float8 AS open_for_s
                   FROM ca_endpoints WHERE endpoint = $1 FOR UPDATE";
        let Some(row) = self.query_opt(sql, &[&name]).await? else { return Ok(Breaker::default()) };
        let after = breaker(&row)?.after_failure();
        let sql = "/* ca_endpoint_failed */ UPDATE ca_endpoints SET failures = $2, probing = $4,
                   open_until = clock_timestamp() + make_interval(secs => $3) WHERE endpoint = $1";
        let failures = i32::try_from(after.failures).unwrap_or(i32::MAX);
        self.execute(sql, &[&name, &failures, &after.open_for_s, &after.probing]).await?;
        Ok(after)
    }

    /// Takes note of an answer from an endpoint that had given none.
    ///
    /// # Errors
    /// The database's own.
    pub async fn ca_endpoint_answered(&self, name: &str) -> Result<(), DbError> {
        let sql = "/* ca_endpoint_answered */ UPDATE ca_endpoints SET failures = 0, open_until = NULL, probing = false
             WHERE endpoint = $1 AND (failures > 0 OR open_until IS NOT NULL)";
        self.execute(sql, &[&name]).await.map(drop)
    }
}

fn integers(budget: Budget) -> (i32, i32) {
    let integer = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
    (integer(budget.burst), integer(budget.concurrency))
}

fn breaker(row: &Row) -> Result<Breaker, DbError> {
    let failures: i32 = row.try_get("failures")?;
    let (open_for_s, probing) = (row.try_get("open_for_s")?, row.try_get("probing")?);
    Ok(Breaker { failures: failures.unsigned_abs(), open_for_s, probing })
}

fn read(row: &Row) -> Result<CaEndpoint, DbError> {
    let (burst, concurrency): (i32, i32) = (row.try_get("burst")?, row.try_get("concurrency")?);
    let in_use: i64 = row.try_get("in_use")?;
    Ok(CaEndpoint {
        name: row.try_get("endpoint")?,
        endpoint: Endpoint {
            budget: Budget {
                rate_per_s: row.try_get("rate")?,
                burst: burst.unsigned_abs(),
                concurrency: concurrency.unsigned_abs(),
            },
            tokens: row.try_get("tokens")?,
            idle_s: row.try_get("idle_s")?,
            in_use: u32::try_from(in_use).unwrap_or(u32::MAX),
            breaker: breaker(row)?,
        },
        has_own_budget: row.try_get("has_own")?,
        waiting: row.try_get("waiting")?,
        exempt: row.try_get("exempt")?,
        failovers: row.try_get("failovers")?,
        failing_over: row.try_get("failing_over")?,
    })
}
