//! The program on the ingress of every bridge port: what is not to arrive is dropped there, before the
//! bridge has learned anything of it; every other frame goes on to the next program.

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
    watch::{Ingress, Scratch, Steps, Work, slow_path},
};

use crate::{
    claim_cache::{is_cached, is_current},
    maps::{COUNTERS, FRAMES, Maps, SCRATCH, port},
    skb::Skb,
};

/// Lets the next program on the hook run (`TCX_NEXT`); `TC_ACT_OK` would skip it.
const NEXT: i32 = -1;
/// Drops the frame.
const SHOT: i32 = 2;

/// Watches the frames that a port delivers.
#[classifier]
fn guard(ctx: TcContext) -> i32 {
    // A port or a counter that is not there: not ours to watch.
    watch(&Skb(ctx)).unwrap_or(NEXT)
}

#[inline(always)]
fn watch(skb: &Skb) -> Option<i32> {
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
        Some(_) if repeats(ctx) != 0 => return Some(SHOT),
        Some(_) if ask(ctx, port, from, counters) != 0 => {}
        _ if slow(ctx, port, counters) != 0 => {
            remember(ctx);
            return Some(SHOT);
        }
        _ => {}
    }
    Some(NEXT)
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
/// stack. Returns 0 unless the frame is dropped.
#[inline(never)]
fn slow(skb: *mut __sk_buff, port: &Port, counters: &mut BridgeCounters) -> u32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else {
        counters.unjudged += 1;
        return 0;
    };
    slow_path(&mut Place { skb: Skb(TcContext::new(skb)), port, counters, scratch }).into()
}

/// Where the slow path works.
struct Place<'a> {
    skb: Skb,
    port: &'a Port,
    counters: *mut BridgeCounters,
    scratch: *mut Scratch,
}

impl Place<'_> {
    /// Finds everything by the frame.
    #[inline(always)]
    fn of(skb: *mut __sk_buff) -> Option<Self> {
        let skb = Skb(TcContext::new(skb));
        let port = port(skb.ifindex())?;
        let counters = COUNTERS.get_ptr_mut(port.bridge_slot)?;
        Some(Self { skb, port, counters, scratch: SCRATCH.get_ptr_mut(0)? })
    }

    #[inline(always)]
    fn with<R>(&self, step: impl FnOnce(Work<'_, '_, Skb, Maps>) -> R) -> R {
        #[expect(unsafe_code, reason = "counters and the scratch are written in place")]
        // SAFETY: this CPU's own values, which the verifier keeps in bounds, lent to one step at a time;
        // on this CPU no second frame is watched meanwhile. Zeroes, as the kernel makes them, are valid.
        let (counters, scratch) = unsafe { (&mut *self.counters, &mut *self.scratch) };
        let ingress = &mut Ingress { port: self.port, from: self.skb.ifindex(), counters };
        step(Work { frame: &self.skb, store: &mut Maps, ingress, scratch })
    }
}

impl Steps for Place<'_> {
    #[inline(always)]
    fn read(&mut self) -> u32 {
        self.with(|mut work| work.read())
    }

    #[inline(always)]
    fn judge(&mut self) -> u32 {
        judge(self.skb.0.skb.skb)
    }

    #[inline(always)]
    fn settle(&mut self) -> u32 {
        self.with(|mut work| work.settle())
    }

    #[inline(always)]
    fn carry_out(&mut self) -> u32 {
        carry_out(self.skb.0.skb.skb)
    }

    #[inline(always)]
    fn source(&mut self) -> u32 {
        self.with(|mut work| work.source())
    }

    #[inline(always)]
    fn notice(&mut self) -> u32 {
        self.with(|mut work| work.notice())
    }

    #[inline(always)]
    fn tell(&mut self) -> u32 {
        tell(self.skb.0.skb.skb)
    }
}

/// Judges a claim. A global function to the kernel, since it has a name of its own: the verifier looks at
/// it once, and not again for each claim and each way that leads to it. Before 5.12 such a function can
/// be handed nothing but the frame.
#[expect(unsafe_code, reason = "a function with a name of its own")]
// SAFETY: nothing else has this name.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn judge(skb: *mut __sk_buff) -> u32 {
    Place::of(skb).map_or(0, |place| place.with(|mut work| work.judge()))
}

/// Carries out what was decided about a claim. A global function as well.
#[expect(unsafe_code, reason = "a function with a name of its own")]
// SAFETY: nothing else has this name.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn carry_out(skb: *mut __sk_buff) -> u32 {
    Place::of(skb).map_or(0, |place| place.with(|mut work| work.carry_out()))
}

/// Tells what there is to tell. A global function as well.
#[expect(unsafe_code, reason = "a function with a name of its own")]
// SAFETY: nothing else has this name.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tell(skb: *mut __sk_buff) -> u32 {
    Place::of(skb).map_or(0, |place| place.with(|mut work| work.tell()))
}

/// Counts a frame like one that was dropped a moment ago: then not 0. A global function as well.
#[expect(unsafe_code, reason = "a function with a name of its own")]
// SAFETY: nothing else has this name.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn repeats(skb: *mut __sk_buff) -> u32 {
    Place::of(skb).map_or(0, |place| {
        let Some(claim) = fast_claim(&place.skb, place.port) else { return 0 };
        place.with(|work| claim_cache::is_dropped(work.frame, &claim, work.ingress)).into()
    })
}

/// Remembers a frame that was dropped. A global function as well.
#[expect(unsafe_code, reason = "a function with a name of its own")]
// SAFETY: nothing else has this name.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn remember(skb: *mut __sk_buff) -> u32 {
    Place::of(skb).map_or(0, |place| {
        let Some(claim) = fast_claim(&place.skb, place.port) else { return 0 };
        place.with(|work| claim_cache::remember(&claim, work.ingress, work.scratch));
        1
    })
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
