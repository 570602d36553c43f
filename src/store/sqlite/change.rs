//! What surrounds every change: the lease, the request, the events, one transaction.

use super::value::Columns;
use super::writer::Writer;
use super::{audit, leases};
use crate::clock::{Clock, Timestamp};
use crate::store::{Mutation, RequestKey, Result, StoreError};
use futures_util::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::SqliteConnection;
use std::sync::Arc;
use std::time::Duration;

/// What a change came to.
pub(super) struct Done<T> {
    outcome: T,
    /// Whether the change's events are to be made.
    audited: bool,
}

impl<T> Done<T> {
    /// Nothing was changed: there is nothing to audit.
    pub(super) fn unchanged(outcome: T) -> Self {
        Self { outcome, audited: false }
    }
}

impl<T> From<T> for Done<T> {
    fn from(outcome: T) -> Self {
        Self { outcome, audited: true }
    }
}

/// What is kept of a request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    /// Its outcome, as JSON: a repeated request gets it again.
    Outcome,
    /// Only what it asked for. The change recognises by itself what was done before (claims: their outcomes hold
    /// wrapped keys, which are to be erased in one place only).
    BodyOnly,
}

/// Runs one change in one transaction: lease, request, the change itself, its events.
pub(super) async fn change<T, F>(
    writer: &Writer,
    clock: Arc<dyn Clock>,
    keep: Keep,
    mutation: Mutation<T>,
    body: F,
) -> Result<T>
where
    T: Serialize + DeserializeOwned + Send + Sync + 'static,
    F: for<'c> FnOnce(&'c mut SqliteConnection, Timestamp) -> BoxFuture<'c, Result<Done<T>>> + Send + 'static,
{
    writer
        .run(move |tx| {
            Box::pin(async move {
                let now = clock.now();
                let Mutation { request, lease, events } = mutation;
                if let Some(lease) = &lease {
                    leases::check(tx, lease, now).await?;
                }
                if let Some(request) = &request
                    && let Some(before) = begin_request(tx, request, now).await?
                    && keep == Keep::Outcome
                {
                    return before.ok_or_else(|| {
                        StoreError::Conflict(format!(
                            "request id {} belongs to another kind of call",
                            request.id
                        ))
                    });
                }
                let Done { outcome, audited } = body(tx, now).await?;
                if audited {
                    audit::insert(tx, &events(&outcome)).await?;
                }
                if let Some(request) = &request
                    && keep == Keep::Outcome
                {
                    end_request(tx, request, &outcome).await?;
                }
                Ok(outcome)
            })
        })
        .await
}

/// Notes the request. If it was made before: its outcome, if one is kept and is a `T`.
#[allow(clippy::option_option, reason = "new, made before, made before with an outcome")]
async fn begin_request<T: DeserializeOwned>(
    tx: &mut SqliteConnection,
    request: &RequestKey,
    now: Timestamp,
) -> Result<Option<Option<T>>> {
    let inserted = sqlx::query(
        "INSERT INTO requests (caller, request_id, body, created_at) VALUES ($1, $2, $3, $4)
         ON CONFLICT (caller, request_id) DO NOTHING",
    )
    .bind(&request.caller.0)
    .bind(request.id.0.as_bytes().as_slice())
    .bind(request.body.0.as_slice())
    .bind(now.unix_micros())
    .execute(&mut *tx)
    .await?
    .rows_affected();
    if inserted == 1 {
        return Ok(None);
    }
    let row = sqlx::query("SELECT body, outcome FROM requests WHERE caller = $1 AND request_id = $2")
        .bind(&request.caller.0)
        .bind(request.id.0.as_bytes().as_slice())
        .fetch_one(&mut *tx)
        .await?;
    if row.hash("body")? != request.body {
        return Err(StoreError::RequestReused(request.id));
    }
    let outcome = row.text_or_null("outcome")?;
    Ok(Some(outcome.and_then(|json| serde_json::from_str(&json).ok())))
}

async fn end_request<T: Serialize>(
    tx: &mut SqliteConnection,
    request: &RequestKey,
    outcome: &T,
) -> Result<()> {
    let json = serde_json::to_string(outcome)
        .map_err(|e| StoreError::Unusable(format!("the outcome of a request cannot be written: {e}")))?;
    sqlx::query("UPDATE requests SET outcome = $1 WHERE caller = $2 AND request_id = $3")
        .bind(json)
        .bind(&request.caller.0)
        .bind(request.id.0.as_bytes().as_slice())
        .execute(tx)
        .await?;
    Ok(())
}

/// How long a request is remembered.
const REQUEST_MEMORY: Duration = Duration::from_secs(24 * 3600);

/// Forgets requests that are too old; says how many.
pub(super) async fn forget_requests(tx: &mut SqliteConnection, now: Timestamp) -> Result<u64> {
    Ok(sqlx::query("DELETE FROM requests WHERE created_at < $1")
        .bind(now.minus(REQUEST_MEMORY).unix_micros())
        .execute(tx)
        .await?
        .rows_affected())
}
