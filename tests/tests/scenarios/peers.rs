//! Clients that share no code with guard.

use anyhow::{Context, Result};
use guard_tests::{Agent, CtlOutput, Lab, Launch, POOL, Peer, Sandbox, eventually, go_example};

#[test]
fn python_allocates_binds_and_releases() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let peer = Peer::new(&agent)?;
    let lease = peer.call(&["allocate", "--pool", POOL, "--sandbox", "from-python"])?;
    let address = lease["address"].as_str().context("no address")?.parse()?;
    let entry = agent.entry(address)?.context("not listed")?;
    assert_eq!((&entry["sandbox"], &entry["state"]), (&"from-python".into(), &"held".into()));
    // A uint64 is text in protobuf's JSON.
    let generation = lease["generation"].as_str().context("no generation")?;
    assert_eq!(entry["generation"].to_string(), generation);
    let answer = peer.call(&["confirm", "--generation", generation])?;
    assert_eq!(answer["outcome"], "OUTCOME_DONE", "{answer}");
    let answer = peer.call(&["release", "--generation", generation])?;
    assert_eq!(answer["outcome"], "OUTCOME_COOLING", "{answer}");
    let answer = peer.call(&["release", "--generation", generation])?;
    assert_eq!(answer["outcome"], "OUTCOME_STALE", "{answer}");
    Ok(())
}

#[test]
fn python_reads_the_reason_of_a_refusal() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let peer = Peer::new(&agent)?;
    let refusal = peer.call(&["allocate", "--pool", "none", "--sandbox", "s"])?;
    assert_eq!(refusal["status"], "NOT_FOUND", "{refusal}");
    assert_eq!(refusal["reason"], "POOL_UNKNOWN", "{refusal}");
    assert_eq!(refusal["domain"], "guard.v1", "{refusal}");
    Ok(())
}

#[test]
fn python_follows_conflicts() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let (owner, thief) = (lab.sandbox("owner")?, lab.sandbox("thief")?);
    let lease = agent.admit(&owner)?;
    agent.await_port(&thief)?;
    let conflicts = Peer::new(&agent)?.follow(&agent, &["conflicts"])?;
    conflicts.next(|line| line["following"] == true)?;
    thief.announce(lease.address)?;
    let (_, conflict) = conflicts.next(|line| line["address"] == lease.address.to_string())?;
    assert_eq!(conflict["kind"], "CONFLICT_KIND_DUPLICATE", "{conflict}");
    let macs = [owner.mac().to_string(), thief.mac().to_string()];
    assert!(macs.iter().all(|mac| conflict.to_string().contains(mac)), "{conflict}");
    Ok(())
}

#[test]
fn python_finds_the_services_by_reflection_and_their_health() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let found = Peer::new(&agent)?.call(&["describe"])?;
    let services = found["services"].as_array().context("no list")?;
    for service in ["guard.v1.Leases", "guard.v1.Pools", "guard.v1.Guard", "grpc.health.v1.Health"]
    {
        assert!(services.iter().any(|name| name == service), "{service} is not in {found}");
    }
    assert_eq!(found["health"], "SERVING", "{found}");
    Ok(())
}

#[test]
fn the_example_admits_a_sandbox_and_waits_where_waiting_helps() -> Result<()> {
    admits_and_waits(|lab, agent| Peer::new(agent)?.example(lab.dir()))
}

#[test]
fn the_example_in_go_admits_a_sandbox_and_waits_where_waiting_helps() -> Result<()> {
    admits_and_waits(|lab, agent| go_example(agent, lab.dir()))
}

fn admits_and_waits<E>(example: impl FnOnce(&Lab, &Agent) -> Result<E>) -> Result<()>
where
    E: Fn(&[&str]) -> Result<CtlOutput>,
{
    // The gateway, and one more.
    let lab = Lab::with_prefix(30)?;
    let config = lab.config()?.with_pool("cooldown_bypass", "false")?;
    let agent = lab.agent_with(Launch::config(&config.with_pool("cooldown", "\"3s\"")?)?)?;
    let example = example(&lab, &agent)?;
    let (first, second) = (lab.sandbox("a")?, lab.sandbox("b")?);
    let (mac, port) = (first.mac().to_string(), first.port().to_owned());
    let admit = |name: &str, sandbox: &Sandbox| {
        let (mac, port) = (sandbox.mac().to_string(), sandbox.port().to_owned());
        let owner = ["admit", "--pool", POOL, "--sandbox", name, "--lifecycle", "1"];
        example(&[&owner[..], &["--mac", &mac, "--port", &port]].concat())
    };
    let admitted = admit("first", &first)?;
    anyhow::ensure!(admitted.stdout == "10.8.64.2/30 via 10.8.64.1\n", "{admitted:?}");
    let entry = agent.entry([10, 8, 64, 2].into())?.context("not listed")?;
    let says = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
    let expected = ["active", "first", "1", &*mac, &*port].map(str::to_owned);
    assert_eq!(["state", "sandbox", "lifecycle", "mac", "interface"].map(says), expected);
    // Nobody knows when it is free: no use to wait.
    let refused = admit("second", &second)?;
    anyhow::ensure!(refused.code == 1, "{refused:?}");
    // The status' name is the language's affair.
    assert!(refused.stderr.contains("/POOL_EXHAUSTED: "), "{refused:?}");
    // As a controller does: the sandbox goes first.
    first.delete()?;
    eventually("the end of its port", || {
        let ports = agent.list(&["ports"], "ports")?;
        Ok((!ports.iter().any(|shown| shown["interface"] == *port)).then_some(()))
    })?;
    let dismissed = example(&["dismiss", "--sandbox", "first", "--lifecycle", "1"])?;
    assert_eq!(dismissed.stdout, "OUTCOME_COOLING\n", "{dismissed:?}");
    let admitted = admit("second", &second)?;
    assert_eq!(admitted.stdout, "10.8.64.2/30 via 10.8.64.1\n", "{admitted:?}");
    let listed = example(&["list", "--pool", POOL])?;
    assert_eq!(listed.stdout, "10.8.64.2 LEASE_STATE_ACTIVE second\n", "{listed:?}");
    let again = example(&["dismiss", "--sandbox", "first", "--lifecycle", "1"])?;
    assert_eq!(again.stdout, "OUTCOME_NOT_FOUND\n", "{again:?}");
    Ok(())
}
