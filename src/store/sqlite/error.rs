//! What SQLite's errors mean to a caller of the store.

use crate::store::StoreError;
use sqlx::error::DatabaseError;

/// Primary result codes of SQLite (`sqlite3.h`); the extended code's low byte.
mod code {
    pub(super) const BUSY: u32 = 5;
    pub(super) const LOCKED: u32 = 6;
    pub(super) const READ_ONLY: u32 = 8;
    pub(super) const CORRUPT: u32 = 11;
    pub(super) const FULL: u32 = 13;
    pub(super) const NOT_A_DATABASE: u32 = 26;
}

/// The meaning of an error that is no violated constraint.
pub(in crate::store) fn meaning(error: &dyn DatabaseError) -> StoreError {
    let primary = error.code().and_then(|code| code.parse::<u32>().ok()).unwrap_or_default() & 0xff;
    let message = error.message().to_owned();
    match primary {
        code::FULL => StoreError::Full(format!("{message}; make room on its disk or raise its page limit")),
        code::BUSY | code::LOCKED => StoreError::Unavailable(format!(
            "{message}: another process holds it; only one may use it at a time"
        )),
        code::CORRUPT => StoreError::Unusable(format!(
            "the database is damaged ({message}): restore a backup as docs/operations.md says"
        )),
        code::NOT_A_DATABASE => StoreError::Unusable(format!(
            "the file is not a keybroker database ({message}): check store.url in the configuration"
        )),
        code::READ_ONLY => StoreError::Unusable(format!(
            "the database cannot be written to ({message}): check the owner and mode of the file and its directory"
        )),
        _ => StoreError::Unavailable(message),
    }
}
