//! Table `ca_requests`.

use super::SqlStore;
use super::change::{self, Keep};
use super::connection::Connection;
use super::engine::{Engine, change, read};
use super::statement::query;
use crate::nfv::TenantId;
use crate::store::records::CaKeyRequest;
use crate::store::{CaRequestStore, Mutation, Result};
use async_trait::async_trait;

#[async_trait]
impl<E: Engine> CaRequestStore for SqlStore<E> {
    async fn request_ca(&self, requested: CaKeyRequest, mutation: Mutation<()>) -> Result<()> {
        change!(self, Outcome, mutation, |tx, now| note(tx, &requested))
    }

    async fn ca_requests(&self, tenant: &TenantId) -> Result<Vec<CaKeyRequest>> {
        read!(self, |tx| of_tenant(tx, tenant))
    }
}

/// Notes the key of a CA's request.
async fn note(tx: &mut Connection, requested: &CaKeyRequest) -> Result<()> {
    query(
        "INSERT INTO ca_requests (tenant, name, generation, created_at) VALUES ($1, $2, $3, $4)
         ON CONFLICT (tenant, name) DO UPDATE SET generation = excluded.generation, created_at = excluded.created_at",
    )
    .bind(requested.tenant.as_str())
    .bind(requested.name.as_str())
    .bind(i64::from(requested.generation))
    .bind(requested.created_at.unix_micros())
    .execute(tx)
    .await?;
    Ok(())
}

async fn of_tenant(tx: &mut Connection, tenant: &TenantId) -> Result<Vec<CaKeyRequest>> {
    let rows = query("SELECT * FROM ca_requests WHERE tenant = $1 ORDER BY name")
        .bind(tenant.as_str())
        .fetch_all(tx)
        .await?;
    rows.iter()
        .map(|row| {
            Ok(CaKeyRequest {
                tenant: row.parsed("tenant")?,
                name: row.parsed("name")?,
                generation: row.number("generation")?,
                created_at: row.time("created_at")?,
            })
        })
        .collect()
}
