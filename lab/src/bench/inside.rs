//! What is measured of the controller from the inside: its own library in a process of its own, started by a benchmark.
//!
//! A process for each figure, because memory and threads of one would be in the figures of the next; the library as it is,
//! over its public surface, because what is measured is what runs. It prints one line of JSON and ends.

mod actors;
mod bare;
mod commit;

use std::{
    io,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use serde_json::Value;
use tokio::{runtime::Handle, sync::Notify};
use tokio_util::sync::CancellationToken;
use trustfleet_controller::{
    actors::{ActorThreads, Registry},
    audit::Sealer,
    commit::CommitHandle,
    config::Config,
    db::Store,
    keys::Keys,
    load::LoadHandle,
    metrics::Metrics,
};
use trustfleet_model::{
    clock::SystemClock,
    ids::{DeviceId, TenantId},
};
use url::Url;

use super::BenchError;
use crate::testkit::command;

/// Arguments of the hidden verb.
#[derive(Clone, Debug, clap::Args)]
pub struct InsideArgs {
    /// What is measured
    #[arg(value_enum)]
    what: What,
    /// The controller's configuration
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The database as its superuser
    #[arg(long, value_name = "URL")]
    database: Url,
    /// How many
    #[arg(long, default_value_t = 1)]
    count: u32,
    /// Devices to leave out: earlier runs have changed them
    #[arg(long, default_value_t = 0)]
    skip: u32,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum What {
    /// Memory of device actors.
    Actors,
    /// Memory of actors that hold a clone of one device's state and do nothing.
    BareActors,
    /// Device actors loaded in a second, beside rows read in a second.
    Activate,
    /// Decisions committed in a second, beside rows written in a second.
    Commit,
    /// An HTTP server that reads a trustpoint and does nothing else.
    BareRead,
}

/// Measures in a process of its own and returns what it says.
///
/// # Errors
/// It fails.
pub(crate) fn ask(what: &str, config: &Path, database: &Url, count: u32, skip: u32) -> Result<Value, BenchError> {
    let mut inside = command("trustfleet-lab")?;
    inside.args(["bench-inside", what, "--config"]).arg(config).args(["--database", database.as_str()]);
    inside.args(["--count", &count.to_string(), "--skip", &skip.to_string()]);
    let output = inside.output().map_err(BenchError::io("starting trustfleet-lab bench-inside"))?;
    if !output.status.success() {
        return Err(BenchError::Odd(format!(
            "bench-inside {what}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )));
    }
    serde_json::from_slice(&output.stdout).map_err(BenchError::odd("what bench-inside says"))
}

/// A number of what [`ask`] returned.
///
/// # Errors
/// It is not there.
pub(crate) fn number(said: &Value, name: &str) -> Result<f64, BenchError> {
    said[name].as_f64().ok_or_else(|| BenchError::Odd(format!("bench-inside says nothing of {name}: {said}")))
}

/// Does it, on an actix system of its own thread; its exit code.
pub async fn run(args: InsideArgs) -> ExitCode {
    let measured = tokio::task::spawn_blocking(move || {
        let thread = std::thread::spawn(move || {
            // As the controller makes it, and ended outside of what it must not be ended in.
            let backend = tokio::runtime::Builder::new_multi_thread().enable_all().build();
            let backend = backend.map_err(BenchError::io("starting threads"))?;
            let measured = actix::System::new().block_on(measure(args, backend.handle().clone()));
            backend.shutdown_background();
            measured
        });
        thread.join().unwrap_or_else(|_| Err(BenchError::Odd("the thread died".to_owned())))
    });
    match measured.await.unwrap_or_else(|error| Err(BenchError::Odd(error.to_string()))) {
        Ok(said) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{}", error.chain());
            ExitCode::FAILURE
        }
    }
}

async fn measure(args: InsideArgs, backend: Handle) -> Result<Value, BenchError> {
    match args.what {
        What::Actors => actors::memory(&args, &backend).await,
        What::BareActors => actors::bare_memory(&args, &backend).await,
        What::Activate => actors::activation(&args, &backend).await,
        What::Commit => commit::rates(&args, &backend).await,
        What::BareRead => bare::serve(&args).await,
    }
}

/// The parts of the controller that hold and change devices, without those that run by themselves.
struct Inner {
    store: Store,
    load: LoadHandle,
    commits: CommitHandle,
    registry: Registry,
    // Dropped last.
    _threads: ActorThreads,
    backend: Handle,
}

impl Inner {
    fn start(args: &InsideArgs, backend: &Handle) -> Result<Self, BenchError> {
        let wrong = BenchError::odd;
        let config = Config::load(&args.config).map_err(wrong("the configuration"))?;
        let keys = Keys::load(&config.keys).map_err(|error| BenchError::Odd(error.to_string()))?;
        let metrics =
            Arc::new(Metrics::new(config.metrics.tenants_max).map_err(|error| BenchError::Odd(error.to_string()))?);
        let sealer = Sealer::new(&keys.signing).map_err(|error| BenchError::Odd(error.to_string()))?;
        let store = Store::new(&config.database, None, backend, Arc::clone(&metrics), sealer)
            .map_err(|error| BenchError::Odd(error.to_string()))?;
        let (commits, _) = CommitHandle::start(
            backend,
            store.clone(),
            Arc::clone(&metrics),
            Arc::new(Notify::new()),
            CancellationToken::new(),
        );
        let load = LoadHandle::start(backend, store.clone());
        // Nothing of it may be dropped from memory while it is counted.
        let mut actors = config.actors.clone();
        actors.idle_s = 86_400;
        let threads = ActorThreads::start(&actors);
        let clock = Arc::new(SystemClock);
        let registry = Registry::new(&threads, store.clone(), (load.clone(), commits.clone()), clock, metrics, actors);
        Ok(Self { store, load, commits, registry, _threads: threads, backend: backend.clone() })
    }
}

/// So many devices in an order that has nothing to do with how they lie in the database, the same for every process.
async fn devices(args: &InsideArgs) -> Result<Vec<(TenantId, DeviceId)>, BenchError> {
    let client = crate::stack::connect(&args.database, None).await?;
    let sql = "SELECT tenant_id::text, device_id::text FROM devices WHERE name <> $3 ORDER BY md5(device_id::text) LIMIT $1 OFFSET $2";
    let (count, skip) = (i64::from(args.count), i64::from(args.skip));
    let rows = client
        .query(sql, &[&count, &skip, &super::fleet::FIRST_DEVICE])
        .await
        .map_err(BenchError::sql("looking for devices"))?;
    if rows.len() != args.count as usize {
        return Err(BenchError::Odd(format!("there are only {} devices", rows.len())));
    }
    let id = |text: &str| text.parse::<uuid::Uuid>().map_err(|error| io::Error::other(error.to_string()));
    rows.iter()
        .map(|row| {
            let (tenant, device): (String, String) = (row.get(0), row.get(1));
            Ok((id(&tenant)?.into(), id(&device)?.into()))
        })
        .collect::<io::Result<_>>()
        .map_err(BenchError::io("reading ids"))
}
