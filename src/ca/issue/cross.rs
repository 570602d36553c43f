//! Cross-certificates: a CA that got a certificate of another root has one of the former root, too.

use super::{IssueError, SigningCa, Subject, Tbs, key_identifier, serial_number, tbs_of_key};
use crate::ca::extensions::{certification_authority, extended_key_usage};
use crate::ca::facts::CertificateFacts;
use crate::ca::profile::ExtendedKeyUsage;
use crate::clock::Timestamp;
use rand::CryptoRng;
use std::time::Duration;

impl SigningCa {
    /// A further certificate (this CA is the root) of a CA that another root certified: the same subject, key and key
    /// identifier, so that what it issued leads here as well. For TLS servers only: pathLen 0 and extKeyUsage serverAuth.
    ///
    /// # Errors
    /// [`IssueError`].
    pub fn cross(
        &self,
        ca: &CertificateFacts,
        validity: Duration,
        now: Timestamp,
        rng: &mut impl CryptoRng,
    ) -> Result<Tbs, IssueError> {
        let (not_before, not_after) = self.period(now, validity);
        let constraints = certification_authority(0);
        let usage = extended_key_usage(&[ExtendedKeyUsage::ServerAuth]);
        let subject = Subject {
            name_der: &ca.subject_der,
            spki_der: &ca.public_key_der,
            not_before,
            not_after: not_after.min(ca.not_after),
            extensions: &[&constraints, &usage],
        };
        self.in_time(&subject)?;
        let key = match &ca.subject_key_identifier {
            Some(identifier) => identifier.clone(),
            None => key_identifier(&ca.public_key_der)?.to_vec(),
        };
        let common: [&[u8]; 2] = [&self.authority_key_identifier, &self.crl_distribution_points];
        let serial = serial_number(rng);
        Ok(tbs_of_key(self.algorithm, &self.algorithm_der, &self.name_der, &subject, &key, &common, serial))
    }
}
