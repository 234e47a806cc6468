//! What comes back from beyond the bridge: by a loop, through a port that spanning tree has blocked, or
//! by a repeater (claims.md L01b, A18, A10).

use std::{net::Ipv4Addr, time::Duration};

use anyhow::{Context, Result, ensure};
use guard_tests::{
    Agent, Arp, BRIDGE, GATEWAY, Lab, Launch, Mac, RawSocket, Sandbox, TIMEOUT, eventually,
    ipv4_udp,
};
use serde_json::Value;

use crate::claims::settle;

/// A bridge of the host's on which the tests are: [`BRIDGE`] is the lab's.
const LAN: &str = "lan0";
/// A bridge beyond it, which is no business of guard's.
const BEYOND: &str = "beyond0";
const MARKER: Ipv4Addr = Ipv4Addr::new(10, 8, 64, 9);
/// One more than the grace.
const AFTER: Duration = Duration::from_secs(3);

/// A lab whose gateway is on [`LAN`], the agent, and two sandboxes.
struct Net {
    agent: Agent,
    sandboxes: [Sandbox; 2],
    lab: Lab,
}

fn net(uplinks: &str) -> Result<Net> {
    let lab = Lab::new()?;
    lab.add_bridge(LAN)?;
    lab.host().ip(&format!("address flush dev {BRIDGE}\naddress add {GATEWAY}/24 dev {LAN}"))?;
    let config = lab.config()?.with(&format!(
        "[[bridge]]\nname = {LAN:?}\nuplinks = [{uplinks}]\n\
         [[pool]]\nname = \"p\"\nbridge = {LAN:?}\nprefix = \"10.8.64.0/24\""
    ))?;
    let agent = lab.agent_with(Launch::config(&config)?)?;
    let one = lab.sandbox_with("one", LAN, Mac::numbered(0x51))?;
    let other = lab.sandbox_with("other", LAN, Mac::numbered(0x52))?;
    agent.await_port(&one)?;
    agent.await_port(&other)?;
    Ok(Net { agent, sandboxes: [one, other], lab })
}

impl Net {
    /// Frames of a port that the program has seen.
    fn frames(&self, port: &str) -> Result<u64> {
        let ports = self.agent.list(&["ports"], "ports")?;
        let port = ports.into_iter().find(|one| one["interface"] == port);
        port.and_then(|port| port["frames"].as_u64()).context("no such port")
    }

    /// A frame of the host's own, out of the bridge.
    fn host_sends(&self, frame: &[u8]) -> Result<()> {
        RawSocket::open(self.lab.host(), LAN)?.send(frame)
    }

    /// All incidents but of what nobody has leased, once everything that was sent before is judged.
    fn settled(&self) -> Result<Vec<Value>> {
        self.sandboxes[0].announce(MARKER)?;
        self.sandboxes[0].add_address(MARKER)?;
        let mut all = settle(&self.agent, &self.sandboxes[1], MARKER)?;
        all.retain(|one| one["kind"] != "unowned");
        Ok(all)
    }
}

/// A frame that claims no address, to a group or to a station.
fn bare(to: Mac, mac: Mac) -> Vec<u8> {
    [&to.octets()[..], &mac.octets(), &[0x88, 0xb5], &[0; 46]].concat()
}

const ALL: Mac = Mac::BROADCAST;

/// Lets time pass, and takes in what comes meanwhile.
fn pass(socket: &RawSocket, time: Duration) {
    let nothing: Result<()> = socket.receive(time, |_| None);
    drop(nothing);
}

#[test]
fn l01b_an_uplink_that_sends_our_broadcasts_back_is_one_loop_and_nobody_an_impostor() -> Result<()>
{
    let net = net("\"veth-peer\"")?;
    let peer = net.lab.sandbox_with("peer", LAN, Mac::numbered(0x60))?;
    net.agent.await_port(&peer)?;
    let reflector = peer.raw_socket()?;
    let [one, _] = &net.sandboxes;
    let address = Ipv4Addr::new(10, 8, 64, 7);
    one.add_address(address)?;
    let host = net.lab.bridge_mac(LAN);
    let sent = [
        Arp::announcement(one.mac(), address).frame(),
        Arp::probe(one.mac(), Ipv4Addr::new(10, 8, 64, 8)).frame(),
        bare(ALL, one.mac()),
        Arp::announcement(host, GATEWAY).frame(),
        bare(ALL, host),
    ];
    for (number, frame) in sent.iter().enumerate() {
        if number < 3 {
            one.raw_socket()?.send(frame)?;
        } else {
            net.host_sends(frame)?;
        }
        reflector.receive(TIMEOUT, |came| came.starts_with(frame).then_some(()))?;
        reflector.send(frame)?;
    }
    let conflicts = net.agent.follow(&["conflicts"])?;
    let (_, told) = conflicts.next(|found| found["kind"] == "loop")?;
    assert_eq!((&told["severity"], &told["address"]), (&"warning".into(), &Value::Null), "{told}");
    assert_eq!(told["claimants"].as_array().map(Vec::len), Some(1), "{told}");
    assert_eq!(told["claimants"][0]["interface"], peer.port(), "{told}");
    assert_eq!(told["claimants"][0]["role"], "claimant", "{told}");
    pass(&reflector, AFTER);
    let others = net.settled()?;
    assert!(others.iter().all(|one| one["kind"] == "loop"), "{others:?}");
    assert_eq!(others.len(), 1, "{others:?}");
    // Its twins: what is sent to one station is no loop's.
    reflector.send(&bare(net.sandboxes[1].mac(), one.mac()))?;
    conflicts.next(|found| found["kind"] == "clone")?;
    reflector.send(&bare(net.sandboxes[1].mac(), host))?;
    conflicts.next(|found| found["kind"] == "gateway")?;
    net.agent.stop()
}

#[test]
fn a18_a_port_that_spanning_tree_has_blocked_claims_nothing() -> Result<()> {
    let net = net("\"out0\", \"out1\"")?;
    let host = net.lab.host();
    let [one, other] = &net.sandboxes;
    let lease = net.agent.lease(&["allocate", "--pool", "p", "--sandbox", one.name()])?;
    one.add_address(lease.address)?;
    net.agent.bind(&lease, one)?;
    net.lab.add_bridge(BEYOND)?;
    // Two links to one bridge, which passes spanning tree on: as fast as it goes.
    host.ip(&format!("link set {LAN} type bridge forward_delay 200 hello_time 100 stp_state 1"))?;
    for number in [0, 1] {
        host.ip(&format!(
            "link add out{number} type veth peer name in{number}\n\
             link set in{number} master {BEYOND}\nlink set in{number} up\n\
             link set out{number} master {LAN}\nlink set out{number} up"
        ))?;
    }
    let state = |port: &str| -> Result<String> {
        let output = host.command("bridge").args(["-j", "link", "show", "dev", port]).output()?;
        let found: Value = serde_json::from_slice(&output.stdout)?;
        Ok(found[0]["state"].as_str().unwrap_or_default().to_owned())
    };
    eventually("one link to be blocked, and the other to forward", || {
        let states = [state("out0")?, state("out1")?];
        Ok((states == ["forwarding", "blocking"]).then_some(()))
    })?;
    eventually("a sandbox that can be heard", || {
        Ok((state(one.port())? == "forwarding").then_some(()))
    })?;
    let before = net.frames("out1")?;
    one.announce(lease.address)?;
    one.raw_socket()?.send(&bare(ALL, one.mac()))?;
    let mac = net.lab.bridge_mac(LAN);
    net.host_sends(&Arp::announcement(mac, GATEWAY).frame())?;
    eventually("what comes back", || Ok((net.frames("out1")? >= before + 3).then_some(())))?;
    // Behind it is nobody whose claim would count, whatever it is.
    let far = RawSocket::open(host, "in1")?;
    far.send(&Arp::announcement(Mac::numbered(0x66), lease.address).frame())?;
    far.send(&bare(other.mac(), one.mac()))?;
    pass(&far, AFTER);
    let others = net.settled()?;
    assert!(others.is_empty(), "{others:?}");
    // Its twin: through the link that forwards it is a theft.
    let far = RawSocket::open(host, "in0")?;
    far.send(&Arp::announcement(Mac::numbered(0x66), lease.address).frame())?;
    let conflicts = net.agent.follow(&["conflicts"])?;
    let address = lease.address.to_string();
    let (_, told) = conflicts.next(|found| found["address"] == address.as_str())?;
    ensure!(told.to_string().contains("out0"), "{told}");
    net.agent.stop()
}

#[test]
fn l01b_a_station_of_an_uplink_is_asked_there_before_it_is_called_a_clone() -> Result<()> {
    let net = net("\"veth-peer\"")?;
    let peer = net.lab.sandbox_with("peer", LAN, Mac::numbered(0x60))?;
    net.agent.await_port(&peer)?;
    let address = Ipv4Addr::new(10, 8, 64, 77);
    peer.add_address(address)?;
    peer.announce(address)?;
    let live = || {
        let live = net.agent.list(&["live"], "live")?;
        let is = |one: &Value| one["interface"] == peer.port() && one["address"] == "10.8.64.77";
        Ok(live.iter().any(is).then_some(()))
    };
    eventually("the station", live)?;
    let [one, other] = &net.sandboxes;
    // It answers there.
    one.raw_socket()?.send(&bare(other.mac(), peer.mac()))?;
    let conflicts = net.agent.follow(&["conflicts"])?;
    let (_, told) = conflicts.next(|found| found["kind"] == "clone")?;
    for port in [one.port(), peer.port()] {
        assert!(told.to_string().contains(port), "{told}");
    }
    // Its twin: one that has come here is silent there.
    let moved = Mac::numbered(0x61);
    let address = Ipv4Addr::new(10, 8, 64, 78);
    let socket = peer.raw_socket()?;
    socket.send(&Arp::announcement(moved, address).frame())?;
    eventually("the other station", || {
        let live = net.agent.list(&["live"], "live")?;
        Ok(live.iter().any(|one| one["address"] == "10.8.64.78").then_some(()))
    })?;
    other.raw_socket()?.send(&bare(one.mac(), moved))?;
    socket.receive(TIMEOUT, |frame| Arp::parse(frame).filter(|arp| arp.tpa == address))?;
    net.agent.journal().await_line(&["INFO", "a MAC has moved", &moved.to_string()])?;
    let others = net.settled()?;
    assert!(!format!("{others:?}").contains(&moved.to_string()), "{others:?}");
    net.agent.stop()
}

#[test]
fn a10_a_relay_is_told_once_and_is_no_duplicate() -> Result<()> {
    let net = net("\"veth-peer\"")?;
    let peer = net.lab.sandbox_with("peer", LAN, Mac::numbered(0x60))?;
    net.agent.await_port(&peer)?;
    let (station, address) = (Mac::numbered(0x70), Ipv4Addr::new(10, 8, 64, 70));
    let socket = peer.raw_socket()?;
    let mut claim = Arp::request(station, address, GATEWAY).frame();
    claim[6..12].copy_from_slice(&peer.mac().octets());
    let packet = ipv4_udp((peer.mac(), net.lab.bridge_mac(LAN)), address, GATEWAY)?;
    for _ in 0..4 {
        socket.send(&claim)?;
        socket.send(&packet)?;
        pass(&socket, Duration::from_secs(1));
    }
    net.agent.journal().await_line(&["INFO", "sends for another", &address.to_string()])?;
    let others = net.settled()?;
    assert!(others.is_empty(), "{others:?}");
    // Its twin: who says that the address is its own.
    socket.send(&Arp::announcement(peer.mac(), address).frame())?;
    let conflicts = net.agent.follow(&["conflicts"])?;
    conflicts.next(|found| found["kind"] == "duplicate")?;
    net.agent.stop()
}
