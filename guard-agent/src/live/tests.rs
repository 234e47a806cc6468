use guard_core::{
    evidence::{HostAddresses, Station, Strength},
    mac::Mac,
};

use super::*;

/// Nothing is in use, and that is known of br0 and br1.
pub(crate) fn all_known() -> SharedEvidence {
    let set = SharedEvidence::default();
    set.boot_pass_ended();
    for bridge in ["br0", "br1"] {
        set.set_watched(&bridge.into(), true);
    }
    set
}

fn claim(ifindex: u32, mac: u8) -> Claim {
    let station = Station { mac: Mac([2, 0, 0, 0, 0, mac]), interface: "veth".into(), ifindex };
    Claim { station, strength: Strength::Use, first: Duration::ZERO, seen: Duration::ZERO }
}

fn set_with_port(ifindex: u32) -> SharedEvidence {
    let set = SharedEvidence::default();
    set.port_added(
        ifindex,
        PortName { interface: "veth".into(), bridge: "rt0".into(), uplink: false },
    );
    set
}

#[test]
fn a_claim_lasts_as_long_as_its_port() {
    let set = set_with_port(7);
    let (segment, address) = (Segment::new("rt0", 0), IpAddr::from([10, 0, 0, 2]));
    assert!(set.claimed(&segment, address, claim(7, 1)));
    assert!(!set.claimed(&segment, address, claim(7, 1)), "known already");
    assert_eq!(set.evidence(&segment, address).len(), 1);
    assert!(set.is_live(&segment, address));
    assert_eq!(set.addresses(&segment), [address]);
    assert_eq!(set.link_ended(7), [(segment.clone(), address)]);
    assert!(set.evidence(&segment, address).is_empty());
    assert!(!set.is_live(&segment, address));
    assert!(!set.claimed(&segment, address, claim(7, 1)), "no port, no claim");
    assert!(set.addresses(&segment).is_empty());
}

#[test]
fn a_claim_is_shown_with_the_name_that_its_port_has_now() {
    let set = SharedEvidence::default();
    let rename = |ifindex, name: &str| {
        set.set_link(ifindex, vec![name.to_owned()], Device::default());
        let (interface, bridge) = (Arc::from(name), Arc::from("rt0"));
        set.port_added(ifindex, PortName { interface, bridge, uplink: false });
    };
    rename(7, "a");
    rename(8, "b");
    let segment = Segment::new("rt0", 0);
    let [first, second] = [2, 3].map(|host| IpAddr::from([10, 0, 0, host]));
    set.claimed(&segment, first, claim(7, 1));
    set.claimed(&segment, second, claim(8, 2));
    let shown = |address| set.evidence(&segment, address)[0].interface.clone();
    assert_eq!([shown(first), shown(second)], [Some("a".into()), Some("b".into())]);
    // Exchanged, which takes a third name.
    rename(7, "c");
    rename(8, "a");
    rename(7, "b");
    assert_eq!([shown(first), shown(second)], [Some("b".into()), Some("a".into())]);
    // One that has left the bridge has a name still.
    set.port_left(7);
    set.set_link(7, vec!["d".to_owned()], Device::default());
    assert_eq!(shown(first), Some("d".into()));
}

#[test]
fn the_hosts_address_is_shown_where_it_is() {
    let set = SharedEvidence::default();
    let [own, lo] = [1, 9].map(|host| IpAddr::from([10, 0, 0, host]));
    let here = HostAddresses { here: [(0, own)].into(), elsewhere: [(0, lo)].into() };
    let there = HostAddresses { here: [].into(), elsewhere: [(0, own), (0, lo)].into() };
    set.set_host_addresses(&"br0".into(), here);
    set.set_host_addresses(&"br1".into(), there);
    let shown = |bridge: &str, address| {
        let evidence = set.evidence(&Segment::new(bridge, 0), address).remove(0);
        (evidence.detail, evidence.interface.map(|name| name.to_string()))
    };
    let on_it = ("address of the host on br0".to_owned(), Some("br0".to_owned()));
    assert_eq!([shown("br0", own), shown("br1", own)], [on_it.clone(), on_it]);
    let elsewhere = ("address of the host on another device".to_owned(), None);
    assert_eq!([shown("br0", lo), shown("br1", lo)], [elsewhere.clone(), elsewhere]);
}

#[test]
fn evidence_counts_for_its_own_segment_only() {
    let set = set_with_port(7);
    let address = IpAddr::from([10, 0, 0, 2]);
    set.claimed(&Segment::new("rt0", 0), address, claim(7, 1));
    assert!(set.evidence(&Segment::new("rt0", 5), address).is_empty());
    assert!(set.evidence(&Segment::new("rt1", 0), address).is_empty());
    assert!(set.addresses(&Segment::new("rt", 0)).is_empty());
}

#[test]
fn a_port_has_one_claim_of_an_address_and_leaves_the_others_alone() {
    let set = set_with_port(7);
    set.port_added(8, PortName { interface: "other".into(), bridge: "rt0".into(), uplink: false });
    let (segment, address) = (Segment::new("rt0", 0), IpAddr::from([10, 0, 0, 2]));
    assert!(set.claimed(&segment, address, claim(7, 1)));
    assert!(set.claimed(&segment, address, claim(8, 2)));
    assert!(set.claimed(&segment, address, claim(7, 3)), "another MAC is news");
    assert_eq!(set.evidence(&segment, address).len(), 2);
    set.withdraw(&segment, address, 8);
    assert_eq!(set.evidence(&segment, address)[0].mac, Some(Mac([2, 0, 0, 0, 0, 3])));
    set.link_ended(7);
    assert!(set.evidence(&segment, address).is_empty());
}

#[test]
fn a_name_is_taken_as_long_as_some_link_has_it() {
    let set = SharedEvidence::default();
    set.set_links([(2, vec!["veth0".to_owned(), "long-name".to_owned()], Device::default())]);
    assert!(set.link_exists("veth0") && set.link_exists("long-name"));
    // Another takes the name before the first is known to have lost it.
    set.set_link(3, vec!["veth0".to_owned()], Device::default());
    set.set_link(2, vec!["veth9".to_owned()], Device::default());
    assert!(set.link_exists("veth0") && !set.link_exists("long-name"));
    set.add_name(3, "late");
    assert!(set.link_exists("veth0") && set.link_exists("late"));
    set.set_link(3, Vec::new(), Device::default());
    assert!(!set.link_exists("late"));
    assert!(!set.link_exists("veth0") && set.link_exists("veth9"));
    set.set_links([]);
    assert!(!set.link_exists("veth9"));
}

#[test]
fn an_address_of_the_host_is_evidence() {
    let set = SharedEvidence::default();
    let (segment, address) = (Segment::new("rt0", 0), IpAddr::from([10, 0, 0, 1]));
    assert!(!set.is_live(&segment, address));
    let at = || BTreeSet::from([(0, address)]);
    let here = HostAddresses { here: at(), ..HostAddresses::default() };
    let elsewhere = HostAddresses { elsewhere: at(), ..HostAddresses::default() };
    for addresses in [here, elsewhere] {
        set.set_host_addresses(&segment.bridge, addresses);
        assert_eq!(set.evidence(&segment, address)[0].source, Source::Kernel);
        assert!(set.is_live(&segment, address));
        assert_eq!(set.hosts(&segment), [address]);
        assert!(!set.is_live(&Segment::new("rt0", 5), address), "it is in another segment");
    }
}
