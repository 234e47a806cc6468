//! A kernel map by address, with a count of the agent's changes that the program reads.

use std::ops::Deref;

use aya::{
    Pod,
    maps::{Array, HashMap, MapData, MapError},
};
use guard_ebpf::abi::AddressKey;

use crate::clock;

/// A map of claimants. It is read as any other; what writes to it counts, so that the program forgets
/// whom it knew (see [`guard_ebpf::claim_cache`]).
pub struct CountedMap<V: Pod> {
    entries: HashMap<MapData, AddressKey, V>,
    changes: Array<MapData, u64>,
    count: u64,
}

impl<V: Pod> CountedMap<V> {
    /// A map to which nobody else of this agent writes, and where its changes are counted: from the time
    /// on, so that no count is one of an earlier agent's of just now.
    ///
    /// # Errors
    /// The count cannot be written.
    pub fn new(
        entries: HashMap<MapData, AddressKey, V>,
        changes: Array<MapData, u64>,
    ) -> Result<Self, MapError> {
        let count = u64::try_from(clock::monotonic().as_micros()).unwrap_or(0);
        let mut map = Self { entries, changes, count };
        map.changed()?;
        Ok(map)
    }

    /// How often it was changed.
    pub fn changes(&self) -> u64 {
        self.count
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

    /// Something else was changed that the program is to judge claims by.
    ///
    /// # Errors
    /// The count cannot be written.
    pub fn changed(&mut self) -> Result<(), MapError> {
        self.count = self.count.wrapping_add(1);
        // The program's word for none (`Live::passed`).
        if self.count.trailing_zeros() >= u32::BITS {
            self.count += 1;
        }
        self.changes.set(0, self.count, 0)
    }
}

impl<V: Pod> Deref for CountedMap<V> {
    type Target = HashMap<MapData, AddressKey, V>;

    fn deref(&self) -> &Self::Target {
        &self.entries
    }
}
