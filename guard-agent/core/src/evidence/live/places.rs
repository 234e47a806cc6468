//! Which segment a source means. A label names an address and no segment: where several have the
//! address, the port of the container's network namespace tells, or it is not known.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;

use super::{Evidence, Inventory, Live, Now};
use crate::{evidence::Place, segment::Segment};

impl Live {
    /// The pools have these prefixes.
    pub fn set_prefixes(&mut self, prefixes: Vec<(Segment, IpNet)>) {
        self.prefixes = prefixes;
    }

    /// Whether several segments have an address.
    pub fn is_ambiguous(&self, address: IpAddr) -> bool {
        self.having(address).len() > 1
    }

    fn having(&self, address: IpAddr) -> BTreeSet<Segment> {
        let having = self.prefixes.iter().filter(|(_, prefix)| prefix.contains(&address));
        having.map(|(segment, _)| segment.clone()).collect()
    }

    /// What sources say of an address on a segment.
    pub(super) fn listed_on(
        &self,
        inventory: &Inventory,
        segment: &Segment,
        address: IpAddr,
        now: Now,
    ) -> Vec<Evidence> {
        let mut all = inventory.of_address(address, now);
        let having = if all.is_empty() { BTreeSet::new() } else { self.having(address) };
        if having.len() > 1 && having.contains(segment) {
            all.retain_mut(|(evidence, place)| match self.meant(*place, &having) {
                Some(meant) => meant == segment,
                None => {
                    evidence.unsure = true;
                    evidence.detail += &format!("; which of {} is meant is not known", or(&having));
                    true
                }
            });
        }
        all.into_iter().map(|(evidence, _)| evidence).collect()
    }

    /// Whether sources say anything of an address on a segment.
    pub(super) fn is_listed_on(
        &self,
        inventory: &Inventory,
        segment: &Segment,
        address: IpAddr,
    ) -> bool {
        let mut places = inventory.places(address).peekable();
        if places.peek().is_none() {
            return false;
        }
        let having = self.having(address);
        let is_here = |place| self.meant(place, &having).is_none_or(|meant| meant == segment);
        having.len() < 2 || !having.contains(segment) || places.any(is_here)
    }

    /// Where the listed addresses of what is in a network namespace can be, as far as that is several
    /// segments.
    pub fn places_in(&self, inventory: &Inventory, netns: i32) -> Vec<(Segment, IpAddr)> {
        let mut places = Vec::new();
        for address in inventory.addresses_in(netns) {
            let having = self.having(address);
            if having.len() > 1 {
                places.extend(having.into_iter().map(|segment| (segment, address)));
            }
        }
        places
    }

    /// Which of these segments a container is on, where its ports leave one.
    fn meant<'a>(&self, place: Place, having: &'a BTreeSet<Segment>) -> Option<&'a Segment> {
        let Place::Netns(netns) = place else { return None };
        let links = self.by_netns.get(&netns)?;
        let is_on = |segment: &&Segment| {
            links.iter().any(|ifindex| {
                let vlans = self.port_vlans.get(ifindex);
                self.ports.get(ifindex).is_some_and(|port| port.bridge == segment.bridge)
                    && vlans.is_none_or(|vlans| vlans.contains(&segment.vlan))
            })
        };
        let mut on = having.iter().filter(is_on);
        on.next().filter(|_| on.next().is_none())
    }
}

/// `rt0, rt0.5 or rt1`.
fn or(segments: &BTreeSet<Segment>) -> String {
    let names: Vec<_> = segments.iter().map(ToString::to_string).collect();
    match names.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => String::new(),
    }
}
