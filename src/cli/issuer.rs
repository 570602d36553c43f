//! `keybroker issuer`: what a CA outside of the broker has to be told.

use super::assembly;
use super::failure::Failure;
use super::files::{self, Readers};
use super::output::{Format, OutputArgs, line};
use crate::ca::{self, issuers, pem};
use crate::config::{Config, StoreUrl};
use crate::hsm::{Lane, ObjectId, SignatureAlgorithm};
use crate::nfv::IssuerName;
use serde_json::json;
use std::path::PathBuf;

/// What to do with `[issuer.NAME]`.
#[derive(Debug, clap::Subcommand)]
pub(super) enum IssuerCommand {
    /// The request (PKCS#10, PEM) for our TLS client certificate; its key is made in the HSM if it is missing
    Request {
        /// The issuer, as configured
        name: IssuerName,
        /// Where to write it; printed otherwise, to a program as JSON
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// The configuration
        #[arg(long, value_name = "FILE", default_value = "keybroker.toml")]
        config: PathBuf,
    },
}

/// Runs the command.
pub(super) async fn run(command: IssuerCommand, output: OutputArgs) -> Result<(), Failure> {
    let IssuerCommand::Request { name, out, config } = command;
    let config = Config::load(&config)?;
    if !config.issuers.contains_key(&name) {
        return Err(Failure::usage(format!("[issuer.{name}] is not in the configuration")));
    }
    let (key, algorithm) = (ObjectId::EstClient(name.clone()), SignatureAlgorithm::EcdsaP256Sha256);
    let broker = match &config.store.url {
        // One host: there is nobody else to make it, and the broker that runs here has the database.
        StoreUrl::Sqlite(_) => None,
        StoreUrl::Postgres(_) => Some(assembly::open(&config).await?),
    };
    let hsm = match &broker {
        Some(broker) => broker.hsm().clone(),
        None => assembly::hsm(&config).await?,
    };
    let requested = async {
        let public_key_der = match (hsm.public_key(&key).await?, &broker) {
            (Some(there), _) => there,
            (None, Some(broker)) => broker.make_est_client_key(&name).await?,
            (None, None) => hsm.create_key_pair(&key, algorithm).await?,
        };
        let info = issuers::client_request(name.as_str(), &public_key_der).map_err(Failure::failed)?;
        let signatures = hsm.sign(Lane::Bulk, &key, algorithm, vec![info.clone()]).await?;
        let signature = signatures.first().ok_or_else(|| Failure::failed("no signature"))?;
        Ok::<_, Failure>(ca::assemble(&info, algorithm, signature))
    };
    let requested = requested.await;
    match broker {
        Some(broker) => broker.close().await,
        None => hsm.shutdown().await,
    }
    let text = pem("CERTIFICATE REQUEST", &requested?);
    if let Some(out) = out {
        files::replace(&out, text.as_bytes(), Readers::Everyone)?;
        output.object(&json!({ "issuer": name, "request": out }));
        return Ok(());
    }
    match output.format() {
        Format::Table => line(text.trim_end()),
        Format::Json => output.object(&json!({ "issuer": name, "request": text })),
    }
    Ok(())
}
