//! How much of one thing each caller may have at a time.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;

/// Whose it is: a user's, or that of all together who have no role.
pub type Caller = Option<u32>;

/// Counts what callers have.
#[derive(Clone, Debug)]
pub struct Limit {
    what: &'static str,
    /// For one who has a role.
    pub most: u32,
    /// For all together who have none.
    pub strangers: u32,
    counts: Arc<Mutex<HashMap<Caller, Count>>>,
}

#[derive(Debug, Default)]
struct Count {
    taken: u32,
    /// The log knows that it was too much.
    told: bool,
}

/// One that is counted, until it is dropped.
#[derive(Debug)]
pub struct Slot {
    caller: Caller,
    counts: Arc<Mutex<HashMap<Caller, Count>>>,
}

impl Limit {
    pub fn new(what: &'static str, most: u32, strangers: u32) -> Self {
        Self { what, most, strangers, counts: Arc::default() }
    }

    /// Counts one more, unless that is too much; the log hears of it once, until the caller has
    /// nothing open any more.
    pub fn take(&self, caller: Caller) -> Option<Slot> {
        let most = if caller.is_some() { self.most } else { self.strangers };
        let mut counts = self.counts.lock();
        let count = counts.entry(caller).or_default();
        if count.taken >= most {
            if !std::mem::replace(&mut count.told, true) {
                let uid = caller.map(tracing::field::display);
                tracing::warn!(uid, most, "a caller is refused: too many {} at a time", self.what);
            }
            return None;
        }
        count.taken += 1;
        Some(Slot { caller, counts: self.counts.clone() })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut counts = self.counts.lock();
        if let Some(count) = counts.get_mut(&self.caller) {
            count.taken -= 1;
            if count.taken == 0 {
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
        let limit = Limit::new("calls", 2, 1);
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
