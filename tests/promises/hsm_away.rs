//! Goal: while the HSM is away nothing is promised that needs it, the end of a VNFCI is accepted all the same, and what it
//! needs of the HSM is done as soon as that is back.
//! Method: the token's directory is moved away and the workers are killed; later it is moved back. openssl judges the CRL.

use crate::certificates::{Files, crl_pem, verify};
use crate::support::mano::By;
use crate::support::site::Site;
use keybroker::api::proto;
use keybroker::api::proto::admin_service_client::AdminServiceClient;
use tonic::Code;

const POOL: &str = "amf-transport";
const SLOTS: [(&str, &str); 1] = [("transport", POOL)];

async fn hsm_is_available(site: &Site) -> bool {
    let mut client = AdminServiceClient::new(site.management("operator").await);
    client.get_hsm_status(proto::GetHsmStatusRequest {}).await.unwrap().into_inner().available
}

/// The states of the key and the certificate of a VNFCI with one credential.
async fn states(site: &Site, id: &str) -> (String, String) {
    let mut shown = site.vnfci(id).await;
    assert_eq!(shown.credentials.len(), 1, "{shown:?}");
    let credential = shown.credentials.remove(0);
    (credential.key_state, credential.certificate_state)
}

fn pair(key: &str, certificate: &str) -> (String, String) {
    (key.into(), certificate.into())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_reported_while_the_hsm_is_away_is_accepted_and_completed_when_it_is_back() {
    let mut site = Site::start().await;
    site.full_pool(POOL, 3).await;
    let vnfcis = site.register(&["amf-0001", "amf-0002", "amf-0003"], &SLOTS, By::Certificate).await;
    let delivered = vnfcis[0].boot(&site).await;
    let claimed = vnfcis[1].claim(&site).await.unwrap();
    let files = Files::write(site.path(), "amf-0001", &delivered.keys[0]);
    let crl = site.path().join("crl.pem");
    std::fs::write(&crl, crl_pem(&delivered.keys[0]).await).unwrap();
    verify(&files, &crl).await.ok();

    let (tokens, elsewhere) = (site.path().join("tokens"), site.path().join("unplugged"));
    std::fs::rename(&tokens, &elsewhere).unwrap();
    std::fs::create_dir(&tokens).unwrap();
    while site.broker().kill_worker(0).is_some() {}
    site.until("the broker's notice that the HSM is away", async |site| {
        (!hsm_is_available(site).await).then_some(())
    })
    .await;
    let refused = vnfcis[2].claim(&site).await.err().expect("nothing can be sealed");
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");

    for id in ["amf-0001", "amf-0002"] {
        let ended = site.terminate_vnfci(id).await;
        assert!(ended.newly_terminated, "{id}");
        assert_eq!(ended.serials.len(), 1, "{id}");
        assert_eq!(site.vnfci(id).await.state(), proto::VnfciState::Terminated, "{id}");
        let again = site.terminate_vnfci(id).await;
        assert!(!again.newly_terminated, "{id}");
    }
    assert_eq!(states(&site, "amf-0001").await, pair("DELIVERED", "REVOCATION_PENDING"));
    assert_eq!(states(&site, "amf-0002").await, pair("DESTROYED", "REVOCATION_PENDING"));
    // What is published is still the CRL of before: it could not be signed.
    std::fs::write(&crl, crl_pem(&delivered.keys[0]).await).unwrap();
    verify(&files, &crl).await.ok();
    assert!(!hsm_is_available(&site).await);

    std::fs::remove_dir(&tokens).unwrap();
    std::fs::rename(&elsewhere, &tokens).unwrap();
    for (id, key) in [("amf-0001", "DELIVERED"), ("amf-0002", "DESTROYED")] {
        site.until("the revocation", async |site| {
            (states(site, id).await == pair(key, "REVOKED")).then_some(())
        })
        .await;
    }
    site.until("the CRL with what was pending", async |_| {
        std::fs::write(&crl, crl_pem(&delivered.keys[0]).await).unwrap();
        let found = verify(&files, &crl).await;
        (found.code != 0 && format!("{}{}", found.out, found.err).contains("certificate revoked"))
            .then_some(())
    })
    .await;
    assert!(hsm_is_available(&site).await);
    // The copy of the key that was never delivered is shredded, and the receipt says so.
    let credential = claimed.keys[0].credential_id.clone();
    let receipt = site
        .until("the receipt of shredding", async |site| {
            let told = site.cli_as("auditor", &["audit", "receipt", &credential]).await;
            let receipt = (told.code == 0).then(|| told.object())?;
            (receipt["receipt"]["broker_copy"]["state"] == "SHREDDED").then_some(receipt)
        })
        .await;
    assert_eq!(receipt["receipt"]["vnfci"], "amf-0002", "{receipt}");
    let late = vnfcis[2].claim_patiently(&site).await;
    assert!(vnfcis[2].confirm(&site, &late).await.unwrap());
}
