//! Starting one worker process, and the broker's end of its socket.

use super::protocol::{self, Hello, MAX_FRAME, Pin, Task, Welcome};
use super::token::NO_TOKEN;
use super::{HsmConfig, HsmError};
use crate::crash;
use bytes::BytesMut;
use serde::de::DeserializeOwned;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::{Child, Command};
use zeroize::Zeroizing;

/// Loading a vendor's module and logging in may take a while; more than this is a hang.
const START_DEADLINE: Duration = Duration::from_secs(30);
/// An orderly end takes less.
const END_DEADLINE: Duration = Duration::from_secs(5);

/// A running, logged-in worker process. Dropping it kills the process.
pub(super) struct Worker {
    /// Its answer to the first frame.
    pub(super) welcome: Welcome,
    /// Its process id.
    pub(super) pid: u32,
    process: Child,
    reader: OwnedReadHalf,
    writer: OwnedWriteHalf,
    received: BytesMut,
}

const ENDED_WHILE_LOADING: &str = "the worker failed while it loaded the module";

/// Whether a start failed by the module's doing that is not its last word: its process ended before it had answered, or saw no
/// token at all. SoftHSM 2.6 leaves a token out, for as long as the process lives, whose file another one is just writing.
pub(super) fn may_start_again(error: &HsmError) -> bool {
    matches!(error, HsmError::Unavailable(text) if text.starts_with(ENDED_WHILE_LOADING) || text.contains(NO_TOKEN))
}

impl Worker {
    /// Reads the PIN file, starts the process and waits for its log-in: one attempt.
    ///
    /// # Errors
    /// What the worker answered, [`HsmError::Configuration`] for the PIN file, [`HsmError::Unavailable`] if the process
    /// cannot be started, ends, or does not answer in time.
    pub(super) async fn start(config: &HsmConfig, task: Task) -> Result<Self, HsmError> {
        let hello = Hello {
            owner: config.owner.clone(),
            module: config.module.clone(),
            token: config.token.clone(),
            pin: read_pin(&config.pin_file)?,
            task,
        };
        let first = protocol::frame(&hello).map_err(|error| gone("frame", &error))?;
        drop(hello);
        let (ours, theirs) =
            std::os::unix::net::UnixStream::pair().map_err(|error| gone("socket pair", &error))?;
        ours.set_nonblocking(true).map_err(|error| gone("socket", &error))?;
        let (reader, writer) =
            UnixStream::from_std(ours).map_err(|error| gone("socket", &error))?.into_split();
        let process = Command::new(&config.worker_program)
            .arg("hsm-worker")
            .env_clear()
            .envs(&config.environment)
            .envs(crash::environment())
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            // A group of its own: a Ctrl-C on the terminal is for the broker, which drains first.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| gone(&format!("start {}", config.worker_program.display()), &error))?;
        let pid = process.id().unwrap_or_default();
        let mut starting = Starting { process, reader, writer, received: BytesMut::new() };
        let welcome =
            tokio::time::timeout(START_DEADLINE, starting.greet(&first)).await.map_err(|_| {
                HsmError::Unavailable(format!("the worker did not log in within {START_DEADLINE:?}"))
            })??;
        let Starting { process, reader, writer, received } = starting;
        Ok(Self { welcome, pid, process, reader, writer, received })
    }

    /// Sends a frame of [`protocol::frame`].
    pub(super) async fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        self.writer.write_all(frame).await
    }

    /// The next frame's value. May be cancelled: what has arrived is kept.
    pub(super) async fn receive<T: DeserializeOwned>(&mut self) -> io::Result<T> {
        receive(&mut self.reader, &mut self.received).await
    }

    /// Closes the socket, which ends the process in order, and waits for it; kills it if that takes too long.
    pub(super) async fn retire(self) {
        let Self { mut process, reader, writer, .. } = self;
        drop((reader, writer));
        if tokio::time::timeout(END_DEADLINE, process.wait()).await.is_err() {
            // Only the child that we started; an error means that it has ended.
            let _ = process.kill().await;
        }
    }

    /// Kills the process at once and waits for its end.
    pub(super) async fn kill(mut self) {
        let _ = self.process.kill().await;
    }
}

/// A worker before its log-in.
struct Starting {
    process: Child,
    reader: OwnedReadHalf,
    writer: OwnedWriteHalf,
    received: BytesMut,
}

impl Starting {
    async fn greet(&mut self, first: &[u8]) -> Result<Welcome, HsmError> {
        let greeting = async {
            self.writer.write_all(first).await?;
            receive::<Result<Welcome, HsmError>>(&mut self.reader, &mut self.received).await
        };
        match greeting.await {
            Ok(answer) => answer,
            Err(error) => {
                let end = match self.process.try_wait() {
                    Ok(Some(status)) => format!("it ended with {status}"),
                    _ => error.to_string(),
                };
                Err(HsmError::Unavailable(format!("{ENDED_WHILE_LOADING}: {end}")))
            }
        }
    }
}

/// The user PIN: the file's only line.
///
/// # Errors
/// [`HsmError::Configuration`] says what to do.
pub(super) fn read_pin(path: &Path) -> Result<Pin, HsmError> {
    let shown = path.display();
    let problem = |text: String| HsmError::Configuration(text);
    let metadata = std::fs::metadata(path).map_err(|error| {
        problem(format!(
            "cannot read the PIN file {shown}: {error}; create it with the user PIN on one line, mode 0600"
        ))
    })?;
    if metadata.mode() & 0o077 != 0 {
        return Err(problem(format!(
            "the PIN file {shown} is accessible to others (mode {:04o}); run: chmod 600 {shown}",
            metadata.mode() & 0o7777
        )));
    }
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err(problem(format!(
            "the PIN file {shown} belongs to another user (uid {}); it must belong to the user that runs keybroker",
            metadata.uid()
        )));
    }
    let content = std::fs::read_to_string(path).map(Zeroizing::new);
    let content = content.map_err(|error| problem(format!("cannot read the PIN file {shown}: {error}")))?;
    let pin = content.trim_end_matches(['\n', '\r']);
    if pin.is_empty() || pin.contains('\n') {
        return Err(problem(format!("the PIN file {shown} must have exactly one line, the user PIN")));
    }
    Ok(Pin(pin.to_owned()))
}

async fn receive<T: DeserializeOwned>(reader: &mut OwnedReadHalf, received: &mut BytesMut) -> io::Result<T> {
    loop {
        if let Some(&header) = received.first_chunk::<4>() {
            let length = protocol::body_length(header)?;
            if received.len() >= 4 + length {
                let frame = received.split_to(4 + length);
                return protocol::parse(&frame[4..]);
            }
            received.reserve((4 + length).min(MAX_FRAME) - received.len());
        }
        if reader.read_buf(received).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

fn gone(what: &str, error: &io::Error) -> HsmError {
    HsmError::Unavailable(format!("cannot start a worker: {what}: {error}"))
}
