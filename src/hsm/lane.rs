//! The supervisor: each lane's queue is served by slots, and each slot keeps one worker process alive.
//!
//! A worker that ends, hangs or loses its token is replaced; what it had in hand fails with `Unavailable`, what waits
//! in the queue is served by its successor. After repeated failures to start, the lane's circuit is open: calls fail
//! at once, while its slots keep trying, until one start succeeds.

use super::child::{Worker, may_start_again};
use super::protocol::{Reply, Response, Task, Welcome};
use super::{HsmConfig, HsmError, Lane};
use metrics::Label;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::Span;
use zeroize::Zeroizing;

/// Failed starts in a row, and no live worker, that open a lane's circuit.
const CIRCUIT_OPENS_AFTER: u32 = 3;
/// Starts of a prober whose process ends before it has answered.
const PROBES: u32 = 3;
const FIRST_BACK_OFF: Duration = Duration::from_millis(50);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(5);

/// A call on its way to a worker.
pub(super) struct Job {
    pub(super) frame: Zeroizing<Vec<u8>>,
    pub(super) answer: oneshot::Sender<Result<Reply, HsmError>>,
    pub(super) deadline: Instant,
    /// When it was asked for.
    pub(super) queued: Instant,
    /// Of its trace; learns how long it waited.
    pub(super) span: Span,
}

/// What all slots share.
pub(super) struct Shared {
    pub(super) config: HsmConfig,
    /// Cancelled by shutdown.
    pub(super) stop: CancellationToken,
    /// Counts reloads; a waiting slot tries again at once.
    pub(super) reloads: watch::Sender<u64>,
    /// One log-in at a time: two attempts with a wrong PIN would be one more than needed.
    gate: tokio::sync::Mutex<()>,
    /// The token refused the PIN; nothing logs in before a reload.
    latched: AtomicBool,
    health: Mutex<Health>,
}

/// What [`super::HsmStatus`] is made of.
pub(super) struct Health {
    /// The prober's findings.
    pub(super) welcome: Welcome,
    /// Interactive, bulk.
    pub(super) lanes: [LaneHealth; 2],
    pub(super) restarts: u64,
}

#[derive(Default)]
pub(super) struct LaneHealth {
    /// Live workers.
    pub(super) pids: Vec<u32>,
    /// Starts that failed in a row, over all slots of the lane.
    failures: u32,
    /// The last failure's text.
    problem: String,
}

impl Shared {
    pub(super) fn new(config: HsmConfig, welcome: Welcome) -> Self {
        Self {
            config,
            stop: CancellationToken::new(),
            reloads: watch::Sender::new(0),
            gate: tokio::sync::Mutex::new(()),
            latched: AtomicBool::new(false),
            health: Mutex::new(Health { welcome, lanes: Default::default(), restarts: 0 }),
        }
    }

    pub(super) fn health(&self) -> MutexGuard<'_, Health> {
        // Every change under the lock is a single assignment: what a panicking thread left is consistent.
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why calls of this lane are refused at once; `None` if they may be queued.
    pub(super) fn refusal(&self, lane: Lane) -> Option<HsmError> {
        if self.stop.is_cancelled() {
            return Some(HsmError::Unavailable("the broker is shutting down".into()));
        }
        let health = self.health();
        let lane = &health.lanes[lane as usize];
        if !lane.pids.is_empty() {
            None
        } else if self.latched.load(Ordering::Acquire) {
            Some(HsmError::WrongPin)
        } else if lane.failures >= CIRCUIT_OPENS_AFTER {
            Some(HsmError::Unavailable(lane.problem.clone()))
        } else {
            None
        }
    }

    /// Starts a worker that serves. One at a time, none while the PIN is latched, and only on the token that the
    /// prober found: on another one every key would seem to be gone.
    pub(super) async fn start_worker(&self) -> Result<Worker, HsmError> {
        let _gate = self.gate.lock().await;
        if self.latched.load(Ordering::Acquire) {
            return Err(HsmError::WrongPin);
        }
        let Welcome { token_serial, capabilities, .. } = self.health().welcome.clone();
        let started = Worker::start(&self.config, Task::Serve(capabilities)).await;
        if matches!(started, Err(HsmError::WrongPin)) {
            tracing::error!("the token refused the PIN; no further log-in before a reload");
            self.latched.store(true, Ordering::Release);
        }
        let worker = started?;
        let answering = &worker.welcome.token_serial;
        if *answering != token_serial {
            return Err(HsmError::Unavailable(format!(
                "token {answering} answers in place of {token_serial}; reload if that is intended"
            )));
        }
        Ok(worker)
    }

    /// Clears the latch and probes again with the PIN that the file has now.
    pub(super) async fn probe_again(&self) -> Result<(), HsmError> {
        let gate = self.gate.lock().await;
        let probed = probe(&self.config).await;
        self.latched.store(matches!(probed, Err(HsmError::WrongPin)), Ordering::Release);
        drop(gate);
        let result = probed.map(|welcome| self.health().welcome = welcome);
        self.reloads.send_modify(|count| *count += 1);
        result
    }
}

/// Starts the prober, which logs in first and runs the self-test, and ends it. A module that ends its process while it is
/// loaded, or shows no token, is tried again: SoftHSM 2.6 does both when it reads a token that another process is just writing.
pub(super) async fn probe(config: &HsmConfig) -> Result<Welcome, HsmError> {
    let mut failures = 0;
    let prober = loop {
        match Worker::start(config, Task::Probe(config.sealing.clone())).await {
            Err(error) if failures + 1 < PROBES && may_start_again(&error) => {
                failures += 1;
                tracing::warn!(%error, failures, "the HSM's module is tried again");
                sleep(back_off(failures)).await;
            }
            started => break started?,
        }
    };
    let welcome = prober.welcome.clone();
    prober.retire().await;
    Ok(welcome)
}

/// The gauge of the calls that wait in a lane's queue.
pub(super) fn report_depth(config: &HsmConfig, lane: Lane, waiting: usize) {
    let waiting = u32::try_from(waiting).unwrap_or(u32::MAX);
    metrics::gauge!("keybroker_hsm_queue_depth", labels(config, "lane", lane.as_str()))
        .set(f64::from(waiting));
}

/// Labels of a metric of one token: the broker's own has no tenant.
pub(super) fn labels(config: &HsmConfig, name: &'static str, value: &'static str) -> Vec<Label> {
    let tenant = config.owner.as_ref().map(|tenant| Label::new("tenant", tenant.to_string()));
    std::iter::once(Label::from_static_parts(name, value)).chain(tenant).collect()
}

/// One place for a worker in a lane.
pub(super) struct Slot {
    pub(super) lane: Lane,
    pub(super) shared: Arc<Shared>,
    /// The lane's queue. Whoever is idle takes the next call.
    pub(super) queue: Arc<tokio::sync::Mutex<mpsc::Receiver<Job>>>,
}

/// Why a worker's service ended.
enum End {
    Stopped,
    Failed { answered: bool, reason: String },
}

/// A call that a worker has in hand.
struct Sent {
    answer: oneshot::Sender<Result<Reply, HsmError>>,
    /// When the worker began with it; before that, when it was sent.
    since: Instant,
    queued: Instant,
    span: Span,
}

impl Sent {
    /// The worker has nothing else in hand.
    fn begin(&mut self) {
        self.since = Instant::now();
        let waited = u64::try_from(self.queued.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.span.record("queue_us", waited);
    }
}

impl Slot {
    /// Keeps a worker alive until shutdown, or until the last [`super::Hsm`] is dropped.
    pub(super) async fn run(self) {
        let mut failures = 0;
        let mut reloads = self.shared.reloads.subscribe();
        loop {
            let started = tokio::select! {
                () = self.shared.stop.cancelled() => return,
                started = self.shared.start_worker() => started,
            };
            match started {
                Ok(worker) => {
                    self.lane_health(|lane| lane.failures = 0);
                    match self.serve(worker).await {
                        End::Stopped => return,
                        End::Failed { answered, reason } => {
                            failures = if answered { 0 } else { failures + 1 };
                            tracing::warn!(
                                lane = self.lane.as_str(),
                                reason,
                                "HSM worker failed; it is replaced"
                            );
                            self.shared.health().restarts += 1;
                            self.lane_health(|lane| lane.problem = reason);
                        }
                    }
                }
                Err(error) => {
                    failures += 1;
                    tracing::warn!(lane = self.lane.as_str(), %error, failures, "cannot start an HSM worker");
                    self.lane_health(|lane| {
                        lane.failures = lane.failures.saturating_add(1);
                        lane.problem = match &error {
                            // Its text only: it is given out as an `Unavailable` again.
                            HsmError::Unavailable(text) => text.clone(),
                            other => other.to_string(),
                        };
                    });
                    self.refuse_waiting();
                    if matches!(error, HsmError::WrongPin) {
                        tokio::select! {
                            () = self.shared.stop.cancelled() => return,
                            _ = reloads.changed() => continue,
                        }
                    }
                }
            }
            tokio::select! {
                () = self.shared.stop.cancelled() => return,
                _ = reloads.changed() => {}
                () = sleep(back_off(failures)) => {}
            }
        }
    }

    async fn serve(&self, mut worker: Worker) -> End {
        let limit = self.shared.config.call_deadline;
        let mut registered = Registered::new(self, worker.pid);
        let mut sent: VecDeque<Sent> = VecDeque::new();
        let mut answered = false;
        let mut recycle_at = self.shared.config.recycle_after;
        let mut starting: Option<JoinHandle<Result<Worker, HsmError>>> = None;
        let mut successor: Option<Worker> = None;
        loop {
            if sent.is_empty()
                && let Some(next) = successor.take()
            {
                let old = std::mem::replace(&mut worker, next);
                registered = Registered::new(self, worker.pid);
                recycle_at = self.shared.config.recycle_after;
                tokio::spawn(old.retire());
            }
            let stopping = self.shared.stop.is_cancelled();
            let takes = sent.len() < self.ahead() && successor.is_none() && !stopping;
            let front_deadline = sent.front().map_or_else(Instant::now, |front| front.since + limit);
            tokio::select! {
                biased;
                response = worker.receive::<Response>() => {
                    let response = match response {
                        Ok(response) => response,
                        Err(error) => {
                            worker.kill().await;
                            let reason = format!("its process ended ({error})");
                            fail_all(sent, &reason);
                            return End::Failed { answered, reason };
                        }
                    };
                    answered |= !response.lost;
                    let lost = response.lost.then(|| "it lost the token, its log-in or sight of an object".to_owned());
                    if let Some(done) = sent.pop_front() {
                        // The caller may have given up; then nobody wants the answer.
                        let _ = done.answer.send(response.result);
                    }
                    if let Some(front) = sent.front_mut() {
                        front.begin();
                    }
                    if let Some(reason) = lost {
                        worker.kill().await;
                        fail_all(sent, &reason);
                        return End::Failed { answered, reason };
                    }
                    if response.objects_made >= recycle_at && starting.is_none() && successor.is_none() {
                        let shared = Arc::clone(&self.shared);
                        starting = Some(tokio::spawn(async move { shared.start_worker().await }));
                        // Should the successor's start fail, the next attempt is a while off.
                        recycle_at = response.objects_made + self.shared.config.recycle_after / 10 + 1;
                    }
                }
                () = sleep_until(front_deadline), if !sent.is_empty() => {
                    worker.kill().await;
                    if let Some(late) = sent.pop_front() {
                        let _ = late.answer.send(Err(HsmError::DeadlineExceeded(limit)));
                    }
                    let reason = format!("it did not answer within {limit:?} and was killed");
                    fail_all(sent, &reason);
                    return End::Failed { answered, reason };
                }
                started = join(&mut starting), if starting.is_some() => {
                    starting = None;
                    match started {
                        Ok(next) => successor = Some(next),
                        Err(error) => tracing::warn!(%error, "an HSM worker is due for replacement but no new one starts"),
                    }
                }
                () = self.shared.stop.cancelled(), if sent.is_empty() => {
                    drop(registered);
                    worker.retire().await;
                    return End::Stopped;
                }
                job = self.next_job(), if takes => {
                    let Some(job) = job else {
                        if sent.is_empty() {
                            worker.retire().await;
                            return End::Stopped;
                        }
                        self.shared.stop.cancel();
                        continue;
                    };
                    if job.deadline <= Instant::now() {
                        let _ = job.answer.send(Err(HsmError::DeadlineExceeded(limit)));
                        continue;
                    }
                    let written = timeout(limit, worker.send(&job.frame)).await;
                    let Job { answer, queued, span, .. } = job;
                    let mut next = Sent { answer, since: Instant::now(), queued, span };
                    if sent.is_empty() {
                        next.begin();
                    }
                    sent.push_back(next);
                    if !matches!(written, Ok(Ok(()))) {
                        worker.kill().await;
                        let reason = "its socket takes no more".to_owned();
                        fail_all(sent, &reason);
                        return End::Failed { answered, reason };
                    }
                }
            }
        }
    }

    /// Calls that a worker may have in hand. A second one hides the socket's round trip where calls are short;
    /// in the bulk lane it would only wait behind a long one.
    fn ahead(&self) -> usize {
        match self.lane {
            Lane::Interactive => 2,
            Lane::Bulk => 1,
        }
    }

    async fn next_job(&self) -> Option<Job> {
        let mut queue = self.queue.lock().await;
        let job = queue.recv().await;
        report_depth(&self.shared.config, self.lane, queue.len());
        job
    }

    /// With the circuit open nobody waits for a worker.
    fn refuse_waiting(&self) {
        let Some(error) = self.shared.refusal(self.lane) else { return };
        // A held lock means that a slot of this lane serves after all.
        let Ok(mut queue) = self.queue.try_lock() else { return };
        while let Ok(job) = queue.try_recv() {
            let _ = job.answer.send(Err(error.clone()));
        }
        report_depth(&self.shared.config, self.lane, queue.len());
    }

    fn lane_health(&self, change: impl FnOnce(&mut LaneHealth)) {
        change(&mut self.shared.health().lanes[self.lane as usize]);
    }
}

/// A live worker in the status, until dropped.
struct Registered<'a> {
    slot: &'a Slot,
    pid: u32,
}

impl<'a> Registered<'a> {
    fn new(slot: &'a Slot, pid: u32) -> Self {
        slot.lane_health(|lane| lane.pids.push(pid));
        Self { slot, pid }
    }
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.slot.lane_health(|lane| lane.pids.retain(|pid| *pid != self.pid));
    }
}

async fn join(starting: &mut Option<JoinHandle<Result<Worker, HsmError>>>) -> Result<Worker, HsmError> {
    match starting {
        Some(handle) => {
            handle.await.unwrap_or_else(|_| Err(HsmError::Unavailable("start was aborted".into())))
        }
        None => std::future::pending().await,
    }
}

fn fail_all(sent: VecDeque<Sent>, reason: &str) {
    for call in sent {
        let _ = call.answer.send(Err(HsmError::Unavailable(format!("the HSM worker failed: {reason}"))));
    }
}

fn back_off(failures: u32) -> Duration {
    match failures {
        0 => Duration::ZERO,
        _ => FIRST_BACK_OFF.saturating_mul(1 << (failures - 1).min(10)).min(LONGEST_BACK_OFF),
    }
}
