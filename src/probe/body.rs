//! Decoding of bodies within a cap.
