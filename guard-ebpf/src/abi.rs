//! The layout of every map key, map value and ring record.
//!
//! All types are `repr(C)`, without padding (bytemuck's derive refuses it), in host byte order
//! except addresses and MACs, which are in wire order. A change to anything here changes
//! [`LAYOUT_VERSION`], which is part of the pin path: two programs that disagree never share a map.

mod enforcement;
mod prefix;

use bytemuck::{Pod, Zeroable};

pub use self::enforcement::{
    CLOSED_BOUND, CLOSED_IPV4, CLOSED_IPV6, CLOSED_OTHERS, DropKey, Drops, EXCEPT_OWNED,
    EXCEPT_PROXY, EXCEPT_UNOWNED, EXCEPT_VIRTUAL, FRAME_BYTES, MAP_BOUND_MACS, MAP_DROPS,
    MAP_EXCEPTIONS, MAP_MODES, MAP_POLICIES, MAX_DROPS, MAX_EXCEPTIONS, MODE_ENFORCE, MODE_OBSERVE,
    MODE_OF_BRIDGE, Mode, NO_TAG, OPEN_ROUTER, Policy, PortMac, STATION_BOUND, STATION_EXCEPTED,
};
pub use self::prefix::{FIRST_COME, GOVERNED, OFF_LINK, ON_LINK, Prefix};
pub use crate::counters::BridgeCounters;

/// Part of the pin path. Raise it with every change to a type or a pinned map in this file.
pub const LAYOUT_VERSION: u32 = 7;

/// The program, as the object file names it.
pub const PROGRAM: &str = "guard";
/// A byte that says whether the kernel has the coarse clock; set before the program is loaded.
pub const COARSE_CLOCK: &str = "COARSE_CLOCK";
/// Hash: ifindex (`u32`) → [`Port`]. A frame of a port that is not in it is none of ours.
pub const MAP_PORTS: &str = "PORTS";
/// Array: [`near_slot`] of the ifindex → [`Port`], for some of the ports in [`MAP_PORTS`]: an array is
/// read in a tenth of the time. The agent fills a slot when it inserts a port and nobody's port is in
/// it, and clears it when it removes that port.
pub const MAP_NEAR_PORTS: &str = "NEAR_PORTS";
/// Hash: [`AddressKey`] → [`Owned`].
pub const MAP_OWNED: &str = "OWNED";
/// Hash: [`AddressKey`] → [`Live`].
pub const MAP_LIVE: &str = "LIVE";
/// Hash: [`ChallengerKey`] → [`Challenger`]. Each port has so much room in it, and no other's.
pub const MAP_CHALLENGERS: &str = "CHALLENGERS";
/// LPM trie: [`AddressKey`] with [`AddressKey::prefix_len`] → [`Prefix`]: the prefixes on the link,
/// and what the allow rules say of them. Where a segment has a prefix of a family on the link, all of the
/// family has an entry too (claims.md A14, D05): see [`AddressKey::family`].
pub const MAP_PREFIXES: &str = "PREFIXES";
/// Ring buffer of [`Event`]s.
pub const MAP_EVENTS: &str = "EVENTS";
/// Per-CPU array by [`Port::bridge_slot`]: [`BridgeCounters`].
pub const MAP_COUNTERS: &str = "COUNTERS";
/// Per-CPU array by [`Port::port_slot`]: frames (`u64`).
pub const MAP_FRAMES: &str = "FRAMES";
/// Hash: [`MacKey`] → [`MacHolder`].
pub const MAP_MACS: &str = "MACS";
/// Hash: ifindex (`u32`) → [`Vlans`], for the ports of bridges that filter VLANs.
pub const MAP_VLANS: &str = "VLANS";
/// Array by [`Port::port_slot`]: [`PortState`].
pub const MAP_PORT_STATES: &str = "PORT_STATES";
/// Array of one: how often (`u64`) the agent that loaded the program has changed [`MAP_OWNED`]. The
/// program remembers whom it knew, and with each change forgets them all (see
/// [`claim_cache`](crate::claim_cache)). Not pinned: the next program remembers nobody.
pub const MAP_OWNED_CHANGES: &str = "OWNED_CHANGES";
/// The same for [`MAP_LIVE`].
pub const MAP_LIVE_CHANGES: &str = "LIVE_CHANGES";

/// All maps that are pinned, each under its name.
pub const MAPS: [&str; 17] = [
    MAP_PORTS,
    MAP_NEAR_PORTS,
    MAP_OWNED,
    MAP_LIVE,
    MAP_CHALLENGERS,
    MAP_PREFIXES,
    MAP_EVENTS,
    MAP_COUNTERS,
    MAP_FRAMES,
    MAP_MACS,
    MAP_VLANS,
    MAP_PORT_STATES,
    MAP_BOUND_MACS,
    MAP_EXCEPTIONS,
    MAP_POLICIES,
    MAP_MODES,
    MAP_DROPS,
];

/// The most ports that one agent watches: a bridge takes 1,023, an agent several bridges.
pub const MAX_PORTS: u32 = 8192;
/// Slots of [`MAP_NEAR_PORTS`].
pub const NEAR_PORTS: u32 = 4096;

/// The slot of a port in [`MAP_NEAR_PORTS`].
#[inline(always)]
#[must_use]
pub const fn near_slot(ifindex: u32) -> u32 {
    ifindex % NEAR_PORTS
}

/// The most addresses that have an owner: leases with or without a binding, gateways, hosts.
pub const MAX_OWNED: u32 = 262_144;
/// The most addresses with a learned claimant.
pub const MAX_LIVE: u32 = 262_144;
/// Challengers of all ports together.
pub const MAX_CHALLENGERS: u32 = 262_144;
/// So many times as many challengers as events a second ([`Port::quota_events`]) are remembered of one
/// port. The agent forgets those that are silent.
pub const CHALLENGERS_PER_EVENT: u32 = 8;
/// The gateway's and host addresses that a port is told to claim whatever it has used up of its budget.
pub const MAX_RESERVED_TOLD: u32 = 16;
/// The most prefixes on all segments together.
pub const MAX_PREFIXES: u32 = 4096;
/// The most MACs that are bound to or live on a port.
pub const MAX_MACS: u32 = 262_144;
/// Bridges whose counters are kept apart.
pub const MAX_BRIDGES: u32 = 64;
/// Bytes of the ring buffer: a power of two and a multiple of the page size.
pub const RING_BYTES: u32 = 1 << 20;
/// A live entry is stored at most this often (ns): nothing is written per frame on the good path.
pub const REFRESH_NS: u64 = 1_000_000_000;

/// An address within its segment. IPv4 is held as an IPv4-mapped IPv6 address (`::ffff:a.b.c.d`),
/// which no frame can claim as IPv6 (claims.md N16), so the two families never meet. Aligned so
/// that the program writes it in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct AddressKey {
    /// The bridge's ifindex.
    pub bridge: u32,
    /// The outer VLAN id, 0 for untagged and for [`Port::native`].
    pub vlan: u16,
    /// The inner VLAN id of a doubly tagged frame, else 0.
    pub inner_vlan: u16,
    /// The address in wire order.
    pub address: [u8; 16],
}

/// What the agent says of a port. Key: the port's ifindex.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Port {
    /// The port's ifindex, which tells whose a slot of [`MAP_NEAR_PORTS`] is.
    pub ifindex: u32,
    /// The ifindex of the bridge that the port belongs to.
    pub bridge: u32,
    /// Index into the per-bridge counters, below [`MAX_BRIDGES`].
    pub bridge_slot: u32,
    /// Index into the per-port counters, below [`MAX_PORTS`].
    pub port_slot: u32,
    /// The VLAN of untagged frames where the bridge filters VLANs ([`NO_VLAN`] if they have none), else
    /// 0.
    pub pvid: u16,
    /// [`PORT_ACCESS`] or [`PORT_UPLINK`].
    pub kind: u8,
    /// The `PORT_ALLOW_*` bits.
    pub flags: u8,
    /// The bridge's own MAC, zero if it is not known (claims.md L02).
    pub bridge_mac: [u8; 6],
    /// The gateways that are at home here, a bit each, as in [`Owned::homes`].
    pub homes: u16,
    /// The most addresses that nobody owns and that are live on this port; 0 for no limit.
    pub quota_addresses: u32,
    /// The most ARP and ND frames a second about such addresses; 0 for no limit.
    pub quota_frames: u32,
    /// The allow rules that the port is in, a bit each, as in [`Prefix::allow`].
    pub allow: u32,
    /// The most events a second about what others have; 0 for no limit.
    pub quota_events: u32,
    /// The most Ethernet sources; 0 for no limit (claims.md L06).
    pub quota_macs: u32,
    /// The VLAN of the bridge that is called 0 in every key, in [`Self::pvid`] and in [`Vlans`]; 0 for
    /// none.
    pub native: u16,
    /// Keeps the layout free of padding.
    pub reserved: [u8; 2],
}

/// The port may send frames with a VLAN tag (claims.md A27, A29).
pub const PORT_ALLOW_TAGGED: u8 = 1;
/// The port may send RARP (claims.md A23).
pub const PORT_ALLOW_RARP: u8 = 1 << 1;
/// A router is behind the port: it may advertise itself, and forward for others (claims.md D05,
/// N09).
pub const PORT_ALLOW_ROUTER: u8 = 1 << 2;

/// A virtual router's MAC is the port's own as much as any other (claims.md A16, N18).
pub const PORT_ALLOW_VIRTUAL: u8 = 1 << 3;
/// The bridge filters VLANs: it drops what is in none of the port's, which [`MAP_VLANS`] has.
pub const PORT_FILTERS_VLANS: u8 = 1 << 4;
/// Its VLANs are those of 802.1ad tags, and not of 802.1Q's.
pub const PORT_VLANS_8021AD: u8 = 1 << 5;

/// A VLAN id that no frame can have (IEEE 802.1Q §9.6), nor any port be in.
pub const NO_VLAN: u16 = 4095;

/// The VLANs that a port is in, a bit each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Vlans {
    /// VLAN `v` is bit `v % 64` of word `v / 64`.
    pub member: [u64; 64],
}

/// A sandbox's veth or tap.
pub const PORT_ACCESS: u8 = 0;
/// Leads to other hosts; may carry routed sources.
pub const PORT_UPLINK: u8 = 1;

/// Who owns an address, as the agent says it. Written by the agent alone, but for `seen_ns`, which
/// the program refreshes when the owner's own claim passes. Never evicted.
///
/// The agent also reads it, if it loses its store. For that alone an entry names the port and the MAC
/// that a lease was last known by, where they are not declared; and an address that was found so, and
/// that nobody owns since, has an entry without any bit. The program treats that as if it were not
/// there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Owned {
    /// The lease's generation, 0 for a gateway or a host address.
    pub generation: u64,
    /// `CLOCK_MONOTONIC` (coarse) of the owner's last claim, 0 if there was none.
    pub seen_ns: u64,
    /// The only port that may claim the address, where [`OWNED_PORT`] is set.
    pub ifindex: u32,
    /// The only MAC that may claim it, where [`OWNED_MAC`] is set.
    pub mac: [u8; 6],
    /// The `OWNED_*` bits.
    pub flags: u16,
    /// Of a gateway: the bit of the ports that it is at home on; 0 for any uplink.
    pub homes: u32,
}

/// A lease holds the address.
pub const OWNED_LEASED: u16 = 1;
/// [`Owned::mac`] is declared.
pub const OWNED_MAC: u16 = 1 << 1;
/// [`Owned::ifindex`] is declared.
pub const OWNED_PORT: u16 = 1 << 2;
/// The pool's gateway: a claim from where it is not at home is a conflict (claims.md A20, D07).
pub const OWNED_GATEWAY: u16 = 1 << 3;
/// An address of the host on the bridge: as the gateway, and from an uplink too.
pub const OWNED_HOST: u16 = 1 << 4;

/// Who was seen with an address that has no declared owner: strangers, and the learned bindings
/// of leases without a declared one. Inserted by the program with `BPF_NOEXIST` (the first claimant
/// wins on every CPU), replaced or removed by the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Live {
    /// `CLOCK_MONOTONIC` (coarse) of the first claim.
    pub first_ns: u64,
    /// `CLOCK_MONOTONIC` (coarse) of a claim, stored at most once every [`REFRESH_NS`]. 0 where the
    /// agent asks whether the claimant is still there: its next claim is reported.
    pub seen_ns: u64,
    /// The port it came from.
    pub ifindex: u32,
    /// The MAC that the protocol named (sha, or the Ethernet source of a data packet).
    pub mac: [u8; 6],
    /// The strongest claim so far: `STRENGTH_USE` or `STRENGTH_ASSERT`.
    pub strength: u8,
    /// Keeps the layout free of padding.
    pub reserved: u8,
    /// The agent's changes ([`MAP_OWNED_CHANGES`]) when its claim last passed all that enforcement asks
    /// for, 0 if it did not: since another change it is judged anew.
    pub passed: u32,
}

/// No claim.
pub const STRENGTH_NONE: u8 = 0;
/// Someone means to use the address (a probe).
pub const STRENGTH_TENTATIVE: u8 = 1;
/// The address was the source of a packet.
pub const STRENGTH_USE: u8 = 2;
/// The protocol says that the address is at the MAC.
pub const STRENGTH_ASSERT: u8 = 3;

/// A MAC as its bridge learns it (claims.md L01): one that filters VLANs learns it in each of them,
/// one that does not learns it once for all, and moves it with a frame of any (`br_fdb_update` in
/// `net/bridge/br_fdb.c`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct MacKey {
    /// The bridge's ifindex.
    pub bridge: u32,
    /// The outer VLAN id where the bridge filters VLANs, else 0.
    pub vlan: u16,
    /// Keeps the layout free of padding.
    pub reserved: [u8; 2],
    /// The Ethernet source.
    pub mac: [u8; 6],
    /// Keeps the layout free of padding.
    pub padding: [u8; 2],
}

/// The port that a MAC is bound to or live on. Inserted by the agent for a binding, and by
/// the program with `BPF_NOEXIST` when an address becomes live or its owner is seen; removed by the
/// agent alone, with the port at the latest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct MacHolder {
    /// The port.
    pub ifindex: u32,
    /// [`MAC_BOUND`], [`MAC_BEYOND`], or 0.
    pub flags: u32,
}

/// A binding names the MAC and its port.
pub const MAC_BOUND: u32 = 1;
/// The port is an uplink, and no binding has put the MAC there: it may go to another uplink (claims.md
/// A18).
pub const MAC_BEYOND: u32 = 2;

/// What a port has used of its quota. Written without a lock: two CPUs may lose a count to each
/// other, which the agent makes good for when it counts anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct PortState {
    /// When the second began in which [`Self::frames`] are counted (`CLOCK_MONOTONIC`, coarse).
    pub window_ns: u64,
    /// When a flood was last told.
    pub told_ns: u64,
    /// What was refused because of the quota.
    pub refused: u64,
    /// Live addresses that nobody owns. The agent takes off what it removes.
    pub addresses: u32,
    /// ARP and ND frames about addresses that nobody owns, in this second.
    pub frames: u32,
    /// When the second began in which [`Self::events`] are counted.
    pub events_ns: u64,
    /// Events about what others have, in this second.
    pub events: u32,
    /// Entries in [`MAP_CHALLENGERS`], as with the addresses.
    pub challengers: u32,
    /// Gateway's and host addresses that were claimed, as with the addresses.
    pub reserved: u32,
    /// Bits of [`Self::sources`] that are set: no more than there were Ethernet sources.
    pub macs: u32,
    /// A bit for each Ethernet source, by a hash. The agent clears them.
    pub sources: [u64; 16],
    /// Those that came before the quota was used up: four bits for each, by a hash, so that one MAC in
    /// 70,000 that did not is taken for one that did.
    pub admitted: [u64; 64],
    /// How many these are.
    pub admitted_macs: u32,
    /// Keeps the layout free of padding.
    pub padding: u32,
    /// When a probe for what another has last passed.
    pub probe_ns: u64,
}

impl Default for PortState {
    fn default() -> Self {
        Self::zeroed()
    }
}

/// One who claims or probes for what another holds. Key of the map that makes each an event once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct ChallengerKey {
    /// The address that is held by another; unspecified where the event is about none, and for
    /// [`EVENT_CLONE`] and [`EVENT_BRIDGE_MAC`], whatever the frame claims.
    pub key: AddressKey,
    /// The port of the challenger.
    pub ifindex: u32,
    /// Its MAC; zero for [`EVENT_OPAQUE`], [`EVENT_ROUTER`], [`EVENT_ROUTER_FLAG`] and
    /// [`EVENT_DECLINED`], which are reported once for a port, and for all MACs of a port after the first
    /// [`MAX_MACS_TOLD`] (for what is the gateway's or the host's, after the first).
    pub mac: [u8; 6],
    /// The event's: a probe must not keep the claim that follows it from being told.
    pub kind: u8,
    /// Keeps the layout free of padding.
    pub reserved: [u8; 5],
}

/// What a challenger did so far; enough to make good for an event that was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Challenger {
    /// Frames, stored without a lock: a lower bound when several CPUs see the same challenger.
    pub frames: u64,
    /// `CLOCK_MONOTONIC` (coarse) of the last one.
    pub seen_ns: u64,
    /// When it was last reported, so that an ongoing claim is reported again every [`REFRESH_NS`]; 0 while
    /// the ring had no room for it.
    pub told_ns: u64,
    /// The `CLAIM_*` bits of the last frame.
    pub flags: u16,
    /// Its `STRENGTH_*`.
    pub strength: u8,
    /// In the entry for all MACs of a port: how many have an entry of their own.
    pub macs: u8,
    /// Keeps the layout free of padding.
    pub reserved: [u8; 4],
    /// The address of its first event.
    pub about: AddressKey,
}

/// A port that claims an address in the name of MAC after MAC has so many of them told apart.
pub const MAX_MACS_TOLD: u8 = 4;

/// A state change, as it leaves through the ring. The maps are the truth, this is a hint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Event {
    /// `CLOCK_MONOTONIC` of the frame.
    pub time_ns: u64,
    /// The address that was claimed; unspecified (`::`) where the event is about none.
    pub key: AddressKey,
    /// The port of the frame.
    pub ifindex: u32,
    /// The port of the holder at that moment (declared or live), 0 if none is known.
    pub holder_ifindex: u32,
    /// The MAC that the protocol named.
    pub mac: [u8; 6],
    /// The Ethernet source.
    pub eth_src: [u8; 6],
    /// The MAC of the holder at that moment, zero if none is known.
    pub holder_mac: [u8; 6],
    /// One of the `EVENT_*` constants.
    pub kind: u8,
    /// The claim's `STRENGTH_*`.
    pub strength: u8,
    /// The claim's `CLAIM_*` bits.
    pub flags: u16,
    /// Keeps the layout free of padding.
    pub reserved: [u8; 2],
}

/// An address without a declared owner is live: it has its first claimant, or the agent had asked
/// for it and it was heard again.
pub const EVENT_LIVE: u8 = 1;
/// The declared owner's first claim since its binding was written.
pub const EVENT_OWNER: u8 = 2;
/// A claim on an address whose declared owner, gateway or host it is not.
pub const EVENT_VIOLATION: u8 = 3;
/// A claim on an undeclared address by another than its live claimant.
pub const EVENT_CONTEST: u8 = 4;
/// A probe (RFC 5227) for an address; without a holder it is one that nobody is known to have.
pub const EVENT_PROBE: u8 = 5;
/// The Ethernet source is bound to or live on another port, the holder's (claims.md L01). With the
/// address that the frame claims, if it claims one, about which another event may have been sent.
pub const EVENT_CLONE: u8 = 6;
/// The Ethernet source is the bridge's own MAC (claims.md L02). The address as in [`EVENT_CLONE`].
pub const EVENT_BRIDGE_MAC: u8 = 7;
/// A frame that cannot be read to its end within the bounds (claims.md A29, N12, N13).
pub const EVENT_OPAQUE: u8 = 8;
/// An access port acts as a router: an advertisement or a redirect (claims.md N09).
pub const EVENT_ROUTER: u8 = 9;
/// A port is over its quota, or over its budget of events.
pub const EVENT_FLOOD: u8 = 10;
/// A claim by an allow rule, on what another has or may have (claims.md A16, A17, A19, N08).
pub const EVENT_ALLOWED: u8 = 11;
/// A neighbour advertisement with the router flag from an access port (claims.md N09): a guest that
/// forwards sends one too.
pub const EVENT_ROUTER_FLAG: u8 = 12;
/// A DHCP client has found the address to be another's (claims.md D09); unspecified where it names none.
pub const EVENT_DECLINED: u8 = 13;

/// The Ethernet source is not the MAC that the ARP or ND payload names (claims.md A10).
pub const CLAIM_MISMATCH: u16 = 1;
/// The payload names a MAC that no host can have (claims.md A12), or one that is not the holder's
/// in a frame that is sent as if by the holder (claims.md A11).
pub const CLAIM_SPOOF: u16 = 1 << 1;
/// Link-local (claims.md A15, N14).
pub const CLAIM_LINK_LOCAL: u16 = 1 << 2;
/// A virtual router's MAC (claims.md A16).
pub const CLAIM_VIRTUAL: u16 = 1 << 3;
/// IPv4 with equal source and destination, or with a TTL of 0 (claims.md D10).
pub const CLAIM_ODD: u16 = 1 << 4;
/// A neighbour advertisement without the override flag (claims.md N08).
pub const CLAIM_WEAK: u16 = 1 << 5;
/// A neighbour advertisement with the router flag (claims.md N09).
pub const CLAIM_ROUTER: u16 = 1 << 6;
/// What is claimed is the gateway's or the host's, and this port's by no means (claims.md A20, D07,
/// L02): it is reported whatever the port has used up of its budget.
pub const CLAIM_RESERVED: u16 = 1 << 7;
/// The frame was sent to a group, broadcast among them: what a bridge sends back out of another port
/// where there is a loop (claims.md L01b).
pub const CLAIM_GROUP: u16 = 1 << 8;
/// The frame was dropped: it is an incident, and evidence of nothing (enforce.md).
pub const CLAIM_DROPPED: u16 = 1 << 9;

#[cfg(test)]
mod tests {
    use super::*;

    /// Another size is another layout: raise [`LAYOUT_VERSION`], and then these.
    #[test]
    fn the_layout_is_the_one_of_its_version() {
        assert_eq!(LAYOUT_VERSION, 7);
        assert_eq!((size_of::<AddressKey>(), size_of::<Port>()), (24, 52));
        assert_eq!((size_of::<Owned>(), size_of::<Live>()), (32, 32));
        assert_eq!((size_of::<ChallengerKey>(), size_of::<Challenger>()), (40, 56));
        assert_eq!((size_of::<Event>(), size_of::<BridgeCounters>()), (64, 776));
        assert_eq!((size_of::<Policy>(), size_of::<Mode>()), (24, 8));
        assert_eq!((size_of::<DropKey>(), size_of::<Drops>()), (8, 136));
        assert_eq!((size_of::<MacKey>(), size_of::<MacHolder>()), (16, 8));
        assert_eq!((size_of::<PortState>(), size_of::<Prefix>()), (712, 24));
        assert_eq!(size_of::<Vlans>(), 512);
    }
}
