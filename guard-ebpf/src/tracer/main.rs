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

use aya_ebpf::{macros::classifier, programs::TcContext};
use aya_log_ebpf::info;
use guard_ebpf::{trace::trace, watch::Store as _};

use crate::{
    maps::{Maps, SCRATCH, port},
    skb::Skb,
};

/// As the other program's.
const NEXT: i32 = -1;

/// Tells of the frames that a port delivers.
#[classifier]
fn guard_trace(ctx: TcContext) -> i32 {
    let _ = tell(&Skb(ctx));
    NEXT
}

#[inline(always)]
fn tell(skb: &Skb) -> Option<()> {
    let from = skb.ifindex();
    let port = port(from)?;
    let scratch = SCRATCH.get_ptr_mut(0)?;
    #[expect(unsafe_code, reason = "the scratch is written in place")]
    // SAFETY: this CPU's own, on which no second frame is traced meanwhile; zeroes, as the kernel
    // makes them, are valid.
    let scratch = unsafe { &mut *scratch };
    let traced = trace(skb, &Maps, port, from, Maps.now_ns(), scratch);
    let words = bytemuck::bytes_of(&traced);
    info!(&skb.0, "{:x}", words);
    Some(())
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
