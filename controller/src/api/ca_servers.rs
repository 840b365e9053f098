//! CA servers: their names, endpoints and anchors (S5, S6, S16).

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use serde_json::json;
use trustfleet_model::ca_server::CaServerSpec;
use trustfleet_model::device::Device;
use trustfleet_model::field::{ObjectName, Violations};
use trustfleet_model::ids::CaServerId;
use trustfleet_model::trustpoint::Trustpoint;
use trustfleet_pki::Certificate;

use super::body::Body;
use super::call::{Call, IfMatch, ListQuery, Reason, bound, in_use, name_taken, taken, with_revision};
use super::changes;
use super::configured::{Author, DRY_RUN_PART, configured_handlers};
use super::dto::Page;
use super::dto::ca_server::{CaServerBody, CaServerCreate, CaServerUpdate};
use super::dto::offered_root::{Offered, OfferedRootBody};
use super::dto::revision::{DryRunBody, RevisionBody};
use super::problem::{Problem, ProblemBody, json};
use crate::audit::{differences, shown};
use crate::db::{Change, Configured, DbError, Reference, TenantTx};
use crate::error::AppError;
use crate::preview::Preview;

configured_handlers!(
    kind: "CA server", tag: "CA servers", path: "/v1/tenants/{tenant}/ca-servers",
    item: "/v1/tenants/{tenant}/ca-servers/{ca_server}", segment: "ca_server",
    revisions: "/v1/tenants/{tenant}/ca-servers/{ca_server}/revisions",
    dry_run: "/v1/tenants/{tenant}/ca-servers/{ca_server}/dry-run", reference: Reference::CaServer,
    operations: ["ca_server_list", "ca_server_create", "ca_server_show", "ca_server_update", "ca_server_delete",
        "ca_server_revisions", "ca_server_dry_run"],
    actions: ["ca_server_created", "ca_server_updated", "ca_server_deleted"],
    object: CaServerBody, spec: CaServerSpec, bodies: [CaServerCreate, CaServerUpdate, CaServerBody], id: CaServerId,
    sql: [ca_server_insert, ca_server_fetch, ca_server_list, ca_server_update, ca_server_used_by, ca_server_delete],
    check: super::check::ca_server,
    guard: super::rollovers::guard,
    preview: |_: &mut Preview, _: &Trustpoint, _: &Device, _: (&CaServerSpec, &CaServerSpec), _| ()
);

/// Replaces what was read, as a change by hand would.
///
/// # Errors
/// 412 when it is another one by now; otherwise the database's own.
pub(super) async fn replace(
    call: &Call,
    tx: &TenantTx,
    present: &Configured<CaServerId, CaServerSpec>,
    spec: &CaServerSpec,
    author: &Author,
) -> Result<Configured<CaServerId, CaServerSpec>, AppError> {
    replace_in(call, tx, &present.name, Some(present.revision), spec, author).await
}

/// Lists roots that follow a CA server's trust anchors.
///
/// # Errors
/// 404; 422 for unreadable parameters.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/ca-servers/{ca_server}/offered-roots", tag = "CA servers",
    operation_id = "ca_server_offered_roots", params(ListQuery),
    summary = "List roots that follow its trust anchors, as the CA told agents; nobody trusts them for that",
    responses((status = 200, description = "A part of the list", body = Page<OfferedRootBody>)))]
pub async fn offered_roots(call: Call) -> Result<HttpResponse, Problem> {
    let list = call.list(&[])?;
    let name: ObjectName = call.segment("ca_server", "CA server")?;
    let rows = call
        .tenant_tx("ca_server_offered_roots", async |tx| {
            let server = tx.ca_server_fetch(&name).await?;
            let anchors = anchors(&server.spec);
            let roots = tx.offered_root_list(server.id, list.after(), list.rows()).await?;
            Ok(roots.into_iter().map(|root| Offered(root.clone(), anchors.contains(&root.sha256))).collect::<Vec<_>>())
        })
        .await?;
    let page: Page<OfferedRootBody> = list.page(rows, |Offered(root, _): &Offered| root.sha256.clone());
    json(StatusCode::OK, &page)
}

/// Makes an offered root a trust anchor, beside those that there are.
///
/// # Errors
/// 404; 422 when there is no place for it.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/ca-servers/{ca_server}/offered-roots/{root}/take", tag = "CA servers",
    operation_id = "ca_server_take_root", params(Reason),
    summary = "Make an offered root a trust anchor, beside those that there are", responses(
        (status = 200, description = "It is one", body = CaServerBody)))]
pub async fn take_root(call: Call) -> Result<HttpResponse, Problem> {
    let name: ObjectName = call.segment("ca_server", "CA server")?;
    let sha256: String = call.segment("root", "offered root")?;
    let allow_weak = call.tenant()?.allow_weak_algorithms;
    let (present, root) = call
        .tenant_tx("ca_server_take_root", async |tx| {
            let present = tx.ca_server_fetch(&name).await?;
            let root = tx.offered_root_fetch(present.id, &sha256).await?;
            Ok((present, root))
        })
        .await?;
    let revision = present.revision;
    if anchors(&present.spec).contains(&root.sha256) {
        return Ok(with_revision(json(StatusCode::OK, &CaServerBody::from(present))?, revision));
    }
    let mut spec = present.spec;
    spec.trust_anchors.push(root.certificate);
    let mut violations = Violations::new();
    super::check::ca_server(&spec, allow_weak, &mut violations);
    violations.into_result().map_err(AppError::Invalid)?;
    if changes::is_held(&call, "ca_server_update")? {
        let look = async |tx: &TenantTx| Ok(Some(fetch_in(tx, &name, Some(revision)).await?.revision));
        return changes::propose(&call, "ca_server_update", "ca_server", &name, Some(&spec), look).await;
    }
    let author = Author::of(&call)?;
    let changed = call
        .tenant_tx("ca_server_update", async |tx| replace_in(&call, tx, &name, Some(revision), &spec, &author).await)
        .await?;
    let revision = changed.revision;
    Ok(with_revision(json(StatusCode::OK, &CaServerBody::from(changed))?, revision))
}

/// Fingerprints of a CA server's trust anchors.
fn anchors(spec: &CaServerSpec) -> Vec<String> {
    let read = spec.trust_anchors.iter().filter_map(|pem| Certificate::from_pem(pem).ok());
    read.map(|anchor| hex::encode(anchor.sha256_fingerprint())).collect()
}
