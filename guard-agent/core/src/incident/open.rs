//! The open incidents: by what they are about, and by their ids.

use std::{
    collections::{BTreeMap, btree_map},
    ops::Bound,
};

use super::{Incident, Target};
use crate::segment::Segment;

/// What an incident is about, and where.
type Key = (Segment, Target);

/// By key. An id finds its incident without a search, so that a list can be read a page at a time.
#[derive(Debug, Default)]
pub(super) struct Open {
    by_key: BTreeMap<Key, Incident>,
    keys: BTreeMap<u64, Key>,
}

impl Open {
    /// Opens an incident, in the place of one about the same.
    pub(super) fn insert(&mut self, key: Key, incident: Incident) {
        let id = incident.id;
        if let Some(former) = self.by_key.insert(key.clone(), incident) {
            self.keys.remove(&former.id);
        }
        self.keys.insert(id, key);
    }

    pub(super) fn remove(&mut self, key: &Key) -> Option<Incident> {
        let incident = self.by_key.remove(key)?;
        self.keys.remove(&incident.id);
        Some(incident)
    }

    /// Those after an id, in the order of their ids.
    pub(super) fn after(&self, id: u64) -> impl Iterator<Item = &Incident> {
        let keys = self.keys.range((Bound::Excluded(id), Bound::Unbounded));
        keys.filter_map(|(_, key)| self.by_key.get(key))
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Incident> {
        self.by_key.get(key)
    }

    pub(super) fn get_mut(&mut self, key: &Key) -> Option<&mut Incident> {
        self.by_key.get_mut(key)
    }

    pub(super) fn iter(&self) -> btree_map::Iter<'_, Key, Incident> {
        self.by_key.iter()
    }

    pub(super) fn iter_mut(&mut self) -> btree_map::IterMut<'_, Key, Incident> {
        self.by_key.iter_mut()
    }

    pub(super) fn keys(&self) -> btree_map::Keys<'_, Key, Incident> {
        self.by_key.keys()
    }

    pub(super) fn values(&self) -> btree_map::Values<'_, Key, Incident> {
        self.by_key.values()
    }

    pub(super) fn values_mut(&mut self) -> btree_map::ValuesMut<'_, Key, Incident> {
        self.by_key.values_mut()
    }
}
