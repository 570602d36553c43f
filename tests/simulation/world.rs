//! The place of a simulation: a store and a token that are real, a clock that is not, and brokers that are replicas of each
//! other.

use crate::faults::{Faults, faulty_module};
use crate::support_ca::Credential;
use futures_util::future::LocalBoxFuture;
use keybroker::audit::{AuditPublicKey, SignedHead, StoredEvent, genesis, next_hash};
use keybroker::authorisation::{Caller, Role};
use keybroker::broker::background::{Rounds, Work};
use keybroker::broker::refusals::Limits;
use keybroker::broker::{Broker, MirrorLag, OcspSettings, Peer, Settings, TenantSettings};
use keybroker::clock::{Clock, ManualClock, Timestamp};
use keybroker::credential::EpochState;
use keybroker::hsm::softhsm::SoftHsmToken;
use keybroker::hsm::{Hsm, ObjectId};
use keybroker::nfv::{CredentialId, EpochId, Sha256Hash, TenantId};
use keybroker::store::Store;
use keybroker::store::records::{AuditQuery, Lease};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Opens a store with its files in a directory, or finds it again.
pub(crate) type OpenStore = Box<dyn Fn(PathBuf, Arc<ManualClock>) -> LocalBoxFuture<'static, Arc<dyn Store>>>;
/// What does something with a store's directory and a file for its backup.
pub(crate) type OnBackup = Box<dyn Fn(&Path, &Path)>;

/// A kind of store, and its own tools for backups.
pub(crate) struct Stores {
    pub(crate) open: OpenStore,
    pub(crate) backup: OnBackup,
    pub(crate) restore: OnBackup,
}

/// As the brokers are configured.
pub(crate) const HORIZON: Duration = Duration::from_secs(15 * 60);
pub(crate) const DEADLINE: Duration = Duration::from_secs(15 * 60);
/// Longer than a lease.
pub(crate) const LEASE_AND_MORE: Duration = Duration::from_secs(31);
/// All work that runs under a lease.
pub(crate) const LEASED: [Work; 5] =
    [Work::Producer, Work::Sweeper, Work::Sequencer, Work::Head, Work::Publisher];

/// A broker among others on the same store and token.
pub(crate) struct Replica {
    pub(crate) broker: Arc<Broker>,
    pub(crate) rounds: Rounds,
    /// Work that it stopped in, and the lease that it believes to have.
    pub(crate) paused: Option<(Work, Lease)>,
}

pub(crate) struct World {
    pub(crate) directory: TempDir,
    stores: Stores,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) hsm: Hsm,
    pub(crate) faults: Faults,
    pub(crate) replicas: Vec<Replica>,
    /// For the names of replicas.
    started: u32,
    /// What every VNFCI connects with; who it is is proved by its token.
    client: Credential,
    /// Events of the chain that were looked at, and the hash of the last of them.
    pub(crate) checked: (u64, Option<Sha256Hash>),
}

impl World {
    pub(crate) async fn make(stores: Stores, replicas: usize) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let program = Path::new(env!("CARGO_BIN_EXE_keybroker"));
        let token = SoftHsmToken::create(&directory.path().join("token"), "keybroker", program).unwrap();
        let faults = Faults::new(directory.path());
        let mut config = token.config(program);
        let text = |path: &Path| path.display().to_string();
        config.environment.insert("PKCS11_FAULT_MODULE".into(), text(&config.module));
        config.environment.insert("PKCS11_FAULT_CONTROL".into(), text(faults.control()));
        config.module = faulty_module().to_owned();
        config.call_deadline = Duration::from_secs(30);
        let profiles = directory.path().join("profiles");
        std::fs::create_dir(&profiles).unwrap();
        for name in ["vnfci-transport", "vnfci-named"] {
            let file = format!("{name}.toml");
            let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("profiles").join(&file);
            std::fs::copy(own, profiles.join(file)).unwrap();
        }
        let scarce = "issuer = \"sub-ca\"\nsubject = \"CN={vdu}\"\nsan = [\"uri:urn:uuid:{credential}\"]\n\
                      on_empty = \"RETRY\"\n";
        std::fs::write(profiles.join("scarce.toml"), scarce).unwrap();
        let clock = Arc::new(ManualClock::at(Timestamp::from_unix_seconds(1_800_000_000)));
        let mut world = Self {
            store: (stores.open)(directory.path().to_owned(), Arc::clone(&clock)).await,
            hsm: Hsm::start(config).await.unwrap(),
            client: Credential::self_made("a VNFCI"),
            checked: (0, None),
            started: 0,
            replicas: Vec::new(),
            directory,
            stores,
            clock,
            faults,
        };
        for _ in 0..replicas {
            let replica = world.start_replica().await;
            world.replicas.push(replica);
        }
        world
    }

    /// A new process, as far as its memory goes: it knows what the store knows.
    async fn start_replica(&mut self) -> Replica {
        self.started += 1;
        let broker = self.start_broker().await;
        let mut rounds = Rounds::new(&broker, &format!("replica-{}", self.started));
        // Another database rests first, in the time of people.
        let begun = Instant::now();
        while let Some(doubt) = broker.doubt() {
            assert!(begun.elapsed() < Duration::from_secs(60), "{doubt:?}");
            tokio::time::sleep(Duration::from_millis(200)).await;
            let _ = rounds.take(Work::Mirror).await;
        }
        Replica { broker, rounds, paused: None }
    }

    pub(crate) async fn start_broker(&self) -> Arc<Broker> {
        let broker = Broker::open(Arc::clone(&self.store), self.hsm.clone(), self.settings()).await.unwrap();
        if self.started == 1 {
            broker.initialise("Simulated root").await.unwrap();
        }
        // A worker of the HSM that a fault has ended is started again, in the time of people.
        let begun = Instant::now();
        while let Err(error) = broker.reconcile().await {
            assert!(begun.elapsed() < Duration::from_secs(30), "{error}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        broker
    }

    /// A replica dies and is started again.
    pub(crate) async fn restart(&mut self, index: usize) {
        self.faults.clear();
        self.replicas[index] = self.start_replica().await;
    }

    /// All replicas die, and the store is opened again.
    pub(crate) async fn restart_all(&mut self) {
        let replicas = self.stop_all().await;
        self.open_again().await;
        self.start_all(replicas).await;
    }

    /// All replicas die; gives how many there were.
    pub(crate) async fn stop_all(&mut self) -> usize {
        self.faults.clear();
        let replicas = self.replicas.len();
        self.replicas.clear();
        self.store.close().await;
        replicas
    }

    pub(crate) async fn open_again(&mut self) {
        self.store = (self.stores.open)(self.directory.path().to_owned(), Arc::clone(&self.clock)).await;
    }

    pub(crate) async fn start_all(&mut self, replicas: usize) {
        for _ in 0..replicas {
            let replica = self.start_replica().await;
            self.replicas.push(replica);
        }
    }

    /// Backs the store up.
    pub(crate) fn back_up(&self) {
        (self.stores.backup)(self.directory.path(), &self.directory.path().join("backup"));
    }

    /// Takes the store, which is closed, back to its backup.
    pub(crate) fn restore(&self) {
        (self.stores.restore)(self.directory.path(), &self.directory.path().join("backup"));
    }

    fn settings(&self) -> Settings {
        let tenant = TenantSettings {
            destruction_horizon: HORIZON,
            confirm_deadline: DEADLINE,
            ..TenantSettings::default()
        };
        Settings {
            directory: self.directory.path().to_owned(),
            tenants: BTreeMap::from([(tenant_id(), tenant)]),
            http_url: "http://broker.example".into(),
            crl_validity: Duration::from_secs(24 * 3_600),
            crl_refresh: Duration::from_secs(12 * 3_600),
            ca_roots: Vec::new(),
            crl_shards: 1,
            ocsp: OcspSettings {
                in_certificates: false,
                validity: Duration::from_secs(3_600),
                refresh: Duration::from_secs(1_800),
                nonce: false,
                responder_validity: Duration::from_secs(30 * 86_400),
            },
            hsm_backup_retention: "none".into(),
            mirror: self.directory.path().join("mirror"),
            refusals: Limits::default(),
            // Rounds of the mirror are dice here, and time is manual.
            mirror_lag: MirrorLag { time: Duration::from_secs(3_600), events: 1_000_000 },
            bulk_workers: 1,
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The connection of a VNFCI.
    pub(crate) fn peer(&self) -> Peer {
        Peer {
            chain_der: self.client.chain_der.clone(),
            exporter: [7; 32],
            address: "192.0.2.1:4000".parse().unwrap(),
        }
    }

    /// One round of a replica's work; what fails is tried again some time.
    pub(crate) async fn round(&mut self, index: usize, work: Work) {
        for _ in 0..20 {
            match self.replicas[index].rounds.take(work).await {
                Ok(true) => {}
                Ok(false) | Err(_) => return,
            }
        }
    }

    /// Takes rounds of everything until nothing changes any more. Faults must be cleared.
    pub(crate) async fn settle(&mut self) {
        let (mut quiet, mut days) = (0, 0);
        for _ in 0..400 {
            let before =
                (self.store.chain_tip().await.unwrap().size, self.store.unchained_events(1).await.unwrap().1);
            for work in LEASED.into_iter().chain([Work::Mirror, Work::Alive]) {
                if let Err(error) = self.replicas[0].rounds.take(work).await {
                    // A worker of the HSM that a fault has ended is started again, in the time of people.
                    eprintln!("settling: {work:?}: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
            self.clock.advance(Duration::from_secs(60));
            let after =
                (self.store.chain_tip().await.unwrap().size, self.store.unchained_events(1).await.unwrap().1);
            quiet = if before == after { quiet + 1 } else { 0 };
            // Longer than any horizon; and then as long as a deadline may have been moved by the brokers' absence.
            if quiet > 20 {
                if days == 2 {
                    return;
                }
                self.clock.advance(Duration::from_secs(86_400));
                (quiet, days) = (0, days + 1);
            }
        }
        panic!("it never comes to rest");
    }

    /// What must be true of store, token and log at any moment.
    pub(crate) async fn check(&mut self) {
        let epochs = self.store.epochs(None, EpochState::LIVING).await.unwrap();
        let mut live_ids: BTreeSet<CredentialId> = BTreeSet::new();
        for epoch in &epochs {
            let keys = self.store.live_keys(epoch.id, 100_000).await.unwrap();
            assert_eq!(keys.len() as u64, epoch.live, "the counter of {epoch:?}");
            assert!(keys.is_empty() || epoch.state != EpochState::Shredding, "live keys in {epoch:?}");
            for key in keys {
                assert!(!key.dek_blob.is_empty(), "{:?} is live and has no blob", key.credential);
                assert!(live_ids.insert(key.credential.id), "{:?} is in two epochs", key.credential);
            }
        }
        let open =
            epochs.iter().filter(|epoch| matches!(epoch.state, EpochState::Open | EpochState::Creating));
        assert!(open.count() <= 1, "{epochs:?}");
        if let Ok(objects) = self.hsm.inventory().await {
            let keks: BTreeSet<EpochId> = objects
                .iter()
                .filter_map(|object| match object.id {
                    Some(ObjectId::Kek(_, epoch)) => Some(epoch),
                    _ => None,
                })
                .collect();
            let of = |wanted: &[EpochState]| -> BTreeSet<EpochId> {
                epochs.iter().filter(|epoch| wanted.contains(&epoch.state)).map(|epoch| epoch.id).collect()
            };
            let known = of(EpochState::LIVING);
            assert!(keks.is_subset(&known), "unknown KEKs: {:?}", keks.difference(&known));
            let needed = of(&[EpochState::Open, EpochState::Closed]);
            assert!(needed.is_subset(&keks), "missing KEKs: {:?}", needed.difference(&keks));
        }
        self.check_log().await;
    }

    /// The chain goes on from where it was looked at last, and the signed head is of it.
    async fn check_log(&mut self) {
        let (mut size, mut hash) = self.checked;
        loop {
            let query = AuditQuery { from_index: size, limit: 1_000, ..AuditQuery::default() };
            let entries = self.store.audit_entries(&query).await.unwrap();
            if entries.is_empty() {
                break;
            }
            for entry in entries {
                assert_eq!(entry.index, size);
                let event: StoredEvent = serde_json::from_str(&entry.json).unwrap();
                let before = match hash {
                    Some(hash) => hash,
                    None => genesis(&self.store.mark("audit_origin").await.unwrap().unwrap()),
                };
                assert_eq!(next_hash(before, &event), entry.hash, "the chain is broken at {size}");
                (size, hash) = (size + 1, Some(entry.hash));
            }
        }
        let tip = self.store.chain_tip().await.unwrap();
        assert_eq!((tip.size, tip.hash), (size, hash));
        self.checked = (size, hash);
        if let Some(head) = self.store.latest_head().await.unwrap() {
            let head: SignedHead = serde_json::from_str(&head).unwrap();
            let of_row = AuditQuery { from_index: head.head.size - 1, limit: 1, ..AuditQuery::default() };
            assert_eq!(self.store.audit_entries(&of_row).await.unwrap()[0].hash, head.head.hash);
            if let Ok(key) = self.replicas[0].broker.audit_key_der().await {
                head.verify(&AuditPublicKey::from_spki(&key).unwrap()).unwrap();
            }
        }
    }
}

pub(crate) fn tenant_id() -> TenantId {
    "default".parse().unwrap()
}

/// MANO.
pub(crate) fn nfvo() -> Caller {
    Caller::registered(Role::Nfvo, &"nfvo".parse().unwrap(), Some(tenant_id()), Vec::new())
}
