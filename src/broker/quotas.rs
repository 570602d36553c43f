//! What each tenant may have, and has.

use crate::authorisation::{Caller, Rpc, Target, authorise};
use crate::broker::{Broker, BrokerError};
use crate::nfv::TenantId;
use crate::store::records::Tenant;

pub use crate::store::records::{Quota, Quotas};

/// A tenant with its quotas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantStatus {
    /// The tenant.
    pub tenant: Tenant,
    /// What it may have.
    pub quotas: Quotas,
    /// What it has: more than it may where a quota was lowered since.
    pub used: Quotas,
}

impl Broker {
    /// All tenants, with their quotas.
    ///
    /// # Errors
    /// [`BrokerError::Denied`].
    pub async fn tenants(&self, caller: &Caller) -> Result<Vec<TenantStatus>, BrokerError> {
        authorise(caller, Rpc::ListTenants, Target::default())?;
        self.tenant_statuses().await
    }

    pub(super) async fn tenant_statuses(&self) -> Result<Vec<TenantStatus>, BrokerError> {
        let tenants = self.store.tenants().await?;
        let used = self.store.quotas_used().await?;
        let of = |tenant: Tenant| {
            let used = used.get(&tenant.id).copied().unwrap_or(Quotas::NONE);
            TenantStatus { quotas: self.quotas(&tenant.id), used, tenant }
        };
        Ok(tenants.into_iter().map(of).collect())
    }

    /// What a tenant may have.
    pub(super) fn quotas(&self, tenant: &TenantId) -> Quotas {
        self.settings.load().tenant(tenant).quotas
    }

    /// Shows in the metrics how much of its quotas each tenant has.
    pub(super) async fn measure_quotas(&self) -> Result<(), BrokerError> {
        for (tenant, used) in self.store.quotas_used().await? {
            let quotas = self.quotas(&tenant);
            for quota in Quota::ALL {
                let labels = [("tenant", tenant.to_string()), ("quota", quota.as_str().to_owned())];
                metrics::gauge!("keybroker_quota_used", &labels).set(used.of(quota) as f64);
                metrics::gauge!("keybroker_quota_limit", &labels).set(quotas.of(quota) as f64);
            }
        }
        Ok(())
    }
}
