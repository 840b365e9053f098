//! Devices that are away: how often their agents are heard of, and which certificates will end before they are back.

use jiff::SignedDuration;
use serde_json::{Value, json};
use trustfleet_model::clock::{Clock as _, SystemClock};
use trustfleet_model::contact::Rhythm;

use crate::{api_access::objects, api_house::House, fixture::Fixture, support::until};

const AT_RISK: &str = "/v1/tenants/acme/devices/at-risk";

async fn set(house: &House, sql: &str) {
    house.place.admin().await.batch_execute(sql).await.unwrap();
}

async fn risks(house: &House, token: &str, query: &str) -> Vec<Value> {
    house.get(&format!("{AT_RISK}{query}"), token).await.expect(200).body["items"].as_array().unwrap().clone()
}

#[actix::test]
async fn a_device_that_will_miss_its_renewal_is_listed_before_with_the_reason_and_one_that_is_there_is_not() {
    let house = House::open().await;
    let [viewer, _, admin] = house.tenant("acme").await;
    objects(&house).await;
    let certificate = |word: &str| {
        format!("UPDATE trustpoints SET status = 'active', next_action_at = now(), not_after = now() {word}")
    };
    set(&house, &certificate("+ interval '40 hours'")).await;
    let agent = |words: &str| format!("UPDATE agents SET {words}");
    set(&house, &agent("last_seen_at = now(), gap_mean_s = 300, gap_most_s = 300")).await;
    assert_eq!(risks(&house, &viewer, "").await, [] as [Value; 0], "it is there");
    set(&house, &agent("last_seen_at = now() - interval '30 hours', gap_mean_s = 50000, gap_most_s = 160000")).await;
    assert_eq!(risks(&house, &viewer, "").await, [] as [Value; 0], "away as usual, and back in time");

    set(&house, &agent("last_seen_at = now() - interval '50 hours'")).await;
    let told = risks(&house, &viewer, "").await;
    assert_eq!((&told[0]["device"], &told[0]["trustpoint"]), (&json!("ap-1"), &json!("mgmt")), "{told:?}");
    assert_eq!((&told[0]["risk"], &told[0]["usual_absence_s"]), (&json!("absent"), &json!(160_000)));
    assert!(told[0]["renewed_at"].is_string() && told[0]["recovery_armed"] == false, "{told:?}");
    assert_eq!(risks(&house, &viewer, "?risk=expired").await.len(), 0);
    house.get(&format!("{AT_RISK}?risk=lost"), &viewer).await.expect(422);

    set(&house, &agent("last_seen_at = now(), gap_most_s = 200000")).await;
    set(
        &house,
        &certificate("+ interval '40 hours'")
            .replace("next_action_at = now()", "next_action_at = now() + interval '1 hour'"),
    )
    .await;
    assert_eq!(risks(&house, &viewer, "").await[0]["risk"], "seldom", "there now, and next when it has ended");
    set(&house, &certificate("- interval '1 hour'")).await;
    assert_eq!(risks(&house, &viewer, "").await[0]["risk"], "expired", "whoever is there");
    set(&house, &certificate("- interval '100 days'")).await;
    assert_eq!(risks(&house, &viewer, "").await.len(), 0, "given up");
    set(&house, &certificate("+ interval '40 hours'")).await;
    set(&house, &agent("quarantined_at = now(), quarantine_reason = 'x'")).await;
    assert_eq!(risks(&house, &admin, "").await[0]["risk"], "quarantined");
    set(&house, "UPDATE devices SET agent_id = NULL").await;
    assert_eq!(risks(&house, &admin, "").await[0]["risk"], "no_agent");
    house.close().await;
}

#[actix::test]
async fn the_list_goes_by_the_end_of_certificates_page_by_page() {
    let house = House::open().await;
    let [viewer, ..] = house.tenant("acme").await;
    objects(&house).await;
    let many = "INSERT INTO trustpoints (tenant_id, trustpoint_id, device_id, name, entity_id, ca_server_id, policy_id, status,
            not_after, state, updated_at)
        SELECT tenant_id, gen_random_uuid(), device_id, 'tp-' || n, entity_id, ca_server_id, policy_id, 'active',
            now() + interval '1 hour' + (n % 4) * interval '1 hour', state, now() FROM trustpoints, generate_series(1, 7) n";
    set(&house, many).await;
    set(&house, "UPDATE agents SET last_seen_at = now() - interval '20 days'").await;
    let (mut ends, mut names, mut query) = (Vec::new(), Vec::new(), "?limit=3".to_owned());
    for _ in 0..10 {
        let page = house.get(&format!("{AT_RISK}{query}"), &viewer).await.expect(200);
        for item in page.body["items"].as_array().unwrap() {
            ends.push(item["not_after"].as_str().unwrap().to_owned());
            names.push(item["trustpoint"].as_str().unwrap().to_owned());
        }
        let Some(next) = page.body["next"].as_str() else { break };
        query = format!("?limit=3&after={next}");
    }
    assert!(ends.is_sorted(), "{ends:?}");
    names.sort_unstable();
    assert_eq!(names, (1..=7).map(|n| format!("tp-{n}")).collect::<Vec<_>>(), "each once");
    house.get(&format!("{AT_RISK}?after=bm9uZQ"), &viewer).await.expect(422);
    house.close().await;
}

#[actix::test]
async fn an_agent_that_comes_back_after_two_days_is_known_for_that_and_counts_as_at_risk_when_it_is_away_for_longer() {
    let fixture = Fixture::new().await;
    fixture.admin.batch_execute("UPDATE agents SET last_seen_at = now() - interval '2 days'").await.unwrap();
    fixture.hello().await;
    let rhythm = async || {
        let sql = "SELECT gap_mean_s, gap_most_s FROM agents WHERE gap_mean_s IS NOT NULL";
        let row = fixture.admin.query_opt(sql, &[]).await.unwrap()?;
        Some(Rhythm { mean_s: row.get(0), most_s: row.get(1) })
    };
    let known = until("the gap is noted", rhythm).await;
    let expected = Rhythm::default().after(SignedDuration::from_hours(48));
    assert!(
        (known.most_s - expected.most_s).abs() < 60.0 && (known.mean_s - expected.mean_s).abs() < 60.0,
        "{known:?}"
    );

    let count = async || {
        let (now, budget) = (fixture.services().clock.now(), fixture.services().config.ca_budget.budget());
        let counted: Result<_, trustfleet_controller::db::DbError> =
            fixture.services().store.system_tx("test", async |tx| tx.stats_fetch(now, 100, budget).await).await;
        counted.unwrap().tenants.remove("acme").unwrap_or_default().at_risk
    };
    let sql = "UPDATE trustpoints SET status = 'active', not_after = now() + interval '60 hours'";
    fixture.admin.batch_execute(sql).await.unwrap();
    assert_eq!(count().await, 0);
    fixture.admin.batch_execute("UPDATE agents SET last_seen_at = now() - interval '4 days'").await.unwrap();
    assert_eq!(count().await, 1);
}

#[actix::test]
async fn a_recovery_is_armed_for_the_agents_present_key_shown_without_its_secret_and_disarmed_with_it() {
    let house = House::open().await;
    let [viewer, operator, _] = house.tenant("acme").await;
    objects(&house).await;
    let path = "/v1/tenants/acme/devices/ap-1/trustpoints/mgmt/recovery";
    let secrets = async || -> i64 {
        house.place.admin().await.query_one("SELECT count(*) FROM secrets", &[]).await.unwrap().get(0)
    };
    let before = secrets().await;
    let until = house.get("/v1/tenants/acme/devices/ap-1/trustpoints/mgmt", &viewer).await.expect(200);
    assert_eq!(until.body["recovery"], Value::Null);
    let in_a_week = (SystemClock.now() + SignedDuration::from_hours(7 * 24)).to_string();
    let body = json!({"by": "mac", "mac": {"reference": "once-1", "secret": "heron-lagoon-5512-and-more"}, "until": in_a_week});
    house.call("PUT", path, Some(&viewer), Some(body.clone())).await.expect(403);
    let wrong = json!({"by": "mac", "until": "2020-01-01T00:00:00Z"});
    let refused = house.call("PUT", path, Some(&operator), Some(wrong)).await.expect(422);
    assert!(refused.text.contains("until") && refused.text.contains("mac"), "{}", refused.text);
    let both = json!({"by": "factory_identity", "mac": body["mac"], "until": in_a_week});
    house.call("PUT", path, Some(&operator), Some(both)).await.expect(422);
    assert_eq!(secrets().await, before, "what is refused is not kept");

    let armed = house.call("PUT", path, Some(&operator), Some(body.clone())).await.expect(200);
    assert_eq!((armed.str("/recovery/by"), armed.str("/recovery/reference")), ("mac", "once-1"), "{}", armed.text);
    let key: String = house
        .place
        .admin()
        .await
        .query_one("SELECT encode(sha256(a.sign_key), 'hex') FROM agents a JOIN devices d USING (tenant_id, agent_id) WHERE d.name = 'ap-1'", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(armed.str("/recovery/agent_key_sha256"), key);
    assert!(!armed.text.contains("heron"), "the secret is shown");
    assert_eq!(secrets().await, before + 1);
    // Another one takes its place, and its secret.
    house.call("PUT", path, Some(&operator), Some(body)).await.expect(200);
    assert_eq!(secrets().await, before + 1);
    house.call("DELETE", path, Some(&operator), None).await.expect(204);
    assert_eq!(secrets().await, before);
    house.call("DELETE", path, Some(&operator), None).await.expect(204);
    let sql = "SELECT string_agg(action, ' ' ORDER BY audit_id) FROM audit WHERE action LIKE 'recovery%'";
    let actions: String = house.place.admin().await.query_one(sql, &[]).await.unwrap().get(0);
    assert_eq!(actions, "recovery_armed recovery_armed recovery_disarmed");
    house.close().await;
}
