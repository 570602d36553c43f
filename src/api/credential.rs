//! `CredentialService`: what a VNFCI calls, on the bootstrap and on the VNFCI listener.

use super::error;
use super::gate::{Call, Face, Gate};
use super::parse::{invalid, required, signatures, to_timestamp, token_proof};
use super::proto::{self, credential_service_server::CredentialService};
use crate::authorisation::{Caller, Rpc};
use crate::broker::BrokerError;
use crate::broker::claim::{Claim, SealedClaim, SealedCredential};
use crate::broker::confirm::{Confirm, Confirmation};
use crate::broker::release::Release;
use crate::broker::revocation::TrustChain;
use crate::sealing::{RecipientPoint, RecipientPublicKey, RsaPublicKey, Suite};
use tonic::{Request, Response, Status};

/// The most suites that are read from a claim.
const SUITES_MAX: usize = 16;

/// The service.
pub(super) struct Credentials(pub(super) Gate);

#[tonic::async_trait]
impl CredentialService for Credentials {
    async fn claim(
        &self,
        request: Request<proto::ClaimRequest>,
    ) -> Result<Response<proto::ClaimResponse>, Status> {
        if self.0.face() != Face::Bootstrap {
            return Err(error::not_here("Claim is served by the bootstrap listener (listen.bootstrap)"));
        }
        self.0
            .call_with_evidence("Claim", request, |call, message| async move {
                let claim = parse_claim(&call, message)?;
                let claimed = call.broker.claim(&call.peer, claim).await?;
                let trust_chain_version = call.broker.trust_chain_version(&claimed.tenant);
                Ok(proto::ClaimResponse { trust_chain_version, ..sealed(claimed) })
            })
            .await
    }

    async fn confirm(
        &self,
        request: Request<proto::ConfirmRequest>,
    ) -> Result<Response<proto::ConfirmResponse>, Status> {
        if self.0.face() == Face::Bootstrap {
            self.0
                .call_with_evidence("Confirm", request, |call, message| async move {
                    let confirm = parse_confirm(&call, message)?;
                    call.broker.confirm(&call.peer, confirm).await.map(|done| confirmed(done, 0))
                })
                .await
        } else {
            self.0
                .call(Rpc::Confirm, request, |call, caller, message| async move {
                    let confirm = parse_confirm(&call, message)?;
                    let done = call.broker.confirm_delivered(&caller, confirm).await?;
                    let tenant = caller.tenant.as_ref();
                    let version = tenant.map_or(0, |tenant| call.broker.trust_chain_version(tenant));
                    Ok(confirmed(done, version))
                })
                .await
        }
    }

    async fn renew(
        &self,
        request: Request<proto::RenewRequest>,
    ) -> Result<Response<proto::ClaimResponse>, Status> {
        if self.0.face() == Face::Bootstrap {
            return Err(error::not_here(
                "Renew is served by the VNFCI listener (listen.vnfci), with a delivered certificate",
            ));
        }
        self.0
            .call(Rpc::Renew, request, |call, caller, message| async move {
                let claim = Claim {
                    request: call.request()?,
                    recipient: recipient(
                        &message.recipient_public_key,
                        &message.recipient_rsa_public_key_der,
                    )?,
                    suites: suites(&message.suites)?,
                    token: None,
                };
                let renewed = call.broker.renew(&caller, &call.peer, claim).await?;
                let trust_chain_version = call.broker.trust_chain_version(&renewed.tenant);
                Ok(proto::ClaimResponse { trust_chain_version, ..sealed(renewed) })
            })
            .await
    }

    async fn release(
        &self,
        request: Request<proto::ReleaseRequest>,
    ) -> Result<Response<proto::ReleaseResponse>, Status> {
        if self.0.face() == Face::Bootstrap {
            return Err(error::not_here(
                "Release is served by the VNFCI listener (listen.vnfci), with a delivered certificate",
            ));
        }
        self.0
            .call(Rpc::Release, request, |call, caller, message| async move {
                let release = Release {
                    request: call.request()?,
                    claim: required("claim_id", &message.claim_id)?,
                    signatures: signatures(message.signatures)?,
                };
                let serials = call.broker.release(&caller, release).await?;
                Ok(proto::ReleaseResponse { serials })
            })
            .await
    }

    async fn get_trust_chain(
        &self,
        request: Request<proto::GetTrustChainRequest>,
    ) -> Result<Response<proto::GetTrustChainResponse>, Status> {
        if self.0.face() == Face::Bootstrap {
            self.0
                .call_with_evidence("GetTrustChain", request, |call, _| async move {
                    call.broker.trust_chain_for_peer(&call.peer).await.map(trust_chain)
                })
                .await
        } else {
            self.0
                .call_of_any_vnfci("GetTrustChain", request, |call, caller: Caller, _| async move {
                    let Some(tenant) = &caller.tenant else {
                        return Err(BrokerError::Internal("a VNFCI without a tenant".into()));
                    };
                    let mut chain = trust_chain(call.broker.trust_chain(tenant).await?);
                    let renew_after = call.broker.renew_after_for_peer(&call.peer).await?;
                    chain.renew_after = renew_after.and_then(to_timestamp);
                    Ok(chain)
                })
                .await
        }
    }
}

fn parse_claim(call: &Call, message: proto::ClaimRequest) -> Result<Claim, BrokerError> {
    Ok(Claim {
        request: call.request()?,
        recipient: recipient(&message.recipient_public_key, &message.recipient_rsa_public_key_der)?,
        suites: suites(&message.suites)?,
        token: token_proof(message.token)?,
    })
}

/// The one key that the claim is for. Without an RSA key the point is looked at, so that an empty claim is told the usual.
pub(super) fn recipient(point: &[u8], rsa_der: &[u8]) -> Result<RecipientPublicKey, BrokerError> {
    const RSA: &str = "recipient_rsa_public_key_der";
    match (point, rsa_der) {
        (point, []) => RecipientPoint::parse(point)
            .map(RecipientPublicKey::P256)
            .map_err(|problem| invalid("recipient_public_key", problem)),
        ([], der) => {
            RsaPublicKey::parse(der).map(RecipientPublicKey::Rsa).map_err(|problem| invalid(RSA, problem))
        }
        _ => Err(invalid(RSA, "is given beside recipient_public_key: a claim is for one recipient key")),
    }
}

/// The suites that we know among those that the VNFCI does. What we do not know is passed over: it may be newer.
pub(super) fn suites(names: &[String]) -> Result<Vec<Suite>, BrokerError> {
    if names.len() > SUITES_MAX {
        return Err(invalid("suites", format!("has {} entries; at most {SUITES_MAX}", names.len())));
    }
    let mut known: Vec<Suite> = Vec::new();
    for suite in names.iter().filter_map(|name| name.parse().ok()) {
        if !known.contains(&suite) {
            known.push(suite);
        }
    }
    if known.is_empty() {
        let ours: Vec<&str> = Suite::ALL.iter().map(|suite| suite.as_str()).collect();
        return Err(invalid("suites", format!("names none that the broker knows: {}", ours.join(", "))));
    }
    Ok(known)
}

fn parse_confirm(call: &Call, message: proto::ConfirmRequest) -> Result<Confirm, BrokerError> {
    Ok(Confirm {
        request: call.request()?,
        claim: required("claim_id", &message.claim_id)?,
        signatures: signatures(message.signatures)?,
        token: token_proof(message.token)?,
    })
}

fn confirmed(confirmation: Confirmation, trust_chain_version: u32) -> proto::ConfirmResponse {
    proto::ConfirmResponse {
        newly_confirmed: confirmation.newly_confirmed,
        trust_chain_version,
        renew_after: to_timestamp(confirmation.renew_after),
    }
}

fn sealed(claim: SealedClaim) -> proto::ClaimResponse {
    proto::ClaimResponse {
        claim_id: claim.claim.to_string(),
        vnfci_id: claim.vnfci.into(),
        tenant: claim.tenant.into(),
        suite: claim.suite.to_string(),
        context_request_id: claim.context_request.to_string(),
        credentials: claim.credentials.into_iter().map(sealed_credential).collect(),
        confirm_by: to_timestamp(claim.confirm_by),
        renew_after: to_timestamp(claim.renew_after),
        trust_chain_version: 0,
    }
}

fn sealed_credential(credential: SealedCredential) -> proto::SealedCredential {
    proto::SealedCredential {
        slot: credential.slot.into(),
        credential_id: credential.credential.to_string(),
        certificate_der: credential.certificate_der,
        chain_der: credential.chain_der,
        root_der: credential.root_der,
        hsm_public_key: credential.hsm_point,
        oaep_hash: credential.oaep_hash.map(|hash| hash.to_string()).unwrap_or_default(),
        wrapped_data_key: credential.wrapped_dek,
        wrapped_private_key: credential.wrapped_key,
    }
}

fn trust_chain(chain: TrustChain) -> proto::GetTrustChainResponse {
    proto::GetTrustChainResponse {
        chain_der: chain.chain_der,
        root_der: chain.root_der,
        crl_url: chain.crl_url,
        renew_after: None,
        roots_der: chain.roots_der,
        version: chain.version,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suites_that_are_not_known_are_passed_over_in_the_order_given() {
        let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let parsed =
            suites(&names(&["NEWER", "ECDH_P256_CBCENC_KWP_V1", "ECDH_P256_X963SHA256_KWP"])).unwrap();
        assert_eq!(parsed, [Suite::EcdhP256CbcencKwpV1, Suite::EcdhP256X963Sha256Kwp]);
    }

    #[test]
    fn a_claim_without_a_common_suite_is_told_which_there_are() {
        let error = suites(&["NEWER".to_owned()]).unwrap_err();
        assert!(error.to_string().contains("ECDH_P256_X963SHA256_KWP"), "{error}");
        assert!(suites(&vec!["ECDH_P256_X963SHA256_KWP".to_owned(); 17]).is_err());
    }
}
