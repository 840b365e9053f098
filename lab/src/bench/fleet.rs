//! A large fleet at the controller: what a device weighs, what must not grow with the number of devices, and how fast
//! things are read and written.

mod crowd;
mod data;
mod floor;
mod ground;
mod http;
mod jobs;
mod size;
mod work;

use super::{
    BenchError,
    harness::Harness,
    spec::{Limit, Pace, Spec},
};
pub(super) use crowd::Crowd;
pub(super) use ground::{Ground, Server};

/// Name of the device that everything is made out of.
pub(super) const FIRST_DEVICE: &str = ground::DEVICE;

/// The benchmarks of this group.
pub(crate) const SPECS: &[Spec] = &[
    Spec {
        id: "fleet.actor_bytes",
        what: "memory for each further active device actor, from 1,000 to 100,000",
        beside: "an actix actor that holds a clone of the same state and does nothing",
        unit: "KB",
        limits: &[Limit::ratio_at_most(1.3)],
        pace: Pace::Minutes,
    },
    Spec {
        id: "fleet.idle_rss",
        what: "memory of a controller at rest with 1,000,000 registered devices",
        beside: "the same with 1,000",
        unit: "MB",
        limits: &[Limit::ratio_at_most(1.2)],
        pace: Pace::Minutes,
    },
    Spec {
        id: "fleet.start",
        what: "from the start of a controller's process until it is ready and has asked for the one renewal that is due among \
               1,000,000 devices",
        beside: "the same among 1,000",
        unit: "s",
        limits: &[Limit::ratio_at_most(1.5)],
        pace: Pace::Seconds,
    },
    Spec {
        id: "fleet.jobs",
        what: "jobs in a second for a minute, from the renewal that is due to the committed report of the issue, with simulated \
               agents that make up their exchanges",
        beside: "as many messages of the same sizes through the same broker, with confirms and acks, and no database",
        unit: "/s",
        limits: &[Limit::ratio_at_least(0.3)],
        pace: Pace::Minutes,
    },
    Spec {
        id: "fleet.commit",
        what: "accepted key updates committed in a second by the group commit for 64 callers",
        beside: "statements that write 1,000 of the same rows each, with the same check of versions",
        unit: "/s",
        limits: &[Limit::ratio_at_least(0.5)],
        pace: Pace::Seconds,
    },
    Spec {
        id: "fleet.api_read",
        what: "GET of one trustpoint with authorisation over 64 connections, answers in a second",
        beside: "a bare actix-web handler with the same SELECT in a transaction from a pool of the same size",
        unit: "/s",
        limits: &[Limit::ratio_at_least(0.8)],
        pace: Pace::Seconds,
    },
    Spec {
        id: "fleet.list",
        what: "a page of 100 certificates by their end, at 1,000,000",
        beside: "the same at 10,000",
        unit: "ms",
        limits: &[Limit::ratio_at_most(1.5)],
        pace: Pace::Seconds,
    },
    Spec {
        id: "fleet.scrape",
        what: "/metrics with 1,000,000 devices",
        beside: "the same with 1,000",
        unit: "ms",
        limits: &[Limit::ratio_at_most(1.5), Limit::at_most(20.0)],
        pace: Pace::Seconds,
    },
    Spec {
        id: "fleet.activate",
        what: "device actors loaded and started in a second, 100,000 in an order of chance",
        beside: "plain SELECTs of those rows by the same ids, 1,000 at a time",
        unit: "/s",
        limits: &[Limit::ratio_at_least(0.4)],
        pace: Pace::Seconds,
    },
];

/// Measures what was chosen.
///
/// # Errors
/// The system does not come up.
pub(crate) async fn run(harness: &mut Harness) -> Result<(), BenchError> {
    let ground = Ground::make(harness, "rsa-2048").await?;
    let result = with_ground(harness, &ground).await;
    ground.end().await;
    result
}

async fn with_ground(harness: &mut Harness, ground: &Ground) -> Result<(), BenchError> {
    if work::IDS.iter().any(|id| harness.wants(id)) {
        work::run(harness, ground).await?;
    }
    if size::IDS.iter().any(|id| harness.wants(id)) {
        size::run(harness, ground).await?;
    }
    if harness.wants("fleet.jobs") {
        jobs::run(harness, ground).await?;
    }
    Ok(())
}
