//! `keybroker ca`: the CA hierarchy. What the broker does is asked of it; what an offline root does is done here, with its
//! own configuration and token.

use super::assembly;
use super::connection::{ConnectionArgs, request_id, time_text};
use super::failure::Failure;
use super::files::{self, Readers};
use super::output::OutputArgs;
use crate::api::proto::admin_service_client::AdminServiceClient;
use crate::api::proto::{
    Ca, ImportCaRequest, ImportCaResponse, IssueCaRequest, ListCasRequest, RequestCaRequest,
};
use crate::broker::Broker;
use crate::ca::{CertificateFacts, pem};
use crate::clock::{Clock, HumaneDuration, SystemClock};
use crate::config::Config;
use crate::nfv::{CaName, Sha256Hash, TenantId};
use crate::telemetry;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What to do with CAs.
#[derive(Debug, clap::Subcommand)]
pub(super) enum CaCommand {
    /// List CAs, of one tenant or of all, with their roots
    List {
        /// Only of this tenant
        #[arg(long)]
        tenant: Option<TenantId>,
        #[command(flatten)]
        connection: ConnectionArgs,
    },
    /// Add a further CA to a tenant, e.g. for the inside of a VNF; the broker's root certifies it, or one of the tenant's
    Add {
        /// It is a root of the tenant: it certifies itself, and the CAs that are added or rolled over under it
        #[arg(long, conflicts_with = "under")]
        root: bool,
        /// The root of the tenant that certifies it
        #[arg(long, value_name = "NAME")]
        under: Option<CaName>,
        #[command(flatten)]
        of: OfTenant,
    },
    /// Give a CA a new key and certificate; the old one signs revocation lists until it expires
    Rollover {
        /// The root of the tenant that certifies it from now on, in place of the one before
        #[arg(long, value_name = "NAME")]
        under: Option<CaName>,
        #[command(flatten)]
        of: OfTenant,
    },
    /// Make the tenant's next CA key on the HSM, and a request for an external root
    Csr {
        /// Where the request goes, PEM
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        #[command(flatten)]
        of: OfTenant,
    },
    /// Take the certificate into use that an external root signed for `ca csr`
    Import {
        /// The CA certificate, PEM, with the certificates between it and its root
        #[arg(long, value_name = "FILE")]
        certificate: PathBuf,
        /// Take it although profiles that name it cannot use it, or only for a short time
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        of: OfTenant,
    },
    /// A ceremony: the root of this configuration signs a CA's request and keeps a signed transcript
    Sign(SignArgs),
    /// Sign the revocation list of the root of this configuration
    Crl {
        /// The configuration of the root
        #[arg(long, value_name = "FILE", default_value = "keybroker.toml")]
        config: PathBuf,
        /// Where the list goes, DER
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
}

/// Which CA.
#[derive(Debug, clap::Args)]
pub(super) struct OfTenant {
    /// Its name in the tenant: 1 to 63 of a-z, 0-9 and '-'; a tenant's first is "main"
    name: CaName,
    /// The tenant
    #[arg(long, default_value = "default")]
    tenant: TenantId,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// `ca sign`.
#[derive(Debug, clap::Args)]
pub(super) struct SignArgs {
    /// The configuration of the root
    #[arg(long, value_name = "FILE", default_value = "keybroker.toml")]
    config: PathBuf,
    /// The request, PEM
    #[arg(long, value_name = "FILE")]
    csr: PathBuf,
    /// Where the certificate goes, PEM
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Where the transcript goes, JSON; its signature goes beside it, FILE.sig
    #[arg(long, value_name = "FILE")]
    transcript: PathBuf,
    /// Who signs
    #[arg(long, value_name = "NAME", value_parser = person)]
    operator: String,
    /// Who watches; may be repeated
    #[arg(long = "witness", value_name = "NAME", value_parser = person)]
    witnesses: Vec<String>,
    /// How long the certificate lasts, at most as long as the root
    #[arg(long, value_name = "DURATION", default_value = "1825d")]
    validity: HumaneDuration,
    /// CAs that may be below it
    #[arg(long, value_name = "N", default_value_t = 0)]
    path_length: u8,
}

/// Runs the command.
pub(super) async fn run(command: CaCommand, output: OutputArgs) -> Result<(), Failure> {
    match command {
        CaCommand::List { tenant, connection } => {
            let mut client = AdminServiceClient::new(connection.connect().await?.channel);
            let tenant = tenant.map(String::from).unwrap_or_default();
            let cas = client.list_cas(ListCasRequest { tenant }).await?.into_inner().cas;
            let columns = ["tenant", "name", "generation", "issuing", "subject", "root", "not_after"];
            output.list(&columns, &cas.iter().map(object).collect::<Vec<_>>());
        }
        CaCommand::Add { root, under, of } => output.object(&issue(of, true, root, under).await?),
        CaCommand::Rollover { under, of } => output.object(&issue(of, false, false, under).await?),
        CaCommand::Csr { out, of } => {
            let mut client = AdminServiceClient::new(of.connection.connect().await?.channel);
            let request = RequestCaRequest {
                request_id: request_id(),
                tenant: of.tenant.to_string(),
                name: of.name.to_string(),
            };
            let made = client.request_ca(request).await?.into_inner();
            let text = pem("CERTIFICATE REQUEST", &made.request_der);
            files::create_new(&out, text.as_bytes(), Readers::Everyone)?;
            output.object(&json!({
                "tenant": of.tenant,
                "name": of.name,
                "generation": made.generation,
                "request": out,
                "request_sha256": Sha256Hash::of(&made.request_der),
            }));
        }
        CaCommand::Import { certificate, force, of } => {
            let mut certificates = files::read_certificates(&certificate)?.into_iter();
            let certificate_der = certificates.next().unwrap_or_default();
            let mut client = AdminServiceClient::new(of.connection.connect().await?.channel);
            let request = ImportCaRequest {
                request_id: request_id(),
                tenant: of.tenant.to_string(),
                name: of.name.to_string(),
                certificate_der,
                chain_der: certificates.collect(),
                force,
            };
            let ImportCaResponse { ca, warnings } = client.import_ca(request).await?.into_inner();
            for warning in &warnings {
                eprintln!("warning: {warning}");
            }
            let mut imported = object(&ca.unwrap_or_default());
            imported["warnings"] = json!(warnings);
            output.object(&imported);
        }
        CaCommand::Sign(args) => sign(args, output).await?,
        CaCommand::Crl { config, out } => {
            let broker = offline(&config).await?.1;
            let crl = broker.sign_root_crl().await?;
            files::replace(&out, &crl.der, Readers::Everyone)?;
            output.object(&json!({
                "crl": out,
                "number": crl.number,
                "this_update": crl.this_update.to_string(),
                "crl_sha256": Sha256Hash::of(&crl.der),
            }));
            broker.close().await;
        }
    }
    Ok(())
}

async fn issue(of: OfTenant, new: bool, root: bool, under: Option<CaName>) -> Result<Value, Failure> {
    let mut client = AdminServiceClient::new(of.connection.connect().await?.channel);
    let request = IssueCaRequest {
        request_id: request_id(),
        tenant: of.tenant.to_string(),
        name: of.name.to_string(),
        new,
        root,
        under: under.map(String::from).unwrap_or_default(),
    };
    Ok(object(&client.issue_ca(request).await?.into_inner().ca.unwrap_or_default()))
}

/// The broker of a configuration, not serving: for a root that is offline.
async fn offline(file: &Path) -> Result<(Config, Arc<Broker>), Failure> {
    let config = Config::load(file)?;
    telemetry::init_logging(&config.log).map_err(Failure::usage)?;
    let broker = assembly::open(&config).await?;
    Ok((config, broker))
}

/// 1. Refuse to overwrite what a ceremony before left, and files that cannot be written; read what is to be signed.
/// 2. The root signs; its own audit log has the event.
/// 3. The transcript says who, when, and the hash of everything that went in and came out; the audit key signs its bytes.
/// 4. The certificate is written last: nobody ever has it without its transcript.
async fn sign(args: SignArgs, output: OutputArgs) -> Result<(), Failure> {
    // 1.
    let signature_file = beside(&args.transcript, ".sig");
    let mut places = Vec::new();
    for file in [&args.out, &args.transcript, &signature_file] {
        let place = files::new_place(file)?;
        if places.contains(&place) {
            let problem = "certificate, transcript and its signature (FILE.sig) are three files";
            return Err(Failure::usage(format!("{} is named twice: {problem}", file.display())));
        }
        places.push(place);
    }
    let begun = SystemClock.now();
    let csr_text = files::read(&args.csr)?;
    let csr_der = files::certificate_request(&args.csr, &csr_text)?;
    let (config, broker) = offline(&args.config).await?;
    let config_text = files::read(&args.config)?;
    // 2.
    let signed = broker.sign_ca_request(&csr_der, args.path_length, args.validity.0, &args.operator).await?;
    let certificate_text = pem("CERTIFICATE", &signed.certificate_der);
    // 3.
    let root = CertificateFacts::parse(&signed.root_der).map_err(Failure::failed)?;
    let status = broker.hsm().status();
    let transcript = json!({
        "format": "keybroker-ceremony-v1",
        "operator": args.operator,
        "witnesses": args.witnesses,
        "begun_at": begun.to_string(),
        "ended_at": SystemClock.now().to_string(),
        "program": format!("keybroker {}", env!("CARGO_PKG_VERSION")),
        "token": { "label": config.hsm.token, "serial": status.token_serial, "module": status.module },
        "root": {
            "subject": root.subject,
            "certificate_sha256": root.fingerprint,
            "public_key_sha256": root.public_key,
        },
        "inputs": [
            file(&args.config, &config_text),
            file(&args.csr, &csr_text),
        ],
        "request": {
            "sha256": Sha256Hash::of(&csr_der),
            "subject": signed.subject,
            "public_key_sha256": signed.public_key,
            "signature_verified": true,
        },
        "certificate": {
            "sha256": Sha256Hash::of(&signed.certificate_der),
            "serial": signed.serial,
            "path_length": args.path_length,
            "not_before": signed.not_before.to_string(),
            "not_after": signed.not_after.to_string(),
        },
        "outputs": [file(&args.out, certificate_text.as_bytes())],
    });
    let text = format!("{transcript:#}\n");
    let signature = broker.sign_transcript(text.as_bytes().to_vec()).await?;
    files::create_new(&args.transcript, text.as_bytes(), Readers::Everyone)?;
    files::create_new(&signature_file, &signature.signature, Readers::Everyone)?;
    // 4.
    files::create_new(&args.out, certificate_text.as_bytes(), Readers::Everyone)?;
    output.object(&json!({
        "certificate": args.out,
        "subject": signed.subject,
        "serial": signed.serial,
        "not_after": signed.not_after.to_string(),
        "certificate_sha256": Sha256Hash::of(&signed.certificate_der),
        "transcript": args.transcript,
        "transcript_sha256": Sha256Hash::of(text.as_bytes()),
        "signature": signature_file,
        "signature_key_id": signature.key_id,
    }));
    broker.close().await;
    Ok(())
}

fn file(path: &Path, content: &[u8]) -> Value {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
    json!({ "file": name, "sha256": Sha256Hash::of(content) })
}

/// Who takes part in a ceremony.
fn person(name: &str) -> Result<String, &'static str> {
    if name.trim().is_empty() { Err("a name is needed") } else { Ok(name.to_owned()) }
}

fn beside(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn object(ca: &Ca) -> Value {
    let subject = |der: &[u8]| CertificateFacts::parse(der).ok().map(|facts| facts.subject);
    json!({
        "issuer_id": ca.issuer_id,
        "tenant": ca.tenant,
        "name": ca.name,
        "generation": ca.generation,
        "issuing": ca.issuing,
        "subject": subject(&ca.certificate_der),
        "root": ca.chain_der.last().and_then(|root| subject(root)),
        "certificate_sha256": Sha256Hash::of(&ca.certificate_der),
        "not_after": time_text(ca.not_after),
    })
}
