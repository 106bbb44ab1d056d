//! Endpoints as they were written, before anything is checked: a row of `endpoints`, a YAML item, a CSV line.

use crate::domain::{EndpointId, Timestamp};

/// A row of `endpoints`, as the catalog reads it: the columns an agent needs, unchecked.
#[derive(Clone, PartialEq, Debug)]
pub struct EndpointRow {
    /// `id`.
    pub id: EndpointId,
    /// `kind`: `http`.
    pub kind: String,
    /// `url`.
    pub url: String,
    /// `interval_s`.
    pub interval_s: i32,
    /// `timeout_ms`; null means 10 s or the interval, whichever is shorter.
    pub timeout_ms: Option<i32>,
    /// `degraded_after_ms`.
    pub degraded_after_ms: Option<i32>,
    /// `cert_warn_days`.
    pub cert_warn_days: Option<i32>,
    /// `regex`: must match.
    pub regex: Option<String>,
    /// `regex_not`: must not match.
    pub regex_not: Option<String>,
    /// `settings` as JSON text, `None` when it is `{}`. Keys are those of the YAML file.
    pub settings: Option<String>,
    /// When the row was last changed, by the database's clock.
    pub changed_at: Timestamp,
}
