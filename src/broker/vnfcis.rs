//! MANO announces VNFCIs and looks at them.

use crate::audit::details::{self, RegisteredDetails, RegisteredVnfci};
use crate::audit::event::{Event, EventKind};
use crate::authorisation::{Caller, Reach, Rpc, Target, authorise};
use crate::broker::{Broker, BrokerError, Request};
use crate::clock::Timestamp;
use crate::crash::{self, Point};
use crate::hsm::ObjectId;
use crate::identity::token::{Token, secret_input};
use crate::nfv::{InitialCredentialId, TenantId, VduId, VnfInstanceId, VnfciId};
use crate::store::Mutation;
use crate::store::records::{
    InitialCredential, InitialCredentialKind, NewVnfci, Page, RegisterOutcome, Slot, Vnfci, VnfciFilter,
};
use std::collections::{HashMap, HashSet};
use std::time::Duration;
use zeroize::Zeroizing;

/// VNFCIs in one call.
pub const LARGEST_BATCH: usize = 1_000;
/// Slots of one VNFCI.
pub const MOST_SLOTS: usize = 16;
/// How long an initial credential may be used where MANO does not say.
pub(super) const INITIAL_CREDENTIAL_VALIDITY: Duration = Duration::from_secs(24 * 3_600);

/// A VNFCI to be registered.
#[derive(Debug, Clone)]
pub struct Announcement {
    /// MANO's id.
    pub id: VnfciId,
    /// Its VNF instance.
    pub vnf_instance: VnfInstanceId,
    /// Its VDU.
    pub vdu: VduId,
    /// Its slots, 1 to 16.
    pub slots: Vec<Slot>,
    /// How its initial credential is recognised.
    pub initial_credential: InitialCredentialKind,
    /// None: 24 hours from now.
    pub expires_at: Option<Timestamp>,
}

/// The answer for one announcement.
pub enum Registered {
    /// Registered; with its token (`kb1.<id>.<base64url>`), if it was to get one. A secret.
    Done(VnfciId, Option<Zeroizing<String>>),
    /// Refused (the id as it was sent), and why.
    Refused(String, String),
}

impl Broker {
    /// Registers up to 1,000 VNFCIs; one answer per item in order. An item whose text did not parse is refused by
    /// the API before: it passes (the id as sent, the sentence) in place of the announcement.
    ///
    /// # Errors
    /// [`BrokerError::Invalid`] for an empty or too large batch, [`BrokerError::Denied`] if one item lies outside the
    /// caller's reach, [`BrokerError::QuotaExceeded`] if they are more than the tenant may have: then nothing is registered.
    pub async fn register_vnfcis(
        &self,
        caller: &Caller,
        request: Request,
        tenant: Option<TenantId>,
        items: Vec<Result<Announcement, (String, String)>>,
    ) -> Result<Vec<Registered>, BrokerError> {
        let tenant = Self::tenant_of(caller, tenant)?;
        if items.is_empty() || items.len() > LARGEST_BATCH {
            let problem = format!("has {} items; give 1 to {LARGEST_BATCH}", items.len());
            return Err(BrokerError::Invalid { field: "vnfcis".to_owned(), problem });
        }
        authorise_each(
            caller,
            Rpc::RegisterVnfcis,
            &tenant,
            items.iter().flatten().map(|item| &item.vnf_instance),
        )?;
        let now = self.store.now().await?;
        let mut judged = Vec::with_capacity(items.len());
        let mut accepted = Vec::new();
        let mut profiles = HashMap::new();
        for item in items {
            let mut checked = item.and_then(|item| {
                let id = item.id.to_string();
                check_announcement(item, now).map_err(|problem| (id, problem))
            });
            if let Ok(vnfci) = &checked
                && let Err(problem) = self.check_vnfci_names(&tenant, vnfci, &mut profiles).await?
            {
                checked = Err((vnfci.id.to_string(), problem));
            }
            judged.push(checked.map(|vnfci| {
                let id = vnfci.id.clone();
                accepted.push(vnfci);
                id
            }));
        }
        let event =
            Event::new(now, EventKind::VnfcisRegistered, caller.actor()).tenant(&tenant).request(request.id);
        let slots: Vec<Vec<Slot>> = accepted.iter().map(|vnfci| vnfci.slots.clone()).collect();
        let mutation = Mutation::new(move |outcomes: &Vec<RegisterOutcome>| {
            let vnfcis: Vec<RegisteredVnfci> = outcomes
                .iter()
                .zip(&slots)
                .filter_map(|(outcome, slots)| registered_vnfci(outcome, slots))
                .collect();
            if vnfcis.is_empty() {
                return Vec::new();
            }
            vec![event.details(details::json(&RegisteredDetails { vnfcis }))]
        });
        let mutation = mutation.request(request.key(caller.actor()));
        let quotas = self.quotas(&tenant);
        let outcomes = self.store.register_vnfcis(&tenant, accepted, &quotas, mutation).await?;
        crash::reached(Point::RegistrationCommitted);
        let outcomes = outcomes.into_iter().map(|outcome| match outcome {
            RegisterOutcome::Registered(credential) => Ok(credential),
            RegisterOutcome::Refused(problem) => Err(problem),
        });
        self.armed(judged, outcomes.collect()).await
    }

    /// The answers of a batch in the order of its items, of which `judged` has the accepted ids and the refusals (the id as
    /// sent, and why). Who has an initial credential by this very request is told so, whatever is wrong with the item by
    /// now: a request that is repeated after a while has the same outcome, and a token never stands beside another id.
    pub(super) async fn armed(
        &self,
        judged: Vec<Result<VnfciId, (String, String)>>,
        outcomes: Vec<Result<InitialCredential, String>>,
    ) -> Result<Vec<Registered>, BrokerError> {
        let mut done = HashMap::new();
        let mut refusals = Vec::new();
        for outcome in outcomes {
            match outcome {
                Ok(credential) => drop(done.insert(credential.vnfci.to_string(), credential)),
                Err(problem) => refusals.push(problem),
            }
        }
        let mut refusals = refusals.into_iter();
        let mut answers = Vec::with_capacity(judged.len());
        for item in judged {
            let id = item.as_ref().map_or_else(|(id, _)| id.clone(), VnfciId::to_string);
            answers.push(match (done.remove(&id), item) {
                (Some(credential), _) => {
                    let token = self.token_of(&credential).await?;
                    Registered::Done(credential.vnfci, token)
                }
                (None, Err((id, problem))) => Registered::Refused(id, problem),
                (None, Ok(_)) => {
                    let unknown = "was refused when this request was first made; make a new one";
                    Registered::Refused(id, refusals.next().unwrap_or_else(|| unknown.to_owned()))
                }
            });
        }
        Ok(answers)
    }

    /// The one-time token of an initial credential, computed by the HSM; none for other kinds.
    pub(super) async fn token_of(
        &self,
        credential: &InitialCredential,
    ) -> Result<Option<Zeroizing<String>>, BrokerError> {
        if credential.kind != InitialCredentialKind::Token {
            return Ok(None);
        }
        let input = secret_input(&credential.tenant, &credential.vnfci, credential.generation);
        let mac = Zeroizing::new(self.hsm.mac(&ObjectId::TokenMac(credential.tenant.clone()), &input).await?);
        crash::reached(Point::TokenComputed);
        Ok(Some(Token::new(credential.id, mac.as_slice())?.to_text()))
    }

    /// One VNFCI.
    ///
    /// # Errors
    /// [`BrokerError::NotFound`], [`BrokerError::Denied`].
    pub async fn vnfci(
        &self,
        caller: &Caller,
        tenant: Option<TenantId>,
        id: VnfciId,
    ) -> Result<Vnfci, BrokerError> {
        let tenant = Self::tenant_of(caller, tenant)?;
        self.reach_vnfci(caller, Rpc::GetVnfci, &tenant, &id).await
    }

    /// The VNFCIs within the caller's reach.
    ///
    /// # Errors
    /// [`BrokerError::Denied`].
    pub async fn vnfcis(
        &self,
        caller: &Caller,
        tenant: Option<TenantId>,
        vnf_instance: Option<VnfInstanceId>,
        page: Page,
    ) -> Result<Vec<Vnfci>, BrokerError> {
        let tenant = Self::tenant_of(caller, tenant)?;
        let target = Target { tenant: Some(&tenant), vnf_instance: vnf_instance.as_ref(), vnfci: None };
        let authorised = authorise(caller, Rpc::ListVnfcis, target)?;
        let vnf_instances = match vnf_instance {
            Some(one) => Some(vec![one]),
            None if authorised.reach() == Reach::GrantedVnfs => Some(caller.granted_vnfs.clone()),
            None => None,
        };
        Ok(self.store.vnfcis(&VnfciFilter { tenant: Some(tenant), vnf_instances }, &page).await?)
    }

    /// A VNFCI that the caller may do this with. Outside the caller's tenant nothing exists to be found.
    pub(super) async fn reach_vnfci(
        &self,
        caller: &Caller,
        rpc: Rpc,
        tenant: &TenantId,
        id: &VnfciId,
    ) -> Result<Vnfci, BrokerError> {
        if caller.tenant.as_ref().is_some_and(|own| own != tenant) {
            authorise(caller, rpc, Target { tenant: Some(tenant), ..Target::default() })?;
        }
        let vnfci = self.store.vnfci(tenant, id).await?;
        let target =
            Target { tenant: Some(tenant), vnf_instance: Some(&vnfci.vnf_instance), vnfci: Some(id) };
        authorise(caller, rpc, target)?;
        Ok(vnfci)
    }
}

/// Authorises a call on every VNF instance that it touches; on none, the tenant alone.
pub(super) fn authorise_each<'a>(
    caller: &Caller,
    rpc: Rpc,
    tenant: &TenantId,
    vnf_instances: impl Iterator<Item = &'a VnfInstanceId>,
) -> Result<(), BrokerError> {
    let distinct: HashSet<&VnfInstanceId> = vnf_instances.collect();
    for vnf_instance in &distinct {
        let target = Target { tenant: Some(tenant), vnf_instance: Some(vnf_instance), vnfci: None };
        authorise(caller, rpc, target)?;
    }
    if distinct.is_empty() && caller.tenant.as_ref().is_none_or(|own| own != tenant) {
        authorise(caller, rpc, Target { tenant: Some(tenant), ..Target::default() })?;
    }
    Ok(())
}

fn check_announcement(item: Announcement, now: Timestamp) -> Result<NewVnfci, String> {
    if item.slots.is_empty() || item.slots.len() > MOST_SLOTS {
        return Err(format!("has {} slots; give 1 to {MOST_SLOTS}", item.slots.len()));
    }
    let mut names = HashSet::new();
    if let Some(twice) = item.slots.iter().find(|slot| !names.insert(&slot.name)) {
        return Err(format!("has two slots named {}", twice.name));
    }
    let expires_at = item.expires_at.unwrap_or(now.plus(INITIAL_CREDENTIAL_VALIDITY));
    if expires_at <= now {
        return Err(format!("its initial credential expired at {expires_at}; give a later time"));
    }
    Ok(NewVnfci {
        id: item.id,
        vnf_instance: item.vnf_instance,
        vdu: item.vdu,
        slots: item.slots,
        initial_credential: InitialCredentialId::generate(),
        kind: item.initial_credential,
        expires_at,
    })
}

/// A registered VNFCI for the audit event; none for a refused item, which changed nothing.
fn registered_vnfci(outcome: &RegisterOutcome, slots: &[Slot]) -> Option<RegisteredVnfci> {
    let RegisterOutcome::Registered(credential) = outcome else { return None };
    let (kind, proof) = recognition(&credential.kind);
    Some(RegisteredVnfci {
        vnfci: credential.vnfci.clone(),
        initial_credential: credential.id,
        kind: kind.to_owned(),
        proof,
        expires_at: credential.expires_at,
        slots: slots.iter().map(|slot| format!("{} {}", slot.name, slot.pool)).collect(),
    })
}

/// Kind and proof of an initial credential, for audit events.
pub(super) fn recognition(kind: &InitialCredentialKind) -> (&'static str, Option<String>) {
    match kind {
        InitialCredentialKind::X509Fingerprint { anchor, fingerprint } => {
            ("X509", Some(format!("{anchor} sha256:{fingerprint}")))
        }
        InitialCredentialKind::X509Name { anchor, name } => ("X509", Some(format!("{anchor} {name}"))),
        InitialCredentialKind::Token => ("TOKEN", None),
    }
}
