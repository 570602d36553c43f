//! Registered clients: MANO, auditors and operators on the management listener, agents and registration authorities on EST.
//!
//! A registration pins one certificate, and that certificate is judged like every other one (`ca::path`), when it is registered
//! and at every call:
//!
//! 1. It is for TLS clients: usages, known critical extensions, validity, accepted algorithms.
//! 2. What this broker issued and revoked is refused.
//! 3. Where one of our CAs issued it, or an anchor of its tenant (of any tenant for an identity without one), its whole path is
//!    judged, for an anchor as the anchor demands: policies, strictness, CRLs.
//! 4. Where nobody known issued it, the operator who registered it is its anchor.
//!
//! No judgement is kept, so that a CRL counts from the call after its commit on; of a CRL it is kept who signed it.

use crate::authorisation::Caller;
use crate::broker::{Broker, BrokerError, Peer};
use crate::ca::path::{self, Certificate, PathError, Purpose, Revocation, Rules, Work};
use crate::clock::Timestamp;
use crate::credential::CertificateState;
use crate::identity::x509;
use crate::nfv::TenantId;

impl Broker {
    /// The registered identity behind a connection.
    ///
    /// # Errors
    /// [`BrokerError::Refused`] if there is none, or its certificate is not accepted (any more).
    pub async fn identify_registered(&self, peer: &Peer) -> Result<Caller, BrokerError> {
        let (fingerprint, _) = self.presented(peer).await?;
        let identity = self.store.identity_by_fingerprint(fingerprint).await?.ok_or_else(|| {
            BrokerError::refused(
                "IDENTITY_UNKNOWN",
                format!("certificate sha256:{fingerprint} is not registered"),
            )
        })?;
        self.accept_client(peer, identity.tenant.as_ref()).await.map_err(|refusal| {
            match &identity.tenant {
                Some(tenant) => refusal.concerning(tenant, None),
                None => refusal,
            }
        })?;
        Ok(Caller::registered(identity.role, &identity.name, identity.tenant, identity.granted_vnfs))
    }

    /// Holds the certificate of a client that is known by it against the rules of this module.
    ///
    /// # Errors
    /// [`BrokerError::Refused`] with the reason for the auditor.
    pub(super) async fn accept_client(
        &self,
        peer: &Peer,
        tenant: Option<&TenantId>,
    ) -> Result<(), BrokerError> {
        self.judge_client(&peer.chain_der, tenant)
            .await?
            .map_err(|error| BrokerError::refused(error.code(), format!("client certificate: {error}")))
    }

    /// The same for a chain, leaf first. The outer error is the store's.
    pub(super) async fn judge_client(
        &self,
        chain_der: &[Vec<u8>],
        tenant: Option<&TenantId>,
    ) -> Result<Result<(), PathError>, BrokerError> {
        let Some((leaf_der, others)) = chain_der.split_first() else { return Ok(Err(PathError::Empty)) };
        if chain_der.len() > path::MAX_CHAIN {
            let problem = format!("more than {} certificates", path::MAX_CHAIN);
            return Ok(Err(PathError::Malformed(problem)));
        }
        let leaf = match Certificate::from_der(leaf_der) {
            Ok(leaf) => leaf,
            Err(error) => return Ok(Err(error)),
        };
        let now = self.store.now().await?;
        let rules = Rules { revocation: Revocation::Off, ..Rules::new(Purpose::TlsClient, now) };
        // 1.
        if let Err(error) = path::check_end_entity(&leaf, &rules) {
            return Ok(Err(error));
        }
        // 2.
        let issued = self.store.certificate_by_fingerprint(leaf.fingerprint()).await?;
        if let Some(issued) = issued
            && matches!(issued.state, CertificateState::RevocationPending | CertificateState::Revoked)
        {
            return Ok(Err(PathError::Revoked(format!("{}, by this broker", leaf.subject()))));
        }
        // 3.
        if let Some(judged) = self.judge_own(&leaf, &rules)? {
            return Ok(judged);
        }
        let presented: Vec<_> = others.iter().filter_map(|der| Certificate::from_der(der).ok()).collect();
        let mut anchors = self.x509_anchors().await?;
        anchors.retain(|anchor| tenant.is_none_or(|tenant| anchor.tenant == *tenant));
        Ok(judge_under(&leaf, &presented, &anchors, now))
    }

    /// Judges a certificate that one of our CAs issued; none did: nothing.
    fn judge_own(
        &self,
        leaf: &Certificate,
        rules: &Rules,
    ) -> Result<Option<Result<(), PathError>>, BrokerError> {
        let unreadable = |error: PathError| BrokerError::Internal(format!("a CA of the broker: {error}"));
        let mut judged = None;
        for authority in self.authorities.load().all() {
            if !leaf.may_be_issued_by(&authority.certificate) {
                continue;
            }
            let root = Certificate::from_der(&authority.root_der).map_err(unreadable)?;
            let between = authority.chain_der.iter().map(|der| Certificate::from_der(der));
            let between = between.collect::<Result<Vec<_>, _>>().map_err(unreadable)?;
            match path::validate(leaf, &between, &root, &[], rules, &Work::default()) {
                Ok(_) => return Ok(Some(Ok(()))),
                Err(error) => judged = Some(Err(error)),
            }
        }
        Ok(judged)
    }
}

/// Steps 3 and 4 for anchors.
fn judge_under(
    leaf: &Certificate,
    presented: &[Certificate],
    anchors: &[x509::Anchor],
    now: Timestamp,
) -> Result<(), PathError> {
    match x509::paths(leaf, presented, anchors, now) {
        Ok(_) | Err(PathError::UnknownIssuer(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// What helps an operator who wants to register a certificate that is refused.
pub(super) fn advice(error: &PathError) -> &'static str {
    match error {
        PathError::WrongUsage(_) | PathError::NotCa(_) => {
            ": give one that was issued for TLS clients: keyUsage with digitalSignature or none, extendedKeyUsage with \
             clientAuth or none"
        }
        PathError::Signature(_) => {
            ": have it signed with SHA-256 or better, by ECDSA, RSA of 2,048 bits or more, or Ed25519"
        }
        PathError::Revoked(_) => ": have its CA issue another one, for another key",
        PathError::RevocationUnknown(_) => {
            ": give a current CRL of its CA with `keybroker anchor update --crl`, or change --crl-policy"
        }
        _ => "",
    }
}
