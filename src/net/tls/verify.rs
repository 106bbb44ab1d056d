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

use crate::domain::{Failure, Timestamp};

const NOTHING: i64 = i64::MIN;

/// Around WebPki: keeps the end of the last leaf certificate's validity, verified or not.
#[derive(Debug)]
pub(super) struct RecordingVerifier {
    /// Absent where any certificate is accepted.
    inner: Option<Arc<WebPkiServerVerifier>>,
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
            ..Self::accepting_all(provider)
        })
    }

    /// Accepts any certificate.
    pub(super) fn accepting_all(provider: &CryptoProvider) -> Self {
        Self {
            inner: None,
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
        if let Some(not_after) = not_after(end_entity) {
            let seconds = not_after.as_millis() / 1_000;
            self.not_after.store(seconds, Ordering::Relaxed);
        }
        let Some(inner) = &self.inner else {
            return Ok(ServerCertVerified::assertion());
        };
        inner
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            .map_err(|error| match error {
                // Its issuer bears the name of one that is trusted, but has another key.
                rustls::Error::InvalidCertificate(CertificateError::BadSignature) => {
                    unknown_issuer()
                }
                // What WebPki finds wrong with a certificate that signs itself varies; what a person needs to know
                // does not.
                rustls::Error::InvalidCertificate(cause)
                    if of_certificate(&cause) == Failure::TlsCertificate
                        && is_self_signed(end_entity) =>
                {
                    unknown_issuer()
                }
                other => other,
            })
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

/// When a certificate ends; `None` for what is not a certificate.
pub(super) fn not_after(der: &[u8]) -> Option<Timestamp> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let seconds = certificate.validity().not_after.timestamp();
    Some(Timestamp::from_millis(seconds.saturating_mul(1_000)))
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

    #[test]
    fn what_is_not_a_certificate_has_no_end() {
        assert_eq!(not_after(b"garbage"), None);
    }
}
