//! Claims on addresses that nobody has declared: who has them, and who claims them as well.

use std::time::Duration;

use guard_ebpf::{
    abi::{AddressKey, EVENT_CONTEST, Live},
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

/// Who could not be asked is tried again so soon.
const RETRY: Duration = Duration::from_millis(100);
/// So many stations of sandboxes are remembered as theirs.
const MOST_NOTED: usize = 4096;

/// A second claimant that is not yet a conflict.
#[derive(Debug)]
pub(super) struct PendingConflict {
    grace: GracePeriod,
    holder: Claim,
    pub(super) challenger: Seen,
    /// The holder's claim since, if there was one.
    answer: Option<Seen>,
    /// The claim is what an uplink would send back of the holder's own (claims.md L01b).
    reflected: bool,
}

impl PendingConflict {
    fn is_one_mac(&self) -> bool {
        self.holder.station.mac == self.challenger.claim.station.mac
    }

    pub(super) fn is_held_by(&self, station: &Station) -> bool {
        self.holder.station == *station
    }

    pub(super) fn not_asked(&mut self) {
        self.grace.not_asked();
    }

    fn question(&self) -> Question {
        let Self { holder, challenger: Seen { key, claim, .. }, .. } = self;
        Question::Holder {
            key: *key,
            holder: holder.station.clone(),
            challenger: claim.station.clone(),
        }
    }
}

impl Arbiter {
    /// A holder was heard: the first claimant, the declared owner, or one whose word is in doubt.
    pub(super) fn heard<F: Facts>(&mut self, seen: Seen, given: &mut Given<'_, F>) {
        if given.is_hosts(&seen) && given.reflects(&seen) {
            let ifindex = seen.claim.station.ifindex;
            given.effects.push(Effect::ForgetInKernel(seen.key, ifindex));
            return given.looped(&seen);
        }
        self.heard_on_first(&seen, given);
        if let Some(pending) = self.pending.get(&seen.key)
            && pending.holder.station == seen.claim.station
            && self.relays.is_for(&pending.challenger, seen.claim.station.mac)
        {
            self.pending.remove(&seen.key); // What was in doubt is its relay.
        }
        if let Some(pending) = self.pending.get_mut(&seen.key)
            && pending.holder.station == seen.claim.station
        {
            pending.answer = Some(seen.clone());
            given.ask(pending.question());
        }
        if given.is_disputed(&seen) {
            given.spoke(&seen);
        } else if !self.is_pending(&seen) && self.contest_known(&seen, given) {
            return;
        } else {
            given.beside_host(&seen);
        }
        given.hold_gateway(&seen);
        given.claimed(seen);
    }

    /// Whether it is in doubt who has what this station claims.
    fn is_pending(&self, Seen { key, claim, .. }: &Seen) -> bool {
        self.pending.get(key).is_some_and(|pending| pending.holder.station == claim.station)
    }

    /// A claim on an address that is live by another, and that nobody has declared. `told` is whom
    /// the program judged it by, `live` who has it now.
    pub(super) fn contest<F: Facts>(
        &mut self,
        seen: Seen,
        told: (u32, Mac),
        live: Option<Live>,
        given: &mut Given<'_, F>,
    ) {
        let Some(live) = live else {
            return given.claimed(seen); // The holder left in the meantime.
        };
        let mac = Mac(live.mac);
        if (live.ifindex, mac) != told {
            return; // Another has taken its place: the next frame is judged against that one.
        }
        let (key, last) = (seen.key, Duration::from_nanos(live.seen_ns));
        let first = Duration::from_nanos(live.first_ns);
        let holder = given.seen(key, live.ifindex, mac, live.strength, first, last.max(first));
        let Some(Seen { claim: mut holder, .. }) = holder else {
            return given.take_over(seen, Some(live));
        };
        // While the program is to tell of its next frame, its stamp says nothing of the last one.
        let known = given.facts.claims(&seen.segment, seen.address);
        if let Some(known) = known.into_iter().find(|claim| claim.station == holder.station) {
            holder.seen = holder.seen.max(known.seen);
        }
        if holder.station == seen.claim.station {
            return given.claimed(seen); // It has got the address since.
        }
        let ifindex = seen.claim.station.ifindex;
        let Some(port) = given.facts.port(ifindex) else { return };
        if live.ifindex == ifindex && self.relays.is_for(&seen, mac) {
            return;
        }
        if live.ifindex == ifindex {
            let is_router = || given.facts.is_virtual_router(&seen.segment, &port.interface);
            let virtuals = [live.mac, seen.claim.station.mac.0].map(mac::is_virtual);
            // claims.md A16b: a virtual router's own address is at both its MACs.
            if virtuals[0] != virtuals[1] && is_router() {
                given.hold(&seen);
                return given.claimed(seen);
            }
            // claims.md A33: on an uplink another MAC is another host.
            if !port.uplink {
                return self.mac_changed(seen, live, given);
            }
        }
        // claims.md A18: one host behind two uplinks.
        let is_uplink = |ifindex| given.facts.port(ifindex).is_some_and(|port| port.uplink);
        if mac == seen.claim.station.mac && port.uplink && is_uplink(live.ifindex) {
            given.hold(&seen);
            return given.claimed(seen);
        }
        if given.are_one_sandbox(&holder.station, &seen.claim.station) {
            return self.is_one_sandbox(seen, given);
        }
        // From here on the program tells when the holder is heard again.
        let listen = Effect::HoldInKernel(key, Live { seen_ns: 0, ..live });
        let reflected = given.reflects_live(&seen, &live);
        if given.is_disputed(&seen) {
            given.effects.push(listen);
            if reflected {
                return given.looped(&seen);
            }
            return given.dispute(seen, &holder, false);
        }
        if let Some(pending) = self.pending.get(&key) {
            given.effects.push(listen);
            // A third claimant ends a doubt between two.
            if !reflected
                && pending.challenger.claim.station != seen.claim.station
                && let Some(pending) = self.pending.remove(&key)
            {
                self.found(pending, false, given);
                given.dispute(seen, &holder, false);
            }
            return;
        }
        let now = given.now.monotonic;
        let silence = now.saturating_sub(holder.seen);
        let grace = GracePeriod::new(now, self.conflict.grace, silence, self.conflict.live_window);
        let challenger = seen.clone();
        let pending = PendingConflict { grace, holder, challenger, answer: None, reflected };
        let question = pending.question();
        if self.pending.insert(key, (ifindex, &port), now, pending) {
            given.effects.push(listen);
            given.ask(question);
        } else {
            given.remark(Remark::LeftOut, &seen);
        }
    }

    /// A holder has another MAC now, behind the same port (claims.md A33): what is disputed or in doubt
    /// goes on with that one.
    fn mac_changed<F: Facts>(&mut self, seen: Seen, live: Live, given: &mut Given<'_, F>) {
        given.remark(Remark::MacChanged, &seen);
        let (key, new) = (seen.key, seen.clone());
        let (segment, target) = (seen.segment.clone(), seen.target());
        if given.facts.incident(&segment, target.clone()) == Some(Kind::Duplicate) {
            given.sighting(&seen, Kind::Duplicate, Role::Claimant, EVENT_CONTEST, |_| {});
            given.gone((segment, target, Some(Mac(live.mac)), Some(live.ifindex)));
        }
        // Two macvlans of one sandbox answer for each other: nothing goes to and fro between ports.
        given.succeed_to(seen, Some(live));
        if let Some(pending) = self.pending.get_mut(&key)
            && pending.holder.station.ifindex == live.ifindex
        {
            pending.holder = new.claim.clone();
            pending.answer = Some(new);
            given.ask(pending.question());
        }
    }

    /// What the kernel says of the holder decides, or the time has come to ask the holder itself.
    pub(super) fn holder_read<F: Facts>(
        &mut self,
        key: AddressKey,
        live: Option<Live>,
        port_works: bool,
        given: &mut Given<'_, F>,
    ) {
        if given.facts.bridge(key.bridge).is_none() {
            return drop(self.pending.remove(&key)); // With its bridge.
        }
        let Some(pending) = self.pending.get_mut(&key) else { return };
        let ifindex = pending.holder.station.ifindex;
        let heard = live.is_some_and(|live| live.ifindex == ifindex && live.seen_ns != 0);
        let look = Look {
            port_exists: port_works && given.facts.port(ifindex).is_some(),
            answered: heard || pending.answer.is_some(),
            now: given.now.monotonic,
        };
        match pending.grace.judge(look) {
            Verdict::Ask(mut look_again) => {
                let Seen { segment, address, .. } = &pending.challenger;
                let about = (key, segment, *address);
                if !self.questions.ask(&pending.holder.station, about, given) {
                    pending.grace.not_asked();
                    look_again = look_again.min(given.now.monotonic + RETRY);
                }
                self.pending.set_due(&key, look_again);
            }
            Verdict::Wait(look_again) => self.pending.set_due(&key, look_again),
            // One MAC that does not answer where it was is where it speaks (claims.md L01b).
            Verdict::Unanswered if pending.is_one_mac() && given.facts.can_ask() => {
                if let Some(pending) = self.pending.remove(&key) {
                    given.take_over(pending.challenger, live);
                }
            }
            Verdict::Moved => {
                if let Some(pending) = self.pending.remove(&key) {
                    given.take_over(pending.challenger, live);
                }
            }
            verdict @ (Verdict::Conflict | Verdict::Unanswered) => {
                if let Some(pending) = self.pending.remove(&key) {
                    let unanswered = verdict == Verdict::Unanswered && given.facts.can_ask();
                    self.found(pending, unanswered, given);
                }
            }
        }
    }

    /// What was in doubt is a conflict.
    fn found<F: Facts>(
        &self,
        PendingConflict { holder, challenger, answer, reflected, .. }: PendingConflict,
        unanswered: bool,
        given: &mut Given<'_, F>,
    ) {
        if reflected {
            return given.looped(&challenger);
        }
        given.dispute(challenger, &holder, unanswered);
        answer.iter().for_each(|answer| given.spoke(answer));
    }

    /// A claim on an address whose declared owner, gateway or host it is not.
    pub(super) fn violation<F: Facts>(&mut self, seen: Seen, given: &mut Given<'_, F>) {
        if given.reflects(&seen) {
            return given.looped(&seen);
        }
        if given.is_of_host_beside(&seen) {
            return self.note(Remark::HostBeside, &seen, given);
        }
        let Seen { segment, address, claim, .. } = &seen;
        let holder = given.facts.holder(segment, *address);
        let of_port = holder.as_ref().map(|holder| &holder.binding);
        let of_port = of_port.filter(|binding| binding.ifindex == Some(claim.station.ifindex));
        if of_port.and_then(|own| own.mac).is_some_and(|own| self.relays.is_for(&seen, own)) {
            return;
        }
        let owner = holder.filter(|holder| holder.binding.declared).map(|holder| holder.owner);
        let is_free = !given.facts.is_reserved(segment, *address);
        if is_free && owner.is_some() && owner == given.facts.sandbox(&claim.station) {
            return self.is_one_sandbox(seen, given);
        }
        given.violation(seen, &mut self.proxies);
    }

    /// A sandbox has its address in two places: a note, once.
    fn is_one_sandbox<F: Facts>(&mut self, seen: Seen, given: &mut Given<'_, F>) {
        self.note(Remark::OneSandbox, &seen, given);
        given.claimed(seen);
    }

    /// A remark about a station and an address that is made once.
    fn note<F: Facts>(&mut self, remark: Remark, seen: &Seen, given: &mut Given<'_, F>) {
        let Station { mac, ifindex, .. } = seen.claim.station;
        if self.noted.len() < MOST_NOTED && self.noted.insert((seen.key, ifindex, mac)) {
            given.remark(remark, seen);
        }
    }

    /// Asks about the holders of those addresses for which it is time.
    pub(super) fn ask_due<F: Facts>(&self, given: &mut Given<'_, F>) {
        for key in self.pending.due(given.now.monotonic) {
            self.ask_holder(&key, given);
        }
    }

    /// Asks about the holder that is on this port, wherever its address is in doubt.
    pub(super) fn ask_about<F: Facts>(&self, ifindex: u32, given: &mut Given<'_, F>) {
        for key in self.pending.keys(|_, pending| pending.holder.station.ifindex == ifindex) {
            self.ask_holder(&key, given);
        }
    }

    fn ask_holder<F: Facts>(&self, key: &AddressKey, given: &mut Given<'_, F>) {
        if let Some(pending) = self.pending.get(key) {
            given.ask(pending.question());
        }
    }

    /// Nothing that a port has claimed is in doubt any more.
    pub(super) fn drop_challenger(&mut self, ifindex: u32) {
        self.pending.retain(|_, pending| pending.challenger.claim.station.ifindex != ifindex);
    }
}
