//! What a port leads to (claims.md, "ports"), and where the gateway is at home (claims.md A20).

use std::net::Ipv4Addr;

use anyhow::Result;
use guard_tests::{Agent, Arp, BRIDGE, GATEWAY, Lab, Launch, Mac, Sandbox, eventually};
use serde_json::Value;

use crate::claims::settle;

/// A bridge on which the host has no address: its gateway is a router somewhere else.
const LAN: &str = "lan0";
/// A bridge of the host's that is no business of guard's, beyond which the router is.
const BEYOND: &str = "beyond0";
/// The port of [`LAN`] that leads there: a veth, whose peer is a port here.
const OUT: &str = "out0";
const MARKER: Ipv4Addr = Ipv4Addr::new(10, 8, 64, 9);

/// The agent, the router, and two sandboxes.
struct Net {
    agent: Agent,
    router: Sandbox,
    sandboxes: [Sandbox; 2],
    _lab: Lab,
}

/// `bridge` and `pool`: what their sections say besides.
fn net(bridge: &str, pool: &str) -> Result<Net> {
    let lab = Lab::new()?;
    lab.add_bridge(LAN)?;
    lab.add_bridge(BEYOND)?;
    // What the host has on another bridge is nobody's here either.
    lab.host().ip(&format!(
        "address flush dev {BRIDGE}\n\
         link add {OUT} type veth peer name in0\n\
         link set {OUT} master {LAN}\nlink set {OUT} up\n\
         link set in0 master {BEYOND}\nlink set in0 up"
    ))?;
    let config = lab.config()?.with(&format!(
        "[[bridge]]\nname = {LAN:?}\n{bridge}\n\
         [[pool]]\nname = \"p\"\nbridge = {LAN:?}\nprefix = \"10.8.64.0/24\"\n{pool}"
    ))?;
    let agent = lab.agent_with(Launch::config(&config)?)?;
    let router = lab.sandbox_with("router", BEYOND, Mac::numbered(0x41))?;
    router.add_address(GATEWAY)?;
    let one = lab.sandbox_with("one", LAN, Mac::numbered(0x51))?;
    let other = lab.sandbox_with("other", LAN, Mac::numbered(0x52))?;
    agent.await_port(&one)?;
    agent.await_port(&other)?;
    Ok(Net { agent, router, sandboxes: [one, other], _lab: lab })
}

impl Net {
    fn port(&self, name: &str) -> Result<Value> {
        let ports = self.agent.list(&["ports"], "ports")?;
        Ok(ports.into_iter().find(|port| port["interface"] == name).unwrap_or_default())
    }

    /// Waits until a station has the gateway.
    fn gateway_lives(&self, on: &str) -> Result<()> {
        let gateway = GATEWAY.to_string();
        eventually("the gateway at home", || {
            let live = self.agent.list(&["live"], "live")?;
            let is = |one: &&Value| one["address"] == gateway.as_str() && one["interface"] == on;
            Ok(live.iter().find(is).map(drop))
        })
    }

    /// The incident about the gateway's address.
    fn told(&self) -> Result<Value> {
        let gateway = GATEWAY.to_string();
        let conflicts = self.agent.follow(&["conflicts"])?;
        conflicts.next(|found| found["address"] == gateway.as_str()).map(|(_, found)| found)
    }

    /// All incidents, once everything that was sent before is judged.
    fn settled(&self) -> Result<Vec<Value>> {
        self.sandboxes[0].announce(MARKER)?;
        self.sandboxes[0].add_address(MARKER)?;
        settle(&self.agent, &self.sandboxes[1], MARKER)
    }
}

#[test]
fn a_port_that_nobody_has_named_is_asked_about_and_judged_as_an_uplink() -> Result<()> {
    let net = net("", "")?;
    let port = net.port(OUT)?;
    assert_eq!((&port["kind"], &port["covered"]), (&"unknown".into(), &true.into()), "{port}");
    let why = port["kind_why"].as_str().unwrap_or_default();
    assert!(why.contains(BEYOND) && why.contains("uplinks"), "{why}");
    let sandbox = net.port(net.sandboxes[0].port())?;
    assert_eq!(sandbox["kind"], "access", "{sandbox}");
    let status = net.agent.json(&["status", "--live"])?;
    assert_eq!(status["ready"], true);
    let asks = status["bridges"][0]["unknown"][0].as_str().unwrap_or_default().to_owned();
    assert!(asks.starts_with(OUT), "{status}");
    net.agent.journal().await_line(&["WARN", "what a port leads to is not known", OUT])?;
    // The router is no impostor, and the LAN behind it is more than one sandbox's addresses.
    net.router.announce(GATEWAY)?;
    for host in 100..140 {
        net.router.announce(Ipv4Addr::new(10, 8, 64, host))?;
    }
    net.gateway_lives(OUT)?;
    eventually("the LAN behind it", || {
        Ok((net.port(OUT)?["addresses"].as_u64() >= Some(41)).then_some(()))
    })?;
    let mut others = net.settled()?;
    others.retain(|other| other["kind"] != "unowned");
    assert!(others.is_empty(), "{others:?}");
    // Its twin, from a sandbox.
    net.sandboxes[0].announce(GATEWAY)?;
    let told = net.told()?;
    assert_eq!((&told["kind"], &told["severity"]), (&"gateway".into(), &"critical".into()));
    net.agent.stop()
}

#[test]
fn a_port_that_access_names_is_a_sandboxs() -> Result<()> {
    let net = net(&format!("access = [{OUT:?}]"), "")?;
    assert_eq!(net.port(OUT)?["kind"], "access");
    net.router.announce(GATEWAY)?;
    assert_eq!(net.told()?["kind"], "gateway");
    let status = net.agent.json(&["status", "--live"])?;
    assert_eq!(status["bridges"][0]["unknown"], serde_json::json!([]), "{status}");
    net.agent.stop()
}

#[test]
fn the_kind_follows_what_the_host_does_with_the_peer() -> Result<()> {
    let net = net("", "")?;
    let kind = |expected: &str| {
        eventually(expected, || Ok((net.port(OUT)?["kind"] == expected).then_some(())))
    };
    net.agent.host().ip("link set in0 nomaster")?;
    kind("access")?;
    net.agent.host().ip("address add 192.0.2.1/24 dev in0")?;
    kind("unknown")?;
    assert!(net.agent.list(&["conflicts", "--all"], "conflicts")?.is_empty());
    net.agent.stop()
}

/// A frame that claims no address.
fn bare(mac: Mac) -> Vec<u8> {
    [&[0xff; 6][..], &mac.octets(), &[0x88, 0xb5], &[0; 46]].concat()
}

#[test]
fn l01_one_bare_frame_with_the_mac_of_the_gateway_behind_an_uplink_is_told() -> Result<()> {
    let net = net(&format!("uplinks = [{OUT:?}]"), "")?;
    assert_eq!(net.port(OUT)?["kind"], "uplink");
    net.router.announce(GATEWAY)?;
    net.gateway_lives(OUT)?;
    // Its twin: a host behind the uplink that is nobody's gateway.
    let other = Mac::numbered(0x42);
    net.router
        .raw_socket()?
        .send(&Arp::announcement(other, Ipv4Addr::new(10, 8, 64, 99)).frame())?;
    let thief = net.sandboxes[0].raw_socket()?;
    thief.send(&bare(other))?;
    thief.send(&bare(net.router.mac()))?;
    let conflicts = net.agent.follow(&["conflicts"])?;
    let (_, found) = conflicts.next(|found| found["kind"] == "clone")?;
    assert_eq!((&found["severity"], &found["address"]), (&"critical".into(), &Value::Null));
    let role = |port: &str| {
        let claimants = found["claimants"].as_array().into_iter().flatten();
        claimants.filter(|one| one["interface"] == port).map(|one| &one["role"]).next()
    };
    assert_eq!(role(OUT), Some(&"owner".into()), "{found}");
    assert_eq!(role(net.sandboxes[0].port()), Some(&"impostor".into()), "{found}");
    let others = net.settled()?;
    assert!(
        others.iter().all(|one| one["kind"] == "clone" || one["kind"] == "unowned"),
        "{others:?}"
    );
    assert_eq!(others.iter().filter(|one| one["kind"] == "clone").count(), 1, "{others:?}");
    net.agent.stop()
}

#[test]
fn a20_a_gateway_that_is_a_guest_is_at_home_on_its_own_port_alone() -> Result<()> {
    let net = net(&format!("uplinks = [{OUT:?}]"), "gateway_ports = [\"*-on?\"]")?;
    let [guest, other] = &net.sandboxes;
    guest.announce(GATEWAY)?;
    net.gateway_lives(guest.port())?;
    assert!(net.settled()?.iter().all(|one| one["kind"] == "unowned"));
    // Its twin: from an uplink it is stolen, and from another sandbox.
    net.router.announce(GATEWAY)?;
    let told = net.told()?;
    assert_eq!((&told["kind"], &told["severity"]), (&"gateway".into(), &"critical".into()));
    assert_eq!(told["claimants"][0]["interface"], OUT, "{told}");
    other.announce(GATEWAY)?;
    let conflicts = net.agent.follow(&["conflicts"])?;
    conflicts.next(|found| {
        let claimants = found["claimants"].as_array().into_iter().flatten();
        found["kind"] == "gateway" && claimants.filter(|one| one["role"] == "impostor").count() == 2
    })?;
    net.agent.stop()
}

#[test]
fn a20_where_there_is_no_gateway_its_address_is_any_other() -> Result<()> {
    let net = net("", "gateway = \"none\"")?;
    let pools = net.agent.list(&["pools"], "pools")?;
    assert_eq!((&pools[0]["gateway"], &pools[0]["capacity"]), (&Value::Null, &254.into()));
    net.sandboxes[0].announce(GATEWAY)?;
    let found = net.told()?;
    assert_eq!(found["kind"], "unowned", "{found}");
    net.agent.stop()
}
