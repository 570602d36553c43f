//! A VNFCI proves possession of every delivered key.

use crate::authorisation::Caller;
use crate::broker::claim::TokenProof;
use crate::broker::{Broker, BrokerError, Peer, Request};
use crate::nfv::{ClaimId, SlotName};

/// A signature by a slot's key.
#[derive(Debug, Clone)]
pub struct SlotSignature {
    /// The slot.
    pub slot: SlotName,
    /// As `identity::confirm` defines it.
    pub signature: Vec<u8>,
}

/// A confirmation as it arrived.
#[derive(Debug, Clone)]
pub struct Confirm {
    /// The request.
    pub request: Request,
    /// What is confirmed.
    pub claim: ClaimId,
    /// One per slot.
    pub signatures: Vec<SlotSignature>,
    /// With a one-time token.
    pub token: Option<TokenProof>,
}

impl Broker {
    /// Over the bootstrap listener, by the initial credential. Says whether it was confirmed now.
    pub async fn confirm(&self, _peer: &Peer, _confirm: Confirm) -> Result<bool, BrokerError> {
        todo!()
    }

    /// Over the VNFCI listener, by a delivered certificate ([`Broker::identify_vnfci`]).
    pub async fn confirm_delivered(&self, _caller: &Caller, _confirm: Confirm) -> Result<bool, BrokerError> {
        todo!()
    }
}
