//! guard's agent: leases that no two sandboxes can hold, reconciled with what is on the wire.

pub mod clock;
pub mod evidence;
pub mod lease;
pub mod ledger;
pub mod mac;
pub mod segment;
pub mod store;
