//! Who makes a key on the token. A module makes two objects of one name for two processes that look at the same time and find
//! none, and of two keys with one name neither can be used.
//!
//! 1. Keys of one tenant, or the broker's own, are made by one broker at a time, and there by one call: under a lease, which is
//!    kept while that goes on. Who comes second finds what the first one made and recorded.
//! 2. A worker that does not see a key is not believed: SoftHSM 2.6 may hide from a process what another one made while it
//!    wrote itself. A process that is started for this question looks again.
//! 3. Whoever dies in between leaves its key: the next one, once the lease has run out, goes on with it.
//!
//! KEKs have names of their own instead, which the database gives out (`epochs`).

use crate::broker::ca_import::FOR_A_CA;
use crate::broker::{Broker, BrokerError};
use crate::crash::{self, Point};
use crate::hsm::{ObjectId, SignatureAlgorithm};
use crate::nfv::TenantId;
use crate::store::records::Lease;
use crate::store::{Store, StoreError};
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::sync::OwnedMutexGuard;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use uuid::Uuid;

/// How long nobody else makes keys after the one that did was killed: its HSM worker does not outlive it that long.
const LEASE: Duration = Duration::from_secs(15);
/// How often it is renewed, and how long that may take.
const RENEWAL: Duration = Duration::from_secs(4);
/// How often whoever waits looks whether it is free, or whether a worker sees a key by now.
const LOOK: Duration = Duration::from_millis(50);
/// Looks of workers for a key that is there. One that missed it is replaced.
const LOOKS: u32 = 3;

/// How long a caller waits: until what a broker that was killed has left behind is free, too.
pub(super) const PATIENTLY: Duration = LEASE.saturating_add(Duration::from_secs(5));
/// How long background work waits, which comes again by itself and has other tenants to see to.
pub(super) const BRIEFLY: Duration = Duration::from_secs(1);

/// The right to make keys of one tenant, or the broker's own; only [`Broker::making_keys`] gives it.
pub(super) struct Making<'a> {
    broker: &'a Broker,
    /// For the changes that record what was made.
    pub(super) lease: Lease,
    _alone: OwnedMutexGuard<()>,
}

/// By which name a process holds leases, and shows itself among those that share the database.
pub(super) fn holder(store: &dyn Store) -> String {
    match store.generation() {
        // One process at a time: this one goes on with the leases of the one before, however that ended.
        Some(_) => "embedded".to_owned(),
        // A name of its own for every start: one that was killed, or that only sleeps, stays another holder. An operator is to
        // find it: machine and process id come first.
        None => {
            let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
            format!("{}/{}/{}", machine.trim(), std::process::id(), Uuid::now_v7())
        }
    }
}

impl Broker {
    /// The name by which this process holds leases.
    pub fn holder(&self) -> &str {
        &self.holder
    }

    /// Waits until nobody else makes keys of this tenant (none: the broker's own).
    ///
    /// # Errors
    /// [`BrokerError::Unavailable`] if that takes longer than `patience`.
    pub(super) async fn making_keys(
        &self,
        tenant: Option<&TenantId>,
        patience: Duration,
    ) -> Result<Making<'_>, BrokerError> {
        let until = Instant::now() + patience;
        let of_tenant = {
            let mut making = self.key_making.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(making.entry(tenant.cloned()).or_default())
        };
        let alone = timeout_at(until, of_tenant.lock_owned()).await.map_err(|_| being_made())?;
        let name = tenant.map_or_else(|| "keys".to_owned(), |tenant| format!("keys:{tenant}"));
        loop {
            if let Some(lease) = self.store.acquire_lease(&name, &self.holder, LEASE).await? {
                return Ok(Making { broker: self, lease, _alone: alone });
            }
            if Instant::now() > until {
                return Err(being_made());
            }
            sleep(LOOK).await;
        }
    }
}

impl Making<'_> {
    /// Does all that is to be done by one at a time, and lets the next one begin. Where the HSM or the database failed, what
    /// was asked of them may still be under way: then the lease is left to run out.
    pub(super) async fn hold<T>(
        &self,
        work: impl Future<Output = Result<T, BrokerError>>,
    ) -> Result<T, BrokerError> {
        let outcome = tokio::select! {
            outcome = work => outcome,
            lost = self.keep() => Err(lost),
        };
        if !matches!(outcome, Err(BrokerError::Unavailable { .. }))
            && let Err(error) = self.broker.store.release_lease(&self.lease).await
        {
            tracing::warn!(lease = self.lease.name, %error, "the lease was not given back; it runs out");
        }
        outcome
    }

    /// The public key (SubjectPublicKeyInfo, DER) of a key pair on the token, made now if it is missing: a crash between
    /// making a key and recording its certificate leaves the key, and it is ours.
    pub(super) async fn key_pair(
        &self,
        key: &ObjectId,
        algorithm: SignatureAlgorithm,
    ) -> Result<Vec<u8>, BrokerError> {
        let hsm = &self.broker.hsm;
        for _ in 0..LOOKS {
            if let Some(spki) = hsm.public_key(key).await? {
                return Ok(spki);
            }
            if self.is_missing(key).await? {
                let spki = hsm.create_key_pair(key, algorithm).await?;
                crash::reached(Point::KeyPairMade);
                return Ok(spki);
            }
            sleep(LOOK).await;
        }
        Err(unavailable(format!("{key} is on the token, and the HSM's workers do not see it yet")))
    }

    /// As [`Self::key_pair`], for the key of a CA: that this database has it made is noted before. One that is there without
    /// such a note is of a CA that the database forgot, and is not taken for another one.
    pub(super) async fn ca_key(&self, key: &ObjectId) -> Result<Vec<u8>, BrokerError> {
        if !self.broker.is_for_a_ca(key).await? {
            if !self.is_missing(key).await? {
                let problem =
                    "is on the token, for a CA that this database does not know; ask again for another key";
                return Err(unavailable(format!("{key} {problem}")));
            }
            self.broker.store.set_mark(&key.to_string(), FOR_A_CA).await?;
        }
        self.key_pair(key, SignatureAlgorithm::EcdsaP256Sha256).await
    }

    /// A tenant's HMAC key on the token, made now if it is missing.
    pub(super) async fn mac_key(&self, key: &ObjectId) -> Result<(), BrokerError> {
        let hsm = &self.broker.hsm;
        if !hsm.object_exists(key).await? && self.is_missing(key).await? {
            hsm.create_mac_key(key).await?;
            crash::reached(Point::TenantMacKeyMade);
        }
        Ok(())
    }

    /// Whether it is to be made now, by this broker: nobody has it, and nobody else may make it.
    async fn is_missing(&self, key: &ObjectId) -> Result<bool, BrokerError> {
        let there = self.broker.hsm.look_afresh(key).await?;
        self.renew().await?;
        Ok(!there)
    }

    /// Renews the lease as long as that is possible; says why it is not any more.
    async fn keep(&self) -> BrokerError {
        loop {
            sleep(RENEWAL).await;
            match timeout(RENEWAL, self.renew()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return error,
                Err(_) => return unavailable(format!("the lease {} could not be renewed", self.lease.name)),
            }
        }
    }

    async fn renew(&self) -> Result<(), BrokerError> {
        let Lease { name, holder, fence } = &self.lease;
        let renewed = self.broker.store.acquire_lease(name, holder, LEASE).await?;
        // One that had run out is another holding: somebody else may have had it in between.
        renewed
            .filter(|renewed| renewed.fence == *fence)
            .map(|_| ())
            .ok_or_else(|| StoreError::Fenced(name.clone()).into())
    }
}

fn being_made() -> BrokerError {
    unavailable("somebody else is making keys of this tenant, or of the broker".to_owned())
}

fn unavailable(reason: String) -> BrokerError {
    BrokerError::Unavailable { code: "HSM_UNAVAILABLE", reason, retry_after: Duration::from_secs(1) }
}
