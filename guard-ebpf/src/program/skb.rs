//! A socket buffer, as the frame that it holds.

use core::{hint::black_box, mem::MaybeUninit, ptr};

use aya_ebpf::{helpers::bpf_skb_load_bytes, programs::TcContext};
use guard_ebpf::{abi::FRAME_BYTES, frame::Frame};

/// The frame of a run of a program.
pub(crate) struct Skb(pub(crate) TcContext);

impl Skb {
    /// The port that it comes from.
    #[inline(always)]
    pub(crate) fn ifindex(&self) -> u32 {
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
    fn size(&self) -> u32 {
        #[expect(unsafe_code, reason = "the context is read through a pointer")]
        // SAFETY: as in `ifindex`.
        unsafe {
            (*self.0.skb.skb).len
        }
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

    #[inline(always)]
    fn begin(&self, into: &mut [u8; FRAME_BYTES]) {
        #[expect(clippy::cast_possible_truncation, reason = "a small number")]
        const MOST: u32 = FRAME_BYTES as u32;
        // The verifier is to see both bounds, and from an inequality it does not learn the lower one.
        let last = black_box(self.size().min(MOST).wrapping_sub(1));
        if last >= MOST {
            return;
        }
        #[expect(unsafe_code, reason = "bpf_skb_load_bytes is a helper that fills a buffer")]
        // SAFETY: the buffer has at least so many bytes. If it fails, nothing of the frame is kept.
        let _ = unsafe {
            bpf_skb_load_bytes(self.0.skb.skb.cast(), 0, into.as_mut_ptr().cast(), last + 1)
        };
    }

    #[inline(always)]
    fn stripped_type(&self) -> u16 {
        #[expect(unsafe_code, reason = "the context is read through a pointer")]
        // SAFETY: as in `ifindex`.
        let network_order = unsafe { (*self.0.skb.skb).vlan_proto };
        #[expect(clippy::cast_possible_truncation, reason = "the kernel holds it in 16 bits")]
        u16::from_be(network_order as u16)
    }
}
