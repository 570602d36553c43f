//! VNFCIs renew what they hold: fresh credentials, drawn and confirmed by a delivered certificate.

use crate::ask::{renewal, request, signatures, unseal};
use crate::model::Answered;
use crate::steps::{Simulation, Told};
use keybroker::authorisation::Rpc;
use keybroker::broker::confirm::Confirm;
use keybroker::broker::{BrokerError, Peer};
use keybroker::clock::Timestamp;
use keybroker::identity::confirm::confirm_message;
use keybroker::sealing::RecipientKey;
use rand::RngExt;
use rand::seq::IndexedRandom;
use std::sync::Arc;

/// Renewals of one VNFCI that may be in their overlap when it renews again, and recipient keys that one may give up.
const BOUND: usize = 3;

impl Simulation {
    /// Whether a refusal may be due to the certificate that was shown: withdrawn, or at its end.
    fn shown_is_bad(&self, place: usize, shown: &Answered, now: Timestamp) -> bool {
        let withdrawn = |id| self.model.revoked.contains(id) || self.model.maybe_revoked.contains(id);
        self.model.revoked_again.contains(&self.model.vnfcis[place].id)
            || shown.credentials().iter().any(withdrawn)
            || shown.keys.iter().any(|key| now >= key.not_after)
    }

    /// One that holds something, with what it holds and the connection by one of its certificates.
    fn holder(&mut self, renewing: bool) -> Option<(usize, Answered, Peer)> {
        let vnfcis = self.model.vnfcis.iter().enumerate();
        let holders: Vec<usize> = vnfcis
            .filter(|(_, one)| one.confirmed.is_some() && (!renewing || one.renewing.is_some()))
            .map(|(place, _)| place)
            .collect();
        let place = *holders.choose(&mut self.random)?;
        let held = self.model.vnfcis[place].confirmed.clone()?;
        let by = held.keys.choose(&mut self.random)?;
        let peer = Peer { chain_der: vec![by.certificate_der.clone()], ..self.world.peer() };
        Some((place, held, peer))
    }

    pub(crate) async fn renew(&mut self) {
        let Some((place, held, peer)) = self.holder(false) else { return };
        let rebooted = self.random.random_bool(0.2);
        let vnfci = &mut self.model.vnfcis[place];
        if rebooted {
            vnfci.recipient = Arc::new(RecipientKey::generate().unwrap());
        }
        let recipient = Arc::clone(&vnfci.recipient);
        let (id, index) = (self.request_id(), self.replica());
        let asked = renewal(&recipient, id);
        let told = self
            .told(index, |broker| async move {
                let caller = broker.identify_vnfci(&peer, Some(Rpc::Renew)).await?;
                broker.renew(&caller, &peer, asked).await
            })
            .await;
        let now = self.world.now();
        let bad = self.shown_is_bad(place, &held, now);
        let vnfci = &self.model.vnfcis[place];
        let certain = !vnfci.uncertain;
        match told {
            Told::Done(sealed) => {
                assert!(!(certain && vnfci.ended), "{} renewed after its end", vnfci.id);
                let all_revoked = held.credentials().is_subset(&self.model.revoked);
                assert!(!all_revoked, "{} renewed by a revoked certificate", vnfci.id);
                let all_expired = held.keys.iter().all(|key| now >= key.not_after);
                assert!(!all_expired, "{} renewed by an expired certificate", vnfci.id);
                let answered = unseal(&recipient, &held.token, sealed);
                self.renewal_answered(place, answered, certain, now);
            }
            Told::Unknown => self.model.vnfcis[place].uncertain = true,
            Told::Refused(BrokerError::PoolEmpty { .. }) => self.model.count("empty"),
            Told::Refused(refusal) => {
                // Of an earlier arming nothing is renewed.
                let earlier = held.token != vnfci.token || vnfci.ended;
                let bound = vnfci.superseded.len() >= BOUND || vnfci.renewals_given_up >= BOUND;
                assert!(bad || earlier || bound || !certain, "{} was refused: {refusal}", vnfci.id);
                self.model.count("renewals refused");
            }
        }
    }

    /// Notes the answer to a renewal and what it ended.
    fn renewal_answered(&mut self, place: usize, answered: Answered, certain: bool, now: Timestamp) {
        let vnfci = &mut self.model.vnfcis[place];
        match vnfci.renewing.clone() {
            Some(open) if open.claim == answered.claim => {
                assert!(open.recipient_key == answered.recipient_key, "{}: sealed to a second key", vnfci.id);
                assert!(open.credentials() == answered.credentials(), "{}: other credentials", vnfci.id);
                self.model.count("renewals replayed");
            }
            Some(open) => {
                let overdue = now >= open.confirm_by;
                let same = open.recipient_key == answered.recipient_key;
                assert!(!(certain && same && !overdue), "{}: an open renewal was not found again", vnfci.id);
                vnfci.renewals_given_up += 1;
                // If its confirmation was lost, it is in force.
                self.model.end(Some(open).filter(|_| certain));
                self.model.count("renewals redrawn");
            }
            None => self.model.count("renewals drawn"),
        }
        self.model.unsealed(place, &answered);
        self.model.vnfcis[place].renewing = Some(answered);
    }

    pub(crate) async fn confirm_renewal(&mut self) {
        let Some((place, held, peer)) = self.holder(true) else { return };
        let Some(renewed) = self.model.vnfcis[place].renewing.clone() else { return };
        let (id, index) = (self.request_id(), self.replica());
        let confirm = Confirm {
            request: request(id, "confirm", renewed.claim.0.as_bytes()),
            claim: renewed.claim,
            signatures: signatures(&renewed, |key| {
                confirm_message(renewed.claim, key.certificate, renewed.recipient_key)
            }),
            token: None,
        };
        let told = self
            .told(index, |broker| async move {
                let caller = broker.identify_vnfci(&peer, Some(Rpc::Confirm)).await?;
                broker.confirm_delivered(&caller, confirm).await
            })
            .await;
        let now = self.world.now();
        let bad = self.shown_is_bad(place, &held, now);
        let vnfci = &mut self.model.vnfcis[place];
        match told {
            Told::Done(confirmation) => {
                let ended = renewed.credentials().iter().any(|one| self.model.ended.contains(one));
                let newly = confirmation.newly_confirmed;
                assert!(!(newly && ended), "{}: a renewal that had ended was confirmed", vnfci.id);
                assert!(newly || vnfci.uncertain, "{}: renewed before, by whom?", vnfci.id);
                vnfci.renewing = None;
                vnfci.renewals_given_up = 0;
                vnfci.were_confirmed.insert(renewed.claim);
                vnfci.superseded.extend(vnfci.confirmed.replace(renewed));
                self.model.count("renewed");
            }
            Told::Unknown => vnfci.uncertain = true,
            Told::Refused(refusal) => {
                let other = vnfci.ended || vnfci.uncertain || renewed.token != vnfci.token;
                let too_late = now >= renewed.confirm_by;
                assert!(
                    bad || other || too_late,
                    "{}: a renewal could not be confirmed: {refusal}",
                    vnfci.id
                );
                vnfci.renewing = vnfci.renewing.take().filter(|_| !too_late && !other);
            }
        }
    }
}
