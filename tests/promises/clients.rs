//! Goal: a client that is registered by its certificate is judged like everyone else, at registration and at every call: what its
//! CA has withdrawn, or what is no certificate for TLS clients, is served nowhere, and the auditor sees why.
//! Method: identities under MANO's CA, whose CRL comes while their connections are open; certificates as they must not be;
//! curl where our own client would not show them.

use crate::est::{certificates, post, request, sh};
use crate::support::ca::{Credential, Shape, SoftwareCa};
use crate::support::mano::{By, announcement, request_id};
use crate::support::process::openssl;
use crate::support::site::{ANCHOR, Options, Site, VNF};
use keybroker::api::proto;
use keybroker::ca::pem;
use proto::admin_service_client::AdminServiceClient;
use proto::audit_service_client::AuditServiceClient;
use proto::initial_credential::Kind;
use proto::lifecycle_service_client::LifecycleServiceClient;
use serde_json::Value;
use tonic::{Code, Status};

const POOL: &str = "amf-transport";
const SLOTS: [(&str, &str); 1] = [("transport", POOL)];

fn generic(status: &Status) {
    assert_eq!((status.code(), status.message()), (Code::Unauthenticated, "not authenticated"));
}

/// Waits for a refusal with a reason.
async fn refused(site: &mut Site, reason: &str) -> Value {
    site.until("the refusal in the audit log", async |site| {
        let events = site.events("REFUSED").await;
        events.into_iter().find(|event| event["details"]["reason_code"] == reason)
    })
    .await
}

/// `keybroker anchor update` with a CRL.
async fn give_crl(site: &Site, crl: &[u8]) {
    let file = site.path().join("given.crl.pem");
    std::fs::write(&file, pem("X509 CRL", crl)).unwrap();
    let file = file.display().to_string();
    site.cli_as("operator", &["anchor", "update", ANCHOR, "--crl", &file]).await.ok();
}

/// An attempt to register an auditor of the default tenant: what is said against it.
async fn registered(site: &Site, name: &str, certificate_der: &[u8]) -> Result<(), String> {
    let identity = proto::Identity {
        name: name.into(),
        role: proto::Role::Auditor.into(),
        tenant: "default".into(),
        granted_vnf_instance_ids: Vec::new(),
        certificate_der: certificate_der.to_vec(),
        created_at: None,
    };
    let request = proto::AddIdentityRequest {
        request_id: request_id(),
        identity: Some(identity),
        ..Default::default()
    };
    let mut operator = AdminServiceClient::new(site.management("operator").await);
    operator.add_identity(request).await.map(|_| ()).map_err(|status| status.message().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registered_client_that_its_cas_crl_withdraws_is_refused_at_once_on_its_open_connection() {
    let mut site = Site::start().await;
    let (lost, kept) = (site.mano_ca.client("lost"), site.mano_ca.client("kept"));
    registered(&site, "lost", lost.certificate_der()).await.unwrap();
    registered(&site, "kept", kept.certificate_der()).await.unwrap();
    let mut open = AuditServiceClient::new(site.connect(&site.management_url(), &lost).await.channel);
    open.list_events(proto::ListEventsRequest::default()).await.unwrap();

    give_crl(&site, &site.mano_ca.crl(1, 30, &[&lost])).await;
    generic(&open.list_events(proto::ListEventsRequest::default()).await.unwrap_err());
    let mut anew = AuditServiceClient::new(site.connect(&site.management_url(), &lost).await.channel);
    generic(&anew.list_events(proto::ListEventsRequest::default()).await.unwrap_err());
    let mut other = AuditServiceClient::new(site.connect(&site.management_url(), &kept).await.channel);
    other.list_events(proto::ListEventsRequest::default()).await.unwrap();
    let event = refused(&mut site, "CERTIFICATE_REVOKED").await;
    assert_eq!(event["tenant"], "default", "{event}");
    // Nor is it registered again.
    site.remove_identity("lost").await;
    let problem = registered(&site, "lost", lost.certificate_der()).await.unwrap_err();
    assert!(problem.contains("revoked"), "{problem}");
    // Where a CRL is required, one that is over stops everyone under the anchor, and no one else.
    site.cli_as("operator", &["anchor", "update", ANCHOR, "--crl-policy", "require"]).await.ok();
    other.list_events(proto::ListEventsRequest::default()).await.unwrap();
    give_crl(&site, &site.mano_ca.crl(2, 1, &[])).await;
    generic(&other.list_events(proto::ListEventsRequest::default()).await.unwrap_err());
    refused(&mut site, "CERTIFICATE_REVOCATION_UNKNOWN").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_intermediate_that_the_client_leaves_out_hides_no_revocation() {
    let mut site = Site::start().await;
    let below = site.mano_ca.below("below");
    let (file, _) = below.itself().write(site.path(), "below");
    let file = file.display().to_string();
    site.cli_as("operator", &["anchor", "update", ANCHOR, "--ca", &file]).await.ok();
    let mut lost = below.client("lost");
    registered(&site, "lost", lost.certificate_der()).await.unwrap();
    give_crl(&site, &below.crl(1, 30, &[&lost])).await;
    lost.chain_der.truncate(1);
    let mut client = AuditServiceClient::new(site.connect(&site.management_url(), &lost).await.channel);
    generic(&client.list_events(proto::ListEventsRequest::default()).await.unwrap_err());
    refused(&mut site, "CERTIFICATE_REVOKED").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_an_end_entity_of_tls_clients_is_registered() {
    let site = Site::start().await;
    let sha1 = "req -x509 -newkey rsa:2048 -nodes -keyout sha1.key -subj /CN=sha1 -days 9 -sha1 -outform DER -out sha1.der \
                -addext basicConstraints=critical,CA:FALSE";
    openssl(site.path(), sha1).await;
    let sha1 = std::fs::read(site.path().join("sha1.der")).unwrap();
    for (name, certificate, problem) in [
        (
            "server",
            Credential::self_made_of("server", Shape::SERVER_ONLY).certificate_der().to_vec(),
            "usage",
        ),
        (
            "server-below",
            site.mano_ca.issue("server", Shape::SERVER_ONLY).certificate_der().to_vec(),
            "usage",
        ),
        ("ca", SoftwareCa::new("a CA").certificate_der, "no digitalSignature"),
        ("sha1", sha1, "signature"),
        (
            "critical",
            Credential::self_made_of("critical", Shape::UNKNOWN_CRITICAL).certificate_der().to_vec(),
            "critical extension",
        ),
        (
            "early",
            Credential::self_made_of("early", Shape::NOT_YET_VALID).certificate_der().to_vec(),
            "not valid yet",
        ),
    ] {
        let refused = registered(&site, name, &certificate).await.expect_err(name);
        assert!(refused.contains(problem), "{name}: {refused}");
    }
    // One that nobody known issued is an anchor of its own: the operator chose it.
    let pinned = Credential::self_made("pinned");
    registered(&site, "pinned", pinned.certificate_der()).await.unwrap();
    let mut client = AuditServiceClient::new(site.connect(&site.management_url(), &pinned).await.channel);
    client.list_events(proto::ListEventsRequest::default()).await.unwrap();
}

/// An empty gRPC message by curl: the answer's `grpc-status`.
async fn grpc_status(site: &Site, url: &str, method: &str, as_: &str) -> String {
    let script = format!(
        "printf '\\0\\0\\0\\0\\0' | curl -sS --http2 --cacert root.pem --cert {as_}.cert.pem --key {as_}.key.pem -o answer \
         -D - -H 'content-type: application/grpc' -H 'te: trailers' --data-binary @- '{url}/keybroker.v1.{method}'"
    );
    let headers = sh(site.path(), &script).await.ok().out;
    let status = headers.lines().find_map(|line| line.strip_prefix("grpc-status: ")).unwrap_or(&headers);
    status.trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_with_an_unknown_critical_extension_gets_the_generic_answer_and_an_event() {
    let mut site = Site::start_with(Options { est: true, ..Options::default() }).await;
    site.create_pool(POOL, 1, None).await;
    let odd = site.mano_ca.issue("odd", Shape::UNKNOWN_CRITICAL);
    odd.write(site.path(), "odd");
    // As an initial credential: registered by its name, refused by its path.
    let kind = Kind::X509(proto::X509InitialCredential {
        anchor: ANCHOR.into(),
        pin: Some(proto::x509_initial_credential::Pin::Name("cn:odd".into())),
    });
    let request_ = proto::RegisterVnfcisRequest {
        request_id: request_id(),
        tenant: String::new(),
        vnfcis: vec![announcement("odd", &SLOTS, kind, None)],
    };
    let mut nfvo = LifecycleServiceClient::new(site.management("nfvo").await);
    nfvo.register_vnfcis(request_).await.unwrap();
    request(site.path(), "one", "/CN=odd", "").await;
    for tls in ["1.2", "1.3"] {
        let before = site.events("REFUSED").await.len();
        let script = format!(
            "curl -sS --tls-max {tls} --cacert root.pem --cert odd.cert.pem --key odd.key.pem -o /dev/null -w '%{{http_code}}' \
             -H 'Content-Type: application/pkcs10' --data-binary @one.csr.b64 {}/.well-known/est/simpleenroll",
            site.est_url()
        );
        let answer = sh(site.path(), &script).await.ok().out;
        assert!(matches!(answer.as_str(), "401" | "403"), "{answer}");
        site.until("the refusal in the audit log", async |site| {
            (site.events("REFUSED").await.len() > before).then_some(())
        })
        .await;
        refused(&mut site, "CERTIFICATE_EXTENSION_UNKNOWN").await;
    }
    // On the gRPC listeners, where it is nobody's.
    for (url, method) in [
        (site.management_url(), "AuditService/ListEvents"),
        (site.vnfci_url(), "CredentialService/GetTrustChain"),
    ] {
        let before = site.events("REFUSED").await.len();
        assert_eq!(grpc_status(&site, &url, method, "odd").await, "16", "{method}");
        site.until("the refusal in the audit log", async |site| {
            (site.events("REFUSED").await.len() > before).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_on_est_is_judged_like_a_client_of_the_management_listener() {
    let mut site = Site::start_with(Options { est: true, ..Options::default() }).await;
    site.create_pool(POOL, 1, None).await;
    let agent = site.mano_ca.client("agent");
    site.add_identity("agent", proto::Role::Vnfm, "default", &[VNF], &agent).await;
    agent.write(site.path(), "agent");
    site.register(&["amf-1", "amf-2"], &SLOTS, By::Token).await;
    request(site.path(), "one", "/CN=amf-1", "").await;
    request(site.path(), "two", "/CN=amf-2", "").await;
    let (status, text) = post(&site, "agent", "/.well-known/est/simpleenroll", "one.csr.b64").await;
    assert_eq!(status, 200, "{text}");
    give_crl(&site, &site.mano_ca.crl(1, 30, &[&agent])).await;
    let (status, text) = post(&site, "agent", "/.well-known/est/simpleenroll", "two.csr.b64").await;
    assert_eq!(status, 403, "{text}");
    refused(&mut site, "CERTIFICATE_REVOKED").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_servers_certificate_is_no_tls_client_that_re_enrols() {
    let mut site = Site::start_with(Options { est: true, ..Options::default() }).await;
    site.create_pool_of("vnfci-server", "server", 1).await;
    let vnfci = site.register_one("amf-1", &[("server", "server")], By::Certificate).await;
    vnfci.initial.credential.write(site.path(), "initial");
    request(site.path(), "one", "/CN=amf-1", "").await;
    let (status, message) = post(&site, "initial", "/.well-known/est/simpleenroll", "one.csr.b64").await;
    assert_eq!(status, 200, "{message}");
    certificates(site.path(), &message, "one.cert.pem").await;
    let names = "-in one.cert.pem -noout -subject -nameopt compat";
    let subject = sh(site.path(), &format!("openssl x509 {names} | sed 's/^subject=//'")).await.ok().out;
    request(site.path(), "two", subject.trim(), "").await;
    let (status, text) = post(&site, "one", "/.well-known/est/simplereenroll", "two.csr.b64").await;
    assert_eq!(status, 403, "{text}");
    let event = refused(&mut site, "CERTIFICATE_WRONG_USAGE").await;
    assert_eq!(event["vnfci"], "amf-1", "{event}");
}
