//! Macvlans over the bridge in other network namespaces (claims.md, "macvlan elsewhere").

use std::time::Duration;

use bytemuck::Zeroable as _;
use guard_ebpf::abi::{OWNED_LEASED, OWNED_MAC, Owned};

use super::world::{Play, address, mac};
use crate::{
    arbiter::Event,
    incident::{Kind, Role},
};

fn take(play: &mut Play, there: bool) {
    let changed = vec![(0, address(2).into(), mac(9))];
    play.world.above = there.then_some((address(2).into(), mac(9)));
    let (new, old) = if there { (changed, vec![]) } else { (vec![], changed) };
    play.handle(Event::Above { bridge: "br0".into(), new, old });
}

#[test]
fn a_macvlan_that_takes_what_is_bound_to_a_port_is_a_claimant_until_it_is_gone() {
    let mut play = Play::new(&[1], &[]);
    play.bind(address(2), Some((1, mac(1))));
    take(&mut play, true);
    // Nobody can ask it: it is there as long as its MAC is.
    play.wait(Duration::from_secs(600));
    let [incident] = &play.world.incidents.list(false)[..] else { panic!("{:?}", play.open()) };
    let sides = incident.claimants.iter().map(|claimant| (claimant.role, claimant.mac));
    let expected = [(Role::Owner, Some(mac(1))), (Role::Claimant, Some(mac(9)))];
    assert_eq!((incident.kind, sides.collect::<Vec<_>>()), (Kind::Duplicate, expected.to_vec()));
    take(&mut play, false);
    assert!(play.open().is_empty());
}

#[test]
fn a_macvlan_with_what_is_leased_to_its_mac_or_to_nobody_that_is_known_is_right() {
    let lease = Owned { generation: 1, flags: OWNED_LEASED, ..Owned::zeroed() };
    let own = Owned { mac: mac(9).0, flags: OWNED_LEASED | OWNED_MAC, ..lease };
    for lease in [lease, own] {
        let mut play = Play::new(&[1], &[]);
        play.bind_as(address(2), Some(lease));
        take(&mut play, true);
        assert!(play.open().is_empty(), "{lease:?}");
    }
}
