//! Settings → the canonical JSON that the column `settings` holds, and that an export writes.

use serde_json::{Map, Value, json};

use super::{
    AuthText, CONNECTIONS, DNS_MODES, HTTP_VERSIONS, HeaderText, HttpSettings, IP_FAMILIES, Pem,
    TlsText,
};
use crate::domain::StatusRanges;

impl HttpSettings {
    /// Only what was written, each value in one spelling.
    pub(crate) fn to_json(&self) -> Map<String, Value> {
        let mut map = Map::new();
        let mut put = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                map.insert(key.to_owned(), value);
            }
        };
        put("method", self.method.as_ref().map(|m| m.as_str().into()));
        put("headers", headers(&self.headers));
        put("body", self.body.as_deref().map(Value::from));
        put("expected_status", self.expected_status.as_ref().map(ranges));
        put("auth", self.auth.as_ref().map(auth));
        put("redirects", self.redirects.map(Value::from));
        put(
            "connect_to",
            self.connect_to.map(|pinned| match pinned.port {
                Some(port) => std::net::SocketAddr::new(pinned.ip, port)
                    .to_string()
                    .into(),
                None => pinned.ip.to_string().into(),
            }),
        );
        put("ip_family", self.ip_family.map(|v| name_of(v, IP_FAMILIES)));
        put(
            "http_version",
            self.http_version.map(|v| name_of(v, HTTP_VERSIONS)),
        );
        put("tls", tls(&self.tls));
        put(
            "connection",
            self.connection.map(|v| name_of(v, CONNECTIONS)),
        );
        put("dns", self.dns.map(|v| name_of(v, DNS_MODES)));
        put("body_bytes_max", self.body_bytes_max.map(Value::from));
        map
    }
}

/// Every value has a name: the lists are those that are read.
fn name_of<T: PartialEq>(value: T, choices: &[(&str, T)]) -> Value {
    choices
        .iter()
        .find(|(_, choice)| *choice == value)
        .map_or(Value::Null, |(name, _)| Value::from(*name))
}

fn ranges(StatusRanges(ranges): &StatusRanges) -> Value {
    ranges
        .iter()
        .map(|&(low, high)| match low == high {
            true => Value::from(low),
            false => Value::from(format!("{low}-{high}")),
        })
        .collect()
}

fn headers(headers: &[(http::HeaderName, HeaderText)]) -> Option<Value> {
    let mut map = Map::new();
    for (name, text) in headers {
        let value = match text {
            HeaderText::Plain(value) => String::from_utf8_lossy(value.as_bytes()).into(),
            HeaderText::Secret(reference) => json!({ "secret_ref": reference.to_string() }),
        };
        match map.get_mut(name.as_str()) {
            None => {
                map.insert(name.as_str().to_owned(), value);
            }
            Some(Value::Array(values)) => values.push(value),
            Some(first) => *first = Value::Array(vec![first.take(), value]),
        }
    }
    (!map.is_empty()).then_some(Value::Object(map))
}

fn auth(auth: &AuthText) -> Value {
    match auth {
        AuthText::Basic { user, password } => {
            json!({ "basic": { "user": user, "secret_ref": password.to_string() } })
        }
        AuthText::Bearer(reference) => {
            json!({ "bearer": { "secret_ref": reference.to_string() } })
        }
    }
}

fn tls(tls: &TlsText) -> Option<Value> {
    let pem = |pem: &Option<Pem>| {
        pem.as_ref().map(|pem| match pem {
            Pem::Inline(text) => Value::from(text.as_str()),
            Pem::At(reference) => reference.to_string().into(),
        })
    };
    let fields = [
        ("server_name", tls.server_name.as_deref().map(Value::from)),
        ("ca", pem(&tls.ca)),
        ("client_cert", pem(&tls.client_cert)),
        (
            "client_key",
            tls.client_key.as_ref().map(|r| r.to_string().into()),
        ),
        (
            "insecure_skip_verify",
            tls.insecure_skip_verify.map(Value::from),
        ),
        (
            "session_resumption",
            tls.session_resumption.map(Value::from),
        ),
    ];
    let map: Map<String, Value> = fields
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), value?)))
        .collect();
    (!map.is_empty()).then_some(Value::Object(map))
}
