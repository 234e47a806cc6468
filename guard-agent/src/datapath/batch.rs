//! All entries of a hash map of the kernel, many with each system call (`BPF_MAP_LOOKUP_BATCH`,
//! Linux 5.6): an iterator over the keys takes two calls for each entry, and begins anew where one
//! is removed under it.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _},
};

use aya::{
    Pod,
    maps::{IterableMap, MapError},
    sys::SyscallError,
};
use bytemuck::Zeroable;
use nix::libc::{self, SYS_bpf, c_long};

/// `BPF_MAP_LOOKUP_BATCH` (linux/bpf.h).
const LOOKUP_BATCH: c_long = 24;

/// Entries of the first call. More are asked for where one bucket has as many.
const CHUNK: usize = 1024;

/// `union bpf_attr`, `batch`.
#[repr(C)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// Reads all entries. What comes and goes meanwhile is among them or not.
///
/// # Errors
/// The kernel's refusal.
pub(crate) fn entries<K, V>(map: &impl IterableMap<K, V>) -> Result<Vec<(K, V)>, MapError>
where
    K: Pod + Zeroable,
    V: Pod + Zeroable,
{
    let fd = map.map().fd().as_fd().as_raw_fd();
    let (mut keys, mut values) = (vec![K::zeroed(); CHUNK], vec![V::zeroed(); CHUNK]);
    let mut entries = Vec::new();
    // The bucket to go on from; the kernel takes none for the first.
    let mut next = None;
    loop {
        let (from, mut to) = (next.unwrap_or_default(), 0_u32);
        let mut batch = Batch {
            in_batch: if next.is_some() { &raw const from as u64 } else { 0 },
            out_batch: &raw mut to as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: u32::try_from(keys.len()).unwrap_or(u32::MAX),
            map_fd: fd.cast_unsigned(),
            elem_flags: 0,
            flags: 0,
        };
        let last = match lookup(&mut batch) {
            Ok(()) => false,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
            Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                let more = keys.len() * 2;
                keys.resize(more, K::zeroed());
                values.resize(more, V::zeroed());
                continue;
            }
            Err(io_error) => {
                return Err(SyscallError { call: "bpf_map_lookup_batch", io_error }.into());
            }
        };
        let read = usize::try_from(batch.count).unwrap_or(0);
        entries.extend(keys.iter().copied().zip(values.iter().copied()).take(read));
        if last {
            return Ok(entries);
        }
        next = Some(to);
    }
}

fn lookup(batch: &mut Batch) -> io::Result<()> {
    #[expect(unsafe_code, reason = "aya has no call for it")]
    // SAFETY: the attributes are as long as said; the buffers that they point to outlive the call
    // and have room for `count` keys and values of the map's own types.
    let result =
        unsafe { libc::syscall(SYS_bpf, LOOKUP_BATCH, &raw mut *batch, size_of::<Batch>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
