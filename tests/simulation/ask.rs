//! What is asked of a broker, and what VNFCIs make of its answers.

use crate::model::{Answered, Asked, Unsealed};
use crate::world::{nfvo, tenant_id};
use keybroker::authorisation::{Caller, Role};
use keybroker::broker::claim::{Claim, SealedClaim, TokenProof};
use keybroker::broker::confirm::SlotSignature;
use keybroker::broker::pools::{CreatePool, UpdatePool};
use keybroker::broker::rearm::Rearm;
use keybroker::broker::vnfcis::{Announcement, Registered};
use keybroker::broker::{Broker, BrokerError, Peer, Request};
use keybroker::ca::CertificateFacts;
use keybroker::credential::RevocationReason;
use keybroker::identity::confirm::sign;
use keybroker::identity::token::{ProofFields, Token};
use keybroker::nfv::{RequestId, Sha256Hash};
use keybroker::sealing::{Binding, Envelope, RecipientKey, Suite, matches_public_key, open};
use keybroker::store::records::{CertificateSelector, InitialCredentialKind, Slot};
use std::sync::Arc;

pub(crate) fn request(id: RequestId, what: &str, body: &[u8]) -> Request {
    Request { id, body: Sha256Hash::of(&[what.as_bytes(), body].concat()) }
}

pub(crate) fn claim_by(peer: &Peer, token: &str, recipient: &RecipientKey, id: RequestId) -> Claim {
    Claim {
        request: request(id, "claim", &recipient.public_key().hash().0),
        recipient: recipient.public_key().clone(),
        suites: Suite::DEFAULT.to_vec(),
        token: Some(proof(peer, token, id, recipient.public_key().hash())),
    }
}

/// A claim that a delivered certificate proves, of fresh credentials.
pub(crate) fn renewal(recipient: &RecipientKey, id: RequestId) -> Claim {
    Claim {
        request: request(id, "renew", &recipient.public_key().hash().0),
        recipient: recipient.public_key().clone(),
        suites: Suite::DEFAULT.to_vec(),
        token: None,
    }
}

pub(crate) fn proof(peer: &Peer, token: &str, request: RequestId, recipient_key: Sha256Hash) -> TokenProof {
    let token: Token = token.parse().unwrap();
    let client_key = CertificateFacts::parse(&peer.chain_der[0]).unwrap().public_key;
    let fields = ProofFields { exporter: peer.exporter, client_key, request, recipient_key };
    TokenProof { id: token.id(), proof: token.prove(&fields) }
}

/// Opens every envelope; panics unless every key is its certificate's.
pub(crate) fn unseal(recipient: &RecipientKey, token: &Arc<str>, sealed: SealedClaim) -> Answered {
    let keys = sealed.credentials.into_iter().map(|one| {
        let facts = CertificateFacts::parse(&one.certificate_der).unwrap();
        let envelope = Envelope {
            suite: sealed.suite,
            hsm_point: one.hsm_point,
            oaep_hash: one.oaep_hash,
            wrapped_dek: one.wrapped_dek,
            wrapped_key: one.wrapped_key,
        };
        let binding = Binding {
            tenant: sealed.tenant.clone(),
            request: sealed.context_request,
            credential: one.credential,
            certificate: facts.fingerprint,
        };
        let private_key = open(recipient, &envelope, &binding).unwrap();
        assert!(matches_public_key(&private_key, &facts.public_key_der), "{}", one.slot);
        Unsealed {
            slot: one.slot,
            credential: one.credential,
            certificate: facts.fingerprint,
            certificate_der: one.certificate_der,
            not_after: facts.not_after,
            private_key,
        }
    });
    Answered {
        claim: sealed.claim,
        recipient_key: recipient.public_key().hash(),
        keys: keys.collect(),
        confirm_by: sealed.confirm_by,
        token: Arc::clone(token),
    }
}

pub(crate) fn signatures(answered: &Answered, message: impl Fn(&Unsealed) -> Vec<u8>) -> Vec<SlotSignature> {
    let signed = |key: &Unsealed| SlotSignature {
        slot: key.slot.clone(),
        signature: sign(&key.private_key, &message(key)).unwrap(),
    };
    answered.keys.iter().map(signed).collect()
}

/// Asks a broker for a mutation; its outcome in words, one per item.
pub(crate) async fn mutate(
    broker: Arc<Broker>,
    id: RequestId,
    asked: Asked,
) -> Result<Vec<String>, BrokerError> {
    let mano = nfvo();
    let request = request(id, "mutation", format!("{asked:?}").as_bytes());
    let registered = |answers: Vec<Registered>| {
        let told = answers.into_iter().map(|answer| match answer {
            Registered::Done(_, token) => token.map(|token| token.to_string()).unwrap_or_default(),
            Registered::Refused(_, problem) => format!("refused: {problem}"),
        });
        told.collect()
    };
    match asked {
        Asked::CreatePool(name, profile, target) => {
            let create = CreatePool {
                request,
                tenant: None,
                name: name.parse().unwrap(),
                vnf_instance: "vnf-1".parse().unwrap(),
                vdu: "vdu-1".parse().unwrap(),
                profile: profile.parse().unwrap(),
                target,
                refill_below: None,
            };
            Ok(vec![broker.create_pool(&mano, create).await?.pool.id.to_string()])
        }
        Asked::ResizePool(name, target) => {
            let name = name.parse().unwrap();
            let update = UpdatePool { request, tenant: None, name, target, refill_below: None };
            Ok(vec![broker.update_pool(&mano, update).await?.pool.target.to_string()])
        }
        Asked::Register(ids, pools) => {
            let slots: Vec<Slot> = pools
                .iter()
                .enumerate()
                .map(|(number, pool)| Slot {
                    name: format!("slot-{number}").parse().unwrap(),
                    pool: pool.parse().unwrap(),
                })
                .collect();
            let announce = |id: &String| {
                Ok(Announcement {
                    id: id.parse().unwrap(),
                    vnf_instance: "vnf-1".parse().unwrap(),
                    vdu: "vdu-1".parse().unwrap(),
                    slots: slots.clone(),
                    initial_credential: InitialCredentialKind::Token,
                    expires_at: None,
                })
            };
            let items = ids.iter().map(announce).collect();
            Ok(registered(broker.register_vnfcis(&mano, request, None, items).await?))
        }
        Asked::Rearm(id) => {
            let item = Rearm {
                id: id.parse().unwrap(),
                initial_credential: InitialCredentialKind::Token,
                expires_at: None,
            };
            Ok(registered(broker.rearm_vnfcis(&mano, request, None, vec![Ok(item)]).await?))
        }
        Asked::Terminate(id) => {
            let ended = broker.terminate_vnfci(&mano, request, None, id.parse().unwrap(), false).await?;
            Ok(vec![format!("{:?} {}", ended.serials, ended.newly_terminated)])
        }
        Asked::ScaleIn(ids) => {
            let items = ids.iter().map(|id| Ok(id.parse().unwrap())).collect();
            let ended = broker.scale_in(&mano, request, None, items, true).await?;
            Ok(ended.iter().map(|one| format!("{one:?}")).collect())
        }
        Asked::Revoke(ids) => {
            let operator = Caller::registered(
                Role::SecurityOperator,
                &"so".parse().unwrap(),
                Some(tenant_id()),
                Vec::new(),
            );
            let selectors = ids.iter().map(|id| CertificateSelector::Vnfci(id.parse().unwrap())).collect();
            let reason = RevocationReason::KeyCompromise;
            broker.revoke_certificates(&operator, request, None, selectors, reason).await?;
            // What was pending is revoked by the time that it is asked again: the counts are not compared.
            Ok(vec!["revoked".into()])
        }
        Asked::RequestRenewal(ids) => {
            let items = ids.iter().map(|id| Ok(id.parse().unwrap())).collect();
            let marked = broker.request_renewal(&mano, request, None, items).await?;
            Ok(marked.iter().map(|one| format!("{one:?}")).collect())
        }
    }
}
