//! Row level security: the second wall behind the tenant-bound transaction.

use tokio_postgres::Client;
use trustfleet_controller::db::DbError;

use crate::{
    fixture::{Fixture, add_agent, add_device, add_tenant},
    support::connect,
};

const TABLES: [&str; 13] = [
    "tenants",
    "join_tokens",
    "agents",
    "secrets",
    "entities",
    "ca_servers",
    "policies",
    "devices",
    "trustpoints",
    "jobs",
    "outbox",
    "certificates",
    "audit",
];

/// Rows that the API's role sees in a table, as the tenant that is set, or none.
async fn seen(api: &Client, table: &str) -> Option<i64> {
    let sql = format!("SELECT count(*) FROM {table}");
    // No right to read at all is as good as no row.
    api.query_one(&sql, &[]).await.ok().map(|row| row.get(0))
}

/// What outlives its tenant.
const KEPT: &str = "audit";

#[actix::test]
async fn every_table_with_a_tenant_is_purged_with_it_unless_it_is_of_the_audit_log() {
    let fixture = Fixture::new().await;
    let sql =
        "SELECT c.relname::text, EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND p.polname = 'purge')
               FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id'
               WHERE c.relkind IN ('r', 'p') AND c.relnamespace = 'public'::regnamespace ORDER BY 1";
    let rows = fixture.admin.query(sql, &[]).await.unwrap();
    assert!(rows.len() >= 13, "only {} tables were found", rows.len());
    for row in rows {
        let (table, purged): (String, bool) = (row.get(0), row.get(1));
        assert_eq!(purged, !table.starts_with(KEPT), "policy `purge` of {table}: see V5__tenants_life.sql");
    }
    fixture.core.stop().await;
}

#[actix::test]
async fn without_a_tenant_the_apis_role_sees_nothing_at_all() {
    let fixture = Fixture::new().await;
    fixture.enroll().await;
    let api = connect(&fixture.place.api_url).await;
    for table in TABLES {
        assert!(matches!(seen(&api, table).await, None | Some(0)), "{table}");
    }
    assert_eq!(seen(&api, "api_tokens").await, None);
    fixture.core.stop().await;
}

#[actix::test]
async fn the_apis_role_sees_and_writes_only_the_tenant_of_its_transaction() {
    let fixture = Fixture::new().await;
    fixture.enroll().await;
    let services = fixture.services();
    let other = add_tenant(services, &fixture.admin, "other").await;
    let agent = add_agent(services, &fixture.admin, other, "site-9").await;
    add_device(services, &fixture.admin, other, agent.id, "ap-9").await;

    let api = connect(&fixture.place.api_url).await;
    api.batch_execute(&format!("SET trustfleet.tenant = '{other}'")).await.unwrap();
    for (table, rows) in
        [("tenants", 1), ("agents", 1), ("devices", 1), ("entities", 0), ("trustpoints", 0), ("jobs", 0), ("audit", 0)]
    {
        // The audit may be written, not read across the wall; devices of `acme` are not among these.
        assert_eq!(seen(&api, table).await, Some(rows), "{table}");
    }
    let moved = api
        .execute("UPDATE devices SET tenant_id = $1", &[&fixture.tenant.as_uuid()])
        .await
        .expect_err("a row must not leave its tenant");
    assert!(moved.to_string().contains("db error"), "{moved}");
    let deleted = api.execute("DELETE FROM devices WHERE name = 'ap-1'", &[]).await.unwrap();
    assert_eq!(deleted, 0, "a device of another tenant was deleted");
    fixture.core.stop().await;
}

#[actix::test]
async fn a_tenant_bound_transaction_finds_no_device_of_another_tenant() {
    let fixture = Fixture::new().await;
    let other = add_tenant(fixture.services(), &fixture.admin, "other").await;
    let device = fixture.device;
    let store = &fixture.services().store;
    let found = store.tenant_tx(other, "test", async |tx| tx.device_version(device).await).await;
    assert!(matches!(found, Ok::<_, DbError>(None)), "{found:?}");
    let found = store.tenant_tx(fixture.tenant, "test", async |tx| tx.device_version(device).await).await;
    assert!(matches!(found, Ok::<_, DbError>(Some(_))), "{found:?}");
    fixture.core.stop().await;
}

#[actix::test]
async fn devices_that_are_loaded_together_are_found_in_their_own_tenants_only() {
    let (first, second) = Fixture::with_another_tenant().await;
    let asked = [
        (first.tenant, first.device),
        (second.tenant, second.device),
        (first.tenant, second.device),
        (second.tenant, first.device),
    ];
    let store = &first.services().store;
    let loaded = store.snapshot_tx("test", async |tx| tx.device_states_fetch(&asked).await).await;
    let mut loaded = loaded.map_err(|error: DbError| error).unwrap();
    for (fixture, key) in [(&first, asked[0]), (&second, asked[1])] {
        let state = loaded.remove(&key).unwrap().unwrap();
        assert_eq!((state.device.tenant_id, state.device.id), key);
        assert_eq!(state.trustpoints.keys().collect::<Vec<_>>(), [&fixture.trustpoint]);
    }
    assert!(loaded.is_empty(), "{loaded:?}");
    first.core.stop().await;
    second.core.stop().await;
}

#[actix::test]
async fn the_audit_can_be_neither_changed_nor_emptied_by_the_controllers_roles() {
    let fixture = Fixture::new().await;
    for url in [&fixture.place.api_url, &fixture.place.system_url] {
        let client = connect(url).await;
        for sql in ["UPDATE audit SET actor = 'x'", "DELETE FROM audit", "TRUNCATE audit"] {
            assert!(client.batch_execute(sql).await.is_err(), "{sql} was allowed");
        }
    }
    fixture.core.stop().await;
}

#[actix::test]
async fn a_read_of_a_tenant_can_write_nothing() {
    let fixture = Fixture::new().await;
    let now = fixture.services().clock.now();
    let version = "SELECT version FROM devices";
    let before = fixture.value::<i64>(version).await;
    let store = &fixture.services().store;
    let tried: Result<(), DbError> = store
        .tenant_read(fixture.tenant, "test", async |tx| {
            let device = tx.registered_device_fetch(&"ap-1".parse().unwrap()).await?.device;
            tx.registered_device_update(&device, now).await
        })
        .await;
    let refused = format!("{:?}", tried.unwrap_err());
    assert!(refused.contains("read-only transaction"), "{refused}");
    assert_eq!(fixture.value::<i64>(version).await, before);
    fixture.core.stop().await;
}
