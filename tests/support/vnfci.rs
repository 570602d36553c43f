//! A VNFCI in this process: it claims, opens the envelopes, confirms, releases.

use super::ca::Credential;
use super::mano::request_id;
use super::site::Site;
use keybroker::api::client::{self, ConnectError, Connection, FailureClass, connect, describe};
use keybroker::api::proto;
use keybroker::api::proto::credential_service_client::CredentialServiceClient;
use keybroker::ca::CertificateFacts;
use keybroker::identity::confirm::{confirm_message, release_message, sign};
use keybroker::identity::token::{ProofFields, Token};
use keybroker::nfv::{ClaimId, RequestId, Sha256Hash};
use keybroker::sealing::{Binding, Envelope, RecipientKey, Suite, matches_public_key, open};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tonic::{Code, Status};
use zeroize::Zeroizing;

/// What a VNFCI has at boot.
#[derive(Clone)]
pub struct Initial {
    /// The X.509 initial credential, or with a token a self-made certificate.
    pub credential: Credential,
    /// The token's text.
    pub token: Option<Zeroizing<String>>,
}

/// A VNFCI. Cloning it makes a clone of the VM: the same keys.
#[derive(Clone)]
pub struct Vnfci {
    pub id: String,
    pub initial: Initial,
    pub recipient: Arc<RecipientKey>,
}

/// What a claim brought.
pub struct Claimed {
    pub response: proto::ClaimResponse,
    pub recipient_key: Sha256Hash,
    pub keys: Vec<Delivered>,
}

/// One slot's credential, opened and checked.
#[derive(Clone)]
pub struct Delivered {
    pub slot: String,
    pub credential_id: String,
    pub facts: CertificateFacts,
    pub certificate_der: Vec<u8>,
    /// Issuers below the root.
    pub chain_der: Vec<Vec<u8>>,
    pub root_der: Vec<u8>,
    /// PKCS#8, DER.
    pub private_key: Zeroizing<Vec<u8>>,
}

impl Vnfci {
    pub fn new(id: &str, initial: Initial) -> Self {
        let recipient = Arc::new(RecipientKey::generate().unwrap());
        Self { id: id.into(), initial, recipient }
    }

    /// The same VNFCI after a reboot that lost the recipient key.
    pub fn rebooted(&self) -> Self {
        Self::new(&self.id, self.initial.clone())
    }

    /// The same VNFCI with an RSA recipient key in place of the one that it had.
    pub fn with_rsa_key(&self) -> Self {
        let recipient = Arc::new(RecipientKey::generate_rsa().unwrap());
        Self { recipient, ..self.clone() }
    }

    /// A new connection to the bootstrap listener.
    pub async fn connect(&self, site: &Site) -> Result<Connection, ConnectError> {
        connect(&site.bootstrap_url(), &site.tls(&self.initial.credential)).await
    }

    async fn reach(&self, site: &Site) -> Result<Connection, Status> {
        self.connect(site).await.map_err(unreachable)
    }

    /// A claim on a new connection, with a new request id.
    pub async fn claim(&self, site: &Site) -> Result<Claimed, Status> {
        self.claim_as(site, RequestId::generate()).await
    }

    /// A claim on a new connection, with the request id of an earlier one.
    pub async fn claim_as(&self, site: &Site, id: RequestId) -> Result<Claimed, Status> {
        let connection = self.reach(site).await?;
        let request = self.claim_request(&connection, id);
        self.send_claim(&connection, request).await
    }

    /// Claims until the broker is there and has credentials: what a patient VNFCI does.
    pub async fn claim_patiently(&self, site: &Site) -> Claimed {
        let begun = Instant::now();
        loop {
            match self.claim(site).await {
                Ok(claimed) => return claimed,
                Err(status) if transient(&status) && begun.elapsed() < super::PATIENCE => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err(status) => panic!("{}: {status:?}", self.id),
            }
        }
    }

    /// A claim for this connection.
    pub fn claim_request(&self, connection: &Connection, id: RequestId) -> proto::ClaimRequest {
        let proof = self.proof(connection, id, self.recipient_key());
        client::claim_request(id, self.recipient.public_key(), proof)
    }

    /// Sends a claim and opens what comes back.
    pub async fn send_claim(
        &self,
        connection: &Connection,
        request: proto::ClaimRequest,
    ) -> Result<Claimed, Status> {
        let mut client = CredentialServiceClient::new(connection.channel.clone());
        let response = client.claim(request).await?.into_inner();
        Ok(self.open(response))
    }

    /// Opens every envelope; panics unless every key is its certificate's.
    pub fn open(&self, response: proto::ClaimResponse) -> Claimed {
        let suite: Suite = response.suite.parse().unwrap();
        let keys = response.credentials.iter().map(|sealed| {
            let facts = CertificateFacts::parse(&sealed.certificate_der).unwrap();
            let envelope = Envelope {
                suite,
                hsm_point: sealed.hsm_public_key.clone(),
                oaep_hash: sealed.oaep_hash.parse().ok(),
                wrapped_dek: sealed.wrapped_data_key.clone(),
                wrapped_key: sealed.wrapped_private_key.clone(),
            };
            let binding = Binding {
                tenant: response.tenant.parse().unwrap(),
                request: response.context_request_id.parse().unwrap(),
                credential: sealed.credential_id.parse().unwrap(),
                certificate: facts.fingerprint,
            };
            let private_key = open(&self.recipient, &envelope, &binding).unwrap();
            assert!(matches_public_key(&private_key, &facts.public_key_der), "{}", sealed.slot);
            Delivered {
                slot: sealed.slot.clone(),
                credential_id: sealed.credential_id.clone(),
                certificate_der: sealed.certificate_der.clone(),
                chain_der: sealed.chain_der.clone(),
                root_der: sealed.root_der.clone(),
                facts,
                private_key,
            }
        });
        let keys = keys.collect();
        Claimed { recipient_key: self.recipient_key(), keys, response }
    }

    /// Confirms on a new connection by the initial credential; says whether it was newly confirmed.
    pub async fn confirm(&self, site: &Site, claimed: &Claimed) -> Result<bool, Status> {
        let connection = self.reach(site).await?;
        let id = RequestId::generate();
        let request = proto::ConfirmRequest {
            request_id: id.to_string(),
            claim_id: claimed.response.claim_id.clone(),
            signatures: claimed.confirm_signatures(),
            token: self.proof(&connection, id, claimed.recipient_key),
        };
        let mut client = CredentialServiceClient::new(connection.channel);
        Ok(client.confirm(request).await?.into_inner().newly_confirmed)
    }

    /// Claims and confirms.
    pub async fn boot(&self, site: &Site) -> Claimed {
        let claimed = self.claim(site).await.unwrap_or_else(|status| panic!("{}: {status:?}", self.id));
        assert!(self.confirm(site, &claimed).await.unwrap());
        claimed
    }

    /// A renewal by a delivered certificate, on a new connection, with a new request id.
    pub async fn renew(&self, site: &Site, by: &Delivered) -> Result<Claimed, Status> {
        let connection = by.reach(site).await?;
        let request = client::renew_request(RequestId::generate(), self.recipient.public_key());
        let mut client = CredentialServiceClient::new(connection.channel);
        Ok(self.open(client.renew(request).await?.into_inner()))
    }

    /// SHA-256 of the recipient's public key.
    pub fn recipient_key(&self) -> Sha256Hash {
        self.recipient.public_key().hash()
    }

    /// A proof of the token for one connection and request.
    pub fn proof(
        &self,
        connection: &Connection,
        request: RequestId,
        recipient_key: Sha256Hash,
    ) -> Option<proto::TokenProof> {
        let token: Token = self.initial.token.as_ref()?.parse().unwrap();
        let client_key =
            CertificateFacts::parse(self.initial.credential.certificate_der()).unwrap().public_key;
        let fields = ProofFields { exporter: connection.exporter, client_key, request, recipient_key };
        Some(proto::TokenProof { token_id: token.id().to_string(), proof: token.prove(&fields).to_vec() })
    }
}

impl Claimed {
    pub fn claim_id(&self) -> ClaimId {
        self.response.claim_id.parse().unwrap()
    }

    pub fn confirm_signatures(&self) -> Vec<proto::KeySignature> {
        self.sign_all(confirm_message)
    }

    pub fn release_signatures(&self) -> Vec<proto::KeySignature> {
        self.sign_all(release_message)
    }

    fn sign_all(&self, message: fn(ClaimId, Sha256Hash, Sha256Hash) -> Vec<u8>) -> Vec<proto::KeySignature> {
        let signed = |key: &Delivered| {
            let message = message(self.claim_id(), key.facts.fingerprint, self.recipient_key);
            proto::KeySignature {
                slot: key.slot.clone(),
                signature: sign(&key.private_key, &message).unwrap(),
            }
        };
        self.keys.iter().map(signed).collect()
    }

    /// Confirms over the VNFCI listener, by any delivered certificate.
    pub async fn confirm_by(&self, site: &Site, by: &Delivered) -> Result<proto::ConfirmResponse, Status> {
        let connection = by.reach(site).await?;
        let request = proto::ConfirmRequest {
            request_id: request_id(),
            claim_id: self.response.claim_id.clone(),
            signatures: self.confirm_signatures(),
            token: None,
        };
        let mut client = CredentialServiceClient::new(connection.channel);
        Ok(client.confirm(request).await?.into_inner())
    }

    /// Gives everything back, over the VNFCI listener.
    pub async fn release(&self, site: &Site) -> Result<Vec<String>, Status> {
        let connection = self.keys[0].reach(site).await?;
        let request = proto::ReleaseRequest {
            request_id: request_id(),
            claim_id: self.response.claim_id.clone(),
            signatures: self.release_signatures(),
        };
        let mut client = CredentialServiceClient::new(connection.channel);
        Ok(client.release(request).await?.into_inner().serials)
    }
}

impl Delivered {
    /// A new connection to the VNFCI listener.
    async fn reach(&self, site: &Site) -> Result<Connection, Status> {
        connect(&site.vnfci_url(), &site.tls(&self.credential())).await.map_err(unreachable)
    }

    /// What the broker says to a VNFCI with this certificate.
    pub async fn trust_chain(&self, site: &Site) -> Result<proto::GetTrustChainResponse, Status> {
        let connection = self.reach(site).await?;
        let mut client = CredentialServiceClient::new(connection.channel);
        Ok(client.get_trust_chain(proto::GetTrustChainRequest {}).await?.into_inner())
    }

    /// To connect with.
    pub fn credential(&self) -> Credential {
        let mut chain_der = vec![self.certificate_der.clone()];
        chain_der.extend(self.chain_der.iter().cloned());
        Credential { chain_der, key_der: self.private_key.clone() }
    }

    /// The private scalar, 32 bytes big-endian, of a P-256 key.
    pub fn scalar(&self) -> Zeroizing<Vec<u8>> {
        // RFC 5915: ECPrivateKey ::= SEQUENCE { version 1, privateKey OCTET STRING (32) ...
        let marker = [0x02, 0x01, 0x01, 0x04, 0x20];
        let at = self.private_key.windows(marker.len()).position(|window| window == marker).unwrap();
        Zeroizing::new(self.private_key[at + marker.len()..at + marker.len() + 32].to_vec())
    }
}

fn unreachable(error: ConnectError) -> Status {
    Status::unavailable(error.to_string())
}

/// What a client tries again.
pub fn transient(status: &Status) -> bool {
    describe(status).class == FailureClass::Unavailable
        || matches!(status.code(), Code::ResourceExhausted | Code::Cancelled | Code::Unknown)
}
