//! [`Hsm`]: what the broker holds. One method per verb.

use super::child::read_pin;
use super::lane::{Job, Shared, Slot, probe, report_depth};
use super::protocol::{self, Reply, Request, Response};
use super::{
    HsmConfig, HsmError, HsmStatus, Lane, ObjectId, Produced, SealRequest, SealedKey, SignatureAlgorithm,
    TokenObject, VerifiedGone,
};
use crate::credential::KeyType;
use crate::nfv::{EpochId, TenantId};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

/// The HSM: cheap to clone, all clones share the same workers. When the last one is dropped the workers are
/// killed; [`Hsm::shutdown`] ends them in order.
///
/// Every verb can fail with [`HsmError::Unavailable`], [`HsmError::Overloaded`], [`HsmError::DeadlineExceeded`],
/// [`HsmError::WrongPin`] and [`HsmError::Module`]; a verb's own errors are listed with it.
#[derive(Clone)]
pub struct Hsm(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    interactive: mpsc::Sender<Job>,
    bulk: mpsc::Sender<Job>,
    slots: Mutex<JoinSet<()>>,
    runtime: Handle,
}

/// Calls in one chunk of the bulk lane, so that a chunk takes about 20 ms at most.
const P256_KEYS_PER_CHUNK: u32 = 64;
const P384_KEYS_PER_CHUNK: u32 = 16;
const DEKS_PER_CHUNK: usize = 256;
const SIGNATURES_PER_CHUNK: usize = 256;

impl Hsm {
    /// Checks the configuration, lets one prober log in and run the self-test, and starts the lanes' workers.
    /// Returns once each lane has a worker.
    ///
    /// # Errors
    /// [`HsmError::Configuration`] (module file, PIN file, two tokens of one label), [`HsmError::WrongPin`],
    /// [`HsmError::Unavailable`] if the module does not load, the token is missing or the self-test fails.
    pub async fn start(config: HsmConfig) -> Result<Self, HsmError> {
        check(&config)?;
        let welcome = probe(&config).await?;
        tracing::info!(
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
        let runtime = Handle::current();
        let hsm = Self(Arc::new(Inner { shared, interactive, bulk, slots: Mutex::new(tasks), runtime }));
        // An idle call in each lane: it is answered as soon as a worker is there.
        let id = ObjectId::Root(1);
        for lane in [Lane::Interactive, Lane::Bulk] {
            hsm.call("start", lane, &Request::ObjectExists { id: id.clone() }).await?;
        }
        Ok(hsm)
    }

    /// Health and capabilities, now.
    pub fn status(&self) -> HsmStatus {
        let shared = &self.0.shared;
        let refusals = [shared.refusal(Lane::Interactive), shared.refusal(Lane::Bulk)];
        let health = shared.health();
        let capabilities = &health.welcome.capabilities;
        let [interactive, bulk] = &health.lanes;
        let problem = match refusals.iter().flatten().next() {
            Some(refusal) => refusal.to_string(),
            None if capabilities.suites.is_empty() => {
                "no configured sealing suite passed the self-test: nothing can be claimed".into()
            }
            None => String::new(),
        };
        HsmStatus {
            available: refusals.iter().all(Option::is_none),
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
    /// As [`Hsm::start`]. After [`HsmError::WrongPin`] the latch is closed again.
    pub async fn reload(&self) -> Result<(), HsmError> {
        self.0.shared.probe_again().await
    }

    /// Lets calls that are under way finish, ends the workers and waits for that. Calls after it fail.
    pub async fn shutdown(&self) {
        self.0.shared.stop.cancel();
        let mut slots = std::mem::take(&mut *self.0.slots.lock().unwrap_or_else(PoisonError::into_inner));
        while slots.join_next().await.is_some() {}
    }

    /// Makes `count` key pairs in the HSM. Only their public halves and wrapped private halves come out. EC keys
    /// are made in chunks of 64 (P-384: 16), RSA keys one by one, on all bulk workers at once. If one chunk fails, all do.
    ///
    /// # Errors
    /// [`HsmError::NotFound`] if the tenant has no KEK of this epoch.
    pub async fn produce(
        &self,
        tenant: &TenantId,
        epoch: EpochId,
        key_type: KeyType,
        count: u32,
    ) -> Result<Produced, HsmError> {
        let per_chunk = match key_type {
            KeyType::EcP256 => P256_KEYS_PER_CHUNK,
            KeyType::EcP384 => P384_KEYS_PER_CHUNK,
            KeyType::Rsa2048 | KeyType::Rsa3072 | KeyType::Rsa4096 => 1,
        };
        let chunks = (0..count).step_by(per_chunk as usize).map(|made| (count - made).min(per_chunk));
        let workers = self.0.shared.config.bulk_workers.max(1);
        let produced: Vec<Produced> =
            stream::iter(chunks.map(|chunk| self.produce_chunk(tenant, epoch, key_type, chunk)))
                .buffered(workers)
                .try_collect()
                .await?;
        let mut all = Produced { keys: Vec::new(), mechanisms: Vec::new(), duration: Duration::ZERO };
        for chunk in produced {
            all.keys.extend(chunk.keys);
            all.mechanisms = chunk.mechanisms;
            all.duration += chunk.duration;
        }
        Ok(all)
    }

    async fn produce_chunk(
        &self,
        tenant: &TenantId,
        epoch: EpochId,
        key_type: KeyType,
        count: u32,
    ) -> Result<Produced, HsmError> {
        let request = Request::Produce { tenant: tenant.clone(), epoch, key_type, count };
        match self.call("produce", Lane::Bulk, &request).await? {
            Reply::Produced(produced) => Ok(produced),
            _ => Err(unexpected()),
        }
    }

    /// Seals the keys of one claim to one recipient; the answers are in the items' order.
    ///
    /// # Errors
    /// [`HsmError::NotFound`] for a KEK that is gone, or that is another tenant's;
    /// [`HsmError::Refused`] for an unknown suite, a bad recipient key or a blob of another version.
    pub async fn seal(&self, request: SealRequest) -> Result<Vec<SealedKey>, HsmError> {
        match self.call("seal", Lane::Interactive, &Request::Seal(request)).await? {
            Reply::Sealed(sealed) => Ok(sealed),
            _ => Err(unexpected()),
        }
    }

    /// Signs each message with the private key of `key`; the signatures are in the messages' order.
    ///
    /// # Errors
    /// [`HsmError::NotFound`] if there is no such key.
    pub async fn sign(
        &self,
        lane: Lane,
        key: &ObjectId,
        algorithm: SignatureAlgorithm,
        messages: Vec<Vec<u8>>,
    ) -> Result<Vec<Vec<u8>>, HsmError> {
        let mut signatures = Vec::with_capacity(messages.len());
        let mut messages = messages.into_iter().peekable();
        while messages.peek().is_some() {
            let chunk = messages.by_ref().take(SIGNATURES_PER_CHUNK).collect();
            let request = Request::Sign { key: key.clone(), algorithm, messages: chunk };
            match self.call("sign", lane, &request).await? {
                Reply::Signatures(chunk) => signatures.extend(chunk),
                _ => return Err(unexpected()),
            }
        }
        Ok(signatures)
    }

    /// One signature for a caller that cannot wait asynchronously: the TLS stack, on a thread of a multi-thread
    /// runtime, or a thread outside of any runtime.
    ///
    /// # Errors
    /// As [`Hsm::sign`]; [`HsmError::Refused`] on a current-thread runtime, which it would block.
    pub fn sign_blocking(
        &self,
        key: &ObjectId,
        algorithm: SignatureAlgorithm,
        message: &[u8],
    ) -> Result<Vec<u8>, HsmError> {
        let signature = self.sign(Lane::Interactive, key, algorithm, vec![message.to_vec()]);
        let signatures = match Handle::try_current() {
            Ok(handle) if handle.runtime_flavor() == RuntimeFlavor::CurrentThread => {
                return Err(HsmError::Refused("a blocking signature on a current-thread runtime".into()));
            }
            Ok(handle) => tokio::task::block_in_place(|| handle.block_on(signature)),
            Err(_) => self.0.runtime.block_on(signature),
        };
        signatures?.pop().ok_or_else(unexpected)
    }

    /// HMAC-SHA-256 of `data`.
    ///
    /// # Errors
    /// [`HsmError::NotFound`] if there is no such key.
    pub async fn mac(&self, key: &ObjectId, data: &[u8]) -> Result<[u8; 32], HsmError> {
        let request = Request::Mac { key: key.clone(), data: data.to_vec() };
        match self.call("mac", Lane::Interactive, &request).await? {
            Reply::Mac(mac) => Ok(mac),
            _ => Err(unexpected()),
        }
    }

    /// Makes a signing key pair on the token; gives its SubjectPublicKeyInfo (DER).
    ///
    /// # Errors
    /// [`HsmError::Refused`] if an object of this name exists; nothing is changed then.
    pub async fn create_key_pair(
        &self,
        id: &ObjectId,
        algorithm: SignatureAlgorithm,
    ) -> Result<Vec<u8>, HsmError> {
        let request = Request::CreateKeyPair { id: id.clone(), algorithm };
        match self.call("create_key_pair", Lane::Bulk, &request).await? {
            Reply::PublicKey(Some(public_key)) => Ok(public_key),
            _ => Err(unexpected()),
        }
    }

    /// Makes a tenant's HMAC-SHA-256 key on the token.
    ///
    /// # Errors
    /// As [`Hsm::create_key_pair`].
    pub async fn create_mac_key(&self, id: &ObjectId) -> Result<(), HsmError> {
        self.done("create_mac_key", &Request::CreateMacKey { id: id.clone() }).await
    }

    /// Makes an epoch's KEK on the token.
    ///
    /// # Errors
    /// As [`Hsm::create_key_pair`].
    pub async fn create_kek(&self, tenant: &TenantId, epoch: &EpochId) -> Result<(), HsmError> {
        self.done("create_kek", &Request::CreateKek { tenant: tenant.clone(), epoch: *epoch }).await
    }

    /// SubjectPublicKeyInfo (DER) of a key pair on the token; `None` if there is none.
    ///
    /// # Errors
    /// [`HsmError::NotFound`] if the private half is there but the public one is not.
    pub async fn public_key(&self, id: &ObjectId) -> Result<Option<Vec<u8>>, HsmError> {
        match self.call("public_key", Lane::Bulk, &Request::PublicKey { id: id.clone() }).await? {
            Reply::PublicKey(public_key) => Ok(public_key),
            _ => Err(unexpected()),
        }
    }

    /// Whether any object has this name.
    ///
    /// # Errors
    /// Those of every verb.
    pub async fn object_exists(&self, id: &ObjectId) -> Result<bool, HsmError> {
        match self.call("object_exists", Lane::Bulk, &Request::ObjectExists { id: id.clone() }).await? {
            Reply::Exists(exists) => Ok(exists),
            _ => Err(unexpected()),
        }
    }

    /// Destroys an epoch's KEK; none is fine. Only [`Hsm::verify_destroyed`] says that it is gone.
    ///
    /// # Errors
    /// Those of every verb.
    pub async fn destroy_kek(&self, tenant: &TenantId, epoch: EpochId) -> Result<(), HsmError> {
        self.done("destroy_kek", &Request::DestroyKek { tenant: tenant.clone(), epoch }).await
    }

    /// Wraps each DEK under the KEK of epoch `to` in place of `from`'s, inside the HSM. Blobs as
    /// [`super::WrappedKey::dek_blob`], the answers in the same order.
    ///
    /// # Errors
    /// [`HsmError::NotFound`] for a KEK that is gone; [`HsmError::Refused`] for a blob of another version.
    pub async fn rewrap(
        &self,
        tenant: &TenantId,
        from: EpochId,
        to: EpochId,
        dek_blobs: Vec<Vec<u8>>,
    ) -> Result<Vec<Vec<u8>>, HsmError> {
        let mut blobs = Vec::with_capacity(dek_blobs.len());
        for chunk in dek_blobs.chunks(DEKS_PER_CHUNK) {
            let request = Request::Rewrap { tenant: tenant.clone(), from, to, dek_blobs: chunk.to_vec() };
            match self.call("rewrap", Lane::Bulk, &request).await? {
                Reply::DekBlobs(chunk) => blobs.extend(chunk),
                _ => return Err(unexpected()),
            }
        }
        Ok(blobs)
    }

    /// Every object on the token with what is wrong with it, sorted by label.
    ///
    /// # Errors
    /// Those of every verb.
    pub async fn inventory(&self) -> Result<Vec<TokenObject>, HsmError> {
        match self.call("inventory", Lane::Bulk, &Request::Inventory).await? {
            Reply::Inventory(objects) => Ok(objects),
            _ => Err(unexpected()),
        }
    }

    /// Looks for `ids` in a process that is started for this question and never saw them.
    ///
    /// # Errors
    /// [`HsmError::StillThere`] with those that were found; [`HsmError::Unavailable`] if another token answers.
    pub async fn verify_destroyed(&self, ids: Vec<ObjectId>) -> Result<VerifiedGone, HsmError> {
        let started = Instant::now();
        let result = self.ask_fresh_process(ids).await;
        observe("verify_destroyed", Lane::Bulk, started, result.as_ref().err());
        result
    }

    async fn ask_fresh_process(&self, ids: Vec<ObjectId>) -> Result<VerifiedGone, HsmError> {
        let limit = self.0.shared.config.call_deadline;
        let frame = encode(&Request::VerifyDestroyed { ids })?;
        let mut process = self.0.shared.start_worker().await?;
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
            _ => Err(unexpected()),
        }
    }

    async fn done(&self, verb: &'static str, request: &Request) -> Result<(), HsmError> {
        match self.call(verb, Lane::Bulk, request).await? {
            Reply::Done => Ok(()),
            _ => Err(unexpected()),
        }
    }

    async fn call(&self, verb: &'static str, lane: Lane, request: &Request) -> Result<Reply, HsmError> {
        let started = Instant::now();
        let result = self.submit(lane, request, started).await;
        observe(verb, lane, started, result.as_ref().err());
        result
    }

    async fn submit(&self, lane: Lane, request: &Request, started: Instant) -> Result<Reply, HsmError> {
        if let Some(refusal) = self.0.shared.refusal(lane) {
            return Err(refusal);
        }
        let queue = match lane {
            Lane::Interactive => &self.0.interactive,
            Lane::Bulk => &self.0.bulk,
        };
        let limit = self.0.shared.config.call_deadline;
        let deadline = started + limit;
        let (answer, answered) = oneshot::channel();
        let job = Job { frame: encode(request)?, answer, deadline };
        queue.try_send(job).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => HsmError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => {
                HsmError::Unavailable("the broker is shutting down".into())
            }
        })?;
        report_depth(lane, queue.max_capacity() - queue.capacity());
        match timeout_at(deadline, answered).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(HsmError::Unavailable("the broker is shutting down".into())),
            Err(_) => Err(HsmError::DeadlineExceeded(limit)),
        }
    }
}

impl std::fmt::Debug for Hsm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hsm").field("token", &self.0.shared.config.token).finish_non_exhaustive()
    }
}

fn check(config: &HsmConfig) -> Result<(), HsmError> {
    let module = config.module.display();
    if !config.module.is_absolute() {
        return Err(HsmError::Configuration(format!("hsm.module must be an absolute path, not {module}")));
    }
    if !config.module.is_file() {
        return Err(HsmError::Configuration(format!(
            "the PKCS#11 module {module} does not exist; set hsm.module to the HSM vendor's library, or install softhsm2"
        )));
    }
    read_pin(&config.pin_file).map(drop)
}

fn encode(request: &Request) -> Result<zeroize::Zeroizing<Vec<u8>>, HsmError> {
    protocol::frame(request)
        .map_err(|error| HsmError::Refused(format!("the request cannot be sent: {error}")))
}

fn observe(verb: &'static str, lane: Lane, started: Instant, error: Option<&HsmError>) {
    let duration = started.elapsed();
    let outcome = error.map_or("ok", HsmError::code);
    metrics::histogram!("keybroker_hsm_call_seconds", "verb" => verb).record(duration.as_secs_f64());
    if error.is_some() {
        metrics::counter!("keybroker_hsm_errors_total", "code" => outcome).increment(1);
    }
    tracing::debug!(verb, lane = lane.as_str(), ?duration, outcome, "HSM call");
}

fn unexpected() -> HsmError {
    HsmError::Unavailable("the worker gave an answer to another question".into())
}
