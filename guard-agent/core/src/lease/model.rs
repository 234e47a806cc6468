//! What a lease is.

use std::{collections::BTreeMap, fmt, net::IpAddr, sync::Arc, time::Duration};

use jiff::Timestamp;

use crate::{
    evidence::{Device, Station},
    mac::Mac,
    owner::Owner,
    segment::Segment,
};

/// Grows with every hand-out, over the whole store; fences every later call about the lease.
pub type Generation = u64;

/// Why an address is in its state: the words of [`Lease::reason`].
pub mod reason {
    /// Quarantined: in use without a lease. Releasing: still in use.
    pub const LIVE: &str = "live";
    /// Releasing: a subscriber has not acknowledged.
    pub const HOLD: &str = "hold";
    /// Releasing: nothing shows it in use, and not everyone who would know was asked since.
    pub const UNKNOWN: &str = "unknown";
    /// Quarantined: never confirmed, and in use by somebody else.
    pub const UNCONFIRMED_LIVE: &str = "unconfirmed_live";
    /// Quarantined: the inventory names two owners.
    pub const DISPUTED: &str = "disputed";
    /// Quarantined: its last owner gave it back, and runs with it.
    pub const RELEASED_RUNNING: &str = "released_running";
    /// Quarantined: an operator said so; only an operator ends it.
    pub const OPERATOR: &str = "operator";
    /// Quarantined: found after a loss of the store, explained by nothing.
    pub const RECOVERED: &str = "recovered";
    /// Active: taken over from the inventory, not handed out.
    pub const ADOPTED: &str = "adopted";
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

    /// Whether an owner has the address; the generation ends with it.
    pub fn is_owned(self) -> bool {
        matches!(self, Self::Held | Self::Active)
    }

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
    /// The only port, by the name of the host's side. None where a declared binding leaves it open.
    pub interface: Option<Arc<str>>,
    /// The port's ifindex, once the port exists. Ends with the port. Of a declared binding that names no
    /// port it is the one on which the MAC claimed first: that was learned, and decides nothing.
    pub ifindex: Option<u32>,
    /// What tells the port from the next one with its ifindex.
    pub device: Option<Device>,
    /// The port that it named, or was learned on, has ended since.
    pub port_ended: bool,
}

impl Binding {
    /// Whether it was declared that this port uses the address.
    pub fn declares_port(&self, ifindex: u32) -> bool {
        self.declared && self.interface.is_some() && self.ifindex == Some(ifindex)
    }

    /// Whether it names this station, as far as it names any. One that names no MAC allows each that a
    /// host can have (claims.md A12).
    pub fn allows(&self, station: &Station) -> bool {
        let Self { mac, interface, ifindex, .. } = self;
        let named = mac.is_some() || interface.is_some() || ifindex.is_some();
        named
            && station.mac.is_host()
            && mac.is_none_or(|mac| mac == station.mac)
            && match ifindex {
                Some(ifindex) => *ifindex == station.ifindex,
                None => interface.as_ref().is_none_or(|name| *name == station.interface),
            }
    }
}

/// A subscriber whose acknowledgement a releasing address waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// The subscriber's name in the configuration.
    pub subscriber: Arc<str>,
    /// On `CLOCK_BOOTTIME`, when the address stops waiting for it.
    pub until: Duration,
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.subscriber)
    }
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
    /// Why it is quarantined or releasing, or active without a hand-out; one of the words of
    /// [`mod@reason`], empty otherwise.
    pub reason: Arc<str>,
    /// Subscribers whose acknowledgement it waits for.
    pub holds: Vec<Hold>,
    /// Reconciler passes in a row without evidence.
    pub misses: u32,
    /// On `CLOCK_BOOTTIME`, when the last of them was counted.
    pub missed_at: Option<Duration>,
    /// The boot in which its owner last asked for, confirmed or bound it; see
    /// [`super::HighWater::boot`].
    pub boot: u64,
    /// When it was handed out (or quarantined).
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// On `CLOCK_BOOTTIME`, when the state ends by itself.
    pub until: Option<Duration>,
    /// Handed out before its cooldown was over.
    pub cooldown_bypassed: bool,
    /// Its place among all releases; 0 until it is given back.
    pub release_order: u64,
    /// The user whose call made it, where that is known; see [`super::Caller::may`].
    pub maker: Option<u32>,
    /// The controller's own words.
    pub labels: BTreeMap<String, String>,
}

impl Lease {
    /// Whether it is quarantined because the address is in use, or was until a moment ago.
    pub fn is_live_quarantine(&self) -> bool {
        self.state == State::Quarantined && !self.is_operators()
    }

    /// Whether it is given back and binds neither a MAC nor a port any more: nobody may use its address.
    pub fn binds_nobody(&self) -> bool {
        let Binding { declared, mac, interface, .. } = &self.binding;
        self.state == State::Releasing && *declared && mac.is_none() && interface.is_none()
    }

    /// The port that it is bound to has ended: what is left is the address and a declared MAC.
    pub(super) fn end_port(&mut self) {
        let Binding { declared, mac, interface, ifindex, device, port_ended } = &mut self.binding;
        (*interface, *ifindex, *device, *port_ended) = (None, None, None, true);
        // Who uses a quarantined address stays on record.
        if !*declared && self.state != State::Quarantined {
            *mac = None;
        }
    }

    /// Whether another MAC than this one was declared.
    pub(super) fn is_declared_to_another(&self, mac: Mac) -> bool {
        let Binding { declared, mac: bound, .. } = self.binding;
        declared && bound.is_some_and(|bound| bound != mac)
    }

    /// Whether an operator quarantined it.
    pub fn is_operators(&self) -> bool {
        self.state == State::Quarantined && &*self.reason == reason::OPERATOR
    }

    /// Whether it was quarantined because the store was lost that knew who has it.
    pub fn is_recovered(&self) -> bool {
        self.state == State::Quarantined && &*self.reason == reason::RECOVERED
    }

    /// Whether a station may use the address: what the binding names, it has.
    pub fn is_bound_to(&self, mac: Option<Mac>, ifindex: Option<u32>) -> bool {
        let Binding { mac: bound_mac, interface, ifindex: bound_port, .. } = &self.binding;
        if bound_mac.is_none() && interface.is_none() && bound_port.is_none() {
            return false;
        }
        bound_mac.is_none_or(|bound| mac == Some(bound))
            && match (bound_port, interface) {
                (Some(bound), _) => ifindex == Some(*bound),
                // The name is known, the port is not: nobody can be behind it yet.
                (None, Some(_)) => false,
                (None, None) => true,
            }
    }
}
