//! From a body to what a campaign is about; everything that is wrong is named at once.

use jiff::Timestamp;
use trustfleet_model::device::Labels;
use trustfleet_model::field::{ObjectName, TrustpointName, Violations};
use trustfleet_model::ids::{CaServerId, PolicyId};
use trustfleet_model::job::RequestKind;

use crate::api::body::Body;
use crate::api::call::{Call, resolved};
use crate::api::dto::campaign::{CampaignAction, CampaignCreate, CampaignSelector};
use crate::api::problem::Problem;
use crate::campaign::{
    Action, CampaignSpec, FAILURES, IN_FLIGHT, IN_FLIGHT_MAX, Named, PATIENCE_S, Portion, SUCCESS_PERCENT, Selector,
    WAIT_MOST_S, WAVES_MAX,
};

/// Longest issuer, characters.
const ISSUER_MAX: usize = 1_000;
/// Shortest patience, seconds.
const PATIENCE_LEAST_S: u32 = 60;

/// Names in a body, found.
#[derive(Default)]
struct Found {
    select_ca: Option<Named<CaServerId>>,
    select_policy: Option<Named<PolicyId>>,
    to_ca: Option<Named<CaServerId>>,
    to_policy: Option<Named<PolicyId>>,
}

/// Reads what a campaign is called and about.
pub(super) async fn spec(call: &Call, body: Body<CampaignCreate>) -> Result<(ObjectName, CampaignSpec), Problem> {
    let (body, mut findings) = body.open();
    let mut read = None;
    if let Some(body) = body {
        let (found, unknown) = find(call, &body).await?;
        findings.add(unknown);
        let name = findings.rules.check("name", "S1", body.name.parse::<ObjectName>());
        let before = findings.rules.as_slice().len();
        let spec = check(body, found, call.now, &mut findings.rules);
        if findings.rules.as_slice().len() == before {
            read = name.zip(Some(spec));
        }
    }
    findings.finish(read)
}

async fn find(call: &Call, body: &CampaignCreate) -> Result<(Found, Violations), Problem> {
    call.tenant_tx("campaign_references", async |tx| {
        let mut wrong = Violations::new();
        let mut found = Found::default();
        let ca = |field, text: &Option<String>, wrong: &mut Violations| {
            text.as_ref().and_then(|text| wrong.check(field, "name", text.parse::<ObjectName>()))
        };
        if let Some(name) = ca("select.ca_server", &body.select.ca_server, &mut wrong) {
            let known = resolved(tx.ca_server_fetch(&name).await, "select.ca_server", "CA server", &name, &mut wrong)?;
            found.select_ca = known.map(|known| Named { id: known.id, name });
        }
        if let Some(name) = ca("ca_server", &body.ca_server, &mut wrong) {
            let known = resolved(tx.ca_server_fetch(&name).await, "ca_server", "CA server", &name, &mut wrong)?;
            found.to_ca = known.map(|known| Named { id: known.id, name });
        }
        if let Some(name) = ca("select.policy", &body.select.policy, &mut wrong) {
            let known = resolved(tx.policy_fetch(&name).await, "select.policy", "policy", &name, &mut wrong)?;
            found.select_policy = known.map(|known| Named { id: known.id, name });
        }
        if let Some(name) = ca("policy", &body.policy, &mut wrong) {
            let known = resolved(tx.policy_fetch(&name).await, "policy", "policy", &name, &mut wrong)?;
            found.to_policy = known.map(|known| Named { id: known.id, name });
        }
        Ok((found, wrong))
    })
    .await
}

fn check(body: CampaignCreate, found: Found, now: Timestamp, rules: &mut Violations) -> CampaignSpec {
    let is_empty = body.select.clone();
    let Found { select_ca, select_policy, to_ca, to_policy } = found;
    let select = select(&body.select, select_ca, select_policy, rules);
    if nothing_said(&is_empty) {
        let message = "says nothing; give at least one thing that trustpoints must have, or the campaign would be about all of them";
        rules.add("select", "selector", message);
    }
    if let Some(moment) = body.select.expires_before.filter(|moment| *moment <= now) {
        rules.add("select.expires_before", "range", format!("is {moment}, which is over: give a moment that comes"));
    }
    let action = action(&body, to_ca, to_policy, rules);
    let mut waves = Vec::new();
    if body.waves.len() >= WAVES_MAX {
        let message = format!(
            "has {} sizes; at most {} are allowed, the last wave is what is left",
            body.waves.len(),
            WAVES_MAX - 1
        );
        rules.add("waves", "limit", message);
    } else {
        for (at, text) in body.waves.iter().enumerate() {
            let field = format!("waves[{at}]");
            match rules.check(&field, "portion", text.parse::<Portion>()) {
                Some(size) if size.is_zero() => {
                    rules.add(field, "portion", "is nothing; a wave has at least one member")
                }
                Some(size) => waves.push(size),
                None => {}
            }
        }
    }
    let failures =
        body.failures_allowed.map(|text| rules.check("failures_allowed", "portion", text.parse::<Portion>()));
    let max_in_flight = body.max_in_flight.unwrap_or(IN_FLIGHT);
    let success_percent = body.success_percent.unwrap_or(SUCCESS_PERCENT);
    let patience_s = body.patience_s.unwrap_or(PATIENCE_S);
    let mut range = |field: &str, value: u32, least: u32, most: u32| {
        if !(least..=most).contains(&value) {
            rules.add(field, "range", format!("is {value}; allowed are {least} to {most}"));
        }
    };
    range("max_in_flight", max_in_flight, 1, IN_FLIGHT_MAX);
    range("success_percent", success_percent.into(), 0, 100);
    range("soak_s", body.soak_s, 0, WAIT_MOST_S);
    range("patience_s", patience_s, PATIENCE_LEAST_S, WAIT_MOST_S);
    CampaignSpec {
        select,
        action,
        waves,
        max_in_flight,
        success_percent,
        failures_allowed: failures.flatten().unwrap_or(FAILURES),
        accept_unverifiable: body.accept_unverifiable,
        soak_s: body.soak_s,
        patience_s,
        urgent: body.urgent,
    }
}

fn nothing_said(select: &CampaignSelector) -> bool {
    let CampaignSelector { labels, trustpoint, ca_server, policy, issuer, key, expires_before } = select;
    let texts = [trustpoint, ca_server, policy, issuer, key];
    labels.is_empty() && expires_before.is_none() && texts.iter().all(|text| text.is_none())
}

fn select(
    body: &CampaignSelector,
    ca_server: Option<Named<CaServerId>>,
    policy: Option<Named<PolicyId>>,
    rules: &mut Violations,
) -> Selector {
    let mut wrong = Violations::new();
    let labels = Labels::parse(&body.labels, &mut wrong);
    for violation in wrong.into_vec() {
        rules.add(format!("select.{}", violation.field), violation.rule, violation.message);
    }
    let trustpoint = body.trustpoint.as_ref();
    let trustpoint =
        trustpoint.and_then(|name| rules.check("select.trustpoint", "S17", name.parse::<TrustpointName>()));
    for (field, text) in [("select.issuer", &body.issuer), ("select.key", &body.key)] {
        if let Some(text) = text {
            rules.check(field, "text", trustfleet_model::field::check_text(text, ISSUER_MAX));
        }
    }
    Selector {
        labels,
        trustpoint,
        ca_server,
        policy,
        issuer: body.issuer.clone(),
        key: body.key.clone(),
        expires_before: body.expires_before,
    }
}

fn action(
    body: &CampaignCreate,
    ca_server: Option<Named<CaServerId>>,
    policy: Option<Named<PolicyId>>,
    rules: &mut Violations,
) -> Action {
    let is = |action| body.action == action;
    let mut only = |field: &str, is_said: bool, fits: bool, with: &str| {
        if is_said && !fits {
            rules.add(field, "action", format!("stands only with action {with}"));
        }
    };
    only("policy", body.policy.is_some(), is(CampaignAction::Change), "change");
    only("ca_server", body.ca_server.is_some(), is(CampaignAction::Change), "change");
    only("request", body.request.is_some(), is(CampaignAction::Change), "change");
    only("reason", body.reason.is_some(), is(CampaignAction::Revoke), "revoke");
    let issues = is(CampaignAction::Renew) || is(CampaignAction::Rekey) || is(CampaignAction::Change);
    only("stage_only", body.stage_only, issues, "renew, rekey or change");
    let stage_only = body.stage_only;
    match body.action {
        CampaignAction::Renew => Action::Renew { stage_only },
        CampaignAction::Rekey => Action::Rekey { stage_only },
        CampaignAction::Activate => Action::Activate,
        CampaignAction::Anchors => Action::Anchors,
        CampaignAction::Revoke => {
            if body.reason.is_none() {
                rules.add("reason", "required", "is missing: say why the certificates are revoked");
            }
            let unsaid = trustfleet_model::revocation::RevocationReason::Unspecified;
            Action::Revoke { reason: body.reason.map_or(unsaid, Into::into) }
        }
        CampaignAction::Change => {
            if body.policy.is_none() && body.ca_server.is_none() {
                rules.add("policy", "required", "is missing: give a policy, a ca_server, or both");
            }
            let usual = if body.ca_server.is_some() { RequestKind::Cr } else { RequestKind::Kur };
            let request = body.request.map_or(usual, Into::into);
            if request == RequestKind::Kur && body.ca_server.is_some() {
                let message =
                    "is kur: no update leads to another CA; ask by cr, which the certificate in use signs, or by ir";
                rules.add("request", "S30", message);
            }
            Action::Change { policy, ca_server, request, stage_only }
        }
    }
}
