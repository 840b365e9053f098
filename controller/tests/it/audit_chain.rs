//! The chain over the audit log: what was changed, removed, inserted or cut off by whoever owns the database shows.

use std::{collections::BTreeMap, sync::Arc};

use jiff::SignedDuration;
use serde_json::json;
use tokio_postgres::Client;
use trustfleet_controller::{
    app::Core,
    audit::{Finding, Head, Heads, Line, Report, Verifier},
};
use trustfleet_model::clock::{Clock, ManualClock, SystemClock};

use crate::{
    api_house::House,
    fixture::Fixture,
    support::{Place, backend, connect, until},
};

/// A house whose chains are signed every second.
async fn house() -> House {
    House::open_with(|config| config.audit.checkpoint_s = 1).await
}

/// The export of a tenant's log, line by line, in answers of `limit` rows.
async fn export(house: &House, tenant: &str, limit: u16) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut after = String::new();
    loop {
        let path = format!("/v1/tenants/{tenant}/audit/export?limit={limit}{after}");
        let answer = house.get(&path, &house.platform).await.expect(200);
        assert_eq!(answer.content_type, "application/x-ndjson");
        lines.extend(answer.text.lines().map(|line| serde_json::from_str::<Line>(line).unwrap()));
        match lines.last() {
            Some(Line::End { next: Some(next) }) => after = format!("&after={next}"),
            Some(Line::End { next: None }) => return lines,
            other => panic!("an export must end with its end: {other:?}"),
        }
    }
}

fn verify(lines: &[Line], heads: Vec<Head>) -> Report {
    let mut verifier = Verifier::new(None, heads, SystemClock.now());
    lines.iter().cloned().for_each(|line| verifier.line(line));
    verifier.finish()
}

async fn findings(house: &House, heads: &[Head]) -> Vec<Finding> {
    verify(&export(house, "acme", 1000).await, heads.to_vec()).findings
}

/// Waits until everything in the log of `acme` is chained and signed; gives its head.
async fn signed(house: &House) -> Heads {
    until("the log is signed", async || {
        let report = verify(&export(house, "acme", 1000).await, Vec::new());
        (report.open == 0 && report.rows > 0).then_some(())
    })
    .await;
    let answer = house.get("/v1/tenants/acme/audit/heads", &house.platform).await.expect(200);
    serde_json::from_str(&answer.text).unwrap()
}

/// A house with some thirty rows in the log of `acme`, all of them signed.
async fn furnished() -> (House, Client, Heads) {
    let house = house().await;
    house.tenant("acme").await;
    house.furnish("acme", "s").await;
    for n in 0..20 {
        let body = json!({"name": format!("e{n}"), "subject": "CN=x"});
        house.post("/v1/tenants/acme/entities", &house.platform, body).await.expect(201);
        if n == 10 {
            signed(&house).await;
        }
    }
    let heads = signed(&house).await;
    assert_eq!(findings(&house, &heads.heads).await, []);
    let admin = house.place.admin().await;
    (house, admin, heads)
}

/// The id of the row at this place of the chain.
async fn row_at(admin: &Client, seq: i64) -> i64 {
    let sql = "SELECT audit_id FROM audit_links WHERE seq = $1 AND tenant_id = (SELECT tenant_id FROM tenants WHERE name = 'acme')";
    admin.query_one(sql, &[&seq]).await.unwrap().get(0)
}

#[actix::test]
async fn an_untouched_log_verifies_whole_and_in_pages_and_against_its_own_head() {
    let (house, _, heads) = furnished().await;
    assert_eq!(heads.public_key, house.services().keys.signing.public_key());
    let whole = verify(&export(&house, "acme", 1000).await, heads.heads.clone());
    let paged = verify(&export(&house, "acme", 7).await, heads.heads.clone());
    assert_eq!(whole, paged);
    assert_eq!((whole.findings.len(), whole.signed), (0, whole.end));
    assert!(whole.rows >= 30 && whole.checkpoints >= 2, "{whole:?}");
    // What is written by the group commit is sealed like what is written by transactions.
    let inserted = house.place.admin().await;
    let bad: i64 = inserted.query_one("SELECT count(*) FROM audit_links WHERE NOT sealed", &[]).await.unwrap().get(0);
    assert_eq!(bad, 0);
    house.close().await;
}

#[actix::test]
async fn a_changed_row_is_found_and_named_also_when_the_chain_was_made_to_fit() {
    let (house, admin, _) = furnished().await;
    let id = row_at(&admin, 5).await;
    let before: String = admin.query_one("SELECT actor FROM audit WHERE audit_id = $1", &[&id]).await.unwrap().get(0);
    admin.execute("UPDATE audit SET actor = 'token:0 (somebody else)' WHERE audit_id = $1", &[&id]).await.unwrap();
    assert_eq!(findings(&house, &[]).await, [Finding::Changed { seq: 5 }]);

    // A forger who computes all later links anew still lacks the key to sign them.
    let mut lines = export(&house, "acme", 1000).await;
    let mut hash = None;
    let mut tenant = None;
    for line in &mut lines {
        match line {
            Line::Log(log) => {
                tenant = Some(log.tenant_id);
                hash = Some(trustfleet_controller::audit::Hash::beginning(log.tenant_id));
            }
            Line::Row(row) => {
                let (Some(link), Some(record)) = (&mut row.link, &row.row) else { continue };
                let content = record.content(tenant.unwrap());
                link.hash = hash.unwrap().next(tenant.unwrap(), link.seq, record.id, link.sealed, &content);
                hash = Some(link.hash);
            }
            _ => {}
        }
    }
    let found = verify(&lines, Vec::new()).findings;
    assert!(!found.is_empty() && found.iter().all(|f| matches!(f, Finding::NotAsSigned { .. })), "{found:?}");

    admin.execute("UPDATE audit SET actor = $2 WHERE audit_id = $1", &[&id, &before]).await.unwrap();
    assert_eq!(findings(&house, &[]).await, []);
    for sql in [
        "UPDATE audit SET at = at + interval '1 microsecond' WHERE audit_id = $1",
        "UPDATE audit SET source = '203.0.113.9' WHERE audit_id = $1",
        "UPDATE audit SET detail = detail || '{\"x\": 1}' WHERE audit_id = $1",
        "UPDATE audit SET after = '{}' WHERE audit_id = $1",
        "UPDATE audit SET outcome = 'refused' WHERE audit_id = $1",
    ] {
        admin.execute(sql, &[&id]).await.unwrap();
        assert_eq!(findings(&house, &[]).await, [Finding::Changed { seq: 5 }], "{sql}");
    }
    house.close().await;
}

#[actix::test]
async fn a_removed_row_is_found_with_and_without_its_link() {
    let (house, admin, _) = furnished().await;
    let id = row_at(&admin, 6).await;
    admin.execute("DELETE FROM audit WHERE audit_id = $1", &[&id]).await.unwrap();
    assert_eq!(findings(&house, &[]).await, [Finding::Removed { seq: 6 }]);
    admin.execute("DELETE FROM audit_links WHERE audit_id = $1", &[&id]).await.unwrap();
    let found = findings(&house, &[]).await;
    assert!(found.contains(&Finding::Gap { after: 5, next: 7 }), "{found:?}");
    house.close().await;
}

#[actix::test]
async fn an_inserted_row_is_found_because_no_controller_has_sealed_it() {
    let (house, admin, _) = furnished().await;
    let copy = "INSERT INTO audit (tenant_id, at, actor, role, action, object_kind, object_id, detail, outcome, seal) \
                SELECT tenant_id, now(), 'controller', 'controller', 'device_deleted', 'device', object_id, '{}', 'done', $1 \
                FROM audit WHERE audit_id = $2";
    let id = row_at(&admin, 7).await;
    admin.execute(copy, &[&vec![7_u8; 32], &id]).await.unwrap();
    let heads = signed(&house).await;
    let end = heads.heads[0].checkpoint.seq;
    assert_eq!(findings(&house, &heads.heads).await, [Finding::Inserted { seq: end }]);

    // A true copy of an older row has its seal, and is found as what it is.
    let replay = "INSERT INTO audit (tenant_id, at, actor, role, source, request_id, trace_id, action, object_kind, object_id, \
                  before, after, detail, outcome, seal) SELECT tenant_id, at, actor, role, source, request_id, trace_id, action, \
                  object_kind, object_id, before, after, detail, outcome, seal FROM audit WHERE audit_id = $1";
    admin.execute(replay, &[&id]).await.unwrap();
    signed(&house).await;
    let found = findings(&house, &[]).await;
    assert_eq!(found, [Finding::Inserted { seq: end }, Finding::Repeated { seq: end + 1, of: 7 }]);
    house.close().await;
}

#[actix::test]
async fn a_tail_that_was_cut_off_with_its_signatures_shows_beside_a_head_that_was_kept() {
    let (house, admin, heads) = furnished().await;
    let end = heads.heads[0].checkpoint.seq;
    // Rows alone: the links tell of them.
    let id = row_at(&admin, end).await;
    admin.execute("DELETE FROM audit WHERE audit_id = $1", &[&id]).await.unwrap();
    assert_eq!(findings(&house, &[]).await, [Finding::Removed { seq: end }]);
    // Rows and links: the checkpoint does.
    let tenant = "tenant_id = (SELECT tenant_id FROM tenants WHERE name = 'acme')";
    let cut = end - 3;
    admin
        .batch_execute(&format!(
            "DELETE FROM audit WHERE audit_id IN (SELECT audit_id FROM audit_links WHERE {tenant} AND seq > {cut});
             DELETE FROM audit_links WHERE {tenant} AND seq > {cut};"
        ))
        .await
        .unwrap();
    let found = findings(&house, &[]).await;
    assert!(found.contains(&Finding::NotAsSigned { seq: end }), "{found:?}");
    // All of it, and the place where the chain goes on: the log alone looks whole.
    admin
        .batch_execute(&format!(
            "DELETE FROM audit_checkpoints WHERE {tenant} AND seq > {cut};
             UPDATE audit_heads h SET seq = l.seq, hash = l.hash, signed_seq = 0 FROM audit_links l
                 WHERE h.{tenant} AND l.tenant_id = h.tenant_id AND l.seq = {cut};"
        ))
        .await
        .unwrap();
    assert_eq!(findings(&house, &[]).await, []);
    assert_eq!(findings(&house, &heads.heads).await, [Finding::TailCut { seq: end, end: cut }]);
    // And when it has grown beyond the head again, other rows are there.
    for n in 0..5 {
        let body = json!({"name": format!("later{n}"), "subject": "CN=x"});
        house.post("/v1/tenants/acme/entities", &house.platform, body).await.expect(201);
    }
    signed(&house).await;
    assert_eq!(findings(&house, &[]).await, []);
    assert_eq!(findings(&house, &heads.heads).await, [Finding::OtherThanHead { seq: end }]);
    house.close().await;
}

#[actix::test]
async fn a_log_whose_beginning_or_signatures_are_gone_does_not_verify() {
    let (house, admin, _) = furnished().await;
    let tenant = "tenant_id = (SELECT tenant_id FROM tenants WHERE name = 'acme')";
    let first: i64 =
        admin.query_one(&format!("SELECT min(seq) FROM audit_checkpoints WHERE {tenant}"), &[]).await.unwrap().get(0);
    admin
        .batch_execute(&format!(
            "DELETE FROM audit WHERE audit_id IN (SELECT audit_id FROM audit_links WHERE {tenant} AND seq <= {first});
             DELETE FROM audit_links WHERE {tenant} AND seq <= {first};"
        ))
        .await
        .unwrap();
    assert_eq!(findings(&house, &[]).await, [Finding::BeginningCut { first: first + 1 }]);

    let forged = format!("UPDATE audit_checkpoints SET at = at - interval '1 day' WHERE {tenant} AND seq = {first}");
    admin.batch_execute(&forged).await.unwrap();
    let found = findings(&house, &[]).await;
    assert!(found.contains(&Finding::BadSignature { seq: first }), "{found:?}");
    house.close().await;
}

#[actix::test]
async fn without_checkpoints_an_old_log_is_told_as_unsigned() {
    let (house, _, _) = furnished().await;
    let lines: Vec<Line> =
        export(&house, "acme", 1000).await.into_iter().filter(|line| !matches!(line, Line::Checkpoint(_))).collect();
    let tomorrow = SystemClock.now() + SignedDuration::from_hours(24);
    let mut verifier = Verifier::new(None, Vec::new(), tomorrow);
    lines.into_iter().for_each(|line| verifier.line(line));
    assert_eq!(verifier.finish().findings, [Finding::Unsigned { since: 1 }]);
    house.close().await;
}

#[actix::test]
async fn retention_drops_whole_signed_segments_and_what_is_left_verifies() {
    drops_old_segments("retention_days = 30", 0).await;
}

#[actix::test]
async fn a_tenant_that_wants_its_audit_log_for_a_shorter_time_has_it_for_that() {
    drops_old_segments("", 30).await;
    drops_old_segments("retention_days = 400", 30).await;
    drops_old_segments("retention_days = 30", 400).await;
}

async fn drops_old_segments(configured: &str, wanted: i32) {
    let place = Place::make().await;
    let start = SystemClock.now() - SignedDuration::from_hours(24 * 40);
    let config = |more: &str| place.config(&format!("[audit]\ncheckpoint_s = 1\n{more}"));
    // Forty days ago.
    let clock = Arc::new(ManualClock::new(start));
    let core = Core::start(config(""), backend().handle(), Arc::clone(&clock) as Arc<dyn Clock>).await.unwrap();
    let fixture = Fixture::on(place.clone(), core).await;
    let count = async |sql: &str| -> i64 { fixture.admin.query_one(sql, &[]).await.unwrap().get(0) };
    until("the first rows are signed", async || {
        clock.advance(SignedDuration::from_secs(5));
        (count("SELECT count(*) FROM audit_checkpoints").await > 0).then_some(())
    })
    .await;
    let boundary = count("SELECT max(seq) FROM audit_checkpoints").await;
    let tenant = fixture.tenant;
    let admin = connect(&place.admin_url).await;
    admin.execute("UPDATE tenants SET audit_days = $1", &[&wanted]).await.unwrap();
    fixture.core.stop().await;

    // Today.
    let core = Core::start(config(configured), backend().handle(), Arc::new(SystemClock)).await.unwrap();
    let left = async |sql: &str| -> i64 { admin.query_one(sql, &[]).await.unwrap().get(0) };
    until("old rows are dropped", async || {
        (left("SELECT count(*) FROM audit WHERE action = 'audit_segments_dropped'").await > 0).then_some(())
    })
    .await;
    until("that is signed", async || (left("SELECT max(seq) FROM audit_checkpoints").await > boundary).then_some(()))
        .await;
    assert_eq!(left("SELECT min(seq) FROM audit_links").await, boundary + 1);
    assert_eq!(left("SELECT min(seq) FROM audit_checkpoints").await, boundary);

    let lines = lines_of(&core, tenant).await;
    let report = verify(&lines, Vec::new());
    assert_eq!(report.findings, [], "{report:?}");
    assert_eq!(report.signed, report.end);
    core.stop().await;
}

/// The log as the API exports it, read from the store.
async fn lines_of(core: &Core, tenant: trustfleet_model::ids::TenantId) -> Vec<Line> {
    use trustfleet_controller::{
        audit::{FORMAT, LogLine},
        db::DbError,
    };
    let services = &core.services;
    let (links, checkpoints) = services
        .store
        .tenant_tx(tenant, "test", async |tx| {
            Ok::<_, DbError>((tx.audit_chained(0, 1000).await?, tx.audit_checkpoints(1, i64::MAX).await?))
        })
        .await
        .unwrap();
    let public_key = services.keys.signing.public_key();
    let mut lines =
        vec![Line::Log(LogLine { format: FORMAT, tenant_id: tenant, exported_at: services.clock.now(), public_key })];
    let mut signed: BTreeMap<i64, _> = checkpoints.into_iter().map(|c| (c.seq, c)).collect();
    let first = links[0].link.as_ref().unwrap().seq;
    lines.extend(signed.remove(&(first - 1)).map(Line::Checkpoint));
    for link in links {
        let seq = link.link.as_ref().unwrap().seq;
        lines.push(Line::Row(Box::new(link)));
        lines.extend(signed.remove(&seq).map(Line::Checkpoint));
    }
    lines
}

#[actix::test]
async fn the_controllers_roles_can_drop_nothing_but_old_signed_segments() {
    let (house, admin, heads) = furnished().await;
    let tenant: uuid::Uuid = heads.heads[0].tenant_id.as_uuid();
    let seq = heads.heads[0].checkpoint.seq;
    let system = connect(&house.place.system_url).await;
    let drop = "SELECT audit_segments_drop($1, $2)";
    for up_to in [seq, seq - 1] {
        let refused = system.query_one(drop, &[&tenant, &up_to]).await.unwrap_err();
        assert!(refused.as_db_error().unwrap().message().contains("signed more than a day ago"), "{refused:?}");
    }
    let api = connect(&house.place.api_url).await;
    assert!(api.query_one(drop, &[&tenant, &seq]).await.is_err());
    for url in [&house.place.api_url, &house.place.system_url] {
        let client = connect(url).await;
        for table in ["audit_links", "audit_checkpoints"] {
            for sql in [format!("UPDATE {table} SET seq = 1"), format!("DELETE FROM {table}")] {
                assert!(client.batch_execute(&sql).await.is_err(), "{sql} was allowed");
            }
        }
    }
    assert_eq!(findings(&house, &heads.heads).await, []);
    let rows: i64 = admin.query_one("SELECT count(*) FROM audit_links", &[]).await.unwrap().get(0);
    assert!(rows > 0);
    house.close().await;
}

#[actix::test]
async fn two_replicas_chain_one_log_without_a_fork_or_a_gap() {
    let (house, _, _) = furnished().await;
    let second = Core::start(
        house.place.config("[audit]\ncheckpoint_s = 1"),
        backend().handle(),
        Arc::new(SystemClock) as Arc<dyn Clock>,
    )
    .await
    .unwrap();
    for n in 0..30 {
        let body = json!({"name": format!("both{n}"), "subject": "CN=x"});
        house.post("/v1/tenants/acme/entities", &house.platform, body).await.expect(201);
    }
    let heads = signed(&house).await;
    assert_eq!(findings(&house, &heads.heads).await, []);
    second.stop().await;
    house.close().await;
}

#[actix::test]
async fn rows_of_a_restored_dump_are_chained_whatever_transactions_they_name() {
    let (house, admin, _) = furnished().await;
    // As after a restore into a cluster whose transactions are counted from lower numbers: rows, and the cursor, of later ones.
    admin
        .batch_execute(
            "UPDATE audit_cursor SET tx_id = 900000000000;
             DELETE FROM audit_links; DELETE FROM audit_checkpoints; DELETE FROM audit_heads;
             UPDATE audit SET tx_id = 900000000000 WHERE audit_id % 2 = 0;",
        )
        .await
        .unwrap();
    house
        .post("/v1/tenants/acme/entities", &house.platform, json!({"name": "new", "subject": "CN=x"}))
        .await
        .expect(201);
    until("all are chained", async || {
        let sql =
            "SELECT count(*) FROM audit a WHERE NOT EXISTS (SELECT FROM audit_links l WHERE l.audit_id = a.audit_id)";
        let left: i64 = admin.query_one(sql, &[]).await.unwrap().get(0);
        (left == 0).then_some(())
    })
    .await;
    signed(&house).await;
    assert_eq!(findings(&house, &[]).await, []);
    house.close().await;
}

#[actix::test]
async fn the_log_is_read_by_filters_page_by_page_and_by_its_own_tenant_alone() {
    let house = house().await;
    let [viewer, _, _] = house.tenant("acme").await;
    house.tenant("other").await;
    for n in 0..5 {
        let body = json!({"name": format!("e{n}"), "subject": "CN=x"});
        house.post("/v1/tenants/acme/entities", &house.platform, body).await.expect(201);
    }
    let path = "/v1/tenants/acme/audit?action=entity_created&limit=3";
    let first = house.get(path, &viewer).await.expect(200);
    assert_eq!(first.body["items"].as_array().unwrap().len(), 3);
    assert_eq!(first.body["items"][0]["detail"]["name"], "e4");
    let next = first.str("/next");
    let second = house.get(&format!("{path}&after={next}"), &viewer).await.expect(200);
    assert_eq!((second.body["items"].as_array().unwrap().len(), second.body["next"].is_null()), (2, true));

    let request = first.body["items"][0]["request_id"].as_str().unwrap();
    let one = house.get(&format!("/v1/tenants/acme/audit?request_id={request}"), &viewer).await.expect(200);
    assert_eq!(one.body["items"].as_array().unwrap().len(), 1);
    let now = SystemClock.now();
    let none =
        house.get(&format!("/v1/tenants/acme/audit?since={}", now + SignedDuration::from_hours(1)), &viewer).await;
    assert_eq!(none.expect(200).body["items"], json!([]));
    let wrong = house.get("/v1/tenants/acme/audit?object_id=x&outcome=perhaps", &viewer).await.expect(422);
    assert_eq!(wrong.violations().len(), 1);

    house.get("/v1/tenants/other/audit", &viewer).await.expect(404);
    house.get("/v1/audit", &viewer).await.expect(403);
    let all = house.get("/v1/audit/heads", &house.platform).await.expect(200);
    assert!(all.body["heads"].is_array(), "{}", all.text);
    house.close().await;
}
