//! Device actors: what they weigh, and how fast they are loaded.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use actix::{Actor, Addr, Context};
use serde_json::{Value, json};
use tokio::runtime::Handle;
use trustfleet_controller::{
    actors::Registry,
    device::{Activate, Command, DeviceState, Requester},
    error::AppError,
};
use trustfleet_model::ids::{DeviceId, JobId, TenantId};
use uuid::Uuid;

use super::{Inner, InsideArgs, devices};
use crate::bench::{BenchError, process::resident_bytes};

/// Commands on their way at a time.
const AT_ONCE: usize = 256;
/// Ids in one statement of the baseline.
const ROWS_AT_ONCE: usize = 1_000;
/// Long enough for whatever was needed on the way to be given back.
const REST: Duration = Duration::from_secs(3);

/// Bytes of resident memory for each device actor beyond the first.
pub(super) async fn memory(args: &InsideArgs, backend: &Handle) -> Result<Value, BenchError> {
    let all = devices(args).await?;
    let inner = Inner::start(args, backend)?;
    // The first thousand make connections, statements and buffers, which are no actor's.
    let (warm, rest) = all.split_at(all.len().min(1_000));
    wake(&inner.registry, warm).await?;
    tokio::time::sleep(REST).await;
    let before = resident_bytes(std::process::id())?;
    wake(&inner.registry, rest).await?;
    tokio::time::sleep(REST).await;
    let bytes = (resident_bytes(std::process::id())? - before) / rest.len().max(1) as f64;
    let actors = inner.registry.len();
    if actors != all.len() {
        return Err(BenchError::Odd(format!("{actors} actors of {} are there", all.len())));
    }
    Ok(json!({ "bytes": bytes }))
}

/// An actor that holds a state and does nothing.
struct Bare {
    _state: DeviceState,
}

impl Actor for Bare {
    type Context = Context<Self>;
}

/// Bytes of resident memory for each actor that holds a clone of one device's state.
pub(super) async fn bare_memory(args: &InsideArgs, backend: &Handle) -> Result<Value, BenchError> {
    let (tenant, device) = devices(&InsideArgs { count: 1, ..args.clone() }).await?.remove(0);
    let inner = Inner::start(args, backend)?;
    let state = load(&inner, tenant, device).await?;
    let arbiter = actix::Arbiter::new();
    let start = |count: u32| -> Vec<Addr<Bare>> {
        let one = || {
            let state = state.clone();
            Bare::start_in_arbiter(&arbiter.handle(), |_| Bare { _state: state })
        };
        (0..count).map(|_| one()).collect()
    };
    let warm = start(1_000.min(args.count));
    tokio::time::sleep(REST).await;
    let before = resident_bytes(std::process::id())?;
    let rest = start(args.count - u32::try_from(warm.len()).unwrap_or(args.count));
    tokio::time::sleep(REST).await;
    let bytes = (resident_bytes(std::process::id())? - before) / rest.len().max(1) as f64;
    if warm.iter().chain(&rest).any(|actor| !actor.connected()) {
        return Err(BenchError::Odd("a bare actor has ended".to_owned()));
    }
    Ok(json!({ "bytes": bytes }))
}

/// Actors loaded and started in a second, and rows read in a second by the same ids.
pub(super) async fn activation(args: &InsideArgs, backend: &Handle) -> Result<Value, BenchError> {
    let all = devices(args).await?;
    let inner = Inner::start(args, backend)?;
    let client = crate::stack::connect(&args.database, None).await?;
    // What lies on the disk is fetched before either is measured.
    read(&client, &all).await?;
    let (mut loaded, mut rows) = (Duration::ZERO, Duration::ZERO);
    for part in all.chunks(10_000) {
        let begin = Instant::now();
        read(&client, part).await?;
        rows += begin.elapsed();
        let begin = Instant::now();
        wake(&inner.registry, part).await?;
        loaded += begin.elapsed();
    }
    let actors = inner.registry.len();
    if actors != all.len() {
        return Err(BenchError::Odd(format!("{actors} actors of {} are there", all.len())));
    }
    let per_s = |took: Duration| all.len() as f64 / took.as_secs_f64();
    Ok(json!({ "loaded": per_s(loaded), "rows": per_s(rows) }))
}

/// Gives every device a command that it refuses after it has looked at its state.
async fn wake(registry: &Registry, all: &[(TenantId, DeviceId)]) -> Result<(), BenchError> {
    let (all, command): (Arc<[_]>, _) = (all.into(), refused_command()?);
    let next = Arc::new(AtomicUsize::new(0));
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..AT_ONCE {
        let (registry, all, next, command) = (registry.clone(), Arc::clone(&all), Arc::clone(&next), command.clone());
        asking.spawn(async move {
            while let Some((tenant, device)) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                match registry.ask(*tenant, *device, command.clone()).await {
                    Err(AppError::Rejected(_)) => {}
                    other => return Err(BenchError::Odd(format!("device {device} answers {other:?}"))),
                }
            }
            Ok(())
        });
    }
    while let Some(done) = asking.join_next().await {
        done.map_err(BenchError::odd("a task of the load"))??;
    }
    Ok(())
}

/// To put into use what is staged on a trustpoint that the device has not.
fn refused_command() -> Result<Command, BenchError> {
    Ok(Command::Activate(Activate {
        trustpoint: "none".parse().map_err(BenchError::odd("a trustpoint's name"))?,
        replaced_is_revoked: false,
        job_id: JobId::from(Uuid::nil()),
        requested_by: Requester::controller(),
        traceparent: None,
    }))
}

/// The rows that a device is made of, by ids, as a plain statement reads them.
async fn read(client: &tokio_postgres::Client, all: &[(TenantId, DeviceId)]) -> Result<(), BenchError> {
    let sql = "SELECT d.device_id, d.name, d.agent_id, d.serial, d.mac, d.labels, d.pair, d.standby, d.version,
                   t.trustpoint_id, t.state
               FROM unnest($1::uuid[], $2::uuid[]) AS i(tenant_id, device_id)
               JOIN devices d USING (tenant_id, device_id) JOIN trustpoints t USING (tenant_id, device_id)";
    let statement = client.prepare(sql).await.map_err(BenchError::sql("reading devices"))?;
    for part in all.chunks(ROWS_AT_ONCE) {
        let tenants: Vec<Uuid> = part.iter().map(|(tenant, _)| tenant.as_uuid()).collect();
        let devices: Vec<Uuid> = part.iter().map(|(_, device)| device.as_uuid()).collect();
        let rows = client.query(&statement, &[&tenants, &devices]).await.map_err(BenchError::sql("reading devices"))?;
        if rows.len() != part.len() {
            return Err(BenchError::Odd(format!("{} rows of {}", rows.len(), part.len())));
        }
    }
    Ok(())
}

/// A device as its actor loads it.
pub(super) async fn load(inner: &Inner, tenant: TenantId, device: DeviceId) -> Result<DeviceState, BenchError> {
    inner.load.load(tenant, device).await.map_err(|error| BenchError::Odd(error.to_string()))
}
