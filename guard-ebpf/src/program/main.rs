//! The program on the ingress of every bridge port. It observes: every frame goes on to the next
//! program, whatever the decision says of enforcement.

#![no_std]
#![no_main]

mod clock;
mod maps;
mod recent;
mod skb;

use aya_ebpf::{bindings::__sk_buff, macros::classifier, programs::TcContext};
use guard_ebpf::{
    abi::{BridgeCounters, Port},
    known::plain,
    watch::{Ingress, watch_closely},
};

use crate::{
    maps::{COUNTERS, FRAMES, Maps, SCRATCH, port},
    recent::{is_known, is_remembered},
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
    match plain(skb, port) {
        Some(plain) if is_remembered(&plain, from) => counters.frame(plain.kind),
        Some(_) if ask(ctx, port, from, counters) != 0 => {}
        _ => closely(ctx, port, from, counters),
    }
    Some(())
}

/// Asks the maps for a frame's claimant, and counts the frame unless that gives 0. A program of its own
/// within this one, for its stack: older kernels add up that of all that wait for one another.
#[inline(never)]
fn ask(skb: *mut __sk_buff, port: &Port, from: u32, counters: &mut BridgeCounters) -> u32 {
    let skb = Skb(TcContext::new(skb));
    let Some(plain) = plain(&skb, port).filter(|plain| is_known(plain, from)) else { return 0 };
    counters.frame(plain.kind);
    1
}

/// The long way, as a program of its own within this one: the short way then needs no registers
/// saved, and hardly any stack.
#[inline(never)]
fn closely(skb: *mut __sk_buff, port: &Port, from: u32, counters: &mut BridgeCounters) {
    let skb = Skb(TcContext::new(skb));
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return };
    #[expect(unsafe_code, reason = "the scratch is written in place")]
    // SAFETY: this CPU's own, on which no second frame is watched meanwhile; zeroes, as the kernel
    // makes them, are valid.
    let scratch = unsafe { &mut *scratch };
    watch_closely(&skb, &mut Maps, &mut Ingress { port, from, counters }, scratch);
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
