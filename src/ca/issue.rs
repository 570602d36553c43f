//! To-be-signed certificates (RFC 5280 4.1) of the root, the sub-CAs, the pools, TLS servers and clients.
//!
//! What a CA puts into every certificate is encoded once, in [`SigningCa`]; a pool's certificate is then a
//! concatenation without any parsing.

mod cross;

use super::encode::{
    INTEGER, SEQUENCE, bit_string, context, context_constructed, extension, oid, signature_algorithm, time,
    tlv, unsigned,
};
use super::extensions::{
    END_ENTITY, certification_authority, crl_distribution_points, extended_key_usage, subject_alt_name,
};
use super::facts::{CertificateFacts, InvalidCertificate};
use super::names::{NameError, check_dns_name, dns_name, plain_name};
use super::path::same_name;
use super::profile::{CertificateNames, ExtendedKeyUsage, Profile, RevocationStatus};
use super::request::{CaRequest, sub_ca_name};
use crate::clock::Timestamp;
use crate::hsm::SignatureAlgorithm;
use crate::nfv::{Sha256Hash, TenantId};
use const_oid::db::rfc5280 as id;
use const_oid::db::{rfc5912, rfc8410};
use der::Decode;
use der::asn1::ObjectIdentifier;
use rand::{CryptoRng, RngExt};
use serde::{Deserialize, Serialize};
use spki::SubjectPublicKeyInfoRef;
use std::net::IpAddr;
use std::time::Duration;
use x509_cert::Certificate;
use x509_cert::ext::pkix::KeyUsage;

/// notBefore lies this much before the issue, for relying parties whose clock is behind.
pub const BACKDATING: Duration = Duration::from_secs(60);

/// Why no to-be-signed certificate was made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    /// A name in the certificate is impossible.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The CA's certificate cannot be read.
    #[error("the CA's certificate: {0}")]
    InvalidIssuer(#[from] InvalidCertificate),
    /// The CA's certificate lacks what a CA must have.
    #[error("the CA's certificate cannot issue: {0}")]
    UnfitIssuer(String),
    /// The CA ends too soon for the certificate to be of use.
    #[error("the CA's certificate ends at {0}, too soon for a new certificate: renew the CA")]
    IssuerEnding(Timestamp),
    /// A CA would have the name of another one: the one that is to certify it.
    #[error("{0} is this CA's own name: a CA below it has another one (RFC 5280 4.1.2.6)")]
    TakenName(String),
    /// The public key is no SubjectPublicKeyInfo (RFC 5280 4.1.2.7) in DER.
    #[error("the public key is no SubjectPublicKeyInfo")]
    InvalidPublicKey,
}

/// What is to be signed. The serial number is recorded before the HSM signs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tbs {
    /// TBSCertificate, DER: exactly the bytes to be signed.
    pub der: Vec<u8>,
    /// Serial number, big-endian; positive, and its first octet is never 0.
    pub serial: [u8; 16],
    /// Start of validity.
    pub not_before: Timestamp,
    /// End of validity.
    pub not_after: Timestamp,
    /// How the CA must sign.
    pub algorithm: SignatureAlgorithm,
    /// The CRL that it names: 0 for the complete one, else a shard, counted from 1. Fixed for its life.
    pub crl_shard: u32,
}

/// Joins a TBSCertificate or TBSCertList (DER) with its signature (ECDSA: DER, RFC 3279 2.2.3; Ed25519: 64
/// octets) to the signed DER. Does not verify: the broker checks what the HSM returns.
pub fn assemble(tbs_der: &[u8], algorithm: SignatureAlgorithm, signature: &[u8]) -> Vec<u8> {
    tlv(SEQUENCE, &[tbs_der, &signature_algorithm(algorithm), &bit_string(signature)])
}

/// A CA ready to issue: its names, key identifier and the parts that all its certificates share.
#[derive(Debug, Clone)]
pub struct SigningCa {
    pub(super) name_der: Vec<u8>,
    pub(super) algorithm: SignatureAlgorithm,
    pub(super) algorithm_der: Vec<u8>,
    pub(super) authority_key_identifier: Vec<u8>,
    crl_distribution_points: Vec<u8>,
    /// The same for each shard; empty if certificates name the complete CRL.
    shard_distribution_points: Vec<Vec<u8>>,
    /// authorityInfoAccess of the pools' certificates; empty before `with_information`.
    authority_info_access: Vec<u8>,
    not_before: Timestamp,
    not_after: Timestamp,
}

/// What differs between certificates of one CA.
struct Subject<'a> {
    name_der: &'a [u8],
    spki_der: &'a [u8],
    not_before: Timestamp,
    not_after: Timestamp,
    /// Extensions besides the key identifiers and the distribution point, encoded.
    extensions: &'a [&'a [u8]],
}

impl SigningCa {
    /// From a CA's certificate (DER) and the URL of the CRL that it signs.
    ///
    /// # Errors
    /// [`IssueError::InvalidIssuer`], or [`IssueError::UnfitIssuer`] for a certificate that is not a CA's, has
    /// no subject or a key that this broker cannot sign with.
    pub fn new(certificate_der: &[u8], crl_url: &str) -> Result<Self, IssueError> {
        let facts = CertificateFacts::parse(certificate_der)?;
        if !facts.is_ca {
            return Err(IssueError::UnfitIssuer("basicConstraints does not say cA".to_owned()));
        }
        if !signs_certificates_and_crls(certificate_der) {
            return Err(IssueError::UnfitIssuer("keyUsage does not say keyCertSign and cRLSign".to_owned()));
        }
        if facts.subject.is_empty() {
            return Err(IssueError::UnfitIssuer("its subject is empty".to_owned()));
        }
        if !crl_url.is_ascii() || crl_url.is_empty() {
            return Err(IssueError::UnfitIssuer(format!("its CRL's URL {crl_url:?} is not ASCII")));
        }
        let algorithm = algorithm_of(&facts.public_key_der)?;
        let key_identifier = match facts.subject_key_identifier {
            Some(identifier) => identifier,
            None => key_identifier(&facts.public_key_der)?.to_vec(),
        };
        let authority_key_identifier = extension(
            id::ID_CE_AUTHORITY_KEY_IDENTIFIER,
            false,
            &tlv(SEQUENCE, &[&tlv(context(0), &[&key_identifier])]),
        );
        Ok(Self {
            name_der: facts.subject_der,
            algorithm,
            algorithm_der: signature_algorithm(algorithm),
            authority_key_identifier,
            crl_distribution_points: crl_distribution_points(crl_url),
            shard_distribution_points: Vec::new(),
            authority_info_access: Vec::new(),
            not_before: facts.not_before,
            not_after: facts.not_after,
        })
    }

    /// The pools' certificates each name one of these CRL shards (URLs, ASCII), by their serial numbers.
    #[must_use]
    pub fn with_crl_shards(mut self, urls: &[String]) -> Self {
        self.shard_distribution_points = urls.iter().map(|url| crl_distribution_points(url)).collect();
        self
    }

    /// The pools' certificates say in authorityInfoAccess (RFC 5280 4.2.2.1) where this CA's certificate is (URL, ASCII), and
    /// its OCSP responder, if they are to name one.
    #[must_use]
    pub fn with_information(mut self, ca_issuers: &str, ocsp: Option<&str>) -> Self {
        let access = |method: ObjectIdentifier, url: &str| {
            tlv(SEQUENCE, &[&oid(method), &tlv(context(6), &[url.as_bytes()])])
        };
        let mut accesses = ocsp.map(|url| access(ID_AD_OCSP, url)).unwrap_or_default();
        accesses.extend(access(ID_AD_CA_ISSUERS, ca_issuers));
        self.authority_info_access =
            extension(id::ID_PE_AUTHORITY_INFO_ACCESS, false, &tlv(SEQUENCE, &[&accesses]));
        self
    }

    /// How it signs.
    pub fn algorithm(&self) -> SignatureAlgorithm {
        self.algorithm
    }

    /// End of its validity; no certificate that it issues lasts longer.
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// A pool's certificate by its profile; `names` by [`Profile::names`], for each certificate anew where they carry
    /// the credential. notAfter is `now` plus validity less a random part of the jitter.
    ///
    /// # Errors
    /// [`IssueError::IssuerEnding`] if the CA's end leaves less than the profile's `min_remaining_at_claim`: such
    /// a certificate could never be given out.
    pub fn leaf(
        &self,
        profile: &Profile,
        names: &CertificateNames,
        spki_der: &[u8],
        now: Timestamp,
        rng: &mut impl CryptoRng,
    ) -> Result<Tbs, IssueError> {
        let jitter = rng.random_range(0..=profile.validity_jitter().as_secs());
        let validity = profile.validity().saturating_sub(Duration::from_secs(jitter));
        let (not_before, not_after) = self.period(now, validity);
        if not_after.since(now) < profile.min_remaining_at_claim() {
            return Err(IssueError::IssuerEnding(self.not_after));
        }
        let alternative_names;
        let mut extensions: Vec<&[u8]> = vec![&END_ENTITY];
        let usages = extended_key_usage(profile.eku());
        extensions.push(&usages);
        if !names.general_names.is_empty() {
            let critical = names.subject_is_empty || profile.san_critical();
            alternative_names = subject_alt_name(critical, &names.general_names);
            extensions.push(&alternative_names);
        }
        let subject = Subject {
            name_der: &names.subject_der,
            spki_der,
            not_before,
            not_after,
            extensions: &extensions,
        };
        if profile.revocation() == RevocationStatus::None {
            // Neither a distribution point nor a responder beside it (RFC 9608 4).
            self.in_time(&subject)?;
            let none = extension(NO_REV_AVAIL, false, &NULL);
            let common: [&[u8]; 2] = [&self.authority_key_identifier, &none];
            let serial = serial_number(rng);
            return tbs_certificate(
                self.algorithm,
                &self.algorithm_der,
                &self.name_der,
                &subject,
                &common,
                serial,
            );
        }
        self.in_time(&subject)?;
        let serial = serial_number(rng);
        // Random like the serial number, and kept with the certificate: a later change of the number of shards moves
        // no certificate to another list.
        let shards = u32::try_from(self.shard_distribution_points.len()).unwrap_or(u32::MAX);
        let crl_shard = u32::from_be_bytes([serial[12], serial[13], serial[14], serial[15]])
            .checked_rem(shards)
            .map_or(0, |index| index + 1);
        let points = match crl_shard.checked_sub(1) {
            Some(index) => &self.shard_distribution_points[index as usize],
            None => &self.crl_distribution_points,
        };
        let common: [&[u8]; 3] = [&self.authority_key_identifier, points, &self.authority_info_access];
        let tbs =
            tbs_certificate(self.algorithm, &self.algorithm_der, &self.name_der, &subject, &common, serial)?;
        Ok(Tbs { crl_shard, ..tbs })
    }

    /// Certificate of a delegated OCSP responder (RFC 6960 4.2.2.2): extKeyUsage OCSPSigning, and ocsp-nocheck
    /// (4.2.2.2.1), since its short validity takes the place of its revocation. It names no CRL.
    ///
    /// # Errors
    /// [`IssueError`].
    pub fn ocsp_responder(
        &self,
        spki_der: &[u8],
        validity: Duration,
        now: Timestamp,
        rng: &mut impl CryptoRng,
    ) -> Result<Tbs, IssueError> {
        algorithm_of(spki_der)?;
        let name_der = plain_name(None, "OCSP responder")?;
        let (not_before, not_after) = self.period(now, validity);
        let usage =
            extension(id::ID_CE_EXT_KEY_USAGE, false, &tlv(SEQUENCE, &[&oid(id::ID_KP_OCSP_SIGNING)]));
        let no_check = extension(ID_PKIX_OCSP_NOCHECK, false, &NULL);
        let extensions: [&[u8]; 3] = [&END_ENTITY, &usage, &no_check];
        let subject =
            Subject { name_der: &name_der, spki_der, not_before, not_after, extensions: &extensions };
        self.in_time(&subject)?;
        tbs_certificate(
            self.algorithm,
            &self.algorithm_der,
            &self.name_der,
            &subject,
            &[&self.authority_key_identifier],
            serial_number(rng),
        )
    }

    /// A sub-CA of a tenant (this CA is the root): critical basicConstraints with pathLen 0 and keyUsage
    /// keyCertSign and cRLSign. Its subject tells tenant, name and generation.
    ///
    /// # Errors
    /// [`IssueError`].
    #[allow(clippy::too_many_arguments, reason = "all of them are in the certificate")]
    pub fn sub_ca(
        &self,
        tenant: &TenantId,
        name: &str,
        generation: u32,
        spki_der: &[u8],
        validity: Duration,
        now: Timestamp,
        rng: &mut impl CryptoRng,
    ) -> Result<Tbs, IssueError> {
        let name_der = sub_ca_name(tenant, name, generation)?;
        self.authority(&name_der, spki_der, 0, validity, now, rng)
    }

    /// A CA that asked for it, with the subject that it asked for.
    ///
    /// # Errors
    /// [`IssueError::TakenName`] if that is this CA's name, however it is written.
    pub fn requested_ca(
        &self,
        request: &CaRequest,
        path_length: u8,
        validity: Duration,
        now: Timestamp,
        rng: &mut impl CryptoRng,
    ) -> Result<Tbs, IssueError> {
        if same_name(&request.subject_der, &self.name_der) {
            return Err(IssueError::TakenName(request.subject.clone()));
        }
        self.authority(&request.subject_der, &request.public_key_der, path_length, validity, now, rng)
    }

    fn authority(
        &self,
        name_der: &[u8],
        spki_der: &[u8],
        path_length: u8,
        validity: Duration,
        now: Timestamp,
        rng: &mut impl CryptoRng,
    ) -> Result<Tbs, IssueError> {
        algorithm_of(spki_der)?;
        let (not_before, not_after) = self.period(now, validity);
        let constraints = certification_authority(path_length);
        let subject = Subject { name_der, spki_der, not_before, not_after, extensions: &[&constraints] };
        self.tbs(&subject, rng)
    }

    /// Certificate of a TLS server. The first name is the common name, too, shortened if it is too long for one.
    ///
    /// # Errors
    /// [`IssueError::Name`] if there is no name at all or one is no DNS name.
    pub fn tls_server(
        &self,
        dns_names: &[String],
        ip_addresses: &[IpAddr],
        spki_der: &[u8],
        validity: Duration,
        now: Timestamp,
        rng: &mut impl CryptoRng,
    ) -> Result<Tbs, IssueError> {
        let mut general_names = Vec::new();
        for name in dns_names {
            check_dns_name(name).map_err(|problem| NameError { template: name.clone(), problem })?;
            general_names.extend(dns_name(name));
        }
        for address in ip_addresses {
            // iPAddress [7]: 4 or 16 octets (RFC 5280 4.2.1.6).
            general_names.extend(match address {
                IpAddr::V4(v4) => tlv(context(7), &[&v4.octets()]),
                IpAddr::V6(v6) => tlv(context(7), &[&v6.octets()]),
            });
        }
        let first = dns_names.first().cloned().or_else(|| ip_addresses.first().map(IpAddr::to_string));
        let common_name = first.ok_or_else(|| NameError {
            template: String::new(),
            problem: "a TLS server needs at least one DNS name or IP address".to_owned(),
        })?;
        let name_der = plain_name(None, &common_name)?;
        let (not_before, not_after) = self.period(now, validity);
        let extensions: [&[u8]; 3] = [
            &END_ENTITY,
            &extended_key_usage(&[ExtendedKeyUsage::ServerAuth]),
            &subject_alt_name(false, &general_names),
        ];
        self.tbs(
            &Subject { name_der: &name_der, spki_der, not_before, not_after, extensions: &extensions },
            rng,
        )
    }

    /// Client certificate of an operator, a MANO function or an auditor: `CN=name,OU=role,O=keybroker`. The
    /// broker authorises by the registered fingerprint; the names are for people.
    ///
    /// # Errors
    /// [`IssueError::Name`] if a text is empty.
    pub fn client(
        &self,
        name: &str,
        role: &str,
        spki_der: &[u8],
        validity: Duration,
        now: Timestamp,
        rng: &mut impl CryptoRng,
    ) -> Result<Tbs, IssueError> {
        let subject_der = plain_name(Some(role), name)?;
        let names = CertificateNames { subject_der, subject_is_empty: false, general_names: Vec::new() };
        self.client_again(&names, spki_der, validity, now, rng)
    }

    /// Client certificate that follows another one, with its names (RFC 7030 4.2.2).
    ///
    /// # Errors
    /// [`IssueError::IssuerEnding`].
    pub fn client_again(
        &self,
        names: &CertificateNames,
        spki_der: &[u8],
        validity: Duration,
        now: Timestamp,
        rng: &mut impl CryptoRng,
    ) -> Result<Tbs, IssueError> {
        let (not_before, not_after) = self.period(now, validity);
        let mut extensions = vec![END_ENTITY.to_vec(), extended_key_usage(&[ExtendedKeyUsage::ClientAuth])];
        if !names.general_names.is_empty() {
            extensions.push(subject_alt_name(names.subject_is_empty, &names.general_names));
        }
        let extensions: Vec<&[u8]> = extensions.iter().map(Vec::as_slice).collect();
        let name_der = &names.subject_der;
        self.tbs(&Subject { name_der, spki_der, not_before, not_after, extensions: &extensions }, rng)
    }

    /// notBefore and notAfter, in whole seconds and within the CA's own validity.
    fn period(&self, now: Timestamp, validity: Duration) -> (Timestamp, Timestamp) {
        let (not_before, not_after) = period(now, validity);
        (not_before.max(self.not_before), not_after.min(self.not_after))
    }

    fn tbs(&self, subject: &Subject<'_>, rng: &mut impl CryptoRng) -> Result<Tbs, IssueError> {
        self.in_time(subject)?;
        let common: [&[u8]; 2] = [&self.authority_key_identifier, &self.crl_distribution_points];
        let serial = serial_number(rng);
        tbs_certificate(self.algorithm, &self.algorithm_der, &self.name_der, subject, &common, serial)
    }

    fn in_time(&self, subject: &Subject<'_>) -> Result<(), IssueError> {
        if subject.not_after <= subject.not_before {
            return Err(IssueError::IssuerEnding(self.not_after));
        }
        Ok(())
    }
}

/// A self-signed root: critical basicConstraints with pathLen 1, keyUsage keyCertSign and cRLSign. The signature
/// algorithm follows from its own key. `common_name` should tell it from other roots of the operator.
///
/// # Errors
/// [`IssueError`] for an empty name or a key that the broker cannot sign with.
pub fn root(
    common_name: &str,
    spki_der: &[u8],
    validity: Duration,
    now: Timestamp,
    rng: &mut impl CryptoRng,
) -> Result<Tbs, IssueError> {
    let algorithm = algorithm_of(spki_der)?;
    let name_der = plain_name(None, common_name)?;
    let (not_before, not_after) = period(now, validity);
    let constraints = certification_authority(1);
    let subject =
        Subject { name_der: &name_der, spki_der, not_before, not_after, extensions: &[&constraints] };
    let serial = serial_number(rng);
    tbs_certificate(algorithm, &signature_algorithm(algorithm), &name_der, &subject, &[], serial)
}

/// 126 random bits: positive and of fixed length, so that a serial number is the same 16 octets in DER, CRL, store and
/// text.
fn serial_number(rng: &mut impl CryptoRng) -> [u8; 16] {
    let mut serial = [0; 16];
    rng.fill_bytes(&mut serial);
    serial[0] = (serial[0] & 0x7f) | 0x40;
    serial
}

fn period(now: Timestamp, validity: Duration) -> (Timestamp, Timestamp) {
    let whole = |time: Timestamp| Timestamp::from_unix_seconds(time.unix_seconds());
    (whole(now.minus(BACKDATING)), whole(now.plus(validity)))
}

fn tbs_certificate(
    algorithm: SignatureAlgorithm,
    algorithm_der: &[u8],
    issuer_der: &[u8],
    subject: &Subject<'_>,
    common_extensions: &[&[u8]],
    serial: [u8; 16],
) -> Result<Tbs, IssueError> {
    let key = key_identifier(subject.spki_der)?;
    Ok(tbs_of_key(algorithm, algorithm_der, issuer_der, subject, &key, common_extensions, serial))
}

/// [`tbs_certificate`] with the subjectKeyIdentifier that the key has already.
fn tbs_of_key(
    algorithm: SignatureAlgorithm,
    algorithm_der: &[u8],
    issuer_der: &[u8],
    subject: &Subject<'_>,
    key_identifier: &[u8],
    common_extensions: &[&[u8]],
    serial: [u8; 16],
) -> Tbs {
    let key_identifier = extension(
        id::ID_CE_SUBJECT_KEY_IDENTIFIER,
        false,
        &tlv(super::encode::OCTET_STRING, &[key_identifier]),
    );
    let mut extensions: Vec<&[u8]> = subject.extensions.to_vec();
    extensions.push(&key_identifier);
    extensions.extend_from_slice(common_extensions);
    let der = tlv(
        SEQUENCE,
        &[
            &VERSION_3,
            &unsigned(&serial),
            algorithm_der,
            issuer_der,
            &tlv(SEQUENCE, &[&time(subject.not_before), &time(subject.not_after)]),
            subject.name_der,
            subject.spki_der,
            &tlv(context_constructed(3), &[&tlv(SEQUENCE, &extensions)]),
        ],
    );
    Tbs { der, serial, not_before: subject.not_before, not_after: subject.not_after, algorithm, crl_shard: 0 }
}

/// DER NULL.
const NULL: [u8; 2] = [5, 0];

/// Access method of an OCSP responder (RFC 5280 4.2.2.1).
const ID_AD_OCSP: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1");
/// Access method of a CA's own certificate (RFC 5280 4.2.2.1).
const ID_AD_CA_ISSUERS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.2");
/// RFC 6960 4.2.2.2.1.
const ID_PKIX_OCSP_NOCHECK: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1.5");

/// `[0] EXPLICIT Version`: v3(2).
const VERSION_3: [u8; 5] = [0xa0, 3, INTEGER, 1, 2];

/// id-ce-noRevAvail (RFC 9608 2): NULL, never critical, and never beside a distribution point.
const NO_REV_AVAIL: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.56");

/// Key identifier of a SubjectPublicKeyInfo (DER): the leftmost 160 bits of the SHA-256 of the key's BIT STRING
/// (RFC 7093 2, method 1).
fn key_identifier(spki_der: &[u8]) -> Result<[u8; 20], IssueError> {
    let spki = SubjectPublicKeyInfoRef::from_der(spki_der).map_err(|_| IssueError::InvalidPublicKey)?;
    let mut identifier = [0; 20];
    identifier.copy_from_slice(&Sha256Hash::of(spki.subject_public_key.raw_bytes()).0[..20]);
    Ok(identifier)
}

/// Whether a certificate's keyUsage, which a CA's must have (RFC 5280 4.2.1.3), lets it sign both.
fn signs_certificates_and_crls(certificate_der: &[u8]) -> bool {
    let Ok(certificate) = Certificate::from_der(certificate_der) else { return false };
    let usage = certificate.tbs_certificate().get_extension::<KeyUsage>();
    matches!(usage, Ok(Some((_, usage))) if usage.key_cert_sign() && usage.crl_sign())
}

/// How a CA with this public key signs.
pub(super) fn algorithm_of(spki_der: &[u8]) -> Result<SignatureAlgorithm, IssueError> {
    let spki = SubjectPublicKeyInfoRef::from_der(spki_der).map_err(|_| IssueError::InvalidPublicKey)?;
    if spki.algorithm.oid == rfc8410::ID_ED_25519 {
        return Ok(SignatureAlgorithm::Ed25519);
    }
    let curve = spki.algorithm.parameters_oid().ok();
    if spki.algorithm.oid == rfc5912::ID_EC_PUBLIC_KEY && curve == Some(rfc5912::SECP_256_R_1) {
        return Ok(SignatureAlgorithm::EcdsaP256Sha256);
    }
    Err(IssueError::UnfitIssuer(format!("its key ({}) is neither P-256 nor Ed25519", spki.algorithm.oid)))
}
