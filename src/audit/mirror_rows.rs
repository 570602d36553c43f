//! The rows of a mirror as a recovery reads them: each is held against the chain, as [`super::verify`] does. What does not
//! verify is given with what can still be read of it; rows beyond the position are not read.

use super::chain::{ChainedEntry, genesis};
use super::export::{ExportError, ExportReader};
use super::mirror::{Mirror, Position};
use crate::nfv::Sha256Hash;
use std::io::ErrorKind;

/// What stands at a place of a mirror.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MirrorRow {
    /// The row, which verifies.
    Sound(ChainedEntry),
    /// Not what was written.
    Damaged(Damaged),
}

/// Rows that are not what was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damaged {
    /// The place of the first.
    pub index: u64,
    /// How many.
    pub rows: u64,
    /// What stands there, if that can be read as a row.
    pub entry: Option<ChainedEntry>,
    /// What is wrong.
    pub problem: String,
}

impl MirrorRow {
    /// Its place.
    pub fn index(&self) -> u64 {
        match self {
            Self::Sound(entry) => entry.index,
            Self::Damaged(damaged) => damaged.index,
        }
    }

    /// What stands there, if that can be read.
    pub fn entry(&self) -> Option<&ChainedEntry> {
        match self {
            Self::Sound(entry) => Some(entry),
            Self::Damaged(damaged) => damaged.entry.as_ref(),
        }
    }

    /// Whether it stands for several rows.
    pub fn is_gap(&self) -> bool {
        matches!(self, Self::Damaged(damaged) if damaged.rows > 1)
    }
}

/// Reads the rows of a mirror up to its position, one by one.
#[derive(Debug)]
pub struct MirrorRows {
    /// None once it ended.
    rows: Option<ExportReader>,
    position: Position,
    /// Index that the next row should have.
    expected: u64,
    /// Stated hash of the row before; none where that row could not be read or is missing.
    previous: Option<Sha256Hash>,
    /// A row after a gap that was not given yet.
    held: Option<ChainedEntry>,
}

impl MirrorRows {
    /// Begins at the first row. A file that is gone has none.
    ///
    /// # Errors
    /// [`ExportError::Io`].
    pub fn open(mirror: &Mirror, position: Position) -> Result<Self, ExportError> {
        let rows = match ExportReader::open(mirror.directory()) {
            Ok(rows) => Some(rows),
            Err(ExportError::Io { error, .. }) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let previous = Some(genesis(&position.origin));
        Ok(Self { rows, position, expected: 0, previous, held: None })
    }

    /// Whether they verify up to where another mirror of the log goes, and are those that it goes by.
    ///
    /// # Errors
    /// [`ExportError::Io`].
    pub fn lead_to(self, other: &Position) -> Result<bool, ExportError> {
        let mut last = genesis(&self.position.origin);
        let mut size = 0;
        for row in self {
            if size == other.size {
                break;
            }
            let MirrorRow::Sound(entry) = row? else { return Ok(false) };
            (size, last) = (size + 1, entry.hash);
        }
        Ok((size, last) == (other.size, other.hash))
    }

    fn damaged(&mut self, rows: u64, entry: Option<ChainedEntry>, problem: String) -> MirrorRow {
        let index = self.expected;
        self.expected += rows;
        self.previous = entry.as_ref().map(|entry| entry.hash);
        MirrorRow::Damaged(Damaged { index, rows, entry, problem })
    }

    fn missing(&mut self, until: u64) -> MirrorRow {
        let from = self.expected;
        self.damaged(until - from, None, format!("rows {from} to {} are not there", until - 1))
    }

    /// The row of the next line.
    fn judge(&mut self, entry: ChainedEntry) -> MirrorRow {
        let expected = self.expected;
        let follows = self.previous.is_none_or(|previous| entry.follows(previous));
        if follows && entry.index == expected {
            self.previous = Some(entry.hash);
            self.expected += 1;
            return MirrorRow::Sound(entry);
        }
        let follows = follows && self.previous.is_some();
        if !follows && entry.index > expected {
            let until = entry.index.min(self.position.size);
            self.held = Some(entry);
            return self.missing(until);
        }
        let problem = match entry.index {
            index if index == expected => {
                format!("row {index} does not follow from the row before: one of them was changed")
            }
            index => format!("row {index} stands in the place of row {expected}"),
        };
        if entry.index < expected && !follows {
            // Beside the rows that should be there, and none of them.
            return MirrorRow::Damaged(Damaged { index: expected, rows: 0, entry: Some(entry), problem });
        }
        self.damaged(1, Some(entry), problem)
    }

    /// Whether the last row is the one that the position states.
    fn end(&mut self) -> Option<MirrorRow> {
        self.rows = None;
        let (last, stated) = (self.previous.take()?, self.position.hash);
        (last != stated).then(|| {
            MirrorRow::Damaged(Damaged {
                index: self.position.size,
                rows: 1,
                entry: None,
                problem: format!("the last row has not the hash {stated} that the mirror's position states"),
            })
        })
    }
}

impl Iterator for MirrorRows {
    type Item = Result<MirrorRow, ExportError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.expected >= self.position.size {
            return self.end().map(Ok);
        }
        if let Some(held) = self.held.take() {
            return Some(Ok(self.judge(held)));
        }
        match self.rows.as_mut().and_then(Iterator::next) {
            Some(Ok(entry)) => Some(Ok(self.judge(entry))),
            Some(Err(ExportError::Unreadable { line, problem, .. })) => {
                Some(Ok(self.damaged(1, None, format!("line {line} is no row: {problem}"))))
            }
            Some(Err(error)) => {
                self.expected = self.position.size;
                self.previous = None;
                Some(Err(error))
            }
            None => Some(Ok(self.missing(self.position.size))),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests panic")]

    use super::*;
    use crate::audit::event::{Actor, Event, EventKind};
    use crate::audit::export::EVENTS_FILE;
    use crate::audit::{StoredEvent, next_hash};
    use crate::clock::Timestamp;
    use std::path::Path;

    const ROWS: u64 = 6;

    /// A mirror of six rows, and its lines.
    fn mirror(directory: &Path) -> (Mirror, Position, Vec<String>) {
        let mirror = Mirror::new(directory);
        let empty = Mirror::empty("keybroker/test");
        let mut hash = empty.hash;
        let mut entries = Vec::new();
        for index in 0..ROWS {
            let event = Event::new(Timestamp::from_unix_seconds(1), EventKind::KeysErased, Actor::broker());
            let event = StoredEvent::from(&event.details(serde_json::json!({ "number": index })));
            hash = next_hash(hash, &event);
            entries.push(ChainedEntry { index, event, hash });
        }
        let position = mirror.open_log(&empty).unwrap().append(&empty, &entries).unwrap();
        let text = std::fs::read_to_string(directory.join(EVENTS_FILE)).unwrap();
        (mirror, position, text.lines().map(str::to_owned).collect())
    }

    /// Index, number and whether there is something to read, of what is damaged; and how many rows are sound.
    fn read(mirror: &Mirror, position: &Position, lines: &[String]) -> (u64, Vec<(u64, u64, bool)>) {
        let text = lines.iter().map(|line| format!("{line}\n")).collect::<String>();
        std::fs::write(mirror.directory().join(EVENTS_FILE), text).unwrap();
        let (mut sound, mut damaged) = (0, Vec::new());
        for row in MirrorRows::open(mirror, position.clone()).unwrap() {
            match row.unwrap() {
                MirrorRow::Sound(_) => sound += 1,
                MirrorRow::Damaged(row) => damaged.push((row.index, row.rows, row.entry.is_some())),
            }
        }
        (sound, damaged)
    }

    #[test]
    fn what_lies_beyond_the_position_of_a_mirror_is_not_read() {
        let directory = tempfile::tempdir().unwrap();
        let (mirror, position, mut lines) = mirror(directory.path());
        assert_eq!(read(&mirror, &position, &lines), (6, vec![]));
        let torn = lines[5][..40].to_owned();
        lines.push(torn);
        assert_eq!(read(&mirror, &position, &lines), (6, vec![]));
    }

    #[test]
    fn a_mirror_has_what_a_shorter_one_has_only_if_its_rows_lead_to_it() {
        let directory = tempfile::tempdir().unwrap();
        let (mirror, position, mut lines) = mirror(directory.path());
        let leads = |size: u64, hash| {
            let rows = MirrorRows::open(&mirror, position.clone()).unwrap();
            rows.lead_to(&Position { size, hash, ..position.clone() }).unwrap()
        };
        let row: ChainedEntry = serde_json::from_str(&lines[3]).unwrap();
        assert!(leads(0, genesis(&position.origin)) && leads(4, row.hash) && leads(ROWS, position.hash));
        // Another one that goes as far, and one that goes further.
        assert!(!leads(3, row.hash) && !leads(4, position.hash) && !leads(ROWS + 1, position.hash));
        lines[1] = lines[1].replace("\"number\":1", "\"number\":7");
        assert_eq!(read(&mirror, &position, &lines).1, [(1, 1, true)]);
        assert!(!leads(4, row.hash), "over a row that is damaged");
    }

    #[test]
    fn each_kind_of_damage_to_a_mirror_is_found_and_the_rows_beside_it_are_sound() {
        let directory = tempfile::tempdir().unwrap();
        let (mirror, position, good) = mirror(directory.path());
        let changed = |change: fn(&mut Vec<String>)| {
            let mut lines = good.clone();
            change(&mut lines);
            read(&mirror, &position, &lines)
        };
        let content = changed(|lines| lines[2] = lines[2].replace("\"number\":2", "\"number\":7"));
        assert_eq!(content, (5, vec![(2, 1, true)]));
        let index = changed(|lines| lines[2] = lines[2].replace("\"index\":2", "\"index\":5"));
        assert_eq!(index, (5, vec![(2, 1, true)]));
        assert_eq!(changed(|lines| lines[2] = "garbled".to_owned()), (5, vec![(2, 1, false)]));
        assert_eq!(changed(|lines| drop(lines.drain(2..4))), (4, vec![(2, 2, false)]));
        assert_eq!(changed(|lines| lines.truncate(4)), (4, vec![(4, 2, false)]));
        assert_eq!(
            changed(|lines| lines[5] = lines[5].replace("\"number\":5", "\"number\":7")).1,
            [(5, 1, true)]
        );
        let twice = changed(|lines| lines.insert(3, lines[1].clone()));
        assert_eq!(twice, (6, vec![(3, 0, true)]));
        let other = Position { hash: genesis("another"), ..position.clone() };
        assert_eq!(read(&mirror, &other, &good), (6, vec![(6, 1, false)]));
        std::fs::remove_file(directory.path().join(EVENTS_FILE)).unwrap();
        let gone = MirrorRows::open(&mirror, position).unwrap().map(|row| row.unwrap().is_gap());
        assert_eq!(gone.collect::<Vec<_>>(), [true]);
    }
}
