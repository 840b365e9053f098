//! Tells trustpoints of the anchors of roll-overs (S57), in bounded batches. Every replica does it; what two of them do at once,
//! the device's own decision makes once. Orders that are under way lie in the database, and are offered again with each hello.

use std::sync::Arc;

use futures_util::{StreamExt as _, stream};
use jiff::{SignedDuration, Timestamp};
use trustfleet_model::{
    clock::Clock,
    ids::{DeviceId, JobId, TrustpointId},
    rollover::Phase,
};

use crate::{
    actors::Registry,
    audit::Requester,
    db::{DbError, DueRollover, Rollover, Store},
    device::{Command, DistributeAnchors},
    entropy,
    error::AppError,
    steady::Steady,
    telemetry::chain,
};

/// Roll-overs at a time.
const ROLLOVERS: i64 = 16;
/// Trustpoints of one roll-over at a time.
const BATCH: i64 = 500;
/// Devices that decide at the same time.
const AT_ONCE: usize = 32;
/// How long a roll-over is left alone by others while one replica works on it.
const CLAIM: SignedDuration = SignedDuration::from_secs(60);
/// Between two looks at one of which everybody was told.
const REST: SignedDuration = SignedDuration::from_secs(10);
/// Between two batches of one.
const PACE: SignedDuration = SignedDuration::from_secs(1);

/// Tells trustpoints of the anchors of roll-overs.
#[derive(Clone)]
pub struct Roller {
    /// The database.
    pub store: Store,
    /// Device actors.
    pub registry: Registry,
    /// The present moment.
    pub clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Roller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Roller")
    }
}

impl Steady for Roller {
    const WHAT: &'static str = "distribution of anchors";
    type Error = AppError;

    async fn step(&self) -> Result<bool, AppError> {
        let now = self.clock.now();
        let again_at = later(now, CLAIM);
        let due: Vec<DueRollover> = self
            .store
            .system_tx("rollovers_due", async move |tx| -> Result<_, DbError> {
                tx.rollovers_due(now, again_at, ROLLOVERS).await
            })
            .await?;
        for due in due {
            self.roll(due, now).await?;
        }
        Ok(false)
    }
}

impl Roller {
    /// One batch of one roll-over.
    async fn roll(&self, due: DueRollover, now: Timestamp) -> Result<(), AppError> {
        let (tenant, id) = (due.tenant_id, due.rollover.id);
        if due.rollover.spec.by_campaign && due.rollover.phase == Phase::Distributing {
            let at = later(now, REST);
            return self
                .store
                .system_tx("rollover_rest", async move |tx| -> Result<(), DbError> {
                    tx.rollover_rest(tenant, id, at).await
                })
                .await
                .map_err(Into::into);
        }
        let looked_for = due.clone();
        let to_tell = self
            .store
            .system_tx("rollover_to_tell", async move |tx| -> Result<_, DbError> {
                tx.rollover_to_tell(&looked_for, now, BATCH).await
            })
            .await?;
        let is_full = i64::try_from(to_tell.len()).is_ok_and(|rows| rows >= BATCH);
        let asked = stream::iter(to_tell).map(|(device, trustpoint)| self.tell(&due, device, trustpoint));
        let () = asked.buffer_unordered(AT_ONCE).collect().await;
        let at = later(now, if is_full { PACE } else { REST });
        self.store
            .system_tx("rollover_rest", async move |tx| -> Result<(), DbError> {
                tx.rollover_rest(tenant, id, at).await
            })
            .await?;
        Ok(())
    }

    async fn tell(&self, due: &DueRollover, device: DeviceId, trustpoint: TrustpointId) {
        let asked = match distribute(&due.rollover, trustpoint, self.clock.now(), entropy::random()) {
            Ok(command) => self.registry.ask(due.tenant_id, device, command).await.map(drop),
            Err(error) => Err(error),
        };
        match asked {
            // Gone, without an agent, or still at the order before: looked at again.
            Ok(()) | Err(AppError::Rejected(_) | AppError::NotFound { .. }) => {}
            Err(error) => {
                tracing::warn!(device.id = %device, error = %chain(&error), "a trustpoint is not told of anchors yet");
            }
        }
    }
}

/// The order for one trustpoint, as the roll-over stands: everything that is to be trusted, and what is not any more.
///
/// # Errors
/// No randomness.
pub fn distribute(
    rollover: &Rollover,
    trustpoint_id: TrustpointId,
    now: Timestamp,
    random: Result<[u8; 10], AppError>,
) -> Result<Command, AppError> {
    let (former, next) = (&rollover.former_anchors, &rollover.spec.next_anchors);
    let without = |all: &[String], others: &[String]| -> Vec<String> {
        all.iter().filter(|anchor| !others.contains(anchor)).cloned().collect()
    };
    let (trusted, retired) = match rollover.phase {
        Phase::Distributing | Phase::Switched => {
            (former.iter().cloned().chain(without(next, former)).collect(), Vec::new())
        }
        Phase::Finished => (next.clone(), without(former, next)),
        Phase::Cancelled => (former.clone(), without(next, former)),
    };
    Ok(Command::DistributeAnchors(Box::new(DistributeAnchors {
        trustpoint_id,
        rollover_id: rollover.id,
        step: rollover.phase.step(),
        trusted,
        retired,
        job_id: JobId::fresh(now, random?),
        requested_by: Requester::controller(),
    })))
}

fn later(now: Timestamp, more: SignedDuration) -> Timestamp {
    now.checked_add(more).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use trustfleet_model::rollover::{Counts, Issuer, RolloverSpec};

    use super::*;

    #[test]
    fn s57_both_sides_are_trusted_until_one_of_them_is_taken_away() {
        let told = |phase| {
            let id = uuid::Uuid::from_u128(1);
            let spec = RolloverSpec {
                next_anchors: vec!["stays".to_owned(), "next".to_owned()],
                required_percent: 100,
                counts: Counts::Loaded,
                issuer: Issuer::default(),
                by_campaign: false,
            };
            let rollover = Rollover {
                id: id.into(),
                ca_server_id: id.into(),
                phase,
                spec,
                former_anchors: vec!["old".to_owned(), "stays".to_owned()],
                started_by: String::new(),
                started_at: Timestamp::UNIX_EPOCH,
                switched_by: None,
                switched_at: None,
                forced_reason: None,
                ended_by: None,
                ended_at: None,
            };
            match distribute(&rollover, id.into(), Timestamp::UNIX_EPOCH, Ok([0; 10])).unwrap() {
                Command::DistributeAnchors(told) => (told.trusted.join(" "), told.retired.join(" ")),
                _ => unreachable!(),
            }
        };
        let both = ("old stays next".to_owned(), String::new());
        assert_eq!((told(Phase::Distributing), told(Phase::Switched)), (both.clone(), both));
        assert_eq!(told(Phase::Finished), ("stays next".to_owned(), "old".to_owned()));
        assert_eq!(told(Phase::Cancelled), ("old stays".to_owned(), "next".to_owned()));
    }
}
