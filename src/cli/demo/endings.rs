//! The end of the story: release, termination, revocation list, shredding, receipts, audit log, token.

use super::super::failure::Failure;
use super::super::files::{self, Readers};
use super::super::processes::until;
use super::revocation_list;
use super::site::{SLOTS, Site, Vnfci};
use super::story::ensure;
use crate::audit::event::EventKind;
use crate::audit::export::ExportReader;
use crate::hsm::ObjectId;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// Refusals that the demo provoked: two wrong credentials and two spent ones.
const REFUSALS: usize = 4;
/// Until when a receipt must be there: the horizon of 5 s, the sweeper's and the sequencer's rounds.
const SHREDDING: Duration = Duration::from_secs(90);

impl Site {
    /// A VNFCI gives its credentials back.
    pub(super) async fn release(&self, vnfci: &Vnfci) -> Result<String, Failure> {
        let server = format!("https://{}", self.addresses.vnfci);
        let out = self.out(&vnfci.id).display().to_string();
        let answer = self.program.object(["release", "--server", &server, "--out", &out]).await?;
        let serials = answer["serials"].as_array().map_or(0, Vec::len);
        ensure(serials == SLOTS.len(), || format!("{serials} certificates are to be revoked"))?;
        for (slot, _) in SLOTS {
            let key = self.out(&vnfci.id).join(slot).join("key.pem");
            ensure(!key.exists(), || format!("{} is still there", key.display()))?;
        }
        Ok(format!("{}: signed by each key, acknowledged, keys deleted", vnfci.id))
    }

    /// MANO ends a VNFCI; doing so again is harmless.
    pub(super) async fn terminate(&self, vnfci: &Vnfci) -> Result<String, Failure> {
        let arguments = ["vnfci", "terminate", &vnfci.id];
        let newly =
            |answers: &[Value]| answers.first().map(|answer| answer["newly_terminated"] == json!(true));
        let first = self.command("nfvo", &arguments).await?;
        ensure(newly(&first) == Some(true), || format!("the answer was {first:?}"))?;
        let second = self.command("nfvo", &arguments).await?;
        ensure(newly(&second) == Some(false), || format!("the second answer was {second:?}"))?;
        Ok(format!("{}: all its certificates are to be revoked; a repetition changed nothing", vnfci.id))
    }

    /// The CRL over HTTP, verified, lists the certificates of `gone` and not those of `living`; leaves `crl.pem`.
    pub(super) async fn check_crl(&self, gone: &[&Vnfci], living: &Vnfci) -> Result<String, Failure> {
        let root = files::read_certificates(&self.root())?;
        let chain =
            |vnfci: &str, slot: &str| files::read_certificates(&self.out(vnfci).join(slot).join("chain.pem"));
        let example = chain(&living.id, SLOTS[0].0)?;
        let url = revocation_list::url(example.first().map(Vec::as_slice).unwrap_or_default())?;
        let crl = until(
            Duration::from_secs(60),
            "the listing of released and terminated credentials",
            async || {
                let crl = revocation_list::fetch(&url).await?;
                for vnfci in gone {
                    for (slot, _) in SLOTS {
                        if !revocation_list::is_revoked(&chain(&vnfci.id, slot)?, &root, &crl)? {
                            return Ok(None);
                        }
                    }
                }
                Ok(Some(crl))
            },
        )
        .await?;
        for (slot, _) in SLOTS {
            let revoked = revocation_list::is_revoked(&chain(&living.id, slot)?, &root, &crl)?;
            ensure(!revoked, || format!("{} is listed, too", living.id))?;
        }
        let pem = crate::ca::pem("X509 CRL", &crl);
        files::replace(&self.directory.join("crl.pem"), pem.as_bytes(), Readers::Everyone)?;
        Ok(format!("{url}: signed by the sub-CA, lists {} credentials", gone.len() * SLOTS.len()))
    }

    /// Waits until a released key's epoch is shredded, and checks the signed receipts offline.
    pub(super) async fn check_receipts(&self, claim: &Value) -> Result<String, Failure> {
        let slots = claim["slots"].as_array().cloned().unwrap_or_default();
        ensure(slots.len() == SLOTS.len(), || format!("the claim had {} slots", slots.len()))?;
        let mut serial = String::new();
        for slot in &slots {
            let credential = slot["credential_id"].as_str().unwrap_or_default();
            let receipt = until(SHREDDING, "shredding and its receipt", async || {
                let flags = self.by("auditor");
                let arguments = ["audit", "receipt", credential];
                let arguments = arguments.into_iter().chain(flags.iter().map(String::as_str));
                let finished = self.program.run(arguments).await?;
                let shredded =
                    |receipt: &Value| receipt["receipt"]["broker_copy"]["state"] == json!("SHREDDED");
                match finished.code {
                    // Until the epoch is shredded the receipt says ERASED.
                    0 => Ok(finished.objects.into_iter().next().filter(shredded)),
                    _ => Err(finished.failure()),
                }
            })
            .await?;
            let facts = &receipt["receipt"];
            ensure(facts["holder_copy"] == json!("RELEASED_SIGNED"), || {
                format!("the receipt says {} and {}", facts["broker_copy"], facts["holder_copy"])
            })?;
            let file = self.work.join(format!("receipt-{credential}.json"));
            files::replace(&file, receipt.to_string().as_bytes(), Readers::Everyone)?;
            let (file, key) = (file.display().to_string(), self.audit_key().display().to_string());
            self.program.object(["audit", "receipt", "--file", &file, "--public-key", &key]).await?;
            serial = facts["broker_copy"]["token_serial"].as_str().unwrap_or_default().to_owned();
        }
        Ok(format!(
            "{} keys: SHREDDED on token {serial} and RELEASED_SIGNED, signatures verified offline",
            slots.len()
        ))
    }

    /// Every provoked refusal and both receipts are in the log; gives the index of the last one.
    pub(super) async fn check_refusals(&self) -> Result<(u64, String), Failure> {
        let (refusals, of_refusals) = self.events_of("REFUSED", REFUSALS).await?;
        let (_, of_receipts) = self.events_of("DESTRUCTION_RECEIPT", SLOTS.len()).await?;
        let detail = format!("{refusals} REFUSED events, with the reasons that the callers were not told");
        Ok((of_refusals.max(of_receipts), detail))
    }

    /// Waits until the log has at least `expected` events of a kind; how many it has, and the last one's index.
    async fn events_of(&self, kind: &str, expected: usize) -> Result<(usize, u64), Failure> {
        let events = until(Duration::from_secs(30), "the recording of events", async || {
            let events = self.command("auditor", &["audit", "list", "--kind", kind]).await?;
            Ok((events.len() >= expected).then_some(events))
        })
        .await?;
        Ok((events.len(), events.iter().filter_map(|event| event["index"].as_u64()).max().unwrap_or(0)))
    }

    /// Exports the log until it covers `index`, verifies it offline, and finds the whole story in it.
    pub(super) async fn check_log(&self, index: u64) -> Result<(u64, String), Failure> {
        let directory = self.directory.join("audit");
        let out = directory.display().to_string();
        let size = until(Duration::from_secs(60), "a signed head over the story", async || {
            if directory.exists() {
                std::fs::remove_dir_all(&directory).map_err(Failure::failed)?;
            }
            let exported = self.command("auditor", &["audit", "export", "--out", &out]).await?;
            let size = exported.first().and_then(|export| export["size"].as_u64()).unwrap_or(0);
            Ok((size > index).then_some(size))
        })
        .await?;
        let key = self.audit_key().display().to_string();
        let report = self.program.object(["audit", "verify", &out, "--public-key", &key]).await?;
        ensure(report["verified"] == json!(true), || format!("the report says {report}"))?;
        let mut kinds: BTreeMap<EventKind, usize> = BTreeMap::new();
        for row in ExportReader::open(&directory).map_err(Failure::failed)? {
            *kinds.entry(row.map_err(Failure::failed)?.event.kind).or_default() += 1;
        }
        let expected = [
            EventKind::PoolCreated,
            EventKind::KeysProduced,
            EventKind::VnfcisRegistered,
            EventKind::Claimed,
            EventKind::Confirmed,
            EventKind::Released,
            EventKind::Terminated,
            EventKind::CrlSigned,
            EventKind::EpochShredded,
            EventKind::DestructionReceipt,
            EventKind::Refused,
        ];
        let missing: Vec<_> = expected.iter().filter(|kind| !kinds.contains_key(kind)).collect();
        ensure(missing.is_empty(), || format!("no event of the kinds {missing:?}"))?;
        let detail = format!("{size} events of {} kinds, chain and head verified offline", kinds.len());
        Ok((size, detail))
    }

    /// `doctor` finds only objects on the token that are documented, however many credentials there were.
    pub(super) async fn check_token(&self) -> Result<(usize, String), Failure> {
        let config = self.config().display().to_string();
        let rows = self.program.succeed(["doctor", "--config", &config]).await?;
        let row = rows.iter().find(|row| row["check"] == json!("token objects"));
        let row = row.ok_or_else(|| Failure::failed("doctor has no row for the token's objects"))?;
        ensure(row["status"] == json!("ok"), || format!("doctor says {}", row["finding"]))?;
        let labels: Vec<&str> = row["objects"]
            .as_array()
            .map(|objects| objects.iter().filter_map(|object| object["label"].as_str()).collect())
            .unwrap_or_default();
        let unknown = labels.iter().find(|label| label.parse::<ObjectId>().is_err());
        ensure(unknown.is_none(), || format!("{unknown:?} is not documented"))?;
        let keks = labels.iter().filter(|label| matches!(label.parse(), Ok(ObjectId::Kek(..)))).count();
        ensure(keks <= 32, || format!("{keks} key-encryption keys"))?;
        let detail = format!(
            "{} objects, {keks} of them key-encryption keys; no VNFCI's key is among them",
            labels.len()
        );
        Ok((labels.len(), detail))
    }
}
