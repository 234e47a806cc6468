//! Whose claims on leased addresses are evidence (claims.md, "Quotas").

use std::time::Duration;

use bytemuck::Zeroable as _;
use guard_ebpf::abi::{OWNED_LEASED, Owned};

use super::world::{Play, address, announce, mac, segment};
use crate::incident::Kind;

const DAY: Duration = Duration::from_secs(86_400);

/// Port 1 is bound to the addresses of these hosts.
fn bound(hosts: impl Iterator<Item = u8>) -> Play {
    let mut play = Play::new(&[1, 2, 3], &[]);
    for host in hosts {
        play.bind(address(host), Some((1, mac(1))));
    }
    play
}

fn claim(play: &mut Play, port: u8, hosts: impl Iterator<Item = u8>) {
    for host in hosts {
        play.send(port.into(), &announce(mac(port), address(host)));
    }
}

/// The hosts for whose addresses a port is evidence.
fn evidence(play: &Play, port: u32) -> Vec<u8> {
    let by = |host: &u8| {
        let claims = play.world.evidence.get(&(segment(), address(*host).into()));
        claims.is_some_and(|claims| claims.contains_key(&port))
    };
    (0..=u8::MAX).filter(by).collect()
}

fn pass(play: &mut Play, span: Duration) {
    play.world.model.now_ns += u64::try_from(span.as_nanos()).unwrap();
}

#[test]
fn of_a_port_that_claims_what_others_have_the_first_addresses_are_evidence() {
    let mut play = bound(2..30);
    for _ in 0..3 {
        claim(&mut play, 2, 2..30);
        claim(&mut play, 1, 2..30);
        play.read_maps();
        pass(&mut play, Duration::from_secs(60));
    }
    assert_eq!(evidence(&play, 2), (2..18).collect::<Vec<_>>());
    assert!(play.open().iter().any(|(kind, _)| *kind == Kind::Proxy), "it is told all the same");
    // Who may is evidence for all of them, and another port has places of its own.
    assert_eq!(evidence(&play, 1), (2..30).collect::<Vec<_>>());
    claim(&mut play, 3, 28..30);
    assert_eq!(evidence(&play, 3), [28, 29]);
}

#[test]
fn of_a_port_whose_owner_is_known_four_addresses_of_others_are_evidence() {
    let mut play = bound(2..10);
    play.bind(address(20), Some((2, mac(2))));
    claim(&mut play, 2, (2..10).chain(20..21));
    assert_eq!(evidence(&play, 2), [2, 3, 4, 5, 20]);
}

#[test]
fn of_leases_that_are_bound_to_nobody_the_first_addresses_are_evidence() {
    let mut play = Play::new(&[1, 2], &[]);
    let leased = |host| Owned { flags: OWNED_LEASED, generation: host, ..Owned::zeroed() };
    (2..30).for_each(|host| play.bind_as(address(host), Some(leased(host.into()))));
    claim(&mut play, 2, 2..30);
    play.read_maps();
    assert_eq!(evidence(&play, 2), (2..18).collect::<Vec<_>>());
    // They are bound to it: whom it claims besides counts.
    for host in 2..10 {
        play.bind(address(host), Some((2, mac(2))));
    }
    pass(&mut play, Duration::from_secs(1));
    claim(&mut play, 2, 28..30);
    assert_eq!(evidence(&play, 2).len(), 16, "none but four of others, since it is bound");
    (2..30).for_each(|host| play.bind_as(address(host), None));
    play.read_maps();
    assert_eq!(evidence(&play, 2).len(), 16, "what did not count does not now");
    claim(&mut play, 2, 2..30);
    assert_eq!(evidence(&play, 2).len(), 28, "nobody has leased them: that is another quota's");
}

#[test]
fn a_place_is_free_once_its_claim_is_over() {
    let mut play = bound(2..30);
    claim(&mut play, 2, 2..18);
    play.answers(2, false);
    for _ in 0..5 {
        pass(&mut play, Duration::from_secs(301));
        claim(&mut play, 2, 3..18);
        play.read_maps();
    }
    assert_eq!(evidence(&play, 2), (3..18).collect::<Vec<_>>());
    claim(&mut play, 2, 20..30);
    assert_eq!(evidence(&play, 2), (3..18).chain(20..21).collect::<Vec<_>>());
}

#[test]
fn who_claims_what_another_has_is_evidence_for_a_day_and_longer_if_it_answers() {
    for answers in [true, false] {
        let mut play = bound(2..3);
        claim(&mut play, 2, 2..3);
        play.answers(2, answers);
        pass(&mut play, DAY - Duration::from_secs(60));
        let look = |play: &mut Play| {
            claim(play, 2, 2..3);
            for _ in 0..5 {
                pass(play, Duration::from_secs(2));
                play.read_maps();
            }
        };
        look(&mut play);
        assert_eq!(evidence(&play, 2), [2], "not yet a day");
        pass(&mut play, Duration::from_secs(60));
        look(&mut play);
        assert_eq!(evidence(&play, 2).is_empty(), !answers);
        look(&mut play);
        assert_eq!(evidence(&play, 2).is_empty(), !answers, "it goes on, and that is known");
    }
}
