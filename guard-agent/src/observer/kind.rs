//! What a port leads to, and how that is known (claims.md, "ports").

use std::sync::Arc;

use crate::{
    config::Bridge,
    network::topology::{Port, PortDevice},
};

/// What a port leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PortKind {
    /// To a sandbox.
    Access,
    /// To other hosts.
    Uplink,
    /// Nobody has said: judged as an uplink.
    Unknown,
}

/// What a port leads to, and why that is thought. What the configuration names, it decides.
pub(super) fn kind(bridge: Option<&Bridge>, port: &Port) -> (PortKind, Arc<str>) {
    let names = |of: fn(&Bridge) -> &[Arc<str>]| {
        bridge.is_some_and(|bridge| of(bridge).contains(&port.interface))
    };
    if names(|bridge| &bridge.uplinks) {
        return (PortKind::Uplink, "uplinks names it".into());
    }
    if names(|bridge| &bridge.access) {
        return (PortKind::Access, "access names it".into());
    }
    match &port.device {
        PortDevice::Tap => (PortKind::Access, "it is a tap".into()),
        PortDevice::Veth => (PortKind::Access, "it is a veth".into()),
        PortDevice::Other(what) => {
            let why = format!("it is {what}: name it in uplinks or in access");
            (PortKind::Unknown, why.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::Flow;

    fn port(device: PortDevice) -> Port {
        Port {
            interface: "eth1".into(),
            bridge: "rt0".into(),
            bridge_ifindex: 2,
            running: true,
            device,
            vlans: None,
            flow: Flow::default(),
            unreadable: false,
        }
    }

    #[test]
    fn what_is_named_is_what_it_is_named_and_the_rest_is_by_its_device() {
        let physical = || PortDevice::Other("a physical device".into());
        let bridge = |uplinks: &[&str], access: &[&str]| {
            let names = |names: &[&str]| names.iter().map(|name| Arc::from(*name)).collect();
            let (prefixes, allow, exceptions, homes, enforcement) = Default::default();
            let (uplinks, access) = (names(uplinks), names(access));
            Bridge {
                name: "rt0".into(),
                uplinks,
                access,
                prefixes,
                allow,
                exceptions,
                homes,
                enforcement,
            }
        };
        for (uplinks, access, device, expected) in [
            (&[][..], &[][..], PortDevice::Tap, PortKind::Access),
            (&[], &[], PortDevice::Veth, PortKind::Access),
            (&[], &[], physical(), PortKind::Unknown),
            (&["eth0"], &["eth2"], physical(), PortKind::Unknown),
            (&["eth1"], &[], physical(), PortKind::Uplink),
            (&["eth1"], &[], PortDevice::Veth, PortKind::Uplink),
            (&[], &["eth1"], physical(), PortKind::Access),
        ] {
            let (is, why) = kind(Some(&bridge(uplinks, access)), &port(device.clone()));
            assert_eq!(is, expected, "{uplinks:?} {access:?} {device:?}: {why}");
        }
    }
}
