//! What this process hands out is noted beside the mirror of the log, after it is committed and before it is answered: a
//! database that is put back to a state from before is found out, however soon after it every process was killed.
//!
//! 1. The change that delivers makes its event; [`Delivery`] keeps it.
//! 2. It is committed. A crash now leaves a claim that the same recipient key repeats, which is noted then.
//! 3. It is noted ([`Broker::note_delivery`]). Where that fails, the mirror's lag decides how long deliveries go on.
//! 4. It is answered.

use crate::audit::StoredEvent;
use crate::audit::event::{Event, EventKind};
use crate::audit::lost::LostCertificate;
use crate::audit::mirror::Mirror;
use crate::audit::notes::{self, Note, Notebook, Notes};
use crate::broker::complaint::Complaint;
use crate::broker::mirror::off_thread;
use crate::broker::{Broker, BrokerError};
use crate::ca::CertificateFacts;
use crate::nfv::CredentialId;
use crate::store::Store;
use crate::store::continuity::Standing;
use crate::store::records::{ClaimRecord, ClaimedCertificate};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long an answer waits for the storage. What is not noted within that time is as if the mirror lagged.
const PATIENCE: Duration = Duration::from_secs(5);

/// The event of a delivery, taken out of the change that makes it.
#[derive(Clone, Default)]
pub(super) struct Delivery(Arc<Mutex<Option<StoredEvent>>>);

impl Delivery {
    /// Keeps the one of a change's events that delivers, if one does.
    pub(super) fn keep(&self, events: Vec<Event>) -> Vec<Event> {
        let delivers = |event: &&Event| {
            matches!(event.kind, EventKind::Claimed | EventKind::ClaimReplayed | EventKind::Enrolled)
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) =
            events.iter().find(delivers).map(StoredEvent::from);
        events
    }

    fn take(&self) -> Option<StoredEvent> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The notes of this process, and of those that are gone.
#[derive(Default)]
pub(super) struct Noting {
    /// None while there could none be made. Locked while something is written.
    notebook: Arc<tokio::sync::Mutex<Option<Notebook>>>,
    /// The storage did not answer in time: nobody waits for it until it does.
    stuck: AtomicBool,
    /// Pages of processes that are gone, and when that was seen.
    gone: Mutex<Option<(Instant, Vec<PathBuf>)>>,
    complaint: Complaint,
}

impl Noting {
    /// Works on the notebook where waiting for a disk holds up nobody else.
    async fn with_notebook<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Option<Notebook>) -> T + Send + 'static,
    ) -> Result<T, BrokerError> {
        let late = || BrokerError::Internal(format!("the storage did not answer within {PATIENCE:?}"));
        let done = async {
            let mut notebook = match Arc::clone(&self.notebook).try_lock_owned() {
                Ok(notebook) => notebook,
                Err(_) if self.stuck.load(Ordering::Relaxed) => return Err(late()),
                Err(_) => Arc::clone(&self.notebook).lock_owned().await,
            };
            let done = tokio::task::spawn_blocking(move || work(&mut notebook)).await;
            done.map_err(|error| BrokerError::Internal(error.to_string()))
        };
        let Ok(done) = tokio::time::timeout(PATIENCE, done).await else {
            self.stuck.store(true, Ordering::Relaxed);
            return Err(late());
        };
        if done.is_ok() {
            self.stuck.store(false, Ordering::Relaxed);
        }
        done
    }

    fn complain(&self, error: &dyn std::fmt::Display) {
        let words = error.to_string();
        if self.complaint.is_due(&words, Instant::now()) {
            tracing::warn!(
                error = words,
                "deliveries cannot be noted beside the mirror of the audit log: until it has them, a rollback of them would \
                 not be seen"
            );
        }
    }
}

impl Broker {
    /// Notes what a change delivered, if it did. Never fails: what is delivered is committed.
    pub(super) async fn note_delivery(
        &self,
        delivery: &Delivery,
        certificates: Vec<(CredentialId, LostCertificate)>,
    ) {
        let Some(event) = delivery.take() else { return };
        self.mirror.lag().delivered();
        let noting = self.mirror.notes();
        let note = Note { event, certificates };
        let noted = noting.with_notebook(move |notebook| match notebook {
            Some(notebook) => notebook.write(&note).map_err(|error| error.to_string()),
            None => Err("there is no file for them".to_owned()),
        });
        match noted.await {
            Ok(Ok(())) => {}
            Ok(Err(problem)) => noting.complain(&problem),
            Err(error) => noting.complain(&error),
        }
    }

    /// Makes this process a notebook, if it has none or others would not find it; empties what the mirror has; removes what
    /// processes have left that are gone, once the mirror has it.
    pub(super) async fn keep_notes(&self) {
        if let Err(error) = self.try_to_keep_notes().await {
            self.mirror.notes().complain(&error);
        }
    }

    async fn try_to_keep_notes(&self) -> Result<(), BrokerError> {
        let noting = self.mirror.notes();
        let covered = self.mirror.lag().covered();
        let kept = noting.with_notebook(move |notebook| {
            notebook.as_mut().is_some_and(|notebook| notebook.turn(covered).is_ok() && notebook.is_in_place())
        });
        if !kept.await? {
            let begun = self.with_mirror(Notebook::begin).await?;
            // After it is made: one that slept over a recovery, and that would note in the new log's directory what the
            // database of before had, finds that out here.
            self.store.look_back().await?;
            if matches!(self.store.continuity().standing(), Standing::Same | Standing::Changed(_)) {
                noting.with_notebook(move |notebook| *notebook = Some(begun)).await?;
            }
        }
        // Everything that they committed was committed before they were seen to be gone.
        let left = noting.gone.lock().unwrap_or_else(PoisonError::into_inner).take();
        let left = match left {
            Some((seen, pages)) if notes::is_covered(seen, covered) => {
                self.with_mirror(move |_| notes::remove(&pages)).await?;
                None
            }
            Some(left) => Some(left),
            None => {
                let pages = self.with_mirror(Mirror::abandoned_notes).await?;
                (!pages.is_empty()).then(|| (Instant::now(), pages))
            }
        };
        *noting.gone.lock().unwrap_or_else(PoisonError::into_inner) = left;
        Ok(())
    }
}

/// Tells of lines that are no notes.
pub(super) fn tell_unreadable(notes: &Notes) {
    for line in &notes.unreadable {
        tracing::warn!(line, "passed over: no note of a delivery, or none that was written to its end");
    }
}

/// A sentence on what was delivered, as is noted beside the mirror, and the database does not know.
pub(super) async fn forgotten(store: &dyn Store, mirror: &Mirror) -> Result<Option<String>, BrokerError> {
    let directory = mirror.directory().display();
    let found = match off_thread(mirror, Mirror::notes).await? {
        Ok(found) => found,
        Err(error) => {
            return Ok(Some(format!(
                "what was delivered last, as it is noted beside the mirror of the audit log, cannot be read ({error}): whether \
                 the database is the latest cannot be known"
            )));
        }
    };
    let known = store.known_events(found.notes.iter().map(|note| note.event.id).collect()).await?;
    let forgotten = found.notes.iter().filter(|note| !known.contains(&note.event.id));
    let first = forgotten.clone().map(|note| note.event.time).min();
    Ok(first.map(|first| {
        format!(
            "beside the mirror in {directory} brokers have noted {} deliveries that the database does not know, the first of \
             {first}",
            forgotten.count()
        )
    }))
}

/// The certificates of a claim that are signed.
pub(super) fn certificates(claim: &ClaimRecord) -> Vec<(CredentialId, LostCertificate)> {
    let signed = claim.credentials.iter().filter_map(|slot| {
        let ClaimedCertificate::Signed(der) = &slot.certificate else { return None };
        let facts = CertificateFacts::parse(der).ok()?;
        let (serial, not_after) = (facts.serial, facts.not_after);
        Some((slot.credential.id, LostCertificate { issuer: slot.issuer, serial, not_after }))
    });
    signed.collect()
}
