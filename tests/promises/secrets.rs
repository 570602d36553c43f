//! Goal: no private key that was delivered, and no PIN, is ever in the broker's memory, database, logs or audit log.
//! Method: a core of the running broker is taken (`gcore`'s command of gdb, with every mapping) while claims run, and
//! searched for the secrets that the VNFCIs got. Two planted markers must be found, or the search proves nothing.

use crate::support::mano::By;
use crate::support::process::{keybroker, run};
use crate::support::site::{Options, Site};
use crate::support::until;
use crate::support::vnfci::Claimed;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const POOL: &str = "amf-transport";
const SLOTS: [(&str, &str); 1] = [("transport", POOL)];

/// Byte strings to be found, by their first two bytes.
pub(crate) struct Needles {
    all: Vec<(String, Vec<u8>)>,
    by_start: Vec<Vec<usize>>,
}

impl Needles {
    pub(crate) fn new(all: Vec<(String, Vec<u8>)>) -> Self {
        let mut by_start = vec![Vec::new(); 1 << 16];
        for (index, (_, bytes)) in all.iter().enumerate() {
            assert!(bytes.len() >= 16, "too short to be told from chance");
            by_start[usize::from(bytes[0]) << 8 | usize::from(bytes[1])].push(index);
        }
        Self { all, by_start }
    }

    /// Names of what is in a file.
    pub(crate) fn found_in(&self, file: &Path) -> Vec<String> {
        let longest = self.all.iter().map(|(_, bytes)| bytes.len()).max().unwrap_or(0);
        let mut reader = std::fs::File::open(file).unwrap();
        let mut window: Vec<u8> = Vec::new();
        let mut piece = vec![0; 4 << 20];
        let mut found = Vec::new();
        loop {
            let read = reader.read(&mut piece).unwrap();
            window.extend_from_slice(&piece[..read]);
            for (at, pair) in window.windows(2).enumerate() {
                for &index in &self.by_start[usize::from(pair[0]) << 8 | usize::from(pair[1])] {
                    let (name, bytes) = &self.all[index];
                    if window[at..].starts_with(bytes) {
                        found.push(name.clone());
                    }
                }
            }
            if read == 0 {
                found.sort();
                found.dedup();
                return found;
            }
            // What begins in this piece may end in the next.
            let keep = window.len().min(longest - 1);
            window.drain(..window.len() - keep);
        }
    }
}

/// A core of a process with all that it has mapped; none, with the reason, where that is not permitted.
pub(crate) async fn core_of(pid: u32, directory: &Path) -> Result<PathBuf, String> {
    let core = directory.join("core");
    // Everything: private and shared, anonymous and files, also what asked not to be dumped.
    std::fs::write(format!("/proc/{pid}/coredump_filter"), "0x7f").map_err(|error| error.to_string())?;
    let (pid, generate) = (pid.to_string(), format!("generate-core-file {}", core.display()));
    let commands = ["set use-coredump-filter off", "set dump-excluded-mappings on", generate.as_str()];
    let mut arguments = vec!["--nx", "--batch", "-p", &pid];
    for command in commands {
        arguments.extend(["-ex", command]);
    }
    let installed = std::process::Command::new("gdb").arg("--version").output();
    if installed.is_err() {
        return Err("gdb is not installed".to_owned());
    }
    let gdb = run("gdb", arguments).await;
    if gdb.err.contains("ptrace: Operation not permitted") || gdb.err.contains("Could not attach") {
        return Err(gdb.err);
    }
    assert!(core.exists(), "{gdb:?}");
    Ok(core)
}

/// What must not be found of a claim.
fn secrets(claimed: &Claimed) -> Vec<(String, Vec<u8>)> {
    let of = |key: &crate::support::vnfci::Delivered| {
        let name = |what: &str| format!("{what} of {}", key.credential_id);
        [
            (name("scalar"), key.scalar().to_vec()),
            (name("hexadecimal scalar"), hex::encode(key.scalar().as_slice()).into_bytes()),
            // PKCS#8's head is the same for all keys; from the scalar's last bytes on it is this key's.
            (name("PKCS#8"), key.private_key[key.private_key.len().saturating_sub(100)..].to_vec()),
        ]
    };
    claimed.keys.iter().flat_map(of).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_private_key_and_no_pin_is_in_the_brokers_memory_or_files() {
    let marker = format!("planted-in-the-environment-{}", uuid::Uuid::now_v7());
    let environment = vec![("KEYBROKER_TEST_MARKER".to_owned(), marker.clone())];
    let mut site = Site::start_with(Options { environment, log_level: "debug", ..Options::default() }).await;
    site.full_pool(POOL, 30).await;
    let request_marker = format!("planted-by-a-request-{}", uuid::Uuid::now_v7());
    let mut ids: Vec<String> = (0..400).map(|n| format!("amf-{n:04}")).collect();
    ids.push(request_marker.clone());
    let mut vnfcis = site.register(&ids, &SLOTS, By::Certificate).await;
    let last = vnfcis.pop().unwrap();

    // Some are done before, some are under way while the core is taken.
    let mut claims = vec![last.boot(&site).await];
    for vnfci in vnfcis.drain(..10) {
        claims.push(vnfci.boot(&site).await);
    }
    let (pid, directory) = (site.broker().pid(), site.path().to_owned());
    let site = Arc::new(site);
    let done = Arc::new(AtomicBool::new(false));
    let running = tokio::spawn({
        let (site, done) = (Arc::clone(&site), Arc::clone(&done));
        async move {
            let mut claims = Vec::new();
            while let (false, Some(vnfci)) = (done.load(Ordering::Relaxed), vnfcis.pop()) {
                let claimed = vnfci.claim_patiently(&site).await;
                if claims.len() % 2 == 0 {
                    assert!(vnfci.confirm(&site, &claimed).await.unwrap());
                }
                claims.push(claimed);
            }
            claims
        }
    });
    let core = core_of(pid, &directory).await;
    done.store(true, Ordering::Relaxed);
    claims.extend(running.await.unwrap());
    let mut site = Arc::into_inner(site).expect("no task has the site any more");
    site.check();
    assert!(claims.len() > 11, "no claim was under way");

    let pin = std::fs::read_to_string(&site.token.pin_file).unwrap().trim().to_owned();
    let mut all: Vec<_> = claims.iter().flat_map(secrets).collect();
    all.push(("the PIN".to_owned(), pin.into_bytes()));
    all.push(("marker 1".to_owned(), marker.into_bytes()));
    all.push(("marker 2".to_owned(), request_marker.into_bytes()));
    let needles = Needles::new(all);

    match core {
        Ok(core) => assert_eq!(needles.found_in(&core), ["marker 1", "marker 2"], "in the core"),
        Err(reason) => eprintln!("SKIPPED the core: it cannot be taken here: {reason}"),
    }
    // Command lines and environments are readable by whoever may look at processes.
    let processes = site.broker().workers().into_iter().chain([pid]);
    for file in processes.flat_map(|pid| [format!("/proc/{pid}/cmdline"), format!("/proc/{pid}/environ")]) {
        let found = needles.found_in(Path::new(&file));
        assert!(found.iter().all(|name| name.starts_with("marker")), "{file}: {found:?}");
    }
    let export = site.export("audit").await;
    let files =
        [site.database(), site.database().with_extension("db-wal"), site.log(), export.join("events.jsonl")];
    let mut seen = 0;
    for file in files.iter().filter(|file| file.exists()) {
        let found = needles.found_in(file);
        assert!(found.iter().all(|name| name == "marker 2"), "{}: {found:?}", file.display());
        seen += usize::from(!found.is_empty());
    }
    assert!(seen >= 2, "the marker is in {seen} files: the search looks at the wrong ones");
}

#[test]
fn the_search_finds_a_secret_that_lies_across_two_pieces() {
    let secret: Vec<u8> = (100..132).collect();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("haystack");
    let mut content = vec![0; (4 << 20) - 5];
    content.extend_from_slice(&secret);
    content.extend_from_slice(&[0; 1_000]);
    std::fs::write(&file, &content).unwrap();
    assert_eq!(Needles::new(vec![("it".to_owned(), secret.clone())]).found_in(&file), ["it"]);
    let other = secret.iter().map(|byte| byte ^ 1).collect();
    assert!(Needles::new(vec![("other".to_owned(), other)]).found_in(&file).is_empty());
}

/// A line of `/proc/PID/status`, without its name.
fn status(pid: u32, name: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).trim().to_owned()
}

/// Goal: what a worker holds is not for cores, other processes of its user, the swap space; it inherits no secrets.
/// Method: what the kernel says of the running processes.
#[tokio::test(flavor = "multi_thread")]
async fn processes_with_secrets_neither_dump_core_nor_can_be_traced_nor_swap_nor_inherit_the_environment() {
    let environment = vec![("KEYBROKER_TEST_MARKER".to_owned(), "planted-in-the-environment".to_owned())];
    let site = Site::start_with(Options { environment, ..Options::default() }).await;
    let broker = site.broker().pid();
    // At the start there are some that only look whether a key is there.
    let workers = until(Duration::from_secs(20), "the workers that stay", async || {
        let before = site.broker().workers();
        tokio::time::sleep(Duration::from_secs(1)).await;
        (!before.is_empty() && before == site.broker().workers()).then_some(before)
    })
    .await;
    for pid in workers.iter().copied().chain([broker]) {
        let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");
    }
    // The kernel gives the files of a process that is not dumpable to root, whoever it runs as.
    let (_ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let mut command = if rustix::process::geteuid().is_root() {
        let mut command = std::process::Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", keybroker().to_str().unwrap()]);
        command
    } else {
        std::process::Command::new(keybroker())
    };
    let stdin = std::process::Stdio::from(std::os::fd::OwnedFd::from(theirs));
    let mut worker = command.arg("hsm-worker").stdin(stdin).spawn().unwrap();
    let environ = format!("/proc/{}/environ", worker.id());
    let root = rustix::process::geteuid().is_root();
    until(Duration::from_secs(20), "the worker's memory to be root's", async || {
        let as_nobody = !root || status(worker.id(), "Uid").starts_with("65534");
        (as_nobody && std::fs::metadata(&environ).unwrap().uid() == 0).then_some(())
    })
    .await;
    worker.kill().unwrap();
    worker.wait().unwrap();
    let unlimited = rustix::process::getrlimit(rustix::process::Resource::Memlock).current.is_none();
    let capabilities = u64::from_str_radix(&status(std::process::id(), "CapEff"), 16).unwrap();
    let may_lock = unlimited || capabilities & (1 << 14) != 0;
    for pid in workers {
        let locked = status(pid, "VmLck");
        assert_eq!(locked != "0 kB", may_lock, "worker {pid} has locked {locked}");
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&environment).contains("planted"), "worker {pid} inherited");
    }
}
