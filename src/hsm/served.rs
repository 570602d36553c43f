//! One token: its lanes and the calls through them.

use super::child::read_pin;
use super::circuit::Circuits;
use super::lane::{Job, Shared, Slot, labels, probe, report_depth};
use super::protocol::{self, Reply, Request, Response};
use super::{HsmConfig, HsmError, HsmStatus, Lane, ObjectId, SignatureAlgorithm, VerifiedGone};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::field::Empty;
use tracing::{Instrument, Span};

/// A token with its workers. When it is dropped they are killed.
pub(super) struct Served {
    shared: Arc<Shared>,
    interactive: mpsc::Sender<Job>,
    bulk: mpsc::Sender<Job>,
    circuits: Circuits,
    slots: Mutex<JoinSet<()>>,
}

impl Served {
    /// Checks the configuration, probes, starts the workers, and returns once each lane has one.
    ///
    /// # Errors
    /// As [`super::Hsm::start_with_tenants`].
    pub(super) async fn start(config: HsmConfig) -> Result<Self, HsmError> {
        check(&config)?;
        let welcome = probe(&config).await?;
        tracing::info!(
            tenant = config.owner.as_ref().map(tracing::field::display),
            token_serial = welcome.token_serial,
            module = welcome.module,
            suites = ?welcome.capabilities.suites,
            oaep_hash = ?welcome.capabilities.oaep_hash,
            ed25519 = welcome.capabilities.ed25519,
            missing = ?welcome.capabilities.missing,
            memory_locked = welcome.memory_locked,
            "HSM probed"
        );
        let (interactive, interactive_queue) = mpsc::channel(config.queue.max(1));
        let (bulk, bulk_queue) = mpsc::channel(config.queue.max(1));
        let slots = [
            (Lane::Interactive, config.interactive_workers, interactive_queue),
            (Lane::Bulk, config.bulk_workers, bulk_queue),
        ];
        let shared = Arc::new(Shared::new(config, welcome));
        let mut tasks = JoinSet::new();
        for (lane, workers, queue) in slots {
            let queue = Arc::new(tokio::sync::Mutex::new(queue));
            for _ in 0..workers.max(1) {
                let slot = Slot { lane, shared: Arc::clone(&shared), queue: Arc::clone(&queue) };
                tasks.spawn(slot.run());
            }
        }
        // A token has names of its owner only.
        let id = shared.config.owner.clone().map_or(ObjectId::Root(1), ObjectId::TokenMac);
        let served =
            Self { shared, interactive, bulk, circuits: Circuits::default(), slots: Mutex::new(tasks) };
        // An idle call in each lane: it is answered as soon as a worker is there.
        for lane in [Lane::Interactive, Lane::Bulk] {
            served.call("start", lane, &Request::ObjectExists { id: id.clone() }).await?;
        }
        Ok(served)
    }

    /// Health and capabilities, now.
    pub(super) fn status(&self) -> HsmStatus {
        let shared = &self.shared;
        let refusals = [shared.refusal(Lane::Interactive), shared.refusal(Lane::Bulk)];
        let health = shared.health();
        let capabilities = &health.welcome.capabilities;
        let [interactive, bulk] = &health.lanes;
        let now = Instant::now();
        let [failing, failing_bulk] =
            [Lane::Interactive, Lane::Bulk].map(|lane| self.circuits.open(lane, now));
        let problem = match refusals.iter().flatten().next() {
            Some(refusal) => refusal.to_string(),
            None if !failing.is_empty() => failing.join("; "),
            None if capabilities.suites.is_empty() => {
                "no configured sealing suite passed the self-test: nothing can be claimed".into()
            }
            None => failing_bulk.join("; "),
        };
        HsmStatus {
            available: refusals.iter().all(Option::is_none) && failing.is_empty(),
            problem,
            token_serial: health.welcome.token_serial.clone(),
            module: health.welcome.module.clone(),
            suites: capabilities.suites.clone(),
            oaep_hash: capabilities.oaep_hash,
            audit_algorithm: if capabilities.ed25519 {
                SignatureAlgorithm::Ed25519
            } else {
                SignatureAlgorithm::EcdsaP256Sha256
            },
            memory_locked: health.welcome.memory_locked,
            workers: (interactive.pids.len(), bulk.pids.len()),
            restarts: health.restarts,
            worker_pids: interactive.pids.iter().chain(&bulk.pids).copied().collect(),
        }
    }

    /// Reads the PIN file again, probes with it, and lets waiting workers start. Live workers stay.
    ///
    /// # Errors
    /// As [`Served::start`]. After [`HsmError::WrongPin`] the latch is closed again.
    pub(super) async fn reload(&self) -> Result<(), HsmError> {
        self.shared.probe_again().await
    }

    /// Lets calls that are under way finish, ends the workers and waits for that. Calls after it fail.
    pub(super) async fn shutdown(&self) {
        self.shared.stop.cancel();
        let mut slots = std::mem::take(&mut *self.slots.lock().unwrap_or_else(PoisonError::into_inner));
        while slots.join_next().await.is_some() {}
    }

    /// One verb.
    ///
    /// # Errors
    /// Those of every verb, and its own.
    pub(super) async fn call(
        &self,
        verb: &'static str,
        lane: Lane,
        request: &Request,
    ) -> Result<Reply, HsmError> {
        let started = Instant::now();
        let span = span(verb, lane);
        let result = self.submit(verb, lane, request, started).instrument(span.clone()).await;
        if let Err(error) = &result {
            span.record("error", error.code());
            span.record("otel.status_code", "ERROR");
        }
        self.observe(verb, lane, started, result.as_ref().err());
        result
    }

    /// Looks for `ids` in a process that is started for this question.
    ///
    /// # Errors
    /// As [`super::Hsm::verify_destroyed`].
    pub(super) async fn verify_destroyed(&self, ids: Vec<ObjectId>) -> Result<VerifiedGone, HsmError> {
        let started = Instant::now();
        let result = self.ask_fresh_process(ids).instrument(span("verify_destroyed", Lane::Bulk)).await;
        self.observe("verify_destroyed", Lane::Bulk, started, result.as_ref().err());
        result
    }

    /// Workers that chunks can be spread over.
    pub(super) fn bulk_workers(&self) -> usize {
        self.shared.config.bulk_workers.max(1)
    }

    async fn ask_fresh_process(&self, ids: Vec<ObjectId>) -> Result<VerifiedGone, HsmError> {
        let limit = self.shared.config.call_deadline;
        let frame = encode(&Request::VerifyDestroyed { ids })?;
        let mut process = self.shared.start_worker().await?;
        let exchange = async {
            process.send(&frame).await?;
            process.receive::<Response>().await
        };
        let response = timeout(limit, exchange)
            .await
            .map_err(|_| HsmError::DeadlineExceeded(limit))?
            .map_err(|error| HsmError::Unavailable(format!("the verifying process ended: {error}")))?;
        process.retire().await;
        match response.result? {
            Reply::Gone(gone) => Ok(gone),
            _ => Err(HsmError::Unavailable("the worker gave an answer to another question".into())),
        }
    }

    async fn submit(
        &self,
        verb: &'static str,
        lane: Lane,
        request: &Request,
        started: Instant,
    ) -> Result<Reply, HsmError> {
        if let Some(refusal) = self.shared.refusal(lane) {
            return Err(refusal);
        }
        self.circuits.admit(lane, verb, started)?;
        let result = self.ask_a_worker(lane, request, started).await;
        self.circuits.ended(lane, verb, result.as_ref().err(), Instant::now());
        result
    }

    async fn ask_a_worker(&self, lane: Lane, request: &Request, started: Instant) -> Result<Reply, HsmError> {
        let queue = match lane {
            Lane::Interactive => &self.interactive,
            Lane::Bulk => &self.bulk,
        };
        let limit = self.shared.config.call_deadline;
        let deadline = started + limit;
        let (answer, answered) = oneshot::channel();
        let job = Job { frame: encode(request)?, answer, deadline, queued: started, span: Span::current() };
        queue.try_send(job).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => HsmError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => {
                HsmError::Unavailable("the broker is shutting down".into())
            }
        })?;
        report_depth(&self.shared.config, lane, queue.max_capacity() - queue.capacity());
        match timeout_at(deadline, answered).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(HsmError::Unavailable("the broker is shutting down".into())),
            Err(_) => Err(HsmError::DeadlineExceeded(limit)),
        }
    }

    fn observe(&self, verb: &'static str, lane: Lane, started: Instant, error: Option<&HsmError>) {
        let duration = started.elapsed();
        let outcome = error.map_or("ok", HsmError::code);
        let labels = |name, value| labels(&self.shared.config, name, value);
        metrics::histogram!("keybroker_hsm_call_seconds", labels("verb", verb))
            .record(duration.as_secs_f64());
        if error.is_some() {
            metrics::counter!("keybroker_hsm_errors_total", labels("code", outcome)).increment(1);
        }
        tracing::debug!(verb, lane = lane.as_str(), ?duration, outcome, "HSM call");
    }
}

fn check(config: &HsmConfig) -> Result<(), HsmError> {
    let module = config.module.display();
    if !config.module.is_absolute() {
        return Err(HsmError::Configuration(format!("module must be an absolute path, not {module}")));
    }
    if !config.module.is_file() {
        return Err(HsmError::Configuration(format!(
            "the PKCS#11 module {module} does not exist; set module in {} to the HSM vendor's library, or install softhsm2",
            config.section()
        )));
    }
    read_pin(&config.pin_file).map(drop)
}

fn encode(request: &Request) -> Result<zeroize::Zeroizing<Vec<u8>>, HsmError> {
    protocol::frame(request)
        .map_err(|error| HsmError::Refused(format!("the request cannot be sent: {error}")))
}

/// A child of what asks, in the traces. What nobody asks for has no trace: background work would fill the collector.
fn span(verb: &'static str, lane: Lane) -> Span {
    if Span::current().is_none() {
        return Span::none();
    }
    tracing::trace_span!(
        "hsm",
        otel.name = format!("hsm {verb}"),
        otel.kind = "client",
        otel.status_code = Empty,
        verb,
        lane = lane.as_str(),
        queue_us = Empty,
        error = Empty,
    )
}
