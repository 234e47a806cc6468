//! What happens on every node every day, and is no conflict; beside each the thing that differs
//! little and is one.

use std::net::Ipv4Addr;

use anyhow::Result;
use guard_tests::{Agent, Arp, BRIDGE, GATEWAY, Lab, Launch, Mac, Sandbox, TIMEOUT, ipv4_udp};
use serde_json::Value;

use crate::claims::settle;

const VIRTUAL: Ipv4Addr = Ipv4Addr::new(10, 8, 64, 5);
const VIRTUAL_MAC: Mac = Mac::new([0, 0, 0x5e, 0, 1, 7]);
/// Where routers talk to each other (RFC 9568 §5.1.1.2).
const ROUTERS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);

/// An agent, with the bridge as this piece of TOML has it.
fn agent_with(lab: &Lab, bridge: &str) -> Result<Agent> {
    let config = lab.config()?.with(&format!("[[bridge]]\nname = {BRIDGE:?}\n{bridge}"))?;
    lab.agent_with(Launch::config(&config)?)
}

/// A sandbox that was admitted and is only there to be robbed, so that what came before is known to
/// have been seen; and the one who robs it.
struct Marker {
    address: Ipv4Addr,
    thief: Sandbox,
}

impl Marker {
    fn new(lab: &Lab, agent: &Agent) -> Result<Self> {
        let marked = agent.admit(&lab.sandbox("marker")?)?;
        let thief = lab.sandbox("thief")?;
        agent.await_port(&thief)?;
        Ok(Self { address: marked.address, thief })
    }

    /// All incidents so far, without its own.
    fn incidents(&self, agent: &Agent) -> Result<Vec<Value>> {
        settle(agent, &self.thief, self.address)
    }
}

fn conflict_about(agent: &Agent, address: Ipv4Addr) -> Result<Value> {
    let conflicts = agent.follow(&["conflicts"])?;
    let address = address.to_string();
    Ok(conflicts.next(|conflict| conflict["address"] == address.as_str())?.1)
}

/// The incident of this kind about a port: it has no address.
fn of_port(agent: &Agent, kind: &str) -> Result<Value> {
    let (_, found) = agent.follow(&["conflicts"])?.next(|conflict| conflict["kind"] == kind)?;
    assert!(found["address"].is_null() && found["severity"] == "warning", "{found}");
    Ok(found)
}

/// What a virtual router sends that becomes the master: announcements with the virtual MAC, and
/// advertisements from it with an address of its own.
fn master(sandbox: &Sandbox, own: Ipv4Addr) -> Result<()> {
    let socket = sandbox.raw_socket()?;
    socket.send(&Arp::announcement(VIRTUAL_MAC, VIRTUAL).frame())?;
    socket.send(&ipv4_udp((VIRTUAL_MAC, Mac::BROADCAST), own, ROUTERS)?)?;
    socket.send(&ipv4_udp((VIRTUAL_MAC, Mac::BROADCAST), VIRTUAL, GATEWAY)?)?;
    sandbox.ask(own, GATEWAY)
}

#[test]
fn a16_a_virtual_router_goes_from_port_to_port_where_a_rule_lets_it() -> Result<()> {
    let lab = Lab::new()?;
    let rule = format!("[[bridge.allow]]\nkind = \"vrrp\"\naddresses = [\"{VIRTUAL}\"]");
    let agent = agent_with(&lab, &rule)?;
    let (one, two) = (lab.sandbox("one")?, lab.sandbox("two")?);
    let leases = [agent.admit(&one)?, agent.admit(&two)?];
    let marker = Marker::new(&lab, &agent)?;
    for _ in 0..3 {
        master(&one, leases[0].address)?;
        master(&two, leases[1].address)?;
    }
    let others = marker.incidents(&agent)?;
    assert!(others.is_empty(), "{others:?}");
    let live = agent.list(&["live"], "live")?;
    assert!(live.iter().any(|entry| entry["address"] == "10.8.64.5"), "{live:?}");

    // A real MAC is another matter, and so is anyone who asks for the address.
    marker.thief.announce(VIRTUAL)?;
    let conflict = conflict_about(&agent, VIRTUAL)?;
    assert_eq!(conflict["kind"], "duplicate", "{conflict}");
    assert!(conflict.to_string().contains("impostor"), "{conflict}");
    assert!(conflict.to_string().contains(marker.thief.port()), "{conflict}");
    let asked = agent.ctl(&[
        "allocate",
        "--pool",
        "sandboxes",
        "--sandbox",
        "x",
        "--address",
        "10.8.64.5",
    ])?;
    assert_eq!(asked.refusal()?.reason, "ADDRESS_EXCLUDED");
    Ok(())
}

#[test]
fn a16_a_virtual_router_without_a_rule_is_a_conflict() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let (one, two) = (lab.sandbox("one")?, lab.sandbox("two")?);
    let leases = [agent.admit(&one)?, agent.admit(&two)?];
    for _ in 0..3 {
        master(&one, leases[0].address)?;
        master(&two, leases[1].address)?;
    }
    // Its MAC is on two ports.
    let conflicts = agent.follow(&["conflicts"])?;
    conflicts.next(|conflict| conflict["kind"] == "clone")?;
    Ok(())
}

#[test]
fn a17_an_address_that_is_shared_by_rule_goes_between_the_ports_that_it_names() -> Result<()> {
    let lab = Lab::new()?;
    let ports = "ports = [\"veth-one\", \"veth-two\"]";
    let rule = format!("[[bridge.allow]]\nkind = \"shared\"\naddresses = [\"{VIRTUAL}\"]\n{ports}");
    let agent = agent_with(&lab, &rule)?;
    let (one, two) = (lab.sandbox("one")?, lab.sandbox("two")?);
    for sandbox in [&one, &two] {
        agent.await_port(sandbox)?;
    }
    let marker = Marker::new(&lab, &agent)?;
    for _ in 0..3 {
        one.announce(VIRTUAL)?;
        two.announce(VIRTUAL)?;
        // As a bond that keeps its MAC does.
        two.raw_socket()?.send(&Arp::announcement(one.mac(), VIRTUAL).frame())?;
    }
    let others = marker.incidents(&agent)?;
    assert!(others.is_empty(), "{others:?}");
    marker.thief.announce(VIRTUAL)?;
    assert_eq!(conflict_about(&agent, VIRTUAL)?["kind"], "duplicate");
    Ok(())
}

#[test]
fn n09_d05_a_router_is_one_only_behind_the_port_that_a_rule_names() -> Result<()> {
    let lab = Lab::new()?;
    let rule = "[[bridge.allow]]\nkind = \"router\"\nports = [\"veth-router\"]";
    let agent = agent_with(&lab, rule)?;
    let (router, other) = (lab.sandbox("router")?, lab.sandbox("other")?);
    for sandbox in [&router, &other] {
        agent.await_port(sandbox)?;
        // From elsewhere, and then a router's advertisement (RFC 4861 §4.2).
        let socket = sandbox.raw_socket()?;
        let elsewhere = Ipv4Addr::new(198, 51, 100, 4);
        socket.send(&ipv4_udp((sandbox.mac(), lab.bridge_mac(BRIDGE)), elsewhere, GATEWAY)?)?;
        socket.send(&guard_tests::router_advertisement(sandbox.mac())?)?;
    }
    let routers = of_port(&agent, "router")?;
    assert_eq!(routers["claimants"][0]["interface"], other.port(), "{routers}");
    agent.journal().await_line(&["acts as a router", other.port()])?;
    assert_eq!(agent.journal().count(&["acts as a router", router.port()]), 0);
    let off_prefix = [("bridge", BRIDGE), ("reason", "off_prefix")];
    assert_eq!(agent.metric("guard_claims_ignored_total", &off_prefix)?, Some(2.0));
    // Nothing is declared of either.
    assert_eq!(agent.metric("guard_frames_would_drop_total", &off_prefix)?, Some(0.0));
    assert_eq!(agent.metric("guard_frames_dropped_total", &off_prefix)?, Some(0.0));
    Ok(())
}

#[test]
fn a29_what_cannot_be_read_to_its_end_is_one_incident_of_its_port() -> Result<()> {
    let lab = Lab::new()?;
    let agent = agent_with(&lab, "")?;
    let hidden = lab.sandbox("hidden")?;
    agent.await_port(&hidden)?;
    let socket = hidden.raw_socket()?;
    let announcement = Arp::announcement(hidden.mac(), VIRTUAL).frame();
    let (addresses, rest) = announcement.split_at(12);
    // Probes before it, as many as a limit of the log would take.
    for _ in 0..200 {
        socket.send(&Arp::probe(hidden.mac(), VIRTUAL).frame())?;
    }
    for vlan in 1..=20 {
        let tags = [[0x81, 0, 0, vlan], [0x81, 0, 0, 2], [0x81, 0, 0, 3]].concat();
        socket.send(&[addresses, &tags, rest].concat())?;
    }
    let opaque = of_port(&agent, "opaque")?;
    assert_eq!(opaque["claimants"][0]["interface"], hidden.port(), "{opaque}");
    let open = agent.ctl(&["conflicts", "-o", "json"])?.json()?;
    let all = open["conflicts"].as_array().map_or(0, Vec::len);
    assert_eq!(all, 1, "{open}");
    Ok(())
}

#[test]
fn a19_a_proxy_answers_for_those_whom_a_rule_names() -> Result<()> {
    let lab = Lab::new()?;
    let rule = "[[bridge.allow]]\nkind = \"proxy\"\naddresses = [\"10.8.64.0/26\"]\n\
                ports = [\"veth-proxy\"]";
    let agent = agent_with(&lab, rule)?;
    let proxy = lab.sandbox("proxy")?;
    let leases = [agent.admit(&lab.sandbox("a")?)?, agent.admit(&lab.sandbox("b")?)?];
    agent.await_port(&proxy)?;
    let marker = Marker::new(&lab, &agent)?;
    let stranger = lab.sandbox("c")?;
    agent.await_port(&stranger)?;
    for host in [40, 41] {
        stranger.announce([10, 8, 64, host].into())?;
        proxy.announce([10, 8, 64, host].into())?;
    }
    // The strangers' addresses are nobody's, which is told, and no more.
    let mut others = marker.incidents(&agent)?;
    others.retain(|incident| incident["kind"] != "unowned");
    assert!(others.is_empty(), "{others:?}");
    // What another has by a lease the rule does not give away (enforce.md, "Exceptions").
    proxy.announce(leases[0].address)?;
    assert_eq!(conflict_about(&agent, leases[0].address)?["kind"], "duplicate");
    // The gateway is in the prefix, and the host's: no rule gives that away.
    proxy.announce(GATEWAY)?;
    assert_eq!(conflict_about(&agent, GATEWAY)?["kind"], "gateway");
    marker.thief.announce(leases[1].address)?;
    assert_eq!(conflict_about(&agent, leases[1].address)?["kind"], "duplicate");
    Ok(())
}

#[test]
fn a18_a_bond_fails_over_to_another_port_with_its_mac_and_its_address() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let bond = Mac::numbered(0xb0);
    let (one, two) =
        (lab.sandbox_with("one", BRIDGE, bond)?, lab.sandbox_with("two", BRIDGE, bond)?);
    // Leased, and bound by nobody: it is learnt from the first claim.
    let lease = agent.allocate("bond")?;
    let marker = Marker::new(&lab, &agent)?;
    for sandbox in [&one, &two] {
        agent.await_port(sandbox)?;
    }
    let (mut active, mut backup) = (&one, &two);
    active.announce(lease.address)?;
    for _ in 0..2 {
        active.netns().ip("link set eth0 down")?;
        backup.announce(lease.address)?;
        guard_tests::eventually("the address at the backup's port", || {
            let live = agent.list(&["live"], "live")?;
            let moved = |entry: &&Value| {
                entry["address"] == lease.address.to_string().as_str()
                    && entry.to_string().contains(backup.port())
            };
            Ok(live.iter().find(moved).map(drop))
        })?;
        active.netns().ip("link set eth0 up")?;
        (active, backup) = (backup, active);
    }
    let others = marker.incidents(&agent)?;
    assert!(others.is_empty(), "{others:?}");
    // Both at once is one MAC on two ports.
    backup.announce(lease.address)?;
    active.announce(lease.address)?;
    backup.announce(lease.address)?;
    let conflict = conflict_about(&agent, lease.address)?;
    assert!(["clone", "duplicate"].iter().any(|kind| conflict["kind"] == *kind), "{conflict}");
    Ok(())
}

/// Two macvlans of one sandbox answer for each other. Between ports it would be a flap (claims.md A35).
#[test]
fn a33_a_port_that_changes_its_mac_is_no_conflict_and_to_and_fro_no_flap() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let sandbox = lab.sandbox("changing")?;
    let lease = agent.allocate("changing")?;
    agent.await_port(&sandbox)?;
    let marker = Marker::new(&lab, &agent)?;
    let socket = sandbox.raw_socket()?;
    // What is told of each MAC is limited to one a second.
    for _ in 0..4 {
        for mac in [0x100, 0x101].map(Mac::numbered) {
            socket.send(&Arp::announcement(mac, lease.address).frame())?;
            std::thread::park_timeout(std::time::Duration::from_millis(600));
        }
    }
    let others = marker.incidents(&agent)?;
    assert!(others.is_empty(), "{others:?}");
    Ok(())
}

#[test]
fn a08_an_owner_that_defends_itself_is_counted_in_the_same_incident() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let (owner, thief) = (lab.sandbox("owner")?, lab.sandbox("thief")?);
    let lease = agent.admit(&owner)?;
    agent.await_port(&thief)?;
    owner.announce(lease.address)?;
    thief.announce(lease.address)?;
    conflict_about(&agent, lease.address)?;
    owner.announce(lease.address)?;
    let conflict = guard_tests::eventually("a flap", || {
        let conflicts = agent.list(&["conflicts"], "conflicts")?;
        Ok(conflicts.into_iter().find(|conflict| conflict["flaps"] == 1))
    })?;
    assert_eq!(conflict["kind"], "duplicate", "{conflict}");
    Ok(())
}

#[test]
fn l01_a_bound_mac_that_never_spoke_is_known_on_its_port() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let (owner, thief) = (lab.sandbox("owner")?, lab.sandbox("cloner")?);
    let lease = agent.allocate("owner")?;
    agent.bind(&lease, &owner)?;
    agent.await_port(&thief)?;
    let mut frame = Arp::probe(owner.mac(), GATEWAY).frame();
    frame.splice(12..14, [0x88, 0xb5]);
    // By the owner it is nothing.
    owner.raw_socket()?.send(&frame)?;
    let conflicts = agent.follow(&["conflicts"])?;
    thief.raw_socket()?.send(&frame)?;
    let (_, conflict) = conflicts.next(|conflict| conflict["kind"] == "clone")?;
    for part in ["owner", "impostor", thief.port(), owner.port()] {
        assert!(conflict.to_string().contains(part), "{part} is not in {conflict}");
    }
    agent.check()?;

    // Once it is bound to the other port, that is where it is.
    let marker = Marker::new(&lab, &agent)?;
    let moved = lab.sandbox_with("moved", BRIDGE, owner.mac())?;
    agent.bind(&lease, &moved)?;
    let before = marker.incidents(&agent)?.len();
    moved.raw_socket()?.send(&frame)?;
    marker.thief.announce(marker.address)?;
    assert_eq!(agent.list(&["conflicts", "--all"], "conflicts")?.len(), before + 1);
    Ok(())
}

#[test]
fn n01_a04_own_announcements_that_come_back_and_the_gateways_answers_are_nothing() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let sandbox = lab.sandbox("a")?;
    let lease = agent.admit(&sandbox)?;
    let marker = Marker::new(&lab, &agent)?;
    let socket = sandbox.raw_socket()?;
    for _ in 0..3 {
        // RFC 5227: probes, and then announcements; some hubs send them back.
        socket.send(&Arp::probe(sandbox.mac(), lease.address).frame())?;
        socket.send(&Arp::announcement(sandbox.mac(), lease.address).frame())?;
        sandbox.ask(lease.address, GATEWAY)?;
        socket.receive(TIMEOUT, |frame| Arp::parse(frame).filter(|arp| arp.spa == GATEWAY))?;
    }
    let others = marker.incidents(&agent)?;
    assert!(others.is_empty(), "{others:?}");
    // The same answer, and not from the host.
    socket.send(&Arp::reply(sandbox.mac(), GATEWAY, Mac::BROADCAST, lease.address).frame())?;
    assert_eq!(conflict_about(&agent, GATEWAY)?["severity"], "critical");
    Ok(())
}

#[test]
fn a32_a_sandbox_that_is_removed_late_has_moved_and_one_that_stays_has_not() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let old = lab.sandbox("old")?;
    let new = lab.sandbox("new")?;
    let lease = agent.allocate("moving")?;
    for sandbox in [&old, &new] {
        agent.await_port(sandbox)?;
    }
    let marker = Marker::new(&lab, &agent)?;
    old.announce(lease.address)?;
    new.announce(lease.address)?;
    // It answers to nobody, and goes within the grace.
    old.delete()?;
    let others = marker.incidents(&agent)?;
    assert!(others.is_empty(), "{others:?}");

    let third = lab.sandbox("third")?;
    agent.await_port(&third)?;
    new.add_address(lease.address)?;
    third.announce(lease.address)?;
    assert_eq!(conflict_about(&agent, lease.address)?["kind"], "duplicate");
    Ok(())
}

#[test]
fn n07_a_holder_of_an_ipv6_address_is_asked_before_it_is_a_conflict() -> Result<()> {
    let lab = Lab::new()?;
    // Only an answer can decide.
    let config = lab.config()?.with("[conflict]\ngrace = \"1h\"")?;
    let agent = lab.agent_with(Launch::config(&config)?)?;
    let (holder, thief) = (lab.sandbox("holder")?, lab.sandbox("thief")?);
    for sandbox in [&holder, &thief] {
        agent.await_port(sandbox)?;
    }
    // Its own advertisement makes it the holder, and the kernel behind it answers for it.
    // Where IPv6 is off by default, it is here too.
    let off = "/proc/sys/net/ipv6/conf/eth0/disable_ipv6";
    holder.netns().run(|| std::fs::write(off, "0"))??;
    holder.netns().ip("address add fe80::1/64 dev eth0 nodad")?;
    holder.raw_socket()?.send(&guard_tests::router_advertisement(holder.mac())?)?;
    guard_tests::eventually("the holder", || {
        let live = agent.list(&["live"], "live")?;
        Ok(live.iter().any(|entry| entry["address"] == "fe80::1").then_some(()))
    })?;
    let conflicts = agent.follow(&["conflicts"])?;
    thief.raw_socket()?.send(&guard_tests::router_advertisement(thief.mac())?)?;
    let (_, conflict) = conflicts.next(|conflict| conflict["address"] == "fe80::1")?;
    assert_eq!(conflict["kind"], "duplicate", "{conflict}");
    Ok(())
}
