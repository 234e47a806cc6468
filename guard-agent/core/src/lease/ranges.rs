//! A set of numbers kept as disjoint ranges: a /64 is one entry, however many addresses it has.

use rangemap::RangeInclusiveSet;

/// Sorted, disjoint, not adjacent ranges; every operation on one number is O(log ranges).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ranges {
    set: RangeInclusiveSet<u128>,
    /// How many numbers there are, saturating.
    len: u128,
}

impl Ranges {
    /// How many numbers there are; 2¹²⁸ − 1 stands for more.
    pub(crate) fn len(&self) -> u128 {
        self.len
    }

    pub(crate) fn contains(&self, number: u128) -> bool {
        self.set.contains(&number)
    }

    /// The lowest number that is at least `from`.
    pub(crate) fn first_from(&self, from: u128) -> Option<u128> {
        self.within(from, u128::MAX).next().map(|(first, _)| first)
    }

    /// The lowest number that is not in it and is at least `from`, which is below 2¹²⁸ − 1.
    pub(crate) fn first_absent_from(&self, from: u128) -> u128 {
        self.set.get(&from).map_or(from, |range| range.end() + 1)
    }

    /// The parts of it that lie in `first..=last`, in order.
    pub(crate) fn within(&self, first: u128, last: u128) -> impl Iterator<Item = (u128, u128)> {
        let parts = self.set.overlapping(first..=last);
        parts.map(move |range| (*range.start().max(&first), *range.end().min(&last)))
    }

    /// The end of the last of its ranges that touches `first..=last`.
    pub(crate) fn last_touching(&self, first: u128, last: u128) -> Option<u128> {
        // Not `next_back`, which walks through all ranges beyond `last`.
        self.set.overlapping(first..=last).fold(None, |_, range| Some(*range.end()))
    }

    /// Adds `first..=last`, merging what it touches.
    pub(crate) fn insert(&mut self, first: u128, last: u128) {
        self.remove(first, last);
        self.set.insert(first..=last);
        self.len = self.len.saturating_add(last - first).saturating_add(1);
    }

    /// Takes `first..=last` out.
    pub(crate) fn remove(&mut self, first: u128, last: u128) {
        let mut len = self.len;
        for (from, to) in self.within(first, last) {
            len = len.saturating_sub(to - from).saturating_sub(1);
        }
        self.len = len;
        self.set.remove(first..=last);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_as_a_set_of_numbers(
            steps in prop::collection::vec((any::<bool>(), 0u128..60, 0u128..12), 0..60),
        ) {
            let mut ranges = Ranges::default();
            let mut model = BTreeSet::new();
            for (add, first, width) in steps {
                let last = first + width;
                if add {
                    ranges.insert(first, last);
                    model.extend(first..=last);
                } else {
                    ranges.remove(first, last);
                    model.retain(|n| !(first..=last).contains(n));
                }
                prop_assert_eq!(ranges.len(), model.len() as u128);
                for n in 0..80 {
                    prop_assert_eq!(ranges.contains(n), model.contains(&n));
                    prop_assert_eq!(ranges.first_from(n), model.range(n..).next().copied());
                    let absent = (n..).find(|n| !model.contains(n)).unwrap();
                    prop_assert_eq!(ranges.first_absent_from(n), absent);
                    let inside = ranges.within(n, n + 9).flat_map(|(from, to)| from..=to);
                    let wanted: Vec<_> = model.range(n..=n + 9).copied().collect();
                    prop_assert_eq!(inside.collect::<Vec<_>>(), wanted.clone());
                    let touching = ranges.last_touching(n, n + 9);
                    prop_assert_eq!(touching.map(|to| to.min(n + 9)), wanted.last().copied());
                }
                let list: Vec<_> = ranges.set.iter().collect();
                prop_assert!(list.windows(2).all(|w| w[0].end() + 1 < *w[1].start()), "merged: {:?}", list);
            }
        }
    }

    #[test]
    fn holds_the_whole_of_ipv6() {
        let mut ranges = Ranges::default();
        ranges.insert(1, u128::MAX);
        assert_eq!(ranges.len(), u128::MAX);
        ranges.remove(u128::MAX, u128::MAX);
        assert!(!ranges.contains(u128::MAX));
        ranges.insert(u128::MAX, u128::MAX);
        assert_eq!(ranges.set.len(), 1);
    }
}
