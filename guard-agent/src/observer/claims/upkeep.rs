//! What keeps claims true over time: the maps read anew, claims that age, ports and bridges that
//! come and go.

use aya::maps::lpm_trie::Key;
use guard_ebpf::abi::{EVENT_ALLOWED, EVENT_CONTEST, EVENT_VIOLATION, OWNED_MAC, OWNED_PORT};

use super::*;

impl Claims {
    /// Takes in what the maps say. Reading them never withdraws evidence.
    pub fn take_snapshot(&mut self, snapshot: Snapshot) {
        let Snapshot { live, owned, challengers, strangers: _, clones: _, full: _ } = snapshot;
        for (key, Live { first_ns, seen_ns, ifindex, mac, strength, .. }) in live {
            let (first, seen) = (Duration::from_nanos(first_ns), Duration::from_nanos(seen_ns));
            match self.seen(key, ifindex, Mac(mac), strength, first, seen.max(first)) {
                Some(seen) => self.claimed(&seen.segment, seen.address, seen.claim),
                // Its port or its bridge is gone.
                None => drop(self.live_map.remove(&key)),
            }
        }
        for (key, Owned { seen_ns, ifindex, mac, flags, .. }) in owned {
            let seen = Duration::from_nanos(seen_ns);
            if flags & OWNED_MAC != 0
                && flags & OWNED_PORT != 0
                && let Some(seen) = self.seen(key, ifindex, Mac(mac), STRENGTH_ASSERT, seen, seen)
            {
                self.claimed(&seen.segment, seen.address, seen.claim);
            }
        }
        let now = clock::monotonic();
        for (challenger, Challenger { seen_ns, strength, .. }) in challengers {
            let ChallengerKey { key, ifindex, mac, kind, .. } = challenger;
            let time = Duration::from_nanos(seen_ns);
            match self.seen(key, ifindex, Mac(mac), strength, time, time) {
                // What an incident that closed has been about is not news.
                Some(_) if now.saturating_sub(time) >= self.conflict.quiet => {}
                // The entry for all MACs of a port: they have been told.
                Some(_) if mac == [0; 6] => {}
                Some(seen) if kind == EVENT_VIOLATION => self.violation(seen),
                Some(seen) if kind == EVENT_ALLOWED => {
                    self.claimed(&seen.segment, seen.address, seen.claim);
                }
                Some(seen) if kind == EVENT_CONTEST => {
                    if let Ok(live) = self.live_map.get(&key, 0) {
                        self.contest(seen, live.ifindex, Mac(live.mac));
                    }
                }
                Some(_) => {}
                None => drop(self.challengers.remove(&challenger)),
            }
        }
    }

    /// Asks for claims that have not been heard for the live window; one that stays silent is over.
    pub fn age(&mut self) {
        let now = clock::monotonic();
        let bridges: HashMap<_, _> = self
            .bridges
            .iter()
            .map(|(ifindex, (name, mac))| (name.clone(), (*ifindex, *mac)))
            .collect();
        for (segment, address, claims) in self.live.claims(None) {
            let Some((bridge, mac)) = bridges.get(&segment.bridge) else { continue };
            let key = AddressKey::new(*bridge, segment.vlan, address);
            let holder = self.bindings.holder(&segment, address);
            for Claim { station, seen, .. } in claims {
                // Evidence from the leased binding lasts as long as its port.
                let leased = holder.as_ref().is_some_and(|holder| holder.allows(&station));
                let counter = (key, station.ifindex);
                if leased || now.saturating_sub(seen) < self.conflict.live_window {
                    self.aging.remove(&counter);
                    continue;
                }
                let asked = self.aging.entry(counter).or_default();
                if *asked < AGING_PROBES {
                    *asked += 1;
                    self.ask(*mac, &station, address);
                    continue;
                }
                self.aging.remove(&counter);
                self.over(&key, &segment, address, &station);
            }
        }
    }

    fn over(&mut self, key: &AddressKey, segment: &Segment, address: IpAddr, station: &Station) {
        self.note("an address is not in use any more", segment, address, station);
        self.live.withdraw(segment, address, station.ifindex);
        self.forget(key, station.ifindex);
    }

    /// Takes a claimant out of the kernel's map, unless another has taken its place there.
    fn forget(&mut self, key: &AddressKey, ifindex: u32) {
        if self.live_map.get(key, 0).is_ok_and(|live| live.ifindex == ifindex) {
            let _ = self.live_map.remove(key);
        }
    }

    /// Forgets what the program has noted behind a port that has ended without anyone watching.
    pub fn forget_port(&mut self, ifindex: u32) {
        let keys: Vec<_> = self.live_map.keys().filter_map(Result::ok).collect();
        for key in keys {
            self.forget(&key, ifindex);
        }
    }

    /// A port is gone, and these addresses had claims behind it.
    pub fn port_gone(&mut self, ifindex: u32, addresses: &[(Segment, IpAddr)]) {
        for (segment, address) in addresses {
            let bridge = self.bridges.iter().find(|(_, (name, _))| *name == segment.bridge);
            if let Some((bridge, _)) = bridge {
                self.forget(&AddressKey::new(*bridge, segment.vlan, *address), ifindex);
            }
        }
        self.down.remove(&ifindex);
        self.aging.retain(|(_, port), _| *port != ifindex);
        self.doubts.retain(|_, pending| pending.challenger.station.ifindex != ifindex);
        self.judge_doubts_about(ifindex);
    }

    fn judge_doubts_about(&mut self, ifindex: u32) {
        let of_holder = self.doubts.iter().filter(|(_, doubt)| doubt.holder.ifindex == ifindex);
        for key in of_holder.map(|(key, _)| *key).collect::<Vec<_>>() {
            self.judge(key, false);
        }
    }

    /// A port has found or lost its carrier: one without it cannot be the holder of anything that is
    /// claimed elsewhere (claims.md A18).
    pub fn port_running(&mut self, ifindex: u32, running: bool) {
        if running {
            self.down.remove(&ifindex);
        } else {
            self.down.insert(ifindex);
            self.judge_doubts_about(ifindex);
        }
    }

    pub(super) fn is_down(&self, ifindex: u32) -> bool {
        self.down.contains(&ifindex) && !has_carrier(ifindex)
    }

    /// A bridge exists (again): its prefixes go into the kernel.
    pub fn bridge_present(&mut self, name: &Arc<str>, bridge: &Bridge) {
        let known = self.bridges.insert(bridge.ifindex, (name.clone(), bridge.mac));
        if known.is_some() {
            return; // Only its MAC is another.
        }
        self.clear_prefixes(bridge.ifindex);
        let own = self.prefixes.iter().filter(|(segment, _)| segment.bridge == *name);
        let on_link: Vec<_> = own.map(|(segment, prefix)| (segment.vlan, prefix.trunc())).collect();
        let rules = self.rules.get(name).map_or(&[][..], |rules| rules);
        for (vlan, net, prefix) in rules::prefixes(rules, &on_link) {
            let key = AddressKey::new(bridge.ifindex, vlan, net.network());
            let key = Key::new(key.prefix_len(net.prefix_len()), key);
            if let Err(error) = self.prefix_map.insert(&key, prefix, 0) {
                tracing::warn!(bridge = %name, %error, "cannot write a prefix into the kernel");
            }
        }
    }

    /// A bridge is gone.
    pub fn bridge_absent(&mut self, ifindex: u32) {
        self.bridges.remove(&ifindex);
        self.clear_prefixes(ifindex);
        self.doubts.retain(|key, _| key.bridge != ifindex);
        let keys: Vec<_> = self.live_map.keys().filter_map(Result::ok).collect();
        for key in keys.iter().filter(|key| key.bridge == ifindex) {
            let _ = self.live_map.remove(key);
        }
    }

    fn clear_prefixes(&mut self, bridge: u32) {
        let keys: Vec<_> = self.prefix_map.keys().filter_map(Result::ok).collect();
        for key in keys.iter().filter(|key| key.data().bridge == bridge) {
            let _ = self.prefix_map.remove(key);
        }
    }
}
