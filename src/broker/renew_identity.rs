//! Another client certificate for a registered identity, by the one that it has (RFC 7030 4.2.2; ADR 12).
//!
//! 1. Who asks shows a certificate of a registered identity. It must be one that the default tenant's CA signed: names that
//!    another CA has given are not ours to repeat.
//! 2. The request must have the certificate's names; its key may be the same or another one. If the identity has another
//!    certificate for this key by now, the answer was lost: it gets that one again.
//! 3. Sign in the HSM; record it as the identity's certificate, in one commit with its event. Only then is it given out. The
//!    one that was shown is good until it ends.

use crate::audit::details::{self, IdentityRenewedDetails};
use crate::audit::event::{Event, EventKind};
use crate::authorisation::{Caller, Rpc, Target, authorise};
use crate::broker::authorities::unissued;
use crate::broker::enrol::invalid;
use crate::broker::initialise::default_tenant;
use crate::broker::{Broker, BrokerError};
use crate::ca::csr::names_of;
use crate::ca::issue::BACKDATING;
use crate::ca::path::{self, Certificate, Purpose, Rules, Work};
use crate::ca::{CertificateFacts, CertificationRequest};
use crate::clock::Timestamp;
use crate::crash::{self, Point};
use crate::nfv::Sha256Hash;
use crate::store::records::IdentityRenewal;
use crate::store::{Mutation, StoreError};

impl Broker {
    /// See the module. `shown_der` is the TLS client certificate. Gives the new one, DER.
    ///
    /// # Errors
    /// As [`Broker::enrol`].
    pub(super) async fn renew_identity(
        &self,
        caller: &Caller,
        shown_der: &[u8],
        request: &CertificationRequest,
        request_der: &[u8],
    ) -> Result<Vec<u8>, BrokerError> {
        // 1.
        let target = Target { tenant: caller.tenant.as_ref(), ..Target::default() };
        authorise(caller, Rpc::RenewIdentity, target)?;
        self.may_deliver()?;
        let unreadable = |error: &dyn std::fmt::Display| BrokerError::Internal(error.to_string());
        let now = self.store.now().await?;
        let shown = CertificateFacts::parse(shown_der).map_err(|error| unreadable(&error))?;
        if !self.is_signed_here(shown_der, now) {
            return Err(invalid(
                "the certificate that you show was not signed by this CA: have the one that signed it renew it, and the \
                 operator register it"
                    .to_owned(),
            ));
        }
        // 2.
        let names = names_of(shown_der).map_err(|error| unreadable(&error))?;
        request.keeps_names_of(&names).map_err(|error| invalid(error.to_string()))?;
        if request.key_type().is_none() {
            return Err(invalid("the key is of a kind that is not served: make a P-256 one".to_owned()));
        }
        let identity = self.store.identity_by_fingerprint(shown.fingerprint).await?.ok_or_else(|| {
            BrokerError::refused("IDENTITY_UNKNOWN", format!("{} is not registered any more", caller.name))
        })?;
        let present =
            CertificateFacts::parse(&identity.certificate_der).map_err(|error| unreadable(&error))?;
        let is_another = present.fingerprint != shown.fingerprint;
        if is_another && present.not_after > now && present.public_key_der == request.public_key_der() {
            return Ok(identity.certificate_der);
        }
        // 3.
        let authority = self.issuing(&default_tenant()).await?;
        let validity = shown.not_after.since(shown.not_before).saturating_sub(BACKDATING);
        let tbs = authority
            .ca
            .client_again(&names, request.public_key_der(), validity, now, &mut rand::rng())
            .map_err(unissued)?;
        let certificate_der = self.sign_certificate(&authority.key, &tbs).await?;
        crash::reached(Point::IdentityCertified);
        let mut event = Event::new(now, EventKind::IdentityRenewed, caller.actor()).details(details::json(
            &IdentityRenewedDetails {
                identity: identity.name.clone(),
                certificate: Sha256Hash::of(&certificate_der),
                serial: hex::encode(tbs.serial),
                not_after: tbs.not_after,
                follows: shown.fingerprint,
                request: Sha256Hash::of(request_der),
            },
        ));
        event.tenant = identity.tenant.clone();
        let renewal = IdentityRenewal {
            name: identity.name,
            follows: present.fingerprint,
            followed_until: present.not_after,
            certificate_der: certificate_der.clone(),
        };
        match self.store.renew_identity(renewal, Mutation::new(move |()| vec![event])).await {
            Ok(()) => Ok(certificate_der),
            // Asked twice at the same time, or too often.
            Err(StoreError::Conflict(reason)) => Err(BrokerError::refused("IDENTITY_CONFLICT", reason)),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether a CA of the default tenant, of whatever generation, signed a TLS client certificate (DER).
    fn is_signed_here(&self, certificate_der: &[u8], now: Timestamp) -> bool {
        let Ok(certificate) = Certificate::from_der(certificate_der) else { return false };
        let rules = Rules::new(Purpose::TlsClient, now);
        self.authorities.load().all().iter().filter(|ca| ca.tenant.as_ref() == Some(&default_tenant())).any(
            |ca| {
                Certificate::from_der(&ca.certificate_der)
                    .and_then(|ca| path::validate(&certificate, &[], &ca, &[], &rules, &Work::default()))
                    .is_ok()
            },
        )
    }
}
