//! What a tenant may have of something, and has.

use crate::nfv::TenantId;

/// What is bounded for each tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Quota {
    /// VNFCIs that are registered and not ended.
    Vnfcis,
    /// Pools that are not deleted.
    Pools,
    /// Keys that its pools are to keep ready: their targets, summed.
    PooledKeys,
}

impl Quota {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Vnfcis, Self::Pools, Self::PooledKeys];

    /// Its name in `[tenant.NAME]`, in answers and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Vnfcis => "max_vnfcis",
            Self::Pools => "max_pools",
            Self::PooledKeys => "max_pooled_keys",
        }
    }

    /// What it counts, in a sentence.
    const fn what(self) -> &'static str {
        match self {
            Self::Vnfcis => "live VNFCIs",
            Self::Pools => "pools",
            Self::PooledKeys => "pooled keys",
        }
    }

    /// How a tenant comes to have less.
    const fn remedy(self) -> &'static str {
        match self {
            Self::Vnfcis => "terminate VNFCIs that have ended",
            Self::Pools => "delete pools that nothing uses",
            Self::PooledKeys => "lower the targets of other pools",
        }
    }
}

/// A number for each [`Quota`]: what a tenant may have, or what it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quotas {
    /// [`Quota::Vnfcis`].
    pub vnfcis: u64,
    /// [`Quota::Pools`].
    pub pools: u64,
    /// [`Quota::PooledKeys`].
    pub pooled_keys: u64,
}

impl Quotas {
    /// What a tenant has that has nothing.
    pub const NONE: Self = Self { vnfcis: 0, pools: 0, pooled_keys: 0 };

    /// The number of one of them.
    pub const fn of(&self, quota: Quota) -> u64 {
        match quota {
            Quota::Vnfcis => self.vnfcis,
            Quota::Pools => self.pools,
            Quota::PooledKeys => self.pooled_keys,
        }
    }
}

impl Default for Quotas {
    /// What a tenant may have where the operator says nothing: 1,000,000 VNFCIs, 1,000 pools, 2,000,000 pooled keys.
    fn default() -> Self {
        Self { vnfcis: 1_000_000, pools: 1_000, pooled_keys: 2_000_000 }
    }
}

/// That a tenant would have more than it may. Nothing was added.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "tenant {tenant} may have {limit} {} ({}), has {used} and would have {}: {}, or have an operator raise {} in [tenant.{tenant}]",
    quota.what(), quota.as_str(), used.saturating_add(*asked), quota.remedy(), quota.as_str()
)]
pub struct QuotaExceeded {
    /// Whose.
    pub tenant: TenantId,
    /// Of what.
    pub quota: Quota,
    /// How many it may have.
    pub limit: u64,
    /// How many it has.
    pub used: u64,
    /// How many more were asked for.
    pub asked: u64,
}

impl QuotaExceeded {
    /// Fails if `asked` more than `used` are too many; never if none is asked for, however many there are.
    ///
    /// # Errors
    /// Itself.
    pub fn check(
        tenant: &TenantId,
        quota: Quota,
        quotas: &Quotas,
        used: u64,
        asked: u64,
    ) -> Result<(), Self> {
        let limit = quotas.of(quota);
        if asked == 0 || used.saturating_add(asked) <= limit {
            return Ok(());
        }
        Err(Self { tenant: tenant.clone(), quota, limit, used, asked })
    }
}
