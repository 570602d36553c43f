//! Black-box tests of what keybroker promises, one file per promise: real processes, a real token, real TLS.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests panic")]

#[path = "../support/mod.rs"]
mod support;

mod at_claim;
mod attacks;
mod audit;
mod backup;
mod bad_requests;
mod bad_start;
mod ceremonies;
mod certificates;
mod claims;
mod clients;
mod command_line;
mod continuity;
mod crashes;
mod damaged_mirrors;
mod database;
mod delivery_notes;
mod empty_pools;
mod endpoints;
mod est;
mod est_agents;
mod est_answers;
mod est_clients;
mod est_keygen;
mod est_repeats;
mod est_servers;
mod external_issuers;
mod herd;
mod hierarchy;
mod hsm_away;
mod hsm_faults;
mod key_types;
mod one_key;
mod operator_pki;
mod other_root;
mod paths;
mod quotas;
mod recovered_cas;
mod recovered_ends;
mod recovering;
mod recovery;
mod refusals;
mod refusals_summed;
mod renewal;
mod replicas;
mod restart;
mod revocation;
mod roles;
mod scale;
mod secrets;
mod soak;
mod storms;
mod suites;
mod tenant_tokens;
mod token;
mod traces;
