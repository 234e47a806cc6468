//! A cache of frames that were dropped a moment ago: of a flood, the next one is counted as they were, and
//! nothing else is done about it.
//!
//! It holds for as long as the [`claim_cache`](crate::claim_cache) does. What may change within a tick is
//! looked at for each frame: the port's policy, the bridge's mode, how many MACs the port has, and whether
//! the challenger is due to be told of again. Then the slow path has the frame.

use bytemuck::Zeroable;

use crate::{
    abi::{CLAIM_DROPPED, CLAIM_GROUP, ChallengerKey, DropKey, PORT_UPLINK},
    claim_cache::{CachedClaim, Moment},
    decide::is_due,
    enforce::dropped,
    fast_path::FastClaim,
    frame::Frame,
    mac,
    watch::{Ingress, Scratch, Store},
};

/// What came of a frame that was dropped for one claim on what another holds.
#[derive(Clone, Copy, Debug, Zeroable)]
#[repr(C)]
pub struct CachedDrop {
    claim: CachedClaim,
    challenger: ChallengerKey,
    /// A bit for each reason to drop it.
    reasons: u32,
    /// How many MACs the port had.
    macs: u32,
    /// The challenger's `CLAIM_*` bits.
    flags: u16,
    strength: u8,
}

impl CachedDrop {
    /// Remembers the frame that the slow path has just dropped, if the next one like it would only be
    /// counted: not where it spends a quota, or is told of twice, nor on an uplink, where a frame to a
    /// station alone is told of at once.
    #[inline(always)]
    pub fn remember<S: Store>(
        &mut self,
        claim: &FastClaim,
        store: &S,
        ingress: &Ingress<'_>,
        scratch: &Scratch,
        moment: impl FnOnce() -> Moment,
    ) {
        let Some((report, reasons)) = scratch.dropped() else { return };
        let Some(state) = store.port_state(ingress.port.port_slot) else { return };
        let moment = moment();
        if !scratch.judged_at(moment.owned) || ingress.port.kind == PORT_UPLINK {
            return;
        }
        let (key, from) = (bytemuck::must_cast(claim.key), ingress.from);
        self.claim = CachedClaim::new(claim, from, moment);
        self.challenger = ChallengerKey::new(&key, from, claim.mac, report.kind);
        self.reasons = reasons;
        self.macs = state.admitted_macs;
        self.flags = report.flags | CLAIM_DROPPED;
        self.strength = claim.strength;
    }

    /// Whether the frame is one more like it: then it is counted, and to be dropped.
    #[inline(always)]
    #[must_use]
    pub fn counts<F: Frame + ?Sized, S: Store>(
        &self,
        frame: &F,
        claim: &FastClaim,
        store: &mut S,
        ingress: &mut Ingress<'_>,
        moment: impl FnOnce() -> Moment,
    ) -> bool {
        let (port, from) = (ingress.port, ingress.from);
        if !self.claim.is(claim, from, moment)
            || claim.strength != self.strength
            || group(frame) != self.flags & CLAIM_GROUP
            || store.port_state(port.port_slot).is_none_or(|state| state.admitted_macs != self.macs)
        {
            return false;
        }
        let now_ns = store.now_ns();
        let Some(reason) = dropped(store, port, from, self.reasons, now_ns) else { return false };
        match store.challenger_mut(&self.challenger) {
            Some(challenger) if !is_due(challenger, now_ns) => {
                challenger.frames += 1;
                challenger.seen_ns = now_ns;
                challenger.flags = self.flags;
                challenger.strength = self.strength;
            }
            _ => return false,
        }
        ingress.counters.frame(claim.kind);
        ingress.counters.drop(reason, true);
        // There may have been no room.
        if let Some(drops) = store.drops_mut(&DropKey { ifindex: from, reason }) {
            drops.dropped += 1;
            drops.last_ns = now_ns;
        }
        true
    }
}

/// [`CLAIM_GROUP`] if the frame is to a group, else 0.
#[inline(always)]
fn group<F: Frame + ?Sized>(frame: &F) -> u16 {
    if frame.head::<6>(0).is_some_and(mac::is_group) { CLAIM_GROUP } else { 0 }
}
