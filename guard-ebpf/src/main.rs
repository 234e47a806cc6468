//! The program on the ingress of every bridge port.

#![no_std]
#![no_main]

use aya_ebpf::{macros::classifier, programs::TcContext};

/// Lets the next program on the hook run (`TCX_NEXT`); `TC_ACT_OK` would skip it.
const NEXT: i32 = -1;

/// Watches the frames that a port delivers.
#[classifier]
pub fn guard(_ctx: TcContext) -> i32 {
    NEXT
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
