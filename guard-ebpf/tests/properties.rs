//! What holds for every frame.

use std::cell::Cell;

use bytemuck::Zeroable as _;
use guard_ebpf::{
    abi::{
        AddressKey, Live, MacHolder, MacKey, Mode, OWNED_LEASED, OWNED_MAC, OWNED_PORT, Owned,
        PORT_ACCESS, PORT_UPLINK, Policy, Port, PortMac, PortState, Prefix, REFRESH_NS,
        STRENGTH_ASSERT, STRENGTH_TENTATIVE,
    },
    claim::{Meaning, Parsed},
    decide::{Action, Decision, Tables, judge},
    fast_path,
    frame::parse,
    model::Model,
};
use proptest::{collection::vec, option, prelude::*};

const NOW_NS: u64 = 1 << 40;
const HERE: u32 = 1;

/// One answer for every address, and how often who is live was asked for.
#[derive(Clone, Debug, Default)]
struct Known {
    owned: Option<Owned>,
    live: Option<Live>,
    prefix: Option<Prefix>,
    asked_live: Cell<u32>,
}

impl Tables for Known {
    fn owned(&self, _: &AddressKey) -> Option<&Owned> {
        self.owned.as_ref()
    }

    fn live(&self, _: &AddressKey) -> Option<&Live> {
        self.asked_live.set(self.asked_live.get() + 1);
        self.live.as_ref()
    }

    fn prefix(&self, _: &AddressKey) -> Option<&Prefix> {
        self.prefix.as_ref()
    }

    fn is_member(&self, _: u32, _: u16) -> bool {
        false
    }

    fn mac_holder(&self, _: &MacKey) -> Option<&MacHolder> {
        None
    }

    fn port_state(&self, _: u32) -> Option<&PortState> {
        None
    }

    fn policy(&self, _: u32) -> Option<&Policy> {
        None
    }

    fn mode(&self, _: u32) -> Option<&Mode> {
        None
    }

    fn station(&self, _: &PortMac) -> u32 {
        0
    }

    fn exception(&self, _: &AddressKey) -> u32 {
        0
    }

    fn changes(&self) -> u32 {
        1
    }
}

/// What is decided about the frame's first claim.
fn judge_first(known: &Known, port: &Port, parsed: &Parsed) -> Option<Decision> {
    parsed.claim().map(|claim| judge(known, port, HERE, claim, NOW_NS))
}

/// Few enough that they often meet.
fn mac() -> impl Strategy<Value = [u8; 6]> {
    prop_oneof![Just([2, 0, 0, 0, 0, 10]), Just([2, 0, 0, 0, 0, 11]), any::<[u8; 6]>()]
}

fn address() -> impl Strategy<Value = [u8; 4]> {
    prop_oneof![Just([10, 8, 64, 2]), Just([0; 4]), any::<[u8; 4]>()]
}

prop_compose! {
    fn arp()(
        source in mac(), sender_mac in mac(), op in 0_u8..4, sender in address(), target in address(),
    ) -> Vec<u8> {
        let mut bytes = vec![0xff; 6];
        bytes.extend(source);
        bytes.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, op]);
        bytes.extend(sender_mac);
        bytes.extend(sender);
        bytes.extend([0; 6]);
        bytes.extend(target);
        bytes
    }
}

prop_compose! {
    fn ipv4()(source in mac(), sender in address(), rest in any::<[u8; 12]>()) -> Vec<u8> {
        let mut bytes = vec![0xff; 6];
        bytes.extend(source);
        bytes.extend([8, 0, 0x45]);
        bytes.extend(&rest[1..]);
        bytes.extend(sender);
        bytes.extend([10, 8, 64, 9]);
        bytes
    }
}

fn frame() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![arp(), ipv4(), vec(any::<u8>(), 0..80)]
}

fn port() -> impl Strategy<Value = Port> {
    let kind = prop_oneof![Just(PORT_ACCESS), Just(PORT_UPLINK)];
    (kind, 0_u16..3).prop_map(|(kind, pvid)| Port {
        ifindex: HERE,
        bridge: 9,
        pvid,
        kind,
        ..Port::zeroed()
    })
}

prop_compose! {
    fn known()(
        owned in option::of((0_u16..32, mac(), 0_u32..3, any::<bool>())),
        live in option::of((mac(), 0_u32..3, any::<bool>())),
        on_link in option::of(0_u32..3),
    ) -> Known {
        let seen_ns = |now: bool| if now { NOW_NS } else { NOW_NS - 2 * REFRESH_NS };
        Known {
            owned: owned.map(|(flags, mac, ifindex, now)| Owned {
                generation: 1, seen_ns: seen_ns(now), ifindex, mac, flags, homes: 0,
            }),
            live: live.map(|(mac, ifindex, now)| Live {
                first_ns: 1, seen_ns: seen_ns(now), ifindex, mac, strength: STRENGTH_ASSERT,
                reserved: 0, passed: 1,
            }),
            prefix: on_link.map(|on_link| Prefix { on_link, ..Prefix::default() }),
            asked_live: Cell::new(0),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_bytes_are_read_and_judged(frame in frame(), port in port(), known in known()) {
        let parsed = parse(&frame[..], &port);
        prop_assert_eq!(parse(&frame[..], &port), parsed);
        let first = judge_first(&known, &port, &parsed);
        prop_assert_eq!(judge_first(&known, &port, &parsed), first);
    }

    #[test]
    fn a25_what_follows_the_last_field_changes_nothing(
        frame in prop_oneof![arp(), ipv4()], junk in vec(any::<u8>(), 0..64), port in port(),
    ) {
        let longer = [&frame[..], &junk].concat();
        let read = parse(&frame[..], &port);
        // From 0.0.0.0 the ports behind the header count (claims.md D02).
        prop_assume!(frame[12..14] == [8, 6] || frame[26..30] != [0; 4]);
        prop_assert_eq!(parse(&longer[..], &port), read);
    }

    #[test]
    fn a24_a_cut_frame_claims_nothing(frame in prop_oneof![arp(), ipv4()], port in port()) {
        let cut = &frame[..frame.len() - 1];
        prop_assert!(matches!(parse(cut, &port).beside(&port), Meaning::Malformed(_)));
    }

    #[test]
    fn a04_a_probe_makes_nothing_live_and_refreshes_nothing(
        mut frame in arp(), port in port(), known in known(),
    ) {
        frame[20..22].copy_from_slice(&[0, 1]);
        frame[28..32].fill(0);
        let target = frame[38] != 127 && frame[38] < 224 && frame[38..42] != [0; 4];
        let source = target && frame[6] & 1 == 0 && frame[6..12] != [0; 6];
        let parsed = parse(&frame[..], &port);
        let strength = parsed.claim().map(|claim| claim.strength);
        prop_assert_eq!(strength, source.then_some(STRENGTH_TENTATIVE));
        let action = judge_first(&known, &port, &parsed).map(|decision| decision.action);
        prop_assert!(!matches!(action, Some(Action::RefreshLive | Action::RefreshOwner)));
        let mut model = Model::new(NOW_NS);
        model.watch(&frame[..], &port);
        prop_assert!(model.live.is_empty() && model.macs.is_empty());
    }

    #[test]
    fn a_frame_of_the_declared_binding_is_never_dropped_nor_told(
        frame in prop_oneof![arp(), ipv4()], port in port(), known in known(),
    ) {
        let parsed = parse(&frame[..], &port);
        let Some(claim) = parsed.claim().filter(|claim| claim.mac == claim.eth_src) else {
            return Ok(());
        };
        let flags = OWNED_LEASED | OWNED_MAC | OWNED_PORT;
        let (mac, seen_ns) = (claim.mac, NOW_NS);
        let owned = Owned { generation: 1, seen_ns, ifindex: HERE, mac, flags, homes: 0 };
        let known = Known { owned: Some(owned), ..known };
        let decision = judge(&known, &port, HERE, claim, NOW_NS);
        prop_assert_eq!(decision.reasons, 0);
        prop_assert_eq!(decision.action, Action::Nothing);
        prop_assert_eq!(known.asked_live.get(), 0, "the binding decides by itself");
    }

    #[test]
    fn the_fast_path_comes_to_what_the_slow_path_does(
        mut frame in frame(), port in port(), known_before in known(), own in any::<bool>(),
    ) {
        let mut tables = known_before;
        if let Some(owned) = tables.owned.as_mut().filter(|_| own) {
            owned.flags = OWNED_LEASED | OWNED_MAC | OWNED_PORT;
            owned.ifindex = HERE;
            frame.resize(frame.len().max(12), 0);
            owned.mac.copy_from_slice(&frame[6..12]);
        }
        if let Some(kind) = fast_path::fast_path(&frame[..], &tables, &port, HERE, || NOW_NS) {
            let parsed = parse(&frame[..], &port);
            let decision = judge_first(&tables, &port, &parsed).unwrap();
            prop_assert_eq!(kind, parsed.kind);
            prop_assert_eq!((decision.action, decision.reasons), (Action::Nothing, 0));
        }
    }

    #[test]
    fn another_than_the_declared_binding_is_told_at_the_first_frame(
        frame in prop_oneof![arp(), ipv4()], port in port(), mac in any::<[u8; 6]>(),
    ) {
        let parsed: Parsed = parse(&frame[..], &port);
        let Some(claim) = parsed.claim().filter(|claim| claim.mac != mac) else { return Ok(()) };
        let flags = OWNED_LEASED | OWNED_MAC;
        let owned = Owned { generation: 1, seen_ns: 0, ifindex: 0, mac, flags, homes: 0 };
        let known = Known { owned: Some(owned), ..Known::default() };
        let decision = judge(&known, &port, HERE, claim, NOW_NS);
        prop_assert!(matches!(decision.action, Action::Report));
        if claim.strength != STRENGTH_TENTATIVE {
            prop_assert_ne!(decision.reasons, 0);
        }
    }

    #[test]
    fn a_claim_is_about_an_address_of_the_ports_segment(frame in frame(), port in port()) {
        if let Some(claim) = parse(&frame[..], &port).claim() {
            prop_assert_eq!(claim.key.bridge, port.bridge);
            let ip = claim.key.ip();
            prop_assert!(!ip.is_loopback() && !ip.is_multicast() && !ip.is_unspecified());
        }
    }
}
