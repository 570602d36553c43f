//! TLS client certificates for enrolment servers outside, renewed by `simplereenroll` (RFC 7030 4.2.2) before they end. The
//! key stays: it is in the HSM, and the operator made it once (`keybroker issuer request`).

use super::assembly;
use super::failure::Failure;
use super::files::{self, Readers};
use crate::broker::Broker;
use crate::ca::csr::names_of;
use crate::ca::issuers::{Answer, Issuer, OfKey, client_request_again, of_key};
use crate::ca::path::Purpose;
use crate::ca::{self, CertificateFacts, certificates_from_pem, pem};
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::config::{self, Config};
use crate::crash::{self, Point};
use crate::hsm::{Lane, ObjectId, SignatureAlgorithm};
use crate::nfv::IssuerName;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// How often certificates are looked at at least, and a failure is tried again.
const PERIOD: Duration = Duration::from_secs(3_600);
/// How often the metrics tell when they end.
const TOLD_AGAIN: Duration = Duration::from_secs(10);
/// How often at most.
const SHORTEST_PERIOD: Duration = Duration::from_secs(1);
const ALGORITHM: SignatureAlgorithm = SignatureAlgorithm::EcdsaP256Sha256;

/// A request that the server has not answered yet, and when it is to be sent again.
struct Pending {
    request_der: Vec<u8>,
    /// The certificate that it is to follow.
    follows: Vec<u8>,
    due: Timestamp,
}

/// Looks at the certificates at once, when one is due, every hour, and whenever the configuration was read again, until it
/// is stopped.
pub(super) async fn keep_renewed(
    broker: Arc<Broker>,
    mut config: watch::Receiver<Config>,
    stop: CancellationToken,
) {
    let mut pending = BTreeMap::new();
    loop {
        let current = config.borrow_and_update().clone();
        let mut next = PERIOD;
        for (name, issuer) in &current.issuers {
            match look(&broker, name, issuer, &mut pending).await {
                Ok(Look { again, renewed }) => {
                    next = next.min(again);
                    if renewed {
                        broker.set_issuers(assembly::issuers(&broker, &current));
                    }
                }
                Err(failure) => tracing::warn!(issuer = %name, problem = failure.text,
                    "the TLS client certificate cannot be read: no other one is asked for"),
            }
        }
        let next = Instant::now() + next.max(SHORTEST_PERIOD);
        while Instant::now() < next {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = config.changed() => if changed.is_err() { return } else { break },
                () = sleep_until(next.min(Instant::now() + TOLD_AGAIN)) => {}
            }
            // A gauge that is not set for a while is not told any more.
            let present = current.issuers.iter().filter(|(_, issuer)| issuer.client_certificate.exists());
            present.for_each(|(name, _)| end_of(name).increment(0.0));
        }
    }
}

/// The gauge of the end of a certificate's validity.
fn end_of(issuer: &IssuerName) -> metrics::Gauge {
    metrics::gauge!("keybroker_issuer_client_not_after_seconds", "issuer" => issuer.to_string())
}

/// What came of looking at a certificate.
struct Look {
    /// When it is to be looked at again.
    again: Duration,
    renewed: bool,
}

/// Renews the certificate in use if a third of its validity or less is left. One that is missing is the operator's to put
/// there.
async fn look(
    broker: &Arc<Broker>,
    name: &IssuerName,
    issuer: &config::Issuer,
    pending: &mut BTreeMap<IssuerName, Pending>,
) -> Result<Look, Failure> {
    let Ok(text) = std::fs::read(&issuer.client_certificate) else {
        return Ok(Look { again: PERIOD, renewed: false });
    };
    let chain = certificates_from_pem(&text).map_err(Failure::failed)?;
    let Some(leaf) = chain.first() else { return Ok(Look { again: PERIOD, renewed: false }) };
    let facts = CertificateFacts::parse(leaf).map_err(Failure::failed)?;
    let now = SystemClock.now();
    end_of(name).set(facts.not_after.unix_seconds() as f64);
    let left = facts.not_after.since(now);
    let reserve = facts.not_after.since(facts.not_before) / 3;
    if left > reserve {
        return Ok(Look { again: left - reserve, renewed: false });
    }
    if let Some(waiting) = pending.get(name).filter(|waiting| waiting.due > now && waiting.follows == *leaf) {
        return Ok(Look { again: waiting.due.since(now), renewed: false });
    }
    match renew(broker, name, issuer, leaf, &facts, pending).await {
        Ok(Some(after)) => Ok(Look { again: after, renewed: false }),
        Ok(None) => Ok(Look { again: SHORTEST_PERIOD, renewed: true }),
        Err(failure) => {
            tracing::warn!(issuer = %name, problem = failure.text,
                "the TLS client certificate could not be renewed; it is tried again");
            // Several times before it ends, however short its life.
            Ok(Look { again: if left.is_zero() { PERIOD } else { left / 10 }, renewed: false })
        }
    }
}

/// Has the certificate followed by another one; gives the time after which the server is to be asked again, if it has not
/// answered yet.
///
/// 1. A request with its names, signed by its key in the HSM; the same one again while the server has not answered. A
///    certificate that has ended proves nothing any more.
/// 2. The answer: of the same key and names, later, with a valid path to the configured root.
/// 3. The event; then the file, from which the client is made again.
async fn renew(
    broker: &Arc<Broker>,
    name: &IssuerName,
    issuer: &config::Issuer,
    leaf: &[u8],
    facts: &CertificateFacts,
    pending: &mut BTreeMap<IssuerName, Pending>,
) -> Result<Option<Duration>, Failure> {
    // 1.
    let now = SystemClock.now();
    if facts.not_after <= now {
        let remedy = format!("it has ended: `keybroker issuer request {name}`, and have the CA sign it");
        return Err(Failure::failed(remedy));
    }
    let names = names_of(leaf).map_err(Failure::failed)?;
    let waiting = pending.remove(name).filter(|waiting| waiting.follows == leaf);
    let key = ObjectId::EstClient(name.clone());
    let request_der = match waiting {
        Some(waiting) => waiting.request_der,
        None => {
            let info = client_request_again(&names, &facts.public_key_der);
            let signatures = broker.hsm().sign(Lane::Bulk, &key, ALGORITHM, vec![info.clone()]).await?;
            let signature = signatures.first().ok_or_else(|| Failure::failed("no signature"))?;
            ca::assemble(&info, ALGORITHM, signature)
        }
    };
    let client = assembly::est_client(broker, name, issuer).map_err(Failure::failed)?;
    let cas = client.cas(now).await.map_err(Failure::failed)?;
    let certificates_der = match client.re_enrol(&request_der).await.map_err(Failure::failed)? {
        Answer::Issued(certificates_der) => certificates_der,
        Answer::Pending(after) => {
            pending
                .insert(name.clone(), Pending { request_der, follows: leaf.to_vec(), due: now.plus(after) });
            return Ok(Some(after));
        }
    };
    // 2.
    let OfKey { certificate_der, facts: renewed, others } = of_key(&certificates_der, &facts.public_key_der)
        .map_err(|problem| Failure::failed(format!("of what the server sent: {problem}")))?;
    // The subject as text: a CA may encode it as another string type.
    let said = |of: &CertificateFacts| (of.subject.clone(), of.dns_names.clone(), of.uris.clone());
    if said(&renewed) != said(facts) {
        return Err(Failure::failed("the server sent a certificate of other names"));
    }
    if renewed.not_after <= facts.not_after {
        return Err(Failure::failed(format!("the server's new certificate ends at {}", renewed.not_after)));
    }
    let soon = now.plus(Duration::from_secs(60));
    let above =
        cas.with(&others, soon).chain_of(&certificate_der, &[Purpose::TlsClient], soon).map_err(|error| {
            Failure::failed(format!("the new certificate does not lead to the root: {error}"))
        })?;
    // 3.
    crash::reached(Point::IssuerClientCertified);
    broker.record_issuer_client(name, &key, &renewed).await?;
    crash::reached(Point::IssuerClientRecorded);
    let (_root, intermediates) = above.certificates_der.split_last().unwrap_or((&certificate_der, &[]));
    let chain = std::iter::once(&certificate_der).chain(intermediates);
    let text: String = chain.map(|der| pem("CERTIFICATE", der)).collect();
    files::replace(&issuer.client_certificate, text.as_bytes(), Readers::Everyone)?;
    tracing::info!(issuer = %name, not_after = %renewed.not_after, "TLS client certificate renewed");
    Ok(None)
}
