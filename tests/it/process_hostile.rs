//! The real processes among people and peers who mean no good: secrets that must not show, names that must do no harm,
//! clients that hold on to the health address.

mod clients;
mod names;
mod secrets;
