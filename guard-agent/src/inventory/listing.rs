//! What a source lists, and how it can be looked up by address and by owner.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;

use crate::{
    clock::Now,
    evidence::{Evidence, Source},
    lease::Owner,
};

/// One thing that a source lists: a container, or a sandbox of the controller's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// Whose it is.
    pub owner: Owner,
    /// What else an owner may be known by: the container's id. Empty where there is nothing.
    pub id: Arc<str>,
    /// The addresses that it is said to have.
    pub addresses: Vec<IpAddr>,
    /// One of the labels or fields that are meant for us names it.
    pub labelled: bool,
    /// The owner's name is that of a sandbox, and not the container's id for want of one.
    pub named: bool,
    /// It has ended: no evidence, but an answer to whoever asks what became of it.
    pub dead: Option<Death>,
    /// For people.
    pub detail: Arc<str>,
    /// Since when it exists, or is dead: what the source says, or else when it was first listed.
    pub since: Timestamp,
}

/// What is known of an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Death {
    /// When it was first listed, on `CLOCK_BOOTTIME`. It is no earlier than the end itself.
    pub listed: Duration,
    /// When it was by the source's clock, if the source says so.
    pub at: Option<Timestamp>,
}

/// An answer of a source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// What can be read of it.
    pub entries: Vec<Entry>,
    /// What cannot: the answer is partial where there is anything.
    pub unreadable: Vec<String>,
}

impl Entry {
    /// Whether it speaks for an owner. One that names no lifecycle speaks for all of the sandbox.
    pub fn speaks_for(&self, owner: &Owner) -> bool {
        if *self.id == *owner.sandbox {
            return true;
        }
        let Owner { sandbox, lifecycle } = &self.owner;
        *sandbox == owner.sandbox && (lifecycle.is_empty() || *lifecycle == owner.lifecycle)
    }
}

/// What an answer says that the last one did not.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct News {
    /// Something is listed that was not, or is no more.
    pub any: bool,
    /// The addresses of which something else is said.
    pub addresses: Vec<IpAddr>,
}

/// What one source is known to list.
#[derive(Debug)]
pub(super) struct Listed {
    source: Source,
    entries: Vec<Entry>,
    by_address: HashMap<IpAddr, Vec<usize>>,
    by_name: HashMap<Arc<str>, Vec<usize>>,
    /// `CLOCK_BOOTTIME` of the last answer that said so.
    seen: Duration,
}

impl Listed {
    pub(super) fn new(source: Source) -> Self {
        Self {
            source,
            entries: Vec::new(),
            by_address: HashMap::new(),
            by_name: HashMap::new(),
            seen: Duration::ZERO,
        }
    }

    /// Takes an answer over. What a partial one does not show may be there still: it is kept.
    pub(super) fn take(&mut self, listing: &Listing, now: Now) -> News {
        let mut entries = listing.entries.clone();
        if !listing.unreadable.is_empty() {
            let shown: HashSet<_> = listing.entries.iter().collect();
            let kept = self.entries.iter().filter(|entry| !shown.contains(entry));
            entries.extend(kept.cloned());
        }
        self.seen = now.boot;
        if entries == self.entries {
            return News::default();
        }
        let before = std::mem::take(&mut self.by_address);
        let old = std::mem::replace(&mut self.entries, entries);
        self.by_name.clear();
        for (at, entry) in self.entries.iter().enumerate() {
            for address in &entry.addresses {
                self.by_address.entry(*address).or_default().push(at);
            }
            let names = BTreeSet::from([&entry.owner.sandbox, &entry.id]);
            for name in names.into_iter().filter(|name| !name.is_empty()) {
                self.by_name.entry(Arc::clone(name)).or_default().push(at);
            }
        }
        let said = |entries: &[Entry], at: Option<&Vec<usize>>| -> Vec<Entry> {
            at.into_iter().flatten().map(|at| entries[*at].clone()).collect()
        };
        let addresses: BTreeSet<_> = before.keys().chain(self.by_address.keys()).copied().collect();
        let changed = |address: &IpAddr| {
            said(&old, before.get(address)) != said(&self.entries, self.by_address.get(address))
        };
        News { any: true, addresses: addresses.into_iter().filter(changed).collect() }
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.by_address.keys().copied()
    }

    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// What is said of an address.
    pub(super) fn of_address(&self, address: IpAddr) -> Vec<Evidence> {
        let Some(found) = self.by_address.get(&address) else { return Vec::new() };
        let now = Now::read();
        found.iter().map(|at| self.evidence(&self.entries[*at], now)).collect()
    }

    /// What is said of an owner.
    pub(super) fn of_owner(&self, owner: &Owner) -> Vec<Evidence> {
        let mut alive = self.alive(owner).peekable();
        if alive.peek().is_none() {
            return Vec::new();
        }
        let now = Now::read();
        alive.map(|entry| self.evidence(entry, now)).collect()
    }

    /// Whether anything is said of an address.
    pub(super) fn names(&self, address: IpAddr) -> bool {
        self.by_address.contains_key(&address)
    }

    /// Whether anything is said of an owner.
    pub(super) fn knows(&self, owner: &Owner) -> bool {
        self.alive(owner).next().is_some()
    }

    fn alive(&self, owner: &Owner) -> impl Iterator<Item = &Entry> {
        let named = self.by_name.get(&owner.sandbox).into_iter().flatten();
        let named = named.map(|at| &self.entries[*at]);
        named.filter(|entry| entry.dead.is_none() && entry.speaks_for(owner))
    }

    fn evidence(&self, entry: &Entry, now: Now) -> Evidence {
        Evidence {
            source: self.source,
            detail: entry.detail.to_string(),
            mac: None,
            interface: None,
            ifindex: None,
            owner: Some(entry.owner.clone()),
            since: entry.since,
            age: now.boot.saturating_sub(self.seen),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: &str, sandbox: &str, lifecycle: &str, addresses: &[&str]) -> Entry {
        Entry {
            owner: Owner { sandbox: sandbox.into(), lifecycle: lifecycle.into() },
            id: id.into(),
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
            labelled: true,
            named: true,
            dead: None,
            detail: format!("container {id}").into(),
            since: Timestamp::UNIX_EPOCH,
        }
    }

    fn complete(entries: &[Entry]) -> Listing {
        Listing { entries: entries.to_vec(), unreadable: Vec::new() }
    }

    fn owner(sandbox: &str, lifecycle: &str) -> Owner {
        Owner { sandbox: sandbox.into(), lifecycle: lifecycle.into() }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn news(addresses: &[&str]) -> News {
        News { any: true, addresses: addresses.iter().map(|address| ip(address)).collect() }
    }

    #[test]
    fn a_complete_answer_replaces_and_a_partial_one_only_adds() {
        let now = Now::read();
        let mut listed = Listed::new(Source::Inventory);
        let (a, b) = (entry("1", "a", "", &["10.0.0.2"]), entry("2", "b", "", &["10.0.0.3"]));
        assert_eq!(listed.take(&complete(std::slice::from_ref(&a)), now), news(&["10.0.0.2"]));
        let same = listed.take(&complete(std::slice::from_ref(&a)), now);
        assert_eq!(same, News::default(), "nothing new");
        let partial = Listing { entries: vec![b], unreadable: vec!["a label".to_owned()] };
        assert_eq!(listed.take(&partial, now), news(&["10.0.0.3"]));
        assert_eq!(listed.of_address(ip("10.0.0.2")).len(), 1, "not shown, but kept");
        assert_eq!(listed.take(&complete(&[]), now), news(&["10.0.0.2", "10.0.0.3"]));
        assert_eq!(listed.of_address(ip("10.0.0.2")).len(), 0);
        assert_eq!(listed.of_owner(&owner("a", "")).len(), 0);
    }

    #[test]
    fn an_owner_is_known_by_label_and_lifecycle_or_by_the_containers_id() {
        let now = Now::read();
        let mut listed = Listed::new(Source::Inventory);
        let entries = [
            entry("id-1", "a", "run-1", &[]),
            entry("id-2", "b", "", &[]),
            entry("c", "c", "", &[]),
        ];
        assert_eq!(listed.take(&complete(&entries), now), news(&[]), "none has an address");
        let known = |sandbox, lifecycle| {
            let owner = owner(sandbox, lifecycle);
            let said = listed.of_owner(&owner).len();
            assert_eq!(listed.knows(&owner), said > 0);
            said
        };
        assert_eq!((known("a", "run-1"), known("a", "run-2"), known("a", "")), (1, 0, 0));
        assert_eq!((known("b", "any"), known("b", "")), (1, 1));
        assert_eq!((known("id-1", "any"), known("c", ""), known("d", "")), (1, 1, 0));
    }
}
