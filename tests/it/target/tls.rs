//! Each kind of TLS, by the name asked for.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, Error, ProtocolVersion, RootCertStore,
    StreamOwned,
};
use watcher::target::{Target, TargetOptions, TlsListen, Variant};

use crate::support::target::{target, target_with};

fn config(target: &Target, alpn: &[&[u8]], with_identity: bool) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(target.ca_pem().as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = if with_identity {
        let identity = target.client_identity().unwrap();
        let certificate =
            CertificateDer::from_pem_slice(identity.certificate_pem.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).unwrap();
        builder
            .with_client_auth_cert(vec![certificate], key)
            .unwrap()
    } else {
        builder.with_no_client_auth()
    };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config.into()
}

fn connect_with(
    target: &Target,
    name: &str,
    config: Arc<ClientConfig>,
) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
    let server_name = ServerName::try_from(name.to_owned()).unwrap();
    let connection = ClientConnection::new(config, server_name).unwrap();
    let tcp = TcpStream::connect(target.https_addrs()[0])?;
    // The server makes the key of a kind when it is first asked for; RSA on a busy machine takes a second.
    let is_silent = name == "hang.test";
    let patience = Duration::from_millis(if is_silent { 500 } else { 30_000 });
    tcp.set_read_timeout(Some(patience))?;
    let mut stream = StreamOwned::new(connection, tcp);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}

fn connect(target: &Target, name: &str) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
    connect_with(target, name, config(target, &[], false))
}

pub(super) async fn connect_async(
    target: &Target,
    name: &str,
    alpn: &[&[u8]],
) -> io::Result<tokio_rustls::client::TlsStream<tokio::net::TcpStream>> {
    let tcp = tokio::net::TcpStream::connect(target.https_addrs()[0]).await?;
    let server_name = ServerName::try_from(name.to_owned()).unwrap();
    let connector = tokio_rustls::TlsConnector::from(config(target, alpn, false));
    connector.connect(server_name, tcp).await
}

/// What rustls says of a handshake with `name`.
fn refusal(target: &Target, name: &str) -> Error {
    let error = connect(target, name).err().unwrap();
    let inner = error.into_inner().unwrap();
    *inner.downcast::<Error>().unwrap()
}

fn get(stream: &mut impl ReadWrite, path: &str) -> io::Result<String> {
    write!(stream, "GET {path} HTTP/1.1\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

trait ReadWrite: Read + Write {}
impl<S: Read + Write> ReadWrite for S {}

#[test]
fn good_names_are_good() {
    let target = target();
    let names = [
        "good.test",
        "localhost",
        "127.0.0.1",
        "::1",
        "deep.good.test",
        "tls13.test",
        "p384.test",
        "p521.test",
        "rsa.test",
    ];
    for name in names {
        let mut stream = connect(&target, name).unwrap_or_else(|error| panic!("{name}: {error}"));
        let answer = get(&mut stream, "/?body=x").unwrap();
        assert!(answer.ends_with("\r\n\r\nx"), "{name}: {answer}");
    }
    let records = target.requests();
    assert_eq!(records[0].sni.as_deref(), Some("good.test"));
    assert_eq!(records[2].sni, None);
}

#[test]
fn bad_certificates_are_bad_in_their_own_way() {
    let target = target();
    let is = |name: &str, what: fn(&CertificateError) -> bool| {
        let refused = refusal(&target, name);
        let as_meant = matches!(&refused, Error::InvalidCertificate(error) if what(error));
        assert!(as_meant, "{name}: {refused:?}");
    };
    is("expired.test", |error| {
        matches!(error, CertificateError::ExpiredContext { .. })
    });
    is("early.test", |error| {
        matches!(error, CertificateError::NotValidYetContext { .. })
    });
    is("selfsigned.test", |error| {
        matches!(error, CertificateError::UnknownIssuer)
    });
    is("unknown-ca.test", |error| {
        matches!(error, CertificateError::UnknownIssuer)
    });
    is("wrong.test", |error| {
        matches!(error, CertificateError::NotValidForNameContext { .. })
    });
    assert_eq!(target.total(), 0);
}

#[test]
fn handshakes_break_in_their_own_way() {
    let target = target();
    assert!(matches!(
        refusal(&target, "garbage.test"),
        Error::InvalidMessage(_)
    ));
    let kind = |name: &str| connect(&target, name).err().unwrap().kind();
    assert_eq!(kind("closed.test"), io::ErrorKind::UnexpectedEof);
    assert_eq!(kind("reset.test"), io::ErrorKind::ConnectionReset);
    assert_eq!(kind("hang.test"), io::ErrorKind::WouldBlock);
}

#[test]
fn versions_and_protocols_are_limited() {
    let target = target();
    let version = |name: &str| connect(&target, name).unwrap().conn.protocol_version();
    assert_eq!(version("tls12.test"), Some(ProtocolVersion::TLSv1_2));
    assert_eq!(version("good.test"), Some(ProtocolVersion::TLSv1_3));
    let both = config(&target, &[b"h2", b"http/1.1"], false);
    let alpn = |name: &str| {
        let stream = connect_with(&target, name, Arc::clone(&both)).unwrap();
        stream.conn.alpn_protocol().map(<[u8]>::to_vec)
    };
    assert_eq!(alpn("good.test").as_deref(), Some(&b"h2"[..]));
    assert_eq!(alpn("h1.test").as_deref(), Some(&b"http/1.1"[..]));
}

#[test]
fn a_client_certificate_is_wanted() {
    let target = target();
    let with = config(&target, &[], true);
    let mut stream = connect_with(&target, "mtls.test", with).unwrap();
    assert!(get(&mut stream, "/").unwrap().starts_with("HTTP/1.1 200"));
    // In TLS 1.3 the client is done before the server refuses it.
    let mut stream = connect(&target, "mtls.test").unwrap();
    let refused = stream.read(&mut [0; 1]).unwrap_err().to_string();
    assert!(refused.contains("CertificateRequired"), "{refused}");
    assert_eq!(target.total(), 1);
}

#[test]
fn a_certificate_ends_in_as_many_days_as_asked_for() {
    let target = target();
    let stream = connect(&target, "ends-in-10-days.test").unwrap();
    let chain = stream.conn.peer_certificates().unwrap();
    let (_, leaf) = x509_parser::parse_x509_certificate(&chain[0]).unwrap();
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs() as i64;
    let left = leaf.validity().not_after.timestamp() - now;
    assert!((10 * 86_400 - 60..=10 * 86_400).contains(&left), "{left} s");
}

#[test]
fn a_port_may_fix_the_variant() {
    let mut options = TargetOptions::default();
    let free = options.listen;
    options.listen_tls = [Variant::Expired, Variant::Hang]
        .map(|variant| TlsListen {
            address: free,
            variant: Some(variant),
        })
        .into();
    let target = target_with(options);
    assert!(matches!(
        refusal(&target, "127.0.0.1"),
        Error::InvalidCertificate(CertificateError::ExpiredContext { .. })
    ));
    let mut hanging = TcpStream::connect(target.https_addrs()[1]).unwrap();
    assert!(super::is_silent(&mut hanging));
}

#[test]
fn faults_reach_through_tls() {
    let target = target();
    let ended = |path: &str| {
        let mut stream = connect(&target, "good.test").unwrap();
        get(&mut stream, path).map_err(|error| error.kind())
    };
    assert_eq!(ended("/?reset=body"), Err(io::ErrorKind::ConnectionReset));
    // Without `close_notify`: a truncation, which TLS can tell from an end.
    assert_eq!(ended("/?close=body"), Err(io::ErrorKind::UnexpectedEof));
    assert!(ended("/").is_ok());
}
