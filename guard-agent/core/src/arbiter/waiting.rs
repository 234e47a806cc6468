//! Entries that are due at a later time, bounded for each port that can make it grow.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use crate::evidence::PortName;

/// So much may wait to be decided because of an access port: it is a sandbox, which has few
/// addresses.
pub const MOST_OF_ACCESS_PORT: usize = 1024;
/// And because of an uplink, behind which everybody is: as many as may be live there.
pub const MOST_OF_UPLINK: usize = 65_536;

/// Entries by key, each with the time when it is to be looked at and the port that it is counted for.
/// No other port has less room because of them.
#[derive(Debug)]
pub(super) struct Waiting<K, V> {
    entries: BTreeMap<K, Entry<V>>,
    due: BTreeSet<(Duration, K)>,
    of_port: HashMap<u32, usize>,
}

#[derive(Debug)]
struct Entry<V> {
    port: u32,
    due: Duration,
    value: V,
}

impl<K, V> Default for Waiting<K, V> {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), due: BTreeSet::new(), of_port: HashMap::new() }
    }
}

impl<K: Ord + Clone, V> Waiting<K, V> {
    /// Adds an entry under a key that has none. False if its port has no room.
    pub(super) fn insert(
        &mut self,
        key: K,
        (ifindex, port): (u32, &PortName),
        due: Duration,
        value: V,
    ) -> bool {
        let most = if port.uplink { MOST_OF_UPLINK } else { MOST_OF_ACCESS_PORT };
        let has = self.of_port.entry(ifindex).or_default();
        if *has >= most {
            return false;
        }
        *has += 1;
        self.due.insert((due, key.clone()));
        self.entries.insert(key, Entry { port: ifindex, due, value });
        true
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn contains(&self, key: &K) -> bool {
        self.entries.contains_key(key)
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key).map(|entry| &entry.value)
    }

    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.entries.get_mut(key).map(|entry| &mut entry.value)
    }

    /// Looks at an entry again then.
    pub(super) fn set_due(&mut self, key: &K, due: Duration) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        self.due.remove(&(entry.due, key.clone()));
        self.due.insert((due, key.clone()));
        entry.due = due;
    }

    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        let Entry { port, due, value } = self.entries.remove(key)?;
        self.due.remove(&(due, key.clone()));
        if let Some(has) = self.of_port.get_mut(&port) {
            *has -= 1;
            if *has == 0 {
                self.of_port.remove(&port);
            }
        }
        Some(value)
    }

    /// The keys of those for which it is time, in the order of their times.
    pub(super) fn due(&self, now: Duration) -> Vec<K> {
        let due = self.due.iter().take_while(|(due, _)| *due <= now);
        due.map(|(_, key)| key.clone()).collect()
    }

    pub(super) fn next_due(&self) -> Option<Duration> {
        self.due.first().map(|(due, _)| *due)
    }

    pub(super) fn retain(&mut self, keep: impl Fn(&K, &V) -> bool) {
        for key in self.keys(|key, value| !keep(key, value)) {
            self.remove(&key);
        }
    }

    /// The keys of those that are so.
    pub(super) fn keys(&self, is: impl Fn(&K, &V) -> bool) -> Vec<K> {
        let those = self.entries.iter().filter(|(key, entry)| is(key, &entry.value));
        those.map(|(key, _)| key.clone()).collect()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(uplink: bool) -> PortName {
        PortName { interface: "veth".into(), bridge: "br0".into(), uplink }
    }

    #[test]
    fn a_port_that_fills_its_room_takes_none_of_its_neighbours() {
        let (mut waiting, port) = (Waiting::default(), port(false));
        let at = Duration::from_secs;
        for key in 0..MOST_OF_ACCESS_PORT {
            assert!(waiting.insert(key, (7, &port), at(1), ()));
        }
        assert!(!waiting.insert(usize::MAX, (7, &port), at(1), ()));
        assert!(waiting.insert(usize::MAX, (8, &port), at(1), ()));
        assert_eq!(waiting.remove(&3), Some(()));
        assert!(waiting.insert(3, (7, &port), at(2), ()), "what is decided makes room");
        assert_eq!(waiting.len(), MOST_OF_ACCESS_PORT + 1);
    }

    #[test]
    fn what_is_due_first_is_looked_at_first() {
        let (mut waiting, port) = (Waiting::default(), port(true));
        let at = Duration::from_secs;
        for (key, due) in [(1, 3), (2, 1), (3, 2)] {
            assert!(waiting.insert(key, (7, &port), at(due), due));
        }
        assert_eq!(waiting.due(at(2)), [2, 3]);
        waiting.set_due(&2, at(9));
        assert_eq!((waiting.due(at(2)), waiting.next_due()), (vec![3], Some(at(2))));
        waiting.retain(|_, due| *due == 1);
        assert_eq!((waiting.due(at(9)), waiting.next_due()), (vec![2], Some(at(9))));
        assert!(waiting.of_port.get(&7).is_some_and(|has| *has == 1));
    }
}
