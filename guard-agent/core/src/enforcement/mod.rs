//! Enforcement: what an operator sets, and what is decided of it without the kernel. What it drops is
//! written in `docs/rules/enforce.md`.

mod advice;
mod brake;
mod exception;
mod overrides;
mod policy;
mod preflight;
mod settings;
mod telling;

pub use advice::{allowed_by, rule};
pub use brake::{Brake, can_be_braked};
pub use exception::{Effects, Exception, ExceptionKind, Grant, MAX_ANY, MAX_NAMED, Macs};
pub use overrides::{Override, Overrides};
pub use policy::{Bound, policy};
pub use preflight::{Facts, Finding, Kept, PortFacts, preflight};
pub use settings::{Class, Hygiene, Mode, Settings, Strict};
pub use telling::Telling;
