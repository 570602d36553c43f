//! A key that the HSM made, given to a VNFCI in the clear within TLS (RFC 7030 4.4, `serverkeygen`): for clients that cannot
//! open envelopes. Weaker than a claim, as for a moment the broker has the private key in its memory, and off unless the
//! tenant's operator switched it on. It is a claim whose recipient is the broker:
//!
//! 1. Who asks: a VNFCI by its initial certificate ([`Broker::identify_enroller`]), and nobody else.
//! 2. Read the request. Its public key and signature mean nothing.
//! 3. Find the one slot that is to be filled.
//! 4. Claim (`claim`, 2 to 6), sealed to a recipient key that is made here and ends with this call.
//! 5. Open the envelope, hold the key against its certificate.
//! 6. Confirm with it (`confirm`, 2 and 3): from this commit on the broker has no copy, and the initial credential is spent.
//!    Only then is the key given out, once: nobody can give it out again.

use super::{Enroller, EnrollerKind, Label, invalid, names_itself, no_such_slot};
use crate::broker::claim::{Claim, Claimant, SealedClaim, SealedCredential};
use crate::broker::confirm::{Confirm, SlotSignature};
use crate::broker::{Broker, BrokerError, Request};
use crate::ca::profile::RequestedNames;
use crate::ca::{CertificateFacts, KeyRequest};
use crate::identity::Verified;
use crate::identity::confirm::{confirm_message, sign};
use crate::nfv::{RequestId, Sha256Hash, TenantId, VnfciId};
use crate::sealing::{Binding, Envelope, RecipientKey, Suite, matches_public_key, open};
use crate::store::records::ClaimRecord;
use std::time::Duration;
use zeroize::Zeroizing;

/// How the audit log names this way of delivery.
const DELIVERED_BY: &str = "EST_SERVERKEYGEN";
/// After what came between the draw and the confirmation.
const SOON: Duration = Duration::from_secs(1);

/// A private key with its certificate, confirmed. It is nowhere else any more.
pub struct GeneratedKey {
    /// PKCS#8 PrivateKeyInfo (RFC 5958), DER.
    pub private_key_der: Zeroizing<Vec<u8>>,
    /// Its certificate, DER.
    pub certificate_der: Vec<u8>,
}

impl Broker {
    /// Whether any tenant has this switched on.
    pub fn generates_keys(&self) -> bool {
        self.settings.load().tenants.values().any(|tenant| tenant.est_server_key_generation)
    }

    /// See the module. `request_der` is a PKCS#10. None if the VNFCI's tenant has it switched off.
    ///
    /// # Errors
    /// [`BrokerError::Invalid`] with a sentence for a request that cannot be granted; [`BrokerError::Refused`], for
    /// whoever is not the VNFCI itself too; else as [`Broker::claim`].
    pub async fn generate_key(
        &self,
        enroller: &Enroller,
        label: &Label,
        request_der: &[u8],
        on_behalf_of: Option<VnfciId>,
    ) -> Result<Option<GeneratedKey>, BrokerError> {
        // 1.
        let EnrollerKind::InitialCredential(verified) = &enroller.kind else {
            let reason = format!("{} asked for a key, which goes to its VNFCI only", enroller.caller().name);
            return Err(BrokerError::refused("VNFCI_FOREIGN", reason));
        };
        let (tenant, id) = (verified.tenant(), verified.vnfci());
        if !self.settings.load().tenant(tenant).est_server_key_generation {
            return Ok(None);
        }
        names_itself(tenant, id, label, on_behalf_of.as_ref())?;
        // 2.
        let request = KeyRequest::parse(request_der).map_err(|error| invalid(error.to_string()))?;
        // 3.
        self.names_nobody_else(tenant, id, &request.identifiers()).await?;
        self.has_one_slot(tenant, id, label, &request).await?;
        // 4.
        let recipient = self.own_recipient_key(tenant).await?;
        let asked = || Request { id: RequestId::generate(), body: Sha256Hash::of(request_der) };
        let (sealed, record) = self.claim_for_itself(verified, &recipient, asked()).await?;
        // 5.
        let delivered = match delivered(&sealed, &recipient) {
            Ok(delivered) => delivered,
            Err(error) => return Err(self.record_failure(&record, "open", error).await),
        };
        // 6.
        let confirm = Confirm {
            request: asked(),
            claim: sealed.claim,
            signatures: vec![signature(&sealed, &recipient, &delivered)?],
            token: None,
        };
        let confirmed = self.confirm_claim(record, confirm, Some(DELIVERED_BY)).await.map_err(overtaken)?;
        if !confirmed.newly_confirmed {
            // Nobody else has this recipient key.
            return Err(BrokerError::Internal("a key was confirmed before it was delivered".to_owned()));
        }
        self.no_doubt()?;
        Ok(Some(delivered))
    }

    /// A VNFCI with several slots gets all of them or none, and one key fits into the answer.
    async fn has_one_slot(
        &self,
        tenant: &TenantId,
        id: &VnfciId,
        label: &Label,
        request: &KeyRequest,
    ) -> Result<(), BrokerError> {
        if let Some(profile) = &label.profile {
            self.known_profile(profile)?;
        }
        let vnfci = self.store.vnfci(tenant, id).await?;
        let [slot] = vnfci.slots.as_slice() else {
            return Err(invalid(format!(
                "VNFCI {id} has {} slots, and serverkeygen answers with one key: have all of them by Claim, at the bootstrap \
                 listener",
                vnfci.slots.len()
            )));
        };
        let pool = self.store.pool(tenant, &slot.pool).await?;
        if label.profile.as_ref().is_some_and(|profile| *profile != pool.profile) {
            return Err(no_such_slot(id));
        }
        let refuses = |profile: &crate::ca::Profile| profile.requested_names() == RequestedNames::Refuse;
        if request.asks_for_names() && self.profiles.load().get(&pool.profile).is_some_and(|it| refuses(&it))
        {
            return Err(invalid(format!(
                "the names are those of profile {}, which refuses requests for any: leave subject and subjectAltName empty",
                pool.profile
            )));
        }
        Ok(())
    }

    /// Of the kind that the token can seal to.
    async fn own_recipient_key(&self, tenant: &TenantId) -> Result<RecipientKey, BrokerError> {
        let made = if self.hsm.suites(tenant)? == [Suite::RsaAesKeyWrap] {
            tokio::task::spawn_blocking(RecipientKey::generate_rsa).await.map_err(internal)?
        } else {
            RecipientKey::generate()
        };
        made.map_err(internal)
    }

    async fn claim_for_itself(
        &self,
        verified: &Verified,
        recipient: &RecipientKey,
        request: Request,
    ) -> Result<(SealedClaim, ClaimRecord), BrokerError> {
        let public = recipient.public_key();
        let claim =
            Claim { request, recipient: public.clone(), suites: public.suites().collect(), token: None };
        let claimant = Claimant { delivered_by: Some(DELIVERED_BY), ..Claimant::from(verified) };
        let sealed = self.draw_and_seal(&claimant, claim).await.map_err(overtaken)?;
        let record = self.store.claim(sealed.claim).await?;
        let record = record.ok_or_else(|| internal(format!("claim {} is not there", sealed.claim)))?;
        Ok((sealed, record))
    }
}

/// The key out of its envelope.
fn delivered(sealed: &SealedClaim, recipient: &RecipientKey) -> Result<GeneratedKey, BrokerError> {
    let credential = only(sealed)?;
    let facts = CertificateFacts::parse(&credential.certificate_der).map_err(internal)?;
    let envelope = Envelope {
        suite: sealed.suite,
        hsm_point: credential.hsm_point.clone(),
        oaep_hash: credential.oaep_hash,
        wrapped_dek: credential.wrapped_dek.clone(),
        wrapped_key: credential.wrapped_key.clone(),
    };
    let binding = Binding {
        tenant: sealed.tenant.clone(),
        request: sealed.context_request,
        credential: credential.credential,
        certificate: facts.fingerprint,
    };
    let private_key_der = open(recipient, &envelope, &binding).map_err(internal)?;
    if !matches_public_key(&private_key_der, &facts.public_key_der) {
        return Err(internal(format!(
            "the key of credential {} is not its certificate's",
            credential.credential
        )));
    }
    Ok(GeneratedKey { private_key_der, certificate_der: credential.certificate_der.clone() })
}

/// What the VNFCI would sign.
fn signature(
    sealed: &SealedClaim,
    recipient: &RecipientKey,
    key: &GeneratedKey,
) -> Result<SlotSignature, BrokerError> {
    let certificate = Sha256Hash::of(&key.certificate_der);
    let message = confirm_message(sealed.claim, certificate, recipient.public_key().hash());
    let signature = sign(&key.private_key_der, &message).map_err(internal)?;
    Ok(SlotSignature { slot: only(sealed)?.slot.clone(), signature })
}

fn only(sealed: &SealedClaim) -> Result<&SealedCredential, BrokerError> {
    match sealed.credentials.as_slice() {
        [credential] => Ok(credential),
        more => Err(internal(format!("the claim of a VNFCI with one slot has {}", more.len()))),
    }
}

fn internal(error: impl std::fmt::Display) -> BrokerError {
    BrokerError::Internal(error.to_string())
}

/// Another request of the VNFCI, or MANO, ended the claim before it was confirmed. Whoever asks again is told how it stands.
fn overtaken(error: BrokerError) -> BrokerError {
    match error {
        BrokerError::Precondition(reason) => {
            BrokerError::Unavailable { code: "CLAIM_ENDED", reason, retry_after: SOON }
        }
        other => other,
    }
}
