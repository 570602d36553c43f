//! Whether the database has what this process committed last: tables `events` and `marks`.

use super::connection::Connection;
use super::statement::Statement;
use super::value::id_list;
use crate::store::Result;
use crate::store::continuity::Continuity;
use crate::store::records::{ORIGIN, RECOVERY, ROLLED_BACK};
use uuid::Uuid;

/// One statement. Gives the witnesses if all are there, and tells [`Continuity`] otherwise; also if the log is another one, if
/// a recovery is under way, or if another broker found that the database was rolled back.
pub(super) async fn look(tx: &mut Connection, continuity: &Continuity) -> Result<Vec<Uuid>> {
    let witnesses = continuity.witnesses();
    let mut sql = Statement::new("SELECT (SELECT COUNT(*) FROM events WHERE id IN ");
    id_list(&mut sql, &witnesses);
    sql.push(") AS found");
    for (mark, column) in [(ORIGIN, "origin"), (RECOVERY, "recovery"), (ROLLED_BACK, "verdict")] {
        sql.push(", (SELECT value FROM marks WHERE name = ").push_bind(mark).push(") AS ").push(column);
    }
    let row = sql.fetch_one(tx).await?;
    // Before the first start there is none.
    if let Some(origin) = row.text_or_null("origin")?
        && !continuity.is_of_log(&origin)
    {
        return Ok(witnesses);
    }
    let found: u64 = row.number("found")?;
    if found < witnesses.len() as u64 {
        continuity.lost(format!(
            "of the last {} changes that this broker committed it has {found}",
            witnesses.len()
        ));
    }
    let said = |mark: Option<String>| mark.filter(|sentence| !sentence.is_empty());
    if said(row.text_or_null("recovery")?).is_some() {
        continuity.lost("a recovery was begun and is not finished".to_owned());
    }
    if let Some(verdict) = said(row.text_or_null("verdict")?) {
        continuity.lost(verdict);
    }
    Ok(witnesses)
}
