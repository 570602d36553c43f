//! What the databases do differently around the same statements.

use super::connection::Connection;
use crate::clock::Timestamp;
use crate::store::Result;
use futures_util::future::BoxFuture;
use std::future::Future;

/// What a database does differently: how its connections are had and what a transaction is.
pub trait Engine: Send + Sync + 'static {
    /// The time that leases and deadlines are held against.
    fn now(&self) -> impl Future<Output = Result<Timestamp>> + Send;

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
