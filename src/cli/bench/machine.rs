//! What the machine does meanwhile: the idle gate, and the processor time of processes, from `/proc`.

use super::super::failure::Failure;
use std::time::{Duration, Instant};

/// A machine of which less is idle is doing something else.
const IDLE_ENOUGH: f64 = 0.90;
/// Clock ticks per second in `/proc`: 100 on every architecture of Linux.
const TICKS_PER_SECOND: u64 = 100;

/// Waits until the machine is idle, within bounds, and remembers how idle it was.
pub(super) struct IdleGate {
    /// How long one measurement takes.
    look: Duration,
    /// How long the first wait may take.
    patience: Duration,
    /// Every share that a measurement began with.
    shares: Vec<f64>,
}

impl IdleGate {
    /// A gate that waits for `patience` at most.
    pub(super) fn new(look: Duration, patience: Duration) -> Self {
        Self { look, patience, shares: Vec::new() }
    }

    /// Waits until the machine is idle. Goes on when that takes too long: the share is reported, and a warning given.
    pub(super) async fn pass(&mut self) -> Result<(), Failure> {
        let begun = Instant::now();
        let share = loop {
            let share = idle_share(self.look).await?;
            if share >= IDLE_ENOUGH || begun.elapsed() >= self.patience {
                break share;
            }
        };
        if share < IDLE_ENOUGH {
            eprintln!(
                "  warning: only {:.0} % of this machine is idle; the figures tell less",
                share * 100.0
            );
            // A machine that is busy now will be in ten seconds: not every round waits for it as long as the first.
            self.patience = self.patience.min(Duration::from_secs(3));
        }
        self.shares.push(share);
        Ok(())
    }

    /// The smallest share that any measurement began with; 0 if none did.
    pub(super) fn lowest(&self) -> f64 {
        self.shares.iter().copied().reduce(f64::min).unwrap_or(0.0)
    }
}

/// The machine's processor time so far, in ticks over all processors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticks {
    idle: u64,
    total: u64,
}

impl Ticks {
    /// Now.
    pub(super) fn now() -> Result<Self, Failure> {
        let text = std::fs::read_to_string("/proc/stat")
            .map_err(|error| Failure::failed(format!("/proc/stat cannot be read: {error}")))?;
        Self::parse(&text).ok_or_else(|| Failure::failed("/proc/stat has no line of all processors"))
    }

    /// The share that was busy since `earlier`, 0 to 1.
    pub(super) fn busy_since(self, earlier: Self) -> f64 {
        let total = self.total.saturating_sub(earlier.total).max(1);
        1.0 - self.idle.saturating_sub(earlier.idle) as f64 / total as f64
    }

    fn parse(text: &str) -> Option<Self> {
        let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
        // user nice system idle iowait irq softirq steal; what follows is contained in them.
        let ticks: Vec<u64> = line.split_whitespace().take(8).map_while(|n| n.parse().ok()).collect();
        let idle = ticks.get(3)? + ticks.get(4)?;
        Some(Self { idle, total: ticks.iter().sum() })
    }
}

async fn idle_share(look: Duration) -> Result<f64, Failure> {
    let before = Ticks::now()?;
    tokio::time::sleep(look).await;
    Ok(1.0 - Ticks::now()?.busy_since(before))
}

/// Processor time of a process and of its children that are alive.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Spent {
    /// Its own.
    pub(super) own: Duration,
    /// Its live children's.
    pub(super) children: Duration,
}

impl Spent {
    /// So far; nothing for a process that has ended.
    pub(super) fn by(pid: u32) -> Self {
        let own = stat(pid).map_or(Duration::ZERO, |stat| stat.spent);
        let children = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let children = children
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter_map(stat)
            .filter(|stat| stat.parent == pid)
            .map(|stat| stat.spent)
            .sum();
        Self { own, children }
    }

    /// What was spent since `earlier`.
    pub(super) fn since(self, earlier: Self) -> Self {
        Self {
            own: self.own.saturating_sub(earlier.own),
            children: self.children.saturating_sub(earlier.children),
        }
    }
}

struct Stat {
    parent: u32,
    spent: Duration,
}

fn stat(pid: u32) -> Option<Stat> {
    parse_stat(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Fields of proc(5): `pid (name) state ppid ... utime(14) stime(15)`; a name may have spaces and parentheses.
fn parse_stat(text: &str) -> Option<Stat> {
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    let ticks = number(11)? + number(12)?;
    Some(Stat {
        parent: u32::try_from(number(1)?).ok()?,
        spent: Duration::from_millis(ticks * 1_000 / TICKS_PER_SECOND),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busy_share_is_of_all_processors_and_waiting_for_a_disk_is_idle() {
        let at = |text: &str| Ticks::parse(text).unwrap();
        let before = at("cpu  10 0 10 100 0 0 0 0 0 0\ncpu0 1 1 1 1\n");
        let after = at("cpu  20 0 20 150 30 0 0 0 7 7\n");
        assert!((after.busy_since(before) - 0.2).abs() < 1e-9);
        assert!(Ticks::parse("nothing").is_none());
    }

    #[test]
    fn a_process_with_an_odd_name_is_read_right() {
        let stat = parse_stat("7 (a ) b) S 3 7 7 0 -1 0 0 0 0 0 150 50 0 0 20").unwrap();
        assert_eq!((stat.parent, stat.spent), (3, Duration::from_secs(2)));
    }

    #[test]
    fn this_process_has_spent_something_or_nothing_but_is_there() {
        assert!(stat(std::process::id()).is_some());
        assert_eq!(Spent::by(u32::MAX).own, Duration::ZERO);
    }
}
