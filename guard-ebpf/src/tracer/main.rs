//! A program that tells how each frame of one port is decoded, through aya-log. It is on a port only
//! while somebody watches, beside the other, which it leaves as it is: a trace costs nobody anything
//! else, and the other is never the one that the verifier had to be talked into for it.

#![no_std]
#![no_main]

#[path = "../program/clock.rs"]
mod clock;
#[path = "../program/maps.rs"]
mod maps;
#[path = "../program/skb.rs"]
mod skb;

use aya_ebpf::{
    bindings::__sk_buff,
    macros::{classifier, map},
    maps::PerCpuArray,
    programs::TcContext,
};
use aya_log_ebpf::info;
use guard_ebpf::{
    trace::{Arrival, Traced, trace},
    watch::Store as _,
};

use crate::{
    maps::{Maps, SCRATCH, port},
    skb::Skb,
};

/// As the other program's.
const NEXT: i32 = -1;

/// How many records were told, with those for which aya-log had no room, of which it says nothing.
/// A record is counted once it is in the ring or lost.
#[map]
static TOLD: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Tells of the frames that a port delivers.
#[classifier]
fn guard_trace(ctx: TcContext) -> i32 {
    let _ = frame(&Skb(ctx));
    NEXT
}

#[inline(always)]
fn frame(skb: &Skb) -> Option<()> {
    let from = skb.ifindex();
    let port = port(from)?;
    let scratch = SCRATCH.get_ptr_mut(0)?;
    #[expect(unsafe_code, reason = "the scratch is written in place")]
    // SAFETY: this CPU's own, on which no second frame is traced meanwhile; zeroes, as the kernel
    // makes them, are valid.
    let scratch = unsafe { &mut *scratch };
    let tell = |traced: &Traced| tell(skb.0.skb.skb, traced);
    let at = Arrival { port, from, now_ns: Maps.now_ns() };
    trace(skb, &Maps, &at, scratch, tell);
    Some(())
}

/// Writes a record of the trace, and counts it. A BPF subprogram (the verifier bounds the stack per
/// function).
#[inline(never)]
fn tell(skb: *mut __sk_buff, traced: &Traced) {
    info!(&TcContext::new(skb), "{:x}", bytemuck::bytes_of(traced));
    if let Some(told) = TOLD.get_ptr_mut(0) {
        #[expect(unsafe_code, reason = "counters are written in place")]
        // SAFETY: this CPU's own value, which the verifier keeps in bounds.
        unsafe {
            *told += 1;
        }
    }
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
