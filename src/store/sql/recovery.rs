//! What a recovery changes: tables `credentials`, `certificates`, `revoked_serials`, `initial_credentials`, `crls`, and the
//! chain's tables.

use super::change::{self, Keep, Once};
use super::connection::Connection;
use super::credentials::{Held, read_held, select_held};
use super::engine::{Engine, change, read, write};
use super::statement::{Statement, query};
use super::value::{CHUNK, bigint, id_list};
use super::{SqlStore, audit, credentials, leases};
use crate::audit::event::Event;
use crate::audit::receipt::DestructionReason;
use crate::clock::Timestamp;
use crate::credential::HolderCopy;
use crate::nfv::CredentialId;
use crate::store::records::{CustodyEnd, Lease, Recovered, Recovery};
use crate::store::{Marks, Mutation, RecoveryStore, Result, StoreError};
use async_trait::async_trait;
use std::collections::HashSet;
use std::sync::Arc;
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

/// Ends the custody of keys that went out, withdraws certificates, voids open initial credentials, raises CRL numbers.
async fn recover(tx: &mut Connection, recovery: &Recovery, now: Timestamp) -> Result<Recovered> {
    let mut outcome = Recovered::default();
    for (credential, key, certificates) in &recovery.keys {
        let held = held_credential(tx, *credential).await?;
        if held.is_empty() {
            for certificate in certificates.iter().filter(|certificate| certificate.not_after > now) {
                let listed = query(
                    "INSERT INTO revoked_serials (issuer, serial, not_after, revoked_at, reason)
                     SELECT $1, $2, $3, $4, $5 WHERE EXISTS (SELECT 1 FROM issuers WHERE id = $1)
                     ON CONFLICT (issuer, serial) DO NOTHING",
                )
                .bind(certificate.issuer.0.as_bytes().as_slice())
                .bind(certificate.serial.as_slice())
                .bind(certificate.not_after.unix_micros())
                .bind(key.at.unix_micros())
                .bind(key.reason.as_str())
                .execute(&mut *tx)
                .await?;
                outcome.unknown_serials += listed;
            }
        } else if key.ended {
            let end = CustodyEnd {
                reason: DestructionReason::Recovered,
                holder_copy: HolderCopy::Unknown,
                revocation: key.reason,
            };
            let destroyed = credentials::end(tx, &held, &end, now).await?;
            outcome.revoked += destroyed.revoked.len() as u64;
            outcome.keys.extend(destroyed.keys);
        } else {
            outcome.revoked += withdraw(tx, *credential, key.reason.as_str(), now).await?;
            outcome.keys.extend(held.into_iter().map(|held| held.credential).take(1));
        }
    }
    let rows =
        query("UPDATE initial_credentials SET state = 'VOID' WHERE state = 'OPEN' RETURNING tenant, vnfci")
            .fetch_all(&mut *tx)
            .await?;
    for row in &rows {
        outcome.voided.push((row.parsed("tenant")?, row.parsed("vnfci")?));
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

/// One credential; empty if there is none.
async fn held_credential(tx: &mut Connection, credential: CredentialId) -> Result<Vec<Held>> {
    let mut sql = select_held();
    sql.push(" WHERE c.id = ").push_bind(credential.0.as_bytes().as_slice());
    let rows = sql.fetch_all(tx).await?;
    rows.iter().map(read_held).collect()
}

async fn withdraw(
    tx: &mut Connection,
    credential: CredentialId,
    reason: &str,
    now: Timestamp,
) -> Result<u64> {
    let withdrawn = query(
        "UPDATE certificates SET state = 'REVOCATION_PENDING', revoked_at = $1, reason = $2
         WHERE credential = $3 AND state IN ('VALID', 'SUPERSEDED') AND not_after > $1",
    )
    .bind(now.unix_micros())
    .bind(reason)
    .bind(credential.0.as_bytes().as_slice())
    .execute(tx)
    .await?;
    Ok(withdrawn)
}

/// Begins a new chain: the events stay, their places and the heads over them go, the event is the last one. Marks are set
/// to the given values; an empty one is as good as none.
async fn restart_chain(tx: &mut Connection, event: &Event, marks: &[(String, String)]) -> Result<()> {
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
