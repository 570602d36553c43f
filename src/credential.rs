//! Keys, certificates and epochs: their states and the only transitions between them.
//!
//! The diagrams are in `docs/states.md`. Revocation belongs to the certificate, destruction to the key, and
//! a key is only called shredded when its epoch is [`EpochState::Destroyed`].

/// A change that the state machine does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a {what} that is {from} cannot {change}")]
pub struct InvalidTransition {
    /// "key", "certificate" or "epoch".
    pub what: &'static str,
    /// The state it is in.
    pub from: &'static str,
    /// The change that was asked for.
    pub change: &'static str,
}

/// A text that names no variant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a known {1}")]
pub struct UnknownName(pub String, pub &'static str);

/// An enum whose variants are written as one fixed text each, in the database, in JSON and in messages.
macro_rules! named {
    ($(#[$doc:meta])* $name:ident, $kind:literal { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[derive(::serde::Serialize, ::serde::Deserialize)]
        pub enum $name { $($(#[$vdoc])* #[serde(rename = $text)] $variant,)+ }

        impl $name {
            /// Every variant, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The fixed text: the value in the database, in JSON and in messages.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl ::std::str::FromStr for $name {
            type Err = $crate::credential::UnknownName;
            fn from_str(text: &str) -> Result<Self, $crate::credential::UnknownName> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    other => Err($crate::credential::UnknownName(other.to_owned(), $kind)),
                }
            }
        }
    };
}
pub(crate) use named;

named!(
    /// Where the broker's copy of a private key stands.
    KeyState, "key state" {
        /// Wrapped and stored, no certificate yet: it is made at the claim, or by a CA that answers later.
        Generated = "GENERATED",
        /// Certified and waiting in its pool.
        Available = "AVAILABLE",
        /// Drawn for one VNFCI and sealed to one recipient key, not confirmed.
        Claimed = "CLAIMED",
        /// Confirmed by its VNFCI; the broker's copy is erased.
        Delivered = "DELIVERED",
        /// The broker's copy is erased and was never confirmed.
        Destroyed = "DESTROYED",
        /// Made and kept by its holder, who had it certified: the broker never had a copy, so nothing happens to it.
        External = "EXTERNAL",
    }
);

named!(
    /// What happens to a key.
    KeyChange, "key change" {
        /// Its certificate arrived.
        Certify = "be certified",
        /// It is drawn for a VNFCI.
        Claim = "be claimed",
        /// Its VNFCI proved possession.
        Confirm = "be confirmed",
        /// The broker's copy is erased.
        Destroy = "be destroyed",
    }
);

impl KeyState {
    /// The only transitions of a key.
    ///
    /// # Errors
    /// [`InvalidTransition`] for every pair that is not in the diagram.
    pub fn after(self, change: KeyChange) -> Result<Self, InvalidTransition> {
        use KeyState::{Available, Claimed, Delivered, Destroyed, Generated};
        match (self, change) {
            (Generated, KeyChange::Certify) => Ok(Available),
            // Generated: of a pool whose certificates are issued at the claim.
            (Generated | Available, KeyChange::Claim) => Ok(Claimed),
            (Claimed, KeyChange::Confirm) => Ok(Delivered),
            (Generated | Available | Claimed, KeyChange::Destroy) => Ok(Destroyed),
            _ => Err(InvalidTransition { what: "key", from: self.as_str(), change: change.as_str() }),
        }
    }

    /// Whether the broker holds a wrapped copy in this state, so that the epoch cannot be shredded.
    pub const fn is_live(self) -> bool {
        matches!(self, Self::Generated | Self::Available | Self::Claimed)
    }
}

named!(
    /// Where a certificate stands.
    CertificateState, "certificate state" {
        /// To be relied upon.
        Valid = "VALID",
        /// A newer one replaced it; still valid until its overlap ends.
        Superseded = "SUPERSEDED",
        /// To be withdrawn; not yet on a published CRL.
        RevocationPending = "REVOCATION_PENDING",
        /// On a CRL that the HSM signed.
        Revoked = "REVOKED",
        /// Its notAfter has passed.
        Expired = "EXPIRED",
    }
);

named!(
    /// What happens to a certificate.
    CertificateChange, "certificate change" {
        /// A newer certificate was confirmed in its place.
        Supersede = "be superseded",
        /// It is to be withdrawn.
        Revoke = "be revoked",
        /// A CRL that lists it was signed.
        Publish = "be published as revoked",
        /// Its notAfter passed.
        Expire = "expire",
    }
);

impl CertificateState {
    /// The only transitions of a certificate.
    ///
    /// # Errors
    /// [`InvalidTransition`] for every pair that is not in the diagram.
    pub fn after(self, change: CertificateChange) -> Result<Self, InvalidTransition> {
        use CertificateState::{Expired, RevocationPending, Revoked, Superseded, Valid};
        match (self, change) {
            (Valid, CertificateChange::Supersede) => Ok(Superseded),
            (Valid | Superseded, CertificateChange::Revoke) => Ok(RevocationPending),
            (RevocationPending, CertificateChange::Publish) => Ok(Revoked),
            // From `RevocationPending` only where no CRL of ours will ever list it: an issuer outside of the broker.
            (Valid | Superseded | RevocationPending, CertificateChange::Expire) => Ok(Expired),
            _ => Err(InvalidTransition { what: "certificate", from: self.as_str(), change: change.as_str() }),
        }
    }
}

named!(
    /// Where an epoch (one key-encryption key and what is wrapped under it) stands.
    EpochState, "epoch state" {
        /// Its row exists, its KEK is being made.
        Creating = "CREATING",
        /// New keys are wrapped under its KEK.
        Open = "OPEN",
        /// No new keys; what is left drains.
        Closed = "CLOSED",
        /// Nothing live is left; its KEK is being destroyed and that is being verified.
        Shredding = "SHREDDING",
        /// A fresh process found no KEK: everything ever wrapped under it is unreadable.
        Destroyed = "DESTROYED",
    }
);

named!(
    /// What happens to an epoch.
    EpochChange, "epoch change" {
        /// Its KEK exists on the token.
        Open = "be opened",
        /// It takes no more keys.
        Close = "be closed",
        /// Nothing live is left in it and its KEK is to be destroyed.
        Shred = "be shredded",
        /// A fresh process found no KEK.
        Verify = "be called destroyed",
    }
);

named!(
    /// Why an epoch takes a step; goes into the audit event.
    StepReason, "step reason" {
        /// A crash left it half made.
        Resume = "RESUME",
        /// It holds as many keys as an epoch should.
        Full = "FULL",
        /// Erased keys in it wait for their shredding.
        HorizonNears = "HORIZON_NEARS",
        /// Nothing live is left in it.
        Empty = "EMPTY",
        /// Whoever began it did not make its KEK in time.
        Abandoned = "ABANDONED",
        /// A rolled-back database is recovered: whatever was wrapped under it is given up.
        Recovered = "RECOVERED",
    }
);

impl EpochState {
    /// All but `Destroyed`: those that may have a KEK on the token.
    pub const LIVING: &[Self] = &[Self::Creating, Self::Open, Self::Closed, Self::Shredding];

    /// The only transitions of an epoch. That an epoch is empty before [`EpochChange::Shred`] is checked by
    /// the store in the same transaction.
    ///
    /// # Errors
    /// [`InvalidTransition`] for every pair that is not in the diagram.
    pub fn after(self, change: EpochChange) -> Result<Self, InvalidTransition> {
        use EpochState::{Closed, Creating, Destroyed, Open, Shredding};
        match (self, change) {
            (Creating, EpochChange::Open) => Ok(Open),
            (Open, EpochChange::Close) => Ok(Closed),
            (Creating | Closed, EpochChange::Shred) => Ok(Shredding),
            (Shredding, EpochChange::Verify) => Ok(Destroyed),
            _ => Err(InvalidTransition { what: "epoch", from: self.as_str(), change: change.as_str() }),
        }
    }
}

named!(
    /// When the certificates of a pool are issued.
    Issue, "time of issue" {
        /// With the key, before any VNFCI exists (SEC 005 8.1.2.3): names carry the pool's identity.
        Ahead = "ahead",
        /// During the claim, with the VNFCI's own name; only keys wait in the pool.
        AtClaim = "at_claim",
    }
);

named!(
    /// Type and size of a key pair.
    KeyType, "key type" {
        /// ECDSA on P-256 (FIPS 186-5, SEC 2).
        EcP256 = "EC_P256",
        /// ECDSA on P-384.
        EcP384 = "EC_P384",
        /// RSA, 2048 bits.
        Rsa2048 = "RSA_2048",
        /// RSA, 3072 bits.
        Rsa3072 = "RSA_3072",
        /// RSA, 4096 bits.
        Rsa4096 = "RSA_4096",
    }
);

named!(
    /// Why a certificate is withdrawn (RFC 5280 5.3.1, the reasons that a broker can know).
    RevocationReason, "revocation reason" {
        /// No reason is known.
        Unspecified = "UNSPECIFIED",
        /// The private key may be in other hands.
        KeyCompromise = "KEY_COMPROMISE",
        /// The subject's relation to the organisation changed.
        AffiliationChanged = "AFFILIATION_CHANGED",
        /// A newer certificate replaced it.
        Superseded = "SUPERSEDED",
        /// The VNFCI is gone or gave the credential back.
        CessationOfOperation = "CESSATION_OF_OPERATION",
        /// The key of the CA that issued it may be in other hands.
        CaCompromise = "CA_COMPROMISE",
        /// What the certificate lets its subject do was withdrawn.
        PrivilegeWithdrawn = "PRIVILEGE_WITHDRAWN",
    }
);

impl RevocationReason {
    /// The CRLReason code of RFC 5280 5.3.1.
    pub const fn code(self) -> u8 {
        match self {
            Self::Unspecified => 0,
            Self::KeyCompromise => 1,
            Self::AffiliationChanged => 3,
            Self::Superseded => 4,
            Self::CessationOfOperation => 5,
            Self::CaCompromise => 2,
            Self::PrivilegeWithdrawn => 9,
        }
    }
}

named!(
    /// What is known of the holder's copy of a key when its custody ends.
    HolderCopy, "holder copy" {
        /// No envelope with this key was ever made.
        NeverDelivered = "NEVER_DELIVERED",
        /// The holder signed, with the key itself, that it gives the key back and deletes it.
        ReleasedSigned = "RELEASED_SIGNED",
        /// MANO states that the VNFCI's storage was wiped.
        WipedPerMano = "WIPED_PER_MANO",
        /// Nobody has said.
        Unknown = "UNKNOWN",
    }
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_never_returns_to_its_pool() {
        for &from in KeyState::ALL {
            for &change in KeyChange::ALL {
                if let Ok(to) = from.after(change) {
                    assert!(to > from, "{from} went back to {to}");
                }
            }
        }
    }

    #[test]
    fn only_a_claimed_key_is_delivered_and_a_delivered_key_is_final() {
        for &from in KeyState::ALL {
            assert_eq!(from.after(KeyChange::Confirm).is_ok(), from == KeyState::Claimed);
        }
        assert!(KeyChange::ALL.iter().all(|&change| KeyState::Delivered.after(change).is_err()));
        assert!(KeyChange::ALL.iter().all(|&change| KeyState::Destroyed.after(change).is_err()));
    }

    #[test]
    fn a_key_is_claimed_once_with_or_without_its_certificate() {
        for &from in KeyState::ALL {
            let waits = matches!(from, KeyState::Generated | KeyState::Available);
            assert_eq!(from.after(KeyChange::Claim).is_ok(), waits, "{from}");
        }
    }

    #[test]
    fn a_revoked_certificate_stays_revoked() {
        assert!(
            CertificateChange::ALL.iter().all(|&change| CertificateState::Revoked.after(change).is_err())
        );
    }

    #[test]
    fn an_epoch_passes_every_state_once_and_one_that_takes_keys_is_closed_before_it_is_shredded() {
        let mut state = EpochState::Creating;
        for change in [EpochChange::Open, EpochChange::Close, EpochChange::Shred, EpochChange::Verify] {
            for &other in EpochChange::ALL {
                // One that was never opened has nothing to be closed for.
                let given_up = state == EpochState::Creating && other == EpochChange::Shred;
                assert_eq!(state.after(other).is_ok(), other == change || given_up);
            }
            state = state.after(change).unwrap();
        }
        assert_eq!(state, EpochState::Destroyed);
    }

    #[test]
    fn every_name_is_read_back_as_itself() {
        for &state in KeyState::ALL {
            assert_eq!(state.as_str().parse::<KeyState>(), Ok(state));
        }
        assert!("available".parse::<KeyState>().is_err());
    }
}
