//! What a recovery brings back into a database that was rolled back.

use crate::audit::lost::{LostCertificate, LostKey};
use crate::nfv::{CredentialId, IssuerId, TenantId, VnfciId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Mark of the origin of the log: a UUID of version 7 after `keybroker/`, so that a later log has a greater one.
pub const ORIGIN: &str = "audit_origin";
/// Mark of a recovery that was begun, JSON; empty when it is done.
pub const RECOVERY: &str = "recovery";
/// Beginning of the names of leases with which brokers show that they live, whether they deliver or not; the holder's name
/// comes after it.
pub const PRESENCE: &str = "broker/";
/// Mark with which a broker tells all others, in a sentence, that the database was rolled back; empty once it was recovered.
pub const ROLLED_BACK: &str = "rolled_back";

/// What the mirrored log says and the database does not know.
#[derive(Debug, Default)]
pub struct Recovery {
    /// Keys that went out, or whose certificates were withdrawn, with the certificates that the log tells of.
    pub keys: Vec<(CredentialId, LostKey, Vec<LostCertificate>)>,
    /// The highest CRL number of each issuer.
    pub crl_numbers: BTreeMap<IssuerId, u64>,
}

/// What bringing it back came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovered {
    /// Keys whose custody ended or whose certificates were withdrawn now.
    pub keys: Vec<crate::audit::event::EventCredential>,
    /// Certificates that became `REVOCATION_PENDING`.
    pub revoked: u64,
    /// Serial numbers that no certificate of the database has, to be listed on CRLs all the same.
    pub unknown_serials: u64,
    /// VNFCIs whose open initial credential is `VOID` now.
    pub voided: Vec<(TenantId, VnfciId)>,
}
