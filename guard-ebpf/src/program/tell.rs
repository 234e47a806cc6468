//! State changes on their way out through the ring.

use aya_ebpf::{bindings::BPF_ANY, helpers::bpf_ktime_get_ns};
use guard_ebpf::{
    abi::{BridgeCounters, Challenger, ChallengerKey, EVENT_LIVE, EVENT_OWNER, Event},
    claim::Claim,
    decide::{Holder, Report, is_due},
};

use crate::maps::{CHALLENGERS, EVENTS};

/// One frame's claim, and where to count what is lost.
pub struct Teller<'a> {
    /// The claim.
    pub claim: &'a Claim,
    /// The port of the frame.
    pub from: u32,
    /// `CLOCK_MONOTONIC`, coarse.
    pub now_ns: u64,
}

impl Teller<'_> {
    /// An address is live.
    #[inline(always)]
    pub fn live(&self, counters: &mut BridgeCounters) {
        let holder = Holder { ifindex: 0, mac: [0; 6] };
        self.emit(counters, Report { kind: EVENT_LIVE, flags: self.claim.flags, holder });
    }

    /// The declared owner was seen for the first time.
    #[inline(always)]
    pub fn owner(&self, counters: &mut BridgeCounters, holder: Holder) {
        self.emit(counters, Report { kind: EVENT_OWNER, flags: self.claim.flags, holder });
    }

    /// A challenger: the first time, and while it goes on.
    #[inline(always)]
    pub fn challenger(&self, counters: &mut BridgeCounters, report: Report) {
        let key = ChallengerKey {
            key: self.claim.key,
            ifindex: self.from,
            mac: self.claim.mac,
            kind: report.kind,
            reserved: [0; 5],
        };
        if let Some(known) = CHALLENGERS.get_ptr_mut(key) {
            #[expect(unsafe_code, reason = "the map's value is written in place")]
            // SAFETY: plain data that the verifier keeps in bounds. Two CPUs may lose a count to each
            // other, or an LRU's reuse of the entry misplace one: it deduplicates, nothing rests on it.
            let known = unsafe { &mut *known };
            known.frames += 1;
            known.seen_ns = self.now_ns;
            known.flags = report.flags;
            known.strength = self.claim.strength;
            if is_due(known, self.now_ns) && self.emit(counters, report) {
                known.told_ns = self.now_ns;
            }
            return;
        }
        let told = self.emit(counters, report);
        let challenger = Challenger {
            frames: 1,
            seen_ns: self.now_ns,
            told_ns: if told { self.now_ns } else { 0 },
            flags: report.flags,
            strength: self.claim.strength,
            reserved: [0; 5],
        };
        // If there is no room even in an LRU, the next frame is told as if it were the first.
        let _ = CHALLENGERS.insert(key, challenger, u64::from(BPF_ANY));
    }

    /// Whether the ring had room.
    #[inline(always)]
    fn emit(&self, counters: &mut BridgeCounters, report: Report) -> bool {
        let Some(mut entry) = EVENTS.reserve::<Event>(0) else {
            counters.events_lost += 1;
            return false;
        };
        #[expect(unsafe_code, reason = "bpf_ktime_get_ns is a helper")]
        // SAFETY: the helper takes nothing and returns a number.
        let time_ns = unsafe { bpf_ktime_get_ns() };
        entry.write(Event {
            time_ns,
            key: self.claim.key,
            ifindex: self.from,
            holder_ifindex: report.holder.ifindex,
            mac: self.claim.mac,
            eth_src: self.claim.eth_src,
            holder_mac: report.holder.mac,
            kind: report.kind,
            strength: self.claim.strength,
            flags: report.flags,
            reserved: [0; 2],
        });
        entry.submit(0);
        true
    }
}
