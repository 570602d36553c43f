//! A fresh SoftHSM2 token in a directory of its own: for `keybroker demo` and for tests.

use super::protocol::{self, Hello, Pin, Task, Welcome};
use super::{HsmConfig, HsmError};
use crate::sealing::Suite;
use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Where distributions install SoftHSM2's module; `SOFTHSM2_MODULE` in the environment goes first.
const MODULES: [&str; 6] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
];

/// A SoftHSM2 token in a directory: `softhsm2.conf`, `tokens/` and `pin` (0600, random).
#[derive(Debug, Clone)]
pub struct SoftHsmToken {
    /// The PKCS#11 module that was found.
    pub module: PathBuf,
    /// The token's label: `keybroker`.
    pub label: String,
    /// The module's configuration file.
    pub configuration: PathBuf,
    /// The environment variable that tells the module of it: `SOFTHSM2_CONF`.
    pub variable: &'static str,
    /// The user PIN, one line.
    pub pin_file: PathBuf,
}

impl SoftHsmToken {
    /// Initialises a new token in `directory`, which is made if it is missing. `worker_program` is the
    /// keybroker binary: the module is loaded there, and no PIN is on any command line (`softhsm2-util` takes
    /// PINs only as arguments or from a terminal). The SO PIN is random and kept nowhere.
    ///
    /// # Errors
    /// [`HsmError::Configuration`] if no module is installed, a file exists already (nothing is overwritten) or
    /// cannot be written; else what the module answered.
    pub fn create(directory: &Path, label: &str, worker_program: &Path) -> Result<Self, HsmError> {
        let module = find_module()?;
        let token = Self {
            module,
            label: label.to_owned(),
            configuration: directory.join("softhsm2.conf"),
            variable: "SOFTHSM2_CONF",
            pin_file: directory.join("pin"),
        };
        let pin = random_pin()?;
        token.write_files(directory, &pin).map_err(|error| {
            HsmError::Configuration(format!("cannot set up a token in {}: {error}", directory.display()))
        })?;
        token.initialize(worker_program, pin)?;
        Ok(token)
    }

    /// A configuration of the HSM layer for this token: one worker in each lane, the suites that need no opting in.
    pub fn config(&self, worker_program: &Path) -> HsmConfig {
        HsmConfig {
            owner: None,
            module: self.module.clone(),
            token: self.label.clone(),
            pin_file: self.pin_file.clone(),
            environment: self.environment(),
            interactive_workers: 1,
            bulk_workers: 1,
            sealing: Suite::DEFAULT.to_vec(),
            call_deadline: Duration::from_secs(10),
            queue: 1024,
            recycle_after: 1_000_000,
            worker_program: worker_program.to_owned(),
        }
    }

    /// What the module needs in its environment.
    pub fn environment(&self) -> BTreeMap<String, String> {
        [(self.variable.to_owned(), self.configuration.to_string_lossy().into_owned())].into()
    }

    fn write_files(&self, directory: &Path, pin: &Pin) -> io::Result<()> {
        std::fs::create_dir_all(directory)?;
        // SoftHSM resolves a relative path against the worker's directory.
        let tokens = std::fs::canonicalize(directory)?.join("tokens");
        DirBuilder::new().mode(0o700).create(&tokens)?;
        let mut configuration = File::create_new(&self.configuration)?;
        writeln!(configuration, "directories.tokendir = {}", tokens.display())?;
        writeln!(configuration, "objectstore.backend = file\nlog.level = ERROR\nslots.removable = false")?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.pin_file)?;
        writeln!(file, "{}", pin.0)
    }

    fn initialize(&self, worker_program: &Path, pin: Pin) -> Result<(), HsmError> {
        let hello = Hello {
            owner: None,
            module: self.module.clone(),
            token: self.label.clone(),
            pin,
            task: Task::Initialize(random_pin()?),
        };
        let exchange = || -> io::Result<Result<Welcome, HsmError>> {
            let (mut ours, theirs) = UnixStream::pair()?;
            let mut child = Command::new(worker_program)
                .arg("hsm-worker")
                .env_clear()
                .envs(self.environment())
                .stdin(Stdio::from(OwnedFd::from(theirs)))
                .stdout(Stdio::null())
                .spawn()?;
            protocol::write_frame(&mut ours, &hello)?;
            let welcome = protocol::read_frame(&mut ours);
            drop(ours);
            child.wait()?;
            welcome
        };
        exchange()
            .map_err(|error| HsmError::Unavailable(format!("cannot initialise the token: {error}")))?
            .map(drop)
    }
}

/// The module's path.
///
/// # Errors
/// [`HsmError::Configuration`] says what to install.
fn find_module() -> Result<PathBuf, HsmError> {
    std::env::var_os("SOFTHSM2_MODULE")
        .map(PathBuf::from)
        .into_iter()
        .chain(MODULES.map(PathBuf::from))
        .find(|path| path.is_file())
        .ok_or_else(|| {
            HsmError::Configuration(
                "SoftHSM2 is not installed (apt-get install softhsm2), or set SOFTHSM2_MODULE to its libsofthsm2.so"
                    .into(),
            )
        })
}

fn random_pin() -> Result<Pin, HsmError> {
    let mut bytes = zeroize::Zeroizing::new([0; 16]);
    aws_lc_rs::rand::fill(&mut bytes[..])
        .map_err(|_| HsmError::Unavailable("the system's random generator failed".into()))?;
    Ok(Pin(hex::encode(&bytes[..])))
}
