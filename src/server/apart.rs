//! Threads of their own for the listeners that a crowd comes to.
//!
//! A boot storm is thousands of TLS handshakes, each some milliseconds of a processor. On one runtime the store's writing
//! task, management's calls and the background work would stand in line behind them, at each step anew; on threads of
//! their own the operating system shares the processors between the two.

use std::io;
use tokio::runtime::{Builder, Handle, Runtime};

/// A runtime beside the one that made it; what still runs there ends when it is dropped.
pub(super) struct Apart(Option<Runtime>);

impl Apart {
    /// Starts its threads.
    ///
    /// # Errors
    /// The system gives no more threads or descriptors.
    pub(super) fn start() -> io::Result<Self> {
        Builder::new_multi_thread().thread_name("crowd").enable_all().build().map(|own| Self(Some(own)))
    }

    /// Where to spawn; the current runtime once it has ended.
    pub(super) fn handle(&self) -> Handle {
        self.0.as_ref().map_or_else(Handle::current, |own| own.handle().clone())
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        if let Some(own) = self.0.take() {
            // Waiting for its threads is not allowed where asynchronous work runs.
            own.shutdown_background();
        }
    }
}
