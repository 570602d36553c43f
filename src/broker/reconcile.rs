//! At start the token and the database are compared, both ways. What is found is reported, never deleted.

use crate::audit::details::{self, BrokerStartedDetails};
use crate::audit::event::{Actor, Event, EventKind};
use crate::broker::compare_keks::compare_keks;
use crate::broker::{Broker, BrokerError};
use crate::crash::{self, Point};
use crate::hsm::ObjectId;
use crate::nfv::TenantId;
use crate::store::{Store, StoreError};
use std::collections::HashSet;

/// Mark that counts the starts on this database.
const INCARNATION: &str = "incarnation";
/// Mark of the serial number of the token that the keys are on.
const TOKEN: &str = "token_serial";
/// Mark of when the broker was last alive, in microseconds since the Unix epoch.
pub(super) const LAST_ALIVE: &str = "last_alive";

/// What is wrong if the database belongs to another token than the one with this serial number; none if it belongs to this
/// one, or to none yet.
///
/// # Errors
/// The store's.
pub async fn another_token(store: &dyn Store, serial: &str) -> Result<Option<String>, StoreError> {
    Ok(store.mark(TOKEN).await?.filter(|noted| noted != serial).map(|noted| {
        format!(
            "the database belongs to the token with serial number {noted}, this broker sees the one with {serial}: all \
             replicas need the same token, so correct [hsm] module and token; if the token was replaced by one with \
             the same objects, run `keybroker init --adopt-token` once"
        )
    }))
}

impl Broker {
    /// Compares, records the start with the findings, and moves the deadlines of open claims by the broker's own absence.
    /// Returns the findings.
    pub async fn reconcile(&self) -> Result<Vec<String>, BrokerError> {
        self.require_the_token().await?;
        let (mut findings, evidence) = self.compare_tokens().await?;
        self.mirror.set_token_evidence(evidence.into_iter().map(|(_, sentence)| sentence).collect());
        self.take_up().await?;
        findings.extend(self.withheld().map(|withheld| withheld.sentence));
        let now = self.store.now().await?;
        let number = |text: Option<String>| text.and_then(|text| text.parse::<i64>().ok());
        let incarnation = number(self.store.mark(INCARNATION).await?).unwrap_or(0) + 1;
        self.store.end_absence(LAST_ALIVE).await?;
        crash::reached(Point::StartMovedDeadlines);
        self.store.set_mark(INCARNATION, &incarnation.to_string()).await?;
        let event = Event::new(now, EventKind::BrokerStarted, Actor::broker()).details(details::json(
            &BrokerStartedDetails {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                incarnation: u64::try_from(incarnation).unwrap_or_default(),
                token_serial: self.hsm.status().token_serial,
                findings: findings.clone(),
            },
        ));
        self.store.append_events(vec![event]).await?;
        for finding in &findings {
            tracing::warn!(finding, "token and database differ");
        }
        Ok(findings)
    }

    /// Notes which token the database belongs to, unless that is noted.
    async fn note_token(&self) -> Result<(), BrokerError> {
        match self.store.mark(TOKEN).await? {
            Some(_) => Ok(()),
            None => self.adopt_token().await,
        }
    }

    /// The database belongs to this token from now on: an operator says that it has the same objects as the one before.
    ///
    /// # Errors
    /// The store's.
    pub async fn adopt_token(&self) -> Result<(), BrokerError> {
        Ok(self.store.set_mark(TOKEN, &self.hsm.status().token_serial).await?)
    }

    /// Fails unless the token is the one that the database belongs to: what one replica wraps another could not open.
    pub(super) async fn require_the_token(&self) -> Result<(), BrokerError> {
        self.note_token().await?;
        let ours = self.hsm.status().token_serial;
        another_token(&*self.store, &ours)
            .await?
            .map_or(Ok(()), |sentence| Err(BrokerError::Precondition(sentence)))
    }

    /// Sentences on what differs between the tokens and the database. A tenant's own token that is away is a finding, and
    /// its keys are not compared.
    ///
    /// The second list is of what a database shows that was rolled back, see [`compare_keks`].
    pub(super) async fn compare_tokens(&self) -> Result<(Vec<String>, Vec<(ObjectId, String)>), BrokerError> {
        let mut findings = Vec::new();
        let mut inventory = self.hsm.inventory().await?;
        for object in &inventory {
            if let Some(id) = &object.id
                && let Some(tenant) = id.tenant().filter(|tenant| self.has_token(tenant))
            {
                findings.push(format!(
                    "{id} is on the broker's token although tenant {tenant} has one of its own"
                ));
            }
        }
        inventory.retain(|object| {
            object.id.as_ref().and_then(ObjectId::tenant).is_none_or(|tenant| !self.has_token(tenant))
        });
        let mut away = HashSet::new();
        for tenant in self.hsm.tenants_with_tokens() {
            match self.hsm.inventory_of(tenant).await {
                Ok(objects) => inventory.extend(objects),
                Err(error) => {
                    findings.push(format!(
                        "the token of tenant {tenant} is away, its keys were not compared: {error}"
                    ));
                    away.insert(tenant);
                }
            }
        }
        let not_asked = |id: &ObjectId| id.tenant().is_some_and(|tenant| away.contains(tenant));
        let mut on_token = HashSet::new();
        for object in inventory {
            findings.extend(
                object.problems.iter().map(|problem| format!("token object {}: {problem}", object.label)),
            );
            match object.id {
                Some(id) => {
                    on_token.insert(id);
                }
                None => findings
                    .push(format!("token object {:?} ({}) is not keybroker's", object.label, object.class)),
            }
        }
        let is_there = |tenant: &TenantId| !away.contains(tenant);
        let of_keks = compare_keks(&*self.store, &self.hsm, &on_token, is_there).await?;
        findings.extend(of_keks.findings);
        for id in &on_token {
            match id {
                ObjectId::Ocsp(tenant, generation) if !self.has_generation(tenant, *generation) => {
                    findings.push(format!("{id} is on the token and its CA is unknown to the database"));
                }
                ObjectId::Root(_) | ObjectId::SubCa(..) if !self.has_authority(id) => {
                    findings.push(format!("{id} is on the token and has no CA certificate in the database"));
                }
                _ => {}
            }
        }
        for authority in self.authorities.load().all() {
            if !on_token.contains(&authority.key) && !not_asked(&authority.key) {
                findings.push(format!("{} is missing on the token: its CA cannot sign", authority.key));
            }
        }
        findings.sort();
        Ok((findings, of_keks.evidence))
    }

    fn has_authority(&self, key: &ObjectId) -> bool {
        self.authorities.load().all().iter().any(|authority| authority.key == *key)
    }

    /// A responder's key has its CA's generation, which that of the CA's key need not be.
    fn has_generation(&self, tenant: &TenantId, generation: u32) -> bool {
        let all = self.authorities.load().all();
        all.iter().any(|known| known.tenant.as_ref() == Some(tenant) && known.generation == generation)
    }

    /// Notes that the broker is alive: deadlines do not run while it is not.
    pub(super) async fn note_alive(&self) -> Result<(), StoreError> {
        let now = self.store.now().await?;
        self.store.set_mark(LAST_ALIVE, &now.unix_micros().to_string()).await
    }
}
