//! The connection under HTTP: TCP, or TLS over it.

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// A byte stream whose socket can be reached, for resets.
pub(super) trait Wire: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Whether dropping it ends it as it should: TLS has a word to say first.
    const ENDS_BY_DROP: bool;

    fn tcp(&self) -> &TcpStream;
}

impl Wire for TcpStream {
    const ENDS_BY_DROP: bool = true;

    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Wire for TlsStream<TcpStream> {
    const ENDS_BY_DROP: bool = false;

    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }
}

/// Who is at the other end.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) port: u16,
    /// The name asked for in the TLS handshake.
    pub(super) sni: Option<Arc<str>>,
}
