//! Arguments and exit codes.

pub mod audit;
pub mod endpoints;
pub mod migrate;
pub mod probe;
pub mod target;
