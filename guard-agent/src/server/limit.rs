//! How much of one thing each caller may have at a time.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;

/// Whose it is: a user's, or that of all together who have no role.
pub type Caller = Option<u32>;

/// Counts what callers have.
#[derive(Clone, Debug)]
pub struct Limit {
    /// For one who has a role.
    most: u32,
    /// For all together who have none.
    strangers: u32,
    counts: Counts,
}

type Counts = Arc<Mutex<HashMap<Caller, u32>>>;

/// One that is counted, until it is dropped.
#[derive(Debug)]
pub struct Slot {
    caller: Caller,
    counts: Counts,
}

impl Limit {
    pub fn new(most: u32, strangers: u32) -> Self {
        Self { most, strangers, counts: Arc::default() }
    }

    /// How many a caller may have.
    pub fn most(&self, caller: Caller) -> u32 {
        if caller.is_some() { self.most } else { self.strangers }
    }

    /// Counts one more, unless that is too much.
    pub fn take(&self, caller: Caller) -> Option<Slot> {
        let most = self.most(caller);
        let mut counts = self.counts.lock();
        let taken = counts.entry(caller).or_default();
        if *taken >= most {
            return None;
        }
        *taken += 1;
        Some(Slot { caller, counts: self.counts.clone() })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut counts = self.counts.lock();
        if let Some(taken) = counts.get_mut(&self.caller) {
            *taken -= 1;
            if *taken == 0 {
                counts.remove(&self.caller);
            }
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
}
