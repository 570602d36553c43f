//! What the mirror says and a rolled-back database forgot is brought back: a part of [`super::recover`].
//!
//! 1. In one commit: CAs are there again (`lost_issuers`); keys end as they had ended, or with reason `RECOVERED` if they only went out; certificates are withdrawn;
//!    a claim that was given back or renewed is so again. What was given back, armed anew or renewed is recorded as it
//!    was, by the broker; other ends as `KEYS_ERASED`, withdrawals as `REVOCATION_REQUESTED`.
//! 2. VNFCIs that MANO ended are ended again.
//! 3. Once every KEK is destroyed: destruction receipts that were given out are kept again, so that no key gets a second one.

use crate::audit::AuditPublicKey;
use crate::audit::details::{
    self, ErasedDetails, IssuerDetails, RevocationDetails, TerminatedDetails, UnknownCertificate,
};
use crate::audit::event::{Actor, Event, EventCredential, EventKind};
use crate::audit::lost::{Listed, Lost, LostCertificate, LostEnd, LostRearming, LostRelease, LostRenewal};
use crate::audit::receipt::{DestructionReason, SignedReceipt};
use crate::broker::hierarchy::told;
use crate::broker::mirror::RECOVERY;
use crate::broker::recover::{Begun, name};
use crate::broker::{Broker, BrokerError};
use crate::credential::RevocationReason;
use crate::nfv::{TenantId, VnfciId};
use crate::store::records::{CustodyEnd, Lease, Recovered, Recovery, TerminateOutcome, Withdrawn};
use crate::store::{Marks, Mutation, StoreError};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// Keys or certificates in one event: a client reads it in one message.
const EVENT_KEYS: usize = 1_000;

impl Broker {
    /// 1.
    pub(super) async fn bring_back(
        &self,
        lost: &Lost,
        forked: &Lost,
        begun: &mut Begun,
    ) -> Result<(), BrokerError> {
        // Of a key that both tell of, what the mirror says comes first.
        let of_fork = forked.keys.iter().filter(|(credential, _)| !lost.keys.contains_key(credential));
        let keys = lost.keys.iter().chain(of_fork).map(|(credential, key)| {
            let certificates = lost.certificates.get(credential).cloned().unwrap_or_default();
            (*credential, key.clone(), certificates)
        });
        let settings = self.settings.load();
        let renewals = lost.renewals.iter().map(|renewal| {
            let overlap = settings.tenant(&renewal.tenant).renewal_overlap;
            (renewal.clone(), overlap)
        });
        let issuers = self.issuers_to_bring_back(lost).await?;
        let recovery = Recovery {
            issuers: issuers.iter().map(|(record, number)| (record.clone(), *number)).collect(),
            lost_issuers: self.withdrawn_by_own_roots(lost, &issuers).await?,
            listed: lost.listed.clone(),
            keys: keys.collect(),
            renewals: renewals.collect(),
            releases: lost.releases.clone(),
            rearmed: lost.rearmed.clone(),
            crl_numbers: lost.crl_numbers.clone(),
        };
        let base = Event::new(self.store.now().await?, EventKind::KeysErased, Actor::broker());
        let told = Told {
            issuers: issuers
                .into_iter()
                .map(|(record, _)| told(&record).map(|told| (record.tenant, told)))
                .collect::<Result<_, _>>()?,
            releases: lost.releases.clone(),
            renewals: lost.renewals.clone(),
            rearmed: lost.rearmed.clone(),
        };
        let mutation = Mutation::new(move |recovered: &Recovered| events(&base, &told, recovered));
        begun.done.rearm.extend(lost.armed.iter().chain(&forked.armed).map(name));
        let with = |mut begun: Begun, recovered: &Recovered| {
            begun.done.issuers.extend(recovered.issuers.iter().map(|(issuer, _)| *issuer));
            begun.done.unknown_certificates += recovered.listed.len() as u64;
            begun.done.rearm.extend(recovered.voided.iter().chain(&recovered.disarmed).map(name));
            begun
        };
        let before = begun.clone();
        let marks: Marks = Box::new(move |recovered| {
            vec![(RECOVERY.to_owned(), details::json(&with(before, recovered)).to_string())]
        });
        let recovered = self.store.recover(recovery, marks, mutation).await?;
        *begun = with(begun.clone(), &recovered);
        self.load_authorities().await
    }

    /// 2.
    pub(super) async fn end_again(&self, lost: &Lost, begun: &mut Begun) -> Result<(), BrokerError> {
        let ended =
            lost.terminated.iter().flat_map(|(tenant, vnfcis)| vnfcis.keys().map(move |id| (tenant, id)));
        begun.done.terminated.extend(ended.map(|(tenant, id)| format!("{tenant}/{id}")));
        self.note_recovery(begun).await?;
        for (tenant, vnfcis) in &lost.terminated {
            for (vnfci, holder_copy) in vnfcis {
                let end = CustodyEnd {
                    reason: DestructionReason::Terminated,
                    holder_copy: *holder_copy,
                    revocation: RevocationReason::CessationOfOperation,
                };
                let details = TerminatedDetails { vnfcis: vec![vnfci.clone()], holder_copy: *holder_copy };
                let event = Event::new(self.store.now().await?, EventKind::Terminated, Actor::broker())
                    .tenant(tenant)
                    .vnfci(vnfci)
                    .details(details::json(&details));
                let mutation =
                    Mutation::new(move |outcomes: &Vec<TerminateOutcome>| match outcomes.first() {
                        Some(TerminateOutcome::Terminated(keys)) => {
                            vec![event.credentials(keys.keys.iter().cloned())]
                        }
                        _ => Vec::new(),
                    });
                let items = vec![(vnfci.clone(), None)];
                self.store.terminate_vnfcis(tenant, items, end, mutation).await?;
            }
        }
        Ok(())
    }

    /// 3. What is not a receipt of ours is left in the mirror: the sweeper makes one.
    pub(super) async fn restore_receipts(&self, lost: &Lost, lease: &Lease) -> Result<(), BrokerError> {
        if lost.receipts.is_empty() {
            return Ok(());
        }
        let key = AuditPublicKey::from_spki(&self.audit_public_key().await?)
            .map_err(|error| BrokerError::Internal(error.to_string()))?;
        let now = self.store.now().await?;
        for (credential, json) in &lost.receipts {
            let custody = match self.store.custody(None, *credential).await {
                Ok(custody) if custody.receipt.is_none() && custody.ended.is_some() => custody,
                Ok(_) | Err(StoreError::NotFound(_)) => continue,
                Err(error) => return Err(error.into()),
            };
            let Ok(receipt) = serde_json::from_str::<SignedReceipt>(json) else { continue };
            let is_its = receipt.receipt.credential == *credential
                && receipt.receipt.public_key == custody.credential.public_key;
            if !is_its || receipt.verify(&key).is_err() {
                continue;
            }
            let mut event = Event::new(now, EventKind::DestructionReceipt, Actor::broker())
                .tenant(&custody.tenant)
                .credentials([custody.credential.clone()])
                .details(details::json(&receipt));
            event.vnfci = receipt.receipt.vnfci.clone();
            let mutation = Mutation::new(move |()| vec![event]).lease(lease);
            self.store.record_receipts(vec![(*credential, json.clone())], mutation).await?;
        }
        Ok(())
    }
}

/// What the mirror tells that is recorded again as it was.
struct Told {
    issuers: Vec<(Option<TenantId>, IssuerDetails)>,
    releases: Vec<LostRelease>,
    renewals: Vec<LostRenewal>,
    rearmed: BTreeMap<(TenantId, VnfciId), LostRearming>,
}

/// What was brought back, as the new log tells it.
fn events(base: &Event, told: &Told, recovered: &Recovered) -> Vec<Event> {
    let new = |kind, details: serde_json::Value| {
        Event { id: Uuid::now_v7(), kind, ..base.clone() }.details(details)
    };
    let of = |tenant: &TenantId, vnfci: &VnfciId, kind, json: &str| {
        new(kind, serde_json::from_str(json).unwrap_or_default()).tenant(tenant).vnfci(vnfci)
    };
    let mut events = Vec::new();
    for (tenant, issuer) in &told.issuers {
        let back = recovered.issuers.iter().find(|(id, _)| *id == issuer.issuer);
        events.extend(back.map(|&(_, generation)| {
            let details = IssuerDetails { generation, ..issuer.clone() };
            let event = new(EventKind::IssuerAdded, details::json(&details));
            Event { tenant: tenant.clone(), ..event }
        }));
    }
    for renewal in told.renewals.iter().filter(|renewal| recovered.renewed.contains(&renewal.by)) {
        // Of its keys those that the database has.
        let keys = recovered.ended.iter().map(|(key, _)| key).filter(|key| renewal.keys.contains(&key.id));
        let event = of(&renewal.tenant, &renewal.vnfci, EventKind::Confirmed, &renewal.details);
        events.push(event.credentials(keys.cloned()));
    }
    let mut given_back = BTreeSet::new();
    for release in &told.releases {
        let keys: Vec<EventCredential> = recovered
            .ended
            .iter()
            .filter(|(_, end)| end.release == Some(release.claim))
            .map(|(key, _)| key.clone())
            .collect();
        let vnfci = (release.tenant.clone(), release.vnfci.clone());
        if (!keys.is_empty() || recovered.released.contains(&vnfci)) && given_back.insert(release.claim) {
            let event = of(&release.tenant, &release.vnfci, EventKind::Released, &release.details);
            events.push(event.credentials(keys));
        }
    }
    for (tenant, vnfci) in &recovered.returned {
        if let Some(rearming) = told.rearmed.get(&(tenant.clone(), vnfci.clone())) {
            events.push(of(tenant, vnfci, EventKind::VnfciRearmed, &rearming.details));
        }
    }
    let mut by_reason: BTreeMap<RevocationReason, Vec<&Withdrawn>> = BTreeMap::new();
    for withdrawn in &recovered.withdrawn {
        by_reason.entry(withdrawn.reason).or_default().push(withdrawn);
    }
    for (reason, withdrawn) in by_reason {
        for withdrawn in withdrawn.chunks(EVENT_KEYS) {
            let serials = withdrawn.iter().flat_map(|one| one.serials.clone()).collect();
            let details = details::json(&RevocationDetails { reason, serials, unknown: Vec::new() });
            let keys = withdrawn.iter().map(|one| one.key.clone());
            events.push(new(EventKind::RevocationRequested, details).credentials(keys));
        }
    }
    // A later recovery, of another backup, learns it from here.
    let mut listed: BTreeMap<RevocationReason, Vec<UnknownCertificate>> = BTreeMap::new();
    for Listed { certificate: LostCertificate { issuer, serial, not_after }, reason, .. } in &recovered.listed
    {
        let serial = hex::encode(serial);
        let one = UnknownCertificate { issuer: *issuer, serial, not_after: *not_after };
        listed.entry(*reason).or_default().push(one);
    }
    for (reason, listed) in listed {
        for listed in listed.chunks(EVENT_KEYS) {
            let details = RevocationDetails { reason, serials: Vec::new(), unknown: listed.to_vec() };
            events.push(new(EventKind::RevocationRequested, details::json(&details)));
        }
    }
    let mut by_end: Vec<(LostEnd, Vec<EventCredential>)> = Vec::new();
    // What was given back, too: the database may have had a copy.
    for (key, end) in &recovered.ended {
        let end = LostEnd { release: None, ..*end };
        match by_end.iter_mut().find(|(known, _)| *known == end) {
            Some((_, keys)) => keys.push(key.clone()),
            None => by_end.push((end, vec![key.clone()])),
        }
    }
    for (LostEnd { reason, holder_copy, .. }, keys) in by_end {
        for keys in keys.chunks(EVENT_KEYS) {
            let details = details::json(&ErasedDetails { reason, holder_copy });
            events.push(new(EventKind::KeysErased, details).credentials(keys.iter().cloned()));
        }
    }
    events
}
