//! One probe: an endpoint and a tick in, a sample out, always. Failure is an outcome.

pub mod body;
pub mod http;
pub mod matcher;
