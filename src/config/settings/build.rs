//! Settings → [`HttpCheck`]. Here, and nowhere else, secrets and certificates are read.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::{
    AuthText, BODY_BYTES_DEFAULT, HeaderText, HttpSettings, Pem, REDIRECTS_DEFAULT, TlsText,
};
use crate::config::read::{Finding, Reader};
use crate::config::secret::{SecretRef, SecretSource};
use crate::domain::{Auth, HttpCheck, Pattern, Secret, TlsSettings};

/// What was read, or what was found instead.
type Outside<'a> = (&'a dyn SecretSource, Reader);

impl HttpSettings {
    /// Whether the check depends on something outside the table: a secret or a file that may change there.
    pub(crate) fn depends_on_outside(&self) -> bool {
        let refers = |pem: &Option<Pem>| matches!(pem, Some(Pem::At(_)));
        self.auth.is_some()
            || self.tls.client_key.is_some()
            || refers(&self.tls.ca)
            || refers(&self.tls.client_cert)
            || self
                .headers
                .iter()
                .any(|(_, text)| matches!(text, HeaderText::Secret(_)))
    }

    /// The check, with its secrets read from `source`.
    pub(crate) fn build(
        self,
        must_match: Option<Arc<Pattern>>,
        must_not_match: Option<Arc<Pattern>>,
        source: &dyn SecretSource,
    ) -> Result<HttpCheck, Vec<Finding>> {
        let mut outside = (source, Reader::default());
        let headers = headers(&mut outside, self.headers);
        let auth = self.auth.map(|auth| authentication(&mut outside, auth));
        let tls = tls(&mut outside, self.tls);
        if !outside.1.findings.is_empty() {
            return Err(outside.1.findings);
        }
        Ok(HttpCheck {
            method: self.method.unwrap_or(Method::GET),
            headers,
            body: self
                .body
                .unwrap_or_default()
                .into_bytes()
                .into_boxed_slice(),
            expected_status: self.expected_status.unwrap_or_default(),
            must_match,
            must_not_match,
            auth,
            redirects_max: self.redirects.unwrap_or(REDIRECTS_DEFAULT),
            connect_to: self.connect_to,
            ip_family: self.ip_family.unwrap_or_default(),
            http_version: self.http_version.unwrap_or_default(),
            tls,
            connection: self.connection.unwrap_or_default(),
            dns: self.dns.unwrap_or_default(),
            body_bytes_max: self.body_bytes_max.unwrap_or(BODY_BYTES_DEFAULT),
        })
    }
}

/// The secret, checked by `check`; an empty one where secrets are not looked at or one was found missing.
fn secret(
    (source, reader): &mut Outside<'_>,
    path: &str,
    reference: &SecretRef,
    check: impl FnOnce(&str) -> Result<(), String>,
) -> Secret {
    let outcome = source.read(reference).and_then(|secret| match secret {
        Some(secret) => check(secret.expose())
            .map(|()| secret)
            .map_err(|message| format!("{reference} {message}")),
        None => Ok(Secret::new("")),
    });
    outcome.unwrap_or_else(|message| {
        reader.found(path, Default::default(), message);
        Secret::new("")
    })
}

fn is_header_value(text: &str) -> Result<(), String> {
    HeaderValue::from_str(text)
        .map(drop)
        .map_err(|_| "holds a line break or control character; remove it".to_owned())
}

fn headers(outside: &mut Outside<'_>, headers: Vec<(http::HeaderName, HeaderText)>) -> HeaderMap {
    let mut map = HeaderMap::with_capacity(headers.len());
    for (name, text) in headers {
        let value = match text {
            HeaderText::Plain(value) => value,
            HeaderText::Secret(reference) => {
                let path = format!("headers.{name}.secret_ref");
                let secret = secret(outside, &path, &reference, is_header_value);
                let mut value = HeaderValue::from_str(secret.expose())
                    .unwrap_or_else(|_| HeaderValue::from_static(""));
                value.set_sensitive(true);
                value
            }
        };
        map.append(name, value);
    }
    map
}

fn authentication(outside: &mut Outside<'_>, auth: AuthText) -> Auth {
    match auth {
        AuthText::Basic { user, password } => Auth::Basic {
            user: user.into(),
            password: secret(outside, "auth.basic.secret_ref", &password, |_| Ok(())),
        },
        AuthText::Bearer(token) => Auth::Bearer(secret(
            outside,
            "auth.bearer.secret_ref",
            &token,
            is_header_value,
        )),
    }
}

fn tls(outside: &mut Outside<'_>, tls: TlsText) -> TlsSettings {
    let mut chain = |path: &str, pem: Option<Pem>| -> Option<Box<str>> {
        match pem? {
            Pem::Inline(text) => Some(text.into()),
            Pem::At(reference) => {
                let text = secret(outside, path, &reference, certificates);
                Some(text.expose().into())
            }
        }
    };
    let ca_pem = chain("tls.ca", tls.ca);
    let client_cert_pem = chain("tls.client_cert", tls.client_cert);
    TlsSettings {
        server_name: tls.server_name.map(Into::into),
        ca_pem,
        client_cert_pem,
        client_key_pem: tls
            .client_key
            .map(|reference| secret(outside, "tls.client_key", &reference, private_key)),
        insecure_skip_verify: tls.insecure_skip_verify.unwrap_or_default(),
        session_resumption: tls.session_resumption.unwrap_or_default(),
    }
}

/// Whether `text` holds certificates, and nothing broken among them.
pub(super) fn certificates(text: &str) -> Result<(), String> {
    let mut count = 0;
    for certificate in CertificateDer::pem_slice_iter(text.as_bytes()) {
        certificate.map_err(|_| "holds PEM text that is damaged".to_owned())?;
        count += 1;
    }
    match count {
        0 => Err("holds no certificate; PEM text with BEGIN CERTIFICATE is expected".to_owned()),
        _ => Ok(()),
    }
}

fn private_key(text: &str) -> Result<(), String> {
    PrivateKeyDer::from_pem_slice(text.as_bytes())
        .map(drop)
        .map_err(|_| "holds no private key; PEM text with BEGIN PRIVATE KEY is expected".to_owned())
}
