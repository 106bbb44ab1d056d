//! The match thread.
