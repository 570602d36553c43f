//! `keybroker recover`: a database that was rolled back is made one that delivers nothing a second time.
//!
//! 1. Find how far database and mirror agree, and what the mirror says beyond.
//! 2. Note that a recovery is under way: until it is done, no broker delivers.
//! 3. Bring back (`bring_back`): end the custody of what went out, as it ended if it did; withdraw its certificates, take
//!    releases and renewals down again, void open initial credentials, raise CRL numbers; end the VNFCIs that MANO ended;
//!    destroy open claims.
//! 4. Erase every waiting key, destroy every KEK, look for each from a fresh process. Receipts that were given out stand
//!    again.
//! 5. Put the mirror aside, begin a new log with every event that the database has, mirror it.
//!
//! Each step is the same when it is taken again: what was interrupted is run again, and comes to the same. What a step is
//! about to do is noted before it does it, so that the operator is told of it even if the process dies in between.

use crate::audit::details::{self, RecoveredDetails};
use crate::audit::event::{Actor, Event, EventKind};
use crate::audit::lost::Lost;
use crate::audit::mirror::Mirror;
use crate::audit::receipt::DestructionReason;
use crate::broker::compare_logs::Comparison;
use crate::broker::lost_issuers::LostCa;
use crate::broker::mirror::{MIRROR, RECOVERY};
use crate::broker::recovering::{Recovering, SHOWN};
use crate::broker::sequence::ORIGIN;
use crate::broker::standing::{CHANGED, Withheld};
use crate::broker::{Broker, BrokerError};
use crate::clock::Timestamp;
use crate::crash::{self, Point};
use crate::credential::{EpochState, StepReason};
use crate::hsm::ObjectId;
use crate::lifecycle::EpochStep;
use crate::nfv::{ClaimId, EpochId, IssuerId, TenantId, VnfciId};
use crate::store::records::{self, LOST_ISSUERS, Lease, Page, PoolFilter, VnfciFilter};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use uuid::Uuid;

/// Rows compared at a time; keys or claims ended in one commit.
pub(super) const BATCH: u32 = 500;
/// Mark of what the last recovery did, JSON.
const LAST: &str = "last_recovery";
/// Mark of the mirrors that were there at the recoveries of this database, JSON: how far each went, by the origin of its log.
/// A database from before a recovery does not have it.
pub(super) const DEALT_WITH: &str = "recovered_logs";
/// Mark of the deliveries that were noted beside those mirrors and that the database did not know, JSON: the ids of their events.
pub(super) const NOTES_DEALT_WITH: &str = "recovered_notes";

/// What a recovery finds and will do.
#[derive(Debug, Clone, Serialize)]
pub struct Plan {
    /// What shows that the database was rolled back; empty if nothing does.
    pub findings: Vec<String>,
    /// Whether all of it is that the token lacks keys, or has others: the token may be the wrong one.
    pub token_differs: bool,
    /// Origin of the log so far.
    pub origin: String,
    /// Events chained in the database.
    pub database_events: u64,
    /// Events in the mirror; none if there is no mirror.
    pub mirror_events: Option<u64>,
    /// Events that both have.
    pub common_events: u64,
    /// Deliveries that a broker noted beside the mirror before it had them, and that neither mirror nor database has.
    pub noted_deliveries: u64,
    /// Keys that the mirror says went out or were withdrawn, and the database does not know it of.
    pub lost_keys: u64,
    /// Epochs whose KEKs are destroyed.
    pub epochs: u64,
    /// Keys that are erased.
    pub waiting_keys: u64,
    /// Rows of the mirrors that do not verify, are not there, or that this version cannot read in full.
    pub unreadable_rows: u64,
    /// Sentences on the mirrors that have rows that do not verify.
    pub damage: Vec<String>,
    /// Where the mirror is put aside.
    pub archive: String,
}

/// What a recovery did, in all its runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Outcome {
    /// Origin of the new log.
    pub origin: String,
    /// Certificates that were withdrawn since it was begun.
    pub revoked: u64,
    /// Serial numbers on CRLs whose certificates the database does not know.
    pub unknown_certificates: u64,
    /// KEKs that were destroyed and are gone.
    pub epochs_shredded: u64,
    /// Open claims that were destroyed.
    pub claims_destroyed: u64,
    /// VNFCIs that were ended again, `TENANT/ID`.
    pub terminated: Vec<String>,
    /// VNFCIs that MANO is to arm anew, `TENANT/ID`.
    pub rearm: Vec<String>,
    /// VNFCIs that MANO is to announce again: the database does not know them.
    pub register: Vec<String>,
    /// Rows that do not verify, are not there, or that this version cannot read in full: what they tell of is not brought back.
    #[serde(default)]
    pub unreadable_rows: u64,
    /// CAs that the database has again.
    #[serde(default)]
    pub issuers: Vec<IssuerId>,
    /// CAs that it could not have again, with the certificates of theirs that are not revoked by a list of theirs.
    #[serde(default)]
    pub lost_issuers: Vec<LostCa>,
}

/// Kept from when a recovery begins until it is done.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Begun {
    old_origin: String,
    new_origin: String,
    findings: Vec<String>,
    /// Certificates that were pending before.
    pending: u64,
    /// What earlier runs, or this one, came to.
    pub(super) done: Done,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Done {
    pub(super) unknown_certificates: u64,
    /// Labels of KEKs.
    epochs: BTreeSet<String>,
    /// Of those, the ones that only the token knows and that are not done yet.
    of_token_only: BTreeSet<(TenantId, EpochId)>,
    claims: BTreeSet<ClaimId>,
    pub(super) terminated: BTreeSet<String>,
    pub(super) rearm: BTreeSet<String>,
    #[serde(default)]
    pub(super) issuers: BTreeSet<IssuerId>,
}

impl Broker {
    /// What a recovery would do.
    ///
    /// # Errors
    /// The store's, the HSM's, or a mirror that cannot be read.
    pub async fn plan_recovery(&self) -> Result<Plan, BrokerError> {
        let begun = self.recovery_begun().await?;
        let mut findings: Vec<String> =
            self.compare_tokens().await?.1.into_iter().map(|(_, sentence)| sentence).collect();
        let of_mirror = self.compare_mirror().await?;
        let token_differs = of_mirror.is_none() && !findings.is_empty();
        findings.extend(of_mirror);
        let origin = match &begun {
            Some(begun) => begun.old_origin.clone(),
            None => self.audit_origin().await?,
        };
        let comparison = self.compare_logs(&origin).await?;
        let put_aside =
            self.mirror_position().await?.map_or_else(|| origin.clone(), |position| position.origin);
        let epochs = self.store.epochs(None, EpochState::LIVING).await?;
        Ok(Plan {
            findings,
            token_differs,
            archive: self.mirror.files().archived(&put_aside).directory().display().to_string(),
            origin,
            database_events: comparison.database.size,
            mirror_events: comparison.mirror.as_ref().map(|side| side.size),
            common_events: comparison.common,
            noted_deliveries: comparison.noted,
            lost_keys: comparison.lost.keys.len() as u64,
            epochs: epochs.len() as u64,
            waiting_keys: epochs.iter().map(|epoch| epoch.live).sum(),
            unreadable_rows: comparison.unreadable(),
            damage: comparison.damage,
        })
    }

    /// Recovers; see the module. The plan was made while the right to recover was held.
    ///
    /// # Errors
    /// Brokers that live on the database, whatever is away, or a token without a tenant's keys: run it again when that is mended.
    pub async fn recover(&self, plan: Plan, recovering: &Recovering) -> Result<Outcome, BrokerError> {
        let lease = &recovering.lease;
        self.require_that_nobody_serves(recovering, SHOWN).await?;
        self.require_the_turn(&lease.holder).await?;
        // 1.
        let comparison = self.compare_logs(&plan.origin).await?;
        if comparison.damage != plan.damage {
            return Err(BrokerError::Precondition(
                "the mirror was changed while it was read: run it again".to_owned(),
            ));
        }
        self.require_tokens_of_lost(&comparison.lost).await?;
        // 2.
        let new_origin = format!("keybroker/{}", Uuid::now_v7());
        let mut begun = match self.recovery_begun().await? {
            // The backup is from the middle of a recovery that was finished: its new log is an old one now.
            Some(begun) if comparison.logs.contains_key(&begun.new_origin) => Begun { new_origin, ..begun },
            Some(begun) => begun,
            None => Begun {
                old_origin: plan.origin,
                new_origin,
                findings: plan.findings,
                pending: self.pending_certificates().await?,
                done: Done::default(),
            },
        };
        self.note_recovery(&begun).await?;
        // One that was started meanwhile delivers nothing from here on; what it delivered before was not compared.
        self.require_that_nobody_serves(recovering, Duration::ZERO).await?;
        // 3.
        crash::reached(Point::RecoveryNoted);
        self.bring_back(&comparison.lost, &comparison.forked, &mut begun).await?;
        crash::reached(Point::RecoveryBroughtBack);
        self.end_again(&comparison.lost, &mut begun).await?;
        crash::reached(Point::RecoveryEnded);
        self.destroy_open_claims(&mut begun, lease).await?;
        // 4.
        self.erase_all(lease).await?;
        crash::reached(Point::RecoveryErased);
        self.shred_all(&mut begun, lease).await?;
        crash::reached(Point::RecoveryShredded);
        self.restore_receipts(&comparison.lost, lease).await?;
        // 5.
        let register = self.unknown_vnfcis(&comparison.lost, &mut begun).await?;
        let done = &begun.done;
        let outcome = Outcome {
            origin: begun.new_origin.clone(),
            revoked: self.pending_certificates().await?.saturating_sub(begun.pending),
            unknown_certificates: done.unknown_certificates,
            epochs_shredded: done.epochs.len() as u64,
            claims_destroyed: done.claims.len() as u64,
            rearm: done.rearm.difference(&done.terminated).cloned().collect(),
            terminated: done.terminated.iter().cloned().collect(),
            register,
            unreadable_rows: comparison.unreadable(),
            issuers: done.issuers.iter().copied().collect(),
            lost_issuers: self.lost_issuers(&comparison.lost, &comparison.forked).await?,
        };
        self.begin_new_log(&begun, &comparison, &outcome, &lease.holder).await?;
        Ok(outcome)
    }

    /// What the last recovery did: for the operator whose run of it ended before it could say so.
    ///
    /// # Errors
    /// The store's.
    pub async fn last_recovery(&self) -> Result<Option<Outcome>, BrokerError> {
        self.noted(LAST).await
    }

    /// Certificates that are withdrawn and on no CRL: nobody publishes meanwhile.
    async fn pending_certificates(&self) -> Result<u64, BrokerError> {
        let mut pending = 0;
        for issuer in self.store.issuers().await? {
            pending += self.store.pending_revocations(issuer.id).await?;
        }
        Ok(pending)
    }

    async fn recovery_begun(&self) -> Result<Option<Begun>, BrokerError> {
        self.noted(RECOVERY).await
    }

    /// What a mark holds as JSON; an empty one is as good as none.
    pub(super) async fn noted<T: DeserializeOwned>(&self, mark: &str) -> Result<Option<T>, BrokerError> {
        match self.store.mark(mark).await? {
            Some(json) if !json.is_empty() => serde_json::from_str(&json)
                .map(Some)
                .map_err(|error| BrokerError::Internal(error.to_string())),
            _ => Ok(None),
        }
    }

    pub(super) async fn note_recovery(&self, begun: &Begun) -> Result<(), BrokerError> {
        Ok(self.store.set_mark(RECOVERY, &details::json(begun).to_string()).await?)
    }

    async fn destroy_open_claims(&self, begun: &mut Begun, lease: &Lease) -> Result<(), BrokerError> {
        loop {
            let open = self.store.overdue_claims(Timestamp::from_unix_micros(i64::MAX), BATCH).await?;
            if open.is_empty() {
                return Ok(());
            }
            for claim in &open {
                begun.done.claims.insert(claim.id);
                begun.done.rearm.insert(format!("{}/{}", claim.tenant, claim.vnfci));
            }
            self.note_recovery(begun).await?;
            for claim in open {
                self.destroy_open(&claim, DestructionReason::Recovered, lease).await?;
            }
        }
    }

    async fn erase_all(&self, lease: &Lease) -> Result<(), BrokerError> {
        let reason = DestructionReason::Recovered;
        for pool in self.store.deleted_pools_with_keys().await? {
            while self.erase(&pool, None, reason, BATCH, lease).await? {}
        }
        let mut page = Page { after: None, limit: BATCH };
        loop {
            let pools = self.store.pools(&PoolFilter::default(), &page).await?;
            for pool in &pools {
                while self.erase(pool, None, reason, BATCH, lease).await? {}
            }
            let Some(last) = pools.last().filter(|_| pools.len() == BATCH as usize) else { return Ok(()) };
            page.after = Some(format!("{}/{}", last.tenant, last.name));
        }
    }

    /// Destroys the KEK of every epoch, known to the database or not.
    async fn shred_all(&self, begun: &mut Begun, lease: &Lease) -> Result<(), BrokerError> {
        let known: BTreeMap<String, EpochState> = self
            .store
            .epochs(None, EpochState::ALL)
            .await?
            .into_iter()
            .map(|epoch| (ObjectId::Kek(epoch.tenant, epoch.id).to_string(), epoch.state))
            .collect();
        let living = known.iter().filter(|(_, state)| **state != EpochState::Destroyed);
        begun.done.epochs.extend(living.map(|(label, _)| label.clone()));
        for (id, _) in self.compare_tokens().await?.1 {
            if let ObjectId::Kek(tenant, epoch) = &id
                && !known.contains_key(&id.to_string())
            {
                begun.done.epochs.insert(id.to_string());
                begun.done.of_token_only.insert((tenant.clone(), *epoch));
            }
        }
        self.note_recovery(begun).await?;
        for epoch in self.store.epochs(None, EpochState::LIVING).await? {
            let (tenant, id) = (&epoch.tenant, epoch.id);
            if epoch.state == EpochState::Open {
                self.take_step(tenant, EpochStep::Close(id, StepReason::Recovered), lease).await?;
            }
            let reason = match epoch.state {
                EpochState::Shredding => StepReason::Resume,
                _ => StepReason::Recovered,
            };
            self.take_step(tenant, EpochStep::Shred(id, reason), lease).await?;
        }
        for (tenant, epoch) in std::mem::take(&mut begun.done.of_token_only) {
            let (event, _) = self.destroy_kek(&tenant, epoch).await?;
            crash::reached(Point::RecoveryStrayDestroyed);
            self.store.append_events(vec![event]).await?;
            crash::reached(Point::RecoveryStrayRecorded);
        }
        self.note_recovery(begun).await
    }

    /// Splits the VNFCIs that were armed or announced into those to be armed anew and those that the database does not
    /// know.
    async fn unknown_vnfcis(&self, lost: &Lost, begun: &mut Begun) -> Result<Vec<String>, BrokerError> {
        let mut known = BTreeSet::new();
        let mut page = Page { after: None, limit: BATCH };
        loop {
            let vnfcis = self.store.vnfcis(&VnfciFilter::default(), &page).await?;
            known.extend(vnfcis.iter().map(|vnfci| format!("{}/{}", vnfci.tenant, vnfci.id)));
            let Some(last) = vnfcis.last().filter(|_| vnfcis.len() == BATCH as usize) else { break };
            page.after = Some(format!("{}/{}", last.tenant, last.id));
        }
        let announced = lost.registered.iter().map(name).chain(begun.done.rearm.iter().cloned());
        let unknown: BTreeSet<String> =
            announced.filter(|id| !known.contains(id) && !begun.done.terminated.contains(id)).collect();
        begun.done.rearm.retain(|id| known.contains(id));
        Ok(unknown.into_iter().collect())
    }

    async fn begin_new_log(
        &self,
        begun: &Begun,
        comparison: &Comparison,
        outcome: &Outcome,
        holder: &str,
    ) -> Result<(), BrokerError> {
        self.require_the_turn(holder).await?;
        // What lies in the directory goes with it, and so do the open files of a broker that sleeps: what it notes when it
        // wakes up is of the old log.
        let origin = match self.mirror_position().await? {
            Some(position) => Some(position.origin),
            None => self.with_mirror(Mirror::has_notes).await?.then(|| begun.old_origin.clone()),
        };
        if let Some(origin) = origin {
            self.with_mirror(move |mirror| mirror.archive(&origin)).await?;
        }
        crash::reached(Point::RecoveryArchived);
        let details = RecoveredDetails {
            findings: begun.findings.clone(),
            old_origin: begun.old_origin.clone(),
            new_origin: begun.new_origin.clone(),
            database: comparison.database.clone(),
            mirror: comparison.mirror.clone(),
            common_size: comparison.common,
            unknown_certificates: begun.done.unknown_certificates,
            lost_issuers: outcome.lost_issuers.iter().map(|ca| ca.issuer).collect(),
            unreadable_rows: outcome.unreadable_rows,
        };
        let event = Event::new(self.store.now().await?, EventKind::Recovered, Actor::broker())
            .details(details::json(&details));
        let mark = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut marks = vec![
            mark(DEALT_WITH, &details::json(&comparison.logs).to_string()),
            mark(NOTES_DEALT_WITH, &details::json(&comparison.notes).to_string()),
            mark(LOST_ISSUERS, &details::json(&outcome.lost_issuers).to_string()),
            mark(ORIGIN, &begun.new_origin),
            mark(MIRROR, ""),
            mark(RECOVERY, ""),
            mark(records::ROLLED_BACK, ""),
            mark(LAST, &details::json(outcome).to_string()),
        ];
        // Their keys are of no other CA, even if this database had had them made.
        marks.extend(
            outcome
                .lost_issuers
                .iter()
                .filter(|ca| !ca.key_label.is_empty())
                .map(|ca| mark(&ca.key_label, "")),
        );
        self.store.restart_chain(event, marks).await?;
        crash::reached(Point::RecoveryRestarted);
        self.mirror.set_token_evidence(Vec::new());
        while self.chain_events().await? {}
        self.sign_head().await?;
        self.mirror_log(holder).await?;
        self.give_back_the_turn().await;
        match self.doubt() {
            // Whether another database may deliver is decided by those that do.
            None | Some(Withheld { code: CHANGED, .. }) => Ok(()),
            Some(Withheld { sentence, .. }) => Err(BrokerError::Precondition(format!(
                "recovered, and still: {sentence}. Is the mirror's directory written to by another broker?"
            ))),
        }
    }
}

pub(super) fn name((tenant, vnfci): &(TenantId, VnfciId)) -> String {
    format!("{tenant}/{vnfci}")
}
