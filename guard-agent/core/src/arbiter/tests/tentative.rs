//! Probes for what nobody has (claims.md A05, N02, N03).

use std::{net::Ipv4Addr, time::Duration};

use super::world::{GATEWAY, Play, address, announce, mac, probe};
use crate::arbiter::{Effect, Remark};

const SECOND: Duration = Duration::from_secs(1);
const WINDOW: Duration = Duration::from_secs(6);

impl Play {
    /// Until when each address is held back that ever was, from now on.
    fn held_back(&self, host: u8) -> Duration {
        let until = self.world.log.iter().rev().find_map(|effect| match effect {
            Effect::HoldBack(_, at, until) if *at == address(host) => Some(*until),
            _ => None,
        });
        until.unwrap_or_default().saturating_sub(self.now())
    }

    fn now(&self) -> Duration {
        Duration::from_nanos(self.world.model.now_ns)
    }

    /// The ports of each race that was told.
    fn races(&self) -> Vec<[u32; 2]> {
        let races = self.world.log.iter().filter_map(|effect| match effect {
            Effect::ProbeRace(seen, first) => Some([first.ifindex, seen.claim.station.ifindex]),
            _ => None,
        });
        races.collect()
    }

    fn probe(&mut self, port: u32, station: u8, for_address: Ipv4Addr) {
        self.send(port, &probe(mac(station), for_address));
    }
}

#[test]
fn a05_two_that_probe_for_one_address_are_a_race_and_no_conflict() {
    let mut play = Play::new(&[1, 2, 3], &[]);
    play.probe(1, 1, address(2));
    assert!(play.races().is_empty());
    play.wait(SECOND * 5);
    play.probe(2, 2, address(2));
    assert_eq!(play.races(), [[1, 2]]);
    // As often as they go on, it is one race; a third station is news.
    for _ in 0..3 {
        play.wait(SECOND * 2);
        play.probe(1, 1, address(2));
        play.probe(2, 2, address(2));
    }
    assert_eq!(play.races(), [[1, 2]]);
    play.probe(3, 3, address(2));
    assert_eq!(play.races()[1..], [[1, 3]]);
    play.wait(SECOND * 10);
    assert!(play.open().is_empty() && play.world.evidence.is_empty());
}

#[test]
fn a05_probes_one_after_the_other_or_for_two_addresses_are_no_race() {
    let mut play = Play::new(&[1, 2], &[]);
    play.probe(1, 1, address(2));
    play.probe(2, 2, address(3));
    play.wait(WINDOW);
    play.probe(2, 2, address(2));
    assert!(play.races().is_empty());
}

#[test]
fn n02_an_own_probe_that_comes_back_is_no_race() {
    let mut play = Play::new(&[1], &[2]);
    play.probe(1, 1, address(2));
    play.probe(2, 1, address(2));
    assert!(play.races().is_empty());
    // Twin: another station behind the uplink.
    play.probe(2, 2, address(2));
    assert_eq!(play.races().len(), 1);
}

#[test]
fn a05_a_probe_holds_its_address_back_for_six_seconds_and_thirty_in_a_row() {
    let mut play = Play::new(&[1, 2], &[]);
    play.probe(1, 1, address(2));
    assert_eq!(play.held_back(2), WINDOW);
    let mut ports = [1, 2].into_iter().cycle();
    for _ in 0..14 {
        play.wait(SECOND * 2);
        let port = ports.next().unwrap();
        play.probe(port, u8::try_from(port).unwrap(), address(2));
        assert!(play.held_back(2) > Duration::ZERO);
    }
    // Whoever goes on: 28 seconds are over.
    assert_eq!(play.held_back(2), SECOND * 2);
    play.wait(SECOND * 2);
    play.probe(1, 1, address(2));
    assert_eq!(play.held_back(2), Duration::ZERO);
    // After a rest it is another row.
    play.wait(WINDOW);
    play.probe(1, 1, address(2));
    assert_eq!(play.held_back(2), WINDOW);
}

#[test]
fn a05_a_port_holds_four_addresses_back_and_none_beside_its_binding() {
    let mut play = Play::new(&[1, 2], &[]);
    for host in 2..7 {
        play.probe(1, 1, address(host));
    }
    let held = |play: &Play| (2..7).filter(|host| play.held_back(*host) == WINDOW).count();
    assert_eq!(held(&play), 4);
    play.wait(WINDOW);
    play.probe(1, 1, address(6));
    assert_eq!((play.held_back(6), held(&play)), (WINDOW, 1));

    play.bind(address(50), Some((2, mac(2))));
    play.probe(2, 2, address(9));
    assert_eq!(play.held_back(9), Duration::ZERO);
}

#[test]
fn a05_what_a_port_meant_to_use_is_free_when_the_port_is_gone() {
    let mut play = Play::new(&[1, 2], &[]);
    play.probe(1, 1, address(2));
    play.probe(1, 1, address(3));
    play.wait(SECOND);
    play.probe(2, 2, address(3));
    play.end_port(1, true);
    assert_eq!(play.held_back(2), Duration::ZERO);
    assert_eq!(play.held_back(3), WINDOW, "another probes for it");
}

#[test]
fn a04_a_probe_for_what_somebody_has_is_a_note_and_holds_nothing_back() {
    let mut play = Play::new(&[1, 2], &[]);
    play.send(1, &announce(mac(1), address(2)));
    play.probe(2, 2, address(2));
    play.probe(2, 2, GATEWAY);
    let notes = play.world.log.iter();
    let notes = notes.filter(|effect| matches!(effect, Effect::Remark(Remark::Probed, _)));
    assert_eq!(notes.count(), 2);
    assert_eq!(play.held_back(2), Duration::ZERO);
    // Twin: for what nobody has there is no note.
    play.probe(2, 2, address(3));
    assert_eq!(play.held_back(3), WINDOW);
    let last = play.world.log.last();
    assert!(!matches!(last, Some(Effect::Remark(Remark::Probed, _))));
}

#[test]
fn a05_what_the_maps_say_of_probes_counts_after_a_restart() {
    let mut play = Play::new(&[1, 2], &[]);
    play.probe(1, 1, address(2));
    play.send(2, &announce(mac(2), address(3)));
    play.probe(1, 1, address(3));
    play.world.log.clear();
    play.set_quiet(SECOND * 60); // Another arbiter.
    play.wait(SECOND * 2);
    play.read_maps();
    assert_eq!((play.held_back(2), play.held_back(3)), (SECOND * 4, Duration::ZERO));
    // Twin: what is over says nothing.
    play.world.log.clear();
    play.wait(SECOND * 5);
    play.read_maps();
    assert_eq!(play.held_back(2), Duration::ZERO);
}
