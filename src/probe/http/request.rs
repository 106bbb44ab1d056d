//! The request of a hop.

use ::http::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST,
    HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING, USER_AGENT,
};
use ::http::uri::{Authority, Uri};
use ::http::{Method, Request};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http_body_util::Full;

use super::hop::Hop;
use crate::domain::{Auth, Connection, HttpCheck};

/// The body of a request.
pub(super) type Body = Full<Bytes>;

const AGENT: HeaderValue = HeaderValue::from_static(concat!(
    "watcher/",
    env!("CARGO_PKG_VERSION_MAJOR"),
    ".",
    env!("CARGO_PKG_VERSION_MINOR")
));
const ANYTHING: HeaderValue = HeaderValue::from_static("*/*");
const ENCODINGS: HeaderValue = HeaderValue::from_static("gzip, deflate, br, zstd");
const CLOSE: HeaderValue = HeaderValue::from_static("close");
const ZERO: HeaderValue = HeaderValue::from_static("0");

/// The headers of the user that a stranger may see. Any other may be a key, whatever its name is.
const HARMLESS: [HeaderName; 4] = [ACCEPT, ACCEPT_ENCODING, USER_AGENT, CONTENT_TYPE];

/// The request of `hop`, for HTTP/1 or HTTP/2.
pub(super) fn build(hop: &Hop<'_>, check: &HttpCheck, is_http2: bool) -> Request<Body> {
    let body = if hop.has_body {
        Bytes::copy_from_slice(&check.body)
    } else {
        Bytes::new()
    };
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = hop.method.clone();
    *request.headers_mut() = headers(hop, check, is_http2);
    let host = request.headers().get(HOST);
    *request.uri_mut() = if is_http2 {
        // HTTP/2 has an :authority instead of a Host; it is taken from the URI.
        let authority = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
        request.headers_mut().remove(HOST);
        absolute(hop, authority)
    } else {
        Uri::from(hop.target.path_and_query.clone())
    };
    request
}

fn headers(hop: &Hop<'_>, check: &HttpCheck, is_http2: bool) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(check.headers.len() + 6);
    if !check.headers.contains_key(HOST) || !hop.is_first_origin {
        // Target::host is ASCII by its type's promise; were it not, the server would say so.
        if let Ok(host) = HeaderValue::try_from(hop.target.authority()) {
            headers.insert(HOST, host);
        }
    }
    for (name, value) in &check.headers {
        if hop.is_first_origin || HARMLESS.contains(name) {
            headers.append(name.clone(), value.clone());
        }
    }
    if !hop.has_body && !check.body.is_empty() {
        // The body was left behind by a redirect, and with it what describes it.
        for name in [CONTENT_TYPE, CONTENT_LENGTH, TRANSFER_ENCODING] {
            headers.remove(name);
        }
    }
    let mut default = |name: HeaderName, value: HeaderValue| {
        headers.entry(name).or_insert(value);
    };
    default(USER_AGENT, AGENT);
    default(ACCEPT, ANYTHING);
    if check.must_match.is_some() || check.must_not_match.is_some() {
        // Without a pattern nobody looks into the body: to ask for compression would only put the server's compressor
        // into the measurement. With one, fewer bytes are worth our decoding them.
        default(ACCEPT_ENCODING, ENCODINGS);
    }
    if check.connection == Connection::Fresh && !is_http2 {
        default(CONNECTION, CLOSE);
    }
    if !hop.has_body && matches!(hop.method, Method::POST | Method::PUT | Method::PATCH) {
        default(CONTENT_LENGTH, ZERO);
    }
    if let Some(auth) = check.auth.as_ref().filter(|_| hop.is_first_origin)
        && let Ok(mut value) = HeaderValue::try_from(authorization(auth))
    {
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    headers
}

fn authorization(auth: &Auth) -> String {
    match auth {
        Auth::Basic { user, password } => {
            let pair = format!("{user}:{}", password.expose());
            format!("Basic {}", BASE64_STANDARD.encode(pair))
        }
        Auth::Bearer(token) => format!("Bearer {}", token.expose()),
    }
}

fn absolute(hop: &Hop<'_>, authority: Option<Authority>) -> Uri {
    let mut parts = ::http::uri::Parts::default();
    parts.scheme = Some(hop.target.scheme.clone());
    parts.authority = authority.or_else(|| Authority::try_from(hop.target.authority()).ok());
    parts.path_and_query = Some(hop.target.path_and_query.clone());
    Uri::from_parts(parts).unwrap_or_else(|_| Uri::from(hop.target.path_and_query.clone()))
}
