//! The binary `watcher`: see `watcher --help`, and `src/lib.rs` for the map.

use std::process::ExitCode;

/// glibc gives memory back after every large body and asks for it again: 66 µs a probe instead of 44 (LIMITS).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    watcher::cli::main()
}
