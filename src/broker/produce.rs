//! The producer keeps the pools filled.

use crate::audit::details::{self, CertificateDetails, ProducedDetails};
use crate::audit::event::{Actor, Event, EventCredential, EventKind};
use crate::broker::at_claim::to_be_signed;
use crate::broker::authorities::Authority;
use crate::broker::share::Share;
use crate::broker::{Broker, BrokerError};
use crate::ca::profile::ProfileIssuer;
use crate::ca::{self, NameValues, Profile};
use crate::crash::{self, Point};
use crate::credential::{Issue, KeyType};
use crate::hsm::{HsmError, Lane, ObjectId, Produced, ProducedKey};
use crate::nfv::{CredentialId, EpochId, IssuerId, PoolId, Sha256Hash};
use crate::pool;
use crate::store::records::{Lease, NewCertificate, NewCredential, NewRequest, Page, Pool, PoolFilter};
use crate::store::{Mutation, StoreError};
use futures_util::{StreamExt, stream};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::Instrument;

/// Keys produced and committed together: 20 ms or less of the HSM's time for EC keys on P-256. An RSA key takes up to
/// seconds, so each is committed by itself: a crash loses one, and a claimer gets what is there.
const fn chunk(key_type: KeyType) -> u32 {
    match key_type {
        KeyType::EcP256 => 64,
        KeyType::EcP384 => 16,
        KeyType::Rsa2048 | KeyType::Rsa3072 | KeyType::Rsa4096 => 1,
    }
}

/// How long chunks are begun for one pool before the next pool has its turn. At the end of a turn the HSM waits for the
/// last commit, so turns are not short; and a lease outlasts one.
const TURN: Duration = Duration::from_secs(1);
/// Pools read in one page.
const PAGE: u32 = 500;

/// Epochs under which one chunk is wrapped in turn, each because the one before it closed in the meantime.
const EPOCHS_TRIED: u32 = 3;

/// Mark of a pool in which a claim found too few: how many; empty once that is seen to.
fn too_few(pool: PoolId) -> String {
    format!("too_few:{pool}")
}

/// Credentials that are ready to be committed.
pub(super) struct Batch<'a> {
    pub(super) pool: &'a Pool,
    pub(super) profile: &'a Profile,
    /// Who certified them; none if that happens later.
    pub(super) issuer: Option<IssuerId>,
    /// The one under whose KEK the data keys are.
    pub(super) epoch: EpochId,
    pub(super) produced: Produced,
    /// One per key.
    pub(super) certified: Vec<(CredentialId, Option<NewCertificate>)>,
    /// What their requests were made for, if they have requests.
    pub(super) basis: Option<Sha256Hash>,
}

impl Broker {
    /// One round over the pools of a share; true while there is more to do. `full` remembers which pools have reached
    /// which target: the others are filled up to it, so that a pool which a restart left half full is full again.
    pub(super) async fn refill_pools(
        &self,
        share: &Share,
        full: &mut HashMap<PoolId, u32>,
        lease: &Lease,
    ) -> Result<bool, BrokerError> {
        let mut page = Page { after: None, limit: PAGE };
        let mut more = false;
        let mut failed = None;
        loop {
            let pools = self.store.pools(&PoolFilter::default(), &page).await?;
            for pool in pools.iter().filter(|pool| self.is_in(share, Some(&pool.tenant))) {
                match self.refill_pool(pool, full, lease).await {
                    Ok(unfinished) => more |= unfinished,
                    Err(error) => {
                        metrics::counter!("keybroker_production_errors_total").increment(1);
                        tracing::warn!(tenant = %pool.tenant, pool = %pool.name, %error, "refill failed; it is tried again");
                        failed = Some(error);
                    }
                }
            }
            let Some(last) = pools.last().filter(|_| pools.len() == PAGE as usize) else {
                // With nothing else to do, the caller waits as after a failure, not until the next period.
                return failed.filter(|_| !more).map_or(Ok(more), Err);
            };
            page.after = Some(format!("{}/{}", last.tenant, last.name));
        }
    }

    async fn refill_pool(
        &self,
        pool: &Pool,
        full: &mut HashMap<PoolId, u32>,
        lease: &Lease,
    ) -> Result<bool, BrokerError> {
        let levels = self.store.pool_levels(pool.id).await?;
        self.observe(pool, &levels);
        let gauge = |state: &'static str, value: u64| {
            metrics::gauge!("keybroker_pool_credentials", "tenant" => pool.tenant.to_string(),
                "pool" => pool.name.to_string(), "state" => state)
            .set(value as f64);
        };
        gauge("available", levels.ready(pool.issue));
        gauge("claimed", levels.claimed);
        if self.external_issuer_of(pool).is_some() {
            // The enroller's.
            return Ok(false);
        }
        let filling = full.get(&pool.id) != Some(&pool.target);
        let missing = self.missing_in(pool, levels.ready(pool.issue), filling).await?;
        if missing == 0 {
            full.insert(pool.id, pool.target);
            return Ok(false);
        }
        full.remove(&pool.id);
        let profile = self.profile_of(pool)?;
        let chunk = chunk(profile.key_type());
        let begun = Instant::now();
        let sizes = (0..missing.div_ceil(chunk)).map(|place| (missing - place * chunk).min(chunk));
        // Asked for one by one, whenever there is room for one more.
        let sizes = sizes.take_while(|_| begun.elapsed() < TURN);
        // One chunk more than workers is under way: certificates are built and committed while the HSM works.
        let under_way = self.settings.load().bulk_workers + 1;
        let mut chunks = stream::iter(sizes)
            .map(|size| {
                let span = tracing::trace_span!("produce", tenant = %pool.tenant, count = size);
                async move { self.produce(pool, size, Some(lease)).await.map(|()| size) }.instrument(span)
            })
            .buffer_unordered(under_way);
        let mut made = 0;
        while let Some(size) = chunks.next().await {
            made += size?;
        }
        self.production_rate.send_replace(f64::from(made) / begun.elapsed().as_secs_f64());
        Ok(made < missing)
    }

    /// How many to produce for a pool now. A VNFCI takes all its slots at once: a pool that had too few for one is filled,
    /// although it is above its watermark and nothing else would ever change that.
    pub(super) async fn missing_in(&self, pool: &Pool, ready: u64, filling: bool) -> Result<u32, StoreError> {
        let missing = pool::refill(pool.target, pool.refill_below, ready, filling);
        if missing > 0 || ready >= u64::from(pool.target) {
            return Ok(missing);
        }
        let mark = too_few(pool.id);
        if self.store.mark(&mark).await?.is_none_or(|noted| noted.is_empty()) {
            return Ok(0);
        }
        // A producer that dies after this is followed by one that fills every pool.
        self.store.set_mark(&mark, "").await?;
        Ok(pool::refill(pool.target, pool.refill_below, ready, true))
    }

    /// Tells the producer, whichever replica it is, that a claim found too few in a pool that it would leave as it is.
    pub(super) async fn note_too_few(&self, pool: &Pool, ready: u64) -> Result<(), StoreError> {
        let mark = too_few(pool.id);
        let left = (u64::from(pool.refill_below)..u64::from(pool.target)).contains(&ready);
        if left && self.store.mark(&mark).await?.is_none_or(|noted| noted.is_empty()) {
            self.store.set_mark(&mark, &ready.to_string()).await?;
        }
        Ok(())
    }

    /// The profile of a pool.
    pub(super) fn profile_of(&self, pool: &Pool) -> Result<Arc<Profile>, BrokerError> {
        let unfit = |why: &str| {
            BrokerError::Precondition(format!("pool {} has profile {}, {why}", pool.name, pool.profile))
        };
        let profile = self.profiles.load().get(&pool.profile).ok_or_else(|| unfit("whose file is gone"))?;
        // What waits in the pool was made for the other way.
        if profile.issue() != pool.issue {
            return Err(unfit("whose issue was changed: create a new pool, or change it back"));
        }
        Ok(profile)
    }

    /// Produces one chunk of credentials for a pool: under the producer's lease, or without one for a claim.
    ///
    /// 1. The HSM generates the key pairs and wraps the private keys under the tenant's open epoch.
    /// 2. The sub-CA on the HSM signs their certificates, unless the pool issues at the claim.
    /// 3. Credentials, blobs and the audit event are committed. Before that nothing exists: a crash leaves certificates
    ///    that nobody has, for keys that nobody can unwrap.
    pub(super) async fn produce(
        &self,
        pool: &Pool,
        count: u32,
        lease: Option<&Lease>,
    ) -> Result<(), BrokerError> {
        let profile = self.profile_of(pool)?;
        if let ProfileIssuer::External(name) = profile.issuer() {
            return Err(BrokerError::Precondition(format!(
                "pool {} is filled by issuer {name}, not by the own CA",
                pool.name
            )));
        }
        // 1.
        let (epoch, produced) = loop {
            let epoch = self.open_epoch(&pool.tenant).await?;
            match self.hsm.produce(&pool.tenant, epoch, profile.key_type(), count).await {
                Ok(produced) => break (epoch, produced),
                Err(error) => self.shredded_meanwhile(&pool.tenant, epoch, error).await?,
            }
        };
        crash::reached(Point::ProductionGenerated);
        // 2.
        let (issuer, certified) = match pool.issue {
            Issue::Ahead => {
                let authority = self.issuing_ca(&pool.tenant, profile.ca()).await?;
                (Some(authority.id), self.certify(pool, &profile, &authority, &produced.keys).await?)
            }
            Issue::AtClaim => {
                (None, produced.keys.iter().map(|_| (CredentialId::generate(), None)).collect())
            }
        };
        crash::reached(Point::ProductionCertified);
        // 3.
        let batch = Batch { pool, profile: &profile, issuer, epoch, produced, certified, basis: None };
        self.commit(batch, lease).await
    }

    /// Commits a batch, wrapped under another epoch if its own closed meanwhile.
    pub(super) async fn commit(
        &self,
        mut batch: Batch<'_>,
        lease: Option<&Lease>,
    ) -> Result<(), BrokerError> {
        let (tenant, count) = (batch.pool.tenant.clone(), batch.produced.keys.len() as u64);
        for _ in 0..EPOCHS_TRIED {
            match self.insert(&batch, lease).await {
                Ok(()) => {
                    crash::reached(Point::ProductionCommitted);
                    metrics::counter!("keybroker_credentials_produced_total").increment(count);
                    return Ok(());
                }
                Err(StoreError::Conflict(text)) => {
                    // The epoch closed, or the pool was deleted, meanwhile.
                    self.forget_open_epoch(&tenant);
                    let epoch = self.open_epoch(&tenant).await?;
                    if epoch == batch.epoch {
                        return Err(BrokerError::Precondition(text));
                    }
                    self.move_to(&mut batch, epoch).await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(BrokerError::Precondition("epochs close faster than keys are produced".to_owned()))
    }

    /// Wraps the data keys of a batch that is nowhere yet under another epoch: a fraction of the work of producing it
    /// again.
    async fn move_to(&self, batch: &mut Batch<'_>, epoch: EpochId) -> Result<(), BrokerError> {
        let blobs = batch.produced.keys.iter().map(|key| key.wrapped.dek_blob.clone()).collect();
        let moved = match self.hsm.rewrap(&batch.pool.tenant, batch.epoch, epoch, blobs).await {
            Ok(moved) => moved,
            // The store was away for longer than an epoch lasts: nobody can unwrap these keys any more, and nobody has them.
            Err(HsmError::NotFound(_)) => {
                let lost = "the epoch of new keys was shredded before they were recorded; try again";
                return Err(StoreError::Unavailable(lost.to_owned()).into());
            }
            Err(error) => return Err(error.into()),
        };
        for (key, dek_blob) in batch.produced.keys.iter_mut().zip(moved) {
            key.wrapped.dek_blob = dek_blob;
        }
        batch.epoch = epoch;
        Ok(())
    }

    /// Commits a batch with its event.
    async fn insert(&self, batch: &Batch<'_>, lease: Option<&Lease>) -> Result<(), StoreError> {
        let Batch { pool, profile, issuer, epoch, produced, certified, basis } = batch;
        let credentials = produced.keys.iter().zip(certified).map(|(key, (id, _))| EventCredential {
            id: *id,
            public_key: Sha256Hash::of(&key.public_key_der),
        });
        let certificates = certified.iter().filter_map(|(id, certificate)| {
            certificate.as_ref().map(|certificate| CertificateDetails {
                credential: *id,
                certificate: Sha256Hash::of(&certificate.der),
                serial: hex::encode(&certificate.serial),
                not_after: certificate.not_after,
            })
        });
        let event = Event::new(self.store.now().await?, EventKind::KeysProduced, Actor::broker())
            .tenant(&pool.tenant)
            .vnf_instance(&pool.vnf_instance)
            .credentials(credentials)
            .details(details::json(&ProducedDetails {
                pool: pool.id,
                profile: pool.profile.clone(),
                key_type: profile.key_type(),
                epoch: *epoch,
                kek_label: ObjectId::Kek(pool.tenant.clone(), *epoch).to_string(),
                mechanisms: produced.mechanisms.clone(),
                token_serial: self.hsm.status_of(&pool.tenant).token_serial,
                duration_us: u64::try_from(produced.duration.as_micros()).unwrap_or(u64::MAX),
                issuer: *issuer,
                certificates: certificates.collect(),
            }));
        let rows = produced
            .keys
            .iter()
            .zip(certified)
            .map(|(key, (id, certificate))| NewCredential {
                id: *id,
                pool: pool.id,
                epoch: *epoch,
                public_key: Sha256Hash::of(&key.public_key_der),
                public_key_der: key.public_key_der.clone(),
                key_blob: key.wrapped.key_blob.clone(),
                dek_blob: key.wrapped.dek_blob.clone(),
                certificate: certificate.clone(),
                request: basis.zip(key.request_der.clone()).map(|(basis, der)| NewRequest { der, basis }),
            })
            .collect();
        let mutation = Mutation { lease: lease.cloned(), ..Mutation::new(move |()| vec![event]) };
        self.store.insert_credentials(rows, mutation).await
    }

    /// Certificates for produced keys, each with its credential's new id.
    async fn certify(
        &self,
        pool: &Pool,
        profile: &Profile,
        authority: &Authority,
        keys: &[ProducedKey],
    ) -> Result<Vec<(CredentialId, Option<NewCertificate>)>, BrokerError> {
        let now = self.store.now().await?;
        let mut unsigned = Vec::with_capacity(keys.len());
        for key in keys {
            let credential = CredentialId::generate();
            let values = NameValues {
                tenant: pool.tenant.clone(),
                vnf_instance: pool.vnf_instance.clone(),
                vdu: pool.vdu.clone(),
                credential,
                vnfci: None,
            };
            let tbs = to_be_signed(profile, authority, &values, &key.public_key_der, now)
                .map_err(BrokerError::Precondition)?;
            unsigned.push((credential, tbs));
        }
        let messages = unsigned.iter().map(|(_, tbs)| tbs.der.clone()).collect();
        let signatures =
            self.hsm.sign(Lane::Bulk, &authority.key, authority.ca.algorithm(), messages).await?;
        let certified = unsigned.into_iter().zip(signatures).map(|((credential, tbs), signature)| {
            let der = ca::assemble(&tbs.der, tbs.algorithm, &signature);
            let certificate = authority.certificate(&tbs, der, profile.min_remaining_at_claim());
            (credential, Some(certificate))
        });
        Ok(certified.collect())
    }
}
