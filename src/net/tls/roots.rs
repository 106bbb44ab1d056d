//! Trusted roots: the system's (`SSL_CERT_FILE` and `SSL_CERT_DIR` honoured), bundled ones where it has none.

use rustls::RootCertStore;

/// Loads them; a root that cannot be read is left out and told.
pub(super) fn load() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    for error in &system.errors {
        tracing::warn!(%error, "a source of the system's root certificates cannot be read");
    }
    let (added, ignored) = roots.add_parsable_certificates(system.certs);
    if added == 0 {
        let bundled = webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().cloned();
        let (added, _) = roots.add_parsable_certificates(bundled);
        tracing::info!(
            added,
            "the system has no root certificates: trusting the bundled ones"
        );
    } else if ignored > 0 {
        tracing::warn!(
            ignored,
            "root certificates of the system that cannot be used"
        );
    }
    roots
}
