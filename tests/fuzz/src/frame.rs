//! Feeds libFuzzer's frames to the parser and to what is decided of them: nothing panics, nothing
//! overflows, every frame is counted once, and none moves a declared binding.

#![no_main]

use std::net::Ipv4Addr;

use bytemuck::Zeroable as _;
use guard_ebpf::{
    abi::{
        AddressKey, MacHolder, MacKey, OWNED_LEASED, OWNED_MAC, OWNED_PORT, Owned, PORT_ACCESS,
        PORT_UPLINK, Port, Prefix,
    },
    address::Segment,
    model::Model,
};
use libfuzzer_sys::fuzz_target;

const BRIDGE: u32 = 9;
const HERE: u32 = 1;
const ELSEWHERE: u32 = 77;
const NOW_NS: u64 = 1 << 40;
const OWNER: [u8; 6] = [2, 0, 0, 0, 0, 10];

/// One for each option that is read, and one for the source.
const MOST_CLAIMS: u64 = 9;

/// A segment on which one address of each family has an owner, on another port.
fn world() -> Model {
    let mut model = Model::new(NOW_NS);
    let owned = Owned {
        generation: 1,
        seen_ns: 0,
        ifindex: ELSEWHERE,
        mac: OWNER,
        flags: OWNED_LEASED | OWNED_MAC | OWNED_PORT,
        homes: 0,
    };
    for (address, prefix, len) in [
        (Ipv4Addr::new(10, 8, 64, 2).into(), Ipv4Addr::new(10, 8, 64, 0).into(), 24),
        ("2001:db8::2".parse().expect("an address"), "2001:db8::".parse().expect("a prefix"), 64),
    ] {
        model.owned.insert(AddressKey::new(BRIDGE, 0, address), owned);
        let prefix = AddressKey::new(BRIDGE, 0, prefix);
        model.add_prefix(prefix, prefix.prefix_len(len), Prefix::zeroed());
    }
    let segment = Segment { bridge: BRIDGE, vlan: 0, inner_vlan: 0 };
    let holder = MacHolder { ifindex: ELSEWHERE, flags: 0 };
    model.macs.insert(MacKey::new(segment.bridge, segment.vlan, OWNER), holder);
    model
}

fn watched(frame: &[u8], port: &Port) -> Model {
    let mut model = world();
    model.watch(frame, port);
    model
}

fuzz_target!(|input: &[u8]| {
    let Some((&choice, frame)) = input.split_first() else { return };
    let mut frame = frame.to_vec();
    // What would take the fuzzer minutes to come upon.
    if frame.len() >= 14 {
        if choice & 16 != 0 {
            frame[6..12].copy_from_slice(&OWNER);
        }
        let kinds = [None, Some([8, 6]), Some([8, 0]), Some([0x86, 0xdd])];
        if let Some(kind) = kinds[usize::from(choice >> 5 & 3)] {
            frame[12..14].copy_from_slice(&kind);
        }
    }
    let frame = &frame[..];
    let port = Port {
        ifindex: HERE,
        bridge: BRIDGE,
        kind: if choice & 1 == 0 { PORT_ACCESS } else { PORT_UPLINK },
        flags: choice >> 1 & 7,
        quota_addresses: 16,
        quota_frames: 50,
        ..Port::zeroed()
    };
    let model = watched(frame, &port);
    let counters = &model.counters;
    assert_eq!(counters.frames.iter().sum::<u64>(), 1, "a frame is of one kind");
    let unread = counters.malformed.iter().chain(&counters.opaque).sum::<u64>();
    assert!(unread <= 1, "one thing keeps it, or the rest of it, from being read");
    // Each of its claims may count for nothing, and its source besides.
    assert!(counters.no_claim.iter().sum::<u64>() <= MOST_CLAIMS + 1, "{frame:02x?}");
    // A declared binding never moves by a frame.
    for (key, owned) in &world().owned {
        let after = &model.owned[key];
        assert_eq!(
            (after.ifindex, after.mac, after.flags),
            (owned.ifindex, owned.mac, owned.flags)
        );
        assert!(!model.live.contains_key(key), "and nobody else becomes its holder");
    }
    // The owner's MAC from here is told of, whatever the frame is (claims.md L01). Behind a tag it
    // may be in another segment, where nobody has it.
    let is_tagged = |frame: &[u8]| matches!(frame[12..14], [0x81, 0x00] | [0x88, 0xa8]);
    if frame.len() >= 14 && frame[6..12] == OWNER && !is_tagged(frame) {
        assert_eq!(counters.clones, 1, "{frame:02x?}");
    }
});
