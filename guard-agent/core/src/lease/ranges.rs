//! A set of numbers kept as disjoint ranges: a /64 is one entry, however many addresses it has.

use std::collections::BTreeMap;

/// Sorted, disjoint, not adjacent ranges; every operation on one number is O(log ranges).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ranges {
    /// First number → last number.
    by_first: BTreeMap<u128, u128>,
    /// How many numbers there are, saturating.
    len: u128,
}

impl Ranges {
    /// How many numbers there are; 2¹²⁸ − 1 stands for more.
    pub(crate) fn len(&self) -> u128 {
        self.len
    }

    /// The range that holds the number.
    fn around(&self, number: u128) -> Option<(u128, u128)> {
        let (&first, &last) = self.by_first.range(..=number).next_back()?;
        (number <= last).then_some((first, last))
    }

    pub(crate) fn contains(&self, number: u128) -> bool {
        self.around(number).is_some()
    }

    /// The lowest number that is at least `from`.
    pub(crate) fn first_from(&self, from: u128) -> Option<u128> {
        if self.contains(from) {
            return Some(from);
        }
        self.by_first.range(from..).next().map(|(&first, _)| first)
    }

    /// The lowest number that is not in it and is at least `from`, which is below 2¹²⁸ − 1.
    pub(crate) fn first_absent_from(&self, from: u128) -> u128 {
        self.around(from).map_or(from, |(_, last)| last + 1)
    }

    /// The parts of it that lie in `first..=last`, in order.
    pub(crate) fn within(&self, first: u128, last: u128) -> impl Iterator<Item = (u128, u128)> {
        let before = self.by_first.range(..first).next_back();
        let inside = self.by_first.range(first..=last);
        before
            .into_iter()
            .chain(inside)
            .map(move |(&from, &to)| (from.max(first), to.min(last)))
            .filter(|(from, to)| from <= to)
    }

    /// The end of the last of its ranges that touches `first..=last`.
    pub(crate) fn last_touching(&self, first: u128, last: u128) -> Option<u128> {
        let (_, &to) = self.by_first.range(..=last).next_back()?;
        (to >= first).then_some(to)
    }

    /// Adds `first..=last`, merging what it touches.
    pub(crate) fn insert(&mut self, first: u128, last: u128) {
        let (mut low, mut high) = (first, last);
        loop {
            let reach = high.saturating_add(1);
            let Some((&from, &to)) = self.by_first.range(..=reach).next_back() else { break };
            if to.saturating_add(1) < low {
                break;
            }
            self.drop_range(from, to);
            low = low.min(from);
            high = high.max(to);
        }
        self.add_range(low, high);
    }

    /// Takes `first..=last` out.
    pub(crate) fn remove(&mut self, first: u128, last: u128) {
        while let Some((&from, &to)) = self.by_first.range(..=last).next_back() {
            if to < first {
                break;
            }
            self.drop_range(from, to);
            if to > last {
                self.add_range(last + 1, to);
            }
            if from < first {
                self.add_range(from, first - 1);
            }
        }
    }

    fn add_range(&mut self, first: u128, last: u128) {
        self.by_first.insert(first, last);
        self.len = self.len.saturating_add(last - first).saturating_add(1);
    }

    fn drop_range(&mut self, first: u128, last: u128) {
        self.by_first.remove(&first);
        self.len = self.len.saturating_sub(last - first).saturating_sub(1);
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
                let list: Vec<_> = ranges.by_first.iter().collect();
                prop_assert!(list.windows(2).all(|w| w[0].1 + 1 < *w[1].0), "merged: {:?}", list);
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
        assert_eq!(ranges.by_first.len(), 1);
    }
}
