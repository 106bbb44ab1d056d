//! A server that answers everything, an endpoint of it, and a prober: the world of one probe.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::uri::{PathAndQuery, Scheme};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::task::LocalSet;
use tokio_rustls::TlsAcceptor;
use watcher::domain::{
    Check, Connection, DnsMode, Endpoint, EndpointId, HttpCheck, HttpVersion, Interval, IpFamily,
    Sample, StatusRanges, Target, Timestamp, TlsSettings,
};
use watcher::net::policy::PolicyOptions;
use watcher::probe::matcher::{MatchThread, Matcher, MatcherOptions};
use watcher::probe::{Prober, ProberOptions};

/// Of every answer.
pub(crate) const BODY_BYTES: usize = 1_024;

/// Answers every request with 1 KiB on a thread of its own; for ever.
pub(crate) fn serve(tls: Option<Arc<ServerConfig>>) -> SocketAddr {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        runtime().block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            tell.send(listener.local_addr().unwrap()).unwrap();
            let acceptor = tls.map(TlsAcceptor::from);
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                match acceptor.clone() {
                    None => drop(tokio::spawn(answer(stream))),
                    Some(acceptor) => drop(tokio::spawn(async move {
                        if let Ok(stream) = acceptor.accept(stream).await {
                            answer(stream).await;
                        }
                    })),
                }
            }
        });
    });
    told.recv().unwrap()
}

/// Answers until the client leaves, or asks for the end.
async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut response =
        format!("HTTP/1.1 200 OK\r\ncontent-length: {BODY_BYTES}\r\n\r\n").into_bytes();
    response.resize(response.len() + BODY_BYTES, b'x');
    let mut request = [0; 4_096];
    let mut len = 0;
    while let Ok(count @ 1..) = stream.read(&mut request[len..]).await {
        len += count;
        if request[..len].ends_with(b"\r\n\r\n") {
            let closes = request[..len]
                .windows(17)
                .any(|w| w == b"connection: close");
            if stream.write_all(&response).await.is_err() || closes {
                return;
            }
            len = 0;
        }
    }
}

/// One thread.
pub(crate) fn runtime() -> Runtime {
    // Watched like the agent's: what that costs is part of a probe.
    watcher::net::attention::watch(&mut Builder::new_current_thread())
        .enable_all()
        .build()
        .unwrap()
}

/// A plain GET of it, changed by `change`.
pub(crate) fn endpoint(address: SocketAddr, change: impl FnOnce(&mut HttpCheck)) -> Endpoint {
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
    let is_https = check.tls.ca_pem.is_some();
    Endpoint {
        id: EndpointId(1),
        target: Target {
            scheme: if is_https {
                Scheme::HTTPS
            } else {
                Scheme::HTTP
            },
            host: address.ip().to_string().into(),
            port: address.port(),
            path_and_query: PathAndQuery::from_static("/a/path?with=query"),
        },
        interval: Interval::from_secs(60).unwrap(),
        timeout: Duration::from_secs(10),
        degraded_after: None,
        cert_warn: None,
        check: Arc::new(Check::Http(check)),
    }
}

/// A prober with its runtime.
pub(crate) struct Probes {
    prober: Prober,
    pub(crate) local: LocalSet,
    pub(crate) runtime: Runtime,
    _matching: MatchThread,
}

impl Probes {
    pub(crate) fn new() -> Self {
        let (matcher, matching) = Matcher::start(MatcherOptions::default()).unwrap();
        let options = ProberOptions {
            policy: PolicyOptions::default(),
            name_servers: None,
            matcher,
            suspect_above: watcher::probe::SUSPECT_ABOVE,
        };
        Self {
            prober: Prober::new(options),
            local: LocalSet::new(),
            runtime: runtime(),
            _matching: matching,
        }
    }

    /// One probe; it must pass.
    pub(crate) async fn probe(&self, endpoint: &Endpoint) {
        let sample = self.sample(endpoint, Timestamp::from_millis(0)).await;
        assert_eq!(sample.reason, None, "{sample:?}");
    }

    /// One probe, whatever comes of it.
    pub(crate) async fn sample(&self, endpoint: &Endpoint, now: Timestamp) -> Sample {
        self.prober.probe(endpoint, now, now).await
    }
}
