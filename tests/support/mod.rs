//! A whole site for black-box tests: a fresh SoftHSM2 token, a broker as a process of its own, MANO's and the VNFCIs'
//! side in this process or through the command line. Nothing is simulated; nothing waits for a fixed time.

#![allow(dead_code, unreachable_pub, reason = "shared by test binaries, each of which uses a part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests panic like the tests themselves"
)]

pub mod ca;
pub mod crashing;
pub mod delay;
pub mod est_server;
pub mod faults;
#[path = "../fresh_token/mod.rs"]
pub mod fresh_token;
pub mod mano;
pub mod pkcs11;
pub mod postgres;
pub mod process;
pub mod settlement;
pub mod site;
pub mod vnfci;

use std::time::{Duration, Instant};

/// Asks again, soon, until there is an answer; panics after `patience`, saying what did not happen.
pub async fn until<T>(patience: Duration, what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(begun.elapsed() < patience, "{what}: not within {patience:?}");
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
}

/// Long enough for anything that a busy machine does.
pub const PATIENCE: Duration = Duration::from_secs(60);
