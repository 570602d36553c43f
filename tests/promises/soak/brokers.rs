//! What keeps the brokers running, as systemd does: whoever ends is started again, whatever ended it.

use super::{Place, RECOVERY};
use crate::support::mano::http_attempt;
use crate::support::process::Broker;
use crate::support::site::Site;
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Of a broker that could not start because something that it needs is away.
const UNAVAILABLE: i32 = 4;
/// An orderly end takes the drain (20 s), traces (3 s), a call of the HSM, and a change that waits for a dead database.
const ORDERLY: Duration = Duration::from_secs(60);

/// One broker's keeper.
pub(super) struct Keeper {
    broker: tokio::sync::Mutex<Option<Broker>>,
    admin: SocketAddr,
    name: String,
    /// Somebody struck it down and says when it comes back.
    down: AtomicBool,
    left_alone: AtomicBool,
    /// Process ids of every worker that was seen.
    pub(super) workers: Mutex<BTreeSet<u32>>,
    /// Kilobytes that a broker had at most.
    pub(super) peak_kib: Mutex<u64>,
    /// How long orderly ends took.
    pub(super) ends: Mutex<Vec<Duration>>,
}

impl Keeper {
    /// Takes a site's broker.
    pub(super) fn of(site: &mut Site) -> Self {
        Self {
            broker: tokio::sync::Mutex::new(Some(site.take_broker())),
            admin: site.addresses.admin,
            name: site.log().file_stem().unwrap().to_string_lossy().into_owned(),
            down: AtomicBool::new(false),
            left_alone: AtomicBool::new(false),
            workers: Mutex::default(),
            peak_kib: Mutex::default(),
            ends: Mutex::default(),
        }
    }

    /// Keeps it running until it is left alone.
    pub(super) async fn keep(self: Arc<Self>, place: Arc<Place>) {
        let site = place.sites.iter().find(|site| site.addresses.admin == self.admin).unwrap();
        while !self.left_alone.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let mut held = self.broker.lock().await;
            if let Some(broker) = held.as_mut() {
                self.workers.lock().unwrap().extend(broker.workers());
                let peak = resident_kib(broker.pid(), "VmHWM:");
                let mut highest = self.peak_kib.lock().unwrap();
                *highest = peak.max(*highest);
                drop(highest);
                let Some(status) = broker.ended() else { continue };
                place.ledger.count("broker ended by itself and was started again");
                // One that is started while the token is told to refuse its PIN does not try again.
                let refused =
                    status.code() == Some(1) && broker.log_tail(1).contains("the token refused the PIN");
                if status.code() != Some(UNAVAILABLE) && !refused {
                    place.ledger.fault(format!(
                        "the broker {} ended by itself with {status}:\n{}",
                        self.name,
                        broker.log_tail(20)
                    ));
                }
                *held = None;
            }
            if !self.down.load(Ordering::Relaxed) {
                *held = Some(site.spawn_broker());
            }
        }
    }

    /// No starts any more, and no look at it.
    pub(super) fn leave_alone(&self) {
        self.left_alone.store(true, Ordering::Relaxed);
    }

    /// The broker that was kept.
    pub(super) async fn give_up(&self) -> Option<Broker> {
        self.broker.lock().await.take()
    }

    /// SIGKILL; it stays away for a while.
    pub(super) async fn kill_for(&self, away: Duration) {
        self.down.store(true, Ordering::Relaxed);
        if let Some(broker) = self.broker.lock().await.take() {
            self.workers.lock().unwrap().extend(broker.workers());
            broker.kill();
        }
        tokio::time::sleep(away).await;
        self.down.store(false, Ordering::Relaxed);
    }

    /// SIGTERM, an orderly end, and away for a while. Gives what was wrong with the end.
    pub(super) async fn terminate_for(&self, away: Duration) -> Option<String> {
        self.down.store(true, Ordering::Relaxed);
        let mut wrong = None;
        if let Some(mut broker) = self.broker.lock().await.take() {
            self.workers.lock().unwrap().extend(broker.workers());
            let begun = Instant::now();
            broker.signal(Signal::TERM);
            let status = loop {
                if let Some(status) = broker.ended() {
                    break Some(status);
                }
                if begun.elapsed() > ORDERLY {
                    break None;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            };
            self.ends.lock().unwrap().push(begun.elapsed());
            // While it starts, SIGTERM ends it as any program.
            let good = status.is_some_and(|status| {
                use std::os::unix::process::ExitStatusExt;
                status.success() || status.code() == Some(UNAVAILABLE) || status.signal() == Some(15)
            });
            if !good {
                wrong = Some(format!(
                    "the broker {} did not end in order within {:?} ({status:?}):\n{}",
                    self.name,
                    begun.elapsed(),
                    broker.log_tail(30)
                ));
            }
        }
        tokio::time::sleep(away).await;
        self.down.store(false, Ordering::Relaxed);
        wrong
    }

    /// Stops its clock, so to say, and lets it go on.
    pub(super) async fn pause_for(&self, paused: Duration) {
        self.signal(Signal::STOP).await;
        tokio::time::sleep(paused).await;
        self.signal(Signal::CONT).await;
    }

    pub(super) async fn signal(&self, signal: Signal) {
        let held = self.broker.lock().await;
        // One that has ended a moment ago is a zombie, and takes the signal.
        held.iter().for_each(|broker| broker.signal(signal));
    }

    /// SIGKILL for some of its workers.
    pub(super) async fn kill_workers(&self, which: impl Fn(usize) -> bool) -> usize {
        let held = self.broker.lock().await;
        let Some(broker) = held.as_ref() else { return 0 };
        let workers = broker.workers();
        self.workers.lock().unwrap().extend(&workers);
        (0..workers.len()).filter(|index| which(*index)).filter_map(|index| broker.kill_worker(index)).count()
    }

    /// Waits until it says that it serves; how long that took, or what it says instead.
    pub(super) async fn until_ready(&self) -> Result<Duration, String> {
        let begun = Instant::now();
        loop {
            let said = self.readiness().await;
            match said {
                Ok(()) => return Ok(begun.elapsed()),
                Err(said) if begun.elapsed() > RECOVERY => {
                    return Err(format!("the broker {} is not ready after {RECOVERY:?}: {said}", self.name));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(40)).await,
            }
        }
    }

    async fn readiness(&self) -> Result<(), String> {
        let url = format!("http://{}/readyz", self.admin);
        match tokio::time::timeout(Duration::from_secs(5), http_attempt(&url)).await {
            Ok(Ok((head, _))) if head.starts_with("HTTP/1.1 200") => Ok(()),
            Ok(Ok((_, body))) => Err(String::from_utf8_lossy(&body).into_owned()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("it does not answer".to_owned()),
        }
    }
}

/// Kilobytes of a field of `/proc/PID/status`; 0 if the process is gone.
pub(super) fn resident_kib(pid: u32, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(field));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
}
