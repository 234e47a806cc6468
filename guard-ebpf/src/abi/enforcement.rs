//! What the agent says of enforcement, and what the program has dropped.

use bytemuck::{Pod, Zeroable};

use crate::counters::DropReason;

/// Array by [`Port::port_slot`](super::Port::port_slot): [`Policy`]. Written by the agent's owners alone.
pub const MAP_POLICIES: &str = "POLICIES";
/// Array by [`Port::bridge_slot`](super::Port::bridge_slot): [`Mode`]. Written by the agent's enforcement
/// alone.
pub const MAP_MODES: &str = "MODES";
/// Per-CPU hash: [`DropKey`] → [`Drops`]. Written by the program where it drops, or would.
pub const MAP_DROPS: &str = "DROPS";

/// The most ports and reasons in [`MAP_DROPS`] together.
pub const MAX_DROPS: u32 = 32_768;
/// So much is kept of the first frame that was dropped.
pub const FRAME_BYTES: usize = 96;

/// Hash: [`PortMac`] → [`STATION_BOUND`] or [`STATION_EXCEPTED`]: the MACs that declared bindings name, each
/// with its port, and those that an exception lets a port use. One may be bound to several. Written by the
/// agent's owners alone.
pub const MAP_BOUND_MACS: &str = "BOUND_MACS";
/// LPM trie: [`AddressKey`](super::AddressKey) with the port's ifindex in the place of the bridge's, as in
/// [`MAP_PREFIXES`](super::MAP_PREFIXES) → the `EXCEPT_*` bits of what the port may claim besides its
/// bindings. Written by the agent's owners alone.
pub const MAP_EXCEPTIONS: &str = "EXCEPTIONS";
/// The most addresses and prefixes in it, of all ports together.
pub const MAX_EXCEPTIONS: u32 = 65_536;

/// The MAC is the port's, also where it is bound to another port too.
pub const STATION_BOUND: u32 = 1;
/// The port may use the MAC, unless it is bound to another.
pub const STATION_EXCEPTED: u32 = 2;

/// The port may use the address where nobody has declared it.
pub const EXCEPT_UNOWNED: u32 = 1;
/// The port may use it whoever has it, but for a gateway's and the host's.
pub const EXCEPT_OWNED: u32 = 1 << 1;
/// The same with the MAC of a virtual router that the port may use.
pub const EXCEPT_VIRTUAL: u32 = 1 << 2;
/// The port answers for it beside one who is live with it, where nobody has declared it.
pub const EXCEPT_PROXY: u32 = 1 << 3;

/// A MAC on a port, in whatever VLAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Pod, Zeroable)]
#[repr(C)]
pub struct PortMac {
    /// The port.
    pub ifindex: u32,
    /// The Ethernet source.
    pub mac: [u8; 6],
    /// Keeps the layout free of padding.
    pub reserved: [u8; 2],
}

impl PortMac {
    /// All MACs that begin with the same three octets, as an exception names them: it has the bit of groups,
    /// so that it is no station's.
    #[inline(always)]
    #[must_use]
    pub const fn vendor(ifindex: u32, [a, b, c, ..]: [u8; 6]) -> Self {
        Self { ifindex, mac: [a | 1, b, c, 0, 0, 0], reserved: [0; 2] }
    }
}

/// For which reasons a port's frames drop. What follows from the kind of the port, its bindings and
/// the configuration is all in it: the program asks for nothing else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Policy {
    /// The port's ifindex: of any other, the entry is one that was left behind.
    pub ifindex: u32,
    /// A bit for each [`DropReason`] that counts here; 0 where nothing drops (an uplink).
    pub drops: u32,
    /// [`MODE_OF_BRIDGE`], [`MODE_OBSERVE`] or [`MODE_ENFORCE`].
    pub mode: u8,
    /// The `CLOSED_*` bits.
    pub closed: u8,
    /// How many Ethernet sources an exception lets it have; 0: as many as any port.
    pub macs: u16,
    /// Keeps the layout free of padding.
    pub reserved: [u8; 4],
    /// `CLOCK_MONOTONIC` (coarse) from when on the mode is the bridge's again, whether the agent lives or
    /// not; 0: until it is changed.
    pub until_ns: u64,
}

/// The port's mode is its bridge's.
pub const MODE_OF_BRIDGE: u8 = 0;
/// Nothing drops on the port, whatever its bridge's mode is.
pub const MODE_OBSERVE: u8 = 1;
/// The port is enforced, whatever its bridge's mode is.
pub const MODE_ENFORCE: u8 = 2;

/// A declared binding of IPv4 names the port: its own addresses are all that it may use of IPv4.
pub const CLOSED_IPV4: u8 = 1;
/// The same of IPv6.
pub const CLOSED_IPV6: u8 = 1 << 1;
/// Nothing but declared addresses may be used on the port, also where no prefix is governed.
pub const CLOSED_OTHERS: u8 = 1 << 2;
/// An exception lets it be a router's: what it says as one is not told.
pub const OPEN_ROUTER: u8 = 1 << 3;
/// A declared binding names the port.
pub const CLOSED_BOUND: u8 = CLOSED_IPV4 | CLOSED_IPV6;

/// Whether a bridge's ports are enforced. One store changes it for all of them: it is read after the
/// verdict, and before anything is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Mode {
    /// Frames drop, unless it is 0.
    pub enforce: u32,
    /// A bit for each [`DropReason`] that is not to drop all the same, on any port of the bridge.
    pub braked: u32,
}

/// What frames were dropped for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Pod, Zeroable)]
#[repr(C)]
pub struct DropKey {
    /// The port.
    pub ifindex: u32,
    /// The number of the [`DropReason`].
    pub reason: u32,
}

/// What of a port was dropped for one reason, on one CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Drops {
    /// Frames that were dropped.
    pub dropped: u64,
    /// Frames that passed, and that enforcement would have dropped.
    pub would_drop: u64,
    /// When the first came (`CLOCK_MONOTONIC`, coarse).
    pub first_ns: u64,
    /// When the last one did.
    pub last_ns: u64,
    /// The length of the first frame, as the kernel sees it.
    pub len: u32,
    /// The tag that the kernel had taken out of it and held aside (`TCI`), [`NO_TAG`] without one.
    pub tag: u32,
    /// How it begins; zeroes behind its end.
    pub frame: [u8; FRAME_BYTES],
}

/// No tag was taken out of the frame.
pub const NO_TAG: u32 = u32::MAX;

impl DropReason {
    /// The reason's bit, as in [`Policy::drops`].
    #[inline(always)]
    #[must_use]
    pub const fn bit(self) -> u32 {
        1 << self as u32
    }
}
