//! Facts, the arbiter's other input, and the trait by which its effects are carried out.

use std::{net::IpAddr, sync::Arc};

use super::{Effect, Event, Moment};
use crate::{
    evidence::{Claim, PortName, Station},
    incident::{Claimant, Kind, Role, Target},
    lease::{Generation, model::Binding},
    mac::Mac,
    owner::Owner,
    segment::Segment,
    time::Now,
};

/// What is known, looked up in memory without a system call.
pub trait Facts {
    /// The name and the MAC of a watched bridge, by its ifindex.
    fn bridge(&self, ifindex: u32) -> Option<(Arc<str>, Mac)>;

    /// The ifindex and the MAC of a watched bridge, by its name.
    fn bridge_named(&self, name: &str) -> Option<(u32, Mac)>;

    /// The port of a watched bridge with this ifindex.
    fn port(&self, ifindex: u32) -> Option<PortName>;

    /// The lease that holds an address.
    fn holder(&self, segment: &Segment, address: IpAddr) -> Option<Holder>;

    /// Whether an address is a gateway's or the host's, which no port may claim.
    fn is_reserved(&self, segment: &Segment, address: IpAddr) -> bool;

    /// Whether a declared binding names this MAC on this port.
    fn is_bound(&self, ifindex: u32, mac: Mac) -> bool;

    /// Whether a declared binding names this port.
    fn has_declared(&self, ifindex: u32) -> bool;

    /// Whether a gateway's address is live at this MAC on this port of a bridge, where it is at home.
    fn is_gateway(&self, bridge: &str, ifindex: u32, mac: Mac) -> bool;

    /// Who is known to be behind a port.
    fn behind(&self, ifindex: u32) -> Option<Owner>;

    /// The allow rule that leaves an address to those whom it names.
    fn rule(&self, segment: &Segment, address: IpAddr) -> Option<Rule>;

    /// Whether the segment has prefixes of an address's family, and it is in none of them.
    fn is_off_prefix(&self, segment: &Segment, address: IpAddr) -> bool;

    /// Whether this MAC is live with an address behind this port.
    fn lives(&self, segment: &Segment, address: IpAddr, mac: Mac, ifindex: u32) -> bool;

    /// An address that this MAC is live with behind this port.
    fn address_of(&self, mac: Mac, ifindex: u32) -> Option<(Segment, IpAddr)>;

    /// Whether the host has this MAC on a bridge: the bridge's own, or a device's on it.
    fn is_host_mac(&self, bridge: u32, mac: Mac) -> bool;

    /// Whether the host has this MAC on a device beside its bridges, by which it may be on the segment too.
    fn is_beside(&self, mac: Mac) -> bool;

    /// Who claims an address, as far as that is evidence.
    fn claims(&self, segment: &Segment, address: IpAddr) -> Vec<Claim>;

    /// Whether the host itself has an address, on the bridge or, of IPv4, on another device.
    fn is_host(&self, segment: &Segment, address: IpAddr) -> bool;

    /// The MAC of the macvlan over the bridge, in another network namespace, that has an address.
    fn above(&self, _segment: &Segment, _address: IpAddr) -> Option<Mac> {
        None
    }

    /// The host's address in whose name a station is asked for one.
    fn sender(&self, segment: &Segment, address: IpAddr) -> Option<IpAddr>;

    /// Whether stations can be asked anything.
    fn can_ask(&self) -> bool;

    /// The sandbox that a station is by a declared binding, whatever the address of that.
    fn sandbox(&self, station: &Station) -> Option<Owner>;

    /// Whether an allow rule lets a station claim an address.
    fn is_allowed(&self, segment: &Segment, address: IpAddr, station: &Station) -> bool;

    /// Whether an allow rule has a virtual router behind this port.
    fn is_virtual_router(&self, segment: &Segment, interface: &str) -> bool;

    /// The kind of the incident that is open about an address or a MAC.
    fn incident(&self, segment: &Segment, target: Target) -> Option<Kind>;
}

/// Who carries effects out.
pub trait Hands: Facts {
    /// What time it is.
    fn now(&self) -> Moment;

    /// Does what an effect says. Returns the answer, if it is a question.
    fn carry_out(&mut self, effect: Effect) -> Option<Event>;
}

/// What an allow rule says of an address that it leaves to others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The one port that it names, if it names one.
    pub port: Option<Arc<str>>,
    /// It is a virtual router's: one port has it at a time.
    pub is_virtual: bool,
}

/// A lease, as far as frames are concerned.
#[derive(Clone, Debug, PartialEq)]
pub struct Holder {
    /// Who has it.
    pub owner: Owner,
    /// Which lease.
    pub generation: Generation,
    /// Who may use it.
    pub binding: Binding,
}

impl Holder {
    /// Whether the binding names this station.
    pub fn allows(&self, station: &Station) -> bool {
        self.binding.allows(station)
    }

    /// The owner's side of an incident.
    pub fn claimant(&self, now: Now) -> Claimant {
        let Binding { mac, interface, ifindex, .. } = self.binding.clone();
        let owner = Some(self.owner.clone());
        Claimant { mac, interface, ifindex, owner, ..Claimant::new(Role::Owner, now) }
    }
}
