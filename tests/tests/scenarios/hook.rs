//! The hook of a port: guard's program is the first on it, or the port is not covered and everyone is
//! told why; and what is on it is what the kernel says of the port by its number.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};
use aya::maps::Array;
use guard_tests::{Agent, Lab, Launch, Mac, Port, Sandbox, Side, Verdict, eventually, run};
use serde_json::Value;

fn port(agent: &Agent, interface: &str) -> Result<Option<Value>> {
    let ports = agent.list(&["ports"], "ports")?;
    Ok(ports.into_iter().find(|port| port["interface"] == interface))
}

/// Waits until guard's program is the first on a port and the agent says so.
fn await_first(lab: &Lab, agent: &Agent, interface: &str) -> Result<()> {
    eventually(&format!("the program first on {interface}"), || {
        let first = lab.programs_on(interface)?.first().copied();
        let port = port(agent, interface)?.filter(|port| port["covered"] == true);
        Ok(port
            .filter(|port| first.is_some() && port["program_id"].as_u64() == first.map(u64::from)))
    })
    .map(drop)
}

fn of_kind(agent: &Agent, kind: &str) -> Result<Vec<Value>> {
    let all = agent.list(&["conflicts", "--all"], "conflicts")?;
    Ok(all.into_iter().filter(|conflict| conflict["kind"] == kind).collect())
}

fn is_told(agent: &Agent, thief: &Sandbox, lease: &guard_tests::Lease) -> Result<()> {
    let events = agent.follow(&["events", "--from", "0"])?;
    thief.announce(lease.address)?;
    let theft =
        |event: &Value| event["type"] == "conflict.opened" && event["data"]["kind"] != "coverage";
    events.next(theft).map(drop)
}

#[test]
fn coverage_another_program_before_guards_is_told_and_goes_behind() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let (owner, thief) = (lab.sandbox("owner")?, lab.sandbox("thief")?);
    let lease = agent.admit(&owner)?;
    agent.await_port(&thief)?;
    let other = lab.foreign("blinder", Verdict::Ends, Side::Before, thief.port())?;
    let told = eventually("an incident", || Ok(of_kind(&agent, "coverage")?.pop()))?;
    assert_eq!(told["severity"], "warning", "{told}");
    let program = format!("program {}", other.id()?);
    for part in [thief.port(), &program] {
        ensure!(told.to_string().contains(part), "no {part} in {told}");
    }
    agent.journal().await_line(&["conflict", "coverage", &program])?;
    await_first(&lab, &agent, thief.port())?;
    // It is one, however often it comes, and the last time it stays in front.
    let mut others = vec![other];
    for _ in 0..3 {
        await_first(&lab, &agent, thief.port())?;
        others.push(lab.foreign("blinder", Verdict::Ends, Side::Before, thief.port())?);
    }
    let hidden = eventually("a port that is not covered", || {
        Ok(port(&agent, thief.port())?.filter(|port| port["covered"] == false))
    })?;
    let program = format!("program {}", others.last().context("no other")?.id()?);
    ensure!(hidden["why"].as_str().is_some_and(|why| why.contains(&program)), "{hidden}");
    agent.await_readyz(503)?;
    let wrong = agent.ctl(&["check", "-o", "json"])?;
    ensure!(wrong.stdout.contains(thief.port()) && wrong.stdout.contains(&program), "{wrong:?}");
    let bind =
        ["allocate", "--pool", guard_tests::POOL, "--sandbox", "x", "--interface", thief.port()];
    let refusal = agent.ctl(&bind)?.refusal()?;
    ensure!(
        refusal.message.contains(&program) || refusal.reason == "OBSERVER_DEGRADED",
        "{refusal:?}"
    );
    // Nobody takes it for granted that the other port is like this one.
    ensure!(port(&agent, owner.port())?.is_some_and(|port| port["covered"] == true));
    assert_eq!(of_kind(&agent, "coverage")?.len(), 1);

    drop(others);
    await_first(&lab, &agent, thief.port())?;
    agent.await_readyz(200)?;
    agent.check()?;
    is_told(&agent, &thief, &lease)
}

#[test]
fn coverage_a_program_behind_guards_or_before_a_new_port_is_nobodys_affair() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let (owner, thief) = (lab.sandbox("owner")?, lab.sandbox("thief")?);
    let lease = agent.admit(&owner)?;
    agent.await_port(&thief)?;
    let _behind = lab.foreign("behind", Verdict::Ends, Side::Behind, thief.port())?;
    lab.host().ip("link add early type veth peer name far-early\nlink set early up")?;
    if lab.attach()? == "clsact" {
        run("tc", &["-n", lab.host().name(), "qdisc", "add", "dev", "early", "clsact"])?;
    }
    let _early = lab.foreign("early", Verdict::Ends, Side::Before, "early")?;
    lab.host().ip(&format!("link set early master {}", guard_tests::BRIDGE))?;
    for interface in [thief.port(), "early"] {
        await_first(&lab, &agent, interface)?;
        assert_eq!(lab.programs_on(interface)?.len(), 2, "theirs runs too");
    }
    is_told(&agent, &thief, &lease)?;
    ensure!(of_kind(&agent, "coverage")?.is_empty());
    agent.await_readyz(200).map(drop)
}

#[test]
fn coverage_a_program_before_guards_that_passes_everything_on_is_a_note() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let talker = lab.sandbox("talker")?;
    let lease = agent.admit(&talker)?;
    for _ in 0..3 {
        talker.announce(lease.address)?;
    }
    eventually("its frames", || {
        Ok(port(&agent, talker.port())?.filter(|port| port["frames"].as_u64() >= Some(3)))
    })?;
    let other = lab.foreign("passer", Verdict::PassesOn, Side::Before, talker.port())?;
    let program = format!("program {}", other.id()?);
    agent.journal().await_line(&["passed every frame on", &program, talker.port()])?;
    await_first(&lab, &agent, talker.port())?;
    ensure!(of_kind(&agent, "coverage")?.is_empty());
    agent.await_readyz(200).map(drop)
}

/// The number of an interface of the host.
fn number(lab: &Lab, interface: &str) -> Result<u32> {
    Ok(lab.host().run(|| nix::net::if_::if_nametoindex(interface))??)
}

/// Its link stays pinned, and goes with the device to another namespace; the number is used again.
#[test]
fn coverage_a_pinned_link_on_another_device_is_not_believed() -> Result<()> {
    let lab = Lab::new()?;
    let mut agent = lab.agent()?;
    let (owner, moved) = (lab.sandbox("owner")?, lab.sandbox("moved")?);
    let lease = agent.admit(&owner)?;
    agent.await_port(&moved)?;
    let ifindex = number(&lab, moved.port())?;
    agent.kill()?;
    lab.host().ip(&format!("link set {} netns {}", moved.port(), owner.netns().name()))?;
    let again = Port { name: "veth-again".to_owned(), number: Some(ifindex) };
    let thief = lab.sandbox_behind("again", guard_tests::BRIDGE, Mac::numbered(0x77), &again)?;
    agent.start_again()?;
    await_first(&lab, &agent, thief.port())?;
    is_told(&agent, &thief, &lease)?;
    assert_eq!(agent.journal().count(&["degraded", thief.port()]), 0);
    agent.await_readyz(200)?;
    agent.check()
}

#[test]
fn coverage_an_agent_of_another_layout_leaves_nothing_on_the_ports() -> Result<()> {
    let lab = Lab::new()?;
    let mut agent = lab.agent()?;
    let (owner, thief) = (lab.sandbox("owner")?, lab.sandbox("thief")?);
    let lease = agent.admit(&owner)?;
    agent.await_port(&thief)?;
    let before = lab.programs_on(thief.port())?;
    agent.kill()?;
    let pinned = lab.pinned()?;
    let layout = pinned.iter().find(|pin| pin.ends_with("OWNED")).context("no map of owners")?;
    let layout = layout.parent().context("a pin without a directory")?;
    let old = layout.with_file_name("v2");
    std::fs::rename(layout, &old)?;
    agent.start_again()?;
    for interface in [owner.port(), thief.port()] {
        await_first(&lab, &agent, interface)?;
        eventually("no program of the other layout", || {
            let programs = lab.programs_on(interface)?;
            Ok((programs.len() == 1 && programs != before).then_some(()))
        })?;
    }
    ensure!(!old.exists(), "{:?}", lab.pinned()?);
    is_told(&agent, &thief, &lease)?;
    agent.check()
}

/// The directory is the root of a file system that others use too, in directories of the same names.
#[test]
fn coverage_detach_takes_away_what_is_guards_and_nothing_else() -> Result<()> {
    let lab = Lab::new()?;
    let bpffs = lab.dir().join("bpf");
    let config = lab.config()?.with(&format!("bpffs = {bpffs:?}"))?;
    let agent = lab.agent_with(Launch::config(&config)?)?;
    let sandbox = lab.sandbox("a")?;
    agent.await_port(&sandbox)?;
    let [ours] = lab.programs_on(sandbox.port())?[..] else { bail!("not one program") };
    agent.stop()?;
    let layout = (0..).map(|number| bpffs.join(format!("v{number}"))).find(|path| path.exists());
    let layout = layout.context("no directory of a layout")?;
    let theirs = bpffs.join("v77");
    std::fs::create_dir(&theirs)?;
    let mut kept = vec![theirs.join("OWNED"), theirs.join("GENERATION"), layout.join("theirs")];
    for pin in &kept {
        Array::<_, u32>::create(2, 0)?.pin(pin)?;
    }
    let mut other = lab.foreign("other", Verdict::PassesOn, Side::Behind, sandbox.port())?;
    let link = theirs.join("link-7");
    if other.pin_link(&link)? {
        kept.push(link);
    }
    lab.detach()?;
    eventually("only their program", || {
        Ok((!lab.programs_on(sandbox.port())?.contains(&ours)).then_some(()))
    })?;
    for pin in &kept {
        ensure!(pin.exists(), "{} is gone", pin.display());
    }
    assert_eq!(lab.programs_on(sandbox.port())?, [other.id()?]);
    let left = std::fs::read_dir(&layout)?.count();
    assert_eq!(left, 1, "what is theirs");
    Ok(())
}

/// As a controller that removes a whole fleet at once.
#[test]
fn coverage_hundreds_of_ports_that_are_torn_down_are_gone_and_nothing_else() -> Result<()> {
    const AT_ONCE: u32 = 200;
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let (kept, far) = (lab.sandbox("kept")?, lab.sandbox("far")?);
    for round in 0..4 {
        let make = |number| {
            format!(
                "link add many{number} type veth peer name far{number} netns {}\n\
                 link set many{number} master {} up\n",
                far.netns().name(),
                guard_tests::BRIDGE
            )
        };
        lab.host().ip(&(0..AT_ONCE).map(make).collect::<String>())?;
        agent.lease(&[
            "allocate",
            "--pool",
            guard_tests::POOL,
            "--sandbox",
            &format!("up{round}"),
        ])?;
        let remove = |number| format!("link delete many{number}\n");
        lab.host().ip(&(0..AT_ONCE).map(remove).collect::<String>())?;
        agent.lease(&[
            "allocate",
            "--pool",
            guard_tests::POOL,
            "--sandbox",
            &format!("down{round}"),
        ])?;
    }
    let expected: BTreeSet<_> = [kept.port(), far.port()].map(str::to_owned).into();
    eventually("no other ports", || {
        let ports = agent.list(&["ports"], "ports")?;
        let names = ports.iter().filter_map(|port| port["interface"].as_str().map(str::to_owned));
        Ok((names.collect::<BTreeSet<_>>() == expected).then_some(()))
    })?;
    for wrong in ["degraded", "cannot attach", "taken off", "No such device"] {
        let lines = agent.journal().count(&[wrong]);
        ensure!(lines == 0, "{lines} lines with {wrong:?}: {}", agent.journal().text());
    }
    agent.await_readyz(200).map(drop)
}
