//! A scriptable HTTP and HTTPS server for tests, demos and benches: the peer, and the oracle of what arrived.
//!
//! A URL alone says what the server does: `/any/path?latency=20ms&status=503`. [`key_list`] has the keys. TLS is chosen by
//! the name asked for: `expired.test`, `wrong.test`; [`Variant`] has the names. `/_log`, `/_count` and `/_rate` tell what
//! arrived.
//!
//! HTTP/1 is our own (`http1`), since a server that may reset in the middle of a head, lie about lengths and speak no
//! HTTP at all is what no library offers, and since it shares a small machine with the agent it serves. HTTP/2 is hyper's.
//! No request is trusted to be well-formed, and none is ever refused for its load.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

mod answer;
mod bomb;
mod certificates;
mod choice;
mod encode;
mod http1;
mod http2;
mod keys;
mod payload;
mod record;
mod script;
mod serve;
mod server;
mod tls;
mod value;
mod variant;
mod wire;

pub use answer::DEFAULT_BODY;
pub use bomb::BOMB_MIB;
pub use certificates::{CertificateError, ClientIdentity};
pub use keys::key_list;
pub use record::{RECORD_MAX, Record};
pub use tls::TlsError;
pub use variant::{KeyKind, Variant};

use record::Recorder;
use serve::{Listener, Speaks};
use server::Server;
use tls::Tls;

/// Why there is no target.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is taken, or not ours.
    #[error("listen on {address}")]
    Listen {
        /// Which one.
        address: SocketAddr,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// No TLS.
    #[error("prepare the TLS listener")]
    Tls(#[from] TlsError),
    /// The log file cannot be opened.
    #[error("append to the log {path}", path = path.display())]
    Log {
        /// Which one.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The system gave no thread.
    #[error("start a server thread")]
    Thread(#[source] io::Error),
}

/// A TLS socket.
#[derive(Clone, Copy, Debug)]
pub struct TlsListen {
    /// Port 0 for any.
    pub address: SocketAddr,
    /// What every client gets; `None` to let the name decide.
    pub variant: Option<Variant>,
}

/// What to serve.
#[derive(Clone, Debug)]
pub struct TargetOptions {
    /// Of plain HTTP; port 0 for any.
    pub listen: SocketAddr,
    /// None for no HTTPS.
    pub listen_tls: Vec<TlsListen>,
    /// Where to keep the authority and the client's identity; `None` for in memory.
    pub tls_dir: Option<PathBuf>,
    /// Each with a runtime and sockets of its own.
    pub threads: NonZeroUsize,
    /// How many requests to keep for `/_log` and [`Target::requests`]; `None` for no recording, which saves a lock and a
    /// copy of the path a request.
    pub record_max: Option<usize>,
    /// A file to append a line to for each request; `-` for stdout.
    pub log: Option<PathBuf>,
}

/// For tests: HTTP and HTTPS on free ports of 127.0.0.1, one thread, recording.
impl Default for TargetOptions {
    fn default() -> Self {
        let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self {
            listen: free,
            listen_tls: vec![TlsListen {
                address: free,
                variant: None,
            }],
            tls_dir: None,
            threads: NonZeroUsize::MIN,
            record_max: Some(RECORD_MAX),
            log: None,
        }
    }
}

/// A running server, on threads of its own: it answers also while the caller's thread is busy. Ends when dropped.
pub struct Target {
    server: Arc<Server>,
    tls: Option<Arc<Tls>>,
    address: SocketAddr,
    tls_addresses: Vec<SocketAddr>,
    stop: CancellationToken,
    threads: Vec<Thread>,
}

struct Thread {
    /// Resolves, to an error, when the thread is done.
    done: oneshot::Receiver<()>,
    handle: thread::JoinHandle<()>,
}

impl Target {
    /// Listens; when it returns, clients can connect.
    pub async fn start(options: TargetOptions) -> Result<Self, Error> {
        let recorder =
            Recorder::new(options.record_max, options.log.as_deref()).map_err(|source| {
                Error::Log {
                    path: options.log.clone().unwrap_or_default(),
                    source,
                }
            })?;
        let tls = match options.listen_tls.is_empty() {
            true => None,
            false => Some(Arc::new(prepare_tls(options.tls_dir.as_deref())?)),
        };
        let count = options.threads.get();
        let http = Sockets::bind(options.listen, count)?;
        let mut target = Self {
            server: Arc::new(Server::new(recorder)),
            tls: tls.clone(),
            address: http.address,
            tls_addresses: Vec::new(),
            stop: CancellationToken::new(),
            threads: Vec::new(),
        };
        let mut per_thread: Vec<Vec<Listener>> = (0..count).map(|_| Vec::new()).collect();
        http.share_out(&Speaks::Http, &mut per_thread);
        for listen in &options.listen_tls {
            let Some(tls) = &tls else { break };
            let https = Sockets::bind(listen.address, count)?;
            target.tls_addresses.push(https.address);
            https.share_out(
                &Speaks::Https(Arc::clone(tls), listen.variant),
                &mut per_thread,
            );
        }
        for listeners in per_thread {
            target.spawn(listeners)?;
        }
        Ok(target)
    }

    /// Of plain HTTP.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// Of each TLS socket, in the order of [`TargetOptions::listen_tls`].
    pub fn https_addrs(&self) -> &[SocketAddr] {
        &self.tls_addresses
    }

    /// `http://127.0.0.1:PORT`, without a slash at the end.
    pub fn http_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// `https://NAME:PORT` of the first TLS socket, without a slash at the end. Names need [`Self::https_addrs`] as the
    /// address to connect to: no name server knows them.
    pub fn https_url(&self, name: &str) -> String {
        format!("https://{name}:{}", self.https_port())
    }

    /// Of the first TLS socket; 0 without one.
    pub fn https_port(&self) -> u16 {
        self.tls_addresses.first().map_or(0, SocketAddr::port)
    }

    /// The authority that signs the server's certificates and trusts [`Self::client_identity`]; empty without TLS.
    pub fn ca_pem(&self) -> &str {
        self.tls.as_ref().map_or("", |tls| &tls.authority.ca_pem)
    }

    /// What `mtls.test` wants to see; `None` without TLS.
    pub fn client_identity(&self) -> Option<&ClientIdentity> {
        self.tls.as_ref().map(|tls| &tls.authority.client)
    }

    /// The requests kept, oldest first.
    pub fn requests(&self) -> Vec<Record> {
        self.server.recorder.since(0)
    }

    /// Requests, since the start or the last [`Self::clear`], whose path and query begin with `prefix`. 0 where nothing
    /// is recorded.
    pub fn count(&self, prefix: &str) -> u64 {
        self.server.recorder.count(prefix)
    }

    /// Requests since the start or the last [`Self::clear`], recorded or not.
    pub fn total(&self) -> u64 {
        self.server.recorder.total()
    }

    /// Seconds since the epoch with their requests, of the last 15 minutes, oldest first; recorded or not.
    pub fn rate(&self) -> Vec<(u64, u64)> {
        self.server.recorder.rate()
    }

    /// Forgets the requests so far.
    pub fn clear(&self) {
        self.server.recorder.reset();
    }

    /// Closes sockets and connections, at once. The log file has every line then.
    pub async fn shutdown(mut self) -> io::Result<()> {
        self.stop.cancel();
        for Thread { done, handle } in self.threads.drain(..) {
            let _ = done.await;
            let _ = handle.join();
        }
        self.server.recorder.flush()
    }

    fn spawn(&mut self, listeners: Vec<Listener>) -> Result<(), Error> {
        let (finished, done) = oneshot::channel();
        let (server, stop) = (Arc::clone(&self.server), self.stop.clone());
        let serve = move || {
            // Dropped, and so told, however the thread ends.
            let _finished: oneshot::Sender<()> = finished;
            if let Err(error) = serve::run(listeners, &server, &stop) {
                let error: &dyn std::error::Error = &error;
                tracing::error!(error, "a thread of the target ended");
            }
        };
        let builder = thread::Builder::new().name("target".into());
        let handle = builder.spawn(serve).map_err(Error::Thread)?;
        self.threads.push(Thread { done, handle });
        Ok(())
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.stop.cancel();
        for thread in self.threads.drain(..) {
            // It drops its connections and ends: milliseconds. A panic in it has been printed.
            let _ = thread.handle.join();
        }
        let _ = self.server.recorder.flush();
    }
}

/// One address, bound once for each thread.
struct Sockets {
    address: SocketAddr,
    sockets: Vec<StdListener>,
}

impl Sockets {
    fn bind(address: SocketAddr, count: usize) -> Result<Self, Error> {
        let failed = |source| Error::Listen { address, source };
        if count == 1 {
            let socket = serve::bind(address, false).map_err(failed)?;
            let address = socket.local_addr().map_err(failed)?;
            return Ok(Self {
                address,
                sockets: vec![socket],
            });
        }
        // Sockets that share a port would also share it with another target of the same user: one that does not share
        // finds out whether the port is free.
        drop(serve::bind(address, false).map_err(failed)?);
        let first = serve::bind(address, true).map_err(failed)?;
        let address = first.local_addr().map_err(failed)?;
        let mut sockets = vec![first];
        for _ in 1..count {
            sockets.push(serve::bind(address, true).map_err(failed)?);
        }
        Ok(Self { address, sockets })
    }

    fn share_out(self, speaks: &Speaks, per_thread: &mut [Vec<Listener>]) {
        for (socket, listeners) in self.sockets.into_iter().zip(per_thread) {
            listeners.push(Listener {
                socket,
                speaks: speaks.clone(),
            });
        }
    }
}

fn prepare_tls(dir: Option<&Path>) -> Result<Tls, TlsError> {
    let authority = match dir {
        Some(dir) => certificates::Authority::in_dir(dir)?,
        None => certificates::Authority::new()?,
    };
    Tls::new(authority)
}
