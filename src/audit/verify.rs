//! Offline verification of an exported log: nothing of the broker is trusted but its audit key.

use super::chain::{ChainedEntry, genesis};
use super::export::{ExportError, ExportReader, read_head};
use super::head::{Head, SignedHead};
use super::mirror::POSITION_FILE;
use super::signature::AuditPublicKey;
use crate::credential::named;
use crate::nfv::Sha256Hash;
use serde::Serialize;
use std::ops::Range;
use std::path::Path;

named!(
    /// What is wrong with a log.
    ProblemKind, "problem of an audit log" {
        /// The head's signature does not fit head and key.
        HeadSignature = "HEAD_SIGNATURE",
        /// The rows are intact among themselves and are not those that the head was signed over.
        HeadMismatch = "HEAD_MISMATCH",
        /// A line is no row.
        Unreadable = "UNREADABLE",
        /// The row, or the hash of the row before, was changed.
        Changed = "CHANGED",
        /// The row is not there, and later ones are.
        Missing = "MISSING",
        /// The row stands after a later one.
        Reordered = "REORDERED",
        /// The row is there again.
        Duplicated = "DUPLICATED",
        /// The row lies beyond the signed size.
        Unsigned = "UNSIGNED",
        /// The log ends before the signed size.
        Truncated = "TRUNCATED",
        /// An earlier head is not from this log.
        OtherLog = "OTHER_LOG",
        /// An earlier head was signed over other rows: history was rewritten.
        Rewritten = "REWRITTEN",
    }
);

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The row it is about, if it is about one.
    pub index: Option<u64>,
    /// What.
    pub kind: ProblemKind,
    /// In a sentence.
    pub text: String,
}

/// What was found. The log is good only if there is no problem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The head of the export.
    pub head: Head,
    /// Lines read.
    pub rows: u64,
    /// Earlier heads that this log was found to extend.
    pub extends: u64,
    /// What is wrong, at most [`MAX_PROBLEMS`].
    pub problems: Vec<Problem>,
    /// Problems that were not listed any more.
    pub further_problems: u64,
}

impl Report {
    /// True if nothing at all is wrong.
    pub fn is_good(&self) -> bool {
        self.problems.is_empty()
    }

    fn add(&mut self, index: Option<u64>, kind: ProblemKind, text: impl Into<String>) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(Problem { index, kind, text: text.into() });
        } else {
            self.further_problems += 1;
        }
    }
}

/// Problems that a report lists.
pub const MAX_PROBLEMS: usize = 100;

/// Gaps that are remembered in case their rows come later; further ones are reported as missing at once, so that no
/// file makes the verifier slow or large.
const MAX_GAPS: usize = 1_000;

/// Verifies an export (a directory, see [`super::export`]) with the log's public key, and that it extends every one of
/// the `earlier` heads that the caller kept. Reads the rows once, with a bounded amount of memory.
///
/// # Errors
/// [`ExportError`] only if the files cannot be read or `head.json` is no head: whatever is wrong with the rows is in the
/// [`Report`].
pub fn verify(directory: &Path, key: &AuditPublicKey, earlier: &[SignedHead]) -> Result<Report, ExportError> {
    let signed = read_head(directory)?;
    let mut walk = Walk::begin(&signed, key, earlier);
    // What a mirror has beyond its head is being appended, or a crash left it: it is no part of what the head covers.
    walk.grows = directory.join(POSITION_FILE).exists();
    for row in ExportReader::open(directory)? {
        match row {
            Ok(entry) => walk.row(&entry),
            Err(ExportError::Unreadable { line, problem, .. }) => walk.unreadable(line, &problem),
            Err(error @ ExportError::Io { .. }) => return Err(error),
        }
    }
    Ok(walk.end())
}

/// One pass over the rows.
struct Walk {
    report: Report,
    /// Whether rows beyond the head are passed over.
    grows: bool,
    /// Index that the next row should have.
    expected: u64,
    /// Stated hash of the row before; none where that row could not be read or is missing.
    previous: Option<Sha256Hash>,
    /// Rows that were passed over, unless they come later.
    gaps: Vec<Range<u64>>,
    /// Earlier heads that are still ahead, largest size first; and whether one was met.
    earlier: Vec<Head>,
    /// Stated hash at the head's size.
    hash_at_head: Option<Sha256Hash>,
}

impl Walk {
    fn begin(signed: &SignedHead, key: &AuditPublicKey, earlier: &[SignedHead]) -> Self {
        let head = signed.head.clone();
        let mut report =
            Report { head: head.clone(), rows: 0, extends: 0, problems: Vec::new(), further_problems: 0 };
        if let Err(error) = signed.verify(key) {
            report.add(None, ProblemKind::HeadSignature, format!("head.json: {error}"));
        }
        let mut ahead = Vec::new();
        for old in earlier {
            let name = format!("the earlier head of size {}", old.head.size);
            if let Err(error) = old.verify(key) {
                report.add(None, ProblemKind::HeadSignature, format!("{name}: {error}"));
            } else if old.head.origin != head.origin {
                let text = format!("{name} is of the log {:?}, this is {:?}", old.head.origin, head.origin);
                report.add(None, ProblemKind::OtherLog, text);
            } else if old.head.size > head.size {
                let text = format!("{name} has more rows than this log: rows were removed");
                report.add(Some(head.size), ProblemKind::Truncated, text);
            } else {
                ahead.push(old.head.clone());
            }
        }
        ahead.sort_by_key(|head| std::cmp::Reverse(head.size));
        let genesis = genesis(&head.origin);
        let mut walk = Self {
            report,
            grows: false,
            expected: 0,
            previous: Some(genesis),
            gaps: Vec::new(),
            earlier: ahead,
            hash_at_head: (head.size == 0).then_some(genesis),
        };
        walk.meet_earlier_heads(0, Some(genesis));
        walk
    }

    fn row(&mut self, entry: &ChainedEntry) {
        let index = entry.index;
        // What was left beyond the head is overwritten as the mirror grows: it may begin within a row, and with any row.
        if self.grows && index.max(self.expected) >= self.report.head.size {
            return;
        }
        self.report.rows += 1;
        if index >= self.report.head.size {
            let text = format!("row {index} lies beyond the signed size {}", self.report.head.size);
            return self.report.add(Some(index), ProblemKind::Unsigned, text);
        }
        if index < self.expected {
            return self.late_row(index);
        }
        if index > self.expected {
            if self.gaps.len() < MAX_GAPS {
                self.gaps.push(self.expected..index);
            } else {
                self.missing(&(self.expected..index));
            }
            self.previous = None;
        }
        if let Some(previous) = self.previous
            && !entry.follows(previous)
        {
            let text = match index {
                0 => "row 0 does not hash to what it states: it was changed, or is of another log".to_owned(),
                _ => format!(
                    "row {index} does not follow from row {}: its content, its hash or that row's hash was changed",
                    index - 1
                ),
            };
            self.report.add(Some(index), ProblemKind::Changed, text);
        }
        self.previous = Some(entry.hash);
        self.expected = index + 1;
        self.meet_earlier_heads(self.expected, Some(entry.hash));
        if self.expected == self.report.head.size {
            self.hash_at_head = Some(entry.hash);
        }
    }

    /// A row whose place was passed: it fills a gap, or is there twice.
    fn late_row(&mut self, index: u64) {
        match self.gaps.iter().position(|gap| gap.contains(&index)) {
            Some(position) => {
                let gap = self.gaps.swap_remove(position);
                self.gaps.extend(
                    [gap.start..index, index + 1..gap.end].into_iter().filter(|part| !part.is_empty()),
                );
                let text = format!("row {index} stands after row {}", self.expected - 1);
                self.report.add(Some(index), ProblemKind::Reordered, text);
            }
            None => {
                let text = format!("row {index} stands there again after row {}", self.expected - 1);
                self.report.add(Some(index), ProblemKind::Duplicated, text);
            }
        }
    }

    /// A line that is no row takes the place of the row that should be there.
    fn unreadable(&mut self, line: u64, problem: &str) {
        let index = self.expected;
        if self.grows && index >= self.report.head.size {
            return;
        }
        self.report.rows += 1;
        self.report.add(Some(index), ProblemKind::Unreadable, format!("line {line} is no row: {problem}"));
        if index < self.report.head.size {
            self.previous = None;
            self.expected = index + 1;
            self.meet_earlier_heads(self.expected, None);
        }
    }

    /// Compares with the earlier heads up to `size`; a head whose row was passed over cannot be met any more.
    fn meet_earlier_heads(&mut self, size: u64, hash: Option<Sha256Hash>) {
        while let Some(head) = self.earlier.pop_if(|head| head.size <= size) {
            if head.size == size && hash == Some(head.hash) {
                self.report.extends += 1;
            } else {
                let text = format!(
                    "the first {} rows are not those of the head that was signed at {}",
                    head.size, head.time
                );
                self.report.add(head.size.checked_sub(1), ProblemKind::Rewritten, text);
            }
        }
    }

    fn missing(&mut self, gap: &Range<u64>) {
        let text = match gap.end - gap.start {
            1 => format!("row {} is not there", gap.start),
            _ => format!("rows {} to {} are not there", gap.start, gap.end - 1),
        };
        self.report.add(Some(gap.start), ProblemKind::Missing, text);
    }

    fn end(mut self) -> Report {
        let size = self.report.head.size;
        self.gaps.sort_by_key(|gap| gap.start);
        for gap in std::mem::take(&mut self.gaps) {
            self.missing(&gap);
        }
        if self.expected < size {
            let text = format!("the log ends at row {}, the head was signed over {size} rows", self.expected);
            self.report.add(Some(self.expected), ProblemKind::Truncated, text);
            for head in std::mem::take(&mut self.earlier) {
                let text = format!("the log ends before the {} rows of an earlier head", head.size);
                self.report.add(Some(self.expected), ProblemKind::Truncated, text);
            }
        } else if self.hash_at_head.is_some_and(|hash| hash != self.report.head.hash) {
            let text = "the rows are not those that the head was signed over".to_owned();
            self.report.add(size.checked_sub(1), ProblemKind::HeadMismatch, text);
        }
        self.report
    }
}
