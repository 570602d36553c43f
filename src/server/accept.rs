//! From a listening socket to TLS connections that a server takes over.

use super::limits::{Admission, Limits, Sources};
use crate::broker::Peer;
use crate::identity::token::EXPORTER_LABEL;
use arc_swap::ArcSwap;
use rustls::ServerConfig;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

/// Shortest and longest wait after a failed accept (no file descriptors left, for example).
const ACCEPT_BACKOFF: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));
/// Established connections that the server has not taken over yet.
const WAITING: usize = 64;

/// One listener before TLS.
pub(super) struct Acceptor {
    /// Its name in logs and metrics.
    pub(super) name: &'static str,
    pub(super) listener: TcpListener,
    pub(super) config: Arc<ArcSwap<ServerConfig>>,
    pub(super) limits: Limits,
    /// Open connections that it shares with other listeners.
    pub(super) together: Arc<Semaphore>,
    /// No more connections are accepted.
    pub(super) stopping: CancellationToken,
    /// Open connections are cut.
    pub(super) closing: CancellationToken,
}

impl Acceptor {
    /// Accepts until `stopping`, whatever happens to single connections, and closes the socket then.
    pub(super) fn incoming(self) -> ReceiverStream<io::Result<TlsConnection>> {
        let (sender, receiver) = mpsc::channel(WAITING);
        tokio::spawn(async move {
            let stopping = self.stopping.clone();
            tokio::select! {
                () = stopping.cancelled() => {}
                () = self.accept_all(sender) => {}
            }
        });
        ReceiverStream::new(receiver)
    }

    async fn accept_all(self, sender: mpsc::Sender<io::Result<TlsConnection>>) {
        let handshakes = Arc::new(Semaphore::new(self.limits.handshakes));
        let connections = Arc::new(Semaphore::new(self.limits.connections));
        let sources = Sources::new(self.limits);
        let mut backoff = ACCEPT_BACKOFF.0;
        loop {
            // The permits come first: what we cannot serve waits in the kernel's queue and costs us nothing.
            let (Ok(handshake), Ok(connection), Ok(shared)) = (
                Arc::clone(&handshakes).acquire_owned().await,
                Arc::clone(&connections).acquire_owned().await,
                Arc::clone(&self.together).acquire_owned().await,
            ) else {
                return; // Never: nobody closes these semaphores.
            };
            let (tcp, address) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(failure) => {
                    tracing::warn!(listener = self.name, %failure, "cannot accept a connection");
                    tokio::time::sleep(backoff).await;
                    backoff = (backoff * 2).min(ACCEPT_BACKOFF.1);
                    continue;
                }
            };
            backoff = ACCEPT_BACKOFF.0;
            let Some(admission) = sources.admit(address.ip(), Instant::now()) else {
                self.count("turned_away");
                continue;
            };
            let begun = Begun {
                name: self.name,
                timeout: self.limits.handshake_timeout,
                config: self.config.load_full(),
                closing: self.closing.clone(),
                admission,
                permits: [connection, shared],
            };
            let sender = sender.clone();
            tokio::spawn(async move {
                let established = begun.shake_hands(tcp, address).await;
                drop(handshake);
                if let Some(established) = established {
                    // Fails only while the listener stops.
                    let _ = sender.send(Ok(established)).await;
                }
            });
        }
    }

    fn count(&self, outcome: &'static str) {
        count(self.name, outcome);
    }
}

fn count(name: &'static str, outcome: &'static str) {
    metrics::counter!("keybroker_tls_handshakes_total", "listener" => name, "outcome" => outcome)
        .increment(1);
}

/// A connection that was accepted and has its handshake before it.
struct Begun {
    name: &'static str,
    timeout: Duration,
    config: Arc<ServerConfig>,
    closing: CancellationToken,
    admission: Admission,
    permits: [OwnedSemaphorePermit; 2],
}

impl Begun {
    async fn shake_hands(mut self, tcp: TcpStream, address: SocketAddr) -> Option<TlsConnection> {
        let begun = Instant::now();
        // Answers are small and awaited. A socket that refuses the option is about to fail anyway.
        let _ = tcp.set_nodelay(true);
        let handshake = TlsAcceptor::from(Arc::clone(&self.config)).accept(tcp);
        let tls = tokio::select! {
            () = self.closing.cancelled() => return None,
            finished = tokio::time::timeout(self.timeout, handshake) => match finished {
                Ok(Ok(tls)) => tls,
                Ok(Err(failure)) => {
                    tracing::debug!(listener = self.name, %address, %failure, "TLS handshake failed");
                    count(self.name, "failed");
                    return None;
                }
                Err(_) => {
                    tracing::debug!(listener = self.name, %address, "TLS handshake took too long");
                    count(self.name, "timeout");
                    return None;
                }
            },
        };
        let peer = match peer(&tls, address) {
            Ok(peer) => Arc::new(peer),
            Err(failure) => {
                tracing::error!(%failure, "no TLS exporter");
                count(self.name, "failed");
                return None;
            }
        };
        self.admission.established();
        count(self.name, "established");
        metrics::histogram!("keybroker_tls_handshake_seconds", "listener" => self.name)
            .record(begun.elapsed());
        let open = connections(self.name);
        open.increment(1.0);
        Some(TlsConnection {
            tls,
            peer,
            closing: Box::pin(self.closing.cancelled_owned()),
            open,
            _admission: self.admission,
            _permits: self.permits,
        })
    }
}

/// The gauge of a listener's open connections.
pub(super) fn connections(listener: &'static str) -> metrics::Gauge {
    metrics::gauge!("keybroker_connections", "listener" => listener)
}

/// What the connection says of its peer.
fn peer(tls: &TlsStream<TcpStream>, address: SocketAddr) -> Result<Peer, rustls::Error> {
    let (_, session) = tls.get_ref();
    let exporter = session.export_keying_material([0; 32], EXPORTER_LABEL.as_bytes(), Some(b""))?;
    let chain_der = session
        .peer_certificates()
        .unwrap_or_default()
        .iter()
        .map(|certificate| certificate.to_vec())
        .collect();
    Ok(Peer { chain_der, exporter, address })
}

/// An established connection. Handlers find its `Arc<Peer>` in the request's extensions.
pub(super) struct TlsConnection {
    tls: TlsStream<TcpStream>,
    peer: Arc<Peer>,
    closing: Pin<Box<WaitForCancellationFutureOwned>>,
    open: metrics::Gauge,
    _admission: Admission,
    _permits: [OwnedSemaphorePermit; 2],
}

impl TlsConnection {
    /// Whom it is with.
    pub(super) fn peer(&self) -> Arc<Peer> {
        Arc::clone(&self.peer)
    }
}

impl Drop for TlsConnection {
    fn drop(&mut self) {
        self.open.decrement(1.0);
    }
}

impl Connected for TlsConnection {
    type ConnectInfo = Arc<Peer>;

    fn connect_info(&self) -> Arc<Peer> {
        Arc::clone(&self.peer)
    }
}

impl AsyncRead for TlsConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.closing.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.tls).poll_read(context, buffer)
    }
}

impl AsyncWrite for TlsConnection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.tls.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.tls).poll_shutdown(context))?;
        Poll::Ready(Ok(()))
    }
}
