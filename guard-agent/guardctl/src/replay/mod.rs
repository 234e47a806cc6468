//! Recorded frames through the program's own decision function: what was claimed, and by whom else.
//!
//! A capture knows less than a kernel does: not which prefixes are on the link, not when a port came
//! or went, and mostly not from which port a frame came. Unless it is told that each interface was
//! captured in one direction, an interface is taken for an uplink, behind which everybody is: another
//! MAC for an address is another host. What says so, or cannot be known from frames, is an argument, or
//! in the agent's configuration.

mod capture;
mod config;
mod leases;
mod state;
mod world;

use std::{collections::BTreeSet, net::IpAddr, path::Path, sync::Arc};

use bytemuck::Zeroable as _;
use guard_api::proto;
use guard_core::{
    enforcement,
    mac::Mac,
    policy::{Allow, Conflict},
};
use guard_ebpf::{
    abi::{BridgeCounters, PORT_UPLINK, Port, STRENGTH_ASSERT},
    address::Segment,
    frame::parse,
};
use ipnet::IpNet;
use jiff::Timestamp;
use serde::Serialize;

use capture::Capture;
pub(crate) use capture::{CaptureError, NotEthernet};
pub(crate) use config::ConfigError;
pub(crate) use leases::Leased;
use state::Replay;

/// What a capture does not say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    /// The bridge's name, where it is known.
    pub bridge: String,
    /// The prefixes on the link. Where a segment has none of a family: the /24 or the /64 of each
    /// address of which ARP or neighbour discovery speaks there.
    pub prefixes: Vec<OnLink>,
    /// The gateways.
    pub gateways: Vec<Gateway>,
    /// Who may claim what another has. A rule that names ports is for those interfaces; one that was
    /// captured in both directions stands for all ports, and is in all rules.
    pub rules: Vec<Allow>,
    /// When two claimants are a conflict.
    pub conflict: Conflict,
    /// The interface, where the file does not name it.
    pub port: String,
    /// The frames of each interface are those that it delivered, and no others: each is the port of
    /// one sandbox.
    pub ingress: bool,
    /// The interfaces that are uplinks all the same.
    pub uplinks: Vec<String>,
    /// What is dropped.
    pub enforcement: enforcement::Settings,
    /// The leases that bind a port, as they were then.
    pub leases: Vec<Leased>,
}

/// A prefix of one VLAN, or of every segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OnLink {
    /// The VLAN, 0 for untagged.
    pub vlan: Option<u16>,
    /// The prefix.
    pub net: IpNet,
}

/// A gateway of one VLAN, or of every segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Gateway {
    /// The VLAN, 0 for untagged.
    pub vlan: Option<u16>,
    /// Its address.
    pub address: IpAddr,
    /// Its MAC, where that is known.
    pub mac: Option<Mac>,
    /// Patterns of the interfaces that it is at home on; any uplink if there are none.
    pub ports: Vec<Arc<str>>,
}

impl Settings {
    /// Where each gateway is at home.
    fn homes(&self) -> impl Iterator<Item = &[Arc<str>]> {
        self.gateways.iter().map(|gateway| &gateway.ports[..])
    }
}

/// Who was seen with an address.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    /// The address.
    pub address: IpAddr,
    /// Its VLAN, 0 for untagged.
    pub vlan: u16,
    /// The VLAN within that, 0 where there is none.
    pub inner_vlan: u16,
    /// The claimant.
    pub mac: Mac,
    /// The port that it was seen on.
    pub interface: String,
    /// ARP or neighbour discovery said so; else it was the source of a packet.
    pub asserted: bool,
    /// When first.
    pub first_seen: Timestamp,
    /// When last, to the second.
    pub last_seen: Timestamp,
}

/// What came of a capture.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    /// How many frames were read.
    pub frames: u64,
    /// How many of them were not captured whole; what is missing may make them malformed.
    pub cut: u64,
    /// Where and why the file could not be read to its end.
    pub damage: Option<String>,
    /// The interfaces.
    pub ports: Vec<String>,
    /// Those that were passed over.
    pub others: Vec<NotEthernet>,
    /// Blocks of the file that were passed over, since their type is not known.
    pub unknown_blocks: u64,
    /// Who was seen with which address, by address.
    pub claims: Vec<Claim>,
    /// The incidents, the oldest first.
    pub conflicts: Vec<Disputed>,
    /// What the program would have counted.
    pub counters: BridgeCounters,
    /// What broke the rules, by interface and reason.
    pub drops: Vec<Dropped>,
}

/// The frames of one interface that break one rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Dropped {
    /// The interface.
    pub interface: String,
    /// Which rule, as in the metrics.
    pub reason: &'static str,
    /// Frames that were dropped.
    pub dropped: u64,
    /// Frames that passed, since they were only observed.
    pub would_drop: u64,
}

/// An incident, and where it is.
#[derive(Clone, Debug)]
pub(crate) struct Disputed {
    /// The VLAN within its VLAN, 0 where there is none.
    pub inner_vlan: u16,
    /// All else.
    pub conflict: proto::Conflict,
}

/// Replays a file.
///
/// # Errors
/// It is no capture, or one without an interface whose frames are Ethernet.
pub(crate) fn replay(path: &Path, settings: &Settings) -> Result<Report, CaptureError> {
    let ground = survey(path, settings)?;
    let mut replay = Replay::new(settings, &ground);
    let (mut frames, mut cut) = (0, 0);
    let capture = capture::read(path, &settings.port, |packet| {
        frames += 1;
        cut += u64::from(packet.cut);
        replay.frame(&packet);
    })?;
    let drops = replay.drops();
    let (claims, conflicts, counters) = replay.end();
    let Capture { interfaces: ports, others, unknown_blocks, damage } = capture;
    Ok(Report {
        frames,
        cut,
        damage,
        ports,
        others,
        unknown_blocks,
        claims,
        conflicts,
        counters,
        drops,
    })
}

/// The number of the bridge of all interfaces. A provider's customers, told apart by the inner VLAN,
/// are on a link of their own each: as if they were on another bridge.
fn bridge(inner_vlan: u16) -> u32 {
    const BRIDGE: u32 = 1 << 16;
    BRIDGE + u32::from(inner_vlan)
}

/// What has to be known before the first frame.
struct Ground {
    interfaces: Vec<String>,
    ports: Vec<Port>,
    /// VLAN and inner VLAN.
    segments: BTreeSet<(u16, u16)>,
    /// The prefixes, in their segments.
    on_link: BTreeSet<(u16, u16, IpNet)>,
}

/// Reads the file once for the segments and the addresses in it.
fn survey(path: &Path, settings: &Settings) -> Result<Ground, CaptureError> {
    let probe = Port { bridge: bridge(0), kind: PORT_UPLINK, ..Port::zeroed() };
    let (mut segments, mut guesses) = (BTreeSet::new(), BTreeSet::new());
    let capture = capture::read(path, &settings.port, |packet| {
        let parsed = parse(packet.bytes, &probe);
        let Segment { bridge: _, vlan, inner_vlan } = parsed.segment;
        segments.insert((vlan, inner_vlan));
        if let Some(claim) = parsed.claim()
            && claim.strength == STRENGTH_ASSERT
        {
            let around = match claim.key.ip() {
                IpAddr::V4(address) => IpNet::new(address.into(), 24),
                IpAddr::V6(address) => IpNet::new(address.into(), 64),
            };
            guesses.extend(around.map(|net| (vlan, inner_vlan, net.trunc())));
        }
    })?;
    let is_given = |vlan, inner_vlan, given: &OnLink| is_of(given.vlan, (vlan, inner_vlan));
    let mut on_link = BTreeSet::new();
    for (vlan, inner_vlan) in segments.iter().copied() {
        let given = settings.prefixes.iter().filter(|given| is_given(vlan, inner_vlan, given));
        on_link.extend(given.map(|given| (vlan, inner_vlan, given.net.trunc())));
    }
    for (vlan, inner_vlan, net) in guesses {
        let known = |given: &OnLink| {
            is_given(vlan, inner_vlan, given) && given.net.addr().is_ipv4() == net.addr().is_ipv4()
        };
        if !settings.prefixes.iter().any(known) {
            on_link.insert((vlan, inner_vlan, net));
        }
    }
    let port = |(at, name): (usize, &String)| {
        let ifindex = u32::try_from(at).unwrap_or(u32::MAX - 2) + 2;
        state::port(ifindex, name, settings)
    };
    let ports = capture.interfaces.iter().enumerate().map(port).collect();
    Ok(Ground { ports, segments, on_link, interfaces: capture.interfaces })
}

/// Whether what is said of a VLAN, or of all, is said of a segment. Nobody says anything of a
/// customer's alone.
fn is_of(of: Option<u16>, segment: (u16, u16)) -> bool {
    of.is_none_or(|vlan| segment == (vlan, 0))
}

#[cfg(test)]
mod tests;
