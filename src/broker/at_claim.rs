//! Certificates that are issued at the claim, with the VNFCI's own name (`issue = "at_claim"`).
//!
//! 1. With the draw, in its commit: what is to be signed is made and recorded, its serial number and hash in the claim's
//!    event. From then on the serial number counts as issued: if the claim ends before the next commit, it is revoked.
//! 2. The sub-CA on the HSM signs what was recorded.
//! 3. The certificates are recorded: a second commit, before the answer. The first writer wins; who comes later gives out
//!    what is recorded. A crash before it leaves the intent, which the same recipient key finds and has signed.

use crate::audit::details::{self, CertificateDetails, IssuedDetails};
use crate::audit::event::{Actor, Event, EventKind};
use crate::broker::authorities::{Authorities, Authority};
use crate::broker::profiles::Profiles;
use crate::broker::{Broker, BrokerError};
use crate::ca::{self, NameValues, Profile, Tbs};
use crate::clock::Timestamp;
use crate::crash::{self, Point};
use crate::credential::Issue;
use crate::hsm::Lane;
use crate::nfv::{ClaimId, CredentialId, IssuerId, PoolName, Sha256Hash, TenantId};
use crate::store::records::{
    CertificateIntent, ClaimRecord, ClaimedCertificate, NewCertificate, NewVnfci, RecordOutcome,
    UncertifiedKey,
};
use crate::store::{Intend, Mutation, StoreError};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// The change that records certificates of keys that had none, with its event: it names those that were recorded.
pub(super) fn issued(
    event: Event,
    claim: Option<ClaimId>,
    issuer: IssuerId,
    certificates: &[(CredentialId, NewCertificate)],
) -> Mutation<Vec<RecordOutcome>> {
    let issued: Vec<CertificateDetails> = certificates
        .iter()
        .map(|(credential, certificate)| CertificateDetails {
            credential: *credential,
            certificate: Sha256Hash::of(&certificate.der),
            serial: hex::encode(&certificate.serial),
            not_after: certificate.not_after,
        })
        .collect();
    Mutation::new(move |outcomes: &Vec<RecordOutcome>| {
        let recorded = outcomes.iter().zip(issued).filter_map(|(outcome, certificate)| match outcome {
            RecordOutcome::Recorded(credential) => Some((credential.clone(), certificate)),
            RecordOutcome::Before(_) | RecordOutcome::Ended => None,
        });
        let (credentials, certificates): (Vec<_>, Vec<_>) = recorded.unzip();
        let details = details::json(&IssuedDetails { claim, issuer, certificates });
        vec![event.credentials(credentials).details(details)]
    })
}

/// What the CA is to sign for a key (SubjectPublicKeyInfo, DER).
///
/// # Errors
/// A sentence: a name that makes no certificate, a CA that ends too soon.
pub(super) fn to_be_signed(
    profile: &Profile,
    authority: &Authority,
    values: &NameValues,
    spki_der: &[u8],
    now: Timestamp,
) -> Result<Tbs, String> {
    let names = profile.names(values).map_err(|error| error.to_string())?;
    authority.ca.leaf(profile, &names, spki_der, now, &mut rand::rng()).map_err(|error| error.to_string())
}

impl Broker {
    /// Says in the transaction of a claim what is to be signed for the keys that it draws.
    pub(super) async fn intend(&self, tenant: &TenantId, now: Timestamp) -> Intend {
        // Only keys without certificates ask for it: claims of others do not fail for want of a CA.
        let known = self.issuing(tenant).await.map_err(|error| error.to_string());
        let (authorities, profiles) = (self.authorities.load_full(), self.profiles.load_full());
        Box::new(move |keys| {
            known?;
            keys.iter().map(|key| intent(key, &profiles, &authorities, now)).collect()
        })
    }

    /// Has all certificates of a claim signed that are not, records them and puts them into the claim.
    pub(super) async fn certify_claim(&self, record: &mut ClaimRecord) -> Result<(), BrokerError> {
        let mut by_issuer: BTreeMap<IssuerId, Vec<(usize, CertificateIntent)>> = BTreeMap::new();
        for (place, slot) in record.credentials.iter().enumerate() {
            if let ClaimedCertificate::Intended(intent) = &slot.certificate {
                by_issuer.entry(intent.issuer).or_default().push((place, intent.clone()));
            }
        }
        for (issuer, intents) in by_issuer {
            let authority = self.authority(issuer).await?;
            let messages = intents.iter().map(|(_, intent)| intent.tbs_der.clone()).collect();
            let algorithm = authority.ca.algorithm();
            let signatures = self.hsm.sign(Lane::Interactive, &authority.key, algorithm, messages).await?;
            let mut places = Vec::with_capacity(intents.len());
            let mut certificates = Vec::with_capacity(intents.len());
            for ((place, intent), signature) in intents.into_iter().zip(signatures) {
                let der = ca::assemble(&intent.tbs_der, algorithm, &signature);
                if let Some(slot) = record.credentials.get(place) {
                    places.push(place);
                    certificates.push((slot.credential.id, intent.signed(der)));
                }
            }
            crash::reached(Point::ClaimSigned);
            let recorded = self.record_issued(record, issuer, &certificates).await?;
            crash::reached(Point::ClaimCertified);
            for ((place, (_, signed)), outcome) in places.into_iter().zip(certificates).zip(recorded) {
                let der = match outcome {
                    RecordOutcome::Recorded(_) => signed.der,
                    RecordOutcome::Before(der) => der,
                    RecordOutcome::Ended => {
                        return Err(BrokerError::Precondition(
                            "the claim ended while its certificates were signed: claim again".to_owned(),
                        ));
                    }
                };
                if let Some(slot) = record.credentials.get_mut(place) {
                    slot.certificate = ClaimedCertificate::Signed(der);
                }
            }
        }
        Ok(())
    }

    async fn record_issued(
        &self,
        claim: &ClaimRecord,
        issuer: IssuerId,
        certificates: &[(CredentialId, NewCertificate)],
    ) -> Result<Vec<RecordOutcome>, StoreError> {
        let event = Event::new(self.store.now().await?, EventKind::CertificatesIssued, Actor::broker())
            .tenant(&claim.tenant)
            .vnf_instance(&claim.vnf_instance)
            .vnfci(&claim.vnfci)
            .request(claim.request);
        let mutation = issued(event, Some(claim.id), issuer, certificates);
        self.store.record_certificates(certificates.to_vec(), mutation.delivering()).await
    }

    /// Why a VNFCI's own certificates could not be made, if a pool of its slots issues at the claim: MANO is told when it
    /// registers the VNFCI, not the VNFCI when it boots. `profiles` remembers the pools that were asked for.
    pub(super) async fn check_vnfci_names(
        &self,
        tenant: &TenantId,
        vnfci: &NewVnfci,
        profiles: &mut HashMap<PoolName, Option<Arc<Profile>>>,
    ) -> Result<Result<(), String>, BrokerError> {
        for slot in &vnfci.slots {
            if !profiles.contains_key(&slot.pool) {
                let profile = match self.store.pool(tenant, &slot.pool).await {
                    Ok(pool) if pool.issue == Issue::AtClaim => self.profiles.load().get(&pool.profile),
                    // The registration itself refuses a pool that is not there.
                    Ok(_) | Err(StoreError::NotFound(_)) => None,
                    Err(error) => return Err(error.into()),
                };
                profiles.insert(slot.pool.clone(), profile);
            }
            let Some(Some(profile)) = profiles.get(&slot.pool) else { continue };
            let values = NameValues {
                tenant: tenant.clone(),
                vnf_instance: vnfci.vnf_instance.clone(),
                vdu: vnfci.vdu.clone(),
                credential: CredentialId::generate(),
                vnfci: Some(vnfci.id.clone()),
            };
            if let Err(error) = profile.names(&values) {
                return Ok(Err(format!("slot {}: {error}", slot.name)));
            }
        }
        Ok(Ok(()))
    }
}

fn intent(
    key: &UncertifiedKey,
    profiles: &Profiles,
    authorities: &Authorities,
    now: Timestamp,
) -> Result<CertificateIntent, String> {
    let profile = profiles.get(&key.profile).ok_or_else(|| {
        format!("the file of profile {} is gone: the operator has to bring it back", key.profile)
    })?;
    if profile.issue() != Issue::AtClaim {
        return Err(format!(
            "profile {} was changed to issue ahead, its pool issues at the claim: the operator has to create a new pool",
            key.profile
        ));
    }
    let values = NameValues {
        tenant: key.tenant.clone(),
        vnf_instance: key.vnf_instance.clone(),
        vdu: key.vdu.clone(),
        credential: key.credential,
        vnfci: Some(key.vnfci.clone()),
    };
    let authority = authorities
        .issuing(&key.tenant, profile.ca())
        .ok_or_else(|| format!("tenant {} has no CA {}", key.tenant, profile.ca()))?;
    let tbs = to_be_signed(&profile, &authority, &values, &key.public_key_der, now)?;
    Ok(CertificateIntent {
        issuer: authority.id,
        serial: tbs.serial.to_vec(),
        tbs_der: tbs.der,
        not_before: tbs.not_before,
        not_after: tbs.not_after,
        usable_until: tbs.not_after.minus(profile.min_remaining_at_claim()),
        crl_shard: tbs.crl_shard,
    })
}
