//! `keybroker vnfci revoke`: one certificate or thousands, by serial number, credential or VNFCI.

use super::super::connection::{ConnectionArgs, TenantArgs, request_id};
use super::super::failure::Failure;
use super::super::output::OutputArgs;
use crate::api::proto;
use crate::api::proto::certificate_selector::Certificates;
use crate::api::proto::lifecycle_service_client::LifecycleServiceClient;
use crate::api::proto::{CertificateSelector, IssuerAndSerial, RevokeCertificateRequest};
use crate::nfv::{CredentialId, IssuerId, VnfciId};
use serde_json::json;
use std::path::PathBuf;

/// The broker's bound of one call: more are one call each.
const BATCH: usize = 10_000;

/// `vnfci revoke`.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true)
    .args(["serials", "credentials", "vnfcis", "file"]))]
pub(in crate::cli) struct RevokeArgs {
    /// Serial numbers of certificates, hexadecimal
    #[arg(value_name = "SERIAL", requires = "issuer")]
    serials: Vec<String>,
    /// The CA certificate that signed them, as `vnfci show` has it
    #[arg(long, value_name = "ID")]
    issuer: Option<IssuerId>,
    /// Every certificate of a credential; may be repeated
    #[arg(long = "credential", value_name = "ID")]
    credentials: Vec<CredentialId>,
    /// Every certificate of a VNFCI; may be repeated
    #[arg(long = "vnfci", value_name = "ID")]
    vnfcis: Vec<VnfciId>,
    /// Many: one per line, `vnfci ID`, `credential ID` or `serial ISSUER SERIAL`
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Why
    #[arg(long)]
    reason: Reason,
    #[command(flatten)]
    tenant: TenantArgs,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Reasons of a revocation (RFC 5280 5.3.1).
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Reason {
    /// None that is to be told
    Unspecified,
    /// The private key is known to others
    KeyCompromise,
    /// The holder's name or role changed
    AffiliationChanged,
    /// Another certificate took its place
    Superseded,
    /// It is no longer needed
    CessationOfOperation,
    /// The key of the CA that issued it is known to others
    CaCompromise,
    /// What it lets its holder do was withdrawn
    PrivilegeWithdrawn,
}

/// Runs the command.
pub(super) async fn run(args: RevokeArgs, output: OutputArgs) -> Result<(), Failure> {
    let selectors = args.selectors()?;
    let mut client = LifecycleServiceClient::new(args.connection.connect().await?.channel);
    let (mut revoked, mut refused) = (0, 0);
    for batch in selectors.chunks(BATCH) {
        let request = RevokeCertificateRequest {
            request_id: request_id(),
            tenant: args.tenant.to_proto(),
            reason: args.reason.to_proto().into(),
            certificates: batch.to_vec(),
            ..Default::default()
        };
        let answer = client.revoke_certificate(request).await?.into_inner();
        revoked += answer.revoked;
        for (selector, result) in
            batch.iter().zip(answer.results).filter(|(_, result)| !result.error.is_empty())
        {
            refused += 1;
            eprintln!("{} {}", text(selector), result.error);
        }
    }
    output.object(&json!({
        "revoked": revoked,
        "newly_revoked": revoked > 0,
        "not_found": refused,
    }));
    if refused == 0 {
        Ok(())
    } else {
        Err(Failure::failed(format!("{refused} of {} were not found", selectors.len())))
    }
}

impl RevokeArgs {
    fn selectors(&self) -> Result<Vec<CertificateSelector>, Failure> {
        let mut selectors = Vec::new();
        if let Some(issuer) = self.issuer {
            selectors.extend(self.serials.iter().map(|serial| by_serial(issuer, serial)));
        }
        selectors
            .extend(self.credentials.iter().map(|id| selector(Certificates::CredentialId(id.to_string()))));
        selectors.extend(self.vnfcis.iter().map(|id| selector(Certificates::VnfciId(id.to_string()))));
        if let Some(file) = &self.file {
            let text = std::fs::read_to_string(file)
                .map_err(|error| Failure::failed(format!("{}: {error}", file.display())))?;
            for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
                let parsed = parse(line).ok_or_else(|| {
                    Failure::usage(format!(
                        "{}, line {}: {line:?} is not `vnfci ID`, `credential ID` or `serial ISSUER SERIAL`",
                        file.display(),
                        number + 1
                    ))
                })?;
                selectors.push(parsed);
            }
        }
        Ok(selectors)
    }
}

/// One line of a file.
fn parse(line: &str) -> Option<CertificateSelector> {
    match line.split_whitespace().collect::<Vec<_>>()[..] {
        ["vnfci", id] => Some(selector(Certificates::VnfciId(id.parse::<VnfciId>().ok()?.to_string()))),
        ["credential", id] => {
            Some(selector(Certificates::CredentialId(id.parse::<CredentialId>().ok()?.to_string())))
        }
        ["serial", issuer, serial] => Some(by_serial(issuer.parse().ok()?, serial)),
        _ => None,
    }
}

fn by_serial(issuer: IssuerId, serial: &str) -> CertificateSelector {
    let (issuer_id, serial) = (issuer.to_string(), serial.to_owned());
    selector(Certificates::IssuerAndSerial(IssuerAndSerial { issuer_id, serial }))
}

fn selector(certificates: Certificates) -> CertificateSelector {
    CertificateSelector { certificates: Some(certificates) }
}

fn text(selector: &CertificateSelector) -> String {
    match &selector.certificates {
        Some(Certificates::IssuerAndSerial(named)) => format!("serial {} {}", named.issuer_id, named.serial),
        Some(Certificates::CredentialId(id)) => format!("credential {id}"),
        Some(Certificates::VnfciId(id)) => format!("vnfci {id}"),
        None => String::new(),
    }
}

impl Reason {
    fn to_proto(self) -> proto::RevocationReason {
        match self {
            Self::Unspecified => proto::RevocationReason::Unspecified,
            Self::KeyCompromise => proto::RevocationReason::KeyCompromise,
            Self::AffiliationChanged => proto::RevocationReason::AffiliationChanged,
            Self::Superseded => proto::RevocationReason::Superseded,
            Self::CessationOfOperation => proto::RevocationReason::CessationOfOperation,
            Self::CaCompromise => proto::RevocationReason::CaCompromise,
            Self::PrivilegeWithdrawn => proto::RevocationReason::PrivilegeWithdrawn,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_a_list_names_a_vnfci_a_credential_or_a_certificate() {
        let id = uuid::Uuid::now_v7();
        for good in ["vnfci amf-1".to_owned(), format!(" credential  {id} "), format!("serial {id} 4711")] {
            let read = parse(&good).unwrap();
            assert_eq!(text(&read), good.split_whitespace().collect::<Vec<_>>().join(" "));
        }
        for bad in ["", "amf-1", "vnfci", "credential x", "serial x 1", "vnfci a b"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
