//! What the integration tests have already.

#[allow(dead_code)]
#[path = "../it/support/chaos_proxy.rs"]
pub(crate) mod chaos_proxy;
#[allow(dead_code)]
#[path = "../it/support/process.rs"]
pub(crate) mod process;
