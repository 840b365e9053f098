//! Group commit: accepted key updates of many devices, beside one statement that writes the same rows.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::{runtime::Handle, task::JoinSet};
use tokio_postgres::{Client, Statement};
use trustfleet_controller::{
    config::Config,
    db::DbError,
    device::{Changes, Command, Enroll, EnrollContext, Requester, TrustpointChange, decide},
};
use trustfleet_model::{
    clock::{Clock as _, SystemClock},
    field::TrustpointName,
    ids::{DeviceId, JobId, TenantId},
    job::RequestKind,
};

use super::{Inner, InsideArgs, actors::load, devices};
use crate::bench::BenchError;

/// Who waits for a commit at a time.
const CALLERS: usize = 64;
/// Rows of one statement of the baseline.
const ROWS: usize = 1_000;

/// A decision that waits to be written.
struct Decided {
    tenant: TenantId,
    device: DeviceId,
    changes: Box<Changes>,
}

/// Everything that a group commit writes for an accepted request, guarded by the device's version: device, trustpoint, job,
/// outbox, audit log.
const SQL: &str = "WITH i AS (
        SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::uuid[], $5::text[], $6::jsonb[], $7::uuid[], $8::uuid[],
                             $9::jsonb[], $10::text[], $11::timestamptz[], $12::jsonb[])
            AS i(tenant_id, device_id, version, trustpoint_id, status, state, job_id, agent_id, task, endpoint, deadline, detail)
    ), u AS (
        UPDATE devices d SET version = d.version + 1, updated_at = now(), updated_by = 'bench' FROM i
        WHERE d.tenant_id = i.tenant_id AND d.device_id = i.device_id AND d.version = i.version
        RETURNING i.*
    ), t AS (
        UPDATE trustpoints t SET status = u.status, state = u.state, updated_at = now(), planned_revision = 0
        FROM u WHERE t.tenant_id = u.tenant_id AND t.trustpoint_id = u.trustpoint_id
    ), j AS (
        INSERT INTO jobs (tenant_id, job_id, device_id, trustpoint_id, agent_id, kind, state, requested_by, task, endpoint,
                          deadline, created_at, updated_at)
        SELECT tenant_id, job_id, device_id, trustpoint_id, agent_id, 'kur', 'awaiting_publish', 'bench', task, endpoint,
               deadline, now(), now() FROM u
    ), o AS (
        INSERT INTO outbox (tenant_id, job_id, created_at, endpoint, deadline)
        SELECT tenant_id, job_id, now(), endpoint, deadline FROM u
    ), a AS (
        INSERT INTO audit (tenant_id, at, actor, role, action, object_kind, object_id, detail, outcome, seal)
        SELECT tenant_id, now(), 'bench', 'operator', 'job_requested', 'job', job_id, detail, 'done', sha256(job_id::text::bytea) FROM u
    )
    SELECT count(*) FROM u";

/// Decisions committed in a second by the group commit, and written in a second by plain statements.
pub(super) async fn rates(args: &InsideArgs, backend: &Handle) -> Result<Value, BenchError> {
    let all = devices(args).await?;
    let inner = Inner::start(args, backend)?;
    let mut decided = decisions(&inner, &all).await?;
    let config = Config::load(&args.config).map_err(BenchError::odd("the configuration"))?;
    let mut client = crate::stack::connect(config.database.system_url.expose(), None).await?;
    let statement = client.prepare(SQL).await.map_err(BenchError::sql("preparing the baseline"))?;
    let (mut committed, mut written, mut of) = (Duration::ZERO, Duration::ZERO, (0_usize, 0_usize));
    // In turn, five thousand each, so that both see the same machine and tables of the same size.
    while decided.len() >= 2 * ROWS {
        let take = (decided.len() / 2).min(5 * ROWS) / ROWS * ROWS;
        let part = decided.split_off(decided.len() - take);
        let begin = Instant::now();
        commit(&inner, part).await?;
        committed += begin.elapsed();
        of.0 += take;
        let part = decided.split_off(decided.len() - take);
        for rows in part.chunks(ROWS) {
            written += write(&mut client, &statement, rows).await?;
        }
        of.1 += take;
    }
    let per_s = |count: usize, took: Duration| count as f64 / took.as_secs_f64();
    Ok(json!({ "committed": per_s(of.0, committed), "written": per_s(of.1, written) }))
}

/// An accepted key update of each device.
async fn decisions(inner: &Inner, all: &[(TenantId, DeviceId)]) -> Result<Vec<Decided>, BenchError> {
    let name: TrustpointName = "default".parse().map_err(BenchError::odd("a trustpoint's name"))?;
    let (mut contexts, mut decided) = (HashMap::new(), Vec::with_capacity(all.len()));
    let mut states = Vec::with_capacity(all.len());
    for part in all.chunks(256) {
        states.extend(join_all(part.iter().map(|(tenant, device)| load(inner, *tenant, *device))).await);
    }
    for (number, ((tenant, device), state)) in all.iter().zip(states).enumerate() {
        let (state, now) = (state?, SystemClock.now());
        if !contexts.contains_key(tenant) {
            let context: Result<EnrollContext, DbError> = inner
                .store
                .tenant_tx(*tenant, "bench", async |tx| tx.enrollment_context(*device, &name, None).await)
                .await;
            contexts.insert(*tenant, context.map_err(|error| BenchError::Odd(error.to_string()))?);
        }
        let trustpoint = state.trustpoint(&name).map(|trustpoint| trustpoint.id);
        let (Some(context), Some(trustpoint_id)) = (contexts.get(tenant), trustpoint) else {
            return Err(BenchError::Odd(format!("device {device} has no trustpoint {name}")));
        };
        let mut random = [0; 10];
        random[..8].copy_from_slice(&(number as u64).to_be_bytes());
        let command = Command::Enroll(Box::new(Enroll {
            trustpoint: name.clone(),
            request: RequestKind::Kur,
            job_id: JobId::fresh(now, random),
            request_key: None,
            past_floor: false,
            requested_by: Requester::new("bench", "operator"),
            traceparent: None,
            context: EnrollContext { trustpoint_id, ..context.clone() },
        }));
        let decision = decide(&state, &command, now).map_err(|no| BenchError::Odd(format!("refused: {no}")))?;
        let changes = decision.changes.ok_or_else(|| BenchError::Odd("nothing is to be written".to_owned()))?;
        decided.push(Decided { tenant: *tenant, device: *device, changes });
    }
    Ok(decided)
}

async fn commit(inner: &Inner, part: Vec<Decided>) -> Result<(), BenchError> {
    let waiting = Arc::new(Mutex::new(part));
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let (waiting, commits) = (Arc::clone(&waiting), inner.commits.clone());
        let next = move || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop();
        callers.spawn_on(
            async move {
                while let Some(Decided { tenant, device, changes }) = next() {
                    let committed = commits.commit(tenant, device, changes, Vec::new()).await;
                    committed.map_err(|error| BenchError::Odd(format!("not committed: {error:?}")))?;
                }
                Ok::<_, BenchError>(())
            },
            &inner.backend,
        );
    }
    while let Some(done) = callers.join_next().await {
        done.map_err(BenchError::odd("a caller"))??;
    }
    Ok(())
}

async fn write(client: &mut Client, statement: &Statement, rows: &[Decided]) -> Result<Duration, BenchError> {
    let odd = || BenchError::Odd("a decision without trustpoint or job".to_owned());
    let (mut tenants, mut devices, mut versions, mut trustpoints) = (vec![], vec![], vec![], vec![]);
    let (mut statuses, mut states, mut jobs, mut agents) = (vec![], vec![], vec![], vec![]);
    let (mut tasks, mut endpoints, mut deadlines, mut details) = (vec![], vec![], vec![], vec![]);
    for Decided { tenant, device, changes } in rows {
        let trustpoint = changes.trustpoints.first().and_then(TrustpointChange::written).ok_or_else(odd)?;
        let job = changes.jobs.first().ok_or_else(odd)?;
        let json = |value: serde_json::Result<Value>| value.map_err(BenchError::odd("a row as JSON"));
        tenants.push(tenant.as_uuid());
        devices.push(device.as_uuid());
        versions.push(changes.expected_version());
        trustpoints.push(trustpoint.id.as_uuid());
        statuses.push("requesting");
        states.push(json(
            serde_json::to_value(trustpoint).map(|trustpoint| json!({ "v": 1, "trustpoint": trustpoint })),
        )?);
        jobs.push(job.job_id.as_uuid());
        agents.push(job.agent_id.as_uuid());
        tasks.push(json(serde_json::to_value(&job.task))?);
        endpoints.push(job.endpoint.clone());
        deadlines.push(job.deadline);
        details.push(changes.audit.first().map_or(Value::Null, |line| line.detail.clone()));
    }
    let begin = Instant::now();
    let row = client
        .query_one(
            statement,
            &[
                &tenants,
                &devices,
                &versions,
                &trustpoints,
                &statuses,
                &states,
                &jobs,
                &agents,
                &tasks,
                &endpoints,
                &deadlines,
                &details,
            ],
        )
        .await
        .map_err(BenchError::sql("writing the baseline"))?;
    let took = begin.elapsed();
    let count: i64 = row.get(0);
    if usize::try_from(count).ok() != Some(rows.len()) {
        return Err(BenchError::Odd(format!("{count} rows of {} were written", rows.len())));
    }
    Ok(took)
}
