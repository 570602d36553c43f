//! `keybroker audit`: the log is read, exported, and verified without trusting the broker.

use super::connection::{ConnectionArgs, TenantArgs};
use super::failure::Failure;
use super::files;
use super::output::{Format, OutputArgs, line};
use crate::api::proto;
use crate::api::proto::audit_service_client::AuditServiceClient;
use crate::api::proto::{
    EventQuery, GetCheckpointRequest, GetDestructionReceiptRequest, ListEventsRequest, TailEventsRequest,
};
use crate::audit::event::EventKind;
use crate::audit::export::{ExportError, ExportWriter};
use crate::audit::history::prove;
use crate::audit::verify::verify;
use crate::audit::{AuditPublicKey, ChainedEntry, SignedHead, SignedReceipt, StoredEvent};
use crate::ca::CertificateFacts;
use crate::nfv::{CredentialId, Sha256Hash, VnfciId};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tonic::transport::Channel;

/// Events per call: the broker's bound.
const PAGE: u32 = 1_000;

/// What to do with the audit log.
#[derive(Debug, clap::Subcommand)]
pub(super) enum AuditCommand {
    /// List events
    List {
        #[command(flatten)]
        query: QueryArgs,
        /// From this index on
        #[arg(long, value_name = "INDEX", default_value_t = 0)]
        from: u64,
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 1_000)]
        limit: u64,
        #[command(flatten)]
        connection: ConnectionArgs,
    },
    /// Print events as they happen, until interrupted
    Tail {
        #[command(flatten)]
        query: QueryArgs,
        /// From this index on [default: from the next event on]
        #[arg(long, value_name = "INDEX")]
        from: Option<u64>,
        #[command(flatten)]
        connection: ConnectionArgs,
    },
    /// Copy the whole log with its latest signed head into a directory, for `verify`
    Export {
        /// Directory; nothing in it is overwritten
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        #[command(flatten)]
        connection: ConnectionArgs,
    },
    /// Verify an exported log with the log's public key: offline, nothing of the broker is trusted
    Verify {
        /// Directory that `export` wrote
        directory: PathBuf,
        /// The log's public key (audit.pub), PEM
        #[arg(long, value_name = "FILE")]
        public_key: PathBuf,
        /// A head kept from before (its head.json) that this log must extend (may be repeated)
        #[arg(long, value_name = "FILE")]
        earlier_head: Vec<PathBuf>,
    },
    /// Tell one key's story from an exported log, offline: generated in the HSM, sealed to one recipient, destroyed
    Prove {
        /// Directory that `export` wrote
        directory: PathBuf,
        /// The log's public key (audit.pub), PEM
        #[arg(long, value_name = "FILE")]
        public_key: PathBuf,
        /// The key's certificate, PEM
        #[arg(long, value_name = "FILE", required_unless_present = "public_key_sha256")]
        cert: Option<PathBuf>,
        /// SHA-256 of the key's SubjectPublicKeyInfo
        #[arg(long, value_name = "SHA256", conflicts_with = "cert")]
        public_key_sha256: Option<Sha256Hash>,
    },
    /// Get the signed destruction receipt of a key, or check one that was kept
    Receipt {
        /// The credential, as `vnfci show` names it
        #[arg(required_unless_present = "file", conflicts_with = "file")]
        credential: Option<CredentialId>,
        /// A receipt that was kept, JSON: checked offline
        #[arg(long, value_name = "FILE", requires = "public_key")]
        file: Option<PathBuf>,
        /// The log's public key (audit.pub): check the signature
        #[arg(long, value_name = "FILE")]
        public_key: Option<PathBuf>,
        #[command(flatten)]
        tenant: TenantArgs,
        #[command(flatten)]
        connection: ConnectionArgs,
    },
}

/// Which events.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct QueryArgs {
    #[command(flatten)]
    tenant: TenantArgs,
    /// Only of this VNFCI
    #[arg(long, value_name = "ID")]
    vnfci: Option<VnfciId>,
    /// Only of the key whose SubjectPublicKeyInfo has this SHA-256
    #[arg(long, value_name = "SHA256")]
    public_key_sha256: Option<Sha256Hash>,
    /// Only by this actor, e.g. vnfm:default/vnfm-1
    #[arg(long)]
    actor: Option<String>,
    /// Only of this kind, e.g. CLAIMED or REFUSED
    #[arg(long)]
    kind: Option<EventKind>,
    /// Only from this time on (RFC 3339)
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: Option<OffsetDateTime>,
    /// Only before this time (RFC 3339)
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    until: Option<OffsetDateTime>,
}

/// Runs the command.
pub(super) async fn run(command: AuditCommand, output: OutputArgs) -> Result<(), Failure> {
    match command {
        AuditCommand::List { query, from, limit, connection } => {
            let mut client = AuditServiceClient::new(connection.connect().await?.channel);
            let mut objects = Vec::new();
            let mut next = Some(from);
            while let Some(from_index) = next.filter(|_| (objects.len() as u64) < limit) {
                let remaining = limit - objects.len() as u64;
                let page_size = u32::try_from(remaining).unwrap_or(PAGE).min(PAGE);
                let request = ListEventsRequest { query: Some(query.to_proto()), from_index, page_size };
                let page = client.list_events(request).await?.into_inner();
                objects.extend(page.events.iter().map(object));
                next = page.next_index;
            }
            let columns = ["index", "time", "kind", "actor", "tenant", "vnfci"];
            output.list(&columns, &objects);
        }
        AuditCommand::Tail { query, from, connection } => {
            let mut client = AuditServiceClient::new(connection.connect().await?.channel);
            let request = TailEventsRequest { query: Some(query.to_proto()), from_index: from };
            let mut events = client.tail_events(request).await?.into_inner();
            while let Some(event) = events.message().await?.and_then(|answer| answer.event) {
                match output.format() {
                    Format::Json => line(&object(&event).to_string()),
                    Format::Table => line(&tail_line(&event)),
                }
            }
        }
        AuditCommand::Export { out, connection } => {
            let head = export(connection.connect().await?.channel, &out).await?;
            output.object(&json!({
                "directory": out,
                "size": head.head.size,
                "hash": head.head.hash,
                "origin": head.head.origin,
            }));
        }
        AuditCommand::Verify { directory, public_key, earlier_head } => {
            let key = read_public_key(&public_key)?;
            let earlier = earlier_head.iter().map(|file| read_head(file)).collect::<Result<Vec<_>, _>>()?;
            let report = verify(&directory, &key, &earlier).map_err(Failure::usage)?;
            let value = serde_json::to_value(&report).map_err(Failure::failed)?;
            let mut object = json!({ "verified": report.is_good() });
            if let (Value::Object(object), Value::Object(report)) = (&mut object, value) {
                object.extend(report);
            }
            output.object(&object);
            if !report.is_good() {
                return Err(Failure::failed(
                    "the log is not what the head was signed over, see the problems",
                ));
            }
        }
        AuditCommand::Prove { directory, public_key, cert, public_key_sha256 } => {
            let key = read_public_key(&public_key)?;
            let of_key = match (cert, public_key_sha256) {
                (Some(file), _) => key_of_certificate(&file)?,
                (None, Some(hash)) => hash,
                (None, None) => return Err(Failure::usage("give --cert or --public-key-sha256")),
            };
            tell_story(&directory, &key, of_key, output)?;
        }
        AuditCommand::Receipt { credential, file, public_key, tenant, connection } => {
            let text = match (&file, credential) {
                (Some(file), _) => String::from_utf8_lossy(&files::read(file)?).into_owned(),
                (None, Some(credential)) => {
                    let channel = connection.connect().await?.channel;
                    receipt(channel, tenant.to_proto(), credential).await?
                }
                (None, None) => return Err(Failure::usage("give a credential's id, or --file")),
            };
            let receipt: SignedReceipt = serde_json::from_str(&text)
                .map_err(|error| Failure::usage(format!("not a destruction receipt: {error}")))?;
            if let Some(file) = public_key {
                receipt
                    .verify(&read_public_key(&file)?)
                    .map_err(|error| Failure::failed(format!("the receipt is not genuine: {error}")))?;
            }
            output.object(&serde_json::to_value(&receipt).map_err(Failure::failed)?);
        }
    }
    Ok(())
}

/// Copies the log up to its latest signed head.
pub(super) async fn export(channel: Channel, out: &Path) -> Result<SignedHead, Failure> {
    let mut client = AuditServiceClient::new(channel);
    let checkpoint = client.get_checkpoint(GetCheckpointRequest {}).await?.into_inner();
    let head: SignedHead = serde_json::from_str(&checkpoint.signed_head_json)
        .map_err(|error| Failure::failed(format!("the broker's signed head is not readable: {error}")))?;
    let mut writer = ExportWriter::create(out).map_err(export_failure)?;
    let mut next = Some(0);
    while let Some(from_index) = next.filter(|&index| index < head.head.size) {
        let request = ListEventsRequest { query: None, from_index, page_size: PAGE };
        let page = client.list_events(request).await?.into_inner();
        // What was chained after the head was signed is not covered by it.
        for event in page.events.iter().filter(|event| event.index < head.head.size) {
            writer.append(&chained(event)?).map_err(export_failure)?;
        }
        next = page.next_index;
    }
    writer.finish(&head).map_err(export_failure)?;
    Ok(head)
}

/// Verifies the log and prints what it says of one key; fails unless the log is good, and the key was generated in the HSM
/// and sealed to at most one recipient.
fn tell_story(
    directory: &Path,
    key: &AuditPublicKey,
    of_key: Sha256Hash,
    output: OutputArgs,
) -> Result<(), Failure> {
    let report = verify(directory, key, &[]).map_err(Failure::usage)?;
    if !report.is_good() {
        return Err(Failure::failed("the log does not verify: `keybroker audit verify` says where"));
    }
    let history = prove(directory, key, of_key).map_err(Failure::usage)?;
    let mut object = json!({
        "generated_in_hsm": history.generated_in_hsm(),
        "sealed_to_one_recipient": history.sealed_to_one_recipient(),
        "broker_copy_shredded": history.is_shredded(),
    });
    let value = serde_json::to_value(&history).map_err(Failure::failed)?;
    if let (Value::Object(object), Value::Object(history)) = (&mut object, value) {
        object.extend(history);
    }
    output.object(&object);
    if history.problems.is_empty() && history.generated_in_hsm() {
        Ok(())
    } else if history.credential.is_none() {
        Err(Failure::failed(format!("the log does not know the key sha256:{of_key}")))
    } else {
        Err(Failure::failed("the log contradicts what is promised of this key, see the problems"))
    }
}

fn key_of_certificate(file: &Path) -> Result<Sha256Hash, Failure> {
    let chain = files::read_certificates(file)?;
    let leaf =
        chain.first().ok_or_else(|| Failure::usage(format!("{} has no certificate", file.display())))?;
    let facts = CertificateFacts::parse(leaf);
    Ok(facts.map_err(|error| Failure::usage(format!("{}: {error}", file.display())))?.public_key)
}

/// Gets a signed receipt, JSON.
pub(super) async fn receipt(
    channel: Channel,
    tenant: String,
    credential: CredentialId,
) -> Result<String, Failure> {
    let request = GetDestructionReceiptRequest { tenant, credential_id: credential.to_string() };
    Ok(AuditServiceClient::new(channel).get_destruction_receipt(request).await?.into_inner().receipt_json)
}

/// Reads `audit.pub`.
pub(super) fn read_public_key(file: &Path) -> Result<AuditPublicKey, Failure> {
    AuditPublicKey::from_pem(&files::read(file)?)
        .map_err(|error| Failure::usage(format!("{}: {error}", file.display())))
}

fn read_head(file: &Path) -> Result<SignedHead, Failure> {
    serde_json::from_slice(&files::read(file)?)
        .map_err(|error| Failure::usage(format!("{} is no signed head: {error}", file.display())))
}

fn export_failure(error: ExportError) -> Failure {
    Failure::failed(format!("the export cannot be written: {error}"))
}

fn chained(event: &proto::Event) -> Result<ChainedEntry, Failure> {
    let unreadable = |problem: String| Failure::failed(format!("event {}: {problem}", event.index));
    let stored: StoredEvent =
        serde_json::from_str(&event.json).map_err(|error| unreadable(error.to_string()))?;
    let hash =
        Sha256Hash::try_from(event.chain_hash.as_slice()).map_err(|error| unreadable(error.to_string()))?;
    Ok(ChainedEntry { index: event.index, event: stored, hash })
}

fn object(event: &proto::Event) -> Value {
    let mut object = json!({ "index": event.index, "chain_hash": hex::encode(&event.chain_hash) });
    match (serde_json::from_str(&event.json), &mut object) {
        (Ok(Value::Object(mut fields)), Value::Object(object)) => {
            // The log has microseconds; people and their tools read RFC 3339.
            if let Some(micros) = fields.get("time").and_then(Value::as_i64) {
                let time = crate::clock::Timestamp::from_unix_micros(micros);
                fields.insert("time".to_owned(), json!(time.to_string()));
            }
            object.extend(fields);
        }
        (_, object) => object["unreadable"] = json!(event.json),
    }
    object
}

fn tail_line(event: &proto::Event) -> String {
    let object = object(event);
    let text = |name: &str| object.get(name).and_then(Value::as_str).unwrap_or("-").to_owned();
    format!("{:>8} {} {:<22} {} {}", event.index, text("time"), text("kind"), text("actor"), text("vnfci"))
}

fn parse_time(text: &str) -> Result<OffsetDateTime, String> {
    OffsetDateTime::parse(text, &Rfc3339).map_err(|_| "write it like 2026-01-31T12:00:00Z".to_owned())
}

fn timestamp(time: OffsetDateTime) -> prost_types::Timestamp {
    // Below 1,000,000,000.
    let nanos = i32::try_from(time.nanosecond()).unwrap_or(0);
    prost_types::Timestamp { seconds: time.unix_timestamp(), nanos }
}

impl QueryArgs {
    fn to_proto(&self) -> EventQuery {
        EventQuery {
            tenant: self.tenant.to_proto(),
            vnfci_id: self.vnfci.as_ref().map(VnfciId::to_string).unwrap_or_default(),
            public_key_sha256: self.public_key_sha256.map(|hash| hash.0.to_vec()).unwrap_or_default(),
            actor: self.actor.clone().unwrap_or_default(),
            kind: self.kind.map(|kind| kind.to_string()).unwrap_or_default(),
            since: self.since.map(timestamp),
            until: self.until.map(timestamp),
        }
    }
}
