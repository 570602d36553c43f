//! The CA hierarchy while the broker runs: further CAs and roots of a tenant, rollover with overlap, sub-CAs that an external root
//! certifies; and the other side, where an offline root signs.
//!
//! A new generation issues from the moment on that it is recorded. The ones before sign their CRLs and OCSP responses, with
//! their own keys, until they expire; no leaf of theirs lives longer.

use crate::audit::details::{self, CaRequestDetails, CaSignedDetails, IssuerDetails};
use crate::audit::event::{Actor, Event, EventKind};
use crate::audit::signature::AuditSignature;
use crate::authorisation::{Caller, Rpc, Target, authorise};
use crate::broker::authorities::{Authority, ROOT_VALIDITY, unissued};
use crate::broker::ca_fitness::{Candidate, Fitness};
use crate::broker::ca_import::no_root;
use crate::broker::making::{Making, PATIENTLY};
use crate::broker::{Broker, BrokerError, Request};
use crate::ca::request::{CaRequest, TbsRequest};
use crate::ca::{self, CertificateFacts, SigningCa};
use crate::clock::Timestamp;
use crate::crash::{self, Point};
use crate::hsm::Lane;
use crate::nfv::{CaName, IssuerId, Sha256Hash, TenantId, labelled_fields};
use crate::store::records::{CaKeyRequest, IssuerRecord};
use crate::store::{Mutation, RequestKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::sync::Arc;
use std::time::Duration;

/// A sub-CA made by the own root lasts 5 years.
const SUB_CA_VALIDITY: Duration = Duration::from_secs(5 * 365 * 86_400);

/// A CA as operators see it.
#[derive(Debug, Clone)]
pub struct Ca {
    /// Its id: in the URLs of its CRL and certificate.
    pub id: IssuerId,
    /// Whose; none for a root.
    pub tenant: Option<TenantId>,
    /// Which of the tenant's CAs.
    pub name: CaName,
    /// Rises with every CA that the tenant gets.
    pub generation: u32,
    /// Whether new certificates are issued by it: the newest of its name.
    pub issuing: bool,
    /// Its certificate, DER.
    pub certificate_der: Vec<u8>,
    /// Its issuers, up to and including the root; empty for a root.
    pub chain_der: Vec<Vec<u8>>,
    /// End of its validity.
    pub not_after: Timestamp,
}

/// Who certifies a new CA key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Certifier {
    /// The root that certified the generation before; of a further CA the broker's own.
    Before,
    /// This root of the tenant.
    Root(CaName),
    /// It is a root.
    Itself,
}

/// What an external root is to sign.
#[derive(Debug, Clone)]
pub struct CaCertificateRequest {
    /// CertificationRequest, DER.
    pub der: Vec<u8>,
    /// Of the key that it is for.
    pub generation: u32,
}

/// A CA certificate that an external root signed.
#[derive(Debug, Clone)]
pub struct ImportCa {
    /// It, DER.
    pub certificate_der: Vec<u8>,
    /// Certificates between it and its root, DER.
    pub chain_der: Vec<Vec<u8>>,
    /// It is taken into use although some profiles cannot use it, or only for a short time.
    pub force: bool,
}

/// A certificate that a root signed for a CA elsewhere.
#[derive(Debug, Clone)]
pub struct SignedCa {
    /// It, DER.
    pub certificate_der: Vec<u8>,
    /// The root, DER.
    pub root_der: Vec<u8>,
    /// What was asked for.
    pub subject: String,
    /// SHA-256 of the public key that was certified.
    pub public_key: Sha256Hash,
    /// From when.
    pub not_before: Timestamp,
    /// Until when.
    pub not_after: Timestamp,
    /// Serial number, hexadecimal.
    pub serial: String,
}

impl Broker {
    /// All CAs, roots first, by tenant and generation; of one tenant where one is named.
    ///
    /// # Errors
    /// [`BrokerError::Denied`].
    pub async fn cas(&self, caller: &Caller, tenant: Option<TenantId>) -> Result<Vec<Ca>, BrokerError> {
        authorise(caller, Rpc::ListCas, Target { tenant: tenant.as_ref(), ..Target::default() })?;
        self.load_authorities().await?;
        let authorities = self.authorities.load_full();
        let mut all = authorities.all();
        all.retain(|authority| tenant.is_none() || authority.tenant == tenant);
        all.sort_by_key(|authority| (authority.tenant.clone(), authority.generation));
        Ok(all.iter().map(|authority| self.shown(authority)).collect())
    }

    /// A new CA key of a tenant: of a further CA (`new`), or the next generation of one that there is.
    ///
    /// # Errors
    /// [`BrokerError::Denied`], [`BrokerError::NotFound`], [`BrokerError::AlreadyExists`], and
    /// [`BrokerError::Precondition`] for a CA that a root elsewhere certified, or a root that is to be renewed.
    pub async fn issue_ca(
        &self,
        caller: &Caller,
        request: Request,
        tenant: TenantId,
        name: CaName,
        new: bool,
        certifier: Certifier,
    ) -> Result<Ca, BrokerError> {
        let target = Target { tenant: Some(&tenant), ..Target::default() };
        let authorised = authorise(caller, Rpc::IssueCa, target)?;
        self.no_doubt()?;
        let making = self.making_keys(Some(&tenant), PATIENTLY).await?;
        let made = async {
            let key_of_request = request.key(authorised.actor());
            let id = made_by(&key_of_request);
            if let Some(made) = self.store.issuers().await?.into_iter().find(|record| record.id == id) {
                // The store has its outcome; another body under the same id is refused there.
                let event = Event::new(made.created_at, EventKind::IssuerAdded, authorised.actor());
                return self.take_into_use(&making, made, event, Some(key_of_request)).await;
            }
            let current = self.current_ca(&tenant, &name).await?;
            match (&current, new) {
                (Some(_), true) => {
                    return Err(BrokerError::AlreadyExists(format!("CA {name} of tenant {tenant}")));
                }
                (None, false) => return Err(BrokerError::NotFound(format!("CA {name} of tenant {tenant}"))),
                _ => {}
            }
            let root = self.certifier(&tenant, current.as_deref(), &certifier)?;
            let (generation, key) = self.next_key(&tenant).await?;
            let spki = making.ca_key(&key).await?;
            let now = self.store.now().await?;
            let (tbs, signer, chain_der) = match &root {
                Some(root) => {
                    let (name, rng) = (name.as_str(), &mut rand::rng());
                    let tbs = root.ca.sub_ca(&tenant, name, generation, &spki, SUB_CA_VALIDITY, now, rng);
                    (tbs, &root.key, vec![root.certificate_der.clone()])
                }
                None => {
                    let common_name = format!("{name}, tenant {tenant}");
                    let tbs = ca::issue::root(&common_name, &spki, ROOT_VALIDITY, now, &mut rand::rng());
                    (tbs, &key, Vec::new())
                }
            };
            let certificate_der = self.sign_certificate(signer, &tbs.map_err(unissued)?).await?;
            crash::reached(Point::CaCertified);
            let event = Event::new(now, EventKind::IssuerAdded, authorised.actor()).request(request.id);
            let record = IssuerRecord {
                external: None,
                id,
                tenant: Some(tenant),
                name,
                generation,
                key: key.to_string(),
                certificate_der,
                chain_der,
                created_at: now,
            };
            self.take_into_use(&making, record, event, Some(key_of_request)).await
        };
        making.hold(made).await
    }

    /// The own root that certifies a CA; none for a root, which certifies itself.
    fn certifier(
        &self,
        tenant: &TenantId,
        current: Option<&Authority>,
        certifier: &Certifier,
    ) -> Result<Option<Arc<Authority>>, BrokerError> {
        let authorities = self.authorities.load();
        let root = match (certifier, current) {
            (Certifier::Itself, _) => return Ok(None),
            (Certifier::Root(name), _) => authorities
                .root_of(tenant, name)
                .ok_or_else(|| BrokerError::NotFound(format!("root {name} of tenant {tenant}")))?,
            (Certifier::Before, Some(current)) => {
                let elsewhere = || {
                    BrokerError::Precondition(format!(
                        "CA {} of tenant {tenant} was certified by another root: have that one sign the request of \
                         `keybroker ca csr`, and import what it signed",
                        current.name
                    ))
                };
                authorities.root_by(tenant, &current.root_der).ok_or_else(elsewhere)?
            }
            (Certifier::Before, None) => authorities
                .root()
                .ok_or_else(|| BrokerError::Precondition("there is no own root".to_owned()))?,
        };
        Ok(Some(root))
    }

    /// The request that an external root is to sign, for the tenant's next CA key, which is kept for this CA from then on. Asked
    /// again before the import, it is for the same key.
    ///
    /// # Errors
    /// [`BrokerError::Denied`], [`BrokerError::NotFound`] for an unknown tenant.
    pub async fn request_ca(
        &self,
        caller: &Caller,
        request: Request,
        tenant: TenantId,
        name: CaName,
    ) -> Result<CaCertificateRequest, BrokerError> {
        let target = Target { tenant: Some(&tenant), ..Target::default() };
        let authorised = authorise(caller, Rpc::RequestCa, target)?;
        self.no_doubt()?;
        let making = self.making_keys(Some(&tenant), PATIENTLY).await?;
        let made = async {
            self.current_ca(&tenant, &name).await?;
            let (generation, key) = self.requested_key(&tenant, &name).await?;
            let spki = making.ca_key(&key).await?;
            let tbs = TbsRequest::sub_ca(&tenant, name.as_str(), generation, &spki).map_err(unissued)?;
            let signatures =
                self.hsm.sign(Lane::Interactive, &key, tbs.algorithm, vec![tbs.der.clone()]).await?;
            let signature =
                signatures.first().ok_or_else(|| BrokerError::Internal("no signature".to_owned()))?;
            let der = tbs.assemble(signature);
            crash::reached(Point::CaRequestSigned);
            let now = self.store.now().await?;
            let event = Event::new(now, EventKind::CaRequested, authorised.actor())
                .tenant(&tenant)
                .request(request.id)
                .details(details::json(&CaRequestDetails {
                    name: name.clone(),
                    generation,
                    key_label: key.to_string(),
                    request: Sha256Hash::of(&der),
                }));
            let requested = CaKeyRequest { tenant: tenant.clone(), name, generation, created_at: now };
            self.store
                .request_ca(requested, Mutation::new(move |()| vec![event]).lease(&making.lease))
                .await?;
            crash::reached(Point::CaRequestCommitted);
            Ok(CaCertificateRequest { der, generation })
        };
        making.hold(made).await
    }

    /// Takes an externally signed CA certificate into use: it issues from now on.
    ///
    /// 1. It is a CA's, within its validity, for the key that was last requested for this CA.
    /// 2. Its issuers lead to a root that the operator configured (`[ca] roots`), or to the own one, and none has its name.
    /// 3. It conforms to RFC 5280, and is tried: certificates of every profile that names it, which its key signs in the HSM, are
    ///    good along that path, and it lasts as long as they do ([`ca_fitness`](crate::broker::ca_fitness)).
    /// 4. Recorded. Beside the CA, gives what its operator should know.
    ///
    /// # Errors
    /// [`BrokerError::Denied`], [`BrokerError::Invalid`] that says what is wrong with it.
    pub async fn import_ca(
        &self,
        caller: &Caller,
        request: Request,
        tenant: TenantId,
        name: CaName,
        import: ImportCa,
    ) -> Result<(Ca, Vec<String>), BrokerError> {
        let ImportCa { certificate_der, chain_der: given, force } = import;

        let target = Target { tenant: Some(&tenant), ..Target::default() };
        let authorised = authorise(caller, Rpc::ImportCa, target)?;
        self.no_doubt()?;
        let making = self.making_keys(Some(&tenant), PATIENTLY).await?;
        let made = async {
            self.current_ca(&tenant, &name).await?;
            if let Some(known) = self.imported_before(&tenant, &name, &certificate_der)? {
                return Ok((self.shown(&known), Vec::new()));
            }
            // 1.
            let now = self.store.now().await?;
            let facts = parsed("certificate_der", &certificate_der)?;
            let signing = SigningCa::new(&certificate_der, &self.settings.load().http_url)
                .map_err(|error| invalid("certificate_der", error.to_string()))?;
            if now < facts.not_before || now >= facts.not_after {
                let period =
                    format!("is valid from {} to {}, and it is {now}", facts.not_before, facts.not_after);
                return Err(invalid("certificate_der", period));
            }
            let (generation, key) = self.certified_key(&tenant, &name, &facts).await?;
            // 2.
            let chain_der = self.chain_to_a_root(&certificate_der, &given, now)?;
            // 3.
            let (root, between) = chain_der.split_last().ok_or_else(|| no_root("certificate_der"))?;
            let mut chain = vec![certificate_der.clone()];
            chain.extend_from_slice(between);
            let candidate =
                Candidate { tenant: &tenant, name: &name, key: &key, signing: &signing, chain: &chain, root };
            let Fitness { problems, mut warnings } = self.try_ca(&candidate, now).await?;
            if !problems.is_empty() && !force {
                let problem = format!(
                    "is not fit for what it is to issue (force takes it into use nevertheless): {}",
                    problems.join("; ")
                );
                return Err(invalid("certificate_der", problem));
            }
            warnings.splice(0..0, problems);
            crash::reached(Point::CaTried);
            // 4.
            let event = Event::new(now, EventKind::IssuerAdded, authorised.actor()).request(request.id);
            let record = IssuerRecord {
                external: None,
                id: IssuerId::generate(),
                tenant: Some(tenant),
                name,
                generation,
                key: key.to_string(),
                certificate_der,
                chain_der,
                created_at: now,
            };
            let taken =
                self.take_into_use(&making, record, event, Some(request.key(authorised.actor()))).await?;
            Ok((taken, warnings))
        };
        making.hold(made).await
    }

    /// The own root signs a CA's request: the offline side of a ceremony. Its validity ends with the root's at the latest.
    ///
    /// # Errors
    /// [`BrokerError::Invalid`] for a request that is none, or whose sender has not its key;
    /// [`BrokerError::Precondition`] without a root.
    pub async fn sign_ca_request(
        &self,
        request_der: &[u8],
        path_length: u8,
        validity: Duration,
        operator: &str,
    ) -> Result<SignedCa, BrokerError> {
        let asked = CaRequest::parse(request_der).map_err(|error| invalid("csr", error.to_string()))?;
        let root = self.authorities.load().root();
        let root = root
            .ok_or_else(|| BrokerError::Precondition("there is no root; run `keybroker init`".to_owned()))?;
        let now = self.store.now().await?;
        let tbs =
            root.ca.requested_ca(&asked, path_length, validity, now, &mut rand::rng()).map_err(unissued)?;
        let certificate_der = self.sign_certificate(&root.key, &tbs).await?;
        crash::reached(Point::CeremonySigned);
        let serial = hex::encode(tbs.serial);
        let event = Event::new(now, EventKind::CaSigned, Actor(format!("operator:{operator}"))).details(
            details::json(&CaSignedDetails {
                issuer: root.id,
                subject: asked.subject.clone(),
                request: Sha256Hash::of(request_der),
                certificate: Sha256Hash::of(&certificate_der),
                serial: serial.clone(),
                not_after: tbs.not_after,
            }),
        );
        self.store.append_events(vec![event]).await?;
        crash::reached(Point::CeremonyCommitted);
        Ok(SignedCa {
            public_key: Sha256Hash::of(&asked.public_key_der),
            subject: asked.subject,
            certificate_der,
            root_der: root.certificate_der.clone(),
            not_before: tbs.not_before,
            not_after: tbs.not_after,
            serial,
        })
    }

    /// The transcript of a ceremony, signed by the audit key over its very bytes.
    ///
    /// # Errors
    /// The HSM's.
    pub async fn sign_transcript(&self, transcript: Vec<u8>) -> Result<AuditSignature, BrokerError> {
        self.sign_for_audit(transcript).await
    }

    /// The newest generation of a CA, if there is one. A tenant that is not there is refused, and the name of a root.
    async fn current_ca(
        &self,
        tenant: &TenantId,
        name: &CaName,
    ) -> Result<Option<Arc<Authority>>, BrokerError> {
        if !self.store.tenants().await?.iter().any(|known| known.id == *tenant) {
            return Err(BrokerError::NotFound(format!("tenant {tenant}")));
        }
        self.load_authorities().await?;
        if self.authorities.load().root_of(tenant, name).is_some() {
            return Err(BrokerError::Precondition(format!(
                "{name} is a root of tenant {tenant}: it has no next generation; add another root, and roll CAs over under it"
            )));
        }
        Ok(self.authorities.load().issuing(tenant, name))
    }

    /// Records a CA and lets it issue.
    pub(super) async fn take_into_use(
        &self,
        making: &Making<'_>,
        record: IssuerRecord,
        event: Event,
        request: Option<RequestKey>,
    ) -> Result<Ca, BrokerError> {
        let mut event = event.details(details::json(&told(&record)?));
        event.tenant = record.tenant.clone();
        let id = record.id;
        let mutation = Mutation { request, ..Mutation::new(move |()| vec![event]) }.lease(&making.lease);
        self.store.add_issuer(record, mutation).await?;
        crash::reached(Point::CaCommitted);
        self.load_authorities().await?;
        let taken = self.authorities.load().get(id);
        let taken = taken.ok_or_else(|| BrokerError::Internal("the new CA is gone".to_owned()))?;
        Ok(self.shown(&taken))
    }

    fn shown(&self, authority: &Authority) -> Ca {
        let newest = self.authorities.load().newest(authority.tenant.as_ref(), &authority.name);
        let mut chain_der: Vec<Vec<u8>> = authority.chain_der.iter().skip(1).cloned().collect();
        if authority.root_der != authority.certificate_der {
            chain_der.push(authority.root_der.clone());
        }
        Ca {
            id: authority.id,
            tenant: authority.tenant.clone(),
            name: authority.name.clone(),
            generation: authority.generation,
            issuing: newest.is_some_and(|newest| newest.id == authority.id),
            certificate_der: authority.certificate_der.clone(),
            chain_der,
            not_after: authority.ca.not_after(),
        }
    }
}

/// A CA as the log tells of it, in full: whoever has the log has its certificate.
pub(super) fn told(record: &IssuerRecord) -> Result<IssuerDetails, BrokerError> {
    let facts = CertificateFacts::parse(&record.certificate_der)
        .map_err(|error| BrokerError::Internal(error.to_string()))?;
    let chain = std::iter::once(&record.certificate_der).chain(&record.chain_der);
    Ok(IssuerDetails {
        issuer: record.id,
        name: record.name.clone(),
        generation: record.generation,
        key_label: match &record.external {
            Some(external) => format!("issuer.{external}"),
            None => record.key.clone(),
        },
        certificate: facts.fingerprint,
        serial: hex::encode(&facts.serial),
        not_after: facts.not_after,
        external: record.external.clone(),
        chain: chain.map(|der| STANDARD.encode(der)).collect(),
    })
}

/// The id of the CA that a request makes: repeated, it finds what it made, and no second key is made for it.
fn made_by(request: &RequestKey) -> IssuerId {
    let fields = [request.caller.0.as_bytes(), request.id.0.as_bytes()];
    let hash = Sha256Hash::of(&labelled_fields("keybroker-issuer-v1", &fields));
    let mut bytes = [0; 16];
    bytes.iter_mut().zip(hash.0).for_each(|(byte, of_hash)| *byte = of_hash);
    IssuerId(uuid::Builder::from_custom_bytes(bytes).into_uuid())
}

fn parsed(field: &str, der: &[u8]) -> Result<CertificateFacts, BrokerError> {
    CertificateFacts::parse(der).map_err(|error| invalid(field, error.to_string()))
}

pub(super) fn invalid(field: &str, problem: impl Into<String>) -> BrokerError {
    BrokerError::Invalid { field: field.to_owned(), problem: problem.into() }
}
