//! Pages of leases, in the order of their keys: reading all of them does not block a caller who wants
//! one.

use std::{collections::BTreeMap, net::IpAddr, ops::Bound, sync::Arc};

use super::{Engine, InterfaceName, Lease, LeaseFilter, Row, Subnet, table::Table};
use crate::segment::Segment;

/// How many rows are looked at for one stretch, whether they match or not.
const STEPS: usize = 4096;

/// Where a lease stands among all. No two have the same, and it tells nothing of one run of the agent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LeaseKey {
    /// The pool's name; empty where the order is by place.
    pub pool: Arc<str>,
    /// The bridge and the VLAN.
    pub segment: Segment,
    /// The address.
    pub address: IpAddr,
}

/// What a stretch is ordered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Pools by their names, and then addresses.
    Pool,
    /// Segments, and then addresses, whichever pool has them.
    Place,
}

/// Asks for a stretch.
#[derive(Clone, Debug)]
pub struct StretchOf {
    /// Which leases.
    pub filter: LeaseFilter,
    /// Those of one bridge.
    pub bridge: Option<Arc<str>>,
    /// In which order.
    pub order: Order,
    /// Those after this one.
    pub after: Option<LeaseKey>,
    /// At most so many.
    pub most: usize,
}

/// Some of the leases.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stretch {
    /// Those that match, in order.
    pub leases: Vec<Arc<Lease>>,
    /// How far it was looked, if not to the end: the next stretch is after this.
    pub reached: Option<LeaseKey>,
}

impl LeaseKey {
    /// The key of a lease.
    pub fn of(lease: &Lease, order: Order) -> Self {
        let Lease { pool, segment, address, .. } = lease;
        let pool = if order == Order::Pool { Arc::clone(pool) } else { super::no_text() };
        Self { pool, segment: segment.clone(), address: *address }
    }
}

impl LeaseFilter {
    /// Whether a lease matches.
    pub(super) fn admits(&self, lease: &Lease) -> bool {
        let Self { pool, state, sandbox, generation, address } = self;
        let owner = lease.owner.as_ref().map(|owner| &owner.sandbox);
        pool.as_ref().is_none_or(|pool| lease.pool == *pool)
            && state.is_none_or(|state| lease.state == state)
            && sandbox.as_ref().is_none_or(|sandbox| owner == Some(sandbox))
            && generation.is_none_or(|generation| lease.generation == generation)
            && address.is_none_or(|address| lease.address == address)
    }
}

/// Tables that are one in an order, and where its addresses begin.
type Group<'a> = ((Arc<str>, Segment), Vec<&'a Table>);

impl Engine {
    /// The next leases in an order. What it costs depends on neither how many there are nor how
    /// many of them match.
    pub fn stretch(&self, ask: &StretchOf) -> Stretch {
        if let Some(sandbox) = &ask.filter.sandbox
            && let Some(stretch) = self.stretch_of_sandbox(sandbox, ask)
        {
            return stretch;
        }
        let StretchOf { filter, order: _, bridge: _, after, most } = ask;
        let (mut leases, mut reached, mut steps) = (Vec::new(), None, 0);
        for ((pool, segment), tables) in self.groups(ask) {
            let here = after.as_ref().filter(|key| key.pool == pool && key.segment == segment);
            for (address, row) in rows_after(&tables, here.map(|key| key.address)) {
                if leases.len() == *most || steps == STEPS {
                    return Stretch { leases, reached };
                }
                steps += 1;
                reached = Some(LeaseKey {
                    pool: Arc::clone(&pool),
                    segment: segment.clone(),
                    address: *address,
                });
                leases.extend(row.lease().filter(|lease| filter.admits(lease)).cloned());
            }
        }
        Stretch { leases, reached: None }
    }

    /// A sandbox has few leases of many: they are known without a search. None where it has more
    /// than a stretch would look at.
    fn stretch_of_sandbox(&self, sandbox: &Arc<str>, ask: &StretchOf) -> Option<Stretch> {
        let StretchOf { filter, bridge, order, after, most } = ask;
        let held = self.index.of_sandbox(sandbox, None);
        let all: Vec<_> = held.chain(self.index.ended(sandbox, None)).take(STEPS + 1).collect();
        if all.len() > STEPS {
            return None;
        }
        let on_bridge =
            |lease: &Lease| bridge.as_ref().is_none_or(|bridge| lease.segment.bridge == *bridge);
        let mut keyed: Vec<_> = all
            .into_iter()
            .filter(|lease| filter.admits(lease) && on_bridge(lease))
            .map(|lease| (LeaseKey::of(lease, *order), lease))
            .filter(|(key, _)| after.as_ref().is_none_or(|after| key > after))
            .collect();
        keyed.sort_by(|(a, _), (b, _)| a.cmp(b));
        let more = keyed.len() > *most;
        keyed.truncate(*most);
        let reached = keyed.last().filter(|_| more).map(|(key, _)| key.clone());
        Some(Stretch {
            leases: keyed.into_iter().map(|(_, lease)| Arc::clone(lease)).collect(),
            reached,
        })
    }

    /// The child subnets after an identifier, at most so many.
    pub fn subnets_after(
        &self,
        id: Option<&str>,
        most: usize,
    ) -> impl Iterator<Item = &Arc<Subnet>> {
        self.subnets.after(id).take(most)
    }

    /// The reserved interface names after a name, at most so many.
    pub fn interfaces_after(
        &self,
        name: Option<&str>,
        most: usize,
    ) -> impl Iterator<Item = &Arc<InterfaceName>> {
        self.interfaces.after(name).take(most)
    }

    /// The tables from the one where the stretch begins, in order. Several are one where a pool has
    /// another prefix than before, and where a segment has several pools.
    fn groups(&self, ask: &StretchOf) -> impl Iterator<Item = Group<'_>> {
        let StretchOf { filter, bridge, order, after, most: _ } = ask;
        let mut groups: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for table in &self.tables {
            let segment = table.pool.segment();
            if filter.pool.as_ref().is_some_and(|pool| pool != table.pool.name())
                || bridge.as_ref().is_some_and(|bridge| *bridge != segment.bridge)
            {
                continue;
            }
            let pool = match order {
                Order::Pool => Arc::clone(table.pool.name()),
                Order::Place => super::no_text(),
            };
            let key = (pool, segment.clone());
            let before = |key: &(_, _)| {
                after.as_ref().is_some_and(|after| (&key.0, &key.1) < (&after.pool, &after.segment))
            };
            if !before(&key) {
                groups.entry(key).or_default().push(table);
            }
        }
        groups.into_iter()
    }
}

/// The rows of tables that are one, from behind an address on, as many as a stretch looks at.
fn rows_after<'a>(
    tables: &[&'a Table],
    after: Option<IpAddr>,
) -> Box<dyn Iterator<Item = (&'a IpAddr, &'a Row)> + 'a> {
    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
    let rows = move |table: &'a Table| table.rows.range((from, Bound::Unbounded));
    if let [table] = tables {
        return Box::new(rows(table));
    }
    let some = tables.iter().flat_map(|table| rows(table).take(STEPS + 1));
    let mut some: Vec<_> = some.collect();
    some.sort_by_key(|(address, _)| **address);
    Box::new(some.into_iter())
}
