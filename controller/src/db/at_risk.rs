//! SQL of certificates that may end before they are renewed. What of them is at risk, the model decides; here those are left
//! out of which that is certain without a look: whose agent is there, with time to spare.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use tokio_postgres::Row;
use trustfleet_model::ca_server::endpoint_of;
use trustfleet_model::contact::{GONE, HORIZON, Prediction, Rhythm, Situation, THERE, predict};
use trustfleet_model::field::{ObjectName, TrustpointName};
use trustfleet_model::ids::TrustpointId;

use super::column::Columns;
use super::{CaEndpoint, DbError, SystemTx, TenantTx, tx::Id};

/// A certificate in use that is at risk.
#[derive(Clone, Debug)]
pub struct AtRisk {
    /// Its trustpoint.
    pub trustpoint_id: TrustpointId,
    /// Name of its device.
    pub device: ObjectName,
    /// Name of its trustpoint.
    pub trustpoint: TrustpointName,
    /// Name of the agent in front of the device.
    pub agent: Option<ObjectName>,
    /// What is known.
    pub situation: Situation,
    /// What follows from it.
    pub prediction: Prediction,
    /// Until when its agent may renew it by itself, if it can reach the CA.
    pub leased_until: Option<Timestamp>,
    /// Recovery is armed.
    pub recovery_armed: bool,
}

/// A place in the order of ends.
pub type Place = (Timestamp, TrustpointId);

/// How long jobs wait for each endpoint of a CA at present.
#[derive(Clone, Debug, Default)]
pub struct Queues(BTreeMap<String, SignedDuration>);

impl Queues {
    /// Those of the endpoints as they stand: what waits, at the endpoint's rate.
    pub fn of(endpoints: &[CaEndpoint]) -> Self {
        let wait = |found: &CaEndpoint| {
            let seconds = found.waiting.max(0) as f64 / found.endpoint.budget.rate_per_s.max(f64::MIN_POSITIVE);
            SignedDuration::try_from_secs_f64(seconds).unwrap_or(HORIZON).min(HORIZON)
        };
        Self(endpoints.iter().map(|found| (found.name.clone(), wait(found))).collect())
    }

    fn of_url(&self, url: &str) -> SignedDuration {
        endpoint_of(url).and_then(|endpoint| self.0.get(&endpoint).copied()).unwrap_or_default()
    }

    fn longest(&self) -> SignedDuration {
        self.0.values().copied().max().unwrap_or_default()
    }
}

const COLUMNS: &str = "t.trustpoint_id, t.name, t.not_after, t.next_action_at, d.name AS device, a.name AS agent, a.last_seen_at, \
    a.quarantined_at IS NOT NULL AS quarantined, a.gap_mean_s, a.gap_most_s, c.spec ->> 'primary_url' AS url, \
    CASE WHEN l.ended_at IS NULL AND l.answer = 'held' THEN l.expires_at END AS leased_until, \
    coalesce((t.state #>> '{trustpoint,recovery,until}')::timestamptz > $1, false) AS recovery_armed";

/// `$1`: now, `$2` and `$3`: since when and until when ends are looked at, `$4`: agents heard of since then are there, `$5`: the
/// longest wait for a CA, seconds.
const FROM: &str = "FROM trustpoints t \
    JOIN devices d ON d.tenant_id = t.tenant_id AND d.device_id = t.device_id \
    JOIN ca_servers c ON c.tenant_id = t.tenant_id AND c.ca_server_id = t.ca_server_id \
    LEFT JOIN agents a ON a.tenant_id = d.tenant_id AND a.agent_id = d.agent_id \
    LEFT JOIN leases l ON l.tenant_id = t.tenant_id AND l.trustpoint_id = t.trustpoint_id \
    WHERE t.not_after > $2 AND t.not_after <= $3 AND t.status <> 'revoked' AND NOT d.standby \
      AND (t.not_after <= $1 OR a.agent_id IS NULL OR a.quarantined_at IS NOT NULL OR a.last_seen_at < $4 \
           OR date_part('epoch', t.not_after - greatest(t.next_action_at, $1)) \
              <= $5 + greatest(coalesce(greatest(a.gap_most_s, 2 * a.gap_mean_s), 86400), 900))";

/// The moments that bound what is looked at.
fn bounds(now: Timestamp) -> (Timestamp, Timestamp, Timestamp) {
    let before = |less| now.checked_sub(less).unwrap_or(Timestamp::MIN);
    (before(GONE), now.checked_add(HORIZON).unwrap_or(Timestamp::MAX), before(THERE))
}

impl TenantTx {
    /// Up to `limit` candidates behind a place, by their ends: each place with the certificate, where that is at risk.
    ///
    /// # Errors
    /// The database's own; rows that cannot be read.
    pub async fn at_risk_part(
        &self,
        after: Option<Place>,
        limit: i64,
        queues: &Queues,
        now: Timestamp,
    ) -> Result<Vec<(Place, Option<AtRisk>)>, DbError> {
        // The tenant is the first parameter here: the others move on by one.
        let shift = |text: &str| {
            (1..=5).rev().fold(text.to_owned(), |text, n| text.replace(&format!("${n}"), &format!("${}", n + 1)))
        };
        let sql = format!(
            "/* at_risk_part */ SELECT {} {} AND t.tenant_id = $1 \
             AND ($7::timestamptz IS NULL OR (t.not_after, t.trustpoint_id) > ($7, $8::uuid)) \
             ORDER BY t.not_after, t.trustpoint_id LIMIT $9",
            shift(COLUMNS),
            shift(FROM)
        );
        let (since, until, there) = bounds(now);
        let longest = queues.longest().as_secs_f64();
        let (end, id) = (after.map(|after| after.0), after.map(|after| Id(after.1)));
        let rows = self.query(&sql, &[&now, &since, &until, &there, &longest, &end, &id, &limit]).await?;
        rows.iter().map(|row| read(row, queues, now)).collect()
    }
}

impl SystemTx {
    /// How many certificates of each tenant are at risk, those that have ended among them; at most `most` candidates are looked
    /// at, those that end first. The first column of a count is the tenant.
    ///
    /// # Errors
    /// The database's own; rows that cannot be read.
    pub async fn at_risk_count(
        &self,
        queues: &Queues,
        most: i64,
        now: Timestamp,
    ) -> Result<BTreeMap<uuid::Uuid, i64>, DbError> {
        let sql = format!("/* at_risk_count */ SELECT t.tenant_id, {COLUMNS} {FROM} ORDER BY t.not_after LIMIT $6");
        let (since, until, there) = bounds(now);
        let longest = queues.longest().as_secs_f64();
        let mut counts = BTreeMap::new();
        for row in self.query(&sql, &[&now, &since, &until, &there, &longest, &most]).await? {
            if read(&row, queues, now)?.1.is_some() {
                *counts.entry(row.try_get("tenant_id")?).or_default() += 1;
            }
        }
        Ok(counts)
    }
}

fn read(row: &Row, queues: &Queues, now: Timestamp) -> Result<(Place, Option<AtRisk>), DbError> {
    let columns = Columns::new(row, "trustpoints", "trustpoint_id");
    let Id(trustpoint_id) = columns.read("trustpoint_id")?;
    let mean_s: Option<f64> = columns.read("gap_mean_s")?;
    let url: String = columns.read("url")?;
    let not_after: Timestamp = columns.read("not_after")?;
    let situation = Situation {
        not_after,
        // What is planned for later is no renewal of this certificate.
        renew_at: columns.read::<Option<Timestamp>>("next_action_at")?.filter(|at| *at < not_after),
        last_seen_at: columns.read("last_seen_at")?,
        quarantined: columns.read("quarantined")?,
        rhythm: mean_s
            .zip(columns.read::<Option<f64>>("gap_most_s")?)
            .map(|(mean_s, most_s)| Rhythm { mean_s, most_s }),
        queue: queues.of_url(&url),
    };
    let place = (situation.not_after, trustpoint_id);
    let Some(prediction) = predict(&situation, now) else { return Ok((place, None)) };
    let found = AtRisk {
        trustpoint_id,
        device: columns.parse::<String, _>("device")?,
        trustpoint: columns.parse::<String, _>("name")?,
        agent: columns.parse_opt::<String, _>("agent")?,
        situation,
        prediction,
        leased_until: columns.read("leased_until")?,
        recovery_armed: columns.read("recovery_armed")?,
    };
    Ok((place, Some(found)))
}
