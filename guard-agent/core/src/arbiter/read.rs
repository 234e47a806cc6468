//! What the program's maps say. Reading them never withdraws evidence.

use std::{net::IpAddr, time::Duration};

use guard_ebpf::abi::{
    AddressKey, Challenger, ChallengerKey, EVENT_ALLOWED, EVENT_CONTEST, EVENT_PROBE,
    EVENT_VIOLATION, Live, OWNED_MAC, OWNED_PORT, Owned, STRENGTH_ASSERT,
};

use super::{Arbiter, Effect, Facts, Missed, Seen, given::Given};
use crate::{
    evidence::{Claim, Station, Strength},
    incident::{Kind, Role},
    mac::Mac,
    segment::Segment,
};

impl<F: Facts> Given<'_, F> {
    pub(super) fn live_read(&mut self, key: AddressKey, live: Live) {
        let Live { first_ns, seen_ns, ifindex, mac, strength, .. } = live;
        let (first, last) = (Duration::from_nanos(first_ns), Duration::from_nanos(seen_ns));
        match self.seen(key, ifindex, Mac(mac), strength, first, last.max(first)) {
            Some(seen) => {
                self.hold_gateway(&seen);
                self.claimed(seen);
            }
            // Its port or its bridge is gone.
            None => self.effects.push(Effect::ForgetInKernel(key, ifindex)),
        }
    }

    /// Who took an address while no agent ran, on a port that has ended since: its name went with it.
    fn gone_with_its_port(&mut self, of: &ChallengerKey, last: Duration) {
        let ChallengerKey { key, ifindex, mac, .. } = *of;
        let Some((bridge, _)) = self.facts.bridge(key.bridge) else { return };
        let interface = format!("ifindex {ifindex}").into();
        // No port has this number.
        let station = Station { mac: Mac(mac), interface, ifindex: 0 };
        let claim = Claim { station, strength: Strength::Assert, first: last, seen: last };
        let (segment, address) = (Segment::of(bridge, &key), key.ip());
        let seen = Seen { key, segment, address, claim, flags: 0 };
        let holder = self.facts.holder(&seen.segment, address);
        if self.facts.is_reserved(&seen.segment, address) {
            self.sighted(&seen, Kind::Gateway, None, Role::Impostor, EVENT_VIOLATION);
        } else if let Some(holder) = holder.filter(|holder| !holder.allows(&seen.claim.station)) {
            let owner = Some(holder.claimant(self.now.now));
            self.sighted(&seen, Kind::Duplicate, owner, Role::Impostor, EVENT_VIOLATION);
        }
    }

    pub(super) fn owner_read(&mut self, key: AddressKey, owned: Owned) {
        let Owned { seen_ns, ifindex, mac, flags, .. } = owned;
        let last = Duration::from_nanos(seen_ns);
        match (flags & OWNED_MAC != 0, flags & OWNED_PORT != 0) {
            (true, true) => {
                let seen = self.seen(key, ifindex, Mac(mac), STRENGTH_ASSERT, last, last);
                seen.into_iter().for_each(|seen| self.claimed(seen));
            }
            (false, false) => {}
            _ => self.half_named_owner_read(key, last),
        }
    }

    /// A declared owner was heard, of whom the binding names the MAC or the port alone. Who it is, only
    /// its claim has said: if that was lost, the next one is to be told.
    fn half_named_owner_read(&mut self, key: AddressKey, last: Duration) {
        let Some((bridge, _)) = self.facts.bridge(key.bridge) else { return };
        let (segment, address) = (Segment::new(bridge, key.vlan), key.ip());
        let Some(holder) = self.facts.holder(&segment, address) else { return };
        let claims = self.facts.claims(&segment, address);
        match claims.into_iter().find(|claim| holder.allows(&claim.station)) {
            Some(claim) => {
                let claim = Claim { seen: claim.seen.max(last), ..claim };
                self.claimed(Seen { key, segment, address, claim, flags: 0 });
            }
            None => self.effects.push(Effect::ListenToOwner(segment, address)),
        }
    }
}

impl Arbiter {
    /// An incident that goes on is one still, whatever was reported of it.
    pub(super) fn challenger_read<F: Facts>(
        &mut self,
        challenger: ChallengerKey,
        Challenger { seen_ns, strength, flags, .. }: Challenger,
        live: Option<Live>,
        (blocked, missed): (bool, Missed),
        given: &mut Given<'_, F>,
    ) {
        let ChallengerKey { key, ifindex, mac, kind, .. } = challenger;
        let last = Duration::from_nanos(seen_ns);
        let seen = given.seen(key, ifindex, Mac(mac), strength, last, last);
        let Some(seen) = seen.filter(|_| missed != Missed::Gone) else {
            if missed != Missed::No && kind == EVENT_VIOLATION {
                given.gone_with_its_port(&challenger, last);
            }
            return given.effects.push(Effect::ForgetChallenger(challenger));
        };
        let seen = Seen { flags, ..seen };
        // What an incident that closed has been about is not news. The entry for all MACs of a port,
        // which has none, is about those that have been reported.
        let is_old = given.now.monotonic.saturating_sub(last) >= self.conflict.quiet;
        if is_old && missed == Missed::No || blocked {
            return given.effects.push(Effect::ForgetChallenger(challenger)); // It makes room.
        }
        if mac == [0; 6] {
            return;
        }
        match kind {
            EVENT_VIOLATION => self.violation(seen, given),
            EVENT_ALLOWED if given.reflects(&seen) => given.looped(&seen),
            EVENT_ALLOWED => given.claimed(seen),
            EVENT_PROBE if self.reflects_probe(&seen, given) => given.looped(&seen),
            EVENT_PROBE if given.is_nobodys(&seen) => self.tentative.probed(&seen, given),
            EVENT_CONTEST => {
                if let Some(live) = live {
                    self.contest(seen, (live.ifindex, Mac(live.mac)), Some(live), given);
                }
            }
            _ => {}
        }
    }

    /// A port is gone, and these addresses had claims behind it.
    pub(super) fn port_gone<F: Facts>(
        &mut self,
        ifindex: u32,
        addresses: Vec<(Segment, IpAddr)>,
        given: &mut Given<'_, F>,
    ) {
        for (segment, address) in addresses {
            if let Some((bridge, _)) = given.facts.bridge_named(&segment.bridge) {
                given.left(segment.key(bridge, address), &segment, address, ifindex);
            }
        }
        self.ageing.retain(|(_, port), _| *port != ifindex);
        self.noted.retain(|(_, port, _)| *port != ifindex);
        self.questions.port_gone(ifindex);
        self.tentative.port_gone(ifindex, given);
        self.drop_challenger(ifindex);
        self.suspects.retain(|(first, second, _), _| *first != ifindex && *second != ifindex);
        self.aside.retain(|(_, port, ..), _| *port != ifindex);
        self.relays.port_gone(ifindex);
        self.proxies.port_gone(ifindex);
        self.strangers.port_gone(ifindex);
        self.ask_about(ifindex, given);
    }
}
