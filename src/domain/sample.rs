//! What one due tick came to: exactly one sample each.

use std::net::IpAddr;

use super::endpoint::EndpointId;
use super::timestamp::Timestamp;

/// Who takes samples; the same for all of one process.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct AgentIdentity {
    /// `metrics.agent`: host name and partition, or what the operator named it.
    pub name: Box<str>,
    /// `metrics.location`.
    pub location: Box<str>,
}

/// `metrics.outcome`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Outcome {
    /// Passed.
    Up,
    /// Passed, but slow or with a certificate that ends soon.
    Degraded,
    /// Failed.
    Down,
    /// Not probed, by the agent's own doing.
    Skipped,
}

macro_rules! labels {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $label:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum $name { $($(#[$doc])* $variant,)* }

        impl $name {
            /// Every value, in the order of the database's enum.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The label in SQL, JSON and metrics.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)* }
            }
        }
    };
}

labels! {
    /// Why a probe is `down`. The closed set; what each means is said here and nowhere else.
    Failure {
        /// The name does not exist (NXDOMAIN), or has no address of the wanted family.
        DnsNotFound = "dns_not_found",
        /// The name servers answered with a failure, or not understandably.
        DnsError = "dns_error",
        /// The deadline passed while the name was being resolved.
        DnsTimeout = "dns_timeout",
        /// The address answered with a reset (or the connection was to itself).
        ConnectRefused = "connect_refused",
        /// No route to the host or network.
        ConnectUnreachable = "connect_unreachable",
        /// The deadline passed before the connection stood.
        ConnectTimeout = "connect_timeout",
        /// Any other failure to connect.
        ConnectError = "connect_error",
        /// The certificate has expired.
        TlsExpired = "tls_expired",
        /// The certificate is not valid yet.
        TlsNotYetValid = "tls_not_yet_valid",
        /// The certificate is for another name.
        TlsWrongName = "tls_wrong_name",
        /// The certificate's issuer is not trusted (self-signed included).
        TlsUntrusted = "tls_untrusted",
        /// The certificate is invalid in another way (revoked, malformed, wrong purpose).
        TlsCertificate = "tls_certificate",
        /// The handshake failed for another reason.
        TlsHandshake = "tls_handshake",
        /// The deadline passed during the handshake.
        TlsTimeout = "tls_timeout",
        /// The connection was closed or reset before a whole response head came.
        ProcessingClosed = "processing_closed",
        /// The answer is not the HTTP that was asked for, or its head is too large.
        ProcessingProtocol = "processing_protocol",
        /// The deadline passed before the response head came.
        ProcessingTimeout = "processing_timeout",
        /// The connection was closed or reset inside the body, or the body is not as announced.
        TransferError = "transfer_error",
        /// The deadline passed inside the body.
        TransferTimeout = "transfer_timeout",
        /// The body's content-encoding is unknown or damaged, or ends early.
        DecodeError = "decode_error",
        /// More redirects than allowed.
        RedirectLimit = "redirect_limit",
        /// A redirect without a usable `Location`, or to another scheme than http and https.
        RedirectInvalid = "redirect_invalid",
        /// An address that the agent's policy denies.
        AddressDenied = "address_denied",
        /// The status code is not an expected one.
        StatusMismatch = "status_mismatch",
        /// The pattern that must match does not.
        BodyMismatch = "body_mismatch",
        /// The pattern that must not match does.
        BodyForbidden = "body_forbidden",
        /// A pattern could not be decided within its time budget.
        RegexTimeout = "regex_timeout",
    }
}

labels! {
    /// Why a due probe was not made. Never counted against the target.
    SkipReason {
        /// As many probes as allowed were in flight.
        Overload = "overload",
        /// As many probes of this host as allowed were in flight.
        HostLimit = "host_limit",
        /// The process was told to stop before the probe was through.
        Shutdown = "shutdown",
        /// The tick lies in a step of the clock.
        ClockStep = "clock_step",
        /// No file descriptor was left.
        DescriptorLimit = "descriptor_limit",
        /// No local port was left.
        PortExhausted = "port_exhausted",
        /// The agent's own resolver could not be reached.
        ResolverDown = "resolver_down",
        /// The endpoint's patterns have run out of their time budget again and again; it rests.
        Quarantined = "quarantined",
        /// An error of the agent's own that is none of the above.
        AgentError = "agent_error",
        /// The probe failed while the agent waited for a core, or was held up by its own work: the answer may have been
        /// there.
        Starved = "starved",
        /// The probe failed while the agent was stopped (SIGSTOP, a frozen container or machine).
        Paused = "paused",
        /// The agent's own network was down.
        NetworkDown = "network_down",
    }
}

/// `metrics.reason`: absent when `up`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Reason {
    /// `degraded`: slower than `degraded_after`.
    Slow,
    /// `degraded`: the certificate ends within `cert_warn`.
    CertificateExpiring,
    /// `down`.
    Failed(Failure),
    /// `skipped`.
    Skipped(SkipReason),
}

impl Reason {
    /// The label in SQL, JSON and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Slow => "slow",
            Self::CertificateExpiring => "certificate_expiring",
            Self::Failed(failure) => failure.label(),
            Self::Skipped(skip) => skip.label(),
        }
    }

    /// The outcome that goes with this reason.
    pub const fn outcome(self) -> Outcome {
        match self {
            Self::Slow | Self::CertificateExpiring => Outcome::Degraded,
            Self::Failed(_) => Outcome::Down,
            Self::Skipped(_) => Outcome::Skipped,
        }
    }

    /// Every reason, in the order of the database's enum.
    pub fn all() -> impl Iterator<Item = Self> {
        [Self::Slow, Self::CertificateExpiring]
            .into_iter()
            .chain(Failure::ALL.iter().map(|&f| Self::Failed(f)))
            .chain(SkipReason::ALL.iter().map(|&s| Self::Skipped(s)))
    }
}

impl Outcome {
    /// Every outcome, in the order of the database's enum.
    pub const ALL: &'static [Self] = &[Self::Up, Self::Degraded, Self::Down, Self::Skipped];

    /// The label in SQL, JSON and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Degraded => "degraded",
            Self::Down => "down",
            Self::Skipped => "skipped",
        }
    }
}

/// Durations in microseconds; absent where the phase was not reached, or did not happen (no TLS, cached name, kept
/// connection). The phases of redirects are summed.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Phases {
    /// Name to addresses.
    pub resolve_us: Option<u32>,
    /// TCP connect.
    pub connect_us: Option<u32>,
    /// TLS handshake.
    pub tls_us: Option<u32>,
    /// Request sent until the response head is there.
    pub processing_us: Option<u32>,
    /// Response head until the end of the body.
    pub transfer_us: Option<u32>,
}

/// One row of `metrics`, but for agent and location. Failure is an outcome, not an error.
#[derive(Clone, PartialEq, Debug)]
pub struct Sample {
    /// Whose tick.
    pub endpoint: EndpointId,
    /// The grid point: with endpoint and location the row's identity.
    pub scheduled_at: Timestamp,
    /// Absent when `up`; says the outcome otherwise.
    pub reason: Option<Reason>,
    /// Of the last response.
    pub status_code: Option<u16>,
    /// Whether the body passed its patterns; absent when there are none or it was not judged.
    pub matched: Option<bool>,
    /// Actual start after the grid point, µs. Absent when skipped.
    pub lag_us: Option<u32>,
    /// The phases.
    pub phases: Phases,
    /// The whole probe, µs. Absent when skipped.
    pub duration_us: Option<u32>,
    /// Upper bound on what the agent added to `duration_us`, µs; absent where not measured.
    pub error_us: Option<u32>,
    /// Whether the agent's own error may exceed the accepted bound.
    pub suspect: bool,
    /// The address last dialled.
    pub remote_ip: Option<IpAddr>,
    /// 10, 11 or 20.
    pub http_version: Option<u8>,
    /// Redirects followed.
    pub hops: u8,
    /// Bytes on the wire, TLS included, TCP/IP headers not.
    pub bytes_sent: u32,
    /// Bytes on the wire, TLS included, TCP/IP headers not.
    pub bytes_received: u32,
    /// CPU time of the probe thread spent on this probe, kernel time included, µs.
    pub cpu_us: u32,
    /// When the leaf certificate ends; recorded even when the handshake failed over it.
    pub tls_not_after: Option<Timestamp>,
    /// A few words on a failure, for a person; never a secret, never the body.
    pub detail: Option<Box<str>>,
}

impl Sample {
    /// A sample of which nothing is known yet but its identity; `up` until a reason is set.
    pub const fn new(endpoint: EndpointId, scheduled_at: Timestamp) -> Self {
        Self {
            endpoint,
            scheduled_at,
            reason: None,
            status_code: None,
            matched: None,
            lag_us: None,
            phases: Phases {
                resolve_us: None,
                connect_us: None,
                tls_us: None,
                processing_us: None,
                transfer_us: None,
            },
            duration_us: None,
            error_us: None,
            suspect: false,
            remote_ip: None,
            http_version: None,
            hops: 0,
            bytes_sent: 0,
            bytes_received: 0,
            cpu_us: 0,
            tls_not_after: None,
            detail: None,
        }
    }

    /// The sample of a due probe that was not made.
    pub const fn skipped(endpoint: EndpointId, scheduled_at: Timestamp, why: SkipReason) -> Self {
        let mut sample = Self::new(endpoint, scheduled_at);
        sample.reason = Some(Reason::Skipped(why));
        sample
    }

    /// `metrics.outcome`.
    pub fn outcome(&self) -> Outcome {
        self.reason.map_or(Outcome::Up, Reason::outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn reasons_have_labels_of_their_own() {
        let labels: Vec<_> = Reason::all().map(Reason::label).collect();
        assert_eq!(labels.iter().collect::<HashSet<_>>().len(), labels.len());
        assert!(
            labels
                .iter()
                .all(|l| l.len() < 63 && l.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
        );
    }

    #[test]
    fn a_sample_stays_small() {
        // The buffer holds many of them: see pipeline::buffer.
        assert!(size_of::<Sample>() <= 192, "{}", size_of::<Sample>());
    }
}
