//! Events, the arbiter's input: the program reports a frame, its maps are read, ports and
//! bridges go, time passes.

use std::{net::IpAddr, sync::Arc, time::Duration};

use guard_ebpf::abi::{
    self, AddressKey, Challenger, ChallengerKey, EVENT_ALLOWED, EVENT_BRIDGE_MAC, EVENT_CLONE,
    EVENT_CONTEST, Live, Owned,
};

use super::{CloneSuspect, Neighbour, PortUse, Rebound};
use crate::{
    evidence::{Claim, Station},
    incident::{Claimant, Incident, Role, Silent, Target},
    mac::Mac,
    owner::Owner,
    segment::Segment,
    time::Now,
};

/// One moment on all clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// For incidents, and for people.
    pub now: Now,
    /// `CLOCK_MONOTONIC`, on which the program stamps what it sees.
    pub monotonic: Duration,
}

impl Moment {
    /// A station's side of an incident.
    pub(super) fn claimant(
        self,
        role: Role,
        claim: &Claim,
        frames: u64,
        owner: Option<Owner>,
    ) -> Claimant {
        let Self { now, monotonic } = self;
        let Claim { station: Station { mac, interface, ifindex }, first, seen, .. } = claim;
        let at = |time: Duration| {
            let ago = monotonic.saturating_sub(time);
            now.wall.checked_sub(ago).unwrap_or(now.wall)
        };
        Claimant {
            role,
            mac: Some(*mac),
            interface: Some(interface.clone()),
            ifindex: Some(*ifindex),
            owner,
            first_seen: at(*first),
            last_seen: at(*seen),
            last: now.boot.saturating_sub(monotonic.saturating_sub(*seen)),
            frames,
            dropped: 0,
            is_dropped: false,
            counter: 0,
            gone: false,
        }
    }
}

/// What the kernel says beside an event of the program, as far as its kind needs it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Read {
    /// The live claimant of the address, where [`Read::needs_live`].
    pub live: Option<Live>,
    /// Of a clone: the MAC may leave the port that it lives on, because that has lost its carrier or
    /// a rule names both, and no binding keeps it there (claims.md A17, A18).
    pub may_move: bool,
    /// Of a flood: what the port has used.
    pub used: PortUse,
    /// Spanning tree runs on the bridge, and it takes nothing from the port now.
    pub blocked: bool,
}

impl Read {
    /// Whether an event of this kind is judged by the live claimant as it is now.
    pub const fn needs_live(kind: u8) -> bool {
        matches!(kind, EVENT_CONTEST | EVENT_ALLOWED)
    }
}

/// The arbiter's input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The program has told of a frame.
    Frame {
        /// Its record.
        event: abi::Event,
        /// What the kernel says beside it.
        read: Read,
    },
    /// A live claimant, read from the maps.
    Live(AddressKey, Live),
    /// A declared owner that was heard, read from the maps.
    Owner(AddressKey, Owned),
    /// A challenger, read from the maps.
    Challenger {
        /// Who, of what, and how.
        key: ChallengerKey,
        /// What the program has counted.
        challenger: Challenger,
        /// The live claimant of the address, where [`Read::needs_live`].
        live: Option<Live>,
        /// As in [`Read::blocked`], as far as it is known.
        blocked: bool,
        /// It spoke while no agent ran.
        missed: Missed,
    },
    /// All claims that count as evidence, once the maps have been read.
    Evidence(Vec<(Segment, IpAddr, Vec<Claim>)>),
    /// The host's neighbour table was read: its entries on the watched bridges.
    Neighbours(Vec<Neighbour>),
    /// The answer to [`Question::Holder`](super::Question::Holder).
    HolderRead {
        /// The address.
        key: AddressKey,
        /// The live claimant of the address.
        live: Option<Live>,
        /// The holder's port exists, and has a carrier.
        port_works: bool,
    },
    /// The answer to [`Effect::Probe`](super::Effect::Probe), where it could not be sent.
    NotAsked {
        /// For what.
        key: AddressKey,
        /// Who was to be asked.
        station: Station,
    },
    /// The answer to [`Question::Ports`](super::Question::Ports).
    PortsRead {
        /// Who was asked about.
        suspect: Box<CloneSuspect>,
        /// All ports that were asked about exist, and the first can be the holder of anything.
        exist: bool,
    },
    /// The answer to [`Question::Forwards`](super::Question::Forwards).
    PortRead {
        /// What was asked about.
        event: Box<abi::Event>,
        /// What the kernel says beside it now.
        read: Read,
    },
    /// A port has ended, or has left its bridge.
    PortGone {
        /// The port.
        ifindex: u32,
        /// What was claimed behind it.
        addresses: Vec<(Segment, IpAddr)>,
    },
    /// A port has lost its carrier: it cannot be the holder of anything that is claimed elsewhere
    /// (claims.md A18).
    CarrierLost {
        /// The port.
        ifindex: u32,
    },
    /// These claimants of incidents are silent, and no others.
    Silent(Vec<Silent>),
    /// The answer to [`Effect::Gone`](super::Effect::Gone), where an incident is over with it.
    Cleared {
        /// The incident.
        incident: Box<Incident>,
        /// The live claimant of its address.
        live: Option<Live>,
    },
    /// The bindings of these addresses were written.
    Bound(Vec<Rebound>),
    /// The host's addresses on a bridge have changed.
    HostAddresses {
        /// The bridge's name.
        bridge: Arc<str>,
        /// Those that are new, with their VLANs.
        new: Vec<(u16, IpAddr)>,
        /// Those that are gone.
        old: Vec<(u16, IpAddr)>,
    },
    /// What macvlans over a bridge have in other network namespaces has changed.
    Above {
        /// The bridge's name.
        bridge: Arc<str>,
        /// What is new, with the VLAN and the macvlan's MAC.
        new: Vec<(u16, IpAddr, Mac)>,
        /// What is gone.
        old: Vec<(u16, IpAddr, Mac)>,
    },
    /// A bridge is gone.
    BridgeGone {
        /// The bridge.
        ifindex: u32,
    },
    /// It is time: see [`Arbiter::next_due`](super::Arbiter::next_due).
    Tick,
}

/// Whether a challenger spoke while no agent ran, and nobody was told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Missed {
    /// It was told, or is old.
    #[default]
    No,
    /// It was not.
    Yes,
    /// It was not, and the port has ended since: another may have its number.
    Gone,
}

/// A claim with all that is needed to act on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// As the program knows the address.
    pub key: AddressKey,
    /// The segment.
    pub segment: Segment,
    /// What; unspecified where a frame claims nothing.
    pub address: IpAddr,
    /// Who, and when.
    pub claim: Claim,
    /// The `CLAIM_*` bits of its frame.
    pub flags: u16,
}

impl Seen {
    /// What an incident about it is about: a frame without an address is about its MAC.
    pub(super) fn target(&self) -> Target {
        match self.address {
            IpAddr::V6(none) if none.is_unspecified() => Target::Mac(self.claim.station.mac),
            address => Target::Address(address),
        }
    }
}

/// The program's entry of a challenger. A MAC on a second port is one, whatever addresses it claims.
pub(super) fn challenger_key(key: &AddressKey, station: &Station, kind: u8) -> ChallengerKey {
    let of_mac = matches!(kind, EVENT_CLONE | EVENT_BRIDGE_MAC);
    let none = AddressKey { inner_vlan: 0, address: [0; 16], ..*key };
    let key = if of_mac { &none } else { key };
    ChallengerKey::new(key, station.ifindex, station.mac.0, kind)
}
