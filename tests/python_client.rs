//! Promise: a VNFCI's vendor can claim credentials with what the documentation says, without our code.
//!
//! Method: the Python client of docs/clients/python, written from the documentation with Python's own `grpcio` and
//! `cryptography`, runs its tests, among them every envelope vector; then it claims from a real broker on a SoftHSM2
//! token, and openssl judges what it installed.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed step fails the test")]

use keybroker::hsm::softhsm::SoftHsmToken;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

const KEYBROKER: &str = env!("CARGO_BIN_EXE_keybroker");
const SLOTS: [&str; 2] = ["om", "transport"];

fn python() -> Command {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join("target/python/bin/python");
    assert!(python.exists(), "{} is not there: run `make tools`", python.display());
    let mut command = Command::new(python);
    command.arg("-B").current_dir(root.join("docs/clients/python"));
    command
}

fn succeed(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{told}", output.status);
    output
}

#[test]
fn the_python_client_passes_its_own_tests() {
    let output = succeed(python().args(["-m", "unittest"]));
    let told = String::from_utf8_lossy(&output.stderr);
    // "Ran 0 tests" is a success, too.
    assert!(told.contains("Ran 9 tests"), "{told}");
}

/// A broker in a directory of its own; ends with the test.
struct Broker {
    directory: PathBuf,
    bootstrap: String,
    process: Child,
}

impl Broker {
    fn start(directory: &Path) -> Self {
        let token = SoftHsmToken::create(directory, "keybroker", Path::new(KEYBROKER)).unwrap();
        // Held until all are known, so that they differ.
        let held = [(); 5].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let addresses = held.each_ref().map(|listener| listener.local_addr().unwrap().to_string());
        drop(held);
        let mut config = format!(
            "[hsm]\nmodule = {:?}\ntoken = {:?}\npin_file = \"pin\"\n\
             environment = {{ SOFTHSM2_CONF = \"softhsm2.conf\" }}\n\
             sealing = [\"ECDH_P256_CBCENC_KWP_V1\", \"RSA_AES_KEY_WRAP\"]\n[listen]\n",
            token.module, token.label
        );
        for (name, address) in ["bootstrap", "vnfci", "management", "http", "admin"].iter().zip(&addresses) {
            writeln!(config, "{name} = {address:?}").unwrap();
        }
        let file = directory.join("keybroker.toml");
        std::fs::write(&file, config).unwrap();
        succeed(Command::new(KEYBROKER).args(["init", "--config"]).arg(&file));
        let mut process = Command::new(KEYBROKER)
            .args(["serve", "--config"])
            .arg(&file)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(process.stderr.take().unwrap()).lines().map_while(Result::ok);
        let serving = log.by_ref().any(|line| line.contains(" serving "));
        let broker = Self { directory: directory.to_owned(), bootstrap: addresses[0].clone(), process };
        assert!(serving, "the broker ended before it served");
        // Read on, so that the broker never waits for us.
        std::thread::spawn(move || log.for_each(drop));
        broker
    }

    fn command(&self, role: &str, arguments: &[&str]) {
        let profile = self.directory.join("clients").join(role).join("profile.toml");
        succeed(Command::new(KEYBROKER).args(arguments).arg("--profile").arg(profile));
    }

    fn claim(&self, initial: &str, out: &Path) -> Command {
        let file = |name: &str| self.directory.join(name);
        let mut command = python();
        command
            .args(["keybroker_client.py", "--patience", "60", "--server", &self.bootstrap, "--trust-anchor"])
            .arg(file("root.pem"))
            .arg("--cert")
            .arg(file(&format!("{initial}.pem")))
            .arg("--key")
            .arg(file(&format!("{initial}.key")))
            .arg("--out")
            .arg(out);
        command
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Nothing can be done about a process that is gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn openssl(directory: &Path, arguments: &str) -> Vec<u8> {
    succeed(Command::new("openssl").args(arguments.split(' ')).current_dir(directory)).stdout
}

/// MANO's CA for initial credentials, and the VNFCIs' certificates from it.
fn make_initial_credentials(directory: &Path, vnfcis: &[&str]) {
    std::fs::write(directory.join("openssl.cnf"), "[req]\ndistinguished_name = dn\n[dn]\n").unwrap();
    let common = "req -config openssl.cnf -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1";
    openssl(
        directory,
        &format!(
            "{common} -subj /CN=mano -keyout mano.key -out mano.pem -addext basicConstraints=critical,CA:TRUE \
             -addext keyUsage=critical,keyCertSign"
        ),
    );
    for id in vnfcis {
        openssl(
            directory,
            &format!(
                "{common} -subj /CN={id} -CA mano.pem -CAkey mano.key -keyout {id}.key -out {id}.pem \
                 -addext extendedKeyUsage=clientAuth"
            ),
        );
    }
}

#[test]
fn the_python_client_claims_from_a_real_broker() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    make_initial_credentials(directory, &["vnfci-1", "vnfci-2"]);
    let broker = Broker::start(directory);
    let certificate = |name: &str| directory.join(name).display().to_string();
    broker.command("operator", &["anchor", "add", "mano", "--certificate", &certificate("mano.pem")]);
    let vnf = ["--vnf-instance", "vnf-1", "--vdu", "worker"];
    for slot in SLOTS {
        broker.command("nfvo", &[&["pool", "create", slot, "--target", "2"][..], &vnf].concat());
    }
    for (id, suite) in [("vnfci-1", None), ("vnfci-2", Some("RSA_AES_KEY_WRAP"))] {
        let initial = ["--anchor", "mano", "--initial-cert", &certificate(&format!("{id}.pem"))];
        let slots = ["--slot", "om=om", "--slot", "transport=transport"];
        broker.command("nfvo", &[&["vnfci", "register", id][..], &vnf, &slots, &initial].concat());

        // Pools may still be empty: the client asks again.
        let out = directory.join(format!("{id}-credentials"));
        let mut claim = broker.claim(id, &out);
        claim.args(suite.iter().flat_map(|suite| ["--suite", suite]));
        let told = succeed(&mut claim).stdout;
        let told: serde_json::Value = serde_json::from_slice(&told).unwrap();
        assert_eq!(told["stage"], "CONFIRMED");
        assert!(!out.join("recipient.pem").exists(), "the recipient key is deleted");
        for slot in SLOTS {
            let at = out.join(slot);
            let mode = std::fs::metadata(at.join("key.pem")).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            openssl(&at, "verify -x509_strict -CAfile ../../root.pem -untrusted chain.pem cert.pem");
            let of_key = openssl(&at, "pkey -in key.pem -pubout");
            assert_eq!(of_key, openssl(&at, "x509 -in cert.pem -noout -pubkey"));
        }
        let of_slot = |slot: &str| openssl(&out.join(slot), "pkey -in key.pem -pubout");
        assert_ne!(of_slot(SLOTS[0]), of_slot(SLOTS[1]));

        // Spent: the same initial credential never claims again.
        let again = broker.claim(id, &directory.join(format!("{id}-again"))).output().unwrap();
        assert_eq!(again.status.code(), Some(3), "{}", String::from_utf8_lossy(&again.stderr));
        assert!(!directory.join(format!("{id}-again")).join(SLOTS[0]).exists());
    }
}
