//! Rule 7 where the same prefix is on two bridges: a label names an address and no segment, and the
//! port of the container's namespace tells which one is meant.

use anyhow::{Context, Result};
use guard_tests::{Agent, BRIDGE, Lab, Launch, Mac, eventually};
use serde_json::Value;

const IP: &str = "runtime.computer/ip";
const SANDBOX: &str = "runtime.computer/sandbox";

/// A lab with a second bridge, and an agent without a lease that has the lab's prefix on both.
fn start(lab: &Lab, containerd: &guard_tests::Containerd) -> Result<Agent> {
    let config = lab.config()?.with_containerd(containerd)?.with(&format!(
        "[[bridge]]\nname = {BRIDGE:?}\n[[bridge]]\nname = \"rt1\"\n\
         [[pool]]\nname = \"first\"\nbridge = {BRIDGE:?}\nprefix = \"10.8.64.0/24\"\n\
         [[pool]]\nname = \"second\"\nbridge = \"rt1\"\nprefix = \"10.8.64.0/24\"\n"
    ))?;
    lab.agent_with(Launch::config(&config)?)
}

/// What each pool has at 10.8.64.7: the state, the sandbox and the reason.
fn entries(agent: &Agent) -> Result<Vec<Option<(Value, Value, Value)>>> {
    let entry = |pool| {
        let leases = agent.list(&["leases", "--pool", pool], "leases")?;
        let found = leases.into_iter().find(|lease| lease["address"] == "10.8.64.7");
        Ok(found.map(|it| (it["state"].clone(), it["sandbox"].clone(), it["reason"].clone())))
    };
    ["first", "second"].into_iter().map(entry).collect()
}

fn adopted(sandbox: &str) -> Option<(Value, Value, Value)> {
    Some(("active".into(), sandbox.into(), "adopted".into()))
}

fn await_entries(
    agent: &Agent,
    what: &str,
    wanted: &[Option<(Value, Value, Value)>; 2],
) -> Result<()> {
    let seen = || Ok((entries(agent)? == *wanted).then_some(()));
    eventually(what, seen).with_context(|| format!("{:?}", entries(agent)))
}

#[test]
fn rule_7_two_healthy_sandboxes_with_one_address_on_two_bridges_are_no_dispute() -> Result<()> {
    let lab = Lab::new()?;
    lab.add_bridge("rt1")?;
    let containerd = lab.containerd()?;
    let one = lab.sandbox("one")?;
    let two = lab.sandbox_with("two", "rt1", Mac::numbered(0x77))?;
    containerd.run("one", Some(&one), "10.8.64.7")?;
    containerd.run("two", Some(&two), "10.8.64.7")?;
    let agent = start(&lab, &containerd)?;
    await_entries(&agent, "a lease on each", &[adopted("one"), adopted("two")])?;
    assert!(agent.list(&["conflicts", "--all"], "conflicts")?.is_empty());
    agent.check()
}

#[test]
fn rule_7_without_a_port_it_is_not_known_which_segment_is_meant_until_one_comes() -> Result<()> {
    let lab = Lab::new()?;
    lab.add_bridge("rt1")?;
    let containerd = lab.containerd()?;
    let agent = start(&lab, &containerd)?;
    // Each in a namespace of its own, which the runtime makes and no spec names.
    for name in ["one", "two"] {
        containerd.run_labelled(name, None, &[(SANDBOX, name), (IP, "10.8.64.7")])?;
    }
    let live = || Some(("quarantined".into(), Value::Null, "live".into()));
    await_entries(&agent, "a quarantine on each", &[live(), live()])?;
    let why = agent.json(&["why", "10.8.64.7"])?.to_string();
    assert!(why.contains("which of rt0 or rt1 is meant is not known"), "{why}");
    let duplicate = |conflict: &Value| conflict["kind"] == "duplicate";
    assert!(!agent.list(&["conflicts", "--all"], "conflicts")?.iter().any(duplicate));

    // As a CNI plugin does it, after the container has been started.
    for (name, bridge) in [("one", BRIDGE), ("two", "rt1")] {
        let pid = containerd.pid(name)?;
        lab.host().ip(&format!(
            "link add veth-{name} type veth peer name eth0 netns {pid}\n\
             link set veth-{name} master {bridge} up"
        ))?;
    }
    await_entries(&agent, "a lease on each", &[adopted("one"), adopted("two")])?;
    // Its port goes: the lease stays where it is.
    lab.host().ip("link delete veth-two")?;
    eventually("the end of the port", || {
        let ports = agent.list(&["ports"], "ports")?;
        Ok((!ports.iter().any(|port| port["interface"] == "veth-two")).then_some(()))
    })?;
    await_entries(&agent, "the same leases", &[adopted("one"), adopted("two")])?;
    agent.check()
}
