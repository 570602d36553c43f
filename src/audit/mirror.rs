//! The mirror: an export (see [`super::export`]) that grows with the log, outside the database. `events.jsonl` is appended
//! to and synced, then `position.json` says how far it goes, then `head.json` is replaced: each atomically, so that a crash
//! leaves an export that verifies. Rows beyond the position are overwritten when it goes on.
//!
//! One writer at a time has the turn, by a lease of the database, and one that was frozen may go on long after it lost it
//! (ADR 16). So each step first takes hold of what it will write ([`Mirror::open_log`], [`Mirror::stage`]), then the writer
//! looks whether the turn is its own still, and only then does it write there:
//!
//! - Rows go to the places that their chain gives them. Whoever writes them writes the same bytes, and into the directory that
//!   was there before the look: one that a recovery has put aside since gets them, not the new log's.
//! - What is staged takes its place by its name, and who takes the turn over removes all that was staged before
//!   ([`Mirror::take_over`]): what the writer before wanted to say fails, in place of saying less than is known.

use super::chain::{ChainedEntry, genesis};
use super::export::{EVENTS_FILE, ExportError, HEAD_FILE, io, row};
use super::head::SignedHead;
use crate::nfv::Sha256Hash;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, ErrorKind, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// File that says how far the mirror goes; an export that is no mirror has none.
pub const POSITION_FILE: &str = "position.json";
/// Of a probe whether the mirror can be written to.
const PROBE_BYTES: usize = 16 * 1024;
/// Ends the names of files that are staged.
const STAGED: &str = ".new";

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

    /// Where the mirror of a log that a recovery ends is put: `DIRECTORY.ORIGIN`, numbered if another one of it is there.
    pub fn archived(&self, origin: &str) -> Self {
        let mut name = self.directory.clone().into_os_string();
        name.push(".");
        name.push(origin.replace(['/', '\\'], "-"));
        let mut directory = PathBuf::from(&name);
        let mut number = 1;
        while directory.exists() {
            number += 1;
            let mut numbered = name.clone();
            numbered.push(format!(".{number}"));
            directory = numbered.into();
        }
        Self { directory }
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

    /// What whoever has the turn from now on does first: nothing that was staged before takes its place any more.
    ///
    /// # Errors
    /// [`ExportError::Io`].
    pub fn take_over(&self) -> Result<(), ExportError> {
        let failed = |error| io(&self.directory, error);
        let entries = match std::fs::read_dir(&self.directory) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(failed)?,
        };
        for entry in entries {
            let path = entry.map_err(failed)?.path();
            if !path.to_string_lossy().ends_with(STAGED) {
                continue;
            }
            match std::fs::remove_file(&path) {
                // It took its place in this moment, before anything of this turn was read.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                removed => removed.map_err(|error| io(&path, error))?,
            }
        }
        Ok(())
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

    /// Takes hold of the rows' file, which is made if it is not there.
    ///
    /// # Errors
    /// [`ExportError`], also if it has less than `position` says.
    pub fn open_log(&self, position: &Position) -> Result<Log, ExportError> {
        std::fs::create_dir_all(&self.directory).map_err(|error| io(&self.directory, error))?;
        let path = self.directory.join(EVENTS_FILE);
        let failed = |error| io(&path, error);
        let file = OpenOptions::new().create(true).write(true).truncate(false).open(&path).map_err(failed)?;
        if file.metadata().map_err(failed)?.len() < position.bytes {
            let problem = format!("has less than the {} bytes that {POSITION_FILE} states", position.bytes);
            return Err(ExportError::Unreadable { path, line: position.size, problem });
        }
        Ok(Log { path, file })
    }

    /// Writes, beside their places, that the rows up to `position` are there, under this head. For [`Staged::publish`].
    ///
    /// # Errors
    /// [`ExportError::Io`].
    pub fn stage(&self, position: &Position, head: &SignedHead) -> Result<Staged, ExportError> {
        Ok(Staged {
            directory: self.directory.clone(),
            // In this order: a head never covers more than the position says.
            files: [self.stage_one(POSITION_FILE, position)?, self.stage_one(HEAD_FILE, head)?],
        })
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

    fn stage_one(
        &self,
        name: &'static str,
        content: &impl Serialize,
    ) -> Result<(PathBuf, &'static str), ExportError> {
        // A name of its own, so that nobody takes what another one stages for his own.
        let path = self.directory.join(format!("{name}.{}{STAGED}", Uuid::now_v7()));
        let failed = |error| io(&path, error);
        let mut text = serde_json::to_vec_pretty(content).map_err(|error| failed(error.into()))?;
        text.push(b'\n');
        let written =
            File::create_new(&path).and_then(|mut file| file.write_all(&text).and_then(|()| file.sync_all()));
        written.map_err(failed)?;
        Ok((path, name))
    }
}

/// The rows' file of a mirror, wherever its directory is by now.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    file: File,
}

impl Log {
    /// Writes the rows that follow `position`, and syncs them. Gives the position after them, for [`Mirror::stage`].
    ///
    /// # Errors
    /// [`ExportError`].
    pub fn append(&self, position: &Position, entries: &[ChainedEntry]) -> Result<Position, ExportError> {
        let failed = |error| io(&self.path, error);
        let mut position = position.clone();
        let mut rows = BufWriter::new(&self.file);
        rows.seek(SeekFrom::Start(position.bytes)).map_err(failed)?;
        for entry in entries {
            let line = row(&self.path, entry)?;
            rows.write_all(&line).map_err(failed)?;
            position.size = entry.index + 1;
            position.bytes += line.len() as u64;
            position.hash = entry.hash;
        }
        rows.flush().map_err(failed)?;
        drop(rows);
        self.file.sync_all().map_err(failed)?;
        Ok(position)
    }
}

/// Position and head that wait beside their places.
#[derive(Debug)]
pub struct Staged {
    directory: PathBuf,
    files: [(PathBuf, &'static str); 2],
}

impl Staged {
    /// Puts them in their places.
    ///
    /// # Errors
    /// [`ExportError::Io`], also if another writer has taken over since they were staged.
    pub fn publish(self) -> Result<(), ExportError> {
        for (staged, name) in &self.files {
            std::fs::rename(staged, self.directory.join(name)).map_err(|error| io(staged, error))?;
        }
        let synced = File::open(&self.directory).and_then(|directory| directory.sync_all());
        synced.map_err(|error| io(&self.directory, error))
    }
}
