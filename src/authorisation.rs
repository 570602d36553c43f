//! Who may call what: the table role x RPC x reach, default deny.
//!
//! A check returns an [`Authorised`], which only this module can make and which every use case consumes.

use crate::audit::event::Actor;
use crate::credential::named;
use crate::nfv::{IdentityName, TenantId, VnfInstanceId, VnfciId};

named!(
    /// The role of a registered identity, or of a VNFCI by its delivered certificate.
    Role, "role" {
        /// Configures tenants, anchors, identities and profiles.
        Operator = "operator",
        /// NFV orchestrator of one tenant.
        Nfvo = "nfvo",
        /// VNF manager of the VNF instances that the operator granted to it.
        Vnfm = "vnfm",
        /// Reads the audit log.
        Auditor = "auditor",
        /// Revokes in bulk.
        SecurityOperator = "security-operator",
        /// Enrols, by EST, keys that it vouches for, with names of the VNF instances that the operator granted to it:
        /// another broker, whose VNFCIs are not known here.
        RegistrationAuthority = "registration-authority",
        /// A VNF component instance, for itself only.
        Vnfci = "vnfci",
    }
);

named!(
    /// Every RPC that needs a registered identity or a delivered certificate. `Claim`, and `Confirm` on the
    /// bootstrap listener, are authorised by the initial credential instead (`identity`).
    Rpc, "RPC" {
        /// `CredentialService.Confirm` over mutual TLS with a delivered certificate.
        Confirm = "Confirm",
        /// `CredentialService.Release`.
        Release = "Release",
        /// `CredentialService.Renew`.
        Renew = "Renew",
        /// `PoolService.CreatePool`.
        CreatePool = "CreatePool",
        /// `PoolService.GetPool`.
        GetPool = "GetPool",
        /// `PoolService.ListPools`.
        ListPools = "ListPools",
        /// `PoolService.UpdatePool`.
        UpdatePool = "UpdatePool",
        /// `PoolService.WatchPool`.
        WatchPool = "WatchPool",
        /// `PoolService.DeletePool`.
        DeletePool = "DeletePool",
        /// `LifecycleService.RegisterVnfcis`.
        RegisterVnfcis = "RegisterVnfcis",
        /// `LifecycleService.GetVnfci`.
        GetVnfci = "GetVnfci",
        /// `LifecycleService.ListVnfcis`.
        ListVnfcis = "ListVnfcis",
        /// `LifecycleService.TerminateVnfci`.
        TerminateVnfci = "TerminateVnfci",
        /// `LifecycleService.RearmVnfcis`.
        RearmVnfcis = "RearmVnfcis",
        /// `LifecycleService.RequestRenewal`.
        RequestRenewal = "RequestRenewal",
        /// `LifecycleService.ScaleIn`.
        ScaleIn = "ScaleIn",
        /// `LifecycleService.TerminateVnf`.
        TerminateVnf = "TerminateVnf",
        /// `LifecycleService.RevokeCertificate`.
        RevokeCertificate = "RevokeCertificate",
        /// `AuditService.ListEvents`.
        ListEvents = "ListEvents",
        /// `AuditService.TailEvents`.
        TailEvents = "TailEvents",
        /// `AuditService.GetCheckpoint`.
        GetCheckpoint = "GetCheckpoint",
        /// `AuditService.GetDestructionReceipt`.
        GetDestructionReceipt = "GetDestructionReceipt",
        /// EST `simpleenroll` on behalf of a VNFCI.
        EnrolVnfci = "EnrolVnfci",
        /// EST `simpleenroll` of a key that the caller vouches for.
        EnrolVouched = "EnrolVouched",
        /// EST `simplereenroll` of a registered client's own certificate.
        RenewIdentity = "RenewIdentity",
        /// `AdminService.AddTenant`.
        AddTenant = "AddTenant",
        /// `AdminService.ListTenants`.
        ListTenants = "ListTenants",
        /// `AdminService.RemoveTenant`.
        RemoveTenant = "RemoveTenant",
        /// `AdminService.AddAnchor`.
        AddAnchor = "AddAnchor",
        /// `AdminService.ListAnchors`.
        ListAnchors = "ListAnchors",
        /// `AdminService.UpdateAnchor`.
        UpdateAnchor = "UpdateAnchor",
        /// `AdminService.RemoveAnchor`.
        RemoveAnchor = "RemoveAnchor",
        /// `AdminService.AddIdentity`.
        AddIdentity = "AddIdentity",
        /// `AdminService.ListIdentities`.
        ListIdentities = "ListIdentities",
        /// `AdminService.RemoveIdentity`.
        RemoveIdentity = "RemoveIdentity",
        /// `AdminService.AddProfile`.
        AddProfile = "AddProfile",
        /// `AdminService.ListProfiles`.
        ListProfiles = "ListProfiles",
        /// `AdminService.RemoveProfile`.
        RemoveProfile = "RemoveProfile",
        /// `AdminService.ListCas`.
        ListCas = "ListCas",
        /// `AdminService.IssueCa`.
        IssueCa = "IssueCa",
        /// `AdminService.RequestCa`.
        RequestCa = "RequestCa",
        /// `AdminService.ImportCa`.
        ImportCa = "ImportCa",
        /// `AdminService.GetHsmStatus`.
        GetHsmStatus = "GetHsmStatus",
    }
);

impl Role {
    /// Whether the operator grants VNF instances to identities of this role.
    pub fn is_granted_vnfs(self) -> bool {
        matches!(self, Self::Vnfm | Self::RegistrationAuthority)
    }
}

/// How far a permission reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Every tenant.
    Everywhere,
    /// The tenant of the identity.
    OwnTenant,
    /// VNF instances that the operator granted to the identity, in its tenant.
    GrantedVnfs,
    /// The calling VNFCI itself.
    Itself,
}

/// The table. What is not listed is denied.
pub fn reach(role: Role, rpc: Rpc) -> Option<Reach> {
    use Reach::{Everywhere, GrantedVnfs, Itself, OwnTenant};
    match rpc {
        Rpc::Confirm | Rpc::Release | Rpc::Renew => match role {
            Role::Vnfci => Some(Itself),
            _ => None,
        },
        Rpc::CreatePool
        | Rpc::UpdatePool
        | Rpc::DeletePool
        | Rpc::RegisterVnfcis
        | Rpc::RearmVnfcis
        | Rpc::RequestRenewal
        | Rpc::TerminateVnfci
        | Rpc::ScaleIn
        | Rpc::TerminateVnf => match role {
            Role::Nfvo => Some(OwnTenant),
            Role::Vnfm => Some(GrantedVnfs),
            _ => None,
        },
        Rpc::GetPool | Rpc::ListPools | Rpc::WatchPool | Rpc::GetVnfci | Rpc::ListVnfcis => match role {
            Role::Nfvo | Role::Auditor | Role::SecurityOperator => Some(OwnTenant),
            Role::Vnfm => Some(GrantedVnfs),
            _ => None,
        },
        Rpc::RevokeCertificate => match role {
            Role::SecurityOperator | Role::Nfvo => Some(OwnTenant),
            Role::Vnfm => Some(GrantedVnfs),
            _ => None,
        },
        // ETSI GR NFV-SEC 005 8.1.2.2: the VNFM is the VNFCI's enrolment agent.
        Rpc::EnrolVnfci => match role {
            Role::Vnfm => Some(GrantedVnfs),
            _ => None,
        },
        // SEC 005 8.1.2.3: the enrolment server's client is the HSM's side, before there are VNFCIs.
        Rpc::EnrolVouched => match role {
            Role::RegistrationAuthority => Some(GrantedVnfs),
            _ => None,
        },
        // Whoever comes to this server anyway; the others have their certificates from `init` or of another CA.
        Rpc::RenewIdentity => match role {
            Role::RegistrationAuthority => Some(OwnTenant),
            _ => None,
        },
        Rpc::ListEvents | Rpc::TailEvents | Rpc::GetDestructionReceipt => match role {
            Role::Auditor | Role::SecurityOperator => Some(OwnTenant),
            _ => None,
        },
        // The head of the log says nothing of a tenant.
        Rpc::GetCheckpoint => match role {
            Role::Auditor | Role::SecurityOperator | Role::Operator => Some(Everywhere),
            _ => None,
        },
        Rpc::AddTenant
        | Rpc::ListTenants
        | Rpc::RemoveTenant
        | Rpc::AddAnchor
        | Rpc::ListAnchors
        | Rpc::UpdateAnchor
        | Rpc::RemoveAnchor
        | Rpc::AddIdentity
        | Rpc::ListIdentities
        | Rpc::RemoveIdentity
        | Rpc::AddProfile
        | Rpc::ListProfiles
        | Rpc::RemoveProfile
        | Rpc::ListCas
        | Rpc::IssueCa
        | Rpc::RequestCa
        | Rpc::ImportCa
        | Rpc::GetHsmStatus => match role {
            Role::Operator => Some(Everywhere),
            _ => None,
        },
    }
}

/// Who calls, as established from the client certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The role.
    pub role: Role,
    /// The registered name, or the VNFCI's id as MANO wrote it.
    pub name: String,
    /// The tenant; none reaches every tenant (an operator, or an auditor of the whole broker).
    pub tenant: Option<TenantId>,
    /// For a VNFM or a registration authority: the VNF instances that the operator granted to it.
    pub granted_vnfs: Vec<VnfInstanceId>,
    /// For a VNFCI: itself.
    pub vnfci: Option<VnfciId>,
}

impl Caller {
    /// A registered identity.
    pub fn registered(
        role: Role,
        name: &IdentityName,
        tenant: Option<TenantId>,
        granted_vnfs: Vec<VnfInstanceId>,
    ) -> Self {
        Self { role, name: name.to_string(), tenant, granted_vnfs, vnfci: None }
    }

    /// A VNFCI that presented a certificate which we delivered to it.
    pub fn vnfci(tenant: TenantId, vnfci: VnfciId) -> Self {
        Self {
            role: Role::Vnfci,
            name: vnfci.to_string(),
            tenant: Some(tenant),
            granted_vnfs: Vec::new(),
            vnfci: Some(vnfci),
        }
    }

    /// How the audit log names it.
    pub fn actor(&self) -> Actor {
        match &self.tenant {
            Some(tenant) => Actor(format!("{}:{}/{}", self.role, tenant, self.name)),
            None => Actor(format!("{}:{}", self.role, self.name)),
        }
    }
}

/// What a call is about. What is not given does not limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Target<'a> {
    /// The tenant whose things are touched.
    pub tenant: Option<&'a TenantId>,
    /// The VNF instance whose things are touched.
    pub vnf_instance: Option<&'a VnfInstanceId>,
    /// The VNFCI whose things are touched.
    pub vnfci: Option<&'a VnfciId>,
}

/// Proof that a caller may make one call on one target. Only [`authorise`] makes it.
#[derive(Debug, Clone)]
pub struct Authorised {
    caller: Caller,
    rpc: Rpc,
    reach: Reach,
}

impl Authorised {
    /// Who calls.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// What is called.
    pub fn rpc(&self) -> Rpc {
        self.rpc
    }

    /// How far it reaches: lists are cut down to it.
    pub fn reach(&self) -> Reach {
        self.reach
    }

    /// How the audit log names the caller.
    pub fn actor(&self) -> Actor {
        self.caller.actor()
    }
}

/// Why a call was refused; for the auditor, never for the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The role has no such permission anywhere.
    #[error("role {0} may not call {1}")]
    Role(Role, Rpc),
    /// The target lies in another tenant.
    #[error("{0} belongs to another tenant than {1}")]
    Tenant(String, TenantId),
    /// The VNF instance was not granted.
    #[error("{0} was not granted VNF instance {1}")]
    VnfInstance(String, VnfInstanceId),
    /// A VNFM must name the VNF instance, a VNFCI itself.
    #[error("{0} named no target that it owns")]
    NoTarget(String),
    /// A VNFCI acts for itself only.
    #[error("{0} acted for {1}")]
    Vnfci(String, VnfciId),
}

/// Checks one call against the table.
///
/// # Errors
/// [`Denied`], with the reason for the auditor.
pub fn authorise(caller: &Caller, rpc: Rpc, target: Target<'_>) -> Result<Authorised, Denied> {
    let reach = reach(caller.role, rpc).ok_or(Denied::Role(caller.role, rpc))?;
    if reach != Reach::Everywhere {
        // An auditor or a security operator without a tenant reaches every tenant's things; nobody else is without one.
        if let Some(own) = &caller.tenant {
            match target.tenant {
                Some(tenant) if tenant != own => {
                    return Err(Denied::Tenant(caller.name.clone(), tenant.clone()));
                }
                Some(_) => {}
                None => return Err(Denied::NoTarget(caller.name.clone())),
            }
        } else if reach != Reach::OwnTenant || !matches!(caller.role, Role::Auditor | Role::SecurityOperator)
        {
            return Err(Denied::NoTarget(caller.name.clone()));
        }
    }
    if reach == Reach::GrantedVnfs {
        match target.vnf_instance {
            Some(vnf) if caller.granted_vnfs.contains(vnf) => {}
            Some(vnf) => return Err(Denied::VnfInstance(caller.name.clone(), vnf.clone())),
            // A list is cut down to what was granted.
            None if matches!(rpc, Rpc::ListPools | Rpc::ListVnfcis) => {}
            None => return Err(Denied::NoTarget(caller.name.clone())),
        }
    }
    if reach == Reach::Itself {
        match target.vnfci {
            Some(vnfci) if Some(vnfci) == caller.vnfci.as_ref() => {}
            Some(vnfci) => return Err(Denied::Vnfci(caller.name.clone(), vnfci.clone())),
            None => return Err(Denied::NoTarget(caller.name.clone())),
        }
    }
    Ok(Authorised { caller: caller.clone(), rpc, reach })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The whole table once more, by hand: one line per RPC, one column per role in the order of [`Role::ALL`]
    /// (operator, nfvo, vnfm, auditor, security-operator, registration-authority, vnfci): E everywhere, T own tenant, G granted VNF instances,
    /// I itself, - denied.
    const TABLE: &str = "
        Confirm                - - - - - - I
        Release                - - - - - - I
        Renew                  - - - - - - I
        CreatePool             - T G - - - -
        UpdatePool             - T G - - - -
        WatchPool              - T G T T - -
        GetPool                - T G T T - -
        ListPools              - T G T T - -
        DeletePool             - T G - - - -
        RegisterVnfcis         - T G - - - -
        RearmVnfcis            - T G - - - -
        RequestRenewal         - T G - - - -
        GetVnfci               - T G T T - -
        ListVnfcis             - T G T T - -
        ScaleIn                - T G - - - -
        TerminateVnfci         - T G - - - -
        TerminateVnf           - T G - - - -
        RevokeCertificate      - T G - T - -
        ListEvents             - - - T T - -
        TailEvents             - - - T T - -
        GetCheckpoint          E - - E E - -
        GetDestructionReceipt  - - - T T - -
        EnrolVnfci             - - G - - - -
        EnrolVouched           - - - - - G -
        RenewIdentity          - - - - - T -
        AddTenant              E - - - - - -
        ListTenants            E - - - - - -
        RemoveTenant           E - - - - - -
        AddAnchor              E - - - - - -
        ListAnchors            E - - - - - -
        UpdateAnchor           E - - - - - -
        RemoveAnchor           E - - - - - -
        AddIdentity            E - - - - - -
        ListIdentities         E - - - - - -
        RemoveIdentity         E - - - - - -
        AddProfile             E - - - - - -
        ListProfiles           E - - - - - -
        RemoveProfile          E - - - - - -
        ListCas                E - - - - - -
        IssueCa                E - - - - - -
        RequestCa              E - - - - - -
        ImportCa               E - - - - - -
        GetHsmStatus           E - - - - - -
    ";

    fn tenant(name: &str) -> TenantId {
        name.parse().unwrap()
    }

    fn caller(role: Role, of: Option<&str>) -> Caller {
        let vnfci = (role == Role::Vnfci).then(|| "amf-1".parse().unwrap());
        let granted_vnfs = if role.is_granted_vnfs() { vec!["vnf-1".parse().unwrap()] } else { Vec::new() };
        Caller { role, name: "x".to_owned(), tenant: of.map(tenant), granted_vnfs, vnfci }
    }

    #[test]
    fn every_role_may_call_exactly_what_the_table_says() {
        let mut listed = 0;
        for line in TABLE.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let mut words = line.split_whitespace();
            let rpc: Rpc = words.next().unwrap().parse().unwrap();
            listed += 1;
            for (&role, letter) in Role::ALL.iter().zip(words.by_ref()) {
                let expected = match letter {
                    "E" => Some(Reach::Everywhere),
                    "T" => Some(Reach::OwnTenant),
                    "G" => Some(Reach::GrantedVnfs),
                    "I" => Some(Reach::Itself),
                    _ => None,
                };
                assert_eq!(reach(role, rpc), expected, "{role} {rpc}");
            }
            assert_eq!(words.next(), None, "{rpc} has a column too many");
        }
        assert_eq!(listed, Rpc::ALL.len(), "an RPC is missing in the table");
    }

    #[test]
    fn nobody_reaches_another_tenant_by_any_call() {
        let (own, foreign) = (tenant("blue"), tenant("red"));
        let (vnf, vnfci) = ("vnf-1".parse().unwrap(), "amf-1".parse().unwrap());
        for &role in Role::ALL {
            for &rpc in Rpc::ALL {
                if reach(role, rpc) == Some(Reach::Everywhere) {
                    continue;
                }
                let at =
                    |tenant| Target { tenant: Some(tenant), vnf_instance: Some(&vnf), vnfci: Some(&vnfci) };
                let caller = caller(role, Some("blue"));
                assert!(authorise(&caller, rpc, at(&foreign)).is_err(), "{role} reached red by {rpc}");
                assert_eq!(
                    authorise(&caller, rpc, at(&own)).is_ok(),
                    reach(role, rpc).is_some(),
                    "{role} {rpc}"
                );
                assert!(
                    authorise(&caller, rpc, Target::default()).is_err(),
                    "{role} named no tenant for {rpc}"
                );
            }
        }
    }

    #[test]
    fn a_vnfm_reaches_granted_vnf_instances_only() {
        let vnfm = caller(Role::Vnfm, Some("blue"));
        let (blue, granted, other) = (tenant("blue"), "vnf-1".parse().unwrap(), "vnf-2".parse().unwrap());
        for &rpc in Rpc::ALL.iter().filter(|&&rpc| reach(Role::Vnfm, rpc).is_some()) {
            let at = |vnf_instance| Target { tenant: Some(&blue), vnf_instance, vnfci: None };
            assert!(authorise(&vnfm, rpc, at(Some(&granted))).is_ok(), "{rpc}");
            assert!(authorise(&vnfm, rpc, at(Some(&other))).is_err(), "{rpc}");
            let list = matches!(rpc, Rpc::ListPools | Rpc::ListVnfcis);
            assert_eq!(authorise(&vnfm, rpc, at(None)).is_ok(), list, "{rpc} without a VNF instance");
        }
    }

    #[test]
    fn a_vnfci_reaches_itself_only() {
        let vnfci = caller(Role::Vnfci, Some("blue"));
        let (blue, itself, other) = (tenant("blue"), "amf-1".parse().unwrap(), "amf-2".parse().unwrap());
        for rpc in [Rpc::Confirm, Rpc::Release] {
            let at = |vnfci| Target { tenant: Some(&blue), vnf_instance: None, vnfci };
            assert!(authorise(&vnfci, rpc, at(Some(&itself))).is_ok());
            assert!(authorise(&vnfci, rpc, at(Some(&other))).is_err());
            assert!(authorise(&vnfci, rpc, at(None)).is_err());
        }
    }

    #[test]
    fn only_an_auditor_or_security_operator_may_belong_to_no_tenant_and_reach_all() {
        let red = tenant("red");
        for &role in Role::ALL {
            for &rpc in Rpc::ALL.iter().filter(|&&rpc| reach(role, rpc) == Some(Reach::OwnTenant)) {
                let target = Target { tenant: Some(&red), ..Target::default() };
                let whole_broker = matches!(role, Role::Auditor | Role::SecurityOperator);
                assert_eq!(authorise(&caller(role, None), rpc, target).is_ok(), whole_broker, "{role} {rpc}");
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_authorised_is_in_the_table(role in 0..Role::ALL.len(), rpc in 0..Rpc::ALL.len(), known in any::<bool>()) {
            let (role, rpc, blue) = (Role::ALL[role], Rpc::ALL[rpc], tenant("blue"));
            let target = Target { tenant: known.then_some(&blue), ..Target::default() };
            if let Ok(authorised) = authorise(&caller(role, Some("blue")), rpc, target) {
                prop_assert_eq!(Some(authorised.reach()), reach(role, rpc));
            }
        }
    }
}
