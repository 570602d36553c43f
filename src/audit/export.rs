//! The exported log: a directory with `events.jsonl`, one [`ChainedEntry`] in JSON per line in the order of their
//! indices, and `head.json`, the [`SignedHead`] over exactly these rows.

use super::chain::ChainedEntry;
use super::head::SignedHead;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

/// File with the rows.
pub const EVENTS_FILE: &str = "events.jsonl";
/// File with the signed head.
pub const HEAD_FILE: &str = "head.json";

/// A line longer than this is no row of ours (a batch of 10,000 keys has about 3 MB).
pub const MAX_LINE_BYTES: u64 = 16 * 1024 * 1024;

/// A file of the export that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The file system's error.
    #[error("{path}: {error}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// A text that is not what it should be.
    #[error("{path}, line {line}: {problem}")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Counted from 1.
        line: u64,
        /// What is wrong.
        problem: String,
    },
}

/// Writes an export, row by row.
#[derive(Debug)]
pub struct ExportWriter {
    directory: PathBuf,
    events: BufWriter<File>,
}

impl ExportWriter {
    /// Begins in `directory`, which is made if it is not there.
    ///
    /// # Errors
    /// [`ExportError::Io`], also if there is an export in it already: nothing is overwritten.
    pub fn create(directory: &Path) -> Result<Self, ExportError> {
        std::fs::create_dir_all(directory).map_err(|error| io(directory, error))?;
        let path = directory.join(EVENTS_FILE);
        let file = new_file(&path)?;
        Ok(Self { directory: directory.to_owned(), events: BufWriter::new(file) })
    }

    /// Writes the next row. The caller keeps the order.
    ///
    /// # Errors
    /// [`ExportError`].
    pub fn append(&mut self, entry: &ChainedEntry) -> Result<(), ExportError> {
        let path = self.directory.join(EVENTS_FILE);
        let line = row(&path, entry)?;
        self.events.write_all(&line).map_err(|error| io(&path, error))
    }

    /// Writes the head over the rows and ends. An export without a head is one that was interrupted.
    ///
    /// # Errors
    /// [`ExportError::Io`].
    pub fn finish(mut self, head: &SignedHead) -> Result<(), ExportError> {
        let events = self.directory.join(EVENTS_FILE);
        self.events.flush().map_err(|error| io(&events, error))?;
        self.events.get_ref().sync_all().map_err(|error| io(&events, error))?;
        let path = self.directory.join(HEAD_FILE);
        let mut file = new_file(&path)?;
        let mut text = serde_json::to_vec_pretty(head).map_err(|error| io(&path, error.into()))?;
        text.push(b'\n');
        file.write_all(&text).and_then(|()| file.sync_all()).map_err(|error| io(&path, error))
    }
}

/// Reads the head of an export.
///
/// # Errors
/// [`ExportError`].
pub fn read_head(directory: &Path) -> Result<SignedHead, ExportError> {
    let path = directory.join(HEAD_FILE);
    let text = std::fs::read(&path).map_err(|error| io(&path, error))?;
    serde_json::from_slice(&text).map_err(|error| ExportError::Unreadable {
        line: error.line() as u64,
        problem: error.to_string(),
        path,
    })
}

/// Reads the rows of an export one by one, with a bounded amount of memory. After [`ExportError::Unreadable`] the next
/// line is read; after [`ExportError::Io`] nothing more.
#[derive(Debug)]
pub struct ExportReader {
    path: PathBuf,
    events: Option<BufReader<File>>,
    line: u64,
}

impl ExportReader {
    /// Begins at the first row.
    ///
    /// # Errors
    /// [`ExportError::Io`].
    pub fn open(directory: &Path) -> Result<Self, ExportError> {
        let path = directory.join(EVENTS_FILE);
        let file = File::open(&path).map_err(|error| io(&path, error))?;
        Ok(Self { path, events: Some(BufReader::new(file)), line: 0 })
    }

    fn read_line(&mut self) -> std::io::Result<Vec<u8>> {
        let Some(events) = &mut self.events else {
            return Ok(Vec::new());
        };
        let mut line = Vec::new();
        events.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line)?;
        Ok(line)
    }
}

impl Iterator for ExportReader {
    type Item = Result<ChainedEntry, ExportError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.line += 1;
        let line = match self.read_line() {
            Ok(line) if line.is_empty() => return None,
            Ok(line) => line,
            Err(error) => {
                self.events = None;
                return Some(Err(io(&self.path, error)));
            }
        };
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        Some(serde_json::from_slice(text).map_err(|error| ExportError::Unreadable {
            path: self.path.clone(),
            line: self.line,
            problem: error.to_string(),
        }))
    }
}

fn new_file(path: &Path) -> Result<File, ExportError> {
    OpenOptions::new().write(true).create_new(true).open(path).map_err(|error| io(path, error))
}

/// A row as a line of `path`.
pub(super) fn row(path: &Path, entry: &ChainedEntry) -> Result<Vec<u8>, ExportError> {
    let mut line = serde_json::to_vec(entry).map_err(|error| ExportError::Unreadable {
        path: path.to_owned(),
        line: entry.index.saturating_add(1),
        problem: error.to_string(),
    })?;
    line.push(b'\n');
    Ok(line)
}

pub(super) fn io(path: &Path, error: std::io::Error) -> ExportError {
    ExportError::Io { path: path.to_owned(), error }
}
