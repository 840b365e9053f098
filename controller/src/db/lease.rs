//! SQL of table `leases`: which trustpoints' leases are to be looked at, and what became of them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use tokio_postgres::Row;
use trustfleet_model::ids::{AgentId, CaServerId, DeviceId, EntityId, LeaseId, TenantId, TrustpointId};
use trustfleet_model::policy::PolicySpec;
use uuid::Uuid;

use super::{DbError, SystemTx, TenantTx, column::Columns, row, tx::Id};
use crate::device::{DeviceState, EnrollContext, Given, Keeper};
use crate::telemetry::chain;

/// A trustpoint's lease that is to be looked at, with all that it depends on.
#[derive(Clone, Debug)]
pub struct DueLease {
    /// Its tenant.
    pub tenant_id: TenantId,
    /// Its trustpoint.
    pub trustpoint_id: TrustpointId,
    /// What was given last.
    pub given: Option<Given>,
    /// Device of what was given last.
    pub given_device: Option<DeviceId>,
    /// Claimed until then: something has changed since where it says otherwise by now.
    pub claimed_until: Timestamp,
    /// The tenant is neither suspended nor deleted.
    pub tenant_active: bool,
    /// The trustpoint on its device, alone; none: it is gone.
    pub trustpoint: Option<LeasedTrustpoint>,
}

/// A trustpoint with its configuration.
#[derive(Clone, Debug)]
pub struct LeasedTrustpoint {
    /// The device, with this trustpoint alone.
    pub device: DeviceState,
    /// Its configuration.
    pub context: EnrollContext,
    /// Entity and its revision.
    pub entity: (EntityId, i32),
    /// CA server and its revision.
    pub ca_server: (CaServerId, i32),
    /// The agent in front of the device.
    pub keeper: Option<Keeper>,
}

/// Columns and joins that show the lease of a trustpoint `t`.
pub(in crate::db) const LEASE: (&str, &str) = (
    "la.name AS lease_agent, l.given_at AS lease_given_at, l.expires_at AS lease_expires_at, \
     coalesce(l.expires_at <= now(), false) AS lease_expired, \
     l.ended_at AS lease_ended_at, l.end_reason AS lease_end_reason, l.answer AS lease_answer, \
     l.answered_at AS lease_answered_at, l.answer_reason AS lease_answer_reason, \
     coalesce(l.answered_sequence >= l.sequence, false) AS lease_answered",
    "LEFT JOIN leases l ON l.tenant_id = t.tenant_id AND l.trustpoint_id = t.trustpoint_id \
     LEFT JOIN agents la ON la.tenant_id = l.tenant_id AND la.agent_id = l.agent_id",
);

/// A lease as operators see it.
#[derive(Clone, Debug)]
pub struct ShownLease {
    /// Name of the agent that has it, or had it.
    pub agent: String,
    /// When it was last given.
    pub given_at: Timestamp,
    /// Until when it holds.
    pub expires_at: Timestamp,
    /// That is over.
    pub expired: bool,
    /// When it was ended before that, and why.
    pub ended: Option<(Timestamp, String)>,
    /// What the agent answered to the last message about it, when, and why.
    pub answer: Option<(String, Timestamp, Option<String>)>,
}

/// What is written before a lease is given.
#[derive(Clone, Debug)]
pub struct LeaseGiven {
    /// The claim on it.
    pub claimed_until: Timestamp,
    /// Tenant and trustpoint.
    pub of: (TenantId, TrustpointId),
    /// The lease.
    pub lease_id: LeaseId,
    /// To whom.
    pub agent_id: AgentId,
    /// Its device.
    pub device_id: DeviceId,
    /// What is given.
    pub content: String,
    /// Entity and its revision.
    pub entity: (EntityId, i32),
    /// CA server and its revision.
    pub ca_server: (CaServerId, i32),
    /// Until when.
    pub expires_at: Timestamp,
}

/// When to look at a lease next.
#[derive(Clone, Copy, Debug)]
pub struct LeaseNext {
    /// Tenant and trustpoint.
    pub of: (TenantId, TrustpointId),
    /// The claim on it.
    pub claimed_until: Timestamp,
    /// When; none: not before something changes.
    pub look_at: Option<Timestamp>,
    /// Its last message has reached no queue.
    pub offer_again: bool,
}

/// Locks the leases of tenants `$1` and trustpoints `$2`, all writers in the same order: none of them waits for another that
/// waits for it.
const IN_ORDER: &str = "WITH held AS (
                 SELECT l.tenant_id, l.trustpoint_id FROM leases l
                 JOIN unnest($1::uuid[], $2::uuid[]) AS w(tenant_id, trustpoint_id)
                     ON l.tenant_id = w.tenant_id AND l.trustpoint_id = w.trustpoint_id
                 ORDER BY l.tenant_id, l.trustpoint_id FOR UPDATE OF l
             )";

impl SystemTx {
    /// Notes that leases of these trustpoints are to be looked at: of those that want one, and of those that have had one.
    ///
    /// # Errors
    /// The database's own.
    pub async fn leases_look(
        &self,
        trustpoints: &[(TenantId, TrustpointId, bool)],
        now: Timestamp,
    ) -> Result<(), DbError> {
        let tenants: Vec<_> = trustpoints.iter().map(|(tenant, _, _)| tenant.as_uuid()).collect();
        let ids: Vec<_> = trustpoints.iter().map(|(_, id, _)| id.as_uuid()).collect();
        let wanted: Vec<_> = trustpoints.iter().map(|(_, _, wanted)| *wanted).collect();
        let sql = "/* leases_look: new */ INSERT INTO leases (tenant_id, trustpoint_id, due_at)
             SELECT p.tenant_id, p.id, $4 FROM unnest($1::uuid[], $2::uuid[], $3::bool[]) AS p(tenant_id, id, wanted)
             WHERE p.wanted ORDER BY p.id
             ON CONFLICT (tenant_id, trustpoint_id) DO NOTHING";
        self.execute(sql, &[&tenants, &ids, &wanted, &now]).await?;
        let sql = format!(
            "/* leases_look */ {IN_ORDER}
             UPDATE leases l SET due_at = least(l.due_at, $3) FROM held
             WHERE l.tenant_id = held.tenant_id AND l.trustpoint_id = held.trustpoint_id AND (l.due_at IS NULL OR l.due_at > $3)"
        );
        self.execute(&sql, &[&tenants, &ids, &now]).await.map(drop)
    }

    /// Notes that leases are to be looked at whose entity or CA server was changed since they were given; how many.
    ///
    /// # Errors
    /// The database's own.
    pub async fn leases_outdated(&self, now: Timestamp, limit: i64) -> Result<u64, DbError> {
        let entities = "/* leases_outdated: entities */ WITH found AS (
                 SELECT l.tenant_id, l.trustpoint_id, e.revision FROM entities e CROSS JOIN LATERAL (
                     SELECT * FROM leases l WHERE l.tenant_id = e.tenant_id AND l.entity_id = e.entity_id
                         AND l.entity_revision < e.revision LIMIT $2 FOR UPDATE SKIP LOCKED) l LIMIT $2)
             UPDATE leases l SET due_at = $1, entity_revision = found.revision FROM found
             WHERE l.tenant_id = found.tenant_id AND l.trustpoint_id = found.trustpoint_id";
        let servers = "/* leases_outdated: ca_servers */ WITH found AS (
                 SELECT l.tenant_id, l.trustpoint_id, c.revision FROM ca_servers c CROSS JOIN LATERAL (
                     SELECT * FROM leases l WHERE l.tenant_id = c.tenant_id AND l.ca_server_id = c.ca_server_id
                         AND l.ca_server_revision < c.revision LIMIT $2 FOR UPDATE SKIP LOCKED) l LIMIT $2)
             UPDATE leases l SET due_at = $1, ca_server_revision = found.revision FROM found
             WHERE l.tenant_id = found.tenant_id AND l.trustpoint_id = found.trustpoint_id";
        Ok(self.execute(entities, &[&now, &limit]).await? + self.execute(servers, &[&now, &limit]).await?)
    }

    /// Claims up to `limit` leases that are to be looked at, those that wait longest first: no other replica finds them
    /// before `again_at`. One that cannot be read is logged and left out.
    ///
    /// # Errors
    /// The database's own.
    pub async fn leases_due(&self, now: Timestamp, again_at: Timestamp, limit: i64) -> Result<Vec<DueLease>, DbError> {
        let sql = "/* leases_due */ WITH due AS (
                 SELECT tenant_id, trustpoint_id FROM leases WHERE due_at <= $1 ORDER BY due_at LIMIT $3
                 FOR UPDATE SKIP LOCKED
             ), l AS (
                 UPDATE leases l SET due_at = $2 FROM due
                 WHERE l.tenant_id = due.tenant_id AND l.trustpoint_id = due.trustpoint_id RETURNING l.*
             )
             SELECT l.tenant_id, l.trustpoint_id AS leased, l.lease_id, l.agent_id AS lease_agent,
                    l.device_id AS lease_device, l.content, l.given_at, l.expires_at, l.ended_at IS NOT NULL AS ended,
                    l.offer_again, l.due_at, o.state = 'active' AS tenant_active,
                    t.trustpoint_id, t.state, t.entity_id, t.ca_server_id,
                    d.device_id, d.name, d.agent_id, d.serial, d.mac, d.labels, d.pair, d.standby,
                    e.spec AS entity, e.revision AS entity_revision, c.spec AS ca_server,
                    c.revision AS ca_server_revision, p.spec AS policy, p.revision AS policy_revision,
                    a.takes_leases, a.quarantined_at IS NOT NULL AS quarantined
             FROM l JOIN tenants o ON o.tenant_id = l.tenant_id
             LEFT JOIN trustpoints t ON t.tenant_id = l.tenant_id AND t.trustpoint_id = l.trustpoint_id
             LEFT JOIN devices d ON d.tenant_id = t.tenant_id AND d.device_id = t.device_id
             LEFT JOIN entities e ON e.tenant_id = t.tenant_id AND e.entity_id = t.entity_id
             LEFT JOIN ca_servers c ON c.tenant_id = t.tenant_id AND c.ca_server_id = t.ca_server_id
             LEFT JOIN policies p ON p.tenant_id = t.tenant_id AND p.policy_id = t.policy_id
             LEFT JOIN agents a ON a.tenant_id = d.tenant_id AND a.agent_id = d.agent_id";
        let readable = |row| {
            due(row)
                .inspect_err(
                    |error| tracing::error!(error = %chain(error), "a lease cannot be read and is left as it is"),
                )
                .ok()
        };
        Ok(self.query(sql, &[&now, &again_at, &limit]).await?.iter().filter_map(readable).collect())
    }

    /// Writes that leases are given, before their agents learn of it; returns the sequences of the messages. One is left out
    /// when something has changed since it was claimed: it is looked at anew then.
    ///
    /// # Errors
    /// The database's own.
    pub async fn leases_given(
        &self,
        given: &[LeaseGiven],
        now: Timestamp,
    ) -> Result<BTreeMap<(TenantId, TrustpointId), u64>, DbError> {
        let of = |id: fn(&LeaseGiven) -> Uuid| given.iter().map(id).collect::<Vec<_>>();
        let tenants = of(|it| it.of.0.as_uuid());
        let trustpoints = of(|it| it.of.1.as_uuid());
        let leases = of(|it| it.lease_id.as_uuid());
        let agents = of(|it| it.agent_id.as_uuid());
        let devices = of(|it| it.device_id.as_uuid());
        let contents: Vec<_> = given.iter().map(|it| it.content.as_str()).collect();
        let entities = of(|it| it.entity.0.as_uuid());
        let entity_revisions: Vec<_> = given.iter().map(|it| it.entity.1).collect();
        let servers = of(|it| it.ca_server.0.as_uuid());
        let server_revisions: Vec<_> = given.iter().map(|it| it.ca_server.1).collect();
        let ends: Vec<_> = given.iter().map(|it| it.expires_at).collect();
        let claims: Vec<_> = given.iter().map(|it| it.claimed_until).collect();
        let sql = format!(
            "/* leases_given */ {IN_ORDER}
             UPDATE leases l SET lease_id = g.lease_id, agent_id = g.agent_id, device_id = g.device_id, content = g.content,
                 entity_id = g.entity_id, entity_revision = g.entity_revision, ca_server_id = g.ca_server_id,
                 ca_server_revision = g.ca_server_revision, given_at = $3, expires_at = g.expires_at, ended_at = NULL,
                 end_reason = NULL, offer_again = false, sequence = l.sequence + 1
             FROM held, unnest($1::uuid[], $2::uuid[], $4::uuid[], $5::uuid[], $6::uuid[], $7::text[], $8::uuid[], $9::int[],
                    $10::uuid[], $11::int[], $12::timestamptz[], $13::timestamptz[])
                 AS g(tenant_id, trustpoint_id, lease_id, agent_id, device_id, content, entity_id, entity_revision, ca_server_id,
                    ca_server_revision, expires_at, claimed)
             WHERE l.tenant_id = held.tenant_id AND l.trustpoint_id = held.trustpoint_id AND l.tenant_id = g.tenant_id
                 AND l.trustpoint_id = g.trustpoint_id AND l.due_at = g.claimed
             RETURNING l.tenant_id, l.trustpoint_id, l.sequence"
        );
        let rows = self
            .query(
                &sql,
                &[
                    &tenants,
                    &trustpoints,
                    &now,
                    &leases,
                    &agents,
                    &devices,
                    &contents,
                    &entities,
                    &entity_revisions,
                    &servers,
                    &server_revisions,
                    &ends,
                    &claims,
                ],
            )
            .await?;
        let mut sequences = BTreeMap::new();
        for row in rows {
            let (Id(tenant), Id(trustpoint)) = (row.try_get(0)?, row.try_get(1)?);
            sequences.insert((tenant, trustpoint), sequence(row)?);
        }
        Ok(sequences)
    }

    /// Writes that a lease has ended, before the agent learns of it; returns the sequence of the message, none when something
    /// has changed since it was claimed.
    ///
    /// # Errors
    /// The database's own.
    pub async fn lease_ended(
        &self,
        (tenant, trustpoint): (TenantId, TrustpointId),
        claimed_until: Timestamp,
        reason: &str,
        now: Timestamp,
    ) -> Result<Option<u64>, DbError> {
        let sql = "/* lease_ended */ UPDATE leases SET ended_at = coalesce(ended_at, $3), end_reason = $4,
                 offer_again = false, sequence = sequence + 1
             WHERE tenant_id = $1 AND trustpoint_id = $2 AND due_at = $5 RETURNING sequence";
        let row = self.query_opt(sql, &[&Id(tenant), &Id(trustpoint), &now, &reason, &claimed_until]).await?;
        row.map(sequence).transpose()
    }

    /// Notes when to look at leases next; a moment is left alone where something has changed since the lease was claimed.
    ///
    /// # Errors
    /// The database's own.
    pub async fn leases_look_at(&self, next: &[LeaseNext]) -> Result<(), DbError> {
        let tenants: Vec<_> = next.iter().map(|it| it.of.0.as_uuid()).collect();
        let trustpoints: Vec<_> = next.iter().map(|it| it.of.1.as_uuid()).collect();
        let claims: Vec<_> = next.iter().map(|it| it.claimed_until).collect();
        let moments: Vec<_> = next.iter().map(|it| it.look_at).collect();
        let again: Vec<_> = next.iter().map(|it| it.offer_again).collect();
        let sql = format!(
            "/* leases_look_at */ {IN_ORDER}
             UPDATE leases l SET offer_again = l.offer_again OR n.again,
                 due_at = CASE WHEN l.due_at = n.claimed THEN n.moment ELSE l.due_at END
             FROM held, unnest($1::uuid[], $2::uuid[], $3::timestamptz[], $4::timestamptz[], $5::bool[])
                 AS n(tenant_id, trustpoint_id, claimed, moment, again)
             WHERE l.tenant_id = held.tenant_id AND l.trustpoint_id = held.trustpoint_id AND l.tenant_id = n.tenant_id
                 AND l.trustpoint_id = n.trustpoint_id"
        );
        self.execute(&sql, &[&tenants, &trustpoints, &claims, &moments, &again]).await.map(drop)
    }

    /// Writes what an agent answered. Returns whether there is such a lease of its; an answer to an earlier message changes
    /// nothing.
    ///
    /// # Errors
    /// The database's own.
    pub async fn lease_answered(
        &self,
        (tenant, agent, lease): (TenantId, AgentId, LeaseId),
        sequence: u64,
        (answer, reason): (&str, Option<&str>),
        now: Timestamp,
    ) -> Result<bool, DbError> {
        let sequence = i64::try_from(sequence).unwrap_or(i64::MAX);
        let sql = "/* lease_answered */ WITH found AS (
                 SELECT tenant_id, trustpoint_id FROM leases WHERE tenant_id = $1 AND agent_id = $2 AND lease_id = $3
             ), noted AS (
                 UPDATE leases l SET answered_sequence = $4, answered_at = $7, answer = $5, answer_reason = $6
                 FROM found WHERE l.tenant_id = found.tenant_id AND l.trustpoint_id = found.trustpoint_id
                     AND l.answered_sequence < $4 AND l.sequence >= $4
             ) SELECT FROM found";
        let found =
            self.query_opt(sql, &[&Id(tenant), &Id(agent), &Id(lease), &sequence, &answer, &reason, &now]).await?;
        Ok(found.is_some())
    }

    /// An agent begins a session: what it has not answered is offered again, and what its quarantine ended is looked at
    /// anew; with `all`, every lease of its devices.
    ///
    /// # Errors
    /// The database's own.
    pub async fn leases_of_session(
        &self,
        tenant: TenantId,
        agent: AgentId,
        all: bool,
        now: Timestamp,
    ) -> Result<(), DbError> {
        let sql = "/* leases_of_session */ UPDATE leases
             SET due_at = $3, offer_again = offer_again OR answered_sequence < sequence
             WHERE tenant_id = $1 AND agent_id = $2
               AND (answered_sequence < sequence OR offer_again OR end_reason = 'quarantine')";
        self.execute(sql, &[&Id(tenant), &Id(agent), &now]).await?;
        if all {
            let sql = "/* leases_of_session: all */ UPDATE leases l SET due_at = $3 FROM trustpoints t, devices d
                 WHERE l.tenant_id = $1 AND t.tenant_id = l.tenant_id AND t.trustpoint_id = l.trustpoint_id
                   AND d.tenant_id = t.tenant_id AND d.device_id = t.device_id AND d.agent_id = $2";
            self.execute(sql, &[&Id(tenant), &Id(agent), &now]).await?;
        }
        Ok(())
    }

    /// The agent has new keys, and may have lost what it had.
    ///
    /// # Errors
    /// The database's own.
    pub async fn leases_of_rejoined(&self, tenant: TenantId, agent: AgentId) -> Result<(), DbError> {
        let sql =
            "/* leases_of_rejoined */ UPDATE leases SET offer_again = true WHERE tenant_id = $1 AND agent_id = $2";
        self.execute(sql, &[&Id(tenant), &Id(agent)]).await.map(drop)
    }

    /// The policy of a trustpoint and its revision; none: the trustpoint is gone.
    ///
    /// # Errors
    /// The database's own.
    pub async fn policy_of_trustpoint(
        &self,
        tenant: TenantId,
        trustpoint: TrustpointId,
    ) -> Result<Option<(PolicySpec, u32)>, DbError> {
        let sql = "/* policy_of_trustpoint */ SELECT p.policy_id, p.spec, p.revision FROM trustpoints t
             JOIN policies p ON p.tenant_id = t.tenant_id AND p.policy_id = t.policy_id
             WHERE t.tenant_id = $1 AND t.trustpoint_id = $2";
        let Some(row) = self.query_opt(sql, &[&Id(tenant), &Id(trustpoint)]).await? else { return Ok(None) };
        let columns = Columns::new(&row, "policies", "policy_id");
        Ok(Some((columns.json("spec")?, columns.parse::<i32, u32>("revision")?)))
    }

    /// All leases of a tenant are to be looked at.
    ///
    /// # Errors
    /// The database's own.
    pub async fn leases_of_tenant(&self, tenant: TenantId, now: Timestamp) -> Result<(), DbError> {
        let sql = "/* leases_of_tenant */ UPDATE leases SET due_at = $2 WHERE tenant_id = $1";
        self.execute(sql, &[&Id(tenant), &now]).await.map(drop)
    }
}

impl TenantTx {
    /// Ends all leases of an agent in quarantine; it learns of that where it is let in no more. How many there were.
    ///
    /// # Errors
    /// The database's own.
    pub async fn leases_of_quarantined(&self, agent: AgentId, now: Timestamp) -> Result<u64, DbError> {
        let sql =
            "/* leases_of_quarantined */ UPDATE leases SET ended_at = $3, end_reason = 'quarantine', due_at = NULL
             WHERE tenant_id = $1 AND agent_id = $2 AND ended_at IS NULL AND expires_at > $3";
        self.execute(sql, &[&Id(agent), &now]).await
    }
}

fn sequence(row: Row) -> Result<u64, DbError> {
    let sequence: i64 = row.try_get("sequence")?;
    Ok(sequence.unsigned_abs())
}

/// The lease in the columns of [`LEASE`], which are null where there never was one.
pub(in crate::db) fn shown(row: &Row) -> Result<Option<ShownLease>, DbError> {
    let columns = Columns::new(row, "leases", "trustpoint_id");
    let agent: Option<String> = columns.read("lease_agent")?;
    let Some(agent) = agent else { return Ok(None) };
    let ended: (Option<Timestamp>, Option<String>) =
        (columns.read("lease_ended_at")?, columns.read("lease_end_reason")?);
    let answered: bool = columns.read("lease_answered")?;
    let answer: (Option<String>, Option<Timestamp>) =
        (columns.read("lease_answer")?, columns.read("lease_answered_at")?);
    let reason: Option<String> = columns.read("lease_answer_reason")?;
    Ok(Some(ShownLease {
        agent,
        given_at: columns.read("lease_given_at")?,
        expires_at: columns.read("lease_expires_at")?,
        expired: columns.read("lease_expired")?,
        ended: ended.0.zip(ended.1),
        answer: answer.0.zip(answer.1).filter(|_| answered).map(|(answer, at)| (answer, at, reason)),
    }))
}

fn due(row: &Row) -> Result<DueLease, DbError> {
    let Id(tenant_id) = row.try_get("tenant_id")?;
    let Id(trustpoint_id) = row.try_get("leased")?;
    let lease: Option<Id<LeaseId>> = row.try_get("lease_id")?;
    let given = match lease {
        None => None,
        Some(Id(lease_id)) => Some(Given {
            lease_id,
            agent_id: row.try_get::<_, Id<AgentId>>("lease_agent")?.0,
            content: row.try_get("content")?,
            given_at: row.try_get("given_at")?,
            expires_at: row.try_get("expires_at")?,
            ended: row.try_get("ended")?,
            offer_again: row.try_get("offer_again")?,
        }),
    };
    let given_device: Option<Id<DeviceId>> = row.try_get("lease_device")?;
    let present: Option<Id<TrustpointId>> = row.try_get("trustpoint_id")?;
    Ok(DueLease {
        tenant_id,
        trustpoint_id,
        given,
        given_device: given_device.map(|Id(device)| device),
        claimed_until: row.try_get("due_at")?,
        tenant_active: row.try_get("tenant_active")?,
        trustpoint: present.map(|_| leased(row, tenant_id)).transpose()?,
    })
}

fn leased(row: &Row, tenant_id: TenantId) -> Result<LeasedTrustpoint, DbError> {
    let columns = Columns::new(row, "leases", "leased");
    let trustpoint = row::trustpoint(row)?;
    let device = row::device(row, tenant_id)?;
    let agent = device.agent_id;
    let (takes_leases, quarantined): (Option<bool>, bool) =
        (columns.read("takes_leases")?, columns.read("quarantined")?);
    let Id(entity): Id<EntityId> = columns.read("entity_id")?;
    let Id(ca_server): Id<CaServerId> = columns.read("ca_server_id")?;
    Ok(LeasedTrustpoint {
        context: EnrollContext {
            trustpoint_id: trustpoint.id,
            entity: columns.json("entity")?,
            ca_server: columns.json("ca_server")?,
            policy: columns.json("policy")?,
            policy_revision: columns.parse::<i32, u32>("policy_revision")?,
            known_job: None,
            agent_key_sha256: None,
        },
        entity: (entity, columns.read("entity_revision")?),
        ca_server: (ca_server, columns.read("ca_server_revision")?),
        keeper: agent.zip(takes_leases).map(|(agent_id, takes_leases)| Keeper { agent_id, takes_leases, quarantined }),
        device: DeviceState::alone(device, trustpoint),
    })
}
