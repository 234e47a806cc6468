//! What guard decides, and nothing that it does: every function here is pure. Time comes in as a
//! value, and so does what the wire, the kernel and the inventories show; rows, replies and events
//! go out. The crate knows no clock, no socket, no kernel map, no file and no task.

pub mod arbiter;
pub mod bounds;
pub mod duration;
pub mod enforcement;
pub mod evidence;
pub mod homes;
pub mod incident;
pub mod judgement;
pub mod lease;
pub mod mac;
pub mod owner;
pub mod policy;
pub mod reconcile;
pub mod rules;
pub mod segment;
pub mod text;
pub mod time;
pub mod watchdog;
