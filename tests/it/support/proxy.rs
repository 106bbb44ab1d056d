//! A TCP proxy between an agent and its database that can be cut.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// Forwards connections while it is open; cutting it ends those that stand and refuses new ones.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    open: Arc<watch::Sender<bool>>,
    _task: JoinSet<()>,
}

impl Proxy {
    /// A proxy to `upstream`, open or cut.
    pub(crate) fn start(upstream: SocketAddr, open: bool) -> Self {
        let address = super::process::free_address();
        let open = Arc::new(watch::Sender::new(open));
        let mut task = JoinSet::new();
        task.spawn(run(address, upstream, open.subscribe()));
        Self {
            address,
            open,
            _task: task,
        }
    }

    pub(crate) fn cut(&self) {
        self.open.send_replace(false);
    }

    pub(crate) fn heal(&self) {
        self.open.send_replace(true);
    }
}

async fn run(address: SocketAddr, upstream: SocketAddr, mut open: watch::Receiver<bool>) {
    loop {
        open.wait_for(|open| *open).await.unwrap();
        let listener = loop {
            match TcpListener::bind(address).await {
                Ok(listener) => break listener,
                Err(_) => sleep(Duration::from_millis(20)).await,
            }
        };
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                _ = open.wait_for(|open| !*open) => break,
                Ok((mut from, _)) = listener.accept() => {
                    connections.spawn(async move {
                        if let Ok(mut to) = TcpStream::connect(upstream).await {
                            let _ = copy_bidirectional(&mut from, &mut to).await;
                        }
                    });
                }
            }
        }
        // Dropping the tasks closes both ends of every connection.
    }
}
