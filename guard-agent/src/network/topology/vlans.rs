//! The VLANs of ports, as the configuration names them.
//!
//! What it calls VLAN 0 is untagged: on a bridge that filters VLANs that is its `vlan_default_pvid`,
//! which is called 0 here and by the program, unless the configuration names it otherwise.

use std::collections::BTreeSet;

use super::Topology;
use crate::network::{Link, PortVlans, VlanFilter};

impl Topology {
    /// The VLANs of a port of a bridge, or of the bridge itself, if that filters them. A port of which
    /// nothing was reported is in none.
    pub(super) fn vlans_of(&self, link: &Link, bridge: &Link) -> Option<PortVlans> {
        let VlanFilter { provider, default_pvid } = bridge.vlan_filter?;
        let named = self.watched.get(&*bridge.name);
        let is_called_0 = named.is_some_and(|ids| ids.contains(&0) && !ids.contains(&default_pvid));
        let native = if is_called_0 { default_pvid } else { 0 };
        let known = self.vlans.get(&link.ifindex).cloned().unwrap_or_default();
        let all = |ids: BTreeSet<u16>| ids.into_iter().map(|id| called(id, native)).collect();
        Some(PortVlans {
            untagged: known.untagged.map(|id| called(id, native)),
            member: all(known.member),
            bare: all(known.bare),
            provider,
            native,
            unreadable: known.unreadable,
        })
    }

    /// Whether a link is a port of a bridge that filters VLANs, and nothing was reported yet of its own.
    pub(crate) fn lacks_vlans(&self, ifindex: u32) -> bool {
        let bridge = self.links.get(&ifindex).and_then(|link| self.links.get(&link.controller?));
        bridge.is_some_and(|bridge| bridge.vlan_filter.is_some())
            && !self.vlans.contains_key(&ifindex)
    }
}

/// What a VLAN is called where one of them is called 0.
pub(in crate::network) const fn called(id: u16, native: u16) -> u16 {
    if id == native { 0 } else { id }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::{
        super::tests::{link, topology},
        *,
    };
    use crate::network::Notice;

    #[test]
    fn vlan_0_of_the_configuration_is_the_bridges_default_pvid() {
        let named = |ids: &[u16]| {
            let mut topology = topology();
            topology.watched = [("br0".into(), ids.iter().copied().collect())].into();
            topology
        };
        let bridge = |default_pvid| Link {
            vlan_filter: Some(VlanFilter { default_pvid, provider: true }),
            ..link(2, "br0", None)
        };
        let vlans = |id| PortVlans {
            untagged: Some(id),
            member: BTreeSet::from([id, 7]),
            bare: BTreeSet::from([id]),
            ..PortVlans::default()
        };
        for (ids, called) in
            [(&[0, 7][..], [0, 0]), (&[7], [1, 5]), (&[0, 5], [0, 5]), (&[], [1, 5])]
        {
            let mut topology = named(ids);
            for (id, called) in [1, 5].into_iter().zip(called) {
                topology.apply(Notice::Link(bridge(id)));
                for ifindex in [2, 4] {
                    topology.apply(Notice::Port(ifindex, vlans(id), None));
                }
                let view = topology.view();
                let native = if called == 0 { id } else { 0 };
                let expected = PortVlans { native, provider: true, ..vlans(called) };
                assert_eq!(view.ports[&4].vlans, Some(expected), "{ids:?} {id}");
                assert_eq!(view.bridges["br0"].carried, BTreeSet::from([called, 7]));
                let own = (called, IpAddr::from([10, 0, 0, 1]));
                assert_eq!(view.bridges["br0"].addresses, BTreeSet::from([own]), "{ids:?} {id}");
            }
            // It filters no more.
            topology.apply(Notice::Link(link(2, "br0", None)));
            assert_eq!(topology.view().ports[&4].vlans, None);
        }
        // A new bridge without a VLAN for untagged frames: nobody reaches the host's addresses on it.
        let mut topology = named(&[0]);
        topology.apply(Notice::Link(bridge(0)));
        topology.apply(Notice::Port(4, PortVlans::default(), None));
        let bridge = topology.view().bridges["br0"].clone();
        assert!(bridge.carried.is_empty() && bridge.addresses.is_empty(), "{bridge:?}");
    }
}
