//! What SQLite's errors mean to a caller of the store.

use crate::store::StoreError;
use sqlx::error::ErrorKind;

/// Primary result codes of SQLite (`sqlite3.h`); the extended code's low byte.
mod code {
    pub(super) const BUSY: u32 = 5;
    pub(super) const LOCKED: u32 = 6;
    pub(super) const READ_ONLY: u32 = 8;
    pub(super) const CORRUPT: u32 = 11;
    pub(super) const FULL: u32 = 13;
    pub(super) const NOT_A_DATABASE: u32 = 26;
}

/// The sentence for each unique index that a caller can run into.
const UNIQUE: &[(&str, &str)] = &[
    ("credentials.public_key_sha256", "a credential with the same public key"),
    ("credentials.id", "a credential with the same id"),
    ("credentials.claim_id", "a credential for this slot of the claim"),
    ("certificates.issuer", "a certificate of this issuer with the same serial number"),
    ("certificates.credential", "a certificate of this credential"),
    ("certificates.sha256", "this certificate"),
    ("claims.initial_credential", "an open claim of this initial credential"),
    ("claims.id", "a claim with the same id"),
    ("initial_credentials.id", "an initial credential with the same id"),
    ("initial_credentials.tenant", "an open initial credential that is recognised in the same way"),
    ("epochs.tenant", "an epoch that is being created or open"),
    ("epochs.id", "an epoch with the same id"),
    ("pools.id", "a pool with the same id"),
    ("issuers.id", "an issuer with the same id"),
    ("issuers_generation", "an issuer of the same generation"),
    ("events.id", "an event with the same id"),
    ("event_credentials", "an event that names the same key twice"),
];

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let database = match &error {
            sqlx::Error::Database(database) => database,
            sqlx::Error::ColumnDecode { .. }
            | sqlx::Error::ColumnNotFound(_)
            | sqlx::Error::ColumnIndexOutOfBounds { .. }
            | sqlx::Error::Decode(_) => return unreadable(&error),
            _ => return Self::Unavailable(error.to_string()),
        };
        match database.kind() {
            ErrorKind::UniqueViolation => {
                let message = database.message();
                let known = UNIQUE.iter().find(|(index, _)| message.contains(index));
                return Self::AlreadyExists(
                    known.map_or_else(|| message.to_owned(), |(_, text)| (*text).into()),
                );
            }
            ErrorKind::ForeignKeyViolation => {
                return Self::NotFound(
                    "something that this refers to (a tenant, pool, epoch or issuer)".to_owned(),
                );
            }
            _ => {}
        }
        let primary = database.code().and_then(|code| code.parse::<u32>().ok()).unwrap_or_default() & 0xff;
        let message = database.message().to_owned();
        match primary {
            code::FULL => Self::Full(format!("{message}; make room on its disk or raise its page limit")),
            code::BUSY | code::LOCKED => Self::Unavailable(format!(
                "{message}: another process holds it; only one may use it at a time"
            )),
            code::CORRUPT => Self::Unusable(format!(
                "the database is damaged ({message}): restore a backup as docs/operations.md says"
            )),
            code::NOT_A_DATABASE => Self::Unusable(format!(
                "the file is not a keybroker database ({message}): check store.url in the configuration"
            )),
            code::READ_ONLY => Self::Unusable(format!(
                "the database cannot be written to ({message}): check the owner and mode of the file and its directory"
            )),
            _ => Self::Unavailable(message),
        }
    }
}

/// The database holds something that this program did not write.
pub(super) fn unreadable(what: &dyn std::fmt::Display) -> StoreError {
    StoreError::Unusable(format!(
        "the database holds a value that this program cannot read ({what}): it was changed by hand or by \
         another version; restore a backup as docs/operations.md says"
    ))
}
