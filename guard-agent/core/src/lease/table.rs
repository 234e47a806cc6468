//! The rows of one pool, and the order in which its addresses are handed out.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use ipnet::IpNet;

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
    /// Where it only drains: the table of the pool that has its name today, on another segment.
    pub(super) moved_to: Option<usize>,
    pub(super) rows: BTreeMap<IpAddr, Row>,
    /// Where the search for a never-used address goes on. Not derived from the rows: it only
    /// decides which of several free addresses comes first.
    pub(super) cursor: u128,
    host: BTreeSet<IpAddr>,
    /// Addresses that are leased on a segment that the pool was on before.
    elsewhere: BTreeSet<IpAddr>,
    /// What child subnets have of the prefix.
    carved: Ranges,
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
        let (rows, host, elsewhere) = Default::default();
        let carved = Ranges::default();
        Self {
            pool,
            draining: false,
            moved_to: None,
            rows,
            cursor: 0,
            host,
            elsewhere,
            carved,
            derived,
        }
    }

    /// A table for rows that no pool has any more, and the table of the pool of that name today.
    pub(super) fn draining(pool: Pool, moved_to: Option<usize>) -> Self {
        let derived = Derived::default();
        Self { draining: true, moved_to, derived, ..Self::new(pool) }
    }

    /// How an address stands to the pool, the host's own addresses and child subnets being taken
    /// out of it.
    pub(super) fn standing(&self, address: IpAddr) -> Standing {
        match self.pool.standing(address) {
            Standing::Allocatable if self.draining => Standing::Outside,
            Standing::Allocatable if self.host.contains(&address) => Standing::Reserved,
            Standing::Allocatable if self.elsewhere.contains(&address) => Standing::Elsewhere,
            Standing::Allocatable if self.carved.contains(number::of(address)) => Standing::Carved,
            standing => standing,
        }
    }

    fn is_allocatable(&self, address: IpAddr) -> bool {
        self.standing(address) == Standing::Allocatable
    }

    pub(super) fn lease(&self, address: IpAddr) -> Option<&std::sync::Arc<Lease>> {
        self.rows.get(&address).and_then(Row::lease)
    }

    /// Replaces a row. Returns what was there.
    pub(super) fn set(&mut self, address: IpAddr, row: Option<Row>) -> Option<Row> {
        self.derive(address, false);
        let old = match row {
            Some(row) => self.rows.insert(address, row),
            None => self.rows.remove(&address),
        };
        self.derive(address, true);
        old
    }

    /// Takes in the rows of a table that has none, all at once.
    pub(super) fn fill(&mut self, rows: BTreeMap<IpAddr, Row>) {
        let addresses: Vec<_> = rows.keys().copied().collect();
        for run in addresses.chunk_by(|a, b| number::of(*a).checked_add(1) == Some(number::of(*b)))
        {
            if let (Some(first), Some(last)) = (run.first(), run.last()) {
                self.derived.fresh.remove(number::of(*first), number::of(*last));
            }
        }
        self.rows = rows;
        for address in addresses {
            self.derive(address, true);
        }
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

    /// The pool has other settings now, and maybe gives other addresses of its prefix.
    pub(super) fn set_pool(&mut self, pool: Pool) {
        self.pool = pool;
        self.derived = self.derived_anew();
    }

    /// The host's own addresses are these now. Returns those that are new to the pool, and those that
    /// are the host's no more.
    pub(super) fn set_host(&mut self, addresses: &[IpAddr]) -> (Vec<IpAddr>, Vec<IpAddr>) {
        let inside = |address: &&IpAddr| self.pool.standing(**address) != Standing::Outside;
        let wanted: BTreeSet<_> = addresses.iter().filter(inside).copied().collect();
        let differ: Vec<_> = self.host.symmetric_difference(&wanted).copied().collect();
        let (mut added, mut left) = (Vec::new(), Vec::new());
        for address in differ {
            self.derive(address, false);
            if self.host.remove(&address) {
                self.derive(address, true);
                left.push(address);
            } else {
                self.host.insert(address);
                self.derive(address, true);
                added.push(address);
            }
        }
        (added, left)
    }

    /// An address is leased on a segment that the pool was on before, or is no more.
    pub(super) fn set_elsewhere(&mut self, address: IpAddr, leased: bool) {
        if self.elsewhere.contains(&address) == leased
            || self.pool.standing(address) == Standing::Outside
        {
            return;
        }
        self.derive(address, false);
        if leased {
            self.elsewhere.insert(address);
        } else {
            self.elsewhere.remove(&address);
        }
        self.derive(address, true);
    }

    /// How many addresses are leased on a segment that the pool was on before.
    pub(super) fn held_back(&self) -> u64 {
        self.elsewhere.len() as u64
    }

    /// A child subnet has this prefix from now on, or has it no more.
    pub(super) fn carve(&mut self, prefix: IpNet, carve: bool) {
        let Some((first, last)) = self.overlap(prefix) else { return };
        let range = || self.pool.address(first)..=self.pool.address(last);
        let rows = self.rows.range(range()).map(|(address, _)| *address);
        let others = self.host.range(range()).chain(self.elsewhere.range(range())).copied();
        let inside: BTreeSet<_> = rows.chain(others).collect();
        for address in &inside {
            self.derive(*address, false);
        }
        let fresh = &mut self.derived.fresh;
        if carve {
            self.carved.insert(first, last);
            fresh.remove(first, last);
        } else {
            self.carved.remove(first, last);
            for (from, to) in self.pool.allocatable().within(first, last) {
                fresh.insert(from, to);
            }
            for address in &inside {
                fresh.remove(number::of(*address), number::of(*address));
            }
        }
        for address in &inside {
            self.derive(*address, true);
        }
    }

    /// What the pool has of a prefix; nothing is carved out of one that only drains.
    fn overlap(&self, prefix: IpNet) -> Option<(u128, u128)> {
        let own = self.pool.prefix();
        if self.draining || own.network().is_ipv4() != prefix.network().is_ipv4() {
            return None;
        }
        let first = number::of(own.network()).max(number::of(prefix.network()));
        let last = number::of(own.broadcast()).min(number::of(prefix.broadcast()));
        (first <= last).then_some((first, last))
    }

    /// Whether all of `first..=last` could be handed out by the configuration.
    pub(super) fn gives_all(&self, first: u128, last: u128) -> bool {
        let whole = self.pool.allocatable().within(first, last).next() == Some((first, last));
        whole && self.host_in(first, last).is_none()
    }

    /// The last address in `first..=last` that the host has, or that is leased elsewhere.
    fn host_in(&self, first: u128, last: u128) -> Option<IpAddr> {
        let range = || self.pool.address(first)..=self.pool.address(last);
        let last = |of: &BTreeSet<IpAddr>| of.range(range()).next_back().copied();
        last(&self.host).max(last(&self.elsewhere))
    }

    /// The last lease in `first..=last`, in whatever state.
    pub(super) fn lease_in(&self, first: u128, last: u128) -> Option<&std::sync::Arc<Lease>> {
        let range = self.pool.address(first)..=self.pool.address(last);
        self.rows.range(range).rev().find_map(|(_, row)| row.lease())
    }

    /// The lowest aligned block of `size` addresses, a power of two, in which all can be handed
    /// out, and none is leased, nor among these, which are live. What it costs depends on how many
    /// of them are in the way, not on how large the pool or the block is.
    pub(super) fn first_block(&self, size: u128, live: &BTreeSet<u128>) -> Option<u128> {
        let mut at = self.first();
        loop {
            let (from, to) = self.pool.allocatable().within(at, u128::MAX).next()?;
            let first = from.checked_next_multiple_of(size)?;
            let last = first.checked_add(size - 1)?;
            let after = if last > to {
                Some(to)
            } else {
                let taken = [
                    self.carved.last_touching(first, last),
                    self.host_in(first, last).map(number::of),
                    self.lease_in(first, last).map(|lease| number::of(lease.address)),
                    live.range(first..=last).next_back().copied(),
                ];
                taken.into_iter().flatten().max()
            };
            match after {
                Some(after) => at = after.checked_add(1)?,
                None => return Some(first),
            }
        }
    }

    /// The next address to try, the one that has been free for longest first, and none of those that
    /// are held back. `tries` counts the live ones that are passed over on the way; none is left when it
    /// reaches the maximum.
    pub(super) fn candidate(
        &mut self,
        tries: &mut u32,
        held_back: &BTreeSet<IpAddr>,
    ) -> Option<Candidate> {
        let max = self.pool.spec().max_attempts;
        if let Some(next) = self.next_fresh(held_back) {
            let derived = &self.derived;
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
        let first = |of: &BTreeSet<(u64, IpAddr)>| {
            let mut addresses = of.iter().map(|(_, address)| *address);
            addresses.find(|address| !held_back.contains(address))
        };
        if let Some(address) = first(&self.derived.released) {
            return Some(Candidate::Free(address));
        }
        let bypass = self.pool.spec().cooldown_bypass;
        bypass.then(|| first(&self.derived.cooling))?.map(Candidate::Cooling)
    }

    /// The next address that was never used, from the cursor on and then from the beginning.
    fn next_fresh(&mut self, held_back: &BTreeSet<IpAddr>) -> Option<u128> {
        let next_from = |mut from: u128| loop {
            let next = self.derived.fresh.first_from(from)?;
            if !held_back.contains(&self.pool.address(next)) {
                return Some(next);
            }
            from = next.checked_add(1)?;
        };
        let next = next_from(self.cursor);
        next.or_else(|| {
            let next = next_from(0);
            self.cursor = 0;
            next
        })
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
        let host = self.host.union(&self.elsewhere);
        let host = host.filter(|a| self.pool.standing(**a) == Standing::Allocatable);
        let host = host.filter(|address| !self.carved.contains(number::of(**address)));
        let carved = self.carved.within(0, u128::MAX).flat_map(|(first, last)| {
            self.pool.allocatable().within(first, last).map(|(from, to)| to - from + 1)
        });
        self.pool.capacity() - host.count() as u128 - carved.sum::<u128>()
    }

    /// What the rows imply, worked out from nothing.
    pub(super) fn derived_anew(&self) -> Derived {
        let mut table = if self.draining {
            Self::draining(self.pool.clone(), self.moved_to)
        } else {
            Self::new(self.pool.clone())
        };
        for (first, last) in self.carved.within(0, u128::MAX) {
            table.carved.insert(first, last);
            table.derived.fresh.remove(first, last);
        }
        table.set_host(&self.host.iter().copied().collect::<Vec<_>>());
        for address in &self.elsewhere {
            table.set_elsewhere(*address, true);
        }
        for (address, row) in &self.rows {
            table.set(*address, Some(row.clone()));
        }
        table.derived
    }

    /// Whether exactly these prefixes are carved out of it.
    pub(super) fn has_carved(&self, prefixes: impl Iterator<Item = IpNet>) -> bool {
        let mut carved = Ranges::default();
        for (first, last) in prefixes.filter_map(|prefix| self.overlap(prefix)) {
            carved.insert(first, last);
        }
        carved == self.carved
    }

    pub(super) fn derived(&self) -> &Derived {
        &self.derived
    }
}
