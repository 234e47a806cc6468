//! An address that has a new holder: whoever has talked to the last one talks to the new one, and
//! does not have to ask.

use std::net::{IpAddr, UdpSocket};

use anyhow::{Context, Result, ensure};
use guard_tests::{
    Agent, Arp, BRIDGE, GATEWAY, Lab, Launch, Mac, Netns, POOL, Sandbox, TIMEOUT, eventually, run,
};
use serde_json::Value;

/// A pool of each family.
struct Family {
    pool: &'static str,
    address: &'static str,
    prefix_len: u8,
}

const IPV4: Family = Family { pool: POOL, address: "10.8.64.7", prefix_len: 24 };
const IPV6: Family = Family { pool: "six", address: "fd00:8::7", prefix_len: 64 };

/// An agent whose addresses are free as soon as they are released.
fn start(lab: &Lab) -> Result<Agent> {
    let config = lab.config()?.with_pool("cooldown", "\"1ms\"")?.text()?;
    let six = format!(
        "[[pool]]\nname = \"six\"\nbridge = {BRIDGE:?}\nprefix = \"fd00:8::/64\"\n\
         cooldown = \"1ms\"\n"
    );
    lab.agent_with(Launch::text(&format!("{config}\n{six}")))
}

/// Has a namespace use an address of a family, without a word.
fn configure(netns: &Netns, device: &str, address: &str, family: &Family) -> Result<()> {
    let Family { prefix_len, .. } = family;
    if family.pool == IPV4.pool {
        return netns.ip(&format!("address add {address}/{prefix_len} dev {device}"));
    }
    // Where IPv6 is off by default, it is here too.
    let off = format!("/proc/sys/net/ipv6/conf/{device}/disable_ipv6");
    netns.run(|| std::fs::write(off, "0"))??;
    netns.ip(&format!("address add {address}/{prefix_len} dev {device} nodad"))
}

/// Allocates an address: this one, or any.
fn allocate(
    agent: &Agent,
    sandbox: &Sandbox,
    family: &Family,
    address: Option<&str>,
) -> Result<(String, String)> {
    let mut args = vec!["allocate", "--pool", family.pool, "--sandbox", sandbox.name()];
    args.extend(address.into_iter().flat_map(|address| ["--address", address]));
    let lease = agent.json(&args)?;
    let address = lease["address"].as_str().context("no address")?.to_owned();
    Ok((address, lease["generation"].to_string()))
}

fn bind(agent: &Agent, sandbox: &Sandbox, generation: &str) -> Result<()> {
    let mac = sandbox.mac().to_string();
    let args = ["bind", "--generation", generation, "--mac", &mac, "--interface", sandbox.port()];
    agent.json(&args).map(drop)
}

/// A sandbox that has and uses an address of its own.
fn admit(agent: &Agent, sandbox: &Sandbox, family: &Family, at: Option<&str>) -> Result<String> {
    let (address, generation) = allocate(agent, sandbox, family, at)?;
    configure(sandbox.netns(), "eth0", &address, family)?;
    bind(agent, sandbox, &generation)?;
    Ok(generation)
}

/// The MAC that a namespace believes an address to have.
fn neighbour(netns: &Netns, device: &str, address: &str) -> Result<Option<String>> {
    let args = ["-n", netns.name(), "-json", "neighbour", "show", "to", address, "dev", device];
    let shown: Vec<Value> = serde_json::from_str(&run("ip", &args)?)?;
    Ok(shown.first().and_then(|entry| Some(entry["lladdr"].as_str()?.to_owned())))
}

/// Has a namespace talk to an address, and waits until it believes to know whose it is.
fn talk(netns: &Netns, device: &str, address: &str, mac: Mac) -> Result<()> {
    let to: IpAddr = address.parse()?;
    netns.run(|| -> Result<()> {
        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        UdpSocket::bind(any)?.send_to(b"hello", (to, 9)).map(drop).context("sending")
    })??;
    await_neighbour(netns, device, address, mac)
}

fn await_neighbour(netns: &Netns, device: &str, address: &str, mac: Mac) -> Result<()> {
    eventually(&format!("{address} at {mac} in {}", netns.name()), || {
        Ok((neighbour(netns, device, address)? == Some(mac.to_string())).then_some(()))
    })
}

/// Where the bridge believes a MAC to be.
fn places(lab: &Lab, mac: Mac) -> Result<Vec<String>> {
    let args = ["-n", lab.host().name(), "-json", "fdb", "show", "br", BRIDGE];
    let entries: Vec<Value> = serde_json::from_str(&run("bridge", &args)?)?;
    let mac = mac.to_string();
    let of_mac = entries.iter().filter(|entry| entry["mac"] == mac.as_str());
    Ok(of_mac.filter_map(|entry| Some(entry["ifname"].as_str()?.to_owned())).collect())
}

/// Whether a frame asks for, or tells of, an address.
fn is_about(frame: &[u8], address: IpAddr) -> bool {
    let octets = match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    frame.windows(octets.len()).any(|window| window == octets)
}

/// An old holder that two neighbours and the host have talked to, and that is gone.
struct Gone {
    victims: [Sandbox; 2],
    old: Mac,
}

fn gone(lab: &Lab, agent: &Agent, family: &Family) -> Result<Gone> {
    let address = family.address;
    let victims = [lab.sandbox("victim")?, lab.sandbox("other")?];
    for victim in &victims {
        admit(agent, victim, family, None)?;
    }
    if family.pool == IPV6.pool {
        configure(lab.host(), BRIDGE, "fd00:8::1", family)?;
    }
    let holder = lab.sandbox("old")?;
    let old = holder.mac();
    let generation = admit(agent, &holder, family, Some(address))?;
    for victim in &victims {
        talk(victim.netns(), "eth0", address, old)?;
    }
    talk(lab.host(), BRIDGE, address, old)?;
    holder.delete()?;
    agent.json(&["release", "--generation", &generation])?;
    eventually("a free address", || {
        let leases = agent.list(&["leases", "--sandbox", "old"], "leases")?;
        Ok(leases.is_empty().then_some(()))
    })?;
    Ok(Gone { victims, old })
}

fn a_new_holder_is_announced(family: &Family) -> Result<()> {
    let lab = Lab::new()?;
    let agent = start(&lab)?;
    let address = family.address;
    let Gone { victims, old } = gone(&lab, &agent, family)?;
    let new = lab.sandbox("new")?;
    // It does not use the address yet, so that nobody else can tell of it.
    let (_, generation) = allocate(&agent, &new, family, Some(address))?;
    let (own, at_victim) = (new.raw_socket()?, victims[0].raw_socket()?);
    for victim in &victims {
        assert_eq!(neighbour(victim.netns(), "eth0", address)?, Some(old.to_string()));
    }
    assert_eq!(neighbour(lab.host(), BRIDGE, address)?, Some(old.to_string()));

    bind(&agent, &new, &generation)?;
    for victim in &victims {
        await_neighbour(victim.netns(), "eth0", address, new.mac())?;
    }
    await_neighbour(lab.host(), BRIDGE, address, new.mac())?;

    // Nobody had to ask. Its own frames are in a victim's capture, too, in their order; the last of
    // them is the test's.
    let target: IpAddr = address.parse()?;
    let (marker, mac) = (Arp::probe(victims[0].mac(), GATEWAY).frame(), victims[0].mac().octets());
    // A socket does not receive what it has sent itself.
    victims[0].raw_socket()?.send(&marker)?;
    let mut said = Vec::new();
    at_victim.receive(TIMEOUT, |frame| {
        if frame[6..12] == mac && is_about(frame, target) {
            said.push(frame.to_vec());
        }
        (frame == marker).then_some(())
    })?;
    ensure!(said.is_empty(), "the victim has asked: {said:02x?}");
    // The holder did not hear of itself: what it hears first is the test's.
    own.receive(TIMEOUT, |frame| {
        let wrong = is_about(frame, target) && frame[6..12] == new.mac().octets();
        (frame == marker || wrong).then_some(wrong)
    })
    .and_then(|wrong| {
        ensure!(!wrong, "announced to itself");
        Ok(())
    })?;
    // It was neither a claim nor something that the bridge has learned from.
    let conflicts = agent.list(&["conflicts", "--all"], "conflicts")?;
    ensure!(conflicts.is_empty(), "{conflicts:?}");
    let places = places(&lab, new.mac())?;
    ensure!(places.iter().all(|port| port == new.port()), "its MAC is on {places:?}");
    Ok(())
}

#[test]
fn neighbours_learn_of_a_new_holder_of_an_ipv4_address() -> Result<()> {
    a_new_holder_is_announced(&IPV4)
}

#[test]
fn neighbours_learn_of_a_new_holder_of_an_ipv6_address() -> Result<()> {
    a_new_holder_is_announced(&IPV6)
}

#[test]
fn a_new_holder_is_announced_when_its_port_forwards() -> Result<()> {
    let lab = Lab::new()?;
    let agent = start(&lab)?;
    let Gone { victims: [victim, other], old } = gone(&lab, &agent, &IPV4)?;
    let (new, marker) = (lab.sandbox("new")?, lab.sandbox("marker")?);
    new.netns().ip("link set eth0 down")?;
    let (_, generation) = allocate(&agent, &new, &IPV4, Some(IPV4.address))?;
    bind(&agent, &new, &generation)?;
    // Whoever is bound later is announced, and so the first was passed over.
    let heard = victim.raw_socket()?;
    admit(&agent, &marker, &IPV4, None)?;
    heard.receive(TIMEOUT, |frame| {
        Arp::parse(frame).filter(|arp| arp.sha == marker.mac() && arp.spa == arp.tpa)
    })?;
    assert_eq!(neighbour(victim.netns(), "eth0", IPV4.address)?, Some(old.to_string()));
    new.netns().ip("link set eth0 up")?;
    for victim in [&victim, &other] {
        await_neighbour(victim.netns(), "eth0", IPV4.address, new.mac())?;
    }
    Ok(())
}

#[test]
fn a_holder_whose_mac_is_not_declared_is_announced_with_its_first_claim() -> Result<()> {
    let lab = Lab::new()?;
    let agent = start(&lab)?;
    let Gone { victims: [victim, _], old } = gone(&lab, &agent, &IPV4)?;
    let new = lab.sandbox("new")?;
    let (_, generation) = allocate(&agent, &new, &IPV4, Some(IPV4.address))?;
    agent.json(&["bind", "--generation", &generation, "--interface", new.port()])?;
    assert_eq!(neighbour(victim.netns(), "eth0", IPV4.address)?, Some(old.to_string()));
    // A frame that only the host hears.
    let reply = Arp::reply(new.mac(), IPV4.address.parse()?, lab.bridge_mac(BRIDGE), GATEWAY);
    new.raw_socket()?.send(&reply.frame())?;
    await_neighbour(victim.netns(), "eth0", IPV4.address, new.mac())
}
