//! The lease engine: pools, states, transitions, allocation order.
//!
//! Pure: commands, evidence and time come in as arguments; what has to be stored and told goes out
//! as values. See `docs/` for the rules.

pub mod command;
pub mod model;

pub use model::{Generation, Lease, Owner, State};
