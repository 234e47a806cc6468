//! Rows of claims.md that are sequences.

use std::{collections::BTreeSet, time::Duration};

use bytemuck::Zeroable as _;
use guard_ebpf::abi::{OWNED_GATEWAY, OWNED_HOST, Owned};

use super::world::{GATEWAY, Play, address, announce, mac, packet, probe, segment};
use crate::{
    arbiter::{Effect, Event, MOST_OF_ACCESS_PORT, Remark},
    incident::{Incident, Kind, Role, Severity},
    mac::Mac,
};

/// What docker gives its bridge, in every guest.
const DOCKER: std::net::Ipv4Addr = std::net::Ipv4Addr::new(172, 17, 0, 1);

const GRACE: Duration = Duration::from_secs(2);

/// A frame of an ethertype that claims nothing.
fn bare(Mac(mac): Mac) -> Vec<u8> {
    [&[0xff; 6][..], &mac, &[0x88, 0xb5], &[0; 46]].concat()
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn both(kind: Kind, macs: &[u8]) -> Vec<(Kind, BTreeSet<Mac>)> {
    vec![(kind, macs.iter().map(|number| mac(*number)).collect())]
}

/// Who has an address, by the evidence.
fn has(play: &Play, host: u8) -> Vec<u32> {
    let claims = play.world.evidence.get(&(segment(), address(host).into()));
    claims.into_iter().flatten().map(|(ifindex, _)| *ifindex).collect()
}

#[test]
fn two_who_are_there_are_a_conflict_as_soon_as_the_first_answers() {
    let mut play = Play::new(&[1, 2], &[]);
    play.send(1, &announce(mac(1), address(2)));
    play.send(2, &announce(mac(2), address(2)));
    assert_eq!(play.open(), both(Kind::Duplicate, &[1, 2]), "it was asked, and has answered");
    assert_eq!((play.probes(), has(&play, 2)), (1, vec![1, 2]));
}

/// The open incidents: how bad, and whether anybody was alerted.
fn told(play: &Play) -> Vec<(Severity, bool)> {
    let open = play.world.incidents.list(false);
    open.iter().map(|incident| (incident.severity(), incident.told)).collect()
}

#[test]
fn a14_two_who_say_where_an_address_is_are_a_conflict_on_a_segment_without_prefixes() {
    let mut play = Play::new(&[1, 2], &[]);
    play.world.model.prefixes.clear();
    play.send(1, &announce(mac(1), address(2)));
    play.send(2, &announce(mac(2), address(2)));
    assert_eq!(play.open(), both(Kind::Duplicate, &[1, 2]));
    assert_eq!(told(&play), [(Severity::Warning, true)]);
}

#[test]
fn a14_beside_the_prefixes_it_is_told_once_an_hour_and_hurts_nobody() {
    let mut play = Play::new(&[1, 2, 3, 4], &[]);
    play.send(1, &announce(mac(1), DOCKER));
    for again in 0..3 {
        play.send(2, &announce(mac(2), DOCKER));
        assert_eq!(told(&play), [(Severity::Info, again == 0)], "{again}");
        play.answers(2, false);
        play.wait(seconds(200));
        assert!(play.open().is_empty());
        play.answers(2, true);
        play.send(1, &announce(mac(1), DOCKER));
    }
    play.wait(seconds(3600));
    play.send(1, &announce(mac(1), DOCKER));
    play.send(2, &announce(mac(2), DOCKER));
    assert_eq!(told(&play), [(Severity::Info, true)]);
    // Another address is another matter, and one on the prefix hurts.
    play.send(3, &announce(mac(3), address(3)));
    play.send(4, &announce(mac(4), address(3)));
    assert_eq!(told(&play)[1..], [(Severity::Warning, true)]);
}

#[test]
fn d05_a_packet_from_off_the_prefixes_claims_nothing() {
    for prefixes in [true, false] {
        let mut play = Play::new(&[1, 2], &[]);
        if !prefixes {
            play.world.model.prefixes.clear();
        }
        play.send(1, &announce(mac(1), DOCKER));
        play.send(2, &packet(mac(2), DOCKER));
        play.wait(GRACE);
        assert!(play.open().is_empty() && play.probes() == 0);
        // Nor does one keep from being heard who does claim it.
        play.send(2, &announce(mac(2), DOCKER));
        assert_eq!(play.open(), both(Kind::Duplicate, &[1, 2]));
    }
}

#[test]
fn a20_who_claims_what_the_host_has_on_another_device_is_told_at_warning() {
    for (host, severity) in [(address(7), Severity::Warning), (DOCKER, Severity::Info)] {
        let mut play = Play::new(&[1, 2], &[]);
        play.world.elsewhere.insert(host.into());
        play.send(1, &announce(mac(1), host));
        assert_eq!(play.open(), both(Kind::Duplicate, &[1, 0xfe]));
        assert_eq!(told(&play), [(severity, true)]);
        // The host gives it up.
        play.world.elsewhere.clear();
        let old = vec![(0, host.into())];
        play.handle(Event::HostAddresses { bridge: "br0".into(), new: Vec::new(), old });
        assert!(play.open().is_empty());
        // One that it has not.
        play.send(2, &announce(mac(2), address(8)));
        assert!(play.open().is_empty());
    }
}

#[test]
fn a31_a_port_that_has_ended_is_a_move() {
    let mut play = Play::new(&[1, 2], &[]);
    play.send(1, &announce(mac(1), address(2)));
    play.end_port(1, true);
    play.send(2, &announce(mac(2), address(2)));
    assert!(play.open().is_empty() && play.probes() == 0);
    assert_eq!(has(&play, 2), [2]);
}

#[test]
fn a32_a_port_whose_end_is_told_late_is_a_move() {
    for in_the_kernel in [true, false] {
        let mut play = Play::new(&[1, 2], &[]);
        play.send(1, &announce(mac(1), address(2)));
        play.world.ports.get_mut(&1).unwrap().answers = false;
        if in_the_kernel {
            play.end_port(1, false);
        }
        play.send(2, &announce(mac(2), address(2)));
        play.wait(GRACE / 2);
        play.end_port(1, true);
        assert!(play.open().is_empty());
        assert_eq!(has(&play, 2), [2]);
        play.wait(seconds(10));
        assert!(play.open().is_empty() && play.world.closed.is_empty());
    }
}

#[test]
fn a32_a_holder_that_stays_and_says_nothing_is_a_conflict_after_the_grace() {
    let mut play = Play::new(&[1, 2], &[]);
    play.send(1, &announce(mac(1), address(2)));
    play.world.ports.get_mut(&1).unwrap().answers = false;
    play.send(2, &announce(mac(2), address(2)));
    play.wait(GRACE - Duration::from_millis(1));
    assert!(play.open().is_empty());
    play.wait(Duration::from_millis(1));
    assert_eq!((play.open(), play.probes()), (both(Kind::Duplicate, &[1, 2]), 3));
}

#[test]
fn a33_a_port_may_change_its_mac_and_an_uplink_may_not() {
    let mut play = Play::new(&[1], &[3]);
    play.send(1, &announce(mac(1), address(2)));
    play.send(1, &announce(mac(2), address(2)));
    assert!(play.open().is_empty());
    let changed = |effect: &Effect| matches!(effect, Effect::Remark(Remark::MacChanged, _));
    assert!(play.world.log.iter().any(changed));
    play.send(3, &announce(mac(3), address(4)));
    play.send(3, &announce(mac(4), address(4)));
    assert_eq!(play.open(), both(Kind::Duplicate, &[3, 4]));
}

#[test]
fn a33_two_macvlans_of_one_sandbox_that_answer_for_each_other_are_no_flap() {
    for (first, second, flaps) in [(1, 1, false), (1, 2, true)] {
        let mut play = Play::new(&[1, 2], &[]);
        for _ in 0..4 {
            for (port, number) in [(first, 1), (second, 2)] {
                play.answers(1, false);
                play.answers(2, false);
                play.send(port, &announce(mac(number), address(2)));
                play.wait(Duration::from_secs(3));
            }
        }
        let told = !play.world.incidents.list(false).is_empty() || !play.world.closed.is_empty();
        assert_eq!(told, flaps, "{:?}", play.open());
    }
}

#[test]
fn a21_the_host_by_a_device_beside_the_bridge_is_no_claimant_of_its_own_address() {
    for (port, number, told) in [(3, 0xfd, false), (3, 3, true), (1, 0xfd, true)] {
        let mut play = Play::new(&[1], &[3]);
        let host = Owned { flags: OWNED_GATEWAY | OWNED_HOST, ..Owned::zeroed() };
        play.bind_as(GATEWAY, Some(host));
        play.send(port, &announce(mac(number), GATEWAY));
        assert_eq!(!play.open().is_empty(), told, "{port} {number:x}");
    }
}

#[test]
fn who_has_got_the_address_is_not_in_conflict_with_itself() {
    let mut play = Play::new(&[1], &[3]);
    play.send(1, &announce(mac(1), address(2)));
    play.send(3, &announce(mac(3), address(2)));
    play.end_port(1, true);
    play.send(3, &packet(mac(3), address(2)));
    let closed = play.world.closed.len();
    // The program's note of the challenger is still there.
    play.read_maps();
    play.wait(GRACE);
    assert!(play.open().is_empty());
    assert_eq!((play.world.closed.len(), has(&play, 2)), (closed, vec![3]));
}

#[test]
fn a34_a_holder_that_was_silent_for_long_and_stays_so_has_moved() {
    for answers in [false, true] {
        let mut play = Play::new(&[1, 2], &[]);
        play.send(1, &announce(mac(1), address(2)));
        play.world.ports.get_mut(&1).unwrap().answers = answers;
        play.wait(play.world.conflict.live_window);
        play.send(2, &announce(mac(2), address(2)));
        play.wait(GRACE);
        let expected = if answers { both(Kind::Duplicate, &[1, 2]) } else { vec![] };
        assert_eq!(play.open(), expected);
    }
}

#[test]
fn a35_an_address_that_goes_to_and_fro_is_one_flap() {
    let mut play = Play::new(&[1, 2], &[]);
    for turn in 0..6 {
        let (port, other) = (1 + turn % 2, 2 - turn % 2);
        play.world.ports.get_mut(&port).unwrap().carrier = true;
        play.lose_carrier(other);
        play.send(port, &announce(mac(u8::try_from(port).unwrap()), address(2)));
        play.wait(seconds(2));
    }
    assert_eq!(play.open(), both(Kind::Flap, &[1, 2]));
}

#[test]
fn a18_a_port_without_a_carrier_holds_nothing() {
    let mut play = Play::new(&[1, 2], &[]);
    play.send(1, &announce(mac(1), address(2)));
    play.world.ports.get_mut(&1).unwrap().answers = false;
    play.send(2, &announce(mac(2), address(2)));
    play.lose_carrier(1);
    assert!(play.open().is_empty());
    assert_eq!(has(&play, 2), [2]);
    // With its MAC, as a bond does.
    play.lose_carrier(2);
    play.world.add_port(5, false);
    play.send(5, &announce(mac(2), address(2)));
    play.wait(GRACE);
    assert!(play.open().is_empty());
    assert_eq!(has(&play, 2), [5]);
}

#[test]
fn a_declared_owner_needs_no_asking_and_a_gateway_none_at_all() {
    let mut play = Play::new(&[1, 2], &[]);
    play.bind(address(2), Some((1, mac(1))));
    play.send(1, &announce(mac(1), address(2)));
    play.send(2, &packet(mac(2), address(2)));
    assert_eq!((play.open(), play.probes()), (both(Kind::Duplicate, &[1, 2]), 0));
    let roles: Vec<_> =
        play.world.incidents.list(false)[0].claimants.iter().map(|side| side.role).collect();
    assert_eq!(roles, [Role::Owner, Role::Impostor]);
    play.send(2, &announce(mac(2), GATEWAY));
    assert_eq!(play.open()[1], both(Kind::Gateway, &[2])[0]);
    assert_eq!(has(&play, 1), [0; 0], "nobody gets the gateway's address by claiming it");
}

#[test]
fn a04_a_probe_is_no_claim() {
    let mut play = Play::new(&[1, 2], &[]);
    play.send(1, &announce(mac(1), address(2)));
    play.send(2, &probe(mac(2), address(2)));
    play.wait(seconds(10));
    assert!(play.open().is_empty());
    assert_eq!(has(&play, 2), [1]);
}

#[test]
fn l01_a_mac_on_two_ports_is_a_clone_at_once_where_it_is_bound() {
    for bound in [true, false] {
        let mut play = Play::new(&[1, 2], &[]);
        if bound {
            play.bind(address(2), Some((1, mac(1))));
        }
        play.send(1, &announce(mac(1), address(2)));
        play.send(2, &probe(mac(1), address(9)));
        // Unbound, it was asked on its first port, and has answered.
        assert_eq!((play.open(), play.probes() > 0), (both(Kind::Clone, &[1]), !bound));
        let expected = if bound { [Role::Owner, Role::Impostor] } else { [Role::Claimant; 2] };
        let roles: Vec<_> =
            play.world.incidents.list(false)[0].claimants.iter().map(|side| side.role).collect();
        assert_eq!(roles, expected);
    }
}

/// The incidents about MACs: how bad, and the roles of both.
fn clones(play: &Play) -> Vec<(Severity, Vec<Role>)> {
    let open = play.world.incidents.list(false);
    let clones = open.iter().filter(|incident| incident.kind == Kind::Clone);
    let roles = |one: &Incident| one.claimants.iter().map(|one| one.role).collect();
    clones.map(|incident| (incident.severity(), roles(incident))).collect()
}

#[test]
fn l01_a_bare_frame_with_the_mac_of_a_gateway_behind_an_uplink_is_a_clone() {
    let told = [(Severity::Critical, vec![Role::Owner, Role::Impostor])];
    let mut play = Play::new(&[1, 2], &[3, 4]);
    play.send(3, &announce(mac(9), GATEWAY));
    // Its twin: another host behind the uplink is nobody's gateway.
    play.send(3, &announce(mac(8), address(77)));
    play.answers(3, false);
    play.send(1, &bare(mac(8)));
    play.wait(GRACE);
    assert_eq!(clones(&play), []);
    play.send(1, &bare(mac(9)));
    assert_eq!(clones(&play), told);
    // It goes from uplink to uplink by right (claims.md A18), and is held where it is.
    let mut play = Play::new(&[1, 2], &[3, 4]);
    play.send(3, &announce(mac(9), GATEWAY));
    play.send(4, &bare(mac(9)));
    play.send(4, &announce(mac(9), GATEWAY));
    play.send(3, &bare(mac(9)));
    play.wait(seconds(10));
    assert!(play.open().is_empty());
    play.send(2, &bare(mac(9)));
    assert_eq!(clones(&play), told);
}

#[test]
fn l01b_a_mac_whose_first_port_ends_within_the_grace_has_moved() {
    let mut play = Play::new(&[1, 2], &[]);
    play.send(1, &announce(mac(1), address(2)));
    play.send(2, &probe(mac(1), address(9)));
    play.end_port(1, true);
    play.wait(GRACE);
    assert!(play.open().is_empty());
}

#[test]
fn a_claim_that_ages_is_asked_for_and_over_when_nobody_answers() {
    for answers in [true, false] {
        let mut play = Play::new(&[1], &[]);
        play.send(1, &announce(mac(1), address(2)));
        play.world.ports.get_mut(&1).unwrap().answers = answers;
        play.wait(play.world.conflict.live_window);
        let looks = [(); 4].map(|()| {
            play.read_maps();
            play.wait(seconds(30));
            has(&play, 2).len()
        });
        assert_eq!(looks, if answers { [1, 1, 1, 1] } else { [1, 1, 1, 0] });
        assert_eq!(play.world.model.live.len(), usize::from(answers));
    }
}

#[test]
fn a_port_can_have_so_much_wait_and_takes_no_room_from_others() {
    let mut play = Play::new(&[1, 2, 3], &[4]);
    play.world.ports.values_mut().for_each(|port| port.answers = false);
    let hosts = |from: usize, to: usize| {
        let octet = |number: usize| u8::try_from(number).unwrap();
        (from..to).map(move |host| {
            std::net::Ipv4Addr::new(
                10,
                octet(64 + host / 65_536),
                octet(host / 256 % 256),
                octet(host % 256),
            )
        })
    };
    let key = guard_ebpf::abi::AddressKey::new(super::world::BRIDGE, 0, [10, 0, 0, 0].into());
    let on_link = guard_ebpf::abi::Prefix { on_link: 1, ..Default::default() };
    play.world.model.add_prefix(key, key.prefix_len(8), on_link);
    for host in hosts(0, 5001) {
        play.send(1, &announce(mac(1), host));
    }
    for host in hosts(0, MOST_OF_ACCESS_PORT + 10) {
        play.send(2, &announce(mac(2), host));
    }
    assert_eq!(play.arbiter.pending.len(), MOST_OF_ACCESS_PORT);
    play.send(3, &announce(mac(3), hosts(5000, 5001).next().unwrap()));
    assert_eq!(play.arbiter.pending.len(), MOST_OF_ACCESS_PORT + 1);
    // What was left out is found when the maps are read, once there is room.
    play.wait(GRACE);
    assert_eq!(play.open().len(), MOST_OF_ACCESS_PORT + 1);
    play.read_maps();
    play.wait(GRACE);
    assert_eq!(play.open().len(), MOST_OF_ACCESS_PORT + 11);
    assert_eq!(play.arbiter.pending.len(), 0);
}

#[test]
fn a19b_a_port_that_claims_more_than_sixteen_owned_addresses_is_one_incident() {
    let claim = |hosts: u8| {
        let mut play = Play::new(&[1, 2, 3], &[]);
        for host in 10..10 + hosts {
            play.bind(address(host), Some((1, mac(host))));
            play.send(2, &announce(mac(2), address(host)));
        }
        play
    };
    let play = claim(16);
    assert_eq!(play.open().len(), 16);
    assert!(play.open().iter().all(|(kind, _)| *kind == Kind::Duplicate));

    let mut play = claim(40);
    let open = play.world.incidents.list(false);
    let [incident] = &open[..] else { panic!("{open:?}") };
    assert_eq!((incident.kind, incident.claimants[0].ifindex), (Kind::Proxy, Some(2)));
    assert!(incident.detail.starts_with("claims 40 addresses of others: 10.8.64.10 10.8.64.11"));
    assert_eq!(incident.detail.matches("10.8.64.").count(), 16);
    // Another port, and the gateway, have incidents of their own.
    play.send(3, &announce(mac(3), address(40)));
    play.send(2, &announce(mac(2), GATEWAY));
    let kinds: Vec<_> = play.open().into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(kinds, [Kind::Proxy, Kind::Duplicate, Kind::Gateway]);
    // With its end each address is one again.
    play.answers(2, false);
    play.answers(3, false);
    play.wait(seconds(700));
    assert!(play.open().is_empty());
    play.send(2, &announce(mac(2), address(12)));
    assert_eq!(play.open()[0].0, Kind::Duplicate);
}
