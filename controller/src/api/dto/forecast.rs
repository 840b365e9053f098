//! What comes at a CA.

use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use crate::db::Unfit;
use crate::spreader::Spreading;

/// An hour.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = ForecastHour)]
pub struct ForecastHourBody {
    /// Its begin.
    #[schema(value_type = String, format = DateTime)]
    pub from: Timestamp,
    /// Requests without being asked that are planned.
    pub renewals: u64,
    /// Certificates in use whose emergency mark falls there: their agents renew by themselves then, if they are cut off.
    pub emergencies: u64,
}

/// A day.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = ForecastDay)]
pub struct ForecastDayBody {
    /// Its begin, in UTC.
    #[schema(value_type = String, format = DateTime)]
    pub from: Timestamp,
    /// Requests without being asked that are planned.
    pub renewals: u64,
    /// The most of them in one of its hours.
    pub busiest_hour: u64,
    /// Certificates in use whose emergency mark falls there.
    pub emergencies: u64,
}

/// What comes at a CA server of a tenant within 90 days.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Forecast)]
pub struct ForecastBody {
    /// Where it is asked, `host:port`; other CA servers, also of other tenants, may share it.
    pub endpoint: String,
    /// Exchanges that the budget allows there in an hour.
    pub budget_per_hour: u64,
    /// Renewals that are planned for an hour there at most: four fifths of the budget.
    pub planned_per_hour_max: u64,
    /// Requests of this tenant in all.
    pub renewals: u64,
    /// Hours in which this tenant alone has more.
    pub hours_too_full: u64,
    /// The next hours: 48, or as many as were asked for.
    pub hours: Vec<ForecastHourBody>,
    /// The days that have something.
    pub days: Vec<ForecastDayBody>,
}

/// What was moved at an endpoint.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Spreading)]
pub struct SpreadingBody {
    /// `host:port`.
    pub endpoint: String,
    /// Renewals that were moved inside the safe windows of their certificates.
    pub moved: u64,
    /// Renewals in hours that stay too full: they fit nowhere, and wait for the budget.
    pub unfit: u64,
    /// The first of them by time, at most twenty.
    pub unfit_examples: Vec<UnfitBody>,
}

/// A renewal that fits nowhere.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = UnfitRenewal)]
pub struct UnfitBody {
    /// Its tenant.
    pub tenant: String,
    /// Its device.
    pub device: String,
    /// The trustpoint.
    pub trustpoint: String,
    /// When it is planned, and stays so.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
}

impl From<(String, Spreading)> for SpreadingBody {
    fn from((endpoint, done): (String, Spreading)) -> Self {
        let example = |Unfit { tenant, device, trustpoint, at }| UnfitBody { tenant, device, trustpoint, at };
        let unfit_examples = done.unfit_examples.into_iter().map(example).collect();
        Self { endpoint, moved: done.moved, unfit: done.unfit, unfit_examples }
    }
}

/// What was moved, by endpoint; endpoints where nothing was to be done are left out.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Spreadings)]
pub struct SpreadingsBody {
    /// The endpoints.
    pub items: Vec<SpreadingBody>,
}
