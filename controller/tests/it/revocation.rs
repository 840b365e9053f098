//! Revocations that nobody waits for, as PostgreSQL and two replicas see them.

use serde_json::{Value, json};
use trustfleet_controller::db::{Condemn, DbError};
use trustfleet_controller::device::{Command, RemoveTrustpoint, Requester};
use trustfleet_model::clock::{Clock as _, SystemClock};
use trustfleet_model::revocation::{Revocation, RevocationReason};
use trustfleet_wire::v1::{Event, Job, Revoked, Task};

use crate::fixture::Fixture;
use crate::renewal::enrolled;
use crate::reports::{failed, told};
use crate::support::until;

/// As an administrator's request for all certificates of the device does it; how many there are.
async fn want(fixture: &Fixture) -> u64 {
    let (device, now) = (fixture.device, SystemClock.now());
    let revocation = Revocation::wanted(RevocationReason::KeyCompromise, "ann".to_owned(), now);
    let wanted: Result<u64, DbError> = fixture
        .services()
        .store
        .tenant_tx(fixture.tenant, "revocation_want", async |tx| {
            tx.revocation_want(Condemn::Device(device), &revocation, now).await
        })
        .await;
    wanted.unwrap()
}

async fn revocation(fixture: &Fixture) -> Value {
    fixture.value::<Value>("SELECT revocation FROM certificates").await
}

fn reason(job: &Job) -> &str {
    let Task::Revoke(revoke) = &job.task else { panic!("{:?}", job.task) };
    &revoke.reason
}

fn unreachable() -> Event {
    let Event::Failed(mut failed) = failed("ca_unreachable") else { unreachable!() };
    failed.culprit = "transport".to_owned();
    Event::Failed(failed)
}

fn done() -> Event {
    Event::Revoked(Box::new(Revoked {
        serial: "0A".to_owned(),
        transaction_id: "00ff".to_owned(),
        duration_ms: 5,
        warnings: Vec::new(),
        transcript: Vec::new(),
    }))
}

#[actix::test]
async fn a_wanted_revocation_is_asked_for_once_by_two_replicas_and_again_when_the_ca_could_not_be_reached() {
    let fixture = Fixture::new().await;
    let _second = fixture.place.core().await;
    let mut queue = enrolled(&fixture).await;
    assert_eq!(want(&fixture).await, 1);
    assert_eq!(want(&fixture).await, 0, "it is wanted already");

    let job = fixture.next_job(&mut queue).await;
    assert_eq!(reason(&job), "keyCompromise");
    assert_eq!(fixture.value::<i64>("SELECT count(*) FROM jobs WHERE kind = 'revoke'").await, 1);
    told(&fixture, &mut queue, &fixture.report(job.job_id, job.sequence, unreachable())).await;
    let tried = revocation(&fixture).await;
    assert_eq!(
        (&tried["state"], &tried["failures"], &tried["wanted_by"]),
        (&json!("wanted"), &json!(1), &json!("ann"))
    );
    let later = "SELECT revocation_due_at BETWEEN now() + interval '4 minutes' AND now() + interval '6 minutes' FROM certificates";
    assert!(fixture.value::<bool>(later).await, "not at once");

    fixture.admin.batch_execute("UPDATE certificates SET revocation_due_at = now()").await.unwrap();
    let again = fixture.next_job(&mut queue).await;
    assert_ne!(again.job_id, job.job_id);
    told(&fixture, &mut queue, &fixture.report(again.job_id, again.sequence, done())).await;
    let ended = revocation(&fixture).await;
    assert_eq!((&ended["state"], &ended["failure"]), (&json!("revoked"), &Value::Null));
    assert!(fixture.value::<bool>("SELECT revocation_due_at IS NULL FROM certificates").await);
    assert_eq!(fixture.stored_trustpoint().await["active"]["revocation"]["state"], "revoked");
    assert_eq!(fixture.value::<String>("SELECT status FROM trustpoints").await, "revoked");
    fixture.core.stop().await;
}

#[actix::test]
async fn a_revocation_that_nobody_can_be_asked_for_any_more_says_so() {
    let fixture = Fixture::new().await;
    let _queue = enrolled(&fixture).await;
    let remove = RemoveTrustpoint {
        trustpoint: fixture.trustpoint_name.clone(),
        requested_by: Requester::new("ann", "operator"),
    };
    fixture.ask(fixture.device, Command::RemoveTrustpoint(remove)).await.unwrap();
    assert_eq!(want(&fixture).await, 1);
    let ended = until("it is given up", async || {
        let revocation = revocation(&fixture).await;
        (revocation["state"] == "failed").then_some(revocation)
    })
    .await;
    assert_eq!(ended["failure"]["code"], "trustpoint_removed");
    assert!(fixture.value::<bool>("SELECT revocation_due_at IS NULL FROM certificates").await);
    fixture.core.stop().await;
}
