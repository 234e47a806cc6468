//! Questions that cannot be sent (claims.md, "Conflict"): nobody can have answered them.

use std::time::Duration;

use super::world::{Play, address, announce, mac};
use crate::incident::{Incident, Severity};

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Port 1 has the address and falls silent; its queue takes questions, or not.
fn silent_holder(takes: bool) -> Play {
    let mut play = Play::new(&[1, 2], &[]);
    play.send(1, &announce(mac(1), address(2)));
    play.answers(1, false);
    play.world.ports.get_mut(&1).unwrap().takes = takes;
    play
}

#[test]
fn a34_a_holder_whom_no_question_reached_is_not_taken_for_one_that_does_not_answer() {
    for (takes, severity) in [(true, Severity::Info), (false, Severity::Warning)] {
        let mut play = silent_holder(takes);
        play.wait(seconds(1));
        play.send(2, &announce(mac(2), address(2)));
        play.wait(seconds(3));
        let open = play.world.incidents.list(false);
        let severities: Vec<_> = open.iter().map(Incident::severity).collect();
        assert_eq!(severities, [severity], "{takes}");
    }
}

#[test]
fn a34_a_claim_that_ages_is_not_over_until_its_station_could_be_asked() {
    let mut play = silent_holder(false);
    let has = |play: &Play| play.world.evidence.values().any(|claims| claims.contains_key(&1));
    play.wait(seconds(301));
    for _ in 0..10 {
        play.read_maps();
        play.wait(seconds(2));
    }
    assert!(has(&play));
    play.world.ports.get_mut(&1).unwrap().takes = true;
    for _ in 0..10 {
        play.read_maps();
        play.wait(seconds(2));
    }
    assert!(!has(&play));
}
