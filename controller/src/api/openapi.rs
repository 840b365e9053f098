//! The OpenAPI 3.1 document, made from the handlers' own descriptions, and a page to browse it.
//!
//! What is the same for every operation (security, errors, parts of the path) is added here by rule from the route
//! table, so that no handler can forget it. The page is built in; nothing is fetched from elsewhere.

use std::sync::OnceLock;

use actix_web::HttpResponse;
use actix_web::http::header::ContentType;
use serde_json::{Map, Value, json};
use utoipa::OpenApi;
use utoipa_swagger_ui::{Config, SwaggerUi};

use super::access::{Access, Role};
use super::problem::{MEDIA_TYPE, Problem, ProblemBody};
use super::scope::Scope;
use super::{ROUTES, Route};
use super::{
    agent_door, agents, at_risk, audit, bindings, blocked_subjects, ca_endpoints, ca_servers, campaigns, certificates,
    changes, dead_letters, devices, dry_runs, entities, forecasts, freezes, health, history, jobs, joining, mac,
    metrics, platform_tokens, policies, recoveries, revocations, rollovers, statistics, tenants, tokens, transfer,
    trustpoints,
};
use crate::error::AppError;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Trustfleet",
        description = "Keeps the X.509 certificates of a fleet of devices enrolled, renewed and in service.\n\n\
            Give a bearer token in the Authorization header. Every error is a problem document (RFC 9457); all invalid \
            fields are named at once. Objects of other tenants do not exist.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    paths(
        tenants::list,
        tenants::create,
        tenants::show,
        tenants::update,
        tenants::remove,
        tenants::suspend,
        tenants::resume,
        tenants::restore,
        tenants::show_quota,
        tenants::update_quota,
        tokens::list,
        tokens::create,
        tokens::revoke,
        tokens::create_join_token,
        platform_tokens::list,
        platform_tokens::create,
        platform_tokens::revoke,
        agents::list,
        agents::show,
        agents::remove,
        agents::quarantine,
        agents::release,
        agents::rejoin,
        revocations::agent,
        revocations::device,
        revocations::certificate,
        joining::factory_ca_list,
        joining::factory_ca_create,
        joining::factory_ca_show,
        joining::factory_ca_delete,
        joining::expected_list,
        joining::expected_create,
        joining::expected_delete,
        joining::applicant_list,
        joining::approve,
        joining::reject,
        entities::list,
        entities::create,
        entities::show,
        entities::update,
        entities::remove,
        entities::revisions,
        entities::dry_run,
        ca_servers::list,
        ca_servers::create,
        ca_servers::show,
        ca_servers::update,
        ca_servers::remove,
        ca_servers::revisions,
        ca_servers::dry_run,
        ca_servers::offered_roots,
        ca_servers::take_root,
        rollovers::start,
        rollovers::show,
        rollovers::missing,
        rollovers::switch,
        rollovers::finish,
        rollovers::cancel,
        bindings::list,
        bindings::create,
        bindings::show,
        bindings::update,
        bindings::dry_run,
        bindings::removal,
        bindings::remove,
        campaigns::list,
        campaigns::create,
        campaigns::show,
        campaigns::remove,
        campaigns::members,
        campaigns::pause,
        campaigns::resume,
        campaigns::cancel,
        campaigns::roll_back,
        freezes::list,
        freezes::create,
        freezes::show,
        freezes::remove,
        blocked_subjects::list,
        blocked_subjects::create,
        blocked_subjects::remove,
        blocked_subjects::platform_list,
        blocked_subjects::platform_create,
        blocked_subjects::platform_remove,
        policies::list,
        policies::create,
        policies::show,
        policies::update,
        policies::remove,
        policies::revisions,
        policies::dry_run,
        changes::list,
        changes::show,
        changes::approve,
        changes::reject,
        at_risk::list,
        devices::list,
        devices::create,
        devices::show,
        devices::update,
        devices::remove,
        devices::switch_over,
        trustpoints::list,
        trustpoints::list_of_device,
        trustpoints::create,
        trustpoints::show,
        trustpoints::remove,
        mac::set,
        mac::import,
        trustpoints::set_services,
        trustpoints::set_auto_update,
        trustpoints::enroll,
        recoveries::arm,
        recoveries::disarm,
        dry_runs::trustpoint,
        trustpoints::activate,
        history::of_trustpoint,
        statistics::of_tenant,
        statistics::of_policy,
        statistics::of_device,
        statistics::reset_device,
        statistics::of_trustpoint,
        statistics::reset_trustpoint,
        jobs::list,
        jobs::show,
        jobs::transcript,
        jobs::stop,
        forecasts::of_ca_server,
        forecasts::respread,
        transfer::devices::import,
        transfer::devices::export,
        transfer::trustpoints::import,
        transfer::trustpoints::export,
        dead_letters::list,
        dead_letters::drop_all,
        dead_letters::show,
        dead_letters::drop_one,
        dead_letters::retry,
        ca_endpoints::list,
        ca_endpoints::update,
        ca_endpoints::reset,
        certificates::list,
        certificates::show,
        audit::list,
        audit::heads,
        audit::export,
        audit::platform_list,
        audit::platform_heads,
        audit::platform_export,
        agent_door::join,
        agent_door::announce,
        agent_door::challenge,
        agent_door::session,
        health::healthz,
        health::readyz,
        metrics::metrics,
        document,
    ),
    components(schemas(ProblemBody))
)]
struct Document;

/// What the parts of a path are.
const SEGMENTS: [(&str, &str); 19] = [
    ("campaign", "Name of the campaign"),
    ("freeze", "Name of the freeze"),
    ("binding", "Name of the binding"),
    ("block", "Id of the block"),
    ("factory_ca", "Name of the factory CA"),
    ("serial", "The serial number"),
    ("applicant", "Id of the applicant"),
    ("tenant", "Name of the tenant"),
    ("token", "Id of the token"),
    ("agent", "Name of the agent"),
    ("entity", "Name of the entity"),
    ("ca_server", "Name of the CA server"),
    ("root", "SHA-256 of the offered root, hex"),
    ("policy", "Name of the policy"),
    ("change", "Id of the change"),
    ("device", "Name of the device"),
    ("trustpoint", "Name of the trustpoint"),
    ("job", "Id of the job"),
    ("certificate", "Id of the certificate"),
];

/// This document.
///
/// # Errors
/// None once it could be made.
#[utoipa::path(get, path = "/openapi.json", tag = "Health", operation_id = "openapi", summary = "This document",
    responses((status = 200, description = "OpenAPI 3.1", body = serde_json::Value)))]
pub async fn document() -> Result<HttpResponse, Problem> {
    static TEXT: OnceLock<String> = OnceLock::new();
    let text = match TEXT.get() {
        Some(text) => text,
        None => {
            let text = build()?.to_string();
            TEXT.get_or_init(|| text)
        }
    };
    Ok(HttpResponse::Ok().insert_header(ContentType::json()).body(text.as_str()))
}

/// The page at `/docs/`.
pub fn browsable() -> SwaggerUi {
    SwaggerUi::new("/docs/{_:.*}").config(Config::new(["/openapi.json"]).persist_authorization(true))
}

/// The document as JSON.
///
/// # Errors
/// A document that cannot be written: a fault of ours.
pub fn build() -> Result<Value, AppError> {
    let mut document =
        serde_json::to_value(Document::openapi()).map_err(|error| AppError::Internal { source: Box::new(error) })?;
    for route in ROUTES {
        let method = route.method.to_ascii_lowercase();
        if let Some(Value::Object(operation)) = document["paths"][route.path].get_mut(&method) {
            add_security(operation, route);
            add_segments(operation, route);
            add_errors(operation, route);
            if changes::HELD.contains(&route.operation) {
                hold(operation);
            }
        }
    }
    document["servers"] = json!([{"url": "/", "description": "The controller that serves this document"}]);
    document["components"]["securitySchemes"] = json!({
        "bearer": {"type": "http", "scheme": "bearer", "description": "An API token, such as `tft1_...`, or a JWT of a configured identity provider"}
    });
    document["components"]["responses"]["Problem"] = json!({
        "description": "What was wrong, as a problem document",
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    });
    let names: Vec<String> =
        document["components"]["schemas"].as_object().into_iter().flat_map(Map::keys).cloned().collect();
    refer_to_items(&mut document, &names);
    Ok(without_body_suffix(document))
}

/// The objects in a list are described once.
fn refer_to_items(document: &mut Value, names: &[String]) {
    for name in names {
        if let Some(item) = name.strip_prefix("Page_").filter(|item| names.iter().any(|name| name == item)) {
            let reference = json!({"$ref": format!("#/components/schemas/{item}")});
            document["components"]["schemas"][name]["properties"]["items"]["items"] = reference;
        }
    }
}

/// What is a `...Body` in the source has a plain name for clients.
fn without_body_suffix(value: Value) -> Value {
    let plain = |name: &str| name.strip_suffix("Body").unwrap_or(name).to_owned();
    match value {
        Value::Object(object) => object
            .into_iter()
            .map(|(key, value)| match value {
                Value::String(text) if key == "$ref" => (key, Value::String(plain(&text))),
                // Names of schemas begin with a capital; `requestBody` is OpenAPI's own word.
                value if key.starts_with(char::is_uppercase) => (plain(&key), without_body_suffix(value)),
                value => (key, without_body_suffix(value)),
            })
            .collect(),
        Value::Array(array) => array.into_iter().map(without_body_suffix).collect(),
        other => other,
    }
}

/// In a tenant with four eyes the answer is a change that waits.
fn hold(operation: &mut serde_json::Map<String, Value>) {
    let change = json!({"$ref": "#/components/schemas/ChangeBody"});
    let why = "The tenant wants four eyes: kept until another administrator approves it";
    let done = operation["responses"].get("202").cloned();
    let (description, schema) = match done {
        None => (why.to_owned(), change),
        Some(done) => {
            let schema = done["content"]["application/json"]["schema"].clone();
            (
                format!("{}. Or: {why}", done["description"].as_str().unwrap_or_default()),
                json!({"anyOf": [schema, change]}),
            )
        }
    };
    operation["responses"]["202"] =
        json!({"description": description, "content": {"application/json": {"schema": schema}}});
}

fn add_security(operation: &mut Map<String, Value>, route: &Route) {
    let (security, note) = match route.access {
        Access::Public => (json!([]), None),
        Access::Tenant(role) => (json!([{"bearer": []}]), Some(format!("Needs the role `{role}` or a higher one"))),
        Access::Platform => (json!([{"bearer": []}]), Some("Needs the role `platform_admin`".to_owned())),
    };
    if let Access::Tenant(role) = route.access {
        operation.insert("x-role".to_owned(), json!(role.as_str()));
    } else if route.access == Access::Platform {
        operation.insert("x-role".to_owned(), json!(Role::PlatformAdmin.as_str()));
    }
    if route.access != Access::Public {
        operation.insert("x-scope".to_owned(), json!(Scope::needed(route).to_string()));
    }
    operation.insert("security".to_owned(), security);
    if let Some(note) = note {
        // The handlers' own descriptions are written for those who read the source.
        let note = format!("{note}, and of a token with scopes `{}`.", Scope::needed(route));
        operation.insert("description".to_owned(), json!(note));
    } else {
        operation.remove("description");
    }
}

fn add_segments(operation: &mut Map<String, Value>, route: &Route) {
    let parameters = operation.entry("parameters").or_insert_with(|| json!([]));
    let Some(parameters) = parameters.as_array_mut() else { return };
    let segments = route.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    for (i, segment) in segments.enumerate() {
        let about = SEGMENTS.iter().find(|(name, _)| *name == segment).map_or("", |(_, about)| about);
        let parameter = json!({
            "name": segment, "in": "path", "required": true, "description": about, "schema": {"type": "string"}
        });
        parameters.insert(i, parameter);
    }
    if parameters.is_empty() {
        operation.remove("parameters");
    }
}

fn add_errors(operation: &mut Map<String, Value>, route: &Route) {
    let has_body = operation.contains_key("requestBody");
    let has_parameters = operation.contains_key("parameters");
    let is_api = route.path.starts_with("/v1/") || route.path.starts_with("/agent/");
    let mut statuses = Vec::new();
    if is_api {
        statuses.extend(["429", "503"]);
    }
    if route.access != Access::Public {
        statuses.extend(["401", "403"]);
    }
    if route.path.contains('{') {
        statuses.push("404");
    }
    if route.method != "GET" && matches!(route.access, Access::Tenant(_)) {
        // The tenant is suspended, or its quota is used up.
        statuses.push("409");
    }
    if has_body {
        statuses.extend(["400", "413", "415", "422"]);
    } else if has_parameters {
        statuses.push("422");
    }
    let responses = operation.entry("responses").or_insert_with(|| json!({}));
    if let Some(responses) = responses.as_object_mut() {
        for status in statuses {
            responses.entry(status).or_insert_with(|| json!({"$ref": "#/components/responses/Problem"}));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_route_is_documented_and_nothing_else() {
        let document = build().unwrap();
        let documented: BTreeSet<(String, String)> = document["paths"]
            .as_object()
            .unwrap()
            .iter()
            .flat_map(|(path, item)| {
                item.as_object()
                    .unwrap()
                    .keys()
                    .map(|method| (path.clone(), method.to_ascii_uppercase()))
                    .collect::<Vec<_>>()
            })
            .collect();
        let routed: BTreeSet<(String, String)> =
            ROUTES.iter().map(|route| (route.path.to_owned(), route.method.to_owned())).collect();
        assert_eq!(documented, routed);
    }

    #[test]
    fn the_document_is_openapi_3_1_and_every_operation_is_complete() {
        let document = build().unwrap();
        assert!(document["openapi"].as_str().unwrap().starts_with("3.1."), "{}", document["openapi"]);
        let mut ids = BTreeSet::new();
        for route in ROUTES {
            let operation = &document["paths"][route.path][route.method.to_ascii_lowercase()];
            let name = format!("{} {}", route.method, route.path);
            let responses = operation["responses"].as_object().unwrap();
            assert!(responses.keys().any(|status| status.starts_with('2')), "{name} has no success");
            assert_eq!(operation["operationId"], route.operation, "{name}");
            assert!(ids.insert(route.operation), "{name} shares its id");
            assert!(!operation["summary"].as_str().unwrap().is_empty(), "{name} has no summary");
            if route.access != Access::Public {
                assert!(responses.contains_key("401") && responses.contains_key("403"), "{name}");
                assert_eq!(operation["security"], json!([{"bearer": []}]), "{name}");
            }
            if ["POST", "PUT"].contains(&route.method)
                && ![
                    "/switch-over",
                    "/pause",
                    "/cancel",
                    "/roll-back",
                    "/respread",
                    "root}/take",
                    "/rollover/finish",
                    "/rollover/cancel",
                    "/stop",
                    "/statistics/reset",
                    "/activate",
                    "/retry",
                    "/resume",
                    "/restore",
                    "/approve",
                    "/release",
                    "applicant}/reject",
                ]
                .iter()
                .any(|verb| route.path.ends_with(verb))
            {
                assert!(operation.get("requestBody").is_some() && responses.contains_key("422"), "{name}");
            }
        }
    }

    #[test]
    fn objects_have_plain_names_and_are_described_once() {
        let document = build().unwrap();
        let schemas = document["components"]["schemas"].as_object().unwrap();
        for name in ["Device", "Entity", "CaServer", "Policy", "Trustpoint", "Job", "Certificate", "Problem"] {
            assert!(schemas.contains_key(name), "{name}");
        }
        assert!(!schemas.keys().any(|name| name.ends_with("Body")));
        assert_eq!(
            schemas["Page_Device"]["properties"]["items"]["items"],
            json!({"$ref": "#/components/schemas/Device"})
        );
    }

    #[test]
    fn enumerations_are_documented_by_the_words_that_go_over_the_wire() {
        let document = build().unwrap();
        let schemas = document["components"]["schemas"].as_object().unwrap();
        let keys = json!(["rsa-2048", "rsa-3072", "rsa-4096", "ecdsa-p256", "ecdsa-p384", "ed25519"]);
        assert_eq!(schemas["KeyAlgorithm"]["enum"], keys);
        // Reasons of a revocation have the words of RFC 5280.
        for (name, schema) in schemas.iter().filter(|(name, _)| *name != "RevocationReason") {
            for word in schema["enum"].as_array().into_iter().flatten() {
                let text = word.as_str().unwrap();
                assert!(!text.contains(char::is_uppercase), "{name}: {text}");
            }
        }
    }

    #[test]
    fn every_reference_in_the_document_leads_somewhere() {
        fn check(value: &Value, document: &Value) {
            match value {
                Value::Object(object) => {
                    if let Some(Value::String(reference)) = object.get("$ref") {
                        let pointer = reference.strip_prefix('#').unwrap();
                        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
                    }
                    object.values().for_each(|value| check(value, document));
                }
                Value::Array(array) => array.iter().for_each(|value| check(value, document)),
                _ => {}
            }
        }
        let document = build().unwrap();
        check(&document, &document);
    }

    #[test]
    fn the_mac_secret_is_in_no_answer_of_the_document() {
        let document = build().unwrap();
        let schemas = document["components"]["schemas"].as_object().unwrap();
        let with_secret: Vec<_> =
            schemas.iter().filter(|(_, schema)| schema["properties"].get("secret").is_some()).map(|(n, _)| n).collect();
        assert_eq!(with_secret, ["MacCreate"]);
        assert_eq!(schemas["MacCreate"]["properties"]["secret"]["writeOnly"], true);
    }
}
