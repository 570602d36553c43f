//! `AuditService`: the audit log is read.

use super::error;
use super::gate::{self, Gate};
use super::parse::{hash, invalid, optional, page_size, required, timestamp};
use super::proto::{self, audit_service_server::AuditService};
use crate::authorisation::{self, Caller, Denied, Rpc};
use crate::broker::{Broker, BrokerError, Peer};
use crate::store::records::{AuditEntry, AuditQuery};
use futures_util::Stream;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

/// Events that a stream fetches at once.
const TAIL_BATCH: u32 = 100;
/// Bytes of events on one page: a client takes messages of up to 4 MiB, and one event may list 1,000 VNFCIs.
const PAGE_BYTES_MAX: usize = 3 * 1024 * 1024;
/// The longest name of an actor.
const ACTOR_MAX: usize = 512;

/// The service.
pub(super) struct Audit(pub(super) Gate);

#[tonic::async_trait]
impl AuditService for Audit {
    async fn list_events(
        &self,
        request: Request<proto::ListEventsRequest>,
    ) -> Result<Response<proto::ListEventsResponse>, Status> {
        self.0
            .call(Rpc::ListEvents, request, |call, caller, message| async move {
                let limit = page_size(message.page_size)?;
                let query = query(message.query, message.from_index, limit)?;
                Ok(events_page(call.broker.events(&caller, query).await?, limit))
            })
            .await
    }

    type TailEventsStream = Pin<Box<dyn Stream<Item = Result<proto::TailEventsResponse, Status>> + Send>>;

    async fn tail_events(
        &self,
        request: Request<proto::TailEventsRequest>,
    ) -> Result<Response<Self::TailEventsStream>, Status> {
        let stopping = self.0.stopping().clone();
        self.0
            .call(Rpc::TailEvents, request, |call, caller, message| async move {
                let from = match message.from_index {
                    Some(index) => index,
                    None => call.broker.audit_size().await?,
                };
                let tail = Tail {
                    query: query(message.query, from, TAIL_BATCH)?,
                    broker: call.broker,
                    peer: call.peer,
                    caller,
                    waiting: VecDeque::new(),
                    stopping,
                };
                let stream = futures_util::stream::try_unfold(tail, |mut tail| async move {
                    let next = tail.next().await?;
                    Ok(Some((next, tail)))
                });
                Ok(Box::pin(stream) as Self::TailEventsStream)
            })
            .await
    }

    async fn get_checkpoint(
        &self,
        request: Request<proto::GetCheckpointRequest>,
    ) -> Result<Response<proto::GetCheckpointResponse>, Status> {
        self.0
            .call(Rpc::GetCheckpoint, request, |call, caller, _| async move {
                let checkpoint = call.broker.checkpoint(&caller).await?;
                Ok(proto::GetCheckpointResponse {
                    signed_head_json: checkpoint.signed_head,
                    public_key_pem: checkpoint.public_key_pem,
                })
            })
            .await
    }

    async fn get_destruction_receipt(
        &self,
        request: Request<proto::GetDestructionReceiptRequest>,
    ) -> Result<Response<proto::GetDestructionReceiptResponse>, Status> {
        self.0
            .call(Rpc::GetDestructionReceipt, request, |call, caller, message| async move {
                let tenant = optional("tenant", &message.tenant)?;
                let credential = required("credential_id", &message.credential_id)?;
                let receipt_json = call.broker.destruction_receipt(&caller, tenant, credential).await?;
                Ok(proto::GetDestructionReceiptResponse { receipt_json })
            })
            .await
    }
}

/// A stream of events.
struct Tail {
    broker: Arc<Broker>,
    peer: Arc<Peer>,
    caller: Caller,
    query: AuditQuery,
    waiting: VecDeque<AuditEntry>,
    stopping: CancellationToken,
}

impl Tail {
    /// The next event, however long it takes. Between two fetches the caller is identified anew: one whose identity
    /// was removed is cut off within seconds.
    async fn next(&mut self) -> Result<proto::TailEventsResponse, Status> {
        loop {
            if let Some(entry) = self.waiting.pop_front() {
                self.query.from_index = entry.index + 1;
                return Ok(proto::TailEventsResponse { event: Some(event(entry)) });
            }
            let stopping = self.stopping.clone();
            tokio::select! {
                () = stopping.cancelled() => return Err(error::stopping()),
                fetched = self.fetch() => match fetched {
                    Ok(entries) => self.waiting = entries.into(),
                    Err(failure) => return Err(self.ended(&failure).await),
                },
            }
        }
    }

    async fn fetch(&mut self) -> Result<Vec<AuditEntry>, BrokerError> {
        self.caller = self.broker.identify_registered(&self.peer).await?;
        if authorisation::reach(self.caller.role, Rpc::TailEvents).is_none() {
            return Err(Denied::Role(self.caller.role, Rpc::TailEvents).into());
        }
        self.broker.events_after(&self.caller, self.query.clone()).await
    }

    async fn ended(&self, failure: &BrokerError) -> Status {
        if matches!(failure, BrokerError::Refused { .. } | BrokerError::Denied(_)) {
            let rpc = Rpc::TailEvents.as_str();
            gate::record(&self.broker, Some(&self.caller), &self.peer, rpc, None, failure).await;
        }
        error::status(failure)
    }
}

pub(super) fn query(
    query: Option<proto::EventQuery>,
    from_index: u64,
    limit: u32,
) -> Result<AuditQuery, BrokerError> {
    // The store counts in signed 64 bits.
    if i64::try_from(from_index).is_err() {
        return Err(invalid("from_index", "is larger than any log"));
    }
    let query = query.unwrap_or_default();
    if query.actor.len() > ACTOR_MAX || query.actor.chars().any(char::is_control) {
        return Err(invalid("query.actor", "is not an actor: ROLE:TENANT/NAME, e.g. vnfm:default/vnfm-1"));
    }
    Ok(AuditQuery {
        from_index,
        limit,
        tenant: optional("query.tenant", &query.tenant)?,
        vnfci: optional("query.vnfci_id", &query.vnfci_id)?,
        public_key: if query.public_key_sha256.is_empty() {
            None
        } else {
            Some(hash("query.public_key_sha256", &query.public_key_sha256)?)
        },
        actor: Some(query.actor).filter(|actor| !actor.is_empty()),
        kind: optional("query.kind", &query.kind)?,
        since: timestamp("query.since", query.since)?,
        until: timestamp("query.until", query.until)?,
    })
}

/// A page of at most `limit` events and about 3 MiB, at least one event, with where to go on.
fn events_page(mut entries: Vec<AuditEntry>, limit: u32) -> proto::ListEventsResponse {
    let mut full = u32::try_from(entries.len()).unwrap_or(u32::MAX) >= limit;
    let mut bytes = 0;
    if let Some(cut) = entries.iter().position(|entry| {
        bytes += entry.json.len();
        bytes > PAGE_BYTES_MAX
    }) {
        let kept = cut.max(1);
        full |= kept < entries.len();
        entries.truncate(kept);
    }
    proto::ListEventsResponse {
        next_index: entries.last().filter(|_| full).map(|last| last.index + 1),
        events: entries.into_iter().map(event).collect(),
    }
}

fn event(entry: AuditEntry) -> proto::Event {
    proto::Event { index: entry.index, chain_hash: entry.hash.0.to_vec(), json: entry.json }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_empty_query_limits_nothing() {
        let all = query(None, 7, 100).unwrap();
        assert_eq!(all, AuditQuery { from_index: 7, limit: 100, ..AuditQuery::default() });
    }

    #[test]
    fn a_page_of_events_fits_into_one_message_and_says_where_to_go_on() {
        let entries = |sizes: &[usize]| {
            (7..)
                .zip(sizes)
                .map(|(index, &size)| AuditEntry {
                    index,
                    hash: crate::nfv::Sha256Hash([0; 32]),
                    json: "x".repeat(size),
                })
                .collect::<Vec<_>>()
        };
        let page = |sizes: &[usize]| {
            let page = events_page(entries(sizes), 3);
            (page.events.len(), page.next_index)
        };
        assert_eq!(page(&[]), (0, None));
        assert_eq!(page(&[1, 1]), (2, None));
        assert_eq!(page(&[1, 1, 1]), (3, Some(10)));
        assert_eq!(page(&[1, PAGE_BYTES_MAX]), (1, Some(8)));
        assert_eq!(page(&[PAGE_BYTES_MAX + 1]), (1, None));
    }

    #[test]
    fn an_unknown_kind_is_named() {
        let asked = proto::EventQuery { kind: "CLAIMS".into(), ..Default::default() };
        let error = query(Some(asked), 0, 1).unwrap_err();
        assert_eq!(error.to_string(), "query.kind: \"CLAIMS\" is not a known event kind");
    }

    proptest! {
        #[test]
        fn garbage_is_refused_but_never_a_panic(
            tenant in ".*", vnfci_id in ".*", actor in ".*", kind in ".*", from in any::<u64>(),
            public_key_sha256 in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let asked =
                proto::EventQuery { tenant, vnfci_id, public_key_sha256, actor, kind, since: None, until: None };
            let _ = query(Some(asked), from, 100);
        }
    }
}
