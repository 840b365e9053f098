//! How fast a controller reads and writes devices, and what an active one weighs: in a database of 200,000.

use std::time::Duration;

use serde_json::Value;

use super::super::{BenchError, figure::Pair, harness::Harness, inside};
use super::{
    data,
    ground::{DATABASE, Ground, Server, viewer},
    http::{rate, request},
};
use crate::{
    house::TENANT,
    stack::{process::mortal, with_database},
    testkit::{Child, binary},
};

/// The ids of this file.
pub(super) const IDS: [&str; 4] = ["fleet.actor_bytes", "fleet.commit", "fleet.api_read", "fleet.activate"];

const WORK: &str = "work";
const CONNECTIONS: usize = 64;
const START_LIMIT: Duration = Duration::from_secs(30);

/// Measures what was chosen.
///
/// # Errors
/// The system does not come up, or the fleet cannot be made.
pub(super) async fn run(harness: &mut Harness, ground: &Ground) -> Result<(), BenchError> {
    let cluster = &ground.stack.env().pg_admin_url;
    let devices = harness.size(200_000, 30_000);
    harness.say(format_args!("fleet: making {devices} enrolled devices in {} tenants", data::TENANTS));
    data::copy(cluster, DATABASE, WORK).await?;
    data::grow(cluster, WORK, devices).await?;
    let mut server = Server::new(ground, WORK, &[])?;
    let database = with_database(cluster, WORK);
    let config = server.files().config.clone();
    let ask = |what, count, skip| inside::ask(what, &config, &database, count, skip);

    let count = harness.size(100_000, 10_000);
    harness
        .pairs("fleet.actor_bytes", async || {
            let (value, baseline) = (ask("actors", count, 0)?, ask("bare-actors", count, 0)?);
            let kb = |said: &Value| Ok::<_, BenchError>(inside::number(said, "bytes")? / 1e3);
            Ok(Pair { value: kb(&value)?, baseline: kb(&baseline)? })
        })
        .await;
    harness
        .pairs("fleet.activate", async || {
            let said = ask("activate", count, 0)?;
            Ok(Pair { value: inside::number(&said, "loaded")?, baseline: inside::number(&said, "rows")? })
        })
        .await;
    if harness.wants("fleet.api_read") {
        server.start().await?;
        let during = Duration::from_secs(harness.size(5, 2));
        let paths = paths(cluster).await?;
        let token = viewer(ground, &server)?;
        let requests: Vec<_> = paths.iter().map(|path| request(path, Some(&token))).collect();
        let mut inside = mortal(binary("trustfleet-lab")?, "KILL", &[]);
        inside.args(["bench-inside", "bare-read", "--config"]).arg(&config).args(["--database", database.as_str()]);
        let mut bare = Child::start("trustfleet-lab bench-inside", inside)?;
        let line = bare.line_with("address", START_LIMIT).await?;
        let said: Value = serde_json::from_str(&line).map_err(BenchError::odd("where the bare server listens"))?;
        let address = said["address"].as_str().unwrap_or_default();
        let address = address.parse().map_err(BenchError::odd("where the bare server listens"))?;
        harness
            .pairs("fleet.api_read", async || {
                let value = rate(server.address(), &requests, CONNECTIONS, during).await?;
                Ok(Pair { value, baseline: rate(address, &requests, CONNECTIONS, during).await? })
            })
            .await;
        bare.kill().await;
        server.stop().await?;
    }
    // Last: it changes devices, and leaves a full outbox behind. Each run takes devices of its own.
    let (each, mut skip) = (harness.size(20_000, 4_000), 0);
    harness
        .pairs("fleet.commit", async || {
            let said = ask("commit", each, skip)?;
            skip += each;
            Ok(Pair { value: inside::number(&said, "committed")?, baseline: inside::number(&said, "written")? })
        })
        .await;
    Ok(())
}

/// Paths of trustpoints of the first tenant in an order of chance.
async fn paths(cluster: &url::Url) -> Result<Vec<String>, BenchError> {
    let client = data::superuser(cluster, WORK).await?;
    let sql = "SELECT d.name FROM devices d JOIN tenants t USING (tenant_id) WHERE t.name = $1 ORDER BY md5(d.name) LIMIT 5000";
    let rows = client.query(sql, &[&TENANT]).await.map_err(BenchError::sql("looking for devices"))?;
    let path = |name: &str| format!("/v1/tenants/{TENANT}/devices/{name}/trustpoints/default");
    Ok(rows.iter().map(|row| path(row.get(0))).collect())
}
