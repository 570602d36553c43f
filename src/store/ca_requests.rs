//! CA keys that wait for the certificate of a root elsewhere.

use super::records::CaKeyRequest;
use super::{Mutation, Result};
use crate::nfv::TenantId;
use async_trait::async_trait;

/// The part of a [`super::Store`] that knows which key was requested for which CA.
#[async_trait]
pub trait CaRequestStore {
    /// Notes which key the request of a CA is for, in place of what was noted before. `AlreadyExists` if the tenant has
    /// requested that key for another CA.
    async fn request_ca(&self, requested: CaKeyRequest, mutation: Mutation<()>) -> Result<()>;
    /// The key that was last requested for each CA of a tenant, by name. It may have its certificate by now.
    async fn ca_requests(&self, tenant: &TenantId) -> Result<Vec<CaKeyRequest>>;
}
