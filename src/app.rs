//! Wiring, supervision, shutdown.

pub mod agent;
pub mod control;
pub mod machine;
pub mod signal;
pub mod source;
pub mod up;
