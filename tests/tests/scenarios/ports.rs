//! Ports: all are covered, also while they come and go.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use guard_tests::{Agent, BRIDGE, Lab, eventually};

const ROUNDS: u32 = 12;
const AT_ONCE: u32 = 8;

/// The ports that the agent says it covers.
fn covered(agent: &Agent) -> Result<BTreeSet<String>> {
    let ports = agent.list(&["ports"], "ports")?;
    let covered = ports.iter().filter(|port| port["covered"] == true);
    covered
        .map(|port| Ok(port["interface"].as_str().context("a port without a name")?.to_owned()))
        .collect()
}

#[test]
fn a_port_is_covered_soon_after_it_appears_and_gone_with_it() -> Result<()> {
    let lab = Lab::new()?;
    let before = lab.sandbox("before")?;
    let agent = lab.agent()?;
    let after = lab.sandbox("after")?;
    eventually("both ports covered", || {
        let both = [before.port(), after.port()].map(str::to_owned).into();
        Ok((covered(&agent)? == both).then_some(()))
    })?;
    for sandbox in [&before, &after] {
        assert_eq!(lab.programs_on(sandbox.port())?.len(), 1, "{}", sandbox.port());
    }
    let ports = agent.list(&["ports"], "ports")?;
    for port in &ports {
        assert_eq!((&port["bridge"], &port["kind"]), (&BRIDGE.into(), &"access".into()), "{port}");
        assert_eq!(port["attach"], lab.attach()?, "{port}");
        let programs = lab.programs_on(port["interface"].as_str().context("no name")?)?;
        assert_eq!(port["program_id"], *programs.first().context("no program")?, "{port}");
    }
    before.delete()?;
    eventually("one port", || Ok((agent.list(&["ports"], "ports")?.len() == 1).then_some(())))?;
    let labels = [("bridge", BRIDGE), ("covered", "true")];
    assert_eq!(agent.metric("guard_ports", &labels)?, Some(1.0));
    Ok(())
}

#[test]
fn ports_that_come_and_go_under_load_are_all_covered_in_the_end() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let (talker, listener) = (lab.sandbox("talker")?, lab.sandbox("listener")?);
    let lease = agent.admit(&talker)?;
    // The far ends of the ports that come and go.
    let far = lab.sandbox("far")?;
    let done = AtomicBool::new(false);
    let sent = std::thread::scope(|scope| -> Result<u64> {
        let traffic = scope.spawn(|| -> Result<u64> {
            let socket = talker.raw_socket()?;
            // For nobody's address, and each answered by what paces the next.
            let question =
                guard_tests::Arp::request(talker.mac(), lease.address, [10, 8, 64, 250].into());
            let ear = listener.raw_socket()?;
            let mut sent = 0;
            while !done.load(Ordering::Relaxed) && sent < 200_000 {
                socket.send(&question.frame())?;
                ear.receive(guard_tests::TIMEOUT, |frame| {
                    (frame == question.frame()).then_some(())
                })?;
                sent += 1;
            }
            Ok(sent)
        });
        let churned = churn(&lab, far.netns().name());
        done.store(true, Ordering::Relaxed);
        let sent = traffic.join().map_err(|_| anyhow::anyhow!("the traffic panicked"))?;
        churned?;
        sent
    })?;
    assert!(sent > u64::from(ROUNDS), "{sent} frames are no load");

    let mut expected: BTreeSet<String> =
        [talker.port(), listener.port(), far.port()].map(str::to_owned).into();
    expected.extend((0..AT_ONCE).map(|number| format!("churn{number}")));
    eventually("all ports covered, and no others", || {
        Ok((covered(&agent)? == expected).then_some(()))
    })
    .with_context(|| format!("{:?}", agent.list(&["ports"], "ports")))?;
    for port in &expected {
        assert_eq!(lab.programs_on(port)?.len(), 1, "{port}");
    }
    agent.await_readyz(200)?;
    // What was seen of the traffic is not lost with the ports that went.
    let ports = agent.list(&["ports"], "ports")?;
    let talked = ports.iter().find(|port| port["interface"] == talker.port()).context("no port")?;
    assert!(talked["frames"].as_u64().context("no number")? >= sent, "{talked}");
    Ok(())
}

/// Makes and removes ports, with the same names again and again; the last ones stay.
fn churn(lab: &Lab, far: &str) -> Result<()> {
    for round in 0..ROUNDS {
        let make = |number| {
            format!(
                "link add churn{number} type veth peer name far{number} netns {far}\n\
                 link set churn{number} master {BRIDGE} up\n"
            )
        };
        lab.host().ip(&(0..AT_ONCE).map(make).collect::<String>())?;
        if round + 1 < ROUNDS {
            let remove = |number| format!("link delete churn{number}\n");
            lab.host().ip(&(0..AT_ONCE).map(remove).collect::<String>())?;
        }
    }
    Ok(())
}

#[test]
fn a_port_that_leaves_the_bridge_is_left_alone() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let sandbox = lab.sandbox("a")?;
    eventually("the port covered", || Ok((covered(&agent)?.len() == 1).then_some(())))?;
    lab.host().ip(&format!("link set {} nomaster", sandbox.port()))?;
    eventually("no port", || Ok(agent.list(&["ports"], "ports")?.is_empty().then_some(())))?;
    eventually("no program", || Ok(lab.programs_on(sandbox.port())?.is_empty().then_some(())))
}
