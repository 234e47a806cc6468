//! The rules of `leases.md`, asked of each change of a row against what is true of the machine. What
//! the agent has read plays no part here.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use guard_core::{
    lease::{
        Lease, Place, Row, RowChange, State,
        command::{Allocate, Command},
        reason,
    },
    owner::Owner,
    segment::Segment,
};

use super::{
    DIRECTORY, RUNTIME, World,
    agent::Phase,
    node::{Listed, Serial, bridge_of},
    passes::GRACE,
};

/// How many misses it takes, and how far they are apart.
pub(super) const MISSES: u32 = 3;
pub(super) const INTERVAL: Duration = Duration::from_secs(300);

/// What became of a hand-out or an adoption.
#[derive(Debug)]
pub(super) struct Given {
    pub asked: Option<Allocate>,
    /// The link that it was bound to last, whatever its number and name are now.
    pub bound: Option<Serial>,
    /// It was bound to a link at some time: its name is not that of the next one.
    pub was_bound: bool,
    /// A `Bind` has changed what was asked for.
    pub rebound: bool,
    /// When it was given back or taken.
    pub ended: Option<Duration>,
    /// In which boot it was last asked for, confirmed or bound.
    pub boot: u32,
    pub misses: u32,
    pub missed_at: Option<Duration>,
    /// Who is waited for, and how long.
    pub holds: BTreeMap<Arc<str>, Duration>,
}

impl Given {
    fn new(asked: Option<Allocate>, boot: u32) -> Self {
        Self {
            asked,
            bound: None,
            was_bound: false,
            rebound: false,
            ended: None,
            boot,
            misses: 0,
            missed_at: None,
            holds: BTreeMap::new(),
        }
    }

    /// Time that was left is left again; what was before the boot was before everything.
    pub(super) fn rebooted(&mut self, then: Duration, now: Duration) {
        self.ended = self.ended.map(|_| Duration::ZERO);
        self.missed_at = self.missed_at.map(|at| now.saturating_sub(then.saturating_sub(at)));
        for until in self.holds.values_mut() {
            *until = now + until.saturating_sub(then);
        }
        self.bound = None;
    }
}

/// The table of states, written down once more.
fn assert_legal(change: &RowChange) {
    let state = |row: &Option<Row>| {
        row.as_ref().and_then(Row::lease).map_or("free", |lease| lease.state.name())
    };
    let (from, to) = (state(&change.old), state(&change.new));
    let table = [
        ("free", "held active quarantined"),
        ("held", "active releasing cooling quarantined"),
        ("active", "releasing cooling"),
        ("releasing", "cooling"),
        ("cooling", "free held active quarantined"),
        ("quarantined", "free active"),
    ];
    let to_states = table.iter().find(|(state, _)| *state == from).expect("a state").1;
    let legal = from == to || to_states.split(' ').any(|state| state == to);
    assert!(legal, "{}: {from} → {to}", change.place.address);
    if let Some(Row::Lease(lease)) = &change.new {
        let ends = matches!(lease.state, State::Held | State::Cooling);
        assert!(!ends || lease.until.is_some(), "{:?} never ends", lease.state);
        let owned = lease.state != State::Quarantined;
        assert!(!owned || (lease.owner.is_some() && lease.generation > 0));
    }
}

impl World {
    /// Whether all that was on a segment at a moment, and is still, has been read since.
    pub(super) fn known(&self, segment: &Segment, since: Duration) -> bool {
        let mut sources = self.sources.iter().filter(|source| source.configured);
        self.phase == Phase::Up
            && !self.node.absent[bridge_of(segment)]
            && sources.all(|s| s.complete.is_some_and(|at| s.streaming || at >= since))
    }

    /// What keeps an address whose lease is this one: what there is now, and has been since that
    /// moment at least. Owners speak for what somebody has, or has given back.
    pub(super) fn keeps(&self, lease: &Lease, since: Duration, by_owner: bool) -> Option<String> {
        let place = place_of(lease);
        if let Some(claims) = self.node.claims.get(&place) {
            return Some(format!("frames: {claims:?}"));
        }
        if self.node.host_has(&place) {
            return Some("the host has it".to_owned());
        }
        let bound = self.given(lease.generation).and_then(|given| given.bound);
        if let Some(serial) = bound.filter(|serial| self.node.number_of(*serial).is_some()) {
            return Some(format!("its port, link {serial}"));
        }
        let containers = self.node.containers.values().filter(|_| self.sources[RUNTIME].configured);
        let labelled = containers.clone().find(|container| {
            container.address == Some(place.address)
                && container.since <= since
                && !self.has_it_elsewhere(container, &place)
        });
        if let Some(container) = labelled {
            return Some(format!("the label of {container:?}"));
        }
        let index = self.node.index.values().filter(|_| self.sources[DIRECTORY].configured);
        let mut listed = containers.chain(index).filter(|_| by_owner);
        let listed = listed.find(|listed| listed.since <= since && self.is_owner(listed, lease));
        listed.map(|listed| format!("its owner is there: {listed:?}"))
    }

    /// Its owner has the address that its label names on another segment.
    fn has_it_elsewhere(&self, container: &Listed, place: &Place) -> bool {
        let elsewhere = self
            .shadow
            .iter()
            .filter(|(other, _)| other.address == place.address && other.segment != place.segment);
        let mut owned = elsewhere.filter_map(|(_, row)| row.lease()).filter(|l| l.state.is_owned());
        owned.any(|lease| lease.owner.as_ref().is_some_and(|owner| names(container, owner)))
    }

    /// Whether an entry is about the run that has, or had, this lease (leases.md rule 4).
    pub(super) fn is_owner(&self, listed: &Listed, lease: &Lease) -> bool {
        let Some(owner) = &lease.owner else { return false };
        let others = || {
            let rows = self.shadow.values().filter_map(Row::lease);
            rows.filter(|l| l.generation != lease.generation && l.pool == lease.pool)
        };
        let has_another = others()
            .any(|l| l.state.is_owned() && l.owner.as_ref() == Some(owner) && l.key == lease.key);
        let mut later = others().filter(|l| {
            (l.state.is_owned() || l.state == State::Releasing) && l.generation > lease.generation
        });
        let mut superseded = || {
            later.any(|l| {
                l.owner.as_ref().is_some_and(|other| {
                    other.sandbox == owner.sandbox && other.lifecycle != owner.lifecycle
                })
            })
        };
        if listed.dead || !names(listed, owner) || has_another {
            return false;
        }
        !listed.owner.lifecycle.is_empty() || !superseded()
    }

    /// One change of a row. The shadow is what the rows were before it.
    pub(super) fn judge(&mut self, change: &RowChange, command: &Command) {
        use State::{Active, Cooling, Held, Quarantined, Releasing};
        assert_legal(change);
        let lease = |row: &Option<Row>| row.as_ref().and_then(Row::lease).cloned();
        let (old, new) = (lease(&change.old), lease(&change.new));
        let state = |lease: &Option<Arc<Lease>>| lease.as_ref().map(|lease| lease.state);
        match (state(&old), state(&new)) {
            (Some(Held | Active), Some(Cooling | Releasing | Quarantined)) => {
                self.has_ended(old.as_ref().unwrap(), new.as_ref().unwrap(), command);
            }
            (Some(Releasing), Some(Cooling)) => {
                let old = old.as_ref().unwrap();
                let given = self.given(old.generation);
                let late = |until: &Duration| *until <= self.now.boot;
                assert!(given.is_none_or(|given| given.holds.values().all(late)), "held: {old:?}");
                self.is_gone(old, self.ended_at(old), true);
            }
            (Some(Cooling), None) => self.has_rested(old.as_ref().unwrap()),
            (Some(Cooling), Some(Held)) => {
                let old = old.as_ref().unwrap();
                self.is_gone(old, self.ended_at(old), false);
            }
            (Some(Quarantined), None) => match old.as_ref().unwrap() {
                old if matches!(command, Command::Unquarantine { .. }) => {
                    self.is_gone(old, Duration::ZERO, false);
                }
                old => {
                    assert!(!old.is_operators(), "only an operator ends it");
                    self.has_rested(old);
                }
            },
            (None | Some(Cooling | Quarantined), Some(Active)) => {
                self.is_adopted(new.as_ref().unwrap());
            }
            _ => {}
        }
        self.note(&change.place, old.as_deref(), new.as_deref(), command);
        self.bindings(old.as_deref(), new.as_deref(), command);
        match &change.new {
            Some(row) => self.shadow.insert(change.place.clone(), row.clone()),
            None => self.shadow.remove(&change.place),
        };
    }

    /// Nothing has spoken for it since, and that is known.
    fn is_gone(&self, lease: &Lease, since: Duration, by_owner: bool) {
        let Lease { address, segment, .. } = lease;
        assert!(self.known(segment, since), "{address}: nobody knows that it is gone: {lease:?}");
        let kept = self.keeps(lease, since, by_owner);
        assert!(kept.is_none(), "{address} is kept by {kept:?}: {lease:?}");
    }

    fn has_rested(&self, lease: &Lease) {
        let until = lease.until.expect("it ends");
        assert!(until <= self.now.boot, "{} ended early", lease.address);
        self.is_gone(lease, until, false);
    }

    fn ended_at(&self, lease: &Lease) -> Duration {
        self.given(lease.generation).and_then(|given| given.ended).unwrap_or_default()
    }

    /// A lease is its owner's no more.
    fn has_ended(&self, old: &Lease, new: &Lease, command: &Command) {
        let Lease { address, segment, generation, owner, .. } = old;
        let told = match command {
            Command::Release(of) => of == generation,
            Command::ReleaseOwner { sandbox, lifecycle } => owner.as_ref().is_some_and(|owner| {
                owner.sandbox == *sandbox
                    && lifecycle.as_ref().is_none_or(|l| owner.lifecycle == *l)
            }),
            Command::ForceRelease { segment: at, address: of } => at == segment && of == address,
            _ => false,
        };
        if told {
            if new.state == State::Cooling {
                self.is_gone(old, self.now.boot, true);
            }
            return;
        }
        if let Command::Reap { generations, threshold, since } = command {
            assert!(generations.contains(generation), "{address} was not to be reaped");
            return self.is_reaped(old, new, *threshold, *since);
        }
        // What nobody has confirmed.
        assert_eq!(old.state, State::Held, "{address} was taken from {owner:?} by {command:?}");
        let until = old.until.expect("held leases end");
        assert!(until <= self.now.boot, "{address} ended early");
        assert!(self.known(segment, until), "{address}: nobody knows that {owner:?} is gone");
        if new.state == State::Cooling {
            return self.is_gone(old, until, true);
        }
        let bound = self.given(*generation).and_then(|given| given.bound);
        let bound = bound.filter(|serial| self.node.number_of(*serial).is_some());
        assert_eq!(bound, None, "{address}: the port of {owner:?} is there");
        let containers = self.node.containers.values().filter(|_| self.sources[RUNTIME].configured);
        let index = self.node.index.values().filter(|_| self.sources[DIRECTORY].configured);
        let mut listed = containers.chain(index);
        let there = listed.find(|listed| listed.since <= until && self.is_owner(listed, old));
        assert!(there.is_none(), "{address}: {owner:?} is there: {there:?}");
    }

    /// Rule 6, or an operator's `gc`.
    fn is_reaped(&self, old: &Lease, new: &Lease, threshold: u32, since: Duration) {
        let Lease { address, segment, generation, owner, .. } = old;
        let given = self.given(*generation).expect("it was given");
        assert!(self.known(segment, since), "{address}: nobody knows that {owner:?} is gone");
        if threshold > 0 {
            assert!(given.misses >= MISSES, "{address} had {} misses", given.misses);
            let entry = owner.as_ref().and_then(|owner| self.node.registered.get(owner));
            let alive = entry.is_some_and(|entry| !entry.dead);
            assert!(!alive || !self.sources[DIRECTORY].configured, "{address}: {owner:?} is alive");
            let fresh = |l: &&Listed| l.dead && self.now.boot < l.since + GRACE;
            let mut fresh = self.node.index.values().filter(fresh);
            let fresh = fresh.any(|l| owner.as_ref().is_some_and(|owner| names(l, owner)));
            assert!(!fresh || !self.sources[DIRECTORY].configured, "{address}: within the grace");
        }
        // It is given back: what keeps it then keeps a little less than a lease that somebody has.
        let kept = self.keeps(old, since, true);
        assert!(kept.is_none(), "{address} was reaped and is kept by {kept:?}");
        if new.state == State::Cooling {
            self.is_gone(old, since, true);
        }
    }

    fn is_adopted(&self, lease: &Lease) {
        let Lease { address, owner, segment, .. } = lease;
        assert_eq!(&*lease.reason, reason::ADOPTED);
        assert!(self.known(segment, Duration::ZERO), "{address} was adopted blindly");
        let back = self.gave_back.get(&place_of(lease)).zip(owner.as_ref());
        let same = back.is_some_and(|(back, owner)| {
            let one_run = owner.lifecycle.is_empty() || owner.lifecycle == back.lifecycle;
            owner.sandbox == back.sandbox && one_run
        });
        assert!(!same, "{address} was given back by {back:?}, and adopted for the same");
    }

    /// What follows for later checks.
    fn note(&mut self, at: &Place, old: Option<&Lease>, new: Option<&Lease>, command: &Command) {
        let now = self.now.boot;
        let owned =
            |lease: Option<&Lease>| lease.filter(|l| l.state.is_owned()).map(|l| l.generation);
        if let Some(new) = new.filter(|new| new.state.is_owned()) {
            let asked = match command {
                Command::Allocate(ask) => Some(ask.clone()),
                _ => None,
            };
            let boot = self.boot;
            self.given.entry(new.generation).or_insert_with(|| Given::new(asked, boot));
        }
        if let Some(generation) = owned(old).filter(|_| owned(old) != owned(new)) {
            let subscribers = self.setup.subscribers();
            let given = self.given.get_mut(&generation).expect("it was given");
            // From when on it has to be silent.
            given.ended = Some(match command {
                Command::Reap { since, .. } => *since,
                Command::Tick | Command::Look(_) | Command::RecheckAll => {
                    old.and_then(|old| old.until).unwrap_or(now)
                }
                _ => now,
            });
            given.holds = subscribers.into_iter().map(|(name, for_)| (name, now + for_)).collect();
            if let (Command::Release(_) | Command::ReleaseOwner { .. }, Some(owner)) =
                (command, old.and_then(|old| old.owner.clone()))
            {
                self.gave_back.insert(at.clone(), owner);
            }
        }
        if new.is_none_or(|new| new.state.is_owned()) {
            self.gave_back.remove(at);
        }
    }
}

pub(super) fn place_of(lease: &Lease) -> Place {
    Place { segment: lease.segment.clone(), address: lease.address }
}

fn names(listed: &Listed, owner: &Owner) -> bool {
    let Owner { sandbox, lifecycle } = &listed.owner;
    *sandbox == owner.sandbox && (lifecycle.is_empty() || *lifecycle == owner.lifecycle)
}
