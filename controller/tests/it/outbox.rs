//! The outbox: published once, sealed, and never lost.

use std::{process::Command as Process, time::Duration};

use trustfleet_controller::{
    admission::Budget,
    db::{Claim, DbError},
};
use trustfleet_model::{job::RequestKind, secret::Secret};
use trustfleet_wire::{
    seal::SealContext,
    v1::{Event, Request, Task, ToAgent},
};

use crate::{
    fixture::{Fixture, SECRET},
    support::{manage, until, variable},
};

/// No budget that would hold anything up.
const PLENTY: Budget = Budget { rate_per_s: 1_000.0, burst: 1_000, concurrency: 1_000 };

#[actix::test]
async fn a_job_is_published_once_with_its_secret_sealed_to_the_agent() {
    let fixture = Fixture::new().await;
    let mut queue = fixture.open_queue().await;
    let job_id = fixture.enroll().await;

    let job = fixture.next_job(&mut queue).await;
    assert_eq!((job.job_id, job.agent_id, job.device_id), (job_id, fixture.agent.id, fixture.device));
    assert_eq!((job.device.as_str(), job.trustpoint.as_str()), ("ap-1", "mgmt"));
    assert!(job.start_before > job.issued_at && job.expires_at > job.start_before);
    let Task::Enroll(enroll) = &job.task else { panic!("{:?}", job.task) };
    assert_eq!(enroll.request, Request::Ir);
    assert_eq!(enroll.subject, "/O=Acme/CN=ap-1");
    assert_eq!((enroll.key_algorithm.as_str(), enroll.file_format.as_str()), ("ecdsa-p256", "pem"));
    assert_eq!(enroll.trust_anchors.len(), 1);
    let mac = enroll.mac.as_ref().unwrap();
    let context = SealContext { agent_id: job.agent_id, job_id, trustpoint_id: job.trustpoint_id };
    let opened: Secret<Vec<u8>> = fixture.agent.open.open(&mac.secret, &context).unwrap();
    assert_eq!(opened.expose().as_slice(), SECRET.as_bytes());
    assert_eq!((mac.reference.as_str(), mac.algorithm.as_str()), ("ref-1", "hmac-sha256"));

    until("the job to be marked as published", async || {
        let state: String = fixture.value("SELECT state FROM jobs").await;
        (state == "awaiting_agent").then_some(())
    })
    .await;
    assert_eq!(fixture.value::<i64>("SELECT count(*) FROM outbox").await, 0);
    let sequence: i64 = fixture.value("SELECT sequence FROM jobs").await;
    assert_eq!(u64::try_from(sequence).unwrap(), job.sequence);
    assert!(fixture.next(&mut queue, Duration::from_millis(1500)).await.is_none(), "it was published twice");
    fixture.core.stop().await;
}

#[actix::test]
async fn the_same_request_twice_is_one_job() {
    let fixture = Fixture::new().await;
    let first = fixture.enroll_as(RequestKind::Ir, Some("key-1")).await.unwrap();
    assert_eq!(fixture.enroll_as(RequestKind::Ir, Some("key-1")).await.unwrap(), first);
    assert_eq!(fixture.enroll_as(RequestKind::Ir, None).await.unwrap(), first);
    assert_eq!(fixture.enroll_as(RequestKind::Cr, None).await.unwrap_err().code(), "request_under_way");
    assert_eq!(fixture.value::<i64>("SELECT count(*) FROM jobs").await, 1);
    fixture.core.stop().await;
}

#[actix::test]
async fn a_message_that_no_queue_takes_comes_back_with_the_agents_hello() {
    let fixture = Fixture::new().await;
    let job_id = fixture.enroll().await;
    until("the message to be returned", async || {
        (fixture.value::<i64>("SELECT count(*) FROM outbox").await == 0).then_some(())
    })
    .await;
    assert_eq!(fixture.value::<String>("SELECT state FROM jobs").await, "awaiting_publish");

    let mut queue = fixture.open_queue().await;
    assert!(fixture.next(&mut queue, Duration::from_millis(1500)).await.is_none());
    fixture.hello().await;
    assert_eq!(fixture.next_job(&mut queue).await.job_id, job_id);
    assert_eq!(fixture.value::<String>("SELECT software FROM agents").await, "test 1");
    fixture.core.stop().await;
}

#[actix::test]
async fn a_repeated_hello_is_noted_and_brings_back_only_what_no_queue_has_taken() {
    let fixture = Fixture::new().await;
    let mut queue = fixture.open_queue().await;
    let job_id = fixture.enroll().await;
    assert_eq!(fixture.next_job(&mut queue).await.job_id, job_id);
    let published =
        || async { (fixture.value::<String>("SELECT state FROM jobs").await == "awaiting_agent").then_some(()) };
    until("the job to be marked as published", published).await;
    fixture.admin.batch_execute("UPDATE agents SET last_seen_at = last_seen_at - interval '1 hour'").await.unwrap();
    fixture.hello_again().await;
    let seen = "SELECT last_seen_at > now() - interval '1 minute' FROM agents";
    until("the agent to be seen", async || fixture.value::<bool>(seen).await.then_some(())).await;
    let again = fixture.next(&mut queue, Duration::from_millis(1500)).await;
    assert!(again.is_none(), "the agent has the job already: {again:?}");

    // As if the message had come back, and its row were removed.
    fixture.admin.batch_execute("UPDATE jobs SET state = 'awaiting_publish'").await.unwrap();
    fixture.hello_again().await;
    assert_eq!(fixture.next_job(&mut queue).await.job_id, job_id);
    fixture.core.stop().await;
}

#[actix::test]
async fn the_secret_is_in_no_queue_and_in_no_dump() {
    let fixture = Fixture::new().await;
    fixture.services().broker.declare_agent_queue(fixture.agent.id).await.unwrap();
    fixture.enroll().await;
    until("the job to be published", async || {
        (fixture.value::<String>("SELECT state FROM jobs").await == "awaiting_agent").then_some(())
    })
    .await;

    let management = variable("TRUSTFLEET_AMQP_MANAGEMENT_URL");
    let path = format!("api/queues/{}/agent.{}/get", fixture.place.vhost, fixture.agent.id);
    let ask = r#"{"count":10,"ackmode":"ack_requeue_true","encoding":"auto"}"#;
    let queued = manage(&management, "POST", &path, ask).await;
    assert!(queued.contains("payload"), "{queued}");
    let payload = serde_json::from_str::<serde_json::Value>(&queued).unwrap()[0]["payload"].to_string();
    let dump = Process::new("pg_dump").arg(fixture.place.admin_url.as_str()).output().unwrap();
    assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
    for (what, text) in [("queue", payload.as_bytes()), ("dump", dump.stdout.as_slice())] {
        for form in [SECRET.to_owned(), hex::encode(SECRET), base64_of(SECRET)] {
            let found = text.windows(form.len()).any(|window| window == form.as_bytes());
            assert!(!found, "the secret is in the {what} as {form}");
        }
    }
    fixture.core.stop().await;
}

#[actix::test]
async fn a_secret_moved_from_another_row_is_never_sent() {
    let fixture = Fixture::new().await;
    let other = fixture.add_device("ap-2").await;
    fixture.add_trustpoint(other, "mgmt").await.unwrap();
    // Whoever can write the table gives one trustpoint the other's secret.
    let swapped = "UPDATE secrets SET ciphertext = (SELECT ciphertext FROM secrets ORDER BY secret_id DESC LIMIT 1)";
    fixture.admin.batch_execute(swapped).await.unwrap();
    let mut queue = fixture.open_queue().await;
    fixture.enroll().await;
    until("the job to fail", async || {
        (fixture.value::<String>("SELECT state FROM jobs").await == "failed").then_some(())
    })
    .await;
    assert_eq!(fixture.value::<String>("SELECT failure ->> 'code' FROM jobs").await, "secret_unreadable");
    assert_eq!(fixture.stored_trustpoint().await["request"]["awaiting"], "nothing");
    assert!(fixture.next(&mut queue, Duration::from_millis(500)).await.is_none());
    fixture.core.stop().await;
}

#[actix::test]
async fn a_late_agent_returns_the_job_and_it_is_published_anew() {
    let fixture = Fixture::new().await;
    let mut queue = fixture.open_queue().await;
    let job_id = fixture.enroll().await;
    let first = fixture.next_job(&mut queue).await;
    until("the job to be marked as published", async || {
        (fixture.value::<i64>("SELECT count(*) FROM outbox").await == 0).then_some(())
    })
    .await;
    fixture.send_report(&fixture.report(job_id, first.sequence, Event::PermitExpired)).await;
    let second = fixture.next_job(&mut queue).await;
    assert_eq!(second.job_id, job_id);
    assert!(second.sequence > first.sequence);

    // The first return once more, after the new publication: the job is not published a third time.
    until("the job to be marked as published", async || {
        (fixture.value::<i64>("SELECT count(*) FROM outbox").await == 0).then_some(())
    })
    .await;
    fixture.send_report(&fixture.report(job_id, first.sequence, Event::PermitExpired)).await;
    while let Some(message) = fixture.next(&mut queue, Duration::from_millis(1500)).await {
        assert!(matches!(message, ToAgent::Receipt(_)), "{message:?}");
    }
    fixture.core.stop().await;
}

fn base64_of(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}

#[actix::test]
async fn a_hello_between_a_return_and_its_note_loses_no_job() {
    let fixture = Fixture::new().await;
    let (tenant, agent, now) = (fixture.tenant, fixture.agent.id, fixture.services().clock.now());
    fixture.enroll().await;
    until("the message to be returned", async || {
        (fixture.value::<i64>("SELECT count(*) FROM outbox").await == 0).then_some(())
    })
    .await;
    // In one transaction, so that the running outbox does not see the row.
    let removed: Result<u64, DbError> = fixture
        .services()
        .store
        .system_tx("test", async |tx| {
            tx.outbox_offer_again(tenant, agent, now).await?;
            let claimed = tx.outbox_admit(10, 60, PLENTY).await?.jobs;
            // The message is returned; before that is noted, the agent has its queue and says hello.
            tx.outbox_offer_again(tenant, agent, now).await?;
            tx.outbox_remove(&[claimed[0].claim]).await
        })
        .await;
    assert_eq!(removed.unwrap(), 0, "the late note took away what the hello had asked for");
    fixture.core.stop().await;
}

#[actix::test]
async fn a_late_word_about_an_older_claim_leaves_the_next_replicas_claim_alone() {
    let fixture = Fixture::new().await;
    let (tenant, agent, now) = (fixture.tenant, fixture.agent.id, fixture.services().clock.now());
    fixture.enroll().await;
    until("the message to be returned", async || {
        (fixture.value::<i64>("SELECT count(*) FROM outbox").await == 0).then_some(())
    })
    .await;
    // In one transaction, so that the running outbox does not see the row; a claim of no time is over at once.
    let (removed, released): (u64, u64) = fixture
        .services()
        .store
        .system_tx("test", async |tx| {
            tx.outbox_offer_again(tenant, agent, now).await?;
            let frozen = tx.outbox_admit(10, 0, PLENTY).await?.jobs[0].claim;
            let next = tx.outbox_admit(10, 60, PLENTY).await?.jobs[0].claim;
            assert_eq!((next.outbox_id, next.attempt), (frozen.outbox_id, frozen.attempt + 1));
            Ok::<_, DbError>((tx.outbox_remove(&[frozen]).await?, tx.outbox_release(&[frozen]).await?))
        })
        .await
        .unwrap();
    assert_eq!((removed, released), (0, 0), "the job would be lost if the next replica could not publish it");
    fixture.core.stop().await;
}

#[actix::test]
async fn a_job_that_cannot_be_read_does_not_hold_up_the_others() {
    let fixture = Fixture::new().await;
    fixture.enroll().await;
    until("the message to be returned", async || {
        (fixture.value::<i64>("SELECT count(*) FROM outbox").await == 0).then_some(())
    })
    .await;
    let spoil = r#"UPDATE jobs SET task = '{"task":"of a later version","mac":{"secret_id":"no id"}}'"#;
    fixture.admin.batch_execute(spoil).await.unwrap();
    let mut queue = fixture.open_queue().await;
    fixture.hello().await;
    until("the spoiled job to be in the outbox", async || {
        (fixture.value::<i64>("SELECT count(*) FROM outbox").await == 1).then_some(())
    })
    .await;

    let other = fixture.add_device("ap-2").await;
    fixture.add_trustpoint(other, "mgmt").await.unwrap();
    let command = fixture.enroll_command(other, RequestKind::Ir, None).await;
    fixture.ask(other, command).await.unwrap();
    assert_eq!(fixture.next_job(&mut queue).await.device_id, other);
    until("the other job to be marked as published", async || {
        let sql = "SELECT count(*) FROM jobs WHERE state = 'awaiting_agent'";
        (fixture.value::<i64>(sql).await == 1).then_some(())
    })
    .await;
    assert_eq!(fixture.value::<i64>("SELECT count(*) FROM outbox").await, 1, "the spoiled job is gone");
    fixture.core.stop().await;
}

#[actix::test]
async fn publications_wait_for_jobs_in_their_order_and_hold_none_behind_the_one_that_they_wait_for() {
    let fixture = Fixture::new().await;
    // Nothing goes while the jobs are made.
    let shut = "INSERT INTO ca_endpoints (endpoint, open_until) VALUES ('ca.example:80', now() + interval '1 hour')";
    fixture.admin.batch_execute(shut).await.unwrap();
    let other = fixture.add_device("ap-2").await;
    fixture.add_trustpoint(other, "mgmt").await.unwrap();
    for device in [fixture.device, other] {
        let command = fixture.enroll_command(device, RequestKind::Ir, None).await;
        fixture.ask(device, command).await.unwrap();
    }
    let rows = fixture.admin.query("SELECT outbox_id, job_id FROM outbox ORDER BY job_id", &[]).await.unwrap();
    let (first, second): (uuid::Uuid, uuid::Uuid) = (rows[0].get(1), rows[1].get(1));
    let claims: Vec<_> =
        rows.iter().rev().map(|row| Claim { tenant_id: fixture.tenant, outbox_id: row.get(0), attempt: 1 }).collect();

    let (holder, prober) = (fixture.place.admin().await, fixture.place.admin().await);
    holder.batch_execute(&format!("BEGIN; SELECT 1 FROM jobs WHERE job_id = '{first}' FOR UPDATE")).await.unwrap();
    let (store, now) = (fixture.services().store.clone(), fixture.services().clock.now());
    let marking = async move {
        let marked: Result<u64, DbError> =
            store.system_tx("test", async move |tx| tx.outbox_mark_published(&claims, now).await).await;
        marked
    };
    let waits = "SELECT count(*) FROM pg_stat_activity
                 WHERE query LIKE '/* outbox_mark_published */%' AND wait_event_type = 'Lock'";
    let free = format!("SELECT 1 FROM jobs WHERE job_id = '{second}' FOR UPDATE NOWAIT");
    let probing = async {
        until("it waits for the first", async || (fixture.value::<i64>(waits).await == 1).then_some(())).await;
        prober.batch_execute(&free).await.expect("whoever has the first and wants the second would wait for ever");
        holder.batch_execute("COMMIT").await.unwrap();
    };
    let (marked, ()) = futures_util::join!(marking, probing);
    assert_eq!(marked.unwrap(), 2);
    fixture.core.stop().await;
}
