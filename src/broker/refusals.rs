//! Refusals in the audit log: one by one while they are few, summed beyond, so that whoever is refused does not decide how
//! fast the log grows.
//!
//! 1. The first refusal of a source for a reason is recorded by itself, and so are further ones within [`Limits`].
//! 2. The others are counted in memory, by tenant, source and reason.
//! 3. At the end of an interval their sums are committed, an event for each tenant concerned.
//!
//! A source is the caller, where it is known, else where it comes from. Strangers use up what is kept for strangers: they do
//! not keep what known callers do out of the log.

use crate::audit::details::{self, RefusalSum, RefusalsSummedDetails, RefusedDetails};
use crate::audit::event::{Actor, Event, EventKind};
use crate::authorisation::Caller;
use crate::broker::{Broker, BrokerError, Peer, Subject};
use crate::clock::Timestamp;
use crate::nfv::{RequestId, TenantId};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// From the first refusal that is counted to the commit of the sums.
const INTERVAL: Duration = Duration::from_secs(60);
/// Pairs of source and reason, of strangers and of known callers each, that one interval tells apart; and sums. Further
/// sources are summed together.
const TOLD_APART: usize = 1_024;

/// How many refusals of an interval (a minute) are recorded one by one, beside the first of each source and reason; of
/// strangers and of known callers each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Of one source.
    pub per_source: u32,
    /// Of all together.
    pub together: u32,
}

impl Default for Limits {
    /// 60 and 600: what people look at one by one.
    fn default() -> Self {
        Self { per_source: 60, together: 600 }
    }
}

/// Where a connection comes from, as limits count it: an IPv4 address, or the /64 of an IPv6 one (a host has all of it).
pub fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::from(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        v4 => v4,
    }
}

/// Who was refused.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Source {
    /// Nobody known, from there.
    Stranger(IpAddr),
    /// A known caller.
    Known(String),
}

impl Source {
    fn of(caller: Option<&Caller>, peer: &Peer) -> Self {
        match caller {
            Some(caller) => Self::Known(caller.actor().0),
            None => Self::Stranger(source(peer.address.ip())),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Stranger(IpAddr::V6(network)) => format!("{network}/64"),
            Self::Stranger(v4) => v4.to_string(),
            Self::Known(actor) => actor.clone(),
        }
    }
}

/// What one sum is of. Without a source: of all that are not told apart.
type Summed = (Option<TenantId>, Option<Source>, &'static str);

/// The refusals of an interval.
#[derive(Default)]
pub(super) struct Ledger {
    begun: Option<Instant>,
    strangers: Book,
    known: Book,
    sums: BTreeMap<Summed, u64>,
}

/// What is recorded one by one in an interval.
#[derive(Default)]
struct Book {
    recorded: u32,
    sources: HashMap<Source, Page>,
    /// Pairs of source and reason in `sources`.
    pairs: usize,
}

#[derive(Default)]
struct Page {
    recorded: u32,
    reasons: BTreeSet<&'static str>,
}

impl Ledger {
    /// Whether a refusal is to be recorded by itself; if not, it is counted.
    fn enter(
        &mut self,
        (tenant, source, reason): (Option<TenantId>, Source, &'static str),
        limits: Limits,
        now: Instant,
    ) -> bool {
        self.begun.get_or_insert(now);
        let book = match source {
            Source::Stranger(_) => &mut self.strangers,
            Source::Known(_) => &mut self.known,
        };
        match book.enter(&source, reason, limits) {
            Entry::Recorded => return true,
            Entry::Counted => self.count((tenant, Some(source), reason), 1),
            Entry::NotToldApart => self.count((tenant, None, reason), 1),
        }
        false
    }

    fn count(&mut self, summed: Summed, refusals: u64) {
        self.begun.get_or_insert_with(Instant::now);
        let full = self.sums.len() >= TOLD_APART && !self.sums.contains_key(&summed);
        // Tenants and reasons are few: what operators made, and what this program knows.
        let summed = if full { (summed.0, None, summed.2) } else { summed };
        *self.sums.entry(summed).or_default() += refusals;
    }

    /// Ends the interval if it is over, or `anyway`. What it counted, and since when.
    fn close(&mut self, now: Instant, anyway: bool) -> Option<(Instant, BTreeMap<Summed, u64>)> {
        let begun = self.begun?;
        if !anyway && now.saturating_duration_since(begun) < INTERVAL {
            return None;
        }
        let ended = std::mem::take(self);
        Some((begun, ended.sums))
    }

    /// Counts again what could not be committed.
    fn reopen(&mut self, begun: Instant, sums: BTreeMap<Summed, u64>) {
        // It is over at once: it is tried again in the next round.
        self.begun = Some(begun);
        for (summed, refusals) in sums {
            self.count(summed, refusals);
        }
    }
}

enum Entry {
    Recorded,
    Counted,
    NotToldApart,
}

impl Book {
    fn enter(&mut self, source: &Source, reason: &'static str, limits: Limits) -> Entry {
        let met = self.sources.get(source).is_some_and(|page| page.reasons.contains(reason));
        if !met && self.pairs >= TOLD_APART {
            return Entry::NotToldApart;
        }
        let page = self.sources.entry(source.clone()).or_default();
        self.pairs += usize::from(page.reasons.insert(reason));
        if met && (page.recorded >= limits.per_source || self.recorded >= limits.together) {
            return Entry::Counted;
        }
        page.recorded += 1;
        self.recorded += 1;
        Entry::Recorded
    }
}

impl Broker {
    /// Records a refusal (`Refused`, `Denied`, `RearmNeeded` or `QuotaExceeded`) in the audit log, by itself or in a sum.
    /// Called once per refused call, by the API's one wrapper. What cannot be committed now is committed in a sum later.
    pub async fn record_refusal(
        &self,
        caller: Option<&Caller>,
        peer: &Peer,
        rpc: &str,
        request: Option<RequestId>,
        error: &BrokerError,
    ) {
        let (code, reason, subject) = match error {
            BrokerError::Refused { code, reason, subject }
            | BrokerError::RefusedForNow { code, reason, subject, .. } => {
                (*code, reason.clone(), subject.clone())
            }
            BrokerError::RearmNeeded { tenant, vnfci, .. } => (
                "CERTIFICATE_EXPIRED",
                error.to_string(),
                Subject { tenant: Some(tenant.clone()), vnfci: Some(vnfci.clone()) },
            ),
            BrokerError::Denied(denied) => ("NOT_AUTHORISED", denied.to_string(), Subject::default()),
            BrokerError::QuotaExceeded(exceeded) => (
                "QUOTA_EXCEEDED",
                exceeded.to_string(),
                Subject { tenant: Some(exceeded.tenant.clone()), vnfci: None },
            ),
            _ => return,
        };
        let tenant = subject.tenant.or_else(|| caller.and_then(|caller| caller.tenant.clone()));
        let source = Source::of(caller, peer);
        let limits = self.settings.load().refusals;
        let counted = (tenant.clone(), source.clone(), code);
        let singly = self.ledger().enter(counted, limits, Instant::now());
        let recorded = if singly { "singly" } else { "summed" };
        metrics::counter!("keybroker_refusals_total", "reason" => code, "recorded" => recorded).increment(1);
        if !singly {
            return;
        }
        let actor = caller.map_or_else(|| peer.actor(), Caller::actor);
        let of_tenant = tenant.clone();
        let committed = async {
            let details = RefusedDetails {
                rpc: rpc.to_owned(),
                reason_code: code.to_owned(),
                reason,
                peer: peer.address.to_string(),
            };
            let mut event = Event::new(self.store.now().await?, EventKind::Refused, actor);
            event.vnfci = subject.vnfci.or_else(|| caller.and_then(|caller| caller.vnfci.clone()));
            event.tenant = of_tenant;
            event.request = request;
            self.store.append_events(vec![event.details(details::json(&details))]).await
        };
        if let Err(error) = committed.await {
            tracing::error!(%error, rpc, code, "a refusal could not be recorded by itself; it is counted");
            self.ledger().count((tenant, Some(source), code), 1);
        }
    }

    /// Commits the sums of an interval that is over, or `anyway`: when no more callers come.
    ///
    /// # Errors
    /// The store's; then it is tried again.
    pub(super) async fn sum_up_refusals(&self, anyway: bool) -> Result<(), BrokerError> {
        let Some((begun, sums)) = self.ledger().close(Instant::now(), anyway) else { return Ok(()) };
        if sums.is_empty() {
            return Ok(());
        }
        let committed = async {
            let now = self.store.now().await?;
            self.store.append_events(summed(&sums, now.minus(begun.elapsed()), now)).await
        };
        if let Err(error) = committed.await {
            if anyway {
                let lost = sums.values().sum();
                metrics::counter!("keybroker_audit_lost_refusals_total").increment(lost);
                tracing::error!(%error, lost, "refusals could not be recorded");
            }
            self.ledger().reopen(begun, sums);
            return Err(error.into());
        }
        Ok(())
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        // What a panicking thread left is consistent enough to count on: a refusal more or less.
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An event for each tenant, and one for what concerns none that is known.
fn summed(sums: &BTreeMap<Summed, u64>, since: Timestamp, until: Timestamp) -> Vec<Event> {
    let mut by_tenant: BTreeMap<&Option<TenantId>, Vec<RefusalSum>> = BTreeMap::new();
    for ((tenant, source, reason), refusals) in sums {
        by_tenant.entry(tenant).or_default().push(RefusalSum {
            source: source.as_ref().map(Source::text),
            reason_code: (*reason).to_owned(),
            refusals: *refusals,
        });
    }
    let event = |(tenant, sums): (&Option<TenantId>, Vec<RefusalSum>)| {
        let refusals = sums.iter().map(|sum| sum.refusals).sum();
        let details = RefusalsSummedDetails { since, until, refusals, sums };
        let event = Event::new(until, EventKind::RefusalsSummed, Actor::broker());
        Event { tenant: tenant.clone(), ..event.details(details::json(&details)) }
    };
    by_tenant.into_iter().map(event).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { per_source: 3, together: 5 };

    fn stranger(host: u32) -> Source {
        Source::Stranger(IpAddr::V4(host.into()))
    }

    fn known(name: &str) -> Source {
        Source::Known(name.to_owned())
    }

    /// How many of `refusals` alike are recorded by themselves.
    fn enter(ledger: &mut Ledger, source: &Source, reason: &'static str, refusals: usize) -> usize {
        let now = Instant::now();
        (0..refusals).filter(|_| ledger.enter((None, source.clone(), reason), LIMITS, now)).count()
    }

    fn counted(ledger: &Ledger) -> u64 {
        ledger.sums.values().sum()
    }

    #[test]
    fn one_source_is_recorded_singly_up_to_its_limit_and_exactly_summed_beyond() {
        let mut ledger = Ledger::default();
        assert_eq!(enter(&mut ledger, &stranger(1), "A", 10), 3);
        // The first for another reason is recorded, whatever went before.
        assert_eq!(enter(&mut ledger, &stranger(1), "B", 10), 1);
        assert_eq!(ledger.sums[&(None, Some(stranger(1)), "A")], 7);
        assert_eq!(ledger.sums[&(None, Some(stranger(1)), "B")], 9);
    }

    #[test]
    fn all_sources_together_are_bounded_and_the_first_of_each_is_recorded_still() {
        let mut ledger = Ledger::default();
        let recorded: usize = (0..10).map(|host| enter(&mut ledger, &stranger(host), "A", 10)).sum();
        // 3 and 2 within the bound, then the first of each.
        assert_eq!(recorded, 3 + 2 + 8);
        assert_eq!(counted(&ledger), 100 - 13);
    }

    #[test]
    fn strangers_do_not_keep_known_callers_out_of_the_log() {
        let mut ledger = Ledger::default();
        for host in 0..3_000 {
            enter(&mut ledger, &stranger(host), "A", 2);
        }
        assert_eq!(enter(&mut ledger, &known("nfvo:n"), "NOT_AUTHORISED", 4), 3);
        assert_eq!(ledger.sums[&(None, Some(known("nfvo:n")), "NOT_AUTHORISED")], 1);
    }

    #[test]
    fn any_number_of_sources_takes_bounded_memory_and_nothing_is_lost() {
        let mut ledger = Ledger::default();
        let recorded: usize = (0..5_000).map(|host| enter(&mut ledger, &stranger(host), "A", 2)).sum();
        assert_eq!(recorded as u64 + counted(&ledger), 10_000);
        assert!(recorded <= TOLD_APART + LIMITS.together as usize, "{recorded}");
        assert!(ledger.strangers.sources.len() <= TOLD_APART && ledger.sums.len() <= TOLD_APART + 1);
        assert!(ledger.sums[&(None, None, "A")] >= 2 * (5_000 - TOLD_APART as u64));
    }

    #[test]
    fn an_interval_ends_once_and_one_that_could_not_be_committed_is_counted_again() {
        let mut ledger = Ledger::default();
        let now = Instant::now();
        assert!(ledger.close(now, true).is_none(), "nothing was refused");
        enter(&mut ledger, &stranger(1), "A", 5);
        assert!(ledger.close(now, false).is_none(), "the interval is not over");
        let (begun, sums) = ledger.close(now + 2 * INTERVAL, false).unwrap();
        assert_eq!(sums.values().sum::<u64>(), 2);
        // A new interval began meanwhile.
        enter(&mut ledger, &stranger(1), "A", 4);
        ledger.reopen(begun, sums);
        let (since, sums) = ledger.close(begun, true).unwrap();
        assert_eq!((since, sums.values().sum::<u64>()), (begun, 3));
        assert!(ledger.close(now, true).is_none());
    }

    #[test]
    fn a_sum_says_whose_how_many_and_why_to_each_tenants_auditor() {
        let tenant: TenantId = "acme".parse().unwrap();
        let v6 = Source::Stranger(source("2001:db8::1".parse().unwrap()));
        let sums = BTreeMap::from([
            ((None, Some(v6), "A"), 2),
            ((Some(tenant.clone()), None, "B"), 3),
            ((Some(tenant.clone()), Some(known("vnfm:v")), "B"), 4),
        ]);
        let times = [1, 2].map(Timestamp::from_unix_seconds);
        let [of_none, of_acme] = &summed(&sums, times[0], times[1])[..] else { panic!() };
        assert_eq!((&of_none.tenant, &of_acme.tenant), (&None, &Some(tenant)));
        assert_eq!(of_none.details["sums"][0]["source"], "2001:db8::/64");
        assert_eq!(
            (&of_acme.details["refusals"], &of_acme.details["sums"][1]["source"]),
            (&7.into(), &"vnfm:v".into())
        );
    }
}
