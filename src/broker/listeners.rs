//! Certificates of the broker's own listeners, by the default tenant's main CA.
//!
//! They follow a new generation of it at once. If that leads to another root, clients that know the former one only go on
//! until the generations under it have ended: the former root, where it is our own, certifies the new generation as well,
//! for TLS servers, and the listeners show both certificates of it. The one of the former root comes first: programs that
//! follow the first issuer that fits (OpenSSL, strongSwan) are deployed with the former root, and the new one is what
//! their operators add. A former root that is someone else's cannot be asked: then listeners keep what they have until it
//! is due.

use crate::audit::details::{self, CaSignedDetails};
use crate::audit::event::{Actor, Event, EventKind};
use crate::broker::authorities::{Authority, unissued};
use crate::broker::initialise::{CertificateChain, default_tenant};
use crate::broker::{Broker, BrokerError};
use crate::ca::{CertificateFacts, Tbs};
use crate::clock::Timestamp;
use crate::nfv::{CaName, Sha256Hash};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

const SERVER_VALIDITY: Duration = Duration::from_secs(90 * 86_400);

impl Broker {
    /// Returns once a CA was taken into use since the last time: the listeners' certificates may have to follow.
    pub async fn ca_taken_into_use(&self) {
        self.wake.listeners.notified().await;
    }

    /// Whether a listener may go on with this chain (DER, leaf first): its CA is the one that issues, or there is no way
    /// for clients of the former one to follow.
    ///
    /// # Errors
    /// [`BrokerError::NotFound`] without a CA.
    pub async fn server_chain_is_current(&self, chain_der: &[Vec<u8>]) -> Result<bool, BrokerError> {
        // Another replica may have taken one into use.
        self.load_authorities().await?;
        let newest = self.issuing(&default_tenant()).await?;
        if chain_der.contains(&newest.certificate_der) {
            return Ok(true);
        }
        let own = self.own_roots();
        let main = CaName::main();
        let left_behind = |other: &Arc<Authority>| {
            other.tenant.as_ref() == Some(&default_tenant())
                && other.name == main
                && other.root_der != newest.root_der
                && chain_der.contains(&other.certificate_der)
                && !own.iter().any(|root| root.certificate_der == other.root_der)
        };
        Ok(self.live_authorities().await?.iter().any(left_behind))
    }

    /// A certificate for one of the broker's own listeners, with its issuers; see the module.
    ///
    /// # Errors
    /// [`BrokerError::Precondition`] for a name that is no DNS name.
    pub async fn issue_server_certificate(
        &self,
        dns_names: &[String],
        addresses: &[IpAddr],
        spki_der: &[u8],
    ) -> Result<CertificateChain, BrokerError> {
        let authority = self.issuing(&default_tenant()).await?;
        let now = self.store.now().await?;
        let tbs = authority
            .ca
            .tls_server(dns_names, addresses, spki_der, SERVER_VALIDITY, now, &mut rand::rng())
            .map_err(unissued)?;
        let mut chain = vec![self.sign_certificate(&authority.key, &tbs).await?];
        let live = self.live_authorities().await?;
        for root in self.own_roots() {
            let known_by_clients = live.iter().any(|other| other.root_der == root.certificate_der);
            if known_by_clients && root.certificate_der != authority.root_der {
                chain.push(self.cross_certify(&root, &authority, now).await?);
            }
        }
        chain.extend(authority.chain_der.iter().cloned());
        Ok(chain)
    }

    /// A certificate of `ca` by a root of ours that did not certify it; as long as a listener's own.
    async fn cross_certify(
        &self,
        root: &Authority,
        ca: &Authority,
        now: Timestamp,
    ) -> Result<Vec<u8>, BrokerError> {
        let facts = CertificateFacts::parse(&ca.certificate_der)
            .map_err(|error| BrokerError::Internal(error.to_string()))?;
        let tbs: Tbs = root.ca.cross(&facts, SERVER_VALIDITY, now, &mut rand::rng()).map_err(unissued)?;
        let der = self.sign_certificate(&root.key, &tbs).await?;
        let event =
            Event::new(now, EventKind::CaSigned, Actor::broker()).details(details::json(&CaSignedDetails {
                issuer: root.id,
                subject: facts.subject,
                request: facts.fingerprint,
                certificate: Sha256Hash::of(&der),
                serial: hex::encode(tbs.serial),
                not_after: tbs.not_after,
            }));
        self.store.append_events(vec![event]).await?;
        Ok(der)
    }

    /// Roots whose keys are on the token.
    fn own_roots(&self) -> Vec<Arc<Authority>> {
        let mut roots = self.authorities.load().all();
        roots.retain(|known| known.tenant.is_none());
        roots
    }

    /// Tenants' CAs that have not expired, the newest first.
    pub(super) async fn live_authorities(&self) -> Result<Vec<Arc<Authority>>, BrokerError> {
        let now = self.store.now().await?;
        let mut live = self.authorities.load().all();
        live.retain(|known| known.tenant.is_some() && known.ca.not_after() > now);
        live.sort_by_key(|known| std::cmp::Reverse(known.generation));
        Ok(live)
    }
}
