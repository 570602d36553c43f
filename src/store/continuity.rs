//! Whether the database is still the one that this process worked on, in all that it had: one that another takes the place of
//! (a standby that lagged, a restored backup) under a running broker would deliver a second time what was delivered already.
//!
//! Three things are remembered, in memory only. The database's identity is asked of every new connection: another one stops
//! deliveries until it is accepted. And the last events that this process committed, the witnesses: every change that delivers
//! looks for them in its own transaction, so that it commits only where they are. And the origin of the log: a database that
//! was recovered has another one, and witnesses of the log before prove nothing of it. A process outlives no recovery.

use super::records::Lease;
use super::{Result, StoreError};
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Witnesses kept. Of changes that committed at the same time it is not known which was the last: one that was committed
/// before as many others is older than one of these, whose connection it did not have.
const WITNESSES: usize = 64;
/// How long deliveries rest after the database was replaced: the other brokers notice it when they next use a connection,
/// within a second if their connections were closed, within about six if they only fell silent.
const REPLACED: Duration = Duration::from_secs(10);
/// The same after a restart of the server, which closes every connection.
const RESTARTED: Duration = Duration::from_secs(3);

/// Which database answers on a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// What stays the same for as long as the database is the same one: server, timeline, database, table.
    pub database: String,
    /// When its server was started, microseconds since 1970.
    pub started: i64,
}

/// Where a database stands, as far as this process knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It is the one that this process worked on.
    Same,
    /// Another one answers, or the same after a restart, and it was not accepted yet.
    Changed(Change),
    /// It lacks what this process committed, or another one says so: a sentence.
    RolledBack(String),
    /// It was recovered since this process began: a sentence. What this process remembers is of the log before.
    Recovered(String),
}

/// Another database, or another run of the same server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// When it was noticed.
    at: Instant,
    /// How long deliveries rest.
    rest: Duration,
    before: Identity,
    after: Identity,
}

impl Change {
    /// How long deliveries are still to rest.
    pub fn left(&self) -> Duration {
        self.rest.saturating_sub(self.at.elapsed())
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { before, after, .. } = self;
        if before.database == after.database {
            return write!(f, "the database's server was restarted");
        }
        write!(f, "another database answers ({}; before: {})", after.database, before.database)
    }
}

/// What one process remembers of its database.
#[derive(Default)]
pub struct Continuity {
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    identity: Option<Identity>,
    /// Not accepted yet.
    change: Option<Change>,
    /// When the last one was noticed, accepted or not: older connections lead to what was before.
    changed_at: Option<Instant>,
    witnesses: VecDeque<Uuid>,
    rolled_back: Option<String>,
    /// Of the log that this process began with.
    origin: Option<String>,
    recovered: Option<String>,
    under: Option<(Lease, Duration)>,
}

impl Continuity {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new connection leads to this database.
    pub(super) fn connected(&self, identity: Identity) {
        let mut known = self.known();
        let Some(before) = known.identity.replace(identity.clone()) else { return };
        if before == identity {
            return;
        }
        let rest = if before.database == identity.database { RESTARTED } else { REPLACED };
        // Two changes in a row: what counts is the longer rest.
        let rest = known.change.as_ref().map_or(rest, |change| change.rest.max(rest));
        let change = Change { at: Instant::now(), rest, before, after: identity };
        tracing::warn!("{change}: nothing is delivered before it was compared");
        known.changed_at = Some(change.at);
        known.change = Some(change);
        // What the database before lacked this one may have.
        known.rolled_back = None;
        known.recovered = None;
    }

    /// Whether a connection that was made so long ago leads to the database that was seen last.
    pub(super) fn is_current(&self, age: Duration) -> bool {
        self.known().changed_at.is_none_or(|at| age <= at.elapsed())
    }

    /// What is to be there.
    pub(super) fn witnesses(&self) -> Vec<Uuid> {
        self.known().witnesses.iter().copied().collect()
    }

    /// An event was committed. `seen` are the witnesses that its transaction found: it is later than they.
    pub(super) fn committed(&self, event: Uuid, seen: &[Uuid]) {
        let mut known = self.known();
        known.witnesses.retain(|witness| !seen.contains(witness));
        known.witnesses.push_back(event);
        if known.witnesses.len() > WITNESSES {
            known.witnesses.pop_front();
        }
    }

    /// The database is not what it was. Stays so until another one answers.
    pub(super) fn lost(&self, sentence: String) {
        self.known().rolled_back.get_or_insert(sentence);
    }

    /// The database has the log of this origin. Says whether it is the one that this process began with: only then are its
    /// witnesses to be there. A later one was begun by a recovery; an earlier one is of a database from before a recovery.
    pub(super) fn is_of_log(&self, origin: &str) -> bool {
        let mut known = self.known();
        let ours = known.origin.get_or_insert_with(|| origin.to_owned()).clone();
        if ours == origin {
            return true;
        }
        if *origin > *ours {
            known.recovered.get_or_insert_with(|| {
                format!(
                    "the database was recovered while this broker ran: its log is {origin} now, and was {ours}; this broker \
                     ends, start it again"
                )
            });
        } else {
            let sentence = format!("its log is {origin}, from before {ours}, which this broker worked on");
            known.rolled_back.get_or_insert(sentence);
        }
        false
    }

    /// Of the log that this process began with; none before it looked.
    pub fn origin(&self) -> Option<String> {
        self.known().origin.clone()
    }

    /// From now on every change of this process is made under this lease, which it renews for so long, or not at all; none: as
    /// before. A lease that ran out and that nobody else took since is good.
    pub fn work_under(&self, lease: Option<(Lease, Duration)>) {
        self.known().under = lease;
    }

    /// The lease that every change is made under.
    pub(super) fn under(&self) -> Option<(Lease, Duration)> {
        self.known().under.clone()
    }

    /// Where the database stands.
    pub fn standing(&self) -> Standing {
        let known = self.known();
        match (&known.recovered, &known.rolled_back, &known.change) {
            (Some(sentence), _, _) => Standing::Recovered(sentence.clone()),
            (None, Some(sentence), _) => Standing::RolledBack(sentence.clone()),
            (None, None, Some(change)) => Standing::Changed(change.clone()),
            (None, None, None) => Standing::Same,
        }
    }

    /// Fails unless it is the same.
    pub(super) fn require(&self) -> Result<()> {
        match self.standing() {
            Standing::Same => Ok(()),
            Standing::Changed(change) => Err(StoreError::Changed(change.to_string())),
            Standing::RolledBack(sentence) => Err(StoreError::RolledBack(sentence)),
            Standing::Recovered(sentence) => Err(StoreError::Changed(sentence)),
        }
    }

    /// What answers now is accepted, unless it changed again since.
    pub fn accept(&self, accepted: &Change) {
        let mut known = self.known();
        if known.change.as_ref().is_some_and(|change| change.at == accepted.at) {
            known.change = None;
        }
    }

    /// Which database answered last; none where there can be only one.
    pub fn database(&self) -> Option<String> {
        self.known().identity.as_ref().map(|identity| identity.database.clone())
    }

    /// At start: the database that was noted is another one than the one that answers.
    pub fn noted(&self, database: &str) {
        let mut known = self.known();
        let Some(after) = known.identity.clone().filter(|identity| identity.database != database) else {
            return;
        };
        let before = Identity { database: database.to_owned(), started: 0 };
        known.change = Some(Change { at: Instant::now(), rest: REPLACED, before, after });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(database: &str, started: i64) -> Identity {
        Identity { database: database.to_owned(), started }
    }

    #[test]
    fn another_database_or_a_restart_is_not_the_same_until_it_is_accepted() {
        let continuity = Continuity::default();
        for started in [1, 1] {
            continuity.connected(identity("a", started));
            assert_eq!(continuity.standing(), Standing::Same);
        }
        continuity.connected(identity("a", 2));
        let Standing::Changed(restart) = continuity.standing() else { panic!() };
        assert_eq!(restart.rest, RESTARTED);
        assert!(matches!(continuity.require(), Err(StoreError::Changed(_))));
        continuity.connected(identity("b", 3));
        continuity.accept(&restart);
        let Standing::Changed(replaced) = continuity.standing() else { panic!("it changed again since") };
        assert_eq!(replaced.rest, REPLACED);
        continuity.accept(&replaced);
        assert_eq!(continuity.require(), Ok(()));
        // A connection from before leads elsewhere.
        assert!(continuity.is_current(Duration::ZERO) && !continuity.is_current(Duration::from_secs(60)));
    }

    #[test]
    fn what_was_lost_is_lost_until_another_database_answers() {
        let continuity = Continuity::default();
        continuity.connected(identity("a", 1));
        continuity.lost("first".to_owned());
        continuity.lost("second".to_owned());
        assert_eq!(continuity.require(), Err(StoreError::RolledBack("first".to_owned())));
        continuity.connected(identity("b", 1));
        assert!(matches!(continuity.standing(), Standing::Changed(_)));
    }

    #[test]
    fn a_later_log_is_that_of_a_recovery_and_an_earlier_one_that_of_a_rollback() {
        let continuity = Continuity::default();
        assert!(continuity.is_of_log("keybroker/2") && continuity.is_of_log("keybroker/2"));
        assert_eq!(continuity.standing(), Standing::Same);
        assert!(!continuity.is_of_log("keybroker/1"));
        assert!(matches!(continuity.require(), Err(StoreError::RolledBack(_))));
        assert!(!continuity.is_of_log("keybroker/3"));
        assert!(
            matches!(continuity.standing(), Standing::Recovered(_)),
            "what was lost before was lost then"
        );
        assert!(matches!(continuity.require(), Err(StoreError::Changed(_))));
        assert_eq!(continuity.origin().as_deref(), Some("keybroker/2"));
    }

    #[test]
    fn the_witnesses_are_those_of_which_none_is_known_to_be_older_than_another() {
        let continuity = Continuity::default();
        let [a, b, c] = [1, 2, 3].map(Uuid::from_u128);
        continuity.committed(a, &[]);
        continuity.committed(b, &[]);
        assert_eq!(continuity.witnesses(), [a, b], "at the same time");
        continuity.committed(c, &[a]);
        assert_eq!(continuity.witnesses(), [b, c]);
        for n in 0..WITNESSES {
            continuity.committed(Uuid::from_u128(100 + n as u128), &[]);
        }
        assert_eq!(continuity.witnesses().len(), WITNESSES);
    }

    #[test]
    fn a_broker_that_starts_on_another_database_than_was_noted_waits() {
        let continuity = Continuity::default();
        continuity.noted("a");
        assert_eq!(continuity.standing(), Standing::Same, "there can be only one");
        continuity.connected(identity("a", 1));
        continuity.noted("a");
        assert_eq!(continuity.standing(), Standing::Same);
        continuity.noted("b");
        assert!(matches!(continuity.standing(), Standing::Changed(_)));
    }
}
