//! The places of bridges in the kernel's arrays. The program reads a bridge's mode by the place that a port's
//! entry names, and neither is written at once for all: so a bridge keeps its place over restarts, whatever
//! the order of its sections is.

use std::collections::{BTreeMap, BTreeSet};

use guard_ebpf::abi::MAX_BRIDGES;

/// The place of a bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    /// Its index.
    pub at: u32,
    /// It is the one that an earlier agent had for the bridge, so that what is there is the bridge's.
    pub kept: bool,
}

/// A place for each of `bridges`, by their ifindexes (`None` for one that does not exist yet). `taken`: the
/// ifindexes of bridges and their places, as the entries of ports have them.
pub(super) fn slots(bridges: &[Option<u32>], taken: impl Iterator<Item = (u32, u32)>) -> Vec<Slot> {
    let taken: BTreeMap<u32, u32> = taken.collect();
    // Where two are said to have one place, it is the first's.
    let mut used = BTreeSet::new();
    let known: Vec<_> = bridges
        .iter()
        .map(|bridge| taken.get(&(*bridge)?).copied().filter(|at| used.insert(*at)))
        .collect();
    // Those of bridges that are not watched any more come last: their ports go when all are known.
    let (others, free): (Vec<_>, Vec<_>) = (0..MAX_BRIDGES)
        .filter(|at| !used.contains(at))
        .partition(|at| taken.values().any(|other| other == at));
    let mut free = free.into_iter().chain(others);
    let slot = |at: Option<u32>| match at {
        Some(at) => Slot { at, kept: true },
        // There is one for each: the configuration has no more bridges than places.
        None => Slot { at: free.next().unwrap_or_default(), kept: false },
    };
    known.into_iter().map(slot).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn slot(at: u32, kept: bool) -> Slot {
        Slot { at, kept }
    }

    #[test]
    fn a_bridge_keeps_its_place_and_a_new_one_gets_a_free_one() {
        let found = slots(&[Some(9), Some(7), Some(8), None], [(7, 0), (8, 1)].into_iter());
        assert_eq!(found, [slot(2, false), slot(0, true), slot(1, true), slot(3, false)]);
    }

    #[test]
    fn no_two_have_one_place() {
        let found = slots(&[Some(7), Some(8)], [(7, 3), (8, 3)].into_iter());
        assert_eq!(found, [slot(3, true), slot(0, false)]);
        let many: Vec<_> = (0..MAX_BRIDGES).map(Some).collect();
        let of_others = (100..100 + MAX_BRIDGES).zip(0..);
        let found = slots(&many, of_others);
        let places: BTreeSet<_> = found.iter().map(|slot| slot.at).collect();
        assert_eq!(places.len(), many.len());
    }

    #[test]
    fn the_place_of_a_bridge_that_is_not_watched_any_more_is_taken_last() {
        assert_eq!(slots(&[None], [(7, 0)].into_iter()), [slot(1, false)]);
    }
}
