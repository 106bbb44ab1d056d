//! The binary `watcher`.

use std::process::ExitCode;

fn main() -> ExitCode {
    watcher::cli::main()
}
