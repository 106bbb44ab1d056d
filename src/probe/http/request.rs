//! The request of a hop.

use ::http::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST,
    HeaderName, HeaderValue, TRANSFER_ENCODING, USER_AGENT,
};
use ::http::uri::{Authority, Uri};
use ::http::{Method, Request};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;

use super::hop::Hop;
use crate::domain::{Auth, Connection, HttpCheck};

const AGENT: HeaderValue = HeaderValue::from_static(concat!(
    "watcher/",
    env!("CARGO_PKG_VERSION_MAJOR"),
    ".",
    env!("CARGO_PKG_VERSION_MINOR")
));
const ANYTHING: HeaderValue = HeaderValue::from_static("*/*");
const ENCODINGS: HeaderValue = HeaderValue::from_static("gzip, deflate, br, zstd");
const CLOSE: HeaderValue = HeaderValue::from_static("close");

/// Fields that are sent beside the user's.
const OWN_FIELDS: usize = 7;
/// Room for the head of a usual request.
const HEAD_BYTES: usize = 256;

/// The headers of the user that a stranger may see. Any other may be a key, whatever its name is.
const HARMLESS: [HeaderName; 4] = [ACCEPT, ACCEPT_ENCODING, USER_AGENT, CONTENT_TYPE];

/// The request of `hop` as HTTP/2 takes it.
pub(super) fn build(hop: &Hop<'_>, check: &HttpCheck) -> Request<Bytes> {
    let mut request = Request::new(Bytes::copy_from_slice(body(hop, check)));
    *request.method_mut() = hop.method.clone();
    let fields = request.headers_mut();
    fields.reserve(check.headers.len() + OWN_FIELDS);
    fields_of(hop, check, |name, value| {
        fields.append(name, value.clone());
    });
    // HTTP/2 has an :authority instead of a Host, taken from the URI, and no connection of its own.
    fields.remove(CONNECTION);
    let host = fields.remove(HOST);
    let authority = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
    *request.uri_mut() = absolute(hop, authority);
    request
}

/// The request of `hop` as HTTP/1 sends it, head and body.
pub(super) fn encode(hop: &Hop<'_>, check: &HttpCheck) -> Vec<u8> {
    let body = body(hop, check);
    let mut out = Vec::with_capacity(HEAD_BYTES + body.len());
    let mut put = |parts: &[&[u8]]| parts.iter().for_each(|part| out.extend_from_slice(part));
    put(&[hop.method.as_str().as_bytes(), b" "]);
    put(&[
        hop.target.path_and_query.as_str().as_bytes(),
        b" HTTP/1.1\r\n",
    ]);
    fields_of(hop, check, |name, value| {
        put(&[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"]);
    });
    put(&[b"\r\n", body]);
    out
}

fn body<'a>(hop: &Hop<'_>, check: &'a HttpCheck) -> &'a [u8] {
    if hop.has_body { &check.body } else { &[] }
}

/// Every field of the request, in the order in which it is sent.
fn fields_of(hop: &Hop<'_>, check: &HttpCheck, mut put: impl FnMut(&HeaderName, &HeaderValue)) {
    let is_sent = |name: &HeaderName| {
        let describes_body = [CONTENT_TYPE, CONTENT_LENGTH, TRANSFER_ENCODING].contains(name);
        // A body that was left behind by a redirect took with it what describes it. How a body that is sent is framed is
        // ours to say.
        let is_left = describes_body && !hop.has_body && !check.body.is_empty();
        let frames_body = [CONTENT_LENGTH, TRANSFER_ENCODING].contains(name);
        let is_ours = frames_body || (*name == AUTHORIZATION && check.auth.is_some());
        let may_be_seen = hop.is_first_origin || HARMLESS.contains(name);
        may_be_seen && !is_left && !is_ours
    };
    let is_given = |name: &HeaderName| check.headers.contains_key(name) && is_sent(name);
    let mut default = |name: HeaderName, value: HeaderValue| {
        if !is_given(&name) {
            put(&name, &value);
        }
    };
    // Target::host is ASCII by its type's promise; were it not, the server would say so.
    if let Ok(host) = HeaderValue::try_from(hop.target.authority()) {
        default(HOST, host);
    }
    default(USER_AGENT, AGENT);
    default(ACCEPT, ANYTHING);
    if check.must_match.is_some() || check.must_not_match.is_some() {
        // Without a pattern nobody looks into the body: to ask for compression would only put the server's compressor
        // into the measurement. With one, fewer bytes are worth our decoding them.
        default(ACCEPT_ENCODING, ENCODINGS);
    }
    if check.connection == Connection::Fresh {
        default(CONNECTION, CLOSE);
    }
    for (name, value) in check.headers.iter().filter(|(name, _)| is_sent(name)) {
        put(name, value);
    }
    let body = body(hop, check);
    if !body.is_empty() || matches!(hop.method, Method::POST | Method::PUT | Method::PATCH) {
        put(&CONTENT_LENGTH, &HeaderValue::from(body.len()));
    }
    if let Some(auth) = check.auth.as_ref().filter(|_| hop.is_first_origin)
        && let Ok(mut value) = HeaderValue::try_from(authorization(auth))
    {
        value.set_sensitive(true);
        put(&AUTHORIZATION, &value);
    }
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
