//! Text and environment → validated domain values. All problems are reported at once, each with its place and its fix.
//!
//! One way for every source: YAML, CSV and the `settings` column become the same tree of [`node`]s, [`settings`] and
//! [`definition`] read it, and [`resolve`] judges the row that comes of it. So the CLI refuses what an agent would.
//!
//! Names serde, the YAML and CSV crates, `url` and the PEM parser of `rustls::pki_types`; does no network I/O.

pub mod args;
pub mod csv;
pub mod definition;
pub mod env;
pub mod error;
pub mod export;
pub mod file;
mod node;
pub mod raw;
mod read;
pub mod resolve;
pub mod secret;
mod settings;
pub mod substitute;
mod target;
mod values;
mod yaml;

pub use definition::Definition;
pub use error::Problem;
pub use file::{Loaded, Located, Place};
pub use raw::EndpointRow;
pub use resolve::{CheckCache, endpoint};
pub use secret::{ProcessSecrets, SecretRef, SecretSource, Unread};
