//! `AdminService`: what an operator configures while the broker runs.

use super::gate::Gate;
use super::parse::{certificate, invalid, optional, required, to_timestamp};
use super::proto::{self, admin_service_server::AdminService};
use crate::authorisation::{Role, Rpc};
use crate::broker::BrokerError;
use crate::broker::admin::{IdentityCertificate, NewIdentity};
use crate::broker::anchors::{AnchorChange, AnchorWithCrls, NewAnchor};
use crate::broker::hierarchy::{Ca, Certifier, ImportCa};
use crate::broker::quotas::TenantStatus;
use crate::nfv::VnfInstanceId;
use crate::store::records::{Identity, Quota, Revocation};
use std::time::Duration;
use tonic::{Request, Response, Status};

/// The longest profile file.
const PROFILE_MAX: usize = 64 * 1024;
/// The longest PKCS#10, DER.
const CERTIFICATE_REQUEST_MAX: usize = 16 * 1024;
/// The most VNF instances that one identity manages.
const GRANTS_MAX: usize = 10_000;

/// The service.
pub(super) struct Admin(pub(super) Gate);

#[tonic::async_trait]
impl AdminService for Admin {
    async fn add_tenant(
        &self,
        request: Request<proto::AddTenantRequest>,
    ) -> Result<Response<proto::AddTenantResponse>, Status> {
        self.0
            .call(Rpc::AddTenant, request, |call, caller, message| async move {
                let tenant = required("tenant", &message.tenant)?;
                let tenant = call.broker.add_tenant(&caller, call.request()?, tenant).await?;
                Ok(proto::AddTenantResponse { tenant: Some(shown_tenant(tenant)) })
            })
            .await
    }

    async fn list_tenants(
        &self,
        request: Request<proto::ListTenantsRequest>,
    ) -> Result<Response<proto::ListTenantsResponse>, Status> {
        self.0
            .call(Rpc::ListTenants, request, |call, caller, _| async move {
                let tenants = call.broker.tenants(&caller).await?;
                Ok(proto::ListTenantsResponse { tenants: tenants.into_iter().map(shown_tenant).collect() })
            })
            .await
    }

    async fn remove_tenant(
        &self,
        request: Request<proto::RemoveTenantRequest>,
    ) -> Result<Response<proto::RemoveTenantResponse>, Status> {
        self.0
            .call(Rpc::RemoveTenant, request, |call, caller, message| async move {
                let tenant = required("tenant", &message.tenant)?;
                call.broker.remove_tenant(&caller, call.request()?, tenant).await?;
                Ok(proto::RemoveTenantResponse {})
            })
            .await
    }

    async fn add_anchor(
        &self,
        request: Request<proto::AddAnchorRequest>,
    ) -> Result<Response<proto::AddAnchorResponse>, Status> {
        self.0
            .call(Rpc::AddAnchor, request, |call, caller, message| async move {
                let new = NewAnchor {
                    tenant: required("tenant", &message.tenant)?,
                    name: required("name", &message.name)?,
                    certificate_der: certificate("certificate_der", message.certificate_der)?,
                    revocation: crl_policy(message.crl_policy)?.unwrap_or(Revocation::IfPresent),
                    policies: message.acceptable_policies,
                    strict: message.strict,
                };
                let anchor = call.broker.add_anchor(&caller, call.request()?, new).await?;
                Ok(proto::AddAnchorResponse { anchor: Some(shown_anchor(anchor)) })
            })
            .await
    }

    async fn update_anchor(
        &self,
        request: Request<proto::UpdateAnchorRequest>,
    ) -> Result<Response<proto::UpdateAnchorResponse>, Status> {
        self.0
            .call(Rpc::UpdateAnchor, request, |call, caller, message| async move {
                let tenant = required("tenant", &message.tenant)?;
                let name = required("name", &message.name)?;
                let change = AnchorChange {
                    revocation: crl_policy(message.crl_policy)?,
                    issuers_der: message.issuers_der,
                    crls_der: message.crls_der,
                };
                let anchor =
                    call.broker.update_anchor(&caller, call.request()?, tenant, name, change).await?;
                Ok(proto::UpdateAnchorResponse { anchor: Some(shown_anchor(anchor)) })
            })
            .await
    }

    async fn list_anchors(
        &self,
        request: Request<proto::ListAnchorsRequest>,
    ) -> Result<Response<proto::ListAnchorsResponse>, Status> {
        self.0
            .call(Rpc::ListAnchors, request, |call, caller, message| async move {
                let anchors = call.broker.anchors(&caller, optional("tenant", &message.tenant)?).await?;
                Ok(proto::ListAnchorsResponse { anchors: anchors.into_iter().map(shown_anchor).collect() })
            })
            .await
    }

    async fn remove_anchor(
        &self,
        request: Request<proto::RemoveAnchorRequest>,
    ) -> Result<Response<proto::RemoveAnchorResponse>, Status> {
        self.0
            .call(Rpc::RemoveAnchor, request, |call, caller, message| async move {
                let tenant = required("tenant", &message.tenant)?;
                let name = required("name", &message.name)?;
                call.broker.remove_anchor(&caller, call.request()?, tenant, name).await?;
                Ok(proto::RemoveAnchorResponse {})
            })
            .await
    }

    async fn add_identity(
        &self,
        request: Request<proto::AddIdentityRequest>,
    ) -> Result<Response<proto::AddIdentityResponse>, Status> {
        self.0
            .call(Rpc::AddIdentity, request, |call, caller, message| async move {
                let identity = new_identity(message)?;
                let identity = call.broker.add_identity(&caller, call.request()?, identity).await?;
                Ok(proto::AddIdentityResponse { identity: Some(shown_identity(identity)) })
            })
            .await
    }

    async fn list_identities(
        &self,
        request: Request<proto::ListIdentitiesRequest>,
    ) -> Result<Response<proto::ListIdentitiesResponse>, Status> {
        self.0
            .call(Rpc::ListIdentities, request, |call, caller, _| async move {
                let identities = call.broker.identities(&caller).await?;
                Ok(proto::ListIdentitiesResponse {
                    identities: identities.into_iter().map(shown_identity).collect(),
                })
            })
            .await
    }

    async fn remove_identity(
        &self,
        request: Request<proto::RemoveIdentityRequest>,
    ) -> Result<Response<proto::RemoveIdentityResponse>, Status> {
        self.0
            .call(Rpc::RemoveIdentity, request, |call, caller, message| async move {
                let name = required("name", &message.name)?;
                call.broker.remove_identity(&caller, call.request()?, name).await?;
                Ok(proto::RemoveIdentityResponse {})
            })
            .await
    }

    async fn add_profile(
        &self,
        request: Request<proto::AddProfileRequest>,
    ) -> Result<Response<proto::AddProfileResponse>, Status> {
        self.0
            .call(Rpc::AddProfile, request, |call, caller, message| async move {
                let profile = message
                    .profile
                    .ok_or_else(|| invalid("profile", "is missing: give its name and its file's text"))?;
                let name = required("profile.name", &profile.name)?;
                if profile.toml.is_empty() || profile.toml.len() > PROFILE_MAX {
                    return Err(invalid("profile.toml", "is empty or longer than 64 KiB"));
                }
                call.broker.add_profile(&caller, call.request()?, name, profile.toml.clone()).await?;
                Ok(proto::AddProfileResponse { profile: Some(profile) })
            })
            .await
    }

    async fn list_profiles(
        &self,
        request: Request<proto::ListProfilesRequest>,
    ) -> Result<Response<proto::ListProfilesResponse>, Status> {
        self.0
            .call(Rpc::ListProfiles, request, |call, caller, _| async move {
                let profiles = call.broker.profiles(&caller).await?;
                Ok(proto::ListProfilesResponse {
                    profiles: profiles
                        .into_iter()
                        .map(|(name, toml)| proto::Profile { name: name.into(), toml })
                        .collect(),
                })
            })
            .await
    }

    async fn remove_profile(
        &self,
        request: Request<proto::RemoveProfileRequest>,
    ) -> Result<Response<proto::RemoveProfileResponse>, Status> {
        self.0
            .call(Rpc::RemoveProfile, request, |call, caller, message| async move {
                let name = required("name", &message.name)?;
                call.broker.remove_profile(&caller, call.request()?, name).await?;
                Ok(proto::RemoveProfileResponse {})
            })
            .await
    }

    async fn list_cas(
        &self,
        request: Request<proto::ListCasRequest>,
    ) -> Result<Response<proto::ListCasResponse>, Status> {
        self.0
            .call(Rpc::ListCas, request, |call, caller, message| async move {
                let cas = call.broker.cas(&caller, optional("tenant", &message.tenant)?).await?;
                Ok(proto::ListCasResponse { cas: cas.into_iter().map(shown_ca).collect() })
            })
            .await
    }

    async fn issue_ca(
        &self,
        request: Request<proto::IssueCaRequest>,
    ) -> Result<Response<proto::IssueCaResponse>, Status> {
        self.0
            .call(Rpc::IssueCa, request, |call, caller, message| async move {
                let tenant = required("tenant", &message.tenant)?;
                let name = required("name", &message.name)?;
                let certifier = match (message.root, optional("under", &message.under)?) {
                    (true, Some(_)) => return Err(invalid("under", "is given; a root certifies itself")),
                    (true, None) if !message.new => {
                        return Err(invalid(
                            "root",
                            "is given; a root has no next generation: add another one",
                        ));
                    }
                    (true, None) => Certifier::Itself,
                    (false, Some(root)) => Certifier::Root(root),
                    (false, None) => Certifier::Before,
                };
                let request = call.request()?;
                let ca = call.broker.issue_ca(&caller, request, tenant, name, message.new, certifier).await?;
                Ok(proto::IssueCaResponse { ca: Some(shown_ca(ca)) })
            })
            .await
    }

    async fn request_ca(
        &self,
        request: Request<proto::RequestCaRequest>,
    ) -> Result<Response<proto::RequestCaResponse>, Status> {
        self.0
            .call(Rpc::RequestCa, request, |call, caller, message| async move {
                let tenant = required("tenant", &message.tenant)?;
                let name = required("name", &message.name)?;
                let request = call.broker.request_ca(&caller, call.request()?, tenant, name).await?;
                Ok(proto::RequestCaResponse { request_der: request.der, generation: request.generation })
            })
            .await
    }

    async fn import_ca(
        &self,
        request: Request<proto::ImportCaRequest>,
    ) -> Result<Response<proto::ImportCaResponse>, Status> {
        self.0
            .call(Rpc::ImportCa, request, |call, caller, message| async move {
                let tenant = required("tenant", &message.tenant)?;
                let name = required("name", &message.name)?;
                let der = certificate("certificate_der", message.certificate_der)?;
                let chain = message.chain_der.into_iter();
                let chain = chain.map(|der| certificate("chain_der", der)).collect::<Result<Vec<_>, _>>()?;
                let import = ImportCa { certificate_der: der, chain_der: chain, force: message.force };
                let (ca, warnings) =
                    call.broker.import_ca(&caller, call.request()?, tenant, name, import).await?;
                Ok(proto::ImportCaResponse { ca: Some(shown_ca(ca)), warnings })
            })
            .await
    }

    async fn get_hsm_status(
        &self,
        request: Request<proto::GetHsmStatusRequest>,
    ) -> Result<Response<proto::GetHsmStatusResponse>, Status> {
        self.0
            .call(Rpc::GetHsmStatus, request, |call, caller, _| async move {
                let (status, tenants) = call.broker.hsm_status(&caller).await?;
                let count = |workers: usize| u32::try_from(workers).unwrap_or(u32::MAX);
                Ok(proto::GetHsmStatusResponse {
                    tenant_tokens: tenants
                        .into_iter()
                        .map(|(tenant, status)| proto::TenantToken {
                            tenant: tenant.to_string(),
                            available: status.available,
                            problem: status.problem,
                            token_serial: status.token_serial,
                            module: status.module,
                            suites: status.suites.iter().map(ToString::to_string).collect(),
                            interactive_workers: count(status.workers.0),
                            bulk_workers: count(status.workers.1),
                            restarts: status.restarts,
                        })
                        .collect(),
                    available: status.available,
                    problem: status.problem,
                    token_serial: status.token_serial,
                    module: status.module,
                    suites: status.suites.iter().map(ToString::to_string).collect(),
                    oaep_hash: status.oaep_hash.map(|hash| hash.to_string()).unwrap_or_default(),
                    interactive_workers: count(status.workers.0),
                    bulk_workers: count(status.workers.1),
                    restarts: status.restarts,
                })
            })
            .await
    }
}

/// An identity to be registered: MANO belongs to a tenant, an operator to none, and only a VNFM is granted VNF
/// instances.
pub(super) fn new_identity(message: proto::AddIdentityRequest) -> Result<NewIdentity, BrokerError> {
    let identity = message.identity.ok_or_else(|| invalid("identity", "is missing"))?;
    let role = role(identity.role)?;
    let tenant = optional("identity.tenant", &identity.tenant)?;
    match role {
        Role::Nfvo | Role::Vnfm if tenant.is_none() => {
            return Err(invalid("identity.tenant", format!("is empty; a {role} belongs to a tenant")));
        }
        Role::Operator if tenant.is_some() => {
            return Err(invalid("identity.tenant", "is given; an operator belongs to no tenant"));
        }
        _ => {}
    }
    let grants = identity.granted_vnf_instance_ids;
    if !role.is_granted_vnfs() && !grants.is_empty() {
        return Err(invalid("identity.granted_vnf_instance_ids", format!("is given; a {role} has none")));
    }
    if grants.len() > GRANTS_MAX {
        return Err(invalid("identity.granted_vnf_instance_ids", format!("has more than {GRANTS_MAX}")));
    }
    let granted_vnfs = grants
        .iter()
        .enumerate()
        .map(|(i, id)| required(&format!("identity.granted_vnf_instance_ids[{i}]"), id))
        .collect::<Result<Vec<VnfInstanceId>, _>>()?;
    let request_der = message.certificate_request_der;
    let certificate = if request_der.is_empty() {
        IdentityCertificate::Given(certificate("identity.certificate_der", identity.certificate_der)?)
    } else if !identity.certificate_der.is_empty() {
        return Err(invalid("certificate_request_der", "is given beside identity.certificate_der: give one"));
    } else if request_der.len() > CERTIFICATE_REQUEST_MAX {
        return Err(invalid("certificate_request_der", "is longer than 16 KiB"));
    } else {
        let validity = message.validity.map(Duration::try_from).transpose();
        let validity = validity.map_err(|_| invalid("validity", "is negative"))?;
        IdentityCertificate::Requested { request_der, validity }
    };
    let name = required("identity.name", &identity.name)?;
    Ok(NewIdentity { name, role, tenant, granted_vnfs, certificate })
}

fn role(role: i32) -> Result<Role, BrokerError> {
    match proto::Role::try_from(role) {
        Ok(proto::Role::Operator) => Ok(Role::Operator),
        Ok(proto::Role::Nfvo) => Ok(Role::Nfvo),
        Ok(proto::Role::Vnfm) => Ok(Role::Vnfm),
        Ok(proto::Role::Auditor) => Ok(Role::Auditor),
        Ok(proto::Role::SecurityOperator) => Ok(Role::SecurityOperator),
        Ok(proto::Role::RegistrationAuthority) => Ok(Role::RegistrationAuthority),
        Ok(proto::Role::Unspecified) | Err(_) => Err(invalid(
            "identity.role",
            "is not one of operator, NFVO, VNFM, auditor, security operator, registration authority",
        )),
    }
}

fn shown_ca(ca: Ca) -> proto::Ca {
    proto::Ca {
        issuer_id: ca.id.to_string(),
        tenant: ca.tenant.map(String::from).unwrap_or_default(),
        name: ca.name.into(),
        generation: ca.generation,
        issuing: ca.issuing,
        certificate_der: ca.certificate_der,
        chain_der: ca.chain_der,
        not_after: to_timestamp(ca.not_after),
    }
}

fn shown_tenant(status: TenantStatus) -> proto::Tenant {
    let quota = |quota: Quota| proto::Quota {
        name: quota.as_str().to_owned(),
        limit: status.quotas.of(quota),
        used: status.used.of(quota),
    };
    proto::Tenant {
        quotas: Quota::ALL.map(quota).into(),
        tenant: status.tenant.id.into(),
        created_at: to_timestamp(status.tenant.created_at),
    }
}

/// None: not said.
fn crl_policy(number: i32) -> Result<Option<Revocation>, BrokerError> {
    match proto::CrlPolicy::try_from(number) {
        Ok(proto::CrlPolicy::Unspecified) => Ok(None),
        Ok(proto::CrlPolicy::Off) => Ok(Some(Revocation::Off)),
        Ok(proto::CrlPolicy::IfPresent) => Ok(Some(Revocation::IfPresent)),
        Ok(proto::CrlPolicy::Require) => Ok(Some(Revocation::Require)),
        Err(_) => Err(invalid("crl_policy", "is not one of off, if present, require")),
    }
}

fn shown_anchor(AnchorWithCrls { anchor, crls }: AnchorWithCrls) -> proto::Anchor {
    let policy = match anchor.revocation {
        Revocation::Off => proto::CrlPolicy::Off,
        Revocation::IfPresent => proto::CrlPolicy::IfPresent,
        Revocation::Require => proto::CrlPolicy::Require,
    };
    proto::Anchor {
        tenant: anchor.tenant.into(),
        name: anchor.name.into(),
        certificate_der: anchor.certificate_der,
        created_at: to_timestamp(anchor.created_at),
        crl_policy: policy.into(),
        acceptable_policies: anchor.policies,
        crls: crls
            .iter()
            .map(|crl| proto::AnchorCrl {
                sha256: crl.fingerprint().0.to_vec(),
                issuer: crl.issuer().to_owned(),
                this_update: to_timestamp(crl.this_update()),
                next_update: crl.next_update().and_then(to_timestamp),
                entries: crl.entries() as u64,
            })
            .collect(),
        strict: anchor.strict,
        issuers_der: anchor.issuers_der,
    }
}

fn shown_identity(identity: Identity) -> proto::Identity {
    let role = match identity.role {
        Role::Operator => proto::Role::Operator,
        Role::Nfvo => proto::Role::Nfvo,
        Role::Vnfm => proto::Role::Vnfm,
        Role::Auditor => proto::Role::Auditor,
        Role::SecurityOperator => proto::Role::SecurityOperator,
        Role::RegistrationAuthority => proto::Role::RegistrationAuthority,
        // A VNFCI is known by a delivered certificate and never registered.
        Role::Vnfci => proto::Role::Unspecified,
    };
    proto::Identity {
        name: identity.name.into(),
        role: role.into(),
        tenant: identity.tenant.map(String::from).unwrap_or_default(),
        granted_vnf_instance_ids: identity.granted_vnfs.into_iter().map(String::from).collect(),
        certificate_der: identity.certificate_der,
        created_at: to_timestamp(identity.created_at),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(identity: proto::Identity) -> String {
        let message = proto::AddIdentityRequest { identity: Some(identity), ..Default::default() };
        new_identity(message).unwrap_err().to_string()
    }

    #[test]
    fn mano_belongs_to_a_tenant_and_an_operator_to_none() {
        let identity = |role: proto::Role, tenant: &str| proto::Identity {
            name: "x".into(),
            role: role.into(),
            tenant: tenant.into(),
            ..Default::default()
        };
        assert_eq!(
            problem(identity(proto::Role::Vnfm, "")),
            "identity.tenant: is empty; a vnfm belongs to a tenant"
        );
        assert!(problem(identity(proto::Role::Operator, "default")).starts_with("identity.tenant"));
        assert!(problem(identity(proto::Role::Unspecified, "")).starts_with("identity.role"));
    }

    #[test]
    fn only_a_vnfm_is_granted_vnf_instances() {
        let identity = proto::Identity {
            name: "x".into(),
            role: proto::Role::Nfvo.into(),
            tenant: "default".into(),
            granted_vnf_instance_ids: vec!["amf".into()],
            ..Default::default()
        };
        assert_eq!(problem(identity), "identity.granted_vnf_instance_ids: is given; a nfvo has none");
    }
}
