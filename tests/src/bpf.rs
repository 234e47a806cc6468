//! What bpf(2) does and aya has no call for.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::Result;
use aya::maps::{Map, MapData, RingBuf};
use nix::libc::{SYS_bpf, close, syscall};

/// `BPF_OBJ_GET` and `BPF_LINK_DETACH` (linux/bpf.h).
const OBJ_GET: i64 = 7;
const LINK_DETACH: i64 = 34;

/// Detaches a link from what it is on, and leaves its pin.
pub(crate) fn detach_link(pin: &Path) -> io::Result<()> {
    let path = CString::new(pin.as_os_str().as_bytes())?;
    // `pathname`, `bpf_fd` and `file_flags`; and then `link_fd`.
    let link = bpf(OBJ_GET, [path.as_ptr() as u64, 0])?;
    let detached = bpf(LINK_DETACH, [link.cast_unsigned().into(), 0]);
    #[expect(unsafe_code, reason = "the descriptor is a bare number")]
    // SAFETY: the kernel has just given it to us, and nobody else knows it.
    unsafe {
        close(link);
    }
    detached.map(drop)
}

/// Takes all records off a pinned ring, and answers how many there were.
pub(crate) fn drain(pin: &Path) -> Result<usize> {
    let mut ring = RingBuf::try_from(Map::from_map_data(MapData::from_pin(pin)?)?)?;
    let mut records = 0;
    while ring.next().is_some() {
        records += 1;
    }
    Ok(records)
}

fn bpf(command: i64, mut attributes: [u64; 2]) -> io::Result<i32> {
    #[expect(unsafe_code, reason = "bpf(2) has no wrapper")]
    // SAFETY: the attributes are as long as said, and what they point to outlives the call.
    let result =
        unsafe { syscall(SYS_bpf, command, attributes.as_mut_ptr(), size_of_val(&attributes)) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        i32::try_from(result).map_err(io::Error::other)
    }
}
