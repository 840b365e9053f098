//! The metrics against a real database: what is counted, for whom, and that the documentation says so.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use trustfleet_controller::{
    db::{DbError, Stats},
    metrics::{LastSeen, Renewal, TenantCount, TimeLeft, tenants::OTHERS},
};
use trustfleet_model::job::{JobState, RequestKind};
use uuid::Uuid;

use crate::{
    api_house::House,
    fixture::{Fixture, add_agent, add_tenant, issued},
    reports::{failed, told},
    support::{Place, until},
};

const DAY: SignedDuration = SignedDuration::from_hours(24);
const MOMENT: SignedDuration = SignedDuration::from_micros(1);

async fn count(fixture: &Fixture, now: Timestamp) -> Stats {
    let budget = fixture.services().config.ca_budget.budget();
    let counted: Result<Stats, DbError> =
        fixture.services().store.system_tx("test", async |tx| tx.stats_fetch(now, 100, budget).await).await;
    counted.unwrap()
}

async fn count_acme(fixture: &Fixture, now: Timestamp) -> TenantCount {
    count(fixture, now).await.tenants.remove("acme").unwrap_or_default()
}

/// The only certificate in use, of a trustpoint.
async fn one_certificate(fixture: &Fixture, trustpoint: Uuid, not_before: Timestamp, not_after: Timestamp) {
    fixture.admin.execute("DELETE FROM certificates", &[]).await.unwrap();
    let sql = "INSERT INTO certificates (tenant_id, certificate_id, device_id, trustpoint_id, job_id, slot, serial, subject,
                   issuer, not_before, not_after, sha256, public_key_sha256, der, chain, issued_at)
               VALUES ($1, gen_random_uuid(), $2, $3, gen_random_uuid(), 'active', '01', 'CN=a', 'CN=ca', $4, $5, '', '',
                   '', '{}', now())";
    let (tenant, device) = (fixture.tenant.as_uuid(), fixture.device.as_uuid());
    fixture.admin.execute(sql, &[&tenant, &device, &trustpoint, &not_before, &not_after]).await.unwrap();
}

#[actix::test]
async fn a_certificate_is_in_the_one_band_of_the_time_that_it_has_left() {
    let fixture = Fixture::new().await;
    let now: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
    for (left, band) in [
        (-MOMENT, TimeLeft::Expired),
        (SignedDuration::ZERO, TimeLeft::Day),
        (DAY - MOMENT, TimeLeft::Day),
        (DAY, TimeLeft::Week),
        (7 * DAY - MOMENT, TimeLeft::Week),
        (7 * DAY, TimeLeft::Month),
        (30 * DAY - MOMENT, TimeLeft::Month),
        (30 * DAY, TimeLeft::Quarter),
        (90 * DAY - MOMENT, TimeLeft::Quarter),
        (90 * DAY, TimeLeft::Longer),
        (9_000 * DAY, TimeLeft::Longer),
    ] {
        one_certificate(&fixture, fixture.trustpoint.as_uuid(), now - DAY, now + left).await;
        let found = count_acme(&fixture, now).await;
        for other in TimeLeft::ALL {
            let number: i64 = Renewal::ALL.iter().map(|renewal| found.active_in(*other, *renewal)).sum();
            assert_eq!(number, i64::from(*other == band), "{left:?} left, counted as {}", other.as_str());
        }
        assert_eq!(found.nearest_expiry, Some(now + left));
    }
    fixture.core.stop().await;
}

#[actix::test]
async fn a_renewal_is_due_in_the_last_third_of_a_lifetime_then_under_way_then_failed() {
    let fixture = Fixture::new().await;
    let now: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
    let trustpoint = fixture.trustpoint.as_uuid();
    let renewal = async |left: SignedDuration| {
        one_certificate(&fixture, trustpoint, now + left - 90 * DAY, now + left).await;
        let found = count_acme(&fixture, now).await;
        let states = TimeLeft::ALL.iter().flat_map(|left| Renewal::ALL.iter().map(move |renewal| (*left, *renewal)));
        let found: Vec<_> = states.filter(|(left, renewal)| found.active_in(*left, *renewal) == 1).collect();
        assert_eq!(found.len(), 1, "{found:?}");
        found[0].1
    };
    let (early, late) = (30 * DAY, 30 * DAY - MOMENT);
    assert_eq!(renewal(early).await, Renewal::NotDue);
    assert_eq!(renewal(late).await, Renewal::Due);
    assert_eq!(renewal(-DAY).await, Renewal::Due);

    let mut queue = fixture.open_queue().await;
    let job_id = fixture.enroll().await;
    assert_eq!(renewal(late).await, Renewal::UnderWay);
    assert_eq!(renewal(early).await, Renewal::UnderWay);

    let sequence = fixture.next_job(&mut queue).await.sequence;
    told(&fixture, &mut queue, &fixture.report(job_id, sequence, failed("refused"))).await;
    assert_eq!(renewal(late).await, Renewal::Failed);
    assert_eq!(renewal(early).await, Renewal::NotDue);

    let job_id = fixture.enroll().await;
    let sequence = fixture.next_job(&mut queue).await.sequence;
    told(&fixture, &mut queue, &fixture.report(job_id, sequence, issued("ap-1").0)).await;
    assert_eq!(renewal(late).await, Renewal::Due, "a success clears the failure");
    fixture.core.stop().await;
}

#[actix::test]
async fn an_agent_is_in_the_one_band_of_its_silence() {
    let fixture = Fixture::new().await;
    let now: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
    let hour = SignedDuration::from_hours(1);
    for (silent, band) in [
        (-hour, LastSeen::HalfHour),
        (SignedDuration::ZERO, LastSeen::HalfHour),
        (hour / 2 - MOMENT, LastSeen::HalfHour),
        (hour / 2, LastSeen::TwoHours),
        (2 * hour, LastSeen::Day),
        (DAY - MOMENT, LastSeen::Day),
        (DAY, LastSeen::Longer),
    ] {
        fixture.admin.execute("UPDATE agents SET last_seen_at = $1", &[&(now - silent)]).await.unwrap();
        let found = count_acme(&fixture, now).await;
        for other in LastSeen::ALL {
            assert_eq!(found.agents_in(*other), i64::from(*other == band), "{silent:?}: {}", other.as_str());
        }
    }
    fixture.core.stop().await;
}

#[actix::test]
async fn jobs_that_have_ended_are_counted_for_a_day_and_open_ones_for_ever() {
    let fixture = Fixture::new().await;
    let job_id = fixture.enroll().await;
    let now: Timestamp = fixture.value("SELECT created_at FROM jobs").await;
    let later = now + 400 * DAY;
    let found = count_acme(&fixture, later).await;
    let open = [JobState::AwaitingPublish, JobState::AwaitingAgent];
    assert_eq!(open.map(|state| found.jobs_in(state)).iter().sum::<i64>(), 1, "{found:?}");

    let sql = "UPDATE jobs SET state = 'failed', finished_at = $1 WHERE job_id = $2";
    fixture.admin.execute(sql, &[&later, &job_id.as_uuid()]).await.unwrap();
    assert_eq!(count_acme(&fixture, later + DAY - MOMENT).await.jobs_in(JobState::Failed), 1);
    assert_eq!(count_acme(&fixture, later + DAY).await.jobs_in(JobState::Failed), 0);
    fixture.core.stop().await;
}

#[actix::test]
async fn beyond_the_limit_tenants_are_counted_together_and_series_of_a_vanished_one_go() {
    let place = Place::make().await;
    let core = place.core_with("[metrics]\ntenants_max = 1").await;
    let fixture = Fixture::on(place, core).await;
    let mut others = Vec::new();
    for name in ["aaa", "bbb"] {
        let tenant = add_tenant(fixture.services(), &fixture.admin, name).await;
        add_agent(fixture.services(), &fixture.admin, tenant, "site-1").await;
        others.push(tenant);
    }
    let tenants = async || {
        let (text, _) = fixture.services().metrics.render().unwrap();
        let families = Scrape::of(&text).families;
        let of = |name: &str| families.get(name).map(|family| family.values("tenant")).unwrap_or_default();
        let found = of("trustfleet_jobs");
        // A scrape may fall into the middle of a count: then the families differ for a moment.
        let alike = ["trustfleet_agents", "trustfleet_exchanges_total", "trustfleet_refusals_total"];
        alike.iter().all(|name| of(name) == found).then_some((found, text))
    };
    let both = BTreeSet::from(["acme".to_owned(), OTHERS.to_owned()]);
    until("all three to be counted", async || {
        let (found, text) = tenants().await?;
        let line =
            |tenant, n| text.contains(&format!("trustfleet_agents{{last_seen=\"30m\",tenant=\"{tenant}\"}} {n}\n"));
        (found == both && line("acme", 1) && line(OTHERS, 2)).then_some(())
    })
    .await;

    for table in ["agents", "tenants"] {
        let sql = format!("DELETE FROM {table} WHERE tenant_id = ANY($1)");
        let ids: Vec<_> = others.iter().map(|tenant| tenant.as_uuid()).collect();
        fixture.admin.execute(&sql, &[&ids]).await.unwrap();
    }
    until("the series of the others to go", async || {
        (tenants().await?.0 == BTreeSet::from(["acme".to_owned()])).then_some(())
    })
    .await;
    fixture.core.stop().await;
}

#[actix::test]
async fn a_refusal_counts_for_its_reason_and_every_ended_job_for_its_time() {
    let fixture = Fixture::new().await;
    let mut queue = fixture.open_queue().await;
    let job_id = fixture.enroll_as(RequestKind::Cr, None).await.unwrap();
    let sequence = fixture.next_job(&mut queue).await.sequence;
    // Before any count of the fleet knew the tenant or long after: it has its own series.
    told(&fixture, &mut queue, &fixture.report(job_id, sequence, failed("refused"))).await;
    let (text, _) = fixture.services().metrics.render().unwrap();
    for line in [
        "trustfleet_exchanges_total{kind=\"cr\",result=\"peer_refusal\",tenant=\"acme\"} 1",
        "trustfleet_refusals_total{fail_info=\"badMessageCheck\",tenant=\"acme\"} 1",
        "trustfleet_refusals_total{fail_info=\"none\",tenant=\"acme\"} 0",
        "trustfleet_job_seconds_count{kind=\"cr\"} 1",
        "trustfleet_job_seconds_bucket{kind=\"cr\",le=\"60\"} 1",
        "trustfleet_job_seconds_count{kind=\"activate\"} 0",
    ] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
    fixture.core.stop().await;
}

#[actix::test]
async fn requests_are_timed_by_operation_and_nobody_can_make_new_series() {
    let house = House::open().await;
    house.tenant("acme").await;
    house.call("GET", "/v1/tenants/acme/devices", None, None).await.expect(401);
    house.call("GET", "/v1/tenants/nobody/devices", Some(&house.platform), None).await.expect(404);
    house.call("BREW", "/v1/tenants/acme/devices", None, None).await.expect(405);
    house.call("GET", "/wp-admin.php", None, None).await.expect(404);
    house.call("GET", "//v1//tenants", Some(&house.platform), None).await.expect(200);
    let text = house.call("GET", "/metrics", None, None).await.expect(200).text;
    for line in [
        "trustfleet_http_request_seconds_count{operation=\"device_list\",status=\"4xx\"} 2",
        "trustfleet_http_request_seconds_count{operation=\"device_list\",status=\"5xx\"} 0",
        "trustfleet_http_request_seconds_count{operation=\"other\",status=\"4xx\"} 2",
        "trustfleet_http_request_seconds_count{operation=\"tenant_list\",status=\"2xx\"} 1",
        "trustfleet_http_request_seconds_count{operation=\"tenant_create\",status=\"2xx\"} 1",
    ] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
    let operations: BTreeSet<_> = trustfleet_controller::api::ROUTES
        .iter()
        .map(|route| route.operation.to_owned())
        .chain(["other".to_owned()])
        .collect();
    assert_eq!(Scrape::of(&text).families["trustfleet_http_request_seconds"].values("operation"), operations);
    house.close().await;
}

#[actix::test]
async fn the_documentation_lists_what_a_running_controller_tells_with_type_and_labels_and_nothing_else() {
    let house = House::open().await;
    let [_, operator, _] = house.tenant("acme").await;
    house.furnish("acme", "secret").await;
    let enroll = "/v1/tenants/acme/devices/ap-1/trustpoints/mgmt/enroll";
    house.post(enroll, &operator, json!({"request": "ir"})).await.expect(202);
    let text = until("the tenant to be counted", async || {
        let text = house.call("GET", "/metrics", None, None).await.expect(200).text;
        text.contains("trustfleet_jobs{").then_some(text)
    })
    .await;
    let scrape = Scrape::of(&text);
    let told: BTreeMap<_, _> =
        scrape.families.iter().map(|(name, family)| (name.clone(), (family.kind.clone(), family.labels()))).collect();
    let documented = documented();
    for (name, is) in &documented {
        assert_eq!(
            told.get(name),
            Some(is),
            "docs/metrics.md describes {name} otherwise than it is, or it is not there"
        );
    }
    let missing: Vec<_> = told.keys().filter(|name| !documented.contains_key(*name)).collect();
    assert!(missing.is_empty(), "docs/metrics.md lacks {missing:?}");

    // And every value of a label stands in the list of values, where that is one.
    let page = std::fs::read_to_string(PAGE).unwrap();
    let values = page.split("## Values of labels").nth(1).unwrap().split("\n## ").next().unwrap();
    for (name, family) in &scrape.families {
        for label in
            family.labels().iter().filter(|label| !["tenant", "name", "operation", "version"].contains(&label.as_str()))
        {
            let row = values.lines().find(|line| line.starts_with(&format!("| `{label}` |")));
            let row = row.unwrap_or_else(|| panic!("docs/metrics.md does not tell the values of {label}"));
            for value in family.values(label) {
                assert!(
                    row.contains(&format!("`{value}`")),
                    "{name}: {label} can be {value}, docs/metrics.md says not so"
                );
            }
        }
    }
    house.close().await;
}

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");

/// Type and labels of each metric, as `docs/metrics.md` has them.
fn documented() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let page = std::fs::read_to_string(PAGE).unwrap();
    let table = page.split("## All metrics").nth(1).unwrap().split("\n## ").next().unwrap();
    let quoted = |text: &str| text.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    let rows = table.lines().filter(|line| line.starts_with("| `")).map(|line| {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        assert_eq!(cells.len(), 7, "{line}");
        (quoted(cells[1]).remove(0), (cells[2].to_owned(), quoted(cells[3]).into_iter().collect()))
    });
    let found: Vec<_> = rows.collect();
    let number = found.len();
    let found: BTreeMap<_, _> = found.into_iter().collect();
    assert_eq!(found.len(), number, "a metric has two rows");
    found
}

/// A text in Prometheus' format.
struct Scrape {
    families: BTreeMap<String, Family>,
}

#[derive(Default)]
struct Family {
    kind: String,
    series: Vec<BTreeMap<String, String>>,
}

impl Family {
    fn labels(&self) -> BTreeSet<String> {
        self.series.iter().flat_map(BTreeMap::keys).filter(|label| *label != "le").cloned().collect()
    }

    fn values(&self, label: &str) -> BTreeSet<String> {
        self.series.iter().filter_map(|series| series.get(label)).cloned().collect()
    }
}

impl Scrape {
    fn of(text: &str) -> Self {
        let mut families: BTreeMap<String, Family> = BTreeMap::new();
        for line in text.lines() {
            if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
                families.entry(name.to_owned()).or_default().kind = kind.to_owned();
            } else if !line.starts_with('#') {
                let (sample, _) = line.rsplit_once(' ').unwrap();
                let (name, labels) = sample.split_once('{').unwrap_or((sample, "}"));
                let histogram = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
                let family = histogram.filter(|name| families.contains_key(*name)).unwrap_or(name).to_owned();
                let pairs = labels.trim_end_matches('}').split("\",").filter_map(|pair| pair.split_once("=\""));
                let series = pairs.map(|(label, value)| (label.to_owned(), value.trim_end_matches('"').to_owned()));
                families.get_mut(&family).expect("TYPE comes first").series.push(series.collect());
            }
        }
        Self { families }
    }
}
