//! What all sources are known to list, looked up by address and by owner.

use std::net::IpAddr;

use super::{Entry, Evidence, Listing, ListingDiff, Place, Source, source_index::SourceIndex};
use crate::{owner::Owner, time::Now};

/// What all sources are known to list.
#[derive(Debug)]
pub struct Inventory([SourceIndex; 2]);

impl Default for Inventory {
    fn default() -> Self {
        let all = [Source::Inventory, Source::Controller];
        Self(all.map(SourceIndex::new))
    }
}

impl Inventory {
    /// Takes in a list of a source. Returns what it says that the last one did not.
    pub fn take(&mut self, source: Source, listing: &Listing, now: Now) -> ListingDiff {
        let [inventory, controller] = &mut self.0;
        match source {
            Source::Inventory => inventory.take(listing, now),
            Source::Controller => controller.take(listing, now),
            // Nobody lists these.
            Source::Wire | Source::Kernel => ListingDiff::default(),
        }
    }

    /// All that a source lists.
    pub fn entries(&self, source: Source) -> Vec<Entry> {
        let [inventory, controller] = &self.0;
        match source {
            Source::Inventory => inventory.entries().to_vec(),
            Source::Controller => controller.entries().to_vec(),
            Source::Wire | Source::Kernel => Vec::new(),
        }
    }

    /// The addresses that any source names.
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.0.iter().flat_map(SourceIndex::addresses).collect()
    }

    /// What is said of an address.
    pub fn of_address(&self, address: IpAddr, now: Now) -> Vec<(Evidence, Place)> {
        self.0.iter().flat_map(|listed| listed.of_address(address, now)).collect()
    }

    /// Where those are of which an address is said.
    pub fn places(&self, address: IpAddr) -> impl Iterator<Item = Place> {
        self.0.iter().flat_map(move |listed| listed.places(address))
    }

    /// The addresses of what is in a network namespace.
    pub fn addresses_in(&self, netns: i32) -> Vec<IpAddr> {
        self.0.iter().flat_map(|listed| listed.addresses_in(netns)).collect()
    }

    /// Whether anything is listed of which it matters where it is, and is not known.
    pub fn has_unplaced(&self) -> bool {
        self.0.iter().any(SourceIndex::has_unplaced)
    }

    /// What is said of an owner.
    pub fn of_owner(&self, owner: &Owner, now: Now) -> Vec<Evidence> {
        self.0.iter().flat_map(|listed| listed.of_owner(owner, now)).collect()
    }

    /// Whether anything is said of an owner.
    pub fn knows(&self, owner: &Owner) -> bool {
        self.0.iter().any(|listed| listed.knows(owner))
    }
}
