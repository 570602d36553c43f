//! A certificate for a key that its holder made and keeps (ETSI GR NFV-SEC 005 8.1.2.1 and 8.1.2.2, RFC 7030).
//!
//! 1. Who asks: a VNFCI by its initial credential, a VNFM as agent of one (for its first certificates, or for those that
//!    follow the ones that are to be renewed), a VNFCI by a certificate that it has, or a registration
//!    authority ([`Broker::identify_enroller`]), whose way is that of `enrol_vouched.rs` from here on, or of
//!    `renew_identity.rs` for the certificate that it shows.
//! 2. Read the request: its own signature proves possession of the key.
//! 3. Find the slot that is to be filled, and its profile. The same key again gets the same certificate again.
//! 4. Hold the request's wishes against the profile, which gives the names.
//! 5. Record the intent with serial number and hash of what is to be signed; sign in the HSM.
//! 6. Record the certificate, spend the initial credential: one commit. Only then is the certificate given out. Who lost a
//!    race is refused here, and what was signed for it is dropped.

mod key_generation;
mod names;

pub use key_generation::GeneratedKey;

use crate::audit::details::{self, EnrolmentDetails, RevocationDetails};
use crate::audit::event::{Event, EventCredential, EventKind};
use crate::authorisation::{Caller, Denied, Rpc, reach};
use crate::broker::claim::REDRAWS_ALLOWED;
use crate::broker::confirm::vnfci_actor;
use crate::broker::enrol_certificate::{Enrolling, Signed, told, too_many};
use crate::broker::notes::Delivery;
use crate::broker::renew::reenrol_after;
use crate::broker::{Broker, BrokerError, Peer};
use crate::ca::profile::ProfileIssuer;
use crate::ca::{CertificationRequest, Profile};
use crate::crash::Point;
use crate::credential::RevocationReason;
use crate::identity::{Purpose, Verified};
use crate::nfv::{CredentialId, IssuerId, ProfileName, RequestId, Sha256Hash, SlotName, TenantId, VnfciId};
use crate::store::Mutation;
use crate::store::records::{
    Enrolment, EnrolmentBasis, EnrolmentOutcome, InitialCredentialState, NewEnrolment, Pool, Vnfci,
    VnfciState, next_reenrolment,
};
use std::sync::Arc;

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
    /// `again`: a certificate of the VNFCI that is to be renewed is followed.
    Agent {
        caller: Caller,
        again: bool,
    },
    Authority(Caller),
    /// A registered client that asks for what follows its own certificate, DER.
    Registered(Caller, Vec<u8>),
    Holder(Caller, Box<Enrolment>),
}

impl Enroller {
    /// The caller, for the audit log.
    pub fn caller(&self) -> Caller {
        match &self.kind {
            EnrollerKind::InitialCredential(verified) => {
                Caller::vnfci(verified.tenant().clone(), verified.vnfci().clone())
            }
            EnrollerKind::Agent { caller, .. }
            | EnrollerKind::Authority(caller)
            | EnrollerKind::Registered(caller, _)
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
    /// The initial credential is spent: who lost the answer is told again what it got, and no more.
    spent: bool,
}

impl Broker {
    /// Who is behind an EST connection. `again`: the client asks for a certificate that follows the one it shows; shown
    /// an initial certificate instead, this is a first enrolment, and so is an agent's for a VNFCI that has nothing to be
    /// renewed (strongSwan always asks so).
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
            let may = |rpc| reach(caller.role, rpc).is_some();
            if again && may(Rpc::RenewIdentity) {
                EnrollerKind::Registered(caller, leaf.clone())
            } else if may(Rpc::EnrolVouched) {
                EnrollerKind::Authority(caller)
            } else if may(Rpc::EnrolVnfci) {
                EnrollerKind::Agent { caller, again }
            } else {
                return Err(Denied::Role(caller.role, Rpc::EnrolVnfci).into());
            }
        } else {
            let unused = (RequestId::generate(), Sha256Hash([0; 32]));
            let verified =
                self.verify_initial_credential(peer, None, unused.0, unused.1, Purpose::Enrol).await?;
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
        if let EnrollerKind::Authority(caller) | EnrollerKind::Registered(caller, _) = &enroller.kind {
            if let Some(named) = on_behalf_of {
                let reason = format!("{} named VNFCI {named}, and is nobody's agent", caller.name);
                return Err(BrokerError::refused("VNFCI_FOREIGN", reason));
            }
            return match &enroller.kind {
                EnrollerKind::Registered(_, shown_der) => {
                    self.renew_identity(caller, shown_der, &request, request_der).await
                }
                _ => self.enrol_vouched(caller, enroller.shown, label, &request, request_der).await,
            };
        }
        // 3.
        if let Some(profile) = &label.profile {
            self.known_profile(profile)?;
        }
        let place = self.place(enroller, label, &request, on_behalf_of).await?;
        self.may_deliver()?;
        let enrolled = self.store.enrolments(&place.vnfci.initial_credential).await?;
        let now = self.store.now().await?;
        let before = enrolled.iter().rev().find(|found| {
            found.slot == place.slot
                && found.credential.public_key == key
                && found.is_in_force(now)
                && place.follows.as_ref().is_none_or(|held| held.certificate_der != found.certificate_der)
        });
        if let Some(before) = before {
            let details = EnrolmentDetails {
                claim: before.id,
                ..describe(enroller, &place, request_der, before.issuer)
            };
            let event = self.enrolment_event(enroller, &place).await?;
            let (credential, der) = (before.credential.clone(), before.certificate_der.clone());
            return self.replay_enrolment(event, credential, der, details).await;
        }
        if place.spent {
            let reason = format!("VNFCI {} has its certificates: re-arm it", place.vnfci.id);
            let refused = BrokerError::refused("SPENT", reason);
            return Err(refused.concerning(&place.vnfci.tenant, Some(&place.vnfci.id)));
        }
        let overlap = self.settings.load().tenant(&place.vnfci.tenant).renewal_overlap;
        if place.follows.is_some() {
            // Seen before anything is signed; the store has the last word.
            let of_slot = enrolled.iter().filter(|found| found.slot == place.slot);
            let superseded = of_slot.filter_map(|found| found.superseded_at).collect();
            if let Some(until) = next_reenrolment(superseded, overlap, now) {
                let of = (&place.vnfci.tenant, Some(&place.vnfci.id));
                return Err(too_many(of, until.since(now)));
            }
        }
        // 4.
        if let ProfileIssuer::External(name) = place.profile.issuer() {
            return Err(invalid(format!(
                "profile {} is certified by issuer {name}, not here: enrol there",
                place.profile.name()
            )));
        }
        let credential = EventCredential { id: CredentialId::generate(), public_key: key };
        let names = self.names(&place, &request, credential.id).await?;
        let enrolling = Enrolling {
            tenant: &place.vnfci.tenant,
            profile: &place.profile,
            names: &names,
            request: &request,
            event: self.enrolment_event(enroller, &place).await?.credentials([credential.clone()]),
            points: [Point::EnrolmentIntended, Point::EnrolmentSigned],
        };
        // 5.
        let Signed { certificate, event, details } =
            self.sign_enrolment(enrolling, |issuer| describe(enroller, &place, request_der, issuer)).await?;
        // 6.
        let (claim, der) = (details.claim, certificate.der.clone());
        let enrolment = NewEnrolment {
            id: claim,
            basis: place.basis,
            slot: place.slot.clone(),
            credential,
            public_key_der: request.public_key_der().to_vec(),
            certificate,
            redraws_allowed: REDRAWS_ALLOWED,
            spend: self.settings.load().tenant(&place.vnfci.tenant).spend_on_enrolment,
            overlap,
        };
        let outcome = self.record_enrolment(enrolment, event.clone(), details).await;
        let of = (&place.vnfci.tenant, Some(&place.vnfci.id));
        self.conclude_enrolment(&event, claim, der, outcome, Point::EnrolmentCommitted, of).await
    }

    /// The profiles of the slots that a VNFCI itself may fill, each once; of an agent or an authority none.
    pub(super) async fn profiles_of(&self, enroller: &Enroller) -> Result<Vec<ProfileName>, BrokerError> {
        let (tenant, id, slot) = match &enroller.kind {
            EnrollerKind::InitialCredential(verified) => (verified.tenant(), verified.vnfci(), None),
            EnrollerKind::Holder(_, held) => (&held.tenant, &held.vnfci, Some(&held.slot)),
            EnrollerKind::Agent { .. } | EnrollerKind::Authority(_) | EnrollerKind::Registered(..) => {
                return Ok(Vec::new());
            }
        };
        let vnfci = self.store.vnfci(tenant, id).await?;
        let mut fitting = self.fitting_slots(&vnfci, &Label::default()).await?;
        fitting.retain(|(name, _)| slot.is_none_or(|slot| slot == name));
        Ok(distinct_profiles(&fitting))
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
            EnrollerKind::Agent { caller, .. } => {
                let tenant = Self::tenant_of(caller, label.tenant.clone())?;
                let id = self.principal(caller, &tenant, request, on_behalf_of.as_ref()).await?;
                (tenant, id)
            }
            EnrollerKind::Authority(caller) | EnrollerKind::Registered(caller, _) => {
                return Err(Denied::NoTarget(caller.name.clone()).into());
            }
        };
        let refused =
            |code, reason: String| BrokerError::refused(code, reason).concerning(&tenant, Some(&id));
        // Only an agent may name someone else, whose place this is then.
        names_itself(&tenant, &id, label, on_behalf_of.as_ref())?;
        let vnfci = self.store.vnfci(&tenant, &id).await?;
        let arming = &vnfci.initial_credential;
        let key = Sha256Hash::of(request.public_key_der());
        let mut fitting = self.fitting_slots(&vnfci, label).await?;
        let follows = match &enroller.kind {
            EnrollerKind::Holder(_, held) => Some((**held).clone()),
            EnrollerKind::Agent { again: true, .. } => self.to_be_renewed(&vnfci, &fitting, key).await?,
            _ => None,
        };
        let basis = match (&enroller.kind, &follows) {
            (_, Some(held)) => EnrolmentBasis::Certificate(Sha256Hash::of(&held.certificate_der)),
            (EnrollerKind::InitialCredential(verified), None) => {
                EnrolmentBasis::InitialCredential(verified.credential())
            }
            (_, None) => EnrolmentBasis::Agent(arming.id),
        };
        if matches!(vnfci.state, VnfciState::Released | VnfciState::Terminated) {
            return Err(refused("VNFCI_ENDED", format!("VNFCI {id} is {}", vnfci.state)));
        }
        let now = self.store.now().await?;
        let overlap = self.settings.load().tenant(&tenant).renewal_overlap;
        if let Some(since) = follows.as_ref().and_then(|held| held.superseded_at)
            && now >= since.plus(overlap)
        {
            let reason = format!("the certificate was superseded at {since}, and the overlap is over");
            return Err(refused("CERTIFICATE_SUPERSEDED", reason));
        }
        let mut spent = false;
        if follows.is_none() {
            let current = !matches!(&basis, EnrolmentBasis::InitialCredential(shown) if *shown != arming.id);
            match arming.state {
                InitialCredentialState::Open if current => {}
                InitialCredentialState::Spent if current && now < arming.expires_at => spent = true,
                InitialCredentialState::Open | InitialCredentialState::Spent => {
                    return Err(refused("SPENT", format!("VNFCI {id} has its certificates: re-arm it")));
                }
                InitialCredentialState::Void => return Err(refused("VOIDED", format!("VNFCI {id}"))),
            }
            self.names_nobody_else(&tenant, &id, &request.identifiers()).await?;
        }
        if let Some(held) = &follows {
            fitting.retain(|(slot, _)| *slot == held.slot);
        }
        one_profile(&id, &fitting)?;
        let chosen = self.next_slot(arming, fitting, &key).await?;
        let Some((slot, pool)) = chosen else {
            return Err(no_such_slot(&id));
        };
        let profile = self.known_profile(&pool.profile)?;
        Ok(Place { slot, pool, profile, basis, follows, vnfci, spent })
    }

    /// The slots of a VNFCI that the label may mean, each with its pool.
    async fn fitting_slots(
        &self,
        vnfci: &Vnfci,
        label: &Label,
    ) -> Result<Vec<(SlotName, Pool)>, BrokerError> {
        let mut fitting = Vec::new();
        for slot in &vnfci.slots {
            let pool = self.store.pool(&vnfci.tenant, &slot.pool).await?;
            if label.profile.as_ref().is_none_or(|profile| *profile == pool.profile) {
                fitting.push((slot.name.clone(), pool));
            }
        }
        Ok(fitting)
    }

    /// What an agent's request follows, since nobody shows it: of the certificates in force the one that is to be renewed, by
    /// its validity or because MANO asked. None if there is none, or if the key has one that is not.
    async fn to_be_renewed(
        &self,
        vnfci: &Vnfci,
        fitting: &[(SlotName, Pool)],
        key: Sha256Hash,
    ) -> Result<Option<Enrolment>, BrokerError> {
        let now = self.store.now().await?;
        let mut due = Vec::new();
        for held in self.store.enrolments(&vnfci.initial_credential).await? {
            if !held.is_in_force(now) || !fitting.iter().any(|(slot, _)| *slot == held.slot) {
                continue;
            }
            let is_due = reenrol_after(&held, vnfci)? <= now;
            if held.credential.public_key == key {
                return Ok(is_due.then_some(held));
            }
            if is_due {
                due.push(held);
            }
        }
        if !due.is_empty() {
            one_profile(&vnfci.id, fitting)?;
        }
        Ok(due.into_iter().next())
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

    async fn record_enrolment(
        &self,
        enrolment: NewEnrolment,
        base: Event,
        details: EnrolmentDetails,
    ) -> Result<EnrolmentOutcome, BrokerError> {
        let delivery = Delivery::default();
        let kept = delivery.clone();
        let mutation = Mutation::new(move |outcome: &EnrolmentOutcome| {
            let EnrolmentOutcome::Enrolled { credential, replaced, superseded, spent } = outcome else {
                return Vec::new();
            };
            let details = EnrolmentDetails { spent: *spent, ..details };
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
                    unknown: Vec::new(),
                })));
            }
            kept.keep(events)
        });
        let outcome = self.store.record_enrolment(enrolment, mutation.delivering()).await?;
        self.note_delivery(&delivery, Vec::new()).await;
        Ok(outcome)
    }

    /// An event of an enrolment, without kind and details of its own.
    async fn enrolment_event(&self, enroller: &Enroller, place: &Place) -> Result<Event, BrokerError> {
        let actor = match &enroller.kind {
            EnrollerKind::Agent { caller, .. } => caller.actor(),
            _ => vnfci_actor(&place.vnfci.tenant, &place.vnfci.id),
        };
        Ok(Event::new(self.store.now().await?, EventKind::EnrolmentStarted, actor)
            .tenant(&place.vnfci.tenant)
            .vnf_instance(&place.vnfci.vnf_instance)
            .vnfci(&place.vnfci.id))
    }
}

/// Fails if the label names another tenant, or the query another VNFCI.
fn names_itself(
    tenant: &TenantId,
    id: &VnfciId,
    label: &Label,
    on_behalf_of: Option<&VnfciId>,
) -> Result<(), BrokerError> {
    let refused = |code, reason: String| BrokerError::refused(code, reason).concerning(tenant, Some(id));
    if label.tenant.as_ref().is_some_and(|named| named != tenant) {
        return Err(refused("TENANT_FOREIGN", format!("the label names another tenant than {tenant}")));
    }
    if on_behalf_of.is_some_and(|named| named != id) {
        return Err(refused("VNFCI_FOREIGN", format!("VNFCI {id} asked for another one")));
    }
    Ok(())
}

/// In the order of the slots.
fn distinct_profiles(fitting: &[(SlotName, Pool)]) -> Vec<ProfileName> {
    let mut profiles = Vec::new();
    for (_, pool) in fitting {
        if !profiles.contains(&pool.profile) {
            profiles.push(pool.profile.clone());
        }
    }
    profiles
}

/// Fails if the slots have several profiles.
fn one_profile(vnfci: &VnfciId, fitting: &[(SlotName, Pool)]) -> Result<(), BrokerError> {
    let profiles = distinct_profiles(fitting);
    if profiles.len() < 2 {
        return Ok(());
    }
    let profiles: Vec<_> = profiles.iter().map(ProfileName::as_str).collect();
    Err(invalid(format!(
        "VNFCI {vnfci} has slots of the profiles {}: name one in the path, /.well-known/est/PROFILE/simpleenroll",
        profiles.join(", ")
    )))
}

fn no_such_slot(vnfci: &VnfciId) -> BrokerError {
    invalid(format!("VNFCI {vnfci} has no slot of the profile that the path names"))
}

pub(super) fn invalid(problem: String) -> BrokerError {
    BrokerError::Invalid { field: "request".to_owned(), problem }
}

fn describe(enroller: &Enroller, place: &Place, request_der: &[u8], issuer: IssuerId) -> EnrolmentDetails {
    let basis = match place.basis {
        EnrolmentBasis::InitialCredential(_) => "INITIAL_CREDENTIAL",
        EnrolmentBasis::Agent(_) => "AGENT",
        EnrolmentBasis::Certificate(_) => "CERTIFICATE",
    };
    let initial =
        place.follows.as_ref().map_or(place.vnfci.initial_credential.id, |held| held.initial_credential);
    EnrolmentDetails {
        initial_credential: Some(initial),
        slot: Some(place.slot.clone()),
        ..told(basis, enroller.shown, place.profile.name(), request_der, issuer)
    }
}
