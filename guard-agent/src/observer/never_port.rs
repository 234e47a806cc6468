//! Which interfaces can be no port of a bridge, by what they are now.

use crate::network::topology::Topology;

/// The kernel gives the loopback device this number in each namespace (`LOOPBACK_IFINDEX`).
const LOOPBACK: u32 = 1;

/// What keeps a link from becoming a port of a bridge; none where nothing does.
pub fn obstacle(topology: &Topology, ifindex: u32, bridge: &str) -> Option<String> {
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

    use guard_core::evidence::Device;

    use super::*;
    use crate::network::{Dump, Flow, Link};

    fn link(ifindex: u32, name: &str, controller: Option<u32>) -> Link {
        Link {
            ifindex,
            name: name.to_owned(),
            alternative: Vec::new(),
            controller,
            kind: Some("veth".to_owned()),
            is_bridge: name.starts_with("br"),
            vlan_filter: None,
            spans: false,
            vlan: None,
            lower: None,
            is_vrf: name.starts_with("vrf"),
            mac: None,
            device: Device::default(),
            running: true,
            flow: Flow::default(),
            unreadable: false,
        }
    }

    #[test]
    fn what_is_something_else_can_be_no_port() {
        let mut topology = Topology::new([("br0".into(), BTreeSet::new())].into());
        topology.reset(Dump {
            links: vec![
                link(1, "renamed-lo", None),
                link(2, "br0", None),
                link(3, "br1", None),
                link(4, "vrf0", None),
                link(5, "ours", Some(2)),
                link(6, "theirs", Some(3)),
                link(7, "free", None),
                Link { vlan: Some((2, 5)), ..link(8, "br0-5", None) },
                Link { lower: Some(2), ..link(9, "shim", None) },
                Link { vlan: Some((3, 5)), ..link(10, "v5", None) },
            ],
            ..Dump::default()
        });
        let never = |ifindex| obstacle(&topology, ifindex, "br0").is_some();
        let never: Vec<_> = (0..=11).filter(|ifindex| never(*ifindex)).collect();
        assert_eq!(never, [1, 2, 3, 4, 6, 8, 9]);
        assert_eq!(obstacle(&topology, 6, "br0").unwrap(), "it belongs to \"br1\"");
    }
}
