//! What the fuzz targets share: a real prober beside a server that says what the input says, on loopback addresses
//! that nothing else uses; and samples made from input.

mod samples;
mod site;

pub use samples::{BatchInput, plausible};
pub use site::{ORIGINS, Site, TRIPWIRE};

use watcher::config::{EndpointRow, SecretRef, SecretSource};
use watcher::domain::{EndpointId, Secret, Timestamp};

/// What every secret of a target's endpoint is.
pub const CANARY: &str = "canary-5f0c1e7a";

/// Gives the canary for every reference.
pub struct Canaries;

impl SecretSource for Canaries {
    fn read(&self, _: &SecretRef) -> Result<Option<Secret>, String> {
        Ok(Some(Secret::new(CANARY)))
    }
}

/// A row that is valid but for what the caller changes.
pub fn row(url: &str, settings: Option<&str>) -> EndpointRow {
    EndpointRow {
        id: EndpointId(1),
        kind: "http".to_owned(),
        url: url.to_owned(),
        interval_s: 60,
        timeout_ms: Some(2_000),
        degraded_after_ms: None,
        cert_warn_days: None,
        regex: None,
        regex_not: None,
        settings: settings.map(str::to_owned),
        changed_at: Timestamp::default(),
    }
}
