//! What surrounds every change: the lease, the request, the events, one transaction.

use super::connection::Connection;
use super::engine::Engine;
use super::statement::query;
use super::{audit, leases, witnesses};
use crate::clock::Timestamp;
use crate::store::{Mutation, RequestKey, Result, StoreError};
use futures_util::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long a request is remembered.
const REQUEST_MEMORY: Duration = Duration::from_secs(24 * 3600);

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

/// Something that only one attempt at a change can use: the one that gets as far.
pub(super) struct Once<T>(Arc<Mutex<Option<T>>>);

impl<T> Clone for Once<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Once<T> {
    pub(super) fn new(value: T) -> Self {
        Self(Arc::new(Mutex::new(Some(value))))
    }

    /// It, for this attempt. `Unavailable` if an attempt that had it lost against another change.
    pub(super) fn take(&self) -> Result<T> {
        let value = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        value.ok_or_else(|| {
            StoreError::Unavailable("the change lost against another one; try again".to_owned())
        })
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
pub(super) async fn change<E, T, F>(engine: &E, keep: Keep, mutation: Mutation<T>, body: F) -> Result<T>
where
    E: Engine,
    T: Serialize + DeserializeOwned + Send + Sync + 'static,
    F: for<'c> FnOnce(&'c mut Connection, Timestamp) -> BoxFuture<'c, Result<Done<T>>>
        + Clone
        + Send
        + 'static,
{
    let Mutation { request, lease, delivers, events } = mutation;
    let continuity = Arc::clone(engine.continuity());
    // Shared by the attempts: the one that gets as far as to the events makes them.
    let events = Once::new(events);
    let noting = Arc::clone(&continuity);
    let under = continuity.under();
    let lease = lease.filter(|lease| under.as_ref().is_none_or(|(under, _)| under != lease));
    let changed = engine
        .change(move |tx, now| {
            Box::pin(async move {
                let mut seen = Vec::new();
                if delivers {
                    continuity.require()?;
                    seen = witnesses::look(tx, &continuity).await?;
                    continuity.require()?;
                }
                if let Some((lease, duration)) = &under {
                    leases::keep(tx, lease, *duration, now).await?;
                }
                if let Some(lease) = &lease {
                    leases::check(tx, lease, now).await?;
                }
                if let Some(request) = &request
                    && let Some(before) = begin_request(tx, request, now).await?
                    && keep == Keep::Outcome
                {
                    let before = before.ok_or_else(|| {
                        StoreError::Conflict(format!(
                            "request id {} belongs to another kind of call",
                            request.id
                        ))
                    })?;
                    return Ok((before, None, seen));
                }
                let Done { outcome, audited } = body(tx, now).await?;
                let mut last = None;
                if audited {
                    let events = events.take()?(&outcome);
                    audit::insert(tx, &events).await?;
                    last = events.last().map(|event| event.id);
                }
                if let Some(request) = &request
                    && keep == Keep::Outcome
                {
                    end_request(tx, request, &outcome).await?;
                }
                Ok((outcome, last, seen))
            })
        })
        .await;
    let (outcome, last, seen) = changed?;
    if let Some(event) = last {
        noting.committed(event, &seen);
    }
    Ok(outcome)
}

/// Notes the request. If it was made before: its outcome, if one is kept and is a `T`.
#[allow(clippy::option_option, reason = "new, made before, made before with an outcome")]
async fn begin_request<T: DeserializeOwned>(
    tx: &mut Connection,
    request: &RequestKey,
    now: Timestamp,
) -> Result<Option<Option<T>>> {
    let inserted = query(
        "INSERT INTO requests (caller, request_id, body, created_at) VALUES ($1, $2, $3, $4)
         ON CONFLICT (caller, request_id) DO NOTHING",
    )
    .bind(&request.caller.0)
    .bind(request.id.0.as_bytes().as_slice())
    .bind(request.body.0.as_slice())
    .bind(now.unix_micros())
    .execute(&mut *tx)
    .await?;
    if inserted == 1 {
        return Ok(None);
    }
    let row = query("SELECT body, outcome FROM requests WHERE caller = $1 AND request_id = $2")
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

async fn end_request<T: Serialize>(tx: &mut Connection, request: &RequestKey, outcome: &T) -> Result<()> {
    let json = serde_json::to_string(outcome)
        .map_err(|e| StoreError::Unusable(format!("the outcome of a request cannot be written: {e}")))?;
    query("UPDATE requests SET outcome = $1 WHERE caller = $2 AND request_id = $3")
        .bind(json)
        .bind(&request.caller.0)
        .bind(request.id.0.as_bytes().as_slice())
        .execute(tx)
        .await?;
    Ok(())
}

/// Forgets requests that were made long before, and brokers that showed themselves last before then; says how many
/// requests.
pub(super) async fn forget_requests(tx: &mut Connection, now: Timestamp) -> Result<u64> {
    let before = now.minus(REQUEST_MEMORY);
    leases::forget_presences(&mut *tx, before).await?;
    query("DELETE FROM requests WHERE created_at < $1").bind(before.unix_micros()).execute(tx).await
}
