//! guard's agent: leases that no two sandboxes can hold, reconciled with what is on the wire.
//!
//! `docs/architecture.md` has the rooms and the arrows between them, and `tests/rooms.rs` holds them.

pub mod clock;
pub mod config;
pub mod daemon;
pub mod datapath;
mod enforcement;
pub mod events;
mod failpoint;
pub mod health;
pub mod inventory;
pub mod ledger;
pub mod live;
pub mod logging;
pub mod metrics;
mod network;
mod observer;
mod owners;
pub mod reconcile;
mod regular;
mod server;
pub mod store;
pub mod supervisor;
mod watchdog;
