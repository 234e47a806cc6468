//! The cases of `tests/cases/*.toml`, for every runner. The format is in `tests/cases/README.md`.

mod frame;
pub(crate) mod generate;
mod outcome;

use std::{fs, net::IpAddr, path::Path};

use guard_ebpf::{
    abi::{
        AddressKey, CLOSED_IPV4, CLOSED_IPV6, CLOSED_OTHERS, FIRST_COME, GOVERNED, Live,
        MAC_BEYOND, MAC_BOUND, MacHolder, MacKey, OFF_LINK, ON_LINK, OWNED_GATEWAY, OWNED_HOST,
        OWNED_LEASED, OWNED_MAC, OWNED_PORT, Owned, PORT_ACCESS, PORT_ALLOW_RARP,
        PORT_ALLOW_ROUTER, PORT_ALLOW_TAGGED, PORT_ALLOW_VIRTUAL, PORT_FILTERS_VLANS, PORT_UPLINK,
        PORT_VLANS_8021AD, Policy, Port, PortMac, PortState, Prefix, STRENGTH_ASSERT, STRENGTH_USE,
        Vlans,
    },
    address::Segment,
    counters::DropReason,
};
use serde::Deserialize;

pub(crate) use self::{frame::Frame, outcome::Outcome};

/// The port that the frame comes from: the loopback of any namespace, which test runs use.
pub(crate) const HERE: u32 = 1;
/// Any other port.
pub(crate) const ELSEWHERE: u32 = 77;
/// The bridge of both.
pub(crate) const BRIDGE: u32 = 9;

/// One case: a frame, what is known before it, and what comes of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    /// The row of `docs/rules/claims.md`.
    pub row: String,
    /// Unique within the file.
    pub name: String,
    /// The case that differs little and alarms, by name, unless this one does.
    pub twin: Option<String>,
    /// Why `BPF_PROG_TEST_RUN` cannot carry the frame, where it cannot.
    pub skip_test_run: Option<String>,
    /// Why no real frame can show it, where none can.
    pub skip_wire: Option<String>,
    /// The frame.
    pub frame: Frame,
    /// The kind of the port that it comes from.
    #[serde(default)]
    pub port: Kind,
    /// It is one of those that are named for the gateway.
    #[serde(default)]
    pub home: bool,
    /// What the port may do besides.
    #[serde(default)]
    pub allow: Vec<Allow>,
    /// The allow rule about the address.
    pub rule: Option<Rule>,
    /// The VLANs of the port, where the bridge filters them.
    pub member: Option<Vec<u16>>,
    /// They are VLANs of 802.1ad tags.
    #[serde(default)]
    pub vlans_8021ad: bool,
    /// The one of them that is called 0.
    #[serde(default)]
    pub native: u16,
    /// The VLAN of the port's untagged frames.
    #[serde(default)]
    pub pvid: u16,
    /// The bridge's own MAC.
    pub bridge_mac: Option<String>,
    /// The port that the frame's Ethernet source is known to be on.
    pub mac_on: Option<Where>,
    /// A binding has put it there.
    #[serde(default)]
    pub mac_bound: bool,
    /// A binding names it and the frame's port, as it does where the port is `bound`.
    #[serde(default)]
    pub own_mac: bool,
    /// It is none that the bindings of the frame's port name.
    pub foreign_mac: Option<bool>,
    /// The families of which declared bindings name the frame's port.
    #[serde(default)]
    pub bound: Vec<Family>,
    /// What the bridge is set to.
    #[serde(default)]
    pub strict: Strict,
    /// How the addresses of the prefixes are handed out.
    #[serde(default)]
    pub space: Space,
    /// In another VLAN than that of the frame, where the bridge filters them.
    pub mac_vlan: Option<u16>,
    /// The most addresses that nobody owns, and how many there are.
    #[serde(default)]
    pub quota_addresses: (u32, u32),
    /// The most frames about such addresses in a second, and how many there were.
    #[serde(default)]
    pub quota_frames: (u32, u32),
    /// The most events in a second about what others have, and how many there were.
    #[serde(default)]
    pub quota_events: (u32, u32),
    /// The most Ethernet sources of the port, and how many there were.
    #[serde(default)]
    pub quota_macs: (u32, u32),
    /// The frame's Ethernet source is one of those that the port may have.
    #[serde(default)]
    pub mac_known: bool,
    /// The port has just probed for what another has.
    #[serde(default)]
    pub probed: bool,
    /// The gateway's and host addresses that the port was told to claim.
    #[serde(default)]
    pub reserved: u32,
    /// The VLAN ids, outer and inner, of the address; default: the port's own.
    pub vlans: Option<(u16, u16)>,
    /// The address that `owned` and `live` are about; default: the one that the frame names.
    pub address: Option<IpAddr>,
    /// Who owns it.
    pub owned: Option<OwnedBefore>,
    /// Who is live with it.
    pub live: Option<LiveBefore>,
    /// The prefixes of the segment.
    #[serde(default = "prefixes")]
    pub prefixes: Vec<(IpAddr, u8)>,
    /// What comes of it.
    #[serde(default)]
    pub expect: Outcome,
    /// The ifindex of the port that the frame comes from: a runner's, not the file's.
    #[serde(skip, default = "here")]
    pub here: u32,
}

const fn here() -> u32 {
    HERE
}

fn prefixes() -> Vec<(IpAddr, u8)> {
    vec![([10, 8, 64, 0].into(), 24), ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0].into(), 64)]
}

/// What a port may do.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Allow {
    /// Send frames with a VLAN tag.
    Tagged,
    /// Send RARP.
    Rarp,
    /// Be a router.
    Router,
}

/// An allow rule.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rule {
    kind: RuleKind,
    /// The port that is in it.
    port: Where,
}

/// What an allow rule is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RuleKind {
    /// A virtual MAC goes from port to port.
    Vrrp,
    /// An address does.
    Shared,
    /// A router is behind the port.
    Router,
    /// The port answers for others.
    Proxy,
}

impl Rule {
    fn is_here(self, kind: RuleKind) -> bool {
        self.kind == kind && matches!(self.port, Where::Here)
    }

    /// What it says of its address.
    const fn prefix(self) -> Prefix {
        let (allow, allow_virtual, declared, over_owners) = match self.kind {
            RuleKind::Vrrp => (0, 1, 1, 1),
            RuleKind::Shared => (1, 0, 1, 1),
            RuleKind::Router => (1, 0, 1, 0),
            RuleKind::Proxy => (1, 0, 0, 0),
        };
        let (on_link, governed) = (ON_LINK, GOVERNED);
        Prefix { on_link, allow, allow_virtual, declared, over_owners, governed }
    }
}

/// A family of addresses.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Family {
    Ipv4,
    Ipv6,
}

/// How much of what nobody has declared drops.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Strict {
    None,
    #[default]
    Bound,
    All,
}

/// How the addresses of a prefix are handed out.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Space {
    /// By the agent.
    #[default]
    HandedOut,
    /// To who comes first.
    FirstCome,
    /// By others.
    Free,
}

/// The kind of a port.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// A sandbox's.
    #[default]
    Access,
    /// To other hosts.
    Uplink,
}

/// A port, seen from the frame.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Where {
    /// The frame's own.
    Here,
    /// Another.
    Elsewhere,
    /// Another, which is an uplink.
    Beyond,
}

impl Where {
    const fn ifindex(self, here: u32) -> u32 {
        match self {
            Self::Here => here,
            Self::Elsewhere | Self::Beyond => ELSEWHERE,
        }
    }
}

/// The bit of the ports that are named for a gateway.
const HOME: u16 = 2;

/// An entry of the map of owners.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OwnedBefore {
    #[serde(default)]
    gateway: bool,
    /// The ports where the gateway is at home are named.
    #[serde(default)]
    named: bool,
    #[serde(default)]
    host: bool,
    #[serde(default)]
    lost: bool,
    mac: Option<String>,
    port: Option<Where>,
    /// Absent: never.
    seen_ms_ago: Option<u64>,
}

/// An entry of the map of live addresses.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LiveBefore {
    mac: String,
    port: Where,
    #[serde(default)]
    seen_ms_ago: u64,
    /// By default as by an ARP frame.
    #[serde(default)]
    used: bool,
}

impl Case {
    /// Every case of every file, with the file's name.
    pub(crate) fn all() -> Vec<(String, Self)> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct File {
            case: Vec<Case>,
        }
        let above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
        let dir = above.map(|dir| dir.join("tests/cases")).find(|dir| dir.is_dir()).unwrap();
        let mut cases = Vec::new();
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "toml") {
                let name = path.file_stem().unwrap().to_string_lossy().into_owned();
                let text = fs::read_to_string(&path).unwrap();
                let file: File = toml::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
                cases.extend(file.case.into_iter().map(|case| (name.clone(), case)));
            }
        }
        assert!(!cases.is_empty(), "no cases in {}", dir.display());
        cases
    }

    /// The agent's word on the port.
    pub(crate) fn port(&self) -> Port {
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        Port {
            ifindex: self.here,
            bridge: BRIDGE,
            bridge_slot: 0,
            port_slot: 0,
            pvid: self.pvid,
            kind: match self.port {
                Kind::Access => PORT_ACCESS,
                Kind::Uplink => PORT_UPLINK,
            },
            flags: self.allow.iter().fold(0, |flags, allow| {
                flags
                    | match allow {
                        Allow::Tagged => PORT_ALLOW_TAGGED,
                        Allow::Rarp => PORT_ALLOW_RARP,
                        Allow::Router => PORT_ALLOW_ROUTER,
                    }
            }) | flag(self.rule_is_here(RuleKind::Vrrp), PORT_ALLOW_VIRTUAL)
                | flag(self.rule_is_here(RuleKind::Router), PORT_ALLOW_ROUTER)
                | flag(self.member.is_some(), PORT_FILTERS_VLANS)
                | flag(self.vlans_8021ad, PORT_VLANS_8021AD),
            bridge_mac: self.bridge_mac.as_deref().map_or([0; 6], frame::mac),
            homes: if self.home { HOME } else { 0 },
            quota_addresses: self.quota_addresses.0,
            quota_frames: self.quota_frames.0,
            allow: self.rule.map_or(0, |rule| u32::from(matches!(rule.port, Where::Here))),
            quota_events: self.quota_events.0,
            quota_macs: self.quota_macs.0,
            native: self.native,
            reserved: [0; 2],
        }
    }

    /// What enforcement does on the port, as the table of `docs/rules/enforce.md` has it.
    pub(crate) fn policy(&self) -> Policy {
        let closed = self.bound.iter().fold(0, |closed, family| {
            closed
                | match family {
                    Family::Ipv4 => CLOSED_IPV4,
                    Family::Ipv6 => CLOSED_IPV6,
                }
        });
        let (is_bound, all) = (closed != 0, self.strict == Strict::All);
        let bits = |on: bool, reasons: &[DropReason]| {
            if on { reasons.iter().fold(0, |bits, reason| bits | reason.bit()) } else { 0 }
        };
        let own = [DropReason::Mac, DropReason::Unowned, DropReason::OffPrefix];
        let strict = bits(true, &own) | DropReason::Ethertype.bit();
        let drops = !strict
            | bits(is_bound && self.strict != Strict::None, &own)
            | bits(all, &[DropReason::Unowned, DropReason::Ethertype]);
        let closed = closed | if all && !is_bound { CLOSED_OTHERS } else { 0 };
        match self.port {
            Kind::Access => Policy { ifindex: self.here, drops, closed, ..Policy::default() },
            Kind::Uplink => Policy { ifindex: self.here, ..Policy::default() },
        }
    }

    /// The Ethernet source, where a binding names it and the port.
    pub(crate) fn bound_mac(&self) -> Option<PortMac> {
        let names = self.own_mac || !self.bound.is_empty();
        let names = names && self.foreign_mac != Some(true);
        names.then(|| PortMac::new(self.here, self.frame.eth_src()))
    }

    fn rule_is_here(&self, kind: RuleKind) -> bool {
        self.rule.is_some_and(|rule| rule.is_here(kind))
    }

    /// The VLANs of the port.
    pub(crate) fn vlans(&self) -> Option<Vlans> {
        Some(self.member.as_ref()?.iter().copied().collect())
    }

    /// What the port has used of its quota.
    pub(crate) fn port_state(&self, now_ns: u64) -> PortState {
        let (addresses, frames) = (self.quota_addresses.1, self.quota_frames.1);
        let window_ns = if frames == 0 { 0 } else { now_ns };
        let (events, macs) = (self.quota_events.1, self.quota_macs.1);
        let events_ns = if events == 0 { 0 } else { now_ns };
        let reserved = self.reserved;
        let state = PortState { window_ns, addresses, frames, ..PortState::default() };
        let probe_ns = if self.probed { now_ns } else { 0 };
        let admitted_macs = if self.mac_known { 0 } else { macs };
        PortState { events_ns, events, macs, admitted_macs, reserved, probe_ns, ..state }
    }

    /// The segment of the frame.
    pub(crate) fn segment(&self) -> Segment {
        let (vlan, inner_vlan) = self.vlans.unwrap_or((self.pvid, 0));
        Segment { bridge: BRIDGE, vlan, inner_vlan }
    }

    /// The entry of the map of MACs.
    pub(crate) fn mac_holder(&self) -> Option<(MacKey, MacHolder)> {
        let on = self.mac_on?;
        let flags = if matches!(on, Where::Beyond) { MAC_BEYOND } else { 0 };
        let flags = if self.mac_bound { MAC_BOUND } else { flags };
        let holder = MacHolder { ifindex: on.ifindex(self.here), flags };
        let vlan = if self.member.is_none() { 0 } else { self.segment().vlan };
        let vlan = self.mac_vlan.unwrap_or(vlan);
        Some((MacKey::new(BRIDGE, vlan, self.frame.eth_src()), holder))
    }

    /// The key of `owned` and `live`.
    pub(crate) fn key(&self) -> AddressKey {
        let address = self.address.or_else(|| self.frame.address());
        let Segment { bridge, vlan, inner_vlan } = self.segment();
        let key = AddressKey::new(bridge, vlan, address.unwrap_or([0; 16].into()));
        AddressKey { inner_vlan, ..key }
    }

    /// The prefixes, with their keys and the lengths of these.
    pub(crate) fn prefixes(&self) -> Vec<(AddressKey, u32, Prefix)> {
        let Segment { bridge, vlan, inner_vlan } = self.segment();
        let key =
            |prefix: IpAddr| AddressKey { inner_vlan, ..AddressKey::new(bridge, vlan, prefix) };
        let governed = match self.space {
            Space::HandedOut => GOVERNED,
            Space::FirstCome => FIRST_COME,
            Space::Free => 0,
        };
        let of = |on_link: u32| {
            let governed = if on_link == ON_LINK { governed } else { 0 };
            Prefix { on_link, governed, ..Prefix::default() }
        };
        let on_link = self.prefixes.iter().map(|(prefix, len)| {
            let key = key(*prefix);
            (key, key.prefix_len(*len), of(ON_LINK))
        });
        let has = |v4: bool| self.prefixes.iter().any(|(prefix, _)| prefix.is_ipv4() == v4);
        let family = |address: IpAddr| {
            let (key, len) = key(address).family();
            (key, len, of(if has(address.is_ipv4()) { OFF_LINK } else { 0 }))
        };
        let families = [IpAddr::from([0; 4]), IpAddr::from([0; 16])].map(family);
        let rule = self.rule.map(|rule| (self.key(), AddressKey::FULL_LEN, rule.prefix()));
        families.into_iter().chain(on_link).chain(rule).collect()
    }

    /// The entry of the map of owners.
    pub(crate) fn owned(&self, now_ns: u64) -> Option<Owned> {
        let OwnedBefore { gateway, named, host, lost, mac, port, seen_ms_ago } =
            self.owned.as_ref()?;
        let flag = |set: bool, bit: u16| if set && !lost { bit } else { 0 };
        let reserved = *gateway || *host;
        Some(Owned {
            generation: u64::from(!reserved),
            seen_ns: seen_ms_ago.map_or(0, |ms| now_ns - ms * 1_000_000),
            ifindex: port.map_or(0, |port| port.ifindex(self.here)),
            mac: mac.as_deref().map_or([0; 6], frame::mac),
            flags: flag(!reserved, OWNED_LEASED)
                | flag(*gateway, OWNED_GATEWAY)
                | flag(*host, OWNED_HOST)
                | flag(mac.is_some(), OWNED_MAC)
                | flag(port.is_some(), OWNED_PORT),
            homes: if *named { HOME.into() } else { 0 },
        })
    }

    /// The entry of the map of live addresses.
    pub(crate) fn live(&self, now_ns: u64) -> Option<Live> {
        let LiveBefore { mac, port, seen_ms_ago, used } = self.live.as_ref()?;
        let seen_ns = now_ns - seen_ms_ago * 1_000_000;
        Some(Live {
            first_ns: seen_ns,
            seen_ns,
            ifindex: port.ifindex(self.here),
            mac: frame::mac(mac),
            strength: if *used { STRENGTH_USE } else { STRENGTH_ASSERT },
            reserved: 0,
            passed: 0,
        })
    }
}
