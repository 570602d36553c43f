//! `keybroker serve`: runs the broker until it is told to end.

use super::assembly;
use super::certificates::{ListenerTls, listener_tls};
use super::est_clients;
use super::failure::{Exit, Failure};
use crate::api::Face;
use crate::broker::Broker;
use crate::broker::background::Background;
use crate::config::{Config, StoreUrl};
use crate::hardening;
use crate::server::{self, Limits, Listeners, Running, TlsListener};
use crate::telemetry;
use arc_swap::ArcSwap;
use metrics_exporter_prometheus::PrometheusHandle;
use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// How long a start waits for a database or an HSM that is away.
const PATIENCE: Duration = Duration::from_secs(15);
/// From one attempt to start to the next.
const PAUSE: Duration = Duration::from_millis(500);
/// How often the readiness probe's answer is made anew.
const READINESS_PERIOD: Duration = Duration::from_secs(1);
/// How long the store may take to say that it is there before the probe says that it is not.
const READINESS_PATIENCE: Duration = Duration::from_millis(1_500);
/// How often the listeners' certificates are looked at.
const RENEWAL_PERIOD: Duration = Duration::from_secs(3_600);

/// The broker, what differs between store and token, and the listeners' TLS.
type Opened = (Arc<Broker>, Vec<String>, ListenerTls);

/// `serve`.
#[derive(Debug, clap::Args)]
pub struct ServeArgs {
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = "keybroker.toml")]
    config: PathBuf,
}

/// What the outside tells a running broker.
#[derive(Debug)]
pub struct Signals {
    /// Cancelled by SIGTERM and SIGINT: stop accepting, finish what is under way, end.
    pub stop: CancellationToken,
    /// One message per SIGHUP: the configuration, read again; a file that is not accepted is logged and not sent.
    pub reload: mpsc::Receiver<Config>,
}

/// Runs the command.
pub async fn command(args: ServeArgs) -> Result<(), Failure> {
    let config = Config::load(&args.config)?;
    let traces =
        telemetry::init_logging_and_traces(&config.log, &config.telemetry).map_err(Failure::usage)?;
    let metrics = telemetry::install_metrics().map_err(Failure::failed)?;
    let signals = signals(args.config).map_err(Failure::failed)?;
    let ended = run(config, signals, metrics).await;
    traces.flush().await;
    ended
}

/// Runs a broker with this configuration until `signals.stop` is cancelled and everything under way has ended.
///
/// 1. Be the only one; open store and HSM, compare them, report what differs; read or issue the listeners' certificates.
/// 2. Take the configured issuers into use.
/// 3. Bind every listener; start the background work; serve.
/// 4. Until told to stop, or the database was recovered under it: reload when told to, renew certificates, look whether the
///    broker is ready.
/// 5. Drain the listeners, end the background work, stop the HSM's workers.
///
/// # Errors
/// [`Failure`] if it cannot start, or is to be started again because the database was recovered.
pub async fn run(config: Config, mut signals: Signals, metrics: PrometheusHandle) -> Result<(), Failure> {
    // 1.
    assembly::refuse_lost_database(&config)?;
    let _only = only_process(&config)?;
    let (broker, findings, tls) = open_patiently(&config, &signals.stop).await?;
    // 2.
    broker.set_issuers(assembly::issuers(&broker, &config));
    // 3.
    let limits = Limits::from(config.listen.limits);
    let (descriptors, need) = (hardening::raise_descriptors(), limits.need(config.listen.with_tls()));
    if descriptors < need {
        tracing::warn!(
            descriptors,
            need,
            "fewer files may be open than connections are configured: some will wait; raise the limit (LimitNOFILE, ulimit -n) \
             or lower [listen.limits] connections"
        );
    }
    let readiness = Arc::new(ArcSwap::from_pointee(ready(&broker).await));
    let seen = Arc::clone(&readiness);
    let upkeep = metrics.clone();
    let est_tls = tls.bootstrap.clone();
    let listeners = Listeners {
        bootstrap: TlsListener { address: config.listen.bootstrap, tls: tls.bootstrap },
        vnfci: TlsListener { address: config.listen.vnfci, tls: tls.software.clone() },
        management: TlsListener { address: config.listen.management, tls: tls.software },
        est: config.listen.est.map(|address| TlsListener { address, tls: est_tls }),
        http: config.listen.http,
        admin: config.listen.admin,
        limits: limits.within(descriptors),
        metrics,
        ready: Arc::new(move || Result::clone(&seen.load())),
    };
    let running =
        server::serve(Arc::clone(&broker), listeners, signals.stop.clone()).map_err(Failure::failed)?;
    let background = Background::start(&broker, broker.holder());
    let addresses = running.addresses();
    tracing::info!(
        bootstrap = %addresses.bootstrap, vnfci = %addresses.vnfci, management = %addresses.management,
        est = addresses.est.map(tracing::field::display), http = %addresses.http, admin = %addresses.admin, findings = findings.len(), "serving"
    );
    let (reloaded_config, seen_config) = watch::channel(config.clone());
    let renewing =
        tokio::spawn(est_clients::keep_renewed(Arc::clone(&broker), seen_config, signals.stop.child_token()));
    // 4.
    let mut config = config;
    let mut look = tokio::time::interval(READINESS_PERIOD);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut renew = tokio::time::interval(RENEWAL_PERIOD);
    renew.reset();
    let outlived = loop {
        tokio::select! {
            () = signals.stop.cancelled() => break None,
            _ = look.tick() => {
                if let Some(sentence) = broker.outlived() {
                    signals.stop.cancel();
                    break Some(sentence);
                }
                readiness.store(Arc::new(ready(&broker).await));
                running.tell_connections();
                // Histograms are kept as samples until then.
                upkeep.run_upkeep();
            }
            _ = renew.tick() => renew_certificates(&broker, &config, &running).await,
            () = broker.ca_taken_into_use() => renew_certificates(&broker, &config, &running).await,
            Some(reloaded) = signals.reload.recv() => match broker.reload(assembly::settings(&reloaded)).await {
                Ok(()) => {
                    config = reloaded;
                    broker.set_issuers(assembly::issuers(&broker, &config));
                    reloaded_config.send_replace(config.clone());
                    renew_certificates(&broker, &config, &running).await;
                    tracing::info!("reloaded: profiles, PIN, tenants' settings, issuers; other changes need a restart");
                }
                Err(error) => tracing::error!(%error, "not reloaded: what was in force stays"),
            },
        }
    };
    // 5.
    tracing::info!("stopping: what is under way is finished");
    let drained = running.finished().await.map_err(Failure::failed);
    background.stop().await;
    // It ends by itself, at the latest when its enrolment server does not answer.
    renewing.abort();
    broker.close().await;
    drained?;
    outlived.map_or(Ok(()), |sentence| Err(Failure::unavailable(sentence)))
}

/// Opens everything, again and again while the database or the HSM is away, for [`PATIENCE`] at most: both are started again
/// beside a broker, and a supervisor that starts it too often gives it up.
async fn open_patiently(config: &Config, stop: &CancellationToken) -> Result<Opened, Failure> {
    let begun = Instant::now();
    let mut said = String::new();
    loop {
        let failure = match open(config).await {
            Err(failure) if failure.exit == Exit::Unavailable && begun.elapsed() < PATIENCE => failure,
            opened => return opened,
        };
        if failure.text != said {
            tracing::warn!(error = %failure, "not started yet: it is tried again for {PATIENCE:?} in all");
            said.clone_from(&failure.text);
        }
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = stop.cancelled() => return Err(failure),
        }
    }
}

async fn open(config: &Config) -> Result<Opened, Failure> {
    let broker = assembly::open(config).await?;
    let opened = async {
        broker.root_der()?;
        let findings = broker.reconcile().await?;
        let tls = listener_tls(&broker, config).await?;
        Ok((findings, tls))
    };
    match opened.await {
        Ok((findings, tls)) => Ok((broker, findings, tls)),
        Err(failure) => {
            broker.close().await;
            Err(failure)
        }
    }
}

/// As [`Broker::ready`], in bounded time.
async fn ready(broker: &Broker) -> Result<Vec<String>, String> {
    let late = || Err(format!("the database did not answer within {READINESS_PATIENCE:?}"));
    tokio::time::timeout(READINESS_PATIENCE, broker.ready()).await.unwrap_or_else(|_| late())
}

/// Makes sure that no other broker works on the embedded database, as long as the file is kept open. The lock is on a file
/// beside the database: closing another handle of the database itself would end SQLite's own locks.
/// Brokers on PostgreSQL share the database.
pub(super) fn only_process(config: &Config) -> Result<Option<File>, Failure> {
    let StoreUrl::Sqlite(database) = &config.store.url else { return Ok(None) };
    let mut path = database.clone().into_os_string();
    path.push(".lock");
    let failed =
        |error: std::io::Error| Failure::failed(format!("{} cannot be locked: {error}", path.display()));
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Err(Failure::unavailable(format!(
            "another broker works on {}: end it first, or give this one a database of its own ([store] url)",
            database.display()
        ))),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// Gives the listeners certificates that are good for a while. A failure leaves the old ones: it is tried again.
async fn renew_certificates(broker: &Arc<Broker>, config: &Config, running: &Running) {
    let renewed = async {
        let tls = listener_tls(broker, config).await?;
        running.replace_tls(Face::Bootstrap, &tls.bootstrap).map_err(Failure::failed)?;
        running.replace_est_tls(&tls.bootstrap).map_err(Failure::failed)?;
        running.replace_tls(Face::Vnfci, &tls.software).map_err(Failure::failed)?;
        running.replace_tls(Face::Management, &tls.software).map_err(Failure::failed)
    };
    if let Err(error) = renewed.await {
        tracing::error!(%error, "the listeners' certificates could not be renewed");
    }
}

fn signals(file: PathBuf) -> std::io::Result<Signals> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let stop = CancellationToken::new();
    let (reloads, reload) = mpsc::channel(1);
    let stopped = stop.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hangup.recv() => match Config::load(&file) {
                    Ok(config) => {
                        // A full queue means that a reload is waiting already, with the same file.
                        let _ = reloads.try_send(config);
                    }
                    Err(error) => tracing::error!(%error, "not reloaded: the running configuration stays in force"),
                },
            }
        }
        stopped.cancel();
        // A second signal ends at once what does not drain.
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::warn!("told to end twice: not waiting for what is under way");
        std::process::exit(1);
    });
    Ok(Signals { stop, reload })
}
