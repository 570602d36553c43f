//! What a recovery changes: tables `issuers`, `credentials`, `certificates`, `revoked_serials`, `claims`, `vnfcis`,
//! `initial_credentials`, `crls`, and the chain's tables.

use super::change::{self, Keep, Once};
use super::connection::{Connection, Queue};
use super::credentials::{Held, read_held, select_held};
use super::engine::{Engine, change, read, write};
use super::statement::{Statement, query};
use super::value::{CHUNK, bigint, id_list};
use super::{SqlStore, audit, claims, credentials, issuers, leases, releases};
use crate::audit::event::Event;
use crate::audit::lost::{Listed, LostEnd, LostRelease, LostRenewal};
use crate::audit::receipt::DestructionReason;
use crate::clock::Timestamp;
use crate::credential::RevocationReason;
use crate::nfv::{CredentialId, InitialCredentialId};
use crate::store::records::{
    ClaimState, CustodyEnd, DestroyedKeys, IssuerRecord, Lease, Recovered, Recovery, VnfciState, Withdrawn,
};
use crate::store::{Marks, Mutation, RecoveryStore, Result, StoreError};
use async_trait::async_trait;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// CRL numbers go up by so much beyond the highest that the log tells of: what the mirror had not got yet is passed, too.
const NUMBERS: i64 = 1_000;

#[async_trait]
impl<E: Engine> RecoveryStore for SqlStore<E> {
    async fn note_rollback(&self, origin: &str, sentence: &str) -> Result<()> {
        let (origin, sentence) = (origin.to_owned(), sentence.to_owned());
        write!(self, |tx, now| leases::note_rollback(tx, &origin, &sentence))
    }

    async fn held_leases(&self) -> Result<Vec<Lease>> {
        let now = self.engine.now().await?;
        read!(self, |tx| leases::held(tx, now))
    }

    async fn known_events(&self, events: Vec<Uuid>) -> Result<HashSet<Uuid>> {
        read!(self, |tx| known_events(tx, &events))
    }

    async fn recover(
        &self,
        recovery: Recovery,
        marks: Marks,
        mutation: Mutation<Recovered>,
    ) -> Result<Recovered> {
        let (recovery, marks) = (Arc::new(recovery), Once::new(marks));
        change!(self, Outcome, mutation, |tx, now| async {
            let outcome = recover(tx, &recovery, now).await?;
            set_marks(tx, &marks.take()?(&outcome)).await?;
            Ok::<_, StoreError>(outcome)
        })
    }

    async fn restart_chain(&self, event: Event, marks: Vec<(String, String)>) -> Result<()> {
        write!(self, |tx, now| restart_chain(tx, &event, &marks))
    }
}

/// Ends the custody of keys that went out, withdraws certificates, takes renewals and releases down again, voids open initial
/// credentials, raises CRL numbers.
async fn recover(tx: &mut Connection, recovery: &Recovery, now: Timestamp) -> Result<Recovered> {
    let mut outcome = Recovered::default();
    for (issuer, number) in &recovery.issuers {
        if let Some(generation) = bring_issuer_back(tx, issuer, *number).await? {
            outcome.issuers.push((issuer.id, generation));
        }
    }
    for certificate in &recovery.lost_issuers {
        let (certificate, reason) = (certificate.clone(), RevocationReason::CessationOfOperation);
        list(tx, Listed { certificate, reason, at: now }, &mut outcome, now).await?;
    }
    for (renewal, overlap) in &recovery.renewals {
        if begin_overlap(tx, renewal, *overlap).await? {
            outcome.renewed.push(renewal.by);
        }
    }
    for (credential, key, certificates) in &recovery.keys {
        // Of a key that the database has, too: it may have been certified after the backup.
        for certificate in certificates.iter().cloned() {
            let listed = Listed { certificate, reason: key.revocation(), at: key.at };
            list(tx, listed, &mut outcome, now).await?;
        }
        let held = held_credential(tx, *credential).await?;
        if held.is_empty() {
            continue;
        }
        if let Some(reason) = key.stated {
            withdraw(tx, &held, reason, &mut outcome, now).await?;
        }
        if let Some(end) = key.end {
            // Again: what was withdrawn a moment ago is not withdrawn twice.
            let held = held_credential(tx, *credential).await?;
            let destroyed = credentials::end(tx, &held, &custody_end(end), now).await?;
            add(&mut outcome, destroyed, end);
            end_claim(tx, *credential, end, now).await?;
        }
    }
    for release in &recovery.releases {
        take_back(tx, release, &mut outcome, now).await?;
    }
    for ((tenant, vnfci), rearming) in &recovery.rearmed {
        let returned = query(
            "UPDATE vnfcis SET state = 'REGISTERED', ended_at = NULL
             WHERE tenant = $1 AND id = $2 AND state = 'RELEASED' AND ended_at <= $3",
        )
        .bind(tenant.as_str())
        .bind(vnfci.as_str())
        .bind(rearming.at.unix_micros())
        .execute(&mut *tx)
        .await?;
        if returned > 0 {
            outcome.returned.push((tenant.clone(), vnfci.clone()));
        }
    }
    // Last: what ended otherwise since did not end by this, and who gave back what it had is not armed anew for it.
    for listed in &recovery.listed {
        list_again(tx, listed, &mut outcome, now).await?;
    }
    let rows =
        query("UPDATE initial_credentials SET state = 'VOID' WHERE state = 'OPEN' RETURNING tenant, vnfci")
            .fetch_all(&mut *tx)
            .await?;
    for row in &rows {
        let voided = (row.parsed("tenant")?, row.parsed("vnfci")?);
        if !outcome.released.contains(&voided) {
            outcome.voided.push(voided);
        }
    }
    for (issuer, number) in &recovery.crl_numbers {
        query("UPDATE crls SET number = $1 WHERE issuer = $2 AND number < $1")
            .bind(bigint(*number))
            .bind(issuer.0.as_bytes().as_slice())
            .execute(&mut *tx)
            .await?;
    }
    // Every one is due: the next ones list what is withdrawn here.
    query("UPDATE crls SET number = number + $1, this_update = 0").bind(NUMBERS).execute(&mut *tx).await?;
    Ok(outcome)
}

fn custody_end(end: LostEnd) -> CustodyEnd {
    CustodyEnd { reason: end.reason, holder_copy: end.holder_copy, revocation: end.revocation() }
}

fn add(outcome: &mut Recovered, destroyed: DestroyedKeys, end: LostEnd) {
    outcome.revoked += destroyed.revoked.len() as u64;
    outcome.ended.extend(destroyed.keys.into_iter().map(|key| (key, end)));
}

/// A CA that the database does not have is in it again, under the id that is in its certificates' URLs. Gives its generation.
async fn bring_issuer_back(tx: &mut Connection, issuer: &IssuerRecord, number: u64) -> Result<Option<u32>> {
    let others = issuers::list(tx).await?;
    if others.iter().any(|other| other.id == issuer.id) {
        return Ok(None);
    }
    let beside = |other: &&IssuerRecord| other.tenant == issuer.tenant && other.external == issuer.external;
    let taken: Vec<u32> = others.iter().filter(beside).map(|other| other.generation).collect();
    let generation = match taken.iter().max() {
        Some(newest) if taken.contains(&issuer.generation) => newest + 1,
        _ => issuer.generation,
    };
    issuers::add(tx, &IssuerRecord { generation, ..issuer.clone() }).await?;
    if issuer.external.is_none() {
        // No list yet, only its number: never served, and the next one is due and beyond it.
        query(
            "INSERT INTO crls (issuer, shard, number, entries, der, this_update, next_update)
             VALUES ($1, 0, $2, 0, $3, 0, 0)",
        )
        .bind(issuer.id.0.as_bytes().as_slice())
        .bind(bigint(number))
        .bind([].as_slice())
        .execute(tx)
        .await?;
    }
    Ok(Some(generation))
}

/// A certificate that the database does not have is on its issuer's CRL all the same. Nothing is done if it has it, if it is
/// listed or has expired, or if there is no such issuer.
async fn list(tx: &mut Connection, listed: Listed, outcome: &mut Recovered, now: Timestamp) -> Result<()> {
    let certificate = &listed.certificate;
    if certificate.not_after <= now {
        return Ok(());
    }
    let rows = query(
        "INSERT INTO revoked_serials (issuer, serial, not_after, revoked_at, reason)
         SELECT $1, $2, $3, $4, $5 WHERE EXISTS (SELECT 1 FROM issuers WHERE id = $1)
         AND NOT EXISTS (SELECT 1 FROM certificates WHERE issuer = $1 AND serial = $2)
         ON CONFLICT (issuer, serial) DO NOTHING",
    )
    .bind(certificate.issuer.0.as_bytes().as_slice())
    .bind(certificate.serial.as_slice())
    .bind(certificate.not_after.unix_micros())
    .bind(listed.at.unix_micros())
    .bind(listed.reason.as_str())
    .execute(tx)
    .await?;
    if rows > 0 {
        outcome.listed.push(listed);
    }
    Ok(())
}

/// What an earlier recovery listed, of a database that did not have it. This one may have it: then it is withdrawn.
async fn list_again(
    tx: &mut Connection,
    listed: &Listed,
    outcome: &mut Recovered,
    now: Timestamp,
) -> Result<()> {
    let known = query("SELECT credential FROM certificates WHERE issuer = $1 AND serial = $2")
        .bind(listed.certificate.issuer.0.as_bytes().as_slice())
        .bind(listed.certificate.serial.as_slice())
        .fetch_optional(&mut *tx)
        .await?;
    let Some(known) = known else { return list(tx, listed.clone(), outcome, now).await };
    let credential = CredentialId(known.uuid("credential")?);
    let held = held_credential(tx, credential).await?;
    if !withdraw(tx, &held, listed.reason, outcome, now).await? {
        return Ok(());
    }
    let active = query(
        "SELECT v.tenant, v.id FROM credentials c JOIN claims cl ON cl.id = c.claim_id
         JOIN vnfcis v ON v.tenant = cl.tenant AND v.id = cl.vnfci
         WHERE c.id = $1 AND v.state = 'ACTIVE'",
    )
    .bind(credential.0.as_bytes().as_slice())
    .fetch_optional(tx)
    .await?;
    if let Some(row) = active {
        outcome.disarmed.push((row.parsed("tenant")?, row.parsed("id")?));
    }
    Ok(())
}

/// A claim was renewed: its overlap began when that was confirmed, and the sweeper ends it as any other. False if the
/// database knows, or does not have it.
async fn begin_overlap(tx: &mut Connection, renewal: &LostRenewal, overlap: Duration) -> Result<bool> {
    let of = renewal.of.0.as_bytes().as_slice();
    let kept = query("SELECT overlap FROM claims WHERE id = $1")
        .bind(renewal.by.0.as_bytes().as_slice())
        .fetch_optional(&mut *tx)
        .await?;
    let kept = kept.map(|row| row.int_or_null("overlap")).transpose()?.flatten();
    let ends = match kept {
        Some(micros) => renewal.at.unix_micros().saturating_add(micros),
        None => renewal.at.plus(overlap).unix_micros(),
    };
    let renewed = query(
        "UPDATE claims SET state = 'RENEWED', overlap_ends_at = $1 WHERE state = 'CONFIRMED' AND id = $2",
    )
    .bind(ends)
    .bind(of)
    .execute(&mut *tx)
    .await?;
    if renewed == 0 {
        return Ok(false);
    }
    query(
        "UPDATE certificates SET state = 'SUPERSEDED', superseded_at = $1
         WHERE state = 'VALID' AND credential IN (SELECT id FROM credentials WHERE claim_id = $2)",
    )
    .bind(renewal.at.unix_micros())
    .bind(of)
    .execute(tx)
    .await?;
    Ok(true)
}

/// The claim of a key whose end the log tells of ended with it. Not that of one that only went out: it stays as the database
/// has it. Terminations leave claims as they are, releases end them with what belongs to them.
async fn end_claim(
    tx: &mut Connection,
    credential: CredentialId,
    end: LostEnd,
    now: Timestamp,
) -> Result<()> {
    let elsewhere =
        [DestructionReason::Recovered, DestructionReason::Terminated, DestructionReason::Released];
    if elsewhere.contains(&end.reason) {
        return Ok(());
    }
    query(
        "UPDATE claims SET state = CASE state WHEN 'OPEN' THEN 'DESTROYED' ELSE 'SUPERSEDED' END, ended_at = $1
         WHERE state IN ('OPEN', 'CONFIRMED', 'RENEWED')
         AND id = (SELECT claim_id FROM credentials WHERE id = $2)",
    )
    .bind(now.unix_micros())
    .bind(credential.0.as_bytes().as_slice())
    .execute(tx)
    .await?;
    Ok(())
}

/// A claim was given back: it ends, with whatever else its arming has left, and the VNFCI with it unless it was armed anew.
/// Its keys have ended before.
async fn take_back(
    tx: &mut Connection,
    release: &LostRelease,
    outcome: &mut Recovered,
    now: Timestamp,
) -> Result<()> {
    let claim = query("SELECT state, initial_credential FROM claims WHERE id = $1")
        .bind(release.claim.0.as_bytes().as_slice())
        .fetch_optional(&mut *tx)
        .await?;
    let mut arming = release.arming;
    let left = LostEnd { reason: DestructionReason::Released, ..LostEnd::WENT_OUT };
    let left = LostEnd { release: Some(release.claim), ..left };
    if let Some(claim) = claim {
        arming = Some(InitialCredentialId(claim.uuid("initial_credential")?));
        let ended = match claim.parsed("state")? {
            ClaimState::Open => Some(ClaimState::Destroyed),
            ClaimState::Confirmed | ClaimState::Renewed => Some(ClaimState::Released),
            ClaimState::Destroyed | ClaimState::Released | ClaimState::Superseded => None,
        };
        if let Some(state) = ended {
            let destroyed = claims::close(tx, release.claim, state, &custody_end(left), now).await?;
            add(outcome, destroyed, left);
        }
    }
    let Some(arming) = arming else { return Ok(()) };
    add(outcome, releases::end_others(tx, arming, now).await?, left);
    if !release.ended {
        return Ok(());
    }
    // An arming that the database does not have was made after the backup. One that it has and that is younger than the
    // release was made after an earlier recovery: then the VNFCI came back.
    // One that was armed anew since and has nothing is as it is to be.
    let or = if release.rearmed { VnfciState::Active } else { VnfciState::Registered };
    let moved = query(
        "UPDATE vnfcis SET state = 'RELEASED', ended_at = $1
         WHERE tenant = $2 AND id = $3 AND state IN ('ACTIVE', $4) AND (initial_credential = $5
             OR NOT EXISTS (SELECT 1 FROM initial_credentials i WHERE i.id = $5)
             AND EXISTS (SELECT 1 FROM initial_credentials i WHERE i.id = vnfcis.initial_credential AND i.created_at <= $1))",
    )
    .bind(release.at.unix_micros())
    .bind(release.tenant.as_str())
    .bind(release.vnfci.as_str())
    .bind(or.as_str())
    .bind(arming.0.as_bytes().as_slice())
    .execute(tx)
    .await?;
    if moved > 0 {
        outcome.released.push((release.tenant.clone(), release.vnfci.clone()));
    }
    Ok(())
}

/// One credential; empty if there is none.
async fn held_credential(tx: &mut Connection, credential: CredentialId) -> Result<Vec<Held>> {
    let mut sql = select_held();
    sql.push(" WHERE c.id = ").push_bind(credential.0.as_bytes().as_slice());
    let rows = sql.fetch_all(tx).await?;
    rows.iter().map(read_held).collect()
}

/// Withdraws the certificates of a key; false if there is none to withdraw.
async fn withdraw(
    tx: &mut Connection,
    held: &[Held],
    reason: RevocationReason,
    outcome: &mut Recovered,
    now: Timestamp,
) -> Result<bool> {
    let Some(key) = held.first().map(|held| held.credential.clone()) else { return Ok(false) };
    let rows = query(
        "UPDATE certificates SET state = 'REVOCATION_PENDING', revoked_at = $1, reason = $2
         WHERE credential = $3 AND state IN ('VALID', 'SUPERSEDED') AND not_after > $1 RETURNING serial",
    )
    .bind(now.unix_micros())
    .bind(reason.as_str())
    .bind(key.id.0.as_bytes().as_slice())
    .fetch_all(tx)
    .await?;
    let serials = rows.iter().map(|row| row.blob("serial").map(hex::encode)).collect::<Result<Vec<_>>>()?;
    if serials.is_empty() {
        return Ok(false);
    }
    outcome.revoked += serials.len() as u64;
    outcome.withdrawn.push(Withdrawn { key, reason, serials });
    Ok(true)
}

/// Begins a new chain: the events stay, their places and the heads over them go, the event is the last one. Marks are set
/// to the given values; an empty one is as good as none.
async fn restart_chain(tx: &mut Connection, event: &Event, marks: &[(String, String)]) -> Result<()> {
    // A broker that wakes up in the middle chains, and keeps a head, before it or not at all.
    tx.one_at_a_time(Queue::Chain, &[]).await?;
    query("DELETE FROM audit_chain").execute(&mut *tx).await?;
    query("DELETE FROM heads").execute(&mut *tx).await?;
    audit::insert(tx, std::slice::from_ref(event)).await?;
    set_marks(tx, marks).await
}

async fn set_marks(tx: &mut Connection, marks: &[(String, String)]) -> Result<()> {
    for (name, value) in marks {
        leases::set_mark(tx, name, value).await?;
    }
    Ok(())
}

/// Which of these events there are.
async fn known_events(tx: &mut Connection, events: &[Uuid]) -> Result<HashSet<Uuid>> {
    let mut known = HashSet::new();
    for events in events.chunks(CHUNK) {
        let mut sql = Statement::new("SELECT id FROM events WHERE id IN ");
        id_list(&mut sql, events);
        for row in sql.fetch_all(&mut *tx).await? {
            known.insert(row.uuid("id")?);
        }
    }
    Ok(known)
}
