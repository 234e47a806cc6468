//! Recorded frames through the program's own decision function: what was claimed, and by whom else.
//!
//! A capture knows less than a kernel does: not which prefixes are on the link, not when a port came
//! or went, and mostly not from which port a frame came. Unless it is told that each interface was
//! captured in one direction, an interface is taken for an uplink, behind which everybody is: another
//! MAC for an address is another host. What says so, or cannot be known from frames, is an argument.

mod capture;
mod state;
mod world;

use std::{collections::BTreeSet, net::IpAddr, path::Path};

use bytemuck::Zeroable as _;
use guard_api::proto;
use guard_ebpf::{
    abi::{AddressKey, BridgeCounters, PORT_UPLINK, Port, STRENGTH_ASSERT},
    address::Segment,
    frame::parse,
};
use ipnet::IpNet;
use jiff::Timestamp;

pub use capture::CaptureError;
use guard_core::mac::Mac;
use state::Replay;

/// What a capture does not say.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The prefixes on the link. Without any: the /24 and the /64 of each address of which ARP or
    /// neighbour discovery speaks.
    pub prefixes: Vec<IpNet>,
    /// The gateways, with their MAC where it is known.
    pub gateways: Vec<(IpAddr, Option<Mac>)>,
    /// The interface, where the file does not name it.
    pub port: String,
    /// The frames of each interface are those that it delivered, and no others: each is the port of
    /// one sandbox.
    pub ingress: bool,
    /// The interfaces that are uplinks all the same.
    pub uplinks: Vec<String>,
}

/// Who was seen with an address.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The address.
    pub address: IpAddr,
    /// Its VLAN, 0 for untagged.
    pub vlan: u16,
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
pub struct Report {
    /// How many frames were read.
    pub frames: u64,
    /// How many of them were not captured whole; what is missing may make them malformed.
    pub cut: u64,
    /// Where and why the file could not be read to its end.
    pub damage: Option<String>,
    /// The interfaces.
    pub ports: Vec<String>,
    /// Who was seen with which address, by address.
    pub claims: Vec<Claim>,
    /// The incidents, the oldest first.
    pub conflicts: Vec<proto::Conflict>,
    /// What the program would have counted.
    pub counters: BridgeCounters,
}

/// Replays a file.
///
/// # Errors
/// It is no capture of Ethernet frames.
pub fn replay(path: &Path, settings: &Settings) -> Result<Report, CaptureError> {
    let ground = survey(path, settings)?;
    let mut replay = Replay::new(settings, &ground);
    let (mut frames, mut cut) = (0, 0);
    let capture = capture::read(path, &settings.port, |packet| {
        frames += 1;
        cut += u64::from(packet.cut);
        replay.frame(&packet);
    })?;
    let (claims, conflicts, counters) = replay.end();
    let (ports, damage) = (capture.interfaces, capture.damage);
    Ok(Report { frames, cut, damage, ports, claims, conflicts, counters })
}

/// The bridge of all interfaces, which has no other name.
const BRIDGE: u32 = 1;

/// What has to be known before the first frame.
struct Ground {
    interfaces: Vec<String>,
    ports: Vec<Port>,
    segments: BTreeSet<(u16, u16)>,
    /// The prefixes, in their segments.
    prefixes: BTreeSet<(AddressKey, u32)>,
}

/// Reads the file once for the segments and the addresses in it.
fn survey(path: &Path, settings: &Settings) -> Result<Ground, CaptureError> {
    let probe = Port { bridge: BRIDGE, kind: PORT_UPLINK, ..Port::zeroed() };
    let (mut segments, mut prefixes) = (BTreeSet::new(), BTreeSet::new());
    let capture = capture::read(path, &settings.port, |packet| {
        let parsed = parse(packet.bytes, &probe);
        let Segment { bridge: _, vlan, inner_vlan } = parsed.segment;
        if segments.insert((vlan, inner_vlan)) {
            let net = |net: &IpNet| prefix(vlan, inner_vlan, *net);
            prefixes.extend(settings.prefixes.iter().map(net));
        }
        if let Some(claim) = parsed.claim()
            && settings.prefixes.is_empty()
            && claim.strength == STRENGTH_ASSERT
        {
            let around = match claim.key.ip() {
                IpAddr::V4(address) => IpNet::new(address.into(), 24),
                IpAddr::V6(address) => IpNet::new(address.into(), 64),
            };
            prefixes.extend(around.map(|net| prefix(vlan, inner_vlan, net.trunc())));
        }
    })?;
    let port = |(at, name): (usize, &String)| {
        let uplink = !settings.ingress || settings.uplinks.contains(name);
        let ifindex = u32::try_from(at).unwrap_or(u32::MAX - 2) + 2;
        state::port(ifindex, uplink)
    };
    let ports = capture.interfaces.iter().enumerate().map(port).collect();
    Ok(Ground { ports, segments, prefixes, interfaces: capture.interfaces })
}

fn prefix(vlan: u16, inner_vlan: u16, net: IpNet) -> (AddressKey, u32) {
    let key = AddressKey { inner_vlan, ..AddressKey::new(BRIDGE, vlan, net.network()) };
    (key, key.prefix_len(net.prefix_len()))
}

#[cfg(test)]
mod tests;
