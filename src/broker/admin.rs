//! What an operator configures while the broker runs.

use crate::authorisation::{Caller, Role};
use crate::broker::{Broker, BrokerError, Request};
use crate::hsm::HsmStatus;
use crate::nfv::{AnchorName, IdentityName, ProfileName, TenantId, VnfInstanceId};
use crate::store::records::{Anchor, Identity, Tenant};

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
    pub certificate_der: Vec<u8>,
}

impl Broker {
    /// Adds a tenant with its sub-CA and HMAC key on the token.
    pub async fn add_tenant(
        &self,
        _caller: &Caller,
        _request: Request,
        _tenant: TenantId,
    ) -> Result<Tenant, BrokerError> {
        todo!()
    }
    /// All tenants.
    pub async fn tenants(&self, _caller: &Caller) -> Result<Vec<Tenant>, BrokerError> {
        todo!()
    }
    /// Removes a tenant.
    pub async fn remove_tenant(
        &self,
        _caller: &Caller,
        _request: Request,
        _tenant: TenantId,
    ) -> Result<(), BrokerError> {
        todo!()
    }
    /// Adds a trust anchor.
    pub async fn add_anchor(
        &self,
        _caller: &Caller,
        _request: Request,
        _tenant: TenantId,
        _name: AnchorName,
        _certificate_der: Vec<u8>,
    ) -> Result<Anchor, BrokerError> {
        todo!()
    }
    /// Anchors of one tenant or of all.
    pub async fn anchors(
        &self,
        _caller: &Caller,
        _tenant: Option<TenantId>,
    ) -> Result<Vec<Anchor>, BrokerError> {
        todo!()
    }
    /// Removes a trust anchor.
    pub async fn remove_anchor(
        &self,
        _caller: &Caller,
        _request: Request,
        _tenant: TenantId,
        _name: AnchorName,
    ) -> Result<(), BrokerError> {
        todo!()
    }
    /// Registers an identity.
    pub async fn add_identity(
        &self,
        _caller: &Caller,
        _request: Request,
        _identity: NewIdentity,
    ) -> Result<Identity, BrokerError> {
        todo!()
    }
    /// All identities.
    pub async fn identities(&self, _caller: &Caller) -> Result<Vec<Identity>, BrokerError> {
        todo!()
    }
    /// Removes an identity.
    pub async fn remove_identity(
        &self,
        _caller: &Caller,
        _request: Request,
        _name: IdentityName,
    ) -> Result<(), BrokerError> {
        todo!()
    }
    /// Checks a profile and writes its file.
    pub async fn add_profile(
        &self,
        _caller: &Caller,
        _request: Request,
        _name: ProfileName,
        _toml: String,
    ) -> Result<(), BrokerError> {
        todo!()
    }
    /// All profiles with their files' texts.
    pub async fn profiles(&self, _caller: &Caller) -> Result<Vec<(ProfileName, String)>, BrokerError> {
        todo!()
    }
    /// Removes a profile's file.
    pub async fn remove_profile(
        &self,
        _caller: &Caller,
        _request: Request,
        _name: ProfileName,
    ) -> Result<(), BrokerError> {
        todo!()
    }
    /// Health of the HSM.
    pub async fn hsm_status(&self, _caller: &Caller) -> Result<HsmStatus, BrokerError> {
        todo!()
    }
}
