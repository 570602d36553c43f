//! VNFCIs to be registered, from flags or from a JSON or CSV file.

use super::super::failure::Failure;
use super::super::files;
use crate::api::proto::{
    InitialCredential, NewVnfci, Slot, TokenInitialCredential, X509InitialCredential, initial_credential,
    x509_initial_credential,
};
use crate::clock::{HumaneDuration, Timestamp};
use crate::nfv::{AnchorName, PoolName, Sha256Hash, SlotName, VduId, VnfInstanceId, VnfciId};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Who is to be registered.
#[derive(Debug, clap::Args)]
pub(super) struct RegisterArgs {
    /// MANO's id of the VNFCI
    #[arg(required_unless_present = "file")]
    vnfci: Option<VnfciId>,
    /// Many VNFCIs: a JSON array (or one object per line), or CSV with a header; fields vnfci_id, vnf_instance_id,
    /// vdu_id, slots ({"NAME": "POOL"}, in CSV NAME=POOL;NAME=POOL), and token=true, or anchor with certificate_sha256
    /// or name
    #[arg(long, value_name = "FILE", conflicts_with_all = [
        "vnfci", "vnf_instance", "vdu", "slot", "anchor", "cert_fingerprint", "initial_cert", "name", "token",
    ])]
    file: Option<PathBuf>,
    /// Its VNF instance
    #[arg(long, value_name = "ID", required_unless_present = "file")]
    vnf_instance: Option<VnfInstanceId>,
    /// Its VDU
    #[arg(long, value_name = "ID", required_unless_present = "file")]
    vdu: Option<VduId>,
    /// A slot and the pool that serves it (may be repeated)
    #[arg(long, value_name = "NAME=POOL", required_unless_present = "file")]
    slot: Vec<SlotFlag>,
    /// X.509 initial credential: the anchor that it leads to
    #[arg(long, required_unless_present_any = ["file", "token"], requires = "pin")]
    anchor: Option<AnchorName>,
    #[command(flatten)]
    pin: PinArgs,
    /// One-time token as initial credential
    #[arg(long, conflicts_with_all = ["anchor", "pin"])]
    token: bool,
    /// How long the initial credential may be used [default: 24h]
    #[arg(long, value_name = "DURATION")]
    expires_in: Option<HumaneDuration>,
}

/// How the X.509 initial credential is told from others of its anchor.
#[derive(Debug, clap::Args)]
#[group(id = "pin", multiple = false)]
pub(super) struct PinArgs {
    /// SHA-256 of the certificate, hexadecimal
    #[arg(long, value_name = "SHA256")]
    cert_fingerprint: Option<Sha256Hash>,
    /// The certificate itself, PEM
    #[arg(long, value_name = "FILE")]
    initial_cert: Option<PathBuf>,
    /// A name in it: dns:NAME, uri:URI or cn:TEXT
    #[arg(long, value_name = "NAME")]
    pub(super) name: Option<String>,
}

impl PinArgs {
    /// SHA-256 of the pinned certificate.
    pub(super) fn certificate(&self) -> Result<Option<Sha256Hash>, Failure> {
        match &self.initial_cert {
            Some(file) => Ok(files::read_certificates(file)?.first().map(|der| Sha256Hash::of(der))),
            None => Ok(self.cert_fingerprint),
        }
    }
}

/// `NAME=POOL`.
#[derive(Debug, Clone)]
pub(super) struct SlotFlag {
    name: SlotName,
    pool: PoolName,
}

impl FromStr for SlotFlag {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, pool) = text.split_once('=').ok_or("write NAME=POOL")?;
        Ok(Self {
            name: name.parse().map_err(|error| format!("{error}"))?,
            pool: pool.parse().map_err(|error| format!("{error}"))?,
        })
    }
}

/// One item of a file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Item {
    vnfci_id: VnfciId,
    vnf_instance_id: VnfInstanceId,
    vdu_id: VduId,
    /// Slot to pool.
    slots: BTreeMap<SlotName, PoolName>,
    #[serde(default)]
    token: bool,
    anchor: Option<AnchorName>,
    certificate_sha256: Option<Sha256Hash>,
    name: Option<String>,
}

impl RegisterArgs {
    /// The announcements, in the file's order.
    pub(super) fn announcements(&self, begun: Timestamp) -> Result<Vec<NewVnfci>, Failure> {
        let expires_at = expires_at(self.expires_in, begun);
        let items = match &self.file {
            Some(file) => read(file)?,
            None => vec![self.item()?],
        };
        items.into_iter().map(|item| item.announcement(expires_at)).collect()
    }

    fn item(&self) -> Result<Item, Failure> {
        // Clap has seen to it that they are there.
        let missing = || Failure::usage("give a VNFCI's id, --vnf-instance, --vdu and --slot, or --file");
        let certificate_sha256 = self.pin.certificate()?;
        Ok(Item {
            vnfci_id: self.vnfci.clone().ok_or_else(missing)?,
            vnf_instance_id: self.vnf_instance.clone().ok_or_else(missing)?,
            vdu_id: self.vdu.clone().ok_or_else(missing)?,
            slots: self.slot.iter().map(|slot| (slot.name.clone(), slot.pool.clone())).collect(),
            token: self.token,
            anchor: self.anchor.clone(),
            certificate_sha256,
            name: self.pin.name.clone(),
        })
    }
}

/// Whether the answer will carry a token.
pub(super) fn is_token(credential: Option<&InitialCredential>) -> bool {
    let kind = credential.and_then(|credential| credential.kind.as_ref());
    matches!(kind, Some(initial_credential::Kind::Token(_)))
}

/// Until when an initial credential is to be usable; none for the broker's default.
pub(super) fn expires_at(
    expires_in: Option<HumaneDuration>,
    begun: Timestamp,
) -> Option<prost_types::Timestamp> {
    expires_in.map(|after| prost_types::Timestamp { seconds: begun.plus(after.0).unix_seconds(), nanos: 0 })
}

/// The kind of an initial credential, if what was given makes exactly one.
pub(super) fn initial_credential(
    vnfci: &VnfciId,
    token: bool,
    anchor: Option<AnchorName>,
    certificate_sha256: Option<Sha256Hash>,
    name: Option<String>,
) -> Result<initial_credential::Kind, Failure> {
    let pin = match (certificate_sha256, name) {
        (Some(hash), None) => Some(x509_initial_credential::Pin::CertificateSha256(hash.0.to_vec())),
        (None, Some(name)) => Some(x509_initial_credential::Pin::Name(name)),
        _ => None,
    };
    match (token, anchor, pin) {
        (true, None, None) => Ok(initial_credential::Kind::Token(TokenInitialCredential {})),
        (false, Some(anchor), Some(pin)) => {
            let anchor = anchor.to_string();
            Ok(initial_credential::Kind::X509(X509InitialCredential { anchor, pin: Some(pin) }))
        }
        _ => Err(Failure::usage(format!(
            "VNFCI {vnfci}: give a token, or an anchor with one of certificate_sha256 and name"
        ))),
    }
}

impl Item {
    fn announcement(self, expires_at: Option<prost_types::Timestamp>) -> Result<NewVnfci, Failure> {
        let kind =
            initial_credential(&self.vnfci_id, self.token, self.anchor, self.certificate_sha256, self.name)?;
        let slots = self
            .slots
            .into_iter()
            .map(|(name, pool)| Slot { name: name.to_string(), pool: pool.to_string() })
            .collect();
        Ok(NewVnfci {
            vnfci_id: self.vnfci_id.to_string(),
            vnf_instance_id: self.vnf_instance_id.to_string(),
            vdu_id: self.vdu_id.to_string(),
            slots,
            initial_credential: Some(InitialCredential { kind: Some(kind), expires_at }),
        })
    }
}

fn read(file: &Path) -> Result<Vec<Item>, Failure> {
    let text = files::read_text(file)?;
    let start = text.trim_start();
    if start.starts_with('[') || start.starts_with('{') {
        return files::read_json_items(file);
    }
    match from_csv(&text) {
        Ok(items) if items.is_empty() => Err(Failure::usage(format!("{} names nothing", file.display()))),
        Ok(items) => Ok(items),
        Err(problem) => Err(Failure::usage(format!("{}: {problem}", file.display()))),
    }
}

fn from_csv(text: &str) -> Result<Vec<Item>, String> {
    let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let (_, header) = lines.next().ok_or("the file is empty")?;
    let names = csv_fields(header)?;
    lines
        .map(|(index, line)| {
            let fields = csv_fields(line)?;
            let row: BTreeMap<&str, &str> =
                names.iter().map(String::as_str).zip(fields.iter().map(String::as_str)).collect();
            if fields.len() != names.len() {
                return Err(format!("{} fields, the header has {}", fields.len(), names.len()));
            }
            csv_item(&row).map_err(|problem| format!("line {}: {problem}", index + 1))
        })
        .collect()
}

fn csv_item(row: &BTreeMap<&str, &str>) -> Result<Item, String> {
    const KNOWN: [&str; 8] =
        ["vnfci_id", "vnf_instance_id", "vdu_id", "slots", "token", "anchor", "certificate_sha256", "name"];
    if let Some(unknown) = row.keys().find(|name| !KNOWN.contains(name)) {
        return Err(format!("unknown column {unknown:?}; known are {}", KNOWN.join(", ")));
    }
    let required = |name: &str| row.get(name).copied().ok_or_else(|| format!("the column {name} is missing"));
    let slots = required("slots")?
        .split(';')
        .map(|slot| slot.trim().parse::<SlotFlag>().map(|slot| (slot.name, slot.pool)))
        .collect::<Result<_, _>>()?;
    Ok(Item {
        vnfci_id: parsed(required("vnfci_id")?)?,
        vnf_instance_id: parsed(required("vnf_instance_id")?)?,
        vdu_id: parsed(required("vdu_id")?)?,
        slots,
        token: matches!(row.get("token").copied(), Some("true" | "yes" | "1")),
        anchor: optional(row, "anchor")?,
        certificate_sha256: optional(row, "certificate_sha256")?,
        name: optional(row, "name")?,
    })
}

fn optional<T: FromStr<Err: ToString>>(row: &BTreeMap<&str, &str>, name: &str) -> Result<Option<T>, String> {
    row.get(name).filter(|text| !text.is_empty()).map(|text| parsed(text)).transpose()
}

fn parsed<T: FromStr<Err: ToString>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: T::Err| error.to_string())
}

/// The fields of one line of CSV (RFC 4180; no line break within quotes).
fn csv_fields(line: &str) -> Result<Vec<String>, String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut characters = line.trim_end_matches('\r').chars().peekable();
    while let Some(character) = characters.next() {
        let field = fields.last_mut().ok_or("no field")?;
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                field.push('"');
            }
            '"' if quoted || field.is_empty() => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            other => field.push(other),
        }
    }
    if quoted { Err("a quote is not closed".to_owned()) } else { Ok(fields) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_csv_file_and_a_json_file_announce_the_same() {
        let csv = "vnfci_id,vnf_instance_id,vdu_id,slots,token\n\"amf,1\",vnf-1,amf,a=p;b=q,true\n";
        let json = r#"[{"vnfci_id": "amf,1", "vnf_instance_id": "vnf-1", "vdu_id": "amf",
                        "slots": {"a": "p", "b": "q"}, "token": true}]"#;
        let from_json: Vec<Item> = serde_json::from_str(json).unwrap();
        let announcements = |items: Vec<Item>| -> Vec<NewVnfci> {
            items.into_iter().map(|item| item.announcement(None).unwrap()).collect()
        };
        assert_eq!(announcements(from_csv(csv).unwrap()), announcements(from_json));
    }

    #[test]
    fn a_line_with_a_problem_is_named() {
        let bad = "vnfci_id,vnf_instance_id,vdu_id,slots,anchor\nx,v,d,a=p,anchor\ny,v,d,a,anchor\n";
        assert!(from_csv(bad).unwrap_err().starts_with("line 3:"));
        assert!(from_csv("vnfci,slots\nx,a=p\n").unwrap_err().contains("unknown column"));
    }

    #[test]
    fn an_announcement_without_initial_credential_is_refused() {
        let bare = "vnfci_id,vnf_instance_id,vdu_id,slots\nx,v,d,a=p\n";
        let item = from_csv(bare).unwrap().remove(0);
        assert!(item.announcement(None).is_err());
    }
}
