//! What is said of probes that are shed.

use crate::domain::admission::AdmissionChange;

/// One line for each change.
pub(super) fn tell(change: Option<AdmissionChange>) {
    match change {
        Some(AdmissionChange::Sheds) => tracing::warn!(
            "the agent itself adds more than --max-error to what it measures: probes are shed, skipped (overload), until it does \
             not; it has more endpoints than its core can serve, or neighbours on it"
        ),
        Some(AdmissionChange::AdmitsAll) => {
            tracing::info!("the agent's own error is below --max-error again: all probes are made");
        }
        None => {}
    }
}
