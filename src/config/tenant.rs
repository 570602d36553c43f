//! `[tenant.NAME]`, and the tokens that tenants have of their own.

use super::{Config, ConfigError, Count};
use crate::clock::HumaneDuration;
use crate::hsm::HsmConfig;
use crate::nfv::TenantId;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// `[tenant.NAME]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tenant {
    /// From an epoch's first erasure to the destruction of its key.
    #[serde(default = "default_destruction_horizon")]
    pub destruction_horizon: HumaneDuration,
    /// From a claim to its confirmation.
    #[serde(default = "default_confirm_deadline")]
    pub confirm_deadline: HumaneDuration,
    /// How long renewed certificates stay valid beside those that replace them.
    #[serde(default = "default_renewal_overlap")]
    pub renewal_overlap: HumaneDuration,
    /// Whether an initial credential is spent once EST has filled every slot of its VNFCI.
    #[serde(default = "default_spend_on_enrolment")]
    pub spend_on_enrolment: bool,
    /// Whether EST `serverkeygen` is served: keys in the clear within TLS, which were in the broker's memory.
    #[serde(default)]
    pub est_server_key_generation: bool,
    /// Claims that are worked on at the same time.
    #[serde(default = "default_claims_at_once")]
    pub claims_at_once: Count,
    /// VNFCIs that are registered and not ended.
    #[serde(default = "default_max_vnfcis")]
    pub max_vnfcis: Count,
    /// Pools.
    #[serde(default = "default_max_pools")]
    pub max_pools: Count,
    /// Keys that all its pools together are to keep ready.
    #[serde(default = "default_max_pooled_keys")]
    pub max_pooled_keys: Count,
    /// Label of the tenant's own token; without it the tenant's keys are on the broker's.
    #[serde(default)]
    pub token: Option<String>,
    /// File with that token's user PIN, as [`super::Hsm::pin_file`].
    #[serde(default)]
    pub pin_file: Option<PathBuf>,
    /// That token's PKCS#11 module, if it is another than the broker's.
    #[serde(default)]
    pub module: Option<PathBuf>,
}

impl Config {
    /// The same for each tenant that has a token of its own: as many workers, with the same environment.
    pub fn hsm_of_tenants(&self, worker_program: &Path) -> BTreeMap<TenantId, HsmConfig> {
        let own = |(id, tenant): (&TenantId, &Tenant)| {
            let token = tenant.token.clone()?;
            let config = HsmConfig {
                owner: Some(id.clone()),
                module: tenant.module.clone().unwrap_or_else(|| self.hsm.module.clone()),
                token,
                pin_file: tenant.pin_file.clone()?,
                ..self.hsm(worker_program)
            };
            Some((id.clone(), config))
        };
        self.tenants.iter().filter_map(own).collect()
    }

    /// A token of its own has a PIN of its own and belongs to one tenant.
    pub(super) fn check_tokens(&self, file: &Path, text: &str) -> Result<(), ConfigError> {
        let mut taken = vec![(&self.hsm.module, &self.hsm.token)];
        for (id, tenant) in &self.tenants {
            let fail = |problem: String, remedy: &str| {
                let section = format!("[tenant.{id}]");
                Err(ConfigError {
                    file: file.to_owned(),
                    line: text
                        .lines()
                        .position(|line| line.trim_start().starts_with(&section))
                        .map(|at| at + 1),
                    problem: format!("{section} {problem}"),
                    remedy: remedy.to_owned(),
                })
            };
            match (&tenant.token, &tenant.pin_file, &tenant.module) {
                (None, None, None) => {}
                (None, ..) => {
                    let remedy = "name the tenant's own token, or leave pin_file and module out";
                    return fail("has a pin_file or module but no token".to_owned(), remedy);
                }
                (Some(_), None, _) => {
                    let remedy = "write the token's user PIN into a file of mode 0600 and name it";
                    return fail("has a token but no pin_file".to_owned(), remedy);
                }
                (Some(token), Some(_), module) => {
                    let place = (module.as_ref().unwrap_or(&self.hsm.module), token);
                    if taken.contains(&place) {
                        let remedy =
                            "a tenant's own token is nobody else's: give it another, or leave token out";
                        return fail(format!("names token {token:?}, which is in use already"), remedy);
                    }
                    taken.push(place);
                }
            }
        }
        Ok(())
    }
}

impl Default for Tenant {
    fn default() -> Self {
        Self {
            destruction_horizon: default_destruction_horizon(),
            confirm_deadline: default_confirm_deadline(),
            renewal_overlap: default_renewal_overlap(),
            spend_on_enrolment: default_spend_on_enrolment(),
            est_server_key_generation: false,
            claims_at_once: default_claims_at_once(),
            max_vnfcis: default_max_vnfcis(),
            max_pools: default_max_pools(),
            max_pooled_keys: default_max_pooled_keys(),
            token: None,
            pin_file: None,
            module: None,
        }
    }
}

/// 15 minutes from the first erasure in an epoch.
fn default_destruction_horizon() -> HumaneDuration {
    HumaneDuration(Duration::from_secs(15 * 60))
}

/// 15 minutes.
fn default_confirm_deadline() -> HumaneDuration {
    HumaneDuration(Duration::from_secs(15 * 60))
}

/// 1 hour.
fn default_renewal_overlap() -> HumaneDuration {
    HumaneDuration(Duration::from_secs(3_600))
}

/// Single use, as for a claim.
fn default_spend_on_enrolment() -> bool {
    true
}

/// As many as a module with a few sessions answers within a moment.
fn default_claims_at_once() -> Count {
    Count(64)
}

/// 1,000,000: more than a tenant runs.
fn default_max_vnfcis() -> Count {
    Count(1_000_000)
}

/// 1,000: one for each VDU and profile of some hundred VNF instances.
fn default_max_pools() -> Count {
    Count(1_000)
}

/// 2,000,000: the largest pool, twice.
fn default_max_pooled_keys() -> Count {
    Count(2_000_000)
}
