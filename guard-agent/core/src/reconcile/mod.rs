//! What a pass of the reconciler may conclude, and how much of it at once.

mod brake;
mod pass;

use std::time::Duration;

pub use self::{
    brake::{Brake, Recent, Verdict, consent_id},
    pass::{Ended, Judgement, Look, is_over, port_is_gone},
};

/// How slow and how sure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Time from one pass to the next; a lease gets at most one miss in it.
    pub interval: Duration,
    /// Misses in a row after which a lease is taken back.
    pub misses: u32,
    /// The share of a pool's held and active leases that a pass may take back unasked.
    pub max_reap_share: f64,
}

#[cfg(test)]
pub(crate) mod tests;
