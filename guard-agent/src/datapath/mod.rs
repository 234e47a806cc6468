//! The programs and their maps: loaded, pinned, attached, read. Mechanism without policy.

mod attach;
mod batch;
mod counted_map;
mod error;
mod identity;
mod keys;
mod program;
mod snapshot;
mod tc;
mod trace;

pub use attach::Attach;
pub(crate) use batch::entries;
pub use counted_map::CountedMap;
pub use error::KernelError;
pub(crate) use identity::Same;
pub(crate) use keys::mac_keys;
pub use program::{Coverage, Kernel, detach, loader};
pub(crate) use program::{LEASES, directory};
pub(crate) use snapshot::{Snapshot, Used, read};
pub use trace::{Line, Tracer};
