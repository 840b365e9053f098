//! What entities, CA servers and policies have in common: five operations, their revisions, and the dry run of a change.

use serde::Serialize;
use uuid::Uuid;

use super::call::Call;
use super::problem::Problem;
use crate::db::{Change, Configured, Revision, TenantTx};
use crate::error::AppError;

/// Trustpoints that a dry run reads at a time.
pub(super) const DRY_RUN_PART: i64 = 500;

/// Who makes a revision, and why.
pub(super) struct Author {
    name: String,
    pub(super) reason: Option<String>,
}

impl Author {
    /// The caller.
    pub(super) fn of(call: &Call) -> Result<Self, Problem> {
        Ok(Self { name: call.actor(), reason: call.reason()? })
    }

    /// Whoever proposed a change that the caller approves.
    pub(super) fn approved(call: &Call, change: &Change) -> Self {
        let reason = format!("change {}, approved by {}", change.id, call.actor());
        Self { name: change.proposed_by.clone(), reason: Some(reason) }
    }

    /// Keeps the revision that was made.
    pub(super) async fn keep<Id, Spec: Serialize>(
        &self,
        tx: &TenantTx,
        kind: &str,
        id: Uuid,
        made: &Configured<Id, Spec>,
    ) -> Result<(), AppError> {
        let spec = serde_json::to_value(&made.spec).map_err(|error| AppError::Internal { source: error.into() })?;
        let (author, reason) = (self.name.clone(), self.reason.clone());
        let revision = Revision { revision: made.revision, spec, author, reason, created_at: made.updated_at };
        Ok(tx.revision_insert(kind, id, &revision).await?)
    }
}

/// Lets every change pass, for kinds of which nothing else forbids one.
///
/// # Errors
/// None.
#[allow(clippy::unused_async, reason = "stands where others look into the database")]
pub(super) async fn unguarded<Id, Spec>(
    _tx: &TenantTx,
    _present: &Configured<Id, Spec>,
    _next: &Spec,
) -> Result<(), AppError> {
    Ok(())
}

/// Writes list, create, show, update and delete of one kind of configured object.
macro_rules! configured_handlers {
    (
        kind: $kind:tt, tag: $tag:tt, path: $path:tt, item: $item:tt, segment: $segment:tt,
        revisions: $revisions:tt, dry_run: $dry_run:tt, reference: $reference:expr,
        operations: [$op_list:tt, $op_create:tt, $op_show:tt, $op_update:tt, $op_delete:tt, $op_revisions:tt, $op_dry_run:tt],
        actions: [$created:literal, $updated:literal, $deleted:literal],
        object: $object:ty, spec: $spec:ty, bodies: [$create:ident, $update:ident, $body:ident], id: $id:ident,
        sql: [$insert:ident, $fetch:ident, $list:ident, $replace:ident, $used_by:ident, $delete:ident],
        check: $check:expr,
        guard: $guard:path,
        preview: $preview:expr
    ) => {
        #[utoipa::path(get, path = $path, tag = $tag, operation_id = $op_list, params(ListQuery),
            summary = "List by name", responses((status = 200, description = "A part of the list", body = Page<$object>)))]
        /// Lists by name.
        ///
        /// # Errors
        /// 422 for unreadable parameters; the database's own.
        pub async fn list(call: Call) -> Result<HttpResponse, Problem> {
            let list = call.list(&[])?;
            let rows = call
                .tenant_tx($op_list, async |tx| Ok(tx.$list(list.after(), list.rows()).await?))
                .await?;
            let page: Page<$body> = list.page(rows, |row| row.name.to_string());
            json(StatusCode::OK, &page)
        }

        #[utoipa::path(post, path = $path, tag = $tag, operation_id = $op_create, request_body = $create,
            summary = "Make a new one", params(Reason), responses(
                (status = 201, description = "Made", body = $object),
                (status = 409, description = "The name is taken", body = ProblemBody, content_type = "application/problem+json")))]
        /// Makes a new one.
        ///
        /// # Errors
        /// 409 when the name is taken, 422 with everything that is wrong.
        pub async fn create(call: Call, body: Body<$create>) -> Result<HttpResponse, Problem> {
            let allow_weak = call.tenant()?.allow_weak_algorithms;
            let (name, spec) = body.check(|body: $create, violations| {
                let (name, rest) = body.split();
                let name = violations.check("name", "S1", name.parse::<ObjectName>());
                let spec = rest.into_spec();
                ($check)(&spec, allow_weak, violations);
                name.map(|name| (name, spec))
            })?;
            if changes::is_held(&call, $op_create)? {
                let look = async |tx: &TenantTx| match tx.$fetch(&name).await {
                    Ok(_) => Err(taken($kind)),
                    Err(DbError::NotFound { .. }) => Ok(None),
                    Err(error) => Err(error.into()),
                };
                return changes::propose(&call, $op_create, $segment, &name, Some(&spec), look).await;
            }
            let author = Author::of(&call)?;
            let made = call.tenant_tx($op_create, async |tx| make_in(&call, tx, &name, &spec, &author).await).await?;
            call.created(name.as_str(), &$body::from(made))
        }

        async fn make_in(
            call: &Call,
            tx: &TenantTx,
            name: &ObjectName,
            spec: &$spec,
            author: &Author,
        ) -> Result<Configured<$id, $spec>, AppError> {
            let id = call.services().fresh($id::fresh)?;
            tx.$insert(id, name, spec, call.now).await.map_err(|error| name_taken(error, $kind))?;
            let made = tx.$fetch(name).await?;
            author.keep(tx, $segment, id.as_uuid(), &made).await?;
            let (object, after) = (($segment, id.as_uuid()), shown(&$body::from(made.clone())));
            call.note_change(tx, $created, object, None, Some(after), json!({"name": name.as_str(), "reason": author.reason})).await?;
            Ok(made)
        }

        #[utoipa::path(get, path = $item, tag = $tag, operation_id = $op_show, summary = "Show one",
            responses((status = 200, description = "The object", body = $object)))]
        /// Shows one.
        ///
        /// # Errors
        /// 404.
        pub async fn show(call: Call) -> Result<HttpResponse, Problem> {
            let name: ObjectName = call.segment($segment, $kind)?;
            let found = call.tenant_tx($op_show, async |tx| Ok(tx.$fetch(&name).await?)).await?;
            let revision = found.revision;
            Ok(with_revision(json(StatusCode::OK, &$body::from(found))?, revision))
        }

        #[utoipa::path(put, path = $item, tag = $tag, operation_id = $op_update, request_body = $update,
            summary = "Change one: all of it, the name stays", params(IfMatch, Reason), responses(
                (status = 200, description = "Changed", body = $object),
                (status = 412, description = "If-Match names another revision", body = ProblemBody,
                    content_type = "application/problem+json")))]
        /// Changes one.
        ///
        /// # Errors
        /// 404, 412 when the revision is another one by now, 422 with everything that is wrong.
        pub async fn update(call: Call, body: Body<$update>) -> Result<HttpResponse, Problem> {
            let (name, expected, spec) = read_change(&call, body).await?;
            if changes::is_held(&call, $op_update)? {
                let look = async |tx: &TenantTx| Ok(Some(fetch_in(tx, &name, expected).await?.revision));
                return changes::propose(&call, $op_update, $segment, &name, Some(&spec), look).await;
            }
            let author = Author::of(&call)?;
            let changed = call
                .tenant_tx($op_update, async |tx| replace_in(&call, tx, &name, expected, &spec, &author).await)
                .await?;
            let revision = changed.revision;
            Ok(with_revision(json(StatusCode::OK, &$body::from(changed))?, revision))
        }

        /// What a change names, the revision that it is meant for, and what is to be there.
        async fn read_change(call: &Call, body: Body<$update>) -> Result<(ObjectName, Option<u32>, $spec), Problem> {
            let name: ObjectName = call.segment($segment, $kind)?;
            let expected = call.if_match()?;
            let allow_weak = call.tenant()?.allow_weak_algorithms;
            // What does not exist is told before what is wrong with its replacement.
            call.tenant_tx($op_show, async |tx| Ok(tx.$fetch(&name).await?)).await?;
            let spec = body.check(|body: $update, violations| {
                let spec = body.into_spec();
                ($check)(&spec, allow_weak, violations);
                Some(spec)
            })?;
            Ok((name, expected, spec))
        }

        async fn fetch_in(
            tx: &TenantTx,
            name: &ObjectName,
            expected: Option<u32>,
        ) -> Result<Configured<$id, $spec>, AppError> {
            let present = tx.$fetch(name).await?;
            if expected.is_some_and(|revision| revision != present.revision) {
                return Err(AppError::PreconditionFailed { current: present.revision });
            }
            Ok(present)
        }

        async fn replace_in(
            call: &Call,
            tx: &TenantTx,
            name: &ObjectName,
            expected: Option<u32>,
            spec: &$spec,
            author: &Author,
        ) -> Result<Configured<$id, $spec>, AppError> {
            let present = fetch_in(tx, name, expected).await?;
            $guard(tx, &present, spec).await?;
            tx.$replace(present.id, present.revision, spec, call.now).await?;
            let changed = tx.$fetch(name).await?;
            author.keep(tx, $segment, present.id.as_uuid(), &changed).await?;
            let object = ($segment, present.id.as_uuid());
            let detail = json!({"name": name.as_str(), "revision": changed.revision, "reason": author.reason});
            let before = shown(&$body::from(present));
            let after = shown(&$body::from(changed.clone()));
            call.note_change(tx, $updated, object, Some(before), Some(after), detail).await?;
            Ok(changed)
        }

        #[utoipa::path(delete, path = $item, tag = $tag, operation_id = $op_delete, summary = "Delete one that no trustpoint uses",
            responses(
                (status = 204, description = "Deleted"),
                (status = 409, description = "A trustpoint uses it", body = ProblemBody,
                    content_type = "application/problem+json")))]
        /// Deletes one.
        ///
        /// # Errors
        /// 404, 409 while a trustpoint uses it.
        pub async fn remove(call: Call) -> Result<HttpResponse, Problem> {
            let name: ObjectName = call.segment($segment, $kind)?;
            if changes::is_held(&call, $op_delete)? {
                let look = async |tx: &TenantTx| Ok(Some(fetch_unused_in(tx, &name, None).await?.revision));
                return changes::propose::<$spec>(&call, $op_delete, $segment, &name, None, look).await;
            }
            call.tenant_tx($op_delete, async |tx| delete_in(&call, tx, &name, None).await).await?;
            Ok(HttpResponse::NoContent().finish())
        }

        #[utoipa::path(get, path = $revisions, tag = $tag, operation_id = $op_revisions, params(ListQuery),
            summary = "List its revisions, newest first",
            responses((status = 200, description = "A part of the list", body = Page<RevisionBody>)))]
        /// Lists the revisions of one.
        ///
        /// # Errors
        /// 404; 422 for unreadable parameters.
        pub async fn revisions(call: Call) -> Result<HttpResponse, Problem> {
            let list = call.list(&[])?;
            let name: ObjectName = call.segment($segment, $kind)?;
            let before: Option<i32> = list.after_as()?;
            let rows = call
                .tenant_tx($op_revisions, async |tx| {
                    let id = tx.$fetch(&name).await?.id.as_uuid();
                    Ok(tx.revision_list($segment, id, before, list.rows()).await?)
                })
                .await?;
            let page: Page<RevisionBody> = list.page(rows, |row| row.revision.to_string());
            json(StatusCode::OK, &page)
        }

        #[utoipa::path(post, path = $dry_run, tag = $tag, operation_id = $op_dry_run, request_body = $update,
            summary = "Say what a change would do, and change nothing", params(IfMatch), responses(
                (status = 200, description = "What would change, on how many trustpoints", body = DryRunBody),
                (status = 412, description = "If-Match names another revision", body = ProblemBody,
                    content_type = "application/problem+json")))]
        /// Says what a change would do.
        ///
        /// # Errors
        /// As the change itself.
        pub async fn dry_run(call: Call, body: Body<$update>) -> Result<HttpResponse, Problem> {
            let (name, expected, spec) = read_change(&call, body).await?;
            let (present, preview) = call
                .tenant_tx($op_dry_run, async |tx| {
                    let present = fetch_in(tx, &name, expected).await?;
                    let mut preview = Preview::default();
                    let mut after = None;
                    loop {
                        let part = tx
                            .trustpoints_referring($reference, present.id.as_uuid(), after, DRY_RUN_PART)
                            .await?;
                        let Some((last, _)) = part.last() else { return Ok((present, preview)) };
                        after = Some(last.id);
                        for (trustpoint, device) in &part {
                            preview.count(trustpoint);
                            ($preview)(&mut preview, trustpoint, device, (&present.spec, &spec), call.now);
                        }
                    }
                })
                .await?;
            let (name, revision) = (present.name.to_string(), present.revision);
            let then = Configured { spec, ..present.clone() };
            let fields = differences(&shown(&$body::from(present)), &shown(&$body::from(then)));
            json(StatusCode::OK, &DryRunBody::new(name, revision, fields, preview))
        }

        async fn fetch_unused_in(
            tx: &TenantTx,
            name: &ObjectName,
            expected: Option<u32>,
        ) -> Result<Configured<$id, $spec>, AppError> {
            let present = fetch_in(tx, name, expected).await?;
            match tx.$used_by(present.id).await? {
                Some(user) => Err(in_use($kind, &user)),
                None => Ok(present),
            }
        }

        async fn delete_in(
            call: &Call,
            tx: &TenantTx,
            name: &ObjectName,
            expected: Option<u32>,
        ) -> Result<(), AppError> {
            let present = fetch_unused_in(tx, name, expected).await?;
            tx.$delete(present.id).await.map_err(|error| bound(error, $kind))?;
            tx.revisions_delete($segment, present.id.as_uuid()).await?;
            let (object, before) = (($segment, present.id.as_uuid()), shown(&$body::from(present)));
            call.note_change(tx, $deleted, object, Some(before), None, json!({"name": name.as_str()})).await?;
            Ok(())
        }

        /// Does what was proposed and has been approved.
        ///
        /// # Errors
        /// 404 or 412 when the object is not what the proposer saw; otherwise as the operation itself.
        pub(super) async fn apply(call: &Call, tx: &TenantTx, change: &Change) -> Result<(), AppError> {
            let spec = || {
                let proposal = change.proposal.clone().unwrap_or_default();
                serde_json::from_value::<$spec>(proposal).map_err(|error| AppError::Internal { source: error.into() })
            };
            let (name, revision) = (&change.object_name, change.object_revision);
            match change.operation.as_str() {
                $op_create => make_in(call, tx, name, &spec()?, &Author::approved(call, change)).await.map(drop),
                $op_update => {
                    replace_in(call, tx, name, revision, &spec()?, &Author::approved(call, change)).await.map(drop)
                }
                $op_delete => delete_in(call, tx, name, revision).await,
                other => Err(AppError::internal(format!("change {} is of an unknown operation: {other}", change.id))),
            }
        }
    };
}

pub(super) use configured_handlers;
