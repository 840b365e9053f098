//! The one statement of a group commit, and its parameters.
//!
//! Devices come as arrays, everything that belongs to them as JSON with the decision's number `n`: only rows whose
//! device could be moved to its next version find their number in `u`, and only those are written.

use std::collections::HashSet;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use deadpool_postgres::Object;
use serde_json::{Value, json};
use tokio_postgres::types::Json;
use trustfleet_model::{ca_server::endpoint_of, ids::JobId, job::JobTask, trustpoint::Trustpoint};
use uuid::Uuid;

use super::Entry;
use crate::{
    audit::{Content, Outcome, Sealer},
    db::DbError,
    device::{
        CertificateInsert, Changes, JobInsert, JobUpdate, RevocationChange, SlotChange, StopNote, TrustpointChange,
    },
};

/// A row that somebody else holds is skipped like a stale one: it must not hold up the rest of the batch, and batches of
/// two replicas cannot deadlock. Jobs are written by the outbox, too, which waits for them in the same order.
const SQL: &str = "/* group_commit */
WITH i AS (
    SELECT * FROM unnest($1::int[], $2::uuid[], $3::uuid[], $4::bigint[], $5::timestamptz[])
        AS i(n, tenant_id, device_id, version, at)
), locked AS (
    SELECT i.* FROM i JOIN devices d ON d.tenant_id = i.tenant_id AND d.device_id = i.device_id AND d.version = i.version
    FOR NO KEY UPDATE OF d SKIP LOCKED
), u AS (
    UPDATE devices d SET version = d.version + 1, updated_at = l.at, updated_by = 'group_commit'
    FROM locked l WHERE d.tenant_id = l.tenant_id AND d.device_id = l.device_id AND d.version = l.version
    RETURNING l.n, d.tenant_id, d.device_id, l.at
), trustpoints_written AS (
    INSERT INTO trustpoints (tenant_id, trustpoint_id, device_id, name, entity_id, ca_server_id, policy_id, binding_id,
                             binding_revision, status, not_after, state, statistics, updated_at, planned_revision)
    SELECT u.tenant_id, t.trustpoint_id, u.device_id, t.name, t.entity_id, t.ca_server_id, t.policy_id, t.binding_id,
           t.binding_revision, t.status, t.not_after, t.state, t.statistics, u.at, t.is_step::int
    FROM u JOIN jsonb_to_recordset($6) AS t(n int, trustpoint_id uuid, name text, entity_id uuid, ca_server_id uuid,
                                            policy_id uuid, binding_id uuid, binding_revision int, status text, not_after timestamptz, state jsonb, statistics jsonb, is_step boolean) USING (n)
    ON CONFLICT (tenant_id, trustpoint_id) DO UPDATE
    SET entity_id = EXCLUDED.entity_id, ca_server_id = EXCLUDED.ca_server_id, policy_id = EXCLUDED.policy_id,
        binding_id = EXCLUDED.binding_id, binding_revision = EXCLUDED.binding_revision, status = EXCLUDED.status, not_after = EXCLUDED.not_after, state = EXCLUDED.state,
        statistics = EXCLUDED.statistics, updated_at = EXCLUDED.updated_at,
        planned_revision = CASE EXCLUDED.planned_revision WHEN 0 THEN 0 ELSE trustpoints.planned_revision END,
        next_action_at = CASE EXCLUDED.planned_revision WHEN 0 THEN trustpoints.next_action_at END
    WHERE trustpoints.device_id = EXCLUDED.device_id
), trustpoints_removed AS (
    DELETE FROM trustpoints t USING u JOIN jsonb_to_recordset($7) AS r(n int, trustpoint_id uuid) USING (n)
    WHERE t.tenant_id = u.tenant_id AND t.device_id = u.device_id AND t.trustpoint_id = r.trustpoint_id
), leases_of_removed AS (
    UPDATE leases l SET due_at = u.at FROM u JOIN jsonb_to_recordset($7) AS r(n int, trustpoint_id uuid) USING (n)
    WHERE l.tenant_id = u.tenant_id AND l.trustpoint_id = r.trustpoint_id
), jobs_made AS (
    INSERT INTO jobs (tenant_id, job_id, device_id, trustpoint_id, agent_id, kind, state, request_key, requested_by,
                      task, traceparent, certificate_id, endpoint, deadline, lease_id, started_at, created_at, updated_at,
                      primary_endpoint, secondary_endpoint)
    SELECT u.tenant_id, j.job_id, u.device_id, j.trustpoint_id, j.agent_id, j.kind,
           CASE WHEN j.lease_id IS NULL THEN 'awaiting_publish' ELSE 'awaiting_ca' END, j.request_key,
           j.requested_by, j.task, j.traceparent, j.certificate_id, j.endpoint, j.deadline, j.lease_id,
           CASE WHEN j.lease_id IS NOT NULL THEN u.at END, u.at, u.at, j.endpoint, j.secondary_endpoint
    FROM u JOIN jsonb_to_recordset($8) AS j(n int, job_id uuid, trustpoint_id uuid, agent_id uuid, kind text,
                                            request_key text, requested_by text, task jsonb, traceparent text,
                                            certificate_id uuid, endpoint text, secondary_endpoint text, deadline timestamptz,
                                            lease_id uuid) USING (n)
), endpoints_known AS (
    INSERT INTO ca_endpoints (endpoint)
    SELECT DISTINCT x.endpoint FROM u JOIN jsonb_to_recordset($8) AS j(n int, endpoint text, secondary_endpoint text) USING (n)
    CROSS JOIN LATERAL unnest(ARRAY[j.endpoint, j.secondary_endpoint]) AS x(endpoint)
    WHERE x.endpoint IS NOT NULL AND NOT EXISTS (SELECT FROM ca_endpoints e WHERE e.endpoint = x.endpoint)
    ON CONFLICT DO NOTHING
), jobs_held AS (
    SELECT j.tenant_id, j.job_id FROM u JOIN jsonb_to_recordset($9) AS c(n int, job_id uuid) USING (n)
    JOIN jobs j ON j.tenant_id = u.tenant_id AND j.job_id = c.job_id AND j.device_id = u.device_id
    ORDER BY j.tenant_id, j.job_id FOR NO KEY UPDATE OF j
), jobs_changed AS (
    UPDATE jobs j SET state = coalesce(c.state, j.state),
        failure = CASE c.state WHEN 'succeeded' THEN NULL ELSE coalesce(c.failure, j.failure) END,
        public_key_sha256 = coalesce(c.public_key_sha256, j.public_key_sha256),
        transaction_id = coalesce(c.transaction_id, j.transaction_id),
        started_at = coalesce(j.started_at, c.started_at),
        finished_at = coalesce(c.finished_at, j.finished_at),
        transcript = coalesce(c.transcript, j.transcript),
        stop_requested_at = CASE WHEN c.stop THEN coalesce(j.stop_requested_at, u.at) ELSE j.stop_requested_at END,
        stop_pending = coalesce(c.stop, j.stop_pending),
        in_service = coalesce(c.in_service, j.in_service),
        dry_run = coalesce(c.dry_run, j.dry_run),
        updated_at = u.at
    FROM u JOIN jsonb_to_recordset($9) AS c(n int, job_id uuid, state text, failure jsonb, public_key_sha256 text,
                                            transaction_id text, started_at timestamptz, finished_at timestamptz,
                                            transcript jsonb, in_service jsonb, dry_run jsonb,
                                            stop boolean)
        USING (n)
    JOIN jobs_held h ON h.tenant_id = u.tenant_id AND h.job_id = c.job_id
    WHERE j.tenant_id = u.tenant_id AND j.device_id = u.device_id AND j.job_id = c.job_id
), certificates_made AS (
    INSERT INTO certificates (tenant_id, certificate_id, device_id, trustpoint_id, job_id, slot, serial, subject, issuer,
                              not_before, not_after, sha256, public_key_sha256, file, der, chain, issued_at, key_type)
    SELECT u.tenant_id, c.certificate_id, u.device_id, c.trustpoint_id, c.job_id, c.slot, c.serial, c.subject, c.issuer,
           c.not_before, c.not_after, c.sha256, c.public_key_sha256, c.file, decode(c.der, 'base64'),
           ARRAY(SELECT decode(value, 'base64') FROM jsonb_array_elements_text(c.chain)), u.at, c.key_type
    FROM u JOIN jsonb_to_recordset($10) AS c(n int, certificate_id uuid, trustpoint_id uuid, job_id uuid, slot text,
        serial text, subject text, issuer text, not_before timestamptz, not_after timestamptz, sha256 text,
        public_key_sha256 text, file text, der text, chain jsonb, key_type text) USING (n)
), certificates_moved AS (
    UPDATE certificates c SET slot = s.slot, file = s.file,
        activated_at = CASE s.slot WHEN 'active' THEN coalesce(c.activated_at, u.at) ELSE c.activated_at END,
        replaced_by = coalesce(c.replaced_by, s.replaced_by),
        replaced_at = CASE WHEN s.replaced_by IS NULL THEN c.replaced_at ELSE coalesce(c.replaced_at, u.at) END
    FROM u JOIN jsonb_to_recordset($11) AS s(n int, certificate_id uuid, slot text, file text, replaced_by uuid) USING (n)
    WHERE c.tenant_id = u.tenant_id AND c.device_id = u.device_id AND c.certificate_id = s.certificate_id
), certificates_condemned AS (
    UPDATE certificates c SET revocation = r.revocation, revocation_due_at = r.again_at
    FROM u JOIN jsonb_to_recordset($15) AS r(n int, certificate_id uuid, revocation jsonb, again_at timestamptz) USING (n)
    WHERE c.tenant_id = u.tenant_id AND c.device_id = u.device_id AND c.certificate_id = r.certificate_id
), outbox_filled AS (
    INSERT INTO outbox (tenant_id, job_id, created_at, endpoint, deadline)
    SELECT u.tenant_id, o.job_id, u.at, CASE WHEN NOT o.stop THEN coalesce(o.endpoint, j.endpoint) END,
           coalesce(o.deadline, j.deadline)
    FROM u JOIN jsonb_to_recordset($12) AS o(n int, job_id uuid, stop boolean, endpoint text, deadline timestamptz) USING (n)
    LEFT JOIN jobs j ON j.tenant_id = u.tenant_id AND j.job_id = o.job_id
    ON CONFLICT (tenant_id, job_id) DO NOTHING
), secrets_removed AS (
    DELETE FROM secrets s USING u JOIN jsonb_to_recordset($13) AS g(n int, secret_id uuid) USING (n)
    WHERE s.tenant_id = u.tenant_id AND s.secret_id = g.secret_id
), audited AS (
    INSERT INTO audit (tenant_id, at, actor, role, source, request_id, trace_id, action, object_kind, object_id, before,
                       after, detail, outcome, seal)
    SELECT u.tenant_id, u.at, a.actor, a.role, a.source, a.request_id, a.trace_id, a.action, a.object_kind, a.object_id,
           a.before, a.after, a.detail, 'done',
           decode(a.seal, 'hex')
    FROM u JOIN jsonb_to_recordset($14) AS a(n int, place int, actor text, role text, source inet, request_id uuid,
                                             trace_id text, action text, object_kind text, object_id uuid, before jsonb,
                                             after jsonb, detail jsonb, seal text) USING (n)
    ORDER BY n, place
)
SELECT n FROM u";

/// The statement's parameters.
pub(super) struct Parameters {
    numbers: Vec<i32>,
    tenants: Vec<Uuid>,
    devices: Vec<Uuid>,
    versions: Vec<i64>,
    moments: Vec<jiff::Timestamp>,
    trustpoints: Vec<Value>,
    trustpoints_removed: Vec<Value>,
    jobs: Vec<Value>,
    job_updates: Vec<Value>,
    certificates: Vec<Value>,
    slots: Vec<Value>,
    revocations: Vec<Value>,
    outbox: Vec<Value>,
    secrets_gone: Vec<Value>,
    audit: Vec<Value>,
}

impl Parameters {
    /// Those of the decisions at the places that are `wanted`.
    pub(super) fn of(batch: &[Entry], wanted: impl Fn(usize) -> bool, sealer: &Sealer) -> Result<Self, DbError> {
        let mut all = Self {
            numbers: Vec::with_capacity(batch.len()),
            tenants: Vec::with_capacity(batch.len()),
            devices: Vec::with_capacity(batch.len()),
            versions: Vec::with_capacity(batch.len()),
            moments: Vec::with_capacity(batch.len()),
            trustpoints: Vec::new(),
            trustpoints_removed: Vec::new(),
            jobs: Vec::new(),
            job_updates: Vec::new(),
            certificates: Vec::new(),
            slots: Vec::new(),
            revocations: Vec::new(),
            outbox: Vec::new(),
            secrets_gone: Vec::new(),
            audit: Vec::new(),
        };
        for (n, (_, entry)) in (0_i32..).zip(batch.iter().enumerate()).filter(|(_, (place, _))| wanted(*place)) {
            all.add(n, entry, sealer)?;
        }
        Ok(all)
    }

    fn add(&mut self, n: i32, entry: &Entry, sealer: &Sealer) -> Result<(), DbError> {
        let changes = &entry.changes;
        self.numbers.push(n);
        self.tenants.push(entry.tenant.as_uuid());
        self.devices.push(entry.device.as_uuid());
        self.versions.push(changes.expected_version());
        self.moments.push(changes.at);
        for change in &changes.trustpoints {
            match change {
                TrustpointChange::Write(trustpoint) => self.trustpoints.push(written(n, trustpoint, false)?),
                TrustpointChange::Step(trustpoint) => self.trustpoints.push(written(n, trustpoint, true)?),
                TrustpointChange::Remove(id) => {
                    self.trustpoints_removed.push(json!({ "n": n, "trustpoint_id": id }));
                }
            }
        }
        self.jobs.extend(changes.jobs.iter().map(|job| new_job(n, job)));
        self.job_updates.extend(changes.job_updates.iter().map(|update| job_update(n, update)));
        self.job_updates.extend(
            changes
                .jobs_told
                .iter()
                .map(|told| json!({ "n": n, "job_id": told.job_id, "in_service": told.in_service })),
        );
        self.certificates.extend(changes.certificates.iter().map(|made| certificate(n, made)));
        self.slots.extend(changes.slots.iter().map(|change| slot(n, change)));
        self.revocations.extend(changes.revocations.iter().map(|change| revocation(n, change)));
        self.outbox.extend(changes.outbox.iter().map(|job_id| to_publish(n, *job_id, changes)));
        self.secrets_gone.extend(changes.secrets_gone.iter().map(|id| json!({ "n": n, "secret_id": id })));
        self.audit.extend(changes.audit.iter().enumerate().map(|(place, line)| {
            let content = Content {
                tenant: entry.tenant,
                at: changes.at,
                requester: &line.requester,
                action: line.action,
                outcome: Outcome::Done.as_str(),
                object_kind: line.object_kind,
                object_id: line.object_id,
                before: line.before.as_ref(),
                after: line.after.as_ref(),
                detail: &line.detail,
            };
            json!({
                "n": n,
                "place": place,
                "actor": line.requester.actor,
                "role": line.requester.role,
                "source": line.requester.source,
                "request_id": line.requester.request_id,
                "trace_id": line.requester.trace_id,
                "action": line.action,
                "object_kind": line.object_kind,
                "object_id": line.object_id,
                "before": line.before,
                "after": line.after,
                "detail": line.detail,
                "seal": hex::encode(sealer.seal(&content.encode())),
            })
        }));
        Ok(())
    }
}

/// Runs the statement, which is a transaction by itself, and returns the numbers that were written.
pub(super) async fn execute(client: &Object, parameters: &Parameters) -> Result<HashSet<usize>, DbError> {
    let statement = client.prepare_cached(SQL).await.map_err(DbError::from)?;
    let p = parameters;
    let rows = client
        .query(
            &statement,
            &[
                &p.numbers,
                &p.tenants,
                &p.devices,
                &p.versions,
                &p.moments,
                &Json(&p.trustpoints),
                &Json(&p.trustpoints_removed),
                &Json(&p.jobs),
                &Json(&p.job_updates),
                &Json(&p.certificates),
                &Json(&p.slots),
                &Json(&p.outbox),
                &Json(&p.secrets_gone),
                &Json(&p.audit),
                &Json(&p.revocations),
            ],
        )
        .await
        .map_err(DbError::of_lone_statement)?;
    rows.iter()
        .map(|row| {
            let n: i32 = row.try_get(0).map_err(DbError::from)?;
            usize::try_from(n).map_err(|error| DbError::inconsistent("devices", "n", n, error))
        })
        .collect()
}

/// `is_step`: nothing is due until its request has ended, so that nothing is to be planned.
fn written(n: i32, trustpoint: &Trustpoint, is_step: bool) -> Result<Value, DbError> {
    Ok(json!({
        "n": n,
        "trustpoint_id": trustpoint.id,
        "name": trustpoint.name,
        "entity_id": trustpoint.entity_id,
        "ca_server_id": trustpoint.ca_server_id,
        "policy_id": trustpoint.policy_id,
        "binding_id": trustpoint.binding_id,
        "binding_revision": trustpoint.binding_revision,
        "status": trustpoint.status().as_str(),
        "not_after": trustpoint.active.as_ref().filter(|facts| !facts.is_given_up()).map(|facts| facts.not_after),
        "state": crate::db::stored_trustpoint(trustpoint)?,
        "statistics": Some(trustpoint.statistics.flat()).filter(|counts| !counts.is_empty()),
        "is_step": is_step,
    }))
}

fn new_job(n: i32, job: &JobInsert) -> Value {
    json!({
        "n": n,
        "job_id": job.job_id,
        "trustpoint_id": job.trustpoint_id,
        "agent_id": job.agent_id,
        "kind": job.kind.as_str(),
        "request_key": job.request_key,
        "requested_by": job.requested_by,
        "task": job.task,
        "traceparent": job.traceparent,
        "certificate_id": job.certificate_id,
        "endpoint": job.endpoint,
        "secondary_endpoint": secondary_endpoint(job),
        "deadline": job.deadline,
        "lease_id": job.lease_id,
    })
}

/// The endpoint that a job's agent turns to when the other one cannot be reached, where it counts for one at all.
fn secondary_endpoint(job: &JobInsert) -> Option<String> {
    let ca_server = match &job.task {
        JobTask::Enroll(order) => &order.ca_server,
        JobTask::Revoke(order) => &order.ca_server,
        _ => return None,
    };
    let primary = job.endpoint.as_ref()?;
    endpoint_of(ca_server.secondary_url.as_deref()?).filter(|secondary| secondary != primary)
}

/// A new job waits for the budget of its CA, as one does that is offered again; an order to stop one waits for nothing.
fn to_publish(n: i32, job_id: JobId, changes: &Changes) -> Value {
    let new = changes.jobs.iter().find(|job| job.job_id == job_id);
    let stops = |update: &&JobUpdate| update.job_id == job_id && update.stop == Some(StopNote::Requested);
    json!({
        "n": n,
        "job_id": job_id,
        "stop": changes.job_updates.iter().find(stops).is_some(),
        "endpoint": new.and_then(|job| job.endpoint.as_ref()),
        "deadline": new.and_then(|job| job.deadline),
    })
}

fn job_update(n: i32, update: &JobUpdate) -> Value {
    json!({
        "n": n,
        "job_id": update.job_id,
        "state": update.state.as_str(),
        "failure": update.failure,
        "public_key_sha256": update.public_key_sha256,
        "transaction_id": update.transaction_id,
        "started_at": update.started_at,
        "finished_at": update.finished_at,
        "transcript": update.transcript.as_ref().map(crate::db::stored_transcript),
        "stop": update.stop.map(|stop| stop == StopNote::Requested),
        "in_service": update.in_service,
        "dry_run": update.dry_run,
    })
}

fn certificate(n: i32, made: &CertificateInsert) -> Value {
    let facts = &made.issued.facts;
    json!({
        "n": n,
        "certificate_id": facts.id,
        "trustpoint_id": made.trustpoint_id,
        "job_id": made.job_id,
        "slot": made.slot.as_str(),
        "serial": facts.serial,
        "subject": facts.subject,
        "issuer": facts.issuer,
        "not_before": facts.not_before,
        "not_after": facts.not_after,
        "sha256": facts.sha256,
        "public_key_sha256": facts.public_key_sha256,
        "file": facts.file,
        "key_type": crate::db::key_type(&made.issued.der),
        "der": STANDARD.encode(&made.issued.der),
        "chain": made.issued.chain.iter().map(|der| STANDARD.encode(der)).collect::<Vec<_>>(),
    })
}

fn revocation(n: i32, change: &RevocationChange) -> Value {
    json!({ "n": n, "certificate_id": change.certificate_id, "revocation": change.revocation, "again_at": change.again_at })
}

fn slot(n: i32, change: &SlotChange) -> Value {
    json!({ "n": n, "certificate_id": change.certificate_id, "slot": change.slot.as_str(), "file": change.file,
        "replaced_by": change.replaced_by })
}
