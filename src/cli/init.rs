//! `keybroker init`: what a broker needs before it can serve. Idempotent; what exists is never overwritten.

use super::assembly;
use super::connection::ClientProfile;
use super::failure::Failure;
use super::files::{self, Readers};
use super::output::OutputArgs;
use super::processes::Program;
use crate::authorisation::Role;
use crate::broker::initialise::default_tenant;
use crate::ca::{pem, profile};
use crate::config::Config;
use crate::hsm::softhsm::SoftHsmToken;
use crate::nfv::VnfInstanceId;
use crate::telemetry;
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::json;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Roles that get a client certificate, with the names that they are registered by.
pub(super) const CLIENT_ROLES: [Role; 5] =
    [Role::Operator, Role::Nfvo, Role::Vnfm, Role::Auditor, Role::SecurityOperator];

/// `init`.
#[derive(Debug, clap::Args)]
pub struct InitArgs {
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = "keybroker.toml")]
    config: PathBuf,
    /// A VNF instance that the VNFM's identity may manage; give it once for each
    #[arg(long = "grant", value_name = "VNF_INSTANCE")]
    grants: Vec<VnfInstanceId>,
    /// For trials: make a SoftHSM2 token with the label of [hsm] token in this directory first (softhsm2.conf, tokens/, a random
    /// PIN in pin), unless there is one
    #[arg(long, value_name = "DIR")]
    softhsm: Option<PathBuf>,
    /// The token was replaced by one with the same objects: the database belongs to this one from now on
    #[arg(long)]
    adopt_token: bool,
}

/// What `init` made or found, for the report.
#[derive(Debug, Default)]
pub struct Report {
    /// What was made now.
    pub created: Vec<String>,
    /// What was there already.
    pub kept: Vec<String>,
}

/// A key in software.
pub(super) struct ClientKey {
    /// Private key, PKCS#8, DER.
    pub(super) pkcs8_der: Zeroizing<Vec<u8>>,
    /// SubjectPublicKeyInfo, DER.
    pub(super) public_key_der: Vec<u8>,
}

/// Runs the command.
pub async fn command(args: InitArgs, output: OutputArgs) -> Result<(), Failure> {
    let config = Config::load(&args.config)?;
    telemetry::init_logging(&config.log).map_err(Failure::usage)?;
    assembly::refuse_lost_database(&config)?;
    let token = match &args.softhsm {
        Some(directory) if !directory.join("softhsm2.conf").exists() => {
            SoftHsmToken::create(directory, &config.hsm.token, &Program::of_this_process()?.0)?;
            Some(directory)
        }
        _ => None,
    };
    if args.adopt_token {
        let broker = assembly::open(&config).await?;
        broker.adopt_token().await?;
        broker.close().await;
    }
    let mut report = run(&config, &args.grants).await?;
    report.created.extend(token.map(|directory| directory.display().to_string()));
    output.object(&json!({
        "directory": config.directory,
        "created": report.created,
        "kept": report.kept,
    }));
    Ok(())
}

/// Makes the token's objects, the database, `root.pem`, `audit.pub`, the roles' client certificates and the profile.
/// `granted` are the VNF instances that the VNFM may manage.
///
/// # Errors
/// [`Failure`].
pub async fn run(config: &Config, granted: &[VnfInstanceId]) -> Result<Report, Failure> {
    let mut report = Report::default();
    install_profiles(config, &mut report)?;
    let broker = assembly::open(config).await?;
    broker.initialise(&format!("keybroker root, token {}", config.hsm.token)).await?;
    install_public(config, "root.pem", "CERTIFICATE", &broker.root_der()?, &mut report)?;
    install_public(config, "audit.pub", "PUBLIC KEY", &broker.audit_key_der().await?, &mut report)?;
    let tenant = default_tenant();
    for role in CLIENT_ROLES {
        if has_client(config, role.as_str()) {
            report.kept.push(format!("clients/{role}"));
            continue;
        }
        let directory = client_directory(config, role.as_str());
        files::private_directory(&directory)?;
        // The key first: an identity whose key was lost could not be used and not be made again.
        let key = client_key(&directory.join("key.pem"))?;
        let name = role.as_str().parse().map_err(Failure::failed)?;
        // The auditor reads and exports the whole log: a chain can only be verified whole.
        let tenant = (!matches!(role, Role::Operator | Role::Auditor)).then_some(&tenant);
        let granted = if role == Role::Vnfm { granted } else { &[] };
        match broker.issue_identity(&name, role, tenant, granted, &key).await? {
            Some(chain) => install_client(config, role.as_str(), &chain, &mut report)?,
            None => {
                return Err(Failure::failed(format!(
                    "identity {role} is registered with another key than clients/{role}/key.pem: restore that file, or \
                     have another operator remove the identity and run init again"
                )));
            }
        }
    }
    broker.close().await;
    Ok(report)
}

/// Installs `profiles/*.toml`, each unless there is one.
pub fn install_profiles(config: &Config, report: &mut Report) -> Result<(), Failure> {
    let directory = config.profiles_directory();
    std::fs::create_dir_all(&directory)
        .map_err(|error| Failure::failed(format!("{} cannot be made: {error}", directory.display())))?;
    for (name, text) in profile::INSTALLED {
        let file = directory.join(format!("{name}.toml"));
        install(&file, text.as_bytes(), Readers::Everyone, report)?;
    }
    Ok(())
}

/// Writes `root.pem` or another public file unless there is one with the same content; a different one is a failure:
/// it belongs to another token or database.
pub fn install_public(
    config: &Config,
    name: &str,
    label: &str,
    der: &[u8],
    report: &mut Report,
) -> Result<(), Failure> {
    let file = config.directory.join(name);
    let content = pem(label, der);
    if file.exists() && files::read(&file)? != content.as_bytes() {
        return Err(Failure::failed(format!(
            "{} is not of this token and database: the configuration names another token than before, the database that it was \
             made with was lost, or the file was copied",
            file.display()
        )));
    }
    install(&file, content.as_bytes(), Readers::Everyone, report)
}

/// Whether a role's client certificate is there already.
pub fn has_client(config: &Config, role: &str) -> bool {
    client_directory(config, role).join("cert.pem").exists()
}

/// A new P-256 key in software.
///
/// # Errors
/// [`Failure`] if the system's random generator fails.
pub(super) fn new_client_key() -> Result<ClientKey, Failure> {
    let failed = |_| Failure::failed("no key could be made: the system's random generator failed");
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map_err(failed)?;
    let pkcs8_der = Zeroizing::new(pair.to_pkcs8v1().map_err(failed)?.as_ref().to_vec());
    let public_key: PublicKeyX509Der<'_> = pair.public_key().as_der().map_err(failed)?;
    Ok(ClientKey { pkcs8_der, public_key_der: public_key.as_ref().to_vec() })
}

/// The public half (SubjectPublicKeyInfo, DER) of the P-256 key in `file`, made now if there is none. Clients are people's
/// tools and MANO functions, which keep their keys in software; so do the listeners that must be there while the HSM is
/// away.
///
/// # Errors
/// [`Failure`] with the path.
pub(super) fn client_key(file: &Path) -> Result<Vec<u8>, Failure> {
    if !file.exists() {
        let key = new_client_key()?;
        let text = Zeroizing::new(pem("PRIVATE KEY", &key.pkcs8_der));
        // Another broker that starts with the same directory may be first: its key is the one then.
        if files::create_if_none(file, text.as_bytes(), Readers::Owner)? {
            return Ok(key.public_key_der);
        }
    }
    let unusable = || Failure::failed(format!("{} has no P-256 key in PKCS#8", file.display()));
    let pkcs8_der = files::read_private_key(file)?;
    let pair =
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &pkcs8_der).map_err(|_| unusable())?;
    let public_key: PublicKeyX509Der<'_> = pair.public_key().as_der().map_err(|_| unusable())?;
    Ok(public_key.as_ref().to_vec())
}

/// Writes `clients/ROLE/{cert.pem,profile.toml}` beside the key; `chain_der` is leaf first, without the root. The
/// certificate comes last, so that an interrupted `init` is taken up again.
///
/// # Errors
/// [`Failure`] with the path.
pub fn install_client(
    config: &Config,
    role: &str,
    chain_der: &[Vec<u8>],
    report: &mut Report,
) -> Result<(), Failure> {
    let directory = client_directory(config, role);
    let profile = ClientProfile {
        server: management_url(config),
        cert: "cert.pem".into(),
        key: "key.pem".into(),
        trust_anchor: "../../root.pem".into(),
    };
    files::replace(&directory.join("profile.toml"), profile.to_toml().as_bytes(), Readers::Everyone)?;
    let chain: String = chain_der.iter().map(|der| pem("CERTIFICATE", der)).collect();
    let certificate = directory.join("cert.pem");
    files::replace(&certificate, chain.as_bytes(), Readers::Everyone)?;
    report.created.push(certificate.display().to_string());
    Ok(())
}

/// What clients connect to: the listener's address; where that stands for every address of the machine, the first of the
/// names that its certificate has.
fn management_url(config: &Config) -> String {
    let address = config.listen.management;
    match config.listen.server_names.0.first() {
        Some(name) if address.ip().is_unspecified() => match name.parse::<IpAddr>() {
            Ok(ip) => format!("https://{}", SocketAddr::new(ip, address.port())),
            Err(_) => format!("https://{name}:{}", address.port()),
        },
        _ => format!("https://{address}"),
    }
}

fn client_directory(config: &Config, role: &str) -> PathBuf {
    config.directory.join("clients").join(role)
}

fn install(file: &Path, content: &[u8], readers: Readers, report: &mut Report) -> Result<(), Failure> {
    let created = files::create_if_none(file, content, readers)?;
    let list = if created { &mut report.created } else { &mut report.kept };
    list.push(file.display().to_string());
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests panic")]

    use super::*;

    fn url(listen: &str) -> String {
        let text = format!(
            "[hsm]\nmodule = \"/m.so\"\ntoken = \"keybroker\"\npin_file = \"pin\"\n[store]\n[listen]\n{listen}\n"
        );
        management_url(&Config::parse(Path::new("/etc/keybroker/keybroker.toml"), &text).unwrap())
    }

    #[test]
    fn clients_of_a_broker_that_listens_everywhere_are_told_a_name_of_its_certificate() {
        assert_eq!(url("management = \"127.0.0.1:7445\""), "https://127.0.0.1:7445");
        assert_eq!(url("management = \"0.0.0.0:7445\""), "https://localhost:7445");
        let named = "management = \"[::]:7445\"\nserver_names = [\"broker.example\", \"localhost\"]";
        assert_eq!(url(named), "https://broker.example:7445");
        let numbered = "management = \"0.0.0.0:1\"\nserver_names = [\"2001:db8::1\"]";
        assert_eq!(url(numbered), "https://[2001:db8::1]:1");
    }
}
