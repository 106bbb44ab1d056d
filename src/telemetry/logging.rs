//! Where log lines go: standard error, as text or JSON.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::args::LogFormat;

/// Starts logging. `filter` is in the syntax of `RUST_LOG`, e.g. `info` or `watcher=debug`. Does nothing when logging
/// was started before (tests).
pub fn start(filter: &str, format: LogFormat) -> Result<(), String> {
    let filter =
        EnvFilter::try_new(filter).map_err(|error| format!("log filter {filter:?}: {error}"))?;
    // It warns of every name server that is slow; what that means for a probe is in its sample.
    let mut filter = filter;
    for quiet in [
        "hickory_net=error",
        "hickory_proto=error",
        "hickory_resolver=error",
    ] {
        filter = filter.add_directive(quiet.parse().map_err(|error| format!("{quiet}: {error}"))?);
    }
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false);
    let result = match format {
        LogFormat::Json => builder.json().try_init(),
        LogFormat::Text => builder
            .with_ansi(std::io::stderr().is_terminal())
            .try_init(),
    };
    // The only failure is that a subscriber is set already.
    drop(result);
    Ok(())
}
