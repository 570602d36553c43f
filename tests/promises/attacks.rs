//! Every RPC, called for another tenant's things.

use crate::support::ca::{Credential, SoftwareCa};
use crate::support::mano::{announcement, request_id};
use crate::support::site::{ANCHOR, VNF};
use crate::support::vnfci::{Claimed, Vnfci};
use keybroker::api::proto;
use prost::Message;
use prost::bytes::{Buf, BufMut};
use proto::initial_credential::Kind;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Request, Status};

const POOL: &str = "amf-transport";
const SLOTS: [(&str, &str); 1] = [("transport", POOL)];

/// What of the tenant `default` is attacked.
pub(crate) struct Victim {
    pub(crate) claimed: Claimed,
    pub(crate) vnfci: Vnfci,
    pub(crate) issuer: String,
    pub(crate) serial: String,
}

/// Every RPC of our package, SERVICE/METHOD, from the descriptor set.
pub(crate) fn rpcs() -> Vec<String> {
    let set = prost_types::FileDescriptorSet::decode(proto::DESCRIPTORS).unwrap();
    let mut found = Vec::new();
    for file in set.file.iter().filter(|file| file.package() == "keybroker.v1") {
        for service in &file.service {
            let method =
                |method: &prost_types::MethodDescriptorProto| format!("{}/{}", service.name(), method.name());
            found.extend(service.method.iter().map(method));
        }
    }
    assert!(found.len() > 20, "{found:?}");
    found
}

/// The attack by one RPC on the tenant `default`; none for an RPC that has no case yet.
pub(crate) fn attack(rpc: &str, victim: &Victim) -> Option<Vec<u8>> {
    let tenant = || "default".to_owned();
    let vnfci_id = || victim.vnfci.id.clone();
    let name = || POOL.to_owned();
    let token = || Kind::Token(proto::TokenInitialCredential {});
    Some(match rpc {
        "CredentialService/Claim" => proto::ClaimRequest {
            request_id: request_id(),
            recipient_public_key: victim.vnfci.recipient.public_key().as_bytes().to_vec(),
            recipient_rsa_public_key_der: Vec::new(),
            suites: vec![victim.claimed.response.suite.clone()],
            token: None,
        }
        .encode_to_vec(),
        "CredentialService/Confirm" => proto::ConfirmRequest {
            request_id: request_id(),
            claim_id: victim.claimed.response.claim_id.clone(),
            signatures: victim.claimed.confirm_signatures(),
            token: None,
        }
        .encode_to_vec(),
        "CredentialService/Release" => proto::ReleaseRequest {
            request_id: request_id(),
            claim_id: victim.claimed.response.claim_id.clone(),
            signatures: victim.claimed.release_signatures(),
        }
        .encode_to_vec(),
        "CredentialService/Renew" => proto::RenewRequest {
            request_id: request_id(),
            recipient_public_key: victim.vnfci.recipient.public_key().as_bytes().to_vec(),
            recipient_rsa_public_key_der: Vec::new(),
            suites: vec![victim.claimed.response.suite.clone()],
        }
        .encode_to_vec(),
        "CredentialService/GetTrustChain" => proto::GetTrustChainRequest {}.encode_to_vec(),
        "PoolService/CreatePool" => proto::CreatePoolRequest {
            request_id: request_id(),
            tenant: tenant(),
            name: "theirs".into(),
            vnf_instance_id: VNF.into(),
            vdu_id: "x".into(),
            profile: "vnfci-transport".into(),
            target: 1,
            refill_below: None,
        }
        .encode_to_vec(),
        "PoolService/GetPool" => proto::GetPoolRequest { tenant: tenant(), name: name() }.encode_to_vec(),
        "PoolService/ListPools" => {
            proto::ListPoolsRequest { tenant: tenant(), ..Default::default() }.encode_to_vec()
        }
        "PoolService/UpdatePool" => proto::UpdatePoolRequest {
            request_id: request_id(),
            tenant: tenant(),
            name: name(),
            target: 1,
            refill_below: None,
        }
        .encode_to_vec(),
        "PoolService/WatchPool" => proto::WatchPoolRequest { tenant: tenant(), name: name() }.encode_to_vec(),
        "PoolService/DeletePool" => {
            proto::DeletePoolRequest { request_id: request_id(), tenant: tenant(), name: name() }
                .encode_to_vec()
        }
        "LifecycleService/RegisterVnfcis" => proto::RegisterVnfcisRequest {
            request_id: request_id(),
            tenant: tenant(),
            vnfcis: vec![announcement("theirs", &SLOTS, token(), None)],
        }
        .encode_to_vec(),
        "LifecycleService/GetVnfci" => {
            proto::GetVnfciRequest { tenant: tenant(), vnfci_id: vnfci_id() }.encode_to_vec()
        }
        "LifecycleService/ListVnfcis" => {
            proto::ListVnfcisRequest { tenant: tenant(), ..Default::default() }.encode_to_vec()
        }
        "LifecycleService/TerminateVnfci" => proto::TerminateVnfciRequest {
            request_id: request_id(),
            tenant: tenant(),
            vnfci_id: vnfci_id(),
            storage_wiped: false,
        }
        .encode_to_vec(),
        "LifecycleService/RearmVnfcis" => proto::RearmVnfcisRequest {
            request_id: request_id(),
            tenant: tenant(),
            vnfcis: vec![proto::Rearming {
                vnfci_id: vnfci_id(),
                initial_credential: announcement("x", &SLOTS, token(), None).initial_credential,
            }],
        }
        .encode_to_vec(),
        "LifecycleService/RequestRenewal" => proto::RequestRenewalRequest {
            request_id: request_id(),
            tenant: tenant(),
            vnfci_ids: vec![vnfci_id()],
        }
        .encode_to_vec(),
        "LifecycleService/ScaleIn" => proto::ScaleInRequest {
            request_id: request_id(),
            tenant: tenant(),
            vnfci_ids: vec![vnfci_id()],
            storage_wiped: true,
        }
        .encode_to_vec(),
        "LifecycleService/TerminateVnf" => proto::TerminateVnfRequest {
            request_id: request_id(),
            tenant: tenant(),
            vnf_instance_id: VNF.into(),
            expected_count: Some(1),
            storage_wiped: true,
        }
        .encode_to_vec(),
        "LifecycleService/RevokeCertificate" => proto::RevokeCertificateRequest {
            request_id: request_id(),
            tenant: tenant(),
            issuer_id: victim.issuer.clone(),
            serial: victim.serial.clone(),
            reason: proto::RevocationReason::KeyCompromise.into(),
            certificates: Vec::new(),
        }
        .encode_to_vec(),
        "AuditService/ListEvents" => proto::ListEventsRequest {
            query: Some(proto::EventQuery { tenant: tenant(), ..Default::default() }),
            ..Default::default()
        }
        .encode_to_vec(),
        "AuditService/TailEvents" => proto::TailEventsRequest {
            query: Some(proto::EventQuery { tenant: tenant(), ..Default::default() }),
            from_index: Some(0),
        }
        .encode_to_vec(),
        "AuditService/GetCheckpoint" => proto::GetCheckpointRequest {}.encode_to_vec(),
        "AuditService/GetDestructionReceipt" => proto::GetDestructionReceiptRequest {
            tenant: tenant(),
            credential_id: victim.claimed.keys[0].credential_id.clone(),
        }
        .encode_to_vec(),
        "AdminService/AddTenant" => {
            proto::AddTenantRequest { request_id: request_id(), tenant: "theirs".into() }.encode_to_vec()
        }
        "AdminService/ListTenants" => proto::ListTenantsRequest {}.encode_to_vec(),
        "AdminService/RemoveTenant" => {
            proto::RemoveTenantRequest { request_id: request_id(), tenant: tenant() }.encode_to_vec()
        }
        "AdminService/AddAnchor" => proto::AddAnchorRequest {
            request_id: request_id(),
            tenant: tenant(),
            name: "theirs".into(),
            certificate_der: SoftwareCa::new("theirs").certificate_der,
            ..Default::default()
        }
        .encode_to_vec(),
        "AdminService/ListAnchors" => proto::ListAnchorsRequest { tenant: tenant() }.encode_to_vec(),
        "AdminService/UpdateAnchor" => proto::UpdateAnchorRequest {
            request_id: request_id(),
            tenant: tenant(),
            name: ANCHOR.into(),
            crl_policy: proto::CrlPolicy::Require.into(),
            crls_der: Vec::new(),
            issuers_der: Vec::new(),
        }
        .encode_to_vec(),
        "AdminService/RemoveAnchor" => {
            proto::RemoveAnchorRequest { request_id: request_id(), tenant: tenant(), name: ANCHOR.into() }
                .encode_to_vec()
        }
        "AdminService/AddIdentity" => proto::AddIdentityRequest {
            request_id: request_id(),
            identity: Some(proto::Identity {
                name: "theirs".into(),
                role: proto::Role::Nfvo.into(),
                tenant: tenant(),
                certificate_der: Credential::self_made("theirs").certificate_der().to_vec(),
                ..Default::default()
            }),
            ..Default::default()
        }
        .encode_to_vec(),
        "AdminService/ListIdentities" => proto::ListIdentitiesRequest {}.encode_to_vec(),
        "AdminService/RemoveIdentity" => {
            proto::RemoveIdentityRequest { request_id: request_id(), name: "nfvo".into() }.encode_to_vec()
        }
        "AdminService/AddProfile" => proto::AddProfileRequest {
            request_id: request_id(),
            profile: Some(proto::Profile { name: "theirs".into(), toml: "issuer = \"sub-ca\"".into() }),
        }
        .encode_to_vec(),
        "AdminService/ListProfiles" => proto::ListProfilesRequest {}.encode_to_vec(),
        "AdminService/RemoveProfile" => {
            proto::RemoveProfileRequest { request_id: request_id(), name: "vnfci-transport".into() }
                .encode_to_vec()
        }
        "AdminService/ListCas" => proto::ListCasRequest { tenant: tenant() }.encode_to_vec(),
        "AdminService/IssueCa" => proto::IssueCaRequest {
            request_id: request_id(),
            tenant: tenant(),
            name: "theirs".into(),
            new: true,
            ..Default::default()
        }
        .encode_to_vec(),
        "AdminService/RequestCa" => {
            proto::RequestCaRequest { request_id: request_id(), tenant: tenant(), name: "main".into() }
                .encode_to_vec()
        }
        "AdminService/ImportCa" => proto::ImportCaRequest {
            request_id: request_id(),
            tenant: tenant(),
            name: "main".into(),
            certificate_der: SoftwareCa::new("theirs").certificate_der,
            chain_der: Vec::new(),
            force: false,
        }
        .encode_to_vec(),
        "AdminService/GetHsmStatus" => proto::GetHsmStatusRequest {}.encode_to_vec(),
        _ => return None,
    })
}

/// Calls any RPC with an encoded request. A stream's refusal is its status, like any other.
pub(crate) async fn call(channel: Channel, rpc: &str, body: Vec<u8>) -> Result<(), Status> {
    let mut client = Grpc::new(channel);
    client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let path: PathAndQuery = format!("/keybroker.v1.{rpc}").parse().unwrap();
    client.unary(Request::new(body), path, Bytes).await.map(drop)
}

/// Messages as they are.
#[derive(Clone, Copy)]
struct Bytes;

impl Codec for Bytes {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;
    fn encoder(&mut self) -> Self {
        *self
    }
    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;
    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;
    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let bytes = buffer.copy_to_bytes(buffer.remaining());
        Ok(Some(bytes.to_vec()))
    }
}
