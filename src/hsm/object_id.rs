//! The text form of [`ObjectId`]: CKA_LABEL and CKA_ID of every object of ours.

use super::ObjectId;
use crate::nfv::TenantId;
use std::fmt;
use std::str::FromStr;

/// A text that is no [`ObjectId`]: a foreign object's label.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the name of an object of keybroker")]
pub struct InvalidObjectId(pub String);

impl ObjectId {
    /// The tenant that the object belongs to; `None` for the broker's own (root, TLS, audit, EST client).
    pub fn tenant(&self) -> Option<&TenantId> {
        match self {
            Self::SubCa(tenant, _)
            | Self::Ocsp(tenant, _)
            | Self::TokenMac(tenant)
            | Self::Kek(tenant, _) => Some(tenant),
            Self::Root(_) | Self::Tls(_) | Self::Audit(_) | Self::EstClient(_) => None,
        }
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root(generation) => write!(f, "keybroker:root:{generation}"),
            Self::SubCa(tenant, generation) => write!(f, "keybroker:ca:{tenant}:{generation}"),
            Self::Ocsp(tenant, generation) => write!(f, "keybroker:ocsp:{tenant}:{generation}"),
            Self::TokenMac(tenant) => write!(f, "keybroker:hmac:{tenant}"),
            Self::Tls(generation) => write!(f, "keybroker:tls:{generation}"),
            Self::Audit(generation) => write!(f, "keybroker:audit:{generation}"),
            Self::EstClient(issuer) => write!(f, "keybroker:est:{issuer}"),
            Self::Kek(tenant, epoch) => write!(f, "keybroker:kek:{tenant}:{epoch}"),
        }
    }
}

impl FromStr for ObjectId {
    type Err = InvalidObjectId;

    fn from_str(text: &str) -> Result<Self, InvalidObjectId> {
        let parts: Vec<&str> = text.split(':').collect();
        let id = match parts[..] {
            ["keybroker", "root", generation] => generation.parse().ok().map(Self::Root),
            ["keybroker", "ca", tenant, generation] => {
                tenant.parse().ok().zip(generation.parse().ok()).map(|(t, g)| Self::SubCa(t, g))
            }
            ["keybroker", "ocsp", tenant, generation] => {
                tenant.parse().ok().zip(generation.parse().ok()).map(|(t, g)| Self::Ocsp(t, g))
            }
            ["keybroker", "hmac", tenant] => tenant.parse().ok().map(Self::TokenMac),
            ["keybroker", "tls", generation] => generation.parse().ok().map(Self::Tls),
            ["keybroker", "audit", generation] => generation.parse().ok().map(Self::Audit),
            ["keybroker", "est", issuer] => issuer.parse().ok().map(Self::EstClient),
            ["keybroker", "kek", tenant, epoch] => {
                tenant.parse().ok().zip(epoch.parse().ok()).map(|(t, e)| Self::Kek(t, e))
            }
            _ => None,
        };
        // Only the one canonical text is ours: "+1" or an upper-case UUID would name the same object twice.
        id.filter(|id| id.to_string() == text).ok_or_else(|| InvalidObjectId(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nfv::EpochId;

    #[test]
    fn every_name_is_read_back_as_itself_and_nothing_else_is_ours() {
        let tenant: TenantId = "operator-a".parse().unwrap();
        for id in [
            ObjectId::Root(1),
            ObjectId::SubCa(tenant.clone(), 2),
            ObjectId::Ocsp(tenant.clone(), 2),
            ObjectId::TokenMac(tenant.clone()),
            ObjectId::Tls(3),
            ObjectId::Audit(4),
            ObjectId::EstClient("operator-pki".parse().unwrap()),
            ObjectId::Kek(tenant, EpochId::generate()),
        ] {
            assert_eq!(id.to_string().parse::<ObjectId>().unwrap(), id);
        }
        for foreign in
            ["", "root", "keybroker:root:", "keybroker:root:+1", "keybroker:root:01", "keybroker:x:1"]
        {
            assert!(foreign.parse::<ObjectId>().is_err(), "{foreign:?}");
        }
    }
}
