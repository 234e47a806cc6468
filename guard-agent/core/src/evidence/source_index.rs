//! What one source is known to list, looked up by address and by owner.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use super::{Entry, Evidence, Listing, Place, Source};
use crate::{owner::Owner, time::Now};

/// How a list differs from the one before.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ListingDiff {
    /// Something is listed that was not, or is no more.
    pub any: bool,
    /// The addresses of which something else is said.
    pub addresses: Vec<IpAddr>,
}

/// What one source is known to list.
#[derive(Debug)]
pub(super) struct SourceIndex {
    source: Source,
    entries: Vec<Entry>,
    by_address: HashMap<IpAddr, Vec<usize>>,
    by_name: HashMap<Arc<str>, Vec<usize>>,
    /// Those without a name.
    nameless: Vec<usize>,
    /// Those of which it matters where they are, by their namespaces.
    by_netns: HashMap<i32, Vec<usize>>,
    /// How many of those are in none that is known.
    unplaced: usize,
    /// `CLOCK_BOOTTIME` of the last answer that said so.
    seen: Duration,
}

impl SourceIndex {
    pub(super) fn new(source: Source) -> Self {
        Self {
            source,
            entries: Vec::new(),
            by_address: HashMap::new(),
            by_name: HashMap::new(),
            nameless: Vec::new(),
            by_netns: HashMap::new(),
            unplaced: 0,
            seen: Duration::ZERO,
        }
    }

    /// Takes in a list, with what entries that cannot be read now said before.
    pub(super) fn take(&mut self, listing: &Listing, now: Now) -> ListingDiff {
        let entries = self.with_former(listing);
        self.seen = now.boot;
        if entries == self.entries {
            return ListingDiff::default();
        }
        let before = std::mem::take(&mut self.by_address);
        let old = std::mem::replace(&mut self.entries, entries);
        self.by_name.clear();
        self.nameless.clear();
        self.by_netns.clear();
        self.unplaced = 0;
        for (at, entry) in self.entries.iter().enumerate() {
            for address in &entry.addresses {
                self.by_address.entry(*address).or_default().push(at);
            }
            match entry.place {
                Place::Clear => {}
                Place::Unknown => self.unplaced += 1,
                Place::Netns(netns) => self.by_netns.entry(netns).or_default().push(at),
            }
            if entry.is_nameless() {
                self.nameless.push(at);
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
        ListingDiff { any: true, addresses: addresses.into_iter().filter(changed).collect() }
    }

    /// An answer's entries, completed. One without a name may be any of those that the answer does not
    /// show: all of them are kept.
    fn with_former(&self, listing: &Listing) -> Vec<Entry> {
        let mut entries = listing.entries.clone();
        for entry in entries.iter_mut().filter(|entry| entry.needs_former()) {
            entry.keep_former(&self.entries);
        }
        if entries.iter().any(Entry::is_nameless) {
            let shown: HashSet<_> = entries.iter().map(|entry| (&entry.id, &entry.owner)).collect();
            let missing = |entry: &&Entry| !shown.contains(&(&entry.id, &entry.owner));
            let kept: Vec<_> = self.entries.iter().filter(missing).cloned().collect();
            entries.extend(kept);
        }
        entries
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.by_address.keys().copied()
    }

    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// What is said of an address.
    pub(super) fn of_address(&self, address: IpAddr, now: Now) -> Vec<(Evidence, Place)> {
        let Some(found) = self.by_address.get(&address) else { return Vec::new() };
        let said = |entry: &Entry| (self.evidence(entry, now), entry.place);
        found.iter().map(|at| said(&self.entries[*at])).collect()
    }

    /// Where those are of which an address is said.
    pub(super) fn places(&self, address: IpAddr) -> impl Iterator<Item = Place> {
        let found = self.by_address.get(&address).into_iter().flatten();
        found.map(|at| self.entries[*at].place)
    }

    /// The addresses of what is in a network namespace.
    pub(super) fn addresses_in(&self, netns: i32) -> Vec<IpAddr> {
        let found = self.by_netns.get(&netns).into_iter().flatten();
        found.flat_map(|at| self.entries[*at].addresses.iter().copied()).collect()
    }

    /// Whether anything is listed of which it matters where it is, and is not known.
    pub(super) fn has_unplaced(&self) -> bool {
        self.unplaced > 0
    }

    /// What is said of an owner.
    pub(super) fn of_owner(&self, owner: &Owner, now: Now) -> Vec<Evidence> {
        self.alive(owner).map(|entry| self.evidence(entry, now)).collect()
    }

    /// Whether anything is said of an owner.
    pub(super) fn knows(&self, owner: &Owner) -> bool {
        self.alive(owner).next().is_some()
    }

    fn alive(&self, owner: &Owner) -> impl Iterator<Item = &Entry> {
        let named = self.by_name.get(&owner.sandbox).into_iter().flatten();
        let found = named.chain(&self.nameless).map(|at| &self.entries[*at]);
        found.filter(|entry| entry.dead.is_none() && entry.speaks_for(owner))
    }

    fn evidence(&self, entry: &Entry, now: Now) -> Evidence {
        Evidence {
            source: self.source,
            detail: entry.detail.to_string(),
            mac: None,
            interface: None,
            ifindex: None,
            id: (!entry.id.is_empty()).then(|| Arc::clone(&entry.id)),
            unsure: false,
            owner: (!entry.owner.sandbox.is_empty()).then(|| entry.owner.clone()),
            since: entry.since,
            age: now.boot.saturating_sub(self.seen),
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::{super::Unread, *};

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
            unread: Unread::default(),
            place: Place::Clear,
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

    fn news(addresses: &[&str]) -> ListingDiff {
        ListingDiff { any: true, addresses: addresses.iter().map(|address| ip(address)).collect() }
    }

    #[test]
    fn an_answer_replaces_the_last_one_and_says_what_is_new() {
        let now = Now { boot: Duration::from_secs(1), wall: Timestamp::UNIX_EPOCH };
        let mut listed = SourceIndex::new(Source::Inventory);
        let (a, b) = (entry("1", "a", "", &["10.0.0.2"]), entry("2", "b", "", &["10.0.0.3"]));
        assert_eq!(listed.take(&complete(std::slice::from_ref(&a)), now), news(&["10.0.0.2"]));
        let same = listed.take(&complete(std::slice::from_ref(&a)), now);
        assert_eq!(same, ListingDiff::default(), "nothing new");
        assert_eq!(listed.take(&complete(&[b]), now), news(&["10.0.0.2", "10.0.0.3"]));
        assert_eq!(listed.of_address(ip("10.0.0.2"), now).len(), 0);
        assert_eq!(listed.of_owner(&owner("a", ""), now).len(), 0);
    }

    #[test]
    fn rule_8_an_entry_that_cannot_be_read_keeps_its_former_state_and_only_that() {
        let now = Now { boot: Duration::from_secs(1), wall: Timestamp::UNIX_EPOCH };
        let mut listed = SourceIndex::new(Source::Inventory);
        let (a, b) = (entry("1", "a", "", &["10.0.0.2"]), entry("2", "b", "", &["10.0.0.3"]));
        listed.take(&complete(&[a.clone(), b]), now);
        // Its address cannot be read any more, and the other container is gone.
        let addresses = Unread { addresses: true, owner: false };
        let silent = Entry { addresses: Vec::new(), unread: addresses, ..a.clone() };
        for _ in 0..2 {
            listed.take(&complete(std::slice::from_ref(&silent)), now);
            assert_eq!(listed.of_address(ip("10.0.0.2"), now).len(), 1);
            assert_eq!(listed.of_address(ip("10.0.0.3"), now).len(), 0, "gone is gone");
        }
        // Nor can the name of its sandbox.
        let unread = Unread { owner: true, addresses: true };
        let named = Entry { owner: owner("1", ""), named: false, unread, ..silent };
        listed.take(&complete(&[named]), now);
        assert!(listed.knows(&owner("a", "")) && listed.knows(&owner("1", "")));
        // It can be read again, and says another address.
        let other = Entry { addresses: vec![ip("10.0.0.4")], ..a };
        assert_eq!(listed.take(&complete(&[other]), now), news(&["10.0.0.2", "10.0.0.4"]));
    }

    #[test]
    fn rule_8_one_without_a_name_may_be_anyone_and_keeps_who_is_not_shown() {
        let now = Now { boot: Duration::from_secs(1), wall: Timestamp::UNIX_EPOCH };
        let mut listed = SourceIndex::new(Source::Inventory);
        let nameless = entry("", "", "", &[]);
        let (a, b) = (entry("1", "a", "", &["10.0.0.2"]), entry("2", "b", "", &["10.0.0.3"]));
        listed.take(&complete(std::slice::from_ref(&nameless)), now);
        assert!(listed.knows(&owner("whoever", "1")), "nothing is known of it");
        assert_eq!(listed.of_owner(&owner("whoever", "1"), now)[0].owner, None);
        listed.take(&complete(&[a, b.clone()]), now);
        assert!(!listed.knows(&owner("whoever", "1")));
        listed.take(&complete(&[nameless, b.clone()]), now);
        assert_eq!(listed.of_address(ip("10.0.0.2"), now).len(), 1, "it may be this one");
        assert_eq!(listed.entries().len(), 3);
        listed.take(&complete(&[b]), now);
        assert_eq!(listed.of_address(ip("10.0.0.2"), now).len(), 0);
    }

    #[test]
    fn an_owner_is_known_by_label_and_lifecycle_or_by_the_containers_id() {
        let now = Now { boot: Duration::from_secs(1), wall: Timestamp::UNIX_EPOCH };
        let mut listed = SourceIndex::new(Source::Inventory);
        let entries = [
            entry("id-1", "a", "run-1", &[]),
            entry("id-2", "b", "", &[]),
            entry("c", "c", "", &[]),
        ];
        assert_eq!(listed.take(&complete(&entries), now), news(&[]), "none has an address");
        let known = |sandbox, lifecycle| {
            let owner = owner(sandbox, lifecycle);
            let said = listed.of_owner(&owner, now).len();
            assert_eq!(listed.knows(&owner), said > 0);
            said
        };
        assert_eq!((known("a", "run-1"), known("a", "run-2"), known("a", "")), (1, 0, 0));
        assert_eq!((known("b", "any"), known("b", "")), (1, 1));
        assert_eq!((known("id-1", "any"), known("c", ""), known("d", "")), (1, 1, 0));
    }
}
