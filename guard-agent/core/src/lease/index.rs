//! Indices of the leases of all pools: by owner, by port, by deadline and more.
//!
//! Each index is a set of references to leases, ordered by what it is asked for: an entry costs
//! two words, where a copy of its key would cost a dozen.

use std::{
    cmp::Ordering,
    collections::{BTreeSet, HashMap},
    fmt,
    net::IpAddr,
    ops::Bound,
    sync::Arc,
    time::Duration,
};

use super::{Generation, Lease, Owner};
use crate::segment::Segment;

/// Where a row is: the table's number and the address.
pub(super) type Slot = (usize, IpAddr);

/// Tells entries with the same key apart; a question leaves it out, and so comes first.
type Whose<'a> = Option<(&'a Segment, IpAddr)>;

/// What a set of leases is ordered by.
trait Order {
    /// What is asked for.
    type Question;
    type Key<'a>: Ord;

    /// Where a lease stands; nowhere if the question does not concern it.
    fn of(lease: &Lease) -> Option<Self::Key<'_>>;

    /// Before all leases with these properties.
    fn before(question: &Self::Question) -> Self::Key<'_>;
}

enum Entry<O: Order> {
    Lease(Arc<Lease>),
    Question(Box<O::Question>),
}

impl<O: Order> Entry<O> {
    fn key(&self) -> Option<O::Key<'_>> {
        match self {
            Self::Lease(lease) => O::of(lease),
            Self::Question(question) => Some(O::before(question)),
        }
    }
}

impl<O: Order> Ord for Entry<O> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl<O: Order> PartialOrd for Entry<O> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<O: Order> PartialEq for Entry<O> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<O: Order> Eq for Entry<O> {}

/// Leases in one order.
struct Sorted<O: Order>(BTreeSet<Entry<O>>);

impl<O: Order> Sorted<O> {
    fn of(leases: &[&Arc<Lease>]) -> Self {
        let concerned = leases.iter().filter(|lease| O::of(lease).is_some());
        Self(concerned.map(|lease| Entry::Lease(Arc::clone(lease))).collect())
    }

    fn add(&mut self, lease: &Arc<Lease>) {
        if O::of(lease).is_some() {
            self.0.insert(Entry::Lease(Arc::clone(lease)));
        }
    }

    fn remove(&mut self, lease: &Arc<Lease>) {
        if O::of(lease).is_some() {
            self.0.remove(&Entry::Lease(Arc::clone(lease)));
        }
    }

    fn from(&self, question: O::Question) -> impl Iterator<Item = &Arc<Lease>> {
        let from = Bound::Included(Entry::Question(Box::new(question)));
        self.0.range((from, Bound::Unbounded)).filter_map(lease_of)
    }

    fn iter(&self) -> impl Iterator<Item = &Arc<Lease>> {
        self.0.iter().filter_map(lease_of)
    }
}

/// Questions are not kept in the sets.
fn lease_of<O: Order>(entry: &Entry<O>) -> Option<&Arc<Lease>> {
    if let Entry::Lease(lease) = entry { Some(lease) } else { None }
}

/// The first lifecycle after one: there is none before the one that is longer by a NUL.
fn next_lifecycle(lifecycle: &str) -> Arc<str> {
    Arc::from(format!("{lifecycle}\0"))
}

/// The first owner after one, or after none.
fn next_owner(owner: Option<&Owner>) -> Owner {
    match owner {
        Some(Owner { sandbox, lifecycle }) => {
            Owner { sandbox: Arc::clone(sandbox), lifecycle: next_lifecycle(lifecycle) }
        }
        None => Owner { sandbox: super::no_text(), lifecycle: super::no_text() },
    }
}

fn whose(lease: &Lease) -> Whose<'_> {
    Some((&lease.segment, lease.address))
}

/// Leases that somebody has: by owner, interface key and pool.
struct ByAsker;

/// An owner's name for a lease.
struct Asker {
    sandbox: Arc<str>,
    lifecycle: Arc<str>,
    key: Arc<str>,
    pool: Arc<str>,
}

impl Order for ByAsker {
    type Question = Asker;
    type Key<'a> = (&'a str, &'a str, &'a str, &'a str, Whose<'a>);

    fn of(lease: &Lease) -> Option<Self::Key<'_>> {
        let Owner { sandbox, lifecycle } =
            lease.owner.as_ref().filter(|_| lease.state.is_owned())?;
        Some((sandbox, lifecycle, &lease.key, &lease.pool, whose(lease)))
    }

    fn before(asker: &Asker) -> Self::Key<'_> {
        let Asker { sandbox, lifecycle, key, pool } = asker;
        (sandbox, lifecycle, key, pool, None)
    }
}

/// Leases that somebody had and that are not free yet: by owner.
struct ByLastOwner;

impl Order for ByLastOwner {
    type Question = Owner;
    type Key<'a> = (&'a str, &'a str, Generation, Whose<'a>);

    fn of(lease: &Lease) -> Option<Self::Key<'_>> {
        let Owner { sandbox, lifecycle } =
            lease.owner.as_ref().filter(|_| !lease.state.is_owned())?;
        Some((sandbox, lifecycle, lease.generation, whose(lease)))
    }

    fn before(owner: &Owner) -> Self::Key<'_> {
        (&owner.sandbox, &owner.lifecycle, 0, None)
    }
}

/// Leases bound to a port that exists or did: by owner.
struct ByPort;

impl Order for ByPort {
    type Question = (u32, Option<Owner>);
    type Key<'a> = (u32, Option<&'a Owner>, Whose<'a>);

    fn of(lease: &Lease) -> Option<Self::Key<'_>> {
        Some((lease.binding.ifindex?, lease.owner.as_ref(), whose(lease)))
    }

    fn before((ifindex, owner): &Self::Question) -> Self::Key<'_> {
        (*ifindex, owner.as_ref(), None)
    }
}

/// Leases whose declared binding names a port.
struct ByInterface;

impl Order for ByInterface {
    type Question = Arc<str>;
    type Key<'a> = (&'a str, Whose<'a>);

    fn of(lease: &Lease) -> Option<Self::Key<'_>> {
        let interface = lease.binding.interface.as_ref().filter(|_| lease.binding.declared)?;
        Some((interface, whose(lease)))
    }

    fn before(interface: &Arc<str>) -> Self::Key<'_> {
        (interface, None)
    }
}

/// Leases whose state ends by itself.
struct ByDeadline;

impl Order for ByDeadline {
    type Question = Duration;
    type Key<'a> = (Duration, Whose<'a>);

    fn of(lease: &Lease) -> Option<Self::Key<'_>> {
        Some((lease.until?, whose(lease)))
    }

    fn before(until: &Duration) -> Self::Key<'_> {
        (*until, None)
    }
}

/// Derived from the leases of all tables.
#[derive(Default)]
pub(super) struct Index {
    by_generation: HashMap<Generation, Arc<Lease>>,
    held: Sorted<ByAsker>,
    ended: Sorted<ByLastOwner>,
    by_port: Sorted<ByPort>,
    by_interface: Sorted<ByInterface>,
    deadlines: Sorted<ByDeadline>,
}

impl<O: Order> Default for Sorted<O> {
    fn default() -> Self {
        Self(BTreeSet::new())
    }
}

impl PartialEq for Index {
    fn eq(&self, other: &Self) -> bool {
        let Self { by_generation, held, ended, by_port, by_interface, deadlines } = self;
        *by_generation == other.by_generation
            && held.0 == other.held.0
            && ended.0 == other.ended.0
            && by_port.0 == other.by_port.0
            && by_interface.0 == other.by_interface.0
            && deadlines.0 == other.deadlines.0
    }
}

impl fmt::Debug for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Index").field("generations", &self.by_generation.len()).finish()
    }
}

impl Index {
    /// The index of these, for less than adding one after the other.
    pub(super) fn of<'a>(leases: impl Iterator<Item = &'a Arc<Lease>>) -> Self {
        let leases: Vec<_> = leases.collect();
        let given = leases.iter().filter(|lease| lease.generation != 0);
        Self {
            by_generation: given.map(|lease| (lease.generation, Arc::clone(lease))).collect(),
            held: Sorted::of(&leases),
            ended: Sorted::of(&leases),
            by_port: Sorted::of(&leases),
            by_interface: Sorted::of(&leases),
            deadlines: Sorted::of(&leases),
        }
    }

    pub(super) fn add(&mut self, lease: &Arc<Lease>) {
        if lease.generation != 0 {
            self.by_generation.insert(lease.generation, Arc::clone(lease));
        }
        self.held.add(lease);
        self.ended.add(lease);
        self.by_port.add(lease);
        self.by_interface.add(lease);
        self.deadlines.add(lease);
    }

    pub(super) fn remove(&mut self, lease: &Arc<Lease>) {
        if self.generation(lease.generation).is_some_and(|known| Arc::ptr_eq(known, lease)) {
            self.by_generation.remove(&lease.generation);
        }
        self.held.remove(lease);
        self.ended.remove(lease);
        self.by_port.remove(lease);
        self.by_interface.remove(lease);
        self.deadlines.remove(lease);
    }

    pub(super) fn generation(&self, generation: Generation) -> Option<&Arc<Lease>> {
        self.by_generation.get(&generation)
    }

    /// The lease that this asker has.
    pub(super) fn same_asker(
        &self,
        owner: &Owner,
        key: &Arc<str>,
        pool: &Arc<str>,
    ) -> Option<&Arc<Lease>> {
        let Owner { sandbox, lifecycle } = owner;
        let question = Asker {
            sandbox: Arc::clone(sandbox),
            lifecycle: Arc::clone(lifecycle),
            key: Arc::clone(key),
            pool: Arc::clone(pool),
        };
        let first = self.held.from(question).next()?;
        let same =
            is_of(first, sandbox, Some(lifecycle)) && first.key == *key && first.pool == *pool;
        same.then_some(first)
    }

    /// All leases that a sandbox has, of one lifecycle or of all.
    pub(super) fn of_sandbox<'a>(
        &'a self,
        sandbox: &'a Arc<str>,
        lifecycle: Option<&'a Arc<str>>,
    ) -> impl Iterator<Item = &'a Arc<Lease>> {
        let empty = super::no_text;
        let question = Asker {
            sandbox: Arc::clone(sandbox),
            lifecycle: lifecycle.map_or_else(empty, Arc::clone),
            key: empty(),
            pool: empty(),
        };
        self.held.from(question).take_while(move |lease| is_of(lease, sandbox, lifecycle))
    }

    /// What a sandbox gave back and is not free yet.
    pub(super) fn ended<'a>(
        &'a self,
        sandbox: &'a Arc<str>,
        lifecycle: Option<&'a Arc<str>>,
    ) -> impl Iterator<Item = &'a Arc<Lease>> {
        let question = Owner {
            sandbox: Arc::clone(sandbox),
            lifecycle: lifecycle.map_or_else(super::no_text, Arc::clone),
        };
        self.ended.from(question).take_while(move |lease| is_of(lease, sandbox, lifecycle))
    }

    /// What other runs of a sandbox have, or gave back and is not free yet. Costs nothing for the
    /// leases of the run itself.
    pub(super) fn of_other_runs<'a>(
        &'a self,
        sandbox: &'a Arc<str>,
        run: &'a Arc<str>,
    ) -> impl Iterator<Item = &'a Arc<Lease>> {
        let after = next_lifecycle(run);
        let held = |lifecycle: Arc<str>| {
            let (key, pool) = (super::no_text(), super::no_text());
            self.held.from(Asker { sandbox: Arc::clone(sandbox), lifecycle, key, pool })
        };
        let ended = |lifecycle| self.ended.from(Owner { sandbox: Arc::clone(sandbox), lifecycle });
        let own = |lease: &&Arc<Lease>| is_of(lease, sandbox, Some(run));
        let others = |lease: &&Arc<Lease>| is_of(lease, sandbox, None);
        let first = super::no_text;
        let before = held(first()).take_while(move |lease| others(lease) && !own(lease));
        let ended_before = ended(first()).take_while(move |lease| others(lease) && !own(lease));
        before
            .chain(held(Arc::clone(&after)).take_while(others))
            .chain(ended_before)
            .chain(ended(after).take_while(others))
    }

    pub(super) fn bound_to_port(&self, ifindex: u32) -> Vec<Arc<Lease>> {
        let found = self.by_port.from((ifindex, None));
        found.take_while(|lease| lease.binding.ifindex == Some(ifindex)).cloned().collect()
    }

    /// Those that are not this owner's. Costs nothing for those that are.
    pub(super) fn bound_to_port_by_others(
        &self,
        ifindex: u32,
        owner: Option<&Owner>,
    ) -> Vec<Arc<Lease>> {
        let bound = |lease: &&Arc<Lease>| lease.binding.ifindex == Some(ifindex);
        let before = self.by_port.from((ifindex, None));
        let before = before.take_while(|lease| bound(lease) && lease.owner.as_ref() < owner);
        let after = self.by_port.from((ifindex, Some(next_owner(owner)))).take_while(bound);
        before.chain(after).cloned().collect()
    }

    pub(super) fn naming_interface(&self, interface: &Arc<str>) -> Vec<Arc<Lease>> {
        let found = self.by_interface.from(Arc::clone(interface));
        found
            .take_while(|lease| lease.binding.interface.as_ref() == Some(interface))
            .cloned()
            .collect()
    }

    pub(super) fn next_deadline(&self) -> Option<Duration> {
        self.deadlines.iter().next().and_then(|lease| lease.until)
    }

    /// Its deadline does not count for now.
    pub(super) fn park(&mut self, lease: &Arc<Lease>) {
        self.deadlines.remove(lease);
    }

    /// Its deadline counts again.
    pub(super) fn unpark(&mut self, lease: &Arc<Lease>) {
        self.deadlines.add(lease);
    }

    /// What is due, the first `most` of it.
    pub(super) fn due(&self, now: Duration, most: usize) -> Vec<Arc<Lease>> {
        let due = self.deadlines.iter().take_while(|l| l.until.is_some_and(|until| until <= now));
        due.take(most).cloned().collect()
    }
}

fn is_of(lease: &Lease, sandbox: &Arc<str>, lifecycle: Option<&Arc<str>>) -> bool {
    lease.owner.as_ref().is_some_and(|owner| {
        owner.sandbox == *sandbox && lifecycle.is_none_or(|run| owner.lifecycle == *run)
    })
}
