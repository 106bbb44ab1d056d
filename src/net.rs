//! Bytes to and from the network: resolve, connect, TLS, metering. Knows no protocol above TLS.

pub mod arrival;
pub mod attention;
pub mod connect;
pub mod host;
pub mod meter;
pub mod policy;
pub mod resolve;
pub mod tls;
pub mod way;
