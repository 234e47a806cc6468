//! The counters, and the label of each.

use core::hint::black_box;

use bytemuck::{Pod, Zeroable};

/// An enum whose variants index an array of counters and name a metric's label.
macro_rules! labels {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $label:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Zeroable)]
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
        /// The Ethernet source is a group's MAC or zero (claims.md L03).
        EthernetSource = "ethernet_source",
        /// ARP shorter than 28 bytes (claims.md A24).
        ArpTruncated = "arp_truncated",
        /// ARP's hardware type is neither 1 nor 6 (claims.md A22).
        ArpHardware = "arp_hardware",
        /// ARP's protocol type is not IPv4 (claims.md A22).
        ArpProtocol = "arp_protocol",
        /// ARP's hardware length is not 6 (claims.md A22).
        ArpHardwareLength = "arp_hardware_length",
        /// ARP's protocol length is not 4 (claims.md A22).
        ArpProtocolLength = "arp_protocol_length",
        /// Neither request nor reply (claims.md A23).
        ArpOperation = "arp_operation",
        /// A reply from 0.0.0.0 (claims.md A09).
        ArpReplyUnspecified = "arp_reply_unspecified",
        /// IPv4 shorter than its base header (claims.md D08).
        Ipv4Truncated = "ipv4_truncated",
        /// The version is not 4 (claims.md D08).
        Ipv4Version = "ipv4_version",
        /// The header length is below 20 bytes (claims.md D08).
        Ipv4HeaderLength = "ipv4_header_length",
        /// A VLAN tag that is cut off (claims.md N19).
        TagTruncated = "tag_truncated",
        /// IPv6 that is cut off within its headers, or an ND message that is (claims.md N19).
        Ipv6Truncated = "ipv6_truncated",
        /// The version is not 6.
        Ipv6Version = "ipv6_version",
        /// An ND message below its least length (claims.md N11).
        NdLength = "nd_length",
        /// The hop limit of an ND message is not 255 (claims.md N11).
        NdHopLimit = "nd_hop_limit",
        /// The code of an ND message is not 0 (claims.md N11).
        NdCode = "nd_code",
        /// The target is no host's address (claims.md N11).
        NdTarget = "nd_target",
        /// An ND option of length 0, one that is cut off, or a link-layer address of another length
        /// than a MAC's (claims.md N11).
        NdOption = "nd_option",
        /// A message from `::` with the source's link-layer address, or one for duplicate address
        /// detection that is not sent to the target's solicited-node group (claims.md N01).
        NdUnspecified = "nd_unspecified",
        /// A solicited advertisement to a group (claims.md N11).
        NdSolicited = "nd_solicited",
        /// A router's message from an address that is not link-local (RFC 4861 §6.1.2, §8.1).
        NdSource = "nd_source",
    }
}

labels! {
    /// Why a frame that can be read claims nothing, though it names a source.
    NoClaim {
        /// A source that no host can have (claims.md A13, D03, N16).
        Martian = "martian",
        /// From 0.0.0.0, and neither DHCP nor IGMP (claims.md D02); from `::`, and neither
        /// duplicate address detection nor MLD (claims.md N16).
        Unspecified = "unspecified",
        /// The source of a packet, off the segment's prefixes (claims.md D04, D05).
        OffPrefix = "off_prefix",
        /// A group's MAC or zero, for an address that nobody has (claims.md A12).
        NoHostMac = "no_host_mac",
        /// ARP or IP behind LLC and SNAP (RFC 1042), which Linux ignores (claims.md A26).
        Snap = "snap",
        /// RARP from a port that is not allowed to send it (claims.md A23).
        Rarp = "rarp",
        /// In a VLAN that the port is not in: the bridge drops it.
        Vlan = "vlan",
        /// Between bridges and routers: spanning tree and its kin, or a question of multicast's
        /// (claims.md L04).
        Control = "control",
    }
}

labels! {
    /// Why a frame cannot be read to its end.
    OpaqueReason {
        /// More VLAN tags than are read (claims.md A29).
        Tags = "tags",
        /// More extension headers than are read (claims.md N13).
        ExtensionHeaders = "extension_headers",
        /// More ND options than are read (claims.md N12).
        NdOptions = "nd_options",
        /// ND in a fragment, or a first fragment that hides what it carries (claims.md N13, RFC
        /// 6980).
        Fragment = "fragment",
    }
}

labels! {
    /// Why enforcement drops a frame, in the order in which it is judged: of several, the first that
    /// counts on the port is the one that is counted. In observe mode it is counted and the frame passes.
    DropReason {
        /// It cannot be read.
        Malformed = "malformed",
        /// It cannot be read to its end.
        Opaque = "opaque",
        /// From the bridge's own MAC (claims.md L02).
        BridgeMac = "bridge_mac",
        /// From a MAC that is bound to another port, and not to this one (claims.md L01).
        Clone = "clone",
        /// From a MAC that is not the port's, whose MACs are declared.
        Mac = "mac",
        /// From one MAC more than the port may have (claims.md L06).
        MacQuota = "mac_quota",
        /// In a VLAN that the port is not in.
        Vlan = "vlan",
        /// With a VLAN tag, from a port that is not allowed to send any (claims.md A27, A29).
        Tagged = "tagged",
        /// Neither ARP nor IP (claims.md L05).
        Ethertype = "ethertype",
        /// ARP or IP behind LLC and SNAP.
        Snap = "snap",
        /// RARP that is about another than its sender.
        Rarp = "rarp",
        /// What bridges and routers say to each other (claims.md L04).
        Control = "control",
        /// A router's advertisement or redirect (claims.md N09).
        Router = "router",
        /// What a DHCP server says to its clients (claims.md D11).
        DhcpServer = "dhcp_server",
        /// From 0.0.0.0, and neither DHCP nor IGMP.
        Unspecified = "unspecified",
        /// A source that no host can have.
        Martian = "martian",
        /// It names a MAC that no host can have.
        NoHostMac = "no_host_mac",
        /// The address has a declared owner, which it is not.
        Violation = "violation",
        /// The owner's address and MAC, sent from another MAC (claims.md A10).
        Mismatch = "mismatch",
        /// A probe for what another has, which would keep that one from using it (claims.md A04).
        Probe = "probe",
        /// An address that is handed out, and that nobody was given.
        Unowned = "unowned",
        /// A source of elsewhere, from a port whose addresses of the family are declared.
        OffPrefix = "off_prefix",
        /// One address more than the port may have of those that nobody owns.
        Quota = "quota",
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
            NoClaim::Snap => Self::Snap,
            NoClaim::Rarp => Self::Rarp,
            NoClaim::Vlan => Self::Vlan,
            NoClaim::Control => Self::Control,
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
    /// Claims that count for nothing, by [`NoClaim`].
    pub no_claim: [u64; NoClaim::COUNT],
    /// Frames that cannot be read to their end, by [`OpaqueReason`].
    pub opaque: [u64; OpaqueReason::COUNT],
    /// Frames that enforcement would have dropped, by [`DropReason`].
    pub would_drop: [u64; DropReason::COUNT],
    /// Frames that were dropped, by [`DropReason`].
    pub dropped: [u64; DropReason::COUNT],
    /// Claims in packets that no honest host sends (claims.md D10).
    pub odd: u64,
    /// Frames from a MAC that is on another port, or the bridge's own (claims.md L01, L02).
    pub clones: u64,
    /// Router's messages from access ports that are not allowed to (claims.md N09).
    pub routers: u64,
    /// Claims over a port's quota.
    pub over_quota: u64,
    /// What a port has said over its budget of events (`Port::quota_events`) or of Ethernet sources.
    pub over_budget: u64,
    /// Events that found no room in the ring: read the maps anew.
    pub events_lost: u64,
    /// First claims that found no room in the map of live addresses.
    pub live_full: u64,
    /// MACs that found no room in their map.
    pub macs_full: u64,
    /// Frames that passed because the program had no place to work on them, or no policy of their port.
    pub unjudged: u64,
}

impl BridgeCounters {
    /// Counts a frame.
    #[inline(always)]
    pub fn frame(&mut self, kind: FrameKind) {
        bump(&mut self.frames, kind as usize);
    }

    /// Counts a frame that cannot be read.
    #[inline(always)]
    pub fn malformed(&mut self, reason: MalformedReason) {
        bump(&mut self.malformed, reason as usize);
    }

    /// Counts a claim that counts for nothing.
    #[inline(always)]
    pub fn no_claim(&mut self, reason: NoClaim) {
        bump(&mut self.no_claim, reason as usize);
    }

    /// Counts a frame that cannot be read to its end.
    #[inline(always)]
    pub fn opaque(&mut self, reason: OpaqueReason) {
        bump(&mut self.opaque, reason as usize);
    }

    /// Counts a frame that is dropped, or would be, by the reason's number.
    #[inline(always)]
    pub(crate) fn drop(&mut self, reason: u32, dropped: bool) {
        let counters = if dropped { &mut self.dropped } else { &mut self.would_drop };
        bump(counters, reason as usize);
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
