//! Messages of agents that could not be processed: to be looked at, retried or dropped by a platform administrator, as
//! nobody knows for sure whose they are.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use serde_json::json;
use trustfleet_model::ids::DeadLetterId;
use trustfleet_wire::routing::{REPORTS_EXCHANGE, sender_of};
use utoipa::IntoParams;
use uuid::Uuid;

use super::call::{Call, ListQuery};
use super::dto::Page;
use super::dto::dead_letter::{DeadLetterBody, DeadLetterShown, DeadLettersDropped};
use super::problem::{Problem, ProblemBody, json};
use crate::audit::PLATFORM;
use crate::broker::{Outgoing, Published};
use crate::db::{DbError, DeadLetter, LetterFilter, Note, SystemTx};
use crate::dead_letters::shown;
use crate::error::AppError;
use crate::metrics::Refusal;

/// Filters of the list.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code)] // read by the OpenAPI document only
pub struct DeadLetterQuery {
    /// Only for this reason.
    reason: Option<String>,
    /// Only of agents of this tenant.
    tenant: Option<String>,
    /// Only of the agent of this name or id.
    agent: Option<String>,
}

/// Which letters are dropped.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code)] // read by the OpenAPI document only
pub struct DropQuery {
    /// All letters with this reason.
    reason: String,
}

/// Lists dead letters, newest first.
///
/// # Errors
/// 422 for unreadable parameters; the database's own.
#[utoipa::path(get, path = "/v1/dead-letters", tag = "Dead letters", operation_id = "dead_letter_list",
    summary = "List messages of agents that could not be processed, newest first", params(ListQuery, DeadLetterQuery),
    responses((status = 200, description = "A part of the list", body = Page<DeadLetterBody>)))]
pub async fn list(call: Call) -> Result<HttpResponse, Problem> {
    let list = call.list(&["reason", "tenant", "agent"])?;
    if let Some(reason) = list.filter("reason") {
        check_reason(reason)?;
    }
    let filter = LetterFilter {
        reason: list.filter("reason"),
        tenant: list.filter("tenant"),
        agent: list.filter("agent"),
        before: list.after_as::<DeadLetterId>()?,
    };
    let rows = system(&call, "dead_letter_list", async |tx| tx.dead_letter_list(filter, list.rows()).await).await?;
    let page: Page<DeadLetterBody> = list.page(rows, |letter| letter.id.to_string());
    json(StatusCode::OK, &page)
}

/// Shows one letter.
///
/// # Errors
/// 404.
#[utoipa::path(get, path = "/v1/dead-letters/{letter}", tag = "Dead letters", operation_id = "dead_letter_show",
    summary = "Show a message that could not be processed, without what could be a secret",
    responses((status = 200, description = "The letter", body = DeadLetterShown)))]
pub async fn show(call: Call) -> Result<HttpResponse, Problem> {
    let letter = fetch(&call).await?;
    let shown = DeadLetterShown {
        content: shown(&letter.body),
        can_be_retried: way_back(&letter).is_ok(),
        letter: letter.into(),
    };
    json(StatusCode::OK, &shown)
}

/// Publishes a letter again, as its agent did; it goes from the list unless it is laid aside again.
///
/// # Errors
/// 404; 409 when it is not there as a whole or came by no key of an agent; 503 without a broker.
#[utoipa::path(post, path = "/v1/dead-letters/{letter}/retry", tag = "Dead letters", operation_id = "dead_letter_retry",
    summary = "Put a message back into its queue: it is processed as if it had just come", responses(
        (status = 204, description = "It is in its queue; should it fail again, it is laid aside again"),
        (status = 409, description = "Only its beginning was kept, or nobody knows by which key it came", body = ProblemBody,
            content_type = "application/problem+json")))]
pub async fn retry(call: Call) -> Result<HttpResponse, Problem> {
    let letter = fetch(&call).await?;
    way_back(&letter)?;
    let message = Outgoing {
        exchange: REPORTS_EXCHANGE,
        routing_key: letter.routing_key.clone(),
        body: letter.body.clone(),
        deliveries: 0,
    };
    let published = call.services().broker.publish(message).await;
    let away = |source| AppError::Unavailable { what: "the broker", source };
    match published {
        Ok(Published::Confirmed) => {}
        Ok(Published::Returned) => return Err(away(None).into()),
        Err(error) => return Err(away(Some(Box::new(error))).into()),
    }
    let requester = call.requester();
    let note =
        Note::new(call.now, &requester, "dead_letter_retried", "dead_letter", letter.id.as_uuid(), told(&letter));
    system(&call, "dead_letter_retry", async |tx| {
        // Laid aside again meanwhile: then it stays.
        tx.dead_letter_delete(&letter, Some(letter.times)).await?;
        tx.audit_note(PLATFORM, &note).await
    })
    .await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Drops one letter.
///
/// # Errors
/// 404.
#[utoipa::path(delete, path = "/v1/dead-letters/{letter}", tag = "Dead letters", operation_id = "dead_letter_drop",
    summary = "Drop a message that could not be processed", responses((status = 204, description = "It is gone")))]
pub async fn drop_one(call: Call) -> Result<HttpResponse, Problem> {
    let letter = fetch(&call).await?;
    let requester = call.requester();
    let note =
        Note::new(call.now, &requester, "dead_letter_dropped", "dead_letter", letter.id.as_uuid(), told(&letter));
    let gone = system(&call, "dead_letter_drop", async |tx| {
        let gone = tx.dead_letter_delete(&letter, None).await?;
        if gone {
            tx.audit_note(PLATFORM, &note).await?;
        }
        Ok(gone)
    })
    .await?;
    if !gone {
        return Err(Problem::not_found("dead letter"));
    }
    Ok(HttpResponse::NoContent().finish())
}

/// Drops all letters of a reason.
///
/// # Errors
/// 422 without a reason, or with an unknown one.
#[utoipa::path(delete, path = "/v1/dead-letters", tag = "Dead letters", operation_id = "dead_letter_drop_all",
    summary = "Drop all messages that could not be processed for one reason", params(DropQuery),
    responses((status = 200, description = "They are gone", body = DeadLettersDropped)))]
pub async fn drop_all(call: Call) -> Result<HttpResponse, Problem> {
    let reason = call.query("reason").unwrap_or_default();
    check_reason(&reason)?;
    let requester = call.requester();
    let dropped = system(&call, "dead_letters_drop", async |tx| {
        let dropped = tx.dead_letters_delete(&reason).await?;
        let detail = json!({ "reason": reason, "letters": dropped });
        let note = Note::new(call.now, &requester, "dead_letters_dropped", "dead_letter", Uuid::nil(), detail);
        tx.audit_note(PLATFORM, &note).await?;
        Ok(dropped)
    })
    .await?;
    json(StatusCode::OK, &DeadLettersDropped { dropped })
}

fn check_reason(reason: &str) -> Result<(), Problem> {
    if Refusal::ALL.iter().any(|known| known.as_str() == reason) {
        return Ok(());
    }
    let words: Vec<_> = Refusal::ALL.iter().map(|known| known.as_str()).collect();
    Err(Problem::invalid("reason", "choice", format!("must be one of {}", words.join(", "))))
}

/// Whether a letter can go back to its queue.
fn way_back(letter: &DeadLetter) -> Result<(), AppError> {
    let refused = |code, detail: &str| Err(AppError::Conflict { code, detail: detail.to_owned() });
    if letter.size != i64::try_from(letter.body.len()).unwrap_or(i64::MAX) {
        return refused("not_whole", "only the beginning of the message was kept: it can only be dropped");
    }
    if sender_of(&letter.routing_key).is_none() {
        return refused("no_way_back", "nobody knows by which agent's key the message came: it can only be dropped");
    }
    Ok(())
}

fn told(letter: &DeadLetter) -> serde_json::Value {
    json!({ "reason": letter.reason, "agent_id": letter.agent_id, "sha256": hex::encode(&letter.sha256) })
}

async fn fetch(call: &Call) -> Result<DeadLetter, Problem> {
    let id: DeadLetterId = call.segment("letter", "dead letter")?;
    system(call, "dead_letter_show", async |tx| tx.dead_letter_fetch(id).await).await
}

async fn system<T, F>(call: &Call, name: &'static str, work: F) -> Result<T, Problem>
where
    F: AsyncFn(&SystemTx) -> Result<T, DbError>,
{
    Ok(call.services().store.system_tx(name, work).await?)
}
