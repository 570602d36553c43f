//! What rows of a log say that must not be forgotten when the database that they came from was rolled back: which keys went
//! out and how they ended, which certificates were withdrawn, what was given back, renewed or receipted, who ended, how far
//! CRL numbers went. Rows must come in the order in which they were written.

use super::chain::{ChainedEntry, StoredEvent};
use super::details::{
    ClaimDetails, ConfirmedDetails, CrlDetails, EnrolmentDetails, ErasedDetails, IssuedDetails,
    IssuerDetails, ProducedDetails, RearmedDetails, RearmedVnfci, RegisteredDetails, ReleasedDetails,
    RevocationDetails, TerminatedDetails, UnknownCertificate, json,
};
use super::event::{Actor, EventKind};
use super::notes::Note;
use super::receipt::DestructionReason;
use crate::clock::Timestamp;
use crate::credential::{HolderCopy, RevocationReason};
use crate::nfv::{ClaimId, CredentialId, InitialCredentialId, IssuerId, TenantId, VnfciId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A certificate as the log names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostCertificate {
    /// Who signed it.
    pub issuer: IssuerId,
    /// Its serial number, content octets.
    pub serial: Vec<u8>,
    /// End of its validity.
    pub not_after: Timestamp,
}

/// How the custody of a key ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostEnd {
    /// Why; `RECOVERED` if the rows say no more than that it went out.
    pub reason: DestructionReason,
    /// What was known of the holder's copy.
    pub holder_copy: HolderCopy,
    /// The claim whose release it was.
    pub release: Option<ClaimId>,
}

impl LostEnd {
    /// It went out, and nobody said more.
    pub const WENT_OUT: Self = Self::new(DestructionReason::Recovered, HolderCopy::Unknown);

    /// Without a release.
    pub const fn new(reason: DestructionReason, holder_copy: HolderCopy) -> Self {
        Self { reason, holder_copy, release: None }
    }

    /// The reason for the CRL.
    pub fn revocation(self) -> RevocationReason {
        match self.reason {
            DestructionReason::NewRecipient | DestructionReason::Rearmed | DestructionReason::Superseded => {
                RevocationReason::Superseded
            }
            _ => RevocationReason::CessationOfOperation,
        }
    }
}

/// A key that went out, or whose certificate was withdrawn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostKey {
    /// How its custody ended, if it did; otherwise only its certificate was withdrawn.
    pub end: Option<LostEnd>,
    /// The reason that somebody stated for the withdrawal of its certificate.
    pub stated: Option<RevocationReason>,
    /// Since when.
    pub at: Timestamp,
}

impl LostKey {
    /// The reason for the CRL. A stated one says more than how the key ended.
    pub fn revocation(&self) -> RevocationReason {
        let of_end = self.end.unwrap_or(LostEnd::WENT_OUT).revocation();
        self.stated.unwrap_or(of_end)
    }
}

/// A certificate that an earlier recovery put on its issuer's CRL: the database that it recovered did not have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// It.
    pub certificate: LostCertificate,
    /// The reason on the CRL.
    pub reason: RevocationReason,
    /// Since when.
    pub at: Timestamp,
}

/// A claim that was given back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostRelease {
    /// Whose.
    pub tenant: TenantId,
    /// Whose.
    pub vnfci: VnfciId,
    /// The claim.
    pub claim: ClaimId,
    /// Its arming, if these rows tell of the claim.
    pub arming: Option<InitialCredentialId>,
    /// Whether it was of the VNFCI's latest arming, as far as these rows tell of armings: then it ended the VNFCI.
    pub ended: bool,
    /// Whether the VNFCI was armed anew since.
    pub rearmed: bool,
    /// When.
    pub at: Timestamp,
    /// What the event said, JSON: the holder's signatures are in it.
    pub details: String,
}

/// A VNFCI that was armed anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostRearming {
    /// When.
    pub at: Timestamp,
    /// What the event said of it, JSON.
    pub details: String,
}

/// A renewal that was confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostRenewal {
    /// Whose.
    pub tenant: TenantId,
    /// Whose.
    pub vnfci: VnfciId,
    /// The claim that was renewed.
    pub of: ClaimId,
    /// The renewal.
    pub by: ClaimId,
    /// When.
    pub at: Timestamp,
    /// The keys of the renewal.
    pub keys: Vec<CredentialId>,
    /// What the event said, JSON.
    pub details: String,
}

/// A CA that came into use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostIssuer {
    /// Whose; none for a root.
    pub tenant: Option<TenantId>,
    /// What the event said.
    pub details: IssuerDetails,
    /// When.
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
    /// What earlier recoveries put on CRLs.
    pub listed: Vec<Listed>,
    /// VNFCIs that MANO ended.
    pub terminated: BTreeMap<TenantId, BTreeMap<VnfciId, HolderCopy>>,
    /// VNFCIs that were announced.
    pub registered: BTreeSet<(TenantId, VnfciId)>,
    /// VNFCIs that claimed or were armed anew, and did not give back what they had since.
    pub armed: BTreeSet<(TenantId, VnfciId)>,
    /// How those were armed anew, last, that gave nothing back since.
    pub rearmed: BTreeMap<(TenantId, VnfciId), LostRearming>,
    /// What was given back, in order.
    pub releases: Vec<LostRelease>,
    /// Renewals that were confirmed, in order.
    pub renewals: Vec<LostRenewal>,
    /// Destruction receipts as they were given out, JSON.
    pub receipts: BTreeMap<CredentialId, String>,
    /// CAs that came into use.
    pub issuers: BTreeMap<IssuerId, LostIssuer>,
    /// The highest CRL number of each issuer.
    pub crl_numbers: BTreeMap<IssuerId, u64>,
    /// Rows whose details could not be read.
    pub unreadable: u64,
    /// The armings of claims.
    armings: HashMap<ClaimId, InitialCredentialId>,
    /// The latest arming of each VNFCI that was armed anew.
    latest: HashMap<(TenantId, VnfciId), InitialCredentialId>,
    /// When, by whom and for whom the last delivery was: what it replaced is withdrawn by the event after it.
    delivered: Option<(Timestamp, Actor, Option<VnfciId>)>,
}

impl Lost {
    /// The next row.
    pub fn row(&mut self, entry: &ChainedEntry) {
        self.rows += 1;
        if self.read(&entry.event).is_none() {
            self.unreadable += 1;
        }
    }

    /// Rows that are not what was written, with what stands in their place. Believed of it is what withdraws, at worst, a
    /// certificate too many: which certificates there are, which keys went out or were withdrawn.
    pub fn damaged(&mut self, rows: u64, event: Option<&StoredEvent>) {
        self.rows += rows;
        self.unreadable += rows;
        let Some(event) = event else { return };
        match event.kind {
            EventKind::KeysProduced
            | EventKind::CertificatesIssued
            | EventKind::Claimed
            | EventKind::ClaimReplayed
            | EventKind::Enrolled
            | EventKind::RevocationRequested => {
                self.read(event);
            }
            EventKind::Confirmed => self.went_out(event),
            _ => {}
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

    /// A delivery that was noted and that no mirror has.
    pub fn noted(&mut self, note: &Note) {
        for (credential, certificate) in &note.certificates {
            self.known_certificate(*credential, certificate.clone());
        }
        self.delivery(&note.event);
    }

    fn read(&mut self, event: &StoredEvent) -> Option<()> {
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
                // First: it stands whether the details can be read or not.
                self.went_out(event);
                let details: ClaimDetails = details(event)?;
                self.armings.insert(details.claim, details.initial_credential);
                for slot in details.slots {
                    if let Some(intent) = slot.intent {
                        self.certificate(slot.credential, intent.issuer, &intent.serial, intent.not_after)?;
                    }
                }
            }
            EventKind::Enrolled => {
                self.went_out(event);
                self.delivered = Some(delivery_of(event));
                let details: EnrolmentDetails = details(event)?;
                for named in &event.credentials {
                    self.certificate(named.id, details.issuer, &details.serial, details.not_after)?;
                }
            }
            EventKind::Confirmed => {
                self.went_out(event);
                self.delivered = Some(delivery_of(event));
                let details: ConfirmedDetails = details(event)?;
                self.armings.insert(details.claim, details.initial_credential);
                if let (Some(of), Some((tenant, vnfci))) = (details.renews, whose(event)) {
                    let (by, at) = (details.claim, event.time);
                    let keys = event.credentials.iter().map(|named| named.id).collect();
                    let details = event.details.clone();
                    self.renewals.push(LostRenewal { tenant, vnfci, of, by, at, keys, details });
                }
            }
            EventKind::Released => self.released(event)?,
            EventKind::Terminated => {
                let details: TerminatedDetails = details(event)?;
                let end = LostEnd::new(DestructionReason::Terminated, details.holder_copy);
                self.end_keys(event, |_| end);
                if let Some(tenant) = &event.tenant {
                    let ended = self.terminated.entry(tenant.clone()).or_default();
                    ended.extend(details.vnfcis.into_iter().map(|vnfci| (vnfci, details.holder_copy)));
                }
            }
            EventKind::KeysErased => {
                let details: ErasedDetails = details(event)?;
                if details.holder_copy != HolderCopy::NeverDelivered {
                    self.end_keys(event, |_| LostEnd::new(details.reason, details.holder_copy));
                }
            }
            EventKind::RevocationRequested => {
                let details: RevocationDetails = details(event)?;
                if self.replaces(event, details.reason) {
                    let end = LostEnd::new(DestructionReason::Superseded, HolderCopy::Unknown);
                    self.end_keys(event, |_| end);
                } else {
                    self.withdraw(event, details.reason);
                }
                for UnknownCertificate { issuer, serial, not_after } in details.unknown {
                    let certificate =
                        LostCertificate { issuer, serial: hex::decode(serial).ok()?, not_after };
                    self.listed.push(Listed { certificate, reason: details.reason, at: event.time });
                }
            }
            EventKind::DestructionReceipt => {
                for named in &event.credentials {
                    self.receipts.entry(named.id).or_insert_with(|| event.details.clone());
                }
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
                    for one in details.vnfcis {
                        self.armed_anew(tenant, one, event.time);
                    }
                }
            }
            EventKind::IssuerAdded => {
                let details: IssuerDetails = details(event)?;
                let (tenant, at) = (event.tenant.clone(), event.time);
                self.issuers.entry(details.issuer).or_insert(LostIssuer { tenant, details, at });
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

    fn released(&mut self, event: &StoredEvent) -> Option<()> {
        let details: ReleasedDetails = details(event)?;
        // The keys that signed come first; what else the VNFCI had ended with them, and nobody signed for that.
        let signed = details.certificates.len();
        self.end_keys(event, |place| LostEnd {
            reason: DestructionReason::Released,
            holder_copy: if place < signed { HolderCopy::ReleasedSigned } else { HolderCopy::Unknown },
            release: Some(details.claim),
        });
        let whose = whose(event)?;
        let arming = self.armings.get(&details.claim).copied();
        let latest = self.latest.get(&whose);
        let ended = latest.is_none() || latest == arming.as_ref();
        if ended {
            self.armed.remove(&whose);
            self.rearmed.remove(&whose);
        }
        let (tenant, vnfci) = whose;
        self.releases.push(LostRelease {
            tenant,
            vnfci,
            claim: details.claim,
            arming,
            ended,
            rearmed: false,
            at: event.time,
            details: event.details.clone(),
        });
        Some(())
    }

    fn armed_anew(&mut self, tenant: &TenantId, one: RearmedVnfci, at: Timestamp) {
        let (whose, arming) = ((tenant.clone(), one.vnfci.clone()), one.initial_credential);
        let details = json(&RearmedDetails { vnfcis: vec![one] }).to_string();
        for release in &mut self.releases {
            release.rearmed |= (&release.tenant, &release.vnfci) == (&whose.0, &whose.1);
        }
        self.rearmed.insert(whose.clone(), LostRearming { at, details });
        self.latest.insert(whose.clone(), arming);
        self.armed.insert(whose);
    }

    /// Whether a withdrawal is of what a delivery, or a renewal whose overlap is over, took the place of: that ends custody.
    /// What an operator withdraws its holder has still.
    fn replaces(&self, event: &StoredEvent, reason: RevocationReason) -> bool {
        let by_delivery = self.delivered.as_ref() == Some(&delivery_of(event));
        let by_overlap = event.actor == Actor::broker() && event.vnfci.is_some();
        reason == RevocationReason::Superseded && (by_delivery || by_overlap)
    }

    fn went_out(&mut self, event: &StoredEvent) {
        self.end_keys(event, |_| LostEnd::WENT_OUT);
        self.armed.extend(whose(event));
    }

    /// A key ends once: what is said first stands, unless it is only that it went out.
    fn end_keys(&mut self, event: &StoredEvent, end: impl Fn(usize) -> LostEnd) {
        for (place, named) in event.credentials.iter().enumerate() {
            let key = self.key(named.id, event.time);
            if key.end.is_none_or(|before| before == LostEnd::WENT_OUT) {
                key.end = Some(end(place));
            }
        }
    }

    fn withdraw(&mut self, event: &StoredEvent, reason: RevocationReason) {
        for named in &event.credentials {
            let key = self.key(named.id, event.time);
            (key.stated, key.at) = (Some(reason), event.time);
        }
    }

    fn key(&mut self, id: CredentialId, at: Timestamp) -> &mut LostKey {
        self.keys.entry(id).or_insert(LostKey { end: None, stated: None, at })
    }

    fn certificate(
        &mut self,
        credential: CredentialId,
        issuer: IssuerId,
        serial: &str,
        not_after: Timestamp,
    ) -> Option<()> {
        let certificate = LostCertificate { issuer, serial: hex::decode(serial).ok()?, not_after };
        self.known_certificate(credential, certificate);
        Some(())
    }

    fn known_certificate(&mut self, credential: CredentialId, certificate: LostCertificate) {
        let known = self.certificates.entry(credential).or_default();
        if !known.contains(&certificate) {
            known.push(certificate);
        }
    }
}

fn details<T: DeserializeOwned>(event: &StoredEvent) -> Option<T> {
    serde_json::from_str(&event.details).ok()
}

fn whose(event: &StoredEvent) -> Option<(TenantId, VnfciId)> {
    Some((event.tenant.clone()?, event.vnfci.clone()?))
}

fn delivery_of(event: &StoredEvent) -> (Timestamp, Actor, Option<VnfciId>) {
    (event.time, event.actor.clone(), event.vnfci.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::details;
    use crate::audit::event::{Event, EventCredential};
    use crate::nfv::Sha256Hash;

    fn key(number: u8) -> EventCredential {
        EventCredential { id: CredentialId::generate(), public_key: Sha256Hash([number; 32]) }
    }

    fn event(kind: EventKind, actor: &str, second: i64, details: serde_json::Value) -> Event {
        Event::new(Timestamp::from_unix_seconds(second), kind, Actor(actor.to_owned()))
            .tenant(&"default".parse().unwrap())
            .vnfci(&"amf-1".parse().unwrap())
            .details(details)
    }

    fn read(events: &[Event]) -> Lost {
        let mut lost = Lost::default();
        for event in events {
            assert!(lost.read(&StoredEvent::from(event)).is_some(), "{event:?}");
        }
        lost
    }

    fn confirmed(claim: ClaimId, arming: InitialCredentialId, second: i64) -> Event {
        let details = ConfirmedDetails {
            claim,
            recipient_key: Sha256Hash([1; 32]),
            initial_credential: arming,
            renews: None,
            delivered_by: None,
            certificates: Vec::new(),
        };
        event(EventKind::Confirmed, "vnfci:default/amf-1", second, details::json(&details))
    }

    fn superseded(actor: &str, second: i64, key: &EventCredential) -> Event {
        let (reason, none) = (RevocationReason::Superseded, Vec::new());
        let details = RevocationDetails { reason, serials: none, unknown: Vec::new() };
        event(EventKind::RevocationRequested, actor, second, details::json(&details))
            .credentials([key.clone()])
    }

    fn released(claim: ClaimId, second: i64, keys: &[EventCredential]) -> Event {
        let details = ReleasedDetails {
            claim,
            certificates: vec![Sha256Hash([2; 32])],
            signatures: vec!["c2lnbmVk".to_owned()],
        };
        event(EventKind::Released, "vnfci:default/amf-1", second, details::json(&details))
            .credentials(keys.iter().cloned())
    }

    fn rearmed(arming: InitialCredentialId, second: i64) -> Event {
        let one = RearmedVnfci {
            vnfci: "amf-1".parse().unwrap(),
            initial_credential: arming,
            generation: 2,
            kind: "TOKEN".to_owned(),
            proof: None,
            expires_at: Timestamp::from_unix_seconds(second + 60),
        };
        let details = RearmedDetails { vnfcis: vec![one] };
        event(EventKind::VnfciRearmed, "vnfm:default/vnfm", second, details::json(&details))
    }

    #[test]
    fn what_a_delivery_or_an_overlap_replaced_has_ended_and_what_an_operator_withdraws_has_not() {
        let (of_confirmation, of_overlap, of_operator) = (key(1), key(2), key(3));
        let lost = read(&[
            confirmed(ClaimId::generate(), InitialCredentialId::generate(), 10),
            superseded("vnfci:default/amf-1", 10, &of_confirmation),
            superseded("broker", 20, &of_overlap),
            superseded("security-operator:so", 10, &of_operator),
        ]);
        let end = |key: &EventCredential| lost.keys[&key.id].end;
        let replaced = Some(LostEnd::new(DestructionReason::Superseded, HolderCopy::Unknown));
        assert_eq!((end(&of_confirmation), end(&of_overlap)), (replaced, replaced));
        assert_eq!(end(&of_operator), None);
        assert_eq!(lost.keys[&of_operator.id].stated, Some(RevocationReason::Superseded));
    }

    #[test]
    fn what_a_recovery_listed_is_read_again_beside_what_it_withdrew() {
        let (issuer, not_after) = (IssuerId::generate(), Timestamp::from_unix_seconds(90));
        let unknown = |serial: &str| UnknownCertificate { issuer, serial: serial.to_owned(), not_after };
        let details = RevocationDetails {
            reason: RevocationReason::CessationOfOperation,
            serials: Vec::new(),
            unknown: vec![unknown("0102"), unknown("03")],
        };
        let lost = read(&[event(EventKind::RevocationRequested, "broker", 10, details::json(&details))]);
        let listed: Vec<&[u8]> = lost.listed.iter().map(|one| &one.certificate.serial[..]).collect();
        assert_eq!(listed, [&[1, 2][..], &[3][..]]);
        assert_eq!(lost.listed[0].at, Timestamp::from_unix_seconds(10));
        assert!(lost.keys.is_empty(), "{lost:?}");
    }

    #[test]
    fn a_delivery_whose_details_are_garbled_is_one_all_the_same() {
        for kind in [EventKind::Claimed, EventKind::ClaimReplayed, EventKind::Enrolled, EventKind::Confirmed]
        {
            let key = key(1);
            let garbled = event(kind, "vnfci:default/amf-1", 10, serde_json::json!({ "cla\u{1}m": 7 }));
            let garbled = StoredEvent::from(&garbled.credentials([key.clone()]));
            let (mut read, mut damaged) = (Lost::default(), Lost::default());
            assert!(read.read(&garbled).is_none(), "{kind:?}");
            damaged.damaged(1, Some(&garbled));
            for lost in [&read, &damaged] {
                assert_eq!(lost.keys[&key.id].end, Some(LostEnd::WENT_OUT), "{kind:?}");
                assert_eq!(lost.armed.len(), 1, "{kind:?}");
            }
            assert_eq!(damaged.unreadable, 1);
        }
    }

    #[test]
    fn a_key_ends_as_is_said_first_and_only_the_keys_that_signed_are_said_to_be_deleted() {
        let (signed, other) = (key(1), key(2));
        let claim = ClaimId::generate();
        let erased = ErasedDetails { reason: DestructionReason::Recovered, holder_copy: HolderCopy::Unknown };
        let lost = read(&[
            confirmed(claim, InitialCredentialId::generate(), 10).credentials([signed.clone()]),
            released(claim, 20, &[signed.clone(), other.clone()]),
            event(EventKind::KeysErased, "broker", 30, details::json(&erased)).credentials([signed.clone()]),
        ]);
        let how = |key: &EventCredential| lost.keys[&key.id].end.map(|end| (end.reason, end.holder_copy));
        assert_eq!(how(&signed), Some((DestructionReason::Released, HolderCopy::ReleasedSigned)));
        assert_eq!(how(&other), Some((DestructionReason::Released, HolderCopy::Unknown)));
        assert!(lost.releases[0].ended && lost.armed.is_empty(), "{lost:?}");
    }

    #[test]
    fn a_release_ends_the_vnfci_if_it_is_of_the_latest_arming() {
        let (first, second) = (InitialCredentialId::generate(), InitialCredentialId::generate());
        let (earlier, later) = (ClaimId::generate(), ClaimId::generate());
        let whose = ("default".parse().unwrap(), "amf-1".parse().unwrap());
        // Armed anew, and what the arming before had brought is given back: the VNFCI is to claim.
        let mut rows = vec![confirmed(earlier, first, 10), rearmed(second, 20), released(earlier, 30, &[])];
        let lost = read(&rows);
        assert_eq!((lost.releases[0].ended, lost.releases[0].rearmed), (false, false));
        assert!(lost.armed.contains(&whose) && lost.rearmed.contains_key(&whose));
        // It claims, and gives that back, too.
        rows.extend([confirmed(later, second, 40), released(later, 50, &[])]);
        let lost = read(&rows);
        assert_eq!((lost.releases[1].ended, lost.releases[1].arming), (true, Some(second)));
        assert!(lost.armed.is_empty() && lost.rearmed.is_empty(), "{lost:?}");
        // And is armed once more.
        rows.push(rearmed(InitialCredentialId::generate(), 60));
        let lost = read(&rows);
        assert!(lost.releases.iter().all(|release| release.rearmed));
        assert_eq!(lost.rearmed[&whose].at, Timestamp::from_unix_seconds(60));
    }
}
