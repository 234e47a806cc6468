//! The highest generation that was ever handed out, in the kernel.
//!
//! A store that is restored from the past knows nothing of what was handed out since, and would give
//! the same generations to others. So the highest one is also kept where no backup reaches: in a map
//! of one number, pinned apart from the program's, whose layout may change. It is gone with the boot,
//! and so is everyone who could still hold an old generation.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use aya::maps::{Array, HashMap, Map, MapData, MapError};
use guard_core::{
    lease::{Generation, Lease, command::Change},
    time::Now,
};
use guard_ebpf::abi::{AddressKey, LAYOUT_VERSION, MAP_OWNED, Owned};

use crate::{
    datapath::{GENERATION, KernelError, LEASES, directory, entries},
    health::Health,
    ledger::AfterCommit,
};

/// Its name.
pub(crate) const NAME: &str = GENERATION;

/// How a failure is listed.
const WHAT: &str = "generation";

/// The file that it is pinned as.
pub(crate) fn pin(bpffs: &Path) -> PathBuf {
    bpffs.join(LEASES).join(NAME)
}

/// A handle to the number.
pub(crate) struct GenerationFence {
    map: Array<MapData, Generation>,
    highest: Generation,
    /// The highest one of the kernel's holders, as an earlier agent left them.
    held: Generation,
    health: Arc<Health>,
}

impl GenerationFence {
    /// Takes over what an earlier agent left, or begins anew.
    ///
    /// # Errors
    /// There is no bpffs, or the kernel's refusal.
    pub(crate) fn open(bpffs: &Path, health: Arc<Health>) -> Result<Self, KernelError> {
        directory(bpffs, LEASES)?;
        let pin = pin(bpffs);
        let error = |source| KernelError::Map { name: NAME, source };
        if !pin.exists() {
            let new = Array::<_, Generation>::create(1, 0).map_err(error)?;
            new.pin(&pin).map_err(|source| KernelError::Pin {
                path: pin.clone(),
                source: std::io::Error::other(source),
            })?;
        }
        let data = MapData::from_pin(&pin).map_err(error)?;
        let map = Array::try_from(Map::from_map_data(data).map_err(error)?).map_err(error)?;
        let highest = map.get(&0, 0).map_err(error)?;
        let held = highest_held(bpffs)?;
        Ok(Self { map, highest, held, health })
    }

    /// The generations that the kernel knows to have been handed out in this boot; 0 where it knows
    /// of none.
    pub(crate) fn known(&self) -> [Generation; 2] {
        [self.highest, self.held]
    }

    fn set(&mut self, generation: Generation) -> Result<(), MapError> {
        self.map.set(0, generation, 0)?;
        self.highest = generation;
        Ok(())
    }

    fn keep(&mut self, generation: Generation) {
        match self.set(generation) {
            Ok(()) => self.health.recovered(WHAT),
            Err(error) => {
                let why = format!("the highest one cannot be kept in the kernel: {error}");
                self.health.degraded(WHAT, &why);
            }
        }
    }
}

/// The highest generation among the holders that an earlier agent left in the kernel.
fn highest_held(bpffs: &Path) -> Result<Generation, KernelError> {
    let error = |source| KernelError::Map { name: MAP_OWNED, source };
    let pin = bpffs.join(format!("v{LAYOUT_VERSION}")).join(MAP_OWNED);
    if !pin.exists() {
        return Ok(0);
    }
    let data = MapData::from_pin(&pin).map_err(error)?;
    let map = HashMap::<_, AddressKey, Owned>::try_from(Map::from_map_data(data).map_err(error)?);
    let entries = entries(&map.map_err(error)?).map_err(error)?;
    Ok(entries.iter().map(|(_, owned)| owned.generation).max().unwrap_or(0))
}

impl AfterCommit for GenerationFence {
    fn restored(&mut self, _leases: &[Arc<Lease>]) {}

    fn committed(&mut self, _changes: &[Change], _now: Now) {}

    fn given(&self) -> Vec<Generation> {
        self.known().to_vec()
    }

    fn handed_out(&mut self, generation: Generation) {
        if generation > self.highest {
            self.keep(generation);
        }
    }

    fn correct(&mut self, generation: Generation) {
        self.held = 0;
        self.keep(generation);
    }
}
