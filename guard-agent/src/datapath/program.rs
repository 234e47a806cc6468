//! The program in the kernel: loaded, pinned, attached to ports, its maps.
//!
//! Everything is pinned below `<bpffs>/v<layout>/`, so that an agent that dies leaves the watch
//! running and the next one takes it over: maps are reused, and the new program replaces the old
//! one where it sits (see [`super::attach`]), with no frame unseen in between.

use std::{
    error::Error,
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use aya::{
    EbpfLoader, Pod,
    maps::{Array, HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray, PerCpuHashMap, RingBuf},
    util::KernelVersion,
};
use guard_core::evidence::Device;
use guard_ebpf::abi::{
    self, AddressKey, BridgeCounters, Challenger, ChallengerKey, DropKey, Drops, LAYOUT_VERSION,
    Live, MAPS, MacHolder, MacKey, Mode, Owned, Policy, Port, PortMac, PortState, Prefix, Vlans,
};
use nix::net::if_::if_nametoindex;

use super::{
    KernelError,
    attach::{self, Attach, Attached},
    batch::entries,
    classifier::Program,
    counted_map::CountedMap,
    identity::{Ends, Same},
    leave,
    own::directory,
    place::Place,
    slots::{Slot, slots},
    tcx,
};
use crate::network::Link;

/// The program, as `build.rs` compiled it.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/guard-ebpf"));

/// Where maps are pinned that no layout concerns, below the configured directory.
pub(crate) const LEASES: &str = "leases";
/// The one there: the highest generation that was handed out.
pub(crate) const GENERATION: &str = "GENERATION";

/// Maps that the observer alone works with.
pub struct Maps {
    /// What the agent says of each port.
    pub ports: HashMap<MapData, u32, Port>,
    /// The same of some of them, read quicker.
    pub near_ports: Array<MapData, Port>,
    /// Which port a MAC is bound to or lives on.
    pub macs: HashMap<MapData, MacKey, MacHolder>,
    /// What ports have used of their quotas, by port slot.
    pub port_states: Array<MapData, PortState>,
    /// Who was seen with addresses that have no declared owner.
    pub live: CountedMap<Live>,
    /// Who claims what another holds.
    pub challengers: HashMap<MapData, ChallengerKey, Challenger>,
    /// The prefixes on each segment, and the rules about them.
    pub prefixes: LpmTrie<MapData, AddressKey, Prefix>,
    /// The VLANs of the ports of bridges that filter them.
    pub vlans: HashMap<MapData, u32, Vlans>,
    /// What enforcement does on each port, by port slot: the owners' to write.
    pub policies: Array<MapData, Policy>,
    /// By bridge slot.
    pub counters: PerCpuArray<MapData, BridgeCounters>,
    /// By port slot.
    pub frames: PerCpuArray<MapData, u64>,
}

/// How a port is covered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coverage {
    /// How the program sits on it.
    pub attach: Attach,
    /// The kernel's id of the program.
    pub program_id: u32,
    /// Since when the link or filter exists, over restarts of the agent.
    pub since: SystemTime,
}

impl Coverage {
    /// Where the program is on a port now.
    ///
    /// # Errors
    /// The port is gone, or the kernel's refusal.
    pub fn place(&self, ifindex: u32) -> io::Result<Place> {
        self.attach.place(self.program_id, ifindex)
    }
}

/// The loaded program.
pub struct Kernel {
    program: Program,
    pins: PathBuf,
    /// The same, and those of agents of other layouts.
    all_pins: Vec<PathBuf>,
    /// A handle to each map, so that one whose pin is removed can be pinned again.
    handles: Vec<(&'static str, PathBuf, MapData)>,
    attach: Attach,
    ends: Ends,
}

impl Kernel {
    /// Loads the program and takes over the maps that an earlier agent left. `apart` is a map that is
    /// pinned elsewhere, and whose pin is seen to as well.
    ///
    /// # Errors
    /// No BTF, no bpffs, a missing capability, or the verifier's refusal.
    pub fn load(bpffs: &Path, apart: (&'static str, PathBuf)) -> Result<Self, KernelError> {
        if !Path::new("/sys/kernel/btf/vmlinux").exists() {
            return Err(KernelError::NoBtf);
        }
        let pins = directory(bpffs, &format!("v{LAYOUT_VERSION}"))?;
        let program = Program::load(loader(&pins).load(OBJECT)?)?;
        let attach = Attach::probe()?;
        let ours = MAPS.iter().map(|name| (*name, pins.join(name)));
        let handles = ours.chain([apart]).map(|(name, path)| {
            let handle = MapData::from_pin(&path);
            Ok((name, path, handle.map_err(|source| KernelError::Map { name, source })?))
        });
        let handles = handles.collect::<Result<_, KernelError>>()?;
        tracing::debug!(program_id = program.id(), ?attach, "the program is loaded");
        let mut ends = Ends::open(&pins);
        let mut all_pins = leave::others(bpffs)?;
        let noted = all_pins.iter().flat_map(|other| Ends::open(other).into_noted());
        noted.for_each(|ifindex| ends.note(ifindex));
        all_pins.push(pins.clone());
        Ok(Self { program, pins, all_pins, handles, attach, ends })
    }

    /// Hands out the maps. Each can be taken once.
    ///
    /// # Errors
    /// A pinned map of another kind.
    pub fn maps(&mut self) -> Result<Maps, KernelError> {
        Ok(Maps {
            ports: self.map(abi::MAP_PORTS)?,
            near_ports: self.map(abi::MAP_NEAR_PORTS)?,
            macs: self.map(abi::MAP_MACS)?,
            port_states: self.map(abi::MAP_PORT_STATES)?,
            live: self.counted(abi::MAP_LIVE, abi::MAP_LIVE_CHANGES)?,
            challengers: self.map(abi::MAP_CHALLENGERS)?,
            prefixes: self.map(abi::MAP_PREFIXES)?,
            vlans: self.map(abi::MAP_VLANS)?,
            policies: self.map(abi::MAP_POLICIES)?,
            counters: self.map(abi::MAP_COUNTERS)?,
            frames: self.map(abi::MAP_FRAMES)?,
        })
    }

    /// Hands out the map of owners. It can be taken once.
    ///
    /// # Errors
    /// A pinned map of another kind.
    pub fn owned(&mut self) -> Result<CountedMap<Owned>, KernelError> {
        self.counted(abi::MAP_OWNED, abi::MAP_OWNED_CHANGES)
    }

    /// Hands out the map of the MACs that are bound to ports. It can be taken once.
    ///
    /// # Errors
    /// A pinned map of another kind.
    pub fn bound_macs(&mut self) -> Result<HashMap<MapData, PortMac, u32>, KernelError> {
        self.map(abi::MAP_BOUND_MACS)
    }

    /// Hands out the map of what ports may claim besides their bindings. It can be taken once.
    ///
    /// # Errors
    /// A pinned map of another kind.
    pub fn exceptions(&mut self) -> Result<LpmTrie<MapData, AddressKey, u32>, KernelError> {
        self.map(abi::MAP_EXCEPTIONS)
    }

    /// Opens the map of MACs once more: bindings write it too.
    ///
    /// # Errors
    /// Its pin is gone, or of another kind.
    pub fn macs(&self) -> Result<HashMap<MapData, MacKey, MacHolder>, KernelError> {
        let error = |source| KernelError::Map { name: abi::MAP_MACS, source };
        let data = MapData::from_pin(self.pins.join(abi::MAP_MACS)).map_err(error)?;
        HashMap::try_from(Map::from_map_data(data).map_err(error)?).map_err(error)
    }

    /// The place of each of these bridges in the arrays by bridge. To be asked before a port is written.
    ///
    /// # Errors
    /// The map of ports cannot be read.
    pub(crate) fn slots<'a>(
        &self,
        bridges: impl Iterator<Item = &'a str>,
    ) -> Result<Vec<Slot>, KernelError> {
        let error = |source| KernelError::Map { name: abi::MAP_PORTS, source };
        let data = MapData::from_pin(self.pins.join(abi::MAP_PORTS)).map_err(error)?;
        let map = Map::from_map_data(data).map_err(error)?;
        let ports = entries::<u32, Port>(&HashMap::try_from(map).map_err(error)?).map_err(error)?;
        let bridges: Vec<_> = bridges.map(|name| if_nametoindex(name).ok()).collect();
        Ok(slots(&bridges, ports.into_iter().map(|(_, port)| (port.bridge, port.bridge_slot))))
    }

    /// Hands out the map of the bridges' modes. It can be taken once.
    ///
    /// # Errors
    /// A pinned map of another kind.
    pub fn modes(&mut self) -> Result<Array<MapData, Mode>, KernelError> {
        self.map(abi::MAP_MODES)
    }

    /// Hands out the map of what was dropped. It can be taken once.
    ///
    /// # Errors
    /// A pinned map of another kind.
    pub fn drops(&mut self) -> Result<PerCpuHashMap<MapData, DropKey, Drops>, KernelError> {
        self.map(abi::MAP_DROPS)
    }

    /// Hands out the ring. It can be taken once.
    ///
    /// # Errors
    /// A pinned map of another kind.
    pub fn ring(&mut self) -> Result<RingBuf<MapData>, KernelError> {
        self.map(abi::MAP_EVENTS)
    }

    fn counted<V: Pod>(
        &mut self,
        name: &'static str,
        changes: &'static str,
    ) -> Result<CountedMap<V>, KernelError> {
        let (entries, changes) = (self.map(name)?, self.map(changes)?);
        CountedMap::new(entries, changes).map_err(|source| KernelError::Map { name, source })
    }

    fn map<M: TryFrom<Map, Error = MapError>>(
        &mut self,
        name: &'static str,
    ) -> Result<M, KernelError> {
        let map = self.program.ebpf().take_map(name).ok_or(KernelError::Missing(name))?;
        M::try_from(map).map_err(|source| KernelError::Map { name, source })
    }

    /// Puts the program on a port, or replaces an earlier one there, whatever its place.
    ///
    /// The caller has put the port into the map of ports; a program on an interface that is not in
    /// it lets every frame pass unseen.
    ///
    /// # Errors
    /// The port is gone, or the kernel's refusal.
    pub fn attach(&mut self, ifindex: u32, interface: &str) -> Result<Coverage, KernelError> {
        let attached = self.attach.attach(&mut self.program, &self.pins, ifindex);
        self.coverage(attached, interface)
    }

    /// Puts the program before all others on a port where it is behind one.
    ///
    /// # Errors
    /// The port is gone, or the kernel's refusal.
    pub fn put_first(&mut self, ifindex: u32, interface: &str) -> Result<Coverage, KernelError> {
        let attached = self.attach.put_first(&mut self.program, &self.pins, ifindex);
        self.coverage(attached, interface)
    }

    fn coverage(
        &self,
        attached: Result<Attached, Box<dyn Error + Send + Sync>>,
        interface: &str,
    ) -> Result<Coverage, KernelError> {
        let refused = |source| KernelError::Attach { interface: interface.to_owned(), source };
        let Attached { stands_for_it, program_id } = attached.map_err(refused)?;
        let since = fs::metadata(&stands_for_it)
            .and_then(|pin| pin.modified())
            .map_err(|source| KernelError::Pin { path: stands_for_it, source })?;
        Ok(Coverage { attach: self.attach, program_id, since })
    }

    /// Whether a link is the one that had this ifindex before, known by `device` then. The program on
    /// it tells. Without it nothing is proven, unless what stands for the program says that its device
    /// is gone, or the two are known by something else.
    pub fn is_same(&self, link: &Link, device: Option<Device>) -> Same {
        // One that cannot be asked is about to go, and netlink reports its end.
        let ours = self.attach.has_ours(&self.all_pins, link.ifindex).unwrap_or(true);
        let gone = || tcx::has_pinned_link(&self.pins, link.ifindex);
        let other = device.is_some_and(|device| device != link.device);
        Same::judge(ours, gone, self.ends.has(link.ifindex), other)
    }

    /// A link has ended that leases are bound to, which the store does not have yet. To be called before
    /// the program is put on another link with its number.
    pub fn note_end(&mut self, ifindex: u32) {
        self.ends.note(ifindex);
    }

    /// Keeps the notes of those ends that the store does not have.
    pub fn forget_ends(&mut self, is_pending: impl Fn(u32) -> bool) {
        self.ends.retain(is_pending);
    }

    /// Forgets a port that is gone, or takes the program off one that left its bridge.
    ///
    /// # Errors
    /// The kernel's refusal, or a pin that cannot be removed.
    pub fn detach(&self, ifindex: u32) -> Result<(), KernelError> {
        attach::detach(&self.pins, ifindex)
    }

    /// Takes over from agents of other layouts, once the program is on the ports.
    ///
    /// # Errors
    /// A pin cannot be removed.
    pub fn retire_others(&self, bpffs: &Path) -> Result<usize, KernelError> {
        leave::retire_others(bpffs, &self.pins)
    }

    /// Pins the maps again whose pins someone has removed: the next agent finds them by these. Returns
    /// their names.
    ///
    /// # Errors
    /// There is no bpffs any more.
    pub fn pin_again(&self) -> Result<Vec<&'static str>, KernelError> {
        let mut gone = Vec::new();
        for (name, path, handle) in &self.handles {
            if path.exists() {
                continue;
            }
            let error = |source| KernelError::Pin { path: path.clone(), source };
            path.parent().map_or(Ok(()), fs::create_dir_all).map_err(error)?;
            handle.pin(path).map_err(|refusal| error(io::Error::other(refusal)))?;
            gone.push(*name);
        }
        Ok(gone)
    }

    /// The ports that have a link or a filter, those of an earlier agent included.
    ///
    /// # Errors
    /// The directory of pins cannot be read.
    pub fn pinned(&self) -> Result<Vec<u32>, KernelError> {
        attach::pinned(&self.pins)
    }
}

/// A loader that fits the program to this kernel, and pins its maps below `pins`.
pub fn loader(pins: &Path) -> EbpfLoader<'_> {
    // `bpf_ktime_get_coarse_ns` is in 5.11 and later.
    let has_coarse_clock =
        KernelVersion::current().is_ok_and(|version| version >= KernelVersion::new(5, 11, 0));
    let coarse: &u8 = if has_coarse_clock { &1 } else { &0 };
    let mut loader = EbpfLoader::new();
    loader.default_map_pin_directory(pins).override_global(abi::COARSE_CLOCK, coarse, true);
    loader
}
