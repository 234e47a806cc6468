//! The engine: rows, what they imply, and how a command changes them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;

use super::{
    Contents, Generation, InterfaceName, Lease, Owner, Place, Pools, Row, RowChange, Standing,
    State, Subnet, Swap, Write,
    absence::Waiting,
    command::{Command, Refusal, Reply},
    index::{Index, Slot},
    interface::Interfaces,
    restore::HighWater,
    subnet::Subnets,
    table::Table,
    transaction::Transaction,
    transition,
};
use crate::{
    evidence::{EvidenceView, Unknown},
    segment::Segment,
    time::Now,
};

/// Beyond this many, interface keys are no common words and are not shared.
const MOST_KEYS: usize = 256;

/// All leases of a node. Rows change through [`Engine::apply`] and [`Engine::undo`] only.
#[derive(Debug, Default)]
pub struct Engine {
    pub(super) tables: Vec<Table>,
    pub(super) by_segment: HashMap<Segment, Vec<usize>>,
    pub(super) index: Index,
    pub(super) high_water: HighWater,
    /// Interface keys, of which nearly all leases have one of a few.
    keys: HashSet<Arc<str>>,
    /// Who has to acknowledge a release, and for how long it is waited for.
    pub(super) subscribers: Vec<(Arc<str>, Duration)>,
    pub(super) subnets: Subnets,
    pub(super) interfaces: Interfaces,
    /// What waits until more is known.
    pub(super) waiting: Waiting,
}

/// What came of a command.
#[derive(Debug)]
#[must_use = "the changes have to be stored, or undone"]
pub struct Applied {
    /// The reply to the caller.
    pub result: Result<Reply, Refusal>,
    /// What has to be on disk before anyone is told. A refusal can have changes too: candidates
    /// that turned out to be live are quarantined.
    pub changes: Vec<Write>,
    /// What people should know.
    pub notices: Vec<Notice>,
}

/// Something that is wrong and that no lease's state shows.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    /// The host has an address that is leased, cooling or quarantined.
    HostAddress(Arc<Lease>),
    /// Who is said to have an address: more than one, one, or nobody any more.
    Named {
        /// Where the address lives.
        segment: Segment,
        /// The address.
        address: IpAddr,
        /// Its lease, where somebody has it.
        holder: Option<Arc<Lease>>,
        /// The others that the inventory names.
        others: Vec<Owner>,
    },
    /// Subscribers did not acknowledge a release in time.
    HoldExpired(Arc<Lease>, Vec<Arc<str>>),
    /// No pool of the configuration has the address any more, or its pool is on another segment now,
    /// where the address is held back; the lease is kept until it ends.
    Draining(Arc<Lease>),
    /// No pool of the configuration has the child subnet any more; it is kept until it is
    /// released.
    Stray(Arc<Subnet>),
}

/// Which leases to list; all conditions that are set must hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LeaseFilter {
    /// Of this pool.
    pub pool: Option<Arc<str>>,
    /// In this state.
    pub state: Option<State>,
    /// Of this sandbox.
    pub sandbox: Option<Arc<str>>,
    /// The lease of this generation.
    pub generation: Option<Generation>,
    /// At this address of any segment.
    pub address: Option<IpAddr>,
}

/// The size and the fill of a pool.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolStatus {
    /// Its name.
    pub name: Arc<str>,
    /// The bridge and the VLAN.
    pub segment: Segment,
    /// Its prefix.
    pub prefix: IpNet,
    /// Its gateway.
    pub gateway: Option<IpAddr>,
    /// Addresses that can be handed out at all.
    pub capacity: u128,
    /// Addresses that can be handed out now.
    pub free: u128,
    /// How many are in each state, in the order of [`State::ALL`].
    pub states: [u64; State::ALL.len()],
    /// It is not in the configuration any more; its leases are kept until they end.
    pub draining: bool,
    /// How many of its addresses are leased still on a segment that it was on before.
    pub held_back: u64,
    /// How many of its addresses wait until more is known, by what they wait for.
    pub waiting: BTreeMap<Unknown, u64>,
}

impl PoolStatus {
    /// How many addresses are in a state.
    pub fn count(&self, state: State) -> u64 {
        self.states[state as usize]
    }

    /// How many addresses wait for a source to answer completely.
    pub fn waiting_for(&self, source: &'static str) -> u64 {
        self.waiting.get(&Unknown::Source(source)).copied().unwrap_or_default()
    }

    /// The share of the capacity that is not free, 0 to 1.
    #[expect(clippy::cast_precision_loss, reason = "a share needs no more than 53 bits")]
    pub fn utilisation(&self) -> f64 {
        if self.capacity == 0 {
            return 1.0;
        }
        self.capacity.saturating_sub(self.free) as f64 / self.capacity as f64
    }
}

impl Engine {
    /// An engine without leases. The generations go on after `generation`; for a new store that is
    /// [`HighWater::seed`].
    pub fn new(pools: Pools, high_water: HighWater) -> Self {
        let mut engine = Self { high_water, ..Self::default() };
        for pool in pools {
            engine.add_table(Table::new(pool));
        }
        engine
    }

    pub(super) fn add_table(&mut self, table: Table) -> usize {
        let id = self.tables.len();
        self.by_segment.entry(table.pool.segment().clone()).or_default().push(id);
        self.tables.push(table);
        id
    }

    /// Carries out a command. The caller stores the changes and tells of them, or gives them to
    /// [`Engine::undo`] before it applies anything else.
    pub fn apply(&mut self, command: Command, view: &dyn EvidenceView, now: Now) -> Applied {
        let mut transaction = Transaction::new(self, view, now);
        let result = transaction.run(command);
        let (changes, notices) = transaction.end();
        Applied { result, changes, notices }
    }

    /// What a command would return. Nothing is changed.
    pub fn preview(
        &mut self,
        command: Command,
        view: &dyn EvidenceView,
        now: Now,
    ) -> Result<Reply, Refusal> {
        let (high_water, waiting) = (self.high_water, self.waiting.clone());
        let applied = self.apply(command, view, now);
        self.undo(&applied.changes);
        self.high_water = high_water;
        self.set_waiting(waiting);
        applied.result
    }

    /// Takes changes back that could not be stored. Of several commands the last one goes first.
    pub fn undo(&mut self, changes: &[Write]) {
        for change in changes.iter().rev() {
            match change {
                Write::Address(RowChange { place, table, old, new: _ }) => {
                    self.set((*table, place.address), old.clone());
                    let cursor = &mut self.tables[*table].cursor;
                    *cursor = (*cursor).min(super::number::of(place.address));
                }
                Write::Subnet(Swap { old, new }) => self.set_subnet(new.as_ref(), old.as_ref()),
                Write::Interface(Swap { old, new }) => {
                    self.interfaces.set(new.as_ref(), old.as_ref());
                }
            }
        }
    }

    /// Replaces a child subnet and all that follows from it.
    pub(super) fn set_subnet(&mut self, old: Option<&Arc<Subnet>>, new: Option<&Arc<Subnet>>) {
        self.subnets.set(old, new);
        for (subnet, carve) in [(old, false), (new, true)] {
            let Some(Subnet { segment, prefix, .. }) = subnet.map(|subnet| &**subnet) else {
                continue;
            };
            // It may lie across what are several pools by now.
            for table in self.by_segment.get(segment).into_iter().flatten() {
                self.tables[*table].carve(*prefix, carve);
            }
        }
    }

    /// When [`Command::Tick`] has something to do, on `CLOCK_BOOTTIME`.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.index.next_deadline()
    }

    /// What has to be known for no generation and no place in the release order to come twice.
    pub fn high_water(&self) -> HighWater {
        self.high_water
    }

    /// The leases that match, by pool and address.
    pub fn leases<'a>(
        &'a self,
        filter: &'a LeaseFilter,
    ) -> impl Iterator<Item = &'a Arc<Lease>> + 'a {
        let only = filter.generation.map(|generation| self.index.generation(generation));
        let one = only.flatten();
        let all = self.tables.iter().flat_map(|table| table.rows.values()).filter_map(Row::lease);
        one.into_iter()
            .chain(all.take(if only.is_some() { 0 } else { usize::MAX }))
            .filter(move |lease| filter.admits(lease))
    }

    /// From now on released addresses wait for these, each at most so long.
    pub fn set_subscribers(&mut self, subscribers: &[(Arc<str>, Duration)]) {
        subscribers.clone_into(&mut self.subscribers);
    }

    /// The pools have these settings from now on. What makes a pool another one (its segment, its
    /// prefix, its gateway) is as it was. What is left of it elsewhere has its timers too.
    pub fn set_pools(&mut self, pools: &Pools) {
        for table in &mut self.tables {
            let Some(pool) = pools.get(table.pool.name()) else { continue };
            if table.draining {
                table.pool.set_timers(pool.spec());
            } else {
                table.set_pool(pool.clone());
            }
        }
    }

    /// How an address stands to a pool of today.
    pub fn standing(&self, segment: &Segment, address: IpAddr) -> Standing {
        let tables = self.by_segment.get(segment).into_iter().flatten();
        let standing = |id: &usize| self.tables[*id].standing(address);
        tables.map(standing).find(|it| *it != Standing::Outside).unwrap_or(Standing::Outside)
    }

    /// The leases that somebody has.
    pub fn reservations(&self) -> Vec<Arc<Lease>> {
        let rows = self.tables.iter().flat_map(|table| table.rows.values());
        rows.filter_map(Row::lease).filter(|lease| lease.state.is_owned()).cloned().collect()
    }

    /// The lease or quarantine at an address.
    pub fn lease_at(&self, segment: &Segment, address: IpAddr) -> Option<&Arc<Lease>> {
        let (table, address) = self.slot(segment, address)?;
        self.tables[table].lease(address)
    }

    /// All pools, those that only drain last.
    pub fn pools(&self) -> Vec<PoolStatus> {
        let tables = self.tables.iter().enumerate();
        tables
            .filter(|(_, table)| !table.draining || !table.rows.is_empty())
            .map(|(id, table)| PoolStatus {
                name: Arc::clone(table.pool.name()),
                segment: table.pool.segment().clone(),
                prefix: table.pool.prefix(),
                gateway: table.pool.gateway(),
                capacity: table.capacity(),
                free: table.free(),
                states: State::ALL.map(|state| table.count(state)),
                draining: table.draining,
                held_back: table.held_back(),
                waiting: self.waiting.of_table(id),
            })
            .collect()
    }

    /// The one copy of an interface key, as long as there are not too many of them.
    pub(super) fn shared_key(&mut self, key: &Arc<str>) -> Arc<str> {
        if let Some(known) = self.keys.get(key) {
            return Arc::clone(known);
        }
        if self.keys.len() < MOST_KEYS {
            self.keys.insert(Arc::clone(key));
        }
        Arc::clone(key)
    }

    /// Where an address's row is, or would be.
    pub(super) fn slot(&self, segment: &Segment, address: IpAddr) -> Option<Slot> {
        let tables = self.by_segment.get(segment)?;
        let has_row = |id: &&usize| self.tables[**id].rows.contains_key(&address);
        let covers = |id: &&usize| {
            let table = &self.tables[**id];
            !table.draining && table.pool.standing(address) != Standing::Outside
        };
        let table = tables.iter().find(has_row).or_else(|| tables.iter().find(covers))?;
        Some((*table, address))
    }

    /// Where a lease of the engine is.
    pub(super) fn slot_of(&self, lease: &Lease) -> Slot {
        self.slot(&lease.segment, lease.address).expect("the index names leases that exist")
    }

    pub(super) fn lease(&self, (table, address): Slot) -> Option<&Arc<Lease>> {
        self.tables[table].lease(address)
    }

    /// Replaces a row and everything that follows from it.
    pub(super) fn set(&mut self, slot: Slot, row: Option<Row>) -> Option<Row> {
        let (table, address) = slot;
        let old = self.tables[table].set(address, row);
        self.hold_back(slot);
        if let Some(lease) = old.as_ref().and_then(Row::lease) {
            self.index.remove(lease);
        }
        if let Some(lease) = self.tables[table].lease(address) {
            self.index.add(lease);
        }
        self.row_changed(slot, old.as_ref().and_then(Row::lease));
        old
    }

    /// Replaces a row and writes down that it did.
    pub(super) fn change(&mut self, slot: Slot, new: Option<Row>) -> Write {
        let (table, address) = slot;
        let old = self.set(slot, new.clone());
        let state = |row: &Option<Row>| row.as_ref().and_then(Row::lease).map(|l| l.state);
        debug_assert!(
            transition::is_legal(state(&old), state(&new)),
            "{address}: {:?} → {:?}",
            state(&old),
            state(&new)
        );
        let segment = self.tables[table].pool.segment().clone();
        Write::Address(RowChange { place: Place { segment, address }, table, old, new })
    }

    /// All child subnets, by their identifiers.
    pub fn subnets(&self) -> impl Iterator<Item = &Arc<Subnet>> {
        self.subnets.iter()
    }

    /// The child subnet that has an address.
    pub fn subnet_of(&self, segment: &Segment, address: IpAddr) -> Option<&Arc<Subnet>> {
        self.subnets.touching(segment, IpNet::from(address))
    }

    /// All interface names that are reserved, in their order.
    pub fn interfaces(&self) -> impl Iterator<Item = &Arc<InterfaceName>> {
        self.interfaces.iter()
    }

    /// A copy of all that a store keeps.
    pub fn contents(&self) -> Contents {
        Contents {
            rows: self.rows().map(|(place, row)| (place, row.clone())).collect(),
            subnets: self.subnets().cloned().collect(),
            interfaces: self.interfaces().cloned().collect(),
        }
    }

    /// All rows of addresses, in no particular order.
    pub fn rows(&self) -> impl Iterator<Item = (Place, &Row)> {
        self.tables.iter().flat_map(|table| {
            let segment = table.pool.segment();
            table
                .rows
                .iter()
                .map(|(address, row)| (Place { segment: segment.clone(), address: *address }, row))
        })
    }

    /// Compares what grew step by step with what the rows imply, and looks for an address that
    /// is in two tables. Returns what disagrees; empty is good.
    pub fn check(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut index = Index::default();
        let mut seen = BTreeSet::new();
        for table in &self.tables {
            if table.derived_anew() != *table.derived() {
                wrong.push(format!("pool {:?}: its order of free addresses", table.pool.name()));
            }
            for (address, row) in &table.rows {
                if !seen.insert((table.pool.segment(), *address)) {
                    wrong.push(format!("{address} on {} has two rows", table.pool.segment()));
                }
                if let Row::Lease(lease) = row {
                    index.add(lease);
                    if let Some(subnet) = self.subnet_of(&lease.segment, *address)
                        && lease.state.is_owned()
                    {
                        wrong.push(format!("{address} is leased and in the subnet {subnet}"));
                    }
                }
            }
            let of_segment = self.subnets().filter(|s| s.segment == *table.pool.segment());
            if !table.has_carved(of_segment.map(|subnet| subnet.prefix)) {
                wrong.push(format!("pool {:?}: what subnets have of it", table.pool.name()));
            }
        }
        for slot in self.waiting.slots() {
            if let Some(lease) = self.lease(slot) {
                index.park(lease);
            }
        }
        wrong.extend(self.subnets.check());
        wrong.extend(self.interfaces.check());
        if index != self.index {
            wrong.push("the index of owners, generations and deadlines".to_owned());
        }
        wrong
    }
}
