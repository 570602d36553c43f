//! Statements that both databases run: text, values, rows.
//!
//! The text is written once, in the SQL that both understand. What differs is here: values are numbered where PostgreSQL
//! wants them so, locking clauses are left out where SQLite, which has one writer, has none, and several parts travel
//! together where the protocol allows it.

use super::connection::{Connection, Handle};
use super::error::unreadable;
use crate::clock::Timestamp;
use crate::nfv::Sha256Hash;
use crate::store::Result;
use crate::store::postgres::answered;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{Arguments, AssertSqlSafe, Row as _};
use std::fmt::{Display, Write};
use std::str::FromStr;
use uuid::Uuid;

/// Longest text of a statement that is kept prepared: those of a claim are, those of a bulk change are not. Each
/// number of rows makes a text of its own, and a prepared one of a thousand rows holds hundreds of kilobytes.
const KEPT: usize = 4096;

/// A value to be bound.
#[derive(Debug, Clone)]
pub(super) enum Value {
    /// A BIGINT or NULL.
    Int(Option<i64>),
    /// A TEXT or NULL.
    Text(Option<String>),
    /// A BLOB (PostgreSQL: BYTEA) or NULL.
    Bytes(Option<Vec<u8>>),
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(Some(value))
    }
}

impl From<Option<i64>> for Value {
    fn from(value: Option<i64>) -> Self {
        Self::Int(value)
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Text(Some(value))
    }
}

impl From<&String> for Value {
    fn from(value: &String) -> Self {
        Self::Text(Some(value.clone()))
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(Some(value.to_owned()))
    }
}

impl From<Option<&str>> for Value {
    fn from(value: Option<&str>) -> Self {
        Self::Text(value.map(str::to_owned))
    }
}

impl From<Vec<u8>> for Value {
    fn from(value: Vec<u8>) -> Self {
        Self::Bytes(Some(value))
    }
}

impl From<Option<Vec<u8>>> for Value {
    fn from(value: Option<Vec<u8>>) -> Self {
        Self::Bytes(value)
    }
}

impl From<&[u8]> for Value {
    fn from(value: &[u8]) -> Self {
        Self::Bytes(Some(value.to_vec()))
    }
}

impl From<Option<&[u8]>> for Value {
    fn from(value: Option<&[u8]>) -> Self {
        Self::Bytes(value.map(<[u8]>::to_vec))
    }
}

/// One or more SQL statements with their values. Built ones have `?` for each value, in order; those of one fixed text
/// number them `$1`, `$2`, so that one may stand twice.
pub(super) struct Statement {
    parts: Vec<Part>,
}

struct Part {
    sql: String,
    values: Vec<Value>,
    /// What PostgreSQL locks, at the end of the text.
    lock: &'static str,
}

/// A statement of one fixed text.
pub(super) fn query(sql: &'static str) -> Statement {
    Statement::new(sql)
}

impl Statement {
    /// Begins with this text.
    pub(super) fn new(sql: &str) -> Self {
        Self { parts: vec![Part::new(sql)] }
    }

    /// The part that is being written.
    fn last(&mut self) -> &mut Part {
        if self.parts.is_empty() {
            self.parts.push(Part::new(""));
        }
        let last = self.parts.len() - 1;
        &mut self.parts[last]
    }

    /// Appends text. Never anything that came from outside: that is bound.
    pub(super) fn push(&mut self, sql: impl Display) -> &mut Self {
        // Writing to a string does not fail.
        let _ = write!(self.last().sql, "{sql}");
        self
    }

    /// Appends a value.
    pub(super) fn push_bind(&mut self, value: impl Into<Value>) -> &mut Self {
        let part = self.last();
        part.sql.push('?');
        part.values.push(value.into());
        self
    }

    /// Binds the next numbered value.
    pub(super) fn bind(mut self, value: impl Into<Value>) -> Self {
        self.last().values.push(value.into());
        self
    }

    /// Another statement after this one, run with it.
    pub(super) fn then(&mut self, sql: &str) -> &mut Self {
        if self.parts.last().is_some_and(|part| !part.sql.is_empty()) {
            self.parts.push(Part::new(sql));
            return self;
        }
        self.push(sql)
    }

    /// The rows found are locked until the transaction ends, where the database lets others write meanwhile. The clause
    /// is PostgreSQL's, e.g. `FOR UPDATE OF v`.
    pub(super) fn locking(mut self, clause: &'static str) -> Self {
        self.lock(clause);
        self
    }

    /// As [`Statement::locking`].
    pub(super) fn lock(&mut self, clause: &'static str) -> &mut Self {
        self.last().lock = clause;
        self
    }

    /// `VALUES (...), (...)`, one for each row.
    pub(super) fn push_values<I: IntoIterator>(
        &mut self,
        rows: I,
        mut write: impl FnMut(Tuple<'_>, I::Item),
    ) -> &mut Self {
        self.push("VALUES ");
        for (place, row) in rows.into_iter().enumerate() {
            self.push(if place == 0 { "(" } else { ", (" });
            write(Tuple { statement: self, first: true }, row);
            self.push(")");
        }
        self
    }

    /// Runs it; says how many rows were changed.
    pub(super) async fn execute(&mut self, tx: &mut Connection) -> Result<u64> {
        let outcome = match tx.handle() {
            Handle::Sqlite(connection) => {
                let (sql, arguments, kept) = self.for_sqlite()?;
                let query = sqlx::query_with(AssertSqlSafe(sql), arguments).persistent(kept);
                query.execute(connection).await.map(|done| done.rows_affected())
            }
            Handle::Postgres(connection, silence) => {
                let mut rows = 0;
                let mut outcome = Ok(());
                for part in &mut self.parts {
                    let (sql, arguments, kept) = part.for_postgres()?;
                    let query = sqlx::query_with(AssertSqlSafe(sql), arguments).persistent(kept);
                    match answered(silence, query.execute(&mut *connection)).await {
                        Ok(done) => rows += done.rows_affected(),
                        Err(error) => {
                            outcome = Err(error);
                            break;
                        }
                    }
                }
                outcome.map(|()| rows)
            }
        };
        outcome.map_err(|error| tx.note(error))
    }

    /// All rows.
    pub(super) async fn fetch_all(&mut self, tx: &mut Connection) -> Result<Vec<Row>> {
        let outcome = match tx.handle() {
            Handle::Sqlite(connection) => {
                let (sql, arguments, kept) = self.for_sqlite()?;
                let query = sqlx::query_with(AssertSqlSafe(sql), arguments).persistent(kept);
                query.fetch_all(connection).await.map(|rows| rows.into_iter().map(Row::Sqlite).collect())
            }
            Handle::Postgres(connection, silence) => {
                let (sql, arguments, kept) = self.last().for_postgres()?;
                let query = sqlx::query_with(AssertSqlSafe(sql), arguments).persistent(kept);
                let rows = answered(silence, query.fetch_all(connection)).await;
                rows.map(|rows| rows.into_iter().map(Row::Postgres).collect())
            }
        };
        outcome.map_err(|error| tx.note(error))
    }

    /// The first row, if there is one.
    pub(super) async fn fetch_optional(&mut self, tx: &mut Connection) -> Result<Option<Row>> {
        Ok(self.fetch_all(tx).await?.into_iter().next())
    }

    /// The row of a statement that always has one.
    pub(super) async fn fetch_one(&mut self, tx: &mut Connection) -> Result<Row> {
        self.fetch_optional(tx).await?.ok_or_else(|| unreadable(&"no row"))
    }

    /// Text and values for SQLite, which takes several statements at once.
    fn for_sqlite(&mut self) -> Result<(String, SqliteArguments, bool)> {
        let mut sql = String::new();
        let mut arguments = SqliteArguments::default();
        for part in &mut self.parts {
            if !sql.is_empty() {
                sql.push_str("; ");
            }
            sql.push_str(&part.sql);
            for value in part.values.drain(..) {
                match value {
                    Value::Int(value) => arguments.add(value),
                    Value::Text(value) => arguments.add(value),
                    Value::Bytes(value) => arguments.add(value),
                }
                .map_err(|error| unreadable(&error))?;
            }
        }
        let kept = sql.len() <= KEPT;
        Ok((sql, arguments, kept))
    }

    /// The text as SQLite gets it, for its explanation.
    #[cfg(test)]
    pub(super) fn explained(mut self) -> Self {
        self.parts[0].sql.insert_str(0, "EXPLAIN QUERY PLAN ");
        self
    }
}

impl Part {
    fn new(sql: &str) -> Self {
        Self { sql: sql.to_owned(), values: Vec::new(), lock: "" }
    }

    /// Text and values for PostgreSQL.
    fn for_postgres(&mut self) -> Result<(String, PgArguments, bool)> {
        let mut sql = String::with_capacity(self.sql.len() + 3 * self.values.len() + 20);
        for (place, text) in self.sql.split('?').enumerate() {
            if place > 0 {
                // Writing to a string does not fail.
                let _ = write!(sql, "${place}");
            }
            sql.push_str(text);
        }
        if !self.lock.is_empty() {
            sql.push(' ');
            sql.push_str(self.lock);
        }
        let mut arguments = PgArguments::default();
        for value in self.values.drain(..) {
            match value {
                Value::Int(value) => arguments.add(value),
                Value::Text(value) => arguments.add(value),
                Value::Bytes(value) => arguments.add(value),
            }
            .map_err(|error| unreadable(&error))?;
        }
        let kept = sql.len() <= KEPT;
        Ok((sql, arguments, kept))
    }
}

/// The values of one row of [`Statement::push_values`].
pub(super) struct Tuple<'s> {
    statement: &'s mut Statement,
    first: bool,
}

impl Tuple<'_> {
    fn separate(&mut self) {
        if !std::mem::take(&mut self.first) {
            self.statement.push(", ");
        }
    }

    /// A value.
    pub(super) fn push_bind(&mut self, value: impl Into<Value>) -> &mut Self {
        self.separate();
        self.statement.push_bind(value);
        self
    }

    /// Text.
    pub(super) fn push(&mut self, sql: impl Display) -> &mut Self {
        self.separate();
        self.statement.push(sql);
        self
    }
}

/// A row. Every method fails with `Unusable` if the column holds something else.
pub(super) enum Row {
    /// Of SQLite.
    Sqlite(SqliteRow),
    /// Of PostgreSQL.
    Postgres(PgRow),
}

macro_rules! column {
    ($row:ident, $column:ident) => {
        match $row {
            Row::Sqlite(row) => Ok(row.try_get($column)?),
            Row::Postgres(row) => Ok(row.try_get($column)?),
        }
    };
}

impl Row {
    /// A BLOB.
    pub(super) fn blob(&self, column: &str) -> Result<Vec<u8>> {
        column!(self, column)
    }

    /// A BLOB or NULL.
    pub(super) fn blob_or_null(&self, column: &str) -> Result<Option<Vec<u8>>> {
        column!(self, column)
    }

    /// A TEXT.
    pub(super) fn text(&self, column: &str) -> Result<String> {
        column!(self, column)
    }

    /// A TEXT or NULL.
    pub(super) fn text_or_null(&self, column: &str) -> Result<Option<String>> {
        column!(self, column)
    }

    /// A BIGINT.
    pub(super) fn int(&self, column: &str) -> Result<i64> {
        column!(self, column)
    }

    /// A BIGINT or NULL.
    pub(super) fn int_or_null(&self, column: &str) -> Result<Option<i64>> {
        column!(self, column)
    }

    /// A 16-byte BLOB.
    pub(super) fn uuid(&self, column: &str) -> Result<Uuid> {
        Uuid::from_slice(&self.blob(column)?).map_err(|e| unreadable(&e))
    }

    /// A 16-byte BLOB or NULL.
    pub(super) fn uuid_or_null(&self, column: &str) -> Result<Option<Uuid>> {
        self.blob_or_null(column)?.map(|b| Uuid::from_slice(&b).map_err(|e| unreadable(&e))).transpose()
    }

    /// A 32-byte BLOB.
    pub(super) fn hash(&self, column: &str) -> Result<Sha256Hash> {
        Sha256Hash::try_from(self.blob(column)?.as_slice()).map_err(|e| unreadable(&e))
    }

    /// A 32-byte BLOB or NULL.
    pub(super) fn hash_or_null(&self, column: &str) -> Result<Option<Sha256Hash>> {
        let bytes = self.blob_or_null(column)?;
        bytes.map(|b| Sha256Hash::try_from(b.as_slice()).map_err(|e| unreadable(&e))).transpose()
    }

    /// Microseconds.
    pub(super) fn time(&self, column: &str) -> Result<Timestamp> {
        self.int(column).map(Timestamp::from_unix_micros)
    }

    /// Microseconds or NULL.
    pub(super) fn time_or_null(&self, column: &str) -> Result<Option<Timestamp>> {
        Ok(self.int_or_null(column)?.map(Timestamp::from_unix_micros))
    }

    /// A name or a state.
    pub(super) fn parsed<T: FromStr<Err: Display>>(&self, column: &str) -> Result<T> {
        self.text(column)?.parse().map_err(|e| unreadable(&e))
    }

    /// A name or a state, or NULL.
    pub(super) fn parsed_or_null<T: FromStr<Err: Display>>(&self, column: &str) -> Result<Option<T>> {
        self.text_or_null(column)?.map(|text| text.parse().map_err(|e| unreadable(&e))).transpose()
    }

    /// A number that is not negative.
    pub(super) fn number<T: TryFrom<i64, Error: Display>>(&self, column: &str) -> Result<T> {
        T::try_from(self.int(column)?).map_err(|e| unreadable(&e))
    }
}
