//! Where an address is, and who has it when an incident is over.

use super::*;

/// With an outer and an inner tag (claims.md A29).
fn tagged(outer: u16, inner: u16, frame: &[u8]) -> Vec<u8> {
    let tags = [&[0x88, 0xa8][..], &outer.to_be_bytes(), &[0x81, 0], &inner.to_be_bytes()].concat();
    [&frame[..12], &tags, &frame[12..]].concat()
}

#[test]
fn a29_the_customers_of_a_provider_are_told_apart() {
    const OTHER_OWNER: [u8; 6] = [2, 0, 0, 0, 1, 0x0a];
    const OTHER_THIEF: [u8; 6] = [2, 0, 0, 0, 1, 0x0b];
    let both = |inner, owner, thief| {
        [
            (0, 0, tagged(100, inner, &announce(owner, ADDRESS))),
            (1, 0, tagged(100, inner, &announce(thief, ADDRESS))),
        ]
    };
    let sent = [both(1, OWNER, THIEF), both(2, OTHER_OWNER, OTHER_THIEF)].concat();
    let report = report(Format::Micro, &sent, &Settings::default());
    let places: Vec<_> = report
        .conflicts
        .iter()
        .map(|Disputed { inner_vlan, conflict }| {
            (conflict.vlan, *inner_vlan, conflict.claimants.len(), conflict.bridge.as_str())
        })
        .collect();
    assert_eq!(places, [(100, 1, 2, ""), (100, 2, 2, "")]);
    let claims: Vec<_> = report.claims.iter().map(|claim| (claim.vlan, claim.inner_vlan)).collect();
    assert_eq!(claims, [(100, 1), (100, 1), (100, 2), (100, 2)]);
}

#[test]
fn a29_one_address_with_two_customers_is_no_conflict() {
    let sent = [
        (0, 0, tagged(100, 1, &announce(OWNER, ADDRESS))),
        (1, 0, tagged(100, 2, &announce(THIEF, ADDRESS))),
        (2, 0, tagged(200, 1, &announce(THIEF, ADDRESS))),
        (3, 0, announce(ROUTER, ADDRESS)),
    ];
    for settings in [Settings::default(), ingress()] {
        let report = report(Format::Micro, &sent, &settings);
        assert_eq!((told(&report), report.claims.len()), (vec![], 4));
    }
}

#[test]
fn one_fail_over_is_one_incident_however_long_it_lasts() {
    let mut sent: Vec<Sent> = (0..5).map(|at| (at, 0, announce(OWNER, ADDRESS))).collect();
    sent.extend((5..905).map(|at| (at, 0, announce(THIEF, ADDRESS))));
    let report = report(Format::Micro, &sent, &Settings::default());
    let told = told(&report);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(!report.conflicts[0].conflict.open);
    // The first was there from the first frame on.
    let since = report.conflicts[0].conflict.claimants[0].first_seen.unwrap();
    assert_eq!(since.seconds, 1_700_000_000);
}

#[test]
fn after_a_fail_over_a_third_is_another_incident() {
    let third = [2, 0, 0, 0, 0, 0x0c];
    let mut sent: Vec<Sent> = vec![(0, 0, announce(OWNER, ADDRESS))];
    sent.extend((5..905).map(|at| (at, 0, announce(THIEF, ADDRESS))));
    sent.push((905, 0, announce(third, ADDRESS)));
    let report = report(Format::Micro, &sent, &Settings::default());
    let told = told(&report);
    assert_eq!(told.len(), 2, "{told:?}");
    let macs: Vec<_> = told[1].2.iter().map(|claimant| claimant.split(' ').nth(1)).collect();
    assert_eq!(macs, [Some("02:00:00:00:00:0b"), Some("02:00:00:00:00:0c")]);
}
