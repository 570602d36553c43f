//! What every enrolment does alike, once it is known for whom a certificate is and what names it has: steps 4 to 6 of
//! `enrol.rs` for a VNFCI, step 2 of `enrol_vouched.rs` for a registration authority.

use crate::audit::details::{self, EnrolmentDetails, FailedDetails};
use crate::audit::event::{Actor, Event, EventCredential, EventKind};
use crate::broker::authorities::unissued;
use crate::broker::{Broker, BrokerError, Subject};
use crate::ca::profile::CertificateNames;
use crate::ca::{CertificateFacts, CertificationRequest, Profile};
use crate::clock::Timestamp;
use crate::crash::{self, Point};
use crate::nfv::{ClaimId, IssuerId, ProfileName, Sha256Hash, TenantId, VnfciId};
use crate::store::records::{DestroyedKeys, EnrolmentOutcome, NewCertificate};
use std::time::Duration;
use uuid::Uuid;

/// What is to be certified.
pub(super) struct Enrolling<'a> {
    pub(super) tenant: &'a TenantId,
    pub(super) profile: &'a Profile,
    pub(super) names: &'a CertificateNames,
    pub(super) request: &'a CertificationRequest,
    /// The credential and whose it is; kind and details are put in here.
    pub(super) event: Event,
    /// Where tests have the broker die: after the intent, and after the signature.
    pub(super) points: [Point; 2],
}

/// A certificate that is signed and not recorded.
pub(super) struct Signed {
    pub(super) certificate: NewCertificate,
    pub(super) event: Event,
    /// With the certificate's hash.
    pub(super) details: EnrolmentDetails,
}

/// What is told of an enrolment before there is a certificate.
pub(super) fn told(
    basis: &str,
    shown: Sha256Hash,
    profile: &ProfileName,
    request_der: &[u8],
    issuer: IssuerId,
) -> EnrolmentDetails {
    EnrolmentDetails {
        claim: ClaimId::generate(),
        basis: basis.to_owned(),
        initial_credential: None,
        shown,
        slot: None,
        profile: profile.clone(),
        request: Sha256Hash::of(request_der),
        issuer,
        serial: String::new(),
        tbs: None,
        certificate: None,
        not_after: Timestamp::from_unix_seconds(0),
        spent: false,
        custody: "HOLDER".to_owned(),
    }
}

/// A slot has got its share of certificates that follow each other.
pub(super) fn too_many(of: (&TenantId, Option<&VnfciId>), retry_after: Duration) -> BrokerError {
    let whose = of.1.map_or_else(|| format!("tenant {}", of.0), |vnfci| format!("VNFCI {vnfci}"));
    BrokerError::RefusedForNow {
        code: "TOO_MANY_RENEWALS",
        reason: format!("a slot of {whose} got too many certificates that follow each other"),
        subject: Subject { tenant: Some(of.0.clone()), vnfci: of.1.cloned() },
        retry_after,
    }
}

impl Broker {
    /// Gives the certificate (DER) of the same key once more, and notes it.
    pub(super) async fn replay_enrolment(
        &self,
        event: Event,
        credential: EventCredential,
        certificate_der: Vec<u8>,
        details: EnrolmentDetails,
    ) -> Result<Vec<u8>, BrokerError> {
        let facts = CertificateFacts::parse(&certificate_der)
            .map_err(|error| BrokerError::Internal(error.to_string()))?;
        let details = EnrolmentDetails {
            serial: hex::encode(&facts.serial),
            certificate: Some(facts.fingerprint),
            not_after: facts.not_after,
            ..details
        };
        let event = Event { kind: EventKind::EnrolmentReplayed, ..event }.credentials([credential]);
        self.store.append_events(vec![event.details(details::json(&details))]).await?;
        Ok(certificate_der)
    }

    /// Records the intent with serial number and hash of what is to be signed, and has the HSM sign it.
    pub(super) async fn sign_enrolment(
        &self,
        enrolling: Enrolling<'_>,
        details: impl FnOnce(IssuerId) -> EnrolmentDetails,
    ) -> Result<Signed, BrokerError> {
        let Enrolling { tenant, profile, names, request, event, points: [intended, signed] } = enrolling;
        let authority = self.issuing_ca(tenant, profile.ca()).await?;
        let now = self.store.now().await?;
        let key = request.public_key_der();
        let tbs = authority.ca.leaf(profile, names, key, now, &mut rand::rng()).map_err(unissued)?;
        let details = EnrolmentDetails {
            serial: hex::encode(tbs.serial),
            tbs: Some(Sha256Hash::of(&tbs.der)),
            not_after: tbs.not_after,
            ..details(authority.id)
        };
        let started = Event { kind: EventKind::EnrolmentStarted, ..event.clone() };
        self.store.append_events(vec![started.details(details::json(&details))]).await?;
        crash::reached(intended);
        let der = match self.sign_certificate(&authority.key, &tbs).await {
            Ok(der) => der,
            Err(error) => {
                self.record_failed_enrolment(&event, details.claim, &error).await;
                return Err(error);
            }
        };
        crash::reached(signed);
        let details = EnrolmentDetails { certificate: Some(Sha256Hash::of(&der)), ..details };
        Ok(Signed { certificate: authority.certificate(&tbs, der, Duration::ZERO), event, details })
    }

    /// The certificate (DER) that is given out, after `outcome` was made of the signed one: of who lost a race the earlier
    /// one, or none. What was signed and is not given out is noted.
    pub(super) async fn conclude_enrolment(
        &self,
        event: &Event,
        claim: ClaimId,
        certificate_der: Vec<u8>,
        outcome: Result<EnrolmentOutcome, BrokerError>,
        committed: Point,
        of: (&TenantId, Option<&VnfciId>),
    ) -> Result<Vec<u8>, BrokerError> {
        let dropped = match outcome {
            Ok(EnrolmentOutcome::Enrolled { replaced, superseded, .. }) => {
                crash::reached(committed);
                if replaced != DestroyedKeys::default() || superseded != DestroyedKeys::default() {
                    self.wake.publisher.notify_one();
                    self.wake.sweeper.notify_one();
                }
                return Ok(certificate_der);
            }
            Ok(EnrolmentOutcome::Replayed(earlier)) => {
                let raced = "the same key was certified at the same time".to_owned();
                self.record_failed_enrolment(event, claim, &BrokerError::Precondition(raced)).await;
                return Ok(earlier);
            }
            Ok(EnrolmentOutcome::Refused(refusal)) => {
                let reason = match of {
                    (_, Some(vnfci)) => format!("{refusal} for VNFCI {vnfci}"),
                    (tenant, None) => format!("{refusal} in tenant {tenant}"),
                };
                BrokerError::refused(refusal.as_str(), reason).concerning(of.0, of.1)
            }
            Ok(EnrolmentOutcome::TooMany { until }) => too_many(of, until.since(self.store.now().await?)),
            Err(error) => error,
        };
        self.record_failed_enrolment(event, claim, &dropped).await;
        Err(dropped)
    }

    /// What the intent announced did not happen.
    async fn record_failed_enrolment(&self, base: &Event, claim: ClaimId, error: &BrokerError) {
        let mut event = base.clone();
        event.id = Uuid::now_v7();
        event.kind = EventKind::OutcomeFailed;
        event.actor = Actor::broker();
        let details = FailedDetails { claim, step: "enrol".to_owned(), error: error.to_string() };
        let recorded = self.store.append_events(vec![event.details(details::json(&details))]).await;
        if let Err(lost) = recorded {
            tracing::error!(%claim, %error, %lost, "a failed enrolment could not be recorded");
        }
    }
}
