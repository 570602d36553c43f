//! Certificate profiles: reviewed files that say what a pool's certificates look like.

use super::names::{NameError, NameValues, SanTemplate, SubjectTemplate, Variable};
use crate::clock::HumaneDuration;
use crate::credential::{Issue, KeyType, named};
use crate::nfv::{CaName, InvalidName, IssuerName, ProfileName};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use std::time::Duration;

/// A profile that `init` installs, and a sample with every field.
pub const VNFCI_TRANSPORT: &str = include_str!("../../profiles/vnfci-transport.toml");

/// The profiles that `init` installs: name and text.
pub const INSTALLED: [(&str, &str); 10] = [
    ("vnfci-transport", VNFCI_TRANSPORT),
    ("vnfci-named", include_str!("../../profiles/vnfci-named.toml")),
    ("vnfci-client", include_str!("../../profiles/vnfci-client.toml")),
    ("vnfci-server", include_str!("../../profiles/vnfci-server.toml")),
    ("short-lived", include_str!("../../profiles/short-lived.toml")),
    ("vnf-om", include_str!("../../profiles/vnf-om.toml")),
    ("application-om", include_str!("../../profiles/application-om.toml")),
    ("vm", include_str!("../../profiles/vm.toml")),
    ("mano", include_str!("../../profiles/mano.toml")),
    ("3gpp-nf", include_str!("../../profiles/3gpp-nf.toml")),
];

/// Who signs the certificates: `sub-ca`, or the name of a configured issuer.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum ProfileIssuer {
    /// The tenant's own sub-CA in the HSM.
    SubCa,
    /// An issuer outside of the broker, `[issuer.NAME]` of the configuration.
    External(IssuerName),
}

impl TryFrom<String> for ProfileIssuer {
    type Error = InvalidName;
    fn try_from(text: String) -> Result<Self, InvalidName> {
        match text.as_str() {
            "sub-ca" => Ok(Self::SubCa),
            name => Ok(Self::External(name.parse()?)),
        }
    }
}

named!(
    /// What a claim does when its pool is empty.
    OnEmpty, "action on an empty pool" {
        /// Makes the credential during the claim.
        Generate = "GENERATE",
        /// Answers "try again later" with an estimate.
        Retry = "RETRY",
    }
);

named!(
    /// How relying parties learn that a certificate was withdrawn.
    RevocationStatus, "revocation" {
        /// From the CRL that the certificate names (RFC 5280 4.2.1.13).
        Crl = "crl",
        /// Not at all: the certificate says so (noRevAvail, RFC 9608) and ends soon.
        None = "none",
    }
);

named!(
    /// What becomes of names that a certification request asks for and the profile does not give.
    RequestedNames, "treatment of requested names" {
        /// They are left out: the certificate has the profile's names.
        Drop = "DROP",
        /// The request is refused.
        Refuse = "REFUSE",
    }
);

named!(
    /// What the certificate may be used for (RFC 5280 4.2.1.12).
    ExtendedKeyUsage, "extended key usage" {
        /// TLS client.
        ClientAuth = "clientAuth",
        /// TLS server.
        ServerAuth = "serverAuth",
    }
);

/// Why a profile was not accepted: where, what is wrong, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("profile {profile}: {problem}")]
pub struct ProfileError {
    /// Its name.
    pub profile: ProfileName,
    /// With line and column where the file's text is at fault.
    pub problem: String,
}

/// What a certificate looks like and how its pool behaves. Made by [`Profile::parse`] only, so it is consistent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    name: ProfileName,
    issuer: ProfileIssuer,
    ca: CaName,
    subject: SubjectTemplate,
    san: Vec<SanTemplate>,
    san_critical: bool,
    eku: Vec<ExtendedKeyUsage>,
    revocation: RevocationStatus,
    key_type: KeyType,
    validity: Duration,
    issue: Issue,
    on_empty: OnEmpty,
    min_remaining_at_claim: Duration,
    validity_jitter: Duration,
    requested_names: RequestedNames,
    cryptoperiod: Duration,
}

/// The file's fields. Unknown ones are refused: a misspelt field must not fall back to a default silently.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProfileFile {
    #[serde(default = "default_issuer")]
    issuer: ProfileIssuer,
    #[serde(default = "CaName::main")]
    ca: CaName,
    #[serde(deserialize_with = "subject_template")]
    subject: SubjectTemplate,
    #[serde(default, deserialize_with = "san_templates")]
    san: Vec<SanTemplate>,
    #[serde(default)]
    san_critical: bool,
    #[serde(default = "default_eku")]
    eku: Vec<ExtendedKeyUsage>,
    #[serde(default = "default_revocation")]
    revocation: RevocationStatus,
    #[serde(default = "default_key_type")]
    key_type: KeyType,
    #[serde(default = "default_validity")]
    validity: HumaneDuration,
    #[serde(default = "default_issue")]
    issue: Issue,
    on_empty: Option<OnEmpty>,
    min_remaining_at_claim: Option<HumaneDuration>,
    validity_jitter: Option<HumaneDuration>,
    #[serde(default = "default_requested_names")]
    requested_names: RequestedNames,
    cryptoperiod: Option<HumaneDuration>,
}

/// Clients seldom know what a profile names them.
fn default_requested_names() -> RequestedNames {
    RequestedNames::Drop
}

/// A year: the shorter end of what SP 800-57 part 1 (5.3.6) recommends for an authentication key.
const CRYPTOPERIOD: Duration = Duration::from_secs(365 * 86_400);

/// The tenant's own sub-CA.
fn default_issuer() -> ProfileIssuer {
    ProfileIssuer::SubCa
}

/// A VNFCI is client and server of its peers.
fn default_eku() -> Vec<ExtendedKeyUsage> {
    vec![ExtendedKeyUsage::ClientAuth, ExtendedKeyUsage::ServerAuth]
}

/// Every relying party can ask.
fn default_revocation() -> RevocationStatus {
    RevocationStatus::Crl
}

/// Fast in every HSM and accepted everywhere.
fn default_key_type() -> KeyType {
    KeyType::EcP256
}

/// Seven days: short enough that an unnoticed loss ends by itself, long enough to outlive a long weekend.
fn default_validity() -> HumaneDuration {
    HumaneDuration(Duration::from_secs(7 * 86_400))
}

/// Ready before the VNFCI exists, as SEC 005 8.1.2.3 describes.
fn default_issue() -> Issue {
    Issue::Ahead
}

/// Three years, the limit of 3GPP TS 33.310 for a network function.
const MAX_VALIDITY: Duration = Duration::from_secs(3 * 366 * 86_400);

/// Without revocation a certificate that is lost is good until it ends: as long as a CRL may be old.
const MAX_UNREVOCABLE: Duration = Duration::from_secs(86_400);

/// Below this a certificate would expire between its production and its use.
const MIN_VALIDITY: Duration = Duration::from_secs(5 * 60);

impl Profile {
    /// Reads a profile from its TOML text.
    ///
    /// # Errors
    /// [`ProfileError`] with line and remedy: unknown fields or variables, impossible templates or durations.
    pub fn parse(name: ProfileName, toml: &str) -> Result<Self, ProfileError> {
        let problem = |problem: String| ProfileError { profile: name.clone(), problem };
        let file: ProfileFile = toml::from_str(toml).map_err(|error| problem(error.to_string()))?;
        let validity = file.validity.0;
        let profile = Self {
            name: name.clone(),
            ca: file.ca,
            subject: file.subject,
            san: file.san,
            san_critical: file.san_critical,
            eku: file.eku,
            revocation: file.revocation,
            key_type: file.key_type,
            validity,
            issue: file.issue,
            // An RSA key takes up to seconds: too long for a claim to wait by default.
            // So does a CA somewhere else.
            on_empty: file.on_empty.unwrap_or(match (file.key_type, &file.issuer) {
                (KeyType::EcP256 | KeyType::EcP384, ProfileIssuer::SubCa) => OnEmpty::Generate,
                _ => OnEmpty::Retry,
            }),
            issuer: file.issuer,
            min_remaining_at_claim: file.min_remaining_at_claim.map_or(validity * 2 / 3, |given| given.0),
            validity_jitter: file.validity_jitter.map_or(validity / 20, |given| given.0),
            requested_names: file.requested_names,
            cryptoperiod: file.cryptoperiod.map_or(CRYPTOPERIOD.max(validity), |given| given.0),
        };
        profile.check().map_err(problem)?;
        Ok(profile)
    }

    fn check(&self) -> Result<(), String> {
        if self.validity < MIN_VALIDITY || self.validity > MAX_VALIDITY {
            return Err(format!(
                "validity = {:?} is out of range: give between {:?} and {:?}",
                HumaneDuration(self.validity).to_string(),
                HumaneDuration(MIN_VALIDITY).to_string(),
                HumaneDuration(MAX_VALIDITY).to_string(),
            ));
        }
        if self.revocation == RevocationStatus::None && self.validity > MAX_UNREVOCABLE {
            return Err(format!(
                "revocation = \"none\" is for certificates that end soon: give a validity of at most {}",
                HumaneDuration(MAX_UNREVOCABLE)
            ));
        }
        if self.san.iter().enumerate().any(|(place, name)| self.san[..place].contains(name)) {
            return Err("san has the same name twice".to_owned());
        }
        if self.san_critical && self.san.is_empty() {
            return Err("san_critical = true without san: give one, or leave san_critical out".to_owned());
        }
        if self.cryptoperiod < self.validity {
            return Err(
                "cryptoperiod is shorter than validity: a certificate must not outlast the time that its \
                        key may be used; raise it, or lower validity"
                    .to_owned(),
            );
        }
        // Otherwise a fresh certificate could already count as too old, and the pool would never be ready.
        if self.min_remaining_at_claim.saturating_add(self.validity_jitter) >= self.validity {
            return Err("min_remaining_at_claim and validity_jitter together reach validity, so that a new \
                        certificate could never be claimed: lower one of them"
                .to_owned());
        }
        let rsa = matches!(self.key_type, KeyType::Rsa2048 | KeyType::Rsa3072 | KeyType::Rsa4096);
        if rsa && self.on_empty == OnEmpty::Generate {
            return Err(
                "on_empty = \"GENERATE\" is for EC keys: an RSA key takes the HSM up to seconds, too long \
                        for a claim to wait; set on_empty = \"RETRY\", or leave it out"
                    .to_owned(),
            );
        }
        if let ProfileIssuer::External(issuer) = &self.issuer {
            if self.issue == Issue::AtClaim {
                return Err(format!(
                    "issue = \"at_claim\" is for the own CA: a claim does not wait for {issuer}; leave issue out"
                ));
            }
            if self.on_empty == OnEmpty::Generate {
                return Err(format!(
                    "on_empty = \"GENERATE\" is for the own CA: a claim does not wait for {issuer}; set on_empty = \
                     \"RETRY\", or leave it out"
                ));
            }
        }
        if self.eku.is_empty() {
            return Err("eku is empty: give \"clientAuth\", \"serverAuth\" or both".to_owned());
        }
        if (1..self.eku.len()).any(|i| self.eku[..i].contains(&self.eku[i])) {
            return Err("eku names a usage twice: remove one".to_owned());
        }
        if self.subject.is_empty() && self.san.is_empty() {
            return Err("subject and san are both empty: a certificate must name something".to_owned());
        }
        let uses =
            |variable| self.subject.uses(variable) || self.san.iter().any(|template| template.uses(variable));
        if self.issue == Issue::Ahead && uses(Variable::Vnfci) {
            return Err(
                "{vnfci} is not known when certificates are issued ahead: set issue = \"at_claim\", or \
                        use {credential}"
                    .to_owned(),
            );
        }
        if self.issue == Issue::Ahead && !uses(Variable::Credential) {
            return Err(
                "certificates issued ahead must tell each other apart: put {credential} into subject or \
                        san, e.g. san = [\"uri:urn:uuid:{credential}\"]"
                    .to_owned(),
            );
        }
        if self.issue == Issue::AtClaim && !uses(Variable::Vnfci) && !uses(Variable::Credential) {
            return Err(
                "certificates issued at the claim must tell VNFCIs apart: put {vnfci} or {credential} into \
                        subject or san, e.g. subject = \"CN={vnfci},O=keybroker\""
                    .to_owned(),
            );
        }
        Ok(())
    }

    /// Its name, the file's name without `.toml`.
    pub fn name(&self) -> &ProfileName {
        &self.name
    }

    /// Who signs.
    pub fn issuer(&self) -> &ProfileIssuer {
        &self.issuer
    }

    /// Which of the tenant's CAs signs: a VNF may have one of its own for its inside (SEC 005 10.5.4).
    pub fn ca(&self) -> &CaName {
        &self.ca
    }

    /// Type of the key pairs.
    pub fn key_type(&self) -> KeyType {
        self.key_type
    }

    /// Whether the subject alternative name is critical although there is a subject.
    pub fn san_critical(&self) -> bool {
        self.san_critical
    }

    /// How relying parties learn of a revocation.
    pub fn revocation(&self) -> RevocationStatus {
        self.revocation
    }

    /// Extended key usages, in the file's order.
    pub fn eku(&self) -> &[ExtendedKeyUsage] {
        &self.eku
    }

    /// From issue to notAfter, before jitter.
    pub fn validity(&self) -> Duration {
        self.validity
    }

    /// notAfter is earlier by a random part of this, so that a pool does not expire at once.
    pub fn validity_jitter(&self) -> Duration {
        self.validity_jitter
    }

    /// When certificates are issued.
    pub fn issue(&self) -> Issue {
        self.issue
    }

    /// What a claim does when the pool is empty.
    pub fn on_empty(&self) -> OnEmpty {
        self.on_empty
    }

    /// A waiting credential counts as available only while at least this much validity is left.
    pub fn min_remaining_at_claim(&self) -> Duration {
        self.min_remaining_at_claim
    }

    /// What becomes of names that a certification request asks for beyond the profile's.
    pub fn requested_names(&self) -> RequestedNames {
        self.requested_names
    }

    /// How long one key pair may be used, from its first certificate; the same key is certified again within it only.
    pub fn cryptoperiod(&self) -> Duration {
        self.cryptoperiod
    }

    /// Subject and subject alternative names for `values`. Called when a pool is created, too, so that a value
    /// that makes no name is refused to MANO and not met by the producer.
    ///
    /// # Errors
    /// [`NameError`] that names the value which does not fit.
    pub fn names(&self, values: &NameValues) -> Result<CertificateNames, NameError> {
        let mut general_names = Vec::new();
        for template in &self.san {
            general_names.extend(template.general_name(values)?);
        }
        Ok(CertificateNames {
            subject_der: self.subject.name_der(values)?,
            subject_is_empty: self.subject.is_empty(),
            general_names,
        })
    }
}

/// The names of one certificate, encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateNames {
    /// Name, DER.
    pub(super) subject_der: Vec<u8>,
    /// The subjectAltName must then be critical (RFC 5280 4.2.1.6).
    pub(super) subject_is_empty: bool,
    /// GeneralName after GeneralName, DER; empty for no subjectAltName.
    pub(super) general_names: Vec<u8>,
}

fn subject_template<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SubjectTemplate, D::Error> {
    SubjectTemplate::parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

fn san_templates<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<SanTemplate>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts.iter().map(|text| SanTemplate::parse(text).map_err(D::Error::custom)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(toml: &str) -> Result<Profile, ProfileError> {
        Profile::parse("p".parse().unwrap(), toml)
    }

    const SUBJECT: &str = "subject = \"CN={credential}\"\n";

    #[test]
    fn the_installed_profile_has_the_documented_defaults() {
        let installed = parse(VNFCI_TRANSPORT).unwrap();
        let defaults = parse(
            "subject = \"CN={vdu}.{vnf_instance},OU={tenant},O=keybroker\"\nsan = [\"uri:urn:uuid:{credential}\"]",
        );
        assert_eq!(Ok(installed), defaults);
    }

    #[test]
    fn every_installed_profile_is_accepted() {
        for (name, text) in INSTALLED {
            let profile = Profile::parse(name.parse().unwrap(), text);
            assert!(profile.is_ok(), "{profile:?}");
        }
    }

    #[test]
    fn defaults_follow_the_key_type_and_the_validity() {
        let profile = parse(&format!("{SUBJECT}key_type = \"RSA_3072\"\nvalidity = \"30h\"")).unwrap();
        assert_eq!(profile.on_empty(), OnEmpty::Retry);
        assert_eq!(profile.min_remaining_at_claim(), Duration::from_secs(20 * 3600));
        assert_eq!(profile.validity_jitter(), Duration::from_secs(90 * 60));
        assert_eq!(parse(SUBJECT).unwrap().on_empty(), OnEmpty::Generate);
    }

    #[test]
    fn an_error_in_the_text_names_the_line() {
        for (line, expected) in [
            ("validty = \"7d\"", "unknown field"),
            ("validity = \"7 days\"", "is not a duration"),
            ("san = [\"{credential}\"]", "uri:..."),
            ("key_type = \"EC\"", "EC_P256"),
            ("issue = \"later\"", "at_claim"),
        ] {
            let error = parse(&format!("{SUBJECT}{line}")).unwrap_err().to_string();
            assert!(error.contains("line 2") && error.contains(expected), "{error}");
        }
    }

    #[test]
    fn fields_that_contradict_each_other_are_refused_with_a_remedy() {
        for (toml, expected) in [
            ("subject = \"CN={vnfci}\"", "at_claim"),
            ("subject = \"CN={vdu}\"", "{credential}"),
            ("subject = \"\"", "must name something"),
            ("subject = \"CN={credential}\"\nissuer = \"Operator PKI\"", "issuer name"),
            ("subject = \"CN={credential}\"\nissuer = \"pki\"\nissue = \"at_claim\"", "own CA"),
            ("subject = \"CN={credential}\"\nissuer = \"pki\"\non_empty = \"GENERATE\"", "RETRY"),
            ("subject = \"CN={credential}\"\neku = []", "clientAuth"),
            ("subject = \"CN={credential}\"\neku = [\"clientAuth\", \"clientAuth\"]", "twice"),
            ("subject = \"CN={credential}\"\nvalidity = \"1s\"", "between"),
            ("subject = \"CN={credential}\"\nrevocation = \"none\"", "at most 1d"),
            ("subject = \"CN={credential}\"\nsan_critical = true", "without san"),
            ("subject = \"CN={vdu}\"\nsan = [\"uri:urn:{credential}\", \"uri:urn:{credential}\"]", "twice"),
            ("subject = \"CN={credential}\"\nvalidity = \"10000d\"", "between"),
            ("subject = \"CN={credential}\"\nmin_remaining_at_claim = \"7d\"", "lower"),
            ("subject = \"CN={credential}\"\nvalidity_jitter = \"4d\"", "lower"),
            ("subject = \"CN={credential}\"\ncryptoperiod = \"6d\"", "raise it"),
            ("subject = \"CN={credential}\"\nkey_type = \"RSA_2048\"\non_empty = \"GENERATE\"", "RETRY"),
        ] {
            let error = parse(toml).unwrap_err().to_string();
            assert!(error.contains(expected), "{toml}: {error}");
        }
        let nameless = parse("subject = \"CN={vdu}\"\nissue = \"at_claim\"").unwrap_err().to_string();
        assert!(nameless.contains("{vnfci}"), "{nameless}");
        assert!(parse("subject = \"CN={vnfci}\"\nissue = \"at_claim\"").is_ok());
    }

    proptest! {
        #[test]
        fn no_text_makes_the_profile_parser_panic(text in "(subject|san|eku|validity|[a-z]*) ?= ?.*") {
            let _ = parse(&text);
        }
    }
}
