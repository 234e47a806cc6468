//! guard's agent: leases that no two sandboxes can hold, reconciled with what is on the wire.

pub mod alerts;
pub mod api;
pub mod bindings;
pub mod capabilities;
pub mod clock;
pub mod config;
pub mod evidence;
mod failpoint;
pub mod feed;
pub mod generations;
pub mod health;
pub mod history;
pub mod http;
pub mod hub;
pub mod incident;
pub mod lease;
pub mod ledger;
pub mod live;
pub mod mac;
pub mod memory;
pub mod metrics;
pub mod observer;
pub mod proto;
pub mod replay;
pub mod run;
pub mod segment;
pub mod store;
