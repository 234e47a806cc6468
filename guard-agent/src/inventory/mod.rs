//! What others know to exist: the container runtime's containers, the controller's sandboxes.
//!
//! A source adds reasons to keep an address. Its silence proves something only in an answer that
//! was complete, and whether it was is part of the answer.

mod listing;

use std::net::IpAddr;

use parking_lot::RwLock;

use listing::Listed;
pub use listing::{Entry, Listing};

use crate::{
    clock::Now,
    evidence::{Evidence, Source},
    lease::Owner,
};

/// What all sources are known to list, answered from memory.
#[derive(Debug)]
pub struct Listings(RwLock<[Listed; 2]>);

impl Default for Listings {
    fn default() -> Self {
        let all = [Source::Inventory, Source::Controller];
        Self(RwLock::new(all.map(Listed::new)))
    }
}

impl Listings {
    /// Takes an answer of a source over. Gives back the addresses of which it says something else
    /// now.
    pub fn take(&self, source: Source, listing: &Listing, now: Now) -> Vec<IpAddr> {
        let [inventory, controller] = &mut *self.0.write();
        match source {
            Source::Controller => controller.take(listing, now),
            _ => inventory.take(listing, now),
        }
    }

    /// The addresses that any source names.
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.0.read().iter().flat_map(Listed::addresses).collect()
    }

    /// What is said of an address.
    pub fn of_address(&self, address: IpAddr) -> Vec<Evidence> {
        let now = Now::read();
        self.0.read().iter().flat_map(|listed| listed.of_address(address, now)).collect()
    }

    /// What is said of an owner.
    pub fn of_owner(&self, owner: &Owner) -> Vec<Evidence> {
        let now = Now::read();
        self.0.read().iter().flat_map(|listed| listed.of_owner(owner, now)).collect()
    }
}
