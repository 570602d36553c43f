//! Revocation, shredding, receipts.

use super::{Scenario, points};
use crate::support::PATIENCE;
use crate::support::mano::{By, request_id};
use crate::support::settlement::{Held, assert_settled, count};
use crate::support::site::{Options, Site};
use keybroker::api::proto;
use keybroker::api::proto::lifecycle_service_client::LifecycleServiceClient;
use std::time::{Duration, Instant};
use tonic::Status;

const POOL: &str = "amf-transport";
const SLOTS: [(&str, &str); 1] = [("transport", POOL)];

/// Waits until a query gives this number. Fails when the broker is gone.
pub(super) async fn until_count(site: &Site, sql: &str, wanted: u64) -> Result<(), Status> {
    let begun = Instant::now();
    loop {
        site.reach("nfvo").await?;
        let found = count(site, sql).await;
        if found == wanted {
            return Ok(());
        }
        assert!(begun.elapsed() < PATIENCE, "{sql}: {found}, not {wanted}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn epochs_are_shredded_and_receipted_after_a_crash_at_every_point() {
    let options = Options { destruction_horizon: "1s", ..Options::default() };
    let mut site = Site::start_crashing(options).await;
    // What waits lives in the epoch that is to be shredded: it is moved.
    site.full_pool(POOL, 6).await;
    let first_head = site.export("first").await.join("head.json");
    let (mut held, mut ended) = (Held::default(), Vec::new());
    for point in points(Scenario::Shredding) {
        let id = format!("amf-{point:?}");
        let vnfci = site.register_one(&id, &SLOTS, By::Certificate).await;
        // Not confirmed: the first erasure in the epoch, from which its horizon counts, is that of the termination.
        let claimed = vnfci.claim(&site).await.unwrap();
        held.unsealed(&id, &claimed);
        ended.push(id.clone());
        let receipts = ended.len() as u64;
        let request = proto::TerminateVnfciRequest {
            request_id: request_id(),
            tenant: String::new(),
            vnfci_id: id,
            storage_wiped: true,
        };
        let terminate = async |site: &Site| {
            let mut client = LifecycleServiceClient::new(site.reach("nfvo").await?);
            let ended = client.terminate_vnfci(request.clone()).await?.into_inner();
            let sql = "SELECT count(*) FROM credentials WHERE receipt IS NOT NULL";
            until_count(site, sql, receipts).await?;
            Ok(ended)
        };
        site.crash_at(point, terminate).await;
    }
    assert_settled(&mut site, &held, &ended, &first_head).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn revocations_are_published_after_a_crash_at_every_point() {
    let mut site = Site::start_crashing(Options::default()).await;
    site.full_pool(POOL, 4).await;
    for point in points(Scenario::Revocation) {
        let id = format!("amf-{point:?}");
        site.register_one(&id, &SLOTS, By::Certificate).await.boot(&site).await;
        let held = site.vnfci(&id).await.credentials.remove(0);
        let request = proto::RevokeCertificateRequest {
            request_id: request_id(),
            issuer_id: held.issuer_id.clone(),
            serial: held.serial.clone(),
            reason: proto::RevocationReason::KeyCompromise.into(),
            ..Default::default()
        };
        let revoke = async |site: &Site| {
            let mut client = LifecycleServiceClient::new(site.reach("security-operator").await?);
            let revoked = client.revoke_certificate(request.clone()).await?.into_inner();
            let sql = format!(
                "SELECT count(*) FROM certificates WHERE state = 'REVOKED' AND lower(hex(serial)) = '{}'",
                held.serial
            );
            until_count(site, &sql, 1).await?;
            Ok(revoked)
        };
        let revoked = site.crash_at(point, revoke).await;
        assert_eq!((revoked.newly_revoked, revoked.revoked), (true, 1));
        // Relying parties see it, and one number was used once.
        let url = format!("http://{}/crl/{}.crl", site.addresses.http, held.issuer_id);
        let crl = crate::support::mano::http_get(&url).await;
        let serial = hex::decode(&held.serial).unwrap();
        assert!(crl.windows(serial.len()).any(|window| window == serial), "{point:?}");
    }
}
