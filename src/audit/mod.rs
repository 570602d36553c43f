//! The audit log: events, their chain, signed heads, and verification by someone who does not trust us.
//!
//! Nothing here writes the log: the store keeps the rows, the broker orders them, the HSM signs the head. What is
//! hashed and signed is defined here once, for the broker and for the verifier.

pub mod chain;
pub mod details;
pub mod event;
pub mod export;
pub mod head;
pub mod history;
pub mod lost;
pub mod mirror;
pub mod mirror_rows;
pub mod notes;
pub mod receipt;
pub mod signature;
pub mod verify;

pub use chain::{ChainedEntry, StoredEvent, genesis, next_hash};
pub use head::{Head, SignedHead};
pub use receipt::{DestructionReceipt, SignedReceipt};
pub use signature::{AuditAlgorithm, AuditPublicKey, AuditSignature};
