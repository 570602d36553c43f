//! What a process denies others on its host: cores, its memory to debuggers, its pages to the swap space.

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
