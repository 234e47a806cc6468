//! What a caller writes that cannot be: refused, with what is wrong and what to do, and the agent goes on.

use anyhow::{Context, Result, ensure};
use guard_tests::{Agent, BRIDGE, Lab, POOL};

fn allocate(sandbox: &str) -> Vec<&str> {
    vec!["allocate", "--pool", POOL, "--sandbox", sandbox]
}

fn refused(agent: &Agent, args: &[&str], reason: &str, says: &str) -> Result<()> {
    let refusal = agent.ctl(args)?.refusal().with_context(|| format!("{args:?}"))?;
    let found = format!("{}/{}", refusal.status, refusal.reason);
    ensure!(found == reason, "{args:?}: {found}, not {reason}: {}", refusal.message);
    ensure!(refusal.message.contains(says), "{says:?} is not in {:?}", refusal.message);
    Ok(())
}

#[test]
fn no_number_of_a_caller_ends_the_agent() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    for from in ["18446744073709551615", "18446744073709551614", "9223372036854775808"] {
        let events = agent.follow(&["events", "--from", from])?;
        events.next(|event| event["type"] == "gap").with_context(|| from.to_owned())?;
    }
    let most = u64::MAX.to_string();
    let confirmed = agent.json(&["confirm", "--generation", &most])?;
    assert_eq!(confirmed["outcome"], "not_found");
    refused(&agent, &["silence", &most, "--for", "10000y"], "NOT_FOUND/CONFLICT_UNKNOWN", "")?;
    // The twin: one that an event has had is no gap.
    let events = agent.follow(&["events", "--from", "0"])?;
    agent.allocate("s")?;
    events.next(|event| event["type"] == "lease.held")?;
    agent.check()?;
    ensure!(!agent.journal().text().contains("panicked"), "{}", agent.journal().text());
    agent.stop()
}

#[test]
fn what_can_never_be_a_port_of_the_bridge_is_neither_allocated_nor_bound() -> Result<()> {
    let lab = Lab::new()?;
    lab.host().ip("link add other type bridge\nlink add stray type veth peer name stray-peer\n\
         link set stray master other\nlink add lone type veth peer name lone-peer")?;
    let agent = lab.agent()?;
    let lease = agent.allocate("bound")?;
    let generation = lease.generation.to_string();
    let mac = lab.bridge_mac(BRIDGE).to_string();
    for (option, value, reason, says) in [
        ("--interface", "lo", "NOT_A_PORT", "loopback"),
        ("--interface", BRIDGE, "NOT_A_PORT", "bridge itself"),
        ("--interface", "other", "NOT_A_PORT", "bridge itself"),
        ("--interface", "stray", "NOT_A_PORT", "\"other\""),
        ("--interface", "averyveryverylongname", "INTERFACE_MALFORMED", "15 bytes"),
        ("--interface", "a/b", "INTERFACE_MALFORMED", "a/b"),
        ("--interface", "a b", "INTERFACE_MALFORMED", "a b"),
        ("--interface", "..", "INTERFACE_MALFORMED", ".."),
        ("--mac", &mac, "MAC_RESERVED", BRIDGE),
        ("--mac", "ff:ff:ff:ff:ff:ff", "MAC_MALFORMED", "ff:ff"),
        ("--mac", "01:00:5e:00:00:01", "MAC_MALFORMED", "01:00"),
        ("--mac", "00:00:00:00:00:00", "MAC_MALFORMED", "00:00"),
    ] {
        let reason = format!("INVALID_ARGUMENT/{reason}");
        let declared = [allocate("new"), vec![option, value]].concat();
        refused(&agent, &declared, &reason, says)?;
        let bind = ["bind", "--generation", &generation, option, value];
        refused(&agent, &bind, &reason, says)?;
    }
    assert_eq!(agent.list(&["leases"], "leases")?.len(), 1, "of what was refused nothing is kept");

    // What can be a port later is allocated, and bound once it is one.
    for (sandbox, port) in [("later", "veth-to-come"), ("free", "lone")] {
        let lease = agent.json(&[allocate(sandbox), vec!["--interface", port]].concat())?;
        assert_eq!(lease["interface"], port);
        let bind = ["bind", "--generation", &generation, "--interface", port];
        refused(&agent, &bind, "NOT_FOUND/PORT_UNKNOWN", port)?;
    }
    let sandbox = lab.sandbox("s")?;
    agent.bind(&lease, &sandbox)?;
    agent.check()
}

#[test]
fn a_prefix_with_host_bits_is_not_taken_for_another() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let reserve = ["subnets", "reserve", "--pool", POOL, "--id", "a", "--prefix"];
    let wrong = agent.ctl(&[&reserve[..], &["10.8.64.200/28"]].concat())?;
    ensure!(wrong.code == 2 && wrong.stderr.contains("10.8.64.192/28"), "{}", wrong.stderr);
    let right = agent.json(&[&reserve[..], &["10.8.64.192/28"]].concat())?;
    assert_eq!(right["prefix"], "10.8.64.192/28");
    Ok(())
}
