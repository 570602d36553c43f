//! Whether the database has what this process committed last: tables `events` and `marks`.

use super::connection::Connection;
use super::statement::Statement;
use super::value::id_list;
use crate::store::Result;
use crate::store::continuity::Continuity;
use crate::store::records::ROLLED_BACK;
use uuid::Uuid;

/// One statement. Gives the witnesses if all are there, and tells [`Continuity`] otherwise; also if another broker found that
/// the database was rolled back.
pub(super) async fn look(tx: &mut Connection, continuity: &Continuity) -> Result<Vec<Uuid>> {
    let witnesses = continuity.witnesses();
    let mut sql = Statement::new("SELECT (SELECT COUNT(*) FROM events WHERE id IN ");
    id_list(&mut sql, &witnesses);
    sql.push(") AS found, (SELECT value FROM marks WHERE name = ")
        .push_bind(ROLLED_BACK)
        .push(") AS verdict");
    let row = sql.fetch_one(tx).await?;
    let found: u64 = row.number("found")?;
    if found < witnesses.len() as u64 {
        continuity.lost(format!(
            "of the last {} changes that this broker committed it has {found}",
            witnesses.len()
        ));
    }
    if let Some(verdict) = row.text_or_null("verdict")?.filter(|verdict| !verdict.is_empty()) {
        continuity.lost(verdict);
    }
    Ok(witnesses)
}
