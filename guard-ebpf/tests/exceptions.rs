//! What an exception opens, and what it never does (enforce.md, "Exceptions").

use guard_ebpf::{
    abi::{
        AddressKey, CLOSED_IPV4, EXCEPT_OWNED, EXCEPT_UNOWNED, EXCEPT_VIRTUAL, GOVERNED, MAC_BOUND,
        MacHolder, MacKey, ON_LINK, OWNED_GATEWAY, OWNED_LEASED, OWNED_MAC, OWNED_PORT, Owned,
        PORT_ACCESS, Policy, Port, PortMac, Prefix, STATION_BOUND, STATION_EXCEPTED,
    },
    model::Model,
};

const HERE: u32 = 7;
const ELSEWHERE: u32 = 8;
const BRIDGE: u32 = 3;
const OWN: [u8; 6] = [2, 0, 0, 0, 0, 0x0a];
const FURTHER: [u8; 6] = [2, 0x42, 0xac, 0, 0, 1];
const VIRTUAL: [u8; 6] = [0, 0, 0x5e, 0, 1, 7];

/// An announcement of an address by ARP.
fn announces(mac: [u8; 6], last: u8) -> Vec<u8> {
    let address = [10, 8, 64, last];
    let head = [0xff; 6].into_iter().chain(mac).chain([0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1]);
    head.chain(mac).chain(address).chain([0; 6]).chain(address).collect()
}

fn key(last: u8) -> AddressKey {
    AddressKey::new(BRIDGE, 0, [10, 8, 64, last].into())
}

/// A bound port in a governed prefix, with everything that can drop.
struct World(Model, Port);

impl World {
    fn new() -> Self {
        let mut model = Model::new(1 << 40);
        let (on_link, governed) = (ON_LINK, GOVERNED);
        let prefix = Prefix { on_link, governed, ..Prefix::default() };
        model.add_prefix(key(0), key(0).prefix_len(24), prefix);
        model.policy =
            Policy { ifindex: HERE, drops: u32::MAX, closed: CLOSED_IPV4, ..Policy::default() };
        model.mode.enforce = 1;
        let port = Port {
            ifindex: HERE,
            bridge: BRIDGE,
            kind: PORT_ACCESS,
            bridge_mac: [2, 0, 0, 0, 0, 0xff],
            ..bytemuck::Zeroable::zeroed()
        };
        let mut world = Self(model, port);
        world.own(2, HERE, OWN);
        world
    }

    fn own(&mut self, last: u8, ifindex: u32, mac: [u8; 6]) {
        let flags = OWNED_LEASED | OWNED_MAC | OWNED_PORT;
        let owned = Owned { generation: 1, seen_ns: 0, ifindex, mac, flags, homes: 0 };
        self.0.owned.insert(key(last), owned);
        self.0.bound_macs.insert(PortMac::new(ifindex, mac), STATION_BOUND);
        self.0.macs.insert(MacKey::new(BRIDGE, 0, mac), MacHolder { ifindex, flags: MAC_BOUND });
    }

    fn except(&mut self, last: u8, len: u8, bits: u32) {
        self.0.except(HERE, &key(last), key(last).prefix_len(len), bits);
    }

    fn passes(&self, frame: &[u8]) -> bool {
        !self.0.clone().watch(frame, &self.1)
    }
}

#[test]
fn a_further_address_is_the_ports_unless_another_has_it() {
    let mut world = World::new();
    world.own(4, ELSEWHERE, [2, 0, 0, 0, 0, 0x0b]);
    let flags = OWNED_GATEWAY;
    let gateway = Owned { generation: 0, seen_ns: 0, ifindex: 0, mac: [0; 6], flags, homes: 0 };
    world.0.owned.insert(key(1), gateway);
    assert!(world.passes(&announces(OWN, 2)) && !world.passes(&announces(OWN, 9)));
    world.except(0, 24, EXCEPT_UNOWNED);
    assert!(world.passes(&announces(OWN, 9)));
    assert!(!world.passes(&announces(OWN, 4)) && !world.passes(&announces(OWN, 1)));
    world.except(0, 24, EXCEPT_UNOWNED | EXCEPT_OWNED);
    assert!(world.passes(&announces(OWN, 4)) && !world.passes(&announces(OWN, 1)));
    // With a MAC that is not the port's it drops for that.
    assert!(!world.passes(&announces(FURTHER, 9)));
}

#[test]
fn a_further_mac_is_the_ports_unless_it_is_bound_to_another() {
    for station in [PortMac::new(HERE, FURTHER), PortMac::vendor(HERE, FURTHER)] {
        let mut world = World::new();
        world.except(9, 32, EXCEPT_UNOWNED);
        assert!(!world.passes(&announces(FURTHER, 9)));
        world.0.bound_macs.insert(station, STATION_EXCEPTED);
        assert!(world.passes(&announces(FURTHER, 9)));
        assert!(!world.passes(&announces(FURTHER, 8)), "its address is judged");
        world.own(8, ELSEWHERE, FURTHER);
        assert!(!world.passes(&announces(FURTHER, 9)), "it is bound to another");
    }
}

#[test]
fn a_mac_of_a_group_is_the_ports_also_where_it_is_bound_to_another() {
    let mut world = World::new();
    world.own(8, ELSEWHERE, FURTHER);
    world.0.bound_macs.insert(PortMac::new(HERE, FURTHER), STATION_BOUND);
    assert!(!world.passes(&announces(FURTHER, 8)));
    world.except(8, 32, EXCEPT_OWNED);
    assert!(world.passes(&announces(FURTHER, 8)));
}

#[test]
fn a_virtual_router_has_its_own_mac_and_no_other() {
    let mut world = World::new();
    world.except(9, 32, EXCEPT_VIRTUAL);
    assert!(!world.passes(&announces(VIRTUAL, 9)));
    world.0.bound_macs.insert(PortMac::new(HERE, VIRTUAL), STATION_EXCEPTED);
    assert!(world.passes(&announces(VIRTUAL, 9)));
    assert!(world.passes(&announces(VIRTUAL, 2)), "its own address from there");
    assert!(!world.passes(&announces(OWN, 9)), "it is not the virtual router");
    assert!(!world.passes(&announces([0, 0, 0x5e, 0, 1, 8], 9)));
    // The Ethernet source is the port's, and what it says is the virtual router's.
    let mut said = announces(VIRTUAL, 9);
    said[6..12].copy_from_slice(&OWN);
    assert!(world.passes(&said));
    said[27] = 8;
    assert!(!world.passes(&said), "another one's");
}

/// So many as the exception says, instead of the port's quota.
#[test]
fn any_macs_up_to_a_number() {
    let mut world = World::new();
    world.0.policy.drops &= !guard_ebpf::counters::DropReason::Mac.bit();
    world.0.policy.macs = 4;
    world.1.quota_macs = 64;
    world.except(9, 32, EXCEPT_UNOWNED);
    let passed = (0..40).filter(|last| {
        let frame = announces([2, 0x42, 0xac, 0, 1, *last], 9);
        !world.0.watch(&frame[..], &world.1)
    });
    assert_eq!(passed.count(), 4);
}
