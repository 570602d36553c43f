//! Onlookers: an auditor who keeps signed heads and follows the log, a relying party that fetches CRLs and asks OCSP.

use super::Place;
use crate::support::mano::http_attempt;
use crate::support::process::run;
use crate::support::site::Site;
use const_oid::AssociatedOid;
use der::Decode;
use keybroker::api::proto;
use keybroker::api::proto::audit_service_client::AuditServiceClient;
use keybroker::audit::SignedHead;
use keybroker::ca::pem;
use keybroker::nfv::Sha256Hash;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use x509_cert::crl::CertificateList;
use x509_cert::ext::pkix::CrlNumber;

/// Heads that are kept: more are thinned out.
const MOST_HEADS: usize = 120;
/// A tail that shows nothing for so long is begun anew at the other broker.
const QUIET: Duration = Duration::from_secs(8);

/// Keeps what the brokers say that the log is.
pub(super) async fn heads(place: Arc<Place>) {
    let mut dice = place.dice("heads");
    let mut largest = 0;
    while !place.is_over() {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let site = Arc::clone(place.any(&mut dice));
        let asked = async {
            let mut client = AuditServiceClient::new(site.reach("auditor").await?);
            client.get_checkpoint(proto::GetCheckpointRequest {}).await
        };
        let Ok(Ok(answer)) = tokio::time::timeout(Duration::from_secs(5), asked).await else { continue };
        let json = answer.into_inner().signed_head_json;
        let head: SignedHead = serde_json::from_str(&json).unwrap();
        if head.head.size < largest {
            place.ledger.fault(format!("a head of {} rows after one of {largest}", head.head.size));
        }
        if head.head.size <= largest {
            continue;
        }
        largest = head.head.size;
        let file = site.path().join(format!("head-{largest}.json"));
        std::fs::write(&file, json).unwrap();
        let mut notes = place.ledger.notes();
        notes.heads.push(file);
        if notes.heads.len() > MOST_HEADS {
            let mut number = 0;
            notes.heads.retain(|_| {
                number += 1;
                number % 2 == 0
            });
        }
    }
}

/// Follows the log from its beginning, at whichever broker answers.
pub(super) async fn tail(place: Arc<Place>) {
    let mut dice = place.dice("tail");
    let mut next = 0;
    while !place.is_over() {
        let site = Arc::clone(place.any(&mut dice));
        let connected = async {
            let mut client = AuditServiceClient::new(site.reach("auditor").await?);
            let request = proto::TailEventsRequest { query: None, from_index: Some(next) };
            Ok::<_, tonic::Status>(client.tail_events(request).await?.into_inner())
        };
        let Ok(Ok(mut events)) = tokio::time::timeout(QUIET, connected).await else {
            tokio::time::sleep(Duration::from_millis(200)).await;
            continue;
        };
        while let Ok(Ok(Some(shown))) = tokio::time::timeout(QUIET, events.message()).await {
            let event = shown.event.unwrap();
            let hash = Sha256Hash(event.chain_hash.as_slice().try_into().unwrap());
            if event.index != next {
                place.ledger.fault(format!("a tail shows row {} where {next} comes next", event.index));
            }
            next = event.index + 1;
            place.ledger.notes().tailed.insert(event.index, hash);
            if place.is_over() {
                return;
            }
        }
    }
}

/// Fetches CRLs: none is older than the one before it, whichever broker gives it.
pub(super) async fn relying_party(place: Arc<Place>) {
    let mut dice = place.dice("relying party");
    let mut latest = 0;
    while !place.is_over() {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let asked = crl(place.any(&mut dice), &place.issuer);
        let Ok(Ok(crl)) = tokio::time::timeout(Duration::from_secs(5), asked).await else { continue };
        if crl.number < latest {
            place.ledger.fault(format!("CRL {} after CRL {latest}", crl.number));
        }
        latest = latest.max(crl.number);
    }
}

/// A CRL as a relying party sees it.
pub(super) struct Crl {
    pub(super) number: u64,
    pub(super) serials: BTreeSet<Vec<u8>>,
}

/// An issuer's CRL, from one broker.
pub(super) async fn crl(site: &Site, issuer: &str) -> Result<Crl, String> {
    let url = format!("http://{}/crl/{issuer}.crl", site.addresses.http);
    let (head, body) = http_attempt(&url).await.map_err(|error| error.to_string())?;
    if !head.starts_with("HTTP/1.1 200") {
        return Err(head);
    }
    let list: CertificateList = CertificateList::from_der(&body).map_err(|error| error.to_string())?;
    let list = list.tbs_cert_list;
    let extensions = list.crl_extensions.unwrap_or_default();
    let number =
        extensions.iter().find(|extension| extension.extn_id == CrlNumber::OID).expect("a CRL number");
    let number = CrlNumber::from_der(number.extn_value.as_bytes()).unwrap();
    let number = number.0.as_bytes().iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
    let entries = list.revoked_certificates.unwrap_or_default();
    Ok(Crl { number, serials: entries.iter().map(|entry| plain(entry.serial_number.as_bytes())).collect() })
}

/// A serial number without the zeros that DER may put before it.
pub(super) fn plain(serial: &[u8]) -> Vec<u8> {
    serial.iter().copied().skip_while(|byte| *byte == 0).collect()
}

/// What a broker's OCSP responder says of a certificate: `good`, `revoked`, `unknown`, or that it says nothing.
pub(super) async fn ocsp(site: &Site, issuer_der: &[u8], root_der: &[u8], serial: &[u8]) -> String {
    let write = |name: &str, ders: &[&[u8]]| {
        let path = site.path().join(name);
        std::fs::write(&path, ders.iter().map(|der| pem("CERTIFICATE", der)).collect::<String>()).unwrap();
        path
    };
    let issuer = write("ocsp.issuer.pem", &[issuer_der]);
    let anchors = write("ocsp.anchors.pem", &[root_der, issuer_der]);
    let text = |path: &Path| path.display().to_string();
    let url = format!("http://{}/ocsp", site.addresses.http);
    let serial = format!("0x{}", hex::encode(serial));
    let (issuer, anchors) = (text(&issuer), text(&anchors));
    let arguments =
        ["ocsp", "-no_nonce", "-url", &url, "-CAfile", &anchors, "-issuer", &issuer, "-serial", &serial];
    let asked = run("openssl", arguments).await;
    let said =
        ["good", "revoked", "unknown"].into_iter().find(|state| asked.out.contains(&format!(": {state}")));
    said.map_or_else(|| format!("{asked:?}"), str::to_owned)
}
