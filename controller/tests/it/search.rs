//! Searching a fleet: what is found, page by page, and what it costs the database when the fleet is large.

use serde_json::{Value, json};
use trustfleet_controller::db::{CertificateFilter, DbError, DeviceFilter, TrustpointFilter, Wanted};
use trustfleet_model::{device::Labels, field::Violations, ids::TenantId};

use crate::api_house::House;

fn labels(pairs: &[(&str, &str)]) -> Labels {
    let pairs = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Labels::parse(&pairs, &mut Violations::new())
}

/// A page of a list, and all pages of it read two by two.
async fn found(house: &House, path: &str, key: &str) -> Vec<String> {
    let (mut names, mut after) = (Vec::new(), String::new());
    loop {
        let mark = if path.contains('?') { '&' } else { '?' };
        let answer =
            house.get(&format!("/v1/tenants/acme/{path}{mark}limit=2{after}"), &house.platform).await.expect(200);
        let items = answer.body["items"].as_array().unwrap();
        assert!(items.len() <= 2);
        names.extend(items.iter().map(|item| item[key].as_str().unwrap().to_owned()));
        match answer.body["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return names,
        }
    }
}

#[actix::test]
async fn devices_trustpoints_and_certificates_are_found_by_labels_and_everything_else_together_page_by_page() {
    let house = House::open().await;
    house.tenant("acme").await;
    house.furnish("acme", "s").await;
    let post = async |path: &str, body: Value| {
        house.post(&format!("/v1/tenants/acme/{path}"), &house.platform, body).await.expect(201);
    };
    for (name, site, role) in
        [("b-1", "bonn", "edge"), ("b-2", "bonn", "core"), ("c-1", "koeln", "edge"), ("b-3", "bonn", "edge")]
    {
        post("devices", json!({"name": name, "agent": "site-1", "labels": {"site": site, "role": role}})).await;
        let trustpoint = json!({"name": "mgmt", "entity": "default", "ca_server": "default", "policy": "default"});
        post(&format!("devices/{name}/trustpoints"), trustpoint).await;
    }
    assert_eq!(found(&house, "devices?selector=site=bonn", "name").await, ["b-1", "b-2", "b-3"]);
    assert_eq!(found(&house, "devices?selector=site=bonn,role=edge&agent=site-1", "name").await, ["b-1", "b-3"]);
    assert_eq!(found(&house, "devices?selector=site=nowhere", "name").await, [""; 0]);
    assert_eq!(found(&house, "trustpoints?selector=site=bonn,role=edge", "device").await, ["b-1", "b-3"]);
    assert_eq!(
        found(&house, "trustpoints?selector=role=edge&status=not_enrolled&ca_server=default&policy=default", "device")
            .await,
        ["b-1", "c-1", "b-3"]
    );
    assert_eq!(found(&house, "trustpoints?ca_server=unknown", "device").await, [""; 0]);

    // Labels that change are followed, those of a device that goes are gone.
    let path = "/v1/tenants/acme/devices/b-2";
    let moved = json!({"agent": "site-1", "labels": {"site": "koeln"}});
    house.call("PUT", path, Some(&house.platform), Some(moved)).await.expect(200);
    assert_eq!(found(&house, "devices?selector=site=koeln", "name").await, ["b-2", "c-1"]);
    assert_eq!(found(&house, "devices?selector=role=core", "name").await, [""; 0]);
    house.call("DELETE", &format!("{path}?certificates=keep"), Some(&house.platform), None).await.expect(204);
    assert_eq!(found(&house, "devices?selector=site=koeln", "name").await, ["c-1"]);

    let admin = house.place.admin().await;
    let (_, der) = crate::fixture::certificate("ap-1");
    let sql = "INSERT INTO certificates (tenant_id, certificate_id, device_id, trustpoint_id, job_id, slot, serial, subject, issuer, \
               not_before, not_after, sha256, public_key_sha256, der, chain, issued_at) \
               SELECT t.tenant_id, gen_random_uuid(), t.device_id, t.trustpoint_id, gen_random_uuid(), \
                      CASE n WHEN 1 THEN 'active' ELSE 'retired' END, n || '-' || d.name, '', 'CN=CA ' || n, now(), \
                      now() + n * interval '10 days', '', '', $1, '{}', now() \
               FROM trustpoints t JOIN devices d USING (tenant_id, device_id), generate_series(1, 2) n";
    admin.execute(sql, &[&der]).await.unwrap();
    let serials = async |query: &str| found(&house, &format!("certificates?{query}"), "serial").await;
    let mut bonn = serials("selector=site=bonn&slot=active").await;
    bonn.sort();
    assert_eq!(bonn, ["1-b-1", "1-b-3"]);
    assert_eq!(serials("issuer=CN%3DCA%202&device=c-1&ca_server=default").await, ["2-c-1"]);
    let days = async |n: i32| -> String {
        let sql = "SELECT to_char(now() + $1::int * interval '1 day', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')";
        admin.query_one(sql, &[&n]).await.unwrap().get(0)
    };
    let (soon, later) = (days(15).await, days(30).await);
    assert_eq!(serials(&format!("expires_before={soon}&device=c-1")).await, ["1-c-1"]);
    assert_eq!(serials(&format!("expires_after={soon}&expires_before={later}&device=c-1")).await, ["2-c-1"]);
    // Keys of certificates from before are looked at by the housekeeping.
    let filled: Result<u64, DbError> =
        house.services().store.system_tx("test", async |tx| tx.key_types_fill(1_000).await).await;
    assert!(filled.is_ok(), "{filled:?}");
    let keys = found(&house, "certificates?device=c-1&key=ecdsa-p256", "key").await;
    assert_eq!(keys, ["ecdsa-p256", "ecdsa-p256"]);
    assert_eq!(serials("key=rsa-2048").await, [""; 0]);

    for (query, wrong) in [
        ("devices?selector=site", "selector selector"),
        ("devices?selector=", "selector selector"),
        ("trustpoints?expires_before=tomorrow", "expires_before format"),
        ("certificates?selector=a=b,a=c", "selector selector"),
    ] {
        let answer = house.get(&format!("/v1/tenants/acme/{query}"), &house.platform).await.expect(422);
        assert!(answer.violations().contains(&wrong.to_owned()), "{query}: {}", answer.text);
    }
    house.close().await;
}

/// Rows that the scans of a plan have looked at, and the pages that it has read.
fn cost(plan: &Value) -> (f64, f64) {
    fn rows(node: &Value) -> f64 {
        let number = |key: &str| node[key].as_f64().unwrap_or(0.0);
        let loops = number("Actual Loops");
        let removed = number("Rows Removed by Filter")
            + number("Rows Removed by Index Recheck")
            + number("Rows Removed by Join Filter");
        let scanned =
            if node["Node Type"].as_str().unwrap_or("").contains("Scan") { number("Actual Rows") } else { 0.0 };
        let below: f64 = node["Plans"].as_array().into_iter().flatten().map(rows).sum();
        (scanned + removed) * loops + below
    }
    let root = &plan[0]["Plan"];
    let pages = root["Shared Hit Blocks"].as_f64().unwrap() + root["Shared Read Blocks"].as_f64().unwrap();
    (rows(root), pages)
}

#[actix::test]
async fn a_page_of_a_search_reads_a_bounded_number_of_rows_and_pages_of_a_large_fleet() {
    const LIMIT: i64 = 101;
    /// Rows and pages for a page of a hundred: all the look-ups of names with them.
    const MOST: f64 = 6_000.0;
    let house = House::open().await;
    for tenant in ["acme", "other"] {
        house.tenant(tenant).await;
        house.furnish(tenant, "s").await;
    }
    let admin = house.place.admin().await;
    // Half of the devices at one site, one in a thousand at another; 1% of another CA and nearly everything in one state.
    for sql in [
        "INSERT INTO devices (tenant_id, device_id, name, agent_id, labels, shard, version, created_at, updated_at, updated_by)
         SELECT a.tenant_id, gen_random_uuid(), 'd' || lpad(n::text, 7, '0'), a.agent_id,
                jsonb_build_object('site', CASE WHEN n % 2 = 0 THEN 'large' WHEN n % 1000 = 1 THEN 'small' ELSE 's' || n % 500 END,
                                   'role', CASE WHEN n % 10 = 0 THEN 'edge' ELSE 'core' END),
                0, 1, now(), now(), 'test' FROM agents a, generate_series(1, 100000) n",
        "INSERT INTO ca_servers SELECT tenant_id, gen_random_uuid(), 'second', spec, revision, created_at, updated_at, updated_by
         FROM ca_servers",
        "INSERT INTO trustpoints (tenant_id, trustpoint_id, device_id, name, entity_id, ca_server_id, policy_id, state, status,
                                  not_after, updated_at, planned_revision)
         SELECT d.tenant_id, gen_random_uuid(), d.device_id, 'mgmt', e.entity_id, c.ca_server_id, p.policy_id,
                '{}', CASE WHEN right(d.name, 3) = '123' THEN 'failed' ELSE 'active' END,
                now() + right(d.name, 5)::int * interval '5 minutes', now(), 1000000
         FROM devices d JOIN entities e USING (tenant_id) JOIN policies p USING (tenant_id)
         JOIN ca_servers c ON c.tenant_id = d.tenant_id
              AND c.name = CASE WHEN right(d.name, 2) = '42' THEN 'second' ELSE 'default' END
         WHERE d.name LIKE 'd0%' OR d.name LIKE 'd1%'",
        "INSERT INTO certificates (tenant_id, certificate_id, device_id, trustpoint_id, job_id, slot, serial, subject, issuer,
                                   not_before, not_after, sha256, public_key_sha256, der, chain, issued_at, key_type)
         SELECT t.tenant_id, gen_random_uuid(), t.device_id, t.trustpoint_id, gen_random_uuid(),
                CASE WHEN t.status = 'failed' THEN 'staged' ELSE 'active' END, 'x', 'CN=x',
                CASE c.name WHEN 'second' THEN 'CN=Rare CA' ELSE 'CN=Common CA' END, now(), t.not_after, '', '', '', '{}', now(),
                CASE WHEN t.status = 'failed' THEN 'rsa-2048' ELSE 'ecdsa-p256' END
         FROM trustpoints t JOIN ca_servers c USING (tenant_id, ca_server_id) WHERE t.not_after IS NOT NULL",
        "ANALYZE",
    ] {
        admin.batch_execute(sql).await.unwrap();
    }
    let count: i64 = admin.query_one("SELECT count(*) FROM certificates", &[]).await.unwrap().get(0);
    assert!(count >= 200_000, "{count}");
    let tenant: uuid::Uuid =
        admin.query_one("SELECT tenant_id FROM tenants WHERE name = 'acme'", &[]).await.unwrap().get(0);
    let tenant = TenantId::from(tenant);

    let (large, small, edge) =
        (labels(&[("site", "large")]), labels(&[("site", "small")]), labels(&[("site", "large"), ("role", "edge")]));
    let nobody = labels(&[("site", "nobody")]);
    let text = |text: &str| Some(text.to_owned());
    let soon = house.services().clock.now().checked_add(jiff::SignedDuration::from_hours(24 * 200)).unwrap();
    let mut searches: Vec<(String, Wanted)> = Vec::new();
    for (name, labels) in [("large", &large), ("small", &small), ("edge", &edge), ("nobody", &nobody)] {
        let labels = labels.clone();
        let device = DeviceFilter { labels: labels.clone(), after: text("d0050000"), ..DeviceFilter::default() };
        let trustpoint = TrustpointFilter { labels: labels.clone(), ..TrustpointFilter::default() };
        let active = CertificateFilter { labels: labels.clone(), slot: text("active"), ..CertificateFilter::default() };
        let later = CertificateFilter { labels, expires_after: Some(soon), ..CertificateFilter::default() };
        searches.push((format!("devices of {name}"), Wanted::Devices(device)));
        searches.push((format!("trustpoints of {name}"), Wanted::Trustpoints(trustpoint)));
        searches.push((format!("active certificates of {name}"), Wanted::Certificates(active)));
        searches.push((format!("later certificates of {name}"), Wanted::Certificates(later)));
    }
    for (name, filter) in [
        ("state", TrustpointFilter { status: text("failed"), ..TrustpointFilter::default() }),
        ("usual state", TrustpointFilter { status: text("active"), ..TrustpointFilter::default() }),
        ("CA", TrustpointFilter { ca_server: text("second"), ..TrustpointFilter::default() }),
        ("device", TrustpointFilter { device: text("d0001234"), ..TrustpointFilter::default() }),
        (
            "label and state",
            TrustpointFilter { labels: large.clone(), status: text("failed"), ..TrustpointFilter::default() },
        ),
        (
            "all together",
            TrustpointFilter {
                labels: edge.clone(),
                status: text("active"),
                ca_server: text("default"),
                policy: text("default"),
                expires_after: Some(soon),
                ..TrustpointFilter::default()
            },
        ),
    ] {
        searches.push((format!("trustpoints by {name}"), Wanted::Trustpoints(filter)));
    }
    for (name, filter) in [
        ("slot", CertificateFilter { slot: text("staged"), ..CertificateFilter::default() }),
        ("issuer", CertificateFilter { issuer: text("CN=Rare CA"), ..CertificateFilter::default() }),
        (
            "usual issuer",
            CertificateFilter {
                issuer: text("CN=Common CA"),
                expires_after: Some(soon),
                ..CertificateFilter::default()
            },
        ),
        ("CA", CertificateFilter { ca_server: text("second"), ..CertificateFilter::default() }),
        ("key", CertificateFilter { key: text("rsa-2048"), ..CertificateFilter::default() }),
        (
            "usual key",
            CertificateFilter { key: text("ecdsa-p256"), expires_after: Some(soon), ..CertificateFilter::default() },
        ),
        ("nobody's key", CertificateFilter { key: text("rsa-1024"), ..CertificateFilter::default() }),
        ("revocation", CertificateFilter { revocation: text("failed"), ..CertificateFilter::default() }),
        ("device", CertificateFilter { device: text("d0001234"), ..CertificateFilter::default() }),
        ("range", CertificateFilter { expires_after: Some(soon), ..CertificateFilter::default() }),
    ] {
        searches.push((format!("certificates by {name}"), Wanted::Certificates(filter)));
    }
    let mut told = String::new();
    let mut dear = Vec::new();
    for (name, search) in &searches {
        let plan: Result<Value, DbError> =
            house.services().store.tenant_tx(tenant, "test", async |tx| tx.search_plan(search, LIMIT).await).await;
        let plan = plan.unwrap();
        let (rows, pages) = cost(&plan);
        told += &format!("{name}: {rows} rows, {pages} pages\n");
        // What no order of the list leads to is gathered and sorted, or walked: about the square root of it all.
        let unaligned = ["certificates by CA", "trustpoints by all together"].contains(&name.as_str());
        let most = if unaligned { 7.0 * MOST } else { MOST };
        if rows > most || pages > most {
            dear.push(format!("{name}: {rows} rows, {pages} pages\n{plan:#}"));
        }
    }
    println!("{told}");
    assert!(dear.is_empty(), "{told}\n{}", dear.join("\n"));
    house.close().await;
}
