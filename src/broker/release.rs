//! A VNFCI gives its credentials back.

use crate::authorisation::Caller;
use crate::broker::confirm::SlotSignature;
use crate::broker::{Broker, BrokerError, Request};
use crate::nfv::ClaimId;

/// A release as it arrived.
#[derive(Debug, Clone)]
pub struct Release {
    /// The request.
    pub request: Request,
    /// What is given back.
    pub claim: ClaimId,
    /// One per slot.
    pub signatures: Vec<SlotSignature>,
}

impl Broker {
    /// Says the serial numbers (hexadecimal) that are to be revoked.
    pub async fn release(&self, _caller: &Caller, _release: Release) -> Result<Vec<String>, BrokerError> {
        todo!()
    }
}
