//! The log outside the database: what a signed head covers is appended to the mirror, and the database is held against it.
//! A database that has less than the mirror, or something else, was rolled back: it would deliver keys a second time.

use crate::audit::export::ExportError;
use crate::audit::mirror::{Mirror, Position};
use crate::audit::{ChainedEntry, SignedHead, StoredEvent, genesis};
use crate::broker::notes::{self, Noting};
use crate::broker::sequence::ORIGIN;
use crate::broker::standing::{self, Lag, Withheld};
use crate::broker::{Broker, BrokerError};
use crate::clock::Timestamp;
use crate::crash::{self, Point};
use crate::store::continuity::Standing;
pub(super) use crate::store::records::RECOVERY;
use crate::store::records::{self, AuditQuery, Lease};
use crate::store::{Store, StoreError};
use arc_swap::ArcSwapOption;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Rows appended in one round.
const BATCH: u32 = 1_000;
/// Name of the lease of who writes the mirror.
const TURN: &str = "mirror";
/// How long a turn lasts; it is renewed before every step. A writer that does not go on holds the others up so long.
const TURN_LASTS: Duration = Duration::from_secs(10);
/// Mark that says that there is a mirror, and where.
pub(super) const MIRROR: &str = "audit_mirror";
/// Sentences of what a token shows that are told; the log has all.
const SENTENCES: usize = 3;
/// Mark of which database this is, as [`crate::store::continuity::Identity`] names it.
const DATABASE: &str = "database";

/// The mirror, and what it shows of the database.
pub(super) struct Mirroring {
    mirror: Mirror,
    /// What the token showed at start.
    token_evidence: ArcSwapOption<Vec<String>>,
    /// Why the database is not the latest, or the token not the one.
    verdict: ArcSwapOption<Withheld>,
    lag: Lag,
    /// What was delivered last, beside the mirror.
    notes: Noting,
    /// What the mark [`DATABASE`] says.
    noted: Mutex<Option<String>>,
    /// As far as this process has seen the mirror go.
    seen: Mutex<Option<Position>>,
    /// Locked by whoever in this process writes the mirror; the turn that it took over, if it has one.
    turn: tokio::sync::Mutex<Option<Lease>>,
}

impl Mirroring {
    pub(super) fn new(directory: &Path) -> Self {
        Self {
            mirror: Mirror::new(directory),
            token_evidence: ArcSwapOption::empty(),
            verdict: ArcSwapOption::empty(),
            lag: Lag::new(),
            notes: Noting::default(),
            noted: Mutex::new(None),
            seen: Mutex::new(None),
            turn: tokio::sync::Mutex::new(None),
        }
    }

    pub(super) fn files(&self) -> &Mirror {
        &self.mirror
    }

    /// Sentences; none if token and database agree.
    pub(super) fn set_token_evidence(&self, sentences: Vec<String>) {
        self.token_evidence.store((!sentences.is_empty()).then(|| Arc::new(sentences)));
    }

    /// Why nothing is delivered until someone acts; none while database, mirror and token agree.
    pub(super) fn verdict(&self) -> Option<Arc<Withheld>> {
        self.verdict.load_full()
    }

    /// How far it lags behind.
    pub(super) fn lag(&self) -> &Lag {
        &self.lag
    }

    pub(super) fn notes(&self) -> &Noting {
        &self.notes
    }

    fn noted(&self) -> MutexGuard<'_, Option<String>> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seen(&self) -> Option<Position> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn see(&self, position: Position) {
        self.lag.reached(&position);
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(position);
    }
}

impl Broker {
    /// Holds database and token against what is known of them outside the database. Another database that lacks nothing is
    /// accepted, once every broker has had the time to look.
    pub(super) async fn look_for_rollback(&self) -> Result<(), BrokerError> {
        let continuity = self.store.continuity();
        let before = continuity.standing();
        let rested = matches!(&before, Standing::Changed(change) if change.left().is_zero());
        self.store.look_back().await?;
        if self.outlived().is_some() {
            // What this process remembers says nothing of a database that was recovered since.
            return Ok(());
        }
        let mut evidence: Vec<String> = self.compare_mirror().await?.into_iter().collect();
        if let Standing::RolledBack(sentence) = continuity.standing()
            && evidence.is_empty()
        {
            // What only this process remembers the others and the next start must know.
            self.store.note_rollback(&continuity.origin().unwrap_or_default(), &sentence).await?;
            evidence.push(sentence);
        }
        let verdict = match (evidence.is_empty(), self.mirror.token_evidence.load_full()) {
            (true, None) => None,
            (true, Some(token)) => Some(token_differs(&token)),
            (false, token) => {
                let token = token.iter().flat_map(|token| token.iter()).take(SENTENCES).cloned();
                evidence.extend(token);
                let sentence = standing::rolled_back(&evidence.join("; "));
                Some(Withheld { code: standing::ROLLED_BACK, sentence })
            }
        };
        metrics::gauge!("keybroker_rolled_back").set(f64::from(u8::from(verdict.is_some())));
        if let Some(Withheld { sentence, .. }) = &verdict
            && self.mirror.verdict().is_none()
        {
            tracing::error!("{sentence}");
        }
        let agrees = verdict.is_none();
        self.mirror.verdict.store(verdict.map(Arc::new));
        if agrees {
            if let Standing::Changed(change) = &before
                && rested
            {
                continuity.accept(change);
                tracing::info!("{change}: it lacks nothing that is known here");
            }
            self.note_database().await?;
        }
        Ok(())
    }

    /// Notes which database this is, so that a start on another one is seen.
    async fn note_database(&self) -> Result<(), BrokerError> {
        let continuity = self.store.continuity();
        let Some(database) = continuity.database().filter(|_| continuity.standing() == Standing::Same) else {
            return Ok(());
        };
        if self.mirror.noted().as_ref() != Some(&database) {
            if self.store.mark(DATABASE).await?.as_ref() != Some(&database) {
                self.store.set_mark(DATABASE, &database).await?;
            }
            *self.mirror.noted() = Some(database);
        }
        Ok(())
    }

    /// At start: whether this is the database that was worked on, and whether the mirror can be written to.
    pub(super) async fn take_up(&self) -> Result<(), BrokerError> {
        if let Some(noted) = self.store.mark(DATABASE).await? {
            self.store.continuity().noted(&noted);
        }
        self.look_for_rollback().await?;
        if let Ok(found) = self.with_mirror(Mirror::notes).await {
            notes::tell_unreadable(&found);
        }
        if self.mirror.verdict().is_none() {
            self.keep_notes().await;
            if let Err(error) = self.try_mirror().await {
                tracing::error!(%error, "nothing is delivered until the mirror can be written to");
            }
        }
        Ok(())
    }

    /// Makes sure, once, that the mirror takes something.
    async fn try_mirror(&self) -> Result<(), BrokerError> {
        if !self.mirror.lag.is_writable() {
            self.with_mirror(Mirror::probe).await?;
            self.mirror.lag.tried(Ok(()));
        }
        Ok(())
    }

    /// Counts what is committed, before it is looked what of it is in the mirror.
    async fn count_events(&self) -> Result<(), BrokerError> {
        let begun = self.mirror.lag.begin();
        // In this order: what is chained in between counts twice, not never.
        let (_, waiting) = self.store.unchained_events(0).await?;
        let events = waiting + self.store.chain_tip().await?.size;
        self.mirror.lag.counted(begun, events);
        Ok(())
    }

    /// A sentence on what the mirror has and the database has not.
    pub(super) async fn compare_mirror(&self) -> Result<Option<String>, BrokerError> {
        let (store, mirror, seen) = (&*self.store, &self.mirror.mirror, self.mirror.seen());
        // The database that this process works on knew them when it looked at them first, and forgets nothing.
        let known = seen.is_some()
            && store.continuity().standing() == Standing::Same
            && self.mirror.verdict().is_none();
        let mut found = compare_rows(store, mirror, seen).await?;
        if !known {
            found = with_notes(store, mirror, found).await?;
        }
        Ok(match found {
            Comparison::Agrees(position) => {
                if let Some(position) = position {
                    self.mirror.see(position);
                }
                None
            }
            Comparison::RolledBack(sentence) => Some(sentence),
        })
    }

    pub(super) async fn mirror_position(&self) -> Result<Option<Position>, BrokerError> {
        self.with_mirror(|mirror| mirror.position()).await
    }

    /// One round: looks for a rollback; then, if it has the turn, appends what the latest signed head covers. `holder` names
    /// this process among replicas.
    pub(super) async fn mirror_log(&self, holder: &str) -> Result<(), BrokerError> {
        let round = self.append_to_mirror(holder).await;
        if let Err(error) = &round {
            self.mirror.lag.tried(Err(error.to_string()));
        }
        round
    }

    /// Has the turn, or fails: for who is to be alone.
    pub(super) async fn require_the_turn(&self, holder: &str) -> Result<(), BrokerError> {
        match self.store.acquire_lease(TURN, holder, TURN_LASTS).await? {
            Some(_) => Ok(()),
            None => Err(BrokerError::Unavailable {
                code: "BROKER_SERVES",
                reason: "a broker writes the mirror of the audit log: stop all of them first (one that was killed is \
                         noticed after 10 s)"
                    .to_owned(),
                retry_after: TURN_LASTS,
            }),
        }
    }

    /// Lets another process write the mirror from now on.
    pub(super) async fn give_back_the_turn(&self) {
        let lease = self.mirror.turn.lock().await.take();
        if let Some(lease) = lease
            && let Err(error) = self.store.release_lease(&lease).await
        {
            tracing::warn!(work = lease.name, %error, "the lease was not given back; it runs out");
        }
    }

    async fn append_to_mirror(&self, holder: &str) -> Result<(), BrokerError> {
        self.count_events().await?;
        self.look_for_rollback().await?;
        if self.doubt().is_some() {
            return Ok(());
        }
        self.keep_notes().await;
        self.try_mirror().await?;
        // Another task of this process writes.
        let Ok(mut turn) = self.mirror.turn.try_lock() else { return Ok(()) };
        let lease = self.store.acquire_lease(TURN, holder, TURN_LASTS).await?;
        // After the lease: whoever had the turn before knew no later head.
        let head = self.store.latest_head().await?;
        let head = head.map(|json| serde_json::from_str::<SignedHead>(&json)).transpose();
        let head = head.map_err(|error| BrokerError::Internal(error.to_string()))?;
        // Before the mirror is touched: whose storage is away lags.
        let seen = self.mirror.seen().map_or(0, |seen| seen.size);
        let signed = head.as_ref().map_or(0, |head| head.head.size);
        metrics::gauge!("keybroker_audit_mirror_lag_events").set(signed.saturating_sub(seen) as f64);
        let Some(lease) = lease else {
            *turn = None;
            self.mirror.lag.tried(Err(format!("another broker has the lease {TURN:?} to write it")));
            return Ok(());
        };
        let written = match head {
            Some(head) => self.write_mirror(&lease, turn.as_ref() != Some(&lease), head).await,
            None => Ok(()),
        };
        match written {
            Ok(()) => {
                *turn = Some(lease);
                self.mirror.lag.tried(Ok(()));
                Ok(())
            }
            Err(error) => {
                // Another one may reach the storage that this one does not.
                *turn = None;
                self.store.release_lease(&lease).await?;
                Err(error)
            }
        }
    }

    /// 1. Take over, if the turn is new.
    /// 2. Take hold of the file of rows; see that the turn is our own still; write rows to their places.
    /// 3. Stage position and head; see that the turn is our own still; publish them.
    async fn write_mirror(&self, lease: &Lease, new: bool, head: SignedHead) -> Result<(), BrokerError> {
        // 1.
        if new {
            self.with_mirror(Mirror::take_over).await?;
        }
        let position = self.mirror_position().await?;
        if position.is_some() {
            self.note_mirror().await?;
        }
        let mut next = position.unwrap_or_else(|| Mirror::empty(&head.head.origin));
        if head.head.size <= next.size {
            return Ok(());
        }
        // 2.
        let position = next.clone();
        let log = Arc::new(self.with_mirror(move |mirror| mirror.open_log(&position)).await?);
        while next.size < head.head.size {
            let limit = u32::try_from(head.head.size - next.size).unwrap_or(BATCH).min(BATCH);
            let query = AuditQuery { from_index: next.size, limit, ..AuditQuery::default() };
            let mut entries = Vec::new();
            for entry in self.store.audit_entries(&query).await? {
                let event = serde_json::from_str(&entry.json)
                    .map_err(|error| BrokerError::Internal(error.to_string()))?;
                entries.push(ChainedEntry { index: entry.index, event, hash: entry.hash });
            }
            if entries.first().is_none_or(|entry| entry.index != next.size) {
                return Err(BrokerError::Internal("the audit log has fewer events than its head".to_owned()));
            }
            self.keep_the_turn(lease).await?;
            let (log, from) = (Arc::clone(&log), next);
            next = self.with_mirror(move |_| log.append(&from, &entries)).await?;
        }
        crash::reached(Point::MirrorAppended);
        // 3.
        let finished = next.clone();
        let staged = self.with_mirror(move |mirror| mirror.stage(&finished, &head)).await?;
        self.keep_the_turn(lease).await?;
        self.with_mirror(move |_| staged.publish()).await?;
        crash::reached(Point::MirrorFinished);
        self.note_mirror().await?;
        self.mirror.see(next);
        metrics::gauge!("keybroker_audit_mirror_lag_events").set(0.0);
        Ok(())
    }

    /// Fails once the turn is another one's, or was in between.
    async fn keep_the_turn(&self, lease: &Lease) -> Result<(), BrokerError> {
        let kept = self.store.acquire_lease(TURN, &lease.holder, TURN_LASTS).await?;
        match kept {
            Some(kept) if kept == *lease => Ok(()),
            _ => Err(StoreError::Fenced(TURN.to_owned()).into()),
        }
    }

    /// From now on a mirror that is lost is missed. Only once there is one: a broker that dies before has lost nothing.
    async fn note_mirror(&self) -> Result<(), BrokerError> {
        let directory = self.mirror.mirror.directory().display().to_string();
        if self.store.mark(MIRROR).await?.as_deref() != Some(directory.as_str()) {
            self.store.set_mark(MIRROR, &directory).await?;
        }
        Ok(())
    }

    /// Works on the mirror's files where waiting for a disk holds up nobody.
    pub(super) async fn with_mirror<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Mirror) -> Result<T, ExportError> + Send + 'static,
    ) -> Result<T, BrokerError> {
        let done = off_thread(&self.mirror.mirror, work).await?;
        done.map_err(|error| BrokerError::Internal(format!("the mirror of the audit log: {error}")))
    }
}

/// What a database shows when it is held against the mirror.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Comparison {
    /// It has everything that the mirror has, which goes so far; none if there is no mirror yet.
    Agrees(Option<Position>),
    /// It was rolled back, or may have been: a sentence.
    RolledBack(String),
}

/// Holds a database against the mirror of its log and what is noted beside it.
///
/// # Errors
/// The store's.
pub async fn compare(store: &dyn Store, mirror: &Mirror) -> Result<Comparison, BrokerError> {
    with_notes(store, mirror, compare_rows(store, mirror, None).await?).await
}

/// What the notes beside a mirror say, where its rows say nothing.
async fn with_notes(
    store: &dyn Store,
    mirror: &Mirror,
    of_rows: Comparison,
) -> Result<Comparison, BrokerError> {
    match (of_rows, notes::forgotten(store, mirror).await?) {
        (Comparison::Agrees(_), Some(sentence)) => Ok(Comparison::RolledBack(sentence)),
        (of_rows, _) => Ok(of_rows),
    }
}

/// Holds a database against the mirror of its log. `seen` is how far this process has seen the mirror go: a mirror that is
/// lost while a process looks on proves nothing.
async fn compare_rows(
    store: &dyn Store,
    mirror: &Mirror,
    seen: Option<Position>,
) -> Result<Comparison, BrokerError> {
    if store.mark(RECOVERY).await?.is_some_and(|begun| !begun.is_empty()) {
        return Ok(Comparison::RolledBack("a recovery was begun and is not finished".to_owned()));
    }
    if let Some(sentence) = store.mark(records::ROLLED_BACK).await?.filter(|sentence| !sentence.is_empty()) {
        return Ok(Comparison::RolledBack(sentence));
    }
    let directory = mirror.directory().display();
    let position = match off_thread(mirror, Mirror::position).await? {
        Ok(Some(position)) => position,
        gone => {
            if let Some(seen) = seen
                && extends(store, &seen).await?
            {
                return Ok(Comparison::Agrees(None));
            }
            let existed = store.mark(MIRROR).await?.filter(|existed| !existed.is_empty());
            return Ok(match (gone, existed) {
                (Err(error), _) => Comparison::RolledBack(format!(
                    "the mirror of the audit log cannot be read ({error}): whether the database is the latest cannot be \
                     known"
                )),
                (Ok(_), Some(existed)) => Comparison::RolledBack(format!(
                    "there is no mirror of the audit log in {directory}, and there was one in {existed}: whether the \
                     database is the latest cannot be known (put the mirror back if it was moved; replicas of one database share \
                     one mirror, by [audit] mirror)"
                )),
                (Ok(_), None) => Comparison::Agrees(None),
            });
        }
    };
    if extends(store, &position).await? {
        return Ok(Comparison::Agrees(Some(position)));
    }
    let origin = store.mark(ORIGIN).await?.unwrap_or_default();
    Ok(Comparison::RolledBack(if position.origin == origin {
        let size = store.chain_tip().await?.size;
        format!(
            "the mirror in {directory} has {} events up to {}, the database has {size} events and not that one",
            position.size, position.hash
        )
    } else {
        format!("the mirror in {directory} is of the log {}, the database has {origin:?}", position.origin)
    }))
}

/// What a mirror that goes so far lacks of what is committed: how many events, and since when.
///
/// # Errors
/// The store's.
pub async fn lacks(store: &dyn Store, position: &Position) -> Result<Option<(u64, Timestamp)>, BrokerError> {
    let query = AuditQuery { from_index: position.size, limit: 1, ..AuditQuery::default() };
    let oldest = match store.audit_entries(&query).await?.first() {
        Some(entry) => {
            let event: StoredEvent = serde_json::from_str(&entry.json)
                .map_err(|error| BrokerError::Internal(error.to_string()))?;
            Some(event.time)
        }
        None => None,
    };
    let (waiting, count) = store.unchained_events(1).await?;
    let events = (store.chain_tip().await?.size + count).saturating_sub(position.size);
    let oldest = oldest.or_else(|| waiting.first().map(|waiting| waiting.event.time));
    Ok(oldest.map(|time| (events, time)))
}

/// Whether the database's chain has the last row of a position.
async fn extends(store: &dyn Store, position: &Position) -> Result<bool, BrokerError> {
    if store.mark(ORIGIN).await?.as_ref() != Some(&position.origin) {
        return Ok(false);
    }
    match position.size.checked_sub(1) {
        None => Ok(position.hash == genesis(&position.origin)),
        Some(last) => {
            let query = AuditQuery { from_index: last, limit: 1, ..AuditQuery::default() };
            let rows = store.audit_entries(&query).await?;
            Ok(rows.first().is_some_and(|row| row.index == last && row.hash == position.hash))
        }
    }
}

/// Database and mirror agree, and the token has not what they say.
fn token_differs(sentences: &[String]) -> Withheld {
    let told = sentences.iter().take(SENTENCES).cloned().collect::<Vec<_>>().join("; ");
    Withheld {
        code: standing::TOKEN_DIFFERS,
        sentence: format!(
            "{told}; the database has everything that the mirror has, so that either the token is a copy from another \
             time (put back the one that was used last and start again: a recovery would destroy its pools), or the database \
             was rolled back together with the mirror (then run `keybroker recover --force`); nothing is delivered \
             (docs/operations.md)"
        ),
    }
}

pub(super) async fn off_thread<T: Send + 'static>(
    mirror: &Mirror,
    work: impl FnOnce(&Mirror) -> T + Send + 'static,
) -> Result<T, BrokerError> {
    let mirror = mirror.clone();
    let done = tokio::task::spawn_blocking(move || work(&mirror)).await;
    done.map_err(|error| BrokerError::Internal(error.to_string()))
}
