//! An endpoint: what is probed, how often, and by which check.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::uri::{PathAndQuery, Scheme};

use super::check::Check;

/// The `id` of a row in `endpoints`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct EndpointId(pub i64);

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Time between two due probes of one endpoint: 5 to 300 whole seconds, kept in milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Interval(u32);

/// The interval is outside 5–300 s.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("interval {0} s is outside 5–300 s")]
pub struct IntervalOutOfRange(pub i64);

impl Interval {
    /// The shortest interval, in seconds.
    pub const MIN_S: i64 = 5;
    /// The longest interval, in seconds.
    pub const MAX_S: i64 = 300;

    /// The shortest.
    pub const SHORTEST: Self = Self(Self::MIN_S as u32 * 1_000);

    /// An interval of whole seconds, refused outside 5–300.
    pub const fn from_secs(seconds: i64) -> Result<Self, IntervalOutOfRange> {
        if seconds < Self::MIN_S || seconds > Self::MAX_S {
            return Err(IntervalOutOfRange(seconds));
        }
        Ok(Self(seconds as u32 * 1_000))
    }

    /// In milliseconds.
    pub const fn millis(self) -> u32 {
        self.0
    }

    /// As a duration.
    pub const fn duration(self) -> Duration {
        Duration::from_millis(self.0 as u64)
    }
}

/// Where a check's first connection and request go. Parsed once, at the edge.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Target {
    /// `http` or `https`.
    pub scheme: Scheme,
    /// Host as it stands in the URL: an ASCII name (punycode), an IPv4 address, or an IPv6 address in brackets.
    pub host: Box<str>,
    /// The port, the scheme's default when the URL names none. Never 0.
    pub port: u16,
    /// Path and query as sent.
    pub path_and_query: PathAndQuery,
}

impl Target {
    /// Whether the target is reached through TLS.
    pub fn is_https(&self) -> bool {
        self.scheme == Scheme::HTTPS
    }

    /// `host` or `host:port`, as in a `Host` header: the port is left out when it is the scheme's default.
    pub fn authority(&self) -> String {
        let default = if self.is_https() { 443 } else { 80 };
        if self.port == default {
            self.host.to_string()
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}://{}{}",
            self.scheme,
            self.authority(),
            self.path_and_query
        )
    }
}

/// One endpoint as the agent probes it. Its name, group and tags stay in the table: the agent does not need them.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Its row in `endpoints`.
    pub id: EndpointId,
    /// What is asked.
    pub target: Target,
    /// How often.
    pub interval: Interval,
    /// The deadline over everything a probe does; at most the interval.
    pub timeout: Duration,
    /// A passing probe slower than this is `degraded`.
    pub degraded_after: Option<Duration>,
    /// A passing probe whose certificate ends sooner than this is `degraded`.
    pub cert_warn: Option<Duration>,
    /// How it is asked and judged; shared between endpoints with equal settings.
    pub check: Arc<Check>,
}
