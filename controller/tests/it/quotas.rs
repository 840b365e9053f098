//! Quotas hold when many requests come at the very same moment, at several replicas.

use futures_util::future::join_all;
use serde_json::json;

use crate::api_house::{Answer, House};

/// Of many answers those that were accepted; every other one must be the refusal by quota.
fn accepted(answers: &[Answer], refusal: u16) -> usize {
    for answer in answers.iter().filter(|answer| !(200..300).contains(&answer.status)) {
        // A device that many ask at once may be too busy to be asked at all: that is no excess.
        assert!(
            (answer.status, answer.str("/code")) == (refusal, "quota_exceeded") || answer.status == 503,
            "{}",
            answer.text
        );
    }
    answers.iter().filter(|answer| (200..300).contains(&answer.status)).count()
}

#[actix::test]
async fn quotas_hold_exactly_while_many_requests_come_at_once_at_two_replicas() {
    const ASKED: usize = 40;
    const MOST: usize = 7;
    let house = House::open().await;
    let second = house.second().await;
    house.tenant("acme").await;
    house.furnish("acme", "s").await;
    let at = |n: usize| if n.is_multiple_of(2) { &house } else { &second };
    let quota = async |quota: serde_json::Value| {
        house.call("PUT", "/v1/tenants/acme/quota", Some(&house.platform), Some(quota)).await.expect(200);
        // The other replica believes what it has read for some seconds.
        tokio::time::sleep(std::time::Duration::from_secs(4)).await;
    };
    let counted = async |sql: &str| -> i64 { house.place.admin().await.query_one(sql, &[]).await.unwrap().get(0) };

    // One device and one trustpoint are there.
    quota(json!({"devices": MOST, "trustpoints": MOST})).await;
    let post = |n: usize, path: &'static str, body: serde_json::Value| async move {
        at(n).post(path, &at(n).platform, body).await
    };
    let devices = join_all((0..ASKED).map(|n| post(n, "/v1/tenants/acme/devices", json!({"name": format!("d-{n}")}))));
    assert_eq!(accepted(&devices.await, 409), MOST - 1);
    assert_eq!(counted("SELECT count(*) FROM devices").await, i64::try_from(MOST).unwrap());

    // A device each, so that none of them is too busy.
    quota(json!({})).await;
    for n in 0..ASKED {
        let device = json!({"name": format!("e-{n}"), "agent": "site-1"});
        house.post("/v1/tenants/acme/devices", &house.platform, device).await.expect(201);
    }
    let trustpoint = |n: usize| async move {
        let trustpoint = json!({"name": "mgmt", "entity": "default", "ca_server": "default", "policy": "default",
            "mac": {"reference": "r", "secret": "s"}});
        at(n).post(&format!("/v1/tenants/acme/devices/e-{n}/trustpoints"), &at(n).platform, trustpoint).await
    };
    quota(json!({"trustpoints": MOST})).await;
    assert_eq!(accepted(&join_all((0..ASKED).map(trustpoint)).await, 409), MOST - 1);
    assert_eq!(counted("SELECT count(*) FROM trustpoints").await, i64::try_from(MOST).unwrap());
    assert_eq!(counted("SELECT count(*) FROM secrets").await, i64::try_from(MOST).unwrap(), "no secret stays behind");

    quota(json!({})).await;
    for n in 0..ASKED {
        let made = trustpoint(n).await.status;
        assert!([201, 409].contains(&made), "{made}");
    }
    let enroll = |n: usize| async move {
        let path = format!("/v1/tenants/acme/devices/e-{n}/trustpoints/mgmt/enroll");
        at(n).post(&path, &at(n).platform, json!({"request": "ir"})).await
    };
    quota(json!({"jobs_in_flight": MOST})).await;
    assert_eq!(accepted(&join_all((0..ASKED).map(enroll)).await, 429), MOST);
    assert_eq!(counted("SELECT count(*) FROM jobs WHERE finished_at IS NULL").await, i64::try_from(MOST).unwrap());
    // Whose job is under way is answered with it, which makes none.
    quota(json!({"jobs_per_hour": MOST + 3})).await;
    assert!(accepted(&join_all((0..ASKED).map(enroll)).await, 429) >= 3);
    assert_eq!(counted("SELECT count(*) FROM jobs").await, i64::try_from(MOST + 3).unwrap());
    second.close().await;
    house.close().await;
}
