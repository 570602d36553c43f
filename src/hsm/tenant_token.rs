//! A tenant's own token. Unlike the broker's it may be away when the broker starts: only its tenant's calls fail then.

use super::lane::labels;
use super::served::Served;
use super::{HsmConfig, HsmError, HsmStatus, SignatureAlgorithm};
use crate::nfv::TenantId;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// How long the broker's start waits for a tenant's token. A module that hangs goes on starting behind it.
const FIRST_ATTEMPT: Duration = Duration::from_secs(5);
const FIRST_BACK_OFF: Duration = Duration::from_millis(500);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(10);

/// The token, served or on its way to it.
pub(super) struct TenantToken {
    state: Arc<State>,
    starter: Mutex<JoinSet<()>>,
}

struct State {
    tenant: TenantId,
    config: HsmConfig,
    /// Set once: from then on its lanes keep its workers alive.
    served: OnceLock<Served>,
    /// Why it is not served yet.
    problem: Mutex<HsmError>,
    /// One attempt at a time.
    attempt: tokio::sync::Mutex<()>,
}

impl TenantToken {
    /// Starts it, and goes on trying if it does not start.
    pub(super) async fn start(tenant: TenantId, config: HsmConfig) -> Self {
        let state = Arc::new(State {
            tenant,
            config,
            served: OnceLock::new(),
            problem: Mutex::new(HsmError::Unavailable("the token is being started".into())),
            attempt: tokio::sync::Mutex::new(()),
        });
        let (tried, first) = oneshot::channel();
        let mut starter = JoinSet::new();
        starter.spawn(Arc::clone(&state).keep_trying(tried));
        // Either it has been tried, or it takes too long to be waited for.
        let _ = timeout(FIRST_ATTEMPT, first).await;
        Self { state, starter: Mutex::new(starter) }
    }

    /// Its lanes.
    ///
    /// # Errors
    /// Why it is not served.
    pub(super) fn served(&self) -> Result<&Served, HsmError> {
        self.state.served.get().ok_or_else(|| {
            let problem = self.state.problem();
            let labels = labels(&self.state.config, "code", problem.code());
            metrics::counter!("keybroker_hsm_errors_total", labels).increment(1);
            problem
        })
    }

    /// As [`super::Hsm::status`].
    pub(super) fn status(&self) -> HsmStatus {
        match self.state.served.get() {
            Some(served) => served.status(),
            None => HsmStatus {
                available: false,
                problem: self.state.problem().to_string(),
                token_serial: String::new(),
                module: String::new(),
                suites: Vec::new(),
                oaep_hash: None,
                audit_algorithm: SignatureAlgorithm::EcdsaP256Sha256,
                memory_locked: false,
                workers: (0, 0),
                restarts: 0,
                worker_pids: Vec::new(),
            },
        }
    }

    /// Probes with the PIN that the file has now. A failure is logged.
    pub(super) async fn reload(&self) {
        let reloaded = match self.state.served.get() {
            Some(served) => served.reload().await,
            None => self.state.try_to_start().await,
        };
        if let Err(error) = reloaded {
            tracing::warn!(tenant = %self.state.tenant, %error, "the tenant's token is not reloaded");
        }
    }

    /// Ends it in order.
    pub(super) async fn shutdown(&self) {
        self.starter.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
        if let Some(served) = self.state.served.get() {
            served.shutdown().await;
        }
    }
}

impl State {
    fn problem(&self) -> HsmError {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn keep_trying(self: Arc<Self>, tried: oneshot::Sender<()>) {
        let mut started = self.try_to_start().await;
        // Whoever waited may have gone on.
        let _ = tried.send(());
        let mut pause = FIRST_BACK_OFF;
        while started.is_err() {
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_BACK_OFF);
            started = match self.problem() {
                // Another attempt would bring the token nearer to locking; a reload makes it.
                HsmError::WrongPin if self.served.get().is_none() => Err(HsmError::WrongPin),
                _ => self.try_to_start().await,
            };
        }
    }

    async fn try_to_start(&self) -> Result<(), HsmError> {
        let _one = self.attempt.lock().await;
        if self.served.get().is_some() {
            return Ok(());
        }
        match Served::start(self.config.clone()).await {
            Ok(served) => {
                // Nobody else sets it: attempts are made one at a time.
                let _ = self.served.set(served);
                tracing::info!(tenant = %self.tenant, token = self.config.token, "the tenant's token is served");
                Ok(())
            }
            Err(error) => {
                let mut problem = self.problem.lock().unwrap_or_else(PoisonError::into_inner);
                if problem.to_string() != error.to_string() {
                    tracing::error!(
                        tenant = %self.tenant, token = self.config.token, %error,
                        "the tenant's token is not served: its claims are refused, other tenants' are not"
                    );
                }
                *problem = error.clone();
                Err(error)
            }
        }
    }
}
