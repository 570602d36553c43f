//! Tokens are asked apart from each other: one that hangs holds up its own tenant's work, and nobody else's.

use crate::broker::Broker;
use crate::nfv::TenantId;

/// Whose keys a round of background work asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Share {
    /// What is on the broker's own token: its own keys, and those of every tenant without a token.
    Common,
    /// What is on a tenant's own token.
    Own(TenantId),
}

impl Broker {
    /// Whether a tenant's keys are in this share; none: the broker's own.
    pub(super) fn is_in(&self, share: &Share, tenant: Option<&TenantId>) -> bool {
        match share {
            Share::Common => tenant.is_none_or(|tenant| !self.has_token(tenant)),
            Share::Own(owner) => tenant == Some(owner),
        }
    }

    /// Whether a tenant has a token of its own.
    pub(super) fn has_token(&self, tenant: &TenantId) -> bool {
        self.hsm.tenants_with_tokens().any(|with| with == tenant)
    }
}
