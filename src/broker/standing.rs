//! Whether anything may be delivered now: not on a database that was rolled back or that may have been, and not while the
//! mirror, which would show it, lags too far behind.

use crate::audit::mirror::Position;
use crate::broker::{Broker, BrokerError, MirrorLag};
use crate::store::continuity::Standing;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The database was rolled back.
pub(super) const ROLLED_BACK: &str = "ROLLED_BACK";
/// Another database answers, and was not compared yet.
pub(super) const CHANGED: &str = "DATABASE_CHANGED";
/// The token lacks keys that a database has which nothing else shows to be an old one.
pub(super) const TOKEN_DIFFERS: &str = "TOKEN_DIFFERS";
/// The mirror lacks too much, or cannot be written to.
const MIRROR_BEHIND: &str = "MIRROR_BEHIND";

/// What a refused caller is told to wait where someone has to act first.
const ACT: Duration = Duration::from_secs(60);
/// The same where it goes on by itself.
const SOON: Duration = Duration::from_secs(2);
/// Rounds remembered while the mirror lags: more than [`MirrorLag::time`] has by default.
const NOTES: usize = 1_000;

/// What a caller asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// To be told something.
    Reading,
    /// That something be changed.
    Change,
}

/// Why nothing is delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Withheld {
    /// Stable code.
    pub code: &'static str,
    /// What is wrong and what to do.
    pub sentence: String,
}

impl Withheld {
    fn refuse(self) -> BrokerError {
        let retry_after = match self.code {
            ROLLED_BACK | TOKEN_DIFFERS => ACT,
            _ => SOON,
        };
        BrokerError::Unavailable { code: self.code, reason: self.sentence, retry_after }
    }
}

/// How far the mirror lags behind the database.
pub(super) struct Lag {
    rounds: Mutex<Rounds>,
    /// By this broker, since the last round counted.
    delivered: AtomicU64,
}

struct Rounds {
    /// Everything that was committed until then is in the mirror.
    covered: Instant,
    /// When a round began, and how many events were committed then; of those that the mirror lacks.
    open: VecDeque<(Instant, u64)>,
    /// Events, as last counted.
    committed: u64,
    /// Events in the mirror, as last seen.
    mirrored: u64,
    /// Why the last round failed.
    problem: Option<String>,
    /// Whether the mirror was ever seen to take something.
    writable: bool,
}

impl Lag {
    pub(super) fn new() -> Self {
        let rounds = Rounds {
            covered: Instant::now(),
            open: VecDeque::new(),
            committed: 0,
            mirrored: 0,
            problem: None,
            writable: false,
        };
        Self { rounds: Mutex::new(rounds), delivered: AtomicU64::new(0) }
    }

    fn rounds(&self) -> MutexGuard<'_, Rounds> {
        self.rounds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something was delivered.
    pub(super) fn delivered(&self) {
        self.delivered.fetch_add(1, Ordering::Relaxed);
    }

    /// A round counts what is committed from now on.
    pub(super) fn begin(&self) -> Instant {
        self.delivered.store(0, Ordering::Relaxed);
        Instant::now()
    }

    /// It counted so many events, no fewer than were committed when it began.
    pub(super) fn counted(&self, begun: Instant, events: u64) {
        let mut rounds = self.rounds();
        if rounds.open.len() < NOTES {
            rounds.open.push_back((begun, events));
        }
        rounds.committed = events;
    }

    /// The mirror goes so far.
    pub(super) fn reached(&self, position: &Position) {
        let mut rounds = self.rounds();
        rounds.mirrored = position.size;
        while let Some((begun, _)) = rounds.open.front().filter(|(_, events)| *events <= position.size) {
            rounds.covered = *begun;
            rounds.open.pop_front();
        }
    }

    /// Everything that was committed until then is in the mirror.
    pub(super) fn covered(&self) -> Instant {
        self.rounds().covered
    }

    pub(super) fn is_writable(&self) -> bool {
        self.rounds().writable
    }

    /// Something was written to the mirror, or a round failed.
    pub(super) fn tried(&self, outcome: Result<(), String>) {
        let mut rounds = self.rounds();
        rounds.writable |= outcome.is_ok();
        rounds.problem = outcome.err();
    }

    /// For how long, and by how many events.
    fn behind(&self) -> (Duration, u64) {
        let rounds = self.rounds();
        let missing = rounds.committed.saturating_sub(rounds.mirrored);
        (rounds.covered.elapsed(), missing + self.delivered.load(Ordering::Relaxed))
    }

    /// Why nothing is delivered, if it lags too far.
    fn withheld(&self, bound: MirrorLag, directory: &str) -> Option<Withheld> {
        let (time, events) = self.behind();
        let rounds = self.rounds();
        let what = if !rounds.writable {
            "was not written to yet".to_owned()
        } else if time > bound.time {
            format!("lacks what was committed in the last {} s", time.as_secs())
        } else if events >= bound.events {
            format!("lacks {events} events")
        } else {
            return None;
        };
        let problem = rounds.problem.as_ref().map(|problem| format!(" ({problem})")).unwrap_or_default();
        Some(Withheld {
            code: MIRROR_BEHIND,
            sentence: format!(
                "the mirror of the audit log in {directory} {what}{problem}: a rollback of the database would not be seen, so \
                 nothing is delivered until it has caught up; is its storage full or away? ([audit] max_lag, \
                 max_lag_events)"
            ),
        })
    }
}

impl Broker {
    /// Why the database may not be the latest; none if it is known to be.
    pub fn doubt(&self) -> Option<Withheld> {
        if let Some(sentence) = self.outlived() {
            return Some(Withheld { code: CHANGED, sentence });
        }
        if let Some(verdict) = self.mirror.verdict() {
            return Some(Withheld::clone(&verdict));
        }
        match self.store.continuity().standing() {
            Standing::Same | Standing::Recovered(_) => None,
            Standing::RolledBack(sentence) => {
                Some(Withheld { code: ROLLED_BACK, sentence: rolled_back(&sentence) })
            }
            Standing::Changed(change) => Some(Withheld {
                code: CHANGED,
                sentence: format!(
                    "{change}: nothing is delivered until it was compared with what every broker knows, in {} s at the \
                     earliest",
                    change.left().as_secs() + 1
                ),
            }),
        }
    }

    /// Why nothing is delivered; none if it is.
    pub fn withheld(&self) -> Option<Withheld> {
        let bound = self.settings.load().mirror_lag;
        let directory = self.mirror.files().directory().display().to_string();
        self.doubt().or_else(|| self.mirror.lag().withheld(bound, &directory))
    }

    /// Fails on a database that was rolled back, or may have been. A CA or tenant that is made twice would be there twice once the
    /// forgotten one is brought back, with one key or one name.
    pub(super) fn no_doubt(&self) -> Result<(), BrokerError> {
        self.doubt().map_or(Ok(()), |doubt| Err(doubt.refuse()))
    }

    /// Fails while nothing is delivered: whatever hands out keys or certificates asks first, and again before it answers.
    pub(super) fn may_deliver(&self) -> Result<(), BrokerError> {
        self.withheld().map_or(Ok(()), |withheld| Err(withheld.refuse()))
    }

    /// A refusal, as it is told: a database that may not be the latest may have forgotten who is refused, and what happened to
    /// that which was to be changed, so that nobody is refused for good by it. Who is not recognised does not learn why.
    /// Readers are told what the database has.
    pub fn judged(&self, asked: Asked, refusal: BrokerError) -> BrokerError {
        let Some(doubt) = self.doubt() else { return refusal };
        match (asked, refusal) {
            (_, BrokerError::Refused { code, reason, .. }) => {
                tracing::warn!(code, reason, "refused by a database that may not be the latest");
                BrokerError::Unavailable {
                    code: "STORE_UNAVAILABLE",
                    reason: "the database may not be the latest: nobody is refused for good by it".to_owned(),
                    retry_after: SOON,
                }
            }
            (
                Asked::Change,
                refusal @ (BrokerError::NotFound(_)
                | BrokerError::AlreadyExists(_)
                | BrokerError::Precondition(_)
                | BrokerError::QuotaExceeded(_)),
            ) => {
                tracing::warn!(%refusal, "refused by a database that may not be the latest");
                doubt.refuse()
            }
            (_, error) => error,
        }
    }

    /// Fails if a batch names something that the database does not know and may have forgotten: no answer is for good then, and
    /// the whole batch is to be sent again.
    pub(super) fn knows(&self, all: bool) -> Result<(), BrokerError> {
        if all { Ok(()) } else { self.no_doubt() }
    }

    /// Sets the gauges of how far the mirror lags, and whether anything is delivered.
    pub(super) fn measure_standing(&self) {
        let (time, _) = self.mirror.lag().behind();
        metrics::gauge!("keybroker_audit_mirror_lag_seconds").set(time.as_secs_f64());
        metrics::gauge!("keybroker_deliveries_withheld").set(f64::from(u8::from(self.withheld().is_some())));
    }
}

/// The whole sentence on a database that was rolled back.
pub(super) fn rolled_back(evidence: &str) -> String {
    format!(
        "the database was rolled back: {evidence}; nothing is delivered until `keybroker recover` was run \
         (docs/operations.md)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::mirror::Mirror;

    const BOUND: MirrorLag = MirrorLag { time: Duration::from_secs(3_600), events: 10 };

    fn at(size: u64) -> Position {
        Position { size, ..Mirror::empty("keybroker/test") }
    }

    #[test]
    fn a_mirror_that_was_never_written_to_withholds_deliveries() {
        let lag = Lag::new();
        lag.tried(Err("no space left".to_owned()));
        let withheld = lag.withheld(BOUND, "/mirror").unwrap();
        assert_eq!(withheld.code, MIRROR_BEHIND);
        assert!(withheld.sentence.contains("no space left"), "{}", withheld.sentence);
        lag.tried(Ok(()));
        assert_eq!(lag.withheld(BOUND, "/mirror"), None);
    }

    #[test]
    fn what_was_delivered_since_the_mirror_was_seen_counts() {
        let lag = Lag::new();
        lag.tried(Ok(()));
        lag.counted(lag.begin(), 7);
        lag.reached(&at(2));
        (0..4).for_each(|_| lag.delivered());
        assert_eq!(lag.behind().1, 9);
        assert_eq!(lag.withheld(BOUND, "/mirror"), None);
        lag.delivered();
        assert!(lag.withheld(BOUND, "/mirror").unwrap().sentence.contains("lacks 10 events"));
        lag.counted(lag.begin(), 12);
        lag.reached(&at(12));
        assert_eq!(lag.withheld(BOUND, "/mirror"), None);
    }

    #[test]
    fn the_mirror_is_as_old_as_the_first_round_whose_events_it_lacks() {
        let lag = Lag::new();
        lag.tried(Ok(()));
        let first = lag.begin();
        lag.counted(first, 3);
        let second = lag.begin();
        lag.counted(second, 5);
        lag.reached(&at(4));
        assert_eq!(lag.rounds().covered, first);
        lag.reached(&at(5));
        assert_eq!(lag.rounds().covered, second);
        let none = MirrorLag { time: Duration::ZERO, ..BOUND };
        assert!(lag.withheld(none, "/mirror").unwrap().sentence.contains("lacks what was committed"));
    }
}
