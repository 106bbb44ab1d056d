//! Values, rules and state machines. Pure: no I/O, no async, no clock, no serde; time is passed in.
//!
//! `domain` names only std, `regex`/`fancy-regex`, `http` types and `thiserror`.

pub mod admission;
pub mod arm;
pub mod attention;
pub mod backoff;
pub mod batch;
pub mod capacity;
pub mod check;
pub mod clock;
pub mod compare;
pub mod endpoint;
pub mod grid;
pub mod network;
pub mod partition;
pub mod pattern;
pub mod sample;
pub mod schedule;
pub mod timestamp;

pub use arm::{Arm, ArmError, ArmShare};
pub use backoff::Backoff;
pub use batch::Batch;
pub use check::{
    Auth, Check, Connection, DnsMode, HttpCheck, HttpVersion, IpFamily, PinnedAddress, Secret,
    StatusRanges, TlsSettings,
};
pub use clock::{ClockGap, ScheduleClock};
pub use endpoint::{Endpoint, EndpointId, Interval, Target};
pub use grid::Grid;
pub use partition::Partition;
pub use pattern::{Pattern, PatternError};
pub use sample::{AgentIdentity, Failure, Outcome, Phases, Reason, Sample, SkipReason};
pub use schedule::{Due, Schedule};
pub use timestamp::Timestamp;
