//! A map of claimants in the kernel, whose changes the program is told of.

use std::ops::Deref;

use aya::{
    Pod,
    maps::{Array, HashMap, MapData, MapError},
};
use guard_ebpf::abi::AddressKey;

/// A map of claimants. It is read as any other; what writes to it counts, so that the program forgets
/// whom it knew (see [`guard_ebpf::claim_cache`]).
pub struct CountedMap<V: Pod> {
    entries: HashMap<MapData, AddressKey, V>,
    changes: Array<MapData, u64>,
    count: u64,
}

impl<V: Pod> CountedMap<V> {
    /// A map to which nobody else of this agent writes, and where its changes are counted.
    pub const fn new(
        entries: HashMap<MapData, AddressKey, V>,
        changes: Array<MapData, u64>,
    ) -> Self {
        Self { entries, changes, count: 0 }
    }

    /// Puts an entry in the place of any that there is.
    ///
    /// # Errors
    /// There is no room, or the kernel's refusal.
    pub fn insert(&mut self, key: AddressKey, value: V) -> Result<(), MapError> {
        self.entries.insert(key, value, 0)?;
        self.changed()
    }

    /// Takes an entry out.
    ///
    /// # Errors
    /// There is none, or the kernel's refusal.
    pub fn remove(&mut self, key: &AddressKey) -> Result<(), MapError> {
        self.entries.remove(key)?;
        self.changed()
    }

    fn changed(&mut self) -> Result<(), MapError> {
        self.count = self.count.wrapping_add(1);
        self.changes.set(0, self.count, 0)
    }
}

impl<V: Pod> Deref for CountedMap<V> {
    type Target = HashMap<MapData, AddressKey, V>;

    fn deref(&self) -> &Self::Target {
        &self.entries
    }
}
