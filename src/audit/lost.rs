//! What rows of a log say that must not be forgotten when the database that they came from was rolled back: which keys went
//! out, which certificates were withdrawn, who ended, how far CRL numbers went.

use super::chain::{ChainedEntry, StoredEvent};
use super::details::{
    ClaimDetails, CrlDetails, EnrolmentDetails, ErasedDetails, IssuedDetails, ProducedDetails,
    RearmedDetails, RegisteredDetails, RevocationDetails, TerminatedDetails,
};
use super::event::EventKind;
use crate::clock::Timestamp;
use crate::credential::{HolderCopy, RevocationReason};
use crate::nfv::{CredentialId, IssuerId, TenantId, VnfciId};
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A certificate as the log names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostCertificate {
    /// Who signed it.
    pub issuer: IssuerId,
    /// Its serial number, content octets.
    pub serial: Vec<u8>,
    /// End of its validity.
    pub not_after: Timestamp,
}

/// A key that went out, or whose certificate was withdrawn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostKey {
    /// Whether it went out, or its custody ended; otherwise only its certificate was withdrawn.
    pub ended: bool,
    /// The reason for the CRL.
    pub reason: RevocationReason,
    /// Since when.
    pub at: Timestamp,
}

/// What the rows say, all of it.
#[derive(Debug, Default)]
pub struct Lost {
    /// Rows read.
    pub rows: u64,
    /// Keys by credential.
    pub keys: BTreeMap<CredentialId, LostKey>,
    /// The certificates that these rows tell of, whosever they are.
    pub certificates: HashMap<CredentialId, Vec<LostCertificate>>,
    /// VNFCIs that MANO ended.
    pub terminated: BTreeMap<TenantId, BTreeMap<VnfciId, HolderCopy>>,
    /// VNFCIs that were announced.
    pub registered: BTreeSet<(TenantId, VnfciId)>,
    /// VNFCIs that claimed or were armed anew.
    pub armed: BTreeSet<(TenantId, VnfciId)>,
    /// The highest CRL number of each issuer.
    pub crl_numbers: BTreeMap<IssuerId, u64>,
    /// Rows whose details could not be read.
    pub unreadable: u64,
}

impl Lost {
    /// The next row.
    pub fn row(&mut self, entry: &ChainedEntry) {
        self.rows += 1;
        if self.read(&entry.event).is_none() {
            self.unreadable += 1;
        }
    }

    /// What an event says of a delivery, if it is of one; anything else is passed over.
    pub fn delivery(&mut self, event: &StoredEvent) {
        if matches!(
            event.kind,
            EventKind::Claimed | EventKind::ClaimReplayed | EventKind::Enrolled | EventKind::Confirmed
        ) && self.read(event).is_none()
        {
            self.unreadable += 1;
        }
    }

    fn read(&mut self, event: &StoredEvent) -> Option<()> {
        let cessation = RevocationReason::CessationOfOperation;
        match event.kind {
            EventKind::KeysProduced => {
                let details: ProducedDetails = details(event)?;
                if let Some(issuer) = details.issuer {
                    for one in details.certificates {
                        self.certificate(one.credential, issuer, &one.serial, one.not_after)?;
                    }
                }
            }
            EventKind::CertificatesIssued => {
                let details: IssuedDetails = details(event)?;
                for one in details.certificates {
                    self.certificate(one.credential, details.issuer, &one.serial, one.not_after)?;
                }
            }
            EventKind::Claimed | EventKind::ClaimReplayed => {
                let details: ClaimDetails = details(event)?;
                for slot in details.slots {
                    if let Some(intent) = slot.intent {
                        self.certificate(slot.credential, intent.issuer, &intent.serial, intent.not_after)?;
                    }
                }
                self.all_keys(event, true, cessation);
                self.arm(event);
            }
            EventKind::Enrolled => {
                let details: EnrolmentDetails = details(event)?;
                for named in &event.credentials {
                    self.certificate(named.id, details.issuer, &details.serial, details.not_after)?;
                }
                self.all_keys(event, true, cessation);
                self.arm(event);
            }
            EventKind::Confirmed => {
                self.all_keys(event, true, cessation);
                self.arm(event);
            }
            EventKind::Released => self.all_keys(event, true, cessation),
            EventKind::Terminated => {
                let details: TerminatedDetails = details(event)?;
                self.all_keys(event, true, cessation);
                if let Some(tenant) = &event.tenant {
                    let ended = self.terminated.entry(tenant.clone()).or_default();
                    ended.extend(details.vnfcis.into_iter().map(|vnfci| (vnfci, details.holder_copy)));
                }
            }
            EventKind::KeysErased => {
                let details: ErasedDetails = details(event)?;
                if details.holder_copy != HolderCopy::NeverDelivered {
                    self.all_keys(event, true, cessation);
                }
            }
            EventKind::RevocationRequested => {
                self.all_keys(event, false, details::<RevocationDetails>(event)?.reason);
            }
            EventKind::VnfcisRegistered => {
                let details: RegisteredDetails = details(event)?;
                if let Some(tenant) = &event.tenant {
                    let announced = details.vnfcis.into_iter().map(|one| (tenant.clone(), one.vnfci));
                    self.registered.extend(announced);
                }
            }
            EventKind::VnfciRearmed => {
                let details: RearmedDetails = details(event)?;
                if let Some(tenant) = &event.tenant {
                    self.armed.extend(details.vnfcis.into_iter().map(|one| (tenant.clone(), one.vnfci)));
                }
            }
            EventKind::CrlSigned => {
                let details: CrlDetails = details(event)?;
                let highest = self.crl_numbers.entry(details.issuer).or_default();
                *highest = (*highest).max(details.number);
            }
            _ => {}
        }
        Some(())
    }

    fn all_keys(&mut self, event: &StoredEvent, ended: bool, reason: RevocationReason) {
        for named in &event.credentials {
            let new = LostKey { ended, reason, at: event.time };
            let key = self.keys.entry(named.id).or_insert_with(|| new.clone());
            key.ended |= ended;
            // A stated reason says more than that the key went out.
            if !ended {
                *key = LostKey { ended: key.ended, ..new };
            }
        }
    }

    fn arm(&mut self, event: &StoredEvent) {
        if let (Some(tenant), Some(vnfci)) = (&event.tenant, &event.vnfci) {
            self.armed.insert((tenant.clone(), vnfci.clone()));
        }
    }

    fn certificate(
        &mut self,
        credential: CredentialId,
        issuer: IssuerId,
        serial: &str,
        not_after: Timestamp,
    ) -> Option<()> {
        let certificate = LostCertificate { issuer, serial: hex::decode(serial).ok()?, not_after };
        let known = self.certificates.entry(credential).or_default();
        if !known.contains(&certificate) {
            known.push(certificate);
        }
        Some(())
    }
}

fn details<T: DeserializeOwned>(event: &StoredEvent) -> Option<T> {
    serde_json::from_str(&event.details).ok()
}
