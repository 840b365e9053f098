//! What a change of a policy would do, asked of a tenant whose policy has many trustpoints.

use std::{
    fs,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::json;

use super::{
    BenchError,
    harness::Harness,
    spec::{Limit, Pace, Spec},
};
use crate::{
    house::{Fleet, House},
    stack::{Stack, StackOptions, with_database},
};

/// The benchmarks of this group.
pub(crate) const SPECS: &[Spec] = &[Spec {
    id: "policy.dry_run",
    what: "the answer to a dry run of a policy's change over 10,000 trustpoints with certificates in use",
    beside: "absolute",
    unit: "s",
    limits: &[Limit::at_most(2.0)],
    pace: Pace::Look,
}];

const DEVICE: &str = "ap-0001.building-07.berlin.x";
const ENROL_LIMIT: Duration = Duration::from_secs(60);

/// Measures it.
///
/// # Errors
/// The system does not come up.
pub(crate) async fn run(harness: &mut Harness) -> Result<(), BenchError> {
    harness.say("starting a private PostgreSQL and RabbitMQ, a controller, the lab CA and an agent");
    let stack = Stack::start(StackOptions { fsync: true, ..StackOptions::default() }).await?;
    let result = with_stack(harness, &stack).await;
    stack.stop().await;
    result
}

async fn with_stack(harness: &mut Harness, stack: &Stack) -> Result<(), BenchError> {
    let dir = stack.env().dir.join("bench");
    fs::create_dir_all(&dir).map_err(BenchError::io(format!("making {}", dir.display())))?;
    let house = House::start(&dir, stack.env()).await?;
    let policy = json!({ "key": { "algorithm": "ecdsa-p256" }, "auto_update": { "enabled": true } });
    let fleet = Fleet::create(&house, &[DEVICE], &policy).await?;
    let _agent = fleet.start_agent("ap-1").await?;
    fleet.add_device(DEVICE, "ap-1")?;
    fleet.enrolled(DEVICE, &fleet.enroll(DEVICE, "ir")?, ENROL_LIMIT).await?;

    let trustpoints = harness.size(10_000, 1_000);
    harness.say(format_args!("policy.dry_run: making {trustpoints} trustpoints like the enrolled one"));
    multiply(stack, trustpoints)?;
    let change =
        json!({ "key": { "algorithm": "ecdsa-p384" }, "auto_update": { "enabled": true, "elapsed_percent": 60 } });
    harness
        .values("policy.dry_run", async || {
            let begin = Instant::now();
            let said = fleet.post("policies/default/dry-run", &change)?;
            let took = begin.elapsed().as_secs_f64();
            let moved = said["renewals"]["later"].as_u64().unwrap_or(0);
            if said["trustpoints"] != json!(trustpoints) || moved == 0 {
                return Err(BenchError::Odd(format!("the dry run says: {said}")));
            }
            Ok(took)
        })
        .await;
    Ok(())
}

/// Copies the one device with its trustpoint until there are so many.
fn multiply(stack: &Stack, trustpoints: usize) -> Result<(), BenchError> {
    let sql = format!(
        "WITH made AS MATERIALIZED (
             SELECT n, gen_random_uuid() AS device_id, gen_random_uuid() AS trustpoint_id FROM generate_series(2, {trustpoints}) n
         ), devices_made AS (
             INSERT INTO devices (tenant_id, device_id, name, agent_id, labels, shard, version, created_at, updated_at, updated_by)
             SELECT d.tenant_id, m.device_id, 'ap-' || m.n, d.agent_id, d.labels, 0, 1, now(), now(), 'bench' FROM devices d, made m
             RETURNING device_id
         )
         INSERT INTO trustpoints (tenant_id, trustpoint_id, device_id, name, entity_id, ca_server_id, policy_id, status, not_after,
                                  state, updated_at)
         SELECT t.tenant_id, m.trustpoint_id, m.device_id, t.name, t.entity_id, t.ca_server_id, t.policy_id, t.status, t.not_after,
                jsonb_set(t.state, '{{trustpoint,id}}', to_jsonb(m.trustpoint_id)), now()
         FROM trustpoints t, made m;
         ANALYZE;"
    );
    let mut psql = Command::new("psql");
    let database = with_database(&stack.env().pg_admin_url, stack.env().db_owner_url.path().trim_start_matches('/'));
    psql.arg(database.as_str()).args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-c", &sql]).stdin(Stdio::null());
    let output = psql.output().map_err(BenchError::io("running psql"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(BenchError::Odd(format!("psql: {}", String::from_utf8_lossy(&output.stderr))))
}
