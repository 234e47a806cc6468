//! What the ledger has to look at again: a set of places, not a queue of messages. What changes
//! twice before the ledger comes to it is looked at once, and nothing is ever left out for want of
//! room: the evidence says what is true when the ledger looks.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use tokio::sync::Notify;

use guard_core::evidence::Changes;

/// The changes that the ledger has not looked at yet.
#[derive(Debug, Default)]
pub struct ChangeQueue {
    changes: Mutex<Changes>,
    changed: Notify,
    wanted: Mutex<BTreeMap<&'static str, std::sync::Arc<Notify>>>,
}

impl ChangeQueue {
    /// Adds to the changes. The ledger looks at them with its next command, or after
    /// [`ChangeQueue::wake`].
    pub fn mark(&self, add: impl FnOnce(&mut Changes)) {
        add(&mut self.changes.lock());
    }

    /// Has the ledger look now.
    pub fn wake(&self) {
        self.changed.notify_one();
    }

    /// Adds to the changes, and has the ledger look at them now.
    pub fn tell(&self, add: impl FnOnce(&mut Changes)) {
        self.mark(add);
        self.wake();
    }

    /// Waits until there may be changes to look at.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Takes the changes, at most so many places; the rest wakes the ledger again.
    pub fn take(&self, most: usize) -> Changes {
        let mut changes = self.changes.lock();
        let mut taken = std::mem::take(&mut *changes);
        if let Some(first) = taken.places.iter().nth(most).cloned() {
            changes.places = taken.places.split_off(&first);
            self.wake();
        }
        taken
    }

    /// Puts back what could not be stored.
    pub fn put_back(&self, again: Changes) {
        self.mark(|changes| changes.add(again));
    }

    /// Whether a link has ended, and the ledger does not know it yet.
    pub fn has_ended(&self, ifindex: u32) -> bool {
        self.changes.lock().ended.contains(&ifindex)
    }

    /// Something waits for a source's next complete answer: it should be asked now.
    pub fn want(&self, source: &'static str) {
        self.wanted_of(source).notify_one();
    }

    /// Waits until something waits for a source.
    pub async fn wanted(&self, source: &'static str) {
        let wanted = self.wanted_of(source);
        wanted.notified().await;
    }

    fn wanted_of(&self, source: &'static str) -> std::sync::Arc<Notify> {
        self.wanted.lock().entry(source).or_default().clone()
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use guard_core::segment::Segment;

    #[test]
    fn places_are_taken_some_at_a_time_and_all_else_at_once() {
        let queue = ChangeQueue::default();
        let place = |n: u8| (Segment::new("br0", 0), IpAddr::from([10, 0, 0, n]));
        queue.mark(|changes| {
            changes.places.extend((0..5).map(place));
            changes.ended.extend(0..100);
        });
        let first = queue.take(3);
        assert_eq!(first.places.iter().cloned().collect::<Vec<_>>(), [0, 1, 2].map(place));
        assert_eq!(first.ended.len(), 100);
        assert!(!queue.has_ended(7), "the ledger knows");
        queue.put_back(first);
        assert!(queue.has_ended(7));
        assert_eq!(queue.take(10).places.len(), 5);
        assert!(queue.take(10).is_empty());
    }
}
