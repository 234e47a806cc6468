//! The lease engine: pools, states, transitions, allocation order.
//!
//! Pure: commands, evidence and time come in as arguments; what has to be stored and told goes out
//! as values. See `docs/` for the rules.
//!
//! An address that is not free has a [`Row`]. All that the engine derives from rows (what is free
//! and in which order, who has what, when which state ends) is kept up to date by one function,
//! `Engine::set`, so that a commit that fails is undone by putting the old rows back, and an
//! index built anew from the store equals the one that grew step by step.

pub mod command;
pub mod model;

mod absence;
mod allocate;
mod caller;
mod carve;
mod confirm;
mod engine;
mod exclusion;
mod index;
mod interface;
mod number;
mod observe;
mod page;
mod pool;
mod pools;
mod ports;
mod ranges;
mod reap;
mod release;
mod restore;
mod row;
mod run;
mod subnet;
mod table;
mod tick;
mod transaction;
mod transition;
mod workload;

pub use caller::{Act, Caller, Controller, Controllers};
pub use engine::{Applied, Engine, LeaseFilter, Notice, PoolStatus};
pub use exclusion::{Exclusion, ExclusionError};
pub use interface::InterfaceName;
pub use model::{Binding, Generation, Hold, Lease, State, reason};
pub use page::{LeaseKey, Order, Stretch, StretchOf};
pub use pool::{Gateway, Pool, PoolError, PoolSpec, Standing};
pub use pools::Pools;
pub use restore::{Carry, HighWater, Restored};
pub use row::{Contents, Place, Row, RowChange, Swap, Write};
pub use run::{Run, Runs};
pub use subnet::Subnet;
pub use transition::empty as no_text;
pub use workload::WORKLOAD;

use crate::owner::Owner;

#[cfg(test)]
pub(crate) mod tests;
