//! A broker that dies at a named point, as by SIGKILL: the program built with the feature `crash-points`, told by a file.

use super::PATIENCE;
use super::process::{keybroker, run};
use super::settlement::assert_consistent;
use super::site::{ANCHOR, Options, Site};
use super::until;
use super::vnfci::transient;
use keybroker::api::client::connect;
use keybroker::crash::{POINTS, Point};
use std::fmt::Debug;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use tonic::Status;
use tonic::transport::Channel;

/// What the program is told the file by.
const VARIABLE: &str = "KEYBROKER_CRASH_FILE";

/// Builds the program with crash points, once per process, and gives its path. What it depends on is taken from the build
/// that is being tested; the program itself lies elsewhere, so that no other test runs it.
pub fn crashing_keybroker() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let build = keybroker().ancestors().nth(2).unwrap();
        let target = build.join("crash");
        let mut cargo = std::process::Command::new(env!("CARGO"));
        // What cargo tells the process of a test would make build scripts run again.
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
                cargo.env_remove(name);
            }
        }
        let built = cargo
            .args(["build", "--quiet", "--locked", "--bin", "keybroker", "--features", "crash-points"])
            .arg("--target-dir")
            .arg(&target)
            .env("CARGO_BUILD_BUILD_DIR", build)
            .current_dir(root)
            .output()
            .unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        target.join("debug/keybroker")
    })
}

/// A point's name.
pub fn name_of(point: Point) -> &'static str {
    POINTS.iter().find(|(known, _, _)| *known == point).unwrap().1
}

/// Whether it is a worker process that dies there.
fn of_worker(point: Point) -> bool {
    name_of(point).starts_with("worker.")
}

impl Site {
    /// A running site whose broker has crash points.
    pub async fn start_crashing(options: Options) -> Self {
        let mut site = Self::prepare_crashing(options);
        site.init().await;
        site.serve().await;
        site.add_anchor("default", ANCHOR, &site.mano_ca).await;
        site
    }

    /// Token and configuration only.
    pub fn prepare_crashing(options: Options) -> Self {
        let mut site = Self::prepare(Options { program: crashing_keybroker(), ..options });
        let file = site.crash_file().display().to_string();
        site.options.environment.push((VARIABLE.to_owned(), file));
        site
    }

    fn crash_file(&self) -> PathBuf {
        self.path().join("crash")
    }

    /// From now on the program dies at this point, once.
    pub fn arm(&self, point: Point) {
        // Never seen half-written.
        let new = self.path().join("crash.new");
        std::fs::write(&new, name_of(point)).unwrap();
        std::fs::rename(new, self.crash_file()).unwrap();
    }

    /// Whether it is still to die.
    pub fn armed(&self) -> bool {
        self.crash_file().exists()
    }

    /// Panics unless this process died at this point.
    pub fn assert_struck(&self, point: Point, ended: ExitStatus) {
        assert_eq!((self.struck().as_deref(), ended.signal()), (Some(name_of(point)), Some(9)), "{ended}");
    }

    /// Where a process died since this was asked last.
    fn struck(&self) -> Option<String> {
        let file = self.path().join("crash.struck");
        let struck = std::fs::read_to_string(&file).ok()?;
        std::fs::remove_file(file).unwrap();
        Some(struck)
    }

    /// A command that is to die at this point.
    pub async fn cli_until(&self, point: Point, arguments: &[&str]) {
        self.arm(point);
        let mut command = tokio::process::Command::new(self.options.program);
        command.args(arguments).env(VARIABLE, self.crash_file()).envs(self.options.environment.clone());
        let ended = tokio::time::timeout(PATIENCE, command.kill_on_drop(true).output()).await;
        let ended = ended.unwrap_or_else(|_| panic!("{} is not reached", name_of(point))).unwrap();
        assert!(ended.status.code().is_none(), "{}: {ended:?}", name_of(point));
        self.assert_struck(point, ended.status);
    }

    /// The broker dies at this point while `operate` is tried, is started again, and `operate` is tried until it succeeds. At
    /// a point of the HSM's workers it is a worker that dies, and the broker lives on. Gives its outcome, which is the same as the first time, if that was told, and the same once more. `operate` has the
    /// same request id every time. Then everything must fit together, and the log go on.
    pub async fn crash_at<T: PartialEq + Debug>(
        &mut self,
        point: Point,
        operate: impl AsyncFn(&Site) -> Result<T, Status>,
    ) -> T {
        let name = name_of(point);
        let earlier_head = self.head_before().await;
        self.arm(point);
        let first = operate(self).await;
        if let Err(status) = &first {
            assert!(transient(status), "{name}: {status:?}");
        }
        self.until_struck(point).await;
        let begun = Instant::now();
        let outcome = loop {
            match operate(self).await {
                Ok(outcome) => break outcome,
                Err(status) => {
                    assert!(transient(&status) && begun.elapsed() < PATIENCE, "{name}: {status:?}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        };
        if let Ok(first) = first {
            assert_eq!(first, outcome, "{name}: what was told before the crash, and what after it");
        }
        assert_eq!(operate(self).await.unwrap(), outcome, "{name}: repeated");
        self.check_all(&earlier_head).await;
        outcome
    }

    /// The same for what happens by itself once `begin` was done: nothing is asked again.
    pub async fn crash_after<T>(&mut self, point: Point, begin: impl AsyncFn(&Site) -> T) -> T {
        let earlier_head = self.head_before().await;
        self.arm(point);
        let begun = begin(self).await;
        self.until_struck(point).await;
        self.check_all(&earlier_head).await;
        begun
    }

    /// A signed head of the log from before the crash: what the check after the one before left, if there was one.
    async fn head_before(&mut self) -> PathBuf {
        let head = self.path().join("head.before.json");
        if !head.exists() {
            std::fs::copy(self.export("before").await.join("head.json"), &head).unwrap();
        }
        head
    }

    async fn check_all(&mut self, earlier_head: &Path) {
        let checked = assert_consistent(self, earlier_head).await;
        std::fs::copy(checked.join("head.json"), earlier_head).unwrap();
    }

    /// Waits until the broker has died at this point, and starts it again; or until one of its workers has, and asserts that
    /// the broker has not.
    async fn until_struck(&mut self, point: Point) {
        if of_worker(point) {
            let struck = until(PATIENCE, name_of(point), async || self.struck()).await;
            assert_eq!(struck, name_of(point));
            return self.check();
        }
        let mut broker = self.take_broker();
        let ended = until(PATIENCE, name_of(point), async || broker.ended()).await;
        self.assert_struck(point, ended);
        drop(broker);
        self.serve().await;
    }

    /// A connection of a role to the management listener, if the broker is there.
    pub async fn reach(&self, role: &str) -> Result<Channel, Status> {
        let connected = connect(&self.management_url(), &self.role(role)).await;
        connected.map(|connection| connection.channel).map_err(|error| Status::unavailable(error.to_string()))
    }

    /// Whether a program contains this text.
    pub async fn program_contains(program: &Path, text: &str) -> bool {
        let program = program.display().to_string();
        run("grep", ["--quiet", "--text", "--fixed-strings", text, &program]).await.code == 0
    }
}
