//! An authority made at the server's start, and the certificates it signs: good ones, and each kind of bad one.

use std::fs;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384,
    PKCS_ECDSA_P521_SHA512, PKCS_RSA_SHA256, SanType, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::variant::{KeyKind, Variant};

const DAY: u64 = 86_400;
/// Good certificates began a day ago, so that a client whose clock is behind takes them too.
const BEGUN: u64 = DAY;
const LIFETIME: u64 = 365 * DAY;
const NAME: &str = "watcher target authority";
/// A name of its own: under ours, verifiers would call the signature bad instead of the issuer unknown.
const STRANGER: &str = "an authority unheard of";
const CA_FILE: &str = "ca.pem";
const CA_KEY_FILE: &str = "ca-key.pem";

/// Why there are no certificates.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The certificate library refused.
    #[error("make a certificate: {what}")]
    Make {
        /// Which one.
        what: &'static str,
        /// Its reason.
        #[source]
        source: rcgen::Error,
    },
    /// The directory given for them.
    #[error("{doing} {path}", path = path.display())]
    Directory {
        /// Reading or writing.
        doing: &'static str,
        /// Which file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
}

/// A certificate with its key, both PEM.
#[derive(Clone, Debug)]
pub struct ClientIdentity {
    /// Signed by the authority, for TLS clients.
    pub certificate_pem: String,
    /// PKCS #8.
    pub key_pem: String,
}

/// Signs the server's certificates.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(super) certificate: CertificateDer<'static>,
    pub(super) ca_pem: String,
    pub(super) client: ClientIdentity,
}

/// A chain with its key, as rustls takes them.
pub(super) type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

impl Authority {
    /// A new one, in memory.
    pub(super) fn new() -> Result<Self, CertificateError> {
        Self::named(NAME)
    }

    /// The one whose key is in `dir`, or a new one; writes `ca.pem`, `ca-key.pem`, `client.pem` and `client-key.pem`.
    /// After a restart clients that trust `ca.pem` go on: the authority's name and key stay, and they are what counts.
    pub(super) fn in_dir(dir: &Path) -> Result<Self, CertificateError> {
        fs::create_dir_all(dir).map_err(at("create", dir))?;
        let key_path = dir.join(CA_KEY_FILE);
        let authority = match fs::read_to_string(&key_path) {
            Ok(pem) => Self::of_key(
                NAME,
                KeyPair::from_pem(&pem).map_err(making("the authority's key, from its file"))?,
            )?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::new()?,
            Err(error) => return Err(at("read", &key_path)(error)),
        };
        write(&dir.join(CA_FILE), &authority.ca_pem, 0o644)?;
        write(&key_path, &authority.issuer.key().serialize_pem(), 0o600)?;
        write(
            &dir.join("client.pem"),
            &authority.client.certificate_pem,
            0o644,
        )?;
        write(
            &dir.join("client-key.pem"),
            &authority.client.key_pem,
            0o600,
        )?;
        Ok(authority)
    }

    /// The certificate that `variant` shows, made now.
    pub(super) fn issue(&self, variant: Variant) -> Result<Identity, CertificateError> {
        let (from, to) = match variant {
            Variant::Expired => (now() - 30 * DAY, now() - DAY),
            Variant::Early => (now() + DAY, now() + LIFETIME),
            Variant::EndsIn { days } => (now() - BEGUN, now() + u64::from(days) * DAY),
            _ => (now() - BEGUN, now() + LIFETIME),
        };
        let names = match variant {
            Variant::Wrong => vec![dns("other.test")?],
            _ => names(variant)?,
        };
        let params = leaf(
            "watcher target",
            names,
            from,
            to,
            ExtendedKeyUsagePurpose::ServerAuth,
        );
        let key = key_for(variant).map_err(making("a server's key"))?;
        let making = making("a server's certificate");
        let certificate = match variant {
            Variant::SelfSigned => params.self_signed(&key).map_err(making)?,
            Variant::UnknownCa => {
                let stranger = Self::named(STRANGER)?;
                params.signed_by(&key, &stranger.issuer).map_err(making)?
            }
            _ => params.signed_by(&key, &self.issuer).map_err(making)?,
        };
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        Ok((vec![certificate.der().clone()], key.into()))
    }

    fn named(common_name: &str) -> Result<Self, CertificateError> {
        let key = KeyPair::generate().map_err(making("an authority's key"))?;
        Self::of_key(common_name, key)
    }

    fn of_key(common_name: &str, key: KeyPair) -> Result<Self, CertificateError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = name(common_name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = date_time_ymd(1970, 1, 1) + Duration::from_secs(now() - 365 * DAY);
        params.not_after = date_time_ymd(1970, 1, 1) + Duration::from_secs(now() + 3_650 * DAY);
        let certificate = params
            .self_signed(&key)
            .map_err(making("an authority's certificate"))?;
        let issuer = Issuer::new(params, key);
        Ok(Self {
            client: client(&issuer)?,
            ca_pem: certificate.pem(),
            certificate: certificate.der().clone(),
            issuer,
        })
    }
}

fn client(issuer: &Issuer<'static, KeyPair>) -> Result<ClientIdentity, CertificateError> {
    let making = || making("a client's certificate");
    let key = KeyPair::generate().map_err(making())?;
    let names = vec![dns("client.test")?];
    let (from, to) = (now() - BEGUN, now() + LIFETIME);
    let params = leaf(
        "watcher client",
        names,
        from,
        to,
        ExtendedKeyUsagePurpose::ClientAuth,
    );
    let certificate = params.signed_by(&key, issuer).map_err(making())?;
    Ok(ClientIdentity {
        certificate_pem: certificate.pem(),
        key_pem: key.serialize_pem(),
    })
}

fn leaf(
    common_name: &str,
    names: Vec<SanType>,
    from: u64,
    to: u64,
    usage: ExtendedKeyUsagePurpose,
) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = name(common_name);
    params.subject_alt_names = names;
    params.not_before = date_time_ymd(1970, 1, 1) + Duration::from_secs(from);
    params.not_after = date_time_ymd(1970, 1, 1) + Duration::from_secs(to);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params
}

/// The local addresses, the variant's name, and any one label before it. (A wildcard directly under `test` would not do:
/// verifiers refuse one that could cover a whole top-level domain.)
fn names(variant: Variant) -> Result<Vec<SanType>, CertificateError> {
    let mut names = vec![
        dns("localhost")?,
        SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        SanType::IpAddress(IpAddr::V6(Ipv6Addr::LOCALHOST)),
    ];
    if let Some(label) = variant.label() {
        names.push(dns(&format!("{label}.test"))?);
        names.push(dns(&format!("*.{label}.test"))?);
    }
    Ok(names)
}

fn dns(name: &str) -> Result<SanType, CertificateError> {
    let name = name.try_into().map_err(making("a certificate's name"))?;
    Ok(SanType::DnsName(name))
}

fn name(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

fn key_for(variant: Variant) -> Result<KeyPair, rcgen::Error> {
    KeyPair::generate_for(match variant {
        Variant::Key(KeyKind::P384) => &PKCS_ECDSA_P384_SHA384,
        Variant::Key(KeyKind::P521) => &PKCS_ECDSA_P521_SHA512,
        Variant::Key(KeyKind::Rsa) => &PKCS_RSA_SHA256,
        _ => &PKCS_ECDSA_P256_SHA256,
    })
}

fn now() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
    since_epoch.map_or(0, |elapsed| elapsed.as_secs())
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), CertificateError> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = fs::OpenOptions::new();
    options.create(true).write(true).truncate(true).mode(mode);
    options
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(at("write", path))
}

fn making(what: &'static str) -> impl FnOnce(rcgen::Error) -> CertificateError {
    move |source| CertificateError::Make { what, source }
}

fn at(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CertificateError {
    let path = path.to_owned();
    move |source| CertificateError::Directory {
        doing,
        path,
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_survives_a_restart_in_its_directory() {
        let dir = tempfile::tempdir().unwrap();
        let first = Authority::in_dir(dir.path()).unwrap();
        let second = Authority::in_dir(dir.path()).unwrap();
        assert_eq!(
            first.issuer.key().serialize_der(),
            second.issuer.key().serialize_der()
        );
        let mut names: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(
            names,
            ["ca-key.pem", "ca.pem", "client-key.pem", "client.pem"]
        );
    }
}
