//! An agent in front of thousands of devices: what rests costs next to nothing, and what waits does nothing yet.

use std::fs;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use trustfleet_agent::jobs::JobBook;
use trustfleet_agent::record::{JobRecord, Outcome, Outgoing, State, VERSION};
use trustfleet_agent::store::Store;
use trustfleet_model::clock::{Clock as _, SystemClock};
use trustfleet_wire::Envelope;
use trustfleet_wire::sign::Purpose;
use trustfleet_wire::v1::{Job, Task, ToAgent};

use crate::ca::TestCa;
use crate::house::{House, eventually, job_id};

/// Devices of the gateway.
const DEVICES: u128 = 2_000;
/// Most memory for each of them, bytes.
const MOST: usize = 4_096;

/// Memory of this process that is not of files, bytes.
fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

fn ended(job: &Job, house: &House) -> Vec<u8> {
    let message = ToAgent::Job(Box::new(job.clone()));
    let envelope = Envelope::seal(&message, Purpose::ToAgent, &house.controller_key).unwrap();
    let report = "x".repeat(6_000); // as long as one with a certificate and its chain
    let last = Envelope::seal(&report, Purpose::FromAgent, &house.controller_key).unwrap();
    let record = JobRecord {
        version: VERSION,
        job_id: job.job_id,
        envelope,
        sequence: job.sequence,
        received_at: SystemClock.now(),
        state: State::Nothing { outcome: Outcome::Succeeded },
        reports: Vec::new(),
        last_report: Some(Outgoing {
            report_id: uuid::Uuid::from_u128(7).into(),
            routing_key: "agent.x.r1".to_owned(),
            kind: "activated".to_owned(),
            envelope: last,
        }),
        stop: false,
    };
    serde_json::to_vec(&record).unwrap()
}

#[tokio::test]
async fn a_device_that_rests_costs_its_gateway_a_line_and_not_a_record() {
    let (ca, house) = (TestCa::start(), House::start().await);
    let store = Store::open(&house.dir.path().join("gateway")).unwrap();
    let key = house.controller_key.public_key();
    let mut length = 0;
    for n in 1..=DEVICES {
        let record = ended(&house.ir(n, &ca), &house);
        length = record.len();
        fs::write(store.job_file(job_id(n)), record).unwrap();
    }
    assert!(length > 2 * MOST, "a record of {length} bytes would fit anyway");
    let before = resident();
    let book = JobBook::load(&store, &key).unwrap();
    let each = resident().saturating_sub(before) / usize::try_from(DEVICES).unwrap();
    assert!(each < MOST, "{each} bytes for each device");
    assert_eq!((book.active().len(), book.resting().len()), (0, usize::try_from(DEVICES).unwrap()));
    let entry = book.get(job_id(DEVICES)).await.unwrap().unwrap();
    assert_eq!(entry.snapshot().await.job.job_id, job_id(DEVICES));
}

#[tokio::test]
async fn jobs_beyond_the_exchanges_allowed_wait_without_a_key_and_without_a_word_to_the_ca() {
    const ALLOWED: usize = 8; // parallel_exchanges, as the configuration has it by default
    let (ca, house) = (TestCa::start(), House::start().await);
    // A CA that takes every request and answers none.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        while let Ok((stream, _)) = silent.accept() {
            // Whoever only looks whether the CA is there has closed the connection again.
            if stream.peek(&mut [0]).is_ok_and(|bytes| bytes > 0) {
                kept.push(stream);
                counted.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    for n in 1..=12 {
        let mut job = house.ir(n, &ca);
        job.device = format!("ap-{n}");
        let Task::Enroll(enroll) = &mut job.task else { panic!("not an enrolment") };
        (enroll.urls, enroll.message_timeout_s) = (vec![url.clone()], 60);
        house.send(&job).await;
    }
    eventually("all exchanges are under way", || asked.load(Ordering::SeqCst) == ALLOWED).await;
    assert_eq!(house.kinds(), ["started"; ALLOWED]);
    assert_eq!(fs::read_dir(house.state().join("devices")).unwrap().count(), ALLOWED, "no key for those that wait");
    // A record that is being replaced has a second file beside it for a moment.
    let whole = |name: &std::ffi::OsStr| name.to_string_lossy().ends_with(".json");
    let records = fs::read_dir(house.state().join("jobs")).unwrap();
    let records = records.filter(|entry| whole(&entry.as_ref().unwrap().file_name())).count();
    assert_eq!(records, 12, "but their records are safe");
}
