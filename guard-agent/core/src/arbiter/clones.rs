//! One MAC on two ports (claims.md L01, L01b).

use std::time::Duration;

use guard_ebpf::{
    abi::{AddressKey, CLAIM_GROUP, EVENT_CLONE},
    mac,
};

use super::{
    Arbiter, Effect, Facts, Question, Remark, Seen,
    given::Given,
    grace::{GracePeriod, Look, Verdict},
};
use crate::{
    evidence::{Claim, Station},
    incident::{Kind, Role},
    mac::Mac,
};

/// A MAC that is on a second port, and may have left the first without our knowing it yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloneSuspect {
    /// Its frame on the second port.
    pub seen: Seen,
    /// The first port.
    pub holder: u32,
    /// A binding names the MAC on the first port, or it is the gateway's there.
    bound: bool,
    /// The frame is what an uplink would send back of the MAC's own.
    reflected: bool,
    grace: GracePeriod,
    /// Its claim on the first port, for which it can be asked there.
    there: Option<Seen>,
    /// It was heard there since.
    heard: bool,
}

/// The first port, the second one, and the MAC.
pub(super) type CloneKey = (u32, u32, Mac);

impl CloneSuspect {
    fn key(&self) -> CloneKey {
        let Station { mac, ifindex, .. } = self.seen.claim.station;
        (self.holder, ifindex, mac)
    }
}

impl Arbiter {
    /// A frame came from a MAC that lives on another port. Where a binding names that port and the
    /// MAC, or it is the gateway's there, it is a conflict at once; else the station is asked out of the
    /// first port, and one that has left it, or stays silent, has moved.
    pub(super) fn cloned<F: Facts>(
        &mut self,
        seen: Seen,
        holder: u32,
        may_move: bool,
        given: &mut Given<'_, F>,
    ) {
        let Station { mac, ifindex, .. } = seen.claim.station;
        let Some(port) = given.facts.port(ifindex) else { return };
        let is_uplink = given.facts.port(holder).is_some_and(|port| port.uplink);
        // claims.md A16: a virtual router's goes from port to port by right.
        let by_rule = || given.facts.is_virtual_router(&seen.segment, &port.interface);
        let by_right = mac::is_virtual(mac.0) && by_rule();
        if may_move || by_right || given.facts.is_bound(ifindex, mac) {
            return given.effects.push(Effect::ForgetMac(seen.key, mac, holder));
        }
        let bound = given.facts.is_bound(holder, mac);
        // claims.md A18: one host behind two uplinks. If it is the gateway, its own claim moves its MAC.
        if !bound && port.uplink && is_uplink {
            return;
        }
        let bound = bound || given.facts.is_gateway(&port.bridge, holder, mac);
        let reflected = port.uplink && !is_uplink && seen.flags & CLAIM_GROUP != 0;
        let seen = given.about(seen, holder);
        let known = given.facts.incident(&seen.segment, seen.target()) == Some(Kind::Clone);
        let now = given.now.monotonic;
        let (grace, window) = (self.conflict.grace, self.conflict.live_window);
        let grace = GracePeriod::new(now, grace, Duration::ZERO, window);
        let there = given.claim_of(&seen, holder);
        let suspect = CloneSuspect { seen, holder, bound, reflected, grace, there, heard: false };
        let key = suspect.key();
        if bound || known {
            self.suspects.remove(&key);
            return given.ask(Question::Ports { suspect: Box::new(suspect), both: false });
        }
        if self.suspects.contains(&key) {
            return;
        }
        let question = Question::Ports { suspect: Box::new(suspect.clone()), both: true };
        let left_out = suspect.seen.clone();
        if self.suspects.insert(key, (ifindex, &port), now, suspect) {
            given.ask(question);
        } else {
            given.remark(Remark::LeftOut, &left_out);
        }
    }

    /// What the kernel says of the two ports decides, or the time has come to ask the station.
    pub(super) fn ports_read<F: Facts>(
        &mut self,
        suspect: CloneSuspect,
        exist: bool,
        given: &mut Given<'_, F>,
    ) {
        let key = suspect.key();
        let Some(doubt) = self.suspects.get_mut(&key) else {
            if exist {
                given.clone_found(suspect);
            }
            return;
        };
        let port_exists = exist && given.facts.port(doubt.holder).is_some();
        let look = Look { port_exists, answered: doubt.heard, now: given.now.monotonic };
        let verdict = match doubt.grace.judge(look) {
            Verdict::Ask(look_again) => {
                let sent = doubt.there.as_ref().is_some_and(|there| {
                    let Seen { key, segment, address, claim, .. } = there;
                    // From here on the program tells when it is heard there, live or declared.
                    given.effects.push(Effect::Listen(*key, claim.station.clone()));
                    given.effects.push(Effect::ListenToOwner(segment.clone(), *address));
                    self.questions.ask(&claim.station, (*key, segment, *address), given)
                });
                if !sent {
                    doubt.grace.not_asked();
                }
                return self.suspects.set_due(&key, look_again);
            }
            Verdict::Wait(look_again) => return self.suspects.set_due(&key, look_again),
            verdict => verdict,
        };
        let Some(suspect) = self.suspects.remove(&key) else { return };
        let is_uplink = given.facts.port(suspect.holder).is_some_and(|port| port.uplink);
        let moved = match verdict {
            Verdict::Conflict => false,
            // Where nobody can be asked, two ports of sandboxes that are both there have it both.
            Verdict::Unanswered => given.facts.can_ask() || is_uplink,
            _ => true,
        };
        if moved {
            let CloneSuspect { seen, holder, .. } = suspect;
            given.remark(Remark::MacMoved, &seen);
            given.effects.push(Effect::ForgetMac(seen.key, seen.claim.station.mac, holder));
        } else {
            given.clone_found(suspect);
        }
    }

    /// A station was heard: whose MAC is on a second port is on its first as well.
    pub(super) fn heard_on_first<F: Facts>(&mut self, seen: &Seen, given: &mut Given<'_, F>) {
        if self.suspects.is_empty() {
            return;
        }
        let Station { mac, ifindex, .. } = seen.claim.station;
        let is_there = |suspect: &CloneSuspect| {
            suspect.there.as_ref().is_some_and(|there| there.claim.station.ifindex == ifindex)
        };
        for key in self.suspects.keys(|key, suspect| key.2 == mac && is_there(suspect)) {
            let Some(suspect) = self.suspects.get_mut(&key) else { continue };
            suspect.heard = true;
            given.ask(Question::Ports { suspect: Box::new(suspect.clone()), both: true });
        }
    }

    /// The station of a MAC could not be asked.
    pub(super) fn suspect_not_asked(&mut self, key: &AddressKey, asked: &Station, again: Duration) {
        let is_asked = |suspect: &CloneSuspect| {
            let there = suspect.there.as_ref();
            there.is_some_and(|there| there.key == *key && there.claim.station == *asked)
        };
        for of in self.suspects.keys(|_, suspect| is_asked(suspect)) {
            if let Some(suspect) = self.suspects.get_mut(&of) {
                suspect.grace.not_asked();
                self.suspects.set_due(&of, again);
            }
        }
    }

    /// It is time to look at these again.
    pub(super) fn suspects_due<F: Facts>(&self, given: &mut Given<'_, F>) {
        for key in self.suspects.due(given.now.monotonic) {
            if let Some(suspect) = self.suspects.get(&key) {
                given.ask(Question::Ports { suspect: Box::new(suspect.clone()), both: true });
            }
        }
    }
}

impl<F: Facts> Given<'_, F> {
    /// An address is what a clone is about only where it is that of the MAC's holder. Whatever else a
    /// frame with a stolen MAC claims, it is about the MAC: or else many that are stolen in the name
    /// of one address would be one incident, in which they are not all named.
    fn about(&self, seen: Seen, holder: u32) -> Seen {
        let Seen { segment, address, claim, .. } = &seen;
        let mac = claim.station.mac;
        let lease = self.facts.holder(segment, *address);
        let is_his = lease.is_some_and(|lease| lease.binding.mac == Some(mac))
            || self.facts.lives(segment, *address, mac, holder);
        if is_his { seen } else { self.about_mac(seen) }
    }

    /// What the station of a MAC claims on its first port.
    fn claim_of(&self, seen: &Seen, holder: u32) -> Option<Seen> {
        let mac = seen.claim.station.mac;
        let (segment, address) = self.facts.address_of(mac, holder)?;
        let claims = self.facts.claims(&segment, address).into_iter();
        let mut there = claims.filter(|claim| claim.station.ifindex == holder);
        let claim = there.find(|claim| claim.station.mac == mac)?;
        let key: AddressKey = segment.key(seen.key.bridge, address);
        Some(Seen { key, segment, address, claim, flags: 0 })
    }

    /// A MAC is on two ports, and both exist.
    pub(super) fn clone_found(&mut self, suspect: CloneSuspect) {
        let CloneSuspect { seen, holder, bound, reflected, .. } = suspect;
        let Some(port) = self.facts.port(holder) else { return };
        let mac = seen.claim.station.mac;
        // Where it was bound to its second port since, it has moved there (claims.md A18).
        if self.facts.is_bound(seen.claim.station.ifindex, mac) {
            return;
        }
        if reflected {
            return self.looped(&seen);
        }
        let station = Station { mac, interface: port.interface.clone(), ifindex: holder };
        let (of_holder, of_challenger) =
            if bound { (Role::Owner, Role::Impostor) } else { (Role::Claimant, Role::Claimant) };
        let there = Claim { station, ..seen.claim.clone() };
        let there = self.now.claimant(of_holder, &there, 0, self.facts.behind(holder));
        let critical = self.facts.is_gateway(&port.bridge, holder, mac);
        self.sighting(&seen, Kind::Clone, of_challenger, EVENT_CLONE, |sighting| {
            (sighting.holder, sighting.critical) = (Some(there), critical);
        });
    }
}
