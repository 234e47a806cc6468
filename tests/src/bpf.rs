//! What bpf(2) does and aya has no call for.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{JoinHandle, spawn};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use aya::Pod;
use aya::maps::{Array, HashMap, LpmTrie, Map, MapData, MapError, RingBuf};
use bytemuck::Zeroable;
use guard_ebpf::abi::{
    AddressKey, Live, MAC_BOUND, MAP_BOUND_MACS, MAP_MACS, MAP_OWNED, MAP_POLICIES, MAP_PORTS,
    MAP_PREFIXES, MAP_VLANS, MacHolder, MacKey, OWNED_LEASED, OWNED_MAC, OWNED_PORT, Owned, Policy,
    Port, PortMac, Prefix, Vlans,
};
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

/// Takes all records off a pinned ring, and returns how many there were.
pub(crate) fn drain(pin: &Path) -> Result<usize> {
    let mut ring = RingBuf::try_from(Map::from_map_data(MapData::from_pin(pin)?)?)?;
    let mut records = 0;
    while ring.next().is_some() {
        records += 1;
    }
    Ok(records)
}

/// Writes the one number of a pinned array.
pub(crate) fn set_number(pin: &Path, number: u64) -> Result<()> {
    let map = Map::from_map_data(MapData::from_pin(pin)?)?;
    Array::<_, u64>::try_from(map)?.set(0, number, 0).context("writing a number")
}

/// Writes so many owners into the pinned map of them, each with a MAC and a port.
pub(crate) fn bind_many(pin: &Path, bridge: u32, count: u32) -> Result<()> {
    let map = Map::from_map_data(MapData::from_pin(pin)?)?;
    let mut map = HashMap::<_, AddressKey, Owned>::try_from(map)?;
    for number in 0..count {
        let [_, a, b, c] = number.to_be_bytes();
        let key = AddressKey::new(bridge, 0, core::net::IpAddr::from([100, 64 | a, b, c]));
        let owned = Owned {
            generation: u64::from(number) + 1,
            ifindex: 1,
            mac: [2, 1, 0, a, b, c],
            flags: OWNED_LEASED | OWNED_MAC | OWNED_PORT,
            ..Owned::zeroed()
        };
        map.insert(key, owned, 0).with_context(|| format!("binding {number}"))?;
    }
    Ok(())
}

/// How many entries of the pinned map of owners are of leases, or of what a loss of the store has left
/// of one.
pub(crate) fn count_leased(pin: &Path) -> Result<usize> {
    let map = Map::from_map_data(MapData::from_pin(pin)?)?;
    let map = HashMap::<_, AddressKey, Owned>::try_from(map)?;
    let mut leased = 0;
    for entry in map.iter() {
        leased += usize::from(entry?.1.generation != 0);
    }
    Ok(leased)
}

/// Takes all entries out of a pinned map that only the agent writes, and returns how many there were.
pub(crate) fn clear(pin: &Path, name: &str) -> Result<usize> {
    let map = Map::from_map_data(MapData::from_pin(pin)?)?;
    match name {
        MAP_OWNED => clear_hash(HashMap::<_, AddressKey, Owned>::try_from(map)?),
        MAP_PORTS => clear_hash(HashMap::<_, u32, Port>::try_from(map)?),
        MAP_VLANS => clear_hash(HashMap::<_, u32, Vlans>::try_from(map)?),
        MAP_BOUND_MACS => clear_hash(HashMap::<_, PortMac, u32>::try_from(map)?),
        // Where the others live is the program's to say.
        MAP_MACS => {
            let mut map = HashMap::<_, MacKey, MacHolder>::try_from(map)?;
            let all = map.iter().collect::<Result<Vec<_>, _>>()?;
            let bound = all.iter().filter(|(_, holder)| holder.flags & MAC_BOUND != 0);
            bound.clone().try_for_each(|(key, _)| map.remove(key))?;
            Ok(bound.count())
        }
        MAP_POLICIES => {
            let mut map = Array::<_, Policy>::try_from(map)?;
            let all = map.iter().collect::<Result<Vec<_>, _>>()?;
            let written = (0..).zip(&all).filter(|(_, policy)| policy.ifindex != 0);
            written.clone().try_for_each(|(slot, _)| map.set(slot, Policy::zeroed(), 0))?;
            Ok(written.count())
        }
        MAP_PREFIXES => {
            let mut map = LpmTrie::<_, AddressKey, Prefix>::try_from(map)?;
            let keys = map.keys().collect::<Result<Vec<_>, _>>()?;
            keys.iter().try_for_each(|key| map.remove(key))?;
            Ok(keys.len())
        }
        _ => bail!("the agent does not write {name} alone"),
    }
}

/// Says in the pinned map of VLANs that a port is in none.
pub(crate) fn set_no_vlans(pin: &Path, ifindex: u32) -> Result<()> {
    let map = Map::from_map_data(MapData::from_pin(pin)?)?;
    let mut map = HashMap::<_, u32, Vlans>::try_from(map)?;
    map.insert(ifindex, Vlans::zeroed(), 0).context("writing VLANs")
}

fn clear_hash<K: Pod, V: Pod>(mut map: HashMap<MapData, K, V>) -> Result<usize> {
    let keys = map.keys().collect::<Result<Vec<_>, _>>()?;
    keys.iter().try_for_each(|key| map.remove(key))?;
    Ok(keys.len())
}

/// A bridge that nobody has: the agent takes its entries out whenever it looks.
const NO_BRIDGE: u32 = u32::MAX;

/// A map of live addresses that is kept full until this is dropped.
#[derive(Debug)]
pub struct FullMap {
    /// Dropped, it says that it is over.
    over: Option<Sender<()>>,
    filler: Option<JoinHandle<Result<()>>>,
}

impl FullMap {
    /// Fills the map with addresses of a bridge that does not exist.
    pub(crate) fn fill(pin: &Path) -> Result<Self> {
        let map = Map::from_map_data(MapData::from_pin(pin)?)?;
        let mut filler = Filler { map: HashMap::try_from(map)?, next: 0 };
        filler.fill()?;
        let (over, ended) = channel::<()>();
        let filler = spawn(move || {
            // The kernel tells nobody that there is room.
            while ended.recv_timeout(Duration::from_millis(20)) == Err(RecvTimeoutError::Timeout) {
                filler.fill()?;
            }
            filler.empty()
        });
        Ok(Self { over: Some(over), filler: Some(filler) })
    }

    /// Takes the entries out again.
    ///
    /// # Errors
    /// The map could not be filled, or not be emptied.
    pub fn empty(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        drop(self.over.take());
        let Some(filler) = self.filler.take() else { return Ok(()) };
        filler.join().map_err(|_| anyhow!("the filler panicked"))?
    }
}

impl Drop for FullMap {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("{error:#}");
        }
    }
}

struct Filler {
    map: HashMap<MapData, AddressKey, Live>,
    next: u64,
}

impl Filler {
    fn fill(&mut self) -> Result<()> {
        loop {
            self.next += 1;
            let mut key = AddressKey { bridge: NO_BRIDGE, ..AddressKey::zeroed() };
            key.address[8..].copy_from_slice(&self.next.to_be_bytes());
            match self.map.insert(key, Live::zeroed(), 0) {
                Ok(()) => {}
                Err(MapError::SyscallError(error))
                    if error.io_error.raw_os_error() == Some(nix::libc::E2BIG) =>
                {
                    return Ok(());
                }
                Err(error) => return Err(error).context("filling a map"),
            }
        }
    }

    fn empty(&mut self) -> Result<()> {
        let keys: Vec<_> = self.map.keys().filter_map(Result::ok).collect();
        for key in keys.iter().filter(|key| key.bridge == NO_BRIDGE) {
            // The agent may have been first.
            let _ = self.map.remove(key);
        }
        Ok(())
    }
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

/// `BPF_PROG_LOAD`, `BPF_OBJ_PIN` and `BPF_PROG_TYPE_SCHED_CLS` (linux/bpf.h).
const PROG_LOAD: i64 = 5;
const OBJ_PIN: i64 = 6;
const SCHED_CLS: u32 = 3;

#[repr(C)]
struct Load {
    kind: u32,
    instructions: u32,
    code: u64,
    license: u64,
    log: [u32; 4],
    kernel: u32,
    flags: u32,
    name: [u8; 16],
}

/// Loads a classifier that says the same of each frame, and pins it.
pub(crate) fn load(pin: &Path, name: &str, verdict: i32) -> Result<()> {
    // `r0 = verdict`, `exit`.
    let code = [0xb7 | u64::from(verdict.cast_unsigned()) << 32, 0x95];
    let mut load = Load {
        kind: SCHED_CLS,
        instructions: u32::try_from(code.len())?,
        code: code.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        log: [0; 4],
        kernel: 0,
        flags: 0,
        name: [0; 16],
    };
    for (byte, letter) in load.name.iter_mut().zip(name.bytes().take(15)) {
        *byte = letter;
    }
    #[expect(unsafe_code, reason = "bpf(2) has no wrapper")]
    // SAFETY: the attributes are as long as said, and what they point to outlives the call.
    let program =
        unsafe { syscall(SYS_bpf, PROG_LOAD, std::ptr::from_mut(&mut load), size_of::<Load>()) };
    if program < 0 {
        return Err(io::Error::last_os_error()).context("loading a program");
    }
    let path = CString::new(pin.as_os_str().as_bytes())?;
    let number = i32::try_from(program)?;
    let pinned = bpf(OBJ_PIN, [path.as_ptr() as u64, number.cast_unsigned().into()]);
    #[expect(unsafe_code, reason = "the descriptor is a bare number")]
    // SAFETY: the kernel has just given it to us, and nobody else knows it.
    unsafe {
        close(number);
    }
    pinned.map(drop).with_context(|| pin.display().to_string())
}
