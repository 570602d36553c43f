//! Tables `vnfcis` and `slots`.

use super::connection::{Connection, Dialect};
use super::statement::{Row, Statement, query};
use super::value::{CHUNK, text_list};
use super::{credentials, initial_credentials, pools, quotas, tenants};
use crate::clock::Timestamp;
use crate::identity::CertificateName;
use crate::nfv::{ClaimId, InitialCredentialId, PoolName, Sha256Hash, TenantId, VnfInstanceId, VnfciId};
use crate::store::records::{
    InitialCredential, InitialCredentialKind, InitialCredentialState, NewVnfci, Page, Pool, Quotas,
    RegisterOutcome, Slot, Vnfci, VnfciFilter, VnfciState,
};
use crate::store::{Result, StoreError};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// What items of one registration are held against.
struct Known {
    pools: HashMap<PoolName, Pool>,
    anchors: HashSet<String>,
    vnfcis: HashSet<String>,
    /// Initial credentials in use, with whose they are. Grows with every accepted item.
    recognised: HashMap<Recognition, VnfciId>,
}

/// What makes two X.509 initial credentials the same one, whatever their anchors.
#[derive(PartialEq, Eq, Hash)]
pub(super) enum Recognition {
    Fingerprint([u8; 32]),
    Name(CertificateName),
}

pub(super) fn recognised_by(kind: &InitialCredentialKind) -> Option<Recognition> {
    match kind {
        InitialCredentialKind::X509Fingerprint { fingerprint, .. } => {
            Some(Recognition::Fingerprint(fingerprint.0))
        }
        InitialCredentialKind::X509Name { name, .. } => Some(Recognition::Name(name.clone())),
        InitialCredentialKind::Token => None,
    }
}

/// Registers VNFCIs; refused ones leave the others untouched.
pub(super) async fn register(
    tx: &mut Connection,
    tenant: &TenantId,
    vnfcis: Vec<NewVnfci>,
    quotas: &Quotas,
    now: Timestamp,
) -> Result<Vec<RegisterOutcome>> {
    tenants::require(tx, tenant).await?;
    let mut known = look_up(tx, tenant, &vnfcis).await?;
    let mut outcomes = Vec::with_capacity(vnfcis.len());
    let mut accepted = Vec::new();
    for vnfci in vnfcis {
        if let Err(why) = judge(&known, &vnfci) {
            outcomes.push(RegisterOutcome::Refused(why));
            continue;
        }
        known.vnfcis.insert(vnfci.id.to_string());
        if let Some(key) = recognised_by(&vnfci.kind) {
            known.recognised.insert(key, vnfci.id.clone());
        }
        let credential = InitialCredential {
            id: vnfci.initial_credential,
            tenant: tenant.clone(),
            vnf_instance: vnfci.vnf_instance.clone(),
            vnfci: vnfci.id.clone(),
            generation: 1,
            kind: vnfci.kind.clone(),
            state: InitialCredentialState::Open,
            expires_at: vnfci.expires_at,
        };
        outcomes.push(RegisterOutcome::Registered(credential.clone()));
        accepted.push((vnfci, credential));
    }
    quotas::more_vnfcis(tx, tenant, quotas, accepted.len()).await?;
    for accepted in accepted.chunks(CHUNK) {
        write(tx, tenant, accepted, &known, now).await?;
    }
    Ok(outcomes)
}

async fn look_up(tx: &mut Connection, tenant: &TenantId, vnfcis: &[NewVnfci]) -> Result<Known> {
    let names: BTreeSet<&PoolName> = vnfcis.iter().flat_map(|v| v.slots.iter().map(|s| &s.pool)).collect();
    let pools = pools::by_names(tx, tenant, names).await?;
    let anchors = super::anchors::list(tx, Some(tenant)).await?;
    let mut known = Known {
        pools: pools.into_iter().map(|pool| (pool.name.clone(), pool)).collect(),
        anchors: anchors.into_iter().map(|anchor| anchor.name.into()).collect(),
        vnfcis: HashSet::new(),
        recognised: HashMap::new(),
    };
    for vnfcis in vnfcis.chunks(CHUNK) {
        let mut sql = Statement::new("SELECT id FROM vnfcis WHERE tenant = ");
        sql.push_bind(tenant.as_str()).push(" AND id IN ");
        text_list(&mut sql, vnfcis.iter().map(|v| v.id.as_str()));
        for row in sql.fetch_all(&mut *tx).await? {
            known.vnfcis.insert(row.text("id")?);
        }
        let kinds: Vec<_> = vnfcis.iter().map(|v| &v.kind).filter(|k| recognised_by(k).is_some()).collect();
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

/// Why an item is refused.
fn judge(known: &Known, vnfci: &NewVnfci) -> Result<(), String> {
    if known.vnfcis.contains(vnfci.id.as_str()) {
        return Err(format!("VNFCI {} exists already: re-arm it, or give the new one another id", vnfci.id));
    }
    if vnfci.slots.is_empty() {
        return Err(format!("VNFCI {} has no slot: name at least one", vnfci.id));
    }
    let mut names = HashSet::new();
    for slot in &vnfci.slots {
        if !names.insert(&slot.name) {
            return Err(format!("slot {} is named twice", slot.name));
        }
        let Some(pool) = known.pools.get(&slot.pool) else {
            return Err(format!("pool {} of slot {} does not exist", slot.pool, slot.name));
        };
        if pool.vnf_instance != vnfci.vnf_instance {
            return Err(format!("pool {} belongs to VNF instance {}", pool.name, pool.vnf_instance));
        }
    }
    if let InitialCredentialKind::X509Fingerprint { anchor, .. }
    | InitialCredentialKind::X509Name { anchor, .. } = &vnfci.kind
        && !known.anchors.contains(anchor.as_str())
    {
        return Err(format!("anchor {anchor} does not exist in the tenant"));
    }
    if let Some(other) = recognised_by(&vnfci.kind).and_then(|key| known.recognised.get(&key)) {
        return Err(format!("the certificate or name is the initial credential of VNFCI {other}"));
    }
    Ok(())
}

async fn write(
    tx: &mut Connection,
    tenant: &TenantId,
    accepted: &[(NewVnfci, InitialCredential)],
    known: &Known,
    now: Timestamp,
) -> Result<()> {
    let mut sql = Statement::new(
        "INSERT INTO vnfcis (tenant, id, vnf_instance, vdu, state, initial_credential, registered_at) ",
    );
    sql.push_values(accepted, |mut row, (vnfci, credential)| {
        row.push_bind(tenant.as_str())
            .push_bind(vnfci.id.as_str())
            .push_bind(vnfci.vnf_instance.as_str())
            .push_bind(vnfci.vdu.as_str())
            .push_bind(VnfciState::Registered.as_str())
            .push_bind(credential.id.0.as_bytes().as_slice())
            .push_bind(now.unix_micros());
    });
    sql.execute(&mut *tx).await?;
    let slots: Vec<_> = accepted
        .iter()
        .flat_map(|(vnfci, _)| vnfci.slots.iter().map(move |slot| (&vnfci.id, slot)))
        .filter_map(|(vnfci, slot)| known.pools.get(&slot.pool).map(|pool| (vnfci, slot, pool)))
        .collect();
    for slots in slots.chunks(CHUNK) {
        let mut sql = Statement::new("INSERT INTO slots (tenant, vnfci, name, pool, pool_name) ");
        sql.push_values(slots, |mut row, (vnfci, slot, pool)| {
            row.push_bind(tenant.as_str())
                .push_bind(vnfci.as_str())
                .push_bind(slot.name.as_str())
                .push_bind(pool.id.0.as_bytes().as_slice())
                .push_bind(pool.name.as_str());
        });
        sql.execute(&mut *tx).await?;
    }
    let credentials: Vec<_> = accepted.iter().map(|(_, credential)| credential.clone()).collect();
    initial_credentials::insert(tx, &credentials, now).await
}

/// One VNFCI with its credentials.
pub(super) async fn by_id(tx: &mut Connection, tenant: &TenantId, vnfci: &VnfciId) -> Result<Vnfci> {
    let filter = "v.tenant = ";
    let mut sql = Statement::new(SELECT);
    sql.push(filter).push_bind(tenant.as_str()).push(" AND v.id = ").push_bind(vnfci.as_str());
    let rows = sql.fetch_all(&mut *tx).await?;
    let mut found = complete(tx, &rows).await?;
    let Some(mut record) = found.pop() else {
        return Err(StoreError::NotFound(format!("VNFCI {vnfci} of tenant {tenant}")));
    };
    record.credentials = credentials::of_vnfci(tx, tenant, vnfci.as_str()).await?;
    Ok(record)
}

/// VNFCIs by tenant and id, without their credentials.
pub(super) async fn list(tx: &mut Connection, filter: &VnfciFilter, page: &Page) -> Result<Vec<Vnfci>> {
    let mut sql = Statement::new(SELECT);
    sql.push("1 = 1");
    if let Some(tenant) = &filter.tenant {
        sql.push(" AND v.tenant = ").push_bind(tenant.as_str());
    }
    if let Some(vnf_instances) = &filter.vnf_instances {
        sql.push(" AND v.vnf_instance IN ");
        text_list(&mut sql, vnf_instances.iter().map(|v| v.as_str()));
    }
    if let Some(after) = &page.after {
        let (tenant, id) = after.split_once('/').unwrap_or((after, ""));
        sql.push(" AND (v.tenant, v.id) > (").push_bind(tenant).push(", ").push_bind(id).push(")");
    }
    sql.push(" ORDER BY v.tenant, v.id LIMIT ").push_bind(i64::from(page.limit));
    let rows = sql.fetch_all(&mut *tx).await?;
    complete(tx, &rows).await
}

/// A VNFCI with its latest initial credential; the condition is the caller's.
const SELECT: &str = "SELECT i.*, v.vdu AS vdu, v.state AS vnfci_state, v.registered_at AS registered_at,
    v.renewal_requested_at AS renewal_requested_at
    FROM vnfcis v JOIN initial_credentials i ON i.id = v.initial_credential WHERE ";

/// Adds the slots to rows of [`SELECT`].
async fn complete(tx: &mut Connection, rows: &[Row]) -> Result<Vec<Vnfci>> {
    let mut vnfcis = Vec::with_capacity(rows.len());
    for row in rows {
        let initial_credential = initial_credentials::read(row)?;
        vnfcis.push(Vnfci {
            tenant: initial_credential.tenant.clone(),
            id: initial_credential.vnfci.clone(),
            vnf_instance: initial_credential.vnf_instance.clone(),
            vdu: row.parsed("vdu")?,
            state: row.parsed("vnfci_state")?,
            slots: Vec::new(),
            initial_credential,
            redraws: row.number("redraws")?,
            credentials: Vec::new(),
            registered_at: row.time("registered_at")?,
            renewal_requested_at: row.time_or_null("renewal_requested_at")?,
        });
    }
    let mut places: HashMap<(String, String), usize> = HashMap::new();
    for (place, vnfci) in vnfcis.iter().enumerate() {
        places.insert((vnfci.tenant.to_string(), vnfci.id.to_string()), place);
    }
    let keys: Vec<_> = places.keys().cloned().collect();
    for keys in keys.chunks(CHUNK) {
        let mut sql =
            Statement::new("SELECT tenant, vnfci, name, pool_name FROM slots WHERE (tenant, vnfci) IN (");
        sql.push_values(keys, |mut row, (tenant, vnfci)| {
            row.push_bind(tenant).push_bind(vnfci);
        });
        sql.push(") ORDER BY tenant, vnfci, name");
        for row in sql.fetch_all(&mut *tx).await? {
            if let Some(vnfci) = places
                .get(&(row.text("tenant")?, row.text("vnfci")?))
                .and_then(|place| vnfcis.get_mut(*place))
            {
                vnfci.slots.push(Slot { name: row.parsed("name")?, pool: row.parsed("pool_name")? });
            }
        }
    }
    Ok(vnfcis)
}

/// The VNF instances of VNFCIs that exist.
pub(super) async fn vnf_instances(
    tx: &mut Connection,
    tenant: &TenantId,
    vnfcis: &[VnfciId],
) -> Result<BTreeMap<VnfciId, VnfInstanceId>> {
    let mut found = BTreeMap::new();
    for vnfcis in vnfcis.chunks(CHUNK) {
        let mut sql = Statement::new("SELECT id, vnf_instance FROM vnfcis WHERE tenant = ");
        sql.push_bind(tenant.as_str()).push(" AND id IN ");
        text_list(&mut sql, vnfcis.iter().map(VnfciId::as_str));
        for row in sql.fetch_all(&mut *tx).await? {
            found.insert(row.parsed("id")?, row.parsed("vnf_instance")?);
        }
    }
    Ok(found)
}

/// Whatever happens to the VNFCI of an initial credential waits until this transaction ends.
pub(super) async fn lock_of_arming(tx: &mut Connection, id: InitialCredentialId) -> Result<()> {
    lock(
        tx,
        "SELECT 1 FROM initial_credentials i JOIN vnfcis v ON v.tenant = i.tenant AND v.id = i.vnfci WHERE i.id = $1",
        id.0.as_bytes(),
    )
    .await
}

/// Whatever happens to the VNFCI of a claim waits until this transaction ends.
pub(super) async fn lock_of_claim(tx: &mut Connection, id: ClaimId) -> Result<()> {
    lock(
        tx,
        "SELECT 1 FROM claims c JOIN vnfcis v ON v.tenant = c.tenant AND v.id = c.vnfci WHERE c.id = $1",
        id.0.as_bytes(),
    )
    .await
}

/// Whatever happens to the VNFCI that has or had the certificate with this SHA-256 waits until this transaction ends.
pub(super) async fn lock_of_certificate(tx: &mut Connection, fingerprint: Sha256Hash) -> Result<()> {
    lock(
        tx,
        "SELECT 1 FROM certificates ce JOIN credentials c ON c.id = ce.credential JOIN claims cl ON cl.id = c.claim_id
         JOIN vnfcis v ON v.tenant = cl.tenant AND v.id = cl.vnfci WHERE ce.sha256 = $1",
        &fingerprint.0,
    )
    .await
}

async fn lock(tx: &mut Connection, sql: &'static str, id: &[u8]) -> Result<()> {
    if tx.dialect() == Dialect::Postgres {
        query(sql).bind(id).locking("FOR NO KEY UPDATE OF v").execute(tx).await?;
    }
    Ok(())
}

/// Adds to a statement that the VNFCI whose latest initial credential this is changes its state, unless it was
/// terminated. What an earlier arming does says nothing of a VNFCI that was re-armed.
pub(super) fn move_to(
    sql: &mut Statement,
    state: VnfciState,
    initial_credential: InitialCredentialId,
    now: Timestamp,
) {
    sql.push("UPDATE vnfcis SET state = ").push_bind(state.as_str());
    if state == VnfciState::Released {
        sql.push(", ended_at = ").push_bind(now.unix_micros());
    }
    sql.push(" WHERE state <> 'TERMINATED' AND initial_credential = ");
    sql.push_bind(initial_credential.0.as_bytes().as_slice());
    sql.push(" AND (tenant, id) IN (SELECT tenant, vnfci FROM initial_credentials WHERE id = ");
    sql.push_bind(initial_credential.0.as_bytes().as_slice()).push(")");
}
