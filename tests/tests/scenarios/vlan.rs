//! A bridge that filters VLANs: a frame belongs to the VLAN that the bridge puts it in, and what the
//! bridge drops is nothing.

use anyhow::Result;
use guard_tests::{Arp, BRIDGE, GATEWAY, Lab, Launch, Mac, Sandbox, eventually};

/// The frame with an 802.1Q tag in it.
fn tagged(vlan: u16, mut frame: Vec<u8>) -> Vec<u8> {
    let [high, low] = vlan.to_be_bytes();
    frame.splice(12..12, [0x81, 0, high, low]);
    frame
}

/// Makes the bridge filter VLANs. False where the kernel cannot.
fn filter_vlans(lab: &Lab) -> Result<bool> {
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
    let agent = lab.agent_with(Launch::config(&config)?)?;
    let (owner, inside, outside) =
        (lab.sandbox("owner")?, lab.sandbox("inside")?, lab.sandbox("outside")?);
    for sandbox in [&owner, &inside] {
        put_into(&lab, sandbox, 5, "pvid untagged")?;
    }
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
    let agent = lab.agent()?;
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
    let host = std::net::Ipv4Addr::new(10, 9, 0, 1);
    eventually("the host's address known", || {
        let why = agent.json(&["why", &host.to_string()])?.to_string();
        Ok(why.contains("address of the host").then_some(()))
    })?;
    let ask = ["allocate", "--pool", "five", "--sandbox", "a", "--address", "10.9.0.1"];
    assert_eq!(agent.ctl(&ask)?.refusal()?.reason, "ADDRESS_RESERVED");
    let forged = Arp::announcement(thief.mac(), host).frame();
    // Untagged it is another segment's, and nobody's.
    thief.raw_socket()?.send(&forged)?;
    thief.raw_socket()?.send(&tagged(5, forged))?;
    let conflict = eventually("the impostor in VLAN 5", || {
        Ok(agent.list(&["conflicts"], "conflicts")?.into_iter().next())
    })?;
    assert_eq!((&conflict["vlan"], &conflict["kind"]), (&5.into(), &"gateway".into()));
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
    let agent = lab.agent_with(Launch::config(&config)?)?;
    let (tagging, bare) = (lab.sandbox("tagging")?, lab.sandbox("bare")?);
    put_into(&lab, &tagging, 5, "")?;
    put_into(&lab, &bare, 5, "pvid untagged")?;
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
