//! A one-time token as initial credential. It never travels: the VNFCI proves that it has it, on this connection,
//! for this request and this recipient key.
//!
//! The secret is `HMAC-SHA256(tenant's HMAC key on the HSM, secret_input)`, so nothing secret is stored.

use super::{Purpose, Refusal, RegisteredCredential, RegisteredProof, Verified};
use crate::clock::Timestamp;
use crate::nfv::{InitialCredentialId, RequestId, Sha256Hash, TenantId, VnfciId, labelled_fields};
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::fmt;
use std::str::FromStr;
use zeroize::Zeroizing;

/// Label of the TLS exporter (RFC 8446 7.5) whose 32 bytes, with an empty context, bind a proof to its connection.
pub const EXPORTER_LABEL: &str = "EXPORTER-keybroker-v1";

/// What the HSM MACs to make a token's secret: label `keybroker-token-v1`, tenant, VNFCI, generation in decimal.
pub fn secret_input(tenant: &TenantId, vnfci: &VnfciId, generation: u32) -> Vec<u8> {
    let generation = generation.to_string();
    let fields = [tenant.as_str().as_bytes(), vnfci.as_str().as_bytes(), generation.as_bytes()];
    labelled_fields("keybroker-token-v1", &fields)
}

/// A token: which initial credential it is, and its secret.
pub struct Token {
    id: InitialCredentialId,
    secret: Zeroizing<[u8; 32]>,
}

impl Token {
    /// From what the HSM returned for [`secret_input`].
    ///
    /// # Errors
    /// [`Refusal::MalformedToken`] if the MAC is not 32 bytes.
    pub fn new(id: InitialCredentialId, mac: &[u8]) -> Result<Self, Refusal> {
        let mut secret = Zeroizing::new([0; 32]);
        if mac.len() != secret.len() {
            return Err(Refusal::MalformedToken("a secret has 32 bytes".to_owned()));
        }
        secret.copy_from_slice(mac);
        Ok(Self { id, secret })
    }

    /// The initial credential that it is.
    pub fn id(&self) -> InitialCredentialId {
        self.id
    }

    /// The text that MANO passes to the VNFCI: `kb1.<id>.<base64url of the secret, no padding>`. Secret.
    pub fn to_text(&self) -> Zeroizing<String> {
        let secret = Zeroizing::new(URL_SAFE_NO_PAD.encode(self.secret.as_slice()));
        Zeroizing::new(format!("kb1.{}.{}", self.id, secret.as_str()))
    }

    /// The VNFCI's proof: HMAC-SHA256 under the secret over [`ProofFields`].
    pub fn prove(&self, fields: &ProofFields) -> [u8; 32] {
        let mut proof = [0; 32];
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.secret.as_slice());
        proof.copy_from_slice(hmac::sign(&key, &fields.bytes(self.id)).as_ref());
        proof
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({}, secret redacted)", self.id)
    }
}

impl FromStr for Token {
    type Err = Refusal;
    /// Reads a token file's line; white space around it is passed over.
    fn from_str(text: &str) -> Result<Self, Refusal> {
        // The text is secret, so that no error repeats any of it.
        let malformed =
            || Refusal::MalformedToken("a token is kb1.<UUID>.<43 characters of base64url>".to_owned());
        let (id, secret) =
            text.trim().strip_prefix("kb1.").and_then(|rest| rest.split_once('.')).ok_or_else(malformed)?;
        let parsed: InitialCredentialId = id.parse().map_err(|_| malformed())?;
        // One text per token: a UUID has other spellings.
        if parsed.to_string() != id {
            return Err(malformed());
        }
        let secret = Zeroizing::new(URL_SAFE_NO_PAD.decode(secret).map_err(|_| malformed())?);
        Self::new(parsed, &secret).map_err(|_| malformed())
    }
}

/// What a proof is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProofFields {
    /// TLS exporter of this connection: [`EXPORTER_LABEL`], empty context, 32 bytes.
    pub exporter: [u8; 32],
    /// SHA-256 of the client certificate's SubjectPublicKeyInfo, DER.
    pub client_key: Sha256Hash,
    /// The request.
    pub request: RequestId,
    /// SHA-256 of the recipient's public point (uncompressed, 65 bytes).
    pub recipient_key: Sha256Hash,
}

impl ProofFields {
    /// Label `keybroker-token-proof-v1`, exporter, client key hash, token id as text, request id as text, recipient
    /// key hash.
    pub fn bytes(&self, token: InitialCredentialId) -> Vec<u8> {
        let (token, request) = (token.to_string(), self.request.to_string());
        labelled_fields(
            "keybroker-token-proof-v1",
            &[
                &self.exporter,
                &self.client_key.0,
                token.as_bytes(),
                request.as_bytes(),
                &self.recipient_key.0,
            ],
        )
    }
}

/// Judges a proof (32 bytes) with the token that the HSM recomputed for `registered`. Takes the same time for every
/// wrong proof.
///
/// # Errors
/// [`Refusal::WrongKind`], [`Refusal::WrongTokenProof`], or that the registration is not usable.
pub fn verify(
    registered: &RegisteredCredential,
    token: &Token,
    fields: &ProofFields,
    proof: &[u8],
    purpose: Purpose,
    now: Timestamp,
) -> Result<Verified, Refusal> {
    if !matches!(registered.proof, RegisteredProof::Token { .. }) {
        return Err(Refusal::WrongKind(registered.id));
    }
    let key = hmac::Key::new(hmac::HMAC_SHA256, token.secret.as_slice());
    // Against the registration's id, so that the token of another one never fits.
    hmac::verify(&key, &fields.bytes(registered.id), proof)
        .map_err(|_| Refusal::WrongTokenProof(registered.id))?;
    Verified::new(registered, fields.client_key, purpose, now)
}
