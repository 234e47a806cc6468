//! Names are bytes to the kernel: a port whose name, alternative name or alias is not UTF-8 is watched as
//! any other, and shown escaped.

use std::{ffi::OsStr, net::Ipv4Addr, os::unix::ffi::OsStrExt as _, process::Command};

use anyhow::{Context, Result, ensure};
use guard_tests::{Agent, BRIDGE, Lab, eventually};
use serde_json::Value;

/// Claimed by two.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 8, 64, 20);
/// The host's own, with a label that is no text.
const OWN: Ipv4Addr = Ipv4Addr::new(10, 8, 64, 9);

/// `ip` with arguments that are bytes.
fn ip(lab: &Lab, args: &[&[u8]]) -> Result<()> {
    let mut ip = Command::new("ip");
    ip.args(["-n", lab.host().name()]).args(args.iter().map(|arg| OsStr::from_bytes(arg)));
    let output = ip.output().context("cannot start ip")?;
    ensure!(output.status.success(), "{ip:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// The names of the ports that are covered.
fn await_ports(agent: &Agent, expected: &[&str]) -> Result<()> {
    let mut last = Vec::new();
    let all = eventually("the ports covered", || {
        last = agent.list(&["ports"], "ports")?;
        let covered = last.iter().filter(|port| port["covered"] == true);
        let names: Vec<_> = covered.filter_map(|port| port["interface"].as_str()).collect();
        let is_there = |name: &&str| names.contains(name);
        Ok((names.len() == expected.len() && expected.iter().all(is_there)).then_some(()))
    });
    all.with_context(|| format!("{last:?}"))
}

#[test]
fn a_duplicate_behind_names_that_are_no_text_is_told() -> Result<()> {
    let lab = Lab::new()?;
    let early = lab.sandbox("early")?;
    // It is so when the agent starts, and becomes so while it runs.
    ip(&lab, &[b"link", b"set", early.port().as_bytes(), b"name", b"odd\xff\xfe"])?;
    ip(
        &lab,
        &[b"address", b"add", b"10.8.64.9/24", b"dev", BRIDGE.as_bytes(), b"label", b"rt0:\xff"],
    )?;
    let agent = lab.agent()?;
    let (named, alias, plain) =
        (lab.sandbox("named")?, lab.sandbox("alias")?, lab.sandbox("plain")?);
    ip(&lab, &[b"link", b"property", b"add", named.port().as_bytes(), b"altname", b"b\xffc"])?;
    ip(&lab, &[b"link", b"set", alias.port().as_bytes(), b"alias", b"of \xc3\x28"])?;
    await_ports(&agent, &[r"odd\xff\xfe", named.port(), alias.port(), plain.port()])?;
    agent.await_readyz(200)?;

    for (number, sandbox) in [&early, &named, &alias].into_iter().enumerate() {
        let address = Ipv4Addr::from(u32::from(ADDRESS) + u32::try_from(number)?);
        let events = agent.follow(&["conflicts"])?;
        plain.announce(address)?;
        sandbox.announce(address)?;
        let text = address.to_string();
        let is_it =
            |found: &Value| found["address"] == text.as_str() && found["kind"] == "duplicate";
        let (_, found) = events.next(is_it)?;
        let claimants = found["claimants"].as_array().cloned().unwrap_or_default();
        let name = if number == 0 { r"odd\xff\xfe" } else { sandbox.port() };
        assert!(claimants.iter().any(|one| one["interface"] == name), "{found}");
    }
    // The host has what it has, whatever that is called.
    let events = agent.follow(&["conflicts"])?;
    plain.announce(OWN)?;
    let (_, found) = events.next(|found| found["address"] == OWN.to_string().as_str())?;
    assert_eq!(found["severity"], "critical", "{found}");
    Ok(())
}

#[test]
fn a_name_that_becomes_a_text_again_is_shown_as_it_is() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let (sandbox, other) = (lab.sandbox("a")?, lab.sandbox("b")?);
    let port = sandbox.port().as_bytes();
    ip(&lab, &[b"link", b"set", port, b"name", b"\xff"])?;
    await_ports(&agent, &[r"\xff", other.port()])?;
    ip(&lab, &[b"link", b"set", b"\xff", b"name", port])?;
    await_ports(&agent, &[sandbox.port(), other.port()])?;
    ip(&lab, &[b"link", b"set", port, b"name", b"\xff"])?;
    ip(&lab, &[b"link", b"delete", b"\xff"])?;
    await_ports(&agent, &[other.port()])?;
    agent.await_readyz(200)?;
    assert!(agent.list(&["conflicts", "--all"], "conflicts")?.is_empty());
    Ok(())
}
