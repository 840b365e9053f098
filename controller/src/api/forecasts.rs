//! Coming renewals beside the budgets of CAs.

use std::collections::BTreeMap;

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use trustfleet_model::ca_server::endpoint_of;
use trustfleet_model::field::ObjectName;
use trustfleet_model::spread::{BIN, bin};
use utoipa::IntoParams;

use super::call::Call;
use super::dto::forecast::{ForecastBody, ForecastDayBody, ForecastHourBody, SpreadingBody, SpreadingsBody};
use super::problem::{Problem, ProblemBody, json};
use crate::admission::Budget;
use crate::audit::PLATFORM;
use crate::db::{CaEndpoint, DbError, Forecast, HORIZON, Note};
use crate::error::AppError;
use crate::spreader::{Spreader, capacity, per_hour};

/// Hours that are shown one by one where nothing is said.
const HOURS: i32 = 48;
/// Most of them: all that a forecast looks at.
const HOURS_MAX: i64 = HORIZON.as_hours();
const DAY_S: i64 = 24 * 3_600;

/// How much of what comes is shown.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code)] // read by the OpenAPI document only
pub struct ForecastQuery {
    /// Hours that are shown one by one, 0 to 2,160; default 48.
    #[param(minimum = 0, maximum = 2160)]
    hours: Option<u16>,
}

/// Shows what comes at a CA server.
///
/// # Errors
/// 404; 422 for more hours than 90 days have.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/ca-servers/{ca_server}/forecast", tag = "CA servers",
    operation_id = "ca_server_forecast", summary = "Show the coming renewals at a CA server beside its budget",
    params(ForecastQuery), responses((status = 200, description = "The next hours, and 90 days", body = ForecastBody)))]
pub async fn of_ca_server(call: Call) -> Result<HttpResponse, Problem> {
    let hours = match call.query("hours") {
        None => HOURS,
        Some(text) => text
            .parse()
            .ok()
            .filter(|hours| (0..=HOURS_MAX).contains(&i64::from(*hours)))
            .ok_or_else(|| Problem::invalid("hours", "range", format!("must be a number from 0 to {HOURS_MAX}")))?,
    };
    let name: ObjectName = call.segment("ca_server", "ca_server")?;
    let (server, forecast) = call
        .tenant_tx("forecast", async |tx| {
            let server = tx.ca_server_fetch(&name).await?;
            let forecast = tx.forecast(server.id, call.now).await?;
            Ok((server, forecast))
        })
        .await?;
    let endpoint = endpoint_of(&server.spec.primary_url).unwrap_or_default();
    let budget = budget_of(&call, &endpoint).await?;
    json(StatusCode::OK, &body(endpoint, &budget, &forecast, hours, call.now))
}

/// Spreads the renewals of all CAs now, as it is done by itself.
///
/// # Errors
/// 409 while another replica does the same; the database's own.
#[utoipa::path(post, path = "/v1/ca-endpoints/respread", tag = "CA endpoints", operation_id = "ca_endpoint_respread",
    summary = "Move renewals inside their safe windows until no hour is beyond a CA's budget, and say what fits nowhere",
    responses((status = 200, description = "What was moved", body = SpreadingsBody),
        (status = 409, description = "Another replica is at it", body = ProblemBody, content_type = "application/problem+json")))]
pub async fn respread(call: Call) -> Result<HttpResponse, Problem> {
    let services = call.services();
    let spreader = Spreader::new(services.store.clone(), services.clock.clone(), &services.config.ca_budget);
    let elsewhere = || AppError::Conflict {
        code: "spreading_elsewhere",
        detail: "another replica spreads the renewals at this moment: look at the forecast in a minute".to_owned(),
    };
    let done = spreader.look().await?.ok_or_else(elsewhere)?;
    let items: Vec<SpreadingBody> = done.into_iter().map(Into::into).collect();
    let requester = call.requester();
    let note =
        Note::new(call.now, &requester, "renewals_spread", "ca_endpoint", uuid::Uuid::nil(), json!({ "items": items }));
    let noted: Result<(), DbError> =
        services.store.system_tx("renewals_spread_noted", async |tx| tx.audit_note(PLATFORM, &note).await).await;
    noted?;
    json(StatusCode::OK, &SpreadingsBody { items })
}

async fn budget_of(call: &Call, endpoint: &str) -> Result<Budget, Problem> {
    let services = call.services();
    let default = services.config.ca_budget.budget();
    let found: Result<Vec<CaEndpoint>, DbError> =
        services.store.system_tx("ca_endpoint_list", async |tx| tx.ca_endpoint_list(default).await).await;
    let own = found?.into_iter().find(|found| found.name == endpoint);
    Ok(own.map_or(default, |found| found.endpoint.budget))
}

fn body(endpoint: String, budget: &Budget, forecast: &Forecast, hours: i32, now: Timestamp) -> ForecastBody {
    let most = capacity(budget);
    let count = |of: &BTreeMap<Timestamp, u64>, hour| of.get(&hour).copied().unwrap_or(0);
    let hours =
        (0..hours).filter_map(|n| bin(now).checked_add(BIN.saturating_mul(n)).ok()).map(|from| ForecastHourBody {
            from,
            renewals: count(&forecast.renewals, from),
            emergencies: count(&forecast.emergencies, from),
        });
    let mut days = BTreeMap::new();
    for (hour, renewals) in &forecast.renewals {
        let day: &mut ForecastDayBody = of_day(&mut days, *hour);
        day.renewals += renewals;
        day.busiest_hour = day.busiest_hour.max(*renewals);
    }
    for (hour, emergencies) in &forecast.emergencies {
        of_day(&mut days, *hour).emergencies += emergencies;
    }
    ForecastBody {
        endpoint,
        budget_per_hour: per_hour(budget),
        planned_per_hour_max: most,
        renewals: forecast.renewals.values().sum(),
        hours_too_full: forecast.renewals.values().map(|renewals| u64::from(*renewals > most)).sum(),
        hours: hours.collect(),
        days: days.into_values().collect(),
    }
}

/// The day of an hour.
fn of_day(days: &mut BTreeMap<Timestamp, ForecastDayBody>, hour: Timestamp) -> &mut ForecastDayBody {
    let from = hour.checked_sub(SignedDuration::from_secs(hour.as_second().rem_euclid(DAY_S))).unwrap_or(hour);
    days.entry(from).or_insert(ForecastDayBody { from, renewals: 0, busiest_hour: 0, emergencies: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_and_days_add_up_to_the_same_and_the_busiest_hour_is_told() {
        let now: Timestamp = "2026-11-30T10:20:00Z".parse().unwrap();
        let hour = |text: &str| text.parse::<Timestamp>().unwrap();
        let renewals = BTreeMap::from([
            (hour("2026-11-30T10:00:00Z"), 5),
            (hour("2026-11-30T23:00:00Z"), 30),
            (hour("2026-12-20T03:00:00Z"), 7),
        ]);
        let emergencies = BTreeMap::from([(hour("2026-12-20T05:00:00Z"), 2)]);
        let budget = Budget { rate_per_s: 0.007, burst: 1, concurrency: 1 };
        let shown = body("ca:80".to_owned(), &budget, &Forecast { renewals, emergencies }, 48, now);
        assert_eq!((shown.budget_per_hour, shown.planned_per_hour_max), (25, 20));
        assert_eq!((shown.renewals, shown.hours_too_full, shown.hours.len()), (42, 1, 48));
        assert_eq!((shown.hours[0].renewals, shown.hours[13].renewals), (5, 30));
        let days: Vec<_> = shown.days.iter().map(|day| (day.renewals, day.busiest_hour, day.emergencies)).collect();
        assert_eq!(days, [(35, 30, 0), (7, 7, 2)]);
        assert_eq!(shown.days[1].from, hour("2026-12-20T00:00:00Z"));
    }
}
