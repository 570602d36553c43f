//! The place: a network of its own with a database and some brokers, a container each.

use crate::support::ca::SoftwareCa;
use crate::support::mano::http_exchange;
use crate::support::process::run;
use crate::support::settlement::Held;
use crate::support::site::{ANCHOR, Addresses, Contained, Options, Site};
use crate::support::vnfci::{Claimed, Vnfci, transient};
use crate::support::{PATIENCE, until};
use keybroker::api::client::connect;
use keybroker::ca::pem;
use keybroker::cli::{Readers, replace};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use testcontainers::core::logs::LogFrame;
use testcontainers::core::wait::ExitWaitStrategy;
use testcontainers::core::{IntoContainerPort, Mount, WaitFor};
use testcontainers::runners::AsyncRunner;
use testcontainers::{ContainerAsync, ContainerRequest, GenericImage, ImageExt};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::Status;

pub(crate) const POOL: &str = "amf-transport";
pub(crate) const SLOTS: [(&str, &str); 2] = [("client", POOL), ("server", POOL)];
/// How long a broker that is gone keeps its leases.
pub(crate) const LEASE: Duration = Duration::from_secs(30);
/// A call that a VNFCI gives up: whoever it was sent to may be gone without a word.
const CALL: Duration = Duration::from_secs(8);
/// The user of the image.
const USER: u32 = 10_001;
const PASSWORD: &str = "tell-nobody";

type Container = ContainerAsync<GenericImage>;

/// A database and brokers that share it and the token.
pub(crate) struct Place {
    network: String,
    pub(crate) database: Container,
    brokers: Vec<Container>,
    /// As MANO and VNFCIs see each broker; shared while they are at work.
    sites: Vec<Arc<Site>>,
}

/// Whether there is no engine; then the test says why.
pub(crate) fn engine_is_missing() -> bool {
    let why = match std::env::var("KEYBROKER_TEST_ENGINE") {
        Ok(engine) if engine == "ready" => return false,
        Ok(reason) => reason,
        Err(_) => "`make containers` provides one".to_owned(),
    };
    skipped(&format!("no container engine ({why})"));
    true
}

/// Says that a test is skipped, and why.
pub(crate) fn skipped(why: &str) {
    println!("{}: skipped: {why}", std::thread::current().name().unwrap_or_default());
}

impl Place {
    /// So many brokers, serving; none where there is no engine.
    pub(crate) async fn start(brokers: usize) -> Option<Self> {
        if engine_is_missing() {
            return None;
        }
        let name = format!("kb-{:08x}", rand::random::<u32>());
        let (network, server) = (name.clone(), format!("{name}-database"));
        let mut site = Site::prepare(Options {
            contained: Some(Contained { database: String::new() }),
            ..Options::default()
        });
        let ca = SoftwareCa::new("database CA");
        let database = start_database(&site, &network, &server, &ca).await;

        let ca_file = site.path().join("database-ca.pem");
        std::fs::write(&ca_file, pem("CERTIFICATE", &ca.certificate_der)).unwrap();
        replace(&site.path().join("database-password"), PASSWORD.as_bytes(), Readers::Owner).unwrap();
        let ca_file = ca_file.display();
        site.options.store_url =
            format!("postgres://keybroker@{server}/keybroker?sslmode=verify-full&sslrootcert={ca_file}");
        let port = site.addresses.est.port();
        let here = format!("postgres://keybroker:{PASSWORD}@127.0.0.1:{port}/keybroker?sslmode=require");
        site.options.contained = Some(Contained { database: here });
        site.write_config();
        hand_over(site.path());
        initialise(&site, &network).await;

        let names = ["second", "third"];
        let replicas: Vec<Site> =
            names[..brokers - 1].iter().map(|name| site.prepare_replica(name)).collect();
        let mut place = Self { network, database, brokers: Vec::new(), sites: Vec::new() };
        for site in std::iter::once(site).chain(replicas) {
            place.brokers.push(start_broker(&site, &place.network).await);
            place.sites.push(Arc::new(site));
        }
        for site in &place.sites {
            until_it_serves(site).await;
        }
        let first = &place.sites[0];
        first.add_anchor("default", ANCHOR, &first.mano_ca).await;
        Some(place)
    }

    /// As MANO and VNFCIs see a broker.
    pub(crate) fn site(&self, broker: usize) -> &Site {
        &self.sites[broker]
    }

    /// The same, while nobody else is at work.
    pub(crate) fn site_mut(&mut self, broker: usize) -> &mut Site {
        Arc::get_mut(&mut self.sites[broker]).expect("all VNFCIs have booted")
    }

    /// A broker's container.
    pub(crate) fn broker(&self, broker: usize) -> &Container {
        &self.brokers[broker]
    }

    /// A pool that is refilled whenever a credential is drawn: a pool that was full once is full again.
    pub(crate) async fn refilled_pool(&mut self, target: u32) {
        let site = self.site_mut(0);
        site.create_pool(POOL, target, Some(target)).await;
        site.until_available(POOL, target).await;
    }

    /// Takes a container from the network: packets to and from it go nowhere.
    pub(crate) async fn cut_off(&self, container: &Container) {
        engine(&["network", "disconnect", &self.network, container.id()]).await;
    }

    /// Puts it back.
    pub(crate) async fn reconnect(&self, container: &Container) {
        engine(&["network", "connect", &self.network, container.id()]).await;
    }

    /// Has VNFCIs claim and confirm, each at one broker after the other until it gets through.
    pub(crate) fn boot(&self, vnfcis: Vec<Vnfci>) -> Booting {
        let confirmed = watch::Sender::new(0);
        let mut tasks = JoinSet::new();
        for (n, vnfci) in vnfcis.into_iter().enumerate() {
            let mut sites = self.sites.clone();
            sites.rotate_left(n % self.sites.len());
            tasks.spawn(boot(vnfci, sites, confirmed.clone()));
        }
        Booting { confirmed, tasks }
    }

    /// When each broker's container was started, by the engine's account.
    pub(crate) async fn started_at(&self) -> Vec<String> {
        let mut times = Vec::new();
        for broker in &self.brokers {
            times.push(
                engine(&["inspect", "--format", "{{.State.StartedAt}} {{.State.Running}}", broker.id()])
                    .await,
            );
        }
        times
    }
}

/// VNFCIs at work.
pub(crate) struct Booting {
    confirmed: watch::Sender<usize>,
    tasks: JoinSet<(Vnfci, Claimed)>,
}

impl Booting {
    /// Waits until so many are done, and panics if by then all of them are.
    pub(crate) async fn until_confirmed(&self, number: usize) {
        let mut seen = self.confirmed.subscribe();
        let reached = seen.wait_for(|done| *done >= number);
        let done = *tokio::time::timeout(PATIENCE, reached).await.expect("VNFCIs boot").unwrap();
        assert!(done < self.tasks.len(), "all was done before anything happened");
    }

    /// How many are done.
    pub(crate) fn confirmed(&self) -> usize {
        *self.confirmed.borrow()
    }

    /// What all of them hold in the end.
    pub(crate) async fn all(self) -> Held {
        let mut held = Held::default();
        for (vnfci, claimed) in self.tasks.join_all().await {
            held.unsealed(&vnfci.id, &claimed);
            held.acknowledged(&claimed);
        }
        held
    }
}

/// Claims, then confirms.
async fn boot(vnfci: Vnfci, sites: Vec<Arc<Site>>, confirmed: watch::Sender<usize>) -> (Vnfci, Claimed) {
    let begun = Instant::now();
    let mut sites = sites.iter().cycle();
    let mut claimed: Option<Claimed> = None;
    loop {
        let site = sites.next().unwrap();
        let attempt = async {
            match &claimed {
                None => claimed = Some(vnfci.claim(site).await?),
                Some(claimed) => return vnfci.confirm(site, claimed).await.map(|_| true),
            }
            Ok(false)
        };
        let gone = Err(Status::deadline_exceeded("no answer"));
        match tokio::time::timeout(CALL, attempt).await.unwrap_or(gone) {
            Ok(true) => break,
            Ok(false) => {}
            Err(status) => {
                assert!(transient(&status), "{}: {status:?}", vnfci.id);
                assert!(begun.elapsed() < PATIENCE * 3, "{} never got through: {status:?}", vnfci.id);
                tokio::time::sleep(Duration::from_millis(rand::random_range(30..90))).await;
            }
        }
    }
    confirmed.send_modify(|number| *number += 1);
    (vnfci, claimed.expect("claimed before it was confirmed"))
}

/// SIGKILL for every process of a container.
pub(crate) async fn kill(container: &Container) {
    engine(&["kill", container.id()]).await;
}

/// The engine's own client, for what testcontainers has no call for.
pub(crate) async fn engine(arguments: &[&str]) -> String {
    run("docker", arguments).await.ok().out.trim().to_owned()
}

/// Waits until a broker answers on its listeners.
pub(crate) async fn until_it_serves(site: &Site) {
    until(PATIENCE, "the broker's first answer", async || {
        let operator = site.role("operator");
        (connect(&site.management_url(), &operator).await.is_ok()
            && connect(&site.bootstrap_url(), &operator).await.is_ok())
        .then_some(())
    })
    .await;
}

/// Waits until a broker says whether it is ready.
pub(crate) async fn until_ready(site: &Site, ready: bool) {
    let wanted = if ready { "HTTP/1.1 200" } else { "HTTP/1.1 503" };
    until(PATIENCE, wanted, async || {
        let (head, _) = http_exchange(&format!("http://{}/readyz", site.addresses.admin)).await;
        head.starts_with(wanted).then_some(())
    })
    .await;
}

async fn start_database(site: &Site, network: &str, name: &str, ca: &SoftwareCa) -> Container {
    let tls = ca.server(name);
    GenericImage::new("keybroker-test-postgres", "latest")
        .with_wait_for(WaitFor::message_on_stderr("database system is ready to accept connections"))
        .with_container_name(name)
        .with_network(network)
        // EST is not served here.
        .with_mapped_port(site.addresses.est.port(), 5432.tcp())
        .with_copy_to("/run/database/server.crt", pem("CERTIFICATE", tls.certificate_der()).into_bytes())
        .with_copy_to("/run/database/server.key", pem("PRIVATE KEY", &tls.key_der).into_bytes())
        .with_copy_to("/run/database/password", PASSWORD.as_bytes().to_vec())
        .start()
        .await
        .unwrap()
}

/// The image as deploy/docker/compose.yml runs it, on the directory that we see, too; but with the engine's own limits, which
/// not every engine may raise.
fn broker_image(site: &Site, network: &str, wait: Option<WaitFor>) -> ContainerRequest<GenericImage> {
    let directory = site.path().display().to_string();
    let image = GenericImage::new("keybroker-test", "latest");
    let image = wait.into_iter().fold(image, GenericImage::with_wait_for);
    let request = image
        .with_network(network)
        .with_mount(Mount::bind_mount(directory.clone(), directory))
        .with_mount(Mount::tmpfs_mount("/tmp"))
        .with_readonly_rootfs(true)
        .with_cap_drop("ALL")
        .with_security_opt("no-new-privileges:true");
    if rustix::process::geteuid().is_root() {
        return request;
    }
    // The directory is ours, and we cannot give it away.
    let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    request.with_user(format!("{user}:{group}"))
}

/// `keybroker init` in a container: only there the database has its name.
async fn initialise(site: &Site, network: &str) {
    let config = site.config().display().to_string();
    let done = WaitFor::exit(ExitWaitStrategy::new());
    let container = broker_image(site, network, Some(done))
        .with_cmd(["init", "--config", &config, "--grant", crate::support::site::VNF])
        .start()
        .await
        .unwrap();
    let said = container.stderr_to_vec().await.unwrap();
    assert_eq!(container.exit_code().await.unwrap(), Some(0), "{}", String::from_utf8_lossy(&said));
}

async fn start_broker(site: &Site, network: &str) -> Container {
    let config = site.config().display().to_string();
    let mut request = broker_image(site, network, None).with_cmd(["serve", "--config", &config]);
    let (published, inside) = (&site.addresses, Addresses::CONTAINED);
    for (here, there) in [
        (published.bootstrap, inside.bootstrap),
        (published.vnfci, inside.vnfci),
        (published.management, inside.management),
        (published.http, inside.http),
        (published.admin, inside.admin),
    ] {
        request = request.with_mapped_port(here.port(), there.port().tcp());
    }
    let log = std::fs::File::options().create(true).append(true).open(site.log()).unwrap();
    let log = move |frame: &LogFrame| (&log).write_all(frame.bytes()).unwrap();
    request.with_log_consumer(log).start().await.unwrap()
}

/// Gives the directory to the user of the image, if we may.
fn hand_over(directory: &Path) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let owner = format!("{USER}:{USER}");
    let status = std::process::Command::new("chown").args(["-R", &owner]).arg(directory).status().unwrap();
    assert!(status.success(), "{status}");
}
