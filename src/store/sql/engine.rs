//! What the databases do differently around the same statements.

use super::connection::Connection;
use crate::clock::Timestamp;
use crate::store::Result;
use crate::store::continuity::Continuity;
use futures_util::future::BoxFuture;
use std::future::Future;
use std::sync::Arc;

/// What a database does differently: how its connections are had and what a transaction is.
pub trait Engine: Send + Sync + 'static {
    /// The time that leases and deadlines are held against.
    fn now(&self) -> impl Future<Output = Result<Timestamp>> + Send;

    /// As [`crate::store::Store::generation`]: none where others commit, too.
    fn generation(&self) -> Option<u64>;

    /// What this process knows of the database that it works on.
    fn continuity(&self) -> &Arc<Continuity>;

    /// Runs `body` in a transaction; its outcome is given out once it is committed. Everything that it did is undone if it
    /// fails or panics. Dropping the future does not undo what was begun. `body` gets the time at which the transaction
    /// began; it runs again, from the beginning, if it lost against another transaction.
    fn change<T, F>(&self, body: F) -> impl Future<Output = Result<T>> + Send
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut Connection, Timestamp) -> BoxFuture<'c, Result<T>> + Clone + Send + 'static;

    /// A connection for one statement that reads.
    fn reader(&self) -> impl Future<Output = Result<Connection>> + Send;

    /// A connection for several statements that read one state.
    fn snapshot(&self) -> impl Future<Output = Result<Connection>> + Send;

    /// Finishes what was begun and lets go of files and connections.
    fn close(&self) -> impl Future<Output = ()> + Send;
}

/// A change with lease, request and events around it: `change!(self, keep, mutation, |tx, now| body)`.
macro_rules! change {
    ($self:ident, $keep:ident, $mutation:ident, |$tx:ident, $now:ident| $body:expr) => {
        $self.noted(
            change::change(&$self.engine, Keep::$keep, $mutation, move |$tx, $now| {
                Box::pin(async move {
                    // Not every change needs to know when it is made.
                    let _ = $now;
                    $body.await.map(Into::into)
                })
            })
            .await,
        )
    };
}

/// A change with nothing around it.
macro_rules! write {
    ($self:ident, |$tx:ident, $now:ident| $body:expr) => {{
        let under = $self.engine.continuity().under();
        let changed = $self.engine.change(move |$tx, $now| {
            Box::pin(async move {
                if let Some((lease, duration)) = &under {
                    crate::store::sql::leases::keep($tx, lease, *duration, $now).await?;
                }
                $body.await
            })
        });
        $self.noted(changed.await)
    }};
}

/// A read by one statement.
macro_rules! read {
    ($self:ident, |$tx:ident| $body:expr) => {{
        let mut connection = $self.engine.reader().await?;
        let $tx = &mut connection;
        $body.await
    }};
}

/// A read by several statements, which see the same state.
macro_rules! snapshot {
    ($self:ident, |$tx:ident| $body:expr) => {{
        let mut snapshot = $self.engine.snapshot().await?;
        let $tx = &mut snapshot;
        let outcome = $body.await;
        snapshot.end().await?;
        outcome
    }};
}

pub(super) use {change, read, snapshot, write};
