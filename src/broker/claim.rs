//! A VNFCI claims all its slots (ETSI GR NFV-SEC 005 8.1.2.3, steps 9 to 13).
//!
//! 1. Verify the initial credential.
//! 2. Agree on a sealing suite.
//! 3. Draw a credential for every slot, bind them to the recipient key and record the intent: one commit. From an empty
//!    pool whose profile generates, what is lacking is produced first (`generate`).
//! 4. Have certificates signed that are issued at the claim, and record them: a second commit (`at_claim`).
//! 5. Seal the keys inside the HSM.
//! 6. Answer. The answer is never stored: the same recipient key gets it sealed again.

use crate::audit::details::{self, ClaimDetails, ClaimedSlot, ErasedDetails, FailedDetails, IntentDetails};
use crate::audit::event::{Actor, Event, EventKind};
use crate::audit::receipt::DestructionReason;
use crate::broker::confirm::vnfci_actor;
use crate::broker::notes::{self, Delivery};
use crate::broker::{Broker, BrokerError, Peer, Request};
use crate::clock::Timestamp;
use crate::crash::{self, Point};
use crate::credential::HolderCopy;
use crate::hsm::{HsmError, ObjectId, SealItem, SealRequest, SealedKey, WrappedKey};
use crate::identity::token::{ProofFields, Token, secret_input};
use crate::identity::{Purpose, Refusal, Verified, token, x509};
use crate::nfv::{
    ClaimId, CredentialId, InitialCredentialId, RequestId, Sha256Hash, SlotName, TenantId, VnfciId,
};
use crate::sealing::{OaepHash, RecipientPublicKey, Suite};
use crate::store::Mutation;
use crate::store::records::{
    ClaimOutcome, ClaimRecord, ClaimRequest, ClaimedCertificate, ClaimedCredential, DestroyedKeys, Renewal,
};
use tracing::{Instrument, Span, trace_span};

/// New recipient keys that one arming may present before its claim is confirmed.
pub(super) const REDRAWS_ALLOWED: u32 = 3;
/// Times that a claim produces what its pools lack: other claimers may draw it first.
const GENERATE_ATTEMPTS: u32 = 5;
/// Readings of a claim whose keys were re-wrapped between reading and sealing.
const SEAL_ATTEMPTS: u32 = 3;

/// The proof of a one-time token, from the request.
#[derive(Debug, Clone)]
pub struct TokenProof {
    /// The token's id.
    pub id: InitialCredentialId,
    /// HMAC-SHA-256, as `identity::token` defines it.
    pub proof: [u8; 32],
}

/// A claim as it arrived.
#[derive(Debug, Clone)]
pub struct Claim {
    /// The request.
    pub request: Request,
    /// The VNFCI's ephemeral public key.
    pub recipient: RecipientPublicKey,
    /// Suites that the VNFCI understands, preferred first.
    pub suites: Vec<Suite>,
    /// With a one-time token.
    pub token: Option<TokenProof>,
}

/// For whom credentials are drawn. Established by an initial credential, or by a delivered certificate to be renewed.
pub(super) struct Claimant {
    pub(super) tenant: TenantId,
    pub(super) vnfci: VnfciId,
    /// The arming to which the credentials belong.
    pub(super) initial_credential: InitialCredentialId,
    /// What is renewed, if a delivered certificate was presented.
    pub(super) renews: Option<Renewal>,
    /// How the keys are passed on, if the recipient key is the broker's own; for the log.
    pub(super) delivered_by: Option<&'static str>,
}

impl From<&Verified> for Claimant {
    fn from(verified: &Verified) -> Self {
        Self {
            tenant: verified.tenant().clone(),
            vnfci: verified.vnfci().clone(),
            initial_credential: verified.credential(),
            renews: None,
            delivered_by: None,
        }
    }
}

/// One slot's credential, sealed.
#[derive(Debug, Clone)]
pub struct SealedCredential {
    /// The slot.
    pub slot: SlotName,
    /// Our id.
    pub credential: CredentialId,
    /// The certificate, DER.
    pub certificate_der: Vec<u8>,
    /// Issuers below the root, DER, the leaf's issuer first.
    pub chain_der: Vec<Vec<u8>>,
    /// The root, DER.
    pub root_der: Vec<u8>,
    /// The HSM's point, 65 bytes; empty with `RSA_AES_KEY_WRAP`.
    pub hsm_point: Vec<u8>,
    /// With `RSA_AES_KEY_WRAP` only.
    pub oaep_hash: Option<OaepHash>,
    /// KWP of the DEK under the agreed key, or RSAES-OAEP of it.
    pub wrapped_dek: Vec<u8>,
    /// KWP of the PKCS#8 under the DEK, without the version byte.
    pub wrapped_key: Vec<u8>,
}

/// The answer to a claim. Never stored, never logged.
#[derive(Debug, Clone)]
pub struct SealedClaim {
    /// The claim.
    pub claim: ClaimId,
    /// Whose.
    pub tenant: TenantId,
    /// For whom.
    pub vnfci: VnfciId,
    /// The suite of every envelope.
    pub suite: Suite,
    /// The request id in every envelope's context.
    pub context_request: RequestId,
    /// One per slot.
    pub credentials: Vec<SealedCredential>,
    /// By when to confirm.
    pub confirm_by: Timestamp,
    /// From when on they are to be renewed.
    pub renew_after: Timestamp,
}

impl Broker {
    /// See the module.
    ///
    /// # Errors
    /// [`BrokerError::Refused`] (the caller learns nothing of the reason), [`BrokerError::PoolEmpty`],
    /// [`BrokerError::Invalid`] without a common suite, [`BrokerError::Unavailable`].
    pub async fn claim(&self, peer: &Peer, claim: Claim) -> Result<SealedClaim, BrokerError> {
        // 1. Verify the initial credential.
        let verified = self
            .verify_initial_credential(
                peer,
                claim.token.as_ref(),
                claim.request.id,
                claim.recipient.hash(),
                Purpose::Claim,
            )
            .instrument(trace_span!("1 verify initial credential"))
            .await?;
        Span::current().record("tenant", verified.tenant().as_str());
        self.draw_and_seal(&Claimant::from(&verified), claim).await
    }

    /// Steps 2 to 6, for whom step 1 has established.
    pub(super) async fn draw_and_seal(
        &self,
        claimant: &Claimant,
        claim: Claim,
    ) -> Result<SealedClaim, BrokerError> {
        self.may_deliver()?;
        crash::reached(Point::ClaimVerified);
        let _place = self.place_to_claim(&claimant.tenant).await?;
        // 2. Agree on a sealing suite.
        let suite = trace_span!("2 agree on suite")
            .in_scope(|| self.agree_on_suite(&claimant.tenant, &claim.recipient, &claim.suites))?;
        // 3. Draw, bind, record.
        let mut record =
            self.reserve(claimant, &claim, suite).instrument(trace_span!("3 draw, bind, record")).await?;
        crash::reached(Point::ClaimDrawn);
        // 4. Have signed.
        if let Err(error) = self.certify_claim(&mut record).instrument(trace_span!("4 have signed")).await {
            return Err(self.record_failure(&record, "sign", error).await);
        }
        // 5. Seal. 6. Answer.
        match self.seal(&record, suite, &claim.recipient).instrument(trace_span!("5 seal")).await {
            Ok(sealed) => {
                crash::reached(Point::ClaimSealed);
                let answer = self.answer(record, suite, sealed).instrument(trace_span!("6 answer")).await?;
                // Another database may have taken the place of the one that this was committed to.
                self.no_doubt()?;
                Ok(answer)
            }
            Err(error) => Err(self.record_failure(&record, "seal", error).await),
        }
    }

    /// Judges the initial credential that a peer presents: a token's proof, or else its client certificate.
    pub(super) async fn verify_initial_credential(
        &self,
        peer: &Peer,
        proof: Option<&TokenProof>,
        request: RequestId,
        recipient_key: Sha256Hash,
        purpose: Purpose,
    ) -> Result<Verified, BrokerError> {
        let now = self.store.now().await?;
        let Some(proof) = proof else {
            let evidence = x509::verify(&peer.chain_der, &self.x509_anchors().await?, now)?;
            // Before it is looked for: a database that is not the latest may not have it yet.
            self.no_doubt()?;
            let names: Vec<String> = evidence.names().iter().map(ToString::to_string).collect();
            let mut registered = Vec::new();
            for anchor in evidence.anchors() {
                let found = self
                    .store
                    .initial_credentials_x509(evidence.tenant(), anchor, evidence.fingerprint(), &names)
                    .await?;
                registered.extend(found);
            }
            let matched = x509::match_registration(&evidence, &registered, purpose, now);
            let vnfci = registered.first().map(|credential| &credential.vnfci);
            return matched
                .map_err(|refusal| BrokerError::from(refusal).concerning(evidence.tenant(), vnfci));
        };
        let (_, facts) = self.presented(peer).await?;
        let registered = self.store.initial_credential(proof.id).await?;
        let registered = registered.ok_or_else(|| Refusal::NotRegistered(format!("token {}", proof.id)))?;
        let input = secret_input(&registered.tenant, &registered.vnfci, registered.generation);
        let mac = self.hsm.mac(&ObjectId::TokenMac(registered.tenant.clone()), &input).await?;
        let token = Token::new(registered.id, &mac)?;
        let fields =
            ProofFields { exporter: peer.exporter, client_key: facts.public_key, request, recipient_key };
        token::verify(&registered, &token, &fields, &proof.proof, purpose, now).map_err(|refusal| {
            BrokerError::from(refusal).concerning(&registered.tenant, Some(&registered.vnfci))
        })
    }

    /// The first suite of the tenant's token, in our order, that the recipient understands and its key can take. Never one
    /// that is not configured.
    fn agree_on_suite(
        &self,
        tenant: &TenantId,
        recipient: &RecipientPublicKey,
        understood: &[Suite],
    ) -> Result<Suite, BrokerError> {
        let ours = self.hsm.suites(tenant)?;
        let common = |suite: &&Suite| understood.contains(suite) && recipient.takes(**suite);
        ours.iter().find(common).copied().ok_or_else(|| BrokerError::Invalid {
            field: "suites".to_owned(),
            problem: format!(
                "none is offered here for this kind of recipient key; offered are {}",
                ours.iter().map(|suite| suite.as_str()).collect::<Vec<_>>().join(", ")
            ),
        })
    }

    /// Draws and binds. Where a pool is empty and its profile says so, what is lacking is produced and drawn.
    async fn reserve(
        &self,
        claimant: &Claimant,
        claim: &Claim,
        suite: Suite,
    ) -> Result<ClaimRecord, BrokerError> {
        let empty = match self.try_reserve(claimant, claim, suite).await {
            Err(BrokerError::PoolEmpty { pool, retry_after }) => BrokerError::PoolEmpty { pool, retry_after },
            reserved => return reserved,
        };
        let Some(_place) = self.place_to_generate(&claimant.tenant, &empty).await? else { return Err(empty) };
        for _ in 0..GENERATE_ATTEMPTS {
            match self.try_reserve(claimant, claim, suite).await {
                Err(BrokerError::PoolEmpty { .. })
                    if self.generate_lacking(&claimant.tenant, &claimant.vnfci).await? => {}
                reserved => return reserved,
            }
        }
        self.try_reserve(claimant, claim, suite).await
    }

    async fn try_reserve(
        &self,
        claimant: &Claimant,
        claim: &Claim,
        suite: Suite,
    ) -> Result<ClaimRecord, BrokerError> {
        let now = self.store.now().await?;
        let (tenant, vnfci) = (&claimant.tenant, &claimant.vnfci);
        let actor = vnfci_actor(tenant, vnfci);
        let deadline = now.plus(self.settings.load().tenant(tenant).confirm_deadline);
        let request = ClaimRequest {
            initial_credential: claimant.initial_credential,
            renews: claimant.renews,
            claim: ClaimId::generate(),
            request: claim.request.id,
            recipient_key: claim.recipient.hash(),
            deadline,
            redraws_allowed: REDRAWS_ALLOWED,
        };
        let base = Event::new(now, EventKind::Claimed, actor.clone())
            .tenant(tenant)
            .vnfci(vnfci)
            .request(claim.request.id);
        let delivered_by = claimant.delivered_by;
        let delivery = Delivery::default();
        let kept = delivery.clone();
        let events =
            move |outcome: &ClaimOutcome| kept.keep(claim_events(base, suite, delivered_by, outcome));
        let mutation = Mutation::new(events).request(claim.request.key(actor)).delivering();
        let intend = self.intend(tenant, now).await;
        let outcome = self.store.reserve_claim(request, intend, mutation).await?;
        match outcome {
            ClaimOutcome::Reserved { claim, redrawn } => {
                crash::reached(Point::ClaimCommitted);
                self.note_delivery(&delivery, notes::certificates(&claim)).await;
                metrics::counter!("keybroker_claims_total", "outcome" => "reserved").increment(1);
                if !redrawn.revoked.is_empty() {
                    self.wake.publisher.notify_one();
                }
                self.wake.filling();
                Ok(claim)
            }
            ClaimOutcome::Replayed(claim) => {
                // Who drew it may have been killed before it was noted.
                self.note_delivery(&delivery, notes::certificates(&claim)).await;
                metrics::counter!("keybroker_claims_total", "outcome" => "replayed").increment(1);
                Ok(claim)
            }
            ClaimOutcome::Empty { pool } => {
                metrics::counter!("keybroker_claims_total", "outcome" => "empty").increment(1);
                let retry_after = self.retry_after(tenant, &pool).await?;
                Err(BrokerError::PoolEmpty { pool, retry_after })
            }
            ClaimOutcome::Refused(refusal) => {
                metrics::counter!("keybroker_claims_total", "outcome" => "refused").increment(1);
                let reason = format!("{refusal} for VNFCI {vnfci}");
                Err(BrokerError::refused(refusal.as_str(), reason).concerning(tenant, Some(vnfci)))
            }
        }
    }

    /// Seals the keys of a claim. If an epoch was drained and shredded since the claim was read, it is read again.
    async fn seal(
        &self,
        record: &ClaimRecord,
        suite: Suite,
        recipient: &RecipientPublicKey,
    ) -> Result<Vec<SealedKey>, BrokerError> {
        let mut current = record.clone();
        for attempt in 1.. {
            let items = current
                .credentials
                .iter()
                .map(|slot| {
                    Ok(SealItem {
                        credential: slot.credential.id,
                        certificate: slot.certificate.fingerprint().ok_or_else(|| unsigned(slot))?,
                        epoch: slot.epoch,
                        dek_blob: slot.dek_blob.clone(),
                    })
                })
                .collect::<Result<_, BrokerError>>()?;
            let request = SealRequest {
                tenant: current.tenant.clone(),
                request: current.request,
                suite,
                recipient: recipient.as_bytes().to_vec(),
                items,
            };
            match self.hsm.seal(request).await {
                Ok(sealed) => return Ok(sealed),
                Err(HsmError::NotFound(_)) if attempt < SEAL_ATTEMPTS => {
                    current = self.store.claim(current.id).await?.ok_or_else(|| {
                        BrokerError::Internal(format!("claim {} disappeared while it was sealed", record.id))
                    })?;
                }
                Err(error) => {
                    if let HsmError::NotFound(_) = &error {
                        self.check_token_of(&record.tenant).await?;
                        // A worker that does not see what another process wrote is replaced meanwhile.
                        return Err(HsmError::Unavailable(format!("{error}; the store has it in use")).into());
                    }
                    return Err(error.into());
                }
            }
        }
        Err(BrokerError::Internal("sealing was never attempted".to_owned()))
    }

    async fn answer(
        &self,
        record: ClaimRecord,
        suite: Suite,
        sealed: Vec<SealedKey>,
    ) -> Result<SealedClaim, BrokerError> {
        let renew_after = self.renew_after(&record).await?;
        let mut credentials = Vec::with_capacity(sealed.len());
        for (slot, key) in record.credentials.into_iter().zip(sealed) {
            let chain = self.served_chain(slot.issuer).await?;
            let wrapped_key = WrappedKey::ciphertext(&slot.key_blob)?;
            let certificate_der = slot.certificate.der().ok_or_else(|| unsigned(&slot))?.to_vec();
            credentials.push(SealedCredential {
                slot: slot.slot,
                credential: slot.credential.id,
                certificate_der,
                chain_der: chain.chain_der,
                root_der: chain.root_der,
                hsm_point: key.hsm_point,
                oaep_hash: key.oaep_hash,
                wrapped_dek: key.wrapped_dek,
                wrapped_key: wrapped_key.to_vec(),
            });
        }
        Ok(SealedClaim {
            claim: record.id,
            tenant: record.tenant,
            vnfci: record.vnfci,
            suite,
            context_request: record.request,
            credentials,
            confirm_by: record.deadline,
            renew_after,
        })
    }

    /// What the intent announced did not happen (yet: the VNFCI asks again with the same recipient key).
    /// Gives the error back.
    pub(super) async fn record_failure(
        &self,
        record: &ClaimRecord,
        step: &str,
        error: BrokerError,
    ) -> BrokerError {
        let recorded = async {
            let event = Event::new(self.store.now().await?, EventKind::OutcomeFailed, Actor::broker())
                .tenant(&record.tenant)
                .vnf_instance(&record.vnf_instance)
                .vnfci(&record.vnfci)
                .request(record.request)
                .credentials(record.credentials.iter().map(|slot| slot.credential.clone()))
                .details(details::json(&FailedDetails {
                    claim: record.id,
                    step: step.to_owned(),
                    error: error.to_string(),
                }));
            self.store.append_events(vec![event]).await
        };
        if let Err(lost) = recorded.await {
            tracing::error!(claim = %record.id, step, %error, %lost, "a failed claim could not be recorded");
        }
        error
    }
}

/// Nothing is sealed whose certificate is not there.
fn unsigned(slot: &ClaimedCredential) -> BrokerError {
    BrokerError::Internal(format!("the certificate of credential {} is not signed", slot.credential.id))
}

/// The events of a claim: the intent to seal, or to seal again, and what was destroyed for it.
fn claim_events(base: Event, suite: Suite, delivered_by: Option<&str>, outcome: &ClaimOutcome) -> Vec<Event> {
    let of = |kind: EventKind, claim: &ClaimRecord| {
        let slots = claim.credentials.iter().map(|slot| ClaimedSlot {
            slot: slot.slot.clone(),
            credential: slot.credential.id,
            certificate: slot.certificate.fingerprint(),
            intent: match &slot.certificate {
                ClaimedCertificate::Signed(_) => None,
                ClaimedCertificate::Intended(intent) => Some(IntentDetails {
                    issuer: intent.issuer,
                    serial: hex::encode(&intent.serial),
                    tbs: Sha256Hash::of(&intent.tbs_der),
                    not_after: intent.not_after,
                }),
            },
            epoch: slot.epoch,
        });
        let mut event = base.clone();
        event.id = uuid::Uuid::now_v7();
        event.kind = kind;
        event
            .vnf_instance(&claim.vnf_instance)
            .credentials(claim.credentials.iter().map(|slot| slot.credential.clone()))
            .details(details::json(&ClaimDetails {
                claim: claim.id,
                initial_credential: claim.initial_credential,
                renews: claim.renews.map(|renewal| renewal.of),
                recipient_key: claim.recipient_key,
                suite: suite.to_string(),
                confirm_by: claim.deadline,
                delivered_by: delivered_by.map(str::to_owned),
                slots: slots.collect(),
            }))
    };
    match outcome {
        ClaimOutcome::Reserved { claim, redrawn } => {
            let mut events = Vec::new();
            if *redrawn != DestroyedKeys::default() {
                let mut erased = base.clone();
                erased.id = uuid::Uuid::now_v7();
                erased.kind = EventKind::KeysErased;
                events.push(
                    erased.vnf_instance(&claim.vnf_instance).credentials(redrawn.keys.clone()).details(
                        details::json(&ErasedDetails {
                            reason: DestructionReason::NewRecipient,
                            holder_copy: HolderCopy::Unknown,
                        }),
                    ),
                );
            }
            events.push(of(EventKind::Claimed, claim));
            events
        }
        ClaimOutcome::Replayed(claim) => vec![of(EventKind::ClaimReplayed, claim)],
        // The API's wrapper records refusals; an empty pool changes nothing.
        ClaimOutcome::Empty { .. } | ClaimOutcome::Refused(_) => Vec::new(),
    }
}
