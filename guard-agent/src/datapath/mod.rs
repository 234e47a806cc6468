//! The programs and their maps: loaded, pinned, attached, read. Mechanism without policy.

mod attach;
mod batch;
mod bpf;
mod classifier;
mod clsact;
mod counted_map;
mod enforcing;
mod error;
mod identity;
mod keys;
mod leave;
mod own;
mod place;
mod program;
mod slots;
mod snapshot;
mod tc;
mod tcx;
mod trace;

pub use attach::Attach;
pub(crate) use batch::entries;
pub use counted_map::CountedMap;
pub use enforcing::enforcing;
pub use error::KernelError;
pub(crate) use identity::Same;
pub(crate) use keys::mac_keys;
pub use leave::detach;
pub(crate) use own::{claim, directory};
pub use place::Place;
pub use program::{Coverage, Kernel, loader};
pub(crate) use program::{GENERATION, LEASES};
pub(crate) use slots::Slot;
pub(crate) use snapshot::{BoundThere, Snapshot, Used, bound, owned, read};
pub use trace::{Line, Tracer};
