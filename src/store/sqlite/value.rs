//! How the domain's values are read from columns, and how lists of them are written into statements.

use super::error::unreadable;
use crate::clock::Timestamp;
use crate::nfv::Sha256Hash;
use crate::store::Result;
use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{QueryBuilder, Row, Sqlite};
use std::fmt::Display;
use std::str::FromStr;
use uuid::Uuid;

/// Rows per statement of a bulk change: keeps every statement far below SQLite's 32,766 and PostgreSQL's
/// 65,535 parameters.
pub(super) const CHUNK: usize = 500;

/// Longest text of a statement that is kept prepared: those of a claim are, those of a bulk change are not. Each
/// number of rows makes a text of its own, and a prepared one of a thousand rows holds hundreds of kilobytes.
const KEPT: usize = 4096;

/// The built statement, ready to run.
pub(super) fn statement(sql: &mut QueryBuilder<Sqlite>) -> Query<'_, Sqlite, SqliteArguments> {
    let kept = sql.sql().as_str().len() <= KEPT;
    sql.build().persistent(kept)
}

/// Typed access to the columns of a row. Every method fails with `Unusable` if the column holds something
/// else.
pub(super) trait Columns {
    /// A BLOB.
    fn blob(&self, column: &str) -> Result<Vec<u8>>;
    /// A BLOB or NULL.
    fn blob_or_null(&self, column: &str) -> Result<Option<Vec<u8>>>;
    /// A TEXT.
    fn text(&self, column: &str) -> Result<String>;
    /// A TEXT or NULL.
    fn text_or_null(&self, column: &str) -> Result<Option<String>>;
    /// A BIGINT.
    fn int(&self, column: &str) -> Result<i64>;
    /// A BIGINT or NULL.
    fn int_or_null(&self, column: &str) -> Result<Option<i64>>;

    /// A 16-byte BLOB.
    fn uuid(&self, column: &str) -> Result<Uuid> {
        Uuid::from_slice(&self.blob(column)?).map_err(|e| unreadable(&e))
    }

    /// A 16-byte BLOB or NULL.
    fn uuid_or_null(&self, column: &str) -> Result<Option<Uuid>> {
        self.blob_or_null(column)?.map(|b| Uuid::from_slice(&b).map_err(|e| unreadable(&e))).transpose()
    }

    /// A 32-byte BLOB.
    fn hash(&self, column: &str) -> Result<Sha256Hash> {
        Sha256Hash::try_from(self.blob(column)?.as_slice()).map_err(|e| unreadable(&e))
    }

    /// A 32-byte BLOB or NULL.
    fn hash_or_null(&self, column: &str) -> Result<Option<Sha256Hash>> {
        let bytes = self.blob_or_null(column)?;
        bytes.map(|b| Sha256Hash::try_from(b.as_slice()).map_err(|e| unreadable(&e))).transpose()
    }

    /// Microseconds.
    fn time(&self, column: &str) -> Result<Timestamp> {
        self.int(column).map(Timestamp::from_unix_micros)
    }

    /// Microseconds or NULL.
    fn time_or_null(&self, column: &str) -> Result<Option<Timestamp>> {
        Ok(self.int_or_null(column)?.map(Timestamp::from_unix_micros))
    }

    /// A name or a state.
    fn parsed<T: FromStr<Err: Display>>(&self, column: &str) -> Result<T> {
        self.text(column)?.parse().map_err(|e| unreadable(&e))
    }

    /// A name or a state, or NULL.
    fn parsed_or_null<T: FromStr<Err: Display>>(&self, column: &str) -> Result<Option<T>> {
        self.text_or_null(column)?.map(|text| text.parse().map_err(|e| unreadable(&e))).transpose()
    }

    /// A number that is not negative.
    fn number<T: TryFrom<i64, Error: Display>>(&self, column: &str) -> Result<T> {
        T::try_from(self.int(column)?).map_err(|e| unreadable(&e))
    }
}

impl Columns for SqliteRow {
    fn blob(&self, column: &str) -> Result<Vec<u8>> {
        Ok(self.try_get(column)?)
    }
    fn blob_or_null(&self, column: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.try_get(column)?)
    }
    fn text(&self, column: &str) -> Result<String> {
        Ok(self.try_get(column)?)
    }
    fn text_or_null(&self, column: &str) -> Result<Option<String>> {
        Ok(self.try_get(column)?)
    }
    fn int(&self, column: &str) -> Result<i64> {
        Ok(self.try_get(column)?)
    }
    fn int_or_null(&self, column: &str) -> Result<Option<i64>> {
        Ok(self.try_get(column)?)
    }
}

/// A count for a BIGINT column. Saturates: nothing here counts to 2^63.
pub(super) fn bigint(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Writes `(?, ?, ...)` with the identifiers bound. An empty list gives `(NULL)`, which nothing is in.
pub(super) fn id_list<'i>(sql: &mut QueryBuilder<Sqlite>, ids: impl IntoIterator<Item = &'i Uuid>) {
    sql.push("(NULL");
    for id in ids {
        sql.push(", ");
        sql.push_bind(id.as_bytes().as_slice());
    }
    sql.push(")");
}

/// Writes `(?, ?, ...)` with the row numbers bound.
pub(super) fn number_list<'i>(sql: &mut QueryBuilder<Sqlite>, numbers: impl IntoIterator<Item = &'i i64>) {
    sql.push("(NULL");
    for number in numbers {
        sql.push(", ");
        sql.push_bind(*number);
    }
    sql.push(")");
}

/// Writes `(?, ?, ...)` with the texts bound.
pub(super) fn text_list<'i>(sql: &mut QueryBuilder<Sqlite>, texts: impl IntoIterator<Item = &'i str>) {
    sql.push("(NULL");
    for text in texts {
        sql.push(", ");
        sql.push_bind(text);
    }
    sql.push(")");
}

/// Writes `CASE column WHEN ? THEN ? ... END` with the pairs bound: one value per row in one UPDATE. (With
/// `UPDATE ... FROM (VALUES ...)` SQLite may read the whole table once per pair.)
pub(super) fn value_by_id<'i, V>(
    sql: &mut QueryBuilder<Sqlite>,
    column: &str,
    pairs: impl IntoIterator<Item = (&'i Uuid, V)>,
) where
    V: sqlx::Encode<'i, Sqlite> + sqlx::Type<Sqlite>,
{
    sql.push("CASE ").push(column);
    for (id, value) in pairs {
        sql.push(" WHEN ").push_bind(id.as_bytes().as_slice()).push(" THEN ").push_bind(value);
    }
    sql.push(" END");
}
