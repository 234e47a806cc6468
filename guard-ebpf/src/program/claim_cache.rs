//! The caches of claims and of drops in the program: one look-up for a burst of frames.

use aya_ebpf::{
    helpers::bpf_jiffies64,
    macros::map,
    maps::{Array, PerCpuArray},
};
use guard_ebpf::{
    claim_cache::{CachedClaim, Moment, SLOTS, slot},
    drop_cache::CachedDrop,
    fast_path::FastClaim,
    watch::{Ingress, Scratch, Store as _},
};

use crate::{
    maps::{Maps, OWNED_CHANGES},
    skb::Skb,
};

#[map]
static LIVE_CHANGES: Array<u64> = Array::with_max_entries(1, 0);

#[map]
static RECENT: PerCpuArray<CachedClaim> = PerCpuArray::with_max_entries(SLOTS, 0);

#[map]
static DROPPED: PerCpuArray<CachedDrop> = PerCpuArray::with_max_entries(SLOTS, 0);

/// Whether the claim was known a moment ago.
#[inline(always)]
pub(crate) fn is_cached(claim: &FastClaim, from: u32) -> bool {
    cached(claim).is_some_and(|cached| cached.is(claim, from, moment))
}

/// Asks the maps, and remembers who is known.
#[inline(always)]
pub(crate) fn is_current(claim: &FastClaim, from: u32) -> bool {
    let moment = moment();
    let is_current = claim.is_current(&Maps, from, || Maps.now_ns());
    if is_current && let Some(cached) = cached(claim) {
        *cached = CachedClaim::new(claim, from, moment);
    }
    is_current
}

/// Whether a frame like it was dropped a moment ago: then it is counted, and to be dropped.
#[inline(always)]
pub(crate) fn is_dropped(skb: &Skb, claim: &FastClaim, ingress: &mut Ingress<'_>) -> bool {
    dropped(claim).is_some_and(|dropped| dropped.counts(skb, claim, &mut Maps, ingress, moment))
}

/// Remembers a frame that was dropped.
#[inline(always)]
pub(crate) fn remember(claim: &FastClaim, ingress: &Ingress<'_>, scratch: &Scratch) {
    if let Some(dropped) = dropped(claim) {
        dropped.remember(claim, &Maps, ingress, scratch, moment);
    }
}

/// Where a frame that was dropped is remembered.
#[inline(always)]
fn dropped(claim: &FastClaim) -> Option<&'static mut CachedDrop> {
    let dropped = DROPPED.get_ptr_mut(slot(&claim.key))?;
    #[expect(unsafe_code, reason = "what is remembered is written in place")]
    // SAFETY: as with a claim.
    Some(unsafe { &mut *dropped })
}

/// Where the claim is remembered.
#[inline(always)]
fn cached(claim: &FastClaim) -> Option<&'static mut CachedClaim> {
    let cached = RECENT.get_ptr_mut(slot(&claim.key))?;
    #[expect(unsafe_code, reason = "what is remembered is written in place")]
    // SAFETY: this CPU's own, on which no second frame is watched meanwhile (one may be during a test
    // run, and mix two claims until the next tick); zeroes, as the kernel makes them, are valid.
    Some(unsafe { &mut *cached })
}

/// The clock's tick, and the agent's changes up to now. The kernel puts a read of `jiffies`, and
/// the address of an array's slot, in the place of the calls.
#[inline(always)]
fn moment() -> Moment {
    let changes = |map: &Array<u64>| match map.get_ptr(0) {
        #[expect(unsafe_code, reason = "a map's value may change while it is read")]
        // SAFETY: a word that the verifier keeps in bounds, read before what it tells of.
        Some(count) => unsafe { count.read_volatile() },
        None => 0,
    };
    #[expect(unsafe_code, reason = "bpf_jiffies64 is a helper")]
    // SAFETY: the helper takes nothing and returns a number.
    let tick = unsafe { bpf_jiffies64() };
    Moment { tick, owned: changes(&OWNED_CHANGES), live: changes(&LIVE_CHANGES) }
}
