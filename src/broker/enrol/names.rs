//! What the names of an enrolment request mean: whom it is for, and what its certificate will be called.

use super::{Place, invalid};
use crate::authorisation::{Caller, Rpc, Target, authorise};
use crate::broker::{Broker, BrokerError};
use crate::ca::csr::names_of;
use crate::ca::profile::{CertificateNames, RequestedNames};
use crate::ca::{CertificationRequest, NameValues};
use crate::nfv::{CredentialId, Sha256Hash, TenantId, VnfciId};

impl Broker {
    /// Other names than the profile's are dropped or refused as it says; the name of another VNFCI is a mix-up, and refused.
    pub(super) async fn names_nobody_else(
        &self,
        tenant: &TenantId,
        id: &VnfciId,
        identifiers: &[String],
    ) -> Result<(), BrokerError> {
        let named: Vec<VnfciId> = identifiers.iter().filter_map(|text| text.parse().ok()).collect();
        let registered = self.store.vnf_instances(tenant, &named).await?;
        match registered.keys().find(|named| *named != id) {
            None => Ok(()),
            Some(other) => {
                let reason = format!("the request for VNFCI {id} names VNFCI {other}");
                Err(BrokerError::refused("VNFCI_FOREIGN", reason).concerning(tenant, Some(id)))
            }
        }
    }

    /// The VNFCI that an agent acts for: the one named beside the request, else the only registered one whose id the
    /// request has as common name, serialNumber, DNS name or URI. It must be of a VNF instance granted to the agent.
    pub(super) async fn principal(
        &self,
        caller: &Caller,
        tenant: &TenantId,
        request: &CertificationRequest,
        named: Option<&VnfciId>,
    ) -> Result<VnfciId, BrokerError> {
        let candidates: Vec<VnfciId> = match named {
            Some(id) => vec![id.clone()],
            None => request.identifiers().iter().filter_map(|text| text.parse().ok()).collect(),
        };
        let found = self.store.vnf_instances(tenant, &candidates).await?;
        let mut found = found.into_iter();
        let refused = |what: &str| {
            BrokerError::refused("VNFCI_UNKNOWN", format!("{} {what}", request.subject()))
                .concerning(tenant, None)
        };
        match (found.next(), found.next()) {
            (Some((id, vnf_instance)), None) => {
                let target =
                    Target { tenant: Some(tenant), vnf_instance: Some(&vnf_instance), vnfci: Some(&id) };
                authorise(caller, Rpc::EnrolVnfci, target)?;
                Ok(id)
            }
            (None, _) => Err(refused("names no registered VNFCI")),
            (Some(_), Some(_)) => Err(refused("names several registered VNFCIs")),
        }
    }

    /// The names of the certificate: the profile's, or those of the certificate that it follows.
    pub(super) async fn names(
        &self,
        place: &Place,
        request: &CertificationRequest,
        credential: CredentialId,
    ) -> Result<CertificateNames, BrokerError> {
        let profile = &place.profile;
        if request.key_type() != Some(profile.key_type()) {
            return Err(invalid(format!(
                "the key is no {} key, which profile {} asks for (csrattrs says so, too)",
                profile.key_type(),
                profile.name()
            )));
        }
        if let Some(held) = &place.follows {
            let names = names_of(&held.certificate_der).map_err(|e| BrokerError::Internal(e.to_string()))?;
            request.keeps_names_of(&names).map_err(|error| invalid(error.to_string()))?;
            let same_key = held.credential.public_key == Sha256Hash::of(request.public_key_der());
            let until = self.store.now().await?.plus(profile.validity());
            if same_key && !held.own_key {
                return Err(invalid(
                    "the key came from a pool: make a new key, or renew at the VNFCI listener".to_owned(),
                ));
            }
            if same_key && until > held.key_since.plus(profile.cryptoperiod()) {
                return Err(invalid(format!(
                    "the key's cryptoperiod ({:?} by profile {}) ends before a new certificate would: make a new key",
                    profile.cryptoperiod(),
                    profile.name()
                )));
            }
            return Ok(names);
        }
        let values = NameValues {
            tenant: place.vnfci.tenant.clone(),
            vnf_instance: place.vnfci.vnf_instance.clone(),
            vdu: place.pool.vdu.clone(),
            credential,
            vnfci: Some(place.vnfci.id.clone()),
        };
        let names = profile.names(&values).map_err(|error| invalid(error.to_string()))?;
        if profile.requested_names() == RequestedNames::Refuse && request.asks_for_names() {
            request.keeps_names_of(&names).map_err(|error| invalid(error.to_string()))?;
        }
        Ok(names)
    }
}
