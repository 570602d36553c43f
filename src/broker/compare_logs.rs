//! What a recovery finds: how far the database and the mirrors of its log agree, what the mirrors say beyond, and what of it
//! cannot be believed.

use crate::audit::chain::StoredEvent;
use crate::audit::details::LogSide;
use crate::audit::export::ExportError;
use crate::audit::genesis;
use crate::audit::lost::Lost;
use crate::audit::mirror::{Mirror, Position};
use crate::audit::mirror_rows::{MirrorRow, MirrorRows};
use crate::broker::notes::tell_unreadable;
use crate::broker::recover::{BATCH, DEALT_WITH, NOTES_DEALT_WITH};
use crate::broker::{Broker, BrokerError};
use crate::nfv::Sha256Hash;
use crate::store::records::AuditQuery;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use uuid::Uuid;

/// Mirrors by the origin of their log.
type ByLog = BTreeMap<String, Vec<(Position, Mirror)>>;

/// How far database and mirror go, and what the mirror says beyond.
pub(super) struct Comparison {
    pub(super) database: LogSide,
    pub(super) mirror: Option<LogSide>,
    pub(super) common: u64,
    /// How far every mirror goes that there is or that was seen to, by origin.
    pub(super) logs: BTreeMap<String, Vec<LogSide>>,
    pub(super) lost: Lost,
    /// What the database delivered that one of the mirrors of its log goes on without.
    pub(super) forked: Lost,
    /// A sentence on each mirror that has rows that do not verify.
    pub(super) damage: Vec<String>,
    /// Events that are in `lost`: mirrors of one log that differ may begin alike.
    read: HashSet<Uuid>,
    /// Deliveries of `lost` that were noted and that no mirror has.
    pub(super) noted: u64,
    /// Events of all notes that the database does not know, those that earlier recoveries saw to with them.
    pub(super) notes: BTreeSet<Uuid>,
}

/// What the database and one mirror of its log have both.
#[derive(Default)]
struct Both {
    /// Leading events that are chained alike.
    alike: u64,
    /// Events that the mirror has beyond those and the database knows.
    mirrored: HashSet<Uuid>,
}

impl Comparison {
    /// Rows whose content is not known, or not in full.
    pub(super) fn unreadable(&self) -> u64 {
        self.lost.unreadable + self.forked.unreadable
    }
}

impl Broker {
    /// Holds what every mirror says, of this log and of those that were put aside, unless an earlier recovery of this database
    /// saw to them, against the events that the database has.
    pub(super) async fn compare_logs(&self, origin: &str) -> Result<Comparison, BrokerError> {
        let tip = self.store.chain_tip().await?;
        let database = LogSide { size: tip.size, hash: tip.hash.unwrap_or_else(|| genesis(origin)) };
        // What an earlier recovery of this database saw to is not seen to again: VNFCIs have gone on since.
        let dealt_with: BTreeMap<String, Vec<LogSide>> = self.noted(DEALT_WITH).await?.unwrap_or_default();
        let mut comparison = Comparison {
            database,
            mirror: None,
            common: 0,
            logs: dealt_with.clone(),
            lost: Lost::default(),
            forked: Lost::default(),
            damage: Vec::new(),
            read: HashSet::new(),
            noted: 0,
            notes: self.noted(NOTES_DEALT_WITH).await?.unwrap_or_default(),
        };
        // In the order in which the logs were begun: their origins are UUIDs of version 7.
        let (logs, without_rows) = by_log(self.mirror.files().with_archives().map_err(unreadable)?)?;
        for (of, mirrors) in logs {
            let of_this_log = of == origin;
            for (place, (position, mirror)) in mirrors.iter().enumerate() {
                let side = LogSide { size: position.size, hash: position.hash };
                if of_this_log && place == 0 {
                    comparison.mirror = Some(side.clone());
                }
                let seen = comparison.logs.entry(of.clone()).or_default();
                if !seen.contains(&side) {
                    seen.push(side.clone());
                }
                let seen_to =
                    !of_this_log && dealt_with.get(&of).is_some_and(|earlier| earlier.contains(&side));
                if seen_to || is_copy(position, &mirrors[..place])? {
                    continue;
                }
                let both = self.read_mirror(&mut comparison, mirror, position.clone(), of_this_log).await?;
                // Without a mirror of this log nothing says what of the database is beyond it.
                if of_this_log {
                    self.read_fork(&mut comparison.forked, &both).await?;
                }
            }
            // What is noted comes after what was mirrored.
            self.read_notes(&mut comparison, mirrors.iter().map(|(_, mirror)| mirror)).await?;
        }
        self.read_notes(&mut comparison, without_rows.iter()).await?;
        Ok(comparison)
    }

    /// What was delivered and not mirrored any more.
    async fn read_notes(
        &self,
        comparison: &mut Comparison,
        mirrors: impl Iterator<Item = &Mirror>,
    ) -> Result<(), BrokerError> {
        let mut notes = Vec::new();
        for mirror in mirrors {
            let found = mirror.notes().map_err(unreadable)?;
            tell_unreadable(&found);
            notes.extend(found.notes);
        }
        notes.sort_by_key(|note| (note.event.time, note.event.id));
        let known = self.store.known_events(notes.iter().map(|note| note.event.id).collect()).await?;
        for note in notes.iter().filter(|note| !known.contains(&note.event.id)) {
            let is_new = comparison.notes.insert(note.event.id);
            if is_new && comparison.read.insert(note.event.id) {
                comparison.lost.noted(note);
                comparison.noted += 1;
            }
        }
        Ok(())
    }

    async fn read_mirror(
        &self,
        comparison: &mut Comparison,
        mirror: &Mirror,
        position: Position,
        of_this_log: bool,
    ) -> Result<Both, BrokerError> {
        let mut both = Both::default();
        let mut rows = MirrorRows::open(mirror, position).map_err(unreadable)?;
        let (mut agree, mut alike) = (of_this_log, of_this_log);
        let (mut damaged, mut first) = (0, None);
        loop {
            // At most as many places as rows, so that one query has what the database has there.
            let mut batch: Vec<MirrorRow> = Vec::new();
            while batch.len() < BATCH as usize && !batch.last().is_some_and(MirrorRow::is_gap) {
                let Some(row) = rows.next() else { break };
                batch.push(row.map_err(unreadable)?);
            }
            let Some(begin) = batch.first().map(MirrorRow::index) else { break };
            let ids = batch.iter().filter_map(MirrorRow::entry).map(|row| row.event.id).collect();
            let known = self.store.known_events(ids).await?;
            let chained = if alike { self.chained_from(begin).await? } else { HashMap::new() };
            for row in batch {
                let is_known = row.entry().is_some_and(|row| known.contains(&row.event.id));
                let is_alike =
                    row.entry().is_some_and(|entry| chained.get(&row.index()) == Some(&entry.hash));
                match row {
                    MirrorRow::Sound(row) => {
                        agree &= is_known;
                        if agree {
                            comparison.common = comparison.common.max(row.index + 1);
                        }
                        alike &= is_alike;
                        if alike {
                            both.alike = row.index + 1;
                        }
                        if !is_known && comparison.read.insert(row.event.id) {
                            comparison.lost.row(&row);
                        }
                        // Also of what a backup caught before it was chained.
                        if is_known && of_this_log && !alike {
                            both.mirrored.insert(row.event.id);
                        }
                    }
                    // The rows after it say whether the logs are alike there.
                    MirrorRow::Damaged(row) => {
                        damaged += row.rows.max(1);
                        first.get_or_insert(format!("row {}: {}", row.index, row.problem));
                        let event = row.entry.map(|entry| entry.event).filter(|_| !is_known && !is_alike);
                        comparison.lost.damaged(row.rows.max(1), event.as_ref());
                    }
                }
            }
        }
        comparison.damage.extend(first.map(|first| {
            format!(
                "the mirror in {} has {damaged} rows that do not verify, the first is {first}",
                mirror.directory().display()
            )
        }));
        Ok(both)
    }

    /// The chain's hashes by index, of one batch.
    async fn chained_from(&self, index: u64) -> Result<HashMap<u64, Sha256Hash>, BrokerError> {
        let query = AuditQuery { from_index: index, limit: BATCH, ..AuditQuery::default() };
        let rows = self.store.audit_entries(&query).await?;
        Ok(rows.into_iter().map(|row| (row.index, row.hash)).collect())
    }

    /// What was delivered by the database as it was put back, before it was noticed.
    async fn read_fork(&self, forked: &mut Lost, both: &Both) -> Result<(), BrokerError> {
        let mut read = |json: &str| {
            let event: StoredEvent =
                serde_json::from_str(json).map_err(|error| BrokerError::Internal(error.to_string()))?;
            if !both.mirrored.contains(&event.id) {
                forked.delivery(&event);
            }
            Ok::<(), BrokerError>(())
        };
        let mut next = both.alike;
        loop {
            let query = AuditQuery { from_index: next, limit: BATCH, ..AuditQuery::default() };
            let rows = self.store.audit_entries(&query).await?;
            let Some(last) = rows.last() else { break };
            next = last.index + 1;
            rows.iter().try_for_each(|row| read(&row.json))?;
        }
        let (waiting, _) = self.store.unchained_events(u32::MAX >> 1).await?;
        waiting.iter().try_for_each(|waiting| read(&waiting.json))
    }
}

/// The mirrors of each log, first the one that goes furthest; and those that have no rows yet.
fn by_log(mirrors: Vec<Mirror>) -> Result<(ByLog, Vec<Mirror>), BrokerError> {
    let (mut logs, mut without_rows) = (ByLog::new(), Vec::new());
    for mirror in mirrors {
        match mirror.position().map_err(unreadable)? {
            Some(position) => logs.entry(position.origin.clone()).or_default().push((position, mirror)),
            None => without_rows.push(mirror),
        }
    }
    for mirrors in logs.values_mut() {
        mirrors.sort_by_key(|(position, _)| Reverse(position.size));
    }
    Ok((logs, without_rows))
}

/// Whether one of these mirrors of a log, which go at least as far, has all that the one with this position has. They differ
/// where a database and its mirror were put back both, and went on beside a copy of the mirror that tells of more.
fn is_copy(position: &Position, mirrors: &[(Position, Mirror)]) -> Result<bool, BrokerError> {
    for (longer, mirror) in mirrors {
        let rows = MirrorRows::open(mirror, longer.clone()).map_err(unreadable)?;
        if rows.lead_to(position).map_err(unreadable)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn unreadable(error: ExportError) -> BrokerError {
    BrokerError::Precondition(error.to_string())
}
