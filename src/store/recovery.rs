//! What rollbacks and recoveries ask of a store.

use super::records::{Lease, Recovered, Recovery};
use super::{Mutation, Result};
use crate::audit::event::Event;
use async_trait::async_trait;
use std::collections::HashSet;
use uuid::Uuid;

/// Makes marks from what a recovery brought back, inside its transaction. Must be pure and quick.
pub type Marks = Box<dyn FnOnce(&Recovered) -> Vec<(String, String)> + Send>;

/// The part of a [`super::Store`] that is about rollbacks. All but the first two only `keybroker recover` uses, while no broker
/// serves.
#[async_trait]
pub trait RecoveryStore {
    /// Sets the mark [`super::records::ROLLED_BACK`], if the log has this origin still: of a database that was recovered
    /// meanwhile nothing is said.
    async fn note_rollback(&self, origin: &str, sentence: &str) -> Result<()>;
    /// Leases that somebody has now.
    async fn held_leases(&self) -> Result<Vec<Lease>>;
    /// Which of these events there are, chained or not.
    async fn known_events(&self, events: Vec<Uuid>) -> Result<HashSet<Uuid>>;
    /// Ends the custody of keys as the log says, or `UNKNOWN` with reason `RECOVERED` if they went out and it says no more;
    /// withdraws certificates, keeps serial numbers of certificates that are not in the database until they expire. A claim
    /// whose renewal was confirmed is `RENEWED`, one that was given back `RELEASED` and its VNFCI, too, one whose keys ended
    /// otherwise `SUPERSEDED` or, if it was open, `DESTROYED`. A VNFCI that was armed anew is `REGISTERED` again. Makes every open initial credential `VOID`, raises CRL numbers
    /// above those given and makes every CRL due. Sets marks in the same transaction, so that what was brought back is never
    /// done and forgotten. Again: the same, with what is left.
    async fn recover(
        &self,
        recovery: Recovery,
        marks: Marks,
        mutation: Mutation<Recovered>,
    ) -> Result<Recovered>;
    /// Begins a new chain: all events are to be chained again, `event` as the last of them, heads are forgotten, and marks
    /// are set.
    async fn restart_chain(&self, event: Event, marks: Vec<(String, String)>) -> Result<()>;
}
