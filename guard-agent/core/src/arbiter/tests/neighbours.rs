//! What the host's neighbour table says of stations that no frame has shown (claims.md, "The host's
//! neighbours").

use std::time::Duration;

use guard_ebpf::abi::AddressKey;

use super::world::{BRIDGE, Play, address, announce, mac, segment};
use crate::{
    arbiter::{Effect, Event, Neighbour},
    evidence::Strength,
    incident::Kind,
};

const FRESH: Duration = Duration::from_secs(10);
const OLD: Duration = Duration::from_secs(3600);

fn neighbour(play: &Play, host: u8, port: Option<u32>, age: Duration) -> Neighbour {
    let now = Duration::from_nanos(play.world.model.now_ns);
    Neighbour {
        key: AddressKey::new(BRIDGE, 0, address(host).into()),
        device: BRIDGE,
        mac: mac(port.map_or(9, |port| u8::try_from(port).unwrap())),
        port,
        confirmed: now.saturating_sub(age),
    }
}

/// The hosts for whom a port is evidence.
fn evidence(play: &Play, port: u32) -> Vec<u8> {
    let by = |host: &u8| {
        let claims = play.world.evidence.get(&(segment(), address(*host).into()));
        claims.is_some_and(|claims| claims.contains_key(&port))
    };
    (0..=u8::MAX).filter(by).collect()
}

/// The hosts that are held back, each asked for by the host.
fn asked_for(play: &Play) -> Vec<u8> {
    let asked = |host: &u8| {
        let held =
            play.world.log.iter().any(
                |effect| matches!(effect, Effect::HoldBack(_, at, _) if *at == address(*host)),
            );
        let asks = play.world.log.iter().any(
            |effect| matches!(effect, Effect::HostAsks { address: at, .. } if *at == address(*host)),
        );
        assert_eq!(held, asks, "{host}");
        held
    };
    (0..=u8::MAX).filter(asked).collect()
}

#[test]
fn a_fresh_neighbour_behind_a_port_is_evidence_and_any_other_is_asked_for() {
    let mut play = Play::new(&[1, 2], &[]);
    let read = [(5, Some(1), FRESH), (6, Some(1), OLD), (7, None, FRESH), (8, Some(77), FRESH)];
    let read = read.map(|(host, port, age)| neighbour(&play, host, port, age));
    play.handle(Event::Neighbours(read.to_vec()));
    assert_eq!(evidence(&play, 1), [5]);
    assert_eq!(asked_for(&play), [6, 7, 8]);
    let claim = &play.world.evidence[&(segment(), address(5).into())][&1];
    assert_eq!(claim.strength, Strength::Neighbour);
    // Its first frame is no conflict, and another's is one: it is asked as any first claimant.
    play.send(1, &announce(mac(1), address(5)));
    play.send(2, &announce(mac(2), address(5)));
    play.wait(Duration::from_secs(3));
    assert_eq!(play.open().len(), 1, "{:?}", play.open());
}

#[test]
fn a_binding_that_is_written_where_the_host_knew_another_makes_nobody_an_impostor() {
    for speaks in [false, true] {
        let mut play = Play::new(&[1, 2], &[]);
        play.handle(Event::Neighbours(vec![neighbour(&play, 5, Some(1), FRESH)]));
        if speaks {
            play.send(1, &announce(mac(1), address(5)));
        }
        play.bind(address(5), Some((2, mac(2))));
        assert_eq!(!play.open().is_empty(), speaks, "{:?}", play.open());
    }
}

#[test]
fn a_neighbour_that_does_not_answer_is_over_and_opens_nothing() {
    let mut play = Play::new(&[1, 2], &[]);
    let read = vec![neighbour(&play, 5, Some(1), FRESH)];
    play.handle(Event::Neighbours(read));
    play.answers(1, false);
    // Another has the address by now.
    play.wait(Duration::from_secs(301));
    for _ in 0..5 {
        play.read_maps();
        play.wait(Duration::from_secs(2));
    }
    assert_eq!(evidence(&play, 1), []);
    play.send(2, &announce(mac(2), address(5)));
    play.wait(Duration::from_secs(3));
    assert_eq!((evidence(&play, 2), play.open().len()), (vec![5], 0));
}

#[test]
fn rule_12_of_neighbours_that_a_port_has_made_up_as_many_are_evidence_as_its_quota_says() {
    let mut play = Play::new(&[1], &[]);
    let read = (10..60).map(|host| neighbour(&play, host, Some(1), FRESH)).collect();
    play.handle(Event::Neighbours(read));
    assert_eq!(evidence(&play, 1), (10..26).collect::<Vec<_>>());
    // The others keep nothing for longer than the host asks.
    assert_eq!(asked_for(&play), (26..60).collect::<Vec<_>>());
}

#[test]
fn what_is_live_leased_reserved_or_off_the_link_needs_no_word_of_the_hosts() {
    let mut play = Play::new(&[1, 2], &[]);
    play.send(2, &announce(mac(2), address(5)));
    play.bind(address(6), Some((2, mac(2))));
    let mut read: Vec<_> =
        [1, 5, 6].map(|host| neighbour(&play, host, Some(1), OLD)).into_iter().collect();
    let off = AddressKey::new(BRIDGE, 0, [192, 0, 2, 1].into());
    read.push(Neighbour { key: off, ..read[0].clone() });
    play.handle(Event::Neighbours(read));
    assert_eq!((evidence(&play, 1), asked_for(&play)), (vec![], vec![]));
    assert!(play.open().iter().all(|(kind, _)| *kind == Kind::Unowned), "{:?}", play.open());
}
