//! A process with many real agents: each with its state folder, its keys and its connection, on one runtime.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinSet,
    time::sleep,
};
use trustfleet_agent::{config::Config, core, keys::KeyStore, run::run_until};
use trustfleet_cmp::key::KeyType;

use super::{gate::Chance, keys::Pool};

/// Arguments of the hidden verb.
#[derive(Clone, Debug, clap::Args)]
pub struct PartArgs {
    /// Folder with the agents' configurations
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Number of the first agent
    #[arg(long)]
    first: u32,
    /// How many agents
    #[arg(long)]
    count: u32,
    /// Each starts at some moment within so many seconds
    #[arg(long, default_value_t = 0.0)]
    start_within_s: f64,
    /// An agent is cut off and comes back once in about so many seconds; 0: never
    #[arg(long, default_value_t = 0.0)]
    restart_every_s: f64,
    /// Keys made beforehand
    #[arg(long, default_value_t = 0)]
    ready_keys: usize,
    /// Kind of them
    #[arg(long, default_value = "ecdsa-p256")]
    key_algorithm: String,
    /// All chances follow from it
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

/// Name of an agent.
pub(super) fn agent_name(number: u32) -> String {
    format!("agent-{number:05}")
}

/// The kind of key of a policy's word, as far as keys are made beforehand here.
pub(super) fn key_type(word: &str) -> Option<KeyType> {
    match word {
        "ecdsa-p256" => Some(KeyType::P256),
        "ecdsa-p384" => Some(KeyType::P384),
        "rsa-2048" => Some(KeyType::Rsa2048),
        _ => None,
    }
}

/// Runs the agents until SIGTERM; the exit code says whether all of them ran until then.
pub async fn run(args: PartArgs) -> ExitCode {
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        eprintln!("fleet-part: signals cannot be listened for");
        return ExitCode::FAILURE;
    };
    let pool: Option<Arc<dyn KeyStore>> = match key_type(&args.key_algorithm).filter(|_| args.ready_keys > 0) {
        Some(key_type) => match Pool::make(key_type, args.ready_keys) {
            Ok(pool) => Some(pool),
            Err(error) => {
                eprintln!("fleet-part: keys cannot be made: {error}");
                return ExitCode::FAILURE;
            }
        },
        None => None,
    };
    println!("fleet-part: ready");
    let (stop, stopping) = watch::channel(false);
    let chance = Arc::new(Chance::new(args.seed ^ u64::from(args.first)));
    let restarts = Arc::new(AtomicU64::new(0));
    let mut agents = JoinSet::new();
    for number in args.first..args.first + args.count {
        let config = args.dir.join(format!("{}.toml", agent_name(number)));
        let faults = Faults {
            start_within: Duration::from_secs_f64(args.start_within_s.max(0.0)),
            restart_every: (args.restart_every_s > 0.0).then(|| Duration::from_secs_f64(args.restart_every_s)),
        };
        let (pool, stopping, chance, restarts) =
            (pool.clone(), stopping.clone(), Arc::clone(&chance), Arc::clone(&restarts));
        agents.spawn(async move { live(&config, pool, faults, &chance, &restarts, stopping).await });
    }
    let mut failed = false;
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            Some(ended) = agents.join_next() => {
                if let Ok(Err(why)) = ended {
                    eprintln!("fleet-part: {why}");
                    failed = true;
                }
            }
        }
    }
    let _ = stop.send(true);
    while agents.join_next().await.is_some() {}
    println!("{}", serde_json::json!({ "restarts": restarts.load(Ordering::Relaxed) }));
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// What goes wrong with an agent.
#[derive(Clone, Copy)]
struct Faults {
    start_within: Duration,
    restart_every: Option<Duration>,
}

/// One agent's life: with pauses in which it is cut off, until all shall stop.
async fn live(
    path: &Path,
    pool: Option<Arc<dyn KeyStore>>,
    faults: Faults,
    chance: &Chance,
    restarts: &AtomicU64,
    stopping: watch::Receiver<bool>,
) -> Result<(), String> {
    let wrong = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let config = Config::load(path).map_err(|error| wrong(&error))?;
    tokio::select! {
        () = sleep(chance.within(faults.start_within)) => {}
        () = core::stopping(&stopping) => return Ok(()),
    }
    loop {
        let (stop, told) = watch::channel(false);
        let running = run_until(config.clone(), pool.clone(), told);
        tokio::pin!(running);
        let away = async {
            match faults.restart_every {
                Some(every) => sleep(chance.within(every * 2)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            ended = &mut running => return ended.map_err(|error| wrong(&error)),
            () = core::stopping(&stopping) => {
                let _ = stop.send(true);
                return running.await.map_err(|error| wrong(&error));
            }
            () = away => {
                let _ = stop.send(true);
                running.await.map_err(|error| wrong(&error))?;
                restarts.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}
