//! MANO's, the operator's and the auditor's side.

use super::ca::{Credential, SoftwareCa};
use super::site::{Site, VDU, VNF};
use super::vnfci::{Initial, Vnfci};
use keybroker::api::client::{ClientTls, Connection, connect};
use keybroker::api::proto;
use keybroker::api::proto::admin_service_client::AdminServiceClient;
use keybroker::api::proto::audit_service_client::AuditServiceClient;
use keybroker::api::proto::lifecycle_service_client::LifecycleServiceClient;
use keybroker::api::proto::pool_service_client::PoolServiceClient;
use keybroker::nfv::{RequestId, Sha256Hash};
use proto::initial_credential::Kind;
use proto::x509_initial_credential::Pin;
use serde_json::Value;
use std::collections::BTreeMap;
use tonic::transport::Channel;

/// A tenant beside the default one, with MANO identities of its own.
pub struct Tenant {
    pub name: String,
    /// Issues its identities and initial certificates; anchor `mano`.
    pub ca: SoftwareCa,
    /// By role: nfvo, vnfm and registration-authority (both granted [`VNF`]), auditor, security-operator. Named
    /// ROLE-TENANT.
    pub identities: BTreeMap<&'static str, Credential>,
}

/// How a VNFCI is to prove itself.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// A certificate of the tenant's CA, pinned by its fingerprint.
    Certificate,
    /// A one-time token.
    Token,
}

/// A new request id.
pub fn request_id() -> String {
    RequestId::generate().to_string()
}

impl Site {
    /// A connection of a role of the default tenant to the management listener.
    pub async fn management(&self, role: &str) -> Channel {
        connect(&self.management_url(), &self.role(role)).await.unwrap().channel
    }

    /// A connection with any credential to any listener.
    pub async fn connect(&self, url: &str, credential: &Credential) -> Connection {
        connect(url, &self.tls(credential)).await.unwrap()
    }

    /// A credential with this site's root as trust anchor.
    pub fn tls(&self, credential: &Credential) -> ClientTls {
        ClientTls {
            trust_anchor_pem: std::fs::read(self.root_pem()).unwrap(),
            certificate_chain_der: credential.chain_der.clone(),
            key_der: credential.key_der.clone(),
        }
    }

    pub async fn add_anchor(&self, tenant: &str, name: &str, ca: &SoftwareCa) {
        let request = proto::AddAnchorRequest {
            request_id: request_id(),
            tenant: tenant.into(),
            name: name.into(),
            certificate_der: ca.certificate_der.clone(),
            ..Default::default()
        };
        AdminServiceClient::new(self.management("operator").await).add_anchor(request).await.unwrap();
    }

    /// Registers a client of the management listener.
    pub async fn add_identity(
        &self,
        name: &str,
        role: proto::Role,
        tenant: &str,
        granted: &[&str],
        credential: &Credential,
    ) {
        let request = proto::AddIdentityRequest {
            request_id: request_id(),
            identity: Some(proto::Identity {
                name: name.into(),
                role: role.into(),
                tenant: tenant.into(),
                granted_vnf_instance_ids: granted.iter().map(|&id| id.into()).collect(),
                certificate_der: credential.certificate_der().to_vec(),
                created_at: None,
            }),
            ..Default::default()
        };
        AdminServiceClient::new(self.management("operator").await).add_identity(request).await.unwrap();
    }

    pub async fn remove_identity(&self, name: &str) {
        let request = proto::RemoveIdentityRequest { request_id: request_id(), name: name.into() };
        AdminServiceClient::new(self.management("operator").await).remove_identity(request).await.unwrap();
    }

    /// Adds a tenant with an identity for each of MANO's and security's roles.
    pub async fn add_tenant(&self, name: &str) -> Tenant {
        let request = proto::AddTenantRequest { request_id: request_id(), tenant: name.into() };
        AdminServiceClient::new(self.management("operator").await).add_tenant(request).await.unwrap();
        let ca = SoftwareCa::new(&format!("{name} MANO CA"));
        self.add_anchor(name, "mano", &ca).await;
        let mut identities = BTreeMap::new();
        for (role, proto_role) in [
            ("nfvo", proto::Role::Nfvo),
            ("vnfm", proto::Role::Vnfm),
            ("auditor", proto::Role::Auditor),
            ("security-operator", proto::Role::SecurityOperator),
            ("registration-authority", proto::Role::RegistrationAuthority),
        ] {
            let identity = format!("{role}-{name}");
            let credential = ca.client(&identity);
            let granted: &[&str] =
                if matches!(role, "vnfm" | "registration-authority") { &[VNF] } else { &[] };
            self.add_identity(&identity, proto_role, name, granted, &credential).await;
            identities.insert(role, credential);
        }
        Tenant { name: name.into(), ca, identities }
    }

    /// Creates a pool of [`VNF`] in the default tenant and waits until it is full.
    pub async fn full_pool(&mut self, name: &str, target: u32) {
        self.create_pool(name, target, None).await;
        self.until_available(name, target).await;
    }

    /// Creates a pool of [`VNF`] in the default tenant.
    pub async fn create_pool(&self, name: &str, target: u32, refill_below: Option<u32>) {
        let channel = self.management("nfvo").await;
        create_pool(channel, "", name, VNF, target, refill_below).await;
    }

    /// Creates a pool of [`VNF`] with another profile, and waits until it is full.
    pub async fn full_pool_of(&mut self, profile: &str, name: &str, target: u32) {
        self.create_pool_of(profile, name, target).await;
        self.until_available(name, target).await;
    }

    /// Creates a pool of [`VNF`] in the default tenant with any profile.
    pub async fn create_pool_of(&self, profile: &str, name: &str, target: u32) {
        let pool = proto::CreatePoolRequest { profile: profile.into(), ..pool_request(name, target) };
        PoolServiceClient::new(self.management("nfvo").await).create_pool(pool).await.unwrap();
    }

    /// Installs a profile that says no more than the lines given and what is necessary.
    pub async fn add_profile(&self, name: &str, lines: &str) {
        let subject = "CN={vdu}.{vnf_instance},O=keybroker";
        let toml = format!(
            "issuer = \"sub-ca\"\nsubject = {subject:?}\nsan = [\"uri:urn:uuid:{{credential}}\"]\n{lines}\n"
        );
        let profile = Some(proto::Profile { name: name.into(), toml });
        let request = proto::AddProfileRequest { request_id: request_id(), profile };
        AdminServiceClient::new(self.management("operator").await).add_profile(request).await.unwrap();
    }

    /// Waits until a pool of the default tenant has at least so many ready.
    pub async fn until_available(&mut self, name: &str, ready: u32) {
        self.until("a full pool", async |site| {
            (site.levels(name).await.ready >= u64::from(ready)).then_some(())
        })
        .await;
    }

    /// A pool of the default tenant.
    pub async fn levels(&self, name: &str) -> proto::PoolLevels {
        let request = proto::GetPoolRequest { tenant: String::new(), name: name.into() };
        let answer = PoolServiceClient::new(self.management("nfvo").await).get_pool(request).await.unwrap();
        answer.into_inner().pool.unwrap().levels.unwrap()
    }

    /// Announces VNFCIs of [`VNF`] in the default tenant, each with the given slots (name and pool).
    pub async fn register<S: AsRef<str>>(&self, ids: &[S], slots: &[(&str, &str)], by: By) -> Vec<Vnfci> {
        register(self.management("nfvo").await, "", &self.mano_ca, "mano", ids, slots, by).await
    }

    /// One VNFCI.
    pub async fn register_one(&self, id: &str, slots: &[(&str, &str)], by: By) -> Vnfci {
        self.register(&[id], slots, by).await.remove(0)
    }

    /// A VNFCI of the default tenant as MANO sees it.
    pub async fn vnfci(&self, id: &str) -> proto::Vnfci {
        let request = proto::GetVnfciRequest { tenant: String::new(), vnfci_id: id.into() };
        let mut client = LifecycleServiceClient::new(self.management("nfvo").await);
        client.get_vnfci(request).await.unwrap().into_inner().vnfci.unwrap()
    }

    /// Reports the end of a VNFCI of the default tenant.
    pub async fn terminate_vnfci(&self, id: &str) -> proto::TerminateVnfciResponse {
        let request = proto::TerminateVnfciRequest {
            request_id: request_id(),
            tenant: String::new(),
            vnfci_id: id.into(),
            storage_wiped: false,
        };
        let mut client = LifecycleServiceClient::new(self.management("nfvo").await);
        client.terminate_vnfci(request).await.unwrap().into_inner()
    }

    /// Every chained event of a kind (empty: of all kinds), as JSON.
    pub async fn events(&self, kind: &str) -> Vec<Value> {
        let query = proto::EventQuery { kind: kind.into(), ..Default::default() };
        self.events_that(query).await
    }

    /// Every chained event that matches.
    pub async fn events_that(&self, query: proto::EventQuery) -> Vec<Value> {
        let mut client = AuditServiceClient::new(self.management("auditor").await);
        let mut events = Vec::new();
        let mut next = Some(0);
        while let Some(from_index) = next {
            let request =
                proto::ListEventsRequest { query: Some(query.clone()), from_index, page_size: 1_000 };
            let page = client.list_events(request).await.unwrap().into_inner();
            events.extend(page.events.iter().map(|event| serde_json::from_str(&event.json).unwrap()));
            next = page.next_index;
        }
        events
    }

    /// Waits until a signed head covers every event so far; exports the log into a new directory.
    pub async fn export(&mut self, name: &str) -> std::path::PathBuf {
        let directory = self.path().join(name);
        let out = directory.display().to_string();
        // What was committed before this event is chained before it; the marker itself tells when that is done.
        let marker = self.mark().await;
        self.until("a signed head over the log so far", async |site| {
            if directory.exists() {
                std::fs::remove_dir_all(&directory).unwrap();
            }
            let finished = site.cli_as("auditor", &["audit", "export", "--out", &out]).await;
            // Before the first head there is nothing to export.
            if finished.code == 1 && finished.err.contains("signed head") {
                return None;
            }
            (finished.ok().object()["size"].as_u64().unwrap() > marker).then_some(())
        })
        .await;
        directory
    }

    /// Provokes a refusal and gives its index in the log, once it is chained.
    async fn mark(&mut self) -> u64 {
        let stranger = Credential::self_made("marker");
        let id = request_id();
        let request = proto::RemoveTenantRequest { request_id: id.clone(), tenant: "default".into() };
        let channel = self.connect(&self.management_url(), &stranger).await.channel;
        AdminServiceClient::new(channel).remove_tenant(request).await.unwrap_err();
        self.until("the chaining of an event", async |site| {
            let query = proto::EventQuery { kind: "REFUSED".into(), ..Default::default() };
            let request = proto::ListEventsRequest { query: Some(query), from_index: 0, page_size: 1_000 };
            let mut client = AuditServiceClient::new(site.management("auditor").await);
            let mut next = Some(request);
            while let Some(request) = next.take() {
                let page = client.list_events(request.clone()).await.unwrap().into_inner();
                if let Some(found) = page.events.iter().find(|event| event.json.contains(&id)) {
                    return Some(found.index);
                }
                next = page.next_index.map(|from_index| proto::ListEventsRequest { from_index, ..request });
            }
            None
        })
        .await
    }

    /// `audit verify` of an exported directory.
    pub async fn verify(
        &self,
        directory: &std::path::Path,
        earlier: &[&std::path::Path],
    ) -> super::process::Finished {
        let mut arguments = vec![
            "audit".to_owned(),
            "verify".to_owned(),
            directory.display().to_string(),
            "--public-key".to_owned(),
            self.audit_key().display().to_string(),
        ];
        for head in earlier {
            arguments.extend(["--earlier-head".to_owned(), head.display().to_string()]);
        }
        self.cli(arguments).await
    }

    /// The body of a GET on the HTTP listener (or, with `admin`, the admin listener), which must answer 200.
    pub async fn get(&self, admin: bool, path: &str) -> Vec<u8> {
        let address = if admin { self.addresses.admin } else { self.addresses.http };
        http_get(&format!("http://{address}{path}")).await
    }
}

/// The body of a GET, which must answer 200.
pub async fn http_get(url: &str) -> Vec<u8> {
    let (head, body) = http_exchange(url).await;
    assert!(head.starts_with("HTTP/1.1 200"), "{url}: {head}");
    body
}

/// Head and body of the answer to a GET, whatever it is; a plain HTTP exchange.
pub async fn http_exchange(url: &str) -> (String, Vec<u8>) {
    http_attempt(url).await.unwrap_or_else(|error| panic!("{url}: {error}"))
}

/// The same of a server that may be away.
pub async fn http_attempt(url: &str) -> std::io::Result<(String, Vec<u8>)> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let rest = url.strip_prefix("http://").unwrap();
    let (authority, path) = rest.split_once('/').unwrap();
    let mut stream = tokio::net::TcpStream::connect(authority).await?;
    let request = format!("GET /{path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n");
    let end = end.ok_or(std::io::ErrorKind::UnexpectedEof)?;
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    Ok((head, answer.split_off(end + 4)))
}

/// Creates a pool by any caller; an empty tenant means the caller's own.
pub async fn create_pool(
    channel: Channel,
    tenant: &str,
    name: &str,
    vnf: &str,
    target: u32,
    refill_below: Option<u32>,
) {
    let request = proto::CreatePoolRequest {
        tenant: tenant.into(),
        vnf_instance_id: vnf.into(),
        refill_below,
        ..pool_request(name, target)
    };
    PoolServiceClient::new(channel).create_pool(request).await.unwrap();
}

/// Asks for a pool of [`VNF`] in the caller's tenant with the profile `vnfci-transport`.
pub fn pool_request(name: &str, target: u32) -> proto::CreatePoolRequest {
    proto::CreatePoolRequest {
        request_id: request_id(),
        tenant: String::new(),
        name: name.into(),
        vnf_instance_id: VNF.into(),
        vdu_id: VDU.into(),
        profile: "vnfci-transport".into(),
        target,
        refill_below: None,
    }
}

/// Announces VNFCIs of [`VNF`] by any caller.
pub async fn register<S: AsRef<str>>(
    channel: Channel,
    tenant: &str,
    ca: &SoftwareCa,
    anchor: &str,
    ids: &[S],
    slots: &[(&str, &str)],
    by: By,
) -> Vec<Vnfci> {
    let (vnfcis, announced) = announce(ca, anchor, ids, slots, by);
    let request =
        proto::RegisterVnfcisRequest { request_id: request_id(), tenant: tenant.into(), vnfcis: announced };
    let answer = LifecycleServiceClient::new(channel).register_vnfcis(request).await.unwrap().into_inner();
    registered(vnfcis, answer.results)
}

/// VNFCIs of [`VNF`], and the items of the registration that announces them.
pub fn announce<S: AsRef<str>>(
    ca: &SoftwareCa,
    anchor: &str,
    ids: &[S],
    slots: &[(&str, &str)],
    by: By,
) -> (Vec<Vnfci>, Vec<proto::NewVnfci>) {
    let mut vnfcis = Vec::new();
    let mut announced = Vec::new();
    for id in ids {
        let id = id.as_ref();
        let (credential, kind) = armament(ca, anchor, id, by);
        announced.push(announcement(id, slots, kind, None));
        vnfcis.push(Vnfci::new(id, Initial { credential, token: None }));
    }
    (vnfcis, announced)
}

/// What a VNFCI shows with a new initial credential, and what MANO says of that.
pub fn armament(ca: &SoftwareCa, anchor: &str, id: &str, by: By) -> (Credential, Kind) {
    match by {
        By::Certificate => {
            let credential = ca.client(id);
            let fingerprint = Sha256Hash::of(credential.certificate_der()).0.to_vec();
            let pin = Some(Pin::CertificateSha256(fingerprint));
            let kind = Kind::X509(proto::X509InitialCredential { anchor: anchor.into(), pin });
            (credential, kind)
        }
        By::Token => (Credential::self_made(id), Kind::Token(proto::TokenInitialCredential {})),
    }
}

/// The VNFCIs with the tokens that their registration answered.
pub fn registered(mut vnfcis: Vec<Vnfci>, results: Vec<proto::RegisterResult>) -> Vec<Vnfci> {
    assert_eq!(results.len(), vnfcis.len());
    for (vnfci, result) in vnfcis.iter_mut().zip(results) {
        assert_eq!(result.error, "", "{}", vnfci.id);
        assert_eq!(result.vnfci_id, vnfci.id);
        vnfci.initial.token = (!result.token.is_empty()).then(|| result.token.into());
    }
    vnfcis
}

/// One item of a registration.
pub fn announcement(
    id: &str,
    slots: &[(&str, &str)],
    kind: Kind,
    expires_at: Option<prost_types::Timestamp>,
) -> proto::NewVnfci {
    proto::NewVnfci {
        vnfci_id: id.into(),
        vnf_instance_id: VNF.into(),
        vdu_id: VDU.into(),
        slots: slots
            .iter()
            .map(|(name, pool)| proto::Slot { name: (*name).into(), pool: (*pool).into() })
            .collect(),
        initial_credential: Some(proto::InitialCredential { kind: Some(kind), expires_at }),
    }
}
