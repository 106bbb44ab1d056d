//! What is said of our own network.

use std::time::Duration;

use crate::domain::network::{Change, NetworkGuard};
use crate::telemetry;

/// One line and one number for each change.
pub(super) fn tell(guard: &mut NetworkGuard, now: Duration) {
    match guard.change(now) {
        Some(Change::Down { hosts: 0 }) => {
            telemetry::network_down(true);
            tracing::error!(
                "this machine has no way to targets that it could reach before; their probes are stored as skipped (network_down)"
            );
        }
        Some(Change::Down { hosts }) => {
            telemetry::network_down(true);
            tracing::error!(
                hosts,
                "nothing is reached any more: the agent's own network is taken to be down, and failed probes are stored as \
                 skipped (network_down)"
            );
        }
        Some(Change::Up) => {
            telemetry::network_down(false);
            tracing::info!("the agent's own network is up again");
        }
        None => {}
    }
}
