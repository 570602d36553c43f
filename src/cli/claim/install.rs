//! What the broker delivered is opened, checked against certificate and trust anchor, and installed.

use super::super::chain::verify_chain;
use super::super::failure::Failure;
use super::super::files::{self, Readers};
use super::state::{ClaimDirectory, Claimed, ClaimedSlot};
use crate::api::proto::{ClaimResponse, KeySignature, SealedCredential};
use crate::ca::{CertificateFacts, pem};
use crate::clock::Timestamp;
use crate::nfv::{CredentialId, RequestId, Sha256Hash, SlotName, TenantId};
use crate::sealing::{Binding, Envelope, RecipientKey, Suite, matches_public_key, open};
use std::collections::BTreeSet;
use std::str::FromStr;
use zeroize::Zeroizing;

/// One slot's credential, opened and checked.
pub(in super::super) struct Opened {
    slot: SlotName,
    credential: CredentialId,
    private_key: Zeroizing<Vec<u8>>,
    /// Leaf first, then the sub-CAs, without the root; DER.
    chain_der: Vec<Vec<u8>>,
    facts: CertificateFacts,
}

/// Opens and checks every slot of an answer: nothing is installed unless all of it is right.
pub(in super::super) fn open_all(
    answer: &ClaimResponse,
    recipient: &RecipientKey,
    anchors_der: &[Vec<u8>],
    now: Timestamp,
) -> Result<(Claimed, Vec<Opened>), Failure> {
    let tenant: TenantId = parse("tenant", &answer.tenant)?;
    let request: RequestId = parse("context_request_id", &answer.context_request_id)?;
    let suite: Suite = parse("suite", &answer.suite)?;
    let opened = answer
        .credentials
        .iter()
        .map(|sealed| {
            open_one(sealed, recipient, &tenant, request, suite, anchors_der, now)
                .map_err(|failure| failure.during(format!("slot {:?}", sealed.slot)))
        })
        .collect::<Result<Vec<_>, _>>()?;
    if opened.iter().map(|one| &one.slot).collect::<BTreeSet<_>>().len() != opened.len() || opened.is_empty()
    {
        return Err(Failure::failed("the broker's answer names no slot, or one twice"));
    }
    let claimed = Claimed {
        claim_id: parse("claim_id", &answer.claim_id)?,
        vnfci_id: parse("vnfci_id", &answer.vnfci_id)?,
        tenant,
        confirm_by: super::super::connection::time_text(answer.confirm_by),
        slots: opened.iter().map(Opened::record).collect(),
    };
    Ok((claimed, opened))
}

/// Writes `SLOT/{key.pem,cert.pem,chain.pem}`; the key last, so that it never stands without its certificate.
pub(in super::super) fn install_all(directory: &ClaimDirectory, opened: &[Opened]) -> Result<(), Failure> {
    for one in opened {
        let slot = directory.slot(&one.slot);
        files::private_directory(&slot)?;
        let chain: Vec<String> = one.chain_der.iter().map(|der| pem("CERTIFICATE", der)).collect();
        let leaf = chain.first().map(String::as_bytes).unwrap_or_default();
        files::replace(&slot.join("cert.pem"), leaf, Readers::Everyone)?;
        files::replace(&slot.join("chain.pem"), chain.concat().as_bytes(), Readers::Everyone)?;
        let key = Zeroizing::new(pem("PRIVATE KEY", &one.private_key));
        files::replace(&slot.join("key.pem"), key.as_bytes(), Readers::Owner)?;
    }
    Ok(())
}

/// A signature by every installed key over `message` of its slot.
pub(in super::super) fn sign_all(
    directory: &ClaimDirectory,
    claimed: &Claimed,
    message: impl Fn(&ClaimedSlot) -> Vec<u8>,
) -> Result<Vec<KeySignature>, Failure> {
    claimed
        .slots
        .iter()
        .map(|slot| {
            let key = files::read_private_key(&directory.slot(&slot.slot).join("key.pem"))?;
            let signature = crate::identity::confirm::sign(&key, &message(slot)).map_err(Failure::failed)?;
            Ok(KeySignature { slot: slot.slot.to_string(), signature })
        })
        .collect()
}

impl Opened {
    /// A signature by its key over `message`.
    pub(in super::super) fn sign(&self, message: &[u8]) -> Result<KeySignature, Failure> {
        let signature =
            crate::identity::confirm::sign(&self.private_key, message).map_err(Failure::failed)?;
        Ok(KeySignature { slot: self.slot.to_string(), signature })
    }

    /// SHA-256 of its certificate's DER.
    pub(in super::super) fn certificate(&self) -> Sha256Hash {
        self.facts.fingerprint
    }

    fn record(&self) -> ClaimedSlot {
        ClaimedSlot {
            slot: self.slot.clone(),
            credential_id: self.credential,
            certificate_sha256: self.facts.fingerprint,
            not_after: self.facts.not_after.to_string(),
        }
    }
}

fn open_one(
    sealed: &SealedCredential,
    recipient: &RecipientKey,
    tenant: &TenantId,
    request: RequestId,
    suite: Suite,
    anchors_der: &[Vec<u8>],
    now: Timestamp,
) -> Result<Opened, Failure> {
    let slot: SlotName = parse("slot", &sealed.slot)?;
    let credential: CredentialId = parse("credential_id", &sealed.credential_id)?;
    let facts = CertificateFacts::parse(&sealed.certificate_der).map_err(Failure::failed)?;
    verify_chain(&sealed.certificate_der, &sealed.chain_der, anchors_der, now)?;
    let envelope = Envelope {
        suite,
        hsm_point: sealed.hsm_public_key.clone(),
        oaep_hash: if sealed.oaep_hash.is_empty() {
            None
        } else {
            Some(parse("oaep_hash", &sealed.oaep_hash)?)
        },
        wrapped_dek: sealed.wrapped_data_key.clone(),
        wrapped_key: sealed.wrapped_private_key.clone(),
    };
    let certificate = Sha256Hash::of(&sealed.certificate_der);
    let binding = Binding { tenant: tenant.clone(), request, credential, certificate };
    let private_key = open(recipient, &envelope, &binding).map_err(Failure::failed)?;
    // KWP has no associated data: only this ties the key to the certificate, and the HSM's point to the broker.
    if !matches_public_key(&private_key, &facts.public_key_der) {
        return Err(Failure::failed("the unsealed key is not the certificate's"));
    }
    let mut chain_der = vec![sealed.certificate_der.clone()];
    chain_der.extend(sealed.chain_der.iter().cloned());
    Ok(Opened { slot, credential, private_key, chain_der, facts })
}

fn parse<T: FromStr<Err: std::fmt::Display>>(field: &str, text: &str) -> Result<T, Failure> {
    text.parse().map_err(|error| Failure::failed(format!("the broker's answer: {field}: {error}")))
}
