//! The rows of one pool, and the order in which its addresses are handed out.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use super::{Lease, Pool, Row, Standing, State, number, ranges::Ranges};

/// What the next candidate of an allocation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Candidate {
    /// Never used, or longest released.
    Free(IpAddr),
    /// Given back the longest ago of those that still rest.
    Cooling(IpAddr),
}

/// One pool's rows, with what is derived from them.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) pool: Pool,
    /// Left over from an earlier configuration: nothing is handed out any more.
    pub(super) draining: bool,
    pub(super) rows: BTreeMap<IpAddr, Row>,
    /// Where the search for a never-used address goes on. Not derived from the rows: it only
    /// decides which of several free addresses comes first.
    pub(super) cursor: u128,
    host: BTreeSet<IpAddr>,
    derived: Derived,
}

/// What the rows (and the host's addresses) imply.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Derived {
    /// Can be handed out and has no row.
    fresh: Ranges,
    /// Free and used before, by release order.
    released: BTreeSet<(u64, IpAddr)>,
    /// Cooling, by release order.
    cooling: BTreeSet<(u64, IpAddr)>,
    /// Cooling, by the end of it.
    cooling_until: BTreeSet<(Duration, IpAddr)>,
    /// Quarantined as live.
    live: BTreeSet<IpAddr>,
    /// By the order of [`State::ALL`].
    counts: [u64; State::ALL.len()],
}

impl Table {
    pub(super) fn new(pool: Pool) -> Self {
        let derived = Derived { fresh: pool.allocatable().clone(), ..Derived::default() };
        let (rows, host) = (BTreeMap::new(), BTreeSet::new());
        Self { pool, draining: false, rows, cursor: 0, host, derived }
    }

    /// A table for rows that no pool has any more.
    pub(super) fn draining(pool: Pool) -> Self {
        let (rows, host) = (BTreeMap::new(), BTreeSet::new());
        Self { pool, draining: true, rows, cursor: 0, host, derived: Derived::default() }
    }

    /// How an address stands to the pool, the host's own addresses being reserved.
    pub(super) fn standing(&self, address: IpAddr) -> Standing {
        match self.pool.standing(address) {
            Standing::Allocatable if self.draining => Standing::Outside,
            Standing::Allocatable if self.host.contains(&address) => Standing::Reserved,
            standing => standing,
        }
    }

    fn is_allocatable(&self, address: IpAddr) -> bool {
        self.standing(address) == Standing::Allocatable
    }

    pub(super) fn lease(&self, address: IpAddr) -> Option<&std::sync::Arc<Lease>> {
        self.rows.get(&address).and_then(Row::lease)
    }

    /// Replaces a row. Answers what was there.
    pub(super) fn set(&mut self, address: IpAddr, row: Option<Row>) -> Option<Row> {
        self.derive(address, false);
        let old = match row {
            Some(row) => self.rows.insert(address, row),
            None => self.rows.remove(&address),
        };
        self.derive(address, true);
        old
    }

    /// Adds or takes away what the address's row implies.
    fn derive(&mut self, address: IpAddr, add: bool) {
        fn put<T: Ord>(set: &mut BTreeSet<T>, item: T, add: bool) {
            if add {
                set.insert(item)
            } else {
                set.remove(&item)
            };
        }
        let allocatable = self.is_allocatable(address);
        let derived = &mut self.derived;
        match self.rows.get(&address) {
            None if allocatable && add => {
                derived.fresh.insert(number::of(address), number::of(address));
            }
            None if allocatable => {
                derived.fresh.remove(number::of(address), number::of(address));
            }
            None => {}
            Some(Row::Free { order }) if allocatable => {
                put(&mut derived.released, (*order, address), add);
            }
            Some(Row::Free { .. }) => {}
            Some(Row::Lease(lease)) => {
                let count = &mut derived.counts[lease.state as usize];
                *count = if add { *count + 1 } else { *count - 1 };
                if lease.state == State::Cooling {
                    if allocatable {
                        put(&mut derived.cooling, (lease.release_order, address), add);
                    }
                    let until = lease.until.unwrap_or(Duration::MAX);
                    put(&mut derived.cooling_until, (until, address), add);
                } else if lease.is_live_quarantine() {
                    put(&mut derived.live, address, add);
                }
            }
        }
    }

    /// The host's own addresses are these now. Answers those that are new to the pool.
    pub(super) fn set_host(&mut self, addresses: &[IpAddr]) -> Vec<IpAddr> {
        let inside = |address: &&IpAddr| self.pool.standing(**address) != Standing::Outside;
        let wanted: BTreeSet<_> = addresses.iter().filter(inside).copied().collect();
        let differ: Vec<_> = self.host.symmetric_difference(&wanted).copied().collect();
        let mut added = Vec::new();
        for address in differ {
            self.derive(address, false);
            if self.host.remove(&address) {
                self.derive(address, true);
            } else {
                self.host.insert(address);
                self.derive(address, true);
                added.push(address);
            }
        }
        added
    }

    /// The next address to try, the one that has been free for longest first. `tries` counts the
    /// live ones that are passed over on the way; none is left when it reaches the maximum.
    pub(super) fn candidate(&mut self, tries: &mut u32) -> Option<Candidate> {
        let max = self.pool.spec().max_attempts;
        let derived = &self.derived;
        if derived.fresh.len() > 0 {
            let next = derived.fresh.first_from(self.cursor).or_else(|| {
                self.cursor = 0;
                derived.fresh.first_from(0)
            })?;
            let (from, to) = (self.pool.address(self.first().max(self.cursor)), next);
            for address in derived.live.range(from..self.pool.address(to)) {
                *tries += 1;
                self.cursor = number::of(*address) + 1;
                if *tries >= max {
                    return None;
                }
            }
            self.cursor = next.saturating_add(1);
            return Some(Candidate::Free(self.pool.address(next)));
        }
        if let Some((_, address)) = derived.released.first() {
            return Some(Candidate::Free(*address));
        }
        if self.pool.spec().cooldown_bypass {
            return derived.cooling.first().map(|(_, address)| Candidate::Cooling(*address));
        }
        None
    }

    fn first(&self) -> u128 {
        number::of(self.pool.prefix().network())
    }

    /// After a restart: go on after what is known to have been used.
    pub(super) fn place_cursor(&mut self) {
        let last = self.rows.keys().next_back().copied();
        self.cursor = match last {
            // Rows of IPv6 addresses go when they are free; those above the last one never were.
            Some(last) if last.is_ipv6() => number::of(last).saturating_add(1),
            _ => self.derived.fresh.first_from(0).unwrap_or(0),
        };
    }

    /// When the next cooling address is free.
    pub(super) fn first_cooled(&self) -> Option<Duration> {
        self.derived.cooling_until.first().map(|(until, _)| *until)
    }

    /// Whether an address is quarantined as live.
    pub(super) fn has_live(&self) -> bool {
        !self.derived.live.is_empty()
    }

    pub(super) fn count(&self, state: State) -> u64 {
        self.derived.counts[state as usize]
    }

    /// How many addresses are free now.
    pub(super) fn free(&self) -> u128 {
        self.derived.fresh.len().saturating_add(self.derived.released.len() as u128)
    }

    /// How many addresses can be handed out at all.
    pub(super) fn capacity(&self) -> u128 {
        if self.draining {
            return 0;
        }
        let host = self.host.iter().filter(|a| self.pool.standing(**a) == Standing::Allocatable);
        self.pool.capacity() - host.count() as u128
    }

    /// What the rows imply, worked out from nothing.
    pub(super) fn derived_anew(&self) -> Derived {
        let mut table = if self.draining {
            Self::draining(self.pool.clone())
        } else {
            Self::new(self.pool.clone())
        };
        table.set_host(&self.host.iter().copied().collect::<Vec<_>>());
        for (address, row) in &self.rows {
            table.set(*address, Some(row.clone()));
        }
        table.derived
    }

    pub(super) fn derived(&self) -> &Derived {
        &self.derived
    }
}
