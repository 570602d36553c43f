//! What a database's errors mean to a caller of the store.

use crate::store::{StoreError, postgres, sqlite};
use sqlx::error::{DatabaseError, ErrorKind};
use sqlx::migrate::Migrator;
use sqlx::postgres::PgDatabaseError;

/// The sentence for each unique index that a caller can run into: its columns as SQLite's message begins them, the index as
/// PostgreSQL names it.
const UNIQUE: &[(&str, &str, &str)] = &[
    ("credentials.public_key_sha256", "credentials_public_key", "a credential with the same public key"),
    ("credentials.id", "credentials_pkey", "a credential with the same id"),
    ("credentials.claim_id", "credentials_claim_slot", "a credential for this slot of the claim"),
    (
        "certificates.issuer",
        "certificates_serial",
        "a certificate of this issuer with the same serial number",
    ),
    ("certificates.credential", "certificates_credential", "a certificate of this credential"),
    ("certificates.sha256", "certificates_sha256", "this certificate"),
    ("claims.initial_credential", "claims_one_open", "an open claim of this initial credential"),
    ("claims.id", "claims_pkey", "a claim with the same id"),
    ("initial_credentials.id", "initial_credentials_pkey", "an initial credential with the same id"),
    (
        "initial_credentials.tenant",
        "initial_credentials_",
        "an open initial credential that is recognised in the same way",
    ),
    ("epochs.tenant", "epochs_one_open", "an epoch that is being created or open"),
    ("epochs.id", "epochs_pkey", "an epoch with the same id"),
    ("pools.id", "pools_pkey", "a pool with the same id"),
    ("pools.tenant", "pools_name", "a pool of the same name"),
    ("identities.name", "identities_pkey", "an identity of the same name"),
    ("identities.fingerprint", "identities_fingerprint", "an identity with the same certificate"),
    ("anchors.", "anchors_", "the same anchor"),
    ("issuers.id", "issuers_pkey", "an issuer with the same id"),
    ("issuers_generation", "issuers_generation", "an issuer of the same generation"),
    ("ca_requests.tenant", "ca_requests_generation", "a request for the same CA key"),
    ("events.id", "events_id", "an event with the same id"),
    ("event_credentials", "event_credentials", "an event that names the same key twice"),
];

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let database = match &error {
            sqlx::Error::Database(database) => database.as_ref(),
            sqlx::Error::ColumnDecode { .. }
            | sqlx::Error::ColumnNotFound(_)
            | sqlx::Error::ColumnIndexOutOfBounds { .. }
            | sqlx::Error::Decode(_) => return unreadable(&error),
            _ => return Self::Unavailable(error.to_string()),
        };
        let of_postgres = database.try_downcast_ref::<PgDatabaseError>();
        match database.kind() {
            ErrorKind::UniqueViolation => Self::AlreadyExists(unique(database)),
            ErrorKind::ForeignKeyViolation => {
                Self::NotFound("something that this refers to (a tenant, pool, epoch or issuer)".to_owned())
            }
            _ => match of_postgres {
                Some(error) => postgres::meaning(error),
                None => sqlite::meaning(database),
            },
        }
    }
}

/// What there is already.
fn unique(database: &dyn DatabaseError) -> String {
    let message = database.message();
    let known = UNIQUE.iter().find(|(columns, index, _)| match database.constraint() {
        Some(constraint) => constraint.starts_with(index),
        None => message.contains(columns),
    });
    known.map_or_else(|| message.to_owned(), |(_, _, text)| (*text).to_owned())
}

/// The database holds something that this program did not write.
pub(in crate::store) fn unreadable(what: &dyn std::fmt::Display) -> StoreError {
    StoreError::Unusable(format!(
        "the database holds a value that this program cannot read ({what}): it was changed by hand or by \
         another version; restore a backup as docs/operations.md says"
    ))
}

/// A schema of this version was made by a newer program.
pub(in crate::store) fn newer(version: i64, place: &str) -> StoreError {
    StoreError::Unusable(format!(
        "{place} has schema version {version}, which is newer than this program's: start the newer keybroker that wrote \
         it, or restore a backup from before the upgrade as docs/operations.md says"
    ))
}

/// Refuses to look at a schema that a newer program made; `applied` is its last migration.
pub(in crate::store) fn refuse_newer(
    migrations: &Migrator,
    applied: Option<i64>,
    place: &str,
) -> Result<(), StoreError> {
    let newest = migrations.iter().map(|migration| migration.version).max();
    match applied {
        Some(version) if Some(version) > newest => Err(newer(version, place)),
        _ => Ok(()),
    }
}
