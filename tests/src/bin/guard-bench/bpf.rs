//! Programs in the kernel, run over a frame as often as one likes (`BPF_PROG_TEST_RUN`).

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result};
use aya::maps::MapInfo;
use aya::programs::{ProgramInfo, loaded_programs};
use bytemuck::must_cast;
use guard_ebpf::abi::{AddressKey, MAP_OWNED};
use nix::libc::{SYS_bpf, syscall};

const BPF_PROG_LOAD: i64 = 5;
const BPF_PROG_TEST_RUN: i64 = 10;
const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;
/// A helper of the kernel, by its number.
const BPF_MAP_LOOKUP_ELEM: u32 = 1;
/// `mov64 r0, -1` and `exit`.
const EMPTY: [u64; 2] = [0xffff_ffff_0000_00b7, 0x95];
/// Where `__sk_buff` has the interface.
const IFINDEX: usize = 10;

/// A program of the kind that is put on a port.
pub(crate) struct Classifier(OwnedFd);

fn bpf(command: i64, attributes: &mut [u64; 16]) -> io::Result<i64> {
    #[expect(unsafe_code, reason = "bpf(2) has no wrapper for a program without an object file")]
    // SAFETY: the attributes are as long as said, longer than the kernel reads of these commands,
    // and the buffers that they name outlive the call.
    let result =
        unsafe { syscall(SYS_bpf, command, attributes.as_mut_ptr(), size_of_val(attributes)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

const fn pair(low: u32, high: u32) -> u64 {
    low as u64 | (high as u64) << 32
}

impl Classifier {
    /// One that does nothing.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub(crate) fn empty() -> Result<Self> {
        Self::load(&EMPTY)
    }

    /// One that looks an address up among the owned ones of another program, once: what a program that
    /// asks for the owner of each frame takes at least.
    ///
    /// # Errors
    /// The program is gone, or the kernel's refusal.
    pub(crate) fn look_up(program: u32, key: AddressKey) -> Result<Self> {
        let maps = info(program)?.map_ids()?.context("a kernel that lists a program's maps")?;
        let maps = maps.into_iter().filter_map(|id| MapInfo::from_id(id).ok());
        let owned = maps.into_iter().find(|map| map.name_as_str() == Some(MAP_OWNED));
        let owned = owned.with_context(|| format!("program {program} has no {MAP_OWNED}"))?.fd()?;
        let map = u32::try_from(owned.as_fd().as_raw_fd())?;
        let mut program = Vec::new();
        for (word, at) in must_cast::<_, [u64; 3]>(key).into_iter().zip([-24_i16, -16, -8]) {
            // r1 = word; *(u64 *)(r10 + at) = r1
            program.extend([0x118 | (word << 32), word & !u64::from(u32::MAX)]);
            program.push(0x1a7b | u64::from(at.cast_unsigned()) << 16);
        }
        // r1 = map; r2 = r10; r2 += -24; call bpf_map_lookup_elem
        program.extend([pair(0x1118, map), 0, 0xa2bf, pair(0x207, (-24_i32).cast_unsigned())]);
        program.push(pair(0x85, BPF_MAP_LOOKUP_ELEM));
        Self::load(&[&program, &EMPTY[..]].concat())
    }

    fn load(program: &[u64]) -> Result<Self> {
        let mut attributes = [0; 16];
        attributes[0] = pair(BPF_PROG_TYPE_SCHED_CLS, u32::try_from(program.len())?);
        attributes[1] = program.as_ptr() as u64;
        attributes[2] = c"GPL".as_ptr() as u64;
        let fd = bpf(BPF_PROG_LOAD, &mut attributes).context("loading a program")?;
        let fd = i32::try_from(fd).context("a descriptor")?;
        #[expect(unsafe_code, reason = "a descriptor comes as a number")]
        // SAFETY: the kernel has just opened it for us.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// One that is in the kernel already.
    ///
    /// # Errors
    /// It is gone.
    pub(crate) fn of_id(id: u32) -> Result<Self> {
        let fd = info(id)?.fd().context("opening the program")?;
        Ok(Self(fd.as_fd().try_clone_to_owned()?))
    }

    /// Runs it over a frame that comes in at an interface of the caller's network namespace, and
    /// returns the mean of a run, in ns.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub(crate) fn run(&self, frame: &[u8], ifindex: u32, repeat: u32) -> Result<u32> {
        Ok(u32::try_from(self.test_run(frame, ifindex, repeat)?[4] >> 32)?)
    }

    /// Runs it once, and returns what it answers.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub(crate) fn judge(&self, frame: &[u8], ifindex: u32) -> Result<u32> {
        Ok(u32::try_from(self.test_run(frame, ifindex, 1)?[0] >> 32)?)
    }

    fn test_run(&self, frame: &[u8], ifindex: u32, repeat: u32) -> Result<[u64; 16]> {
        let mut context = [0_u32; 48];
        context[IFINDEX] = ifindex;
        let mut attributes = [0; 16];
        attributes[0] = pair(u32::try_from(self.0.as_raw_fd())?, 0);
        attributes[1] = pair(u32::try_from(frame.len())?, 0);
        attributes[2] = frame.as_ptr() as u64;
        attributes[4] = pair(repeat, 0);
        attributes[5] = pair(u32::try_from(size_of_val(&context))?, 0);
        attributes[6] = context.as_ptr() as u64;
        bpf(BPF_PROG_TEST_RUN, &mut attributes).context("a test run")?;
        Ok(attributes)
    }
}

/// What the kernel says of a program.
///
/// # Errors
/// It is gone.
pub(crate) fn info(id: u32) -> Result<ProgramInfo> {
    let found = loaded_programs().filter_map(Result::ok).find(|program| program.id() == id);
    found.with_context(|| format!("there is no program {id}"))
}
