//! A certificate for a key that its holder made and keeps (ETSI GR NFV-SEC 005 8.1.2.1 and 8.1.2.2, RFC 7030).
//!
//! 1. Who asks: a VNFCI by its initial credential, a VNFM as agent of one, a VNFCI by a certificate that it has, or a
//!    registration authority ([`Broker::identify_enroller`]), whose way is that of `enrol_vouched.rs` from here on.
//! 2. Read the request: its own signature proves possession of the key.
//! 3. Find the slot that is to be filled, and its profile. The same key again gets the same certificate again.
//! 4. Hold the request's wishes against the profile, which gives the names; record the intent with serial number and
//!    hash of what is to be signed.
//! 5. Sign in the HSM.
//! 6. Record the certificate, spend the initial credential: one commit. Only then is the certificate given out. Who lost a
//!    race is refused here, and what was signed for it is dropped.

use crate::audit::details::{self, EnrolmentDetails, FailedDetails, RevocationDetails};
use crate::audit::event::{Actor, Event, EventCredential, EventKind};
use crate::authorisation::{Caller, Denied, Rpc, Target, authorise, reach};
use crate::broker::authorities::unissued;
use crate::broker::claim::REDRAWS_ALLOWED;
use crate::broker::confirm::vnfci_actor;
use crate::broker::{Broker, BrokerError, Peer};
use crate::ca::csr::names_of;
use crate::ca::profile::{CertificateNames, ProfileIssuer, RequestedNames};
use crate::ca::{CertificateFacts, CertificationRequest, NameValues, Profile, Tbs};
use crate::crash::{self, Point};
use crate::credential::{CertificateState, RevocationReason};
use crate::identity::{Purpose, Verified};
use crate::nfv::{
    ClaimId, CredentialId, IssuerId, ProfileName, RequestId, Sha256Hash, SlotName, TenantId, VnfciId,
};
use crate::store::Mutation;
use crate::store::records::{
    DestroyedKeys, Enrolment, EnrolmentBasis, EnrolmentOutcome, InitialCredentialState, NewEnrolment, Pool,
    Vnfci, VnfciState,
};
use std::sync::Arc;
use std::time::Duration;

/// Which certificates are meant, as the path says (RFC 7030 3.2.2).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Label {
    /// The tenant; it must be the caller's.
    pub tenant: Option<TenantId>,
    /// The profile; needed where a VNFCI has slots of several.
    pub profile: Option<ProfileName>,
}

/// Who asks for a certificate. Only [`Broker::identify_enroller`] makes it.
#[derive(Debug, Clone)]
pub struct Enroller {
    kind: EnrollerKind,
    /// SHA-256 of the certificate that was shown.
    shown: Sha256Hash,
}

#[derive(Debug, Clone)]
enum EnrollerKind {
    InitialCredential(Verified),
    Agent(Caller),
    Authority(Caller),
    Holder(Caller, Box<Enrolment>),
}

impl Enroller {
    /// The caller, for the audit log.
    pub fn caller(&self) -> Caller {
        match &self.kind {
            EnrollerKind::InitialCredential(verified) => {
                Caller::vnfci(verified.tenant().clone(), verified.vnfci().clone())
            }
            EnrollerKind::Agent(caller)
            | EnrollerKind::Authority(caller)
            | EnrollerKind::Holder(caller, _) => caller.clone(),
        }
    }
}

/// What is to be filled, and for whom.
struct Place {
    vnfci: Vnfci,
    slot: SlotName,
    pool: Pool,
    profile: Arc<Profile>,
    basis: EnrolmentBasis,
    /// The certificate that is followed.
    follows: Option<Enrolment>,
}

impl Broker {
    /// Who is behind an EST connection. `again`: the client asks for a certificate that follows the one it shows; shown
    /// an initial certificate instead, this is a first enrolment (strongSwan asks so).
    ///
    /// # Errors
    /// [`BrokerError::Refused`]; [`BrokerError::Denied`] for a registered identity that is nobody's agent.
    pub async fn identify_enroller(&self, peer: &Peer, again: bool) -> Result<Enroller, BrokerError> {
        let leaf = peer.chain_der.first();
        let leaf = leaf
            .ok_or_else(|| BrokerError::refused("NO_CERTIFICATE", "no client certificate was presented"))?;
        let shown = Sha256Hash::of(leaf);
        let kind = if let Some(held) = self.store.enrolment_by_certificate(shown).await?.filter(|_| again) {
            let caller = self
                .identify_vnfci(peer, None)
                .await
                .map_err(|error| error.concerning(&held.tenant, Some(&held.vnfci)))?;
            // RFC 7030 3.3.2: a certificate that is not for TLS clients renews nothing here.
            self.accept_client(peer, Some(&held.tenant))
                .await
                .map_err(|error| error.concerning(&held.tenant, Some(&held.vnfci)))?;
            EnrollerKind::Holder(caller, Box::new(held))
        } else if self.store.identity_by_fingerprint(shown).await?.is_some() {
            let caller = self.identify_registered(peer).await?;
            // It does not show the certificate that is to be followed.
            if again {
                return Err(Denied::Role(caller.role, Rpc::EnrolVnfci).into());
            }
            if reach(caller.role, Rpc::EnrolVouched).is_some() {
                EnrollerKind::Authority(caller)
            } else if reach(caller.role, Rpc::EnrolVnfci).is_some() {
                EnrollerKind::Agent(caller)
            } else {
                return Err(Denied::Role(caller.role, Rpc::EnrolVnfci).into());
            }
        } else {
            let unused = (RequestId::generate(), Sha256Hash([0; 32]));
            let verified =
                self.verify_initial_credential(peer, None, unused.0, unused.1, Purpose::Claim).await?;
            EnrollerKind::InitialCredential(verified)
        };
        Ok(Enroller { kind, shown })
    }

    /// See the module. `request_der` is a PKCS#10; `on_behalf_of` names an agent's VNFCI, which the request names itself
    /// otherwise. Gives the certificate, DER.
    ///
    /// # Errors
    /// [`BrokerError::Invalid`] with a sentence for a request that cannot be granted, [`BrokerError::Refused`],
    /// [`BrokerError::Denied`], [`BrokerError::Unavailable`].
    pub async fn enrol(
        &self,
        enroller: &Enroller,
        label: &Label,
        request_der: &[u8],
        on_behalf_of: Option<VnfciId>,
    ) -> Result<Vec<u8>, BrokerError> {
        // 2.
        let request = CertificationRequest::parse(request_der).map_err(|error| invalid(error.to_string()))?;
        let key = Sha256Hash::of(request.public_key_der());
        if let EnrollerKind::Authority(caller) = &enroller.kind {
            if let Some(named) = on_behalf_of {
                let reason = format!("{} named VNFCI {named}, and is nobody's agent", caller.name);
                return Err(BrokerError::refused("VNFCI_FOREIGN", reason));
            }
            return self.enrol_vouched(caller, enroller.shown, label, &request, request_der).await;
        }
        // 3.
        let place = self.place(enroller, label, &request, on_behalf_of).await?;
        self.not_rolled_back()?;
        let enrolled = self.store.enrolments(&place.vnfci.initial_credential).await?;
        let before = enrolled.iter().rev().find(|found| {
            found.slot == place.slot
                && found.credential.public_key == key
                && found.state == CertificateState::Valid
                && place.follows.as_ref().is_none_or(|held| held.certificate_der != found.certificate_der)
        });
        if let Some(before) = before {
            return self.replay(enroller, &place, request_der, before).await;
        }
        // 4.
        if let ProfileIssuer::External(name) = place.profile.issuer() {
            return Err(BrokerError::Precondition(format!(
                "profile {} is certified by issuer {name}, not here: enrol there",
                place.profile.name()
            )));
        }
        let authority = self.issuing_ca(&place.vnfci.tenant, place.profile.ca()).await?;
        let credential = EventCredential { id: CredentialId::generate(), public_key: key };
        let names = self.names(&place, &request, credential.id).await?;
        let now = self.store.now().await?;
        let tbs = authority
            .ca
            .leaf(&place.profile, &names, request.public_key_der(), now, &mut rand::rng())
            .map_err(unissued)?;
        let id = ClaimId::generate();
        let base = self.enrolment_event(enroller, &place).await?.credentials([credential.clone()]);
        let details = describe(enroller, &place, request_der, id, authority.id, &tbs);
        let started = Event { kind: EventKind::EnrolmentStarted, ..base.clone() };
        self.store.append_events(vec![started.details(details::json(&details))]).await?;
        crash::reached(Point::EnrolmentIntended);
        // 5.
        let der = match self.sign_certificate(&authority.key, &tbs).await {
            Ok(der) => der,
            Err(error) => {
                self.record_failed_enrolment(&base, id, &error).await;
                return Err(error);
            }
        };
        crash::reached(Point::EnrolmentSigned);
        // 6.
        let enrolment = NewEnrolment {
            id,
            basis: place.basis,
            slot: place.slot.clone(),
            credential,
            public_key_der: request.public_key_der().to_vec(),
            certificate: authority.certificate(&tbs, der.clone(), Duration::ZERO),
            redraws_allowed: REDRAWS_ALLOWED,
            spend: self.settings.load().tenant(&place.vnfci.tenant).spend_on_enrolment,
        };
        let outcome = self.record_enrolment(enrolment, base.clone(), details).await;
        match outcome {
            Ok(EnrolmentOutcome::Enrolled { replaced, superseded, .. }) => {
                crash::reached(Point::EnrolmentCommitted);
                if replaced != DestroyedKeys::default() || superseded != DestroyedKeys::default() {
                    self.wake.publisher.notify_one();
                    self.wake.sweeper.notify_one();
                }
                Ok(der)
            }
            Ok(EnrolmentOutcome::Replayed(earlier)) => {
                let raced =
                    BrokerError::Precondition("the same key was certified at the same time".to_owned());
                self.record_failed_enrolment(&base, id, &raced).await;
                Ok(earlier)
            }
            Ok(EnrolmentOutcome::Refused(refusal)) => {
                let reason = format!("{refusal} for VNFCI {}", place.vnfci.id);
                let refused = BrokerError::refused(refusal.as_str(), reason)
                    .concerning(&place.vnfci.tenant, Some(&place.vnfci.id));
                self.record_failed_enrolment(&base, id, &refused).await;
                Err(refused)
            }
            Err(error) => {
                self.record_failed_enrolment(&base, id, &error).await;
                Err(error)
            }
        }
    }

    /// Whose slot is to be filled, and which.
    async fn place(
        &self,
        enroller: &Enroller,
        label: &Label,
        request: &CertificationRequest,
        on_behalf_of: Option<VnfciId>,
    ) -> Result<Place, BrokerError> {
        let (tenant, id) = match &enroller.kind {
            EnrollerKind::InitialCredential(verified) => {
                (verified.tenant().clone(), verified.vnfci().clone())
            }
            EnrollerKind::Holder(_, held) => (held.tenant.clone(), held.vnfci.clone()),
            EnrollerKind::Agent(caller) => {
                let tenant = Self::tenant_of(caller, label.tenant.clone())?;
                let id = self.principal(caller, &tenant, request, on_behalf_of.as_ref()).await?;
                (tenant, id)
            }
            EnrollerKind::Authority(caller) => return Err(Denied::NoTarget(caller.name.clone()).into()),
        };
        let refused =
            |code, reason: String| BrokerError::refused(code, reason).concerning(&tenant, Some(&id));
        if label.tenant.as_ref().is_some_and(|named| *named != tenant) {
            return Err(refused("TENANT_FOREIGN", format!("the label names another tenant than {tenant}")));
        }
        // Only an agent may name someone else.
        if on_behalf_of.as_ref().is_some_and(|named| *named != id) {
            return Err(refused("VNFCI_FOREIGN", format!("VNFCI {id} asked for another one")));
        }
        let vnfci = self.store.vnfci(&tenant, &id).await?;
        let arming = &vnfci.initial_credential;
        let (basis, follows) = match &enroller.kind {
            EnrollerKind::InitialCredential(verified) => {
                (EnrolmentBasis::InitialCredential(verified.credential()), None)
            }
            EnrollerKind::Holder(_, held) => (EnrolmentBasis::Certificate(enroller.shown), Some(&**held)),
            _ => (EnrolmentBasis::Agent(arming.id), None),
        };
        if matches!(vnfci.state, VnfciState::Released | VnfciState::Terminated) {
            return Err(refused("VNFCI_ENDED", format!("VNFCI {id} is {}", vnfci.state)));
        }
        if matches!(enroller.kind, EnrollerKind::Agent(_)) {
            match arming.state {
                InitialCredentialState::Open => {}
                InitialCredentialState::Spent => {
                    return Err(refused("SPENT", format!("VNFCI {id} has its certificates: re-arm it")));
                }
                InitialCredentialState::Void => return Err(refused("VOIDED", format!("VNFCI {id}"))),
            }
        }
        let mut fitting = Vec::new();
        let mut profiles = Vec::new();
        for slot in &vnfci.slots {
            if follows.is_some_and(|held| held.slot != slot.name) {
                continue;
            }
            let pool = self.store.pool(&tenant, &slot.pool).await?;
            if label.profile.as_ref().is_none_or(|profile| *profile == pool.profile) {
                if !profiles.contains(&pool.profile) {
                    profiles.push(pool.profile.clone());
                }
                fitting.push((slot.name.clone(), pool));
            }
        }
        if let [first, other, ..] = profiles.as_slice() {
            return Err(invalid(format!(
                "VNFCI {id} has slots of the profiles {first}, {other}: name one in the path, \
                 /.well-known/est/PROFILE/simpleenroll"
            )));
        }
        let chosen = self.next_slot(arming, fitting, &Sha256Hash::of(request.public_key_der())).await?;
        let Some((slot, pool)) = chosen else {
            return Err(invalid(format!("VNFCI {id} has no slot of the profile that the path names")));
        };
        let profile = self.known_profile(&pool.profile)?;
        let follows = follows.cloned();
        Ok(Place { slot, pool, profile, basis, follows, vnfci })
    }

    /// Of slots with one profile the one that has this key; else the first without a certificate in this arming; else
    /// the first.
    async fn next_slot(
        &self,
        arming: &crate::store::records::InitialCredential,
        mut fitting: Vec<(SlotName, Pool)>,
        key: &Sha256Hash,
    ) -> Result<Option<(SlotName, Pool)>, BrokerError> {
        if fitting.len() < 2 {
            return Ok(fitting.pop());
        }
        let enrolled = self.store.enrolments(arming).await?;
        let has_key = |slot: &SlotName| {
            enrolled.iter().any(|found| found.slot == *slot && found.credential.public_key == *key)
        };
        let is_empty = |slot: &SlotName| !enrolled.iter().any(|found| found.slot == *slot);
        let position = fitting
            .iter()
            .position(|(slot, _)| has_key(slot))
            .or_else(|| fitting.iter().position(|(slot, _)| is_empty(slot)))
            .unwrap_or_default();
        Ok(Some(fitting.swap_remove(position)))
    }

    /// The VNFCI that an agent acts for: the one named beside the request, else the only registered one whose id the
    /// request has as common name, serialNumber, DNS name or URI. It must be of a VNF instance granted to the agent.
    async fn principal(
        &self,
        caller: &Caller,
        tenant: &TenantId,
        request: &CertificationRequest,
        named: Option<&VnfciId>,
    ) -> Result<VnfciId, BrokerError> {
        let candidates: Vec<VnfciId> = match named {
            Some(id) => vec![id.clone()],
            None => request.identifiers().iter().filter_map(|text| text.parse().ok()).collect(),
        };
        let found = self.store.vnf_instances(tenant, &candidates).await?;
        let mut found = found.into_iter();
        let refused = |what: &str| {
            BrokerError::refused("VNFCI_UNKNOWN", format!("{} {what}", request.subject()))
                .concerning(tenant, None)
        };
        match (found.next(), found.next()) {
            (Some((id, vnf_instance)), None) => {
                let target =
                    Target { tenant: Some(tenant), vnf_instance: Some(&vnf_instance), vnfci: Some(&id) };
                authorise(caller, Rpc::EnrolVnfci, target)?;
                Ok(id)
            }
            (None, _) => Err(refused("names no registered VNFCI")),
            (Some(_), Some(_)) => Err(refused("names several registered VNFCIs")),
        }
    }

    /// The names of the certificate: the profile's, or those of the certificate that it follows.
    async fn names(
        &self,
        place: &Place,
        request: &CertificationRequest,
        credential: CredentialId,
    ) -> Result<CertificateNames, BrokerError> {
        let profile = &place.profile;
        if request.key_type() != Some(profile.key_type()) {
            return Err(invalid(format!(
                "the key is no {} key, which profile {} asks for (csrattrs says so, too)",
                profile.key_type(),
                profile.name()
            )));
        }
        if let Some(held) = &place.follows {
            let names = names_of(&held.certificate_der).map_err(|e| BrokerError::Internal(e.to_string()))?;
            request.keeps_names_of(&names).map_err(|error| invalid(error.to_string()))?;
            let same_key = held.credential.public_key == Sha256Hash::of(request.public_key_der());
            let until = self.store.now().await?.plus(profile.validity());
            if same_key && !held.own_key {
                return Err(invalid(
                    "the key came from a pool: make a new key, or renew at the VNFCI listener".to_owned(),
                ));
            }
            if same_key && until > held.key_since.plus(profile.cryptoperiod()) {
                return Err(invalid(format!(
                    "the key's cryptoperiod ({:?} by profile {}) ends before a new certificate would: make a new key",
                    profile.cryptoperiod(),
                    profile.name()
                )));
            }
            return Ok(names);
        }
        let values = NameValues {
            tenant: place.vnfci.tenant.clone(),
            vnf_instance: place.vnfci.vnf_instance.clone(),
            vdu: place.pool.vdu.clone(),
            credential,
            vnfci: Some(place.vnfci.id.clone()),
        };
        let names = profile.names(&values).map_err(|error| BrokerError::Precondition(error.to_string()))?;
        if profile.requested_names() == RequestedNames::Refuse && request.asks_for_names() {
            request.keeps_names_of(&names).map_err(|error| invalid(error.to_string()))?;
        }
        Ok(names)
    }

    /// The same certificate for the same key.
    async fn replay(
        &self,
        enroller: &Enroller,
        place: &Place,
        request_der: &[u8],
        before: &Enrolment,
    ) -> Result<Vec<u8>, BrokerError> {
        let facts = CertificateFacts::parse(&before.certificate_der)
            .map_err(|error| BrokerError::Internal(error.to_string()))?;
        let event = self.enrolment_event(enroller, place).await?.credentials([before.credential.clone()]);
        let details = EnrolmentDetails {
            serial: hex::encode(&facts.serial),
            tbs: None,
            certificate: Some(facts.fingerprint),
            not_after: before.not_after,
            ..describe_place(enroller, place, request_der, before.id, before.issuer)
        };
        let event = Event { kind: EventKind::EnrolmentReplayed, ..event };
        self.store.append_events(vec![event.details(details::json(&details))]).await?;
        Ok(before.certificate_der.clone())
    }

    async fn record_enrolment(
        &self,
        enrolment: NewEnrolment,
        base: Event,
        details: EnrolmentDetails,
    ) -> Result<EnrolmentOutcome, BrokerError> {
        let certificate = Sha256Hash::of(&enrolment.certificate.der);
        let mutation = Mutation::new(move |outcome: &EnrolmentOutcome| {
            let EnrolmentOutcome::Enrolled { credential, replaced, superseded, spent } = outcome else {
                return Vec::new();
            };
            let details = EnrolmentDetails { certificate: Some(certificate), spent: *spent, ..details };
            let mut enrolled = base.clone();
            enrolled.id = uuid::Uuid::now_v7();
            enrolled.kind = EventKind::Enrolled;
            enrolled.credentials = vec![credential.clone()];
            let mut events = vec![enrolled.details(details::json(&details))];
            let mut withdrawn = base;
            withdrawn.id = uuid::Uuid::now_v7();
            withdrawn.kind = EventKind::RevocationRequested;
            withdrawn.credentials = [&replaced.keys[..], &superseded.keys[..]].concat();
            if !withdrawn.credentials.is_empty() {
                let serials = replaced.revoked.iter().chain(&superseded.revoked);
                events.push(withdrawn.details(details::json(&RevocationDetails {
                    reason: RevocationReason::Superseded,
                    serials: serials.map(|(_, serial)| serial.clone()).collect(),
                })));
            }
            events
        });
        Ok(self.store.record_enrolment(enrolment, mutation).await?)
    }

    /// What the intent announced did not happen.
    pub(super) async fn record_failed_enrolment(&self, base: &Event, claim: ClaimId, error: &BrokerError) {
        let mut event = base.clone();
        event.id = uuid::Uuid::now_v7();
        event.kind = EventKind::OutcomeFailed;
        event.actor = Actor::broker();
        let details = FailedDetails { claim, step: "enrol".to_owned(), error: error.to_string() };
        let recorded = self.store.append_events(vec![event.details(details::json(&details))]).await;
        if let Err(lost) = recorded {
            tracing::error!(%claim, %error, %lost, "a failed enrolment could not be recorded");
        }
    }

    /// An event of an enrolment, without kind and details of its own.
    async fn enrolment_event(&self, enroller: &Enroller, place: &Place) -> Result<Event, BrokerError> {
        let actor = match &enroller.kind {
            EnrollerKind::Agent(caller) => caller.actor(),
            _ => vnfci_actor(&place.vnfci.tenant, &place.vnfci.id),
        };
        Ok(Event::new(self.store.now().await?, EventKind::EnrolmentStarted, actor)
            .tenant(&place.vnfci.tenant)
            .vnf_instance(&place.vnfci.vnf_instance)
            .vnfci(&place.vnfci.id))
    }
}

pub(super) fn invalid(problem: String) -> BrokerError {
    BrokerError::Invalid { field: "request".to_owned(), problem }
}

fn describe(
    enroller: &Enroller,
    place: &Place,
    request_der: &[u8],
    claim: ClaimId,
    issuer: IssuerId,
    tbs: &Tbs,
) -> EnrolmentDetails {
    EnrolmentDetails {
        serial: hex::encode(tbs.serial),
        tbs: Some(Sha256Hash::of(&tbs.der)),
        not_after: tbs.not_after,
        ..describe_place(enroller, place, request_der, claim, issuer)
    }
}

fn describe_place(
    enroller: &Enroller,
    place: &Place,
    request_der: &[u8],
    claim: ClaimId,
    issuer: IssuerId,
) -> EnrolmentDetails {
    let basis = match place.basis {
        EnrolmentBasis::InitialCredential(_) => "INITIAL_CREDENTIAL",
        EnrolmentBasis::Agent(_) => "AGENT",
        EnrolmentBasis::Certificate(_) => "CERTIFICATE",
    };
    EnrolmentDetails {
        claim,
        basis: basis.to_owned(),
        initial_credential: Some(
            place.follows.as_ref().map_or(place.vnfci.initial_credential.id, |held| held.initial_credential),
        ),
        shown: enroller.shown,
        slot: Some(place.slot.clone()),
        profile: place.profile.name().clone(),
        request: Sha256Hash::of(request_der),
        issuer,
        serial: String::new(),
        tbs: None,
        certificate: None,
        not_after: crate::clock::Timestamp::from_unix_seconds(0),
        spent: false,
        custody: "HOLDER".to_owned(),
    }
}
