//! A TCP proxy between an agent and its database that does on command what networks and servers do by accident, and
//! counts what it did.
//!
//! It reads PostgreSQL's messages, so that it knows a commit when it sees one; for that it declines TLS.

// By path, since tests/chaos has this file too, where it lies in another folder.
#[path = "chaos_proxy/link.rs"]
mod link;
#[path = "chaos_proxy/wire.rs"]
mod wire;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// What happens to the commit of samples that comes next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum CommitFault {
    /// The server commits; the client never hears of it.
    Swallow(Then),
    /// The commit reaches the server so much later, whether the client has gone or not.
    Delay(Duration),
}

/// What the client sees instead of the reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Then {
    /// The end of the connection.
    Cut,
    /// Nothing, until it leaves.
    Hang,
}

/// How often each fault has happened.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Seen {
    /// Connections that were let through.
    pub(crate) accepted: u64,
    /// Connections ended in the middle.
    pub(crate) cut: u64,
    /// Of these, by RST.
    pub(crate) reset: u64,
    /// Connections that fell silent, both sides still open.
    pub(crate) silenced: u64,
    /// Replies swallowed to commits that the server made: of a COPY by itself.
    pub(crate) swallowed_copy: u64,
    /// Likewise, of a transaction.
    pub(crate) swallowed_transaction: u64,
    /// Commits held back.
    pub(crate) delayed: u64,
    /// Of these, made by the server after the client had gone.
    pub(crate) landed_late: u64,
    /// Likewise, refused by the server.
    pub(crate) refused_late: u64,
}

impl Seen {
    pub(crate) fn swallowed(&self) -> u64 {
        self.swallowed_copy + self.swallowed_transaction
    }
}

#[derive(Default)]
struct Counters {
    accepted: AtomicU64,
    cut: AtomicU64,
    reset: AtomicU64,
    silenced: AtomicU64,
    swallowed_copy: AtomicU64,
    swallowed_transaction: AtomicU64,
    delayed: AtomicU64,
    landed_late: AtomicU64,
    refused_late: AtomicU64,
}

/// What every connection is subject to.
#[derive(Clone, Copy, Debug)]
struct Weather {
    open: bool,
    silent: bool,
    latency: Duration,
    bytes_per_second: Option<u32>,
    /// Connections made before the last change of this are ended.
    epoch: u64,
    by_reset: bool,
}

struct Shared {
    weather: watch::Sender<Weather>,
    commit_faults: Mutex<VecDeque<CommitFault>>,
    counters: Counters,
}

/// A proxy on a loopback port. Its connections end with it.
pub(crate) struct ChaosProxy {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    _task: JoinSet<()>,
}

impl ChaosProxy {
    /// A proxy to `upstream`, open or cut. One that is open listens when this returns.
    pub(crate) fn start(upstream: SocketAddr, open: bool) -> Self {
        let first = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        first.set_nonblocking(true).unwrap();
        let address = first.local_addr().unwrap();
        let first = open.then(|| TcpListener::from_std(first).unwrap());
        let shared = Arc::new(Shared {
            weather: watch::Sender::new(Weather {
                open,
                silent: false,
                latency: Duration::ZERO,
                bytes_per_second: None,
                epoch: 0,
                by_reset: false,
            }),
            commit_faults: Mutex::default(),
            counters: Counters::default(),
        });
        let mut task = JoinSet::new();
        task.spawn(serve(first, address, upstream, shared.clone()));
        Self {
            address,
            shared,
            _task: task,
        }
    }

    /// Ends the connections that stand and refuses new ones.
    pub(crate) fn cut(&self) {
        self.change(|weather| {
            weather.open = false;
            weather.by_reset = false;
        });
    }

    /// Ends the connections that stand, with FIN or with RST; new ones are let through.
    pub(crate) fn drop_connections(&self, by_reset: bool) {
        self.change(|weather| {
            weather.epoch += 1;
            weather.by_reset = by_reset;
        });
    }

    /// Forwards nothing any more and ends nothing: connections that stand are dead for good and do not know it, new
    /// ones are accepted and never answered. The server's side of each ends after [`link::STUCK_FOR`].
    pub(crate) fn silence(&self) {
        self.change(|weather| weather.silent = true);
    }

    /// New connections are let through, and at once. Faults of commits stay as they are.
    pub(crate) fn heal(&self) {
        self.change(|weather| {
            *weather = Weather {
                open: true,
                silent: false,
                latency: Duration::ZERO,
                bytes_per_second: None,
                ..*weather
            }
        });
    }

    /// Everything takes so much longer, each way.
    pub(crate) fn latency(&self, latency: Duration) {
        self.change(|weather| weather.latency = latency);
    }

    /// No connection carries more, each way.
    pub(crate) fn slow(&self, bytes_per_second: u32) {
        self.change(|weather| weather.bytes_per_second = Some(bytes_per_second));
    }

    /// Does this to the next commit of samples that none was meant for yet.
    pub(crate) fn fault_next_commit(&self, fault: CommitFault) {
        self.faults().push_back(fault);
    }

    /// Faults of commits that have not met one yet.
    pub(crate) fn faults_waiting(&self) -> usize {
        self.faults().len()
    }

    /// Commits that come from now on are left alone.
    pub(crate) fn forget_faults(&self) {
        self.faults().clear();
    }

    pub(crate) fn seen(&self) -> Seen {
        let counters = &self.shared.counters;
        Seen {
            accepted: counters.accepted.load(Relaxed),
            cut: counters.cut.load(Relaxed),
            reset: counters.reset.load(Relaxed),
            silenced: counters.silenced.load(Relaxed),
            swallowed_copy: counters.swallowed_copy.load(Relaxed),
            swallowed_transaction: counters.swallowed_transaction.load(Relaxed),
            delayed: counters.delayed.load(Relaxed),
            landed_late: counters.landed_late.load(Relaxed),
            refused_late: counters.refused_late.load(Relaxed),
        }
    }

    fn change(&self, change: impl FnOnce(&mut Weather)) {
        self.shared.weather.send_modify(change);
    }

    fn faults(&self) -> std::sync::MutexGuard<'_, VecDeque<CommitFault>> {
        self.shared.commit_faults.lock().unwrap()
    }
}

async fn serve(
    mut first: Option<TcpListener>,
    address: SocketAddr,
    upstream: SocketAddr,
    shared: Arc<Shared>,
) {
    let mut weather = shared.weather.subscribe();
    let mut links = JoinSet::new();
    loop {
        weather.wait_for(|weather| weather.open).await.unwrap();
        let listener = loop {
            if let Some(listener) = first.take() {
                break listener;
            }
            match TcpListener::bind(address).await {
                Ok(listener) => break listener,
                Err(_) => sleep(Duration::from_millis(20)).await,
            }
        };
        loop {
            tokio::select! {
                _ = weather.wait_for(|weather| !weather.open) => break,
                Some(_) = links.join_next() => {}
                Ok((client, _)) = listener.accept() => {
                    let shared = shared.clone();
                    links.spawn(async move {
                        // Like one that is refused, as far as a proxy can.
                        if let Ok(server) = TcpStream::connect(upstream).await {
                            link::run(client, server, &shared).await;
                        }
                    });
                }
            }
        }
    }
}
