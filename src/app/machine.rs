//! What this process takes of its machine: descriptors, cores, priority, CPU time and memory.

use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that are not sockets of probes: database, log, health, resolver, shared libraries.
const DESCRIPTORS_RESERVED: u64 = 64;

/// Raises the soft limit of open descriptors to the hard one. Returns the limit in force.
pub fn raise_descriptor_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // Where this is refused, the limit stays what it was, and the number below says so.
    let _ = setrlimit(Resource::Nofile, wanted);
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// As many probes may be under way as asked for, as far as the descriptors reach.
pub fn in_flight_max(asked: usize, descriptors: u64) -> usize {
    let room = descriptors.saturating_sub(DESCRIPTORS_RESERVED).max(16);
    let max = asked.min(usize::try_from(room).unwrap_or(usize::MAX));
    if max < asked {
        tracing::warn!(
            asked,
            allowed = max,
            descriptors,
            "fewer probes may be under way than asked for; raise the limit of open files (ulimit -n, nofile)"
        );
    }
    max
}

/// Keeps this process to small pages. The allocator asks for huge ones, and then what a probe under way has reserved but
/// never touches is resident all the same: 34 KB a probe instead of 20.
pub fn use_small_pages() {
    // Where the kernel has no such pages, there is nothing to do.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

/// Lets the calling thread yield to the probe thread.
pub fn lower_priority() {
    // Linux takes a thread's id here. Not being allowed to is no harm.
    let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), 5);
}

/// Keeps the calling thread on one of the cores that this process may use.
pub fn pin(index: u32) {
    let Ok(allowed) = rustix::thread::sched_getaffinity(None) else {
        return;
    };
    let cores: Vec<usize> = (0..rustix::thread::CpuSet::MAX_CPU)
        .filter(|&core| allowed.is_set(core))
        .collect();
    if let Some(&core) = cores.get(index as usize % cores.len().max(1)) {
        let mut set = rustix::thread::CpuSet::new();
        set.set(core);
        if let Err(error) = rustix::thread::sched_setaffinity(None, &set) {
            tracing::warn!(core, %error, "the probe thread could not be pinned to its core");
        }
    }
}

/// CPU time of this process, user and system.
pub fn cpu_time() -> Duration {
    getrusage(UsageWho::RUSAGE_SELF).map_or(Duration::ZERO, |usage| {
        let micros = |t: nix::sys::time::TimeVal| (t.tv_sec() * 1_000_000 + t.tv_usec()) as u64;
        Duration::from_micros(micros(usage.user_time()) + micros(usage.system_time()))
    })
}

/// Resident memory of this process, in bytes; 0 where `/proc` is not mounted.
pub fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse().ok())
        .unwrap_or(0);
    pages * rustix::param::page_size() as u64
}

/// The host's name, which in a container is the container's.
pub fn host_name() -> String {
    let uname = rustix::system::uname();
    uname.nodename().to_string_lossy().into_owned()
}

/// Open files that a process may have here, once it has raised its own limit.
pub fn descriptors_allowed() -> u64 {
    getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX)
}
