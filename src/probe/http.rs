//! The HTTP and HTTPS probe.
