//! How an endpoint is asked and judged. One variant a protocol; the exhaustive `match` leads the way.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderMap, Method};

use super::pattern::Pattern;

/// A check's kind with its settings.
#[derive(Debug)]
pub enum Check {
    /// HTTP and HTTPS.
    Http(HttpCheck),
}

/// Settings of an HTTP check; equal settings are one value shared by all their endpoints.
#[derive(Debug)]
pub struct HttpCheck {
    /// Request method.
    pub method: Method,
    /// Request headers beyond those the agent sets itself.
    pub headers: HeaderMap,
    /// Request body; empty means none.
    pub body: Box<[u8]>,
    /// Status codes that pass.
    pub expected_status: StatusRanges,
    /// Must be found in the decoded body.
    pub must_match: Option<Arc<Pattern>>,
    /// Must not be found in the decoded body.
    pub must_not_match: Option<Arc<Pattern>>,
    /// Credentials, sent to the first origin only.
    pub auth: Option<Auth>,
    /// Redirects followed before the probe fails; 0 judges the redirect itself.
    pub redirects_max: u8,
    /// Dial this address instead of resolving the URL's host; the host is still sent and verified.
    pub connect_to: Option<PinnedAddress>,
    /// Which addresses of a name may be used.
    pub ip_family: IpFamily,
    /// Which HTTP version is spoken.
    pub http_version: HttpVersion,
    /// TLS settings.
    pub tls: TlsSettings,
    /// A fresh connection for each probe, or one kept between probes.
    pub connection: Connection,
    /// Whether the name may come from the agent's cache.
    pub dns: DnsMode,
    /// Bytes of body read, and at most decoded, for judgement; the rest is left unread.
    pub body_bytes_max: u32,
}

/// Inclusive ranges of status codes, e.g. `200-299`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct StatusRanges(pub Box<[(u16, u16)]>);

impl StatusRanges {
    /// Whether `status` lies in one of the ranges.
    pub fn contains(&self, status: u16) -> bool {
        self.0
            .iter()
            .any(|&(low, high)| (low..=high).contains(&status))
    }
}

impl Default for StatusRanges {
    fn default() -> Self {
        Self(Box::new([(200, 299)]))
    }
}

/// A resolved secret. Its value never appears in `Debug`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Secret(Box<str>);

impl Secret {
    /// Wraps a value read from the environment or a file.
    pub fn new(value: impl Into<Box<str>>) -> Self {
        Self(value.into())
    }

    /// The value, for the one place that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Credentials of a request.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Auth {
    /// `Authorization: Basic`.
    Basic {
        /// User name.
        user: Box<str>,
        /// Password.
        password: Secret,
    },
    /// `Authorization: Bearer`.
    Bearer(Secret),
}

/// An address that replaces the resolver's answer; the port defaults to the URL's.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PinnedAddress {
    /// The address dialled.
    pub ip: IpAddr,
    /// The port dialled, the URL's when absent.
    pub port: Option<u16>,
}

/// Which addresses of a name may be used.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum IpFamily {
    /// IPv4 first, IPv6 when there is none.
    #[default]
    Any,
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
}

/// Which HTTP version is spoken.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum HttpVersion {
    /// What ALPN agrees on over TLS, HTTP/1.1 in the clear.
    #[default]
    Auto,
    /// HTTP/1.1 only.
    Http1,
    /// HTTP/2 only; in the clear with prior knowledge.
    Http2,
}

/// Whether a connection outlives its probe.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Connection {
    /// Every probe resolves, connects and handshakes anew, so that each phase is measured.
    #[default]
    Fresh,
    /// The endpoint keeps its connection between probes.
    Reuse,
}

/// Whether a name may come from the agent's cache.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum DnsMode {
    /// Answers are reused until their TTL ends; `resolve_us` is null then.
    #[default]
    Cached,
    /// Every probe asks.
    Fresh,
}

/// TLS settings of a check. PEM texts are kept as read; they were parsed once when the settings were resolved.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct TlsSettings {
    /// Name sent as SNI and verified, instead of the URL's host.
    pub server_name: Option<Box<str>>,
    /// Certificates trusted instead of the system's roots (PEM).
    pub ca_pem: Option<Box<str>>,
    /// Client certificate chain (PEM).
    pub client_cert_pem: Option<Box<str>>,
    /// Private key of the client certificate (PEM).
    pub client_key_pem: Option<Secret>,
    /// Accept any certificate. Its expiry is still recorded.
    pub insecure_skip_verify: bool,
    /// Resume TLS sessions between probes.
    pub session_resumption: bool,
}
