//! What an operator configures while the broker runs.

use crate::audit::details::{self, ProfileDetails, TenantDetails};
use crate::audit::event::{Event, EventKind};
use crate::authorisation::{Authorised, Caller, Role, Rpc, Target, authorise};
use crate::broker::authorities::{Authority, unissued};
use crate::broker::clients;
use crate::broker::initialise::{CLIENT_VALIDITY, default_tenant, identity_event};
use crate::broker::making::PATIENTLY;
use crate::broker::profiles::{self, Profiles};
use crate::broker::quotas::TenantStatus;
use crate::broker::{Broker, BrokerError, Request};
use crate::ca::profile::ProfileIssuer;
use crate::ca::{CertificateFacts, CertificationRequest, Profile};
use crate::clock::HumaneDuration;
use crate::crash::{self, Point};
use crate::hsm::HsmStatus;
use crate::nfv::{IdentityName, ProfileName, Sha256Hash, TenantId, VnfInstanceId};
use crate::store::Mutation;
use crate::store::records::{Identity, Page, Pool, PoolFilter, Tenant};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// Bits of the smallest RSA key of which signatures are accepted.
const SMALLEST_RSA: usize = 2_048;

/// An identity to be registered.
#[derive(Debug, Clone)]
pub struct NewIdentity {
    /// Its name.
    pub name: IdentityName,
    /// Its role.
    pub role: Role,
    /// Its tenant.
    pub tenant: Option<TenantId>,
    /// For a VNFM.
    pub granted_vnfs: Vec<VnfInstanceId>,
    /// Its client certificate.
    pub certificate: IdentityCertificate,
}

/// Where the certificate of an identity comes from.
#[derive(Debug, Clone)]
pub enum IdentityCertificate {
    /// From some CA; it is known by its SHA-256 whoever signed it. DER.
    Given(Vec<u8>),
    /// From the default tenant's CA.
    Requested {
        /// PKCS#10, DER. Its names are not looked at.
        request_der: Vec<u8>,
        /// None for [`CLIENT_VALIDITY`], the longest.
        validity: Option<Duration>,
    },
}

impl Broker {
    /// Adds a tenant with its sub-CA and HMAC key on the token. Repeated after a failure in between, it completes.
    ///
    /// # Errors
    /// [`BrokerError::Denied`], [`BrokerError::AlreadyExists`], the HSM's.
    pub async fn add_tenant(
        &self,
        caller: &Caller,
        request: Request,
        tenant: TenantId,
    ) -> Result<TenantStatus, BrokerError> {
        let authorised = authorise(caller, Rpc::AddTenant, Target::default())?;
        self.no_doubt()?;
        let making = self.making_keys(Some(&tenant), PATIENTLY).await?;
        making.hold(self.ensure_tenant_keys(&making, &tenant)).await?;
        drop(making);
        let record = Tenant { id: tenant.clone(), created_at: self.store.now().await? };
        let event = self
            .event(&authorised, EventKind::TenantAdded, &request)
            .await?
            .tenant(&tenant)
            .details(details::json(&TenantDetails { tenant }));
        self.store.add_tenant(record.clone(), one(event, &authorised, &request)).await?;
        crash::reached(Point::TenantCommitted);
        // Repeated, it was added before.
        let added = self.tenant_statuses().await?.into_iter().find(|known| known.tenant.id == record.id);
        added.ok_or_else(|| BrokerError::NotFound(format!("tenant {}", record.id)))
    }

    /// Removes a tenant. Its CA stays on the token: it signs CRLs until its last certificate expires.
    ///
    /// # Errors
    /// [`BrokerError::Denied`], [`BrokerError::Precondition`] while it has pools or live VNFCIs, and for the default
    /// tenant, whose CA certifies the listeners.
    pub async fn remove_tenant(
        &self,
        caller: &Caller,
        request: Request,
        tenant: TenantId,
    ) -> Result<(), BrokerError> {
        let authorised = authorise(caller, Rpc::RemoveTenant, Target::default())?;
        if tenant == default_tenant() {
            let problem =
                "the default tenant's CA certifies the broker's own listeners; it cannot be removed";
            return Err(BrokerError::Precondition(problem.to_owned()));
        }
        let event = self
            .event(&authorised, EventKind::TenantRemoved, &request)
            .await?
            .tenant(&tenant)
            .details(details::json(&TenantDetails { tenant: tenant.clone() }));
        Ok(self.store.remove_tenant(&tenant, one(event, &authorised, &request)).await?)
    }

    /// Registers an identity by its client certificate.
    ///
    /// # Errors
    /// [`BrokerError::Denied`], [`BrokerError::Invalid`] for a role without the tenant that it needs or a certificate that is
    /// not accepted (`clients`), [`BrokerError::AlreadyExists`].
    pub async fn add_identity(
        &self,
        caller: &Caller,
        request: Request,
        new: NewIdentity,
    ) -> Result<Identity, BrokerError> {
        let authorised = authorise(caller, Rpc::AddIdentity, Target::default())?;
        self.check_identity(&new).await?;
        let certificate_der = self.identity_certificate(&new).await?;
        let facts = strong_certificate(&certificate_der)?;
        let now = self.store.now().await?;
        if now >= facts.not_after {
            return Err(invalid("identity.certificate_der", format!("expired at {}", facts.not_after)));
        }
        let chain = [certificate_der.clone()];
        self.load_authorities().await?;
        self.judge_client(&chain, new.tenant.as_ref()).await?.map_err(|error| {
            invalid(
                "identity.certificate_der",
                format!("is not accepted: {error}{}", clients::advice(&error)),
            )
        })?;
        let identity = Identity {
            name: new.name,
            role: new.role,
            tenant: new.tenant,
            granted_vnfs: new.granted_vnfs,
            certificate_der,
            fingerprint: facts.fingerprint,
            created_at: now,
        };
        let event =
            identity_event(self.event(&authorised, EventKind::IdentityAdded, &request).await?, &identity);
        self.store.add_identity(identity.clone(), one(event, &authorised, &request)).await?;
        // Repeated, it was added before.
        Ok(self.store.identity_by_fingerprint(identity.fingerprint).await?.unwrap_or(identity))
    }

    /// The certificate by which an identity is to be registered. Signed before it is recorded, like all that nobody has yet
    /// (ADR 7).
    async fn identity_certificate(&self, new: &NewIdentity) -> Result<Vec<u8>, BrokerError> {
        let (request_der, validity) = match &new.certificate {
            IdentityCertificate::Given(certificate_der) => return Ok(certificate_der.clone()),
            IdentityCertificate::Requested { request_der, validity } => {
                (request_der, validity.unwrap_or(CLIENT_VALIDITY))
            }
        };
        if validity.is_zero() || validity > CLIENT_VALIDITY {
            let longest = HumaneDuration(CLIENT_VALIDITY);
            return Err(invalid(
                "validity",
                format!("is {}: give {longest} or less", HumaneDuration(validity)),
            ));
        }
        let field = "certificate_request_der";
        let request = CertificationRequest::parse(request_der).map_err(|e| invalid(field, e.to_string()))?;
        if request.key_type().is_none() {
            return Err(invalid(field, "is for a key of a kind that is not served: make a P-256 one"));
        }
        // Repeated, it was signed before.
        let known = self.store.identities().await?.into_iter().find(|known| known.name == new.name);
        if let Some(known) = known {
            return Ok(known.certificate_der);
        }
        let authority = self.issuing(&default_tenant()).await?;
        let (now, role) = (self.store.now().await?, new.role.as_str());
        let tbs = authority
            .ca
            .client(new.name.as_str(), role, request.public_key_der(), validity, now, &mut rand::rng())
            .map_err(unissued)?;
        let certificate_der = self.sign_certificate(&authority.key, &tbs).await?;
        crash::reached(Point::IdentityCertified);
        Ok(certificate_der)
    }

    async fn check_identity(&self, new: &NewIdentity) -> Result<(), BrokerError> {
        let tenant_field = "identity.tenant";
        match (new.role, &new.tenant) {
            (Role::Vnfci, _) => {
                return Err(invalid(
                    "identity.role",
                    "a VNFCI is known by its delivered certificate, not registered",
                ));
            }
            (Role::Operator, Some(_)) => {
                return Err(invalid(tenant_field, "an operator belongs to no tenant; leave it empty"));
            }
            (Role::Nfvo | Role::Vnfm | Role::RegistrationAuthority, None) => {
                return Err(invalid(tenant_field, format!("a {} belongs to a tenant; name it", new.role)));
            }
            _ => {}
        }
        if !new.role.is_granted_vnfs() && !new.granted_vnfs.is_empty() {
            return Err(invalid(
                "identity.granted_vnf_instance_ids",
                "only a vnfm or a registration-authority is granted VNF instances",
            ));
        }
        if let Some(tenant) = &new.tenant
            && !self.store.tenants().await?.iter().any(|known| known.id == *tenant)
        {
            return Err(BrokerError::NotFound(format!("tenant {tenant}")));
        }
        Ok(())
    }

    /// All identities.
    ///
    /// # Errors
    /// [`BrokerError::Denied`].
    pub async fn identities(&self, caller: &Caller) -> Result<Vec<Identity>, BrokerError> {
        authorise(caller, Rpc::ListIdentities, Target::default())?;
        Ok(self.store.identities().await?)
    }

    /// Removes an identity. Its own identity an operator does not remove: nobody might be left to add one.
    ///
    /// # Errors
    /// [`BrokerError::Denied`], [`BrokerError::NotFound`], [`BrokerError::Precondition`].
    pub async fn remove_identity(
        &self,
        caller: &Caller,
        request: Request,
        name: IdentityName,
    ) -> Result<(), BrokerError> {
        let authorised = authorise(caller, Rpc::RemoveIdentity, Target::default())?;
        if caller.name == name.as_str() {
            let problem = "an operator cannot remove its own identity; let another operator do it";
            return Err(BrokerError::Precondition(problem.to_owned()));
        }
        let identities = self.store.identities().await?;
        let mut event = self.event(&authorised, EventKind::IdentityRemoved, &request).await?;
        if let Some(identity) = identities.iter().find(|identity| identity.name == name) {
            event = identity_event(event, identity);
        }
        Ok(self.store.remove_identity(&name, one(event, &authorised, &request)).await?)
    }

    /// Checks a profile and writes its file; replaces one of the same name.
    ///
    /// # Errors
    /// [`BrokerError::Denied`], [`BrokerError::Invalid`] with the line of the mistake, [`BrokerError::Precondition`] if a
    /// pool uses it that issues at another time.
    pub async fn add_profile(
        &self,
        caller: &Caller,
        request: Request,
        name: ProfileName,
        toml: String,
    ) -> Result<(), BrokerError> {
        let authorised = authorise(caller, Rpc::AddProfile, Target::default())?;
        let profile = Profile::parse(name.clone(), &toml)
            .map_err(|error| invalid("profile.toml", error.to_string()))?;
        if let ProfileIssuer::External(issuer) = profile.issuer()
            && !self.issuers.load().contains_key(issuer)
        {
            let problem = format!("issuer {issuer} is not configured: add [issuer.{issuer}], then SIGHUP");
            return Err(invalid("profile.toml", problem));
        }
        self.load_authorities().await?;
        let has_ca = |authority: &Arc<Authority>| {
            authority.tenant.is_some() && !authority.is_root() && authority.name == *profile.ca()
        };
        if *profile.issuer() == ProfileIssuer::SubCa && !self.authorities.load().all().iter().any(has_ca) {
            let problem = format!(
                "ca = \"{}\": no tenant has a CA of this name; make it first (`keybroker ca add`, or `keybroker ca csr` and \
                 `ca import`), or correct the name",
                profile.ca()
            );
            return Err(invalid("profile.toml", problem));
        }
        if let Some(user) = self.pools_of(&name).await?.iter().find(|pool| pool.issue != profile.issue()) {
            let problem = format!(
                "pool {} of tenant {} uses profile {name} with issue = \"{}\", which cannot change under it; add a \
                 profile of another name and create a new pool",
                user.name, user.tenant, user.issue
            );
            return Err(BrokerError::Precondition(problem));
        }
        let content = Some(Sha256Hash::of(toml.as_bytes()));
        let event = self.event(&authorised, EventKind::ProfileChanged, &request).await?;
        self.store
            .append_events(vec![
                event.details(details::json(&ProfileDetails { profile: name.clone(), content })),
            ])
            .await?;
        let path = profiles::file(&self.settings.load().directory, &name);
        write_whole(&path, toml.as_bytes()).map_err(|error| unwritten(&path, &error))?;
        self.reload_profiles(&self.settings.load().directory)
    }

    /// All profiles with their files' texts.
    ///
    /// # Errors
    /// [`BrokerError::Denied`].
    pub async fn profiles(&self, caller: &Caller) -> Result<Vec<(ProfileName, String)>, BrokerError> {
        authorise(caller, Rpc::ListProfiles, Target::default())?;
        Ok(self.profiles.load().texts())
    }

    /// Removes a profile's file.
    ///
    /// # Errors
    /// [`BrokerError::Denied`], [`BrokerError::NotFound`], [`BrokerError::Precondition`] while a pool uses it.
    pub async fn remove_profile(
        &self,
        caller: &Caller,
        request: Request,
        name: ProfileName,
    ) -> Result<(), BrokerError> {
        let authorised = authorise(caller, Rpc::RemoveProfile, Target::default())?;
        if self.profiles.load().get(&name).is_none() {
            return Err(BrokerError::NotFound(format!("profile {name}")));
        }
        if let Some(user) = self.pools_of(&name).await?.first() {
            let problem = format!(
                "pool {} of tenant {} uses profile {name}; delete the pool first",
                user.name, user.tenant
            );
            return Err(BrokerError::Precondition(problem));
        }
        let event = self.event(&authorised, EventKind::ProfileChanged, &request).await?;
        let removed = ProfileDetails { profile: name.clone(), content: None };
        self.store.append_events(vec![event.details(details::json(&removed))]).await?;
        let path = profiles::file(&self.settings.load().directory, &name);
        std::fs::remove_file(&path).map_err(|error| unwritten(&path, &error))?;
        self.reload_profiles(&self.settings.load().directory)
    }

    /// The pools that use a profile.
    async fn pools_of(&self, profile: &ProfileName) -> Result<Vec<Pool>, BrokerError> {
        let every = Page { after: None, limit: u32::MAX };
        let mut pools = self.store.pools(&PoolFilter::default(), &every).await?;
        pools.retain(|pool| pool.profile == *profile);
        Ok(pools)
    }

    /// Health of the broker's own token, and of each tenant's that has one.
    ///
    /// # Errors
    /// [`BrokerError::Denied`].
    pub async fn hsm_status(
        &self,
        caller: &Caller,
    ) -> Result<(HsmStatus, Vec<(TenantId, HsmStatus)>), BrokerError> {
        authorise(caller, Rpc::GetHsmStatus, Target::default())?;
        let tenants = self.hsm.tenants_with_tokens();
        Ok((self.hsm.status(), tenants.map(|tenant| (tenant.clone(), self.hsm.status_of(tenant))).collect()))
    }

    /// Reads the profiles again. One reading at a time: none replaces a later one.
    pub(super) fn reload_profiles(&self, directory: &Path) -> Result<(), BrokerError> {
        let _one_at_a_time = self.profiles_reading.lock().unwrap_or_else(PoisonError::into_inner);
        self.profiles.store(Arc::new(Profiles::read(directory)?));
        Ok(())
    }

    pub(super) async fn event(
        &self,
        authorised: &Authorised,
        kind: EventKind,
        request: &Request,
    ) -> Result<Event, BrokerError> {
        Ok(Event::new(self.store.now().await?, kind, authorised.actor()).request(request.id))
    }
}

/// A change with one event.
pub(super) fn one(event: Event, authorised: &Authorised, request: &Request) -> Mutation<()> {
    Mutation::new(move |()| vec![event]).request(request.key(authorised.actor()))
}

pub(super) fn certificate(der: &[u8]) -> Result<CertificateFacts, BrokerError> {
    CertificateFacts::parse(der).map_err(|error| invalid("certificate_der", error.to_string()))
}

/// A certificate whose key can prove or vouch for anything: with a smaller one every handshake, or every path, would be
/// refused later and out of the operator's sight.
pub(super) fn strong_certificate(der: &[u8]) -> Result<CertificateFacts, BrokerError> {
    let facts = certificate(der)?;
    match facts.rsa_bits() {
        Some(bits) if bits < SMALLEST_RSA => Err(invalid(
            "certificate_der",
            format!("has an RSA key of {bits} bits: give one of {SMALLEST_RSA} or more, or an EC key"),
        )),
        _ => Ok(facts),
    }
}

pub(super) fn invalid(field: &str, problem: impl Into<String>) -> BrokerError {
    BrokerError::Invalid { field: field.to_owned(), problem: problem.into() }
}

fn unwritten(path: &Path, error: &std::io::Error) -> BrokerError {
    BrokerError::Precondition(format!("{} could not be changed: {error}", path.display()))
}

/// Writes a file so that a reader sees the old or the new text, never a part.
fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let part = path.with_extension("toml.part");
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(&part)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&part, path)
}
