//! The server's side of TLS: reads the ClientHello, picks the variant by its name, and shows it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{Acceptor, VerifierBuilderError, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion, version};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::certificates::{Authority, CertificateError};
use super::choice::Fault;
use super::http1::{fail, garbage};
use super::record::lock;
use super::variant::Variant;

/// What HTTP/2 is called in ALPN.
pub(super) const H2: &[u8] = b"h2";

/// Why a variant cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// No certificate.
    #[error("make the certificates of the TLS listener")]
    Certificate(#[from] CertificateError),
    /// rustls refused the certificate, the key or the versions.
    #[error("set up TLS")]
    Rustls(#[from] rustls::Error),
    /// rustls refused our authority for client certificates.
    #[error("set up the verification of client certificates")]
    Verifier(#[from] VerifierBuilderError),
}

/// The authority, and the variants shown so far.
pub(super) struct Tls {
    pub(super) authority: Authority,
    provider: Arc<CryptoProvider>,
    configs: Mutex<HashMap<Variant, Arc<ServerConfig>>>,
}

impl Tls {
    /// Makes the good certificate at once, so that a fault shows at the start and the first client does not wait for the
    /// random source.
    pub(super) fn new(authority: Authority) -> Result<Self, TlsError> {
        let tls = Self {
            authority,
            provider: Arc::new(aws_lc_rs::default_provider()),
            configs: Mutex::default(),
        };
        tls.config(Variant::Good)?;
        Ok(tls)
    }

    /// Completes a handshake. `None` when it ended otherwise: by the client, or because the variant has it so.
    pub(super) async fn accept(
        &self,
        mut stream: TcpStream,
        fixed: Option<Variant>,
    ) -> Option<(TlsStream<TcpStream>, Option<Arc<str>>)> {
        // Before the ClientHello, where the port says all.
        if fixed == Some(Variant::Hang) {
            let _ = fail(&mut stream, Fault::Hang).await;
            return None;
        }
        let start = LazyConfigAcceptor::new(Acceptor::default(), stream)
            .await
            .ok()?;
        let sni: Option<Arc<str>> = start.client_hello().server_name().map(Arc::from);
        let variant = fixed.unwrap_or_else(|| Variant::of_server_name(sni.as_deref()));
        let fault = match variant {
            Variant::Hang => Some(Fault::Hang),
            Variant::Closed => Some(Fault::Close),
            Variant::Reset => Some(Fault::Reset),
            Variant::Garbage => {
                let mut stream = start.io;
                let _ = stream.write_all(&garbage()).await;
                return None;
            }
            _ => None,
        };
        if let Some(fault) = fault {
            let mut stream = start.io;
            let _ = fail(&mut stream, fault).await;
            return None;
        }
        match self.config(variant) {
            Ok(config) => Some((start.into_stream(config).await.ok()?, sni)),
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, ?variant, "the target cannot show this kind of TLS");
                None
            }
        }
    }

    fn config(&self, variant: Variant) -> Result<Arc<ServerConfig>, TlsError> {
        if let Some(config) = lock(&self.configs).get(&variant) {
            return Ok(Arc::clone(config));
        }
        let config = Arc::new(self.build(variant)?);
        let mut configs = lock(&self.configs);
        Ok(Arc::clone(configs.entry(variant).or_insert(config)))
    }

    fn build(&self, variant: Variant) -> Result<ServerConfig, TlsError> {
        let versions: &[&SupportedProtocolVersion] = match variant {
            Variant::Tls12 => &[&version::TLS12],
            Variant::Tls13 => &[&version::TLS13],
            _ => &[&version::TLS13, &version::TLS12],
        };
        let builder = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(versions)?;
        let builder = if variant == Variant::ClientCertificate {
            let mut roots = RootCertStore::empty();
            roots.add(self.authority.certificate.clone())?;
            let provider = Arc::clone(&self.provider);
            let verifier =
                WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build()?;
            builder.with_client_cert_verifier(verifier)
        } else {
            builder.with_no_client_auth()
        };
        let (chain, key) = self.authority.issue(variant)?;
        let mut config = builder.with_single_cert(chain, key)?;
        config.alpn_protocols = match variant {
            Variant::Http1 => vec![b"http/1.1".to_vec()],
            _ => vec![H2.to_vec(), b"http/1.1".to_vec()],
        };
        // Tickets without state: any number of clients may resume. One each is enough, and costs half of two.
        config.ticketer = aws_lc_rs::Ticketer::new()?;
        config.send_tls13_tickets = 1;
        Ok(config)
    }
}

/// Whether the client chose HTTP/2.
pub(super) fn chose_http2(stream: &TlsStream<TcpStream>) -> bool {
    stream.get_ref().1.alpn_protocol() == Some(H2)
}
