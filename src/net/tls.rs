//! TLS clients: one configuration for all checks with equal settings, and what a failed handshake means.

mod remembered;
mod roots;
mod verify;

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use self::verify::RecordingVerifier;
pub use self::verify::classify;
use crate::domain::{Failure, HttpVersion, Timestamp, TlsSettings};

/// Different settings kept; changed client certificates come and go over the weeks of a process.
const CLIENTS_MAX: usize = 1_024;
/// Sessions kept for resumption among the endpoints that share settings.
const SESSIONS_MAX: usize = 1_024;

/// Settings from which no TLS client can be made. Ours, not the target's.
#[derive(Debug, thiserror::Error)]
pub enum TlsSettingsError {
    /// The CA certificates are not PEM, or not certificates.
    #[error("read the CA certificates")]
    Authorities(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The client certificate or its key cannot be used.
    #[error("read the client certificate and its key")]
    ClientCertificate(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The TLS library refuses them.
    #[error("make a TLS client")]
    Client(#[source] rustls::Error),
}

/// Why a handshake failed.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// No client could be made for these settings.
    #[error("TLS settings")]
    Settings(#[source] TlsSettingsError),
    /// The server, its certificate or the connection.
    #[error("TLS handshake")]
    Failed {
        /// What it means.
        failure: Failure,
        /// What the library said.
        #[source]
        source: io::Error,
    },
}

/// TLS clients by settings. Belongs to one thread.
#[derive(Debug)]
pub struct TlsClients {
    provider: Arc<CryptoProvider>,
    roots: Arc<RootCertStore>,
    clients: [RefCell<HashMap<TlsSettings, Rc<Client>>>; 3],
}

#[derive(Debug)]
struct Client {
    connector: Arc<ClientConfig>,
    verifier: Arc<RecordingVerifier>,
}

impl TlsClients {
    /// Reads the roots and warms the crypto library up: its first random number costs 50 ms, its first key exchange
    /// some more, which would be the first probe's otherwise.
    pub fn new() -> Self {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut random = [0; 32];
        // A failure shows again in the first handshake, where there is somebody to tell.
        let _ = provider.secure_random.fill(&mut random);
        let _ = provider.kx_groups[0].start();
        Self {
            provider,
            roots: Arc::new(roots::load()),
            clients: Default::default(),
        }
    }

    /// Shakes hands over `io` with the server at `host` (as it stands in a URL). `on_certificate` is told when the
    /// server's certificate ends, as soon as it is known and whether or not the handshake then succeeds. Has no
    /// deadline of its own.
    pub async fn handshake<T: AsyncRead + AsyncWrite + Unpin>(
        &self,
        settings: &TlsSettings,
        version: HttpVersion,
        host: &str,
        io: T,
        on_certificate: impl Fn(Timestamp),
    ) -> Result<TlsStream<T>, HandshakeError> {
        let client = self
            .client(settings, version)
            .map_err(HandshakeError::Settings)?;
        let name = settings.server_name.as_deref().unwrap_or(host);
        let name = server_name(name).map_err(|source| HandshakeError::Failed {
            failure: Failure::TlsWrongName,
            source,
        })?;
        let connector = TlsConnector::from(Arc::clone(&client.connector));
        let mut connect = pin!(connector.connect(name, io));
        // The verifier is shared, but it runs inside this poll and on this thread only: what it recorded is ours.
        let stream = poll_fn(|cx| {
            let polled = connect.as_mut().poll(cx);
            if let Some(not_after) = client.verifier.take() {
                on_certificate(not_after);
            }
            polled
        })
        .await
        .map_err(|source| HandshakeError::Failed {
            failure: classify(&source).unwrap_or(Failure::TlsHandshake),
            source,
        })?;
        if settings.session_resumption {
            // A resumed session verifies nothing; it remembers the certificate.
            let leaf = stream
                .get_ref()
                .1
                .peer_certificates()
                .and_then(<[_]>::first);
            if let Some(not_after) = leaf.and_then(|leaf| verify::not_after(leaf)) {
                on_certificate(not_after);
            }
        }
        Ok(stream)
    }

    /// The library's configuration for these settings, for a client that drives the library itself.
    pub fn config(
        &self,
        settings: &TlsSettings,
        version: HttpVersion,
    ) -> Result<Arc<ClientConfig>, TlsSettingsError> {
        Ok(Arc::clone(&self.client(settings, version)?.connector))
    }

    fn client(
        &self,
        settings: &TlsSettings,
        version: HttpVersion,
    ) -> Result<Rc<Client>, TlsSettingsError> {
        let clients = &self.clients[match version {
            HttpVersion::Auto => 0,
            HttpVersion::Http1 => 1,
            HttpVersion::Http2 => 2,
        }];
        if let Some(client) = clients.borrow().get(settings) {
            return Ok(Rc::clone(client));
        }
        let client = Rc::new(self.make(settings, version)?);
        let mut clients = clients.borrow_mut();
        if clients.len() >= CLIENTS_MAX {
            // Those still in use are made again.
            clients.clear();
        }
        clients.insert(settings.clone(), Rc::clone(&client));
        Ok(client)
    }

    fn make(
        &self,
        settings: &TlsSettings,
        version: HttpVersion,
    ) -> Result<Client, TlsSettingsError> {
        let roots = match &settings.ca_pem {
            Some(pem) => Arc::new(authorities(pem)?),
            None => Arc::clone(&self.roots),
        };
        let verifier = if settings.insecure_skip_verify {
            RecordingVerifier::accepting_all(&self.provider)
        } else {
            RecordingVerifier::with_roots(roots, &self.provider)
                .map_err(TlsSettingsError::Authorities)?
        };
        let verifier = Arc::new(verifier);
        let builder = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .map_err(TlsSettingsError::Client)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&verifier) as _);
        let mut config = match (&settings.client_cert_pem, &settings.client_key_pem) {
            (Some(chain), Some(key)) => {
                let (chain, key) = identity(chain, key.expose())?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(|e| TlsSettingsError::ClientCertificate(e.into()))?
            }
            _ => builder.with_no_client_auth(),
        };
        config.alpn_protocols = match version {
            HttpVersion::Auto => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            HttpVersion::Http1 => vec![b"http/1.1".to_vec()],
            HttpVersion::Http2 => vec![b"h2".to_vec()],
        };
        config.resumption = if settings.session_resumption {
            Resumption::in_memory_sessions(SESSIONS_MAX)
        } else {
            Resumption::disabled()
        };
        Ok(Client {
            connector: Arc::new(config),
            verifier,
        })
    }
}

impl Default for TlsClients {
    fn default() -> Self {
        Self::new()
    }
}

fn authorities(pem: &str) -> Result<RootCertStore, TlsSettingsError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|e| TlsSettingsError::Authorities(e.into()))?;
        roots
            .add(certificate)
            .map_err(|e| TlsSettingsError::Authorities(e.into()))?;
    }
    Ok(roots)
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn identity(chain: &str, key: &str) -> Result<Identity, TlsSettingsError> {
    let chain = CertificateDer::pem_slice_iter(chain.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| TlsSettingsError::ClientCertificate(e.into()))?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
        .map_err(|e| TlsSettingsError::ClientCertificate(e.into()))?;
    Ok((chain, key))
}

fn server_name(host: &str) -> io::Result<ServerName<'static>> {
    let bare = host
        .strip_prefix('[')
        .and_then(|h| h.strip_suffix(']'))
        .unwrap_or(host);
    ServerName::try_from(bare.to_owned())
        .map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))
}
