//! Brokers and their database as machines of their own: what is promised about several brokers on one PostgreSQL database
//! and one token holds while containers are killed, paused and cut off. `make containers` provides the engine and the
//! images; without an engine every test says so and passes.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests panic")]

#[path = "../support/mod.rs"]
mod support;

mod brokers;
mod compose;
mod database;
mod place;
