//! CRLs: signed with what is pending or when one is due, and given out.
//!
//! One round per issuer signs its complete CRL and the shards that changed, each once however many revocations wait, and
//! keeps them in one commit. A shard that was ever signed is signed from then on: certificates that name it may live longer
//! than the configuration.

use crate::audit::details::{self, CrlDetails};
use crate::audit::event::{Actor, Event, EventKind};
use crate::broker::authorities::Authority;
use crate::broker::share::Share;
use crate::broker::{Broker, BrokerError};
use crate::ca;
use crate::clock::Timestamp;
use crate::crash::{self, Point};
use crate::hsm::Lane;
use crate::nfv::{IssuerId, Sha256Hash};
use crate::store::records::{CrlEntry, CrlHead, CrlRecord, Lease};
use crate::store::{Mutation, StoreError};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long the signing of an offline root's CRL may take.
const OFFLINE: Duration = Duration::from_secs(60);

/// A CRL as it is served.
#[derive(Debug, Clone)]
pub struct PublishedCrl {
    /// DER.
    pub der: Vec<u8>,
    /// CRLNumber, for the ETag.
    pub number: u64,
    /// For Last-Modified.
    pub this_update: Timestamp,
    /// How long a cache may keep it: until a new one is due, or until nextUpdate if none came.
    pub max_age: Duration,
}

impl Broker {
    /// The latest CRL of an issuer: the complete one (0) or a shard.
    ///
    /// # Errors
    /// [`BrokerError::NotFound`] for an unknown issuer or shard, or before its first CRL.
    pub async fn crl(&self, issuer: IssuerId, shard: u32) -> Result<PublishedCrl, BrokerError> {
        let latest = self.store.latest_crl(issuer, shard).await?;
        let CrlRecord { head, der } =
            latest.ok_or_else(|| BrokerError::NotFound(format!("CRL {shard} of issuer {issuer}")))?;
        let now = self.store.now().await?;
        let due = head.this_update.plus(self.settings.load().crl_refresh).min(head.next_update);
        let until = if now < due { due } else { head.next_update.min(now.plus(Duration::from_secs(60))) };
        Ok(PublishedCrl {
            der,
            number: head.number,
            this_update: head.this_update,
            max_age: until.since(now),
        })
    }

    /// Signs the own root's CRL and gives it: where the root is offline, no publisher runs.
    ///
    /// # Errors
    /// [`BrokerError::Precondition`] without a root, or while a broker runs on the same database.
    pub async fn sign_root_crl(&self) -> Result<PublishedCrl, BrokerError> {
        let root = self.authorities.load().root();
        let root = root
            .ok_or_else(|| BrokerError::Precondition("there is no root; run `keybroker init`".to_owned()))?;
        let lease = self.store.acquire_lease("publisher", "ca crl", OFFLINE).await?;
        let lease = lease.ok_or_else(|| {
            BrokerError::Precondition("a broker runs on this database: it signs the lists itself".to_owned())
        })?;
        let signed = self.sign_crls(&root, &lease, true).await;
        self.store.release_lease(&lease).await?;
        signed?;
        self.crl(root.id, 0).await
    }

    /// One round of the publisher over the CAs of a share: CRLs that are pending or due, and OCSP responders whose certificate is missing or past
    /// half of its validity. A CA that fails does not hold up the others.
    pub(super) async fn publish(&self, share: &Share, lease: &Lease) -> Result<(), BrokerError> {
        let mut failure = None;
        let now = self.store.now().await?;
        // What a CA signed has expired with it at the latest.
        let living = self.authorities.load().all().into_iter().filter(|ca| ca.ca.not_after() > now);
        for authority in living.filter(|ca| self.is_in(share, ca.tenant.as_ref())) {
            if let Err(error) = self.sign_crls(&authority, lease, false).await {
                tracing::warn!(issuer = %authority.id, %error, "no CRL could be signed; it is tried again");
                failure = Some(error);
            }
            if let Err(error) = self.certify_responder(&authority, lease).await {
                tracing::warn!(issuer = %authority.id, %error, "no OCSP responder; it is tried again");
                failure = Some(error);
            }
        }
        failure.map_or(Ok(()), Err)
    }

    /// 1. Which CRLs have something to publish, or are due.
    /// 2. What they list.
    /// 3. The HSM signs them, in one call.
    /// 4. One commit keeps them and calls what they list revoked.
    ///
    /// `anyway`: the complete one is signed although nothing asks for it.
    async fn sign_crls(&self, authority: &Authority, lease: &Lease, anyway: bool) -> Result<(), BrokerError> {
        // 1.
        let now = self.store.now().await?;
        let settings = self.settings.load_full();
        let heads: BTreeMap<u32, CrlHead> =
            self.store.crl_heads(authority.id).await?.into_iter().map(|head| (head.shard, head)).collect();
        let pending = self.store.pending_revocations(authority.id).await?;
        measure(authority, &heads, pending, now);
        let is_due = |shard: &u32| {
            heads.get(shard).is_none_or(|head| now >= head.this_update.plus(settings.crl_refresh))
        };
        let shards = if settings.crl_shards > 1 && !authority.is_root() { settings.crl_shards } else { 0 };
        let mut due: BTreeSet<u32> = (0..=shards).chain(heads.keys().copied()).filter(is_due).collect();
        if anyway {
            due.insert(0);
        }
        if pending == 0 && due.is_empty() {
            return Ok(());
        }
        // 2. What expired since a CRL was signed is on one more (RFC 5280 3.3).
        let oldest = heads.values().map(|head| head.this_update).min().unwrap_or(now);
        let entries = self.store.crl_entries(authority.id, oldest).await?;
        if pending > 0 {
            due.insert(0);
            due.extend(entries.iter().filter(|entry| entry.pending).map(|entry| entry.shard));
        }
        let whole_second = Timestamp::from_unix_seconds(now.unix_seconds());
        let next_update = whole_second.plus(settings.crl_validity);
        let number = heads.values().map(|head| head.number).max().unwrap_or(0) + 1;
        let mut unsigned = Vec::with_capacity(due.len());
        for shard in due {
            let before = heads.get(&shard).map_or(now, |head| head.this_update);
            let listed = entries
                .iter()
                .filter(|entry| shard == 0 || [shard, CrlEntry::EVERY_SHARD].contains(&entry.shard))
                .filter(|entry| entry.pending || entry.not_after > before)
                .map(listed)
                .collect::<Result<Vec<_>, _>>()?;
            let url = (shard > 0).then(|| authority.shard_url(shard));
            let tbs = ca::crl(&authority.ca, url.as_deref(), number, whole_second, next_update, &listed);
            let entries = listed.len() as u64;
            unsigned.push((CrlHead { shard, number, entries, this_update: whole_second, next_update }, tbs));
        }
        // 3.
        let messages = unsigned.iter().map(|(_, tbs)| tbs.der.clone()).collect();
        let algorithm = authority.ca.algorithm();
        let signatures = self.hsm.sign(Lane::Interactive, &authority.key, algorithm, messages).await?;
        if signatures.len() != unsigned.len() {
            return Err(BrokerError::Internal("a CRL has no signature".to_owned()));
        }
        crash::reached(Point::CrlSigned);
        let mut crls = Vec::with_capacity(unsigned.len());
        let mut events = Vec::with_capacity(unsigned.len());
        for ((head, tbs), signature) in unsigned.into_iter().zip(signatures) {
            let der = tbs.assemble(&signature);
            let mut event =
                Event::new(now, EventKind::CrlSigned, Actor::broker()).details(details::json(&CrlDetails {
                    issuer: authority.id,
                    shard: head.shard,
                    number,
                    entries: head.entries,
                    crl: Sha256Hash::of(&der),
                    this_update: whole_second,
                    next_update,
                }));
            event.tenant = authority.tenant.clone();
            events.push(event);
            crls.push(CrlRecord { head, der });
        }
        // 4.
        let serials = entries.into_iter().filter(|entry| entry.pending).map(|entry| entry.serial).collect();
        let signed: BTreeMap<u32, CrlHead> =
            crls.iter().map(|crl| (crl.head.shard, crl.head.clone())).collect();
        let mutation = Mutation::new(move |_| events).lease(lease);
        match self.store.record_crls(authority.id, crls, serials, mutation).await {
            Ok(published) => {
                crash::reached(Point::CrlCommitted);
                tracing::info!(issuer = %authority.id, number, published, crls = signed.len(), "CRLs signed");
                measure(authority, &signed, 0, now);
                Ok(())
            }
            // Another replica was quicker.
            Err(StoreError::Conflict(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

fn listed(entry: &CrlEntry) -> Result<ca::CrlEntry, BrokerError> {
    let serial = entry.serial.as_slice().try_into().map_err(|_| {
        BrokerError::Internal(format!("serial {} is not 16 octets", hex::encode(&entry.serial)))
    })?;
    Ok(ca::CrlEntry { serial, revoked_at: entry.revoked_at, reason: entry.reason })
}

/// Freshness, for alarms: a CRL that relying parties will soon refuse is seen before they do.
fn measure(authority: &Authority, heads: &BTreeMap<u32, CrlHead>, pending: u64, now: Timestamp) {
    let issuer = authority.id.to_string();
    metrics::gauge!("keybroker_revocations_pending", "issuer" => issuer.clone()).set(pending as f64);
    for head in heads.values() {
        let labels = [("issuer", issuer.clone()), ("shard", head.shard.to_string())];
        let left = head.next_update.since(now).as_secs_f64() - now.since(head.next_update).as_secs_f64();
        metrics::gauge!("keybroker_crl_age_seconds", &labels).set(now.since(head.this_update).as_secs_f64());
        metrics::gauge!("keybroker_crl_next_update_seconds", &labels).set(left);
        metrics::gauge!("keybroker_crl_entries", &labels).set(head.entries as f64);
    }
}
