//! Names of the NFV world and of what the broker keeps, each parsed once at the edge.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use uuid::Uuid;

/// Why a name was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {problem}")]
pub struct InvalidName {
    /// What was being parsed, e.g. "tenant id".
    pub kind: &'static str,
    /// What is wrong with it and what is expected instead.
    pub problem: String,
}

/// Lower-case label: `[a-z0-9]([a-z0-9-]*[a-z0-9])?`, at most 63 octets (the shape of a DNS label).
fn label(kind: &'static str, text: &str) -> Result<(), InvalidName> {
    let problem = if text.is_empty() {
        "is empty: give 1 to 63 characters of a-z, 0-9 and '-'"
    } else if text.len() > 63 {
        "is longer than 63 characters"
    } else if text.starts_with('-') || text.ends_with('-') {
        "starts or ends with '-'"
    } else if !text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        "has a character other than a-z, 0-9 and '-'"
    } else {
        return Ok(());
    };
    Err(InvalidName { kind, problem: problem.to_owned() })
}

/// MANO's identifier: 1 to 255 octets of printable ASCII, no space. The values come from a VNFM (SOL 003
/// calls them `Identifier`) and end up in names of certificates and in logs, so nothing else is let in.
fn identifier(kind: &'static str, text: &str) -> Result<(), InvalidName> {
    let problem = if text.is_empty() {
        "is empty: give 1 to 255 printable ASCII characters without space"
    } else if text.len() > 255 {
        "is longer than 255 characters"
    } else if !text.bytes().all(|b| b.is_ascii_graphic()) {
        "has a character that is not printable ASCII (or a space)"
    } else {
        return Ok(());
    };
    Err(InvalidName { kind, problem: problem.to_owned() })
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $rule:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                $rule($kind, text)?;
                Ok(Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(text: String) -> Result<Self, InvalidName> {
                $rule($kind, &text)?;
                Ok(Self(text))
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// Administrative domain with its own CA, keys and anchors.
    TenantId, "tenant id", label
);
name!(
    /// Name of a pool, unique within its tenant.
    PoolName, "pool name", label
);
name!(
    /// Name of a certificate profile, the same as its file's name without `.toml`.
    ProfileName, "profile name", label
);
name!(
    /// A named place of a VNFCI for one credential, e.g. `transport-server`.
    SlotName, "slot name", label
);
name!(
    /// Name of a registered identity (operator, NFVO, VNFM ...), unique.
    IdentityName, "identity name", label
);
name!(
    /// Name of a trust anchor for initial credentials, unique within its tenant.
    AnchorName, "anchor name", label
);
name!(
    /// Name of a configured issuer outside of the broker, `[issuer.NAME]`.
    IssuerName, "issuer name", label
);
name!(
    /// Name of a CA of a tenant, e.g. `main`, or `internal` for the inside of a VNF; of a root where there is no tenant.
    CaName, "CA name", label
);
name!(
    /// MANO's identifier of a VNF instance.
    VnfInstanceId, "VNF instance id", identifier
);
name!(
    /// Identifier of a VDU in the VNFD.
    VduId, "VDU id", identifier
);
name!(
    /// MANO's identifier of a VNFC instance, unique within its tenant.
    VnfciId, "VNFCI id", identifier
);

impl CaName {
    /// `main`: the CA that every tenant has from its beginning, and the root's name.
    pub fn main() -> Self {
        Self("main".to_owned())
    }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new identifier, a UUID version 7 (RFC 9562 5.7): it sorts by the time it was made.
            pub fn generate() -> Self {
                Self(Uuid::now_v7())
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                Uuid::parse_str(text)
                    .map(Self)
                    .map_err(|_| InvalidName { kind: $kind, problem: "is not a UUID".to_owned() })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }
    };
}

id!(
    /// A pool.
    PoolId, "pool id"
);
id!(
    /// A key pair with its certificate.
    CredentialId, "credential id"
);
id!(
    /// One claim: all slots of one VNFCI handed to one recipient key.
    ClaimId, "claim id"
);
id!(
    /// One key-encryption key and what is wrapped under it.
    EpochId, "epoch id"
);
id!(
    /// One initial credential of one VNFCI (one arming).
    InitialCredentialId, "initial credential id"
);
id!(
    /// One CA certificate that issues or issued.
    IssuerId, "issuer id"
);
id!(
    /// The caller's key for one mutation: the same id replays the same outcome for 24 hours.
    RequestId, "request id"
);

/// SHA-256 of something named beside it (a certificate's DER, a SubjectPublicKeyInfo's DER ...).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha256Hash(pub [u8; 32]);

impl Sha256Hash {
    /// The hash of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest;
        Self(sha2::Sha256::digest(bytes).into())
    }
}

impl fmt::Display for Sha256Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Sha256Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Sha256Hash {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let mut hash = [0; 32];
        hex::decode_to_slice(text, &mut hash).map_err(|_| InvalidName {
            kind: "SHA-256 hash",
            problem: "is not 64 hexadecimal digits".into(),
        })?;
        Ok(Self(hash))
    }
}

impl TryFrom<&[u8]> for Sha256Hash {
    type Error = InvalidName;
    fn try_from(bytes: &[u8]) -> Result<Self, InvalidName> {
        bytes
            .try_into()
            .map(Self)
            .map_err(|_| InvalidName { kind: "SHA-256 hash", problem: "is not 32 bytes".into() })
    }
}

impl Serialize for Sha256Hash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Sha256Hash {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What is hashed, signed or MACed: an ASCII label followed by each field as its length (4 bytes,
/// big-endian) and its bytes, in the documented order. No two field lists give the same bytes.
pub fn labelled_fields(label: &str, fields: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(label.len() + fields.iter().map(|f| f.len() + 4).sum::<usize>());
    bytes.extend_from_slice(label.as_bytes());
    for field in fields {
        // A field over 4 GiB cannot occur: every message is bounded far below it at the listener.
        bytes.extend_from_slice(&u32::try_from(field.len()).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend_from_slice(field);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_tenants_first_ca_has_a_valid_name() {
        assert_eq!("main".parse::<CaName>().unwrap(), CaName::main());
    }

    #[test]
    fn a_tenant_id_is_a_lower_case_label() {
        assert!("default".parse::<TenantId>().is_ok());
        for bad in ["", "Default", "-a", "a-", "a_b", "ä", &"a".repeat(64)] {
            assert!(bad.parse::<TenantId>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn an_identifier_of_mano_keeps_control_characters_and_spaces_out() {
        assert!("urn:uuid:1/amf_1".parse::<VnfciId>().is_ok());
        for bad in ["", "a b", "a\nb", "a\0", &"a".repeat(256)] {
            assert!(bad.parse::<VnfciId>().is_err(), "{bad:?} was accepted");
        }
    }

    proptest! {
        #[test]
        fn different_field_lists_never_give_the_same_bytes(
            a in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..6), 0..4),
            b in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..6), 0..4),
        ) {
            let fields = |list: &[Vec<u8>]| {
                labelled_fields("l", &list.iter().map(Vec::as_slice).collect::<Vec<_>>())
            };
            prop_assert_eq!(fields(&a) == fields(&b), a == b);
        }

        #[test]
        fn a_hash_survives_its_text_form(bytes in any::<[u8; 32]>()) {
            let hash = Sha256Hash(bytes);
            prop_assert_eq!(hash.to_string().parse::<Sha256Hash>(), Ok(hash));
        }
    }
}
