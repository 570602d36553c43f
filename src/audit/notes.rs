//! Delivery notes: the mirror (see [`super::mirror`]) follows the log by seconds, and what a process delivered last it takes
//! with it when it is killed. So each process notes a delivery beside the mirror before it answers: the event, as it will be
//! chained, one line in one piece. A line is in the page cache then, which outlives the process, not the machine.
//!
//! A process has two pages, files `delivered.UUID.N.jsonl`, and writes on one until the other one is empty; a page is emptied
//! once the mirror has all that was noted on it. It holds a lock on both for as long as it lives: pages whose lock can be had
//! are of a process that is gone. It never opens them a second time: one that sleeps while a recovery puts the directory aside
//! notes there.

use super::chain::StoredEvent;
use super::export::{ExportError, io};
use super::lost::LostCertificate;
use super::mirror::Mirror;
use crate::nfv::CredentialId;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Begins the name of every page, and ends it.
const PAGE: (&str, &str) = ("delivered.", ".jsonl");
/// Begins the name of one that has no lock yet.
const OPENING: &str = "opening.";
/// How much longer than its events a page is kept: what is committed at the same time may get its places in another order.
const SETTLING: Duration = Duration::from_secs(2);

/// What was delivered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// The event of it.
    pub event: StoredEvent,
    /// The certificates that were there before and that it delivers: the event names them by hash only.
    pub certificates: Vec<(CredentialId, LostCertificate)>,
}

/// What all pages beside a mirror say.
#[derive(Debug, Default)]
pub struct Notes {
    /// In no order.
    pub notes: Vec<Note>,
    /// A sentence on each line that is no note: the process was killed while it wrote, and nobody was answered; or the storage
    /// had no room.
    pub unreadable: Vec<String>,
}

/// Whether the mirror has what was committed until `at`, if it has all that was committed until `covered`.
pub fn is_covered(at: Instant, covered: Instant) -> bool {
    at + SETTLING < covered
}

impl Mirror {
    /// What was noted, by whomever.
    ///
    /// # Errors
    /// [`ExportError::Io`].
    pub fn notes(&self) -> Result<Notes, ExportError> {
        let mut found = Notes::default();
        for path in self.pages()? {
            let text = match std::fs::read(&path) {
                // Its process is gone, and the mirror has what it said.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                text => text.map_err(|error| io(&path, error))?,
            };
            for (line, text) in (1..).zip(text.split(|byte| *byte == b'\n')) {
                if text.is_empty() {
                    continue;
                }
                match serde_json::from_slice(text) {
                    Ok(note) => found.notes.push(note),
                    Err(error) => {
                        found.unreadable.push(format!("{}, line {line}: {error}", path.display()));
                    }
                }
            }
        }
        Ok(found)
    }

    /// Whether there is a page, whatever is on it.
    ///
    /// # Errors
    /// [`ExportError::Io`].
    pub fn has_notes(&self) -> Result<bool, ExportError> {
        Ok(!self.pages()?.is_empty())
    }

    /// The pages of processes that are gone.
    ///
    /// # Errors
    /// [`ExportError::Io`].
    pub fn abandoned_notes(&self) -> Result<Vec<PathBuf>, ExportError> {
        let mut abandoned = self.pages()?;
        abandoned.retain(|path| {
            let file = OpenOptions::new().append(true).open(path);
            file.is_ok_and(|file| file.try_lock().is_ok())
        });
        Ok(abandoned)
    }

    fn pages(&self) -> Result<Vec<PathBuf>, ExportError> {
        let directory = self.directory();
        let failed = |error| io(directory, error);
        let entries = match std::fs::read_dir(directory) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed)?,
        };
        let mut pages = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with(PAGE.0) && name.ends_with(PAGE.1) && entry.path().is_file() {
                pages.push(entry.path());
            }
        }
        Ok(pages)
    }
}

/// Removes pages. Of two who do, one finds them gone.
///
/// # Errors
/// [`ExportError::Io`].
pub fn remove(pages: &[PathBuf]) -> Result<(), ExportError> {
    for path in pages {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            removed => removed.map_err(|error| io(path, error))?,
        }
    }
    Ok(())
}

/// The two pages of a process.
#[derive(Debug)]
pub struct Notebook {
    /// The first is the one that is written on.
    pages: [Page; 2],
}

#[derive(Debug)]
struct Page {
    path: PathBuf,
    file: File,
    /// When the last line was written; none on an empty page.
    written: Option<Instant>,
}

impl Notebook {
    /// Makes one beside the mirror.
    ///
    /// # Errors
    /// [`ExportError::Io`], also where the storage has no locks.
    pub fn begin(mirror: &Mirror) -> Result<Self, ExportError> {
        let directory = mirror.directory();
        std::fs::create_dir_all(directory).map_err(|error| io(directory, error))?;
        let process = Uuid::now_v7();
        Ok(Self { pages: [Page::begin(directory, process, 1)?, Page::begin(directory, process, 2)?] })
    }

    /// Notes a delivery whose event is committed.
    ///
    /// # Errors
    /// [`ExportError::Io`].
    pub fn write(&mut self, note: &Note) -> Result<(), ExportError> {
        let [page, _] = &mut self.pages;
        let failed = |error| io(&page.path, error);
        // It begins with an end of line, so that what a failure left of the one before spoils nothing.
        let mut line = vec![b'\n'];
        serde_json::to_writer(&mut line, note).map_err(|error| failed(error.into()))?;
        line.push(b'\n');
        page.file.write_all(&line).map_err(failed)?;
        page.written = Some(Instant::now());
        Ok(())
    }

    /// Empties what the mirror has, which has all that was committed until `covered`, and turns the page if the other one is
    /// empty.
    ///
    /// # Errors
    /// [`ExportError::Io`].
    pub fn turn(&mut self, covered: Instant) -> Result<(), ExportError> {
        for page in &mut self.pages {
            if page.written.is_some_and(|written| is_covered(written, covered)) {
                page.file.set_len(0).map_err(|error| io(&page.path, error))?;
                page.written = None;
            }
        }
        let [page, other] = &self.pages;
        if page.written.is_some() && other.written.is_none() {
            self.pages.swap(0, 1);
        }
        Ok(())
    }

    /// Whether whoever looks beside the mirror finds these pages.
    pub fn is_in_place(&self) -> bool {
        self.pages.iter().all(|page| {
            let (there, ours) = (std::fs::metadata(&page.path), page.file.metadata());
            matches!((there, ours), (Ok(there), Ok(ours)) if (there.dev(), there.ino()) == (ours.dev(), ours.ino()))
        })
    }
}

impl Page {
    /// It gets its name with the lock: nobody takes it for one that was left.
    fn begin(directory: &Path, process: Uuid, number: u32) -> Result<Self, ExportError> {
        let name = format!("{}{process}.{number}{}", PAGE.0, PAGE.1);
        let (opening, path) = (directory.join(format!("{OPENING}{name}")), directory.join(name));
        let failed = |error| io(&opening, error);
        let file = OpenOptions::new().create_new(true).append(true).open(&opening).map_err(failed)?;
        let named = file.lock().and_then(|()| std::fs::rename(&opening, &path));
        if let Err(error) = named {
            let _ = std::fs::remove_file(&opening);
            return Err(failed(error));
        }
        Ok(Self { path, file, written: None })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests panic")]

    use super::*;
    use crate::audit::event::{Actor, Event, EventKind};
    use crate::clock::Timestamp;

    fn note() -> Note {
        let event = Event::new(Timestamp::from_unix_seconds(1), EventKind::Claimed, Actor::broker());
        Note { event: StoredEvent::from(&event), certificates: Vec::new() }
    }

    fn sizes(mirror: &Mirror) -> Vec<u64> {
        let mut pages = mirror.pages().unwrap();
        pages.sort();
        pages.iter().map(|page| page.metadata().unwrap().len()).collect()
    }

    #[test]
    fn what_was_noted_is_read_whatever_a_failure_left_in_between() {
        let directory = tempfile::tempdir().unwrap();
        let mirror = Mirror::new(&directory.path().join("mirror"));
        assert!(mirror.notes().unwrap().notes.is_empty() && !mirror.has_notes().unwrap());
        let mut notebook = Notebook::begin(&mirror).unwrap();
        assert!(mirror.has_notes().unwrap());
        let noted = [note(), note(), note()];
        notebook.write(&noted[0]).unwrap();
        (&notebook.pages[0].file).write_all(b"\n{\"event\":{\"id\"").unwrap();
        let found = mirror.notes().unwrap();
        assert_eq!((found.notes.len(), found.unreadable.len()), (1, 1), "{found:?}");
        notebook.write(&noted[1]).unwrap();
        notebook.pages[1].file.write_all(b"\xff\n").unwrap();
        notebook.pages.swap(0, 1);
        notebook.write(&noted[2]).unwrap();
        let found = mirror.notes().unwrap();
        assert_eq!(found.unreadable.len(), 2, "{found:?}");
        assert!(noted.iter().all(|note| found.notes.contains(note)), "{found:?}");
        // What only looks like a page is none.
        std::fs::create_dir(mirror.directory().join("delivered.x.jsonl")).unwrap();
        assert_eq!(mirror.notes().unwrap().notes.len(), 3);
    }

    #[test]
    fn a_page_is_emptied_once_the_mirror_has_it_and_not_before() {
        let directory = tempfile::tempdir().unwrap();
        let mirror = Mirror::new(directory.path());
        let mut notebook = Notebook::begin(&mirror).unwrap();
        let later = |seconds| Instant::now() + Duration::from_secs(seconds);
        notebook.write(&note()).unwrap();
        notebook.turn(Instant::now()).unwrap();
        let one = sizes(&mirror)[0];
        assert!(one > 0);
        // Under load there is always something that the mirror has not got yet.
        for _ in 0..3 {
            notebook.write(&note()).unwrap();
            notebook.turn(Instant::now()).unwrap();
        }
        assert_eq!(sizes(&mirror), [one, 3 * one]);
        notebook.pages[1].written = Some(Instant::now().checked_sub(Duration::from_secs(10)).unwrap());
        notebook.turn(Instant::now()).unwrap();
        assert_eq!(sizes(&mirror), [0, 3 * one], "the other page is not covered");
        notebook.write(&note()).unwrap();
        assert_eq!(sizes(&mirror), [one, 3 * one], "the page was turned");
        notebook.turn(later(10)).unwrap();
        assert_eq!(sizes(&mirror), [0, 0]);
    }

    #[test]
    fn the_pages_of_a_process_that_lives_are_not_abandoned() {
        let directory = tempfile::tempdir().unwrap();
        let mirror = Mirror::new(directory.path());
        let (gone, lives) = (Notebook::begin(&mirror).unwrap(), Notebook::begin(&mirror).unwrap());
        assert!(mirror.abandoned_notes().unwrap().is_empty());
        let mut left = gone.pages.each_ref().map(|page| page.path.clone());
        drop(gone);
        let mut abandoned = mirror.abandoned_notes().unwrap();
        left.sort();
        abandoned.sort();
        assert_eq!(abandoned, left);
        remove(&abandoned).unwrap();
        remove(&abandoned).unwrap();
        assert!(lives.is_in_place() && mirror.pages().unwrap().len() == 2);
        // A recovery puts the directory aside: what is noted now lies there.
        let aside = directory.path().join("../aside");
        std::fs::rename(directory.path(), &aside).unwrap();
        assert!(!lives.is_in_place());
        std::fs::create_dir(directory.path()).unwrap();
        assert!(!lives.is_in_place());
        std::fs::remove_dir_all(&aside).unwrap();
    }
}
