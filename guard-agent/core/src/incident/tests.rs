use std::num::NonZeroU32;

use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::{evidence::Source, mac::Mac, owner::Owner};

const QUIET: Duration = Duration::from_secs(60);
const WINDOW: Duration = Duration::from_secs(30);

fn at(seconds: u64) -> Now {
    let wall = Timestamp::from_second(1_700_000_000 + i64::try_from(seconds).unwrap()).unwrap();
    Now { boot: Duration::from_secs(seconds), wall }
}

fn claimant(role: Role, port: u32, now: Now) -> Claimant {
    Claimant {
        role,
        mac: Some(Mac([2, 0, 0, 0, 0, u8::try_from(port).unwrap()])),
        interface: Some(format!("v{port}").into()),
        ifindex: Some(port),
        owner: None,
        first_seen: now.wall,
        last_seen: now.wall,
        last: now.boot,
        frames: 1,
        dropped: 0,
        is_dropped: false,
        counter: 0,
        gone: false,
    }
}

/// Closes what is over, where nobody who is asked answers.
fn close(incidents: &mut Incidents, now: Now) -> Vec<Incident> {
    let silent = incidents.silent(now);
    let gone = silent.into_iter().filter_map(|Silent { segment, target, mac, ifindex, .. }| {
        incidents.gone(&(segment, target), (mac, ifindex), now)
    });
    let over: Vec<_> = gone.collect();
    over.into_iter().chain(incidents.close(now)).collect()
}

#[test]
fn who_is_dropped_is_counted_is_not_asked_and_is_gone_after_quiet() {
    let mut incidents = incidents();
    let dropped = |second| {
        let mut sighting = duplicate(2, at(second));
        sighting.challenger.is_dropped = true;
        sighting
    };
    let (_, opened) = incidents.sighted(dropped(0), at(0)).unwrap();
    assert!(opened.is_dropped() && opened.severity() == Severity::Info, "{opened:?}");
    let mut again = dropped(5);
    again.challenger.frames = 7;
    assert_eq!(incidents.sighted(again, at(5)), None);
    let known = &incidents.list(false)[0].claimants[1];
    assert_eq!((known.frames, known.dropped), (7, 7));
    let quiet = 5 + QUIET.as_secs() - 1;
    assert_eq!((incidents.silent(at(quiet)), incidents.close(at(quiet)).len()), (vec![], 0));
    assert_eq!(incidents.silent(at(quiet + 1)), []);
    assert_eq!(incidents.close(at(quiet + 1)).len(), 1);
    // Whose frames arrive is as bad as ever, and so is who wants to be the gateway.
    let (_, passes) = incidents.sighted(duplicate(3, at(500)), at(500)).unwrap();
    assert!(!passes.is_dropped() && passes.severity() == Severity::Warning);
    let gateway = Sighting { kind: Kind::Gateway, ..dropped(900) };
    let (_, gateway) = incidents.sighted(gateway, at(900)).unwrap();
    assert_eq!((gateway.is_dropped(), gateway.severity()), (false, Severity::Critical));
}

fn incidents() -> Incidents {
    Incidents::new(QUIET, Flaps::new(WINDOW, NonZeroU32::new(2).unwrap()), 1)
}

fn duplicate(port: u32, now: Now) -> Sighting {
    Sighting {
        segment: Segment::new("rt0", 0),
        target: Target::Address(IpAddr::from([10, 8, 64, 2])),
        kind: Kind::Duplicate,
        mild: false,
        critical: false,
        holder: Some(claimant(Role::Owner, 1, now)),
        challenger: claimant(Role::Impostor, port, now),
        detail: None,
        unanswered: false,
    }
}

#[test]
fn the_first_frame_opens_and_later_ones_only_count() {
    let mut incidents = incidents();
    let (phase, incident) = incidents.sighted(duplicate(2, at(0)), at(0)).unwrap();
    assert_eq!((phase, incident.claimants.len()), (Phase::Opened, 2));
    assert_eq!(incidents.sighted(duplicate(2, at(1)), at(1)), None);
    let (phase, incident) = incidents.sighted(duplicate(3, at(2)), at(2)).unwrap();
    assert_eq!((phase, incident.claimants.len()), (Phase::Changed, 3));
    assert_eq!(incidents.list(false).len(), 1);
}

#[test]
fn it_closes_when_the_impostor_is_quiet_though_the_owner_never_speaks() {
    let mut incidents = incidents();
    incidents.sighted(duplicate(2, at(0)), at(0));
    incidents.sighted(duplicate(2, at(50)), at(50));
    assert!(close(&mut incidents, at(109)).is_empty());
    assert_eq!(close(&mut incidents, at(110)).len(), 1);
    assert!(incidents.list(false).is_empty());
    assert!(incidents.list(true)[0].closed_at.is_some());
}

/// claims.md A14.
fn off_prefix(port: u32, now: Now) -> Sighting {
    let holder = Some(claimant(Role::Claimant, 1, now));
    let challenger = claimant(Role::Claimant, port, now);
    Sighting { mild: true, holder, challenger, ..duplicate(port, now) }
}

#[test]
fn what_hurts_nobody_is_told_once_an_hour_however_often_it_opens() {
    let mut incidents = incidents();
    let mut told = Vec::new();
    for minute in 0..130 {
        let now = at(minute * 60);
        told.extend(incidents.end_silences(now).iter().map(|_| minute));
        if let Some((Phase::Opened, incident)) = incidents.sighted(off_prefix(2, now), now) {
            assert_eq!(incident.severity(), Severity::Info);
            told.extend(incident.told.then_some(minute));
        }
        incidents.port_gone(2, now);
    }
    assert_eq!(told, [0, 60, 120]);
    // One that lasts is told when the hour is over.
    incidents.sighted(off_prefix(2, at(130 * 60)), at(130 * 60));
    assert!(incidents.end_silences(at(170 * 60)).is_empty());
    assert_eq!(incidents.end_silences(at(180 * 60)).len(), 1);
}

#[test]
fn what_hurts_somebody_after_all_is_told_at_once() {
    let mut incidents = incidents();
    incidents.sighted(off_prefix(2, at(0)), at(0));
    incidents.port_gone(2, at(1));
    let (_, untold) = incidents.sighted(off_prefix(3, at(2)), at(2)).unwrap();
    assert!(!untold.told);
    let (phase, worse) = incidents.sighted(duplicate(3, at(3)), at(3)).unwrap();
    assert_eq!((phase, worse.severity()), (Phase::Changed, Severity::Warning));
    assert_eq!(incidents.end_silences(at(3)).len(), 1);
    let now = at(4);
    assert_eq!(incidents.sighted(off_prefix(3, now), now), None);
    assert_eq!(incidents.list(false)[0].severity(), Severity::Warning, "it stays the worst");
}

#[test]
fn it_closes_when_one_side_is_gone() {
    for port in [1, 2] {
        let mut incidents = incidents();
        incidents.sighted(duplicate(2, at(0)), at(0));
        assert_eq!(incidents.port_gone(port, at(1)).len(), 1, "port {port}");
    }
}

#[test]
fn a_gateway_incident_is_critical_and_lasts_as_long_as_its_one_claimant() {
    let mut incidents = incidents();
    let sighting = Sighting { kind: Kind::Gateway, holder: None, ..duplicate(2, at(0)) };
    let (_, incident) = incidents.sighted(sighting, at(0)).unwrap();
    assert_eq!(incident.kind.severity(), Severity::Critical);
    assert!(close(&mut incidents, at(59)).is_empty());
    assert_eq!(close(&mut incidents, at(60)).len(), 1);
}

#[test]
fn the_worst_kind_stands() {
    let mut incidents = incidents();
    incidents.sighted(duplicate(2, at(0)), at(0));
    let gateway = Sighting { kind: Kind::Gateway, ..duplicate(2, at(1)) };
    assert_eq!(incidents.sighted(gateway, at(1)).unwrap().0, Phase::Changed);
    assert_eq!(incidents.sighted(duplicate(2, at(2)), at(2)), None);
    assert_eq!(incidents.list(false)[0].kind, Kind::Gateway);
}

fn moved(incidents: &mut Incidents, from: u32, to: u32, seconds: u64) -> Option<(Phase, Incident)> {
    let now = at(seconds);
    let (from, to) =
        (claimant(Role::Claimant, from, at(seconds - 1)), claimant(Role::Claimant, to, now));
    let address = IpAddr::from([10, 8, 64, 2]);
    incidents.moved(&Segment::new("rt0", 0), address, (Some(&from), &to), false, now)
}

#[test]
fn a35_an_address_that_went_back_twice_is_one_flap_incident() {
    let mut incidents = incidents();
    assert_eq!(moved(&mut incidents, 1, 2, 10), None);
    assert_eq!(moved(&mut incidents, 2, 1, 12), None, "once is not enough");
    let (phase, incident) = moved(&mut incidents, 1, 2, 14).unwrap();
    assert_eq!((phase, incident.kind, incident.flaps), (Phase::Opened, Kind::Flap, 2));
    assert_eq!(incident.claimants.len(), 2);
    assert_eq!(moved(&mut incidents, 2, 1, 16), None, "one alert, then it counts");
    assert_eq!(incidents.list(false)[0].flaps, 3);
    assert!(close(&mut incidents, at(73)).is_empty(), "the last turn of port 2 was at 14");
    assert_eq!(close(&mut incidents, at(74)).len(), 1);
}

#[test]
fn a35_moves_that_go_on_or_come_back_late_are_no_flap() {
    let mut incidents = incidents();
    for (from, to, at) in [(1, 2, 10), (2, 3, 11), (3, 4, 12), (4, 5, 13), (5, 6, 14)] {
        assert_eq!(moved(&mut incidents, from, to, at), None, "{to}");
    }
    for (from, to, at) in [(6, 7, 20), (7, 6, 51), (6, 7, 82), (7, 6, 113)] {
        close(&mut incidents, self::at(at));
        assert_eq!(moved(&mut incidents, from, to, at), None, "at {at}");
    }
}

#[test]
fn a08_an_owner_that_defends_itself_counts_as_a_flap_of_the_same_incident() {
    let mut incidents = incidents();
    let segment = Segment::new("rt0", 0);
    let address = IpAddr::from([10, 8, 64, 2]);
    // The frame is older than its sighting, at which the owner is looked up.
    let challenger = claimant(Role::Impostor, 2, at(1));
    incidents.sighted(Sighting { challenger, ..duplicate(2, at(2)) }, at(2));
    incidents.spoke(&segment, address, &claimant(Role::Owner, 1, at(3)));
    incidents.spoke(&segment, address, &claimant(Role::Owner, 1, at(4)));
    assert_eq!(incidents.list(false)[0].flaps, 1);
    incidents.sighted(duplicate(2, at(5)), at(5));
    incidents.sighted(duplicate(2, at(3)), at(5));
    let incident = &incidents.list(false)[0];
    assert_eq!((incident.kind, incident.flaps), (Kind::Duplicate, 2));
}

#[test]
fn rule_12_a_port_that_tries_mac_after_mac_fills_no_incident_and_keeps_it_open() {
    let mut incidents = incidents();
    for number in 0..100 {
        let mut sighting = duplicate(2, at(u64::from(number)));
        sighting.challenger.mac = Some(Mac([2, 0, 0, 0, 1, number]));
        incidents.sighted(sighting, at(u64::from(number)));
    }
    let incident = &incidents.list(false)[0];
    assert_eq!(incident.claimants.len(), 1 + 4, "the owner, and four of the port's MACs");
    let frames: u64 = incident.claimants.iter().map(|claimant| claimant.frames).sum();
    assert_eq!(frames, 1 + 100);
    assert!(close(&mut incidents, at(158)).is_empty());
    assert_eq!(close(&mut incidents, at(159)).len(), 1);
}

#[test]
fn what_a_port_does_lasts_until_ten_minutes_without_it_or_its_end() {
    for (kind, gone) in Kind::ALL.into_iter().flat_map(|kind| [(kind, false), (kind, true)]) {
        if !kind.is_of_port() {
            continue;
        }
        let mut incidents = incidents();
        let target = Target::Port(2);
        let sighting = Sighting { kind, target, holder: None, ..duplicate(2, at(0)) };
        assert_eq!(incidents.sighted(sighting.clone(), at(0)).unwrap().0, Phase::Opened);
        let later = Sighting { challenger: claimant(Role::Impostor, 2, at(5)), ..sighting };
        assert_eq!(incidents.sighted(later, at(5)), None);
        assert!(close(&mut incidents, at(604)).is_empty());
        let closed =
            if gone { incidents.port_gone(2, at(604)) } else { close(&mut incidents, at(605)) };
        assert_eq!(closed.len(), 1);
    }
}

/// What opened under a silence, told once that has ended.
fn due(incidents: &mut Incidents, seconds: u64) -> Vec<u64> {
    incidents.end_silences(at(seconds)).iter().map(|incident| incident.id).collect()
}

#[test]
fn a_silence_covers_what_opens_while_it_lasts_and_what_lasts_longer_is_told() {
    let mut incidents = incidents();
    incidents.sighted(duplicate(2, at(0)), at(0));
    let silenced = incidents.silence(1, Duration::from_secs(200), at(1)).unwrap();
    assert_eq!(silenced.silenced_until, Some(at(201).wall));
    assert!(close(&mut incidents, at(100))[0].told, "it was told before");
    let (phase, second) = incidents.sighted(duplicate(2, at(150)), at(150)).unwrap();
    assert_eq!((phase, second.id, second.told), (Phase::Opened, 2, false));
    assert_eq!(second.silenced_until, Some(at(201).wall));
    assert!(due(&mut incidents, 200).is_empty());
    assert_eq!(due(&mut incidents, 201), [2]);
    assert!(due(&mut incidents, 202).is_empty(), "once");
    assert_eq!(incidents.list(false)[0].silenced_until, None);
    assert!(incidents.silence(7, QUIET, at(203)).is_none(), "there is no such incident");
}

#[test]
fn what_is_worse_than_what_was_silenced_is_told() {
    let mut incidents = incidents();
    incidents.sighted(duplicate(2, at(0)), at(0));
    incidents.silence(1, Duration::from_secs(900), at(1));
    let gateway = |second| Sighting { kind: Kind::Gateway, ..duplicate(2, at(second)) };
    let (_, worse) = incidents.sighted(gateway(2), at(2)).unwrap();
    assert_eq!((worse.silenced_until, worse.told), (None, true));

    incidents.silence(1, Duration::from_secs(900), at(3));
    incidents.settled(&Segment::new("rt0", 0), Target::Address([10, 8, 64, 2].into()), at(100));
    let (_, known) = incidents.sighted(duplicate(2, at(201)), at(201)).unwrap();
    assert!(!known.told && due(&mut incidents, 201).is_empty());
    let (_, as_bad) = incidents.sighted(gateway(202), at(202)).unwrap();
    assert!(!as_bad.told, "no worse than what was silenced");
}

#[test]
fn a_worse_incident_that_opens_under_a_silence_ends_it() {
    let mut incidents = incidents();
    let flap = Sighting { kind: Kind::Flap, ..duplicate(2, at(0)) };
    incidents.sighted(flap.clone(), at(0));
    incidents.silence(1, Duration::from_secs(900), at(1));
    close(&mut incidents, at(100));
    incidents.sighted(flap, at(201));
    assert!(due(&mut incidents, 201).is_empty());
    incidents.sighted(duplicate(2, at(202)), at(202));
    assert_eq!(due(&mut incidents, 202), [2]);
}

#[test]
fn a_silence_survives_a_restart_and_no_longer_than_it_was_to_last() {
    let mut before = incidents();
    before.sighted(duplicate(2, at(0)), at(0));
    before.silence(1, Duration::from_secs(200), at(0));
    let closed = close(&mut before, at(100));
    for (restart, silent) in [(199, true), (200, false)] {
        let mut after = incidents();
        after.restore(closed.clone(), at(restart));
        let (_, second) = after.sighted(duplicate(2, at(restart)), at(restart)).unwrap();
        assert_eq!((second.id, second.told), (2, !silent));
    }
}

#[test]
fn a_step_of_the_wall_clock_neither_ends_nor_prolongs_a_silence_over_a_restart() {
    let mut before = incidents();
    before.sighted(duplicate(2, at(0)), at(0));
    before.silence(1, Duration::from_secs(200), at(0));
    let closed = close(&mut before, at(100));
    for (restart, wall, silent) in [(199, 900, true), (200, 0, false)] {
        let now = Now { wall: at(wall).wall, ..at(restart) };
        let mut after = incidents();
        after.restore(closed.clone(), now);
        assert_eq!(after.sighted(duplicate(2, now), now).unwrap().1.told, !silent);
    }
}

#[test]
fn a_silence_of_no_length_ends_one() {
    let mut incidents = incidents();
    incidents.sighted(duplicate(2, at(0)), at(0));
    incidents.silence(1, Duration::from_secs(900), at(1));
    assert_eq!(incidents.silence(1, Duration::ZERO, at(2)).unwrap().silenced_until, None);
    close(&mut incidents, at(100));
    assert!(incidents.sighted(duplicate(2, at(101)), at(101)).unwrap().1.told);
}

proptest! {
    /// Whatever is seen in whatever order: one incident for an address, at least two sides while
    /// it is open, and every one that opened is open or closed.
    #[test]
    fn open_incidents_have_two_sides(steps in prop::collection::vec((0u32..6, 0u64..90, any::<bool>()), 1..60)) {
        let mut incidents = incidents();
        let (mut time, mut opened) = (0, 0);
        for (port, wait, gone) in steps {
            time += wait;
            let now = at(time);
            close(&mut incidents, now);
            if gone {
                incidents.port_gone(port, now);
            } else if port > 1 {
                let change = incidents.sighted(duplicate(port, now), now);
                opened += usize::from(matches!(change, Some((Phase::Opened, _))));
            }
            for incident in incidents.list(false) {
                prop_assert!(!incident.is_over(now));
            }
            prop_assert!(incidents.list(false).len() <= 1);
            prop_assert_eq!(incidents.list(true).len(), opened);
        }
    }
}

#[test]
fn what_sources_say_lasts_as_long_as_they_do() {
    let address = IpAddr::from([10, 0, 0, 2]);
    let segment = Segment::new("br0", 0);
    let named = |names: &[&str]| -> Vec<Named> {
        let owner = |name: &&str| Owner { sandbox: (*name).into(), lifecycle: "".into() };
        let named = |name| Named { owner: owner(name), role: Role::Claimant };
        names.iter().map(named).collect()
    };
    let mut incidents = incidents();
    assert_eq!(incidents.disputed(&segment, address, &named(&["a"]), at(0)), None);
    let opened = incidents.disputed(&segment, address, &named(&["a", "b"]), at(0)).unwrap();
    assert_eq!(
        (opened.0, opened.1.kind, opened.1.claimants.len()),
        (Phase::Opened, Kind::Duplicate, 2)
    );
    assert_eq!(incidents.disputed(&segment, address, &named(&["a", "b"]), at(1)), None, "told");
    let changed = incidents.disputed(&segment, address, &named(&["a", "b", "c"]), at(2)).unwrap();
    assert_eq!((changed.0, changed.1.claimants.len()), (Phase::Changed, 3));
    // Not by silence, and not before the inventory has been read.
    assert!(close(&mut incidents, at(100_000)).is_empty());
    assert_eq!(incidents.disputed(&segment, address, &named(&["a"]), at(3)), None);
    assert_eq!(incidents.listed(), [(segment.clone(), address)]);
    assert!(incidents.unreadable(Source::Inventory, &[], at(3)).is_empty());
    // More than can be told apart come and go.
    let many: Vec<String> = (0..20).map(|number| format!("s{number}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    incidents.disputed(&segment, address, &named(&many), at(4));
    incidents.disputed(&segment, address, &named(&many[18..]), at(5));
    assert!(close(&mut incidents, at(100_000)).is_empty(), "two are left");
    let over = incidents.disputed(&segment, address, &named(&many[19..]), at(6)).unwrap();
    assert_eq!((over.0, over.1.closed_at.is_some()), (Phase::Closed, true));
    assert!(incidents.list(false).is_empty());
}

#[test]
fn whom_a_rule_leaves_an_address_to_is_nobody_that_a_source_lists() {
    let mut incidents = incidents();
    incidents.unreadable(Source::Inventory, &[], at(0));
    let anybody =
        Claimant { mac: None, interface: None, ifindex: None, ..claimant(Role::Owner, 1, at(0)) };
    let sighting = Sighting { holder: Some(anybody), ..duplicate(2, at(0)) };
    incidents.sighted(sighting.clone(), at(0)).unwrap();
    let Sighting { segment, target: Target::Address(address), .. } = sighting else { panic!() };
    assert_eq!(incidents.disputed(&segment, address, &[], at(1)), None);
    assert_eq!(incidents.list(false).len(), 1);
}

#[test]
fn a_side_that_is_listed_and_on_the_wire_is_one() {
    let mut incidents = incidents();
    incidents.unreadable(Source::Inventory, &[], at(0));
    let owner = |name: &str| Owner { sandbox: name.into(), lifecycle: "".into() };
    let with = |name: &str, claimant: Claimant| Claimant { owner: Some(owner(name)), ..claimant };
    let sighting = Sighting {
        holder: Some(with("a", claimant(Role::Owner, 1, at(0)))),
        challenger: with("b", claimant(Role::Impostor, 2, at(0))),
        detail: None,
        ..duplicate(2, at(0))
    };
    incidents.sighted(sighting.clone(), at(0)).unwrap();
    let Sighting { segment, target: Target::Address(address), .. } = sighting else { panic!() };
    let named = |name: &str, role| Named { owner: owner(name), role };
    let both = [named("a", Role::Owner), named("b", Role::Impostor)];
    let (phase, _) = incidents.disputed(&segment, address, &both, at(1)).unwrap();
    assert_eq!(phase, Phase::Changed);
    // The wire is quiet, and the label is there.
    assert!(close(&mut incidents, at(1000)).is_empty());
    // The label is gone too: the owner alone is no dispute, though it is listed and bound.
    let (phase, _) = incidents.disputed(&segment, address, &both[..1], at(1000)).unwrap();
    assert_eq!(phase, Phase::Closed);
}
