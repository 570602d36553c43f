//! A one-time token as initial credential. It never travels: the VNFCI proves that it has it, on this connection,
//! for this request and this recipient key.
//!
//! The secret is `HMAC-SHA256(tenant's HMAC key on the HSM, secret_input)`, so nothing secret is stored.

use super::{InitialCredential, InitialCredentialKind, Purpose, Refusal, Verified};
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
    /// SHA-256 of the recipient's public key: a P-256 point (65 bytes), or an RSA SubjectPublicKeyInfo (DER).
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
    registered: &InitialCredential,
    token: &Token,
    fields: &ProofFields,
    proof: &[u8],
    purpose: Purpose,
    now: Timestamp,
) -> Result<Verified, Refusal> {
    if registered.kind != InitialCredentialKind::Token {
        return Err(Refusal::WrongKind(registered.id));
    }
    let key = hmac::Key::new(hmac::HMAC_SHA256, token.secret.as_slice());
    // Against the registration's id, so that the token of another one never fits.
    hmac::verify(&key, &fields.bytes(registered.id), proof)
        .map_err(|_| Refusal::WrongTokenProof(registered.id))?;
    Verified::new(registered, fields.client_key, purpose, now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::InitialCredentialState;
    use proptest::prelude::*;

    fn registered() -> InitialCredential {
        InitialCredential {
            id: InitialCredentialId::generate(),
            tenant: "default".parse().unwrap(),
            vnfci: "amf-0001".parse().unwrap(),
            vnf_instance: "amf".parse().unwrap(),
            generation: 1,
            kind: InitialCredentialKind::Token,
            expires_at: Timestamp::from_unix_seconds(100),
            state: InitialCredentialState::Open,
        }
    }

    fn fields() -> ProofFields {
        ProofFields {
            exporter: [1; 32],
            client_key: Sha256Hash([2; 32]),
            request: RequestId::generate(),
            recipient_key: Sha256Hash([3; 32]),
        }
    }

    fn check(
        registered: &InitialCredential,
        token: &Token,
        fields: &ProofFields,
        proof: &[u8],
    ) -> Result<Verified, Refusal> {
        verify(registered, token, fields, proof, Purpose::Claim, Timestamp::from_unix_seconds(50))
    }

    #[test]
    fn the_holder_of_the_token_is_the_registered_vnfci() {
        let registered = registered();
        let at_broker = Token::new(registered.id, &[9; 32]).unwrap();
        let at_vnfci: Token = at_broker.to_text().parse().unwrap();
        let fields = fields();
        let verified = check(&registered, &at_broker, &fields, &at_vnfci.prove(&fields)).unwrap();
        assert_eq!((verified.vnfci(), verified.tenant()), (&registered.vnfci, &registered.tenant));
        assert_eq!(verified.credential(), registered.id);
    }

    #[test]
    fn a_proof_fits_one_connection_request_recipient_and_token_only() {
        let registered = registered();
        let token = Token::new(registered.id, &[9; 32]).unwrap();
        let fields = fields();
        let proof = token.prove(&fields);
        let wrong = Err(Refusal::WrongTokenProof(registered.id));
        for changed in [
            ProofFields { exporter: [0; 32], ..fields.clone() },
            ProofFields { client_key: Sha256Hash([0; 32]), ..fields.clone() },
            ProofFields { request: RequestId::generate(), ..fields.clone() },
            ProofFields { recipient_key: Sha256Hash([0; 32]), ..fields.clone() },
        ] {
            assert_eq!(check(&registered, &token, &changed, &proof), wrong);
        }
        let other = Token::new(registered.id, &[8; 32]).unwrap();
        assert_eq!(check(&registered, &other, &fields, &proof), wrong);
        assert_eq!(check(&registered, &token, &fields, &proof[..31]), wrong);
        assert_eq!(check(&registered, &token, &fields, &[]), wrong);
        // The same secret under another id: the id is part of what is MACed.
        let other = Token::new(InitialCredentialId::generate(), &[9; 32]).unwrap();
        assert_eq!(check(&registered, &token, &fields, &other.prove(&fields)), wrong);
    }

    #[test]
    fn a_token_is_no_proof_for_what_was_registered_with_a_certificate() {
        let kind = InitialCredentialKind::X509Fingerprint {
            anchor: "a".parse().unwrap(),
            fingerprint: Sha256Hash([0; 32]),
        };
        let registered = InitialCredential { kind, ..registered() };
        let token = Token::new(registered.id, &[9; 32]).unwrap();
        let fields = fields();
        let refused = check(&registered, &token, &fields, &token.prove(&fields));
        assert_eq!(refused, Err(Refusal::WrongKind(registered.id)));
    }

    #[test]
    fn a_token_has_one_text_and_hides_in_debug_output() {
        let token = Token::new("01234567-89ab-7def-8123-456789abcdef".parse().unwrap(), &[0xff; 32]).unwrap();
        let text = token.to_text();
        assert_eq!(
            text.as_str(),
            "kb1.01234567-89ab-7def-8123-456789abcdef.__________________________________________8"
        );
        assert!(!format!("{token:?}").contains("____"));
        assert!(format!("{}\n", text.as_str()).parse::<Token>().is_ok());
        for bad in [
            "",
            "kb1.",
            "kb2.01234567-89ab-7def-8123-456789abcdef.__________________________________________8",
            "kb1.01234567-89AB-7def-8123-456789abcdef.__________________________________________8",
            "kb1.0123456789ab7def8123456789abcdef.__________________________________________8",
            "kb1.01234567-89ab-7def-8123-456789abcdef.__________________________________________9",
            "kb1.01234567-89ab-7def-8123-456789abcdef.__________________________________________8=",
            "kb1.01234567-89ab-7def-8123-456789abcdef.____",
        ] {
            let error = bad.parse::<Token>().unwrap_err().to_string();
            assert!(!error.contains("____"), "{error}");
        }
    }

    #[test]
    fn every_arming_has_another_secret() {
        let (tenant, vnfci) = ("t".parse().unwrap(), "v".parse().unwrap());
        assert_eq!(secret_input(&tenant, &vnfci, 1), b"keybroker-token-v1\0\0\0\x01t\0\0\0\x01v\0\0\0\x011");
        assert_ne!(secret_input(&tenant, &vnfci, 1), secret_input(&tenant, &vnfci, 2));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_token_parser_panic(text in "(kb1\\.)?.*") {
            let _ = text.parse::<Token>();
        }
    }
}
