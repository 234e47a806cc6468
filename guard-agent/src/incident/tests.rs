use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::mac::Mac;

const QUIET: Duration = Duration::from_secs(60);

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
        gone: false,
    }
}

fn duplicate(port: u32, now: Now) -> Sighting {
    Sighting {
        segment: Segment::new("rt0", 0),
        target: Target::Address(IpAddr::from([10, 8, 64, 2])),
        kind: Kind::Duplicate,
        holder: Some(claimant(Role::Owner, 1, now)),
        challenger: claimant(Role::Impostor, port, now),
    }
}

#[test]
fn the_first_frame_opens_and_later_ones_only_count() {
    let mut incidents = Incidents::new(QUIET, 1);
    let (phase, incident) = incidents.sighted(duplicate(2, at(0)), at(0)).unwrap();
    assert_eq!((phase, incident.claimants.len()), (Phase::Opened, 2));
    assert_eq!(incidents.sighted(duplicate(2, at(1)), at(1)), None);
    let (phase, incident) = incidents.sighted(duplicate(3, at(2)), at(2)).unwrap();
    assert_eq!((phase, incident.claimants.len()), (Phase::Changed, 3));
    assert_eq!(incidents.list(false).len(), 1);
}

#[test]
fn it_closes_when_the_impostor_is_quiet_though_the_owner_never_speaks() {
    let mut incidents = Incidents::new(QUIET, 1);
    incidents.sighted(duplicate(2, at(0)), at(0));
    incidents.sighted(duplicate(2, at(50)), at(50));
    assert!(incidents.close(at(109)).is_empty());
    assert_eq!(incidents.close(at(110)).len(), 1);
    assert!(incidents.list(false).is_empty());
    assert!(incidents.list(true)[0].closed_at.is_some());
}

#[test]
fn it_closes_when_one_side_is_gone() {
    for port in [1, 2] {
        let mut incidents = Incidents::new(QUIET, 1);
        incidents.sighted(duplicate(2, at(0)), at(0));
        assert_eq!(incidents.port_gone(port, at(1)).len(), 1, "port {port}");
    }
}

#[test]
fn a_gateway_incident_is_critical_and_lasts_as_long_as_its_one_claimant() {
    let mut incidents = Incidents::new(QUIET, 1);
    let sighting = Sighting { kind: Kind::Gateway, holder: None, ..duplicate(2, at(0)) };
    let (_, incident) = incidents.sighted(sighting, at(0)).unwrap();
    assert_eq!(incident.kind.severity(), Severity::Critical);
    assert!(incidents.close(at(59)).is_empty());
    assert_eq!(incidents.close(at(60)).len(), 1);
}

#[test]
fn the_worst_kind_stands() {
    let mut incidents = Incidents::new(QUIET, 1);
    incidents.sighted(duplicate(2, at(0)), at(0));
    let gateway = Sighting { kind: Kind::Gateway, ..duplicate(2, at(1)) };
    assert_eq!(incidents.sighted(gateway, at(1)).unwrap().0, Phase::Changed);
    assert_eq!(incidents.sighted(duplicate(2, at(2)), at(2)), None);
    assert_eq!(incidents.list(false)[0].kind, Kind::Gateway);
}

/// What opened under a silence, told once that has ended.
fn due(incidents: &mut Incidents, seconds: u64) -> Vec<u64> {
    incidents.end_silences(at(seconds)).iter().map(|incident| incident.id).collect()
}

#[test]
fn a_silence_covers_what_opens_while_it_lasts_and_what_lasts_longer_is_told() {
    let mut incidents = Incidents::new(QUIET, 1);
    incidents.sighted(duplicate(2, at(0)), at(0));
    let silenced = incidents.silence(1, Duration::from_secs(200), at(1)).unwrap();
    assert_eq!(silenced.silenced_until, Some(at(201).wall));
    assert!(incidents.close(at(100))[0].told, "it was told before");
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
    let mut incidents = Incidents::new(QUIET, 1);
    incidents.sighted(duplicate(2, at(0)), at(0));
    incidents.silence(1, Duration::from_secs(900), at(1));
    let gateway = |second| Sighting { kind: Kind::Gateway, ..duplicate(2, at(second)) };
    let (_, worse) = incidents.sighted(gateway(2), at(2)).unwrap();
    assert_eq!((worse.silenced_until, worse.told), (None, true));

    incidents.silence(1, Duration::from_secs(900), at(3));
    incidents.settled(&Segment::new("rt0", 0), IpAddr::from([10, 8, 64, 2]), at(100));
    let (_, known) = incidents.sighted(duplicate(2, at(101)), at(101)).unwrap();
    assert!(!known.told && due(&mut incidents, 101).is_empty());
    let (_, as_bad) = incidents.sighted(gateway(102), at(102)).unwrap();
    assert!(!as_bad.told, "no worse than what was silenced");
}

#[test]
fn a_worse_incident_that_opens_under_a_silence_ends_it() {
    let mut incidents = Incidents::new(QUIET, 1);
    let flap = Sighting { kind: Kind::Flap, ..duplicate(2, at(0)) };
    incidents.sighted(flap.clone(), at(0));
    incidents.silence(1, Duration::from_secs(900), at(1));
    incidents.close(at(100));
    incidents.sighted(flap, at(101));
    assert!(due(&mut incidents, 101).is_empty());
    incidents.sighted(duplicate(2, at(102)), at(102));
    assert_eq!(due(&mut incidents, 102), [2]);
}

#[test]
fn a_silence_survives_a_restart_and_no_longer_than_it_was_to_last() {
    let mut before = Incidents::new(QUIET, 1);
    before.sighted(duplicate(2, at(0)), at(0));
    before.silence(1, Duration::from_secs(200), at(0));
    let closed = before.close(at(100));
    for (restart, silent) in [(199, true), (200, false)] {
        let mut after = Incidents::new(QUIET, 1);
        after.restore(closed.clone(), at(restart));
        let (_, second) = after.sighted(duplicate(2, at(restart)), at(restart)).unwrap();
        assert_eq!((second.id, second.told), (2, !silent));
    }
}

#[test]
fn a_silence_of_no_length_ends_one() {
    let mut incidents = Incidents::new(QUIET, 1);
    incidents.sighted(duplicate(2, at(0)), at(0));
    incidents.silence(1, Duration::from_secs(900), at(1));
    assert_eq!(incidents.silence(1, Duration::ZERO, at(2)).unwrap().silenced_until, None);
    incidents.close(at(100));
    assert!(incidents.sighted(duplicate(2, at(101)), at(101)).unwrap().1.told);
}

proptest! {
    /// Whatever is seen in whatever order: one incident for an address, at least two sides while
    /// it is open, and every one that opened is open or closed.
    #[test]
    fn open_incidents_have_two_sides(steps in prop::collection::vec((0u32..6, 0u64..90, any::<bool>()), 1..60)) {
        let mut incidents = Incidents::new(QUIET, 1);
        let (mut time, mut opened) = (0, 0);
        for (port, wait, gone) in steps {
            time += wait;
            let now = at(time);
            incidents.close(now);
            if gone {
                incidents.port_gone(port, now);
            } else if port > 1 {
                let change = incidents.sighted(duplicate(port, now), now);
                opened += usize::from(matches!(change, Some((Phase::Opened, _))));
            }
            for incident in incidents.list(false) {
                prop_assert!(incident.disputants(QUIET, now) >= 2);
            }
            prop_assert!(incidents.list(false).len() <= 1);
            prop_assert_eq!(incidents.list(true).len(), opened);
        }
    }
}
