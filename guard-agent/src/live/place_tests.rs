//! Rule 7: which segment a listed address is on.

use guard_core::evidence::{Entry, Place, Unread};

use super::*;

const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

fn segments() -> [Segment; 3] {
    [Segment::new("rt0", 0), Segment::new("rt1", 0), Segment::new("rt1", 5)]
}

fn set() -> SharedEvidence {
    let set = SharedEvidence::default();
    let prefix: IpNet = "10.0.0.0/24".parse().unwrap();
    set.set_prefixes(segments().map(|segment| (segment, prefix)).to_vec());
    set
}

fn list(set: &SharedEvidence, name: &str, place: Place) {
    let entry = Entry {
        owner: Owner { sandbox: name.into(), lifecycle: "".into() },
        id: name.into(),
        addresses: vec![ADDRESS],
        labelled: true,
        named: true,
        dead: None,
        detail: "".into(),
        since: jiff::Timestamp::UNIX_EPOCH,
        unread: Unread::default(),
        place,
    };
    let listing = Listing { entries: vec![entry], ..Listing::default() };
    set.inventory.write().take(Source::Inventory, &listing, clock::now());
}

fn add_port(set: &SharedEvidence, ifindex: u32, bridge: &str, netns: i32, vlans: Option<&[u16]>) {
    let name = format!("veth{ifindex}");
    let device = Device { netns: Some(netns), ..Device::default() };
    set.set_link(ifindex, vec![name.clone()], device);
    set.set_port_vlans(ifindex, vlans.map(|vlans| vlans.iter().copied().collect()));
    let (interface, bridge) = (Arc::from(name), Arc::from(bridge));
    set.port_added(ifindex, PortName { interface, bridge, uplink: false });
}

/// Where the address is live, and whether that is sure.
fn live(set: &SharedEvidence) -> Vec<(Segment, bool)> {
    let on = |segment: Segment| {
        let evidence = set.evidence(&segment, ADDRESS);
        assert_eq!(set.is_live(&segment, ADDRESS), !evidence.is_empty());
        assert_eq!(set.addresses(&segment).contains(&ADDRESS), !evidence.is_empty());
        evidence.first().map(|evidence| (segment, !evidence.unsure))
    };
    segments().into_iter().filter_map(on).collect()
}

#[test]
fn rule_7_the_port_of_the_namespace_tells_which_segment_is_meant() {
    let set = set();
    let [rt0, rt1, rt1_5] = segments();
    list(&set, "a", Place::Netns(7));
    let unsure = segments().map(|segment| (segment, false)).to_vec();
    assert_eq!(live(&set), unsure, "it has no port yet");
    let detail = &set.evidence(&rt0, ADDRESS)[0].detail;
    assert!(detail.ends_with("which of rt0, rt1 or rt1.5 is meant is not known"), "{detail}");

    let _ = set.changes().take(usize::MAX);
    add_port(&set, 3, "rt0", 7, None);
    assert_eq!(live(&set), [(rt0.clone(), true)]);
    let told = set.changes().take(usize::MAX).places;
    assert_eq!(told.len(), 3, "it is looked at everywhere: {told:?}");
    // Another namespace's port is none of it.
    add_port(&set, 4, "rt1", 8, None);
    assert_eq!(live(&set), [(rt0, true)]);
    // With a second one it is not known any more.
    add_port(&set, 5, "rt1", 7, Some(&[5]));
    assert_eq!(live(&set), unsure);
    set.link_ended(3);
    assert_eq!(live(&set), [(rt1_5, true)]);
    // On a bridge that does not filter VLANs a frame can be in any.
    set.set_port_vlans(5, None);
    assert_eq!(live(&set), unsure);
    set.set_port_vlans(5, Some([0, 7].into()));
    assert_eq!(live(&set), [(rt1, true)]);
}

#[test]
fn rule_7_without_a_namespace_it_is_not_known_and_asked_for_with_the_next_port() {
    let set = set();
    list(&set, "a", Place::Unknown);
    assert!(live(&set).iter().all(|(_, sure)| !sure));
    let asked = || {
        let mut wanted = Box::pin(set.changes().wanted(CONTAINERD));
        futures_util::FutureExt::now_or_never(&mut wanted).is_some()
    };
    assert!(!asked());
    add_port(&set, 3, "rt0", 7, None);
    assert!(asked());
    // One segment alone needs no telling.
    set.set_prefixes(vec![(Segment::new("rt0", 0), "10.0.0.0/24".parse().unwrap())]);
    list(&set, "a", Place::Clear);
    assert!(live(&set).iter().all(|(_, sure)| *sure));
    add_port(&set, 4, "rt0", 9, None);
    assert!(!asked());
}
