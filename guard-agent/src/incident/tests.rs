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
