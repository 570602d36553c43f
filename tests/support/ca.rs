//! A CA in software for VNFCIs' initial certificates and for clients of the management listener: also for
//! certificates as they must not be.

use keybroker::ca::CertificateFacts;
use keybroker::clock::{Clock, SystemClock};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CustomExtension, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    RevocationReason, RevokedCertParams, SanType,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use time::OffsetDateTime;
use zeroize::Zeroizing;

/// A CA with its P-256 key.
#[derive(Clone)]
pub struct SoftwareCa {
    issuer: Arc<Issuer<'static, KeyPair>>,
    /// Its certificate, DER: self-signed, but for one made by [`SoftwareCa::below`].
    pub certificate_der: Vec<u8>,
    /// Its subjectKeyIdentifier.
    key_id: Vec<u8>,
    /// What leaves need beside them.
    chain_der: Vec<Vec<u8>>,
}

/// A certificate with its chain and key.
#[derive(Clone)]
pub struct Credential {
    /// Leaf first, without the root; DER.
    pub chain_der: Vec<Vec<u8>>,
    /// PKCS#8, DER.
    pub key_der: Zeroizing<Vec<u8>>,
}

/// What a client certificate is to look like.
#[derive(Clone, Copy)]
pub struct Shape {
    /// First and last year of its validity, 1 January each.
    pub years: (i32, i32),
    /// Its extended key usage.
    pub usage: Usage,
    /// Seconds from now to its end, instead of a year.
    pub lifetime: Option<i64>,
    /// Whether it has a critical extension that nobody knows.
    pub unknown_critical: bool,
}

/// An extended key usage.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    Client,
    Server,
}

impl Default for Shape {
    fn default() -> Self {
        Self::CLIENT
    }
}

impl Shape {
    pub const EXPIRED: Self = Self { years: (2020, 2021), ..Self::CLIENT };
    pub const NOT_YET_VALID: Self = Self { years: (2080, 2090), ..Self::CLIENT };
    pub const SERVER_ONLY: Self = Self { usage: Usage::Server, ..Self::CLIENT };
    pub const UNKNOWN_CRITICAL: Self = Self { unknown_critical: true, ..Self::CLIENT };
    const CLIENT: Self =
        Self { years: (2020, 2090), usage: Usage::Client, lifetime: None, unknown_critical: false };

    fn params(self, name: &str) -> CertificateParams {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.subject_alt_names = vec![SanType::URI(format!("urn:vnfci:{name}").try_into().unwrap())];
        params.not_before = rcgen::date_time_ymd(self.years.0, 1, 1);
        params.not_after = rcgen::date_time_ymd(self.years.1, 1, 1);
        if let Some(seconds) = self.lifetime {
            let now = SystemClock.now().unix_micros() / 1_000_000;
            params.not_after = OffsetDateTime::from_unix_timestamp(now + seconds).unwrap();
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![match self.usage {
            Usage::Client => ExtendedKeyUsagePurpose::ClientAuth,
            Usage::Server => ExtendedKeyUsagePurpose::ServerAuth,
        }];
        if self.unknown_critical {
            let mut unknown = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 32473, 7], vec![5, 0]);
            unknown.set_criticality(true);
            params.custom_extensions = vec![unknown];
        }
        params.use_authority_key_identifier_extension = true;
        params
    }
}

impl SoftwareCa {
    /// A new CA. One more may be below it.
    pub fn new(name: &str) -> Self {
        let (key, params) = (new_key(), Self::params(name));
        let certificate_der = params.self_signed(&key).unwrap().der().to_vec();
        Self::of(params, key, certificate_der, Vec::new())
    }

    /// A CA that this one certifies.
    pub fn below(&self, name: &str) -> Self {
        let (key, mut params) = (new_key(), Self::params(name));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let certificate_der = params.signed_by(&key, &*self.issuer).unwrap().der().to_vec();
        Self::of(params, key, certificate_der.clone(), vec![certificate_der])
    }

    /// Someone with another key who signs in this CA's name, with its key identifier.
    pub fn impostor(&self, name: &str) -> Self {
        let (key, mut params) = (new_key(), Self::params(name));
        params.key_identifier_method = KeyIdMethod::PreSpecified(self.key_id.clone());
        let certificate_der = params.self_signed(&key).unwrap().der().to_vec();
        Self::of(params, key, certificate_der, self.chain_der.clone())
    }

    /// Its own certificate and key, as if they were a client's.
    pub fn itself(&self) -> Credential {
        Credential {
            chain_der: vec![self.certificate_der.clone()],
            key_der: Zeroizing::new(self.issuer.key().serialize_der()),
        }
    }

    fn params(name: &str) -> CertificateParams {
        let mut params = Shape::default().params(name);
        params.subject_alt_names = Vec::new();
        params.extended_key_usages = Vec::new();
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
        params
    }

    fn of(
        params: CertificateParams,
        key: KeyPair,
        certificate_der: Vec<u8>,
        chain_der: Vec<Vec<u8>>,
    ) -> Self {
        let key_id = CertificateFacts::parse(&certificate_der).unwrap().subject_key_identifier.unwrap();
        Self { issuer: Arc::new(Issuer::new(params, key)), certificate_der, key_id, chain_der }
    }

    /// A client certificate with this common name and the URI `urn:vnfci:NAME`.
    pub fn client(&self, name: &str) -> Credential {
        self.issue(name, Shape::default())
    }

    /// A server's certificate for a DNS name.
    pub fn server(&self, name: &str) -> Credential {
        let key = new_key();
        let mut params = Shape::SERVER_ONLY.params(name);
        params.subject_alt_names = vec![SanType::DnsName(name.try_into().unwrap())];
        let certificate = params.signed_by(&key, &*self.issuer).unwrap();
        Credential {
            chain_der: vec![certificate.der().to_vec()],
            key_der: Zeroizing::new(key.serialize_der()),
        }
    }

    /// A CRL with these certificates, DER: `number` hours newer than one of yesterday, current for `days`.
    pub fn crl(&self, number: u64, days: i64, revoked: &[&Credential]) -> Vec<u8> {
        let now = OffsetDateTime::from_unix_timestamp(SystemClock.now().unix_seconds()).unwrap();
        let this_update = now - time::Duration::days(2) + time::Duration::hours(number.cast_signed());
        let entry = |credential: &&Credential| RevokedCertParams {
            serial_number: CertificateFacts::parse(credential.certificate_der()).unwrap().serial.into(),
            revocation_time: this_update,
            reason_code: Some(RevocationReason::KeyCompromise),
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update,
            next_update: this_update + time::Duration::days(days),
            crl_number: number.into(),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(entry).collect(),
            key_identifier_method: KeyIdMethod::PreSpecified(self.key_id.clone()),
        };
        params.signed_by(&self.issuer).unwrap().der().to_vec()
    }

    /// A certificate of any shape.
    pub fn issue(&self, name: &str, shape: Shape) -> Credential {
        let key = new_key();
        let certificate = shape.params(name).signed_by(&key, &*self.issuer).unwrap();
        Credential {
            chain_der: [certificate.der().to_vec()].into_iter().chain(self.chain_der.clone()).collect(),
            key_der: Zeroizing::new(key.serialize_der()),
        }
    }
}

impl Credential {
    /// A certificate that vouches for itself.
    pub fn self_made(name: &str) -> Self {
        Self::self_made_of(name, Shape::default())
    }

    /// One of any shape.
    pub fn self_made_of(name: &str, shape: Shape) -> Self {
        let key = new_key();
        let certificate = shape.params(name).self_signed(&key).unwrap();
        Self { chain_der: vec![certificate.der().to_vec()], key_der: Zeroizing::new(key.serialize_der()) }
    }

    /// The leaf, DER.
    pub fn certificate_der(&self) -> &[u8] {
        &self.chain_der[0]
    }

    /// Writes `NAME.cert.pem` and `NAME.key.pem` (0600) into a directory; gives their paths.
    pub fn write(&self, directory: &Path, name: &str) -> (PathBuf, PathBuf) {
        let (cert, key) =
            (directory.join(format!("{name}.cert.pem")), directory.join(format!("{name}.key.pem")));
        let chain: String = self.chain_der.iter().map(|der| keybroker::ca::pem("CERTIFICATE", der)).collect();
        keybroker::cli::replace(&cert, chain.as_bytes(), keybroker::cli::Readers::Everyone).unwrap();
        let pem = keybroker::ca::pem("PRIVATE KEY", &self.key_der);
        keybroker::cli::replace(&key, pem.as_bytes(), keybroker::cli::Readers::Owner).unwrap();
        (cert, key)
    }
}

fn new_key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap()
}
