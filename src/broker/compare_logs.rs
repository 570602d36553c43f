//! What a recovery finds: how far the database and the mirrors of its log agree, what the mirrors say beyond, and what of it
//! cannot be believed.

use crate::audit::chain::StoredEvent;
use crate::audit::details::LogSide;
use crate::audit::export::ExportError;
use crate::audit::genesis;
use crate::audit::lost::Lost;
use crate::audit::mirror::{Mirror, Position};
use crate::audit::mirror_rows::{MirrorRow, MirrorRows};
use crate::broker::recover::{BATCH, DEALT_WITH};
use crate::broker::{Broker, BrokerError};
use crate::nfv::Sha256Hash;
use crate::store::records::AuditQuery;
use std::collections::{BTreeMap, HashMap, HashSet};
use uuid::Uuid;

/// How far database and mirror go, and what the mirror says beyond.
pub(super) struct Comparison {
    pub(super) database: LogSide,
    pub(super) mirror: Option<LogSide>,
    pub(super) common: u64,
    /// Leading events that both have chained alike.
    alike: u64,
    /// Of every mirror that there is, and of those that were seen to, by origin.
    pub(super) logs: BTreeMap<String, LogSide>,
    pub(super) lost: Lost,
    /// What the database delivered after the last row that both have alike, and the mirror does not know.
    pub(super) forked: Lost,
    /// A sentence on each mirror that has rows that do not verify.
    pub(super) damage: Vec<String>,
    /// Events that the mirror of this log has beyond [`Comparison::alike`] and the database knows.
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
        let dealt_with: BTreeMap<String, LogSide> = self.noted(DEALT_WITH).await?.unwrap_or_default();
        let mut comparison = Comparison {
            database,
            mirror: None,
            common: 0,
            alike: 0,
            logs: dealt_with.clone(),
            lost: Lost::default(),
            forked: Lost::default(),
            damage: Vec::new(),
            mirrored: HashSet::new(),
        };
        // In the order in which the logs were begun: their origins are UUIDs of version 7.
        for (position, mirror) in longest(self.mirror.files().with_archives().map_err(unreadable)?)? {
            let of_this_log = position.origin == origin;
            let side = LogSide { size: position.size, hash: position.hash };
            if of_this_log {
                comparison.mirror = Some(side.clone());
            } else if dealt_with.get(&position.origin).is_some_and(|seen| covers(seen, &side)) {
                continue;
            }
            comparison.logs.insert(position.origin.clone(), side);
            self.read_mirror(&mut comparison, &mirror, position, of_this_log).await?;
        }
        // Without a mirror of this log nothing says what of the database is beyond it.
        if comparison.mirror.is_some() {
            self.read_fork(&mut comparison).await?;
        }
        Ok(comparison)
    }

    async fn read_mirror(
        &self,
        comparison: &mut Comparison,
        mirror: &Mirror,
        position: Position,
        of_this_log: bool,
    ) -> Result<(), BrokerError> {
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
                            comparison.common = row.index + 1;
                        }
                        alike &= is_alike;
                        if alike {
                            comparison.alike = row.index + 1;
                        }
                        if !is_known {
                            comparison.lost.row(&row);
                        }
                        // Also of what a backup caught before it was chained.
                        if is_known && of_this_log && !alike {
                            comparison.mirrored.insert(row.event.id);
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
        Ok(())
    }

    /// The chain's hashes by index, of one batch.
    async fn chained_from(&self, index: u64) -> Result<HashMap<u64, Sha256Hash>, BrokerError> {
        let query = AuditQuery { from_index: index, limit: BATCH, ..AuditQuery::default() };
        let rows = self.store.audit_entries(&query).await?;
        Ok(rows.into_iter().map(|row| (row.index, row.hash)).collect())
    }

    /// What was delivered by the database as it was put back, before it was noticed.
    async fn read_fork(&self, comparison: &mut Comparison) -> Result<(), BrokerError> {
        let Comparison { forked, mirrored, alike, .. } = comparison;
        let mut read = |json: &str| {
            let event: StoredEvent =
                serde_json::from_str(json).map_err(|error| BrokerError::Internal(error.to_string()))?;
            if !mirrored.contains(&event.id) {
                forked.delivery(&event);
            }
            Ok::<(), BrokerError>(())
        };
        let mut next = *alike;
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

/// The mirror of each log that goes furthest, the first of those that go as far: copies of it may lie beside it.
fn longest(mirrors: Vec<Mirror>) -> Result<Vec<(Position, Mirror)>, BrokerError> {
    let mut longest: BTreeMap<String, (Position, Mirror)> = BTreeMap::new();
    for mirror in mirrors {
        let Some(position) = mirror.position().map_err(unreadable)? else { continue };
        if longest.get(&position.origin).is_none_or(|(known, _)| known.size < position.size) {
            longest.insert(position.origin.clone(), (position, mirror));
        }
    }
    Ok(longest.into_values().collect())
}

/// Whether a log that went so far has what another mirror of it has.
fn covers(seen: &LogSide, side: &LogSide) -> bool {
    side.size < seen.size || side == seen
}

fn unreadable(error: ExportError) -> BrokerError {
    BrokerError::Precondition(error.to_string())
}
