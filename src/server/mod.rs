//! The listeners: bound first, then served until a shutdown, which drains them.
//!
//! [`tls`] has the server side of TLS, [`accept`] goes from a socket to connections, [`limits`] bounds both, and
//! [`http`] has the plain faces.

mod accept;
mod apart;
mod error;
mod http;
mod limits;
#[cfg(test)]
mod tests;
pub mod tls;

pub use error::ServeError;
pub use http::Ready;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use http::fuzz_path;
pub use limits::Limits;
pub use tls::{SignInHsm, TlsError, TlsMaterial, est_client_config};

use crate::api::{self, Face, Gate};
use crate::broker::Broker;
use crate::est;
use accept::Acceptor;
use apart::Apart;
use arc_swap::ArcSwap;
use limits::MANAGEMENT_CONNECTIONS;
use metrics_exporter_prometheus::PrometheusHandle;
use rustls::ServerConfig;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;
use tonic_health::ServingStatus;

/// Connections that the kernel keeps for us while we are busy.
const BACKLOG: u32 = 4_096;
/// Name of the EST listener in metrics.
const EST: &str = "est";
/// Calls that one connection may make at the same time.
const CALLS_PER_CONNECTION: usize = 64;
/// Bytes of a call's header list.
const HEADERS_MAX: u32 = 16 * 1024;
/// A connection is asked for a sign of life after this silence, and closed if none comes.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));
/// A connection is asked to come again after this time, so that none keeps an old certificate for ever.
const CONNECTION_AGE: Duration = Duration::from_secs(3600);

/// One listener with TLS.
#[derive(Debug, Clone)]
pub struct TlsListener {
    /// Where; port 0 takes a free one.
    pub address: SocketAddr,
    /// What it proves itself with.
    pub tls: TlsMaterial,
}

/// All listeners.
#[derive(Clone)]
pub struct Listeners {
    /// `listen.bootstrap`: VNFCIs with an initial credential.
    pub bootstrap: TlsListener,
    /// `listen.vnfci`: VNFCIs with a delivered certificate.
    pub vnfci: TlsListener,
    /// `listen.management`: MANO, auditors, operators.
    pub management: TlsListener,
    /// `listen.est`: enrolment (RFC 7030); none if it is not configured.
    pub est: Option<TlsListener>,
    /// `listen.http`: CRLs and trust chains.
    pub http: SocketAddr,
    /// `listen.admin`: metrics and health.
    pub admin: SocketAddr,
    /// Bounds.
    pub limits: Limits,
    /// Where metrics are collected.
    pub metrics: PrometheusHandle,
    /// Whether the broker can serve.
    pub ready: Ready,
}

/// Where the listeners are, with the ports that were free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BoundAddresses {
    /// `listen.bootstrap`.
    pub bootstrap: SocketAddr,
    /// `listen.vnfci`.
    pub vnfci: SocketAddr,
    /// `listen.management`.
    pub management: SocketAddr,
    /// `listen.est`, if there is one.
    pub est: Option<SocketAddr>,
    /// `listen.http`.
    pub http: SocketAddr,
    /// `listen.admin`.
    pub admin: SocketAddr,
}

/// Listeners that are bound: connections wait in the kernel until [`Bound::serve`].
pub struct Bound {
    addresses: BoundAddresses,
    grpc: [(Face, TcpListener, Arc<ArcSwap<ServerConfig>>); 3],
    est: Option<(TcpListener, Arc<ArcSwap<ServerConfig>>)>,
    http: TcpListener,
    admin: TcpListener,
    /// Where VNFCIs are served.
    apart: Apart,
    limits: Limits,
    metrics: PrometheusHandle,
    ready: Ready,
}

/// Binds every address and prepares TLS; all or none.
///
/// # Errors
/// [`ServeError::Bind`] and [`ServeError::Tls`], naming the configuration key.
pub fn bind(listeners: Listeners) -> Result<Bound, ServeError> {
    let Listeners { bootstrap, vnfci, management, est, http, admin, limits, metrics, ready } = listeners;
    let grpc = |face: Face, key: &'static str, listener: &TlsListener| {
        let config = tls::server_config(&listener.tls).map_err(|source| ServeError::Tls { key, source })?;
        let (socket, address) = bind_one(key, listener.address)?;
        Ok::<_, ServeError>(((face, socket, Arc::new(ArcSwap::new(config))), address))
    };
    let (bootstrap, bootstrap_address) = grpc(Face::Bootstrap, "listen.bootstrap", &bootstrap)?;
    let (vnfci, vnfci_address) = grpc(Face::Vnfci, "listen.vnfci", &vnfci)?;
    let (management, management_address) = grpc(Face::Management, "listen.management", &management)?;
    let est = est.map(|listener| {
        let key = "listen.est";
        let config = tls::est_config(&listener.tls).map_err(|source| ServeError::Tls { key, source })?;
        let (socket, address) = bind_one(key, listener.address)?;
        Ok::<_, ServeError>(((socket, Arc::new(ArcSwap::new(config))), address))
    });
    let (est, est_address) = est.transpose()?.unzip();
    let (http, http_address) = bind_one("listen.http", http)?;
    let (admin, admin_address) = bind_one("listen.admin", admin)?;
    let addresses = BoundAddresses {
        bootstrap: bootstrap_address,
        vnfci: vnfci_address,
        management: management_address,
        est: est_address,
        http: http_address,
        admin: admin_address,
    };
    let apart = Apart::start().map_err(ServeError::Threads)?;
    Ok(Bound {
        addresses,
        grpc: [bootstrap, vnfci, management],
        est,
        http,
        admin,
        apart,
        limits,
        metrics,
        ready,
    })
}

fn bind_one(key: &'static str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), ServeError> {
    let open = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let listener = socket.listen(BACKLOG)?;
        let bound = listener.local_addr()?;
        Ok((listener, bound))
    };
    open().map_err(|failure: std::io::Error| ServeError::bind(key, address, &failure))
}

/// [`bind`] and [`Bound::serve`] in one.
///
/// # Errors
/// As [`bind`].
pub fn serve(
    broker: Arc<Broker>,
    listeners: Listeners,
    shutdown: CancellationToken,
) -> Result<Running, ServeError> {
    Ok(bind(listeners)?.serve(broker, shutdown))
}

impl Bound {
    /// Where the listeners are.
    pub fn addresses(&self) -> BoundAddresses {
        self.addresses
    }

    /// Serves until `shutdown`, then drains: nothing new is accepted, calls that were begun may end within
    /// [`Limits::drain`], then connections are cut. `/readyz` says from `shutdown` on that the broker is stopping; metrics
    /// are served until the end.
    pub fn serve(self, broker: Arc<Broker>, shutdown: CancellationToken) -> Running {
        let running = TaskTracker::new();
        let closing = CancellationToken::new();
        let certificates = self.grpc.each_ref().map(|(face, _, config)| (*face, Arc::clone(config)));
        let mut draining = JoinSet::new();
        let together = Arc::new(Semaphore::new(self.limits.connections_together));
        for (face, listener, config) in self.grpc {
            let gate = Gate::new(Arc::clone(&broker), face, running.clone(), shutdown.clone());
            let (limits, together, threads) = match face {
                Face::Bootstrap | Face::Vnfci => (self.limits, Arc::clone(&together), self.apart.handle()),
                Face::Management => {
                    let connections = self.limits.connections.min(MANAGEMENT_CONNECTIONS);
                    let limits = Limits { connections, ..self.limits };
                    (limits, Arc::new(Semaphore::new(connections)), Handle::current())
                }
            };
            let acceptor = Acceptor {
                name: face.as_str(),
                listener,
                config,
                limits,
                together,
                stopping: shutdown.clone(),
                closing: closing.clone(),
            };
            let routes = with_health(face, api::services(gate), &self.ready, &shutdown);
            draining.spawn_on(serve_grpc(acceptor, routes, shutdown.clone()), &threads);
        }
        let est_certificate = self.est.as_ref().map(|(_, config)| Arc::clone(config));
        if let Some((listener, config)) = self.est {
            let acceptor = Acceptor {
                name: EST,
                listener,
                config,
                limits: self.limits,
                together,
                stopping: shutdown.clone(),
                closing: closing.clone(),
            };
            let routes = est::routes(Arc::clone(&broker), running.clone());
            let stopping = shutdown.clone();
            let served = async {
                http::serve_tls(acceptor.incoming(), routes, stopping).await;
                Ok(())
            };
            draining.spawn_on(served, &self.apart.handle());
        }
        let public = http::serve(self.http, http::public(broker), shutdown.clone());
        draining.spawn(async {
            public.await;
            Ok(())
        });
        let admin = http::admin(self.metrics, self.ready, shutdown.clone());
        let admin = tokio::spawn(http::serve(self.admin, admin, closing.clone()));
        let supervisor = Supervisor {
            draining,
            running,
            closing,
            admin,
            drain: self.limits.drain,
            shutdown,
            _apart: self.apart,
        };
        Running {
            addresses: self.addresses,
            certificates,
            est_certificate,
            supervisor: tokio::spawn(supervisor.run()),
        }
    }
}

/// Serves one gRPC listener until `stopping` and its connections have ended.
async fn serve_grpc(
    acceptor: Acceptor,
    routes: Routes,
    stopping: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    tonic::transport::Server::builder()
        .concurrency_limit_per_connection(CALLS_PER_CONNECTION)
        .max_concurrent_streams(u32::try_from(CALLS_PER_CONNECTION).unwrap_or(u32::MAX))
        .http2_max_header_list_size(HEADERS_MAX)
        .http2_max_pending_accept_reset_streams(Some(CALLS_PER_CONNECTION))
        .http2_keepalive_interval(Some(KEEPALIVE.0))
        .http2_keepalive_timeout(Some(KEEPALIVE.1))
        .max_connection_age(CONNECTION_AGE)
        .add_routes(routes)
        .serve_with_incoming_shutdown(acceptor.incoming(), stopping.cancelled_owned())
        .await
}

/// Adds the health service, which follows `ready`, and for management the reflection service.
fn with_health(face: Face, routes: Routes, ready: &Ready, stopping: &CancellationToken) -> Routes {
    let (reporter, health) = tonic_health::server::health_reporter();
    let (ready, stopping) = (Arc::clone(ready), stopping.clone());
    tokio::spawn(async move {
        let mut every_second = tokio::time::interval(Duration::from_secs(1));
        loop {
            let serving = !stopping.is_cancelled() && ready().is_ok();
            let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
            reporter.set_service_status("", status).await;
            tokio::select! {
                () = stopping.cancelled() => {
                    reporter.set_service_status("", ServingStatus::NotServing).await;
                    return;
                }
                _ = every_second.tick() => {}
            }
        }
    });
    let routes = routes.add_service(health);
    if face != Face::Management {
        return routes;
    }
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(api::proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1();
    match reflection {
        Ok(reflection) => routes.add_service(reflection),
        Err(failure) => {
            // Compiled in and covered by a test; a broker without reflection still works.
            tracing::error!(%failure, "no reflection service");
            routes
        }
    }
}

/// Listeners that serve.
pub struct Running {
    addresses: BoundAddresses,
    certificates: [(Face, Arc<ArcSwap<ServerConfig>>); 3],
    est_certificate: Option<Arc<ArcSwap<ServerConfig>>>,
    supervisor: JoinHandle<Result<(), ServeError>>,
}

impl Running {
    /// Says again how many connections there are: a gauge that is not set for a while is not told any more.
    pub fn tell_connections(&self) {
        let names = self.certificates.iter().map(|(face, _)| face.as_str());
        for name in names.chain(self.est_certificate.iter().map(|_| EST)) {
            accept::connections(name).increment(0.0);
        }
    }

    /// Where the listeners are.
    pub fn addresses(&self) -> BoundAddresses {
        self.addresses
    }

    /// Takes another certificate and key into use for new connections; open ones keep theirs.
    ///
    /// # Errors
    /// [`TlsError`]: the old ones stay.
    pub fn replace_tls(&self, face: Face, material: &TlsMaterial) -> Result<(), TlsError> {
        let config = tls::server_config(material)?;
        for (_, slot) in self.certificates.iter().filter(|(known, _)| *known == face) {
            slot.store(Arc::clone(&config));
        }
        Ok(())
    }

    /// [`Running::replace_tls`] for the EST listener, if there is one.
    ///
    /// # Errors
    /// As there.
    pub fn replace_est_tls(&self, material: &TlsMaterial) -> Result<(), TlsError> {
        if let Some(slot) = &self.est_certificate {
            slot.store(tls::est_config(material)?);
        }
        Ok(())
    }

    /// Waits until everything has been drained after the shutdown.
    ///
    /// # Errors
    /// [`ServeError::Ended`] if a listener ended without one; the others were drained then, too.
    pub async fn finished(self) -> Result<(), ServeError> {
        self.supervisor.await.unwrap_or_else(|panic| Err(ServeError::Ended(panic.to_string())))
    }
}

/// Watches the listeners and takes them down in order.
struct Supervisor {
    draining: JoinSet<Result<(), tonic::transport::Error>>,
    running: TaskTracker,
    closing: CancellationToken,
    admin: JoinHandle<()>,
    drain: Duration,
    shutdown: CancellationToken,
    /// Ends with the supervisor.
    _apart: Apart,
}

impl Supervisor {
    async fn run(mut self) -> Result<(), ServeError> {
        let mut outcome = Ok(());
        tokio::select! {
            // First: a listener that ended because of the shutdown did not end by itself.
            biased;
            () = self.shutdown.cancelled() => {}
            ended = self.draining.join_next() => {
                outcome = Err(ServeError::Ended(match ended {
                    Some(Ok(Err(failure))) => failure.to_string(),
                    Some(Err(panic)) => panic.to_string(),
                    _ => "without a reason".to_owned(),
                }));
                self.shutdown.cancel();
            }
        }
        self.running.close();
        let drained = tokio::time::timeout(self.drain, async {
            while self.draining.join_next().await.is_some() {}
            self.running.wait().await;
        });
        if drained.await.is_err() {
            tracing::warn!(drain = ?self.drain, "calls or connections did not end in time and are cut");
        }
        self.closing.cancel();
        self.draining.abort_all();
        // Requests to it are answered from memory.
        let _ = tokio::time::timeout(Duration::from_secs(1), self.admin).await;
        outcome
    }
}
