//! `keybroker anchor`: CAs whose certificates are accepted as initial credentials.

use super::connection::{ConnectionArgs, request_id, time_text};
use super::failure::Failure;
use super::files;
use super::output::OutputArgs;
use crate::api::proto::admin_service_client::AdminServiceClient;
use crate::api::proto::{
    AddAnchorRequest, Anchor, AnchorCrl, CrlPolicy, ListAnchorsRequest, RemoveAnchorRequest,
    UpdateAnchorRequest,
};
use crate::ca::{CertificateFacts, crls_from_pem};
use crate::nfv::{AnchorName, Sha256Hash, TenantId};
use serde_json::{Value, json};
use std::path::PathBuf;

/// What to do with trust anchors.
#[derive(Debug, clap::Subcommand)]
pub(super) enum AnchorCommand {
    /// Add a CA certificate; it belongs to one tenant only
    Add {
        /// Its name in the tenant: 1 to 63 of a-z, 0-9 and '-'
        name: AnchorName,
        /// The CA certificate, PEM
        #[arg(long, value_name = "FILE")]
        certificate: PathBuf,
        /// What is demanded of CRLs where a certificate under it is shown
        #[arg(long, value_enum, default_value_t = Demanded::IfPresent)]
        crl_policy: Demanded,
        /// A CRL of the CA, or of one below it, PEM; may be repeated
        #[arg(long, value_name = "FILE")]
        crl: Vec<PathBuf>,
        /// The certificate of a CA or CRL issuer below it, PEM: its CRLs can be verified, and clients need not present it; may
        /// be repeated
        #[arg(long, value_name = "FILE")]
        ca: Vec<PathBuf>,
        /// A certificate policy (object identifier); a path must be valid for one of them; may be repeated
        #[arg(long, value_name = "OID")]
        policy: Vec<String>,
        /// Refuse certificates that are not as RFC 5280 section 4 demands of CAs
        #[arg(long)]
        strict: bool,
        /// The tenant
        #[arg(long, default_value = "default")]
        tenant: TenantId,
        #[command(flatten)]
        connection: ConnectionArgs,
    },
    /// List anchors, of one tenant or of all
    List {
        /// Only of this tenant
        #[arg(long)]
        tenant: Option<TenantId>,
        #[command(flatten)]
        connection: ConnectionArgs,
    },
    /// Show one anchor
    Show {
        /// Its name
        name: AnchorName,
        /// The tenant
        #[arg(long, default_value = "default")]
        tenant: TenantId,
        #[command(flatten)]
        connection: ConnectionArgs,
    },
    /// Add CRLs to an anchor, or change what is demanded of them
    Update {
        /// Its name
        name: AnchorName,
        /// What is demanded of CRLs from now on
        #[arg(long, value_enum)]
        crl_policy: Option<Demanded>,
        /// A CRL, PEM; it replaces that of the same issuer if its signature can be verified; may be repeated
        #[arg(long, value_name = "FILE")]
        crl: Vec<PathBuf>,
        /// The certificate of a CA or CRL issuer below it, PEM: its CRLs can be verified, and clients need not present it; may
        /// be repeated
        #[arg(long, value_name = "FILE")]
        ca: Vec<PathBuf>,
        /// The tenant
        #[arg(long, default_value = "default")]
        tenant: TenantId,
        #[command(flatten)]
        connection: ConnectionArgs,
    },
    /// Remove an anchor: open initial credentials under it become void
    Remove {
        /// Its name
        name: AnchorName,
        /// The tenant
        #[arg(long, default_value = "default")]
        tenant: TenantId,
        #[command(flatten)]
        connection: ConnectionArgs,
    },
}

/// What is demanded of CRLs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Demanded {
    /// No CRL is looked at
    Off,
    /// What a CRL withdraws is refused; a CA without a CRL is accepted
    IfPresent,
    /// Every certificate must be covered by a current CRL
    Require,
}

impl Demanded {
    fn number(self) -> i32 {
        match self {
            Self::Off => CrlPolicy::Off,
            Self::IfPresent => CrlPolicy::IfPresent,
            Self::Require => CrlPolicy::Require,
        }
        .into()
    }
}

/// Runs the command.
pub(super) async fn run(command: AnchorCommand, output: OutputArgs) -> Result<(), Failure> {
    match command {
        AnchorCommand::Add { name, certificate, crl_policy, crl, ca, policy, strict, tenant, connection } => {
            let (crls_der, issuers_der) = (crls(&crl)?, issuers(&ca)?);
            let certificates = files::read_certificates(&certificate)?;
            let [certificate_der] = certificates.as_slice() else {
                let problem = format!("{} has several certificates: give one CA", certificate.display());
                return Err(Failure::usage(problem));
            };
            let mut client = AdminServiceClient::new(connection.connect().await?.channel);
            let request = AddAnchorRequest {
                request_id: request_id(),
                tenant: tenant.to_string(),
                name: name.to_string(),
                certificate_der: certificate_der.clone(),
                crl_policy: crl_policy.number(),
                acceptable_policies: policy,
                strict,
            };
            let mut added = client.add_anchor(request).await?.into_inner().anchor.unwrap_or_default();
            if !crls_der.is_empty() || !issuers_der.is_empty() {
                let request = UpdateAnchorRequest {
                    request_id: request_id(),
                    tenant: tenant.to_string(),
                    name: name.to_string(),
                    crl_policy: CrlPolicy::Unspecified.into(),
                    crls_der,
                    issuers_der,
                };
                added = client.update_anchor(request).await?.into_inner().anchor.unwrap_or_default();
            }
            output.object(&object(&added));
        }
        AnchorCommand::List { tenant, connection } => {
            let anchors = anchors(&connection, tenant.as_ref()).await?;
            let columns = ["tenant", "name", "subject", "not_after", "created_at"];
            output.list(&columns, &anchors.iter().map(object).collect::<Vec<_>>());
        }
        AnchorCommand::Show { name, tenant, connection } => {
            let anchors = anchors(&connection, Some(&tenant)).await?;
            let found = anchors.iter().find(|anchor| anchor.name == name.as_str());
            let found =
                found.ok_or_else(|| Failure::failed(format!("anchor {tenant}/{name} does not exist")))?;
            output.object(&object(found));
        }
        AnchorCommand::Update { name, crl_policy, crl, ca, tenant, connection } => {
            if crl_policy.is_none() && crl.is_empty() && ca.is_empty() {
                return Err(Failure::usage("nothing to change: give --crl, --ca or --crl-policy".to_owned()));
            }
            let request = UpdateAnchorRequest {
                request_id: request_id(),
                tenant: tenant.to_string(),
                name: name.to_string(),
                crl_policy: crl_policy.map_or(CrlPolicy::Unspecified.into(), Demanded::number),
                crls_der: crls(&crl)?,
                issuers_der: issuers(&ca)?,
            };
            let mut client = AdminServiceClient::new(connection.connect().await?.channel);
            let updated = client.update_anchor(request).await?.into_inner().anchor.unwrap_or_default();
            output.object(&object(&updated));
        }
        AnchorCommand::Remove { name, tenant, connection } => {
            let mut client = AdminServiceClient::new(connection.connect().await?.channel);
            let request = RemoveAnchorRequest {
                request_id: request_id(),
                tenant: tenant.to_string(),
                name: name.to_string(),
            };
            client.remove_anchor(request).await?;
            output.object(&json!({ "tenant": tenant, "name": name, "removed": true }));
        }
    }
    Ok(())
}

/// Every CRL of PEM files, DER.
fn crls(paths: &[PathBuf]) -> Result<Vec<Vec<u8>>, Failure> {
    let mut crls = Vec::new();
    for path in paths {
        let pem = files::read(path)?;
        let found =
            crls_from_pem(&pem).map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
        crls.extend(found);
    }
    Ok(crls)
}

/// Every certificate of PEM files, DER.
fn issuers(paths: &[PathBuf]) -> Result<Vec<Vec<u8>>, Failure> {
    let read = paths.iter().map(|path| files::read_certificates(path)).collect::<Result<Vec<_>, _>>()?;
    Ok(read.into_iter().flatten().collect())
}

async fn anchors(connection: &ConnectionArgs, tenant: Option<&TenantId>) -> Result<Vec<Anchor>, Failure> {
    let mut client = AdminServiceClient::new(connection.connect().await?.channel);
    let tenant = tenant.map(TenantId::to_string).unwrap_or_default();
    Ok(client.list_anchors(ListAnchorsRequest { tenant }).await?.into_inner().anchors)
}

fn object(anchor: &Anchor) -> Value {
    let facts = CertificateFacts::parse(&anchor.certificate_der).ok();
    json!({
        "tenant": anchor.tenant,
        "name": anchor.name,
        "subject": facts.as_ref().map(|facts| facts.subject.clone()),
        "not_after": facts.as_ref().map(|facts| facts.not_after.to_string()),
        "certificate_sha256": Sha256Hash::of(&anchor.certificate_der),
        "crl_policy": match anchor.crl_policy() {
            CrlPolicy::Off => "off",
            CrlPolicy::Require => "require",
            CrlPolicy::IfPresent | CrlPolicy::Unspecified => "if-present",
        },
        "acceptable_policies": anchor.acceptable_policies,
        "strict": anchor.strict,
        "cas_below": anchor.issuers_der.iter().map(|der| Sha256Hash::of(der)).collect::<Vec<_>>(),
        "crls": anchor.crls.iter().map(crl_object).collect::<Vec<_>>(),
        "created_at": time_text(anchor.created_at),
    })
}

fn crl_object(crl: &AnchorCrl) -> Value {
    json!({
        "issuer": crl.issuer,
        "this_update": time_text(crl.this_update),
        "next_update": time_text(crl.next_update),
        "entries": crl.entries,
        "crl_sha256": hex::encode(&crl.sha256),
    })
}
