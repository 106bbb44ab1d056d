//! What tests share.

pub(crate) mod database;
pub(crate) mod name_server;
pub(crate) mod prober;
pub(crate) mod target;
