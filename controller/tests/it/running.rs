//! What is told of a running request (S50), and of a trustpoint's past.

use serde_json::json;
use trustfleet_wire::v1::{Event, Progress};

use crate::api_house::House;
use crate::fixture::{Fixture, issued};
use crate::reports::told;

fn waiting(requesting: bool, polls: u32, next_at: &str, trouble: Option<&str>) -> Event {
    let (next_at, trouble) = (next_at.parse().unwrap(), trouble.map(str::to_owned));
    Event::Waiting { check_after_s: 60, progress: Some(Box::new(Progress { requesting, polls, next_at, trouble })) }
}

#[actix::test]
async fn s50_a_running_request_tells_its_polls_its_next_poll_and_why_the_ca_gives_no_answer() {
    let fixture = Fixture::new().await;
    let mut queue = fixture.open_queue().await;
    let job_id = fixture.enroll().await;
    let sequence = fixture.next_job(&mut queue).await.sequence;
    let started = Event::Started { public_key_sha256: "ab".repeat(32) };
    told(&fixture, &mut queue, &fixture.report(job_id, sequence, started)).await;

    let trouble = waiting(true, 0, "2026-11-29T10:00:00Z", Some("no\u{1b}[2J answer"));
    told(&fixture, &mut queue, &fixture.report(job_id, sequence, trouble)).await;
    let request = fixture.stored_trustpoint().await["request"].clone();
    assert_eq!((&request["awaiting"], &request["progress"]["trouble"]), (&json!("ca"), &json!("no[2J answer")));
    assert_eq!(fixture.value::<String>("SELECT state FROM jobs").await, "awaiting_ca", "the CA never said waiting");

    told(&fixture, &mut queue, &fixture.report(job_id, sequence, waiting(false, 0, "2026-11-29T10:01:00Z", None)))
        .await;
    let first = fixture.stored_trustpoint().await["request"].clone();
    assert_eq!((&first["awaiting"], &first["progress"].get("trouble")), (&json!("poll"), &None), "{first}");

    told(&fixture, &mut queue, &fixture.report(job_id, sequence, waiting(false, 7, "2026-11-29T10:08:00Z", None)))
        .await;
    // One that was overtaken.
    told(&fixture, &mut queue, &fixture.report(job_id, sequence, waiting(false, 3, "2026-11-29T10:04:00Z", None)))
        .await;
    let later = fixture.stored_trustpoint().await["request"].clone();
    assert_eq!((&later["progress"]["polls"], &later["since"]), (&json!(7), &first["since"]), "{later}");
    assert_eq!(later["progress"]["next_at"], "2026-11-29T10:08:00Z");
    let lines = "SELECT count(*) FROM audit WHERE action = 'job_waiting'";
    assert_eq!(fixture.value::<i64>(lines).await, 1, "news of the same are no steps");
    told(&fixture, &mut queue, &fixture.report(job_id, sequence, issued("ap-1").0)).await;
    assert_eq!(fixture.stored_trustpoint().await["request"], json!({"awaiting": "nothing"}));
    fixture.core.stop().await;
}

#[actix::test]
async fn s50_an_agent_that_tells_no_more_than_waiting_is_shown_as_polling() {
    let fixture = Fixture::new().await;
    let mut queue = fixture.open_queue().await;
    let job_id = fixture.enroll().await;
    let sequence = fixture.next_job(&mut queue).await.sequence;
    for _ in 0..2 {
        let event = Event::Waiting { check_after_s: 30, progress: None };
        told(&fixture, &mut queue, &fixture.report(job_id, sequence, event)).await;
    }
    let request = fixture.stored_trustpoint().await["request"].clone();
    assert!(request["awaiting"] == "poll" && request.get("progress").is_none(), "{request}");
    fixture.core.stop().await;
}

#[actix::test]
async fn s50_the_api_shows_the_progress_of_a_running_request() {
    let house = House::open().await;
    let [viewer, _, _] = house.tenant("acme").await;
    house.furnish("acme", "s").await;
    let path = "/v1/tenants/acme/devices/ap-1/trustpoints/mgmt";
    assert_eq!(house.get(path, &viewer).await.expect(200).body["request"], json!({"awaiting": "nothing"}));
    let state = "UPDATE trustpoints SET state = jsonb_set(state, '{trustpoint,request}', '{\"awaiting\": \"poll\",
        \"job_id\": \"00000000-0000-0000-0000-000000000001\", \"since\": \"2026-11-29T09:00:00Z\", \"progress\":
        {\"told_at\": \"2026-11-29T10:00:00Z\", \"polls\": 7, \"next_at\": \"2026-11-29T10:01:00Z\", \"trouble\": \"away\"}}')";
    house.place.admin().await.batch_execute(state).await.unwrap();
    let request = house.get(path, &viewer).await.expect(200).body["request"].clone();
    assert_eq!(
        request,
        json!({"awaiting": "poll", "job_id": "00000000-0000-0000-0000-000000000001", "since": "2026-11-29T09:00:00Z",
            "told_at": "2026-11-29T10:00:00Z", "polls": 7, "next_poll_at": "2026-11-29T10:01:00Z", "last_error": "away"})
    );
    house.close().await;
}

#[actix::test]
async fn the_history_of_a_trustpoint_tells_who_asked_for_each_certificate_and_what_took_its_place() {
    let fixture = Fixture::new().await;
    let mut queue = fixture.open_queue().await;
    let mut serials = Vec::new();
    for activates in [true, false, true] {
        let job_id = fixture.enroll().await;
        let sequence = fixture.next_job(&mut queue).await.sequence;
        let (event, serial) = issued("ap-1");
        told(&fixture, &mut queue, &fixture.report(job_id, sequence, event)).await;
        if activates {
            let activated = Event::Activated { serial: serial.clone(), file: "/x".to_owned(), in_service: None };
            told(&fixture, &mut queue, &fixture.report(job_id, sequence, activated)).await;
        }
        serials.push(serial);
    }
    // The second was asked for by itself, by the cr that stands in for an update.
    let automatic = "UPDATE jobs SET task = task || '{\"automatic\": true, \"kind\": \"cr\"}', kind = 'cr', requested_by = 'controller'
                     WHERE job_id = (SELECT job_id FROM jobs ORDER BY job_id LIMIT 1 OFFSET 1)";
    fixture.admin.batch_execute(automatic).await.unwrap();
    let trustpoint = fixture.trustpoint;
    let past = fixture
        .services()
        .store
        .tenant_tx(fixture.tenant, "test", async |tx| {
            tx.trustpoint_history(trustpoint, None, 10).await.map_err(|error: trustfleet_controller::db::DbError| error)
        })
        .await
        .unwrap();
    let told: Vec<_> = past
        .into_iter()
        .map(|past| serde_json::to_value(trustfleet_controller::api::dto::history::HistoryBody::from(past)).unwrap())
        .collect();
    let of = |n: usize| told.iter().find(|entry| entry["serial"] == serials[n].as_str()).unwrap();
    assert_eq!(told.len(), 3);
    assert_eq!(
        (&of(0)["how"], &of(0)["requested_by"], &of(0)["policy_revision"]),
        (&json!("operator"), &json!("test"), &json!(1))
    );
    assert!(of(0)["activated_at"].is_string());
    assert_eq!(of(0)["replaced"]["serial"], serials[2].as_str(), "{}", of(0));
    assert_eq!(of(0)["replaced"]["because"], "enrolled_anew");
    // Never in use: the next one came before that.
    assert_eq!((&of(1)["how"], &of(1)["activated_at"]), (&json!("automatic_renewal"), &json!(null)));
    assert_eq!((&of(1)["replaced"]["serial"], &of(1)["slot"]), (&json!(serials[2]), &json!("retired")));
    assert_eq!((&of(2)["slot"], &of(2)["replaced"]), (&json!("active"), &json!(null)));
    fixture.core.stop().await;
}
