//! Who has an address when others that had it have left, and who comes then (claims.md, "Conflict").

use std::time::Duration;

use guard_ebpf::abi::AddressKey;

use super::world::{BRIDGE, Play, address, announce, mac, packet};
use crate::incident::{Kind, Role, Severity};

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Stations on these ports that have one address, in this order.
fn having(ports: &[u32]) -> Play {
    let mut play = Play::new(&[1, 2, 3, 4, 5], &[]);
    for port in ports {
        claim(&mut play, *port);
        play.wait(seconds(1));
    }
    play
}

fn claim(play: &mut Play, port: u32) {
    play.send(port, &announce(mac(u8::try_from(port).unwrap()), address(2)));
}

fn holder(play: &Play) -> Option<u32> {
    let key = AddressKey::new(BRIDGE, 0, address(2).into());
    play.world.model.live.get(&key).map(|live| live.ifindex)
}

/// The ports of those who dispute the address now.
fn disputing(play: &Play) -> Vec<u32> {
    let open = play.world.incidents.list(false);
    let sides = open.iter().flat_map(|one| &one.claimants).filter(|side| !side.gone);
    let mut sides: Vec<_> = sides.filter_map(|side| side.ifindex).collect();
    sides.sort_unstable();
    sides
}

#[test]
fn a01_who_is_left_when_the_first_holders_port_ends_has_the_address_against_the_next() {
    for answers in [true, false] {
        let mut play = having(&[1, 2]);
        assert_eq!(disputing(&play), [1, 2]);
        play.end_port(1, true);
        assert_eq!((disputing(&play), holder(&play)), (vec![], Some(2)));
        // The one who is left goes on with it.
        claim(&mut play, 2);
        play.wait(seconds(10));
        assert!(disputing(&play).is_empty());
        // Its port ends too: the next is its successor.
        if !answers {
            play.end_port(2, true);
        }
        claim(&mut play, 3);
        play.wait(seconds(3));
        assert_eq!(disputing(&play), if answers { vec![2, 3] } else { vec![] });
    }
}

#[test]
fn a_fourth_joins_the_three_of_whom_the_first_has_left() {
    for fourth in [true, false] {
        let mut play = having(&[1, 2, 3]);
        play.end_port(1, true);
        assert_eq!(disputing(&play), [2, 3]);
        if fourth {
            claim(&mut play, 4);
        }
        play.wait(seconds(1));
        assert_eq!(disputing(&play), if fourth { vec![2, 3, 4] } else { vec![2, 3] });
        assert_eq!(play.world.incidents.list(true).len(), 1);
    }
}

#[test]
fn a01_who_comes_back_to_the_bridge_is_against_whoever_has_the_address() {
    for comes_back in [true, false] {
        let mut play = having(&[1, 2]);
        play.leave_bridge(1);
        assert_eq!((disputing(&play), holder(&play)), (vec![], Some(2)));
        if comes_back {
            play.world.add_port(1, false);
            claim(&mut play, 1);
        } else {
            claim(&mut play, 2);
        }
        play.wait(seconds(3));
        assert_eq!(disputing(&play), if comes_back { vec![1, 2] } else { vec![] });
    }
}

#[test]
fn a01_a_bridge_that_is_made_anew_knows_who_has_an_address() {
    for both in [true, false] {
        let mut play = having(&[1, 2]);
        for port in [1, 2] {
            play.leave_bridge(port);
        }
        assert_eq!((disputing(&play), holder(&play)), (vec![], None));
        play.world.add_port(1, false);
        if both {
            play.world.add_port(2, false);
        }
        claim(&mut play, 1);
        play.wait(seconds(3));
        assert_eq!(disputing(&play), if both { vec![1, 2] } else { vec![] });
    }
}

#[test]
fn a31_a_port_that_is_there_again_has_its_address_still_and_one_that_is_away_has_not() {
    for back in [true, false] {
        let mut play = having(&[1]);
        play.leave_bridge(1);
        if back {
            play.world.add_port(1, false);
        }
        claim(&mut play, 2);
        play.wait(seconds(3));
        assert_eq!(disputing(&play), if back { vec![1, 2] } else { vec![] });
    }
}

#[test]
fn a33_a_first_holder_that_changes_its_mac_is_a_side_still() {
    for changes in [true, false] {
        let mut play = having(&[1, 2]);
        if changes {
            play.send(1, &announce(mac(9), address(2)));
        }
        let macs: Vec<_> = play.world.incidents.list(false)[0]
            .claimants
            .iter()
            .filter(|side| !side.gone)
            .filter_map(|side| side.mac)
            .collect();
        let first = if changes { mac(9) } else { mac(1) };
        assert!(macs.contains(&first) && macs.len() == 2, "{macs:?}");
        play.wait(seconds(600));
        assert_eq!(disputing(&play), [1, 2], "both answer");
        play.answers(1, false);
        play.wait(seconds(70));
        assert_eq!((disputing(&play), holder(&play)), (vec![], Some(2)));
    }
}

#[test]
fn a33_a_claimant_beside_the_host_that_changes_its_mac_is_one_still() {
    let mut play = Play::new(&[1], &[]);
    play.world.elsewhere.insert(address(2).into());
    claim(&mut play, 1);
    assert_eq!(play.open().len(), 1);
    play.send(1, &announce(mac(9), address(2)));
    let [(_, macs)] = &play.open()[..] else { panic!("{:?}", play.open()) };
    assert!(macs.contains(&mac(9)), "{macs:?}");
    play.wait(seconds(600));
    assert_eq!(play.open().len(), 1);
}

#[test]
fn a33_a_holder_that_changes_its_mac_while_it_is_asked_has_answered() {
    for changes in [true, false] {
        let mut play = having(&[1]);
        play.answers(1, false);
        claim(&mut play, 2);
        assert!(play.open().is_empty());
        if changes {
            play.send(1, &announce(mac(9), address(2)));
        }
        play.wait(seconds(3));
        let [incident] = &play.world.incidents.list(false)[..] else { panic!() };
        let severity = if changes { Severity::Warning } else { Severity::Info };
        assert_eq!((incident.kind, incident.severity()), (Kind::Duplicate, severity));
        let first = if changes { mac(9) } else { mac(1) };
        assert!(incident.claimants.iter().any(|side| side.mac == Some(first)), "{incident:?}");
    }
}

#[test]
fn a01_another_that_takes_the_address_within_the_flap_window_is_another_incident() {
    for another in [true, false] {
        let mut play = having(&[1, 2]);
        play.answers(2, false);
        play.wait(seconds(70));
        assert!(disputing(&play).is_empty());
        let comes = if another { 3 } else { 2 };
        play.answers(2, true);
        claim(&mut play, comes);
        play.wait(seconds(3));
        assert_eq!(disputing(&play), [1, comes]);
        let all = play.world.incidents.list(true);
        assert_eq!(all.len(), if another { 2 } else { 1 });
        assert!(all.iter().all(|one| one.claimants.iter().all(|side| side.role == Role::Claimant)));
    }
}

#[test]
fn who_was_silent_has_no_claim_when_the_other_leaves_too() {
    let mut play = having(&[1, 2]);
    play.answers(2, false);
    play.wait(seconds(70));
    assert!(disputing(&play).is_empty());
    play.end_port(1, true);
    assert_eq!(holder(&play), None);
    claim(&mut play, 3);
    play.send(3, &packet(mac(3), address(2)));
    play.wait(seconds(3));
    assert!(disputing(&play).is_empty());
}
