//! Enforcement: what an operator sets, and what is decided of it without the kernel. The rows cited are
//! those of `docs/rules/enforce.md`.

mod policy;
mod settings;

pub use policy::drops;
pub use settings::{Class, Hygiene, Mode, Settings, Strict};
