//! The hash chain over the log's rows.
//!
//! `h(-1)` is [`genesis`] of the log's origin; `h(i)` is SHA-256 over the label `keybroker-audit-chain-v1`, `h(i-1)`
//! (32 bytes) and the row's [`StoredEvent::bytes`]. A row's index is its place in the chain, counted from 0.

use super::event::{Actor, Event, EventCredential, EventKind};
use crate::clock::Timestamp;
use crate::nfv::{RequestId, Sha256Hash, TenantId, VnfInstanceId, VnfciId, labelled_fields};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// An [`Event`] as the store keeps it: the same, with the details as their exact JSON text, so that the bytes which
/// were hashed never depend on how a JSON library or a database writes numbers and spaces. (A column for it must be
/// text, not a JSON type.) Unknown fields are refused when a row is read: they would not be covered by its hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredEvent {
    /// UUID version 7.
    pub id: Uuid,
    /// When, by the store's clock; microseconds since the Unix epoch.
    pub time: Timestamp,
    /// What happened.
    pub kind: EventKind,
    /// Who did it.
    pub actor: Actor,
    /// In which tenant, if in one.
    pub tenant: Option<TenantId>,
    /// Of which VNF instance, if of one.
    pub vnf_instance: Option<VnfInstanceId>,
    /// To which VNFCI, if to one.
    pub vnfci: Option<VnfciId>,
    /// The caller's request id, if a request caused it.
    pub request: Option<RequestId>,
    /// The credentials concerned.
    pub credentials: Vec<EventCredential>,
    /// A JSON object on one line: exactly this text is hashed. Its fields are in [`super::details`].
    #[serde(with = "raw_json")]
    pub details: String,
}

impl From<&Event> for StoredEvent {
    fn from(event: &Event) -> Self {
        Self {
            id: event.id,
            time: event.time,
            kind: event.kind,
            actor: event.actor.clone(),
            tenant: event.tenant.clone(),
            vnf_instance: event.vnf_instance.clone(),
            vnfci: event.vnfci.clone(),
            request: event.request,
            credentials: event.credentials.clone(),
            details: event.details.to_string(),
        }
    }
}

impl StoredEvent {
    /// What is hashed of a row: label `keybroker-audit-entry-v1` and ten fields, all text: id, time (microseconds since
    /// the Unix epoch, decimal), kind, actor, tenant, VNF instance, VNFCI, request id, credentials (each
    /// `ID:SHA-256 of the SubjectPublicKeyInfo`, joined with commas), details. What is absent is empty; no present
    /// value is.
    pub fn bytes(&self) -> Vec<u8> {
        let credentials: Vec<String> = self
            .credentials
            .iter()
            .map(|credential| format!("{}:{}", credential.id, credential.public_key))
            .collect();
        let text = |name: Option<&str>| name.unwrap_or_default().to_owned();
        let fields = [
            self.id.hyphenated().to_string(),
            self.time.unix_micros().to_string(),
            self.kind.as_str().to_owned(),
            self.actor.0.clone(),
            text(self.tenant.as_ref().map(TenantId::as_str)),
            text(self.vnf_instance.as_ref().map(VnfInstanceId::as_str)),
            text(self.vnfci.as_ref().map(VnfciId::as_str)),
            self.request.map(|request| request.to_string()).unwrap_or_default(),
            credentials.join(","),
            self.details.clone(),
        ];
        labelled_fields("keybroker-audit-entry-v1", &fields.each_ref().map(|field| field.as_bytes()))
    }
}

/// A row of the log in its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChainedEntry {
    /// From 0, without gaps.
    pub index: u64,
    /// The row.
    pub event: StoredEvent,
    /// `h(index)`.
    pub hash: Sha256Hash,
}

impl ChainedEntry {
    /// Whether it is the row that comes after the one with this hash.
    pub fn follows(&self, previous: Sha256Hash) -> bool {
        next_hash(previous, &self.event) == self.hash
    }
}

/// `h(-1)`: SHA-256 over the label `keybroker-audit-origin-v1` and the origin, a text that no other log has.
pub fn genesis(origin: &str) -> Sha256Hash {
    Sha256Hash::of(&labelled_fields("keybroker-audit-origin-v1", &[origin.as_bytes()]))
}

/// `h(i)` from `h(i-1)` and row `i`.
pub fn next_hash(previous: Sha256Hash, event: &StoredEvent) -> Sha256Hash {
    Sha256Hash::of(&labelled_fields("keybroker-audit-chain-v1", &[&previous.0, &event.bytes()]))
}

/// The details' text in JSON as the JSON that it is, kept to the byte.
mod raw_json {
    use serde::de::Error as _;
    use serde::ser::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use serde_json::value::RawValue;

    pub(super) fn serialize<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
        if text.contains(['\n', '\r']) {
            return Err(S::Error::custom("details must be on one line"));
        }
        RawValue::from_string(text.to_owned()).map_err(S::Error::custom)?.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
        let text = Box::<RawValue>::deserialize(deserializer)?.get().to_owned();
        if text.starts_with('{') { Ok(text) } else { Err(D::Error::custom("details are no JSON object")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nfv::CredentialId;
    use proptest::prelude::*;

    fn event() -> Event {
        Event::new(
            Timestamp::from_unix_micros(1_700_000_000_000_001),
            EventKind::Claimed,
            Actor("vnfci:a".into()),
        )
        .tenant(&"default".parse().unwrap())
        .vnf_instance(&"vnf-1".parse().unwrap())
        .vnfci(&"a".parse().unwrap())
        .request(RequestId::generate())
        .credentials([EventCredential { id: CredentialId::generate(), public_key: Sha256Hash([7; 32]) }])
        .details(serde_json::json!({"claim": "x", "n": 1.5}))
    }

    #[test]
    fn every_field_of_a_row_changes_its_hash() {
        let event = StoredEvent::from(&event());
        let before = next_hash(genesis("log"), &event);
        let changes: [fn(&mut StoredEvent); 10] = [
            |e| e.id = Uuid::nil(),
            |e| e.time = Timestamp::from_unix_micros(1_700_000_000_000_002),
            |e| e.kind = EventKind::ClaimReplayed,
            |e| e.actor = Actor::broker(),
            |e| e.tenant = None,
            |e| e.vnf_instance = None,
            |e| e.vnfci = Some("b".parse().unwrap()),
            |e| e.request = None,
            |e| e.credentials[0].public_key.0[31] ^= 1,
            |e| e.details = r#"{"claim":"x","n":1.50}"#.to_owned(),
        ];
        for (number, change) in changes.iter().enumerate() {
            let mut changed = event.clone();
            change(&mut changed);
            assert_ne!(next_hash(genesis("log"), &changed), before, "change {number}");
        }
        assert_ne!(next_hash(genesis("other log"), &event), before);
    }

    #[test]
    fn the_bytes_of_a_row_stay_as_documented() {
        let event = StoredEvent {
            id: Uuid::nil(),
            time: Timestamp::from_unix_micros(5),
            kind: EventKind::LogStarted,
            actor: Actor::broker(),
            tenant: None,
            vnf_instance: None,
            vnfci: None,
            request: None,
            credentials: Vec::new(),
            details: "{}".to_owned(),
        };
        let mut expected = b"keybroker-audit-entry-v1".to_vec();
        for field in
            ["00000000-0000-0000-0000-000000000000", "5", "LOG_STARTED", "broker", "", "", "", "", "", "{}"]
        {
            expected.extend(u32::try_from(field.len()).unwrap().to_be_bytes());
            expected.extend(field.as_bytes());
        }
        assert_eq!(event.bytes(), expected);
    }

    #[test]
    fn details_keep_their_exact_text_through_json() {
        let mut event = StoredEvent::from(&event());
        event.details = r#"{ "b":1.50,  "a":1e2 }"#.to_owned();
        let line = serde_json::to_string(&event).unwrap();
        let read: StoredEvent = serde_json::from_str(&line).unwrap();
        assert_eq!(read, event);
    }

    proptest! {
        #[test]
        fn no_line_makes_the_reader_panic(line in ".*") {
            let _ = serde_json::from_str::<ChainedEntry>(&line);
        }
    }
}
