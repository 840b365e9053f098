//! One admitted request: who asks, for which tenant, and its path, query and headers as domain values.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::future::{Ready, ready};
use std::str::FromStr;

use actix_web::http::StatusCode;
use actix_web::http::header::{ETAG, IF_MATCH, LOCATION};
use actix_web::{FromRequest, HttpMessage as _, HttpRequest, HttpResponse, dev, web};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use trustfleet_model::binding::BindingSpec;
use trustfleet_model::device::Labels;
use trustfleet_model::field::{ObjectName, Violations, check_text};
use utoipa::IntoParams;
use uuid::Uuid;

use super::auth::{Admitted, Api, Caller, TenantRef};
use super::dto::Page;
use super::problem::{Problem, json};
use super::requester::{requester, traceparent_of};
use crate::app::Services;
use crate::audit::{Requester, differences};
use crate::db::{Counted, DbError, Note, TenantTx, UsedBy};
use crate::entropy;
use crate::error::AppError;
use crate::quota::Limit;

/// Objects of one answer, when the client names no limit.
const LIMIT_DEFAULT: u16 = 100;
/// Most objects of one answer.
const LIMIT_MAX: u16 = 1000;
/// Longest idempotency key, characters.
const IDEMPOTENCY_KEY_MAX: usize = 128;
/// Longest reason, characters.
pub(super) const REASON_MAX: usize = 200;

/// An admitted request.
#[derive(Debug)]
pub struct Call {
    /// The API's state.
    pub api: web::Data<Api>,
    /// When the request came.
    pub now: Timestamp,
    admitted: Admitted,
    request: HttpRequest,
    traceparent: OnceCell<String>,
}

impl FromRequest for Call {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut dev::Payload) -> Self::Future {
        let admitted = request.extensions().get::<Admitted>().cloned();
        let call = match (request.app_data::<web::Data<Api>>(), admitted) {
            (Some(api), Some(admitted)) => {
                let (api, now) = (api.clone(), api.services.clock.now());
                Ok(Self { api, now, admitted, request: request.clone(), traceparent: OnceCell::new() })
            }
            _ => Err(AppError::internal("a handler was reached without the guard of its route").into()),
        };
        ready(call)
    }
}

impl Call {
    /// The rest of the controller.
    pub fn services(&self) -> &Services {
        &self.api.services
    }

    /// The tenant in the path.
    ///
    /// # Errors
    /// An internal error on a route without one.
    pub fn tenant(&self) -> Result<&TenantRef, Problem> {
        let missing = || AppError::internal("the route has no tenant").into();
        self.admitted.tenant.as_ref().ok_or_else(missing)
    }

    /// Who asks.
    pub const fn caller(&self) -> &Caller {
        &self.admitted.caller
    }

    /// Who asks, in the words of the audit log.
    pub fn actor(&self) -> String {
        self.admitted.caller.actor()
    }

    /// Who asks, from where, and by which request: for the audit log and for commands.
    pub fn requester(&self) -> Requester {
        let traceparent = self.traceparent().ok();
        requester(self.actor(), self.admitted.role.as_str(), &self.request, traceparent.as_deref())
    }

    /// A part of the path as a name or id; what cannot be one does not exist (404).
    ///
    /// # Errors
    /// 404.
    pub fn segment<T: FromStr>(&self, segment: &str, kind: &'static str) -> Result<T, Problem> {
        let text = self.request.match_info().get(segment).unwrap_or_default();
        text.parse().map_err(|_| Problem::not_found(kind))
    }

    /// A header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.request.headers().get(name).and_then(|value| value.to_str().ok())
    }

    /// The revision in `If-Match`, where there is one; `*` is any.
    ///
    /// # Errors
    /// 422 when it is no revision.
    pub fn if_match(&self) -> Result<Option<u32>, Problem> {
        let Some(value) = self.request.headers().get(IF_MATCH) else { return Ok(None) };
        let text = value.to_str().unwrap_or_default().trim();
        if text == "*" {
            return Ok(None);
        }
        let revision =
            text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).and_then(|text| text.parse().ok());
        let message = "must be the object's revision in double quotes, such as \"3\"";
        revision.map(Some).ok_or_else(|| Problem::invalid("If-Match", "revision", message))
    }

    /// The client's idempotency key, where there is one.
    ///
    /// # Errors
    /// 422 when it is not 1 to 128 visible ASCII characters.
    pub fn idempotency_key(&self) -> Result<Option<String>, Problem> {
        let Some(value) = self.request.headers().get("Idempotency-Key") else { return Ok(None) };
        let text = value.to_str().unwrap_or_default();
        if (1..=IDEMPOTENCY_KEY_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Ok(Some(text.to_owned()));
        }
        let message = format!("must be 1 to {IDEMPOTENCY_KEY_MAX} visible ASCII characters");
        Err(Problem::invalid("Idempotency-Key", "idempotency_key", message))
    }

    /// A parameter of the query, where it is given.
    pub fn query(&self, name: &str) -> Option<String> {
        let mut pairs = url::form_urlencoded::parse(self.request.query_string().as_bytes());
        pairs.find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    }

    /// Why something is changed, in the caller's own words (`?reason=`).
    ///
    /// # Errors
    /// 422 for a text that is too long or has control characters.
    pub fn reason(&self) -> Result<Option<String>, Problem> {
        let Some(reason) = self.query("reason") else { return Ok(None) };
        check_text(&reason, REASON_MAX).map_err(|error| Problem::invalid("reason", "text", error.to_string()))?;
        Ok(Some(reason))
    }

    /// The trace context (W3C) of this request's own span, or without traces the client's, or a new one.
    ///
    /// # Errors
    /// An internal error when there is no randomness.
    pub fn traceparent(&self) -> Result<String, Problem> {
        if let Some(known) = self.traceparent.get() {
            return Ok(known.clone());
        }
        let traceparent = match traceparent_of(self.request.headers()) {
            Some(traceparent) => traceparent,
            None => {
                let random = entropy::random::<24>()?;
                format!("00-{}-{}-01", hex::encode(&random[..16]), hex::encode(&random[16..]))
            }
        };
        // The job and the audit log's rows of one request name the same trace.
        Ok(self.traceparent.get_or_init(|| traceparent).clone())
    }

    /// Limit, cursor and filters of a list; every unknown or unreadable parameter is named.
    ///
    /// # Errors
    /// 422.
    pub fn list(&self, filters: &[&str]) -> Result<List, Problem> {
        List::parse(self.request.query_string(), filters).map_err(Into::into)
    }

    /// Runs `work` in a transaction of the path's tenant.
    ///
    /// # Errors
    /// What `work` returned, or the database's own.
    pub async fn tenant_tx<T, F>(&self, name: &'static str, work: F) -> Result<T, Problem>
    where
        F: AsyncFn(&TenantTx) -> Result<T, AppError>,
    {
        self.services().store.tenant_tx(self.tenant()?.id, name, work).await.map_err(Into::into)
    }

    /// As [`Call::tenant_tx`], for what only reads and is one statement where all is as it should be.
    ///
    /// # Errors
    /// As [`Call::tenant_tx`].
    pub async fn tenant_read<T, F>(&self, name: &'static str, work: F) -> Result<T, Problem>
    where
        F: AsyncFn(&TenantTx) -> Result<T, AppError>,
    {
        self.services().store.tenant_read(self.tenant()?.id, name, work).await.map_err(Into::into)
    }

    /// What the tenant's quota limits among these.
    ///
    /// # Errors
    /// An internal error on a route without a tenant.
    pub fn limits(&self, wanted: &[Counted]) -> Result<Vec<Limit>, Problem> {
        Ok(self.tenant()?.quota.limits(wanted))
    }

    /// Whether the tenant may have one more of each; exactly so in a [`crate::db::Store::counted_tx`] alone. Elsewhere it
    /// spares work that would be refused in the end.
    ///
    /// # Errors
    /// 409 when it has to delete something first, 429 when it has to wait; the database's own.
    pub async fn check_quota(&self, tx: &TenantTx, limits: &[Limit]) -> Result<(), AppError> {
        for limit in limits {
            if tx.quota_used(limit.counted, limit.most, self.now).await? >= limit.most {
                return Err(limit.exceeded());
            }
        }
        Ok(())
    }

    /// Appends a line to the tenant's audit log.
    ///
    /// # Errors
    /// The database's own.
    pub async fn note(
        &self,
        tx: &TenantTx,
        action: &'static str,
        object_kind: &'static str,
        object_id: Uuid,
        detail: Value,
    ) -> Result<(), DbError> {
        tx.audit_note(&Note::new(self.now, &self.requester(), action, object_kind, object_id, detail)).await
    }

    /// Appends a line about an object that was made (no `before`), changed, or is gone (no `after`); of one that was
    /// changed only the difference is kept.
    ///
    /// # Errors
    /// The database's own.
    pub async fn note_change(
        &self,
        tx: &TenantTx,
        action: &'static str,
        object: (&'static str, Uuid),
        before: Option<Value>,
        after: Option<Value>,
        detail: Value,
    ) -> Result<(), DbError> {
        let (before, after) = match (before, after) {
            (Some(before), Some(after)) => {
                let (before, after) = differences(&before, &after);
                (Some(before), Some(after))
            }
            one_of_them => one_of_them,
        };
        let requester = self.requester();
        let note = Note::new(self.now, &requester, action, object.0, object.1, detail).change(before, after);
        tx.audit_note(&note).await
    }

    /// 201 with the object and where it is found from now on.
    ///
    /// # Errors
    /// A body that cannot be written.
    pub fn created<T: Serialize>(&self, key: &str, body: &T) -> Result<HttpResponse, Problem> {
        let mut response = json(StatusCode::CREATED, body)?;
        let location = format!("{}/{key}", self.request.path().trim_end_matches('/'));
        if let Ok(value) = location.parse() {
            response.headers_mut().insert(LOCATION, value);
        }
        Ok(response)
    }
}

/// A fresh id's random part.
///
/// # Errors
/// An internal error when there is no randomness.
pub fn id_bytes() -> Result<[u8; 10], Problem> {
    entropy::random().map_err(Into::into)
}

/// A taken name as the client should read it; everything else as it is.
pub fn name_taken(error: DbError, kind: &'static str) -> AppError {
    if error.constraint().is_some_and(|constraint| constraint.ends_with("name_key")) {
        return taken(kind);
    }
    error.into()
}

/// The refusal to make what is there already.
pub fn taken(kind: &'static str) -> AppError {
    AppError::Conflict { code: "name_taken", detail: format!("there is a {kind} of this name already") }
}

/// The refusal to delete what a trustpoint uses.
pub fn in_use(kind: &'static str, user: &UsedBy) -> AppError {
    let UsedBy { device, trustpoint } = user;
    let detail = format!("trustpoint {trustpoint} of device {device} uses this {kind}: change or delete that first");
    AppError::Conflict { code: "in_use", detail }
}

/// The refusal to delete what a binding uses; other errors are passed on.
pub fn bound(error: DbError, kind: &'static str) -> AppError {
    match error {
        DbError::Conflict { foreign_key: true, .. } => AppError::Conflict {
            code: "in_use",
            detail: format!("a binding uses this {kind}: remove the binding first"),
        },
        other => other.into(),
    }
}

/// Notes a reference to something that is not there; other errors are passed on.
///
/// # Errors
/// Every other error.
pub fn resolved<T>(
    found: Result<T, DbError>,
    field: &str,
    kind: &str,
    name: &ObjectName,
    violations: &mut Violations,
) -> Result<Option<T>, DbError> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(DbError::NotFound { .. }) => {
            violations.add(field, "unknown_reference", format!("there is no {kind} named {name} in this tenant"));
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Query parameters of every list.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code)] // read by the OpenAPI document only
pub struct ListQuery {
    /// Most objects in the answer, 1 to 1000; default 100.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u16>,
    /// The `next` of the answer before.
    after: Option<String>,
}

/// Why something is changed.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code)] // read by the OpenAPI document only
pub struct Reason {
    /// Why, in your own words; kept with the revision and in the audit log. Of a change that waits for approval it is in
    /// the audit log alone.
    #[param(min_length = 1, max_length = 200)]
    reason: Option<String>,
}

/// The header by which a change is made only to the revision that was read.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Header)]
#[allow(dead_code)] // read by the OpenAPI document only
pub struct IfMatch {
    /// The revision that is to be changed, in double quotes; without it, whatever is there.
    #[param(rename = "If-Match")]
    if_match: Option<String>,
}

/// An answer with the object's revision as its entity tag.
pub fn with_revision(mut response: HttpResponse, revision: u32) -> HttpResponse {
    if let Ok(tag) = format!("\"{revision}\"").parse() {
        response.headers_mut().insert(ETAG, tag);
    }
    response
}

/// Limit, cursor and filters of a list.
#[derive(Debug)]
pub struct List {
    limit: u16,
    after: Option<String>,
    filters: BTreeMap<String, String>,
}

impl List {
    fn parse(query: &str, known: &[&str]) -> Result<Self, Violations> {
        let mut violations = Violations::new();
        let mut list = Self { limit: LIMIT_DEFAULT, after: None, filters: BTreeMap::new() };
        for (key, value) in url::form_urlencoded::parse(query.as_bytes()) {
            if value.contains(char::is_control) {
                violations.add(key, "control", "contains a control character");
                continue;
            }
            match key.as_ref() {
                "limit" => match value.parse() {
                    Ok(limit @ 1..=LIMIT_MAX) => list.limit = limit,
                    _ => violations.add("limit", "range", format!("must be a whole number from 1 to {LIMIT_MAX}")),
                },
                "after" => match URL_SAFE_NO_PAD.decode(value.as_ref()).map(String::from_utf8) {
                    Ok(Ok(after)) if !after.contains(char::is_control) => list.after = Some(after),
                    _ => violations.add("after", "cursor", "must be the `next` of an earlier answer"),
                },
                key if known.contains(&key) => {
                    list.filters.insert(key.to_owned(), value.into_owned());
                }
                key => {
                    let names: Vec<&str> = known.iter().copied().chain(["limit", "after"]).collect();
                    let message = format!("is not a parameter of this list; it takes {}", names.join(", "));
                    violations.add(key, "unknown_parameter", message);
                }
            }
        }
        violations.into_result()?;
        Ok(list)
    }

    /// How many rows to ask for: one more than the answer holds, to know whether there are more.
    pub fn rows(&self) -> i64 {
        i64::from(self.limit) + 1
    }

    /// The cursor's text.
    pub fn after(&self) -> Option<&str> {
        self.after.as_deref()
    }

    /// The cursor as something that must be readable.
    ///
    /// # Errors
    /// 422.
    pub fn after_as<T: FromStr>(&self) -> Result<Option<T>, Problem> {
        let message = "must be the `next` of an earlier answer";
        let parse = |text: &String| text.parse().map_err(|_| Problem::invalid("after", "cursor", message));
        self.after.as_ref().map(parse).transpose()
    }

    /// The labels in `selector`, as `KEY=VALUE` with commas between them; none where it is not given.
    ///
    /// # Errors
    /// 422.
    pub fn selector(&self) -> Result<Labels, Problem> {
        let Some(text) = self.filter("selector") else { return Ok(Labels::default()) };
        let mut violations = Violations::new();
        let mut pairs = BTreeMap::new();
        for part in text.split(',') {
            match part.split_once('=') {
                Some((key, value)) if pairs.insert(key.to_owned(), value.to_owned()).is_none() => {}
                Some((key, _)) => violations.add("selector", "selector", format!("names the label {key} twice")),
                None => {
                    violations.add("selector", "selector", "must be KEY=VALUE, several of them with commas between")
                }
            }
        }
        let labels = BindingSpec::selector(&pairs, &mut violations);
        violations.into_result()?;
        Ok(labels)
    }

    /// A moment among the filters.
    ///
    /// # Errors
    /// 422.
    pub fn moment(&self, name: &'static str) -> Result<Option<Timestamp>, Problem> {
        let parse = |text: &str| {
            text.parse().map_err(|_| Problem::invalid(name, "format", "must be a moment such as 2026-11-21T12:00:00Z"))
        };
        self.filter(name).map(parse).transpose()
    }

    /// A filter's text, owned.
    pub fn owned(&self, name: &str) -> Option<String> {
        self.filter(name).map(str::to_owned)
    }

    /// A filter's text.
    pub fn filter(&self, name: &str) -> Option<&str> {
        self.filters.get(name).map(String::as_str)
    }

    /// A place in the list as the `next` of an answer.
    #[allow(clippy::unused_self, reason = "the counterpart of `after`")]
    pub fn cursor(&self, place: &str) -> String {
        URL_SAFE_NO_PAD.encode(place)
    }

    /// The answer: at most `limit` of `rows`, and the cursor behind them when there are more.
    pub fn page<R, T: From<R>>(&self, mut rows: Vec<R>, cursor: impl Fn(&R) -> String) -> Page<T> {
        let limit = usize::from(self.limit);
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = rows.last().filter(|_| more).map(|row| URL_SAFE_NO_PAD.encode(cursor(row)));
        Page { items: rows.into_iter().map(T::from).collect(), next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bad_query_parameter_is_named_at_once() {
        let violations = List::parse("limit=0&after=%C3%A4&colour=red&device=ap", &["device"]).unwrap_err();
        let fields: Vec<_> = violations.as_slice().iter().map(|v| v.field.as_str()).collect();
        assert_eq!(fields, ["limit", "after", "colour"]);
    }

    #[test]
    fn no_control_character_gets_as_far_as_the_database() {
        assert!(List::parse("device=%00", &["device"]).is_err());
        assert!(List::parse(&format!("after={}", URL_SAFE_NO_PAD.encode("a\0")), &[]).is_err());
    }

    #[test]
    fn a_cursor_leads_to_the_next_page_and_the_last_page_has_none() {
        let list = List::parse("limit=2", &[]).unwrap();
        let page: Page<String> = list.page(vec!["a".to_owned(), "b".to_owned(), "c".to_owned()], Clone::clone);
        assert_eq!(page.items, ["a", "b"]);
        let list = List::parse(&format!("limit=2&after={}", page.next.unwrap()), &[]).unwrap();
        assert_eq!(list.after(), Some("b"));
        let page: Page<String> = list.page(vec!["c".to_owned()], Clone::clone);
        assert_eq!((page.items.len(), page.next), (1, None));
    }
}
