//! The KEKs of a token held against the epochs of the database: for a broker that starts, and for `keybroker doctor`.

use crate::broker::BrokerError;
use crate::credential::EpochState;
use crate::hsm::{Hsm, ObjectId};
use crate::nfv::TenantId;
use crate::store::Store;
use std::collections::{HashMap, HashSet};

/// What differs between the KEKs of a token and the database.
#[derive(Debug, Default)]
pub struct KekDifferences {
    /// Sentences, the evidence included.
    pub findings: Vec<String>,
    /// Sentences on KEKs that the database should not know or not lack. A token that does not have a tenant's other keys is
    /// the wrong one, and shows nothing.
    pub evidence: Vec<(ObjectId, String)>,
}

/// Compares what was found on a token, or on several, with the epochs of the tenants that have their keys there. The token
/// comes first: an epoch is in the database before its KEK is made.
///
/// # Errors
/// The store's and the HSM's.
pub async fn compare_keks(
    store: &dyn Store,
    hsm: &Hsm,
    on_token: &HashSet<ObjectId>,
    is_there: impl Fn(&TenantId) -> bool,
) -> Result<KekDifferences, BrokerError> {
    let mut differences = KekDifferences::default();
    let epochs: HashMap<ObjectId, EpochState> = store
        .epochs(None, EpochState::ALL)
        .await?
        .into_iter()
        .map(|epoch| (ObjectId::Kek(epoch.tenant, epoch.id), epoch.state))
        .collect();
    for id in on_token.iter().filter(|id| matches!(id, ObjectId::Kek(..))) {
        match epochs.get(id) {
            None => {
                let sentence = format!("{id} is on the token and unknown to the database");
                differences.evidence.push((id.clone(), sentence.clone()));
                differences.findings.push(sentence);
            }
            Some(EpochState::Destroyed) => {
                differences.findings.push(format!("{id} is on the token although it was verified destroyed: was a backup of the token restored?"));
            }
            Some(_) => {}
        }
    }
    for (id, state) in &epochs {
        if matches!(state, EpochState::Open | EpochState::Closed)
            && !on_token.contains(id)
            && id.tenant().is_some_and(&is_there)
            && lacks(store, hsm, id).await?
        {
            let sentence = format!(
                "{id} is missing on the token although its epoch is {state}: its keys cannot be delivered"
            );
            let of_its_tenant = id.tenant().map(|tenant| ObjectId::TokenMac(tenant.clone()));
            if of_its_tenant.is_some_and(|other| on_token.contains(&other)) {
                differences.evidence.push((id.clone(), sentence.clone()));
            }
            differences.findings.push(sentence);
        }
    }
    differences.findings.sort();
    Ok(differences)
}

/// Whether a KEK that was not on the token when that was listed is really missing: another broker may have made it since, or
/// have gone on to shred it.
async fn lacks(store: &dyn Store, hsm: &Hsm, kek: &ObjectId) -> Result<bool, BrokerError> {
    if hsm.object_exists(kek).await? {
        return Ok(false);
    }
    let living = store.epochs(kek.tenant(), &[EpochState::Open, EpochState::Closed]).await?;
    Ok(living.into_iter().any(|epoch| ObjectId::Kek(epoch.tenant, epoch.id) == *kek))
}
