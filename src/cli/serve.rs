//! `keybroker serve`: runs the broker until it is told to end.

use super::failure::Failure;
use crate::config::Config;
use crate::telemetry;
use metrics_exporter_prometheus::PrometheusHandle;
use std::path::PathBuf;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

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
    telemetry::init_logging(&config.log).map_err(Failure::usage)?;
    let metrics = telemetry::install_metrics().map_err(Failure::failed)?;
    let signals = signals(args.config).map_err(Failure::failed)?;
    run(config, signals, metrics).await
}

/// Runs a broker with this configuration until `signals.stop` is cancelled and everything under way has ended.
///
/// # Errors
/// [`Failure`] if it cannot start.
pub async fn run(_config: Config, _signals: Signals, _metrics: PrometheusHandle) -> Result<(), Failure> {
    Err(Failure::failed("this build has no broker to serve"))
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
