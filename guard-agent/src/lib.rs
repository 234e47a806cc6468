//! guard's agent: leases that no two sandboxes can hold, reconciled with what is on the wire.

pub mod clock;
pub mod evidence;
pub mod lease;
pub mod mac;
pub mod proto;
pub mod segment;
