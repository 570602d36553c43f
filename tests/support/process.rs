//! Other processes: the broker, commands of ours and of others.

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::Value;
use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// The program under test.
pub fn keybroker() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_keybroker"))
}

/// How a command ended.
#[derive(Debug)]
pub struct Finished {
    /// Its exit code; -1 after a signal.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Finished {
    /// Panics unless it ended with 0.
    pub fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{self:?}");
        self
    }

    /// The JSON objects that it printed, one per line.
    pub fn objects(&self) -> Vec<Value> {
        let parsed = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        self.out.lines().map(parsed).collect()
    }

    /// The one JSON object that it printed.
    pub fn object(&self) -> Value {
        let mut objects = self.objects();
        assert_eq!(objects.len(), 1, "{self:?}");
        objects.remove(0)
    }
}

/// Runs any command to its end without blocking the runtime.
pub async fn run<A: AsRef<OsStr>>(
    program: impl AsRef<OsStr>,
    arguments: impl IntoIterator<Item = A>,
) -> Finished {
    run_with(program, arguments, &[]).await
}

/// The same with variables in its environment.
pub async fn run_with<A: AsRef<OsStr>>(
    program: impl AsRef<OsStr>,
    arguments: impl IntoIterator<Item = A>,
    environment: &[(&str, &str)],
) -> Finished {
    let output = tokio::process::Command::new(program.as_ref())
        .args(arguments)
        .env_remove("KEYBROKER_PROFILE")
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap_or_else(|error| panic!("{}: {error}", program.as_ref().display()));
    Finished {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Runs openssl in a directory, arguments as a shell reads them; gives what it printed.
pub async fn openssl(directory: &Path, arguments: &str) -> String {
    let shell = format!("cd '{}' && exec openssl {arguments}", directory.display());
    run("sh", ["-c", &shell]).await.ok().out
}

/// A running broker with its workers, in a process group of its own; killed when dropped.
pub struct Broker {
    child: Child,
    log: PathBuf,
}

impl Broker {
    /// Starts it; its log is appended to a file.
    pub fn start(program: &Path, config: &Path, log: &Path, environment: &[(String, String)]) -> Self {
        let file = OpenOptions::new().create(true).append(true).open(log).unwrap();
        let child = Command::new(program)
            .arg("serve")
            .arg("--config")
            .arg(config)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .process_group(0)
            .spawn()
            .unwrap();
        Self { child, log: log.to_owned() }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Panics with the end of its log if it has ended.
    pub fn check(&mut self) {
        if let Some(status) = self.ended() {
            panic!("the broker ended with {status}:\n{}", self.log_tail(40));
        }
    }

    /// SIGKILL, at once.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// A signal to the broker's process.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.group(), signal).unwrap();
    }

    /// SIGTERM, and how it ended.
    pub async fn terminate(mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        super::until(Duration::from_secs(40), "the broker's orderly end", async || self.ended()).await
    }

    /// Process ids of its HSM workers.
    pub fn workers(&self) -> Vec<u32> {
        children(self.pid())
    }

    /// Kills one of its HSM workers by SIGKILL; none if there is none at the moment.
    pub fn kill_worker(&self, index: usize) -> Option<u32> {
        let pid = self.workers().get(index).copied()?;
        // It may have ended by itself in between.
        let _ = kill_process(to_pid(pid), Signal::KILL);
        Some(pid)
    }

    /// The last lines of its log.
    pub fn log_tail(&self, lines: usize) -> String {
        log_tail(&self.log, lines)
    }

    fn group(&self) -> Pid {
        to_pid(self.pid())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // A worker of a broker that was killed ends by itself when its socket closes; this makes sure.
        let _ = kill_process_group(self.group(), Signal::KILL);
        let _ = self.child.wait();
    }
}

/// The last lines of a log.
pub fn log_tail(log: &Path, lines: usize) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// The children of a process, whichever of its threads started them.
pub fn children(pid: u32) -> Vec<u32> {
    let mut found = Vec::new();
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return found };
    for task in tasks.flatten() {
        let text = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        found.extend(text.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
    }
    found.sort_unstable();
    found
}

/// Whether a process runs: it exists and is no zombie.
pub fn runs(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().any(|line| line.starts_with("State:") && !line.contains('Z'))
}

/// A child process that is killed when dropped, for servers of others.
pub struct Other(pub Child);

impl Other {
    /// Starts it with pipes for its output.
    pub fn start(mut command: Command) -> Self {
        Self(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How long something took.
pub fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let begun = Instant::now();
    let value = work();
    (value, begun.elapsed())
}

fn to_pid(pid: u32) -> Pid {
    Pid::from_raw(i32::try_from(pid).unwrap()).unwrap()
}
