//! The place of the demo: token, configuration, broker, and the MANO side with its own CA.

use super::super::connection::ConnectionArgs;
use super::super::failure::Failure;
use super::super::files::{self, Readers};
use super::super::processes::{Addresses, Broker, Program, until};
use super::super::software_ca::SoftwareCa;
use super::story::ensure;
use crate::ca::pem;
use crate::clock::{Clock, SystemClock};
use crate::hsm::softhsm::SoftHsmToken;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;
use uuid::Uuid;
use zeroize::Zeroizing;

/// Slots of every VNFCI with the pools that serve them.
pub(super) const SLOTS: [(&str, &str); 2] =
    [("transport-client", "amf-client"), ("transport-server", "amf-server")];
/// Validity of everything on the MANO side of the demo.
const VALIDITY: Duration = Duration::from_secs(24 * 3_600);

/// Where things are.
pub(super) struct Site {
    pub(super) program: Program,
    /// What `--keep` leaves.
    pub(super) directory: PathBuf,
    /// What is deleted in any case: initial credentials, tokens, the broker's log.
    pub(super) work: PathBuf,
    /// Deleted at the end unless it is to be kept.
    kept: bool,
    pub(super) addresses: Addresses,
    mano: SoftwareCa,
}

/// A VNFCI of the demo.
#[derive(Debug, Clone)]
pub(super) struct Vnfci {
    pub(super) id: String,
    /// With a one-time token, else with a certificate of MANO's CA.
    pub(super) by_token: bool,
}

impl Site {
    /// Chooses directories and addresses.
    pub(super) fn prepare(keep: Option<&Path>) -> Result<Self, Failure> {
        let temporary =
            |kind: &str| std::env::temp_dir().join(format!("keybroker-{kind}-{}", Uuid::now_v7()));
        let directory = match keep {
            Some(directory) => {
                let occupied = std::fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_some());
                if occupied || directory.is_file() {
                    let problem = format!("{} is not empty: give a new directory", directory.display());
                    return Err(Failure::usage(problem));
                }
                std::path::absolute(directory).map_err(Failure::failed)?
            }
            None => temporary("demo"),
        };
        let now = SystemClock.now();
        let mano = SoftwareCa::new("demo MANO initial CA", VALIDITY, now)?;
        let site = Self {
            program: Program::of_this_process()?,
            directory,
            work: temporary("demo-work"),
            kept: keep.is_some(),
            addresses: Addresses::free()?,
            mano,
        };
        files::private_directory(&site.directory)?;
        files::private_directory(&site.work)?;
        Ok(site)
    }

    pub(super) fn config(&self) -> PathBuf {
        self.directory.join("keybroker.toml")
    }

    pub(super) fn root(&self) -> PathBuf {
        self.directory.join("root.pem")
    }

    pub(super) fn audit_key(&self) -> PathBuf {
        self.directory.join("audit.pub")
    }

    /// The client profile of a role.
    pub(super) fn profile(&self, role: &str) -> PathBuf {
        self.directory.join("clients").join(role).join("profile.toml")
    }

    /// Flags of a command that a role runs.
    pub(super) fn by(&self, role: &str) -> [String; 2] {
        ["--profile".to_owned(), self.profile(role).display().to_string()]
    }

    /// Runs a command as a role.
    pub(super) async fn command(&self, role: &str, arguments: &[&str]) -> Result<Vec<Value>, Failure> {
        let flags = self.by(role);
        self.program.succeed(arguments.iter().copied().chain(flags.iter().map(String::as_str))).await
    }

    /// Makes the token and writes the configuration.
    pub(super) fn create_token(&self) -> Result<String, Failure> {
        let token = SoftHsmToken::create(&self.directory, "keybroker", &self.program.0)?;
        let addresses = &self.addresses;
        let config = format!(
            "# Written by keybroker demo.\n\n\
             [hsm]\nmodule = {module:?}\ntoken = {label:?}\npin_file = \"pin\"\n\
             environment = {{ SOFTHSM2_CONF = \"softhsm2.conf\" }}\nbackup_retention = \"none\"\n\n\
             [store]\nurl = \"sqlite:keybroker.db\"\n\n\
             [listen]\nbootstrap = \"{bootstrap}\"\nvnfci = \"{vnfci}\"\nmanagement = \"{management}\"\n\
             http = \"{http}\"\nadmin = \"{admin}\"\nserver_names = [\"localhost\", \"127.0.0.1\"]\n\n\
             [tenant.default]\n# Short, so that the demo can wait for it.\ndestruction_horizon = \"5s\"\n",
            module = token.module.display().to_string(),
            label = token.label,
            bootstrap = addresses.bootstrap,
            vnfci = addresses.vnfci,
            management = addresses.management,
            http = addresses.http,
            admin = addresses.admin,
        );
        files::create_new(&self.config(), config.as_bytes(), Readers::Everyone)?;
        Ok(format!("{}, in {}", token.module.display(), self.directory.display()))
    }

    /// `keybroker init`, twice: the second run must change nothing.
    pub(super) async fn init(&self) -> Result<String, Failure> {
        let config = self.config().display().to_string();
        let first = self.program.object(["init", "--config", &config]).await?;
        let root = files::read(&self.root())?;
        let second = self.program.object(["init", "--config", &config]).await?;
        let created = |report: &Value| report["created"].as_array().map_or(0, Vec::len);
        ensure(created(&second) == 0, || format!("a second init created {}", second["created"]))?;
        ensure(files::read(&self.root())? == root, || "a second init changed root.pem".to_owned())?;
        ensure(self.audit_key().exists(), || "audit.pub is missing".to_owned())?;
        Ok(format!("{} things made, none of them again by a second run", created(&first)))
    }

    /// Starts the broker and waits until it answers.
    pub(super) async fn serve(&self) -> Result<(Broker, String), Failure> {
        let mut broker = self.program.serve(&self.config(), &self.work.join("serve.log"))?;
        until(Duration::from_secs(60), "the broker's first answer", async || {
            broker.check()?;
            let ready = ConnectionArgs::of_profile(self.profile("operator")).connect().await.is_ok();
            Ok(ready.then_some(()))
        })
        .await?;
        let tenants = self.command("operator", &["tenant", "list"]).await?;
        let default = tenants.iter().any(|tenant| tenant["tenant"] == "default");
        ensure(default, || "the tenant \"default\" is missing".to_owned())?;
        Ok((broker, format!("answers on {}", self.addresses.management)))
    }

    /// The operator trusts MANO's CA for initial credentials.
    pub(super) async fn add_anchor(&self) -> Result<String, Failure> {
        let file = self.work.join("mano-ca.pem");
        let certificate = pem("CERTIFICATE", &self.mano.certificate_der);
        files::replace(&file, certificate.as_bytes(), Readers::Everyone)?;
        let file = file.display().to_string();
        self.command("operator", &["anchor", "add", "mano", "--certificate", &file]).await?;
        let anchors = self.command("operator", &["anchor", "list"]).await?;
        ensure(anchors.iter().any(|anchor| anchor["name"] == "mano"), || {
            "the anchor is not listed".to_owned()
        })?;
        Ok("MANO's CA is an anchor of the tenant \"default\"".to_owned())
    }

    /// MANO creates one pool per slot.
    pub(super) async fn create_pools(&self, ready: usize) -> Result<String, Failure> {
        let target = ready.to_string();
        for (_, pool) in SLOTS {
            let arguments = [
                "pool",
                "create",
                pool,
                "--vnf-instance",
                "amf-1",
                "--vdu",
                "amf-worker",
                "--target",
                &target,
            ];
            self.command("nfvo", &arguments).await?;
        }
        Ok(format!("{} pools of {target} for VNF instance amf-1", SLOTS.len()))
    }

    /// Waits until the pools are full.
    pub(super) async fn fill_pools(&self, broker: &mut Broker, ready: usize) -> Result<String, Failure> {
        let available = |pool: &Value| pool["available"].as_u64().unwrap_or(0);
        let filled = until(Duration::from_secs(300), "filling the pools", async || {
            broker.check()?;
            let pools = self.command("nfvo", &["pool", "list"]).await?;
            let full = pools.len() == SLOTS.len() && pools.iter().all(|pool| available(pool) >= ready as u64);
            Ok(full.then(|| pools.iter().map(available).sum::<u64>()))
        });
        Ok(format!("{} credentials ready, keys generated in the HSM and stored wrapped", filled.await?))
    }

    /// Announces all VNFCIs in one call.
    pub(super) async fn register(&self, vnfcis: &[Vnfci]) -> Result<String, Failure> {
        let slots: serde_json::Map<_, _> =
            SLOTS.iter().map(|(slot, pool)| ((*slot).to_owned(), json!(pool))).collect();
        let mut items = Vec::with_capacity(vnfcis.len());
        for vnfci in vnfcis {
            let mut item = json!({
                "vnfci_id": vnfci.id, "vnf_instance_id": "amf-1", "vdu_id": "amf-worker", "slots": slots,
            });
            if vnfci.by_token {
                item["token"] = json!(true);
            } else {
                let certificate = self.initial_certificate(&self.mano, &vnfci.id, &vnfci.id)?;
                item["anchor"] = json!("mano");
                item["certificate_sha256"] = json!(crate::nfv::Sha256Hash::of(&certificate));
            }
            items.push(item);
        }
        let file = self.work.join("vnfcis.json");
        let text = serde_json::to_vec(&items).map_err(Failure::failed)?;
        files::replace(&file, &text, Readers::Everyone)?;
        let (file, tokens) = (file.display().to_string(), self.tokens().display().to_string());
        let arguments = ["vnfci", "register", "--file", &file, "--token-dir", &tokens];
        let results = self.command("nfvo", &arguments).await?;
        ensure(results.len() == vnfcis.len(), || format!("{} answers", results.len()))?;
        let by_token = vnfcis.iter().filter(|vnfci| vnfci.by_token).count();
        Ok(format!("{} VNFCIs, {by_token} with one-time tokens, the others with certificates", vnfcis.len()))
    }

    /// A certificate of the same name from a CA that nobody trusts; gives the stem of its files.
    pub(super) fn foreign_certificate(&self, vnfci: &str) -> Result<String, Failure> {
        let foreign = SoftwareCa::new("demo MANO initial CA", VALIDITY, SystemClock.now())?;
        let stem = format!("foreign-{vnfci}");
        self.initial_certificate(&foreign, vnfci, &stem)?;
        Ok(stem)
    }

    /// Where a VNFCI's token is.
    pub(super) fn token(&self, vnfci: &str) -> PathBuf {
        self.tokens().join(format!("{vnfci}.token"))
    }

    /// Flags of the initial credential with this stem.
    pub(super) fn certificate_flags(&self, stem: &str) -> [String; 4] {
        let file = |kind: &str| self.work.join(format!("{stem}.{kind}.pem")).display().to_string();
        ["--initial-cert".to_owned(), file("cert"), "--initial-key".to_owned(), file("key")]
    }

    /// Deletes what is not to be kept.
    pub(super) fn clean_up(&self) {
        // Nothing can be done about a directory that cannot be deleted, and the demo's result stands.
        let _ = std::fs::remove_dir_all(&self.work);
        if !self.kept {
            let _ = std::fs::remove_dir_all(&self.directory);
        }
    }

    fn tokens(&self) -> PathBuf {
        self.work.join("tokens")
    }

    fn initial_certificate(&self, ca: &SoftwareCa, name: &str, stem: &str) -> Result<Vec<u8>, Failure> {
        let client = ca.client(name, "vnfci", VALIDITY, SystemClock.now())?;
        let [_, cert, _, key] = self.certificate_flags(stem);
        let certificate = pem("CERTIFICATE", &client.certificate_der);
        files::replace(Path::new(&cert), certificate.as_bytes(), Readers::Everyone)?;
        let private_key = Zeroizing::new(pem("PRIVATE KEY", &client.pkcs8_der));
        files::replace(Path::new(&key), private_key.as_bytes(), Readers::Owner)?;
        Ok(client.certificate_der)
    }
}
