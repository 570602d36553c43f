//! MANO announces VNFCIs and reports their end.

use crate::authorisation::Caller;
use crate::broker::{Broker, BrokerError, Request};
use crate::clock::Timestamp;
use crate::nfv::{TenantId, VduId, VnfInstanceId, VnfciId};
use crate::store::records::{InitialCredentialKind, Page, Slot, Vnfci};

/// A VNFCI to be registered.
#[derive(Debug, Clone)]
pub struct Announcement {
    /// MANO's id.
    pub id: VnfciId,
    /// Its VNF instance.
    pub vnf_instance: VnfInstanceId,
    /// Its VDU.
    pub vdu: VduId,
    /// Its slots, 1 to 16.
    pub slots: Vec<Slot>,
    /// How its initial credential is recognised.
    pub initial_credential: InitialCredentialKind,
    /// None: 24 hours from now.
    pub expires_at: Option<Timestamp>,
}

/// The answer for one announcement.
pub enum Registered {
    /// Registered; with its token (`kb1.<id>.<base64url>`), if it was to get one. A secret.
    Done(VnfciId, Option<zeroize::Zeroizing<String>>),
    /// Refused, and why.
    Refused(VnfciId, String),
}

/// What came of a termination.
#[derive(Debug, Clone)]
pub struct TerminatedVnfci {
    /// Serial numbers that are to be revoked, hexadecimal.
    pub serials: Vec<String>,
    /// False if it had been ended before.
    pub newly_terminated: bool,
}

impl Broker {
    /// Registers up to 1,000 VNFCIs; one answer per item in order. An item whose text did not parse is refused by
    /// the API before: it passes the sentence in place of the announcement.
    pub async fn register_vnfcis(
        &self,
        _caller: &Caller,
        _request: Request,
        _tenant: Option<TenantId>,
        _items: Vec<Result<Announcement, (String, String)>>,
    ) -> Result<Vec<Registered>, BrokerError> {
        todo!()
    }

    /// One VNFCI.
    pub async fn vnfci(
        &self,
        _caller: &Caller,
        _tenant: Option<TenantId>,
        _id: VnfciId,
    ) -> Result<Vnfci, BrokerError> {
        todo!()
    }

    /// The VNFCIs within the caller's reach.
    pub async fn vnfcis(
        &self,
        _caller: &Caller,
        _tenant: Option<TenantId>,
        _vnf_instance: Option<VnfInstanceId>,
        _page: Page,
    ) -> Result<Vec<Vnfci>, BrokerError> {
        todo!()
    }

    /// Ends a VNFCI.
    pub async fn terminate_vnfci(
        &self,
        _caller: &Caller,
        _request: Request,
        _tenant: Option<TenantId>,
        _id: VnfciId,
        _storage_wiped: bool,
    ) -> Result<TerminatedVnfci, BrokerError> {
        todo!()
    }
}
