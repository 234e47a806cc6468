//! The clock that claims are dated with.

use core::ptr;

use aya_ebpf::helpers::{bpf_ktime_get_coarse_ns, bpf_ktime_get_ns};

/// Whether the kernel has the coarse clock (from 5.11), which is the cheaper one. The agent sets it
/// before it loads the program; the verifier then drops the branch that is not taken, before it
/// looks at the helper in it.
#[expect(unsafe_code, reason = "the agent finds it by its name")]
// SAFETY: nothing else has this name.
#[unsafe(no_mangle)]
static COARSE_CLOCK: u8 = 1;

/// Nanoseconds since boot, to the precision of a tick where the kernel has that cheaper.
#[inline(always)]
pub(crate) fn now_ns() -> u64 {
    #[expect(unsafe_code, reason = "a value that the agent may have replaced, and two helpers")]
    // SAFETY: the value is there for as long as the program is; the helpers take nothing and return
    // a number.
    unsafe {
        if ptr::read_volatile(&raw const COARSE_CLOCK) == 0 {
            bpf_ktime_get_ns()
        } else {
            bpf_ktime_get_coarse_ns()
        }
    }
}
