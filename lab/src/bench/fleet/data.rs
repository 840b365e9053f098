//! A large fleet in the database, made out of the one device that the system itself has enrolled.
//!
//! Plain INSERT ... SELECT statements of the superuser: every row is what the controller wrote for the first device, with
//! ids, names, serial numbers, fingerprints and moments of its own. What is left out is said in docs/benchmarks.md: the
//! lines of the audit log and the transcripts of the exchanges.

use tokio_postgres::Client;
use url::Url;

use super::super::BenchError;
use crate::{
    house::TENANT,
    stack::{connect, with_database},
};

/// Tenants among which the devices are shared out.
pub(crate) const TENANTS: u32 = 10;
/// Devices behind one agent.
const BEHIND_ONE: u32 = 100;
/// Every this many devices each tenant gets a further agent.
const ROUND: u32 = BEHIND_ONE * TENANTS;

/// `pg_temp.id`: a UUIDv7 of a moment whose random part follows from a number, so that rows lie in the index as those of a
/// fleet that grew; `pg_temp.stamp`: a moment as the controller writes it into JSON. One
/// expression each, and no stricter than what they call: so the planner puts them into the statements.
const FUNCTIONS: &str = r#"
    CREATE FUNCTION pg_temp.id(kind text, n bigint, at timestamptz) RETURNS uuid LANGUAGE sql STABLE AS $$
        SELECT (lpad(to_hex((date_part('epoch', at) * 1000)::bigint), 12, '0') || '7' || substr(md5(kind || n), 1, 3) || '8'
                || substr(md5(kind || n), 4, 15))::uuid
    $$;
    CREATE FUNCTION pg_temp.stamp(at timestamptz) RETURNS text LANGUAGE sql STABLE AS $$
        SELECT to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
    $$;
"#;

/// Tenants besides the first, with what they have configured; agents for all.
const AROUND: &str = "
    CREATE TEMP TABLE made_tenants AS
        SELECT 0 AS t, tenant_id FROM tenants WHERE name = '{tenant}'
        UNION ALL SELECT t, pg_temp.id('tenant', t, now()) FROM generate_series(1, {tenants} - 1) t;
    CREATE TEMP TABLE first AS SELECT d.* FROM devices d JOIN made_tenants m USING (tenant_id) WHERE m.t = 0;
    INSERT INTO tenants SELECT (jsonb_populate_record(o, jsonb_build_object('tenant_id', m.tenant_id, 'name', o.name || '-' || m.t))).*
        FROM tenants o, made_tenants m WHERE o.name = '{tenant}' AND m.t > 0;
    INSERT INTO entities SELECT (jsonb_populate_record(o, jsonb_build_object('tenant_id', m.tenant_id))).*
        FROM entities o JOIN made_tenants f ON f.tenant_id = o.tenant_id AND f.t = 0, made_tenants m WHERE m.t > 0;
    INSERT INTO ca_servers SELECT (jsonb_populate_record(o, jsonb_build_object('tenant_id', m.tenant_id))).*
        FROM ca_servers o JOIN made_tenants f ON f.tenant_id = o.tenant_id AND f.t = 0, made_tenants m WHERE m.t > 0;
    INSERT INTO policies SELECT (jsonb_populate_record(o, jsonb_build_object('tenant_id', m.tenant_id))).*
        FROM policies o JOIN made_tenants f ON f.tenant_id = o.tenant_id AND f.t = 0, made_tenants m WHERE m.t > 0;
    INSERT INTO secrets SELECT (jsonb_populate_record(o, jsonb_build_object('tenant_id', m.tenant_id))).*
        FROM secrets o JOIN made_tenants f ON f.tenant_id = o.tenant_id AND f.t = 0, made_tenants m WHERE m.t > 0;
    INSERT INTO agents SELECT (jsonb_populate_record(o, jsonb_build_object(
            'tenant_id', m.tenant_id, 'agent_id', pg_temp.id('agent', r * {tenants} + m.t, '2026-01-01'), 'name', 'gateway-' || r,
            'sign_key', sha256(('sign' || r || m.t)::bytea), 'seal_key', sha256(('seal' || r || m.t)::bytea)))).*
        FROM agents o JOIN first f ON f.tenant_id = o.tenant_id AND f.agent_id = o.agent_id,
             made_tenants m, generate_series(0, {devices} / {round}) r;
";

/// Which devices there will be.
const DEVICES: &str = "
    CREATE TEMP TABLE made AS
        SELECT n, m.tenant_id, pg_temp.id('agent', n / {round} * {tenants} + n % {tenants}, '2026-01-01') AS agent_id,
               pg_temp.id('device', n, enrolled) AS device_id, pg_temp.id('trustpoint', n, enrolled) AS trustpoint_id,
               pg_temp.id('job', n, enrolled) AS job_id, pg_temp.id('certificate', n, enrolled) AS certificate_id,
               'ap-' || lpad(n::text, 7, '0') || '.building-07.ber.x' AS name, enrolled,
               enrolled + interval '365 days' AS not_after, enrolled + (185 + n % 100) * interval '1 day' AS renewal_at,
               upper(md5('serial' || n)) AS serial, encode(sha256(('certificate' || n)::bytea), 'hex') AS sha256,
               encode(sha256(('key' || n)::bytea), 'hex') AS key_sha256
        FROM (SELECT n, date_trunc('second', now() - interval '100 days' + n * (interval '99 days' / {devices})) AS enrolled
              FROM generate_series(1, {devices}) n) s
        JOIN made_tenants m ON m.t = n % {tenants};
    INSERT INTO devices (tenant_id, device_id, name, agent_id, labels, shard, version, created_at, updated_at, updated_by)
        SELECT m.tenant_id, m.device_id, m.name, m.agent_id, jsonb_build_object('site', 'site-' || n % 500), n % 256, 4,
               m.enrolled, m.enrolled, f.updated_by
        FROM made m, first f ORDER BY n;
    INSERT INTO device_labels (tenant_id, device_id, label, name)
        SELECT m.tenant_id, m.device_id, 'site=site-' || n % 500, m.name FROM made m ORDER BY n;
";

const TRUSTPOINTS: &str = "
    INSERT INTO trustpoints (tenant_id, trustpoint_id, device_id, name, entity_id, ca_server_id, policy_id, status, not_after,
                             state, statistics, updated_at, next_action_at, planned_revision)
        SELECT m.tenant_id, m.trustpoint_id, m.device_id, t.name, t.entity_id, t.ca_server_id, t.policy_id, t.status, m.not_after,
               t.state || jsonb_build_object('trustpoint', t.state -> 'trustpoint' || jsonb_build_object(
                   'id', m.trustpoint_id, 'issued_at', pg_temp.stamp(m.enrolled),
                   'last_request', jsonb_build_object('job_id', m.job_id, 'request_key', NULL),
                   'active', t.state #> '{trustpoint,active}' || jsonb_build_object(
                       'id', m.certificate_id, 'serial', m.serial, 'sha256', m.sha256, 'public_key_sha256', m.key_sha256,
                       'subject', replace(t.state #>> '{trustpoint,active,subject}', f.name, m.name),
                       'not_before', pg_temp.stamp(m.enrolled), 'not_after', pg_temp.stamp(m.not_after)))),
               t.statistics, m.enrolled, m.renewal_at, p.revision
        FROM made m, trustpoints t JOIN first f USING (tenant_id, device_id)
             JOIN policies p ON p.tenant_id = t.tenant_id AND p.policy_id = t.policy_id
        ORDER BY n;
";

const HISTORY: &str = "
    INSERT INTO jobs (tenant_id, job_id, device_id, trustpoint_id, agent_id, kind, state, requested_by, task, public_key_sha256,
                      transaction_id, sequence, endpoint, created_at, published_at, started_at, finished_at, updated_at)
        SELECT m.tenant_id, m.job_id, m.device_id, m.trustpoint_id, m.agent_id, j.kind, j.state, j.requested_by, j.task,
               m.key_sha256, md5('transaction' || n), n, j.endpoint, m.enrolled, m.enrolled, m.enrolled, m.enrolled, m.enrolled
        FROM made m, jobs j JOIN first f USING (tenant_id, device_id) WHERE j.kind = 'ir' ORDER BY n;
    INSERT INTO certificates (tenant_id, certificate_id, device_id, trustpoint_id, job_id, slot, serial, subject, issuer, not_before,
                              not_after, sha256, public_key_sha256, file, key_type, der, chain, issued_at, activated_at)
        SELECT m.tenant_id, m.certificate_id, m.device_id, m.trustpoint_id, m.job_id, c.slot, m.serial,
               replace(c.subject, f.name, m.name), c.issuer, m.enrolled, m.not_after, m.sha256, m.key_sha256, c.file,
               c.key_type, c.der, c.chain, m.enrolled, m.enrolled
        FROM made m, certificates c JOIN first f USING (tenant_id, device_id) WHERE c.slot = 'active' ORDER BY n;
";

/// A connection of the superuser to a database of the cluster.
///
/// # Errors
/// The server's.
pub(crate) async fn superuser(cluster: &Url, database: &str) -> Result<Client, BenchError> {
    Ok(connect(&with_database(cluster, database), None).await?)
}

/// Copies a database in which nobody works.
///
/// # Errors
/// The server's.
pub(crate) async fn copy(cluster: &Url, from: &str, to: &str) -> Result<(), BenchError> {
    let sql = format!("CREATE DATABASE {to} TEMPLATE {from} OWNER trustfleet_owner");
    superuser(cluster, "postgres").await?.batch_execute(&sql).await.map_err(BenchError::sql("copying a database"))
}

/// Puts `devices` enrolled devices beside the one that is there.
///
/// # Errors
/// The server's.
pub(crate) async fn grow(cluster: &Url, database: &str, devices: u32) -> Result<(), BenchError> {
    let client = superuser(cluster, database).await?;
    // Foreign keys are right by the way the rows are made, and to look up four million of them again takes minutes.
    let begin = "SET session_replication_role = replica; SET synchronous_commit = off";
    client.batch_execute(begin).await.map_err(BenchError::sql("preparing to make a fleet"))?;
    client.batch_execute(FUNCTIONS).await.map_err(BenchError::sql("making functions"))?;
    for (what, sql) in [
        ("making tenants and agents", AROUND),
        ("making devices", DEVICES),
        ("making trustpoints", TRUSTPOINTS),
        ("making jobs and certificates", HISTORY),
    ] {
        let sql = sql
            .replace("{tenant}", TENANT)
            .replace("{tenants}", &TENANTS.to_string())
            .replace("{round}", &ROUND.to_string())
            .replace("{devices}", &devices.to_string());
        client.batch_execute(&sql).await.map_err(BenchError::sql(what))?;
    }
    client.batch_execute("VACUUM (ANALYZE)").await.map_err(BenchError::sql("cleaning up after it"))
}
