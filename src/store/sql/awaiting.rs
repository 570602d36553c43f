//! Table `certificate_requests`: keys that wait for a CA's answer.

use super::change::Done;
use super::connection::Connection;
use super::credentials::destroy_waiting;
use super::statement::query;
use crate::clock::Timestamp;
use crate::nfv::{CredentialId, PoolId, Sha256Hash};
use crate::store::Result;
use crate::store::records::{AwaitingKey, CustodyEnd, DestroyedKeys};

/// Keys of a pool that wait, by id.
pub(super) async fn awaiting(
    tx: &mut Connection,
    pool: PoolId,
    after: Option<CredentialId>,
    limit: u32,
) -> Result<Vec<AwaitingKey>> {
    let after = after.map_or([0; 16], |id| *id.0.as_bytes());
    let rows = query(
        "SELECT c.id AS id, c.public_key_der AS public_key_der, r.der AS der
         FROM credentials c JOIN certificate_requests r ON r.credential = c.id
         WHERE c.pool = $1 AND c.key_state = 'GENERATED' AND c.id > $2 ORDER BY c.id LIMIT $3",
    )
    .bind(pool.0.as_bytes().as_slice())
    .bind(after.as_slice())
    .bind(i64::from(limit))
    .fetch_all(tx)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(AwaitingKey {
                credential: CredentialId(row.uuid("id")?),
                public_key_der: row.blob("public_key_der")?,
                request_der: row.blob("der")?,
            })
        })
        .collect()
}

/// Erases keys whose requests were made for something else.
pub(super) async fn erase_outdated(
    tx: &mut Connection,
    pool: PoolId,
    basis: Sha256Hash,
    end: &CustodyEnd,
    limit: u32,
    now: Timestamp,
) -> Result<Done<DestroyedKeys>> {
    let rows = query(
        "SELECT c.id AS id, c.public_key_sha256 AS public_key
         FROM credentials c JOIN certificate_requests r ON r.credential = c.id
         WHERE c.pool = $1 AND c.key_state = 'GENERATED' AND r.basis <> $2 LIMIT $3",
    )
    .bind(pool.0.as_bytes().as_slice())
    .bind(basis.0.as_slice())
    .bind(i64::from(limit))
    // What is being answered is left to who answers it.
    .locking("FOR UPDATE OF c SKIP LOCKED")
    .fetch_all(&mut *tx)
    .await?;
    destroy_waiting(tx, &rows, end, now).await
}
