//! What MANO and VNFCIs ask for: registration, claims, confirmations, their ends, enrolment.

use super::{Scenario, points};
use crate::support::PATIENCE;
use crate::support::ca::Credential;
use crate::support::mano::{By, Tenant, announcement, create_pool, register, request_id};
use crate::support::process::run;
use crate::support::settlement::{Held, count, query};
use crate::support::site::{Options, Site, VNF};
use crate::support::vnfci::{Claimed, Initial, Vnfci};
use keybroker::api::client::connect;
use keybroker::api::proto;
use keybroker::api::proto::credential_service_client::CredentialServiceClient;
use keybroker::api::proto::lifecycle_service_client::LifecycleServiceClient;
use keybroker::crash::Point;
use keybroker::nfv::{RequestId, Sha256Hash};
use proto::initial_credential::Kind;
use std::time::{Duration, Instant};
use tonic::Status;

const POOL: &str = "amf-transport";
const SLOTS: [(&str, &str); 2] = [("client", POOL), ("server", POOL)];

/// What a claim brought, as far as it is the same in every answer: its id, credentials and private keys.
type Brought = (String, Vec<(String, Sha256Hash)>);

fn brought(claimed: &Claimed) -> Brought {
    let keys = claimed.keys.iter().map(|key| (key.credential_id.clone(), Sha256Hash::of(&key.private_key)));
    (claimed.response.claim_id.clone(), keys.collect())
}

async fn claim(site: &Site, vnfci: &Vnfci, id: RequestId) -> Result<Claimed, Status> {
    let connection = vnfci.connect(site).await.map_err(|error| Status::unavailable(error.to_string()))?;
    let request = vnfci.claim_request(&connection, id);
    vnfci.send_claim(&connection, request).await
}

async fn confirm(site: &Site, vnfci: &Vnfci, claimed: &Claimed, id: RequestId) -> Result<bool, Status> {
    let connection = vnfci.connect(site).await.map_err(|error| Status::unavailable(error.to_string()))?;
    let request = proto::ConfirmRequest {
        request_id: id.to_string(),
        claim_id: claimed.response.claim_id.clone(),
        signatures: claimed.confirm_signatures(),
        token: vnfci.proof(&connection, id, claimed.recipient_key),
    };
    let mut client = CredentialServiceClient::new(connection.channel);
    Ok(client.confirm(request).await?.into_inner().newly_confirmed)
}

fn token() -> Kind {
    Kind::Token(proto::TokenInitialCredential {})
}

async fn registered(
    site: &Site,
    request: &proto::RegisterVnfcisRequest,
) -> Result<Vec<proto::RegisterResult>, Status> {
    let mut client = LifecycleServiceClient::new(site.reach("nfvo").await?);
    Ok(client.register_vnfcis(request.clone()).await?.into_inner().results)
}

/// A VNFCI with the token that MANO got for it.
fn with_token(id: &str, token: &str) -> Vnfci {
    let initial = Initial { credential: Credential::self_made(id), token: Some(token.to_owned().into()) };
    Vnfci::new(id, initial)
}

#[tokio::test(flavor = "multi_thread")]
async fn vnfcis_are_registered_armed_and_served_after_a_crash_at_every_point() {
    let mut site = Site::start_crashing(Options::default()).await;
    site.full_pool(POOL, 8).await;
    let mut held = Held::default();
    for point in points(Scenario::Claims) {
        let id = format!("amf-{point:?}");
        let request = proto::RegisterVnfcisRequest {
            request_id: request_id(),
            tenant: String::new(),
            vnfcis: vec![announcement(&id, &SLOTS, token(), None)],
        };
        let vnfci = match point {
            Point::RegistrationCommitted | Point::TokenComputed | Point::WorkerMac => {
                let results = site.crash_at(point, async |site| registered(site, &request).await).await;
                with_token(&id, &results[0].token)
            }
            Point::RearmingCommitted => {
                let results = registered(&site, &request).await.unwrap();
                let before = with_token(&id, &results[0].token);
                before.boot(&site).await;
                let rearming = proto::Rearming {
                    vnfci_id: id.clone(),
                    initial_credential: Some(proto::InitialCredential {
                        kind: Some(token()),
                        expires_at: None,
                    }),
                };
                let request = proto::RearmVnfcisRequest {
                    request_id: request_id(),
                    tenant: String::new(),
                    vnfcis: vec![rearming],
                };
                let rearm = async |site: &Site| {
                    let mut client = LifecycleServiceClient::new(site.reach("nfvo").await?);
                    Ok(client.rearm_vnfcis(request.clone()).await?.into_inner().results)
                };
                let results = site.crash_at(point, rearm).await;
                with_token(&id, &results[0].token)
            }
            _ => {
                let results = registered(&site, &request).await.unwrap();
                let vnfci = with_token(&id, &results[0].token);
                let request = RequestId::generate();
                let brought = site
                    .crash_at(point, async |site| Ok(brought(&claim(site, &vnfci, request).await?)))
                    .await;
                let again = claim(&site, &vnfci, RequestId::generate()).await.unwrap();
                assert_eq!(self::brought(&again), brought, "another request of the same recipient key");
                vnfci
            }
        };
        // What was promised works.
        let claimed = vnfci.claim(&site).await.unwrap();
        held.unsealed(&vnfci.id, &claimed);
        assert!(vnfci.confirm(&site, &claimed).await.unwrap());
    }
    let claims = count(&site, "SELECT count(*) FROM claims WHERE state = 'CONFIRMED'").await;
    // The re-armed one's first claim is superseded.
    assert!(claims >= points(Scenario::Claims).len() as u64, "{claims}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_issued_at_the_claim_is_issued_once_after_a_crash_at_every_point() {
    let mut site = Site::start_crashing(Options::default()).await;
    site.full_pool_of("vnfci-named", POOL, 6).await;
    for point in points(Scenario::ClaimsAtClaim) {
        let id = format!("amf-{point:?}").to_lowercase();
        let vnfci = site.register_one(&id, &SLOTS, By::Certificate).await;
        let request = RequestId::generate();
        site.crash_at(point, async |site| Ok(brought(&claim(site, &vnfci, request).await?))).await;
        let claimed = vnfci.claim(&site).await.unwrap();
        // The serial number that the intent announced, of the one certificate that the key has.
        for key in &claimed.keys {
            let sql = format!(
                "SELECT lower(hex(serial)) FROM certificates WHERE hex(credential) = '{}'",
                key.credential_id.replace('-', "").to_uppercase()
            );
            assert_eq!(query(&site, &sql).await, [hex::encode(&key.facts.serial)]);
        }
        assert!(vnfci.confirm(&site, &claimed).await.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn confirmations_are_acknowledged_after_a_crash_at_every_point() {
    let mut site = Site::start_crashing(Options::default()).await;
    site.full_pool(POOL, 8).await;
    for by in [By::Certificate, By::Token] {
        for point in points(Scenario::Confirmations) {
            let kind = if by == By::Token { "token" } else { "x509" };
            let vnfci = site.register_one(&format!("amf-{kind}-{point:?}"), &SLOTS, by).await;
            let claimed = vnfci.claim(&site).await.unwrap();
            let request = RequestId::generate();
            // Acknowledged is acknowledged; whether it was so before is told besides.
            site.crash_at(point, async |site| confirm(site, &vnfci, &claimed, request).await.map(drop)).await;
            assert!(!confirm(&site, &vnfci, &claimed, RequestId::generate()).await.unwrap());
            let shown = site.vnfci(&vnfci.id).await;
            assert_eq!(shown.initial_credential_state, "SPENT");
            assert!(shown.credentials.iter().all(|one| one.key_state == "DELIVERED"), "{shown:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_renewed_is_renewed_once_after_a_crash_at_every_point() {
    let overlap = |overlap: &str| format!("renewal_overlap = {overlap:?}\n");
    let mut site = Site::start_crashing(Options { more_toml: overlap("1h"), ..Options::default() }).await;
    site.full_pool(POOL, 8).await;
    for point in [
        Point::RenewalRequested,
        Point::ClaimDrawn,
        Point::ClaimSealed,
        Point::WorkerSealed,
        Point::ConfirmVerified,
        Point::ConfirmCommitted,
    ] {
        let vnfci = site.register_one(&format!("amf-{point:?}"), &SLOTS, By::Certificate).await;
        let held = vnfci.boot(&site).await;
        let by = held.keys[0].clone();
        let renewer = vnfci.rebooted();
        match point {
            Point::RenewalRequested => {
                let request = proto::RequestRenewalRequest {
                    request_id: request_id(),
                    tenant: String::new(),
                    vnfci_ids: vec![vnfci.id.clone()],
                };
                let ask = async |site: &Site| {
                    let mut client = LifecycleServiceClient::new(site.reach("nfvo").await?);
                    Ok(client.request_renewal(request.clone()).await?.into_inner().results)
                };
                site.crash_at(point, ask).await;
            }
            // A renewal goes through the points of a claim and of its confirmation.
            Point::ClaimDrawn | Point::ClaimSealed | Point::WorkerSealed => {
                let renew = async |site: &Site| Ok(brought(&renewer.renew(site, &by).await?));
                let first = site.crash_at(point, renew).await;
                assert_eq!(brought(&renewer.renew(&site, &by).await.unwrap()), first, "{point:?}");
            }
            _ => {
                let renewed = renewer.renew(&site, &by).await.unwrap();
                site.crash_at(point, async |site| renewed.confirm_by(site, &by).await.map(drop)).await;
            }
        }
        if !matches!(point, Point::ConfirmVerified | Point::ConfirmCommitted) {
            let renewed = renewer.renew(&site, &by).await.unwrap();
            assert!(renewed.confirm_by(&site, &by).await.unwrap().newly_confirmed);
        }
        let shown = site.vnfci(&vnfci.id).await.credentials;
        let of_state = |state| shown.iter().filter(|one| one.certificate_state == state).count();
        assert_eq!(
            (of_state("VALID"), of_state("SUPERSEDED"), shown.len()),
            (2, 2, 4),
            "{point:?}: {shown:?}"
        );
    }

    // What an overlap leaves is withdrawn once it has ended.
    site.options.more_toml = overlap("1s");
    site.write_config();
    site.kill_and_restart().await;
    let vnfci = site.register_one("amf-ending", &SLOTS, By::Certificate).await;
    let held = vnfci.boot(&site).await;
    let by = held.keys[0].clone();
    let renewed = vnfci.rebooted().renew(&site, &by).await.unwrap();
    site.crash_after(Point::OverlapEnded, async |site| renewed.confirm_by(site, &by).await.unwrap()).await;
    let serials = held.keys.iter().map(|key| hex::encode(&key.facts.serial)).collect::<Vec<_>>();
    site.until("the end of what was replaced", async |site| {
        let revoked = "SELECT lower(hex(serial)) FROM certificates WHERE state = 'REVOKED'";
        let revoked = query(site, revoked).await;
        (revoked.len() == serials.len() && serials.iter().all(|serial| revoked.contains(serial)))
            .then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absence_counts_once_although_the_broker_dies_while_it_starts() {
    const ABSENCE: i64 = 3_600;
    let mut site = Site::start_crashing(Options::default()).await;
    site.full_pool(POOL, 2).await;
    let vnfci = site.register_one("amf-0001", &SLOTS, By::Certificate).await;
    let claimed = vnfci.claim(&site).await.unwrap();
    let deadline = async |site: &Site| -> i64 {
        query(site, "SELECT deadline FROM claims").await[0].parse::<i64>().unwrap() / 1_000_000
    };
    let before = deadline(&site).await;
    site.stop().await;
    let earlier = format!(
        "UPDATE marks SET value = CAST(CAST(value AS INTEGER) - {} AS TEXT) WHERE name = 'last_alive'",
        ABSENCE * 1_000_000
    );
    run("sqlite3", [site.database().display().to_string(), earlier]).await.ok();
    let config = site.config().display().to_string();
    for point in points(Scenario::Start) {
        site.cli_until(point, &["serve", "--config", &config]).await;
    }
    let moved = deadline(&site).await - before;
    assert!((ABSENCE..2 * ABSENCE).contains(&moved), "by {moved} s");
    site.serve().await;
    let moved = deadline(&site).await - before;
    assert!((ABSENCE..2 * ABSENCE).contains(&moved), "counted twice: by {moved} s");
    assert!(vnfci.confirm(&site, &claimed).await.unwrap());
}

/// Waits until everything that a VNFCI was drawn is destroyed.
async fn until_destroyed(site: &Site, tenant: &Tenant, id: &str) -> Result<Vec<String>, Status> {
    let begun = Instant::now();
    loop {
        let connected = connect(&site.management_url(), &site.tls(&tenant.identities["nfvo"])).await;
        let channel = connected.map_err(|error| Status::unavailable(error.to_string()))?.channel;
        let request = proto::GetVnfciRequest { tenant: String::new(), vnfci_id: id.into() };
        let shown =
            LifecycleServiceClient::new(channel).get_vnfci(request).await?.into_inner().vnfci.unwrap();
        if shown.credentials.iter().all(|one| one.key_state == "DESTROYED") {
            return Ok(shown.credentials.into_iter().map(|one| one.credential_id).collect());
        }
        assert!(begun.elapsed() < PATIENCE, "{shown:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ends_is_ended_once_after_a_crash_at_every_point() {
    let more_toml = "[tenant.hasty]\nconfirm_deadline = \"2s\"\n".to_owned();
    let mut site = Site::start_crashing(Options { more_toml, ..Options::default() }).await;
    site.full_pool(POOL, 4).await;
    for point in points(Scenario::Endings) {
        let id = format!("amf-{point:?}");
        match point {
            Point::ClaimDestroyed => {
                let tenant = site.add_tenant("hasty").await;
                let channel = site.connect(&site.management_url(), &tenant.identities["nfvo"]).await.channel;
                create_pool(channel.clone(), "", POOL, VNF, 2, None).await;
                let ids = [id.clone()];
                let vnfcis = register(channel, "", &tenant.ca, "mano", &ids, &SLOTS, By::Certificate).await;
                let claimed =
                    site.crash_after(point, async |site| vnfcis[0].claim_patiently(site).await).await;
                let ended = until_destroyed(&site, &tenant, &id).await.unwrap();
                assert_eq!(ended.len(), claimed.keys.len());
                assert!(vnfcis[0].confirm(&site, &claimed).await.is_err(), "too late");
            }
            Point::ReleaseCommitted => {
                let vnfci = site.register_one(&id, &SLOTS, By::Certificate).await;
                let claimed = vnfci.boot(&site).await;
                let request = proto::ReleaseRequest {
                    request_id: request_id(),
                    claim_id: claimed.response.claim_id.clone(),
                    signatures: claimed.release_signatures(),
                };
                let release = async |site: &Site| {
                    let connected =
                        connect(&site.vnfci_url(), &site.tls(&claimed.keys[0].credential())).await;
                    let channel = connected.map_err(|error| Status::unavailable(error.to_string()))?.channel;
                    let mut client = CredentialServiceClient::new(channel);
                    Ok(client.release(request.clone()).await?.into_inner().serials)
                };
                assert_eq!(site.crash_at(point, release).await.len(), 2);
            }
            _ => {
                let vnfci = site.register_one(&id, &SLOTS, By::Certificate).await;
                vnfci.boot(&site).await;
                let request = proto::TerminateVnfciRequest {
                    request_id: request_id(),
                    tenant: String::new(),
                    vnfci_id: id,
                    storage_wiped: true,
                };
                let terminate = async |site: &Site| {
                    let mut client = LifecycleServiceClient::new(site.reach("nfvo").await?);
                    Ok(client.terminate_vnfci(request.clone()).await?.into_inner())
                };
                let ended = site.crash_at(point, terminate).await;
                assert_eq!((ended.serials.len(), ended.newly_terminated), (2, true));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn own_keys_are_certified_once_after_a_crash_at_every_point() {
    // Spent with the last answer, an initial credential would not get it again: then MANO re-arms the VNFCI (docs/est.md).
    let more_toml = "spend_on_enrolment = false".to_owned();
    let mut site = Site::start_crashing(Options { est: true, more_toml, ..Options::default() }).await;
    site.create_pool(POOL, 1, None).await;
    for point in points(Scenario::Enrolment) {
        let id = format!("amf-{point:?}");
        let vnfci = site.register_one(&id, &[("transport", POOL)], By::Certificate).await;
        vnfci.initial.credential.write(site.path(), "initial");
        let directory = site.path().display().to_string();
        let make = format!(
            "cd {directory} && openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
             -keyout own.key.pem -subj '/CN={id}' -outform DER -out own.csr && openssl base64 -in own.csr -out own.b64"
        );
        run("sh", ["-c", &make]).await.ok();
        let enrol = async |site: &Site| match est_post(site, "simpleenroll", "own.b64").await {
            Ok((status, body)) if status == "200" => Ok(body),
            Ok(refused) => panic!("{refused:?}"),
            Err(error) => Err(Status::unavailable(error)),
        };
        site.crash_at(point, enrol).await;
        let shown = site.vnfci(&id).await;
        assert_eq!(shown.credentials.len(), 1, "{shown:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_the_broker_opened_is_given_out_once_or_never_after_a_crash_at_every_point() {
    let more_toml = "est_server_key_generation = true".to_owned();
    let mut site = Site::start_crashing(Options { est: true, more_toml, ..Options::default() }).await;
    site.full_pool(POOL, 8).await;
    let directory = site.path().display().to_string();
    let make = format!(
        "cd {directory} && openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout any.key.pem \
         -subj '/CN=any' -outform DER | openssl base64 -out any.b64"
    );
    run("sh", ["-c", &make]).await.ok();
    // (status, empty if there was no answer; whether there is a key in the answer)
    let ask = async |site: &Site| -> (String, bool) {
        let (status, body) = est_post(site, "serverkeygen", "any.b64").await.unwrap_or_default();
        (status, body.contains("application/pkcs8"))
    };
    for (point, after) in [
        (Point::ClaimDrawn, ("200", true)),
        (Point::ClaimSealed, ("200", true)),
        (Point::ConfirmVerified, ("200", true)),
        // It is spent, and nobody has the key: MANO re-arms the VNFCI (docs/est.md).
        (Point::ConfirmCommitted, ("403", false)),
    ] {
        let id = format!("amf-{point:?}");
        let vnfci = site.register_one(&id, &[("transport", POOL)], By::Certificate).await;
        vnfci.initial.credential.write(site.path(), "initial");
        let cut_off = site.crash_after(point, ask).await;
        assert_eq!(cut_off, (String::new(), false), "{point:?}");
        assert_eq!(ask(&site).await, (after.0.to_owned(), after.1), "{point:?}");
        assert_eq!(ask(&site).await, ("403".to_owned(), false), "{point:?}");
        let shown = site.vnfci(&id).await;
        let delivered = shown.credentials.iter().filter(|one| one.key_state == "DELIVERED").count();
        assert_eq!((shown.state(), delivered), (proto::VnfciState::Active, 1), "{point:?}: {shown:?}");
    }
}

/// What the EST server answers `curl` with the initial credential that lies in the site's directory: status and body, or what
/// `curl` says where there is no answer.
async fn est_post(site: &Site, operation: &str, request: &str) -> Result<(String, String), String> {
    let post = format!(
        "cd {} && curl -sS --cacert root.pem --cert initial.cert.pem --key initial.key.pem --data-binary @{request} \
         -H 'Content-Type: application/pkcs10' -w '\\n%{{http_code}}' '{}/.well-known/est/{operation}'",
        site.path().display(),
        site.est_url()
    );
    let answer = run("sh", ["-c", &post]).await;
    let (body, status) = answer.out.rsplit_once('\n').unwrap_or_default();
    if answer.code == 0 { Ok((status.to_owned(), body.to_owned())) } else { Err(answer.err) }
}
