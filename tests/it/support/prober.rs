//! A prober in the test's thread, endpoints for it, and servers that misbehave in ways no target does.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use socket2::{Domain, Socket, Type};
use tokio::runtime::{Builder, Runtime};
use tokio::task::LocalSet;
use watcher::domain::{
    Check, Connection, DnsMode, Endpoint, EndpointId, Failure, HttpCheck, HttpVersion, Interval,
    IpFamily, Pattern, PinnedAddress, Reason, Sample, SkipReason, StatusRanges, Target, Timestamp,
    TlsSettings,
};
use watcher::net::policy::PolicyOptions;
use watcher::probe::matcher::{MatchThread, Matcher, MatcherOptions};
use watcher::probe::{Prober, ProberOptions, SUSPECT_ABOVE};

/// A prober with its runtime; what it keeps lives from probe to probe.
pub(crate) struct Rig {
    pub(crate) prober: Prober,
    local: LocalSet,
    runtime: Runtime,
    _matching: MatchThread,
}

impl Rig {
    /// With the default policy and the system's resolver.
    pub(crate) fn new() -> Self {
        Self::with(PolicyOptions::default(), None)
    }

    /// With a policy of its own.
    pub(crate) fn with_policy(policy: PolicyOptions) -> Self {
        Self::with(policy, None)
    }

    /// That asks one name server.
    pub(crate) fn with_name_server(server: SocketAddr) -> Self {
        Self::with(PolicyOptions::default(), Some(vec![server]))
    }

    pub(crate) fn with(policy: PolicyOptions, name_servers: Option<Vec<SocketAddr>>) -> Self {
        let (matcher, matching) = Matcher::start(MatcherOptions::default()).unwrap();
        Self {
            prober: Prober::new(ProberOptions {
                policy,
                name_servers,
                matcher,
                suspect_above: SUSPECT_ABOVE,
            }),
            local: LocalSet::new(),
            runtime: Builder::new_current_thread().enable_all().build().unwrap(),
            _matching: matching,
        }
    }

    /// One probe, scheduled 7 ms before it starts.
    pub(crate) fn probe(&self, endpoint: &Endpoint) -> Sample {
        self.run(async {
            let now = now();
            let scheduled_at = now.minus(Duration::from_millis(7));
            self.prober.probe(endpoint, scheduled_at, now).await
        })
    }

    /// Likewise, of `url` with a plain check.
    pub(crate) fn get(&self, url: &str) -> Sample {
        self.probe(&endpoint(url))
    }

    /// Anything, on the prober's thread.
    pub(crate) fn run<F: Future>(&self, future: F) -> F::Output {
        self.local.block_on(&self.runtime, future)
    }
}

/// Wall time.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp::from_micros(since.as_micros() as i64)
}

/// An endpoint with a plain check of `url`, a timeout of 5 s and an id of 1.
pub(crate) fn endpoint(url: &str) -> Endpoint {
    endpoint_with(url, |_| ())
}

/// Likewise, with its check changed.
pub(crate) fn endpoint_with(url: &str, change: impl FnOnce(&mut HttpCheck)) -> Endpoint {
    let url = url::Url::parse(url).unwrap();
    let path = match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    };
    let mut check = HttpCheck {
        method: http::Method::GET,
        headers: http::HeaderMap::new(),
        body: Box::default(),
        expected_status: StatusRanges::default(),
        must_match: None,
        must_not_match: None,
        auth: None,
        redirects_max: 5,
        connect_to: None,
        ip_family: IpFamily::Any,
        http_version: HttpVersion::Auto,
        tls: TlsSettings::default(),
        connection: Connection::Fresh,
        dns: DnsMode::Cached,
        body_bytes_max: 1 << 20,
    };
    change(&mut check);
    Endpoint {
        id: EndpointId(1),
        target: Target {
            scheme: url.scheme().parse().unwrap(),
            host: url.host_str().unwrap().into(),
            port: url.port_or_known_default().unwrap(),
            path_and_query: path.parse().unwrap(),
        },
        interval: Interval::from_secs(5).unwrap(),
        timeout: Duration::from_secs(5),
        degraded_after: None,
        cert_warn: None,
        check: Arc::new(Check::Http(check)),
    }
}

/// Likewise, with another deadline.
pub(crate) fn within(millis: u64, mut endpoint: Endpoint) -> Endpoint {
    endpoint.timeout = Duration::from_millis(millis);
    endpoint
}

/// 127.0.0.1, at the URL's port.
pub(crate) fn here() -> Option<PinnedAddress> {
    Some(PinnedAddress {
        ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
        port: None,
    })
}

/// A compiled pattern.
pub(crate) fn pattern(text: &str) -> Option<Arc<Pattern>> {
    Some(Arc::new(Pattern::compile(text).unwrap()))
}

/// Nothing is wrong with the sample.
pub(crate) fn up(sample: &Sample) {
    assert_eq!(sample.reason, None, "{sample:?}");
}

/// The probe failed in exactly this way.
pub(crate) fn down(sample: &Sample, failure: Failure) {
    assert_eq!(sample.reason, Some(Reason::Failed(failure)), "{sample:?}");
}

/// It was the agent's own fault.
pub(crate) fn skipped(sample: &Sample, skip: SkipReason) {
    assert_eq!(sample.reason, Some(Reason::Skipped(skip)), "{sample:?}");
    assert_eq!((sample.lag_us, sample.duration_us), (None, None));
}

/// A server on a thread of its own that treats each connection as `serve` does, in turn. Its address.
pub(crate) fn serving(mut serve: impl FnMut(TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            serve(stream.unwrap());
        }
    });
    address
}

/// Reads the head of a request; false when the peer has left.
pub(crate) fn read_head(stream: &mut TcpStream) -> bool {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return false,
        }
    }
    true
}

/// A port where nothing listens.
pub(crate) fn closed_port() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

/// A listener that takes no more connections: the kernel drops their first packets.
pub(crate) struct FullBacklog {
    pub(crate) address: SocketAddr,
    _listener: Socket,
    _waiting: Vec<Socket>,
}

pub(crate) fn full_backlog(address: SocketAddr) -> FullBacklog {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.bind(&address.into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let waiting = (0..4).map(|_| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_nonblocking(true).unwrap();
        let _ = socket.connect(&address);
        socket
    });
    FullBacklog {
        address: address.as_socket().unwrap(),
        _waiting: waiting.collect(),
        _listener: listener,
    }
}
