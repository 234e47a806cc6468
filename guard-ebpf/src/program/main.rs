//! The program on the ingress of every bridge port. It observes: every frame goes on to the next
//! program, whatever the decision says of enforcement.

#![no_std]
#![no_main]

mod clock;
mod maps;
mod tell;

use core::{mem::MaybeUninit, ptr};

use aya_ebpf::{
    bindings::BPF_NOEXIST, helpers::bpf_skb_load_bytes, macros::classifier, programs::TcContext,
};
use guard_ebpf::{
    abi::{BridgeCounters, Live, Port},
    claim::Claim,
    decide::{Action, Decision, Holder, against_live, judge},
    frame::{Frame, parse},
    known::known,
};

use crate::{
    clock::now_ns,
    maps::{COUNTERS, FRAMES, LIVE, Maps, OWNED, PORTS},
    tell::Teller,
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

impl Skb {
    /// Reads what lies outside the linear part of the socket buffer.
    #[inline(always)]
    fn load_far<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
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
}

impl Frame for Skb {
    #[inline(always)]
    fn load<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
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
        self.load_far(offset)
    }

    #[inline(always)]
    fn is_tag_stripped(&self) -> bool {
        #[expect(unsafe_code, reason = "the context is read through a pointer")]
        // SAFETY: as in `ifindex`.
        unsafe {
            (*self.0.skb.skb).vlan_present != 0
        }
    }
}

#[inline(always)]
fn watch(skb: &Skb) -> Option<()> {
    let from = skb.ifindex();
    #[expect(unsafe_code, reason = "a map's value may change while it is read")]
    // SAFETY: plain data that the verifier keeps in bounds, written by the agent alone.
    let port = unsafe { PORTS.get(from) }?;
    let frames = FRAMES.get_ptr_mut(port.port_slot)?;
    let counters = COUNTERS.get_ptr_mut(port.bridge_slot)?;
    #[expect(unsafe_code, reason = "counters are written in place")]
    // SAFETY: this CPU's own values, which the verifier keeps in bounds.
    let (frames, counters) = unsafe { (&mut *frames, &mut *counters) };
    *frames += 1;

    if let Some(kind) = known(skb, &Maps, port, from, now_ns) {
        counters.count_known(kind);
        return Some(());
    }
    let parsed = parse(skb, port);
    // Only claims are dated.
    let now_ns = if parsed.claim().is_some() { now_ns() } else { 0 };
    let decision = judge(&Maps, port, from, &parsed, now_ns);
    counters.count(&parsed, &decision);
    if let Some(claim) = parsed.claim() {
        apply(port, from, claim, decision, now_ns, counters);
    }
    Some(())
}

#[inline(always)]
fn apply(
    port: &Port,
    from: u32,
    claim: &Claim,
    decision: Decision,
    now_ns: u64,
    counters: &mut BridgeCounters,
) {
    let key = &claim.key;
    let teller = Teller { claim, from, now_ns };
    match decision.action {
        Action::Nothing | Action::Malformed(_) | Action::NoClaim(_) => {}
        Action::RefreshOwner => {
            let Some(owned) = OWNED.get_ptr_mut(key) else { return };
            #[expect(unsafe_code, reason = "the stamp is stored in place")]
            // SAFETY: an aligned number that the verifier keeps in bounds. Should the agent replace
            // the entry within these few instructions, the stamp is lost with it, or lands in the
            // entry that took its memory: the event of a first claim can be missed, so nothing may
            // rest on it alone.
            let owned = unsafe { &mut *owned };
            let first = owned.seen_ns == 0;
            owned.seen_ns = now_ns;
            if first {
                teller.owner(counters, Holder::declared(owned));
            }
        }
        Action::RefreshLive => {
            let Some(live) = LIVE.get_ptr_mut(key) else { return };
            #[expect(unsafe_code, reason = "the stamp is stored in place")]
            // SAFETY: as above.
            let live = unsafe { &mut *live };
            let asked = live.seen_ns == 0;
            live.seen_ns = now_ns;
            if claim.strength > live.strength {
                live.strength = claim.strength;
            }
            if asked {
                teller.live(counters);
            }
        }
        Action::InsertLive => insert(port, &teller, counters),
        Action::Report(report) => teller.challenger(counters, report),
    }
}

/// The first claimant on any CPU gets the address; one that came second is judged against it.
#[inline(always)]
fn insert(port: &Port, teller: &Teller<'_>, counters: &mut BridgeCounters) {
    let live = Live {
        first_ns: teller.now_ns,
        seen_ns: teller.now_ns,
        ifindex: teller.from,
        mac: teller.claim.mac,
        strength: teller.claim.strength,
        reserved: [0; 5],
    };
    if LIVE.insert(teller.claim.key, live, u64::from(BPF_NOEXIST)).is_ok() {
        teller.live(counters);
        return;
    }
    let Teller { claim, from, now_ns } = *teller;
    let again = against_live(&Maps, port, from, claim, true, now_ns);
    match again.action {
        Action::Report(report) => teller.challenger(counters, report),
        // Still nobody: there is no room.
        Action::InsertLive => counters.live_full += 1,
        _ => {}
    }
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
