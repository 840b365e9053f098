//! What breaks comes back: a lost broker, an actor that panics, a device with too much to do, a stop in the middle.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use jiff::Timestamp;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::CancellationToken;
use trustfleet_controller::{app::Core, error::AppError};
use trustfleet_model::{
    clock::{Clock, SystemClock},
    job::RequestKind,
};

use crate::{
    fixture::Fixture,
    support::{Place, backend, until},
};

/// A way to the broker that can be closed and opened.
struct Door {
    port: u16,
    target: String,
    open: std::sync::Mutex<CancellationToken>,
}

impl Door {
    async fn to(target: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let door = Self { port, target, open: std::sync::Mutex::new(CancellationToken::new()) };
        door.open().await;
        door
    }

    async fn open(&self) {
        let token = CancellationToken::new();
        *self.open.lock().unwrap() = token.clone();
        let listener =
            until("the door's port to be free", async || TcpListener::bind(("127.0.0.1", self.port)).await.ok()).await;
        let target = self.target.clone();
        backend().spawn(token.clone().run_until_cancelled_owned(async move {
            while let Ok((mut inner, _)) = listener.accept().await {
                let target = target.clone();
                tokio::spawn(token.clone().run_until_cancelled_owned(async move {
                    let mut outer = TcpStream::connect(target).await.unwrap();
                    copy_bidirectional(&mut inner, &mut outer).await
                }));
            }
        }));
    }

    /// Cuts every connection; new ones are refused.
    fn close(&self) {
        self.open.lock().unwrap().cancel();
    }
}

#[actix::test]
async fn jobs_accepted_while_the_broker_is_away_are_published_when_it_is_back() {
    let mut place = Place::make().await;
    let target = format!("127.0.0.1:{}", place.amqp_url.port().unwrap());
    let door = Door::to(target).await;
    place.amqp_url.set_port(Some(door.port)).unwrap();
    let core = place.core().await;
    let fixture = Fixture::on(place, core).await;
    fixture.services().broker.declare_agent_queue(fixture.agent.id).await.unwrap();

    door.close();
    let broker = &fixture.services().broker;
    until("the loss to be noticed", async || (!broker.is_ready()).then_some(())).await;
    let job_id = fixture.enroll().await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(fixture.value::<i64>("SELECT count(*) FROM outbox").await, 1);

    door.open().await;
    until("the broker to be back", async || broker.is_ready().then_some(())).await;
    let mut queue = fixture.open_queue().await;
    let job = fixture.next_job(&mut queue).await;
    assert_eq!(job.job_id, job_id);
    // Reports are consumed again as well.
    let started = trustfleet_wire::v1::Event::Started { public_key_sha256: "ab".repeat(32) };
    fixture.send_report(&fixture.report(job_id, job.sequence, started)).await;
    until("the report to be taken", async || {
        (fixture.value::<String>("SELECT state FROM jobs").await == "awaiting_ca").then_some(())
    })
    .await;
    fixture.core.stop().await;
}

/// The machine's clock, with one moment at which reading it panics.
#[derive(Default)]
struct BrittleClock {
    breaks: AtomicBool,
    broke: AtomicUsize,
}

impl Clock for BrittleClock {
    fn now(&self) -> Timestamp {
        if self.breaks.swap(false, Ordering::SeqCst) {
            self.broke.fetch_add(1, Ordering::SeqCst);
            panic!("the clock broke, as the test wants it");
        }
        SystemClock.now()
    }
}

#[actix::test]
async fn an_actor_that_panics_dies_alone_and_its_command_is_done_by_a_new_one() {
    let place = Place::make().await;
    let clock = Arc::new(BrittleClock::default());
    let shared: Arc<dyn Clock> = Arc::<BrittleClock>::clone(&clock);
    let core = Core::start(place.config(""), backend().handle(), shared).await.unwrap();
    core.services.broker.ready().await;
    let fixture = Fixture::on(place, core).await;
    let other = fixture.add_device("ap-2").await;
    fixture.add_trustpoint(other, "mgmt").await.unwrap();
    let command = fixture.enroll_command(fixture.device, RequestKind::Ir, None).await;
    let neighbour = fixture.enroll_command(other, RequestKind::Ir, None).await;

    clock.breaks.store(true, Ordering::SeqCst);
    fixture.ask(fixture.device, command).await.unwrap();
    assert_eq!(clock.broke.load(Ordering::SeqCst), 1);
    fixture.ask(other, neighbour).await.unwrap();
    assert_eq!(fixture.value::<i64>("SELECT count(*) FROM jobs").await, 2);
    let (text, _) = fixture.services().metrics.render().unwrap();
    assert!(text.contains("trustfleet_device_actors_activated_total 3"), "{text}");
    fixture.core.stop().await;
}

#[actix::test]
async fn a_device_with_too_much_to_do_says_so_instead_of_keeping_everybody_waiting() {
    let place = Place::make().await;
    let core = place.core_with("[actors]\nmailbox = 2").await;
    let fixture = Fixture::on(place, core).await;
    fixture.admin.batch_execute("BEGIN; SELECT 1 FROM trustpoints FOR UPDATE").await.unwrap();
    let command = fixture.enroll_command(fixture.device, RequestKind::Ir, None).await;
    let asks = join_all((0..12).map(|_| fixture.ask(fixture.device, command.clone())));
    let release = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        fixture.admin.batch_execute("ROLLBACK").await.unwrap();
    };
    let (answers, ()) = futures_util::join!(asks, release);
    let (done, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert!(!done.is_empty(), "{refused:?}");
    assert!(!refused.is_empty(), "twelve commands fitted a mailbox of two");
    assert!(refused.iter().all(|answer| matches!(answer, Err(AppError::Busy))), "{refused:?}");
    assert_eq!(fixture.value::<i64>("SELECT count(*) FROM jobs").await, 1);
    fixture.core.stop().await;
}

#[actix::test]
async fn a_stop_brings_to_its_end_what_was_begun() {
    let fixture = Fixture::new().await;
    let mut commands = Vec::new();
    for n in 0..10 {
        let device = fixture.add_device(&format!("ap-{}", n + 100)).await;
        fixture.add_trustpoint(device, "mgmt").await.unwrap();
        commands.push((device, fixture.enroll_command(device, RequestKind::Ir, None).await));
    }
    let registry = fixture.services().registry.clone();
    let tenant = fixture.tenant;
    let asked = commands.into_iter().map(|(device, command)| {
        let registry = registry.clone();
        actix::spawn(async move { registry.ask(tenant, device, command).await })
    });
    let asked: Vec<_> = asked.collect();
    tokio::time::sleep(Duration::from_millis(5)).await;
    fixture.core.stop().await;
    let mut done = 0;
    for answer in join_all(asked).await {
        done += i64::from(answer.unwrap().is_ok());
    }
    let jobs: i64 = fixture.admin.query_one("SELECT count(*) FROM jobs", &[]).await.unwrap().get(0);
    assert_eq!(jobs, done, "an accepted command was not kept, or a kept one was not accepted");
}

#[actix::test]
async fn two_replicas_on_one_database_make_one_job_and_share_its_reports() {
    let place = Place::make().await;
    let second = place.core().await;
    let core = place.core().await;
    let fixture = Fixture::on(place, core).await;
    let mut queue = fixture.open_queue().await;
    // The same request at both, many times: each replica's actor holds a state that the other one changes.
    let mut commands = Vec::new();
    for _ in 0..6 {
        commands.push(fixture.enroll_command(fixture.device, RequestKind::Ir, Some("key-1")).await);
    }
    let asks = commands.into_iter().enumerate().map(|(n, command)| {
        let registry = if n % 2 == 0 { &fixture.services().registry } else { &second.services.registry };
        registry.ask(fixture.tenant, fixture.device, command)
    });
    let answers: Vec<_> = join_all(asks).await.into_iter().map(Result::unwrap).collect();
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    assert_eq!(fixture.value::<i64>("SELECT count(*) FROM jobs").await, 1);

    let job = fixture.next_job(&mut queue).await;
    let started = trustfleet_wire::v1::Event::Started { public_key_sha256: "ab".repeat(32) };
    let (issued, serial) = crate::fixture::issued("ap-1");
    let activated = trustfleet_wire::v1::Event::Activated { serial, file: "/current".to_owned(), in_service: None };
    for event in [started, issued, activated] {
        let report = fixture.report(job.job_id, job.sequence, event);
        // Three times each: both replicas get some of them.
        for _ in 0..3 {
            fixture.send_report(&report).await;
        }
    }
    until("the certificate to be active", async || {
        let rows = fixture.admin.query("SELECT slot FROM certificates", &[]).await.unwrap();
        (rows.first()?.get::<_, String>(0) == "active").then_some(())
    })
    .await;
    assert_eq!(fixture.value::<i64>("SELECT count(*) FROM certificates").await, 1);
    second.stop().await;
    fixture.core.stop().await;
}

#[actix::test]
async fn amqps_begins_with_a_tls_handshake_and_never_with_plain_amqp() {
    use tokio::io::AsyncReadExt as _;

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let config = trustfleet_controller::config::BrokerConfig {
        management_url: None,
        log_url: None,
        url: format!("amqps://u:p@localhost:{port}/%2f").parse::<url::Url>().unwrap().into(),
        agent_url: "amqps://localhost/%2f".parse().unwrap(),
        token_lifetime_s: 900,
        tls_ca_file: None,
        insecure_plaintext: false,
    };
    let metrics = Arc::new(trustfleet_controller::metrics::Metrics::new(100).unwrap());
    let stop = CancellationToken::new();
    let tls = trustfleet_controller::tls::ClientTls::new("broker.tls_ca_file", None).unwrap();
    let (_broker, task) = trustfleet_controller::broker::BrokerHandle::start(
        &config,
        Some(Arc::new(tls)),
        backend().handle(),
        metrics,
        stop.clone(),
    );
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut first = [0; 3];
    stream.read_exact(&mut first).await.unwrap();
    // RFC 8446 section 5.1: handshake (22), legacy version 3.1 or 3.3; plain AMQP begins with "AMQP".
    assert_eq!(first[..2], [22, 3], "{first:?}");
    stop.cancel();
    drop(stream);
    task.await.unwrap();
}
