//! A dry run: what an enrolment needs is tried, and the CA hears nothing.

use std::os::unix::fs::PermissionsExt as _;
use std::{fs, net::TcpListener};

use trustfleet_wire::v1::{DryRun, Enroll, Event, Request, Task};

use crate::ca::TestCa;
use crate::house::House;

async fn tried(house: &House, number: u128, enroll: Enroll, services: &[&str]) -> Box<DryRun> {
    let mut job = house.job(number, Task::DryRun(Box::new(enroll)));
    job.services = services.iter().map(ToString::to_string).collect();
    house.send(&job).await;
    let nth = house.reports().iter().filter(|report| matches!(report.event, Event::DryRun(_))).count() + 1;
    let Event::DryRun(found) = house.wait_for_nth("dry_run", nth).await.event else { unreachable!() };
    found
}

fn not_ok(found: &DryRun) -> Vec<(&str, &str, Option<&str>)> {
    let bad = found.checks.iter().filter(|check| check.result != "ok");
    bad.map(|check| (check.name.as_str(), check.result.as_str(), check.rule.as_deref())).collect()
}

#[tokio::test]
async fn a_dry_run_finds_everything_ready_and_leaves_no_trace_at_the_ca_and_on_the_device() {
    let (ca, house) = (TestCa::start(), House::start().await);
    let found = tried(&house, 1, house.enroll(1, Request::Ir, &ca), &[]).await;
    let names: Vec<_> = found.checks.iter().map(|check| check.name.as_str()).collect();
    assert_eq!(
        names,
        ["storage", "services", "order", "accept", "source", "server", "credentials", "request"],
        "{found:?}"
    );
    assert_eq!(not_ok(&found), [], "{found:?}");
    assert!(ca.heard().is_empty(), "the CA heard {:?}", ca.heard());
    assert!(!house.trustpoint().exists() && !house.state().join("dry-run").exists());
    assert_eq!(house.kinds(), ["dry_run"]);

    house.send(&house.ir(2, &ca)).await;
    house.wait_for("activated").await;
    let before = fs::read_link(house.trustpoint().join("current")).unwrap();
    let found = tried(&house, 3, house.enroll(3, Request::Kur, &ca), &[]).await;
    assert!(not_ok(&found).iter().all(|(_, result, _)| *result == "warning"), "{found:?}");
    assert_eq!((ca.heard(), fs::read_link(house.trustpoint().join("current")).unwrap()), (vec!["ir"], before));
}

#[tokio::test]
async fn s32_a_dry_run_tells_everything_at_once_that_would_fail() {
    let (ca, house) = (TestCa::start(), House::start().await);
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let closed = format!("http://{nobody}/pkix/");
    let wrong = Enroll { mac: None, urls: vec![closed.clone()], ..house.enroll(1, Request::Ir, &ca) };
    let found = tried(&house, 1, wrong, &["radius"]).await;
    assert_eq!(
        not_ok(&found),
        [
            ("services", "failed", Some("S40")),
            ("server", "failed", Some("S6")),
            ("credentials", "failed", Some("no_credentials"))
        ],
        "{found:?}"
    );
    let second = Enroll { urls: vec![closed, ca.url.clone()], ..house.enroll(2, Request::Ir, &ca) };
    let found = tried(&house, 2, second, &[]).await;
    assert!(not_ok(&found).contains(&("server", "warning", Some("S6"))), "one is enough: {found:?}");
    let unreadable =
        Enroll { subject: "no name".to_owned(), file_format: "p12".to_owned(), ..house.enroll(3, Request::Ir, &ca) };
    let found = tried(&house, 3, unreadable, &[]).await;
    assert_eq!(not_ok(&found), [("order", "failed", Some("S18")), ("order", "failed", Some("S15"))], "{found:?}");
    let kur = tried(&house, 4, house.enroll(4, Request::Kur, &ca), &[]).await;
    assert_eq!(not_ok(&kur), [("credentials", "failed", Some("no_certificate_to_update"))]);
    assert!(ca.heard().is_empty());
    let told = format!("{:?}", house.reports());
    assert!(!told.contains(crate::ca::SECRET), "a secret is in a report");
    assert_eq!(fs::metadata(house.state()).unwrap().permissions().mode() & 0o777, 0o700);
}
