//! When much happens at once: a hundred thousand renewals in a minute, a controller that is killed in the middle, a broker that is
//! restarted under a thousand agents.

mod direct;
mod real;

use std::time::{Duration, Instant};

use super::{
    BenchError,
    figure::Pair,
    fleet::{Crowd, Ground, Server},
    harness::Harness,
    spec::{Limit, Pace, Spec},
};
use crate::fleet::gate::StandIn;

/// What may begin at the CA in a second, and at once.
const BUDGET: (u32, u32) = (200, 50);
/// Seconds for which a replica may hold what it has claimed; the configuration's default.
const CLAIM_S: f64 = 5.0;
const DUE: [&str; 3] = ["storm.due.peak", "storm.due.use", "storm.due.expired"];

/// The benchmarks of this group.
pub(crate) const SPECS: &[Spec] = &[
    Spec {
        id: DUE[0],
        what: "100,000 renewals that come due within a minute at a CA with 200 exchanges in a second, 50 at once: most requests \
               that come there within any second",
        beside: "the budget",
        unit: "/s",
        limits: &[Limit::ratio_at_most(1.25)],
        pace: Pace::Look,
    },
    Spec {
        id: DUE[1],
        what: "the same: requests in a second on average until the last one",
        beside: "the budget",
        unit: "/s",
        limits: &[Limit::ratio_at_least(0.95)],
        pace: Pace::Look,
    },
    Spec {
        id: DUE[2],
        what: "the same: certificates that ended before they were replaced",
        beside: "absolute",
        unit: "",
        limits: &[Limit::at_most(0.0)],
        pace: Pace::Look,
    },
    Spec {
        id: "storm.renew",
        what: "real renewals in a second (P-256, certConf) of 2,000 trustpoints on 100 real agents through the whole system",
        beside: "the same exchanges by the client library straight to the same CA, 64 at a time",
        unit: "/s",
        limits: &[Limit::ratio_at_least(0.5)],
        pace: Pace::Minutes,
    },
    Spec {
        id: "storm.reconnect",
        what: "restart of the broker with 1,000 real agents told to come back within 30 s: most attempts to connect in any second",
        beside: "their mean from the first to the last",
        unit: "/s",
        limits: &[Limit::ratio_at_most(2.0)],
        pace: Pace::Minutes,
    },
    Spec {
        id: "storm.failover",
        what: "one of three controllers killed under load: longest time that any accepted job stood still",
        beside: "the time for which a replica may hold a job",
        unit: "s",
        limits: &[Limit::at_most(CLAIM_S + 1.0)],
        pace: Pace::Minutes,
    },
];

/// Measures what was chosen.
///
/// # Errors
/// The system does not come up.
pub(crate) async fn run(harness: &mut Harness) -> Result<(), BenchError> {
    if harness.wants("storm.renew")
        && let Err(error) = real::renew(harness).await
    {
        harness.fail_one("storm.renew", &error);
    }
    if harness.wants("storm.reconnect")
        && let Err(error) = real::reconnect(harness).await
    {
        harness.fail_one("storm.reconnect", &error);
    }
    if !harness.wants("storm.failover") && !DUE.iter().any(|id| harness.wants(id)) {
        return Ok(());
    }
    let ground = Ground::make(harness, "rsa-2048").await?;
    let result = with_ground(harness, &ground).await;
    ground.end().await;
    result
}

async fn with_ground(harness: &mut Harness, ground: &Ground) -> Result<(), BenchError> {
    if harness.wants("storm.failover") {
        failover(harness, ground).await?;
    }
    if DUE.iter().any(|id| harness.wants(id)) {
        due(harness, ground).await?;
    }
    Ok(())
}

/// What became of a wave of renewals.
struct Wave {
    peak: f64,
    per_s: f64,
    expired: f64,
}

async fn due(harness: &mut Harness, ground: &Ground) -> Result<(), BenchError> {
    let count = harness.size(100_000, 3_000);
    harness.say(format_args!("storm.due: making {count} devices behind simulated agents"));
    let mut crowd = Crowd::make(ground, "due", count + 1_000).await?;
    let mut server = crowd.server(ground, BUDGET)?;
    let ca = StandIn::open().await.map_err(BenchError::io("opening a port"))?;
    server.start().await?;
    crowd.open(Some(ca.address())).await?;
    harness.say("storm.due: all renewals come due within a minute");
    let wave = wave(harness, &crowd, &server, &ca, count).await?;
    server.stop().await?;
    let budget = f64::from(BUDGET.0);
    harness.pairs(DUE[0], async || Ok(Pair { value: wave.peak, baseline: budget })).await;
    harness.pairs(DUE[1], async || Ok(Pair { value: wave.per_s, baseline: budget })).await;
    harness.values(DUE[2], async || Ok(wave.expired)).await;
    Ok(())
}

async fn wave(harness: &Harness, crowd: &Crowd, server: &Server, ca: &StandIn, count: u32) -> Result<Wave, BenchError> {
    // What takes nine minutes by the budget has twice the time, and no more.
    let drained = Duration::from_secs(u64::from(count / BUDGET.0));
    let ends_in = drained * 2 + Duration::from_secs(300);
    // As dense as a hundred thousand within a minute: fewer spread over a minute would never fill the budget.
    let within = Duration::from_secs_f64(60.0 * f64::from(count) / 100_000.0);
    crowd.due(count, Duration::from_secs(5), within, ends_in).await?;
    ca.arrivals.clear();
    let begin = Instant::now();
    let mut told = 0;
    loop {
        let (ended, failed) = crowd.ended().await?;
        if failed > 0 {
            return Err(BenchError::Odd(format!("{failed} renewals failed: {}", server.log())));
        }
        if ended >= u64::from(count) {
            break;
        }
        if begin.elapsed() > ends_in + Duration::from_secs(600) {
            return Err(BenchError::Odd(format!("only {ended} of {count} renewals have ended: {}", server.log())));
        }
        if begin.elapsed().as_secs() / 60 > told {
            told = begin.elapsed().as_secs() / 60;
            harness
                .say(format_args!("storm.due: {ended} of {count} are renewed, {} were asked for", ca.arrivals.count()));
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let (peak, span) = ca.arrivals.peak_and_span();
    let sql = "SELECT (SELECT count(*) FROM certificates WHERE replaced_at > not_after)
                    + (SELECT count(*) FROM certificates WHERE slot = 'active' AND not_after < now())";
    let row = crowd.client.query_one(sql, &[]).await.map_err(BenchError::sql("counting what ended"))?;
    Ok(Wave { peak: peak as f64, per_s: ca.arrivals.count() as f64 / span, expired: row.get::<_, i64>(0) as f64 })
}

async fn failover(harness: &mut Harness, ground: &Ground) -> Result<(), BenchError> {
    let (per_s, seconds) = (80, harness.size(60, 20));
    let count = per_s * seconds;
    harness.say("storm.failover: making devices behind simulated agents, and three controllers");
    let mut crowd = Crowd::make(ground, "failover", 3 * count + 2_000).await?;
    let mut servers = Vec::new();
    for _ in 0..3 {
        servers.push(crowd.server(ground, (1_000, 1_000))?);
    }
    for server in &mut servers {
        server.start().await?;
    }
    crowd.open(None).await?;
    let mut round = 0;
    harness
        .values("storm.failover", async || {
            let victim = round % 3;
            round += 1;
            let stood = killed(&crowd, &mut servers[victim], count, Duration::from_secs(seconds.into())).await?;
            servers[victim].start().await?;
            Ok(stood)
        })
        .await;
    for server in &mut servers {
        server.stop().await?;
    }
    Ok(())
}

/// Seconds that the job which stood still longest did, between two of its steps.
async fn killed(crowd: &Crowd, victim: &mut Server, count: u32, during: Duration) -> Result<f64, BenchError> {
    let (before, _) = crowd.ended().await?;
    let now = crowd.client.query_one("SELECT now()::text", &[]).await.map_err(BenchError::sql("asking the time"))?;
    let begun: String = now.get(0);
    crowd.due(count, Duration::from_secs(2), during, Duration::from_secs(7 * 24 * 3600)).await?;
    tokio::time::sleep(Duration::from_secs(2) + during / 3).await;
    victim.kill().await;
    let begin = Instant::now();
    // What the killed one had found due and not asked for yet is found again after a minute.
    let limit = during + Duration::from_secs(120);
    while crowd.ended().await?.0 < before + u64::from(count) {
        if begin.elapsed() > limit {
            let (ended, _) = crowd.ended().await?;
            return Err(BenchError::Odd(format!("only {} of {count} jobs have ended", ended - before)));
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let sql = "SELECT max(extract(epoch FROM greatest(published_at - created_at, started_at - published_at,
                   finished_at - started_at)))::float8 FROM jobs WHERE kind = 'kur' AND created_at >= $1::text::timestamptz";
    let row = crowd.client.query_one(sql, &[&begun]).await.map_err(BenchError::sql("looking at the jobs"))?;
    Ok(row.get(0))
}
