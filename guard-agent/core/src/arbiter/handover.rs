//! Hand-overs: addresses that have a new holder, of whom their neighbours do not know yet.
//!
//! Whoever has talked to an address keeps its last holder's MAC in a neighbour table, for half a
//! minute without any doubt. So each declared holder is announced, once for every generation, MAC
//! and port that it is bound to, and not before its port forwards. A binding that leaves the MAC or
//! the port open is announced with the first claim that it allows. What was only learned from frames
//! is not: guard would vouch for whoever spoke first.

use std::{collections::BTreeMap, net::IpAddr};

use crate::{evidence::Station, lease::Generation, mac::Mac, segment::Segment};

type Place = (Segment, IpAddr);

/// Who may use an address, as far as it is declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Of the lease.
    pub generation: Generation,
    /// The MAC, where it is declared.
    pub mac: Option<Mac>,
    /// The ifindex of the port, where that is declared; 0 for a port that does not exist yet.
    pub port: Option<u32>,
}

/// An address, and who has it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handover {
    /// The segment.
    pub segment: Segment,
    /// The address.
    pub address: IpAddr,
    /// The new holder's MAC.
    pub mac: Mac,
    /// Its port.
    pub ifindex: u32,
}

/// Those that are not announced yet.
#[derive(Debug, Default)]
pub struct Handovers {
    /// Whose MAC and port are known: they wait for the port.
    known: BTreeMap<Place, (Mac, u32)>,
    /// Whose binding leaves one of the two open: they wait for a claim.
    open: BTreeMap<Place, Bound>,
}

impl Handovers {
    /// The binding of an address was `old` and is `new`.
    pub fn bound(&mut self, place: &Place, old: Option<Bound>, new: Option<Bound>) {
        if old == new {
            return;
        }
        self.forget(place);
        let Some(bound) = new else { return };
        match (bound.mac, bound.port) {
            // Told anew when the port exists.
            (_, Some(0)) | (None, None) => {}
            (Some(mac), Some(ifindex)) => drop(self.known.insert(place.clone(), (mac, ifindex))),
            (Some(_), None) | (None, Some(_)) => drop(self.open.insert(place.clone(), bound)),
        }
    }

    /// A station claims an address. True if that is what the binding has left open.
    pub fn heard(&mut self, place: &Place, station: &Station) -> bool {
        let Station { mac, ifindex, interface: _ } = station;
        let allows = self.open.get(place).is_some_and(|bound| {
            bound.mac.is_none_or(|bound| bound == *mac)
                && bound.port.is_none_or(|bound| bound == *ifindex)
        });
        if allows {
            self.open.remove(place);
            self.known.insert(place.clone(), (*mac, *ifindex));
        }
        allows
    }

    /// Nobody is to be told of this address any more.
    pub fn forget(&mut self, place: &Place) {
        self.known.remove(place);
        self.open.remove(place);
    }

    /// All that was to be told is known, or of no use any more.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Whether somebody waits for a port.
    pub fn waits(&self) -> bool {
        !self.known.is_empty()
    }

    /// Takes out those whose port is ready: now is the time.
    pub fn take(&mut self, is_ready: impl Fn(u32) -> bool) -> Vec<Handover> {
        let ready = self.known.extract_if(.., |_, (_, ifindex)| is_ready(*ifindex));
        ready
            .map(|((segment, address), (mac, ifindex))| Handover { segment, address, mac, ifindex })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);

    fn place() -> Place {
        (Segment::new("br0", 0), IpAddr::from([10, 0, 0, 2]))
    }

    fn bound(generation: u64, mac: Option<Mac>, port: Option<u32>) -> Option<Bound> {
        Some(Bound { generation, mac, port })
    }

    fn station(mac: Mac, ifindex: u32) -> Station {
        Station { mac, interface: "veth".into(), ifindex }
    }

    fn taken(handovers: &mut Handovers, ready: &[u32]) -> Vec<(Mac, u32)> {
        let taken = handovers.take(|ifindex| ready.contains(&ifindex));
        taken.into_iter().map(|handover| (handover.mac, handover.ifindex)).collect()
    }

    #[test]
    fn a_holder_is_announced_once_and_not_before_its_port_is_ready() {
        let (mut handovers, place) = (Handovers::default(), place());
        let first = bound(1, Some(MAC), Some(7));
        handovers.bound(&place, None, first);
        assert_eq!(taken(&mut handovers, &[8]), []);
        assert_eq!(taken(&mut handovers, &[7]), [(MAC, 7)]);
        assert_eq!(taken(&mut handovers, &[7]), []);
        // What changes nothing of it is no hand-over; the next generation is one, and so is a port.
        handovers.bound(&place, first, first);
        assert_eq!(taken(&mut handovers, &[7]), []);
        handovers.bound(&place, first, bound(2, Some(MAC), Some(7)));
        assert_eq!(taken(&mut handovers, &[7]), [(MAC, 7)]);
        handovers.bound(&place, bound(2, Some(MAC), Some(7)), bound(2, Some(MAC), Some(8)));
        assert_eq!(taken(&mut handovers, &[7, 8]), [(MAC, 8)]);
    }

    #[test]
    fn a_holder_that_has_gone_before_its_port_was_ready_is_not_announced() {
        let (mut handovers, place) = (Handovers::default(), place());
        let first = bound(1, Some(MAC), Some(7));
        handovers.bound(&place, None, first);
        handovers.bound(&place, first, None);
        assert_eq!(taken(&mut handovers, &[7]), []);
        handovers.bound(&place, None, first);
        handovers.forget(&place);
        assert_eq!(taken(&mut handovers, &[7]), []);
    }

    #[test]
    fn what_the_binding_leaves_open_the_first_claim_that_it_allows_says() {
        let (mut handovers, place) = (Handovers::default(), place());
        let other = Mac([2, 0, 0, 0, 0, 2]);
        handovers.bound(&place, None, bound(1, None, Some(7)));
        assert!(!handovers.heard(&place, &station(MAC, 8)), "another port");
        assert!(handovers.heard(&place, &station(MAC, 7)));
        assert!(!handovers.heard(&place, &station(other, 7)), "once, whatever it claims next");
        assert_eq!(taken(&mut handovers, &[7]), [(MAC, 7)]);
        handovers.bound(&place, None, bound(2, Some(MAC), None));
        assert!(!handovers.heard(&place, &station(other, 9)), "another MAC");
        assert!(handovers.heard(&place, &station(MAC, 9)));
        assert_eq!(taken(&mut handovers, &[9]), [(MAC, 9)]);
        // Nothing is declared, or the port is yet to come: whoever speaks is not vouched for.
        for nobody in [None, bound(3, None, None), bound(3, Some(MAC), Some(0))] {
            handovers.bound(&place, bound(2, Some(MAC), None), nobody);
            assert!(!handovers.heard(&place, &station(MAC, 9)));
            assert_eq!(taken(&mut handovers, &[0, 9]), []);
        }
    }
}
