//! What a recovery brings back into a database that was rolled back.

use super::IssuerRecord;
use crate::audit::event::EventCredential;
use crate::audit::lost::{Listed, LostCertificate, LostEnd, LostKey, LostRearming, LostRelease, LostRenewal};
use crate::credential::RevocationReason;
use crate::nfv::{ClaimId, CredentialId, IssuerId, TenantId, VnfciId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// Mark of the origin of the log: a UUID of version 7 after `keybroker/`, so that a later log has a greater one.
pub const ORIGIN: &str = "audit_origin";
/// Mark of a recovery that was begun, JSON; empty when it is done.
pub const RECOVERY: &str = "recovery";
/// Beginning of the names of leases with which brokers show that they live, whether they deliver or not; the holder's name
/// comes after it.
pub const PRESENCE: &str = "broker/";
/// Mark with which a broker tells all others, in a sentence, that the database was rolled back; empty once it was recovered.
pub const ROLLED_BACK: &str = "rolled_back";

/// Mark of the CAs that no recovery could bring back, JSON.
pub const LOST_ISSUERS: &str = "lost_issuers";

/// What the mirrored log says and the database does not know.
#[derive(Debug, Default)]
pub struct Recovery {
    /// CAs that the database does not have, each with the highest number of its CRLs, 0 if none is known.
    pub issuers: Vec<(IssuerRecord, u64)>,
    /// Certificates of CAs that cannot be brought back, which own roots withdraw.
    pub lost_issuers: Vec<LostCertificate>,
    /// What earlier recoveries put on CRLs.
    pub listed: Vec<Listed>,
    /// Keys that went out, or whose certificates were withdrawn, with the certificates that the log tells of.
    pub keys: Vec<(CredentialId, LostKey, Vec<LostCertificate>)>,
    /// Renewals that were confirmed, each with its overlap, for those that the database does not have.
    pub renewals: Vec<(LostRenewal, Duration)>,
    /// What was given back.
    pub releases: Vec<LostRelease>,
    /// VNFCIs that were armed anew: whoever had given back what it had before waits to claim again.
    pub rearmed: BTreeMap<(TenantId, VnfciId), LostRearming>,
    /// The highest CRL number of each issuer.
    pub crl_numbers: BTreeMap<IssuerId, u64>,
}

/// A key whose certificates were withdrawn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Withdrawn {
    /// The key.
    pub key: EventCredential,
    /// Why.
    pub reason: RevocationReason,
    /// Serial numbers, hexadecimal.
    pub serials: Vec<String>,
}

/// What bringing it back came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovered {
    /// CAs that the database has again, with the generation that each has now: its own, or the next one if that is taken.
    #[serde(default)]
    pub issuers: Vec<(IssuerId, u32)>,
    /// Keys whose custody ended now.
    pub ended: Vec<(EventCredential, LostEnd)>,
    /// Keys whose certificates were withdrawn now for a reason that somebody had stated.
    pub withdrawn: Vec<Withdrawn>,
    /// Certificates that became `REVOCATION_PENDING`.
    pub revoked: u64,
    /// Certificates that the database does not have, and that are on CRLs now all the same.
    #[serde(default)]
    pub listed: Vec<Listed>,
    /// Active VNFCIs whose certificates were withdrawn now because an earlier recovery had listed them.
    #[serde(default)]
    pub disarmed: Vec<(TenantId, VnfciId)>,
    /// Claims that count as renewed now: their overlap began when that was confirmed.
    pub renewed: Vec<ClaimId>,
    /// VNFCIs that count as having given back what they had.
    pub released: Vec<(TenantId, VnfciId)>,
    /// VNFCIs that had given back what they had and count as armed anew.
    pub returned: Vec<(TenantId, VnfciId)>,
    /// VNFCIs whose open initial credential is `VOID` now, and that do not count as released.
    pub voided: Vec<(TenantId, VnfciId)>,
}
