//! Promise: the HSM may crash, vanish, refuse its PIN or be misconfigured; the broker says what to do, fails closed,
//! and serves again without a restart once the HSM is back.
//!
//! Method: a fresh SoftHSM2 token whose workers are killed, whose directory is moved away, and whose PIN file is
//! changed. Nothing sleeps for a fixed time: states are awaited.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod hsm_support;

use hsm_support::{Fixture, binding, envelope, epoch, one_key, seal, tenant, worker_program};
use keybroker::credential::KeyType;
use keybroker::hsm::softhsm::SoftHsmToken;
use keybroker::hsm::{Hsm, HsmError, Lane, ObjectId, SignatureAlgorithm};
use keybroker::sealing::{RecipientKey, matches_public_key, open};
use rustix::process::{Pid, Signal, kill_process};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;

/// Polls until `done`; a minute is far beyond what a loaded machine needs.
async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    for _ in 0..6_000 {
        if done().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never happened: {what}");
}

fn kill(pid: u32) {
    // A worker may have ended by itself in the meantime.
    let _ = kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::KILL);
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_killed_under_load_are_replaced_and_only_calls_in_hand_fail() {
    let fixture = Fixture::new();
    let hsm = fixture.start().await;
    let epoch = epoch(&hsm).await;
    let key = one_key(&hsm, epoch, KeyType::EcP256).await;
    let served = Arc::new(AtomicUsize::new(0));
    let load = (0..8).map(|_| {
        let (hsm, key, served) = (hsm.clone(), key.clone(), served.clone());
        tokio::spawn(async move {
            let (recipient, binding) = (RecipientKey::generate().unwrap(), binding());
            let (mut opened, mut unavailable) = (0, 0);
            while opened < 100 {
                match seal(&hsm, epoch, &key.wrapped.dek_blob, &binding, &recipient).await {
                    Ok(sealed) => {
                        let private = open(&recipient, &envelope(&key, sealed), &binding).unwrap();
                        assert!(matches_public_key(&private, &key.public_key_der));
                        opened += 1;
                        served.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(HsmError::Unavailable(_)) => unavailable += 1,
                    Err(error) => panic!("{error}"),
                }
            }
            unavailable
        })
    });
    let load: Vec<_> = load.collect();
    for killed in 1..=3 {
        until("workers are live", async || hsm.status().worker_pids.len() == 2).await;
        let pids = hsm.status().worker_pids;
        pids.iter().copied().for_each(kill);
        until("both are replaced", async || hsm.status().restarts >= 2 * killed).await;
        // Workers that are killed before they served anything open the circuit. Eight answers may be of those before.
        let before = served.load(Ordering::Relaxed);
        let serving = || served.load(Ordering::Relaxed) > before + 8;
        until("they serve", async || serving() || load.iter().all(JoinHandle::is_finished)).await;
    }
    for task in load {
        // Two calls in hand at most for each of three crashes, whoever made them.
        assert!(task.await.unwrap() <= 6);
    }
    assert!(hsm.status().available);
    hsm.shutdown().await;
    let after = hsm.object_exists(&ObjectId::Root(1)).await;
    assert!(matches!(after, Err(HsmError::Unavailable(_))), "{after:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_end_with_the_last_handle_and_after_shutdown() {
    let fixture = Fixture::new();
    let hsm = fixture.start().await;
    let pids = hsm.status().worker_pids;
    assert_eq!(hsm.status().workers, (1, 1));
    drop(hsm);
    let ended = |pid: &u32| !std::path::Path::new(&format!("/proc/{pid}/cmdline")).exists();
    until("workers end", async || pids.iter().all(ended)).await;
    let hsm = fixture.start().await;
    let pids = hsm.status().worker_pids;
    hsm.shutdown().await;
    assert!(pids.iter().all(ended));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_pin_latches_until_reload() {
    let fixture = Fixture::new();
    let hsm = fixture.start().await;
    let epoch = epoch(&hsm).await;
    let right = std::fs::read(&fixture.token.pin_file).unwrap();
    std::fs::write(&fixture.token.pin_file, "wrong-pin\n").unwrap();
    hsm.status().worker_pids.into_iter().for_each(kill);
    let produce = async || hsm.produce(&tenant(), epoch, KeyType::EcP256, 1).await;
    until("the latch", async || matches!(produce().await, Err(HsmError::WrongPin))).await;
    until("the status says so", async || !hsm.status().available).await;
    assert!(hsm.status().problem.contains("PIN"), "{}", hsm.status().problem);

    std::fs::write(&fixture.token.pin_file, &right).unwrap();
    assert!(matches!(produce().await, Err(HsmError::WrongPin)), "no attempt before a reload");
    std::fs::write(&fixture.token.pin_file, "still-wrong\n").unwrap();
    assert!(matches!(hsm.reload().await, Err(HsmError::WrongPin)));
    assert!(matches!(produce().await, Err(HsmError::WrongPin)));
    std::fs::write(&fixture.token.pin_file, &right).unwrap();
    hsm.reload().await.unwrap();
    until("service", async || produce().await.is_ok()).await;
    until("health", async || hsm.status().available).await;
    assert_eq!(hsm.status().problem, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_with_a_wrong_pin_is_refused_at_once() {
    let fixture = Fixture::new();
    std::fs::write(&fixture.token.pin_file, "wrong-pin\n").unwrap();
    assert!(matches!(Hsm::start(fixture.config()).await, Err(HsmError::WrongPin)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_circuit_opens_when_the_token_is_gone_and_closes_when_it_is_back() {
    let fixture = Fixture::new();
    let hsm = fixture.start().await;
    let root = ObjectId::Root(1);
    hsm.create_key_pair(&root, SignatureAlgorithm::EcdsaP256Sha256).await.unwrap();
    let tokens = fixture.directory.path().join("tokens");
    let elsewhere = fixture.directory.path().join("unplugged");
    std::fs::rename(&tokens, &elsewhere).unwrap();
    std::fs::create_dir(&tokens).unwrap();
    hsm.status().worker_pids.into_iter().for_each(kill);
    until("the circuit opens", async || !hsm.status().available).await;
    assert!(hsm.status().problem.contains("no token labelled"), "{}", hsm.status().problem);
    let sign =
        async || hsm.sign(Lane::Interactive, &root, SignatureAlgorithm::EcdsaP256Sha256, vec![vec![1]]).await;
    until("calls fail fast", async || matches!(sign().await, Err(HsmError::Unavailable(_)))).await;

    std::fs::remove_dir(&tokens).unwrap();
    std::fs::rename(&elsewhere, &tokens).unwrap();
    until("the circuit closes", async || hsm.status().available).await;
    until("service", async || sign().await.is_ok()).await;
    assert_eq!(hsm.status().workers.0, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_does_not_answer_is_killed_and_replaced() {
    let fixture = Fixture::new();
    let mut config = fixture.config();
    config.call_deadline = Duration::from_millis(500);
    let hsm = Hsm::start(config).await.unwrap();
    let stopped = hsm.status().worker_pids;
    for &pid in &stopped {
        kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::STOP).unwrap();
    }
    let late = hsm.object_exists(&ObjectId::Root(1)).await;
    assert!(matches!(late, Err(HsmError::DeadlineExceeded(_))), "{late:?}");
    until("service", async || hsm.object_exists(&ObjectId::Root(1)).await.is_ok()).await;
    assert!(!std::path::Path::new(&format!("/proc/{}/cmdline", stopped[1])).exists());
    assert_eq!(hsm.status().restarts, 1, "the idle lane's worker was not asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_at_once() {
    let fixture = Fixture::new();
    let mut config = fixture.config();
    config.queue = 2;
    let hsm = Hsm::start(config).await.unwrap();
    let stopped = Pid::from_raw(hsm.status().worker_pids[1].cast_signed()).unwrap();
    kill_process(stopped, Signal::STOP).unwrap();
    let calls: Vec<_> = (0..8)
        .map(|_| {
            let hsm = hsm.clone();
            tokio::spawn(async move { hsm.inventory().await })
        })
        .collect();
    until("the queue overflows", async || calls.iter().filter(|call| call.is_finished()).count() >= 5).await;
    kill_process(stopped, Signal::CONT).unwrap();
    let mut refused = 0;
    for call in calls {
        match call.await.unwrap() {
            Ok(_) => {}
            Err(HsmError::Overloaded) => refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!((5..=6).contains(&refused), "{refused} of 8, with 2 places and 1 in hand");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_is_replaced_after_its_count_without_a_failed_call() {
    let fixture = Fixture::new();
    let mut config = fixture.config();
    config.recycle_after = 300;
    let hsm = Hsm::start(config).await.unwrap();
    let epoch = epoch(&hsm).await;
    let first = hsm.status().worker_pids[1];
    until("the bulk worker is another process", async || {
        hsm.produce(&tenant(), epoch, KeyType::EcP256, 20).await.unwrap();
        hsm.status().worker_pids.get(1).is_some_and(|&pid| pid != first)
    })
    .await;
    hsm.produce(&tenant(), epoch, KeyType::EcP256, 20).await.unwrap();
    assert_eq!(hsm.status().restarts, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_configuration_is_answered_with_what_to_do() {
    let fixture = Fixture::new();
    let refused = async |change: &dyn Fn(&mut keybroker::hsm::HsmConfig), hint: &str| {
        let mut config = fixture.config();
        change(&mut config);
        let error = Hsm::start(config).await.unwrap_err();
        assert!(error.to_string().contains(hint), "{error} lacks {hint:?}");
        error
    };
    let missing = refused(&|c| c.module = "/nonexistent/module.so".into(), "install softhsm2").await;
    assert!(matches!(missing, HsmError::Configuration(_)));
    refused(&|c| c.module = "module.so".into(), "absolute path").await;
    refused(&|c| c.module = worker_program().to_owned(), "cannot load the PKCS#11 module").await;
    refused(&|c| c.token = "another".into(), "present: keybroker").await;
    refused(&|c| c.environment.clear(), "SOFTHSM2_CONF").await;
    refused(&|c| c.worker_program = "/nonexistent/keybroker".into(), "/nonexistent/keybroker").await;
    refused(&|c| c.pin_file = "/nonexistent/pin".into(), "mode 0600").await;
    let mode =
        |mode| std::fs::set_permissions(&fixture.token.pin_file, PermissionsExt::from_mode(mode)).unwrap();
    mode(0o644);
    refused(&|_| {}, "chmod 600").await;
    mode(0o600);
    std::fs::write(&fixture.token.pin_file, "\n").unwrap();
    refused(&|_| {}, "exactly one line").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sealing_key_is_never_stored_and_ends_with_its_worker() {
    let fixture = Fixture::new();
    let hsm = fixture.start().await;
    let epoch = epoch(&hsm).await;
    let key = one_key(&hsm, epoch, KeyType::EcP256).await;
    let (recipient, binding) = (RecipientKey::generate().unwrap(), binding());
    let point =
        async || seal(&hsm, epoch, &key.wrapped.dek_blob, &binding, &recipient).await.map(|s| s.hsm_point);
    let first = point().await.unwrap();
    assert_eq!(point().await.unwrap(), first, "it is used for a minute");
    assert_eq!(hsm.inventory().await.unwrap().len(), 1, "only the KEK is on the token");
    kill(hsm.status().worker_pids[0]);
    until("another key", async || point().await.is_ok_and(|point| point != first)).await;
}

/// The test runs itself again as the broker that is killed.
#[tokio::test(flavor = "multi_thread")]
async fn workers_end_when_the_broker_is_killed() {
    const NAME: &str = "workers_end_when_the_broker_is_killed";
    const DIRECTORY: &str = "TEST_BROKER_DIRECTORY";
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        let directory = std::path::Path::new(&directory);
        let token = SoftHsmToken::create(&directory.join("token"), "keybroker", worker_program()).unwrap();
        let hsm = Hsm::start(token.config(worker_program())).await.unwrap();
        let pids: Vec<String> = hsm.status().worker_pids.iter().map(u32::to_string).collect();
        std::fs::write(directory.join("pids.new"), pids.join(" ")).unwrap();
        std::fs::rename(directory.join("pids.new"), directory.join("pids")).unwrap();
        return std::future::pending().await;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut broker = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", NAME])
        .env(DIRECTORY, directory.path())
        .spawn()
        .unwrap();
    let file = directory.path().join("pids");
    until("the broker is up", async || file.exists()).await;
    let pids = std::fs::read_to_string(&file).unwrap();
    let alive = |pid: &str| std::path::Path::new(&format!("/proc/{pid}/cmdline")).exists();
    assert!(pids.split(' ').all(alive));
    broker.kill().unwrap();
    broker.wait().unwrap();
    until("the workers end", async || !pids.split(' ').any(alive)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_vanishes_under_a_live_worker_is_down_not_empty() {
    let fixture = Fixture::new();
    let hsm = fixture.start().await;
    let epoch = epoch(&hsm).await;
    let key = one_key(&hsm, epoch, KeyType::EcP256).await;
    let (recipient, binding) = (RecipientKey::generate().unwrap(), binding());
    let sealed = async || seal(&hsm, epoch, &key.wrapped.dek_blob, &binding, &recipient).await;
    sealed().await.unwrap();
    let tokens = fixture.directory.path().join("tokens");
    let elsewhere = fixture.directory.path().join("unplugged");
    std::fs::rename(&tokens, &elsewhere).unwrap();
    for _ in 0..20 {
        match sealed().await {
            // A module may go on with what it holds in memory.
            Ok(_) | Err(HsmError::Unavailable(_)) => {}
            Err(error) => panic!("{error}"),
        }
        let found = hsm.object_exists(&ObjectId::Kek(tenant(), epoch)).await;
        assert!(matches!(found, Ok(true) | Err(HsmError::Unavailable(_))), "{found:?}");
        let gone = hsm.verify_destroyed(vec![ObjectId::Kek(tenant(), epoch)]).await;
        assert!(matches!(gone, Err(HsmError::Unavailable(_))), "{gone:?}");
    }
    std::fs::rename(&elsewhere, &tokens).unwrap();
    until("service", async || sealed().await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_token_of_the_same_label_is_not_served_before_a_reload() {
    let fixture = Fixture::new();
    let hsm = fixture.start().await;
    let serial = hsm.status().token_serial;
    let other = Fixture::new();
    let (tokens, others) = (fixture.directory.path().join("tokens"), other.directory.path().join("tokens"));
    std::fs::remove_dir_all(&tokens).unwrap();
    std::fs::rename(&others, &tokens).unwrap();
    std::fs::copy(&other.token.pin_file, &fixture.token.pin_file).unwrap();
    hsm.status().worker_pids.into_iter().for_each(kill);
    until("the circuit opens", async || !hsm.status().available).await;
    assert!(hsm.status().problem.contains("in place of"), "{}", hsm.status().problem);
    hsm.reload().await.unwrap();
    until("service", async || hsm.status().available).await;
    assert_ne!(hsm.status().token_serial, serial);
}
