//! A server's certificate: any bytes in its place end the handshake in a class, and its end, if told, is a time.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SigningKey};
use tokio::runtime::Runtime;
use watcher::domain::{HttpVersion, TlsSettings};
use watcher::net::tls::TlsClients;

struct Rig {
    runtime: Runtime,
    clients: TlsClients,
    key: Arc<dyn SigningKey>,
    /// A whole one, for the engine to begin with.
    good: Vec<u8>,
}

#[derive(Debug)]
struct Shown(Arc<CertifiedKey>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

thread_local! {
    static RIG: Rig = start();
}

fn start() -> Rig {
    let made = rcgen::generate_simple_self_signed(["a.test".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    Rig {
        runtime: tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap(),
        clients: TlsClients::new(),
        key: aws_lc_rs::sign::any_supported_type(&key).unwrap(),
        good: made.cert.der().to_vec(),
    }
}

fuzz_target!(|data: &[u8]| {
    let [flags, bytes @ ..] = data else { return };
    RIG.with(|rig| {
        let certificate = match flags & 2 {
            0 => bytes.to_vec(),
            _ => changed(&rig.good, bytes),
        };
        let certificate = CertificateDer::from(certificate);
        let shown = CertifiedKey::new(vec![certificate], Arc::clone(&rig.key));
        let server = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Shown(Arc::new(shown))));
        let settings = TlsSettings {
            insecure_skip_verify: flags & 1 == 1,
            ..TlsSettings::default()
        };
        rig.runtime.block_on(async {
            let (ours, theirs) = tokio::io::duplex(1 << 16);
            let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
            let told = |at: watcher::domain::Timestamp| {
                // Nothing beyond what a certificate can say: the years 1 to 9999.
                assert!(
                    at.as_micros().unsigned_abs() < 260_000_000_000_000_000,
                    "{at:?}"
                );
            };
            let client = rig
                .clients
                .handshake(&settings, HttpVersion::Auto, "a.test", ours, told);
            let (_, answer) = tokio::join!(acceptor.accept(theirs), async {
                // Dropped when it is done, so that the server's side ends too.
                client.await.map(drop)
            });
            assert!(answer.is_err() || settings.insecure_skip_verify);
        });
    });
});

/// `good` with some of its bytes replaced: pairs of place and value.
fn changed(good: &[u8], changes: &[u8]) -> Vec<u8> {
    let mut bytes = good.to_vec();
    for change in changes.chunks_exact(3) {
        let at = usize::from(u16::from_be_bytes([change[0], change[1]])) % bytes.len();
        bytes[at] = change[2];
    }
    bytes
}
