//! Devices that will miss a renewal, or have missed one: told by the end of their certificates, before it happens.

use std::str::FromStr;

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use trustfleet_model::contact::Risk;
use utoipa::IntoParams;

use super::call::{Call, ListQuery};
use super::dto::Page;
use super::dto::at_risk::AtRiskBody;
use super::problem::{Problem, json};
use crate::db::{AtRisk, CaEndpoint, DbError, Place, Queues, SystemTx};

/// Candidates that are looked at in one transaction.
const PART: i64 = 500;
/// Most candidates that are looked at for one answer; the next one goes on behind them.
const LOOKED_AT_MAX: i64 = 10_000;

/// Filters of the list.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code)] // read by the OpenAPI document only
pub struct AtRiskQuery {
    /// Only for this reason: `expired`, `no_agent`, `quarantined`, `absent`, `seldom` or `queue`.
    risk: Option<String>,
}

/// A place in the list, as its cursor has it.
struct Cursor(Place);

impl FromStr for Cursor {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (end, id) = text.split_once(' ').ok_or(())?;
        Ok(Self((end.parse().map_err(drop)?, id.parse().map_err(drop)?)))
    }
}

/// Lists certificates in use that may end before they are renewed, the one that ends first leading.
///
/// # Errors
/// 422 for unreadable parameters; the database's own.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/devices/at-risk", tag = "Devices", operation_id = "device_at_risk",
    summary = "List devices that will miss a renewal, or have, by the end of their certificates", params(ListQuery, AtRiskQuery),
    responses((status = 200, description = "A part of the list; it may hold fewer than `limit` and go on all the same",
        body = Page<AtRiskBody>)))]
pub async fn list(call: Call) -> Result<HttpResponse, Problem> {
    let list = call.list(&["risk"])?;
    let wanted = match list.filter("risk") {
        None => None,
        Some(word) => Some(Risk::ALL.into_iter().find(|risk| risk.as_str() == word).ok_or_else(|| {
            let words: Vec<&str> = Risk::ALL.into_iter().map(Risk::as_str).collect();
            Problem::invalid("risk", "choice", format!("must be one of {}", words.join(", ")))
        })?),
    };
    let mut after = list.after_as::<Cursor>()?.map(|Cursor(place)| place);
    let queues = queues(&call).await?;
    let most = usize::try_from(list.rows() - 1).unwrap_or(usize::MAX);
    let mut items: Vec<AtRisk> = Vec::new();
    let mut looked_at = 0;
    let next = loop {
        let part = call
            .tenant_tx("device_at_risk", async |tx| Ok(tx.at_risk_part(after, PART, &queues, call.now).await?))
            .await?;
        let count = i64::try_from(part.len()).unwrap_or(i64::MAX);
        let mut full = false;
        for (place, found) in part {
            if items.len() == most {
                full = true;
                break;
            }
            after = Some(place);
            items.extend(found.filter(|found| wanted.is_none_or(|risk| risk == found.prediction.risk)));
        }
        looked_at += count;
        if full || looked_at >= LOOKED_AT_MAX {
            break after;
        }
        if count < PART {
            break None;
        }
    };
    let next = next.map(|(end, id)| list.cursor(&format!("{end} {id}")));
    json(StatusCode::OK, &Page::<AtRiskBody> { items: items.into_iter().map(Into::into).collect(), next })
}

async fn queues(call: &Call) -> Result<Queues, Problem> {
    let services = call.services();
    let default = services.config.ca_budget.budget();
    let found: Result<Vec<CaEndpoint>, DbError> =
        services.store.system_tx("ca_endpoint_list", async |tx: &SystemTx| tx.ca_endpoint_list(default).await).await;
    Ok(Queues::of(&found?))
}
