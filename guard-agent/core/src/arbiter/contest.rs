//! Claims on addresses that nobody has declared: who has them, and who claims them as well.

use std::time::Duration;

use guard_ebpf::abi::{AddressKey, Live};

use super::{
    Arbiter, Effect, Facts, Question, Remark, Seen,
    given::Given,
    grace::{GracePeriod, Look, Verdict},
};
use crate::{evidence::Station, mac::Mac};

/// A second claimant that is not yet a conflict.
#[derive(Debug)]
pub(super) struct PendingConflict {
    grace: GracePeriod,
    holder: Station,
    challenger: Seen,
    /// The holder's claim since, if there was one.
    answer: Option<Seen>,
}

impl PendingConflict {
    fn question(&self) -> Question {
        let Self { holder, challenger: Seen { key, claim, .. }, .. } = self;
        Question::Holder { key: *key, holder: holder.clone(), challenger: claim.station.clone() }
    }
}

impl Arbiter {
    /// A holder was heard: the first claimant, the declared owner, or one whose word is in doubt.
    pub(super) fn heard<F: Facts>(&mut self, seen: Seen, given: &mut Given<'_, F>) {
        if let Some(pending) = self.pending.get_mut(&seen.key)
            && pending.holder == seen.claim.station
        {
            pending.answer = Some(seen.clone());
            given.ask(pending.question());
        }
        if given.is_disputed(&seen) {
            given.spoke(&seen);
        }
        given.claimed(seen);
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
        let holder = given.seen(key, live.ifindex, mac, live.strength, Duration::ZERO, last);
        let Some(Seen { claim: holder, .. }) = holder else {
            return given.take_over(seen, Some(live));
        };
        if holder.station == seen.claim.station {
            return given.claimed(seen); // It has got the address since.
        }
        let ifindex = seen.claim.station.ifindex;
        let Some(port) = given.facts.port(ifindex) else { return };
        // claims.md A33: on an uplink another MAC is another host.
        if live.ifindex == ifindex && !port.uplink {
            given.remark(Remark::MacChanged, &seen);
            return given.take_over(seen, Some(live));
        }
        // From here on the program tells when the holder is heard again.
        let listen = Effect::HoldInKernel(key, Live { seen_ns: 0, ..live });
        if given.is_disputed(&seen) {
            given.effects.push(listen);
            return given.dispute(seen, &holder.station);
        }
        if self.pending.contains(&key) {
            return given.effects.push(listen);
        }
        let now = given.now.monotonic;
        let silence = now.saturating_sub(holder.seen);
        let grace = GracePeriod::new(now, self.conflict.grace, silence, self.conflict.live_window);
        let (holder, challenger) = (holder.station, seen.clone());
        let pending = PendingConflict { grace, holder, challenger, answer: None };
        let question = pending.question();
        if self.pending.insert(key, (ifindex, &port), now, pending) {
            given.effects.push(listen);
            given.ask(question);
        } else {
            given.remark(Remark::LeftOut, &seen);
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
        let Some((_, bridge_mac)) = given.facts.bridge(key.bridge) else {
            return drop(self.pending.remove(&key)); // With its bridge.
        };
        let Some(pending) = self.pending.get_mut(&key) else { return };
        let ifindex = pending.holder.ifindex;
        let heard = live.is_some_and(|live| live.ifindex == ifindex && live.seen_ns != 0);
        let look = Look {
            port_exists: port_works && given.facts.port(ifindex).is_some(),
            answered: heard || pending.answer.is_some(),
            now: given.now.monotonic,
        };
        match pending.grace.judge(look) {
            Verdict::Ask(look_again) => {
                given.probe(bridge_mac, pending.holder.clone(), &pending.challenger);
                self.pending.set_due(&key, look_again);
            }
            Verdict::Wait(look_again) => self.pending.set_due(&key, look_again),
            Verdict::Moved => {
                if let Some(pending) = self.pending.remove(&key) {
                    given.take_over(pending.challenger, live);
                }
            }
            Verdict::Conflict => {
                if let Some(PendingConflict { holder, challenger, answer, .. }) =
                    self.pending.remove(&key)
                {
                    given.dispute(challenger, &holder);
                    answer.iter().for_each(|answer| given.spoke(answer));
                }
            }
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
        for key in self.pending.keys(|_, pending| pending.holder.ifindex == ifindex) {
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
