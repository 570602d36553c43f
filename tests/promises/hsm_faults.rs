//! Goal: whatever the PKCS#11 module does wrong, the broker fails closed, says what is wrong, loses nothing and gives
//! nothing out twice, and works again by itself once the module does.
//! Method: `softhsm/fault` stands before SoftHSM2 and fails on command. The times that recovery took are printed.

use crate::support::mano::{By, http_exchange};
use crate::support::site::{Options, Site};
use crate::support::vnfci::transient;
use std::collections::HashSet;
use std::time::{Duration, Instant};

const POOL: &str = "amf-transport";
const SLOTS: [(&str, &str); 1] = [("transport", POOL)];
/// Within which the broker serves again after the module does (docs/operations.md, "When the HSM fails").
const RECOVERY: Duration = Duration::from_secs(15);

async fn faulty() -> Site {
    Site::start_with(Options { faulty: true, call_deadline: "1s", ..Options::default() }).await
}

/// Claims by a new VNFCI fail, with an error that says to try again, until the fault is taken away.
#[tokio::test(flavor = "multi_thread")]
async fn claims_fail_closed_while_the_module_fails_and_succeed_soon_after() {
    let mut site = faulty().await;
    site.full_pool(POOL, 40).await;
    let lasting = [
        ("a failing unwrap", "C_UnwrapKey return 0x30"),
        ("a general error everywhere", "* return 0x5"),
        ("sessions that are never valid", "* return 0xb3"),
        ("a user who is logged out", "* return 0x101"),
        ("a device without memory", "* return 0x31"),
        ("a token that is away", "* absent"),
        ("a derivation that hangs", "C_DeriveKey hang"),
        ("a wrapping that crashes", "C_WrapKey crash"),
        ("log-ins that fail", "C_UnwrapKey crash\nC_Login return 0x30"),
    ];
    let mut keys = HashSet::new();
    for (number, (what, rules)) in lasting.into_iter().enumerate() {
        let vnfci = site.register_one(&format!("lasting-{number}"), &SLOTS, By::Certificate).await;
        site.faults().set(rules);
        let refused = vnfci.claim(&site).await.err().unwrap_or_else(|| panic!("claimed despite {what}"));
        assert!(transient(&refused), "{what}: {refused:?}");
        assert!(!refused.message().is_empty());
        assert!(!site.faults().injected().is_empty(), "{what}: nothing was injected");
        site.faults().clear();
        let begun = Instant::now();
        let claimed = vnfci.claim_patiently(&site).await;
        let took = begun.elapsed();
        println!("{what}: served again after {took:?}");
        assert!(took < RECOVERY, "{what}: served again only after {took:?}");
        assert!(vnfci.confirm(&site, &claimed).await.unwrap());
        for key in &claimed.keys {
            assert!(keys.insert(key.facts.public_key_der.clone()), "{what}: a key was given twice");
        }
        site.check();
    }
    let export = site.export("after").await;
    assert_eq!(site.verify(&export, &[]).await.ok().object()["verified"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_passing_fault_of_the_module_costs_a_claim_a_retry_at_most() {
    let mut site = faulty().await;
    site.full_pool(POOL, 20).await;
    let passing = [
        ("a slow call", "C_UnwrapKey delay 300 times 2"),
        ("sessions closed behind our back", "C_UnwrapKey invalidate times 1"),
        ("one crash", "C_DeriveKey crash times 1"),
        ("one hang", "C_WrapKey hang times 1"),
        ("one device error", "C_UnwrapKey return 0x30 times 1"),
    ];
    for (number, (what, rules)) in passing.into_iter().enumerate() {
        let vnfci = site.register_one(&format!("passing-{number}"), &SLOTS, By::Certificate).await;
        site.faults().set(rules);
        let begun = Instant::now();
        let claimed = vnfci.claim_patiently(&site).await;
        println!("{what}: claimed after {:?}", begun.elapsed());
        assert!(begun.elapsed() < RECOVERY, "{what}: claimed only after {:?}", begun.elapsed());
        assert!(vnfci.confirm(&site, &claimed).await.unwrap());
        assert!(!site.faults().injected().is_empty(), "{what}: nothing was injected");
        site.faults().clear();
        assert_eq!(site.vnfci(&vnfci.id).await.credentials.len(), 1, "{what}: a second credential was drawn");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_that_crashes_while_it_is_loaded_is_loaded_again_before_a_start_is_given_up() {
    let mut site = faulty().await;
    site.stop().await;
    site.faults().set("C_Initialize crash times 2");
    site.serve().await;
    assert_eq!(site.faults().injected().iter().filter(|line| line.contains("crash")).count(), 2);
    // Nor is a start given up at once.
    site.stop().await;
    site.faults().set("C_Initialize crash times 5");
    site.serve().await;
    // One that does so every time is not tried for ever.
    site.stop().await;
    site.faults().set("C_Initialize crash");
    let config = site.config().display().to_string();
    let failed = site.cli(["serve", "--config", &config]).await;
    assert_eq!(failed.code, 4, "{failed:?}");
    assert!(failed.err.contains("while it loaded the module"), "{failed:?}");
}

/// Found by two `init` and by two `recover` at once: the one that read the token's file while the other one wrote it was told that
/// there is no token, or none with a PIN.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_cannot_be_read_while_another_process_writes_it_is_read_again() {
    let mut site = faulty().await;
    site.stop().await;
    let config = site.config().display().to_string();
    // CKR_GENERAL_ERROR; the same until the process that saw nothing is replaced; CKR_USER_PIN_NOT_INITIALIZED.
    for failing in
        ["C_GetTokenInfo return 5 times 3", "C_GetTokenInfo return 5 times 25", "C_Login return 102 times 3"]
    {
        site.faults().set(failing);
        site.cli(["init", "--config", &config]).await.ok();
    }
    site.faults().clear();
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_says_that_the_token_is_away_and_when_it_is_back() {
    let mut site = faulty().await;
    let url = format!("http://{}/readyz", site.addresses.admin);
    site.faults().set("* absent");
    let said = site
        .until("not ready", async |_| {
            let (head, body) = http_exchange(&url).await;
            head.starts_with("HTTP/1.1 503").then(|| String::from_utf8_lossy(&body).into_owned())
        })
        .await;
    assert!(said.contains("HSM") || said.contains("token"), "{said}");
    site.faults().clear();
    let begun = Instant::now();
    site.until("ready", async |_| http_exchange(&url).await.0.starts_with("HTTP/1.1 200").then_some(()))
        .await;
    println!("ready again after {:?}", begun.elapsed());
    assert!(begun.elapsed() < RECOVERY);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_workers_live_and_every_claim_fails_in_the_module_readiness_names_the_failing_verb() {
    let mut site = faulty().await;
    site.full_pool(POOL, 10).await;
    let url = format!("http://{}/readyz", site.addresses.admin);
    let vnfci = site.register_one("amf-1", &SLOTS, By::Certificate).await;
    site.faults().set("C_WrapKey return 0x30");
    let said = site
        .until("not ready", async |site| {
            let refused = vnfci.claim(site).await.err().expect("claimed despite the fault");
            assert!(transient(&refused), "{refused:?}");
            let (head, body) = http_exchange(&url).await;
            head.starts_with("HTTP/1.1 503").then(|| String::from_utf8_lossy(&body).into_owned())
        })
        .await;
    assert!(said.contains("seal failed") && said.contains("C_WrapKey"), "{said}");
    site.faults().clear();
    let begun = Instant::now();
    let claimed = vnfci.claim_patiently(&site).await;
    println!("an open circuit: served again after {:?}", begun.elapsed());
    assert!(begun.elapsed() < RECOVERY);
    assert!(vnfci.confirm(&site, &claimed).await.unwrap());
    site.until("ready", async |_| http_exchange(&url).await.0.starts_with("HTTP/1.1 200").then_some(()))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_token_stops_production_but_not_claims() {
    let mut site = faulty().await;
    site.full_pool(POOL, 10).await;
    // 0x31 is CKR_DEVICE_MEMORY. An epoch's KEK is a token object, a pool's keys are not.
    site.faults().set("C_GenerateKey:token return 0x31");
    for number in 0..5 {
        site.register_one(&format!("amf-{number}"), &SLOTS, By::Certificate).await.boot(&site).await;
    }
    // Far more than what is left of the open epoch.
    site.create_pool("larger", 1_000, None).await;
    site.until("a refused KEK", async |site| (!site.faults().injected().is_empty()).then_some(())).await;
    site.register_one("amf-more", &SLOTS, By::Certificate).await.boot(&site).await;
    site.faults().clear();
    site.until_available("larger", 1_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_whose_destruction_the_module_only_pretends_is_never_called_shredded() {
    let mut site = faulty().await;
    site.full_pool(POOL, 3).await;
    let vnfci = site.register_one("amf-0", &SLOTS, By::Certificate).await;
    vnfci.boot(&site).await;
    site.faults().set("C_DestroyObject pretend");
    site.terminate_vnfci("amf-0").await;
    // The horizon is 2 s. Every try is found out by the fresh process.
    site.until("a destruction that was found out", async |site| {
        let log = std::fs::read_to_string(site.log()).unwrap();
        log.contains("still on the token after destruction").then_some(())
    })
    .await;
    assert!(site.events("EPOCH_SHREDDED").await.is_empty(), "called destroyed while the KEK is there");
    site.faults().clear();
    site.until("the destruction", async |site| {
        (!site.events("EPOCH_SHREDDED").await.is_empty()).then_some(())
    })
    .await;
    let export = site.export("after").await;
    assert_eq!(site.verify(&export, &[]).await.ok().object()["verified"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_termination_while_the_token_is_away_is_recorded_and_completed_later() {
    let mut site = faulty().await;
    site.full_pool(POOL, 3).await;
    let vnfci = site.register_one("amf-0", &SLOTS, By::Certificate).await;
    vnfci.boot(&site).await;
    site.faults().set("* absent");
    let answered = site.terminate_vnfci("amf-0").await;
    assert!(answered.newly_terminated && answered.serials.len() == 1, "{answered:?}");
    let pending = site.vnfci("amf-0").await;
    assert_eq!(pending.credentials[0].certificate_state, "REVOCATION_PENDING", "{pending:?}");
    site.faults().clear();
    site.until("the revocation", async |site| {
        (site.vnfci("amf-0").await.credentials[0].certificate_state == "REVOKED").then_some(())
    })
    .await;
}
