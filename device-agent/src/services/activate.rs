//! A certificate given to its services: link, copies, reload, probe; and the way back when one does not take it.
//!
//! Every step can be repeated. Before the first change stands a journal of what was there ([`super::journal`]); where the
//! agent dies it goes on by it, and comes to the same end. The journal goes when the end is in the job's record.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::sleep;
use trustfleet_model::ids::JobId;
use trustfleet_model::job::Culprit;
use trustfleet_model::service::ServiceResult;
use trustfleet_wire::v1::{Failed, InService, InUse, Job, ServiceOutcome};

use super::Held;
use super::act::step;
use super::config::Service;
use super::disk::{of_services, put_back, swap, wanted, write_copies, written};
use super::export::{self, Before};
use super::journal::{Failure, Journal, Phase};
use super::material::Material;
use crate::activation::ActivationError;
use crate::backoff::Backoff;
use crate::core::Core;
use crate::exchange::{Halt, blocking};
use crate::order::Place;
use crate::outcome;
use crate::slots::{Slot, Slots};
use crate::store::StoreError;

/// Waits between tries to put copies back.
const RESTORE_AGAIN: Backoff = Backoff { first: Duration::from_millis(200), most: Duration::from_secs(2) };
/// Most tries to put copies back: their places belong to others, and the failure must be told.
const RESTORE_TRIES: u32 = 4;
/// Most files that warnings speak of.
const WARNINGS_MAX: usize = 16;
/// Waits between tries to write what is the agent's own while the disk refuses.
const BACK_AGAIN: Backoff = Backoff { first: Duration::from_secs(2), most: Duration::from_secs(120) };

/// What is given to whom.
pub struct Giving<'a> {
    /// The agent.
    pub core: &'a Core,
    /// The job.
    pub job_id: JobId,
    /// Its trustpoint.
    pub place: &'a Place,
    /// Serial number of the certificate, upper-case hex.
    pub serial: String,
    /// Names of the services.
    pub services: Vec<String>,
    /// The CA has revoked the certificate that is replaced.
    pub replaced_is_revoked: bool,
}

/// How it ended.
pub enum Given {
    /// The certificate is in use.
    InUse {
        /// Its file.
        file: String,
        /// What became of the services.
        in_service: Box<InService>,
    },
    /// A service did not take it.
    Failed(Box<Failed>),
}

impl Giving<'_> {
    /// Gives the certificate to its services, from the beginning or from where it was cut off. Afterwards
    /// [`Giving::told`] must be called, when the end is in the job's record.
    ///
    /// # Errors
    /// The agent is stopping, or nothing was changed and the job has failed.
    pub async fn give(&self) -> Result<Given, Halt> {
        let slots = self.slots();
        let found = blocking(move || Journal::load(&slots)).await?.map_err(|error| outcome::of_store(&error, false))?;
        let mut journal = match found {
            Some(journal) if journal.job_id == self.job_id => journal,
            other => {
                if let Some(former) = other {
                    self.clear(former).await?;
                }
                let unknown = self.core.services.unknown(&self.services);
                if !unknown.is_empty() {
                    return Err(self.unknown(&unknown).into());
                }
                let held = self.held(&self.services).await?;
                let begun = self.begin(&held).await?;
                drop(held);
                begun
            }
        };
        let held = self.held(&journal.services).await?;
        loop {
            journal.phase = match journal.phase.clone() {
                Phase::Changing => self.change(&journal, &held).await?,
                Phase::GoingBack { failure } => self.go_back(&journal, &held, failure).await?,
                Phase::Ended { failure, in_service } => return self.end(&journal, failure, in_service),
            };
            if matches!(journal.phase, Phase::Ended { .. }) {
                // There is no way back any more, and no need to keep what was there: keys among other things.
                journal.before.clear();
            }
            self.save(&journal).await?;
        }
    }

    /// The end is in the job's record: the journal goes.
    pub async fn told(&self) {
        let slots = self.slots();
        if let Ok(Err(error)) = blocking(move || Journal::remove(&slots)).await {
            tracing::warn!(job.id = %self.job_id, %error, "the journal of an activation is not removed");
        }
    }

    fn slots(&self) -> Slots {
        self.core.slots(self.place)
    }

    fn unknown(&self, unknown: &[String]) -> Box<Failed> {
        let (known, names) = (self.core.services.names(), unknown.join(", "));
        let message = format!(
            "the agent's configuration has no service {names}; it has: {known}. Nothing was changed, the certificate stays \
             staged: add [services.{}] on the device, or bind the trustpoint to other services, then activate again",
            unknown.first().map_or("NAME", String::as_str)
        );
        let mut failed = outcome::failed(Culprit::Device, "service_unknown", &message, false);
        failed.in_service = Some(Box::default());
        failed
    }

    pub(super) async fn held(&self, names: &[String]) -> Result<Held, Halt> {
        tokio::select! {
            held = self.core.services.hold(names) => Ok(held),
            () = self.core.stopping() => Err(Halt::Stopping),
        }
    }

    /// What an earlier job has left behind: ended, or cut off for good because its record is lost.
    async fn clear(&self, mut former: Journal) -> Result<(), Halt> {
        if !matches!(former.phase, Phase::Ended { .. }) {
            tracing::warn!(job.id = %former.job_id, "an earlier activation was never finished; what it changed goes back");
            let failure = Failure {
                code: "activation_lost".to_owned(),
                message: "the activation was cut off".to_owned(),
                done: InService::default(),
                kept: false,
            };
            let held = self.held(&former.services).await?;
            former.phase = self.go_back(&former, &held, failure).await?;
        }
        let slots = self.slots();
        blocking(move || Journal::remove(&slots)).await?.map_err(|error| outcome::of_store(&error, false))?;
        Ok(())
    }

    /// Looks at everything and writes the journal; nothing else is changed.
    async fn begin(&self, held: &Held) -> Result<Journal, Halt> {
        let (slots, serial, place) = (self.slots(), self.serial.clone(), self.place.clone());
        let (job_id, names, services) = (self.job_id, self.services.clone(), held.services.clone());
        let begun = blocking(move || -> Result<Journal, ActivationError> {
            let to = wanted(&slots, &serial)?;
            let mut journal = Journal::begin(job_id, serial, to, &slots, names);
            journal.written = written(&slots)?;
            journal.warnings = export::disturbed(&of_services(&journal.written, &services));
            journal.warnings.truncate(WARNINGS_MAX);
            let slot = if journal.was_staged { Slot::Staged } else { Slot::Current };
            let material = Material::read(&slots, slot)?;
            let mut places: Vec<PathBuf> = Vec::new();
            for service in &services {
                // What cannot be rendered is found again, and told, when it is to be written.
                let copies = export::copies(service, &place, &material, &journal.written).unwrap_or_default();
                places.extend(copies.into_iter().map(|copy| copy.path));
            }
            places.extend(of_services(&journal.written, &services).into_iter().map(|file| file.path));
            places.sort();
            places.dedup();
            journal.before =
                places.iter().map(|path| export::before(path)).collect::<Result<Vec<Before>, StoreError>>()?;
            journal.save(&slots)?;
            Ok(journal)
        });
        Ok(begun.await?.map_err(|error| error.failed())?)
    }

    async fn save(&self, journal: &Journal) -> Result<(), Halt> {
        let journal = journal.clone();
        self.until_the_disk_takes_it(move |slots| journal.save(slots)).await
    }

    /// Link, copies, reload, probe. Gives the phase that follows.
    async fn change(&self, journal: &Journal, held: &Held) -> Result<Phase, Halt> {
        let keep = self.replaced_is_revoked && journal.current.is_some_and(|current| current != journal.to);
        let mut done = InService { warnings: journal.warnings.clone(), ..InService::default() };
        let mut failure: Option<(&'static str, String)> = None;
        let mut without_copies = None;
        let swapped = {
            let (slots, journal) = (self.slots(), journal.clone());
            blocking(move || swap(&slots, &journal)).await?
        };
        if let Err(error) = swapped {
            failure = Some((error.code(), format!("the certificate could not be put into use: {error}")));
        }
        if failure.is_none()
            && let Some((service, message)) = self.export(journal, held, &mut done).await?
        {
            done.services.push(outcome_of(&service, ServiceResult::Failed));
            without_copies = Some(service);
            failure = Some(("export_failed", message));
        }
        for service in &held.services {
            if failure.is_some() && !keep {
                break;
            }
            if without_copies.as_ref().is_some_and(|without| without.name == service.name) {
                continue;
            }
            let result = match self.reload_and_probe(service, &mut done).await? {
                Ok(result) => result,
                Err(told) => {
                    failure.get_or_insert(told);
                    ServiceResult::Failed
                }
            };
            done.services.push(outcome_of(service, result));
        }
        Ok(match failure {
            None => Phase::Ended { failure: None, in_service: done },
            Some((code, message)) => {
                let failure = Failure { code: code.to_owned(), message, done: done.clone(), kept: keep };
                if keep {
                    Phase::Ended { failure: Some(failure), in_service: done }
                } else {
                    Phase::GoingBack { failure }
                }
            }
        })
    }

    /// Copies for all services; gives the one that has none.
    async fn export(
        &self,
        journal: &Journal,
        held: &Held,
        done: &mut InService,
    ) -> Result<Option<(Arc<Service>, String)>, Halt> {
        for service in held.services.iter().filter(|service| !service.exports.is_empty()) {
            let begun = Instant::now();
            let (store, place, service_of) = (self.core.store.clone(), self.place.clone(), Arc::clone(service));
            let written_before = journal.written.clone();
            let exported = blocking(move || write_copies(&store, &place, &service_of, &written_before)).await?;
            let failed = exported.as_ref().err().cloned();
            let detail = exported.map_or_else(|error| error, |count| format!("{count} files"));
            done.steps.push(step(service, "export", failed.is_none(), begun, detail));
            if let Some(error) = failed {
                let message = format!("the copies for the service {} could not be written: {error}", service.name);
                return Ok(Some((Arc::clone(service), message)));
            }
        }
        Ok(None)
    }

    /// Links and copies as they were, and the services reloaded. Gives the phase that follows: the end.
    async fn go_back(&self, journal: &Journal, held: &Held, failure: Failure) -> Result<Phase, Halt> {
        let mut done = failure.done.clone();
        let begun = Instant::now();
        let back = journal.clone();
        self.until_the_disk_takes_it(move |slots| put_back(slots, &back)).await?;
        let restored = self.restore(journal).await?;
        for service in held.services.iter().filter(|service| !service.exports.is_empty()) {
            let detail = restored.clone().err().unwrap_or_default();
            done.steps.push(step(service, "restore", restored.is_ok(), begun, detail));
        }
        let reloaded = |service: &Service| {
            failure.done.steps.iter().any(|step| step.service == service.name.as_str() && step.step == "reload")
        };
        for service in held.services.iter().filter(|service| reloaded(service)) {
            // A service that does not come back by its own command is told of, and nothing more can be done here.
            let _ = self.reload(service, "reload_former", &mut done).await?;
        }
        Ok(Phase::Ended { failure: Some(failure), in_service: done })
    }

    /// The copies as they were. Somebody may have taken their folders away meanwhile: then what is wrong.
    async fn restore(&self, journal: &Journal) -> Result<Result<(), String>, Halt> {
        let mut failures = 0_u32;
        loop {
            let before = journal.before.clone();
            let Err(error) = blocking(move || export::restore(&before)).await? else { return Ok(Ok(())) };
            failures = failures.saturating_add(1);
            if failures == RESTORE_TRIES {
                return Ok(Err(format!("the copies are not what they were: {error}")));
            }
            tokio::select! {
                () = sleep(RESTORE_AGAIN.wait(failures, self.core.identity.random_u64())) => {}
                () = self.core.stopping() => return Err(Halt::Stopping),
            }
        }
    }

    fn end(&self, journal: &Journal, failure: Option<Failure>, in_service: InService) -> Result<Given, Halt> {
        let file = self.slots().certificate(Slot::Current).map_err(|error| outcome::of_store(&error, false))?;
        let file = file.map(|(_, file)| file.display().to_string()).unwrap_or_default();
        let Some(failure) = failure else { return Ok(Given::InUse { file, in_service: Box::new(in_service) }) };
        let lost = in_service.steps.iter().find(|step| step.step == "restore" && !step.ok);
        let next = if let Some(lost) = lost {
            &format!("{}; the new certificate stays staged: mend this on the device, then activate again", lost.detail)
        } else if failure.kept {
            "the new certificate stays in use nevertheless, because the CA has revoked the one before: mend the service on the \
             device, then activate again"
        } else if journal.was_staged {
            "everything is as it was, and the new certificate stays staged: mend the service on the device, then activate again"
        } else {
            "the copies are as they were: mend the service on the device, then activate again"
        };
        let message = format!("{}; {next}", failure.message);
        let mut failed = outcome::failed(Culprit::Device, &failure.code, &message, false);
        failed.in_use = failure.kept.then(|| InUse { serial: journal.serial.clone(), file });
        failed.in_service = Some(Box::new(in_service));
        Ok(Given::Failed(failed))
    }

    /// What must not be left half done: tried until the disk takes it.
    async fn until_the_disk_takes_it(
        &self,
        work: impl Fn(&Slots) -> Result<(), StoreError> + Clone + Send + 'static,
    ) -> Result<(), Halt> {
        let mut failures = 0_u32;
        loop {
            let (slots, work) = (self.slots(), work.clone());
            let Err(error) = blocking(move || work(&slots)).await? else { return Ok(()) };
            failures = failures.saturating_add(1);
            let wait = BACK_AGAIN.wait(failures, self.core.identity.random_u64());
            tracing::error!(job.id = %self.job_id, %error, wait_s = wait.as_secs(), "an activation waits for the disk");
            tokio::select! {
                () = sleep(wait) => {}
                () = self.core.stopping() => return Err(Halt::Stopping),
            }
        }
    }
}

/// Removes the journal of a job whose end is in its record: the agent died in between.
pub async fn forget(core: &Core, job: &Job) {
    let Ok(place) = Place::of(job) else { return };
    if job.services.is_empty() {
        return;
    }
    let (slots, id) = (core.slots(&place), job.job_id);
    let forgotten = blocking(move || match Journal::load(&slots)? {
        Some(journal) if journal.job_id == id && matches!(journal.phase, Phase::Ended { .. }) => {
            Journal::remove(&slots)
        }
        _ => Ok(()),
    });
    if let Ok(Err(error)) = forgotten.await {
        tracing::warn!(job.id = %id, %error, "the journal of an activation is not removed");
    }
}

fn outcome_of(service: &Service, result: ServiceResult) -> ServiceOutcome {
    ServiceOutcome { service: service.name.to_string(), result: result.as_str().to_owned() }
}
