//! Roll-overs of trust anchors (S57): the next ones reach the services that rely on them before a CA server's issuer is switched.
//!
//! Each step is a change of the CA server, with a revision of its own: from the start both sides are anchors, the switch
//! changes the issuing side, and at the end one side goes. While one is open, the same cannot be done behind its back.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use trustfleet_model::ca_server::CaServerSpec;
use trustfleet_model::field::{ObjectName, Violations, check_text};
use trustfleet_model::ids::{CaServerId, RolloverId, TrustpointId};
use trustfleet_model::rollover::{AnchorState, Issuer, NAMED_MAX, Phase, RolloverSpec, may_switch};
use trustfleet_pki::Certificate;
use trustfleet_pki::chain::verify_end_entity;
use utoipa::IntoParams;

use self::sides::{der, ders, fingerprints, issuing_side, normalised, switched, with_anchors, without};
use super::body::Body;
use super::call::{Call, ListQuery, REASON_MAX, Reason, resolved};
use super::configured::Author;
use super::dto::Page;
use super::dto::rollover::{LaggardBody, RolloverBody, RolloverStart, RolloverSwitch};
use super::problem::{Problem, ProblemBody, json};
use super::{ca_servers, changes};
use crate::db::{Change, Configured, IssuedAlike, Rollover, TenantTx};
use crate::error::AppError;

mod sides;

type CaServer = Configured<CaServerId, CaServerSpec>;

/// Filters of the list of trustpoints that a roll-over waits for.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code)] // read by the OpenAPI document only
pub struct MissingQuery {
    /// Only in this state: `pending`, `sent`, `stored`, `loaded` or `failed`; default: all that do not count.
    state: Option<String>,
}

/// What a proposal of one of its steps holds.
#[derive(Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
enum Proposal {
    Start(RolloverSpec),
    Switch(RolloverSwitch),
    Finish,
}

/// Begins a roll-over.
///
/// # Errors
/// 404; 409 when one is open; 422 with everything that is wrong.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/ca-servers/{ca_server}/rollover", tag = "CA servers",
    operation_id = "rollover_start", summary = "Begin to roll over its trust anchors: the next ones go to the devices",
    request_body = RolloverStart, params(Reason), responses(
        (status = 201, description = "The next anchors are anchors beside the former ones, and go to the devices", body = RolloverBody),
        (status = 409, description = "One is open", body = ProblemBody, content_type = "application/problem+json")))]
pub async fn start(call: Call, body: Body<RolloverStart>) -> Result<HttpResponse, Problem> {
    let name: ObjectName = call.segment("ca_server", "CA server")?;
    let allow_weak = call.tenant()?.allow_weak_algorithms;
    call.tenant_read("ca_server_show", async |tx| Ok(tx.ca_server_fetch(&name).await?)).await?;
    let (spec, issuer_of) = body.check(|body, violations| {
        let other = body.issuer_of.as_deref();
        let other = other.and_then(|name| violations.check("issuer_of", "S1", name.parse::<ObjectName>()));
        let spec = RolloverSpec {
            next_anchors: body.next_anchors,
            required_percent: body.required_percent,
            counts: body.counts.into(),
            issuer: body.issuer.into(),
            by_campaign: body.by_campaign,
        };
        spec.check(violations);
        if other.is_some() && spec.issuer != Issuer::default() {
            violations.add("issuer_of", "conflict", "does not go with issuer: give one of them");
        }
        Some((spec, other))
    })?;
    let spec = call
        .tenant_tx("rollover_check", async |tx| {
            let present = tx.ca_server_fetch(&name).await?;
            none_open(tx, &present).await?;
            let mut violations = Violations::new();
            let mut spec = spec.clone();
            if let Some(other) = &issuer_of {
                let found = tx.ca_server_fetch(other).await;
                let found = resolved(found, "issuer_of", "CA server", other, &mut violations)?;
                spec.issuer = found.map(|found| issuing_side(&found.spec)).unwrap_or_default();
            }
            spec.next_anchors = normalised("next_anchors", &spec.next_anchors, &mut violations);
            if let Some(wrong) = check(&present, &spec, allow_weak) {
                wrong.into_vec().into_iter().for_each(|wrong| violations.add(wrong.field, wrong.rule, wrong.message));
            }
            violations.into_result()?;
            Ok(spec)
        })
        .await?;
    if changes::is_held(&call, "rollover_start")? {
        let look = async |tx: &TenantTx| {
            let present = tx.ca_server_fetch(&name).await?;
            none_open(tx, &present).await?;
            Ok(Some(present.revision))
        };
        return changes::propose(&call, "rollover_start", "rollover", &name, Some(&Proposal::Start(spec)), look).await;
    }
    let author = Author::of(&call)?;
    let begun =
        call.tenant_tx("rollover_start", async |tx| start_in(&call, tx, &name, None, &spec, &author).await).await?;
    json(StatusCode::CREATED, &begun)
}

/// Shows a roll-over.
///
/// # Errors
/// 404 where there never was one.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/ca-servers/{ca_server}/rollover", tag = "CA servers",
    operation_id = "rollover_show", summary = "Show the open roll-over of its trust anchors, or the last one",
    responses((status = 200, description = "How far it is", body = RolloverBody)))]
pub async fn show(call: Call) -> Result<HttpResponse, Problem> {
    let name: ObjectName = call.segment("ca_server", "CA server")?;
    let shown = call
        .tenant_tx("rollover_show", async |tx| {
            let server = tx.ca_server_fetch(&name).await?;
            let last = tx.rollover_last(server.id).await?.ok_or(AppError::NotFound { kind: "roll-over" })?;
            shown_in(&call, tx, &name, last).await
        })
        .await?;
    json(StatusCode::OK, &shown)
}

/// Lists trustpoints that a roll-over waits for.
///
/// # Errors
/// 404 where there never was one; 422 for unreadable parameters.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/ca-servers/{ca_server}/rollover/missing", tag = "CA servers",
    operation_id = "rollover_missing", params(ListQuery, MissingQuery),
    summary = "List the trustpoints that do not have the next anchors, with the reasons",
    responses((status = 200, description = "A part of the list", body = Page<LaggardBody>)))]
pub async fn missing(call: Call) -> Result<HttpResponse, Problem> {
    let list = call.list(&["state"])?;
    let name: ObjectName = call.segment("ca_server", "CA server")?;
    let after: Option<TrustpointId> = list.after_as()?;
    let state = match list.filter("state") {
        None => None,
        Some(word) => Some(AnchorState::from_word(word).ok_or_else(|| {
            let words: Vec<&str> = AnchorState::ALL.into_iter().map(AnchorState::as_str).collect();
            Problem::invalid("state", "choice", format!("must be one of {}", words.join(", ")))
        })?),
    };
    let rows = call
        .tenant_tx("rollover_missing", async |tx| {
            let server = tx.ca_server_fetch(&name).await?;
            let last = tx.rollover_last(server.id).await?.ok_or(AppError::NotFound { kind: "roll-over" })?;
            Ok(tx.rollover_missing(&last, state, after, list.rows(), call.now).await?)
        })
        .await?;
    let page: Page<LaggardBody> = list.page(rows, |row| row.trustpoint_id.to_string());
    json(StatusCode::OK, &page)
}

/// Switches the issuer.
///
/// # Errors
/// 404; 409 below the required share, or when there is nothing to switch; 422.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/ca-servers/{ca_server}/rollover/switch", tag = "CA servers",
    operation_id = "rollover_switch", summary = "Switch the issuer: refused while too few services have the next anchors",
    request_body = RolloverSwitch, params(Reason), responses(
        (status = 200, description = "Certificates come from the next issuer", body = RolloverBody),
        (status = 409, description = "Too few have the next anchors: the detail tells how many and names some", body = ProblemBody,
            content_type = "application/problem+json")))]
pub async fn switch(call: Call, body: Body<RolloverSwitch>) -> Result<HttpResponse, Problem> {
    let name: ObjectName = call.segment("ca_server", "CA server")?;
    call.tenant_read("ca_server_show", async |tx| Ok(tx.ca_server_fetch(&name).await?)).await?;
    let how = body.check(|body, violations| {
        match &body.reason {
            Some(reason) => {
                violations.check("reason", "text", check_text(reason, REASON_MAX));
            }
            None if body.force => violations.add("reason", "S57", "is missing: say why the switch is forced"),
            None => {}
        }
        Some(body)
    })?;
    if changes::is_held(&call, "rollover_switch")? {
        let look = async |tx: &TenantTx| {
            let (present, open) = open_in(tx, &name, Phase::Distributing).await?;
            gate(&call, tx, &open, how.force).await?;
            Ok(Some(present.revision))
        };
        let proposal = Proposal::Switch(how.clone());
        return changes::propose(&call, "rollover_switch", "rollover", &name, Some(&proposal), look).await;
    }
    let author = Author::of(&call)?;
    let switched =
        call.tenant_tx("rollover_switch", async |tx| switch_in(&call, tx, &name, None, &how, &author).await).await?;
    json(StatusCode::OK, &switched)
}

/// Takes the former anchors away.
///
/// # Errors
/// 404; 409 while certificates in use need them, or before the switch.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/ca-servers/{ca_server}/rollover/finish", tag = "CA servers",
    operation_id = "rollover_finish", params(Reason),
    summary = "Take the former anchors away: refused while certificates in use lead to them alone", responses(
        (status = 200, description = "Only the next anchors are trusted", body = RolloverBody),
        (status = 409, description = "Certificates in use need the former ones, or it is not switched", body = ProblemBody,
            content_type = "application/problem+json")))]
pub async fn finish(call: Call) -> Result<HttpResponse, Problem> {
    let name: ObjectName = call.segment("ca_server", "CA server")?;
    if changes::is_held(&call, "rollover_finish")? {
        let look = async |tx: &TenantTx| {
            let (present, open) = open_in(tx, &name, Phase::Switched).await?;
            none_needs_former(&call, tx, &open).await?;
            Ok(Some(present.revision))
        };
        return changes::propose(&call, "rollover_finish", "rollover", &name, Some(&Proposal::Finish), look).await;
    }
    let author = Author::of(&call)?;
    let ended = call.tenant_tx("rollover_finish", async |tx| finish_in(&call, tx, &name, None, &author).await).await?;
    json(StatusCode::OK, &ended)
}

/// Gives a roll-over up before the switch. What it takes away is what it has brought: that needs no second administrator.
///
/// # Errors
/// 404; 409 when it is switched already.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/ca-servers/{ca_server}/rollover/cancel", tag = "CA servers",
    operation_id = "rollover_cancel", params(Reason),
    summary = "Give it up before the switch: the next anchors are taken away again", responses(
        (status = 200, description = "Only the former anchors are trusted", body = RolloverBody),
        (status = 409, description = "It is switched already", body = ProblemBody, content_type = "application/problem+json")))]
pub async fn cancel(call: Call) -> Result<HttpResponse, Problem> {
    let name: ObjectName = call.segment("ca_server", "CA server")?;
    let author = Author::of(&call)?;
    let ended = call
        .tenant_tx("rollover_cancel", async |tx| {
            let (present, open) = open_in(tx, &name, Phase::Distributing).await?;
            let gone = without(&open.spec.next_anchors, &open.former_anchors);
            let end = (Phase::Distributing, Phase::Cancelled);
            tx.rollover_advance(open.id, end, &call.actor(), None, call.now).await?;
            let spec =
                CaServerSpec { trust_anchors: without(&present.spec.trust_anchors, &gone), ..present.spec.clone() };
            ca_servers::replace(&call, tx, &present, &spec, &author).await?;
            note(&call, tx, "rollover_cancelled", &name, open.id, json!({ "reason": author.reason })).await?;
            last_in(&call, tx, &name, open.ca_server_id).await
        })
        .await?;
    json(StatusCode::OK, &ended)
}

/// Carries out an approved step.
///
/// # Errors
/// As the step itself; the CA server is not what its proposer saw.
pub(super) async fn apply(call: &Call, tx: &TenantTx, change: &Change) -> Result<(), AppError> {
    let proposal = change.proposal.clone().unwrap_or_default();
    let proposal = serde_json::from_value(proposal).map_err(|error| AppError::Internal { source: error.into() })?;
    let (name, revision) = (&change.object_name, change.object_revision);
    let author = Author::approved(call, change);
    match proposal {
        Proposal::Start(spec) => start_in(call, tx, name, revision, &spec, &author).await.map(drop),
        Proposal::Switch(how) => switch_in(call, tx, name, revision, &how, &author).await.map(drop),
        Proposal::Finish => finish_in(call, tx, name, revision, &author).await.map(drop),
    }
}

/// While a roll-over is open, a plain change of its CA server neither switches the issuer nor takes an anchor of it away.
///
/// # Errors
/// What the change would do, and what to do instead.
pub(super) async fn guard(tx: &TenantTx, present: &CaServer, next: &CaServerSpec) -> Result<(), AppError> {
    let Some(open) = tx.rollover_last(present.id).await?.filter(|last| last.phase.is_open()) else { return Ok(()) };
    let needed: Vec<&String> = open.former_anchors.iter().chain(&open.spec.next_anchors).collect();
    let kept = ders(&next.trust_anchors);
    let lost = needed.iter().filter_map(|pem| der(pem)).any(|anchor| !kept.contains(&anchor));
    let switches = open.phase == Phase::Distributing && issuing_side(&present.spec) != issuing_side(next);
    if !lost && !switches {
        return Ok(());
    }
    let what = if lost { "takes an anchor away" } else { "changes the issuer" };
    let detail = format!(
        "this {what} of CA server {}, whose trust anchors are being rolled over: switch, finish or cancel the roll-over",
        present.name
    );
    Err(AppError::Conflict { code: "rollover_open", detail })
}

async fn start_in(
    call: &Call,
    tx: &TenantTx,
    name: &ObjectName,
    revision: Option<u32>,
    spec: &RolloverSpec,
    author: &Author,
) -> Result<RolloverBody, AppError> {
    let present = of_revision(tx, name, revision).await?;
    none_open(tx, &present).await?;
    if let Some(wrong) = check(&present, spec, call.tenant().is_ok_and(|tenant| tenant.allow_weak_algorithms)) {
        return Err(wrong.into());
    }
    let former = normalised("former_anchors", &present.spec.trust_anchors, &mut Violations::new());
    let both = with_anchors(&present.spec, &spec.next_anchors);
    ca_servers::replace(call, tx, &present, &both, author).await?;
    let id = call.services().fresh(RolloverId::fresh)?;
    let rollover = Rollover {
        id,
        ca_server_id: present.id,
        phase: Phase::Distributing,
        spec: spec.clone(),
        former_anchors: former,
        started_by: call.actor(),
        started_at: call.now,
        switched_by: None,
        switched_at: None,
        forced_reason: None,
        ended_by: None,
        ended_at: None,
    };
    tx.rollover_insert(&rollover).await?;
    let detail = json!({
        "required_percent": spec.required_percent, "counts": spec.counts.as_str(), "issuer": spec.issuer,
        "next_anchors": fingerprints(&spec.next_anchors), "reason": author.reason,
    });
    note(call, tx, "rollover_started", name, id, detail).await?;
    shown_in(call, tx, name, rollover).await
}

async fn switch_in(
    call: &Call,
    tx: &TenantTx,
    name: &ObjectName,
    revision: Option<u32>,
    how: &RolloverSwitch,
    author: &Author,
) -> Result<RolloverBody, AppError> {
    let (present, open) = open_in(tx, name, Phase::Distributing).await?;
    of_revision(tx, name, revision).await?;
    let forced = gate(call, tx, &open, how.force).await?;
    let reason = how.reason.as_deref().filter(|_| forced);
    let step = (Phase::Distributing, Phase::Switched);
    tx.rollover_advance(open.id, step, &call.actor(), reason, call.now).await?;
    ca_servers::replace(call, tx, &present, &switched(&present.spec, &open.spec.issuer), author).await?;
    let action = if forced { "rollover_switch_forced" } else { "rollover_switched" };
    let tally = tx.rollover_tally(&open, call.now).await?;
    let detail = json!({
        "issuer": open.spec.issuer, "percent": tally.percent(open.spec.counts), "missing": tally.missing(open.spec.counts),
        "forced_reason": reason, "reason": author.reason,
    });
    note(call, tx, action, name, open.id, detail).await?;
    last_in(call, tx, name, open.ca_server_id).await
}

async fn finish_in(
    call: &Call,
    tx: &TenantTx,
    name: &ObjectName,
    revision: Option<u32>,
    author: &Author,
) -> Result<RolloverBody, AppError> {
    let (present, open) = open_in(tx, name, Phase::Switched).await?;
    of_revision(tx, name, revision).await?;
    none_needs_former(call, tx, &open).await?;
    tx.rollover_advance(open.id, (Phase::Switched, Phase::Finished), &call.actor(), None, call.now).await?;
    let gone = without(&open.former_anchors, &open.spec.next_anchors);
    let spec = CaServerSpec { trust_anchors: without(&present.spec.trust_anchors, &gone), ..present.spec.clone() };
    ca_servers::replace(call, tx, &present, &spec, author).await?;
    let detail = json!({ "retired_anchors": fingerprints(&gone), "reason": author.reason });
    note(call, tx, "rollover_finished", name, open.id, detail).await?;
    last_in(call, tx, name, open.ca_server_id).await
}

/// Whether the switch goes below the required share: true where it must be, and is, forced.
async fn gate(call: &Call, tx: &TenantTx, open: &Rollover, force: bool) -> Result<bool, AppError> {
    let tally = tx.rollover_tally(open, call.now).await?;
    let Err(few) = may_switch(&tally, open.spec.counts, open.spec.required_percent) else { return Ok(false) };
    if force {
        return Ok(true);
    }
    let named = i64::try_from(NAMED_MAX).unwrap_or(i64::MAX);
    let first = tx.rollover_missing(open, None, None, named, call.now).await?;
    let names: Vec<String> = first
        .into_iter()
        .map(LaggardBody::from)
        .map(|one| {
            let state = AnchorState::from(one.state).as_str();
            let why = one.reason.map(|reason| format!(": {reason}")).unwrap_or_default();
            format!("{}/{} ({state}{why})", one.device, one.trustpoint)
        })
        .collect();
    let missing = tally.missing(open.spec.counts);
    let more = missing.saturating_sub(names.len() as u64);
    let others = if more > 0 { format!(" and {more} more (GET …/rollover/missing)") } else { String::new() };
    let detail = format!("{few}; missing: {}{others}", names.join("; "));
    Err(AppError::Conflict { code: "anchors_missing", detail })
}

/// Refused while a certificate in use or staged does not lead to the next anchors.
async fn none_needs_former(call: &Call, tx: &TenantTx, open: &Rollover) -> Result<(), AppError> {
    let next: Vec<Certificate> =
        open.spec.next_anchors.iter().filter_map(|pem| Certificate::from_pem(pem).ok()).collect();
    let since = open.switched_at.unwrap_or(open.started_at);
    let groups = tx.rollover_certificates(open.ca_server_id, since, call.now).await?;
    let needing: Vec<&IssuedAlike> = groups
        .iter()
        .filter(|group| group.samples.iter().any(|(der, chain)| !leads(der, chain, &next, call.now)))
        .collect();
    let count: u64 = needing.iter().map(|group| group.count).sum();
    if count == 0 {
        return Ok(());
    }
    let named: Vec<&str> = needing.iter().flat_map(|group| &group.named).take(NAMED_MAX).map(String::as_str).collect();
    let detail = format!(
        "{count} certificates in use or staged do not lead to the next anchors, such as those of {}: renew or revoke them, or wait \
         for their end",
        named.join(", ")
    );
    Err(AppError::Conflict { code: "former_anchors_in_use", detail })
}

fn leads(der: &[u8], chain: &[Vec<u8>], anchors: &[Certificate], now: jiff::Timestamp) -> bool {
    let Ok(certificate) = Certificate::from_der(der) else { return false };
    let helpers: Vec<Certificate> = chain.iter().filter_map(|der| Certificate::from_der(der).ok()).collect();
    verify_end_entity(&certificate, &helpers, anchors, now).is_ok()
}

async fn none_open(tx: &TenantTx, server: &CaServer) -> Result<(), AppError> {
    match tx.rollover_last(server.id).await?.filter(|last| last.phase.is_open()) {
        None => Ok(()),
        Some(open) => Err(AppError::Conflict {
            code: "rollover_open",
            detail: format!("a roll-over of {} is {} already: finish or cancel it", server.name, open.phase.as_str()),
        }),
    }
}

/// The CA server with its open roll-over, which must be in this phase.
async fn open_in(tx: &TenantTx, name: &ObjectName, wanted: Phase) -> Result<(CaServer, Rollover), AppError> {
    let present = tx.ca_server_fetch(name).await?;
    let last = tx.rollover_last(present.id).await?.ok_or(AppError::NotFound { kind: "roll-over" })?;
    if last.phase == wanted {
        return Ok((present, last));
    }
    let next = match last.phase {
        Phase::Distributing => "switch it first",
        Phase::Switched => "finish it when nothing in use needs the former anchors",
        Phase::Finished | Phase::Cancelled => "begin another one",
    };
    let detail = format!("the roll-over of {name} is {}: {next}", last.phase.as_str());
    Err(AppError::Conflict { code: "rollover_phase", detail })
}

async fn of_revision(tx: &TenantTx, name: &ObjectName, revision: Option<u32>) -> Result<CaServer, AppError> {
    let present = tx.ca_server_fetch(name).await?;
    if revision.is_some_and(|seen| seen != present.revision) {
        return Err(AppError::PreconditionFailed { current: present.revision });
    }
    Ok(present)
}

async fn last_in(call: &Call, tx: &TenantTx, name: &ObjectName, id: CaServerId) -> Result<RolloverBody, AppError> {
    let last = tx.rollover_last(id).await?.ok_or(AppError::NotFound { kind: "roll-over" })?;
    shown_in(call, tx, name, last).await
}

async fn shown_in(call: &Call, tx: &TenantTx, name: &ObjectName, of: Rollover) -> Result<RolloverBody, AppError> {
    let tally = tx.rollover_tally(&of, call.now).await?;
    Ok(RolloverBody::new(name.as_str(), of, &tally))
}

async fn note(
    call: &Call,
    tx: &TenantTx,
    action: &'static str,
    name: &ObjectName,
    id: RolloverId,
    mut detail: Value,
) -> Result<(), AppError> {
    detail["ca_server"] = json!(name.as_str());
    Ok(call.note(tx, action, "rollover", id.as_uuid(), detail).await?)
}

/// What is wrong with the CA server as it would be after the start, and after the switch; none: nothing.
fn check(present: &CaServer, spec: &RolloverSpec, allow_weak: bool) -> Option<Violations> {
    let both = with_anchors(&present.spec, &spec.next_anchors);
    let mut violations = Violations::new();
    if ders(&spec.next_anchors).iter().all(|anchor| ders(&present.spec.trust_anchors).contains(anchor)) {
        violations.add("next_anchors", "S57", "are anchors of the CA server already: there is nothing to roll over to");
    }
    super::check::ca_server(&switched(&both, &spec.issuer), allow_weak, &mut violations);
    violations.into_result().err()
}
