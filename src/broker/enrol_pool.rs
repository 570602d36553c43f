//! Pools whose certificates come from a CA outside of the broker (SEC 005 8.1.2.3 steps 1 to 8).

use crate::audit::details::{self, CertificateRejectedDetails, IssuerClientDetails};
use crate::audit::event::{Actor, Event, EventKind};
use crate::audit::receipt::DestructionReason;
use crate::broker::at_claim;
use crate::broker::background::LEASE;
use crate::broker::enrol_rounds::Enrolments;
use crate::broker::hierarchy::told;
use crate::broker::produce::Batch;
use crate::broker::share::Share;
use crate::broker::{Broker, BrokerError};
use crate::ca::issuers::{
    Accepted, Answer, CaChain, ExternalCas, Issuer, IssuerError, RequestAttributes, Revocation, SHORT_LIVED,
    Wanted, judge, of_key, template,
};
use crate::ca::profile::ProfileIssuer;
use crate::ca::{CertificateFacts, NameValues, Profile};
use crate::clock::HumaneDuration;
use crate::crash::{self, Point};
use crate::credential::{HolderCopy, RevocationReason};
use crate::hsm::ObjectId;
use crate::nfv::{CaName, CredentialId, IssuerId, IssuerName, Sha256Hash};
use crate::store::records::{
    AwaitingKey, CustodyEnd, DestroyedKeys, IssuerRecord, Lease, NewCertificate, Page, Pool, PoolFilter,
};
use crate::store::{Mutation, StoreError};
use futures_util::{StreamExt, stream};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Pools read in one page.
const PAGE: u32 = 500;
/// Keys that are made for one pool before their requests are sent.
const KEYS_PER_TURN: u32 = 256;
/// Requests that are read for one pool at once.
const REQUESTS_PER_TURN: u32 = 1_024;
/// Certificates recorded in one commit at most.
const CERTIFICATES_PER_COMMIT: usize = 64;
/// An answer that takes no longer than this is waited for in place.
const SHORT_WAIT: Duration = Duration::from_secs(2);
/// How long requests are begun for one pool before the next pool has its turn.
const TURN: Duration = Duration::from_secs(5);
/// How often one request is sent in a turn.
const POLLS: u32 = 3;

/// A configured issuer.
#[derive(Clone)]
pub struct ExternalIssuer {
    /// What the operator says of revocation.
    pub revocation: Revocation,
    /// How it is reached, or why it cannot be: a file that is missing, a key that does not fit.
    pub client: Result<Arc<dyn Issuer>, String>,
}

/// By their configured names.
pub type ExternalIssuers = BTreeMap<IssuerName, ExternalIssuer>;

/// A key whose certificate was accepted.
struct Enrolled {
    credential: CredentialId,
    accepted: Accepted,
}

/// One pool with what filling it needs.
struct Filling<'a> {
    pool: &'a Pool,
    profile: &'a Profile,
    name: &'a IssuerName,
    cas: &'a ExternalCas,
}

impl Broker {
    /// Takes the configured issuers into use, in place of those before.
    pub fn set_issuers(&self, issuers: ExternalIssuers) {
        for (issuer, problem) in
            issuers.iter().filter_map(|(name, issuer)| Some((name, issuer.client.as_ref().err()?)))
        {
            tracing::warn!(%issuer, problem, "the issuer cannot be used: its pools are not filled");
        }
        self.issuers.store(Arc::new(issuers));
        self.wake.enroller.notify_one();
    }

    /// Notes that an issuer certified our client key for it again.
    ///
    /// # Errors
    /// [`BrokerError::Unavailable`]: then the certificate must not be used.
    pub async fn record_issuer_client(
        &self,
        name: &IssuerName,
        key: &ObjectId,
        certificate: &CertificateFacts,
    ) -> Result<(), BrokerError> {
        let event = Event::new(self.store.now().await?, EventKind::IssuerClientRenewed, Actor::broker())
            .details(details::json(&IssuerClientDetails {
                issuer_name: name.clone(),
                key_label: key.to_string(),
                certificate: certificate.fingerprint,
                serial: hex::encode(&certificate.serial),
                not_after: certificate.not_after,
            }));
        Ok(self.store.append_events(vec![event]).await?)
    }

    /// The issuer outside of the broker that fills a pool, if one does.
    pub(super) fn external_issuer_of(&self, pool: &Pool) -> Option<IssuerName> {
        match self.profiles.load().get(&pool.profile)?.issuer() {
            ProfileIssuer::SubCa => None,
            ProfileIssuer::External(name) => Some(name.clone()),
        }
    }

    /// Whether a pool of this profile can be filled, and its certificates be done away with.
    ///
    /// # Errors
    /// A sentence with the remedy.
    pub(super) fn check_issuer(&self, profile: &Profile) -> Result<(), String> {
        let ProfileIssuer::External(name) = profile.issuer() else { return Ok(()) };
        let issuers = self.issuers.load();
        let Some(issuer) = issuers.get(name) else {
            let known: Vec<_> = issuers.keys().map(IssuerName::as_str).collect();
            return Err(format!(
                "{} names issuer {name}, which is not configured; there are: sub-ca {}",
                profile.name(),
                known.join(" ")
            ));
        };
        if issuer.revocation == Revocation::ShortLived && profile.validity() > SHORT_LIVED {
            return Err(format!(
                "{} has validity {}, and nobody can revoke certificates of issuer {name}: lower the profile's validity to \
                 {} or less, or state revocation = \"out-of-band\" for the issuer, if its operator revokes by other means",
                profile.name(),
                HumaneDuration(profile.validity()),
                HumaneDuration(SHORT_LIVED),
            ));
        }
        Ok(())
    }

    /// One round over the pools of a share that are filled from outside; true while there is more to do.
    pub(super) async fn enrol_pools(
        &self,
        share: &Share,
        state: &mut Enrolments,
        lease: &Lease,
    ) -> Result<bool, BrokerError> {
        state.begin(&self.issuers.load_full());
        let mut page = Page { after: None, limit: PAGE };
        let mut more = false;
        loop {
            let pools = self.store.pools(&PoolFilter::default(), &page).await?;
            for pool in pools.iter().filter(|pool| self.is_in(share, Some(&pool.tenant))) {
                let Some(name) = self.external_issuer_of(pool) else { continue };
                if state.rests(&name) {
                    continue;
                }
                match self.enrol_pool(pool, &name, state, lease).await {
                    Ok(unfinished) => more |= unfinished,
                    Err(error) => {
                        state.failed(&name);
                        metrics::counter!("keybroker_enrolment_failures_total", "issuer" => name.to_string())
                            .increment(1);
                        tracing::warn!(tenant = %pool.tenant, pool = %pool.name, issuer = %name, %error,
                            "enrolment failed; it is tried again");
                    }
                }
            }
            let Some(last) = pools.last().filter(|_| pools.len() == PAGE as usize) else { return Ok(more) };
            page.after = Some(format!("{}/{}", last.tenant, last.name));
        }
    }

    /// One turn for one pool.
    ///
    /// 1. See what is missing, keys that wait for certificates counted.
    /// 2. Ask the issuer for its CA certificates and hold them against the configured root; on a mismatch nothing further
    ///    happens, no key is made. Ask what it wants in requests.
    /// 3. Retire keys whose requests are not what it wants any more.
    /// 4. Have keys made in the HSM, each with the request that it signs itself; commit them.
    /// 5. Send the requests, many at a time; judge what comes back; record certificates as they come.
    async fn enrol_pool(
        &self,
        pool: &Pool,
        name: &IssuerName,
        state: &mut Enrolments,
        lease: &Lease,
    ) -> Result<bool, BrokerError> {
        // 1.
        let levels = self.store.pool_levels(pool.id).await?;
        let filling = state.full.get(&pool.id) != Some(&pool.target);
        let missing = self.missing_in(pool, levels.available, filling).await?;
        if missing == 0 {
            state.full.insert(pool.id, pool.target);
        } else {
            state.full.remove(&pool.id);
        }
        let waiting = u32::try_from(levels.generated).unwrap_or(u32::MAX);
        let lacking = missing.saturating_sub(waiting);
        if lacking == 0 && waiting == 0 {
            return Ok(false);
        }
        let profile = self.profile_of(pool)?;
        let configured = self.issuers.load().get(name).cloned();
        let configured = configured
            .ok_or_else(|| BrokerError::Precondition(format!("[issuer.{name}] is not configured")))?;
        let issuer = configured.client.map_err(BrokerError::Precondition)?;
        // 2.
        let mut unusable = |error: IssuerError| {
            state.heard(name, &error);
            BrokerError::Precondition(format!("issuer {name}: {error}"))
        };
        let cas = issuer.cas(self.store.now().await?).await.map_err(&mut unusable)?;
        let attributes = issuer.attributes().await.map_err(&mut unusable)?;
        attributes.check(profile.key_type()).map_err(&mut unusable)?;
        let lease = &self.keep_lease(lease).await?;
        // 3.
        let basis = self.basis(&profile, &attributes);
        self.retire_outdated(pool, basis, lease).await?;
        // 4.
        if lacking > 0 {
            self.produce_requests(pool, &profile, basis, lacking.min(KEYS_PER_TURN), lease).await?;
        }
        // 5.
        let filling = Filling { pool, profile: &profile, name, cas: &cas };
        let unfinished = self.send_requests(&filling, issuer.as_ref(), state, lease).await?;
        state.resting.remove(name);
        Ok(lacking > KEYS_PER_TURN || unfinished)
    }

    /// What requests are made for: they are good while the server wants the same and the profile says the same.
    fn basis(&self, profile: &Profile, attributes: &RequestAttributes) -> Sha256Hash {
        let text = self.profiles.load().text(profile.name()).unwrap_or_default();
        Sha256Hash::of(&[attributes.hash().0.as_slice(), text.as_bytes()].concat())
    }

    async fn retire_outdated(
        &self,
        pool: &Pool,
        basis: Sha256Hash,
        lease: &Lease,
    ) -> Result<(), BrokerError> {
        loop {
            let end = CustodyEnd {
                reason: DestructionReason::RequestOutdated,
                holder_copy: HolderCopy::NeverDelivered,
                revocation: RevocationReason::CessationOfOperation,
            };
            let event = self.erasure_event(&end).await?.tenant(&pool.tenant).vnf_instance(&pool.vnf_instance);
            let mutation =
                Mutation::new(move |keys: &DestroyedKeys| vec![event.credentials(keys.keys.clone())]);
            let erased =
                self.store.erase_awaiting(pool.id, basis, end, KEYS_PER_TURN, mutation.lease(lease)).await?;
            if erased.keys.len() < KEYS_PER_TURN as usize {
                return Ok(());
            }
        }
    }

    async fn produce_requests(
        &self,
        pool: &Pool,
        profile: &Profile,
        basis: Sha256Hash,
        count: u32,
        lease: &Lease,
    ) -> Result<(), BrokerError> {
        let mut templates = Vec::new();
        let mut certified = Vec::new();
        for _ in 0..count {
            let credential = CredentialId::generate();
            let names = profile
                .names(&name_values(pool, credential))
                .map_err(|error| BrokerError::Precondition(error.to_string()))?;
            templates.push(template(profile, &names));
            certified.push((credential, None));
        }
        let (epoch, produced) = loop {
            let epoch = self.open_epoch(&pool.tenant).await?;
            let key_type = profile.key_type();
            match self.hsm.produce_with_requests(&pool.tenant, epoch, key_type, &templates).await {
                Ok(produced) => break (epoch, produced),
                Err(error) => self.shredded_meanwhile(&pool.tenant, epoch, error).await?,
            }
        };
        crash::reached(Point::IssuerRequested);
        let batch = Batch { pool, profile, issuer: None, epoch, produced, certified, basis: Some(basis) };
        self.commit(batch, Some(lease)).await
    }

    /// A CA may take longer to answer than a lease lasts.
    async fn keep_lease(&self, lease: &Lease) -> Result<Lease, BrokerError> {
        let renewed = self.store.acquire_lease(&lease.name, &lease.holder, LEASE).await?;
        Ok(renewed.ok_or_else(|| StoreError::Fenced(lease.name.clone()))?)
    }

    /// Sends what waits and is due; true if there was no time for all of it.
    async fn send_requests(
        &self,
        filling: &Filling<'_>,
        issuer: &dyn Issuer,
        state: &mut Enrolments,
        lease: &Lease,
    ) -> Result<bool, BrokerError> {
        let mut due: Vec<AwaitingKey> = Vec::new();
        let mut after = None;
        while due.len() < REQUESTS_PER_TURN as usize {
            let waiting = self.store.awaiting_keys(filling.pool.id, after, REQUESTS_PER_TURN).await?;
            let Some(last) = waiting.last() else { break };
            after = Some(last.credential);
            due.extend(waiting.into_iter().filter(|key| !state.pending.contains_key(&key.credential)));
        }
        let mut left = due.len();
        let failed = AtomicBool::new(false);
        let begun = Instant::now();
        // After a failure nothing new is sent; what is under way is waited for.
        let go_on = |_: &AwaitingKey| !failed.load(Ordering::Relaxed) && begun.elapsed() < TURN;
        let mut answers = stream::iter(due.into_iter().take_while(go_on))
            .map(|key| async {
                let answer = enrol(issuer, &key.request_der).await;
                if answer.is_err() {
                    failed.store(true, Ordering::Relaxed);
                }
                (key, answer)
            })
            .buffer_unordered(issuer.concurrency())
            .ready_chunks(CERTIFICATES_PER_COMMIT);
        let mut failure = None;
        while let Some(answers) = answers.next().await {
            left -= answers.len();
            let now = self.store.now().await?;
            let mut enrolled = Vec::new();
            for (key, answer) in answers {
                match answer {
                    Ok(Answer::Pending(after)) => {
                        state.pending.insert(key.credential, Instant::now() + after);
                    }
                    Ok(Answer::Issued(certificates_der)) => {
                        let names = filling.profile.names(&name_values(filling.pool, key.credential));
                        let names = names.map_err(|error| BrokerError::Precondition(error.to_string()))?;
                        let wanted = Wanted {
                            profile: filling.profile,
                            names: &names,
                            public_key_der: &key.public_key_der,
                        };
                        match judge(&certificates_der, &wanted, filling.cas, now) {
                            Ok(accepted) => {
                                enrolled.push(Enrolled { credential: key.credential, accepted });
                            }
                            Err(reason) => {
                                failed.store(true, Ordering::Relaxed);
                                failure =
                                    Some(format!("it sent a certificate that was not asked for: {reason}"));
                                let (credential, key) = (key.credential, &key.public_key_der);
                                let refused = of_key(&certificates_der, key).map(|one| one.certificate_der);
                                let first = || certificates_der.first().cloned().unwrap_or_default();
                                let refused = refused.unwrap_or_else(|_| first());
                                self.reject(filling, credential, key, &refused, reason).await?;
                            }
                        }
                    }
                    Err(error) => {
                        state.heard(filling.name, &error);
                        failure = Some(error.to_string());
                    }
                }
            }
            crash::reached(Point::IssuerAnswered);
            let lease = self.keep_lease(lease).await?;
            self.record_enrolled(filling, enrolled, &lease).await?;
        }
        match failure {
            Some(problem) => Err(BrokerError::Precondition(format!("issuer {}: {problem}", filling.name))),
            None => Ok(left > 0),
        }
    }

    /// Records accepted certificates, each chain's in one commit with its event.
    async fn record_enrolled(
        &self,
        filling: &Filling<'_>,
        enrolled: Vec<Enrolled>,
        lease: &Lease,
    ) -> Result<(), BrokerError> {
        let mut by_issuer: BTreeMap<IssuerId, Vec<Enrolled>> = BTreeMap::new();
        for one in enrolled {
            let issuer = self.external_ca(filling, &one.accepted.chain).await?;
            by_issuer.entry(issuer).or_default().push(one);
        }
        for (issuer, enrolled) in by_issuer {
            let together = self.record_together(filling, issuer, &enrolled, lease).await;
            match together {
                // One of them has a serial number that the CA used before: the others are not to suffer.
                Err(StoreError::AlreadyExists(_) | StoreError::Conflict(_)) => {
                    for one in &enrolled {
                        let alone =
                            self.record_together(filling, issuer, std::slice::from_ref(one), lease).await;
                        if let Err(error) = alone {
                            let facts = &one.accepted.facts;
                            let reason = format!("serial number {}: {error}", hex::encode(&facts.serial));
                            let key = facts.public_key_der.clone();
                            self.reject(filling, one.credential, &key, &one.accepted.certificate_der, reason)
                                .await?;
                        }
                    }
                }
                recorded => recorded?,
            }
        }
        Ok(())
    }

    async fn record_together(
        &self,
        filling: &Filling<'_>,
        issuer: IssuerId,
        enrolled: &[Enrolled],
        lease: &Lease,
    ) -> Result<(), StoreError> {
        let certificates: Vec<(CredentialId, NewCertificate)> = enrolled
            .iter()
            .map(|one| {
                let facts = &one.accepted.facts;
                let certificate = NewCertificate {
                    issuer,
                    serial: facts.serial.clone(),
                    der: one.accepted.certificate_der.clone(),
                    not_before: facts.not_before,
                    not_after: facts.not_after,
                    crl_shard: 0,
                    usable_until: facts.not_after.minus(filling.profile.min_remaining_at_claim()),
                };
                (one.credential, certificate)
            })
            .collect();
        let event = Event::new(self.store.now().await?, EventKind::CertificatesIssued, Actor::broker())
            .tenant(&filling.pool.tenant)
            .vnf_instance(&filling.pool.vnf_instance);
        let mutation = at_claim::issued(event, None, issuer, &certificates);
        let recorded = certificates.len() as u64;
        self.store.record_certificates(certificates, mutation.lease(lease)).await?;
        crash::reached(Point::IssuerRecorded);
        metrics::counter!("keybroker_certificates_enrolled_total", "issuer" => filling.name.to_string())
            .increment(recorded);
        Ok(())
    }

    /// Our record of the CA that signed; made when it is first seen.
    async fn external_ca(&self, filling: &Filling<'_>, chain: &CaChain) -> Result<IssuerId, BrokerError> {
        let (Some(certificate_der), above) =
            (chain.certificates_der.first(), chain.certificates_der.get(1..))
        else {
            return Err(BrokerError::Internal("a chain without certificates".to_owned()));
        };
        let tenant = &filling.pool.tenant;
        let known = |authorities: &super::authorities::Authorities| {
            let mut of_name = authorities.external(tenant, filling.name);
            of_name.find(|ca| ca.chain.certificate_der == *certificate_der).map(|ca| ca.id)
        };
        if let Some(id) = known(&self.authorities.load()) {
            return Ok(id);
        }
        self.load_authorities().await?;
        let authorities = self.authorities.load();
        if let Some(id) = known(&authorities) {
            return Ok(id);
        }
        let generation =
            authorities.external(tenant, filling.name).map(|ca| ca.generation).max().unwrap_or(0) + 1;
        let now = self.store.now().await?;
        let record = IssuerRecord {
            id: IssuerId::generate(),
            tenant: Some(tenant.clone()),
            name: CaName::try_from(filling.name.to_string())
                .map_err(|error| BrokerError::Internal(error.to_string()))?,
            external: Some(filling.name.clone()),
            generation,
            key: String::new(),
            certificate_der: certificate_der.clone(),
            chain_der: above.unwrap_or_default().to_vec(),
            created_at: now,
        };
        let id = record.id;
        let event = Event::new(now, EventKind::IssuerAdded, Actor::broker())
            .tenant(tenant)
            .details(details::json(&told(&record)?));
        self.store.add_issuer(record, Mutation::new(move |()| vec![event])).await?;
        crash::reached(Point::IssuerCaRecorded);
        self.load_authorities().await?;
        Ok(id)
    }

    /// Notes a certificate that is not taken. Its key waits on.
    async fn reject(
        &self,
        filling: &Filling<'_>,
        credential: CredentialId,
        public_key_der: &[u8],
        certificate_der: &[u8],
        reason: String,
    ) -> Result<(), BrokerError> {
        tracing::warn!(issuer = %filling.name, pool = %filling.pool.name, %credential, reason,
            "a certificate was not asked for and is not taken");
        let key = crate::audit::event::EventCredential {
            id: credential,
            public_key: Sha256Hash::of(public_key_der),
        };
        let event = Event::new(self.store.now().await?, EventKind::CertificateRejected, Actor::broker())
            .tenant(&filling.pool.tenant)
            .vnf_instance(&filling.pool.vnf_instance)
            .credentials([key])
            .details(details::json(&CertificateRejectedDetails {
                issuer_name: filling.name.clone(),
                pool: filling.pool.id,
                certificate: Sha256Hash::of(certificate_der),
                reason,
            }));
        Ok(self.store.append_events(vec![event]).await?)
    }
}

/// Sends one request, again soon if the issuer says so.
async fn enrol(issuer: &dyn Issuer, request_der: &[u8]) -> Result<Answer, IssuerError> {
    let mut answer = issuer.enrol(request_der).await?;
    for _ in 1..POLLS {
        match answer {
            Answer::Pending(after) if after <= SHORT_WAIT => {
                tokio::time::sleep(after).await;
                answer = issuer.enrol(request_der).await?;
            }
            _ => break,
        }
    }
    Ok(answer)
}

fn name_values(pool: &Pool, credential: CredentialId) -> NameValues {
    NameValues {
        tenant: pool.tenant.clone(),
        vnf_instance: pool.vnf_instance.clone(),
        vdu: pool.vdu.clone(),
        credential,
        vnfci: None,
    }
}
