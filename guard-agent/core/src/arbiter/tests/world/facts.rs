//! What the arbiter asks of the world.

use super::*;

impl Facts for World {
    fn bridge(&self, ifindex: u32) -> Option<(Arc<str>, Mac)> {
        (ifindex == BRIDGE).then(|| ("br0".into(), mac(0xfe)))
    }

    fn bridge_named(&self, name: &str) -> Option<(u32, Mac)> {
        (name == "br0").then(|| (BRIDGE, mac(0xfe)))
    }

    fn port(&self, ifindex: u32) -> Option<PortName> {
        self.ports.get(&ifindex).map(|port| port.name.clone())
    }

    fn holder(&self, segment: &Segment, address: IpAddr) -> Option<Holder> {
        let owned = self.owned(segment, address)?;
        let owner = self.owner(address);
        let (generation, binding) = (owned.generation, self.binding(owned));
        (owned.flags & OWNED_LEASED != 0).then_some(Holder { owner, generation, binding })
    }

    fn is_reserved(&self, segment: &Segment, address: IpAddr) -> bool {
        let owned = self.owned(segment, address);
        owned.is_some_and(|owned| owned.flags & (OWNED_GATEWAY | OWNED_HOST) != 0)
    }

    fn is_bound(&self, ifindex: u32, mac: Mac) -> bool {
        let bound = |owned: &Owned| {
            let binding = self.binding(owned);
            (binding.mac, binding.ifindex) == (Some(mac), Some(ifindex))
        };
        self.model.owned.values().any(bound)
    }

    fn has_declared(&self, ifindex: u32) -> bool {
        let mut bindings = self.model.owned.values().map(|owned| self.binding(owned));
        bindings.any(|binding| binding.declared && binding.ifindex == Some(ifindex))
    }

    fn is_gateway(&self, _: &str, ifindex: u32, Mac(mac): Mac) -> bool {
        let bits = |owned: &Owned| owned.flags & (OWNED_GATEWAY | OWNED_HOST);
        let mut owned = self.model.owned.iter().filter(|(_, o)| bits(o) == OWNED_GATEWAY);
        owned.any(|(key, _)| {
            let live = self.model.live.get(key);
            live.is_some_and(|live| (live.mac, live.ifindex) == (mac, ifindex))
        })
    }

    fn behind(&self, _: u32) -> Option<Owner> {
        None
    }

    fn rule(&self, segment: &Segment, address: IpAddr) -> Option<Rule> {
        let prefix = self.model.prefix(&segment.key(BRIDGE, address))?;
        let is_virtual = prefix.allow_virtual != 0;
        (prefix.declared != 0).then_some(Rule { port: None, is_virtual })
    }

    fn is_off_prefix(&self, segment: &Segment, address: IpAddr) -> bool {
        let prefix = self.model.prefix(&segment.key(BRIDGE, address));
        prefix.is_some_and(|prefix| prefix.on_link == OFF_LINK)
    }

    fn lives(&self, segment: &Segment, address: IpAddr, mac: Mac, ifindex: u32) -> bool {
        let claims = self.evidence.get(&(segment.clone(), address));
        let claim = claims.and_then(|claims| claims.get(&ifindex));
        claim.is_some_and(|claim| claim.station.mac == mac)
    }

    fn address_of(&self, mac: Mac, ifindex: u32) -> Option<(Segment, IpAddr)> {
        let is = |claims: &BTreeMap<u32, Claim>| {
            claims.get(&ifindex).is_some_and(|claim| claim.station.mac == mac)
        };
        self.evidence.iter().find(|(_, claims)| is(claims)).map(|(place, _)| place.clone())
    }

    fn is_host_mac(&self, _: u32, of: Mac) -> bool {
        of == mac(0xfe)
    }

    fn is_beside(&self, of: Mac) -> bool {
        of == mac(0xfd)
    }

    fn claims(&self, segment: &Segment, address: IpAddr) -> Vec<Claim> {
        let claims = self.evidence.get(&(segment.clone(), address));
        claims.into_iter().flatten().map(|(_, claim)| claim.clone()).collect()
    }

    fn is_host(&self, segment: &Segment, address: IpAddr) -> bool {
        self.owned(segment, address).is_some_and(|owned| owned.flags & OWNED_HOST != 0)
            || self.elsewhere.contains(&address)
    }

    fn above(&self, _: &Segment, address: IpAddr) -> Option<Mac> {
        self.above.filter(|(had, _)| *had == address).map(|(_, mac)| mac)
    }

    fn sender(&self, _: &Segment, _: IpAddr) -> Option<IpAddr> {
        None
    }

    fn can_ask(&self) -> bool {
        true
    }

    fn sandbox(&self, station: &Station) -> Option<Owner> {
        let leased = |owned: &Owned| owned.flags & OWNED_LEASED != 0;
        let owned = self.model.owned.iter().filter(|(_, owned)| leased(owned));
        let allowed = owned.filter(|(_, owned)| self.binding(owned).allows(station));
        // Of several the same one always, whatever the map's order is.
        let key = allowed.map(|(key, _)| key).min()?;
        Some(self.owner(key.ip()))
    }

    fn is_allowed(&self, _: &Segment, _: IpAddr, _: &Station) -> bool {
        false
    }

    fn is_virtual_router(&self, _: &Segment, interface: &str) -> bool {
        let mut ports = self.ports.values().filter(|port| *port.name.interface == *interface);
        ports.any(|port| port.abi.flags & PORT_ALLOW_VIRTUAL != 0)
    }

    fn incident(&self, segment: &Segment, target: Target) -> Option<Kind> {
        self.incidents.kind(segment, target)
    }
}
