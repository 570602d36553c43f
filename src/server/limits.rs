//! How much of the listeners one source, or all of them together, may use.

use crate::broker::refusals::source;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// Bounds of the listeners; the defaults suit a broker whose VNFCIs may all come through one address translation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// A TLS handshake that is not done by then is dropped. Default 5 s.
    pub handshake_timeout: Duration,
    /// Handshakes of one listener at the same time; further connections wait in the kernel. Default 1,024.
    pub handshakes: usize,
    /// Open connections of one listener; further ones wait in the kernel. Default 16,384.
    pub connections: usize,
    /// Open connections of all listeners with TLS together, management's apart: see [`Limits::within`]. Default: no bound.
    pub connections_together: usize,
    /// Handshakes of one source at the same time. Default 256.
    pub handshakes_per_source: u32,
    /// Open connections of one source. Default 4,096.
    pub connections_per_source: u32,
    /// New connections of one source per second, sustained. Default 2,000.
    pub rate_per_source: u32,
    /// New connections of one source that may come at once. Default 4,000.
    pub burst_per_source: u32,
    /// How long calls and connections may take to end at a shutdown. Default 20 s.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(5),
            handshakes: 1_024,
            connections: 16_384,
            connections_together: Semaphore::MAX_PERMITS,
            handshakes_per_source: 256,
            connections_per_source: 4_096,
            rate_per_source: 2_000,
            burst_per_source: 4_000,
            drain: Duration::from_secs(20),
        }
    }
}

/// Open connections of the management listener, whatever is configured for the others: few call there, and what they need
/// is kept free for them.
pub(super) const MANAGEMENT_CONNECTIONS: usize = 1_024;
/// What the process opens beside connections with TLS: the plain listeners, the database, the workers' sockets, files.
const OTHER_DESCRIPTORS: usize = 2 * super::http::CONNECTIONS_MAX + 512;

impl Limits {
    /// Descriptors that `listeners` of them need at most, management among them.
    pub fn need(&self, listeners: usize) -> usize {
        let connections = self.connections.saturating_mul(listeners.saturating_sub(1));
        connections.saturating_add(MANAGEMENT_CONNECTIONS + OTHER_DESCRIPTORS)
    }

    /// The same limits for a process that may have so many descriptors open: connections beyond wait in the kernel, and
    /// what the process needs for itself, and for management, is not taken by a herd.
    #[must_use]
    pub fn within(self, descriptors: usize) -> Self {
        let left = descriptors.saturating_sub(MANAGEMENT_CONNECTIONS + OTHER_DESCRIPTORS);
        // At the least half: with fewer than some thousands of descriptors the reserve is more than is likely to be used.
        Self { connections_together: left.max(descriptors / 2).max(1), ..self }
    }
}

/// Sources that are remembered before idle ones are forgotten.
const REMEMBERED: usize = 10_000;

/// Connections by source: an IPv4 address, or the /64 of an IPv6 one (a host has all of it).
pub(super) struct Sources {
    limits: Limits,
    // Held for a few instructions only, never across an await.
    seen: Mutex<HashMap<IpAddr, Source>>,
}

struct Source {
    handshakes: u32,
    connections: u32,
    tokens: f64,
    refilled: Instant,
}

impl Sources {
    pub(super) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { limits, seen: Mutex::new(HashMap::new()) })
    }

    /// Lets a new connection begin its handshake, or not.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr, now: Instant) -> Option<Admission> {
        let key = source(address);
        let burst = f64::from(self.limits.burst_per_source);
        let rate = f64::from(self.limits.rate_per_source);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= REMEMBERED && !seen.contains_key(&key) {
            seen.retain(|_, source| source.connections > 0 || source.tokens_at(now, rate, burst) < burst);
        }
        let entry =
            seen.entry(key).or_insert(Source { handshakes: 0, connections: 0, tokens: burst, refilled: now });
        entry.tokens = entry.tokens_at(now, rate, burst);
        entry.refilled = now;
        if entry.tokens < 1.0
            || entry.handshakes >= self.limits.handshakes_per_source
            || entry.connections >= self.limits.connections_per_source
        {
            return None;
        }
        entry.tokens -= 1.0;
        entry.handshakes += 1;
        entry.connections += 1;
        Some(Admission { sources: Arc::clone(self), key, shaking_hands: true })
    }

    fn change(&self, key: IpAddr, change: impl FnOnce(&mut Source)) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = seen.get_mut(&key) {
            change(entry);
        }
    }
}

impl Source {
    fn tokens_at(&self, now: Instant, rate: f64, burst: f64) -> f64 {
        (self.tokens + now.saturating_duration_since(self.refilled).as_secs_f64() * rate).min(burst)
    }
}

/// One connection's place; given back when dropped.
pub(super) struct Admission {
    sources: Arc<Sources>,
    key: IpAddr,
    shaking_hands: bool,
}

impl Admission {
    /// The handshake is done: the connection is counted on, the handshake no more.
    pub(super) fn established(&mut self) {
        if std::mem::take(&mut self.shaking_hands) {
            self.sources.change(self.key, |source| source.handshakes = source.handshakes.saturating_sub(1));
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.established();
        self.sources.change(self.key, |source| source.connections = source.connections.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(limits: Limits) -> (Arc<Sources>, IpAddr, Instant) {
        (Sources::new(limits), IpAddr::from([192, 0, 2, 1]), Instant::now())
    }

    #[test]
    fn the_connections_of_a_herd_leave_management_its_descriptors() {
        let limits = Limits::default();
        assert_eq!(limits.within(20_000).connections_together, 20_000 - 1_024 - 2_560);
        assert_eq!(limits.within(1_024).connections_together, 512);
        assert_eq!(limits.need(3), 2 * 16_384 + 1_024 + 2_560);
    }

    #[test]
    fn one_source_cannot_take_all_handshakes() {
        let (sources, a, now) = sources(Limits { handshakes_per_source: 2, ..Limits::default() });
        let mut first = sources.admit(a, now).unwrap();
        let _second = sources.admit(a, now).unwrap();
        assert!(sources.admit(a, now).is_none());
        assert!(sources.admit(IpAddr::from([192, 0, 2, 2]), now).is_some(), "another source suffers");
        first.established();
        assert!(sources.admit(a, now).is_some());
    }

    #[test]
    fn a_place_is_given_back_when_the_connection_ends() {
        let (sources, a, now) = sources(Limits { connections_per_source: 1, ..Limits::default() });
        let mut place = sources.admit(a, now).unwrap();
        place.established();
        assert!(sources.admit(a, now).is_none());
        drop(place);
        assert!(sources.admit(a, now).is_some());
    }

    #[test]
    fn a_source_that_hurries_is_slowed_to_its_rate() {
        let limits = Limits { rate_per_source: 10, burst_per_source: 3, ..Limits::default() };
        let (sources, a, now) = sources(limits);
        assert_eq!((0..9).filter(|_| sources.admit(a, now).is_some()).count(), 3);
        let later = now + Duration::from_millis(250);
        assert_eq!((0..9).filter(|_| sources.admit(a, later).is_some()).count(), 2);
    }

    #[test]
    fn the_addresses_of_one_ipv6_host_are_one_source() {
        let at = |text: &str| source(text.parse().unwrap());
        assert_eq!(at("2001:db8::1"), at("2001:db8::ffff:1"));
        assert_ne!(at("2001:db8::1"), at("2001:db8:0:1::1"));
        assert_eq!(at("::ffff:192.0.2.1"), at("192.0.2.1"));
    }

    #[test]
    fn idle_sources_are_forgotten() {
        let (sources, _, now) = sources(Limits::default());
        for i in 0..u32::try_from(REMEMBERED).unwrap() {
            drop(sources.admit(IpAddr::from(i.to_be_bytes()), now));
        }
        let later = now + Duration::from_secs(60);
        drop(sources.admit(IpAddr::from([255, 0, 0, 1]), later));
        assert_eq!(sources.seen.lock().unwrap().len(), 1);
    }
}
