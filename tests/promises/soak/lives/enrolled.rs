//! VNFCIs that make their keys themselves and enrol over EST, by curl.

use super::{end, register};
use crate::soak::Place;
use crate::support::mano::{By, armament, request_id};
use crate::support::process::run;
use crate::support::site::{ANCHOR, Site};
use crate::support::vnfci::Vnfci;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use keybroker::api::proto;
use keybroker::ca::{CertificateFacts, certificates_from_pem};
use rand::RngExt;
use rand::rngs::StdRng;
use std::path::Path;
use std::sync::Arc;
use tonic::{Code, Status};

/// Attempts after answers that were lost: each costs an arming.
const ARMINGS: u32 = 6;

/// A VNFCI or two.
pub(super) async fn cohort(place: &Arc<Place>, dice: &mut StdRng, name: &str) {
    let ids: Vec<String> = (0..dice.random_range(1..=2)).map(|n| format!("est-{name}-{n}")).collect();
    let slots = [("a", "transport")];
    let Some(vnfcis) = register(place, dice, &ids, &slots, By::Certificate, None).await else { return };
    for vnfci in vnfcis {
        enrol(place, dice, vnfci).await;
    }
    if dice.random_bool(0.8) {
        end(place, dice, &ids).await;
    }
}

async fn enrol(place: &Arc<Place>, dice: &mut StdRng, mut vnfci: Vnfci) {
    let directory = place.sites[0].path().join(&vnfci.id);
    std::fs::create_dir(&directory).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let request = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
    let request = request.serialize_request(&key).unwrap();
    std::fs::write(directory.join("request.b64"), STANDARD.encode(request.der())).unwrap();
    for _ in 0..ARMINGS {
        vnfci.initial.credential.write(&directory, "initial");
        let mut attempts = 0;
        let directory = &directory;
        let attempt = |site: Arc<Site>| {
            attempts += 1;
            async move { post(&site, directory).await }
        };
        match place.persistently(&format!("the enrolment of {}", vnfci.id), dice, attempt).await {
            Ok(facts) => {
                place.ledger.count("enrolled over EST");
                return place.ledger.enrolled(&vnfci.id, &facts.serial);
            }
            // The answer that spent the initial credential was lost (docs/est.md, "Once").
            Err(status) if status.code() == Code::Unauthenticated && attempts > 1 => {
                place.ledger.count("re-armed for EST");
                let (credential, kind) =
                    armament(&place.sites[0].mano_ca, ANCHOR, &vnfci.id, By::Certificate);
                let initial_credential = proto::InitialCredential { kind: Some(kind), expires_at: None };
                let rearming = proto::Rearming {
                    vnfci_id: vnfci.id.clone(),
                    initial_credential: Some(initial_credential),
                };
                let request = proto::RearmVnfcisRequest {
                    request_id: request_id(),
                    tenant: String::new(),
                    vnfcis: vec![rearming],
                };
                place.ask_surely(dice, request).await;
                vnfci.initial.credential = credential;
            }
            Err(status) => return place.ledger.fault(format!("{} enrols: {status:?}", vnfci.id)),
        }
    }
    place.ledger.fault(format!("{} was armed {ARMINGS} times and never enrolled", vnfci.id));
}

/// One POST, and the certificate that it brought.
async fn post(site: &Site, directory: &Path) -> Result<CertificateFacts, Status> {
    let script = format!(
        "cd {} && curl -sS --max-time 8 --cacert {} --cert initial.cert.pem --key initial.key.pem --data-binary @request.b64 \
         -H 'Content-Type: application/pkcs10' -o answer -w '%{{http_code}}' '{}/.well-known/est/simpleenroll'",
        directory.display(),
        site.root_pem().display(),
        site.est_url()
    );
    let asked = run("sh", ["-c", &script]).await;
    match asked.out.as_str() {
        "200" => {}
        "403" => return Err(Status::unauthenticated("EST: 403")),
        "000" | "503" | "429" | "" => return Err(Status::unavailable(format!("EST: {asked:?}"))),
        _ => return Err(Status::invalid_argument(format!("EST: {asked:?}"))),
    }
    let script = format!(
        "cd {} && openssl base64 -d -A -in answer | openssl pkcs7 -inform DER -print_certs",
        directory.display()
    );
    let pem = run("sh", ["-c", &script]).await.ok().out;
    let certificates = certificates_from_pem(pem.as_bytes()).unwrap();
    Ok(CertificateFacts::parse(&certificates[0]).unwrap())
}
