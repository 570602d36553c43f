//! Why the listeners cannot serve, and what to do.

use super::tls::TlsError;
use std::io;
use std::net::SocketAddr;

/// Why the listeners could not be opened or went on no longer. Says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// An address could not be bound.
    #[error("cannot listen on {address} ({key}): {advice}")]
    Bind {
        /// The configuration key.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// What is wrong and what to do.
        advice: String,
    },
    /// A certificate or key cannot be used.
    #[error("{key}: {source}")]
    Tls {
        /// The configuration key of the listener.
        key: &'static str,
        /// Why.
        source: TlsError,
    },
    /// No threads for the listeners.
    #[error("the listeners' threads cannot be started: {0}; allow this user more processes (ulimit -u)")]
    Threads(io::Error),
    /// A listener ended that should not.
    #[error("a listener ended by itself: {0}")]
    Ended(String),
}

impl ServeError {
    pub(super) fn bind(key: &'static str, address: SocketAddr, failure: &io::Error) -> Self {
        let advice = match failure.kind() {
            io::ErrorKind::AddrInUse => {
                format!("another process listens there; stop it or choose another address as {key}")
            }
            io::ErrorKind::AddrNotAvailable => {
                format!("this machine does not have the address; choose another one as {key}")
            }
            io::ErrorKind::PermissionDenied => {
                format!(
                    "not permitted; choose a port of 1024 or more as {key}, or grant CAP_NET_BIND_SERVICE"
                )
            }
            _ => failure.to_string(),
        };
        Self::Bind { key, address, advice }
    }
}
