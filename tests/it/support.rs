//! What tests share.

pub(crate) mod database;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod target;
