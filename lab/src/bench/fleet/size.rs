//! What must not grow with the fleet: memory, start, lists and the scrape, each at a million devices beside few.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::super::{
    BenchError,
    figure::{Pair, median},
    harness::Harness,
    process::resident_bytes,
};
use super::{
    data,
    ground::{DATABASE, Ground, Server, viewer},
    http::Http,
};
use crate::house::TENANT;

/// The ids of this file.
pub(super) const IDS: [&str; 4] = ["fleet.idle_rss", "fleet.start", "fleet.list", "fleet.scrape"];

const SMALL: &str = "small";
const MIDDLE: &str = "middle";
/// Long enough for what the start needed to be given back.
const REST: Duration = Duration::from_secs(15);
const CLAIM_LIMIT: Duration = Duration::from_secs(60);

/// Measures what was chosen.
///
/// # Errors
/// The system does not come up, or the fleet cannot be made.
pub(super) async fn run(harness: &mut Harness, ground: &Ground) -> Result<(), BenchError> {
    let cluster = &ground.stack.env().pg_admin_url;
    let (large, middle, small) = (harness.size(1_000_000, 20_000), harness.size(10_000, 2_000), 1_000);
    for (database, devices) in [(SMALL, small), (MIDDLE, middle)] {
        data::copy(cluster, DATABASE, database).await?;
        data::grow(cluster, database, devices).await?;
    }
    harness.say(format_args!("fleet: making {large} enrolled devices in {} tenants", data::TENANTS));
    data::grow(cluster, DATABASE, large).await?;
    harness.say("fleet: they are there");
    let server = |database| Server::new(ground, database, &[]);
    let (mut large, mut middle, mut small) = (server(DATABASE)?, server(MIDDLE)?, server(SMALL)?);

    harness
        .pairs("fleet.start", async || {
            Ok(Pair {
                value: started_s(ground, &mut large, DATABASE).await?,
                baseline: started_s(ground, &mut small, SMALL).await?,
            })
        })
        .await;
    harness
        .pairs("fleet.idle_rss", async || {
            Ok(Pair { value: idle_mb(&mut large).await?, baseline: idle_mb(&mut small).await? })
        })
        .await;
    if harness.wants("fleet.scrape") {
        large.start().await?;
        small.start().await?;
        harness.pairs("fleet.scrape", async || scrapes(&large, &small).await).await;
        small.stop().await?;
        large.stop().await?;
    }
    if harness.wants("fleet.list") {
        large.start().await?;
        middle.start().await?;
        let (of_large, of_middle) = (viewer(ground, &large)?, viewer(ground, &middle)?);
        harness.pairs("fleet.list", async || lists((&large, &of_large), (&middle, &of_middle)).await).await;
        middle.stop().await?;
        large.stop().await?;
    }
    Ok(())
}

/// Seconds from before the start of the process until it says that it can work and a job exists for the one renewal that is
/// due. Afterwards it is stopped.
async fn started_s(ground: &Ground, server: &mut Server, database: &str) -> Result<f64, BenchError> {
    let client = data::superuser(&ground.stack.env().pg_admin_url, database).await?;
    // One whose certificate is in its last fifth, and that has no job under way: the first by its id that was not yet taken.
    let due = "UPDATE trustpoints t SET next_action_at = now(), state = jsonb_set(jsonb_set(jsonb_set(state,
                   '{trustpoint,active,not_before}', to_jsonb(now() - interval '300 days')),
                   '{trustpoint,active,not_after}', to_jsonb(now() + interval '65 days')),
                   '{trustpoint,issued_at}', to_jsonb(now() - interval '300 days'))
               WHERE (tenant_id, trustpoint_id) = (
                   SELECT t.tenant_id, t.trustpoint_id FROM trustpoints t
                   WHERE t.status = 'active' AND NOT EXISTS (SELECT FROM jobs j WHERE j.tenant_id = t.tenant_id
                         AND j.device_id = t.device_id AND j.finished_at IS NULL)
                   ORDER BY t.tenant_id, t.trustpoint_id LIMIT 1)
               RETURNING t.tenant_id, t.trustpoint_id::text";
    let row = client.query_one(due, &[]).await.map_err(BenchError::sql("making one renewal due"))?;
    let trustpoint: String = row.get(1);
    let made = "SELECT EXISTS (SELECT FROM jobs WHERE trustpoint_id = $1::text::uuid AND finished_at IS NULL)";
    let made = client.prepare(made).await.map_err(BenchError::sql("looking for its job"))?;
    let begin = Instant::now();
    server.start().await?;
    loop {
        let row = client.query_one(&made, &[&trustpoint]).await.map_err(BenchError::sql("looking for its job"))?;
        if row.get(0) {
            break;
        }
        if begin.elapsed() > CLAIM_LIMIT {
            return Err(BenchError::Odd(format!("what is due is not asked for: {}", server.log())));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let took = begin.elapsed().as_secs_f64();
    server.stop().await?;
    Ok(took)
}

async fn idle_mb(server: &mut Server) -> Result<f64, BenchError> {
    server.start().await?;
    // It is never quite at rest: the gauges are counted every few seconds. The median of what it has in between.
    tokio::time::sleep(REST).await;
    let mut bytes = Vec::new();
    for _ in 0..20 {
        bytes.push(resident_bytes(server.id()?)?);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    server.stop().await?;
    Ok(median(&bytes) / 1e6)
}

/// Milliseconds for a scrape, medians of fifty in turn.
async fn scrapes(large: &Server, small: &Server) -> Result<Pair, BenchError> {
    let asking = BenchError::io;
    let mut open = (
        Http::open(large.address()).await.map_err(asking("connecting"))?,
        Http::open(small.address()).await.map_err(asking("connecting"))?,
    );
    let (mut values, mut baselines) = (Vec::new(), Vec::new());
    for _ in 0..50 {
        values.push(timed_ms(&mut open.0, "/metrics", None).await?.0);
        baselines.push(timed_ms(&mut open.1, "/metrics", None).await?.0);
    }
    Ok(Pair { value: median(&values), baseline: median(&baselines) })
}

/// Milliseconds for a page of 100, medians of the first twenty pages, read five times in turn.
async fn lists(large: (&Server, &str), small: (&Server, &str)) -> Result<Pair, BenchError> {
    let asking = BenchError::io;
    let (mut values, mut baselines) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let mut of_large =
            Pages { http: Http::open(large.0.address()).await.map_err(asking("connecting"))?, next: None };
        let mut of_small =
            Pages { http: Http::open(small.0.address()).await.map_err(asking("connecting"))?, next: None };
        for _ in 0..20 {
            values.push(of_large.page_ms(large.1).await?);
            baselines.push(of_small.page_ms(small.1).await?);
        }
    }
    Ok(Pair { value: median(&values), baseline: median(&baselines) })
}

/// A list on its way through its pages.
struct Pages {
    http: Http,
    next: Option<String>,
}

impl Pages {
    async fn page_ms(&mut self, token: &str) -> Result<f64, BenchError> {
        let after = self.next.take().map(|next| format!("&after={}", escaped(&next))).unwrap_or_default();
        let path = format!("/v1/tenants/{TENANT}/certificates?limit=100{after}");
        let (took, body) = timed_ms(&mut self.http, &path, Some(token)).await?;
        let page: Value = serde_json::from_slice(&body).map_err(BenchError::odd("a page of certificates"))?;
        if page["items"].as_array().is_none_or(Vec::is_empty) {
            return Err(BenchError::Odd(format!("a page of certificates is empty: {page}")));
        }
        // A short list begins anew.
        self.next = page["next"].as_str().map(str::to_owned);
        Ok(took)
    }
}

async fn timed_ms(http: &mut Http, path: &str, token: Option<&str>) -> Result<(f64, Vec<u8>), BenchError> {
    let begin = Instant::now();
    let (status, body) = http.get(path, token).await.map_err(BenchError::io("asking"))?;
    let took = begin.elapsed().as_secs_f64() * 1e3;
    if status != 200 {
        return Err(BenchError::Odd(format!("{path} was answered with {status}: {}", String::from_utf8_lossy(body))));
    }
    Ok((took, body.to_vec()))
}

/// As a part of a query.
fn escaped(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}
