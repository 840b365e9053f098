//! Services on devices and what agents say of them (S34, S40).

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use trustfleet_model::service::{InService, ServiceResult};
use utoipa::ToSchema;

use super::words;

words! {
    /// Whether a service is seen to use a certificate.
    ServiceResultBody mirrors ServiceResult {
        /// Its probe has seen the certificate's serial number.
        Verified = "verified",
        /// It has been reloaded, and has no probe that could tell.
        Unverifiable = "unverifiable",
        /// It could not be reloaded, or went on with another certificate.
        Failed = "failed",
    }
}

/// The services of a trustpoint.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Services)]
pub struct ServicesBody {
    /// Names of services in the agent's own configuration, at most 8; each service has one trustpoint on a device (S40).
    #[schema(max_items = 8)]
    pub services: Vec<String>,
}

/// One service and what was seen of it.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = ServiceOutcome)]
pub struct ServiceOutcomeBody {
    /// Its name.
    pub service: String,
    /// What was seen.
    pub result: ServiceResultBody,
}

/// One step of an activation.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = ServiceStep)]
pub struct ServiceStepBody {
    /// Name of the service.
    pub service: String,
    /// `export`, `reload`, `probe`, and after a failure `restore` and `reload_former`.
    #[schema(example = "reload")]
    pub step: String,
    /// Whether it went well.
    pub ok: bool,
    /// How long it took, milliseconds.
    pub duration_ms: u64,
    /// What a program printed or what was seen: untrusted text.
    pub detail: String,
}

/// What an agent said of the services when it last put a certificate into use, or tried to.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = InService)]
pub struct InServiceBody {
    /// Serial number of the certificate.
    pub serial: String,
    /// When the controller learned of it.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Each service with what was seen; empty: it was not come so far.
    pub services: Vec<ServiceOutcomeBody>,
    /// What was done, in its order.
    pub steps: Vec<ServiceStepBody>,
    /// What the operator should know, such as an exported file that somebody had renamed (S46).
    pub warnings: Vec<String>,
}

impl From<InService> for InServiceBody {
    fn from(said: InService) -> Self {
        let services = said.services.into_iter();
        let steps = said.steps.into_iter();
        Self {
            serial: said.serial,
            at: said.at,
            services: services
                .map(|outcome| ServiceOutcomeBody { service: outcome.service.into(), result: outcome.result.into() })
                .collect(),
            steps: steps
                .map(|step| ServiceStepBody {
                    service: step.service.into(),
                    step: step.step,
                    ok: step.ok,
                    duration_ms: step.duration_ms,
                    detail: step.detail,
                })
                .collect(),
            warnings: said.warnings,
        }
    }
}
