//! The mirror: an export (see [`super::export`]) that grows with the log, outside the database. `events.jsonl` is appended
//! to and synced, then `position.json` says how far it goes, then `head.json` is replaced: each atomically, so that a crash
//! leaves an export that verifies. Rows beyond the position are cut off when it goes on.

use super::chain::{ChainedEntry, genesis};
use super::export::{EVENTS_FILE, ExportError, HEAD_FILE, io, row};
use super::head::SignedHead;
use crate::nfv::Sha256Hash;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, ErrorKind, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// File that says how far the mirror goes; an export that is no mirror has none.
pub const POSITION_FILE: &str = "position.json";
/// Of a probe whether the mirror can be written to.
const PROBE_BYTES: usize = 16 * 1024;
/// Held while one of several brokers writes.
const LOCK_FILE: &str = "lock";

/// How far a mirror goes: the high-water mark that a database is held against.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// Which log.
    pub origin: String,
    /// Rows.
    pub size: u64,
    /// Bytes of `events.jsonl` with these rows.
    pub bytes: u64,
    /// `h(size - 1)`; of an empty log its genesis.
    pub hash: Sha256Hash,
}

/// A mirror's directory.
#[derive(Debug, Clone)]
pub struct Mirror {
    directory: PathBuf,
}

impl Mirror {
    /// The mirror in `directory`, whether there is one or not.
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    /// Where it is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where the mirror of a log that a recovery ended is kept: `DIRECTORY.ORIGIN`.
    pub fn archived(&self, origin: &str) -> Self {
        let mut name = self.directory.clone().into_os_string();
        name.push(".");
        name.push(origin.replace(['/', '\\'], "-"));
        Self { directory: name.into() }
    }

    /// It and the mirrors of ended logs beside it.
    ///
    /// # Errors
    /// [`ExportError::Io`].
    pub fn with_archives(&self) -> Result<Vec<Self>, ExportError> {
        let mut mirrors = vec![self.clone()];
        let (Some(parent), Some(name)) = (self.directory.parent(), self.directory.file_name()) else {
            return Ok(mirrors);
        };
        let prefix = format!("{}.", name.to_string_lossy());
        for entry in std::fs::read_dir(parent).map_err(|error| io(parent, error))? {
            let entry = entry.map_err(|error| io(parent, error))?;
            if entry.file_name().to_string_lossy().starts_with(&prefix) && entry.path().is_dir() {
                mirrors.push(Self { directory: entry.path() });
            }
        }
        Ok(mirrors)
    }

    /// How far it goes; none if there is none.
    ///
    /// # Errors
    /// [`ExportError`].
    pub fn position(&self) -> Result<Option<Position>, ExportError> {
        let path = self.directory.join(POSITION_FILE);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io(&path, error)),
        };
        serde_json::from_slice(&text).map(Some).map_err(|error| ExportError::Unreadable {
            line: error.line() as u64,
            problem: error.to_string(),
            path,
        })
    }

    /// Makes sure that no other broker writes as long as the file is kept open; none if another does.
    ///
    /// # Errors
    /// [`ExportError::Io`].
    pub fn lock(&self) -> Result<Option<File>, ExportError> {
        std::fs::create_dir_all(&self.directory).map_err(|error| io(&self.directory, error))?;
        let path = self.directory.join(LOCK_FILE);
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let file = file.map_err(|error| io(&path, error))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(std::fs::TryLockError::WouldBlock) => Ok(None),
            Err(std::fs::TryLockError::Error(error)) => Err(io(&path, error)),
        }
    }

    /// Writes something of the size of a few rows, syncs it and removes it: fails where nothing could be appended.
    ///
    /// # Errors
    /// [`ExportError::Io`].
    pub fn probe(&self) -> Result<(), ExportError> {
        std::fs::create_dir_all(&self.directory).map_err(|error| io(&self.directory, error))?;
        let path = self.directory.join(format!("probe.{}", std::process::id()));
        let written = File::create(&path)
            .and_then(|mut file| file.write_all(&[b'\n'; PROBE_BYTES]).and_then(|()| file.sync_all()));
        let removed = std::fs::remove_file(&path);
        written.and(removed).map_err(|error| io(&path, error))
    }

    /// A mirror without rows.
    pub fn empty(origin: &str) -> Position {
        Position { origin: origin.to_owned(), size: 0, bytes: 0, hash: genesis(origin) }
    }

    /// Writes the rows that follow `position`, and syncs them. Gives the position after them, which
    /// [`Mirror::finish`] is to be told.
    ///
    /// # Errors
    /// [`ExportError`].
    pub fn append(&self, position: &Position, entries: &[ChainedEntry]) -> Result<Position, ExportError> {
        let path = self.directory.join(EVENTS_FILE);
        let failed = |error| io(&path, error);
        let mut file =
            OpenOptions::new().create(true).write(true).truncate(false).open(&path).map_err(failed)?;
        if file.metadata().map_err(failed)?.len() < position.bytes {
            let problem = format!("has less than the {} bytes that {POSITION_FILE} states", position.bytes);
            return Err(ExportError::Unreadable { path: path.clone(), line: position.size, problem });
        }
        file.set_len(position.bytes).map_err(failed)?;
        file.seek(SeekFrom::End(0)).map_err(failed)?;
        let mut position = position.clone();
        let mut rows = BufWriter::new(&file);
        for entry in entries {
            let line = row(&path, entry)?;
            rows.write_all(&line).map_err(failed)?;
            position.size = entry.index + 1;
            position.bytes += line.len() as u64;
            position.hash = entry.hash;
        }
        rows.flush().map_err(failed)?;
        drop(rows);
        file.sync_all().map_err(failed)?;
        Ok(position)
    }

    /// States that the rows up to `position` are there, under this head.
    ///
    /// # Errors
    /// [`ExportError::Io`].
    pub fn finish(&self, position: &Position, head: &SignedHead) -> Result<(), ExportError> {
        self.replace(POSITION_FILE, position)?;
        self.replace(HEAD_FILE, head)
    }

    /// Moves it to where the mirror of an ended log is kept.
    ///
    /// # Errors
    /// [`ExportError::Io`].
    pub fn archive(&self, origin: &str) -> Result<Self, ExportError> {
        let archived = self.archived(origin);
        std::fs::rename(&self.directory, &archived.directory).map_err(|error| io(&self.directory, error))?;
        if let Some(parent) = self.directory.parent() {
            File::open(parent).and_then(|parent| parent.sync_all()).map_err(|error| io(parent, error))?;
        }
        Ok(archived)
    }

    fn replace(&self, name: &str, content: &impl Serialize) -> Result<(), ExportError> {
        let path = self.directory.join(name);
        let failed = |error| io(&path, error);
        let new = self.directory.join(format!("{name}.new"));
        let mut text = serde_json::to_vec_pretty(content).map_err(|error| failed(error.into()))?;
        text.push(b'\n');
        let mut file = File::create(&new).map_err(failed)?;
        file.write_all(&text).and_then(|()| file.sync_all()).map_err(failed)?;
        std::fs::rename(&new, &path).map_err(failed)?;
        File::open(&self.directory).and_then(|directory| directory.sync_all()).map_err(failed)
    }
}
