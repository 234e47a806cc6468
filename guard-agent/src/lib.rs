//! guard's agent: leases that no two sandboxes can hold, reconciled with what is on the wire.

pub mod alerts;
pub mod api;
pub mod bindings;
pub mod capabilities;
pub mod clock;
pub mod config;
mod entries;
pub mod evidence;
mod failpoint;
pub mod generations;
pub mod health;
pub mod history;
pub mod http;
pub mod hub;
pub mod incident;
pub mod inventory;
pub mod journal;
pub mod judgement;
pub mod lease;
pub mod ledger;
pub mod live;
pub mod mac;
pub mod memory;
pub mod metrics;
pub mod observer;
pub mod reconcile;
pub mod reload;
pub mod replay;
pub mod run;
pub mod segment;
pub mod store;
pub mod supervisor;
pub mod vitals;
pub mod watchdog;

pub use guard_api::{client, pages, proto};
