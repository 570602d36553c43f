//! The store in SQL: every statement once, for each database that there is an [`Engine`] for.
//!
//! A change runs in one transaction, wrapped by [`change`](change::change); reads see committed states. One file per table
//! or tightly bound group of tables. The statements keep to the SQL that the databases share ([`statement`]); what they run
//! against is in `migrations/`, explained in `docs/schema.md`.
//!
//! The transactions are right on a database that runs many at a time (PostgreSQL, READ COMMITTED): each first locks the row
//! that stands for what it decides about, in this order, and only then reads what it decides by.
//!
//! 1. the tenant, for what operators and MANO configure and register;
//! 2. VNFCIs by id, for everything that happens to them and their claims;
//! 3. pools and epochs, for production;
//! 4. credentials.

pub(super) mod connection;
pub(super) mod drawing;
pub(super) mod engine;
pub(super) mod error;
mod statement;

mod anchor_crls;
mod anchors;
mod audit;
mod awaiting;
mod ca_requests;
mod certificates;
mod change;
mod claims;
mod credentials;
mod custody;
mod enrolments;
mod epochs;
mod identities;
mod initial_credentials;
mod issuers;
mod leases;
mod pools;
mod quotas;
mod rearmings;
mod recovery;
mod releases;
mod renewals;
mod revocation;
mod room;
mod store;
mod tenants;
mod terminations;
mod value;
mod vnfcis;
mod vouched;
mod witnesses;

/// A store in a database. See [`Store`](super::Store) for what it promises; `docs/schema.md` for what is in the database.
pub struct SqlStore<E> {
    engine: E,
    room: room::Room,
}

impl<E> SqlStore<E> {
    /// On a database that was opened.
    pub(super) fn on(engine: E) -> Self {
        Self { engine, room: room::Room::default() }
    }
}
