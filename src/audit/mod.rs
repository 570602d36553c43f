//! The audit log: events, their chain, signed heads, and verification by someone who does not trust us.

pub mod event;
