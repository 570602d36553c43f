//! Pools, production, epochs, the log.

use super::{Scenario, points};
use crate::external_issuers;
use crate::operator_pki;
use crate::support::PATIENCE;
use crate::support::crashing::name_of;
use crate::support::est_server::EstServer;
use crate::support::mano::{By, create_pool, pool_request, request_id};
use crate::support::settlement::{count, query};
use crate::support::site::{ANCHOR, Options, Site, VNF};
use keybroker::api::proto;
use keybroker::api::proto::pool_service_client::PoolServiceClient;
use keybroker::ca::{CertificateFacts, certificates_from_pem};
use keybroker::crash::Point;
use std::time::{Duration, Instant};
use tonic::Status;
use tonic::transport::Channel;

/// How many a pool of these tests keeps ready.
const TARGET: u32 = 4;

/// Waits until a pool has exactly so many ready: its target. Fails when the broker is gone.
async fn until_full(channel: Channel, name: &str, target: u32) -> Result<proto::PoolLevels, Status> {
    let begun = Instant::now();
    let mut client = PoolServiceClient::new(channel);
    loop {
        let request = proto::GetPoolRequest { tenant: String::new(), name: name.into() };
        let pool = client.get_pool(request).await?.into_inner().pool.unwrap();
        let levels = pool.levels.unwrap();
        if levels.ready == u64::from(target) {
            return Ok(levels);
        }
        assert!(begun.elapsed() < PATIENCE, "{name}: {levels:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Creates a pool and waits until it is full.
async fn filled(site: &Site, request: &proto::CreatePoolRequest) -> Result<u64, Status> {
    let channel = site.reach("nfvo").await?;
    PoolServiceClient::new(channel.clone()).create_pool(request.clone()).await?;
    Ok(until_full(channel, &request.name, request.target).await?.ready)
}

/// Shrinks a pool and waits for that.
async fn resized(site: &Site, request: &proto::UpdatePoolRequest) -> Result<u64, Status> {
    let channel = site.reach("nfvo").await?;
    let updated = PoolServiceClient::new(channel.clone()).update_pool(request.clone()).await?.into_inner();
    assert_eq!(updated.pool.unwrap().target, request.target);
    Ok(until_full(channel, &request.name, request.target).await?.ready)
}

/// Deletes a pool and waits until nothing waits in it.
async fn deleted(site: &Site, request: &proto::DeletePoolRequest) -> Result<String, Status> {
    let begun = Instant::now();
    loop {
        let channel = site.reach("nfvo").await?;
        let deleted = PoolServiceClient::new(channel).delete_pool(request.clone()).await?.into_inner();
        let pool = deleted.pool.unwrap();
        if pool.levels.unwrap().ready == 0 {
            return Ok(pool.name);
        }
        assert!(begun.elapsed() < PATIENCE, "keys of a deleted pool stay");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pools_are_filled_resized_and_deleted_after_a_crash_at_every_point() {
    let mut site = Site::start_crashing(Options::default()).await;
    for point in points(Scenario::Pools) {
        let name = name_of(point).replace(['.', '_'], "-");
        let create = pool_request(&name, TARGET);
        match point {
            Point::PoolUpdated => {
                filled(&site, &create).await.unwrap();
                let request = proto::UpdatePoolRequest {
                    request_id: request_id(),
                    tenant: String::new(),
                    name: name.clone(),
                    target: TARGET - 1,
                    refill_below: None,
                };
                site.crash_at(point, async |site| resized(site, &request).await).await;
            }
            Point::PoolDeleted | Point::PoolErased => {
                filled(&site, &create).await.unwrap();
                let request =
                    proto::DeletePoolRequest { request_id: request_id(), tenant: String::new(), name };
                site.crash_at(point, async |site| deleted(site, &request).await).await;
            }
            _ => {
                site.crash_at(point, async |site| filled(site, &create).await).await;
            }
        }
    }
    // What was produced and not committed is nowhere: as many keys were told to the log as there are.
    let produced: usize = site
        .events("KEYS_PRODUCED")
        .await
        .iter()
        .map(|event| event["credentials"].as_array().unwrap().len())
        .sum();
    assert_eq!(produced as u64, count(&site, "SELECT count(*) FROM credentials").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_epoch_is_opened_after_a_crash_at_every_point() {
    let mut site = Site::start_crashing(Options::default()).await;
    for (number, point) in points(Scenario::Epochs).into_iter().enumerate() {
        // Each tenant opens an epoch of its own.
        let tenant = site.add_tenant(&format!("tenant-{number}")).await;
        let nfvo = &tenant.identities["nfvo"];
        let request = pool_request("pool", TARGET);
        site.crash_at(point, async |site| {
            let connected = keybroker::api::client::connect(&site.management_url(), &site.tls(nfvo)).await;
            let channel = connected.map_err(|error| Status::unavailable(error.to_string()))?.channel;
            PoolServiceClient::new(channel.clone()).create_pool(request.clone()).await?;
            Ok(until_full(channel, "pool", TARGET).await?.ready)
        })
        .await;
        // What a process began that is gone is shredded: only its maker would know that there is one key of that name. A broker
        // whose worker died goes on with its own.
        let left = usize::from(!matches!(point, Point::EpochOpened | Point::WorkerKek));
        for (states, expected) in [("'OPEN'", 1), ("'DESTROYED'", left)] {
            let of_tenant = format!("FROM epochs WHERE tenant = '{}' AND state IN ({states})", tenant.name);
            let sql = format!("SELECT count(*) {of_tenant}");
            assert_eq!(count(&site, &sql).await, expected as u64, "{states} after {}", name_of(point));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_of_an_enrolment_server_is_filled_after_a_crash_at_every_point() {
    let server = EstServer::start(Duration::ZERO).await;
    let mut site = external_issuers::site_on(&server, Site::prepare_crashing).await;
    for point in points(Scenario::ExternalIssuer) {
        let name = name_of(point).replace(['.', '_'], "-");
        let request = proto::CreatePoolRequest { profile: "enrolled".into(), ..pool_request(&name, TARGET) };
        site.crash_at(point, async |site| filled(site, &request).await).await;
        assert_eq!(site.levels(&name).await.generated, 0, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_certificate_for_an_enrolment_server_is_renewed_after_a_crash_at_every_point() {
    let server = EstServer::start(Duration::ZERO).await;
    let (mut site, request) = external_issuers::prepared(&server, Site::prepare_crashing).await;
    let file = site.path().join("est-client.pem");
    let aged = server.aged_client_certificate(&request).await;
    std::fs::write(&file, &aged).unwrap();
    let config = site.config().display().to_string();
    for point in points(Scenario::IssuerClient) {
        site.cli_until(point, &["serve", "--config", &config]).await;
        assert_eq!(std::fs::read_to_string(&file).unwrap(), aged, "{point:?}");
    }
    external_issuers::serve(&mut site).await;
    let renewed = site
        .until("another client certificate", async |_| {
            Some(std::fs::read_to_string(&file).unwrap()).filter(|now| *now != aged)
        })
        .await;
    let chain = certificates_from_pem(renewed.as_bytes()).unwrap();
    let fingerprint = CertificateFacts::parse(&chain[0]).unwrap().fingerprint.to_string();
    // What was recorded and not written is told beside the one that is used.
    let told = site
        .until("both renewals in the log", async |site| {
            Some(site.events("ISSUER_CLIENT_RENEWED").await).filter(|told| told.len() == 2)
        })
        .await;
    assert!(told.iter().any(|event| event["details"]["certificate"] == fingerprint.as_str()), "{told:?}");
    site.full_pool_of("enrolled", "operator-pki", TARGET).await;
    let export = site.export("log").await;
    site.verify(&export, &[]).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn another_brokers_keys_are_certified_once_after_a_crash_at_every_point() {
    let options = Options { est: true, ..Options::default() };
    let mut operator = operator_pki::lending(Site::start_crashing(options).await).await;
    let site = operator_pki::enrolling(&operator, &operator.est_url()).await;
    for point in points(Scenario::Vouched) {
        let name = name_of(point).replace('.', "-");
        let request =
            proto::CreatePoolRequest { profile: operator_pki::PROFILE.into(), ..pool_request(&name, TARGET) };
        let fill = async |operator: &Site| {
            let mut client = PoolServiceClient::new(site.reach("nfvo").await?);
            client.create_pool(request.clone()).await?;
            let begun = Instant::now();
            while site.levels(&name).await.available < u64::from(TARGET) {
                operator.reach("nfvo").await?;
                assert!(begun.elapsed() < PATIENCE, "{name} is not filled");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Ok(())
        };
        operator.crash_at(point, fill).await;
    }
    // No key has two certificates, and nothing was certified that the other broker does not have.
    let serials = "SELECT lower(hex(serial)) FROM certificates ORDER BY 1";
    let of_others =
        "SELECT lower(hex(serial)) FROM certificates JOIN credentials ON credentials.id = credential
                     WHERE key_state = 'EXTERNAL' ORDER BY 1";
    assert_eq!(query(&operator, of_others).await, query(&site, serials).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_goes_on_after_a_crash_at_every_point() {
    let mut site = Site::start_crashing(Options::default()).await;
    for point in points(Scenario::Log) {
        let name = name_of(point).replace(['.', '_'], "-");
        // `crash_at` has the log exported, verified, and held against its head from before.
        site.crash_at(point, async |site| {
            create_pool_once(site.reach("nfvo").await?, &name).await?;
            // Chaining and signing happen by themselves, soon.
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_secs(3) && site.armed() {
                site.reach("nfvo").await?;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Ok(())
        })
        .await;
    }
    create_pool(site.management("nfvo").await, "", "last", VNF, 1, None).await;
    site.export("last").await;
}

/// Found by chance: a broker that died between noting that there is a mirror and making it took its database for rolled back.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_mirror_is_made_after_a_crash_at_every_point() {
    let mut site = Site::prepare_crashing(Options::default());
    site.init().await;
    let config = site.config().display().to_string();
    for point in [Point::MirrorAppended, Point::MirrorFinished] {
        site.cli_until(point, &["serve", "--config", &config]).await;
    }
    site.serve().await;
    site.add_anchor("default", ANCHOR, &site.mano_ca).await;
    site.full_pool("served", 1).await;
    site.register_one("amf-1", &[("transport", "served")], By::Certificate).await.boot(&site).await;
    let mirror = site.path().join("audit-mirror");
    site.verify(&mirror, &[]).await.ok();
    // And from now on it is missed.
    site.stop().await;
    std::fs::remove_dir_all(&mirror).unwrap();
    site.serve().await;
    let metrics = String::from_utf8(site.get(true, "/metrics").await).unwrap();
    assert!(metrics.lines().any(|line| line == "keybroker_rolled_back 1"), "{metrics}");
}

/// Creates a pool unless there is one: each attempt is something to be logged.
async fn create_pool_once(channel: Channel, name: &str) -> Result<(), Status> {
    match PoolServiceClient::new(channel).create_pool(pool_request(name, 1)).await {
        Err(status) if status.code() != tonic::Code::AlreadyExists => Err(status),
        _ => Ok(()),
    }
}
