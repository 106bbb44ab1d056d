//! The settings of an HTTP check as written: what a YAML item and the column `settings` have in common.
//!
//! [`HttpSettings::read`] takes either; `to_json` gives the canonical form that is stored, so that equal settings are
//! equal text; `build` makes the check, which is where secrets and files are looked at.

mod build;
mod json;

use std::rc::Rc;

use http::{HeaderName, HeaderValue, Method};

use super::node::{Entry, Node, Value};
use super::read::{Reader, below};
use super::secret::SecretRef;
use super::values;
use crate::domain::{Connection, DnsMode, HttpVersion, IpFamily, PinnedAddress, StatusRanges};

/// Redirects followed when nothing else is set, as in blackbox_exporter and curl's advice.
pub(crate) const REDIRECTS_DEFAULT: u8 = 10;
/// Body bytes read when nothing else is set.
pub(crate) const BODY_BYTES_DEFAULT: u32 = 1 << 20;
/// A probe holds its body in memory: thousands in flight times this must still fit.
const BODY_BYTES_MAX: u32 = 64 << 20;
/// A request body is kept in memory by every agent.
const REQUEST_BODY_BYTES_MAX: usize = 1 << 20;

/// Every key of `settings`.
pub(crate) const KEYS: &[&str] = &[
    "method",
    "headers",
    "body",
    "expected_status",
    "auth",
    "redirects",
    "connect_to",
    "ip_family",
    "http_version",
    "tls",
    "connection",
    "dns",
    "body_bytes_max",
];

pub(super) const IP_FAMILIES: &[(&str, IpFamily)] = &[
    ("any", IpFamily::Any),
    ("4", IpFamily::V4),
    ("6", IpFamily::V6),
];
pub(super) const HTTP_VERSIONS: &[(&str, HttpVersion)] = &[
    ("auto", HttpVersion::Auto),
    ("1.1", HttpVersion::Http1),
    ("2", HttpVersion::Http2),
];
pub(super) const CONNECTIONS: &[(&str, Connection)] =
    &[("fresh", Connection::Fresh), ("reuse", Connection::Reuse)];
pub(super) const DNS_MODES: &[(&str, DnsMode)] =
    &[("cached", DnsMode::Cached), ("fresh", DnsMode::Fresh)];

/// Headers that belong to the connection or are derived from the body.
const OWN_HEADERS: &[&str] = &[
    "connection",
    "content-length",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What is written; `None` where nothing is, and the default holds.
#[derive(Clone, PartialEq, Default, Debug)]
pub(crate) struct HttpSettings {
    pub(crate) method: Option<Method>,
    pub(crate) headers: Vec<(HeaderName, HeaderText)>,
    pub(crate) body: Option<String>,
    pub(crate) expected_status: Option<StatusRanges>,
    pub(crate) auth: Option<AuthText>,
    pub(crate) redirects: Option<u8>,
    pub(crate) connect_to: Option<PinnedAddress>,
    pub(crate) ip_family: Option<IpFamily>,
    pub(crate) http_version: Option<HttpVersion>,
    pub(crate) tls: TlsText,
    pub(crate) connection: Option<Connection>,
    pub(crate) dns: Option<DnsMode>,
    pub(crate) body_bytes_max: Option<u32>,
}

/// A header's value: as written, or a reference to a secret.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum HeaderText {
    Plain(HeaderValue),
    Secret(SecretRef),
}

/// Credentials by reference.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum AuthText {
    Basic { user: String, password: SecretRef },
    Bearer(SecretRef),
}

/// `tls:` as written.
#[derive(Clone, PartialEq, Default, Debug)]
pub(crate) struct TlsText {
    pub(crate) server_name: Option<String>,
    pub(crate) ca: Option<Pem>,
    pub(crate) client_cert: Option<Pem>,
    pub(crate) client_key: Option<SecretRef>,
    pub(crate) insecure_skip_verify: Option<bool>,
    pub(crate) session_resumption: Option<bool>,
}

/// Certificates: in place, or where they are.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Pem {
    Inline(String),
    At(SecretRef),
}

impl HttpSettings {
    /// Reads the settings among the keys of `node`; other keys are the caller's.
    pub(crate) fn read(reader: &mut Reader, node: &Node) -> Self {
        let r = reader;
        let mut settings = Self::default();
        let s = &mut settings;
        if let Some(n) = node.get("method") {
            s.method = r.parsed("method", n, method);
        }
        if let Some(n) = node.get("headers") {
            s.headers = headers(r, n);
        }
        if let Some(n) = node.get("body") {
            s.body = r.parsed("body", n, |text| match text.len() {
                0..=REQUEST_BODY_BYTES_MAX => Ok(text.to_owned()),
                long => Err(format!(
                    "is {long} bytes long; at most {REQUEST_BODY_BYTES_MAX} are sent"
                )),
            });
        }
        if let Some(n) = node.get("expected_status") {
            s.expected_status = expected_status(r, n);
        }
        if let Some(n) = node.get("auth") {
            s.auth = auth(r, n);
        }
        if let Some(n) = node.get("redirects") {
            s.redirects = r.parsed("redirects", n, redirects);
        }
        if let Some(n) = node.get("connect_to") {
            s.connect_to = r.parsed("connect_to", n, values::pinned_address);
        }
        if let Some(n) = node.get("ip_family") {
            s.ip_family = r.parsed("ip_family", n, |t| values::choice(t, IP_FAMILIES));
        }
        if let Some(n) = node.get("http_version") {
            s.http_version = r.parsed("http_version", n, |t| values::choice(t, HTTP_VERSIONS));
        }
        if let Some(n) = node.get("tls") {
            s.tls = tls(r, n);
        }
        if let Some(n) = node.get("connection") {
            s.connection = r.parsed("connection", n, |t| values::choice(t, CONNECTIONS));
        }
        if let Some(n) = node.get("dns") {
            s.dns = r.parsed("dns", n, |t| values::choice(t, DNS_MODES));
        }
        if let Some(n) = node.get("body_bytes_max") {
            s.body_bytes_max = r.parsed("body_bytes_max", n, body_bytes_max);
        }
        s.cross_check(r, node);
        settings
    }

    /// What no single key can say.
    fn cross_check(&self, r: &mut Reader, node: &Node) {
        let at = |key| node.entry(key).map_or(node.at, |entry| entry.value.at);
        if let (Some(pinned), Some(family)) = (self.connect_to, self.ip_family) {
            let fits = match family {
                IpFamily::Any => true,
                IpFamily::V4 => pinned.ip.is_ipv4(),
                IpFamily::V6 => pinned.ip.is_ipv6(),
            };
            if !fits {
                let message = format!("{} is not of the ip_family asked for; drop one", pinned.ip);
                r.found("connect_to", at("connect_to"), message);
            }
        }
        let named = |name| self.headers.iter().any(|(header, _)| header == name);
        if self.auth.is_some() && named(http::header::AUTHORIZATION) {
            let message = "is given beside a header Authorization; drop one";
            r.found("auth", at("auth"), message);
        }
    }
}

fn method(text: &str) -> Result<Method, String> {
    let refused = || {
        format!(
            "`{}` is not a method; write e.g. GET, HEAD or POST",
            values::shortened(text)
        )
    };
    let upper = text.trim().to_ascii_uppercase();
    let method = Method::from_bytes(upper.as_bytes()).map_err(|_| refused())?;
    if upper.len() > 32 {
        return Err(refused());
    }
    if method == Method::CONNECT {
        return Err("CONNECT opens a tunnel and cannot be probed; use another method".to_owned());
    }
    Ok(method)
}

fn redirects(text: &str) -> Result<u8, String> {
    if text.trim().eq_ignore_ascii_case("none") {
        return Ok(0);
    }
    values::count(text, 0, 20)
        .map(|n| n as u8)
        .map_err(|message| format!("{message}, or none"))
}

fn body_bytes_max(text: &str) -> Result<u32, String> {
    let bytes = values::byte_count(text)?;
    if (1..=BODY_BYTES_MAX).contains(&bytes) {
        Ok(bytes)
    } else {
        Err(format!(
            "`{}` is outside 1 byte to 64MiB",
            values::shortened(text)
        ))
    }
}

fn expected_status(r: &mut Reader, node: &Node) -> Option<StatusRanges> {
    let path = "expected_status";
    let alone;
    let items = match &node.value {
        Value::List(items) => items,
        _ => {
            alone = vec![Rc::new(node.clone())];
            &alone
        }
    };
    let before = r.findings.len();
    let mut ranges = Vec::with_capacity(items.len());
    for item in items {
        // `200-299, 301` in one cell of a CSV file.
        for part in r
            .text(path, item)
            .into_iter()
            .flat_map(|t| t.split([',', ';', ' ']))
        {
            if !part.is_empty() {
                match values::status_range(part) {
                    Ok(range) => ranges.push(range),
                    Err(message) => r.found(path, item.at, message),
                }
            }
        }
    }
    if ranges.is_empty() && r.findings.len() == before {
        r.found(path, node.at, "is empty; write e.g. [200-299]");
    }
    (r.findings.len() == before).then(|| values::status_ranges(ranges))
}

fn headers(r: &mut Reader, node: &Node) -> Vec<(HeaderName, HeaderText)> {
    let mut headers: Vec<(HeaderName, HeaderText)> = Vec::new();
    for entry in r.any_map("headers", node) {
        let path = below("headers", &entry.key);
        let name = match header_name(&entry.key) {
            Ok(name) => name,
            Err(message) => {
                r.found(&path, entry.at, message);
                continue;
            }
        };
        if headers.iter().any(|(present, _)| *present == name) {
            r.found(
                &path,
                entry.at,
                "is given twice (case does not matter); remove one",
            );
            continue;
        }
        let values = match &entry.value.value {
            Value::List(values) => values.clone(),
            _ => vec![Rc::clone(&entry.value)],
        };
        for value in &values {
            headers.extend(header_text(r, &path, &name, value).map(|text| (name.clone(), text)));
        }
    }
    headers.sort_by(|a, b| a.0.as_str().cmp(b.0.as_str()));
    headers
}

fn header_name(text: &str) -> Result<HeaderName, String> {
    let name = HeaderName::from_bytes(text.as_bytes())
        .map_err(|_| "is not a header name; remove what is not a letter, digit or -".to_owned())?;
    if OWN_HEADERS.contains(&name.as_str()) {
        return Err("is set by the agent itself; remove it".to_owned());
    }
    Ok(name)
}

fn header_text(r: &mut Reader, path: &str, name: &HeaderName, node: &Node) -> Option<HeaderText> {
    if matches!(node.value, Value::Map(_)) {
        return secret_ref_of(r, path, node, &["secret_ref"]).map(HeaderText::Secret);
    }
    if matches!(
        *name,
        http::header::AUTHORIZATION | http::header::PROXY_AUTHORIZATION
    ) {
        let message =
            "would be stored in plain text; use auth:, or {secret_ref: env:NAME} as its value";
        r.found(path, node.at, message);
        return None;
    }
    r.parsed(path, node, |text| {
        HeaderValue::from_str(text)
            .map(HeaderText::Plain)
            .map_err(|_| "contains a line break or control character; remove it".to_owned())
    })
}

fn auth(r: &mut Reader, node: &Node) -> Option<AuthText> {
    let (basic, bearer) = match r.map("auth", node, &["basic", "bearer"]) {
        [] if !matches!(node.value, Value::Map(_)) => return None,
        _ => (node.get("basic"), node.get("bearer")),
    };
    match (basic, bearer) {
        (Some(basic), None) => {
            let path = "auth.basic";
            let password = secret_ref_of(r, path, basic, &["user", "secret_ref"]);
            let user = match basic.get("user") {
                Some(user) => r.parsed("auth.basic.user", user, |text| {
                    if text.contains(':') || text.chars().any(char::is_control) {
                        return Err("contains a colon or control character; remove it".to_owned());
                    }
                    Ok(text.to_owned())
                }),
                None => {
                    r.found("auth.basic.user", basic.at, "is missing; name the user");
                    None
                }
            };
            Some(AuthText::Basic {
                user: user?,
                password: password?,
            })
        }
        (None, Some(bearer)) => {
            secret_ref_of(r, "auth.bearer", bearer, &["secret_ref"]).map(AuthText::Bearer)
        }
        (Some(_), Some(_)) => {
            r.found("auth", node.at, "has both basic and bearer; keep one");
            None
        }
        (None, None) => {
            let message = "is empty; write basic: {user, secret_ref} or bearer: {secret_ref}";
            r.found("auth", node.at, message);
            None
        }
    }
}

/// The `secret_ref` of the map at `path`, whose keys are `known`.
fn secret_ref_of(r: &mut Reader, path: &str, node: &Node, known: &[&str]) -> Option<SecretRef> {
    let entries: &[Entry] = r.map(path, node, known);
    if entries.is_empty() && !matches!(node.value, Value::Map(_)) {
        return None;
    }
    let path = below(path, "secret_ref");
    match node.get("secret_ref") {
        Some(text) => secret_ref(r, &path, text),
        None => {
            r.found(&path, node.at, "is missing; write env:NAME or file:/path");
            None
        }
    }
}

fn secret_ref(r: &mut Reader, path: &str, node: &Node) -> Option<SecretRef> {
    let reference = r.parsed(path, node, SecretRef::parse)?;
    r.references
        .push((path.to_owned(), node.at, reference.clone()));
    Some(reference)
}

fn tls(r: &mut Reader, node: &Node) -> TlsText {
    const KEYS: &[&str] = &[
        "server_name",
        "ca",
        "client_cert",
        "client_key",
        "insecure_skip_verify",
        "session_resumption",
    ];
    r.map("tls", node, KEYS);
    let mut tls = TlsText::default();
    if let Some(n) = node.get("server_name") {
        tls.server_name = r.parsed("tls.server_name", n, server_name);
    }
    tls.ca = node.get("ca").and_then(|n| pem(r, "tls.ca", n));
    tls.client_cert = node
        .get("client_cert")
        .and_then(|n| pem(r, "tls.client_cert", n));
    if let Some(n) = node.get("client_key") {
        tls.client_key = secret_ref(r, "tls.client_key", n);
    }
    if let Some(n) = node.get("insecure_skip_verify") {
        tls.insecure_skip_verify = r.parsed("tls.insecure_skip_verify", n, values::boolean);
    }
    if let Some(n) = node.get("session_resumption") {
        tls.session_resumption = r.parsed("tls.session_resumption", n, values::boolean);
    }
    match (node.get("client_cert"), node.get("client_key")) {
        (Some(n), None) => r.found(
            "tls.client_key",
            n.at,
            "is missing beside client_cert; add it",
        ),
        (None, Some(n)) => r.found(
            "tls.client_cert",
            n.at,
            "is missing beside client_key; add it",
        ),
        _ => {}
    }
    tls
}

/// A name or address, as it goes into the handshake.
fn server_name(text: &str) -> Result<String, String> {
    let refused = || {
        format!(
            "`{}` is not a host name or address",
            values::shortened(text)
        )
    };
    let name = match text.trim().parse::<std::net::IpAddr>() {
        Ok(ip) => ip.to_string(),
        Err(_) => url::Host::parse(text.trim())
            .map_err(|_| refused())?
            .to_string(),
    };
    rustls::pki_types::ServerName::try_from(name.as_str()).map_err(|_| refused())?;
    Ok(name)
}

fn pem(r: &mut Reader, path: &str, node: &Node) -> Option<Pem> {
    let pem = r.parsed(path, node, |text| {
        if text.contains("-----BEGIN ") {
            build::certificates(text)?;
            return Ok(Pem::Inline(text.trim().to_owned()));
        }
        SecretRef::parse(text.trim())
            .map(Pem::At)
            .map_err(|_| "is neither PEM text nor file:/path".to_owned())
    })?;
    if let Pem::At(reference) = &pem {
        r.references
            .push((path.to_owned(), node.at, reference.clone()));
    }
    Some(pem)
}
