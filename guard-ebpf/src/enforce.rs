//! From the reasons to drop a frame to what is done with it: which of them count on its port, whether
//! its bridge is enforced, and the count of what is dropped, or would be.

use core::hint::black_box;

use crate::{
    abi::{DropKey, MODE_ENFORCE, MODE_OBSERVE, Mode, NO_TAG, Policy, Port},
    decide::{PASS, Tables},
    frame::Frame,
    watch::{Ingress, Store},
};

/// The frame passes, and would if it were enforced.
pub(crate) const PASSES: u32 = 0;
/// It passes, and would not.
pub(crate) const WOULD_DROP: u32 = 1;
/// It is dropped.
pub(crate) const DROPPED: u32 = 2;

/// What is done with a frame, given a bit for each reason to drop it: one of the constants above. Counts
/// it. A BPF subprogram (the verifier bounds the stack per function).
#[inline(never)]
pub(crate) fn settle<F: Frame + ?Sized, S: Store>(
    frame: &F,
    store: &mut S,
    ingress: &mut Ingress<'_>,
    reasons: u32,
    now_ns: u64,
) -> u32 {
    let (count, drop) = match policy(store, ingress.port, ingress.from) {
        None => {
            ingress.counters.unjudged += 1;
            return PASSES;
        }
        Some(Policy { drops, .. }) if reasons & drops == PASS => return PASSES,
        Some(policy) => {
            let count = reasons & policy.drops;
            (count, count & !spared(policy, store.mode(ingress.port.bridge_slot), now_ns))
        }
    };
    let dropped = drop != PASS;
    let reason = first(if dropped { drop } else { count });
    ingress.counters.drop(reason, dropped);
    let key = DropKey { ifindex: ingress.from, reason };
    note(frame, store, &key, u32::from(dropped), now_ns);
    if dropped { DROPPED } else { WOULD_DROP }
}

/// The number of the first reason for which a frame is dropped, if it is.
#[inline(always)]
pub(crate) fn dropped<T: Tables>(
    tables: &T,
    port: &Port,
    from: u32,
    reasons: u32,
    now_ns: u64,
) -> Option<u32> {
    let policy = policy(tables, port, from)?;
    match reasons & policy.drops & !spared(policy, tables.mode(port.bridge_slot), now_ns) {
        PASS => None,
        drop => Some(first(drop)),
    }
}

/// The policy of the port. What an earlier port has left in its slot is none.
#[inline(always)]
pub(crate) fn policy<'a, T: Tables>(tables: &'a T, port: &Port, from: u32) -> Option<&'a Policy> {
    tables.policy(port.port_slot).filter(|policy| policy.ifindex == from)
}

/// A bit for each reason for which nothing drops now.
#[inline(always)]
fn spared(policy: &Policy, mode: Option<&Mode>, now_ns: u64) -> u32 {
    let Mode { enforce, braked } = mode.copied().unwrap_or_default();
    let is_over = policy.until_ns != 0 && now_ns >= policy.until_ns;
    match policy.mode {
        _ if is_over && enforce == 0 => u32::MAX,
        _ if is_over => braked,
        MODE_OBSERVE => u32::MAX,
        MODE_ENFORCE => braked,
        _ if enforce == 0 => u32::MAX,
        _ => braked,
    }
}

/// Of a bit for each reason the code of the first that counts on the port: its number and one, or 0
/// without any.
#[inline(always)]
pub(crate) fn code<T: Tables>(tables: &T, port: &Port, from: u32, reasons: u32) -> u32 {
    match policy(tables, port, from).map_or(PASS, |policy| reasons & policy.drops) {
        PASS => 0,
        count => first(count) + 1,
    }
}

/// The number of the first reason, of at least one. Their order is that of their bits, so what lies below
/// the lowest is counted; what the compiler would make of the lowest bit's number is a table.
#[inline(always)]
fn first(reasons: u32) -> u32 {
    let lowest = black_box(reasons & reasons.wrapping_neg());
    lowest.wrapping_sub(1).count_ones()
}

/// Counts a frame for its port and reason, and keeps the first. A BPF subprogram.
#[inline(never)]
fn note<F: Frame + ?Sized, S: Store>(
    frame: &F,
    store: &mut S,
    key: &DropKey,
    dropped: u32,
    now_ns: u64,
) {
    if store.drops_mut(key).is_none() {
        store.insert_drops(key);
    }
    // There may be no room.
    let Some(drops) = store.drops_mut(key) else { return };
    if dropped != 0 {
        drops.dropped += 1;
    } else {
        drops.would_drop += 1;
    }
    drops.last_ns = now_ns;
    // Of each CPU the first: another may have inserted it.
    if drops.first_ns == 0 {
        drops.first_ns = now_ns;
        drops.len = frame.size();
        drops.tag = frame.stripped_tag().map_or(NO_TAG, u32::from);
        frame.begin(&mut drops.frame);
    }
}
