//! Certificates that were found good: what was verified is not verified again.
//!
//! Whether roots vouch for a chain and a name depends on those and on the time alone, and on the time only at the ends
//! of validities. A check of a chain's signatures is a third of a handshake (P-256: 60 µs of 200 for each certificate),
//! and it says the same every interval for months. That the server has the key is proven in each handshake.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use rustls::SupportedCipherSuite;
use rustls::crypto::CryptoProvider;
use rustls::crypto::hash::{Hash, HashAlgorithm};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};

use super::verify::Validity;

/// Good chains kept, 100 bytes each. When there are more, all are forgotten; those still in use are verified again.
const CHAINS_MAX: usize = 16 * 1024;

/// SHA-256 of all that is verified: the name, the leaf, the intermediates in their order.
pub(super) type Fingerprint = [u8; 32];

/// The good chains of one set of roots.
pub(super) struct Remembered {
    hash: &'static dyn Hash,
    chains: Mutex<HashMap<Fingerprint, Good>>,
}

/// A chain that was found good.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Good {
    /// What all its certificates share.
    shared: Validity,
    /// When the leaf ends.
    pub(super) not_after: i64,
}

impl Remembered {
    /// None yet; none ever, where the provider has no SHA-256.
    pub(super) fn new(provider: &CryptoProvider) -> Option<Self> {
        let hash = provider
            .cipher_suites
            .iter()
            .filter_map(|suite| match suite {
                SupportedCipherSuite::Tls13(suite) => Some(suite.common.hash_provider),
                SupportedCipherSuite::Tls12(_) => None,
            })
            .find(|hash| hash.algorithm() == HashAlgorithm::SHA256)?;
        Some(Self {
            hash,
            chains: Mutex::default(),
        })
    }

    /// Of what a server shows under a name.
    pub(super) fn fingerprint(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
    ) -> Option<Fingerprint> {
        let mut hash = self.hash.start();
        let name = name.to_str();
        let certificates = std::iter::once(leaf).chain(intermediates);
        for part in std::iter::once(name.as_bytes()).chain(certificates.map(|part| &**part)) {
            // With its length: parts are not to be taken for one another's.
            hash.update(&(part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        hash.finish().as_ref().try_into().ok()
    }

    /// The chain, if it was found good and none of its certificates begins or ends before `now`.
    pub(super) fn good(&self, fingerprint: &Fingerprint, now: UnixTime) -> Option<Good> {
        let chains = self.chains.lock().unwrap_or_else(PoisonError::into_inner);
        let good = chains.get(fingerprint)?;
        let now = i64::try_from(now.as_secs()).ok()?;
        (good.shared.not_before <= now && now <= good.shared.not_after).then_some(*good)
    }

    /// Remembers that the chain was found good, if all of its certificates can be read.
    pub(super) fn remember(
        &self,
        fingerprint: Fingerprint,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
    ) {
        let Some(of_leaf) = Validity::of(leaf) else {
            return;
        };
        let shared = intermediates.iter().try_fold(of_leaf, |shared, next| {
            let next = Validity::of(next)?;
            Some(Validity {
                not_before: shared.not_before.max(next.not_before),
                not_after: shared.not_after.min(next.not_after),
            })
        });
        let Some(shared) = shared else {
            return;
        };
        let mut chains = self.chains.lock().unwrap_or_else(PoisonError::into_inner);
        if chains.len() >= CHAINS_MAX {
            chains.clear();
        }
        let not_after = of_leaf.not_after;
        chains.insert(fingerprint, Good { shared, not_after });
    }
}

impl fmt::Debug for Remembered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Remembered")
    }
}
