//! Which interfaces can be no port of a bridge, by what they are now.

use crate::network::topology::Topology;

/// The kernel gives the loopback device this number in each namespace (`LOOPBACK_IFINDEX`).
const LOOPBACK: u32 = 1;

/// What keeps a link from becoming a port of a bridge; none where nothing does.
pub(super) fn obstacle(topology: &Topology, ifindex: u32, bridge: &str) -> Option<String> {
    let link = topology.link(ifindex)?;
    let name = |ifindex| topology.link(ifindex).map(|link| link.name.as_str());
    let below = link.vlan.map(|(of, _)| of).or(link.lower);
    match link.controller.map(name) {
        _ if ifindex == LOOPBACK => Some("it is the loopback device".to_owned()),
        _ if link.is_bridge => Some("it is a bridge itself".to_owned()),
        _ if link.is_vrf => Some("it is a VRF".to_owned()),
        _ if below.and_then(name) == Some(bridge) => {
            Some("it is a device of the host on that bridge".to_owned())
        }
        Some(Some(other)) if other != bridge => Some(format!("it belongs to {other:?}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::network::{Dump, Link};

    #[test]
    fn what_is_something_else_can_be_no_port() {
        let mut topology = Topology::new([("br0".into(), BTreeSet::new())].into());
        topology.reset(Dump {
            links: vec![
                Link::veth(1, "renamed-lo", None),
                Link::veth(2, "br0", None),
                Link::veth(3, "br1", None),
                Link { is_vrf: true, ..Link::veth(4, "vrf0", None) },
                Link::veth(5, "ours", Some(2)),
                Link::veth(6, "theirs", Some(3)),
                Link::veth(7, "free", None),
                Link { vlan: Some((2, 5)), ..Link::veth(8, "br0-5", None) },
                Link { lower: Some(2), ..Link::veth(9, "shim", None) },
                Link { vlan: Some((3, 5)), ..Link::veth(10, "v5", None) },
            ],
            ..Dump::default()
        });
        let never = |ifindex| obstacle(&topology, ifindex, "br0").is_some();
        let never: Vec<_> = (0..=11).filter(|ifindex| never(*ifindex)).collect();
        assert_eq!(never, [1, 2, 3, 4, 6, 8, 9]);
        assert_eq!(obstacle(&topology, 6, "br0").unwrap(), "it belongs to \"br1\"");
    }
}
