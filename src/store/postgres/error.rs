//! What PostgreSQL's errors mean to a caller of the store.

use crate::store::StoreError;
use sqlx::postgres::PgDatabaseError;
use std::io;
use std::time::Duration;

/// SQLSTATE codes (PostgreSQL documentation, appendix A).
mod code {
    pub(super) const SERIALIZATION_FAILURE: &str = "40001";
    pub(super) const DEADLOCK: &str = "40P01";
    pub(super) const LOCK_NOT_AVAILABLE: &str = "55P03";
    pub(super) const QUERY_CANCELED: &str = "57014";
    pub(super) const DISK_FULL: &str = "53100";
    pub(super) const READ_ONLY: &str = "25006";
    pub(super) const INVALID_PASSWORD: &str = "28P01";
    pub(super) const INVALID_AUTHORIZATION: &str = "28000";
    pub(super) const NO_SUCH_DATABASE: &str = "3D000";
    pub(super) const INSUFFICIENT_PRIVILEGE: &str = "42501";
    pub(super) const UNDEFINED_TABLE: &str = "42P01";
}

/// What the server answers, if it does within this time. A machine that is paused or cut off closes no connection: without an
/// end to the waiting, whoever waits would do so until TCP gives up, after a quarter of an hour.
pub(in crate::store) async fn answered<T>(
    silence: Duration,
    answer: impl Future<Output = sqlx::Result<T>>,
) -> sqlx::Result<T> {
    let gone = || Err(io::Error::new(io::ErrorKind::TimedOut, "the database server does not answer").into());
    tokio::time::timeout(silence, answer).await.unwrap_or_else(|_| gone())
}

/// Whether the change lost against another one and may be made again at once.
pub(in crate::store) fn is_passing(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    matches!(code.as_deref(), Some(code::SERIALIZATION_FAILURE | code::DEADLOCK))
}

/// The meaning of an error that is no violated constraint.
pub(in crate::store) fn meaning(error: &PgDatabaseError) -> StoreError {
    // The message names objects and roles, never values; detail and context, which may, are left out.
    let message = error.message();
    match error.code() {
        code::DISK_FULL => StoreError::Full(format!("{message}; make room on the database server's disk")),
        code::LOCK_NOT_AVAILABLE | code::QUERY_CANCELED => StoreError::Unavailable(format!(
            "{message}: it is overloaded or another change holds what this one needs"
        )),
        code::READ_ONLY => {
            StoreError::Unavailable(format!("{message}: it is a standby; connect to the primary server"))
        }
        code::INVALID_PASSWORD | code::INVALID_AUTHORIZATION => StoreError::Unusable(format!(
            "the database refuses us ({message}): check the role in store.url, store.password_file and the server's \
             pg_hba.conf"
        )),
        code::NO_SUCH_DATABASE => StoreError::Unusable(format!(
            "{message}: create it as docs/operations.md says, or correct store.url"
        )),
        code::INSUFFICIENT_PRIVILEGE => StoreError::Unusable(format!(
            "{message}: the role in store.url must own the database's tables, as docs/operations.md says"
        )),
        code::UNDEFINED_TABLE => StoreError::Unusable(format!(
            "the database has lost a table ({message}): restore a backup as docs/operations.md says"
        )),
        // Data corrupted, index corrupted.
        code if code.starts_with("XX") => StoreError::Unusable(format!(
            "the database is damaged ({message}): restore a backup as docs/operations.md says"
        )),
        _ => StoreError::Unavailable(message.to_owned()),
    }
}
