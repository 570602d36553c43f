//! A fresh store with a tenant, an issuer, a pool and an open epoch, and short ways to do things to it.

use crate::postgres::{Cluster, Database};
use keybroker::audit::event::{Actor, Event, EventKind};
use keybroker::audit::receipt::DestructionReason;
use keybroker::clock::{Clock, ManualClock, Timestamp};
use keybroker::credential::{EpochChange, HolderCopy, Issue, RevocationReason};
use keybroker::nfv::{
    ClaimId, CredentialId, EpochId, InitialCredentialId, IssuerId, PoolId, PoolName, RequestId, Sha256Hash,
    TenantId, VnfciId,
};
use keybroker::store::postgres::{PostgresOptions, PostgresStore};
use keybroker::store::records::{
    Anchor, CertificateIntent, ChainTip, ClaimOutcome, ClaimRecord, ClaimRequest, ClaimedCertificate,
    ClaimedCredential, ConfirmOutcome, CustodyEnd, Epoch, InitialCredential, InitialCredentialKind,
    IssuerRecord, NewCertificate, NewCredential, NewVnfci, Page, Pool, Quotas, RecordOutcome,
    RegisterOutcome, Revocation, Slot, Tenant, UncertifiedKey,
};
use keybroker::store::sqlite::SqliteStore;
use keybroker::store::{Intend, Mutation, RequestKey, Store};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

pub(crate) const MINUTE: Duration = Duration::from_secs(60);
pub(crate) const DAY: Duration = Duration::from_secs(24 * 3600);
/// Redraws allowed in the tests.
pub(crate) const REDRAWS: u32 = 3;

pub(crate) struct Fixture {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) tenant: TenantId,
    pub(crate) issuer: IssuerId,
    /// The pool `workers` of the VNF instance `vnf-1`.
    pub(crate) pool: Pool,
    /// Open from the beginning.
    pub(crate) epoch: EpochId,
    /// Where the store's files are, removed with the fixture.
    pub(crate) directory: Option<TempDir>,
    /// The store's database, dropped with the fixture.
    pub(crate) database: Option<Database>,
}

impl Fixture {
    pub(crate) async fn sqlite() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let clock = manual_clock();
        let store = SqliteStore::open(&directory.path().join("store.db"), clock.clone()).await.unwrap();
        let mut fixture = Self::on(Arc::new(store), clock).await;
        fixture.directory = Some(directory);
        fixture
    }

    pub(crate) async fn postgres() -> Self {
        let database = Cluster::common().database();
        let clock = manual_clock();
        let store = PostgresStore::open(postgres_options(&database), Some(clock.clone())).await.unwrap();
        let mut fixture = Self::on(Arc::new(store), clock).await;
        fixture.database = Some(database);
        fixture
    }

    /// The fixture's rows in an empty store.
    pub(crate) async fn on(store: Arc<dyn Store>, clock: Arc<ManualClock>) -> Self {
        let tenant: TenantId = "default".parse().unwrap();
        let now = clock.now();
        store.add_tenant(Tenant { id: tenant.clone(), created_at: now }, silent()).await.unwrap();
        let issuer = IssuerId::generate();
        store
            .add_issuer(
                IssuerRecord {
                    id: issuer,
                    tenant: Some(tenant.clone()),
                    name: "main".parse().unwrap(),
                    external: None,
                    generation: 1,
                    key: "keybroker:ca:default:1".into(),
                    certificate_der: vec![0x30, 1],
                    chain_der: vec![vec![0x30, 2]],
                    created_at: now,
                },
                silent(),
            )
            .await
            .unwrap();
        let pool = store
            .create_pool(pool_named(&tenant, "workers", "vnf-1", now), &Quotas::default(), silent())
            .await
            .unwrap();
        let epoch = EpochId::generate();
        let fixture = Self { store, clock, tenant, issuer, pool, epoch, directory: None, database: None };
        fixture.open_epoch(epoch).await;
        fixture
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Opens an epoch; the one before must be closed.
    pub(crate) async fn open_epoch(&self, epoch: EpochId) {
        self.store.create_epoch(epoch, &self.tenant, silent()).await.unwrap();
        self.advance(epoch, EpochChange::Open).await;
    }

    pub(crate) async fn advance(&self, epoch: EpochId, change: EpochChange) -> Epoch {
        self.store.advance_epoch(epoch, change, Some("token-1"), silent()).await.unwrap()
    }

    /// Closes the epoch, shreds it and calls it destroyed.
    pub(crate) async fn shred(&self, epoch: EpochId) {
        for change in [EpochChange::Close, EpochChange::Shred, EpochChange::Verify] {
            self.advance(epoch, change).await;
        }
    }

    /// Credentials of the fixture's pool and open epoch, not inserted. Valid for 7 days, to be claimed in the
    /// first 2.
    pub(crate) fn produce(&self, count: usize) -> Vec<NewCredential> {
        (0..count).map(|_| self.produce_one(self.pool.id, self.epoch)).collect()
    }

    pub(crate) fn produce_one(&self, pool: PoolId, epoch: EpochId) -> NewCredential {
        let id = CredentialId::generate();
        let public_key_der = [b"spki", id.0.as_bytes().as_slice()].concat();
        NewCredential {
            id,
            pool,
            epoch,
            public_key: Sha256Hash::of(&public_key_der),
            public_key_der,
            key_blob: [b"key-blob-of", id.0.as_bytes().as_slice()].concat(),
            dek_blob: [b"dek-blob-of", id.0.as_bytes().as_slice()].concat(),
            certificate: Some(NewCertificate {
                issuer: self.issuer,
                serial: id.0.as_bytes().to_vec(),
                der: [b"certificate", id.0.as_bytes().as_slice()].concat(),
                not_before: self.now(),
                not_after: self.now().plus(7 * DAY),
                usable_until: self.now().plus(2 * DAY),
                crl_shard: 0,
            }),
            request: None,
        }
    }

    /// Inserts `count` credentials; gives their ids in order.
    pub(crate) async fn fill(&self, count: usize) -> Vec<CredentialId> {
        let credentials = self.produce(count);
        let ids = credentials.iter().map(|c| c.id).collect();
        self.store.insert_credentials(credentials, silent()).await.unwrap();
        ids
    }

    /// A VNFCI of `vnf-1` with one slot per name, each served by the fixture's pool, and a token.
    pub(crate) fn vnfci(&self, id: &str, slots: &[&str]) -> NewVnfci {
        NewVnfci {
            id: vnfci_id(id),
            vnf_instance: "vnf-1".parse().unwrap(),
            vdu: "vdu-1".parse().unwrap(),
            slots: slots
                .iter()
                .map(|name| Slot { name: name.parse().unwrap(), pool: self.pool.name.clone() })
                .collect(),
            initial_credential: InitialCredentialId::generate(),
            kind: InitialCredentialKind::Token,
            expires_at: self.now().plus(DAY),
        }
    }

    pub(crate) async fn register_all(&self, vnfcis: Vec<NewVnfci>) -> Vec<RegisterOutcome> {
        self.store.register_vnfcis(&self.tenant, vnfcis, &Quotas::default(), silent()).await.unwrap()
    }

    /// Registers a VNFCI with these slots and gives its initial credential.
    pub(crate) async fn register(&self, id: &str, slots: &[&str]) -> InitialCredential {
        match self.register_all(vec![self.vnfci(id, slots)]).await.remove(0) {
            RegisterOutcome::Registered(credential) => credential,
            RegisterOutcome::Refused(why) => panic!("{id} was refused: {why}"),
        }
    }

    pub(crate) fn claim_request(
        &self,
        initial_credential: InitialCredentialId,
        recipient: u8,
    ) -> ClaimRequest {
        ClaimRequest {
            initial_credential,
            renews: None,
            claim: ClaimId::generate(),
            request: RequestId::generate(),
            recipient_key: Sha256Hash([recipient; 32]),
            deadline: self.now().plus(15 * MINUTE),
            redraws_allowed: REDRAWS,
        }
    }

    pub(crate) async fn try_claim(&self, credential: InitialCredentialId, recipient: u8) -> ClaimOutcome {
        let request = self.claim_request(credential, recipient);
        self.store.reserve_claim(request, self.intend(), silent()).await.unwrap()
    }

    /// What is to be signed for keys that are drawn without a certificate: the credential's id is the serial number.
    pub(crate) fn intend(&self) -> Intend {
        let (issuer, now) = (self.issuer, self.now());
        Box::new(move |keys| {
            let intent = |key: &UncertifiedKey| CertificateIntent {
                issuer,
                serial: key.credential.0.as_bytes().to_vec(),
                tbs_der: format!("tbs of {} for {} of {}", key.credential, key.vnfci, key.vdu).into_bytes(),
                not_before: now,
                not_after: now.plus(7 * DAY),
                usable_until: now.plus(2 * DAY),
                crl_shard: 0,
            };
            Ok(keys.iter().map(intent).collect())
        })
    }

    /// A pool of `vnf-1` that issues at the claim, with `count` keys; gives their ids in order.
    pub(crate) async fn pool_at_claim(&self, name: &str, count: usize) -> (Pool, Vec<CredentialId>) {
        let pool = pool_named(&self.tenant, name, "vnf-1", self.now());
        let pool = Pool { issue: Issue::AtClaim, ..pool };
        let pool = self.store.create_pool(pool, &Quotas::default(), silent()).await.unwrap();
        let keys = self.keys_only(&pool, count).await;
        (pool, keys)
    }

    /// Inserts keys without certificates into a pool.
    pub(crate) async fn keys_only(&self, pool: &Pool, count: usize) -> Vec<CredentialId> {
        let produced = (0..count).map(|_| self.produce_one(pool.id, self.epoch));
        let keys: Vec<_> = produced.map(|key| NewCredential { certificate: None, ..key }).collect();
        let ids = keys.iter().map(|key| key.id).collect();
        self.store.insert_credentials(keys, silent()).await.unwrap();
        ids
    }

    /// Registers a VNFCI with these (slot, pool)s and gives its initial credential.
    pub(crate) async fn register_with(&self, id: &str, slots: &[(&str, &Pool)]) -> InitialCredential {
        let slot =
            |(name, pool): &(&str, &Pool)| Slot { name: name.parse().unwrap(), pool: pool.name.clone() };
        let vnfci = NewVnfci { slots: slots.iter().map(slot).collect(), ..self.vnfci(id, &[]) };
        match self.register_all(vec![vnfci]).await.remove(0) {
            RegisterOutcome::Registered(credential) => credential,
            RegisterOutcome::Refused(why) => panic!("{id} was refused: {why}"),
        }
    }

    /// The certificates of a claim that are to be signed, signed in the test's way by `signer`.
    pub(crate) fn signed(&self, claim: &ClaimRecord, signer: &str) -> Vec<(CredentialId, NewCertificate)> {
        let signed = |slot: &ClaimedCredential| match slot.certificate.clone() {
            ClaimedCertificate::Signed(_) => None,
            ClaimedCertificate::Intended(intent) => {
                let der = [intent.tbs_der.as_slice(), b" signed by ", signer.as_bytes()].concat();
                Some((slot.credential.id, intent.signed(der)))
            }
        };
        claim.credentials.iter().filter_map(signed).collect()
    }

    /// Signs and records what a claim has to be signed.
    pub(crate) async fn certify(&self, claim: &ClaimRecord) -> Vec<RecordOutcome> {
        self.store.record_certificates(self.signed(claim, "the CA"), silent()).await.unwrap()
    }

    /// A claim that is expected to draw.
    pub(crate) async fn claim(&self, credential: InitialCredentialId, recipient: u8) -> ClaimRecord {
        match self.try_claim(credential, recipient).await {
            ClaimOutcome::Reserved { claim, .. } => claim,
            other => panic!("nothing was drawn: {other:?}"),
        }
    }

    pub(crate) async fn confirm(&self, claim: ClaimId) -> ConfirmOutcome {
        self.store.confirm_claim(claim, silent()).await.unwrap()
    }

    /// Registers, claims and confirms.
    pub(crate) async fn deliver(&self, id: &str, slots: &[&str]) -> ClaimRecord {
        let credential = self.register(id, slots).await;
        let claim = self.claim(credential.id, 1).await;
        match self.confirm(claim.id).await {
            ConfirmOutcome::Confirmed { claim, .. } => claim,
            other => panic!("not confirmed: {other:?}"),
        }
    }

    /// How many events are committed and not chained.
    pub(crate) async fn events(&self) -> u64 {
        self.store.unchained_events(1).await.unwrap().1
    }

    /// Chains everything, each event with the hash of its text.
    pub(crate) async fn chain_all(&self) -> ChainTip {
        let (events, _) = self.store.unchained_events(10_000).await.unwrap();
        let tip = self.store.chain_tip().await.unwrap();
        let entries = events.iter().map(|e| (e.event.id, Sha256Hash::of(e.json.as_bytes()))).collect();
        self.store.chain_events(&tip, entries).await.unwrap();
        self.store.chain_tip().await.unwrap()
    }

    pub(crate) fn event(&self) -> Event {
        Event::new(self.now(), EventKind::Refused, Actor::broker())
    }

    pub(crate) fn anchor(&self, tenant: &TenantId, name: &str, certificate: &[u8], key: &[u8]) -> Anchor {
        Anchor {
            tenant: tenant.clone(),
            name: name.parse().unwrap(),
            certificate_der: certificate.to_vec(),
            fingerprint: Sha256Hash::of(certificate),
            public_key: Sha256Hash::of(key),
            revocation: Revocation::Require,
            policies: vec!["1.3.6.1.4.1.32473.1".into(), "2.5.29.32.0".into()],
            strict: true,
            issuers_der: vec![b"sub-CA".to_vec(), b"another".to_vec()],
            created_at: self.now(),
        }
    }

    pub(crate) async fn add_tenant(&self, name: &str) -> TenantId {
        let id: TenantId = name.parse().unwrap();
        self.store.add_tenant(Tenant { id: id.clone(), created_at: self.now() }, silent()).await.unwrap();
        id
    }

    /// The serial numbers (hexadecimal) on the issuer's next CRL.
    pub(crate) async fn listed_serials(&self) -> Vec<String> {
        let entries = self.store.crl_entries(self.issuer, self.now()).await.unwrap();
        entries.iter().map(|entry| hex::encode(&entry.serial)).collect()
    }
}

/// How the tests connect: few connections, so that callers wait for each other as they do under load.
pub(crate) fn postgres_options(database: &Database) -> PostgresOptions {
    let mut options = PostgresOptions::parse(&database.url()).unwrap();
    options.connections = 8;
    options
}

pub(crate) fn manual_clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::at(Timestamp::from_unix_seconds(1_800_000_000)))
}

pub(crate) fn vnfci_id(id: &str) -> VnfciId {
    id.parse().unwrap()
}

pub(crate) fn pool_named(tenant: &TenantId, name: &str, vnf_instance: &str, now: Timestamp) -> Pool {
    Pool {
        id: PoolId::generate(),
        tenant: tenant.clone(),
        name: name.parse::<PoolName>().unwrap(),
        vnf_instance: vnf_instance.parse().unwrap(),
        vdu: "vdu-1".parse().unwrap(),
        profile: "vnfci-transport".parse().unwrap(),
        target: 10,
        refill_below: 5,
        issue: Issue::Ahead,
        created_at: now,
    }
}

/// A change without events.
pub(crate) fn silent<T>() -> Mutation<T> {
    Mutation::new(|_| Vec::new())
}

/// A change with one event.
pub(crate) fn audited<T>() -> Mutation<T> {
    Mutation::new(|_| vec![Event::new(manual_clock().now(), EventKind::Refused, Actor::broker())])
}

/// A change whose events closure must not run.
pub(crate) fn unaudited<T>() -> Mutation<T> {
    Mutation::new(|_| panic!("events were made for a change that did not happen"))
}

pub(crate) fn request(caller: &str, id: RequestId, body: &str) -> RequestKey {
    RequestKey { caller: Actor(caller.into()), id, body: Sha256Hash::of(body.as_bytes()) }
}

pub(crate) fn end(reason: DestructionReason, holder_copy: HolderCopy) -> CustodyEnd {
    CustodyEnd { reason, holder_copy, revocation: RevocationReason::CessationOfOperation }
}

pub(crate) fn page(limit: u32) -> Page {
    Page { after: None, limit }
}
