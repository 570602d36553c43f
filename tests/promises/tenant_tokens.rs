//! Goal: tenants with tokens of their own share nothing but the broker: each one's keys are on its own token only, and what
//! happens to one token is that tenant's trouble alone.
//! Method: three tenants over three SoftHSM tokens; `pkcs11-tool` lists each; PINs are made wrong, tokens swapped, emptied and
//! taken away; one is made to hang by `softhsm/fault`, before that token only.

use crate::support::faults::faulty_module;
use crate::support::mano::{By, Tenant, announcement, create_pool, register, request_id};
use crate::support::pkcs11::objects_on;
use crate::support::site::{Options, Site, VNF};
use crate::support::vnfci::Vnfci;
use keybroker::api::proto;
use keybroker::api::proto::admin_service_client::AdminServiceClient;
use keybroker::api::proto::initial_credential::Kind;
use keybroker::api::proto::lifecycle_service_client::LifecycleServiceClient;
use keybroker::api::proto::pool_service_client::PoolServiceClient;
use rustix::process::Signal;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Instant;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt;

const POOL: &str = "amf-transport";
const SLOTS: [(&str, &str); 1] = [("transport", POOL)];

fn section(tenant: &str, token: &str) -> String {
    format!(
        "[tenant.{tenant}]\ndestruction_horizon = \"2s\"\ntoken = {token:?}\npin_file = \"{token}.pin\"\n"
    )
}

/// The tenants `default`, on the broker's token, `acme` and `beta`, on their own, each with a pool of 4; and the directories
/// of the latter's tokens.
struct Three {
    site: Site,
    acme: Tenant,
    beta: Tenant,
    beta_token: PathBuf,
}

impl Three {
    async fn start() -> Self {
        Self::start_with(section("acme", "acme"), Options::default()).await
    }

    /// With the section of acme's token.
    async fn start_with(acme: String, options: Options) -> Self {
        let more_toml = acme + &section("beta", "beta");
        let mut site = Site::prepare(Options { more_toml, ..options });
        site.add_token("acme").await;
        let beta_token = site.add_token("beta").await;
        site.init().await;
        site.serve().await;
        site.add_anchor("default", "mano", &site.mano_ca).await;
        site.full_pool(POOL, 4).await;
        let acme = site.add_tenant("acme").await;
        let beta = site.add_tenant("beta").await;
        let mut three = Self { site, acme, beta, beta_token };
        three.full_pools().await;
        three
    }

    async fn full_pools(&mut self) {
        for nfvo in [self.nfvo(&self.acme).await, self.nfvo(&self.beta).await] {
            self.full_pool(nfvo, POOL).await;
        }
    }

    /// A tenant's NFVO.
    async fn nfvo(&self, tenant: &Tenant) -> Channel {
        self.site.connect(&self.site.management_url(), &tenant.identities["nfvo"]).await.channel
    }

    /// Creates a pool of 4 and waits until it is full.
    async fn full_pool(&mut self, nfvo: Channel, name: &str) {
        create_pool(nfvo.clone(), "", name, VNF, 4, None).await;
        self.site
            .until("a full pool", async |_| {
                let request = proto::GetPoolRequest { tenant: String::new(), name: name.into() };
                let pool = PoolServiceClient::new(nfvo.clone()).get_pool(request).await.unwrap();
                (pool.into_inner().pool?.levels?.available >= 4).then_some(())
            })
            .await;
    }

    /// Reports the end of a VNFCI.
    async fn terminate(&self, tenant: &Tenant, vnfci: &Vnfci) {
        let request = proto::TerminateVnfciRequest {
            request_id: request_id(),
            tenant: String::new(),
            vnfci_id: vnfci.id.clone(),
            storage_wiped: true,
        };
        LifecycleServiceClient::new(self.nfvo(tenant).await).terminate_vnfci(request).await.unwrap();
    }

    /// Waits for an event of a tenant's that has this text.
    async fn event(&mut self, kind: &str, text: &str) -> Value {
        self.site
            .until(kind, async |site| {
                site.events(kind).await.into_iter().find(|event| event.to_string().contains(text))
            })
            .await
    }

    /// A registered VNFCI of a tenant.
    async fn vnfci(&self, tenant: &Tenant, id: &str) -> Vnfci {
        register(self.nfvo(tenant).await, "", &tenant.ca, "mano", &[id], &SLOTS, By::Certificate)
            .await
            .remove(0)
    }

    /// How claims of the tenants default, acme and beta end now.
    async fn claim_all(&self, id: &str) -> [Result<(), Status>; 3] {
        let of_default = self.site.register_one(id, &SLOTS, By::Token).await;
        let (acme, beta) = (self.vnfci(&self.acme, id).await, self.vnfci(&self.beta, id).await);
        [
            of_default.claim(&self.site).await.map(drop),
            acme.claim(&self.site).await.map(drop),
            beta.claim(&self.site).await.map(drop),
        ]
    }

    /// Labels on a token.
    async fn labels(&self, token: &str, pin_file: &str) -> BTreeSet<String> {
        let objects = objects_on(&self.site, token, &self.site.path().join(pin_file)).await;
        objects.iter().map(|object| object.label().to_owned()).collect()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.site.log()).unwrap()
    }

    async fn readyz(&self) -> String {
        String::from_utf8(self.site.get(true, "/readyz").await).unwrap()
    }

    /// What `doctor` finds of a check.
    async fn finding(&self, check: &str) -> (String, String) {
        let config = self.site.config().display().to_string();
        let rows = self.site.cli(["doctor", "--config", &config]).await.objects();
        let row = rows.iter().find(|row| row["check"] == check).unwrap_or_else(|| panic!("{rows:#?}"));
        let text = |field: &str| row[field].as_str().unwrap().to_owned();
        (text("status"), text("finding"))
    }
}

fn unavailable(outcome: &Result<(), Status>) {
    assert_eq!(outcome.as_ref().unwrap_err().code(), Code::Unavailable, "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_tenants_keys_are_on_its_own_token_and_receipts_name_it() {
    let mut three = Three::start().await;
    for outcome in three.claim_all("amf-1").await {
        outcome.unwrap();
    }
    for (tenant, pin) in [("acme", "acme.pin"), ("beta", "beta.pin")] {
        let labels = three.labels(tenant, pin).await;
        assert!(labels.contains(&format!("keybroker:ca:{tenant}:1")), "{labels:?}");
        assert!(labels.contains(&format!("keybroker:hmac:{tenant}")), "{labels:?}");
        assert!(
            labels.iter().any(|label| label.starts_with(&format!("keybroker:kek:{tenant}:"))),
            "{labels:?}"
        );
        for label in &labels {
            assert_eq!(label.split(':').nth(2), Some(tenant), "{labels:?}");
        }
    }
    let labels = three.labels(&three.site.token.label, "pin").await;
    assert!(labels.contains("keybroker:root:1") && labels.contains("keybroker:audit:1"), "{labels:?}");
    assert!(!labels.iter().any(|label| label.contains("acme") || label.contains("beta")), "{labels:?}");

    // The end of a key of acme: the receipt has the serial number of acme's token.
    let vnfci = three.vnfci(&three.acme, "amf-2").await;
    let claimed = vnfci.boot(&three.site).await;
    three.terminate(&three.acme, &vnfci).await;
    let mut client = AdminServiceClient::new(three.site.management("operator").await);
    let status = client.get_hsm_status(proto::GetHsmStatusRequest {}).await.unwrap().into_inner();
    let [acme, beta] = &status.tenant_tokens[..] else { panic!("{status:?}") };
    assert_eq!((acme.tenant.as_str(), acme.available, beta.tenant.as_str()), ("acme", true, "beta"));
    let serials = BTreeSet::from([&status.token_serial, &acme.token_serial, &beta.token_serial]);
    assert_eq!(serials.len(), 3, "{status:?}");
    let serial = acme.token_serial.clone();
    let credential = claimed.keys[0].credential_id.clone();
    let receipt = three.event("DESTRUCTION_RECEIPT", &credential).await;
    assert!(receipt.to_string().contains(&serial), "{receipt}");
    // Metrics tell the tokens apart.
    let metrics = String::from_utf8(three.site.get(true, "/metrics").await).unwrap();
    assert!(metrics.contains("keybroker_hsm_available{tenant=\"acme\"} 1"), "{metrics}");
    three.site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_pin_of_one_tenants_token_stops_only_that_tenant_until_it_is_corrected() {
    let mut three = Three::start().await;
    three.site.stop().await;
    three.site.write_pin("beta", "not-the-pin");
    three.site.serve().await;
    let [of_default, of_acme, of_beta] = three.claim_all("amf-1").await;
    of_default.unwrap();
    of_acme.unwrap();
    unavailable(&of_beta);
    let log = three.log();
    assert_eq!(log.matches("the tenant's token is not served").count(), 1, "{log}");
    assert!(log.contains("tenant=beta") && log.contains("refused the PIN"), "{log}");
    let ready = three.readyz().await;
    assert!(
        ready.starts_with("ready\n") && ready.contains("HSM of tenant beta: the token refused the PIN"),
        "{ready}"
    );
    let (status, finding) = three.finding("token of tenant beta").await;
    assert!(status == "fail" && finding.contains("refused the PIN"), "{finding}");
    assert_eq!(three.finding("token of tenant acme").await.0, "ok");

    three.site.write_pin("beta", "pin-of-beta");
    three.site.broker().signal(Signal::HUP);
    three
        .site
        .until("the corrected PIN", async |site| {
            let ready = String::from_utf8(site.get(true, "/readyz").await).unwrap();
            (ready == "ready\n").then_some(())
        })
        .await;
    for outcome in three.claim_all("amf-2").await {
        outcome.unwrap();
    }
    three.site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_away_at_the_start_is_found_when_it_comes() {
    let mut three = Three::start().await;
    three.site.kill();
    let elsewhere = three.site.path().join("elsewhere");
    std::fs::rename(&three.beta_token, &elsewhere).unwrap();
    three.site.serve().await;
    let [of_default, of_acme, of_beta] = three.claim_all("amf-1").await;
    of_default.unwrap();
    of_acme.unwrap();
    unavailable(&of_beta);
    assert!(
        three.log().contains("the token of tenant beta is away, its keys were not compared"),
        "{}",
        three.log()
    );
    std::fs::rename(&elsewhere, &three.beta_token).unwrap();
    let vnfci = three.vnfci(&three.beta, "amf-2").await;
    vnfci.claim_patiently(&three.site).await;
    three.site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_were_swapped_are_refused_and_nothing_is_made_on_them() {
    let mut three = Three::start().await;
    three.site.stop().await;
    let before = (three.labels("acme", "acme.pin").await, three.labels("beta", "beta.pin").await);
    three.site.options.more_toml = section("acme", "beta") + &section("beta", "acme");
    three.site.write_config();
    three.site.serve().await;
    let [of_default, of_acme, of_beta] = three.claim_all("amf-1").await;
    of_default.unwrap();
    unavailable(&of_acme);
    unavailable(&of_beta);
    assert!(three.log().contains("which is not tenant acme's"), "{}", three.log());
    let (status, finding) = three.finding("token of tenant acme").await;
    assert!(status == "fail" && finding.contains("which is not tenant acme's"), "{finding}");
    three.site.stop().await;

    // Without tokens of their own their keys would be looked for, and made anew, on the broker's.
    three.site.options.more_toml = String::new();
    three.site.write_config();
    three.site.serve().await;
    let [of_default, of_acme, _] = three.claim_all("amf-2").await;
    of_default.unwrap();
    of_acme.unwrap_err();
    three.site.stop().await;
    let labels = three.labels(&three.site.token.label, "pin").await;
    assert!(!labels.iter().any(|label| label.contains("acme") || label.contains("beta")), "{labels:?}");

    three.site.options.more_toml = section("acme", "acme") + &section("beta", "beta");
    three.site.write_config();
    three.site.serve().await;
    for outcome in three.claim_all("amf-3").await {
        outcome.unwrap();
    }
    three.site.stop().await;
    assert!(before.0.is_subset(&three.labels("acme", "acme.pin").await));
    assert!(before.1.is_subset(&three.labels("beta", "beta.pin").await));
}

/// What the tenants default and beta get while acme's token does what the rules say; the times are printed.
async fn others_go_on(call_deadline: &'static str, rules: &str) {
    let acme = section("acme", "acme") + &format!("module = {:?}\n", faulty_module());
    let options = Options { faulty_tenants: true, call_deadline, ..Options::default() };
    let mut three = Three::start_with(acme, options).await;
    // acme's epochs are to be shredded and its CRL to be signed while its token hangs, and its pools to be filled.
    let of_acme = three.vnfci(&three.acme, "amf-1").await;
    of_acme.boot(&three.site).await;
    let of_beta = three.vnfci(&three.beta, "amf-1").await;
    let claimed = of_beta.boot(&three.site).await;
    three.site.faults().set(rules);
    let acme = three.nfvo(&three.acme).await;
    create_pool(acme, "", "hanging", VNF, 4, None).await;
    three.terminate(&three.acme, &of_acme).await;
    three
        .site
        .until("the hanging of acme's token", async |site| {
            (!site.faults().injected().is_empty()).then_some(())
        })
        .await;
    let begun = Instant::now();
    for turn in 0..2 {
        let id = format!("meanwhile-{turn}");
        let (default, beta) =
            (three.site.register_one(&id, &SLOTS, By::Token).await, three.vnfci(&three.beta, &id).await);
        let claiming = Instant::now();
        default.boot(&three.site).await;
        beta.boot(&three.site).await;
        println!("two VNFCIs of others booted in {:?}", claiming.elapsed());
        let filling = Instant::now();
        let pool = format!("meanwhile-{turn}");
        three.site.full_pool(&pool, 4).await;
        let nfvo = three.nfvo(&three.beta).await;
        three.full_pool(nfvo, &pool).await;
        println!("two pools of others filled in {:?}", filling.elapsed());
    }
    // What ended in beta is withdrawn and destroyed.
    let ending = Instant::now();
    three.terminate(&three.beta, &of_beta).await;
    let serial = hex::encode(&claimed.keys[0].facts.serial);
    three
        .site
        .until("beta's CRL", async |site| {
            let pending = format!("SELECT count(*) FROM certificates WHERE state = 'REVOKED' AND hex(serial) = upper('{serial}')");
            (crate::support::settlement::count(site, &pending).await == 1).then_some(())
        })
        .await;
    println!("withdrawn after {:?}", ending.elapsed());
    three.event("DESTRUCTION_RECEIPT", &claimed.keys[0].credential_id).await;
    println!("receipt after {:?}; all of it took {:?}", ending.elapsed(), begun.elapsed());
    let ready = three.readyz().await;
    assert!(ready.starts_with("ready\n"), "{ready}");
    // It would wait for the token that hangs.
    three.site.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn while_one_tenants_token_hangs_the_others_pools_are_filled_and_their_keys_destroyed() {
    // A deadline that the test does not see: whoever waits for the token that hangs waits for good.
    others_go_on("10m", "* hang").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_one_tenants_token_takes_too_long_for_everything_the_others_go_on() {
    others_go_on("10s", "* delay 20000").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blank_token_in_place_of_a_tenants_own_is_named_with_its_remedy() {
    let mut three = Three::start().await;
    let waiting = three.vnfci(&three.beta, "amf-0").await;
    three.site.stop().await;
    let elsewhere = three.site.path().join("elsewhere");
    std::fs::rename(&three.beta_token, &elsewhere).unwrap();
    let blank = three.site.add_token("beta").await;
    three.site.serve().await;
    let said = |status: Status| {
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        let details = status.get_error_details();
        assert_eq!(details.error_info().unwrap().reason, "TOKEN_WITHOUT_KEYS", "{status:?}");
        assert!(details.retry_info().is_some(), "{status:?}");
        for told in ["token of tenant beta", "[tenant.beta]", "restore"] {
            assert!(status.message().contains(told), "{status:?}");
        }
    };
    // A claim, and a registration whose answer needs the token.
    said(waiting.claim(&three.site).await.err().unwrap());
    let announced = announcement("amf-1", &SLOTS, Kind::Token(proto::TokenInitialCredential {}), None);
    let request = proto::RegisterVnfcisRequest {
        request_id: request_id(),
        tenant: String::new(),
        vnfcis: vec![announced],
    };
    let mut mano = LifecycleServiceClient::new(three.nfvo(&three.beta).await);
    said(mano.register_vnfcis(request.clone()).await.unwrap_err());
    three.site.register_one("amf-1", &SLOTS, By::Token).await.claim(&three.site).await.unwrap();
    three.vnfci(&three.acme, "amf-1").await.claim(&three.site).await.unwrap();
    let (status, finding) = three.finding("keys of tenant beta").await;
    assert!(status == "fail" && finding.contains("keybroker:hmac:beta"), "{finding}");
    assert_eq!(three.finding("keys of tenant acme").await.0, "ok");
    assert_eq!(three.finding("keys of tenant default").await.0, "ok");
    three.site.stop().await;
    // Nothing was made on it, and with the right one all is as before: the registration has its token.
    assert!(three.labels("beta", "beta.pin").await.is_empty());
    std::fs::remove_dir_all(&blank).unwrap();
    std::fs::rename(&elsewhere, &three.beta_token).unwrap();
    three.site.serve().await;
    waiting.claim_patiently(&three.site).await;
    let mut mano = LifecycleServiceClient::new(three.nfvo(&three.beta).await);
    let registered = mano.register_vnfcis(request).await.unwrap().into_inner();
    assert!(registered.results[0].token.starts_with("kb1."), "{:?}", registered.results[0].error);
    three.site.stop().await;
}
