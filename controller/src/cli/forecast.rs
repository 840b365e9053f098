//! What comes at a CA server.

use serde_json::json;
use ureq::http::Method;

use super::{
    error::CliError,
    output::{self, Column, text},
    session::Session,
};

const DAYS: &[Column] = &[
    Column::new("DAY", |item, _| text(item, "/from").chars().take(10).collect()),
    Column::new("RENEWALS", |item, _| text(item, "/renewals")),
    Column::new("BUSIEST HOUR", |item, _| text(item, "/busiest_hour")),
    Column::new("EMERGENCY MARKS", |item, _| text(item, "/emergencies")),
];
const HOURS: &[Column] = &[
    Column::new("HOUR", |item, _| text(item, "/from")),
    Column::new("RENEWALS", |item, _| text(item, "/renewals")),
    Column::new("EMERGENCY MARKS", |item, _| text(item, "/emergencies")),
];

/// Shows the days that have something, or the next hours one by one.
pub(super) fn show(session: &Session, ca_server: &str, hours: Option<u16>) -> Result<(), CliError> {
    let query: Vec<_> = hours.iter().map(|hours| ("hours", hours.to_string())).collect();
    let forecast = session.call_with(Method::GET, &["ca-servers", ca_server, "forecast"], None, &query, &[])?;
    let summary = format!(
        "{}: {} renewals within 90 days; the budget is {} an hour, at most {} are planned, {} hours have more",
        text(&forecast, "/endpoint"),
        text(&forecast, "/renewals"),
        text(&forecast, "/budget_per_hour"),
        text(&forecast, "/planned_per_hour_max"),
        text(&forecast, "/hours_too_full"),
    );
    let (part, columns) = if hours.is_some() { ("hours", HOURS) } else { ("days", DAYS) };
    // For programs everything.
    let mut list = json!({ "items": forecast[part], "next": null });
    if session.is_json() {
        list = forecast;
    } else {
        output::print(&summary)?;
    }
    session.print_list(&list, columns, "trustfleet ca-endpoint respread, by a platform administrator")
}
