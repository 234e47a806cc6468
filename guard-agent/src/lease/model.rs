//! What a lease is.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use jiff::Timestamp;

use crate::{mac::Mac, segment::Segment};

/// Grows with every hand-out, over the whole store; fences every later call about the lease.
pub type Generation = u64;

/// Who holds a lease. A sandbox that stops and starts again keeps its name and gets a new
/// lifecycle, and for a while both can exist.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Owner {
    /// The sandbox's name.
    pub sandbox: Arc<str>,
    /// One run of it; empty where the controller does not tell runs apart.
    pub lifecycle: Arc<str>,
}

/// The states of an address that is not free.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// Handed out, not yet confirmed.
    Held,
    /// In use.
    Active,
    /// Given back, but still live or on hold.
    Releasing,
    /// Given back and gone; not yet reused.
    Cooling,
    /// Must not be handed out.
    Quarantined,
}

impl State {
    /// All states, in the order of a lease's life.
    pub const ALL: [Self; 5] =
        [Self::Held, Self::Active, Self::Releasing, Self::Cooling, Self::Quarantined];

    /// The word for it in JSON, metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Active => "active",
            Self::Releasing => "releasing",
            Self::Cooling => "cooling",
            Self::Quarantined => "quarantined",
        }
    }
}

/// The MAC and the port that may use a leased address.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Binding {
    /// `Allocate` or `Bind` named it; else it was learned from the first claim (RFC 6620).
    pub declared: bool,
    /// The only MAC.
    pub mac: Option<Mac>,
    /// The only port, by the name of the host's side.
    pub interface: Option<Arc<str>>,
    /// The port's ifindex, once the port exists. Ends with the port.
    pub ifindex: Option<u32>,
}

/// An address that is not free, whoever has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Lease {
    /// Where the address lives.
    pub segment: Segment,
    /// The address.
    pub address: IpAddr,
    /// The pool's name.
    pub pool: Arc<str>,
    /// What it is.
    pub state: State,
    /// Who holds it, or held it last; none where it was never handed out.
    pub owner: Option<Owner>,
    /// The interface key.
    pub key: Arc<str>,
    /// 0 where it was never handed out.
    pub generation: Generation,
    /// Who may use it.
    pub binding: Binding,
    /// Why it is quarantined or releasing; empty otherwise.
    pub reason: Arc<str>,
    /// Subscribers whose acknowledgement it waits for.
    pub holds: Vec<Arc<str>>,
    /// Reconciler passes in a row without evidence.
    pub misses: u32,
    /// When it was handed out (or quarantined).
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// On `CLOCK_BOOTTIME`, when the state ends by itself.
    pub until: Option<Duration>,
    /// Handed out before its cooldown was over.
    pub cooldown_bypassed: bool,
    /// The controller's own words.
    pub labels: BTreeMap<String, String>,
}
