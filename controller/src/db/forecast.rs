//! SQL of the forecast: how many renewals come in each hour at a CA, and where they are moved.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use tokio_postgres::Row;
use trustfleet_model::ca_server::endpoint_of;
use trustfleet_model::ids::{CaServerId, TenantId, TrustpointId};
use trustfleet_model::spread::{BIN, Planned, Spread};

use super::renewal::planned;
use super::tx::Id;
use super::{DbError, PlannedTrustpoint, SystemTx, TenantTx};
use crate::telemetry::chain;

/// How far a forecast looks.
pub const HORIZON: SignedDuration = SignedDuration::from_hours(90 * 24);

/// A renewal that may be moved, with the serial number of its certificate.
pub type Movable = (Planned<(TenantId, TrustpointId)>, String);

/// Renewals and emergency marks, by the begin of their hour.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forecast {
    /// Requests without being asked that are planned; those that are overdue stand in the present hour.
    pub renewals: BTreeMap<Timestamp, u64>,
    /// Certificates in use whose emergency mark falls there.
    pub emergencies: BTreeMap<Timestamp, u64>,
}

/// A CA server with the endpoint that it is asked at.
#[derive(Clone, Copy, Debug)]
pub struct ServerOf {
    /// Its tenant.
    pub tenant_id: TenantId,
    /// The CA server.
    pub ca_server_id: CaServerId,
}

/// A renewal that fits into no hour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit {
    /// Its tenant.
    pub tenant: String,
    /// Its device.
    pub device: String,
    /// The trustpoint.
    pub trustpoint: String,
    /// When it is planned, and stays so.
    pub at: Timestamp,
}

/// Rows of renewals by hour; `{scope}` says whose.
const RENEWALS: &str = "SELECT date_bin('1 hour', greatest(t.next_action_at, $3), 'epoch') AS hour, count(*)
    FROM trustpoints t WHERE t.next_action_at < $4 AND ";
/// Rows of emergency marks by hour.
const EMERGENCIES: &str = "SELECT date_bin('1 hour', m.mark, 'epoch') AS hour, count(*) FROM (
        SELECT c.not_before + (c.not_after - c.not_before) * (p.percent / 100.0) AS mark
        FROM trustpoints t
        JOIN certificates c ON c.tenant_id = t.tenant_id AND c.trustpoint_id = t.trustpoint_id
             AND c.slot = 'active' AND NOT c.given_up
        JOIN (SELECT tenant_id, policy_id, coalesce((spec #>> '{auto_update,emergency_percent}')::int,
                  least(99, (coalesce((spec #>> '{auto_update,latest_percent}')::int, 80) + 101) / 2)) AS percent
              FROM policies) p ON p.tenant_id = t.tenant_id AND p.policy_id = t.policy_id
        WHERE ";

fn by_hour(rows: &[Row]) -> Result<BTreeMap<Timestamp, u64>, DbError> {
    rows.iter()
        .map(|row| {
            let count: i64 = row.try_get(1)?;
            Ok((row.try_get(0)?, count.unsigned_abs()))
        })
        .collect()
}

impl TenantTx {
    /// What comes at a CA server of the tenant from `now` on.
    ///
    /// # Errors
    /// The database's own.
    pub async fn forecast(&self, server: CaServerId, now: Timestamp) -> Result<Forecast, DbError> {
        const SCOPE: &str = "t.tenant_id = $1 AND t.ca_server_id = $2";
        let until = now.checked_add(HORIZON).unwrap_or(Timestamp::MAX);
        let sql = format!("/* forecast */ {RENEWALS} {SCOPE} GROUP BY 1");
        let renewals = by_hour(&self.query(&sql, &[&Id(server), &now, &until]).await?)?;
        let sql = format!(
            "/* forecast_emergencies */ {EMERGENCIES} {SCOPE}) m WHERE m.mark >= $3 AND m.mark < $4 GROUP BY 1"
        );
        let emergencies = by_hour(&self.query(&sql, &[&Id(server), &now, &until]).await?)?;
        Ok(Forecast { renewals, emergencies })
    }
}

impl SystemTx {
    /// All CA servers by the endpoint that they are asked at; one without a usable URL is left out.
    ///
    /// # Errors
    /// The database's own.
    pub async fn servers_by_endpoint(&self) -> Result<BTreeMap<String, Vec<ServerOf>>, DbError> {
        let sql = "/* servers_by_endpoint */ SELECT s.tenant_id, s.ca_server_id, s.spec ->> 'primary_url'
             FROM ca_servers s JOIN tenants t ON t.tenant_id = s.tenant_id WHERE t.state = 'active'";
        let mut found: BTreeMap<String, Vec<ServerOf>> = BTreeMap::new();
        for row in self.query(sql, &[]).await? {
            let (Id(tenant_id), Id(ca_server_id)) = (row.try_get(0)?, row.try_get(1)?);
            let url: Option<String> = row.try_get(2)?;
            if let Some(endpoint) = url.as_deref().and_then(endpoint_of) {
                found.entry(endpoint).or_default().push(ServerOf { tenant_id, ca_server_id });
            }
        }
        Ok(found)
    }

    /// Renewals by hour at these CA servers from `now` on.
    ///
    /// # Errors
    /// The database's own.
    pub async fn renewals_by_hour(
        &self,
        servers: &[ServerOf],
        now: Timestamp,
    ) -> Result<BTreeMap<Timestamp, u64>, DbError> {
        let until = now.checked_add(HORIZON).unwrap_or(Timestamp::MAX);
        let (tenants, ids) = columns(servers);
        let sql = format!(
            "/* renewals_by_hour */ {RENEWALS} (t.tenant_id, t.ca_server_id) IN
                 (SELECT * FROM unnest($1::uuid[], $2::uuid[])) GROUP BY 1"
        );
        by_hour(&self.query(&sql, &[&tenants, &ids, &now, &until]).await?)
    }

    /// Renewals at these CA servers in these hours, with their safe windows, of the next `limit` trustpoints by id; and the
    /// last of those, where there may be more. One that cannot be read is logged and left out.
    ///
    /// # Errors
    /// The database's own.
    pub async fn renewals_in(
        &self,
        servers: &[ServerOf],
        hours: &[Timestamp],
        after: Option<TrustpointId>,
        limit: i64,
    ) -> Result<(Vec<Movable>, Option<TrustpointId>), DbError> {
        let (tenants, ids) = columns(servers);
        let (Some(first), Some(last)) = (hours.iter().min(), hours.iter().max()) else { return Ok((Vec::new(), None)) };
        let (after, until) = (after.map(Id), last.checked_add(BIN).unwrap_or(Timestamp::MAX));
        // The range is in an index; the hours are not.
        let sql =
            "/* renewals_in */ SELECT t.tenant_id, t.device_id, t.trustpoint_id, t.state, t.spread, t.next_action_at,
                   p.policy_id, p.spec, p.revision, d.pair, d.standby
             FROM trustpoints t
             JOIN policies p ON p.tenant_id = t.tenant_id AND p.policy_id = t.policy_id
             JOIN devices d ON d.tenant_id = t.tenant_id AND d.device_id = t.device_id
             WHERE (t.tenant_id, t.ca_server_id) IN (SELECT * FROM unnest($1::uuid[], $2::uuid[]))
               AND t.next_action_at >= $3 AND t.next_action_at < $4
               AND date_bin('1 hour', t.next_action_at, 'epoch') = ANY ($5::timestamptz[])
               AND ($6::uuid IS NULL OR t.trustpoint_id > $6)
             ORDER BY t.trustpoint_id LIMIT $7";
        let rows = self.query(sql, &[&tenants, &ids, first, &until, &hours, &after, &limit]).await?;
        let is_full = i64::try_from(rows.len()).is_ok_and(|rows| rows >= limit);
        let last = match rows.last().filter(|_| is_full) {
            Some(row) => Some(row.try_get::<_, Id<TrustpointId>>("trustpoint_id")?.0),
            None => None,
        };
        let mut found = Vec::new();
        for row in &rows {
            let at: Timestamp = row.try_get("next_action_at")?;
            match planned(row) {
                Ok(trustpoint) => found.extend(movable(&trustpoint, at)),
                Err(error) => tracing::error!(error = %chain(&error), "a trustpoint cannot be read, it is not spread"),
            }
        }
        Ok((found, last))
    }

    /// The names of renewals that fit nowhere, those that come first leading.
    ///
    /// # Errors
    /// The database's own.
    pub async fn renewals_unfit(&self, of: &[(TenantId, TrustpointId)]) -> Result<Vec<Unfit>, DbError> {
        let tenants: Vec<_> = of.iter().map(|(tenant, _)| tenant.as_uuid()).collect();
        let trustpoints: Vec<_> = of.iter().map(|(_, trustpoint)| trustpoint.as_uuid()).collect();
        let sql = "/* renewals_unfit */ SELECT n.name, d.name, t.name, t.next_action_at
             FROM unnest($1::uuid[], $2::uuid[]) AS m(tenant_id, trustpoint_id)
             JOIN trustpoints t ON t.tenant_id = m.tenant_id AND t.trustpoint_id = m.trustpoint_id
             JOIN devices d ON d.tenant_id = t.tenant_id AND d.device_id = t.device_id
             JOIN tenants n ON n.tenant_id = t.tenant_id
             WHERE t.next_action_at IS NOT NULL ORDER BY t.next_action_at, t.trustpoint_id";
        let rows = self.query(sql, &[&tenants, &trustpoints]).await?;
        let read = |row: &Row| {
            Ok(Unfit {
                tenant: row.try_get(0)?,
                device: row.try_get(1)?,
                trustpoint: row.try_get(2)?,
                at: row.try_get(3)?,
            })
        };
        rows.iter().map(read).collect()
    }

    /// Whether nobody else spreads renewals at the moment; until the end of the transaction nobody will.
    ///
    /// # Errors
    /// The database's own.
    pub async fn spreading_is_ours(&self) -> Result<bool, DbError> {
        let sql = "/* spreading_is_ours */ SELECT pg_try_advisory_xact_lock(hashtext('trustfleet spreading'))";
        match self.query_opt(sql, &[]).await? {
            Some(row) => Ok(row.try_get(0)?),
            None => Ok(false),
        }
    }

    /// Waits until nobody else moves renewals; until the end of the transaction nobody will.
    ///
    /// # Errors
    /// The database's own, also when that takes longer than its lock time-out.
    pub async fn spreading_turn(&self) -> Result<(), DbError> {
        let sql = "/* spreading_turn */ SELECT pg_advisory_xact_lock(hashtext('trustfleet spreading'))";
        self.query_opt(sql, &[]).await.map(drop)
    }

    /// Moves renewals, each only if it is still planned for its certificate. Returns how many.
    ///
    /// # Errors
    /// The database's own.
    pub async fn renewals_move(&self, moves: &[((TenantId, TrustpointId), Spread)]) -> Result<u64, DbError> {
        let tenants: Vec<_> = moves.iter().map(|((tenant, _), _)| tenant.as_uuid()).collect();
        let trustpoints: Vec<_> = moves.iter().map(|((_, trustpoint), _)| trustpoint.as_uuid()).collect();
        let moments: Vec<_> = moves.iter().map(|(_, spread)| spread.at).collect();
        let serials: Vec<_> = moves.iter().map(|(_, spread)| spread.serial.as_str()).collect();
        let sql = "/* renewals_move */ UPDATE trustpoints t
             SET next_action_at = m.at, spread = jsonb_build_object('at', to_jsonb(m.at), 'serial', m.serial)
             FROM unnest($1::uuid[], $2::uuid[], $3::timestamptz[], $4::text[]) AS m(tenant_id, trustpoint_id, at, serial)
             WHERE t.tenant_id = m.tenant_id AND t.trustpoint_id = m.trustpoint_id AND t.next_action_at IS NOT NULL
               AND t.state #>> '{trustpoint,active,serial}' = m.serial";
        self.execute(sql, &[&tenants, &trustpoints, &moments, &serials]).await
    }
}

/// A renewal that may be moved: of a certificate in use, and not the repetition of one that failed.
fn movable(row: &PlannedTrustpoint, at: Timestamp) -> Option<Movable> {
    let trustpoint = &row.trustpoint;
    let active = trustpoint.active.as_ref().filter(|_| trustpoint.last_failed_at.is_none())?;
    let window = row.policy.auto_update.window(active);
    let serial = active.serial.clone();
    (window.0 <= at && at <= window.1).then_some((Planned { id: (row.tenant_id, trustpoint.id), at, window }, serial))
}

fn columns(servers: &[ServerOf]) -> (Vec<uuid::Uuid>, Vec<uuid::Uuid>) {
    servers.iter().map(|server| (server.tenant_id.as_uuid(), server.ca_server_id.as_uuid())).unzip()
}
