//! `init`, tenants, CAs.

use super::{Scenario, points};
use crate::hierarchy::Foreign;
use crate::support::crashing::name_of;
use crate::support::mano::{By, request_id};
use crate::support::pkcs11::objects;
use crate::support::process::run;
use crate::support::settlement::query;
use crate::support::site::{ANCHOR, Options, Site};
use keybroker::api::proto;
use keybroker::api::proto::admin_service_client::AdminServiceClient;
use keybroker::ca::{certificates_from_pem, pem};
use keybroker::crash::Point;
use std::collections::BTreeSet;
use std::path::Path;
use tonic::Status;

const POOL: &str = "amf-transport";

/// The keys of CAs and responders on the token, and those that the database names.
async fn assert_no_key_is_left_over(site: &Site) {
    let found = objects(site).await;
    let of_cas = |label: &&str| {
        ["ca:", "ocsp:", "root:"].iter().any(|kind| label["keybroker:".len()..].starts_with(kind))
    };
    let on_token: BTreeSet<String> =
        found.iter().map(|object| object.label()).filter(of_cas).map(str::to_owned).collect();
    let named =
        "SELECT key_object FROM issuers WHERE key_object <> '' UNION SELECT key_object FROM ocsp_responders";
    let named: BTreeSet<String> = query(site, named).await.into_iter().collect();
    assert_eq!(on_token, named, "keys of CAs on the token, and in the database");
}

#[tokio::test(flavor = "multi_thread")]
async fn init_is_completed_after_a_crash_at_every_point() {
    let mut site = Site::prepare_crashing(Options::default());
    // In the order in which they are reached: each run goes on where the one before died.
    let of_init = [
        Point::KeyPairMade,
        Point::RootCertified,
        Point::CaCommitted,
        Point::TenantMacKeyMade,
        Point::TenantCertified,
        Point::IdentityCertified,
    ];
    assert!(points(Scenario::Init).iter().all(|point| of_init.contains(point)));
    let config = site.config().display().to_string();
    for point in of_init {
        site.cli_until(point, &["init", "--config", &config]).await;
    }
    site.init().await;
    site.serve().await;
    site.add_anchor("default", ANCHOR, &site.mano_ca).await;
    site.full_pool(POOL, 1).await;
    site.register_one("amf-1", &[("transport", POOL)], By::Certificate).await.boot(&site).await;
    let export = site.export("log").await;
    site.verify(&export, &[]).await.ok();
    assert_eq!(query(&site, "SELECT count(*) FROM issuers").await, ["2"]);
    let audit_keys = objects(&site).await;
    let audit_keys = audit_keys.iter().filter(|object| object.label().contains(":audit"));
    assert!(audit_keys.count() <= 2, "a private and a public object of one key");
}

#[tokio::test(flavor = "multi_thread")]
async fn cas_are_added_renewed_requested_and_imported_after_a_crash_at_every_point() {
    let directory = tempfile::tempdir().unwrap();
    let foreign = Foreign::make(directory.path()).await;
    let more_toml = format!("[ca]\nroots = [{:?}]\n", foreign.root.display().to_string());
    let mut site = Site::start_crashing(Options { more_toml, ..Options::default() }).await;
    // The request for a certificate leaves its key on the token, as it must.
    let (own, foreign_points): (Vec<_>, Vec<_>) =
        points(Scenario::Authorities).into_iter().partition(|point| {
            !matches!(point, Point::CaRequestSigned | Point::CaRequestCommitted | Point::CaTried)
        });
    // An imported CA is taken into use as an own one is.
    let foreign_points = foreign_points.into_iter().chain([Point::CaCommitted]);
    for new in [true, false] {
        for point in &own {
            let name = name_of(*point).replace(['.', '_'], "-");
            let request = proto::IssueCaRequest {
                request_id: request_id(),
                tenant: "default".into(),
                name,
                new,
                ..Default::default()
            };
            let issue = async |site: &Site| {
                let mut client = AdminServiceClient::new(site.reach("operator").await?);
                let ca = client.issue_ca(request.clone()).await?.into_inner().ca.unwrap();
                super::custody::until_count(
                    site,
                    &format!(
                        "SELECT count(*) FROM ocsp_responders WHERE lower(hex(issuer)) = '{}'",
                        ca.issuer_id.replace('-', "")
                    ),
                    1,
                )
                .await?;
                Ok((ca.issuer_id, ca.name, ca.generation, ca.certificate_der))
            };
            site.crash_at(*point, issue).await;
            assert_no_key_is_left_over(&site).await;
        }
    }
    for point in foreign_points {
        let name = format!("foreign-{}", name_of(point).replace(['.', '_'], "-"));
        let request = proto::RequestCaRequest {
            request_id: request_id(),
            tenant: "default".into(),
            name: name.clone(),
        };
        let csr = site.path().join("ca.csr");
        let ask = async |site: &Site| {
            let mut client = AdminServiceClient::new(site.reach("operator").await?);
            let answer = client.request_ca(request.clone()).await?.into_inner();
            std::fs::write(&csr, pem("CERTIFICATE REQUEST", &answer.request_der)).unwrap();
            // Its signature has a nonce.
            let key = keybroker::ca::request::CaRequest::parse(&answer.request_der).unwrap().public_key_der;
            Ok((answer.generation, key))
        };
        if !matches!(point, Point::CaTried | Point::CaCommitted) {
            site.crash_at(point, ask).await;
            continue;
        }
        ask(&site).await.unwrap();
        let extensions = "basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,keyCertSign,cRLSign\n\
                          subjectKeyIdentifier=hash\n";
        let read = |path| certificates_from_pem(&std::fs::read(path).unwrap()).unwrap().remove(0);
        let request = proto::ImportCaRequest {
            request_id: request_id(),
            tenant: "default".into(),
            name,
            certificate_der: read(foreign.sign(&csr, &name_of(point).replace('.', "-"), extensions).await),
            chain_der: vec![read(foreign.tier.clone())],
            force: false,
        };
        let import = async |site: &Site| {
            let mut client = AdminServiceClient::new(site.reach("operator").await?);
            let ca = client.import_ca(request.clone()).await?.into_inner().ca.unwrap();
            Ok((ca.issuer_id, ca.generation, ca.certificate_der))
        };
        site.crash_at(point, import).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_are_added_after_a_crash_at_every_point() {
    let mut site = Site::start_crashing(Options::default()).await;
    for point in points(Scenario::Tenants) {
        let tenant = name_of(point).replace(['.', '_'], "-");
        let request = proto::AddTenantRequest { request_id: request_id(), tenant: tenant.clone() };
        let add = async |site: &Site| {
            let mut client = AdminServiceClient::new(site.reach("operator").await?);
            Ok::<_, Status>(client.add_tenant(request.clone()).await?.into_inner().tenant.unwrap())
        };
        let added = site.crash_at(point, add).await;
        let mut client = AdminServiceClient::new(site.management("operator").await);
        let listed = client.list_tenants(proto::ListTenantsRequest {}).await.unwrap().into_inner().tenants;
        assert!(listed.contains(&added), "{added:?}: {listed:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ceremony_is_held_again_after_a_crash_at_every_point() {
    // The root's machine: no broker serves on it.
    let mut site = Site::prepare_crashing(Options::default());
    site.init().await;
    let make = "openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -subj '/CN=Sub-CA' -out ca.csr";
    run("sh", ["-c", &format!("cd {} && {make}", site.path().display())]).await.ok();
    let place = |file: &str| site.path().join(file).display().to_string();
    let (config, csr, out, transcript) =
        (place("keybroker.toml"), place("ca.csr"), place("ca.pem"), place("ceremony.json"));
    let sign = ["ca", "sign", "--config", &config, "--csr", &csr, "--out", &out, "--transcript", &transcript];
    let sign = [&sign[..], &["--operator", "alice"]].concat();
    for point in points(Scenario::Ceremonies) {
        site.cli_until(point, &sign).await;
        assert!(!Path::new(&out).exists() && !Path::new(&transcript).exists(), "{point:?}");
    }
    let signed = site.cli(&sign).await.ok().object();
    site.serve().await;
    let export = site.export("log").await;
    site.verify(&export, &[]).await.ok();
    // Also of the certificate that nobody got the log tells, if it was announced.
    let told = site.events("CA_SIGNED").await;
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!(told[1]["details"]["serial"], signed["serial"]);
}
