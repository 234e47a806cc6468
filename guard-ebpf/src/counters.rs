//! What is counted, and under which label.

use core::hint::black_box;

use bytemuck::{Pod, Zeroable};

use crate::{
    abi::CLAIM_ODD,
    claim::Parsed,
    decide::{Action, Decision, Verdict},
};

/// An enum whose variants index an array of counters and name a metric's label.
macro_rules! labels {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $label:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum $name {
            $($(#[$doc])* $variant),+
        }

        impl $name {
            /// Every variant, in the order of the counters.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The metric's label.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $label),+
                }
            }
        }
    };
}

labels! {
    /// What a frame is, by its ethertype.
    FrameKind {
        /// ARP (0x0806).
        Arp = "arp",
        /// IPv4 (0x0800).
        Ipv4 = "ipv4",
        /// IPv6 (0x86dd).
        Ipv6 = "ipv6",
        /// RARP (0x8035).
        Rarp = "rarp",
        /// With an 802.1Q or 802.1ad tag, stripped or in the frame.
        Tagged = "tagged",
        /// A length instead of a type: IEEE 802.2 LLC, SNAP among it.
        Llc = "llc",
        /// Anything else.
        Other = "other",
    }
}

labels! {
    /// Why a frame cannot be read: each check that can fail.
    MalformedReason {
        /// Shorter than an Ethernet header.
        EthernetTruncated = "ethernet_truncated",
        /// The Ethernet source is a group's MAC or zero (row L03).
        EthernetSource = "ethernet_source",
        /// ARP shorter than 28 bytes (row A24).
        ArpTruncated = "arp_truncated",
        /// ARP's hardware type is neither 1 nor 6 (row A22).
        ArpHardware = "arp_hardware",
        /// ARP's protocol type is not IPv4 (row A22).
        ArpProtocol = "arp_protocol",
        /// ARP's hardware length is not 6 (row A22).
        ArpHardwareLength = "arp_hardware_length",
        /// ARP's protocol length is not 4 (row A22).
        ArpProtocolLength = "arp_protocol_length",
        /// Neither request nor reply (row A23).
        ArpOperation = "arp_operation",
        /// A reply from 0.0.0.0 (row A09).
        ArpReplyUnspecified = "arp_reply_unspecified",
        /// IPv4 shorter than its base header (row D08).
        Ipv4Truncated = "ipv4_truncated",
        /// The version is not 4 (row D08).
        Ipv4Version = "ipv4_version",
        /// The header length is below 20 bytes (row D08).
        Ipv4HeaderLength = "ipv4_header_length",
    }
}

labels! {
    /// Why a frame that can be read claims nothing, though it names a source.
    NoClaim {
        /// A source that no host can have (rows A13, D03).
        Martian = "martian",
        /// From 0.0.0.0, and neither DHCP nor IGMP (row D02).
        Unspecified = "unspecified",
        /// Off the segment's prefixes (rows A14, D04, D05).
        OffPrefix = "off_prefix",
        /// A group's MAC or zero, for an address that nobody has (row A12).
        NoHostMac = "no_host_mac",
    }
}

labels! {
    /// Why enforcement drops a frame. In observe mode it is counted and the frame passes.
    DropReason {
        /// It cannot be read.
        Malformed = "malformed",
        /// A source that no host can have.
        Martian = "martian",
        /// From 0.0.0.0, and neither DHCP nor IGMP.
        Unspecified = "unspecified",
        /// Off the segment's prefixes.
        OffPrefix = "off_prefix",
        /// It names a MAC that no host can have.
        NoHostMac = "no_host_mac",
        /// The address has a declared owner, which it is not.
        Violation = "violation",
        /// The owner's address and MAC, sent from another MAC (row A10).
        Mismatch = "mismatch",
    }
}

impl From<NoClaim> for DropReason {
    #[inline(always)]
    fn from(reason: NoClaim) -> Self {
        match reason {
            NoClaim::Martian => Self::Martian,
            NoClaim::Unspecified => Self::Unspecified,
            NoClaim::OffPrefix => Self::OffPrefix,
            NoClaim::NoHostMac => Self::NoHostMac,
        }
    }
}

/// What is counted for a bridge on one CPU. Arrays are indexed by the enum in their name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct BridgeCounters {
    /// Frames by [`FrameKind`].
    pub frames: [u64; FrameKind::COUNT],
    /// Frames that cannot be read, by [`MalformedReason`].
    pub malformed: [u64; MalformedReason::COUNT],
    /// Frames that claim nothing, by [`NoClaim`].
    pub no_claim: [u64; NoClaim::COUNT],
    /// Frames that enforcement would have dropped, by [`DropReason`].
    pub would_drop: [u64; DropReason::COUNT],
    /// Claims in packets that no honest host sends (row D10).
    pub odd: u64,
    /// Events that found no room in the ring: read the maps anew.
    pub events_lost: u64,
    /// First claims that found no room in the map of live addresses.
    pub live_full: u64,
}

impl BridgeCounters {
    /// Counts a frame of the declared owner, seen just now.
    #[inline(always)]
    pub fn count_known(&mut self, kind: FrameKind) {
        bump(&mut self.frames, kind as usize);
    }

    /// Counts a frame and what was decided about it.
    #[inline(always)]
    pub fn count(&mut self, parsed: &Parsed, decision: &Decision) {
        bump(&mut self.frames, parsed.kind as usize);
        if let Some(claim) = parsed.claim()
            && claim.flags & CLAIM_ODD != 0
        {
            self.odd += 1;
        }
        match decision.action {
            Action::Malformed(reason) => bump(&mut self.malformed, reason as usize),
            Action::NoClaim(reason) => bump(&mut self.no_claim, reason as usize),
            Action::Nothing
            | Action::RefreshOwner
            | Action::RefreshLive
            | Action::InsertLive
            | Action::Report(_) => {}
        }
        if let Verdict::Drop(reason) = decision.verdict {
            bump(&mut self.would_drop, reason as usize);
        }
    }
}

/// The index is an enum's, so the compiler would leave out the check of its bounds; the verifier,
/// which does not know enums, wants to see it.
#[inline(always)]
fn bump(counters: &mut [u64], at: usize) {
    if let Some(counter) = counters.get_mut(black_box(at)) {
        *counter += 1;
    }
}
