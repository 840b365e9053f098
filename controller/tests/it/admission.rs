//! Budgets of CAs, as PostgreSQL, the broker and two replicas see them.

use std::time::Instant;

use trustfleet_controller::admission::Budget;
use trustfleet_controller::broker::Subscription;
use trustfleet_controller::db::{Admitted, DbError};
use trustfleet_controller::device::Reply;
use trustfleet_model::ids::{DeviceId, JobId};
use trustfleet_model::job::RequestKind;
use trustfleet_wire::v1::{Event, Failed, Job, Progress, Report, ToAgent};

use crate::api_house::House;
use crate::fixture::Fixture;
use crate::reports::failed;
use crate::support::until;

const ENDPOINT: &str = "ca.example:80";
/// Long enough for whatever would come although it must not.
const QUIET: std::time::Duration = std::time::Duration::from_millis(700);

async fn set_budget(fixture: &Fixture, rate_per_s: f64, burst: i32, concurrency: i32) {
    let sql = "INSERT INTO ca_endpoints (endpoint, rate_per_s, burst, concurrency) VALUES ($1, $2, $3, $4)
               ON CONFLICT (endpoint) DO UPDATE SET rate_per_s = $2, burst = $3, concurrency = $4, tokens = $3";
    fixture.admin.execute(sql, &[&ENDPOINT, &rate_per_s, &burst, &concurrency]).await.unwrap();
}

/// Devices `d-0` and so on of the fixture's agent, each with a trustpoint.
async fn devices(fixture: &Fixture, count: usize) -> Vec<DeviceId> {
    let mut made = Vec::new();
    for n in 0..count {
        let device = fixture.add_device(&format!("d-{n}")).await;
        fixture.add_trustpoint(device, "mgmt").await.unwrap();
        made.push(device);
    }
    made
}

async fn enroll(fixture: &Fixture, device: DeviceId) -> JobId {
    let command = fixture.enroll_command(device, RequestKind::Ir, None).await;
    match fixture.ask(device, command).await.unwrap() {
        Reply::Job { job_id } => job_id,
        other => panic!("{other:?}"),
    }
}

/// The next job, acknowledged; none for a while.
async fn job_soon(fixture: &Fixture, queue: &mut Subscription) -> Option<Job> {
    loop {
        match fixture.next(queue, QUIET).await? {
            ToAgent::Job(job) => return Some(*job),
            ToAgent::Receipt(_) | ToAgent::Stop(_) | ToAgent::Lease(_) | ToAgent::LeaseEnd(_) => {}
        }
    }
}

async fn tell(fixture: &Fixture, job: &Job, event: Event) {
    let report = Report {
        device_id: job.device_id,
        trustpoint_id: job.trustpoint_id,
        ..fixture.report(job.job_id, job.sequence, event)
    };
    fixture.send_report(&report).await;
}

fn started(n: usize) -> Event {
    Event::Started { public_key_sha256: format!("{n:064x}") }
}

fn unreachable() -> Event {
    let Event::Failed(failed) = failed("ca_unreachable") else { unreachable!() };
    Event::Failed(Box::new(Failed { culprit: "transport".to_owned(), ..*failed }))
}

#[actix::test]
async fn a_ca_gets_no_more_than_its_rate_and_burst_however_many_replicas_publish() {
    let fixture = Fixture::new().await;
    let _second = fixture.place.core().await;
    set_budget(&fixture, 20.0, 5, 1_000).await;
    let devices = devices(&fixture, 40).await;
    let mut queue = fixture.open_queue().await;
    let begun = Instant::now();
    for device in &devices {
        enroll(&fixture, *device).await;
    }
    for came in 1..=devices.len() {
        fixture.next_job(&mut queue).await;
        // Whatever slows this machine down makes fewer of them, never more.
        let most = 5.0 + begun.elapsed().as_secs_f64() * 20.0;
        assert!(f64::from(u32::try_from(came).unwrap()) <= most + 1.0, "{came} came where {most} may");
    }
    fixture.core.stop().await;
}

#[actix::test]
async fn no_more_exchanges_are_under_way_than_may_be_and_one_that_the_ca_lets_wait_holds_no_place() {
    let fixture = Fixture::new().await;
    set_budget(&fixture, 1_000.0, 1_000, 3).await;
    let devices = devices(&fixture, 6).await;
    let mut queue = fixture.open_queue().await;
    for device in &devices {
        enroll(&fixture, *device).await;
    }
    let mut jobs = Vec::new();
    for n in 0..3 {
        let job = fixture.next_job(&mut queue).await;
        tell(&fixture, &job, started(n)).await;
        jobs.push(job);
    }
    assert!(job_soon(&fixture, &mut queue).await.is_none(), "three are under way");
    let next_at = fixture.services().clock.now();
    let progress = Some(Box::new(Progress { requesting: false, polls: 1, next_at, trouble: None }));
    tell(&fixture, &jobs[0], Event::Waiting { check_after_s: 3_600, progress }).await;
    let fourth = fixture.next_job(&mut queue).await;
    tell(&fixture, &fourth, started(4)).await;
    assert!(job_soon(&fixture, &mut queue).await.is_none());
    tell(&fixture, &jobs[1], failed("refused")).await;
    fixture.next_job(&mut queue).await;
    fixture.core.stop().await;
}

#[actix::test]
async fn a_ca_that_does_not_answer_is_left_alone_until_one_job_has_had_an_answer() {
    let fixture = Fixture::new().await;
    let devices = devices(&fixture, 9).await;
    let mut queue = fixture.open_queue().await;
    for device in &devices[..5] {
        enroll(&fixture, *device).await;
        let job = fixture.next_job(&mut queue).await;
        tell(&fixture, &job, unreachable()).await;
    }
    let open = "SELECT failures >= 5 AND open_until > now() FROM ca_endpoints";
    until("the breaker opens", async || fixture.value::<bool>(open).await.then_some(())).await;
    for device in &devices[5..8] {
        enroll(&fixture, *device).await;
    }
    assert!(job_soon(&fixture, &mut queue).await.is_none(), "it is left alone");

    fixture.admin.batch_execute("UPDATE ca_endpoints SET open_until = now()").await.unwrap();
    let probe = fixture.next_job(&mut queue).await;
    assert!(job_soon(&fixture, &mut queue).await.is_none(), "one alone tries");
    tell(&fixture, &probe, failed("refused")).await;
    // A refusal is an answer: the CA is back.
    fixture.next_job(&mut queue).await;
    fixture.next_job(&mut queue).await;
    assert!(fixture.value::<bool>("SELECT failures = 0 AND open_until IS NULL FROM ca_endpoints").await);
    fixture.core.stop().await;
}

#[actix::test]
async fn what_is_for_an_agent_that_is_not_there_takes_nothing_and_comes_with_its_hello() {
    let fixture = Fixture::new().await;
    set_budget(&fixture, 0.01, 1, 10).await;
    let mut queue = fixture.open_queue().await;
    fixture.admin.batch_execute("UPDATE agents SET last_seen_at = now() - interval '1 hour'").await.unwrap();
    fixture.enroll().await;
    until("it leaves the outbox", async || {
        (fixture.value::<i64>("SELECT count(*) FROM outbox").await == 0).then_some(())
    })
    .await;
    assert!(job_soon(&fixture, &mut queue).await.is_none());
    assert_eq!(fixture.value::<String>("SELECT state FROM jobs").await, "awaiting_publish");
    assert!(fixture.value::<f64>("SELECT tokens FROM ca_endpoints").await > 0.9, "the budget is whole");
    fixture.hello().await;
    fixture.next_job(&mut queue).await;
    fixture.core.stop().await;
}

#[actix::test]
async fn tenants_take_turns_by_their_weight_and_what_has_less_than_a_day_left_goes_first() {
    let (fixture, other) = Fixture::with_another_tenant().await;
    // Nothing goes while the jobs are made.
    set_budget(&fixture, 1_000.0, 100, 1_000).await;
    fixture.admin.batch_execute("UPDATE ca_endpoints SET open_until = now() + interval '1 hour'").await.unwrap();
    for fixture in [&fixture, &other] {
        for device in devices(fixture, 6).await {
            enroll(fixture, device).await;
        }
    }
    let tenant = fixture.tenant.as_uuid();
    // The last of the first tenant has an hour left; the other one has twice the weight.
    let urgent = "UPDATE outbox SET deadline = now() + interval '1 hour'
                  WHERE outbox_id = (SELECT max(outbox_id) FROM outbox WHERE tenant_id = $1)";
    fixture.admin.execute(urgent, &[&tenant]).await.unwrap();
    fixture.admin.execute("UPDATE tenants SET ca_weight = 2 WHERE tenant_id <> $1", &[&tenant]).await.unwrap();

    // In one transaction, which holds the endpoint's row: the replicas leave it alone meanwhile.
    let (mine, budget) = (fixture.tenant, Budget { rate_per_s: 1_000.0, burst: 100, concurrency: 1_000 });
    let admitted: Result<Vec<(usize, usize, bool)>, DbError> = fixture
        .services()
        .store
        .system_tx("test", async move |tx| {
            tx.ca_endpoint_answered(ENDPOINT).await?;
            let mut admitted = Vec::new();
            for count in [1, 6, 50] {
                let Admitted { jobs, waiting } = tx.outbox_admit(count, 60, budget).await?;
                let of_mine = jobs.iter().filter(|job| job.claim.tenant_id == mine).count();
                admitted.push((of_mine, jobs.len() - of_mine, waiting));
            }
            Ok(admitted)
        })
        .await;
    // The urgent one; then one of three; whoever is alone gets all.
    assert_eq!(admitted.unwrap(), [(1, 0, true), (2, 4, true), (3, 2, false)]);
    fixture.core.stop().await;
    other.core.stop().await;
}

#[actix::test]
async fn a_platform_administrator_sees_what_waits_for_a_ca_and_gives_it_a_budget() {
    let house = House::open().await;
    let [_, _, admin] = house.tenant("acme").await;
    let path = "/v1/ca-endpoints/ca.example:80";
    let budget = serde_json::json!({"rate_per_s": 5.0, "burst": 2, "concurrency": 3});
    house.call("PUT", path, Some(&admin), Some(budget.clone())).await.expect(403);
    let set = house.call("PUT", path, Some(&house.platform), Some(budget)).await.expect(200);
    assert_eq!((set.str("/endpoint"), set.str("/breaker")), (ENDPOINT, "closed"));
    assert_eq!((&set.body["burst"], &set.body["own_budget"]), (&serde_json::json!(2), &serde_json::json!(true)));
    let list = house.get("/v1/ca-endpoints", &house.platform).await.expect(200);
    assert_eq!(list.str("/items/0/endpoint"), ENDPOINT);
    let wrong = serde_json::json!({"rate_per_s": 0.0, "burst": 0, "concurrency": 0});
    let refused = house.call("PUT", path, Some(&house.platform), Some(wrong)).await.expect(422);
    assert_eq!(refused.body["violations"].as_array().unwrap().len(), 3, "{}", refused.body);
    let reset = house.call("DELETE", path, Some(&house.platform), None).await;
    reset.expect(204);
    let list = house.get("/v1/ca-endpoints", &house.platform).await.expect(200);
    assert_eq!(list.body["items"][0]["own_budget"], false);
}

#[actix::test]
async fn what_goes_to_a_secondary_server_takes_of_that_ones_budget_and_what_waits_for_the_other_one_waits_for_it() {
    const SECOND: &str = "second.example:80";
    let fixture = Fixture::new().await;
    let sql = "UPDATE ca_servers SET spec = spec || '{\"secondary_url\": \"http://second.example/pkix/\"}'";
    fixture.admin.execute(sql, &[]).await.unwrap();
    set_budget(&fixture, 1_000.0, 1_000, 1_000).await;
    let sql = "INSERT INTO ca_endpoints (endpoint, rate_per_s, burst, concurrency) VALUES ($1, 0.001, 2, 100)";
    fixture.admin.execute(sql, &[&SECOND]).await.unwrap();
    let devices = devices(&fixture, 6).await;
    let mut queue = fixture.open_queue().await;
    enroll(&fixture, devices[0]).await;
    let job = fixture.next_job(&mut queue).await;
    let from = async |server: &str, event: Event| {
        let report = Report {
            device_id: job.device_id,
            trustpoint_id: job.trustpoint_id,
            server: Some(server.to_owned()),
            ..fixture.report(job.job_id, job.sequence, event)
        };
        fixture.send_report(&report).await;
    };
    from("elsewhere.example:80", started(1)).await;
    from(SECOND, Event::Waiting { check_after_s: 60, progress: None }).await;
    let moved = "SELECT endpoint = 'second.example:80' AND primary_endpoint = 'ca.example:80' FROM jobs";
    until("it is counted for the secondary server", async || fixture.value::<bool>(moved).await.then_some(())).await;
    let lie = "SELECT count(*) FROM ca_endpoints WHERE endpoint LIKE 'elsewhere%'";
    assert_eq!(fixture.value::<i64>(lie).await, 0, "an agent cannot burden whom it likes");

    // The primary one has room for all of them; the secondary one, which they would go to, for one more.
    for device in &devices[1..5] {
        enroll(&fixture, *device).await;
    }
    assert!(job_soon(&fixture, &mut queue).await.is_some());
    assert!(job_soon(&fixture, &mut queue).await.is_none(), "more than the secondary server's budget");
    let shown = "SELECT failovers FROM ca_endpoints WHERE endpoint = 'ca.example:80'";
    assert_eq!(fixture.value::<i64>(shown).await, 1);
    // When the primary one has been left alone for a while, jobs go there again.
    fixture
        .admin
        .execute(
            "UPDATE ca_endpoints SET failover_until = now() - interval '1 second' WHERE endpoint = $1",
            &[&ENDPOINT],
        )
        .await
        .unwrap();
    enroll(&fixture, devices[5]).await;
    assert!(job_soon(&fixture, &mut queue).await.is_some());
    fixture.core.stop().await;
}
