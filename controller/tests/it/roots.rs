//! Roots that follow trust anchors: offered by agents, verified here, taken by operators.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair, KeyUsagePurpose,
};
use serde_json::json;
use trustfleet_wire::v1::{Blob, RootOffered};

use crate::{
    fixture::{Fixture, add_agent},
    support::until,
};

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = rcgen::date_time_ymd(2026, 1, 1);
    params.not_after = rcgen::date_time_ymd(2049, 12, 31);
    params
}

fn root(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    CertifiedIssuer::self_signed(params(name), KeyPair::generate().unwrap()).unwrap()
}

/// What a CA says of its next root: its key certified by `old`.
fn offered(
    fixture: &Fixture,
    next: &CertifiedIssuer<'static, KeyPair>,
    old: &CertifiedIssuer<'static, KeyPair>,
) -> RootOffered {
    let with_old = params("Root").signed_by(next.key(), old).unwrap();
    RootOffered {
        trustpoint_id: fixture.trustpoint,
        root: Blob(next.der().to_vec()),
        with_old: Blob(with_old.der().to_vec()),
    }
}

async fn says(fixture: &Fixture, roots: Vec<RootOffered>) {
    *fixture.roots.lock().unwrap() = roots;
    fixture.hello_again().await;
}

async fn trusts(fixture: &Fixture, old: &CertifiedIssuer<'static, KeyPair>) {
    let anchors = json!([old.pem()]);
    let sql = "UPDATE ca_servers SET spec = jsonb_set(spec, '{trust_anchors}', $1)";
    fixture.admin.execute(sql, &[&anchors]).await.unwrap();
}

const KEPT: &str = "SELECT count(*) FROM offered_roots";

#[actix::test]
async fn a_root_is_offered_once_when_an_anchor_certifies_it_and_changes_no_anchor() {
    let fixture = Fixture::new().await;
    let (old, next) = (root("Root"), root("Root"));
    trusts(&fixture, &old).await;
    let told = offered(&fixture, &next, &old);
    says(&fixture, vec![told.clone(), told.clone()]).await;
    until("it is kept", async || (fixture.value::<i64>(KEPT).await == 1).then_some(())).await;
    says(&fixture, vec![told.clone()]).await;
    // An hour later it is noted again, and is no news.
    fixture.admin.execute("UPDATE offered_roots SET told_at = now() - interval '2 hours'", &[]).await.unwrap();
    says(&fixture, vec![told]).await;
    let noted = "SELECT count(*) FROM offered_roots WHERE told_at > now() - interval '1 hour'";
    until("it is noted again", async || (fixture.value::<i64>(noted).await == 1).then_some(())).await;
    assert_eq!(fixture.value::<i64>("SELECT count(*) FROM audit WHERE action = 'root_offered'").await, 1);
    let anchors = "SELECT jsonb_array_length(spec -> 'trust_anchors') FROM ca_servers";
    assert_eq!(fixture.value::<i32>(anchors).await, 1);
    fixture.core.stop().await;
}

#[actix::test]
async fn a_root_that_no_anchor_certifies_is_not_offered_nor_one_for_anothers_trustpoint() {
    let fixture = Fixture::new().await;
    let (old, next, stranger) = (root("Root"), root("Root"), root("Root"));
    trusts(&fixture, &old).await;
    let genuine = offered(&fixture, &next, &old);
    let certified_by_a_stranger = offered(&fixture, &next, &stranger);
    let swapped = RootOffered { root: Blob(stranger.der().to_vec()), ..genuine.clone() };
    let renamed = RootOffered { root: Blob(root("Other Root").der().to_vec()), ..genuine.clone() };
    let rubbish = RootOffered { root: Blob(vec![1, 2, 3]), ..genuine.clone() };
    let elsewhere = RootOffered { trustpoint_id: uuid::Uuid::from_u128(9).into(), ..genuine.clone() };
    says(&fixture, vec![certified_by_a_stranger, swapped, renamed, rubbish, elsewhere]).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(fixture.value::<i64>(KEPT).await, 0);

    // An agent that is not in front of the device.
    let thief = add_agent(fixture.services(), &fixture.admin, fixture.tenant, "site-2").await;
    fixture.admin.execute("UPDATE devices SET agent_id = $1", &[&thief.id.as_uuid()]).await.unwrap();
    says(&fixture, vec![genuine.clone()]).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(fixture.value::<i64>(KEPT).await, 0);
    fixture.admin.execute("UPDATE devices SET agent_id = $1", &[&fixture.agent.id.as_uuid()]).await.unwrap();
    says(&fixture, vec![genuine]).await;
    until("the genuine one is kept", async || (fixture.value::<i64>(KEPT).await == 1).then_some(())).await;
    fixture.core.stop().await;
}
