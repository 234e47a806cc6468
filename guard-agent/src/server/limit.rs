//! How much of one thing each caller may have at a time.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;

/// Whose it is: a user's, or that of all together who have no role.
pub(super) type Caller = Option<u32>;

/// Counts what callers have.
#[derive(Clone, Debug)]
pub(super) struct Limit {
    /// For one who has a role.
    most: u32,
    /// For all together who have none.
    strangers: u32,
    counts: Counts,
}

type Counts = Arc<Mutex<HashMap<Caller, Count>>>;

/// How many one caller has, and each of its processes.
#[derive(Debug, Default)]
struct Count {
    all: u32,
    by_process: HashMap<Process, u32>,
}

/// A process, where it matters which.
type Process = Option<i32>;

/// One that is counted, until it is dropped.
#[derive(Debug)]
pub(super) struct Slot {
    caller: Caller,
    process: Process,
    counts: Counts,
}

impl Limit {
    pub(super) fn new(most: u32, strangers: u32) -> Self {
        Self { most, strangers, counts: Arc::default() }
    }

    /// How many a caller may have.
    pub(super) fn most(&self, caller: Caller) -> u32 {
        if caller.is_some() { self.most } else { self.strangers }
    }

    /// Counts one more, unless that is too much.
    pub(super) fn take(&self, caller: Caller) -> Option<Slot> {
        self.count(caller, None)
    }

    /// As [`Self::take`], for one of the caller's processes. The last quarter is kept for processes
    /// that have none: one that takes all it can get does not keep the others out.
    pub(super) fn take_for(&self, caller: Caller, process: i32) -> Option<Slot> {
        self.count(caller, Some(process))
    }

    fn count(&self, caller: Caller, process: Process) -> Option<Slot> {
        let mut counts = self.counts.lock();
        let count = counts.entry(caller).or_default();
        let most = self.most(caller);
        let has_some = process.is_some() && count.by_process.contains_key(&process);
        if count.all >= (if has_some { most - most / 4 } else { most }) {
            return None;
        }
        count.all += 1;
        *count.by_process.entry(process).or_default() += 1;
        Some(Slot { caller, process, counts: self.counts.clone() })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut counts = self.counts.lock();
        let Some(count) = counts.get_mut(&self.caller) else { return };
        count.all -= 1;
        if let Some(own) = count.by_process.get_mut(&self.process) {
            *own -= 1;
            if *own == 0 {
                count.by_process.remove(&self.process);
            }
        }
        if count.all == 0 {
            counts.remove(&self.caller);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_caller_has_its_own_and_gets_it_back() {
        let limit = Limit::new(2, 1);
        let [first, _second] = [(), ()].map(|()| limit.take(Some(1)).unwrap());
        assert!(limit.take(Some(1)).is_none());
        let other = limit.take(Some(2)).unwrap();
        let stranger = limit.take(None).unwrap();
        assert!(limit.take(None).is_none());
        drop(first);
        assert!(limit.take(Some(1)).is_some());
        drop((other, stranger));
        assert_eq!(limit.counts.lock().len(), 1, "nothing is kept of those who are gone");
    }
    #[test]
    fn a_process_that_takes_all_it_can_get_leaves_places_to_those_that_have_none() {
        let limit = Limit::new(8, 4);
        let first: Vec<_> = std::iter::from_fn(|| limit.take_for(Some(1), 100)).collect();
        assert_eq!(first.len(), 6);
        let other = limit.take_for(Some(1), 101).unwrap();
        assert!(limit.take_for(Some(1), 101).is_none(), "it has one now");
        let third = limit.take_for(Some(1), 102).unwrap();
        assert!(limit.take_for(Some(1), 103).is_none(), "there are no more");
        drop(third);
        assert!(limit.take_for(Some(1), 103).is_some());
        drop((first, other));
        assert!(limit.counts.lock().is_empty(), "nothing is kept of those who are gone");
    }
}
