//! The runbook of `GuardDuplicateAddress`, step by step as it stands in docs/operations.md.

use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use guard_tests::{GATEWAY, Lab, Launch, NameServer, ask, eventually, run};

#[test]
fn a_duplicate_is_re_addressed_without_hurting_the_owner() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent_with(Launch::config(&lab.config()?.with("conflict.quiet = \"1s\"")?)?)?;
    let (owner, other) = (lab.sandbox("web-1")?, lab.sandbox("web-2")?);
    let lease = agent.admit(&owner)?;
    agent.await_port(&other)?;
    other.add_address(lease.address)?;
    let _servers = (NameServer::start(&owner)?, NameServer::start(&other)?);
    other.announce(lease.address)?;
    agent.journal().await_line(&["conflict: two claimants", &lease.address.to_string()])?;

    let new = agent.allocate("web-2")?;
    agent.bind(&new, &other)?;
    let (old, prefix) = (lease.address, lab.prefix().prefix_len());
    let inside = |sandbox: &guard_tests::Sandbox, line: &str| -> Result<()> {
        let words: Vec<_> = line.split(' ').collect();
        let (program, arguments) = words.split_first().context("an empty line")?;
        let status = sandbox.netns().command(program).args(arguments).output()?;
        anyhow::ensure!(status.status.success(), "{line}: {status:?}");
        Ok(())
    };
    for line in [
        "sysctl -w net.ipv4.conf.eth0.promote_secondaries=1".to_owned(),
        format!("ip address add {}/{prefix} dev eth0", new.address),
        format!("ip route replace default via {GATEWAY} src {}", new.address),
        format!("ip address del {old}/{prefix} dev eth0"),
    ] {
        inside(&other, &line)?;
    }
    inside(&owner, &format!("arping -A -c 3 -I eth0 {old}"))?;

    let addresses = run("ip", &["-n", other.netns().name(), "-br", "-4", "address"])?;
    assert!(addresses.contains(&new.address.to_string()), "{addresses}");
    assert!(!addresses.contains(&format!("{old}/")), "{addresses}");
    eventually("the end of the conflict", || {
        Ok(agent.list(&["conflicts"], "conflicts")?.is_empty().then_some(()))
    })?;
    let says = |address: Ipv4Addr, name: &str| -> Result<()> {
        let answers = ask(lab.host(), address, 10)?;
        assert_eq!(answers.by_name.get(name), Some(&10), "{address}: {answers:?}");
        Ok(())
    };
    says(old, "web-1")?;
    says(new.address, "web-2")
}
