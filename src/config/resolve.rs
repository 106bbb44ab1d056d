//! Unchecked endpoints → validated domain endpoints.
