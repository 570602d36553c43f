//! The place: token, configuration, broker.

use super::ca::SoftwareCa;
use super::faults::{Faults, faulty_module};
use super::fresh_token::fresh_token;
use super::process::{Broker, Finished, keybroker, log_tail, run, run_with};
use super::{PATIENCE, until};
use keybroker::api::client::{ClientTls, connect};
use keybroker::hsm::softhsm::SoftHsmToken;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tempfile::TempDir;

/// VNF instance of the tests; the default tenant's VNFM is granted it.
pub const VNF: &str = "amf-1";
/// VDU of the tests.
pub const VDU: &str = "amf-worker";
/// Anchor of the default tenant for initial certificates of [`Site::mano_ca`].
pub const ANCHOR: &str = "mano";

/// What a site is set up with.
#[derive(Clone)]
pub struct Options {
    /// What is run as `keybroker init` and `serve`.
    pub program: &'static Path,
    /// Of the default tenant.
    pub destruction_horizon: &'static str,
    /// Of the default tenant.
    pub confirm_deadline: &'static str,
    /// Lines for `[audit]`.
    pub audit: &'static str,
    /// Lines for `keybroker.toml` after all others, e.g. a further `[tenant.NAME]`.
    pub more_toml: String,
    /// `log.level`.
    pub log_level: &'static str,
    /// For the broker's environment.
    pub environment: Vec<(String, String)>,
    /// `hsm.interactive_workers` and `hsm.bulk_workers`.
    pub workers: (u32, u32),
    /// `store.url`.
    pub store_url: String,
    /// Whether EST is served.
    pub est: bool,
    /// `hsm.sealing`; empty for the default.
    pub sealing: &'static [&'static str],
    /// Whether the module is the one that fails on command, before the real one.
    pub faulty: bool,
    /// The same for tokens of tenants that name [`faulty_module`] in their section; the broker's own is not.
    pub faulty_tenants: bool,
    /// `audit.refusals_per_source` and `audit.refusals_together`; by default each refusal is recorded by itself.
    pub refusals: (u32, u32),
    /// `hsm.call_deadline`.
    pub call_deadline: &'static str,
    /// For brokers that run in containers: where we reach the database that they have by another name.
    pub contained: Option<Contained>,
}

/// What is different where brokers run in containers. They see this directory where we see it, listen on the ports of
/// deploy/docker, which are published on ours, and are started and stopped by whoever made the containers.
#[derive(Clone)]
pub struct Contained {
    /// Address of the database for `psql` here.
    pub database: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            program: keybroker(),
            destruction_horizon: "2s",
            confirm_deadline: "15m",
            audit: "",
            more_toml: String::new(),
            log_level: "info",
            environment: Vec::new(),
            workers: (1, 1),
            store_url: "sqlite:keybroker.db".to_owned(),
            est: false,
            sealing: &[],
            faulty: false,
            faulty_tenants: false,
            refusals: (1_000_000, 1_000_000),
            call_deadline: "10s",
            contained: None,
        }
    }
}

/// Addresses of the listeners.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    pub bootstrap: SocketAddr,
    pub vnfci: SocketAddr,
    pub management: SocketAddr,
    pub http: SocketAddr,
    pub admin: SocketAddr,
    pub est: SocketAddr,
}

/// A fresh token, an initialised and running broker, and MANO's CA as its anchor.
pub struct Site {
    directory: Arc<TempDir>,
    /// Of its configuration and log.
    name: &'static str,
    pub token: SoftHsmToken,
    pub addresses: Addresses,
    pub options: Options,
    /// Issues initial certificates; anchor [`ANCHOR`] of the tenant `default`.
    pub mano_ca: Arc<SoftwareCa>,
    pub(super) broker: Option<Broker>,
}

impl Site {
    /// With defaults.
    pub async fn start() -> Self {
        Self::start_with(Options::default()).await
    }

    /// Makes the token, runs `keybroker init` and `keybroker serve`, adds the anchor.
    pub async fn start_with(options: Options) -> Self {
        let mut site = Self::prepare(options);
        site.init().await;
        site.serve().await;
        site.add_anchor("default", ANCHOR, &site.mano_ca).await;
        site
    }

    /// Token and configuration only.
    pub fn prepare(options: Options) -> Self {
        let directory = tempfile::Builder::new().prefix("keybroker-test-").tempdir().unwrap();
        let token = fresh_token(directory.path(), keybroker());
        let mano_ca = Arc::new(SoftwareCa::new("MANO initial CA"));
        let site = Self {
            directory: Arc::new(directory),
            name: "keybroker",
            token,
            addresses: Addresses::free(),
            options,
            mano_ca,
            broker: None,
        };
        site.write_config();
        site
    }

    /// A second broker on the same token and database, running: the same configuration with other addresses.
    pub async fn replica(&self) -> Self {
        let mut replica = self.prepare_replica("replica");
        replica.serve().await;
        replica
    }

    /// The same for a broker that somebody else starts.
    pub fn prepare_replica(&self, name: &'static str) -> Self {
        let replica = Self {
            directory: Arc::clone(&self.directory),
            name,
            token: self.token.clone(),
            addresses: Addresses::free(),
            options: self.options.clone(),
            mano_ca: Arc::clone(&self.mano_ca),
            broker: None,
        };
        replica.write_config();
        replica
    }

    /// A further token of the same module, initialised by SoftHSM's own tool, with its PIN in `LABEL.pin`; for
    /// `[tenant.NAME]`. Gives the directory that the module keeps it in.
    pub async fn add_token(&self, label: &str) -> PathBuf {
        let tokens = || -> BTreeSet<PathBuf> {
            let entries = std::fs::read_dir(self.path().join("tokens")).unwrap();
            entries.map(|entry| entry.unwrap().path()).collect()
        };
        let before = tokens();
        let pin = format!("pin-of-{label}");
        let arguments =
            ["--init-token", "--free", "--label", label, "--pin", &pin, "--so-pin", "so-pin-1234"];
        let configuration = self.token.configuration.display().to_string();
        run_with("softhsm2-util", arguments, &[("SOFTHSM2_CONF", &configuration)]).await.ok();
        self.write_pin(label, &pin);
        tokens().difference(&before).next().unwrap().clone()
    }

    /// Writes `LABEL.pin`, mode 0600.
    pub fn write_pin(&self, label: &str, pin: &str) {
        let path = self.path().join(format!("{label}.pin"));
        std::fs::write(&path, pin).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// Writes `keybroker.toml` from addresses and options.
    pub fn write_config(&self) {
        let (mut addresses, options) = (self.addresses, &self.options);
        let mut listen = if options.est { format!("est = \"{}\"\n", addresses.est) } else { String::new() };
        let sealing = match options.sealing {
            [] => String::new(),
            suites => format!("sealing = {suites:?}\n"),
        };
        let mut module = self.token.module.display().to_string();
        let mut environment =
            format!("{} = {:?}", self.token.variable, self.token.configuration.display().to_string());
        if options.faulty || options.faulty_tenants {
            let control = self.faults().control().display().to_string();
            environment += &format!(", PKCS11_FAULT_MODULE = {module:?}, PKCS11_FAULT_CONTROL = {control:?}");
        }
        if options.faulty {
            module = faulty_module().display().to_string();
        }
        let mut store = format!("url = {:?}\n", options.store_url);
        if options.contained.is_some() {
            module = "/usr/lib/softhsm/libsofthsm2.so".to_owned();
            store += "password_file = \"database-password\"\n";
            listen = format!("http_url = \"http://{}\"\n", addresses.http);
            addresses = Addresses::CONTAINED;
        }
        let text = format!(
            "[hsm]\nmodule = {:?}\ntoken = {:?}\npin_file = \"pin\"\n\
             environment = {{ {environment} }}\ncall_deadline = {:?}\n\
             interactive_workers = {}\nbulk_workers = {}\nbackup_retention = \"none\"\n{sealing}\
             [store]\n{store}\
             [listen]\nbootstrap = \"{}\"\nvnfci = \"{}\"\nmanagement = \"{}\"\nhttp = \"{}\"\nadmin = \"{}\"\n\
             server_names = [\"localhost\", \"127.0.0.1\"]\n{listen}\
             [audit]\nrefusals_per_source = {}\nrefusals_together = {}\n{}\n\
             [log]\nlevel = {:?}\n\
             [tenant.default]\ndestruction_horizon = {:?}\nconfirm_deadline = {:?}\n{}\n",
            module,
            self.token.label,
            options.call_deadline,
            options.workers.0,
            options.workers.1,
            addresses.bootstrap,
            addresses.vnfci,
            addresses.management,
            addresses.http,
            addresses.admin,
            options.refusals.0,
            options.refusals.1,
            options.audit,
            options.log_level,
            options.destruction_horizon,
            options.confirm_deadline,
            options.more_toml,
        );
        std::fs::write(self.config(), text).unwrap();
    }

    /// What makes the module fail; for sites with [`Options::faulty`].
    pub fn faults(&self) -> Faults {
        Faults::new(self.path())
    }

    /// `keybroker init`; the VNFM is granted [`VNF`].
    pub async fn init(&self) -> Finished {
        let config = self.config().display().to_string();
        let arguments = ["init", "--config", &config, "--grant", VNF, "--output", "json"];
        run(self.options.program, arguments).await.ok()
    }

    /// Starts the broker and waits until it answers on every listener.
    pub async fn serve(&mut self) {
        assert!(self.broker.is_none(), "it runs already");
        self.broker = Some(self.start_broker().await);
    }

    /// A broker that answers on every listener, held by the caller: so that it can be killed and started while clients
    /// share the site.
    pub async fn start_broker(&self) -> Broker {
        let mut broker = self.spawn_broker();
        until(PATIENCE, "the broker's first answer", async || {
            broker.check();
            (connect(&self.management_url(), &self.role("operator")).await.is_ok()
                && connect(&self.bootstrap_url(), &self.role("operator")).await.is_ok())
            .then_some(())
        })
        .await;
        broker
    }

    /// The same for a caller who does not wait for its first answer, which may never come.
    pub fn spawn_broker(&self) -> Broker {
        Broker::start(self.options.program, &self.config(), &self.log(), &self.options.environment)
    }

    /// The running broker, from now on held by the caller.
    pub fn take_broker(&mut self) -> Broker {
        self.broker.take().expect("the broker runs")
    }

    /// Takes a broker of [`Site::start_broker`] back.
    pub fn return_broker(&mut self, broker: Broker) {
        assert!(self.broker.replace(broker).is_none(), "it runs already");
    }

    /// The running broker.
    pub fn broker(&self) -> &Broker {
        self.broker.as_ref().expect("the broker runs")
    }

    /// Panics with the end of its log if the broker has ended.
    pub fn check(&mut self) {
        if self.options.contained.is_some() {
            return;
        }
        self.broker.as_mut().expect("the broker runs").check();
    }

    /// SIGKILL for the broker.
    pub fn kill(&mut self) {
        self.broker.take().expect("the broker runs").kill();
    }

    /// SIGTERM for the broker, which must end with 0.
    pub async fn stop(&mut self) {
        let status = self.broker.take().expect("the broker runs").terminate().await;
        assert!(status.success(), "{status}");
    }

    /// SIGKILL, then the same configuration again.
    pub async fn kill_and_restart(&mut self) {
        self.kill();
        self.serve().await;
    }

    /// A command of ours with JSON output.
    pub async fn cli<S: AsRef<str>>(&self, arguments: impl IntoIterator<Item = S>) -> Finished {
        let mut all: Vec<String> =
            arguments.into_iter().map(|argument| argument.as_ref().to_owned()).collect();
        all.extend(["--output".to_owned(), "json".to_owned()]);
        run(keybroker(), all).await
    }

    /// A command that a role of the default tenant runs.
    pub async fn cli_as(&self, role: &str, arguments: &[&str]) -> Finished {
        let (profile, server) = (self.profile(role).display().to_string(), self.management_url());
        let mut connection = vec!["--profile", &profile];
        if self.options.contained.is_some() {
            connection.extend(["--server", &server]);
        }
        self.cli(arguments.iter().copied().chain(connection)).await
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn config(&self) -> PathBuf {
        self.path().join(format!("{}.toml", self.name))
    }

    pub fn log(&self) -> PathBuf {
        self.path().join(format!("{}.log", self.name))
    }

    pub fn database(&self) -> PathBuf {
        self.path().join("keybroker.db")
    }

    pub fn root_pem(&self) -> PathBuf {
        self.path().join("root.pem")
    }

    pub fn audit_key(&self) -> PathBuf {
        self.path().join("audit.pub")
    }

    /// Client profile of a role that `init` made: operator, nfvo, vnfm, auditor, security-operator.
    pub fn profile(&self, role: &str) -> PathBuf {
        self.path().join("clients").join(role).join("profile.toml")
    }

    /// What such a role connects with.
    pub fn role(&self, role: &str) -> ClientTls {
        let directory = self.path().join("clients").join(role);
        ClientTls::from_files(&self.root_pem(), &directory.join("cert.pem"), &directory.join("key.pem"))
            .unwrap()
    }

    pub fn bootstrap_url(&self) -> String {
        format!("https://{}", self.addresses.bootstrap)
    }

    pub fn vnfci_url(&self) -> String {
        format!("https://{}", self.addresses.vnfci)
    }

    pub fn management_url(&self) -> String {
        format!("https://{}", self.addresses.management)
    }

    pub fn est_url(&self) -> String {
        format!("https://{}", self.addresses.est)
    }

    /// Waits, while the broker runs, until there is an answer.
    pub async fn until<T>(&mut self, what: &str, mut ask: impl AsyncFnMut(&Self) -> Option<T>) -> T {
        let begun = std::time::Instant::now();
        loop {
            self.check();
            if let Some(answer) = ask(self).await {
                return answer;
            }
            assert!(begun.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the broker's log ---\n{}", log_tail(&self.log(), 60));
        }
    }
}

impl Addresses {
    /// What brokers in containers listen on, as deploy/docker has it.
    pub const CONTAINED: Self = {
        const fn on(port: u16) -> SocketAddr {
            SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port)
        }
        Self {
            bootstrap: on(7443),
            vnfci: on(7444),
            management: on(7445),
            http: on(7080),
            admin: on(7090),
            est: on(7446),
        }
    };

    /// Six free ports. They are below those that the kernel gives to outgoing connections, so that none is taken
    /// while a broker is away, and differ between test processes that run at the same time.
    pub fn free() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        for _ in 0..1_000 {
            let place = (std::process::id() + NEXT.fetch_add(1, Ordering::Relaxed) * 1_777) % 4_000;
            let base = 8_000 + u16::try_from(place).unwrap() * 6;
            let address = |offset: u16| SocketAddr::from(([127, 0, 0, 1], base + offset));
            if (0..6).all(|offset| TcpListener::bind(address(offset)).is_ok()) {
                return Self {
                    bootstrap: address(0),
                    vnfci: address(1),
                    management: address(2),
                    http: address(3),
                    admin: address(4),
                    est: address(5),
                };
            }
        }
        panic!("no six free ports");
    }
}
