//! What tests share.

pub(crate) mod chaos_proxy;
pub(crate) mod database;
pub(crate) mod login;
pub(crate) mod name_server;
pub(crate) mod pgbouncer;
pub(crate) mod prober;
pub(crate) mod process;
pub(crate) mod scene;

pub(crate) mod target;
