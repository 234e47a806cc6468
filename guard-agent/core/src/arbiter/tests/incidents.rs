//! How incidents begin, join and end (claims.md, "Conflict").

use std::time::Duration;

use bytemuck::Zeroable as _;
use guard_ebpf::abi::{
    AddressKey, OWNED_HOST, OWNED_LEASED, OWNED_MAC, OWNED_PORT, Owned, PORT_ALLOW_VIRTUAL, Prefix,
};

use super::world::{BRIDGE, GATEWAY, Play, address, announce, mac, packet, probe, segment};
use crate::{
    arbiter::{Effect, Event, Remark},
    incident::{Incident, Kind, Role, Severity},
    mac::Mac,
};

const VIRTUAL: Mac = Mac([0, 0, 0x5e, 0, 1, 7]);

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The one incident that there was, and whether it is open.
fn only(play: &Play) -> (Incident, bool) {
    let [one] = &play.world.incidents.list(true)[..] else { panic!("{:?}", play.open()) };
    (one.clone(), one.closed_at.is_none())
}

fn roles(incident: &Incident) -> Vec<(Role, Option<Mac>)> {
    incident.claimants.iter().map(|claimant| (claimant.role, claimant.mac)).collect()
}

fn disputed() -> Play {
    let mut play = Play::new(&[1, 2, 3], &[]);
    play.send(1, &announce(mac(1), address(2)));
    play.send(2, &announce(mac(2), address(2)));
    play
}

#[test]
fn two_who_answer_are_one_incident_as_long_as_they_do() {
    let mut play = disputed();
    play.wait(seconds(3600));
    let (incident, open) = only(&play);
    assert!(open && incident.flaps == 0, "{incident:?}");
    assert!(play.probes() < 3 * 60 * 3, "{}", play.probes());
}

#[test]
fn who_does_not_answer_three_times_is_gone_and_the_other_has_the_address() {
    for silent in [1, 2] {
        let mut play = disputed();
        play.answers(silent, false);
        let asked = play.probes();
        play.wait(seconds(60));
        assert!(only(&play).1);
        play.wait(seconds(3));
        assert!(!only(&play).1, "port {silent}");
        // The other one was asked too, and has answered.
        assert!((asked + 3..asked + 6).contains(&play.probes()), "{}", play.probes());
        let other = 3 - silent;
        let key = AddressKey::new(BRIDGE, 0, address(2).into());
        assert_eq!(play.world.model.live[&key].ifindex, other);
        // It may go on with what is its own now.
        for _ in 0..5 {
            play.send(other, &announce(mac(u8::try_from(other).unwrap()), address(2)));
            play.wait(seconds(30));
        }
        assert!(!only(&play).1);
    }
}

#[test]
fn one_that_comes_back_within_the_flap_window_goes_on_with_the_same_incident() {
    for (pause, same) in [(30, true), (90, false)] {
        let mut play = disputed();
        play.answers(2, false);
        play.wait(seconds(70));
        assert!(!only(&play).1);
        play.wait(seconds(pause));
        play.send(2, &announce(mac(2), address(2)));
        play.wait(seconds(1));
        let all = play.world.incidents.list(true);
        assert_eq!((all.len(), play.open().len()), (if same { 1 } else { 2 }, 1), "{all:?}");
        let frames = all.last().unwrap().claimants[1].frames;
        assert_eq!(frames, if same { 2 } else { 1 }, "frames count within one incident");
    }
}

#[test]
fn an_owner_is_neither_asked_nor_gone_and_its_impostor_is_both() {
    let mut play = Play::new(&[1, 2], &[]);
    play.bind(address(2), Some((1, mac(1))));
    play.answers(1, false);
    play.send(2, &announce(mac(2), address(2)));
    play.wait(seconds(600));
    assert!(only(&play).1, "the impostor answers");
    let asked = |effect: &Effect| matches!(effect, Effect::Probe { to, .. } if to.ifindex == 1);
    assert!(!play.world.log.iter().any(asked));
    play.answers(2, false);
    play.wait(seconds(64));
    assert!(!only(&play).1);
}

#[test]
fn whoever_has_the_gateways_address_is_asked_for_it() {
    let mut play = Play::new(&[2], &[]);
    play.send(2, &announce(mac(2), GATEWAY));
    play.wait(seconds(300));
    assert!(only(&play).1);
    play.answers(2, false);
    play.wait(seconds(64));
    assert!(!only(&play).1);
}

#[test]
fn who_cannot_be_asked_is_gone_after_five_times_as_long() {
    let mut play = Play::new(&[1, 2], &[]);
    play.bind(address(2), Some((1, mac(1))));
    play.send(1, &announce(mac(1), address(2)));
    // About its MAC alone.
    play.send(2, &probe(mac(1), address(9)));
    assert_eq!(only(&play).0.kind, Kind::Clone);
    play.wait(seconds(299));
    assert!(only(&play).1);
    play.wait(seconds(2));
    assert!(!only(&play).1);
}

#[test]
fn so_many_questions_leave_a_port_within_a_second() {
    for (uplink, most) in [(false, 50), (true, 10)] {
        let mut play = Play::new(&[1], &[]);
        play.world.add_port(2, uplink);
        for host in 2..200 {
            play.send(1, &announce(mac(1), address(host)));
        }
        // Nobody owns them: a port that claims what many own is one incident.
        for host in 2..200 {
            play.send(2, &announce(mac(2), address(host)));
        }
        play.wait(seconds(10));
        play.answers(2, false);
        play.wait(seconds(50));
        for _ in 0..8 {
            let before = play.probes();
            play.wait(seconds(1));
            assert!(play.probes() - before <= 50 + most, "{}", play.probes() - before);
        }
        assert!(!play.open().is_empty(), "who waits for its question is there");
        play.wait(seconds(200));
        assert!(play.open().is_empty());
    }
}

#[test]
fn nobody_is_taken_for_a_probe_while_it_probes_itself() {
    let mut play = disputed();
    play.wait(seconds(58));
    play.send(1, &probe(mac(1), address(2)));
    play.send(3, &probe(mac(3), address(2)));
    let asked = play.probes();
    play.wait(seconds(5));
    assert_eq!(play.probes(), asked);
    play.wait(seconds(5));
    assert!(play.probes() > asked && only(&play).1);
}

#[test]
fn a_third_claimant_ends_a_doubt_between_two_with_all_three() {
    let mut play = Play::new(&[1, 2, 3], &[]);
    play.send(1, &announce(mac(1), address(2)));
    play.answers(1, false);
    play.send(2, &announce(mac(2), address(2)));
    assert!(play.open().is_empty(), "a doubt");
    play.send(2, &packet(mac(2), address(2)));
    assert!(play.open().is_empty(), "the second one again is no third");
    play.send(3, &announce(mac(3), address(2)));
    let (incident, _) = only(&play);
    assert_eq!(incident.severity(), Severity::Warning);
    let all = [1, 2, 3].map(|number| (Role::Claimant, Some(mac(number))));
    assert_eq!(roles(&incident), all);
}

#[test]
fn a34_a_former_holder_that_does_not_answer_is_told_at_info_until_its_next_frame() {
    for comes_back in [true, false] {
        let mut play = Play::new(&[1, 2], &[]);
        play.send(1, &announce(mac(1), address(2)));
        play.answers(1, false);
        play.wait(seconds(10));
        play.send(2, &announce(mac(2), address(2)));
        play.wait(seconds(2));
        let (incident, _) = only(&play);
        assert_eq!((incident.kind, incident.severity()), (Kind::Duplicate, Severity::Info));
        assert!(incident.detail.contains("does not answer"));
        play.wait(seconds(2));
        play.send(2, &announce(mac(2), address(2)));
        assert_eq!(only(&play).0.severity(), Severity::Info, "that is the other one");
        if comes_back {
            play.send(1, &packet(mac(1), address(2)));
            let (incident, _) = only(&play);
            assert_eq!((incident.severity(), &*incident.detail), (Severity::Warning, ""));
        } else {
            play.wait(seconds(64));
            assert!(!only(&play).1);
        }
    }
}

#[test]
fn a_holder_whose_next_frame_is_awaited_was_heard_all_the_same() {
    let mut play = Play::new(&[1, 2, 3], &[]);
    play.send(1, &announce(mac(1), address(2)));
    let key = AddressKey::new(BRIDGE, 0, address(2).into());
    play.world.model.live.get_mut(&key).unwrap().seen_ns = 0;
    play.answers(1, false);
    play.send(2, &announce(mac(2), address(2)));
    play.wait(seconds(2));
    assert!(only(&play).1, "it is no move");
}

#[test]
fn a18_a_mac_between_two_uplinks_moves_without_a_doubt() {
    let mut play = Play::new(&[], &[3, 4]);
    for port in [3, 4, 3, 4, 3] {
        play.send(port, &announce(mac(1), address(2)));
        play.wait(seconds(2));
    }
    assert!(play.open().is_empty() && play.probes() == 0);
    // Another MAC is another host.
    play.send(4, &announce(mac(2), address(2)));
    assert_eq!(only(&play).0.kind, Kind::Duplicate);
}

#[test]
fn one_sandbox_with_two_interfaces_is_a_note_once_and_two_sandboxes_a_conflict() {
    for one in [true, false] {
        let mut play = Play::new(&[1, 2], &[]);
        for (host, port) in [(2, 1), (3, 2)] {
            play.bind(address(host), Some((u32::from(port), mac(port))));
        }
        if one {
            play.world.sandboxes.extend([2, 3].map(|host| (address(host).into(), "both")));
        }
        // Nobody has declared this one.
        for disputed in [2, 7] {
            for _ in 0..3 {
                play.send(1, &announce(mac(1), address(disputed)));
                play.send(2, &announce(mac(2), address(disputed)));
                play.wait(seconds(2));
            }
        }
        assert_eq!(play.open().len(), if one { 0 } else { 2 });
        let note = |effect: &&Effect| matches!(effect, Effect::Remark(Remark::OneSandbox, _));
        assert_eq!(play.world.log.iter().filter(note).count(), if one { 2 } else { 0 });
    }
}

fn take_address(play: &mut Play, host: u8, takes: bool) {
    let key = AddressKey::new(BRIDGE, 0, address(host).into());
    let owned = play.world.model.owned.entry(key).or_insert(Owned::zeroed());
    owned.flags = if takes { owned.flags | OWNED_HOST } else { owned.flags & !OWNED_HOST };
    let changed = vec![(0, address(host).into())];
    let (new, old) = if takes { (changed, vec![]) } else { (vec![], changed) };
    play.handle(Event::HostAddresses { bridge: "br0".into(), new, old });
}

#[test]
fn a_host_that_takes_a_leased_address_is_the_claimant_until_it_gives_it_up() {
    let mut play = Play::new(&[1, 2], &[]);
    play.bind(address(2), Some((1, mac(1))));
    take_address(&mut play, 2, true);
    let sides = [(Role::Owner, Some(mac(1))), (Role::Claimant, Some(mac(0xfe)))];
    let (incident, _) = only(&play);
    assert_eq!((incident.kind, roles(&incident)), (Kind::Duplicate, sides.to_vec()));
    play.send(1, &announce(mac(1), address(2)));
    play.wait(seconds(600));
    let (incident, open) = only(&play);
    assert!(open && roles(&incident) == sides, "the owner is no impostor: {incident:?}");
    take_address(&mut play, 2, false);
    assert!(!only(&play).1);
    // Who is not the owner is an impostor before the host as well.
    let mut play = Play::new(&[1, 2], &[]);
    play.bind(address(2), Some((1, mac(1))));
    take_address(&mut play, 2, true);
    play.send(2, &announce(mac(2), address(2)));
    assert_eq!(roles(&only(&play).0)[2], (Role::Impostor, Some(mac(2))));
    // What nobody has leased is the host's.
    take_address(&mut play, 9, true);
    only(&play);
}

#[test]
fn a_host_address_that_is_gone_unseen_closes_too() {
    let mut play = Play::new(&[1], &[]);
    play.bind(address(2), Some((1, mac(1))));
    take_address(&mut play, 2, true);
    let key = AddressKey::new(BRIDGE, 0, address(2).into());
    play.world.model.owned.get_mut(&key).unwrap().flags &= !OWNED_HOST;
    play.wait(seconds(61));
    assert!(!only(&play).1);
}

#[test]
fn a18_a_bind_closes_at_once_what_the_announcement_before_it_has_opened() {
    // With its own MAC, as a migrated machine has it, and with another, as udev gives it.
    for (port, number) in [(2, 1), (2, 2), (1, 2)] {
        let mut play = Play::new(&[1, 2], &[]);
        play.bind(address(2), Some((1, mac(1))));
        play.send(1, &announce(mac(1), address(2)));
        play.send(port, &announce(mac(number), address(2)));
        assert!(!play.open().is_empty(), "{port} {number}");
        play.bind(address(2), Some((port, mac(number))));
        assert!(play.open().is_empty(), "{port} {number}: {:?}", play.open());
        play.send(port, &announce(mac(number), address(2)));
        play.wait(seconds(5));
        assert!(play.open().is_empty(), "{port} {number}");
        // Who was the owner is none any more.
        play.send(1, &announce(mac(1), address(2)));
        let open = play.world.incidents.list(false);
        let known = open[0]
            .claimants
            .iter()
            .find(|side| (side.mac, side.ifindex) == (Some(mac(1)), Some(1)) && !side.gone);
        assert_eq!(known.unwrap().role, Role::Impostor, "{open:?}");
    }
}

#[test]
fn a_bind_in_the_grace_decides_the_doubt() {
    for to in [1, 2] {
        let mut play = Play::new(&[1, 2], &[]);
        play.send(1, &announce(mac(1), address(2)));
        play.answers(1, false);
        play.send(2, &announce(mac(2), address(2)));
        assert!(play.open().is_empty());
        play.bind(address(2), Some((to, mac(u8::try_from(to).unwrap()))));
        let (incident, _) = only(&play);
        let impostor = mac(3 - u8::try_from(to).unwrap());
        assert!(roles(&incident).contains(&(Role::Impostor, Some(impostor))), "{incident:?}");
        assert_eq!(play.arbiter.next_due(), None);
    }
}

#[test]
fn whoever_else_is_live_when_a_binding_is_written_is_an_impostor_at_once() {
    for live in [true, false] {
        let mut play = Play::new(&[1, 2], &[]);
        if live {
            play.send(2, &announce(mac(2), address(2)));
        }
        play.bind(address(2), Some((1, mac(1))));
        assert_eq!(play.open().len(), usize::from(live));
        if live {
            let sides = [(Role::Owner, Some(mac(1))), (Role::Impostor, Some(mac(2)))];
            assert_eq!(roles(&only(&play).0), sides);
        }
    }
}

#[test]
fn an_owner_whose_port_has_left_its_bridge_is_one_still() {
    let mut play = Play::new(&[1, 2], &[]);
    play.bind(address(2), Some((1, mac(1))));
    play.send(2, &announce(mac(2), address(2)));
    let now = play.world.incidents.list(false)[0].claimants[1].last;
    let now = crate::time::Now { boot: now, wall: jiff::Timestamp::UNIX_EPOCH };
    assert!(play.world.incidents.port_left(1, now).is_empty());
    assert_eq!(play.world.incidents.port_left(2, now).len(), 1);
}

#[test]
fn an_owner_that_the_binding_names_by_half_is_seen_though_its_first_claim_was_lost() {
    for flags in [OWNED_MAC, OWNED_PORT] {
        let mut play = Play::new(&[1], &[]);
        let Mac(octets) = mac(1);
        let flags = flags | OWNED_LEASED;
        let owned = Owned { generation: 1, ifindex: 1, mac: octets, flags, ..Owned::zeroed() };
        play.bind_as(address(2), Some(owned));
        play.world.model.watch(&announce(mac(1), address(2))[..], &play.world.ports[&1].abi);
        play.world.model.events.clear();
        play.wait(seconds(2));
        play.send(1, &announce(mac(1), address(2)));
        let claims = |play: &Play| {
            let claims = play.world.evidence.get(&(segment(), address(2).into()));
            claims.map_or(0, std::collections::BTreeMap::len)
        };
        assert_eq!(claims(&play), 0, "nobody tells of it");
        play.read_maps();
        play.send(1, &announce(mac(1), address(2)));
        assert_eq!(claims(&play), 1);
    }
}

/// A port with a virtual router, and the rule that it may be one.
fn routers(uplinks: &[u32]) -> Play {
    let mut play = Play::new(&[], uplinks);
    for port in play.world.ports.values_mut() {
        (port.abi.flags, port.abi.allow) = (PORT_ALLOW_VIRTUAL, 1);
    }
    let key = AddressKey::new(BRIDGE, 0, address(5).into());
    let rule =
        Prefix { on_link: 1, allow_virtual: 1, declared: 1, over_owners: 1, ..Prefix::default() };
    play.world.model.add_prefix(key, key.prefix_len(32), rule);
    play
}

#[test]
fn a16b_a_routers_own_address_is_at_both_its_macs_in_either_order() {
    for order in [[VIRTUAL, mac(1)], [mac(1), VIRTUAL]] {
        let mut play = routers(&[3]);
        for _ in 0..3 {
            for from in order {
                play.send(3, &announce(from, address(2)));
                play.wait(seconds(2));
            }
        }
        assert!(play.open().is_empty() && play.probes() == 0);
        play.send(3, &announce(mac(2), address(2)));
        play.wait(seconds(3));
        assert_eq!(only(&play).0.kind, Kind::Duplicate);
    }
    // Without a rule the two MACs are two hosts.
    let mut play = Play::new(&[], &[3]);
    play.send(3, &announce(VIRTUAL, address(2)));
    play.send(3, &announce(mac(1), address(2)));
    assert_eq!(only(&play).0.kind, Kind::Duplicate);
}

#[test]
fn a16b_two_masters_at_once_flap_under_the_rule_and_a_fail_over_does_not() {
    let mut play = routers(&[3, 4]);
    for (turn, port) in [3, 4, 3, 4].into_iter().enumerate() {
        assert!(play.open().is_empty(), "{turn}");
        play.send(port, &announce(VIRTUAL, address(5)));
        play.wait(seconds(2));
    }
    assert_eq!(only(&play).0.kind, Kind::Flap);
}

#[test]
fn a16b_two_masters_that_never_claim_the_address_are_told_and_a_fail_over_is_not() {
    // Each advertises itself every second from its own address and the virtual MAC.
    let advertise = |play: &mut Play, masters: &[(u32, u8)]| {
        for _ in 0..30 {
            for (port, own) in masters {
                play.send(*port, &packet(VIRTUAL, address(*own)));
            }
            play.wait(seconds(1));
        }
        play.read_maps();
    };
    let mut play = routers(&[3, 4]);
    advertise(&mut play, &[(3, 2), (4, 3)]);
    assert!(play.open().is_empty(), "it may be failing over");
    advertise(&mut play, &[(3, 2), (4, 3)]);
    let (incident, _) = only(&play);
    let ports: Vec<_> = incident.claimants.iter().filter_map(|one| one.ifindex).collect();
    assert_eq!((incident.kind, ports), (Kind::Flap, vec![3, 4]));
    // Its twin: one takes over from the other.
    let mut play = routers(&[3, 4]);
    for master in [(3, 2), (4, 3), (3, 2)] {
        advertise(&mut play, &[master]);
        advertise(&mut play, &[master]);
    }
    assert!(play.open().is_empty());
}

#[test]
fn who_answers_each_question_is_there_however_soon_the_next_one_is_due() {
    let mut play = Play::new(&[1, 2], &[]);
    play.set_quiet(seconds(1));
    play.send(1, &announce(mac(1), address(2)));
    play.send(2, &announce(mac(2), address(2)));
    for _ in 0..20 {
        play.wait(Duration::from_millis(1001));
    }
    assert!(only(&play).1);
}
