//! CAs that the mirror tells of and a rolled-back database does not know: a part of [`super::recover`].
//!
//! 1. One whose certificate is in the log, and whose key is on the token, is brought back under its id: its CRL withdraws
//!    what it certified.
//! 2. One that is not brought back is withdrawn by the own root that certified it, and named, with the certificates that no
//!    list of its own will withdraw: another root's operator has to act.

use crate::audit::lost::{Lost, LostCertificate, LostIssuer};
use crate::broker::{Broker, BrokerError};
use crate::ca::{CertificateFacts, SigningCa};
use crate::clock::Timestamp;
use crate::hsm::ObjectId;
use crate::nfv::{IssuerId, Sha256Hash, TenantId};
use crate::store::Store;
use crate::store::records::{IssuerRecord, LOST_ISSUERS};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;

/// A CA that no recovery could bring back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostCa {
    /// Its id: in the URL of its CRL.
    pub issuer: IssuerId,
    /// Whose; none for a root, or if nothing tells.
    pub tenant: Option<TenantId>,
    /// Its name and generation; empty if nothing tells.
    pub name: String,
    /// Label of its key on the token; empty if nothing tells.
    pub key_label: String,
    /// Serial number of its certificate, hexadecimal; empty if nothing tells.
    pub serial: String,
    /// End of its certificate, or of the last one that it is known to have issued.
    pub not_after: Timestamp,
    /// Why it could not be brought back.
    pub why: String,
    /// Serial numbers of what it issued and is to be withdrawn, hexadecimal.
    pub certificates: BTreeSet<String>,
}

impl fmt::Display for LostCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CA {}", self.issuer)?;
        if !self.name.is_empty() {
            write!(f, " ({}, key {})", self.name, self.key_label)?;
        }
        if let Some(tenant) = &self.tenant {
            write!(f, " of tenant {tenant}")?;
        }
        write!(
            f,
            " is not in the database: {}. No list of its own withdraws what it certified, {} certificates until {}: the CA \
             above it must revoke its certificate",
            self.why,
            self.certificates.len(),
            self.not_after
        )?;
        match self.serial.as_str() {
            "" => Ok(()),
            serial => write!(f, ", serial number {serial}"),
        }
    }
}

/// Those that earlier recoveries named, read from a store that nobody may be serving.
///
/// # Errors
/// The store's.
pub async fn named(store: &dyn Store) -> Result<Vec<LostCa>, BrokerError> {
    match store.mark(LOST_ISSUERS).await?.filter(|json| !json.is_empty()) {
        Some(json) => serde_json::from_str(&json).map_err(|error| BrokerError::Internal(error.to_string())),
        None => Ok(Vec::new()),
    }
}

impl Broker {
    /// Fails if a tenant that the database forgot may have a token that the configuration does not name any more: its CA would be
    /// given up although its key is there.
    pub(super) async fn require_tokens_of_lost(&self, lost: &Lost) -> Result<(), BrokerError> {
        let now = self.store.now().await?;
        let known = self.known_issuers().await?;
        let given_up: HashSet<IssuerId> =
            named(&*self.store).await?.into_iter().map(|ca| ca.issuer).collect();
        for issuer in lost.issuers.values().filter(|issuer| issuer.details.not_after > now) {
            let id = &issuer.details.issuer;
            let Ok(key @ ObjectId::SubCa(..)) = issuer.details.key_label.parse() else { continue };
            let Some(tenant) = &issuer.tenant else { continue };
            let has_token = self.hsm.tenants_with_tokens().any(|with_token| with_token == tenant);
            if known.contains(id) || given_up.contains(id) || has_token {
                continue;
            }
            let mac = ObjectId::TokenMac(tenant.clone());
            if self.hsm.public_key(&key).await?.is_none() && !self.hsm.object_exists(&mac).await? {
                return Err(BrokerError::Precondition(format!(
                    "nothing was recovered: neither {key}, the key of a CA that the database forgot, nor {mac} is on the \
                     broker's token. If tenant {tenant} has a token of its own, put its section [tenant.{tenant}] with that \
                     token back into the configuration; if that token is lost, name an empty one there: then the CA is given up"
                )));
            }
        }
        Ok(())
    }

    /// 1. In the order in which they were made, each with the highest number of its CRLs that is known, 0 if none is.
    pub(super) async fn issuers_to_bring_back(
        &self,
        lost: &Lost,
    ) -> Result<Vec<(IssuerRecord, u64)>, BrokerError> {
        let known = self.known_issuers().await?;
        let mut records = Vec::new();
        for issuer in lost.issuers.values().filter(|issuer| !known.contains(&issuer.details.issuer)) {
            if let Ok(record) = self.record_of(issuer).await? {
                records.push((record, lost.crl_numbers.get(&issuer.details.issuer).copied().unwrap_or(0)));
            }
        }
        // One whose generation is taken gets the next: the newest stays the newest.
        records.sort_by_key(|(record, _)| (record.created_at, record.generation));
        Ok(records)
    }

    /// 2. By roots that are there, and by those that are brought back with them.
    pub(super) async fn withdrawn_by_own_roots(
        &self,
        lost: &Lost,
        brought_back: &[(IssuerRecord, u64)],
    ) -> Result<Vec<LostCertificate>, BrokerError> {
        let mut records = self.store.issuers().await?;
        records.extend(brought_back.iter().map(|(record, _)| record.clone()));
        let known: HashSet<IssuerId> = records.iter().map(|record| record.id).collect();
        let own = |issuer: &&LostIssuer| {
            !known.contains(&issuer.details.issuer)
                && matches!(issuer.details.key_label.parse(), Ok(ObjectId::SubCa(..)))
        };
        Ok(lost.issuers.values().filter(own).flat_map(|issuer| withdrawn_by(issuer, &records)).collect())
    }

    /// 2. What the database does not have once the others are back, and what an earlier recovery named.
    pub(super) async fn lost_issuers(&self, lost: &Lost, forked: &Lost) -> Result<Vec<LostCa>, BrokerError> {
        let now = self.store.now().await?;
        let known = self.known_issuers().await?;
        let mut all: BTreeMap<IssuerId, LostCa> =
            named(&*self.store).await?.into_iter().map(|ca| (ca.issuer, ca)).collect();
        for issuer in lost.issuers.values().filter(|issuer| !known.contains(&issuer.details.issuer)) {
            let why = self.record_of(issuer).await?.err().unwrap_or_default();
            let details = &issuer.details;
            all.entry(details.issuer).or_insert_with(|| LostCa {
                issuer: details.issuer,
                tenant: issuer.tenant.clone(),
                name: format!("{} {}", details.name, details.generation),
                key_label: details.key_label.clone(),
                serial: details.serial.clone(),
                not_after: details.not_after,
                why: why.to_owned(),
                certificates: BTreeSet::new(),
            });
        }
        for told in [lost, forked] {
            let of_keys = told.keys.keys().filter_map(|key| told.certificates.get(key));
            for certificate in of_keys.flatten().filter(|one| !known.contains(&one.issuer)) {
                let ca = all.entry(certificate.issuer).or_insert_with(|| LostCa {
                    issuer: certificate.issuer,
                    tenant: None,
                    name: String::new(),
                    key_label: String::new(),
                    serial: String::new(),
                    not_after: certificate.not_after,
                    why: "no log that is left tells of it".to_owned(),
                    certificates: BTreeSet::new(),
                });
                ca.not_after = ca.not_after.max(certificate.not_after);
                if certificate.not_after > now {
                    ca.certificates.insert(hex::encode(&certificate.serial));
                }
            }
        }
        all.retain(|issuer, ca| !known.contains(issuer) && ca.not_after > now);
        Ok(all.into_values().collect())
    }

    async fn known_issuers(&self) -> Result<HashSet<IssuerId>, BrokerError> {
        Ok(self.store.issuers().await?.into_iter().map(|record| record.id).collect())
    }

    /// What the database has of a CA; or why it cannot have it.
    async fn record_of(
        &self,
        issuer: &LostIssuer,
    ) -> Result<Result<IssuerRecord, &'static str>, BrokerError> {
        let details = &issuer.details;
        let chain = details.chain.iter().map(|der| STANDARD.decode(der)).collect::<Result<Vec<_>, _>>();
        let Some((certificate_der, chain_der)) = chain.ok().and_then(|mut chain| {
            let certificate = (!chain.is_empty()).then(|| chain.remove(0))?;
            Some((certificate, chain))
        }) else {
            return Ok(Err("the log of its time does not have its certificate"));
        };
        if Sha256Hash::of(&certificate_der) != details.certificate {
            return Ok(Err("its certificate in the log is another than the one whose hash is beside it"));
        }
        let mut key = String::new();
        if details.external.is_none() {
            let Ok(id) = details.key_label.parse::<ObjectId>() else {
                return Ok(Err("its key has no name of ours"));
            };
            let facts = CertificateFacts::parse(&certificate_der);
            let (Ok(facts), Ok(_)) =
                (facts, SigningCa::new(&certificate_der, &self.settings.load().http_url))
            else {
                return Ok(Err("its certificate cannot be read"));
            };
            match self.hsm.public_key(&id).await? {
                None => return Ok(Err("its key is not on the token")),
                Some(spki) if spki != facts.public_key_der => {
                    return Ok(Err("the key with its label on the token is another"));
                }
                Some(_) => key = id.to_string(),
            }
        }
        Ok(Ok(IssuerRecord {
            id: details.issuer,
            tenant: issuer.tenant.clone(),
            name: details.name.clone(),
            external: details.external.clone(),
            generation: details.generation,
            key,
            certificate_der,
            chain_der,
            created_at: issuer.at,
        }))
    }
}

/// The certificate of a CA on the list of the root that certified it. Where the log does not say which one did, on those of all
/// that may have. A root elsewhere is none of ours.
fn withdrawn_by(issuer: &LostIssuer, records: &[IssuerRecord]) -> Vec<LostCertificate> {
    let details = &issuer.details;
    let Ok(serial) = hex::decode(&details.serial) else { return Vec::new() };
    let above: Vec<String> = details.chain.iter().skip(1).take(1).cloned().collect();
    let may = |root: &&IssuerRecord| {
        root.external.is_none()
            && root.chain_der.is_empty()
            && (root.tenant.is_none() || root.tenant == issuer.tenant)
            && (details.chain.is_empty() || above.contains(&STANDARD.encode(&root.certificate_der)))
    };
    let listed = |root: &IssuerRecord| LostCertificate {
        issuer: root.id,
        serial: serial.clone(),
        not_after: details.not_after,
    };
    records.iter().filter(may).map(listed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::details::IssuerDetails;

    fn root(tenant: Option<&str>, der: u8) -> IssuerRecord {
        IssuerRecord {
            id: IssuerId::generate(),
            tenant: tenant.map(|tenant| tenant.parse().unwrap()),
            name: "main".parse().unwrap(),
            external: None,
            generation: 1,
            key: "keybroker:root:1".to_owned(),
            certificate_der: vec![der],
            chain_der: Vec::new(),
            created_at: Timestamp::from_unix_seconds(1),
        }
    }

    /// Found by a tester: the CA of a root that was forgotten, too, was on the list of the broker's root.
    #[test]
    fn a_ca_is_withdrawn_by_the_root_that_certified_it_or_by_all_that_may_have() {
        let (own, tenants, others) = (root(None, 1), root(Some("a"), 2), root(Some("b"), 3));
        let sub_ca = IssuerRecord { chain_der: vec![vec![1]], ..root(Some("a"), 4) };
        let roots = [own.clone(), tenants.clone(), others.clone(), sub_ca];
        let by = |chain: &[u8]| {
            let details = IssuerDetails {
                issuer: IssuerId::generate(),
                name: "main".parse().unwrap(),
                generation: 2,
                key_label: "keybroker:ca:a:2".to_owned(),
                certificate: Sha256Hash::of(&[9]),
                serial: "0a".to_owned(),
                not_after: Timestamp::from_unix_seconds(9),
                external: None,
                chain: chain.iter().map(|der| STANDARD.encode([*der])).collect(),
            };
            let at = Timestamp::from_unix_seconds(2);
            let lost = LostIssuer { tenant: Some("a".parse().unwrap()), details, at };
            withdrawn_by(&lost, &roots).into_iter().map(|listed| listed.issuer).collect::<Vec<_>>()
        };
        assert_eq!(by(&[9, 2]), [tenants.id]);
        assert_eq!(by(&[9, 1]), [own.id]);
        assert_eq!(by(&[]), [own.id, tenants.id], "the log of an earlier version");
        assert_eq!(by(&[9, 3]), [], "of another tenant");
        assert_eq!(by(&[9, 8]), [], "elsewhere");
        assert_eq!(by(&[9]), [], "a root");
    }
}
