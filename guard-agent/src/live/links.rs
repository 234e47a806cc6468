//! The links of the namespace: their names, and where their other ends are.

use std::collections::BTreeSet;

use super::{Link, LiveSet};
use crate::lease::model::Device;

impl LiveSet {
    /// A link exists, with these names.
    pub fn set_link(&self, ifindex: u32, names: Vec<String>, device: Device) {
        let before = {
            let inner = &mut *self.inner.write();
            let before = inner.netns(ifindex);
            inner.set_link(ifindex, Link { names, device });
            before
        };
        if before != device.netns {
            self.look_at_place(before);
            self.look_at_place(device.netns);
        }
    }

    /// A port is in these VLANs, where its bridge filters them.
    pub fn set_port_vlans(&self, ifindex: u32, vlans: Option<BTreeSet<u16>>) {
        let netns = {
            let inner = &mut *self.inner.write();
            match vlans {
                Some(vlans) => inner.port_vlans.insert(ifindex, vlans),
                None => inner.port_vlans.remove(&ifindex),
            };
            inner.netns(ifindex)
        };
        self.look_at_place(netns);
    }

    /// A link was found to have this name as well, before any notice of it.
    pub fn add_name(&self, ifindex: u32, name: &str) {
        let inner = &mut *self.inner.write();
        let mut link = inner.links.get(&ifindex).cloned().unwrap_or_default();
        link.names.push(name.to_owned());
        inner.set_link(ifindex, link);
    }

    /// There are these links and no others. Those that were there before have been ended.
    pub fn set_links(&self, links: impl IntoIterator<Item = (u32, Vec<String>, Device)>) {
        let (before, after) = {
            let inner = &mut *self.inner.write();
            let before = std::mem::take(&mut inner.by_netns);
            inner.links.clear();
            inner.names.clear();
            for (ifindex, names, device) in links {
                inner.set_link(ifindex, Link { names, device });
            }
            (before, inner.by_netns.clone())
        };
        for netns in before.keys().chain(after.keys()) {
            if before.get(netns) != after.get(netns) {
                self.look_at_place(Some(*netns));
            }
        }
    }
}
