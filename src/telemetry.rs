//! One function per fact; names; exporters.
