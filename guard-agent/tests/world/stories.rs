//! Steps that chance seldom brings together, and in which something can go wrong.

use std::sync::Arc;

use guard_core::lease::command::{Allocate, Command};

use super::{
    Op, Story, World,
    agent::Phase,
    node::{Listed, any_run, owner},
};

/// So many leases that a pass does not take all of them back unasked.
const MANY: usize = 9;

/// The pool on the second bridge, as [`World::ask`] numbers them.
const WEST: u8 = 4;

impl World {
    pub(super) fn story(&mut self, story: Story) {
        match story {
            Story::Renamed { who, number, name } => {
                let Some((old, pools)) = self.a_port(number) else { return };
                self.step(Op::Rename { number, name });
                self.step(Op::Allocate { who, pools, address: None, port: Some(old), mac: false });
            }
            Story::EndsMeanwhile { who, number, name } => {
                let Some((old, pools)) = self.a_port(number) else { return };
                self.drain();
                self.lag = true;
                let bridge = u8::from(pools == WEST);
                self.step(Op::LinkAnew { number, name, bridge });
                let ask = self.ask(who, pools, None, Some(old), false);
                self.allocate_as_resolved(ask);
            }
            Story::HostHadIt { number, address } => {
                let Some((_, pools)) = self.a_port(number) else { return };
                let bridge = u8::from(pools == WEST);
                self.step(Op::Host { bridge, address: address * 2 });
                self.step(Op::Frame { number, address: address * 2, six: false, mac: None });
                self.step(Op::Host { bridge, address: 1 });
                self.step(Op::RecheckAll);
            }
            Story::RunsSilently { who } => {
                self.step(Op::StartsAgain { who });
                self.is_given_and_silent(who);
            }
            Story::DiesAtLast { who } => {
                // The index lags.
                let sandbox = any_run(who.0).sandbox;
                self.node.index.retain(|owner, _| owner.sandbox != sandbox);
                let (since, wall) = (self.now.boot, self.now.wall);
                let alive = Listed { owner: owner(who), address: None, dead: false, since, wall };
                self.node.registered.insert(owner(who), alive);
                self.is_given_and_silent(who);
                self.step(Op::Dies { who, any_run: false });
                self.step(Op::Index);
                self.pass();
            }
            Story::MovesVlan { who, in_order } => {
                let ask =
                    |who| Op::Allocate { who, pools: WEST, address: None, port: None, mac: false };
                self.step(ask(who));
                self.moves_vlan(in_order);
                self.step(ask(((who.0 + 1) % 3, who.1)));
            }
            Story::ListIsLost { used_again, by_asking, restart } => {
                self.list_is_lost(used_again.then_some(by_asking), restart);
            }
        }
    }

    /// The name of a port of that number, which is made if there is none, and a pool on its bridge.
    fn a_port(&mut self, number: u8) -> Option<(u8, u8)> {
        self.step(Op::Link { number, name: number, bridge: Some(number % 2) });
        let link = self.node.links.get(&u32::from(number))?;
        Some((link.name, if link.bridge? == 1 { WEST } else { 1 }))
    }

    /// It is given an address, and runs without a word.
    fn is_given_and_silent(&mut self, who: (u8, u8)) {
        self.step(Op::Allocate { who, pools: 1, address: None, port: None, mac: false });
        if let Some(generation) = self.told.last().copied() {
            self.fenced(generation, &Command::Confirm(generation));
        }
        self.step(Op::Passes);
    }

    fn moves_vlan(&mut self, in_order: bool) {
        if self.phase == Phase::Down {
            return;
        }
        self.stop(in_order);
        self.vlan = 7 - self.vlan;
        self.open();
        self.end_boot_pass();
    }

    fn list_is_lost(&mut self, used_again: Option<bool>, restart: bool) {
        if self.phase != Phase::Up || self.now.boot.as_secs() < 1_000 {
            return;
        }
        let asks: Vec<_> = (0..MANY).map(in_crowd).collect();
        let first = self.told.len();
        for ask in &asks {
            self.allocate(ask.clone());
        }
        let generations = self.told.split_off(first);
        self.told.extend(&generations);
        for generation in &generations {
            self.fenced(*generation, &Command::Confirm(*generation));
        }
        self.reboot(false);
        self.end_boot_pass();
        for (ask, generation) in asks.into_iter().zip(generations) {
            match used_again {
                Some(true) => self.allocate(ask),
                Some(false) => self.fenced(generation, &Command::Confirm(generation)),
                None => {}
            }
        }
        if restart {
            self.step(Op::Restart { in_order: true });
        }
        self.node.index.clear();
        self.step(Op::Passes);
    }
}

fn in_crowd(n: usize) -> Allocate {
    Allocate {
        pools: vec![Arc::from("many")],
        sandbox: Arc::from(format!("m{n}")),
        lifecycle: Arc::from("0"),
        ..Allocate::default()
    }
}
