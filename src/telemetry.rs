//! Logs to standard error, the recorder of metrics, and traces to an OpenTelemetry collector.
//!
//! Log and traces do not mix: spans of the level TRACE are for the collector, all others are the log's. Without a
//! collector nothing enables the former, and they cost a comparison each.

use crate::config::{Log, LogFormat, Telemetry};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_util::MetricKindMask;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::WithExportConfig;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider, SpanData, SpanExporter,
};
use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tracing::{Level, Metadata};
use tracing_subscriber::filter::{FilterExt, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// Bounds of the histograms' buckets: from a signature of the HSM (tens of microseconds) to a call's deadline.
const SECONDS: [f64; 14] =
    [0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

/// A gauge that was not set for so long is not told any more: another broker does that work now, or the pool is deleted. Longer
/// than any work's period.
const GAUGE_STALE: Duration = Duration::from_secs(30);

/// Spans that may wait for the collector; more are dropped.
const SPANS_WAITING: usize = 8_192;
/// Spans sent at once.
const SPANS_SENT: usize = 512;
/// How long spans wait for others before they are sent.
const SPANS_DELAY: Duration = Duration::from_secs(1);
/// A collector that takes longer for a batch has lost it.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the last spans may take at the end.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);

/// Telemetry that could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The level is no filter.
    #[error(
        "[log] level {level:?} is no log filter ({problem}); write e.g. \"info\" or \"info,keybroker=debug\""
    )]
    Level {
        /// As configured.
        level: String,
        /// What the parser says.
        problem: String,
    },
    /// No exporter for the endpoint.
    #[error("[telemetry] otlp_endpoint: {0}")]
    Exporter(String),
    /// It was set up before in this process.
    #[error("logging or metrics were set up twice: {0}")]
    Twice(String),
}

/// The traces of this process, if there are any.
#[derive(Debug)]
pub struct Traces(Option<SdkTracerProvider>);

impl Traces {
    /// Sends what waits, within 3 seconds; the rest is lost. Spans that end later go nowhere.
    pub async fn flush(self) {
        let Some(provider) = self.0 else { return };
        // It blocks its thread until the exporter's has sent.
        let flushed =
            tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(FLUSH_TIMEOUT)).await;
        if let Ok(Err(error)) = flushed {
            tracing::warn!(%error, "the last traces were not sent");
        }
    }
}

/// Sends logs to standard error, as configured, for the life of the process.
///
/// # Errors
/// [`TelemetryError`].
pub fn init_logging(log: &Log) -> Result<(), TelemetryError> {
    init(log, None)
}

/// The same, and traces to the collector, if one is configured. To be called inside a Tokio runtime.
///
/// # Errors
/// [`TelemetryError`].
pub fn init_logging_and_traces(log: &Log, telemetry: &Telemetry) -> Result<Traces, TelemetryError> {
    let Some(endpoint) = &telemetry.otlp_endpoint else {
        init_logging(log)?;
        return Ok(Traces(None));
    };
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint.as_str())
        .with_timeout(EXPORT_TIMEOUT)
        .build()
        .map_err(|error| TelemetryError::Exporter(error.to_string()))?;
    let batches = BatchConfigBuilder::default()
        .with_max_queue_size(SPANS_WAITING)
        .with_max_export_batch_size(SPANS_SENT)
        .with_scheduled_delay(SPANS_DELAY)
        .build();
    let exporter = Exporter { collector: exporter, failing: AtomicBool::new(false) };
    let resource = Resource::builder_empty()
        .with_service_name(telemetry.service_name.clone())
        .with_attribute(opentelemetry::KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build();
    let provider = SdkTracerProvider::builder()
        .with_resource(resource)
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(telemetry.sampling.0))))
        .with_span_processor(BatchSpanProcessor::builder(exporter).with_batch_config(batches).build())
        .build();
    init(log, Some(&provider))?;
    Ok(Traces(Some(provider)))
}

fn init(log: &Log, traces: Option<&SdkTracerProvider>) -> Result<(), TelemetryError> {
    let level = EnvFilter::try_new(&log.level)
        .map_err(|error| TelemetryError::Level { level: log.level.clone(), problem: error.to_string() })?;
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let lines = match log.format {
        LogFormat::Text => lines.with_target(false).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let lines = lines.with_filter(level.and(filter_fn(|metadata| !of_a_trace(metadata))));
    let spans = traces.map(|provider| {
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("keybroker"))
            // Of the code and its threads nobody outside needs to know.
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_level(false)
            .with_tracked_inactivity(false)
            .with_filter(filter_fn(of_a_trace))
    });
    tracing_subscriber::registry()
        .with(lines)
        .with(spans)
        .try_init()
        .map_err(|error| TelemetryError::Twice(error.to_string()))
}

/// Our own spans of the level TRACE.
fn of_a_trace(metadata: &Metadata<'_>) -> bool {
    metadata.is_span() && *metadata.level() == Level::TRACE && metadata.target().starts_with("keybroker")
}

/// Sends to the collector, counts, and says once that it is away and once that it is back.
#[derive(Debug)]
struct Exporter {
    collector: opentelemetry_otlp::SpanExporter,
    failing: AtomicBool,
}

impl SpanExporter for Exporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len() as u64;
        let sent = self.collector.export(batch).await;
        let outcome = if sent.is_ok() { "sent" } else { "lost" };
        metrics::counter!("keybroker_trace_spans_total", "outcome" => outcome).increment(spans);
        match (&sent, self.failing.swap(sent.is_err(), Ordering::Relaxed)) {
            (Err(error), false) => {
                tracing::warn!(%error, "the collector of traces is away: they are dropped until it is back");
            }
            (Ok(()), true) => tracing::info!("the collector of traces is back"),
            _ => {}
        }
        sent
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.collector.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.collector.set_resource(resource);
    }
}

/// Installs the recorder of metrics; the handle renders them in Prometheus' text format.
///
/// # Errors
/// [`TelemetryError::Twice`].
pub fn install_metrics() -> Result<PrometheusHandle, TelemetryError> {
    PrometheusBuilder::new()
        .idle_timeout(MetricKindMask::GAUGE, Some(GAUGE_STALE))
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)
        .and_then(PrometheusBuilder::install_recorder)
        .map_err(|error| TelemetryError::Twice(error.to_string()))
}
