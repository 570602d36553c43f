//! keybroker: a PKCS#11 HSM-backed key and certificate broker for NFV (ETSI GR NFV-SEC 005).
//!
//! The modules in reading order: the words ([`nfv`], [`clock`], [`credential`], [`authorisation`]), what the
//! broker is made of ([`sealing`], [`hsm`], [`ca`], [`identity`], [`pool`], [`lifecycle`], [`audit`],
//! [`store`]), the use cases ([`broker`]), and the faces to the outside ([`api`], [`est`],
//! [`server`], [`cli`]). `docs/ARCHITECTURE.md` says what each of them does not know.

pub mod api;
pub mod audit;
pub mod authorisation;
pub mod broker;
pub mod ca;
pub mod cli;
pub mod clock;
pub mod config;
pub mod crash;
pub mod credential;
pub mod est;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod hardening;
pub mod hsm;
pub mod identity;
pub mod lifecycle;
pub mod nfv;
pub mod pool;
pub mod sealing;
pub mod server;
pub mod store;
pub mod telemetry;
