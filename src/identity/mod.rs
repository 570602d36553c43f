//! Initial credentials: what a VNFCI shows before it has a certificate of ours, judged to [`Verified`].
//!
//! One file per kind. This module knows neither the store nor TLS: the caller hands in the evidence that the
//! connection gave and what is registered, and gets the proof or the reason of the refusal.

pub mod confirm;
pub mod token;
pub mod x509;

use crate::ca::PathError;
use crate::clock::Timestamp;
use crate::credential::named;
use crate::nfv::{
    AnchorName, InitialCredentialId, InvalidName, Sha256Hash, TenantId, VnfInstanceId, VnfciId,
};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

named!(
    /// Where an initial credential stands.
    InitialCredentialState, "initial credential state" {
        /// To be used once.
        Open = "OPEN",
        /// Used: all slots were confirmed.
        Spent = "SPENT",
        /// Withdrawn: terminated, re-armed, anchor removed, recovered from a rollback.
        Void = "VOID",
    }
);

/// A name in a certificate: `dns:NAME` in lower case, `uri:URI`, or `cn:TEXT` (a common name).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CertificateName(String);

impl CertificateName {
    /// A dNSName; case does not matter (RFC 5280 7.2).
    pub fn dns(name: &str) -> Self {
        Self(format!("dns:{}", name.to_ascii_lowercase()))
    }

    /// A uniformResourceIdentifier, compared octet by octet.
    pub fn uri(uri: &str) -> Self {
        Self(format!("uri:{uri}"))
    }

    /// The text form.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A common name, compared octet by octet.
    pub fn common_name(text: &str) -> Self {
        Self(format!("cn:{text}"))
    }
}

impl fmt::Display for CertificateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for CertificateName {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        match text.split_once(':') {
            Some(("dns", value)) if !value.is_empty() => Ok(Self::dns(value)),
            Some(("uri", value)) if !value.is_empty() => Ok(Self::uri(value)),
            Some(("cn", value)) if !value.is_empty() => Ok(Self::common_name(value)),
            _ => Err(InvalidName {
                kind: "name of an initial certificate",
                problem: "is none of dns:NAME, uri:URI, cn:TEXT".to_owned(),
            }),
        }
    }
}

impl TryFrom<String> for CertificateName {
    type Error = InvalidName;
    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl From<CertificateName> for String {
    fn from(name: CertificateName) -> String {
        name.0
    }
}

/// How an initial credential is recognised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum InitialCredentialKind {
    /// An X.509 certificate under an anchor, pinned to one leaf certificate (SHA-256).
    X509Fingerprint {
        /// The anchor.
        anchor: AnchorName,
        /// SHA-256 of the leaf's DER.
        fingerprint: Sha256Hash,
    },
    /// An X.509 certificate under an anchor, with this name.
    X509Name {
        /// The anchor.
        anchor: AnchorName,
        /// The name.
        name: CertificateName,
    },
    /// A one-time token, recomputed from the tenant's HMAC key; nothing secret is stored.
    Token,
}

/// An initial credential as MANO registered it; one arming of one VNFCI. Holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitialCredential {
    /// Its id.
    pub id: InitialCredentialId,
    /// Whose tenant.
    pub tenant: TenantId,
    /// Of which VNF instance.
    pub vnf_instance: VnfInstanceId,
    /// For which VNFCI.
    pub vnfci: VnfciId,
    /// Counts the armings of the VNFCI, from 1.
    pub generation: u32,
    /// How it is recognised.
    pub kind: InitialCredentialKind,
    /// Where it stands.
    pub state: InitialCredentialState,
    /// Until when it may be used.
    pub expires_at: Timestamp,
}

/// What an initial credential is shown for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To get credentials: it must be open and not expired.
    Claim,
    /// To be enrolled, or to be told again what it was enrolled for: it may be spent by that, and must not have expired.
    Enrol,
    /// To confirm, or confirm again, what was claimed with it: it may be spent by that very confirmation, and the
    /// claim's own deadline rules instead of its expiry.
    Confirm,
}

/// Proof that a caller is a certain VNFCI, by one initial credential. Only this module makes it; the claim
/// consumes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    credential: InitialCredentialId,
    tenant: TenantId,
    vnfci: VnfciId,
    fingerprint: Sha256Hash,
}

impl Verified {
    /// The initial credential that was shown.
    pub fn credential(&self) -> InitialCredentialId {
        self.credential
    }

    /// The tenant.
    pub fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    /// The VNFCI.
    pub fn vnfci(&self) -> &VnfciId {
        &self.vnfci
    }

    /// X509: SHA-256 of the leaf certificate's DER. Token: SHA-256 of the connection's client public key
    /// (SubjectPublicKeyInfo, DER). For the auditor.
    pub fn fingerprint(&self) -> Sha256Hash {
        self.fingerprint
    }

    /// The last step of every kind: the registration must be usable for `purpose`.
    fn new(
        registered: &InitialCredential,
        fingerprint: Sha256Hash,
        purpose: Purpose,
        now: Timestamp,
    ) -> Result<Self, Refusal> {
        match (purpose, registered.state) {
            (_, InitialCredentialState::Void) => return Err(Refusal::Voided(registered.id)),
            (Purpose::Claim, InitialCredentialState::Spent) => return Err(Refusal::Spent(registered.id)),
            (Purpose::Claim | Purpose::Enrol, _) if now >= registered.expires_at => {
                return Err(Refusal::RegistrationExpired(registered.id));
            }
            _ => {}
        }
        Ok(Self {
            credential: registered.id,
            tenant: registered.tenant.clone(),
            vnfci: registered.vnfci.clone(),
            fingerprint,
        })
    }
}

/// Why an initial credential, or a confirmation, was refused. For the auditor: the caller gets one generic answer
/// for all of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The certificate's path.
    #[error("initial certificate: {0}")]
    Path(#[from] PathError),
    /// The path leads to anchors of more than one tenant, or to several open registrations.
    #[error("ambiguous initial certificate: {0}")]
    Ambiguous(String),
    /// Nothing is registered for what was shown.
    #[error("nothing is registered for {0}")]
    NotRegistered(String),
    /// What was shown is of another kind than what is registered.
    #[error("initial credential {0} is registered with another kind of proof")]
    WrongKind(InitialCredentialId),
    /// Used up.
    #[error("initial credential {0} is spent")]
    Spent(InitialCredentialId),
    /// Withdrawn.
    #[error("initial credential {0} was withdrawn")]
    Voided(InitialCredentialId),
    /// Too late.
    #[error("initial credential {0} has expired")]
    RegistrationExpired(InitialCredentialId),
    /// The token's proof does not match: another token, connection, request or recipient key.
    #[error("wrong proof for token {0}")]
    WrongTokenProof(InitialCredentialId),
    /// A text that is no token, or a proof of a wrong length.
    #[error("malformed token or proof: {0}")]
    MalformedToken(String),
    /// A confirmation or release signature does not match.
    #[error("wrong signature: {0}")]
    WrongSignature(String),
    /// The key of a certificate cannot verify signatures here.
    #[error("unsupported public key: {0}")]
    UnsupportedKey(String),
}

impl Refusal {
    /// Stable code for the audit log's `reason_code` and for metrics.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Path(error) => error.code(),
            Self::Ambiguous(_) => "CERTIFICATE_AMBIGUOUS",
            Self::NotRegistered(_) => "NOT_REGISTERED",
            Self::WrongKind(_) => "WRONG_KIND",
            Self::Spent(_) => "SPENT",
            Self::Voided(_) => "VOIDED",
            Self::RegistrationExpired(_) => "EXPIRED",
            Self::WrongTokenProof(_) => "TOKEN_PROOF_WRONG",
            Self::MalformedToken(_) => "TOKEN_MALFORMED",
            Self::WrongSignature(_) => "SIGNATURE_WRONG",
            Self::UnsupportedKey(_) => "KEY_UNSUPPORTED",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn registered(state: InitialCredentialState) -> InitialCredential {
        InitialCredential {
            id: InitialCredentialId::generate(),
            tenant: "default".parse().unwrap(),
            vnfci: "amf-0001".parse().unwrap(),
            vnf_instance: "amf".parse().unwrap(),
            generation: 1,
            kind: InitialCredentialKind::Token,
            expires_at: Timestamp::from_unix_seconds(100),
            state,
        }
    }

    #[test]
    fn a_spent_initial_credential_confirms_again_and_never_claims_again() {
        let spent = registered(InitialCredentialState::Spent);
        let (hash, now) = (Sha256Hash([0; 32]), Timestamp::from_unix_seconds(50));
        assert_eq!(Verified::new(&spent, hash, Purpose::Claim, now), Err(Refusal::Spent(spent.id)));
        assert!(Verified::new(&spent, hash, Purpose::Confirm, now).is_ok());
    }

    #[test]
    fn a_spent_initial_credential_is_told_again_what_it_enrolled_for_until_it_expires() {
        let spent = registered(InitialCredentialState::Spent);
        let verify = |seconds| {
            let now = Timestamp::from_unix_seconds(seconds);
            Verified::new(&spent, Sha256Hash([0; 32]), Purpose::Enrol, now)
        };
        assert!(verify(99).is_ok());
        assert_eq!(verify(100), Err(Refusal::RegistrationExpired(spent.id)));
    }

    #[test]
    fn a_withdrawn_initial_credential_is_good_for_nothing() {
        let voided = registered(InitialCredentialState::Void);
        for purpose in [Purpose::Claim, Purpose::Enrol, Purpose::Confirm] {
            let refused =
                Verified::new(&voided, Sha256Hash([0; 32]), purpose, Timestamp::from_unix_seconds(50));
            assert_eq!(refused, Err(Refusal::Voided(voided.id)));
        }
    }

    #[test]
    fn an_initial_credential_claims_until_it_expires_and_confirms_after() {
        let open = registered(InitialCredentialState::Open);
        let verify = |purpose, seconds| {
            Verified::new(&open, Sha256Hash([0; 32]), purpose, Timestamp::from_unix_seconds(seconds))
        };
        assert!(verify(Purpose::Claim, 99).is_ok());
        assert_eq!(verify(Purpose::Claim, 100), Err(Refusal::RegistrationExpired(open.id)));
        assert!(verify(Purpose::Confirm, 100).is_ok());
    }

    proptest! {
        #[test]
        fn a_name_survives_its_text_form(text in "(dns|uri|cn|x):.{0,70}") {
            if let Ok(name) = text.parse::<CertificateName>() {
                prop_assert_eq!(name.to_string().parse::<CertificateName>(), Ok(name));
            }
        }
    }
}
