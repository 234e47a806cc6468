//! Restores the engine from the store's rows after a restart.

use std::{collections::BTreeMap, iter, sync::Arc, time::Duration};

use jiff::Timestamp;

use super::{
    Contents, Engine, Generation, Hold, Lease, Notice, Place, Pool, Pools, Row, RowChange, Subnet,
    Swap, Write,
    absence::Waiting,
    index::{Index, Slot},
    table::Table,
};

/// So far no generation is above another one without damage: twelve days of a clock, or some
/// 10^12 hand-outs.
const DAMAGE: Generation = 1 << 40;

/// What is never given twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HighWater {
    /// The generation before the store's first.
    pub seed: Generation,
    /// The highest generation that was given.
    pub generation: Generation,
    /// The highest place in the order of releases that was given.
    pub release_order: u64,
    /// Counts the boots of the machine that the store has seen; the running one is the last.
    pub boot: u64,
}

impl HighWater {
    /// Where a new store starts: no store that was made earlier has come this far, as long as
    /// it gave less than a million in each second.
    pub fn seed(now: Timestamp) -> Self {
        let seconds = u64::try_from(now.as_second()).unwrap_or_default();
        let nanoseconds = u64::try_from(now.subsec_nanosecond()).unwrap_or_default();
        let seed = (seconds << 20) + (nanoseconds << 20) / 1_000_000_000;
        Self { seed, generation: seed, release_order: 0, boot: 1 }
    }

    /// Goes up to what a row has.
    pub fn note(&mut self, row: &Row) {
        let (generation, order) = match row {
            Row::Lease(lease) => (lease.generation, lease.release_order),
            Row::Free { order } => (0, *order),
        };
        self.generation = self.generation.max(generation);
        self.release_order = self.release_order.max(order);
    }

    /// Whether the store has not given any generation yet.
    pub fn gave_nothing(&self) -> bool {
        self.generation <= self.seed
    }

    /// The highest generation that can have been handed out beside these at this time: above it is
    /// damage. A clock that was ahead has been in the generations that were given.
    pub fn limit(&self, now: Timestamp) -> Generation {
        self.generation.max(Self::seed(now).generation).saturating_add(DAMAGE)
    }

    /// Goes up to what others know to have been handed out, as far as that can be.
    pub fn believe(&mut self, given: &[Generation], now: Timestamp) {
        let limit = self.limit(now);
        let believed = given.iter().copied().filter(|generation| *generation <= limit);
        self.generation = believed.fold(self.generation, Generation::max);
    }

    /// No generation is given twice, whatever else was at work before: goes up to the seed of a
    /// store that is made now.
    pub fn go_on_from(&mut self, now: Timestamp) {
        let Self { generation, .. } = Self::seed(now);
        if self.gave_nothing() {
            self.seed = self.seed.max(generation);
        }
        self.generation = self.generation.max(generation);
    }

    /// Whether the store gave this generation to anyone.
    pub fn was_given(&self, generation: Generation) -> bool {
        self.seed < generation && generation <= self.generation
    }
}

/// The time that passed between two boots does not count: what was left at the last write of the
/// earlier one is left again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carry {
    /// `CLOCK_BOOTTIME` at the last write, in the earlier boot.
    pub then: Duration,
    /// `CLOCK_BOOTTIME` now.
    pub now: Duration,
}

impl Carry {
    fn deadline(&self, until: Duration) -> Duration {
        self.now + until.saturating_sub(self.then)
    }

    /// What was so long ago at the last write is so long ago again, or began with the boot.
    fn past(&self, at: Duration) -> Duration {
        self.now.saturating_sub(self.then.saturating_sub(at))
    }

    /// Brings a lease over from the earlier boot.
    fn lease(&self, lease: &mut Lease) {
        lease.until = lease.until.map(|until| self.deadline(until));
        for Hold { until, subscriber: _ } in &mut lease.holds {
            *until = self.deadline(*until);
        }
        lease.missed_at = lease.missed_at.map(|missed| self.past(missed));
        // No link outlives a boot. A name that was given before there was such a link waits for it still.
        if lease.binding.ifindex.is_some() {
            lease.end_port();
        }
    }

    /// Brings a row over from the earlier boot.
    pub fn row(&self, row: &mut Row) {
        if let Row::Lease(lease) = row {
            self.lease(Arc::make_mut(lease));
        }
    }
}

/// What the store kept.
#[derive(Clone, Debug, Default)]
pub struct Restored {
    /// All rows.
    pub contents: Contents,
    /// What is never given twice.
    pub high_water: HighWater,
    /// Set if the store was last written in an earlier boot.
    pub carry: Option<Carry>,
    /// When it was read, on `CLOCK_BOOTTIME`.
    pub opened: Duration,
}

impl Engine {
    /// Rebuilds the engine from what the store kept. The changes have to be stored before anything
    /// is handed out: deadlines of an earlier boot, pools that were renamed.
    pub fn restore(pools: Pools, restored: Restored) -> (Self, Vec<Write>, Vec<Notice>) {
        let Restored { contents, mut high_water, carry, opened } = restored;
        let Contents { rows, subnets, interfaces } = contents;
        for (_, row) in &rows {
            high_water.note(row);
        }
        let mut engine = Self::new(pools, high_water);
        engine.waiting = Waiting::since(opened);
        let (mut changes, mut notices) = (Vec::new(), Vec::new());
        let mut homes: BTreeMap<Slot, Row> = BTreeMap::new();
        for (place, row) in rows {
            let slot = engine.home(&place, &row);
            let wanted = engine.carried(slot, &row, carry);
            let draining = engine.tables[slot.0].draining;
            if let (true, Row::Lease(lease)) = (draining, &row) {
                notices.push(Notice::Draining(Arc::clone(lease)));
            }
            homes.extend(wanted.clone().map(|wanted| (slot, wanted)));
            if wanted.as_ref() != Some(&row) {
                let (table, old, new) = (slot.0, Some(row), wanted);
                changes.push(Write::Address(RowChange { place, table, old, new }));
            }
        }
        engine.fill(homes);
        for subnet in subnets {
            let wanted = engine.parented(&subnet);
            match &wanted {
                None => notices.push(Notice::Stray(Arc::clone(&subnet))),
                Some(wanted) if *wanted != subnet => {
                    let (old, new) = (Some(Arc::clone(&subnet)), Some(Arc::clone(wanted)));
                    changes.push(Write::Subnet(Swap { old, new }));
                }
                Some(_) => {}
            }
            engine.set_subnet(None, Some(wanted.as_ref().unwrap_or(&subnet)));
        }
        for interface in &interfaces {
            engine.interfaces.set(None, Some(interface));
        }
        for table in &mut engine.tables {
            table.place_cursor();
        }
        (engine, changes, notices)
    }

    /// Takes in the rows of an engine that has none, all at once.
    fn fill(&mut self, rows: BTreeMap<Slot, Row>) {
        self.index = Index::of(rows.values().filter_map(Row::lease));
        let mut rows = rows.into_iter().peekable();
        for (id, table) in self.tables.iter_mut().enumerate() {
            let own = iter::from_fn(|| rows.next_if(|((of, _), _)| *of == id));
            table.fill(own.map(|((_, address), row)| (address, row)).collect());
        }
        let moved = self.tables.iter().enumerate().filter(|(_, table)| table.moved_to.is_some());
        let held: Vec<Slot> =
            moved.flat_map(|(id, table)| table.rows.keys().map(move |at| (id, *at))).collect();
        for slot in held {
            self.hold_back(slot);
        }
    }

    /// The table that has the address by the configuration of today, else one that only drains.
    fn home(&mut self, place: &Place, row: &Row) -> Slot {
        if let Some(slot) = self.slot(&place.segment, place.address) {
            return slot;
        }
        let name = row.lease().map_or_else(super::transition::empty, |l| Arc::clone(&l.pool));
        let known = self.tables.iter().position(|table| {
            table.draining && *table.pool.name() == name && *table.pool.segment() == place.segment
        });
        let table = known.unwrap_or_else(|| {
            let mut pool = Pool::left_over(Arc::clone(&name), place.segment.clone(), place.address);
            let named = |table: &Table| !table.draining && *table.pool.name() == name;
            let moved_to = self.tables.iter().position(named);
            if let Some(today) = moved_to {
                pool.set_timers(self.tables[today].pool.spec());
            }
            self.add_table(Table::draining(pool, moved_to))
        });
        (table, place.address)
    }

    /// What is leased where its pool was before is not handed out where the pool is now: whoever has
    /// it uses it still.
    pub(super) fn hold_back(&mut self, (table, address): Slot) {
        let Some(now) = self.tables[table].moved_to else { return };
        let from = |other: &Table| other.moved_to == Some(now) && other.lease(address).is_some();
        let leased = self.tables.iter().any(from);
        self.tables[now].set_elsewhere(address, leased);
    }

    /// The subnet under the name that its pool has today; nothing where no pool has it.
    fn parented(&self, subnet: &Arc<Subnet>) -> Option<Arc<Subnet>> {
        let tables = self.by_segment.get(&subnet.segment)?.iter().map(|id| &self.tables[*id]);
        let mut tables = tables.filter(|table| !table.draining);
        let pool = tables.find(|table| table.pool.prefix().contains(&subnet.prefix))?.pool.name();
        if *pool == subnet.pool {
            return Some(Arc::clone(subnet));
        }
        Some(Arc::new(Subnet { pool: Arc::clone(pool), ..(**subnet).clone() }))
    }

    /// The row as it should be now.
    fn carried(&self, (table, _): Slot, row: &Row, carry: Option<Carry>) -> Option<Row> {
        let table = &self.tables[table];
        let lease = match row {
            Row::Lease(lease) => lease,
            // The order of an address that no pool has is of no use.
            Row::Free { .. } => return (!table.draining).then(|| row.clone()),
        };
        let renamed = lease.pool != *table.pool.name();
        if !renamed && carry.is_none() {
            return Some(row.clone());
        }
        let mut now: Lease = (**lease).clone();
        now.pool = Arc::clone(table.pool.name());
        if let Some(carry) = carry {
            carry.lease(&mut now);
        }
        Some(if now == **lease { row.clone() } else { Row::Lease(Arc::new(now)) })
    }
}
