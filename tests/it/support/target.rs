//! A target server in the test's process.
