//! The program on the ingress of every bridge port. It observes: every frame goes on to the next
//! program, whatever the decision says of enforcement.

#![no_std]
#![no_main]

mod claim_cache;
mod clock;
mod maps;
mod skb;

use aya_ebpf::{bindings::__sk_buff, macros::classifier, programs::TcContext};
use guard_ebpf::{
    abi::{BridgeCounters, Port},
    fast_path::fast_claim,
    watch::{Ingress, slow_path},
};

use crate::{
    claim_cache::{is_cached, is_current},
    maps::{COUNTERS, FRAMES, Maps, SCRATCH, port},
    skb::Skb,
};

/// Lets the next program on the hook run (`TCX_NEXT`); `TC_ACT_OK` would skip it.
const NEXT: i32 = -1;

/// Watches the frames that a port delivers.
#[classifier]
fn guard(ctx: TcContext) -> i32 {
    // A port or a counter that is not there: not ours to watch.
    let _ = watch(&Skb(ctx));
    NEXT
}

#[inline(always)]
fn watch(skb: &Skb) -> Option<()> {
    let from = skb.ifindex();
    let port = port(from)?;
    let frames = FRAMES.get_ptr_mut(port.port_slot)?;
    let counters = COUNTERS.get_ptr_mut(port.bridge_slot)?;
    #[expect(unsafe_code, reason = "counters are written in place")]
    // SAFETY: this CPU's own values, which the verifier keeps in bounds.
    let (frames, counters) = unsafe { (&mut *frames, &mut *counters) };
    *frames += 1;
    let ctx = skb.0.skb.skb;
    match fast_claim(skb, port) {
        Some(claim) if is_cached(&claim, from) => counters.frame(claim.kind),
        Some(_) if ask(ctx, port, from, counters) != 0 => {}
        _ => slow(ctx, port, from, counters),
    }
    Some(())
}

/// Asks the maps for a frame's claimant, and counts the frame unless that returns 0. A BPF subprogram,
/// for its stack: older kernels bound the sum over all functions that wait for one another.
#[inline(never)]
fn ask(skb: *mut __sk_buff, port: &Port, from: u32, counters: &mut BridgeCounters) -> u32 {
    let skb = Skb(TcContext::new(skb));
    let Some(claim) = fast_claim(&skb, port).filter(|claim| is_current(claim, from)) else {
        return 0;
    };
    counters.frame(claim.kind);
    1
}

/// The slow path, as a BPF subprogram: the fast path then needs no registers saved, and hardly any
/// stack.
#[inline(never)]
fn slow(skb: *mut __sk_buff, port: &Port, from: u32, counters: &mut BridgeCounters) {
    let skb = Skb(TcContext::new(skb));
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return };
    #[expect(unsafe_code, reason = "the scratch is written in place")]
    // SAFETY: this CPU's own, on which no second frame is watched meanwhile; zeroes, as the kernel
    // makes them, are valid.
    let scratch = unsafe { &mut *scratch };
    slow_path(&skb, &mut Maps, &mut Ingress { port, from, counters }, scratch);
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
