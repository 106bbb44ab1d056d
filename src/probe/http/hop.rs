//! One request of a chain of redirects: where it goes and what it may carry there.

use std::borrow::Cow;
use std::net::IpAddr;

use ::http::uri::{PathAndQuery, Scheme};
use ::http::{Method, StatusCode};
use url::Url;

use super::head::Head;
use crate::domain::{Failure, HttpCheck, Target, TlsSettings};
use crate::probe::fault::Stop;

/// A request to be made. What only the first origin may see is decided here.
#[derive(Debug)]
pub(super) struct Hop<'a> {
    pub(super) target: Cow<'a, Target>,
    pub(super) method: Method,
    /// Whether the request's body is sent.
    pub(super) has_body: bool,
    /// Whether every hop up to here went to the first one's scheme, host and port.
    pub(super) is_first_origin: bool,
    first: &'a Target,
    check: &'a HttpCheck,
}

impl<'a> Hop<'a> {
    /// The request as configured.
    pub(super) fn first(target: &'a Target, check: &'a HttpCheck) -> Self {
        Self {
            target: Cow::Borrowed(target),
            method: check.method.clone(),
            has_body: !check.body.is_empty(),
            is_first_origin: true,
            first: target,
            check,
        }
    }

    /// The request that `response` asks for instead. RFC 9110, 15.4: 303 is fetched by GET, and so, by long custom,
    /// is a POST after 301 and 302. Credentials do not come back once a chain has left the first origin.
    pub(super) fn follow(&self, response: &Head) -> Result<Self, Stop> {
        let target = self.located(response)?;
        let becomes_get = match response.status {
            StatusCode::SEE_OTHER => self.method != Method::HEAD,
            StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND => self.method == Method::POST,
            _ => false,
        };
        Ok(Self {
            is_first_origin: self.is_first_origin && is_same_origin(&target, self.first),
            target: Cow::Owned(target),
            method: if becomes_get {
                Method::GET
            } else {
                self.method.clone()
            },
            has_body: self.has_body && !becomes_get,
            first: self.first,
            check: self.check,
        })
    }

    fn located(&self, response: &Head) -> Result<Target, Stop> {
        let invalid = |why: &str| Stop::failed(Failure::RedirectInvalid, why);
        let location = response.location.as_deref();
        let location = location.ok_or_else(|| invalid("the redirect has no Location"))?;
        let location = std::str::from_utf8(location)
            .map_err(|_| invalid("the redirect's Location is not text"))?;
        let url = Url::parse(&self.target.to_string())
            .and_then(|base| base.join(location))
            .map_err(|error| invalid(&format!("the redirect's Location: {error}")))?;
        let scheme = match url.scheme() {
            "http" => Scheme::HTTP,
            "https" => Scheme::HTTPS,
            other => return Err(invalid(&format!("a redirect to the scheme {other}"))),
        };
        // User and password of a Location are not sent: they would be the redirecting server's, not ours.
        let host = url.host_str().filter(|host| !host.is_empty());
        let host = host.ok_or_else(|| invalid("a redirect without a host"))?;
        let port = url.port_or_known_default().filter(|&port| port != 0);
        let port = port.ok_or_else(|| invalid("a redirect to port 0"))?;
        let path = match url.query() {
            Some(query) => PathAndQuery::try_from(format!("{}?{query}", url.path())),
            None => PathAndQuery::try_from(url.path()),
        };
        Ok(Target {
            scheme,
            host: host.into(),
            port,
            path_and_query: path.map_err(|_| invalid("a redirect to an unusable path"))?,
        })
    }

    /// The address and port to dial instead of asking for the name: as long as the chain stays on the first host; the
    /// port as long as the URL's is the first one's.
    pub(super) fn pinned(&self) -> Option<(IpAddr, u16)> {
        let pinned = self.check.connect_to.as_ref()?;
        if !self.is_first_host() {
            return None;
        }
        let port = pinned.port.filter(|_| self.target.port == self.first.port);
        Some((pinned.ip, port.unwrap_or(self.target.port)))
    }

    /// TLS settings of this hop: the client's certificate is a credential, the server's name belongs to the first host.
    pub(super) fn tls(&self) -> Cow<'a, TlsSettings> {
        let tls = &self.check.tls;
        let withholds_name = !self.is_first_host() && tls.server_name.is_some();
        let withholds_identity = !self.is_first_origin && tls.client_cert_pem.is_some();
        if !withholds_name && !withholds_identity {
            return Cow::Borrowed(tls);
        }
        let mut tls = tls.clone();
        if withholds_name {
            tls.server_name = None;
        }
        if withholds_identity {
            tls.client_cert_pem = None;
            tls.client_key_pem = None;
        }
        Cow::Owned(tls)
    }

    /// Whether this hop goes where `other` went.
    pub(super) fn is_same_origin(&self, other: &Self) -> bool {
        is_same_origin(&self.target, &other.target)
    }

    fn is_first_host(&self) -> bool {
        self.target.host == self.first.host
    }
}

/// Whether a response of this status sends the client elsewhere.
pub(super) fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

pub(super) fn too_many(redirects_max: u8) -> Stop {
    let detail = format!("more than {redirects_max} redirects");
    Stop::failed(Failure::RedirectLimit, &detail)
}

fn is_same_origin(a: &Target, b: &Target) -> bool {
    a.scheme == b.scheme && a.host == b.host && a.port == b.port
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{
        Connection, DnsMode, HttpVersion, IpFamily, PinnedAddress, Reason, Secret, StatusRanges,
    };
    use ::http::HeaderMap;

    fn check(method: Method) -> HttpCheck {
        HttpCheck {
            method,
            headers: HeaderMap::new(),
            body: Box::from(*b"body"),
            expected_status: StatusRanges::default(),
            must_match: None,
            must_not_match: None,
            auth: None,
            redirects_max: 5,
            connect_to: Some(PinnedAddress {
                ip: IpAddr::from([127, 0, 0, 1]),
                port: Some(8080),
            }),
            ip_family: IpFamily::Any,
            http_version: HttpVersion::Auto,
            tls: TlsSettings {
                server_name: Some("first.test".into()),
                client_cert_pem: Some("certificate".into()),
                client_key_pem: Some(Secret::new("key")),
                ..TlsSettings::default()
            },
            connection: Connection::Fresh,
            dns: DnsMode::Cached,
            body_bytes_max: 1 << 20,
        }
    }

    fn first() -> Target {
        Target {
            scheme: Scheme::HTTPS,
            host: "a.test".into(),
            port: 443,
            path_and_query: PathAndQuery::from_static("/x/y?z=1"),
        }
    }

    fn response(status: u16, location: &str) -> Head {
        Head {
            location: Some(location.as_bytes().into()),
            ..Head::new(StatusCode::from_u16(status).unwrap(), 11)
        }
    }

    #[test]
    fn methods_change_as_the_standard_says() {
        for (method, status, expected, has_body) in [
            (Method::GET, 301, Method::GET, true),
            (Method::POST, 301, Method::GET, false),
            (Method::POST, 302, Method::GET, false),
            (Method::PUT, 302, Method::PUT, true),
            (Method::POST, 303, Method::GET, false),
            (Method::HEAD, 303, Method::HEAD, true),
            (Method::POST, 307, Method::POST, true),
            (Method::POST, 308, Method::POST, true),
        ] {
            let (target, check) = (first(), check(method));
            let hop = Hop::first(&target, &check);
            let next = hop.follow(&response(status, "/")).unwrap();
            assert_eq!(
                (&next.method, next.has_body),
                (&expected, has_body),
                "{status}"
            );
        }
    }

    #[test]
    fn locations_are_resolved_against_the_hop() {
        let (target, check) = (first(), check(Method::GET));
        let hop = Hop::first(&target, &check);
        for (location, expected) in [
            ("/b", "https://a.test/b"),
            ("b?c=d#e", "https://a.test/x/b?c=d"),
            ("?q", "https://a.test/x/y?q"),
            ("//b.test/c", "https://b.test/c"),
            ("http://b.test:8080", "http://b.test:8080/"),
            ("http://u:p@b.test/", "http://b.test/"),
            ("http://0x7f.1/", "http://127.0.0.1/"),
            ("http://2130706433/", "http://127.0.0.1/"),
            ("http://[::ffff:127.0.0.1]/", "http://[::ffff:7f00:1]/"),
            ("/grün", "https://a.test/gr%C3%BCn"),
        ] {
            let next = hop.follow(&response(302, location)).unwrap();
            assert_eq!(next.target.to_string(), expected, "{location}");
        }
    }

    #[test]
    fn redirects_that_lead_nowhere_are_told() {
        let (target, check) = (first(), check(Method::GET));
        let hop = Hop::first(&target, &check);
        for location in [
            "file:///etc/passwd",
            "ftp://a.test/",
            "http://",
            "http://a:0/",
            "http://a b/",
        ] {
            let stop = hop.follow(&response(302, location)).unwrap_err();
            assert_eq!(
                stop.reason,
                Reason::Failed(Failure::RedirectInvalid),
                "{location}"
            );
        }
        let none = Head::new(StatusCode::FOUND, 11);
        assert!(hop.follow(&none).is_err());
    }

    #[test]
    fn what_is_the_first_origins_stays_there() {
        let (target, check) = (first(), check(Method::GET));
        let hop = Hop::first(&target, &check);
        assert_eq!(hop.pinned(), Some((IpAddr::from([127, 0, 0, 1]), 8080)));
        assert!(hop.tls().client_cert_pem.is_some());

        let same = hop.follow(&response(302, "/other")).unwrap();
        assert!(same.is_first_origin && same.pinned() == hop.pinned());

        let port = hop.follow(&response(302, "https://a.test:8443/")).unwrap();
        assert!(!port.is_first_origin);
        assert_eq!(port.pinned(), Some((IpAddr::from([127, 0, 0, 1]), 8443)));
        assert_eq!(port.tls().server_name.as_deref(), Some("first.test"));
        assert!(port.tls().client_cert_pem.is_none() && port.tls().client_key_pem.is_none());

        let host = hop.follow(&response(302, "https://b.test/")).unwrap();
        assert!(!host.is_first_origin && host.pinned().is_none());
        assert_eq!(host.tls().server_name, None);
        let back = host.follow(&response(302, "https://a.test/")).unwrap();
        assert!(!back.is_first_origin, "credentials do not come back");
    }
}
