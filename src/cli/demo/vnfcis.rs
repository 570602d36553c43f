//! The VNFCIs of the demo: they claim, are checked from outside, and talk to each other.

use super::super::chain::verify_chain;
use super::super::claim::install::sign_all;
use super::super::claim::state::ClaimDirectory;
use super::super::failure::Failure;
use super::super::files::{self, Readers};
use super::super::processes::Finished;
use super::handshake;
use super::site::{SLOTS, Site, Vnfci};
use super::story::ensure;
use crate::api::client::{ClientTls, connect};
use crate::api::proto::ConfirmRequest;
use crate::api::proto::credential_service_client::CredentialServiceClient;
use crate::ca::CertificateFacts;
use crate::clock::{Clock, SystemClock};
use crate::identity::confirm::confirm_message;
use crate::nfv::RequestId;
use crate::sealing::matches_public_key;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Instant;

/// VNFCIs that claim at the same time.
const PARALLEL: usize = 8;

impl Site {
    /// A VNFCI's directory.
    pub(super) fn out(&self, vnfci: &str) -> PathBuf {
        self.directory.join(vnfci)
    }

    /// A slot's credential, to connect with.
    pub(super) fn credential(&self, vnfci: &str, slot: &str) -> Result<ClientTls, Failure> {
        let slot = self.out(vnfci).join(slot);
        Ok(ClientTls {
            trust_anchor_pem: files::read(&self.root())?,
            certificate_chain_der: files::read_certificates(&slot.join("chain.pem"))?,
            key_der: files::read_private_key(&slot.join("key.pem"))?,
        })
    }

    /// What must not work, tried before the rightful VNFCIs claim.
    pub(super) async fn try_wrong_credentials(&self, vnfcis: &[Vnfci]) -> Result<String, Failure> {
        let by_token = vnfcis.iter().find(|vnfci| vnfci.by_token);
        let by_certificate = vnfcis.iter().find(|vnfci| !vnfci.by_token);
        let (Some(by_token), Some(by_certificate)) = (by_token, by_certificate) else {
            return Err(Failure::failed("the demo needs VNFCIs of both kinds"));
        };
        let foreign = self.foreign_certificate(&by_certificate.id)?;
        let flags = self.certificate_flags(&foreign);
        refused(self.claim_into("refused-foreign", &flags).await?, "a certificate of a foreign CA")?;
        // The same token with one character of its secret changed.
        let token = files::read_secret(&self.token(&by_token.id))?;
        let mut changed = token.clone();
        let at = changed.len().saturating_sub(10);
        if let Some(byte) = changed.get_mut(at) {
            *byte = if *byte == b'A' { b'B' } else { b'A' };
        }
        let file = self.work.join("changed.token");
        files::replace(&file, &changed, Readers::Owner)?;
        let flags = ["--token-file".to_owned(), file.display().to_string()];
        refused(self.claim_into("refused-token", &flags).await?, "a token with a wrong secret")?;
        Ok("a foreign CA's certificate and a token with a wrong secret got the same generic refusal"
            .to_owned())
    }

    /// All VNFCIs claim, several at a time; gives what each printed, and the rate.
    pub(super) async fn claim_all(&self, vnfcis: &[Vnfci]) -> Result<((Vec<Value>, f64), String), Failure> {
        let start = Instant::now();
        let claims: Vec<Value> =
            stream::iter(vnfcis).map(|vnfci| self.claim(vnfci)).buffered(PARALLEL).try_collect().await?;
        let rate = claims.len() as f64 / start.elapsed().as_secs_f64();
        let detail = format!(
            "{} VNFCIs claimed and confirmed, {rate:.1} per second with a process each",
            claims.len()
        );
        Ok(((claims, rate), detail))
    }

    /// Every key is its certificate's, every chain leads to the root, no key is there twice.
    pub(super) fn check_credentials(&self, vnfcis: &[Vnfci]) -> Result<String, Failure> {
        let anchors = files::read_certificates(&self.root())?;
        let now = SystemClock.now();
        let mut keys = BTreeSet::new();
        let mut total = 0_usize;
        for vnfci in vnfcis {
            for (slot, _) in SLOTS {
                let name = format!("{}/{slot}", vnfci.id);
                let credential = self.credential(&vnfci.id, slot)?;
                let leaf = credential.certificate_chain_der.first().map(Vec::as_slice).unwrap_or_default();
                let alone = files::read_certificates(&self.out(&vnfci.id).join(slot).join("cert.pem"))?;
                ensure(alone == [leaf.to_vec()], || format!("{name}: cert.pem is not chain.pem's first"))?;
                let facts = CertificateFacts::parse(leaf).map_err(Failure::failed)?;
                ensure(matches_public_key(&credential.key_der, &facts.public_key_der), || {
                    format!("{name}: the key is not the certificate's")
                })?;
                let issuers = credential.certificate_chain_der.get(1..).unwrap_or_default();
                verify_chain(leaf, issuers, &anchors, now).map_err(|failure| failure.during(&name))?;
                keys.insert(facts.public_key);
                total += 1;
            }
        }
        ensure(keys.len() == total, || format!("{total} credentials have only {} keys", keys.len()))?;
        Ok(format!("{total} keys match their certificates, chains lead to the root, all keys differ"))
    }

    /// Two VNFCIs open mutual TLS to each other with what they got.
    pub(super) async fn handshake(&self, client: &Vnfci, server: &Vnfci) -> Result<String, Failure> {
        let (client_slot, server_slot) = (SLOTS[0].0, SLOTS[1].0);
        let suite = handshake::mutual_tls(
            &self.credential(&client.id, client_slot)?,
            &self.credential(&server.id, server_slot)?,
        )
        .await?;
        Ok(format!("{} as client, {} as server: {suite}", client.id, server.id))
    }

    /// Spent initial credentials open nothing any more.
    pub(super) async fn try_spent_credentials(&self, vnfcis: &[Vnfci]) -> Result<String, Failure> {
        for by_token in [true, false] {
            let vnfci = vnfcis.iter().find(|vnfci| vnfci.by_token == by_token);
            let vnfci = vnfci.ok_or_else(|| Failure::failed("the demo needs VNFCIs of both kinds"))?;
            let finished = self.claim_into(&format!("refused-again-{by_token}"), &self.flags(vnfci)).await?;
            refused(finished, &format!("the spent initial credential of {}", vnfci.id))?;
        }
        Ok("a spent token and a spent certificate, with new recipient keys".to_owned())
    }

    /// Confirming again, over mutual TLS with a delivered certificate, is acknowledged and changes nothing.
    pub(super) async fn confirm_again(&self, vnfci: &Vnfci) -> Result<String, Failure> {
        let directory = ClaimDirectory::open(&self.out(&vnfci.id))?;
        let missing = || Failure::failed("claim.json names no claim");
        let state = directory.state()?.ok_or_else(missing)?;
        let claimed = state.claimed.ok_or_else(missing)?;
        let signatures = sign_all(&directory, &claimed, |slot| {
            confirm_message(claimed.claim_id, slot.certificate_sha256, state.recipient_key_sha256)
        })?;
        let server = format!("https://{}", self.addresses.vnfci);
        let connection = connect(&server, &self.credential(&vnfci.id, SLOTS[0].0)?).await?;
        let request = ConfirmRequest {
            request_id: RequestId::generate().to_string(),
            claim_id: claimed.claim_id.to_string(),
            signatures,
            token: None,
        };
        let answer = CredentialServiceClient::new(connection.channel).confirm(request).await?.into_inner();
        ensure(!answer.newly_confirmed, || "it was confirmed a second time".to_owned())?;
        Ok(format!("{} by its new certificate: acknowledged, nothing changed", vnfci.id))
    }

    fn flags(&self, vnfci: &Vnfci) -> Vec<String> {
        if vnfci.by_token {
            vec!["--token-file".to_owned(), self.token(&vnfci.id).display().to_string()]
        } else {
            self.certificate_flags(&vnfci.id).to_vec()
        }
    }

    async fn claim(&self, vnfci: &Vnfci) -> Result<Value, Failure> {
        let finished = self.run_claim(self.out(&vnfci.id), &self.flags(vnfci)).await?;
        if finished.code != 0 {
            return Err(finished.failure().during(&vnfci.id));
        }
        let claimed = finished.objects.into_iter().next().unwrap_or_default();
        let right = claimed["vnfci_id"] == json!(vnfci.id) && claimed["newly_confirmed"] == json!(true);
        ensure(right, || format!("{}: the claim ended with {claimed}", vnfci.id))?;
        Ok(claimed)
    }

    async fn claim_into(&self, name: &str, flags: &[String]) -> Result<Finished, Failure> {
        self.run_claim(self.work.join(name), flags).await
    }

    async fn run_claim(&self, out: PathBuf, flags: &[String]) -> Result<Finished, Failure> {
        let mut arguments = vec![
            "claim".to_owned(),
            "--server".to_owned(),
            format!("https://{}", self.addresses.bootstrap),
            "--trust-anchor".to_owned(),
            self.root().display().to_string(),
            "--out".to_owned(),
            out.display().to_string(),
        ];
        arguments.extend_from_slice(flags);
        self.program.run(&arguments).await
    }
}

/// A command that must have ended with exit code 3.
fn refused(finished: Finished, what: &str) -> Result<(), Failure> {
    ensure(finished.code == 3, || {
        format!("{what} was not refused (exit code {}): {}", finished.code, finished.said)
    })
}
