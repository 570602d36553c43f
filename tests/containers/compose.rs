//! Goal: what deploy/docker/compose.yml installs serves, and keeps what it has.
//! Method: the file itself, by the compose that is there, with free ports and the tests' images. MANO and VNFCIs are the
//! command line on the host, with the certificates that the file's own comment has one copy out.

use crate::place::{engine, engine_is_missing, skipped};
use crate::support::process::{Finished, keybroker, run, run_with};
use crate::support::site::{Addresses, VDU, VNF};
use crate::support::{PATIENCE, until};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

const POOL: &str = "amf-transport";
/// What the tests have in place of the file's images, and of limits that an engine in a container may not raise.
const IN_PLACE: &str = "services:
  database: { image: keybroker-test-postgres-official }
  init: { image: keybroker-test, ulimits: { memlock: 65536, nofile: 4096 } }
  keybroker: { image: keybroker-test, ulimits: { memlock: 65536, nofile: 4096 } }
";

/// The installation; removed with its volumes when dropped.
struct Installation {
    directory: TempDir,
    /// The present plugin, or the program of Debian 12.
    compose: Vec<String>,
    project: String,
    published: Addresses,
}

impl Installation {
    /// Not yet up; none where there is no engine or no compose.
    async fn prepare() -> Option<Self> {
        if engine_is_missing() {
            return None;
        }
        let mut compose = vec!["docker".to_owned(), "compose".to_owned()];
        if run("docker", ["compose", "version"]).await.code != 0 {
            if Command::new("docker-compose").arg("version").output().is_err() {
                skipped("neither `docker compose` nor docker-compose is installed");
                return None;
            }
            compose = vec!["docker-compose".to_owned()];
        }
        let directory = TempDir::new().unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/docker");
        for name in [".env", "keybroker.toml"] {
            std::fs::copy(source.join(name), directory.path().join(name)).unwrap();
        }
        let (published, inside) = (Addresses::free(), Addresses::CONTAINED);
        let mut file = std::fs::read_to_string(source.join("compose.yml")).unwrap();
        for (here, there) in [
            (published.bootstrap, inside.bootstrap),
            (published.vnfci, inside.vnfci),
            (published.management, inside.management),
            (published.http, inside.http),
        ] {
            let port = there.port();
            let publishing = format!("\"127.0.0.1:{port}:{port}\"");
            assert!(file.contains(&publishing), "{publishing}");
            file = file.replace(&publishing, &format!("\"{here}:{port}\""));
        }
        std::fs::write(directory.path().join("compose.yml"), file).unwrap();
        std::fs::write(directory.path().join("tests.yml"), IN_PLACE).unwrap();
        compose.extend(
            ["compose.yml", "tests.yml"]
                .into_iter()
                .flat_map(|file| ["--file".to_owned(), directory.path().join(file).display().to_string()]),
        );
        let project = format!("kb-{:08x}", rand::random::<u32>());
        compose.extend(["--project-name".to_owned(), project.clone()]);
        Some(Self { directory, compose, project, published })
    }

    /// Runs compose.
    async fn compose(&self, arguments: &[&str]) -> Finished {
        run(&self.compose[0], self.compose[1..].iter().map(String::as_str).chain(arguments.iter().copied()))
            .await
    }

    /// Brings it up and waits until the broker is healthy.
    async fn up(&self) {
        self.compose(&["up", "--detach", "--no-build"]).await.ok();
        self.until_healthy().await;
    }

    /// By the image's health check, as the engine sees it.
    async fn until_healthy(&self) {
        let project = format!("label=com.docker.compose.project={}", self.project);
        let broker = "label=com.docker.compose.service=keybroker";
        until(PATIENCE, "a healthy broker", async || {
            let healthy = ["--filter", &project, "--filter", broker, "--filter", "health=healthy"];
            let listed = engine(&[&["ps", "--quiet"], &healthy[..]].concat()).await;
            (!listed.is_empty()).then_some(())
        })
        .await;
    }

    /// Copies out what MANO and VNFCIs need.
    async fn copy_out(&self) {
        let compose = self.compose.join(" ");
        let copy = "exec -T keybroker tar -C /var/lib/keybroker -c clients root.pem audit.pub | tar -x";
        let shell = format!("cd '{}' && {compose} {copy}", self.directory.path().display());
        run("sh", ["-c", &shell]).await.ok();
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The command line, as a role.
    async fn as_role(&self, role: &str, arguments: &[&str]) -> Finished {
        let profile = self.file("clients").join(role).join("profile.toml").display().to_string();
        let server = format!("https://{}", self.published.management);
        run_with(
            keybroker(),
            [arguments, &["--server", &server]].concat(),
            &[("KEYBROKER_PROFILE", profile.as_str())],
        )
        .await
    }

    async fn register(&self, id: &str) {
        let (slot, tokens) = (format!("transport={POOL}"), self.file("tokens").display().to_string());
        let place = ["--vnf-instance", VNF, "--vdu", VDU, "--slot", &slot];
        let arguments =
            [&["vnfci", "register", id][..], &place, &["--token", "--token-dir", &tokens]].concat();
        self.as_role("nfvo", &arguments).await.ok();
    }

    /// `keybroker claim`, which tries again by itself while nobody serves.
    async fn claim(&self, id: &str) -> Finished {
        let server = self.published.bootstrap.to_string();
        let token = self.file("tokens").join(format!("{id}.token")).display().to_string();
        let (root, out) = (self.file("root.pem").display().to_string(), self.file(id).display().to_string());
        let whom = ["--server", &server, "--trust-anchor", &root];
        run(keybroker(), [&["claim"][..], &whom, &["--token-file", &token, "--out", &out]].concat()).await
    }
}

impl Drop for Installation {
    fn drop(&mut self) {
        let mut down = Command::new(&self.compose[0]);
        down.args(&self.compose[1..]);
        if std::thread::panicking() {
            let logs = Command::new(&self.compose[0]).args(&self.compose[1..]).arg("logs").output();
            eprintln!("--- logs ---\n{}", String::from_utf8_lossy(&logs.unwrap().stdout));
        }
        down.args(["down", "--volumes", "--timeout", "1"]).output().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_compose_files_installation_serves_a_claim_and_keeps_everything_when_it_comes_back() {
    let Some(installation) = Installation::prepare().await else { return };
    installation.up().await;
    installation.copy_out().await;
    let pool = ["pool", "create", POOL, "--vnf-instance", VNF, "--vdu", VDU, "--target", "8"];
    installation.as_role("nfvo", &pool).await.ok();
    for id in ["amf-1", "amf-2", "amf-3", "amf-4"] {
        installation.register(id).await;
    }
    installation.claim("amf-1").await.ok();
    installation
        .as_role("auditor", &["audit", "export", "--out", &installation.file("before").display().to_string()])
        .await
        .ok();

    installation.compose(&["restart"]).await.ok();
    installation.claim("amf-2").await.ok();

    // The database goes away and comes back; the VNFCI is told to try again meanwhile.
    installation.until_healthy().await;
    installation.compose(&["stop", "database"]).await.ok();
    let (claimed, ()) = tokio::join!(installation.claim("amf-3"), async {
        let refused = installation.as_role("nfvo", &["pool", "list"]).await;
        assert_eq!(refused.code, 4, "{refused:?}");
        installation.compose(&["start", "database"]).await.ok();
    });
    claimed.ok();

    // Containers and networks are gone, the volumes stay.
    installation.compose(&["down"]).await.ok();
    installation.up().await;
    installation.claim("amf-4").await.ok();
    let listed = installation.as_role("nfvo", &["pool", "list"]).await.ok().object();
    assert_eq!(listed["delivered"], 4, "{listed}");
    let (log, head) = (installation.file("log"), installation.file("before/head.json"));
    let (log, head, key) = (
        log.display().to_string(),
        head.display().to_string(),
        installation.file("audit.pub").display().to_string(),
    );
    installation.as_role("auditor", &["audit", "export", "--out", &log]).await.ok();
    let verify = ["audit", "verify", &log, "--public-key", &key, "--earlier-head", &head];
    assert_eq!(run(keybroker(), verify).await.ok().object()["verified"], true);
}
