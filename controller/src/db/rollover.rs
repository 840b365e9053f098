//! SQL of table `rollovers`: roll-overs of trust anchors (S57), and what trustpoints have said of them.

use jiff::Timestamp;
use tokio_postgres::Row;
use trustfleet_model::field::{ObjectName, TrustpointName};
use trustfleet_model::ids::{CaServerId, RolloverId, TrustpointId};
use trustfleet_model::rollover::{AnchorState, Phase, RolloverSpec, Tally};

use super::column::{Columns, to_json};
use super::{DbError, TenantTx, tx::Id};

/// A roll-over of the trust anchors of a CA server.
#[derive(Clone, Debug)]
pub struct Rollover {
    /// Its id.
    pub id: RolloverId,
    /// The CA server.
    pub ca_server_id: CaServerId,
    /// Where it stands.
    pub phase: Phase,
    /// What was set.
    pub spec: RolloverSpec,
    /// The anchors of the CA server when it began, PEM.
    pub former_anchors: Vec<String>,
    /// Who began it.
    pub started_by: String,
    /// When.
    pub started_at: Timestamp,
    /// Who switched the issuer.
    pub switched_by: Option<String>,
    /// When.
    pub switched_at: Option<Timestamp>,
    /// Why it was switched below the required share.
    pub forced_reason: Option<String>,
    /// Who finished or cancelled it.
    pub ended_by: Option<String>,
    /// When.
    pub ended_at: Option<Timestamp>,
}

/// A trustpoint that a roll-over waits for.
#[derive(Clone, Debug)]
pub struct Laggard {
    /// Its id.
    pub trustpoint_id: TrustpointId,
    /// Name of its device.
    pub device: ObjectName,
    /// Its name.
    pub trustpoint: TrustpointName,
    /// How far it is.
    pub state: AnchorState,
    /// Why no further, as its agent said.
    pub reason: Option<String>,
    /// When that became known.
    pub at: Option<Timestamp>,
    /// Name of the agent in front of the device.
    pub agent: Option<ObjectName>,
    /// When that was last heard of.
    pub agent_last_seen_at: Option<Timestamp>,
}

/// Certificates in use that came the same way: of one issuer, with the same CA certificates.
#[derive(Clone, Debug)]
pub struct IssuedAlike {
    /// How many.
    pub count: u64,
    /// Some of them, each with the CA certificates that came with it: DER.
    pub samples: Vec<(Vec<u8>, Vec<Vec<u8>>)>,
    /// Some of their trustpoints, as DEVICE/TRUSTPOINT.
    pub named: Vec<String>,
}

pub(super) const COLUMNS: &str = "rollover_id, ca_server_id, phase, spec, former_anchors, started_by, started_at, \
    switched_by, switched_at, forced_reason, ended_by, ended_at";

/// How far a trustpoint `t` is with roll-over `$3` and its step `$4`: it counts while its certificate in use has not ended at `$5`.
macro_rules! state_of {
    () => {
        "CASE WHEN t.state #>> '{trustpoint,anchors,rollover_id}' = $3::text
              AND t.state #>> '{trustpoint,anchors,step}' = $4 THEN t.state #>> '{trustpoint,anchors,state}' ELSE 'pending' END"
    };
}

impl TenantTx {
    /// Begins a roll-over.
    ///
    /// # Errors
    /// [`DbError::Conflict`] when one of the CA server is open.
    pub async fn rollover_insert(&self, rollover: &Rollover) -> Result<(), DbError> {
        let sql = "/* rollover_insert */ INSERT INTO rollovers (tenant_id, rollover_id, ca_server_id, phase, spec, former_anchors,
                 started_by, started_at, due_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8)";
        let spec = to_json("rollovers", "spec", rollover.id, &rollover.spec)?;
        let former = to_json("rollovers", "former_anchors", rollover.id, &rollover.former_anchors)?;
        let Rollover { id, ca_server_id, phase, started_by, started_at, .. } = rollover;
        let count = self
            .execute(sql, &[&Id(*id), &Id(*ca_server_id), &phase.as_str(), &spec, &former, started_by, started_at])
            .await?;
        DbError::one_row(count, "rollover")
    }

    /// The open roll-over of a CA server, or the last one that there was; none: there never was one.
    ///
    /// # Errors
    /// The database's own; rows that cannot be read.
    pub async fn rollover_last(&self, ca_server: CaServerId) -> Result<Option<Rollover>, DbError> {
        let sql = format!(
            "/* rollover_last */ SELECT {COLUMNS} FROM rollovers WHERE tenant_id = $1 AND ca_server_id = $2
             ORDER BY phase IN ('distributing', 'switched') DESC, rollover_id DESC LIMIT 1"
        );
        self.query_opt(&sql, &[&Id(ca_server)]).await?.as_ref().map(read).transpose()
    }

    /// Brings a roll-over from one phase into the next; trustpoints are looked for at once.
    ///
    /// # Errors
    /// [`DbError::NotFound`] when it is not in that phase any more.
    pub async fn rollover_advance(
        &self,
        id: RolloverId,
        (from, to): (Phase, Phase),
        by: &str,
        forced_reason: Option<&str>,
        now: Timestamp,
    ) -> Result<(), DbError> {
        let sql = if to == Phase::Switched {
            "/* rollover_advance: switch */ UPDATE rollovers SET phase = $4, switched_by = $5, switched_at = $6,
                 forced_reason = $7, due_at = $6 WHERE tenant_id = $1 AND rollover_id = $2 AND phase = $3"
        } else {
            "/* rollover_advance: end */ UPDATE rollovers SET phase = $4, ended_by = $5, ended_at = $6,
                 forced_reason = coalesce(forced_reason, $7), due_at = $6
             WHERE tenant_id = $1 AND rollover_id = $2 AND phase = $3"
        };
        let count = self.execute(sql, &[&Id(id), &from.as_str(), &to.as_str(), &by, &now, &forced_reason]).await?;
        DbError::one_row(count, "rollover")
    }

    /// How many trustpoints of the CA server stand where: those with a certificate in use that is neither over nor revoked.
    ///
    /// # Errors
    /// The database's own; words that this program does not know.
    pub async fn rollover_tally(&self, rollover: &Rollover, now: Timestamp) -> Result<Tally, DbError> {
        let sql = concat!(
            "/* rollover_tally */ SELECT ",
            state_of!(),
            " AS held, count(*) FROM trustpoints t
             WHERE t.tenant_id = $1 AND t.ca_server_id = $2 AND t.not_after > $5 AND t.status <> 'revoked' GROUP BY 1"
        );
        let step = rollover.phase.step().as_str();
        let id = rollover.id.to_string();
        let mut tally = Tally::default();
        for row in self.query(sql, &[&Id(rollover.ca_server_id), &id, &step, &now]).await? {
            let count: i64 = row.try_get(1)?;
            tally.add(held(row.try_get(0)?, rollover.id)?, count.unsigned_abs());
        }
        Ok(tally)
    }

    /// Trustpoints that a roll-over waits for, by id; of one state, or all that do not count.
    ///
    /// # Errors
    /// The database's own; rows that cannot be read.
    pub async fn rollover_missing(
        &self,
        rollover: &Rollover,
        state: Option<AnchorState>,
        after: Option<TrustpointId>,
        limit: i64,
        now: Timestamp,
    ) -> Result<Vec<Laggard>, DbError> {
        let sql = concat!(
            "/* rollover_missing */ SELECT m.*, d.name AS device, a.name AS agent, a.last_seen_at FROM (
                 SELECT t.tenant_id, t.trustpoint_id, t.device_id, t.name, t.state, ",
            state_of!(),
            " AS held FROM trustpoints t
                 WHERE t.tenant_id = $1 AND t.ca_server_id = $2 AND t.not_after > $5 AND t.status <> 'revoked'
                     AND ($6::uuid IS NULL OR t.trustpoint_id > $6)) m
             JOIN devices d ON d.tenant_id = m.tenant_id AND d.device_id = m.device_id
             LEFT JOIN agents a ON a.tenant_id = d.tenant_id AND a.agent_id = d.agent_id
             WHERE m.held = ANY ($7) ORDER BY m.trustpoint_id LIMIT $8"
        );
        let counts = rollover.spec.counts;
        let states: Vec<&str> = AnchorState::ALL
            .into_iter()
            .filter(|one| state.map_or_else(|| !counts.covers(*one), |state| state == *one))
            .map(AnchorState::as_str)
            .collect();
        let (id, step) = (rollover.id.to_string(), rollover.phase.step().as_str());
        let after = after.map(Id);
        let params: [&(dyn tokio_postgres::types::ToSql + Sync); 7] =
            [&Id(rollover.ca_server_id), &id, &step, &now, &after, &states, &limit];
        self.query(sql, &params).await?.iter().map(|row| read_laggard(row, rollover.id)).collect()
    }

    /// Certificates of a CA server's trustpoints that are in use or staged and have not ended, grouped by the way they came:
    /// issuer, CA certificates, and whether that was before `switched_at`. Of each group the first and the last one.
    ///
    /// # Errors
    /// The database's own.
    pub async fn rollover_certificates(
        &self,
        ca_server: CaServerId,
        switched_at: Timestamp,
        now: Timestamp,
    ) -> Result<Vec<IssuedAlike>, DbError> {
        let sql = "/* rollover_certificates */ WITH valid AS (
                 SELECT c.certificate_id, c.issuer, md5(c.chain::text) AS chain, c.issued_at > $3 AS since,
                        d.name || '/' || t.name AS place
                 FROM trustpoints t
                 JOIN devices d ON d.tenant_id = t.tenant_id AND d.device_id = t.device_id
                 JOIN certificates c ON c.tenant_id = t.tenant_id AND c.trustpoint_id = t.trustpoint_id
                 WHERE t.tenant_id = $1 AND t.ca_server_id = $2 AND c.slot IN ('active', 'staged') AND c.not_after > $4
                     AND NOT c.given_up
             ), alike AS (
                 SELECT count(*) AS count, min(certificate_id::text)::uuid AS first, max(certificate_id::text)::uuid AS last,
                        (array_agg(place ORDER BY place))[1:5] AS named
                 FROM valid GROUP BY issuer, chain, since
             )
             SELECT g.count, g.named, f.der AS first_der, f.chain AS first_chain, l.der AS last_der, l.chain AS last_chain
             FROM alike g
             JOIN certificates f ON f.tenant_id = $1 AND f.certificate_id = g.first
             JOIN certificates l ON l.tenant_id = $1 AND l.certificate_id = g.last
             ORDER BY g.count DESC";
        let rows = self.query(sql, &[&Id(ca_server), &switched_at, &now]).await?;
        let one = |row: &Row| -> Result<IssuedAlike, DbError> {
            Ok(IssuedAlike {
                count: row.try_get::<_, i64>("count")?.unsigned_abs(),
                named: row.try_get("named")?,
                samples: vec![
                    (row.try_get("first_der")?, row.try_get("first_chain")?),
                    (row.try_get("last_der")?, row.try_get("last_chain")?),
                ],
            })
        };
        rows.iter().map(one).collect()
    }
}

pub(super) fn read(row: &Row) -> Result<Rollover, DbError> {
    let columns = Columns::new(row, "rollovers", "rollover_id");
    let phase: &str = columns.read("phase")?;
    Ok(Rollover {
        id: columns.read::<Id<RolloverId>>("rollover_id")?.0,
        ca_server_id: columns.read::<Id<CaServerId>>("ca_server_id")?.0,
        phase: Phase::from_word(phase).ok_or_else(|| columns.wrong("phase", format!("{phase:?} is unknown")))?,
        spec: columns.json("spec")?,
        former_anchors: columns.json("former_anchors")?,
        started_by: columns.read("started_by")?,
        started_at: columns.read("started_at")?,
        switched_by: columns.read("switched_by")?,
        switched_at: columns.read("switched_at")?,
        forced_reason: columns.read("forced_reason")?,
        ended_by: columns.read("ended_by")?,
        ended_at: columns.read("ended_at")?,
    })
}

fn read_laggard(row: &Row, rollover: RolloverId) -> Result<Laggard, DbError> {
    let columns = Columns::new(row, "trustpoints", "trustpoint_id");
    let state = held(columns.read("held")?, rollover)?;
    let said = super::row::trustpoint(row)?.anchors.filter(|held| held.rollover_id == rollover);
    let said = said.filter(|_| state != AnchorState::Pending);
    Ok(Laggard {
        trustpoint_id: columns.read::<Id<TrustpointId>>("trustpoint_id")?.0,
        device: columns.parse::<String, _>("device")?,
        trustpoint: columns.parse::<String, _>("name")?,
        state,
        at: said.as_ref().map(|held| held.at),
        reason: said.and_then(|held| held.reason),
        agent: columns.parse_opt::<String, _>("agent")?,
        agent_last_seen_at: columns.read("last_seen_at")?,
    })
}

fn held(word: &str, rollover: RolloverId) -> Result<AnchorState, DbError> {
    let unknown = || {
        DbError::inconsistent(
            "trustpoints",
            "state",
            format!("for rollover {rollover}"),
            format!("{word:?} is unknown"),
        )
    };
    AnchorState::from_word(word).ok_or_else(unknown)
}
