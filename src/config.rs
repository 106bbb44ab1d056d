//! Text and environment → validated domain values. All problems are reported at once, each with its place and its fix.
//!
//! Names serde, the YAML and CSV crates and clap; does no network I/O.

pub mod args;
pub mod env;
pub mod error;
pub mod file;
pub mod raw;
pub mod resolve;


pub use error::Problem;
pub use raw::EndpointRow;
