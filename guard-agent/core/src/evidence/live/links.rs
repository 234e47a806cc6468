//! The links of the namespace and the ports among them: names, VLANs, and where their other ends are.
//!
//! What returns network namespaces has changed a link to them: containers in them may be on another
//! segment now.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use super::{Device, Live, PortName};
use crate::segment::Segment;

/// A link of the namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Link {
    /// Its name, and alternative ones.
    names: Vec<String>,
    device: Device,
}

impl Live {
    /// A port exists, or has another name now.
    pub fn port_added(&mut self, ifindex: u32, port: PortName) -> Option<i32> {
        self.forget_name(ifindex);
        let name = (port.bridge.clone(), port.interface.clone());
        self.port_names.insert(name, ifindex);
        self.ports.insert(ifindex, port);
        self.netns(ifindex)
    }

    /// A port has left its bridge. What was claimed behind it stays until its link ends: it may come
    /// back, and whoever is behind it has the address still. Returns those addresses too.
    pub fn port_left(&mut self, ifindex: u32) -> (Option<i32>, Vec<(Segment, IpAddr)>) {
        self.forget_name(ifindex);
        self.ports.remove(&ifindex);
        let claimed = self.by_port.get(&ifindex).into_iter().flatten().cloned().collect();
        (self.netns(ifindex), claimed)
    }

    /// A link has ended, and with it all that was claimed behind it. Returns those addresses too. The
    /// next link with this ifindex is another one.
    pub fn link_ended(&mut self, ifindex: u32) -> (Option<i32>, Vec<(Segment, IpAddr)>) {
        let netns = self.netns(ifindex);
        self.forget_name(ifindex);
        self.ports.remove(&ifindex);
        self.port_vlans.remove(&ifindex);
        self.replace_link(ifindex, Link::default());
        let keys = self.by_port.remove(&ifindex).unwrap_or_default();
        for key in &keys {
            self.withdraw_key(key, ifindex);
        }
        (netns, keys.into_iter().collect())
    }

    /// A link exists, with these names.
    pub fn set_link(&mut self, ifindex: u32, names: Vec<String>, device: Device) -> Vec<i32> {
        let before = self.netns(ifindex);
        self.replace_link(ifindex, Link { names, device });
        if before == device.netns {
            return Vec::new();
        }
        before.into_iter().chain(device.netns).collect()
    }

    /// A port is in these VLANs, where its bridge filters them.
    pub fn set_port_vlans(&mut self, ifindex: u32, vlans: Option<BTreeSet<u16>>) -> Option<i32> {
        match vlans {
            Some(vlans) => self.port_vlans.insert(ifindex, vlans),
            None => self.port_vlans.remove(&ifindex),
        };
        self.netns(ifindex)
    }

    /// A link was found to have this name as well, before any notice of it.
    pub fn add_name(&mut self, ifindex: u32, name: &str) {
        let mut link = self.links.get(&ifindex).cloned().unwrap_or_default();
        link.names.push(name.to_owned());
        self.replace_link(ifindex, link);
    }

    /// There are these links and no others. Those that were there before have been ended.
    pub fn set_links(
        &mut self,
        links: impl IntoIterator<Item = (u32, Vec<String>, Device)>,
    ) -> Vec<i32> {
        let before = std::mem::take(&mut self.by_netns);
        self.links.clear();
        self.names.clear();
        for (ifindex, names, device) in links {
            self.replace_link(ifindex, Link { names, device });
        }
        let after = &self.by_netns;
        let all: BTreeSet<_> = before.keys().chain(after.keys()).copied().collect();
        all.into_iter().filter(|netns| before.get(netns) != after.get(netns)).collect()
    }

    /// Whether a link with this ifindex exists.
    pub fn port_exists(&self, ifindex: u32) -> bool {
        self.links.contains_key(&ifindex) || self.ports.contains_key(&ifindex)
    }

    /// The port of a watched bridge with this ifindex.
    pub fn port(&self, ifindex: u32) -> Option<PortName> {
        self.ports.get(&ifindex).cloned()
    }

    /// The name that a link has now, a port of a watched bridge or not.
    pub fn name_now(&self, ifindex: u32) -> Option<Arc<str>> {
        let port = self.ports.get(&ifindex).map(|port| Arc::clone(&port.interface));
        let link = || self.links.get(&ifindex)?.names.first().map(|name| name.as_str().into());
        port.or_else(link)
    }

    /// The port of a bridge that has this name now.
    pub fn port_named(&self, bridge: &str, interface: &str) -> Option<u32> {
        self.port_names.get(&(bridge.into(), interface.into())).copied()
    }

    /// What a link is known by over a restart.
    pub fn device(&self, ifindex: u32) -> Option<Device> {
        self.links.get(&ifindex).map(|link| link.device)
    }

    /// Whether an interface of the namespace has this name, or this alternative name.
    pub fn link_exists(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    /// The namespace at a link's other end.
    fn netns(&self, ifindex: u32) -> Option<i32> {
        self.links.get(&ifindex)?.device.netns
    }

    /// Replaces a link; one without a name is gone.
    fn replace_link(&mut self, ifindex: u32, link: Link) {
        let before = self.links.remove(&ifindex).unwrap_or_default();
        if let Some(netns) = before.device.netns
            && let Some(links) = self.by_netns.get_mut(&netns)
        {
            links.remove(&ifindex);
            if links.is_empty() {
                self.by_netns.remove(&netns);
            }
        }
        if let Some(netns) = link.device.netns.filter(|_| !link.names.is_empty()) {
            self.by_netns.entry(netns).or_default().insert(ifindex);
        }
        for name in before.names {
            if let Some(having) = self.names.get_mut(&name) {
                having.remove(&ifindex);
                if having.is_empty() {
                    self.names.remove(&name);
                }
            }
        }
        for name in &link.names {
            self.names.entry(name.clone()).or_default().insert(ifindex);
        }
        if !link.names.is_empty() {
            self.links.insert(ifindex, link);
        }
    }

    fn forget_name(&mut self, ifindex: u32) {
        if let Some(PortName { bridge, interface, .. }) = self.ports.get(&ifindex) {
            let name = (bridge.clone(), interface.clone());
            if self.port_names.get(&name) == Some(&ifindex) {
                self.port_names.remove(&name);
            }
        }
    }
}
