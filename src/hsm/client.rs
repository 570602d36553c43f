//! [`Hsm`]: what the broker holds. One method per verb.

use super::protocol::{Reply, Request};
use super::served::Served;
use super::tenant_token::TenantToken;
use super::{
    HsmConfig, HsmError, HsmStatus, Lane, ObjectId, Produced, RequestTemplate, SealRequest, SealedKey,
    SignatureAlgorithm, TokenObject, VerifiedGone,
};
use crate::credential::KeyType;
use crate::nfv::{EpochId, TenantId};
use crate::sealing::Suite;
use futures_util::future::{join, join_all};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::{Handle, RuntimeFlavor};

/// The HSM: cheap to clone, all clones share the same workers. When the last one is dropped the workers are
/// killed; [`Hsm::shutdown`] ends them in order.
///
/// A verb goes to the token that holds its keys: the broker's own, or the tenant's, if it has one. A tenant's token that
/// is away fails its own verbs only.
///
/// Every verb can fail with [`HsmError::Unavailable`], [`HsmError::Overloaded`], [`HsmError::DeadlineExceeded`],
/// [`HsmError::WrongPin`] and [`HsmError::Module`]; a verb's own errors are listed with it.
#[derive(Clone)]
pub struct Hsm(Arc<Inner>);

struct Inner {
    /// The broker's own token: root, audit and TLS keys, and those of every tenant without a token of its own.
    broker: Served,
    /// Tenants' own tokens.
    tenants: BTreeMap<TenantId, TenantToken>,
    runtime: Handle,
}

/// Calls in one chunk of the bulk lane, so that a chunk takes about 20 ms at most.
const P256_KEYS_PER_CHUNK: u32 = 64;
const P384_KEYS_PER_CHUNK: u32 = 16;
const DEKS_PER_CHUNK: usize = 256;
const SIGNATURES_PER_CHUNK: usize = 256;

impl Hsm {
    /// With the broker's own token only: see [`Hsm::start_with_tenants`].
    ///
    /// # Errors
    /// As there.
    pub async fn start(config: HsmConfig) -> Result<Self, HsmError> {
        Self::start_with_tenants(config, BTreeMap::new()).await
    }

    /// Checks the configuration, lets one prober per token log in and run the self-test, and starts the lanes' workers.
    /// Returns once each lane of the broker's own token has a worker, and each tenant's token was tried. A tenant's token
    /// that does not start, or holds another tenant's keys, is tried again until it does; one that refused its PIN by a
    /// reload only.
    ///
    /// # Errors
    /// Of the broker's own token: [`HsmError::Configuration`] (module file, PIN file, two tokens of one label),
    /// [`HsmError::WrongPin`], [`HsmError::Unavailable`] if the module does not load, the token is missing or the self-test
    /// fails.
    pub async fn start_with_tenants(
        broker: HsmConfig,
        tenants: BTreeMap<TenantId, HsmConfig>,
    ) -> Result<Self, HsmError> {
        let starting = tenants.into_iter().map(|(tenant, config)| async move {
            let token = TenantToken::start(tenant.clone(), config).await;
            (tenant, token)
        });
        let (broker, tenants) = join(Served::start(broker), join_all(starting)).await;
        Ok(Self(Arc::new(Inner {
            broker: broker?,
            tenants: tenants.into_iter().collect(),
            runtime: Handle::current(),
        })))
    }

    /// Health and capabilities of the broker's own token, now.
    pub fn status(&self) -> HsmStatus {
        self.0.broker.status()
    }

    /// Health and capabilities of the token that holds a tenant's keys, now.
    pub fn status_of(&self, tenant: &TenantId) -> HsmStatus {
        self.0.tenants.get(tenant).map_or_else(|| self.status(), TenantToken::status)
    }

    /// The tenants that have a token of their own.
    pub fn tenants_with_tokens(&self) -> impl Iterator<Item = &TenantId> {
        self.0.tenants.keys()
    }

    /// Suites that a tenant's token can seal by, preferred first.
    ///
    /// # Errors
    /// Why its token is not served.
    pub fn suites(&self, tenant: &TenantId) -> Result<Vec<Suite>, HsmError> {
        Ok(self.serving(Some(tenant))?.status().suites)
    }

    /// Serial number of the token that holds a tenant's keys.
    ///
    /// # Errors
    /// Why its token is not served.
    pub fn token_serial(&self, tenant: &TenantId) -> Result<String, HsmError> {
        Ok(self.serving(Some(tenant))?.status().token_serial)
    }

    /// Reads the PIN files again, probes with them, and lets waiting workers start. Live workers stay. A tenant's token
    /// that fails is logged.
    ///
    /// # Errors
    /// As [`Hsm::start`]. After [`HsmError::WrongPin`] the latch is closed again.
    pub async fn reload(&self) -> Result<(), HsmError> {
        let tenants = join_all(self.0.tenants.values().map(TenantToken::reload));
        join(self.0.broker.reload(), tenants).await.0
    }

    /// Lets calls that are under way finish, ends the workers and waits for that. Calls after it fail.
    pub async fn shutdown(&self) {
        join(self.0.broker.shutdown(), join_all(self.0.tenants.values().map(TenantToken::shutdown))).await;
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
        self.produce_in_chunks(tenant, epoch, key_type, count, &[]).await
    }

    /// As [`Hsm::produce`], one key pair per template: each signs its certificate request in the session in which it is
    /// made, before it is wrapped. The keys are in the templates' order.
    ///
    /// # Errors
    /// As there.
    pub async fn produce_with_requests(
        &self,
        tenant: &TenantId,
        epoch: EpochId,
        key_type: KeyType,
        requests: &[RequestTemplate],
    ) -> Result<Produced, HsmError> {
        let count = u32::try_from(requests.len()).unwrap_or(u32::MAX);
        self.produce_in_chunks(tenant, epoch, key_type, count, requests).await
    }

    async fn produce_in_chunks(
        &self,
        tenant: &TenantId,
        epoch: EpochId,
        key_type: KeyType,
        count: u32,
        requests: &[RequestTemplate],
    ) -> Result<Produced, HsmError> {
        let per_chunk = match key_type {
            KeyType::EcP256 => P256_KEYS_PER_CHUNK,
            KeyType::EcP384 => P384_KEYS_PER_CHUNK,
            KeyType::Rsa2048 | KeyType::Rsa3072 | KeyType::Rsa4096 => 1,
        };
        let chunks = (0..count).step_by(per_chunk as usize).map(|made| {
            let size = (count - made).min(per_chunk);
            let requests = requests.iter().skip(made as usize).take(size as usize).cloned().collect();
            (size, requests)
        });
        let workers = self.serving(Some(tenant))?.bulk_workers();
        let produced: Vec<Produced> = stream::iter(
            chunks.map(|(chunk, requests)| self.produce_chunk(tenant, epoch, key_type, chunk, requests)),
        )
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
        requests: Vec<RequestTemplate>,
    ) -> Result<Produced, HsmError> {
        let request = Request::Produce { tenant: tenant.clone(), epoch, key_type, count, requests };
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

    /// The same, asked in a process that is started for this question: a worker may not see what another process made while
    /// it wrote itself, so that its "no" is not enough to make a key by.
    ///
    /// # Errors
    /// As [`Hsm::verify_destroyed`].
    pub async fn look_afresh(&self, id: &ObjectId) -> Result<bool, HsmError> {
        match self.verify_destroyed(vec![id.clone()]).await {
            Ok(_) => Ok(false),
            Err(HsmError::StillThere(_)) => Ok(true),
            Err(error) => Err(error),
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

    /// Every object on the broker's own token with what is wrong with it, sorted by label.
    ///
    /// # Errors
    /// Those of every verb.
    pub async fn inventory(&self) -> Result<Vec<TokenObject>, HsmError> {
        inventory(&self.0.broker).await
    }

    /// The same of the token that holds a tenant's keys.
    ///
    /// # Errors
    /// Those of every verb.
    pub async fn inventory_of(&self, tenant: &TenantId) -> Result<Vec<TokenObject>, HsmError> {
        inventory(self.serving(Some(tenant))?).await
    }

    /// Looks for `ids` in a process that is started for this question and never saw them.
    ///
    /// # Errors
    /// [`HsmError::StillThere`] with those that were found; [`HsmError::Unavailable`] if another token answers;
    /// [`HsmError::Refused`] for objects of several tokens: the evidence names one.
    pub async fn verify_destroyed(&self, ids: Vec<ObjectId>) -> Result<VerifiedGone, HsmError> {
        let tenant = ids.first().and_then(ObjectId::tenant);
        if ids.iter().any(|id| self.own(id.tenant()).is_some() != self.own(tenant).is_some())
            || (self.own(tenant).is_some() && ids.iter().any(|id| id.tenant() != tenant))
        {
            return Err(HsmError::Refused("objects of more than one token are to be verified".into()));
        }
        self.serving(tenant)?.verify_destroyed(ids).await
    }

    /// A tenant's own token, if it has one.
    fn own(&self, tenant: Option<&TenantId>) -> Option<&TenantToken> {
        self.0.tenants.get(tenant?)
    }

    /// The token that holds the tenant's keys, or the broker's own ones.
    fn serving(&self, tenant: Option<&TenantId>) -> Result<&Served, HsmError> {
        self.own(tenant).map_or(Ok(&self.0.broker), TenantToken::served)
    }

    async fn call(&self, verb: &'static str, lane: Lane, request: &Request) -> Result<Reply, HsmError> {
        self.serving(request.tenant())?.call(verb, lane, request).await
    }

    async fn done(&self, verb: &'static str, request: &Request) -> Result<(), HsmError> {
        match self.call(verb, Lane::Bulk, request).await? {
            Reply::Done => Ok(()),
            _ => Err(unexpected()),
        }
    }
}

impl std::fmt::Debug for Hsm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hsm").field("tenants", &self.0.tenants.keys()).finish_non_exhaustive()
    }
}

async fn inventory(token: &Served) -> Result<Vec<TokenObject>, HsmError> {
    match token.call("inventory", Lane::Bulk, &Request::Inventory).await? {
        Reply::Inventory(objects) => Ok(objects),
        _ => Err(unexpected()),
    }
}

fn unexpected() -> HsmError {
    HsmError::Unavailable("the worker gave an answer to another question".into())
}
