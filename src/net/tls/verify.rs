//! Verification that remembers the certificate, and what its errors mean.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::remembered::Remembered;
use crate::domain::{Failure, Timestamp};

const NOTHING: i64 = i64::MIN;

/// Around WebPki: keeps the end of the last leaf certificate's validity, verified or not.
#[derive(Debug)]
pub(super) struct RecordingVerifier {
    /// Absent where any certificate is accepted.
    inner: Option<Arc<WebPkiServerVerifier>>,
    /// What `inner` has found good.
    remembered: Option<Remembered>,
    algorithms: WebPkiSupportedAlgorithms,
    /// Seconds since the epoch.
    not_after: AtomicI64,
}

impl RecordingVerifier {
    /// Accepts what `roots` vouch for.
    pub(super) fn with_roots(
        roots: Arc<RootCertStore>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let inner =
            WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider)).build()?;
        Ok(Self {
            inner: Some(inner),
            remembered: Remembered::new(provider),
            ..Self::accepting_all(provider)
        })
    }

    /// Accepts any certificate.
    pub(super) fn accepting_all(provider: &CryptoProvider) -> Self {
        Self {
            inner: None,
            remembered: None,
            algorithms: provider.signature_verification_algorithms,
            not_after: AtomicI64::new(NOTHING),
        }
    }

    /// When the certificate seen since the last call ends.
    pub(super) fn take(&self) -> Option<Timestamp> {
        // A plain load is all that most polls need.
        if self.not_after.load(Ordering::Relaxed) == NOTHING {
            return None;
        }
        let seconds = self.not_after.swap(NOTHING, Ordering::Relaxed);
        Some(Timestamp::from_millis(seconds.saturating_mul(1_000)))
    }
}

impl ServerCertVerifier for RecordingVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let fingerprint = self.remembered.as_ref().and_then(|remembered| {
            let fingerprint = remembered.fingerprint(end_entity, intermediates, server_name)?;
            Some((remembered, fingerprint))
        });
        if let Some((remembered, fingerprint)) = &fingerprint
            && let Some(good) = remembered.good(fingerprint, now)
        {
            self.not_after.store(good.not_after, Ordering::Relaxed);
            return Ok(ServerCertVerified::assertion());
        }
        if let Some(validity) = Validity::of(end_entity) {
            self.not_after.store(validity.not_after, Ordering::Relaxed);
        }
        let Some(inner) = &self.inner else {
            return Ok(ServerCertVerified::assertion());
        };
        let verified = inner
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            .map_err(|error| explained(error, end_entity))?;
        if let Some((remembered, fingerprint)) = fingerprint {
            remembered.remember(fingerprint, end_entity, intermediates);
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        match &self.inner {
            Some(inner) => inner.verify_tls12_signature(message, cert, dss),
            None => Ok(HandshakeSignatureValid::assertion()),
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        match &self.inner {
            Some(inner) => inner.verify_tls13_signature(message, cert, dss),
            None => Ok(HandshakeSignatureValid::assertion()),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// When a certificate is valid, in seconds since the epoch, ends included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Validity {
    pub(super) not_before: i64,
    pub(super) not_after: i64,
}

impl Validity {
    /// Of a certificate; `None` for what is not one.
    pub(super) fn of(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let validity = certificate.validity();
        Some(Self {
            not_before: validity.not_before.timestamp(),
            not_after: validity.not_after.timestamp(),
        })
    }
}

/// When a certificate ends; `None` for what is not a certificate.
pub(super) fn not_after(der: &[u8]) -> Option<Timestamp> {
    let seconds = Validity::of(der)?.not_after;
    Some(Timestamp::from_millis(seconds.saturating_mul(1_000)))
}

/// What WebPki found, as a person needs to know it.
fn explained(error: rustls::Error, end_entity: &CertificateDer<'_>) -> rustls::Error {
    match error {
        // Its issuer bears the name of one that is trusted, but has another key.
        rustls::Error::InvalidCertificate(CertificateError::BadSignature) => unknown_issuer(),
        // What WebPki finds wrong with a certificate that signs itself varies; what a person needs to know does not.
        rustls::Error::InvalidCertificate(cause)
            if of_certificate(&cause) == Failure::TlsCertificate && is_self_signed(end_entity) =>
        {
            unknown_issuer()
        }
        other => other,
    }
}

fn is_self_signed(der: &[u8]) -> bool {
    X509Certificate::from_der(der).is_ok_and(|(_, c)| c.subject() == c.issuer())
}

fn unknown_issuer() -> rustls::Error {
    rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)
}

/// What an error of a TLS connection means; `None` when it is not TLS's.
pub fn classify(error: &io::Error) -> Option<Failure> {
    let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    Some(match error {
        rustls::Error::InvalidCertificate(cause) => of_certificate(cause),
        _ => Failure::TlsHandshake,
    })
}

fn of_certificate(cause: &CertificateError) -> Failure {
    match cause {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => Failure::TlsExpired,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            Failure::TlsNotYetValid
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            Failure::TlsWrongName
        }
        CertificateError::UnknownIssuer => Failure::TlsUntrusted,
        _ => Failure::TlsCertificate,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificate_errors_are_told_apart() {
        for (cause, expected) in [
            (CertificateError::Expired, Failure::TlsExpired),
            (CertificateError::NotValidYet, Failure::TlsNotYetValid),
            (CertificateError::NotValidForName, Failure::TlsWrongName),
            (CertificateError::UnknownIssuer, Failure::TlsUntrusted),
            (CertificateError::Revoked, Failure::TlsCertificate),
            (CertificateError::BadEncoding, Failure::TlsCertificate),
        ] {
            let error = io::Error::new(
                io::ErrorKind::InvalidData,
                rustls::Error::InvalidCertificate(cause.clone()),
            );
            assert_eq!(classify(&error), Some(expected), "{cause:?}");
        }
        let alert = rustls::Error::AlertReceived(rustls::AlertDescription::HandshakeFailure);
        let alert = io::Error::new(io::ErrorKind::InvalidData, alert);
        assert_eq!(classify(&alert), Some(Failure::TlsHandshake));
        assert_eq!(classify(&io::ErrorKind::ConnectionReset.into()), None);
    }

    /// An authority, a chain of an intermediate and a leaf for `a.test` under it, and a verifier that trusts it.
    fn chain(
        leaf_years: i32,
        middle_years: i32,
    ) -> (RecordingVerifier, [CertificateDer<'static>; 2]) {
        use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
        let params = |names: &[&str], until: i32, is_ca: bool| {
            let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
            let mut params = CertificateParams::new(names).unwrap();
            params.distinguished_name = rcgen::DistinguishedName::new();
            params
                .distinguished_name
                .push(rcgen::DnType::CommonName, format!("{until} {is_ca}"));
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(until, 1, 1);
            if is_ca {
                params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            }
            params
        };
        let keys = [(); 3].map(|()| KeyPair::generate().unwrap());
        let [root_key, middle_key, leaf_key] = keys;
        let root = params(&[], 2090, true);
        let root_cert = root.self_signed(&root_key).unwrap();
        let root = Issuer::new(root, root_key);
        let middle = params(&[], 2020 + middle_years, true);
        let middle_cert = middle.signed_by(&middle_key, &root).unwrap();
        let middle = Issuer::new(middle, middle_key);
        let leaf = params(&["a.test"], 2020 + leaf_years, false);
        let leaf_cert = leaf.signed_by(&leaf_key, &middle).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(root_cert.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = RecordingVerifier::with_roots(Arc::new(roots), &provider).unwrap();
        (
            verifier,
            [leaf_cert.der().clone(), middle_cert.der().clone()],
        )
    }

    /// Noon of the first of July.
    fn summer(year: u64) -> UnixTime {
        let days = (year - 1970) * 365 + (year - 1969) / 4 + 181;
        UnixTime::since_unix_epoch(std::time::Duration::from_secs(days * 86_400 + 43_200))
    }

    #[test]
    fn what_was_found_good_is_good_until_a_certificate_of_it_ends() {
        for (leaf_years, middle_years) in [(10, 20), (20, 10)] {
            let (verifier, [leaf, middle]) = chain(leaf_years, middle_years);
            let name = |name: &'static str| ServerName::try_from(name).unwrap();
            let verify = |leaf: &CertificateDer<'_>, middle: &CertificateDer<'_>, server, year| {
                let verified = verifier.verify_server_cert(
                    leaf,
                    std::slice::from_ref(middle),
                    &name(server),
                    &[],
                    summer(year),
                );
                verified.map(|_| ()).map_err(|error| match error {
                    rustls::Error::InvalidCertificate(cause) => of_certificate(&cause),
                    _ => Failure::TlsHandshake,
                })
            };
            let remembered = verifier.remembered.as_ref().unwrap();
            let is_remembered = |year| {
                let middles = std::slice::from_ref(&middle);
                let print = remembered.fingerprint(&leaf, middles, &name("a.test"));
                remembered.good(&print.unwrap(), summer(year)).is_some()
            };
            // Nothing that fails is remembered.
            assert_eq!(
                verify(&leaf, &middle, "a.test", 2031),
                Err(Failure::TlsExpired)
            );
            assert!(verify(&leaf, &leaf, "a.test", 2025).is_err());
            assert!(!is_remembered(2025));
            assert!(verifier.take().is_some(), "but when it ends is told");
            for _ in 0..2 {
                assert_eq!(verify(&leaf, &middle, "a.test", 2025), Ok(()));
                let ends = verifier.take().map(Timestamp::as_millis);
                assert_eq!(ends, not_after(&leaf).map(Timestamp::as_millis));
                assert!(is_remembered(2025) && is_remembered(2029));
            }
            for (year, expected) in [(2019, Failure::TlsNotYetValid), (2031, Failure::TlsExpired)] {
                assert!(!is_remembered(year));
                assert_eq!(verify(&leaf, &middle, "a.test", year), Err(expected));
            }
            // Another name, another chain: another question.
            assert_eq!(
                verify(&leaf, &middle, "b.test", 2025),
                Err(Failure::TlsWrongName)
            );
            let mut forged = leaf.to_vec();
            *forged.last_mut().unwrap() ^= 1;
            assert!(verify(&forged.into(), &middle, "a.test", 2025).is_err());
            assert_eq!(verify(&leaf, &middle, "a.test", 2025), Ok(()));
        }
    }

    #[test]
    fn what_is_not_a_certificate_has_no_end() {
        assert_eq!(not_after(b"garbage"), None);
    }
}
