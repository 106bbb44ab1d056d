//! From a script and a request to the answer that both HTTP versions send: status, headers, body. Pure.

use std::io;

use bytes::Bytes;
use serde_json::json;

use super::bomb::{BOMB_MIB, bomb};
use super::choice::Lie;
use super::encode::encoded;
use super::payload::Payload;
use super::script::Script;

/// The body when nothing else is asked for. The pattern in the README matches it.
pub const DEFAULT_BODY: &str = "hello you are welcome, see you there 42 at 10:30 PM";

/// What `lie=length` adds.
const LIE_BYTES: u64 = 100;
/// A body to be encoded has to be held in memory.
const ENCODED_MAX: u64 = 64 << 20;

/// A request as it came, for `echo`, `auth` and redirects.
#[derive(Default)]
pub(super) struct Request {
    pub(super) method: http::Method,
    pub(super) version: http::Version,
    /// Path and query.
    pub(super) target: String,
    pub(super) headers: Vec<(String, Vec<u8>)>,
    /// Up to a cap.
    pub(super) body: Vec<u8>,
}

impl Request {
    fn header(&self, name: &str) -> Option<&[u8]> {
        let mut headers = self.headers.iter();
        let (_, value) = headers.find(|(key, _)| key.eq_ignore_ascii_case(name))?;
        Some(value)
    }
}

/// Status, headers and body.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// Without length and transfer coding.
    pub(super) headers: Vec<(String, String)>,
    /// What `content-length` says; `None` for a body that ends otherwise.
    pub(super) content_length: Option<u64>,
    pub(super) payload: Payload,
}

impl Answer {
    /// A short text.
    pub(super) fn text(status: u16, text: impl Into<Bytes>) -> Self {
        Self::of_type(status, "text/plain; charset=utf-8", text.into())
    }

    /// A JSON document.
    pub(super) fn json(value: &serde_json::Value) -> Self {
        Self::of_type(200, "application/json", value.to_string().into())
    }

    pub(super) fn of_type(status: u16, content_type: &str, body: Bytes) -> Self {
        let length = body.len() as u64;
        Self {
            status,
            headers: vec![("content-type".into(), content_type.into())],
            content_length: Some(length),
            payload: Payload::filled(body, length),
        }
    }

    /// What `script` asks for. `sni` and `port` are for `echo`.
    pub(super) fn scripted(
        script: &Script,
        request: &Request,
        sni: Option<&str>,
        port: u16,
    ) -> Self {
        if let Some(wanted) = &script.authorization
            && request.header("authorization") != Some(wanted.as_bytes())
        {
            let scheme = wanted.split_once(' ').map_or("", |(scheme, _)| scheme);
            let mut answer = Self::text(401, "not authorized\n");
            let challenge = format!("{scheme} realm=\"target\"");
            answer.headers.push(("www-authenticate".into(), challenge));
            return answer;
        }
        if let Some(location) = redirect(script, &request.target) {
            let mut answer = Self::text(script.redirect_code.unwrap_or(302), "moved\n");
            answer.headers.push(("location".into(), location));
            answer.headers.extend(extra_headers(script));
            return answer;
        }
        let body = if script.echo {
            echoed(request, sni, port).into()
        } else {
            let default = Bytes::from_static(DEFAULT_BODY.as_bytes());
            match (&script.body, script.size) {
                (Some(body), _) => body.clone(),
                (None, Some(_)) => Bytes::new(),
                (None, None) => default,
            }
        };
        Self::with_body(script, body)
            .unwrap_or_else(|error| Self::text(400, format!("no such body: {error}\n")))
    }

    /// Whether a body may follow such a status.
    pub(super) fn has_body(&self) -> bool {
        !matches!(self.status, 204 | 304)
    }

    fn with_body(script: &Script, body: Bytes) -> io::Result<Self> {
        let mut headers = Vec::new();
        let type_of_body = match (&script.content_type, script.echo) {
            (Some(content_type), _) => content_type.as_str(),
            (None, true) => "application/json",
            (None, false) => "text/plain; charset=utf-8",
        };
        headers.push(("content-type".to_owned(), type_of_body.to_owned()));
        let encoding = script.bomb.or(script.encoding);
        if let Some(encoding) = encoding {
            headers.push(("content-encoding".to_owned(), encoding.name().to_owned()));
        }
        headers.extend(extra_headers(script));
        let size = script.size.unwrap_or(body.len() as u64);
        let mut payload = match (script.bomb, script.encoding) {
            (Some(kind), _) => Payload::of(bomb(kind, BOMB_MIB)?),
            (None, Some(_)) if size > ENCODED_MAX => {
                return Err(io::Error::other("at most 64m can be encoded"));
            }
            (None, Some(encoding)) => {
                let plain = Payload::filled(body, size).collected();
                let encoded = encoded(&plain, encoding)?;
                let length = encoded.len() as u64;
                Payload::filled(encoded, length)
            }
            (None, None) if script.endless => Payload::endless(body),
            (None, None) => Payload::filled(body, size),
        };
        if script.truncate {
            let half = payload.left().unwrap_or(0) / 2;
            payload = payload.cut(half);
        }
        let length = payload.left().filter(|_| !script.chunked);
        let content_length = length.map(|length| match script.lie {
            Some(Lie::Long) => length + LIE_BYTES,
            Some(Lie::Short) => length / 2,
            None => length,
        });
        Ok(Self {
            status: script.status.unwrap_or(200),
            headers,
            content_length,
            payload,
        })
    }
}

/// Where to, if anywhere.
fn redirect(script: &Script, target: &str) -> Option<String> {
    if script.redirect_loop {
        return Some(target.to_owned());
    }
    if script.hops == 0 {
        return script.redirect.clone();
    }
    let (path, query) = target.split_once('?')?;
    let fewer = format!("hops={}", script.hops - 1);
    let query: Vec<_> = query
        .split('&')
        .map(|pair| match pair.strip_prefix("hops=") {
            Some(_) => fewer.as_str(),
            None => pair,
        })
        .collect();
    Some(format!("{path}?{}", query.join("&")))
}

/// `header`, `headers` and `header_bytes`.
fn extra_headers(script: &Script) -> impl Iterator<Item = (String, String)> {
    let count = match (script.headers, script.header_bytes) {
        (0, 1..) => 1,
        (count, _) => count,
    };
    let length = script.header_bytes.div_ceil(count.max(1)).max(1) as usize;
    let filler = (0..count).map(move |n| (format!("x-filler-{n}"), "f".repeat(length)));
    script.extra_headers.clone().into_iter().chain(filler)
}

fn echoed(request: &Request, sni: Option<&str>, port: u16) -> String {
    let headers: Vec<_> = request
        .headers
        .iter()
        .map(|(name, value)| json!([name, String::from_utf8_lossy(value)]))
        .collect();
    json!({
        "method": request.method.as_str(),
        "target": request.target,
        "version": format!("{:?}", request.version),
        "headers": headers,
        "body": String::from_utf8_lossy(&request.body),
        "sni": sni,
        "port": port,
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(target: &str) -> Answer {
        let query = target.split_once('?').map_or("", |(_, query)| query);
        let request = Request {
            target: target.to_owned(),
            ..Request::default()
        };
        Answer::scripted(&Script::parse(query).unwrap(), &request, None, 1)
    }

    fn header<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
        let mut headers = answer.headers.iter();
        headers
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    #[test]
    fn hops_count_down_to_the_rest_of_the_script() {
        let mut target = "/x?hops=2&status=418".to_owned();
        for _ in 0..2 {
            let hop = answer(&target);
            assert_eq!(hop.status, 302);
            target = header(&hop, "location").unwrap().to_owned();
        }
        assert_eq!(target, "/x?hops=0&status=418");
        assert_eq!(answer(&target).status, 418);
        let looping = answer("/x?loop=1&code=307");
        assert_eq!(
            (looping.status, header(&looping, "location")),
            (307, Some("/x?loop=1&code=307"))
        );
    }

    #[test]
    fn lengths_lie_on_request_only() {
        let length = |query: &str| answer(&format!("/?size=1000{query}")).content_length;
        assert_eq!(length(""), Some(1_000));
        assert_eq!(length("&lie=length"), Some(1_100));
        assert_eq!(length("&lie=short"), Some(500));
        assert_eq!(length("&chunked=1"), None);
        assert_eq!(answer("/?endless=1").content_length, None);
    }

    #[test]
    fn filler_headers_share_their_bytes() {
        let filler = |query: &str| -> (usize, usize) {
            let answer = answer(&format!("/?{query}"));
            let filler = answer
                .headers
                .iter()
                .filter(|(name, _)| name.starts_with("x-filler"));
            filler.fold((0, 0), |(count, bytes), (_, value)| {
                (count + 1, bytes + value.len())
            })
        };
        assert_eq!(filler("headers=10"), (10, 10));
        assert_eq!(filler("header_bytes=64k"), (1, 65_536));
        assert_eq!(filler("headers=4&header_bytes=1k"), (4, 1_024));
    }

    #[test]
    fn authorization_comes_first() {
        let script = Script::parse("auth=basic:user:pass&hops=2").unwrap();
        let mut request = Request::default();
        let refused = Answer::scripted(&script, &request, None, 1);
        assert_eq!(refused.status, 401);
        assert_eq!(
            header(&refused, "www-authenticate"),
            Some("Basic realm=\"target\"")
        );
        request.target = "/?hops=2".into();
        request.headers = vec![("Authorization".into(), b"Basic dXNlcjpwYXNz".to_vec())];
        assert_eq!(Answer::scripted(&script, &request, None, 1).status, 302);
    }
}
