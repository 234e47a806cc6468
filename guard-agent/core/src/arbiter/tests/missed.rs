//! What was said while no agent ran: the program counts on, and the next agent reads it.

use std::time::Duration;

use bytemuck::Zeroable as _;
use guard_ebpf::abi::{AddressKey, Challenger, ChallengerKey, EVENT_VIOLATION};

use super::world::{BRIDGE, Play, address, mac};
use crate::{
    arbiter::{Event, Missed},
    incident::Kind,
};

/// Port 2 has claimed what is bound to port 1, ten minutes ago.
fn read(play: &mut Play, missed: Missed) {
    let key = AddressKey::new(BRIDGE, 0, address(2).into());
    let seen_ns = play.world.model.now_ns - 600_000_000_000;
    play.handle(Event::Challenger {
        key: ChallengerKey::new(&key, 2, mac(2).0, EVENT_VIOLATION),
        challenger: Challenger { seen_ns, frames: 1, ..Challenger::zeroed() },
        live: None,
        blocked: false,
        missed,
    });
}

#[test]
fn a01_who_took_an_address_while_no_agent_ran_is_told_and_over_when_it_does_not_answer() {
    for (missed, ports) in [
        (Missed::Yes, &[1, 2][..]),
        (Missed::Yes, &[1]),
        (Missed::Gone, &[1, 2]),
        (Missed::No, &[1, 2]),
    ] {
        let mut play = Play::new(ports, &[]);
        play.bind(address(2), Some((1, mac(1))));
        if ports.contains(&2) {
            play.answers(2, false);
        }
        read(&mut play, missed);
        let (open, told) = (play.open(), usize::from(missed != Missed::No));
        assert_eq!(open.len(), told, "{ports:?}");
        assert!(open.iter().all(|(kind, _)| *kind == Kind::Duplicate));
        // Another port may have the number by now.
        let accused = play
            .world
            .incidents
            .list(false)
            .iter()
            .any(|one| one.claimants.iter().any(|side| side.ifindex == Some(2)));
        assert_eq!(accused, missed == Missed::Yes && ports.contains(&2));
        play.wait(Duration::from_secs(10));
        assert!(play.open().is_empty(), "{:?}", play.open());
        assert_eq!(play.world.closed.len(), told);
    }
}

#[test]
fn a01_who_took_an_address_while_no_agent_ran_and_answers_is_open() {
    let mut play = Play::new(&[1, 2], &[]);
    play.bind(address(2), Some((1, mac(1))));
    read(&mut play, Missed::Yes);
    play.wait(Duration::from_secs(30));
    assert_eq!(play.open().len(), 1);
}
