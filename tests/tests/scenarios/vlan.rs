//! A bridge that filters VLANs: a frame belongs to the VLAN that the bridge puts it in, and what the
//! bridge drops is nothing.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};
use guard_tests::{
    Agent, Arp, BRIDGE, GATEWAY, Lab, Launch, Lease, Mac, POOL, Sandbox, eventually,
};
use serde_json::Value;

/// The types of a customer's tag and of a provider's (IEEE 802.1Q, 802.1ad).
const Q: u16 = 0x8100;
const AD: u16 = 0x88a8;

/// The frame with an 802.1Q tag in it.
fn tagged(vlan: u16, frame: Vec<u8>) -> Vec<u8> {
    with_tags(&[(Q, vlan)], frame)
}

/// The frame with these tags in it, from the outermost one on.
fn with_tags(tags: &[(u16, u16)], mut frame: Vec<u8>) -> Vec<u8> {
    let bytes = tags.iter().flat_map(|(kind, tci)| [kind.to_be_bytes(), tci.to_be_bytes()]);
    frame.splice(12..12, bytes.flatten());
    frame
}

/// Makes the bridge filter VLANs. False where the kernel cannot.
pub(crate) fn filter_vlans(lab: &Lab) -> Result<bool> {
    match lab.host().ip(&format!("link set {BRIDGE} type bridge vlan_filtering 1")) {
        Err(error) if format!("{error:#}").contains("not supported") => {
            eprintln!("passed over: this kernel's bridges filter no VLANs");
            Ok(false)
        }
        done => done.map(|()| true),
    }
}

fn put_into(lab: &Lab, sandbox: &Sandbox, vlan: u16, options: &str) -> Result<()> {
    let arguments = format!("vlan add dev {} vid {vlan} {options}", sandbox.port());
    let mut bridge = lab.host().command("bridge");
    let output = bridge.args(arguments.split_whitespace()).output()?;
    anyhow::ensure!(output.status.success(), "{arguments}: {output:?}");
    Ok(())
}

#[test]
fn a27_untagged_frames_are_in_the_ports_own_vlan_and_others_reach_nobody() -> Result<()> {
    let lab = Lab::new()?;
    if !filter_vlans(&lab)? {
        return Ok(());
    }
    let config = lab.config()?.with_pool("vlan", "5")?;
    let (owner, inside, outside) =
        (lab.sandbox("owner")?, lab.sandbox("inside")?, lab.sandbox("outside")?);
    for sandbox in [&owner, &inside] {
        put_into(&lab, sandbox, 5, "pvid untagged")?;
    }
    let agent = lab.agent_with(Launch::config(&config)?)?;
    let lease = agent.admit(&owner)?;
    let marked = agent.admit(&lab.sandbox("marker")?)?;
    for sandbox in [&inside, &outside] {
        agent.await_port(sandbox)?;
    }
    let conflicts = agent.follow(&["conflicts"])?;

    // In VLAN 1, which is another segment; and in VLAN 5, where the bridge does not let it.
    outside.announce(lease.address)?;
    let forged = Arp::announcement(outside.mac(), lease.address).frame();
    outside.raw_socket()?.send(&tagged(5, forged.clone()))?;
    let dropped = [("bridge", BRIDGE), ("reason", "vlan")];
    eventually("the frame that the bridge drops", || {
        Ok((agent.metric("guard_claims_ignored_total", &dropped)? == Some(1.0)).then_some(()))
    })?;
    // The same from a port that is in it.
    inside.announce(marked.address)?;
    let (_, first) = conflicts.next(|_| true)?;
    assert_eq!(first["address"], marked.address.to_string(), "{first}");
    assert_eq!(first["vlan"], 5, "{first}");

    // And once the port is let into it, without a restart.
    put_into(&lab, &outside, 5, "")?;
    eventually("the port in its VLAN", || {
        outside.raw_socket()?.send(&tagged(5, forged.clone()))?;
        let found = agent.list(&["conflicts"], "conflicts")?;
        let address = lease.address.to_string();
        Ok(found.into_iter().find(|conflict| conflict["address"] == address.as_str()).map(drop))
    })
}

#[test]
fn a20_the_hosts_address_is_in_the_bridges_own_vlan() -> Result<()> {
    let lab = Lab::new()?;
    // A pool in the VLAN that would be called 0 else.
    let config = lab.config()?.with_pool("vlan", "1")?;
    let agent = lab.agent_with(Launch::config(&config)?)?;
    let thief = lab.sandbox("thief")?;
    agent.await_port(&thief)?;
    // While the agent runs.
    if !filter_vlans(&lab)? {
        return Ok(());
    }
    let conflict = eventually("the gateway's impostor in VLAN 1", || {
        thief.raw_socket()?.send(&Arp::announcement(Mac::numbered(0x77), GATEWAY).frame())?;
        let found = agent.list(&["conflicts"], "conflicts")?;
        Ok(found.into_iter().find(|conflict| conflict["vlan"] == 1))
    })?;
    assert_eq!(conflict["severity"], "critical", "{conflict}");
    Ok(())
}

#[test]
fn a20_an_address_of_the_host_on_a_vlan_device_is_the_hosts_in_that_vlan() -> Result<()> {
    let lab = Lab::new()?;
    let config = lab.config()?.with(&format!(
        "[[pool]]\nname = \"five\"\nbridge = {BRIDGE:?}\nvlan = 5\n\
         prefix = \"10.9.0.0/29\"\ngateway = \"10.9.0.6\""
    ))?;
    let agent = lab.agent_with(Launch::config(&config)?)?;
    let thief = lab.sandbox("thief")?;
    agent.await_port(&thief)?;
    // While the agent runs.
    let device = format!("{BRIDGE}.5");
    match lab.host().ip(&format!("link add link {BRIDGE} name {device} type vlan id 5")) {
        Err(error) if format!("{error:#}").contains("Unknown device type") => {
            eprintln!("passed over: this kernel has no VLAN devices");
            return Ok(());
        }
        done => done?,
    }
    lab.host().ip(&format!("address add 10.9.0.1/29 dev {device}\nlink set {device} up"))?;
    let host = Ipv4Addr::new(10, 9, 0, 1);
    eventually("the host's address known", || {
        let why = agent.json(&["why", &host.to_string()])?.to_string();
        Ok(why.contains("address of the host").then_some(()))
    })?;
    let ask = ["allocate", "--pool", "five", "--sandbox", "a", "--address", "10.9.0.1"];
    assert_eq!(agent.ctl(&ask)?.refusal()?.reason, "ADDRESS_RESERVED");
    let forged = Arp::announcement(thief.mac(), host).frame();
    // Untagged it is in another segment, where the host answers for it as well: a duplicate.
    thief.raw_socket()?.send(&forged)?;
    thief.raw_socket()?.send(&tagged(5, forged))?;
    let conflict = eventually("the impostor in VLAN 5", || {
        let found = agent.list(&["conflicts"], "conflicts")?;
        Ok(found.into_iter().find(|conflict| conflict["vlan"] == 5))
    })?;
    assert_eq!(conflict["kind"], "gateway", "{conflict}");
    assert_eq!(conflict["severity"], "critical", "{conflict}");
    Ok(())
}

/// Its own kernel has the address, behind a tag of its VLAN.
#[test]
fn a27_a_station_behind_a_tag_is_asked_in_its_own_vlan() -> Result<()> {
    let lab = Lab::new()?;
    if !filter_vlans(&lab)? {
        return Ok(());
    }
    let config = lab.config()?.with_pool("vlan", "5")?.with("[conflict]\nquiet = \"1s\"")?;
    let (tagging, bare) = (lab.sandbox("tagging")?, lab.sandbox("bare")?);
    put_into(&lab, &tagging, 5, "")?;
    put_into(&lab, &bare, 5, "pvid untagged")?;
    let agent = lab.agent_with(Launch::config(&config)?)?;
    let lease = agent.allocate("both")?;
    tagging.netns().ip(&format!(
        "link add link eth0 name tagged type vlan id 5\nlink set tagged up\n\
         address add {}/24 dev tagged",
        lease.address
    ))?;
    bare.add_address(lease.address)?;
    for sandbox in [&tagging, &bare] {
        agent.await_port(sandbox)?;
    }
    let announcement = |of: &Sandbox| Arp::announcement(of.mac(), lease.address).frame();
    tagging.raw_socket()?.send(&tagged(5, announcement(&tagging)))?;
    bare.raw_socket()?.send(&announcement(&bare))?;
    let of_lease = || {
        let address = lease.address.to_string();
        let mut all = agent.list(&["conflicts", "--all"], "conflicts")?;
        all.retain(|conflict| conflict["address"] == address.as_str());
        anyhow::Ok(all)
    };
    eventually("the conflict", || Ok(of_lease()?.first().map(drop)))?;
    // Much longer than a second of silence, three questions and their answers.
    std::thread::park_timeout(std::time::Duration::from_secs(8));
    let all = of_lease()?;
    assert!(all.len() == 1 && all[0]["open"] == true, "{all:?}");
    assert_eq!((&all[0]["severity"], &all[0]["vlan"]), (&"warning".into(), &5.into()), "{all:?}");
    tagging.netns().ip("address flush dev tagged")?;
    eventually("its end", || Ok(of_lease()?.iter().all(|one| one["open"] == false).then_some(())))
}

/// Tags around a frame from a port in VLAN 5, untagged, and 7; and the VLAN that is within the bridge's.
type Stack<'a> = (&'a [(u16, u16)], u16);

/// On a bridge of customers' VLANs, and on a provider's.
const STACKS: [(&str, u16, [Stack<'_>; 9]); 2] = [
    (
        "802.1Q",
        Q,
        [
            (&[], 0),
            (&[(Q, 7)], 0),
            (&[(Q, 0xe007)], 0),
            (&[(Q, 0xe000)], 0),
            (&[(Q, 0), (Q, 7)], 7),
            (&[(AD, 7)], 7),
            (&[(AD, 0), (Q, 7)], 7),
            (&[(Q, 7), (Q, 3)], 3),
            (&[(Q, 7), (AD, 3)], 3),
        ],
    ),
    (
        "802.1ad",
        AD,
        [
            (&[], 0),
            (&[(AD, 7)], 0),
            (&[(AD, 0xe000)], 0),
            (&[(AD, 0), (AD, 7)], 7),
            (&[(AD, 0), (Q, 7)], 7),
            (&[(Q, 7)], 7),
            (&[(Q, 0), (AD, 7)], 7),
            (&[(AD, 7), (Q, 3)], 3),
            (&[(AD, 7), (AD, 3)], 3),
        ],
    ),
];

/// The VLANs in which the bridge has learned a MAC.
fn learned(lab: &Lab, mac: Mac) -> Result<Vec<u64>> {
    let output = lab.host().command("bridge").args(["-j", "fdb", "show", "br", BRIDGE]).output()?;
    let entries: Vec<Value> = serde_json::from_slice(&output.stdout).context("the bridge's FDB")?;
    let of_mac = entries.iter().filter(|entry| entry["mac"] == mac.to_string());
    Ok(of_mac.filter_map(|entry| entry["vlan"].as_u64()).collect())
}

/// The bridge is the judge of what it takes for the VLAN of a frame.
#[test]
fn a29_a_frame_is_in_the_vlan_in_which_the_bridge_learns_its_source() -> Result<()> {
    let lab = Lab::new()?;
    if !filter_vlans(&lab)? {
        return Ok(());
    }
    let sandbox = lab.sandbox("a")?;
    put_into(&lab, &sandbox, 5, "pvid untagged")?;
    put_into(&lab, &sandbox, 7, "")?;
    let config = lab.config()?.with_pool("vlan", "5")?;
    let config = config.with("[quota]\naddresses_per_port = 4096\nmacs_per_port = 4096")?;
    let agent = lab.agent_with(Launch::config(&config)?)?;
    agent.await_port(&sandbox)?;
    let socket = sandbox.raw_socket()?;
    let mut number = 0;
    // A frame of a station of its own: the VLANs that guard has for it, and those that the bridge has.
    let mut placed = |tags: &[(u16, u16)]| -> Result<(Vec<_>, Vec<u64>)> {
        number += 1;
        let mac = Mac::numbered(0x1000 + number);
        let address = Ipv4Addr::from(Ipv4Addr::new(198, 18, 0, 0).to_bits() + number);
        socket.send(&with_tags(tags, Arp::announcement(mac, address).frame()))?;
        let live = eventually(&format!("{tags:x?} seen"), || {
            let mut live = agent.list(&["live"], "live")?;
            live.retain(|one| one["address"] == address.to_string());
            Ok((!live.is_empty()).then_some(live))
        })?;
        let vlans = live.iter().map(|one| (one["vlan"].as_u64(), one["inner_vlan"].as_u64()));
        Ok((vlans.collect(), learned(&lab, mac)?))
    };
    for (protocol, kind, stacks) in STACKS {
        lab.host().ip(&format!("link set {BRIDGE} type bridge vlan_protocol {protocol}"))?;
        eventually("the bridge's protocol", || {
            let (guards, _) = placed(&[(kind, 7)])?;
            Ok((guards == [(Some(7), Some(0))]).then_some(()))
        })?;
        for (tags, inner) in stacks {
            let (guards, bridges) = placed(tags)?;
            assert_eq!(bridges.len(), 1, "{protocol} {tags:x?}");
            let expected = bridges.iter().map(|vlan| (Some(*vlan), Some(u64::from(inner))));
            assert!(guards.iter().copied().eq(expected), "{protocol} {tags:x?}: {guards:?}");
        }
    }
    Ok(())
}

/// The one is behind two customers' tags, the other's outer one is a provider's. Each of their kernels
/// has the address.
#[test]
fn a29_a_station_within_a_vlan_is_asked_there() -> Result<()> {
    let lab = Lab::new()?;
    let agent =
        lab.agent_with(Launch::config(&lab.config()?.with("[conflict]\nquiet = \"1s\"")?)?)?;
    let address = Ipv4Addr::new(198, 18, 0, 1);
    let two = [(lab.sandbox("one")?, Q, "802.1Q"), (lab.sandbox("two")?, AD, "802.1ad")];
    for (sandbox, _, protocol) in &two {
        agent.await_port(sandbox)?;
        let devices = sandbox.netns().ip(&format!(
            "link add link eth0 name outer type vlan protocol {protocol} id 6\n\
             link add link outer name inner type vlan id 3\n\
             link set outer up\nlink set inner up\naddress add {address}/24 dev inner"
        ));
        match devices {
            Err(error) if format!("{error:#}").contains("Unknown device type") => {
                eprintln!("passed over: this kernel has no VLAN devices");
                return Ok(());
            }
            done => done?,
        }
    }
    for (sandbox, kind, _) in &two {
        let frame = Arp::announcement(sandbox.mac(), address).frame();
        sandbox.raw_socket()?.send(&with_tags(&[(*kind, 6), (Q, 3)], frame))?;
    }
    let all = || agent.list(&["conflicts", "--all"], "conflicts");
    eventually("the conflict", || Ok(all()?.first().map(drop)))?;
    // Much longer than a second of silence, three questions and their answers.
    std::thread::park_timeout(std::time::Duration::from_secs(8));
    let found = all()?;
    assert!(found.len() == 1 && found[0]["open"] == true, "{found:?}");
    assert_eq!((&found[0]["vlan"], &found[0]["inner_vlan"]), (&6.into(), &3.into()), "{found:?}");
    two[0].0.netns().ip("address flush dev inner")?;
    eventually("its end", || Ok(all()?.iter().all(|one| one["open"] == false).then_some(())))
}

fn is_refused_for_want_of_its_vlan(agent: &Agent) -> Result<()> {
    let body = agent.await_readyz(503)?;
    assert!(body.contains(&format!("pool {POOL}")), "{body}");
    let refusal = agent.ctl(&["allocate", "--pool", POOL, "--sandbox", "asker"])?.refusal()?;
    assert_eq!((&*refusal.status, &*refusal.reason), ("UNAVAILABLE", "VLAN_ABSENT"));
    Ok(())
}

#[test]
fn a_pool_whose_vlan_no_port_is_in_hands_nothing_out() -> Result<()> {
    let lab = Lab::new()?;
    if !filter_vlans(&lab)? {
        return Ok(());
    }
    let config = lab.config()?.with_pool("vlan", "5")?;
    let agent = lab.agent_with(Launch::config(&config)?.degraded())?;
    is_refused_for_want_of_its_vlan(&agent)?;
    let sandbox = lab.sandbox("a")?;
    put_into(&lab, &sandbox, 5, "pvid untagged")?;
    agent.await_readyz(200)?;
    let lease = agent.admit(&sandbox)?;
    sandbox.delete()?;
    is_refused_for_want_of_its_vlan(&agent)?;
    // It keeps what it has handed out.
    assert!(agent.entry(lease.address)?.is_some());
    // On a bridge that does not filter VLANs every port carries them all.
    lab.host().ip(&format!("link set {BRIDGE} type bridge vlan_filtering 0"))?;
    agent.await_readyz(200)?;
    agent.allocate("b").map(drop)
}

#[test]
fn vlan_0_of_a_pool_is_the_bridges_default_pvid_and_follows_it() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let (owner, thief) = (lab.sandbox("owner")?, lab.sandbox("thief")?);
    let leases: Vec<Lease> =
        ["a", "b", "c", "d"].iter().map(|name| agent.allocate(name)).collect::<Result<_>>()?;
    for lease in &leases {
        agent.bind(lease, &owner)?;
    }
    agent.await_port(&thief)?;
    let bridge =
        |settings: &str| lab.host().ip(&format!("link set {BRIDGE} type bridge {settings}"));
    // Told as one of the pool's, whatever the bridge calls its VLAN.
    let stolen = |lease: &Lease, tags: &[(u16, u16)]| {
        let frame = Arp::announcement(thief.mac(), lease.address).frame();
        eventually("the theft", || {
            thief.raw_socket()?.send(&with_tags(tags, frame.clone()))?;
            let found = agent.list(&["conflicts"], "conflicts")?;
            let address = lease.address.to_string();
            let found = found.into_iter().find(|one| one["address"] == address.as_str());
            found.map_or(Ok(None), |found| {
                assert_eq!(found["vlan"], 0, "{found}");
                Ok(Some(()))
            })
        })
    };
    if !filter_vlans(&lab)? {
        return Ok(());
    }
    stolen(&leases[0], &[])?;
    bridge("vlan_filtering 0")?;
    bridge("vlan_default_pvid 10")?;
    bridge("vlan_filtering 1")?;
    stolen(&leases[1], &[])?;
    stolen(&leases[2], &[(Q, 10)])?;
    bridge("vlan_filtering 0")?;
    stolen(&leases[3], &[])?;
    bridge("vlan_default_pvid 0")?;
    bridge("vlan_filtering 1")?;
    is_refused_for_want_of_its_vlan(&agent)?;
    bridge("vlan_filtering 0")?;
    agent.await_readyz(200).map(drop)
}
