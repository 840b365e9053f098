//! Tokens of platform administrators: the same as a tenant's, above all tenants.

use actix_web::HttpResponse;

use super::access::Role;
use super::body::Body;
use super::call::{Call, ListQuery};
use super::dto::Page;
use super::dto::tenant::{PlatformTokenCreate, TokenBody, TokenCreatedBody};
use super::problem::{Problem, ProblemBody};
use super::tokens::{check_wanted, mint, page, take_back};

/// Lists the platform's tokens, without the tokens themselves.
///
/// # Errors
/// 422 for unreadable parameters; the database's own.
#[utoipa::path(get, path = "/v1/tokens", tag = "Tokens", operation_id = "platform_token_list",
    summary = "List tokens of platform administrators, oldest first", params(ListQuery),
    responses((status = 200, description = "A part of the list", body = Page<TokenBody>)))]
pub async fn list(call: Call) -> Result<HttpResponse, Problem> {
    page(&call, None).await
}

/// Makes a token of a platform administrator.
///
/// # Errors
/// 422 with everything that is wrong.
#[utoipa::path(post, path = "/v1/tokens", tag = "Tokens", operation_id = "platform_token_create",
    summary = "Make a token of a platform administrator", request_body = PlatformTokenCreate,
    responses((status = 201, description = "Made; the token is shown only here", body = TokenCreatedBody)))]
pub async fn create(call: Call, body: Body<PlatformTokenCreate>) -> Result<HttpResponse, Problem> {
    let wanted = body.check(|body, violations| {
        let PlatformTokenCreate { scopes, description, valid_for_s } = body;
        check_wanted(&call, Role::PlatformAdmin, &scopes, description, valid_for_s, violations)
    })?;
    mint(&call, None, wanted).await
}

/// Takes a token of a platform administrator back.
///
/// # Errors
/// 404, also when it was taken back before; 409 for the last one in force.
#[utoipa::path(delete, path = "/v1/tokens/{token}", tag = "Tokens", operation_id = "platform_token_delete",
    summary = "Take a platform administrator's token back; it is refused everywhere within five seconds", responses(
        (status = 204, description = "Taken back"),
        (status = 409, description = "It is the last one in force", body = ProblemBody,
            content_type = "application/problem+json")))]
pub async fn revoke(call: Call) -> Result<HttpResponse, Problem> {
    take_back(&call, None).await
}
