//! The program on the ingress of every bridge port. It observes: every frame goes on to the next
//! program, whatever the decision says of enforcement.

#![no_std]
#![no_main]

mod clock;
mod maps;

use core::{mem::MaybeUninit, ptr};

use aya_ebpf::{
    bindings::__sk_buff, helpers::bpf_skb_load_bytes, macros::classifier, programs::TcContext,
};
use guard_ebpf::{
    abi::{BridgeCounters, Port},
    frame::Frame,
    known::known,
    watch::{Ingress, Store as _, watch_closely},
};

use crate::maps::{COUNTERS, FRAMES, Maps, SCRATCH, port};

/// Lets the next program on the hook run (`TCX_NEXT`); `TC_ACT_OK` would skip it.
const NEXT: i32 = -1;

/// Watches the frames that a port delivers.
#[classifier]
fn guard(ctx: TcContext) -> i32 {
    // A port or a counter that is not there: not ours to watch.
    let _ = watch(&Skb(ctx));
    NEXT
}

struct Skb(TcContext);

impl Skb {
    #[inline(always)]
    fn ifindex(&self) -> u32 {
        #[expect(unsafe_code, reason = "the context is read through a pointer")]
        // SAFETY: the kernel hands the program a valid context, and the verifier checks the access.
        unsafe {
            (*self.0.skb.skb).ifindex
        }
    }
}

impl Frame for Skb {
    #[inline(always)]
    fn load<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        /// A word's alignment: fields are read as they are aligned in it, not byte by byte.
        #[repr(align(8))]
        struct Aligned<const N: usize>(MaybeUninit<[u8; N]>);

        let mut bytes = Aligned(MaybeUninit::uninit());
        let (offset, len) = (u32::try_from(offset).ok()?, u32::try_from(N).ok()?);
        #[expect(unsafe_code, reason = "bpf_skb_load_bytes is a helper that fills a buffer")]
        // SAFETY: the buffer has `len` bytes, all of which the helper writes if it succeeds.
        unsafe {
            let skb = self.0.skb.skb.cast();
            let failed = bpf_skb_load_bytes(skb, offset, bytes.0.as_mut_ptr().cast(), len) != 0;
            if failed { None } else { Some(bytes.0.assume_init()) }
        }
    }

    #[inline(always)]
    fn head<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        // A packet starts at an even address, and its fields are at even offsets.
        #[repr(C, align(2))]
        struct Even<const N: usize>([u8; N]);

        let (start, end) = (self.0.data(), self.0.data_end());
        if start + offset + N <= end {
            #[expect(unsafe_code, reason = "the packet is read through a pointer")]
            // SAFETY: the bytes are in the linear part, as the verifier checks once more.
            let Even(bytes) = unsafe { ptr::read((start + offset) as *const Even<N>) };
            return Some(bytes);
        }
        self.load(offset)
    }

    #[inline(always)]
    fn stripped_tag(&self) -> Option<u16> {
        #[expect(unsafe_code, reason = "the context is read through a pointer")]
        // SAFETY: as in `ifindex`.
        let (present, tci) =
            unsafe { ((*self.0.skb.skb).vlan_present, (*self.0.skb.skb).vlan_tci) };
        #[expect(clippy::cast_possible_truncation, reason = "the kernel holds it in 16 bits")]
        (present != 0).then_some(tci as u16)
    }
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
    match known(skb, &Maps, port, from, || Maps.now_ns()) {
        Some(kind) => counters.frame(kind),
        None => closely(skb.0.skb.skb, port, from, counters),
    }
    Some(())
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
