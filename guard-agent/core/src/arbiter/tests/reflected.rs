//! Ports that send back what came from the bridge, ports that spanning tree has blocked, and a MAC on a
//! second port (claims.md L01b, N02, A10).

use std::time::Duration;

use guard_ebpf::abi::{MacHolder, MacKey, OWNED_HOST, OWNED_LEASED, OWNED_PORT, Owned};

use super::world::{BRIDGE, Play, address, announce, arp, mac, packet, probe};
use crate::{
    arbiter::{Effect, Remark},
    incident::{Kind, Role, Severity},
    mac::Mac,
};

const GRACE: Duration = Duration::from_secs(2);
const UPLINK: u32 = 7;

/// A frame to a station alone.
fn alone(mut frame: Vec<u8>) -> Vec<u8> {
    frame[..6].copy_from_slice(&mac(0x63).0);
    frame
}

/// A frame of an ethertype that claims nothing.
fn bare(Mac(mac): Mac) -> Vec<u8> {
    [&[0xff; 6][..], &mac, &[0x88, 0xb5], &[0; 46]].concat()
}

fn kinds(play: &Play) -> Vec<Kind> {
    play.open().into_iter().map(|(kind, _)| kind).collect()
}

fn remarks(play: &Play, remark: Remark) -> usize {
    let of = |effect: &&Effect| matches!(effect, Effect::Remark(one, _) if *one == remark);
    play.world.log.iter().filter(of).count()
}

/// A station behind port 1, by a binding or without one.
fn with_station(bound: bool) -> Play {
    let mut play = Play::new(&[1, 2], &[UPLINK]);
    if bound {
        play.bind(address(2), Some((1, mac(1))));
        let key = MacKey::new(BRIDGE, 0, mac(1).0);
        play.world.model.macs.insert(key, MacHolder { ifindex: 1, flags: 1 });
    }
    play.send(1, &announce(mac(1), address(2)));
    play
}

#[test]
fn l01b_what_an_uplink_sends_back_to_a_group_is_a_loop_and_nobody_an_impostor() {
    for bound in [true, false] {
        for frame in [announce(mac(1), address(2)), bare(mac(1))] {
            let mut play = with_station(bound);
            play.send(UPLINK, &frame);
            play.wait(GRACE);
            assert_eq!(kinds(&play), [Kind::Loop], "{bound} {frame:x?}");
            let incident = &play.world.incidents.list(false)[0];
            assert_eq!(incident.severity(), Severity::Warning);
            let roles: Vec<_> = incident.claimants.iter().map(|c| (c.role, c.ifindex)).collect();
            assert_eq!(roles, [(Role::Claimant, Some(UPLINK))]);
            // It goes on, and then it is over.
            play.wait(Duration::from_secs(30));
            play.send(UPLINK, &frame);
            play.wait(Duration::from_secs(599));
            assert_eq!(kinds(&play), [Kind::Loop]);
            play.wait(Duration::from_secs(3));
            assert_eq!(kinds(&play), []);
        }
    }
}

#[test]
fn l01b_what_it_sends_to_a_station_alone_is_none_even_right_behind_a_loop() {
    for bound in [true, false] {
        let mut play = with_station(bound);
        play.send(UPLINK, &bare(mac(1)));
        play.send(UPLINK, &alone(bare(mac(1))));
        play.wait(GRACE);
        assert!(kinds(&play).contains(&Kind::Clone), "{bound} {:?}", play.open());
        // Nor is what another has said in the station's name.
        let mut play = with_station(bound);
        let mut forged = announce(mac(9), address(2));
        forged[6..12].copy_from_slice(&mac(1).0);
        play.send(UPLINK, &forged);
        play.wait(GRACE);
        assert!(kinds(&play).iter().any(|kind| *kind >= Kind::Duplicate), "{:?}", play.open());
    }
}

#[test]
fn l01b_a_station_that_moves_behind_an_uplink_is_no_loop() {
    let mut play = with_station(false);
    play.answers(1, false);
    play.send(UPLINK, &announce(mac(1), address(2)));
    play.wait(GRACE);
    assert_eq!(kinds(&play), []);
    assert!(remarks(&play, Remark::MacMoved) > 0);
    assert_eq!(play.world.model.macs.get(&MacKey::new(BRIDGE, 0, mac(1).0)), None);
}

#[test]
fn l02_the_hosts_own_broadcasts_that_come_back_are_a_loop() {
    let mut play = Play::new(&[1], &[UPLINK]);
    let host = Owned { flags: OWNED_HOST, ..bytemuck::Zeroable::zeroed() };
    play.bind_as(address(3), Some(host));
    play.world.ports.get_mut(&UPLINK).unwrap().abi.bridge_mac = mac(0xfe).0;
    play.world.ports.get_mut(&1).unwrap().abi.bridge_mac = mac(0xfe).0;
    for frame in [announce(mac(0xfe), address(3)), bare(mac(0xfe)), probe(mac(0xfe), address(3))] {
        play.send(UPLINK, &frame);
        assert_eq!(kinds(&play), [Kind::Loop], "{frame:x?}");
    }
    // Its twins: to a station alone, and from a sandbox.
    let mut other = Play::new(&[1], &[UPLINK]);
    other.bind_as(address(3), Some(host));
    other.send(UPLINK, &alone(announce(mac(0xfe), address(3))));
    assert_eq!(kinds(&other), [Kind::Gateway]);
    play.send(1, &bare(mac(0xfe)));
    assert!(kinds(&play).contains(&Kind::Gateway));
}

#[test]
fn n02_an_own_probe_that_an_uplink_sends_back_is_a_loop() {
    let mut play = Play::new(&[1, 2], &[UPLINK]);
    play.send(1, &probe(mac(1), address(5)));
    play.send(UPLINK, &probe(mac(1), address(5)));
    assert_eq!(kinds(&play), [Kind::Loop]);
    // Its twin: another's is a race.
    play.send(UPLINK, &probe(mac(9), address(5)));
    let races = |effect: &&Effect| matches!(effect, Effect::ProbeRace(..));
    assert_eq!(play.world.log.iter().filter(races).count(), 1);
}

#[test]
fn a18_what_spanning_tree_lets_not_in_is_nothing_and_is_news_once_it_does() {
    let mut play = with_station(true);
    let host = Owned { flags: OWNED_HOST, ..bytemuck::Zeroable::zeroed() };
    play.bind_as(address(3), Some(host));
    let frames =
        [alone(bare(mac(1))), announce(mac(1), address(2)), alone(announce(mac(8), address(3)))];
    play.world.ports.get_mut(&UPLINK).unwrap().blocked = true;
    for frame in &frames {
        play.send(UPLINK, frame);
    }
    play.wait(GRACE);
    play.read_maps();
    assert_eq!(play.open(), []);
    // The port takes over for another: what was is not news.
    play.world.ports.get_mut(&UPLINK).unwrap().blocked = false;
    play.read_maps();
    assert_eq!(play.open(), []);
    // Its twin: what comes now is.
    for frame in &frames {
        play.send(UPLINK, frame);
    }
    let mut told = kinds(&play);
    told.sort_unstable();
    assert_eq!(told, [Kind::Loop, Kind::Clone, Kind::Gateway]);
}

#[test]
fn a18_a_frame_that_came_as_the_port_was_being_blocked_is_judged_after_the_grace() {
    let mut play = with_station(true);
    play.world.ports.get_mut(&UPLINK).unwrap().blocked = true;
    play.send(UPLINK, &alone(announce(mac(9), address(2))));
    assert_eq!(play.open(), []);
    play.world.ports.get_mut(&UPLINK).unwrap().blocked = false;
    play.wait(GRACE);
    assert_eq!(kinds(&play), [Kind::Duplicate]);
}

#[test]
fn l01b_a_station_of_an_uplink_is_asked_there_before_it_is_called_a_clone() {
    for (answers, kind) in [(true, vec![Kind::Clone]), (false, vec![])] {
        let mut play = Play::new(&[1, 2], &[UPLINK]);
        play.send(UPLINK, &announce(mac(5), address(5)));
        play.answers(UPLINK, answers);
        play.send(1, &bare(mac(5)));
        play.wait(GRACE);
        assert_eq!(kinds(&play), kind, "{answers}");
        assert!(play.probes() > 0);
        assert_eq!(remarks(&play, Remark::MacMoved), usize::from(!answers));
    }
    // Bound to its port here, it has moved.
    let mut play = Play::new(&[1, 2], &[UPLINK]);
    play.send(UPLINK, &announce(mac(5), address(5)));
    play.bind(address(6), Some((1, mac(5))));
    play.send(1, &bare(mac(5)));
    play.wait(GRACE);
    assert_eq!((kinds(&play), play.probes()), (vec![], 0));
}

#[test]
fn l01b_a_mac_on_two_access_ports_is_a_clone_as_soon_as_the_first_answers() {
    let mut play = with_station(false);
    play.send(2, &bare(mac(1)));
    assert_eq!(kinds(&play), [Kind::Clone], "it was asked, and has answered");
    // Its twin: a first port that is silent, or is blocked, has lost it.
    for silent in [true, false] {
        let mut play = with_station(false);
        let first = play.world.ports.get_mut(&1).unwrap();
        (first.answers, first.blocked) = (!silent, !silent);
        play.send(2, &bare(mac(1)));
        play.wait(GRACE);
        assert_eq!((kinds(&play), remarks(&play, Remark::MacMoved)), (vec![], 1), "{silent}");
    }
}

#[test]
fn l01b_an_owner_whose_binding_names_its_port_alone_is_heard_there_too() {
    for (answers, kind) in [(true, vec![Kind::Clone]), (false, vec![])] {
        let mut play = Play::new(&[1, 2], &[UPLINK]);
        let flags = OWNED_LEASED | OWNED_PORT;
        let owned = Owned { generation: 1, ifindex: 1, flags, ..bytemuck::Zeroable::zeroed() };
        play.bind_as(address(2), Some(owned));
        play.send(1, &announce(mac(1), address(2)));
        play.answers(1, answers);
        play.send(2, &bare(mac(1)));
        play.wait(GRACE);
        assert_eq!(kinds(&play), kind, "{answers}");
    }
}

/// ARP for another station, and a packet for it.
fn relayed(relay: Mac, station: Mac, host: u8) -> [Vec<u8>; 2] {
    let mut claim = arp(1, station, address(host), address(99));
    claim[6..12].copy_from_slice(&relay.0);
    [claim, alone(packet(relay, address(host)))]
}

#[test]
fn a10_a_relay_is_told_once_and_is_the_station_that_it_sends_for() {
    for port in [1, UPLINK] {
        let mut play = Play::new(&[1, 2], &[UPLINK]);
        for _ in 0..3 {
            for frame in relayed(mac(0x20), mac(5), 5) {
                play.send(port, &frame);
            }
            play.wait(Duration::from_secs(5));
        }
        assert_eq!(kinds(&play), [], "{port}");
        assert_eq!(remarks(&play, Remark::Relays), 1);
        assert_eq!(remarks(&play, Remark::MacChanged), 0);
        assert_eq!(play.world.model.live.values().next().unwrap().mac, mac(5).0);
    }
    // Its twins, behind an uplink: who says that the address is its own, and a packet by another.
    for frame in [announce(mac(0x20), address(5)), alone(packet(mac(0x21), address(5)))] {
        let mut play = Play::new(&[1, 2], &[UPLINK]);
        play.send(UPLINK, &relayed(mac(0x20), mac(5), 5)[0]);
        play.send(UPLINK, &frame);
        play.wait(GRACE);
        assert_eq!(kinds(&play), [Kind::Duplicate], "{frame:x?}");
    }
}
