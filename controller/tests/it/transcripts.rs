//! Transcripts of exchanges: kept with their job, shown with their words explained, removed when their time is over.

use serde_json::json;
use trustfleet_controller::housekeeping::Chore;
use trustfleet_wire::v1::{Event, Exchanged};

use crate::api_access::objects;
use crate::api_house::House;
use crate::fixture::{Fixture, issued};
use crate::reports::{failed, told};

/// A transcript as a hostile agent could send it: control characters, NUL and texts without end.
fn said() -> Vec<Exchanged> {
    serde_json::from_value(json!([
        {"what": "sent", "at": "2026-11-21T12:00:00Z", "kind": "ir", "bytes": 812},
        {"what": "added_later", "at": "2026-11-21T12:00:01Z"},
        {"what": "folded", "at": "2026-11-21T12:00:02Z", "until": "2026-11-21T13:00:00Z",
            "requests": {"poll\u{0}Req": 312}, "responses": {"pollRep": 312}},
        {"what": "received", "at": "2026-11-21T13:00:01Z", "kind": "ip", "bytes": 190, "status": "rejection",
            "fail_info": ["badPOP"], "status_string": format!("no\u{0}\u{1b}[2J{}", "x".repeat(10_000))},
    ]))
    .unwrap()
}

#[actix::test]
async fn a_transcript_is_kept_with_its_job_bounded_and_harmless() {
    let fixture = Fixture::new().await;
    let mut queue = fixture.open_queue().await;
    let job_id = fixture.enroll().await;
    let sequence = fixture.next_job(&mut queue).await.sequence;
    let mut event = failed("refused");
    if let Event::Failed(failed) = &mut event {
        failed.transcript = said();
    }
    told(&fixture, &mut queue, &fixture.report(job_id, sequence, event)).await;
    let stored: serde_json::Value = fixture.value("SELECT transcript FROM jobs").await;
    assert_eq!(stored["v"], 1);
    let entries = stored["entries"].as_array().unwrap();
    let kinds: Vec<&str> = entries.iter().map(|entry| entry["what"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["sent", "folded", "received"], "what a later agent says in its own words is left out");
    assert_eq!(entries[1]["requests"], json!({"pollReq": 312}));
    let text = entries[2]["status_string"].as_str().unwrap();
    assert!(text.starts_with("no[2Jxxx") && text.len() <= 256, "{text:?}");
    fixture.core.stop().await;
}

#[actix::test]
async fn an_agent_that_tells_nothing_has_its_reports_taken_all_the_same() {
    let fixture = Fixture::new().await;
    let mut queue = fixture.open_queue().await;
    let job_id = fixture.enroll().await;
    let sequence = fixture.next_job(&mut queue).await.sequence;
    told(&fixture, &mut queue, &fixture.report(job_id, sequence, issued("ap-1").0)).await;
    assert_eq!(fixture.value::<String>("SELECT state FROM jobs").await, "succeeded");
    assert!(fixture.value::<bool>("SELECT transcript IS NULL FROM jobs").await);
    fixture.core.stop().await;
}

#[actix::test]
async fn transcripts_are_removed_when_the_days_that_their_tenant_keeps_them_are_over_and_not_before() {
    let fixture = Fixture::new().await;
    let mut queue = fixture.open_queue().await;
    for _ in 0..3 {
        let job_id = fixture.enroll().await;
        let sequence = fixture.next_job(&mut queue).await.sequence;
        let mut event = failed("refused");
        if let Event::Failed(failed) = &mut event {
            failed.transcript = said();
        }
        told(&fixture, &mut queue, &fixture.report(job_id, sequence, event)).await;
    }
    let age = "UPDATE jobs SET finished_at = now() - make_interval(days => 10 * n) FROM
               (SELECT job_id, row_number() OVER (ORDER BY job_id)::int AS n FROM jobs) AS numbered
               WHERE jobs.job_id = numbered.job_id";
    fixture.admin.batch_execute(age).await.unwrap();
    let remove = async || crate::housekeeping::removed(fixture.services(), Chore::Transcripts, 3_653).await;
    assert_eq!(remove().await, 0, "90 days are kept");
    fixture.admin.batch_execute("UPDATE tenants SET transcript_days = 15").await.unwrap();
    assert_eq!(remove().await, 2);
    assert_eq!(fixture.value::<i64>("SELECT count(*) FROM jobs WHERE transcript IS NOT NULL").await, 1);
    assert_eq!(fixture.value::<i64>("SELECT count(*) FROM jobs WHERE state = 'failed'").await, 3, "the jobs stay");
    fixture.core.stop().await;
}

#[actix::test]
async fn a_transcript_is_shown_with_its_words_explained_and_otherwise_why_there_is_none() {
    let house = House::open().await;
    let [viewer, _, _] = house.tenant("acme").await;
    let objects = objects(&house).await;
    let path = format!("/v1/tenants/acme/jobs/{}/transcript", objects["job"]);
    let missing = async || house.get(&path, &viewer).await.expect(200).body["missing"].clone();
    assert_eq!(missing().await, "not_ended");
    let admin = house.place.admin().await;
    admin.batch_execute("UPDATE jobs SET state = 'failed', finished_at = now()").await.unwrap();
    assert_eq!(missing().await, "not_told");
    admin.batch_execute("UPDATE jobs SET finished_at = now() - interval '91 days'").await.unwrap();
    assert_eq!(missing().await, "removed");

    let stored = json!({"v": 1, "entries": [
        {"what": "sent", "at": "2026-11-21T12:00:00Z", "kind": "ir", "bytes": 812},
        {"what": "received", "at": "2026-11-21T12:00:01Z", "kind": "ip", "bytes": 190, "status": "rejection",
            "fail_info": ["badPOP", "fromTheFuture"]},
    ]});
    admin.execute("UPDATE jobs SET transcript = $1", &[&stored]).await.unwrap();
    let body = house.get(&path, &viewer).await.expect(200).body;
    assert_eq!(body["missing"], json!(null));
    assert_eq!(body["entries"][0], json!({"what": "sent", "at": "2026-11-21T12:00:00Z", "kind": "ir", "bytes": 812}));
    let bits = &body["entries"][1]["fail_info"];
    assert!(bits[0]["meaning"].as_str().unwrap().contains("did not verify"), "{bits}");
    assert_eq!(bits[1], json!({"name": "fromTheFuture", "meaning": null}));
    house.close().await;
}

#[actix::test]
async fn how_long_transcripts_are_kept_is_a_setting_of_the_tenant_within_limits() {
    let house = House::open().await;
    house.tenant("acme").await;
    let shown = house.get("/v1/tenants/acme", &house.platform).await.expect(200).body;
    assert_eq!(shown["transcript_days"], 90);
    let put = async |days: serde_json::Value| {
        let body = json!({"display_name": "acme", "allow_weak_algorithms": false, "four_eyes": false,
            "transcript_days": days});
        house.call("PUT", "/v1/tenants/acme", Some(&house.platform), Some(body)).await
    };
    assert_eq!(put(json!(7)).await.expect(200).body["transcript_days"], 7);
    assert_eq!(put(json!(null)).await.expect(200).body["transcript_days"], 7, "left out, it stays");
    for wrong in [0, 3_654] {
        assert_eq!(put(json!(wrong)).await.expect(422).violations(), ["transcript_days range"]);
    }
    house.close().await;
}
