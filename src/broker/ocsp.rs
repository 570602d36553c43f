//! The OCSP responder (RFC 6960): what the store knows now, signed by a key of each CA's responder on the token.
//!
//! Responses without a nonce are signed once and given out until they are due again. Every request asks the store where
//! the certificate stands, unless nothing was committed since it was asked last, and a response that says something else is
//! not given out any more: a revocation counts from its commit on, whichever replica made it and whether the HSM is there
//! or not.

use crate::audit::details::{self, OcspResponderDetails};
use crate::audit::event::{Actor, Event, EventKind};
use crate::broker::authorities::Authority;
use crate::broker::making::BRIEFLY;
use crate::broker::{Broker, BrokerError};
use crate::ca::CertificateFacts;
use crate::ca::ocsp::{
    Asked, CertStatus, OcspRequest, ResponseData, Unanswered, responder_key_hash, response,
};
use crate::clock::Timestamp;
use crate::crash::{self, Point};
use crate::hsm::{Lane, ObjectId, SignatureAlgorithm};
use crate::nfv::{IssuerId, Sha256Hash};
use crate::store::Mutation;
use crate::store::records::{Lease, OcspResponder};
use arc_swap::ArcSwap;
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Semaphore;

/// Signed responses that are kept, at most twice as many: about 1 kB each.
const KEPT: usize = 20_000;
/// The longest CertID whose response is kept: one with SHA-512 and the longest serial number has 200 bytes.
const LONGEST_KEPT: usize = 256;
/// Signatures that wait for the HSM at the same time; further requests are told to try later, so that a flood of them
/// does not stand before the claims.
const SIGNATURES: usize = 32;
/// Whoever has waited this long for the store or the HSM is told to try later: the listener answers nothing any more soon
/// after.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(8);
const RESPONDER_ALGORITHM: SignatureAlgorithm = SignatureAlgorithm::EcdsaP256Sha256;

/// What goes back.
#[derive(Debug, Clone)]
pub struct OcspAnswer {
    /// OCSPResponse, DER.
    pub der: Bytes,
    /// For caches; none if it must not be kept (errors, nonces).
    pub caching: Option<Caching>,
}

/// How long an answer is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caching {
    /// thisUpdate.
    pub this_update: Timestamp,
    /// nextUpdate.
    pub next_update: Timestamp,
    /// Until a new one is due.
    pub max_age: Duration,
}

/// The responders of all CAs, and what they signed.
pub(super) struct Responders {
    /// Read from the store whenever one is missing.
    by_issuer: ArcSwap<HashMap<IssuerId, Arc<Responder>>>,
    signed: Mutex<Signed>,
    signing: Semaphore,
}

impl Default for Responders {
    fn default() -> Self {
        Self { by_issuer: ArcSwap::default(), signed: Mutex::default(), signing: Semaphore::new(SIGNATURES) }
    }
}

/// The delegated responder of one CA.
struct Responder {
    key: ObjectId,
    key_hash: [u8; 20],
    certificate_der: Vec<u8>,
    not_before: Timestamp,
    not_after: Timestamp,
}

/// One signed response.
#[derive(Clone)]
struct Kept {
    status: CertStatus,
    /// [`crate::store::Store::generation`] from before the store was asked for the status.
    generation: Option<u64>,
    der: Bytes,
    this_update: Timestamp,
    next_update: Timestamp,
    due: Timestamp,
}

/// Signed responses by CertID: what was not asked for since the last [`KEPT`] others is forgotten.
#[derive(Default)]
struct Signed {
    young: HashMap<Vec<u8>, Kept>,
    old: HashMap<Vec<u8>, Kept>,
}

impl Signed {
    fn get(&mut self, id_der: &[u8]) -> Option<Kept> {
        if let Some(kept) = self.young.get(id_der) {
            return Some(kept.clone());
        }
        let kept = self.old.remove(id_der)?;
        self.put(id_der, kept.clone());
        Some(kept)
    }

    fn put(&mut self, id_der: &[u8], kept: Kept) {
        if id_der.len() > LONGEST_KEPT {
            return;
        }
        if self.young.len() >= KEPT {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(id_der.to_vec(), kept);
    }
}

impl Broker {
    /// Answers an OCSPRequest (DER); whatever happens, with an OCSPResponse.
    ///
    /// 1. Read the request.
    /// 2. Which CA's responder answers. A CA that is not ours is unknown to the default tenant's.
    /// 3. Where each certificate stands now.
    /// 4. The response that was signed for that before, or a new one.
    pub async fn ocsp(&self, request_der: &[u8]) -> OcspAnswer {
        let answered = match OcspRequest::parse(request_der) {
            // What the database forgot may be withdrawn: nothing that it says of a certificate is signed.
            Ok(_) if self.doubt().is_some() => Err(Unanswered::TryLater),
            Ok(request) => tokio::time::timeout(ANSWER_TIMEOUT, self.answer_ocsp(request))
                .await
                .unwrap_or(Err(Unanswered::TryLater)),
            Err(unanswered) => Err(unanswered),
        };
        answered.unwrap_or_else(|unanswered| {
            count(unanswered.as_str(), "none");
            OcspAnswer { der: unanswered.response().into(), caching: None }
        })
    }

    async fn answer_ocsp(&self, mut request: OcspRequest) -> Result<OcspAnswer, Unanswered> {
        if !self.settings.load().ocsp.nonce {
            request.nonce = None;
        }
        // 2.
        let authorities = self.authorities.load_full();
        let named = |asked: &Asked| asked.issuer.as_ref().and_then(|hashes| authorities.by_hashes(hashes));
        // A root signs nothing but sub-CAs and may be offline: its CRL speaks for them.
        let ours = |asked: &Asked| named(asked).filter(|authority| !authority.is_root());
        let issuers: Vec<Option<Arc<Authority>>> = request.certificates.iter().map(ours).collect();
        let first = issuers.iter().flatten().next().cloned();
        let authority = match first {
            Some(first) if issuers.iter().flatten().all(|issuer| issuer.id == first.id) => first,
            Some(_) => return Err(Unanswered::Unauthorized),
            None => self.issuing(&super::initialise::default_tenant()).await.map_err(unanswered)?,
        };
        // 3.
        let now = self.store.now().await.map_err(|error| unanswered(error.into()))?;
        let generation = self.store.generation();
        if let ([asked], None, true) = (&*request.certificates, &request.nonce, generation.is_some())
            && let Some(kept) = self.signed().get(&asked.id_der)
            && kept.generation == generation
            && now < kept.due
        {
            count(kept.status.as_str(), "kept");
            return Ok(kept.answer(now));
        }
        let mut answers = Vec::with_capacity(request.certificates.len());
        for (asked, issuer) in request.certificates.iter().zip(&issuers) {
            let status = match issuer {
                Some(issuer) => self.ocsp_status(issuer.id, &asked.serial).await?,
                None => CertStatus::Unknown,
            };
            answers.push((asked.id_der.as_slice(), status));
        }
        // 4.
        match (answers.as_slice(), &request.nonce) {
            (&[(id_der, status)], None) => {
                self.kept_or_signed(&authority, id_der, status, generation, now).await
            }
            _ => {
                let signed = self.sign_answers(&authority, &answers, request.nonce.as_deref(), now).await?;
                count(answers.first().map_or("none", |(_, status)| status.as_str()), "signed");
                Ok(OcspAnswer { der: signed.der, caching: None })
            }
        }
    }

    async fn ocsp_status(&self, issuer: IssuerId, serial: &[u8]) -> Result<CertStatus, Unanswered> {
        let known = self.store.certificate_status(issuer, serial).await;
        Ok(match known.map_err(|error| unanswered(error.into()))? {
            None => CertStatus::Unknown,
            Some(status) => match status.revoked {
                Some((at, reason)) => CertStatus::Revoked(at, reason),
                None => CertStatus::Good,
            },
        })
    }

    async fn kept_or_signed(
        &self,
        authority: &Authority,
        id_der: &[u8],
        status: CertStatus,
        generation: Option<u64>,
        now: Timestamp,
    ) -> Result<OcspAnswer, Unanswered> {
        let kept = self.signed().get(id_der).filter(|kept| kept.status == status && now < kept.next_update);
        if let Some(kept) = kept.as_ref().filter(|kept| now < kept.due) {
            count(status.as_str(), "kept");
            self.signed().put(id_der, Kept { generation, ..kept.clone() });
            return Ok(kept.answer(now));
        }
        match self.sign_answers(authority, &[(id_der, status)], None, now).await {
            Ok(signed) => {
                count(status.as_str(), "signed");
                let signed = Kept { generation, ..signed };
                self.signed().put(id_der, signed.clone());
                Ok(signed.answer(now))
            }
            // While the HSM is away, what it signed before is still true.
            Err(problem) => match kept {
                Some(kept) => {
                    count(status.as_str(), "kept");
                    Ok(kept.answer(now))
                }
                None => Err(problem),
            },
        }
    }

    fn signed(&self) -> std::sync::MutexGuard<'_, Signed> {
        // A panic while it was held leaves at worst one response less.
        self.responders.signed.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    async fn sign_answers(
        &self,
        authority: &Authority,
        answers: &[(&[u8], CertStatus)],
        nonce: Option<&[u8]>,
        now: Timestamp,
    ) -> Result<Kept, Unanswered> {
        let _place = self.responders.signing.try_acquire().map_err(|_| Unanswered::TryLater)?;
        let responder = self.responder(authority.id, now).await?;
        let settings = self.settings.load().ocsp;
        let this_update = Timestamp::from_unix_seconds(now.unix_seconds());
        let next_update = this_update.plus(settings.validity).min(responder.not_after);
        let data =
            ResponseData { answers, responder: responder.key_hash, this_update, next_update, nonce }.der();
        let signed =
            self.hsm.sign(Lane::Interactive, &responder.key, RESPONDER_ALGORITHM, vec![data.clone()]).await;
        let signatures = signed.map_err(|error| unanswered(error.into()))?;
        let signature = signatures.first().ok_or(Unanswered::InternalError)?;
        let der = response(&data, RESPONDER_ALGORITHM, signature, &responder.certificate_der);
        let status = answers.first().map_or(CertStatus::Unknown, |(_, status)| *status);
        let due = this_update.plus(settings.refresh).min(next_update);
        Ok(Kept { status, generation: None, der: der.into(), this_update, next_update, due })
    }

    /// The responder of a CA; before its first certificate there is none.
    async fn responder(&self, issuer: IssuerId, now: Timestamp) -> Result<Arc<Responder>, Unanswered> {
        let known = || {
            let responders = self.responders.by_issuer.load();
            responders.get(&issuer).filter(|responder| now < responder.not_after).cloned()
        };
        if let Some(responder) = known() {
            return Ok(responder);
        }
        self.load_responders().await.map_err(unanswered)?;
        known().ok_or(Unanswered::TryLater)
    }

    async fn load_responders(&self) -> Result<(), BrokerError> {
        let mut by_issuer = HashMap::new();
        for record in self.store.ocsp_responders().await? {
            let unfit = |problem: String| {
                BrokerError::Internal(format!("OCSP responder of issuer {}: {problem}", record.issuer))
            };
            let facts = CertificateFacts::parse(&record.certificate_der).map_err(|e| unfit(e.to_string()))?;
            let responder = Responder {
                key: record.key.parse().map_err(|_| unfit(format!("unknown key {:?}", record.key)))?,
                key_hash: responder_key_hash(&facts.public_key_der).map_err(|e| unfit(e.to_string()))?,
                certificate_der: record.certificate_der,
                not_before: facts.not_before,
                not_after: facts.not_after,
            };
            by_issuer.insert(record.issuer, Arc::new(responder));
        }
        self.responders.by_issuer.store(Arc::new(by_issuer));
        Ok(())
    }

    /// Certifies the responder's key of a sub-CA (a root has none), if it has no certificate or half of its validity has passed. The key
    /// stays the same: one token object per CA.
    pub(super) async fn certify_responder(
        &self,
        authority: &Authority,
        lease: &Lease,
    ) -> Result<(), BrokerError> {
        let Some(tenant) = authority.tenant.as_ref().filter(|_| !authority.is_root()) else { return Ok(()) };
        let now = self.store.now().await?;
        let known = || self.responders.by_issuer.load().get(&authority.id).cloned();
        let good = |responder: &Arc<Responder>| {
            let half = responder.not_after.since(responder.not_before) / 2;
            // A CA that ends soon can give its responder no more.
            now < responder.not_before.plus(half) || responder.not_after >= authority.ca.not_after()
        };
        if known().is_none() {
            self.load_responders().await?;
        }
        if known().as_ref().is_some_and(good) {
            return Ok(());
        }
        let key = ObjectId::Ocsp(tenant.clone(), authority.generation);
        let spki = match self.hsm.public_key(&key).await? {
            Some(spki) => spki,
            // Whoever has lost the publisher's lease without knowing may be about to make it, too.
            None => {
                let making = self.making_keys(Some(tenant), BRIEFLY).await?;
                making.hold(making.key_pair(&key, RESPONDER_ALGORITHM)).await?
            }
        };
        let validity = self.settings.load().ocsp.responder_validity;
        let tbs = authority.ca.ocsp_responder(&spki, validity, now, &mut rand::rng());
        let tbs = tbs.map_err(super::authorities::unissued)?;
        let certificate_der = self.sign_certificate(&authority.key, &tbs).await?;
        crash::reached(Point::OcspCertified);
        let event = Event::new(now, EventKind::OcspResponderCertified, Actor::broker())
            .tenant(tenant)
            .details(details::json(&OcspResponderDetails {
                issuer: authority.id,
                key_label: key.to_string(),
                certificate: Sha256Hash::of(&certificate_der),
                serial: hex::encode(tbs.serial),
                not_after: tbs.not_after,
            }));
        let record =
            OcspResponder { issuer: authority.id, key: key.to_string(), certificate_der, created_at: now };
        let mutation = Mutation::new(move |()| vec![event]).lease(lease);
        self.store.record_ocsp_responder(record, mutation).await?;
        crash::reached(Point::OcspCommitted);
        self.load_responders().await
    }
}

impl Kept {
    fn answer(&self, now: Timestamp) -> OcspAnswer {
        let max_age = if now < self.due { self.due.since(now) } else { Duration::from_secs(60) };
        let caching = Caching {
            this_update: self.this_update,
            next_update: self.next_update,
            max_age: max_age.min(self.next_update.since(now)),
        };
        OcspAnswer { der: self.der.clone(), caching: Some(caching) }
    }
}

fn unanswered(error: BrokerError) -> Unanswered {
    match error {
        BrokerError::Unavailable { .. } => Unanswered::TryLater,
        error => {
            tracing::error!(%error, "an OCSP request failed");
            Unanswered::InternalError
        }
    }
}

fn count(status: &'static str, source: &'static str) {
    metrics::counter!("keybroker_ocsp_responses_total", "status" => status, "source" => source).increment(1);
}
