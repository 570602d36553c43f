//! Whether a CA's certificate is fit for what its profiles issue, and when it ends.

use crate::broker::{Broker, BrokerError};
use crate::ca::path::{self, Certificate, PathError, Purpose, Rules};
use crate::ca::profile::{ExtendedKeyUsage, INSTALLED, ProfileIssuer};
use crate::ca::{self, CertificateFacts, IssueError, NameValues, Profile, SigningCa};
use crate::clock::{HumaneDuration, Timestamp};
use crate::credential::Issue;
use crate::hsm::{Lane, ObjectId};
use crate::nfv::{CaName, CredentialId, IssuerId, TenantId, VnfciId};
use crate::store::Store;
use crate::store::records::{Page, PoolFilter};
use std::sync::Arc;
use std::time::Duration;

/// From then on a CA's end is reported: time for a ceremony.
pub const ENDING_SOON: Duration = Duration::from_secs(30 * 86_400);
/// What a CA must be good for where no pool says it: a profile's default validity.
const LEAST_USE: Duration = Duration::from_secs(7 * 86_400);

/// When a CA ends.
#[derive(Debug, Clone)]
pub struct CaEnd {
    /// Its id.
    pub id: IssuerId,
    /// Whose; none for a root.
    pub tenant: Option<TenantId>,
    /// Which of the tenant's CAs.
    pub name: CaName,
    /// Its generation.
    pub generation: u32,
    /// End of its certificate, or of the first one above it.
    pub ends_at: Timestamp,
}

impl std::fmt::Display for CaEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.tenant {
            Some(tenant) => write!(f, "CA {} {} of tenant {tenant}", self.name, self.generation)?,
            None => write!(f, "root {}", self.generation)?,
        }
        write!(f, " ends at {}", self.ends_at)
    }
}

/// The CAs that issue, the newest of each name, with their ends: read from a store that nobody may be serving.
///
/// # Errors
/// The store's, or a certificate in it that cannot be read.
pub async fn ends(store: &dyn Store) -> Result<Vec<CaEnd>, BrokerError> {
    let mut newest: Vec<CaEnd> = Vec::new();
    for record in store.issuers().await?.into_iter().filter(|record| record.external.is_none()) {
        let ends_at = end_of_chain(&record.certificate_der, &record.chain_der)?;
        let (id, tenant, name, generation) = (record.id, record.tenant, record.name, record.generation);
        let end = CaEnd { id, tenant, name, generation, ends_at };
        match newest.iter_mut().find(|known| (&known.tenant, &known.name) == (&end.tenant, &end.name)) {
            Some(known) if known.generation < end.generation => *known = end,
            Some(_) => {}
            None => newest.push(end),
        }
    }
    Ok(newest)
}

/// The first end of a CA's certificate and those above it.
pub(super) fn end_of_chain(certificate_der: &[u8], above: &[Vec<u8>]) -> Result<Timestamp, BrokerError> {
    let end = |der: &[u8]| {
        let facts = CertificateFacts::parse(der).map_err(|error| BrokerError::Internal(error.to_string()))?;
        Ok::<_, BrokerError>(facts.not_after)
    };
    let own = end(certificate_der)?;
    above.iter().try_fold(own, |first, der| Ok(first.min(end(der)?)))
}

/// What trials of a CA found.
#[derive(Debug, Default)]
pub(super) struct Fitness {
    /// Profiles that need it cannot use it.
    pub(super) problems: Vec<String>,
    /// What an operator should know.
    pub(super) warnings: Vec<String>,
}

/// A CA that is tried before it is taken into use.
pub(super) struct Candidate<'a> {
    pub(super) tenant: &'a TenantId,
    pub(super) name: &'a CaName,
    pub(super) key: &'a ObjectId,
    pub(super) signing: &'a SigningCa,
    /// Its certificate and those between it and the root, DER.
    pub(super) chain: &'a [Vec<u8>],
    pub(super) root: &'a [u8],
}

/// A certificate that is made to see whether relying parties would accept it.
struct Trial {
    profile: Arc<Profile>,
    /// For a pool of the tenant, or for one that might be.
    values: NameValues,
    in_use: bool,
}

impl Broker {
    /// Tries a CA: its key signs a certificate of every profile that names it, with the names of the tenant's pools and typical
    /// ones; of the installed profiles if none names it. Each must be good along its path for each of its uses.
    ///
    /// # Errors
    /// [`BrokerError::Invalid`] for a certificate that no relying party would accept; the HSM's.
    pub(super) async fn try_ca(
        &self,
        candidate: &Candidate<'_>,
        now: Timestamp,
    ) -> Result<Fitness, BrokerError> {
        let unfit = |error: PathError| BrokerError::Invalid {
            field: "certificate_der".to_owned(),
            problem: format!("cannot issue: {error}"),
        };
        for der in candidate.chain {
            path::check_conformance(&Certificate::from_der(der).map_err(unfit)?).map_err(unfit)?;
        }
        let (trials, named) = self.trials(candidate).await?;
        let remaining = candidate.signing.not_after().since(now);
        let mut fitness = Fitness::default();
        let in_use = trials.iter().any(|trial| trial.in_use);
        if !in_use && remaining < LEAST_USE {
            fitness.problems.push(format!(
                "it ends at {}, sooner than the {} that certificates last by default",
                candidate.signing.not_after(),
                HumaneDuration(LEAST_USE)
            ));
        }
        let spki = self.bootstrap_key_der().await?;
        let mut signed = Vec::new();
        for trial in &trials {
            let profile = &trial.profile;
            let mut found = |problem: String| {
                fitness.note(trial.in_use, format!("profile {}: {problem}", profile.name()))
            };
            if remaining < profile.validity() {
                found(format!(
                    "its certificates last {}, and the CA ends at {}",
                    HumaneDuration(profile.validity()),
                    candidate.signing.not_after()
                ));
            }
            // Pools and registrations with impossible names are refused by themselves.
            let Ok(names) = profile.names(&trial.values) else { continue };
            match candidate.signing.leaf(profile, &names, &spki, now, &mut rand::rng()) {
                Ok(tbs) => signed.push((trial, tbs)),
                Err(IssueError::IssuerEnding(_)) => {}
                Err(error) => found(error.to_string()),
            }
        }
        let messages = signed.iter().map(|(_, tbs)| tbs.der.clone()).collect();
        let algorithm = candidate.signing.algorithm();
        let signatures = self.hsm.sign(Lane::Interactive, candidate.key, algorithm, messages).await?;
        let mut accepted = 0;
        let mut refused = Vec::new();
        for ((trial, tbs), signature) in signed.iter().zip(&signatures) {
            let leaf = ca::assemble(&tbs.der, tbs.algorithm, signature);
            let chain: Vec<&[u8]> =
                [&*leaf].into_iter().chain(candidate.chain.iter().map(Vec::as_slice)).collect();
            for usage in trial.profile.eku() {
                let purpose = match usage {
                    ExtendedKeyUsage::ClientAuth => Purpose::TlsClient,
                    ExtendedKeyUsage::ServerAuth => Purpose::TlsServerOfAnyName,
                };
                match path::validate_chain(&chain, candidate.root, &Rules::new(purpose, now)) {
                    Ok(_) => accepted += 1,
                    // What a constrained CA does not issue, its operator may not want of it.
                    Err(error @ (PathError::NameConstraints(_) | PathError::WrongUsage(_))) => {
                        let problem = format!(
                            "profile {}: a certificate under it is refused: {error}",
                            trial.profile.name()
                        );
                        refused.push((trial.in_use || named, problem));
                    }
                    Err(error) => return Err(unfit(error)),
                }
            }
        }
        for (is_problem, text) in refused {
            fitness.note(is_problem || accepted == 0, text);
        }
        Ok(fitness)
    }

    /// What is to be tried, and whether the profiles name the CA.
    async fn trials(&self, candidate: &Candidate<'_>) -> Result<(Vec<Trial>, bool), BrokerError> {
        let every = Page { after: None, limit: u32::MAX };
        let of_tenant = PoolFilter { tenant: Some(candidate.tenant.clone()), ..PoolFilter::default() };
        let pools = self.store.pools(&of_tenant, &every).await?;
        let mut profiles = self.profiles.load().all();
        profiles
            .retain(|profile| *profile.issuer() == ProfileIssuer::SubCa && profile.ca() == candidate.name);
        let named = !profiles.is_empty();
        if !named {
            let parsed = INSTALLED.into_iter().map(|(name, text)| {
                let name = name.parse().map_err(|_| BrokerError::Internal(format!("profile {name}")))?;
                Profile::parse(name, text)
                    .map(Arc::new)
                    .map_err(|error| BrokerError::Internal(error.to_string()))
            });
            profiles = parsed.collect::<Result<_, _>>()?;
        }
        let name = |text: &str| BrokerError::Internal(format!("{text} is no name"));
        let mut trials = Vec::new();
        for profile in profiles {
            let vnfci = match profile.issue() {
                Issue::Ahead => None,
                Issue::AtClaim => VnfciId::try_from("vnfci-1".to_owned()).ok(),
            };
            let mut using = pools.iter().filter(|pool| named && pool.profile == *profile.name()).peekable();
            let typical = NameValues {
                tenant: candidate.tenant.clone(),
                vnf_instance: "vnf-1".parse().map_err(|_| name("vnf-1"))?,
                vdu: "vdu-1".parse().map_err(|_| name("vdu-1"))?,
                credential: CredentialId::generate(),
                vnfci,
            };
            if using.peek().is_none() {
                trials.push(Trial { profile, values: typical, in_use: false });
                continue;
            }
            trials.extend(using.map(|pool| Trial {
                profile: Arc::clone(&profile),
                values: NameValues {
                    vnf_instance: pool.vnf_instance.clone(),
                    vdu: pool.vdu.clone(),
                    ..typical.clone()
                },
                in_use: true,
            }));
        }
        Ok((trials, named))
    }

    /// The CAs that issue and end soon, for the readiness report; tells the metrics how long each has left.
    pub(super) fn measure_cas(&self, now: Timestamp) -> Vec<String> {
        let authorities = self.authorities.load_full();
        let mut ending = Vec::new();
        for authority in authorities.all() {
            let newest = authorities.newest(authority.tenant.as_ref(), &authority.name);
            let issuing = newest.is_some_and(|newest| newest.id == authority.id);
            if !issuing && authority.ends_at <= now {
                continue;
            }
            let left =
                authority.ends_at.since(now).as_secs_f64() - now.since(authority.ends_at).as_secs_f64();
            let labels = [
                ("issuer", authority.id.to_string()),
                ("tenant", authority.tenant.as_ref().map(TenantId::to_string).unwrap_or_default()),
                ("name", authority.name.to_string()),
                ("issuing", issuing.to_string()),
            ];
            metrics::gauge!("keybroker_ca_end_seconds", &labels).set(left);
            if issuing && authority.ends_at <= now.plus(ENDING_SOON) {
                ending.push(
                    CaEnd {
                        id: authority.id,
                        tenant: authority.tenant.clone(),
                        name: authority.name.clone(),
                        generation: authority.generation,
                        ends_at: authority.ends_at,
                    }
                    .to_string(),
                );
            }
        }
        ending.sort();
        ending
    }
}

impl Fitness {
    fn note(&mut self, is_problem: bool, text: String) {
        let notes = if is_problem { &mut self.problems } else { &mut self.warnings };
        if !notes.contains(&text) {
            notes.push(text);
        }
    }
}
