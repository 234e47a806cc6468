//! To which link a lease is bound: a link, and neither its number nor its name.

use std::collections::{BTreeMap, BTreeSet};

use guard_core::lease::{Binding, Lease, Row, RowChange, State, command::Command};

use super::{
    World,
    agent::Part,
    node::{Serial, link_name},
    rules::{Given, place_of},
};

/// A caller's own word about the binding of this lease.
fn is_declared_by(command: &Command, lease: &Lease) -> bool {
    match command {
        Command::Allocate(ask) => {
            lease.owner.as_ref().is_some_and(|owner| owner.sandbox == ask.sandbox)
        }
        Command::Bind { generation, .. } => *generation == lease.generation,
        _ => false,
    }
}

impl World {
    /// The binding of a lease that somebody has, or has given back, is another one.
    pub(super) fn bindings(&mut self, old: Option<&Lease>, new: Option<&Lease>, command: &Command) {
        let Some(new) = new.filter(|l| l.state.is_owned() || l.state == State::Releasing) else {
            return;
        };
        let old = old.filter(|old| old.generation == new.generation);
        let before = old.map(|old| old.binding.clone()).unwrap_or_default();
        let said = is_declared_by(command, new);
        let kept = !before.declared || before.mac.is_none() || before.mac == new.binding.mac;
        assert!(kept || said, "{}: the declared MAC is dropped: {new:?}", new.address);
        let was_bound = self.given(new.generation).is_some_and(|given| given.was_bound);
        let given = |world: &mut Self, note: &dyn Fn(&mut Given)| {
            note(world.given.get_mut(&new.generation).expect("it was given"));
        };
        match (before.ifindex, new.binding.ifindex) {
            (Some(_), None) if said => given(self, &|given| given.bound = None),
            // A name that is given anew waits anew.
            (None, None) if said && before.interface != new.binding.interface => {
                given(self, &|given| given.was_bound = false);
            }
            (_, Some(number)) if before.ifindex != Some(number) || said => {
                let Some(link) = self.node.links.get(&number).cloned() else {
                    panic!("{} is bound to {number}, which is not there", new.address)
                };
                if !said {
                    self.is_bound_by_itself(&before, new, number, was_bound);
                } else if let Command::Allocate(ask) = command
                    && before.ifindex != Some(number)
                    && let Some(name) = &ask.interface
                {
                    assert_eq!(*link_name(link.name), **name, "another port than was asked for");
                }
                given(self, &|given| (given.bound, given.was_bound) = (Some(link.serial), true));
                let by_name = new.binding.declared && !self.claims_there(new, number);
                if said || by_name {
                    self.supersede(new, link.serial);
                }
            }
            _ => {}
        }
    }

    fn claims_there(&self, lease: &Lease, number: u32) -> bool {
        let claims = self.node.claims.get(&place_of(lease));
        let claim = claims.and_then(|claims| claims.get(&number));
        claim.is_some_and(|claim| Some(claim.station.mac) == lease.binding.mac)
    }

    /// Nobody said so: the first link with a name that was given before there was one, or the port
    /// on which the right station claims the address.
    fn is_bound_by_itself(&self, before: &Binding, new: &Lease, number: u32, was_bound: bool) {
        if self.claims_there(new, number) {
            return;
        }
        let name = link_name(self.node.links[&number].name);
        let named = before.interface.as_ref() == Some(&name);
        assert!(named && !was_bound, "{} follows to another port: {new:?}", new.address);
    }

    /// A caller's word binds a lease to a port, which speaks for no other from then on, whatever comes
    /// first in the transaction.
    pub(super) fn takes_port(&mut self, change: &RowChange, command: &Command) {
        let lease = change.new.as_ref().and_then(Row::lease);
        let lease = lease.filter(|lease| lease.state.is_owned() && is_declared_by(command, lease));
        let number = lease.and_then(|lease| lease.binding.ifindex);
        let link = number.and_then(|number| self.node.links.get(&number));
        if let (Some(lease), Some(link)) = (lease, link) {
            self.supersede(&lease.clone(), link.serial);
        }
    }

    /// The port speaks for the lease that was bound to it last.
    fn supersede(&mut self, lease: &Lease, serial: u64) {
        let rows = self.shadow.values().filter_map(Row::lease);
        let own = rows.filter(|other| other.owner == lease.owner).map(|other| other.generation);
        let own: Vec<_> = own.chain([lease.generation]).collect();
        for (generation, given) in &mut self.given {
            given.bound = given.bound.filter(|bound| *bound != serial || own.contains(generation));
        }
    }

    /// All that the observer has told has been looked at: each lease is bound to its own link or to
    /// none, and to its own as long as that is there.
    pub(super) fn ports_are_right(&self) {
        if !self.has_read(Part::Links) || !self.drained {
            return;
        }
        for lease in self.shadow.values().filter_map(Row::lease) {
            let Some(given) = self.given(lease.generation) else { continue };
            if !(lease.state.is_owned() || lease.state == State::Releasing) {
                continue;
            }
            let now = lease.binding.ifindex.and_then(|number| self.node.links.get(&number));
            let own = given.bound.filter(|serial| self.node.number_of(*serial).is_some());
            let is = now.map(|link| link.serial);
            assert_eq!(is, own, "{} is bound to another link: {lease:?}", lease.address);
        }
    }

    /// Which of the known links have ended comes first, as in the observer.
    pub(super) fn read_links(&mut self) {
        let known = std::mem::take(&mut self.known_ports);
        let is = |number: &u32| self.node.links.get(number).map(|link| link.serial);
        let is_other = |(n, serial): &(&u32, &Serial)| is(n) != Some(**serial);
        let ended = known.iter().filter(is_other).map(|(number, _)| *number);
        let noted =
            self.noted_ends.iter().copied().filter(|number| self.has_another_device(*number));
        let ended: BTreeSet<_> = ended.chain(noted).collect();
        for number in ended {
            self.note_end(number);
            self.live.link_ended(number);
        }
        let links = self.node.links.iter();
        self.live.set_links(
            links.map(|(n, link)| {
                (*n, vec![link_name(link.name).to_string()], self.node.device(*n))
            }),
        );
        let links = self.node.links.iter().map(|(n, link)| (*n, link.serial));
        self.known_ports = links.collect::<BTreeMap<u32, Serial>>();
    }

    /// The store says otherwise of a link that leases are bound to than what it is now.
    fn has_another_device(&self, number: u32) -> bool {
        let rows = self.shadow.values().filter_map(Row::lease).map(|lease| &lease.binding);
        let mut bound = rows.filter(|binding| binding.ifindex == Some(number));
        let is = self.node.links.contains_key(&number).then(|| self.node.device(number));
        bound.any(|binding| binding.device != is)
    }

    /// The end of a link that leases are bound to is noted until the store has it.
    pub(super) fn note_end(&mut self, number: u32) {
        let mut rows = self.shadow.values().filter_map(Row::lease);
        if rows.any(|lease| lease.binding.ifindex == Some(number)) {
            self.noted_ends.insert(number);
        }
    }
}
