//! Which segment a source means. A label names an address and no segment: where several have the
//! address, the port of the container's network namespace tells, or it is not known.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;

use super::{Inner, LiveSet};
use crate::{
    evidence::Evidence,
    inventory::{CONTAINERD, Place},
    segment::Segment,
};

impl LiveSet {
    /// The pools have these prefixes.
    pub fn set_prefixes(&self, prefixes: Vec<(Segment, IpNet)>) {
        *self.prefixes.write() = prefixes;
    }

    /// Whether several segments have an address.
    pub fn is_ambiguous(&self, address: IpAddr) -> bool {
        self.having(address).len() > 1
    }

    fn having(&self, address: IpAddr) -> BTreeSet<Segment> {
        let prefixes = self.prefixes.read();
        let having = prefixes.iter().filter(|(_, prefix)| prefix.contains(&address));
        having.map(|(segment, _)| segment.clone()).collect()
    }

    /// What sources say of an address on a segment.
    pub(super) fn listed_on(&self, segment: &Segment, address: IpAddr) -> Vec<Evidence> {
        let mut all = self.listings.of_address(address);
        let having = if all.is_empty() { BTreeSet::new() } else { self.having(address) };
        if having.len() > 1 && having.contains(segment) {
            let inner = self.inner.read();
            all.retain_mut(|(evidence, place)| match inner.meant(*place, &having) {
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
    pub(super) fn is_listed_on(&self, segment: &Segment, address: IpAddr) -> bool {
        self.listings.names(address)
            && (!self.is_ambiguous(address) || !self.listed_on(segment, address).is_empty())
    }

    /// Something has changed about a link to this namespace: what is listed of containers in it may be
    /// about another segment now. Those whose namespace had no link are asked for anew.
    pub(super) fn look_at_place(&self, netns: Option<i32>) {
        let Some(netns) = netns else { return };
        let addresses = self.listings.addresses_in(netns);
        for address in addresses {
            let having = self.having(address);
            if having.len() > 1 {
                self.changes.tell(|changes| {
                    changes.places.extend(having.into_iter().map(|segment| (segment, address)));
                });
            }
        }
        if self.listings.has_unplaced() {
            self.changes.want(CONTAINERD);
        }
    }
}

impl Inner {
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        clock::Now,
        evidence::{EvidenceView as _, PortName, Source},
        inventory::{Entry, Listing, Unread},
        lease::{Owner, model::Device},
    };

    const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    fn segments() -> [Segment; 3] {
        [Segment::new("rt0", 0), Segment::new("rt1", 0), Segment::new("rt1", 5)]
    }

    fn set() -> LiveSet {
        let set = LiveSet::default();
        let prefix: IpNet = "10.0.0.0/24".parse().unwrap();
        set.set_prefixes(segments().map(|segment| (segment, prefix)).to_vec());
        set
    }

    fn list(set: &LiveSet, name: &str, place: Place) {
        let entry = Entry {
            owner: Owner { sandbox: name.into(), lifecycle: "".into() },
            id: name.into(),
            addresses: vec![ADDRESS],
            labelled: true,
            named: true,
            dead: None,
            detail: "".into(),
            since: jiff::Timestamp::UNIX_EPOCH,
            unread: Unread::default(),
            place,
        };
        let listing = Listing { entries: vec![entry], ..Listing::default() };
        set.listings().take(Source::Inventory, &listing, Now::read());
    }

    fn add_port(set: &LiveSet, ifindex: u32, bridge: &str, netns: i32, vlans: Option<&[u16]>) {
        let name = format!("veth{ifindex}");
        let device = Device { netns: Some(netns), ..Device::default() };
        set.set_link(ifindex, vec![name.clone()], device);
        set.set_port_vlans(ifindex, vlans.map(|vlans| vlans.iter().copied().collect()));
        let (interface, bridge) = (Arc::from(name), Arc::from(bridge));
        set.port_added(ifindex, PortName { interface, bridge, uplink: false });
    }

    /// Where the address is live, and whether that is sure.
    fn live(set: &LiveSet) -> Vec<(Segment, bool)> {
        let on = |segment: Segment| {
            let evidence = set.evidence(&segment, ADDRESS);
            assert_eq!(set.is_live(&segment, ADDRESS), !evidence.is_empty());
            assert_eq!(set.addresses(&segment).contains(&ADDRESS), !evidence.is_empty());
            evidence.first().map(|evidence| (segment, !evidence.unsure))
        };
        segments().into_iter().filter_map(on).collect()
    }

    #[test]
    fn rule_7_the_port_of_the_namespace_tells_which_segment_is_meant() {
        let set = set();
        let [rt0, rt1, rt1_5] = segments();
        list(&set, "a", Place::Netns(7));
        let unsure = segments().map(|segment| (segment, false)).to_vec();
        assert_eq!(live(&set), unsure, "it has no port yet");
        let detail = &set.evidence(&rt0, ADDRESS)[0].detail;
        assert!(detail.ends_with("which of rt0, rt1 or rt1.5 is meant is not known"), "{detail}");

        let _ = set.changes().take(usize::MAX);
        add_port(&set, 3, "rt0", 7, None);
        assert_eq!(live(&set), [(rt0.clone(), true)]);
        let told = set.changes().take(usize::MAX).places;
        assert_eq!(told.len(), 3, "it is looked at everywhere: {told:?}");
        // Another namespace's port is none of it.
        add_port(&set, 4, "rt1", 8, None);
        assert_eq!(live(&set), [(rt0, true)]);
        // With a second one it is not known any more.
        add_port(&set, 5, "rt1", 7, Some(&[5]));
        assert_eq!(live(&set), unsure);
        set.link_ended(3);
        assert_eq!(live(&set), [(rt1_5, true)]);
        // On a bridge that does not filter VLANs a frame can be in any.
        set.set_port_vlans(5, None);
        assert_eq!(live(&set), unsure);
        set.set_port_vlans(5, Some([0, 7].into()));
        assert_eq!(live(&set), [(rt1, true)]);
    }

    #[test]
    fn rule_7_without_a_namespace_it_is_not_known_and_asked_for_with_the_next_port() {
        let set = set();
        list(&set, "a", Place::Unknown);
        assert!(live(&set).iter().all(|(_, sure)| !sure));
        let asked = || {
            let mut wanted = Box::pin(set.changes().wanted(CONTAINERD));
            futures_util::FutureExt::now_or_never(&mut wanted).is_some()
        };
        assert!(!asked());
        add_port(&set, 3, "rt0", 7, None);
        assert!(asked());
        // One segment alone needs no telling.
        set.set_prefixes(vec![(Segment::new("rt0", 0), "10.0.0.0/24".parse().unwrap())]);
        list(&set, "a", Place::Clear);
        assert!(live(&set).iter().all(|(_, sure)| *sure));
        add_port(&set, 4, "rt0", 9, None);
        assert!(!asked());
    }
}
