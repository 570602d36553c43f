//! What a process asks of its host: for itself descriptors; for others no cores, no memory to debuggers, no pages in the
//! swap space.

use rustix::mm::MlockAllFlags;
use rustix::process::{DumpableBehavior, Resource, Rlimit};
use rustix::thread::CapabilitySet;

/// No core files of this process, and none of its memory (`ptrace`, `/proc/PID/mem`) for processes of the same user
/// that lack `CAP_SYS_PTRACE`. To be called before secrets are read.
pub fn forbid_dumps() {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    // Neither can fail for a process that lowers its own; where a platform has no such call, nothing is lost.
    let _ = rustix::process::setrlimit(Resource::Core, none);
    let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
}

/// Lets this process open as many files as it is allowed at most (`RLIMIT_NOFILE`), and says how many that is.
pub fn raise_descriptors() -> usize {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    // Cannot fail up to the hard limit; if a platform sees that otherwise, the soft one stays.
    let _ = rustix::process::setrlimit(Resource::Nofile, raised);
    let current = rustix::process::getrlimit(Resource::Nofile).current;
    current.and_then(|current| usize::try_from(current).ok()).unwrap_or(usize::MAX)
}

/// Keeps all pages of this process, now and later, out of the swap space. Whether that was allowed: it takes an
/// unlimited `RLIMIT_MEMLOCK` or `CAP_IPC_LOCK`, since under a limit a later allocation would fail.
#[must_use]
pub fn lock_memory() -> bool {
    let unlimited = rustix::process::getrlimit(Resource::Memlock).current.is_none();
    let capable =
        rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::IPC_LOCK));
    let all = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    (unlimited || capable) && rustix::mm::mlockall(all).is_ok()
}
