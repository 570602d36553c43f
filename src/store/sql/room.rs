//! Whether the database has room. What is changed in place needs none: only what adds something shows it.

use super::SqlStore;
use super::audit;
use super::engine::Engine;
use crate::audit::event::{Actor, Event, EventKind};
use crate::store::{Result, StoreError};
use std::sync::atomic::{AtomicBool, Ordering};

/// Rows that are tried: more than what pages that are there may still take.
const ROWS: usize = 200;

/// Whether a change failed because the database was full, and nothing showed since that it has room.
#[derive(Debug, Default)]
pub(super) struct Room {
    lacking: AtomicBool,
}

impl<E: Engine> SqlStore<E> {
    /// An outcome, looked at on its way.
    pub(super) fn noted<T>(&self, outcome: Result<T>) -> Result<T> {
        if matches!(outcome, Err(StoreError::Full(_))) {
            self.room.lacking.store(true, Ordering::Relaxed);
        }
        outcome
    }

    /// Once a change found the database full, as many events as some changes have are added and undone, until that succeeds.
    pub(super) async fn try_room(&self) -> Result<()> {
        if !self.room.lacking.load(Ordering::Relaxed) {
            return Ok(());
        }
        let undone = || StoreError::Conflict("there is room".to_owned());
        let tried = self.engine.change(move |tx, now| {
            Box::pin(async move {
                let event = || Event::new(now, EventKind::PoolUpdated, Actor::broker());
                let events: Vec<Event> = std::iter::repeat_with(event).take(ROWS).collect();
                audit::insert(tx, &events).await?;
                Err::<(), _>(undone())
            })
        });
        match tried.await {
            Err(error) if error == undone() => {
                self.room.lacking.store(false, Ordering::Relaxed);
                Ok(())
            }
            other => other,
        }
    }
}
