//! Group commit: every device on its own version, and honesty about what is not known.

use std::time::Duration;

use futures_util::future::join_all;
use trustfleet_controller::{db::DbError, device::Command, error::AppError};
use trustfleet_model::job::RequestKind;

use crate::{fixture::Fixture, support::until};

#[actix::test]
async fn many_devices_commit_together_and_a_stale_one_decides_anew() {
    let fixture = Fixture::new().await;
    let mut devices = Vec::new();
    for n in 0..20 {
        let device = fixture.add_device(&format!("ap-{}", n + 100)).await;
        fixture.add_trustpoint(device, "mgmt").await.unwrap();
        devices.push(device);
    }
    // Another replica, or a plain change of the device, moves one row on behind its actor's back.
    let sql = "UPDATE devices SET version = version + 1, serial = 'SN-7' WHERE device_id = $1";
    fixture.admin.execute(sql, &[&devices[7].as_uuid()]).await.unwrap();

    let mut commands = Vec::new();
    for device in &devices {
        commands.push(fixture.enroll_command(*device, RequestKind::Ir, None).await);
    }
    let answers = join_all(devices.iter().zip(commands).map(|(device, command)| fixture.ask(*device, command))).await;
    for answer in answers {
        answer.unwrap();
    }
    assert_eq!(fixture.value::<i64>("SELECT count(*) FROM jobs").await, 20);
    let conflicts = metric(&fixture, "trustfleet_device_version_conflicts_total");
    assert!(conflicts >= 1.0, "the stale decision was written over another one");
    let batches = metric(&fixture, "trustfleet_group_commit_decisions_count");
    let decisions = metric(&fixture, "trustfleet_group_commit_decisions_sum");
    assert!(decisions > batches, "{decisions} decisions took {batches} statements");
    fixture.core.stop().await;
}

#[actix::test]
async fn a_decision_that_the_database_refuses_falls_alone() {
    let fixture = Fixture::new().await;
    let mut devices = Vec::new();
    for n in 0..8 {
        let device = fixture.add_device(&format!("ap-{}", n + 100)).await;
        fixture.add_trustpoint(device, "mgmt").await.unwrap();
        devices.push(device);
    }
    let mut commands = Vec::new();
    for device in &devices {
        commands.push(fixture.enroll_command(*device, RequestKind::Ir, None).await);
    }
    // Two commands with the same job id: the second breaks the key of the table, whatever came with it.
    if let (Command::Enroll(first), Command::Enroll(second)) = (commands[2].clone(), &mut commands[3]) {
        second.job_id = first.job_id;
    }
    let answers = join_all(devices.iter().zip(commands).map(|(device, command)| fixture.ask(*device, command))).await;
    let refused: Vec<_> = answers.iter().filter(|answer| answer.is_err()).collect();
    assert!(matches!(refused.as_slice(), [Err(AppError::Conflict { .. })]), "{answers:?}");
    assert_eq!(fixture.value::<i64>("SELECT count(*) FROM jobs").await, 7);
    fixture.core.stop().await;
}

#[actix::test]
async fn an_unknown_outcome_ends_the_actor_and_the_next_one_reads_the_row() {
    let fixture = Fixture::new().await;
    let command = fixture.enroll_command(fixture.device, RequestKind::Ir, None).await;
    assert_eq!(fixture.services().registry.len(), 1);

    // The trustpoint is held, so that the commit waits; then its connection is cut.
    fixture.admin.batch_execute("BEGIN; SELECT 1 FROM trustpoints FOR UPDATE").await.unwrap();
    let killer = fixture.place.admin().await;
    let cut = async {
        let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                   WHERE query LIKE '/* group_commit */%' AND wait_event_type = 'Lock'";
        until("the commit to wait for the row", async || {
            (killer.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 1).then_some(())
        })
        .await;
        fixture.admin.batch_execute("ROLLBACK").await.unwrap();
    };
    let (answer, ()) = futures_util::join!(fixture.ask(fixture.device, command.clone()), cut);
    assert!(matches!(answer, Err(AppError::OutcomeUnknown { .. })), "{answer:?}");

    until("the actor to be gone", async || {
        fixture.services().registry.sweep();
        fixture.services().registry.is_empty().then_some(())
    })
    .await;
    // The same command again: decided on what the row holds, whichever that is; one job in the end.
    fixture.ask(fixture.device, command.clone()).await.unwrap();
    fixture.ask(fixture.device, command).await.unwrap();
    assert_eq!(fixture.value::<i64>("SELECT count(*) FROM jobs").await, 1);
    fixture.core.stop().await;
}

#[actix::test]
async fn a_device_whose_row_is_held_does_not_hold_up_the_others() {
    let fixture = Fixture::new().await;
    let other = fixture.add_device("ap-2").await;
    fixture.add_trustpoint(other, "mgmt").await.unwrap();
    let (held, free) = (
        fixture.enroll_command(fixture.device, RequestKind::Ir, None).await,
        fixture.enroll_command(other, RequestKind::Ir, None).await,
    );
    let hold = "SELECT 1 FROM devices WHERE name = 'ap-1' FOR UPDATE";
    fixture.admin.batch_execute(&format!("BEGIN; {hold}")).await.unwrap();
    let both = futures_util::future::join(fixture.ask(fixture.device, held.clone()), fixture.ask(other, free));
    let (held_answer, free_answer) = tokio::time::timeout(Duration::from_secs(5), both).await.unwrap();
    free_answer.unwrap();
    assert!(matches!(held_answer, Err(AppError::Busy)), "{held_answer:?}");
    fixture.admin.batch_execute("ROLLBACK").await.unwrap();
    fixture.ask(fixture.device, held).await.unwrap();
    fixture.core.stop().await;
}

#[actix::test]
async fn a_database_that_is_away_leaves_nothing_half_done_and_its_return_is_noticed() {
    let fixture = Fixture::new().await;
    let command = fixture.enroll_command(fixture.device, RequestKind::Ir, None).await;
    let name = &fixture.place.name;
    // New connections are refused, and the ones there are are cut.
    let outside = crate::support::connect(&crate::support::variable("TRUSTFLEET_PG_ADMIN_URL")).await;
    outside.batch_execute(&format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false")).await.unwrap();
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1";
    outside.query(cut, &[name]).await.unwrap();
    let answer = fixture.ask(fixture.device, command.clone()).await;
    assert!(answer.as_ref().is_err_and(AppError::is_transient), "{answer:?}");
    assert!(!fixture.services().store.is_ready().await);

    outside.batch_execute(&format!("ALTER DATABASE {name} ALLOW_CONNECTIONS true")).await.unwrap();
    until("the database to be used again", async || fixture.ask(fixture.device, command.clone()).await.ok()).await;
    let admin = fixture.place.admin().await;
    assert_eq!(admin.query_one("SELECT count(*) FROM jobs", &[]).await.unwrap().get::<_, i64>(0), 1);
    fixture.core.stop().await;
}

#[actix::test]
async fn a_cached_state_does_not_answer_for_a_row_that_moved_on() {
    let fixture = Fixture::new().await;
    let first = fixture.enroll().await;
    // Elsewhere the job ended: another replica took the agent's report.
    fixture
        .admin
        .batch_execute(
            "UPDATE jobs SET state = 'failed', finished_at = now();
             UPDATE trustpoints SET state = jsonb_set(state, '{trustpoint,request}', '{\"awaiting\":\"nothing\"}');
             UPDATE devices SET version = version + 1",
        )
        .await
        .unwrap();
    assert_ne!(fixture.enroll().await, first, "the ended job was given as the one under way");
    fixture.core.stop().await;
}

#[actix::test]
async fn an_idle_actor_leaves_memory_and_comes_back_with_the_next_command() {
    let place = crate::support::Place::make().await;
    let core = place.core_with("[actors]\nidle_s = 1").await;
    let fixture = Fixture::on(place, core).await;
    let job = fixture.enroll().await;
    until("the actor to leave", async || {
        tokio::time::sleep(Duration::from_millis(100)).await;
        fixture.services().registry.sweep();
        fixture.services().registry.is_empty().then_some(())
    })
    .await;
    assert_eq!(fixture.enroll().await, job);
    fixture.core.stop().await;
}

/// The value of a metric without labels.
fn metric(fixture: &Fixture, name: &str) -> f64 {
    let (text, _) = fixture.services().metrics.render().unwrap();
    let line = text.lines().find(|line| line.starts_with(&format!("{name} "))).expect("the metric is there");
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[actix::test]
async fn a_transaction_that_loses_every_race_may_be_tried_again_later() {
    let fixture = Fixture::new().await;
    let (name, now) = ("ap-1".parse().unwrap(), fixture.services().clock.now());
    let lost: Result<(), DbError> = fixture
        .services()
        .store
        .tenant_tx(fixture.tenant, "test", async |tx| {
            let device = tx.registered_device_fetch(&name).await?.device;
            fixture.admin.batch_execute("UPDATE devices SET version = version + 1").await.unwrap();
            tx.registered_device_update(&device, now).await
        })
        .await;
    assert!(matches!(lost, Err(DbError::Unavailable { .. })), "{lost:?}");
    fixture.core.stop().await;
}
