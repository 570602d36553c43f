//! Goal: every promise of `store::Store` holds, on every implementation.
//! Method: each promise is a function of a fixture with a fresh store; `promises!` runs it on each store. What
//! only SQLite promises (its file, its limits) is in `store/sqlite.rs`.

#![allow(clippy::unwrap_used, reason = "helpers of tests panic like the tests themselves")]

#[allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "shared with the black-box tests; helpers of tests panic like the tests themselves"
)]
#[path = "support/postgres.rs"]
mod postgres;
mod store;
