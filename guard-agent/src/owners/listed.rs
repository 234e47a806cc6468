//! Addresses by what they are listed under: a port, or the name of one that is yet to come.

use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
    net::IpAddr,
};

use guard_core::segment::Segment;

/// An address is listed under another key now.
pub(super) fn move_key<K: Eq + Hash>(
    keys: &mut HashMap<K, HashSet<(Segment, IpAddr)>>,
    place: &(Segment, IpAddr),
    old: Option<K>,
    new: Option<K>,
) {
    if old == new {
        return;
    }
    if let Some(old) = old
        && let Some(places) = keys.get_mut(&old)
    {
        places.remove(place);
        if places.is_empty() {
            keys.remove(&old);
        }
    }
    if let Some(new) = new {
        keys.entry(new).or_default().insert(place.clone());
    }
}
