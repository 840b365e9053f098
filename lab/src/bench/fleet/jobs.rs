//! Jobs through the whole system, from the order to the report that ends them, with simulated agents.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use super::{
    super::{BenchError, figure::Pair, harness::Harness},
    crowd::Crowd,
    floor,
    ground::{Ground, Server},
};

/// More than is ever admitted.
const NO_BUDGET: (u32, u32) = (100_000, 100_000);
const BEGIN_LIMIT: Duration = Duration::from_secs(60);
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

/// Measures `fleet.jobs`.
///
/// # Errors
/// The system does not come up.
pub(super) async fn run(harness: &mut Harness, ground: &Ground) -> Result<(), BenchError> {
    // In a minute no more than are due in a round of three can end; what is left of them is brought to its end.
    let devices = harness.size(120_000, 8_000);
    let during = Duration::from_secs(harness.size(60, 10));
    harness.say(format_args!("fleet.jobs: making {devices} devices behind simulated agents"));
    let mut crowd = Crowd::make(ground, "jobs", devices).await?;
    let mut server = crowd.server(ground, NO_BUDGET)?;
    server.start().await?;
    crowd.open(None).await?;
    let each = devices / harness.size(3, 1);
    harness.pairs("fleet.jobs", async || one(&crowd, &server, each, during).await).await;
    server.stop().await
}

async fn one(crowd: &Crowd, server: &Server, count: u32, during: Duration) -> Result<Pair, BenchError> {
    let (before, _) = crowd.ended().await?;
    crowd.due(count, Duration::ZERO, Duration::from_millis(1), WEEK).await?;
    let begin = Instant::now();
    while crowd.ended().await?.0 < before + 200 {
        if begin.elapsed() > BEGIN_LIMIT {
            return Err(BenchError::Odd(format!("no job ends: {}", server.log())));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let (first, from) = (crowd.ended().await?.0, Instant::now());
    tokio::time::sleep(during).await;
    let ((last, failed), took) = (crowd.ended().await?, from.elapsed());
    if failed > 0 {
        return Err(BenchError::Odd(format!("{failed} jobs failed")));
    }
    if last >= before + u64::from(count) {
        return Err(BenchError::Odd(format!("all {count} jobs had ended before the time was over")));
    }
    let value = (last - first) as f64 / took.as_secs_f64();
    // What is left is brought to its end before the broker is measured alone.
    let rest = Instant::now();
    while crowd.ended().await?.0 < before + u64::from(count) {
        if rest.elapsed() > Duration::from_secs(1800) {
            return Err(BenchError::Odd(format!("jobs do not end: {}", server.log())));
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let Some(agents) = &crowd.agents else { return Err(BenchError::Odd("there are no agents".to_owned())) };
    let counts = agents.counts();
    let mean = |sum: u64, count: u64| usize::try_from(sum / count.max(1)).unwrap_or(1);
    let to_agent = mean(counts.message_bytes.load(Ordering::Relaxed), counts.messages.load(Ordering::Relaxed));
    let report = mean(counts.report_bytes.load(Ordering::Relaxed), counts.reports.load(Ordering::Relaxed));
    let baseline = floor::jobs_per_s(crowd.vhost.amqp_url(), to_agent, report, during / 3).await?;
    Ok(Pair { value, baseline })
}
