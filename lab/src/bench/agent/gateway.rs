//! The state folder of an agent that fronts many devices, made out of one that has enrolled one.
//!
//! Every further device gets what the first one has: slots with key, certificate and chain, and the record of the job that
//! enrolled it, signed by the controller's key as a real one. That is the state at the evening of the day on which all
//! were enrolled: records are kept for a day at least. Afterwards an agent has less to remember, never more.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, symlink},
    path::{Path, PathBuf},
};

use aws_lc_rs::rand;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use trustfleet_agent::record::{JobRecord, Outcome, State};
use trustfleet_model::{
    clock::{Clock as _, SystemClock},
    ids::{DeviceId, JobId, TrustpointId},
};
use trustfleet_wire::{
    Envelope,
    sign::{Purpose, SigningKey},
    v1::{Job, Task, ToAgent},
};

use super::super::BenchError;
use crate::house::AgentFiles;

/// What the first device has.
struct Sample {
    record: JobRecord,
    job: Job,
    /// Its version's folder, with key, certificate and chain.
    version: PathBuf,
}

/// A copy of the agent's state with `devices` devices, and its configuration beside it in `dir`. `signing_key`: the
/// controller's, PKCS #8 PEM.
///
/// # Errors
/// The state is not that of an agent with one enrolled device, or the disk's.
pub(super) fn grown(
    one: &AgentFiles,
    dir: &Path,
    signing_key: &Path,
    devices: usize,
) -> Result<AgentFiles, BenchError> {
    let key = controller_key(signing_key)?;
    let sample = Sample::find(&one.state)?;
    let many = AgentFiles { config: dir.join("many.toml"), state: dir.join("many") };
    let failed = |error| BenchError::Io { what: format!("writing {}", many.state.display()), source: error };
    copy_folder(&one.state, &many.state).map_err(failed)?;
    let text = fs::read_to_string(&one.config).map_err(failed)?;
    let moved = text.replace(&one.state.display().to_string(), &many.state.display().to_string());
    fs::write(&many.config, moved).map_err(failed)?;
    for number in 1..devices {
        sample.copy(&many.state, &key, number)?;
    }
    Ok(many)
}

impl Sample {
    /// The record of a job that enrolled and is answered for.
    fn find(state: &Path) -> Result<Self, BenchError> {
        let jobs = state.join("jobs");
        let read = |what: &Path| BenchError::io(format!("reading {}", what.display()));
        for entry in fs::read_dir(&jobs).map_err(read(&jobs))? {
            let path = entry.map_err(read(&jobs))?.path();
            let bytes = fs::read(&path).map_err(read(&path))?;
            let record: JobRecord = serde_json::from_slice(&bytes).map_err(BenchError::odd("a job record"))?;
            let message = record.envelope.peek().map_err(BenchError::odd("the message in a job record"))?;
            let (State::Nothing { outcome: Outcome::Succeeded }, ToAgent::Job(job)) = (&record.state, message) else {
                continue;
            };
            let version = trustpoint(state, &job).join("versions").join(job.job_id.to_string());
            if matches!(job.task, Task::Enroll(_)) && record.reports.is_empty() && version.is_dir() {
                return Ok(Self { record, job: *job, version });
            }
        }
        Err(BenchError::Odd(format!("no job in {} has enrolled and is answered for", jobs.display())))
    }

    fn copy(&self, state: &Path, key: &SigningKey, number: usize) -> Result<(), BenchError> {
        let now = SystemClock.now();
        let job = Job {
            job_id: JobId::fresh(now, random()?),
            device_id: DeviceId::fresh(now, random()?),
            trustpoint_id: TrustpointId::fresh(now, random()?),
            device: format!("{}{number:05}", self.job.device.get(..self.job.device.len() - 5).unwrap_or_default()),
            ..self.job.clone()
        };
        let (id, folder) = (job.job_id, trustpoint(state, &job));
        let envelope = Envelope::seal(&ToAgent::Job(Box::new(job)), Purpose::ToAgent, key);
        let envelope = envelope.map_err(BenchError::odd("a job's message"))?;
        let record = JobRecord { job_id: id, envelope, ..self.record.clone() };
        let json = serde_json::to_vec(&record).map_err(BenchError::odd("a job's record"))?;
        let write = || -> io::Result<()> {
            let path = state.join("jobs").join(format!("{id}.json"));
            fs::write(&path, json)?;
            let version = Path::new("versions").join(id.to_string());
            copy_folder(&self.version, &folder.join(&version))?;
            symlink(&version, folder.join("current"))
        };
        write().map_err(BenchError::io(format!("writing the state of device {number}")))
    }
}

fn trustpoint(state: &Path, job: &Job) -> PathBuf {
    state.join("devices").join(&job.device).join(&job.trustpoint)
}

/// With all below it; permissions and links stay as they are.
fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (kind, target) = (entry.file_type()?, to.join(entry.file_name()));
        if kind.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else if kind.is_symlink() {
            symlink(fs::read_link(entry.path())?, &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

fn controller_key(path: &Path) -> Result<SigningKey, BenchError> {
    let text = fs::read_to_string(path).map_err(BenchError::io(format!("reading {}", path.display())))?;
    let base64: String = text.lines().filter(|line| !line.starts_with("-----")).collect();
    let der = STANDARD.decode(base64).map_err(BenchError::odd("the controller's signing key"))?;
    SigningKey::from_pkcs8(&der).map_err(BenchError::odd("the controller's signing key"))
}

fn random() -> Result<[u8; 10], BenchError> {
    let mut bytes = [0; 10];
    rand::fill(&mut bytes).map_err(|_| BenchError::Odd("the system's random source failed".to_owned()))?;
    Ok(bytes)
}
