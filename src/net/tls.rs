//! TLS clients.
