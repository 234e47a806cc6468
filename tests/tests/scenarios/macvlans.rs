//! What is on the bridge device itself: a macvlan of the host's, and one in another namespace, which no port
//! sees. And the host by a device beside the bridge.

use std::net::Ipv4Addr;

use anyhow::{Result, ensure};
use guard_tests::{Agent, Arp, BRIDGE, GATEWAY, Lab, Launch, Mac, POOL, RawSocket, eventually};

const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 8, 64, 60);

fn make(lab: &Lab, mac: Mac) -> Result<()> {
    lab.host()
        .ip(&format!("link add link {BRIDGE} name shim address {mac} type macvlan mode bridge"))
}

fn degraded(agent: &Agent) -> Result<Vec<String>> {
    let status = agent.json(&["status", "--live"])?;
    let all = status["degraded"].as_array().cloned().unwrap_or_default();
    Ok(all.iter().map(ToString::to_string).collect())
}

#[test]
fn what_a_macvlan_on_the_bridge_has_is_the_hosts_and_in_another_namespace_status_names_it()
-> Result<()> {
    let lab = Lab::new()?;
    let (mac, elsewhere) = (Mac::numbered(0x51), lab.container("elsewhere")?);
    make(&lab, mac)?;
    lab.host().ip(&format!("address add {ADDRESS}/24 dev shim\nlink set shim up"))?;
    let config = lab.config()?.with("[conflict]\nlive_window = \"1s\"")?;
    let agent = lab.agent_with(Launch::config(&config)?)?;
    let address = ADDRESS.to_string();
    let asked = ["allocate", "--pool", POOL, "--sandbox", "next", "--address", &address];
    agent.ctl(&asked)?.refusal()?;
    assert!(degraded(&agent)?.is_empty(), "{:?}", degraded(&agent)?);

    lab.host().ip(&format!("link set shim netns {}", elsewhere.name()))?;
    elsewhere.ip("link set shim up")?;
    let named = eventually("the macvlan in status", || {
        Ok(degraded(&agent)?.into_iter().find(|one| one.contains(&mac.to_string())))
    })?;
    ensure!(named.contains(&format!("bridge {BRIDGE}: macvlans")), "{named}");
    // That refuses nobody an address.
    agent.allocate("other")?;
    elsewhere.ip("link delete shim")?;
    agent.await_readyz(200)?;
    Ok(())
}

#[test]
fn what_a_macvlan_elsewhere_has_spoken_with_is_not_handed_out_until_it_is_gone() -> Result<()> {
    let lab = Lab::new()?;
    let (mac, elsewhere) = (Mac::numbered(0x51), lab.container("elsewhere")?);
    let sandbox = lab.sandbox("bound")?;
    let config = lab.config()?.with("[conflict]\nlive_window = \"1s\"")?;
    let agent = lab.agent_with(Launch::config(&config)?)?;
    agent.await_port(&sandbox)?;
    make(&lab, mac)?;
    lab.host().ip(&format!("link set shim netns {}", elsewhere.name()))?;
    elsewhere.ip("link set shim up")?;
    eventually("the macvlan in status", || {
        Ok(degraded(&agent)?.into_iter().find(|one| one.contains(&mac.to_string())))
    })?;
    // One that has said nothing is known by nothing.
    let address = ADDRESS.to_string();
    let asked = ["allocate", "--pool", POOL, "--sandbox", "next", "--address", &address];
    let socket = RawSocket::open(&elsewhere, "shim")?;
    socket.send(&Arp::announcement(mac, ADDRESS).frame())?;
    eventually("evidence of the macvlan", || {
        let why = agent.json(&["why", &address])?.to_string();
        Ok(why.contains("address of a macvlan").then_some(()))
    })?;
    agent.ctl(&asked)?.refusal()?;

    // What is bound to a port is its owner's, and the macvlan that takes it a claimant.
    let bound_mac = sandbox.mac().to_string();
    let bound = ["allocate", "--pool", POOL, "--sandbox", sandbox.name(), "--mac", &bound_mac];
    let taken = agent.lease(&[&bound[..], &["--interface", sandbox.port()]].concat())?.address;
    // What it has without a lease is told as such.
    let duplicates = || {
        let open = agent.list(&["conflicts"], "conflicts")?;
        Ok::<_, anyhow::Error>(open.into_iter().filter(|one| one["kind"] != "unowned").collect())
    };
    let before: Vec<_> = duplicates()?;
    ensure!(before.is_empty(), "{before:?}");
    socket.send(&Arp::announcement(mac, taken).frame())?;
    let open = eventually("the conflict", || {
        let open: Vec<_> = duplicates()?;
        Ok((!open.is_empty()).then_some(open))
    })?;
    ensure!(open.len() == 1 && open[0]["kind"] == "duplicate", "{open:?}");
    ensure!(open[0].to_string().contains(&mac.to_string()), "{open:?}");

    elsewhere.ip("link delete shim")?;
    eventually("the end of the evidence", || {
        let why = agent.json(&["why", &address])?.to_string();
        Ok((!why.contains("address of a macvlan")).then_some(()))
    })?;
    eventually("the end of the conflict", || {
        let open: Vec<_> = duplicates()?;
        Ok(open.is_empty().then_some(()))
    })?;
    Ok(())
}

#[test]
fn a21_the_host_by_a_device_beside_the_bridge_is_no_impostor_and_another_station_there_is()
-> Result<()> {
    let lab = Lab::new()?;
    let beside = Mac::numbered(0x52);
    lab.host().ip(&format!(
        "link add leads type veth peer name beside address {beside}\n\
         address add 10.8.64.250/32 dev beside\n\
         link set beside up\nlink set leads master {BRIDGE} up"
    ))?;
    let agent = lab.agent()?;
    eventually("the port", || {
        let ports = agent.list(&["ports"], "ports")?;
        Ok(ports.into_iter().find(|port| port["interface"] == "leads" && port["covered"] == true))
    })?;
    let socket = RawSocket::open(lab.host(), "beside")?;
    let announce = |mac| socket.send(&Arp::announcement(mac, GATEWAY).frame());
    announce(beside)?;
    announce(Mac::numbered(0x53))?;
    let open = eventually("the impostor", || {
        let open = agent.list(&["conflicts"], "conflicts")?;
        Ok((!open.is_empty()).then_some(open))
    })?;
    ensure!(open.len() == 1 && open[0]["kind"] == "gateway", "{open:?}");
    let said = open[0].to_string();
    ensure!(said.contains(&Mac::numbered(0x53).to_string()), "{said}");
    ensure!(!said.contains(&beside.to_string()), "{said}");
    agent.journal().await_line(&["beside the bridge", &beside.to_string()])?;
    Ok(())
}
