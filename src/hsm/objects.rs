//! Token objects: making, using, destroying and listing them. Never silently created, never deleted on a failed look-up.

use super::fault::Fault;
use super::public_key::{ecdsa_der, subject_public_key_info};
use super::templates::{self, KekTemplate, Life, PairTemplate, Use, secret_key};
use super::token::{Half, Token};
use super::{HsmError, ObjectId, SignatureAlgorithm, TokenObject, VerifiedGone};
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectHandle};
use cryptoki::session::Session;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

impl Token {
    /// A signature over each message, in order.
    pub(super) fn sign(
        &mut self,
        key: &ObjectId,
        algorithm: SignatureAlgorithm,
        messages: &[Vec<u8>],
    ) -> Result<Vec<Vec<u8>>, Fault> {
        let sign_one = |message: &Vec<u8>| {
            self.with_object(key, Half::Private, |session, handle| sign(session, handle, algorithm, message))
        };
        messages.iter().map(sign_one).collect()
    }

    /// HMAC-SHA-256 of `data`.
    pub(super) fn mac(&mut self, key: &ObjectId, data: &[u8]) -> Result<[u8; 32], Fault> {
        let mac = self.with_object(key, Half::Secret, |session, handle| {
            Ok(session.sign(&Mechanism::Sha256Hmac, handle, data)?)
        })?;
        <[u8; 32]>::try_from(mac).map_err(|_| {
            HsmError::Module { operation: "C_Sign".into(), code: "a MAC of a wrong length".into() }.into()
        })
    }

    /// A signing key pair on the token; gives its SubjectPublicKeyInfo.
    pub(super) fn create_key_pair(
        &mut self,
        id: &ObjectId,
        algorithm: SignatureAlgorithm,
    ) -> Result<Vec<u8>, Fault> {
        if matches!(id, ObjectId::TokenMac(_) | ObjectId::Kek(..)) {
            return Err(HsmError::Refused(format!("{id} is the name of a secret key, not of a pair")).into());
        }
        self.refuse_existing(id)?;
        let session = self.session()?;
        let (public, _) = generate_signing_pair(session, algorithm, Life::Token(id))?;
        subject_public_key_info(session, public)
    }

    /// A tenant's HMAC key on the token: generic secret, 32 bytes.
    pub(super) fn create_mac_key(&mut self, id: &ObjectId) -> Result<(), Fault> {
        if !matches!(id, ObjectId::TokenMac(_)) {
            return Err(HsmError::Refused(format!("{id} is not the name of an HMAC key")).into());
        }
        self.refuse_existing(id)?;
        let template = secret_key(KeyType::GENERIC_SECRET, Some(32), Life::Token(id), &[Use::Sign], false);
        self.session()?.generate_key(&Mechanism::GenericSecretKeyGen, &template)?;
        Ok(())
    }

    /// An epoch's KEK on the token.
    pub(super) fn create_kek(&mut self, id: &ObjectId) -> Result<(), Fault> {
        self.refuse_existing(id)?;
        let template = KekTemplate::new(Life::Token(id));
        self.session()?.generate_key(&Mechanism::AesKeyGen, template.attributes())?;
        Ok(())
    }

    /// SubjectPublicKeyInfo (DER) of a key pair; `None` if there is neither half.
    pub(super) fn public_key(&mut self, id: &ObjectId) -> Result<Option<Vec<u8>>, Fault> {
        let result = self.with_object(id, Half::Public, subject_public_key_info);
        match result {
            Ok(der) => Ok(Some(der)),
            Err(Fault::Port(HsmError::NotFound(_))) if !self.exists(id)? => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// Whether any object has this name.
    pub(super) fn exists(&mut self, id: &ObjectId) -> Result<bool, Fault> {
        Ok(!self.find(id, None)?.is_empty())
    }

    /// Destroys every object of this name; none is fine.
    pub(super) fn destroy(&mut self, id: &ObjectId) -> Result<(), Fault> {
        self.forget(id);
        let found = self.find(id, None)?;
        if found.is_empty() {
            self.miss();
        }
        for object in found {
            self.session()?.destroy_object(object)?;
        }
        Ok(())
    }

    /// Looks for all of `ids`. Only worth something in a process that never saw them: SoftHSM forgets a handle
    /// before the file is deleted.
    pub(super) fn verify_destroyed(&mut self, ids: Vec<ObjectId>) -> Result<VerifiedGone, Fault> {
        let mut remaining = Vec::new();
        for id in &ids {
            if self.exists(id)? {
                remaining.push(id.clone());
            }
        }
        if remaining.is_empty() {
            Ok(VerifiedGone { token_serial: self.serial.clone(), objects: ids })
        } else {
            Err(HsmError::StillThere(remaining).into())
        }
    }

    /// Every object on the token, with what is wrong with it.
    pub(super) fn inventory(&mut self) -> Result<Vec<TokenObject>, Fault> {
        let session = self.session()?;
        let handles = session.find_objects(&[Attribute::Token(true)])?;
        let mut objects: Vec<TokenObject> =
            handles.into_iter().map(|handle| describe(session, handle)).collect();
        self.confirm_present()?;
        report_incomplete(&mut objects);
        objects.sort_by(|a, b| (&a.label, &a.class).cmp(&(&b.label, &b.class)));
        Ok(objects)
    }

    /// A tenant's own token holds no other tenant's keys, nor the broker's.
    pub(super) fn refuse_strangers_keys(&mut self) -> Result<(), Fault> {
        let Some(owner) = self.owner.clone() else { return Ok(()) };
        let objects = self.inventory()?;
        let stranger =
            objects.iter().filter_map(|object| object.id.as_ref()).find(|id| id.tenant() != Some(&owner));
        match stranger {
            None => Ok(()),
            Some(id) => Err(HsmError::Configuration(format!(
                "the token with serial number {} holds {id}, which is not tenant {owner}'s: give [tenant.{owner}] a token \
                 of its own",
                self.serial
            ))
            .into()),
        }
    }

    fn refuse_existing(&mut self, id: &ObjectId) -> Result<(), Fault> {
        if self.exists(id)? {
            let text = format!("{id} exists already on the token; nothing was changed");
            return Err(HsmError::Refused(text).into());
        }
        Ok(())
    }
}

/// A key pair that signs and does nothing else.
pub(super) fn generate_signing_pair(
    session: &Session,
    algorithm: SignatureAlgorithm,
    life: Life<'_>,
) -> Result<(ObjectHandle, ObjectHandle), Fault> {
    let (mechanism, kind, curve) = match algorithm {
        SignatureAlgorithm::EcdsaP256Sha256 => {
            (Mechanism::EccKeyPairGen, KeyType::EC, templates::P256.to_vec())
        }
        SignatureAlgorithm::Ed25519 => {
            (Mechanism::EccEdwardsKeyPairGen, KeyType::EC_EDWARDS, templates::ED25519.to_vec())
        }
    };
    let template = PairTemplate::new(kind, &[Attribute::EcParams(curve)], life, &[Use::Sign], false);
    Ok(session.generate_key_pair(&mechanism, &template.public, &template.private)?)
}

/// One signature. The modules' raw CKM_ECDSA takes a hash of any length, so it is made here.
pub(super) fn sign(
    session: &Session,
    key: ObjectHandle,
    algorithm: SignatureAlgorithm,
    message: &[u8],
) -> Result<Vec<u8>, Fault> {
    match algorithm {
        SignatureAlgorithm::EcdsaP256Sha256 => {
            ecdsa_der(&session.sign(&Mechanism::Ecdsa, key, &Sha256::digest(message))?)
        }
        SignatureAlgorithm::Ed25519 => {
            let pure = Mechanism::Eddsa(EddsaParams::new(EddsaSignatureScheme::Ed25519));
            Ok(session.sign(&pure, key, message)?)
        }
    }
}

/// A crash of a module can leave objects behind whose attributes are missing: they are reported, not skipped.
fn describe(session: &Session, handle: ObjectHandle) -> TokenObject {
    let mut object =
        TokenObject { id: None, label: String::new(), class: "unknown".into(), problems: Vec::new() };
    let wanted = [
        AttributeType::Class,
        AttributeType::Label,
        AttributeType::Id,
        AttributeType::Private,
        AttributeType::Sensitive,
        AttributeType::Extractable,
        AttributeType::NeverExtractable,
    ];
    let attributes = match session.get_attributes(handle, &wanted) {
        Ok(attributes) => attributes,
        Err(error) => {
            object
                .problems
                .push(format!("its attributes cannot be read: {}", HsmError::from(Fault::from(error))));
            return object;
        }
    };
    for attribute in attributes {
        match attribute {
            Attribute::Class(class) => object.class = class.to_string(),
            Attribute::Label(label) => object.label = String::from_utf8_lossy(&label).into_owned(),
            Attribute::Id(id) => object.id = String::from_utf8_lossy(&id).parse().ok(),
            Attribute::Private(false) => object.problems.push("visible without log-in".into()),
            Attribute::Sensitive(false) => object.problems.push("readable: not sensitive".into()),
            Attribute::Extractable(true) => object.problems.push("extractable".into()),
            Attribute::NeverExtractable(false) => object.problems.push("was extractable once".into()),
            _ => {}
        }
    }
    if object.class == "unknown" || object.label.is_empty() {
        object.problems.push("empty: what a crash leaves behind".into());
    } else if object.id.as_ref().is_some_and(|id| id.to_string() != object.label) {
        object.problems.push("its CKA_ID is ours but its label is not".into());
    }
    object
}

fn report_incomplete(objects: &mut [TokenObject]) {
    let mut classes: BTreeMap<ObjectId, Vec<String>> = BTreeMap::new();
    for object in objects.iter() {
        if let Some(id) = &object.id {
            classes.entry(id.clone()).or_default().push(object.class.clone());
        }
    }
    for object in objects {
        let Some((id, found)) = object.id.as_ref().and_then(|id| Some((id, classes.get(id)?))) else {
            continue;
        };
        let expected: &[&str] = match id {
            ObjectId::Kek(..) | ObjectId::TokenMac(_) => &["CKO_SECRET_KEY"],
            _ => &["CKO_PRIVATE_KEY", "CKO_PUBLIC_KEY"],
        };
        for class in expected {
            match found.iter().filter(|found| found == class).count() {
                0 => object.problems.push(format!("its {class} is missing")),
                1 => {}
                count => object.problems.push(format!("there are {count} of {class} with this name")),
            }
        }
    }
}
