//! A certificate for a key that a registration authority vouches for: another broker, whose VNFCIs are not known here (the
//! enrolment server's side of ETSI GR NFV-SEC 005 8.1.2.3).
//!
//! The authority chooses no names: a pool of a VNF instance that was granted to it gives them by its profile, all but the
//! credential's UUID, which is the authority's and is taken once.
//!
//! 1. Find the pool whose names the request has. The same key again gets the same certificate again.
//! 2. Record the intent; sign in the HSM; record the certificate. Only then is it given out.

use crate::audit::details;
use crate::audit::event::{Event, EventCredential, EventKind};
use crate::authorisation::{Caller, Rpc, Target, authorise};
use crate::broker::enrol::{Label, invalid};
use crate::broker::enrol_certificate::{Enrolling, Signed, told};
use crate::broker::notes::Delivery;
use crate::broker::{Broker, BrokerError};
use crate::ca::profile::{CertificateNames, ProfileIssuer};
use crate::ca::{CertificationRequest, NameValues, Profile};
use crate::crash::Point;
use crate::credential::CertificateState;
use crate::nfv::{CredentialId, Sha256Hash, TenantId};
use crate::store::Mutation;
use crate::store::records::{EnrolmentOutcome, NewVouched, Page, Pool, PoolFilter};
use std::collections::BTreeSet;
use std::sync::Arc;
use uuid::Uuid;

/// Text length of a UUID.
const UUID_CHARACTERS: usize = 36;

/// What the names of a request belong to.
struct Found {
    pool: Pool,
    profile: Arc<Profile>,
    names: CertificateNames,
    credential: EventCredential,
}

impl Broker {
    /// See the module. `shown` is the SHA-256 of the authority's TLS client certificate. Gives the certificate, DER.
    ///
    /// # Errors
    /// As [`Broker::enrol`].
    pub(super) async fn enrol_vouched(
        &self,
        caller: &Caller,
        shown: Sha256Hash,
        label: &Label,
        request: &CertificationRequest,
        request_der: &[u8],
    ) -> Result<Vec<u8>, BrokerError> {
        // 1.
        let tenant = Self::tenant_of(caller, label.tenant.clone())?;
        if caller.tenant.as_ref() != Some(&tenant) {
            let reason = format!("the label names another tenant than {}'s", caller.name);
            return Err(BrokerError::refused("TENANT_FOREIGN", reason).concerning(&tenant, None));
        }
        let found = self.named_pool(caller, &tenant, label, request).await?;
        let target =
            Target { tenant: Some(&tenant), vnf_instance: Some(&found.pool.vnf_instance), vnfci: None };
        authorise(caller, Rpc::EnrolVouched, target)?;
        self.may_deliver()?;
        let event = Event::new(self.store.now().await?, EventKind::EnrolmentStarted, caller.actor())
            .tenant(&tenant)
            .vnf_instance(&found.pool.vnf_instance);
        let details = |issuer| told("AUTHORITY", shown, found.profile.name(), request_der, issuer);
        let before = self.store.vouched(found.credential.public_key).await?;
        let before = before.filter(|before| {
            before.pool == found.pool.id
                && before.state == CertificateState::Valid
                && before.not_after > event.time
        });
        if let Some(before) = before {
            let details = details(before.issuer);
            return self.replay_enrolment(event, before.credential, before.certificate_der, details).await;
        }
        // 2.
        let enrolling = Enrolling {
            tenant: &tenant,
            profile: &found.profile,
            names: &found.names,
            request,
            event: event.credentials([found.credential.clone()]),
            points: [Point::VouchedIntended, Point::VouchedSigned],
        };
        let Signed { certificate, event, details } = self.sign_enrolment(enrolling, details).await?;
        let (claim, der) = (details.claim, certificate.der.clone());
        let new = NewVouched {
            pool: found.pool.id,
            credential: found.credential.clone(),
            public_key_der: request.public_key_der().to_vec(),
            certificate,
        };
        let mut enrolled = event.clone();
        enrolled.id = Uuid::now_v7();
        enrolled.kind = EventKind::Enrolled;
        let enrolled = enrolled.details(details::json(&details));
        let delivery = Delivery::default();
        let kept = delivery.clone();
        let mutation = Mutation::new(move |outcome: &EnrolmentOutcome| match outcome {
            EnrolmentOutcome::Enrolled { .. } => kept.keep(vec![enrolled]),
            EnrolmentOutcome::Replayed(_)
            | EnrolmentOutcome::TooMany { .. }
            | EnrolmentOutcome::Refused(_) => Vec::new(),
        });
        let outcome = self.store.record_vouched(new, mutation.delivering()).await.map_err(BrokerError::from);
        self.note_delivery(&delivery, Vec::new()).await;
        self.conclude_enrolment(&event, claim, der, outcome, Point::VouchedCommitted, (&tenant, None)).await
    }

    /// The pool, of those that the caller may enrol for, whose profile makes the request's names for one of the UUIDs in
    /// them.
    async fn named_pool(
        &self,
        caller: &Caller,
        tenant: &TenantId,
        label: &Label,
        request: &CertificationRequest,
    ) -> Result<Found, BrokerError> {
        let public_key = Sha256Hash::of(request.public_key_der());
        let filter =
            PoolFilter { tenant: Some(tenant.clone()), vnf_instances: Some(caller.granted_vnfs.clone()) };
        let mut pools = self.store.pools(&filter, &Page { after: None, limit: u32::MAX }).await?;
        pools.retain(|pool| label.profile.as_ref().is_none_or(|profile| *profile == pool.profile));
        let ids = uuids(&request.identifiers());
        for pool in pools {
            let profile = self.known_profile(&pool.profile)?;
            // What another CA certifies is not certified here, nor can a key of another kind be meant.
            if *profile.issuer() != ProfileIssuer::SubCa || request.key_type() != Some(profile.key_type()) {
                continue;
            }
            for id in &ids {
                let values = NameValues {
                    tenant: tenant.clone(),
                    vnf_instance: pool.vnf_instance.clone(),
                    vdu: pool.vdu.clone(),
                    credential: *id,
                    vnfci: None,
                };
                let Ok(names) = profile.names(&values) else { continue };
                if request.keeps_names_of(&names).is_ok() {
                    let credential = EventCredential { id: *id, public_key };
                    return Ok(Found { pool, profile, names, credential });
                }
            }
        }
        Err(invalid(format!(
            "{} and its subjectAltName are not what a profile, with a UUID of yours as {{credential}}, makes for a pool of a \
             VNF instance that was granted to you; or the key is of another type",
            request.subject()
        )))
    }
}

/// Every UUID that is written somewhere in the texts.
fn uuids(texts: &[String]) -> BTreeSet<CredentialId> {
    let within = |text: &String| -> Vec<CredentialId> {
        let places = 0..text.len().saturating_sub(UUID_CHARACTERS - 1);
        let candidates = places.filter_map(|at| text.get(at..at + UUID_CHARACTERS));
        candidates.filter_map(|text| Uuid::try_parse(text).ok()).map(CredentialId).collect()
    };
    texts.iter().flat_map(within).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_is_found_wherever_it_stands_in_a_name() {
        let id = "0190c6a1-2b3c-7d4e-8f90-a1b2c3d4e5f6";
        let expected = BTreeSet::from([CredentialId(Uuid::try_parse(id).unwrap())]);
        for text in [id.to_owned(), format!("urn:uuid:{id}"), format!("{id}.amf.example"), format!("é-{id}é")]
        {
            assert_eq!(uuids(&[text]), expected);
        }
        assert!(uuids(&["amf-worker.amf-1".to_owned(), String::new()]).is_empty());
    }
}
