//! How lists of values are written into statements.

use super::statement::{Statement, Value};
use uuid::Uuid;

/// Rows per statement of a bulk change: keeps every statement far below SQLite's 32,766 and PostgreSQL's
/// 65,535 parameters.
pub(super) const CHUNK: usize = 500;

/// The state of a credential whose row is found by its id. As an expression, so that no database thinks of reading a whole
/// partial index of that state instead: PostgreSQL does while it has no statistics.
pub(super) const STATE_OF_ROW: &str = "COALESCE(key_state, '')";

/// A count for a BIGINT column. Saturates: nothing here counts to 2^63.
pub(super) fn bigint(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Writes `(?, ?, ...)` with the identifiers bound. An empty list gives `(NULL)`, which nothing is in.
pub(super) fn id_list<'i>(sql: &mut Statement, ids: impl IntoIterator<Item = &'i Uuid>) {
    sql.push("(NULL");
    for id in ids {
        sql.push(", ");
        sql.push_bind(id.as_bytes().as_slice());
    }
    sql.push(")");
}

/// Writes `(?, ?, ...)` with the row numbers bound.
pub(super) fn number_list<'i>(sql: &mut Statement, numbers: impl IntoIterator<Item = &'i i64>) {
    sql.push("(NULL");
    for number in numbers {
        sql.push(", ");
        sql.push_bind(*number);
    }
    sql.push(")");
}

/// Writes `(?, ?, ...)` with the texts bound.
pub(super) fn text_list<'i>(sql: &mut Statement, texts: impl IntoIterator<Item = &'i str>) {
    sql.push("(NULL");
    for text in texts {
        sql.push(", ");
        sql.push_bind(text);
    }
    sql.push(")");
}

/// Writes `CASE column WHEN ? THEN ? ... END` with the pairs bound: one value per row in one UPDATE. (With
/// `UPDATE ... FROM (VALUES ...)` SQLite may read the whole table once per pair.)
pub(super) fn value_by_id<'i, V: Into<Value>>(
    sql: &mut Statement,
    column: &str,
    pairs: impl IntoIterator<Item = (&'i Uuid, V)>,
) {
    sql.push("CASE ").push(column);
    for (id, value) in pairs {
        sql.push(" WHEN ").push_bind(id.as_bytes().as_slice()).push(" THEN ").push_bind(value);
    }
    sql.push(" END");
}
