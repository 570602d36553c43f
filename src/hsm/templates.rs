//! What every object may do. Templates are always complete: modules fill gaps with unsafe defaults (SoftHSM
//! with CKA_SENSITIVE=false).

use super::ObjectId;
use cryptoki::mechanism::MechanismType;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass};
use std::ffi::c_ulong;

/// OBJECT IDENTIFIER 1.2.840.10045.3.1.7, DER.
pub(super) const P256: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
/// OBJECT IDENTIFIER 1.3.132.0.34, DER.
pub(super) const P384: [u8; 7] = [0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22];
/// OBJECT IDENTIFIER 1.3.101.112, DER.
pub(super) const ED25519: [u8; 5] = [0x06, 0x03, 0x2b, 0x65, 0x70];

/// What a key may be used for; everything else is switched off by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    Derive,
    Sign,
    Wrap,
    Unwrap,
}

/// How an object lives.
#[derive(Debug, Clone, Copy)]
pub(super) enum Life<'a> {
    /// On the token, under this name, unchangeable and not to be copied.
    Token(&'a ObjectId),
    /// As long as its session.
    Session,
}

/// The two halves of a key pair of `key_type`; `parameters` is what the public template needs beside the rest
/// (CKA_EC_PARAMS, or CKA_MODULUS_BITS and CKA_PUBLIC_EXPONENT).
pub(super) struct PairTemplate {
    pub(super) public: Vec<Attribute>,
    pub(super) private: Vec<Attribute>,
}

impl PairTemplate {
    /// `uses` are those of the private half. An extractable one is for the pool: it may be wrapped and
    /// nothing else.
    pub(super) fn new(
        key_type: KeyType,
        parameters: &[Attribute],
        life: Life<'_>,
        uses: &[Use],
        extractable: bool,
    ) -> Self {
        let mut public = vec![
            Attribute::Class(ObjectClass::PUBLIC_KEY),
            Attribute::KeyType(key_type),
            // SoftHSM encrypts every attribute of a private object: needless for a session's public key.
            Attribute::Private(matches!(life, Life::Token(_))),
            Attribute::Encrypt(false),
            Attribute::Verify(uses.contains(&Use::Sign)),
            Attribute::VerifyRecover(false),
            Attribute::Wrap(false),
        ];
        public.extend_from_slice(parameters);
        public.extend(life.attributes());
        let mut private = vec![
            Attribute::Class(ObjectClass::PRIVATE_KEY),
            Attribute::KeyType(key_type),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(extractable),
            Attribute::Decrypt(false),
            Attribute::Sign(uses.contains(&Use::Sign)),
            Attribute::SignRecover(false),
            Attribute::Unwrap(uses.contains(&Use::Unwrap)),
            Attribute::Derive(uses.contains(&Use::Derive)),
        ];
        private.extend(life.attributes());
        Self { public, private }
    }
}

/// A secret key. `length` in bytes where the operation needs it (generation, derivation; not unwrapping).
pub(super) fn secret_key(
    key_type: KeyType,
    length: Option<c_ulong>,
    life: Life<'_>,
    uses: &[Use],
    extractable: bool,
) -> Vec<Attribute> {
    let mut template = vec![
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(key_type),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(extractable),
        Attribute::Encrypt(false),
        Attribute::Decrypt(false),
        Attribute::Sign(uses.contains(&Use::Sign)),
        Attribute::Verify(false),
        Attribute::Wrap(uses.contains(&Use::Wrap)),
        Attribute::Unwrap(uses.contains(&Use::Unwrap)),
        Attribute::Derive(uses.contains(&Use::Derive)),
    ];
    template.extend(length.map(|length| Attribute::ValueLen(length.into())));
    template.extend(life.attributes());
    template
}

/// A recipient's RSA public key (big-endian numbers), a session object: it wraps and does nothing else.
pub(super) fn rsa_wrapping_key(modulus: &[u8], exponent: &[u8]) -> Vec<Attribute> {
    vec![
        Attribute::Class(ObjectClass::PUBLIC_KEY),
        Attribute::KeyType(KeyType::RSA),
        Attribute::Token(false),
        Attribute::Private(false),
        Attribute::Encrypt(false),
        Attribute::Verify(false),
        Attribute::VerifyRecover(false),
        Attribute::Wrap(true),
        Attribute::Modulus(modulus.to_vec()),
        Attribute::PublicExponent(exponent.to_vec()),
    ]
}

/// The template of a KEK. It owns the memory that its CKA_UNWRAP_TEMPLATE points to.
pub(super) struct KekTemplate {
    attributes: Vec<Attribute>,
    /// Values of the nested attributes; `attributes` holds their addresses.
    _nested_values: Vec<Box<[u8]>>,
}

impl KekTemplate {
    /// AES-256 for wrapping and unwrapping by KWP only. Whatever it unwraps is a sensitive AES key that can neither
    /// decrypt nor wrap: without this a DEK could be unwrapped as a readable generic secret.
    pub(super) fn new(life: Life<'_>) -> Self {
        const CKA_CLASS: c_ulong = 0x00;
        const CKA_KEY_TYPE: c_ulong = 0x100;
        const CKA_SENSITIVE: c_ulong = 0x103;
        const CKA_ENCRYPT: c_ulong = 0x104;
        const CKA_DECRYPT: c_ulong = 0x105;
        const CKA_WRAP: c_ulong = 0x106;
        const CKA_UNWRAP: c_ulong = 0x107;
        const CKA_SIGN: c_ulong = 0x108;
        const CKA_DERIVE: c_ulong = 0x10c;
        const CKO_SECRET_KEY: c_ulong = 4;
        const CKK_AES: c_ulong = 0x1f;
        const CKA_UNWRAP_TEMPLATE: c_ulong = 0x4000_0212;

        let number = |value: c_ulong| Box::<[u8]>::from(value.to_ne_bytes());
        let boolean = |value: bool| Box::<[u8]>::from([u8::from(value)]);
        let nested = [
            (CKA_CLASS, number(CKO_SECRET_KEY)),
            (CKA_KEY_TYPE, number(CKK_AES)),
            (CKA_SENSITIVE, boolean(true)),
            (CKA_ENCRYPT, boolean(false)),
            (CKA_DECRYPT, boolean(false)),
            (CKA_WRAP, boolean(false)),
            (CKA_UNWRAP, boolean(false)),
            (CKA_SIGN, boolean(false)),
            (CKA_DERIVE, boolean(false)),
        ];
        // The crate has no type for this attribute: it is an array of CK_ATTRIBUTE {type, pointer, length},
        // each of them as wide as CK_ULONG on every Unix platform, so there is no padding.
        let mut raw = Vec::new();
        for (attribute, value) in &nested {
            raw.extend(attribute.to_ne_bytes());
            raw.extend(value.as_ptr().expose_provenance().to_ne_bytes());
            raw.extend(value.len().to_ne_bytes());
        }
        let mut attributes = secret_key(KeyType::AES, Some(32), life, &[Use::Wrap, Use::Unwrap], false);
        attributes.push(Attribute::AllowedMechanisms(vec![MechanismType::AES_KEY_WRAP_PAD]));
        attributes.push(Attribute::VendorDefined((AttributeType::VendorDefined(CKA_UNWRAP_TEMPLATE), raw)));
        Self { attributes, _nested_values: nested.into_iter().map(|(_, value)| value).collect() }
    }

    /// For the call that makes the key; the borrow keeps the nested values alive.
    pub(super) fn attributes(&self) -> &[Attribute] {
        &self.attributes
    }
}

impl Life<'_> {
    fn attributes(self) -> Vec<Attribute> {
        match self {
            Self::Token(id) => {
                let name = id.to_string().into_bytes();
                vec![
                    Attribute::Token(true),
                    Attribute::Modifiable(false),
                    Attribute::Copyable(false),
                    Attribute::Label(name.clone()),
                    Attribute::Id(name),
                ]
            }
            Self::Session => vec![Attribute::Token(false)],
        }
    }
}
