//! One job from its record to its end: what [`crate::lifecycle`] decides, done.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit};
use tokio::time::sleep;
use tracing::{Instrument as _, Span};
use trustfleet_model::clock::Clock as _;
use trustfleet_model::ids::JobId;
use trustfleet_pki::Certificate;
use trustfleet_telemetry::{continue_from, record_error, trace_span};
use trustfleet_wire::routing::JOBS_EXCHANGE;
use trustfleet_wire::v1::{Blob, Event, Failed, FromAgent, Job, Request, Task};

use crate::anchors;
use crate::backoff::Backoff;
use crate::core::Core;
use crate::dry_run;
use crate::exchange::{Halt, Running, blocking, spanned};
use crate::jobs::{Entry, Live};
use crate::lifecycle::{self, Next};
use crate::order::{Errand, Place};
use crate::outcome;
use crate::overlay::Overlay;
use crate::record::{IssuedCertificate, Outcome, State};
use crate::services::{Given, Giving};
use crate::slots::{FileFormat, Slot, Slots};
use crate::store::StoreError;

/// Waits between tries to lay a certificate into its slot while the disk refuses.
const STORE_BACKOFF: Backoff = Backoff { first: Duration::from_secs(2), most: Duration::from_secs(120) };

/// Brings a job to its end, or to where the agent stops; says which it was. `place`: its place among the exchanges, if it
/// has one already.
pub async fn run(core: Arc<Core>, entry: Arc<Entry>, place: Option<OwnedSemaphorePermit>) -> JobId {
    let job = entry.snapshot().await.job;
    let span = span(&job);
    work_and_tell(&core, &entry, &job, &span, place).instrument(span.clone()).await;
    job.job_id
}

async fn work_and_tell(core: &Arc<Core>, entry: &Entry, job: &Job, span: &Span, place: Option<OwnedSemaphorePermit>) {
    match work(core, entry, place).await {
        Err(Halt::Failed(failed)) => {
            record_error(span, &failed.code, true);
            fail(core, entry, failed).await;
        }
        Err(Halt::Ordered) => fail(core, entry, outcome::stopped()).await,
        Ok(()) | Err(Halt::Stopping) => tracing::debug!(job.id = %job.job_id, "the job rests"),
    }
}

/// The span of the work on a job, from here to its end or to the stop of the agent. It goes on from the message, which
/// lies in the record: also after a restart.
fn span(job: &Job) -> Span {
    let kind = match &job.task {
        Task::Enroll(enroll) => match enroll.request {
            Request::Ir => "ir",
            Request::Cr => "cr",
            Request::Kur => "kur",
        },
        Task::Activate { .. } => "activate",
        Task::Revoke(_) => "revoke",
        Task::DryRun(_) => "dry_run",
        Task::Anchors(_) => "anchors",
    };
    let span = trace_span!(
        "consumer",
        "job",
        messaging.system = "rabbitmq",
        messaging.operation.type = "process",
        messaging.operation.name = "process",
        messaging.destination.name = JOBS_EXCHANGE,
        trustfleet.tenant.id = %job.tenant_id,
        trustfleet.device.id = %job.device_id,
        trustfleet.agent.id = %job.agent_id,
        trustfleet.job.id = %job.job_id,
        trustfleet.job.kind = kind,
    );
    continue_from(&span, job.traceparent.as_deref());
    span
}

async fn work(core: &Arc<Core>, entry: &Entry, mut seat: Option<OwnedSemaphorePermit>) -> Result<(), Halt> {
    let job = entry.snapshot().await.job;
    let place = Place::of(&job).map_err(|violations| outcome::of_order(&violations))?;
    if matches!(job.task, Task::DryRun(_)) {
        // It changes nothing: it waits for nobody's exchange.
        return try_out(core, entry, &place).await;
    }
    let _turn = match core.lock_of(&place).try_lock_owned() {
        Ok(turn) => turn,
        Err(_) => {
            // Whoever has the turn may need the place.
            seat = None;
            match wait_for_turn(core, entry, &place).await? {
                Some(turn) => turn,
                None => return return_permit(core, entry).await,
            }
        }
    };
    loop {
        let live = entry.snapshot().await;
        let (record, job) = (live.record, live.job);
        match lifecycle::next(&record, &job, core.identity.clock.now()) {
            Next::Stop => return Err(Halt::Ordered),
            Next::ReturnPermit => return return_permit(core, entry).await,
            Next::Begin | Next::Resume => {
                let errand = Errand::of(&job).map_err(|violations| outcome::of_order(&violations))?;
                let Some(errand) = errand else { return Ok(()) };
                let accepted = core.accept.check(errand.talk());
                accepted.map_err(|beyond| outcome::of_unaccepted(&beyond, asked(&record.state)))?;
                let running = Running { core, entry, job: &job, place: &place, errand: &errand };
                match record.state {
                    State::Ca { exchange } => running.resume(*exchange).await?,
                    _ => running.begin(seat.take()).await?,
                }
            }
            Next::Store => {
                if let State::Storage { issued } = record.state {
                    let storing = store(core, entry, &job, &place, &issued);
                    spanned(trace_span!("internal", "store certificate"), storing).await?;
                }
            }
            Next::Activate => {
                let activating = activate(core, entry, &job, &place, &record.state);
                spanned(trace_span!("internal", "activate certificate"), activating).await?;
            }
            Next::Trust => {
                let trusting = anchors::run(core, entry, &job, &place);
                spanned(trace_span!("internal", "trust anchors"), trusting).await?;
            }
            Next::Rest | Next::Try => return Ok(()),
        }
    }
}

async fn try_out(core: &Arc<Core>, entry: &Entry, place: &Place) -> Result<(), Halt> {
    let live = entry.snapshot().await;
    match lifecycle::next(&live.record, &live.job, core.identity.clock.now()) {
        Next::Stop => Err(Halt::Ordered),
        Next::ReturnPermit => return_permit(core, entry).await,
        Next::Try => spanned(trace_span!("internal", "dry run"), dry_run::run(core, entry, &live.job, place)).await,
        _ => Ok(()),
    }
}

/// Whether the CA may have a request of the job.
fn asked(state: &State) -> bool {
    matches!(state, State::Ca { exchange } if exchange.url.is_some())
}

/// One job at a time on a trustpoint. `None`: the permit ran out before the turn came.
async fn wait_for_turn(core: &Core, entry: &Entry, place: &Place) -> Result<Option<OwnedMutexGuard<()>>, Halt> {
    let lock = core.lock_of(place);
    let turn = lock.lock_owned();
    tokio::pin!(turn);
    loop {
        let live = entry.snapshot().await;
        let now = core.identity.clock.now();
        let waits = matches!(live.record.state, State::Start);
        let left = Duration::try_from(live.job.start_before.duration_since(now)).unwrap_or_default();
        tokio::select! {
            biased;
            turn = &mut turn => return Ok(Some(turn)),
            () = core.stopping() => return Err(Halt::Stopping),
            () = core.stop_ordered(entry), if waits => return Err(Halt::Ordered),
            // A newer message can have lengthened the permit meanwhile: look again.
            () = sleep(left.max(Duration::from_millis(50))), if waits => {
                let live = entry.snapshot().await;
                if live.job.start_before <= core.identity.clock.now() {
                    return Ok(None);
                }
            }
        }
    }
}

async fn return_permit(core: &Core, entry: &Entry) -> Result<(), Halt> {
    let Live { job, lease_id, .. } = entry.snapshot().await;
    tracing::info!(job.id = %job.job_id, start_before = %job.start_before, "the permit has run out; the job goes back");
    // What the agent would have begun by itself has nobody to go back to.
    let told = if lease_id.is_none() { vec![Event::PermitExpired] } else { Vec::new() };
    core.settle(entry, State::Nothing { outcome: Outcome::PermitExpired }, told).await;
    Ok(())
}

/// Lays the certificate beside its key and makes it the staged one; tries until the disk takes it.
async fn store(
    core: &Arc<Core>,
    entry: &Entry,
    job: &Job,
    place: &Place,
    issued: &IssuedCertificate,
) -> Result<(), Halt> {
    let Task::Enroll(enroll) = &job.task else { return Ok(()) };
    let format = if enroll.file_format == "der" { FileFormat::Der } else { FileFormat::Pem };
    let leased = entry.snapshot().await.lease_id.is_some();
    let mut failures = 0_u32;
    let (serial, file) = loop {
        let (slots, id, issued) = (core.slots(place), job.job_id, issued.clone());
        let anchors = enroll.trust_anchors.clone();
        match blocking(move || lay_down(&slots, id, format, &issued, &anchors, leased)).await? {
            Ok(stored) => break stored,
            Err(error) => {
                failures = failures.saturating_add(1);
                let wait = STORE_BACKOFF.wait(failures, core.identity.random_u64());
                tracing::error!(job.id = %id, %error, wait_s = wait.as_secs(), "the certificate is not in its slot yet");
                tokio::select! {
                    () = sleep(wait) => {}
                    () = core.stopping() => return Err(Halt::Stopping),
                }
            }
        }
    };
    tracing::info!(job.id = %job.job_id, certificate.serial = %serial, file = %file, "certificate issued and staged");
    core.upkeep.ordered(job).await;
    let event = outcome::issued_event(issued, file);
    let state =
        if enroll.activate { State::Activation { serial } } else { State::Nothing { outcome: Outcome::Succeeded } };
    core.settle(entry, state, vec![event]).await;
    Ok(())
}

fn lay_down(
    slots: &Slots,
    job: JobId,
    format: FileFormat,
    issued: &IssuedCertificate,
    anchors: &[Blob],
    leased: bool,
) -> Result<(String, String), StoreError> {
    let corrupt = |error: trustfleet_pki::CertificateError| StoreError::Corrupt {
        path: slots.version(job),
        detail: error.to_string(),
    };
    let certificate = Certificate::from_der(&issued.certificate.0).map_err(corrupt)?;
    let chain: Vec<Certificate> = issued.chain.iter().filter_map(|der| Certificate::from_der(&der.0).ok()).collect();
    let anchors: Vec<Certificate> = anchors.iter().filter_map(|der| Certificate::from_der(&der.0).ok()).collect();
    slots.write_certificate(job, format, &certificate, &chain, &anchors)?;
    if leased {
        Overlay::note_leased(slots, job)?;
    }
    slots.stage(job)?;
    let slot = if slots.folder(Slot::Staged) == Some(slots.version(job)) { Slot::Staged } else { Slot::Current };
    let file = slots.certificate(slot)?.map(|(_, file)| file.display().to_string()).unwrap_or_default();
    Ok((certificate.serial_hex(), file))
}

/// Puts the staged certificate into use, if it is the one that is meant.
async fn activate(core: &Arc<Core>, entry: &Entry, job: &Job, place: &Place, state: &State) -> Result<(), Halt> {
    let serial = match (state, &job.task) {
        (State::Activation { serial }, _) | (_, Task::Activate { serial }) => serial.clone(),
        _ => return Ok(()),
    };
    if matches!(job.task, Task::Activate { .. }) {
        let (slots, wanted) = (core.slots(place), serial.clone());
        let staged = blocking(move || slots.stage_former(&wanted)).await?;
        staged.map_err(|error| outcome::of_store(&error, false))?;
    }
    if !job.services.is_empty() {
        return give(core, entry, job, place, serial, state).await;
    }
    // Versions that jobs still work on are not to be cleared away.
    let unfinished = core.book.unfinished();
    let (slots, wanted) = (core.slots(place), serial.clone());
    let (keys, store) = (Arc::clone(&core.keys), core.store.clone());
    let file = blocking(move || {
        let file = crate::activation::activate(&slots, &wanted, &unfinished);
        crate::keys::sweep(keys.as_ref(), &store);
        file
    })
    .await?;
    let file = file.map_err(|error| error.failed())?;
    tracing::info!(job.id = %job.job_id, certificate.serial = %serial, file = %file, "certificate in use");
    let state = State::Nothing { outcome: Outcome::Succeeded };
    core.settle(entry, state, vec![Event::Activated { serial, file, in_service: None }]).await;
    Ok(())
}

/// Puts the certificate into use and gives it to the services that the job names.
async fn give(
    core: &Arc<Core>,
    entry: &Entry,
    job: &Job,
    place: &Place,
    serial: String,
    state: &State,
) -> Result<(), Halt> {
    if matches!(state, State::Start) {
        // It has begun: what is cut off from here on must go on, whatever its permit says.
        let begun = State::Activation { serial: serial.clone() };
        core.commit(entry, begun, Vec::new()).await.map_err(|error| outcome::of_store(&error, false))?;
    }
    let giving = Giving {
        core,
        job_id: job.job_id,
        place,
        serial: serial.clone(),
        services: job.services.clone(),
        replaced_is_revoked: job.replaced_is_revoked,
    };
    match giving.give().await? {
        Given::Failed(failed) => fail(core, entry, failed).await,
        Given::InUse { file, in_service } => {
            let unfinished = core.book.unfinished();
            let (slots, keys, store) = (core.slots(place), Arc::clone(&core.keys), core.store.clone());
            let pruned = blocking(move || {
                let pruned = slots.prune(&unfinished);
                crate::keys::sweep(keys.as_ref(), &store);
                pruned
            });
            if let Err(error) = pruned.await? {
                tracing::warn!(job.id = %job.job_id, %error, "old versions are not cleared away");
            }
            tracing::info!(job.id = %job.job_id, certificate.serial = %serial, file = %file, "certificate in service");
            let told = vec![Event::Activated { serial, file, in_service: Some(in_service) }];
            core.settle(entry, State::Nothing { outcome: Outcome::Succeeded }, told).await;
        }
    }
    giving.told().await;
    Ok(())
}

/// Brings a job to its end without success: saved, its key removed where nobody can need it, reported.
pub async fn fail(core: &Core, entry: &Entry, mut failed: Box<Failed>) {
    let live = entry.snapshot().await;
    if let (State::Ca { exchange }, true) = (&live.record.state, failed.transcript.is_empty()) {
        failed.transcript = outcome::told(&exchange.transcript);
    }
    tracing::warn!(
        job.id = %live.job.job_id,
        culprit = %failed.culprit,
        code = %failed.code,
        maybe_issued = failed.maybe_issued,
        "job failed: {}",
        failed.message
    );
    let state = State::Nothing { outcome: outcome::record_of(&failed) };
    // Not before the end is on the disk: a restart in between would miss the key and blame that.
    let tidied = async { tidy(core, &entry.snapshot().await).await };
    core.settle_then(entry, state, vec![Event::Failed(failed)], tidied).await;
}

/// Removes the key of a job that failed without a certificate: it is of no use to anybody. Done again after a restart.
pub async fn tidy(core: &Core, live: &Live) {
    let last = live.record.last_report.as_ref().and_then(|report| report.envelope.peek().ok());
    let Some(FromAgent::Report(report)) = last else { return };
    let (Event::Failed(failed), Ok(place)) = (report.event, Place::of(&live.job)) else { return };
    if failed.maybe_issued || !live.record.state.is_final() {
        return;
    }
    let (slots, id) = (core.slots(&place), live.job.job_id);
    if let Ok(Err(error)) = blocking(move || slots.discard(id)).await {
        tracing::warn!(job.id = %id, %error, "the key of a failed job is not removed");
    }
}
