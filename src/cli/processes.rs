//! Other `keybroker` processes, for demo and bench: the broker, and the commands that people and VNFCIs run.

use super::failure::{Exit, Failure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::ffi::OsStr;
use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tokio::process::{Child, Command};

/// How long a broker may take to finish what is under way.
const DRAIN: Duration = Duration::from_secs(30);

/// This program, to be started again.
#[derive(Debug, Clone)]
pub(super) struct Program(pub(super) PathBuf);

/// Addresses on this machine.
pub(super) struct Addresses {
    pub(super) bootstrap: SocketAddr,
    pub(super) vnfci: SocketAddr,
    pub(super) management: SocketAddr,
    pub(super) http: SocketAddr,
    pub(super) admin: SocketAddr,
}

/// How a command ended.
pub(super) struct Finished {
    /// Its exit code; -1 after a signal.
    pub(super) code: i32,
    /// The JSON objects that it printed.
    pub(super) objects: Vec<Value>,
    /// What it said on standard error.
    pub(super) said: String,
}

impl Program {
    pub(super) fn of_this_process() -> Result<Self, Failure> {
        std::env::current_exe()
            .map(Self)
            .map_err(|error| Failure::failed(format!("this program's file is not known: {error}")))
    }

    /// Runs a command to its end, whatever that is.
    pub(super) async fn run<A: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<Finished, Failure> {
        let output = Command::new(&self.0)
            .args(arguments)
            .args(["--output", "json"])
            .env_remove("KEYBROKER_PROFILE")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .map_err(|error| Failure::failed(format!("{} cannot be started: {error}", self.0.display())))?;
        let objects = String::from_utf8_lossy(&output.stdout)
            .lines()
            .map(serde_json::from_str)
            .collect::<Result<Vec<Value>, _>>()
            .map_err(|error| Failure::failed(format!("a command printed no JSON: {error}")))?;
        Ok(Finished {
            code: output.status.code().unwrap_or(-1),
            objects,
            said: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        })
    }

    /// Runs a command that must succeed; gives what it printed.
    pub(super) async fn succeed<A: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<Vec<Value>, Failure> {
        let finished = self.run(arguments).await?;
        if finished.code == 0 { Ok(finished.objects) } else { Err(finished.failure()) }
    }

    /// Runs a command that must succeed and print one object.
    pub(super) async fn object<A: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<Value, Failure> {
        self.succeed(arguments).await?.pop().ok_or_else(|| Failure::failed("a command printed nothing"))
    }

    /// Starts the broker; its log goes into a file.
    pub(super) fn serve(&self, config: &Path, log: &Path) -> Result<Broker, Failure> {
        let failed =
            |error: std::io::Error| Failure::failed(format!("the broker cannot be started: {error}"));
        let file = File::create(log).map_err(failed)?;
        let child = Command::new(&self.0)
            .arg("serve")
            .arg("--config")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(file.try_clone().map_err(failed)?)
            .stderr(file)
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        Ok(Broker { child, log: log.to_owned() })
    }
}

impl Finished {
    /// As the command's own exit code and words have it.
    pub(super) fn failure(self) -> Failure {
        let exit = match self.code {
            2 => Exit::Usage,
            3 => Exit::Refused,
            4 => Exit::Unavailable,
            _ => Exit::Failed,
        };
        let text = self.said.strip_prefix("keybroker: ").unwrap_or(&self.said).to_owned();
        Failure { exit, text }
    }
}

/// A running broker; killed when dropped.
pub(super) struct Broker {
    child: Child,
    log: PathBuf,
}

impl Broker {
    /// Its process id; none once it has ended.
    pub(super) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Fails with the end of its log if it has ended.
    pub(super) fn check(&mut self) -> Result<(), Failure> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(self.ended(status)),
            Err(error) => Err(Failure::failed(format!("the broker cannot be watched: {error}"))),
        }
    }

    /// Sends SIGTERM and waits for an orderly end.
    pub(super) async fn terminate(&mut self) -> Result<(), Failure> {
        let pid = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| Failure::failed("the broker had ended before"))?;
        kill_process(pid, Signal::TERM)
            .map_err(|error| Failure::failed(format!("SIGTERM cannot be sent: {error}")))?;
        match tokio::time::timeout(DRAIN, self.child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(self.ended(status)),
            Ok(Err(error)) => Err(Failure::failed(format!("the broker cannot be watched: {error}"))),
            Err(_) => Err(Failure::failed(format!(
                "the broker did not end within {} s of SIGTERM",
                DRAIN.as_secs()
            ))),
        }
    }

    fn ended(&self, status: ExitStatus) -> Failure {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(15)..].join("\n  ");
        Failure::failed(format!("the broker ended with {status}:\n  {tail}"))
    }
}

impl Addresses {
    /// Five free ports of this machine, held at the same time so that they differ.
    pub(super) fn free() -> Result<Self, Failure> {
        let free =
            || TcpListener::bind("127.0.0.1:0").map_err(|error| Failure::failed(format!("no port: {error}")));
        let listeners = [free()?, free()?, free()?, free()?, free()?];
        let address = |index: usize| listeners[index].local_addr().map_err(Failure::failed);
        Ok(Self {
            bootstrap: address(0)?,
            vnfci: address(1)?,
            management: address(2)?,
            http: address(3)?,
            admin: address(4)?,
        })
    }
}

/// Asks again every 200 ms until there is an answer, for `patience` at most.
pub(super) async fn until<T>(
    patience: Duration,
    what: &str,
    mut ask: impl AsyncFnMut() -> Result<Option<T>, Failure>,
) -> Result<T, Failure> {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask().await? {
            return Ok(answer);
        }
        if start.elapsed() > patience {
            return Err(Failure::failed(format!("{what} did not happen within {} s", patience.as_secs())));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
