//! Tables `vnfcis`, `initial_credentials` and `claims`: VNFCIs get a new initial credential.

use super::connection::Connection;
use super::credentials::{self, Claims, Ending};
use super::statement::{Statement, query};
use super::value::{CHUNK, text_list};
use super::vnfcis::{Recognition, recognised_by};
use super::{anchors, initial_credentials, quotas, tenants};
use crate::clock::Timestamp;
use crate::nfv::{Sha256Hash, TenantId, VnfInstanceId, VnfciId};
use crate::store::Result;
use crate::store::records::{
    CustodyEnd, InitialCredential, InitialCredentialKind, InitialCredentialState, Quotas, RearmOutcome,
    Rearming, VnfciState,
};
use std::collections::{HashMap, HashSet};

/// What items of one re-arming are held against.
#[derive(Default)]
struct Known {
    vnfcis: HashMap<String, Standing>,
    anchors: HashSet<String>,
    /// Initial credentials in use, with whose they are. Grows with every accepted item.
    recognised: HashMap<Recognition, VnfciId>,
    /// Certificates that the VNFCIs of this call were ever armed with, withdrawn ones included.
    used: HashSet<Sha256Hash>,
    /// VNFCIs that this call has named.
    named: HashSet<VnfciId>,
}

/// Where a VNFCI stands.
struct Standing {
    vnf_instance: VnfInstanceId,
    state: VnfciState,
    generation: u32,
    /// A pool of one of its slots that was deleted.
    deleted_pool: Option<String>,
}

/// Re-arms VNFCIs; refused ones leave the others untouched.
pub(super) async fn rearm(
    tx: &mut Connection,
    tenant: &TenantId,
    items: Vec<Rearming>,
    quotas: &Quotas,
    end: &CustodyEnd,
    now: Timestamp,
) -> Result<Vec<RearmOutcome>> {
    tenants::serialise(tx, tenant).await?;
    let mut known = look_up(tx, tenant, &items).await?;
    let ids = items.iter().map(|item| &item.id);
    let mut held = credentials::held_by_vnfcis(tx, tenant, ids, Claims::Open).await?;
    let mut outcomes = Vec::with_capacity(items.len());
    let mut accepted = Vec::new();
    let mut ending = Ending::default();
    let mut returning = 0;
    for item in items {
        let generation = match judge(&known, &item) {
            Ok(standing) => {
                returning += usize::from(standing.state == VnfciState::Released);
                standing.generation + 1
            }
            Err(why) => {
                outcomes.push(RearmOutcome::Refused(why));
                continue;
            }
        };
        known.named.insert(item.id.clone());
        if let Some(key) = recognised_by(&item.kind) {
            known.recognised.insert(key, item.id.clone());
        }
        let credential = InitialCredential {
            id: item.initial_credential,
            tenant: tenant.clone(),
            vnf_instance: item.vnf_instance,
            vnfci: item.id,
            generation,
            kind: item.kind,
            state: InitialCredentialState::Open,
            expires_at: item.expires_at,
        };
        let keys = held.remove(credential.vnfci.as_str()).unwrap_or_default();
        let destroyed = ending.add(&keys, now);
        outcomes.push(RearmOutcome::Rearmed { credential: credential.clone(), destroyed });
        accepted.push(credential);
    }
    quotas::more_vnfcis(tx, tenant, quotas, returning).await?;
    ending.write(tx, end, now).await?;
    for accepted in accepted.chunks(CHUNK) {
        write(tx, tenant, accepted, now).await?;
    }
    Ok(outcomes)
}

async fn look_up(tx: &mut Connection, tenant: &TenantId, items: &[Rearming]) -> Result<Known> {
    let anchors = anchors::list(tx, Some(tenant)).await?;
    let anchors = anchors.into_iter().map(|anchor| anchor.name.into()).collect();
    let mut known = Known { anchors, ..Known::default() };
    for items in items.chunks(CHUNK) {
        let mut sql = Statement::new(
            "SELECT v.id AS id, v.vnf_instance AS vnf_instance, v.state AS state, i.generation AS generation,
                 (SELECT MIN(s.pool_name) FROM slots s JOIN pools p ON p.id = s.pool
                  WHERE s.tenant = v.tenant AND s.vnfci = v.id AND p.deleted_at IS NOT NULL) AS deleted_pool
             FROM vnfcis v JOIN initial_credentials i ON i.id = v.initial_credential WHERE v.tenant = ",
        );
        sql.push_bind(tenant.as_str()).push(" AND v.id IN ");
        text_list(&mut sql, items.iter().map(|item| item.id.as_str()));
        sql.lock("FOR NO KEY UPDATE OF v");
        for row in sql.fetch_all(&mut *tx).await? {
            let standing = Standing {
                vnf_instance: row.parsed("vnf_instance")?,
                state: row.parsed("state")?,
                generation: row.number("generation")?,
                deleted_pool: row.text_or_null("deleted_pool")?,
            };
            known.vnfcis.insert(row.text("id")?, standing);
        }
        let mut sql = Statement::new(
            "SELECT fingerprint FROM initial_credentials WHERE fingerprint IS NOT NULL AND tenant = ",
        );
        sql.push_bind(tenant.as_str()).push(" AND vnfci IN ");
        text_list(&mut sql, items.iter().map(|item| item.id.as_str()));
        for row in sql.fetch_all(&mut *tx).await? {
            known.used.insert(row.hash("fingerprint")?);
        }
        let kinds: Vec<_> =
            items.iter().map(|item| &item.kind).filter(|kind| recognised_by(kind).is_some()).collect();
        if !kinds.is_empty() {
            for rival in initial_credentials::rivals(tx, tenant, &kinds).await? {
                if let Some(key) = recognised_by(&rival.kind) {
                    known.recognised.insert(key, rival.vnfci);
                }
            }
        }
    }
    Ok(known)
}

/// Where the VNFCI stands, or why it is refused.
fn judge<'k>(known: &'k Known, item: &Rearming) -> Result<&'k Standing, String> {
    let standing = known.vnfcis.get(item.id.as_str());
    let Some(standing) = standing.filter(|standing| standing.vnf_instance == item.vnf_instance) else {
        return Err(format!("VNFCI {} does not exist", item.id));
    };
    if known.named.contains(&item.id) {
        return Err(format!("VNFCI {} is named twice", item.id));
    }
    if standing.state == VnfciState::Terminated {
        return Err(format!("VNFCI {} was terminated: register a new one", item.id));
    }
    if let Some(pool) = &standing.deleted_pool {
        return Err(format!(
            "pool {pool}, which serves VNFCI {}, was deleted: register a new VNFCI",
            item.id
        ));
    }
    let other = recognised_by(&item.kind).and_then(|key| known.recognised.get(&key));
    match &item.kind {
        InitialCredentialKind::X509Fingerprint { anchor, .. }
        | InitialCredentialKind::X509Name { anchor, .. }
            if !known.anchors.contains(anchor.as_str()) =>
        {
            Err(format!("anchor {anchor} does not exist in the tenant"))
        }
        InitialCredentialKind::X509Fingerprint { fingerprint, .. }
            if other.is_some() || known.used.contains(fingerprint) =>
        {
            Err("the certificate was an initial credential before: give a new one".to_owned())
        }
        InitialCredentialKind::X509Name { .. } if other.is_some_and(|other| *other != item.id) => {
            Err("the name is the initial credential of another VNFCI".to_owned())
        }
        _ => Ok(standing),
    }
}

async fn write(
    tx: &mut Connection,
    tenant: &TenantId,
    accepted: &[InitialCredential],
    now: Timestamp,
) -> Result<()> {
    let ids = || accepted.iter().map(|credential| credential.vnfci.as_str());
    let mut sql =
        Statement::new("UPDATE initial_credentials SET state = 'VOID' WHERE state = 'OPEN' AND tenant = ");
    sql.push_bind(tenant.as_str()).push(" AND vnfci IN ");
    text_list(&mut sql, ids());
    sql.then("UPDATE claims SET state = 'DESTROYED', ended_at = ").push_bind(now.unix_micros());
    sql.push(" WHERE state = 'OPEN' AND tenant = ").push_bind(tenant.as_str()).push(" AND vnfci IN ");
    text_list(&mut sql, ids());
    sql.execute(&mut *tx).await?;
    initial_credentials::insert(tx, accepted, now).await?;
    // Only now: a VNFCI never points to a row that is not there.
    for credential in accepted {
        query(
            "UPDATE vnfcis SET initial_credential = $1, ended_at = NULL,
                 state = CASE state WHEN 'RELEASED' THEN 'REGISTERED' ELSE state END
             WHERE tenant = $2 AND id = $3",
        )
        .bind(credential.id.0.as_bytes().as_slice())
        .bind(tenant.as_str())
        .bind(credential.vnfci.as_str())
        .execute(&mut *tx)
        .await?;
    }
    Ok(())
}
